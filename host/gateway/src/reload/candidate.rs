//! What would serve next: the files, with what operators put in their place.

use std::collections::BTreeMap;

use countersign_core::generation::{Generation, Origin};
use countersign_core::ledger::{Ledger, LedgerError};
use countersign_core::time::Timestamp;

use super::files::{Files, Said, mandates_json};
use super::part::Part;
use super::{Refused, refused};
use crate::config::{Config, MandateConfig};

/// Policies and mandates that may serve once they are staged.
#[derive(Clone)]
pub(super) struct Candidate {
    /// What it comes from.
    pub(super) origin: Origin,
    /// The operator who asked for it; empty if it was nobody.
    pub(super) by: String,
    /// The earlier generation it is.
    pub(super) restores: Option<u64>,
    /// Everything but policies and mandates; that of the live generation, if none.
    pub(super) config: Option<Config>,
    /// Digest of the files it was read from, if it was.
    pub(super) seen: Option<[u8; 32]>,
    /// The policies.
    pub(super) parts: Vec<Part>,
    /// The mandates.
    pub(super) mandates: Vec<MandateConfig>,
    /// What the files say in place of them, if something else.
    pub(super) mandates_stand_for: Option<String>,
}

impl Candidate {
    /// What the files say, except where a change of an operator's still holds: in `live`, until the
    /// files say something else about that policy.
    pub(super) fn of_files(files: &Files, live: &Restored) -> Result<Self, Refused> {
        let (candidate, unreadable) = Self::of_what_can_be_read(files, live);
        if let Some(why) = unreadable.into_values().next() {
            return Err(why);
        }
        candidate.check(&files.config)?;
        Ok(candidate)
    }

    /// As [`Self::of_files`], without the policies that cannot be read, and why they cannot. Mandates that
    /// name one of those deny.
    pub(super) fn of_what_can_be_read(files: &Files, live: &Restored) -> (Self, BTreeMap<String, Refused>) {
        let said = Said::by(files);
        let holds = |part: &Part| part.stands_for() == Some(&said.about(part.name()));
        let mandates_stand_for = live.mandates_stand_for.clone().filter(|was| *was == said.about_mandates());
        let mandates = match &mandates_stand_for {
            Some(_) => live.mandates.clone(),
            None => files.config.mandates.clone(),
        };
        let (mut parts, mut unreadable) = (Vec::new(), BTreeMap::new());
        for (name, read) in &files.parts {
            match (live.parts.iter().find(|p| p.name() == name && holds(p)), read) {
                (Some(put), _) => parts.push(put.clone()),
                (None, Ok(read)) => parts.push(read.clone()),
                (None, Err(why)) => {
                    unreadable.insert(name.clone(), why.clone());
                }
            }
        }
        // A policy that only an operator's mandates need, and that the files do not have.
        let needed = |p: &&Part| mandates.iter().any(|m| m.policies.iter().any(|name| name == p.name()));
        let extra = live.parts.iter().filter(|p| !files.parts.contains_key(p.name()) && holds(p)).filter(needed);
        parts.extend(extra.cloned());
        parts.sort_by(|a, b| a.name().cmp(b.name()));
        let candidate = Self {
            origin: Origin::File,
            by: String::new(),
            restores: None,
            config: Some(files.config.clone()),
            seen: Some(files.seen),
            parts,
            mandates,
            mandates_stand_for,
        };
        (candidate, unreadable)
    }

    /// An earlier generation. Policies that came after it stay loaded, for nobody to use.
    ///
    /// What the files pin stays: a pinned module changes only through the file.
    pub(super) fn rolled_back(to: Restored, live: &[Part], said: &Said, by: &str) -> Result<Self, Refused> {
        let mut parts = to.parts;
        let later = live.iter().filter(|p| !parts.iter().any(|old| old.name() == p.name()));
        let later: Vec<Part> = later.cloned().collect();
        for part in &mut parts {
            check_pin(said, part.name(), part.module_sha256())?;
            let pinned = part.clone().pinned(said.pin(part.name()).map(str::to_owned));
            *part = match said.part(part.name()).filter(|file| file.is_recorded_as(&pinned)) {
                Some(file) => file.clone(),
                None => pinned.standing_for(Some(said.about(part.name()))),
            };
        }
        parts.extend(later);
        parts.sort_by(|a, b| a.name().cmp(b.name()));
        let own = said.config.mandates == to.mandates;
        Ok(Self {
            origin: Origin::Rollback,
            by: by.to_owned(),
            restores: Some(to.number),
            config: None,
            seen: None,
            parts,
            mandates: to.mandates,
            mandates_stand_for: (!own).then(|| said.about_mandates()),
        })
    }

