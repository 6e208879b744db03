//! Running a policy's cases.

use std::path::PathBuf;

use clap::Args;
use countersign_engine::cases::{Cases, Failure as CaseFailure, Kind, Outcome as CaseOutcome, Report};
use countersign_engine::{Engine, EngineConfig};
use serde_json::{Value, json};

use super::source::{self, Source};
use crate::cli::{Failure, Outcome, say};

/// Run a policy's cases.
#[derive(Args)]
pub(in crate::cli) struct Test {
    /// A module, a policy's folder, or builtin:NAME.
    path: String,
    /// The file of cases, if it is not beside the module.
    #[arg(long)]
    cases: Option<PathBuf>,
    /// Settings for cases that name none, JSON or TOML: as a gateway would with its configured ones.
    #[arg(long)]
    settings: Option<PathBuf>,
    /// Print how often each reason code was given.
    #[arg(long)]
    coverage: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Test) -> Outcome {
    let given = args.settings.as_deref().map(source::settings).transpose()?;
    let source = Source::find(&args.path, args.cases.as_deref())?;
    let (from, cases) = source.cases.as_ref().ok_or_else(|| none(&source))?;
    let engine = Engine::new(EngineConfig::default())?;
    // What cannot be loaded at all is one mistake, not one in each case.
    engine.inspect(&source.module)?;
    let report = match &given {
        Some(settings) => cases.run(&engine, &source.spec(settings)),
        None => Cases::run_alone(cases, &engine, &source.spec(&json!({}))),
    };
    let failed = report.failures().count();
    if args.json {
        say(format_args!("{:#}", as_json(&source.name, from, &report)));
    } else {
        print(&source.name, from, &report, args.coverage);
    }
    if report.passed() {
        return Ok(());
    }
    let mut what = Vec::new();
    if failed > 0 {
        what.push(format!("{failed} of {} cases failed", report.outcomes.len()));
    }
    if !report.missing.is_empty() {
        what.push(format!("no case gives {}", report.missing.join(", ")));
    }
    if !report.unlisted.is_empty() {
        what.push(format!("`codes` does not list {}", report.unlisted.join(", ")));
    }
    Err(Failure::new(what.join("; ")))
}

fn none(source: &Source) -> Failure {
    let looked: Vec<String> = source.looked.iter().map(|path| path.display().to_string()).collect();
    Failure::new(format!("there are no cases for {}", source.name))
        .hint(format!("name the file with --cases FILE, or write one of {}", looked.join(", ")))
}

fn print(name: &str, from: &str, report: &Report, coverage: bool) {
    let count = report.outcomes.len();
    say(format_args!("running {count} {} of {name} ({from})", if count == 1 { "case" } else { "cases" }));
    for outcome in &report.outcomes {
        let asked = match outcome.kind {
            Kind::Case => String::new(),
            Kind::Property => format!(" ({} requests)", outcome.requests),
        };
        let result = if outcome.failure.is_none() { "ok" } else { "FAILED" };
        say(format_args!("test {} ... {result}{asked}", outcome.name));
        if let Some(failure) = &outcome.failure {
            explain(outcome.kind, failure);
        }
    }
    if coverage {
        say("\ncodes given");
        report.codes.iter().for_each(|(code, count)| say(format_args!("{count:>6}  {code}")));
    }
    let failed = report.failures().count();
    let result = if report.passed() { "ok" } else { "FAILED" };
    say(format_args!("\ntest result: {result}. {} passed; {failed} failed", count.saturating_sub(failed)));
}

fn explain(kind: Kind, failure: &CaseFailure) {
    let asked = match kind {
        Kind::Case => "request ",
        Kind::Property => "smallest request that breaks it ",
    };
    say(format_args!("    {asked} {}", failure.request));
    for difference in &failure.differences {
        say(format_args!("    {}", difference.part));
        say(format_args!("      - expected {}", difference.expected));
        say(format_args!("      + got      {}", difference.got));
    }
}

fn as_json(name: &str, from: &str, report: &Report) -> Value {
    let failure = |f: &CaseFailure| {
        let differences: Vec<Value> =
            f.differences.iter().map(|d| json!({"part": d.part, "expected": d.expected, "got": d.got})).collect();
        json!({"request": f.request, "differences": differences})
    };
    let case = |o: &CaseOutcome| {
        json!({
            "name": o.name,
            "kind": match o.kind { Kind::Case => "case", Kind::Property => "property" },
            "ok": o.failure.is_none(),
            "requests": o.requests,
            "failure": o.failure.as_ref().map(failure),
        })
    };
    json!({
        "policy": name,
        "cases": from,
        "ok": report.passed(),
        "outcomes": report.outcomes.iter().map(case).collect::<Vec<_>>(),
        "codes": report.codes,
        "missing": report.missing,
        "unlisted": report.unlisted,
    })
}
