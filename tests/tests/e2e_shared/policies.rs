//! Which rules serve is the ledger's word: every gateway has the same generation.

use super::*;
use countersign_tests::config::SCOUT_TOKEN;
use countersign_tests::modules::{sha256, variant};

/// A policy `p` from a file of the scene's, an allowlist that every gateway names.
fn scene() -> (Scene, TempDir) {
    let modules = tempfile::Builder::new().permissions(Permissions::from_mode(0o700)).tempdir().unwrap();
    let file = modules.path().join("p.wasm");
    fs::write(&file, variant("vendor-allowlist", 1)).unwrap();
    let allowlist = Policy::new("p", file.to_str().unwrap()).setting("hosts", vec!["127.0.0.1:*"]);
    (Scene::with(Place::Shared, 2, &["honest"], vec![allowlist], |config| with_budget(config, 3)), modules)
}

fn put(scene: &Scene, gateway: usize, module: &[u8]) -> Response {
    scene.operator(gateway).request("PUT", "/v1/policies/p/module").body(module).send()
}

fn status(scene: &Scene, gateway: usize) -> Value {
    done(&scene.operator(gateway).get("/v1/policies"))
}

fn serves(scene: &Scene, gateway: usize) -> (u64, String) {
    let status = status(scene, gateway);
    (status["generation"].as_u64().unwrap(), text(&status, "/policies/0/module_sha256").to_owned())
}

/// Waits until every gateway serves what the first one of them does; answers generation and module.
#[track_caller]
fn converge(scene: &Scene) -> (u64, String) {
    let all = || (0..scene.gateways.len()).map(|n| serves(scene, n)).collect::<Vec<_>>();
    let same = wait_for(PATIENCE, || Some(all()).filter(|all| all.windows(2).all(|pair| pair[0] == pair[1])));
    same.unwrap_or_else(|| panic!("the gateways serve different policies: {:?}", all())).remove(0)
}

/// Buys at a gateway; answers the generation and the module that decided.
#[track_caller]
fn decides(scene: &Scene, gateway: usize) -> (u64, String) {
    let payment = scene.buy(gateway);
    let decision = scene.operator(gateway).payment(&payment)["decision"].clone();
    (decision["generation"].as_u64().unwrap(), text(&decision, "/policies/0/module_sha256").to_owned())
}

#[test]
fn a_module_put_at_one_gateway_serves_at_all() {
    let (mut scene, _modules) = scene();
    let first = converge(&scene);
    let second = variant("vendor-allowlist", 2);
    let answer = done(&put(&scene, 0, &second));
    assert_eq!(answer["generation"], first.0 + 1);
    let found = wait_for(PATIENCE, || Some(serves(&scene, 1)).filter(|now| *now == (first.0 + 1, sha256(&second))));
    assert!(found.is_some(), "{:#}", status(&scene, 1));
    assert_eq!(decides(&scene, 1), (first.0 + 1, sha256(&second)));
    assert_eq!(decides(&scene, 0), (first.0 + 1, sha256(&second)));
    // Who was not there then has it too.
    scene.join();
    assert_eq!(converge(&scene), (first.0 + 1, sha256(&second)));
    assert_eq!(decides(&scene, 2), (first.0 + 1, sha256(&second)));

    // Gone back to at another gateway than put it.
    let answer = done(&scene.operator(1).post("/v1/policies/rollback", &json!({})));
    assert_eq!(answer["generation"], first.0 + 2);
    assert_eq!(converge(&scene), (first.0 + 2, first.1));
    scene.restart();
    assert_eq!(converge(&scene).0, first.0 + 2, "a restart is no new generation");
}

#[test]
fn modules_put_at_two_gateways_at_once_are_two_generations_and_one_serves() {
    let (scene, _modules) = scene();
    let (before, _) = converge(&scene);
    let start = Barrier::new(2);
    let answers: Vec<Response> = thread::scope(|scope| {
        let call = |gateway: usize| {
            let (scene, start) = (&scene, &start);
            move || {
                start.wait();
                put(scene, gateway, &variant("vendor-allowlist", 10 + u32::try_from(gateway).unwrap()))
            }
        };
        let calls = [scope.spawn(call(0)), scope.spawn(call(1))];
        calls.into_iter().map(|call| call.join().unwrap()).collect()
    });
    // One may be told to look again first; nobody may be told something that is not so.
    let taken = answers.iter().filter(|answer| answer.status == 200).count();
    assert!(taken >= 1, "{answers:#?}");
    let (generation, module) = converge(&scene);
    assert_eq!(generation, before + u64::try_from(taken).unwrap());
    let put = [10, 11].map(|number| sha256(&variant("vendor-allowlist", number)));
    assert!(put.contains(&module));
    let numbers = |gateway: usize| -> Vec<u64> {
        let answer = done(&scene.operator(gateway).get("/v1/policies/generations?limit=500"));
        answer["items"].as_array().unwrap().iter().map(|g| g["generation"].as_u64().unwrap()).collect()
    };
    assert_eq!(numbers(0), (1..=generation).rev().collect::<Vec<_>>(), "a number twice, or a gap");
    assert_eq!(numbers(0), numbers(1));
    assert_eq!(decides(&scene, 0), (generation, module.clone()));
    assert_eq!(decides(&scene, 1), (generation, module));
}

