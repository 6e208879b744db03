//! Instances made ahead of time, snapshots and compiled code on disk change how fast a policy answers,
//! and nothing else.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::support::{Guest, Layout, decision_id, failed, judge_one, numbers, reporter, request, says};
use countersign_core::money::Micros;
use countersign_core::spend::SpendRequest;
use countersign_core::verdict::{FailureKind, Opinion, Verdict};
use countersign_engine::{CacheConfig, Engine, EngineConfig, PolicySet, PolicySpec, Start, StartedFrom};

const SETTINGS: &str = r#"{"quote\"d":"a\\b \u0001 ü"}"#;

/// Keeps the length of its settings in memory, and counts in memory and in a global how often it ran.
/// `configure` works for a while, as parsing rules would.
fn remembering() -> Guest {
    let mut r = reporter(Guest::new(), 3);
    r.guest.globals = "(global $ran (mut i64) (i64.const 0))".to_owned();
    let done = r.guest.configure.clone();
    r.guest.configure = format!(
        "(local $i i32)
         (loop $work
           (local.set $i (i32.add (local.get $i) (i32.const 1)))
           (br_if $work (i32.lt_u (local.get $i) (i32.const 200000))))
         (i64.store (i32.const 60000) (i64.extend_i32_u (local.get $len)))
         (i64.store (i32.const 60008) (i64.add (i64.load (i32.const 60008)) (i64.const 100)))
         (global.set $ran (i64.add (global.get $ran) (i64.const 100)))
         {done}"
    );
    let evaluate = [
        "(global.set $ran (i64.add (global.get $ran) (i64.const 1)))".to_owned(),
        "(i64.store (i32.const 60008) (i64.add (i64.load (i32.const 60008)) (i64.const 1)))".to_owned(),
        r.report(0, "(global.get $ran)"),
        r.report(1, "(i64.load (i32.const 60008))"),
        r.report(2, "(i64.load (i32.const 60000))"),
        r.guest.evaluate.clone(),
    ];
    Guest { evaluate: evaluate.concat(), ..r.guest }
}

fn spec(guest: &Guest, start: Start) -> PolicySpec {
    PolicySpec { settings: SETTINGS.to_owned(), start, ..guest.spec("p") }
}

fn started_from(set: &PolicySet) -> StartedFrom {
    set.status()[0].started_from.clone().unwrap()
}

/// Everything of an opinion that a record keeps for replay.
fn recorded(opinion: Opinion) -> Opinion {
    Opinion { micros: 0, ..opinion }
}

#[test]
fn answers_are_the_same_however_an_instance_starts() {
    let engine = Engine::new(EngineConfig { instances: 8, ready: 4, ..EngineConfig::default() }).unwrap();
    let guest = remembering();
    let plain = engine.stage(1, &[spec(&guest, Start::Plain)]).unwrap();
    let ready = engine.stage(1, &[spec(&guest, Start::Ready)]).unwrap();
    let ask = |set: &PolicySet, n: u8| recorded(judge_one(set, "p", &SpendRequest { id: decision_id(n), ..request() }));
    // Before the snapshot exists: instances that were configured ahead of time.
    (0..20).for_each(|n| assert_eq!(ask(&ready, n), ask(&plain, n)));
    engine.settle();
    assert_eq!(started_from(&ready), StartedFrom::Snapshot);
    assert_eq!(started_from(&plain), StartedFrom::Preparing, "replay never starts from a snapshot");
    // More than were ready: some made ahead of time, some restored now.
    for n in 20..60 {
        let got = ask(&ready, n);
        assert_eq!(got, ask(&plain, n));
        assert!(got.fuel > 0);
    }
    assert_eq!(numbers(&ready, "p", &request()), [101, 101, SETTINGS.len() as u64]);
}

#[test]
fn no_decision_sees_what_another_left_behind() {
    let config = EngineConfig { instances: 4, ready: 4, ..EngineConfig::default() };
    let engine = Engine::new(config).unwrap();
    let set = engine.stage(1, &[spec(&remembering(), Start::Ready)]).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..500 {
                    assert_eq!(numbers(&set, "p", &request())[..2], [101, 101]);
                }
            });
        }
    });
}

