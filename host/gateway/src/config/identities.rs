//! `[agent.NAME]` and `[operator.NAME]`: who may ask, and who may decide.

use std::collections::BTreeSet;

use super::reader::{Item, Read};

/// An agent, known by its token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentConfig {
    /// SHA-256 of its token, lower-case hex.
    pub token_sha256: String,
    /// The workspace it belongs to.
    pub workspace: Option<String>,
    /// The person behind it.
    pub user: Option<String>,
    /// Its roles.
    pub roles: BTreeSet<String>,
}

impl AgentConfig {
    pub(super) fn read(item: &Item<'_>) -> Read<Self> {
        const HOW: &str = "`countersign agents create` prints a token once and this line for it";
        let mut table = item.table(&["token-sha256", "workspace", "user", "roles"])?;
        Ok(Self {
            token_sha256: table.need("token-sha256", HOW)?.sha256(HOW)?,
            workspace: table.take("workspace").map(|i| i.name()).transpose()?,
            user: table.take("user").map(|i| i.name()).transpose()?,
            roles: table.take("roles").map(|i| i.names()).transpose()?.unwrap_or_default(),
        })
    }
}

/// What an operator may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OperatorRole {
    /// Look.
    Viewer,
    /// Approve and deny purchases.
    Approver,
    /// Change policies.
    PolicyAdmin,
    /// Open and close sessions.
    SessionAdmin,
    /// Stop spending, and let it go on.
    Suspender,
}

impl OperatorRole {
    /// Every role by its name in the file.
    pub const ALL: [(&'static str, Self); 5] = [
        ("viewer", Self::Viewer),
        ("approver", Self::Approver),
        ("policy-admin", Self::PolicyAdmin),
        ("session-admin", Self::SessionAdmin),
        ("suspender", Self::Suspender),
    ];

    /// Its name in the file.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Approver => "approver",
            Self::PolicyAdmin => "policy-admin",
            Self::SessionAdmin => "session-admin",
            Self::Suspender => "suspender",
        }
    }
}

/// A person who operates the gateway, known by a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperatorConfig {
    /// SHA-256 of the token, lower-case hex.
    pub token_sha256: String,
    /// What the operator may do.
    pub roles: BTreeSet<OperatorRole>,
    /// The groups a review may ask for.
    pub groups: BTreeSet<String>,
}

impl OperatorConfig {
    pub(super) fn read(item: &Item<'_>) -> Read<Self> {
        const HOW: &str = "what `printf %s TOKEN | sha256sum` prints for a random token";
        let mut table = item.table(&["token-sha256", "roles", "groups"])?;
        Ok(Self {
            token_sha256: table.need("token-sha256", HOW)?.sha256(HOW)?,
            roles: table.need("roles", "such as roles = [\"viewer\"]")?.choices(&OperatorRole::ALL)?,
            groups: table.take("groups").map(|i| i.names()).transpose()?.unwrap_or_default(),
        })
    }
}
