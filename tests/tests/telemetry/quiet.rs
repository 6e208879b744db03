//! A receiver that is not there, does not answer or does not take anything changes nothing about purchases.

use countersign_tests::{process::free_port, till::bought, wait_for};
use serde_json::json;

use super::{SOON, Scene};

#[track_caller]
fn buys_as_ever(scene: &Scene, count: u32) {
    for n in 0..count {
        bought(&scene.gateway.agent().fetch(&scene.url("/quote"), json!({"purchase_id": format!("p-{n}")})), "0.001");
    }
}

fn figure(scene: &Scene, sample: &str) -> f64 {
    let page = scene.gateway.operator().get("/metrics").text();
    page.lines()
        .find_map(|l| l.strip_prefix(sample)?.strip_prefix(' ')?.parse().ok())
        .unwrap_or_else(|| panic!("{page}"))
}

#[test]
fn a_receiver_that_is_not_there() {
    let port = free_port();
    let mut scene = Scene::with(|config| config.set(&["telemetry", "otlp"], format!("http://127.0.0.1:{port}")));
    buys_as_ever(&scene, 10);
    let failed = "countersign_otlp_exports_total{signal=\"metrics\",result=\"failed\"}";
    wait_for(SOON, || (figure(&scene, failed) >= 1.0).then_some(())).expect("failures are counted");
    assert_eq!(scene.world.new_redemptions().len(), 10);
    assert!(scene.gateway.terminate().success());
}

#[test]
fn a_receiver_that_never_answers() {
    let mut scene = Scene::with(|config| config);
    scene.receiver.fault(&json!({"otlp": "hang"}));
    buys_as_ever(&scene, 10);
    assert_eq!(scene.world.new_redemptions().len(), 10);
    // It ends in time, too, although the receiver does not.
    assert!(scene.gateway.terminate().success());
}

#[test]
fn a_receiver_that_takes_nothing_for_a_while_gets_what_still_waits() {
    let scene = Scene::with(|config| config);
    scene.receiver.fault(&json!({"otlp": "503"}));
    buys_as_ever(&scene, 3);
    let failed = "countersign_otlp_exports_total{signal=\"traces\",result=\"failed\"}";
    wait_for(SOON, || (figure(&scene, failed) >= 1.0).then_some(())).expect("failures are counted");
    scene.receiver.fault(&json!({"otlp": null}));
    for n in 0..3 {
        scene.receiver.trace("countersign.purchase.id", &format!("p-{n}"));
    }
    assert!(figure(&scene, "countersign_otlp_dropped_traces_total").abs() < f64::EPSILON);
}

#[test]
fn what_ended_before_the_gateway_stops_is_told() {
    let mut scene = Scene::with(|config| config);
    buys_as_ever(&scene, 1);
    assert!(scene.gateway.terminate().success());
    scene.receiver.trace("countersign.purchase.id", "p-0");
}
