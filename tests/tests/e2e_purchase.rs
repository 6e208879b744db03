//! Purchases through the real gateway from the official sellers, judged by the chain.
#![expect(clippy::unwrap_used, reason = "a test: whatever is not as expected must fail it loudly")]

use countersign_tests::{
    agent::Client,
    config::{ALICE_TOKEN, Config, Policy, SCOUT_TOKEN, standard_config},
    http::{self, Response},
    peers::{NETWORK, Peers, SELLER, USD18, USDC, authority},
    process::Gateway,
    purse::Purse,
    refusal::{refusal, refusal_because},
    till::{Till, bought, caps, header, items, plain, text},
};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
    thread,
};

/// Peers whose facilitator misbehaves: one test at a time.
fn faulty() -> MutexGuard<'static, Peers> {
    static FAULTY: OnceLock<Mutex<Peers>> = OnceLock::new();
    FAULTY.get_or_init(|| Mutex::new(Peers::start())).lock().unwrap_or_else(PoisonError::into_inner)
}

/// The token with 18 decimals, as an operator would add it.
fn with_usd18(config: Config) -> Config {
    config
        .set(&["asset", "usd18", "network"], NETWORK)
        .set(&["asset", "usd18", "address"], USD18)
        .set(&["asset", "usd18", "symbol"], "USD18")
        .set(&["asset", "usd18", "decimals"], 18)
        .set(&["asset", "usd18", "eip712", "name"], "Dollar18")
        .set(&["asset", "usd18", "eip712", "version"], "1")
        .set(&["asset", "usd18", "price"], "1.00")
}

/// A budget's row as the agent or operator sees it.
fn budget(client: &Client, name: &str) -> Option<Value> {
    let found = items(&client.get("/v1/budgets"));
    found.into_iter().find(|row| row["budget"].as_str().is_some_and(|label| label.ends_with(name)))
}

#[test]
fn buys_from_the_v2_seller_and_the_chain_proves_it() {
    let till = Till::open();
    let before = till.peers.chain().balance_of(USDC, SELLER.address);
    let answer = till.agent().fetch(&till.v2("/cheap"), json!({"purpose": "price check"}));
    let payment = bought(&answer, "0.001");
    assert_eq!(answer.json()["route"], "cheap");

    let settled = till.until(&payment, "settled");
    let spent = till.spent();
    assert_eq!(spent.len(), 1, "{spent:?}");
    assert_eq!((spent[0].value, spent[0].to.as_str()), (1000, SELLER.address.to_lowercase().as_str()));
    assert_eq!(spent[0].transaction, header(&answer, "countersign-transaction"));
    assert_eq!(settled["transaction"], json!(spent[0].transaction));
    // Others buy too, so not exactly.
    assert!(till.peers.chain().balance_of(USDC, SELLER.address) >= before + 1000);
}

#[test]
fn buys_from_the_v1_seller_and_the_chain_proves_it() {
    let till = Till::open();
    let answer = till.agent().fetch(&till.v1("/cheap"), json!({}));
    let payment = bought(&answer, "0.001");
    assert_eq!(answer.json()["route"], "cheap");
    let atomic = till.agent().fetch(&till.v1("/atomic"), json!({}));
    bought(&atomic, "0.003");

    let settled = till.until(&payment, "settled");
    assert_eq!(settled["transaction"], json!(header(&answer, "countersign-transaction")));
    assert_eq!(till.amounts(), [1000, 3000]);
    assert!(till.spent().iter().all(|transfer| transfer.to == SELLER.address.to_lowercase()));
}

#[test]
fn exactly_the_price_reaches_the_seller() {
    // Peers that nobody else buys from: the balance itself is the judge.
    let peers = faulty();
    let till = Till::at(&peers, plain(), |config| config);
    let before = (peers.seller_balance(), peers.chain().balance_of(USDC, &till.purse.address));
    bought(&till.agent().fetch(&till.v2("/cheap"), json!({})), "0.001");
    assert_eq!(peers.seller_balance(), before.0 + 1000);
    assert_eq!(peers.chain().balance_of(USDC, &till.purse.address), before.1 - 1000);
}