#[test]
fn a_file_that_differs_at_one_gateway_is_reported_there_and_not_activated() {
    let (mut scene, _modules) = scene();
    let before = converge(&scene);
    for gateway in [0, 1] {
        assert_eq!(status(&scene, gateway)["config_drift"], false);
    }
    // More money, and somebody more: at one gateway only.
    let original = scene.gateways[0].config();
    let config = with_budget(original.clone(), 9_000).agent("rival", OTHER_TOKEN);
    scene.gateways[0].write_config(config);
    let drifted = wait_for(PATIENCE, || (status(&scene, 0)["config_drift"] == true).then_some(()));
    assert!(drifted.is_some(), "{:#}", status(&scene, 0));
    assert_eq!(status(&scene, 1)["config_drift"], false);
    assert_eq!(converge(&scene), before);

    for gateway in [0, 1] {
        let rival = scene.gateways[gateway].agent_with(OTHER_TOKEN);
        refusal(&rival.fetch(&scene.quote(), json!({})), 401, "unauthenticated");
        assert_eq!(decides(&scene, gateway), before);
    }
    scene.buy(0);
    for gateway in [0, 1] {
        refusal(&scene.agent(gateway).fetch(&scene.quote(), json!({})), 403, "budget-exceeded");
    }
    // Not by a start either.
    scene.gateways[0].restart();
    assert_eq!((converge(&scene), status(&scene, 0)["config_drift"].clone()), (before, json!(true)));
    refusal(&scene.agent(0).fetch(&scene.quote(), json!({})), 403, "budget-exceeded");
    // Put right, nothing drifts.
    scene.gateways[0].write_config(original);
    let healed = wait_for(PATIENCE, || (status(&scene, 0)["config_drift"] == false).then_some(()));
    assert!(healed.is_some(), "{:#}", status(&scene, 0));
}

/// Activates what a gateway's file says, for all of them; answers the generation.
#[track_caller]
fn activate(scene: &Scene, gateway: usize) -> u64 {
    let status = done(&scene.operator(gateway).post("/v1/policies/files", &json!({})));
    status["generation"].as_u64().unwrap()
}

#[test]
fn a_file_activated_at_one_gateway_serves_at_all() {
    let (mut scene, _modules) = scene();
    let (before, module) = converge(&scene);
    for gateway in [0, 1, 0] {
        scene.buy(gateway);
    }
    refusal(&scene.agent(1).fetch(&scene.quote(), json!({})), 403, "budget-exceeded");
    let wider = with_budget(scene.gateways[0].config(), 5);
    scene.gateways[0].write_config(wider);
    let drifted = wait_for(PATIENCE, || (status(&scene, 0)["config_drift"] == true).then_some(()));
    assert!(drifted.is_some(), "{:#}", status(&scene, 0));
    assert_eq!(activate(&scene, 0), before + 1);
    assert_eq!(status(&scene, 0)["config_drift"], false);
    assert_eq!(converge(&scene), (before + 1, module));
    // Now it is the other file that says something else.
    assert_eq!(status(&scene, 1)["config_drift"], true);
    scene.buy(1);
    scene.buy(0);
    refusal(&scene.agent(1).fetch(&scene.quote(), json!({})), 403, "budget-exceeded");
}

#[test]
fn rule_19_what_one_gateways_file_takes_away_is_gone_at_all_once_it_is_activated() {
    let (mut scene, _modules) = scene();
    converge(&scene);
    // The token got out; only the first gateway's file has the new one yet.
    let rotated = scene.gateways[0].config().agent("scout", OTHER_TOKEN);
    scene.gateways[0].write_config(rotated);
    let drifted = wait_for(PATIENCE, || (status(&scene, 0)["config_drift"] == true).then_some(()));
    assert!(drifted.is_some(), "{:#}", status(&scene, 0));
    activate(&scene, 0);
    converge(&scene);
    let with = |gateway: usize, token: &str| scene.gateways[gateway].agent_with(token).fetch(&scene.quote(), json!({}));
    bought(&with(0, OTHER_TOKEN), "0.001");
    for gateway in [0, 1] {
        refusal(&with(gateway, SCOUT_TOKEN), 401, "unauthenticated");
    }
    refusal(&with(1, OTHER_TOKEN), 401, "unauthenticated");
    // Nor does a start bring it back.
    scene.gateways[1].restart();
    let with = |gateway: usize, token: &str| scene.gateways[gateway].agent_with(token).fetch(&scene.quote(), json!({}));
    refusal(&with(1, SCOUT_TOKEN), 401, "unauthenticated");
    // Its file brought in line, it takes the new one.
    let config = scene.gateways[1].config().agent("scout", OTHER_TOKEN);
    scene.gateways[1].write_config(config);
    let taken = wait_for(PATIENCE, || {
        (scene.gateways[1].agent_with(OTHER_TOKEN).fetch(&scene.quote(), json!({})).status == 200).then_some(())
    });
    assert!(taken.is_some(), "{:#}", status(&scene, 1));
}

#[test]
fn what_differs_by_nature_is_no_drift() {
    // Listeners and local copies are each gateway's own.
    let scene = Scene::new(3);
    let generations: BTreeSet<u64> = (0..3).map(|n| status(&scene, n)["generation"].as_u64().unwrap()).collect();
    assert_eq!(generations.len(), 1, "each start was a generation: {generations:?}");
    for gateway in 0..3 {
        let status = status(&scene, gateway);
        assert_eq!((&status["config_drift"], &status["last_error"]), (&json!(false), &Value::Null), "{status:#}");
    }
}
