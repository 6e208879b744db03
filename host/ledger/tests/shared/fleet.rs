//! Gateways that share a database: a folder and a name for each.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use countersign_core::ledger::Ledger;
use countersign_core::time::Timestamp;
use countersign_ledger::{Database, OpenError, SqliteLedger, check_integrity};

use crate::backend::{self, FILE, fresh, server};
use crate::common::*;
use crate::postgres::Postgres;

/// How long a condition may take to come true.
const PATIENCE: Duration = Duration::from_secs(90);

/// A database of its own on the server of all tests: its name, and how it is reached.
pub(crate) fn database() -> (String, Database) {
    let name = fresh();
    server().create_database(&name);
    let database = on(server(), &name);
    (name, database)
}

/// How a database of a server is reached.
pub(crate) fn on(server: &Postgres, name: &str) -> Database {
    at_url(&server.url(name))
}

pub(crate) fn at_url(url: &str) -> Database {
    Database::new(url, None).unwrap()
}

/// A gateway's folder, and the name of the copy that it makes.
pub(crate) struct Gateway {
    folder: tempfile::TempDir,
    pub(crate) path: PathBuf,
    name: [u8; 16],
}

impl Gateway {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let folder = tempfile::tempdir().unwrap();
        let mut name = [0xaa; 16];
        name[..8].copy_from_slice(&NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes());
        Self { path: folder.path().join(FILE), folder, name }
    }

    pub(crate) fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    pub(crate) fn try_open(&self, database: &Database) -> Result<SqliteLedger, OpenError> {
        unlocked(|| SqliteLedger::open_shared(self.folder(), database, self.name, Rig::options(), T0))
    }

    pub(crate) fn open(&self, database: &Database) -> SqliteLedger {
        self.try_open(database).unwrap()
    }

    pub(crate) fn open_at(&self, database: &Database, now: Timestamp) -> SqliteLedger {
        unlocked(|| SqliteLedger::open_shared(self.folder(), database, self.name, Rig::options(), now)).unwrap()
    }

    /// Brings the copy, which nobody has open, up to date: it is sound, and the database has the same rows.
    pub(crate) fn check(&self, database: &Database) {
        drop(SqliteLedger::open_shared_read_only(self.folder(), database, self.name).unwrap());
        let found = check_integrity(&self.path).unwrap();
        assert!(found.is_sound(), "{found:#?}");
        backend::check_with(&self.path, database);
    }
}

/// Opens what this process has closed. A program that another test starts at that moment has its files, and so the
/// lock, until it runs.
pub(crate) fn unlocked(open: impl Fn() -> Result<SqliteLedger, OpenError>) -> Result<SqliteLedger, OpenError> {
    let mut opened = open();
    until("the copy is unlocked", || {
        let locked = matches!(opened, Err(OpenError::Locked(_)));
        if locked {
            opened = open();
        }
        !locked
    });
    opened
}

/// Waits until something is so.
#[expect(clippy::disallowed_methods, reason = "other processes are waited for, within bounds, on the real clock")]
pub(crate) fn until(what: &str, mut so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !so() {
        assert!(start.elapsed() < PATIENCE, "it did not come about: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Waits until the ledger takes writes.
pub(crate) fn until_it_writes(ledger: &SqliteLedger) {
    until("the ledger writes", || block(ledger.expire_approvals(T0)).is_ok());
}

/// A stream of numbers that look random.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
}
