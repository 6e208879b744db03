//! Stage, record, swap.

use std::sync::Arc;

use countersign_core::generation::{Generation, Origin};
use countersign_core::ledger::LedgerError;
use countersign_core::rails::Rails;
use countersign_core::seams::Rail;
use countersign_core::time::Timestamp;
use countersign_engine::{PolicySet, PolicySpec};

use super::candidate::{Candidate, Restored};
use super::part::Part;
use super::{Refused, Reloader, State, refused};
use crate::config::{Config, OperatorConfig, OperatorRole};
use crate::state::Snapshot;
use crate::telemetry::Reloaded;

/// How long the names of chain nodes may take to resolve before a generation serves without, in
/// milliseconds.
const RESOLVE_MS: u64 = 1_000;

impl Reloader {
    /// Stages a candidate and, if nothing is wrong with it, writes it down and lets it serve; answers
    /// the number it serves under. Only for the holder of the turn.
    pub(super) async fn take(&self, candidate: Candidate) -> Result<u64, Refused> {
        candidate.check(candidate.config.as_ref().unwrap_or(&self.running))?;
        let (record, serving) = {
            let state = self.state();
            (state.record.clone(), state.serving.clone())
        };
        let same_cases = candidate.parts.iter().zip(&serving.parts).all(|(a, b)| a.spec.cases == b.spec.cases);
        if same_cases && is_what_serves(&candidate, &record) {
            if self.is_latest(candidate.seen) {
                self.state().last_error = None;
                self.gateway.telemetry.metrics.files_serve(true);
            }
            return Ok(record.number);
        }
        let policies = self.stage(&candidate, &serving, record.number.saturating_add(1)).await?;
        self.remember(&candidate, &serving).await.map_err(unrecorded)?;
        self.swap(candidate, policies).await
    }

    /// The staged set; the live one, if it is made of the same policies.
    pub(super) async fn stage(
        &self,
        candidate: &Candidate,
        serving: &Restored,
        number: u64,
    ) -> Result<Arc<PolicySet>, Refused> {
        let live = Arc::clone(&self.gateway.live.load().policies);
        let same = candidate.parts.len() == serving.parts.len()
            && candidate.parts.iter().zip(&serving.parts).all(|(a, b)| a.serves_as(b));
        if same && live.errors().next().is_none() {
            return Ok(live);
        }
        let specs: Vec<PolicySpec> = candidate.parts.iter().map(|p| p.spec.clone()).collect();
        let (engine, running) = (Arc::clone(&self.engine), Arc::clone(&self.stagings));
        let staging = async move {
            let one = running.acquire_owned().await;
            tokio::task::spawn_blocking(move || {
                let _one = one;
                engine.stage(number, &specs)
            })
            .await
        };
        let mut staging = std::pin::pin!(staging);
        let mut newer = self.newer.subscribe();
        loop {
            tokio::select! {
                staged = &mut staging => return match staged {
                    Ok(Ok(set)) => Ok(Arc::new(set)),
                    Ok(Err(e)) => Err(refused(e.stage.code(), &e.policy, e.message)),
                    Err(error) => Err(refused("stage", "", format!("staging ended abnormally: {error}"))),
                },
                // A compiler cannot be stopped, but nobody needs to wait for it.
                Ok(()) = newer.changed() => {
                    if !self.is_latest(candidate.seen) {
                        return Err(superseded());
                    }
                }
            }
        }
    }

    /// Keeps the bytes a generation needs, before it serves.
    pub(super) async fn remember(&self, candidate: &Candidate, serving: &Restored) -> Result<(), LedgerError> {
        let known = |p: &&Part| !serving.parts.iter().any(|s| s.serves_as(p));
        let mut blobs: Vec<_> = candidate.parts.iter().filter(known).flat_map(Part::blobs).collect();
        blobs.extend(candidate.common());
        if blobs.is_empty() { Ok(()) } else { self.gateway.ledger.remember(blobs).await }
    }

