//! Reload: a candidate configuration and its policies take effect together or not at all.
//!
//! Guarantees: no purchase ever sees half of an edit, because it pins one [`Snapshot`]; an edit that
//! cannot be used leaves the last good one serving and says why in `GET /v1/policies`; what an edit
//! *removes or tightens* among agents, operators, networks and host limits holds as soon as the file
//! parses, whatever else is wrong with it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use countersign_core::ledger::Note;
use countersign_core::time::Timestamp;
use countersign_core::x402::X402;
use countersign_engine::{Engine, PolicySpec, PolicyState, StartedFrom};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::builtin;
use crate::casefile::CaseFile;
use crate::config::permissions::{Kind, check_private};
use crate::config::{Config, ConfigError, Environment, Module, PolicyConfig};
use crate::state::{Gateway, Snapshot};

/// Largest module file read, in bytes; the engine may accept less.
const MAX_MODULE: u64 = 64 << 20;

/// Why an edit was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// `config`, `needs-restart`, `read`, or a stage of the engine.
    pub stage: String,
    /// The policy at fault; empty when it is none.
    pub policy: String,
    /// For people.
    pub message: String,
}

struct Status {
    activated_at: Timestamp,
    last_error: Option<(Timestamp, Refused)>,
    /// Digest of the last candidate looked at: an event without a change is not an attempt.
    seen: [u8; 32],
    specs: Vec<PolicySpec>,
    unreadable: BTreeMap<String, String>,
}

/// Loads candidates and swaps them in.
pub struct Reloader {
    engine: Arc<Engine>,
    gateway: Arc<Gateway>,
    environment: Environment,
    path: PathBuf,
    status: Mutex<Status>,
    /// One attempt at a time.
    attempt: tokio::sync::Mutex<()>,
}

/// The first generation, staged at start: a policy that cannot be loaded denies, and says why.
pub struct FirstStart {
    /// What serves.
    pub snapshot: Snapshot,
    staged: Staged,
}

/// What a first generation was made of.
pub struct Staged {
    specs: Vec<PolicySpec>,
    unreadable: BTreeMap<String, String>,
    seen: [u8; 32],
}

impl FirstStart {
    /// Stages a configuration's policies.
    ///
    /// `seen` is the [`digest`] of its files, taken when it was read: an edit made while the gateway
    /// starts is an edit.
    #[must_use]
    pub fn stage(engine: &Arc<Engine>, config: Config, seen: [u8; 32]) -> Self {
        let mut specs = Vec::new();
        let mut unreadable = BTreeMap::new();
        for (name, policy) in &config.policies {
            match spec(name, policy) {
                Ok(spec) => specs.push(spec),
                Err(refused) => {
                    unreadable.insert(name.clone(), refused.message);
                }
            }
        }
        let policies = Arc::new(engine.stage_or_deny(1, &specs));
        let rail = Arc::new(X402::new(Arc::new(config.assets.clone())));
        let snapshot = Snapshot { generation: 1, config, policies, rail };
        Self { snapshot, staged: Staged { specs, unreadable, seen } }
    }

    /// What keeps the first generation from being whole, policy by policy.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let staged = self.snapshot.policies.errors().map(ToString::to_string);
        staged.chain(self.staged.unreadable.values().cloned()).collect()
    }

    /// Modules and settings, to be remembered for replay.
    #[must_use]
    pub fn blobs(&self) -> Vec<Vec<u8>> {
        blobs(&self.staged.specs)
    }

    /// Splits into what serves and what a reloader needs.
    #[must_use]
    pub fn into_parts(self) -> (Snapshot, Staged) {
        (self.snapshot, self.staged)
    }
}

impl Reloader {
    /// A reloader over a running gateway.
    #[must_use]
    pub fn new(
        engine: Arc<Engine>,
        gateway: Arc<Gateway>,
        environment: Environment,
        path: PathBuf,
        first: Staged,
        now: Timestamp,
    ) -> Self {
        let Staged { specs, unreadable, seen } = first;
        let last_error = unreadable.iter().next().map(|(policy, message)| {
            (now, Refused { stage: "read".to_owned(), policy: policy.clone(), message: message.clone() })
        });
        let staged = gateway.live.load().policies.errors().next().map(|e| {
            (now, Refused { stage: e.stage.code().to_owned(), policy: e.policy.clone(), message: e.message.clone() })
        });
        let status = Status { activated_at: now, last_error: staged.or(last_error), seen, specs, unreadable };
        Self { engine, gateway, environment, path, status: Mutex::new(status), attempt: tokio::sync::Mutex::default() }
    }

