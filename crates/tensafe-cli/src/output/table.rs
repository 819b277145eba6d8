//! Columns that fit the terminal: less telling ones go first, then the first column is cut.

use std::io::{self, Write};

use anstyle::Style;

use super::{DIM, text};

/// The first column keeps at least this many columns of the terminal before others go.
const NARROWEST: usize = 24;

pub(super) struct Column {
    title: &'static str,
    right: bool,
    /// Columns go in ascending order of this; `None` stays.
    weight: Option<u8>,
}

/// A table whose first column holds names, each with its depth in a tree.
pub(super) struct Table {
    columns: Vec<Column>,
    rows: Vec<Row>,
}

pub(super) struct Row {
    pub(super) depth: usize,
    pub(super) name: String,
    pub(super) cells: Vec<String>,
    pub(super) style: Style,
}

impl Column {
    pub(super) const fn left(title: &'static str, weight: Option<u8>) -> Self {
        Self { title, right: false, weight }
    }

    pub(super) const fn right(title: &'static str, weight: Option<u8>) -> Self {
        Self { title, right: true, weight }
    }
}

impl Table {
    /// A table of these columns beside that of the names.
    pub(super) fn new(columns: Vec<Column>) -> Self {
        Self { columns, rows: Vec::new() }
    }

    pub(super) fn push(&mut self, row: Row) {
        self.rows.push(row);
    }

    pub(super) fn write(&self, width: Option<usize>, out: &mut impl Write) -> io::Result<()> {
        let widths: Vec<usize> = self.columns.iter().enumerate().map(|(i, c)| self.width(i, c)).collect();
        let names = self.rows.iter().map(Row::columns).max().unwrap_or(0).max(4);
        let (shown, names) = self.fit(&widths, names, width);

        let mut line = String::from("name");
        pad(&mut line, names);
        for i in &shown {
            self.cell(&mut line, *i, self.columns.get(*i).map_or("", |c| c.title), &widths);
        }
        writeln!(out, "{DIM}{}{DIM:#}", line.trim_end())?;
        for row in &self.rows {
            line.clear();
            line.extend(std::iter::repeat_n(' ', row.indent(names)));
            line.push_str(&text::cut(&row.name, names.saturating_sub(row.indent(names))));
            pad(&mut line, names);
            for i in &shown {
                self.cell(&mut line, *i, row.cells.get(*i).map_or("", String::as_str), &widths);
            }
            writeln!(out, "{}{}{:#}", row.style, line.trim_end(), row.style)?;
        }
        Ok(())
    }

    fn width(&self, place: usize, column: &Column) -> usize {
        let cells = self.rows.iter().filter_map(|row| row.cells.get(place)).map(|cell| text::columns(cell));
        cells.max().unwrap_or(0).max(column.title.len())
    }

    /// Which columns are shown, and how wide names are.
    fn fit(&self, widths: &[usize], names: usize, width: Option<usize>) -> (Vec<usize>, usize) {
        let mut shown: Vec<usize> = (0..widths.len()).collect();
        let Some(width) = width else { return (shown, names) };
        let taken = |shown: &[usize]| {
            shown
                .iter()
                .filter_map(|i| widths.get(*i))
                .fold(0usize, |sum, w| sum.saturating_add(*w).saturating_add(2))
        };
        while taken(&shown).saturating_add(names.min(NARROWEST)) > width {
            let weight = |i: &usize| self.columns.get(*i).and_then(|column| column.weight);
            let least = shown.iter().copied().filter(|i| weight(i).is_some()).min_by_key(weight);
            let Some(least) = least else { break };
            shown.retain(|i| *i != least);
        }
        let room = width.saturating_sub(taken(&shown)).max(8);
        (shown, names.min(room))
    }

    fn cell(&self, line: &mut String, place: usize, cell: &str, widths: &[usize]) {
        let width = widths.get(place).copied().unwrap_or(0);
        line.push_str("  ");
        let blank = width.saturating_sub(text::columns(cell));
        let right = self.columns.get(place).is_some_and(|column| column.right);
        if right {
            line.extend(std::iter::repeat_n(' ', blank));
        }
        line.push_str(cell);
        if !right {
            line.extend(std::iter::repeat_n(' ', blank));
        }
    }
}

impl Row {
    fn columns(&self) -> usize {
        self.depth.saturating_mul(2).saturating_add(text::columns(&self.name))
    }

    /// Blanks before the name; deep trees on narrow terminals lose some.
    fn indent(&self, names: usize) -> usize {
        self.depth.saturating_mul(2).min(names / 2)
    }
}

fn pad(line: &mut String, columns: usize) {
    let blank = columns.saturating_sub(text::columns(line));
    line.extend(std::iter::repeat_n(' ', blank));
}
