//! What the chain must have shown before money moves, and how far each network is final.

use countersign_core::ledger::{Evidence, Finalized};
use countersign_core::money::Atomic;
use countersign_core::time::Timestamp;
use rusqlite::Connection;

use crate::audit::cut;
use crate::sql::{Answer, Done, Fault, one, run};

/// A hash in the one spelling it is stored in: `0x` and 64 lower-case hex digits.
pub(crate) fn hash(what: &str, text: &str) -> Answer<String> {
    let digits = text.strip_prefix("0x").filter(|d| d.len() == 64 && d.bytes().all(|b| b.is_ascii_hexdigit()));
    match digits {
        Some(digits) => Ok(format!("0x{}", digits.to_ascii_lowercase())),
        None => Err(Fault::conflict(format!("the {what} is not `0x` and 64 hex digits: `{}`", cut(text)))),
    }
}

/// Evidence as it is stored: hashes in one spelling, what is none cut.
pub(crate) fn cleaned(evidence: &Evidence) -> Evidence {
    let clean = |text: &String| hash("", text).unwrap_or_else(|_| cut(text));
    Evidence {
        transaction: evidence.transaction.as_ref().map(clean),
        block_hash: evidence.block_hash.as_ref().map(clean),
        document: evidence.document.as_deref().map(cut),
        ..evidence.clone()
    }
}

/// The time of the finalized block a proof rests on.
fn block_time(evidence: Option<&Evidence>) -> Answer<u64> {
    let block = evidence.and_then(|e| e.block.zip(e.block_hash.as_ref()).zip(e.block_time));
    let Some(((_, block_hash), time)) = block else {
        return Err(Fault::conflict("a proof names its block: number, hash and time"));
    };
    hash("block's hash", block_hash)?;
    Ok(time)
}

/// What a redemption came to.
pub(crate) fn of_redemption(evidence: Option<&Evidence>, signed: Atomic) -> Answer<Atomic> {
    block_time(evidence)?;
    let transaction = evidence.and_then(|e| e.transaction.as_ref());
    hash("transaction", transaction.ok_or_else(|| Fault::conflict("a redemption has a transaction"))?)?;
    let redeemed = evidence.and_then(|e| e.redeemed).unwrap_or(signed);
    if redeemed > signed || redeemed == Atomic::default() {
        return Err(Fault::conflict(format!(
            "{redeemed} redeemed, {signed} signed for: the chain contradicts what was signed"
        )));
    }
    Ok(redeemed)
}

/// Checks that nothing can be redeemed any more: the block is not earlier than the end of the validity, or a
/// transaction cancelled the authorization.
pub(crate) fn of_non_use(evidence: Option<&Evidence>, valid_before: Option<u64>) -> Answer<()> {
    let time = block_time(evidence)?;
    if let Some(transaction) = evidence.and_then(|e| e.transaction.as_ref()) {
        return hash("cancellation's transaction", transaction).map(drop);
    }
    let ends = valid_before.ok_or_else(|| Fault::conflict("nothing was signed that could be unused"))?;
    if time < ends {
        return Err(Fault::conflict(format!(
            "at the block's time, {}, the authorization could still be redeemed: it is valid until {}",
            Timestamp::from_secs(time),
            Timestamp::from_secs(ends)
        )));
    }
    Ok(())
}

/// How far a chain's clock may be ahead of ours, in milliseconds.
const AHEAD: u64 = 86_400_000;

/// Remembers how far a network is final; it never goes back, and no block changes.
pub(crate) fn finalized(conn: &Connection, f: &Finalized, at: Timestamp) -> Answer<Done<()>> {
    let block_hash = hash("block's hash", &f.hash)?;
    let network = cut(&f.network);
    if f.time > at.plus_millis(AHEAD).as_secs() {
        // What is remembered here never goes back: one absurd answer would end everything on this network.
        return Err(Fault::conflict(format!(
            "{network}: a node says that a block of {} is final, and it is {at}",
            Timestamp::from_secs(f.time)
        )));
    }
    let sql = "SELECT block,hash,time FROM finalized WHERE network=?1";
    type Row = (u64, String, u64);
    let known: Option<Row> = one(conn, sql, [&network], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)))?;
    if let Some((block, hash, time)) = known {
        if (f.block, &block_hash, f.time) == (block, &hash, time) {
            return Ok(Done::Undo(()));
        }
        if f.block <= block || f.time < time {
            return Err(Fault::conflict(format!(
                "{network} was final up to block {block} ({hash}, time {time}); a node that now says block {} ({block_hash}, \
                 time {}) is not to be believed",
                f.block, f.time
            )));
        }
    }
    run(
        conn,
        "INSERT INTO finalized(network,block,hash,time,at) VALUES(?1,?2,?3,?4,?5)
         ON CONFLICT DO UPDATE SET block=excluded.block, hash=excluded.hash, time=excluded.time, at=excluded.at",
        (network, f.block, block_hash, f.time, at.as_millis()),
    )?;
    Ok(Done::Keep(()))
}
