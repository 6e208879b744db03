//! A chain, nodes, a reader of them, and authorizations.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use countersign_chain::fake::{Call, Chain, FakeNode, Transaction};
use countersign_chain::{Block, Finality, Finding, Node, Reader, Subject, Watch};
use countersign_core::evm::{Address, TransferWithAuthorization};
use countersign_core::id::PaymentId;
use countersign_core::money::Atomic;
use countersign_core::time::Timestamp;
use countersign_core::x402::{AssetTable, Authorization, Network, Offer, Protocol, Version};

pub(crate) const PAYER: Address = Address::new([0xa1; 20]);
pub(crate) const SELLER: Address = Address::new([0x5e; 20]);
pub(crate) const OTHER: Address = Address::new([0x07; 20]);
/// When the chain begins, in seconds.
pub(crate) const BEGIN: u64 = 1_800_000_000;
/// How many blocks `finalized` is behind.
pub(crate) const LAG: u64 = 5;

/// Nodes in memory answer at once.
pub(crate) fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("a node in memory does not wait"),
    }
}

pub(crate) fn network() -> Network {
    Network::new(84_532).unwrap()
}

pub(crate) fn asset() -> countersign_core::x402::Asset {
    let usdc = "0x036CbD53842c5426634e7929541eC2318f3dCF7e".parse().unwrap();
    AssetTable::builtin().get(network(), usdc).unwrap().clone()
}

pub(crate) fn chain() -> Chain {
    Chain::new(network(), asset().address, BEGIN, LAG)
}

pub(crate) fn reader(nodes: &[Arc<FakeNode>]) -> Reader {
    reader_with(nodes, Finality::Tag, None)
}

pub(crate) fn reader_with(nodes: &[Arc<FakeNode>], finality: Finality, floor: Option<Block>) -> Reader {
    let nodes = nodes.iter().cloned().map(|node| node as Arc<dyn Node>).collect();
    Reader::new(network(), finality, nodes, floor).unwrap()
}

/// An authorization of 1,000 atomic units to the seller, made when the chain begins.
pub(crate) fn authorization(number: u8, valid_for: u64) -> Authorization {
    let offer = Offer {
        protocol: Protocol::X402(Version::V2),
        index: 0,
        scheme: "exact".to_owned(),
        network: network(),
        network_name: network().to_string(),
        asset: asset(),
        amount: Atomic::new(1_000),
        pay_to: SELLER,
        max_timeout_seconds: 60,
        raw: "{}".to_owned(),
        resource: None,
        extensions: None,
        needs_identifier: false,
        description: None,
        mime_type: None,
        category: None,
        resource_url: None,
    };
    let payment = PaymentId::new(Timestamp::from_secs(BEGIN), [number; 10]);
    Authorization { offer, payment, from: PAYER, nonce: [number; 32], valid_after: 0, valid_before: BEGIN + valid_for }
}

/// The call that redeems it.
pub(crate) fn redeem(authorization: &Authorization) -> Call {
    Call::Redeem(authorization.message())
}

/// A call that redeems its nonce with other terms, which no honest token would accept.
pub(crate) fn redeem_as(authorization: &Authorization, to: Address, value: u128) -> Call {
    Call::Redeem(TransferWithAuthorization { to, value: Atomic::new(value), ..authorization.message() })
}

pub(crate) fn cancel(authorization: &Authorization) -> Call {
    Call::Cancel { payer: authorization.from, nonce: authorization.nonce }
}

pub(crate) fn transfer(from: Address, to: Address, value: u128) -> Call {
    Call::Transfer { from, to, value: Atomic::new(value) }
}

pub(crate) fn tx(id: u64, calls: &[Call]) -> Transaction {
    Transaction::new(id, calls.to_vec())
}

/// Adds blocks, two seconds apart.
pub(crate) fn grow(chain: &Chain, blocks: u64) {
    for _ in 0..blocks {
        chain.mine(chain.head().time + 2, Vec::new());
    }
}

/// Adds blocks until one at or after this many seconds since the beginning is final.
pub(crate) fn final_at(chain: &Chain, seconds: u64) {
    chain.mine(BEGIN + seconds, Vec::new());
    grow(chain, LAG);
}

/// Looks, this many seconds after the beginning by our clock.
pub(crate) fn look(
    reader: &Reader,
    authorization: &Authorization,
    transaction: Option<&str>,
    watch: &mut Watch,
    seconds: u64,
) -> Finding {
    let subject = Subject { authorization, created: Timestamp::from_secs(BEGIN), transaction };
    now(reader.look(subject, watch, Timestamp::from_secs(BEGIN + seconds)))
}
