//! What the demo is played on: the world, a real gateway in front of it, wallets with money of the
//! world's chain, and tokens.

use std::net::SocketAddr;

use countersign_core::evm::{Address, address_of};
use countersign_core::seams::Clock as _;
use countersign_core::time::Timestamp;
use k256::ecdsa::SigningKey;
use serde_json::Value;

use super::agent::{Agent, Operator, Trouble, text};
use super::folder::Folder;
use super::world::{NETWORK, Seller, World};
use crate::clock::{SystemClock, random};
use crate::config::Environment;
use crate::egress::Patience;
use crate::identity::token_sha256;
use crate::serve::{self, Running};
use crate::{builtin, reload};

/// Sellers are on this machine, and one of them accepts a connection and never answers.
const PATIENCE: Patience = Patience { connect_ms: 10_000, head_ms: 800, idle_ms: 2_000, whole_ms: 4_000 };
/// Between two looks at something that takes time, in milliseconds.
const LOOK_MS: u64 = 50;
/// The seller whom no policy knows.
pub(super) const UNKNOWN_SELLER: &str = "elsewhere";
/// The workspace of all agents.
const WORKSPACE: &str = "research";
/// The module that the policy `guard` starts with.
const FIRST_GUARD: &str = "guard.wasm";
/// The configuration.
const CONFIG: &str = "countersign.toml";

/// An agent of the cast, and what its mandate is.
struct Role {
    agent: &'static str,
    wallet: &'static str,
    policies: &'static str,
}

const fn role(agent: &'static str, wallet: &'static str, policies: &'static str) -> Role {
    Role { agent, wallet, policies }
}