#[test]
fn a_payment_tells_everything_the_contract_promises() {
    let till = Till::open_with(|config| {
        config
            .set(&["agent", "scout", "user"], "ada")
            .set(&["budget", "workspace/research", "when", "workspace"], "research")
            .set(&["budget", "workspace/research", "per"], "month")
            .set(&["budget", "workspace/research", "limit"], "500.00")
    });
    let url = till.v2("/cheap");
    let order = json!({"purpose": "brief 42", "task": "T-42", "purchase_id": "brief-42_a"});
    let id = bought(&till.agent().fetch(&url, order), "0.001");
    till.until(&id, "settled");

    let payment = till.agent().payment(&id);
    let known = [
        "id",
        "purchase",
        "attempt",
        "state",
        "created_at",
        "agent",
        "user",
        "workspace",
        "session",
        "client",
        "project",
        "task",
        "resource",
        "seller",
        "amount",
        "decision",
        "holds",
        "transaction",
        "valid_before",
        "history",
        "use",
    ];
    for name in known {
        assert!(payment.get(name).is_some(), "no {name}: {payment}");
    }
    assert_eq!(payment["id"], json!(id));
    assert_eq!(payment["purchase"], "brief-42_a");
    assert_eq!(payment["attempt"], 1);
    assert_eq!(
        (&payment["agent"], &payment["user"], &payment["workspace"]),
        (&json!("scout"), &json!("ada"), &json!("research"))
    );
    // What the agent says is a claim: the task comes from a session only, and there is none.
    for absent in ["session", "client", "project", "task", "use"] {
        assert_eq!(payment[absent], Value::Null, "{absent}: {payment}");
    }
    assert_eq!(payment["resource"], json!({"method": "GET", "url": url}));
    assert_eq!(payment["seller"]["host"], authority(&till.peers.v2));
    assert_eq!(text(&payment, "/seller/pay_to").to_lowercase(), SELLER.address.to_lowercase());
    let amount = &payment["amount"];
    assert_eq!(amount["value"], "0.001");
    assert_eq!(amount["currency"], "USD");
    assert_eq!(amount["atomic"], "1000");
    assert_eq!(amount["network"], NETWORK);
    assert!(amount["asset"].is_string());

    let decision = &payment["decision"];
    assert!(!text(decision, "/id").is_empty() && decision["generation"].is_number(), "{decision}");
    assert_eq!(decision["verdict"], "allow");
    assert!(decision["reasons"].is_array());
    let policies = decision["policies"].as_array().unwrap();
    assert_eq!(policies.iter().map(|p| text(p, "/name")).collect::<Vec<_>>(), ["vendors", "caps"]);
    for policy in policies {
        assert_eq!(policy["verdict"], "allow");
        assert!(policy["reasons"].is_array() && !text(policy, "/version").is_empty());
        for digest in ["/module_sha256", "/settings_sha256"] {
            let digest = text(policy, digest);
            assert!(digest.len() == 64 && digest.bytes().all(|b| b.is_ascii_hexdigit()), "{policy}");
        }
    }

    // An agent sees figures of its own budgets only; an operator sees all of them.
    let mine = payment["holds"].as_array().unwrap();
    assert!(!mine.is_empty());
    let operator = till.gateway.operator().payment(&id);
    let all = operator["holds"].as_array().unwrap();
    let labels: Vec<&str> = all.iter().map(|hold| text(hold, "/budget")).collect();
    for part in ["wallet/research", "workspace/research", "agent/scout"] {
        assert!(labels.iter().any(|label| label.contains(part)), "{part}: {labels:?}");
    }
    for hold in all {
        assert_eq!(hold["amount"], "0.001", "{hold}");
        assert!(hold["limit"].is_string() && !hold["window"].is_null(), "{hold}");
    }

    let spent = till.spent();
    assert_eq!(payment["transaction"], json!(spent[0].transaction));
    for time in ["/created_at", "/valid_before"] {
        let time = text(&payment, time);
        assert!(time.ends_with('Z') && time.contains('T'), "not RFC 3339 UTC: {time}");
    }
    let history = payment["history"].as_array().unwrap();
    let states: Vec<&str> = history.iter().map(|step| text(step, "/state")).collect();
    assert_eq!((states.first(), states.last()), (Some(&"in-flight"), Some(&"settled")), "{states:?}");
    assert!(history.iter().all(|step| step["at"].is_string() && step["why"].is_string()), "{history:?}");

    let listed = till.payments();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0]["id"], json!(id));
}

