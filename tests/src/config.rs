//! Configuration files for the gateway under test.

use crate::peers::{BUYER, NETWORK, Peers, authority};
use sha2::{Digest, Sha256};
use toml::{Table, Value};

/// What agent `scout` sends as its bearer token.
pub const SCOUT_TOKEN: &str = "test-agent-token-of-scout-0123456789abcdef";
/// What operator `alice` sends as her bearer token.
pub const ALICE_TOKEN: &str = "test-operator-token-of-alice-0123456789abcdef";
/// The environment variable from which the standard wallet takes its key.
pub const WALLET_KEY: &str = "WALLET_KEY";

/// `sha256` of a token's text as the configuration wants it: 64 lower-case hex digits.
pub fn token_sha256(token: &str) -> String {
    hex::encode(Sha256::digest(token.as_bytes()))
}

/// A policy to be put into a configuration: `[policy.NAME]`.
#[derive(Debug, Clone)]
#[must_use]
pub struct Policy {
    name: String,
    table: Table,
}

impl Policy {
    /// A policy called `name`, from `builtin:NAME` or a path to a module.
    pub fn new(name: &str, module: &str) -> Self {
        let table = Table::from_iter([("module".to_owned(), Value::from(module))]);
        Self { name: name.to_owned(), table }
    }

    /// Adds `settings.KEY`.
    pub fn setting(self, key: &str, value: impl Into<Value>) -> Self {
        self.key(&["settings", key], value)
    }

    /// Sets any key of the policy's table, such as `["deadline-ms"]`.
    pub fn key(mut self, path: &[&str], value: impl Into<Value>) -> Self {
        put(&mut self.table, path, value.into());
        self
    }

    /// `vendors`: the builtin allowlist with everything on 127.0.0.1, at any port.
    pub fn vendors() -> Self {
        Self::new("vendors", "builtin:vendor-allowlist").setting("hosts", vec!["127.0.0.1:*"])
    }

    /// `caps`: the builtin caps at 1 USD per payment, 5 per session and agent hour, 20 a day, 200 a month.
    pub fn caps() -> Self {
        Self::new("caps", "builtin:spend-caps")
            .setting("per-payment", "1.00")
            .setting("per-session", "5.00")
            .setting("per-agent-hour", "5.00")
            .setting("per-agent-day", "20.00")
            .setting("per-agent-month", "200.00")
            .setting("timezone", "UTC")
    }

    /// [`Policy::vendors`] and [`Policy::caps`].
    pub fn standard() -> [Self; 2] {
        [Self::vendors(), Self::caps()]
    }
}

/// A configuration and the environment its secrets come from. The listeners are set by
/// [`Gateway::start`](crate::process::Gateway::start).
#[derive(Debug, Clone)]
#[must_use]
pub struct Config {
    table: Table,
    env: Vec<(String, String)>,
    secrets: Vec<String>,
}

/// A complete configuration for these peers: SQLite ledger, the peers' chain as RPC, both sellers allowed by the egress
/// guard, wallet `research` with the buyer's key, one mandate `all` for everybody with the given policies, in that order,
/// agent `scout`, operator `alice` with every role.
pub fn standard_config(peers: &Peers, policies: impl IntoIterator<Item = Policy>) -> Config {
    Config::new(policies)
        .allow_private(authority(&peers.v2))
        .allow_private(authority(&peers.v1))
        .set(&["network", NETWORK, "rpc"], peers.rpc.as_str())
        .set(&["network", NETWORK, "finality-blocks"], 0)
}

impl Config {
    /// As [`standard_config`], but with no peers: no RPC, no private address that may be reached.
    pub fn new(policies: impl IntoIterator<Item = Policy>) -> Self {
        let table = toml::toml! {
            [gateway]
            currency = "USD"

            [ledger]
            url = "sqlite:countersign.db"

            [egress]
            allow-private = []

            [wallet.research]
            kind = "key"
            key = { env = "WALLET_KEY" }
            networks = ["eip155:84532"]
            daily-limit = "1000.00"

            [[mandate]]
            name = "all"
            when = {}
            wallet = "research"
            policies = []

            [agent.scout]
            workspace = "research"
            roles = ["analyst"]

            [operator.alice]
            roles = ["viewer", "approver", "policy-admin", "session-admin", "suspender"]
            groups = ["finance"]
        };
        let secrets = vec![SCOUT_TOKEN.to_owned(), ALICE_TOKEN.to_owned()];
        let config = Self { table, env: Vec::new(), secrets }
            .env(WALLET_KEY, BUYER.key)
            .set(&["agent", "scout", "token-sha256"], token_sha256(SCOUT_TOKEN))
            .set(&["operator", "alice", "token-sha256"], token_sha256(ALICE_TOKEN));
        policies.into_iter().fold(config, Self::policy)
    }

