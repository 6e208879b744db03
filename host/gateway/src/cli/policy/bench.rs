//! What a policy's decisions cost.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use countersign_core::seams::Judge;
use countersign_core::spend::SpendRequest;
use countersign_engine::cases::request;
use countersign_engine::{Engine, EngineConfig, PolicySet, PolicySpec, Start};
use serde_json::{Value, json};

use super::source::{self, Source};
use crate::cli::{Failure, Outcome, say};

/// The name it is staged under.
const NAME: &str = "candidate";
/// At least this many decisions, however long they take.
const LEAST: usize = 50;
const MOST_SECONDS: f64 = 600.0;

/// What a policy's decisions cost.
#[derive(Args)]
pub(in crate::cli) struct Bench {
    /// A module, a policy's folder, or builtin:NAME.
    path: String,
    /// The file of cases whose requests are asked, if it is not beside the module.
    #[arg(long)]
    cases: Option<PathBuf>,
    /// The settings to run under, JSON or TOML; those of the cases if not given.
    #[arg(long)]
    settings: Option<PathBuf>,
    /// How long to measure.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// What a run of decisions took, in microseconds.
struct Measured {
    p50: f64,
    p99: f64,
    per_second: f64,
    decisions: usize,
    /// The most instructions that one of them used.
    fuel: u64,
}

pub(super) fn run(args: &Bench) -> Outcome {
    if !(args.seconds > 0.0 && args.seconds <= MOST_SECONDS) {
        return Err(Failure::new(format!("--seconds {} is not above 0 and up to {MOST_SECONDS}", args.seconds)));
    }
    let given = args.settings.as_deref().map(source::settings).transpose()?;
    let source = Source::find(&args.path, args.cases.as_deref())?;
    let (settings, requests) = questions(&source, given)?;
    let engine = Engine::new(EngineConfig::default())?;
    let spec = |start| PolicySpec { name: NAME.to_owned(), start, claims: true, ..source.spec(&settings) };
    let began = now();
    let ready = engine.stage(0, &[spec(Start::Ready)])?;
    let staging = micros(began.elapsed());
    let plain = engine.stage(0, &[spec(Start::Plain)])?;
    let half = Duration::from_secs_f64(args.seconds / 2.0);
    let served = measure(&ready, &requests, half);
    let replayed = measure(&plain, &requests, half);
    let start_up = (replayed.p50 - served.p50).max(0.0);
    let limit = engine.config().fuel;
    let memory = [&ready, &plain].into_iter().flat_map(PolicySet::stats).map(|(_, stats)| stats.memory()).max();
    let (memory, memory_limit) = (memory.unwrap_or(0), engine.config().memory_limit as u64);
    if args.json {
        let report = json!({
            "policy": source.name, "settings": settings, "size": source.module.len(), "requests": requests.len(),
            "staging_us": staging, "start_up_us": start_up, "served": served.json(), "replayed": replayed.json(),
            "fuel": served.fuel, "fuel_limit": limit, "memory_bytes": memory, "memory_limit_bytes": memory_limit,
        });
        say(format_args!("{report:#}"));
        return Ok(());
    }
    say(format_args!(
        "{}: {} bytes, {} requests, settings {settings}",
        source.name,
        source.module.len(),
        requests.len()
    ));
    say(format_args!("loading               {:>10.1} ms", staging / 1_000.0));
    say(format_args!("a decision            {:>10.1} us p50 {:>10.1} us p99", served.p50, served.p99));
    say(format_args!("  with its start-up   {:>10.1} us p50 {:>10.1} us p99", replayed.p50, replayed.p99));
    say(format_args!(
        "decisions             {:>10.0} /s on one thread, {} measured",
        served.per_second, served.decisions
    ));
    let percent = |used: u64, limit: u64| used.saturating_mul(100).checked_div(limit).unwrap_or(100);
    say(format_args!(
        "instructions          {:>10} at most, {} % of the limit",
        served.fuel,
        percent(served.fuel, limit)
    ));
    say(format_args!(
        "memory                {:>10} KiB at most, {} % of the limit",
        memory.div_ceil(1_024),
        percent(memory, memory_limit)
    ));
    Ok(())
}

/// The settings to run under, and what is asked under them: the cases' requests, else the ordinary one.
fn questions(source: &Source, given: Option<Value>) -> Result<(Value, Vec<SpendRequest>), Failure> {
    let ordinary = || request(&json!({})).map(|request| vec![request]).map_err(Failure::new);
    let Some((_, cases)) = &source.cases else { return Ok((given.unwrap_or_else(|| json!({})), ordinary()?)) };
    let asked = cases.questions(given.as_ref());
    // Under the settings most of them share, unless somebody says which.
    let most = |settings: &Value| asked.iter().filter(|question| question.settings == *settings).count();
    let settings = given.or_else(|| asked.iter().map(|q| &q.settings).max_by_key(|s| most(s)).cloned());
    let settings = settings.unwrap_or_else(|| cases.settings(None));
    let same = asked.iter().filter(|question| question.settings == settings);
    let requests: Vec<SpendRequest> =
        same.map(|question| request(&question.request)).collect::<Result<_, _>>().map_err(Failure::new)?;
    Ok((settings, if requests.is_empty() { ordinary()? } else { requests }))
}

/// Asks the requests in turn, each of a fresh instance, for as long as it is told to.
fn measure(set: &PolicySet, requests: &[SpendRequest], time: Duration) -> Measured {
    let names = [NAME.to_owned()];
    let mut took: Vec<Duration> = Vec::new();
    let mut fuel = 0;
    let began = now();
    for request in requests.iter().cycle() {
        let start = now();
        let judgement = set.judge(&names, request);
        took.push(start.elapsed());
        fuel = judgement.opinions.iter().map(|opinion| opinion.fuel).max().unwrap_or(0).max(fuel);
        if took.len() >= LEAST && began.elapsed() >= time {
            break;
        }
    }
    let whole = began.elapsed().as_secs_f64().max(f64::EPSILON);
    took.sort_unstable();
    let at = |percent: usize| micros(took.get(took.len().saturating_mul(percent) / 100).copied().unwrap_or_default());
    let decisions = took.len();
    let count = u32::try_from(decisions).map_or(f64::from(u32::MAX), f64::from);
    Measured { p50: at(50), p99: at(99), per_second: count / whole, decisions, fuel }
}

impl Measured {
    fn json(&self) -> Value {
        json!({
            "p50_us": self.p50, "p99_us": self.p99, "decisions_per_second": self.per_second, "decisions": self.decisions,
        })
    }
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000_000.0
}

#[expect(clippy::disallowed_methods, reason = "this command exists to measure time")]
fn now() -> Instant {
    Instant::now()
}
