//! "Approve and propose a rule": a diff that, applied by hand, makes the question unnecessary. It never applies itself.

use countersign_tests::{
    config::{ALICE_TOKEN, Config, Policy},
    refusal::refusal,
    till::{bought, text},
    wait_for,
};
use serde_json::{Value, json};
use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};

use super::{SOON, Scene, threshold};

fn propose(scene: &Scene, asked: &Value) -> Value {
    let path = format!("/v1/approvals/{}/approve", text(asked, "/id"));
    let answer = scene.operator(ALICE_TOKEN).post(&path, &json!({"note": "always", "propose": true}));
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.json()["state"], "approved");
    let proposal = answer.json()["proposal"].clone();
    let again = scene.operator(ALICE_TOKEN).get(&format!("/v1/approvals/{}/proposal", text(asked, "/id")));
    assert_eq!((again.status, again.json()), (200, proposal.clone()));
    proposal
}

/// What a person with `patch` would do.
fn by_hand(scene: &Scene, diff: &str) {
    let mut patch = Command::new("patch")
        .args(["-p1", "--fuzz=0"])
        .current_dir(scene.gateway.dir())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    patch.stdin.take().unwrap().write_all(diff.as_bytes()).unwrap();
    assert!(patch.wait().unwrap().success(), "{diff}");
}

fn generation(scene: &Scene) -> u64 {
    scene.gateway.operator().get("/v1/policies").json()["generation"].as_u64().unwrap()
}

#[test]
fn a_proposed_rule_applied_by_hand_makes_the_question_unnecessary() {
    let first = Policy::new("newcomers", "builtin:first-vendor").setting("action", "review");
    let scene = Scene::with([first, threshold("review")], |config| config);
    let file = scene.gateway.dir().join("countersign.toml");
    let (before, text_before) = (generation(&scene), fs::read_to_string(&file).unwrap());
    let asked = scene.asked("p");
    let codes: Vec<&str> = asked["reasons"].as_array().unwrap().iter().map(|reason| text(reason, "/code")).collect();
    assert_eq!(codes, ["first-time-payee", "first-time-vendor", "above-review-threshold"]);
    let proposal = propose(&scene, &asked);
    assert_eq!((&proposal["complete"], &proposal["problem"]), (&json!(true), &Value::Null), "{proposal:#}");
    assert_eq!((&proposal["by"], proposal["answers"].as_array().unwrap().len()), (&json!("alice"), 3));
    let diff = text(&proposal, "/diff");
    for added in ["+above = \"0.001\"", "+known = [\"127.0.0.1:", "+known-payees = [\"0x"] {
        assert!(diff.contains(added), "{added}: {diff}");
    }
    assert!(!diff.contains("://"), "{diff}");
    // Nothing has changed by itself.
    assert_eq!((fs::read_to_string(&file).unwrap(), generation(&scene)), (text_before, before));
    // Not bought yet: the question would be asked again for another purchase.
    refusal(&scene.buy("q"), 202, "approval-required");
    by_hand(&scene, diff);
    wait_for(SOON, || (generation(&scene) > before).then_some(())).expect("the change never served");
    bought(&scene.buy("r"), "0.001");
    assert_eq!(scene.redeemed(), 1);
}

#[test]
fn what_no_setting_answers_is_said() {
    let pins = Policy::new("pins", "builtin:payee-pin").setting("unknown", "review");
    let scene = Scene::with([pins], |config: Config| {
        config
            .set(&["budget", "team", "when", "agent"], "scout")
            .set(&["budget", "team", "per"], "day")
            .set(&["budget", "team", "limit"], "1.00")
            .set(&["budget", "team", "review"], "0.0001")
    });
    let asked = scene.asked("p");
    let missing = scene.operator(ALICE_TOKEN).get(&format!("/v1/approvals/{}/proposal", text(&asked, "/id")));
    refusal(&missing, 404, "not-found");
    let deny = format!("/v1/approvals/{}/deny", text(&asked, "/id"));
    refusal(&scene.operator(ALICE_TOKEN).post(&deny, &json!({"propose": true})), 400, "bad-request");
    let proposal = propose(&scene, &asked);
    assert_eq!((&proposal["complete"], &proposal["diff"]), (&json!(false), &Value::Null), "{proposal:#}");
    let answers: Vec<(&str, &str)> = proposal["answers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|answer| (text(answer, "/code"), text(answer, "/answer")))
        .collect();
    assert_eq!(answers, [("budget-review", "none"), ("payee-unknown", "settled")]);
}

#[test]
fn the_command_line_proposes_too_and_only_for_what_serves() {
    let mut scene = Scene::with([threshold("review")], |config| config);
    let asked = scene.asked("p");
    // What stands in the file is not what serves: there is nothing to make a diff of.
    let broken = scene.gateway.config().set(&["policy", "review", "settings", "above"], "nonsense");
    let good = scene.gateway.config();
    scene.gateway.write_config(broken);
    wait_for(SOON, || scene.gateway.operator().get("/v1/policies").json()["last_error"].is_object().then_some(()))
        .unwrap();
    let proposal = propose(&scene, &asked);
    assert!(text(&proposal, "/problem").contains("not what the file says"), "{proposal:#}");
    scene.gateway.write_config(good);
    let other = scene.asked("q");
    let id = text(&other, "/id");
    scene.gateway.terminate();
    let said = scene.gateway.command(&["approvals", "approve", id, "--propose"]);
    let told = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.status.success() && told.contains("+above = \"0.001\""), "{told} {said:?}");
    let shown = scene.gateway.command(&["approvals", "show", id]);
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("+above = \"0.001\"") && shown.contains("alice yes"), "{shown}");
}
