//! What a turn does: a batch of jobs, the beginning of an epoch, or the end of somebody else's.

use std::sync::atomic::Ordering;

use countersign_core::time::Timestamp;
use rusqlite::Connection;

use super::connect::Trouble;
use super::copy;
use super::link::{Link, Turn};
use super::session::Writers;
use crate::open::{Birth, Identity, begin_in};
use crate::sql::Answer;
use crate::{clock, life};

/// Begins a turn of this writer's; if it was taken for ended, it begins a new epoch first. `told` is the latest moment known,
/// `ours` the latest that this process's clock said.
pub(crate) fn enter(
    conn: &Connection,
    link: &mut Link,
    birth: Birth,
    (told, ours): (Timestamp, Timestamp),
) -> Result<(), Trouble> {
    loop {
        let turn = link.enter()?;
        link.in_step(ours.as_millis()).inspect_err(|_| link.leave())?;
        match turn {
            Turn::Ours => return Ok(()),
            Turn::Ended => {
                let identity = begin(conn, link, birth, told)?;
                tracing::warn!(epoch = identity.epoch, "another gateway took this one for ended; it goes on anew");
            }
        }
    }
}

/// Inside a turn, which it ends: begins an epoch. What this copy's earlier writers had in flight is assumed to be out
/// there.
pub(crate) fn begin(conn: &Connection, link: &mut Link, birth: Birth, told: Timestamp) -> Result<Identity, Trouble> {
    // A process that runs knows its own epochs. Others of the same name are of processes that are gone, or of a copied
    // folder: the first start of either ends them, and nobody ends them again and again.
    let ended = match link.epoch().load(Ordering::Relaxed) {
        0 => link.own().inspect_err(|_| link.leave())?,
        ours => vec![ours],
    };
    let alive: Vec<u64> = link.alive().iter().copied().filter(|epoch| !ended.contains(epoch)).collect();
    let mut begun = None;
    in_turn(conn, link, |conn, link| {
        let now = clock::latest(conn)?.max(told);
        let identity = begin_in(conn, birth, &alive, now)?;
        begun = Some(identity);
        Ok(Writers { begun: Some((identity.epoch, link.name())), ended })
    })?;
    let identity = begun.ok_or_else(|| Trouble::Broken("no epoch began".to_owned()))?;
    link.begun(identity.epoch);
    Ok(identity)
}

/// Inside a turn, which it ends: writers that were silent for too long have ended, and what any ended writer left in
/// flight is assumed to be out there.
pub(crate) fn reap(conn: &Connection, link: &mut Link, told: Timestamp) -> Result<(), Trouble> {
    let ended = link.silent().inspect_err(|_| link.leave())?;
    let alive: Vec<u64> = link.alive().iter().copied().filter(|epoch| !ended.contains(epoch)).collect();
    in_turn(conn, link, |conn, link| {
        let now = clock::latest(conn)?.max(told);
        let epoch = link.epoch().load(Ordering::Relaxed);
        let recovered = life::recover(conn, epoch, &alive, now)?;
        if !ended.is_empty() || recovered > 0 {
            tracing::warn!(?ended, recovered, "gateways have ended; what they had in flight is followed here");
        }
        Ok(Writers { begun: None, ended })
    })
}

fn in_turn(
    conn: &Connection,
    link: &mut Link,
    work: impl FnOnce(&Connection, &Link) -> Answer<Writers>,
) -> Result<(), Trouble> {
    if let Err(e) = conn.execute_batch("BEGIN IMMEDIATE") {
        link.leave();
        return Err(Trouble::Away(e.to_string()));
    }
    match work(conn, link) {
        Ok(writers) => commit_with(conn, link, &writers),
        Err(fault) => {
            undo(conn);
            link.leave();
            Err(fault.into())
        }
    }
}

/// Ends a turn: what the local transaction changed is committed in the shared ledger, then here.
pub(crate) fn commit(conn: &Connection, link: &mut Link) -> Result<(), Trouble> {
    commit_with(conn, link, &Writers::default())
}

fn commit_with(conn: &Connection, link: &mut Link, writers: &Writers) -> Result<(), Trouble> {
    let delta = match copy::changed(conn, &link.tables()) {
        Ok(delta) => delta,
        Err(fault) => {
            undo(conn);
            link.leave();
            return Err(fault.into());
        }
    };
    if delta.is_empty() && writers.begun.is_none() && writers.ended.is_empty() {
        undo(conn);
        link.leave();
        return Ok(());
    }
    let at = link.keep(&delta, writers).inspect_err(|_| undo(conn))?;
    // From here on it is true, whatever becomes of the copy: if that fails, it is behind and follows after a restart.
    let noted = copy::note(conn, at).map_err(|fault| fault.told().to_string());
    let kept = noted.and_then(|()| conn.execute_batch("COMMIT").map_err(|e| e.to_string()));
    if let Err(e) = kept {
        undo(conn);
        return Err(Trouble::Broken(format!("the local copy of the ledger does not take what was committed: {e}")));
    }
    link.kept(at);
    Ok(())
}

/// Takes the local transaction back.
pub(crate) fn undo(conn: &Connection) {
    if !conn.is_autocommit()
        && let Err(e) = conn.execute_batch("ROLLBACK")
    {
        tracing::error!(error = %e, "a local transaction cannot be taken back");
    }
}
