//! `[budget.NAME]` and `[[mandate]]`: how much, and who may spend at all.

use std::collections::BTreeSet;

use countersign_core::budget;
use countersign_core::money::Micros;
use countersign_core::spend::{Commitment, Principal};
use countersign_core::time::Timestamp;
use countersign_core::verdict::Window;
use countersign_core::x402::MIN_VALIDITY_SECONDS;
use serde::{Deserialize, Serialize};

use super::names;
use super::reader::{Item, Read, Table};

/// Who is meant. Each set that is not empty must contain what the principal says; a principal
/// without a client, say, matches no condition on clients. No condition at all matches everybody.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct When {
    /// One of these agents.
    pub agent: BTreeSet<String>,
    /// One of these users behind the agent.
    pub user: BTreeSet<String>,
    /// One of these workspaces.
    pub workspace: BTreeSet<String>,
    /// An agent that has at least one of these roles.
    pub role: BTreeSet<String>,
    /// A session for one of these clients.
    pub client: BTreeSet<String>,
    /// A session on one of these projects.
    pub project: BTreeSet<String>,
    /// A session for one of these tasks.
    pub task: BTreeSet<String>,
}

impl When {
    const KEYS: &'static [&'static str] = &["agent", "user", "workspace", "role", "client", "project", "task"];

    pub(super) fn read(item: &Item<'_>) -> Read<Self> {
        let mut table = item.table(Self::KEYS)?;
        let mut when = Self::default();
        let fields = [
            &mut when.agent,
            &mut when.user,
            &mut when.workspace,
            &mut when.role,
            &mut when.client,
            &mut when.project,
            &mut when.task,
        ];
        for (key, field) in Self::KEYS.iter().zip(fields) {
            if let Some(item) = table.take(key) {
                *field = item.one_or_list()?.iter().map(Item::name).collect::<Read<_>>()?;
                if field.is_empty() {
                    return Err(item
                        .error("an empty list matches nobody")
                        .hint("leave the key out to match everybody"));
                }
            }
        }
        Ok(when)
    }

    /// Whether `principal` is meant.
    #[must_use]
    pub fn matches(&self, principal: &Principal) -> bool {
        let one = |set: &BTreeSet<String>, value: Option<&String>| {
            set.is_empty() || value.is_some_and(|value| set.contains(value))
        };
        one(&self.agent, Some(&principal.agent))
            && one(&self.user, principal.user.as_ref())
            && one(&self.workspace, principal.workspace.as_ref())
            && (self.role.is_empty() || principal.roles.iter().any(|role| self.role.contains(role)))
            && one(&self.client, principal.client.as_ref())
            && one(&self.project, principal.project.as_ref())
            && one(&self.task, principal.task.as_ref())
    }
}

/// A budget of the host's own, held beside whatever policies ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BudgetConfig {
    /// Its name, a path such as `workspace/research`.
    pub name: String,
    /// Whose payments count.
    pub when: When,
    /// Over which span.
    pub window: Window,
    /// The most the window may hold.
    pub limit: Micros,
    /// Reaching this tells operators, once per window.
    pub alert: Option<Micros>,
    /// Reaching this asks people.
    pub review: Option<Micros>,
}

impl BudgetConfig {
    const KEYS: &'static [&'static str] = &["when", "per", "timezone", "limit", "alert", "review"];
    /// First parts of the names the host gives its own budgets.
    const RESERVED: [&'static str; 2] = ["wallet", "session"];

    /// A budget's name, which must not be one the host uses itself.
    pub(super) fn name(item: &Item<'_>, text: &str) -> Read<String> {
        let name = names::normalise_path(text).ok_or_else(|| {
            item.error(format!("{text:?} is not a budget's name"))
                .hint("names joined by `/`, such as workspace/research")
        })?;
        if name.split('/').next().is_some_and(|first| Self::RESERVED.contains(&first)) {
            let hint =
                "wallets and sessions have limits of their own: wallet.NAME.daily-limit, and the session's limit";
            return Err(item.error("budgets named `wallet` and `session` are the gateway's own").hint(hint));
        }
        Ok(name)
    }

    pub(super) fn read(name: &str, item: &Item<'_>) -> Read<Self> {
        let mut table = item.table(Self::KEYS)?;
        let when = when(&mut table)?;
        let window = window(&mut table)?;
        let limit = table.need("limit", "such as limit = \"500.00\"")?.money()?;
        let threshold = |item: Item<'_>| {
            let at = item.money()?;
            if at > limit {
                Err(item.error(format!("above the limit of {limit}: it would never be reached")))
            } else {
                Ok(at)
            }
        };
        let alert = table.take("alert").map(threshold).transpose()?;
        let review = table.take("review").map(threshold).transpose()?;
        Ok(Self { name: name.to_owned(), when, window, limit, alert, review })
    }
}

fn when(table: &mut Table<'_>) -> Read<When> {
    When::read(&table.need("when", "whom it is for, such as { workspace = \"research\" }; {} is everybody")?)
}

fn window(table: &mut Table<'_>) -> Read<Window> {
    let zone = table.take("timezone");
    let zone_name = zone.as_ref().map(Item::str).transpose()?.unwrap_or_default().to_owned();
    let choices = [("hour", 0_u8), ("day", 1), ("month", 2), ("lifetime", 3)];
    let per = table.need("per", "one of `hour`, `day`, `month`, `lifetime`")?;
    let window = match per.choice(&choices)? {
        0 => Window::Rolling(3_600),
        1 => Window::Day(zone_name),
        2 => Window::Month(zone_name),
        _ => Window::Lifetime,
    };
    match (zone, &window) {
        (Some(zone), Window::Rolling(_) | Window::Lifetime) => {
            Err(zone.error("only days and months begin at some place's midnight"))
        }
        (Some(zone), _) => match budget::resets_at(&window, Timestamp::default()) {
            Ok(_) => Ok(window),
            Err(e) => Err(zone.error(e.to_string()).hint("such as \"Europe/Berlin\" or \"UTC\"")),
        },
        (None, _) => Ok(window),
    }
}

