//! The first generation of a process: the files; if their modules cannot be used, the last good one of the
//! same configuration; if there is none, a denial for every policy that cannot be loaded. With a shared ledger that has a
//! generation, it is that one, whatever the files say.

use std::collections::BTreeMap;
use std::sync::Arc;

use countersign_core::generation::{Generation, Origin};
use countersign_core::ledger::{Ledger, LedgerError};
use countersign_core::rails::Rails;
use countersign_core::time::Timestamp;
use countersign_engine::{Engine, PolicySet, PolicySpec};

use super::candidate::{Candidate, Restored};
use super::files::{Files, Said, read};
use super::part::Part;
use super::{Refused, State, refused};
use crate::config::{Config, Environment};
use crate::state::Snapshot;

/// What a process starts with.
pub struct FirstStart {
    /// What serves.
    pub snapshot: Snapshot,
    /// What a reloader needs.
    pub parts: Parts,
}

/// What a reloader goes on from.
pub struct Parts {
    pub(super) started: Config,
    /// What of the configuration runs until a restart: the ledger's word, if it is shared.
    pub(super) running: Config,
    pub(super) state: State,
}

/// The generation a process starts from, and those it could.
struct Past {
    last: Option<Generation>,
    good: Option<Generation>,
}

impl Past {
    async fn of(ledger: &dyn Ledger) -> Result<Self, LedgerError> {
        let mut page = ledger.generations(None, 20).await?;
        let last = page.first().cloned();
        loop {
            if let Some(good) = page.iter().find(|g| g.whole) {
                return Ok(Self { last, good: Some(good.clone()) });
            }
            let Some(oldest) = page.last() else { return Ok(Self { last, good: None }) };
            page = ledger.generations(Some(oldest.number), 20).await?;
        }
    }
}

/// The configuration that a shared ledger's newest generation was made of, with this gateway's own part; nothing, if the
/// ledger is this gateway's alone, or has no generation.
///
/// # Errors
/// When it cannot be read back, or does not go with our own.
pub(crate) async fn of_the_ledger(
    ledger: &dyn Ledger,
    own: &Config,
    environment: &Environment,
) -> Result<Option<Config>, String> {
    if own.common().is_none() {
        return Ok(None);
    }
    match ledger.generations(None, 1).await.map_err(|e| e.to_string())?.first() {
        Some(newest) => super::adopt::base(ledger, own, environment, newest).await.map(Some),
        None => Ok(None),
    }
}

/// Whether this store ever had a generation whose policies could all be loaded.
///
/// # Errors
/// When it cannot be read.
pub(crate) async fn has_good_one(ledger: &dyn Ledger) -> Result<bool, LedgerError> {
    Ok(Past::of(ledger).await?.good.is_some())
}

impl FirstStart {
    /// Stages the policies a process starts with, and writes them down.
    ///
    /// # Errors
    /// When the ledger cannot be read or written.
    pub async fn stage(
        engine: &Arc<Engine>,
        ledger: &dyn Ledger,
        config: Config,
        base: Option<Config>,
        now: Timestamp,
    ) -> Result<Self, LedgerError> {
        let past = Past::of(ledger).await?;
        let files = tokio::task::block_in_place(|| read(config));
        let begin = Begin { engine, ledger, past: &past, files: &files, now };
        if let (Some(base), Some(last)) = (base, &past.last) {
            return begin.adopted(last, base).await;
        }
        let wrong = match begin.files_as_they_are().await? {
            Ok(first) => return begin.record(first, None).await,
            Err(wrong) => wrong,
        };
        let first = match begin.last_good(&wrong).await? {
            Some(first) => first,
            None => begin.denying().await?,
        };
        begin.record(first, Some(wrong)).await
    }
}

struct Begin<'a> {
    engine: &'a Arc<Engine>,
    ledger: &'a dyn Ledger,
    past: &'a Past,
    files: &'a Files,
    now: Timestamp,
}

/// A candidate that was staged, one way or the other.
struct First {
    candidate: Candidate,
    set: PolicySet,
    whole: bool,
    unreadable: BTreeMap<String, String>,
}

