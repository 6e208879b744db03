//! The small sections: gateway, ledger, responses, approvals, limits, networks.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use countersign_core::ledger::{Caps, SessionCaps};
use countersign_core::money::Micros;
use countersign_ledger::Database;

use super::OperatorConfig;
use super::egress::HostPattern;
use super::reader::{Item, Read, Table};
use super::telemetry::Webhook;

/// Most bytes of one body that are ever kept in memory or in the store.
pub(super) const MAX_BODY: u64 = 64 << 20;

/// `[gateway]`: where agents and operators connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gateway {
    /// Agents: fetch API, MCP, forward proxy, remote signer.
    pub listen: SocketAddr,
    /// Operators: dashboard, admin API, metrics, health.
    pub admin: SocketAddr,
    /// The reference currency budgets are kept in: three capital letters.
    pub currency: String,
    /// Certificate and key of both listeners.
    pub tls: Option<Tls>,
    /// `Host` values the admin listener answers to besides its own address: lower-case, as sent,
    /// with a port where it is not the scheme's own.
    pub admin_hosts: BTreeSet<String>,
}

/// PEM files for TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// The certificate chain.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Authorities, one of which must have certified whoever connects to the agents' listener.
    pub client_ca: Option<PathBuf>,
}

impl Gateway {
    pub(super) fn read(table: Option<Table<'_>>) -> Read<Self> {
        let mut gateway = Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8402)),
            admin: SocketAddr::from(([127, 0, 0, 1], 8403)),
            currency: "USD".to_owned(),
            tls: None,
            admin_hosts: BTreeSet::new(),
        };
        let Some(mut table) = table else { return Ok(gateway) };
        if let Some(item) = table.take("tls") {
            let mut tls = item.table(&["cert", "key", "client-ca"])?;
            let why = "write tls = { cert = \"cert.pem\", key = \"key.pem\" }";
            gateway.tls = Some(Tls {
                cert: tls.need("cert", why)?.path()?,
                key: tls.need("key", why)?.path()?,
                client_ca: tls.take("client-ca").map(|i| i.path()).transpose()?,
            });
        }
        let secured = gateway.tls.is_some();
        let admin = table.take("admin");
        if let Some(item) = table.take("listen") {
            gateway.listen = address(&item, secured)?;
        }
        if let Some(item) = &admin {
            gateway.admin = address(item, secured)?;
        }
        if gateway.listen == gateway.admin && gateway.listen.port() != 0 {
            let mistake =
                admin.map_or_else(|| table.error("listen is admin's default"), |i| i.error("the same as listen"));
            return Err(mistake.hint("agents and operators must not share a listener"));
        }
        if let Some(item) = table.take("currency") {
            gateway.currency = currency(&item)?;
        }
        if let Some(item) = table.take("admin-hosts") {
            gateway.admin_hosts = item.list()?.iter().map(admin_host).collect::<Read<_>>()?;
        }
        Ok(gateway)
    }
}

fn address(item: &Item<'_>, secured: bool) -> Read<SocketAddr> {
    let text = item.str()?;
    let address: SocketAddr = text.parse().map_err(|_| {
        item.error(format!("{text:?} is not an IP address and a port")).hint("such as \"127.0.0.1:8402\"")
    })?;
    if secured || address.ip().to_canonical().is_loopback() {
        return Ok(address);
    }
    let message = format!("{address} can be reached from other machines, which would send tokens in clear text");
    Err(item.error(message).hint("add tls = { cert = \"cert.pem\", key = \"key.pem\" } to [gateway], or use 127.0.0.1"))
}

fn currency(item: &Item<'_>) -> Read<String> {
    let text = item.str()?;
    if text.len() == 3 && text.bytes().all(|b| b.is_ascii_uppercase()) {
        Ok(text.to_owned())
    } else {
        Err(item.error(format!("{text:?} is not a currency")).hint("three capital letters, such as \"USD\""))
    }
}

fn admin_host(item: &Item<'_>) -> Read<String> {
    let text = item.str()?.to_ascii_lowercase();
    let plain = HostPattern::parse(&text).is_some() && !text.contains('*');
    if plain { Ok(text) } else { Err(item.error("expected a host, or a host and a port")) }
}

/// `[ledger]`: where budgets and payments are kept, and who vouches for their records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ledger {
    /// The database.
    pub store: Store,
    /// The key that signs checkpoints of the records. Not a wallet's, and not in the database: whoever has
    /// only the database cannot forge them.
    pub log_key: PathBuf,
    /// A file on another volume to which every checkpoint is appended: what it has seen, the database must
    /// still know.
    pub anchor: Option<PathBuf>,
}

