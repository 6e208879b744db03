//! What disturbs decisions, and what they leave behind:
//! `cargo run --release --example soak -- MODULE.wasm SETTINGS.json [DECISIONS] [RELOADS]`.
//!
//! Percentiles of one policy's decisions on one thread: alone; while another thread runs hostile
//! policies without a pause; while modules that were never seen before are staged one after the other.
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

const ROW: Duration = Duration::from_secs(5);

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

    let quiet = measure(&set);
    show("alone", &quiet, &quiet);
    disturbed(&set, &quiet, &engine)?;
    reloading(&set, &quiet, &engine, &module, &settings)?;

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
fn disturbed(set: &PolicySet, quiet: &[Duration], engine: &Arc<Engine>) -> Result<(), Box<dyn Error>> {
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
        let stop = AtomicBool::new(false);
        let done = AtomicU64::new(0);
        let took = std::thread::scope(|scope| {
            scope.spawn(|| {
                let names = ["h".to_owned()];
                let request = support::request();
                while !stop.load(Ordering::Relaxed) {
                    drop(hostile.judge(&names, &request));
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
            let took = measure(set);
            stop.store(true, Ordering::Relaxed);
            took
        });
        let rate = done.load(Ordering::Relaxed) / ROW.as_secs();
        show(&format!("a neighbour {what} {rate} times/s"), &took, quiet);
    }
    Ok(())
}

/// Decisions while new modules are compiled, staged and made into snapshots.
fn reloading(
    set: &PolicySet,
    quiet: &[Duration],
    engine: &Arc<Engine>,
    module: &[u8],
    settings: &str,
) -> Result<(), Box<dyn Error>> {
    let stop = AtomicBool::new(false);
    let (took, staged) = std::thread::scope(|scope| {
        let stager = scope.spawn(|| {
            let mut staged = Vec::new();
            for n in 0.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let settings = settings.to_owned();
                let spec = PolicySpec { settings, ..PolicySpec::new("p", variant(module, n)) };
                let began = now();
                if engine.stage(n, &[spec]).is_ok() {
                    staged.push(began.elapsed());
                }
                engine.settle();
            }
            staged
        });
        let took = measure(set);
        stop.store(true, Ordering::Relaxed);
        (took, stager.join().unwrap_or_default())
    });
    show(&format!("while {} new modules are staged", staged.len()), &took, quiet);
    show("staging a new module", &staged, &staged);
    Ok(())
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
    while began.elapsed() < ROW {
        let start = now();
        drop(set.judge(&names, &request));
        took.push(start.elapsed());
    }
    took.sort_unstable();
    took
}

fn show(what: &str, took: &[Duration], quiet: &[Duration]) {
    let mut took = took.to_vec();
    took.sort_unstable();
    let at = |all: &[Duration], permille: usize| {
        all.get(all.len() * permille / 1_000).copied().unwrap_or_default().as_nanos() as f64 / 1e3
    };
    println!(
        "{what}: {} times, p50 {:.1} us, p99 {:.1} us ({:.2} of alone), p99.9 {:.1} us",
        took.len(),
        at(&took, 500),
        at(&took, 990),
        at(&took, 990) / at(quiet, 990),
        at(&took, 999)
    );
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
