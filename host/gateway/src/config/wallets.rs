//! `[wallet.NAME]`: what pays.

use std::collections::BTreeSet;
use std::path::PathBuf;

use countersign_core::money::Micros;
use countersign_core::x402::Network;

use super::assets::network;
use super::environment::Secret;
use super::reader::{Item, Read};

/// One wallet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WalletConfig {
    /// Where its key is.
    pub kind: WalletKind,
    /// The only networks it may sign for; never empty.
    pub networks: BTreeSet<Network>,
    /// The host's own last wall: the most it may pay in a calendar day (UTC), whatever policies say.
    pub daily_limit: Micros,
}

/// Where a wallet's key is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WalletKind {
    /// An encrypted file (Web3 Secret Storage, version 3).
    Keystore {
        /// The file.
        path: PathBuf,
        /// What decrypts it.
        passphrase: Secret,
    },
    /// The key itself, `0x` and 64 hex digits. For development.
    Key {
        /// The key.
        key: Secret,
    },
}

const SUPPORTED: [&str; 2] = ["keystore", "key"];
const LATER: [&str; 4] = ["cdp", "privy", "aws-kms", "gcp-kms"];
const KEYSTORE_KEYS: &[&str] = &["kind", "path", "passphrase", "networks", "daily-limit"];
const KEY_KEYS: &[&str] = &["kind", "key", "networks", "daily-limit"];

impl WalletConfig {
    pub(super) fn read(item: &Item<'_>) -> Read<Self> {
        let choices = format!("supported kinds are {}", SUPPORTED.map(|kind| format!("\"{kind}\"")).join(" and "));
        // The kind decides which keys there are.
        let keys = match item.peek("kind") {
            None => KEYSTORE_KEYS,
            Some(kind) => match kind.str()? {
                "keystore" => KEYSTORE_KEYS,
                "key" => KEY_KEYS,
                later if LATER.contains(&later) => {
                    let message = format!("wallets of kind \"{later}\" are not supported by this version");
                    return Err(kind.error(message).hint(choices));
                }
                other => return Err(kind.error(format!("{other:?} is not a kind of wallet")).hint(choices)),
            },
        };
        let mut table = item.table(keys)?;
        let kind = match table.need("kind", &choices)?.str()? {
            "key" => WalletKind::Key { key: table.need("key", "such as key = { env = \"WALLET_KEY\" }")?.secret()? },
            _ => WalletKind::Keystore {
                path: table.need("path", "the keystore file, such as path = \"wallet.json\"")?.path()?,
                passphrase: table
                    .need("passphrase", "such as passphrase = { env = \"WALLET_PASSPHRASE\" }")?
                    .secret()?,
            },
        };
        let item = table.need("networks", "the only networks this wallet may sign for, such as [\"eip155:84532\"]")?;
        let networks: BTreeSet<Network> = item.list()?.iter().map(network).collect::<Read<_>>()?;
        if networks.is_empty() {
            return Err(item.error("a wallet that may sign for no network can pay nothing"));
        }
        let why = "the most this wallet may pay in a day whatever policies say, such as daily-limit = \"100.00\"";
        let daily_limit = table.need("daily-limit", why)?.money()?;
        Ok(Self { kind, networks, daily_limit })
    }
}
