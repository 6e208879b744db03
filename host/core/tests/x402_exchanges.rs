//! Recorded exchanges of the official client with sellers of seven makes: we read the same offers,
//! would have signed the same digest, sent an equal payment, and understand the receipt.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a fixture that does not fit is a failed test"
)]

use std::sync::{Arc, LazyLock};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign_core::evm::{Address, Signature65, hex32, recover};
use countersign_core::id::PaymentId;
use countersign_core::money::Micros;
use countersign_core::seams::Rail;
use countersign_core::time::Timestamp;
use countersign_core::x402::{AssetTable, Authorization, Challenge, Offer, Receipt, X402, candidates};
use serde_json::{Value, json};

type Headers = Vec<(String, Vec<u8>)>;

fn rail() -> &'static X402 {
    static RAIL: LazyLock<X402> = LazyLock::new(|| X402::new(Arc::new(AssetTable::builtin())));
    &RAIL
}

fn headers(value: &Value) -> Headers {
    let pair = |p: &Value| {
        let [name, value] = [0, 1].map(|i| p[i].as_str().unwrap().to_owned());
        (name, value.into_bytes())
    };
    value.as_array().unwrap().iter().map(pair).collect()
}

fn decoded(header: &str) -> Value {
    serde_json::from_slice(&STANDARD.decode(header).unwrap()).unwrap()
}

/// One client writes `null` for what is absent; we never do.
fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let kept = members.iter().filter(|(_, v)| !v.is_null());
            kept.map(|(k, v)| (k.clone(), without_nulls(v))).collect()
        }
        Value::Array(items) => items.iter().map(without_nulls).collect(),
        other => other.clone(),
    }
}

struct Exchange {
    unpaid: Headers,
    body: String,
    payment_name: String,
    payment: Value,
    paid: Headers,
}

impl Exchange {
    fn read(fixture: &str) -> Self {
        let file: Value = serde_json::from_str(fixture).unwrap();
        Self {
            unpaid: headers(&file["unpaid"]["headers"]),
            body: file["unpaid"]["body"].as_str().unwrap().to_owned(),
            payment_name: file["payment"][0].as_str().unwrap().to_owned(),
            payment: decoded(file["payment"][1].as_str().unwrap()),
            paid: headers(&file["paid"]["headers"]),
        }
    }

    fn authorization(&self) -> &Value {
        &self.payment["payload"]["authorization"]
    }

    fn payer(&self) -> Address {
        self.authorization()["from"].as_str().unwrap().parse().unwrap()
    }

    fn signature(&self) -> Signature65 {
        self.payment["payload"]["signature"].as_str().unwrap().parse().unwrap()
    }

    fn offers(&self) -> Vec<Offer> {
        let rail = rail();
        let body = rail.needs_body(&self.unpaid).then_some(self.body.as_bytes());
        let challenge = Challenge { headers: &self.unpaid, body, request_sha256: None };
        rail.offers(&challenge, self.payer()).unwrap().offers
    }

    /// What we would have signed in the place of the client.
    fn authorize(&self, offer: &Offer, payment: PaymentId) -> Authorization {
        let theirs = self.authorization();
        let until: u64 = theirs["validBefore"].as_str().unwrap().parse().unwrap();
        let now = Timestamp::from_secs(until - u64::from(offer.max_timeout_seconds));
        let nonce = hex32::parse(theirs["nonce"].as_str().unwrap()).unwrap();
        rail().authorize(offer, self.payer(), payment, nonce, now, u32::MAX).unwrap()
    }
}

fn check(fixture: &str) {
    let exchange = Exchange::read(fixture);
    let offer = exchange.offers().remove(0);
    let payment = PaymentId::new(Timestamp::from_secs(1), [0; 10]);
    let authorization = exchange.authorize(&offer, payment);
    assert_eq!(
        recover(&authorization.digest(), &exchange.signature()),
        Some(exchange.payer()),
        "the client signed the very digest we would sign"
    );

    let header = rail().present(&authorization, &exchange.signature()).unwrap();
    assert_eq!(header.name, exchange.payment_name);
    let mut theirs = without_nulls(&exchange.payment);
    if let Some(info) = theirs.pointer_mut("/extensions/payment-identifier/info") {
        // Not demanded there, so we do not send one; see below.
        info.as_object_mut().unwrap().remove("id");
    }
    assert_eq!(decoded(&header.value), theirs);

    let receipt = rail().receipt(&authorization, 200, &exchange.paid);
    let Receipt::Valid { transaction, payer, .. } = receipt else {
        panic!("expected a valid receipt: {receipt:?}");
    };
    assert_eq!(transaction.len(), 66);
    assert_eq!(payer, Some(exchange.payer()));

    let stored = serde_json::to_string(&authorization).unwrap();
    let again: Authorization = serde_json::from_str(&stored).unwrap();
    assert_eq!(again, authorization);
    assert_eq!(again.digest(), authorization.digest());
    assert_eq!(again.offer.digest(), offer.digest());
    assert_eq!(serde_json::to_string(&again).unwrap(), stored);
}

