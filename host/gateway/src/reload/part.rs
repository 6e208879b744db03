//! One policy on its way to serving: what is staged, what is configured, what is recorded.

use std::sync::Arc;

use countersign_core::generation::PolicyRecord;
use countersign_engine::PolicySpec;
use sha2::{Digest, Sha256};

use crate::config::{Module, PolicyConfig};

/// A policy with its bytes.
#[derive(Clone)]
pub(super) struct Part {
    /// As the engine takes it.
    pub(super) spec: PolicySpec,
    /// As the configuration has it.
    pub(super) config: PolicyConfig,
    record: PolicyRecord,
}

impl Part {
    /// A policy as it is configured, over bytes that were read once.
    pub(super) fn new(name: &str, config: PolicyConfig, module: Arc<[u8]>) -> Self {
        let record = PolicyRecord {
            name: name.to_owned(),
            module_sha256: hex::encode(Sha256::digest(&module)),
            settings_sha256: hex::encode(Sha256::digest(&config.settings)),
            mode: config.mode,
            deadline_ms: config.deadline_ms,
            claims: config.claims,
            tell_agent: config.tell_agent,
            sha256_pin: config.sha256.clone(),
            stands_for: None,
        };
        let spec = PolicySpec {
            sha256_pin: config.sha256.clone(),
            mode: config.mode,
            deadline_ms: config.deadline_ms,
            claims: config.claims,
            settings: config.settings.clone(),
            ..PolicySpec::new(name, module)
        };
        Self { spec, config, record }
    }

    /// A policy of an earlier generation, from the bytes the ledger kept.
    pub(super) fn kept(record: PolicyRecord, module: Vec<u8>, settings: String) -> Self {
        let config = PolicyConfig {
            module: Module::Kept(record.module_sha256.clone()),
            sha256: record.sha256_pin.clone(),
            mode: record.mode,
            deadline_ms: record.deadline_ms,
            claims: record.claims,
            tell_agent: record.tell_agent,
            settings,
            cases: None,
        };
        Self { record: record.clone(), ..Self::new(&record.name, config, module.into()) }
    }

    /// The same policy with another module, and other settings if there are any.
    pub(super) fn with(&self, module: Arc<[u8]>, settings: Option<String>) -> Self {
        let mut config = self.config.clone();
        config.sha256 = None;
        config.settings = settings.unwrap_or(config.settings);
        let mut part = Self::new(&self.record.name, config, module).passing(self.spec.cases.clone());
        part.config.module = Module::Kept(part.record.module_sha256.clone());
        part
    }

    /// The same policy, with cases that it must pass before it serves.
    pub(super) fn passing(mut self, cases: Option<Arc<str>>) -> Self {
        self.spec.cases = cases;
        self
    }

    /// The same policy as the file pins it.
    pub(super) fn pinned(mut self, pin: Option<String>) -> Self {
        self.spec.sha256_pin.clone_from(&pin);
        self.config.sha256.clone_from(&pin);
        self.record.sha256_pin = pin;
        self
    }

    /// This policy in place of what the files say.
    pub(super) fn standing_for(mut self, what: Option<String>) -> Self {
        self.record.stands_for = what;
        self
    }

    pub(super) fn name(&self) -> &str {
        &self.record.name
    }

    pub(super) fn module_sha256(&self) -> &str {
        &self.record.module_sha256
    }

    pub(super) fn stands_for(&self) -> Option<&String> {
        self.record.stands_for.as_ref()
    }

    pub(super) fn record(&self) -> &PolicyRecord {
        &self.record
    }

    /// Whether both are the same to the gate and to whoever asks them.
    pub(super) fn serves_as(&self, other: &Self) -> bool {
        self.spec.cases == other.spec.cases && self.is_recorded_as(other)
    }

    /// Whether both are the same but for the cases they have to pass, which nothing keeps.
    pub(super) fn is_recorded_as(&self, other: &Self) -> bool {
        let plain = |p: &Self| PolicyRecord { stands_for: None, ..p.record.clone() };
        plain(self) == plain(other)
    }

    /// Module and settings, as the ledger keeps them.
    pub(super) fn blobs(&self) -> [Vec<u8>; 2] {
        [self.spec.module.to_vec(), self.spec.settings.clone().into_bytes()]
    }
}
