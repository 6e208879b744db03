//! Rule 4: the door is closed unless it is listed, and the agent's copy of a 402 selects and does nothing else.

use countersign_core::evm::Address;
use countersign_tests::{
    config::Config,
    http,
    peers::{BUYER, NETWORK, USD18, USDC},
    refusal::refusal,
    till::{items, plain, text},
    world::LocalWorld,
};
use serde_json::{Value, json};

use crate::{Scene, authorization, decode, demand, given, present, sign};

#[test]
fn rule_04_the_door_is_closed_unless_the_mandate_lists_it() {
    for doors in [None, Some(vec!["fetch", "proxy", "mcp"])] {
        let scene = Scene::with(&["honest"], plain(), |config| {
            let config = config.without_mandate_key("doors");
            doors.into_iter().fold(config, |config, doors| config.mandate(&["doors"], doors))
        });
        let terms = demand(&scene.honest().url("/quote"));
        let before = scene.honest().visits().len();
        let url = scene.honest().url("/quote");
        let body = refusal(&sign(&scene.agent(), &url, &terms, json!({})), 403, "no-mandate");
        assert!(text(&body, "/detail").contains("`sign`"), "{body}");
        assert_eq!(scene.honest().visits().len(), before, "the seller was called");
        assert_eq!(items(&scene.agent().get("/v1/payments")), [Value::Null; 0]);
        assert_eq!(scene.agent().fetch(&url, json!({})).status, 200, "the other doors are open");
    }
}

#[test]
fn a_payment_is_handed_out_in_either_version_and_the_chain_proves_it() {
    let scene = Scene::new(&["honest", "honest-v1"]);
    for (name, header, version) in [("honest", "PAYMENT-SIGNATURE", 2), ("honest-v1", "X-PAYMENT", 1)] {
        let url = scene.seller(name).url("/quote");
        let given = given(&scene.sign_at(&url, json!({"purpose": "brief 42", "purchase_id": name})));
        assert_eq!((&given["header_name"], &given["purchase"]), (&json!(header), &json!(name)));
        let sent = decode(text(&given, "/header_value"));
        assert_eq!(sent["x402Version"], version);
        let signed = authorization(&given);
        assert_eq!((&signed["value"], text(&signed, "/from")), (&json!("1000"), BUYER.address));

        let id = text(&given, "/payment");
        let payment = scene.agent().payment(id);
        assert_eq!((&payment["state"], &payment["observed"]), (&json!("unknown"), &json!(true)), "{payment}");
        assert_eq!(payment["valid_before"], given["expires_at"]);
        assert_eq!(payment["claims"]["purpose"], "brief 42");
        assert!(scene.moved().is_empty(), "nothing was presented yet");

        let answer = present(&url, &given);
        assert_eq!((answer.status, &answer.json()["symbol"]), (200, &json!("ACME")));
        let settled = scene.until(id, "settled");
        let moved = scene.moved();
        assert_eq!(moved.len(), 1);
        assert_eq!((moved[0].value, moved[0].to), (1_000, scene.seller(name).pay_to()));
        assert_eq!(settled["transaction"], json!(moved[0].transaction));
        let holds = scene.gateway.operator().payment(id)["holds"].clone();
        assert!(holds.as_array().unwrap().iter().all(|hold| hold["open"] == false), "{holds}");
    }
}

/// Two networks and two tokens that the host could pay with, so that only the comparison can refuse them.
fn rich(config: Config) -> Config {
    config
        .set(&["asset", "usd18", "network"], NETWORK)
        .set(&["asset", "usd18", "address"], USD18)
        .set(&["asset", "usd18", "symbol"], "USD18")
        .set(&["asset", "usd18", "decimals"], 18)
        .set(&["asset", "usd18", "eip712", "name"], "USDC")
        .set(&["asset", "usd18", "eip712", "version"], "2")
        .set(&["asset", "usd18", "price"], "1.00")
        .set(&["asset", "twin", "network"], "eip155:31337")
        .set(&["asset", "twin", "address"], USDC)
        .set(&["asset", "twin", "symbol"], "USDC")
        .set(&["asset", "twin", "decimals"], 6)
        .set(&["asset", "twin", "eip712", "name"], "USDC")
        .set(&["asset", "twin", "eip712", "version"], "2")
        .set(&["asset", "twin", "price"], "1.00")
        .set(&["wallet", "research", "networks"], vec![NETWORK, "eip155:31337"])
}

#[test]
fn rule_04_a_copy_that_was_changed_selects_nothing() {
    let scene = Scene::with(&["honest"], plain(), rich);
    let url = scene.honest().url("/quote");
    let terms = demand(&url);
    let changes: [(&str, Value); 8] = [
        ("payTo", json!("0x000000000000000000000000000000000000dEaD")),
        ("amount", json!("999")),
        ("amount", json!("1000000")),
        ("asset", json!(USD18)),
        ("network", json!("eip155:31337")),
        ("scheme", json!("upto")),
        ("extra", json!({"name": "USDC", "version": "2", "memo": "1"})),
        ("extra", Value::Null),
    ];
    for (key, value) in changes {
        let mut copy = terms.clone();
        copy["accepts"][0][key] = value.clone();
        let body = refusal(&sign(&scene.agent(), &url, &copy, json!({})), 422, "unpayable-offer");
        assert_eq!(body["retry"], false, "{key} {value}");
    }
    let mut copy = terms.clone();
    copy["accepts"] = json!([]);
    refusal(&sign(&scene.agent(), &url, &copy, json!({})), 422, "unpayable-offer");
    refusal(&sign(&scene.agent(), &url, &json!({"hash": "0x00"}), json!({})), 422, "unpayable-offer");
    refusal(&scene.agent().post("/v1/sign", &json!({"resource": {"url": url}})), 400, "bad-request");
    let other = scene.agent().post("/v1/sign", &json!({"header": "e30=", "resource": {"url": url}, "hash": "0x00"}));
    refusal(&other, 400, "bad-request");
    assert_eq!(items(&scene.agent().get("/v1/payments")), [Value::Null; 0]);
    // As it came, it selects.
    given(&sign(&scene.agent(), &url, &terms, json!({})));
}

