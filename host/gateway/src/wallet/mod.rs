//! Wallets: a key in memory, and the only code in this repository that signs with one.
//!
//! What is signed is what a [`Permit`] permits. The wallet looks once more whether that is its own
//! account and one of its networks; it knows nothing else about purchases.

mod keystore;

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use countersign_core::evm::{Address, Signature65, address_of};
use countersign_core::ledger::Fut;
use countersign_core::permit::{CancelPermit, Permit, Sealed, SignedCancellation};
use countersign_core::seams::{SignError, Signer};
use countersign_core::x402::{Authorization, Network};
use k256::ecdsa::SigningKey;
use k256::elliptic_curve::zeroize::Zeroizing;

use crate::config::{Secret, WalletConfig, WalletKind};

pub use keystore::{ScryptParams, Seed, address_in, create_keystore};

/// Why a wallet cannot be used. It never repeats a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WalletError {
    /// The keystore cannot be read, or others could read or replace it.
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
        /// The command that puts it right.
        hint: Option<String>,
    },
    /// The keystore cannot be written.
    Unwritable {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// Not a keystore we can open.
    Malformed {
        /// What is wrong.
        why: String,
    },
    /// The key derivation would take more memory or time than any honest wallet asks for.
    Unreasonable {
        /// Which parameter.
        why: String,
    },
    /// The passphrase is not this keystore's, or the file is damaged: the two look the same.
    WrongPassphrase,
    /// Not a private key.
    InvalidKey,
    /// The keystore says another address than its key has.
    AddressMismatch {
        /// What it says.
        written: String,
        /// What its key has.
        derived: Address,
    },
}

impl WalletError {
    /// Stable code for programs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Unreadable { .. } => "wallet-unreadable",
            Self::Unwritable { .. } => "wallet-unwritable",
            Self::Malformed { .. } => "keystore-malformed",
            Self::Unreasonable { .. } => "keystore-unreasonable",
            Self::WrongPassphrase => "wrong-passphrase",
            Self::InvalidKey => "invalid-key",
            Self::AddressMismatch { .. } => "address-mismatch",
        }
    }

    /// What to do, where there is one thing to do.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Unreadable { hint, .. } => hint.as_deref(),
            Self::InvalidKey => Some("a key is `0x` and 64 hex digits"),
            _ => None,
        }
    }
}

impl fmt::Display for WalletError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { path, why, .. } => write!(f, "cannot use the keystore {}: {why}", path.display()),
            Self::Unwritable { path, why } => write!(f, "cannot write the keystore {}: {why}", path.display()),
            Self::Malformed { why } => write!(f, "not a keystore of version 3: {why}"),
            Self::Unreasonable { why } => write!(f, "the keystore's key derivation is refused: {why}"),
            Self::WrongPassphrase => f.write_str("the passphrase does not open the keystore, or the file is damaged"),
            Self::InvalidKey => f.write_str("not a private key"),
            Self::AddressMismatch { written, derived } => {
                write!(f, "the keystore says it is for {written}, but its key is for {derived}")
            }
        }
    }
}

impl std::error::Error for WalletError {}

/// Opens a configured wallet. Decrypting a keystore takes up to a second and may block.
///
/// # Errors
/// When there is no usable key; see [`WalletError`].
pub fn load(name: &str, config: &WalletConfig) -> Result<Arc<dyn Signer>, WalletError> {
    let key = match &config.kind {
        WalletKind::Keystore { path, passphrase } => keystore::open(path, passphrase)?,
        WalletKind::Key { key } => parse_key(key)?,
    };
    Ok(Arc::new(LocalSigner::new(name, key, config.networks.clone())))
}

/// A key in this process's memory, wiped when it is dropped.
struct LocalSigner {
    name: String,
    key: SigningKey,
    address: Address,
    networks: BTreeSet<Network>,
}

impl LocalSigner {
    fn new(name: &str, key: SigningKey, networks: BTreeSet<Network>) -> Self {
        let address = address_of(key.verifying_key());
        Self { name: name.to_owned(), key, address, networks }
    }

    /// The wallet's own last look, before the key is touched.
    fn check(&self, authorization: &Authorization) -> Result<(), SignError> {
        let offer = &authorization.offer;
        self.check_account(authorization.from, [offer.network, offer.asset.network])
    }

    fn check_account(&self, from: Address, networks: [Network; 2]) -> Result<(), SignError> {
        let refuse = |why: String| Err(SignError::Refused(format!("wallet {}: {why}", self.name)));
        if from != self.address {
            return refuse(format!("the payment is from {from}, this wallet is {}", self.address));
        }
        match networks.iter().find(|network| !self.networks.contains(network)) {
            Some(network) => refuse(format!("it may not sign for {network}")),
            None => Ok(()),
        }
    }

    fn sign_now(&self, permit: Permit) -> Result<Sealed, SignError> {
        self.check(permit.authorization())?;
        let signature = sign_digest(&self.key, &permit.authorization().digest())?;
        // From here on signature bytes exist, so nothing is certain any more.
        permit.seal(signature).map_err(|e| SignError::Uncertain(e.to_string()))
    }
}

