//! An exported log, checked from nothing but its bytes and the log's public key.
//!
//! A *whole export* is every record's line, from the first on. A *partial export* has, for some records,
//! a line `{"proof":{"hashes":[…],"size":n},"record":{…}}`: the record itself and the inclusion proof
//! that the tree of `n` records has it. Both end with the line `{"checkpoint":"…"}`: a signed note over
//! exactly that tree. Before it, a partial export may have `{"consistency":{"hashes":[…],"old":n}}`: the
//! proof that the tree begins with that of `n` records. Every line is canonical JSON and ends with a
//! newline; hashes are lower-case hex.
//!
//! What is checked of every record: its form, its number, that it follows from the record before it
//! (whole exports), its inclusion (partial ones), and what the kinds it knows say of payments and
//! budgets (`books`). Moments (`at`) are taken when a call arrives and written down in the order of
//! their transactions, and clocks are set: a moment before the one before it is reported, not refused.
//!
//! Memory: 64 hashes, one entry per budget window and per payment that can still change, and 16 bytes
//! per payment that cannot.

mod books;

use std::collections::BTreeMap;
use std::fmt;
use std::io::{BufRead, ErrorKind, Read as _};

use crate::canon::{Json, MAX_DEPTH};
use crate::note::{Checkpoint, VerifyingKey};
use crate::record::{Record, hash_of_hex};
use crate::tlog::{Frontier, Hash, check_consistency, empty_root, included_root, leaf_hash};
use books::Books;

/// No line is longer, in bytes.
pub const MAX_LINE: u64 = 16 << 20;

/// What is wrong, for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The export cannot be read from where it is.
    Read,
    /// A line is not canonical JSON, or not one that an export has there.
    Form,
    /// A record lacks what every record has, or what its kind has.
    Record,
    /// A record is missing, or is there twice.
    Seq,
    /// A record does not follow from the one before it.
    Prev,
    /// A payment takes a step that is not in the table of transitions.
    Payment,
    /// A budget's counters do not follow from what moved.
    Budget,
    /// A hold took its window over the limit.
    Limit,
    /// A hold was released, settled or refunded twice, or for another amount than its own.
    Hold,
    /// A record is not in the tree.
    Proof,
    /// The checkpoint is not the log's.
    Checkpoint,
    /// The records are not those the checkpoint was signed over.
    Root,
    /// The log is not a continuation of the one the older checkpoint was signed over.
    Fork,
}

impl Fault {
    /// Stable code for programs.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Form => "form",
            Self::Record => "record",
            Self::Seq => "seq",
            Self::Prev => "prev",
            Self::Payment => "payment",
            Self::Budget => "budget",
            Self::Limit => "limit",
            Self::Hold => "hold",
            Self::Proof => "proof",
            Self::Checkpoint => "checkpoint",
            Self::Root => "root",
            Self::Fork => "fork",
        }
    }
}

/// The first thing that is wrong with an export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// In which line, from 1; after the last one, what is missing.
    pub line: u64,
    /// In which record, where that much is known.
    pub seq: Option<u64>,
    /// What kind of thing.
    pub fault: Fault,
    /// What exactly, for people.
    pub why: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.seq {
            Some(seq) => write!(f, "line {}, record {seq}: {} ({})", self.line, self.why, self.fault.code()),
            None => write!(f, "line {}: {} ({})", self.line, self.why, self.fault.code()),
        }
    }
}

impl std::error::Error for Failure {}

type Checked<T> = Result<T, (Fault, String)>;

fn fail<T>(fault: Fault, why: impl Into<String>) -> Checked<T> {
    Err((fault, why.into()))
}

