//! Purchases: once each, whatever is repeated, and only what is allowed.

use super::model::{Model, NEWEST, WAYS, failed, succeeded};
use super::{SOON, Scene, budget};
use countersign_tests::{config::Policy, config::SCOUT_TOKEN, till::text, wait_for, world::buyer};
use serde_json::{Value, json};

const TOOLS: [&str; 6] =
    ["paid_fetch", "price_check", "budget_status", "approval_status", "report_use", "search_catalog"];

fn asks() -> Policy {
    Policy::new("review", "builtin:review-threshold").setting("above", "0.000999")
}

#[test]
fn a_model_buys_once_whichever_way_it_came() {
    let scene = Scene::new();
    let host = scene.world.world().seller("honest").unwrap().authority().to_owned();
    for (turn, way) in (1_u32..).zip(WAYS) {
        let mut model = Model::connect(&scene.gateway, way, SCOUT_TOKEN);
        assert_eq!(model.version == NEWEST, way.1 == "auto", "{way:?}: {}", model.version);

        let tools = model.tools();
        let names: Vec<&str> = tools.iter().map(|tool| text(tool, "/name")).collect();
        assert_eq!(names, TOOLS);
        let hints = &tools[0]["annotations"];
        assert_eq!((&hints["destructiveHint"], &hints["idempotentHint"]), (&json!(true), &json!(false)));
        assert!(tools[1..].iter().all(|tool| tool["annotations"]["destructiveHint"] == false));

        // The price, without buying.
        let url = scene.url("/quote");
        let before = model.ask("budget_status", json!({}));
        let quote = model.ask("price_check", json!({"url": url}));
        let price = json!({"amount": "0.001", "currency": "USD", "asset": "USDC", "network": "eip155:84532"});
        assert_eq!((&quote["price"], &quote["verdict"]), (&price, &json!("allow")), "{quote}");
        let held = quote["budgets"].as_array().unwrap().iter().find(|b| b["budget"] == "caps/agent/scout");
        assert_eq!(held.unwrap()["amount"], "0.001", "{quote}");
        assert_eq!(model.ask("budget_status", json!({})), before, "a quote holds nothing");
        assert_eq!(scene.moved(), []);

        // Bought, seen in the ledger and on the chain.
        let bought = model.ask("paid_fetch", json!({"url": url, "purpose": "the price of anvils"}));
        assert_eq!((&bought["status"], &bought["payment"]["amount"]), (&json!(200), &json!("0.001")), "{bought}");
        assert!(text(&bought, "/untrusted/body").contains("ACME"), "{bought}");
        assert_eq!(text(&bought, "/untrusted/host"), host);
        let moved = scene.moved();
        let [one] = moved.as_slice() else { panic!("{moved:?}") };
        assert_eq!(
            (one.from, one.value, one.transaction.as_str()),
            (buyer(), 1_000, text(&bought, "/payment/transaction"))
        );
        let id = text(&bought, "/payment/id");
        let payment = scene.gateway.agent().payment(id);
        assert_eq!(payment["purchase"], bought["purchase_id"]);
        assert_eq!(payment["claims"]["purpose"], "the price of anvils");

        // Again: the same answer, not another payment. And again under no id: a new purchase.
        let again = model.ask("paid_fetch", json!({"url": url, "purchase_id": bought["purchase_id"]}));
        assert_eq!((&again["payment"]["id"], &again["payment"]["replayed"]), (&json!(id), &json!(true)));
        assert_eq!(again["untrusted"]["body"], bought["untrusted"]["body"]);
        assert_eq!(scene.moved(), []);

        let told = model.ask("report_use", json!({"payment_id": id, "used": "cited", "artifact": "brief-42.md"}));
        assert_eq!(told["payment"]["id"], id);
        assert_eq!(scene.gateway.agent().payment(id)["use"]["used"], "cited");

        let spent = |budgets: &Value| {
            let row = budget(budgets, "agent/scout").clone();
            [text(&row, "/held"), text(&row, "/spent")].iter().map(|t| t.parse::<f64>().unwrap()).sum::<f64>()
        };
        let now = spent(&model.ask("budget_status", json!({})));
        assert!((now - f64::from(turn) * 0.001).abs() < 1e-9, "{now} after {turn}");

        let known = model.ask("search_catalog", json!({"query": "127.0.0.1"}));
        let seller = known["items"].as_array().unwrap().iter().find(|s| s["host"] == host);
        assert_eq!(seller.unwrap()["last_paid"]["amount"], "0.001", "{known}");
        assert_eq!(model.ask("search_catalog", json!({"query": "127.0.0.1 nowhere"}))["items"], json!([]));

        // What is free costs nothing and is no purchase.
        let free = model.ask("paid_fetch", json!({"url": scene.url("/free")}));
        assert_eq!((&free["status"], &free["payment"]), (&json!(200), &Value::Null));
        let quote = model.ask("price_check", json!({"url": scene.url("/free")}));
        assert_eq!((&quote["price"], &quote["verdict"]), (&Value::Null, &json!("allow")));
        assert_eq!(scene.moved(), []);
    }
}

