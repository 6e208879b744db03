//! What no client of good faith sends.

use super::Scene;
use super::model::{Model, WAYS};
use countersign_tests::{
    config::SCOUT_TOKEN,
    http::{Request, Response},
    refusal::refusal,
    till::text,
};
use serde_json::{Value, json};

const VERSION: (&str, &str) = ("mcp-protocol-version", "2025-06-18");

fn bare(scene: &Scene, method: &str) -> Request {
    Request::new(method, &format!("{}/mcp", scene.gateway.url))
        .header("accept", "application/json, text/event-stream")
        .header("content-type", "application/json")
}

fn request(scene: &Scene) -> Request {
    bare(scene, "POST").bearer(SCOUT_TOKEN)
}

/// A purchase that must not happen.
fn purchase(scene: &Scene) -> String {
    let call = json!({"name": "paid_fetch", "arguments": {"url": scene.url("/quote")}});
    json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": call}).to_string()
}

/// The one message of an answer, as JSON or as an event.
fn message(answer: &Response) -> Value {
    let text = answer.text();
    let event = text.lines().find_map(|line| line.strip_prefix("data: "));
    serde_json::from_str(event.unwrap_or(&text)).unwrap_or_else(|e| panic!("{e}: {text}"))
}

#[test]
fn what_is_not_well_formed_is_refused_and_buys_nothing() {
    let scene = Scene::new();
    let buy = purchase(&scene);

    // Nobody reads what strangers send.
    refusal(&bare(&scene, "POST").body(buy.as_str()).send(), 401, "unauthenticated");
    refusal(&bare(&scene, "POST").bearer("nobody").body("{").send(), 401, "unauthenticated");

    let error = |answer: &Response, status: u16, code: i32| {
        assert_eq!(answer.status, status, "{}", answer.text());
        assert_eq!(answer.header("countersign-source"), Some("gateway"));
        assert_eq!(message(answer)["error"]["code"], code, "{}", answer.text());
    };
    for body in ["", "{", "{\"jsonrpc\":\"2.0\"", "\u{feff}{}", "\0"] {
        error(&request(&scene).body(body).send(), 400, -32_700);
    }
    for body in ["[]", &format!("[{buy}]"), "1", "null", "{}", "{\"jsonrpc\":\"1.0\",\"id\":1,\"method\":\"ping\"}"] {
        error(&request(&scene).body(body).send(), 400, -32_600);
    }
    let nested = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    error(&request(&scene).body(nested).send(), 400, -32_700);

    // Two mebibytes and one more.
    let long = format!("{buy}{}", " ".repeat(2 << 20));
    refusal(&request(&scene).body(long).send(), 413, "body-too-large");

    let status = |request: Request| request.body(buy.as_str()).send().status;
    assert_eq!(status(request(&scene).header(VERSION.0, "1999-01-01")), 400, "a version nobody speaks");
    for origin in ["http://evil.example", "null", "http://127.0.0.1:8402", "nonsense"] {
        assert_eq!(status(request(&scene).header("origin", origin)), 403, "{origin}");
    }
    for host in ["evil.example", "evil.example:8402", "127.0.0.1.evil.example"] {
        assert_eq!(status(request(&scene).header("host", host)), 403, "{host}");
    }
    let of = |accept: &str, kind: &str| {
        let plain = Request::new("POST", &format!("{}/mcp", scene.gateway.url)).bearer(SCOUT_TOKEN);
        plain.header("accept", accept).header("content-type", kind)
    };
    assert_eq!(status(of("application/json", "application/json")), 406);
    assert_eq!(status(of("application/json, text/event-stream", "text/plain")), 415);
    for method in ["GET", "DELETE", "PUT"] {
        assert_eq!(bare(&scene, method).bearer(SCOUT_TOKEN).send().status, 405, "{method}");
    }
    assert_eq!(scene.moved(), []);

    // An unknown version is not agreed on, and a session id that somebody made up is nobody's.
    let hello =
        json!({"protocolVersion": "1999-01-01", "capabilities": {}, "clientInfo": {"name": "t", "version": "0"}});
    let hello = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello});
    let answer = request(&scene).body(hello.to_string()).send();
    assert_eq!((answer.status, answer.header("mcp-session-id")), (200, None));
    assert!(text(&message(&answer), "/result/protocolVersion").starts_with("202"), "{}", answer.text());

    // The same purchase, well formed, goes through: none of the above was refused for another reason.
    let good = request(&scene).header(VERSION.0, VERSION.1).header("mcp-session-id", "made-up").body(buy).send();
    assert_eq!(message(&good)["result"]["structuredContent"]["status"], 200, "{}", good.text());
    assert_eq!(scene.moved().len(), 1);
}

#[test]
fn over_standard_input_a_token_is_needed_and_a_missing_gateway_is_said() {
    let mut scene = Scene::new();
    let alone = scene.gateway.command(&["mcp"]);
    assert_eq!(alone.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&alone.stderr).contains("COUNTERSIGN_AGENT_TOKEN"), "{alone:?}");
    assert!(alone.stdout.is_empty(), "standard output is the protocol's");

    let mut stranger = Model::connect(&scene.gateway, WAYS[3], "nobody");
    stranger.refused("budget_status", json!({}), "unauthenticated");

    let mut model = Model::connect(&scene.gateway, WAYS[3], SCOUT_TOKEN);
    model.ask("budget_status", json!({}));
    scene.gateway.kill();
    let refused = model.refused("paid_fetch", json!({"url": scene.url("/quote")}), "gateway-unreachable");
    assert!(text(&refused, "/detail").contains("countersign serve"), "{refused}");
    scene.gateway.restart();
    model.ask("paid_fetch", json!({"url": scene.url("/quote")}));
    assert_eq!(scene.moved().len(), 1);
}
