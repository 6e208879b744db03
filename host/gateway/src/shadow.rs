//! Judging beside the policies that count: shadows and `mode = "monitor"`.
//!
//! A purchase hands over what it was asked and what came of it, after it was decided, and goes on. One
//! thread of its own does the rest: a full queue drops and counts, it never slows a purchase. Nothing
//! here touches the ledger: hypothetical holds are placed in counters that nothing real reads.
//!
//! What is kept is verdicts, codes and sums. A candidate's messages, notes and logs are dropped where
//! they arise: whoever may put a policy beside live traffic must not learn by it what others buy.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use countersign_core::id::DecisionId;
use countersign_core::money::Micros;
use countersign_core::seams::Judge;
use countersign_core::spend::SpendRequest;
use countersign_core::time::Timestamp;
use countersign_core::verdict::{Judgement, Mode, Opinion, Verdict, combine};
use countersign_core::whatif::{Comparison, Fact, Hypothesis, Outcome, WhatIf};
use countersign_engine::{Engine, PolicySet, PolicySpec, StageError};
use serde_json::{Value, json};

use crate::config::PolicyConfig;
use crate::views;

/// Decisions that may wait to be judged again.
const QUEUE: usize = 1_024;
/// Disagreements that are kept one by one.
const LAST: usize = 20;
/// Shadows at once: each costs a judgement per decision.
const MOST_SHADOWS: usize = 8;

/// A decision on its way to whoever judges beside.
pub struct Seen {
    request: SpendRequest,
    judgement: Judgement,
    approved: Option<Vec<(String, String)>>,
    outcome: Outcome,
}

/// A module and its settings that might take a policy's place.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// What is staged, under the policy's configured name.
    pub spec: PolicySpec,
    /// Whether it brought settings of its own; else it has the policy's.
    pub own_settings: bool,
    /// The operator who started it.
    pub by: String,
    /// When.
    pub since: Timestamp,
}

/// Why a shadow did not start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotStarted {
    /// The candidate cannot be loaded.
    Stage(StageError),
    /// There are as many as there may be.
    TooMany,
}

/// All shadows and monitors of a gateway.
pub struct Shadows {
    engine: Arc<Engine>,
    queue: SyncSender<Seen>,
    state: Arc<Mutex<State>>,
    active: AtomicUsize,
    dropped: AtomicU64,
}

#[derive(Default)]
struct State {
    shadows: BTreeMap<String, Shadow>,
    monitors: BTreeMap<String, Monitor>,
    started: u64,
}

struct Shadow {
    number: u64,
    set: Arc<PolicySet>,
    candidate: Candidate,
    beside: Beside,
}

/// What one module with one settings document would have done; another one begins anew.
struct Monitor {
    digests: (String, String),
    beside: Beside,
}

impl Monitor {
    fn new(opinion: &Opinion) -> Self {
        let digests = (opinion.module_sha256.clone(), opinion.settings_sha256.clone());
        Self { digests, beside: Beside::new(&opinion.policy) }
    }

    fn is_of(&self, opinion: &Opinion) -> bool {
        (&self.digests.0, &self.digests.1) == (&opinion.module_sha256, &opinion.settings_sha256)
    }
}

/// One hypothesis over live traffic.
struct Beside {
    whatif: WhatIf,
    seen: Comparison,
    last: VecDeque<Value>,
}

impl Beside {
    fn new(policy: &str) -> Self {
        Self { whatif: WhatIf::new(Some(policy.to_owned())), seen: Comparison::default(), last: VecDeque::new() }
    }

    fn add(&mut self, judgement: &Judgement, seen: &Seen) {
        let at = seen.request.at;
        let fact = Fact { at, outcome: &seen.outcome, approved: seen.approved.as_deref() };
        let would = self.whatif.decide(judgement, &fact);
        let (was, value) = (seen.outcome.verdict(), seen.request.payment.value);
        if self.seen.add(was, &would, value.get()) {
            if self.last.len() >= LAST {
                self.last.pop_front();
            }
            self.last.push_back(disagreement(seen.request.id, at, value, was, &would));
        }
    }

    fn report(&self) -> Value {
        let mut report = comparison(&self.seen);
        if let Some(map) = report.as_object_mut() {
            map.insert("last".into(), self.last.iter().rev().cloned().collect());
            map.insert("forgotten_windows".into(), self.whatif.forgotten().into());
        }
        report
    }
}

