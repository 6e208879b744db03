//! Sellers whose bytes are wrong: between the lines of HTTP, in trailers, in receipts. Each asks for a payment with good
//! terms, so whatever follows is about what was signed.
#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test: whatever is not as expected must fail it loudly"
)]

use countersign_tests::{
    config::{Config, Policy},
    http::{self, Response},
    process::Gateway,
    refusal::refusal,
    stub::Stub,
    till::{header, plain, text},
    world::LocalWorld,
};
use serde_json::json;
use std::sync::OnceLock;

const RIVAL_TOKEN: &str = "test-agent-token-of-rival-0123456789abcdef";

/// One world for all: nothing here is ever redeemed.
fn world() -> &'static LocalWorld {
    static WORLD: OnceLock<LocalWorld> = OnceLock::new();
    WORLD.get_or_init(LocalWorld::start)
}

/// The terms of an honest seller, as its header has them.
fn terms() -> &'static str {
    static TERMS: OnceLock<String> = OnceLock::new();
    TERMS.get_or_init(|| {
        let unpaid = http::get(&world().world().seller("honest").unwrap().url("/quote")).send();
        unpaid.header("payment-required").unwrap().to_owned()
    })
}

/// A 402 with good terms.
fn asks() -> String {
    format!(
        "HTTP/1.1 402 Payment Required\r\nPAYMENT-REQUIRED: {}\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{{}}",
        terms()
    )
}

fn is_paid(request: &str) -> bool {
    request.to_ascii_lowercase().contains("\r\npayment-signature: ")
}

/// What a request carried as its payment.
fn payments(stub: &Stub) -> Vec<String> {
    let line = |request: &String| {
        let found = request.lines().find(|line| line.to_ascii_lowercase().starts_with("payment-signature: "));
        found.map(str::to_owned)
    };
    stub.seen().iter().filter_map(line).collect()
}

struct Scene {
    gateway: Gateway,
    stub: Stub,
}

impl Scene {
    /// A seller that asks, and answers `paid` to who has paid.
    fn new(paid: impl Into<String>) -> Self {
        let paid = paid.into();
        Self::at(Stub::answering_at_once(move |request| if is_paid(request) { paid.clone() } else { asks() }))
    }

    fn at(stub: Stub) -> Self {
        let config: Config = world().config(&["honest"], plain()).allow_private(&stub.authority);
        Self { gateway: Gateway::start(config.agent("rival", RIVAL_TOKEN)), stub }
    }

    fn fetch(&self) -> Response {
        self.gateway.agent().fetch(&self.stub.url("/quote"), json!({"purchase_id": "wire"}))
    }

    /// The one payment is signed once, held, and nobody knows what became of it.
    #[track_caller]
    fn unknown(&self, payment: &str) {
        let view = self.gateway.agent().payment(payment);
        assert_eq!(view["state"], "unknown", "{view:#}");
        assert!(view["holds"].as_array().unwrap().iter().all(|hold| hold["open"] == true), "{view:#}");
        let presented = payments(&self.stub);
        assert!(
            !presented.is_empty() && presented.iter().all(|one| *one == presented[0]),
            "signed twice: {presented:?}"
        );
    }
}

