//! A budget that reaches its threshold is told of: once, signed, again until it is taken, over any restart.

use countersign_tests::{
    config::Config,
    till::{bought, items, text},
    wait_for,
};
use serde_json::{Value, json};

use super::{
    SOON, Scene,
    receiver::{Receiver, SECRET},
};

const BUDGET: &str = "team";

/// Half of what two payments cost.
fn alerting(config: Config, webhook: &str) -> Config {
    config
        .set(&["budget", BUDGET, "when", "agent"], "scout")
        .set(&["budget", BUDGET, "per"], "day")
        .set(&["budget", BUDGET, "limit"], "1.00")
        .set(&["budget", BUDGET, "alert"], "0.002")
        .set(&["alerts", "webhook"], webhook)
        .set(&["alerts", "secret", "env"], "HOOK_SECRET")
        .env("HOOK_SECRET", SECRET)
}

/// A scene whose alerts go to a receiver of their own.
fn scene(fault: &Value) -> (Scene, Receiver) {
    let hook = Receiver::start();
    hook.fault(fault);
    let url = format!("{}/hook", hook.url);
    (Scene::with(|config| alerting(config, &url)), hook)
}

fn hooks(receiver: &Receiver) -> Vec<Value> {
    receiver.seen()["hooks"].as_array().unwrap().clone()
}

fn alerts(scene: &Scene) -> Vec<Value> {
    items(&scene.gateway.operator().get("/v1/alerts"))
}

#[track_caller]
fn delivered(scene: &Scene) -> Value {
    let found = wait_for(SOON, || alerts(scene).pop().filter(|a| a["delivery"]["state"] == "delivered"));
    found.unwrap_or_else(|| panic!("{:?} {}", alerts(scene), scene.gateway.log()))
}

#[test]
fn a_threshold_is_told_once_and_signed() {
    let (scene, hook) = scene(&json!({}));
    let agent = scene.gateway.agent();
    bought(&agent.fetch(&scene.url("/quote"), json!({})), "0.001");
    assert_eq!(alerts(&scene), [Value::Null; 0]);
    let second = bought(&agent.fetch(&scene.url("/quote"), json!({})), "0.001");
    let kept = delivered(&scene);
    bought(&agent.fetch(&scene.url("/quote"), json!({})), "0.001");
    let told = hooks(&hook);
    let [only] = &told[..] else { panic!("{told:#?}") };
    assert_eq!(only["body"]["type"], "budget.alert");
    let data = &only["body"]["data"];
    assert!(text(data, "/budget").contains(BUDGET), "{data}");
    let expected = json!({"threshold": "0.002", "used": "0.002", "limit": "1", "unit": "USD", "payment": second});
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!((&data[name], &kept[name]), (value, value), "{name}: {data} {kept}");
    }
    assert_eq!((&kept["delivery"]["attempts"], &kept["delivery"]["next"]), (&json!(1), &Value::Null));
    assert_eq!(alerts(&scene).len(), 1);
}

#[test]
fn an_alert_that_was_not_taken_is_told_again_under_the_same_name() {
    let (scene, hook) = scene(&json!({"hook": [500]}));
    for _ in 0..2 {
        bought(&scene.gateway.agent().fetch(&scene.url("/quote"), json!({})), "0.001");
    }
    assert_eq!(delivered(&scene)["delivery"]["attempts"], 2);
    let told = hooks(&hook);
    assert_eq!(told.iter().map(|t| &t["status"]).collect::<Vec<_>>(), [500, 204]);
    assert_eq!(told[0]["id"], told[1]["id"]);
    assert_eq!(told[0]["body"], told[1]["body"]);
}

#[test]
fn an_alert_outlives_the_process() {
    let hook = Receiver::start();
    let port = countersign_tests::process::free_port();
    let nowhere = format!("http://127.0.0.1:{port}/hook");
    let mut scene = Scene::with(|config| alerting(config, &nowhere));
    for _ in 0..2 {
        bought(&scene.gateway.agent().fetch(&scene.url("/quote"), json!({})), "0.001");
    }
    wait_for(SOON, || alerts(&scene).pop().filter(|a| a["delivery"]["attempts"] == 1)).expect("it is tried");
    scene.gateway.kill();
    let config = scene.gateway.config().set(&["alerts", "webhook"], format!("{}/hook", hook.url));
    scene.gateway.write_config(config);
    scene.gateway.restart();
    assert_eq!(delivered(&scene)["delivery"]["attempts"], 2);
    assert_eq!(hooks(&hook).len(), 1);
}