fn disagreement(id: DecisionId, at: Timestamp, value: Micros, was: Verdict, would: &Hypothesis) -> Value {
    let mut codes = countersign_core::whatif::Sums::default();
    would.codes.iter().for_each(|(_, code)| codes.add_code(code, 0));
    let codes: Vec<&str> = codes.iter().map(|(code, _)| code).collect();
    json!({"decision": id, "at": at.to_string(), "amount": value.to_string(), "from": was, "to": would.verdict, "codes": codes})
}

/// A comparison as everybody reads it.
#[must_use]
pub fn comparison(seen: &Comparison) -> Value {
    let money = |micros: u64| views::amount(micros, countersign_core::verdict::Unit::Micros);
    let flips: Vec<Value> = seen
        .flips
        .iter()
        .map(|((from, to), flip)| {
            let codes: Vec<_> = flip
                .codes
                .iter()
                .map(|(code, sum)| json!({"code": code, "count": sum.count, "amount": money(sum.value)}))
                .collect();
            json!({"from": from, "to": to, "count": flip.all.count, "amount": money(flip.all.value), "codes": codes})
        })
        .collect();
    let all = seen.disagreements();
    json!({
        "decisions": seen.decisions.count,
        "disagreements": all.count,
        "amount": money(all.value),
        "would_refuse": seen.would_refuse.count,
        "flips": flips,
    })
}

/// A judgement with another opinion in the place of a policy's, and that one counting.
#[must_use]
pub fn with_opinion(judgement: &Judgement, opinion: Opinion) -> Judgement {
    let counting = Opinion { mode: Mode::Enforce, ..opinion };
    let other = |o: &Opinion| if o.policy == counting.policy { counting.clone() } else { o.clone() };
    Judgement { generation: judgement.generation, opinions: judgement.opinions.iter().map(other).collect() }
}

