//! The inert WASI: the same twice, different per decision, never waiting, never reaching out.

use crate::support::{Guest, decision_id, engine, failed, judge_one, numbers, reporter, request, says};
use countersign_core::spend::SpendRequest;
use countersign_core::time::Timestamp;
use countersign_core::verdict::{FailureKind, Verdict};
use countersign_engine::PolicySpec;

const RANDOM: &str = "package wasi:random@0.2.3 {
    interface random { get-random-bytes: func(len: u64) -> list<u8>; get-random-u64: func() -> u64; }
    interface insecure { get-insecure-random-u64: func() -> u64; }
    interface insecure-seed { insecure-seed: func() -> tuple<u64, u64>; }
}";
const IO: &str = "package wasi:io@0.2.3 {
    interface poll {
        resource pollable { ready: func() -> bool; block: func(); }
        poll: func(in: list<borrow<pollable>>) -> list<u32>;
    }
}";
const CLOCKS: &str = "package wasi:clocks@0.2.3 {
    interface monotonic-clock {
        use wasi:io/poll@0.2.3.{pollable};
        now: func() -> u64;
        subscribe-duration: func(when: u64) -> pollable;
    }
    interface wall-clock {
        record datetime { seconds: u64, nanoseconds: u32 }
        now: func() -> datetime;
    }
}";

fn asking() -> Guest {
    Guest::new()
        .package("wasi:random/random@0.2.3", RANDOM)
        .package("wasi:random/insecure@0.2.3", RANDOM)
        .package("wasi:random/insecure-seed@0.2.3", RANDOM)
        .package("wasi:io/poll@0.2.3", IO)
        .package("wasi:clocks/monotonic-clock@0.2.3", CLOCKS)
        .package("wasi:clocks/wall-clock@0.2.3", CLOCKS)
}

/// Random three ways and the time two ways, each twice.
fn curious() -> Guest {
    let guest = asking()
        .import("wasi:random/random@0.2.3", "get-random-u64", "$secure (result i64)")
        .import("wasi:random/random@0.2.3", "get-random-bytes", "$bytes (param i64 i32)")
        .import("wasi:random/insecure@0.2.3", "get-insecure-random-u64", "$insecure (result i64)")
        .import("wasi:random/insecure-seed@0.2.3", "insecure-seed", "$seed (param i32)")
        .import("wasi:clocks/monotonic-clock@0.2.3", "now", "$ticks (result i64)")
        .import("wasi:clocks/wall-clock@0.2.3", "now", "$wall (param i32)");
    let r = reporter(guest, 12);
    let evaluate = [
        r.report(0, "(call $secure)"),
        r.report(1, "(call $secure)"),
        r.report(2, "(call $insecure)"),
        r.report(3, "(call $insecure)"),
        "(call $seed (i32.const 65408))".into(),
        r.report(4, "(i64.load (i32.const 65408))"),
        r.report(5, "(i64.load (i32.const 65416))"),
        "(call $bytes (i64.const 40) (i32.const 65408))".into(),
        r.report(6, "(i64.load offset=32 (i32.load (i32.const 65408)))"),
        r.report(7, "(i64.load32_u (i32.const 65412))"),
        r.report(8, "(call $ticks)"),
        r.report(9, "(call $ticks)"),
        "(call $wall (i32.const 65408))".into(),
        r.report(10, "(i64.load (i32.const 65408))"),
        r.report(11, "(i64.load32_u (i32.const 65416))"),
        r.guest.evaluate.clone(),
    ];
    Guest { evaluate: evaluate.concat(), ..r.guest }
}

