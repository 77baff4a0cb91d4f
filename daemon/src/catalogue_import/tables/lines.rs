//! Tables made of lines: markdown, and plain copies of a page whose rows are broken over lines.

use super::html;
use super::page::{COLUMNS, Cell, Page, ROW, Refused, Row, Table};

/// Whether a line is the one between the head and the rows: `---|:--:|---`.
pub(super) fn is_rule(line: &str) -> bool {
    let line = quoted(line);
    line.contains('-') && line.contains('|') && line.chars().all(|c| "-:| \t\r".contains(c))
}

/// Whether a line is the head of a table by the line that follows it.
pub(super) fn is_head(line: &str, next: Option<&str>) -> bool {
    line.contains('|') && !is_rule(line) && next.is_some_and(is_rule)
}

/// A line without the marks of a quotation and blanks around.
fn quoted(line: &str) -> &str {
    line.trim_start_matches([' ', '\t', '>']).trim_end()
}

/// Reads a page of markdown or plain text.
pub(super) fn read(text: &str, page: &mut Page) -> Result<(), Refused> {
    let text = &without_comments(text, page)?;
    let mut rest = &**text;
    let mut line = 1;
    let mut fenced = false;
    while !rest.is_empty() {
        let (this, behind) = cut_line(rest);
        let trimmed = quoted(this);
        if trimmed.starts_with("```") || trimmed.starts_with("~~~") {
            fenced = !fenced;
        }
        let next = cut_line(behind).0;
        if !fenced && starts_table(trimmed) {
            let left = html::read(rest, line, true, page)?;
            line += newlines(&rest[..rest.len() - left.len()]);
            rest = left;
        } else if !fenced && is_head(this, Some(next)) {
            (rest, line) = table(rest, line, page)?;
        } else {
            if let Some(heading) = trimmed.strip_prefix('#').filter(|_| !fenced) {
                let first = !heading.starts_with('#');
                page.head(heading.trim_matches(['#', ' ']), first);
            }
            page.prose(line, this);
            rest = behind;
            line += 1;
        }
    }
    Ok(())
}

fn starts_table(line: &str) -> bool {
    let start = line.get(..6);
    start.is_some_and(|start| start.eq_ignore_ascii_case("<table"))
        && line[6..]
            .chars()
            .next()
            .is_none_or(|c| c == '>' || c.is_whitespace())
}

fn newlines(text: &str) -> usize {
    text.matches('\n').count()
}

/// The first line of a text without its end, and what follows.
fn cut_line(text: &str) -> (&str, &str) {
    text.split_once('\n').unwrap_or((text, ""))
}

/// A text whose comments are blanks; lines stay lines.
fn without_comments(text: &str, page: &mut Page) -> Result<String, Refused> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut line = 1;
    while let Some((before, comment)) = rest.split_once("<!--") {
        line += newlines(before);
        let Some((inside, behind)) = comment.split_once("-->") else {
            let what = "a comment begins here and never ends; close it with -->";
            return Err(Refused::new(line, what));
        };
        page.comment(line, inside);
        out.push_str(before);
        let lines = newlines(inside);
        out.extend(std::iter::repeat_n('\n', lines));
        line += lines;
        rest = behind;
    }
    out.push_str(rest);
    Ok(out)
}

/// Reads the table that a text begins with; returns what follows, and its line.
fn table<'t>(text: &'t str, start: usize, page: &mut Page) -> Result<(&'t str, usize), Refused> {
    let (head, rest) = cut_line(text);
    let (_, mut rest) = cut_line(rest);
    let mut line = start + 2;
    let long = || Refused::new(start, "a row is longer than 1 MB; it is no table");
    if head.len() > ROW {
        return Err(long());
    }
    let header = cells(head, start);
    let columns = header.len();
    page.count(1 + columns, start)?;
    if columns > COLUMNS {
        return Err(Refused::new(
            start,
            format!("a table has {columns} columns; no more than {COLUMNS} are read"),
        ));
    }
    let broken = !quoted(head).starts_with('|') && quoted(head).ends_with('|');
    let mut table = Table {
        heading: page.heading.clone(),
        line: start,
        header: None,
        rows: Vec::new(),
    };
    let mut titles = Row::at(start);
    for cell in header {
        titles.cells.push(plain(&cell, page));
    }
    table.header = Some(titles.cells.into_iter().map(|cell| cell.text).collect());
    loop {
        let (this, behind) = cut_line(rest);
        if !this.contains('|') || is_head(this, Some(cut_line(behind).0)) {
            break;
        }
        let first = line;
        // How much of the text the row takes.
        let (mut length, mut lines) = (this.len(), 1);
        if broken {
            let joined = join(rest, columns);
            // Each line that was looked at is taken, or the reading would be quadratic.
            if joined.row.is_none() && joined.looked.1 > 1 {
                let (length, lines) = joined.looked;
                short(&rest[..length], line, &mut table, page)?;
                rest = rest.get(length + 1..).unwrap_or("");
                line += lines;
                continue;
            }
            (length, lines) = joined.row.unwrap_or((length, lines));
        }
        if length > ROW {
            return Err(Refused::new(first, long().what));
        }
        let mut row = Row::at(first);
        row.last = first + lines - 1;
        let written = cells(&rest[..length], first);
        page.count(1 + written.len(), first)?;
        for cell in written {
            row.cells.push(plain(&cell, page));
        }
        table.rows.push(row);
        rest = rest.get(length + 1..).unwrap_or("");
        line += lines;
    }
    page.tables.push(table);
    Ok((rest, line))
}

