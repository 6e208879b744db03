//! Real software of others to pay: a local chain, the official facilitator, the official v2 and v1 sellers.

use crate::{chain::Chain, facilitator::Facilitator, tail};
use serde_json::Value;
use std::{
    fs::File,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{OnceLock, mpsc},
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// How long all peers together may take to start; the first time, the test token is compiled.
const START: Duration = Duration::from_secs(120);

/// An account of the public development mnemonic. Never give its key anything of value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Account {
    /// Address with checksum.
    pub address: &'static str,
    /// Private key, 0x and 64 digits.
    pub key: &'static str,
}

/// Development account 2: has 1,000,000 USDC and 1,000,000 USD18 at first.
pub const BUYER: Account = Account {
    address: "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC",
    key: "0x5de4111afa1a4b94908f83103eb1f1706367c2e68ca870fc3fb9a804cdab365a",
};
/// Development account 3: what all sellers name as `payTo`.
pub const SELLER: Account = Account {
    address: "0x90F79bf6EB2c4f870365E785982E1f101E93b906",
    key: "0x7c852118294e51e653712a81e05800f419141751be58f605c371e15141b007a6",
};
/// Development account 5: a buyer without tokens.
pub const BROKE: Account = Account {
    address: "0x9965507D1a55bcC2695C58ba16FB37d819B0A4dc",
    key: "0x8b3a350cf5c34c9194ca85829a2df0ec3153be0318b5e2d3348e872092edffba",
};
/// The test USDC (6 decimals, EIP-712 `USDC`/`2`), where Base Sepolia has the real one.
pub const USDC: &str = "0x036CbD53842c5426634e7929541eC2318f3dCF7e";
/// A token with 18 decimals (EIP-712 `Dollar18`/`1`).
pub const USD18: &str = "0x1800000000000000000000000000000000000018";
/// Base Sepolia's chain id, which the local chain has.
pub const CHAIN_ID: u64 = 84_532;
/// The chain's CAIP-2 name.
pub const NETWORK: &str = "eip155:84532";

/// One set of running peers. Dropping it ends them; they also end by themselves when this process does.
#[derive(Debug)]
pub struct Peers {
    /// JSON-RPC URL of the chain.
    pub rpc: String,
    /// Base URL of the facilitator.
    pub facilitator: String,
    /// Base URL of the x402 v2 seller (`http://127.0.0.1:PORT`); its routes are in `tests/peers/README.md`.
    pub v2: String,
    /// Base URL of the x402 v1 seller.
    pub v1: String,
    running: Vec<Running>,
    logs: TempDir,
}

/// A seller of a test's own. Dropping it ends it.
#[derive(Debug)]
pub struct Seller {
    /// Its base URL.
    pub url: String,
    _running: Running,
}

/// A peer's process. Its standard input stays open as long as we want it to live.
#[derive(Debug)]
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _already_gone = self.0.kill();
        let _status = self.0.wait();
    }
}

impl Peers {
    /// Starts a set on free ports of 127.0.0.1 and returns when all of it answers. Panics when something is not
    /// installed or does not come up within two minutes.
    pub fn start() -> Self {
        let logs = tempfile::tempdir().unwrap();
        let deadline = Instant::now() + START;
        let mut running = Vec::new();
        let mut begin = |script: &str, env: &[(&str, &str)]| {
            let (process, line) = launch(script, env, logs.path());
            running.push(process);
            line
        };
        let finish = |script: &str, line: mpsc::Receiver<String>| url(script, &line, deadline, logs.path());

        let rpc = finish("v2/chain.mjs", begin("v2/chain.mjs", &[]));
        let facilitator = finish("v2/facilitator.mjs", begin("v2/facilitator.mjs", &[("RPC_URL", &rpc)]));
        let env = [("FACILITATOR_URL", facilitator.as_str())];
        let (v2, v1) = (begin("v2/seller.mjs", &env), begin("v1/seller.mjs", &env));
        let (v2, v1) = (finish("v2/seller.mjs", v2), finish("v1/seller.mjs", v1));
        Self { rpc, facilitator, v2, v1, running, logs }
    }

    /// One set for the whole test binary, started at the first call. Tests that set faults, move the chain's clock or
    /// count what happened need a set of their own.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Peers> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    /// The chain.
    pub fn chain(&self) -> Chain {
        Chain::new(&self.rpc)
    }

