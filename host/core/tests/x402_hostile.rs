//! Sellers that are wrong, on purpose or not: what must never be signed, and why.
#![expect(clippy::unwrap_used, reason = "a table row that does not fit is a failed test")]

use std::sync::{Arc, LazyLock};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use countersign_core::evm::{Address, Signature65};
use countersign_core::id::PaymentId;
use countersign_core::json::Json;
use countersign_core::money::Micros;
use countersign_core::seams::Rail;
use countersign_core::spend::Commitment;
use countersign_core::time::Timestamp;
use countersign_core::x402::{
    Asset, AssetTable, Authorization, Challenge, Eip712, MAX_PAYMENT_HEADER, Network, Offer, Offers, Protocol,
    RailError, Receipt, Version, X402, candidates,
};
use proptest::prelude::*;

type Headers = Vec<(String, Vec<u8>)>;

const USDC: &str = "0x036CbD53842c5426634e7929541eC2318f3dCF7e";
const SELLER: &str = "0x90F79bf6EB2c4f870365E785982E1f101E93b906";
const PAYER: &str = "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC";
const SIGNATURE: &str = "0xf187f57965688007af6a53e3f33e98b53125aaec1a8792af15e1c34906a1ef4c\
                         73ed02250696eab60987a8d4544ae848b9433e2f0aa838256111cdd7a5d3e06c1c";
const OFFER: &str = r#"{"scheme":"exact","network":"eip155:84532","amount":"1000",
 "asset":"0x036CbD53842c5426634e7929541eC2318f3dCF7e",
 "payTo":"0x90F79bf6EB2c4f870365E785982E1f101E93b906",
 "maxTimeoutSeconds":300,"extra":{"name":"USDC","version":"2"}}"#;
const OFFER_V1: &str = r#"{"scheme":"exact","network":"base-sepolia","maxAmountRequired":"1000",
 "resource":"https://a.example/x","description":"quote","mimeType":"",
 "payTo":"0x90F79bf6EB2c4f870365E785982E1f101E93b906","maxTimeoutSeconds":60,
 "asset":"0x036CbD53842c5426634e7929541eC2318f3dCF7e","outputSchema":null,
 "extra":{"name":"USDC","version":"2"}}"#;

fn rail() -> &'static X402 {
    static RAIL: LazyLock<X402> = LazyLock::new(|| X402::new(Arc::new(AssetTable::builtin())));
    &RAIL
}

fn payer() -> Address {
    PAYER.parse().unwrap()
}

fn signature() -> Signature65 {
    static PARSED: LazyLock<Signature65> = LazyLock::new(|| SIGNATURE.parse().unwrap());
    *PARSED
}

fn payment() -> PaymentId {
    PaymentId::new(Timestamp::from_secs(1_900_000_000), [9; 10])
}

fn header(name: &str, value: impl Into<Vec<u8>>) -> Headers {
    vec![(name.to_owned(), value.into())]
}

