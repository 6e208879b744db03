//! PyPI's `hostile-facilitator`: a facilitator that settles and then says nothing, an error, another 402 or too late, and
//! whose answer to "did it land?" is none. It runs one purchase in each of its ten modes and counts the payments.
//!
//! It only claims to settle. Here its claims are made true: the official facilitator redeems each authorization first.
//! Its answers to "did it land?" are what the gateway's two chain nodes answer about that authorization.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test: whatever is not as expected must fail it loudly"
)]
#![expect(clippy::disallowed_methods, reason = "a test: it measures how long real processes make their callers wait")]

use countersign_tests::{
    http::{self, Response},
    peers::{BUYER, NETWORK, Peers, Seller, USDC, authority},
    refusal::refusal,
    stub::Stub,
    till::{Till, bought, header, items, plain, text},
    wait_for,
};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, Instant},
};

/// In the order in which the battery runs them.
const MODES: [&str; 10] = [
    "clean",
    "accept_then_timeout",
    "5xx_after_settle",
    "double_402",
    "slow_answer",
    "reconcile_unavailable",
    "reconcile_soft_404",
    "reconcile_oversized",
    "reconcile_truncated",
    "declared_safe",
];
/// How long the facilitator takes its client to wait, in seconds: it is slow by 0.3 less and silent for 1 more.
const CLIENT_TIMEOUT: &str = "3";
/// How long its client, the seller, waits: between the two.
const SELLER_WAITS: Duration = Duration::from_millis(3_500);
/// How long nobody may wait for the gateway's answer, whatever the facilitator does.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long the battery may take to its next order or to its end.
const NEXT: Duration = Duration::from_secs(60);
/// What is signed for `/slow` is over after ten seconds.
const EXPIRY: Duration = Duration::from_secs(11);

/// What stands between the seller, the gateway, the facilitator of the mode, and the chain.
#[derive(Default)]
struct Between {
    /// `host:port` of the facilitator of the mode.
    facilitator: String,
    /// Everything that it was asked to settle.
    nonces: Vec<String>,
    /// How often a node was asked what became of one of them.
    asked: usize,
    /// Answer that as the chain would.
    honest: bool,
}

/// Everything that outlives one purchase.
struct Stage {
    peers: Peers,
    between: Arc<Mutex<Between>>,
    /// Settles, then answers as the facilitator of the mode does.
    facilitator: Stub,
    /// Knows what the chain knows, but answers as the facilitator of the mode does.
    node: Stub,
    seller: OnceLock<Seller>,
}

impl Stage {
    /// One battery at a time.
    fn take() -> MutexGuard<'static, Self> {
        static STAGE: OnceLock<Mutex<Stage>> = OnceLock::new();
        STAGE.get_or_init(|| Mutex::new(Self::set())).lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set() -> Self {
        let peers = Peers::start();
        let between = Arc::new(Mutex::new(Between::default()));
        let facilitator = facilitator(&peers.facilitator, &between);
        let node = node(&peers.rpc, &between);
        Self { peers, between, facilitator, node, seller: OnceLock::new() }
    }

    /// The seller's URL. He asks his facilitator what it supports when he starts, so there must be one.
    fn seller(&self) -> &str {
        let start = || self.peers.seller(&format!("http://{}", self.facilitator.authority), SELLER_WAITS);
        &self.seller.get_or_init(start).url
    }

    fn between(&self) -> MutexGuard<'_, Between> {
        self.between.lock().unwrap()
    }

    /// The node under two names, so that what both say about an authorization is believed at once.
    fn nodes(&self) -> Vec<String> {
        let (_, port) = self.node.authority.split_once(':').unwrap();
        ["127.0.0.1", "localhost"].map(|host| format!("http://{host}:{port}")).to_vec()
    }
}

/// In front of the facilitator of the mode.
fn facilitator(official: &str, between: &Arc<Mutex<Between>>) -> Stub {
    let (settle, between) = (format!("{official}/settle"), Arc::clone(between));
    Stub::answering_at_once(move |request| {
        if request.is_empty() {
            return String::new();
        }
        let hostile = between.lock().unwrap().facilitator.clone();
        if request.starts_with("POST /settle ") {
            let (_, body) = request.split_once("\r\n\r\n").unwrap_or_default();
            let body: Value = serde_json::from_str(body).unwrap_or_default();
            let nonce = text(&body, "/paymentPayload/payload/authorization/nonce").to_lowercase();
            between.lock().unwrap().nonces.push(nonce);
            // The second time the chain refuses it, and all is as it was.
            let _settled = http::post(&settle, &body).try_send();
        }
        String::from_utf8_lossy(&http::raw(&hostile, request.as_bytes())).into_owned()
    })
}