#[test]
fn bodies_are_sent_as_they_are_given() {
    let till = Till::open();
    let url = till.v2("/echo");
    let said = json!({"question": "how much?", "n": [1, 2.5, null], "ü": "ä"});
    let answer = till.agent().fetch(&url, json!({"method": "POST", "body": said}));
    bought(&answer, "0.002");
    assert_eq!(answer.json()["echo"], said);

    // `{"base":64}`
    let order =
        json!({"method": "POST", "body_base64": "eyJiYXNlIjo2NH0=", "headers": {"Content-Type": "application/json"}});
    let answer = till.agent().fetch(&url, order);
    bought(&answer, "0.002");
    assert_eq!(answer.json()["echo"], json!({"base": 64}));

    let answer = till.agent().fetch(&till.v1("/echo"), json!({"method": "POST", "body": {"to": "v1"}}));
    bought(&answer, "0.002");
    assert_eq!(answer.json()["echo"], json!({"to": "v1"}));
    assert_eq!(till.amounts(), [2000, 2000, 2000]);
}

#[test]
fn a_streamed_answer_arrives_whole() {
    let till = Till::open();
    let answer = till.agent().fetch(&till.v2("/stream"), json!({}));
    bought(&answer, "0.001");
    assert_eq!(answer.text(), "line 0\nline 1\nline 2\nline 3\nline 4\n");
}

#[test]
fn what_is_free_passes_and_nothing_is_recorded() {
    let till = Till::open();
    for url in [till.v2("/free"), till.v1("/free")] {
        let answer = till.agent().fetch(&url, json!({}));
        if answer.status == 404 {
            continue; // the v1 seller gives nothing away
        }
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(header(&answer, "countersign-source"), "seller");
        assert!(!header(&answer, "countersign-purchase").is_empty());
        for name in ["countersign-payment", "countersign-amount", "countersign-state", "countersign-transaction"] {
            assert!(answer.header(name).is_none(), "{name}");
        }
    }
    assert_eq!(till.payments(), Vec::<Value>::new());
    assert_eq!(till.amounts(), [0; 0]);
}

#[test]
fn a_sellers_own_refusal_is_the_sellers() {
    let till = Till::open();
    let answer = till.agent().fetch(&till.v2("/no-such-route"), json!({}));
    assert_eq!((answer.status, header(&answer, "countersign-source")), (404, "seller"));
    assert_eq!(till.payments(), Vec::<Value>::new());
}

#[test]
fn the_cheapest_payable_offer_is_taken() {
    let till = Till::open();
    bought(&till.agent().fetch(&till.v2("/multi"), json!({})), "0.003");
    assert_eq!(till.amounts(), [3000]);
}

#[test]
fn an_asset_the_operator_added_can_be_paid_with() {
    let till = Till::open_with(with_usd18);
    let chain = till.peers.chain();
    chain.mint(USD18, &till.purse.address, 1_000_000_000_000_000_000);
    let answer = till.agent().fetch(&till.v2("/usd18"), json!({}));
    let payment = bought(&answer, "0.001");
    assert_eq!(till.until(&payment, "settled")["amount"]["atomic"], "1000000000000000");
    // Three offers, the cheapest now in the other token.
    bought(&till.agent().fetch(&till.v2("/multi"), json!({})), "0.002");
    let paid: Vec<u128> = till.purse.spent(&chain, USD18).iter().map(|transfer| transfer.value).collect();
    assert_eq!(paid, [1_000_000_000_000_000, 2_000_000_000_000_000]);
    assert_eq!(till.amounts(), [0; 0]);
}

#[test]
fn an_unknown_asset_is_not_paid() {
    let till = Till::open();
    let answer = till.agent().fetch(&till.v2("/usd18"), json!({}));
    let body = refusal(&answer, 422, "unpayable-offer");
    assert!(text(&body, "/detail").contains("asset"), "the field is not named: {body}");
    assert_eq!(body["retry"], false);
}

#[test]
fn a_price_that_depends_on_the_request_is_paid_as_asked() {
    let till = Till::open();
    bought(&till.agent().fetch(&till.v2("/dynamic?units=7"), json!({})), "0.007");
    bought(&till.agent().fetch(&till.v2("/dynamic?units=250"), json!({})), "0.25");
    assert_eq!(till.amounts(), [7000, 250_000]);
}