    /// Looks at the files again and activates what is new, if it can be.
    pub async fn reload(&self) {
        let _one = self.attempt.lock().await;
        let live = self.gateway.live.load_full();
        let (path, environment, known) = (self.path.clone(), self.environment.clone(), live.config.clone());
        let looked = tokio::task::spawn_blocking(move || look(&path, &environment, known)).await;
        let (loaded, seen) = match looked {
            Ok(looked) => looked,
            Err(error) => return tracing::error!(%error, "the configuration could not be read"),
        };
        if std::mem::replace(&mut self.status().seen, seen) == seen {
            return;
        }
        let candidate = match loaded {
            Ok(candidate) => candidate,
            Err(error) => return self.refuse(refused("config", "", error.to_string())).await,
        };
        self.activate(&live, candidate).await;
    }

    async fn activate(&self, live: &Arc<Snapshot>, candidate: Config) {
        let fixed = live.config.needs_restart(&candidate);
        if !fixed.is_empty() {
            let message = format!("{} cannot change while running; restart the gateway", fixed.join(", "));
            self.refuse(refused("needs-restart", "", message)).await;
            return self.restrict(live, &candidate).await;
        }
        let generation = live.generation.saturating_add(1);
        let engine = Arc::clone(&self.engine);
        let policies = candidate.policies.clone();
        let staged = tokio::task::spawn_blocking(move || {
            let specs = policies.iter().map(|(n, p)| spec(n, p)).collect::<Result<Vec<_>, Refused>>()?;
            let staged = engine.stage(generation, &specs);
            let set = staged.map_err(|e| refused(e.stage.code(), &e.policy, e.message))?;
            Ok::<_, Refused>((specs, set))
        });
        let (specs, set) = match staged.await {
            Ok(Ok(staged)) => staged,
            Ok(Err(error)) => {
                self.refuse(error).await;
                return self.restrict(live, &candidate).await;
            }
            Err(error) => return tracing::error!(%error, "staging ended abnormally"),
        };
        let tightened = !same_restrictions(&live.config, &live.config.restrict(&candidate));
        let remembered = blobs(&specs);
        let next = Snapshot {
            generation,
            rail: Arc::new(X402::new(Arc::new(candidate.assets.clone()))),
            config: candidate,
            policies: Arc::new(set),
        };
        self.swap(next, specs, tightened, None).await;
        if let Err(error) = self.gateway.ledger.remember(remembered).await {
            tracing::warn!(%error, "the modules could not be kept for replay");
        }
    }

    /// The restrictions of an edit that cannot be activated.
    async fn restrict(&self, live: &Arc<Snapshot>, candidate: &Config) {
        let config = live.config.restrict(candidate);
        if same_restrictions(&live.config, &config) {
            return;
        }
        let generation = live.generation.saturating_add(1);
        let specs = self.status().specs.clone();
        let engine = Arc::clone(&self.engine);
        let again = specs.clone();
        // Compiled modules are shared by digest: this is the same set under a new number.
        let staged = tokio::task::spawn_blocking(move || engine.stage_or_deny(generation, &again));
        let Ok(set) = staged.await else { return tracing::error!("staging ended abnormally") };
        let refused = self.status().last_error.clone();
        tracing::warn!("the edit cannot be activated; what it removes or tightens holds from now on");
        let next = Snapshot { generation, config, policies: Arc::new(set), rail: Arc::clone(&live.rail) };
        self.swap(next, specs, true, refused).await;
    }

