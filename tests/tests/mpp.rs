//! Purchases by MPP: from the official server, judged by the chain, and from sellers who would like to be paid otherwise.
#![expect(clippy::unwrap_used, reason = "a test: whatever is not as expected must fail it loudly")]
#![expect(clippy::disallowed_methods, reason = "a challenge ends by the real clock")]

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use countersign_core::evm::keccak256;
use countersign_core::time::Timestamp;
use countersign_tests::{
    config::{Config, Policy},
    http::Response,
    peers::{NETWORK, Peers, SELLER, USD18, USDC, authority},
    process::Gateway,
    refusal::{refusal, refusal_because},
    stub::Stub,
    till::{Till, bought, header, items, plain, text},
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

/// In front of the official server.
fn till(seller: &str) -> Till<'static> {
    Till::at(Peers::shared(), plain(), |config| config.allow_private(authority(seller)))
}

/// What the facilitator was asked to settle with this nonce.
fn settled(nonce: &str) -> usize {
    let calls = Peers::shared().facilitator().calls("settle");
    calls.iter().filter(|call| text(call, "/paymentPayload/payload/authorization/nonce") == nonce).count()
}

#[test]
fn buys_from_the_official_server_and_the_chain_proves_it() {
    let seller = Peers::shared().mpp();
    let till = till(&seller.url);
    let answer = till.agent().fetch(&format!("{}/cheap", seller.url), json!({"purpose": "price check"}));
    let payment = bought(&answer, "0.001");
    assert_eq!(answer.json()["route"], "cheap");
    assert!(answer.header("payment-receipt").is_none(), "the receipt is the gateway's business");

    let record = till.until(&payment, "settled");
    assert_eq!((&record["rail"], &record["amount"]["network"]), (&json!("mpp"), &json!(NETWORK)));
    let spent = till.spent();
    assert_eq!(spent.len(), 1, "{spent:?}");
    assert_eq!((spent[0].value, spent[0].to.as_str()), (1000, SELLER.address.to_lowercase().as_str()));
    assert_eq!(spent[0].transaction, header(&answer, "countersign-transaction"));
    assert_eq!(record["transaction"], json!(spent[0].transaction));
    let history: Vec<&str> = record["history"].as_array().unwrap().iter().map(|s| text(s, "/state")).collect();
    assert_eq!(history, ["in-flight", "accepted", "settled"]);
}

#[test]
fn a_policy_sees_the_rail_and_chooses_by_it() {
    let seller = Peers::shared().mpp();
    let rules = toml::toml! { rules = [{ name = "no-x402", when = "payment.rail == 'x402'", then = "deny" }] };
    let cel = Policy::new("rules", "builtin:cel").setting("rules", rules["rules"].clone());
    let till = Till::at(Peers::shared(), [plain().as_slice(), &[cel]].concat(), |config| {
        config.allow_private(authority(&seller.url))
    });
    let payment = bought(&till.agent().fetch(&format!("{}/both", seller.url), json!({})), "0.001");
    let record = till.until(&payment, "settled");
    assert_eq!((record["rail"].as_str(), till.amounts()), (Some("mpp"), vec![1000]));
    refusal(&till.agent().fetch(&till.v2("/cheap"), json!({})), 403, "policy-denied");
}

#[test]
fn a_body_is_sent_again_with_the_payment() {
    let seller = Peers::shared().mpp();
    let till = till(&seller.url);
    let order = json!({"method": "POST", "body": {"a": [1, "two"]}});
    let answer = till.agent().fetch(&format!("{}/echo", seller.url), order);
    let payment = bought(&answer, "0.002");
    assert_eq!(answer.json()["echo"], json!({"a": [1, "two"]}));
    let record = till.until(&payment, "settled");
    assert_eq!(record["rail"], "mpp");
    assert_eq!(till.amounts(), [2000]);
}

#[test]
fn a_seller_that_takes_both_is_paid_once_and_by_x402() {
    let seller = Peers::shared().mpp();
    let till = till(&seller.url);
    let url = format!("{}/both", seller.url);
    let payment = bought(&till.agent().fetch(&url, json!({"purchase_id": "both"})), "0.001");
    assert_eq!(till.until(&payment, "settled")["rail"], "x402");
    // A repeat is the same purchase.
    let again = till.agent().fetch(&url, json!({"purchase_id": "both"}));
    assert_eq!((again.status, header(&again, "countersign-payment")), (200, payment.as_str()));
    assert_eq!(till.amounts(), [1000]);
    assert_eq!(till.payments().len(), 1);
}

