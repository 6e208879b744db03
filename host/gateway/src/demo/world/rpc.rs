//! The chain's JSON-RPC, spoken as Ethereum nodes speak it: as much of it as a reader of payments
//! needs. Nothing can be sent through it; transactions come from the facilitator.

use std::sync::Arc;

use countersign_core::evm::{Address, hex32, keccak256};
use http::StatusCode;
use serde_json::{Value, json};

use super::chain::{Block, Chain, Hash, Log, padded, word};
use super::server::{Answer, Call, Service, json as answer};

/// Most blocks one `eth_getLogs` may span, as public nodes limit it.
const LOG_RANGE: u64 = 10_000;
/// Most calls in one batch.
const BATCH: usize = 100;
/// The token has code; which code does not matter to anybody who asks.
const TOKEN_CODE: &str = "0x6080604052348015600e575f5ffd5b50";

/// Answers JSON-RPC over HTTP.
pub(super) struct Rpc {
    chain: Chain,
}

/// A JSON-RPC error: its code and message.
struct Fault(i64, String);

impl Fault {
    fn params(what: &str) -> Self {
        Self(-32602, format!("invalid params: {what}"))
    }
}

impl Service for Rpc {
    async fn answer(&self, call: Call) -> Answer {
        let body = match serde_json::from_slice(&call.body) {
            Err(_) => reply(&Value::Null, Err(Fault(-32700, "parse error".to_owned()))),
            Ok(Value::Array(calls)) if calls.is_empty() || calls.len() > BATCH => {
                reply(&Value::Null, Err(Fault(-32600, "invalid batch size".to_owned())))
            }
            Ok(Value::Array(calls)) => calls.iter().map(|one| self.one(one)).collect(),
            Ok(one) => self.one(&one),
        };
        Ok(answer(StatusCode::OK, &body))
    }
}

