//! The ways files are saved: whole, half, slowly, over and over.

use std::{fs::File, io::Write};

use super::*;

/// An editor that keeps a backup: the old file moves away, the new one is written, the backup goes.
fn with_backup(file: &Path, bytes: &[u8]) {
    let backup = file.with_extension("wasm~");
    fs::rename(file, &backup).unwrap();
    let mut new = File::create_new(file).unwrap();
    for part in bytes.chunks(16_384) {
        new.write_all(part).unwrap();
    }
    drop(new);
    fs::remove_file(backup).unwrap();
}

/// A program that opens the file, cuts it to nothing, and writes it bit by bit.
fn truncating(file: &Path, bytes: &[u8]) {
    let mut new = File::create(file).unwrap();
    for part in bytes.chunks(4_096) {
        new.write_all(part).unwrap();
        thread::yield_now();
    }
}

/// A copy that keeps the old one as a second name, and writes over it.
fn hard_linked(file: &Path, bytes: &[u8]) {
    let kept = file.with_extension("kept");
    fs::hard_link(file, &kept).unwrap();
    fs::remove_file(file).unwrap();
    fs::write(file, bytes).unwrap();
    fs::remove_file(kept).unwrap();
}

/// Deployed by replacing a link.
fn relinked(file: &Path, bytes: &[u8]) {
    let target = file.with_extension(sha256(bytes));
    fs::write(&target, bytes).unwrap();
    fs::remove_file(file).unwrap();
    symlink(target, file).unwrap();
}

#[test]
fn every_way_of_saving_takes_over() {
    type Save = fn(&Path, &[u8]);
    let lab = Lab::with_one_module();
    let ways: [(&str, Save); 4] =
        [("backup", with_backup), ("truncate", truncating), ("hard link", hard_linked), ("link", relinked)];
    for (number, (how, save)) in (2..).zip(ways) {
        let new = variant("vendor-allowlist", number);
        takes_over(&lab, how, &new, || save(&lab.file(), &new));
    }
}

/// Half of it would be a good module: what is not closed is not looked at.
#[test]
fn a_module_that_is_being_written_is_left_alone() {
    let other = RIVAL.replace("rival", "other");
    // Half of the module is one that is compiled already: were it taken, it would serve at once.
    let mut lab = Lab::with_config(|config| {
        let compiled = Policy::new("q", "builtin:vendor-allowlist").setting("hosts", vec!["127.0.0.1:*"]);
        config.policy(compiled).agent("rival", RIVAL).agent("other", &other)
    });
    let (rival, other) = (lab.gateway.agent_with(RIVAL), lab.gateway.agent_with(&other));
    lab.is_in(&rival);
    lab.is_in(&other);
    let old = lab.serving();
    let new = variant("vendor-allowlist", 2);
    let (half, rest) = new.split_at(countersign::builtin::module("vendor-allowlist").unwrap().len());
    let mut writer = File::create(lab.file()).unwrap();
    writer.write_all(half).unwrap();
    writer.sync_all().unwrap();
    // The gateway has looked once an agent is out, and what was taken away did not wait either.
    for (name, agent) in [("rival", &rival), ("other", &other)] {
        lab.gateway.write_config(lab.gateway.config().remove(&["agent", name]));
        lab.is_out(agent);
        let status = lab.status();
        assert_eq!(status["policies"][0]["module_sha256"], old.as_str());
        assert_eq!(status["last_error"], Value::Null);
        lab.buy();
    }
    writer.write_all(rest).unwrap();
    drop(writer);
    let new = sha256(&new);
    lab.until("whole", |status| {
        status["policies"][0]["module_sha256"] == new.as_str() && status["last_error"].is_null()
    });
    let served: BTreeSet<_> = lab.generations().iter().map(|g| g["policies"][0]["module_sha256"].to_string()).collect();
    assert!(!served.contains(&json!(sha256(half)).to_string()), "half a module served: {served:?}");
    lab.is_refused(&rival, 401, "unauthenticated");
}

#[test]
fn a_hundred_saves_in_a_second_end_with_the_last_one() {
    let lab = Lab::with_one_module();
    let before = lab.generation();
    let saves = 2..102;
    for number in saves.clone() {
        let new = variant("vendor-allowlist", number);
        if number % 2 == 0 {
            rename_over(&lab.file(), &new)
        } else {
            fs::write(lab.file(), &new).unwrap()
        }
        thread::sleep(Duration::from_millis(10));
    }
    let last = sha256(&variant("vendor-allowlist", 101));
    let status = lab.until("at the last one", |status| {
        status["policies"][0]["module_sha256"] == last.as_str() && status["last_error"].is_null()
    });
    let stagings = number(&status) - before;
    println!("a hundred saves: {stagings} generations");
    assert!(stagings < 20, "{stagings} generations of a hundred saves");
    let whole: Vec<Value> =
        saves.chain([1]).map(|number| json!(sha256(&variant("vendor-allowlist", number)))).collect();
    for generation in lab.generations() {
        assert!(whole.contains(&generation["policies"][0]["module_sha256"]), "half a module served: {generation}");
    }
    lab.buy();
}

/// Two modules and the file that binds them are saved one after the other: never one without the others.
#[test]
fn a_deployment_of_several_files_ends_whole() {
    let mut lab = Lab::start(|modules| {
        ["a", "b"]
            .map(|name| {
                let file = modules.join(format!("{name}.wasm"));
                fs::write(&file, variant("vendor-allowlist", 1)).unwrap();
                Policy::new(name, file.to_str().unwrap()).setting("hosts", vec!["127.0.0.1:*"])
            })
            .to_vec()
    });
    let pinned = |config: Config, number: u32| {
        let digest = sha256(&variant("vendor-allowlist", number));
        config.set(&["policy", "a", "sha256"], digest.clone()).set(&["policy", "b", "sha256"], digest)
    };
    let bare = lab.gateway.config();
    lab.edit(pinned(bare.clone(), 1));
    for number in 2..5 {
        for name in ["a", "b"] {
            rename_over(&lab.modules.path().join(format!("{name}.wasm")), &variant("vendor-allowlist", number));
        }
        lab.gateway.write_config(pinned(bare.clone(), number));
        let wanted = json!(sha256(&variant("vendor-allowlist", number)));
        lab.until("deployed", |status| {
            status["last_error"].is_null()
                && status["policies"].as_array().unwrap().iter().all(|p| p["module_sha256"] == wanted)
        });
    }
    for generation in lab.generations() {
        assert_eq!(
            generation["policies"][0]["module_sha256"], generation["policies"][1]["module_sha256"],
            "{generation}"
        );
    }
    lab.buy();
}