/// In front of the chain.
fn node(rpc: &str, between: &Arc<Mutex<Between>>) -> Stub {
    let (rpc, between) = (rpc.to_owned(), Arc::clone(between));
    Stub::answering_at_once(move |request| {
        let (_, call) = request.split_once("\r\n\r\n").unwrap_or_default();
        let call: Value = serde_json::from_str(call).unwrap_or_default();
        let truth = http::post(&rpc, &call).try_send().map(|answer| answer.text()).unwrap_or_default();
        let about = request.to_lowercase();
        let (hostile, nonce) = {
            let mut between = between.lock().unwrap();
            let nonce = between.nonces.iter().find(|nonce| about.contains(nonce.trim_start_matches("0x"))).cloned();
            between.asked += usize::from(nonce.is_some());
            let nonce = nonce.filter(|_| !between.honest);
            (between.facilitator.clone(), nonce)
        };
        let Some(nonce) = nonce else { return answer(&truth, truth.len()) };
        let question = format!("GET /reconcile?nonce={nonce} HTTP/1.1\r\nHost: {hostile}\r\nConnection: close\r\n\r\n");
        as_told(&String::from_utf8_lossy(&http::raw(&hostile, question.as_bytes())), &truth)
    })
}

/// What the chain says, spoilt as the facilitator spoilt its own record.
fn as_told(said: &str, truth: &str) -> String {
    let (head, body) = said.split_once("\r\n\r\n").unwrap_or_default();
    let promised = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    if promised.is_some_and(|length| length > body.len()) {
        let half = truth.get(..truth.len() / 2).unwrap_or_default();
        return answer(half, truth.len());
    }
    if let Some((_record, filler)) = body.split_once('\n') {
        let all = format!("{truth}\n{filler}");
        return answer(&all, all.len());
    }
    let record: Value = serde_json::from_str(body).unwrap_or_default();
    if record.get("found") == Some(&Value::Bool(true)) {
        return answer(truth, truth.len());
    }
    // Not a record at all: as it came.
    said.to_owned()
}

