//! The engine: one wasmtime, its ticker, its pool, and the way from bytes to a policy that answers.

use std::collections::BTreeSet;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use countersign_core::verdict::{Failure, FailureKind};

use crate::POLICY_INTERFACE;
use crate::artifacts::Artifacts;
use crate::bindings::SpendPolicy;
use crate::cache::{Cache, Digest};
use crate::cases::Cases;
use crate::compiled::{self, Compiled, Inspection, Origin};
use crate::compiler::Compiler;
use crate::config::{EngineConfig, EngineError, has_swap};
use crate::digest::digest_of;
use crate::failure::{Phase, classify, cut, failure};
use crate::guest::Guest;
use crate::janitor::Janitor;
use crate::prepared::Prepared;
use crate::runtime::{Configured, Runtime, Unready, configure_seed};
use crate::set::{Entry, PolicySet};
use crate::settings;
use crate::slots::{Slot, Slots};
use crate::snapshot;
use crate::stage::{PolicySpec, Problem, Stage, StageError, Start};
use crate::ticker::Ticker;

/// Compiled modules kept for staging again.
const CACHED_MODULES: usize = 64;
/// Failed cases that are named.
const CASES_SHOWN: usize = 5;
/// How long all cases of a policy may take.
const CASES_TIME: Duration = Duration::from_secs(60);
/// How many sets of cases are remembered as passed.
const PASSED: usize = 1_024;
/// How long a new set waits for ready instances before it serves without.
const WARM_UP: Duration = Duration::from_millis(100);

/// The policy runtime. One per process.
pub struct Engine {
    compiler: Compiler,
    pub(crate) janitor: Janitor,
    pub(crate) runtime: Arc<Runtime>,
    artifacts: Arc<Artifacts>,
    slots: Slots,
    /// Instances that are configured while a decision waits: a policy that is slow to configure must not
    /// take every slot.
    slow: Slots,
    modules: Cache<Compiled>,
    /// What passed: module, settings and cases.
    passed: Mutex<BTreeSet<[u8; 32]>>,
    compilations: AtomicU64,
    // Last: whatever still runs is cut off by it.
    _ticker: Ticker,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("config", &self.runtime.config).finish_non_exhaustive()
    }
}

impl Engine {
    /// Starts the runtime and reserves the instance pool.
    ///
    /// # Errors
    /// When a setting is zero, the pool cannot be reserved (the error names the number to lower), or
    /// the folder for compiled code is not this user's alone.
    pub fn new(config: EngineConfig) -> Result<Arc<Self>, EngineError> {
        config.check()?;
        let wasm = wasmtime::Engine::new(&config.wasmtime(has_swap()))
            .map_err(|e| config.pool_error(cut(&format!("{e:#}"), 300)))?;
        let artifacts = Arc::new(Artifacts::open(config.cache.as_ref(), &wasm, config.memory_limit)?);
        let (slots, slow) = (Slots::new(config.instances), config.instances.div_ceil(4));
        let ticker = Ticker::start(&wasm)?;
        let runtime = Arc::new(Runtime { wasm, config });
        Ok(Arc::new(Self {
            compiler: Compiler::start()?,
            janitor: Janitor::start(Arc::clone(&runtime))?,
            runtime,
            artifacts,
            slots,
            slow: Slots::new(slow),
            modules: Cache::new(CACHED_MODULES),
            passed: Mutex::default(),
            compilations: AtomicU64::new(0),
            _ticker: ticker,
        }))
    }

    /// The settings it was started with.
    #[must_use]
    pub fn config(&self) -> &EngineConfig {
        &self.runtime.config
    }

    /// How many modules it compiled since it started; what a cache answered is not counted.
    #[must_use]
    pub fn compilations(&self) -> u64 {
        self.compilations.load(Ordering::Relaxed)
    }

    /// Waits until everything that happens in the background has happened: snapshots, ready instances.
    /// For measurements and tests; nothing that serves needs it.
    pub fn settle(&self) {
        self.compiler.settle();
        self.janitor.settle(Duration::from_secs(60));
    }