#[test]
fn a_refusal_is_a_result_that_says_what_to_do() {
    let scene = Scene::new();
    for way in [WAYS[0], WAYS[3]] {
        let mut model = Model::connect(&scene.gateway, way, SCOUT_TOKEN);
        // 2.50 USD where a payment may cost one.
        let report = scene.url("/report");
        let refused = model.refused("paid_fetch", json!({"url": report, "purchase_id": "dear"}), "policy-denied");
        assert_eq!((&refused["purchase_id"], &refused["policy"]), (&json!("dear"), &json!("caps")), "{refused}");
        assert_eq!((&refused["retry"], &refused["reasons"][0]["code"]), (&json!(false), &json!("above-per-payment")));
        let quote = model.ask("price_check", json!({"url": report}));
        assert_eq!((&quote["verdict"], &quote["price"]["amount"]), (&json!("deny"), &json!("2.5")), "{quote}");
        assert_eq!(quote["reasons"][0]["code"], "above-per-payment");

        let quote = scene.url("/quote");
        model.refused("paid_fetch", json!({"url": quote, "max_price": "0.0009"}), "price-above-max");
        model.refused("paid_fetch", json!({"url": quote, "prise": "1"}), "bad-request");
        model.refused("paid_fetch", json!({"url": quote, "wait_seconds": 601}), "bad-request");
        model.refused("paid_fetch", json!({}), "bad-request");
        model.refused("approval_status", json!({"approval_id": "no"}), "not-found");
        model.refused("report_use", json!({"payment_id": "no", "used": "cited"}), "not-found");
        model.refused("budget_status", json!({"of": "others"}), "bad-request");

        // No tool changes a limit, and there is no other.
        for tool in ["approve", "set_limit", "suspend"] {
            model.order(&json!({"do": "call", "tool": tool, "arguments": {}}));
            assert_eq!(model.answer()["error"]["code"], -32_602, "{tool}");
        }
    }
    assert_eq!(scene.moved(), []);
}

#[test]
fn a_mandate_without_this_door_keeps_it_shut() {
    let scene = Scene::with([], |config| config.mandate(&["doors"], vec!["fetch"]));
    for way in [WAYS[0], WAYS[3]] {
        let mut model = Model::connect(&scene.gateway, way, SCOUT_TOKEN);
        let refused = model.refused("paid_fetch", json!({"url": scene.url("/quote")}), "no-mandate");
        assert!(text(&refused, "/detail").contains("`mcp`"), "{refused}");
        let quote = model.ask("price_check", json!({"url": scene.url("/quote")}));
        assert_eq!((&quote["verdict"], &quote["reasons"][0]["code"]), (&json!("deny"), &json!("no-mandate")));
    }
    assert_eq!(scene.moved(), []);
    assert_eq!(scene.gateway.agent().fetch(&scene.url("/quote"), json!({})).status, 200, "the other door is open");
    assert_eq!(scene.moved().len(), 1);
}