    /// Sets a key, such as `["limits", "reviews-per-agent"]`; tables on the way are made.
    pub fn set(mut self, path: &[&str], value: impl Into<Value>) -> Self {
        put(&mut self.table, path, value.into());
        self
    }

    /// Removes a key or a whole table, which must be there.
    pub fn remove(mut self, path: &[&str]) -> Self {
        let (last, parents) = path.split_last().expect("a path");
        let table =
            parents.iter().fold(&mut self.table, |table, key| table.get_mut(*key).unwrap().as_table_mut().unwrap());
        table.remove(*last).unwrap_or_else(|| panic!("no key {path:?}"));
        self
    }

    /// Adds a policy to the file and to the end of the first mandate's list.
    pub fn policy(mut self, policy: Policy) -> Self {
        let list = self.first_mandate().get_mut("policies").unwrap().as_array_mut().unwrap();
        list.push(Value::from(policy.name.as_str()));
        self.set(&["policy", &policy.name], policy.table)
    }

    /// Sets a key of the first mandate.
    pub fn mandate(mut self, path: &[&str], value: impl Into<Value>) -> Self {
        put(self.first_mandate(), path, value.into());
        self
    }

    /// Removes a key of the first mandate, which must be there.
    pub fn without_mandate_key(mut self, key: &str) -> Self {
        self.first_mandate().remove(key).unwrap_or_else(|| panic!("no key {key}"));
        self
    }

    /// Lets the gateway reach a private `host:port`.
    pub fn allow_private(mut self, address: &str) -> Self {
        let list = self.table.get_mut("egress").and_then(|egress| egress.get_mut("allow-private")).unwrap();
        list.as_array_mut().unwrap().push(Value::from(address));
        self
    }

    /// Adds an agent in workspace `research`.
    pub fn agent(mut self, name: &str, token: &str) -> Self {
        self.secrets.push(token.to_owned());
        self.set(&["agent", name, "token-sha256"], token_sha256(token)).set(&["agent", name, "workspace"], "research")
    }

    /// Adds an operator with these roles.
    pub fn operator(mut self, name: &str, token: &str, roles: &[&str]) -> Self {
        self.secrets.push(token.to_owned());
        self.set(&["operator", name, "token-sha256"], token_sha256(token))
            .set(&["operator", name, "roles"], roles.to_vec())
    }

    /// Sets a variable of the gateway's environment that holds a secret: the gateway may write it nowhere.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.secrets.push(value.to_owned());
        self.variable(name, value)
    }

    /// Sets a variable of the gateway's environment that holds no secret.
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.env.retain(|(known, _)| known != name);
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The file's text.
    pub fn to_toml(&self) -> String {
        toml::to_string(&self.table).unwrap()
    }

    /// The gateway's variables.
    pub(crate) fn variables(&self) -> &[(String, String)] {
        &self.env
    }

    /// Everything that this configuration was given and that must be in no output.
    pub(crate) fn secrets(&self) -> &[String] {
        &self.secrets
    }

    fn first_mandate(&mut self) -> &mut Table {
        let mandates = self.table.get_mut("mandate").and_then(Value::as_array_mut).expect("a mandate");
        mandates.first_mut().and_then(Value::as_table_mut).expect("a mandate")
    }
}

fn put(table: &mut Table, path: &[&str], value: Value) {
    let (last, parents) = path.split_last().expect("a path");
    let table = parents.iter().fold(table, |table, key| {
        let inner = table.entry(*key).or_insert_with(|| Value::Table(Table::new()));
        inner.as_table_mut().unwrap_or_else(|| panic!("{key} in {path:?} is no table"))
    });
    table.insert((*last).to_owned(), value);
}