impl Shadows {
    /// Starts the thread that judges.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(engine: Arc<Engine>) -> std::io::Result<Self> {
        let (queue, seen) = sync_channel(QUEUE);
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        std::thread::Builder::new().name("shadow".to_owned()).spawn(move || work(&seen, &shared))?;
        Ok(Self { engine, queue, state, active: AtomicUsize::new(0), dropped: AtomicU64::new(0) })
    }

    /// Decisions that came too fast to be looked at.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// What a decision must remember for [`Shadows::saw`]; nothing, if nobody looks.
    #[must_use]
    pub fn look(
        &self,
        request: &SpendRequest,
        judgement: &Judgement,
        approved: Option<&Vec<(String, String)>>,
    ) -> Option<Seen> {
        let watched = self.active.load(Ordering::Relaxed) > 0;
        let monitored = || judgement.opinions.iter().any(|o| o.mode == Mode::Monitor);
        (watched || monitored()).then(|| Seen {
            request: request.clone(),
            judgement: judgement.clone(),
            approved: approved.cloned(),
            outcome: Outcome::HostRefused,
        })
    }

    /// Hands a decision over. Never waits.
    pub fn saw(&self, mut seen: Seen, outcome: Outcome) {
        // A purchase that waits although the policies allowed waits for a budget.
        let allowed = || combine(&seen.judgement).verdict == Verdict::Allow;
        seen.outcome = if outcome == Outcome::Asked && allowed() { Outcome::AskedByBudget } else { outcome };
        if self.queue.try_send(seen).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether a candidate beside this policy would not be one too many.
    #[must_use]
    pub fn has_room_for(&self, policy: &str) -> bool {
        let state = self.state();
        state.shadows.len() < MOST_SHADOWS || state.shadows.contains_key(policy)
    }

    /// Puts a candidate beside a policy, in the place of one that was there. Compiles: call it where
    /// blocking is allowed.
    ///
    /// # Errors
    /// [`NotStarted`].
    pub fn put(&self, candidate: Candidate) -> Result<(), NotStarted> {
        let set = self.engine.stage(0, std::slice::from_ref(&candidate.spec)).map_err(NotStarted::Stage)?;
        let name = candidate.spec.name.clone();
        let mut state = self.state();
        if state.shadows.len() >= MOST_SHADOWS && !state.shadows.contains_key(&name) {
            return Err(NotStarted::TooMany);
        }
        state.started = state.started.saturating_add(1);
        let (number, beside) = (state.started, Beside::new(&name));
        state.shadows.insert(name, Shadow { number, set: Arc::new(set), candidate, beside });
        self.active.store(state.shadows.len(), Ordering::Relaxed);
        Ok(())
    }

    /// Takes a candidate away; answers its last report and itself.
    pub fn remove(&self, policy: &str) -> Option<(Value, Candidate)> {
        let report = self.report(policy)?;
        let mut state = self.state();
        let shadow = state.shadows.remove(policy)?;
        self.active.store(state.shadows.len(), Ordering::Relaxed);
        Some((report, shadow.candidate))
    }

    /// The candidate beside a policy, and its number: another one in its place has another.
    #[must_use]
    pub fn candidate(&self, policy: &str) -> Option<(u64, Candidate)> {
        self.state().shadows.get(policy).map(|s| (s.number, s.candidate.clone()))
    }

    /// Takes a candidate away if it still is the one of this number.
    pub fn remove_this(&self, policy: &str, number: u64) {
        self.keep(|name, shadow| name != policy || shadow.number != number);
    }

    /// Follows what serves: a candidate whose policy is gone has nothing to be compared with, and one that
    /// hears what agents say must not when its policy no longer does.
    pub fn follow(&self, policies: &BTreeMap<String, PolicyConfig>) {
        let may_stay = |p: &PolicyConfig, s: &Shadow| p.claims || !s.candidate.spec.claims;
        self.keep(|name, shadow| policies.get(name).is_some_and(|policy| may_stay(policy, shadow)));
    }

    fn keep(&self, stays: impl Fn(&str, &Shadow) -> bool) {
        let mut state = self.state();
        state.shadows.retain(|name, shadow| stays(name, shadow));
        self.active.store(state.shadows.len(), Ordering::Relaxed);
    }

    /// What a shadow has found so far.
    #[must_use]
    pub fn report(&self, policy: &str) -> Option<Value> {
        let state = self.state();
        let shadow = state.shadows.get(policy)?;
        let mut report = shadow.beside.report();
        let status = shadow.set.status();
        if let (Some(map), Some(status)) = (report.as_object_mut(), status.first()) {
            map.insert("policy".into(), policy.into());
            map.insert("module_sha256".into(), status.module_sha256.clone().into());
            map.insert("settings_sha256".into(), status.settings_sha256.clone().into());
            map.insert("version".into(), status.version.clone().into());
            map.insert("since".into(), shadow.candidate.since.to_string().into());
            map.insert("by".into(), shadow.candidate.by.clone().into());
            map.insert("dropped".into(), self.dropped.load(Ordering::Relaxed).into());
        }
        Some(report)
    }

    /// What the monitoring policies would have done: `decisions`, `disagreements`, `would_refuse` and
    /// the rest of a comparison.
    #[must_use]
    pub fn monitor(&self, policy: &str) -> Value {
        let state = self.state();
        let report = state.monitors.get(policy).map(|m| m.beside.report());
        report.unwrap_or_else(|| Beside::new(policy).report())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends when the gateway does.
fn work(queue: &Receiver<Seen>, state: &Mutex<State>) {
    while let Ok(seen) = queue.recv() {
        for opinion in seen.judgement.opinions.iter().filter(|o| o.mode == Mode::Monitor) {
            let judgement = with_opinion(&seen.judgement, opinion.clone());
            let mut state = lock(state);
            let monitor = state.monitors.entry(opinion.policy.clone()).or_insert_with(|| Monitor::new(opinion));
            if !monitor.is_of(opinion) {
                *monitor = Monitor::new(opinion);
            }
            monitor.beside.add(&judgement, &seen);
        }
        let asked = |policy: &String| seen.judgement.opinions.iter().any(|o| o.policy == *policy);
        let sets: Vec<(String, u64, Arc<PolicySet>)> = {
            let state = lock(state);
            let concerned = state.shadows.iter().filter(|(policy, _)| asked(policy));
            concerned.map(|(policy, s)| (policy.clone(), s.number, Arc::clone(&s.set))).collect()
        };
        for (policy, number, set) in sets {
            // Judged without the lock: a report never waits for a policy.
            let opinions = set.judge(std::slice::from_ref(&policy), &seen.request).opinions;
            let Some(opinion) = opinions.into_iter().next() else { continue };
            let judgement = with_opinion(&seen.judgement, opinion);
            if let Some(shadow) = lock(state).shadows.get_mut(&policy).filter(|s| s.number == number) {
                shadow.beside.add(&judgement, &seen);
            }
        }
    }
}
