//! Advisory figures for policies: how often and how much, and what sellers did before.
//!
//! A gateway may make hundreds of payments a minute, so even an index read over the last day would
//! grow with use (600 a minute are 864,000 rows a day). Counts are therefore kept by minute as they
//! change: an agent's day is at most 1,441 narrow rows that lie side by side, whatever it did. A
//! figure may count a payment up to one minute longer than its span.

use countersign_core::id::PaymentId;
use countersign_core::ledger::{Approved, Commit, Facts, FactsQuery, PurchaseKey};
use countersign_core::money::Micros;
use countersign_core::spend::{History, Seller, Tally};
use countersign_core::time::Timestamp;
use rusqlite::Connection;

use crate::audit::cut;
use crate::sql::{Answer, Fault, one, run, small};

const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
// Sums stop at 4e18, far from where SQLite's integers would turn into floats.
const AGENT: u8 = 0;
const SELLER: u8 = 1;
/// Repeats are looked for this far back, and counted no further than [`MOST_REPEATS`].
const REPEATS: u64 = 10 * MINUTE;
const MOST_REPEATS: u32 = 1_000;

/// What figures say of a payment.
pub(crate) struct Counted {
    workspace: String,
    agent: String,
    host: String,
    session: Option<[u8; 16]>,
    value: u64,
    at: u64,
}

impl Counted {
    /// Of a payment that a commit makes.
    pub(crate) fn new(c: &Commit) -> Self {
        Self {
            workspace: c.key.workspace.clone(),
            agent: c.key.agent.clone(),
            host: c.facts.host.clone(),
            session: c.session.map(|s| *s.as_bytes()),
            value: c.facts.value.get(),
            at: c.at.as_millis(),
        }
    }

    /// Of a payment that is stored.
    pub(crate) fn read(conn: &Connection, payment: PaymentId) -> Answer<Self> {
        let sql = "SELECT workspace,agent,host,session,value,counted FROM payment WHERE id=?1";
        let found = one(conn, sql, [payment.as_bytes()], |r| {
            Ok(Self {
                workspace: r.get(0)?,
                agent: r.get(1)?,
                host: r.get(2)?,
                session: r.get(3)?,
                value: r.get(4)?,
                at: r.get(5)?,
            })
        })?;
        found.ok_or_else(Fault::not_found)
    }
}

/// Counts a payment that now exists, at its `counted` moment.
pub(crate) fn count(conn: &Connection, c: &Counted) -> Answer<()> {
    let minute = minute(c.at);
    for (kind, name) in [(AGENT, &c.agent), (SELLER, &c.host)] {
        let sql = "UPDATE tally SET count=count+1, value=min(value+?5,4000000000000000000)
                   WHERE kind=?1 AND workspace=?2 AND name=?3 AND minute=?4";
        if run(conn, sql, (kind, &c.workspace, name, minute, c.value))? == 1 {
            continue;
        }
        let sql = "INSERT INTO tally(kind,workspace,name,minute,count,value) VALUES(?1,?2,?3,?4,1,?5)";
        run(conn, sql, (kind, &c.workspace, name, minute, c.value))?;
        // A new minute is when old ones can have left.
        let sql = "DELETE FROM tally WHERE kind=?1 AND workspace=?2 AND name=?3 AND minute<?4";
        run(conn, sql, (kind, &c.workspace, name, c.at.saturating_sub(2 * DAY)))?;
    }
    run(
        conn,
        "INSERT INTO seller(workspace,host,count,value) VALUES(?1,?2,1,?3)
         ON CONFLICT DO UPDATE SET count=count+1, value=min(value+excluded.value,4000000000000000000)",
        (&c.workspace, &c.host, c.value),
    )?;
    if let Some(session) = c.session {
        let sql = "UPDATE session SET count=count+1, value=min(value+?2,4000000000000000000) WHERE id=?1";
        run(conn, sql, (session, c.value))?;
    }
    Ok(())
}

/// Takes a released payment out of every figure it is in.
pub(crate) fn forget(conn: &Connection, payment: PaymentId) -> Answer<()> {
    let c = Counted::read(conn, payment)?;
    for (kind, name) in [(AGENT, &c.agent), (SELLER, &c.host)] {
        run(
            conn,
            "UPDATE tally SET count=max(count-1,0), value=max(value-?5,0)
             WHERE kind=?1 AND workspace=?2 AND name=?3 AND minute=?4",
            (kind, &c.workspace, name, minute(c.at), c.value),
        )?;
    }
    let sql = "UPDATE seller SET count=max(count-1,0), value=max(value-?3,0) WHERE workspace=?1 AND host=?2";
    run(conn, sql, (&c.workspace, &c.host, c.value))?;
    if let Some(session) = c.session {
        let sql = "UPDATE session SET count=max(count-1,0), value=max(value-?2,0) WHERE id=?1";
        run(conn, sql, (session, c.value))?;
    }
    Ok(())
}