#[test]
fn a_cap_on_one_payment_denies_and_says_so() {
    let till = Till::open();
    for url in [till.v2("/report"), till.v1("/report")] {
        let body = refusal_because(&till.agent().fetch(&url, json!({})), 403, "policy-denied", "above-per-payment");
        assert_eq!(body["policy"], "caps");
        assert_eq!(body["retry"], false);
        let payment = till.agent().payment(text(&body, "/payment"));
        assert_eq!(payment["state"], "denied");
        assert_eq!((&payment["transaction"], &payment["valid_before"]), (&Value::Null, &Value::Null));
        assert_eq!(payment["decision"]["verdict"], "deny");
        assert_eq!(payment["amount"]["value"], "2.5");
    }
    assert_eq!(till.payments().len(), 2, "denied ones are listed too");
    assert_eq!(till.amounts(), [0; 0]);
}

#[test]
fn a_full_budget_denies_and_is_named() {
    let till = Till::at(Peers::shared(), [Policy::vendors(), caps("0.0025")], |config| config);
    let url = till.v2("/cheap");
    bought(&till.agent().fetch(&url, json!({})), "0.001");
    bought(&till.agent().fetch(&url, json!({})), "0.001");
    let body = refusal(&till.agent().fetch(&url, json!({})), 403, "budget-exceeded");
    assert!(text(&body, "/budget").contains("agent/scout"), "{body}");
    assert_eq!(body["policy"], "caps", "{body}");
    assert_eq!(till.agent().payment(text(&body, "/payment"))["state"], "denied");
    assert_eq!(till.amounts(), [1000, 1000]);
}

#[test]
fn the_operators_own_budget_denies_and_is_named() {
    let till = Till::open_with(|config| {
        config
            .set(&["budget", "workspace/research", "when", "workspace"], "research")
            .set(&["budget", "workspace/research", "per"], "lifetime")
            .set(&["budget", "workspace/research", "limit"], "0.0015")
    });
    bought(&till.agent().fetch(&till.v2("/cheap"), json!({})), "0.001");
    let body = refusal(&till.agent().fetch(&till.v2("/cheap"), json!({})), 403, "budget-exceeded");
    assert!(text(&body, "/budget").contains("workspace/research"), "{body}");
    assert_eq!(till.amounts(), [1000]);
}

#[test]
fn an_unlisted_vendor_is_refused() {
    let vendors = Policy::new("vendors", "builtin:vendor-allowlist").setting("hosts", vec!["api.example.com"]);
    let till = Till::at(Peers::shared(), [vendors, caps("5.00")], |config| config);
    let body =
        refusal_because(&till.agent().fetch(&till.v2("/cheap"), json!({})), 403, "policy-denied", "vendor-not-listed");
    assert_eq!(body["policy"], "vendors");
    assert_eq!(till.amounts(), [0; 0]);
}

#[test]
fn a_policy_that_only_abstains_allows_nothing() {
    let review = Policy::new("review", "builtin:review-threshold").setting("above", "1.00");
    let till = Till::at(Peers::shared(), [review], |config| config);
    refusal(&till.agent().fetch(&till.v2("/cheap"), json!({})), 403, "no-policy-allowed");
    assert_eq!(till.amounts(), [0; 0]);
}

#[test]
fn without_a_mandate_nothing_is_bought() {
    let till = Till::open_with(|config| config.mandate(&["when", "workspace"], "elsewhere"));
    refusal(&till.agent().fetch(&till.v2("/cheap"), json!({})), 403, "no-mandate");
    assert_eq!(till.amounts(), [0; 0]);
}

#[test]
fn only_known_tokens_are_served() {
    let till = Till::open();
    let order = json!({"url": till.v2("/cheap")});
    let fetch = format!("{}/v1/fetch", till.gateway.url);
    refusal(&http::post(&fetch, &order).send(), 401, "unauthenticated");
    let cut = SCOUT_TOKEN.trim_start_matches('t');
    for token in ["wrong", ALICE_TOKEN, &format!("{SCOUT_TOKEN}x"), cut] {
        refusal(&http::post(&fetch, &order).bearer(token).send(), 401, "unauthenticated");
    }
    let basic = http::post(&fetch, &order).header("authorization", &format!("Basic {SCOUT_TOKEN}"));
    refusal(&basic.send(), 401, "unauthenticated");
    // An agent is no operator.
    for path in ["/v1/payments", "/v1/approvals", "/v1/policies", "/v1/budgets", "/v1/sessions", "/v1/suspend"] {
        let url = format!("{}{path}", till.gateway.admin_url);
        refusal(&http::get(&url).bearer(SCOUT_TOKEN).send(), 401, "unauthenticated");
        refusal(&http::get(&url).send(), 401, "unauthenticated");
    }
    assert_eq!(till.amounts(), [0; 0]);
}

