//! `[engine]`: how much the policy engine reserves, and where it keeps compiled policies.

use std::path::PathBuf;

use countersign_engine::{CacheConfig, EngineConfig};

use super::Ledger;
use super::reader::{Read, Table};

/// `[engine]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineSection {
    /// How many policies may be running at once.
    pub instances: u32,
    /// Instances of each policy that are kept ready-made.
    pub ready: u32,
    /// The folder for compiled policies; none: every start compiles.
    pub cache: Option<PathBuf>,
}

impl EngineSection {
    pub(super) const KEYS: &'static [&'static str] = &["instances", "ready", "cache"];

    pub(super) fn read(table: Option<Table<'_>>, ledger: &Ledger) -> Read<Self> {
        let engine = EngineConfig::default();
        let mut section =
            Self { instances: engine.instances, ready: engine.ready, cache: Some(ledger.store.beside("compiled")) };
        let Some(mut table) = table else { return Ok(section) };
        if let Some(item) = table.take("instances") {
            section.instances = item.u32(1..=4_096)?;
        }
        if let Some(item) = table.take("ready") {
            section.ready = item.u32(0..=256)?;
        }
        if let Some(item) = table.take("cache") {
            section.cache = if item.str()?.is_empty() { None } else { Some(item.path()?) };
        }
        Ok(section)
    }

    /// What the engine is started with; `key` authenticates what it finds in the folder.
    #[must_use]
    pub fn config(&self, key: [u8; 32]) -> EngineConfig {
        let cache = self.cache.clone().map(|folder| CacheConfig::new(folder, key));
        EngineConfig { instances: self.instances, ready: self.ready, cache, ..EngineConfig::default() }
    }
}
