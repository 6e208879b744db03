//! What operators change without the files: modules put, generations gone back to.

use super::*;

/// Puts a module in place of `p`'s.
fn put(lab: &Lab, module: &[u8]) -> Response {
    lab.gateway.operator().request("PUT", "/v1/policies/p/module").body(module).send()
}

fn back(lab: &Lab, to: Option<u64>) -> Response {
    let body = to.map_or_else(|| json!({}), |to| json!({"to": to}));
    lab.gateway.operator().post("/v1/policies/rollback", &body)
}

/// Status, code, and the stage that refused.
#[track_caller]
fn is_refused_at(answer: &Response, status: u16, stage: &str) {
    let problem = answer.json();
    assert_eq!((answer.status, problem["stage"].as_str()), (status, Some(stage)), "{problem}");
}

#[test]
fn a_module_put_serves_until_the_file_changes() {
    let mut lab = Lab::with_one_module();
    let before = lab.status();
    // What does not come through the gate changes nothing, and is nothing wrong with the files.
    is_refused_at(&put(&lab, GARBAGE), 400, "compile");
    is_refused_at(
        &lab.gateway.operator().request("PUT", "/v1/policies/q/module").body(GARBAGE).send(),
        404,
        "not-found",
    );
    assert_eq!(lab.status()["generation"], before["generation"]);
    assert!(lab.status()["last_error"].is_null());

    let second = variant("vendor-allowlist", 2);
    let answer = put(&lab, &second);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let status = lab.status();
    assert_eq!(answer.json(), status);
    assert_eq!(number(&status), number(&before) + 1);
    assert_eq!(
        (&status["origin"], &status["by"], &status["config_drift"]),
        (&json!("api"), &json!("alice"), &json!(true))
    );
    assert_eq!(status["policies"][0]["module_sha256"], sha256(&second));
    assert_eq!(status["policies"][0]["settings_sha256"], before["policies"][0]["settings_sha256"]);
    assert_eq!(status["policies"][0]["overrides_file"], true);
    assert_eq!(lab.buy()["decision"]["policies"][0]["module_sha256"], sha256(&second));
    // Again is no change.
    assert_eq!(number(&put(&lab, &second).json()), number(&status));

    // It outlives a restart, under its number, and edits of other things.
    lab.gateway.restart();
    let again = lab.status();
    for key in ["generation", "origin", "by", "config_drift", "activated_at"] {
        assert_eq!(again[key], status[key], "{key}");
    }
    let edited = lab.gateway.config().agent("rival", RIVAL);
    let status = lab.edit(edited);
    assert_eq!((&status["config_drift"], &status["origin"]), (&json!(true), &json!("file")));
    assert_eq!(lab.serving(), sha256(&second));

    // Until the file's own bytes change.
    lab.save(3);
    let status = lab.status();
    assert_eq!((&status["origin"], &status["config_drift"]), (&json!("file"), &json!(false)));
    assert_eq!(status["policies"][0]["overrides_file"], false);
    lab.gateway.restart();
    assert_eq!(lab.serving(), sha256(&variant("vendor-allowlist", 3)));
    assert_eq!(number(&lab.status()), number(&status));

    // The file's own bytes are no override.
    put(&lab, &second);
    let status = put(&lab, &variant("vendor-allowlist", 3)).json();
    assert_eq!((&status["origin"], &status["config_drift"]), (&json!("api"), &json!(false)));
}