/// An export that holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// What was signed.
    pub checkpoint: Checkpoint,
    /// Whether only some of its records were shown.
    pub partial: bool,
    /// How many records were.
    pub records: u64,
    /// How many of each kind.
    pub kinds: BTreeMap<String, u64>,
    /// How many payments they are about.
    pub payments: u64,
    /// How many budget windows.
    pub windows: u64,
    /// The furthest that a moment lies before an earlier record's, in milliseconds, and in which record.
    pub back: Option<(u64, u64)>,
    /// Whether the log was shown to continue the one of an older checkpoint.
    pub continues: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Whole,
    Partial,
}

#[derive(Clone)]
struct Partial {
    size: u64,
    root: Hash,
    consistency: Option<(u64, Vec<Hash>)>,
}

/// Takes an export line by line.
#[derive(Clone)]
pub struct Verifier {
    key: VerifyingKey,
    older: Option<Checkpoint>,
    mode: Option<Mode>,
    line: u64,
    seq: u64,
    last: Hash,
    tree: Frontier,
    /// The root at the older checkpoint's size.
    then: Option<Hash>,
    partial: Partial,
    books: Books,
    records: u64,
    kinds: BTreeMap<String, u64>,
    latest: u64,
    back: Option<(u64, u64)>,
    end: Option<Checkpoint>,
}

impl Verifier {
    /// For exports of the log of this key.
    #[must_use]
    pub fn new(key: VerifyingKey) -> Self {
        Self {
            key,
            older: None,
            mode: None,
            line: 0,
            seq: 0,
            last: [0; 32],
            tree: Frontier::default(),
            then: None,
            partial: Partial { size: 0, root: empty_root(), consistency: None },
            books: Books::default(),
            records: 0,
            kinds: BTreeMap::new(),
            latest: 0,
            back: None,
            end: None,
        }
    }

    /// As [`Verifier::new`], for exports that must continue what this checkpoint was signed over. Open it
    /// from the note that was kept: [`Checkpoint::open`].
    #[must_use]
    pub fn since(key: VerifyingKey, older: Checkpoint) -> Self {
        let then = (older.size == 0).then(empty_root);
        Self { older: Some(older), then, ..Self::new(key) }
    }

    /// Takes the next line, without its newline.
    ///
    /// # Errors
    /// What is wrong with it. The verifier is of no more use then.
    pub fn line(&mut self, line: &[u8]) -> Result<(), Failure> {
        self.line = self.line.saturating_add(1);
        let before = self.seq;
        self.take(line).map_err(|(fault, why)| {
            let seq = if self.seq == before { None } else { Some(self.seq) };
            Failure { line: self.line, seq, fault, why }
        })
    }

