//! What the chain says: proof that an authorization was redeemed, and whether a wallet can pay.
//!
//! Proof here is the transaction's own log at the head of the chain: `AuthorizationUsed` of our
//! nonce and the `Transfer` of our amount to our payee, by the token of our table. Nothing a chain
//! reader says frees money: absence is not evidence.

mod rpc;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use countersign_core::evm::{Address, keccak256};
use countersign_core::id::PaymentId;
use countersign_core::ledger::{Evidence, LedgerError, PaymentFilter, PaymentView, Transition};
use countersign_core::money::Atomic;
use countersign_core::payment::{Event, State};
use countersign_core::seams::Clock;
use countersign_core::time::Timestamp;
use countersign_core::x402::{Authorization, Network};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio_rustls::TlsConnector;

use crate::config::NetworkConfig;
use crate::state::Gateway;
pub use rpc::{Rpc, RpcError};

/// How long a balance is believed, in milliseconds.
const BALANCE_MS: u64 = 5_000;
/// How many blocks back a redemption without a known transaction is looked for.
const LOOK_BACK: u64 = 9_000;
/// Waits between looks at one payment, in milliseconds; the last repeats.
const WAITS: [u64; 8] = [0, 100, 250, 1_000, 2_000, 5_000, 15_000, 60_000];
/// Looks at the chain at the same time.
const CONCURRENT: usize = 8;

/// What the chain showed about one authorization.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// Redeemed, with our amount and payee.
    Redeemed {
        /// The transaction, `0x` and 64 hex digits.
        transaction: String,
        /// The block it is in.
        block: u64,
    },
    /// Not seen. This is not evidence of anything.
    NotSeen,
}

/// A balance as last read, less what was signed since.
#[derive(Clone, Copy)]
struct Balance {
    read: u128,
    signed: u128,
    at: Timestamp,
}

/// Chain readers by network.
pub struct Chains {
    nodes: RwLock<BTreeMap<Network, Arc<Rpc>>>,
    tls: TlsConnector,
    clock: Arc<dyn Clock>,
    balances: Mutex<BTreeMap<(Network, Address, Address), Balance>>,
    watched: Mutex<BTreeSet<PaymentId>>,
    slots: Semaphore,
}

impl Chains {
    /// Readers without a node yet.
    #[must_use]
    pub fn new(tls: TlsConnector, clock: Arc<dyn Clock>) -> Self {
        Self {
            nodes: RwLock::default(),
            tls,
            clock,
            balances: Mutex::default(),
            watched: Mutex::default(),
            slots: Semaphore::new(CONCURRENT),
        }
    }

    /// Replaces the nodes by the configured ones: the first of each network.
    ///
    /// # Errors
    /// When a node's URL is not one; nothing is replaced.
    pub fn configure(&self, networks: &BTreeMap<Network, NetworkConfig>) -> Result<(), RpcError> {
        let mut nodes = BTreeMap::new();
        for (network, config) in networks {
            if let Some(url) = config.rpc.first() {
                nodes.insert(*network, Arc::new(Rpc::new(url, self.tls.clone(), Arc::clone(&self.clock))?));
            }
        }
        *self.nodes.write().unwrap_or_else(PoisonError::into_inner) = nodes;
        Ok(())
    }

    fn node(&self, network: Network) -> Option<Arc<Rpc>> {
        self.nodes.read().unwrap_or_else(PoisonError::into_inner).get(&network).cloned()
    }

    /// Whether a node of this network is configured.
    #[must_use]
    pub fn reads(&self, network: Network) -> bool {
        self.node(network).is_some()
    }

    /// The addresses of the nodes, which no purchase may reach.
    pub async fn addresses(&self) -> Vec<SocketAddr> {
        let nodes: Vec<_> = self.nodes.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        let mut all = Vec::new();
        for rpc in nodes {
            if let Ok(found) = tokio::net::lookup_host((rpc.target().hostname(), rpc.target().port())).await {
                all.extend(found);
            }
        }
        all
    }

    /// Whether `payer` holds `amount`. True where nobody can tell: without a node, or while it does
    /// not answer, the chain itself refuses an uncovered transfer.
    pub async fn can_cover(&self, network: Network, asset: Address, payer: Address, amount: Atomic) -> bool {
        let Some(rpc) = self.node(network) else { return true };
        let Ok(now) = self.clock.now() else { return false };
        let key = (network, asset, payer);
        if self.take_from_known(key, amount, now) {
            return true;
        }
        match balance_of(&rpc, asset, payer).await {
            Ok(read) => {
                let covered = read >= amount.get();
                let balance = Balance { read, signed: if covered { amount.get() } else { 0 }, at: now };
                self.balances.lock().unwrap_or_else(PoisonError::into_inner).insert(key, balance);
                covered
            }
            Err(error) => {
                tracing::warn!(%network, %error, "the wallet's balance could not be read");
                true
            }
        }
    }

