//! The engine: one wasmtime, its ticker, its pool, and the way from bytes to a policy that answers.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use countersign_core::verdict::{Failure, FailureKind};
use sha2::{Digest as _, Sha256};
use wasmtime::Store;

use crate::POLICY_INTERFACE;
use crate::bindings::SpendPolicy;
use crate::cache::{Cache, Digest};
use crate::compiled::{self, Compiled, Inspection};
use crate::config::{EngineConfig, EngineError, has_swap};
use crate::failure::{Phase, classify, cut, failure};
use crate::guest::{Guest, seed};
use crate::set::{Entry, PolicySet};
use crate::slots::{Slot, Slots};
use crate::stage::{PolicySpec, Problem, Stage, StageError};
use crate::ticker::Ticker;

/// Compiled modules kept for staging again.
const CACHED_MODULES: usize = 64;
/// Most a guest may hand over in one call. wasmtime's own default would let it copy 128 MiB.
const HOSTCALL_BYTES: usize = 1 << 20;
/// Largest settings document.
const SETTINGS_BYTES: usize = 1 << 20;
/// Problems of one settings document that are reported.
const PROBLEMS: usize = 32;

/// The policy runtime. One per process.
pub struct Engine {
    // First, so that it stops before what it ticks goes away.
    _ticker: Ticker,
    wasm: wasmtime::Engine,
    config: EngineConfig,
    slots: Slots,
    modules: Cache<Compiled>,
    /// One compilation at a time: a folder full of new modules must not take every core.
    compiling: Mutex<()>,
    compilations: AtomicU64,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Engine {
    /// Starts the runtime and reserves the instance pool.
    ///
    /// # Errors
    /// When a setting is zero, or the pool cannot be reserved; the error names the number to lower.
    pub fn new(config: EngineConfig) -> Result<Arc<Self>, EngineError> {
        config.check()?;
        let wasm = wasmtime::Engine::new(&config.wasmtime(has_swap()))
            .map_err(|e| config.pool_error(cut(&format!("{e:#}"), 300)))?;
        Ok(Arc::new(Self {
            _ticker: Ticker::start(&wasm)?,
            wasm,
            slots: Slots::new(config.instances),
            modules: Cache::new(CACHED_MODULES),
            compiling: Mutex::new(()),
            compilations: AtomicU64::new(0),
            config,
        }))
    }

    /// The settings it was started with.
    #[must_use]
    pub fn config(&self) -> &EngineConfig {
        &self.config
    }

    /// How many modules it compiled since it started; what the cache answered is not counted.
    #[must_use]
    pub fn compilations(&self) -> u64 {
        self.compilations.load(Ordering::Relaxed)
    }

    /// Loads every policy, or none: compiles (or finds compiled), audits, describes, configures.
    ///
    /// Compiling takes from tens of milliseconds to tens of seconds, on the calling thread.
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
        PolicySet::new(Arc::clone(self), generation, entries)
    }

    /// Everything staging would do with one policy, keeping nothing but what it learned.
    ///
    /// # Errors
    /// As for [`Engine::stage`].
    pub fn check(&self, spec: &PolicySpec) -> Result<Inspection, StageError> {
        self.load(spec).map(|compiled| compiled.about.clone())
    }

    /// What a module says about itself and what it touches. Runs `describe`, and nothing else.
    ///
    /// # Errors
    /// When it is not a policy this host could load.
    pub fn inspect(&self, module: &[u8]) -> Result<Inspection, StageError> {
        let inspect = || self.module(module, &digest_of(module));
        inspect().map(|compiled| compiled.about.clone()).map_err(|p| p.of(""))
    }

    fn load(&self, spec: &PolicySpec) -> Result<Arc<Compiled>, StageError> {
        self.load_steps(spec).map_err(|p| p.of(&spec.name))
    }

    fn load_steps(&self, spec: &PolicySpec) -> Result<Arc<Compiled>, Problem> {
        if spec.name.is_empty() || spec.deadline_ms == 0 {
            return Err(Problem::new(Stage::Spec, "a policy needs a name and a deadline above zero"));
        }
        let digest = digest_of(&spec.module);
        check_pin(spec.sha256_pin.as_deref(), &digest)?;
        let compiled = self.module(&spec.module, &digest)?;
        check_settings(&spec.settings)?;
        self.try_configure(&compiled, &spec.settings)?;
        Ok(compiled)
    }