fn reply(id: &Value, outcome: Result<Value, Fault>) -> Value {
    match outcome {
        Ok(result) => json!({"jsonrpc": "2.0", "id": id, "result": result}),
        Err(Fault(3, message)) => {
            json!({"jsonrpc": "2.0", "id": id, "error": {"code": 3, "message": message, "data": "0x"}})
        }
        Err(Fault(code, message)) => {
            json!({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": message}})
        }
    }
}

impl Rpc {
    pub(super) fn new(chain: Chain) -> Self {
        Self { chain }
    }

    fn one(&self, call: &Value) -> Value {
        let id = call.get("id").unwrap_or(&Value::Null);
        let outcome = match call.get("method").and_then(Value::as_str) {
            Some(method) => self.call(method, call.get("params").unwrap_or(&Value::Null)),
            None => Err(Fault(-32600, "invalid request".to_owned())),
        };
        reply(id, outcome)
    }

    fn call(&self, method: &str, params: &Value) -> Result<Value, Fault> {
        let at = |index: usize| params.get(index).unwrap_or(&Value::Null);
        match method {
            "eth_chainId" => Ok(quantity(self.chain.token().chain_id)),
            "net_version" => Ok(json!(self.chain.token().chain_id.to_string())),
            "eth_blockNumber" => Ok(quantity(self.chain.head().number)),
            "eth_getBlockByNumber" => Ok(self.block(at(0))?.map_or(Value::Null, |block| self.print_block(&block))),
            "eth_getBlockByHash" => {
                let hash = hash(at(0)).ok_or_else(|| Fault::params("expected a block hash"))?;
                let block = self.chain.block_with(&hash).filter(|block| block.hash == hash);
                Ok(block.map_or(Value::Null, |block| self.print_block(&block)))
            }
            "eth_getTransactionReceipt" => {
                let hash = hash(at(0)).ok_or_else(|| Fault::params("expected a transaction hash"))?;
                let block = self.chain.block_with(&hash).filter(|block| block.hash != hash);
                Ok(block.map_or(Value::Null, |block| self.print_receipt(&block, &hash)))
            }
            "eth_getCode" => {
                let token = address(at(0))? == self.chain.token().verifying_contract;
                self.existing(at(1))?;
                Ok(json!(if token { TOKEN_CODE } else { "0x" }))
            }
            "eth_call" => {
                let data = self.eth_call(at(0), at(1))?;
                Ok(json!(format!("0x{}", hex::encode(data))))
            }
            "eth_getLogs" => self.logs(at(0)),
            _ => Err(Fault(-32601, format!("the method {method} does not exist/is not available"))),
        }
    }

    /// The block a tag, number or `{blockHash|blockNumber}` means; absent means the latest.
    fn block(&self, which: &Value) -> Result<Option<Arc<Block>>, Fault> {
        if let Some(inner) = which.get("blockHash") {
            let hash = hash(inner).ok_or_else(|| Fault::params("expected a block hash"))?;
            return Ok(self.chain.block_with(&hash).filter(|block| block.hash == hash));
        }
        let which = which.get("blockNumber").unwrap_or(which);
        Ok(match which {
            Value::Null => Some(self.chain.head()),
            Value::String(tag) => match tag.as_str() {
                "latest" | "pending" => Some(self.chain.head()),
                "finalized" | "safe" => Some(self.chain.finalized()),
                "earliest" => self.chain.block(0),
                number => {
                    let digits = number.strip_prefix("0x").ok_or_else(|| Fault::params("expected a block"))?;
                    let height = u64::from_str_radix(digits, 16).map_err(|_| Fault::params("expected a block"))?;
                    self.chain.block(height)
                }
            },
            _ => return Err(Fault::params("expected a block")),
        })
    }

    fn existing(&self, which: &Value) -> Result<Arc<Block>, Fault> {
        self.block(which)?.ok_or_else(|| Fault(-32000, "header not found".to_owned()))
    }

    fn eth_call(&self, call: &Value, which: &Value) -> Result<Vec<u8>, Fault> {
        let height = self.existing(which)?.number;
        let token = self.chain.token();
        if address(call.get("to").unwrap_or(&Value::Null))? != token.verifying_contract {
            return Ok(Vec::new()); // no code there: a call that succeeds and returns nothing
        }
        let input = call.get("input").or_else(|| call.get("data")).and_then(Value::as_str).unwrap_or("0x");
        let input =
            hex::decode(input.strip_prefix("0x").unwrap_or(input)).map_err(|_| Fault::params("expected hex"))?;
        let reverted = || Fault(3, "execution reverted".to_owned());
        let (selector, arguments) = input.split_first_chunk::<4>().ok_or_else(reverted)?;
        let (words, _) = arguments.as_chunks::<32>();
        let is = |signature: &str| keccak256(signature.as_bytes()).starts_with(selector);
        if is("balanceOf(address)") {
            let owner = words.first().and_then(unpadded).ok_or_else(reverted)?;
            Ok(word(self.chain.balance_at(owner, height)).to_vec())
        } else if is("authorizationState(address,bytes32)") {
            let (Some(owner), Some(nonce)) = (words.first().and_then(unpadded), words.get(1)) else {
                return Err(reverted());
            };
            let spent = self.chain.authorization_state_at(owner, nonce, height);
            Ok(word(u128::from(spent)).to_vec())
        } else if is("name()") || is("symbol()") {
            Ok(string(&token.name))
        } else if is("version()") {
            Ok(string(&token.version))
        } else if is("decimals()") {
            Ok(word(6).to_vec())
        } else if is("DOMAIN_SEPARATOR()") {
            Ok(token.separator().to_vec())
        } else {
            Err(reverted())
        }
    }

    fn logs(&self, filter: &Value) -> Result<Value, Fault> {
        let field = |name: &str| filter.get(name).unwrap_or(&Value::Null);
        let (first, last) = if filter.get("blockHash").is_some() {
            let block = self.block(filter)?.ok_or_else(|| Fault(-32000, "unknown block".to_owned()))?;
            (block.number, block.number)
        } else {
            let head = self.chain.head().number;
            // A range may begin or end above the head; nothing is there.
            let height = |which: &Value| Ok(self.block(which)?.map_or(head.saturating_add(1), |block| block.number));
            (height(field("fromBlock"))?, height(field("toBlock"))?)
        };
        if first > last {
            return Err(Fault(-32000, "invalid block range params".to_owned()));
        }
        if last.saturating_sub(first) > LOG_RANGE {
            return Err(Fault(-32005, format!("query exceeds max block range {LOG_RANGE}")));
        }
        let token = self.chain.token().verifying_contract;
        let ours = match field("address") {
            Value::Null => true,
            Value::Array(any) => any.iter().map(address).collect::<Result<Vec<_>, _>>()?.contains(&token),
            one => address(one)? == token,
        };
        let wanted = topics(field("topics"))?;
        let blocks = (first..=last).map_while(|height| self.chain.block(height));
        let found = blocks.filter(|_| ours).flat_map(|block| {
            let matching = |log: &Log| matches(log, &wanted);
            self.print_logs(&block, matching)
        });
        Ok(found.collect())
    }

    fn print_block(&self, block: &Block) -> Value {
        let transactions: Vec<_> = block.transaction.iter().map(|one| hex32::print(&one.hash)).collect();
        let empty = hex32::print(&[0; 32]);
        json!({
            "number": quantity(block.number),
            "hash": hex32::print(&block.hash),
            "parentHash": hex32::print(&block.parent),
            "timestamp": quantity(block.timestamp),
            "transactions": transactions,
            "logsBloom": bloom(),
            "nonce": "0x0000000000000000",
            "sha3Uncles": empty, "transactionsRoot": empty, "stateRoot": empty, "receiptsRoot": empty,
            "mixHash": empty, "miner": Address::new([0; 20]), "difficulty": "0x0", "extraData": "0x",
            "size": "0x220", "gasLimit": "0x1c9c380", "gasUsed": "0x0", "baseFeePerGas": "0x1", "uncles": [],
        })
    }

    fn print_receipt(&self, block: &Block, hash: &Hash) -> Value {
        json!({
            "transactionHash": hex32::print(hash),
            "transactionIndex": "0x0",
            "blockHash": hex32::print(&block.hash),
            "blockNumber": quantity(block.number),
            "from": super::RELAYER.to_lowercase(),
            "to": self.chain.token().verifying_contract.to_string().to_lowercase(),
            "contractAddress": null,
            "status": "0x1",
            "type": "0x2",
            "gasUsed": "0x14c08", "cumulativeGasUsed": "0x14c08", "effectiveGasPrice": "0x1",
            "logsBloom": bloom(),
            "logs": self.print_logs(block, |_| true),
        })
    }

    /// The logs of a block that satisfy `wanted`, with their places in the block.
    fn print_logs(&self, block: &Block, wanted: impl Fn(&Log) -> bool) -> Vec<Value> {
        let Some(transaction) = &block.transaction else {
            return Vec::new();
        };
        let token = self.chain.token().verifying_contract.to_string().to_lowercase();
        let numbered = (0_u64..).zip(&transaction.logs).filter(|(_, log)| wanted(log));
        let print = |(index, log): (u64, &Log)| {
            json!({
                "address": token,
                "topics": log.topics.iter().map(hex32::print).collect::<Vec<_>>(),
                "data": format!("0x{}", hex::encode(&log.data)),
                "blockNumber": quantity(block.number),
                "blockHash": hex32::print(&block.hash),
                "transactionHash": hex32::print(&transaction.hash),
                "transactionIndex": "0x0",
                "logIndex": quantity(index),
                "removed": false,
            })
        };
        numbered.map(print).collect()
    }
}

/// For each position the topics that satisfy it; none at all means any.
fn topics(filter: &Value) -> Result<Vec<Vec<Hash>>, Fault> {
    let one = |value: &Value| hash(value).ok_or_else(|| Fault::params("expected a topic"));
    let position = |value: &Value| match value {
        Value::Null => Ok(Vec::new()),
        Value::Array(any) => any.iter().map(one).collect(),
        value => Ok(vec![one(value)?]),
    };
    match filter {
        Value::Null => Ok(Vec::new()),
        Value::Array(positions) => positions.iter().map(position).collect(),
        _ => Err(Fault::params("expected topics")),
    }
}

fn matches(log: &Log, wanted: &[Vec<Hash>]) -> bool {
    let mut positions = wanted.iter().enumerate();
    positions.all(|(index, any)| log.topics.get(index).is_some_and(|topic| any.is_empty() || any.contains(topic)))
}

fn quantity(number: u64) -> Value {
    json!(format!("{number:#x}"))
}

fn hash(value: &Value) -> Option<Hash> {
    hex32::parse(value.as_str()?)
}

fn address(value: &Value) -> Result<Address, Fault> {
    let text = value.as_str().unwrap_or_default().to_lowercase();
    text.parse().map_err(|_| Fault::params("expected an address"))
}

/// The address in an ABI word.
fn unpadded(word: &Hash) -> Option<Address> {
    let low = word.last_chunk::<20>()?;
    let address = Address::new(*low);
    (padded(address) == *word).then_some(address)
}

/// A string as the only return value.
fn string(text: &str) -> Vec<u8> {
    let length = text.len();
    let mut out = [word(32), word(u128::try_from(length).unwrap_or(0))].concat();
    out.extend(text.as_bytes());
    out.resize(length.div_ceil(32).saturating_mul(32).saturating_add(64), 0);
    out
}

/// "May contain anything": true of every block, so that no reader skips one.
fn bloom() -> String {
    format!("0x{}", "f".repeat(512))
}