#[test]
fn the_command_line_activates_lists_and_goes_back() {
    let lab = Lab::with_one_module();
    let first = lab.serving();
    fs::write(lab.modules.path().join("next.wasm"), variant("vendor-allowlist", 2)).unwrap();
    fs::write(lab.modules.path().join("settings.json"), r#"{"hosts": ["nobody.test"]}"#).unwrap();
    let path = |name: &str| lab.modules.path().join(name).to_str().unwrap().to_owned();
    let run = |args: &[&str]| {
        let output = lab.gateway.command(&[&["policy"], args, &["--admin", &lab.gateway.admin_url]].concat());
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout) + &text(&output.stderr))
    };
    let (code, said) = run(&["activate", "p", "--module", &path("next.wasm"), "--settings", &path("settings.json")]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("generation 2") && said.contains("origin api by alice"), "{said}");
    lab.is_refused(&lab.gateway.agent(), 403, "policy-denied");
    let (code, said) = run(&["rollback"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("generation 3") && said.contains("origin rollback of generation 1"), "{said}");
    lab.buy();
    assert_eq!(lab.serving(), first);
    let (code, said) = run(&["rollback", "--to", "7"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("there is no generation 7"), "{said}");
    let (code, said) = run(&["list"]);
    assert!(code == Some(0) && said.contains("generation 3") && said.contains("origin rollback"), "{said}");
    let (code, said) = run(&["generations"]);
    assert_eq!((code, said.lines().count()), (Some(0), 4), "{said}");
}

const BOB: &str = "test-operator-token-of-bob-0123456789abcdef";

/// What waits for another operator.
#[track_caller]
fn proposed(answer: &Response) -> Value {
    let problem = answer.json();
    assert_eq!((answer.status, problem["code"].as_str()), (202, Some("approval-required")), "{problem}");
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    problem["proposal"].clone()
}

#[test]
fn rule_18_a_quorum_activates_the_shadow_that_it_saw() {
    let lab = Lab::with_config(|config| {
        config.set(&["approvals", "policy-quorum"], 2).operator("bob", BOB, &["policy-admin"])
    });
    let (first, alice) = (lab.serving(), lab.gateway.operator());
    let bob = Client::new(&lab.gateway.admin_url, BOB);
    let start = |n| alice.request("POST", "/v1/policies/p/shadow").body(variant("vendor-allowlist", n)).send().status;
    let activate = |who: &Client| who.post("/v1/policies/p/shadow/activate", &json!({}));
    assert_eq!(start(2), 201);
    assert_eq!(proposed(&activate(&alice))["by"], json!(["alice"]));
    // Another candidate took its place meanwhile: the second word is for that one, and the first of it.
    assert_eq!(start(3), 201);
    let proposal = proposed(&activate(&bob));
    assert_eq!((&proposal["what"], &proposal["by"]), (&json!("shadow"), &json!(["bob"])), "{proposal}");
    assert_eq!(proposal["sha256"], sha256(&variant("vendor-allowlist", 3)));
    assert_eq!(lab.serving(), first);
    let answer = activate(&alice);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!((lab.serving(), &lab.status()["by"]), (sha256(&variant("vendor-allowlist", 3)), &json!("bob, alice")));
    assert_eq!(alice.get("/v1/policies/p/shadow").status, 404, "it serves, and shadows nothing");
}

#[test]
fn rule_18_with_a_quorum_no_operator_changes_policies_alone() {
    const ALIAS: &str = "test-operator-token-of-alias-0123456789abcdef";
    let lab = Lab::with_config(|config| {
        config
            .set(&["approvals", "policy-quorum"], 2)
            .operator("bob", BOB, &["policy-admin"])
            .operator("alias", ALIAS, &["policy-admin"])
            .set(&["operator", "alice", "users"], vec!["ann"])
            .set(&["operator", "alias", "users"], vec!["ann"])
    });
    let first = lab.serving();
    let second = variant("vendor-allowlist", 2);
    let put_as = |token: &str, module: &[u8]| {
        Client::new(&lab.gateway.admin_url, token).request("PUT", "/v1/policies/p/module").body(module).send()
    };
    let proposal = proposed(&put(&lab, &second));
    assert_eq!((&proposal["by"], &proposal["quorum"]), (&json!(["alice"]), &json!(2)), "{proposal}");
    assert_eq!((&proposal["policy"], &proposal["sha256"]), (&json!("p"), &json!(sha256(&second))), "{proposal}");
    // Neither twice nor under another name; and who wants something else has not seconded this.
    proposed(&put(&lab, &second));
    assert_eq!(proposed(&put_as(ALIAS, &second))["by"], json!(["alice"]));
    assert_eq!(proposed(&put_as(BOB, &variant("vendor-allowlist", 3)))["by"], json!(["bob"]));
    assert_eq!(lab.serving(), first);
    let listed = lab.gateway.operator().get("/v1/policies/proposals").json();
    assert_eq!(listed["items"].as_array().unwrap().len(), 2, "{listed}");

    let answer = put_as(BOB, &second);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!((lab.serving(), &lab.status()["by"]), (sha256(&second), &json!("alice, bob")));
    // What was proposed against what served before is over; going back takes two as well.
    assert_eq!(lab.gateway.operator().get("/v1/policies/proposals").json()["items"], json!([]));
    proposed(&back(&lab, None));
    let args = ["policy", "rollback", "--admin", &lab.gateway.admin_url];
    let said = lab.gateway.command(&args);
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.contains("nothing is changed until 1 more"), "{said}");
    assert_eq!(lab.serving(), sha256(&second));
    let bob = Client::new(&lab.gateway.admin_url, BOB);
    assert_eq!(bob.post("/v1/policies/rollback", &json!({})).status, 200);
    assert_eq!((lab.serving(), &lab.status()["by"]), (first, &json!("alice, bob")));

    assert_eq!(lab.gateway.operator().get("/v1/audit/checkpoint").status, 200);
    let records = lab.gateway.command(&["ledger", "export", "--format", "audit"]);
    let records = String::from_utf8_lossy(&records.stdout).into_owned();
    let count = |kind: &str| records.matches(&format!("\"{kind}\"")).count();
    assert_eq!((count("policies-proposed"), count("policies-proposal-lapsed")), (3, 1), "{records}");
    let refused = bob.get("/v1/policies/proposals");
    assert_eq!(refused.status, 403, "only viewers look: {}", refused.text());
}

