//! A staged set of policies: the real judge.

use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use countersign_core::seams::Judge;
use countersign_core::spend::SpendRequest;
use countersign_core::verdict::{Decision, Failure, FailureKind, Judgement, LogLine, Mode, Opinion};

use crate::convert::{self, Question};
use crate::digest::digest_of;
use crate::engine::{Engine, micros_since, now};
use crate::failure::{Phase, classify, cut, failure};
use crate::guest::seed;
use crate::prepared::{Prepared, StartedFrom};
use crate::runtime::{Configured, Unready, give};
use crate::slots::Slot;
use crate::stage::{PolicySpec, StageError, Start};
use crate::stats::Stats;

/// Policies that were staged together, under one generation. Immutable; share it in an `Arc` and
/// swap the `Arc` to reload. A decision that holds one finishes on it.
pub struct PolicySet {
    engine: Arc<Engine>,
    generation: u64,
    entries: Vec<Entry>,
    index: BTreeMap<String, usize>,
}

pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) state: Result<Arc<Prepared>, StageError>,
    start: Start,
    mode: Mode,
    claims: bool,
    deadline_ms: u32,
    module_sha256: String,
    settings_sha256: String,
    stats: Stats,
}

/// Whether a policy can judge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PolicyState {
    /// It is loaded.
    Active,
    /// It failed to load, and fails every decision.
    Invalid,
}

impl PolicyState {
    /// `active` or `invalid`.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Invalid => "invalid",
        }
    }
}

/// One policy as an operator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyStatus {
    /// Configured name.
    pub name: String,
    /// Whether it can judge.
    pub state: PolicyState,
    /// The version it gives itself; empty when invalid.
    pub version: String,
    /// SHA-256 of the module, lower-case hex.
    pub module_sha256: String,
    /// SHA-256 of the settings document, lower-case hex.
    pub settings_sha256: String,
    /// Whether its verdict counts.
    pub mode: Mode,
    /// What it imports, sorted.
    pub imports: Vec<String>,
    /// What its instances start from; none when invalid.
    pub started_from: Option<StartedFrom>,
    /// Instances that are ready-made now.
    pub ready: usize,
    /// Decisions it took part in, on this set.
    pub decisions: u64,
    /// Median microseconds of a decision, to about six percent; zero before the first.
    pub p50_us: u64,
    /// The 99th percentile of the same.
    pub p99_us: u64,
    /// Why it is invalid.
    pub error: Option<StageError>,
}

impl Entry {
    pub(crate) fn new(spec: &PolicySpec, state: Result<Arc<Prepared>, StageError>) -> Self {
        let module = match &state {
            Ok(prepared) => prepared.compiled.digest,
            Err(_) => digest_of(&spec.module),
        };
        Self {
            name: spec.name.clone(),
            state,
            start: spec.start,
            mode: spec.mode,
            claims: spec.claims,
            deadline_ms: spec.deadline_ms,
            module_sha256: hex::encode(module),
            settings_sha256: hex::encode(digest_of(spec.settings.as_bytes())),
            stats: Stats::default(),
        }
    }

    fn version(&self) -> &str {
        self.state.as_ref().map_or("", |p| &p.compiled.about.version)
    }

    fn status(&self) -> PolicyStatus {
        PolicyStatus {
            name: self.name.clone(),
            state: match self.state {
                Ok(_) => PolicyState::Active,
                Err(_) => PolicyState::Invalid,
            },
            version: self.version().to_owned(),
            module_sha256: self.module_sha256.clone(),
            settings_sha256: self.settings_sha256.clone(),
            mode: self.mode,
            imports: self.state.as_ref().map_or(Vec::new(), |p| p.compiled.about.imports.clone()),
            started_from: self.state.as_ref().ok().map(|p| p.started_from()),
            ready: self.state.as_ref().map_or(0, |p| p.count()),
            decisions: self.stats.took.count(),
            p50_us: self.stats.took.percentile(50),
            p99_us: self.stats.took.percentile(99),
            error: self.state.as_ref().err().cloned(),
        }
    }
}

/// When an instance was made.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Made {
    Ahead,
    Now,
}

/// What one run of one policy came to.
struct Run {
    outcome: Result<Decision, Failure>,
    log: Vec<LogLine>,
    fuel: u64,
}

impl Run {
    fn failed(failure: Failure) -> Self {
        Self { outcome: Err(failure), log: Vec::new(), fuel: 0 }
    }
}

impl PolicySet {
    pub(crate) fn new(engine: Arc<Engine>, generation: u64, entries: Vec<Entry>) -> Self {
        let index = entries.iter().enumerate().map(|(i, e)| (e.name.clone(), i)).collect();
        Self { engine, generation, entries, index }
    }

    /// Every policy, in the order they were configured.
    #[must_use]
    pub fn status(&self) -> Vec<PolicyStatus> {
        self.entries.iter().map(Entry::status).collect()
    }

    /// What each policy of this set was asked and answered since it was staged, by its configured name.
    pub fn stats(&self) -> impl Iterator<Item = (&str, &Stats)> {
        self.entries.iter().map(|entry| (entry.name.as_str(), &entry.stats))
    }

