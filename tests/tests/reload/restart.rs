//! What a restart keeps: numbers, the last good generation, and nothing weaker.

use std::process::Command;

use super::*;

#[test]
fn generations_are_counted_over_restarts() {
    let mut lab = Lab::with_one_module();
    assert_eq!(lab.generation(), 1);
    let second = lab.save(2);
    let since = lab.status()["activated_at"].clone();
    // Nothing changed: it goes on.
    lab.gateway.restart();
    assert_eq!((lab.generation(), &lab.status()["activated_at"]), (second, &since));
    assert_eq!(lab.buy()["decision"]["generation"], second);
    // Changed while it was down: the next one.
    lab.gateway.kill();
    fs::write(lab.file(), variant("vendor-allowlist", 3)).unwrap();
    lab.gateway.restart();
    assert_eq!(lab.generation(), second + 1);
    lab.gateway.kill();
    lab.gateway.write_config(lab.gateway.config().agent("rival", RIVAL));
    lab.gateway.restart();
    assert_eq!(lab.generation(), second + 2);
    assert_eq!(lab.save(4), second + 3);
    let numbers: Vec<_> = lab.generations().iter().map(number).collect();
    assert_eq!(numbers, [5, 4, 3, 2, 1]);
    assert!(lab.generations().iter().all(|g| g["origin"] == "file" && g["whole"] == true));
}

/// Each of these would refuse a first start or deny at one; with a last good generation neither happens.
#[test]
fn the_last_good_generation_survives_a_restart() {
    type Breakage = fn(&Lab);
    let mut lab = Lab::with_config(|config| config.agent("rival", RIVAL));
    let good = lab.gateway.config();
    let module = variant("vendor-allowlist", 1);
    let breakages: [(&str, Breakage); 2] = [
        ("deleted", |lab| {
            fs::remove_file(lab.file()).unwrap();
        }),
        ("garbage", |lab| {
            fs::write(lab.file(), GARBAGE).unwrap();
        }),
    ];
    let mut last = lab.generation();
    for (what, breakage) in breakages {
        println!("{what}");
        lab.gateway.kill();
        breakage(&lab);
        lab.gateway.restart();
        let status = lab.status();
        assert_eq!((&status["origin"], &status["config_drift"]), (&json!("restart"), &json!(true)), "{status:#}");
        assert_eq!(status["last_error"]["policy"], "p", "{status:#}");
        assert!(!status["last_error"]["message"].as_str().unwrap().is_empty());
        assert_eq!(status["policies"].as_array().unwrap().len(), 1, "{status:#}");
        assert_eq!(status["policies"][0]["module_sha256"], sha256(&module));
        assert_eq!(status["policies"][0]["state"], "active");
        assert_eq!(number(&status), last + 1, "{status:#}");
        assert_eq!(lab.buy()["decision"]["generation"], status["generation"]);
        // Again: the same, once.
        lab.gateway.restart();
        assert_eq!(number(&lab.status()), last + 1);
        assert_eq!(lab.status()["origin"], "restart");

        // Put right while it runs.
        rename_over(&lab.file(), &module);
        lab.gateway.write_config(good.clone());
        let status = lab.until("healed", |status| status["last_error"].is_null() && status["origin"] == "file");
        assert_eq!(status["config_drift"], false);
        lab.is_in(&lab.gateway.agent_with(RIVAL));
        last = lab.generation();
    }
}

