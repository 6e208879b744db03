//! Sessions: who opened which for whom, and how many there may be.

use countersign_core::id::SessionId;
use countersign_core::ledger::{Opening, Session, SessionCap, SessionCaps};
use countersign_core::money::Micros;
use countersign_core::time::Timestamp;
use rusqlite::Connection;
use serde_json::json;

use crate::audit::append;
use crate::sql::{self, Answer, Done, Fault, one, run};

/// Sessions one listing answers.
const MOST_LISTED: u32 = 1_000;
const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 86_400_000;

/// Opens a session, if the caps leave room for it.
pub(crate) fn open(conn: &Connection, session: &Session, caps: &SessionCaps) -> Answer<Done<Opening>> {
    if let Some(cap) = reached(conn, session, caps)? {
        return Ok(Done::Undo(Opening::Refused(cap)));
    }
    run(
        conn,
        "INSERT INTO session(id,token,agent,opener,body,lim,created,expires,closed) VALUES(?1,?2,?3,?4,?5,?6,?7,?8,?9)",
        (
            session.id.as_bytes(),
            &session.token_sha256,
            &session.agent,
            &session.opened_by,
            serde_json::to_string(session)?,
            session.limit.get(),
            session.created_at.as_millis(),
            session.expires_at.as_millis(),
            session.closed_at.map(Timestamp::as_millis),
        ),
    )?;
    let mut body = serde_json::to_value(session)?;
    // The digest of a token is no secret, but a record has no use for it.
    if let Some(map) = body.as_object_mut() {
        map.remove("token_sha256");
    }
    append(conn, session.created_at, "session-opened", json!({ "session": body }))?;
    Ok(Done::Keep(Opening::Opened))
}

/// The first cap that leaves no room for `session`.
fn reached(conn: &Connection, session: &Session, caps: &SessionCaps) -> Answer<Option<SessionCap>> {
    let (at, opener, agent) = (session.created_at, session.opened_by.as_str(), session.agent.as_str());
    for (column, name, most) in [("opener", opener, caps.opener_hour), ("agent", agent, caps.agent_hour)] {
        if let Some(oldest) = crowded(conn, column, name, most, at)? {
            let who = if column == "opener" { "by operator" } else { "for agent" };
            let what = format!("{most} sessions an hour {who} `{name}`");
            return Ok(Some(SessionCap { what, frees_at: Some(oldest.plus_millis(HOUR_MS)) }));
        }
    }
    for (by, most) in [(None, caps.open), (Some(opener), caps.opener_open)] {
        let Some(most) = most else { continue };
        let frees = full(conn, Span::Open, by, at, most, session.limit)?;
        if let Some(frees_at) = frees {
            let what = format!("{most} in open sessions{}", of(by));
            return Ok(Some(SessionCap { what, frees_at }));
        }
    }
    for (by, most) in [(None, caps.day), (Some(opener), caps.opener_day)] {
        let Some(most) = most else { continue };
        let frees = full(conn, Span::Day, by, at, most, session.limit)?;
        if let Some(frees_at) = frees {
            let what = format!("{most} in sessions opened in a day{}", of(by));
            return Ok(Some(SessionCap { what, frees_at }));
        }
    }
    Ok(None)
}

fn of(opener: Option<&str>) -> String {
    opener.map_or_else(String::new, |name| format!(" by operator `{name}`"))
}

/// If there are `most` sessions of the last hour or more, when the one was opened that has to age first.
fn crowded(conn: &Connection, column: &str, name: &str, most: u32, at: Timestamp) -> Answer<Option<Timestamp>> {
    let Some(before) = most.checked_sub(1) else { return Ok(Some(at)) };
    let sql =
        format!("SELECT created FROM session WHERE {column}=?1 AND created>?2 ORDER BY created DESC LIMIT 1 OFFSET ?3");
    let found = one(conn, &sql, (name, since(at, HOUR_MS), before), |r| r.get(0))?;
    Ok(found.map(Timestamp::from_millis))
}

/// Created after this is within the span. A clock that was set back leaves later ones within it, too.
fn since(at: Timestamp, span: u64) -> i64 {
    let at = i64::try_from(at.as_millis()).unwrap_or(i64::MAX);
    at.saturating_sub(i64::try_from(span).unwrap_or(i64::MAX))
}