impl Begin<'_> {
    fn next(&self) -> u64 {
        self.past.last.as_ref().map_or(1, |last| last.number.saturating_add(1))
    }

    fn staged(&self, candidate: &Candidate) -> Result<PolicySet, Refused> {
        candidate.check(&self.files.config)?;
        let staged = tokio::task::block_in_place(|| self.engine.stage(self.next(), &specs(&candidate.parts)));
        staged.map_err(|e| refused(e.stage.code(), &e.policy, e.message))
    }

    /// What operators had put in place of what the files say.
    async fn overrides(&self) -> Result<Restored, LedgerError> {
        match &self.past.last {
            Some(last) if last.overrides_files() => Restored::from_ledger(self.ledger, last).await,
            _ => Ok(Restored { number: 0, parts: vec![], mandates: vec![], mandates_stand_for: None }),
        }
    }

    async fn files_as_they_are(&self) -> Result<Result<First, Refused>, LedgerError> {
        let live = self.overrides().await?;
        let candidate = match Candidate::of_files(self.files, &live) {
            Ok(candidate) => candidate,
            Err(wrong) => return Ok(Err(wrong)),
        };
        let staged = self.staged(&candidate);
        Ok(staged.map(|set| First { candidate, set, whole: true, unreadable: BTreeMap::new() }))
    }

    /// The generation of a shared ledger; where its policies cannot be loaded here, they deny.
    async fn adopted(&self, last: &Generation, base: Config) -> Result<FirstStart, LedgerError> {
        let restored = Restored::from_ledger(self.ledger, last).await?;
        let candidate = Candidate::adopted(last, restored.clone(), base.clone());
        let specs = specs(&candidate.parts);
        let stage = || tokio::task::block_in_place(|| self.engine.stage(last.number, &specs));
        let staged =
            candidate.check(&base).and_then(|()| stage().map_err(|e| refused(e.stage.code(), &e.policy, e.message)));
        let (set, last_error) = match staged {
            Ok(set) => (set, None),
            Err(wrong) => {
                tracing::error!(stage = wrong.stage, policy = wrong.policy, "{}", wrong.message);
                let set = tokio::task::block_in_place(|| self.engine.stage_or_deny(last.number, &specs));
                (set, Some((self.now, wrong)))
            }
        };
        let running = base.clone();
        let base = candidate.configured(&base);
        let config = base.restrict_to_both(&self.files.config);
        let state = State {
            serving: restored,
            base: Some(base),
            record: last.clone(),
            said: Said::by(self.files),
            seen: Some(self.files.seen),
            last_error,
            untold: false,
            unreadable: BTreeMap::new(),
        };
        let rail = Arc::new(Rails::new(Arc::new(config.assets.clone())));
        let snapshot = Snapshot { generation: last.number, config, policies: Arc::new(set), rail };
        Ok(FirstStart { snapshot, parts: Parts { started: self.files.config.clone(), running, state } })
    }

    /// The last good generation, if only its modules are at fault. Under a configuration that was edited
    /// meanwhile it does not serve: nobody ever approved its policies together with those agents, limits
    /// and mandates.
    async fn last_good(&self, wrong: &Refused) -> Result<Option<First>, LedgerError> {
        let Some(good) = &self.past.good else { return Ok(None) };
        if good.config_sha256 != self.files.config.sha256 {
            let why = "the last good one had another configuration, so it does not serve";
            tracing::error!(stage = wrong.stage, policy = wrong.policy, "{}; {why}", wrong.message);
            return Ok(None);
        }
        tracing::error!(stage = wrong.stage, policy = wrong.policy, "{}; trying the last good one", wrong.message);
        let restored = Restored::from_ledger(self.ledger, good).await?;
        let candidate = Candidate {
            origin: Origin::Restart,
            by: String::new(),
            restores: Some(good.number),
            config: Some(self.files.config.clone()),
            seen: None,
            parts: restored.parts,
            mandates: restored.mandates,
            mandates_stand_for: restored.mandates_stand_for,
        };
        match self.staged(&candidate) {
            Ok(set) => Ok(Some(First { candidate, set, whole: true, unreadable: BTreeMap::new() })),
            Err(why) => {
                tracing::error!(stage = why.stage, policy = why.policy, "the last good one neither: {}", why.message);
                Ok(None)
            }
        }
    }

    /// The files as they are, with what operators put in their place, where every policy that cannot be
    /// loaded denies.
    async fn denying(&self) -> Result<First, LedgerError> {
        let (candidate, unreadable) = Candidate::of_what_can_be_read(self.files, &self.overrides().await?);
        let unreadable = unreadable.into_iter().map(|(name, why)| (name, why.message)).collect();
        let specs = specs(&candidate.parts);
        let set = tokio::task::block_in_place(|| self.engine.stage_or_deny(self.next(), &specs));
        Ok(First { candidate, set, whole: false, unreadable })
    }

    /// Writes it down, unless it is what served before the restart: then it goes on under its number.
    async fn record(&self, first: First, wrong: Option<Refused>) -> Result<FirstStart, LedgerError> {
        let First { candidate, set, whole, unreadable } = first;
        let config = candidate.configured(&self.files.config);
        let wanted = Generation { whole, ..candidate.record(self.next(), self.now, &config.sha256) };
        let record = match &self.past.last {
            Some(last) if goes_on(last, &wanted) => last.clone(),
            _ => {
                let blobs = candidate.parts.iter().flat_map(Part::blobs).chain(candidate.common());
                self.ledger.remember(blobs.collect()).await?;
                self.ledger.activate(wanted.clone(), true).await?;
                wanted
            }
        };
        self.ledger.require_generation(record.number).await?;
        let generation = record.number;
        let base = self.files.config.common().map(|_| config.clone());
        let state = State {
            base,
            serving: Restored {
                number: generation,
                parts: candidate.parts,
                mandates: candidate.mandates,
                mandates_stand_for: candidate.mandates_stand_for,
            },
            record,
            said: Said::by(self.files),
            seen: Some(self.files.seen),
            last_error: wrong.map(|why| (self.now, why)),
            untold: false,
            unreadable,
        };
        let rail = Arc::new(Rails::new(Arc::new(config.assets.clone())));
        let snapshot = Snapshot { generation, config, policies: Arc::new(set), rail };
        Ok(FirstStart {
            snapshot,
            parts: Parts { started: self.files.config.clone(), running: self.files.config.clone(), state },
        })
    }
}

/// Whether a generation goes on over a restart: the same policies, mandates and file. Where the last
/// good one serves in place of broken files, the record says so once.
fn goes_on(last: &Generation, wanted: &Generation) -> bool {
    let restarted = |g: &Generation| g.origin == Origin::Restart;
    last.whole == wanted.whole
        && restarted(last) == restarted(wanted)
        && last.config_sha256 == wanted.config_sha256
        && last.policies == wanted.policies
        && last.mandates == wanted.mandates
        && last.mandates_stand_for == wanted.mandates_stand_for
}

fn specs(parts: &[Part]) -> Vec<PolicySpec> {
    parts.iter().map(|p| p.spec.clone()).collect()
}
