//! What a JWT opens, and what becomes of one that should open nothing.

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use countersign_tests::{
    http::{Request, raw},
    issuer::Key,
    peers::authority,
    refusal::refusal,
    till::{bought, items, text},
    wait_for,
};
use serde_json::json;

use super::{SOON, Scene, claiming, plainly};

#[test]
fn a_jwt_buys_through_every_door_and_the_chain_settles() {
    let scene = Scene::new();
    let claims = claiming(scene.issuer.claims("jwt-scout"), "groups", json!(["analyst", "admin"]));
    let token = scene.key.token(&claiming(claims, "customer", json!("acme")));
    let scout = scene.client(&token);

    let id = bought(&scout.fetch(&scene.url(), plainly()), "0.001");
    let settled = wait_for(SOON, || Some(scout.payment(&id)).filter(|p| p["state"] == "settled"));
    let settled = settled.unwrap_or_else(|| scout.payment(&id));
    assert_eq!(
        (&settled["state"], &settled["agent"], &settled["workspace"], &settled["client"]),
        (&json!("settled"), &json!("jwt-scout"), &json!("research"), &json!("acme")),
        "{settled}"
    );
    assert_eq!(scout.quote(&scene.url(), plainly()).json()["verdict"], "allow");

    let lines = [
        format!("GET {} HTTP/1.1", scene.url()),
        format!("Host: {}", scene.url().split('/').nth(2).unwrap()),
        format!("Proxy-Authorization: Basic {}", BASE64.encode(format!("agent:{token}"))),
        "Connection: close\r\n\r\n".to_owned(),
    ];
    let answer = raw(authority(&scene.gateway.url), lines.join("\r\n").as_bytes());
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("countersign-payment: pay_"), "{answer}");

    let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": {"name": "paid_fetch", "arguments": {"url": scene.url()}}});
    let mcp = Request::new("POST", &format!("{}/mcp", scene.gateway.url)).bearer(&token).json(&call);
    let answer = mcp.header("accept", "application/json, text/event-stream");
    let answer = answer.header("mcp-protocol-version", "2025-06-18").send();
    assert!(answer.status == 200 && answer.text().contains("pay_"), "{}", answer.text());
    assert_eq!(scene.moved(), 3);

    // Another token for the same client is the same agent; one for nobody's client, and a guest, are not.
    let again = claiming(scene.issuer.claims("jwt-scout"), "customer", json!("ACME"));
    assert_eq!(items(&scene.look(&scene.key.token(&again))).len(), 3);
    let other = scene.client(&scene.token("jwt-scout"));
    assert_eq!(items(&other.get("/v1/payments")).len(), 0);
    refusal(&other.get(&format!("/v1/payments/{id}")), 404, "not-found");
    let purchase = text(&settled, "/purchase").to_owned();
    refusal(&other.fetch(&scene.url(), json!({ "purchase_id": purchase })), 409, "purchase-conflict");
    let guest = scene.client(&scene.token("somebody"));
    assert_eq!(items(&guest.get("/v1/payments")).len(), 0);
    refusal(&guest.get(&format!("/v1/payments/{id}")), 404, "not-found");
    let own = bought(&guest.fetch(&scene.url(), plainly()), "0.001");
    let own = guest.payment(&own);
    assert_eq!((text(&own, "/agent"), text(&own, "/workspace")), ("corp.somebody", "guests"));

    // What policies saw, and what nobody ever writes down.
    let told = scene.gateway.operator().get(&format!("/v1/payments/{id}")).text();
    assert!(!told.contains("admin"), "{told}");
    let secret = token.rsplit('.').next().unwrap();
    assert!(!scene.gateway.log().contains(secret), "the log has the token");
    for entry in std::fs::read_dir(scene.gateway.dir()).unwrap().map_while(Result::ok) {
        let bytes = std::fs::read(entry.path()).unwrap_or_default();
        assert!(!bytes.windows(secret.len()).any(|w| w == secret.as_bytes()), "{} has it", entry.path().display());
    }
}