/// Which sessions a sum is over.
#[derive(Clone, Copy)]
enum Span {
    /// Those not closed and not over.
    Open,
    /// Those opened in the last day.
    Day,
}

/// Whether `wanted` more does not fit below `most`: and when it will, if it ever does.
fn full(
    conn: &Connection,
    span: Span,
    opener: Option<&str>,
    at: Timestamp,
    most: Micros,
    wanted: Micros,
) -> Answer<Option<Option<Timestamp>>> {
    let (when, order, edge, later) = match span {
        Span::Open => ("closed IS NULL AND expires>?1", "expires", since(at, 0), 0),
        Span::Day => ("created>?1", "created", since(at, DAY_MS), DAY_MS),
    };
    let whose = if opener.is_some() { "opener=?2" } else { "?2 IS NULL" };
    let sql = format!("SELECT coalesce(sum(lim),0) FROM session WHERE {when} AND {whose}");
    let used: u64 = one(conn, &sql, (edge, opener), |r| r.get(0))?.unwrap_or(0);
    let mut wanted_in_all = used.saturating_add(wanted.get());
    if wanted_in_all <= most.get() {
        return Ok(None);
    }
    if wanted > most {
        return Ok(Some(None));
    }
    let sql = format!("SELECT {order},lim FROM session WHERE {when} AND {whose} ORDER BY {order}");
    let mut statement = conn.prepare_cached(&sql)?;
    let mut rows = statement.query((edge, opener))?;
    while let Some(row) = rows.next()? {
        wanted_in_all = wanted_in_all.saturating_sub(row.get(1)?);
        if wanted_in_all <= most.get() {
            return Ok(Some(Some(Timestamp::from_millis(row.get(0)?).plus_millis(later))));
        }
    }
    Err(Fault::Broken("the limits of sessions do not add up".to_owned()))
}

/// Closes a session; closing it again changes nothing.
pub(crate) fn close(conn: &Connection, id: SessionId, by: &str, at: Timestamp) -> Answer<Done<()>> {
    let sql = "SELECT closed FROM session WHERE id=?1";
    let closed: Option<u64> = one(conn, sql, [id.as_bytes()], |r| r.get(0))?.ok_or_else(Fault::not_found)?;
    if closed.is_none() {
        run(conn, "UPDATE session SET closed=?2 WHERE id=?1", (id.as_bytes(), at.as_millis()))?;
        append(conn, at, "session-closed", json!({ "session": id, "by": by }))?;
    }
    Ok(Done::Keep(()))
}

fn read(body: &str, closed: Option<u64>) -> Answer<Session> {
    let mut session: Session = serde_json::from_str(body)?;
    session.closed_at = closed.map(Timestamp::from_millis);
    Ok(session)
}

/// The session of a token, open or not.
pub(crate) fn by_token(conn: &Connection, token_sha256: &str) -> Answer<Option<Session>> {
    let sql = "SELECT body,closed FROM session WHERE token=?1";
    let found = one(conn, sql, [token_sha256], |r| Ok((r.get::<_, String>(0)?, r.get(1)?)))?;
    found.map(|(body, closed)| read(&body, closed)).transpose()
}

/// A session, open or not.
pub(crate) fn by_id(conn: &Connection, id: SessionId) -> Answer<Option<Session>> {
    let sql = "SELECT body,closed FROM session WHERE id=?1";
    let found = one(conn, sql, [id.as_bytes()], |r| Ok((r.get::<_, String>(0)?, r.get(1)?)))?;
    found.map(|(body, closed)| read(&body, closed)).transpose()
}

/// Sessions, newest first.
pub(crate) fn all(conn: &Connection) -> Answer<Vec<Session>> {
    let sql = "SELECT body,closed FROM session ORDER BY id DESC LIMIT ?1";
    let found = sql::all(conn, sql, [MOST_LISTED], |r| Ok((r.get::<_, String>(0)?, r.get(1)?)))?;
    found.into_iter().map(|(body, closed)| read(&body, closed)).collect()
}

/// Whether purchases may be made in this session now.
pub(crate) fn is_open(conn: &Connection, id: SessionId, agent: &str, at: Timestamp) -> Answer<bool> {
    let sql = "SELECT 1 FROM session WHERE id=?1 AND agent=?2 AND closed IS NULL AND expires>?3";
    Ok(one(conn, sql, (id.as_bytes(), agent, at.as_millis()), |_| Ok(()))?.is_some())
}