/// The database of a ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Store {
    /// One file.
    Sqlite {
        /// The database file.
        path: PathBuf,
    },
    /// A server that several gateways share.
    Postgres {
        /// Which, and how to get in.
        database: Box<Database>,
        /// This gateway's own folder, for its copy.
        folder: PathBuf,
        /// Certificates that its server is believed by, beside the public ones.
        roots: Option<PathBuf>,
    },
}

impl Ledger {
    pub(super) const KEYS: &'static [&'static str] = &["url", "path", "password", "roots", "log-key", "anchor"];

    pub(super) fn read(table: Option<Table<'_>>, base: &std::path::Path) -> Read<Self> {
        let default = || Store::Sqlite { path: base.join(Store::DEFAULT) };
        let Some(mut table) = table else {
            let store = default();
            return Ok(Self { log_key: store.beside("log-key"), store, anchor: None });
        };
        let store = match table.take("url") {
            Some(url) if Store::is_shared(&url)? => Store::shared(&url, &mut table)?,
            url => {
                for key in ["path", "password", "roots"] {
                    if let Some(item) = table.take(key) {
                        return Err(item.error("only a ledger in PostgreSQL has one").hint("remove it"));
                    }
                }
                url.map(|url| Store::file(&url)).transpose()?.unwrap_or_else(default)
            }
        };
        let log_key = table.take("log-key").map(|item| item.path()).transpose()?;
        let anchor = table.take("anchor").map(|item| item.path()).transpose()?;
        Ok(Self { log_key: log_key.unwrap_or_else(|| store.beside("log-key")), store, anchor })
    }
}

impl Store {
    const DEFAULT: &'static str = "countersign.db";

    /// A path whose place is writable and private already: the database's with another ending, or in the folder of the
    /// copy.
    pub(super) fn beside(&self, ending: &str) -> PathBuf {
        let (folder, name) = match self {
            Self::Sqlite { path } => (path.parent(), path.file_name().unwrap_or_default()),
            Self::Postgres { folder, .. } => (Some(folder.as_path()), "countersign".as_ref()),
        };
        let mut name = name.to_owned();
        name.push(".");
        name.push(ending);
        folder.unwrap_or(std::path::Path::new("")).join(name)
    }

    fn is_shared(url: &Item<'_>) -> Read<bool> {
        let text = url.str()?;
        Ok(["postgres:", "postgresql:"].iter().any(|scheme| text.starts_with(scheme)))
    }

    fn shared(url: &Item<'_>, table: &mut Table<'_>) -> Read<Self> {
        let password = table.take("password").map(|item| item.secret()).transpose()?;
        let database = Database::new(url.str()?, password.as_ref().map(super::Secret::expose));
        let database = database.map_err(|why| {
            url.error(why)
                .hint("such as \"postgres://countersign@db.internal:5432/countersign\", and `password` beside it")
        })?;
        let folder = table.take("path").ok_or_else(|| {
            url.error("`path` is missing: each gateway keeps its own copy of a shared ledger")
                .hint("name a private folder of this gateway's alone, such as path = \"ledger\"")
        })?;
        let roots = table.take("roots").map(|item| item.path()).transpose()?;
        Ok(Self::Postgres { database: Box::new(database), folder: folder.path()?, roots })
    }

    fn file(item: &Item<'_>) -> Read<Self> {
        let text = item.str()?;
        let path = text.strip_prefix("sqlite:").map(|path| path.strip_prefix("//").unwrap_or(path));
        match path {
            Some(":memory:") => Err(item.error("a ledger in memory would forget what was spent").hint("name a file")),
            Some(path) if !path.is_empty() && !path.contains(['?', '#', '\0']) => {
                Ok(Self::Sqlite { path: item.resolve(path) })
            }
            _ => Err(item.error("not a ledger").hint(
                "write \"sqlite:\" and a path, such as \"sqlite:countersign.db\"; or a URL that begins with postgres://",
            )),
        }
    }
}

/// `[responses]`: what a repeated purchase can be given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Responses {
    /// How long a seller's answer is kept, in milliseconds; 0 keeps nothing.
    pub keep_ms: u64,
    /// Largest answer that is kept, in bytes.
    pub max_bytes: u64,
}

impl Responses {
    pub(super) fn read(table: Option<Table<'_>>) -> Read<Self> {
        const LONGEST: u64 = 90 * 86_400_000;
        let mut responses = Self { keep_ms: 86_400_000, max_bytes: 1 << 20 };
        let Some(mut table) = table else { return Ok(responses) };
        if let Some(item) = table.take("keep") {
            responses.keep_ms = item.millis()?;
            if responses.keep_ms > LONGEST {
                return Err(item.error("answers are kept for at most 90 days"));
            }
        }
        if let Some(item) = table.take("max-bytes") {
            responses.max_bytes = item.bytes(0..=MAX_BODY)?;
        }
        Ok(responses)
    }
}