/// A 200 with these headers and this body.
fn goods(headers: &str, body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\n{headers}Connection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

#[track_caller]
fn passed_on_unproven(scene: &Scene, body: &str) -> Response {
    let answer = scene.fetch();
    assert_eq!((answer.status, answer.text().as_str()), (200, body), "{}", answer.text());
    assert_eq!(header(&answer, "countersign-state"), "unknown");
    scene.unknown(header(&answer, "countersign-payment"));
    answer
}

#[test]
fn a_receipt_in_a_trailer_is_none() {
    let receipt = "PAYMENT-RESPONSE: eyJzdWNjZXNzIjp0cnVlfQ==";
    let scene = Scene::new(format!(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: PAYMENT-RESPONSE\r\nConnection: close\r\n\r\n\
         5\r\ngoods\r\n0\r\n{receipt}\r\nX-End: 1\r\n\r\n"
    ));
    let answer = passed_on_unproven(&scene, "goods");
    assert!(answer.header("payment-response").is_none() && answer.header("x-end").is_none());
}

#[test]
fn receipts_that_say_no_or_nothing_are_none() {
    let encoded = |text: &str| {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.encode(text)
    };
    let failed =
        encoded(r#"{"success":false,"errorReason":"settle_failed","transaction":"","network":"eip155:84532"}"#);
    for receipt in [failed.as_str(), "%%%", "", "bnVsbA=="] {
        let scene = Scene::new(goods(&format!("PAYMENT-RESPONSE: {receipt}\r\n"), "goods"));
        passed_on_unproven(&scene, "goods");
    }
    // Two of them, of which one might be right.
    let scene = Scene::new(goods(&format!("PAYMENT-RESPONSE: {failed}\r\nPAYMENT-RESPONSE: {failed}\r\n"), "goods"));
    passed_on_unproven(&scene, "goods");
}

#[test]
fn our_own_header_is_not_read_back() {
    let stub = Stub::answering_at_once(|request| {
        if !is_paid(request) {
            return asks();
        }
        let line = request.lines().find(|line| line.to_ascii_lowercase().starts_with("payment-signature: ")).unwrap();
        let value = line.split_once(": ").unwrap().1;
        let headers = [
            "Payment-Signature",
            "X-PAYMENT",
            "Countersign-Amount",
            "PAYMENT-REQUIRED",
            "Connection: X-Hop, X-Also\r\nX-Hop",
        ];
        goods(&headers.map(|name| format!("{name}: {value}\r\n")).concat(), "goods")
    });
    let scene = Scene::at(stub);
    let answer = passed_on_unproven(&scene, "goods");
    let presented = payments(&scene.stub)[0].split_once(": ").unwrap().1.to_owned();
    assert!(presented.len() > 100);
    assert!(answer.headers.iter().all(|(_, value)| *value != presented), "{:?}", answer.headers);
    assert_eq!(header(&answer, "countersign-amount"), "0.001 USD");
}

#[test]
fn what_ends_early_was_not_delivered_and_is_asked_for_again() {
    let short = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 500\r\n\r\nonly the beginning";
    let scene = Scene::new(short);
    let order = json!({"purchase_id": "wire"});
    let broken = scene.gateway.agent().try_fetch(&scene.stub.url("/quote"), order.clone());
    assert!(broken.is_err(), "taken for whole: {broken:?}");
    let listed = scene.gateway.agent().get("/v1/payments").json();
    scene.unknown(text(&listed, "/items/0/id"));
    // The same payment again, never another; and nothing equal is begun beside it.
    let again = scene.gateway.agent().try_fetch(&scene.stub.url("/quote"), order);
    assert!(again.is_err(), "{again:?}");
    refusal(
        &scene.gateway.agent().fetch(&scene.stub.url("/quote"), json!({"purchase_id": "other"})),
        409,
        "payment-unknown",
    );
    assert_eq!(payments(&scene.stub).len(), 2);
    scene.unknown(text(&listed, "/items/0/id"));
}

#[test]
fn answers_with_two_meanings_are_not_paid() {
    let terms = terms();
    let head = format!("HTTP/1.1 402 Payment Required\r\nPAYMENT-REQUIRED: {terms}\r\nConnection: close\r\n");
    for (what, unpaid) in [
        ("two lengths", format!("{head}Content-Length: 2\r\nContent-Length: 20\r\n\r\n{{}}")),
        ("a folded header", format!("{head}X-A: a\r\n b\r\nContent-Length : 2\r\n\r\n{{}}")),
        ("a bare return", format!("{head}X-A: a\rPAYMENT-REQUIRED: e30=\r\nContent-Length: 2\r\n\r\n{{}}")),
        ("no length that is one", format!("{head}Content-Length: -2\r\n\r\n{{}}")),
        ("a short body", format!("{head}Content-Length: 200\r\n\r\n{{}}")),
    ] {
        let scene =
            Scene::at(Stub::answering_at_once(
                move |request| {
                    if is_paid(request) { goods("", "paid") } else { unpaid.clone() }
                },
            ));
        let answer = scene.fetch();
        // Terms are in the header: that its body ends early is no doubt about them.
        if what == "a short body" {
            assert!(matches!(answer.status, 200 | 502), "{what}: {}", answer.text());
            continue;
        }
        refusal(&answer, 502, "seller-misbehaved");
        assert_eq!(payments(&scene.stub), Vec::<String>::new(), "{what}");
    }
}

#[test]
fn an_answer_that_nobody_asked_for_is_nobodys() {
    // Behind the 402 waits what would be taken for the answer to the payment.
    let unpaid = format!(
        "HTTP/1.1 402 Payment Required\r\nPAYMENT-REQUIRED: {}\r\nContent-Length: 2\r\n\r\n{{}}\
         HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged",
        terms()
    );
    let scene = Scene::at(Stub::answering_at_once(
        move |request| if is_paid(request) { goods("", "goods") } else { unpaid.clone() },
    ));
    let answer = scene.fetch();
    assert!(!answer.text().contains("forged"), "{}", answer.text());
    if answer.status == 200 {
        scene.unknown(header(&answer, "countersign-payment"));
    }
}

#[test]
fn cookies_of_one_agent_are_not_sent_for_another() {
    let stub = Stub::answering_at_once(|_| goods("Set-Cookie: session=1; Path=/\r\n", "free"));
    let scene = Scene::at(stub);
    for agent in [scene.gateway.agent(), scene.gateway.agent(), scene.gateway.agent_with(RIVAL_TOKEN)] {
        assert_eq!(agent.fetch(&scene.stub.url("/free"), json!({})).status, 200);
    }
    let seen = scene.stub.seen();
    assert!(
        seen.len() >= 3 && seen.iter().all(|request| !request.to_ascii_lowercase().contains("\r\ncookie:")),
        "{seen:?}"
    );
}

#[test]
fn a_payee_that_changes_is_not_paid_where_payees_are_pinned() {
    let world = LocalWorld::start();
    let seller = world.world().seller("honest").unwrap();
    let pinned = format!("[[pins]]\nhost = \"127.0.0.1:*\"\npay-to = [\"{}\"]\n", seller.pay_to());
    let pins = toml::from_str::<toml::Table>(&pinned).unwrap().remove("pins").unwrap();
    let pin = Policy::new("pin", "builtin:payee-pin").setting("pins", pins);
    let gateway = Gateway::start(world.config(&["honest"], plain().into_iter().chain([pin])));
    let first = gateway.agent().fetch(&seller.url("/quote"), json!({}));
    assert_eq!(first.status, 200, "{}", first.text());
    let before = seller.stats().authorizations;
    seller.set_pay_to(countersign_core::evm::Address::new([0x77; 20]));
    let changed = gateway.agent().fetch(&seller.url("/quote?again"), json!({}));
    refusal(&changed, 403, "policy-denied");
    assert!(changed.text().contains("payee-not-pinned"), "{}", changed.text());
    assert_eq!(seller.stats().authorizations, before, "signed for another payee");
}