#[test]
fn malformed_calls_are_refused_and_send_nothing() {
    let till = Till::open();
    let url = till.v2("/cheap");
    for order in [
        json!({}),
        json!({"url": "not a url"}),
        json!({"url": "ftp://127.0.0.1/x"}),
        json!({"url": url, "no_such_member": 1}),
        json!({"url": url, "max_price": 0.05}),
        json!({"url": url, "max_price": "1e3"}),
        json!({"url": url, "max_price": "-1"}),
        json!({"url": url, "purchase_id": ""}),
        json!({"url": url, "purchase_id": "a b"}),
        json!({"url": url, "purchase_id": "x".repeat(129)}),
        json!({"url": url, "body": "a", "body_base64": "YQ=="}),
        json!({"url": url, "body_base64": "***"}),
        json!({"url": url, "method": "CONNECT"}),
    ] {
        refusal(&till.agent().post("/v1/fetch", &order), 400, "bad-request");
    }
    let raw = till.agent().request("POST", "/v1/fetch").header("content-type", "application/json").body("{");
    refusal(&raw.send(), 400, "bad-request");
    assert_eq!(till.payments(), Vec::<Value>::new());
}

#[test]
fn the_callers_own_ceiling_holds() {
    let till = Till::open();
    let url = till.v2("/cheap");
    let body = refusal(&till.agent().fetch(&url, json!({"max_price": "0.000999"})), 403, "price-above-max");
    assert_eq!(body["retry"], false);
    bought(&till.agent().fetch(&url, json!({"max_price": "0.001"})), "0.001");
    assert_eq!(till.amounts(), [1000]);
}

#[test]
fn an_empty_wallet_signs_nothing_and_holds_nothing() {
    let peers = Peers::shared();
    let broke = Purse::new();
    let gateway = Gateway::start(broke.pays(standard_config(peers, plain())));
    let body = refusal(&gateway.agent().fetch(&format!("{}/cheap", peers.v2), json!({})), 422, "insufficient-funds");
    let payment = gateway.agent().payment(text(&body, "/payment"));
    assert_eq!((&payment["state"], &payment["valid_before"]), (&json!("denied"), &Value::Null));
    for row in items(&gateway.operator().get("/v1/budgets")) {
        assert!(row["held"] == "0" && row["spent"] == "0", "{row}");
    }
    // Money arrives, and the very next call may spend it.
    peers.chain().mint(USDC, &broke.address, 1000);
    bought(&gateway.agent().fetch(&format!("{}/cheap", peers.v2), json!({})), "0.001");
}

#[test]
fn a_sellers_error_after_payment_is_passed_on_and_the_hold_kept() {
    let till = Till::open();
    for url in [till.v2("/fail500"), till.v1("/fail500")] {
        let answer = till.agent().fetch(&url, json!({}));
        assert_eq!((answer.status, header(&answer, "countersign-source")), (500, "seller"), "{}", answer.text());
        assert_eq!(answer.json()["error"], "handler failed");
        assert_eq!(header(&answer, "countersign-state"), "unknown");
        assert_eq!(header(&answer, "countersign-amount"), "0.001 USD");
        let payment = till.agent().payment(header(&answer, "countersign-payment"));
        assert_eq!(payment["state"], "unknown", "{payment}");
        assert_eq!(payment["transaction"], Value::Null);
    }
    let held = budget(&till.agent(), "agent/scout").unwrap();
    assert_eq!((&held["held"], &held["spent"]), (&json!("0.002"), &json!("0")), "{held}");
    assert_eq!(till.amounts(), [0; 0]);
}

