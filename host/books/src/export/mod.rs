//! Exports for spreadsheets, accounting and cost tools, written as payments come.
//!
//! | format | one row or transaction per | which payments, unless asked otherwise |
//! | --- | --- | --- |
//! | `csv`, `jsonl` | payment | all but denials |
//! | `beancount`, `hledger` | purchase and refund; small purchases by day | settled (also refunded or disputed), in doubt |
//! | `focus` | charge and refund | settled (also refunded or disputed) |
//!
//! The same payments in the same order give the same bytes. An export is the books as they stand, not a list of
//! changes: every transaction has an id that stays (`pay_…`, `pay_…/refund-1`, `dust-…`), so a later export of the
//! same period replaces an earlier one.
//!
//! Accounts, for double entry. A settled purchase is an expense against the wallet. Whatever was signed and is
//! neither proven used nor unused is a commitment against a liability, not an expense. A refund takes its share of the
//! expense back: to the wallet if the chain shows it, to an account for claims if only a person says so. A disputed
//! purchase stays an expense, flagged. Days are UTC; a purchase belongs to the day of its block.

mod focus;
mod journal;
mod table;

use std::fmt;
use std::io::{self, Write};
use std::str::FromStr;

use countersign_core::money::Micros;
use countersign_core::payment::State;

use crate::Entry;
use crate::accounts::Accounts;
use journal::Journal;

/// Bytes that are collected before they are written.
const CHUNK: usize = 64 * 1024;

/// What an export is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// RFC 4180 with a header, UTF-8; lists are JSON in their field.
    Csv,
    /// One JSON object per line.
    Jsonl,
    /// <https://beancount.github.io>.
    Beancount,
    /// <https://hledger.org>.
    Hledger,
    /// FinOps FOCUS 1.2, as CSV.
    Focus,
}

impl Format {
    /// Every format.
    pub const ALL: [Self; 5] = [Self::Csv, Self::Jsonl, Self::Beancount, Self::Hledger, Self::Focus];

    /// Its name in commands and queries.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Csv => "csv",
            Self::Jsonl => "jsonl",
            Self::Beancount => "beancount",
            Self::Hledger => "hledger",
            Self::Focus => "focus",
        }
    }

    /// Its media type.
    #[must_use]
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Csv | Self::Focus => "text/csv; charset=utf-8",
            Self::Jsonl => "application/x-ndjson",
            Self::Beancount | Self::Hledger => "text/plain; charset=utf-8",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text names no format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownFormat(String);

impl fmt::Display for UnknownFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "there is no export format `{}`: ", self.0.escape_debug())?;
        for (i, format) in Format::ALL.into_iter().enumerate() {
            write!(f, "{}{format}", if i == 0 { "choose from " } else { ", " })?;
        }
        Ok(())
    }
}

impl std::error::Error for UnknownFormat {}

impl FromStr for Format {
    type Err = UnknownFormat;
    fn from_str(text: &str) -> Result<Self, UnknownFormat> {
        Self::ALL.into_iter().find(|f| f.as_str() == text).ok_or_else(|| UnknownFormat(text.to_owned()))
    }
}

/// How to write an export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The reference currency, such as `USD`.
    pub currency: String,
    /// Only payments in these states; every state but denied, if empty. Journals and FOCUS leave out what moved no
    /// money whatever this says.
    pub states: Vec<State>,
    /// Journals: the accounts.
    pub accounts: Accounts,
    /// Journals: settled purchases below this value become one transaction per day and accounts. Zero keeps each.
    pub dust_below: Micros,
    /// Journals: whether to declare accounts and commodities at the end. Not wanted where books do that themselves.
    pub declare: bool,
}

impl Options {
    /// The usual choices for a reference currency: dust is what is below a hundredth of it.
    #[must_use]
    pub fn new(currency: impl Into<String>) -> Self {
        Self {
            currency: currency.into(),
            states: Vec::new(),
            accounts: Accounts::default(),
            dust_below: Micros::new(10_000).unwrap_or_default(),
            declare: true,
        }
    }

    fn wants(&self, state: State) -> bool {
        if self.states.is_empty() { state != State::Denied } else { self.states.contains(&state) }
    }
}

/// Writes payments one by one.
#[derive(Debug)]
pub struct Exporter<W> {
    out: W,
    buffer: String,
    options: Options,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Csv,
    Jsonl,
    Focus,
    Journal(Box<Journal>),
}

impl<W: Write> Exporter<W> {
    /// Begins an export; a header is written with the first payment or at the end.
    #[must_use]
    pub fn new(format: Format, options: Options, out: W) -> Self {
        let mut buffer = String::with_capacity(CHUNK.saturating_add(CHUNK / 4));
        let kind = match format {
            Format::Csv => {
                table::csv_header(&mut buffer);
                Kind::Csv
            }
            Format::Jsonl => Kind::Jsonl,
            Format::Focus => {
                focus::header(&mut buffer);
                Kind::Focus
            }
            Format::Beancount | Format::Hledger => {
                Kind::Journal(Box::new(Journal::begin(format == Format::Beancount, &options, &mut buffer)))
            }
        };
        Self { out, buffer, options, kind }
    }

    /// Adds a payment.
    ///
    /// # Errors
    /// When `out` cannot be written.
    pub fn write(&mut self, entry: &Entry<'_>) -> io::Result<()> {
        if !self.options.wants(entry.payment.state) {
            return Ok(());
        }
        match &mut self.kind {
            Kind::Csv => table::csv(entry, &self.options.currency, &mut self.buffer),
            Kind::Jsonl => table::jsonl(entry, &self.options.currency, &mut self.buffer),
            Kind::Focus => focus::rows(entry, &self.options.currency, &mut self.buffer),
            Kind::Journal(journal) => journal.payment(entry, &self.options, &mut self.buffer),
        }
        if self.buffer.len() >= CHUNK { self.drain() } else { Ok(()) }
    }

    /// Ends the export and gives back what it was written to.
    ///
    /// # Errors
    /// When `out` cannot be written.
    pub fn finish(mut self) -> io::Result<W> {
        if let Kind::Journal(journal) = &mut self.kind {
            journal.end(&self.options, &mut self.buffer);
        }
        self.drain()?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn drain(&mut self) -> io::Result<()> {
        self.out.write_all(self.buffer.as_bytes())?;
        self.buffer.clear();
        Ok(())
    }
}

/// Writes a whole export.
///
/// # Errors
/// When `out` cannot be written.
pub fn export<'a, W: Write>(
    format: Format,
    options: Options,
    entries: impl IntoIterator<Item = Entry<'a>>,
    out: W,
) -> io::Result<W> {
    let mut exporter = Exporter::new(format, options, out);
    for entry in entries {
        exporter.write(&entry)?;
    }
    exporter.finish()
}
