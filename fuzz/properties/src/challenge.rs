//! `WWW-Authenticate` with challenges of MPP: whatever an accepted one says, what is signed is ours and is bound to it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use countersign_core::evm::{Address, TransferWithAuthorization, hex32, keccak256, recover};
use countersign_core::json::Json;
use countersign_core::money::Atomic;
use countersign_core::mpp::{MAX_CHALLENGES, Mpp};
use countersign_core::seams::Rail as _;
use countersign_core::x402::text::hidden;
use countersign_core::x402::{Authorization, Challenge, MAX_PAYMENT_HEADER, Offer, Protocol, RailError};
use std::sync::LazyLock;

use crate::rail::{NONCE, NOW, RAIL, VALIDITY, payer, payment, sign};
use crate::{json, lines, way};

static MPP: LazyLock<Mpp> = LazyLock::new(|| Mpp::new(RAIL.assets.clone()));

/// `w`: fields as they are, one a line; `d`: the data of a JSON-RPC error; anything else: a request's JSON, put into a
/// field for the fuzzer.
pub(crate) fn check(bytes: &[u8]) {
    let (first, rest) = way(bytes);
    let found = match first {
        b'd' => MPP.offers_in(rest, payer()),
        b'w' => read(lines(rest).map(<[u8]>::to_vec)),
        _ => read(std::iter::once(field(rest))),
    };
    match found {
        Ok(offers) => {
            assert!((1..=MAX_CHALLENGES).contains(&(offers.offers.len() + offers.skipped.len())));
            offers.offers.iter().take(2).for_each(|offer| accepted(offer, first == b'd'));
        }
        Err(error) => {
            let text = error.to_string();
            assert!(!error.code().is_empty() && !text.contains(hidden), "{text:?}");
        }
    }
}

fn read(fields: impl Iterator<Item = Vec<u8>>) -> Result<countersign_core::x402::Offers, RailError> {
    let headers: Vec<_> = fields.map(|field| ("www-authenticate".to_owned(), field)).collect();
    MPP.offers(&Challenge { headers: &headers, body: None, request_sha256: None }, payer())
}

fn field(request: &[u8]) -> Vec<u8> {
    let request = URL_SAFE_NO_PAD.encode(request);
    format!(r#"Payment id="a", realm="b", method="evm", intent="charge", request="{request}""#).into_bytes()
}

fn accepted(offer: &Offer, in_json: bool) {
    assert_eq!(RAIL.assets.get(offer.network, offer.asset.address), Some(&offer.asset), "an asset that is not ours");
    assert!(offer.amount > Atomic::new(0) && offer.rail() == "mpp");
    assert!(!offer.pay_to.is_zero() && offer.pay_to != payer() && offer.pay_to != offer.asset.address);
    assert!(offer.description.iter().all(|words| !words.contains(hidden) && words.chars().count() <= 256));
    assert!(json::distinct(offer.raw.as_bytes()), "a repeated key was accepted");
    let stored = serde_json::to_string(offer).unwrap();
    let again: Offer = serde_json::from_str(&stored).expect("an offer is read back");
    assert_eq!((&again, again.digest()), (offer, offer.digest()));
    match MPP.authorize(offer, payer(), payment(), NONCE, NOW, VALIDITY) {
        Ok(authorization) => authorized(&authorization, in_json),
        Err(RailError::Ended { .. } | RailError::HeaderTooLarge { .. }) => {}
        Err(error) => panic!("{error}"),
    }
}

/// What would be signed is read back from what would be sent.
fn authorized(authorization: &Authorization, in_json: bool) {
    let Protocol::Mpp(challenge) = &authorization.offer.protocol else { panic!("another rail") };
    assert_eq!(authorization.nonce, keccak256(format!("{}{}", challenge.id, challenge.realm).as_bytes()));
    let ends = challenge.ends().map_or(u64::MAX, |at| at.as_secs());
    assert!(authorization.valid_before <= ends.min(NOW.as_secs() + u64::from(VALIDITY)));
    let signature = sign(&authorization.digest());
    let header = MPP.present(authorization, &signature).expect("what is authorized can be presented");
    assert!(header.value.len() <= MAX_PAYMENT_HEADER);
    let bytes = URL_SAFE_NO_PAD.decode(header.value.strip_prefix("Payment ").unwrap()).unwrap();
    let sent = Json::parse(&bytes, bytes.len()).expect("what is sent is strict JSON");
    let text = |path: [&str; 2]| sent.get(path[0])?.get(path[1])?.as_str().map(str::to_owned);
    for (name, ours) in [("id", &challenge.id), ("realm", &challenge.realm), ("request", &challenge.request)] {
        if !in_json || name != "request" {
            assert_eq!(text(["challenge", name]).as_ref(), Some(ours), "{name}");
        }
    }
    assert_eq!(text(["challenge", "expires"]), challenge.expires);
    let said = |name| text(["payload", name]).unwrap();
    let address = |name| said(name).parse::<Address>().unwrap();
    let number = |name| said(name).parse::<u64>().unwrap();
    let message = TransferWithAuthorization {
        from: address("from"),
        to: address("to"),
        value: Atomic::parse_price(&said("value")).unwrap(),
        valid_after: number("validAfter"),
        valid_before: number("validBefore"),
        nonce: hex32::parse(&said("nonce")).unwrap(),
    };
    assert_eq!((message.to, message.value), (authorization.offer.pay_to, authorization.offer.amount));
    let asset = RAIL.assets.get(authorization.offer.network, authorization.offer.asset.address).unwrap();
    assert_eq!(recover(&message.digest(&asset.domain()), &signature), Some(payer()));
}