    /// Loads every policy, or none: compiles (or finds compiled), audits, describes, checks settings,
    /// configures, makes the first instances.
    ///
    /// Compiling takes from tens of milliseconds to tens of seconds, on a thread of low priority that
    /// the calling thread waits for.
    ///
    /// # Errors
    /// The first policy that failed, at which stage, and why.
    pub fn stage(self: &Arc<Self>, generation: u64, specs: &[PolicySpec]) -> Result<PolicySet, StageError> {
        let set = self.stage_or_deny(generation, specs);
        let failed = set.errors().next().cloned();
        failed.map_or(Ok(set), Err)
    }

    /// Like [`Engine::stage`], for a first start with no last good set to keep: a policy that cannot
    /// be loaded stays in the set and fails every decision as unavailable.
    pub fn stage_or_deny(self: &Arc<Self>, generation: u64, specs: &[PolicySpec]) -> PolicySet {
        let mut entries: Vec<Entry> = Vec::with_capacity(specs.len());
        for spec in specs {
            if let Some(first) = entries.iter_mut().find(|e| e.name == spec.name) {
                // Two policies of one name: neither can be meant.
                first.state = Err(Problem::new(Stage::Spec, "two policies have this name").of(&spec.name));
                continue;
            }
            entries.push(Entry::new(spec, self.load(spec)));
        }
        if specs.iter().any(|spec| spec.start == Start::Ready) {
            self.janitor.settle(WARM_UP);
        }
        PolicySet::new(Arc::clone(self), generation, entries)
    }

    /// Everything staging would do with one policy, keeping nothing but what it learned.
    ///
    /// # Errors
    /// As for [`Engine::stage`].
    pub fn check(&self, spec: &PolicySpec) -> Result<Inspection, StageError> {
        let checked = self.verified(spec).map(|(compiled, _)| compiled.about.clone());
        checked.map_err(|p| p.of(&spec.name))
    }

    /// What a module says about itself and what it touches. Runs `describe`, and nothing else.
    ///
    /// # Errors
    /// When it is not a policy this host could load.
    pub fn inspect(&self, module: &[u8]) -> Result<Inspection, StageError> {
        let compiled = self.module(&Arc::from(module), &digest_of(module));
        compiled.map(|compiled| compiled.about.clone()).map_err(|p| p.of(""))
    }

    fn load(self: &Arc<Self>, spec: &PolicySpec) -> Result<Arc<Prepared>, StageError> {
        let prepared = match spec.start {
            Start::Ready => self.prepared(spec),
            Start::Plain => {
                self.verified(spec).map(|(compiled, first)| Arc::new(self.prepare(spec, compiled, first, 0)))
            }
        };
        let passed = prepared.and_then(|prepared| self.pass(spec).map(|()| prepared));
        passed.map_err(|p| p.of(&spec.name))
    }

    /// Runs the policy's own cases, if it has any.
    fn pass(self: &Arc<Self>, spec: &PolicySpec) -> Result<(), Problem> {
        let Some(text) = &spec.cases else { return Ok(()) };
        let seed = configure_seed(&digest_of(&spec.module), &spec.settings);
        let what = digest_of(&[seed, digest_of(text.as_bytes())].concat());
        if self.passed().contains(&what) {
            return Ok(());
        }
        let problem = |message: String| Problem::new(Stage::Cases, message);
        let cases = Cases::parse(text).map_err(|e| problem(e.to_string()))?;
        let report = cases.run_within(CASES_TIME, self, spec);
        if report.passed() {
            let mut passed = self.passed();
            if passed.len() >= PASSED {
                passed.clear();
            }
            passed.insert(what);
            return Ok(());
        }
        let names: Vec<String> = report.failures().map(|(name, _)| format!("`{}`", cut(name, 120))).collect();
        let shown = names.iter().take(CASES_SHOWN).cloned().collect::<Vec<_>>().join(", ");
        let failed = (!names.is_empty()).then(|| format!("{} of its cases failed: {shown}", names.len()));
        let codes = |what: &str, codes: &[String]| {
            (!codes.is_empty()).then(|| format!("{what}: {}", cut(&codes.join(", "), 200)))
        };
        let missing = codes("codes that no case gives", &report.missing);
        let unlisted = codes("codes that its cases do not list", &report.unlisted);
        let parts: Vec<String> = [failed, missing, unlisted].into_iter().flatten().collect();
        Err(problem(format!("{}; `countersign policy test` shows how", parts.join("; "))))
    }

