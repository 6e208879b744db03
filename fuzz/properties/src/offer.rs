//! The terms of a 402, in a header or a body: whatever an accepted offer says, what is signed is ours.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign_core::evm::{Address, TransferWithAuthorization, hex32, recover};
use countersign_core::json::Json;
use countersign_core::money::Atomic;
use countersign_core::seams::Rail as _;
use countersign_core::x402::text::hidden;
use countersign_core::x402::{
    Authorization, Challenge, MAX_CANDIDATES, MAX_OFFERS, MAX_PAYMENT_HEADER, Offer, Offers, Protocol, RailError,
    Version, candidates,
};
use serde_json::Value;

use crate::rail::{NONCE, NOW, RAIL, VALIDITY, payer, payment, sign};
use crate::{json, way};

/// `h`: the header as it is; `b`: the body; anything else: JSON, put into the header for the fuzzer.
pub(crate) fn check(bytes: &[u8]) {
    let (first, rest) = way(bytes);
    let (headers, body, terms) = match first {
        b'h' => (header(rest.to_vec()), None, STANDARD.decode(rest).ok()),
        b'b' => (Vec::new(), Some(rest), Some(rest.to_vec())),
        _ => (header(STANDARD.encode(rest).into_bytes()), None, Some(rest.to_vec())),
    };
    match RAIL.offers(&Challenge { headers: &headers, body, request_sha256: None }, payer()) {
        Ok(offers) => accepted(&offers, terms, body.is_some()),
        Err(error) => refused(&error),
    }
}

fn header(value: Vec<u8>) -> Vec<(String, Vec<u8>)> {
    vec![("payment-required".to_owned(), value)]
}

/// A refusal may reach an agent: no words of the seller are in it that could be read otherwise.
fn refused(error: &RailError) {
    let text = error.to_string();
    assert!(!error.code().is_empty() && !text.contains(hidden), "{text:?}");
    if let RailError::NothingPayable(skipped) = error {
        assert!((1..=MAX_OFFERS).contains(&skipped.len()));
    }
}

fn accepted(offers: &Offers, terms: Option<Vec<u8>>, from_body: bool) {
    // Unpadded base64 is taken too; then the terms are not known here.
    let terms = terms.inspect(|terms| assert!(json::distinct(terms), "a repeated key was accepted"));
    let terms = terms.and_then(|terms| json::reread(&terms));
    assert!((1..=MAX_OFFERS).contains(&(offers.offers.len() + offers.skipped.len())));
    assert!(offers.error.as_ref().is_none_or(|e| !e.contains(hidden) && e.chars().count() <= 257));
    for offer in &offers.offers {
        assert!(
            !from_body || offer.protocol == Protocol::X402(Version::V1),
            "terms of version 2 were taken from a body"
        );
        ours(offer);
        if let Some(terms) = &terms {
            theirs(offer, terms);
        }
    }
    let priced = candidates(offers.offers.clone());
    assert!(priced.len() <= MAX_CANDIDATES && priced.is_sorted_by_key(|p| p.value));
    for found in offers.offers.iter().take(2) {
        match RAIL.authorize(found, payer(), payment(), NONCE, NOW, VALIDITY) {
            Ok(authorization) => authorized(&authorization),
            Err(error) => assert!(matches!(error, RailError::ValidityTooShort { .. }), "{error}"),
        }
    }
}

/// Network, asset and payee are ours to know.
fn ours(offer: &Offer) {
    let known = RAIL.assets.get(offer.network, offer.asset.address);
    assert_eq!(known, Some(&offer.asset), "an asset that is not the operator's");
    assert_eq!(offer.scheme, "exact");
    assert!(offer.amount > Atomic::new(0) && offer.max_timeout_seconds > 0);
    assert!(!offer.pay_to.is_zero() && offer.pay_to != payer() && offer.pay_to != offer.asset.address);
    for words in [&offer.description, &offer.mime_type, &offer.category].into_iter().flatten() {
        assert!(!words.contains(hidden) && words.chars().count() <= 256);
    }
    let stored = serde_json::to_string(offer).unwrap();
    let again: Offer = serde_json::from_str(&stored).expect("an offer is read back");
    assert_eq!((&again, again.digest()), (offer, offer.digest()));
}

/// What another reader of JSON finds in the same bytes.
fn theirs(offer: &Offer, terms: &Value) {
    let said = &terms["accepts"][offer.index];
    let key = if offer.protocol == Protocol::X402(Version::V1) { "maxAmountRequired" } else { "amount" };
    assert_eq!(said[key], offer.amount.to_string());
    assert_eq!(said["network"], offer.network_name.as_str());
    for (key, ours) in [("asset", offer.asset.address), ("payTo", offer.pay_to)] {
        assert_eq!(said[key].as_str().and_then(|text| text.parse().ok()), Some(ours), "{key}");
    }
    assert_eq!(serde_json::from_str::<Value>(&offer.raw).as_ref().ok(), Some(said));
    for (key, raw) in [("resource", &offer.resource), ("extensions", &offer.extensions)] {
        if let Some(raw) = raw {
            assert_eq!(serde_json::from_str::<Value>(raw).ok().as_ref(), Some(&terms[key]));
        }
    }
}

/// What would be signed is read back from what would be sent.
fn authorized(authorization: &Authorization) {
    let stored = serde_json::to_string(authorization).unwrap();
    let again: Authorization = serde_json::from_str(&stored).expect("an authorization is read back");
    assert_eq!((&again, again.digest()), (authorization, authorization.digest()));

    let signature = sign(&authorization.digest());
    let header = match RAIL.present(authorization, &signature) {
        Ok(header) => header,
        Err(error) => return assert!(matches!(error, RailError::HeaderTooLarge { .. }), "{error}"),
    };
    assert!(header.value.len() <= MAX_PAYMENT_HEADER && header.value.is_ascii());
    let bytes = STANDARD.decode(&header.value).unwrap();
    let sent = Json::parse(&bytes, bytes.len()).expect("what is sent is strict JSON");
    let offer = &authorization.offer;
    if offer.protocol == Protocol::X402(Version::V2) {
        assert_eq!(sent.get("accepted").map(|a| a.raw), Some(offer.raw.as_str()));
    }
    let text = |key: &str| sent.get("payload")?.get("authorization")?.get(key)?.as_str().map(str::to_owned);
    let address = |key| text(key).and_then(|text| text.parse::<Address>().ok()).expect("an address");
    let number = |key| text(key).and_then(|text| text.parse::<u64>().ok()).expect("a number");
    let message = TransferWithAuthorization {
        from: address("from"),
        to: address("to"),
        value: Atomic::parse_price(&text("value").unwrap()).unwrap(),
        valid_after: number("validAfter"),
        valid_before: number("validBefore"),
        nonce: hex32::parse(&text("nonce").unwrap()).unwrap(),
    };
    assert_eq!((message.to, message.value), (offer.pay_to, offer.amount));
    assert!(message.valid_before <= NOW.as_secs() + u64::from(VALIDITY));
    let asset = RAIL.assets.get(offer.network, offer.asset.address).unwrap();
    assert_eq!(recover(&message.digest(&asset.domain()), &signature), Some(payer()));
}