    /// The live generation with another module for one policy.
    pub(super) fn with_module(
        live: &Restored,
        said: &Said,
        (name, module, settings): (&str, Vec<u8>, Option<String>),
        by: &str,
    ) -> Result<Self, Refused> {
        let mut parts = live.parts.clone();
        let there_is = || refused("not-found", name, format!("there is no [policy.{name}]"));
        let part = parts.iter_mut().find(|p| p.name() == name).ok_or_else(there_is)?;
        check_pin(said, name, "")?;
        let mut put = part.with(module.into(), settings);
        if let Some(file) = said.part(name) {
            // What stands in for a file passes the file's cases; the ledger keeps none.
            put = put.passing(file.spec.cases.clone());
        }
        // The same bytes as in the file are the file's own.
        *part = match said.part(name).filter(|file| file.serves_as(&put)) {
            Some(file) => file.clone(),
            None => put.standing_for(Some(said.about(name))),
        };
        Ok(Self {
            origin: Origin::Api,
            by: by.to_owned(),
            restores: None,
            config: None,
            seen: None,
            parts,
            mandates: live.mandates.clone(),
            mandates_stand_for: live.mandates_stand_for.clone(),
        })
    }

    /// Every name that a mandate uses must be there.
    pub(super) fn check(&self, config: &Config) -> Result<(), Refused> {
        for mandate in &self.mandates {
            let wrong =
                |what: String| refused("mandate", "", format!("mandate `{}`: there is no {what}", mandate.name));
            if !config.wallets.contains_key(&mandate.wallet) {
                return Err(wrong(format!("[wallet.{}]", mandate.wallet)));
            }
            if let Some(missing) = mandate.policies.iter().find(|name| !self.parts.iter().any(|p| p.name() == *name)) {
                return Err(wrong(format!("[policy.{missing}]")));
            }
        }
        Ok(())
    }

    /// The configuration it serves with.
    pub(super) fn configured(&self, live: &Config) -> Config {
        let mut config = self.config.as_ref().unwrap_or(live).clone();
        config.policies = self.parts.iter().map(|p| (p.name().to_owned(), p.config.clone())).collect();
        config.mandates = self.mandates.clone();
        config
    }

    /// With a shared ledger: the configuration's part that all gateways have in common.
    pub(super) fn common(&self) -> Option<Vec<u8>> {
        Some(self.config.as_ref()?.common()?.as_bytes().to_vec())
    }

    /// How it is recorded. It is whole until somebody knows better.
    pub(super) fn record(&self, number: u64, at: Timestamp, config_sha256: &str) -> Generation {
        Generation {
            number,
            at,
            origin: self.origin,
            by: self.by.clone(),
            restores: self.restores,
            whole: true,
            config_sha256: config_sha256.to_owned(),
            policies: self.parts.iter().map(|p| p.record().clone()).collect(),
            mandates: mandates_json(&self.mandates),
            mandates_stand_for: self.mandates_stand_for.clone(),
        }
    }
}

fn check_pin(said: &Said, name: &str, module_sha256: &str) -> Result<(), Refused> {
    match said.pin(name) {
        Some(pin) if pin != module_sha256 => {
            let why = format!("the file pins this policy's module to {pin}: change `sha256` and the module there");
            Err(refused("pinned", name, why))
        }
        _ => Ok(()),
    }
}

/// A generation with its bytes.
#[derive(Clone)]
pub(super) struct Restored {
    /// Which one.
    pub(super) number: u64,
    /// Its policies.
    pub(super) parts: Vec<Part>,
    /// Its mandates.
    pub(super) mandates: Vec<MandateConfig>,
    /// What they stand in for.
    pub(super) mandates_stand_for: Option<String>,
}

impl Restored {
    /// Reads a generation's bytes back.
    pub(super) async fn from_ledger(ledger: &dyn Ledger, generation: &Generation) -> Result<Self, LedgerError> {
        let broken = |what: &dyn std::fmt::Display| {
            LedgerError::Unavailable(format!("generation {} cannot be read back: {what}", generation.number))
        };
        let mandates = serde_json::from_value(generation.mandates.clone()).map_err(|e| broken(&e))?;
        let wanted: Vec<String> = generation.digests().map(str::to_owned).collect();
        let found = ledger.remembered(wanted.clone()).await?;
        let bytes: BTreeMap<String, Vec<u8>> = wanted.into_iter().zip(found).collect();
        let mut parts = Vec::new();
        for record in &generation.policies {
            let take = |digest: &str| bytes.get(digest).cloned().ok_or(LedgerError::NotFound);
            let module = take(&record.module_sha256)?;
            let settings = String::from_utf8(take(&record.settings_sha256)?).map_err(|e| broken(&e))?;
            parts.push(Part::kept(record.clone(), module, settings));
        }
        let mandates_stand_for = generation.mandates_stand_for.clone();
        Ok(Self { number: generation.number, parts, mandates, mandates_stand_for })
    }
}