#[test]
fn rule_04_an_offer_that_the_seller_no_longer_makes_is_not_signed() {
    let scene = Scene::new(&["honest"]);
    let (seller, url) = (scene.honest().clone(), scene.honest().url("/quote"));
    let terms = demand(&url);
    let refused = || refusal(&sign(&scene.agent(), &url, &terms, json!({})), 422, "unpayable-offer");
    for price in [999, 1_001] {
        seller.set_price("/quote", price);
        refused();
    }
    seller.set_price("/quote", 1_000);
    let payee = seller.pay_to();
    seller.set_pay_to(Address::new([7; 20]));
    refused();
    seller.set_pay_to(payee);
    given(&sign(&scene.agent(), &url, &terms, json!({})));
    // What costs nothing is not paid for either.
    let free = sign(&scene.agent(), &seller.url("/free"), &terms, json!({}));
    let body = refusal(&free, 422, "unpayable-offer");
    assert!(text(&body, "/detail").contains("200"), "{body}");
}

#[test]
fn rule_04_what_is_signed_and_sent_is_the_sellers_own() {
    let scene = Scene::new(&["honest"]);
    let url = scene.honest().url("/quote");
    let terms = demand(&url);
    // Everything that selects is left alone; everything else is the agent's invention.
    let mut copy = terms.clone();
    copy["resource"] = json!({"url": "https://evil.example/", "description": "invented"});
    copy["extensions"] = json!({"invented": {"info": {}}});
    copy["accepts"][0]["maxTimeoutSeconds"] = json!(3_600);
    copy["accepts"][0]["invented"] = json!(true);
    let given = given(&sign(&scene.agent(), &url, &copy, json!({})));
    let sent = decode(text(&given, "/header_value"));
    assert_eq!(sent["accepted"], terms["accepts"][0]);
    assert_eq!(sent["resource"], terms["resource"]);
    assert_eq!(sent.get("extensions"), None, "{sent}");
    let signed = authorization(&given);
    assert_eq!(signed["to"], terms["accepts"][0]["payTo"]);
    let payment = scene.gateway.operator().payment(text(&given, "/payment"));
    assert!(!payment.to_string().contains("invented"), "{payment}");
    assert_eq!(present(&url, &given).status, 200);
}

#[test]
fn rule_04_a_copy_may_name_one_of_several() {
    let scene = Scene::with(&["honest"], plain(), |config| {
        config.set(&["limits", "unresolved-per-seller"], 4).set(&["limits", "unresolved-per-payee"], 4)
    });
    let url = scene.honest().url("/choice");
    let terms = demand(&url);
    let only = |index: usize| {
        let mut copy = terms.clone();
        copy["accepts"] = json!([terms["accepts"][index]]);
        copy
    };
    let value = |purchase: &str, copy: &Value| {
        let url = format!("{url}?{purchase}");
        let given = given(&sign(&scene.agent(), &url, copy, json!({"purchase_id": purchase})));
        authorization(&given)["value"].clone()
    };
    assert_eq!(value("dear", &only(0)), "500000");
    assert_eq!(value("cheap", &only(1)), "3000");
    assert_eq!(value("any", &terms), "3000", "the cheapest of those it names");
    // As a header, just as it came.
    let came = http::get(&url).send();
    let order = json!({"header": came.header("payment-required"), "resource": {"url": url, "method": "get"}});
    assert_eq!(authorization(&given(&scene.agent().post("/v1/sign", &order)))["value"], "3000");
}

#[test]
fn rule_04_the_host_calls_only_where_it_may() {
    let scene = Scene::new(&["honest"]);
    let terms = demand(&scene.honest().url("/quote"));
    // Forbidden addresses, our own listeners, a port that is not listed, and plain http to the public.
    let own = format!("{}/quote", scene.gateway.admin_url);
    for url in ["http://10.1.2.3/x", "http://169.254.169.254/x", "http://127.0.0.1:1/x", &own, "http://1.1.1.1/x"] {
        refusal(&sign(&scene.agent(), url, &terms, json!({})), 400, "egress-forbidden");
    }
    let strange = json!({"resource": {"url": "ftp://127.0.0.1/x"}});
    refusal(&sign(&scene.agent(), "http://127.0.0.1/", &terms, strange), 400, "bad-request");
    // A redirect is no 402, and nobody follows it.
    let world = LocalWorld::start();
    let away = world.world().seller("redirects-unpaid").unwrap().clone();
    let scene = Scene::with(&["honest"], plain(), |config| config.allow_private(away.authority()));
    refusal(&sign(&scene.agent(), &away.url("/quote"), &terms, json!({})), 422, "unpayable-offer");
    assert!(world.world().seller("elsewhere").unwrap().visits().is_empty());
}
