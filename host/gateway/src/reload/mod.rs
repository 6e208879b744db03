//! Reload: a candidate configuration and its policies take effect together or not at all.
//!
//! Guarantees: no purchase ever sees half of an edit, because it pins one [`Snapshot`](crate::state::Snapshot); an edit that
//! cannot be used leaves the last good one serving and says why in `GET /v1/policies`; what an edit
//! *removes or tightens* among agents, operators, networks and host limits holds as soon as the file
//! parses, whatever else is wrong with it and however long its modules take to compile; what serves
//! was written down in the ledger first.
//!
//! | module | what it does |
//! | --- | --- |
//! | `files` | reads everything once, at rest |
//! | `part`, `candidate` | what would serve: the files, with what operators put in their place |
//! | `activate` | stage, record, swap |
//! | `adopt` | with a shared ledger: what others activated, and files that differ |
//! | `operator` | modules put and generations gone back to |
//! | `start` | the first generation of a process |
//! | `report` | how it looks from outside |
//!
//! Three locks, always taken in this order: `turn` (one staging at a time, as long as it takes),
//! `swap` (one change of the live generation, as long as a ledger write), `state` (never across an
//! await).

mod activate;
mod adopt;
mod candidate;
mod files;
mod operator;
mod part;
mod report;
mod start;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use countersign_core::generation::Generation;
use countersign_core::ledger::Note;
use countersign_core::time::Timestamp;
use countersign_engine::Engine;
use serde_json::json;
use tokio::sync::{Semaphore, watch};

use crate::config::{Config, Environment};
use crate::state::Gateway;
use crate::telemetry::Reloaded;

pub use files::load;
pub use start::FirstStart;
pub(crate) use start::{has_good_one, of_the_ledger};

use candidate::{Candidate, Restored};
use files::{Files, Said, Sight, look};

/// Stagings that may run at a time: one, and one that a newer edit has made pointless.
const RUNNING: usize = 2;

/// Why an edit was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// `config`, `needs-restart`, `read`, `mandate`, `pinned`, `not-found`, `forbidden`, `settings`,
    /// `record`, or a stage of the engine.
    pub stage: String,
    /// The policy at fault; empty when it is none.
    pub policy: String,
    /// For people.
    pub message: String,
}

fn refused(stage: &str, policy: &str, message: impl Into<String>) -> Refused {
    Refused { stage: stage.to_owned(), policy: policy.to_owned(), message: message.into() }
}

/// What a reloader knows of what serves and of the files.
struct State {
    /// What serves, as the ledger has it.
    record: Generation,
    /// What it was made of.
    serving: Restored,
    /// With a shared ledger: its generation's configuration, of which this gateway's file may only take away.
    base: Option<Config>,
    /// What the files said when they could last be read.
    said: Said,
    /// Digest of the last files looked at, unless they must be looked at again whatever they say.
    seen: Option<[u8; 32]>,
    last_error: Option<(Timestamp, Refused)>,
    /// Whether something was taken away that the ledger could not be told of.
    untold: bool,
    /// Policies of a first start that could not even be read.
    unreadable: BTreeMap<String, String>,
}

/// Loads candidates and swaps them in.
pub struct Reloader {
    engine: Arc<Engine>,
    gateway: Arc<Gateway>,
    environment: Environment,
    path: PathBuf,
    /// The configuration this process was started with: what cannot change is compared with it.
    started: Config,
    /// What of it runs until a restart: with a shared ledger, that of the generation it was started with.
    running: Config,
    state: Mutex<State>,
    /// Changes whenever other files were seen.
    newer: watch::Sender<()>,
    turn: tokio::sync::Mutex<()>,
    swap: tokio::sync::Mutex<()>,
    /// Stagings that go on, abandoned ones among them.
    stagings: Arc<Semaphore>,
}

/// An edit that was seen, to be activated.
pub struct Edit(Box<Files>);

impl Reloader {
    /// A reloader over a running gateway.
    #[must_use]
    pub fn new(engine: Arc<Engine>, gateway: Arc<Gateway>, environment: Environment, first: start::Parts) -> Self {
        let start::Parts { started, running, state } = first;
        let path = started.path.clone();
        gateway.telemetry.metrics.files_serve(state.last_error.is_none());
        Self {
            engine,
            gateway,
            environment,
            path,
            started,
            running,
            state: Mutex::new(state),
            newer: watch::Sender::default(),
            turn: tokio::sync::Mutex::default(),
            swap: tokio::sync::Mutex::default(),
            stagings: Arc::new(Semaphore::new(RUNNING)),
        }
    }