#[test]
fn time_and_randomness_are_functions_of_the_decision() {
    let guest = curious();
    let set = engine().stage(1, &[guest.spec("a"), guest.spec("b")]).unwrap();
    let first = numbers(&set, "a", &request());
    assert_eq!(first, numbers(&set, "a", &request()), "the same decision");
    let again = engine().stage(2, &[guest.spec("a")]).unwrap();
    assert_eq!(first, numbers(&again, "a", &request()), "on another set");

    let (random, clocks) = first.split_at(7);
    let distinct: std::collections::BTreeSet<&u64> = random.iter().collect();
    assert_eq!(distinct.len(), 7, "no stream repeats itself or another");
    assert_eq!(clocks[0], 40, "as many bytes as asked for");
    let at = request().at.as_millis();
    assert_eq!(clocks[1..], [at * 1_000_000, at * 1_000_000, at / 1_000, at % 1_000 * 1_000_000]);

    let other = SpendRequest { id: decision_id(2), ..request() };
    let elsewhere = numbers(&set, "a", &other);
    for (i, number) in random.iter().enumerate() {
        assert_ne!(*number, elsewhere[i], "another decision, number {i}");
    }
    assert_eq!(elsewhere[7..], first[7..], "the clock is the request's");
    assert_ne!(numbers(&set, "b", &request())[..7], *random, "another policy of the same module");
    let later = SpendRequest { at: Timestamp::from_millis(5_007), ..request() };
    let later = numbers(&set, "a", &later);
    assert_eq!(later[8..], [5_007_000_000, 5_007_000_000, 5, 7_000_000]);
    assert_eq!(later[..7], *random);
}

#[test]
fn before_evaluate_the_clock_is_zero_and_the_seed_is_of_module_and_settings() {
    let guest = asking().import("wasi:random/random@0.2.3", "get-random-u64", "$secure (result i64)").import(
        "wasi:clocks/monotonic-clock@0.2.3",
        "now",
        "$ticks (result i64)",
    );
    let r = reporter(guest, 3);
    let mut guest = Guest {
        evaluate: [
            r.report(0, "(global.get $random)"),
            r.report(1, "(global.get $ticks)"),
            r.report(2, "(call $secure)"),
            r.guest.evaluate.clone(),
        ]
        .concat(),
        ..r.guest
    };
    guest.globals = "(global $random (mut i64) (i64.const 0)) (global $ticks (mut i64) (i64.const 9))".into();
    guest.configure =
        format!("(global.set $random (call $secure)) (global.set $ticks (call $ticks)) {}", guest.configure);
    let with = |name: &str, settings: &str| PolicySpec { settings: settings.into(), ..guest.spec(name) };
    let specs = [with("a", "{}"), with("same", "{}"), with("other", "{\"n\":1}")];
    let set = engine().stage(1, &specs).unwrap();
    let a = numbers(&set, "a", &request());
    let later = SpendRequest { id: decision_id(9), at: Timestamp::from_millis(1), ..request() };
    let b = numbers(&set, "a", &later);
    assert_eq!((a[0], a[1]), (b[0], 0), "no decision shows in configure");
    assert_ne!(a[2], b[2]);
    assert_ne!(a[0], a[2], "evaluate has a seed of its own");
    assert_eq!(numbers(&set, "same", &request())[0], a[0]);
    assert_ne!(numbers(&set, "other", &request())[0], a[0]);
}

#[test]
fn a_sleeping_policy_does_not_sleep() {
    // A year, by `block` and by `poll`, in configure and in evaluate. Were any of it real, this
    // test would not end.
    let year = "(i64.const 31536000000000000)";
    let mut guest = asking()
        .import("wasi:clocks/monotonic-clock@0.2.3", "subscribe-duration", "$sleep (param i64) (result i32)")
        .import("wasi:io/poll@0.2.3", "[method]pollable.block", "$block (param i32)")
        .import("wasi:io/poll@0.2.3", "[method]pollable.ready", "$ready (param i32) (result i32)")
        .import("wasi:io/poll@0.2.3", "poll", "$poll (param i32 i32 i32)");
    let at = guest.data.answer(&says(Verdict::Allow));
    let sleep = format!(
        "(local $p i32)
         (local.set $p (call $sleep {year}))
         (call $block (local.get $p))
         (if (i32.eqz (call $ready (local.get $p))) (then (unreachable)))
         (i32.store (i32.const 65408) (local.get $p))
         (i32.store (i32.const 65412) (call $sleep {year}))
         (call $poll (i32.const 65408) (i32.const 2) (i32.const 65424))
         (if (i32.ne (i32.load (i32.const 65428)) (i32.const 2)) (then (unreachable)))"
    );
    guest.configure = format!("{sleep} {}", guest.configure);
    guest.evaluate = format!("{sleep} (i32.const {at})");
    let set = engine().stage(1, &[guest.spec("p")]).unwrap();
    assert_eq!(judge_one(&set, "p", &request()).outcome, Ok(says(Verdict::Allow)));
}

