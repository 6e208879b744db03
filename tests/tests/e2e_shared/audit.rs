//! One log of everything, whoever wrote it.

use super::*;

/// The newest checkpoint that a gateway tells.
#[track_caller]
fn checkpoint(scene: &Scene, gateway: usize) -> Value {
    done(&scene.operator(gateway).get("/v1/audit/checkpoint"))
}

fn size(checkpoint: &Value) -> u64 {
    checkpoint["size"].as_u64().unwrap()
}

#[test]
fn records_of_all_gateways_are_one_log() {
    let scene = Scene::new(3);
    let mut notes = Vec::new();
    for round in 0..3 {
        for gateway in 0..3 {
            scene.buy(gateway);
            let told = checkpoint(&scene, (gateway + round) % 3);
            notes.push(told);
        }
    }
    let keys: BTreeSet<&str> = notes.iter().map(|note| text(note, "/key")).collect();
    assert_eq!(keys.len(), 1, "{keys:?}");
    assert_eq!(sound(&scene, &["honest"], &[]).len(), 9);
    // What any gateway ever signed for, the log of every gateway continues.
    for (n, note) in notes.iter().enumerate() {
        for gateway in &scene.gateways {
            fs::write(gateway.dir().join("older.note"), text(note, "/checkpoint")).unwrap();
            let verify = ["ledger", "verify", "whole.audit", "--key", text(note, "/key"), "--checkpoint", "older.note"];
            let told = said(&gateway.command(&verify));
            assert!(told.contains("continue the older checkpoint"), "note {n}: {told}");
        }
    }
    // Two checkpoints of one size are of one tree.
    let mut roots: BTreeMap<u64, &str> = BTreeMap::new();
    for note in &notes {
        assert_eq!(*roots.entry(size(note)).or_insert(text(note, "/root")), text(note, "/root"));
    }
}

#[test]
fn a_payment_of_one_gateway_is_proven_by_another() {
    let scene = Scene::new(2);
    let (payment, other) = (scene.buy(0), scene.buy(1));
    scene.until(&payment, "settled");
    let proof = wait_for(PATIENCE, || {
        let answer = scene.operator(1).get(&format!("/v1/audit/proof?payment={payment}"));
        (answer.status == 200).then(|| answer.text())
    });
    let proof = proof.expect("no proof");
    assert!(proof.contains(&payment) && !proof.contains(&other), "{proof}");
    let gateway = &scene.gateways[0];
    fs::write(gateway.dir().join("one.proof"), &proof).unwrap();
    let key = checkpoint(&scene, 0)["key"].as_str().unwrap().to_owned();
    said(&gateway.command(&["ledger", "verify", "one.proof", "--key", &key]));
    fs::write(gateway.dir().join("bad.proof"), proof.replace(&payment, &other)).unwrap();
    assert!(!gateway.command(&["ledger", "verify", "bad.proof", "--key", &key]).status.success());
}

#[test]
fn the_log_says_who_did_what_at_every_gateway() {
    let scene = Scene::new(2);
    done(&scene.operator(0).post("/v1/suspend", &json!({"agent": "scout", "reason": "the first drill"})));
    let lifted = scene.operator(1).delete("/v1/suspend?agent=scout");
    assert!(matches!(lifted.status, 200 | 204), "{}", lifted.text());
    let (id, _) = scene.session(1, &json!({"agent": "scout", "limit": "1.00"}));
    done(&scene.operator(0).delete(&format!("/v1/sessions/{id}")));
    let lines = scene.export(1);
    let about = |what: &str| lines.iter().filter(|line| line.contains(what)).count();
    assert_eq!(about("the first drill"), 1);
    assert_eq!(about(&id), 2, "opened and closed");
    agree(&scene);
}

#[test]
fn a_checkpoint_is_never_of_more_than_the_store_has() {
    let scene = Scene::limited(Place::Shared, 2, 2_000);
    let load = Load::on(&scene);
    let notes = Mutex::new(Vec::new());
    load.during(&[0, 1], || {
        for n in 0..20 {
            let told = checkpoint(&scene, n % 2);
            // The same moment at the other: it may be of fewer or more records, never of others.
            notes.lock().unwrap().extend([told, checkpoint(&scene, (n + 1) % 2)]);
        }
        load.goes_on(20);
    });
    load.finish(0);
    sound(&scene, &["honest"], &load.acks());
    let notes = notes.into_inner().unwrap();
    let last = notes.iter().max_by_key(|note| size(note)).unwrap();
    let gateway = &scene.gateways[1];
    for note in &notes {
        assert!(size(note) <= size(last));
        fs::write(gateway.dir().join("older.note"), text(note, "/checkpoint")).unwrap();
        let verify = ["ledger", "verify", "whole.audit", "--key", text(note, "/key"), "--checkpoint", "older.note"];
        said(&gateway.command(&verify));
    }
}
