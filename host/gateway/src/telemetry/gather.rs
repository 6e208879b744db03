//! Every metric of a running gateway at one moment.

use countersign_core::histogram::Histogram;
use countersign_core::ledger::Figures;
use countersign_core::payment::State;
use countersign_core::seams::Judge;
use countersign_core::time::Timestamp;
use countersign_engine::PolicyState;

use super::catalog::{self, Family, Sample, Value};
use super::process::{self, float};
use crate::state::Gateway;

/// How long the ledger's figures are told before it is asked again, in milliseconds.
const FIGURES_MS: u64 = 5_000;

/// What histograms are told at, as powers of two of microseconds (or of jobs).
const DECISION: std::ops::RangeInclusive<u32> = 4..=20;
const PURCHASE: std::ops::RangeInclusive<u32> = 8..=26;
const STEP: std::ops::RangeInclusive<u32> = 4..=26;
const COMMIT: std::ops::RangeInclusive<u32> = 6..=24;
const JOBS: std::ops::RangeInclusive<u32> = 4..=8;
const MICRO: f64 = 1e-6;

/// The ledger's figures as last read.
pub type Known = tokio::sync::Mutex<Option<(Timestamp, Figures)>>;

/// Everything, in the order of the catalog.
pub async fn gather(gateway: &Gateway) -> Vec<Family> {
    let mut families = own(gateway);
    families.extend(open(gateway).await);
    families.extend(chains(gateway));
    families.extend(process());
    let place = |f: &Family| catalog::ALL.iter().position(|m| *m == f.metric);
    families.sort_by_key(place);
    families
}

fn own(gateway: &Gateway) -> Vec<Family> {
    let metrics = &gateway.telemetry.metrics;
    let live = gateway.live.load_full();
    let count = |n: usize| float(u64::try_from(n).unwrap_or(u64::MAX));
    let places = usize::try_from(live.config.engine.instances).unwrap_or(usize::MAX);
    let judging = places.saturating_sub(gateway.judging.available_permits());
    let (reloads, refused) = metrics.reloads();
    let mut families = vec![
        Family::new(&catalog::BUILD, [Sample::new([env!("CARGO_PKG_VERSION")], 1.0)]),
        Family::one(&catalog::GENERATION, float(live.generation)),
        Family::new(
            &catalog::PURCHASES,
            metrics.purchases().map(|(door, ended, n)| Sample::new([door, ended], float(n))),
        ),
        Family::new(
            &catalog::PURCHASE_SECONDS,
            metrics.took().map(|(ended, h)| histogram(&[ended], h, PURCHASE, MICRO)),
        ),
        Family::new(&catalog::STEP_SECONDS, metrics.steps().map(|(step, h)| histogram(&[step], h, STEP, MICRO))),
        // Most codes never occur at most doors.
        Family::new(
            &catalog::REFUSALS,
            metrics.refusals().filter(|(.., n)| *n > 0).map(|(door, code, n)| Sample::new([door, code], float(n))),
        ),
        Family::one(&catalog::RUNNING, count(gateway.flights.count())),
        Family::one(&catalog::JUDGING, count(judging)),
        Family::new(&catalog::RELOADS, reloads.map(|(result, n)| Sample::new([result], float(n)))),
        Family::one(&catalog::RELOAD_OK, if refused { 0.0 } else { 1.0 }),
        Family::new(&catalog::COMMIT_SECONDS, [histogram(&[], &gateway.work.commits, COMMIT, MICRO)]),
        Family::new(&catalog::BATCH, [histogram(&[], &gateway.work.batches, JOBS, 1.0)]),
        Family::one(&catalog::QUEUE, float(gateway.work.waiting())),
        Family::one(&catalog::PROXIED, float(gateway.tunnels.count())),
        Family::one(&catalog::SHADOWS_DROPPED, float(gateway.shadows.dropped())),
        Family::new(&catalog::ALERTS, metrics.alerts().map(|(result, n)| Sample::new([result], float(n)))),
        Family::new(
            &catalog::EXPORTED,
            metrics.exports().map(|(signal, result, n)| Sample::new([signal, result], float(n))),
        ),
        Family::one(&catalog::SPANS_DROPPED, float(metrics.dropped_traces())),
    ];
    families.extend(policies(&live));
    families
}

