//! What people see: a hundred columns, colour only where it can be shown, no foreign control characters.

use std::fmt;
use std::io::{IsTerminal as _, Write as _};

use countersign_core::x402::text::clean;

/// Columns of the output.
const WIDTH: usize = 100;
/// Where text begins that belongs to a label.
const INDENT: usize = 16;
/// Before every row of a table, and between its columns.
const MARGIN: &str = "    ";
const GAP: &str = "  ";
/// Longest foreign text that is shown, in characters.
const FOREIGN: usize = 400;

/// How a piece of text is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    /// As it is.
    Plain,
    /// A heading.
    Strong,
    /// Beside the point.
    Faint,
    /// As it must be.
    Good,
    /// Not as it must be.
    Bad,
}

/// Standard output.
#[derive(Clone, Copy)]
pub(super) struct Screen {
    colour: bool,
}

impl Screen {
    /// Colour only for a terminal that did not ask to be spared.
    pub(super) fn open() -> Self {
        let spared = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
        Self { colour: std::io::stdout().is_terminal() && !spared }
    }

    /// Prints a line; a reader that went away is not an error.
    pub(super) fn line(self, text: impl fmt::Display) {
        let _ = writeln!(std::io::stdout(), "{text}");
    }

    /// A heading with an empty line before it.
    pub(super) fn heading(self, text: &str) {
        self.line("");
        self.line(self.tint(Tone::Strong, text));
    }

    /// A label and text beside it, wrapped.
    pub(super) fn entry(self, label: &str, text: &str, tone: Tone) {
        let mut label = format!("    {label}");
        for row in wrap(text, WIDTH.saturating_sub(INDENT)) {
            let left = self.tint(Tone::Faint, &format!("{label:<width$}", width = INDENT));
            self.line(format_args!("{left}{}", self.tint(tone, &row)));
            label.clear();
        }
    }

    /// The title of a scenario, with its result at the right edge.
    pub(super) fn title(self, number: usize, title: &str, passed: bool) {
        let left = format!("{number:>2}  {title}");
        let room = WIDTH.saturating_sub(4);
        let left = self.tint(Tone::Strong, &format!("{left:<room$}"));
        self.line("");
        self.line(format_args!("{left}{}", self.verdict(passed)));
    }

    /// `PASS` or `FAIL`.
    pub(super) fn verdict(self, passed: bool) -> String {
        if passed { self.tint(Tone::Good, "PASS") } else { self.tint(Tone::Bad, "FAIL") }
    }

    /// Columns under their heads, text to the left, amounts to the right. The last column is wrapped at
    /// the right edge.
    pub(super) fn table(self, heads: &[Column], rows: &[Vec<Cell>]) {
        let width = |n: usize, head: &Column| {
            let cells = rows.iter().filter_map(|row| row.get(n)).map(|cell| cell.text.chars().count());
            cells.chain([head.name.chars().count()]).max().unwrap_or(0)
        };
        let widths: Vec<usize> = heads.iter().enumerate().map(|(n, head)| width(n, head)).collect();
        let titles: Vec<Cell> = heads.iter().map(|head| toned(head.name, Tone::Faint)).collect();
        for row in std::iter::once(&titles).chain(rows) {
            self.row(heads, &widths, row);
        }
    }

    fn row(self, heads: &[Column], widths: &[usize], row: &[Cell]) {
        let Some((last, others)) = row.split_last() else { return };
        let (mut line, mut used) = (MARGIN.to_owned(), MARGIN.len());
        for ((cell, head), width) in others.iter().zip(heads).zip(widths) {
            let padded = if head.right { format!("{:>width$}", cell.text) } else { format!("{:<width$}", cell.text) };
            line.push_str(&self.tint(cell.tone, &padded));
            line.push_str(GAP);
            used = used.saturating_add(*width).saturating_add(GAP.len());
        }
        for piece in wrap(&last.text, WIDTH.saturating_sub(used)) {
            self.line(format_args!("{line}{}", self.tint(last.tone, &piece)));
            line = " ".repeat(used);
        }
    }

    fn tint(self, tone: Tone, text: &str) -> String {
        let code = match tone {
            Tone::Plain => return text.to_owned(),
            Tone::Strong => "1",
            Tone::Faint => "2",
            Tone::Good => "32",
            Tone::Bad => "1;31",
        };
        if self.colour { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

/// A column of a table.
pub(super) struct Column {
    name: &'static str,
    right: bool,
}

/// A column of text.
pub(super) const fn words(name: &'static str) -> Column {
    Column { name, right: false }
}

/// A column of amounts.
pub(super) const fn sums(name: &'static str) -> Column {
    Column { name, right: true }
}

/// One field of a table.
pub(super) struct Cell {
    text: String,
    tone: Tone,
}

/// A field as it is.
pub(super) fn cell(text: impl fmt::Display) -> Cell {
    toned(text, Tone::Plain)
}

/// A field with a tone.
pub(super) fn toned(text: impl fmt::Display, tone: Tone) -> Cell {
    Cell { text: text.to_string(), tone }
}

/// `PASS` or `FAIL` as a field.
pub(super) fn result(passed: bool) -> Cell {
    if passed { toned("PASS", Tone::Good) } else { toned("FAIL", Tone::Bad) }
}

/// Foreign text as a terminal may be given it.
pub(super) fn foreign(text: &str) -> String {
    clean(text, FOREIGN)
}

/// Breaks a text between words; a word that is too long stays whole, so that it can be copied.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut rows = vec![String::new()];
    for word in text.split_whitespace() {
        let Some(row) = rows.last_mut() else { continue };
        let longer = row.chars().count().saturating_add(1).saturating_add(word.chars().count());
        if row.is_empty() {
            row.push_str(word);
        } else if longer <= width {
            row.push(' ');
            row.push_str(word);
        } else {
            rows.push(word.to_owned());
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_broken_between_words() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("a verylongword b", 4), ["a", "verylongword", "b"]);
        assert_eq!(wrap("", 4), [""]);
    }

    #[test]
    fn foreign_text_cannot_steer_a_terminal() {
        assert_eq!(foreign("a\u{1b}[2Jb"), "a\\u{1b}[2Jb");
    }
}
