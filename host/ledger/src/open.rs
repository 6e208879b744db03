//! Opening a store: whose it is, that nobody else has it open, and what a crash left behind.

use std::fmt;
use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use countersign_core::time::Timestamp;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};
use serde_json::json;

use crate::sql::{Answer, Fault, one, run};
use crate::{audit, life, schema};

/// Why a store was not opened.
#[derive(Debug)]
pub enum OpenError {
    /// Another process has it open. Names the lock file.
    Locked(PathBuf),
    /// A file or folder that others can change, or that is somebody else's.
    Unsafe {
        /// Which.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        why: String,
    },
    /// Written by a newer version of this program.
    NewerSchema {
        /// The version found.
        found: u64,
        /// The newest one this build knows.
        known: u64,
    },
    /// Written by an older version, and opened read-only.
    OlderSchema(u64),
    /// A database, but not a ledger.
    NotALedger,
    /// The system refused.
    Io {
        /// On which file.
        path: PathBuf,
        /// What it said.
        error: std::io::Error,
    },
    /// SQLite refused.
    Store(String),
    /// The shared ledger, or this gateway's copy of it, is not there or not what it must be.
    Shared(String),
}

impl OpenError {
    /// Stable code for programs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Locked(_) => "ledger-locked",
            Self::Unsafe { .. } => "ledger-unsafe",
            Self::NewerSchema { .. } => "ledger-newer",
            Self::OlderSchema(_) => "ledger-older",
            Self::NotALedger => "not-a-ledger",
            Self::Io { .. } | Self::Store(_) | Self::Shared(_) => "ledger-unavailable",
        }
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Locked(lock) => {
                write!(f, "another process has this ledger open (it holds the lock on `{}`)", lock.display())
            }
            Self::Unsafe { path, why } => write!(f, "`{}` {why}", path.display()),
            Self::NewerSchema { found, known } => write!(
                f,
                "the ledger was written by a newer version (schema {found}; this build knows {known}): use that version"
            ),
            Self::OlderSchema(found) => write!(
                f,
                "the ledger is of an older version (schema {found}): start the gateway once to bring it up to date"
            ),
            Self::NotALedger => f.write_str("the file is a database, but not a Countersign ledger"),
            Self::Io { path, error } => write!(f, "`{}`: {error}", path.display()),
            Self::Store(why) => write!(f, "the ledger does not open: {why}"),
            Self::Shared(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for OpenError {}

impl From<rusqlite::Error> for OpenError {
    fn from(e: rusqlite::Error) -> Self {
        Self::Store(e.to_string())
    }
}

impl From<Fault> for OpenError {
    fn from(fault: Fault) -> Self {
        Self::Store(fault.told().to_string())
    }
}

/// What a new store is born with. A ledger has no randomness of its own.
#[derive(Clone, Copy)]
pub struct Birth {
    /// Key of every keyed digest (queries, bodies, fingerprints). Never leaves the store.
    pub key: [u8; 32],
    /// Names the store.
    pub store_id: [u8; 16],
}

impl fmt::Debug for Birth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Birth").field("store_id", &hex::encode(self.store_id)).finish_non_exhaustive()
    }
}

/// A file beside the store: `x.db` and `.lock` make `x.db.lock`.
pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Checks folder and files, and answers the path with its folder resolved.
pub(crate) fn check_place(path: &Path) -> Result<PathBuf, OpenError> {
    let name = path.file_name().ok_or_else(|| unsafe_path(path, "is not the name of a file"))?;
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    let folder = folder.canonicalize().map_err(|error| io(folder, error))?;
    let meta = folder.metadata().map_err(|error| io(&folder, error))?;
    check_owner(&folder, meta.uid())?;
    if meta.mode() & 0o022 != 0 {
        let why = "can be written by other users, who could put another ledger in its place: chmod go-w";
        return Err(unsafe_path(&folder, why));
    }
    let path = folder.join(name);
    for suffix in ["", "-wal", "-shm", ".lock", ".answers", ".answers-wal", ".answers-shm"] {
        check_file(&beside(&path, suffix))?;
    }
    Ok(path)
}

fn check_file(path: &Path) -> Result<(), OpenError> {
    let meta = match path.symlink_metadata() {
        Ok(meta) => meta,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io(path, error)),
    };
    if !meta.is_file() {
        return Err(unsafe_path(path, "is not a plain file (links are not followed)"));
    }
    check_owner(path, meta.uid())?;
    if meta.mode() & 0o077 != 0 {
        return Err(unsafe_path(path, "can be read or written by other users: chmod 600"));
    }
    Ok(())
}

fn check_owner(path: &Path, owner: u32) -> Result<(), OpenError> {
    let own = rustix::process::geteuid().as_raw();
    if owner == own {
        return Ok(());
    }
    Err(unsafe_path(path, &format!("belongs to user {owner}; this process runs as user {own}")))
}

fn unsafe_path(path: &Path, why: &str) -> OpenError {
    OpenError::Unsafe { path: path.to_owned(), why: why.to_owned() }
}

fn io(path: &Path, error: std::io::Error) -> OpenError {
    OpenError::Io { path: path.to_owned(), error }
}

/// Opens or makes a file that only its owner can read; SQLite gives `-wal` and `-shm` its mode.
pub(crate) fn private_file(path: &Path) -> Result<File, OpenError> {
    let nofollow = i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).unwrap_or(0);
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(nofollow);
    options.open(path).map_err(|error| io(path, error))
}

