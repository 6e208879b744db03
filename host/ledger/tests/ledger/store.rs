//! The file: whose it is, who has it open, and what it takes when the disk is full.

use std::fs::{Permissions, set_permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use countersign_core::ledger::{Answer, Ledger, LedgerError, Note, SessionCaps, Suspension, SuspensionScope};
use countersign_core::payment::{Event, State};
use countersign_core::verdict::Window;
use countersign_ledger::{AnswerOptions, OpenError, Options, SqliteLedger};

use crate::common::*;

fn open(path: &Path, options: Options) -> Result<SqliteLedger, OpenError> {
    SqliteLedger::open(path, options, T0)
}

#[test]
fn a_second_opener_fails_at_once_and_the_lock_ends_with_the_first() {
    let rig = Rig::new();
    let first = rig.open();
    let second = open(&rig.path, Rig::options());
    let Err(OpenError::Locked(lock)) = second else { panic!("{second:?}") };
    assert!(lock.ends_with("ledger.db.lock"));
    assert!(OpenError::Locked(lock.clone()).to_string().contains(lock.to_str().unwrap()));
    drop(first);
    drop(rig.open());
}

#[test]
fn a_store_keeps_its_identity() {
    let rig = Rig::new();
    let first = rig.open();
    assert_eq!((first.key(), first.store_id(), first.epoch()), ([7; 32], [9; 16], 1));
    drop(first);
    let again = open(&rig.path, Options::new([1; 32], [2; 16])).unwrap();
    assert_eq!((again.key(), again.store_id(), again.epoch()), ([7; 32], [9; 16], 2));
}

#[test]
fn a_reader_beside_the_gateway_sees_every_answered_write_and_writes_nothing() {
    let rig = Rig::new();
    let missing = SqliteLedger::open_read_only(&rig.path);
    assert!(missing.is_err() && !rig.path.exists(), "reading makes no ledger");
    let ledger = rig.open();
    let beside = SqliteLedger::open_read_only(&rig.path).unwrap();
    for n in 1..=20 {
        granted(&ledger, commit(n, T0, &[hold("b", Window::Lifetime, 100, 1)]));
        assert_eq!(state(&beside, n), State::Signed);
        assert_eq!(used(&beside, "b", T0), (n, 0));
    }
    let told = block(beside.commit(commit(21, T0, &[])));
    assert_eq!(told, Err(LedgerError::Unavailable("opened read-only".into())));
    assert_eq!((beside.key(), beside.epoch()), (ledger.key(), ledger.epoch()));
    assert_eq!(block(beside.answer(payment_id(1))), Ok(None));
}

#[test]
fn files_are_private() {
    let rig = Rig::new();
    let ledger = rig.open();
    granted(&ledger, commit(1, T0, &[]));
    for suffix in ["", "-wal", "-shm", ".lock", ".answers"] {
        let path = format!("{}{suffix}", rig.path.display());
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{path}");
    }
}

#[test]
fn what_others_can_change_is_refused() {
    let check = |name: &str, mode: u32, says: &str| {
        let rig = Rig::new();
        drop(rig.open());
        let target =
            if name.is_empty() { rig.path.parent().unwrap().to_owned() } else { rig.path.with_file_name(name) };
        set_permissions(&target, Permissions::from_mode(mode)).unwrap();
        let refused = open(&rig.path, Rig::options()).unwrap_err();
        assert!(matches!(&refused, OpenError::Unsafe { path, .. } if path.ends_with(target.file_name().unwrap())));
        assert!(refused.to_string().contains(says), "{refused}");
    };
    check("", 0o770, "chmod go-w");
    check("", 0o777, "chmod go-w");
    check("ledger.db", 0o660, "chmod 600");
    check("ledger.db", 0o644, "chmod 600");
    check("ledger.db.lock", 0o666, "chmod 600");
    check("ledger.db.answers", 0o666, "chmod 600");
    // A folder that others may only read is no danger.
    let rig = Rig::new();
    set_permissions(rig.path.parent().unwrap(), Permissions::from_mode(0o755)).unwrap();
    drop(rig.open());
}

#[test]
fn a_link_is_not_followed() {
    let (rig, elsewhere) = (Rig::new(), Rig::new());
    drop(elsewhere.open());
    std::os::unix::fs::symlink(&elsewhere.path, &rig.path).unwrap();
    let refused = open(&rig.path, Rig::options()).unwrap_err();
    assert_eq!(refused.code(), "ledger-unsafe");
}

#[test]
fn somebody_elses_file_is_refused() {
    let rig = Rig::new();
    drop(rig.open());
    if std::os::unix::fs::chown(&rig.path, Some(12_345), None).is_err() {
        eprintln!("skipped: only root can give a file away");
        return;
    }
    let refused = open(&rig.path, Rig::options()).unwrap_err();
    assert!(refused.to_string().contains("belongs to user 12345"), "{refused}");
}

#[test]
fn a_newer_or_foreign_database_is_refused() {
    let rig = Rig::new();
    drop(rig.open());
    rig.raw().execute_batch("UPDATE meta SET v=99 WHERE k='schema'").unwrap();
    let newer = open(&rig.path, Rig::options()).unwrap_err();
    assert!(matches!(newer, OpenError::NewerSchema { found: 99, .. }), "{newer}");
    assert!(matches!(SqliteLedger::open_read_only(&rig.path), Err(OpenError::NewerSchema { .. })));
    let rig = Rig::new();
    rig.raw().execute_batch("CREATE TABLE t(x)").unwrap();
    set_permissions(&rig.path, Permissions::from_mode(0o600)).unwrap();
    assert!(matches!(open(&rig.path, Rig::options()), Err(OpenError::NotALedger)));
}

#[test]
fn a_full_disk_stops_purchases_and_nothing_else() {
    let rig = Rig::new();
    let ledger = rig.open();
    granted(&ledger, commit(1, T0, &[]));
    reviewed(&ledger, in_review(2, T0, &[]));
    drop(ledger);
    let ledger = open(&rig.path, Options { headroom: u64::MAX, ..Rig::options() }).unwrap();
    let full = |e: LedgerError| assert!(e.to_string().contains("less than"), "{e}");
    full(block(ledger.commit(commit(3, T0, &[]))).unwrap_err());
    full(block(ledger.deny(denial(4, T0))).unwrap_err());
    let note = Note { kind: "n", by: String::new(), body: serde_json::Value::Null, at: T0 };
    full(block(ledger.note(note)).unwrap_err());
    full(block(ledger.open_session(session(1), SessionCaps::NONE)).unwrap_err());
    let stop = Suspension { scope: SuspensionScope::All, by: "a".into(), reason: String::new(), at: T0 };
    block(ledger.suspend(stop)).unwrap();
    step(&ledger, event(1, State::Redeemable, Event::Receipt, T0)).unwrap();
    block(ledger.store_signature(payment_id(1), signature(1))).unwrap();
    block(ledger.vote(cast(2, "alice", false, T0))).unwrap();
    assert_eq!(block(ledger.payment(payment_id(3))), Ok(None));
}

fn answer(bytes: usize) -> Answer {
    Answer { status: 200, headers: vec![("a".into(), "b".into())], body: vec![b'x'; bytes] }
}

#[test]
fn answers_are_kept_within_their_quota_and_time() {
    let rig = Rig::new();
    let answers = AnswerOptions { max_bytes: 3_000, keep_millis: 60_000 };
    let ledger = open(&rig.path, Options { answers, ..Rig::options() }).unwrap();
    for n in 1..=6 {
        granted(&ledger, commit(n, T0, &[]));
    }
    let keep = |n, bytes, moment| block(ledger.answered(payment_id(n), Some(answer(bytes)), true, moment)).unwrap();
    let kept = |n| block(ledger.answer(payment_id(n))).unwrap().map(|a| a.body.len());
    keep(1, 1_000, T0);
    keep(2, 1_000, T0);
    assert_eq!(block(ledger.answer(payment_id(1))), Ok(Some(answer(1_000))));
    keep(3, 1_500, at(1));
    assert_eq!([1, 2, 3].map(kept), [None, Some(1_000), Some(1_500)], "the oldest made room");
    keep(4, 5_000, at(1));
    assert_eq!([2, 3, 4].map(kept), [Some(1_000), Some(1_500), None], "too large for any room");
    keep(2, 10, at(30));
    assert_eq!(kept(2), Some(10), "the newest answer of a payment is its answer");
    keep(5, 1, at(62));
    assert_eq!([3, 2, 5].map(kept), [None, Some(10), Some(1)], "a minute is over for the third");
    block(ledger.budgets(at(200))).unwrap();
    assert_eq!(kept(5), None, "too old to be given out, although nothing has deleted it yet");
    assert!(block(ledger.payment(payment_id(4))).unwrap().unwrap().delivered);
    let nothing = block(ledger.answered(payment_id(99), Some(answer(1)), true, T0));
    assert_eq!(nothing, Err(LedgerError::NotFound));
}

#[test]
fn damaged_answers_are_thrown_away_and_the_ledger_opens() {
    let rig = Rig::new();
    let ledger = rig.open();
    granted(&ledger, commit(1, T0, &[]));
    block(ledger.answered(payment_id(1), Some(answer(10)), true, T0)).unwrap();
    drop(ledger);
    let path = format!("{}.answers", rig.path.display());
    std::fs::write(&path, [0x55; 8_192]).unwrap();
    let ledger = rig.open();
    assert_eq!(block(ledger.answer(payment_id(1))), Ok(None));
    block(ledger.answered(payment_id(1), Some(answer(20)), true, T0)).unwrap();
    assert_eq!(block(ledger.answer(payment_id(1))), Ok(Some(answer(20))));
}

#[test]
fn bytes_are_remembered_by_their_digest() {
    use sha2::{Digest, Sha256};
    let rig = Rig::new();
    let ledger = rig.open();
    block(ledger.remember(vec![b"module".to_vec(), b"settings".to_vec(), b"module".to_vec()])).unwrap();
    let digest: [u8; 32] = Sha256::digest(b"module").into();
    assert_eq!(block(ledger.blob(digest)), Ok(Some(b"module".to_vec())));
    assert_eq!(block(ledger.blob([0; 32])), Ok(None));
}

#[test]
fn the_write_ahead_log_stays_bounded() {
    let rig = Rig::new();
    let ledger = std::sync::Arc::new(rig.open());
    let wide = || [hold("b", Window::Lifetime, 1 << 50, 1), hold("r", Window::Rolling(3_600), 1 << 50, 1)];
    std::thread::scope(|scope| {
        for caller in 0..8_u64 {
            let ledger = std::sync::Arc::clone(&ledger);
            scope.spawn(move || (0..250).for_each(|i| granted(&ledger, commit(caller * 250 + i, T0, &wide()))));
        }
    });
    let wal = std::fs::metadata(format!("{}-wal", rig.path.display())).unwrap().len();
    let pages = wal / 4_096;
    // The writer's own threshold, and the largest batch on top of it.
    assert!(pages < 8_000 + 256 * 64, "{pages} pages");
    drop(ledger);
    rig.check();
}

#[test]
fn a_damaged_text_is_an_error_and_is_presented_to_nobody() {
    let cut = "substr(payload,1,length(payload)-1)";
    for damaged in ["x''", "x'07'", "x'01'", cut, "CAST(substr(payload,1,60)||x'00'||substr(payload,62) AS BLOB)"] {
        let rig = Rig::new();
        let ledger = rig.open();
        granted(&ledger, commit(1, T0, &[]));
        step(&ledger, event(1, State::Signed, Event::Ambiguous, T0)).unwrap();
        drop(ledger);
        let sql = format!("DROP TRIGGER payment_payload; UPDATE payment SET payload={damaged}");
        rig.raw().execute_batch(&sql).unwrap();
        let ledger = rig.open();
        let told = |why: Option<LedgerError>| match why {
            Some(LedgerError::Unavailable(why)) => assert!(why.contains("a stored text cannot be read"), "{why}"),
            other => panic!("{damaged}: {other:?}"),
        };
        told(block(ledger.reopen(payment_id(1), 1, T0)).err());
        told(block(ledger.payment(payment_id(1))).err());
        // Whatever does not need the text goes on.
        step(&ledger, event(1, State::Redeemable, Event::Redeemed, T0)).unwrap();
    }
}