macro_rules! exchanges {
    ($($name:ident: $file:literal;)*) => {
        $(#[test] fn $name() { check(include_str!(concat!("../fixtures/", $file))); })*
    };
}

exchanges! {
    express_v1: "express-v1.json";
    express_v2: "express-v2.json";
    express_v2_with_three_offers: "express-v2-multi.json";
    express_v2_with_payment_identifier: "express-v2-identified.json";
    fastapi: "fastapi.json";
    flask: "flask.json";
    axum: "axum.json";
    axum_v1: "axum-v1.json";
    mcp: "mcp.json";
    mppx: "mppx.json";
}

#[test]
fn a_demanded_identifier_is_our_payment_id() {
    let exchange = Exchange::read(include_str!("../fixtures/express-v2-identified.json"));
    let theirs = exchange.payment.pointer("/extensions/payment-identifier/info/id").unwrap();
    let payment: PaymentId = theirs.as_str().unwrap().parse().unwrap();
    let mut offer = exchange.offers().remove(0);
    assert!(!offer.needs_identifier);
    offer.needs_identifier = true;
    let authorization = exchange.authorize(&offer, payment);
    let header = rail().present(&authorization, &exchange.signature()).unwrap();
    assert_eq!(decoded(&header.value), exchange.payment);
}

#[test]
fn the_cheapest_offer_comes_first() {
    let exchange = Exchange::read(include_str!("../fixtures/express-v2-multi.json"));
    let rail = rail();
    let challenge = Challenge { headers: &exchange.unpaid, body: None, request_sha256: None };
    let offers = rail.offers(&challenge, exchange.payer()).unwrap();
    assert_eq!(offers.error.as_deref(), Some("Payment required"));
    let skipped: Vec<_> = offers.skipped.iter().map(|s| (s.index, s.code)).collect();
    assert_eq!(skipped, [(2, "unknown-asset")], "nobody told us what a USD18 is");
    let values: Vec<_> = candidates(offers.offers).into_iter().map(|p| p.value).collect();
    assert_eq!(values, ["0.003", "0.5"].map(|v| Micros::parse(v).unwrap()));
}

#[test]
fn what_sellers_say_is_kept_apart() {
    let exchange = Exchange::read(include_str!("../fixtures/express-v1.json"));
    let offer = exchange.offers().remove(0);
    assert_eq!(offer.description.as_deref(), Some("cheap quote"));
    assert_eq!(offer.mime_type.as_deref(), Some("application/json"));
    assert_eq!(offer.network_name, "base-sepolia");
    assert!(offer.resource_url.unwrap().ends_with("/cheap"));
    assert_eq!((offer.resource, offer.extensions), (None, None));
}

#[test]
fn the_published_header_vector() {
    let file: Value = serde_json::from_str(include_str!("../fixtures/vectors.json")).unwrap();
    let vector = &file["header"];
    let theirs = decoded(vector["PAYMENT-SIGNATURE"].as_str().unwrap());
    assert_eq!(theirs, vector["json"]);
    let terms = json!({
        "x402Version": 2, "resource": theirs["resource"], "accepts": [theirs["accepted"]],
    });
    let exchange = Exchange {
        unpaid: vec![("payment-required".into(), STANDARD.encode(terms.to_string()).into())],
        body: String::new(),
        payment_name: String::new(),
        payment: theirs.clone(),
        paid: vec![],
    };
    let offer = exchange.offers().remove(0);
    let authorization = exchange.authorize(&offer, PaymentId::from_bytes([0; 16]));
    assert_eq!(authorization.valid_before, 1_900_000_000);
    assert_eq!(hex32::print(&authorization.digest()), file["vectors"][0]["digest"].as_str().unwrap());
    let header = rail().present(&authorization, &exchange.signature()).unwrap();
    assert_eq!(decoded(&header.value), theirs);
}
