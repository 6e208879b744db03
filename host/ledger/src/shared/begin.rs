//! Opening a copy: the schema of the shared ledger, whether this copy is one of its, and a new copy where there is none.

use std::path::Path;
use std::sync::Arc;

use countersign_core::time::Timestamp;
use rusqlite::Connection;
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;
use tokio_postgres::Client;
use tokio_postgres::types::ToSql;

use super::connect::{Database, Trouble, words};
use super::copy;
use super::delta::{Hash, Position};
use super::link::{Link, runtime};
use super::session::{Session, value};
use super::tables::{self, COPY, Table};
use super::turn;
use crate::open::{self, Birth, Identity, OpenError, beside};
use crate::schema;

/// The name of the copy's file in its folder.
pub(crate) const FILE: &str = "copy.db";
/// Rows read at once when a copy is made.
const PAGE: i32 = 2_000;
/// Each entry leads the shared ledger from the version that is its index to the next one; they go with SQLite's.
const MIGRATIONS: [&str; 1] = [include_str!("postgres_v1.sql")];
/// `CSGN`: whoever makes or changes the schema has this lock.
const LOCK: i64 = 0x4353_474e;

impl From<Trouble> for OpenError {
    fn from(trouble: Trouble) -> Self {
        Self::Shared(trouble.to_string())
    }
}

/// A copy that follows, and its connections.
pub(crate) struct Copy {
    pub(crate) conn: Connection,
    pub(crate) link: Link,
    pub(crate) identity: Identity,
    pub(crate) changed: watch::Receiver<u64>,
}

/// Opens the copy at `path`, which nobody else has, brings it up to date and begins an epoch.
pub(crate) fn open(
    path: &Path,
    database: &Database,
    (birth, name): (Birth, [u8; 16]),
    now: Timestamp,
) -> Result<Copy, OpenError> {
    let (conn, mut link, changed) = follow(path, database, (Some(birth), name))?;
    copy::watch(&conn, &link.tables())?;
    turn::enter(&conn, &mut link, birth, (now, now))?;
    let identity = turn::begin(&conn, &mut link, birth, now)?;
    Ok(Copy { conn, link, identity, changed })
}

/// Opens the copy at `path`, which nobody else has, and brings it up to date. Without a `birth` there must be a ledger in
/// the database.
pub(crate) fn follow(
    path: &Path,
    database: &Database,
    (birth, name): (Option<Birth>, [u8; 16]),
) -> Result<(Connection, Link, watch::Receiver<u64>), OpenError> {
    let runtime = runtime()?;
    let mut session = runtime.block_on(Session::open(database))?;
    let noted = if path.exists() { copy::noted(&copy::writer(path)?)? } else { None };
    let of_our_own = |why: Trouble| OpenError::Shared(format!("{}: {why}", path.display()));
    let base = birth.map(|birth| Sha256::digest([b"countersign".as_slice(), &birth.store_id].concat()).into());
    let version = runtime.block_on(prepare(session.client(), base, noted.map(|(_, at)| at))).map_err(of_our_own)?;
    if version != schema::current() {
        return Err(OpenError::NewerSchema { found: version, known: schema::current() });
    }
    let usable = match noted {
        Some((_, at)) => runtime.block_on(is_of(&mut session, at)).map_err(of_our_own)?,
        None => false,
    };
    if !usable {
        runtime.block_on(make(path, &mut session, noted.map_or(name, |(name, _)| name)))?;
    }
    let conn = copy::writer(path)?;
    open::settle_wal(&conn)?;
    let (name, at) = copy::noted(&conn)?.ok_or_else(|| OpenError::Shared("the local copy has no name".to_owned()))?;
    let tables: Arc<[Table]> = tables::read(&conn)?.into();
    let applier = copy::applier(path)?;
    let (sender, changed) = watch::channel(at.seq);
    let mut link = Link::new(runtime, database.clone(), session, (applier, tables), (name, at), sender);
    link.look()?;
    Ok((conn, link, changed))
}

