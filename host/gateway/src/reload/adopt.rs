//! With a shared ledger, its generation is what serves, at every gateway: what one activates the others adopt, and a
//! file that says something else is reported, not activated, until an operator activates it somewhere.

use countersign_core::generation::{Generation, Origin};
use countersign_core::ledger::{Ledger, LedgerError, Note};
use serde_json::json;

use super::activate::{same_restrictions, unrecorded};
use super::candidate::{Candidate, Restored};
use super::files::{Files, Sight, look};
use super::{Refused, Reloader, refused};
use crate::config::{Config, Environment};
use crate::state::Snapshot;

/// The configuration that a generation of a shared ledger was made of, with this gateway's own part.
///
/// # Errors
/// When it cannot be read back, or does not go with our own.
pub(super) async fn base(
    ledger: &dyn Ledger,
    own: &Config,
    environment: &Environment,
    generation: &Generation,
) -> Result<Config, String> {
    if generation.config_sha256 == own.sha256 {
        return Ok(own.clone());
    }
    let number = generation.number;
    let found = ledger.remembered(vec![generation.config_sha256.clone()]).await;
    let text = found.map_err(|e| format!("the configuration of generation {number} cannot be read back: {e}"))?;
    let text = text.into_iter().next().and_then(|bytes| String::from_utf8(bytes).ok());
    let text = text.ok_or_else(|| format!("the configuration of generation {number} is no text"))?;
    own.with_common(&text, environment).map_err(|e| e.to_string())
}

impl Reloader {
    /// Whether the ledger decides what serves, and not the files.
    pub(super) fn is_shared(&self) -> bool {
        self.started.common().is_some()
    }

    /// Serves what another gateway activated, if it did.
    pub async fn adopt(&self) {
        let _turn = self.turn.lock().await;
        match self.adopt_newest().await {
            Ok(None) => {}
            Ok(Some(number)) => tracing::info!(generation = number, "another gateway's generation serves here"),
            Err(why) => {
                // What was tightened elsewhere voids what is judged here by the old one; it is tried again.
                tracing::error!(stage = why.stage, policy = why.policy, "not adopted: {}", why.message);
                if let Ok(now) = self.gateway.clock.now() {
                    self.state().last_error = Some((now, why));
                }
            }
        }
    }

    async fn adopt_newest(&self) -> Result<Option<u64>, Refused> {
        let ledger = &self.gateway.ledger;
        let unread = |e: LedgerError| refused("record", "", e.to_string());
        let Some(newest) = ledger.generations(None, 1).await.map_err(unread)?.into_iter().next() else {
            return Ok(None);
        };
        let (ours, serving) = {
            let state = self.state();
            (state.record.number, state.serving.clone())
        };
        if newest.number <= ours {
            return Ok(None);
        }
        let base = base(&**ledger, &self.running, &self.environment, &newest).await;
        let base = base.map_err(|why| refused("config", "", why))?;
        // What was taken away elsewhere holds here too, whatever becomes of the rest.
        self.take_away(&base).await;
        let fixed = self.running.needs_restart(&base);
        if !fixed.is_empty() {
            let message = format!("{} changed at another gateway; restart this one", fixed.join(", "));
            return Err(refused("needs-restart", "", message));
        }
        let restored = Restored::from_ledger(&**ledger, &newest).await.map_err(unread)?;
        let candidate = Candidate::adopted(&newest, restored.clone(), base.clone());
        candidate.check(&base)?;
        let policies = self.stage(&candidate, &serving, newest.number).await?;
        let _swap = self.swap.lock().await;
        let base = candidate.configured(&base);
        let config = base.restrict_to_both(&self.state().said.config);
        let number = newest.number;
        let rail = self.rail_of(&config);
        let next = Snapshot { generation: number, config, policies, rail };
        self.serve(next, |state| {
            state.base = Some(base);
            state.record = newest;
            state.serving = restored;
            state.unreadable.clear();
            state.last_error = None;
        })
        .await;
        Ok(Some(number))
    }

    /// What another gateway's generation removes or tightens.
    async fn take_away(&self, base: &Config) {
        let _swap = self.swap.lock().await;
        let live = self.gateway.live.load_full();
        let config = live.config.restrict(base);
        if same_restrictions(&live.config, &config) {
            return;
        }
        let (rail, policies) = (self.rail_of(&config), std::sync::Arc::clone(&live.policies));
        self.serve(Snapshot { generation: live.generation, config, policies, rail }, |_| ()).await;
    }

