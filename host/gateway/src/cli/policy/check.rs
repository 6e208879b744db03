//! Whether a policy would be loaded, and holds up.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use countersign_engine::{Engine, EngineConfig, StageError};
use serde_json::{Value, json};

use super::source::{self, Source};
use super::{hostile, schema, show};
use crate::cli::{Failure, Outcome, say};

/// Beyond this share of its instructions a policy is warned about.
const FUEL_PERCENT: u64 = 50;
/// Extreme requests are tried over those of so many cases.
const MOST_CASES: usize = 16;

/// Whether a policy would be loaded and holds up.
#[derive(Args)]
pub(in crate::cli) struct Check {
    /// A module, a policy's folder, or builtin:NAME.
    path: String,
    /// A file with the settings to try, JSON or TOML; those of its cases if not given.
    #[arg(long)]
    settings: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Something an author should know.
struct Finding {
    /// A policy with an error should not be used; a warning is advice.
    error: bool,
    code: String,
    /// Where: a JSON Pointer, or the request.
    at: String,
    message: String,
    advice: String,
}

pub(super) fn run(args: &Check) -> Outcome {
    let given = args.settings.as_deref().map(source::settings).transpose()?;
    let source = Source::find(&args.path, None)?;
    let engine = Engine::new(EngineConfig::default())?;
    let inspected = engine.inspect(&source.module)?;
    let mut findings: Vec<Finding> = schema::remarks(&inspected.settings_schema).into_iter().map(of_schema).collect();
    let candidates = settings(&source, given);
    let tried = candidates.iter().find_map(|settings| engine.check(&source.spec(settings)).ok().map(|_| settings));
    match (tried, candidates.first()) {
        (Some(settings), _) => findings.extend(self_test(&engine, &source, settings)?),
        (None, Some(settings)) => findings.extend(engine.check(&source.spec(settings)).err().map(refused)),
        (None, None) => {}
    }
    let errors = findings.iter().filter(|finding| finding.error).count();
    if args.json {
        let findings: Vec<Value> = findings.iter().map(Finding::json).collect();
        let mut report = show::facts(&inspected);
        if let Some(members) = report.as_object_mut() {
            members.insert("ok".to_owned(), (errors == 0).into());
            members.insert("settings".to_owned(), tried.cloned().into());
            members.insert("findings".to_owned(), findings.into());
        }
        say(format_args!("{report:#}"));
    } else {
        show::print(&inspected);
        findings.iter().for_each(Finding::print);
    }
    match errors {
        0 if args.json => Ok(()),
        0 => {
            let settings = tried.map(ToString::to_string).unwrap_or_default();
            say(format_args!("ok, with the settings {settings}"));
            Ok(())
        }
        1 => Err(Failure::new("1 thing to put right")),
        more => Err(Failure::new(format!("{more} things to put right"))),
    }
}

/// The settings to try: those given, else what the cases run under, else none.
fn settings(source: &Source, given: Option<Value>) -> Vec<Value> {
    match (given, &source.cases) {
        (Some(given), _) => vec![given],
        (None, Some((_, cases))) => {
            let own = cases.questions(None).into_iter().map(|question| question.settings);
            std::iter::once(cases.settings(None)).chain(own).collect()
        }
        (None, None) => vec![json!({})],
    }
}

fn of_schema(remark: schema::Remark) -> Finding {
    let at = format!("settings schema, {}", if remark.at.is_empty() { "whole document" } else { &remark.at });
    Finding { error: remark.wrong, code: "schema".to_owned(), at, message: remark.message, advice: String::new() }
}

fn refused(error: StageError) -> Finding {
    Finding {
        error: true,
        code: error.stage.code().to_owned(),
        at: "loading".to_owned(),
        message: error.message,
        advice: "give settings that it takes with --settings FILE, or as `settings` of its cases".to_owned(),
    }
}

/// Extreme requests, each to two fresh instances.
fn self_test(engine: &Arc<Engine>, source: &Source, settings: &Value) -> Result<Vec<Finding>, StageError> {
    let limit = engine.config().fuel;
    let answers = hostile::ask(engine, &source.spec(settings), &bases(source, settings))?;
    let mut findings = Vec::new();
    let costliest = answers.iter().max_by_key(|answer| answer.fuel);
    if let Some(answer) = costliest.filter(|a| a.fuel.saturating_mul(100) > limit.saturating_mul(FUEL_PERCENT)) {
        let percent = answer.fuel.saturating_mul(100).checked_div(limit).unwrap_or(100);
        findings.push(Finding {
            error: false,
            code: "fuel".to_owned(),
            at: asked(answer),
            message: format!("used {percent} % of the {limit} instructions a decision may take"),
            advice: "a larger request would be denied with `policy-fuel`; do less per request, or more in configure"
                .to_owned(),
        });
    }
    // One fault shows in many requests: it is told once.
    let mut told = BTreeSet::new();
    for answer in &answers {
        let Some(fault) = &answer.fault else { continue };
        let same = if fault.code == hostile::NOT_DETERMINISTIC { "" } else { &fault.message };
        if told.insert((fault.code, same)) {
            findings.push(Finding {
                error: true,
                code: fault.code.to_owned(),
                at: asked(answer),
                message: fault.message.clone(),
                advice: fault.advice.to_owned(),
            });
        }
    }
    Ok(findings)
}

fn asked(answer: &hostile::Answer) -> String {
    format!("{}: {}", answer.name, answer.fragment)
}

/// What extreme requests start from: the ordinary one, one with everything filled, and those of the cases.
fn bases(source: &Source, settings: &Value) -> Vec<Value> {
    let mut bases = vec![json!({}), hostile::everything("acme")];
    let asked = source.cases.iter().flat_map(|(_, cases)| cases.questions(None));
    for question in asked.filter(|question| question.settings == *settings).take(MOST_CASES) {
        if !bases.contains(&question.request) {
            bases.push(question.request);
        }
    }
    bases
}

impl Finding {
    fn level(&self) -> &'static str {
        if self.error { "error" } else { "warning" }
    }

    fn json(&self) -> Value {
        json!({
            "level": self.level(), "code": self.code, "at": self.at, "message": self.message, "advice": self.advice,
        })
    }

    fn print(&self) {
        let clean = |text: &str| countersign_core::x402::text::clean(text, 400);
        say(format_args!("{} [{}] {}", self.level(), self.code, clean(&self.message)));
        say(format_args!("  at    {}", clean(&self.at)));
        if !self.advice.is_empty() {
            say(format_args!("  do    {}", self.advice));
        }
    }
}
