//! The trace of one call of the purchase flow: a span for each step, told whole when the last of it has ended.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use countersign_core::verdict::Judgement;

use super::attributes::{self, Attributes, Key, Said};
use super::export::Sink;
use super::metrics::{Ended, Step};
use crate::clock::{Stopwatch, random};
use crate::config::Door;
use crate::problem::Problem;
use crate::state::Gateway;
use countersign_wire::parent::TraceParent;

/// Most spans of one trace: a purchase has fewer, whatever its offers and policies.
const MOST_SPANS: usize = 512;

/// What is traced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A purchase.
    Purchase,
    /// A quote.
    Quote,
    /// An upload that cannot be paid for.
    Upload,
}

impl What {
    /// The name of the whole trace's span.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Purchase => "countersign.purchase",
            Self::Quote => "countersign.quote",
            Self::Upload => "countersign.upload",
        }
    }
}

/// One finished span. Times are nanoseconds since the trace began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// Its number in the trace, from 1.
    pub number: u64,
    /// Its parent's; 0 is the whole call's span.
    pub parent: u64,
    /// Its name.
    pub name: String,
    /// When it began.
    pub began: u64,
    /// When it ended.
    pub ended: u64,
    /// What it says.
    pub attributes: Attributes,
    /// The code of what went wrong in it.
    pub failed: Option<&'static str>,
}

/// A finished trace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Finished {
    /// The trace.
    pub trace: [u8; 16],
    /// The span of the whole call; the others are counted on from it.
    pub root: u64,
    /// The caller's span, if the caller told it.
    pub parent: Option<[u8; 8]>,
    /// The name of the whole call's span.
    pub name: &'static str,
    /// When it began, in nanoseconds since the epoch.
    pub began: u64,
    /// How long it took, in nanoseconds.
    pub took: u64,
    /// What the whole call's span says.
    pub attributes: Attributes,
    /// The code of what went wrong.
    pub failed: Option<&'static str>,
    /// The steps.
    pub spans: Vec<Span>,
}

/// A trace under way. Its parts may end in tasks of their own; the last one tells it.
#[derive(Clone)]
pub struct Trace(Arc<Inner>);

struct Inner {
    gateway: Arc<Gateway>,
    sink: Option<Sink>,
    watch: Stopwatch,
    kept: Mutex<Finished>,
    numbers: std::sync::atomic::AtomicU64,
}

impl Trace {
    /// Begins one, as a part of the caller's if the caller told its own.
    #[must_use]
    pub fn begin(gateway: &Arc<Gateway>, what: What, parent: Option<TraceParent>) -> Self {
        let bytes: [u8; 24] = random(&*gateway.clock).unwrap_or([1; 24]);
        let (mut trace, mut root) = ([0; 16], [0; 8]);
        bytes.iter().zip(trace.iter_mut().chain(root.iter_mut())).for_each(|(from, to)| *to = *from);
        let kept = Finished {
            trace: parent.map_or(trace, |parent| parent.trace),
            // Never nothing, which would be no span, and room to count on from it.
            root: (u64::from_be_bytes(root) >> 1).max(1),
            parent: parent.map(|parent| parent.span),
            name: what.as_str(),
            began: gateway.clock.now().map_or(0, |now| now.as_millis().saturating_mul(1_000_000)),
            took: 0,
            attributes: Attributes::new(),
            failed: None,
            spans: Vec::new(),
        };
        Self(Arc::new(Inner {
            gateway: Arc::clone(gateway),
            sink: gateway.telemetry.sink.get().cloned(),
            watch: Stopwatch::start(),
            kept: Mutex::new(kept),
            numbers: std::sync::atomic::AtomicU64::new(1),
        }))
    }

    /// The trace's id, for logs: 32 lower-case hex digits.
    #[must_use]
    pub fn id(&self) -> String {
        hex::encode(self.kept().trace)
    }

    /// Says something about the whole call; the last word counts.
    pub fn say(&self, key: &'static Key, said: impl Into<Said>) {
        if self.0.sink.is_some() {
            put(&mut self.kept().attributes, key, said.into());
        }
    }

    /// Begins a step, which ends when what is returned is dropped.
    #[must_use]
    pub fn step(&self, step: Step) -> Open {
        let number = self.0.numbers.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let began = self.0.watch.nanos();
        Open { trace: self.clone(), step, number, began, attributes: Attributes::new(), failed: None }
    }

    /// A step around a future; what it is refused for is said.
    pub async fn during<T>(&self, step: Step, future: impl Future<Output = Result<T, Problem>>) -> Result<T, Problem> {
        let mut open = self.step(step);
        future.await.inspect_err(|problem| open.failed(problem.code.code()))
    }