/// Lines from the first on: how many bytes, without the last end of line, and how many lines.
type Extent = (usize, usize);

/// What a line that is no whole row may go on with.
struct Joined {
    /// The lines of a whole row.
    row: Option<Extent>,
    /// The lines that were looked at.
    looked: Extent,
}

/// Looks for the lines that make a row of `columns` cells with the first of `text`. A row that has
/// fewer cells ends where the next begins, if rows begin with numbers.
fn join(text: &str, columns: usize) -> Joined {
    let (first, mut follows) = cut_line(text);
    let mut pipes = separators(first);
    let mut joined = Joined {
        row: None,
        looked: (first.len(), 1),
    };
    while pipes < columns && !follows.is_empty() && joined.looked.0 <= ROW {
        let (more, behind) = cut_line(follows);
        let next = pipes + separators(more);
        let begins = numbered(first) && numbered(more);
        if more.trim().is_empty()
            || next > columns
            || begins
            || is_head(more, Some(cut_line(behind).0))
        {
            break;
        }
        let (length, lines) = joined.looked;
        joined.looked = (length + 1 + more.len(), lines + 1);
        if more.trim_end().ends_with('|') && (next == columns || numbered(first)) {
            joined.row = Some(joined.looked);
        }
        (pipes, follows) = (next, behind);
    }
    joined
}

/// Whether a line begins with a cell that is a number.
fn numbered(line: &str) -> bool {
    line.split_once('|').is_some_and(|(cell, _)| {
        let cell = cell.trim();
        !cell.is_empty() && cell.bytes().all(|byte| byte.is_ascii_digit())
    })
}

/// Lines that are no whole row together: each is a row of its own, or text.
fn short(text: &str, start: usize, table: &mut Table, page: &mut Page) -> Result<(), Refused> {
    for (at, this) in text.split('\n').enumerate() {
        if this.contains('|') {
            let mut row = Row::at(start + at);
            let written = cells(this, start + at);
            page.count(1 + written.len(), start + at)?;
            for cell in written {
                row.cells.push(plain(&cell, page));
            }
            table.rows.push(row);
        } else {
            page.prose(start + at, this);
        }
    }
    Ok(())
}

/// How many `|` of a line are not escaped.
fn separators(line: &str) -> usize {
    let mut escaped = false;
    let separates = |byte: &u8| {
        let separates = *byte == b'|' && !escaped;
        escaped = *byte == b'\\' && !escaped;
        separates
    };
    line.bytes().filter(separates).count()
}

/// A row cut at its `|`, markup still in it.
fn cells(row: &str, line: usize) -> Vec<Cell> {
    let row = quoted(row);
    let row = row.strip_prefix('|').unwrap_or(row);
    let mut cells = Vec::new();
    let mut cell = Cell::at(line);
    let mut at = line;
    let mut escaped = false;
    for c in row.chars() {
        if c == '|' && !escaped {
            cells.push(std::mem::replace(&mut cell, Cell::at(at)));
        } else {
            cell.text.push(c);
        }
        if c == '\n' {
            at += 1;
            if cell.text.trim().is_empty() {
                cell.line = at;
            }
        }
        escaped = c == '\\' && !escaped;
    }
    if !cell.text.trim().is_empty() || !row.ends_with('|') {
        cells.push(cell);
    }
    cells
}

/// A cell without its markup.
fn plain(cell: &Cell, page: &mut Page) -> Cell {
    let mut links = Vec::new();
    let text = html::inline(&cell.text, &mut links);
    let text = unmarked(&text, &mut links);
    for link in links {
        page.link(cell.line, &link);
    }
    Cell {
        line: cell.line,
        text,
    }
}

/// A text without the backslashes and link targets of markdown.
fn unmarked(text: &str, links: &mut Vec<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(['\\', ']']) {
        out.push_str(&rest[..at]);
        let (mark, behind) = rest[at..].split_at(1);
        rest = behind;
        let target = behind.strip_prefix('(').filter(|_| mark == "]");
        if let Some(target) = target {
            let end = target.find([')', ' ', '\n', '(', '[']);
            if let Some(end) = end.filter(|end| target[*end..].starts_with(')')) {
                let link = &target[..end];
                if link.contains("://") {
                    links.push(link.to_owned());
                }
                rest = &target[end + 1..];
            }
            out.push(']');
        } else if mark == "]" || !behind.starts_with(|c: char| c.is_ascii_punctuation()) {
            out.push_str(mark);
        } else {
            let escaped = &behind[..1];
            out.push_str(escaped);
            rest = &behind[1..];
        }
    }
    out.push_str(rest);
    out
}
