//! The MPP rail against a recorded answer of the reference server, and against whatever else a seller might send.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test: whatever is not as expected must fail it loudly")]

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use countersign_core::evm::{Address, Signature65, address_of, hex32, keccak256, recover};
use countersign_core::id::PaymentId;
use countersign_core::mpp::{MAX_CHALLENGES, Mpp};
use countersign_core::rails::Rails;
use countersign_core::seams::Rail;
use countersign_core::time::Timestamp;
use countersign_core::x402::{
    AssetTable, Authorization, Challenge, MAX_PAYMENT_HEADER, Offer, Offers, Protocol, RailError, Receipt, candidates,
};
use k256::ecdsa::SigningKey;
use proptest::prelude::*;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

type Headers = Vec<(String, Vec<u8>)>;

const USDC: &str = "0x036CbD53842c5426634e7929541eC2318f3dCF7e";
const SELLER: &str = "0x90F79bf6EB2c4f870365E785982E1f101E93b906";
/// 2026-11-22T11:36:43Z, when the recorded challenge ends.
const ENDS: u64 = 1_795_347_403;
const NONCE: [u8; 32] = [7; 32];

fn rail() -> Mpp {
    Mpp::new(Arc::new(AssetTable::builtin()))
}

fn rails() -> Rails {
    Rails::new(Arc::new(AssetTable::builtin()))
}

fn key() -> SigningKey {
    SigningKey::from_slice(&[0x11; 32]).unwrap()
}

fn payer() -> Address {
    address_of(key().verifying_key())
}

fn sign(authorization: &Authorization) -> Signature65 {
    let (signature, id) = key().sign_prehash_recoverable(&authorization.digest());
    Signature65::from_ecdsa(&signature, id).unwrap()
}

fn payment() -> PaymentId {
    PaymentId::new(Timestamp::from_secs(1), [0; 10])
}

fn now() -> Timestamp {
    Timestamp::from_secs(ENDS - 300)
}

fn headers(fields: &[&str]) -> Headers {
    fields.iter().map(|field| ("www-authenticate".to_owned(), field.as_bytes().to_vec())).collect()
}

fn offers_of(headers: &[(String, Vec<u8>)], sent: Option<[u8; 32]>) -> Result<Offers, RailError> {
    rail().offers(&Challenge { headers, body: None, request_sha256: sent }, payer())
}

fn offers(fields: &[&str]) -> Result<Offers, RailError> {
    offers_of(&headers(fields), None)
}

fn request() -> Value {
    json!({
        "amount": "1000", "currency": USDC, "recipient": SELLER,
        "methodDetails": {"chainId": 84532, "credentialTypes": ["authorization"], "decimals": 6},
    })
}

fn encoded(request: &Value) -> String {
    URL_SAFE_NO_PAD.encode(request.to_string())
}

/// A field with one good challenge, its parameters changed.
fn field(change: impl FnOnce(&mut Vec<(String, String)>)) -> String {
    let request = encoded(&request());
    let good = [
        ("id", "abc"),
        ("realm", "shop.example"),
        ("method", "evm"),
        ("intent", "charge"),
        ("request", &request),
        ("expires", "2026-11-22T11:36:43.341Z"),
    ];
    let mut parameters = good.map(|(n, v)| (n.to_owned(), v.to_owned())).to_vec();
    change(&mut parameters);
    let written: Vec<String> = parameters.iter().map(|(n, v)| format!("{n}=\"{v}\"")).collect();
    format!("Payment {}", written.join(", "))
}

fn set<'v>(name: &'v str, value: &'v str) -> impl FnOnce(&mut Vec<(String, String)>) + 'v {
    move |parameters| {
        parameters.retain(|(n, _)| n != name);
        parameters.push((name.to_owned(), value.to_owned()));
    }
}

fn asks(change: impl FnOnce(&mut Value)) -> String {
    let mut request = request();
    change(&mut request);
    field(set("request", &encoded(&request)))
}

fn good() -> Offer {
    offers(&[&field(|_| ())]).unwrap().offers.remove(0)
}

fn authorized(offer: &Offer) -> Authorization {
    rail().authorize(offer, payer(), payment(), NONCE, now(), 600).unwrap()
}

