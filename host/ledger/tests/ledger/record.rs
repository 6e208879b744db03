//! The chain of records, and that checking finds what is wrong.

use std::os::unix::fs::PermissionsExt as _;

use countersign_audit::note::{Checkpoint, SigningKey};
use countersign_audit::verify::{Verifier, checkpoint_line, consistency_line, partial_line};
use countersign_core::ledger::{Ledger, LedgerError, Note, TreeHead};
use countersign_core::payment::{Event, State};
use countersign_core::verdict::Window;
use countersign_ledger::text::unpack;
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
    assert_ne!(later.root, report.root);
}

#[test]
fn a_note_is_cut_and_sorted() {
    let rig = filled();
    let sql = "SELECT text(body) FROM audit WHERE kind='config-loaded'";
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
    let mut same = 0;
    for seq in 1..=records {
        for change in [
            "at=at+1",
            "kind=kind||'x'",
            "payment=iif(payment IS NULL,x'00112233445566778899aabbccddeeff',NULL)",
            "payment=x'00112233445566778899aabbccddeeff'",
            "body=stored(text(body)||' ')",
            "body=stored(replace(text(body),'at','aT'))",
            "body=CAST(body||x'00' AS BLOB)",
            "seq=seq+100",
        ] {
            check(&format!("UPDATE audit SET {change} WHERE seq={seq}"));
        }
        if seq < records {
            check(&format!("DELETE FROM audit WHERE seq={seq}"));
        }
        let bytes = |column: &str| -> Vec<u8> {
            let sql = format!("SELECT {column} FROM audit WHERE seq={seq}");
            raw.query_row(&sql, [], |r| r.get(0)).unwrap()
        };
        for (column, stride) in [("leaf", 5), ("body", 23)] {
            let whole = bytes(column);
            for at in (0..whole.len()).step_by(stride) {
                let mut flipped = whole.clone();
                flipped[at] ^= 1;
                // Some bits of a packed text mean nothing: the record is the same.
                if column == "body" && unpack(&flipped) == unpack(&whole) {
                    same += 1;
                    continue;
                }
                let hex = hex::encode(flipped);
                check(&format!("UPDATE audit SET {column}=x'{hex}' WHERE seq={seq}"));
            }
        }
    }
    let swap = "UPDATE audit SET body=(SELECT body FROM saved s WHERE s.seq=5-audit.seq) WHERE seq IN (2,3)";
    check(swap);
    assert!(same <= 2, "{same} changed bits change no text");
    verify_chain(&rig.path).unwrap();
}

/// The log as the documentation describes it, read without any of our own code.
#[test]
fn a_log_is_what_is_documented() {
    use sha2::{Digest, Sha256};
    let rig = filled();
    let raw = rig.raw();
    let mut rows = raw.prepare("SELECT seq,text(body),leaf FROM audit ORDER BY seq").unwrap();
    let rows = rows.query_map([], |r| Ok((r.get::<_, u64>(0)?, r.get::<_, String>(1)?, r.get::<_, [u8; 32]>(2)?)));
    let mut prev = "0".repeat(64);
    let mut level = Vec::new();
    for row in rows.unwrap() {
        let (seq, body, leaf) = row.unwrap();
        let parsed: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(parsed.to_string(), body, "record {seq}");
        assert_eq!((parsed["seq"].as_u64(), parsed["prev"].as_str()), (Some(seq), Some(prev.as_str())));
        let hash: [u8; 32] = Sha256::digest([b"\0", body.as_bytes()].concat()).into();
        assert_eq!(hash, leaf, "record {seq}");
        prev = hex::encode(hash);
        level.push(hash);
    }
    assert_eq!(level.len(), 8);
    while level.len() > 1 {
        level = level.chunks(2).map(|p| Sha256::digest([&[1][..], &p[0], &p[1]].concat()).into()).collect();
    }
    assert_eq!(verify_chain(&rig.path).unwrap().root, level[0]);
}