    fn passed(&self) -> MutexGuard<'_, BTreeSet<[u8; 32]>> {
        self.passed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What instances are made from: shared with every other policy of this module and settings.
    fn prepared(&self, spec: &PolicySpec) -> Result<Arc<Prepared>, Problem> {
        let digest = digest_of(&spec.module);
        let known = self.janitor.find(&configure_seed(&digest, &spec.settings));
        // The pin, the cases and the name are this policy's own.
        if let Some(known) = known {
            check_spec(spec, &digest)?;
            return Ok(known);
        }
        let (compiled, first) = self.verified(spec)?;
        let own = Arc::new(self.prepare(spec, compiled, first, self.runtime.config.ready));
        let prepared = self.janitor.look_after(Arc::clone(&own));
        if Arc::ptr_eq(&own, &prepared) {
            self.snapshot_later(&prepared, &spec.module);
        }
        Ok(prepared)
    }

    fn prepare(&self, spec: &PolicySpec, compiled: Arc<Compiled>, first: Configured, ready: u32) -> Prepared {
        let seed = configure_seed(&compiled.digest, &spec.settings);
        let settings = Arc::from(spec.settings.as_str());
        Prepared::new(compiled, settings, seed, first, ready, self.janitor.room())
    }

    /// Every step of staging but the last, and the instance they ended with.
    fn verified(&self, spec: &PolicySpec) -> Result<(Arc<Compiled>, Configured), Problem> {
        let digest = digest_of(&spec.module);
        check_spec(spec, &digest)?;
        let compiled = self.module(&spec.module, &digest)?;
        let document = settings::read(&spec.settings)?;
        let seed = configure_seed(&digest, &spec.settings);
        let slot = self.admit().map_err(|f| Problem::new(Stage::Configure, f.message))?;
        let configured = self.runtime.configured(&compiled, seed, &spec.settings);
        drop(slot);
        match configured {
            // The policy first: what it says of its own settings helps more than what a schema can say.
            Ok(first) => {
                settings::check(&document, &compiled.about.settings_schema)?;
                Ok((compiled, first))
            }
            Err(Unready::Failed(f)) => Err(Problem::new(Stage::Configure, format!("{}: {}", f.kind.code(), f.message))),
            Err(Unready::Refused(problems)) => Err(Problem::new(Stage::Settings, problems)),
        }
    }

    /// The compiled module: in memory, on disk, or from its bytes.
    fn module(&self, module: &Arc<[u8]>, digest: &Digest) -> Result<Arc<Compiled>, Problem> {
        let (size, limit) = (module.len(), self.runtime.config.module_limit);
        if size > limit {
            return Err(Problem::new(Stage::Size, format!("{size} bytes, at most {limit}")));
        }
        if let Some(known) = self.modules.get(digest) {
            return Ok(known);
        }
        let started = now();
        let (bytes, key) = (Arc::clone(module), *digest);
        let (runtime, artifacts) = (Arc::clone(&self.runtime), Arc::clone(&self.artifacts));
        let made = self.compiler.run(size, move || {
            let (component, origin) = compiled::component(&runtime.wasm, &artifacts, &bytes, &key)?;
            compiled::prepare(&runtime.wasm, &component).map(|(pre, surface)| (pre, surface, origin))
        });
        let (pre, surface, origin) =
            made.unwrap_or_else(|| Err(Problem::new(Stage::Compile, "the compiler failed on this module")))?;
        if origin == Origin::Compiler {
            self.compilations.fetch_add(1, Ordering::Relaxed);
        }
        let sha256 = hex::encode(digest);
        let description = self.describe(&pre, digest)?;
        let about = compiled::about(sha256, size, surface, description)?;
        let millis = micros_since(started) / 1_000;
        tracing::info!(sha256 = about.sha256, size, millis, ?origin, "policy module loaded");
        let compiled = Arc::new(Compiled { digest: *digest, pre, about });
        self.modules.insert(*digest, Arc::clone(&compiled));
        Ok(compiled)
    }