fn credential(header: &str) -> Value {
    let value = header.strip_prefix("Payment ").expect("the scheme");
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(value).unwrap()).unwrap()
}

fn recorded() -> (Headers, String) {
    let file: Value = serde_json::from_str(include_str!("../fixtures/mppx.json")).unwrap();
    let headers: Vec<(String, String)> =
        serde_json::from_value(file.pointer("/unpaid/headers").unwrap().clone()).unwrap();
    let headers = headers.into_iter().map(|(name, value)| (name, value.into_bytes()));
    (headers.collect(), file.pointer("/unpaid/body").unwrap().as_str().unwrap().to_owned())
}

#[test]
fn a_recorded_challenge_of_the_reference_server_is_answered() {
    let (headers, _) = recorded();
    let found = offers_of(&headers, None).unwrap();
    let [offer] = &found.offers[..] else { panic!("{found:?}") };
    assert_eq!((offer.rail(), offer.scheme.as_str(), offer.place().as_str()), ("mpp", "charge", "challenge 0"));
    assert_eq!((offer.asset.id.as_str(), offer.amount.to_string()), ("usdc-base-sepolia", "1000".to_owned()));
    assert_eq!((offer.network_name.as_str(), offer.pay_to.to_string()), ("eip155:84532", SELLER.to_owned()));
    assert_eq!(offer.description.as_deref(), Some("cheap"));

    let authorization = rail().authorize(offer, payer(), payment(), NONCE, now(), 600).unwrap();
    // The seller's order, and nothing in between: keccak256(abi.encodePacked(id, realm)).
    let bound = keccak256(b"winlVZcisqnqnsw6l4lnQpDkY9SoizoApFgXMJmZkVk127.0.0.1");
    assert_eq!(authorization.nonce, bound);
    assert_eq!(hex32::print(&bound), "0x418b2c0ffa86c857173eb9268f3b3a24ad9333a338fbc7160f9903d314c3d98e");
    assert_eq!((authorization.valid_after, authorization.valid_before), (0, ENDS), "as long as the challenge");

    let signature = sign(&authorization);
    let header = rail().present(&authorization, &signature).unwrap();
    assert_eq!(header.name, "authorization");
    let sent = credential(&header.value);
    let request = "eyJhbW91bnQiOiIxMDAwIiwiY3VycmVuY3kiOiIweDAzNkNiRDUzODQyYzU0MjY2MzRlNzkyOTU0MWVDMjMxOGYzZENGN2UiLCJtZXRob2REZXRhaWxzIjp7ImNoYWluSWQiOjg0NTMyLCJjcmVkZW50aWFsVHlwZXMiOlsiYXV0aG9yaXphdGlvbiJdLCJkZWNpbWFscyI6Nn0sInJlY2lwaWVudCI6IjB4OTBGNzliZjZFQjJjNGY4NzAzNjVFNzg1OTgyRTFmMTAxRTkzYjkwNiJ9";
    assert_eq!(
        sent,
        json!({
            "challenge": {
                "id": "winlVZcisqnqnsw6l4lnQpDkY9SoizoApFgXMJmZkVk", "realm": "127.0.0.1", "method": "evm",
                "intent": "charge", "request": request, "description": "cheap",
                "expires": "2026-11-22T11:36:43.341Z",
            },
            "payload": {
                "type": "authorization", "from": payer().to_string(), "to": SELLER, "value": "1000",
                "validAfter": "0", "validBefore": ENDS.to_string(), "nonce": hex32::print(&bound),
                "signature": signature.to_string(),
            },
            "source": format!("did:pkh:eip155:84532:{}", payer()),
        })
    );
    // The bytes are those of RFC 8785: sorted, nothing in between.
    assert_eq!(header.value, format!("Payment {}", URL_SAFE_NO_PAD.encode(sent.to_string())));
    assert_eq!(recover(&authorization.digest(), &signature), Some(payer()));

    let stored = serde_json::to_string(&authorization).unwrap();
    let again: Authorization = serde_json::from_str(&stored).unwrap();
    assert_eq!((&again, again.digest()), (&authorization, authorization.digest()));
    assert_eq!(rail().present(&again, &signature).unwrap().value, header.value, "presented again, byte for byte");
}