    /// The whole call came to something.
    pub fn ends(&self, door: Door, ended: Ended, problem: Option<&Problem>) {
        self.0.gateway.telemetry.metrics.purchase(door, ended, self.0.watch.micros());
        self.concludes(ended, problem);
    }

    /// As [`Self::ends`], for what is no purchase.
    pub fn concludes(&self, ended: Ended, problem: Option<&Problem>) {
        self.say(&attributes::OUTCOME, ended.as_str());
        if let Some(problem) = problem {
            let code = problem.code.code();
            self.say(&attributes::CODE, code);
            // As HTTP servers' spans have it: a refusal is an answer, a failure is none.
            if ended == Ended::Failed {
                self.kept().failed = Some(code);
            }
        }
    }

    fn kept(&self) -> MutexGuard<'_, Finished> {
        self.0.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn put(attributes: &mut Attributes, key: &'static Key, said: Said) {
    match attributes.iter_mut().find(|(known, _)| *known == key) {
        Some((_, known)) => *known = said,
        None => attributes.push((key, said)),
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let Some(sink) = &self.sink else { return };
        let kept = self.kept.get_mut().unwrap_or_else(PoisonError::into_inner);
        kept.took = self.watch.nanos();
        sink.tell(std::mem::take(kept), &self.gateway.telemetry.metrics);
    }
}

/// A step under way.
pub struct Open {
    trace: Trace,
    step: Step,
    number: u64,
    began: u64,
    attributes: Attributes,
    failed: Option<&'static str>,
}

impl Open {
    /// Says something about the step.
    pub fn say(&mut self, key: &'static Key, said: impl Into<Said>) {
        if self.trace.0.sink.is_some() {
            put(&mut self.attributes, key, said.into());
        }
    }

    /// The step came to nothing.
    pub fn failed(&mut self, code: &'static str) {
        self.failed = Some(code);
    }

    /// Each policy's part in a judgement, one after the other, as they were asked.
    pub fn judged(&mut self, judgement: &Judgement) {
        if self.trace.0.sink.is_none() {
            return;
        }
        let mut began = self.began;
        for opinion in &judgement.opinions {
            let ended = began.saturating_add(opinion.micros.saturating_mul(1_000));
            let (verdict, codes) = match &opinion.outcome {
                Ok(decision) => {
                    let codes = decision.reasons.iter().map(|r| format!("{}/{}", opinion.policy, r.code)).collect();
                    (decision.verdict.as_str(), codes)
                }
                Err(failure) => (failure.kind.code(), Vec::new()),
            };
            let mode = match opinion.mode {
                countersign_core::verdict::Mode::Enforce => "enforce",
                countersign_core::verdict::Mode::Monitor => "monitor",
            };
            let attributes: Attributes = vec![
                (&attributes::POLICY, opinion.policy.clone().into()),
                (&attributes::POLICY_VERSION, opinion.version.clone().into()),
                (&attributes::POLICY_MODE, mode.into()),
                (&attributes::POLICY_FUEL, opinion.fuel.into()),
                (&attributes::VERDICT, verdict.into()),
                (&attributes::REASONS, Said::List(codes)),
            ];
            let number = self.trace.0.numbers.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let failed = opinion.outcome.as_ref().err().map(|failure| failure.kind.code());
            let name = format!("policy {}", opinion.policy);
            self.trace.keep(Span { number, parent: self.number, name, began, ended, attributes, failed });
            began = ended;
        }
    }

    /// What a seller is told of this step, so that its own spans are parts of it.
    #[must_use]
    pub fn traceparent(&self) -> TraceParent {
        let kept = self.trace.kept();
        TraceParent { trace: kept.trace, span: kept.root.saturating_add(self.number).to_be_bytes() }
    }
}

impl Trace {
    fn keep(&self, span: Span) {
        let mut kept = self.kept();
        if kept.spans.len() < MOST_SPANS {
            kept.spans.push(span);
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let ended = self.trace.0.watch.nanos();
        let took = ended.saturating_sub(self.began) / 1_000;
        self.trace.0.gateway.telemetry.metrics.step(self.step, took);
        if self.trace.0.sink.is_none() {
            return;
        }
        self.trace.keep(Span {
            number: self.number,
            parent: 0,
            name: self.step.as_str().to_owned(),
            began: self.began,
            ended,
            attributes: std::mem::take(&mut self.attributes),
            failed: self.failed,
        });
    }
}