    /// The facilitator's test controls.
    pub fn facilitator(&self) -> Facilitator {
        Facilitator::new(&self.facilitator)
    }

    /// What the seller holds of the test USDC, in atomic units (10^-6).
    pub fn seller_balance(&self) -> u128 {
        self.chain().balance_of(USDC, SELLER.address)
    }

    /// What the buyer holds of the test USDC, in atomic units (10^-6).
    pub fn buyer_balance(&self) -> u128 {
        self.chain().balance_of(USDC, BUYER.address)
    }

    /// Starts another v2 seller (the routes are those of [`Peers::v2`]), which asks the facilitator at this URL and waits so long for each of its answers.
    pub fn seller(&self, facilitator: &str, patience: Duration) -> Seller {
        let (script, patience) = ("v2/seller.mjs", patience.as_millis().to_string());
        let env = [("FACILITATOR_URL", facilitator), ("FACILITATOR_TIMEOUT_MS", patience.as_str())];
        let (running, line) = launch(script, &env, self.logs.path());
        Seller { url: url(script, &line, Instant::now() + START, self.logs.path()), _running: running }
    }

    /// Starts an MPP seller, which settles through the facilitator; its routes are in `tests/peers/README.md`.
    pub fn mpp(&self) -> Seller {
        let script = "mpp/seller.mjs";
        let (running, line) = launch(script, &[("FACILITATOR_URL", &self.facilitator)], self.logs.path());
        Seller { url: url(script, &line, Instant::now() + START, self.logs.path()), _running: running }
    }

    /// Pays a URL `n` times, `concurrency` at a time, with the official client and the buyer's key, no limits set.
    /// Returns `{"n","concurrency","seconds","per_second","p50_ms","p99_ms","errors"}` and, if any, `first_error`.
    pub fn official_client(&self, url: &str, n: u32, concurrency: u32) -> Value {
        let log = self.logs.path().join("bench-client.log");
        let output = node("v2/bench-client.mjs")
            .args([url, &n.to_string(), &concurrency.to_string()])
            .stdin(Stdio::null())
            .stderr(File::create(&log).unwrap())
            .output()
            .unwrap();
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|e| panic!("bench-client.mjs ({e}, {}): {}", output.status, tail(&log)))
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        // Sellers before the facilitator before the chain: nobody complains about a peer that left.
        while self.running.pop().is_some() {}
    }
}

/// `host:port` of a base URL.
pub fn authority(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split_once('/').map_or(rest, |(authority, _)| authority)
}

/// A command that runs a script of `tests/peers`; panics when its packages are not installed.
fn node(script: &str) -> Command {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers").join(script);
    let installed = path.with_file_name("node_modules").join(".package-lock.json");
    assert!(
        installed.exists(),
        "the test peers are not installed: run `make test`, or `npm ci` in tests/peers/v1, v2 and mpp"
    );
    let mut command = Command::new("node");
    command.arg(path).env("NO_PROXY", "127.0.0.1,localhost");
    command
}

fn log_file(script: &str, logs: &Path) -> PathBuf {
    logs.join(script.replace('/', "-")).with_extension("log")
}

/// Starts a peer; its first line on standard output will come through the channel.
fn launch(script: &str, env: &[(&str, &str)], logs: &Path) -> (Running, mpsc::Receiver<String>) {
    let mut child = node(script)
        .envs(env.iter().copied())
        .env("PORT", "0")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(File::create(log_file(script, logs)).unwrap())
        .spawn()
        .expect("node is not installed: run `make test`");
    let output = BufReader::new(child.stdout.take().unwrap());
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for line in output.lines().map_while(Result::ok) {
            let _nobody_waits_any_more = sender.send(line);
        }
    });
    (Running(child), receiver)
}

/// Waits for a peer's readiness line and returns the URL in it.
fn url(script: &str, line: &mpsc::Receiver<String>, deadline: Instant, logs: &Path) -> String {
    let left = deadline.saturating_duration_since(Instant::now());
    let line = line
        .recv_timeout(left)
        .unwrap_or_else(|e| panic!("tests/peers/{script} is not ready ({e}): {}", tail(&log_file(script, logs))));
    let said: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("tests/peers/{script} said {line:?}: {e}"));
    said.get("url").and_then(Value::as_str).unwrap_or_else(|| panic!("tests/peers/{script} said {line:?}")).to_owned()
}