/// `[approvals]`: what a review needs when the policy that asked does not say, and who is told of reviews.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Approvals {
    /// How many people must approve.
    pub quorum: u8,
    /// How long a review stays open; never longer than a day.
    pub expires_in_seconds: u32,
    /// Who is told.
    pub webhook: Option<Webhook>,
    /// How many operators it takes to change policies other than through the file.
    pub policy_quorum: u8,
}

impl Approvals {
    pub(super) const KEYS: &'static [&'static str] =
        &["quorum", "expires-in-seconds", "webhook", "webhook-secret", "policy-quorum"];

    /// The longest any review stays open, whoever asks.
    pub const MAX_SECONDS: u32 = 86_400;

    pub(super) fn read(table: Option<Table<'_>>) -> Read<Self> {
        let mut approvals = Self { quorum: 1, expires_in_seconds: 3_600, webhook: None, policy_quorum: 1 };
        let Some(mut table) = table else { return Ok(approvals) };
        if let Some(item) = table.take("quorum") {
            approvals.quorum = u8::try_from(item.integer(1..=255)?).unwrap_or(u8::MAX);
        }
        if let Some(item) = table.take("policy-quorum") {
            approvals.policy_quorum = u8::try_from(item.integer(1..=255)?).unwrap_or(u8::MAX);
        }
        if let Some(item) = table.take("expires-in-seconds") {
            approvals.expires_in_seconds = item.u32(1..=Self::MAX_SECONDS)?;
        }
        let why = "whoever reads it learns what is about to be bought";
        approvals.webhook = Webhook::read(&mut table, "webhook-secret", why)?;
        Ok(approvals)
    }
}

/// `[limits]`: how much may be open at once, and how often may be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Unresolved payments per seller host.
    pub unresolved_per_seller: u32,
    /// Unresolved payments per payee.
    pub unresolved_per_payee: u32,
    /// Unresolved payments per agent.
    pub unresolved_per_agent: u32,
    /// Open reviews per agent.
    pub reviews_per_agent: u32,
    /// Decisions per agent in a minute.
    pub purchases_per_agent_per_minute: u32,
    /// Calls that may be under way at a time.
    pub calls: u32,
    /// Calls of one agent that may be under way at a time.
    pub calls_per_agent: u32,
    /// Sessions that one operator may open in an hour.
    pub sessions_per_operator_per_hour: u32,
    /// Sessions that may be opened for one agent in an hour.
    pub sessions_per_agent_per_hour: u32,
    /// How much the limits of all open sessions may come to.
    pub session_limits_open: Option<Micros>,
    /// How much the limits of all sessions opened in a day may come to.
    pub session_limits_per_day: Option<Micros>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            unresolved_per_seller: 3,
            unresolved_per_payee: 3,
            unresolved_per_agent: 10,
            reviews_per_agent: 5,
            purchases_per_agent_per_minute: 600,
            calls: 4_096,
            calls_per_agent: 1_000,
            sessions_per_operator_per_hour: 1_000,
            sessions_per_agent_per_hour: 1_000,
            session_limits_open: None,
            session_limits_per_day: None,
        }
    }
}