/// Makes or migrates the schema; answers its version. A copy that knows of more than an empty database refuses it.
async fn prepare(client: &mut Client, base: Option<Hash>, known: Option<Position>) -> Result<u64, Trouble> {
    let away = |e: tokio_postgres::Error| Trouble::Away(words(&e));
    let is_there = "SELECT pg_catalog.to_regclass('countersign.head') IS NOT NULL";
    let there = |row: tokio_postgres::Row| row.try_get::<_, bool>(0);
    if !client.query_one(is_there, &[]).await.and_then(there).map_err(away)? {
        if known.is_some_and(|at| at.seq > 0) {
            return Err(Trouble::Broken(
                "the database is empty, but the local copy is of a ledger: restore the database, or name the one that \
                 this copy follows"
                    .to_owned(),
            ));
        }
        let Some(base) = base else {
            return Err(Trouble::Broken("there is no ledger in this database yet: a gateway makes it".to_owned()));
        };
        let tx = client.transaction().await.map_err(away)?;
        tx.execute("SELECT pg_catalog.pg_advisory_xact_lock($1)", &[&LOCK]).await.map_err(away)?;
        // Somebody else may have made it while we waited.
        if !tx.query_one(is_there, &[]).await.and_then(there).map_err(away)? {
            tx.batch_execute("CREATE SCHEMA IF NOT EXISTS countersign").await.map_err(away)?;
            for migration in MIGRATIONS {
                tx.batch_execute(migration).await.map_err(away)?;
            }
            let version = i64::try_from(schema::current()).unwrap_or(i64::MAX);
            let hash = base.to_vec();
            let head = "INSERT INTO countersign.head(one,schema,seq,hash) VALUES(1,$1,0,$2)";
            tx.execute(head, &[&version, &hash]).await.map_err(away)?;
            let first = "INSERT INTO countersign.change(seq,epoch,hash) VALUES(0,0,$1)";
            tx.execute(first, &[&hash]).await.map_err(away)?;
        }
        tx.commit().await.map_err(away)?;
    }
    let row = client.query_one("SELECT schema FROM countersign.head", &[]).await.map_err(away)?;
    Ok(u64::try_from(row.try_get::<_, i64>(0).map_err(away)?).unwrap_or(u64::MAX))
}

/// Whether a copy can follow from where it stands; false, if the changes it would need are dropped. A copy of
/// something else is an error.
async fn is_of(session: &mut Session, at: Position) -> Result<bool, Trouble> {
    let learned = session.learn(at.seq, false, schema::current()).await?;
    if learned.head.seq < at.seq || !session.has(at).await? {
        return Err(Trouble::Broken(format!(
            "the local copy (at change {}) is not of the ledger in this database (at change {}): either the copy is of \
             another ledger, then name another folder in `ledger.path`; or the database was restored to an earlier \
             state, then restore the newest one, because what this copy knows must not be forgotten",
            at.seq, learned.head.seq
        )));
    }
    // Not only the next one: where the server's clock was set back, a later one may have been dropped before it.
    let dropped = "SELECT EXISTS(SELECT FROM countersign.change WHERE seq>$1 AND body IS NULL)";
    let seq = i64::try_from(at.seq).unwrap_or(i64::MAX);
    let row = session.client().query_one(dropped, &[&seq]).await.map_err(|e| Trouble::Away(words(&e)))?;
    Ok(!row.try_get::<_, bool>(0).map_err(|e| Trouble::Away(words(&e)))?)
}

/// Makes a new copy of everything, as of one moment.
async fn make(path: &Path, session: &mut Session, name: [u8; 16]) -> Result<(), OpenError> {
    for suffix in ["", "-wal", "-shm"] {
        let file = beside(path, suffix);
        match std::fs::remove_file(&file) {
            Ok(()) => {}
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(OpenError::Io { path: file, error }),
        }
    }
    {
        let conn = copy::writer(path)?;
        schema::migrate(&conn)?;
    }
    let conn = copy::applier(path)?;
    let tables = tables::read(&conn)?;
    let away = |e: tokio_postgres::Error| Trouble::Away(words(&e));
    let tx = session.client().build_transaction();
    let tx = tx.isolation_level(tokio_postgres::IsolationLevel::RepeatableRead).read_only(true);
    let tx = tx.start().await.map_err(away)?;
    // A large ledger takes longer to read than any exchange of a batch.
    tx.batch_execute("SET LOCAL statement_timeout=0; SET LOCAL idle_in_transaction_session_timeout='10min'")
        .await
        .map_err(away)?;
    let head = tx.query_one("SELECT seq,hash FROM countersign.head", &[]).await.map_err(away)?;
    let local = conn.unchecked_transaction()?;
    for table in &tables {
        let sql = format!("SELECT {} FROM countersign.\"{}\"", table.names(), table.name);
        let none: [&(dyn ToSql + Sync); 0] = [];
        let portal = tx.bind(sql.as_str(), &none).await.map_err(away)?;
        loop {
            let page = tx.query_portal(&portal, PAGE).await.map_err(away)?;
            let row = |row: &tokio_postgres::Row| {
                table.columns.iter().enumerate().map(|(n, c)| value(row, n, c.kind)).collect::<Result<Vec<_>, _>>()
            };
            let rows = page.iter().map(row).collect::<Result<Vec<_>, _>>()?;
            copy::put(&local, table, &rows)?;
            if rows.len() < usize::try_from(PAGE).unwrap_or(0) {
                break;
            }
        }
    }
    let seq = u64::try_from(head.try_get::<_, i64>(0).map_err(away)?).unwrap_or(0);
    let hash = Hash::try_from(head.try_get::<_, Vec<u8>>(1).map_err(away)?.as_slice()).unwrap_or_default();
    copy::name(&local, Position { seq, hash }, name)?;
    local.commit()?;
    tx.commit().await.map_err(away)?;
    tracing::info!(seq, table = COPY, "a new copy of the shared ledger was made");
    Ok(())
}
