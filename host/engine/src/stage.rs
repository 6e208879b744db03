//! What is staged, and how staging fails.

use std::fmt;
use std::sync::Arc;

use countersign_core::verdict::Mode;

/// One configured policy: which code, which settings, how it counts.
#[derive(Clone)]
pub struct PolicySpec {
    /// Configured name, unique in its set.
    pub name: String,
    /// The component's bytes, read once: what is hashed here is what is compiled and run.
    pub module: Arc<[u8]>,
    /// The digest the operator expects, as hex.
    pub sha256_pin: Option<String>,
    /// Whether its verdict counts.
    pub mode: Mode,
    /// Milliseconds of wall clock for one `evaluate`.
    pub deadline_ms: u32,
    /// Whether it is shown what the agent claims.
    pub claims: bool,
    /// Settings as one JSON document.
    pub settings: String,
    /// What its instances start from.
    pub start: Start,
    /// The policy's own cases, run before it may serve: a document as `docs/policies.md` describes it.
    pub cases: Option<Arc<str>>,
}

/// What an instance starts from. The answers are the same; `tests/engine` and every replay check it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// Ready-made where possible: as fast as the guest allows.
    #[default]
    Ready,
    /// The module's own bytes, instantiated and configured for each decision. Replay uses this.
    Plain,
}

impl PolicySpec {
    /// The deadline of a policy that names none.
    pub const DEFAULT_DEADLINE_MS: u32 = 50;

    /// An enforcing policy with the default deadline, no pin, no claims and empty settings.
    pub fn new(name: impl Into<String>, module: impl Into<Arc<[u8]>>) -> Self {
        Self {
            name: name.into(),
            module: module.into(),
            sha256_pin: None,
            mode: Mode::Enforce,
            deadline_ms: Self::DEFAULT_DEADLINE_MS,
            claims: false,
            settings: "{}".to_owned(),
            start: Start::default(),
            cases: None,
        }
    }
}

/// Settings may be long and modules are: neither is printed.
impl fmt::Debug for PolicySpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PolicySpec")
            .field("name", &self.name)
            .field("module_bytes", &self.module.len())
            .field("sha256_pin", &self.sha256_pin)
            .field("mode", &self.mode)
            .field("deadline_ms", &self.deadline_ms)
            .field("claims", &self.claims)
            .field("settings_bytes", &self.settings.len())
            .field("start", &self.start)
            .field("cases_bytes", &self.cases.as_ref().map_or(0, |c| c.len()))
            .finish()
    }
}

/// The step of loading a policy that failed, in the order they are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// The specification itself: a name used twice, a deadline of zero.
    Spec,
    /// The module is larger than the engine accepts.
    Size,
    /// The module is not the pinned one.
    Digest,
    /// It is not a component this engine can compile or has room for.
    Compile,
    /// It imports what no policy is granted.
    Imports,
    /// It does not export the policy interface of a version this host runs.
    Exports,
    /// `describe` failed, or described nonsense.
    Describe,
    /// The settings are not JSON, or the policy found problems in them.
    Settings,
    /// `configure` failed.
    Configure,
    /// It does not answer its own cases as they say.
    Cases,
}

impl Stage {
    /// Stable code for programs.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Spec => "spec",
            Self::Size => "size",
            Self::Digest => "digest",
            Self::Compile => "compile",
            Self::Imports => "imports",
            Self::Exports => "exports",
            Self::Describe => "describe",
            Self::Settings => "settings",
            Self::Configure => "configure",
            Self::Cases => "cases",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// Why a policy could not be loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StageError {
    /// The policy's configured name; empty when a bare module was inspected.
    pub policy: String,
    /// Which step failed.
    pub stage: Stage,
    /// What is wrong, for people.
    pub message: String,
}

impl fmt::Display for StageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.policy.is_empty() {
            write!(f, "policy `{}`: ", self.policy)?;
        }
        write!(f, "{}: {}", self.stage, self.message)
    }
}

impl std::error::Error for StageError {}

/// A [`StageError`] before the policy's name is known.
#[derive(Debug)]
pub(crate) struct Problem {
    pub(crate) stage: Stage,
    pub(crate) message: String,
}

impl Problem {
    pub(crate) fn new(stage: Stage, message: impl Into<String>) -> Self {
        Self { stage, message: message.into() }
    }

    pub(crate) fn of(self, policy: &str) -> StageError {
        StageError { policy: policy.to_owned(), stage: self.stage, message: self.message }
    }
}