#[test]
fn the_agents_own_credential_leaves_no_room_for_the_payments() {
    let seller = Peers::shared().mpp();
    let till = till(&seller.url);
    let order = json!({"headers": {"Authorization": "Bearer my-own"}});
    let refused = till.agent().fetch(&format!("{}/cheap", seller.url), order);
    let refused = refusal(&refused, 422, "unpayable-offer");
    assert!(text(&refused, "/detail").contains("`Authorization` header"), "{refused}");
    assert_eq!((till.payments().len(), till.spent().len()), (0, 0));
}

#[test]
fn a_payment_that_was_lost_on_its_way_is_presented_again_and_settled_once() {
    let peers = Peers::shared();
    let seller = peers.mpp();
    // Passes everything on but the first payment.
    let (official, paid) = (authority(&seller.url).to_owned(), AtomicU64::new(0));
    let between = Stub::answering_at_once(move |request| {
        let lost = request.contains("\r\nauthorization: Payment ") && paid.fetch_add(1, Ordering::SeqCst) == 0;
        if lost { Vec::new() } else { countersign_tests::http::raw(&official, closing(request).as_bytes()) }
    });
    let till = till(&between.url(""));
    let lost = till.agent().fetch(&between.url("/cheap"), json!({"purchase_id": "lost"}));
    assert!(lost.status >= 500, "{}", lost.text());
    let again = till.agent().fetch(&between.url("/cheap"), json!({"purchase_id": "lost"}));
    let payment = header(&again, "countersign-payment").to_owned();
    let record = till.until(&payment, "settled");
    assert_eq!((record["rail"].as_str(), till.amounts()), (Some("mpp"), vec![1000]));
    let sent = credentials(&between);
    assert_eq!(sent.len(), 2);
    assert_eq!(sent[0], sent[1], "the same payment, byte for byte");
    let [sent, _] = [said(&sent[0]), said(&sent[1])];
    let (id, realm) = (text(&sent, "/challenge/id"), text(&sent, "/challenge/realm"));
    let nonce = format!("0x{}", hex::encode(keccak256(format!("{id}{realm}").as_bytes())));
    assert_eq!(text(&sent, "/payload/nonce"), nonce);
    assert!(peers.chain().authorization_state(USDC, &till.purse.address, &nonce));
    assert!(settled(&nonce) >= 1);
}

/// A request as it came, on a connection that ends with its answer.
fn closing(request: &str) -> String {
    request.replacen("\r\n", "\r\nConnection: close\r\n", 1)
}

// --- a seller of our own, who says what no honest one would

fn seconds_from_now(seconds: i64) -> String {
    let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap();
    Timestamp::from_secs(u64::try_from(now + seconds).unwrap()).to_string()
}

struct Ask {
    id: String,
    amount: &'static str,
    currency: &'static str,
    expires: String,
    digest: Option<String>,
}

impl Default for Ask {
    fn default() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let id = format!("challenge-{}", NEXT.fetch_add(1, Ordering::SeqCst));
        Self { id, amount: "1000", currency: USDC, expires: seconds_from_now(300), digest: None }
    }
}

impl Ask {
    fn header(&self) -> String {
        let request = json!({
            "amount": self.amount, "currency": self.currency, "recipient": SELLER.address,
            "methodDetails": {"chainId": 84532, "credentialTypes": ["authorization"]},
        });
        let request = URL_SAFE_NO_PAD.encode(request.to_string());
        let digest = self.digest.as_ref().map(|d| format!(", digest=\"{d}\"")).unwrap_or_default();
        format!(
            "WWW-Authenticate: Payment id=\"{}\", realm=\"a shop\", method=\"evm\", intent=\"charge\", \
             request=\"{request}\", expires=\"{}\"{digest}\r\n",
            self.id, self.expires
        )
    }
}

/// An x402 offer of the same, at this price.
fn x402(amount: &str) -> String {
    let terms = json!({
        "x402Version": 2, "resource": {"url": "http://127.0.0.1/"},
        "accepts": [{"scheme": "exact", "network": NETWORK, "amount": amount, "asset": USDC, "payTo": SELLER.address,
            "maxTimeoutSeconds": 300, "extra": {"name": "USDC", "version": "2"}}],
    });
    format!("PAYMENT-REQUIRED: {}\r\n", STANDARD.encode(terms.to_string()))
}

