//! The counters: one row per budget and window, charged by decisions and by nothing else.
//!
//! A hold is charged to the window of its decision; releasing, settling and refunding go back to that
//! row with the amount that was recorded. Only [`place`] ever makes `held + spent` larger, and it does
//! so in one guarded statement. What moves a counter is in [`Moves`], and thereby in the record.
//!
//! Rolling windows keep what is spent in a ring of buckets beside a running total. What is held is
//! outside the ring, because a payment that can still be redeemed does not grow old. Once its
//! validity is over by [`AGEING_MARGIN`] it is *aged*: counted as spent at the moment of its
//! decision, so that a gateway that can prove nothing does not fill its own windows for ever. Its
//! state stays unknown; only its share of the window grows old.
//!
//! A budget whose window is changed becomes another budget, and must not become an empty one: see
//! [`missing`].

use std::collections::BTreeMap;

use countersign_core::budget::{BudgetId, HOST, HoldError, MAX_AMOUNT, MAX_LIMIT, PlacedHold, Ring, check_set, label};
use countersign_core::id::PaymentId;
use countersign_core::ledger::BudgetRefusal;
use countersign_core::money::Atomic;
use countersign_core::time::Timestamp;
use countersign_core::verdict::{Unit, Window};
use rusqlite::{Connection, params};

use crate::clock;
use crate::moves::{Move, Moves};
use crate::sql::{Answer, Fault, all, one, run};

/// How long after the end of its validity an unproven payment counts as spent.
pub(crate) const AGEING_MARGIN: u64 = 60_000;
/// Holds aged by one placement. Each hold ages once, so the debt is paid off faster than it grows.
const AGED_AT_ONCE: u32 = 1_024;
/// How often one placement may do so before it is refused.
const MOST_ROLLS: u32 = 64;

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
}

