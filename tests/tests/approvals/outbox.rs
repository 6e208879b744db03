//! What the receiver of `[approvals]` is told: signed, once, again until it is taken.

use countersign_tests::{
    config::{ALICE_TOKEN, Config},
    http,
    till::{bought, items, text},
    wait_for,
};
use serde_json::{Value, json};

use super::{
    SOON, Scene, counted,
    receiver::{Receiver, SECRET},
    threshold,
};

fn told(config: Config, hook: &str) -> Config {
    config
        .set(&["approvals", "webhook"], hook)
        .set(&["approvals", "webhook-secret", "env"], "HOOK_SECRET")
        .env("HOOK_SECRET", SECRET)
}

fn scene(fault: &Value) -> (Scene, Receiver) {
    let hook = Receiver::start();
    hook.fault(fault);
    let url = format!("{}/hook", hook.url);
    (Scene::with([threshold("review").setting("group", "finance")], |config| told(config, &url)), hook)
}

fn hooks(receiver: &Receiver) -> Vec<Value> {
    receiver.seen()["hooks"].as_array().unwrap().clone()
}

fn log(scene: &Scene) -> Vec<Value> {
    items(&scene.gateway.operator().get("/v1/approvals/deliveries"))
}

/// Waits until so many notices were delivered; newest first.
#[track_caller]
fn delivered(scene: &Scene, count: usize) -> Vec<Value> {
    let all = || {
        Some(log(scene)).filter(|log| log.len() == count && log.iter().all(|n| n["delivery"]["state"] == "delivered"))
    };
    wait_for(SOON, all).unwrap_or_else(|| panic!("{:#?} {}", log(scene), scene.gateway.log()))
}

#[test]
fn rule_17_what_happens_to_an_approval_is_told_signed_and_again_until_it_is_taken() {
    let (scene, hook) = scene(&json!({"hook": [500]}));
    let asked = scene.asked("p");
    delivered(&scene, 1);
    counted(&scene.vote(ALICE_TOKEN, &asked, "approve"), "approved");
    let kept = delivered(&scene, 2);
    bought(&scene.buy("p"), "0.001");

    let told = hooks(&hook);
    let summary: Vec<_> = told.iter().map(|t| (t["status"].as_u64().unwrap(), text(t, "/body/type"))).collect();
    assert_eq!(summary, [(500, "approval.requested"), (204, "approval.requested"), (204, "approval.decided")]);
    assert_eq!((&told[0]["id"], &told[0]["body"]), (&told[1]["id"], &told[1]["body"]), "a repeat is the same message");
    assert_ne!(told[1]["id"], told[2]["id"]);
    assert_eq!(kept[1]["delivery"]["attempts"], 2);
    assert_eq!((&kept[0]["type"], &kept[0]["approval"]), (&json!("approval.decided"), &asked["id"]));

    let data = &told[1]["body"]["data"];
    let expected = json!({
        "approval": asked["id"], "state": "pending", "digest": asked["frozen"], "expires_at": asked["expires_at"],
        "payment": asked["payment"], "quorum": 1, "groups": {"finance": 1}, "agent": "scout", "workspace": "research",
        "reasons": [{"policy": "review", "code": "above-review-threshold"}], "wallet": "research", "mandate": "all",
        "method": "GET", "votes": [], "user": null, "client": null, "project": null, "task": null,
        "seller": asked["purchase"]["seller"], "amount": asked["purchase"]["amount"],
    });
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(&data[name], value, "{name}: {data}");
    }
    // Whatever an agent or a seller wrote is in one place.
    let mut clean = data.clone();
    let untrusted = clean.as_object_mut().unwrap().remove("untrusted").unwrap();
    assert!(untrusted.to_string().contains("look <b>here</b>") && untrusted["url"] == scene.url());
    assert!(!clean.to_string().contains("look") && !clean.to_string().contains("/quote"), "{clean}");
    // The link says where, and lets nobody in.
    let url = text(data, "/url");
    assert_eq!(http::get(url).send().status, 401);
    assert_eq!(http::get(url).bearer(ALICE_TOKEN).send().json()["id"], asked["id"]);
    let decided = &told[2]["body"]["data"];
    assert_eq!((&decided["state"], &decided["votes"][0]["operator"]), (&json!("approved"), &json!("alice")));

    let cli = scene.gateway.command(&["approvals", "deliveries", "--json"]);
    let cli: Value = serde_json::from_slice(&cli.stdout).unwrap();
    assert_eq!(cli["items"], json!(log(&scene)));
    let page = scene.gateway.operator().get("/v1/approvals/deliveries?limit=1").json();
    assert_eq!((page["items"].as_array().unwrap().len(), &page["next"]), (1, &kept[0]["id"]));
}

#[test]
fn what_lapses_is_told_too_and_outlives_the_process() {
    let port = countersign_tests::process::free_port();
    let mut scene = Scene::with([threshold("review").setting("expires-in-seconds", 1)], |config| {
        told(config, &format!("http://127.0.0.1:{port}/hook"))
    });
    let asked = scene.asked("p");
    wait_for(SOON, || log(&scene).pop().filter(|n| n["delivery"]["attempts"] == 1)).expect("it is tried");
    scene.gateway.kill();
    let hook = Receiver::start();
    scene.gateway.write_config(told(scene.gateway.config(), &format!("{}/hook", hook.url)));
    scene.gateway.restart();
    delivered(&scene, 2);
    let mut types: Vec<String> = hooks(&hook).iter().map(|t| text(t, "/body/type").to_owned()).collect();
    types.sort();
    assert_eq!(types, ["approval.expired", "approval.requested"]);
    let expired = hooks(&hook).into_iter().find(|t| t["body"]["type"] == "approval.expired").unwrap();
    assert_eq!(expired["body"]["data"]["approval"], asked["id"]);
    assert_eq!(expired["body"]["data"]["state"], "expired");
}
