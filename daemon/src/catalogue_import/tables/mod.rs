//! Rendered tables of endpoint pages: markdown, HTML, and plain copies of a page. Columns are known
//! by their headings in the languages pages come in, or by what their cells hold.

mod building;
mod columns;
mod html;
mod lines;
mod page;
mod rows;
mod words;

#[cfg(test)]
pub(super) mod tests;

use super::{TOO_MANY, fold, prose};
use crate::document::{Document, Problems};
use crate::policy::catalogue::{Account, Catalogue};
use page::{Page, Refused};

/// Whether a text has a table in it.
#[must_use]
pub(super) fn is_tables(text: &str) -> bool {
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if lines::is_head(line, lines.peek().copied()) || has_table(line) {
            return true;
        }
    }
    false
}

fn has_table(line: &str) -> bool {
    let mut rest = line;
    while let Some((_, behind)) = rest.split_once('<') {
        if behind
            .get(..5)
            .is_some_and(|name| name.eq_ignore_ascii_case("table"))
        {
            return true;
        }
        rest = behind;
    }
    false
}

/// Whether a text is marked up as a whole.
fn is_html(text: &str) -> bool {
    let start = text.trim_start();
    let starts = |with: &str| {
        let start = start.get(..with.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(with))
    };
    [
        "<!doctype",
        "<html",
        "<head",
        "<body",
        "<div",
        "<main",
        "<article",
        "<table",
        "<?xml",
    ]
    .iter()
    .any(|with| starts(with))
}

/// Reads the tables of a page: one set a row. What else the page names is reported.
///
/// # Errors
/// When its markup cannot be read, or no table of it lists endpoints.
pub fn tables(text: &str, file: &str) -> Result<Catalogue, Problems> {
    let folded = fold::fold(text);
    let mut page = Page::default();
    let read = if is_html(&folded) {
        html::read(&folded, 1, false, &mut page).map(|_| ())
    } else {
        lines::read(&folded, &mut page)
    };
    read.map_err(|refused| problem(text, file, refused))?;
    let mut catalogue = Catalogue {
        title: page.title.clone(),
        version: page.version.clone(),
        source: file.to_owned(),
        ..Catalogue::default()
    };
    let account = &mut catalogue.account;
    for table in &page.tables {
        let sets = rows::sets(table, account);
        catalogue.sets.extend(sets);
        if account.reported.len() > TOO_MANY {
            let what = "too much here is neither a name, a network nor a port; is it a catalogue?";
            return Err(problem(text, file, Refused::new(table.line, what)));
        }
    }
    beside(&page, account);
    if account.reported.len() > TOO_MANY {
        return Err(Problems::with_file(
            file,
            "its tables are lost among other names; cut them out".to_owned(),
        ));
    }
    if catalogue.sets.is_empty() {
        let what = "no table of it has a column of addresses and one of ports or ids; \
                    write the headings ID, Addresses and Ports, or [[set]] tables";
        return Err(Problems::with_file(file, what.to_owned()));
    }
    Ok(catalogue)
}

/// Reports what stands beside the tables.
fn beside(page: &Page, account: &mut Account) {
    for (line, count) in &page.comments {
        let why = format!(
            "a comment with {count} names and networks, which readers of the page do not see; \
             take the marks away if they are meant"
        );
        account.report(&format!("line {line}"), "<!--", why);
    }
    for (line, link) in &page.links {
        if prose::words(link).next().is_some() {
            let why = "the target of a link; add it with a [[set]] if it is needed";
            account.report(&format!("line {line}"), link, why);
        }
    }
    for (line, text) in &page.text {
        let why = "prose; add it with a [[zone.rule]] or a [[set]] if it is needed";
        prose::report(text, *line, why, account);
        if account.reported.len() > TOO_MANY {
            return;
        }
    }
}

fn problem(text: &str, file: &str, refused: Refused) -> Problems {
    let document = Document::new(text, file);
    let lines = text.split_inclusive('\n').take(refused.line - 1);
    let start = lines.map(str::len).sum::<usize>();
    document.problem(&(start..start), refused.what);
    match document.finish(()) {
        Ok(()) => Problems::with_file(file, String::new()),
        Err(problems) => problems,
    }
}
