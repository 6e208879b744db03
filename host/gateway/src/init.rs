//! `countersign init`: a folder with everything a first gateway needs, and nothing overwritten.

use std::fmt;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use countersign_core::evm::Address;
use countersign_core::seams::ClockError;
use countersign_core::x402::{AssetTable, Network};
use sha2::{Digest as _, Sha256};

use crate::config::permissions::{Kind, check_private};
use crate::config::{Config, ConfigError, Environment, Secret};
use crate::wallet::{self, ScryptParams, Seed, WalletError, create_keystore};

const CONFIG: &str = "countersign.toml";
const LEDGER: &str = "countersign.db";
const KEYSTORE: &str = "research-wallet.json";
const PASSPHRASE: &str = "wallet.passphrase";
const WALLET: &str = "research";
/// Base Sepolia: a public test network where USDC is free.
const CHAIN_ID: u64 = 84_532;
const TEMPLATE: &str = include_str!("config/template.toml");

/// Random bytes from the clock seam.
pub type Random<'a> = dyn FnMut(&mut [u8]) -> Result<(), ClockError> + 'a;

/// Why nothing was set up. Whatever had been written is gone again.
#[derive(Debug)]
pub enum InitError {
    /// There is something already, and it is not overwritten.
    Exists(PathBuf),
    /// Others could read or replace what would be written there.
    NotPrivate {
        /// What is wrong.
        why: String,
        /// The command that puts it right.
        hint: Option<String>,
    },
    /// A file or folder could not be written.
    Io(PathBuf, io::Error),
    /// No randomness.
    Random(ClockError),
    /// The wallet could not be made.
    Wallet(WalletError),
    /// What was written is not a configuration: a mistake of ours.
    Config(ConfigError),
}

impl InitError {
    /// Stable code for programs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Exists(_) => "already-exists",
            Self::NotPrivate { .. } => "path-not-private",
            Self::Io(..) => "io",
            Self::Random(_) => "no-randomness",
            Self::Wallet(e) => e.code(),
            Self::Config(e) => e.code(),
        }
    }
}

impl fmt::Display for InitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exists(path) => write!(
                f,
                "{} exists already; nothing was changed\n  hint: name another folder: countersign init DIR",
                path.display()
            ),
            Self::NotPrivate { why, hint: Some(hint) } => write!(f, "{why}\n  hint: {hint}"),
            Self::NotPrivate { why, hint: None } => f.write_str(why),
            Self::Io(path, e) => write!(f, "cannot write {}: {e}", path.display()),
            Self::Random(e) => fmt::Display::fmt(e, f),
            Self::Wallet(e) => fmt::Display::fmt(e, f),
            Self::Config(e) => fmt::Display::fmt(e, f),
        }
    }
}

impl std::error::Error for InitError {}

/// What was set up. Printing it shows the tokens, which are kept nowhere else.
#[derive(Debug)]
pub struct InitReport {
    /// The configuration.
    pub config: PathBuf,
    /// The wallet's address.
    pub address: Address,
    /// The network it may sign for.
    pub network: Network,
    /// The token that can be bought with, as the built-in table has it.
    pub asset: Address,
    /// The token of agent `scout`.
    pub agent_token: Secret,
    /// The token of operator `alice`.
    pub operator_token: Secret,
}

impl fmt::Display for InitReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { config, address, network, asset, agent_token, operator_token } = self;
        let config = config.display();
        write!(
            f,
            "Wrote {config}

Wallet    {address}
          on {network} (Base Sepolia), empty. Send it test USDC (token {asset}):
          https://faucet.circle.com gives some. It needs no ether.
Agent     scout   {}
Operator  alice   {}
          Tokens are shown this once; the file keeps only their SHA-256.

Next
  countersign serve --config {config}
  curl -H \"Authorization: Bearer $AGENT_TOKEN\" http://127.0.0.1:8402/v1/budgets
  COUNTERSIGN_OPERATOR_TOKEN=$OPERATOR_TOKEN countersign payments list
Then list the sellers you trust under [policy.vendors.settings] in {config}.
",
            agent_token.expose(),
            operator_token.expose()
        )
    }
}

/// Sets up `dir`: a configuration, a new wallet and its passphrase.
///
/// # Errors
/// See [`InitError`]; nothing that was there is changed.
pub fn init(dir: &Path, random: &mut Random<'_>) -> Result<InitReport, InitError> {
    if let Some(taken) =
        [CONFIG, LEDGER, KEYSTORE, PASSPHRASE].map(|name| dir.join(name)).into_iter().find(|p| is_taken(p))
    {
        return Err(InitError::Exists(taken));
    }
    let mut written = Vec::new();
    prepare(dir, &mut written)?;
    let report = write_all(dir, random, &mut written);
    if report.is_err() {
        // The newest first, so that folders are empty; what cannot be removed is only left over.
        for path in written.iter().rev() {
            let _ = fs::remove_file(path).or_else(|_| fs::remove_dir(path));
        }
    }
    report
}