#[test]
fn a_token_that_is_not_good_buys_nothing_at_any_door() {
    let scene = Scene::new();
    let good = scene.issuer.claims("jwt-scout");
    let second = good["iat"].as_u64().unwrap();
    for (name, value) in [
        ("iss", json!("http://127.0.0.1:1")),
        ("aud", json!("others")),
        ("exp", json!(second - 61)),
        ("iat", json!(second + 600)),
        ("sub", json!("Scout")),
        ("sub", json!("")),
        ("customer", json!("not a name")),
    ] {
        let token = scene.key.token(&claiming(good.clone(), name, value.clone()));
        refusal(&scene.client(&token).fetch(&scene.url(), plainly()), 401, "unauthenticated");
        refusal(&scene.client(&token).quote(&scene.url(), plainly()), 401, "unauthenticated");
        let mcp = Request::new("POST", &format!("{}/mcp", scene.gateway.url)).bearer(&token).json(&json!({}));
        refusal(&mcp.send(), 401, "unauthenticated");
    }
    let stranger = Key::new("first");
    refusal(&scene.look(&stranger.token(&good)), 401, "unauthenticated");
    let proxied = format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nProxy-Authorization: Basic {}\r\nConnection: close\r\n\r\n",
        scene.url(),
        scene.url().split('/').nth(2).unwrap(),
        BASE64.encode(format!("agent:{}", stranger.token(&good)))
    );
    let answer = raw(authority(&scene.gateway.url), proxied.as_bytes());
    assert!(answer.starts_with(b"HTTP/1.1 407 "), "{}", String::from_utf8_lossy(&answer));
    // It says nothing about operators, whatever it claims.
    let admin = Request::new("GET", &format!("{}/v1/payments", scene.gateway.admin_url)).bearer(&scene.token("alice"));
    refusal(&admin.send(), 401, "unauthenticated");
    assert_eq!(scene.moved(), 0);
}

#[test]
fn removing_an_issuer_or_stopping_an_agent_shuts_them_out_at_once() {
    let mut scene = Scene::new();
    let (scout, guest) = (scene.token("jwt-scout"), scene.token("somebody"));
    bought(&scene.client(&scout).fetch(&scene.url(), plainly()), "0.001");
    for agent in ["jwt-scout", "corp.somebody"] {
        assert_eq!(scene.gateway.operator().post("/v1/suspend", &json!({ "agent": agent })).status, 200);
    }
    for token in [&scout, &guest] {
        refusal(&scene.client(token).fetch(&scene.url(), plainly()), 403, "suspended");
        assert_eq!(scene.look(token).status, 200, "looking is no spending");
    }
    assert_eq!(scene.gateway.operator().delete("/v1/suspend?agent=jwt-scout").status, 200);
    bought(&scene.client(&scout).fetch(&scene.url(), plainly()), "0.001");

    // An edit that cannot be taken whole takes away all the same.
    let broken = |config: countersign_tests::config::Config| config.set(&["policy", "vendors", "module"], "gone.wasm");
    let config = scene.gateway.config();
    let closed = config.clone().remove(&["issuer", "corp", "template"]);
    scene.gateway.write_config(broken(closed));
    scene.until(&guest, 401);
    bought(&scene.client(&scout).fetch(&scene.url(), plainly()), "0.001");
    let gone = config.clone().remove(&["issuer"]);
    scene.gateway.write_config(broken(gone));
    scene.until(&scout, 401);
    refusal(&scene.client(&scout).fetch(&scene.url(), plainly()), 401, "unauthenticated");
    assert_eq!(scene.gateway.agent().get("/v1/payments").status, 200, "others are not concerned");
    scene.gateway.write_config(config);
    scene.until(&scout, 200);
    assert_eq!(scene.moved(), 3);
}
