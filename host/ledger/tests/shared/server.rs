//! The server that the tests use does what they rely on.

use std::fs::File;
use std::net::TcpStream;
use std::process::{Child, ExitStatus, Stdio};

use crate::postgres::*;

/// A client that will not be answered before its server goes on.
fn asking(postgres: &Postgres, text: &str) -> Child {
    let mut psql = command(&postgres.bin.join("psql"), postgres.account, postgres.folder.path());
    psql.args(["-X", "-A", "-t", "-c", text, &postgres.url("books")]);
    psql.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
}

#[test]
fn the_server_keeps_what_it_said_it_wrote() {
    let mut postgres = Postgres::start();
    assert_eq!(
        postgres.sql("postgres", "show fsync; show synchronous_commit; select version() like 'PostgreSQL%'"),
        "on\non\nt"
    );
    postgres.create_database("books");
    postgres.sql("books", "create table entry (amount bigint); insert into entry values (1), (2)");
    let total = "select sum(amount) from entry";
    assert_eq!(postgres.sql("books", total), "3");

    let belong = children(postgres.server.as_ref().unwrap().id());
    assert!(belong.len() > 2, "{belong:?}");
    postgres.kill();
    assert!(belong.iter().all(|pid| !runs(*pid)), "something outlived the crash");
    assert!(TcpStream::connect(("127.0.0.1", postgres.port)).is_err());
    postgres.restart();
    assert!(postgres.log().contains("was not properly shut down"), "{}", postgres.log());
    assert_eq!(postgres.sql("books", total), "3");

    postgres.shut_down();
    postgres.restart();
    postgres.restart();
    assert_eq!(postgres.sql("books", total), "3");
}

#[test]
fn a_frozen_server_answers_later_and_cut_connections_are_gone() {
    let postgres = Postgres::start();
    postgres.create_database("books");
    postgres.pause();
    let mut asks = asking(&postgres, "select 7");
    let pid = postgres.server.as_ref().unwrap().id();
    // The signal is sent; a busy machine takes its time to deliver it.
    wait_for(|| stat(pid).filter(|(state, _)| *state == 'T')).expect("it is not frozen");
    assert!(asks.try_wait().unwrap().is_none());
    postgres.resume();
    assert_eq!(asks.wait_with_output().unwrap().stdout, b"7\n");

    let mut sleeps = asking(&postgres, "select pg_sleep(3600)");
    let there = "select count(*) from pg_stat_activity where query like '%3600%' and pid <> pg_backend_pid()";
    wait_for(|| (postgres.sql("postgres", there) == "1").then_some(())).expect("it is not connected");
    postgres.disconnect();
    assert!(!sleeps.wait().unwrap().success());
}

#[test]
fn a_password_is_asked_for_and_nothing_stays_behind() {
    let postgres = Postgres::start();
    let mut psql = command(&postgres.bin.join("psql"), postgres.account, postgres.folder.path());
    psql.args(["-X", "-w", "-c", "select 1", &postgres.url_without_password("postgres")]);
    let refused: ExitStatus = psql.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
    assert!(!refused.success());
    let (folder, pid) = (postgres.folder.path().to_owned(), postgres.server.as_ref().unwrap().id());
    postgres.pause();
    drop(postgres);
    assert!(!folder.exists() && !runs(pid));
    assert!(File::open(folder.join("data/postmaster.pid")).is_err());
}