    fn take_from_known(&self, key: (Network, Address, Address), amount: Atomic, now: Timestamp) -> bool {
        let mut balances = self.balances.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(known) = balances.get_mut(&key) else { return false };
        let signed = known.signed.saturating_add(amount.get());
        let covered = now.since(known.at) < BALANCE_MS && signed <= known.read;
        if covered {
            known.signed = signed;
        }
        covered
    }

    /// Follows a payment until the chain proves it or the process ends. Once per payment.
    pub fn watch(&self, gateway: &Arc<Gateway>, payment: PaymentId) {
        if !self.watched.lock().unwrap_or_else(PoisonError::into_inner).insert(payment) {
            return;
        }
        let gateway = Arc::clone(gateway);
        tokio::spawn(async move {
            gateway.chains.follow(&gateway, payment).await;
            gateway.chains.watched.lock().unwrap_or_else(PoisonError::into_inner).remove(&payment);
        });
    }

    /// Follows every payment that is open in the ledger; for a start.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn watch_open(&self, gateway: &Arc<Gateway>) -> Result<(), LedgerError> {
        let states = vec![State::Signed, State::Redeemable, State::Seen];
        let mut filter = PaymentFilter { states, limit: 500, ..PaymentFilter::default() };
        loop {
            let page = gateway.ledger.payments(filter.clone()).await?;
            page.iter().for_each(|p| self.watch(gateway, p.id));
            match page.last() {
                Some(last) if page.len() >= 500 => filter.before = Some(last.id),
                _ => return Ok(()),
            }
        }
    }

    async fn follow(&self, gateway: &Gateway, id: PaymentId) {
        let last = WAITS.last().copied().unwrap_or(60_000);
        for wait in WAITS.into_iter().chain(std::iter::repeat(last)) {
            self.clock.sleep(wait).await;
            let Ok(Some(payment)) = gateway.ledger.payment(id).await else { continue };
            if !matches!(payment.state, State::Signed | State::Redeemable | State::Seen) {
                return;
            }
            let Some(authorization) = &payment.authorization else { return };
            let Some(rpc) = self.node(authorization.offer.network) else { return };
            let Ok(_slot) = self.slots.acquire().await else { return };
            match prove(&rpc, authorization, payment.transaction.as_deref()).await {
                Ok(Proof::Redeemed { transaction, block }) => {
                    if self.settle(gateway, &payment, transaction, block).await {
                        return;
                    }
                }
                Ok(Proof::NotSeen) => {}
                Err(error) => tracing::debug!(payment = %id, %error, "no proof yet"),
            }
        }
    }

    /// Records the proof; false if it must be tried again.
    async fn settle(&self, gateway: &Gateway, payment: &PaymentView, transaction: String, block: u64) -> bool {
        let Ok(at) = self.clock.now() else { return false };
        let evidence = Some(Evidence { transaction: Some(transaction), block: Some(block) });
        let why = "proven on the chain".to_owned();
        let transition =
            Transition { payment: payment.id, from: payment.state, event: Event::Redeemed, why, evidence, at };
        match gateway.ledger.transition(transition).await {
            Ok(_) => {
                tracing::info!(payment = %payment.id, block, "settled");
                true
            }
            // The state moved meanwhile: look again.
            Err(_) => false,
        }
    }
}

/// Looks for the redemption of exactly this authorization.
///
/// # Errors
/// [`RpcError`] when the node does not answer, or is of another chain.
pub async fn prove(rpc: &Rpc, authorization: &Authorization, transaction: Option<&str>) -> Result<Proof, RpcError> {
    let chain_id = quantity(&rpc.call("eth_chainId", json!([])).await?)?;
    if chain_id != authorization.offer.network.chain_id() {
        return Err(RpcError(format!("it is of chain {chain_id}, not {}", authorization.offer.network)));
    }
    if let Some(transaction) = transaction
        && let Some(proof) = receipt_proves(rpc, authorization, transaction).await?
    {
        return Ok(proof);
    }
    if !authorization_state(rpc, authorization).await? {
        return Ok(Proof::NotSeen);
    }
    // Used or cancelled; only the log tells which, and in which transaction.
    let head = quantity(&rpc.call("eth_blockNumber", json!([])).await?)?;
    let filter = json!([{
        "address": authorization.offer.asset.address.to_string(),
        "topics": [topic("AuthorizationUsed(address,bytes32)"), word_of(authorization.from), hex32(&authorization.nonce)],
        "fromBlock": format!("{:#x}", head.saturating_sub(LOOK_BACK)),
        "toBlock": "latest",
    }]);
    let logs = rpc.call("eth_getLogs", filter).await?;
    for log in logs.as_array().into_iter().flatten() {
        if let Some(transaction) = log.get("transactionHash").and_then(Value::as_str)
            && let Some(proof) = receipt_proves(rpc, authorization, transaction).await?
        {
            return Ok(proof);
        }
    }
    Ok(Proof::NotSeen)
}

