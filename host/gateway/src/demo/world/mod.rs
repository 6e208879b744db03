//! The world outside the gateway, in one process: a chain, a facilitator and sellers of every
//! character, each on a loopback port of its own. It knows nothing of the gateway.
//!
//! What the sellers do is a table, `sellers/catalogue.rs`. The money is not real, the checks are:
//! signatures are recovered, nonces are spent once, balances run out.

mod chain;
mod facilitator;
mod rpc;
mod sellers;
mod server;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;

use countersign_core::evm::{Address, Eip712Domain};
use countersign_core::time::Timestamp;

pub use self::chain::{Block, Chain, Hash, Log, Now, Revert, Transaction};
pub use self::facilitator::{Facilitator, LostReply, Refusal, Settlement, Verdict};
pub use self::sellers::{Seller, Stats, Visit};

/// The chain the world pretends to be: Base Sepolia.
pub const CHAIN_ID: u64 = 84_532;
/// Its name in x402 v2.
pub const NETWORK: &str = "eip155:84532";
/// Its name in x402 v1.
pub const NETWORK_V1: &str = "base-sepolia";
/// USDC on that chain: EIP-712 name "USDC", version "2", six decimals.
pub const USDC: Address = Address::new([
    0x03, 0x6c, 0xbd, 0x53, 0x84, 0x2c, 0x54, 0x26, 0x63, 0x4e, 0x79, 0x29, 0x54, 0x1e, 0xc2, 0x31, 0x8f, 0x3d, 0xcf,
    0x7e,
]);
/// Who sends the facilitator's transactions.
const RELAYER: &str = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8";

/// A running world. Dropping it closes every port and every connection.
pub struct World {
    chain: Chain,
    facilitator: Facilitator,
    rpc_url: String,
    facilitator_url: String,
    sellers: Vec<Seller>,
    _servers: Vec<server::Server>,
}

impl World {
    /// Opens all the ports, on 127.0.0.1 only. `now` is the world's only clock.
    ///
    /// # Errors
    /// When a port cannot be opened.
    pub async fn start(now: impl Fn() -> Timestamp + Send + Sync + 'static) -> io::Result<Self> {
        let token = Eip712Domain {
            name: "USDC".to_owned(),
            version: "2".to_owned(),
            chain_id: CHAIN_ID,
            verifying_contract: USDC,
        };
        let chain = Chain::new(token, Arc::new(now));
        let facilitator = Facilitator::new(chain.clone());
        let (rpc_listener, rpc_url) = server::bind()?;
        let (facilitator_listener, facilitator_url) = server::bind()?;
        let mut servers = vec![
            server::serve(rpc_listener, Arc::new(rpc::Rpc::new(chain.clone()))),
            server::serve(facilitator_listener, Arc::new(facilitator.clone())),
        ];
        let (sellers, shops) = sellers::open(&chain, &facilitator).await?;
        servers.extend(shops);
        Ok(Self { chain, facilitator, rpc_url, facilitator_url, sellers, _servers: servers })
    }

    /// The chain.
    #[must_use]
    pub fn chain(&self) -> &Chain {
        &self.chain
    }

    /// The facilitator and its fault switches.
    #[must_use]
    pub fn facilitator(&self) -> &Facilitator {
        &self.facilitator
    }

    /// Where the chain's JSON-RPC is.
    #[must_use]
    pub fn rpc_url(&self) -> &str {
        &self.rpc_url
    }

    /// Where the facilitator is.
    #[must_use]
    pub fn facilitator_url(&self) -> &str {
        &self.facilitator_url
    }

    /// Every seller, in the order of the catalogue.
    #[must_use]
    pub fn sellers(&self) -> &[Seller] {
        &self.sellers
    }

    /// The seller of that name.
    #[must_use]
    pub fn seller(&self, name: &str) -> Option<&Seller> {
        self.sellers.iter().find(|seller| seller.name() == name)
    }

    /// What is in an address, in atomic units of USDC.
    #[must_use]
    pub fn balance(&self, owner: Address) -> u128 {
        self.chain.balance(owner)
    }
}
