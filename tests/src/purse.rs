//! Accounts nobody else pays from: what left one of them was paid by the one gateway that holds its key.

use crate::{
    chain::{Chain, Transfer},
    config::{Config, WALLET_KEY},
};
use countersign_core::evm::address_of;
use k256::ecdsa::SigningKey;
use sha2::{Digest, Sha256};
use std::sync::atomic::{AtomicU64, Ordering};

/// An account of a test's own, empty at first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Purse {
    /// Its address, with checksum.
    pub address: String,
    /// Its private key, 0x and 64 digits.
    pub key: String,
}

impl Default for Purse {
    fn default() -> Self {
        Self::new()
    }
}

impl Purse {
    /// An account that no other call in this process returns.
    pub fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let secret: [u8; 32] = Sha256::digest(format!("a test's own purse, number {number}")).into();
        let key = SigningKey::from_slice(&secret).expect("a key");
        let address = address_of(key.verifying_key()).to_string();
        Self { address, key: format!("0x{}", hex::encode(secret)) }
    }

    /// Lets the standard wallet pay from it.
    pub fn pays(&self, config: Config) -> Config {
        config.env(WALLET_KEY, &self.key)
    }

    /// Everything of `token` that ever left it, oldest first.
    pub fn spent(&self, chain: &Chain, token: &str) -> Vec<Transfer> {
        let from = self.address.to_lowercase();
        chain.transfers(token).into_iter().filter(|transfer| transfer.from == from).collect()
    }
}
