//! A gateway that is stopped in the middle of its turn, and goes on later as if nothing had been.

use countersign_core::payment::State;
use countersign_ledger::SqliteLedger;
use rustix::process::{Pid, Signal, kill_process};

use crate::backend::server;
use crate::common::*;
use crate::fleet::{Gateway, database, until};
use crate::worker::{SPAN, Told, Worker, expected, states};

fn signal(worker: &Worker, what: Signal) {
    let pid = i32::try_from(worker.id()).unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), what).unwrap();
}

/// All of its threads stand.
fn stop(worker: &Worker) {
    signal(worker, Signal::STOP);
    let tasks = || std::fs::read_dir(format!("/proc/{}/task", worker.id())).unwrap().map(|t| t.unwrap().path());
    let stands = |task: std::path::PathBuf| {
        let stat = std::fs::read_to_string(task.join("stat")).unwrap_or_default();
        stat.rsplit_once(')').is_none_or(|(_, rest)| rest.trim_start().starts_with('T'))
    };
    until("it stands", || tasks().all(stands));
}

/// Stops it at a moment at which it has the turn: its session is in a transaction, and waits for it.
fn stop_in_its_turn(worker: &Worker, name: &str) -> String {
    let sessions = "select pid from pg_stat_activity where datname=current_database() and state='idle in transaction'";
    let busy = "select count(*) from pg_stat_activity
                where datname=current_database() and state='active' and pid<>pg_backend_pid()";
    let mut holder = String::new();
    until("it is stopped in its turn", || {
        stop(worker);
        // The server ends what it was asked for before.
        until("the server has done its part", || server().sql(name, busy) == "0");
        holder = server().sql(name, sessions);
        if holder.is_empty() {
            signal(worker, Signal::CONT);
        }
        !holder.is_empty()
    });
    holder
}

fn writers(name: &str, first: u64) -> String {
    let copy = format!("{first:016x}{}", "cc".repeat(8));
    let sql = "select string_agg(case when ended then 'ended' else 'alive' end,',' order by epoch)";
    server().sql(name, &format!("{sql} from countersign.writer where copy='\\x{copy}'"))
}

fn goes_on(beside: &SqliteLedger, numbers: std::ops::Range<u64>) {
    for n in numbers {
        granted(beside, commit(n, T0, &[]));
    }
}

#[test]
fn a_gateway_that_is_frozen_in_its_turn_stops_the_others_for_a_moment_only() {
    let (name, database) = database();
    let [gateway, other] = [(); 2].map(|()| Gateway::new());
    let beside = other.open(&database);
    let mut told = Told::default();
    let worker = Worker::start(&server().url(&name), gateway.folder(), SPAN);
    worker.hear(&mut told, "granted", 10);

    // Not for so long that it is taken for ended: it goes on in its epoch.
    let holder = stop_in_its_turn(&worker, &name);
    goes_on(&beside, 1..4);
    let ended = format!("select count(*) from pg_stat_activity where pid={holder}");
    assert_eq!(server().sql(&name, &ended), "0", "the server ended its session");
    signal(&worker, Signal::CONT);
    worker.hear(&mut told, "granted", 30);
    assert_eq!(writers(&name, SPAN), "alive");

    // For so long: what it had in flight is followed, and it goes on in a new one.
    stop_in_its_turn(&worker, &name);
    server().sql(&name, "update countersign.writer set seen=seen-interval '2 minutes' where epoch=2");
    goes_on(&beside, 4..6);
    until("it is taken for ended", || writers(&name, SPAN) == "ended");
    let theirs = "select count(*) from countersign.payment where state=4 and epoch=2";
    assert_eq!(server().sql(&name, theirs), "0");
    goes_on(&beside, 6..8);
    let before = told.count("granted");
    signal(&worker, Signal::CONT);
    // What it says now may be what it was granted before it was stopped.
    until("it goes on in a new epoch", || writers(&name, SPAN) == "ended,alive");
    worker.hear(&mut told, "granted", 30);
    worker.kill(&mut told);
    assert!(told.count("granted") > before);

    // The server may still be at what it was asked for last.
    let busy = "select count(*) from pg_stat_activity
                where datname=current_database() and state<>'idle' and pid<>pg_backend_pid()";
    until("the server has done its part", || server().sql(&name, busy) == "0");
    let (held, spent) = used(&beside, "all", T0);
    drop(beside);
    other.check(&database);
    let mut found = states(&other.path);
    assert!((1..8).all(|n| found.remove(&n) == Some(State::Signed)), "those of the one that was not stopped");
    let untold = told.judge(&found);
    assert_eq!(held + spent, expected(&found));
    drop(gateway.open(&database));
    gateway.check(&database);
    println!("{} granted, {untold} more, {} unavailable", told.count("granted"), told.count("unknown"));
}