#[test]
fn challenges_are_found_wherever_the_grammar_allows_them() {
    let good = field(|_| ());
    let other = field(set("id", "def"));
    let found = |fields: &[&str]| offers(fields).unwrap().offers.len();
    assert_eq!(found(&[&good]), 1);
    assert_eq!(found(&[&good, &other]), 2);
    assert_eq!(found(&[&format!("{good}, {other}")]), 2);
    assert_eq!(found(&[&format!("Basic realm=\"a, Payment id=\\\"\", {good}, Negotiate YIIabc==")]), 1);
    assert_eq!(found(&[&format!("Negotiate , Bearer, {good}")]), 1);
    assert_eq!(found(&["Basic realm=\"caf\u{e9}", &good]), 1, "what cannot mean us is not judged");
    assert_eq!(found(&[&good.replace("Payment ", "PAYMENT \t")]), 1);
    assert_eq!(found(&[&good.replace("id=", "ID =\t").replace(", ", " ,, ")]), 1);
    assert_eq!(found(&[&good.replace("\"evm\"", "evm").replace("\"charge\"", "charge")]), 1);
    assert_eq!(found(&[&field(|p| p.push(("later".to_owned(), "\u{e9}".to_owned())))]), 1, "unknown ones are ignored");
    for none in [&[][..], &["Bearer realm=\"x\""], &["Basic realm=\"payments\""], &["Payments id=\"1\""]] {
        assert!(matches!(offers(none), Err(RailError::NotThisRail(_))), "{none:?}");
    }
}

#[test]
fn what_is_written_twice_or_wrongly_is_refused_with_its_place() {
    let check = |field: &str, place: &str| {
        let refused = offers(&[field]).unwrap_err();
        assert_eq!(refused.code(), "offer-malformed", "{field}");
        assert!(refused.to_string().contains(place), "{field}: {refused}");
    };
    for name in ["id", "realm", "method", "intent", "request", "expires"] {
        let (named, place) = (format!("{name}=\""), format!("challenges[0].{name}"));
        let twice = field(|p| p.push((name.to_uppercase(), "x".to_owned())));
        check(&twice, "the same parameter twice");
        check(&field(|_| ()).replace(&named, &format!("{named}\u{e9}")), &place);
        check(&field(set(name, &"x".repeat(16 * 1024 + 1))), &place);
        if name != "expires" {
            check(&field(|p| p.retain(|(n, _)| n != name)), &place);
            check(&field(set(name, "")), &place);
        }
    }
    check(&field(set("id", &"x".repeat(1025))), "challenges[0].id");
    check(&field(set("description", "caf\u{e9}")), "challenges[0].description");
    check(&field(set("description", "\\ud83d alone")), "half a character");
    check(&field(set("id", "a\\u2014b")), "challenges[0].id");
    for ends in ["", "tomorrow", "2026-11-22", "1795347403", "2026-11-22T11:36:43", "1960-01-01T00:00:00Z"] {
        check(&field(set("expires", ends)), "challenges[0].expires");
    }
    for request in ["{}", "e30=", "e30 ", "e3!", "bm8", "W10", "e30", "eyJhIjoxLCJhIjoxfQ"] {
        check(&field(set("request", request)), "challenges[0].request");
    }
    for broken in [
        "Payment id=\"a",
        "Payment id=\"a\\",
        "Payment id",
        "Payment",
        "Payment id=",
        "Payment id=\"a\" b",
        "Payment =a",
        "Payment id=\"a\u{7f}\"",
        "Payment id=\"a\"realm=\"b\"",
        "Payment abc==",
    ] {
        check(broken, "");
    }
    check(&vec!["Payment x=1"; MAX_CHALLENGES + 1].join(","), "challenges");
    let many: Vec<String> = (0..40).map(|n| format!("p{n}=1")).collect();
    check(&format!("Payment {}", many.join(",")), "parameters");
    let large = format!("{}, Bearer realm=\"{}\"", field(|_| ()), "x".repeat(64 * 1024));
    check(&large, "bytes");
}