    /// Why policies of this set are invalid; nothing for a set from [`Engine::stage`].
    pub fn errors(&self) -> impl Iterator<Item = &StageError> {
        self.entries.iter().filter_map(|e| e.state.as_ref().err())
    }

    /// Whether a policy of this name is configured, valid or not.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.index.contains_key(name)
    }

    fn opinion(&self, name: &str, question: &Question<'_>, place: &Result<Slot<'_>, Failure>) -> Opinion {
        let Some(entry) = self.index.get(name).and_then(|i| self.entries.get(*i)) else {
            let missing = failure(FailureKind::Unavailable, "no policy of this name is configured");
            return Opinion {
                policy: name.to_owned(),
                version: String::new(),
                module_sha256: String::new(),
                settings_sha256: String::new(),
                mode: Mode::Enforce,
                claims: false,
                outcome: Err(missing),
                log: Vec::new(),
                fuel: 0,
                micros: 0,
            };
        };
        let started = now();
        // wasmtime is not expected to panic. If it does, that is a denial and not a dead worker.
        let run = catch_unwind(AssertUnwindSafe(|| self.run(entry, question, place)))
            .unwrap_or_else(|_| Run::failed(failure(FailureKind::Trap, "the policy engine failed while running it")));
        let micros = micros_since(started);
        entry.stats.record(micros, &run.outcome);
        Opinion {
            policy: entry.name.clone(),
            version: entry.version().to_owned(),
            module_sha256: entry.module_sha256.clone(),
            settings_sha256: entry.settings_sha256.clone(),
            mode: entry.mode,
            claims: entry.claims,
            outcome: run.outcome,
            log: run.log,
            fuel: run.fuel,
            micros,
        }
    }

    /// One instance, from nothing to nothing.
    fn run(&self, entry: &Entry, question: &Question<'_>, place: &Result<Slot<'_>, Failure>) -> Run {
        let prepared = match &entry.state {
            Ok(prepared) => prepared,
            Err(e) => {
                return Run::failed(failure(FailureKind::Unavailable, format!("{}: {}", e.stage, e.message)));
            }
        };
        if let Err(busy) = place {
            return Run::failed(busy.clone());
        }
        let (Configured { mut store, policy }, made) = match self.instance(entry, prepared) {
            Ok(one) => one,
            Err(Unready::Failed(f)) => return Run::failed(f),
            // It accepted these very settings when it was staged.
            Err(Unready::Refused(why)) => {
                return Run::failed(failure(FailureKind::Error, format!("configure: {}", cut(&why, 500))));
            }
        };

        let fuel = self.engine.config().fuel;
        let evaluate_seed = seed("evaluate", &[question.id.as_bytes(), entry.name.as_bytes()]);
        store.data_mut().begin_evaluate(question.at(), evaluate_seed);
        give(&mut store, fuel, entry.deadline_ms);
        let answer = policy.countersign_policy_policy().call_evaluate(&mut store, question.ask(entry.claims));
        let left = store.get_fuel().unwrap_or(0);
        let outcome = match answer {
            Ok(Ok(decision)) => convert::decision(decision),
            Ok(Err(error)) => Err(said_no(&error)),
            Err(e) => Err(classify(&e, Phase::Call("evaluate"), store.data())),
        };
        let run = Run { outcome, log: store.data_mut().take_log(), fuel: fuel.saturating_sub(left) };
        entry.stats.used(store.data().memory.used());
        prepared.ended(run.outcome.is_ok());
        // What was made here is still in this core's cache, and what failed is its asker's to clear away:
        // the janitor works for those who answer.
        if made == Made::Ahead && run.outcome.is_ok() {
            self.engine.janitor.discard(store);
        }
        run
    }

    /// An instance that has been asked nothing yet.
    fn instance(&self, entry: &Entry, prepared: &Prepared) -> Result<(Configured, Made), Unready> {
        let runtime = &self.engine.runtime;
        if entry.start == Start::Plain {
            return prepared.make_from_module(runtime).map(|one| (one, Made::Now));
        }
        let (one, more) = prepared.take();
        if more {
            self.engine.janitor.nudge(true);
        }
        if let Some(one) = one {
            return Ok((one, Made::Ahead));
        }
        let _place = if prepared.is_slow() { Some(self.engine.admit_slow().map_err(Unready::Failed)?) } else { None };
        prepared.make(runtime).map(|one| (one, Made::Now))
    }
}

/// `evaluate` returned its error.
fn said_no(error: &str) -> Failure {
    if error.len() > convert::STRING_BYTES {
        let message = format!("evaluate: an error of {} bytes, at most {}", error.len(), convert::STRING_BYTES);
        return failure(FailureKind::Oversize, message);
    }
    failure(FailureKind::Error, format!("evaluate: {error}"))
}

impl Judge for PolicySet {
    fn judge(&self, policies: &[String], request: &SpendRequest) -> Judgement {
        let question = Question::new(request);
        // One place for all of them: they run one after the other.
        let place = self.engine.admit();
        Judgement {
            generation: self.generation,
            opinions: policies.iter().map(|name| self.opinion(name, &question, &place)).collect(),
        }
    }

    fn generation(&self) -> u64 {
        self.generation
    }
}

impl fmt::Debug for PolicySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PolicySet")
            .field("generation", &self.generation)
            .field("policies", &self.index.keys())
            .finish_non_exhaustive()
    }
}
