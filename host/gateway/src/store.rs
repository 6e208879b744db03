//! Opening the ledger: the one place that knows which backend a configuration names.

use std::fmt;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::sync::Arc;

use countersign_core::seams::Clock;
use countersign_core::time::Timestamp;
use countersign_ledger::{Database, OpenError, Options, SqliteLedger};

use crate::clock::{SystemClock, random};
use crate::config::{Config, Store};
use crate::egress::{tls, tls_believing};

/// How far ahead of the database server's clock a gateway's may be, in milliseconds: as far as the ledger lets a clock go
/// back.
const AHEAD_MS: u64 = 300_000;

/// Why the ledger could not be opened.
#[derive(Debug)]
pub struct StoreError(String);

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for StoreError {}

/// Opens the ledger: for this process alone, or this gateway's copy of a shared one.
///
/// # Errors
/// When another process has it, it cannot be trusted, or its server cannot be used.
pub fn open(config: &Config, now: Timestamp) -> Result<SqliteLedger, StoreError> {
    let options = options(config)?;
    match &config.ledger.store {
        Store::Sqlite { path } => SqliteLedger::open(path, options, now).map_err(|e| fail(&e)),
        Store::Postgres { database, folder, roots } => {
            let (database, name) = (trusting(database, roots.as_deref())?, fresh()?);
            folder_of_our_own(folder)?;
            apart(|| SqliteLedger::open_shared(folder, &database, name, options, now))
        }
    }
}

/// Opens the ledger for reading, beside whoever has it.
///
/// # Errors
/// When there is none, or it is of another version.
pub fn open_read_only(config: &Config) -> Result<SqliteLedger, StoreError> {
    match &config.ledger.store {
        Store::Sqlite { path } => SqliteLedger::open_read_only(path).map_err(|e| fail(&e)),
        Store::Postgres { database, folder, roots } => {
            let (database, name) = (trusting(database, roots.as_deref())?, fresh()?);
            folder_of_our_own(folder)?;
            apart(|| SqliteLedger::open_shared_read_only(folder, &database, name))
        }
    }
}

fn fail(error: &dyn fmt::Display) -> StoreError {
    StoreError(error.to_string())
}

fn fresh<const N: usize>() -> Result<[u8; N], StoreError> {
    let clock: &dyn Clock = &SystemClock;
    random(clock).map_err(|e| fail(&e))
}

fn options(config: &Config) -> Result<Options, StoreError> {
    let mut options = Options::new(fresh()?, fresh()?);
    options.answers.keep_millis = config.responses.keep_ms;
    Ok(options)
}

/// The database, whose server is believed as sellers are, and by a file of one's own.
fn trusting(database: &Database, roots: Option<&Path>) -> Result<Database, StoreError> {
    let connector = match roots {
        Some(file) => tls_believing(file).map_err(|e| StoreError(format!("ledger.roots: {e}")))?,
        None => tls(),
    };
    let mut config = rustls::ClientConfig::clone(connector.config());
    // PostgreSQL's own word, where a server asks for one; never that of HTTP.
    config.alpn_protocols = vec![b"postgresql".to_vec()];
    Ok(database.clone().believing(Arc::new(config)).in_step(AHEAD_MS))
}

/// Makes the folder of the copy, if it is not there, for this user alone.
fn folder_of_our_own(folder: &Path) -> Result<(), StoreError> {
    let made = DirBuilder::new().mode(0o700).create(folder);
    match made {
        Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(StoreError(format!("ledger.path: {}: {e}", folder.display())))
        }
        _ => Ok(()),
    }
}

/// On a thread of its own: what waits for a server there must not run inside a runtime.
fn apart<T: Send>(open: impl FnOnce() -> Result<T, OpenError> + Send) -> Result<T, StoreError> {
    let opened = std::thread::scope(|scope| scope.spawn(open).join());
    match opened {
        Ok(opened) => opened.map_err(|e| fail(&e)),
        Err(_) => Err(StoreError("opening the ledger ended abnormally".to_owned())),
    }
}
