//! The configuration: one TOML file, read once into typed values.
//!
//! Nothing reads a string key, an environment variable or a secret's file later. Unknown keys are
//! mistakes, secrets are only referred to, and whatever names something else in the file is checked
//! here, so that the rest of the gateway need not ask "what if".

mod assets;
mod egress;
mod engine;
mod environment;
mod error;
mod identities;
mod issuers;
mod mandates;
mod mcp_servers;
pub mod names;
pub mod permissions;
mod policies;
mod proxy;
mod reader;
mod reload;
mod sections;
mod shared;
mod telemetry;
mod units;
mod vendors;
mod wallets;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use countersign_core::verdict::Mode;
use countersign_core::x402::{AssetTable, Network};
use sha2::{Digest, Sha256};
use toml::de::DeTable;

pub use egress::{Allowed, Egress, HostPattern, Place, PortPattern};
pub use engine::EngineSection;
pub use environment::{Environment, Secret};
pub use error::ConfigError;
pub use identities::{AgentConfig, OperatorConfig, OperatorRole, Scope, Subject};
pub(crate) use issuers::vouched_for;
pub use issuers::{Algorithm, ClaimNames, IssuerConfig, KeySource, Template};
pub use mandates::{BudgetConfig, Door, MandateConfig, When};
pub use mcp_servers::McpServer;
pub use policies::{Module, PolicyConfig, canonical_settings, cases_beside};
pub use proxy::Proxy;
pub use sections::{Approvals, Gateway, Ledger, Limits, NetworkConfig, Responses, Store, Tls};
pub use telemetry::{Alerts, Telemetry, Webhook, signing_key};
pub use vendors::VendorConfig;
pub use wallets::{WalletConfig, WalletKind};

use permissions::{Kind, check_private};
use reader::{Item, Source, Table};

/// A whole configuration, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file it came from.
    pub path: PathBuf,
    /// SHA-256 of its text, lower-case hex; with a shared ledger, of what gateways have in common.
    pub sha256: String,
    /// What relative paths in it start from.
    pub base_dir: PathBuf,
    /// `[gateway]`
    pub gateway: Gateway,
    /// `[ledger]`
    pub ledger: Ledger,
    /// `[engine]`
    pub engine: EngineSection,
    /// `[egress]`
    pub egress: Egress,
    /// `[proxy]`
    pub proxy: Proxy,
    /// `[responses]`
    pub responses: Responses,
    /// `[approvals]`
    pub approvals: Approvals,
    /// `[limits]`
    pub limits: Limits,
    /// `[telemetry]`
    pub telemetry: Telemetry,
    /// `[alerts]`
    pub alerts: Alerts,
    /// The built-in assets with `[asset.*]` over them.
    pub assets: AssetTable,
    /// `[network.*]`
    pub networks: BTreeMap<Network, NetworkConfig>,
    /// `[wallet.*]`
    pub wallets: BTreeMap<String, WalletConfig>,
    /// `[policy.*]`
    pub policies: BTreeMap<String, PolicyConfig>,
    /// `[budget.*]`, in the order of the file.
    pub budgets: Vec<BudgetConfig>,
    /// `[vendor.*]`, in the order of the file: the first that matches a host says what it is.
    pub vendors: Vec<VendorConfig>,
    /// `[mcp-server.*]`
    pub mcp_servers: BTreeMap<String, McpServer>,
    /// `[[mandate]]`, in the order of the file: the first that matches decides.
    pub mandates: Vec<MandateConfig>,
    /// `[issuer.*]`
    pub issuers: BTreeMap<String, IssuerConfig>,
    /// `[agent.*]`
    pub agents: BTreeMap<String, AgentConfig>,
    /// `[operator.*]`
    pub operators: BTreeMap<String, OperatorConfig>,
    /// What works but is probably not meant, for people.
    pub warnings: Vec<String>,
    /// Environment variables that hold secrets; children must not inherit them.
    pub secret_env: BTreeSet<String>,
    /// The file in two parts, with a shared ledger.
    parted: Option<shared::Parted>,
    /// Where each key stands, for mistakes that only show later.
    places: BTreeMap<String, reader::Place>,
}

const SECTIONS: &[&str] = &[
    "gateway",
    "ledger",
    "engine",
    "egress",
    "proxy",
    "responses",
    "approvals",
    "limits",
    "telemetry",
    "alerts",
    "asset",
    "network",
    "wallet",
    "policy",
    "budget",
    "vendor",
    "mcp-server",
    "mandate",
    "issuer",
    "agent",
    "operator",
];

