//! What `shim.c` wrote down: every change of a file, in the order in which they happened, and what was said meanwhile.

use std::path::Path;

/// What was done to a file of the folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Create,
    Write,
    Truncate,
    Sync,
    SyncFolder,
    Unlink,
    /// An operation of this kind failed: nothing was done.
    Failed(Failed),
    /// Said to whoever waits for it; the data is the text.
    Said,
}

/// What failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Failed {
    Sync,
    Other,
}

/// One entry.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) kind: Kind,
    /// Counts what can fail, from 1.
    pub(crate) number: u64,
    /// Where a write begins; the new size of what is truncated.
    pub(crate) offset: u64,
    pub(crate) data: Vec<u8>,
    pub(crate) thread: String,
    /// Of the file in the folder.
    pub(crate) name: String,
}

impl Entry {
    /// What was said.
    pub(crate) fn said(&self) -> Option<String> {
        (self.kind == Kind::Said).then(|| String::from_utf8(self.data.clone()).unwrap().trim_end().to_owned())
    }

    /// Whether the file is the store itself, not one beside it that may be lost.
    pub(crate) fn is_store(&self) -> bool {
        matches!(self.name.as_str(), "ledger.db" | "ledger.db-wal" | "ledger.db-journal")
    }
}

struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn take(&mut self, length: usize) -> Vec<u8> {
        let (taken, rest) = self.0.split_at(length);
        self.0 = rest;
        taken.to_vec()
    }

    fn number(&mut self, bytes: usize) -> u64 {
        let mut all = [0; 8];
        all[..bytes].copy_from_slice(&self.take(bytes));
        u64::from_le_bytes(all)
    }

    fn text(&mut self, length: usize) -> String {
        let bytes = self.take(length);
        String::from_utf8(bytes.into_iter().take_while(|b| *b != 0).collect()).unwrap()
    }
}

/// Reads a log.
pub(crate) fn read(path: &Path) -> Vec<Entry> {
    let bytes = std::fs::read(path).unwrap();
    let mut bytes = Bytes(&bytes);
    let mut entries = Vec::new();
    while !bytes.0.is_empty() {
        let (kind, failed) = (bytes.number(4), bytes.number(4));
        let (number, offset, length) = (bytes.number(8), bytes.number(8), bytes.number(8));
        let (thread, name) = (bytes.text(16), bytes.text(64));
        let kind = match kind {
            1 => Kind::Create,
            2 => Kind::Write,
            3 => Kind::Truncate,
            4 => Kind::Sync,
            5 => Kind::SyncFolder,
            6 => Kind::Unlink,
            7 if failed == 4 => Kind::Failed(Failed::Sync),
            7 => Kind::Failed(Failed::Other),
            8 => Kind::Said,
            other => panic!("an entry of kind {other}"),
        };
        let data = bytes.take(usize::try_from(length).unwrap());
        entries.push(Entry { kind, number, offset, data, thread, name });
    }
    entries
}