#[test]
fn whoever_waits_for_people_hears_so_and_then_their_word() {
    let scene = Scene::with([asks()], |config| config);
    for way in WAYS {
        let mut model = Model::connect(&scene.gateway, way, SCOUT_TOKEN);
        let url = scene.url("/quote");
        let ordered = |model: &mut Model, purchase: &str| {
            let purchase = format!("{purchase}-{}-{}", way.0, way.1);
            let arguments = json!({"url": url, "purchase_id": purchase, "wait_seconds": 300});
            model.order(&json!({"do": "call", "tool": "paid_fetch", "arguments": arguments}));
            let progress = model.hear();
            assert_eq!((&progress["progress"], &progress["total"]), (&json!(0.0), &json!(300.0)), "{progress}");
            let said = text(&progress, "/message").to_owned();
            said.rsplit(' ').next().unwrap().to_owned()
        };
        let approval = ordered(&mut model, "yes");
        assert_eq!(scene.moved(), []);
        scene.decide("approve");
        let bought = succeeded(&model.answer()["result"]);
        assert_eq!((&bought["status"], &bought["payment"]["amount"]), (&json!(200), &json!("0.001")));
        assert_eq!(scene.moved().len(), 1);
        let status = model.ask("approval_status", json!({"approval_id": approval}));
        assert_eq!((&status["state"], &status["payment"]["id"]), (&json!("used"), &bought["payment"]["id"]));

        ordered(&mut model, "no");
        scene.decide("deny");
        failed(&model.answer()["result"], "approval-denied");

        // Not waited for: told at once, and what to wait for.
        let pending = json!({"url": scene.url("/choice"), "purchase_id": format!("later-{}-{}", way.0, way.1)});
        let refused = model.refused("paid_fetch", pending.clone(), "approval-required");
        assert_eq!(refused["retry"], true);
        let approval = json!({"approval_id": refused["approval"]["id"]});
        assert_eq!(model.ask("approval_status", approval.clone())["state"], "pending");
        scene.decide("approve");
        assert_eq!(model.ask("approval_status", approval)["state"], "approved");
        assert_eq!(scene.moved(), [], "an approval moves no money");
        model.ask("paid_fetch", pending);
        assert_eq!(scene.moved().len(), 1);

        let quote = model.ask("price_check", json!({"url": url}));
        assert_eq!(quote["verdict"], "review", "{quote}");
    }
}

#[test]
fn cancelling_undoes_nothing_and_costs_nothing_twice() {
    let scene = Scene::with([asks()], |config| config);
    for way in WAYS {
        let mut model = Model::connect(&scene.gateway, way, SCOUT_TOKEN);
        let order =
            json!({"url": scene.url("/quote"), "purchase_id": format!("{}-{}", way.0, way.1), "wait_seconds": 300});
        model.order(&json!({"do": "call", "tool": "paid_fetch", "arguments": order, "give_up": true}));
        assert_eq!(model.answer()["cancelled"], true);
        // The purchase waits on in its own task, and pays when people say so.
        scene.decide("approve");
        let paid = wait_for(SOON, || Some(scene.moved()).filter(|moved| !moved.is_empty())).expect("never paid");
        assert_eq!(paid.len(), 1);
        let bought = model.ask("paid_fetch", order);
        assert_eq!((&bought["status"], &bought["payment"]["amount"]), (&json!(200), &json!("0.001")));
        assert_eq!(scene.moved(), []);
        // Its answer has arrived: the same thing can be bought again, under another id.
        let next = json!({"url": scene.url("/quote"), "purchase_id": format!("next-{}-{}", way.0, way.1)});
        model.refused("paid_fetch", next, "approval-required");
        scene.decide("deny");
    }
}
