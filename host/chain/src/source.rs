//! The questions we ask one node, and what counts as an answer to each. Anything else is an error,
//! never a default.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use countersign_core::evm::{Address, hex32, keccak256};
use countersign_core::money::Atomic;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::events::Place;
use crate::node::{Node, RpcError};
use crate::reader::ReadError;

/// Thirty-two bytes that name a block or a transaction, or are a topic or a nonce.
pub(crate) type Hash = [u8; 32];

/// Most blocks one `eth_getLogs` asks for.
pub const MAX_SPAN: u64 = 2_000;

/// The code of an error that the contract itself gave.
const REVERTED: i64 = 3;

/// A block, as far as evidence needs it.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    /// Its height.
    pub number: u64,
    /// Its hash.
    #[serde(with = "hex32")]
    pub hash: [u8; 32],
    /// Its own time, in seconds since the epoch.
    pub time: u64,
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "block {} ({} at {})", self.number, hex32::print(&self.hash), self.time)
    }
}

/// One event of a contract.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Log {
    pub(crate) place: Place,
    pub(crate) topics: Vec<Hash>,
    pub(crate) data: Vec<u8>,
}

/// Which events of a token to read: for each topic, any of these, or anything.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) asset: Address,
    pub(crate) topics: Vec<Option<BTreeSet<Hash>>>,
}

impl Wanted {
    fn filter(&self) -> Value {
        let topic = |any: &Option<BTreeSet<Hash>>| any.as_ref().map(|any| any.iter().map(hex32::print).collect());
        let topics: Vec<Option<Vec<String>>> = self.topics.iter().map(topic).collect();
        json!({"address": self.asset.to_string(), "topics": topics})
    }

    fn matches(&self, topics: &[Hash]) -> bool {
        self.topics.iter().enumerate().all(|(i, any)| match (any, topics.get(i)) {
            (Some(any), Some(topic)) => any.contains(topic),
            (None, Some(_)) => true,
            (_, None) => false,
        })
    }
}

/// Which block.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Which {
    Latest,
    Finalized,
    Number(u64),
}

/// One node, and what was learned about it.
pub(crate) struct Source {
    node: Arc<dyn Node>,
    name: String,
    /// Blocks per `eth_getLogs`: halved when it refuses, doubled when it answers.
    span: AtomicU64,
    /// Whether it was seen to refuse the state of a block that does not exist.
    reads_by_hash: AtomicBool,
}

type Read<T> = Result<T, ReadError>;

