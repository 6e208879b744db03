//! Tables for people, JSON for programs; both from the same values.

use serde_json::Value;

use super::say;

/// A column: its head and where its value is, as a JSON pointer.
pub(super) struct Column {
    head: &'static str,
    pointer: &'static str,
}

pub(super) const fn column(head: &'static str, pointer: &'static str) -> Column {
    Column { head, pointer }
}

/// Prints `{"items": [...]}` as JSON or as a table.
pub(super) fn print(as_json: bool, list: &Value, columns: &[Column]) {
    if as_json {
        return say(format_args!("{list:#}"));
    }
    let items = list.get("items").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let rows: Vec<Vec<String>> =
        items.iter().map(|i| columns.iter().map(|c| cell(i.pointer(c.pointer))).collect()).collect();
    let heads: Vec<String> = columns.iter().map(|c| c.head.to_owned()).collect();
    let width = |column: usize| {
        let cells = std::iter::once(&heads).chain(&rows).filter_map(|row| row.get(column));
        cells.map(|c| c.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    for row in std::iter::once(&heads).chain(&rows) {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(text, width)| format!("{text:<width$}", width = *width)).collect();
        say(cells.join("  ").trim_end());
    }
    if items.is_empty() {
        say("(none)");
    }
}

/// A cell's text. Foreign text is shown escaped: a terminal must not obey a seller.
fn cell(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => countersign_core::x402::text::clean(text, 120),
        Some(other) => other.to_string(),
    }
}
