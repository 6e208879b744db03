//! `[agent.NAME]` and `[operator.NAME]`: who may ask, and who may decide.

use std::collections::BTreeSet;

use countersign_core::money::Micros;
use countersign_core::spend::Principal;

use super::Secret;
use super::reader::{Item, Read, Table};
use super::sections::least;
use super::telemetry::signing_secret;

/// An agent, known by its token, by JWTs of an issuer, or by both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentConfig {
    /// SHA-256 of its token, lower-case hex.
    pub token_sha256: Option<String>,
    /// Whose JWTs speak for it, and as whom.
    pub subject: Option<Subject>,
    /// SHA-256 of the certificate (DER) that it must connect with, lower-case hex.
    pub certificate_sha256: Option<String>,
    /// The workspace it belongs to.
    pub workspace: Option<String>,
    /// The person behind it.
    pub user: Option<String>,
    /// Its roles.
    pub roles: BTreeSet<String>,
}

/// Somebody as an issuer of JWTs knows them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Subject {
    /// The `[issuer.NAME]`.
    pub issuer: String,
    /// What its claim about the agent says, byte for byte.
    pub name: String,
}

impl AgentConfig {
    pub(super) fn read(name: &str, item: &Item<'_>) -> Read<Self> {
        const HOW: &str = "`countersign agents create` prints a token once and this line for it";
        const CERTIFICATE: &str = "what `openssl x509 -in cert.pem -outform der | sha256sum` prints";
        let mut table =
            item.table(&["token-sha256", "issuer", "subject", "certificate-sha256", "workspace", "user", "roles"])?;
        let issuer = table.take("issuer").map(|i| i.name()).transpose()?;
        let named = table.take("subject").map(|i| Ok((i.str()?.to_owned(), i))).transpose()?;
        if let Some((_, item)) = named.as_ref().filter(|(name, _)| name.is_empty()) {
            return Err(item.error("expected a text that is not empty"));
        }
        let subject = match (issuer, named) {
            (None, Some((_, item))) => {
                return Err(item.error("a subject of which issuer?").hint("add issuer = \"NAME\""));
            }
            (None, None) => None,
            (Some(issuer), named) => Some(Subject { issuer, name: named.map_or_else(|| name.to_owned(), |(s, _)| s) }),
        };
        let token = match subject {
            None => Some(table.need("token-sha256", HOW)?),
            Some(_) => table.take("token-sha256"),
        };
        Ok(Self {
            token_sha256: token.map(|i| i.sha256(HOW)).transpose()?,
            subject,
            certificate_sha256: table.take("certificate-sha256").map(|i| i.sha256(CERTIFICATE)).transpose()?,
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
    /// The users that this person is, whose purchases they do not decide about.
    pub users: BTreeSet<String>,
    /// What their signed messages are signed with; none: they send none.
    pub approval_key: Option<Secret>,
    /// Whose sessions and purchases the operator decides about, and how much at most.
    pub scope: Scope,
}

/// Whose sessions and purchases an operator decides about. A set that is empty means everybody; one that
/// is not means nobody without such a name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// These workspaces.
    pub workspaces: BTreeSet<String>,
    /// These agents.
    pub agents: BTreeSet<String>,
    /// These clients.
    pub clients: BTreeSet<String>,
    /// The largest limit of a session.
    pub session_limit: Option<Micros>,
    /// How much the limits of the operator's open sessions may come to.
    pub session_limits_open: Option<Micros>,
    /// How much the limits of the sessions that the operator opens in a day may come to.
    pub session_limits_per_day: Option<Micros>,
}

impl Scope {
    fn read(table: &mut Table<'_>) -> Read<Self> {
        let names = |item: Option<Item<'_>>| match item {
            None => Ok(BTreeSet::new()),
            Some(item) => match item.names()? {
                none if none.is_empty() => {
                    Err(item.error("an empty list is nobody").hint("leave the key out for everybody"))
                }
                names => Ok(names),
            },
        };
        let money = |item: Option<Item<'_>>| item.map(|i| i.money()).transpose();
        Ok(Self {
            workspaces: names(table.take("workspaces"))?,
            agents: names(table.take("agents"))?,
            clients: names(table.take("clients"))?,
            session_limit: money(table.take("session-limit"))?,
            session_limits_open: money(table.take("session-limits-open"))?,
            session_limits_per_day: money(table.take("session-limits-per-day"))?,
        })
    }

    /// Why what concerns these is not the operator's to decide; none: it is.
    #[must_use]
    pub fn excludes(&self, workspace: Option<&str>, agent: &str, client: Option<&str>) -> Option<&'static str> {
        let beyond = |set: &BTreeSet<String>, name: Option<&str>| {
            !set.is_empty() && !name.is_some_and(|name| set.contains(name))
        };
        if beyond(&self.workspaces, workspace) {
            return Some("workspace");
        }
        if beyond(&self.agents, Some(agent)) {
            return Some("agent");
        }
        beyond(&self.clients, client).then_some("client")
    }

    /// As [`Self::excludes`], of somebody's purchase.
    #[must_use]
    pub fn excludes_principal(&self, principal: &Principal) -> Option<&'static str> {
        self.excludes(principal.workspace.as_deref(), &principal.agent, principal.client.as_deref())
    }

    /// This scope with only the restrictions of `new`; none if nobody is left in it.
    pub(super) fn restrict(&self, new: &Self) -> Option<Self> {
        let both = |ours: &BTreeSet<String>, theirs: &BTreeSet<String>| match (ours.is_empty(), theirs.is_empty()) {
            (true, _) => Some(theirs.clone()),
            (false, true) => Some(ours.clone()),
            (false, false) => {
                Some(ours.intersection(theirs).cloned().collect()).filter(|both: &BTreeSet<_>| !both.is_empty())
            }
        };
        Some(Self {
            workspaces: both(&self.workspaces, &new.workspaces)?,
            agents: both(&self.agents, &new.agents)?,
            clients: both(&self.clients, &new.clients)?,
            session_limit: least(self.session_limit, new.session_limit),
            session_limits_open: least(self.session_limits_open, new.session_limits_open),
            session_limits_per_day: least(self.session_limits_per_day, new.session_limits_per_day),
        })
    }
}

impl OperatorConfig {
    pub(super) fn read(item: &Item<'_>) -> Read<Self> {
        const HOW: &str = "what `printf %s TOKEN | sha256sum` prints for a random token";
        let mut table = item.table(&[
            "token-sha256",
            "roles",
            "groups",
            "users",
            "approval-key",
            "workspaces",
            "agents",
            "clients",
            "session-limit",
            "session-limits-open",
            "session-limits-per-day",
        ])?;
        Ok(Self {
            scope: Scope::read(&mut table)?,
            token_sha256: table.need("token-sha256", HOW)?.sha256(HOW)?,
            roles: table.need("roles", "such as roles = [\"viewer\"]")?.choices(&OperatorRole::ALL)?,
            groups: table.take("groups").map(|i| i.names()).transpose()?.unwrap_or_default(),
            users: table.take("users").map(|i| i.names()).transpose()?.unwrap_or_default(),
            approval_key: table.take("approval-key").map(|i| signing_secret(&i)).transpose()?.flatten(),
        })
    }
}