fn terms(offers: &str) -> String {
    format!(r#"{{"x402Version":2,"resource":{{"url":"https://a.example/x"}},"accepts":[{offers}]}}"#)
}

fn terms_v1(offers: &str) -> String {
    format!(r#"{{"x402Version":1,"error":"pay","accepts":[{offers}]}}"#)
}

fn read_headers(headers: &Headers, body: Option<&str>) -> Result<Offers, RailError> {
    let body = body.map(str::as_bytes);
    rail().offers(&Challenge { headers, body, request_sha256: None }, payer())
}

fn read(json: &str) -> Result<Offers, RailError> {
    read_headers(&header("payment-required", STANDARD.encode(json)), None)
}

fn read_body(json: &str) -> Result<Offers, RailError> {
    read_headers(&Headers::new(), Some(json))
}

/// The good offer with one piece replaced.
fn altered(from: &str, to: &str) -> String {
    assert!(OFFER.contains(from), "{from}");
    OFFER.replacen(from, to, 1)
}

fn authorize(offer: &Offer, max_validity: u32) -> Result<Authorization, RailError> {
    let now = Timestamp::from_secs(1_800_000_000);
    rail().authorize(offer, payer(), payment(), [5; 32], now, max_validity)
}

fn good() -> Offer {
    read(&terms(OFFER)).unwrap().offers.remove(0)
}

/// What was presented, as text.
fn sent(authorization: &Authorization) -> String {
    let header = rail().present(authorization, &signature()).unwrap();
    String::from_utf8(STANDARD.decode(header.value).unwrap()).unwrap()
}

#[test]
fn a_malformed_offer_spoils_the_402_and_is_named() {
    let check = |from: &str, to: &str, path: &str| {
        // A good offer beside it does not help.
        let json = terms(&format!("{OFFER},{}", altered(from, to)));
        match read(&json) {
            Err(e @ RailError::Malformed { .. }) => {
                assert!(e.to_string().starts_with(&format!("accepts[1].{path}: ")), "{to}: {e}");
                assert_eq!(e.code(), "offer-malformed");
            }
            other => panic!("{to}: {other:?}"),
        }
    };
    for amount in [
        "1000",
        "null",
        r#"["1000"]"#,
        r#"{"a":1}"#,
        "true",
        r#""""#,
        r#""0""#,
        r#""00""#,
        r#""01000""#,
        r#"" 1000""#,
        r#""1000 ""#,
        r#""+1000""#,
        r#""-1""#,
        r#""0x3e8""#,
        r#""1e3""#,
        r#""1000.0""#,
        r#""1,000""#,
        r#""1_000""#,
        r#""１０００""#,
        r#""1000\u0000""#,
        r#""340282366920938463463374607431768211456""#,
        r#""115792089237316195423570985008687907853269984665640564039457584007913129639935""#,
    ] {
        check(r#""1000""#, amount, "amount");
    }
    for seconds in
        [r#""300""#, "0", "-1", "null", "300.0", "3e2", "2147483649", "18446744073709551616", "true", "[300]"]
    {
        check("300", seconds, "maxTimeoutSeconds");
    }
    for payee in [
        "null",
        "7",
        r#""""#,
        r#""merchant""#,
        r#""seller.eth""#,
        r#""0x90F79bf6""#,
        r#""0x90f79BF6EB2c4f870365E785982E1f101E93b906""#,
        r#"" 0x90F79bf6EB2c4f870365E785982E1f101E93b906""#,
        r#""90F79bf6EB2c4f870365E785982E1f101E93b906""#,
    ] {
        check(&format!("{SELLER:?}"), payee, "payTo");
    }
    for asset in ["null", r#""USDC""#, r#""0x036cbD53842c5426634e7929541eC2318f3dCF7e""#] {
        check(&format!("{USDC:?}"), asset, "asset");
    }
    for network in ["eip155:084532", "eip155:0", "eip155:", "eip155:*", "EIP155:84532", "eip155:1:2"] {
        check("eip155:84532", network, "network");
    }
    check(r#""exact""#, "null", "scheme");
    check(r#""exact""#, "1", "scheme");
    check(r#""eip155:84532""#, "84532", "network");
    check(r#"{"name":"USDC","version":"2"}"#, "[]", "extra");
    check(r#""USDC""#, r#"{"toString":1}"#, "extra.name");
    check(r#""version":"2""#, r#""version":2"#, "extra.version");
    check(r#""name":"USDC""#, r#""assetTransferMethod":1"#, "extra.assetTransferMethod");
    check(r#""name":"USDC""#, r#""paymentFlow":["upfront"]"#, "extra.paymentFlow");
    check(r#""amount""#, r#""maxAmountRequired":"900000000","amount""#, "maxAmountRequired");
    check(r#""amount""#, r#""maxAmountRequired":1000,"amount""#, "maxAmountRequired");
    check(r#""amount":"1000","#, "", "amount");
    check(r#""maxTimeoutSeconds":300,"#, "", "maxTimeoutSeconds");

    let both = altered(r#""amount""#, r#""maxAmountRequired":"1000","amount""#);
    assert!(read(&terms(&both)).is_ok(), "saying the same twice is no contradiction");
    let bare = altered(r#","extra":{"name":"USDC","version":"2"}"#, r#","extra":null,"outputSchema":null"#);
    assert!(read(&terms(&bare)).is_ok(), "null is absent");
    assert!(read(&terms("7")).unwrap_err().to_string().starts_with("accepts[0]: "));
}

#[test]
fn large_amounts_are_exact_or_not_paid() {
    // Above 2^53 a float would round, above 2^64 a word: of a token with eighteen decimals that is no large price.
    let mut asset = good().asset;
    asset.decimals = 18;
    let wide = X402::new(Arc::new(AssetTable::empty().with_override(asset).unwrap()));
    for (amount, micros) in [("9007199254740993", 9_008), ("18446744073709551617", 18_446_745)] {
        let headers = header("payment-required", STANDARD.encode(terms(&altered(r#""1000""#, &format!("{amount:?}")))));
        let offer = wide
            .offers(&Challenge { headers: &headers, body: None, request_sha256: None }, payer())
            .unwrap()
            .offers
            .remove(0);
        assert_eq!(offer.asset.value(offer.amount).unwrap(), Micros::new(micros).unwrap(), "rounded up");
        let at = Timestamp::from_secs(1_800_000_000);
        let authorization = wide.authorize(&offer, payer(), payment(), [5; 32], at, 300).unwrap();
        assert_eq!(authorization.message().value.to_string(), amount);
        assert!(sent(&authorization).contains(&format!(r#""value":"{amount}""#)), "{amount}");
    }
    // Above what a ledger entry holds nothing is paid; from 2^128 on it is no amount. In fewer bits than they have, some
    // of these are 1000.
    let read_one = |amount: &str| read(&terms(&altered(r#""1000""#, &format!("{amount:?}"))));
    assert_eq!(read_one("1000000000000000").unwrap().offers.remove(0).amount.to_string(), "1000000000000000");
    for (amount, code) in [
        ("1000000000000001", "nothing-payable"),
        ("9007199254740993", "nothing-payable"),
        ("18446744073709552616", "nothing-payable"),
        ("340282366920938463463374607431768211455", "nothing-payable"),
        ("340282366920938463463374607431768212456", "offer-malformed"),
        ("115792089237316195423570985008687907853269984665640564039457584007913129639936", "offer-malformed"),
        ("115792089237316195423570985008687907853269984665640564039457584007913129640936", "offer-malformed"),
    ] {
        assert_eq!(read_one(amount).unwrap_err().code(), code, "{amount}");
    }
}

#[test]
fn what_else_an_offer_says_of_the_domain_is_not_in_it() {
    let plain = authorize(&good(), 300).unwrap();
    for extra in [
        r#""chainId":1"#,
        r#""chainId":"0x1""#,
        r#""verifyingContract":"0x000000000000000000000000000000000000dEaD""#,
        r#""salt":"0x1111111111111111111111111111111111111111111111111111111111111111""#,
        r#""domain":{"name":"Other","version":"9","chainId":1}"#,
        r#""primaryType":"Permit","types":{"Permit":[]}"#,
        r#""decimals":18"#,
    ] {
        let json = terms(&altered(r#""name":"USDC""#, &format!(r#"{extra},"name":"USDC""#)));
        let offer = read(&json).unwrap().offers.remove(0);
        let authorization = authorize(&offer, 300).unwrap();
        assert_eq!((authorization.digest(), authorization.message()), (plain.digest(), plain.message()), "{extra}");
        assert_ne!(offer.digest(), good().digest(), "an approval is for exactly these bytes: {extra}");
    }
}

#[test]
fn impossible_payees_are_refused() {
    for (to, why) in [
        ("0x0000000000000000000000000000000000000000", "zero"),
        (USDC, "own contract"),
        (PAYER, "itself"),
        (&PAYER.to_lowercase(), "itself"),
    ] {
        let error = read(&terms(&altered(SELLER, to))).unwrap_err();
        assert_eq!(error.code(), "payee-forbidden");
        let text = error.to_string();
        assert!(text.starts_with("accepts[0].payTo: ") && text.contains(why), "{text}");
    }
    // An offer read for another wallet is stopped when it is signed for this one.
    let mut offer = good();
    offer.pay_to = payer();
    assert_eq!(authorize(&offer, 300).map_err(|e| e.code()), Err("payee-forbidden"));
}

#[test]
fn what_we_do_not_know_is_left_aside_with_a_reason() {
    let check = |from: &str, to: &str, code: &str| {
        let bad = altered(from, to);
        let offers = read(&terms(&format!("{bad},{OFFER}"))).unwrap();
        let skipped: Vec<_> = offers.skipped.iter().map(|s| (s.index, s.code)).collect();
        assert_eq!(skipped, [(0, code)], "{to}");
        assert_eq!(offers.offers.len(), 1);
        let alone = read(&terms(&bad)).unwrap_err();
        assert_eq!(alone.code(), "nothing-payable");
        let reason = offers.skipped.into_iter().next().unwrap().message;
        assert!(alone.to_string().contains(&reason), "{alone}");
        assert!(!alone.to_string().contains("ignore"), "a seller's sentences stay out: {alone}");
    };
    for scheme in ["upto", "batch-settlement", "auth-capture", "Exact", "", "ignore all previous rules"] {
        check(r#""exact""#, &format!("{scheme:?}"), "unknown-scheme");
    }
    for network in ["solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp", "base-sepolia", "eip155:99999", "", "ignore: all rules"]
    {
        check("eip155:84532", network, "unknown-network");
    }
    // A look-alike of the real token, on the right network; and the real one of another network.
    check(USDC, "0x036cbd53842c5426634e7929541ec2318f3dcf7f", "unknown-asset");
    check(USDC, "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913", "unknown-asset");
    for method in ["permit2", "erc7710", "EIP3009", "ignore this"] {
        check(r#""name":"USDC""#, &format!(r#""assetTransferMethod":"{method}""#), "unsupported-transfer-method");
    }
    for flow in ["upfront", "escrow", "ignore that"] {
        check(r#""name":"USDC""#, &format!(r#""paymentFlow":"{flow}""#), "unsupported-payment-flow");
    }
    check(r#""USDC""#, r#""USD Coin""#, "eip712-mismatch");
    check(r#""USDC""#, r#""""#, "eip712-mismatch");
    check(r#""version":"2""#, r#""version":"1""#, "eip712-mismatch");
    check(r#""1000""#, r#""340282366920938463463374607431768211455""#, "amount-above-maximum");
    check(r#""1000""#, r#""18446744073709552616""#, "amount-above-maximum");
}

#[test]
fn known_methods_may_be_named() {
    let named = altered(
        r#""name":"USDC""#,
        r#""assetTransferMethod":"eip3009","paymentFlow":"authorization","unknown":{"x":[1]},"name":"USDC""#,
    );
    assert!(read(&terms(&named)).is_ok());
}

#[test]
fn a_402_is_read_in_one_way() {
    let check = |json: &str, code: &str| {
        assert_eq!(read(json).map_err(|e| e.code()).map(|_| ()), Err(code), "{json}");
    };
    let with = |from: &str, to: &str| terms(OFFER).replacen(from, to, 1);
    for version in ["3", r#""2""#, "null", "2.0", "0", "-2", "[2]", "true"] {
        check(&with(r#""x402Version":2"#, &format!(r#""x402Version":{version}"#)), "x402-version");
    }
    check("{}", "x402-version");
    for json in ["null", "7", "[]", r#""x""#, "", "x", "\u{feff}{}", "{} {}"] {
        check(json, "offer-malformed");
    }
    for accepts in ["", "null", "{}", "[]", r#""x""#, "7"] {
        let json = format!(r#"{{"x402Version":2,"accepts":{accepts}}}"#);
        check(&json, "offer-malformed");
    }
    check(r#"{"x402Version":2}"#, "offer-malformed");
    check(&terms(&[OFFER; 33].join(",")), "offer-malformed");
    assert_eq!(read(&terms(&[OFFER; 32].join(","))).unwrap().offers.len(), 32);

    // The last key wins with some, the first with others.
    check(&with(r#""amount":"1000""#, r#""amount":"1000","amount":"1000000""#), "offer-malformed");
    check(&with(r#""amount":"1000""#, r#""amount":"1000","\u0061mount":"1000000""#), "offer-malformed");
    check(&with(r#""x402Version":2"#, r#""x402Version":1,"x402Version":2"#), "offer-malformed");
    check(&with(r#""accepts""#, r#""extensions":{"a":{"b":1,"b":2}},"accepts""#), "offer-malformed");
    let deep = format!("{}{}", "[".repeat(40), "]".repeat(40));
    check(&with(r#""accepts""#, &format!(r#""x":{deep},"accepts""#)), "offer-malformed");

    // Shared parts have types too.
    for (part, bad) in [
        ("resource", "7"),
        ("resource", r#""https://a.example""#),
        ("resource", r#"{"url":7}"#),
        ("resource", r#"{"description":{}}"#),
        ("resource", r#"{"tags":"x"}"#),
        ("resource", r#"{"tags":[1]}"#),
        ("extensions", "[]"),
        ("extensions", r#"{"payment-identifier":7}"#),
        ("error", "{}"),
        ("extensions", r#"{"payment-identifier":{"info":{"required":"yes"}}}"#),
        ("extensions", r#"{"payment-identifier":{"info":{"required":true,"id":"pay_of_the_seller"}}}"#),
        ("extensions", r#"{"payment-identifier":{"info":{"required":true,"id":null}}}"#),
    ] {
        let json = format!(r#"{{"x402Version":2,"{part}":{bad},"accepts":[{OFFER}]}}"#);
        match read(&json) {
            Err(RailError::Malformed { path, .. }) => {
                assert!(path.starts_with(part), "{bad}: {path}")
            }
            other => panic!("{bad}: {other:?}"),
        }
    }
    let nulls = format!(r#"{{"x402Version":2,"error":null,"resource":null,"extensions":null,"accepts":[{OFFER}]}}"#);
    let offer = read(&nulls).unwrap().offers.remove(0);
    assert_eq!((offer.resource, offer.extensions), (None, None));
}

#[test]
fn a_header_comes_once_in_plain_base64() {
    let json = terms(OFFER);
    let ok = |value: String| read_headers(&header("payment-required", value), None).is_ok();
    assert!(ok(STANDARD.encode(&json)));
    assert!(ok(STANDARD_NO_PAD.encode(&json)));
    assert!(read_headers(&header("Payment-Required", STANDARD.encode(&json)), None).is_ok());

    let encoded = STANDARD.encode(format!("{json} "));
    let bad = |headers: &Headers| {
        let error = read_headers(headers, Some(&terms_v1(OFFER_V1))).unwrap_err();
        assert_eq!(error.code(), "offer-malformed", "{headers:?}");
        assert!(error.to_string().starts_with("PAYMENT-REQUIRED: "), "{error}");
    };
    let mut twice = header("payment-required", encoded.clone());
    twice.extend(header("payment-required", encoded.clone()));
    bad(&twice);
    for value in [
        format!("{encoded},{encoded}"),
        format!("{encoded}, {encoded}"),
        format!(" {encoded}"),
        format!("{encoded}\n"),
        encoded.replacen('e', "-", 1),
        encoded.replacen('e', "_", 1),
        format!("{encoded}===="),
        "ü".to_owned(),
        "%7B%7D".to_owned(),
        json,
        STANDARD.encode(b"\xff\xfe"),
        STANDARD.encode([b' '; 70_000]),
        "A".repeat(1_000_000),
        String::new(),
    ] {
        bad(&header("payment-required", value));
    }
}

#[test]
fn a_body_is_read_only_without_the_header_and_only_as_version_1() {
    assert!(rail().needs_body(&header("content-type", "application/json")));
    assert!(!rail().needs_body(&header("payment-required", "")));
    assert!(!rail().needs_body(&header("Payment-Required", "x")));

    let offers = read_body(&terms_v1(OFFER_V1)).unwrap();
    assert_eq!(offers.error.as_deref(), Some("pay"));
    assert_eq!(offers.offers.first().map(|o| o.protocol.clone()), Some(Protocol::X402(Version::V1)));
    assert!(read(&terms_v1(OFFER_V1)).is_ok(), "version 1 inside the header is understood");
    let both = read_headers(
        &header("payment-required", STANDARD.encode(terms(OFFER))),
        Some(&terms_v1(&OFFER_V1.replacen("1000", "9000000", 1))),
    );
    assert_eq!(both.unwrap().offers.first().map(|o| o.amount.get()), Some(1000), "the header wins");

    let check = |body: &str, code: &str| {
        assert_eq!(read_body(body).map_err(|e| e.code()).map(|_| ()), Err(code), "{body}");
    };
    check(&terms(OFFER), "x402-terms-in-body");
    for body in ["", "{}", "null", "[]", "<html>", "Payment Required", r#"{"error":"x"}"#, "\u{feff}{}"] {
        check(body, "not-x402");
    }
    assert_eq!(read_headers(&Headers::new(), None).map_err(|e| e.code()).map(|_| ()), Err("not-x402"));
    check(&terms_v1(OFFER_V1).replace(":1,", r#":"1","#), "x402-version");
    check(&terms_v1(OFFER_V1).replace(":1,", ":3,"), "x402-version");
    check(&terms_v1(OFFER_V1).replacen(r#""error""#, r#""x402Version":1,"error""#, 1), "offer-malformed");
    check(&format!("{}{}", terms_v1(OFFER_V1), " ".repeat(256 * 1024)), "offer-malformed");
    check(&terms_v1(&OFFER_V1.replace("base-sepolia", "eip155:84532")), "nothing-payable");
    check(&terms_v1(&OFFER_V1.replace(r#""1000""#, "1000")), "offer-malformed");
    check(&terms_v1(&OFFER_V1.replace(r#""1000""#, r#""1000","amount":"1""#)), "offer-malformed");
}

#[test]
fn the_sellers_words_are_cut_and_cannot_hide() {
    let json = format!(
        r#"{{"x402Version":2,"error":"a\r\n\u001b[2Jb\u202e","resource":{{"url":"https://a.example/\u202ex",
        "description":"{}\u0000\u200b","mimeType":"text/html\r\nX: y","tags":["da\u0007ta","b"]}},"accepts":[{OFFER}]}}"#,
        "ä".repeat(300)
    );
    let offers = read(&json).unwrap();
    assert_eq!(offers.error.as_deref(), Some(r"a\u{d}\u{a}\u{1b}[2Jb\u{202e}"));
    let offer = offers.offers.into_iter().next().unwrap();
    assert_eq!(offer.description, Some("ä".repeat(256)));
    assert_eq!(offer.mime_type.as_deref(), Some("text/htmlX: y"));
    assert_eq!(offer.category.as_deref(), Some("data"));
    assert_eq!(offer.resource_url.as_deref(), Some("https://a.example/x"));
    // What is echoed is still what came.
    assert!(offer.resource.is_some_and(|r| r.contains(r"\u0000\u200b")));
}

#[test]
fn validity_is_the_shorter_and_never_too_short() {
    let check = |theirs: &str, ours: u32, want: Result<u64, &str>| {
        let offer = read(&terms(&altered("300", theirs))).unwrap().offers.remove(0);
        let got = authorize(&offer, ours);
        let seconds = got.map(|a| a.valid_before - 1_800_000_000);
        assert_eq!(seconds.map_err(|e| e.code()), want, "{theirs} {ours}");
    };
    check("300", 300, Ok(300));
    check("300", 60, Ok(60));
    check("60", 300, Ok(60));
    check("2147483648", 300, Ok(300));
    check("10", 300, Ok(10));
    check("9", 300, Err("validity-too-short"));
    check("300", 9, Err("validity-too-short"));
    check("300", 0, Err("validity-too-short"));

    let v2 = authorize(&good(), 300).unwrap();
    assert_eq!((v2.valid_after, v2.commitment()), (0, Commitment::Fixed));
    assert_eq!(v2.expires_at(), Timestamp::from_secs(1_800_000_300));
    let v1 = read_body(&terms_v1(OFFER_V1)).unwrap().offers.remove(0);
    let v1 = authorize(&v1, 300).unwrap();
    assert_eq!((v1.valid_after, v1.valid_before), (1_799_999_400, 1_800_000_060));
    assert_eq!(authorize(&good(), 300), Ok(v2), "the same arguments, the same payload");
}

#[test]
fn the_signed_domain_is_that_of_our_table() {
    let offer = good();
    let other = |change: fn(&mut Asset)| {
        let mut asset = offer.asset.clone();
        change(&mut asset);
        X402::new(Arc::new(AssetTable::empty().with_override(asset).unwrap()))
    };
    let code = |rail: X402| {
        let now = Timestamp::from_secs(1_800_000_000);
        let got = rail.authorize(&offer, payer(), payment(), [5; 32], now, 300);
        got.map(|_| ()).map_err(|e| e.code())
    };
    assert_eq!(code(other(|_| ())), Ok(()));
    assert_eq!(code(other(|a| a.eip712.name = "Other".into())), Err("asset-changed"));
    assert_eq!(code(other(|a| a.decimals = 18)), Err("asset-changed"));
    assert_eq!(code(other(|a| a.address = Address::new([1; 20]))), Err("asset-changed"));
    // Two tokens of one name on two chains never share a digest.
    let digest = authorize(&offer, 300).unwrap().digest();
    let mut elsewhere = authorize(&offer, 300).unwrap();
    elsewhere.offer.asset.network = Network::new(8453).unwrap();
    assert_ne!(elsewhere.digest(), digest);
}

#[test]
fn every_part_of_an_offer_is_in_its_digest() {
    let first = good().digest();
    assert_eq!(good().digest(), first);
    let changes: [fn(&mut Offer); 11] = [
        |o| o.protocol = Protocol::X402(Version::V1),
        |o| o.scheme.push('x'),
        |o| o.network_name.push('x'),
        |o| o.network = Network::new(1).unwrap(),
        |o| o.asset.address = Address::new([1; 20]),
        |o| o.pay_to = Address::new([1; 20]),
        |o| o.amount = countersign_core::money::Atomic::new(1001),
        |o| o.max_timeout_seconds = 301,
        |o| o.raw.push(' '),
        |o| o.resource = None,
        |o| o.extensions = Some(String::new()),
    ];
    let mut digests = vec![first];
    for change in changes {
        let mut offer = good();
        change(&mut offer);
        assert!(!digests.contains(&offer.digest()));
        digests.push(offer.digest());
    }
}

#[test]
fn candidates_are_few_cheap_and_stable() {
    let eighteen = Asset {
        id: "usd18".into(),
        network: Network::new(84532).unwrap(),
        address: "0x1800000000000000000000000000000000000018".parse().unwrap(),
        symbol: "USD18".into(),
        decimals: 18,
        eip712: Eip712 { name: "Dollar18".into(), version: "1".into() },
        price: Micros::parse("1").unwrap(),
        quote: None,
    };
    let rail = X402::new(Arc::new(AssetTable::builtin().with_override(eighteen).unwrap()));
    let usd18 = altered(USDC, "0x1800000000000000000000000000000000000018")
        .replace(r#""1000""#, r#""2000000000000000""#)
        .replace(r#""name":"USDC","version":"2""#, r#""name":"Dollar18","version":"1""#);
    let dear = altered(r#""1000""#, r#""9000000""#);
    let three = altered(r#""1000""#, r#""3000""#);
    let json = terms(&[dear.as_str(), &three, &usd18, &three, OFFER, &three].join(","));
    let headers = header("payment-required", STANDARD.encode(json));
    let offers = rail.offers(&Challenge { headers: &headers, body: None, request_sha256: None }, payer()).unwrap();
    let order: Vec<_> = candidates(offers.offers).iter().map(|p| (p.offer.index, p.value.get())).collect();
    assert_eq!(order, [(4, 1000), (2, 2000), (1, 3000), (3, 3000)]);
}

#[test]
fn an_identifier_is_added_only_where_it_is_demanded() {
    let extensions = |required: &str| {
        format!(
            "{{\n \"sign-in-with-x\" : {{\"info\":{{\"domain\":\"a.example\"}}}},\
             \"payment\\u002didentifier\":{{ \"schema\":{{\"required\":[\"id\"]}},\"info\" : {{ \"required\" : {required}\n}} }} }}"
        )
    };
    let with = |extensions: &str| {
        let json = terms(OFFER).replacen(r#""accepts""#, &format!(r#""extensions":{extensions},"accepts""#), 1);
        read(&json).unwrap().offers.remove(0)
    };
    let optional = with(&extensions("false"));
    assert!(!optional.needs_identifier);
    let text = sent(&authorize(&optional, 300).unwrap());
    assert!(text.contains(&extensions("false")), "{text}");

    let demanded = with(&extensions("true"));
    assert!(demanded.needs_identifier);
    let text = sent(&authorize(&demanded, 300).unwrap());
    let id = format!(r#","id":"{}"}}"#, payment());
    let want = extensions("true").replacen("true\n}", &format!("true\n{id}"), 1);
    assert!(text.contains(&want), "{text}");
    assert!(Json::parse(text.as_bytes(), 100_000).is_ok());
}

#[test]
fn a_payment_header_fits_or_is_not_sent() {
    let padded = |where_: &str, size: usize| {
        let pad = "x".repeat(size);
        let json = match where_ {
            "extensions" => {
                terms(OFFER).replacen(r#""accepts""#, &format!(r#""extensions":{{"bazaar":"{pad}"}},"accepts""#), 1)
            }
            "demanded" => terms(OFFER).replacen(
                r#""accepts""#,
                &format!(
                    r#""extensions":{{"bazaar":"{pad}","payment-identifier":{{"info":{{"required":true}}}}}},"accepts""#
                ),
                1,
            ),
            _ => terms(&altered(r#""name""#, &format!(r#""pad":"{pad}","name""#))),
        };
        let offer = read(&json).unwrap().offers.remove(0);
        rail().present(&authorize(&offer, 300).unwrap(), &signature())
    };
    for where_ in ["extensions", "demanded", "offer"] {
        let header = padded(where_, 5_000).unwrap();
        assert!(header.value.len() > 6_000 && header.value.len() <= MAX_PAYMENT_HEADER);
    }
    let dropped = padded("extensions", 20_000).unwrap();
    assert!(dropped.value.len() < 2_000, "the courtesy is dropped");
    for where_ in ["demanded", "offer"] {
        let error = padded(where_, 20_000).unwrap_err();
        assert_eq!(error.code(), "payment-header-too-large");
    }
    let shown = format!("{dropped:?}");
    assert!(!shown.contains(&dropped.value), "a log line does not pay");
}

#[test]
fn receipts_are_claims_about_this_payment() {
    const HASH: &str = "0xbc09966aeed8238f291450889d4b248aa4c5fbaa83bd9af09f741208c8a7538b";
    let authorization = authorize(&good(), 300).unwrap();
    let receipt = |status: u16, json: &str| {
        let headers = header("payment-response", STANDARD.encode(json));
        rail().receipt(&authorization, status, &headers)
    };
    let check = |json: &str, code: &str| match receipt(200, json) {
        Receipt::Invalid { code: found, .. } => assert_eq!(found, code, "{json}"),
        other => panic!("{json}: {other:?}"),
    };
    let valid = |json: &str| match receipt(200, json) {
        Receipt::Valid { transaction, .. } => assert_eq!(transaction, HASH),
        other => panic!("{json}: {other:?}"),
    };
    let base = format!(r#"{{"success":true,"transaction":"{HASH}","network":"eip155:84532"}}"#);
    let plus = |more: &str| base.replacen('{', &format!("{{{more},"), 1);
    valid(&base);
    valid(
        &base
            .to_uppercase()
            .replace("TRUE", "true")
            .replace("0XBC", "0xBC")
            .to_string()
            .replace("SUCCESS", "success")
            .replace("TRANSACTION", "transaction")
            .replace("NETWORK", "network")
            .replace("EIP155", "eip155"),
    );
    valid(&plus(&format!(r#""payer":"{}","amount":"1000""#, PAYER.to_lowercase())));
    valid(&plus(r#""payer":null,"amount":null,"errorReason":null,"extra":{"x":[1]}"#));

    check(&base.replace("84532", "8453"), "receipt-network");
    check(&base.replace(r#","network":"eip155:84532""#, ""), "receipt-network");
    check(&base.replace("eip155:84532", "base-sepolia"), "receipt-network");
    check(&plus(&format!(r#""payer":"{SELLER}""#)), "receipt-payer");
    check(&plus(r#""payer":"""#), "receipt-payer");
    check(&plus(r#""amount":"1001""#), "receipt-amount");
    check(&plus(r#""amount":"01000""#), "receipt-amount");
    check(&plus(r#""amount":1000"#), "receipt-malformed");
    let zeros = format!("0x{}", "0".repeat(64));
    for hash in ["", "0x", "bc09", zeros.as_str(), &HASH.replacen('b', "g", 1), &HASH.replacen("0x", "", 1)] {
        check(&base.replace(HASH, hash), "receipt-transaction");
    }
    check(&base.replace(&format!(r#""transaction":"{HASH}","#), ""), "receipt-transaction");
    for json in ["", "x", "null", "[]", "7", r#"{"success":"true"}"#, r#"{"success":1}"#, r#"{"success":null}"#] {
        check(json, "receipt-malformed");
    }
    check(&plus(r#""success":false"#), "receipt-malformed");
    match receipt(402, &base) {
        Receipt::Invalid { code, .. } => assert_eq!(code, "receipt-contradicts-status"),
        other => panic!("{other:?}"),
    }

    for status in [200, 402] {
        let failed = r#"{"success":false,"errorReason":"fetch\nfailed","transaction":"","network":"eip155:84532"}"#;
        let want = Receipt::Failed { error_reason: r"fetch\u{a}failed".into(), transaction: None };
        assert_eq!(receipt(status, failed), want);
    }
    let pending = format!(r#"{{"success":false,"errorReason":"settlement_pending","transaction":"{HASH}"}}"#);
    let want = Receipt::Failed { error_reason: "settlement_pending".into(), transaction: Some(HASH.into()) };
    assert_eq!(receipt(402, &pending), want);

    let read = |headers: &Headers| rail().receipt(&authorization, 200, headers);
    assert_eq!(read(&Headers::new()), Receipt::Absent);
    assert_eq!(read(&header("x-payment-response", STANDARD.encode(&base))), Receipt::Absent);
    let mut twice = header("payment-response", STANDARD.encode(&base));
    twice.extend(twice.clone());
    for headers in [twice, header("payment-response", "%%"), header("payment-response", "A".repeat(100_000))] {
        assert!(matches!(read(&headers), Receipt::Invalid { .. }));
    }

    let v1 = read_body(&terms_v1(OFFER_V1)).unwrap().offers.remove(0);
    let v1 = authorize(&v1, 300).unwrap();
    let named = base.replace("eip155:84532", "base-sepolia");
    let headers = header("x-payment-response", STANDARD.encode(&named));
    assert!(matches!(rail().receipt(&v1, 200, &headers), Receipt::Valid { .. }));
    let read = |headers: &Headers| rail().receipt(&v1, 200, headers);
    let mut headers = header("payment-response", STANDARD.encode(&named));
    assert!(matches!(read(&headers), Receipt::Valid { .. }), "some sellers use the newer name");
    headers.extend(header("x-payment-response", STANDARD.encode(&named)));
    assert!(matches!(read(&headers), Receipt::Invalid { .. }), "but not both");
    let foreign = header("payment-response", STANDARD.encode(&base));
    assert!(matches!(read(&foreign), Receipt::Invalid { .. }));
}

fn blank() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["", " ", "\n", "\t ", "\r\n"])
}

proptest! {
    #[test]
    fn reading_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let raw = header("payment-required", bytes.clone());
        let encoded = header("payment-required", STANDARD.encode(&bytes));
        let empty = Headers::new();
        for headers in [&raw, &encoded, &empty] {
            let challenge = Challenge { headers, body: Some(&bytes), request_sha256: None };
            prop_assert!(rail().offers(&challenge, payer()).is_err());
        }
        let authorization = authorize(&good(), 300).unwrap();
        for value in [bytes.clone(), STANDARD.encode(&bytes).into()] {
            let receipt = rail().receipt(&authorization, 200, &header("payment-response", value));
            let invalid = matches!(receipt, Receipt::Invalid { .. });
            prop_assert!(invalid);
        }
    }

    /// Whatever is changed, what we would sign is what another strict reader sees.
    #[test]
    fn no_two_readers_disagree(at in 0_usize..500, byte in 32_u8..127, insert: bool) {
        let mut json = terms(OFFER).into_bytes();
        let at = at.min(json.len() - 1);
        if insert { json.insert(at, byte) } else if let Some(b) = json.get_mut(at) { *b = byte }
        let json = String::from_utf8(json).unwrap();
        if let Ok(offers) = read(&json) {
            let seen: serde_json::Value = serde_json::from_str(&json).unwrap();
            let seen = seen.pointer("/accepts/0").unwrap();
            let offer = offers.offers.into_iter().next().unwrap();
            let text = |key: &str| seen.get(key).and_then(|v| v.as_str()).unwrap().to_owned();
            prop_assert_eq!(text("amount"), offer.amount.to_string());
            prop_assert_eq!(text("payTo").to_lowercase(), offer.pay_to.to_string().to_lowercase());
            prop_assert_eq!(text("asset").to_lowercase(), USDC.to_lowercase());
            prop_assert_eq!(text("network"), offer.network.to_string());
            let seconds = seen.get("maxTimeoutSeconds").and_then(serde_json::Value::as_u64);
            prop_assert_eq!(seconds, Some(u64::from(offer.max_timeout_seconds)));
        }
    }

    #[test]
    fn the_echo_is_byte_identical(
        a in blank(), b in blank(), c in blank(),
        key in "[a-z_]{1,8}", words in r#"[ -!#-\[\]-~äλ]{0,20}"#, number in "-?[1-9][0-9]{0,30}(\\.[0-9]{1,5})?(e[+-]?[0-9]{1,2})?",
    ) {
        // Unknown keys, odd blanks, escapes and numbers that no float holds come back unchanged.
        let unknown = format!(r#"{a}"~{key}"{b}:{c}{{"n":{number},"w":"{words}\/\u00e9","a":[{a}]}},"#);
        let offer = altered(r#""amount""#, &format!(r#"{unknown}"amount""#));
        let resource = format!(r#"{{{b}"url"{c}:"https://a.example/\u002f{words}"{a}}}"#);
        let extensions = format!(r#"{{"~{key}":{a}{{"info":{{"x":{number}}}{b}}}}}"#);
        let json = format!(
            r#"{{"extensions":{extensions},"accepts":{a}[{c}{offer}{b}]{c},"resource":{resource},"x402Version":2}}"#
        );
        let text = sent(&authorize(&read(&json).unwrap().offers.remove(0), 300).unwrap());
        let sent = Json::parse(text.as_bytes(), 100_000).unwrap();
        let raw = |key: &str| sent.get(key).map(|v| v.raw.to_owned());
        prop_assert_eq!(raw("accepted"), Some(offer));
        prop_assert_eq!(raw("resource"), Some(resource));
        prop_assert_eq!(raw("extensions"), Some(extensions));
    }
}