#[test]
fn what_the_request_says_is_read_strictly() {
    let refused = |change: &dyn Fn(&mut Value), place: &str| {
        let error = offers(&[&asks(change)]).unwrap_err();
        assert!(error.to_string().contains(place), "{error}");
        error.code()
    };
    for bad in [
        json!(1000),
        json!("0"),
        json!(""),
        json!("-1"),
        json!("+1"),
        json!("01"),
        json!("1.0"),
        json!("1e3"),
        json!("0x10"),
        json!(" 1"),
        json!(null),
        json!(["1"]),
        json!("9".repeat(60)),
    ] {
        assert_eq!(refused(&|r| r["amount"] = bad.clone(), "challenges[0].request.amount"), "offer-malformed", "{bad}");
    }
    for bad in [json!("usd"), json!(null), json!("0x036CbD53842c5426634e7929541eC2318f3dCF7E"), json!(1)] {
        assert_eq!(refused(&|r| r["currency"] = bad.clone(), "challenges[0].request.currency"), "offer-malformed");
        assert_eq!(refused(&|r| r["recipient"] = bad.clone(), "challenges[0].request.recipient"), "offer-malformed");
    }
    for bad in [json!("84532"), json!(0), json!(-1), json!(1.5), json!(null)] {
        assert_eq!(
            refused(&|r| r["methodDetails"]["chainId"] = bad.clone(), "methodDetails.chainId"),
            "offer-malformed"
        );
    }
    assert_eq!(refused(&|r| r["methodDetails"] = json!([]), "methodDetails"), "offer-malformed");
    assert_eq!(refused(&|r| r["methodDetails"] = Value::Null, "methodDetails"), "offer-malformed");
    for who in ["0x0000000000000000000000000000000000000000", USDC, &payer().to_string()] {
        assert_eq!(refused(&|r| r["recipient"] = json!(who), "challenges[0].request.recipient"), "payee-forbidden");
    }
}

#[test]
fn what_is_not_served_is_left_aside_with_a_reason() {
    let check = |field: &str, code: &str| {
        let refused = offers(&[field]).unwrap_err();
        let RailError::NothingPayable(skipped) = &refused else { panic!("{refused:?}") };
        assert_eq!(skipped.iter().map(|s| (s.rail, s.code)).collect::<Vec<_>>(), [("mpp", code)]);
        assert!(refused.to_string().contains("challenges[0]"), "{refused}");
        // Beside one that can be paid it is no more than a note.
        let both = offers(&[field, &self::field(|_| ())]).unwrap();
        assert_eq!((both.offers.len(), both.offers[0].index, both.skipped.len()), (1, 1, 1));
    };
    check(&field(set("method", "tempo")), "unknown-method");
    check(&field(set("method", "EVM")), "unknown-method");
    check(&field(set("intent", "session")), "unknown-intent");
    check(&asks(|r| r["methodDetails"]["chainId"] = json!(999_999)), "unknown-network");
    check(&asks(|r| r["currency"] = json!("0x1800000000000000000000000000000000000018")), "unknown-asset");
    check(&asks(|r| r["methodDetails"]["decimals"] = json!(18)), "decimals-mismatch");
    check(&asks(|r| r["methodDetails"]["version"] = json!(2)), "unknown-version");
    check(
        &asks(|r| r["methodDetails"]["splits"] = json!([{"recipient": SELLER, "amount": "1"}])),
        "unsupported-splits",
    );
    check(&asks(|r| r["methodDetails"]["credentialTypes"] = json!(["permit2", "hash"])), "unsupported-credential");
    check(&asks(|r| r["methodDetails"]["credentialTypes"] = Value::Null), "unsupported-credential");
    check(&asks(|r| r["amount"] = json!(u128::MAX.to_string())), "amount-above-maximum");
    check(&field(set("header", "Payment-Authorization")), "unsupported-header");
}

#[test]
fn a_seller_that_names_the_usual_header_gets_the_name_back() {
    let offer = offers(&[&field(set("header", "Authorization"))]).unwrap().offers.remove(0);
    let authorization = authorized(&offer);
    let header = rail().present(&authorization, &sign(&authorization)).unwrap();
    assert_eq!(
        (header.name, &credential(&header.value)["challenge"]["header"]),
        ("authorization", &json!("Authorization"))
    );
}