/// The transaction that `countersign payments cancel` prints, sent to a real token by somebody else.
#[test]
fn a_cancelled_payment_can_never_be_redeemed() {
    let till = Till::open();
    let answer = till.agent().fetch(&till.v2("/fail500"), json!({}));
    let payment = header(&answer, "countersign-payment");
    assert_eq!(till.agent().payment(payment)["state"], "unknown");
    let printed = till.gateway.command(&["payments", "cancel", payment, "--why", "the seller broke down", "--json"]);
    assert!(printed.status.success(), "{printed:?}");
    let signed: Value = serde_json::from_slice(&printed.stdout).unwrap();
    let (chain, token) = (till.peers.chain(), text(&signed, "/to"));
    assert!(token.eq_ignore_ascii_case(USDC), "{signed}");
    let data = text(&signed, "/data");
    let nonce = format!("0x{}", data.get(10 + 64..10 + 128).unwrap());
    let authorizer = format!("0x{}", data.get(10 + 24..10 + 64).unwrap());
    assert!(!chain.authorization_state(token, &authorizer, &nonce));
    chain.send(token, data);
    assert!(chain.authorization_state(token, &authorizer, &nonce), "the token did not take the cancellation");
    assert_eq!(till.amounts(), [0; 0]);
}

#[test]
fn a_repeated_purchase_is_answered_again_and_paid_once() {
    let till = Till::open();
    for (id, url) in [("order-2", till.v2("/cheap")), ("order-1", till.v1("/cheap"))] {
        let first = till.agent().fetch(&url, json!({"purchase_id": id}));
        let payment = bought(&first, "0.001");
        assert!(first.header("countersign-replayed").is_none());
        assert_eq!(header(&first, "countersign-purchase"), id);
        // Neither headers, purpose, max_price nor claims make it another request.
        for more in [
            json!({"purchase_id": id}),
            json!({"purchase_id": id, "purpose": "again", "max_price": "0.5", "headers": {"X-Try": "2"}, "claims": {"a": 1}}),
        ] {
            let again = till.agent().fetch(&url, more);
            assert_eq!(bought(&again, "0.001"), payment);
            assert_eq!(header(&again, "countersign-replayed"), "true");
            assert_eq!(again.body, first.body);
            assert_eq!(again.header("content-type"), first.header("content-type"));
        }
        let order = json!({"url": url});
        let by_header =
            till.agent().request("POST", "/v1/fetch").header("Countersign-Purchase", id).json(&order).send();
        assert_eq!(header(&by_header, "countersign-replayed"), "true");
    }
    assert_eq!(till.amounts(), [1000, 1000]);
    assert_eq!(till.payments().len(), 2);
}

#[test]
fn an_answer_that_was_not_kept_is_not_paid_for_again() {
    let till = Till::open_with(|config| config.set(&["responses", "keep"], "0"));
    let order = json!({"purchase_id": "once"});
    bought(&till.agent().fetch(&till.v2("/cheap"), order.clone()), "0.001");
    let body = refusal(&till.agent().fetch(&till.v2("/cheap"), order), 409, "already-settled");
    assert_eq!(body["retry"], false);
    assert_eq!(till.amounts(), [1000]);
}

#[test]
fn kept_answers_survive_a_restart() {
    let mut till = Till::open();
    let order = json!({"purchase_id": "kept"});
    let first = till.agent().fetch(&till.v2("/cheap"), order.clone());
    let payment = bought(&first, "0.001");
    till.until(&payment, "settled");
    till.gateway.restart();
    let again = till.agent().fetch(&till.v2("/cheap"), order);
    assert_eq!((bought(&again, "0.001"), again.header("countersign-replayed")), (payment, Some("true")));
    assert_eq!(again.body, first.body);
    assert_eq!(till.amounts(), [1000]);
}

#[test]
fn a_purchase_id_names_one_request_only() {
    let till = Till::open();
    bought(&till.agent().fetch(&till.v2("/cheap"), json!({"purchase_id": "p"})), "0.001");
    for (url, more) in [
        (till.v2("/multi"), json!({"purchase_id": "p"})),
        (till.v2("/cheap?other=1"), json!({"purchase_id": "p"})),
        (till.v2("/cheap"), json!({"purchase_id": "p", "method": "POST"})),
        (till.v2("/cheap"), json!({"purchase_id": "p", "method": "POST", "body": "b"})),
    ] {
        let body = refusal(&till.agent().fetch(&url, more), 409, "purchase-conflict");
        assert_eq!(body["purchase"], "p");
        assert_eq!(body["retry"], false);
    }
    assert_eq!(till.amounts(), [1000]);
}

