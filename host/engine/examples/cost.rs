//! What decisions cost: `cargo run --release --example cost -- MODULE.wasm [SETTINGS.json] [SECONDS]`.
//!
//! Chains of 1, 3 and 10 policies of one module, on one thread and on two, started three ways: ready-made
//! instances (as a gateway does), restored from the snapshot for each decision, and configured for each
//! decision. *Paced* is ready with a pause before each decision, in which the next instances can be made: what a
//! purchase waits for. All others ask without a pause, which nothing made ahead of time keeps up with. Percentiles are of whole judgements on the asking thread; CPU is of the whole process, so
//! it counts what other threads do ahead of time.

use std::error::Error;
use std::time::{Duration, Instant};

use countersign_core::id::{DecisionId, PurchaseId};
use countersign_core::money::{Atomic, Micros};
use countersign_core::seams::Judge;
use countersign_core::spend::{Commitment, History, Payment, Principal, Purchase, Seller, SpendRequest};
use countersign_core::time::Timestamp;
use countersign_engine::{Engine, EngineConfig, PolicySet, PolicySpec, Start};

/// The pause for each policy before a paced decision. The thread does not sleep in it, as one that serves does not.
const PAUSE: Duration = Duration::from_micros(100);

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let path = args.next().ok_or("usage: cost MODULE.wasm [SETTINGS.json] [SECONDS]")?;
    let settings = args.next().map_or_else(|| Ok("{}".to_owned()), std::fs::read_to_string)?;
    let row = Duration::from_secs_f64(args.next().map_or(Ok(2.0), |seconds| seconds.parse())?);
    let module = std::fs::read(path)?;
    let request = request()?;
    println!("start      policies threads  decisions/s  fastest us   p50 us   p99 us  CPU us/decision");
    let ways = [
        ("paced", EngineConfig::default(), Start::Ready),
        ("ready", EngineConfig::default(), Start::Ready),
        ("restored", EngineConfig { ready: 0, ..EngineConfig::default() }, Start::Ready),
        ("configured", EngineConfig::default(), Start::Plain),
    ];
    for (way, config, start) in ways {
        let engine = Engine::new(config)?;
        let names: Vec<String> = (0..10).map(|n| format!("p{n}")).collect();
        let spec = |name: &String| PolicySpec {
            settings: settings.clone(),
            start,
            ..PolicySpec::new(name.as_str(), module.clone())
        };
        let specs: Vec<_> = names.iter().map(spec).collect();
        let began = now();
        let set = engine.stage(1, &specs)?;
        let staged = began.elapsed();
        engine.settle();
        let status = set.status();
        let from = status.first().and_then(|s| s.started_from.clone());
        let opinions = set.judge(names.get(..1).unwrap_or_default(), &request).opinions;
        let opinion = opinions.first().ok_or("no opinion")?;
        let said = opinion.outcome.as_ref().map(|d| d.verdict.to_string());
        println!(
            "{way}: staged in {staged:?}, settled in {:?}, from {from:?}; {said:?}, fuel {}",
            began.elapsed(),
            opinion.fuel
        );
        for policies in [1, 3, 10] {
            for threads in if way == "paced" { 1..=1 } else { 1..=2 } {
                let before = cpu()?;
                let pause = if way == "paced" { PAUSE * u32::try_from(policies)? } else { Duration::ZERO };
                let chain = names.get(..policies).unwrap_or_default();
                let mut took = run(&set, chain, &request, threads, (row, pause));
                let spent = cpu()?.saturating_sub(before);
                took.sort_unstable();
                let at = |percent: usize| {
                    took.get(took.len() * percent / 100).copied().unwrap_or_default().as_nanos() as f64 / 1e3
                };
                let (rate, each) =
                    (took.len() as f64 / row.as_secs_f64(), spent.as_secs_f64() * 1e6 / took.len() as f64);
                println!(
                    "{way:10} {policies:8} {threads:7} {rate:12.0} {:11.1} {:8.1} {:8.1} {each:8.1}",
                    at(0),
                    at(50),
                    at(99)
                );
            }
        }
    }
    Ok(())
}

/// What each judgement took.
fn run(
    set: &PolicySet,
    names: &[String],
    request: &SpendRequest,
    threads: usize,
    (row, pause): (Duration, Duration),
) -> Vec<Duration> {
    let began = now();
    let one = || {
        let mut took = Vec::new();
        while began.elapsed() < row {
            let due = now() + pause;
            while now() < due {
                std::hint::spin_loop();
            }
            let start = now();
            set.judge(names, request);
            took.push(start.elapsed());
        }
        took
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(one)).collect();
        workers.into_iter().filter_map(|w| w.join().ok()).flatten().collect()
    })
}

/// CPU time of this process, to a hundredth of a second.
fn cpu() -> Result<Duration, Box<dyn Error>> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let after = stat.rsplit_once(')').ok_or("/proc/self/stat")?.1;
    let ticks: u64 = after.split_whitespace().skip(11).take(2).filter_map(|n| n.parse::<u64>().ok()).sum();
    Ok(Duration::from_millis(ticks * 10))
}

#[expect(clippy::disallowed_methods, reason = "this program exists to measure time")]
fn now() -> Instant {
    Instant::now()
}

fn request() -> Result<SpendRequest, Box<dyn Error>> {
    let some = |text: &str| Some(text.to_owned());
    Ok(SpendRequest {
        id: DecisionId::new(Timestamp::from_secs(1), [1; 10]),
        purchase_id: PurchaseId::parse("T-42")?,
        at: Timestamp::from_millis(1_795_346_471_005),
        principal: Principal {
            agent: "scout".into(),
            workspace: some("research"),
            roles: vec!["analyst".into()],
            session: some("ses_1"),
            client: some("acme"),
            ..Principal::default()
        },
        purchase: Purchase {
            method: "GET".into(),
            url: "https://api.example.com/quote".into(),
            host: "api.example.com".into(),
            path: "/quote".into(),
            query_digest: None,
            body_digest: None,
            observed: true,
            description: some("a quote"),
            media_type: some("application/json"),
            category: None,
        },
        seller: Seller {
            host: "api.example.com".into(),
            pay_to: "0x209693Bc6afc0C5328bA36FaF03C514EF312287C".into(),
            ..Seller::default()
        },
        payment: Payment {
            rail: "x402".into(),
            scheme: "exact".into(),
            commitment: Commitment::Fixed,
            network: "eip155:84532".into(),
            asset: "0x036CbD53842c5426634e7929541eC2318f3dCF7e".into(),
            asset_symbol: "USDC".into(),
            asset_decimals: 6,
            amount: Atomic::new(10_000),
            value: Micros::new(10_000)?,
            valid_for_seconds: 300,
            wallet: "research".into(),
        },
        history: History::default(),
        claims: Vec::new(),
        facts: Vec::new(),
    })
}
