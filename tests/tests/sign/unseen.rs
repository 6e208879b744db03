//! Rule 4: what the host does not see. `unobserved`, and calls that it must not make to find out.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign_tests::{
    refusal::{refusal, refusal_because},
    stub::Stub,
    till::{bought, items, plain, text},
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::{
    io::{Read, Write},
    net::TcpListener,
    sync::mpsc,
    thread,
    time::Duration,
};

use crate::{Scene, authorization, demand, given, present, sign};

#[test]
fn rule_04_unobserved_takes_the_agents_word_and_the_allowlist_does_not() {
    let scene = Scene::unobserved(&[]);
    let url = scene.honest().url("/quote");
    let terms = demand(&url);
    let before = scene.honest().visits().len();
    let answer = sign(&scene.agent(), &url, &terms, json!({}));
    let body = refusal_because(&answer, 403, "policy-denied", "unobserved-payee-not-listed");
    let payment = scene.agent().payment(text(&body, "/payment"));
    assert_eq!((&payment["state"], &payment["observed"]), (&json!("denied"), &json!(false)));
    assert_eq!(scene.honest().visits().len(), before, "the agent's word was to be taken");
    // Through the doors where the host sees what it buys, the same mandate is as good as ever.
    bought(&scene.agent().fetch(&url, json!({})), "0.001");
}

#[test]
fn rule_04_unobserved_pays_listed_payees_only() {
    let scene = Scene::unobserved(&["0x000000000000000000000000000000000000bEEF"]);
    let url = scene.honest().url("/quote");
    let terms = demand(&url);
    refusal_because(&sign(&scene.agent(), &url, &terms, json!({})), 403, "policy-denied", "payee-not-listed");

    let before = scene.honest().visits().len();
    let mut copy = terms.clone();
    copy["accepts"][0]["payTo"] = json!("0x000000000000000000000000000000000000bEEF");
    let first = given(&sign(&scene.agent(), &url, &copy, json!({"purchase_id": "word"})));
    assert_eq!(authorization(&first)["to"], "0x000000000000000000000000000000000000bEEF");
    assert_eq!(scene.agent().payment(text(&first, "/payment"))["observed"], false);
    let told = scene.gateway.command(&["payments", "explain", text(&first, "/payment")]);
    let told = String::from_utf8(told.stdout).unwrap();
    assert!(told.contains("Only the agent says"), "{told}");
    // The address is held to the rules all the same.
    for url in ["http://10.1.2.3/x", "http://1.1.1.1/x"] {
        refusal(&sign(&scene.agent(), url, &copy, json!({})), 400, "egress-forbidden");
    }
    assert_eq!(scene.honest().visits().len(), before);
}

#[test]
fn rule_04_unobserved_pays_what_was_copied_faithfully() {
    let scene = Scene::unobserved(&[]);
    let payee = scene.honest().pay_to().to_string();
    let mut scene = scene;
    let config = scene.gateway.config().set(&["policy", "vendors", "settings", "payees"], vec![payee]);
    scene.gateway.write_config(config);
    scene.gateway.restart();
    let url = scene.honest().url("/quote");
    let first = given(&scene.sign("/quote", json!({})));
    assert_eq!(present(&url, &first).status, 200);
    scene.until(text(&first, "/payment"), "settled");
    assert_eq!(scene.moved().len(), 1);
}

fn digest(body: &str) -> String {
    hex::encode(Sha256::digest(body))
}

/// A listener that answers with a 402 as soon as it has the head of a request, and tells all that came until the
/// connection ended.
fn gatekeeper(terms: String) -> (String, mpsc::Receiver<String>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let authority = listener.local_addr().unwrap().to_string();
    let (said, heard) = mpsc::channel();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let (mut came, mut chunk, mut answered) = (Vec::new(), [0; 4096], false);
            stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
            while let Ok(n @ 1..) = stream.read(&mut chunk) {
                came.extend_from_slice(&chunk[..n]);
                if !answered && came.windows(4).any(|end| end == b"\r\n\r\n") {
                    answered = true;
                    let head = "HTTP/1.1 402 Payment Required\r\ncontent-length: 0\r\npayment-required: ";
                    stream.write_all(format!("{head}{terms}\r\n\r\n").as_bytes()).unwrap();
                }
            }
            let _nobody_listens = said.send(String::from_utf8_lossy(&came).into_owned());
        }
    });
    (authority, heard)
}

#[test]
fn rule_04_of_a_call_with_a_body_only_the_head_is_sent() {
    let terms = STANDARD.encode(demand(&Scene::new(&["honest"]).honest().url("/quote")).to_string());
    let (authority, heard) = gatekeeper(terms.clone());
    let scene = Scene::with(&["honest"], plain(), |config| config.allow_private(&authority));
    let url = format!("http://{authority}/do");
    let order = |body: &str, more: Value| {
        let mut order = json!({
            "header": terms,
            "resource": {"url": url, "method": "POST", "body_sha256": digest(body)},
        });
        order.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        scene.agent().post("/v1/sign", &order)
    };
    let first = given(&order("transfer everything", json!({})));
    let came = heard.recv_timeout(crate::SOON).expect("the connection stays open");
    let (head, body) = came.split_once("\r\n\r\n").unwrap();
    let head = head.to_ascii_lowercase();
    assert!(head.starts_with("post /do http/1.1") && head.contains("\r\nexpect: 100-continue"), "{came}");
    assert!(head.contains("\r\ntransfer-encoding: chunked") && body.is_empty(), "it must not be complete: {came}");

    // The body binds: the same digest is the same purchase, another is another.
    assert_eq!(given(&order("transfer everything", json!({}))), first);
    refusal(&order("transfer everything", json!({"purchase_id": "q"})), 409, "payment-unknown");
    refusal(&order("another", json!({"purchase_id": first["purchase"]})), 409, "purchase-conflict");
    let second = given(&order("another", json!({})));
    assert_ne!(second["payment"], first["payment"]);
    // Also at a door where the body itself comes.
    let fetched = json!({"method": "POST", "body": "transfer everything", "purchase_id": "q"});
    let body = refusal(&scene.agent().fetch(&url, fetched), 409, "payment-unknown");
    assert_eq!(body["payment"], first["payment"]);
}

#[test]
fn rule_04_what_acts_by_being_sent_is_not_sent() {
    let stub = Stub::start("HTTP/1.1 402 Payment Required\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    let scene = Scene::with(&["honest"], plain(), |config| config.allow_private(&stub.authority));
    let terms = demand(&scene.honest().url("/quote"));
    let order = |url: &str, method: &str, body: Option<&str>| {
        let resource = json!({"url": url, "method": method, "body_sha256": body.map(digest)});
        sign(&scene.agent(), url, &terms, json!({"resource": resource}))
    };
    for (method, body) in [("POST", None), ("POST", Some("")), ("PUT", None), ("PATCH", None), ("DELETE", None)] {
        let problem = refusal(&order(&stub.url("/act"), method, body), 422, "unpayable-offer");
        assert!(text(&problem, "/detail").contains("/v1/fetch"), "{problem}");
    }
    assert!(stub.seen().is_empty(), "{:?}", stub.seen());
    // One who wants to see the body first is not shown one.
    let problem = refusal(&order(&scene.honest().url("/echo"), "POST", Some("x")), 422, "unpayable-offer");
    assert!(text(&problem, "/detail").contains("body"), "{problem}");
    let answered = scene.honest().visits().into_iter().any(|visit| visit.path == "/echo");
    assert!(!answered, "the request was complete");
    assert_eq!(items(&scene.agent().get("/v1/payments")), [Value::Null; 0]);
}
