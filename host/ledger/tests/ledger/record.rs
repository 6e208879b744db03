//! The chain of records, and that checking finds what is wrong.

use countersign_core::ledger::{Ledger, Note};
use countersign_core::payment::{Event, State};
use countersign_core::verdict::Window;
use countersign_ledger::{ChainError, check_integrity, verify_chain};

use crate::common::*;

fn filled() -> Rig {
    let rig = Rig::new();
    let ledger = rig.open();
    let holds = [hold("r", Window::Rolling(3_600), 1_000, 10), hold("l", Window::Lifetime, 1_000, 10)];
    granted(&ledger, commit(1, T0, &holds));
    reviewed(&ledger, in_review(2, T0, &holds));
    granted(&ledger, commit(3, T0, &holds));
    step(&ledger, event(3, State::Signed, Event::Redeemed, T0)).unwrap();
    block(ledger.deny(denial(4, T0))).unwrap();
    let body = serde_json::json!({ "b": 1, "a": "x".repeat(5_000) });
    block(ledger.note(Note { kind: "config-loaded", by: "alice".into(), body, at: T0 })).unwrap();
    drop(ledger);
    rig
}

#[test]
fn every_write_is_in_the_chain() {
    let rig = filled();
    let report = verify_chain(&rig.path).unwrap();
    let raw = rig.raw();
    let mut kinds = raw.prepare("SELECT kind FROM audit ORDER BY seq").unwrap();
    let kinds: Vec<String> = kinds.query_map([], |r| r.get(0)).unwrap().map(Result::unwrap).collect();
    let wanted = [
        "ledger-created",
        "ledger-opened",
        "payment-signed",
        "payment-review",
        "payment-signed",
        "payment-changed",
        "payment-denied",
        "config-loaded",
    ];
    assert_eq!(kinds, wanted);
    assert_eq!(report.records, 8);
    drop(rig.open());
    let later = verify_chain(&rig.path).unwrap();
    assert_eq!(later.records, 10, "opening is recorded, and the payment it found in flight");
    assert_ne!(later.head, report.head);
}

#[test]
fn a_note_is_cut_and_sorted() {
    let rig = filled();
    let sql = "SELECT body FROM audit WHERE kind='config-loaded'";
    let body: String = rig.raw().query_row(sql, [], |r| r.get(0)).unwrap();
    assert!(body.len() < 600 && body.contains("sha256:"), "{body}");
    assert!(body.find("\"a\":").unwrap() < body.find("\"b\":").unwrap());
}

#[test]
fn a_change_of_any_column_of_any_record_is_found() {
    let rig = filled();
    let raw = rig.raw();
    let open_up = "DROP TRIGGER audit_unchanged; DROP TRIGGER audit_kept; PRAGMA ignore_check_constraints=ON;
                   CREATE TABLE saved AS SELECT * FROM audit";
    raw.execute_batch(open_up).unwrap();
    let records = verify_chain(&rig.path).unwrap().records;
    let check = |change: &str| {
        assert!(raw.execute(change, []).unwrap() > 0, "{change} changes nothing");
        let found = verify_chain(&rig.path);
        assert!(matches!(found, Err(ChainError::Broken { .. })), "{change}: {found:?}");
        raw.execute_batch("DELETE FROM audit; INSERT INTO audit SELECT * FROM saved").unwrap();
    };
    for seq in 1..=records {
        for change in ["at=at+1", "kind=kind||'x'", "body=body||' '", "body=replace(body,'at','aT')", "seq=seq+100"] {
            check(&format!("UPDATE audit SET {change} WHERE seq={seq}"));
        }
        if seq < records {
            check(&format!("DELETE FROM audit WHERE seq={seq}"));
        }
        let bytes = |column: &str| -> Vec<u8> {
            let sql = format!("SELECT CAST({column} AS BLOB) FROM audit WHERE seq={seq}");
            raw.query_row(&sql, [], |r| r.get(0)).unwrap()
        };
        for (column, cast, stride) in [("prev", "BLOB", 5), ("hash", "BLOB", 5), ("body", "TEXT", 97)] {
            let whole = bytes(column);
            for at in (0..whole.len()).step_by(stride) {
                let mut flipped = whole.clone();
                flipped[at] ^= 1;
                let hex = hex::encode(flipped);
                check(&format!("UPDATE audit SET {column}=CAST(x'{hex}' AS {cast}) WHERE seq={seq}"));
            }
        }
    }
    let swap = "UPDATE audit SET body=(SELECT body FROM saved s WHERE s.seq=5-audit.seq) WHERE seq IN (2,3)";
    check(swap);
    verify_chain(&rig.path).unwrap();
}

/// The hash as the documentation describes it, written a second time.
#[test]
fn a_record_hashes_as_documented() {
    use sha2::{Digest, Sha256};
    let rig = filled();
    let raw = rig.raw();
    let mut rows = raw.prepare("SELECT seq,body,hash FROM audit ORDER BY seq").unwrap();
    let rows = rows.query_map([], |r| Ok((r.get::<_, u64>(0)?, r.get::<_, String>(1)?, r.get::<_, [u8; 32]>(2)?)));
    let mut head = [0_u8; 32];
    for row in rows.unwrap() {
        let (seq, body, hash) = row.unwrap();
        let bytes = [b"countersign/record/v1".as_slice(), &seq.to_be_bytes(), &head, body.as_bytes()].concat();
        head = Sha256::digest(bytes).into();
        assert_eq!(head, hash, "record {seq}");
    }
    assert_eq!(verify_chain(&rig.path).unwrap().head, head);
}

#[test]
fn checking_finds_what_is_wrong() {
    for (damage, list) in [
        ("UPDATE budget_window SET held=held+1", "counters"),
        ("UPDATE budget_window SET spent=spent-1 WHERE spent>0", "counters"),
        ("UPDATE bucket SET spent=spent+1", "counters"),
        ("DELETE FROM bucket", "counters"),
        ("UPDATE hold SET amount=amount+1 WHERE open=1", "counters"),
        ("UPDATE budget_window SET lim=1", "over_limit"),
        ("UPDATE payment SET state=5 WHERE state=4", "states"),
        ("UPDATE payment SET version=version+1", "states"),
        ("DELETE FROM step WHERE n=0", "states"),
        ("UPDATE step SET state=7 WHERE state=2", "states"),
        ("UPDATE payment SET payload=NULL,nonce=NULL,payer=NULL,valid_before=NULL,signed=NULL WHERE state=4", "states"),
        ("UPDATE hold SET open=0,settled=0 WHERE payment IN (SELECT id FROM payment WHERE state=2)", "states"),
        ("UPDATE approval SET state=2", "states"),
        ("DELETE FROM audit WHERE seq=3", "chain"),
        ("DELETE FROM step; DELETE FROM decision; DELETE FROM budget", "file"),
    ] {
        let rig = filled();
        rig.check();
        let raw = rig.raw();
        raw.execute_batch("PRAGMA ignore_check_constraints=ON; PRAGMA foreign_keys=OFF;").unwrap();
        for kind in ["audit_kept", "payment_payload", "payment_step", "approval_final"] {
            raw.execute_batch(&format!("DROP TRIGGER {kind}")).unwrap();
        }
        raw.execute_batch(damage).unwrap();
        drop(raw);
        let found = check_integrity(&rig.path).unwrap();
        let hit = match list {
            "counters" => &found.counters,
            "over_limit" => &found.over_limit,
            "states" => &found.states,
            "chain" => &found.chain,
            _ => &found.file,
        };
        assert!(!hit.is_empty() && !found.is_sound(), "{damage}: {found:#?}");
    }
}