fn whole(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nConnection: close\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len())
}

fn is_paid(request: &str) -> bool {
    let head = request.split("\r\n\r\n").next().unwrap_or_default().to_ascii_lowercase();
    head.contains("\r\nauthorization: payment ") || head.contains("\r\npayment-signature:")
}

fn delivered() -> String {
    let receipt = json!({
        "status": "success", "method": "evm", "timestamp": "2026-11-24T00:00:00Z",
        "reference": format!("0x{}", "ab".repeat(32)),
    });
    let receipt = URL_SAFE_NO_PAD.encode(receipt.to_string());
    whole("200 OK", &format!("Payment-Receipt: {receipt}\r\n"), "sold")
}

/// A seller who asks so, and delivers to whoever pays.
fn seller(asks: impl Fn(&str) -> String + Send + Sync + 'static) -> Stub {
    Stub::answering_at_once(move |request| {
        if is_paid(request) { delivered() } else { whole("402 Payment Required", &asks(request), "{}") }
    })
}

/// The credentials of MPP that reached a seller, as they came.
fn credentials(seller: &Stub) -> Vec<String> {
    let line = |request: &String| {
        request.lines().find_map(|line| line.strip_prefix("authorization: Payment ").map(str::to_owned))
    };
    seller.seen().iter().filter_map(line).collect()
}

fn said(credential: &str) -> Value {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(credential).unwrap()).unwrap()
}

fn gateway(seller: &Stub) -> Gateway {
    Gateway::start(Config::new(plain()).allow_private(&seller.authority))
}

/// That nothing was signed and nothing is held; returns the refusal.
#[track_caller]
fn unpaid(gateway: &Gateway, seller: &Stub, answer: &Response) -> Value {
    let refused = refusal(answer, 422, "unpayable-offer");
    assert!(!seller.seen().iter().any(|request| is_paid(request)), "{:?}", seller.seen());
    assert!(items(&gateway.agent().get("/v1/payments")).iter().all(|p| p["valid_before"].is_null()));
    refused
}

#[test]
fn an_expired_challenge_is_not_signed_for() {
    for (left, words) in [(-60, "challenge 0"), (5, "10 s before that are needed")] {
        let seller = seller(move |_| Ask { expires: seconds_from_now(left), ..Ask::default() }.header());
        let gateway = gateway(&seller);
        let refused = unpaid(&gateway, &seller, &gateway.agent().fetch(&seller.url("/"), json!({})));
        assert!(text(&refused, "/detail").contains("the seller's challenge ends at"), "{refused}");
        assert!(text(&refused, "/detail").contains(words), "{refused}");
    }
    // The other rail is still there.
    let seller =
        seller(|_| Ask { amount: "1", expires: seconds_from_now(-60), ..Ask::default() }.header() + &x402("1000"));
    let gateway = gateway(&seller);
    let answer = gateway.agent().fetch(&seller.url("/"), json!({}));
    assert_eq!((answer.status, credentials(&seller).len()), (200, 0), "{}", answer.text());
    assert_eq!(items(&gateway.agent().get("/v1/payments"))[0]["rail"], "x402");
}

#[test]
fn what_is_signed_ends_with_its_challenge() {
    let ends = seconds_from_now(25);
    let until = Timestamp::parse(&ends).unwrap().as_secs();
    let seller = seller(move |_| Ask { expires: ends.clone(), ..Ask::default() }.header());
    let gateway = gateway(&seller);
    assert_eq!(gateway.agent().fetch(&seller.url("/"), json!({})).status, 200);
    let sent = said(&credentials(&seller)[0]);
    assert_eq!(text(&sent, "/payload/validBefore"), until.to_string());
}

#[test]
fn what_cannot_be_paid_takes_no_payable_offers_place() {
    let seller = seller(|_| {
        let over = || Ask { amount: "999", expires: seconds_from_now(3), ..Ask::default() }.header();
        let long = Ask { id: "x".repeat(1_000), amount: "998", ..Ask::default() };
        let long = long.header().replace("realm=", &format!("opaque=\"{}\", realm=", "A".repeat(12 * 1024)));
        let unfit: String = std::iter::repeat_with(over).take(5).chain([long]).collect();
        unfit + &Ask::default().header()
    });
    let gateway = gateway(&seller);
    let answer = gateway.agent().fetch(&seller.url("/"), json!({}));
    assert_eq!(answer.status, 200, "{}", answer.text());
    let sent = credentials(&seller);
    assert_eq!((sent.len(), text(&said(&sent[0]), "/payload/value")), (1, "1000"));
}