#[test]
fn a_digest_must_be_that_of_what_is_sent() {
    let body = <[u8; 32]>::from(Sha256::digest(b"{\"a\":1}"));
    let read = |digest: &str, sent| offers_of(&headers(&[&field(set("digest", digest))]), sent);
    let of = |bytes: &[u8]| STANDARD.encode(bytes);
    for digest in [format!("sha-256=:{}:", of(&body)), format!("sha-256={}", of(&body))] {
        assert_eq!(read(&digest, Some(body)).unwrap().offers.len(), 1);
        let offer = read(&digest, Some(body)).unwrap().offers.remove(0);
        let authorization = authorized(&offer);
        let sent = credential(&rail().present(&authorization, &sign(&authorization)).unwrap().value);
        assert_eq!(sent["challenge"]["digest"], digest);
        for sent in [None, Some([0; 32])] {
            assert!(matches!(read(&digest, sent), Err(RailError::NothingPayable(_))));
        }
    }
    let empty = format!("sha-256=:{}:", of(&Sha256::digest([])));
    assert_eq!(read(&empty, None).unwrap().offers.len(), 1);
    for other in ["", "sha-512=:AAAA:", "sha-256=", "sha-256=::", &empty.to_uppercase(), &format!("{empty}, {empty}")] {
        assert!(matches!(read(other, None), Err(RailError::NothingPayable(_))), "{other}");
    }
}

#[test]
fn a_challenge_bounds_the_validity_and_is_not_answered_after_its_end() {
    let offer = good();
    let valid = |max, at| rail().authorize(&offer, payer(), payment(), NONCE, Timestamp::from_millis(at), max);
    let start = (ENDS - 300) * 1_000;
    assert_eq!(valid(60, start).unwrap().valid_before, ENDS - 240, "ours is shorter");
    assert_eq!(valid(u32::MAX, start).unwrap().valid_before, ENDS, "theirs is");
    assert_eq!(valid(600, (ENDS - 10) * 1_000 + 999).unwrap().valid_before, ENDS);
    for late in [(ENDS - 9) * 1_000, ENDS * 1_000, (ENDS + 1) * 1_000, u64::MAX] {
        assert_eq!(valid(600, late).unwrap_err().code(), "challenge-expired", "{late}");
    }
    assert_eq!(valid(9, start).unwrap_err().code(), "validity-too-short");

    let mut unreadable = offer.clone();
    let Protocol::Mpp(challenge) = &mut unreadable.protocol else { panic!() };
    challenge.expires = Some("whenever".to_owned());
    let refused = rail().authorize(&unreadable, payer(), payment(), NONCE, now(), 600).unwrap_err();
    assert_eq!(refused.code(), "challenge-expired");

    let endless = offers(&[&field(|p| p.retain(|(n, _)| n != "expires"))]).unwrap().offers.remove(0);
    assert_eq!(authorized(&endless).valid_before, now().as_secs() + 600);
}

#[test]
fn the_nonce_is_the_challenges_and_only_its() {
    let nonce = |id: &str, realm: &str| {
        let changed = field(|p| {
            set("id", id)(p);
            set("realm", realm)(p);
        });
        authorized(&offers(&[&changed]).unwrap().offers.remove(0)).nonce
    };
    assert_eq!(nonce("abc", "shop.example"), keccak256(b"abcshop.example"));
    assert_ne!(nonce("abc", "shop.example"), nonce("shop.example", "abc"));
    assert_eq!(nonce("ab", "cshop.example"), nonce("abc", "shop.example"), "so the ledger has to refuse the second");
    let other = rail().authorize(&good(), payer(), payment(), [9; 32], now(), 600).unwrap();
    assert_eq!(other.nonce, authorized(&good()).nonce, "no other is taken");
    let dear = offers(&[&asks(|r| r["amount"] = json!("999"))]).unwrap().offers.remove(0);
    assert_eq!(authorized(&dear).nonce, other.nonce);
    assert_ne!(authorized(&dear).digest(), other.digest());
}

#[test]
fn an_approval_is_for_the_terms_and_not_for_one_challenge_of_many() {
    let digest = |field: &str| offers(&[field]).unwrap().offers[0].digest();
    let base = digest(&field(|_| ()));
    for same in
        [field(set("id", "another")), field(set("expires", "2026-11-22T12:00:00Z")), field(set("opaque", "e30"))]
    {
        assert_eq!(digest(&same), base, "{same}");
    }
    for other in [
        field(set("realm", "other.example")),
        field(set("description", "other words")),
        asks(|r| r["amount"] = json!("1001")),
        asks(|r| r["recipient"] = json!("0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC")),
        asks(|r| r["externalId"] = json!("order 7")),
    ] {
        assert_ne!(digest(&other), base, "{other}");
    }
}