    /// Activates; `refused` is what stays wrong with the files.
    async fn swap(
        &self,
        next: Snapshot,
        specs: Vec<PolicySpec>,
        tightened: bool,
        refused: Option<(Timestamp, Refused)>,
    ) {
        let Ok(now) = self.gateway.clock.now() else { return tracing::error!("no usable clock; nothing is activated") };
        let generation = next.generation;
        let names: Vec<_> = next
            .policies
            .status()
            .iter()
            .map(|p| json!({"name": p.name, "module_sha256": p.module_sha256, "settings_sha256": p.settings_sha256}))
            .collect();
        if let Err(error) = self.gateway.chains.configure(&next.config.networks) {
            tracing::error!(%error, "the chain nodes stay as they were");
        }
        let nodes = self.gateway.chains.addresses().await;
        self.gateway.dialer.set_own(nodes.into_iter().chain(self.gateway.listeners).collect());
        self.gateway.live.store(Arc::new(next));
        if tightened && let Err(error) = self.gateway.ledger.require_generation(generation).await {
            tracing::error!(%error, "purchases judged before the edit may still be committed");
        }
        {
            let mut status = self.status();
            status.activated_at = now;
            status.last_error = refused;
            status.specs = specs;
            status.unreadable = BTreeMap::new();
        }
        tracing::info!(generation, "activated");
        let body = json!({"generation": generation, "policies": names});
        let note = Note { kind: "policies-activated", by: String::new(), body, at: now };
        if let Err(error) = self.gateway.ledger.note(note).await {
            tracing::error!(%error, "the activation could not be recorded");
        }
    }

    async fn refuse(&self, error: Refused) {
        tracing::warn!(stage = error.stage, policy = error.policy, message = error.message, "the edit was refused");
        let Ok(now) = self.gateway.clock.now() else { return };
        let body = json!({"stage": error.stage, "policy": error.policy, "message": error.message});
        self.status().last_error = Some((now, error));
        let note = Note { kind: "policies-refused", by: String::new(), body, at: now };
        if let Err(error) = self.gateway.ledger.note(note).await {
            tracing::error!(%error, "the refusal could not be recorded");
        }
    }

    fn status(&self) -> std::sync::MutexGuard<'_, Status> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `GET /v1/policies`.
    #[must_use]
    pub fn report(&self) -> Value {
        let live = self.gateway.live.load_full();
        let status = self.status();
        let last_error = status
            .last_error
            .as_ref()
            .map(|(at, e)| json!({"at": at.to_string(), "stage": e.stage, "policy": e.policy, "message": e.message}));
        let mut policies: Vec<Value> = live.policies.status().iter().map(policy_status).collect();
        for (name, message) in &status.unreadable {
            policies.push(json!({"name": name, "state": "invalid", "error": message}));
        }
        json!({
            "generation": live.generation,
            "activated_at": status.activated_at.to_string(),
            "origin": "file",
            "config_drift": last_error.is_some(),
            "last_error": last_error,
            "policies": policies,
        })
    }

    /// Every file whose change means an edit: the configuration, the modules and their cases.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        let live = self.gateway.live.load();
        std::iter::once(self.path.clone()).chain(policy_files(&live.config)).collect()
    }
}

fn policy_status(status: &countersign_engine::PolicyStatus) -> Value {
    json!({
        "name": status.name,
        "state": if status.state == PolicyState::Active { "active" } else { "invalid" },
        "version": status.version,
        "module_sha256": status.module_sha256,
        "settings_sha256": status.settings_sha256,
        "mode": status.mode,
        "imports": status.imports,
        "start": status.started_from.as_ref().map(StartedFrom::code),
        "no_snapshot": match &status.started_from {
            Some(StartedFrom::Module(why)) => Some(why),
            _ => None,
        },
        "ready": status.ready,
        "decisions": status.decisions,
        "p50_us": status.p50_us,
        "p99_us": status.p99_us,
        "error": status.error.as_ref().map(ToString::to_string),
    })
}

fn refused(stage: &str, policy: &str, message: impl Into<String>) -> Refused {
    Refused { stage: stage.to_owned(), policy: policy.to_owned(), message: message.into() }
}

fn policy_files(config: &Config) -> impl Iterator<Item = PathBuf> {
    config.policies.values().flat_map(|p| {
        let module = match &p.module {
            Module::File(path) => Some(path.clone()),
            Module::Builtin(_) => None,
        };
        module.into_iter().chain(p.case_files())
    })
}

