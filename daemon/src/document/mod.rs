//! TOML read key by key. Every value knows its place, and problems are collected, so that one reading
//! reports all of them. Knows nothing of what the keys mean; does no I/O.

mod nearest;
mod table;

pub use nearest::{did_you_mean, nearest};
pub use table::{Table, Value};

use std::cell::{Cell, RefCell};
use std::fmt;
use toml::de::DeTable;

/// A range of bytes of a document.
pub type Span = std::ops::Range<usize>;

/// Something wrong in a file, with its place and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The file as the caller named it.
    pub file: String,
    /// Line and column, both from 1, the column in characters; `None` when the whole file is meant.
    pub place: Option<(usize, usize)>,
    /// What is wrong, and after a semicolon what to write instead.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place {
            Some((line, column)) => write!(f, "{}:{line}:{column}: {}", self.file, self.what),
            None => write!(f, "{}: {}", self.file, self.what),
        }
    }
}

/// Every problem of one reading, by file and place; never empty. Displays one a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// One problem with a whole file.
    #[must_use]
    pub fn with_file(file: &str, what: String) -> Self {
        Self(vec![Problem {
            file: file.to_owned(),
            place: None,
            what,
        }])
    }

    /// One problem.
    #[must_use]
    pub fn one(problem: Problem) -> Self {
        Self(vec![problem])
    }

    /// The problems, by file and place.
    #[must_use]
    pub fn list(&self) -> &[Problem] {
        &self.0
    }
}

/// How many problems are shown of one reading.
const SHOWN: usize = 100;

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.0.iter().take(SHOWN).enumerate() {
            write!(f, "{}{problem}", if i == 0 { "" } else { "\n" })?;
        }
        match self.0.len().checked_sub(SHOWN) {
            None | Some(0) => Ok(()),
            Some(more) => write!(f, "\nand {more} more"),
        }
    }
}

impl std::error::Error for Problems {}

/// The text of a file that problems will call `file`.
///
/// # Errors
/// With the place of the first byte that is not UTF-8.
pub fn text<'b>(bytes: &'b [u8], file: &str) -> Result<&'b str, Problems> {
    std::str::from_utf8(bytes).map_err(|error| {
        let good = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
        let document = Document::new(&good, file);
        let what = format!(
            "the byte {:#04x} is not UTF-8; write text in that encoding",
            bytes[good.len()]
        );
        document.problem(&(good.len()..good.len()), what);
        Problems(document.problems.into_inner())
    })
}

/// A text being read, and what was found wrong with it so far.
#[derive(Debug)]
pub struct Document<'t> {
    file: &'t str,
    text: &'t str,
    problems: RefCell<Vec<Problem>>,
    /// How many of the problems are mistakes of syntax; they come first.
    syntax: Cell<usize>,
}

impl<'t> Document<'t> {
    /// A document that problems will call `file`.
    #[must_use]
    pub fn new(text: &'t str, file: &'t str) -> Self {
        Self {
            file,
            text,
            problems: RefCell::default(),
            syntax: Cell::default(),
        }
    }

    /// Its outermost table. Text that is no TOML becomes problems; nothing else is then said about it,
    /// for it would be about what was guessed of the text.
    pub fn root(&self) -> Table<'_, 't> {
        let (root, errors) = DeTable::parse_recoverable(self.text);
        for error in &errors {
            let span = error.span().unwrap_or(0..0);
            self.problem(&span, format!("this is not TOML: {}", error.message()));
        }
        self.syntax.set(errors.len());
        Table::new(self, 0..0, root.into_inner())
    }

    /// How many problems were noted so far: a reader that finds nothing asks whether that was because
    /// of them.
    #[must_use]
    pub fn noted(&self) -> usize {
        self.problems.borrow().len()
    }

    /// Notes that something is wrong at `span`.
    pub fn problem(&self, span: &Span, what: impl Into<String>) {
        self.problems.borrow_mut().push(Problem {
            file: self.file.to_owned(),
            place: Some(self.place(span.start)),
            what: what.into(),
        });
    }

    /// Takes over the problems of another file that this one names.
    pub fn adopt(&self, other: Problems) {
        self.problems.borrow_mut().extend(other.0);
    }

    /// Where something stands, as `egressd.toml:12`.
    #[must_use]
    pub fn origin(&self, span: &Span) -> String {
        format!("{}:{}", self.file, self.place(span.start).0)
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// With every problem noted.
    pub fn finish<T>(self, value: T) -> Result<T, Problems> {
        let mut problems = self.problems.into_inner();
        if problems.is_empty() {
            return Ok(value);
        }
        if self.syntax.get() > 0 {
            problems.truncate(self.syntax.get());
        }
        problems.sort();
        problems.dedup();
        Err(Problems(problems))
    }

    fn place(&self, at: usize) -> (usize, usize) {
        let before = self.text.get(..at).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let line = before.matches('\n').count() + 1;
        (line, before[line_start..].chars().count() + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_text_has_a_place() {
        fn check(bytes: &[u8], expected: Result<&str, &str>) {
            let read = text(bytes, "e.toml").map_err(|problems| problems.to_string());
            let expected = expected.map_err(|place| {
                format!("e.toml:{place} is not UTF-8; write text in that encoding")
            });
            assert_eq!(read, expected);
        }
        check(b"a = 1", Ok("a = 1"));
        check("ä\nöa\u{1F600}".as_bytes(), Ok("ä\nöa\u{1F600}"));
        check(b"\xff", Err("1:1: the byte 0xff"));
        check(b"a\nb\xc3\xa4\xc3", Err("2:3: the byte 0xc3"));
    }
}
