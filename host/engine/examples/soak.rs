//! What disturbs decisions, and what they leave behind:
//! `cargo run --release --example soak -- MODULE.wasm SETTINGS.json [DECISIONS] [RELOADS]`.
//!
//! Percentiles of one policy's decisions on one thread, in turns: alone; while another thread runs hostile
//! policies without a pause, or stages modules that were never seen before one after the other.
//! Then resident memory before and after many decisions and many reloads.

#[path = "../tests/engine/support.rs"]
#[expect(dead_code, reason = "the guests of the tests, of which this needs a few")]
#[expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "as in the tests")]
mod support;

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use countersign_core::seams::Judge;
use countersign_engine::{Engine, EngineConfig, PolicySet, PolicySpec};
use support::Guest;

/// How long a row is measured: in turns of decisions alone and decisions beside something, so that whatever else the
/// machine does disturbs both alike.
const TURN: Duration = Duration::from_millis(500);
const TURNS: u32 = 8;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let usage = "usage: soak MODULE.wasm SETTINGS.json [DECISIONS] [RELOADS]";
    let module = std::fs::read(args.next().ok_or(usage)?)?;
    let settings = std::fs::read_to_string(args.next().ok_or(usage)?)?;
    let decisions: u64 = args.next().map_or(Ok(1_000_000), |n| n.parse())?;
    let reloads: u64 = args.next().map_or(Ok(1_000), |n| n.parse())?;
    let engine = Engine::new(EngineConfig::default())?;
    let spec = PolicySpec { settings: settings.clone(), ..PolicySpec::new("p", module.clone()) };
    let set = engine.stage(1, std::slice::from_ref(&spec))?;
    engine.settle();

    disturbed(&set, &engine)?;
    reloading(&set, &engine, &module, &settings);

    println!("resident: {} MiB after the above", resident()?);
    let names = ["p".to_owned()];
    let request = support::request();
    for tenth in 1..=10 {
        (0..decisions / 10).for_each(|_| drop(set.judge(&names, &request)));
        println!("resident: {} MiB after {} decisions", resident()?, decisions / 10 * tenth);
    }
    for n in 1..=reloads {
        let next = PolicySpec { module: variant(&module, n + 1_000_000).into(), ..spec.clone() };
        let set = engine.stage(n, &[next])?;
        drop(set.judge(&names, &request));
        if n % (reloads / 10).max(1) == 0 {
            println!("resident: {} MiB after {n} reloads", resident()?);
        }
    }
    Ok(())
}

/// Decisions beside a thread that runs nothing but attacks.
fn disturbed(set: &PolicySet, engine: &Arc<Engine>) -> Result<(), Box<dyn Error>> {
    let mut grower = Guest::evaluating("(drop (memory.grow (i32.const 60000))) (unreachable)");
    grower.pages = 20;
    let attacks = [
        ("spins", Guest::evaluating("(loop $l (br $l)) (unreachable)")),
        ("traps", Guest::evaluating("(unreachable)")),
        ("grows", grower),
        (
            "touches 50 MiB",
            Guest::evaluating(
                "(local $i i32) (drop (memory.grow (i32.const 800)))
             (loop $l (i32.store (i32.add (i32.const 1200000) (local.get $i)) (i32.const 1))
               (local.set $i (i32.add (local.get $i) (i32.const 4096)))
               (br_if $l (i32.lt_u (local.get $i) (i32.const 50000000))))
             (unreachable)",
            ),
        ),
    ];
    for (what, guest) in attacks {
        let hostile = engine.stage(1, &[guest.spec("h")])?;
        engine.settle();
        let names = ["h".to_owned()];
        let request = support::request();
        in_turns(what, set, |_| drop(hostile.judge(&names, &request)));
    }
    Ok(())
}

/// Decisions while new modules are compiled, staged and made into snapshots.
fn reloading(set: &PolicySet, engine: &Arc<Engine>, module: &[u8], settings: &str) {
    in_turns("stages", set, |n| {
        let spec = PolicySpec { settings: settings.to_owned(), ..PolicySpec::new("p", variant(module, n)) };
        drop(engine.stage(n, &[spec]));
        engine.settle();
    });
}

/// Decisions alone and beside a thread that does nothing but `this`, turn by turn.
fn in_turns(what: &str, set: &PolicySet, this: impl Fn(u64) + Sync) {
    let (mut quiet, mut beside) = (Vec::new(), Vec::new());
    let done = AtomicU64::new(0);
    for _ in 0..TURNS {
        quiet.extend(measure(set));
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    this(done.fetch_add(1, Ordering::Relaxed));
                }
            });
            beside.extend(measure(set));
            stop.store(true, Ordering::Relaxed);
        });
    }
    let rate = done.load(Ordering::Relaxed) as f64 / (TURN * TURNS).as_secs_f64();
    println!("beside a thread that {what}, {rate:.0} times a second:");
    let alone = show("alone", quiet);
    let disturbed = show("beside", beside);
    println!("  p99 of alone: {:.2}", disturbed / alone);
}

/// The same policy under another digest: a custom section at the end changes nothing that runs.
fn variant(module: &[u8], n: u64) -> Vec<u8> {
    let mut bytes = module.to_vec();
    bytes.extend([0, 10, 1, b'n']);
    bytes.extend(n.to_le_bytes());
    bytes
}

fn measure(set: &PolicySet) -> Vec<Duration> {
    let names = ["p".to_owned()];
    let request = support::request();
    let began = now();
    let mut took = Vec::new();
    while began.elapsed() < TURN {
        let start = now();
        drop(set.judge(&names, &request));
        took.push(start.elapsed());
    }
    took
}

/// Prints percentiles; the 99th, in microseconds.
fn show(what: &str, mut took: Vec<Duration>) -> f64 {
    took.sort_unstable();
    let at =
        |permille: usize| took.get(took.len() * permille / 1_000).copied().unwrap_or_default().as_nanos() as f64 / 1e3;
    println!(
        "  {what:7} {:9} times, p50 {:.1} us, p99 {:.1} us, p99.9 {:.1} us",
        took.len(),
        at(500),
        at(990),
        at(999)
    );
    at(990)
}

/// MiB of memory this process has.
fn resident() -> Result<u64, Box<dyn Error>> {
    let statm = std::fs::read_to_string("/proc/self/statm")?;
    let pages: u64 = statm.split_whitespace().nth(1).ok_or("/proc/self/statm")?.parse()?;
    Ok(pages * 4 / 1_024)
}

#[expect(clippy::disallowed_methods, reason = "this program exists to measure time")]
fn now() -> Instant {
    Instant::now()
}
