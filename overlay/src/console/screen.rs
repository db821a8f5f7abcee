//! A whole terminal that is drawn again and again.

use std::fmt::Write;

use super::{Console, Failure, Table};

/// The other screen of the terminal, without a cursor.
const BEGIN: &str = "\x1b[?1049h\x1b[?25l";
/// The screen as it was before.
const END: &str = "\x1b[?25h\x1b[?1049l";
/// To the upper left corner.
const HOME: &str = "\x1b[H";
/// Clears the rest of a line.
const CLEAR_LINE: &str = "\x1b[K";
/// Clears all that is below.
const CLEAR_BELOW: &str = "\x1b[J";

/// A terminal that shows one text at a time. Dropping it brings back what was there before.
#[derive(Debug)]
pub struct Screen<'a> {
    console: &'a Console,
}

impl Console {
    /// Takes the terminal for texts that replace each other; `None` if stdout is none, or its reader a program.
    ///
    /// # Errors
    /// A reader that left.
    pub fn screen(&self) -> Result<Option<Screen<'_>>, Failure> {
        if self.is_json() || !self.is_terminal() {
            return Ok(None);
        }
        self.bytes(BEGIN.as_bytes())?;
        Ok(Some(Screen { console: self }))
    }
}

impl Screen<'_> {
    /// Shows a text in place of the one before, as far as it fits. Text of others goes through
    /// [`harmless`](super::harmless) first.
    ///
    /// # Errors
    /// A reader that left.
    pub fn show(&self, text: &str) -> Result<(), Failure> {
        let size = terminal_size::terminal_size();
        let (width, height) = size.map_or((80, 24), |(width, height)| (usize::from(width.0), usize::from(height.0)));
        self.console.bytes(frame(text, width, height).as_bytes())
    }

    /// A table as it fits the terminal.
    pub fn table(&self, table: &Table) -> String {
        let width = terminal_size::terminal_size().map(|(width, _)| usize::from(width.0));
        table.render(width, self.console.heading())
    }
}

impl Drop for Screen<'_> {
    fn drop(&mut self) {
        // Whoever closed the terminal needs nothing back.
        let _ = self.console.bytes(END.as_bytes());
    }
}

/// What draws the text over the one before. Its last line stays below, so that nothing scrolls.
fn frame(text: &str, width: usize, height: usize) -> String {
    let mut drawn = HOME.to_owned();
    for line in text.lines().take(height.saturating_sub(1).max(1)) {
        // Styles take no room; a line that holds some was cut before.
        let line = if line.contains('\x1b') { line.to_owned() } else { super::table::cut(line, width.max(1)) };
        // Writing to a string cannot fail.
        let _ = write!(drawn, "{line}{CLEAR_LINE}\r\n");
    }
    drawn.push_str(CLEAR_BELOW);
    drawn
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_left_out_and_what_was_there_is_cleared() {
        let drawn = frame("one\na long line\nthree\nfour", 6, 4);
        assert_eq!(drawn, "\x1b[Hone\x1b[K\r\na lon…\x1b[K\r\nthree\x1b[K\r\n\x1b[J");
        assert_eq!(frame("", 0, 0), "\x1b[H\x1b[J");
    }
}
