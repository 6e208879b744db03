//! `countersign policy replay|backtest|shadow`: decisions asked again, and policies tried on the side.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use countersign_core::id::{DecisionId, PaymentId};
use countersign_core::json::canonical;
use countersign_core::ledger::{Ledger, Past};
use countersign_core::seams::Clock;
use countersign_core::time::Timestamp;
use countersign_core::verdict::Unit;
use countersign_core::whatif::Sums;
use countersign_engine::PolicySpec;
use http::Method;
use serde_json::{Value, json};

use super::progress::Progress;
use super::source::{Source, settings};
use crate::builtin;
use crate::cli::admin::{Client, encode};
use crate::cli::listing::{column, print};
use crate::cli::{Failure, Listing, Outcome, Remote, inspect, say};
use crate::clock::SystemClock;
use crate::config::{Config, Environment, Module, PolicyConfig};
use crate::past::{self, Backtest, Candidate, Replay};
use crate::shadow::comparison;
use crate::{store, views};

/// `policy replay`
#[derive(Args)]
pub(in crate::cli) struct ReplayArgs {
    #[command(flatten)]
    listing: Listing,
    #[command(flatten)]
    which: Which,
}

#[derive(Args)]
#[group(required = true, multiple = false)]
struct Which {
    /// A decision (`dec_…`), or a payment (`pay_…`) with all its decisions.
    id: Option<String>,
    /// Everything decided in this time, such as 24h.
    #[arg(long)]
    since: Option<String>,
}

/// `policy backtest`
#[derive(Args)]
pub(in crate::cli) struct BacktestArgs {
    #[command(flatten)]
    listing: Listing,
    /// A module, builtin:NAME, or a countersign.toml whose policies and mandates are the candidate.
    candidate: String,
    /// How far back.
    #[arg(long, default_value = "30d")]
    since: String,
    /// The configured policy whose place a module takes.
    #[arg(long)]
    policy: Option<String>,
    /// A JSON file with the candidate's settings; those of the policy it replaces, if not given.
    #[arg(long)]
    settings: Option<PathBuf>,
}

/// `policy shadow`
#[derive(Args)]
pub(in crate::cli) struct ShadowArgs {
    #[command(flatten)]
    remote: Remote,
    /// The configured policy beside which the candidate judges.
    name: String,
    /// Start with this module, or builtin:NAME.
    #[arg(long)]
    module: Option<String>,
    /// A JSON file with its settings; those of the policy, if not given.
    #[arg(long, requires = "module")]
    settings: Option<PathBuf>,
    /// Let it serve in the policy's place, and end it.
    #[arg(long, conflicts_with_all = ["module", "drop"])]
    activate: bool,
    /// End it.
    #[arg(long, conflicts_with = "module")]
    drop: bool,
}

pub(super) async fn replay(args: &ReplayArgs) -> Outcome {
    let config = inspect(&args.listing.common)?;
    let which = match (&args.which.id, &args.which.since) {
        (Some(id), _) => named(id)?,
        (None, since) => Past::since(ago(since.as_deref().unwrap_or_default())?),
    };
    let ledger = store::open_read_only(&config)?;
    let engine = past::engine()?;
    let found = {
        let mut progress = Progress::new("replaying", ledger.past_count(which).await?);
        past::replay(&ledger, &engine, which, |n| progress.add(n)).await?
    };
    if let (0, Some(id)) = (found.decisions, &args.which.id) {
        return Err(Failure::new(format!("the ledger has no decision of {id}")));
    }
    if args.listing.json {
        say(format_args!("{:#}", serde_json::to_value(&found)?));
    } else {
        show_replay(&found);
    }
    if found.is_faithful() {
        return Ok(());
    }
    Err(Failure::new(format!("{} of {} decisions are not as recorded", found.mismatched, found.decisions))
        .hint("run `countersign ledger verify`: either the record was changed, or this engine judges differently"))
}

fn show_replay(found: &Replay) {
    say(format_args!("{} decisions, {} opinions judged again and equal", found.decisions, found.matched));
    for (why, skipped) in &found.not_replayable {
        let named: Vec<String> = skipped.decisions.iter().map(ToString::to_string).collect();
        say(format_args!("{} not replayable, {why}: {}", skipped.count, named.join(" ")));
    }
    for mismatch in &found.mismatches {
        let policy = mismatch.policy.as_deref().unwrap_or("the record");
        say(format_args!("{} of {}, {policy}:", mismatch.decision, mismatch.payment));
        for d in &mismatch.differs {
            let shown = |v: &Value| countersign_core::x402::text::clean(&v.to_string(), 400);
            say(format_args!("  {:<12} recorded {}", d.at, shown(&d.recorded)));
            say(format_args!("  {:<12} now      {}", "", shown(&d.replayed)));
        }
    }
}