#[test]
fn what_a_seller_writes_is_given_back_as_it_was() {
    let written = field(|p| {
        set("opaque", "eyJhIjoiYiJ9")(p);
        set("id", "a\\\"b\\\\c")(p);
        set("description", "one \\\"two\\\" \\u2014 \\ud83d\\ude00")(p);
    });
    let offer = offers(&[&written]).unwrap().offers.remove(0);
    assert_eq!(offer.description.as_deref(), Some("one \"two\" — 😀"));
    let authorization = authorized(&offer);
    assert_eq!(authorization.nonce, keccak256(b"a\"b\\cshop.example"));
    let sent = credential(&rail().present(&authorization, &sign(&authorization)).unwrap().value);
    assert_eq!(sent["challenge"]["id"], "a\"b\\c");
    assert_eq!(sent["challenge"]["opaque"], "eyJhIjoiYiJ9");
    assert_eq!(sent["challenge"]["description"], "one \"two\" — 😀");
    let hidden = offers(&[&field(set("description", "a\\u202eb"))]).unwrap().offers.remove(0);
    assert_eq!(hidden.description.as_deref(), Some("ab"), "nothing hidden reaches a policy");
}

#[test]
fn what_no_server_would_read_is_not_signed() {
    let long = offers(&[&field(set("opaque", &"x".repeat(12 * 1024)))]).unwrap().offers.remove(0);
    let refused = rail().authorize(&long, payer(), payment(), NONCE, now(), 600).unwrap_err();
    assert_eq!(refused.code(), "payment-header-too-large");
    let fits = offers(&[&field(set("opaque", &"x".repeat(9 * 1024)))]).unwrap().offers.remove(0);
    let authorization = authorized(&fits);
    let header = rail().present(&authorization, &sign(&authorization)).unwrap();
    assert!(header.value.len() <= MAX_PAYMENT_HEADER && header.value.len() > 12 * 1024);
}

fn receipt(change: impl FnOnce(&mut Value)) -> Headers {
    let mut receipt = json!({
        "status": "success", "method": "evm", "timestamp": "2026-11-22T11:31:50.000Z",
        "reference": format!("0x{}", "ab".repeat(32)),
    });
    change(&mut receipt);
    vec![("payment-receipt".to_owned(), URL_SAFE_NO_PAD.encode(receipt.to_string()).into_bytes())]
}

#[test]
fn a_receipt_must_be_about_this_payment() {
    let authorization = authorized(&good());
    let read = |status, headers: &Headers| rail().receipt(&authorization, status, headers);
    let transaction = format!("0x{}", "ab".repeat(32));
    let valid = Receipt::Valid { transaction, payer: None, amount: None };
    assert_eq!(read(200, &receipt(|_| ())), valid);
    assert_eq!(read(200, &receipt(|r| r["challengeId"] = json!("abc"))), valid);
    assert_eq!(read(201, &receipt(|r| r["chainId"] = json!(84532))), valid);
    assert_eq!(read(200, &Vec::new()), Receipt::Absent);
    let invalid = |status, headers: &Headers, want: &str| match read(status, headers) {
        Receipt::Invalid { code, .. } => assert_eq!(code, want),
        other => panic!("{want}: {other:?}"),
    };
    for status in [199, 300, 402, 500] {
        invalid(status, &receipt(|_| ()), "receipt-contradicts-status");
    }
    for bad in [json!("failed"), json!(true), json!(null), json!("SUCCESS")] {
        invalid(200, &receipt(|r| r["status"] = bad), "receipt-malformed");
    }
    invalid(200, &receipt(|r| r["method"] = json!("tempo")), "receipt-method");
    invalid(200, &receipt(|r| r["timestamp"] = json!("now")), "receipt-malformed");
    invalid(200, &receipt(|r| r["challengeId"] = json!("another")), "receipt-challenge");
    invalid(200, &receipt(|r| r["challengeId"] = json!(1)), "receipt-malformed");
    invalid(200, &receipt(|r| r["chainId"] = json!(1)), "receipt-network");
    for bad in [json!(null), json!("0xab"), json!("pi_123"), json!(format!("0x{}", "0".repeat(64)))] {
        invalid(200, &receipt(|r| r["reference"] = bad), "receipt-transaction");
    }
    let twice = [receipt(|_| ()), receipt(|_| ())].concat();
    invalid(200, &twice, "receipt-malformed");
    for raw in ["", "e30=", "!", "e30, e30"] {
        invalid(200, &vec![("payment-receipt".to_owned(), raw.into())], "receipt-malformed");
    }
}