#[test]
fn purchase_ids_are_the_agents_own() {
    let rival = "test-agent-token-of-rival-0123456789abcdef";
    let till = Till::open_with(|config| config.agent("rival", rival));
    let order = json!({"purchase_id": "same"});
    let first = bought(&till.agent().fetch(&till.v2("/cheap"), order.clone()), "0.001");
    let theirs = till.gateway.agent_with(rival).fetch(&till.v2("/cheap"), order);
    assert_ne!(bought(&theirs, "0.001"), first);
    assert!(theirs.header("countersign-replayed").is_none());
    assert_eq!(till.amounts(), [1000, 1000]);
}

#[test]
fn a_settlement_whose_reply_was_lost_is_never_paid_twice() {
    let peers = faulty();
    let till = Till::at(&peers, plain(), |config| config);
    for (id, url) in [("lost-2", till.v2("/cheap")), ("lost-1", till.v1("/cheap"))] {
        let before = till.amounts().len();
        let facilitator = peers.facilitator();
        let fault = facilitator.fault(&json!({"dropSettleReply": true}));
        let body = refusal(&till.agent().fetch(&url, json!({"purchase_id": id})), 502, "payment-refused");
        drop(fault);
        let payment = text(&body, "/payment").to_owned();
        assert_eq!(body["payment_state"], "unknown", "{body}");
        // The seller says it was not paid. The chain knows better.
        let settled = till.until(&payment, "settled");
        assert_eq!(settled["transaction"], json!(till.spent().last().unwrap().transaction));
        for more in [json!({"purchase_id": id}), json!({})] {
            // The seller may be asked for the goods again, with the same authorization; he still says no.
            let answer = till.agent().fetch(&url, more);
            let code = if answer.status == 409 { "already-settled" } else { "payment-refused" };
            let again = refusal(&answer, if answer.status == 409 { 409 } else { 502 }, code);
            assert_eq!((&again["payment"], &again["payment_state"]), (&json!(payment), &json!("settled")));
            assert_eq!(again["retry"], false, "it can never succeed: {again}");
        }
        assert_eq!(till.amounts().len(), before + 1);
    }
    assert_eq!(till.amounts(), [1000, 1000]);
}

#[test]
fn a_receipt_alone_never_settles() {
    let peers = faulty();
    let till = Till::at(&peers, plain(), |config| config);
    let facilitator = peers.facilitator();
    let fault = facilitator.fault(&json!({"skipSettle": true}));
    let answer = till.agent().fetch(&till.v2("/cheap"), json!({}));
    drop(fault);
    // The goods came. Whether the receipt was believed depends on how well it lied.
    assert_eq!(answer.status, 200, "{}", answer.text());
    let believed = header(&answer, "countersign-state").to_owned();
    assert!(matches!(believed.as_str(), "accepted" | "unknown"), "{believed}");
    let lied = header(&answer, "countersign-payment").to_owned();
    // An honest payment made afterwards is proven; the other is still looked at and still is not.
    let honest = bought(&till.agent().fetch(&till.v2("/dynamic?units=1"), json!({})), "0.001");
    till.until(&honest, "settled");
    assert_eq!(till.agent().payment(&lied)["state"], json!(believed));
    let held = budget(&till.agent(), "agent/scout").unwrap();
    let figure = |name: &str| text(&held, &format!("/{name}")).parse::<f64>().unwrap();
    assert!((figure("held") + figure("spent") - 0.002).abs() < 1e-9, "the lie is still held: {held}");
    assert_eq!(till.amounts(), [1000]);
}

#[test]
fn a_refusal_to_verify_holds_the_money_and_is_presented_again() {
    let peers = faulty();
    let till = Till::at(&peers, plain(), |config| config);
    let facilitator = peers.facilitator();
    facilitator.clear_log();
    let order = json!({"purchase_id": "again"});
    let fault = facilitator.fault(&json!({"failVerify": "invalid_payload"}));
    let body = refusal(&till.agent().fetch(&till.v2("/cheap"), order.clone()), 502, "payment-refused");
    drop(fault);
    assert_eq!(body["payment_state"], "unknown");
    let answer = till.agent().fetch(&till.v2("/cheap"), order);
    assert_eq!(bought(&answer, "0.001"), text(&body, "/payment"));
    let nonces: BTreeSet<String> = facilitator
        .calls("verify")
        .iter()
        .map(|call| text(call, "/paymentPayload/payload/authorization/nonce").to_owned())
        .collect();
    assert_eq!(nonces.len(), 1, "one purchase, one authorization");
    assert_eq!(till.amounts(), [1000]);
}