    /// The compiled module, from the cache or from its bytes.
    fn module(&self, module: &[u8], digest: &Digest) -> Result<Arc<Compiled>, Problem> {
        let (size, limit) = (module.len(), self.config.module_limit);
        if size > limit {
            return Err(Problem::new(Stage::Size, format!("{size} bytes, at most {limit}")));
        }
        if let Some(known) = self.modules.get(digest) {
            return Ok(known);
        }
        let _one_at_a_time = self.compiling.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = self.modules.get(digest) {
            return Ok(known);
        }
        let started = now();
        self.compilations.fetch_add(1, Ordering::Relaxed);
        let (pre, surface) = catch_unwind(AssertUnwindSafe(|| compiled::prepare(&self.wasm, module)))
            .unwrap_or_else(|_| Err(Problem::new(Stage::Compile, "the compiler failed on this module")))?;
        let sha256 = hex::encode(digest);
        let description = self.describe(&pre, digest)?;
        let about = compiled::about(sha256, size, surface, description)?;
        tracing::info!(sha256 = about.sha256, size, millis = micros_since(started) / 1_000, "policy module compiled");
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
        let mut store = self.store(configure_seed(digest, ""));
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

    fn try_configure(&self, compiled: &Compiled, settings: &str) -> Result<(), Problem> {
        let _slot = self.admit().map_err(|f| Problem::new(Stage::Configure, f.message))?;
        let mut store = self.store(configure_seed(&compiled.digest, settings));
        match self.configured(compiled, &mut store, settings) {
            Ok(_) => Ok(()),
            Err(Unready::Failed(f)) => Err(Problem::new(Stage::Configure, format!("{}: {}", f.kind.code(), f.message))),
            Err(Unready::Refused(problems)) => Err(Problem::new(Stage::Settings, problems)),
        }
    }

    /// A place to run in.
    pub(crate) fn admit(&self) -> Result<Slot<'_>, Failure> {
        let wait = Duration::from_millis(u64::from(self.config.admission_wait_ms));
        self.slots.acquire(wait).ok_or_else(|| {
            let message = format!(
                "all {} policy instances stayed busy for {} ms; raise the engine's `instances`",
                self.config.instances, self.config.admission_wait_ms
            );
            failure(FailureKind::Unavailable, message)
        })
    }

    /// A store with the budgets of everything before `evaluate`.
    pub(crate) fn store(&self, seed: [u8; 32]) -> Store<Guest> {
        let mut store = Store::new(&self.wasm, Guest::new(self.config.memory_limit, seed));
        store.limiter(|guest| &mut guest.memory);
        store.set_hostcall_fuel(HOSTCALL_BYTES);
        give(&mut store, self.config.configure_fuel, self.config.configure_deadline_ms);
        store
    }

    /// Instantiates and configures.
    pub(crate) fn configured(
        &self,
        compiled: &Compiled,
        store: &mut Store<Guest>,
        settings: &str,
    ) -> Result<SpendPolicy, Unready> {
        let policy =
            compiled.instantiate(store).map_err(|e| Unready::Failed(classify(&e, Phase::Instantiate, store.data())))?;
        match policy.countersign_policy_policy().call_configure(&mut *store, settings) {
            Ok(Ok(())) => Ok(policy),
            Ok(Err(problems)) => Err(Unready::Refused(problems_text(&problems))),
            Err(e) => Err(Unready::Failed(classify(&e, Phase::Call("configure"), store.data()))),
        }
    }
}

/// Why an instance is not ready to be asked.
pub(crate) enum Unready {
    Failed(Failure),
    /// It found problems in its settings.
    Refused(String),
}

/// Sets both budgets anew.
pub(crate) fn give(store: &mut Store<Guest>, fuel: u64, deadline_ms: u32) {
    // Fails only on an engine without fuel, and then nothing runs at all.
    drop(store.set_fuel(fuel));
    // The current epoch has partly passed already: one more, so that nobody gets less.
    store.set_epoch_deadline(u64::from(deadline_ms).saturating_add(1));
}

/// The randomness a policy sees until `evaluate`.
pub(crate) fn configure_seed(module: &Digest, settings: &str) -> [u8; 32] {
    seed("configure", &[module, &digest_of(settings.as_bytes())])
}

pub(crate) fn digest_of(bytes: &[u8]) -> Digest {
    Sha256::digest(bytes).into()
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

fn check_settings(settings: &str) -> Result<(), Problem> {
    let problem = |message: String| Err(Problem::new(Stage::Settings, message));
    if settings.len() > SETTINGS_BYTES {
        return problem(format!("{} bytes, at most {SETTINGS_BYTES}", settings.len()));
    }
    match serde_json::from_str::<serde::de::IgnoredAny>(settings) {
        Ok(_) => Ok(()),
        Err(e) => problem(format!("not a JSON document: {e}")),
    }
}

/// `/hosts/0: not a host; : …`, with the whole document shown as `settings`.
fn problems_text(problems: &[crate::bindings::countersign::policy::types::Problem]) -> String {
    if problems.is_empty() {
        return "the policy refused its settings and did not say why".to_owned();
    }
    let one = |p: &crate::bindings::countersign::policy::types::Problem| {
        let path = if p.path.is_empty() { "(whole document)" } else { &p.path };
        format!("{}: {}", cut(path, 200), cut(&p.message, 500))
    };
    let mut lines: Vec<String> = problems.iter().take(PROBLEMS).map(one).collect();
    if problems.len() > PROBLEMS {
        lines.push(format!("and {} more", problems.len() - PROBLEMS));
    }
    lines.join("; ")
}

/// For durations shown to people; nothing decides by it.
#[expect(clippy::disallowed_methods, reason = "measures how long policies take, for people only")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

pub(crate) fn micros_since(start: Instant) -> u64 {
    u64::try_from(now().saturating_duration_since(start).as_micros()).unwrap_or(u64::MAX)
}
