//! What the hot paths cost must not grow with what the store holds. Time would say so only
//! sometimes; the instructions SQLite executes say so every time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use countersign_core::ledger::{Commit, PaymentFilter};
use countersign_core::payment::{Event, State};
use countersign_core::verdict::Window;
use rusqlite::Connection;

use crate::common::*;
use crate::sql::Done;
use crate::{approvals, commit, deny, life, open, read, schema, tallies};

const EPOCH: u64 = 1;

fn buy(conn: &Connection, c: Commit) {
    let prepared = commit::prepare(c).unwrap();
    assert!(matches!(commit::commit(conn, EPOCH, &prepared).unwrap(), Done::Keep(_)));
}

fn change(conn: &Connection, n: u64, from: State, what: Event) {
    life::apply(conn, EPOCH, &event(n, from, what, T0)).unwrap();
}

fn holds() -> [countersign_core::verdict::Hold; 3] {
    let wide = |name, window| hold(name, window, 1 << 50, 1);
    [
        // One name over two windows at once, as the spend caps have it.
        wide("agent", Window::Day(String::new())),
        wide("agent", Window::Rolling(3_600)),
        wide("lifetime", Window::Lifetime),
    ]
}

fn deny_one(conn: &Connection, n: u64) {
    let mut d = denial(n, T0);
    d.fingerprint = fingerprint(n);
    deny::deny(conn, EPOCH, &deny::prepare(d).unwrap()).unwrap();
}

/// Payments from `from` to `to`, in every state. Only few become redeemable: their number is what
/// the caps bound, and counting them costs no more than the cap.
fn fill(conn: &Connection, from: u64, to: u64) {
    for n in from..to {
        match n % 7 {
            0 => deny_one(conn, n),
            1 => buy(conn, in_review(n, T0, &holds())),
            _ => buy(conn, commit(n, T0, &holds())),
        }
        match n % 7 {
            3 if n < 80 => change(conn, n, State::Signed, Event::Ambiguous),
            4 => change(conn, n, State::Signed, Event::Receipt),
            5 => change(conn, n, State::Signed, Event::Redeemed),
            6 => change(conn, n, State::Signed, Event::SignerRefused),
            _ => {}
        }
    }
}

#[test]
fn the_hot_paths_cost_the_same_however_much_there_is() {
    let folder = tempfile::tempdir().unwrap();
    let mut conn = open::writer(&folder.path().join("x.db")).unwrap();
    schema::migrate(&conn).unwrap();
    open::begin(&conn, Rig::options().birth, T0).unwrap();
    let steps = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&steps);
    conn.progress_handler(
        1,
        Some(move || {
            counter.fetch_add(1, Ordering::Relaxed);
            false
        }),
    )
    .unwrap();
    let conn = conn;
    let filter = PaymentFilter {
        owner: Some(("lab".into(), "scout".into())),
        states: vec![State::Redeemable, State::Denied],
        limit: 10,
        ..PaymentFilter::default()
    };
    type Path<'a> = (&'static str, Box<dyn Fn(u64) + 'a>);
    let conn = &conn;
    let paths: Vec<Path<'_>> = vec![
        ("commit", Box::new(|n| buy(conn, commit(n, T0, &holds())))),
        ("settle", Box::new(|n| change(conn, n, State::Signed, Event::Redeemed))),
        ("deny", Box::new(|n| deny_one(conn, n + 1))),
        ("deny again", Box::new(|n| deny_one(conn, n + 1))),
        ("facts", Box::new(|n| drop(tallies::facts(conn, &facts_query(n)).unwrap()))),
        ("latest", Box::new(|n| drop(read::latest(conn, &key(n)).unwrap()))),
        ("unfinished", Box::new(|n| drop(read::unfinished(conn, ("lab", "scout"), fingerprint(n), T0).unwrap()))),
        ("payments", Box::new(|_| drop(read::payments(conn, &filter).unwrap()))),
        ("expire", Box::new(|_| assert!(matches!(approvals::expire_all(conn, EPOCH, T0), Ok(Done::Keep(0)))))),
    ];
    let measure = |n: u64| -> Vec<u64> {
        let cost = |(_, path): &Path<'_>| {
            steps.store(0, Ordering::Relaxed);
            path(n);
            steps.load(Ordering::Relaxed)
        };
        paths.iter().map(cost).collect()
    };
    conn.execute_batch("BEGIN").unwrap();
    fill(conn, 10, 80);
    let few = measure(1_000_000);
    fill(conn, 80, 1_480);
    let many = measure(2_000_000);
    conn.execute_batch("COMMIT").unwrap();
    for ((name, _), (few, many)) in paths.iter().zip(few.into_iter().zip(many)) {
        assert!(many <= few + few / 5 + 40, "{name}: {few} steps with 70 payments, {many} with 1,470");
    }
}

#[test]
fn no_row_of_a_purchase_is_written_by_way_of_a_temporary_table() {
    let folder = tempfile::tempdir().unwrap();
    let conn = open::writer(&folder.path().join("x.db")).unwrap();
    schema::migrate(&conn).unwrap();
    let opcodes = |sql: &str| -> Vec<String> {
        let mut statement = conn.prepare(&format!("EXPLAIN {sql}")).unwrap();
        statement.query_map([], |r| r.get(1)).unwrap().map(Result::unwrap).collect()
    };
    let temporary = |sql: &str| opcodes(sql).iter().any(|op| op == "OpenEphemeral");
    for table in ["payment", "hold", "step", "decision", "audit", "audit_node", "tally", "seller", "budget_window"] {
        let sql = format!("SELECT count(*) FROM pragma_table_info('{table}')");
        let columns: usize = conn.query_row(&sql, [], |r| r.get(0)).unwrap();
        let sql = format!("INSERT INTO {table} VALUES({})", vec!["NULL"; columns].join(","));
        assert!(!temporary(&sql), "{sql}");
    }
    assert!(temporary("SELECT 1 FROM payment WHERE agent IN ('a','b','c','d')"), "it would be seen");
}