/// Answers by status.
fn of(answers: &[Response], status: u16) -> Vec<&Response> {
    answers.iter().filter(|answer| answer.status == status).collect()
}

/// That many calls at the same time.
fn at_once(n: usize, call: impl Fn(usize) -> Response + Sync) -> Vec<Response> {
    thread::scope(|scope| {
        let threads: Vec<_> = (0..n)
            .map(|i| {
                scope.spawn({
                    let call = &call;
                    move || call(i)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

#[test]
fn sixty_four_at_once_never_pass_a_budget() {
    const LIMIT: usize = 20;
    let till = Till::at(Peers::shared(), [Policy::vendors(), caps("0.0205")], |config| config);
    let (agent, url) = (till.agent(), till.v2("/cheap"));
    let answers = at_once(64, |i| agent.fetch(&url, json!({"purchase_id": format!("race-{i}")})));
    let mut transactions = BTreeSet::new();
    for answer in of(&answers, 200) {
        bought(answer, "0.001");
        transactions.insert(header(answer, "countersign-transaction").to_owned());
    }
    assert_eq!(transactions.len(), LIMIT, "{:?}", answers.iter().map(|a| a.text()).collect::<Vec<_>>());
    for answer in answers.iter().filter(|answer| answer.status != 200) {
        let body = refusal(answer, 403, "budget-exceeded");
        assert!(text(&body, "/budget").contains("agent/scout"), "{body}");
    }
    assert_eq!(till.amounts(), [1000; LIMIT]);
    assert_eq!(till.spent().into_iter().map(|t| t.transaction).collect::<BTreeSet<_>>(), transactions);
}

#[test]
fn sixty_four_at_once_never_pass_the_wallets_limit() {
    const LIMIT: usize = 7;
    let till = Till::at(Peers::shared(), [Policy::vendors()], |config| {
        config.set(&["wallet", "research", "daily-limit"], "0.007")
    });
    let (agent, url) = (till.agent(), till.v1("/cheap"));
    let answers = at_once(64, |i| agent.fetch(&url, json!({"purchase_id": format!("race-{i}")})));
    assert_eq!(of(&answers, 200).len(), LIMIT);
    for answer in answers.iter().filter(|answer| answer.status != 200) {
        let body = refusal(answer, 403, "budget-exceeded");
        assert!(text(&body, "/budget").contains("wallet/research"), "{body}");
    }
    assert_eq!(till.amounts(), [1000; LIMIT]);
}

#[test]
fn concurrent_calls_of_one_purchase_are_one_purchase() {
    let till = Till::open();
    let (agent, url) = (till.agent(), till.v2("/cheap"));
    let answers = at_once(16, |_| agent.fetch(&url, json!({"purchase_id": "one"})));
    let payments: BTreeSet<String> = answers.iter().map(|answer| bought(answer, "0.001")).collect();
    assert_eq!(payments.len(), 1, "{payments:?}");
    assert!(answers.iter().all(|answer| answer.body == answers[0].body));
    assert_eq!(till.amounts(), [1000]);
}

#[test]
fn an_agent_that_hangs_up_has_still_bought() {
    let till = Till::open();
    let order = json!({"url": till.v2("/slow?ms=600"), "purchase_id": "impatient"}).to_string();
    let head = format!(
        "POST /v1/fetch HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {SCOUT_TOKEN}\r\nContent-Length: {}\r\n\r\n{order}",
        order.len()
    );
    let stream = std::net::TcpStream::connect(authority(&till.gateway.url)).unwrap();
    std::io::Write::write_all(&mut &stream, head.as_bytes()).unwrap();
    // Gone as soon as something is signed.
    let limit = std::time::Duration::from_secs(20);
    countersign_tests::wait_for(limit, || {
        (!till.gateway.operator().get("/v1/payments").json()["items"].as_array()?.is_empty()).then_some(())
    })
    .unwrap();
    drop(stream);
    let answer = till.agent().fetch(&till.v2("/slow?ms=600"), json!({"purchase_id": "impatient"}));
    bought(&answer, "0.001");
    assert_eq!(answer.json()["route"].as_str().or(Some("slow")), Some("slow"));
    assert_eq!(till.amounts(), [1000]);
}
