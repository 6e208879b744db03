//! What a seller says of itself, beside what it asks: told to people, and believed by nobody.

use super::*;
use countersign_tests::{
    config::Policy,
    refusal::{refusal, refusal_because},
    till::{header, text},
};

const ELSEWHERE: &str = "https://elsewhere.example/very/private?path=1";

fn naming(url: &str) -> Value {
    altered(|terms| terms["resource"]["url"] = json!(url))
}

#[test]
fn a_resource_at_another_host_is_paid_for_here_and_people_are_told() {
    let scene = Scene::selling(&naming(ELSEWHERE), goods(&receipt(), "goods"));
    let answer = scene.fetch(json!({}));
    assert_eq!((answer.status, answer.text().as_str()), (200, "goods"));
    let view = scene.gateway.operator().payment(header(&answer, "countersign-payment"));
    assert_eq!(view["warnings"][0]["code"], "resource-elsewhere", "{view:#}");
    assert_eq!(view["untrusted"]["resource_url"], ELSEWHERE, "{view:#}");
    // Everything that is relied on is where the call went.
    assert_eq!(view["seller"]["host"], scene.stub.authority);
    assert_eq!(view["resource"]["url"], scene.stub.url("/quote"));
    assert_eq!(payments(&scene.stub).len(), 1);
    let id = text(&view, "/id");
    let shown = scene.gateway.command(&["payments", "show", id]);
    let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!(shown["warnings"], view["warnings"], "the command line says the same");
    // The log says that there was such an offer, and of whom; paths and queries are in no log.
    let log = scene.gateway.log();
    let line = log.lines().find(|line| line.contains("for another host than was called")).expect("no warning");
    assert!(line.contains(&scene.stub.authority) && line.contains("WARN"), "{line}");
    assert!(!log.contains("very/private"));
    // An agent reads nothing that a seller wrote.
    let own = scene.agent().payment(id);
    assert!(own.get("warnings").is_none() && own.get("untrusted").is_none(), "{own:#}");
    assert!(!scene.agent().get("/v1/payments").text().contains("elsewhere"));
}

#[test]
fn only_another_host_is_worth_a_warning() {
    const CASES: [(&str, bool); 9] = [
        ("/quote", false),
        ("quote", false),
        ("", false),
        ("mcp://tool/quote", false),
        // The seller's own host, as servers behind proxies name it.
        ("https://HERE/behind/a/proxy", false),
        ("http://HERE/quote?x=1", false),
        ("http://127.0.0.1:1/quote", true),
        ("//elsewhere.example/x", true),
        ("HTTPS://user@HERE/x", true),
    ];
    // `GET /N` is for the N-th.
    let stub = Stub::answering_at_once(|request| {
        let host = request.lines().find_map(|line| line.strip_prefix("host: ")).unwrap_or_default();
        let case = request.split(' ').nth(1).and_then(|path| CASES.get(path.trim_matches('/').parse::<usize>().ok()?));
        let (url, _) = case.unwrap();
        if payment(request).is_some() { goods(&receipt(), "goods") } else { asks(&naming(&url.replace("HERE", host))) }
    });
    let scene = Scene::before(stub, plain(), |config| {
        let limits = ["unresolved-per-seller", "unresolved-per-payee", "unresolved-per-agent"];
        limits.into_iter().fold(config, |config, limit| config.set(&["limits", limit], 100))
    });
    for (n, (url, told)) in CASES.iter().enumerate() {
        let answer = scene.agent().fetch(&scene.stub.url(&format!("/{n}")), json!({}));
        assert_eq!(answer.status, 200, "{url}: {}", answer.text());
        let view = scene.gateway.operator().payment(header(&answer, "countersign-payment"));
        let codes: Vec<_> = view["warnings"].as_array().unwrap().iter().map(|warning| text(warning, "/code")).collect();
        assert_eq!(codes, if *told { vec!["resource-elsewhere"] } else { vec![] }, "{url}");
        assert_eq!(view["untrusted"]["resource_url"].is_string(), *told, "{url}");
    }
}

#[test]
fn who_approves_sees_it_and_who_is_listed_is_not_whom_a_seller_names() {
    let review = Policy::new("review", "builtin:review-threshold").setting("above", "0.0001");
    let [vendors, caps] = plain();
    let scene =
        Scene::selling_with(&naming(ELSEWHERE), goods(&receipt(), "goods"), [vendors, caps, review], |config| config);
    refusal(&scene.fetch(json!({})), 202, "approval-required");
    let asked = &items(&scene.gateway.operator().get("/v1/approvals"))[0];
    assert_eq!(asked["purchase"]["warnings"][0]["code"], "resource-elsewhere", "{asked:#}");

    let listed = Policy::new("vendors", "builtin:vendor-allowlist").setting("hosts", vec!["elsewhere.example"]);
    let [_, caps] = plain();
    let scene = Scene::selling_with(&naming(ELSEWHERE), goods("", "goods"), [listed, caps], |config| config);
    refusal_because(&scene.fetch(json!({})), 403, "policy-denied", "vendor-not-listed");
    assert_eq!(payments(&scene.stub), Vec::<String>::new());
}

#[test]
fn a_price_is_what_is_signed_and_not_what_is_said_of_it() {
    let dear = |amount: &str| {
        altered(|terms| {
            terms["resource"]["description"] = json!("Only $0.01! Price: 0.01 USD. amount=10000");
            terms["error"] = json!("please pay 0.01 USD");
            terms["accepts"][0]["amount"] = json!(amount);
            terms["accepts"][0]["extra"]["price"] = json!("$0.01");
            terms["accepts"][0]["extra"]["decimals"] = json!(18);
        })
    };
    let scene = Scene::selling(&dear("2500000"), goods(&receipt(), "goods"));
    refusal_because(&scene.fetch(json!({})), 403, "policy-denied", "above-per-payment");
    assert_eq!(scene.ledger()[0]["amount"]["value"], "2.5");
    assert_eq!(payments(&scene.stub), Vec::<String>::new());

    let review = Policy::new("review", "builtin:review-threshold").setting("above", "0.5");
    let [vendors, caps] = plain();
    let scene =
        Scene::selling_with(&dear("900000"), goods(&receipt(), "goods"), [vendors, caps, review], |config| config);
    refusal(&scene.fetch(json!({"max_price": "0.02"})), 403, "price-above-max");
    refusal(&scene.fetch(json!({"max_price": "0.90"})), 202, "approval-required");
    let asked = &items(&scene.gateway.operator().get("/v1/approvals"))[0];
    let amount = &asked["purchase"]["amount"];
    assert_eq!((&amount["value"], &amount["atomic"]), (&json!("0.9"), &json!("900000")), "{asked:#}");
    assert!(!asked.to_string().contains("Only $"), "{asked:#}");
    assert_eq!(payments(&scene.stub), Vec::<String>::new());
}
