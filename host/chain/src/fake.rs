//! A chain in memory with one EIP-3009 token, and nodes that tell of it: honest ones, and ones that lag, fail
//! and lie. For tests and simulations; deterministic, without a clock.
//!
//! It keeps what a real chain keeps that matters to a reader: blocks that were undone are still known by
//! their hash, a transaction keeps its hash when it is included again, and state is that of the block that
//! is asked about. Balances and signatures are not modelled: who may redeem is the test's business.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use countersign_core::evm::{Address, TransferWithAuthorization, hex32, keccak256};
use countersign_core::ledger::Fut;
use countersign_core::money::Atomic;
use countersign_core::x402::Network;
use serde_json::{Value, json};

use crate::events::{CANCELED, TRANSFER, USED};
use crate::node::{Node, RpcError};
use crate::source::{Block, call_bytes, word};

type Hash = [u8; 32];

/// A call of the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// Redeems an authorization.
    Redeem(TransferWithAuthorization),
    /// Cancels one.
    Cancel {
        /// Who would have paid.
        payer: Address,
        /// Its nonce.
        nonce: [u8; 32],
    },
    /// Moves tokens without an authorization.
    Transfer {
        /// From whom.
        from: Address,
        /// To whom.
        to: Address,
        /// How much.
        value: Atomic,
    },
}

/// A transaction: all of its calls happen, or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    hash: Hash,
    calls: Vec<Call>,
}

impl Transaction {
    /// A transaction of these calls; the number makes its hash its own.
    #[must_use]
    pub fn new(id: u64, calls: Vec<Call>) -> Self {
        let hash = keccak256(format!("transaction {id} {calls:?}").as_bytes());
        Self { hash, calls }
    }

    /// Its hash, wherever it is included.
    #[must_use]
    pub const fn hash(&self) -> [u8; 32] {
        self.hash
    }

    /// Its hash as nodes print it.
    #[must_use]
    pub fn name(&self) -> String {
        hex32::print(&self.hash())
    }

    /// What it calls.
    #[must_use]
    pub fn calls(&self) -> &[Call] {
        &self.calls
    }
}

#[derive(Clone, Debug)]
struct Event {
    transaction: Hash,
    topics: Vec<Hash>,
    data: Vec<u8>,
}

#[derive(Clone, Debug)]
struct Mined {
    block: Block,
    parent: Hash,
    transactions: Vec<Transaction>,
    /// Which of them succeeded.
    succeeded: BTreeSet<Hash>,
    events: Vec<Event>,
    /// Nonces that ended in this block.
    ended: BTreeSet<(Address, Hash)>,
}

#[derive(Debug)]
struct World {
    network: Network,
    asset: Address,
    /// Every block there ever was.
    blocks: BTreeMap<Hash, Mined>,
    /// Those of the chain, by height; never empty.
    chain: Vec<Hash>,
    /// How many blocks `finalized` is behind the newest.
    lag: u64,
    /// Makes blocks of the same content different ones.
    salt: u64,
}

/// A handle on the chain; clones are the same chain.
#[derive(Clone, Debug)]
pub struct Chain(Arc<Mutex<World>>);