#[test]
fn one_challenge_is_signed_for_once_whoever_asks_and_whatever_it_costs() {
    let seller = seller(|request| {
        // The same name for another price and another path.
        let amount = if request.starts_with("GET /a") { "1000" } else { "2000" };
        Ask { id: "always the same".into(), amount, ..Ask::default() }.header()
    });
    const OTHER: &str = "test-agent-token-of-ranger-0123456789abcdef";
    let gateway = Gateway::start(Config::new(plain()).allow_private(&seller.authority).agent("ranger", OTHER));
    let first = gateway.agent().fetch(&seller.url("/a"), json!({}));
    assert_eq!(first.status, 200, "{}", first.text());
    let payment = header(&first, "countersign-payment").to_owned();
    for path in ["/a", "/b"] {
        let refused = gateway.agent().fetch(&seller.url(path), json!({}));
        let refused = refusal_because(&refused, 422, "unpayable-offer", "challenge-used");
        assert!(!refused.to_string().contains(&payment), "it may be somebody else's: {refused}");
    }
    let sent = credentials(&seller);
    assert_eq!(sent.len(), 1, "{sent:?}");
    let nonce = hex::encode(keccak256(b"always the samea shop"));
    assert_eq!(text(&said(&sent[0]), "/payload/nonce"), format!("0x{nonce}"));
    // Nothing is held for what was refused.
    let held = items(&gateway.agent().get("/v1/payments"));
    assert_eq!(held.iter().filter(|p| !p["valid_before"].is_null()).count(), 1, "{held:?}");
}

#[test]
fn what_people_approved_is_paid_by_the_next_challenge_for_the_same() {
    let seller = seller(|request| {
        let amount = if request.starts_with("GET /moves") { ["2000", "2001"] } else { ["2000", "2000"] };
        static ASKED: AtomicU64 = AtomicU64::new(0);
        let turn = usize::try_from(ASKED.fetch_add(1, Ordering::SeqCst)).unwrap() % 2;
        Ask { amount: amount[turn], ..Ask::default() }.header()
    });
    let asks = Policy::new("review", "builtin:review-threshold").setting("above", "0.0019");
    let policies = [plain().as_slice(), &[asks]].concat();
    let gateway = Gateway::start(Config::new(policies).allow_private(&seller.authority));
    let approve = |path: &str| {
        let asked = refusal(
            &gateway.agent().fetch(&seller.url(path), json!({"purchase_id": path.trim_start_matches('/')})),
            202,
            "approval-required",
        );
        let approval = text(&asked, "/approval/id").to_owned();
        let said = gateway.operator().post(&format!("/v1/approvals/{approval}/approve"), &json!({}));
        assert_eq!(said.status, 200, "{}", said.text());
        gateway.agent().fetch(&seller.url(path), json!({"purchase_id": path.trim_start_matches('/')}))
    };
    let bought = approve("/stays");
    assert_eq!(bought.status, 200, "{}", bought.text());
    let sent = said(&credentials(&seller)[0]);
    assert_eq!(text(&sent, "/payload/value"), "2000");
    refusal(&approve("/moves"), 202, "approval-required");
    assert_eq!(credentials(&seller).len(), 1);
}

#[test]
fn after_a_signature_the_other_rail_is_never_tried() {
    // MPP is cheaper; whoever pays so gets no answer, and is offered x402 ever after.
    let seller = Stub::answering_at_once(|request| {
        if request.to_ascii_lowercase().contains("\r\nauthorization: payment ") {
            return String::new();
        }
        if is_paid(request) {
            return delivered();
        }
        whole("402 Payment Required", &(Ask { amount: "900", ..Ask::default() }.header() + &x402("1000")), "{}")
    });
    let gateway = gateway(&seller);
    for _ in 0..3 {
        let answer = gateway.agent().fetch(&seller.url("/"), json!({"purchase_id": "one"}));
        assert!(answer.status >= 500, "{}", answer.text());
    }
    let sent = credentials(&seller);
    assert_eq!(sent.len(), 3);
    assert!(sent.iter().all(|credential| *credential == sent[0]), "the same payment, byte for byte");
    assert!(!seller.seen().iter().any(|request| request.to_ascii_lowercase().contains("payment-signature")));
    let payments = items(&gateway.agent().get("/v1/payments"));
    assert_eq!((payments.len(), &payments[0]["rail"]), (1, &json!("mpp")));

    // Nor does a repeat put the payment where a credential of the agent's own would go.
    let own = json!({"purchase_id": "one", "headers": {"Authorization": "Bearer my-own"}});
    let refused = refusal(&gateway.agent().fetch(&seller.url("/"), own), 409, "purchase-conflict");
    assert!(text(&refused, "/detail").contains("`Authorization` header"), "{refused}");
    assert_eq!(credentials(&seller).len(), 3);
}

