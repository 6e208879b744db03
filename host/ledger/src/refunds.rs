//! Money that came back: each transfer and each reference once, and no more in all than was redeemed.

use countersign_core::id::PaymentId;
use countersign_core::ledger::{Refund, RefundSource};
use countersign_core::money::Atomic;
use countersign_core::time::Timestamp;
use rusqlite::{Connection, params};

use crate::audit::cut;
use crate::life::atomic;
use crate::proof::hash;
use crate::sql::{Answer, Fault, all, one, run};

/// What was booked.
pub(crate) struct Booked {
    /// The source as it is stored.
    pub(crate) source: RefundSource,
    /// If a chain shows it: what chains show to have come back of this payment, in all.
    pub(crate) back_on_chain: Option<Atomic>,
}

/// Whether anything of this payment has come back.
pub(crate) fn booked(conn: &Connection, payment: PaymentId) -> Answer<bool> {
    Ok(one(conn, "SELECT 1 FROM refund WHERE payment=?1", [payment.as_bytes()], |_| Ok(()))?.is_some())
}

/// Transfers booked for one payment: a payee that sends single units must not fill the ledger with them.
const MOST: usize = 64;

/// Writes a refund down.
pub(crate) fn book(conn: &Connection, r: &Refund, network: &str, redeemed: Atomic) -> Answer<Booked> {
    if r.amount == Atomic::default() {
        return Err(Fault::conflict("a refund of nothing"));
    }
    let before = of(conn, r.payment)?;
    let sum = |chain_only: bool| {
        let counts = |b: &&Refund| !chain_only || matches!(b.source, RefundSource::Chain { .. });
        before.iter().filter(counts).fold(r.amount.get(), |sum, b| sum.saturating_add(b.amount.get()))
    };
    let from_chain = before.iter().filter(|b| matches!(b.source, RefundSource::Chain { .. })).count();
    if from_chain >= MOST && matches!(r.source, RefundSource::Chain { .. }) {
        let why = format!("{MOST} transfers are booked for this payment already; a person must look at the others");
        return Err(Fault::conflict(why));
    }
    if sum(false) > redeemed.get() {
        return Err(Fault::conflict(format!(
            "{} more would make {} that came back, of {redeemed} redeemed",
            r.amount,
            sum(false)
        )));
    }
    let source = match &r.source {
        RefundSource::Chain { transaction, log, block } => {
            RefundSource::Chain { transaction: hash("refund's transaction", transaction)?, log: *log, block: *block }
        }
        RefundSource::Person { by, reference } if by.is_empty() || reference.is_empty() => {
            return Err(Fault::conflict("a refund that a person books names them and their reference"));
        }
        RefundSource::Person { by, reference } => RefundSource::Person { by: cut(by), reference: cut(reference) },
    };
    if let Some(other) = same(conn, r.payment, network, &source)? {
        return Err(Fault::conflict(format!("this refund is booked already, for {other}")));
    }
    let (chain, person) = match &source {
        RefundSource::Chain { transaction, log, block } => (Some((transaction, log, block)), None),
        RefundSource::Person { by, reference } => (None, Some((by, reference))),
    };
    run(
        conn,
        "INSERT INTO refund(payment,n,network,amount,txhash,log,block,by,reference,at)
         VALUES(?1,?2,?3,?4,?5,?6,?7,?8,?9,?10)",
        params![
            r.payment.as_bytes(),
            before.len(),
            network,
            r.amount.to_be_bytes32(),
            chain.map(|c| c.0),
            chain.map(|c| c.1),
            chain.map(|c| c.2),
            person.map(|p| p.0),
            person.map(|p| p.1),
            r.at.as_millis()
        ],
    )?;
    let back_on_chain = chain.map(|_| Atomic::new(sum(true)));
    Ok(Booked { source, back_on_chain })
}

/// The payment that this transfer or reference is booked for.
fn same(conn: &Connection, payment: PaymentId, network: &str, source: &RefundSource) -> Answer<Option<PaymentId>> {
    let id = |r: &rusqlite::Row<'_>| r.get(0).map(PaymentId::from_bytes);
    match source {
        RefundSource::Chain { transaction, log, .. } => {
            let sql = "SELECT payment FROM refund WHERE network=?1 AND txhash=?2 AND log=?3";
            one(conn, sql, (network, transaction, log), id)
        }
        RefundSource::Person { reference, .. } => {
            let sql = "SELECT payment FROM refund WHERE payment=?1 AND reference=?2";
            one(conn, sql, (payment.as_bytes(), reference), id)
        }
    }
}

/// What came back of a payment, in the order in which it was booked.
pub(crate) fn of(conn: &Connection, payment: PaymentId) -> Answer<Vec<Refund>> {
    struct Row {
        amount: [u8; 32],
        chain: (Option<String>, Option<u64>, Option<u64>),
        person: (Option<String>, Option<String>),
        at: u64,
    }
    let sql = "SELECT amount,txhash,log,block,by,reference,at FROM refund WHERE payment=?1 ORDER BY n";
    let rows = all(conn, sql, [payment.as_bytes()], |r| {
        let (chain, person) = ((r.get(1)?, r.get(2)?, r.get(3)?), (r.get(4)?, r.get(5)?));
        Ok(Row { amount: r.get(0)?, chain, person, at: r.get(6)? })
    })?;
    let read = |row: Row| {
        let source = match (row.chain, row.person) {
            ((Some(transaction), Some(log), Some(block)), _) => RefundSource::Chain { transaction, log, block },
            (_, (Some(by), Some(reference))) => RefundSource::Person { by, reference },
            _ => return Err(Fault::Broken("a refund without a source".to_owned())),
        };
        Ok(Refund { payment, amount: atomic(&row.amount)?, source, at: Timestamp::from_millis(row.at) })
    };
    rows.into_iter().map(read).collect()
}