impl Chain {
    /// A chain with its first block and its token; `lag` is how many blocks `finalized` is behind.
    #[must_use]
    pub fn new(network: Network, asset: Address, time: u64, lag: u64) -> Self {
        let mut world = World { network, asset, blocks: BTreeMap::new(), chain: Vec::new(), lag, salt: 0 };
        world.mine(time, Vec::new());
        Self(Arc::new(Mutex::new(world)))
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a block at `time` (never before its parent's) with those of the transactions that the token does
    /// not refuse; the others are in it too, without effect.
    pub fn mine(&self, time: u64, transactions: Vec<Transaction>) -> Block {
        self.world().mine(time, transactions)
    }

    /// Undoes the newest `depth` blocks, but never the first, and answers their transactions in order.
    pub fn undo(&self, depth: u64) -> Vec<Transaction> {
        let mut world = self.world();
        let keep = usize::try_from(depth).map_or(1, |depth| world.chain.len().saturating_sub(depth).max(1));
        let undone = world.chain.split_off(keep);
        world.salt = world.salt.saturating_add(1);
        undone.iter().filter_map(|hash| world.blocks.get(hash)).flat_map(|mined| mined.transactions.clone()).collect()
    }

    /// Sets how many blocks `finalized` is behind the newest.
    pub fn set_lag(&self, blocks: u64) {
        self.world().lag = blocks;
    }

    /// The newest block.
    #[must_use]
    pub fn head(&self) -> Block {
        let world = self.world();
        world.at(world.height()).map_or(Block { number: 0, hash: [0; 32], time: 0 }, |mined| mined.block)
    }

    /// The newest final block.
    #[must_use]
    pub fn finalized(&self) -> Block {
        let world = self.world();
        let number = world.height().saturating_sub(world.lag);
        world.at(number).map_or(Block { number: 0, hash: [0; 32], time: 0 }, |mined| mined.block)
    }

    /// Whether the nonce was used or cancelled, by now.
    #[must_use]
    pub fn ended(&self, payer: Address, nonce: &[u8; 32]) -> bool {
        let world = self.world();
        world.chain.last().is_some_and(|head| world.ended(head, payer, nonce))
    }

    /// The transaction that redeemed the nonce, and its block's height, if the chain holds one.
    #[must_use]
    pub fn redemption(&self, payer: Address, nonce: &[u8; 32]) -> Option<(Transaction, u64)> {
        let world = self.world();
        let redeems = |call: &Call| matches!(call, Call::Redeem(m) if m.from == payer && m.nonce == *nonce);
        world.chain.iter().filter_map(|hash| world.blocks.get(hash)).find_map(|mined| {
            let found =
                mined.transactions.iter().find(|t| mined.succeeded.contains(&t.hash()) && t.calls.iter().any(redeems));
            found.map(|found| (found.clone(), mined.block.number))
        })
    }
}

impl World {
    fn height(&self) -> u64 {
        u64::try_from(self.chain.len().saturating_sub(1)).unwrap_or(u64::MAX)
    }

    fn at(&self, number: u64) -> Option<&Mined> {
        self.blocks.get(self.chain.get(usize::try_from(number).ok()?)?)
    }

    fn mine(&mut self, time: u64, transactions: Vec<Transaction>) -> Block {
        let parent = self.chain.last().copied().unwrap_or_default();
        let time = self.blocks.get(&parent).map_or(time, |mined| mined.block.time.max(time));
        let number = u64::try_from(self.chain.len()).unwrap_or(u64::MAX);
        let (mut events, mut succeeded, mut ended) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
        for transaction in &transactions {
            let mut after = ended.clone();
            let done: Option<Vec<_>> =
                transaction.calls.iter().map(|call| self.run(call, time, &parent, &mut after)).collect();
            if let Some(done) = done {
                let hash = transaction.hash();
                succeeded.insert(hash);
                ended = after;
                events.extend(done.into_iter().flatten().map(|(topics, data)| Event {
                    transaction: hash,
                    topics,
                    data,
                }));
            }
        }
        let names: Vec<_> = transactions.iter().map(Transaction::name).collect();
        let hash = keccak256(format!("block {number} {time} {} {parent:?} {names:?}", self.salt).as_bytes());
        let block = Block { number, hash, time };
        self.blocks.insert(hash, Mined { block, parent, transactions, succeeded, events, ended });
        self.chain.push(hash);
        block
    }

    /// What the token does: its events, or none when it refuses.
    fn run(
        &self,
        call: &Call,
        time: u64,
        parent: &Hash,
        ended: &mut BTreeSet<(Address, Hash)>,
    ) -> Option<Vec<(Vec<Hash>, Vec<u8>)>> {
        let transfer =
            |from, to, value: Atomic| (vec![*TRANSFER, word(from), word(to)], value.to_be_bytes32().to_vec());
        let mut end = |payer, nonce| !self.ended(parent, payer, &nonce) && ended.insert((payer, nonce));
        match call {
            Call::Redeem(m) => {
                let now = m.valid_after < time && time < m.valid_before;
                (now && end(m.from, m.nonce))
                    .then(|| vec![(vec![*USED, word(m.from), m.nonce], Vec::new()), transfer(m.from, m.to, m.value)])
            }
            Call::Cancel { payer, nonce } => {
                end(*payer, *nonce).then(|| vec![(vec![*CANCELED, word(*payer), *nonce], Vec::new())])
            }
            Call::Transfer { from, to, value } => Some(vec![transfer(*from, *to, *value)]),
        }
    }

    fn ended(&self, at: &Hash, payer: Address, nonce: &Hash) -> bool {
        let mut next = self.blocks.get(at);
        while let Some(mined) = next {
            if mined.ended.contains(&(payer, *nonce)) {
                return true;
            }
            next = self.blocks.get(&mined.parent);
        }
        false
    }
}

/// How a node answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Mood {
    /// As the chain is.
    #[default]
    Honest,
    /// Not at all.
    Down,
    /// As it was this many blocks ago.
    Lagging(u64),
    /// As it is, but no more blocks than this in one question.
    Narrow(u64),
    /// Untruthfully.
    Lying(Lie),
}

/// What a node lies about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lie {
    /// No nonce was ever used: no state, no logs, no receipts.
    NeverUsed,
    /// No nonce was ever used, by its state only.
    StateUnused,
    /// Every nonce was used, by its state only.
    StateUsed,
    /// There are no logs.
    NoLogs,
    /// The newest block is final.
    FinalAtHead,
    /// Every block is this many seconds younger.
    TimeAhead(u64),
    /// It knows no state but the newest, whatever it is asked about.
    NoHashReads,
    /// It refuses to be asked by hash.
    RefusesHashes,
    /// It is of another chain.
    OtherChain(u64),
    /// There is no token.
    NoCode,
    /// The token knows no authorizations.
    NoAuthorizations,
    /// Receipts tell of blocks that were undone as if they were in the chain.
    StaleReceipts,
    /// Every transfer went to this one.
    PaidTo(Address),
    /// Every transfer moved this much.
    Paid(Atomic),
    /// Blocks have other hashes.
    OtherHashes,
}

