//! Opening the ledger: the one place that knows which backend a configuration names.

use std::fmt;

use countersign_core::seams::Clock;
use countersign_core::time::Timestamp;
use countersign_ledger::{Options, SqliteLedger};

use crate::clock::{SystemClock, random};
use crate::config::{Config, Store};

/// Why the ledger could not be opened.
#[derive(Debug)]
pub struct StoreError(String);

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for StoreError {}

/// Opens the ledger for this process alone.
///
/// # Errors
/// When another process has it, or it cannot be trusted.
pub fn open(config: &Config, now: Timestamp) -> Result<SqliteLedger, StoreError> {
    let clock: &dyn Clock = &SystemClock;
    let fail = |e: &dyn fmt::Display| StoreError(e.to_string());
    let (key, id) = (random(clock).map_err(|e| fail(&e))?, random(clock).map_err(|e| fail(&e))?);
    let mut options = Options::new(key, id);
    options.answers.keep_millis = config.responses.keep_ms;
    let Store::Sqlite { path } = &config.ledger.store;
    SqliteLedger::open(path, options, now).map_err(|e| fail(&e))
}

/// Opens the ledger for reading, beside whoever has it.
///
/// # Errors
/// When there is none, or it is of another version.
pub fn open_read_only(config: &Config) -> Result<SqliteLedger, StoreError> {
    let Store::Sqlite { path } = &config.ledger.store;
    SqliteLedger::open_read_only(path).map_err(|e| StoreError(e.to_string()))
}
