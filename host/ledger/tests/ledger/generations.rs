//! What served since when: counted without a gap, over restarts, with the bytes to serve again.

use countersign_core::generation::{Generation, Origin, PolicyRecord};
use countersign_core::ledger::{Ledger, LedgerError};
use countersign_core::verdict::Mode;
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::common::{Rig, at, block};

fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

fn generation(number: u64, module: &[u8]) -> Generation {
    Generation {
        number,
        at: at(number % 1_000),
        origin: if number == 1 { Origin::File } else { Origin::Rollback },
        by: "alice".into(),
        restores: (number > 1).then_some(1),
        whole: number != 2,
        config_sha256: sha256(b"toml"),
        policies: vec![PolicyRecord {
            name: "caps".into(),
            module_sha256: sha256(module),
            settings_sha256: sha256(b"{}"),
            mode: Mode::Monitor,
            deadline_ms: 50,
            claims: true,
            tell_agent: false,
            sha256_pin: Some(sha256(module)),
            stands_for: Some("file".into()),
        }],
        mandates: json!([{"name": "all", "policies": ["caps"]}]),
        mandates_stand_for: Some("mandates".into()),
    }
}

#[test]
fn generations_are_counted_without_a_gap_over_restarts() {
    let rig = Rig::new();
    let ledger = rig.open();
    assert_eq!(block(ledger.generations(None, 10)).unwrap(), []);
    block(ledger.remember(vec![b"one".to_vec(), b"two".to_vec(), b"{}".to_vec()])).unwrap();
    let conflict = |done: Result<(), LedgerError>| assert!(matches!(done, Err(LedgerError::Conflict(_))), "{done:?}");
    conflict(block(ledger.activate(generation(2, b"one"), false)));
    block(ledger.activate(generation(1, b"one"), false)).unwrap();
    block(ledger.activate(generation(2, b"two"), false)).unwrap();
    drop(ledger);

    let ledger = rig.open();
    // Somebody else was first; nobody counts backwards; nothing is left out.
    for number in [0, 1, 2, 4, u64::MAX] {
        conflict(block(ledger.activate(generation(number, b"one"), false)));
    }
    block(ledger.activate(generation(3, b"one"), false)).unwrap();
    let all = [generation(3, b"one"), generation(2, b"two"), generation(1, b"one")];
    assert_eq!(block(ledger.generations(None, 10)).unwrap(), all);
    assert_eq!(block(ledger.generations(Some(3), 1)).unwrap(), &all[1..2]);
    assert!(all[0].serves_as(&all[2]) && !all[0].serves_as(&all[1]));
    drop(ledger);
    rig.check();
}

#[test]
fn a_generation_has_its_bytes_or_does_not_serve() {
    let rig = Rig::new();
    let ledger = rig.open();
    block(ledger.remember(vec![b"{}".to_vec()])).unwrap();
    assert_eq!(block(ledger.activate(generation(1, b"never kept"), false)), Err(LedgerError::NotFound));
    assert_eq!(block(ledger.generations(None, 10)).unwrap(), []);
    block(ledger.remember(vec![b"kept".to_vec()])).unwrap();
    block(ledger.activate(generation(1, b"kept"), false)).unwrap();
    let wanted: Vec<String> = generation(1, b"kept").digests().map(str::to_owned).collect();
    assert_eq!(block(ledger.remembered(wanted)).unwrap(), [b"kept".to_vec(), b"{}".to_vec()]);
    assert_eq!(block(ledger.remembered(vec![sha256(b"never kept")])), Err(LedgerError::NotFound));
}

#[test]
fn a_generation_is_a_record_and_stays_what_it_was() {
    let rig = Rig::new();
    let ledger = rig.open();
    block(ledger.remember(vec![b"one".to_vec(), b"{}".to_vec()])).unwrap();
    block(ledger.activate(generation(1, b"one"), false)).unwrap();
    let raw = rig.raw();
    let body: String =
        raw.query_row("SELECT text(body) FROM audit WHERE kind='policies-activated'", [], |r| r.get(0)).unwrap();
    for part in
        ["\"generation\":1", "\"origin\":\"file\"", "\"by\":\"alice\"", &sha256(b"one"), "\"stands_for\":\"file\""]
    {
        assert!(body.contains(part), "{part} is not in {body}");
    }
    for (statement, why) in [
        ("DELETE FROM generation", "not deleted"),
        ("UPDATE generation SET whole=1", "not changed"),
        (
            "INSERT INTO generation SELECT 3,at,origin,by,restores,whole,config,policies,mandates,NULL FROM generation",
            "gap",
        ),
    ] {
        let refused = raw.execute_batch(statement).unwrap_err().to_string();
        assert!(refused.contains(why), "{statement}: {refused}");
    }
}

#[test]
fn what_tightens_voids_what_was_judged_before() {
    let rig = Rig::new();
    let ledger = rig.open();
    block(ledger.remember(vec![b"one".to_vec(), b"{}".to_vec()])).unwrap();
    block(ledger.activate(generation(1, b"one"), false)).unwrap();
    // Refused as a whole: the least generation does not rise for one that is not written down.
    assert!(block(ledger.activate(generation(3, b"one"), true)).is_err());
    block(ledger.activate(generation(2, b"one"), true)).unwrap();
    drop(ledger);
    rig.check();
}

#[test]
fn remembered_bytes_that_changed_are_not_read_back() {
    let rig = Rig::new();
    let ledger = rig.open();
    block(ledger.remember(vec![b"one".to_vec()])).unwrap();
    let raw = rig.raw();
    raw.execute_batch("UPDATE blob SET bytes=x'00'").unwrap();
    let changed = block(ledger.remembered(vec![sha256(b"one")]));
    assert!(matches!(&changed, Err(LedgerError::Unavailable(why)) if why.contains("hash")), "{changed:?}");
}
