//! One story on a real chain, from payment to reorganisation.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use countersign_chain::{
    Act, CONFIRM_SECONDS, Finality, Finding, Node, Pending, ReadError, Reader, Rpc, RpcError, Subject, Unused, Watch,
    cancel_calldata, cancellation,
};
use countersign_core::evm::{Address, Signature65, TransferWithAuthorization, address_of, hex32, keccak256};
use countersign_core::id::PaymentId;
use countersign_core::ledger::Fut;
use countersign_core::money::Atomic;
use countersign_core::seams::{Clock, ClockError};
use countersign_core::time::Timestamp;
use countersign_core::x402::{AssetTable, Authorization, Network, Offer, Protocol, Version};
use k256::ecdsa::SigningKey;
use serde_json::{Value, json};
use tokio_rustls::TlsConnector;

/// Key of development account 2, which has the tokens. Never give it anything of value.
const BUYER: &str = "0x5de4111afa1a4b94908f83103eb1f1706367c2e68ca870fc3fb9a804cdab365a";
const SELLER: &str = "0x90F79bf6EB2c4f870365E785982E1f101E93b906";
/// Sends transactions; the chain signs for it.
const DEPLOYER: &str = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266";
const USDC: &str = "0x036CbD53842c5426634e7929541eC2318f3dCF7e";
/// How deep a block must be here to be final.
const DEPTH: u64 = 4;

struct Patient;

impl Clock for Patient {
    fn now(&self) -> Result<Timestamp, ClockError> {
        Ok(Timestamp::default())
    }

    fn random(&self, _: &mut [u8]) -> Result<(), ClockError> {
        Ok(())
    }

    fn sleep(&self, _: u64) -> Fut<'_, ()> {
        Box::pin(std::future::pending())
    }
}

struct Anvil {
    process: Child,
    node: Arc<Rpc>,
}

impl Drop for Anvil {
    fn drop(&mut self) {
        let _already_gone = self.process.kill();
        let _status = self.process.wait();
    }
}

impl Anvil {
    /// None where the peers are not installed.
    fn start() -> Option<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/peers/v2/chain.mjs");
        if !script.with_file_name("node_modules").join(".package-lock.json").exists() {
            #[expect(clippy::disallowed_methods, reason = "in CI a missing prerequisite is a failure")]
            let required = std::env::var("CI").is_ok_and(|ci| ci == "true");
            assert!(!required, "the test peers are not installed: run `tests/install tests`");
            eprintln!("skipped: the test peers are not installed: run `tests/install tests`");
            return None;
        }
        let mut process = Command::new("node")
            .arg(script)
            .env("PORT", "0")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("node is not installed: run `tests/install tests`");
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("chain.mjs said {line:?}"));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let url = ready["url"].as_str().unwrap();
        let node = Arc::new(Rpc::new(url, TlsConnector::from(Arc::new(tls)), Arc::new(Patient)).unwrap());
        Some(Self { process, node })
    }

    async fn call(&self, method: &str, params: Value) -> Value {
        self.node.call(method, params).await.unwrap_or_else(|error| panic!("{method}: {error}"))
    }

    async fn head(&self) -> (u64, u64) {
        let block = self.call("eth_getBlockByNumber", json!(["latest", false])).await;
        (number(&block["number"]), number(&block["timestamp"]))
    }

    async fn mine(&self, blocks: u64) {
        self.call("anvil_mine", json!([format!("{blocks:#x}")])).await;
    }

    /// Mines one block at this moment of the chain's, and enough on top of it to make it final.
    async fn final_at(&self, time: u64) {
        self.call("evm_setNextBlockTimestamp", json!([time])).await;
        self.mine(1 + DEPTH).await;
    }

    /// Sends a call of the token in a block of its own; answers the transaction's hash.
    async fn send(&self, data: &[u8]) -> String {
        let data = format!("0x{}", hex::encode(data));
        let sent = json!([{"from": DEPLOYER, "to": USDC, "data": data, "gas": "0x30000"}]);
        let hash = self.call("eth_sendTransaction", sent).await;
        self.call("evm_mine", json!([])).await;
        let receipt = self.call("eth_getTransactionReceipt", json!([hash])).await;
        assert_eq!(receipt["status"], "0x1", "the token refused it");
        hash.as_str().unwrap().to_owned()
    }
}

fn number(value: &Value) -> u64 {
    u64::from_str_radix(value.as_str().unwrap().trim_start_matches("0x"), 16).unwrap()
}