#[test]
fn changing_policies_needs_the_role() {
    let token = "reload-test-token-of-an-onlooker-0123456789abcdef";
    let lab = Lab::with_config(|config| config.operator("olga", token, &["viewer", "approver", "suspender"]));
    let olga = Client::new(&lab.gateway.admin_url, token);
    let refused = [
        olga.request("PUT", "/v1/policies/p/module").body(variant("vendor-allowlist", 2)).send(),
        olga.post("/v1/policies/rollback", &json!({})),
    ];
    for answer in refused {
        assert_eq!((answer.status, answer.json()["code"].as_str()), (403, Some("forbidden")), "{}", answer.text());
    }
    assert_eq!(olga.get("/v1/policies/generations").status, 200);
    assert_eq!(lab.generation(), 1);
}

#[test]
fn rule_18_pinned_module_changes_only_through_the_file() {
    let mut lab = Lab::with_one_module();
    let bare = lab.gateway.config();
    let first = number(&lab.status());
    lab.save(2);
    let pinned = bare.clone().set(&["policy", "p", "sha256"], sha256(&variant("vendor-allowlist", 2)));
    lab.edit(pinned.clone());
    let before = lab.status();
    is_refused_at(&put(&lab, &variant("vendor-allowlist", 3)), 409, "pinned");
    is_refused_at(&back(&lab, Some(first)), 409, "pinned");
    is_refused_at(&back(&lab, None), 409, "pinned");
    let serves = |lab: &Lab| (lab.generation(), lab.serving());
    assert_eq!(serves(&lab), (number(&before), sha256(&variant("vendor-allowlist", 2))));
    // A pin counts as soon as it is written, whatever else is wrong with the file.
    lab.edit(bare.clone());
    let broken = pinned.set(&["policy", "p", "settings", "hosts"], 7);
    lab.gateway.write_config(broken);
    lab.until("refused", |status| !status["last_error"].is_null());
    is_refused_at(&put(&lab, &variant("vendor-allowlist", 3)), 409, "pinned");

    // Through the file it changes: the pin, then the module, in any order.
    lab.gateway.write_config(bare.set(&["policy", "p", "sha256"], sha256(&variant("vendor-allowlist", 4))));
    lab.until("refused", |status| status["last_error"]["stage"] == "digest");
    lab.save(4);
    lab.heals();
}