/// Takes the lock that dies with the process.
pub(crate) fn lock(path: &Path) -> Result<File, OpenError> {
    let lock = beside(path, ".lock");
    let file = private_file(&lock)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::Locked(lock)),
        Err(TryLockError::Error(error)) => Err(io(&lock, error)),
    }
}

/// Opens the writer's connection: durable before it answers, and never shrinking the WAL, whose
/// overwriting is what makes a commit cheap.
pub(crate) fn writer(path: &Path) -> Result<Connection, OpenError> {
    // Only to make it with the right mode: closing a handle of a database that somebody in this
    // process has open would drop their POSIX locks.
    if !path.exists() {
        drop(private_file(path)?);
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
    conn.pragma_update(None, "page_size", 4096)?;
    let mode: String = conn.query_row("PRAGMA journal_mode=WAL", [], |r| r.get(0))?;
    if mode != "wal" {
        return Err(OpenError::Store(format!("the journal mode is `{mode}`, not `wal`")));
    }
    conn.pragma_update(None, "synchronous", "FULL")?;
    conn.pragma_update(None, "wal_autocheckpoint", 0)?;
    conn.pragma_update(None, "journal_size_limit", -1)?;
    common(&conn, WRITER_CACHE)?;
    Ok(conn)
}

/// Copies what an earlier process left in the WAL into the database, and begins the WAL anew.
///
/// After a sync that failed, the system reads pages back as written that never reached the disk. What is appended
/// behind such a hole is lost with it at the next power cut; what is copied to the database and synced there is not.
pub(crate) fn settle_wal(conn: &Connection) -> Result<(), OpenError> {
    let busy: bool = conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |r| r.get(0))?;
    if busy {
        let why = "another process has been reading it all the while, and nothing safe can be appended until it \
                   ends: end that export, verification or shell, then start again";
        return Err(OpenError::Store(why.to_owned()));
    }
    Ok(())
}

/// A connection that only reads. It opens the file for writing, because a reader must be able to
/// take part in the shared-memory index, and is then forbidden to write.
pub(crate) fn reader(path: &Path) -> Result<Connection, OpenError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
    common(&conn, READER_CACHE)?;
    conn.pragma_update(None, "query_only", true)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    Ok(conn)
}

/// Pages that the writer keeps, in KiB: the inner pages of every index it adds to.
const WRITER_CACHE: i64 = 32 << 10;
/// Pages that each reader keeps, in KiB. What they miss is in the system's cache; a copy for each reader would
/// be memory that grows with the ledger and serves nobody.
const READER_CACHE: i64 = 4 << 10;

fn common(conn: &Connection, cache: i64) -> Result<(), OpenError> {
    conn.pragma_update(None, "foreign_keys", true)?;
    conn.pragma_update(None, "cell_size_check", true)?;
    conn.pragma_update(None, "trusted_schema", false)?;
    conn.pragma_update(None, "recursive_triggers", true)?;
    conn.pragma_update(None, "cache_size", -cache)?;
    conn.pragma_update(None, "temp_store", "MEMORY")?;
    // Without it, every new value bound to a column of a partial index compiles the statement anew.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    conn.set_prepared_statement_cache_capacity(256);
    Ok(())
}

/// What the store says of itself.
#[derive(Clone, Copy)]
pub(crate) struct Identity {
    pub(crate) key: [u8; 32],
    pub(crate) store_id: [u8; 16],
    pub(crate) epoch: u64,
}

/// Reads the store's identity.
pub(crate) fn identity(conn: &Connection) -> Answer<Option<Identity>> {
    let sql = "SELECT (SELECT v FROM meta WHERE k='key'),(SELECT v FROM meta WHERE k='store'),
                      (SELECT v FROM meta WHERE k='epoch')";
    let found = one(conn, sql, [], |r| {
        let key: Option<[u8; 32]> = r.get(0)?;
        let store: Option<[u8; 16]> = r.get(1)?;
        let epoch: Option<u64> = r.get(2)?;
        Ok((key, store, epoch))
    })?;
    let Some((key, store, epoch)) = found else { return Ok(None) };
    Ok(key.zip(store).zip(epoch).map(|((key, store_id), epoch)| Identity { key, store_id, epoch }))
}

/// Starts an epoch: what was in flight when the last process ended is assumed to be out there.
pub(crate) fn begin(conn: &Connection, birth: Birth, now: Timestamp) -> Result<Identity, OpenError> {
    let tx = conn.unchecked_transaction()?;
    let identity = begin_in(&tx, birth, &[], now)?;
    tx.commit()?;
    Ok(identity)
}

/// [`begin`] inside a transaction, beside other writers that are `alive`.
pub(crate) fn begin_in(conn: &Connection, birth: Birth, alive: &[u64], now: Timestamp) -> Answer<Identity> {
    let known = identity(conn)?;
    let born = known.is_none();
    let known = known.unwrap_or(Identity { key: birth.key, store_id: birth.store_id, epoch: 0 });
    let epoch = known.epoch.saturating_add(1);
    let set = "INSERT INTO meta(k,v) VALUES(?1,?2) ON CONFLICT(k) DO UPDATE SET v=excluded.v";
    run(conn, set, ("key", known.key))?;
    run(conn, set, ("store", known.store_id))?;
    run(conn, set, ("epoch", epoch))?;
    let store = hex::encode(known.store_id);
    if born {
        audit::append(conn, now, "ledger-created", json!({ "store": store, "schema": schema::current() }))?;
    }
    let recovered = life::recover(conn, epoch, alive, now)?;
    audit::append(conn, now, "ledger-opened", json!({ "store": store, "epoch": epoch, "recovered": recovered }))?;
    Ok(Identity { epoch, ..known })
}
