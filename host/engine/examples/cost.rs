//! What one decision of a policy costs: `cargo run --release --example cost -- MODULE.wasm [SETTINGS.json]`.
//!
//! Prints the outcome, fuel and percentiles of a fresh instance, configured and asked, on one thread
//! and on every core.

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
    let spec = PolicySpec { settings, ..PolicySpec::new("policy", std::fs::read(path)?) };
    let began = now();
    let set = engine.stage(1, std::slice::from_ref(&spec))?;
    println!("staged in {:?}", began.elapsed());
    let began = now();
    engine.stage(2, &[spec])?;
    println!("staged again in {:?}", began.elapsed());

    let names = ["policy".to_owned()];
    let request = request()?;
    for opinion in set.judge(&names, &request).opinions {
        println!("{:?}\nfuel {}", opinion.outcome, opinion.fuel);
    }
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    for threads in [1, cores] {
        let rate = run(&set, &names, &request, threads);
        let status = set.status();
        let Some(status) = status.first() else { continue };
        println!("{threads} thread(s): {rate:.0} decisions/s, p50 {} us, p99 {} us", status.p50_us, status.p99_us);
    }
    Ok(())
}

/// Decisions per second over two seconds.
fn run(set: &PolicySet, names: &[String], request: &SpendRequest, threads: usize) -> f64 {
    let began = now();
    let one = || {
        let mut done = 0_u32;
        while began.elapsed() < Duration::from_secs(2) {
            set.judge(names, request);
            done += 1;
        }
        f64::from(done)
    };
    let total: f64 = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(one)).collect();
        workers.into_iter().filter_map(|w| w.join().ok()).sum()
    });
    total / began.elapsed().as_secs_f64()
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
