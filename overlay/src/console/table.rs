//! Tables for people.

use std::fmt::Write;

use owo_colors::{OwoColorize, Style};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::console::harmless;

/// On which side the cells of a column begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// Text.
    Left,
    /// Numbers.
    Right,
}

/// A column: its heading and how it behaves.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    heading: &'static str,
    align: Align,
    flexible: bool,
}

impl Column {
    /// Text that is never cut.
    pub const fn left(heading: &'static str) -> Self {
        Self { heading, align: Align::Left, flexible: false }
    }

    /// Numbers.
    pub const fn right(heading: &'static str) -> Self {
        Self { heading, align: Align::Right, flexible: false }
    }

    /// Text that is cut when the terminal is too narrow.
    pub const fn flexible(heading: &'static str) -> Self {
        Self { heading, align: Align::Left, flexible: true }
    }
}

/// Rows under headings. Cells are made [`harmless`], so they may come from others.
#[derive(Clone, Debug)]
pub struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without rows.
    pub fn new(columns: impl Into<Vec<Column>>) -> Self {
        Self { columns: columns.into(), rows: Vec::new() }
    }

    /// Appends a row; missing cells are empty, surplus ones are dropped.
    pub fn row<C: AsRef<str>>(&mut self, cells: impl IntoIterator<Item = C>) {
        let mut row: Vec<String> = cells.into_iter().map(|cell| harmless(cell.as_ref()).into_owned()).collect();
        row.resize(self.columns.len(), String::new());
        self.rows.push(row);
    }

    /// True without rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The table as lines; nothing without rows. With a width, flexible columns are cut to fit it.
    pub(super) fn render(&self, width: Option<usize>, heading: Style) -> String {
        let mut text = String::new();
        if self.rows.is_empty() {
            return text;
        }
        let widths = self.widths(width);
        let headings: Vec<String> = self.columns.iter().map(|column| column.heading.to_owned()).collect();
        let line = self.line(&headings, &widths);
        // Writing to a string cannot fail.
        let _ = if heading.is_plain() { writeln!(text, "{line}") } else { writeln!(text, "{}", line.style(heading)) };
        for row in &self.rows {
            text.push_str(&self.line(row, &widths));
            text.push('\n');
        }
        text
    }

    fn line(&self, cells: &[String], widths: &[usize]) -> String {
        let mut line = String::new();
        for ((column, cell), &width) in self.columns.iter().zip(cells).zip(widths) {
            if !line.is_empty() {
                line.push_str(GAP);
            }
            let cell = cut(cell, width);
            let padding = " ".repeat(width.saturating_sub(cell.width()));
            match column.align {
                Align::Left => line.extend([cell.as_str(), &padding]),
                Align::Right => line.extend([padding.as_str(), &cell]),
            }
        }
        line.truncate(line.trim_end().len());
        line
    }

    /// The width of each column: what it needs, and for flexible ones at most an equal part of what is left.
    fn widths(&self, available: Option<usize>) -> Vec<usize> {
        let needed = |index: usize| {
            let cells = self.rows.iter().map(|row| row[index].width()).max().unwrap_or(0);
            cells.max(self.columns[index].heading.width())
        };
        let mut widths: Vec<usize> = (0..self.columns.len()).map(needed).collect();
        let Some(available) = available else { return widths };
        let gaps = GAP.len() * self.columns.len().saturating_sub(1);
        let fixed: usize = self.each(&widths, false).map(|(_, width)| width).sum();
        let mut left = available.saturating_sub(gaps + fixed);
        // The narrowest first: what they do not use goes to the wider ones.
        let mut flexible: Vec<(usize, usize)> = self.each(&widths, true).collect();
        flexible.sort_by_key(|&(_, width)| width);
        let mut columns_left = flexible.len();
        for (index, width) in flexible {
            let granted = width.min((left / columns_left).max(FLEXIBLE_MIN));
            widths[index] = granted;
            left = left.saturating_sub(granted);
            columns_left -= 1;
        }
        widths
    }

    fn each(&self, widths: &[usize], flexible: bool) -> impl Iterator<Item = (usize, usize)> {
        let chosen = self.columns.iter().enumerate().filter(move |(_, column)| column.flexible == flexible);
        chosen.map(|(index, _)| (index, widths[index]))
    }
}

const GAP: &str = "  ";
/// Columns below which a flexible column is not cut: a name of fewer says nothing.
const FLEXIBLE_MIN: usize = 12;

/// The longest beginning that fits, with an ellipsis if something was cut.
pub(super) fn cut(cell: &str, width: usize) -> String {
    if cell.width() <= width {
        return cell.to_owned();
    }
    let mut used = 1;
    let fits = cell.chars().take_while(|character| {
        used += character.width().unwrap_or(0);
        used <= width
    });
    let mut text: String = fits.collect();
    text.push('…');
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn flexible_columns_give_way() {
        let mut table = Table::new([Column::flexible("name"), Column::right("size")]);
        table.row(["a rather long file name.flac", "12 MB"]);
        table.row(["b", "1.00 kB"]);
        let wide = table.render(None, Style::new());
        assert_eq!(
            wide,
            "name                             size\na rather long file name.flac    12 MB\nb                             1.00 kB\n"
        );
        assert_eq!(
            table.render(Some(25), Style::new()),
            "name                 size\na rather long f…    12 MB\nb                 1.00 kB\n"
        );
    }

    #[test]
    fn a_table_without_rows_is_nothing() {
        assert_eq!(Table::new([Column::left("x")]).render(None, Style::new()), "");
    }

    proptest! {
        #[test]
        fn a_line_never_exceeds_the_width(names in prop::collection::vec("\\PC{0,60}", 1..5), width in 30usize..100) {
            let mut table = Table::new([Column::right("n"), Column::flexible("name"), Column::flexible("folder")]);
            for name in &names {
                table.row(["1", name, name]);
            }
            for line in table.render(Some(width), Style::new()).lines() {
                prop_assert!(line.width() <= width, "{line:?}");
            }
        }
    }
}