fn is_taken(path: &Path) -> bool {
    // A dangling link is something, too.
    path.symlink_metadata().is_ok()
}

/// Makes the folder, or closes an empty one, or checks one that has other things in it.
fn prepare(dir: &Path, written: &mut Vec<PathBuf>) -> Result<(), InitError> {
    let fail = |e| InitError::Io(dir.to_owned(), e);
    match fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            if let Some(parent) = dir.parent() {
                fs::create_dir_all(parent).map_err(fail)?;
            }
            DirBuilder::new().mode(0o700).create(dir).map_err(fail)?;
            written.push(dir.to_owned());
        }
        Err(e) => return Err(fail(e)),
        Ok(mut entries) => {
            if entries.next().is_none() {
                fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).map_err(fail)?;
            }
        }
    }
    // The ledger may be missing, so this is a check of the folders.
    check_private(&dir.join(LEDGER), Kind::Ledger)
        .map_err(|e| InitError::NotPrivate { why: e.to_string(), hint: e.hint().map(str::to_owned) })
}

fn write_all(dir: &Path, random: &mut Random<'_>, written: &mut Vec<PathBuf>) -> Result<InitReport, InitError> {
    let passphrase = Secret::new(random_text("", random)?);
    let agent_token = Secret::new(random_text("csa_", random)?);
    let operator_token = Secret::new(random_text("cso_", random)?);

    write_new(&dir.join(PASSPHRASE), &format!("{}\n", passphrase.expose()), written)?;
    let seed = Seed::from_random(random).map_err(InitError::Random)?;
    let keystore = dir.join(KEYSTORE);
    // The passphrase is a random key itself: making it slow to guess would only slow the start.
    let address = create_keystore(&keystore, &passphrase, &seed, ScryptParams::LIGHT).map_err(InitError::Wallet)?;
    written.push(keystore);

    let text = TEMPLATE
        .replace("@ADDRESS@", &address.to_string())
        .replace("@AGENT_SHA256@", &sha256(&agent_token))
        .replace("@OPERATOR_SHA256@", &sha256(&operator_token));
    let path = dir.join(CONFIG);
    write_new(&path, &text, written)?;
    let (network, asset) = verify(&path, address)?;
    Ok(InitReport { config: path, address, network, asset, agent_token, operator_token })
}

/// Whoever is told "it serves unedited" must not find out otherwise.
fn verify(path: &Path, address: Address) -> Result<(Network, Address), InitError> {
    let config = Config::load(path, &Environment::default()).map_err(InitError::Config)?;
    config.check_paths().map_err(InitError::Config)?;
    let mistake = |what: &str| InitError::Config(config.error_at("wallet.research", what));
    let wallet = config.wallets.get(WALLET).ok_or_else(|| mistake("there is no wallet"))?;
    let signer = wallet::load(WALLET, wallet).map_err(InitError::Wallet)?;
    if signer.address() != address {
        return Err(mistake("the wallet has another address"));
    }
    let network = Network::new(CHAIN_ID).filter(|network| wallet.networks.contains(network));
    let network = network.ok_or_else(|| mistake("the wallet has another network"))?;
    let assets = AssetTable::builtin();
    let asset = assets.iter().find(|asset| asset.network == network).ok_or_else(|| mistake("there is no asset"))?;
    Ok((network, asset.address))
}

fn write_new(path: &Path, text: &str, written: &mut Vec<PathBuf>) -> Result<(), InitError> {
    let fail = |e| InitError::Io(path.to_owned(), e);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(fail)?;
    written.push(path.to_owned());
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(fail)
}

/// 256 random bits in 43 letters.
fn random_text(prefix: &str, random: &mut Random<'_>) -> Result<String, InitError> {
    let mut bytes = [0_u8; 32];
    random(&mut bytes).map_err(InitError::Random)?;
    Ok(format!("{prefix}{}", BASE64_URL_SAFE_NO_PAD.encode(bytes)))
}