/// Learns from a settled payment what it says about its seller.
pub(crate) fn paid(conn: &Connection, payment: PaymentId) -> Answer<()> {
    run(
        conn,
        "INSERT INTO seller(workspace,host,first_paid,last_paid,last_pay_to)
           SELECT workspace,host,signed,signed,pay_to FROM payment WHERE id=?1
         ON CONFLICT DO UPDATE SET
           first_paid=min(coalesce(first_paid,excluded.first_paid),excluded.first_paid),
           last_pay_to=CASE WHEN coalesce(last_paid,0)<=excluded.last_paid THEN excluded.last_pay_to ELSE last_pay_to END,
           last_paid=max(coalesce(last_paid,0),excluded.last_paid)",
        [payment.as_bytes()],
    )?;
    run(
        conn,
        "INSERT INTO payee(workspace,pay_to,first_paid)
           SELECT workspace,pay_to,signed FROM payment WHERE id=?1
         ON CONFLICT DO UPDATE SET first_paid=min(first_paid,excluded.first_paid)",
        [payment.as_bytes()],
    )?;
    run(
        conn,
        "INSERT INTO price(workspace,host,method,path,value,at)
           SELECT workspace,host,method,?2,value,signed FROM payment WHERE id=?1
         ON CONFLICT DO UPDATE SET value=excluded.value, at=excluded.at WHERE at<=excluded.at",
        (payment.as_bytes(), remembered_path(conn, payment)?),
    )
    .map(drop)
}

/// A path as prices and approvals are remembered by it. It is part of a key, and PostgreSQL's keys have no room for the
/// longest that a URL may have.
fn remembered_path(conn: &Connection, payment: PaymentId) -> Answer<Option<String>> {
    let path = one(conn, "SELECT path FROM payment WHERE id=?1", [payment.as_bytes()], |r| r.get::<_, String>(0))?;
    Ok(path.map(|path| cut(&path)))
}

/// Learns from an approved purchase what a person was shown and let pass.
pub(crate) fn approved(conn: &Connection, payment: PaymentId, at: Timestamp) -> Answer<()> {
    run(
        conn,
        "INSERT INTO approved(workspace,host,method,path,pay_to,value,at)
           SELECT workspace,host,method,?3,pay_to,value,?2 FROM payment WHERE id=?1
         ON CONFLICT DO UPDATE SET pay_to=excluded.pay_to, value=excluded.value, at=excluded.at
           WHERE at<=excluded.at",
        (payment.as_bytes(), at.as_millis(), remembered_path(conn, payment)?),
    )
    .map(drop)
}

/// What policies are told before they are asked. The purchase that asks does not count itself.
pub(crate) fn facts(conn: &Connection, q: &FactsQuery) -> Answer<Facts> {
    let own = own(conn, &q.key)?;
    let mut history = History {
        agent_hour: recent(conn, AGENT, &q.key.workspace, &q.key.agent, q.at, HOUR)?,
        agent_day: recent(conn, AGENT, &q.key.workspace, &q.key.agent, q.at, DAY)?,
        session: session(conn, q)?,
        seller_day: recent(conn, SELLER, &q.key.workspace, &q.host, q.at, DAY)?,
        seller_lifetime: Tally::default(),
        repeats: repeats(conn, q)?,
    };
    let known = known(conn, &q.key.workspace, &q.host)?;
    history.seller_lifetime = tally(known.count, known.value);
    if let Some(own) = own {
        own.uncount(q, &mut history);
    }
    let sql = "SELECT first_paid FROM payee WHERE workspace=?1 AND pay_to=?2";
    let payee: Option<u64> = one(conn, sql, (&q.key.workspace, &q.pay_to), |r| r.get(0))?;
    let path = cut(&q.path);
    let sql = "SELECT value FROM price WHERE workspace=?1 AND host=?2 AND method=?3 AND path=?4";
    let last: Option<u64> = one(conn, sql, (&q.key.workspace, &q.host, &q.method, &path), |r| r.get(0))?;
    let sql = "SELECT pay_to,value FROM approved WHERE workspace=?1 AND host=?2 AND method=?3 AND path=?4";
    let approved = one(conn, sql, (&q.key.workspace, &q.host, &q.method, &path), |r| {
        Ok(Approved { pay_to: r.get(0)?, value: micros(r.get(1)?) })
    })?;
    let seller = Seller {
        host: q.host.clone(),
        pay_to: q.pay_to.clone(),
        host_first_paid: known.first_paid.map(Timestamp::from_millis),
        pay_to_first_paid: payee.map(Timestamp::from_millis),
        pay_to_changed: known.last_pay_to.is_some_and(|p| p != q.pay_to),
        last_price: last.map(micros),
        judged: small(known.judged),
        useful: small(known.useful),
    };
    let (agent_judged, agent_useful) = (small(known.agent_judged), small(known.agent_useful));
    Ok(Facts { seller, history, approved, agent_judged, agent_useful })
}

