//! A copy that is lost, old, of something else, or ahead of its database: made anew, brought up to date, or refused in
//! clear words; never served as if nothing had been.

use countersign_core::ledger::{Ledger, LedgerError};
use countersign_core::payment::{Event, State};
use countersign_core::verdict::Window;
use countersign_ledger::{Database, SqliteLedger, check_integrity};

use crate::backend::{FILE, contents, fresh, server};
use crate::common::*;
use crate::fleet::{Gateway, database, until};

fn buy(ledger: &SqliteLedger, numbers: std::ops::Range<u64>) {
    for n in numbers {
        granted(ledger, commit(n, T0, &[hold("b", Window::Lifetime, 1 << 40, 1)]));
    }
}

/// A gateway that bought so much and ended.
fn begun(database: &Database, numbers: std::ops::Range<u64>) -> Gateway {
    let gateway = Gateway::new();
    buy(&gateway.open(database), numbers);
    gateway
}

fn files(gateway: &Gateway) -> Vec<std::path::PathBuf> {
    let all = std::fs::read_dir(gateway.folder()).unwrap().map(|entry| entry.unwrap().path());
    all.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with(FILE)).collect()
}

/// The file alone, with everything in it.
fn kept(gateway: &Gateway) -> Vec<u8> {
    let raw = rusqlite::Connection::open(&gateway.path).unwrap();
    raw.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    drop(raw);
    std::fs::read(&gateway.path).unwrap()
}

fn put_back(gateway: &Gateway, copy: &[u8]) {
    for file in files(gateway) {
        if !file.ends_with("copy.db") {
            std::fs::remove_file(file).unwrap();
        }
    }
    std::fs::write(&gateway.path, copy).unwrap();
}

fn refused_to_open(gateway: &Gateway, database: &Database, says: &str) {
    match gateway.try_open(database) {
        Err(e) => assert!(e.to_string().contains(says), "{e}"),
        Ok(_) => panic!("it opened, instead of saying `{says}`"),
    }
}

#[test]
fn a_lost_copy_is_made_again() {
    let (_, database) = database();
    let gateway = begun(&database, 1..10);
    for file in files(&gateway) {
        std::fs::remove_file(file).unwrap();
    }
    let again = gateway.open(&database);
    assert_eq!(used(&again, "b", T0), (9, 0));
    buy(&again, 10..12);
    drop(again);
    gateway.check(&database);
}

#[test]
fn an_older_copy_follows_from_where_it_stands() {
    let (_, database) = database();
    let gateway = begun(&database, 1..5);
    let old = kept(&gateway);
    let other = Gateway::new();
    buy(&other.open(&database), 5..400);
    buy(&gateway.open(&database), 400..410);
    put_back(&gateway, &old);
    let again = gateway.open(&database);
    assert_eq!((used(&again, "b", T0), state(&again, 405)), ((409, 0), State::Redeemable));
    buy(&again, 410..412);
    drop(again);
    gateway.check(&database);
    other.check(&database);
}

#[test]
fn a_copy_that_is_older_than_the_changes_that_are_kept_is_made_anew() {
    let (name, database) = database();
    let gateway = begun(&database, 1..5);
    let old = kept(&gateway);
    buy(&gateway.open(&database), 5..50);
    // One in the middle, as a clock that was set back leaves it; the first half; all of them.
    for dropped in ["seq=(select max(seq)-5 from countersign.change)", "seq<20", "true"] {
        put_back(&gateway, &old);
        server().sql(&name, &format!("update countersign.change set body=null where {dropped}"));
        let again = gateway.open(&database);
        assert_eq!(used(&again, "b", T0), (49, 0), "{dropped}");
        drop(again);
        gateway.check(&database);
    }
}

#[test]
fn a_copy_of_another_ledger_is_refused() {
    let ((_, ours), (_, theirs)) = (database(), database());
    let gateway = begun(&ours, 1..10);
    let other = begun(&theirs, 101..130);
    refused_to_open(&gateway, &theirs, "is not of the ledger in this database");
    refused_to_open(&other, &ours, "is not of the ledger in this database");
    let (empty, nothing) = database();
    refused_to_open(&gateway, &nothing, "the database is empty");
    assert_eq!(server().sql(&empty, "select to_regclass('countersign.head') is null"), "t", "nothing was made in it");
    gateway.check(&ours);
    other.check(&theirs);
}

/// Keeps the database as it is now, under another name.
fn keep_database(name: &str) -> String {
    let backup = fresh();
    server().sql("postgres", &format!("create database \"{backup}\" template \"{name}\""));
    backup
}