impl Limits {
    pub(super) const KEYS: &'static [&'static str] = &[
        "unresolved-per-seller",
        "unresolved-per-payee",
        "unresolved-per-agent",
        "reviews-per-agent",
        "purchases-per-agent-per-minute",
        "calls",
        "calls-per-agent",
        "sessions-per-operator-per-hour",
        "sessions-per-agent-per-hour",
        "session-limits-open",
        "session-limits-per-day",
    ];

    pub(super) fn read(table: Option<Table<'_>>) -> Read<Self> {
        let mut limits = Self::default();
        let Some(mut table) = table else { return Ok(limits) };
        let fields = [
            &mut limits.unresolved_per_seller,
            &mut limits.unresolved_per_payee,
            &mut limits.unresolved_per_agent,
            &mut limits.reviews_per_agent,
            &mut limits.purchases_per_agent_per_minute,
            &mut limits.calls,
            &mut limits.calls_per_agent,
            &mut limits.sessions_per_operator_per_hour,
            &mut limits.sessions_per_agent_per_hour,
        ];
        for (key, field) in Self::KEYS.iter().zip(fields) {
            if let Some(item) = table.take(key) {
                *field = item.u32(1..=1_000_000)?;
            }
        }
        limits.session_limits_open = table.take("session-limits-open").map(|i| i.money()).transpose()?;
        limits.session_limits_per_day = table.take("session-limits-per-day").map(|i| i.money()).transpose()?;
        Ok(limits)
    }

    /// The caps that a ledger checks inside its commit.
    #[must_use]
    pub const fn caps(&self) -> Caps {
        Caps {
            unresolved_per_seller: self.unresolved_per_seller,
            unresolved_per_payee: self.unresolved_per_payee,
            unresolved_per_agent: self.unresolved_per_agent,
            reviews_per_agent: self.reviews_per_agent,
            unproven_after: None,
        }
    }

    /// The caps that a ledger checks when this operator opens a session.
    #[must_use]
    pub fn session_caps(&self, operator: &OperatorConfig) -> SessionCaps {
        SessionCaps {
            opener_hour: self.sessions_per_operator_per_hour,
            agent_hour: self.sessions_per_agent_per_hour,
            open: self.session_limits_open,
            day: self.session_limits_per_day,
            opener_open: operator.scope.session_limits_open,
            opener_day: operator.scope.session_limits_per_day,
        }
    }

    /// The smaller of each.
    #[must_use]
    pub(super) fn min(&self, other: &Self) -> Self {
        Self {
            unresolved_per_seller: self.unresolved_per_seller.min(other.unresolved_per_seller),
            unresolved_per_payee: self.unresolved_per_payee.min(other.unresolved_per_payee),
            unresolved_per_agent: self.unresolved_per_agent.min(other.unresolved_per_agent),
            reviews_per_agent: self.reviews_per_agent.min(other.reviews_per_agent),
            purchases_per_agent_per_minute: self
                .purchases_per_agent_per_minute
                .min(other.purchases_per_agent_per_minute),
            calls: self.calls.min(other.calls),
            calls_per_agent: self.calls_per_agent.min(other.calls_per_agent),
            sessions_per_operator_per_hour: self
                .sessions_per_operator_per_hour
                .min(other.sessions_per_operator_per_hour),
            sessions_per_agent_per_hour: self.sessions_per_agent_per_hour.min(other.sessions_per_agent_per_hour),
            session_limits_open: least(self.session_limits_open, other.session_limits_open),
            session_limits_per_day: least(self.session_limits_per_day, other.session_limits_per_day),
        }
    }
}

/// The smaller of two caps; none caps nothing.
pub(super) fn least(one: Option<Micros>, other: Option<Micros>) -> Option<Micros> {
    one.into_iter().chain(other).min()
}

/// `[network."eip155:N"]`: how a chain is read.
#[derive(Clone, PartialEq, Eq)]
pub struct NetworkConfig {
    /// JSON-RPC endpoints: https, or http to this machine. Their URLs often contain a key. What two or
    /// more do not agree on is not believed.
    pub rpc: Vec<String>,
    /// How many blocks deep a block is final; none: the one that the node calls finalized.
    pub finality_blocks: Option<u64>,
}

impl fmt::Debug for NetworkConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NetworkConfig {{ rpc: {} hidden, finality_blocks: {:?} }}", self.rpc.len(), self.finality_blocks)
    }
}

impl NetworkConfig {
    const MOST: usize = 8;

    pub(super) fn read(item: &Item<'_>) -> Read<Self> {
        let mut table = item.table(&["rpc", "finality-blocks"])?;
        let finality_blocks = table.take("finality-blocks").map(|item| item.integer(0..=100_000)).transpose()?;
        let Some(item) = table.take("rpc") else { return Ok(Self { rpc: Vec::new(), finality_blocks }) };
        const WHAT: (&str, &str) = ("an RPC endpoint", "whoever answers here is believed about what was paid");
        let endpoints = item.one_or_list()?;
        if endpoints.is_empty() || endpoints.len() > Self::MOST {
            return Err(item.error(format!("expected 1 to {} endpoints", Self::MOST)));
        }
        let rpc = endpoints.iter().filter_map(|item| endpoint(item, WHAT).transpose()).collect::<Read<_>>()?;
        Ok(Self { rpc, finality_blocks })
    }
}

/// An endpoint of the operator's: a literal URL, or one kept like a secret, because providers put keys into it.
/// None when secrets are not being read. `what` it is, and why nobody may listen.
pub(super) fn endpoint(item: &Item<'_>, (what, why): (&str, &str)) -> Read<Option<String>> {
    let text = if item.value.is_table() { item.secret()?.expose().to_owned() } else { item.str()?.to_owned() };
    if text.is_empty() && item.value.is_table() {
        return Ok(None);
    }
    // The URL is not repeated: it may contain a key.
    let url = url::Url::parse(&text).map_err(|_| item.error("not a URL"))?;
    let local = match url.host() {
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => IpAddr::V6(ip).to_canonical().is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    };
    match url.scheme() {
        "https" => Ok(Some(text)),
        "http" if local => Ok(Some(text)),
        _ => Err(item.error(format!("{what} must be https, or http on this machine")).hint(why)),
    }
}