fn named(id: &str) -> Result<Past, Failure> {
    let decision = id.parse::<DecisionId>().map(Past::One);
    decision
        .or_else(|_| id.parse::<PaymentId>().map(Past::Payment))
        .map_err(|_| Failure::new(format!("{id}: neither a decision (dec_…) nor a payment (pay_…)")))
}

/// The moment so long ago: a number and `s`, `m`, `h` or `d`.
fn ago(text: &str) -> Result<Timestamp, Failure> {
    let bad = || Failure::new(format!("--since {text}: not a span of time")).hint("such as 90m, 24h or 30d");
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(bad)?;
    let seconds: u64 = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err(bad()),
    };
    let number: u64 = number.parse().map_err(|_| bad())?;
    Ok(SystemClock.now()?.minus_millis(number.saturating_mul(seconds).saturating_mul(1_000)))
}

pub(super) async fn backtest(args: &BacktestArgs) -> Outcome {
    let config = inspect(&args.listing.common)?;
    let since = ago(&args.since)?;
    let candidate = candidate(args, &config)?;
    let ledger = store::open_read_only(&config)?;
    let from = past::warm_from(&ledger, &candidate, since).await?;
    let started = SystemClock.now()?;
    let found = {
        let mut progress = Progress::new("backtesting", ledger.past_count(Past::since(from)).await?);
        past::backtest(&ledger, &candidate, (from, since), |n| progress.add(n)).await?
    };
    let millis = SystemClock.now()?.since(started);
    let mut report = report(&found, &config);
    if let Some(map) = report.as_object_mut() {
        map.insert("since".into(), since.to_string().into());
        map.insert("warmed_from".into(), from.to_string().into());
        map.insert("millis".into(), millis.into());
    }
    if args.listing.json {
        say(format_args!("{report:#}"));
    } else {
        show_backtest(&report, &config.gateway.currency);
    }
    Ok(())
}

fn candidate(args: &BacktestArgs, config: &Config) -> Result<Candidate, Failure> {
    let engine = past::engine()?;
    if Path::new(&args.candidate).extension().is_some_and(|e| e == "toml") {
        if args.policy.is_some() || args.settings.is_some() {
            return Err(Failure::new("--policy and --settings go with a module, not with a configuration"));
        }
        let new = Config::inspect(Path::new(&args.candidate))?;
        let specs = new.policies.iter().map(|(n, p)| spec(n, p)).collect::<Result<Vec<_>, _>>()?;
        return Ok(Candidate::everything(&engine, specs, new.mandates)?);
    }
    let name = place(args, config)?;
    let Some(configured) = config.policies.get(&name) else {
        let known: Vec<&str> = config.policies.keys().map(String::as_str).collect();
        return Err(
            Failure::new(format!("there is no [policy.{name}]")).hint(format!("there are {}", known.join(", ")))
        );
    };
    let settings = match &args.settings {
        Some(path) => canonical(&settings(path)?),
        None => configured.settings.clone(),
    };
    let module = Source::find(&args.candidate, None)?.module;
    let spec = PolicySpec { settings, claims: configured.claims, ..PolicySpec::new(name, module) };
    Ok(Candidate::policy(&engine, spec)?)
}

/// Whose place a module takes: the one named, or the one that has this builtin, or the only one.
fn place(args: &BacktestArgs, config: &Config) -> Result<String, Failure> {
    if let Some(name) = &args.policy {
        return Ok(name.clone());
    }
    let builtin = args.candidate.strip_prefix("builtin:");
    let same = |p: &PolicyConfig| matches!(&p.module, Module::Builtin(b) if builtin == Some(b.as_str()));
    let mut fits: Vec<&String> = config.policies.iter().filter(|(_, p)| same(p)).map(|(n, _)| n).collect();
    if fits.is_empty() {
        fits = config.policies.keys().collect();
    }
    match fits.as_slice() {
        [only] => Ok((*only).clone()),
        several => {
            let names: Vec<&str> = several.iter().map(|n| n.as_str()).collect();
            Err(Failure::new("whose place does it take?").hint(format!("--policy with one of {}", names.join(", "))))
        }
    }
}

fn spec(name: &str, policy: &PolicyConfig) -> Result<PolicySpec, Failure> {
    let module: Arc<[u8]> = match &policy.module {
        Module::Builtin(builtin) => {
            builtin::module(builtin).ok_or_else(|| Failure::new(format!("there is no builtin `{builtin}`")))?.into()
        }
        Module::File(path) => std::fs::read(path).map_err(|e| Failure::new(format!("{}: {e}", path.display())))?.into(),
        Module::Kept(digest) => return Err(Failure::new(format!("module {digest} is in a ledger, not in a file"))),
    };
    Ok(PolicySpec {
        sha256_pin: policy.sha256.clone(),
        mode: policy.mode,
        claims: policy.claims,
        settings: policy.settings.clone(),
        ..PolicySpec::new(name, module)
    })
}

