//! The local chain, over JSON-RPC.

use crate::http;
use serde_json::{Value, json};
use std::sync::{Mutex, PoisonError};

/// Topic of `Transfer(address,address,uint256)`.
const TRANSFER: &str = "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef";
/// The development account that sends the harness's own transactions; the chain signs for it.
const DEPLOYER: &str = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266";

/// The chain numbers the deployer's transactions, and not for two callers at once.
static TURN: Mutex<()> = Mutex::new(());

/// A chain behind a JSON-RPC address. Every method panics when the call fails.
#[derive(Debug, Clone)]
pub struct Chain {
    rpc: String,
}

/// One `Transfer` log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transfer {
    /// Payer, lower-case hex; the zero address when minted.
    pub from: String,
    /// Payee, lower-case hex.
    pub to: String,
    /// Atomic units.
    pub value: u128,
    /// Transaction hash.
    pub transaction: String,
}

impl Chain {
    /// The chain at an RPC URL.
    pub fn new(rpc: &str) -> Self {
        Self { rpc: rpc.to_owned() }
    }

    /// Any JSON-RPC call; returns `result`.
    #[track_caller]
    pub fn call(&self, method: &str, params: Value) -> Value {
        let request = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        let mut answer = http::post(&self.rpc, &request).send().json();
        match answer.get_mut("result") {
            Some(result) => result.take(),
            None => panic!("{method}: {answer}"),
        }
    }

    /// What `address` holds of `token`, in atomic units.
    pub fn balance_of(&self, token: &str, address: &str) -> u128 {
        number(&self.read(token, &format!("0x70a08231{}", word(address))))
    }

    /// Whether an EIP-3009 nonce (0x and 64 digits) of `authorizer` was used or cancelled.
    pub fn authorization_state(&self, token: &str, authorizer: &str, nonce: &str) -> bool {
        number(&self.read(token, &format!("0xe94a0102{}{}", word(authorizer), word(nonce)))) != 0
    }

    /// Number of the newest block.
    pub fn block_number(&self) -> u64 {
        u64::try_from(number(&self.call("eth_blockNumber", json!([])))).unwrap()
    }

    /// Time of the newest block, Unix seconds.
    pub fn timestamp(&self) -> u64 {
        let block = self.call("eth_getBlockByNumber", json!(["latest", false]));
        u64::try_from(number(block.get("timestamp").unwrap())).unwrap()
    }

    /// Every transfer of `token` since the chain began, oldest first.
    pub fn transfers(&self, token: &str) -> Vec<Transfer> {
        let filter = json!([{"fromBlock": "0x0", "toBlock": "latest", "address": token, "topics": [TRANSFER]}]);
        let logs = self.call("eth_getLogs", filter);
        let topic = |log: &Value, at: &str| {
            let text = log.pointer(at).and_then(Value::as_str).unwrap().to_owned();
            format!("0x{}", text.get(26..).unwrap())
        };
        let transfer = |log: &Value| Transfer {
            from: topic(log, "/topics/1"),
            to: topic(log, "/topics/2"),
            value: number(log.get("data").unwrap()),
            transaction: log.get("transactionHash").and_then(Value::as_str).unwrap().to_owned(),
        };
        logs.as_array().unwrap().iter().map(transfer).collect()
    }

    /// Calls a contract from an account that no gateway of a test pays from; returns once it is mined.
    pub fn send(&self, to: &str, data: &str) {
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let hash = self.call("eth_sendTransaction", json!([{"from": DEPLOYER, "to": to, "data": data}]));
        let mined = || (!self.call("eth_getTransactionReceipt", json!([hash])).is_null()).then_some(());
        crate::wait_for(std::time::Duration::from_secs(10), mined).expect("not mined");
    }

    /// Gives `address` more of `token`, in atomic units; the test tokens let anybody do so.
    pub fn mint(&self, token: &str, address: &str, value: u128) {
        self.send(token, &format!("0x40c10f19{}{value:064x}", word(address)));
    }

    /// Mines that many blocks.
    pub fn mine(&self, blocks: u64) {
        self.call("anvil_mine", json!([format!("{blocks:#x}")]));
    }

    /// Moves the chain's clock on and mines a block with the new time. Payments made afterwards by the wall clock
    /// may already be expired for the chain: use a set of peers of the test's own.
    pub fn increase_time(&self, seconds: u64) {
        self.call("evm_increaseTime", json!([seconds]));
        self.mine(1);
    }

    /// Whether transactions are mined as they come (the default) or wait for [`Chain::mine`].
    pub fn set_automine(&self, on: bool) {
        self.call("evm_setAutomine", json!([on]));
    }

    /// `eth_call` at the newest block.
    fn read(&self, to: &str, data: &str) -> Value {
        self.call("eth_call", json!([{"to": to, "data": data}, "latest"]))
    }
}

/// A hex number up to `u128`.
#[track_caller]
fn number(value: &Value) -> u128 {
    let digits =
        value.as_str().and_then(|text| text.strip_prefix("0x")).unwrap_or_else(|| panic!("no number: {value}"));
    u128::from_str_radix(digits, 16).unwrap_or_else(|e| panic!("{value}: {e}"))
}

/// An address or a 32-byte value as one ABI word, without 0x.
fn word(hex: &str) -> String {
    format!("{:0>64}", hex.trim_start_matches("0x").to_lowercase())
}