/// What [`Rpc`](crate::Rpc) reads in the body of an HTTP answer to its first question: for nodes whose answers
/// somebody else made up.
///
/// # Errors
/// As [`Node::call`].
pub fn answer(body: &[u8]) -> Result<Value, RpcError> {
    crate::rpc::read(1, http::StatusCode::OK, body)
}

/// A node of a [`Chain`].
#[derive(Debug)]
pub struct FakeNode {
    name: String,
    chain: Chain,
    mood: Mutex<Mood>,
}

impl FakeNode {
    /// An honest node.
    #[must_use]
    pub fn new(name: &str, chain: &Chain) -> Arc<Self> {
        Arc::new(Self { name: name.to_owned(), chain: chain.clone(), mood: Mutex::default() })
    }

    /// Changes how it answers.
    pub fn set(&self, mood: Mood) {
        *self.mood.lock().unwrap_or_else(PoisonError::into_inner) = mood;
    }

    /// How it answers.
    #[must_use]
    pub fn mood(&self) -> Mood {
        self.mood.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Node for FakeNode {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn call<'a>(&'a self, method: &'a str, params: Value) -> Fut<'a, Result<Value, RpcError>> {
        Box::pin(async move {
            let mood = self.mood();
            let world = self.chain.world();
            match &mood {
                Mood::Down => Err(RpcError::Unreachable("connection refused".to_owned())),
                mood => View { world: &world, mood }.answer(method, &params),
            }
        })
    }
}

/// What a node with a mood sees.
struct View<'a> {
    world: &'a World,
    mood: &'a Mood,
}

fn refused(code: i64, message: &str) -> RpcError {
    RpcError::Refused { code, message: message.to_owned() }
}

impl View<'_> {
    fn lies(&self, lie: &Lie) -> bool {
        matches!(self.mood, Mood::Lying(told) if told == lie)
    }

    fn head(&self) -> u64 {
        let behind = if let Mood::Lagging(blocks) = self.mood { *blocks } else { 0 };
        self.world.height().saturating_sub(behind)
    }