/// Of the policies that serve, and of no others: a generation that is gone takes its labels with it.
fn policies(live: &crate::state::Snapshot) -> [Family; 4] {
    let generation = live.policies.generation().to_string();
    let generation = generation.as_str();
    let stats = || live.policies.stats();
    let status = live.policies.status();
    [
        Family::new(
            &catalog::DECISION_SECONDS,
            stats().map(|(policy, s)| histogram(&[policy, generation], &s.took, DECISION, MICRO)),
        ),
        Family::new(
            &catalog::DECISIONS,
            stats().flat_map(|(policy, s)| {
                let answers = s.answers().filter(|(_, n)| *n > 0);
                answers.map(move |(answer, n)| Sample::new([policy, generation, answer], float(n)))
            }),
        ),
        Family::new(
            &catalog::POLICY_VALID,
            status
                .iter()
                .map(|p| Sample::new([&p.name, generation], if p.state == PolicyState::Active { 1.0 } else { 0.0 })),
        ),
        Family::new(
            &catalog::READY,
            status
                .iter()
                .map(|p| Sample::new([&p.name, generation], float(u64::try_from(p.ready).unwrap_or(u64::MAX)))),
        ),
    ]
}

/// What the ledger counts, or that it cannot be asked.
async fn open(gateway: &Gateway) -> Vec<Family> {
    let Some(figures) = figures(gateway).await else { return vec![Family::one(&catalog::LEDGER_UP, 0.0)] };
    let mut states: Vec<(&str, u64, u64)> = Vec::new();
    for state in State::ALL {
        let Some((_, count, value)) = figures.open.iter().find(|(s, ..)| *s == state) else { continue };
        match states.iter_mut().find(|(name, ..)| *name == state.public()) {
            // Two states are `unknown` to the API.
            Some((_, c, v)) => (*c, *v) = (c.saturating_add(*count), v.saturating_add(value.get())),
            None => states.push((state.public(), *count, value.get())),
        }
    }
    vec![
        Family::one(&catalog::LEDGER_UP, 1.0),
        Family::new(&catalog::OPEN, states.iter().map(|(name, count, _)| Sample::new([name], float(*count)))),
        Family::new(&catalog::HELD, states.iter().map(|(name, _, micros)| Sample::new([name], float(*micros) / 1e6))),
        Family::one(&catalog::APPROVALS, float(figures.approvals)),
        Family::one(&catalog::SESSIONS, float(figures.sessions)),
        Family::one(&catalog::ALERTS_WAITING, float(figures.alerts)),
    ]
}

/// Asked at most every few seconds, however many ask.
async fn figures(gateway: &Gateway) -> Option<Figures> {
    let now = gateway.clock.now().ok()?;
    let mut known = gateway.telemetry.figures.lock().await;
    if let Some((at, figures)) = &*known
        && now.since(*at) < FIGURES_MS
        && *at <= now
    {
        return Some(figures.clone());
    }
    match gateway.ledger.figures(now).await {
        Ok(figures) => {
            *known = Some((now, figures.clone()));
            Some(figures)
        }
        Err(error) => {
            tracing::warn!(%error, "the ledger's figures cannot be read");
            *known = None;
            None
        }
    }
}

fn chains(gateway: &Gateway) -> [Family; 3] {
    let now = gateway.clock.now().unwrap_or_default();
    let seen: Vec<_> = gateway.chains.all().iter().map(|chain| chain.seen()).collect();
    let last = || seen.iter().filter_map(|seen| Some((seen.network.as_str(), seen.last?)));
    [
        Family::new(&catalog::CHAIN_BLOCK, last().map(|(network, (block, _))| Sample::new([network], float(block)))),
        Family::new(
            &catalog::CHAIN_AGE,
            last().map(|(network, (_, time))| {
                let age = now.since(Timestamp::from_secs(time));
                Sample::new([network], float(age) / 1_000.0)
            }),
        ),
        Family::new(
            &catalog::CHAIN_FAILURES,
            seen.iter().map(|seen| Sample::new([seen.network.as_str()], float(seen.failures))),
        ),
    ]
}

fn process() -> Vec<Family> {
    let process = process::read();
    let whole = |n: Option<u64>| n.map(float);
    [
        (&catalog::CPU, process.cpu_seconds),
        (&catalog::MEMORY, whole(process.memory)),
        (&catalog::FDS, whole(process.fds)),
        (&catalog::MAX_FDS, whole(process.max_fds)),
        (&catalog::STARTED, process.started),
    ]
    .into_iter()
    .filter_map(|(metric, value)| Some(Family::one(metric, value?)))
    .collect()
}

fn histogram(labels: &[&str], of: &Histogram, powers: std::ops::RangeInclusive<u32>, scale: f64) -> Sample {
    let limits: Vec<u64> = powers.map(|power| 1_u64.checked_shl(power).unwrap_or(u64::MAX)).collect();
    let tally = of.tally(&limits);
    // In the unit's own decimals: 16 microseconds are 0.000016 and not 0.000016000000000000001.
    let scaled = |n: u64| if scale < 1.0 { float(n) / 1e6 } else { float(n) };
    let value = Value::Histogram {
        bounds: limits.into_iter().map(scaled).collect(),
        below: tally.below,
        count: tally.count,
        sum: scaled(tally.sum),
    };
    Sample { labels: labels.iter().map(|label| (*label).to_owned()).collect(), value }
}
