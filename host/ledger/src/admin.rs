//! Suspensions, the least policy generation, remembered bytes and plain notes.

use countersign_core::ledger::{Note, Suspension, SuspensionScope};
use countersign_core::time::Timestamp;
use rusqlite::Connection;
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::audit::{append, cut};
use crate::sql::{Answer, Done, Fault, all, one, run};

/// The two columns of a scope.
fn columns(scope: &SuspensionScope) -> (&'static str, &str) {
    match scope {
        SuspensionScope::All => ("all", ""),
        SuspensionScope::Agent(name) => ("agent", name),
        SuspensionScope::Mandate(name) => ("mandate", name),
        SuspensionScope::Wallet(name) => ("wallet", name),
        SuspensionScope::Vendor(name) => ("vendor", name),
    }
}

/// The inverse of [`columns`].
pub(crate) fn scope(scope: String, name: String) -> Answer<SuspensionScope> {
    Ok(match scope.as_str() {
        "all" => SuspensionScope::All,
        "agent" => SuspensionScope::Agent(name),
        "mandate" => SuspensionScope::Mandate(name),
        "wallet" => SuspensionScope::Wallet(name),
        "vendor" => SuspensionScope::Vendor(name),
        _ => return Err(Fault::Broken(format!("no suspension scope `{scope}`"))),
    })
}

/// Orders a stop.
pub(crate) fn suspend(conn: &Connection, s: &Suspension) -> Answer<Done<()>> {
    let (scope, name) = columns(&s.scope);
    run(
        conn,
        "INSERT INTO suspension(scope,name,by,reason,at) VALUES(?1,?2,?3,?4,?5)
         ON CONFLICT DO UPDATE SET by=excluded.by, reason=excluded.reason, at=excluded.at",
        (scope, name, &s.by, cut(&s.reason), s.at.as_millis()),
    )?;
    let body = json!({ "scope": scope, "name": name, "by": s.by, "reason": s.reason });
    append(conn, s.at, "suspended", body)?;
    Ok(Done::Keep(()))
}

/// Lifts a stop.
pub(crate) fn resume(conn: &Connection, scope: &SuspensionScope, by: &str, at: Timestamp) -> Answer<Done<()>> {
    let (scope, name) = columns(scope);
    if run(conn, "DELETE FROM suspension WHERE scope=?1 AND name=?2", (scope, name))? == 0 {
        return Err(Fault::not_found());
    }
    append(conn, at, "resumed", json!({ "scope": scope, "name": name, "by": by }))?;
    Ok(Done::Keep(()))
}

/// Stops in force, newest first.
pub(crate) fn suspensions(conn: &Connection) -> Answer<Vec<Suspension>> {
    let sql = "SELECT scope,name,by,reason,at FROM suspension ORDER BY at DESC,scope,name";
    type Row = (String, String, String, String, u64);
    let found: Vec<Row> = all(conn, sql, [], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?, r.get(4)?)))?;
    let read = |(kind, name, by, reason, at): Row| {
        let scope = scope(kind, name)?;
        Ok(Suspension { scope, by, reason, at: Timestamp::from_millis(at) })
    };
    found.into_iter().map(read).collect()
}

/// The least generation whose judgements are still good.
pub(crate) fn least_generation(conn: &Connection) -> Answer<u64> {
    Ok(one(conn, "SELECT v FROM meta WHERE k='generation'", [], |r| r.get(0))?.unwrap_or(0))
}

/// Raises the least generation; it never falls.
pub(crate) fn require_generation(conn: &Connection, generation: u64) -> Answer<Done<()>> {
    run(
        conn,
        "INSERT INTO meta(k,v) VALUES('generation',?1) ON CONFLICT(k) DO UPDATE SET v=max(v,excluded.v)",
        [generation],
    )?;
    Ok(Done::Keep(()))
}

/// Keeps bytes by their digest.
pub(crate) fn remember(conn: &Connection, blobs: &[([u8; 32], Vec<u8>)]) -> Answer<Done<()>> {
    for (digest, bytes) in blobs {
        run(conn, "INSERT INTO blob(digest,bytes) VALUES(?1,?2) ON CONFLICT DO NOTHING", (digest, bytes))?;
    }
    Ok(Done::Keep(()))
}

/// The digest bytes are remembered by.
pub(crate) fn digest(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// Remembered bytes, if they still are what they were remembered as: what is read back here is compiled
/// and judges.
pub(crate) fn blob(conn: &Connection, wanted: &[u8; 32]) -> Answer<Option<Vec<u8>>> {
    let bytes: Option<Vec<u8>> = one(conn, "SELECT bytes FROM blob WHERE digest=?1", [wanted], |r| r.get(0))?;
    match bytes {
        Some(bytes) if digest(&bytes) != *wanted => {
            Err(Fault::Broken(format!("remembered bytes do not hash to {}", hex::encode(wanted))))
        }
        same => Ok(same),
    }
}

/// Appends a record of the caller's.
pub(crate) fn note(conn: &Connection, note: &Note) -> Answer<Done<()>> {
    append(conn, note.at, note.kind, json!({ "by": note.by, "body": note.body }))?;
    Ok(Done::Keep(()))
}

/// The first word about something stands.
pub(crate) fn agree(conn: &Connection, what: &str, word: &str, at: Timestamp) -> Answer<Done<()>> {
    let key = format!("agreed:{what}");
    match one(conn, "SELECT v FROM meta WHERE k=?1", [&key], |r| r.get::<_, String>(0))? {
        Some(stands) if stands == word => Ok(Done::Undo(())),
        Some(stands) => Err(Fault::conflict(stands)),
        None => {
            run(conn, "INSERT INTO meta(k,v) VALUES(?1,?2)", (&key, word))?;
            append(conn, at, "agreed", json!({ "what": what, "word": word }))?;
            Ok(Done::Keep(()))
        }
    }
}