/// Puts the kept database in its place, whoever is connected.
fn restore(name: &str, backup: &str) {
    server().sql("postgres", &format!("alter database \"{name}\" allow_connections false"));
    let sessions = format!("select count(pg_terminate_backend(pid)) from pg_stat_activity where datname='{name}'");
    until("nobody is connected", || server().sql("postgres", &sessions) == "0");
    let lost = fresh();
    server().sql("postgres", &format!("alter database \"{name}\" rename to \"{lost}\""));
    server().sql("postgres", &format!("alter database \"{backup}\" rename to \"{name}\""));
}

#[test]
fn a_copy_that_is_ahead_of_a_restored_database_is_refused() {
    let (name, database) = database();
    let gateway = begun(&database, 1..10);
    let backup = keep_database(&name);
    buy(&gateway.open(&database), 10..20);
    let before = contents(&gateway.path);
    restore(&name, &backup);
    refused_to_open(&gateway, &database, "restored");
    // Others went on where the restored one stands, and further than this copy ever was.
    let other = begun(&database, 100..140);
    refused_to_open(&gateway, &database, "is not of the ledger in this database");
    assert_eq!(contents(&gateway.path), before, "what it knows is not forgotten");
    other.check(&database);
}

#[test]
fn a_gateway_that_runs_while_its_database_is_restored_serves_nothing_more() {
    for others in [false, true] {
        let (name, database) = database();
        let gateway = begun(&database, 1..10);
        let backup = keep_database(&name);
        let ledger = gateway.open(&database);
        buy(&ledger, 10..20);
        restore(&name, &backup);
        let other = others.then(|| begun(&database, 100..140));
        let says = |told: &LedgerError| matches!(told, LedgerError::Unavailable(why) if why.contains("restored"));
        until("it says so", || block(ledger.payment(payment_id(1))).is_err_and(|told| says(&told)));
        let told = block(ledger.commit(commit(50, T0, &[]))).unwrap_err();
        assert!(says(&told), "{told}");
        drop(ledger);
        if let Some(other) = other {
            other.check(&database);
        }
    }
}

#[test]
fn damaged_changes_are_refused() {
    let damages = [
        "body=set_byte(body,octet_length(body)-1,get_byte(body,octet_length(body)-1)#1)",
        "body=substring(body from 1 for octet_length(body)-9)",
        "body='\\x00'",
        "epoch=epoch+1",
        "hash=sha256(hash)",
    ];
    for damage in damages {
        let (name, database) = database();
        let gateway = begun(&database, 1..5);
        let old = kept(&gateway);
        buy(&gateway.open(&database), 5..9);
        put_back(&gateway, &old);
        let before = contents(&gateway.path);
        let middle = "seq=(select max(seq)-1 from countersign.change)";
        server().sql(&name, &format!("update countersign.change set {damage} where {middle}"));
        refused_to_open(&gateway, &database, "the shared ledger is not the one this copy follows");
        assert_eq!(contents(&gateway.path), before, "{damage}: all of it or nothing");
    }
}

#[test]
fn a_running_gateway_refuses_a_damaged_change() {
    let (name, database) = database();
    let gateway = Gateway::new();
    let ledger = gateway.open(&database);
    buy(&ledger, 1..5);
    // Written past every gateway, in a way that looks like a change.
    server().sql(
        &name,
        "with c as (insert into countersign.change(seq,epoch,hash,body) select seq+1,1,sha256(hash),'\\x00' from countersign.head)
         update countersign.head set seq=seq+1, hash=sha256(hash)",
    );
    let told = block(ledger.commit(commit(9, T0, &[]))).unwrap_err();
    assert!(matches!(&told, LedgerError::Unavailable(why) if why.contains("not the one this copy follows")), "{told}");
    drop(ledger);
    assert_eq!(server().sql(&name, "select count(*) from countersign.payment"), "4");
}

#[test]
fn a_row_that_was_edited_in_the_database_is_found() {
    let (name, database) = database();
    let gateway = begun(&database, 1..5);
    {
        let ledger = gateway.open(&database);
        step(&ledger, event(1, State::Redeemable, Event::Redeemed, T0)).unwrap();
    }
    gateway.check(&database);
    let windows = |gateway: &Gateway| contents(&gateway.path)["budget_window"].clone();
    let ours = windows(&gateway);
    server().sql(&name, "update countersign.budget_window set spent=0");
    // A copy that follows keeps what it knows; one that is made of it shows what is wrong.
    let new = Gateway::new();
    drop(new.open(&database));
    drop(gateway.open(&database));
    drop(new.open(&database));
    assert_eq!(windows(&gateway), ours);
    assert_ne!(windows(&new), ours);
    let found = check_integrity(&new.path).unwrap();
    assert!(!found.is_sound() && !found.counters.is_empty(), "{found:#?}");
    assert!(check_integrity(&gateway.path).unwrap().is_sound());
}