#[test]
fn nothing_is_made_ahead_for_a_policy_that_fails_until_it_answers_again() {
    let engine = Engine::new(EngineConfig { instances: 8, ready: 4, ..EngineConfig::default() }).unwrap();
    let mut guest = Guest::allowing();
    let value = Layout::new().at("payment.value");
    guest.evaluate = format!(
        "(if (i64.eq (i64.load (i32.add (local.get $req) (i32.const {value}))) (i64.const 7)) (then (unreachable))) {}",
        guest.evaluate
    );
    let set = engine.stage(1, &[guest.spec("p")]).unwrap();
    let ready = || {
        engine.settle();
        set.status()[0].ready
    };
    let mut fatal = request();
    fatal.payment.value = Micros::new(7).unwrap();
    assert_eq!(ready(), 4);
    for left in [3, 2, 1, 0, 0] {
        assert_eq!(failed(&judge_one(&set, "p", &fatal)).0, FailureKind::Trap);
        assert_eq!(ready(), left, "whoever asks pays for the next");
    }
    assert_eq!(judge_one(&set, "p", &request()).outcome, Ok(says(Verdict::Allow)));
    assert_eq!(judge_one(&set, "p", &request()).outcome, Ok(says(Verdict::Allow)));
    assert_eq!(ready(), 4);
}

#[test]
fn the_most_memory_a_decision_had_is_told() {
    let engine = Engine::new(EngineConfig { instances: 4, ..EngineConfig::default() }).unwrap();
    let mut guest = Guest::allowing();
    guest.pages = 20;
    guest.evaluate = format!("(drop (memory.grow (i32.const 5))) {}", guest.evaluate);
    for start in [Start::Plain, Start::Ready] {
        let set = engine.stage(1, &[spec(&guest, start)]).unwrap();
        let most = || set.stats().next().unwrap().1.memory();
        assert_eq!(most(), 0);
        for _ in 0..3 {
            judge_one(&set, "p", &request());
            assert_eq!(most(), 25 << 16);
        }
    }
}

#[test]
fn a_guest_that_keeps_a_handle_is_configured_each_time_and_says_so() {
    const IO: &str = "package wasi:io@0.2.3 { interface streams { resource output-stream { } } }";
    const CLI: &str = "package wasi:cli@0.2.3 {
        interface stdout { use wasi:io/streams@0.2.3.{output-stream}; get-stdout: func() -> output-stream; }
    }";
    let mut guest = Guest::allowing()
        .package("wasi:io/streams@0.2.3", IO)
        .package("wasi:cli/stdout@0.2.3", CLI)
        .import("wasi:cli/stdout@0.2.3", "get-stdout", "$stdout (result i32)");
    let done = guest.configure.clone();
    guest.configure = format!("(i32.store (i32.const 60000) (call $stdout)) {done}");
    let engine = Engine::new(EngineConfig { instances: 4, ..EngineConfig::default() }).unwrap();
    let set = engine.stage(1, &[guest.spec("p")]).unwrap();
    engine.settle();
    let StartedFrom::Module(why) = started_from(&set) else { panic!("{:?}", started_from(&set)) };
    assert!(why.contains("handle"), "{why}");
    assert_eq!(judge_one(&set, "p", &request()).outcome, Ok(says(Verdict::Allow)));
}

#[test]
fn sets_that_are_dropped_give_their_instances_back() {
    // A pool of eight: two sets that kept theirs would use it up.
    let engine = Engine::new(EngineConfig { instances: 2, ready: 4, ..EngineConfig::default() }).unwrap();
    for n in 0..50 {
        let settings = format!("{{\"n\":{n}}}");
        let set = engine.stage(n, &[PolicySpec { settings, ..remembering().spec("p") }]).unwrap();
        assert_eq!(numbers(&set, "p", &request())[0], 101);
        assert!(set.status()[0].ready <= 4);
    }
}

#[test]
fn policies_of_one_module_and_settings_share_what_is_prepared() {
    let engine = Engine::new(EngineConfig { instances: 4, ..EngineConfig::default() }).unwrap();
    let one = spec(&remembering(), Start::Ready);
    let two = PolicySpec { name: "q".to_owned(), ..one.clone() };
    let set = engine.stage(1, &[one.clone(), two]).unwrap();
    engine.settle();
    let again = engine.stage(2, std::slice::from_ref(&one)).unwrap();
    assert_eq!(started_from(&again), StartedFrom::Snapshot, "an unchanged policy keeps its snapshot over a reload");
    assert_eq!(engine.compilations(), 1);
    assert_eq!(set.status()[1].started_from, Some(StartedFrom::Snapshot));
    // What is the policy's own is still checked.
    let pinned = PolicySpec { sha256_pin: Some("0".repeat(64)), ..one };
    assert!(engine.stage(3, &[pinned]).is_err());
}

struct Folder {
    _parent: tempfile::TempDir,
    path: PathBuf,
}

fn folder() -> Folder {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("compiled");
    Folder { _parent: parent, path }
}

fn caching(path: &Path, key: u8) -> Arc<Engine> {
    let cache = Some(CacheConfig::new(path.to_owned(), [key; 32]));
    Engine::new(EngineConfig { instances: 4, cache, ..EngineConfig::default() }).unwrap()
}

