//! The books of the ledger: every payment in the order it was made, written in a format of
//! `countersign-books` for the command line and the operators' door.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use countersign_books::Entry;
use countersign_books::export::{Exporter, Format, Options};
use countersign_core::id::PaymentId;
use countersign_core::ledger::{Approval, Ledger, LedgerError, PaymentFilter};
use countersign_core::payment::State;
use countersign_core::time::Timestamp;
use http_body_util::channel::Sender;

use crate::egress::CallError;

/// Payments read at a time.
const PAGE: u32 = 500;

/// Which payments to export, and as what.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The format.
    pub format: Format,
    /// The reference currency.
    pub currency: String,
    /// Only in these states; what the format says, if empty.
    pub states: Vec<State>,
    /// Only from this moment on.
    pub since: Option<Timestamp>,
    /// Only before this moment.
    pub until: Option<Timestamp>,
}

/// Why an export ended early.
#[derive(Debug)]
pub enum ExportError {
    /// The ledger could not be read.
    Ledger(LedgerError),
    /// Nobody reads it any more, or the disk is full.
    Out(io::Error),
}

impl fmt::Display for ExportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ledger(e) => fmt::Display::fmt(e, f),
            Self::Out(e) => write!(f, "the export cannot be written: {e}"),
        }
    }
}

impl std::error::Error for ExportError {}

impl From<LedgerError> for ExportError {
    fn from(e: LedgerError) -> Self {
        Self::Ledger(e)
    }
}

impl From<io::Error> for ExportError {
    fn from(e: io::Error) -> Self {
        Self::Out(e)
    }
}

/// Where an export goes, piece by piece.
pub trait Sink: Send {
    /// Takes the next piece.
    fn put(&mut self, bytes: Vec<u8>) -> impl Future<Output = io::Result<()>> + Send;
}

/// Into a file or a terminal.
pub struct ToWriter<W>(pub W);

impl<W: Write + Send> Sink for ToWriter<W> {
    fn put(&mut self, bytes: Vec<u8>) -> impl Future<Output = io::Result<()>> + Send {
        std::future::ready(self.0.write_all(&bytes))
    }
}

/// Into an answer, as fast as somebody reads it.
impl Sink for Sender<Bytes, CallError> {
    async fn put(&mut self, bytes: Vec<u8>) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.send_data(bytes.into()).await.map_err(io::Error::other)
    }
}

/// What an exporter writes into, drained page by page: the ledger is read asynchronously.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Shared {
    fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Exports page by page; `sink` gets the bytes in order. Payments made meanwhile may be in it.
///
/// # Errors
/// [`ExportError`]; what was written until then is not a whole export.
pub async fn export(ledger: &dyn Ledger, wanted: Wanted, sink: &mut impl Sink) -> Result<u64, ExportError> {
    let options = Options { states: wanted.states.clone(), ..Options::new(wanted.currency.clone()) };
    let shared = Shared::default();
    let mut exporter = Exporter::new(wanted.format, options, shared.clone());
    let start = wanted.since.unwrap_or_default();
    let mut filter = PaymentFilter { after: Some(PaymentId::first_of(start)), limit: PAGE, ..PaymentFilter::default() };
    let mut count = 0_u64;
    loop {
        let page = ledger.payments(filter.clone()).await?;
        for payment in &page {
            // Ids are made in the order of time, but a clock may have been corrected: the moment counts.
            let past = |end: Option<Timestamp>| end.is_some_and(|end| payment.created_at >= end);
            if payment.created_at < start || past(wanted.until) {
                continue;
            }
            let approval = approval_of(ledger, payment.approval).await?;
            exporter.write(&Entry { payment, approval: approval.as_ref(), record: None })?;
            count = count.saturating_add(1);
        }
        sink.put(shared.take()).await?;
        match page.last() {
            Some(last) if page.len() >= PAGE as usize => filter.after = Some(last.id),
            _ => break,
        }
    }
    exporter.finish()?;
    sink.put(shared.take()).await?;
    Ok(count)
}

async fn approval_of(
    ledger: &dyn Ledger,
    id: Option<countersign_core::id::ApprovalId>,
) -> Result<Option<Approval>, LedgerError> {
    match id {
        Some(id) => ledger.approval(id).await,
        None => Ok(None),
    }
}

/// The parameters of an export: `format`, `state`, `since`, `until`.
///
/// # Errors
/// What is not one, and what would be.
pub fn wanted(pairs: &[(String, String)], currency: &str) -> Result<Wanted, String> {
    let mut given: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (name, value) in pairs {
        given.entry(name).or_default().push(value);
    }
    let formats = || Format::ALL.map(Format::as_str).join(", ");
    let format = match given.remove("format").as_deref() {
        Some([one]) => one.parse().map_err(|e| format!("{e}"))?,
        _ => return Err(format!("say which format once: {}", formats())),
    };
    let states = given.remove("state").unwrap_or_default();
    let states = states.into_iter().map(states_named).collect::<Result<Vec<_>, _>>()?.concat();
    let mut moment = |name: &str| match given.remove(name).as_deref() {
        None => Ok(None),
        Some([one]) => Timestamp::parse(one).map(Some).ok_or_else(|| format!("{name}: {one:?} is no RFC 3339 moment")),
        Some(_) => Err(format!("{name}: give it once")),
    };
    let (since, until) = (moment("since")?, moment("until")?);
    match given.keys().next() {
        Some(other) => Err(format!("`{other}` is not a parameter here; format, state, since and until are")),
        None => Ok(Wanted { format, currency: currency.to_owned(), states, since, until }),
    }
}

/// The states that are told as `name`.
fn states_named(name: &str) -> Result<Vec<State>, String> {
    let states: Vec<_> = State::ALL.into_iter().filter(|state| state.public() == name).collect();
    if states.is_empty() {
        let mut names = State::ALL.map(State::public).to_vec();
        names.dedup();
        return Err(format!("there is no state {name:?}; there are {}", names.join(", ")));
    }
    Ok(states)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_read_whole_or_not_at_all() {
        let read = |text: &str| {
            let pairs: Vec<(String, String)> = url::form_urlencoded::parse(text.as_bytes()).into_owned().collect();
            wanted(&pairs, "USD")
        };
        let all =
            read("format=focus&state=unknown&state=settled&since=2026-11-01T00:00:00Z&until=2026-12-01T00:00:00Z");
        let all = all.unwrap();
        assert_eq!(all.format, Format::Focus);
        assert_eq!(all.states, [State::Redeemable, State::Stuck, State::Settled]);
        assert_eq!(all.since, Timestamp::parse("2026-11-01T00:00:00Z"));
        assert_eq!(all.until, Timestamp::parse("2026-12-01T00:00:00Z"));
        for (text, want) in [
            ("", "say which format"),
            ("format=xls", "no export format `xls`"),
            ("format=csv&format=jsonl", "once"),
            ("format=csv&state=gone", "no state \"gone\""),
            ("format=csv&since=yesterday", "since"),
            ("format=csv&colour=red", "`colour` is not a parameter"),
        ] {
            let told = read(text).unwrap_err();
            assert!(told.contains(want), "{text}: {told}");
        }
    }
}