/// Every agent has a mandate of its own, so that no scenario uses up another's caps.
const CAST: [Role; 8] = [
    role("scout", "treasury", r#""vendors", "caps""#),
    role("intern", "treasury", r#""vendors", "session-caps""#),
    role("courier", "treasury", r#""vendors", "day-cap""#),
    role("buyer", "treasury", r#""vendors", "caps", "newcomers""#),
    role("pauper", "petty-cash", r#""vendors", "caps""#),
    role("looper", "treasury", r#""vendors", "caps""#),
    role("explorer", "treasury", r#""vendors", "caps""#),
    role("analyst", "treasury", r#""guard""#),
];

/// Wallets and what is minted for them, in atomic units.
const PURSES: [(&str, u128); 2] = [("treasury", 20_000_000), ("petty-cash", 500)];

/// A wallet of the gateway's, seen from the chain.
pub(super) struct Purse {
    /// Its name in the configuration.
    pub(super) name: &'static str,
    /// Its account.
    pub(super) address: Address,
    /// What it was given at the start, in atomic units.
    pub(super) minted: u128,
}

/// Everything a scenario needs.
pub(super) struct Stage {
    /// Chain, facilitator and sellers.
    pub(super) world: World,
    /// Who decides.
    pub(super) operator: Operator,
    /// The gateway's wallets.
    pub(super) purses: Vec<Purse>,
    /// Where agents are served.
    pub(super) front: SocketAddr,
    /// Where operators are served.
    pub(super) back: SocketAddr,
    /// The operator's token.
    pub(super) operator_token: String,
    folder: Folder,
    tokens: Vec<(&'static str, String)>,
    listen: SocketAddr,
}

impl Stage {
    /// Opens the world and starts a gateway in front of it.
    pub(super) async fn set(listen: SocketAddr) -> Result<(Self, Running), Trouble> {
        let folder = Folder::create()?;
        let world = World::start(now).await.map_err(Trouble::with("the demo's world"))?;
        let purses = PURSES.iter().map(|(name, sum)| fund(&folder, &world, name, *sum)).collect::<Result<_, _>>()?;
        let tokens = CAST.iter().map(|r| Ok((r.agent, token("csa")?))).collect::<Result<_, Trouble>>()?;
        let operator_token = token("cso")?;
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let operator = Operator::new(nowhere, "");
        let mut stage =
            Self { world, operator, purses, front: nowhere, back: nowhere, operator_token, folder, tokens, listen };

        stage.put_module(FIRST_GUARD, builtin_module("vendor-allowlist")?)?;
        stage.put_guard(FIRST_GUARD, &format!("hosts = {}", stage.approved()))?;
        let environment = Environment::default();
        let path = stage.folder.path().join(CONFIG);
        let config = reload::load(&path, &environment).map_err(Trouble::with("the demo's configuration"))?;
        let started = Box::pin(serve::start(config, environment, PATIENCE)).await;
        let running = started.map_err(Trouble::with("the gateway"))?;
        (stage.front, stage.back) = (running.agent, running.admin);
        stage.operator = Operator::new(stage.back, stage.operator_token.clone());
        Ok((stage, running))
    }

    /// An agent of the cast.
    pub(super) fn agent(&self, name: &str) -> Agent {
        Agent::new(name, self.front, self.token(name))
    }

    /// An agent's token.
    pub(super) fn token(&self, name: &str) -> &str {
        self.tokens.iter().find(|(n, _)| *n == name).map_or("", |(_, token)| token)
    }

    /// A seller of the world.
    pub(super) fn seller(&self, name: &str) -> Result<&Seller, Trouble> {
        self.world.seller(name).ok_or_else(|| Trouble(format!("the world has no seller `{name}`")))
    }

    /// A URL as people read it: the seller's name instead of its port.
    pub(super) fn place(&self, url: &str) -> String {
        let found = self.world.sellers().iter().find_map(|s| Some((s, url.strip_prefix(s.base_url())?)));
        found.map_or_else(|| url.to_owned(), |(seller, path)| format!("{path} of seller {}", seller.name()))
    }

    /// Where the gateway's configuration is.
    pub(super) fn config(&self) -> std::path::PathBuf {
        self.folder.path().join(CONFIG)
    }

    /// The hosts that the vendor policy lists: everybody but one, for an approved seller gone bad is
    /// the harder case.
    pub(super) fn approved(&self) -> String {
        let listed = self.world.sellers().iter().filter(|s| s.name() != UNKNOWN_SELLER);
        list(listed.map(Seller::authority))
    }

    /// Writes a module file that the configuration may name.
    pub(super) fn put_module(&self, name: &str, bytes: &[u8]) -> Result<(), Trouble> {
        self.folder.put(name, bytes).map(drop)
    }

    /// Edits the configuration: the policy `guard` becomes this module with these settings.
    pub(super) fn put_guard(&self, module: &str, settings: &str) -> Result<(), Trouble> {
        self.folder.put(CONFIG, self.configuration(module, settings).as_bytes()).map(drop)
    }

    /// Looks at the policies until they are as wanted; none if they do not become so in time.
    pub(super) async fn policies_until(&self, wanted: impl Fn(&Value) -> bool) -> Result<Option<Value>, Trouble> {
        let mut patience = Patient::for_seconds(10)?;
        loop {
            let policies = self.operator.get("/v1/policies").await?;
            if wanted(&policies) {
                return Ok(Some(policies));
            }
            if !patience.wait().await? {
                return Ok(None);
            }
        }
    }

    /// Waits until the chain reader has proven a payment; false if it does not in time.
    pub(super) async fn settled(&self, payment: &str) -> Result<bool, Trouble> {
        let mut patience = Patient::for_seconds(10)?;
        loop {
            if text(&self.operator.payment(payment).await?, "/state") == "settled" {
                return Ok(true);
            }
            if !patience.wait().await? {
                return Ok(false);
            }
        }
    }

    fn configuration(&self, guard: &str, settings: &str) -> String {
        let (listen, rpc) = (self.listen, self.world.rpc_url());
        let everybody = list(self.world.sellers().iter().map(Seller::authority));
        let approved = self.approved();
        let operator = token_sha256(&self.operator_token);
        let mut file = format!(
            r#"# Written by `countersign demo`. The money is not real; everything else is.
[gateway]
listen = "{listen}"
admin = "127.0.0.1:0"

[ledger]
url = "sqlite:countersign.db"

[egress]
allow-private = {everybody}

[network."{NETWORK}"]
rpc = "{rpc}"
finality-blocks = 0

[policy.vendors]
module = "builtin:vendor-allowlist"
[policy.vendors.settings]
hosts = {approved}

[policy.caps]
module = "builtin:spend-caps"
[policy.caps.settings]
per-payment = "1.00"
per-agent-hour = "5.00"

[policy.session-caps]
module = "builtin:spend-caps"
[policy.session-caps.settings]
per-session = "0.003"

[policy.day-cap]
module = "builtin:spend-caps"
[policy.day-cap.settings]
per-agent-day = "0.002"

[policy.newcomers]
module = "builtin:review-threshold"
[policy.newcomers.settings]
first-time-vendor = true

[policy.guard]
module = "{guard}"
[policy.guard.settings]
{settings}

[budget."workspace/{WORKSPACE}"]
when = {{ workspace = "{WORKSPACE}" }}
per = "month"
limit = "10.00"

[operator.alice]
token-sha256 = "{operator}"
roles = ["viewer", "approver", "policy-admin", "session-admin", "suspender"]
"#
        );
        for (name, _) in PURSES {
            let key = format!("{{ file = \"{name}.key\" }}");
            file.push_str(&format!(
                "\n[wallet.{name}]\nkind = \"key\"\nkey = {key}\nnetworks = [\"{NETWORK}\"]\ndaily-limit = \"20.00\"\n"
            ));
        }
        for Role { agent, wallet, policies } in CAST {
            let hash = token_sha256(self.token(agent));
            file.push_str(&format!(
                "\n[[mandate]]\nname = \"{agent}\"\nwhen = {{ agent = \"{agent}\" }}\nwallet = \"{wallet}\"\n\
                 policies = [{policies}]\n[agent.{agent}]\ntoken-sha256 = \"{hash}\"\nworkspace = \"{WORKSPACE}\"\n"
            ));
        }
        file
    }
}

/// Waits for something that happens elsewhere, a little at a time and not for ever.
pub(super) struct Patient {
    until: Timestamp,
}

impl Patient {
    /// So long and no longer.
    pub(super) fn for_seconds(seconds: u64) -> Result<Self, Trouble> {
        let now = SystemClock.now().map_err(Trouble::with("waiting"))?;
        Ok(Self { until: now.plus_millis(seconds.saturating_mul(1_000)) })
    }

    /// Waits a little; false when the time is over.
    pub(super) async fn wait(&mut self) -> Result<bool, Trouble> {
        let now = SystemClock.now().map_err(Trouble::with("waiting"))?;
        SystemClock.sleep(LOOK_MS).await;
        Ok(now < self.until)
    }
}

/// The component of a standard policy.
pub(super) fn builtin_module(name: &str) -> Result<&'static [u8], Trouble> {
    builtin::module(name).ok_or_else(|| Trouble(format!("this gateway has no policy `{name}`")))
}

/// The world's time: the machine's, or nothing sensible, which the gateway refuses for itself.
fn now() -> Timestamp {
    SystemClock.now().unwrap_or(Timestamp::from_millis(0))
}

/// A new wallet: its key in a file for the gateway, its account filled on the chain.
fn fund(folder: &Folder, world: &World, name: &'static str, minted: u128) -> Result<Purse, Trouble> {
    let what = format!("wallet {name}");
    let bytes: [u8; 32] = random(&SystemClock).map_err(Trouble::with(&what))?;
    let key = SigningKey::from_slice(&bytes).map_err(Trouble::with(&what))?;
    folder.put(&format!("{name}.key"), format!("0x{}\n", hex::encode(bytes)).as_bytes())?;
    let address = address_of(key.verifying_key());
    world.chain().mint(address, minted);
    Ok(Purse { name, address, minted })
}

fn token(prefix: &str) -> Result<String, Trouble> {
    let secret: [u8; 16] = random(&SystemClock).map_err(Trouble::with("a token"))?;
    Ok(format!("{prefix}_{}", hex::encode(secret)))
}

/// A list of texts in TOML.
fn list<'a>(texts: impl Iterator<Item = &'a str>) -> String {
    let quoted: Vec<String> = texts.map(|t| format!("\"{t}\"")).collect();
    format!("[{}]", quoted.join(", "))
}
