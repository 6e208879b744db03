//! An operator's word as a signed message: counted once, for exactly what it quotes, from nobody else.

use countersign_tests::{
    config::Config,
    http::{self, Response},
    refusal::refusal,
    till::{bought, text},
    wait_for,
};
use serde_json::{Value, json};
use std::time::{SystemTime, UNIX_EPOCH};

use super::{SOON, Scene, counted, receiver::Receiver, shown, threshold};

const ALICES: &str = "whsec_YWxpY2UtYWxpY2UtYWxpY2UtYWxpY2UtYWxpY2U=";
const BOBS: &str = "whsec_Ym9iLWJvYi1ib2ItYm9iLWJvYi1ib2ItYm9iLWJvYg==";

fn keys(config: Config) -> Config {
    config
        .set(&["operator", "alice", "approval-key", "env"], "ALICES_KEY")
        .set(&["operator", "bob", "approval-key", "env"], "BOBS_KEY")
        .env("ALICES_KEY", ALICES)
        .env("BOBS_KEY", BOBS)
}

/// A message and how it is signed.
struct Message {
    key: &'static str,
    id: String,
    /// Seconds from now.
    age: i64,
    body: Value,
}

fn message(approval: &Value, operator: &str, decision: &str) -> Message {
    let key = if operator == "bob" { BOBS } else { ALICES };
    let body = json!({
        "operator": operator, "approval": approval["id"], "digest": approval["frozen"],
        "expires_at": approval["expires_at"], "decision": decision, "note": "from afar",
    });
    Message { key, id: format!("msg-{operator}-{}", text(approval, "/id")), age: 0, body }
}

impl Message {
    fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.body[name] = value.into();
        self
    }
}

/// Signs by the reference library and sends.
fn send(scene: &Scene, signer: &Receiver, message: &Message) -> Response {
    send_as(scene, signer, message, &message.body.to_string())
}

/// The same with another body than the one that was signed.
#[expect(clippy::disallowed_methods, reason = "a gateway under test has the real clock, and so has who signs for it")]
fn send_as(scene: &Scene, signer: &Receiver, message: &Message, body: &str) -> Response {
    let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap();
    let timestamp = now - message.age;
    let ask =
        json!({"secret": message.key, "id": message.id, "timestamp": timestamp, "body": message.body.to_string()});
    let signature = http::post(&format!("{}/sign", signer.url), &ask).send().json();
    http::Request::new("POST", &format!("{}/v1/approvals/webhook", scene.gateway.admin_url))
        .header("webhook-id", &message.id)
        .header("webhook-timestamp", &timestamp.to_string())
        .header("webhook-signature", signature.as_str().unwrap())
        .header("content-type", "application/json")
        .body(body)
        .send()
}

#[test]
fn rule_17_a_signed_message_decides_once() {
    let (scene, signer) = (Scene::with([threshold("review").setting("quorum", 2)], keys), Receiver::start());
    let asked = scene.asked("p");
    let hers = message(&asked, "alice", "approve");
    let first = counted(&send(&scene, &signer, &hers), "pending");
    assert_eq!((&first["replayed"], &first["votes"][0]["channel"]), (&json!(false), &json!("webhook")));
    // A sender that heard no answer sends it again: nothing happens, and it is told so.
    let again = counted(&send(&scene, &signer, &hers), "pending");
    assert_eq!((&again["replayed"], again["votes"].as_array().unwrap().len()), (&json!(true), 1));
    // Another message of hers is a second word.
    let second = Message { id: "msg-2".into(), ..message(&asked, "alice", "approve") };
    refusal(&send(&scene, &signer, &second), 409, "conflict");
    // Another word under the id that was counted is no repeat.
    refusal(&send(&scene, &signer, &message(&asked, "alice", "deny")), 409, "conflict");
    counted(&send(&scene, &signer, &message(&asked, "bob", "approve")), "approved");
    bought(&scene.buy("p"), "0.001");
    let late = counted(&send(&scene, &signer, &hers), "used");
    assert_eq!(late["replayed"], true);
    let denied = scene.asked("q");
    counted(&send(&scene, &signer, &message(&denied, "bob", "deny")), "denied");
    refusal(&scene.buy("q"), 202, "approval-required");
}

