//! The counters: one row per budget and window, charged by decisions and by nothing else.
//!
//! A hold is charged to the window of its decision; releasing and settling go back to that row with
//! the amount that was recorded. Only [`place`] ever makes `held + spent` larger, and it does so in
//! one guarded statement.
//!
//! Rolling windows keep what is spent in a ring of buckets beside a running total. What is held is
//! outside the ring, because a payment that can still be redeemed does not grow old. Once its
//! validity is over by [`AGEING_MARGIN`] it is *aged*: counted as spent at the moment of its
//! decision, so that a gateway that can prove nothing does not fill its own windows for ever. Its
//! state stays unknown; only its share of the window grows old.

use countersign_core::budget::{BudgetId, HoldError, MAX_AMOUNT, MAX_LIMIT, PlacedHold, Ring, check_set};
use countersign_core::id::PaymentId;
use countersign_core::ledger::BudgetRefusal;
use countersign_core::time::Timestamp;
use countersign_core::verdict::{Unit, Window};
use rusqlite::{Connection, params};
use serde_json::{Value, json};

use crate::sql::{Answer, Fault, all, one, run};

/// How long after the end of its validity an unproven payment counts as spent.
pub(crate) const AGEING_MARGIN: u64 = 60_000;
/// Holds aged by one placement. Each hold ages once, so the debt is paid off faster than it grows.
const AGED_AT_ONCE: u32 = 1_024;

/// What a placement found.
pub(crate) enum Placed {
    /// It fits.
    Fits(After),
    /// It does not; the caller undoes everything.
    Refused(Box<BudgetRefusal>),
}

/// A window after a placement.
pub(crate) struct After {
    /// The budget.
    pub(crate) budget: BudgetId,
    /// The bucket of the decision, in a rolling window.
    pub(crate) bucket: Option<u64>,
    /// Held and spent, this hold included.
    pub(crate) used: u64,
    /// The alert threshold, when reached and not latched.
    pub(crate) alert: Option<u64>,
    /// The review threshold, when reached and not latched.
    pub(crate) review: Option<u64>,
    /// For the record.
    pub(crate) record: Value,
}

struct Row {
    held: u64,
    spent: u64,
    mark: u64,
    alerted: Option<u64>,
    reviewed: Option<u64>,
}

