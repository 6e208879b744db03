//! The ledger under test: one file.

use std::path::Path;

use countersign_core::time::Timestamp;
use countersign_ledger::{OpenError, Options, SqliteLedger};

/// The name of its file.
pub(crate) const FILE: &str = "ledger.db";

/// Opens it.
pub(crate) fn open(path: &Path, options: Options, now: Timestamp) -> Result<SqliteLedger, OpenError> {
    SqliteLedger::open(path, options, now)
}

/// What must hold of this kind of ledger beyond what holds of all.
pub(crate) const fn check(_: &Path) {}