fn report(found: &Backtest, config: &Config) -> Value {
    let money = |micros: u64| views::amount(micros, Unit::Micros);
    let sums = |sums: &Sums| -> Vec<Value> {
        sums.iter().map(|(n, s)| json!({"name": n, "count": s.count, "amount": money(s.value)})).collect()
    };
    let lost: Vec<Value> = found
        .lost_list
        .iter()
        .map(|l| json!({"payment": l.payment, "agent": l.agent, "host": l.host, "amount": l.value.to_string(), "to": l.to}))
        .collect();
    let mut report = comparison(&found.seen);
    if let Some(map) = report.as_object_mut() {
        map.insert("currency".into(), config.gateway.currency.clone().into());
        map.insert("not_concerned".into(), found.not_concerned.into());
        map.insert("warmed".into(), found.warmed.into());
        map.insert("by_agent".into(), sums(&found.by_agent).into());
        map.insert("by_vendor".into(), sums(&found.by_vendor).into());
        let all = json!({"count": found.lost.count, "amount": money(found.lost.value), "items": lost});
        map.insert("useful_lost".into(), all);
        map.insert("forgotten_windows".into(), found.forgotten.into());
    }
    report
}

fn show_backtest(report: &Value, currency: &str) {
    let text = |pointer: &str| {
        report.pointer(pointer).map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned)).unwrap_or_default()
    };
    say(format_args!(
        "{} decisions since {}, {} not concerned; counters warmed with {} from {}",
        text("/decisions"),
        text("/since"),
        text("/not_concerned"),
        text("/warmed"),
        text("/warmed_from")
    ));
    say(format_args!(
        "{} would come out differently, {} {currency}; {} because a budget had no room",
        text("/disagreements"),
        text("/amount"),
        text("/would_refuse")
    ));
    say(format_args!(
        "{} useful purchases lost, {} {currency}\n",
        text("/useful_lost/count"),
        text("/useful_lost/amount")
    ));
    let (count, amount) = (column("COUNT", "/count"), column("AMOUNT", "/amount"));
    let flips = report.get("flips").and_then(Value::as_array).cloned().unwrap_or_default();
    let rows = flips.into_iter().flat_map(|flip| {
        let codes = flip.get("codes").and_then(Value::as_array).cloned().unwrap_or_default();
        std::iter::once(flip).chain(codes)
    });
    let items: Vec<Value> = rows.collect();
    print(
        false,
        &json!({"items": items}),
        &[column("WAS", "/from"), column("WOULD BE", "/to"), column("CODE", "/code"), count, amount],
    );
    for (head, at) in [("AGENT", "/by_agent"), ("VENDOR", "/by_vendor")] {
        say("");
        let items = report.pointer(at).cloned().unwrap_or_default();
        let columns = [column(head, "/name"), column("COUNT", "/count"), column("AMOUNT", "/amount")];
        print(false, &json!({"items": items}), &columns);
    }
    say("");
    let items = report.pointer("/useful_lost/items").cloned().unwrap_or_default();
    let columns = [
        column("USEFUL, LOST", "/payment"),
        column("AGENT", "/agent"),
        column("SELLER", "/host"),
        column("AMOUNT", "/amount"),
        column("WOULD BE", "/to"),
    ];
    print(false, &json!({"items": items}), &columns);
}

pub(super) async fn shadow(args: &ShadowArgs, environment: &Environment) -> Outcome {
    let client = Client::new(&args.remote, environment)?;
    let path = format!("/v1/policies/{}/shadow", encode(&args.name));
    let answer = match &args.module {
        Some(module) => {
            let settings = args.settings.as_deref().map(settings).transpose()?;
            let module = STANDARD.encode(Source::find(module, None)?.module);
            client.must(Method::POST, &path, Some(json!({"module_base64": module, "settings": settings}))).await?
        }
        None if args.activate => client.must(Method::POST, &format!("{path}/activate"), None).await?,
        None if args.drop => client.must(Method::DELETE, &path, None).await?,
        None => client.must(Method::GET, &path, None).await?,
    };
    say(format_args!("{answer:#}"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_ids_are_read_strictly() {
        assert!(ago("24h").is_ok_and(|at| at < SystemClock.now().unwrap()));
        for bad in ["", "h", "24", "-1h", "1w", "ä"] {
            assert!(ago(bad).is_err(), "{bad}");
        }
        let decision = DecisionId::new(Timestamp::from_secs(1), [0; 10]);
        assert!(matches!(named(&decision.to_string()), Ok(Past::One(id)) if id == decision));
        assert!(named("ses_00").is_err());
    }
}
