//! What is counted while the gateway works: a few atomic additions for each purchase, nothing that waits.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use countersign_core::histogram::Histogram;

use crate::config::Door;
use crate::problem::Code;

/// A step of the purchase flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Whose purchase it is, and which.
    Identify,
    /// Which mandate covers it.
    Mandate,
    /// The call without payment.
    Fetch,
    /// Which of the seller's offers can be paid.
    Offers,
    /// The policies judge.
    Decide,
    /// Holds, decision and payload become durable.
    Hold,
    /// People are waited for.
    Wait,
    /// The key is used.
    Sign,
    /// The paid request, to the head of its answer.
    Present,
    /// What the answer means becomes durable.
    Settle,
    /// The answer's body, to its end.
    Answer,
}

impl Step {
    /// Every step, in the order of the flow.
    pub const ALL: [Self; 11] = [
        Self::Identify,
        Self::Mandate,
        Self::Fetch,
        Self::Offers,
        Self::Decide,
        Self::Hold,
        Self::Wait,
        Self::Sign,
        Self::Present,
        Self::Settle,
        Self::Answer,
    ];

    /// Its name in metrics and traces.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Identify => "identify",
            Self::Mandate => "mandate",
            Self::Fetch => "fetch",
            Self::Offers => "offers",
            Self::Decide => "decide",
            Self::Hold => "hold",
            Self::Wait => "wait",
            Self::Sign => "sign",
            Self::Present => "present",
            Self::Settle => "settle",
            Self::Answer => "answer",
        }
    }
}

/// How a call of the purchase flow ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Something was signed and presented, and an answer came.
    Paid,
    /// A kept answer was given again.
    Replayed,
    /// There was nothing to pay.
    Free,
    /// People are asked.
    Waiting,
    /// The gateway said no.
    Refused,
    /// The seller, the ledger, the wallet or the network did not do their part.
    Failed,
}

impl Ended {
    /// Every way.
    pub const ALL: [Self; 6] = [Self::Paid, Self::Replayed, Self::Free, Self::Waiting, Self::Refused, Self::Failed];

    /// Its name in metrics and traces.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Paid => "paid",
            Self::Replayed => "replayed",
            Self::Free => "free",
            Self::Waiting => "waiting",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }

    /// What a problem comes to.
    #[must_use]
    pub const fn of(code: Code) -> Self {
        match code {
            Code::ApprovalRequired => Self::Waiting,
            code if code.parts().1 >= 500 => Self::Failed,
            _ => Self::Refused,
        }
    }
}

/// What became of an edit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reloaded {
    /// It serves.
    Activated,
    /// What it takes away holds.
    Restricted,
    /// It does not serve.
    Refused,
}