#[test]
fn rule_17_a_message_is_believed_only_with_the_key_of_who_speaks() {
    let change = |config| {
        keys(config)
            .set(&["operator", "bob", "roles"], vec!["viewer"])
            .set(&["agent", "scout", "user"], "uma")
            .set(&["operator", "carol", "users"], vec!["uma"])
            .set(&["operator", "carol", "approval-key", "env"], "CAROLS_KEY")
            .env("CAROLS_KEY", CAROLS)
    };
    let (scene, signer) = (Scene::with([threshold("review")], change), Receiver::start());
    let asked = scene.asked("p");
    let good = || message(&asked, "alice", "approve");
    let refused = |message: &Message, status, code| {
        let body = refusal(&send(&scene, &signer, message), status, code);
        assert_eq!(shown(&scene.gateway, text(&asked, "/id"))["votes"], json!([]), "{body}");
        text(&body, "/detail").to_owned()
    };
    // Signed by another operator, by nobody, for nobody.
    assert!(refused(&Message { key: BOBS, ..good() }, 401, "unauthenticated").contains("signature"));
    refused(&good().with("operator", "bob"), 401, "unauthenticated");
    refused(&good().with("operator", "mallory"), 401, "unauthenticated");
    refused(&good().with("operator", 7), 401, "unauthenticated");
    // Changed on the way.
    let changed = good().body.to_string().replace("from afar", "from Afar");
    refusal(&send_as(&scene, &signer, &good(), &changed), 401, "unauthenticated");
    refusal(
        &http::post(&format!("{}/v1/approvals/webhook", scene.gateway.admin_url), &good().body).send(),
        401,
        "unauthenticated",
    );
    // Signed long ago, or for later.
    for age in [310, -310] {
        assert!(refused(&Message { age, ..good() }, 401, "unauthenticated").contains("5 minutes"));
    }
    // About something else.
    assert!(refused(&good().with("digest", "ab".repeat(32)), 409, "conflict").contains("digest"));
    assert!(refused(&good().with("expires_at", "2030-01-01T00:00:00.000Z"), 409, "conflict").contains("expires_at"));
    refused(&good().with("approval", "apr_00000000000070008000000000000000"), 404, "not-found");
    refused(&good().with("decision", "maybe"), 400, "bad-request");
    refused(&good().with("surprise", 1), 400, "bad-request");
    // By somebody who may not.
    refused(&message(&asked, "bob", "approve"), 403, "forbidden");
    refused(&Message { key: CAROLS, ..message(&asked, "carol", "approve") }, 403, "forbidden");
    // A GET changes nothing, and is not even there without a token.
    assert_eq!(http::get(&format!("{}/v1/approvals/webhook", scene.gateway.admin_url)).send().status, 401);
    counted(&send(&scene, &signer, &good()), "approved");
}

const CAROLS: &str = "whsec_Y2Fyb2wtY2Fyb2wtY2Fyb2wtY2Fyb2wtY2Fyb2w=";

#[test]
fn a_message_that_comes_too_late_or_outside_its_scope_counts_for_nothing() {
    let review = threshold("review").setting("expires-in-seconds", 1);
    let change = |config: Config| keys(config).set(&["operator", "bob", "workspaces"], vec!["sales"]);
    let (scene, signer) = (Scene::with([review], change), Receiver::start());
    let asked = scene.asked("p");
    refusal(&send(&scene, &signer, &message(&asked, "bob", "approve")), 403, "forbidden");
    let over = || Some(shown(&scene.gateway, text(&asked, "/id"))).filter(|a| a["state"] == "expired");
    wait_for(SOON, over).expect("it lapses by itself");
    refusal(&send(&scene, &signer, &message(&asked, "alice", "approve")), 409, "conflict");
}

#[test]
fn a_key_is_one_operators_and_goes_with_the_file() {
    use countersign_tests::process::Gateway;
    let config = Config::new(countersign_tests::till::plain()).operator("bob", super::BOB_TOKEN, &["approver"]);
    let (status, log) = Gateway::refused(keys(config.clone()).env("BOBS_KEY", ALICES));
    assert!(!status.success() && log.contains("the same key as operator.alice.approval-key"), "{log}");
    let told = keys(config).set(&["approvals", "webhook"], "http://127.0.0.1:9/hook");
    let told = told.set(&["approvals", "webhook-secret", "env"], "HOOK").env("HOOK", BOBS);
    let (_, log) = Gateway::refused(told);
    assert!(log.contains("the same key as approvals.webhook-secret"), "{log}");

    let (mut scene, signer) = (Scene::with([threshold("review")], keys), Receiver::start());
    let asked = scene.asked("p");
    // Taken away in an edit that is otherwise wrong.
    let edit = scene.gateway.config().remove(&["operator", "alice", "approval-key"]);
    scene.gateway.write_config(edit.set(&["policy", "review", "settings", "above"], "nonsense"));
    let refused = || Some(send(&scene, &signer, &message(&asked, "alice", "approve"))).filter(|a| a.status == 401);
    wait_for(SOON, || {
        let restricted = scene.gateway.operator().get("/v1/policies").json()["last_error"].is_object();
        restricted.then_some(())
    })
    .expect("the edit is seen");
    assert!(refused().is_some(), "a key that was taken away still speaks");
}