impl Source {
    pub(crate) fn new(node: Arc<dyn Node>) -> Self {
        let name = node.name();
        Self { node, name, span: AtomicU64::new(MAX_SPAN), reads_by_hash: AtomicBool::new(false) }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    fn failed(&self, method: &'static str, error: RpcError) -> ReadError {
        ReadError::Node { node: self.name.clone(), method, error }
    }

    fn odd(&self, method: &'static str, what: &str) -> ReadError {
        self.failed(method, RpcError::Malformed(what.to_owned()))
    }

    async fn call(&self, method: &'static str, params: Value) -> Read<Value> {
        self.node.call(method, params).await.map_err(|error| self.failed(method, error))
    }

    pub(crate) async fn chain_id(&self) -> Read<u64> {
        const METHOD: &str = "eth_chainId";
        let answer = self.call(METHOD, json!([])).await?;
        quantity(&answer).ok_or_else(|| self.odd(METHOD, "expected a number"))
    }

    /// A block of the node's chain; none if it has none there.
    pub(crate) async fn block(&self, which: Which) -> Read<Option<Block>> {
        const METHOD: &str = "eth_getBlockByNumber";
        let tag = match which {
            Which::Latest => "latest".to_owned(),
            Which::Finalized => "finalized".to_owned(),
            Which::Number(number) => hex_quantity(number),
        };
        let answer = self.call(METHOD, json!([tag, false])).await?;
        if answer.is_null() {
            return Ok(None);
        }
        let block =
            block(&answer).ok_or_else(|| self.odd(METHOD, "expected a block with number, hash and timestamp"))?;
        match which {
            Which::Number(number) if number != block.number => Err(self.odd(METHOD, "another block than asked for")),
            _ => Ok(Some(block)),
        }
    }

    /// A block below one that the node has.
    pub(crate) async fn block_at(&self, number: u64) -> Read<Block> {
        let block = self.block(Which::Number(number)).await?;
        block.ok_or_else(|| self.odd("eth_getBlockByNumber", &format!("it has no block {number}")))
    }

    /// Whether an answer belongs to the block it was asked about: a node that does not know EIP-1898
    /// answers about its newest block even when asked about one that does not exist.
    pub(crate) async fn check_reads_by_hash(&self) -> Read<()> {
        const METHOD: &str = "eth_call";
        if self.reads_by_hash.load(Ordering::Relaxed) {
            return Ok(());
        }
        let nowhere = keccak256(b"countersign: no block has this hash");
        let to = Address::new([0; 20]).to_string();
        let answer = self.node.call(METHOD, json!([{"to": to, "data": "0x"}, by_hash(&nowhere)])).await;
        match answer {
            Err(RpcError::Refused { .. }) | Ok(Value::Null) => {
                self.reads_by_hash.store(true, Ordering::Relaxed);
                Ok(())
            }
            Err(error) => Err(self.failed(METHOD, error)),
            Ok(_) => {
                let why = "it answered about a block that does not exist".to_owned();
                Err(ReadError::HashRead { node: self.name.clone(), why })
            }
        }
    }

    async fn call_by_hash(&self, method: &'static str, subject: Value, at: &Hash) -> Read<Vec<u8>> {
        let answer = match self.node.call(method, json!([subject, by_hash(at)])).await {
            Err(error @ RpcError::Refused { code, .. }) if code != REVERTED => {
                return Err(ReadError::HashRead { node: self.name.clone(), why: error.to_string() });
            }
            answer => answer.map_err(|error| self.failed(method, error))?,
        };
        bytes(&answer).ok_or_else(|| self.odd(method, "expected hex digits"))
    }

    /// Whether there is code at `address`, in this block.
    pub(crate) async fn has_code(&self, address: Address, at: &Hash) -> Read<bool> {
        Ok(!self.call_by_hash("eth_getCode", json!(address.to_string()), at).await?.is_empty())
    }

    /// Whether the nonce was used or cancelled, by the end of this block.
    pub(crate) async fn authorization_state(
        &self,
        asset: Address,
        payer: Address,
        nonce: &Hash,
        at: &Hash,
    ) -> Read<bool> {
        const METHOD: &str = "eth_call";
        let data = call_data("authorizationState(address,bytes32)", &[word(payer), *nonce]);
        let answer = self.call_by_hash(METHOD, json!({"to": asset.to_string(), "data": data}), at).await?;
        match answer.split_last() {
            Some((last, rest)) if rest.len() == 31 && rest.iter().all(|b| *b == 0) && *last <= 1 => Ok(*last == 1),
            _ => Err(self.odd(METHOD, "authorizationState: expected true or false")),
        }
    }

    /// What `owner` has now. None of the uses of this frees money, so the newest block will do.
    pub(crate) async fn balance(&self, asset: Address, owner: Address) -> Read<u128> {
        const METHOD: &str = "eth_call";
        let call = json!({"to": asset.to_string(), "data": call_data("balanceOf(address)", &[word(owner)])});
        let answer = self.call(METHOD, json!([call, "latest"])).await?;
        let read = bytes(&answer).ok_or_else(|| self.odd(METHOD, "balanceOf: expected one word"))?;
        // Whatever is called where nothing is succeeds and returns nothing.
        if read.is_empty() {
            return Err(ReadError::NoCode { node: self.name().to_owned(), asset });
        }
        let read = Hash::try_from(read).map_err(|_| self.odd(METHOD, "balanceOf: expected one word"))?;
        // More than 2^128 covers anything we pay.
        Ok(Atomic::from_be_bytes32(&read).map_or(u128::MAX, Atomic::get))
    }

    /// Where a transaction is, and the events that `wanted` names in it; none if it is in no block or failed.
    pub(crate) async fn receipt(&self, transaction: &Hash, wanted: &Wanted) -> Read<Option<Vec<Log>>> {
        const METHOD: &str = "eth_getTransactionReceipt";
        let answer = self.call(METHOD, json!([hex32::print(transaction)])).await?;
        if answer.is_null() || answer.get("blockHash").is_none_or(Value::is_null) {
            return Ok(None);
        }
        if answer.get("status").and_then(quantity) != Some(1) {
            return Ok(None);
        }
        let logs = answer.get("logs").and_then(Value::as_array).ok_or_else(|| self.odd(METHOD, "no logs"))?;
        let mut found = Vec::new();
        for log in logs {
            let (address, log) = read_log(log).ok_or_else(|| self.odd(METHOD, "a log that is not one"))?;
            if log.place.transaction != *transaction {
                return Err(self.odd(METHOD, "a log of another transaction"));
            }
            if address == wanted.asset && wanted.matches(&log.topics) {
                found.push(log);
            }
        }
        Ok(Some(found))
    }

    /// The wanted events of one block, in their order.
    pub(crate) async fn logs_in(&self, block: &Block, wanted: &Wanted) -> Read<Vec<Log>> {
        let mut filter = wanted.filter();
        if let Some(filter) = filter.as_object_mut() {
            filter.insert("blockHash".to_owned(), json!(hex32::print(&block.hash)));
        }
        let inside = |place: &Place| place.block == block.number && place.block_hash == block.hash;
        self.logs(filter, wanted, inside).await
    }

    /// The wanted events of blocks `from..=to`, and up to which block that is complete: at most
    /// `calls` questions are asked. With `first`, the rest of the range is left once any was found.
    pub(crate) async fn logs_between(
        &self,
        wanted: &Wanted,
        (from, to): (u64, u64),
        calls: u32,
        first: bool,
    ) -> Read<(Vec<Log>, Option<u64>)> {
        let (mut found, mut next, mut through) = (Vec::new(), from, None);
        for _ in 0..calls {
            if next > to || (first && !found.is_empty()) {
                break;
            }
            let span = self.span.load(Ordering::Relaxed).clamp(1, MAX_SPAN);
            let last = next.saturating_add(span.saturating_sub(1)).min(to);
            let mut filter = wanted.filter();
            if let Some(filter) = filter.as_object_mut() {
                filter.insert("fromBlock".to_owned(), json!(hex_quantity(next)));
                filter.insert("toBlock".to_owned(), json!(hex_quantity(last)));
            }
            match self.logs(filter, wanted, |place| (next..=last).contains(&place.block)).await {
                Ok(logs) => {
                    found.extend(logs);
                    self.span.store(span.saturating_mul(2).min(MAX_SPAN), Ordering::Relaxed);
                    through = Some(last);
                    next = last.saturating_add(1);
                }
                // Providers limit ranges and answers, each in their own way.
                Err(ReadError::Node { error: RpcError::Refused { .. }, .. }) if last > next => {
                    let asked = last.saturating_sub(next).saturating_add(1);
                    self.span.store(asked.div_ceil(2), Ordering::Relaxed);
                }
                Err(error) => return Err(error),
            }
        }
        Ok((found, through))
    }

    async fn logs(&self, filter: Value, wanted: &Wanted, inside: impl Fn(&Place) -> bool) -> Read<Vec<Log>> {
        const METHOD: &str = "eth_getLogs";
        let answer = self.call(METHOD, json!([filter])).await?;
        let logs = answer.as_array().ok_or_else(|| self.odd(METHOD, "expected a list"))?;
        let mut found = Vec::with_capacity(logs.len());
        for log in logs {
            let (address, log) = read_log(log).ok_or_else(|| self.odd(METHOD, "a log that is not one"))?;
            if address != wanted.asset || !wanted.matches(&log.topics) || !inside(&log.place) {
                return Err(self.odd(METHOD, "a log that was not asked for"));
            }
            found.push(log);
        }
        found.sort_by_key(|log| (log.place.block, log.place.log));
        let twice = |pair: &[Log]| match pair {
            [a, b] => (a.place.block, a.place.log) == (b.place.block, b.place.log),
            _ => false,
        };
        if found.windows(2).any(twice) {
            return Err(self.odd(METHOD, "two logs in one place"));
        }
        Ok(found)
    }
}

fn block(answer: &Value) -> Option<Block> {
    let number = quantity(answer.get("number")?)?;
    let time = quantity(answer.get("timestamp")?)?;
    let hash = hex32::parse(answer.get("hash")?.as_str()?)?;
    Some(Block { number, hash, time })
}

/// A log of a block that is in the chain, and whose it is.
fn read_log(log: &Value) -> Option<(Address, Log)> {
    if log.get("removed").and_then(Value::as_bool) == Some(true) {
        return None;
    }
    let text = |field: &str| log.get(field)?.as_str();
    let place = Place {
        transaction: hex32::parse(text("transactionHash")?)?,
        log: quantity(log.get("logIndex")?)?,
        block: quantity(log.get("blockNumber")?)?,
        block_hash: hex32::parse(text("blockHash")?)?,
    };
    let topics = log.get("topics")?.as_array()?.iter();
    let topics = topics.map(|topic| hex32::parse(topic.as_str()?)).collect::<Option<Vec<_>>>()?;
    // Nodes print addresses in any case; only a mixed one with a wrong checksum is refused.
    let address = text("address")?.to_ascii_lowercase().parse().ok()?;
    Some((address, Log { place, topics, data: bytes(log.get("data")?)? }))
}

fn by_hash(hash: &Hash) -> Value {
    json!({"blockHash": hex32::print(hash)})
}

fn hex_quantity(number: u64) -> String {
    format!("{number:#x}")
}

fn quantity(value: &Value) -> Option<u64> {
    let digits = value.as_str()?.strip_prefix("0x")?;
    // The parser also takes a sign.
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_hexdigit());
    if plain { u64::from_str_radix(digits, 16).ok() } else { None }
}

fn bytes(value: &Value) -> Option<Vec<u8>> {
    hex::decode(value.as_str()?.strip_prefix("0x")?).ok()
}

/// An address as a 32-byte word.
pub(crate) fn word(address: Address) -> Hash {
    let mut word = [0_u8; 32];
    let (_, low) = word.split_at_mut(12);
    low.copy_from_slice(address.as_bytes());
    word
}

/// A call of a contract: the selector of `signature` and the argument words.
pub(crate) fn call_bytes(signature: &str, words: &[Hash]) -> Vec<u8> {
    let hash = keccak256(signature.as_bytes());
    let (selector, _) = hash.split_at(4);
    let mut data = selector.to_vec();
    data.extend_from_slice(words.as_flattened());
    data
}

fn call_data(signature: &str, words: &[Hash]) -> String {
    format!("0x{}", hex::encode(call_bytes(signature, words)))
}