impl Reloaded {
    /// Every way, with its name in metrics.
    pub const ALL: [(Self, &'static str); 3] =
        [(Self::Activated, "activated"), (Self::Restricted, "restricted"), (Self::Refused, "refused")];
}

/// Which signal was told over OTLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Traces.
    Traces,
    /// Metrics.
    Metrics,
}

impl Signal {
    /// Both, with their names.
    pub const ALL: [(Self, &'static str); 2] = [(Self::Traces, "traces"), (Self::Metrics, "metrics")];
}

/// What became of telling an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tried {
    /// It was taken.
    Delivered,
    /// It will be tried again.
    Failed,
    /// It will not.
    GivenUp,
}

impl Tried {
    /// Every way, with its name in metrics.
    pub const ALL: [(Self, &'static str); 3] =
        [(Self::Delivered, "delivered"), (Self::Failed, "failed"), (Self::GivenUp, "given-up")];
}

const DOORS: usize = Door::ALL.len();

/// Everything that is counted.
#[derive(Debug)]
pub struct Metrics {
    purchases: [[AtomicU64; Ended::ALL.len()]; DOORS],
    took: [Histogram; Ended::ALL.len()],
    steps: [Histogram; Step::ALL.len()],
    refusals: [[AtomicU64; Code::ALL.len()]; DOORS],
    reloads: [AtomicU64; 3],
    reload_failed: AtomicBool,
    exports: [[AtomicU64; 2]; 2],
    dropped: AtomicU64,
    alerts: [AtomicU64; 3],
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            purchases: Default::default(),
            took: Default::default(),
            steps: Default::default(),
            refusals: std::array::from_fn(|_| std::array::from_fn(|_| AtomicU64::new(0))),
            reloads: Default::default(),
            reload_failed: AtomicBool::new(false),
            exports: Default::default(),
            dropped: AtomicU64::new(0),
            alerts: Default::default(),
        }
    }
}

fn add(counters: &[AtomicU64], at: Option<usize>) {
    if let Some(counter) = at.and_then(|at| counters.get(at)) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

fn door_at(door: Door) -> Option<usize> {
    Door::ALL.iter().position(|(_, d)| *d == door)
}

impl Metrics {
    /// A call of the purchase flow ended after so many microseconds.
    pub fn purchase(&self, door: Door, ended: Ended, micros: u64) {
        let at = Ended::ALL.iter().position(|e| *e == ended);
        if let Some(counters) = door_at(door).and_then(|door| self.purchases.get(door)) {
            add(counters, at);
        }
        if let Some(took) = at.and_then(|at| self.took.get(at)) {
            took.record(micros);
        }
    }

    /// A step took so many microseconds.
    pub fn step(&self, step: Step, micros: u64) {
        if let Some(took) = Step::ALL.iter().position(|s| *s == step).and_then(|at| self.steps.get(at)) {
            took.record(micros);
        }
    }

    /// An agent was answered with a problem.
    pub fn refusal(&self, door: Door, code: Code) {
        if let Some(counters) = door_at(door).and_then(|door| self.refusals.get(door)) {
            add(counters, Code::ALL.iter().position(|c| *c == code));
        }
    }

    /// An edit came to something.
    pub fn reload(&self, reloaded: Reloaded) {
        add(&self.reloads, Reloaded::ALL.iter().position(|(r, _)| *r == reloaded));
    }

    /// Whether the files as they are now could be used.
    pub fn files_serve(&self, they_do: bool) {
        self.reload_failed.store(!they_do, Ordering::Relaxed);
    }

    /// A message to the OTLP receiver was taken, or not.
    pub fn exported(&self, signal: Signal, sent: bool) {
        if let Some(counters) =
            Signal::ALL.iter().position(|(s, _)| *s == signal).and_then(|signal| self.exports.get(signal))
        {
            add(counters, Some(usize::from(!sent)));
        }
    }

    /// Traces were not told.
    pub fn dropped(&self, traces: u64) {
        self.dropped.fetch_add(traces, Ordering::Relaxed);
    }

    /// An alert was told, or not.
    pub fn alert(&self, tried: Tried) {
        add(&self.alerts, Tried::ALL.iter().position(|(t, _)| *t == tried));
    }

    /// Purchases by door and outcome.
    pub(super) fn purchases(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
        let doors = Door::ALL.iter().zip(&self.purchases);
        doors.flat_map(|((door, _), row)| {
            Ended::ALL.iter().zip(row).map(|(ended, n)| (*door, ended.as_str(), n.load(Ordering::Relaxed)))
        })
    }

    /// How long purchases took by outcome.
    pub(super) fn took(&self) -> impl Iterator<Item = (&'static str, &Histogram)> {
        Ended::ALL.iter().map(|ended| ended.as_str()).zip(&self.took)
    }

    /// How long steps took.
    pub(super) fn steps(&self) -> impl Iterator<Item = (&'static str, &Histogram)> {
        Step::ALL.iter().map(|step| step.as_str()).zip(&self.steps)
    }

    /// Refusals by door and code.
    pub(super) fn refusals(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
        let doors = Door::ALL.iter().zip(&self.refusals);
        doors.flat_map(|((door, _), row)| {
            Code::ALL.iter().zip(row).map(|(code, n)| (*door, code.code(), n.load(Ordering::Relaxed)))
        })
    }

    /// Reloads by result, and whether the last one is refused.
    pub(super) fn reloads(&self) -> (impl Iterator<Item = (&'static str, u64)>, bool) {
        let all = Reloaded::ALL.iter().zip(&self.reloads).map(|((_, name), n)| (*name, n.load(Ordering::Relaxed)));
        (all, self.reload_failed.load(Ordering::Relaxed))
    }

    /// Exports by signal and result.
    pub(super) fn exports(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
        Signal::ALL.iter().zip(&self.exports).flat_map(|((_, signal), row)| {
            ["sent", "failed"].into_iter().zip(row).map(|(result, n)| (*signal, result, n.load(Ordering::Relaxed)))
        })
    }

    /// Traces that were dropped.
    #[must_use]
    pub fn dropped_traces(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Attempts to tell alerts by result.
    pub(super) fn alerts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Tried::ALL.iter().zip(&self.alerts).map(|((_, name), n)| (*name, n.load(Ordering::Relaxed)))
    }
}