fn answer(body: &str, length: usize) -> String {
    format!(
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

/// The battery's process. It orders nothing more once this test is gone, and ends by itself then.
struct Battery(Child);

impl Drop for Battery {
    fn drop(&mut self) {
        let _already_gone = self.0.kill();
        let _status = self.0.wait();
    }
}

fn tool(name: &str) -> Command {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/hostile/.tools/bin").join(name);
    assert!(path.exists(), "hostile-facilitator is not installed: run `make test`");
    Command::new(path)
}

/// Lets it order one purchase in each mode; how it ended, and its report.
fn battery(stage: &Stage, purchase: impl Fn(&Stage, &str)) -> (ExitStatus, Value) {
    let dir = tempfile::tempdir().unwrap();
    let (report, log) = (dir.path().join("report.json"), dir.path().join("log"));
    let orders = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    orders.set_nonblocking(true).unwrap();
    // The client that it tests: tells us the facilitator of the mode and waits until we have bought.
    let client = format!(
        "import os, socket\n\
         order = socket.create_connection(('127.0.0.1', {}))\n\
         order.sendall(os.environ['FACILITATOR_URL'].encode() + b'\\n')\n\
         order.recv(1)\n",
        orders.local_addr().unwrap().port()
    );
    let python = tool("python").get_program().to_owned();
    let output = File::create(&log).unwrap();
    let child = tool("hostile-facilitator")
        .args(["test", "--client-timeout", CLIENT_TIMEOUT, "--json"])
        .arg(&report)
        .arg("--")
        .arg(python)
        .args(["-c", &client])
        .stdin(Stdio::null())
        .stdout(output.try_clone().unwrap())
        .stderr(output)
        .spawn()
        .unwrap();
    let mut battery = Battery(child);
    for mode in MODES {
        let order = wait_for(NEXT, || match orders.accept() {
            Ok((order, _)) => Some(Some(order)),
            Err(_nobody) => battery.0.try_wait().unwrap().map(|_ended| None),
        });
        let missing = || format!("{mode} was not ordered: {}", fs::read_to_string(&log).unwrap_or_default());
        let mut order = order.flatten().ok_or_else(missing).unwrap();
        order.set_nonblocking(false).unwrap();
        order.set_read_timeout(Some(NEXT)).unwrap();
        let mut facilitator = String::new();
        BufReader::new(&order).read_line(&mut facilitator).unwrap();
        *stage.between() = Between { facilitator: authority(facilitator.trim()).to_owned(), ..Between::default() };
        purchase(stage, mode);
        let _gave_up = order.write_all(b".");
    }
    let status = wait_for(NEXT, || battery.0.try_wait().unwrap()).unwrap();
    let report = fs::read(&report).unwrap();
    (status, serde_json::from_slice(&report).unwrap())
}

/// One call of the agent, which is answered in time and never with a 402.
fn fetch(till: &Till<'_>, url: &str, more: Value) -> Response {
    let start = Instant::now();
    let answer = till.agent().fetch(url, more);
    assert!(start.elapsed() < PATIENCE, "{:?}: {}", start.elapsed(), answer.text());
    assert_ne!(answer.status, 402, "{}", answer.text());
    assert!(answer.header("payment-required").is_none(), "{:?}", answer.headers);
    answer
}

/// One purchase by an agent that repeats its call until it has the goods or is told to stop.
fn buy(stage: &Stage, mode: &str) {
    let seller = stage.seller();
    let url = format!("{seller}/slow?ms=0");
    stage.peers.facilitator().clear_log();
    let mut till = Till::at(&stage.peers, plain(), |config| {
        config.allow_private(authority(seller)).set(&["network", NETWORK, "rpc"], stage.nodes())
    });
    let order = json!({"purchase_id": "order"});
    let first = fetch(&till, &url, order.clone());
    let payment = match mode {
        "clean" | "slow_answer" | "declared_safe" => bought(&first, "0.001"),
        "accept_then_timeout" => {
            // The seller's own words about his facilitator; nothing says that it was not paid.
            assert_eq!((first.status, header(&first, "countersign-source")), (502, "seller"), "{}", first.text());
            assert_eq!(header(&first, "countersign-state"), "unknown");
            header(&first, "countersign-payment").to_owned()
        }
        _ => {
            let body = refusal(&first, 502, "payment-refused");
            assert_eq!(body["payment_state"], "unknown", "{body}");
            text(&body, "/payment").to_owned()
        }
    };
    if mode.starts_with("reconcile") {
        hold(stage, &mut till, &url, &payment);
    } else {
        if first.status != 200 {
            // Presented again, recognised, delivered; and beside what is proven, what the seller's new receipt names
            // counts for nothing.
            till.until(&payment, "settled");
            let again = fetch(&till, &url, json!({}));
            assert_eq!(bought(&again, "0.001"), payment);
            assert_eq!(header(&again, "countersign-transaction"), till.spent().first().unwrap().transaction);
        }
        let again = fetch(&till, &url, order);
        assert_eq!(bought(&again, "0.001"), payment);
        assert_eq!(header(&again, "countersign-replayed"), "true");
    }

    // The chain has the last word, and the ledger says the same.
    let settled = till.until(&payment, "settled");
    assert_eq!(till.amounts(), [1000], "{mode}");
    assert_eq!(settled["transaction"], json!(till.spent().first().unwrap().transaction));
    assert_eq!(till.payments().len(), 1, "{:?}", till.payments());
    assert_eq!(nonces(stage).len(), 1, "{mode}: one purchase, one authorization");
    assert_figures(&till, "0", "0.001");
    let books = till.gateway.command(&["ledger", "reconcile"]);
    assert!(
        books.status.success(),
        "{mode}: {}{}",
        String::from_utf8_lossy(&books.stdout),
        String::from_utf8_lossy(&books.stderr)
    );
}

/// What settled cannot be read: it stays held, even when its time is over, and nothing else is signed for it.
fn hold(stage: &Stage, till: &mut Till<'_>, url: &str, payment: &str) {
    let asked = || stage.between().asked;
    wait_for(PATIENCE, || (asked() > 0).then_some(())).unwrap();
    assert_unknown(till, payment);

    let _nothing = wait_for(EXPIRY, || None::<()>);
    let chain = stage.peers.chain();
    chain.mine(1);
    let settled = stage.peers.facilitator().calls("settle");
    let valid_before = text(settled.first().unwrap(), "/paymentPayload/payload/authorization/validBefore");
    assert!(chain.timestamp() >= valid_before.parse::<u64>().unwrap(), "{valid_before}");
    // It looks at once at whatever it finds open when it starts, and soon again.
    let before = asked();
    till.gateway.restart();
    wait_for(PATIENCE, || (asked() >= before + 2).then_some(())).unwrap();
    assert_unknown(till, payment);
    for more in [json!({"purchase_id": "order"}), json!({}), json!({"purchase_id": "another"})] {
        let body = refusal(&fetch(till, url, more), 409, "payment-unknown");
        assert_eq!((&body["payment"], &body["payment_state"]), (&json!(payment), &json!("unknown")), "{body}");
        assert_eq!(body["retry"], false, "{body}");
    }
    assert_unknown(till, payment);

    // The nodes come back to their senses.
    stage.between().honest = true;
    till.gateway.restart();
    till.until(payment, "settled");
    let late = fetch(till, url, json!({"purchase_id": "order"}));
    let body = late.json();
    assert_eq!(
        (late.status, &body["payment"], &body["payment_state"]),
        (409, &json!(payment), &json!("settled")),
        "{body}"
    );
    assert_eq!(body["retry"], false, "{body}");
}

#[track_caller]
fn assert_unknown(till: &Till<'_>, payment: &str) {
    let found = till.agent().payment(payment);
    assert_eq!((&found["state"], &found["transaction"]), (&json!("unknown"), &Value::Null), "{found}");
    assert_figures(till, "0.001", "0");
}

/// What every budget holds and has spent, the wallet's and the agent's.
#[track_caller]
fn assert_figures(till: &Till<'_>, held: &str, spent: &str) {
    let budgets = items(&till.gateway.operator().get("/v1/budgets"));
    assert!(budgets.len() > 1, "{budgets:?}");
    for budget in budgets {
        assert_eq!((text(&budget, "/held"), text(&budget, "/spent")), (held, spent), "{budget}");
    }
}

/// What was presented to be settled since the last purchase: as the official facilitator and the battery's saw it.
fn nonces(stage: &Stage) -> BTreeSet<String> {
    let presented = stage.peers.facilitator().calls("settle");
    let nonce = |call: &Value| text(call, "/paymentPayload/payload/authorization/nonce").to_lowercase();
    presented.iter().map(nonce).chain(stage.between().nonces.iter().cloned()).collect()
}

#[test]
fn a_facilitator_that_fails_in_ten_ways_is_paid_once() {
    let stage = Stage::take();
    let (status, report) = battery(&stage, buy);
    assert!(status.success(), "{status}: {report:#}");
    let summary = &report["summary"];
    assert_eq!((&summary["verdict"], &summary["safe"]), (&json!("PASS"), &json!(MODES.len())), "{report:#}");
    // The control is run first and told last.
    let mut modes = MODES;
    modes.rotate_left(1);
    let told: Vec<&str> = report["results"].as_array().unwrap().iter().map(|row| text(row, "/mode")).collect();
    assert_eq!(told, modes, "not in the order that was assumed");
    for row in report["results"].as_array().unwrap() {
        assert_eq!(
            (&row["distinct"], &row["unidentified"], &row["verdict"]),
            (&json!(1), &json!(0), &json!("pass")),
            "{row}"
        );
    }
}

/// How often the development account that the official client pays from has paid.
fn paid(stage: &Stage) -> usize {
    let transfers = stage.peers.chain().transfers(USDC);
    transfers.into_iter().filter(|transfer| transfer.from == BUYER.address.to_lowercase()).count()
}

/// The control of the test itself: with the same facilitator, seller and chain, who pays again is caught.
#[test]
fn who_pays_again_after_an_error_is_caught() {
    let stage = Stage::take();
    let before = paid(&stage);
    let (status, report) = battery(&stage, |stage, _mode| {
        let url = format!("{}/cheap", stage.seller());
        if stage.peers.official_client(&url, 1, 1)["errors"] != 0 {
            stage.peers.official_client(&url, 1, 1);
        }
    });
    assert_eq!(status.code(), Some(1), "{report:#}");
    let twice: Vec<&str> =
        MODES.into_iter().filter(|mode| !matches!(*mode, "clean" | "slow_answer" | "declared_safe")).collect();
    assert_eq!(report["summary"]["double_paying_modes"], json!(twice), "{report:#}");
    assert_eq!(paid(&stage) - before, MODES.len() + twice.len(), "what it counted is what the chain moved");
}