    async fn swap(&self, candidate: Candidate, policies: Arc<PolicySet>) -> Result<u64, Refused> {
        let _swap = self.swap.lock().await;
        let live = self.gateway.live.load_full();
        if !self.is_latest(candidate.seen) {
            return Err(superseded());
        }
        may_still(&candidate.by, &live.config)?;
        let base = self.state().base.as_ref().map(|base| candidate.configured(base));
        let config = match &base {
            Some(base) => base.restrict_to_both(&self.state().said.config),
            None => candidate.configured(&live.config),
        };
        candidate.check(&config)?;
        let last = self.state().record.clone();
        let file = candidate.config.as_ref().map_or(last.config_sha256.as_str(), |config| &config.sha256);
        let mut record = candidate.record(last.number.saturating_add(1), self.now()?, file);
        if record.serves_as(&last) {
            // Going back once more goes back from where that one came from.
            record.restores = record.restores.or(last.restores);
        }
        let untold = self.state().untold;
        // With a shared ledger: beside what its last word was. What this file took away holds here already, and not yet
        // at the other gateways.
        let before = self.state().base.clone();
        let takes_away = |from: &Config, to: &Config| !same_restrictions(from, &from.restrict(to));
        let elsewhere = before.zip(base.as_ref()).is_some_and(|(before, base)| takes_away(&before, base));
        let tightened = untold || elsewhere || takes_away(&live.config, &config);
        self.write_down(&mut record, tightened).await.map_err(unrecorded)?;
        let number = record.number;
        let rail = self.rail_of(&config);
        let (origin, by) = (candidate.origin, candidate.by);
        let serving = Restored {
            number,
            parts: candidate.parts,
            mandates: candidate.mandates,
            mandates_stand_for: candidate.mandates_stand_for,
        };
        let next = Snapshot { generation: number, config, policies, rail };
        self.serve(next, |state| {
            state.serving = serving;
            state.base = base;
            state.record = record;
            state.untold = false;
            state.unreadable.clear();
            if origin == Origin::File {
                state.last_error = None;
                self.gateway.telemetry.metrics.files_serve(true);
            }
        })
        .await;
        self.gateway.telemetry.metrics.reload(Reloaded::Activated);
        tracing::info!(generation = number, origin = origin.as_str(), by, "activated");
        Ok(number)
    }

    /// What an edit takes away holds from now on, whatever becomes of the rest of it.
    pub(super) async fn restrict(&self, candidate: &Config) {
        let _swap = self.swap.lock().await;
        let live = self.gateway.live.load_full();
        let config = live.config.restrict(candidate);
        if same_restrictions(&live.config, &config) && !self.state().untold {
            return;
        }
        let Ok(now) = self.now() else { return tracing::error!("no usable clock; nothing is recorded") };
        let last = self.state().record.clone();
        let mut record = Generation {
            number: last.number.saturating_add(1),
            at: now,
            origin: Origin::File,
            by: String::new(),
            config_sha256: String::new(),
            ..last.clone()
        };
        let next = |generation| Snapshot {
            generation,
            config,
            policies: Arc::clone(&live.policies),
            rail: Arc::clone(&live.rail),
        };
        self.gateway.telemetry.metrics.reload(Reloaded::Restricted);
        tracing::warn!("what the edit removes or tightens holds from now on");
        match self.write_down(&mut record, true).await {
            Ok(()) => {
                let told = |state: &mut State| {
                    state.record = record.clone();
                    state.untold = false;
                };
                self.serve(next(record.number), told).await;
            }
            Err(error) => {
                // Taking away cannot wait for a store that does not write. What is judged at this moment
                // may still be committed, should it write again.
                tracing::error!(%error, "the restriction holds in this process, and could not be recorded");
                let untold = |state: &mut State| {
                    state.record.config_sha256.clear();
                    state.untold = true;
                };
                self.serve(next(last.number), untold).await;
            }
        }
    }

    /// What reads offers with this configuration's assets.
    pub(super) fn rail_of(&self, config: &Config) -> Arc<dyn Rail> {
        Arc::new(Rails::new(Arc::new(config.assets.clone())))
    }