#[derive(Default)]
struct Row {
    held: u64,
    spent: u64,
    mark: u64,
    alerted: Option<u64>,
    reviewed: Option<u64>,
    /// Whether the same owner's name and unit are, or were, counted over another window too.
    shared: bool,
    /// Holds of those other windows up to this record are taken over, or were this row's own.
    seq: u64,
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
/// `seq` is the number of the record that will vouch for it.
pub(crate) fn place(
    conn: &Connection,
    moves: &mut Moves,
    hold: &PlacedHold,
    at: Timestamp,
    (replacing, seq): (bool, u64),
) -> Answer<Placed> {
    let budget = hold.budget();
    let ring = ring(&hold.window);
    let mut row = match read(conn, budget, hold.win)? {
        Some(row) => row,
        None => create(conn, budget, hold, at)?,
    };
    // The clock of a row never goes back.
    let now = Timestamp::from_millis(at.as_millis().max(row.mark));
    let mut moved = Move { hold: hold.amount, ..Move::default() };
    let mut aged = match ring {
        Some(ring) => roll(conn, budget, ring, now, &mut moved)?,
        None => 0,
    };
    let seeded = if row.shared { missing(conn, budget, hold, now, row.seq)? } else { Vec::new() };
    moved.seeded = seeded.iter().fold(0, |sum, (_, amount)| sum.saturating_add(*amount));
    let used = |moved: &Move| {
        let more = row.held.saturating_add(row.spent).saturating_add(moved.aged_spent).saturating_add(moved.seeded);
        more.saturating_sub(moved.aged).saturating_sub(moved.left)
    };
    let refused = |before: u64| before > hold.limit.saturating_sub(hold.amount) || hold.amount > hold.limit;
    let mut before = used(&moved);
    // A refusal undoes this upkeep: it must rest on a window that is up to date, or it would be the same for ever.
    for _ in 1..MOST_ROLLS {
        let (Some(ring), true) = (ring, refused(before) && aged == AGED_AT_ONCE as usize) else { break };
        aged = roll(conn, budget, ring, now, &mut moved)?;
        before = used(&moved);
    }
    if refused(before) {
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
        rearm(before, &mut row);
    }
    let (held, spent) = moved.after((row.held, row.spent))?;
    // What the record will say is what is written here, or nothing is. (`RETURNING` would cost a temporary table, and
    // setting a mark where there is none to keep costs its trigger.)
    let sql = match ring {
        Some(_) => {
            "UPDATE budget_window SET held=?3, spent=?4, lim=?5, alerted=?6, reviewed=?7, seq=?8, mark=max(mark,?11)
             WHERE budget=?1 AND win=?2 AND held=?9 AND spent=?10 AND ?3+?4<=?5"
        }
        None => {
            "UPDATE budget_window SET held=?3, spent=?4, lim=?5, alerted=?6, reviewed=?7, seq=?8
             WHERE budget=?1 AND win=?2 AND held=?9 AND spent=?10 AND ?3+?4<=?5"
        }
    };
    let mut statement = conn.prepare_cached(sql)?;
    let window = params![
        budget.as_bytes(),
        hold.win,
        held,
        spent,
        hold.limit,
        row.alerted,
        row.reviewed,
        seq,
        row.held,
        row.spent,
        now.as_millis()
    ];
    let used_of_them = if ring.is_some() { window } else { window.get(..10).unwrap_or_default() };
    if statement.execute(used_of_them)? != 1 {
        return Err(Fault::Broken("a window is not what it was a moment ago".to_owned()));
    }
    moves.add((budget, hold.win), || hold.label(), moved, (held, spent, hold.limit));
    seed(conn, budget, hold, ring, &seeded)?;
    let used = before.saturating_add(hold.amount);
    let reached = |threshold: Option<u64>, latched: Option<u64>| {
        threshold.filter(|t| used >= *t && latched.is_none_or(|l| *t > l))
    };
    Ok(Placed::Fits(After {
        budget,
        bucket: ring.map(|r| r.bucket(now)),
        used,
        alert: reached(hold.alert_at, row.alerted),
        review: reached(hold.review_at, row.reviewed),
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
    (at, seq): (Timestamp, u64),
) -> Answer<()> {
    let due = after.bucket.and(valid_before).map(due_of);
    run(
        conn,
        "INSERT INTO hold(payment,budget,win,ord,amount,lim,alert,review,bucket,due,at,seq)
         VALUES(?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12)",
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
            at.as_millis(),
            seq
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

/// What becomes of a payment's open holds.
#[derive(Clone, Copy)]
pub(crate) enum Close {
    /// They go back to where they came from.
    Release,
    /// They become spending: the redeemed part of what was signed for, rounded up, and counts whole.
    Settle {
        /// What was redeemed.
        redeemed: Atomic,
        /// What was signed for; not less.
        signed: Atomic,
    },
}

/// Closes every open hold of a payment in the window it came from. A hold that has aged is counted as
/// spent there already: what it did not come to is credited.
pub(crate) fn close(conn: &Connection, moves: &mut Moves, payment: PaymentId, how: Close) -> Answer<()> {
    for hold in open_holds(conn, payment)? {
        let settled = match how {
            Close::Release => 0,
            Close::Settle { .. } if hold.of.counts => hold.amount,
            Close::Settle { redeemed, signed } => redeemed.share_up(signed, hold.amount),
        };
        let mut moved = Move { amount: Some(hold.amount), ..Move::default() };
        if hold.aged {
            moved.refund = hold.of.credit(conn, hold.amount.saturating_sub(settled))?;
        } else {
            moved.release = hold.amount;
            moved.spend = if hold.of.counts_spending() { settled } else { 0 };
            if let Some(start) = hold.of.bucket.filter(|_| moved.spend > 0) {
                add_to_bucket(conn, hold.of.budget, start, moved.spend)?;
            }
        }
        hold.of.shift(conn, moves, moved)?;
        let sql = "UPDATE hold SET open=0, settled=?4 WHERE payment=?1 AND budget=?2 AND win=?3";
        run(conn, sql, (payment.as_bytes(), hold.of.budget.as_bytes(), hold.of.win, settled))?;
    }
    Ok(())
}

/// Credits what a chain shows to have come back: `back` of `redeemed` in all, this refund included. Rounded
/// down, in the window of the decision; never to the host's own budgets, never to counts, and nowhere once
/// the spending has left a rolling window.
pub(crate) fn refund(
    conn: &Connection,
    moves: &mut Moves,
    payment: PaymentId,
    (back, redeemed): (Atomic, Atomic),
) -> Answer<()> {
    let sql = format!(
        "SELECT {PLACE},h.settled,h.refunded {OF_PAYMENT} AND h.open=0 AND h.settled>h.refunded ORDER BY h.ord"
    );
    let holds =
        all(conn, &sql, [payment.as_bytes()], |r| Ok((place_of(r)?, r.get::<_, u64>(11)?, r.get::<_, u64>(12)?)))?;
    for (of, settled, refunded) in holds {
        if of.counts || of.owner == HOST {
            continue;
        }
        let credit = of.credit(conn, back.share_down(redeemed, settled).saturating_sub(refunded))?;
        if credit == 0 {
            continue;
        }
        of.shift(conn, moves, Move { refund: credit, ..Move::default() })?;
        let sql = "UPDATE hold SET refunded=refunded+?4 WHERE payment=?1 AND budget=?2 AND win=?3";
        run(conn, sql, (payment.as_bytes(), of.budget.as_bytes(), of.win, credit))?;
    }
    Ok(())
}

/// Forgets the holds of a review whose purchase is being signed for; fresh ones follow.
pub(crate) fn withdraw_reserved(conn: &Connection, moves: &mut Moves, payment: PaymentId) -> Answer<()> {
    close(conn, moves, payment, Close::Release)?;
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
    let sql = "SELECT held,spent,mark,alerted,reviewed,shared,seq FROM budget_window WHERE budget=?1 AND win=?2";
    one(conn, sql, (budget.as_bytes(), win), |r| {
        Ok(Row {
            held: r.get(0)?,
            spent: r.get(1)?,
            mark: r.get(2)?,
            alerted: r.get(3)?,
            reviewed: r.get(4)?,
            shared: r.get(5)?,
            seq: r.get(6)?,
        })
    })
}

/// Budgets that count the same owner's name and unit over another window.
fn siblings(conn: &Connection, budget: BudgetId, hold: &PlacedHold) -> Answer<Vec<[u8; 16]>> {
    let (unit, ..) = columns(hold.unit, &hold.window);
    let sql = "SELECT id FROM budget WHERE owner=?1 AND name=?2 AND unit=?3 AND id<>?4";
    all(conn, sql, (&hold.owner, &hold.name, unit, budget.as_bytes()), |r| r.get(0))
}

fn create(conn: &Connection, budget: BudgetId, hold: &PlacedHold, at: Timestamp) -> Answer<Row> {
    let (unit, kind, zone, width) = columns(hold.unit, &hold.window);
    let new = run(
        conn,
        "INSERT INTO budget(id,owner,name,unit,kind,zone,width,created) VALUES(?1,?2,?3,?4,?5,?6,?7,?8)
         ON CONFLICT DO NOTHING",
        (budget.as_bytes(), &hold.owner, &hold.name, unit, kind, zone, width, at.as_millis()),
    )?;
    let siblings = siblings(conn, budget, hold)?;
    if new == 1 {
        for sibling in &siblings {
            run(conn, "UPDATE budget_window SET shared=1 WHERE budget=?1", [sibling])?;
        }
    }
    let shared = !siblings.is_empty();
    let sql = "INSERT INTO budget_window(budget,win,lim,shared) VALUES(?1,?2,?3,?4)";
    run(conn, sql, (budget.as_bytes(), hold.win, hold.limit, shared))?;
    Ok(Row { shared, ..Row::default() })
}

/// Whether another window of the same owner's name and unit holds anything after record `known`. Windows that
/// are held together, as an hour and a day of one agent, never do.
fn newer(conn: &Connection, budget: BudgetId, hold: &PlacedHold, known: u64) -> Answer<bool> {
    let (unit, ..) = columns(hold.unit, &hold.window);
    let sql = "SELECT 1 FROM budget b CROSS JOIN hold h ON h.budget=b.id AND h.seq>?5
               WHERE b.owner=?1 AND b.name=?2 AND b.unit=?3 AND b.id<>?4 LIMIT 1";
    let params = (&hold.owner, &hold.name, unit, budget.as_bytes(), known);
    Ok(one(conn, sql, params, |_| Ok(()))?.is_some())
}

/// What purchases of the same owner's name and unit hold or have spent under another window, decided within
/// this one and after record `known`, by the moment of the decision: each purchase once, with its largest
/// hold. Counting it here is what makes changing a budget's window free nothing. It errs on the safe side:
/// what is later released or refunded goes back to where it was held, not to here.
///
/// Reads backwards and no further than the window, nor further than the limit.
fn missing(
    conn: &Connection,
    budget: BudgetId,
    hold: &PlacedHold,
    now: Timestamp,
    known: u64,
) -> Answer<Vec<(Timestamp, u64)>> {
    let ring = ring(&hold.window);
    let from = match ring {
        Some(ring) => ring.gone(now).map_or(0, |gone| gone.saturating_add(1)),
        None => hold.win,
    };
    // A rolling window keeps or drops whole buckets.
    let start = |at: Timestamp| ring.map_or(at.as_millis(), |ring| ring.bucket(at));
    let mut found: BTreeMap<[u8; 16], (Timestamp, u64)> = BTreeMap::new();
    if !newer(conn, budget, hold, known)? {
        return Ok(Vec::new());
    }
    for sibling in siblings(conn, budget, hold)? {
        let sql = "SELECT h.payment,h.at,CASE h.open WHEN 1 THEN h.amount ELSE h.settled-h.refunded END,
                     EXISTS(SELECT 1 FROM hold o WHERE o.payment=h.payment AND o.budget=?3)
                   FROM hold h WHERE h.budget=?1 AND h.seq>?2 ORDER BY h.seq DESC";
        let mut statement = conn.prepare_cached(sql)?;
        let mut rows = statement.query((sibling, known, budget.as_bytes()))?;
        let mut sum = 0_u64;
        while let Some(r) = rows.next()? {
            let at = Timestamp::from_millis(r.get(1)?);
            // Records are in order; their moments may go back by no more than the slack of the clock.
            if at.plus_millis(clock::SLACK).as_millis() < from || sum > hold.limit {
                break;
            }
            let (amount, own): (u64, bool) = (r.get(2)?, r.get(3)?);
            if start(at) < from || amount == 0 || own {
                continue;
            }
            sum = sum.saturating_add(amount);
            let entry = found.entry(r.get(0)?).or_insert((at, 0));
            entry.1 = entry.1.max(amount);
        }
    }
    Ok(found.into_values().collect())
}

/// Writes down what was taken over from other windows.
fn seed(
    conn: &Connection,
    budget: BudgetId,
    hold: &PlacedHold,
    ring: Option<Ring>,
    seeded: &[(Timestamp, u64)],
) -> Answer<()> {
    for (at, amount) in seeded {
        if let Some(ring) = ring {
            let sql = "INSERT INTO bucket(budget,start,spent,seeded) VALUES(?1,?2,?3,?3)
                       ON CONFLICT DO UPDATE SET spent=spent+excluded.spent, seeded=seeded+excluded.seeded";
            run(conn, sql, (budget.as_bytes(), ring.bucket(*at), amount))?;
        } else {
            let sql = "UPDATE budget_window SET seeded=seeded+?3 WHERE budget=?1 AND win=?2";
            run(conn, sql, (budget.as_bytes(), hold.win, amount))?;
        }
    }
    Ok(())
}

/// Brings the ring of a rolling window to `now`: ages what is due, evicts what has left. The window's own
/// row is the caller's. Answers how many holds aged, at most [`AGED_AT_ONCE`].
fn roll(conn: &Connection, budget: BudgetId, ring: Ring, now: Timestamp, moved: &mut Move) -> Answer<usize> {
    let cut = ring.gone(now);
    let sql = "SELECT payment,amount,bucket FROM hold
               WHERE budget=?1 AND open=1 AND aged=0 AND due IS NOT NULL AND due<?2 LIMIT ?3";
    let due = all(conn, sql, (budget.as_bytes(), now.as_millis(), AGED_AT_ONCE), |r| {
        Ok((r.get::<_, [u8; 16]>(0)?, r.get::<_, u64>(1)?, r.get::<_, u64>(2)?))
    })?;
    let aged = due.len();
    for (payment, amount, bucket) in due {
        moved.aged = moved.aged.saturating_add(amount);
        if cut.is_none_or(|cut| bucket > cut) {
            moved.aged_spent = moved.aged_spent.saturating_add(amount);
            add_to_bucket(conn, budget, bucket, amount)?;
        }
        let sql = "UPDATE hold SET aged=1 WHERE payment=?1 AND budget=?2 AND win=0";
        run(conn, sql, (payment, budget.as_bytes()))?;
    }
    if let Some(cut) = cut {
        let sql = "SELECT spent FROM bucket WHERE budget=?1 AND start<=?2";
        let left = all(conn, sql, (budget.as_bytes(), cut), |r| r.get::<_, u64>(0))?;
        if !left.is_empty() {
            run(conn, "DELETE FROM bucket WHERE budget=?1 AND start<=?2", (budget.as_bytes(), cut))?;
        }
        moved.left = left.into_iter().fold(moved.left, u64::saturating_add);
    }
    Ok(aged)
}

/// Thresholds of a rolling window count again once use has fallen below nine tenths of them.
fn rearm(used: u64, row: &mut Row) {
    let fallen = |latched: &u64| u128::from(used).saturating_mul(10) < u128::from(*latched).saturating_mul(9);
    row.alerted = row.alerted.filter(|l| !fallen(l));
    row.reviewed = row.reviewed.filter(|l| !fallen(l));
}

fn add_to_bucket(conn: &Connection, budget: BudgetId, start: u64, amount: u64) -> Answer<()> {
    let sql = "INSERT INTO bucket(budget,start,spent) VALUES(?1,?2,?3)
               ON CONFLICT DO UPDATE SET spent=spent+excluded.spent";
    run(conn, sql, (budget.as_bytes(), start, amount)).map(drop)
}

/// Columns of [`place_of`], and where they come from.
const PLACE: &str = "h.budget,h.win,h.bucket,b.owner,b.name,b.unit,b.width,w.mark,w.held,w.spent,w.lim";
const OF_PAYMENT: &str = "FROM hold h JOIN budget b ON b.id=h.budget
                          JOIN budget_window w ON w.budget=h.budget AND w.win=h.win WHERE h.payment=?1";

/// Where a hold is counted.
struct Place {
    budget: BudgetId,
    win: u64,
    bucket: Option<u64>,
    owner: String,
    name: String,
    /// It counts purchases, not money.
    counts: bool,
    width: Option<u32>,
    mark: u64,
    /// Held, spent and limit of the window.
    stands: (u64, u64, u64),
}

fn place_of(r: &rusqlite::Row<'_>) -> rusqlite::Result<Place> {
    Ok(Place {
        budget: BudgetId::from_bytes(r.get(0)?),
        win: r.get(1)?,
        bucket: r.get(2)?,
        owner: r.get(3)?,
        name: r.get(4)?,
        counts: r.get::<_, u8>(5)? == columns(Unit::Count, &Window::Lifetime).0,
        width: r.get(6)?,
        mark: r.get(7)?,
        stands: (r.get(8)?, r.get(9)?, r.get(10)?),
    })
}

impl Place {
    /// Whether spending decided then still counts: always, but in a rolling window that it has left.
    fn counts_spending(&self) -> bool {
        let Some((bucket, width)) = self.bucket.zip(self.width) else { return true };
        Ring::new(width).gone(Timestamp::from_millis(self.mark)).is_none_or(|gone| bucket > gone)
    }

    /// Takes an amount that was spent out of its bucket; answers how much of it still counted.
    fn credit(&self, conn: &Connection, amount: u64) -> Answer<u64> {
        if !self.counts_spending() || amount == 0 {
            return Ok(0);
        }
        if let Some(start) = self.bucket {
            let sql = "UPDATE bucket SET spent=spent-?3 WHERE budget=?1 AND start=?2";
            if run(conn, sql, (self.budget.as_bytes(), start, amount))? != 1 {
                return Err(Fault::Broken("a hold's bucket is missing".to_owned()));
            }
        }
        Ok(amount)
    }

    /// Moves the window's counters, once: a payment has one hold in a window.
    fn shift(&self, conn: &Connection, moves: &mut Moves, moved: Move) -> Answer<()> {
        let (was_held, was_spent, limit) = self.stands;
        let (held, spent) = moved.after((was_held, was_spent))?;
        let sql = "UPDATE budget_window SET held=?3, spent=?4 WHERE budget=?1 AND win=?2 AND held=?5 AND spent=?6";
        let params = (self.budget.as_bytes(), self.win, held, spent, was_held, was_spent);
        if run(conn, sql, params)? != 1 {
            return Err(Fault::Broken("a hold's window is not what it was a moment ago".to_owned()));
        }
        moves.add((self.budget, self.win), || label(&self.owner, &self.name), moved, (held, spent, limit));
        Ok(())
    }
}

struct OpenHold {
    of: Place,
    amount: u64,
    aged: bool,
}

fn open_holds(conn: &Connection, payment: PaymentId) -> Answer<Vec<OpenHold>> {
    let sql = format!("SELECT {PLACE},h.amount,h.aged {OF_PAYMENT} AND h.open=1 ORDER BY h.ord");
    all(conn, &sql, [payment.as_bytes()], |r| Ok(OpenHold { of: place_of(r)?, amount: r.get(11)?, aged: r.get(12)? }))
}