/// What is kept about a seller's host.
#[derive(Default)]
struct Known {
    count: u64,
    value: u64,
    first_paid: Option<u64>,
    last_pay_to: Option<String>,
    judged: u64,
    useful: u64,
    agent_judged: u64,
    agent_useful: u64,
}

fn known(conn: &Connection, workspace: &str, host: &str) -> Answer<Known> {
    let sql = "SELECT count,value,first_paid,last_pay_to,judged,useful,agent_judged,agent_useful
               FROM seller WHERE workspace=?1 AND host=?2";
    let found = one(conn, sql, (workspace, host), |r| {
        Ok(Known {
            count: r.get(0)?,
            value: r.get(1)?,
            first_paid: r.get(2)?,
            last_pay_to: r.get(3)?,
            judged: r.get(4)?,
            useful: r.get(5)?,
            agent_judged: r.get(6)?,
            agent_useful: r.get(7)?,
        })
    })?;
    Ok(found.unwrap_or_default())
}

fn recent(conn: &Connection, kind: u8, workspace: &str, name: &str, at: Timestamp, span: u64) -> Answer<Tally> {
    let sql = "SELECT coalesce(sum(count),0),coalesce(sum(value),0) FROM tally
               WHERE kind=?1 AND workspace=?2 AND name=?3 AND minute>=?4";
    let from = since(at, span);
    let found = one(conn, sql, (kind, workspace, name, from), |r| Ok((r.get(0)?, r.get(1)?)))?;
    let (count, value) = found.unwrap_or((0, 0));
    Ok(tally(count, value))
}

fn session(conn: &Connection, q: &FactsQuery) -> Answer<Tally> {
    let Some(session) = q.session else { return Ok(Tally::default()) };
    let sql = "SELECT count,value FROM session WHERE id=?1";
    let found = one(conn, sql, [session.as_bytes()], |r| Ok((r.get(0)?, r.get(1)?)))?;
    Ok(found.map_or_else(Tally::default, |(count, value)| tally(count, value)))
}

fn repeats(conn: &Connection, q: &FactsQuery) -> Answer<u32> {
    let sql = "SELECT count(*) FROM (SELECT 1 FROM payment
                 WHERE workspace=?1 AND agent=?2 AND fingerprint=?3 AND counted>?4
                   AND state NOT IN (1,8) AND amount=?5 AND purchase<>?6 LIMIT ?7)";
    let key = &q.key;
    let from = q.at.minus_millis(REPEATS).as_millis();
    let amount = q.amount.to_be_bytes32();
    let purchase = key.purchase.as_str();
    let params = (&key.workspace, &key.agent, q.fingerprint.0, from, amount, purchase, MOST_REPEATS);
    Ok(one(conn, sql, params, |r| r.get(0))?.unwrap_or(0))
}

/// The asking purchase's own live attempt: one in review that is being resumed.
struct Own {
    host: String,
    session: Option<[u8; 16]>,
    value: u64,
    at: u64,
}

fn own(conn: &Connection, key: &PurchaseKey) -> Answer<Option<Own>> {
    let sql = "SELECT host,session,value,counted FROM payment
               WHERE workspace=?1 AND agent=?2 AND purchase=?3 AND state NOT IN (1,8)";
    one(conn, sql, (&key.workspace, &key.agent, key.purchase.as_str()), |r| {
        Ok(Own { host: r.get(0)?, session: r.get(1)?, value: r.get(2)?, at: r.get(3)? })
    })
}

impl Own {
    fn uncount(&self, q: &FactsQuery, history: &mut History) {
        let less = |t: &mut Tally, counts: bool| {
            if counts {
                *t = tally(u64::from(t.count).saturating_sub(1), t.value.get().saturating_sub(self.value));
            }
        };
        let within = |span| minute(self.at) >= since(q.at, span);
        let seller = self.host == q.host;
        less(&mut history.agent_hour, within(HOUR));
        less(&mut history.agent_day, within(DAY));
        less(&mut history.session, self.session.is_some() && self.session == q.session.map(|s| *s.as_bytes()));
        less(&mut history.seller_day, seller && within(DAY));
        less(&mut history.seller_lifetime, seller);
    }
}

/// Start of the minute of `millis`.
const fn minute(millis: u64) -> u64 {
    millis / MINUTE * MINUTE
}

/// Minutes that start at or after this overlap the last `span`.
const fn since(at: Timestamp, span: u64) -> u64 {
    minute(at.minus_millis(span).as_millis())
}

fn tally(count: u64, value: u64) -> Tally {
    Tally { count: small(count), value: micros(value) }
}

/// Sums may pass what one amount may be; policies then see the largest amount there is.
fn micros(value: u64) -> Micros {
    Micros::new(value).unwrap_or(Micros::MAX)
}