impl Signer for LocalSigner {
    fn address(&self) -> Address {
        self.address
    }

    fn sign(&self, permit: Permit) -> Fut<'_, Result<Sealed, SignError>> {
        Box::pin(async move { self.sign_now(permit) })
    }

    fn cancel(&self, permit: CancelPermit) -> Fut<'_, Result<SignedCancellation, SignError>> {
        Box::pin(async move {
            self.check(permit.authorization())?;
            let signature = sign_digest(&self.key, &permit.digest())?;
            permit.seal(signature).map_err(|e| SignError::Uncertain(e.to_string()))
        })
    }
}

/// Signs a digest: deterministic (RFC 6979), s in the lower half, v 27 or 28.
fn sign_digest(key: &SigningKey, digest: &[u8; 32]) -> Result<Signature65, SignError> {
    let (signature, id) = key.sign_prehash_recoverable(digest);
    Signature65::from_ecdsa(&signature, id).map_err(|e| SignError::Uncertain(e.to_string()))
}

/// A key as `0x` and 64 hex digits.
fn parse_key(text: &Secret) -> Result<SigningKey, WalletError> {
    let digits = text.expose().trim().strip_prefix("0x").ok_or(WalletError::InvalidKey)?;
    let mut bytes = Zeroizing::new([0_u8; 32]);
    hex::decode_to_slice(digits, bytes.as_mut_slice()).map_err(|_| WalletError::InvalidKey)?;
    key_of(&bytes)
}

fn key_of(bytes: &[u8; 32]) -> Result<SigningKey, WalletError> {
    SigningKey::from_slice(bytes).map_err(|_| WalletError::InvalidKey)
}

#[cfg(test)]
mod tests {
    use countersign_core::evm::recover;
    use countersign_core::money::Micros;

    use super::*;

    /// A public development key; it holds nothing.
    const KEY: &str = "0x5de4111afa1a4b94908f83103eb1f1706367c2e68ca870fc3fb9a804cdab365a";
    const ADDRESS: &str = "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC";

    fn network(id: u64) -> Network {
        Network::new(id).unwrap()
    }

    fn signer() -> LocalSigner {
        let key = parse_key(&Secret::new(KEY)).unwrap();
        LocalSigner::new("research", key, BTreeSet::from([network(84532)]))
    }

    #[test]
    fn signs_as_other_wallets_do() {
        let digest: [u8; 32] = hex::decode("4819a7b6e3ee144c6d203d8d811b5401788b599b835611e2a19540548a9c4f83")
            .unwrap()
            .try_into()
            .unwrap();
        let signature = sign_digest(&signer().key, &digest).unwrap();
        assert_eq!(
            signature.to_string(),
            "0xf187f57965688007af6a53e3f33e98b53125aaec1a8792af15e1c34906a1ef4c\
             73ed02250696eab60987a8d4544ae848b9433e2f0aa838256111cdd7a5d3e06c1c"
        );
        for n in 0..64 {
            let digest = countersign_core::evm::keccak256(&[n]);
            let signature = sign_digest(&signer().key, &digest).unwrap();
            assert_eq!(recover(&digest, &signature), Some(signer().address()));
        }
    }

    #[test]
    fn refuses_other_accounts_and_networks() {
        let (own, other) = (ADDRESS.parse().unwrap(), Address::new([7; 20]));
        let check = |from, networks, want: Option<&str>| {
            let got = signer().check_account(from, networks);
            match want {
                None => assert_eq!(got, Ok(())),
                Some(text) => match got {
                    Err(SignError::Refused(why)) => assert!(why.contains(text), "{why}"),
                    other => panic!("{other:?}"),
                },
            }
        };
        let (base, sepolia) = (network(8453), network(84532));
        check(own, [sepolia, sepolia], None);
        check(other, [sepolia, sepolia], Some("this wallet is 0x3C44"));
        check(own, [base, base], Some("eip155:8453"));
        check(own, [sepolia, base], Some("eip155:8453"));
        check(own, [base, sepolia], Some("eip155:8453"));
    }

    #[test]
    fn keys_have_one_spelling() {
        let load = |key: &str| {
            let kind = WalletKind::Key { key: Secret::new(key) };
            let config = WalletConfig { kind, networks: BTreeSet::from([network(84532)]), daily_limit: Micros::ZERO };
            load("w", &config).map(|signer| signer.address().to_string())
        };
        assert_eq!(load(KEY).as_deref(), Ok(ADDRESS));
        assert_eq!(load(&format!("{KEY}\n")).as_deref(), Ok(ADDRESS));
        let order = "0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141";
        let short = KEY.trim_end_matches('a');
        for bad in ["", "0x", KEY.trim_start_matches("0x"), short, &format!("{KEY}0"), &format!("0x{:064}", 0), order] {
            let error = load(bad).unwrap_err();
            assert_eq!(error, WalletError::InvalidKey);
            assert!(!format!("{error} {error:?}").contains("5de4"));
        }
    }
}
