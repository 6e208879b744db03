//! Who calls, and how many calls of theirs may be under way, at every door.

use super::*;
use countersign_tests::{
    config::{ALICE_TOKEN, SCOUT_TOKEN},
    http::Request,
    peers::authority,
    refusal::refusal,
    wait_for,
};
use std::thread;

#[test]
fn two_authorizations_are_none_at_every_door() {
    let stub = Stub::start("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 4\r\n\r\nfree");
    let scene = Scene::before(stub, plain(), |config| {
        config
            .set(&["mcp-server", "shop", "url"], "https://shop.example/mcp")
            .mandate(&["doors"], vec!["fetch", "proxy", "mcp", "sign"])
    });
    let order = json!({"url": scene.stub.url("/")});
    let sign = json!({"payment_required": honest(), "resource": {"url": scene.stub.url("/"), "method": "GET"}});
    let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}});
    let (agents, operators) = (&scene.gateway.url, &scene.gateway.admin_url);
    let session = json!({"agent": "scout", "limit": "1.00"});
    let none = Value::Null;
    let doors = [
        ("POST", agents, "/v1/fetch", &order, SCOUT_TOKEN),
        ("POST", agents, "/v1/quote", &order, SCOUT_TOKEN),
        ("POST", agents, "/v1/sign", &sign, SCOUT_TOKEN),
        ("POST", agents, "/mcp", &call, SCOUT_TOKEN),
        ("POST", agents, "/mcp/shop", &call, SCOUT_TOKEN),
        ("GET", agents, "/v1/payments", &none, SCOUT_TOKEN),
        ("GET", agents, "/v1/budgets", &none, SCOUT_TOKEN),
        ("GET", operators, "/v1/payments", &none, ALICE_TOKEN),
        ("GET", operators, "/metrics", &none, ALICE_TOKEN),
        ("POST", operators, "/v1/sessions", &session, ALICE_TOKEN),
        ("POST", operators, "/v1/suspend", &json!({"all": true}), ALICE_TOKEN),
        ("POST", operators, "/v1/policies/rollback", &json!({}), ALICE_TOKEN),
        ("PUT", operators, "/v1/policies/vendors/module", &json!({}), ALICE_TOKEN),
        ("DELETE", operators, "/v1/suspend?all=true", &none, ALICE_TOKEN),
    ];
    for (method, base, path, body, token) in doors {
        let good = format!("Bearer {token}");
        for two in [[&*good, "Bearer other"], ["Bearer other", &*good], [&*good, &*good], [&*good, "Basic YTpi"]] {
            let mut request = Request::new(method, &format!("{base}{path}"));
            if !body.is_null() {
                request = request.header("accept", "application/json, text/event-stream").json(body);
            }
            let request = two.iter().fold(request, |request, value| request.header("authorization", value));
            refusal(&request.send(), 401, "unauthenticated");
        }
    }
    assert_eq!((scene.stub.seen(), scene.ledger()), (Vec::new(), Vec::new()));
    assert_eq!(items(&scene.gateway.operator().get("/v1/sessions")), Vec::<Value>::new());
    assert_eq!(items(&scene.gateway.operator().get("/v1/suspend")), Vec::<Value>::new());
    // With one of them each is somebody.
    assert_eq!(scene.agent().post("/v1/fetch", &order).text(), "free");
}

/// `GET url` through the forward proxy.
fn through_the_proxy(gateway: &Gateway, url: &str) -> Response {
    let credentials = STANDARD.encode(format!("agent:{SCOUT_TOKEN}"));
    let request = format!(
        "GET {url} HTTP/1.1\r\nHost: {}\r\nProxy-Authorization: Basic {credentials}\r\nConnection: close\r\n\r\n",
        authority(url)
    );
    response(&http::raw(authority(&gateway.url), request.as_bytes()))
}

/// Head and body of an answer with a length or none.
fn response(bytes: &[u8]) -> Response {
    let text = String::from_utf8_lossy(bytes).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text}"));
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).unwrap().parse().unwrap();
    let fields = lines.filter_map(|line| line.split_once(':'));
    let headers = fields.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect();
    Response { status, headers, body: body.as_bytes().to_vec() }
}

#[test]
fn only_so_many_calls_of_one_agent_are_under_way_whichever_doors_they_came_through() {
    let gate = Gate::default();
    let at = gate.clone();
    let stub = Stub::answering_at_once(move |_| {
        at.pass();
        goods("", "free")
    });
    let scene = Scene::before(stub, plain(), |config| {
        config.set(&["limits", "calls-per-agent"], 1).mandate(&["doors"], vec!["fetch", "proxy", "mcp", "sign"])
    });
    let url = scene.stub.url("/");
    let sign = || {
        let order = json!({"payment_required": honest(), "resource": {"url": url, "method": "GET"}});
        scene.agent().post("/v1/sign", &order)
    };
    let fetch = || scene.agent().fetch(&url, json!({}));
    let proxy = || through_the_proxy(&scene.gateway, &url);
    let doors: [(&str, &(dyn Fn() -> Response + Sync)); 3] = [("fetch", &fetch), ("sign", &sign), ("proxy", &proxy)];
    for (holding, hold) in doors {
        gate.shut();
        let before = scene.stub.seen().len();
        thread::scope(|scope| {
            let held = scope.spawn(hold);
            wait_for(SOON, || (scene.stub.seen().len() > before).then_some(())).expect("it never came");
            for (name, other) in doors {
                let refused = other();
                refusal(&refused, 429, "rate-limited");
                assert_eq!(refused.header("retry-after"), Some("1"), "{name} beside {holding}");
            }
            assert_eq!(scene.stub.seen().len(), before + 1, "beside {holding} somebody got through");
            gate.open();
            // The remote signer has nothing to sign where nothing is asked.
            let status = held.join().unwrap().status;
            assert_eq!(status, if holding == "sign" { 422 } else { 200 }, "{holding}");
        });
        let free = wait_for(SOON, || (fetch().status == 200).then_some(()));
        assert!(free.is_some(), "{holding} keeps its place");
    }
}
