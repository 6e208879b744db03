//! Fills a folder with a ledger of recorded decisions, for measuring what reads them:
//!
//! ```text
//! past FOLDER DECISIONS
//! cd FOLDER && time countersign policy backtest builtin:spend-caps --since 2d
//! cd FOLDER && time countersign policy replay --since 2d
//! ```
//!
//! Every decision is a real judgement of the standard allowlist and caps, spread over the last day.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a tool for people who measure")]

use std::path::Path;
use std::sync::Arc;
use std::{env, fs, os::unix::fs::PermissionsExt};

use countersign::clock::SystemClock;
use countersign::{builtin, past};
use countersign_core::id::{DecisionId, PaymentId, PurchaseId};
use countersign_core::ledger::{DecisionRecord, Denial, Fingerprint, Ledger, PaymentFacts, PurchaseKey};
use countersign_core::money::{Atomic, Micros};
use countersign_core::seams::{Clock, Judge};
use countersign_core::spend::{Commitment, History, Payment, Principal, Purchase, Seller, SpendRequest};
use countersign_core::time::Timestamp;
use countersign_core::verdict::{Verdict, combine};
use countersign_engine::PolicySpec;
use countersign_ledger::{Options, SqliteLedger};
use countersign_tests::config::{Config, Policy};
use countersign_tests::till::caps;
use tokio::task::JoinSet;

const DAY_MS: u64 = 86_400_000;
const TOGETHER: u64 = 256;

fn main() {
    let mut args = env::args().skip(1);
    let folder = args.next().expect("past FOLDER DECISIONS");
    let decisions: u64 = args.next().and_then(|n| n.parse().ok()).expect("past FOLDER DECISIONS");
    let folder = Path::new(&folder);
    fs::create_dir_all(folder).unwrap();
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).unwrap();
    let vendors = Policy::new("vendors", "builtin:vendor-allowlist").setting("hosts", vec!["api.example.com"]);
    let config = Config::new([vendors, caps("5.00")]).to_toml();
    let file = folder.join("countersign.toml");
    fs::write(&file, config).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().build().unwrap();
    runtime.block_on(fill(folder, decisions));
}

async fn fill(folder: &Path, decisions: u64) {
    let now = SystemClock.now().unwrap();
    let config = countersign::config::Config::inspect(&folder.join("countersign.toml")).unwrap();
    let ledger = SqliteLedger::open(&folder.join("countersign.db"), Options::new([7; 32], [8; 16]), now).unwrap();
    let ledger = Arc::new(ledger);
    let engine = past::engine().unwrap();
    let spec = |name: &str, module: &str| PolicySpec {
        settings: config.policies.get(name).unwrap().settings.clone(),
        ..PolicySpec::new(name, builtin::module(module).unwrap())
    };
    let specs = [spec("vendors", "vendor-allowlist"), spec("caps", "spend-caps")];
    let blobs = specs.iter().flat_map(|s| [s.module.to_vec(), s.settings.clone().into_bytes()]).collect();
    ledger.remember(blobs).await.unwrap();
    let set = engine.stage(1, &specs).unwrap();
    let names = ["vendors".to_owned(), "caps".to_owned()];
    let mut writing = JoinSet::new();
    for n in 0..decisions {
        let at = now.minus_millis(DAY_MS - n * DAY_MS / decisions.max(1));
        let request = request(n, at);
        let judgement = set.judge(&names, &request);
        let combined = combine(&judgement);
        let record = DecisionRecord {
            id: request.id,
            verdict: combined.verdict,
            reasons: combined.reasons,
            refusal: (combined.verdict == Verdict::Deny).then(|| "policy-denied".to_owned()),
            judgement,
            request,
        };
        let denial = denial(n, at, record);
        let ledger = Arc::clone(&ledger);
        writing.spawn(async move { ledger.deny(denial).await.unwrap() });
        if n % TOGETHER == 0 {
            while writing.join_next().await.is_some() {}
        }
    }
    while writing.join_next().await.is_some() {}
}

fn random(n: u64) -> [u8; 10] {
    let [a, b, c, d, e, f, g, h] = n.to_be_bytes();
    [0, 0, a, b, c, d, e, f, g, h]
}

fn denial(n: u64, at: Timestamp, record: DecisionRecord) -> Denial {
    let r = &record.request;
    let facts = PaymentFacts {
        principal: r.principal.clone(),
        method: r.purchase.method.clone(),
        url: r.purchase.url.clone(),
        host: r.purchase.host.clone(),
        path: r.purchase.path.clone(),
        pay_to: r.seller.pay_to.clone(),
        rail: r.payment.rail.clone(),
        scheme: r.payment.scheme.clone(),
        network: r.payment.network.clone(),
        asset: r.payment.asset.clone(),
        asset_symbol: r.payment.asset_symbol.clone(),
        asset_decimals: r.payment.asset_decimals,
        amount: r.payment.amount,
        value: r.payment.value,
        wallet: r.payment.wallet.clone(),
        mandate: "all".to_owned(),
        offer_sha256: "00".repeat(32),
        claims: Default::default(),
        resource_elsewhere: None,
    };
    let mut fingerprint = [0; 32];
    fingerprint.iter_mut().zip(n.to_be_bytes()).for_each(|(to, from)| *to = from);
    let key =
        PurchaseKey { workspace: "research".to_owned(), agent: "scout".to_owned(), purchase: r.purchase_id.clone() };
    Denial {
        payment: PaymentId::new(at, random(n)),
        key,
        fingerprint: Fingerprint(fingerprint),
        facts,
        decisions: vec![record],
        code: "measured".to_owned(),
        at,
    }
}

fn request(n: u64, at: Timestamp) -> SpendRequest {
    let pay_to = "0x90F79bf6EB2c4f870365E785982E1f101E93b906".to_owned();
    let host = "api.example.com".to_owned();
    let value = Micros::new(1_000 + n % 500).unwrap();
    SpendRequest {
        id: DecisionId::new(at, random(n)),
        purchase_id: PurchaseId::parse(&format!("n{n}")).unwrap(),
        at,
        principal: Principal {
            agent: "scout".to_owned(),
            workspace: Some("research".to_owned()),
            roles: vec!["analyst".to_owned()],
            ..Principal::default()
        },
        purchase: Purchase {
            method: "GET".to_owned(),
            url: "https://api.example.com/quote".to_owned(),
            host: host.clone(),
            path: "/quote".to_owned(),
            query_digest: Some("00".repeat(32)),
            body_digest: None,
            observed: true,
            description: Some("one price quote".to_owned()),
            media_type: Some("application/json".to_owned()),
            category: None,
        },
        seller: Seller { host, pay_to, ..Seller::default() },
        payment: Payment {
            rail: "x402".to_owned(),
            scheme: "exact".to_owned(),
            commitment: Commitment::Fixed,
            network: "eip155:84532".to_owned(),
            asset: "0x036CbD53842c5426634e7929541eC2318f3dCF7e".to_owned(),
            asset_symbol: "USDC".to_owned(),
            asset_decimals: 6,
            amount: Atomic::new(u128::from(value.get())),
            value,
            valid_for_seconds: 60,
            wallet: "research".to_owned(),
        },
        history: History::default(),
        claims: vec![],
        facts: vec![],
    }
}
