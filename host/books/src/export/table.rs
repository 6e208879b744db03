//! One row per payment: CSV and JSON lines.

use crate::Entry;
use crate::row::{self, Cell, Sink};
use crate::text;

/// The columns, in order. The same names are the keys of JSON lines.
pub(super) const COLUMNS: [&str; 55] = [
    "id",
    "purchase",
    "attempt",
    "state",
    "created_at",
    "settled_at",
    "updated_at",
    "method",
    "url",
    "seller",
    "pay_to",
    "value",
    "currency",
    "amount",
    "asset_symbol",
    "asset",
    "network",
    "settled_value",
    "settled_amount",
    "refunded_value",
    "refunded_amount",
    "in_doubt_value",
    "in_doubt_amount",
    "workspace",
    "agent",
    "user",
    "session",
    "client",
    "project",
    "task",
    "purpose",
    "mandate",
    "wallet",
    "decision",
    "generation",
    "verdict",
    "code",
    "reasons",
    "policies",
    "budgets",
    "approval",
    "approvers",
    "transaction",
    "block",
    "block_time",
    "payer",
    "nonce",
    "valid_before",
    "offer_sha256",
    "refunds",
    "delivered",
    "uses",
    "repeats",
    "why",
    "record",
];

pub(super) fn csv_header(out: &mut String) {
    out.push_str(&COLUMNS.join(","));
    out.push_str("\r\n");
}

pub(super) fn csv(entry: &Entry<'_>, currency: &str, out: &mut String) {
    row::write(entry, currency, &mut Csv::new(out));
    out.push_str("\r\n");
}

pub(super) fn jsonl(entry: &Entry<'_>, currency: &str, out: &mut String) {
    out.push('{');
    row::write(entry, currency, &mut Json { out, first: true, first_item: true });
    out.push_str("}\n");
}

/// The columns of a row, as CSV without its line end.
pub(super) struct Csv<'o> {
    out: &'o mut String,
    list: String,
    first: bool,
}

impl<'o> Csv<'o> {
    pub(super) fn new(out: &'o mut String) -> Self {
        Self { out, list: String::new(), first: true }
    }

    fn comma(&mut self) {
        if !self.first {
            self.out.push(',');
        }
        self.first = false;
    }
}

impl Sink for Csv<'_> {
    fn cell(&mut self, _name: &'static str, cell: Cell<'_>) {
        self.comma();
        if let Some(foreign) = cell.plain(self.out) {
            text::csv(self.out, foreign);
        }
    }

    fn open(&mut self, _name: &'static str) {
        self.comma();
        self.list.clear();
    }

    fn item(&mut self, cells: &[(&'static str, Cell<'_>)]) {
        self.list.push(if self.list.is_empty() { '[' } else { ',' });
        json_object(&mut self.list, cells);
    }

    fn close(&mut self) {
        if !self.list.is_empty() {
            self.list.push(']');
            // Everything hidden or a backslash is escaped in JSON already, and a list begins with a bracket: only the
            // quotes are left, and what stands after a `;`.
            quote_json(self.out, &self.list);
        }
    }
}

/// JSON text as a CSV field that gives the same JSON back. A `;` in it is written as an escape, so that no spreadsheet
/// splits there.
pub(super) fn quote_json(out: &mut String, json: &str) {
    out.push('"');
    text::runs(
        out,
        json,
        |b| b.is_ascii() && !matches!(b, b'"' | b';'),
        |out, c| match c {
            '"' => out.push_str("\"\""),
            ';' => out.push_str("\\u003b"),
            c => out.push(c),
        },
    );
    out.push('"');
}

struct Json<'o> {
    out: &'o mut String,
    first: bool,
    first_item: bool,
}

impl Json<'_> {
    fn key(&mut self, name: &str) {
        self.out.push_str(if self.first { "\"" } else { ",\"" });
        self.first = false;
        self.out.push_str(name);
        self.out.push_str("\":");
    }
}

impl Sink for Json<'_> {
    fn cell(&mut self, name: &'static str, cell: Cell<'_>) {
        self.key(name);
        json_value(self.out, cell);
    }

    fn open(&mut self, name: &'static str) {
        self.key(name);
        self.out.push('[');
        self.first_item = true;
    }

    fn item(&mut self, cells: &[(&'static str, Cell<'_>)]) {
        if !self.first_item {
            self.out.push(',');
        }
        self.first_item = false;
        json_object(self.out, cells);
    }

    fn close(&mut self) {
        self.out.push(']');
    }
}

pub(super) fn json_object(out: &mut String, cells: &[(&'static str, Cell<'_>)]) {
    for (i, (name, cell)) in cells.iter().enumerate() {
        out.push_str(if i == 0 { "{\"" } else { ",\"" });
        out.push_str(name);
        out.push_str("\":");
        json_value(out, *cell);
    }
    out.push('}');
}

fn json_value(out: &mut String, cell: Cell<'_>) {
    match cell {
        Cell::Absent => out.push_str("null"),
        Cell::Text(foreign) => text::json(out, foreign),
        Cell::Number(_) | Cell::Flag(_) => {
            cell.plain(out);
        }
        Cell::Plain(_) | Cell::Amount(..) | Cell::Time(_) | Cell::Hex(_) | Cell::Id(..) => {
            out.push('"');
            cell.plain(out);
            out.push('"');
        }
    }
}