fn sha256(token: &Secret) -> String {
    hex::encode(Sha256::digest(token.expose().as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Module, Store};

    /// Different bytes each time, and the same in each run.
    fn counting() -> impl FnMut(&mut [u8]) -> Result<(), ClockError> {
        let mut next = 0_u8;
        move |out| {
            for byte in out {
                next = next.wrapping_add(1);
                *byte = next;
            }
            Ok(())
        }
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn what_it_writes_serves_unedited() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("new/gateway");
        let report = init(&dir, &mut counting()).unwrap();
        assert_eq!(mode(&dir), 0o700);
        for name in [CONFIG, KEYSTORE, PASSPHRASE] {
            assert_eq!(mode(&dir.join(name)), 0o600, "{name}");
        }
        let config = Config::load(&report.config, &Environment::default()).unwrap();
        assert_eq!(config.warnings, Vec::<String>::new());
        assert_eq!(config.check_builtins(&["vendor-allowlist", "spend-caps", "review-threshold"]), Ok(()));
        assert!(config.policies.values().all(|p| matches!(p.module, Module::Builtin(_))));
        assert_eq!(config.ledger.store, Store::Sqlite { path: dir.join(LEDGER) });
        assert_eq!(config.agents["scout"].token_sha256, Some(sha256(&report.agent_token)));
        assert_eq!(config.operators["alice"].token_sha256, sha256(&report.operator_token));
        assert_eq!(config.operators["alice"].roles.len(), 5);
        let principal = countersign_core::spend::Principal {
            agent: "scout".into(),
            workspace: config.agents["scout"].workspace.clone(),
            ..Default::default()
        };
        assert!(config.mandates[0].when.matches(&principal) && config.budgets[0].when.matches(&principal));

        let (agent, operator) = (report.agent_token.expose(), report.operator_token.expose());
        assert!(agent.starts_with("csa_") && operator.starts_with("cso_"));
        assert_ne!(agent.trim_start_matches("csa_"), operator.trim_start_matches("cso_"));
        assert_eq!((agent.len(), operator.len()), (47, 47));
        let shown = report.to_string();
        for part in
            [agent, operator, &report.address.to_string(), "eip155:84532", "0x036CbD53842c5426634e7929541eC2318f3dCF7e"]
        {
            assert_eq!(shown.matches(part).count(), 1, "{part}");
        }
        let text = fs::read_to_string(&report.config).unwrap();
        let passphrase = fs::read_to_string(dir.join(PASSPHRASE)).unwrap();
        for secret in [agent, operator, passphrase.trim(), "@"] {
            assert!(!text.contains(secret), "{secret}");
        }
    }

    #[test]
    fn what_the_template_comments_out_can_be_taken_in() {
        let root = tempfile::tempdir().unwrap();
        let report = init(&root.path().join("g"), &mut counting()).unwrap();
        let text = fs::read_to_string(&report.config).unwrap();
        let uncommented: String = text
            .lines()
            .map(|line| match line.strip_prefix("#: ") {
                Some(key) => format!("{key}\n"),
                None => format!("{line}\n"),
            })
            .collect();
        assert_ne!(uncommented, text);
        fs::write(&report.config, uncommented).unwrap();
        let secret = report.config.with_file_name("webhook.secret");
        fs::write(&secret, "whsec_c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LTMyYg==\n").unwrap();
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
        let environment: Environment =
            [("OTLP_AUTHORIZATION", "Bearer x"), ("WEATHER_MCP_TOKEN", "Bearer y")].into_iter().collect();
        let config = Config::load(&report.config, &environment).unwrap_or_else(|e| panic!("{e}"));
        assert!(config.gateway.tls.is_some() && !config.networks.is_empty() && !config.egress.ports.is_empty());
    }

    #[test]
    fn nothing_is_overwritten_and_nothing_half_done() {
        for name in [CONFIG, KEYSTORE, PASSPHRASE, LEDGER] {
            let root = tempfile::tempdir().unwrap();
            fs::write(root.path().join(name), "mine").unwrap();
            let error = init(root.path(), &mut counting()).unwrap_err();
            assert_eq!(error.code(), "already-exists");
            assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1, "{name}");
            assert_eq!(fs::read_to_string(root.path().join(name)).unwrap(), "mine");
        }
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("g");
        let mut dry = |_: &mut [u8]| Err(ClockError("dry".into()));
        assert_eq!(init(&dir, &mut dry).unwrap_err().code(), "no-randomness");
        let mut zero = |out: &mut [u8]| -> Result<(), ClockError> {
            out.fill(0);
            Ok(())
        };
        assert_eq!(init(&dir, &mut zero).unwrap_err().code(), "invalid-key");
        assert!(!dir.exists(), "the folder is gone again");
        init(&dir, &mut counting()).unwrap();
        assert_eq!(init(&dir, &mut counting()).unwrap_err().code(), "already-exists");
    }

    #[test]
    fn folders_are_closed_or_refused() {
        let root = tempfile::tempdir().unwrap();
        let chmod = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        let (empty, used) = (root.path().join("empty"), root.path().join("used"));
        fs::create_dir(&empty).unwrap();
        chmod(&empty, 0o777);
        init(&empty, &mut counting()).unwrap();
        assert_eq!(mode(&empty), 0o700);

        fs::create_dir(&used).unwrap();
        fs::write(used.join("notes"), "").unwrap();
        chmod(&used, 0o777);
        let error = init(&used, &mut counting()).unwrap_err();
        assert!(error.to_string().contains("hint: run: chmod go-w"), "{error}");
        chmod(&used, 0o755);
        init(&used, &mut counting()).unwrap();
        assert_eq!(mode(&used), 0o755, "a folder with other things in it is left as it is");
    }
}