    /// Takes the rest of an export, and ends it.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn read(mut self, mut export: impl BufRead) -> Result<Report, Failure> {
        let mut line = Vec::new();
        loop {
            line.clear();
            // One byte more than a line may have, and its newline.
            let read = export.by_ref().take(MAX_LINE.saturating_add(2)).read_until(b'\n', &mut line);
            let failed = |fault, why: String| Failure { line: self.line.saturating_add(1), seq: None, fault, why };
            match read {
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(failed(Fault::Read, format!("the export cannot be read: {e}"))),
                Ok(0) => return self.end(),
                Ok(_) => match line.split_last() {
                    Some((b'\n', text)) => self.line(text)?,
                    _ => return Err(failed(Fault::Form, "the line has no end".to_owned())),
                },
            }
        }
    }

    /// Nothing follows: the export is whole only if it ended with its checkpoint.
    ///
    /// # Errors
    /// [`Fault::Form`] if it did not.
    pub fn end(self) -> Result<Report, Failure> {
        let Some(checkpoint) = self.end else {
            let why = "the export does not end with a checkpoint: something was cut off".to_owned();
            return Err(Failure { line: self.line.saturating_add(1), seq: None, fault: Fault::Form, why });
        };
        Ok(Report {
            checkpoint,
            partial: self.mode == Some(Mode::Partial),
            records: self.records,
            kinds: self.kinds,
            payments: self.books.payments(),
            windows: self.books.windows(),
            back: self.back,
            continues: self.older.is_some(),
        })
    }

    fn take(&mut self, line: &[u8]) -> Checked<()> {
        if self.end.is_some() {
            return fail(Fault::Form, "nothing may follow the checkpoint");
        }
        if u64::try_from(line.len()).unwrap_or(u64::MAX) > MAX_LINE {
            return fail(Fault::Form, "the line is too long");
        }
        let form = |e: String| (Fault::Form, e);
        let text = std::str::from_utf8(line).map_err(|e| form(e.to_string()))?;
        // The keys of an object ascend: a proof comes first, and the record is one level down.
        let depth = MAX_DEPTH.saturating_add(usize::from(text.starts_with("{\"proof\":")));
        let json = Json::parse_within(text, depth).map_err(|e| form(e.to_string()))?;
        let Some(members) = json.members() else {
            return fail(Fault::Form, "the line is not an object");
        };
        match members {
            [(name, note)] if name == "checkpoint" => self.checkpoint(note),
            [(name, proof)] if name == "consistency" => self.consistency(proof),
            [(first, proof), (second, record)] if first == "proof" && second == "record" => {
                self.is(Mode::Partial)?;
                self.record(record, Some(proof))
            }
            _ => {
                self.is(Mode::Whole)?;
                self.record(&json, None)
            }
        }
    }

    fn is(&mut self, mode: Mode) -> Checked<()> {
        if *self.mode.get_or_insert(mode) == mode && self.partial.consistency.is_none() {
            Ok(())
        } else {
            fail(Fault::Form, "this line belongs into another kind of export, or before the last lines")
        }
    }

    fn record(&mut self, json: &Json<'_>, proof: Option<&Json<'_>>) -> Checked<()> {
        let record = Record::of(json).map_err(|e| (Fault::Record, e.to_string()))?;
        let expected = self.seq.saturating_add(1);
        let adjacent = record.seq == expected;
        if record.seq < expected || (proof.is_none() && !adjacent) {
            return fail(Fault::Seq, format!("record {} stands where {expected} belongs", record.seq));
        }
        self.seq = record.seq;
        if adjacent && record.prev != self.last {
            return fail(Fault::Prev, "it does not follow from the record before it");
        }
        let leaf = leaf_hash(json.raw.as_bytes());
        match proof {
            None => {
                self.tree.push(leaf);
                if self.older.as_ref().is_some_and(|older| older.size == self.tree.size()) {
                    self.then = Some(self.tree.root());
                }
            }
            Some(proof) => self.included(&leaf, record.seq, proof)?,
        }
        self.last = leaf;
        self.records = self.records.saturating_add(1);
        match self.kinds.get_mut(record.kind) {
            Some(count) => *count = count.saturating_add(1),
            None => drop(self.kinds.insert(record.kind.to_owned(), 1)),
        }
        let behind = self.latest.saturating_sub(record.at);
        if behind > self.back.map_or(0, |(most, _)| most) {
            self.back = Some((behind, record.seq));
        }
        self.latest = self.latest.max(record.at);
        self.books.take(&record, proof.is_none())
    }

    fn included(&mut self, leaf: &Hash, seq: u64, proof: &Json<'_>) -> Checked<()> {
        let (hashes, size) = proof_of(proof, "size")?;
        if self.records > 0 && size != self.partial.size {
            return fail(Fault::Proof, "its proof is of a tree of another size");
        }
        let root = included_root(leaf, seq.saturating_sub(1), size, &hashes);
        let root = root.map_err(|e| (Fault::Proof, e.to_string()))?;
        if self.records > 0 && root != self.partial.root {
            return fail(Fault::Proof, "its proof leads to another root than the one before it");
        }
        (self.partial.size, self.partial.root) = (size, root);
        Ok(())
    }

    fn consistency(&mut self, proof: &Json<'_>) -> Checked<()> {
        self.is(Mode::Partial)?;
        let (hashes, old) = proof_of(proof, "old")?;
        self.partial.consistency = Some((old, hashes));
        Ok(())
    }

    fn checkpoint(&mut self, note: &Json<'_>) -> Checked<()> {
        let note = note.as_str().ok_or((Fault::Form, "the checkpoint is not a text".to_owned()))?;
        let checkpoint = Checkpoint::open(note, &self.key).map_err(|e| (Fault::Checkpoint, e.to_string()))?;
        let (size, root) = match self.mode {
            Some(Mode::Partial) if self.records == 0 => (checkpoint.size, checkpoint.root),
            Some(Mode::Partial) => (self.partial.size, self.partial.root),
            Some(Mode::Whole) | None => (self.tree.size(), self.tree.root()),
        };
        if size != checkpoint.size {
            return fail(Fault::Root, format!("the checkpoint is over {} records, not {size}", checkpoint.size));
        }
        if root != checkpoint.root {
            return fail(Fault::Root, "the checkpoint was signed over other records");
        }
        if let Some(older) = &self.older {
            self.continues(older, &checkpoint)?;
        }
        self.end = Some(checkpoint);
        Ok(())
    }

    fn continues(&self, older: &Checkpoint, now: &Checkpoint) -> Checked<()> {
        let fork = |why: &str| (Fault::Fork, why.to_owned());
        if older.size > now.size {
            return Err(fork("the log is shorter than it was at the older checkpoint"));
        }
        let other = "the log is not a continuation of what the older checkpoint was signed over";
        if older.size == 0 || older.size == now.size {
            let then = if older.size == 0 { empty_root() } else { now.root };
            return if then == older.root { Ok(()) } else { Err(fork(other)) };
        }
        if self.mode == Some(Mode::Whole) {
            return if self.then == Some(older.root) { Ok(()) } else { Err(fork(other)) };
        }
        let proof = self.partial.consistency.as_ref().filter(|(old, _)| *old == older.size);
        let (_, hashes) =
            proof.ok_or_else(|| fork("the export has no proof of consistency with the older checkpoint"))?;
        check_consistency((older.size, &older.root), (now.size, &now.root), hashes).map_err(|e| fork(&e.to_string()))
    }
}

