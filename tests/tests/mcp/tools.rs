//! The tools of an official seller behind `/mcp/NAME`: a plain client, that knows nothing of payments, buys.

use super::model::{Model, failed};
use super::servers::{Official, with_server};
use super::{Scene, budget};
use countersign_tests::{
    config::Config, config::Policy, config::SCOUT_TOKEN, till::items, till::text, world::LocalWorld,
};
use countersign_tests::{peers::SELLER, world::buyer};
use serde_json::{Value, json};

/// A scene with the official seller behind `/mcp/weather`.
struct Shop {
    scene: Scene,
    seller: Official,
}

impl Shop {
    fn with<const N: usize>(more: [Policy; N], change: impl FnOnce(Config) -> Config) -> Self {
        let world = LocalWorld::start();
        let seller = Official::start(world.world().facilitator_url());
        let scene = Scene::around(world, more, |config| change(with_server(config, "weather", &seller.url)));
        Self { scene, seller }
    }

    fn model(&self, mode: &str) -> Model {
        Model::connect_to(&self.scene.gateway, "weather", mode, SCOUT_TOKEN, &json!({}))
    }

    fn payments(&self) -> usize {
        items(&self.scene.gateway.operator().get("/v1/payments")).len()
    }
}

fn meta(of: &Value, name: &str) -> String {
    of["_meta"][format!("countersign/{name}")].as_str().unwrap_or_else(|| panic!("no {name}: {of}")).to_owned()
}

/// What the tool said; no demand and no receipt of x402 is anywhere.
#[track_caller]
fn said(result: &Value) -> Value {
    assert_ne!(result["isError"], true, "{result}");
    assert!(!result.to_string().contains("x402"), "{result}");
    serde_json::from_str(text(result, "/content/0/text")).unwrap()
}

#[test]
fn a_plain_client_buys_a_tools_result_once_and_the_chain_shows_it() {
    let shop = Shop::with([], |config| config);
    let scene = &shop.scene;
    for (turn, mode) in (1_u64..).zip(["legacy", "auto"]) {
        let mut model = shop.model(mode);
        let tools = model.tools();
        let names: Vec<&str> = tools.iter().map(|tool| text(tool, "/name")).collect();
        assert_eq!(names, ["get_weather", "report", "broken", "log"]);
        let description = text(&tools[0], "/description");
        assert!(
            description.starts_with("Weather for a city.") && description.contains("may cost money"),
            "{description}"
        );
        assert_eq!(tools[0]["inputSchema"]["required"], json!(["city"]));

        // Free, and nothing is recorded.
        let before = shop.payments();
        let free = model.call("log", json!({}));
        assert_eq!(free["structuredContent"]["ran"].as_array().unwrap().len() as u64, (turn - 1) * 2, "{free}");
        assert!(free["_meta"].get("countersign/payment").is_none(), "{free}");
        assert_eq!((scene.moved(), shop.payments()), (vec![], before));

        // Bought.
        let oslo = json!({"city": "Oslo"});
        let bought = model.call_with("get_weather", oslo.clone(), &json!({"countersign/purpose": "what to wear"}));
        assert_eq!(said(&bought)["weather"], "sunny");
        assert_eq!((meta(&bought, "amount"), meta(&bought, "state")), ("0.001 USD".to_owned(), "accepted".to_owned()));
        let moved = scene.moved();
        let [one] = moved.as_slice() else { panic!("{moved:?}") };
        assert_eq!((one.from, one.to.to_string().as_str(), one.value), (buyer(), SELLER.address, 1_000));
        assert_eq!(one.transaction, meta(&bought, "transaction"));
        let payment = scene.gateway.agent().payment(&meta(&bought, "payment"));
        assert_eq!(payment["resource"]["url"], format!("{}#get_weather", shop.seller.url));
        assert_eq!(payment["claims"]["purpose"], "what to wear");

        // Again under its id, said in `_meta` or in the header: the same answer, and the tool does not run again.
        let purchase = meta(&bought, "purchase");
        let again = model.call_with("get_weather", oslo.clone(), &json!({"countersign/purchase_id": purchase}));
        assert_eq!((said(&again), meta(&again, "replayed")), (said(&bought), "true".to_owned()));
        let named = json!({"Countersign-Purchase": purchase});
        let mut other = Model::connect_to(&scene.gateway, "weather", mode, SCOUT_TOKEN, &named);
        assert_eq!(said(&other.call("get_weather", oslo.clone())), said(&bought));
        let conflict =
            model.call_with("get_weather", json!({"city": "Rome"}), &json!({"countersign/purchase_id": purchase}));
        failed(&conflict, "purchase-conflict");
        assert_eq!(scene.moved(), []);

        // What was delivered is over: the same call without an id is another purchase.
        let next = model.call("get_weather", oslo);
        assert_eq!(said(&next)["run"].as_u64(), Some(turn * 2), "{next}");
        assert_ne!(meta(&next, "payment"), meta(&bought, "payment"));
        assert_eq!(scene.moved().len(), 1);

        // 2.50 where a payment may cost one; a tool that there is not.
        let dear = model.call_with(
            "report",
            json!({"topic": "x"}),
            &json!({"countersign/purchase_id": format!("dear-{mode}")}),
        );
        let refused = failed(&dear, "policy-denied");
        assert_eq!((&refused["policy"], &refused["purchase_id"]), (&json!("caps"), &json!(format!("dear-{mode}"))));
        let ceiling = json!({"countersign/max_price": "0.0009"});
        failed(&model.call_with("get_weather", json!({"city": "Rome"}), &ceiling), "price-above-max");
        failed(&model.call_with("log", json!({}), &json!({"countersign/nonsense": 1})), "bad-request");
        let unknown = model.call("no_such_tool", json!({}));
        assert_eq!(
            (&unknown["isError"], text(&unknown, "/content/0/text")),
            (&json!(true), "Unknown tool: no_such_tool")
        );
        assert_eq!(scene.moved(), []);
    }
    // A tool that fails after it was paid for: passed on, with what became of the money, which did not move.
    let mut model = shop.model("legacy");
    let broken = model.call("broken", json!({}));
    assert_eq!((&broken["isError"], meta(&broken, "state").as_str()), (&json!(true), "unknown"), "{broken}");
    assert_eq!(scene.moved(), []);
}