    fn answer(&self, method: &str, params: &Value) -> Result<Value, RpcError> {
        let at = |index: usize| params.get(index).unwrap_or(&Value::Null);
        match method {
            "eth_chainId" => Ok(json!(format!(
                "{:#x}",
                match self.mood {
                    Mood::Lying(Lie::OtherChain(id)) => *id,
                    _ => self.world.network.chain_id(),
                }
            ))),
            "eth_getBlockByNumber" => Ok(self.numbered(at(0)).map_or(Value::Null, |mined| self.print_block(mined))),
            "eth_getCode" => {
                self.hashed(at(1))?;
                let there = address(at(0)) == Some(self.world.asset) && !self.lies(&Lie::NoCode);
                Ok(json!(if there { "0x6080" } else { "0x" }))
            }
            "eth_call" => self.call(at(0), at(1)),
            "eth_getLogs" => self.logs(at(0)),
            "eth_getTransactionReceipt" => Ok(self.receipt(at(0))),
            _ => Err(refused(-32601, "the method does not exist")),
        }
    }

    fn numbered(&self, which: &Value) -> Option<&Mined> {
        let head = self.head();
        let number = match which.as_str()? {
            "latest" => head,
            "finalized" if self.lies(&Lie::FinalAtHead) => head,
            "finalized" => head.saturating_sub(self.world.lag),
            number => u64::from_str_radix(number.strip_prefix("0x")?, 16).ok()?,
        };
        if number > head { None } else { self.world.at(number) }
    }

    /// The block named by its hash, as EIP-1898 has it.
    fn hashed(&self, which: &Value) -> Result<&Mined, RpcError> {
        let unknown = || refused(-32000, "header not found");
        if which == "latest" || self.lies(&Lie::NoHashReads) {
            return self.world.at(self.head()).ok_or_else(unknown);
        }
        if self.lies(&Lie::RefusesHashes) {
            return Err(refused(-32602, "invalid argument 1: cannot unmarshal object into a string"));
        }
        let hash = which.get("blockHash").and_then(Value::as_str).and_then(hex32::parse);
        let hash = hash.map(|hash| self.hash(hash)).ok_or_else(|| refused(-32602, "expected a block"))?;
        self.world.blocks.get(&hash).filter(|mined| mined.block.number <= self.head()).ok_or_else(unknown)
    }

    /// As it prints a hash of a block, and back.
    fn hash(&self, mut hash: Hash) -> Hash {
        if self.lies(&Lie::OtherHashes) {
            hash.iter_mut().for_each(|byte| *byte = !*byte);
        }
        hash
    }

    fn print_block(&self, mined: &Mined) -> Value {
        let Block { number, hash, time } = mined.block;
        let time = match self.mood {
            Mood::Lying(Lie::TimeAhead(seconds)) => time.saturating_add(*seconds),
            _ => time,
        };
        json!({
            "number": format!("{number:#x}"),
            "hash": hex32::print(&self.hash(hash)),
            "parentHash": hex32::print(&self.hash(mined.parent)),
            "timestamp": format!("{time:#x}"),
        })
    }

    fn call(&self, call: &Value, which: &Value) -> Result<Value, RpcError> {
        let mined = self.hashed(which)?;
        if call.get("to").and_then(address) != Some(self.world.asset) || self.lies(&Lie::NoCode) {
            return Ok(json!("0x"));
        }
        let data = call.get("data").and_then(bytes).unwrap_or_default();
        let (selector, arguments) = data.split_at_checked(4).unwrap_or_default();
        let (words, _) = arguments.as_chunks::<32>();
        if selector == call_bytes("balanceOf(address)", &[]) {
            return Ok(json!(hex32::print(&Atomic::new(u128::from(u64::MAX)).to_be_bytes32())));
        }
        let asked = (selector == call_bytes("authorizationState(address,bytes32)", &[])).then_some(words);
        let Some([payer, nonce]) = asked else { return Err(refused(3, "execution reverted")) };
        if self.lies(&Lie::NoAuthorizations) {
            return Err(refused(3, "execution reverted"));
        }
        let payer = payer.last_chunk::<20>().copied().map(Address::new).unwrap_or(Address::new([0; 20]));
        let ended = match self.mood {
            Mood::Lying(Lie::NeverUsed | Lie::StateUnused) => false,
            Mood::Lying(Lie::StateUsed) => true,
            _ => self.world.ended(&mined.block.hash, payer, nonce),
        };
        Ok(json!(hex32::print(&Atomic::new(u128::from(ended)).to_be_bytes32())))
    }