/// A proof's hashes and its one number.
fn proof_of(proof: &Json<'_>, number: &str) -> Checked<(Vec<Hash>, u64)> {
    let odd = || (Fault::Form, format!("a proof is an object of `hashes` and `{number}`"));
    let Some([(first, hashes), (second, size)]) = proof.members() else { return Err(odd()) };
    let hashes = hashes.items().filter(|items| first == "hashes" && second == number && items.len() <= 128);
    let hashes = hashes.ok_or_else(odd)?.iter().map(|hash| hash.as_str().and_then(hash_of_hex));
    let hashes = hashes.collect::<Option<_>>().ok_or_else(odd)?;
    Ok((hashes, size.as_u64().ok_or_else(odd)?))
}

/// One line of a partial export: a record's line and its inclusion proof in the tree of `size` records.
#[must_use]
pub fn partial_line(record: &str, proof: &[Hash], size: u64) -> String {
    format!("{{\"proof\":{{\"hashes\":{},\"size\":{size}}},\"record\":{record}}}", hexes(proof))
}

/// The line of a partial export that shows what it continues.
#[must_use]
pub fn consistency_line(proof: &[Hash], old: u64) -> String {
    format!("{{\"consistency\":{{\"hashes\":{},\"old\":{old}}}}}", hexes(proof))
}

/// The last line of an export.
#[must_use]
pub fn checkpoint_line(note: &str) -> String {
    countersign_core::json::canonical(&serde_json::json!({ "checkpoint": note }))
}

fn hexes(hashes: &[Hash]) -> serde_json::Value {
    hashes.iter().map(hex::encode).collect()
}
