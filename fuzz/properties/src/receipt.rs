//! The receipt header: a claim, and only one about our payment.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign_core::money::Atomic;
use countersign_core::seams::Rail as _;
use countersign_core::x402::text::hidden;
use countersign_core::x402::{Authorization, Challenge, Protocol, Receipt, Version};
use std::sync::LazyLock;

use crate::rail::{NONCE, NOW, RAIL, VALIDITY, payer, payment};
use crate::{json, lines, way};

const TERMS: [(&str, &str); 2] = [("base-sepolia", "maxAmountRequired"), ("eip155:84532", "amount")];

/// One payment of each version.
static PAYMENTS: LazyLock<[Authorization; 2]> = LazyLock::new(|| {
    [1, 2].map(|version: usize| {
        let (network, key) = TERMS[version - 1];
        let terms = format!(
            r#"{{"x402Version":{version},"accepts":[{{"scheme":"exact","network":"{network}","{key}":"1000",
            "asset":"0x036CbD53842c5426634e7929541eC2318f3dCF7e","payTo":"0x90F79bf6EB2c4f870365E785982E1f101E93b906",
            "maxTimeoutSeconds":60,"extra":{{"name":"USDC","version":"2"}}}}]}}"#
        );
        let value = STANDARD.encode(terms).into_bytes();
        let headers = [("payment-required".to_owned(), value)];
        let offers =
            RAIL.offers(&Challenge { headers: &headers, body: None, request_sha256: None }, payer()).unwrap().offers;
        RAIL.authorize(&offers[0], payer(), payment(), NONCE, NOW, VALIDITY).unwrap()
    })
});

/// `h`: the header as it is, a second one in a second line; else JSON, put into the header. Its bits say which
/// version was paid in, and whether the answer is another 402.
pub(crate) fn check(bytes: &[u8]) {
    let (first, rest) = way(bytes);
    let authorization = &PAYMENTS[usize::from(first & 1)];
    let status = if first & 2 == 0 { 200 } else { 402 };
    let name = match authorization.offer.protocol {
        Protocol::X402(Version::V1) if first & 4 != 0 => "x-payment-response",
        _ => "payment-response",
    };
    let raw = first & 8 != 0;
    let values: Vec<Vec<u8>> =
        if raw { lines(rest).map(<[u8]>::to_vec).collect() } else { vec![STANDARD.encode(rest).into_bytes()] };
    let headers: Vec<(String, Vec<u8>)> = values.iter().map(|value| (name.to_owned(), value.clone())).collect();
    match RAIL.receipt(authorization, status, &headers) {
        Receipt::Valid { transaction, payer: who, amount } => {
            assert_eq!((values.len(), status), (1, 200));
            valid(authorization, &transaction);
            assert!(who.is_none_or(|who| who == payer()));
            assert!(amount.is_none_or(|amount: Atomic| amount == authorization.offer.amount));
            if !raw {
                said(authorization, rest, &transaction);
            }
        }
        Receipt::Failed { error_reason, transaction } => {
            assert!(!error_reason.contains(hidden) && error_reason.chars().count() <= 257);
            transaction.iter().for_each(|transaction| valid(authorization, transaction));
        }
        Receipt::Invalid { code, message } => {
            assert!(code.starts_with("receipt-") && !message.contains(hidden));
        }
        Receipt::Absent => panic!("a receipt was overlooked"),
    }
}

fn valid(authorization: &Authorization, transaction: &str) {
    let digits = transaction.strip_prefix("0x").expect("0x");
    assert!(digits.len() == 64 && digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)));
    assert!(digits.bytes().any(|b| b != b'0'));
    assert!(!authorization.offer.network_name.is_empty());
}

/// What another reader of JSON finds in the same bytes.
fn said(authorization: &Authorization, receipt: &[u8], transaction: &str) {
    assert!(json::distinct(receipt), "a repeated key was accepted");
    let Some(said) = json::reread(receipt) else { return };
    assert_eq!(said["success"], true);
    assert_eq!(said["network"], authorization.offer.network_name.as_str());
    assert!(said["transaction"].as_str().is_some_and(|t| t.eq_ignore_ascii_case(transaction)));
    let payer = payer().to_string();
    assert!(said["payer"].is_null() || said["payer"].as_str().is_some_and(|p| p.eq_ignore_ascii_case(&payer)));
    assert!(said["amount"].is_null() || said["amount"] == authorization.offer.amount.to_string());
}