/// Reads the configuration together with the digest of exactly what was read: an edit that lands
/// while it is read must not be taken for seen. A file that is never at rest is read a few times, and
/// looked at again next time.
fn look(path: &Path, environment: &Environment, mut known: Config) -> (Result<Config, ConfigError>, [u8; 32]) {
    let mut before = digest(path, &known);
    let mut tries = 0..8;
    loop {
        let loaded = load(path, environment);
        if let Ok(config) = &loaded {
            known = config.clone();
        }
        let after = digest(path, &known);
        if before == after {
            return (loaded, after);
        }
        if tries.next().is_none() {
            return (loaded, before);
        }
        before = after;
    }
}

fn blobs(specs: &[PolicySpec]) -> Vec<Vec<u8>> {
    specs.iter().flat_map(|s| [s.module.to_vec(), s.settings.clone().into_bytes()]).collect()
}

/// Reads a configuration that names only builtins there are.
///
/// # Errors
/// The first mistake, with its place.
pub fn load(path: &Path, environment: &Environment) -> Result<Config, ConfigError> {
    let config = Config::load(path, environment)?;
    config.check_builtins(&builtin::names())?;
    Ok(config)
}

/// Reads a policy's module once: what is hashed is what runs.
fn spec(name: &str, policy: &PolicyConfig) -> Result<PolicySpec, Refused> {
    let fail = |message: String| refused("read", name, message);
    let module: Arc<[u8]> = match &policy.module {
        Module::Builtin(builtin) => builtin::module(builtin)
            .ok_or_else(|| fail(format!("there is no builtin `{builtin}`; there are {}", builtin::names().join(", "))))?
            .into(),
        Module::File(path) => read_module(path).map_err(fail)?.into(),
    };
    Ok(PolicySpec {
        sha256_pin: policy.sha256.clone(),
        mode: policy.mode,
        deadline_ms: policy.deadline_ms,
        claims: policy.claims,
        settings: policy.settings.clone(),
        cases: read_cases(policy).map_err(fail)?.map(Into::into),
        ..PolicySpec::new(name, module)
    })
}

/// The policy's own cases, which it must pass before it serves.
fn read_cases(policy: &PolicyConfig) -> Result<Option<String>, String> {
    let found = match &policy.cases {
        Some(named) => Some(CaseFile::read(named)?),
        None => CaseFile::find(&policy.case_files())?,
    };
    let Some(found) = found else { return Ok(None) };
    check_private(&found.path, Kind::Policy).map_err(|e| e.to_string())?;
    Ok(Some(found.text))
}

fn read_module(path: &Path) -> Result<Vec<u8>, String> {
    check_private(path, Kind::Policy).map_err(|e| e.to_string())?;
    let size = std::fs::metadata(path).map_err(|e| format!("{}: {e}", path.display()))?.len();
    if size > MAX_MODULE {
        return Err(format!("{} has {size} bytes; at most {MAX_MODULE}", path.display()));
    }
    std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()))
}

/// Over the bytes of every watched file. Reading them again is the point: events are only hints.
#[must_use]
pub fn digest(path: &Path, config: &Config) -> [u8; 32] {
    let mut hash = Sha256::new();
    for file in std::iter::once(path.to_path_buf()).chain(policy_files(config)) {
        hash.update(file.as_os_str().as_encoded_bytes());
        // A file that is not there is not an empty file.
        match std::fs::read(&file) {
            Ok(bytes) => hash.update(Sha256::digest(&bytes)),
            Err(error) => hash.update(error.kind().to_string()),
        }
    }
    hash.finalize().into()
}

/// Whether two configurations restrict the same.
fn same_restrictions(a: &Config, b: &Config) -> bool {
    a.agents == b.agents
        && a.operators == b.operators
        && a.limits == b.limits
        && a.egress == b.egress
        && a.approvals == b.approvals
        && a.networks == b.networks
        && a.wallets
            .iter()
            .map(|(n, w)| (n, &w.networks, w.daily_limit))
            .eq(b.wallets.iter().map(|(n, w)| (n, &w.networks, w.daily_limit)))
}