/// The fields of a placed hold are public, so what its constructor promises is checked again.
pub(crate) fn check(holds: &[PlacedHold]) -> Answer<()> {
    let told = |e: HoldError| Fault::conflict(e.to_string());
    check_set(holds).map_err(told)?;
    for hold in holds {
        if hold.amount == 0 || hold.amount > MAX_AMOUNT {
            return Err(told(HoldError::Amount(hold.amount)));
        }
        if hold.limit > MAX_LIMIT {
            return Err(told(HoldError::Limit(hold.limit)));
        }
        match hold.window {
            Window::Rolling(0) => return Err(told(HoldError::Width(0))),
            Window::Rolling(_) | Window::Lifetime if hold.win != 0 => {
                return Err(Fault::conflict("a window without a start was given one"));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Reserves one hold, if that keeps its window at or under the limit this decision states.
///
/// `replacing`: the holds replace reserved ones, and what those freed must not re-arm a threshold.
pub(crate) fn place(conn: &Connection, hold: &PlacedHold, at: Timestamp, replacing: bool) -> Answer<Placed> {
    let budget = hold.budget();
    let ring = ring(&hold.window);
    let mut row = match read(conn, budget, hold.win)? {
        Some(row) => row,
        None => {
            create(conn, budget, hold, at)?;
            Row { held: 0, spent: 0, mark: 0, alerted: None, reviewed: None }
        }
    };
    // The clock of a row never goes back.
    let now = Timestamp::from_millis(at.as_millis().max(row.mark));
    if let Some(ring) = ring {
        roll(conn, budget, ring, now)?;
        row = read(conn, budget, hold.win)?.unwrap_or(row);
    }
    let before = row.held.saturating_add(row.spent);
    let changed = run(
        conn,
        "UPDATE budget_window SET held=held+?3, lim=?4 WHERE budget=?1 AND win=?2 AND held+spent<=?4-?3",
        (budget.as_bytes(), hold.win, hold.amount, hold.limit),
    )?;
    if changed != 1 {
        return Ok(Placed::Refused(Box::new(BudgetRefusal {
            owner: hold.owner.clone(),
            name: hold.name.clone(),
            unit: hold.unit,
            window: hold.window.clone(),
            limit: hold.limit,
            used: before,
            wanted: hold.amount,
        })));
    }
    if ring.is_some() && !replacing {
        rearm(conn, budget, hold.win, before, &mut row)?;
    }
    let used = before.saturating_add(hold.amount);
    let reached = |threshold: Option<u64>, latched: Option<u64>| {
        threshold.filter(|t| used >= *t && latched.is_none_or(|l| *t > l))
    };
    let held = row.held.saturating_add(hold.amount);
    let record = json!({
        "budget": hex::encode(budget.as_bytes()), "label": hold.label(), "win": hold.win,
        "amount": hold.amount, "limit": hold.limit, "held": held, "spent": row.spent,
    });
    Ok(Placed::Fits(After {
        budget,
        bucket: ring.map(|r| r.bucket(now)),
        used,
        alert: reached(hold.alert_at, row.alerted),
        review: reached(hold.review_at, row.reviewed),
        record,
    }))
}

/// Writes down what was reserved. `valid_before` is the end of the payload's validity in seconds,
/// and none while no payload exists: only what can be redeemed grows old.
pub(crate) fn store_hold(
    conn: &Connection,
    payment: PaymentId,
    (ord, hold): (usize, &PlacedHold),
    after: &After,
    valid_before: Option<u64>,
    at: Timestamp,
) -> Answer<()> {
    let due = after.bucket.and(valid_before).map(due_of);
    run(
        conn,
        "INSERT INTO hold(payment,budget,win,ord,amount,lim,alert,review,bucket,due,at)
         VALUES(?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11)",
        params![
            payment.as_bytes(),
            after.budget.as_bytes(),
            hold.win,
            ord,
            hold.amount,
            hold.limit,
            hold.alert_at,
            hold.review_at,
            after.bucket,
            due,
            at.as_millis()
        ],
    )
    .map(drop)
}

/// Remembers that the operator was told.
pub(crate) fn latch_alert(conn: &Connection, budget: BudgetId, win: u64, threshold: u64) -> Answer<()> {
    let sql = "UPDATE budget_window SET alerted=?3 WHERE budget=?1 AND win=?2";
    run(conn, sql, (budget.as_bytes(), win, threshold)).map(drop)
}

/// Remembers that people approved going past the threshold.
pub(crate) fn latch_review(conn: &Connection, budget: BudgetId, win: u64, threshold: u64) -> Answer<()> {
    let sql = "UPDATE budget_window SET reviewed=?3 WHERE budget=?1 AND win=?2";
    run(conn, sql, (budget.as_bytes(), win, threshold)).map(drop)
}

/// Gives every open hold of a payment back to the window it came from.
pub(crate) fn release(conn: &Connection, payment: PaymentId) -> Answer<()> {
    for hold in open_holds(conn, payment)? {
        if !hold.aged {
            take(conn, &hold, 0)?;
        } else if let Some(start) = hold.bucket {
            let sql = "UPDATE bucket SET spent=spent-?3 WHERE budget=?1 AND start=?2";
            if run(conn, sql, (hold.budget.as_bytes(), start, hold.amount))? == 1 {
                let sql = "UPDATE budget_window SET spent=spent-?3 WHERE budget=?1 AND win=?2";
                run(conn, sql, (hold.budget.as_bytes(), hold.win, hold.amount))?;
            }
        }
    }
    let sql = "UPDATE hold SET open=0, settled=0 WHERE payment=?1 AND open=1";
    run(conn, sql, [payment.as_bytes()]).map(drop)
}

/// Turns every open hold of a payment into spending, in the window it came from.
pub(crate) fn settle(conn: &Connection, payment: PaymentId) -> Answer<()> {
    for hold in open_holds(conn, payment)? {
        if !hold.aged {
            spend(conn, &hold)?;
        }
    }
    let sql = "UPDATE hold SET open=0, settled=amount WHERE payment=?1 AND open=1";
    run(conn, sql, [payment.as_bytes()]).map(drop)
}

/// Forgets the holds of a review whose purchase is being signed for; fresh ones follow.
pub(crate) fn withdraw_reserved(conn: &Connection, payment: PaymentId) -> Answer<()> {
    release(conn, payment)?;
    run(conn, "DELETE FROM hold WHERE payment=?1", [payment.as_bytes()]).map(drop)
}

/// The ring of a rolling window.
pub(crate) fn ring(window: &Window) -> Option<Ring> {
    match window {
        Window::Rolling(seconds) => Some(Ring::new(*seconds)),
        Window::Day(_) | Window::Month(_) | Window::Lifetime => None,
    }
}

/// Stored numbers of a unit and a window, and the two columns beside them.
pub(crate) fn columns(unit: Unit, window: &Window) -> (u8, u8, Option<&str>, Option<u32>) {
    let unit = match unit {
        Unit::Micros => 0,
        Unit::Count => 1,
    };
    match window {
        Window::Lifetime => (unit, 0, None, None),
        Window::Rolling(seconds) => (unit, 1, None, Some(*seconds)),
        Window::Day(zone) => (unit, 2, Some(zone), None),
        Window::Month(zone) => (unit, 3, Some(zone), None),
    }
}

/// The inverse of [`columns`].
pub(crate) fn parse(unit: u8, kind: u8, zone: Option<String>, width: Option<u32>) -> Answer<(Unit, Window)> {
    let unit = match unit {
        0 => Unit::Micros,
        1 => Unit::Count,
        n => return Err(Fault::Broken(format!("no budget unit {n}"))),
    };
    let window = match (kind, zone, width) {
        (0, None, None) => Window::Lifetime,
        (1, None, Some(seconds)) => Window::Rolling(seconds),
        (2, Some(zone), None) => Window::Day(zone),
        (3, Some(zone), None) => Window::Month(zone),
        (n, ..) => return Err(Fault::Broken(format!("no budget window kind {n}"))),
    };
    Ok((unit, window))
}

fn due_of(valid_before: u64) -> u64 {
    Timestamp::from_secs(valid_before).plus_millis(AGEING_MARGIN).as_millis()
}

fn read(conn: &Connection, budget: BudgetId, win: u64) -> Answer<Option<Row>> {
    let sql = "SELECT held,spent,mark,alerted,reviewed FROM budget_window WHERE budget=?1 AND win=?2";
    one(conn, sql, (budget.as_bytes(), win), |r| {
        Ok(Row { held: r.get(0)?, spent: r.get(1)?, mark: r.get(2)?, alerted: r.get(3)?, reviewed: r.get(4)? })
    })
}

fn create(conn: &Connection, budget: BudgetId, hold: &PlacedHold, at: Timestamp) -> Answer<()> {
    let (unit, kind, zone, width) = columns(hold.unit, &hold.window);
    run(
        conn,
        "INSERT INTO budget(id,owner,name,unit,kind,zone,width,created) VALUES(?1,?2,?3,?4,?5,?6,?7,?8)
         ON CONFLICT DO NOTHING",
        (budget.as_bytes(), &hold.owner, &hold.name, unit, kind, zone, width, at.as_millis()),
    )?;
    let sql = "INSERT INTO budget_window(budget,win,lim) VALUES(?1,?2,?3)";
    run(conn, sql, (budget.as_bytes(), hold.win, hold.limit)).map(drop)
}

/// Brings a rolling window to `now`: ages what is due, evicts what has left, moves the watermark.
fn roll(conn: &Connection, budget: BudgetId, ring: Ring, now: Timestamp) -> Answer<()> {
    let cut = ring.gone(now);
    let sql = "SELECT payment,amount,bucket FROM hold
               WHERE budget=?1 AND open=1 AND aged=0 AND due IS NOT NULL AND due<?2 LIMIT ?3";
    let due = all(conn, sql, (budget.as_bytes(), now.as_millis(), AGED_AT_ONCE), |r| {
        Ok((r.get::<_, [u8; 16]>(0)?, r.get::<_, u64>(1)?, r.get::<_, u64>(2)?))
    })?;
    for (payment, amount, bucket) in due {
        let hold = OpenHold { budget, win: 0, amount, bucket: Some(bucket), aged: false };
        let counted = if cut.is_none_or(|cut| bucket > cut) { amount } else { 0 };
        take(conn, &hold, counted)?;
        let sql = "UPDATE hold SET aged=1 WHERE payment=?1 AND budget=?2 AND win=0";
        run(conn, sql, (payment, budget.as_bytes()))?;
    }
    if let Some(cut) = cut {
        let sql = "SELECT coalesce(sum(spent),0) FROM bucket WHERE budget=?1 AND start<=?2";
        let left: u64 = one(conn, sql, (budget.as_bytes(), cut), |r| r.get(0))?.unwrap_or(0);
        if run(conn, "DELETE FROM bucket WHERE budget=?1 AND start<=?2", (budget.as_bytes(), cut))? > 0 {
            let sql = "UPDATE budget_window SET spent=spent-?2 WHERE budget=?1 AND win=0";
            run(conn, sql, (budget.as_bytes(), left))?;
        }
    }
    let sql = "UPDATE budget_window SET mark=?2 WHERE budget=?1 AND win=0 AND mark<?2";
    run(conn, sql, (budget.as_bytes(), now.as_millis())).map(drop)
}

/// Thresholds of a rolling window count again once use has fallen below nine tenths of them.
fn rearm(conn: &Connection, budget: BudgetId, win: u64, used: u64, row: &mut Row) -> Answer<()> {
    let fallen = |latched: Option<u64>| {
        latched.is_some_and(|t| u128::from(used).saturating_mul(10) < u128::from(t).saturating_mul(9))
    };
    if !fallen(row.alerted) && !fallen(row.reviewed) {
        return Ok(());
    }
    row.alerted = row.alerted.filter(|_| !fallen(row.alerted));
    row.reviewed = row.reviewed.filter(|_| !fallen(row.reviewed));
    let sql = "UPDATE budget_window SET alerted=?3, reviewed=?4 WHERE budget=?1 AND win=?2";
    run(conn, sql, (budget.as_bytes(), win, row.alerted, row.reviewed)).map(drop)
}

struct OpenHold {
    budget: BudgetId,
    win: u64,
    amount: u64,
    bucket: Option<u64>,
    aged: bool,
}

fn open_holds(conn: &Connection, payment: PaymentId) -> Answer<Vec<OpenHold>> {
    let sql = "SELECT budget,win,amount,bucket,aged FROM hold WHERE payment=?1 AND open=1";
    all(conn, sql, [payment.as_bytes()], |r| {
        Ok(OpenHold {
            budget: BudgetId::from_bytes(r.get(0)?),
            win: r.get(1)?,
            amount: r.get(2)?,
            bucket: r.get(3)?,
            aged: r.get(4)?,
        })
    })
}

/// Moves an open hold's amount out of `held`, and `spent` of it (all or nothing) into `spent` and
/// into its bucket.
fn take(conn: &Connection, hold: &OpenHold, spent: u64) -> Answer<()> {
    let sql = "UPDATE budget_window SET held=held-?3, spent=spent+?4 WHERE budget=?1 AND win=?2";
    if run(conn, sql, (hold.budget.as_bytes(), hold.win, hold.amount, spent))? != 1 {
        return Err(Fault::Broken("a hold's window is missing".to_owned()));
    }
    if let Some(start) = hold.bucket.filter(|_| spent > 0) {
        let sql = "INSERT INTO bucket(budget,start,spent) VALUES(?1,?2,?3)
                   ON CONFLICT DO UPDATE SET spent=spent+excluded.spent";
        run(conn, sql, (hold.budget.as_bytes(), start, spent))?;
    }
    Ok(())
}

fn spend(conn: &Connection, hold: &OpenHold) -> Answer<()> {
    let Some(bucket) = hold.bucket else {
        return take(conn, hold, hold.amount);
    };
    let sql = "SELECT width,mark FROM budget b JOIN budget_window w ON w.budget=b.id WHERE b.id=?1 AND w.win=0";
    let found = one(conn, sql, [hold.budget.as_bytes()], |r| Ok((r.get::<_, u32>(0)?, r.get::<_, u64>(1)?)))?;
    let Some((width, mark)) = found else {
        return Err(Fault::Broken("a hold's window is missing".to_owned()));
    };
    let gone = Ring::new(width).gone(Timestamp::from_millis(mark));
    let in_ring = gone.is_none_or(|gone| bucket > gone);
    take(conn, hold, if in_ring { hold.amount } else { 0 })
}