#[test]
fn both_rails_are_candidates_of_one_choice_and_x402_comes_first_at_the_same_price() {
    let (recorded, body) = recorded();
    let read = |headers: &Headers, body: &str| {
        rails().offers(&Challenge { headers, body: Some(body.as_bytes()), request_sha256: None }, payer())
    };
    let choice = |headers: &Headers| -> Vec<&'static str> {
        candidates(read(headers, &body).unwrap().offers).iter().map(|p| p.offer.rail()).collect()
    };
    assert_eq!(choice(&recorded), ["x402", "mpp"]);
    let without = |name: &str| -> Headers { recorded.iter().filter(|(n, _)| n != name).cloned().collect() };
    assert_eq!(choice(&without("payment-required")), ["mpp"]);
    assert_eq!(choice(&without("www-authenticate")), ["x402"]);
    let mut cheaper = without("www-authenticate");
    cheaper.extend(headers(&[&asks(|r| r["amount"] = json!("999"))]));
    assert_eq!(choice(&cheaper), ["mpp", "x402"], "the cheapest comes first, whatever it is called");

    let neither: Headers = without("www-authenticate").into_iter().filter(|(n, _)| n != "payment-required").collect();
    assert!(matches!(read(&neither, "no"), Err(RailError::NotThisRail(_))));
    // What is wrong with one is told, and does not spoil the other.
    let mut broken = without("www-authenticate");
    broken.extend(headers(&["Payment id=\"a"]));
    let left = read(&broken, &body).unwrap();
    assert_eq!((left.offers.len(), left.offers[0].rail()), (1, "x402"));
    assert_eq!((left.skipped[0].rail, left.skipped[0].code), ("mpp", "offer-malformed"));
    let mut broken = without("payment-required");
    broken.push(("payment-required".to_owned(), b"!".to_vec()));
    let left = read(&broken, &body).unwrap();
    assert_eq!((left.offers.len(), left.offers[0].rail()), (1, "mpp"));
    assert_eq!((left.skipped[0].rail, left.skipped[0].code), ("x402", "offer-malformed"));
    let mut both = headers(&[&field(set("method", "tempo"))]);
    both.push(("payment-required".to_owned(), b"!".to_vec()));
    assert_eq!(read(&both, "").unwrap_err().code(), "offer-malformed");
    let tempo = headers(&[&field(set("method", "tempo"))]);
    let refused = read(&tempo, "{}").unwrap_err().to_string();
    assert!(refused.contains("`tempo`"), "{refused}");
    // Terms of x402's version 1 beside a challenge that cannot be paid.
    let v1: Value = serde_json::from_str(include_str!("../fixtures/express-v1.json")).unwrap();
    let left = read(&tempo, v1["unpaid"]["body"].as_str().unwrap()).unwrap();
    assert_eq!((left.offers[0].rail(), left.skipped[0].code), ("x402", "unknown-method"));
}

#[test]
fn what_was_signed_in_one_protocol_is_presented_in_no_other() {
    let (headers, _) = recorded();
    let found = rails().offers(&Challenge { headers: &headers, body: None, request_sha256: None }, payer()).unwrap();
    let [x402, mpp] = &found.offers[..] else { panic!("{found:?}") };
    for (offer, name, scheme) in [(x402, "payment-signature", ""), (mpp, "authorization", "Payment ")] {
        let signed = rails().authorize(offer, payer(), payment(), NONCE, now(), 60).unwrap();
        assert_eq!(signed.nonce == NONCE, name == "payment-signature");
        let stored: Authorization = serde_json::from_str(&serde_json::to_string(&signed).unwrap()).unwrap();
        let header = rails().present(&stored, &sign(&signed)).unwrap();
        assert_eq!(header.name, name);
        assert!(header.value.starts_with(scheme));
        // A receipt of the other protocol is none.
        let other = receipt(|_| ());
        let is_ours = matches!(rails().receipt(&stored, 200, &other), Receipt::Valid { .. });
        assert_eq!(is_ours, offer.rail() == "mpp");
    }
    assert!(rail().authorize(x402, payer(), payment(), NONCE, now(), 60).is_err());
}