#[test]
fn rule_19_rollback_restores_modules_settings_and_mandates_only() {
    let mut lab =
        Lab::with_config(|config| config.agent("rival", RIVAL).agent("other", &RIVAL.replace("rival", "other")));
    let rival = lab.gateway.agent_with(RIVAL);
    let good = lab.gateway.config();
    lab.is_in(&rival);
    let first = lab.status();
    // The edit that will be regretted changes everything at once.
    let other = lab.modules.path().join("other.wasm");
    fs::write(&other, variant("vendor-allowlist", 2)).unwrap();
    let edit = good
        .clone()
        .remove(&["agent", "rival"])
        .set(&["policy", "p", "module"], other.to_str().unwrap())
        .set(&["policy", "p", "settings", "hosts"], vec!["nobody.test"])
        .set(&["policy", "p", "mode"], "monitor")
        .set(&["limits", "purchases-per-agent-per-minute"], 1_000)
        .set(&["budget", "all", "when"], toml::Table::new())
        .set(&["budget", "all", "per"], "lifetime")
        .set(&["budget", "all", "limit"], "0.002")
        .mandate(&["when", "agent"], "other")
        .mandate(&["name"], "regretted");
    lab.gateway.write_config(edit);
    let regretted = lab.until("edited", |status| status["policies"][0]["mode"] == "monitor");
    lab.is_out(&rival);
    lab.is_refused(&lab.gateway.agent(), 403, "no-mandate");
    assert_eq!(lab.gateway.operator().post("/v1/suspend", &json!({"vendor": "elsewhere.test"})).status, 200);

    let status = back(&lab, None).json();
    assert_eq!((&status["origin"], &status["config_drift"]), (&json!("rollback"), &json!(true)), "{status:#}");
    assert!(status["restores"].as_u64().unwrap() < number(&regretted), "{status:#}");
    for key in ["module_sha256", "settings_sha256", "mode"] {
        assert_eq!(status["policies"][0][key], first["policies"][0][key], "{key}");
    }
    let generations = lab.generations();
    assert_eq!(generations[0]["mandates"], generations.last().unwrap()["mandates"]);
    assert_eq!(lab.buy()["decision"]["policies"][0]["module_sha256"], first["policies"][0]["module_sha256"]);

    // Neither who was thrown out, nor a limit, nor a suspension comes back or goes.
    let stays = |lab: &Lab| {
        lab.is_refused(&lab.gateway.agent_with(RIVAL), 401, "unauthenticated");
        let suspended = lab.gateway.operator().get("/v1/suspend").json();
        assert_eq!(suspended["items"].as_array().unwrap().len(), 1, "{suspended}");
    };
    stays(&lab);
    lab.buy();
    lab.is_refused(&lab.gateway.agent(), 403, "budget-exceeded");

    // It sticks over a restart.
    lab.gateway.restart();
    let again = lab.status();
    assert_eq!((&again["origin"], &again["generation"]), (&json!("rollback"), &status["generation"]));
    stays(&lab);
    // What was gone back from can be gone to.
    let status = back(&lab, Some(number(&regretted))).json();
    assert_eq!(status["config_drift"], false, "it is what the files say: {status:#}");
    lab.is_refused(&lab.gateway.agent(), 403, "no-mandate");
    // The file's own change ends it for what changed, and for that only.
    assert_eq!(back(&lab, Some(number(&first))).status, 200);
    let third = variant("vendor-allowlist", 3);
    rename_over(&other, &third);
    let status = lab.until("saved", |status| status["policies"][0]["module_sha256"] == sha256(&third).as_str());
    assert_eq!(status["policies"][0]["settings_sha256"], regretted["policies"][0]["settings_sha256"]);
    let generations = lab.generations();
    assert_eq!(generations[0]["mandates"], generations.last().unwrap()["mandates"]);
    assert_eq!(status["config_drift"], true);
}

#[test]
fn going_back_twice_goes_further_back() {
    let lab = Lab::with_one_module();
    lab.save(2);
    lab.save(3);
    let digests = [3, 2, 1].map(|n| sha256(&variant("vendor-allowlist", n)));
    for digest in &digests {
        assert_eq!(&lab.serving(), digest);
        let answer = back(&lab, None);
        if digest == &digests[2] {
            is_refused_at(&answer, 404, "not-found");
        } else {
            assert_eq!(answer.status, 200, "{}", answer.text());
        }
    }
    // And forward again, by number.
    assert_eq!(back(&lab, Some(3)).status, 200);
    assert_eq!(lab.serving(), digests[0]);
    assert_eq!(lab.status()["config_drift"], false);
    let origins: Vec<_> = lab.generations().iter().map(|g| (number(g), g["restores"].as_u64())).collect();
    assert_eq!(origins, [(6, Some(3)), (5, Some(1)), (4, Some(2)), (3, None), (2, None), (1, None)]);
}

/// The file is broken, people are waiting: going back works, and holds until the file says something new.
#[test]
fn going_back_works_while_the_files_are_broken() {
    let mut lab = Lab::with_one_module();
    lab.save(2);
    rename_over(&lab.file(), GARBAGE);
    lab.until("refused", |status| !status["last_error"].is_null());
    assert_eq!(back(&lab, None).status, 200);
    let first = sha256(&variant("vendor-allowlist", 1));
    assert_eq!(lab.serving(), first);
    // The broken file is what it stands in for: it is not even tried at the next start.
    lab.gateway.restart();
    let status = lab.status();
    assert_eq!((&status["origin"], &status["last_error"]), (&json!("rollback"), &Value::Null), "{status:#}");
    assert_eq!(lab.serving(), first);
    lab.save(2);
}

#[test]
fn what_the_store_cannot_count_and_settings_a_file_could_not_have_are_the_callers_mistake() {
    let lab = Lab::with_one_module();
    let operator = lab.gateway.operator();
    let rollback = operator.post("/v1/policies/rollback", &json!({"to": 1_u64 << 63}));
    assert_eq!(rollback.status, 404, "{}", rollback.text());
    let listed = operator.get(&format!("/v1/policies/generations?before={}", 1_u64 << 63));
    assert_eq!(listed.status, 400, "{}", listed.text());
    let shadow = operator.post(
        "/v1/policies/p/shadow",
        &json!({"module": "builtin:vendor-allowlist", "settings": {"hosts": [], "limit": 1.5}}),
    );
    assert_eq!(shadow.status, 400, "{}", shadow.text());
    assert!(shadow.text().contains("settings.limit"), "{}", shadow.text());
}