/// Whether the transaction succeeded and carries both logs of exactly this authorization.
async fn receipt_proves(
    rpc: &Rpc,
    authorization: &Authorization,
    transaction: &str,
) -> Result<Option<Proof>, RpcError> {
    let receipt = rpc.call("eth_getTransactionReceipt", json!([transaction])).await?;
    if receipt.is_null() || receipt.get("status").and_then(Value::as_str) != Some("0x1") {
        return Ok(None);
    }
    let token = authorization.offer.asset.address;
    let logs: Vec<&Value> = receipt
        .get("logs")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter(|log| log.get("address").and_then(Value::as_str).and_then(|a| a.parse().ok()) == Some(token))
        .collect();
    let topics = |log: &Value| -> Vec<String> {
        let all = log.get("topics").and_then(Value::as_array).into_iter().flatten();
        all.filter_map(|t| t.as_str().map(str::to_ascii_lowercase)).collect()
    };
    let used = [topic("AuthorizationUsed(address,bytes32)"), word_of(authorization.from), hex32(&authorization.nonce)];
    let moved =
        [topic("Transfer(address,address,uint256)"), word_of(authorization.from), word_of(authorization.offer.pay_to)];
    let amount = hex32(&authorization.offer.amount.to_be_bytes32());
    let has_used = logs.iter().any(|log| topics(log) == used);
    let has_moved = logs.iter().any(|log| {
        let data = log.get("data").and_then(Value::as_str).map(str::to_ascii_lowercase);
        topics(log) == moved && data.as_deref() == Some(&amount)
    });
    let block = receipt.get("blockNumber").map(quantity).transpose()?;
    Ok(match block {
        Some(block) if has_used && has_moved => Some(Proof::Redeemed { transaction: transaction.to_owned(), block }),
        _ => None,
    })
}

async fn authorization_state(rpc: &Rpc, authorization: &Authorization) -> Result<bool, RpcError> {
    let arguments = format!("{}{}", strip(&word_of(authorization.from)), hex::encode(authorization.nonce));
    let answer =
        eth_call(rpc, authorization.offer.asset.address, "authorizationState(address,bytes32)", &arguments).await?;
    Ok(answer.last() == Some(&1))
}

async fn balance_of(rpc: &Rpc, asset: Address, owner: Address) -> Result<u128, RpcError> {
    let answer = eth_call(rpc, asset, "balanceOf(address)", strip(&word_of(owner))).await?;
    let word: [u8; 32] = answer.try_into().map_err(|_| RpcError("balanceOf: not one word".to_owned()))?;
    // More than 2^128 covers anything we pay.
    Ok(Atomic::from_be_bytes32(&word).map_or(u128::MAX, Atomic::get))
}

async fn eth_call(rpc: &Rpc, to: Address, signature: &str, arguments: &str) -> Result<Vec<u8>, RpcError> {
    let selector: String = strip(&topic(signature)).chars().take(8).collect();
    let params = json!([{"to": to.to_string(), "data": format!("0x{selector}{arguments}")}, "latest"]);
    let answer = rpc.call("eth_call", params).await?;
    let text = answer.as_str().unwrap_or_default();
    hex::decode(strip(text)).map_err(|_| RpcError(format!("{signature}: not hex")))
}

/// Keccak-256 of a signature: an event's first topic, or a selector and more.
fn topic(signature: &str) -> String {
    hex32(&keccak256(signature.as_bytes()))
}

fn hex32(bytes: &[u8; 32]) -> String {
    format!("0x{}", hex::encode(bytes))
}

/// An address as a 32-byte word.
fn word_of(address: Address) -> String {
    format!("0x{:0>64}", hex::encode(address.as_bytes()))
}

fn strip(text: &str) -> &str {
    text.strip_prefix("0x").unwrap_or(text)
}

fn quantity(value: &Value) -> Result<u64, RpcError> {
    let text = value.as_str().unwrap_or_default();
    u64::from_str_radix(strip(text), 16).map_err(|_| RpcError("not a quantity".to_owned()))
}