    /// The one place where what serves changes.
    pub(super) async fn serve(&self, next: Snapshot, known: impl FnOnce(&mut State)) {
        let other_nodes = self.gateway.live.load().config.networks != next.config.networks;
        if let Err(error) = self.gateway.chains.configure(&next.config.networks) {
            tracing::error!(%error, "the chain nodes stay as they were");
        }
        tokio::select! {
            nodes = self.gateway.chains.addresses() => {
                self.gateway.dialer.set_own(nodes.into_iter().chain(self.gateway.listeners).collect());
            }
            // What is taken away does not wait for a resolver.
            () = self.gateway.clock.sleep(RESOLVE_MS) => {
                tracing::error!("the chain nodes' names do not resolve; no purchase may reach those of before");
            }
        }
        let next = Arc::new(next);
        {
            // Both at once: status never tells of another generation than the one that judges.
            let mut state = self.state();
            self.gateway.live.store(Arc::clone(&next));
            known(&mut state);
        }
        self.gateway.shadows.follow(&next.config.policies);
        if other_nodes {
            // What nobody could ask about before.
            let gateway = Arc::clone(&self.gateway);
            tokio::spawn(async move {
                if let Err(error) = gateway.chains.watch_open(&gateway).await {
                    tracing::error!(%error, "open payments are followed again only after the next start");
                }
            });
        }
    }

    /// Writes a generation down under the next number. If the ledger has that one already, from a change
    /// whose end nobody saw, it is the next but one.
    pub(super) async fn write_down(&self, record: &mut Generation, tightened: bool) -> Result<(), LedgerError> {
        let ledger = &self.gateway.ledger;
        let why = match ledger.activate(record.clone(), tightened).await {
            // Another gateway's, which this one must serve first.
            Err(LedgerError::Conflict(why)) if self.is_shared() => {
                return Err(LedgerError::Conflict(format!(
                    "another gateway changed what serves meanwhile ({why}); look again"
                )));
            }
            Err(LedgerError::Conflict(why)) => why,
            done => return done,
        };
        tracing::warn!(why, "the ledger counts differently; asking it");
        record.number = ledger.generations(None, 1).await?.first().map_or(1, |last| last.number.saturating_add(1));
        ledger.activate(record.clone(), tightened).await
    }

    pub(super) fn now(&self) -> Result<Timestamp, Refused> {
        self.gateway.clock.now().map_err(|e| refused("record", "", format!("no usable clock: {e}")))
    }
}

/// Whether a candidate is what serves already. A restart's generation never is: the files are to be
/// what serves again.
fn is_what_serves(candidate: &Candidate, record: &Generation) -> bool {
    let file = candidate.config.as_ref().map_or(record.config_sha256.as_str(), |config| &config.sha256);
    let same = candidate.record(record.number, record.at, file);
    record.whole
        && record.origin != Origin::Restart
        && same.config_sha256 == record.config_sha256
        && same.policies == record.policies
        && same.mandates == record.mandates
        && same.mandates_stand_for == record.mandates_stand_for
}

/// Staging may take long: an operator who lost the role meanwhile changes nothing any more, nor do several of whom one
/// has.
fn may_still(by: &str, live: &Config) -> Result<(), Refused> {
    let may = |operator: &OperatorConfig| operator.roles.contains(&OperatorRole::PolicyAdmin);
    if by.is_empty() || by.split(", ").all(|name| live.operators.get(name).is_some_and(may)) {
        return Ok(());
    }
    Err(refused("forbidden", "", format!("operator `{by}` no longer has the role `policy-admin`")))
}

fn superseded() -> Refused {
    refused("superseded", "", "a newer edit was seen meanwhile")
}

pub(super) fn unrecorded(error: LedgerError) -> Refused {
    if let LedgerError::Conflict(why) = error {
        return refused("superseded", "", why);
    }
    refused("record", "", format!("it could not be written down, so it does not serve: {error}"))
}

/// Whether two configurations restrict the same.
pub(super) fn same_restrictions(a: &Config, b: &Config) -> bool {
    a.agents == b.agents
        && a.issuers == b.issuers
        && a.operators == b.operators
        && a.mcp_servers == b.mcp_servers
        && a.limits == b.limits
        && a.egress == b.egress
        && a.approvals == b.approvals
        && a.networks == b.networks
        && a.wallets
            .iter()
            .map(|(n, w)| (n, &w.networks, w.daily_limit))
            .eq(b.wallets.iter().map(|(n, w)| (n, &w.networks, w.daily_limit)))
}
