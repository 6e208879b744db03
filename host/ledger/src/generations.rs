//! Which policies and mandates served since when.

use countersign_core::generation::{Generation, Origin};
use countersign_core::time::Timestamp;
use rusqlite::Connection;
use serde_json::{Value, json};

use crate::admin::{blob, require_generation};
use crate::audit::append;
use crate::sql::{Answer, Done, Fault, all, one, run};

/// Generations one listing answers.
const MOST_LISTED: u32 = 500;

/// Writes a generation down, with its record; if it takes anything away, what earlier ones judged is void.
pub(crate) fn activate(conn: &Connection, g: &Generation, tightened: bool) -> Answer<Done<()>> {
    let last: Option<u64> = one(conn, "SELECT max(number) FROM generation", [], |r| r.get(0))?.flatten();
    let last = last.unwrap_or(0);
    if last.checked_add(1) != Some(g.number) {
        return Err(Fault::conflict(format!("generation {} does not follow {last}", g.number)));
    }
    for digest in g.digests() {
        let digest = bytes_of(digest)?;
        one(conn, "SELECT 1 FROM blob WHERE digest=?1", [digest], |_| Ok(()))?.ok_or_else(Fault::not_found)?;
    }
    run(
        conn,
        "INSERT INTO generation(number,at,origin,by,restores,whole,config,policies,mandates,mandates_stand_for)
         VALUES(?1,?2,?3,?4,?5,?6,?7,?8,?9,?10)",
        (
            g.number,
            g.at.as_millis(),
            g.origin.as_str(),
            &g.by,
            g.restores,
            g.whole,
            &g.config_sha256,
            serde_json::to_string(&g.policies)?,
            g.mandates.to_string(),
            &g.mandates_stand_for,
        ),
    )?;
    if tightened {
        require_generation(conn, g.number)?;
    }
    append(conn, g.at, "policies-activated", record(g)?)?;
    Ok(Done::Keep(()))
}

/// Mandates may be long: the record has their digest, the row has them.
fn record(g: &Generation) -> Answer<Value> {
    Ok(json!({
        "generation": g.number,
        "origin": g.origin,
        "by": g.by,
        "restores": g.restores,
        "whole": g.whole,
        "config_sha256": g.config_sha256,
        "mandates_sha256": crate::audit::digest_hex(g.mandates.to_string().as_bytes()),
        "mandates_stand_for": g.mandates_stand_for,
        "policies": serde_json::to_value(&g.policies)?,
    }))
}

struct Row {
    number: u64,
    at: u64,
    origin: String,
    by: String,
    restores: Option<u64>,
    whole: bool,
    config: String,
    policies: String,
    mandates: String,
    mandates_stand_for: Option<String>,
}

/// Generations below `before`, newest first.
pub(crate) fn list(conn: &Connection, before: Option<u64>, limit: u32) -> Answer<Vec<Generation>> {
    let sql = "SELECT number,at,origin,by,restores,whole,config,policies,mandates,mandates_stand_for
        FROM generation WHERE ?1 IS NULL OR number<?1 ORDER BY number DESC LIMIT ?2";
    let rows = all(conn, sql, (before, limit.min(MOST_LISTED)), |r| {
        Ok(Row {
            number: r.get(0)?,
            at: r.get(1)?,
            origin: r.get(2)?,
            by: r.get(3)?,
            restores: r.get(4)?,
            whole: r.get(5)?,
            config: r.get(6)?,
            policies: r.get(7)?,
            mandates: r.get(8)?,
            mandates_stand_for: r.get(9)?,
        })
    })?;
    rows.into_iter().map(read).collect()
}

fn read(row: Row) -> Answer<Generation> {
    let origin: Origin = serde_json::from_value(Value::String(row.origin))?;
    Ok(Generation {
        number: row.number,
        at: Timestamp::from_millis(row.at),
        origin,
        by: row.by,
        restores: row.restores,
        whole: row.whole,
        config_sha256: row.config,
        policies: serde_json::from_str(&row.policies)?,
        mandates: serde_json::from_str(&row.mandates)?,
        mandates_stand_for: row.mandates_stand_for,
    })
}

/// Remembered bytes; all of them or none.
pub(crate) fn remembered(conn: &Connection, digests: &[String]) -> Answer<Vec<Vec<u8>>> {
    digests.iter().map(|d| blob(conn, &bytes_of(d)?)?.ok_or_else(Fault::not_found)).collect()
}

fn bytes_of(digest: &str) -> Answer<[u8; 32]> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(digest, &mut bytes).map_err(|e| Fault::Broken(format!("{digest:?} is not a digest: {e}")))?;
    Ok(bytes)
}
