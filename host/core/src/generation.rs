//! A generation: the policies and mandates that serve together, as they are recorded.
//!
//! Numbers count activations of a store, from 1, over all restarts. With the module and settings
//! bytes that it names by digest, a generation is enough to serve again exactly as it served.

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;
use crate::verdict::Mode;

/// What a generation came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// The files.
    File,
    /// A module put by an operator.
    Api,
    /// An operator went back to an earlier generation.
    Rollback,
    /// The gateway started, and the files could not be used.
    Restart,
}

impl Origin {
    /// Its name in records and answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Api => "api",
            Self::Rollback => "rollback",
            Self::Restart => "restart",
        }
    }
}

/// One policy of a generation. Bytes are named by their SHA-256 in lower-case hex.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyRecord {
    /// Configured name.
    pub name: String,
    /// The module.
    pub module_sha256: String,
    /// The settings document.
    pub settings_sha256: String,
    /// Whether its verdicts count.
    pub mode: Mode,
    /// How long one evaluation may take.
    pub deadline_ms: u32,
    /// Whether it sees what the agent says.
    pub claims: bool,
    /// Whether agents see its messages.
    pub tell_agent: bool,
    /// The digest the file pins, if it does.
    pub sha256_pin: Option<String>,
    /// Set when an operator put it in place of what the file says: the digest of what the file said
    /// then. It holds until the file says something else.
    pub stands_for: Option<String>,
}

/// Policies and mandates that serve together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generation {
    /// Which one.
    pub number: u64,
    /// Since when.
    pub at: Timestamp,
    /// What it came from.
    pub origin: Origin,
    /// The operator who caused it; empty for the host itself.
    pub by: String,
    /// The earlier generation whose policies and mandates these are.
    pub restores: Option<u64>,
    /// Whether every policy could be loaded: only such a one is gone back to.
    pub whole: bool,
    /// SHA-256 of the configuration file in force, lower-case hex; empty while only its restrictions
    /// are.
    pub config_sha256: String,
    /// The policies; those that could not even be read are missing.
    pub policies: Vec<PolicyRecord>,
    /// The mandates, as JSON.
    pub mandates: serde_json::Value,
    /// As [`PolicyRecord::stands_for`], for the mandates.
    pub mandates_stand_for: Option<String>,
}

impl Generation {
    /// Whether both serve the same, whatever they came from and whoever pins it.
    #[must_use]
    pub fn serves_as(&self, other: &Self) -> bool {
        let plain = |p: &PolicyRecord| PolicyRecord { stands_for: None, sha256_pin: None, ..p.clone() };
        self.mandates == other.mandates && self.policies.iter().map(plain).eq(other.policies.iter().map(plain))
    }

    /// Whether anything stands in for what the files say.
    #[must_use]
    pub fn overrides_files(&self) -> bool {
        self.mandates_stand_for.is_some() || self.policies.iter().any(|p| p.stands_for.is_some())
    }

    /// Digests of the bytes it needs.
    pub fn digests(&self) -> impl Iterator<Item = &str> {
        self.policies.iter().flat_map(|p| [p.module_sha256.as_str(), p.settings_sha256.as_str()])
    }
}
