//! The ledger under test: a shared one, with one gateway's copy.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};

use countersign_core::time::Timestamp;
use countersign_ledger::{Database, OpenError, Options, SqliteLedger};
use rusqlite::types::Value;

use crate::postgres::Postgres;

/// The name of the copy's file.
pub(crate) const FILE: &str = "copy.db";

/// The server of all tests that leave it alone. It ends with this process.
pub(crate) fn server() -> &'static Postgres {
    static SERVER: OnceLock<Postgres> = OnceLock::new();
    SERVER.get_or_init(Postgres::start)
}

/// A name for a database of a test's own.
pub(crate) fn fresh() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("ledger_{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// The database of a folder, which is made when it is first asked for.
pub(crate) fn database(folder: &Path) -> Database {
    static MADE: Mutex<BTreeMap<PathBuf, String>> = Mutex::new(BTreeMap::new());
    let mut made = MADE.lock().unwrap();
    let name = made.entry(folder.to_owned()).or_insert_with(|| {
        let name = fresh();
        server().create_database(&name);
        name
    });
    Database::new(&server().url(name), None).unwrap()
}

/// Opens it.
pub(crate) fn open(path: &Path, options: Options, now: Timestamp) -> Result<SqliteLedger, OpenError> {
    let folder = path.parent().unwrap();
    SqliteLedger::open_shared(folder, &database(folder), [3; 16], options, now)
}

/// Everything in a file but what is its own: for each table its rows.
pub(crate) fn contents(path: &Path) -> BTreeMap<String, Vec<Vec<Value>>> {
    let conn = rusqlite::Connection::open(path).unwrap();
    let sql = "SELECT name FROM sqlite_schema WHERE type='table' AND name<>'copy' ORDER BY name";
    let names: Vec<String> =
        conn.prepare(sql).unwrap().query_map([], |r| r.get(0)).unwrap().map(Result::unwrap).collect();
    let rows = |name: &String| {
        let mut statement = conn.prepare(&format!("SELECT * FROM \"{name}\"")).unwrap();
        let columns = statement.column_count();
        let row = |r: &rusqlite::Row<'_>| (0..columns).map(|n| r.get(n)).collect::<Result<Vec<Value>, _>>();
        let mut rows: Vec<Vec<Value>> = statement.query_map([], row).unwrap().map(Result::unwrap).collect();
        rows.sort_by_key(|row| format!("{row:?}"));
        rows
    };
    names.iter().map(|name| (name.clone(), rows(name))).collect()
}

/// PostgreSQL has every row of the copy and no other: a new copy made of it is the same.
pub(crate) fn check(path: &Path) {
    check_with(path, &database(path.parent().unwrap()));
}

/// [`check`], in this database.
pub(crate) fn check_with(path: &Path, database: &Database) {
    let again = tempfile::tempdir().unwrap();
    drop(SqliteLedger::open_shared_read_only(again.path(), database, [4; 16]).unwrap());
    let (ours, theirs) = (contents(path), contents(&again.path().join(FILE)));
    assert!(!ours["audit"].is_empty());
    for (table, rows) in &ours {
        assert_eq!(rows, &theirs[table], "{table}");
    }
    assert_eq!(ours.len(), theirs.len());
}