    fn describe(
        &self,
        pre: &crate::bindings::SpendPolicyPre<Guest>,
        digest: &Digest,
    ) -> Result<crate::bindings::countersign::policy::types::Description, Problem> {
        let _slot = self.admit().map_err(|f| Problem::new(Stage::Describe, f.message))?;
        let mut store = self.runtime.store(configure_seed(digest, ""));
        let instance = pre.instance_pre().instantiate(&mut store).map_err(|e| {
            let failed = classify(&e, Phase::Instantiate, store.data());
            Problem::new(Stage::Describe, failed.message)
        })?;
        // Looking the functions up checks their types.
        let policy = SpendPolicy::new(&mut store, &instance).map_err(|e| {
            let why = cut(&format!("{e:#}"), 300);
            let message = format!("a function of `{POLICY_INTERFACE}` has the wrong type: {why}");
            Problem::new(Stage::Exports, message)
        })?;
        policy
            .countersign_policy_policy()
            .call_describe(&mut store)
            .map_err(|e| Problem::new(Stage::Describe, classify(&e, Phase::Call("describe"), store.data()).message))
    }

    /// Makes a snapshot in the background, or finds out why there is none.
    fn snapshot_later(&self, prepared: &Arc<Prepared>, module: &Arc<[u8]>) {
        let (weak, module) = (Arc::downgrade(prepared), Arc::clone(module));
        let (runtime, artifacts) = (Arc::clone(&self.runtime), Arc::clone(&self.artifacts));
        self.compiler.later(module.len(), move || {
            // Nobody uses it any more: an edit came before its turn did.
            let Some(prepared) = weak.upgrade() else { return };
            let made = catch_unwind(AssertUnwindSafe(|| snapshot::prepare(&runtime, &artifacts, &prepared, &module)));
            let made = made.unwrap_or_else(|_| Err("it has something that snapshots cannot hold".to_owned()));
            if let Err(why) = &made {
                tracing::info!(sha256 = prepared.compiled.about.sha256, why, "this policy starts without a snapshot");
            }
            prepared.set_snapshot(made);
        });
    }

    /// A place to run in.
    pub(crate) fn admit(&self) -> Result<Slot<'_>, Failure> {
        self.place(&self.slots)
    }

    /// A place to be configured in while a decision waits.
    pub(crate) fn admit_slow(&self) -> Result<Slot<'_>, Failure> {
        self.place(&self.slow)
    }

    fn place<'a>(&self, slots: &'a Slots) -> Result<Slot<'a>, Failure> {
        let wait = Duration::from_millis(u64::from(self.runtime.config.admission_wait_ms));
        slots.acquire(wait).ok_or_else(|| {
            let message = format!(
                "all {} policy instances stayed busy for {} ms; raise the engine's `instances`",
                self.runtime.config.instances, self.runtime.config.admission_wait_ms
            );
            failure(FailureKind::Unavailable, message)
        })
    }
}

/// What can be wrong before the module is looked into.
fn check_spec(spec: &PolicySpec, digest: &Digest) -> Result<(), Problem> {
    if spec.name.is_empty() || spec.deadline_ms == 0 {
        return Err(Problem::new(Stage::Spec, "a policy needs a name and a deadline above zero"));
    }
    check_pin(spec.sha256_pin.as_deref(), digest)
}

fn check_pin(pin: Option<&str>, digest: &Digest) -> Result<(), Problem> {
    let found = hex::encode(digest);
    match pin {
        Some(pin) if !pin.eq_ignore_ascii_case(&found) => {
            let message = format!("pinned to sha256 {}, but the module is {found}", cut(pin, 80));
            Err(Problem::new(Stage::Digest, message))
        }
        _ => Ok(()),
    }
}

/// For durations shown to people; nothing decides by it.
#[expect(clippy::disallowed_methods, reason = "measures how long policies take, for people only")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

pub(crate) fn micros_since(start: Instant) -> u64 {
    u64::try_from(now().saturating_duration_since(start).as_micros()).unwrap_or(u64::MAX)
}