    /// What this gateway's file takes away holds here at once; what it adds, nowhere.
    pub(super) async fn restrict_here(&self, file: &Config) {
        let _swap = self.swap.lock().await;
        let live = self.gateway.live.load_full();
        let Some(base) = self.state().base.clone() else { return };
        let config = base.restrict_to_both(file);
        if same_restrictions(&live.config, &config) {
            return;
        }
        tracing::warn!("what this gateway's file removes or tightens, and nothing else of it, holds here from now on");
        let rail = self.rail_of(&config);
        let policies = std::sync::Arc::clone(&live.policies);
        self.serve(Snapshot { generation: live.generation, config, policies, rail }, |_| ()).await;
        let Ok(at) = self.gateway.clock.now() else { return };
        let body = json!({"generation": live.generation, "file_sha256": file.sha256});
        let note = Note { kind: "restricted-here", by: String::new(), body, at };
        if let Err(error) = self.gateway.ledger.note(note).await {
            tracing::error!(%error, "the restriction could not be recorded");
        }
    }

    /// With a shared ledger: an edit was seen, and takes effect only as far as it takes something away.
    pub(super) async fn keep_in_mind(&self, files: &Files) {
        let own_changed = !files.config.has_own_of(&self.started);
        self.restrict_here(&files.config).await;
        if own_changed {
            let message = "what is this gateway's own ([gateway], [ledger], [engine], [telemetry]) cannot change while running; restart it";
            self.refuse(refused("needs-restart", "", message)).await;
        } else {
            self.state().last_error = None;
        }
    }

    /// Activates what this gateway's files say, for all gateways on the ledger. Answers the generation.
    ///
    /// # Errors
    /// When the ledger is not shared (then files activate themselves), the files are not at rest, or they do not come
    /// through the gate every edit passes.
    pub async fn activate_files(&self, by: &str) -> Result<u64, Refused> {
        let _turn = self.turn.lock().await;
        let done = self.files_for_all(by).await;
        self.told(done, by).await
    }

    async fn files_for_all(&self, by: &str) -> Result<u64, Refused> {
        if !self.is_shared() {
            let why = "this ledger is the gateway's alone: its files take effect by themselves";
            return Err(refused("not-found", "", why));
        }
        let (path, environment) = (self.path.clone(), self.environment.clone());
        let looked = tokio::task::spawn_blocking(move || look(&path, &environment, &Default::default())).await;
        let files = match looked {
            Ok(Sight::Whole(files)) => files,
            Ok(Sight::Unusable(why, _)) => return Err(why),
            Ok(Sight::Partly(_) | Sight::Unsettled) | Err(_) => {
                return Err(refused("read", "", "the files are being written at this moment; try again"));
            }
        };
        if !files.config.has_own_of(&self.started) {
            let message = "what is this gateway's own cannot change while running; restart the gateway first";
            return Err(refused("needs-restart", "", message));
        }
        let serving = self.state().serving.clone();
        // Whatever stood in for files before: they are what is activated now.
        let nothing = Restored { number: serving.number, parts: vec![], mandates: vec![], mandates_stand_for: None };
        let candidate = Candidate { by: by.to_owned(), seen: None, ..Candidate::of_files(&files, &nothing)? };
        self.state().said = super::files::Said::by(&files);
        // Compared with what runs, not with what this file said at the start: no key signs on in another one's name.
        let fixed = self.running.needs_restart(&files.config);
        if fixed.is_empty() { self.take(candidate).await } else { self.write_only(candidate, &fixed).await }
    }

    /// Writes down a generation that serves after a restart of every gateway. Until then nothing is bought by the one
    /// before.
    async fn write_only(&self, candidate: Candidate, fixed: &[String]) -> Result<u64, Refused> {
        let (last, serving) = {
            let state = self.state();
            (state.record.clone(), state.serving.clone())
        };
        let Some(config) = candidate.config.clone() else { return Err(refused("config", "", "there is none")) };
        candidate.check(&config)?;
        let number = last.number.saturating_add(1);
        self.stage(&candidate, &serving, number).await?;
        self.remember(&candidate, &serving).await.map_err(unrecorded)?;
        let mut record = candidate.record(number, self.now()?, &config.sha256);
        self.write_down(&mut record, true).await.map_err(unrecorded)?;
        self.take_away(&config).await;
        let message =
            format!("generation {number} changes {}: restart every gateway; none buys before", fixed.join(", "));
        tracing::warn!(message);
        let at = self.now()?;
        self.state().last_error = Some((at, refused("needs-restart", "", message)));
        Ok(number)
    }
}

impl Candidate {
    /// A generation of another gateway's, as it is.
    pub(super) fn adopted(generation: &Generation, restored: Restored, base: Config) -> Self {
        Self {
            origin: generation.origin,
            by: generation.by.clone(),
            restores: generation.restores,
            config: Some(base),
            seen: None,
            parts: restored.parts,
            mandates: restored.mandates,
            mandates_stand_for: restored.mandates_stand_for,
        }
    }
}

/// Whether what serves is not what this gateway's files say.
pub(super) fn drifts(state: &super::State) -> bool {
    let said = &state.said;
    let other_module = |part: &super::part::Part| !said.part(part.name()).is_some_and(|file| file.is_recorded_as(part));
    said.config.sha256 != state.record.config_sha256
        || state.serving.parts.iter().any(other_module)
        || state.record.origin == Origin::Restart
}