#[test]
fn budgets_and_doors_hold_at_a_server_of_others() {
    let per_hour =
        Policy::new("little", "builtin:spend-caps").setting("per-agent-hour", "0.0015").setting("timezone", "UTC");
    let shop = Shop::with([per_hour], |config| config.agent("rival", "test-agent-token-of-rival-0123456789abcdef"));
    let mut model = shop.model("legacy");
    said(&model.call("get_weather", json!({"city": "Oslo"})));
    assert_eq!(shop.scene.moved().len(), 1);
    let refused = failed(&model.call("get_weather", json!({"city": "Rome"})), "budget-exceeded");
    assert!(text(&refused, "/budget").contains("agent/scout"), "{refused}");
    assert_eq!(shop.scene.moved(), []);
    let mut own = Model::connect(&shop.scene.gateway, ("http", "legacy"), SCOUT_TOKEN);
    assert!(text(budget(&own.ask("budget_status", json!({})), "little/agent/scout"), "/limit").starts_with("0.0015"));

    // Each caller has a session of its own with the server.
    let sessions = |model: &mut Model| model.call("log", json!({}))["structuredContent"]["sessions"].as_u64().unwrap();
    assert_eq!(sessions(&mut model), 1);
    assert_eq!(sessions(&mut shop.model("auto")), 1, "the same agent");
    let mut rival = Model::connect_to(
        &shop.scene.gateway,
        "weather",
        "auto",
        "test-agent-token-of-rival-0123456789abcdef",
        &json!({}),
    );
    assert_eq!(sessions(&mut rival), 2);
    let session = shop.scene.session();
    let mut session = Model::connect_to(&shop.scene.gateway, "weather", "auto", &session, &json!({}));
    assert_eq!(sessions(&mut session), 3);
    assert_eq!(sessions(&mut rival), 3);
}

#[test]
fn who_waits_for_people_hears_so_and_the_tool_runs_once() {
    let asks = Policy::new("review", "builtin:review-threshold").setting("above", "0.000999");
    let shop = Shop::with([asks], |config| config);
    for mode in ["legacy", "auto"] {
        let mut model = shop.model(mode);
        let arguments = json!({"city": format!("Oslo-{mode}")});
        let wait = json!({"countersign/wait_seconds": 300});
        model.order(&json!({"do": "call", "tool": "get_weather", "arguments": arguments, "meta": wait}));
        let progress = model.hear();
        assert_eq!((&progress["progress"], &progress["total"]), (&json!(0.0), &json!(300.0)), "{progress}");
        assert_eq!(shop.scene.moved(), []);
        shop.scene.decide("approve");
        let bought = model.answer()["result"].take();
        assert_eq!(said(&bought)["weather"], "sunny");
        assert_eq!(shop.scene.moved().len(), 1);

        // Not waited for. A model that can only repeat its call does, and continues this purchase.
        let later = json!({"city": format!("Rome-{mode}")});
        let refused = failed(&model.call("get_weather", later.clone()), "approval-required");
        let again = failed(&model.call("get_weather", later.clone()), "approval-required");
        assert_eq!(
            (&again["purchase_id"], &again["approval"]["id"]),
            (&refused["purchase_id"], &refused["approval"]["id"])
        );
        let operator = shop.scene.gateway.operator();
        let shown = operator.get(&format!("/v1/approvals/{}", text(&refused, "/approval/id"))).text();
        assert!(shown.contains("#get_weather"), "{shown}");
        shop.scene.decide("approve");
        assert_eq!(shop.scene.moved(), []);
        let bought = model.call("get_weather", later);
        assert_eq!(json!(meta(&bought, "purchase")), refused["purchase_id"]);
        assert_eq!(shop.scene.moved().len(), 1);

        model.order(&json!({"do": "call", "tool": "get_weather", "arguments": {"city": "Bonn"}, "meta": wait}));
        model.hear();
        shop.scene.decide("deny");
        failed(&model.answer()["result"], "approval-denied");
    }
}
