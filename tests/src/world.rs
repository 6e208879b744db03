//! The demo's world in this process: a chain, a facilitator and sellers that are not the bottleneck of any test.
//!
//! The chain lives as long as this handle, over any number of restarts of the gateway.

use crate::{
    config::{Config, Policy},
    peers::{BUYER, NETWORK},
};
use countersign::demo::world::World;
use countersign_core::{evm::Address, time::Timestamp};
use std::{
    collections::BTreeMap,
    time::{SystemTime, UNIX_EPOCH},
};
use tokio::runtime::Runtime;

/// What the buyer is given at first, in atomic units: a million USDC.
pub const ENDOWMENT: u128 = 1_000_000_000_000;

/// A running world and the threads it runs on.
pub struct LocalWorld {
    world: World,
    /// Lets blocking tests wait for the ledger's futures too.
    runtime: Runtime,
    read_to: std::sync::Mutex<u64>,
}

/// One EIP-3009 authorization that the chain executed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redemption {
    /// Who paid.
    pub from: Address,
    /// Who was paid.
    pub to: Address,
    /// Atomic units.
    pub value: u128,
    /// Its transaction, `0x` and 64 digits.
    pub transaction: String,
}

impl LocalWorld {
    /// Starts a world of this test's own by the wall clock and gives the buyer his money.
    pub fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let world = runtime.block_on(World::start(now)).unwrap();
        world.chain().mint(buyer(), ENDOWMENT);
        Self { world, runtime, read_to: std::sync::Mutex::new(0) }
    }

    /// The world itself.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// Waits for a future.
    pub fn wait<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
    }

    /// A configuration with these policies that may reach the sellers of these names and reads the chain.
    pub fn config(&self, sellers: &[&str], policies: impl IntoIterator<Item = Policy>) -> Config {
        let config = Config::new(policies)
            .set(&["network", NETWORK, "rpc"], self.world.rpc_url())
            .set(&["network", NETWORK, "finality-blocks"], 0);
        sellers
            .iter()
            .fold(config, |config, name| config.allow_private(self.world.seller(name).expect("a seller").authority()))
    }

    /// The redemptions since the last call, by nonce. No nonce is ever redeemed twice: the chain sees to that.
    pub fn new_redemptions(&self) -> BTreeMap<[u8; 32], Redemption> {
        let mut read_to = self.read_to.lock().unwrap();
        let mut found = BTreeMap::new();
        let head = self.world.chain().head().number;
        while *read_to <= head {
            let block = self.world.chain().block(*read_to).expect("a block");
            *read_to += 1;
            // A payment's transaction carries two events: the nonce that was used, and the transfer.
            let Some(transaction) = &block.transaction else {
                continue;
            };
            let [used, moved] = transaction.logs.as_slice() else {
                continue;
            };
            let ([_, _, nonce], [_, from, to]) = (used.topics.as_slice(), moved.topics.as_slice()) else {
                panic!("not a redemption: {transaction:?}");
            };
            let redemption = Redemption {
                from: address(from),
                to: address(to),
                value: u128::from_be_bytes(moved.data.get(16..).unwrap().try_into().unwrap()),
                transaction: format!("0x{}", hex::encode(transaction.hash)),
            };
            found.insert(*nonce, redemption);
        }
        found
    }
}

/// The account behind the standard wallet.
pub fn buyer() -> Address {
    BUYER.address.parse().unwrap()
}

fn now() -> Timestamp {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Timestamp::from_millis(u64::try_from(elapsed.as_millis()).unwrap())
}

fn address(word: &[u8; 32]) -> Address {
    let mut bytes = [0; 20];
    bytes.copy_from_slice(word.get(12..).unwrap());
    Address::new(bytes)
}
