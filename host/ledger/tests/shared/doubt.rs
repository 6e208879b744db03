//! A commit that was sent and not answered: what callers are told is what became of it.

use countersign_core::ledger::{Committed, Ledger, LedgerError};
use countersign_core::payment::State;
use countersign_core::verdict::{Hold, Window};
use countersign_ledger::SqliteLedger;

use crate::backend::{fresh, server};
use crate::common::*;
use crate::fleet::{Gateway, at_url, database, on, until};
use crate::postgres::Postgres;
use crate::proxy::{Fate, Proxy};

fn of_one() -> [Hold; 1] {
    [hold("b", Window::Lifetime, 1 << 40, 1)]
}

/// A gateway behind a proxy, and one that is not.
struct Pair {
    name: String,
    proxy: Proxy,
    gateways: [Gateway; 2],
    far: SqliteLedger,
    near: SqliteLedger,
}

impl Pair {
    fn new() -> Self {
        let (name, near) = database();
        let url = server().url(&name);
        let proxy = Proxy::start(port(&url));
        let gateways = [(); 2].map(|()| Gateway::new());
        let far = gateways[0].open(&at_url(&proxy.url(&url)));
        let near = gateways[1].open(&near);
        Self { name, proxy, gateways, far, near }
    }

    fn end(self) {
        let database = on(server(), &self.name);
        drop((self.far, self.near));
        for gateway in &self.gateways {
            gateway.check(&database);
        }
    }
}

fn port(url: &str) -> u16 {
    url.rsplit_once(':').unwrap().1.split_once('/').unwrap().0.parse().unwrap()
}

#[test]
fn a_commit_whose_answer_was_lost_is_answered_as_made() {
    let pair = Pair::new();
    let epoch = pair.far.epoch();
    for n in 1..=20 {
        pair.proxy.next(Fate::Unanswered);
        let told = block(pair.far.commit(commit(n, T0, &of_one())));
        assert!(matches!(told, Ok(Committed::Granted { .. })), "{told:?}");
        assert_eq!(pair.proxy.met(), n);
        assert_eq!((state(&pair.near, n), used(&pair.near, "b", T0)), (State::Signed, (n, 0)));
        // Others go on from there, and so does it.
        granted(&pair.near, commit(n + 100, T0, &[]));
        assert_eq!(state(&pair.far, n + 100), State::Signed);
    }
    assert_eq!(pair.far.epoch(), epoch);
    pair.end();
}

#[test]
fn a_commit_that_was_lost_is_answered_as_not_made() {
    let pair = Pair::new();
    let epoch = pair.far.epoch();
    for n in 1..=20 {
        pair.proxy.next(Fate::Lost);
        let told = block(pair.far.commit(commit(n, T0, &of_one())));
        assert!(matches!(&told, Err(LedgerError::Unavailable(why)) if why.contains("not made")), "{told:?}");
        assert_eq!(pair.proxy.met(), n);
        for ledger in [&pair.near, &pair.far] {
            assert_eq!(block(ledger.payment(payment_id(n))), Ok(None));
        }
        assert_eq!(used(&pair.far, "b", T0), (n - 1, 0));
        // The same again is made.
        granted(&pair.far, commit(n, T0, &of_one()));
        assert_eq!(state(&pair.near, n), State::Signed);
    }
    assert_eq!(pair.far.epoch(), epoch);
    pair.end();
}

#[test]
fn a_commit_that_is_still_on_its_way_is_waited_for() {
    let pair = Pair::new();
    for n in 1..=10 {
        pair.proxy.next(Fate::Late);
        let waiting =
            "select count(*) from pg_stat_activity where wait_event_type='Lock' and datname=current_database()";
        std::thread::scope(|scope| {
            let asks = scope.spawn(|| block(pair.far.commit(commit(n, T0, &of_one()))));
            until("it asks after its commit", || server().sql(&pair.name, waiting) != "0");
            assert!(!asks.is_finished(), "nobody can know yet");
            pair.proxy.deliver();
            let told = asks.join().unwrap();
            assert!(matches!(told, Ok(Committed::Granted { .. })), "{told:?}");
        });
        assert_eq!(pair.proxy.met(), n);
        assert_eq!((state(&pair.near, n), used(&pair.near, "b", T0)), (State::Signed, (n, 0)));
    }
    pair.end();
}

/// Nobody can be asked for longer than callers wait.
fn unknown(fate: Fate) {
    let pair = Pair::new();
    let epoch = pair.far.epoch();
    granted(&pair.far, commit(1, T0, &of_one()));
    pair.proxy.next(fate);
    pair.proxy.close(true);
    let told = block(pair.far.commit(commit(2, T0, &of_one())));
    assert!(matches!(&told, Err(LedgerError::Unavailable(why)) if why.contains("did not say")), "{told:?}");
    let made = fate == Fate::Unanswered;
    assert_eq!(block(pair.near.payment(payment_id(2))).unwrap().is_some(), made);
    pair.proxy.close(false);
    until("it writes again", || block(pair.far.commit(commit(3, T0, &of_one()))).is_ok());
    assert!(pair.far.epoch() > epoch + 1, "it goes on in a new epoch");
    assert_eq!(state(&pair.near, 3), State::Signed);
    // What its callers were told nothing about is assumed to be out there, and what else it had in flight with it.
    assert_eq!(state(&pair.near, 1), State::Redeemable);
    let second = block(pair.near.payment(payment_id(2))).unwrap().map(|p| p.state);
    assert_eq!(second, made.then_some(State::Redeemable));
    pair.end();
}

#[test]
fn a_commit_that_was_made_and_nobody_can_be_asked_about_is_assumed_to_be_out_there() {
    unknown(Fate::Unanswered);
}

#[test]
fn a_commit_that_was_not_made_and_nobody_can_be_asked_about_is_not_there() {
    unknown(Fate::Lost);
}

#[test]
fn the_server_crashes_with_a_commit_unanswered() {
    let mut postgres = Postgres::start();
    let name = fresh();
    postgres.create_database(&name);
    let url = postgres.url(&name);
    let proxy = Proxy::start(port(&url));
    let gateway = Gateway::new();
    let ledger = gateway.open(&at_url(&proxy.url(&url)));
    for n in 1..=6 {
        let fate = if n % 2 == 0 { Fate::Unanswered } else { Fate::Lost };
        proxy.next(fate);
        let told = std::thread::scope(|scope| {
            let asks = scope.spawn(|| block(ledger.commit(commit(n, T0, &of_one()))));
            until("the commit is sent", || proxy.met() == n);
            let there = || {
                postgres.sql(
                    &name,
                    &format!("select count(*) from countersign.payment where attempt=1 and purchase='purchase-{n}'"),
                )
            };
            if fate == Fate::Unanswered {
                until("the server has it", || there() == "1");
            }
            postgres.kill();
            postgres.restart();
            asks.join().unwrap()
        });
        match fate {
            Fate::Unanswered => assert!(matches!(told, Ok(Committed::Granted { .. })), "{told:?}"),
            _ => assert!(matches!(told, Err(LedgerError::Unavailable(_))), "{told:?}"),
        }
        until("it writes again", || block(ledger.expire_approvals(T0)).is_ok());
        assert_eq!(used(&ledger, "b", T0), (n / 2, 0));
    }
    drop(ledger);
    gateway.check(&on(&postgres, &name));
}