/// The last good policies never serve together with what an edit lets in: half of an edit is no edit.
#[test]
fn an_edited_configuration_with_a_broken_module_denies_at_a_restart() {
    const NEWCOMER: &str = "reload-test-token-of-a-newcomer-0123456789abcdef012345";
    type Breakage = fn(&Lab) -> Config;
    let breakages: [(&str, Breakage); 3] = [
        ("deleted", |lab| {
            fs::remove_file(lab.file()).unwrap();
            lab.gateway.config()
        }),
        ("settings", |lab| lab.gateway.config().set(&["policy", "p", "settings", "hosts"], 7)),
        ("pin", |lab| lab.gateway.config().set(&["policy", "p", "sha256"], "ab".repeat(32))),
    ];
    for (what, breakage) in breakages {
        println!("{what}");
        let mut lab = Lab::with_config(|config| config.agent("rival", RIVAL));
        let good = lab.gateway.config();
        lab.buy();
        lab.gateway.kill();
        let broken = breakage(&lab);
        lab.gateway.write_config(broken.remove(&["agent", "rival"]).agent("newcomer", NEWCOMER));
        lab.gateway.restart();
        let status = lab.status();
        assert_eq!(status["last_error"]["policy"], "p", "{status:#}");
        assert_eq!(status["policies"][0]["state"], "invalid", "{status:#}");
        lab.is_refused(&lab.gateway.agent_with(NEWCOMER), 403, "policy-denied");
        lab.is_refused(&lab.gateway.agent_with(RIVAL), 401, "unauthenticated");
        // Put right while it runs.
        rename_over(&lab.file(), &variant("vendor-allowlist", 1));
        lab.gateway.write_config(good);
        lab.until("healed", |status| status["last_error"].is_null());
        lab.is_in(&lab.gateway.agent_with(RIVAL));
    }
}

/// The configuration is not a policy: if that cannot be read, nothing starts.
#[test]
fn a_configuration_that_does_not_parse_does_not_start() {
    let mut lab = Lab::with_one_module();
    lab.gateway.kill();
    fs::write(lab.gateway.dir().join("countersign.toml"), "[gateway\nlisten = ").unwrap();
    lab.gateway.spawn_again();
    let ended = wait_for(SOON, || lab.gateway.log().contains("countersign.toml:").then_some(()));
    assert!(ended.is_some(), "{}", lab.gateway.log());
    assert!(!lab.gateway.is_ready());
}

/// Runs SQL on the gateway's ledger, beside the gateway.
fn sql(lab: &Lab, statement: &str) {
    let script =
        "import sqlite3, sys\nc = sqlite3.connect(sys.argv[1], timeout=20)\nc.executescript(sys.argv[2])\nc.close()";
    let ledger = lab.gateway.dir().join("countersign.db");
    let output =
        Command::new("python3").args(["-c", script]).arg(ledger).arg(statement).output().expect("Python 3 is needed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn what_cannot_be_written_down_does_not_serve() {
    let mut lab = Lab::with_config(|config| config.agent("rival", RIVAL));
    let rival = lab.gateway.agent_with(RIVAL);
    lab.is_in(&rival);
    let before = lab.status();
    sql(&lab, "CREATE TRIGGER no BEFORE INSERT ON generation BEGIN SELECT RAISE(ABORT,'not today'); END;");
    let operator = lab.gateway.operator();
    let put = operator.request("PUT", "/v1/policies/p/module").body(variant("vendor-allowlist", 2)).send();
    assert_eq!((put.status, put.json()["code"].as_str()), (503, Some("ledger-unavailable")), "{}", put.text());
    rename_over(&lab.file(), &variant("vendor-allowlist", 2));
    let status = lab.last_good_serves(&before, "", &["not today"]);
    assert_eq!(status["last_error"]["stage"], "record");
    // Taking away does not wait for the store.
    lab.gateway.write_config(lab.gateway.config().remove(&["agent", "rival"]));
    lab.is_out(&rival);
    assert_eq!(lab.generation(), number(&before));
    lab.buy();

    sql(&lab, "DROP TRIGGER no;");
    rename_over(&lab.file(), &variant("vendor-allowlist", 2));
    let status = lab.until("written down", |status| status["last_error"].is_null());
    assert_eq!(lab.serving(), sha256(&variant("vendor-allowlist", 2)));
    assert_eq!(status["policies"][0]["state"], "active");
    assert!(number(&status) > number(&before));
    lab.is_refused(&rival, 401, "unauthenticated");
}