fn network() -> Network {
    Network::new(84_532).unwrap()
}

fn authorization(nonce: u8, valid_before: u64) -> Authorization {
    let asset = AssetTable::builtin().get(network(), USDC.parse().unwrap()).unwrap().clone();
    let offer = Offer {
        protocol: Protocol::X402(Version::V2),
        index: 0,
        scheme: "exact".to_owned(),
        network: network(),
        network_name: network().to_string(),
        asset,
        amount: Atomic::new(2_500),
        pay_to: SELLER.parse().unwrap(),
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
    let payment = PaymentId::new(Timestamp::default(), [nonce; 10]);
    let from = address_of(key().verifying_key());
    Authorization { offer, payment, from, nonce: [nonce; 32], valid_after: 0, valid_before }
}

fn key() -> SigningKey {
    SigningKey::from_slice(&hex32::parse(BUYER).unwrap()).unwrap()
}

fn sign(digest: &[u8; 32]) -> Signature65 {
    let (signature, id) = key().sign_prehash_recoverable(digest);
    Signature65::from_ecdsa(&signature, id).unwrap()
}

fn word(address: Address) -> [u8; 32] {
    let mut word = [0; 32];
    word[12..].copy_from_slice(address.as_bytes());
    word
}

fn uint(n: u64) -> [u8; 32] {
    Atomic::new(u128::from(n)).to_be_bytes32()
}

/// `transferWithAuthorization(…, bytes signature)`.
fn redeem(authorization: &Authorization) -> Vec<u8> {
    let TransferWithAuthorization { from, to, value, valid_after, valid_before, nonce } = authorization.message();
    let name = "transferWithAuthorization(address,address,uint256,uint256,uint256,bytes32,bytes)";
    let mut data = keccak256(name.as_bytes())[..4].to_vec();
    for one in [word(from), word(to), value.to_be_bytes32(), uint(valid_after), uint(valid_before), nonce] {
        data.extend(one);
    }
    data.extend(uint(7 * 32));
    data.extend(uint(65));
    data.extend(sign(&authorization.digest()).as_bytes());
    data.extend([0; 31]);
    data
}

#[test]
fn a_real_chain() {
    let Some(anvil) = Anvil::start() else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
    runtime.block_on(story(&anvil));
}

async fn story(anvil: &Anvil) {
    let nodes = || -> Vec<Arc<dyn Node>> { vec![anvil.node.clone()] };
    let reader = || Reader::new(network(), Finality::Depth(DEPTH), nodes(), None).unwrap();
    let reading = reader();
    let (_, began) = anvil.head().await;
    let at = |seconds: u64| Timestamp::from_secs(began + seconds);
    let look = async |reader: &Reader, pay: &Authorization, hint: Option<&str>, watch: &mut Watch, seconds: u64| {
        let subject = Subject { authorization: pay, created: at(0), transaction: hint };
        reader.look(subject, watch, at(seconds)).await
    };
    // Blocks are made when the story says so, not some moment after a transaction.
    anvil.call("evm_setAutomine", json!([false])).await;
    anvil.mine(10).await;

    // Not redeemed, redeemed, final.
    let pay = authorization(1, began + 300);
    let mut watch = Watch::default();
    assert_eq!(look(&reading, &pay, None, &mut watch, 10).await, Finding::Pending(Pending::Redeemable));
    let transaction = anvil.send(&redeem(&pay)).await;
    let (block, _) = anvil.head().await;
    let seen = Finding::Pending(Pending::NotFinal { transaction: transaction.clone(), block });
    assert_eq!(look(&reading, &pay, None, &mut watch, 11).await, seen);
    assert_eq!(look(&reading, &pay, Some(&transaction), &mut watch, 12).await, seen);
    anvil.mine(DEPTH).await;
    let Finding::Redeemed { evidence, amount } = look(&reading, &pay, None, &mut watch, 20).await else {
        panic!("it is final")
    };
    assert_eq!((amount, evidence.transaction), (Atomic::new(2_500), Some(transaction.clone())));
    assert_eq!(evidence.block, Some(block));

    // In a block that is undone: gone, included again, final.
    let moved = authorization(2, began + 3_000);
    let mut watch = Watch::default();
    let snapshot = anvil.call("evm_snapshot", json!([])).await;
    let first = anvil.send(&redeem(&moved)).await;
    let before = look(&reading, &moved, Some(&first), &mut watch, 30).await;
    assert!(matches!(before, Finding::Pending(Pending::NotFinal { .. })), "{before:?}");
    anvil.call("evm_revert", json!([snapshot])).await;
    let (_, now) = anvil.head().await;
    anvil.call("evm_setNextBlockTimestamp", json!([now + 7])).await;
    anvil.mine(2).await;
    assert_eq!(look(&reading, &moved, None, &mut watch, 40).await, Finding::Gone { transaction: first });
    assert_eq!(look(&reading, &moved, None, &mut watch, 40).await, Finding::Pending(Pending::Redeemable));
    let second = anvil.send(&redeem(&moved)).await;
    anvil.mine(DEPTH).await;
    match look(&reading, &moved, None, &mut watch, 50).await {
        Finding::Redeemed { evidence, .. } => assert_eq!(evidence.transaction, Some(second)),
        other => panic!("{other:?}"),
    }

    // Cancelled by the calldata we make; two readings.
    let stopped = authorization(3, began + 100_000);
    let mut watch = Watch::default();
    let cancel = cancel_calldata(&stopped, &sign(&cancellation(&stopped).1)).unwrap();
    let cancelled = anvil.send(&cancel).await;
    let cancelling = look(&reading, &stopped, None, &mut watch, 60).await;
    assert!(matches!(&cancelling, Finding::Pending(Pending::Cancelling { .. })), "{cancelling:?}");
    anvil.mine(DEPTH).await;
    let first = look(&reading, &stopped, None, &mut watch, 70).await;
    assert!(matches!(first, Finding::Pending(Pending::Confirming { .. })), "{first:?}");

    // Never redeemed: not before a final block of the chain is past its end, and said twice.
    let idle = authorization(4, began + 3_000);
    let mut unused = Watch::default();
    anvil.final_at(began + 2_990).await;
    let open = look(&reading, &idle, None, &mut unused, 9_000).await;
    assert_eq!(open, Finding::Pending(Pending::Redeemable));
    anvil.final_at(began + 3_000).await;
    let first = look(&reading, &idle, None, &mut unused, 9_000).await;
    assert!(matches!(first, Finding::Pending(Pending::Confirming { .. })), "{first:?}");
    let refused = anvil
        .node
        .call("eth_call", json!([{"to": USDC, "data": format!("0x{}", hex::encode(redeem(&idle)))}, "latest"]));
    assert!(matches!(refused.await, Err(RpcError::Refused { message, .. }) if message.contains("expired")));
    anvil.final_at(began + 3_100 + CONFIRM_SECONDS).await;
    match look(&reading, &idle, None, &mut unused, 9_000 + CONFIRM_SECONDS).await {
        Finding::Unused { evidence, how: Unused::Expired } => assert!(evidence.block_time >= Some(idle.valid_before)),
        other => panic!("{other:?}"),
    }
    match look(&reading, &stopped, None, &mut watch, 9_000 + CONFIRM_SECONDS).await {
        Finding::Unused { evidence, how: Unused::Cancelled } => assert_eq!(evidence.transaction, Some(cancelled)),
        other => panic!("{other:?}"),
    }

    // All of it again, as a scan; and the node's own word on finality and on blocks it does not have.
    let anchor = reading.anchor().await.unwrap();
    let payers = [pay.from].into();
    let scan = reading.scan(&anchor, USDC.parse().unwrap(), &payers, (0, anchor.block().number)).await.unwrap();
    let told: Vec<_> = scan
        .acts
        .iter()
        .map(|act| match act {
            Act::Redeemed(r) => (r.nonce[0], r.transfer.as_ref().unwrap().value),
            Act::Cancelled { nonce, .. } => (nonce[0], None),
            Act::Other(_) => (0, None),
        })
        .collect();
    assert_eq!(told, [(1, Some(Atomic::new(2_500))), (2, Some(Atomic::new(2_500))), (3, None)]);
    // What was minted at the start.
    assert_eq!(scan.incoming.len(), 1);
    let tagged = Reader::new(network(), Finality::Tag, nodes(), None).unwrap();
    assert!(tagged.anchor().await.unwrap().block().number <= anvil.head().await.0);

    // Deeper than finality: no word from then on.
    anvil.call("anvil_reorg", json!([DEPTH + 2, []])).await;
    let broken = reading.anchor().await;
    assert!(matches!(broken, Err(ReadError::Disagree(_) | ReadError::Behind { .. })), "{broken:?}");
}