    /// Looks at the files again. What they take away holds when this returns; the rest of a new edit
    /// is returned, for [`Self::activate`]. Files in `open` are being written and are left alone.
    pub async fn look(&self, open: BTreeSet<PathBuf>) -> Option<Edit> {
        let (path, environment) = (self.path.clone(), self.environment.clone());
        let looked = tokio::task::spawn_blocking(move || look(&path, &environment, &open)).await;
        let files = match looked {
            Ok(Sight::Unsettled) => return None,
            Ok(Sight::Unusable(why, seen)) => {
                if self.sees(Some(seen)) {
                    self.refuse(why).await;
                }
                return None;
            }
            Ok(Sight::Partly(config)) => {
                if self.is_shared() {
                    self.state().said.config = (*config).clone();
                    self.restrict_here(&config).await;
                    return None;
                }
                // Whatever is being staged must not undo what this takes away.
                self.sees(None);
                self.restrict(&config).await;
                return None;
            }
            Ok(Sight::Whole(files)) => files,
            Err(error) => {
                tracing::error!(%error, "the files could not be read");
                return None;
            }
        };
        self.state().said = Said::by(&files);
        if self.is_shared() {
            if self.sees(Some(files.seen)) {
                self.keep_in_mind(&files).await;
            }
            return None;
        }
        if !self.sees(Some(files.seen)) {
            if self.state().untold {
                // Told as soon as the store writes again, whether or not anybody edits.
                self.restrict(&files.config).await;
                let told = !self.state().untold;
                return told.then(|| Edit(files));
            }
            return None;
        }
        self.restrict(&files.config).await;
        Some(Edit(files))
    }

    /// Activates an edit, unless a newer one was seen meanwhile.
    pub async fn activate(self: Arc<Self>, edit: Edit) {
        let _turn = self.turn.lock().await;
        let Edit(files) = edit;
        if !self.is_latest(Some(files.seen)) {
            return;
        }
        let fixed = self.started.needs_restart(&files.config);
        if !fixed.is_empty() {
            let message = format!("{} cannot change while running; restart the gateway", fixed.join(", "));
            return self.refuse(refused("needs-restart", "", message)).await;
        }
        let serving = self.state().serving.clone();
        let activated = match Candidate::of_files(&files, &serving) {
            Ok(candidate) => self.take(candidate).await,
            Err(why) => Err(why),
        };
        // What was superseded is nobody's mistake any more.
        if let Err(why) = activated
            && self.is_latest(Some(files.seen))
        {
            if why.stage == "record" {
                // Nothing is wrong with the files: they are tried again.
                self.state().seen = None;
            }
            self.refuse(why).await;
        }
    }

    /// Remembers the files seen; whether they are others than before.
    fn sees(&self, seen: Option<[u8; 32]>) -> bool {
        let other = std::mem::replace(&mut self.state().seen, seen) != seen;
        if other {
            self.newer.send_replace(());
        }
        other
    }

    /// Whether no newer files were seen than those with this digest.
    fn is_latest(&self, seen: Option<[u8; 32]>) -> bool {
        seen.is_none() || self.state().seen == seen
    }

    async fn refuse(&self, error: Refused) {
        self.gateway.telemetry.metrics.reload(Reloaded::Refused);
        tracing::warn!(stage = error.stage, policy = error.policy, message = error.message, "the edit was refused");
        let Ok(now) = self.gateway.clock.now() else { return };
        self.state().last_error = Some((now, error.clone()));
        self.gateway.telemetry.metrics.files_serve(false);
        self.note("policies-refused", "", &error, now).await;
    }

    async fn note(&self, kind: &'static str, by: &str, error: &Refused, at: Timestamp) {
        let body = json!({"stage": error.stage, "policy": error.policy, "message": error.message});
        if let Err(error) = self.gateway.ledger.note(Note { kind, by: by.to_owned(), body, at }).await {
            tracing::error!(%error, "the refusal could not be recorded");
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every file whose change means an edit: the configuration, and the modules and cases that it and
    /// the live one name.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        let said = self.state().said.config.clone();
        let live = self.gateway.live.load();
        let policies = files::policy_files(&said).into_iter().chain(files::policy_files(&live.config));
        std::iter::once(self.path.clone()).chain(policies).collect()
    }
}