/// Who may spend, from which wallet, under which policies. Generations keep it as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct MandateConfig {
    /// Its name.
    pub name: String,
    /// Whom it is for.
    pub when: When,
    /// The wallet that pays.
    pub wallet: String,
    /// The policies that judge, in order; never empty.
    pub policies: Vec<String>,
    /// What a signature may bind the wallet to.
    pub commitments: BTreeSet<Commitment>,
    /// Cap on how long a signature may stay redeemable.
    pub max_validity_seconds: u32,
    /// Whether only sessions may spend under it.
    pub require_session: bool,
    /// The doors it may be used through.
    pub doors: BTreeSet<Door>,
    /// Whether the remote signer takes the agent's word for what is bought.
    pub unobserved: bool,
}

/// A way in for agents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Door {
    /// `POST /v1/fetch`.
    Fetch,
    /// The forward proxy.
    Proxy,
    /// MCP.
    Mcp,
    /// The remote signer, where the agent, not the host, says what is bought.
    Sign,
}

impl Door {
    /// Every door by its name in the file.
    pub const ALL: [(&'static str, Self); 4] =
        [("fetch", Self::Fetch), ("proxy", Self::Proxy), ("mcp", Self::Mcp), ("sign", Self::Sign)];

    /// Its name in the file.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fetch => "fetch",
            Self::Proxy => "proxy",
            Self::Mcp => "mcp",
            Self::Sign => "sign",
        }
    }
}

impl MandateConfig {
    const KEYS: &'static [&'static str] = &[
        "name",
        "when",
        "wallet",
        "policies",
        "commitments",
        "max-validity-seconds",
        "require-session",
        "doors",
        "unobserved",
    ];
    const COMMITMENTS: [(&'static str, Commitment); 4] = [
        ("fixed", Commitment::Fixed),
        ("ceiling", Commitment::Ceiling),
        ("deposit", Commitment::Deposit),
        ("recurring", Commitment::Recurring),
    ];
    const MAX_VALIDITY_SECONDS: u32 = 3_600;

    pub(super) fn read(item: &Item<'_>) -> Read<Self> {
        let mut table = item.table(Self::KEYS)?;
        let name = table.need("name", "such as name = \"research\"")?.name()?;
        let when = when(&mut table)?;
        let wallet = table.need("wallet", "the name of a [wallet.NAME]")?.name()?;
        let item = table.need("policies", "the names of the [policy.NAME]s that judge, in order")?;
        let policies = item.list()?.iter().map(Item::name).collect::<Read<Vec<_>>>()?;
        if policies.is_empty() {
            let hint = "a purchase is allowed only if at least one policy allows it";
            return Err(item.error("a mandate without policies refuses everything").hint(hint));
        }
        if policies.iter().collect::<BTreeSet<_>>().len() != policies.len() {
            return Err(item.error("a policy is named twice"));
        }
        let commitments = match table.take("commitments") {
            Some(item) => some(&item, item.choices(&Self::COMMITMENTS)?)?,
            None => BTreeSet::from([Commitment::Fixed]),
        };
        let doors = match table.take("doors") {
            Some(item) => some(&item, item.choices(&Door::ALL)?)?,
            None => BTreeSet::from([Door::Fetch, Door::Proxy, Door::Mcp]),
        };
        let validity = MIN_VALIDITY_SECONDS..=Self::MAX_VALIDITY_SECONDS;
        Ok(Self {
            name,
            when,
            wallet,
            policies,
            commitments,
            max_validity_seconds: table
                .take("max-validity-seconds")
                .map(|i| i.u32(validity))
                .transpose()?
                .unwrap_or(300),
            require_session: table.take("require-session").map(|i| i.bool()).transpose()?.unwrap_or(false),
            doors,
            unobserved: table.take("unobserved").map(|i| i.bool()).transpose()?.unwrap_or(false),
        })
    }
}

fn some<T>(item: &Item<'_>, set: BTreeSet<T>) -> Read<BTreeSet<T>> {
    if set.is_empty() { Err(item.error("an empty list refuses everything")) } else { Ok(set) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_match_what_the_principal_is() {
        let principal = Principal {
            agent: "scout".into(),
            workspace: Some("research".into()),
            roles: vec!["analyst".into(), "reader".into()],
            client: Some("acme".into()),
            ..Principal::default()
        };
        let set = |names: &[&str]| names.iter().map(ToString::to_string).collect::<BTreeSet<_>>();
        let check = |when: When, want: bool| assert_eq!(when.matches(&principal), want, "{when:?}");
        check(When::default(), true);
        check(When { agent: set(&["scout"]), ..When::default() }, true);
        check(When { agent: set(&["other"]), ..When::default() }, false);
        check(When { workspace: set(&["research", "sales"]), ..When::default() }, true);
        check(When { role: set(&["buyer", "reader"]), ..When::default() }, true);
        check(When { role: set(&["buyer"]), ..When::default() }, false);
        check(When { agent: set(&["scout"]), client: set(&["other"]), ..When::default() }, false);
        for absent in [
            When { user: set(&[""]), ..When::default() },
            When { project: set(&["p"]), ..When::default() },
            When { task: set(&["t"]), ..When::default() },
        ] {
            check(absent, false);
        }
    }
}
