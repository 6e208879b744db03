//! What one decision of a policy costs: `cargo run --release --example cost -- MODULE.wasm [SETTINGS.json]`.
//!
//! Prints the outcome, fuel and percentiles of whole decisions, by one policy and by three: of fresh
//! instances, configured and asked, on one thread and on every core.

use std::error::Error;
use std::time::{Duration, Instant};

use countersign_core::id::{DecisionId, PurchaseId};
use countersign_core::money::{Atomic, Micros};
use countersign_core::seams::Judge;
use countersign_core::spend::{Commitment, History, Payment, Principal, Purchase, Seller, SpendRequest};
use countersign_core::time::Timestamp;
use countersign_engine::{Engine, EngineConfig, PolicySet, PolicySpec};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let path = args.next().ok_or("usage: cost MODULE.wasm [SETTINGS.json]")?;
    let settings = args.next().map_or_else(|| Ok("{}".to_owned()), std::fs::read_to_string)?;
    let engine = Engine::new(EngineConfig::default())?;
    let module = std::fs::read(path)?;
    let spec = |name: &str| PolicySpec { settings: settings.clone(), ..PolicySpec::new(name, module.clone()) };
    let names = ["one", "two", "three"].map(str::to_owned);
    let specs: Vec<_> = names.iter().map(|name| spec(name)).collect();
    let began = now();
    let set = engine.stage(1, &specs)?;
    println!("staged in {:?}", began.elapsed());
    let began = now();
    engine.stage(2, &specs)?;
    println!("staged again in {:?}", began.elapsed());

    let request = request()?;
    for opinion in set.judge(names.get(..1).unwrap_or_default(), &request).opinions {
        println!("{:?}\nfuel {}", opinion.outcome, opinion.fuel);
    }
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    for policies in [1, 3] {
        for threads in [1, cores] {
            let names = names.get(..policies).unwrap_or_default();
            let mut took = run(&set, names, &request, threads);
            took.sort_unstable();
            let at = |percent: usize| took.get(took.len() * percent / 100).copied().unwrap_or_default().as_micros();
            let (rate, p50, p99) = (took.len() / SECONDS, at(50), at(99));
            println!("{policies} policies, {threads} threads: {rate} decisions/s, p50 {p50} us, p99 {p99} us");
        }
    }
    Ok(())
}

/// How long each row is measured.
const SECONDS: usize = 2;

/// What each decision took.
fn run(set: &PolicySet, names: &[String], request: &SpendRequest, threads: usize) -> Vec<Duration> {
    let began = now();
    let one = || {
        let mut took = Vec::new();
        while began.elapsed() < Duration::from_secs(SECONDS as u64) {
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