/// What a gateway shows an auditor: every record, and each one alone.
#[test]
fn an_auditor_can_follow_the_log() {
    let rig = filled();
    let key = SigningKey::from_seed("countersign.example/1", &[9; 32]).unwrap();
    let ledger = rig.open();
    let sign = |head: TreeHead| Checkpoint::sign(&key, head.size, &head.root).unwrap();
    let before = block(ledger.tree_head()).unwrap();
    let older = sign(before);
    block(ledger.keep_checkpoint(before.size, older.clone())).unwrap();
    let holds = [hold("r", Window::Rolling(3_600), 1_000, 10), hold("l", Window::Lifetime, 1_000, 10)];
    for n in 10..30 {
        granted(&ledger, commit(n, T0, &holds));
        let what = if n % 2 == 0 { Event::Redeemed } else { Event::SignerRefused };
        step(&ledger, event(n, State::Signed, what, T0)).unwrap();
    }
    let head = block(ledger.tree_head()).unwrap();
    let note = sign(head);
    let lines = block(ledger.records(0, 1_000)).unwrap();
    assert_eq!((head.size, lines.len()), (50, 50));
    assert_eq!(block(ledger.records(48, 1_000)).unwrap(), lines[48..]);
    assert_eq!(block(ledger.records(0, 3)).unwrap(), lines[..3]);
    let verifier = || {
        let public = key.public().clone();
        Verifier::since(public.clone(), Checkpoint::open(&older, &public).unwrap())
    };
    let read = |lines: &[String]| verifier().read((lines.join("\n") + "\n").as_bytes());
    let whole: Vec<String> = lines.iter().cloned().chain([checkpoint_line(&note)]).collect();
    let report = read(&whole).unwrap();
    assert_eq!((report.records, report.continues, report.checkpoint.root), (50, true, head.root));
    // One record, which stands alone.
    let proof = block(ledger.inclusion(8, head.size)).unwrap();
    let consistency = block(ledger.consistency(before.size, head.size)).unwrap();
    let one = [
        partial_line(&lines[7], &proof, head.size),
        consistency_line(&consistency, before.size),
        checkpoint_line(&note),
    ];
    assert_eq!(read(&one).unwrap().records, 1);
    for (seq, size) in [(0, 5), (6, 5), (51, 51), (1, 51)] {
        assert_eq!(block(ledger.inclusion(seq, size)), Err(LedgerError::NotFound));
    }
    for (old, new) in [(0, 5), (6, 5), (5, 51)] {
        assert_eq!(block(ledger.consistency(old, new)), Err(LedgerError::NotFound));
    }
    // Only what is of this log is kept, and the first of a size stays.
    block(ledger.keep_checkpoint(50, note.clone())).unwrap();
    let again = SigningKey::from_seed("other", &[8; 32]).unwrap();
    block(ledger.keep_checkpoint(50, Checkpoint::sign(&again, 50, &head.root).unwrap())).unwrap();
    let kept: Vec<_> = block(ledger.checkpoints(10)).unwrap().into_iter().map(|c| (c.size, c.note)).collect();
    assert_eq!(kept, [(50, note.clone()), (before.size, older)]);
    for (size, note) in [
        (49, note),
        (49, Checkpoint::sign(&key, 49, &head.root).unwrap()),
        (51, Checkpoint::sign(&key, 51, &head.root).unwrap()),
        (50, "50".to_owned()),
    ] {
        assert!(matches!(block(ledger.keep_checkpoint(size, note)), Err(LedgerError::Conflict(_))));
    }
    drop(ledger);
    rig.check();
    for damage in [
        "UPDATE audit_node SET hash=zeroblob(32) WHERE idx=2",
        "UPDATE audit_node SET hash=zeroblob(32) WHERE idx=(SELECT max(idx) FROM audit_node)",
        "DELETE FROM audit_node WHERE idx=2",
        "INSERT INTO audit_node VALUES(1000000,zeroblob(32))",
        "UPDATE checkpoint SET note=replace(note,'=','A') WHERE size=50",
        "UPDATE checkpoint SET size=49 WHERE size=50",
        "UPDATE checkpoint SET size=500 WHERE size=50",
        "DELETE FROM audit WHERE seq=50; DELETE FROM checkpoint",
    ] {
        // On a copy, so that each is alone.
        let copy = rig.path.with_file_name("snapshot.db");
        rig.raw().execute("VACUUM INTO ?1", [copy.to_str().unwrap()]).unwrap();
        std::fs::set_permissions(&copy, std::fs::Permissions::from_mode(0o600)).unwrap();
        let raw = rusqlite::Connection::open(&copy).unwrap();
        let tables =
            ["audit_kept", "audit_node_kept", "audit_node_unchanged", "checkpoint_kept", "checkpoint_unchanged"];
        let triggers: String = tables.iter().map(|t| format!("DROP TRIGGER {t};")).collect();
        raw.execute_batch(&format!("BEGIN; {triggers} {damage}; COMMIT")).unwrap();
        let found = verify_chain(&copy);
        assert!(matches!(found, Err(ChainError::Broken { .. })), "{damage}: {found:?}");
        drop(raw);
        std::fs::remove_file(&copy).unwrap();
    }
}

#[test]
fn the_log_cannot_be_changed_by_statements() {
    let rig = filled();
    let raw = rig.raw();
    for sql in [
        "UPDATE audit SET body=x'00'",
        "DELETE FROM audit",
        "UPDATE audit_node SET hash=zeroblob(32)",
        "DELETE FROM audit_node",
    ] {
        assert!(raw.execute(sql, []).unwrap_err().to_string().contains("not "), "{sql}");
    }
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