impl Config {
    /// Reads a file that nobody else may write, and the secrets it refers to.
    ///
    /// # Errors
    /// The first mistake, with its place.
    pub fn load(path: &Path, env: &Environment) -> Result<Self, ConfigError> {
        Self::load_with(path, Some(env))
    }

    /// Reads a file without its secrets, which come out empty: for commands that only look.
    ///
    /// # Errors
    /// The first mistake, with its place.
    pub fn inspect(path: &Path) -> Result<Self, ConfigError> {
        Self::load_with(path, None)
    }

    fn load_with(path: &Path, env: Option<&Environment>) -> Result<Self, ConfigError> {
        let fail = |message: String| ConfigError::file(path, message);
        if !path.exists() {
            return Err(fail("there is no such file".to_owned()).hint("`countersign init` writes one"));
        }
        check_private(path, Kind::Config).map_err(|e| not_private(fail(e.to_string()), &e))?;
        let text = reader::read_text(path, reader::MAX_FILE).map_err(fail)?;
        let whole = std::path::absolute(path).map_err(|e| fail(e.to_string()))?;
        let base = whole.parent().unwrap_or(Path::new("/"));
        Self::read(&text, path, base, env)
    }

    /// The text of the file as it stands now, which may be another than the one that was read.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn text(&self) -> Result<String, ConfigError> {
        reader::read_text(&self.path, reader::MAX_FILE).map_err(|why| ConfigError::file(&self.path, why))
    }

    /// Reads another text as if it stood in this file, without its secrets.
    ///
    /// # Errors
    /// The first mistake, with its place.
    pub fn with_text(&self, text: &str) -> Result<Self, ConfigError> {
        Self::read(text, &self.path, &self.base_dir, None)
    }

    /// Reads a text as if it stood in `base_dir`.
    ///
    /// # Errors
    /// The first mistake, with its place.
    pub fn parse(text: &str, base_dir: &Path, env: &Environment) -> Result<Self, ConfigError> {
        Self::read(text, &base_dir.join("countersign.toml"), base_dir, Some(env))
    }

    fn read(text: &str, path: &Path, base: &Path, env: Option<&Environment>) -> Result<Self, ConfigError> {
        let source = Source::new(path, text, base, env);
        let document = DeTable::parse(text).map_err(|e| source.syntax(&e))?;
        let mut root = source.root(document.get_ref(), SECTIONS)?;
        let mut section = |name: &str, keys| root.take(name).map(|item| item.table(keys)).transpose();

        let gateway = Gateway::read(section("gateway", &["listen", "admin", "currency", "tls", "admin-hosts"])?)?;
        let ledger = Ledger::read(section("ledger", Ledger::KEYS)?, base)?;
        let engine = EngineSection::read(section("engine", EngineSection::KEYS)?, &ledger)?;
        let egress = Egress::read(section("egress", Egress::KEYS)?)?;
        let proxy = Proxy::read(section("proxy", Proxy::KEYS)?, &ledger)?;
        let responses = Responses::read(section("responses", &["keep", "max-bytes"])?)?;
        let approvals = Approvals::read(section("approvals", Approvals::KEYS)?)?;
        let limits = Limits::read(section("limits", Limits::KEYS)?)?;
        let telemetry = Telemetry::read(section("telemetry", Telemetry::KEYS)?, &gateway)?;
        let alerts = Alerts::read(section("alerts", Alerts::KEYS)?)?;
        let assets = assets::read(&mut root, &gateway.currency)?;

        let name = |item: &Item<'_>, text: &str| item.named(text);
        let networks = root.named("network", assets::network_named, |_, item| NetworkConfig::read(&item))?;
        let wallets = root.named("wallet", name, |_, item| WalletConfig::read(&item))?;
        let policies = root.named("policy", policies::name, |_, item| PolicyConfig::read(&item))?;
        let budgets = root.named("budget", BudgetConfig::name, |name, item| BudgetConfig::read(name, &item))?;
        let vendors = root.named("vendor", name, |name, item| VendorConfig::read(name, &item))?;
        let mcp_servers = root.named("mcp-server", McpServer::name, |_, item| McpServer::read(&item))?;
        let mandates = read_mandates(&mut root)?;
        let issuers = root.named("issuer", IssuerConfig::name, |_, item| IssuerConfig::read(&item))?;
        let agents = root.named("agent", name, |name, item| AgentConfig::read(name, &item))?;
        let operators = root.named("operator", name, |_, item| OperatorConfig::read(&item))?;

        let parted = match &ledger.store {
            Store::Sqlite { .. } => None,
            Store::Postgres { .. } => Some(shared::part(text).map_err(|why| ConfigError::file(path, why))?),
        };
        let said = parted.as_ref().map_or(text, |parted| parted.common.as_str());
        let mut config = Self {
            path: path.to_owned(),
            sha256: hex::encode(Sha256::digest(said.as_bytes())),
            base_dir: base.to_owned(),
            gateway,
            ledger,
            engine,
            egress,
            proxy,
            responses,
            approvals,
            limits,
            telemetry,
            alerts,
            assets,
            networks: networks.into_iter().collect(),
            wallets: wallets.into_iter().collect(),
            policies: policies.into_iter().collect(),
            budgets: budgets.into_iter().map(|(_, budget)| budget).collect(),
            vendors: vendors.into_iter().map(|(_, vendor)| vendor).collect(),
            mcp_servers: mcp_servers.into_iter().collect(),
            mandates,
            issuers: issuers.into_iter().collect(),
            agents: agents.into_iter().collect(),
            operators: operators.into_iter().collect(),
            warnings: Vec::new(),
            secret_env: source.secret_env.into_inner(),
            parted,
            places: source.places.into_inner(),
        };
        config.check_references()?;
        config.check_tokens()?;
        config.check_keys()?;
        config.check_issuers()?;
        config.warnings = config.find_warnings();
        Ok(config)
    }

    /// A mistake at `key` (`policy.caps.settings`) that shows only now, such as settings that a
    /// policy refuses.
    #[must_use]
    pub fn error_at(&self, key: &str, message: impl Into<String>) -> ConfigError {
        let (line, column) = self.places.get(key).copied().unwrap_or((0, 0));
        ConfigError { line, column, key: key.to_owned(), ..ConfigError::file(&self.path, message) }
    }

    /// Checks that every `builtin:NAME` is one of `builtins`.
    ///
    /// # Errors
    /// The first that is not.
    pub fn check_builtins(&self, builtins: &[&str]) -> Result<(), ConfigError> {
        for (policy, config) in &self.policies {
            let Module::Builtin(name) = &config.module else { continue };
            if !builtins.contains(&name.as_str()) {
                let key = reader::join(&reader::join("policy", policy), "module");
                let error = self.error_at(&key, format!("no policy `{name}` comes with this gateway"));
                return Err(error.hint(reader::suggest(name, builtins)));
            }
        }
        Ok(())
    }

    /// Checks that nobody else can read or replace what the file refers to: the ledger, keystores
    /// and the TLS key. The file itself and secrets were checked when they were read; modules are
    /// [`Self::check_modules`]'.
    ///
    /// # Errors
    /// The first path that is not private, with the command that puts it right.
    pub fn check_paths(&self) -> Result<(), ConfigError> {
        let check = |key: String, path: &Path, kind: Kind| self.check_path(&key, path, kind);
        if let Some(tls) = &self.gateway.tls {
            check("gateway.tls.key".to_owned(), &tls.key, Kind::Secret)?;
            check("gateway.tls.cert".to_owned(), &tls.cert, Kind::Config)?;
            if let Some(ca) = &tls.client_ca {
                check("gateway.tls.client-ca".to_owned(), ca, Kind::Config)?;
            }
        }
        match &self.ledger.store {
            Store::Sqlite { path } => check("ledger.url".to_owned(), path, Kind::Ledger)?,
            // The folder itself is the ledger's to check: it must not be written to by others.
            Store::Postgres { roots: Some(roots), .. } => check("ledger.roots".to_owned(), roots, Kind::Config)?,
            Store::Postgres { roots: None, .. } => {}
        }
        // Made when they are first needed.
        for (key, path) in [
            ("ledger.log-key", Some(&self.ledger.log_key)),
            ("ledger.anchor", self.ledger.anchor.as_ref()),
            ("proxy.ca", Some(&self.proxy.ca)),
        ] {
            if let Some(path) = path.filter(|path| path.exists()) {
                check(key.to_owned(), path, Kind::Secret)?;
            }
        }
        for (name, wallet) in &self.wallets {
            if let WalletKind::Keystore { path, .. } = &wallet.kind {
                check(reader::join(&reader::join("wallet", name), "path"), path, Kind::Wallet)?;
            }
        }
        if let Some(roots) = &self.egress.roots {
            check("egress.roots".to_owned(), roots, Kind::Config)?;
        }
        for (name, issuer) in &self.issuers {
            if let KeySource::File(path) = &issuer.keys {
                check(reader::join(&reader::join("issuer", name), "jwks-file"), path, Kind::Config)?;
            }
        }
        Ok(())
    }

    /// Checks that policy modules are there and that nobody else can change them.
    ///
    /// # Errors
    /// The first that is not, with the command that puts it right.
    pub fn check_modules(&self) -> Result<(), ConfigError> {
        for (name, policy) in &self.policies {
            if let Module::File(path) = &policy.module {
                self.check_path(&reader::join(&reader::join("policy", name), "module"), path, Kind::Policy)?;
            }
        }
        Ok(())
    }

    fn check_path(&self, key: &str, path: &Path, kind: Kind) -> Result<(), ConfigError> {
        check_private(path, kind).map_err(|e| not_private(self.error_at(key, e.to_string()), &e))
    }

    /// Every name that a mandate uses must be there.
    fn check_references(&self) -> Result<(), ConfigError> {
        let mut seen = BTreeSet::new();
        for (n, mandate) in self.mandates.iter().enumerate() {
            let at = |key: &str| format!("mandate[{n}].{key}");
            if !seen.insert(&mandate.name) {
                return Err(self.error_at(&at("name"), format!("another mandate is named `{}`", mandate.name)));
            }
            if !self.wallets.contains_key(&mandate.wallet) {
                let known: Vec<&str> = self.wallets.keys().map(String::as_str).collect();
                let message = format!("there is no [wallet.{}]", mandate.wallet);
                return Err(self.error_at(&at("wallet"), message).hint(reader::suggest(&mandate.wallet, &known)));
            }
            if let Some(missing) = mandate.policies.iter().find(|name| !self.policies.contains_key(*name)) {
                let known: Vec<&str> = self.policies.keys().map(String::as_str).collect();
                let message = format!("there is no [policy.{missing}]");
                return Err(self.error_at(&at("policies"), message).hint(reader::suggest(missing, &known)));
            }
        }
        Ok(())
    }

    /// One token must mean one identity.
    fn check_tokens(&self) -> Result<(), ConfigError> {
        let agents = self.agents.iter().filter_map(|(name, agent)| Some(("agent", name, agent.token_sha256.as_ref()?)));
        let operators = self.operators.iter().map(|(name, operator)| ("operator", name, &operator.token_sha256));
        let mut seen = BTreeMap::new();
        for (section, name, token) in agents.chain(operators) {
            let owner = reader::join(section, name);
            if let Some(other) = seen.insert(token, owner.clone()) {
                let key = reader::join(&owner, "token-sha256");
                let error = self.error_at(&key, format!("the same token as {other}"));
                return Err(error.hint("a token must say who is asking: give each its own"));
            }
        }
        Ok(())
    }

    /// One approval key must mean one operator, and no receiver of messages may sign as somebody who approves.
    fn check_keys(&self) -> Result<(), ConfigError> {
        let secret = |webhook: &Option<Webhook>| webhook.as_ref().and_then(Webhook::key);
        let told = [
            ("alerts.secret", secret(&self.alerts.webhook)),
            ("approvals.webhook-secret", secret(&self.approvals.webhook)),
        ];
        let mut seen: BTreeMap<Vec<u8>, String> =
            told.into_iter().filter_map(|(owner, key)| Some((key?, owner.to_owned()))).collect();
        for (name, operator) in &self.operators {
            let Some(key) = operator.approval_key.as_ref().and_then(signing_key) else { continue };
            let place = reader::join(&reader::join("operator", name), "approval-key");
            if let Some(other) = seen.insert(key, place.clone()) {
                let error = self.error_at(&place, format!("the same key as {other}"));
                return Err(error.hint("a key must say who approves: give each operator their own"));
            }
        }
        Ok(())
    }

    /// One JWT must mean one agent, and what an agent must show must be asked for.
    fn check_issuers(&self) -> Result<(), ConfigError> {
        let mut seen = BTreeMap::new();
        for (name, issuer) in &self.issuers {
            if let Some(other) = seen.insert(&issuer.issuer, name) {
                let key = reader::join(&reader::join("issuer", name), "issuer");
                return Err(self.error_at(&key, format!("the same issuer as issuer.{other}")));
            }
        }
        let mut subjects = BTreeMap::new();
        for (name, agent) in &self.agents {
            let at = |key: &str| reader::join(&reader::join("agent", name), key);
            if let Some(subject) = &agent.subject
                && let Some(other) = subjects.insert(subject, name)
            {
                let error = self.error_at(&at("issuer"), format!("the same subject as agent.{other}"));
                return Err(error.hint("a token must say who is asking"));
            }
            let asks = self.gateway.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
            if agent.certificate_sha256.is_some() && !asks {
                let error = self.error_at(&at("certificate-sha256"), "agents are not asked for certificates");
                return Err(error.hint("add client-ca to gateway.tls"));
            }
            let prefix = name.split_once('.').map_or("", |(prefix, _)| prefix);
            if self.issuers.get(prefix).is_some_and(|issuer| issuer.template.is_some()) {
                let key = reader::join("agent", name);
                let error = self.error_at(&key, format!("agents of issuer.{prefix} without a table are called so"));
                return Err(error.hint("give this agent a name that does not begin with an issuer's and a point"));
            }
        }
        Ok(())
    }

    fn find_warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        for (name, wallet) in &self.wallets {
            if matches!(wallet.kind, WalletKind::Key { .. }) {
                warnings.push(format!(
                    "wallet.{name}: kind = \"key\" is for development; use a keystore where money is real"
                ));
            }
            for network in wallet.networks.iter().filter(|network| !self.assets.knows(**network)) {
                let why = match self.gateway.currency.as_str() {
                    "USD" => String::new(),
                    other => {
                        format!(" (the built-in assets are dollars: give them a price in {other} under [asset.NAME])")
                    }
                };
                warnings
                    .push(format!("wallet.{name}: no asset is known on {network}, so nothing can be paid there{why}"));
            }
        }
        for mandate in &self.mandates {
            let name = &mandate.name;
            let enforced = |policy: &String| self.policies.get(policy).is_some_and(|p| p.mode == Mode::Enforce);
            if !mandate.policies.iter().any(enforced) {
                warnings.push(format!("mandate {name}: all its policies only monitor, so every purchase is denied"));
            }
            if mandate.unobserved && !mandate.doors.contains(&Door::Sign) {
                warnings.push(format!("mandate {name}: `unobserved` does nothing unless `doors` lists \"sign\""));
            }
        }
        if let Store::Postgres { .. } = &self.ledger.store
            && self.parted.as_ref().is_some_and(|parted| has_password(&parted.own))
        {
            warnings.push("ledger.url has a password: keep it in a file, and name that in ledger.password".to_owned());
        }
        for (name, agent) in &self.agents {
            // Not a mistake: removing an issuer must shut its agents out whatever else is in the file.
            if let Some(subject) = agent.subject.as_ref().filter(|s| !self.issuers.contains_key(&s.issuer)) {
                let known: Vec<&str> = self.issuers.keys().map(String::as_str).collect();
                let hint = if known.is_empty() {
                    String::new()
                } else {
                    format!("; {}", reader::suggest(&subject.issuer, &known))
                };
                warnings.push(format!(
                    "agent {name}: there is no [issuer.{}], so no JWT speaks for it{hint}",
                    subject.issuer
                ));
            }
        }
        if self.mandates.is_empty() {
            warnings.push("there is no [[mandate]], so every purchase is denied".to_owned());
        }
        let used: BTreeSet<&String> = self.mandates.iter().flat_map(|mandate| &mandate.policies).collect();
        let unused = self.policies.keys().filter(|name| !used.contains(name));
        warnings.extend(unused.map(|name| format!("policy.{name}: no mandate uses it, so it judges nothing")));
        warnings
    }
}

/// Whether the URL in this part of a file has a password.
fn has_password(own: &str) -> bool {
    let url = own.parse::<toml::Table>().ok().and_then(|t| Some(t.get("ledger")?.get("url")?.as_str()?.to_owned()));
    url.is_some_and(|url| url.split_once('@').is_some_and(|(user, _)| user.matches(':').count() > 1))
}

fn read_mandates(root: &mut Table<'_>) -> Result<Vec<MandateConfig>, ConfigError> {
    let Some(item) = root.take("mandate") else { return Ok(Vec::new()) };
    let mandates = item.list().map_err(|e| e.hint("write [[mandate]] in double brackets"))?;
    mandates.iter().map(MandateConfig::read).collect()
}

fn not_private(error: ConfigError, why: &permissions::PermissionError) -> ConfigError {
    match why.hint() {
        Some(hint) => error.hint(hint),
        None => error,
    }
}
