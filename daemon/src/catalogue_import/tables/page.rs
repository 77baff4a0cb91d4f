//! What a page holds once its markup is gone: tables, and the text between them.

use super::super::{TOO_MANY, prose};

/// The most columns a table has.
pub(super) const COLUMNS: usize = 64;
/// The most bytes a row has.
pub(super) const ROW: usize = 1 << 20;

/// The most rows and cells a page has together.
const CELLS: usize = 4_000_000;

/// A page.
#[derive(Debug, Default)]
pub(super) struct Page {
    /// Its first heading.
    pub(super) title: String,
    /// The heading that was last.
    pub(super) heading: String,
    pub(super) version: String,
    pub(super) tables: Vec<Table>,
    /// Text outside of tables, with its line.
    pub(super) text: Vec<(usize, String)>,
    /// Links to elsewhere, with their line.
    pub(super) links: Vec<(usize, String)>,
    /// Comments that name something: their line, and how many names and networks.
    pub(super) comments: Vec<(usize, usize)>,
    /// How many rows and cells its tables have.
    cells: usize,
}

/// A table.
#[derive(Debug)]
pub(super) struct Table {
    /// What stands above it.
    pub(super) heading: String,
    pub(super) line: usize,
    /// Names of columns; `None` when it has none.
    pub(super) header: Option<Vec<String>>,
    pub(super) rows: Vec<Row>,
}

/// A row, with its first and last line.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) first: usize,
    pub(super) last: usize,
    pub(super) cells: Vec<Cell>,
}

impl Row {
    pub(super) const fn at(line: usize) -> Self {
        Self {
            first: line,
            last: line,
            cells: Vec::new(),
        }
    }

    /// As people count: `line 3`, `lines 3-5`.
    pub(super) fn origin(&self) -> String {
        if self.first == self.last {
            format!("line {}", self.first)
        } else {
            format!("lines {}-{}", self.first, self.last)
        }
    }
}

/// A cell: lines for breaks, back ticks around code, otherwise plain text.
#[derive(Clone, Debug)]
pub(super) struct Cell {
    pub(super) line: usize,
    pub(super) text: String,
}

impl Cell {
    pub(super) const fn at(line: usize) -> Self {
        Self {
            line,
            text: String::new(),
        }
    }
}

/// Why a page cannot be read.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) line: usize,
    pub(super) what: String,
}

impl Refused {
    pub(super) fn new(line: usize, what: impl Into<String>) -> Self {
        Self {
            line,
            what: what.into(),
        }
    }
}

impl Page {
    /// Keeps a text that names something. Only as much as is ever reported.
    pub(super) fn prose(&mut self, line: usize, text: &str) {
        if self.text.len() <= TOO_MANY && prose::words(text).next().is_some() {
            self.text.push((line, text.to_owned()));
        }
    }

    pub(super) fn link(&mut self, line: usize, link: &str) {
        if self.links.len() <= TOO_MANY {
            self.links.push((line, link.to_owned()));
        }
    }

    /// Counts rows and cells that are about to be kept.
    pub(super) fn count(&mut self, cells: usize, line: usize) -> Result<(), Refused> {
        self.cells += cells;
        if self.cells > CELLS {
            let what = format!("more than {CELLS} rows and cells; it is no list of endpoints");
            return Err(Refused::new(line, what));
        }
        Ok(())
    }

    /// A heading of the page, or with `first` of all of it.
    pub(super) fn head(&mut self, heading: &str, first: bool) {
        heading.trim().clone_into(&mut self.heading);
        if first && self.title.is_empty() {
            self.title.clone_from(&self.heading);
        }
    }

    /// A comment: what generated a page often says its version there.
    pub(super) fn comment(&mut self, line: usize, comment: &str) {
        if let Some((_, behind)) = comment.split_once("version ") {
            let end = behind.find(|c: char| !c.is_ascii_digit());
            let digits = &behind[..end.unwrap_or(behind.len())];
            if (8..=14).contains(&digits.len()) && self.version.is_empty() {
                digits.clone_into(&mut self.version);
            }
        }
        let count = prose::words(comment).take(TOO_MANY).count();
        if count > 0 && self.comments.len() <= TOO_MANY {
            self.comments.push((line, count));
        }
    }
}
