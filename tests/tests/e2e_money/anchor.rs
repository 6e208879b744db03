//! What was signed for outside the ledger's volume must still be in the ledger.

use super::*;
use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};
use tempfile::TempDir;

/// A scene whose ledger is anchored in another folder.
fn anchored() -> (Scene, TempDir, PathBuf) {
    let elsewhere = tempfile::Builder::new().permissions(Permissions::from_mode(0o700)).tempdir().unwrap();
    let file = elsewhere.path().join("anchor.jsonl");
    let path = file.to_str().unwrap().to_owned();
    let scene = Scene::with(&["honest"], 2, |config, _| config.set(&["ledger", "anchor"], path));
    (scene, elsewhere, file)
}

/// Waits until the anchor has more lines than so many; returns how many.
#[track_caller]
fn grown(anchor: &Path, lines: usize) -> usize {
    let count = || fs::read_to_string(anchor).map(|text| text.lines().count()).unwrap_or_default();
    let found = wait_for(PATIENCE, || Some(count()).filter(|now| *now > lines));
    found.unwrap_or_else(|| panic!("{} did not grow", anchor.display()))
}

fn databases(dir: &Path) -> Vec<String> {
    let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
    names.filter(|name| is_database(name)).collect()
}

/// Stops the gateway and puts the database of `from` in the place of its own.
fn restore(scene: &mut Scene, from: &Path) {
    scene.gateway.kill();
    let dir = scene.gateway.dir();
    for old in databases(dir) {
        fs::remove_file(dir.join(old)).unwrap();
    }
    for file in databases(from) {
        fs::copy(from.join(&file), dir.join(&file)).unwrap();
    }
}

/// Stops the gateway and copies its database.
fn backup(scene: &mut Scene) -> TempDir {
    assert!(scene.gateway.terminate().success());
    let to = tempfile::tempdir().unwrap();
    for file in databases(scene.gateway.dir()) {
        fs::copy(scene.gateway.dir().join(&file), to.path().join(&file)).unwrap();
    }
    to
}

/// Checks that nothing is signed, and that operators read why.
#[track_caller]
fn stopped(scene: &Scene) {
    let presented = scene.seller("honest").stats().presented;
    for purchase in ["one", "two"] {
        refusal(&scene.fetch("honest", json!({"purchase_id": purchase})), 403, "suspended");
    }
    assert_eq!(scene.seller("honest").stats().presented, presented, "something was signed");
    let stops = items(&scene.operator().get("/v1/suspend"));
    assert!(stops.iter().any(|stop| stop["reason"].as_str().is_some_and(|why| why.contains("anchor"))), "{stops:?}");
}

#[test]
fn rule_11_a_restart_is_no_reason_to_stop() {
    let (mut scene, _elsewhere, anchor) = anchored();
    scene.settled("honest");
    let lines = grown(&anchor, 0);
    assert_eq!(fs::metadata(&anchor).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(scene.gateway.terminate().success());
    scene.gateway.restart();
    scene.settled("honest");
    grown(&anchor, lines);
    // Killed at any moment, with a checkpoint half written.
    scene.gateway.kill();
    let mut torn = fs::read(&anchor).unwrap();
    torn.extend(b"{\"checkpoint\":\"countersi");
    fs::write(&anchor, torn).unwrap();
    scene.gateway.restart();
    scene.settled("honest");
    assert_eq!(scene.states().len(), 3);
}

#[test]
fn rule_11_a_restored_ledger_signs_nothing_until_an_operator_lifts_the_stop() {
    let (mut scene, _elsewhere, anchor) = anchored();
    scene.settled("honest");
    grown(&anchor, 0);
    let old = backup(&mut scene);
    scene.gateway.restart();
    let lines = grown(&anchor, 0);
    scene.settled("honest");
    scene.settled("honest");
    grown(&anchor, lines);
    restore(&mut scene, old.path());
    scene.gateway.restart();
    assert_eq!(scene.states().len(), 1, "an older ledger");
    stopped(&scene);
    // Another start does not make it true.
    scene.gateway.restart();
    stopped(&scene);

    assert!(matches!(scene.operator().delete("/v1/suspend").status, 200 | 204));
    scene.settled("honest");
    scene.gateway.restart();
    scene.settled("honest");
}

#[test]
fn rule_11_an_operators_own_stop_does_not_make_the_anchor_follow() {
    let (mut scene, _elsewhere, anchor) = anchored();
    scene.settled("honest");
    let old = backup(&mut scene);
    scene.gateway.restart();
    scene.settled("honest");
    assert!(scene.gateway.terminate().success());
    restore(&mut scene, old.path());
    let remembered = fs::read(&anchor).unwrap();
    scene.gateway.restart();
    stopped(&scene);

    // Somebody stops everything for a reason of his own: nobody has compared anything yet.
    assert_eq!(scene.operator().post("/v1/suspend", &json!({"reason": "drill"})).status, 200);
    let size = || scene.operator().get("/v1/audit/checkpoint").json()["size"].as_u64();
    let before = size();
    refusal(&scene.fetch("honest", json!({"purchase_id": "three"})), 403, "suspended");
    assert_eq!(scene.operator().post("/v1/suspend", &json!({"agent": "nobody", "reason": "drill"})).status, 200);
    let signed = wait_for(PATIENCE, || (size() > before).then_some(()));
    assert!(signed.is_some(), "nothing new was signed for");
    assert!(fs::read(&anchor).unwrap() == remembered, "the anchor follows the restored ledger");
    scene.gateway.restart();
    stopped(&scene);
}

#[test]
fn rule_11_a_new_ledger_beside_a_used_anchor_signs_nothing() {
    let (mut scene, _elsewhere, anchor) = anchored();
    scene.settled("honest");
    grown(&anchor, 0);
    let nothing = tempfile::tempdir().unwrap();
    restore(&mut scene, nothing.path());
    scene.gateway.restart();
    assert!(scene.states().is_empty());
    stopped(&scene);
}

#[test]
fn rule_11_a_ledger_that_went_another_way_signs_nothing() {
    let (mut scene, _elsewhere, anchor) = anchored();
    scene.settled("honest");
    let old = backup(&mut scene);
    scene.gateway.restart();
    scene.settled("honest");
    grown(&anchor, 0);
    // The same records twice, but longer than what the anchor remembers: without it nobody would know.
    assert!(scene.gateway.terminate().success());
    let remembered = fs::read(&anchor).unwrap();
    restore(&mut scene, old.path());
    let config = scene.gateway.config();
    scene.gateway.write_config(config.clone().remove(&["ledger", "anchor"]));
    scene.gateway.restart();
    for _ in 0..4 {
        scene.settled("honest");
    }
    assert!(scene.gateway.terminate().success());
    assert_eq!(fs::read(&anchor).unwrap(), remembered);
    scene.gateway.write_config(config);
    scene.gateway.restart();
    stopped(&scene);
}

#[test]
fn an_anchor_that_is_none_is_refused() {
    for (content, mode) in [("nonsense\n", 0o600), ("{}\n", 0o600), ("", 0o666)] {
        let config = Config::new(plain()).set(&["ledger", "anchor"], "anchor.jsonl");
        let (status, log) = Gateway::refused_in(config, |dir| {
            let file = dir.join("anchor.jsonl");
            fs::write(&file, content).unwrap();
            fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
        });
        assert!(!status.success());
        assert!(log.contains("anchor"), "{content:?} {mode:o}: {log}");
    }
}