proptest! {
    #[test]
    fn no_field_breaks_the_reader(text in r#"(Payment|Basic|payment)? ?[a-z=",\\ \t0-9]{0,80}"#) {
        let _ = offers(&[&text]);
    }

    #[test]
    fn a_changed_byte_of_a_good_field_is_refused_or_changes_what_is_given_back(at in 0_usize..400, byte: u8) {
        let good = field(|_| ()).into_bytes();
        let mut bytes = good.clone();
        if let Some(b) = bytes.get_mut(at) {
            *b = byte;
        }
        let headers = vec![("www-authenticate".to_owned(), bytes)];
        if let Ok(found) = offers_of(&headers, None) {
            for offer in &found.offers {
                prop_assert!(offer.pay_to != payer() && offer.asset.id == "usdc-base-sepolia");
                let Protocol::Mpp(challenge) = &offer.protocol else { panic!() };
                prop_assert!(challenge.id.is_ascii() && challenge.realm.is_ascii());
            }
        }
    }
}

#[test]
fn over_json_rpc_the_request_is_json_and_is_given_back_byte_for_byte() {
    let request = request().to_string().replacen('{', r#"{ "note": 1.50e3,  "#, 1);
    let challenge = |request: &str| {
        format!(
            r#"{{"httpStatus":402,"challenges":[{{"id":"a","realm":"b","method":"evm","intent":"charge","request":{request},
            "expires":"2026-11-22T11:36:43.341Z","description":"d","later":[1],"opaque":null}}]}}"#
        )
    };
    let terms = challenge(&request);
    for found in [rail().offers_in(terms.as_bytes(), payer()), rails().offers_in(terms.as_bytes(), payer())] {
        let offer = found.unwrap().offers.remove(0);
        let authorization = authorized(&offer);
        assert_eq!((authorization.nonce, authorization.valid_before), (keccak256(b"ab"), ENDS));
        let signature = sign(&authorization);
        let sent = rail().document(&authorization, &signature).unwrap();
        let echo = r#"{"challenge":{"description":"d","expires":"2026-11-22T11:36:43.341Z","id":"a","intent":"charge","method":"evm","realm":"b","request":"#;
        assert!(sent.starts_with(&format!("{echo}{request}}},\"payload\":{{\"from\":")), "{sent}");
        assert!(serde_json::from_str::<Value>(&sent).unwrap()["source"].is_string());
    }
    // Nobody agrees on what the body of a tool's call is.
    let empty = format!(r#""digest":"sha-256=:{}:","later""#, STANDARD.encode(Sha256::digest([])));
    let refused = rail().offers_in(terms.replacen("\"later\"", &empty, 1).as_bytes(), payer()).unwrap_err();
    assert!(matches!(refused, RailError::NothingPayable(_)), "{refused}");
    for bad in ["\"e30\"", "[]", "1", "null", r#"{"a":1,"a":1}"#] {
        let refused = rail().offers_in(challenge(bad).as_bytes(), payer()).unwrap_err();
        assert_eq!(refused.code(), "offer-malformed", "{bad}");
    }
    for (bad, code) in [
        (r#"{"challenges":[]}"#, "not-x402"),
        ("{}", "not-x402"),
        (r#"{"challenges":{}}"#, "offer-malformed"),
        (r#"{"challenges":[1]}"#, "offer-malformed"),
        (r#"{"challenges":[],"challenges":[]}"#, "offer-malformed"),
    ] {
        assert_eq!(rail().offers_in(bad.as_bytes(), payer()).unwrap_err().code(), code, "{bad}");
    }
    // Terms of x402 are read as such, whatever else is in them.
    let both = r#"{"x402Version":3,"challenges":[]}"#;
    assert_eq!(rails().offers_in(both.as_bytes(), payer()).unwrap_err().code(), "x402-version");
}