/// Starts as a new process would; answers what was reported and how much was compiled.
fn restart(path: &Path, key: u8, guest: &Guest) -> (Vec<u64>, u64) {
    let engine = caching(path, key);
    let set = engine.stage(1, &[spec(guest, Start::Ready)]).unwrap();
    engine.settle();
    assert_eq!(started_from(&set), StartedFrom::Snapshot);
    (numbers(&set, "p", &request()), engine.compilations())
}

fn files(path: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(path).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn rule_21_compiled_code_is_kept_over_restarts_in_a_folder_of_ones_own() {
    let folder = folder();
    let guest = remembering();
    let want = vec![101, 101, SETTINGS.len() as u64];
    assert_eq!(restart(&folder.path, 1, &guest), (want.clone(), 1));
    let mode = |p: &Path| fs::metadata(p).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&folder.path), 0o700);
    assert_eq!(files(&folder.path).len(), 2, "the module and its snapshot, nothing half written");
    assert!(files(&folder.path).iter().all(|f| mode(f) == 0o600));
    assert_eq!(restart(&folder.path, 1, &guest), (want, 0));
}

#[test]
fn rule_21_code_that_was_changed_is_compiled_again_and_never_run() {
    let guest = remembering();
    type Damage = fn(&[PathBuf]);
    let damage: [(&str, Damage); 6] = [
        ("a changed byte", |files| {
            for file in files {
                let mut bytes = fs::read(file).unwrap();
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
                fs::write(file, bytes).unwrap();
            }
        }),
        ("a changed tag", |files| {
            for file in files {
                let mut bytes = fs::read(file).unwrap();
                bytes[10] ^= 1;
                fs::write(file, bytes).unwrap();
            }
        }),
        ("a missing end", |files| {
            for file in files {
                let bytes = fs::read(file).unwrap();
                fs::write(file, &bytes[..bytes.len() - 7]).unwrap();
            }
        }),
        ("nothing", |files| files.iter().for_each(|file| fs::write(file, b"").unwrap())),
        ("each other's names", |files| {
            let (a, b) = (fs::read(&files[0]).unwrap(), fs::read(&files[1]).unwrap());
            fs::write(&files[0], b).unwrap();
            fs::write(&files[1], a).unwrap();
        }),
        ("bare code, as another tool would precompile it", |files| {
            for file in files {
                let bytes = fs::read(file).unwrap();
                fs::write(file, &bytes[40..]).unwrap();
            }
        }),
    ];
    for (what, damage) in damage {
        let folder = folder();
        let (want, _) = restart(&folder.path, 1, &guest);
        damage(&files(&folder.path));
        assert_eq!(restart(&folder.path, 1, &guest), (want.clone(), 1), "{what}");
        assert_eq!(restart(&folder.path, 1, &guest), (want, 0), "{what}: repaired");
    }
}

#[test]
fn rule_21_code_under_another_gateways_key_is_foreign() {
    let folder = folder();
    let guest = remembering();
    restart(&folder.path, 1, &guest);
    assert_eq!(restart(&folder.path, 2, &guest).1, 1);
}

#[test]
fn rule_21_a_folder_that_others_can_open_is_refused() {
    let refused = |path: &Path, says: &str| {
        let cache = Some(CacheConfig::new(path.to_owned(), [1; 32]));
        let error = Engine::new(EngineConfig { instances: 1, cache, ..EngineConfig::default() }).unwrap_err();
        assert_eq!(error.code(), "engine-cache");
        assert!(error.to_string().contains(says), "{error}");
    };
    let folder = folder();
    fs::create_dir(&folder.path).unwrap();
    for mode in [0o755, 0o710, 0o702] {
        fs::set_permissions(&folder.path, fs::Permissions::from_mode(mode)).unwrap();
        refused(&folder.path, "chmod 700");
    }
    let file = folder.path.join("file");
    fs::write(&file, b"").unwrap();
    refused(&file, "");
    let link = folder.path.join("link");
    fs::set_permissions(&folder.path, fs::Permissions::from_mode(0o700)).unwrap();
    std::os::unix::fs::symlink(&folder.path, &link).unwrap();
    refused(&link, "not a folder");
}

#[test]
fn the_folder_stays_within_its_limit() {
    let folder = folder();
    let cache = CacheConfig { limit_bytes: 1, ..CacheConfig::new(folder.path.clone(), [1; 32]) };
    let engine = Engine::new(EngineConfig { instances: 4, cache: Some(cache), ..EngineConfig::default() }).unwrap();
    let set = engine.stage(1, &[spec(&remembering(), Start::Ready)]).unwrap();
    engine.settle();
    assert!(files(&folder.path).is_empty());
    assert_eq!(numbers(&set, "p", &request())[0], 101, "it only costs a compilation");
}
