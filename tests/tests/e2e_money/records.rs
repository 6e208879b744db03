//! The records: signed for, exported, and checked by somebody who has nothing but the file and the key.

use super::*;
use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::Path,
};

/// The newest checkpoint, which is signed if it was not.
#[track_caller]
fn checkpoint(gateway: &Gateway) -> Value {
    let answer = gateway.operator().get("/v1/audit/checkpoint");
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

/// Exports the records to a file of this name; returns its lines, of which the last is the checkpoint.
#[track_caller]
fn export(scene: &Scene, name: &str) -> Vec<String> {
    checkpoint(&scene.gateway);
    said(&scene.gateway.command(&["ledger", "export", "--format", "audit", "--out", name]));
    let file = fs::read_to_string(scene.gateway.dir().join(name)).unwrap();
    file.lines().map(str::to_owned).collect()
}

/// Writes lines into a file of this name.
fn save(scene: &Scene, name: &str, lines: &[String]) {
    fs::write(scene.gateway.dir().join(name), lines.join("\n") + "\n").unwrap();
}

fn verify(scene: &Scene, name: &str, key: &str, more: &[&str]) -> Output {
    let command = [["ledger", "verify", name, "--key", key].as_slice(), more].concat();
    scene.gateway.command(&command)
}

/// Copies a stopped gateway's database, as a backup does.
fn copy(from: &Path, to: &Path) {
    let files = |dir: &Path| -> Vec<String> {
        let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
        names.filter(|name| is_database(name)).collect()
    };
    for old in files(to) {
        fs::remove_file(to.join(old)).unwrap();
    }
    let found = files(from);
    assert!(!found.is_empty());
    for file in found {
        fs::copy(from.join(&file), to.join(&file)).unwrap();
    }
}

#[test]
fn a_checkpoint_is_signed_and_the_command_line_prints_the_same() {
    let scene = Scene::new(&["honest"]);
    let first = checkpoint(&scene.gateway);
    scene.settled("honest");
    let second = wait_for(PATIENCE, || {
        let told = checkpoint(&scene.gateway);
        let printed = said(&scene.gateway.command(&["ledger", "checkpoint"]));
        (printed.trim() == text(&told, "/checkpoint").trim()).then_some(told)
    });
    let second = second.expect("the command line prints another checkpoint");
    let note = text(&second, "/checkpoint");
    let lines: Vec<&str> = note.lines().collect();
    assert!(lines[0].starts_with("countersign"), "{note}");
    assert_eq!(lines[1].parse::<u64>().ok(), second["size"].as_u64(), "{note}");
    assert!(lines[4].starts_with("\u{2014} ") && lines[3].is_empty(), "a signed note: {note}");
    assert!(!text(&second, "/root").is_empty());
    let key = text(&second, "/key");
    assert!(key.starts_with(lines[0]), "the key is of another log: {key}");
    assert_eq!(first["key"], second["key"]);
    assert!(second["size"].as_u64() > first["size"].as_u64(), "{first} {second}");
    assert_ne!(first["root"], second["root"]);
    let nobody = Client::new(&scene.gateway.admin_url, "nobody");
    refused(&nobody.get("/v1/audit/checkpoint"), 401);
    refused(&nobody.get("/v1/audit/proof?payment=pay_0"), 401);
}

#[test]
fn exported_records_are_verified_and_every_change_is_found() {
    let scene = Scene::new(&["honest", KEEPER]);
    for _ in 0..3 {
        scene.settled("honest");
    }
    scene.doubtful();
    let key = checkpoint(&scene.gateway)["key"].as_str().unwrap().to_owned();
    let lines = export(&scene, "good.audit");
    let records = lines.len() - 1;
    let told = said(&verify(&scene, "good.audit", &key, &[]));
    assert!(told.contains(&format!("{records} records")), "{told}");
    fs::write(scene.gateway.dir().join("log.key"), format!("{key}\n")).unwrap();
    said(&verify(&scene, "good.audit", "log.key", &[]));

    let at = (records / 2..records - 1).find(|n| lines[*n].contains("scout")).unwrap();
    let (before, after) = lines.split_at(at);
    let (this, rest) = after.split_first().unwrap();
    let (next, tail) = rest.split_first().unwrap();
    let one = |line: &str| vec![line.to_owned()];
    for (what, changed) in [
        ("changed", [before, &one(&this.replacen("scout", "scour", 1)), rest].concat()),
        ("dropped", [before, rest].concat()),
        ("swapped", [before, &one(next), &one(this), tail].concat()),
        ("doubled", [before, &one(this), after].concat()),
    ] {
        let name = format!("{what}.audit");
        save(&scene, &name, &changed);
        let told = failed(&verify(&scene, &name, &key, &[]));
        let number = |n: usize| told.contains(&n.to_string());
        // A changed record may still be one; then the next does not follow from it.
        assert!(told.contains("record") && (at..=at + 2).any(number), "{what} at {at}: {told}");
    }
    // The end may not be cut off, with its checkpoint or before it.
    save(&scene, "unsigned.audit", &lines[..records]);
    failed(&verify(&scene, "unsigned.audit", &key, &[]));
    save(&scene, "short.audit", &[&lines[..records - 1], &lines[records..]].concat());
    failed(&verify(&scene, "short.audit", &key, &[]));
    save(&scene, "empty.audit", &[]);
    failed(&verify(&scene, "empty.audit", &key, &[]));
    failed(&verify(&scene, "missing.audit", &key, &[]));
    // Untouched, it is still good.
    save(&scene, "again.audit", &lines);
    said(&verify(&scene, "again.audit", &key, &[]));
}

#[test]
fn records_are_verified_with_their_own_key_only() {
    let scene = Scene::new(&["honest"]);
    scene.settled("honest");
    export(&scene, "good.audit");
    let other = Gateway::start(Config::new(plain()));
    let foreign = checkpoint(&other)["key"].as_str().unwrap().to_owned();
    let own = checkpoint(&scene.gateway)["key"].as_str().unwrap().to_owned();
    assert_ne!(own, foreign);
    failed(&verify(&scene, "good.audit", &foreign, &[]));
    failed(&verify(&scene, "good.audit", "nonsense", &[]));
    said(&verify(&scene, "good.audit", &own, &[]));
}

#[test]
fn an_older_checkpoint_proves_that_history_was_only_added_to() {
    let mut scene = Scene::new(&["honest"]);
    let keep = |scene: &Scene, name: &str| {
        let told = checkpoint(&scene.gateway);
        fs::write(scene.gateway.dir().join(name), text(&told, "/checkpoint")).unwrap();
        text(&told, "/key").to_owned()
    };
    let key = keep(&scene, "early.note");
    scene.settled("honest");
    export(&scene, "first.audit");
    assert!(scene.gateway.terminate().success());
    let backup = tempfile::tempdir().unwrap();
    copy(scene.gateway.dir(), backup.path());

    scene.gateway.restart();
    scene.settled("honest");
    keep(&scene, "one.note");
    export(&scene, "one.audit");
    for note in ["early.note", "one.note"] {
        said(&verify(&scene, "one.audit", &key, &["--checkpoint", note]));
    }
    failed(&verify(&scene, "first.audit", &key, &["--checkpoint", "one.note"]));

    // The same store, the same key, another history from here on.
    assert!(scene.gateway.terminate().success());
    copy(backup.path(), scene.gateway.dir());
    scene.gateway.restart();
    for _ in 0..2 {
        scene.settled("honest");
    }
    assert_eq!(keep(&scene, "two.note"), key);
    export(&scene, "two.audit");
    said(&verify(&scene, "two.audit", &key, &[]));
    said(&verify(&scene, "two.audit", &key, &["--checkpoint", "early.note"]));
    failed(&verify(&scene, "two.audit", &key, &["--checkpoint", "one.note"]));
}

#[test]
fn a_proof_shows_the_records_of_one_payment() {
    let scene = Scene::new(&["honest"]);
    let (payment, other) = (scene.settled("honest"), scene.settled("honest"));
    let key = checkpoint(&scene.gateway)["key"].as_str().unwrap().to_owned();
    let operator = scene.operator();
    let proof = operator.get(&format!("/v1/audit/proof?payment={payment}"));
    assert_eq!(proof.status, 200, "{}", proof.text());
    let proven = proof.text();
    assert!(proven.contains(&payment) && !proven.contains(&other), "{proven}");
    fs::write(scene.gateway.dir().join("good.proof"), &proven).unwrap();
    said(&verify(&scene, "good.proof", &key, &[]));
    for (name, changed) in
        [("changed.proof", proven.replacen("scout", "scour", 1)), ("foreign.proof", proven.replace(&payment, &other))]
    {
        assert_ne!(changed, proven, "{name}");
        fs::write(scene.gateway.dir().join(name), changed).unwrap();
        failed(&verify(&scene, name, &key, &[]));
    }
    let (head, tail) = payment.split_at(payment.len() - 1);
    let unknown = format!("{head}{}", if tail == "0" { "1" } else { "0" });
    refused(&operator.get(&format!("/v1/audit/proof?payment={unknown}")), 404);
    refused(&operator.get("/v1/audit/proof"), 400);
    refused(&operator.get(&format!("/v1/audit/proof?payment={payment}&colour=red")), 400);
}

#[test]
fn the_logs_key_is_private() {
    let scene = Scene::new(&["honest"]);
    let file = scene.gateway.dir().join("countersign.db.log-key");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let secret = fs::read_to_string(&file).unwrap();
    assert!(!checkpoint(&scene.gateway).to_string().contains(secret.trim()));
    assert!(!scene.gateway.log().contains(secret.trim()));

    let (status, log) = Gateway::refused_in(Config::new(plain()), |dir| {
        let file = dir.join("countersign.db.log-key");
        fs::write(&file, format!("{}\n", "11".repeat(32))).unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
    });
    assert!(!status.success());
    assert!(log.contains("log-key"), "{log}");
}