#[test]
fn a_challenge_for_another_body_is_not_signed_for() {
    let digest = |body: &str| format!("sha-256=:{}:", STANDARD.encode(Sha256::digest(body)));
    let (right, wrong) = (digest("mine"), digest("yours"));
    let seller = seller(move |request| {
        let digest = if request.starts_with("POST /right") { right.clone() } else { wrong.clone() };
        Ask { digest: Some(digest), ..Ask::default() }.header()
    });
    let gateway = gateway(&seller);
    let order = json!({"method": "POST", "body": "mine"});
    let refused = unpaid(&gateway, &seller, &gateway.agent().fetch(&seller.url("/wrong"), order.clone()));
    assert!(text(&refused, "/detail").contains("another body"), "{refused}");
    assert_eq!(gateway.agent().fetch(&seller.url("/right"), order).status, 200);
    assert_eq!(credentials(&seller).len(), 1);
}

#[test]
fn an_asset_that_nobody_told_us_of_is_not_paid_in() {
    let seller = seller(|_| Ask { currency: USD18, ..Ask::default() }.header());
    let gateway = gateway(&seller);
    let refused = unpaid(&gateway, &seller, &gateway.agent().fetch(&seller.url("/"), json!({})));
    assert!(text(&refused, "/detail").contains("asset table"), "{refused}");
}

#[test]
fn the_agents_own_credential_goes_to_the_seller_beside_x402_and_never_instead_of_mpp() {
    let seller = seller(|_| Ask { amount: "900", ..Ask::default() }.header() + &x402("1000"));
    let gateway = gateway(&seller);
    let order = json!({"headers": {"Authorization": "Bearer my-own"}});
    let answer = gateway.agent().fetch(&seller.url("/"), order);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let seen = seller.seen();
    let paid = seen.last().unwrap().to_ascii_lowercase();
    assert!(
        paid.contains("\r\nauthorization: bearer my-own\r\n") && paid.contains("\r\npayment-signature: "),
        "{paid}"
    );
    assert_eq!(credentials(&seller).len(), 0);
    // A payment of the agent's own making is nobody's credential.
    let order = json!({"headers": {"Authorization": "Payment e30"}});
    refusal(&gateway.agent().fetch(&seller.url("/"), order), 400, "bad-request");
    assert_eq!(seller.seen().len(), seen.len());
}

#[test]
fn a_payment_goes_to_no_other_origin() {
    let thief = Stub::start(delivered());
    let elsewhere = format!("Location: http://{}/\r\n", thief.authority);
    let seller = Stub::answering_at_once(move |request| match is_paid(request) {
        true => whole("307 Temporary Redirect", &elsewhere, ""),
        false => whole("402 Payment Required", &Ask::default().header(), "{}"),
    });
    let gateway = Gateway::start(Config::new(plain()).allow_private(&seller.authority).allow_private(&thief.authority));
    let answer = gateway.agent().fetch(&seller.url("/"), json!({}));
    assert_eq!(answer.status, 307, "{}", answer.text());
    assert_eq!(credentials(&seller).len(), 1);
    assert_eq!(thief.seen(), Vec::<String>::new());
}

#[test]
fn a_second_demand_after_the_payment_is_not_paid() {
    let seller = Stub::answering_at_once(|_: &str| whole("402 Payment Required", &Ask::default().header(), "{}"));
    let gateway = gateway(&seller);
    for _ in 0..2 {
        let answer = gateway.agent().fetch(&seller.url("/"), json!({"purchase_id": "one"}));
        refusal(&answer, 502, "payment-refused");
    }
    let sent = credentials(&seller);
    assert_eq!((sent.len(), &sent[0]), (2, &sent[1]), "one payment, although each demand was another");
}