    fn print_logs(&self, mined: &Mined, keep: impl Fn(&Event) -> bool) -> Vec<Value> {
        let all = mined.events.iter().enumerate().filter(|(_, event)| keep(event));
        all.map(|(index, event)| {
            let (mut topics, mut data) = (event.topics.clone(), event.data.clone());
            if topics.first() == Some(&*TRANSFER) {
                match self.mood {
                    Mood::Lying(Lie::PaidTo(payee)) => topics.splice(2.., [word(*payee)]).for_each(drop),
                    Mood::Lying(Lie::Paid(value)) => data = value.to_be_bytes32().to_vec(),
                    _ => {}
                }
            }
            json!({
                "address": self.world.asset.to_string().to_lowercase(),
                "topics": topics.iter().map(hex32::print).collect::<Vec<_>>(),
                "data": format!("0x{}", hex::encode(data)),
                "blockNumber": format!("{:#x}", mined.block.number),
                "blockHash": hex32::print(&self.hash(mined.block.hash)),
                "transactionHash": hex32::print(&event.transaction),
                "logIndex": format!("{index:#x}"),
                "removed": false,
            })
        })
        .collect()
    }

    fn logs(&self, filter: &Value) -> Result<Value, RpcError> {
        if self.lies(&Lie::NoLogs) || self.lies(&Lie::NeverUsed) {
            return Ok(json!([]));
        }
        let topic = |one: &Value| one.as_str().and_then(hex32::parse);
        let any = |any: &Value| any.as_array().map(|any| any.iter().filter_map(topic).collect::<BTreeSet<_>>());
        let wanted: Vec<_> = filter.get("topics").and_then(Value::as_array).into_iter().flatten().map(any).collect();
        let matches = |event: &Event| {
            wanted.iter().enumerate().all(|(index, any)| match (any, event.topics.get(index)) {
                (None, Some(_)) => true,
                (Some(any), Some(topic)) => any.contains(topic),
                (_, None) => false,
            })
        };
        if filter.get("address").and_then(address) != Some(self.world.asset) {
            return Ok(json!([]));
        }
        if filter.get("blockHash").is_some() {
            return Ok(json!(self.print_logs(self.hashed(filter)?, matches)));
        }
        let number = |field: &str| {
            let text = filter.get(field)?.as_str()?;
            u64::from_str_radix(text.strip_prefix("0x")?, 16).ok()
        };
        let (Some(from), Some(to)) = (number("fromBlock"), number("toBlock")) else {
            return Err(refused(-32602, "expected a range"));
        };
        if from > to || to > self.head() {
            return Err(refused(-32000, "invalid block range"));
        }
        let most = if let Mood::Narrow(most) = self.mood { *most } else { 10_000 };
        if to.saturating_sub(from) >= most {
            return Err(refused(-32005, "query exceeds the range of this plan"));
        }
        let blocks = (from..=to).filter_map(|number| self.world.at(number));
        Ok(json!(blocks.flat_map(|mined| self.print_logs(mined, matches)).collect::<Vec<_>>()))
    }

    fn receipt(&self, transaction: &Value) -> Value {
        let Some(hash) = transaction.as_str().and_then(hex32::parse) else { return Value::Null };
        if self.lies(&Lie::NeverUsed) {
            return Value::Null;
        }
        let holds = |mined: &&Mined| mined.transactions.iter().any(|t| t.hash() == hash);
        let chain = (0..=self.head()).rev().filter_map(|number| self.world.at(number)).find(holds);
        let stale = || self.lies(&Lie::StaleReceipts).then(|| self.world.blocks.values().find(holds)).flatten();
        let Some(mined) = chain.or_else(stale) else { return Value::Null };
        json!({
            "transactionHash": hex32::print(&hash),
            "blockNumber": format!("{:#x}", mined.block.number),
            "blockHash": hex32::print(&self.hash(mined.block.hash)),
            "status": if mined.succeeded.contains(&hash) { "0x1" } else { "0x0" },
            "logs": self.print_logs(mined, |event| event.transaction == hash),
        })
    }
}

fn address(value: &Value) -> Option<Address> {
    value.as_str()?.parse().ok()
}

fn bytes(value: &Value) -> Option<Vec<u8>> {
    hex::decode(value.as_str()?.strip_prefix("0x")?).ok()
}