#[test]
fn polling_nothing_is_a_trap_and_not_for_ever() {
    let guest = Guest {
        evaluate: "(call $poll (i32.const 0) (i32.const 0) (i32.const 65424)) (unreachable)".into(),
        ..asking().import("wasi:io/poll@0.2.3", "poll", "$poll (param i32 i32 i32)")
    };
    let set = engine().stage(1, &[guest.spec("p")]).unwrap();
    let (kind, message) = failed(&judge_one(&set, "p", &request()));
    assert_eq!(kind, FailureKind::Trap);
    assert!(message.contains("wait for ever"), "{message}");
}

#[test]
fn waiting_for_time_to_pass_runs_out_of_the_hosts_patience() {
    let guest = Guest {
        evaluate: "(loop $l (br_if $l (i64.lt_u (call $ticks) (i64.const -1)))) (unreachable)".into(),
        ..asking().import("wasi:clocks/monotonic-clock@0.2.3", "now", "$ticks (result i64)")
    };
    let set = engine().stage(1, &[guest.spec("p")]).unwrap();
    let (kind, message) = failed(&judge_one(&set, "p", &request()));
    assert_eq!((kind, message.as_str()), (FailureKind::Oversize, "evaluate: more than 10000 calls to the host"));
}

#[test]
fn the_host_does_not_make_terabytes_of_randomness() {
    let guest = Guest {
        evaluate: "(call $bytes (i64.const 0x10000000000) (i32.const 65408)) (unreachable)".into(),
        ..asking().import("wasi:random/random@0.2.3", "get-random-bytes", "$bytes (param i64 i32)")
    };
    let set = engine().stage(1, &[guest.spec("p")]).unwrap();
    let (kind, message) = failed(&judge_one(&set, "p", &request()));
    assert_eq!(kind, FailureKind::Oversize);
    assert!(message.contains("random bytes"), "{message}");
}

const OUTPUT: &str = "package wasi:io@0.2.6 {
    interface error { resource error; }
    interface streams {
        use error.{error};
        variant stream-error { last-operation-failed(error), closed }
        resource input-stream { read: func(len: u64) -> result<list<u8>, stream-error>; }
        resource output-stream {
            check-write: func() -> result<u64, stream-error>;
            blocking-write-and-flush: func(contents: list<u8>) -> result<_, stream-error>;
        }
    }
}
package wasi:cli@0.2.6 {
    interface stderr { use wasi:io/streams@0.2.6.{output-stream}; get-stderr: func() -> output-stream; }
    interface stdin { use wasi:io/streams@0.2.6.{input-stream}; get-stdin: func() -> input-stream; }
    interface environment { get-environment: func() -> list<tuple<string, string>>; get-arguments: func() -> list<string>; }
    interface exit { exit: func(status: result); }
}
package wasi:filesystem@0.2.6 {
    interface types {
        resource descriptor { unlink-file-at: func(path: string) -> result; }
        never-heard-of: func() -> u32;
    }
    interface preopens { use types.{descriptor}; get-directories: func() -> list<tuple<descriptor, string>>; }
}";

