//! A marked-up table on its way to rows of cells: what spans columns and rows, and what is left open.

use super::html::attribute;
use super::page::{COLUMNS, Cell, ROW, Row, Table};

/// A table being read.
#[derive(Default)]
pub(super) struct Building {
    rows: Vec<Row>,
    /// Whether the first row has headings in it.
    headed: bool,
    line: usize,
    /// Tables inside a cell of this one.
    pub(super) inner: usize,
    open_row: bool,
    open_cell: bool,
    /// How many columns more the open cell spans.
    pub(super) span: usize,
    /// By column: for how many rows more a cell above fills it, and what it says.
    above: Vec<(usize, Cell)>,
    /// The rows that the open cell spans.
    spanned: usize,
    /// What cells that span rows may still be repeated, in bytes.
    pub(super) repeats: usize,
}

impl Building {
    pub(super) fn new(line: usize) -> Self {
        Self {
            line,
            repeats: ROW,
            ..Self::default()
        }
    }

    pub(super) fn row(&mut self, line: usize) {
        self.end_row();
        self.open_row = true;
        self.rows.push(Row::at(line));
    }

    pub(super) fn end_row(&mut self) {
        self.end_cell();
        if self.open_row {
            self.fill();
        }
        self.open_row = false;
    }

    pub(super) fn end_cell(&mut self) {
        let row_number = self.rows.len();
        let (Some(row), true) = (self.rows.last_mut(), self.open_cell) else {
            return;
        };
        self.open_cell = false;
        if let (Some(cell), true) = (row.cells.last(), self.spanned > 1) {
            let column = row.cells.len() - 1;
            if column < COLUMNS {
                self.above
                    .resize(self.above.len().max(column + 1), (0, Cell::at(0)));
                self.above[column] = (self.spanned - 1, cell.clone());
            }
        }
        let mut spanned = Cell::at(row.last);
        if let (Some(cell), true) = (row.cells.last(), self.headed && row_number == 1) {
            spanned.clone_from(cell);
            self.repeats = self.repeats.saturating_sub(cell.text.len() * self.span);
        }
        let span = if self.repeats == 0 { 0 } else { self.span };
        row.cells.extend(std::iter::repeat_n(spanned, span));
    }

    /// Puts the cells that reach down from above where the row is now.
    fn fill(&mut self) {
        let Some(row) = self.rows.last_mut() else {
            return;
        };
        while let Some((left, cell)) = self.above.get_mut(row.cells.len())
            && *left > 0
        {
            *left -= 1;
            self.repeats = self.repeats.saturating_sub(cell.text.len() + 8);
            row.cells.push(cell.clone());
        }
    }

    pub(super) fn cell(&mut self, line: usize, attributes: &str, heading: bool) {
        if !self.open_row {
            self.row(line);
        }
        self.end_cell();
        self.fill();
        self.headed |= heading && self.rows.len() == 1;
        let span = |name| {
            let span =
                attribute(attributes, name).and_then(|span| span.trim().parse::<usize>().ok());
            span.unwrap_or(1).clamp(1, 1000)
        };
        self.span = span("colspan").min(COLUMNS) - 1;
        self.spanned = span("rowspan");
        if let Some(row) = self.rows.last_mut() {
            row.cells.push(Cell::at(line));
        }
        self.open_cell = true;
    }

    pub(super) fn text(&mut self, line: usize) -> Option<&mut Cell> {
        let row = self.rows.last_mut().filter(|_| self.open_cell)?;
        row.last = line;
        row.cells.last_mut()
    }

    pub(super) fn finish(mut self, heading: &str) -> Table {
        self.end_row();
        let header = self.headed && !self.rows.is_empty();
        let header = header.then(|| self.rows.remove(0));
        Table {
            heading: heading.to_owned(),
            line: self.line,
            header: header.map(|row| row.cells.into_iter().map(|cell| cell.text).collect()),
            rows: self.rows,
        }
    }
}
