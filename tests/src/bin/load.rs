//! Measures the gateway from outside and prints one line of JSON; what it is doing goes to standard error.
//!
//! - purchases a second and their latency, one, eight and thirty-two at a time: through the gateway at the official
//!   Express seller, and beside it the official TypeScript client paying the same seller directly in the same run
//!   (`--without-peers` leaves both out where there is no Node; `--telemetry` leaves out all but its cost);
//! - the same at a seller in this process, so that the seller is not what is measured;
//! - the same with traces and metrics told to a receiver in this process, and without, turn by turn;
//! - cold start until `/readyz`, memory, size of the binary, time from saving a module to the first decision by it.
//!
//! Clients, gateway, sellers and chain share this machine. Compare figures of one run, not of two machines.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a measurement that does not work must fail loudly"
)]
#![expect(clippy::disallowed_methods, reason = "it measures real time")]

use countersign_tests::{
    config::{Config, Policy, SCOUT_TOKEN},
    measure::{load_average, median, memory, policies, quantile, rounded, unlimited},
    modules::{sha256, variant},
    peers::{NETWORK, Peers, authority},
    process::{Gateway, binary},
    stub::Stub,
    wait_for,
    world::LocalWorld,
};
use serde_json::{Value, json};
use std::{
    fs,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

/// Purchases at a time, and how many in all: Express.
const EXPRESS: [(u32, u32); 3] = [(1, 100), (8, 400), (32, 800)];
/// The same at the seller in this process.
const LOCAL: [(u32, u32); 3] = [(1, 400), (8, 2000), (32, 4000)];
/// Cold starts, of which the median is told.
const STARTS: usize = 5;
/// Turns with and without telemetry, and purchases of each.
const TURNS: u32 = 7;
const TURN: u32 = 400;
/// Modules saved, likewise.
const SAVES: u32 = 5;

fn main() {
    let with_peers = match std::env::args().nth(1).as_deref() {
        None => true,
        Some("--without-peers") => false,
        Some("--telemetry") => {
            println!("{}", telemetry(&LocalWorld::start()));
            return;
        }
        Some(other) => panic!("{other:?}: --without-peers or --telemetry"),
    };
    let express = with_peers.then(express);
    let world = LocalWorld::start();
    let (local, process) = local(&world);
    let result = json!({
        "cpus": thread::available_parallelism().map_or(0, usize::from),
        "load_average": load_average(),
        "binary_bytes": fs::metadata(binary()).unwrap().len(),
        "process": process,
        "local_seller": local,
        "express_seller": express,
        "telemetry": telemetry(&world),
        "module_saved_to_first_decision_ms": saved_to_decided(&world),
    });
    println!("{result}");
}

/// Through the gateway and with the official client, at the same seller.
fn express() -> Value {
    let peers = Peers::start();
    let config = Config::new(policies())
        .allow_private(authority(&peers.v2))
        .set(&["network", NETWORK, "rpc"], peers.rpc.as_str())
        .set(&["network", NETWORK, "finality-blocks"], 0);
    let gateway = Gateway::start(unlimited(config));
    let url = format!("{}/cheap", peers.v2);
    // Both sides have everything loaded and compiled before they are timed.
    buy(&gateway, &url, 20, 4);
    peers.official_client(&url, 20, 4);
    let points = EXPRESS.map(|(concurrency, n)| {
        eprintln!("express seller, {concurrency} at a time");
        let through = buy(&gateway, &url, n, concurrency);
        let direct = peers.official_client(&url, n, concurrency);
        json!({"gateway": through, "official_client": direct})
    });
    Value::from(points.to_vec())
}

/// Through the gateway at the seller in this process, and how the process itself does: when new, and with thousands of
/// payments behind it.
fn local(world: &LocalWorld) -> (Value, Value) {
    let mut gateway = Gateway::start(unlimited(world.config(&["honest"], policies())));
    let url = world.world().seller("honest").unwrap().url("/quote");
    let cold_start = cold_start(&mut gateway);
    let fresh = memory(&gateway);
    buy(&gateway, &url, 20, 4);
    let points = LOCAL.map(|(concurrency, n)| {
        eprintln!("seller in this process, {concurrency} at a time");
        buy(&gateway, &url, n, concurrency)
    });
    let after = memory(&gateway);
    let proven = wait_for(Duration::from_secs(60), || {
        let open = gateway.operator().get("/v1/payments?state=accepted&state=in-flight&limit=1").json();
        open.pointer("/items/0").is_none().then_some(())
    });
    let folder = fs::read_dir(gateway.dir()).unwrap().map(Result::unwrap);
    let ledger = folder.filter(|file| file.file_name().to_string_lossy().starts_with("countersign.db"));
    let ledger_bytes: u64 = ledger.map(|file| file.metadata().unwrap().len()).sum();
    let process = json!({
        "cold_start_ms": cold_start,
        "cold_start_used_ledger_ms": self::cold_start(&mut gateway),
        "all_proven_within_a_minute": proven.is_some(),
        "ledger_bytes": ledger_bytes,
        "ledger_payments": LOCAL.iter().map(|(_, n)| n).sum::<u32>() + 20,
        "rss_kib_at_start": fresh.get("VmRSS"),
        "rss_kib_after_load": after.get("VmRSS"),
        "rss_kib_highest": after.get("VmHWM"),
    });
    (Value::from(points.to_vec()), process)
}

/// Turn by turn through a gateway that tells a receiver of each purchase and one that does not, so that whatever else
/// this machine does meets both.
fn telemetry(world: &LocalWorld) -> Value {
    let receiver =
        Stub::answering_at_once(|_| "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}".to_owned());
    let config = || unlimited(world.config(&["honest"], policies()));
    let without = Gateway::start(config());
    let with =
        Gateway::start(config().set(&["telemetry", "otlp"], receiver.url("")).set(&["telemetry", "every"], "1s"));
    let url = world.world().seller("honest").unwrap().url("/quote");
    let mut rates = [Vec::new(), Vec::new()];
    for round in 0..=TURNS {
        eprintln!("telemetry, turn {round}");
        for (gateway, rates) in [&without, &with].into_iter().zip(&mut rates) {
            let bought = buy(gateway, &url, TURN, 8);
            assert_eq!(bought.get("errors"), Some(&json!(0)), "{bought}");
            // The first turn only warms up.
            if round > 0 {
                rates.push(bought.get("per_second").and_then(Value::as_f64).unwrap());
            }
        }
    }
    let told = receiver.seen().iter().filter(|message| message.starts_with("POST /v1/traces")).count();
    let [off, on] = &rates;
    let mut ratios: Vec<f64> = on.iter().zip(off).map(|(on, off)| on / off).collect();
    ratios.sort_unstable_by(f64::total_cmp);
    json!({
        "per_second_without": off,
        "per_second_with": on,
        "median_of_ratios": ratios.get(ratios.len() / 2).copied().map(rounded),
        "messages_of_traces": told,
    })
}

/// From starting the process until it says that it is ready.
fn cold_start(gateway: &mut Gateway) -> Value {
    eprintln!("cold starts");
    let starts = (0..STARTS).map(|_| {
        gateway.kill();
        let start = Instant::now();
        gateway.restart();
        start.elapsed()
    });
    median(starts.collect())
}

/// Buys `n` times, `concurrency` at a time, each a purchase of its own; the shape is that of the official client's.
fn buy(gateway: &Gateway, url: &str, n: u32, concurrency: u32) -> Value {
    static PURCHASES: AtomicU32 = AtomicU32::new(0);
    let left = AtomicU32::new(n);
    let taken = |left: &AtomicU32| left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
    let client = || {
        let agent = ureq::Agent::config_builder().http_status_as_error(false).proxy(None).build().new_agent();
        let (mut times, mut errors) = (Vec::new(), Vec::new());
        while taken(&left).is_ok() {
            let number = PURCHASES.fetch_add(1, Ordering::Relaxed);
            let order = json!({"url": format!("{url}?n={number}")}).to_string();
            let start = Instant::now();
            let answer = agent
                .post(format!("{}/v1/fetch", gateway.url))
                .header("authorization", &format!("Bearer {SCOUT_TOKEN}"))
                .header("content-type", "application/json")
                .send(order);
            match answer.map(|mut a| (a.status().as_u16(), a.body_mut().read_to_string())) {
                Ok((200, Ok(_))) => times.push(start.elapsed()),
                other => errors.push(format!("{other:?}")),
            }
        }
        (times, errors)
    };
    let start = Instant::now();
    let (mut times, mut errors) = (Vec::new(), Vec::new());
    thread::scope(|scope| {
        let clients: Vec<_> = (0..concurrency).map(|_| scope.spawn(client)).collect();
        for client in clients {
            let (one, wrong) = client.join().unwrap();
            times.extend(one);
            errors.extend(wrong);
        }
    });
    let seconds = start.elapsed().as_secs_f64();
    times.sort_unstable();
    let mut result = json!({
        "n": n,
        "concurrency": concurrency,
        "seconds": rounded(seconds),
        "per_second": rounded(f64::from(u32::try_from(times.len()).unwrap()) / seconds),
        "p50_ms": quantile(&times, 50),
        "p99_ms": quantile(&times, 99),
        "errors": errors.len(),
    });
    if let (Some(error), Some(result)) = (errors.into_iter().next(), result.as_object_mut()) {
        result.insert("first_error".to_owned(), error.into());
    }
    result
}

/// Saves new modules beside a running, idle gateway and waits each time for the first decision by the new one.
fn saved_to_decided(world: &LocalWorld) -> Value {
    eprintln!("saving modules");
    let modules = tempfile::tempdir().unwrap();
    let file = modules.path().join("p.wasm");
    let save = |number: u32| {
        let module = variant("vendor-allowlist", number);
        let next = file.with_extension("next");
        fs::write(&next, &module).unwrap();
        fs::rename(&next, &file).unwrap();
        sha256(&module)
    };
    save(0);
    let policy = Policy::new("p", file.to_str().unwrap()).setting("hosts", vec!["127.0.0.1:*"]);
    let gateway = Gateway::start(unlimited(world.config(&["honest"], [policy])));
    let url = world.world().seller("honest").unwrap().url("/quote");
    let (agent, mut asked) = (gateway.agent(), 0_u32);
    let times = (1..=SAVES).map(|number| {
        let start = Instant::now();
        let wanted = save(number);
        loop {
            asked += 1;
            let answer = agent.fetch(&format!("{url}?saved={asked}"), json!({}));
            let payment = answer.header("countersign-payment").expect("paid");
            let decided_by = agent.payment(payment).pointer("/decision/policies/0/module_sha256").cloned();
            if decided_by.as_ref().and_then(Value::as_str) == Some(&wanted) {
                return start.elapsed();
            }
            assert!(start.elapsed() < Duration::from_secs(60), "the module is not taken");
            thread::sleep(Duration::from_millis(10));
        }
    });
    median(times.collect())
}