#[test]
fn what_a_policy_prints_goes_nowhere_but_explains_its_trap() {
    let mut guest = Guest::new()
        .package("wasi:io/streams@0.2.6", OUTPUT)
        .package("wasi:cli/stderr@0.2.6", OUTPUT)
        .import("wasi:cli/stderr@0.2.6", "get-stderr", "$stderr (result i32)")
        .import(
            "wasi:io/streams@0.2.6",
            "[method]output-stream.blocking-write-and-flush",
            "$write (param i32 i32 i32 i32)",
        );
    let text = guest.data.put(b"panicked at 'no rules'\n", 1);
    guest.evaluate = format!(
        "(call $write (call $stderr) (i32.const {text}) (i32.const 23) (i32.const 65408))
         (if (i32.load8_u (i32.const 65408)) (then (loop $l (br $l))))
         (unreachable)"
    );
    let set = engine().stage(1, &[guest.spec("p")]).unwrap();
    let (kind, message) = failed(&judge_one(&set, "p", &request()));
    assert_eq!(kind, FailureKind::Trap);
    assert!(message.ends_with("it printed: panicked at 'no rules'"), "{message}");
}

#[test]
fn there_is_nothing_to_read_open_or_exit() {
    let base = || {
        Guest::new()
            .package("wasi:io/streams@0.2.6", OUTPUT)
            .package("wasi:cli/stdin@0.2.6", OUTPUT)
            .package("wasi:cli/environment@0.2.6", OUTPUT)
            .package("wasi:cli/exit@0.2.6", OUTPUT)
            .package("wasi:filesystem/types@0.2.6", OUTPUT)
            .package("wasi:filesystem/preopens@0.2.6", OUTPUT)
    };
    let guest = base()
        .import("wasi:cli/stdin@0.2.6", "get-stdin", "$stdin (result i32)")
        .import("wasi:io/streams@0.2.6", "[method]input-stream.read", "$read (param i32 i64 i32)")
        .import("wasi:cli/environment@0.2.6", "get-environment", "$env (param i32)")
        .import("wasi:cli/environment@0.2.6", "get-arguments", "$args (param i32)")
        .import("wasi:filesystem/preopens@0.2.6", "get-directories", "$dirs (param i32)");
    let r = reporter(guest, 5);
    let evaluate = [
        "(call $env (i32.const 65408))".into(),
        r.report(0, "(i64.load32_u (i32.const 65412))"),
        "(call $args (i32.const 65408))".into(),
        r.report(1, "(i64.load32_u (i32.const 65412))"),
        "(call $dirs (i32.const 65408))".into(),
        r.report(2, "(i64.load32_u (i32.const 65412))"),
        "(call $read (call $stdin) (i64.const 100) (i32.const 65408))".into(),
        r.report(3, "(i64.load8_u (i32.const 65408))"),
        r.report(4, "(i64.load8_u (i32.const 65412))"),
        r.guest.evaluate.clone(),
    ];
    let guest = Guest { evaluate: evaluate.concat(), ..r.guest };
    let set = engine().stage(1, &[guest.spec("p")]).unwrap();
    assert_eq!(numbers(&set, "p", &request()), [0, 0, 0, 1, 1], "empty, empty, empty, closed");

    let trap = |import: (&str, &str, &str), call: &str| {
        let guest = base().import(import.0, import.1, import.2);
        let guest = Guest { evaluate: format!("{call} (unreachable)"), ..guest };
        let set = engine().stage(1, &[guest.spec("p")]).unwrap();
        let (kind, message) = failed(&judge_one(&set, "p", &request()));
        assert_eq!(kind, FailureKind::Trap);
        assert!(message.contains("is not available to a policy"), "{message}");
    };
    trap(("wasi:cli/exit@0.2.6", "exit", "$exit (param i32)"), "(call $exit (i32.const 0))");
    trap(("wasi:filesystem/types@0.2.6", "never-heard-of", "$f (result i32)"), "(drop (call $f))");
}
