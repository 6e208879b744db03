//! Edits of the files: taken whole or not at all.

use std::fs;

use super::*;

#[test]
fn a_module_is_replaced_by_rename_and_in_place() {
    let lab = Lab::with_one_module();
    for number in 2..5 {
        let new = variant("vendor-allowlist", number);
        takes_over(&lab, "rename", &new, || rename_over(&lab.file(), &new));
    }
    for number in 5..8 {
        let new = variant("vendor-allowlist", number);
        takes_over(&lab, "in place", &new, || fs::write(lab.file(), &new).unwrap());
    }
    // Back to one that served before.
    let first = variant("vendor-allowlist", 1);
    takes_over(&lab, "rename, compiled before", &first, || rename_over(&lab.file(), &first));
}

/// As a ConfigMap is mounted: the file is a link through a link, and the inner one is swapped.
#[test]
fn a_module_is_replaced_by_a_swapped_link() {
    let publish = |modules: &Path, number: u32| {
        let folder = format!("..release-{number}");
        fs::create_dir(modules.join(&folder)).unwrap();
        fs::write(modules.join(&folder).join("p.wasm"), variant("vendor-allowlist", number)).unwrap();
        symlink(folder, modules.join("..data.next")).unwrap();
        fs::rename(modules.join("..data.next"), modules.join("..data")).unwrap();
    };
    let lab = Lab::start(|modules| {
        publish(modules, 1);
        symlink("..data/p.wasm", modules.join("p.wasm")).unwrap();
        vec![allowlist(&modules.join("p.wasm"))]
    });
    for number in 2..5 {
        let new = variant("vendor-allowlist", number);
        takes_over(&lab, "link", &new, || publish(lab.modules.path(), number));
        fs::remove_dir_all(lab.modules.path().join(format!("..release-{}", number - 1))).unwrap();
    }
}

#[test]
fn a_broken_module_leaves_the_last_good_one_serving() {
    let lab = Lab::with_one_module();
    let before = lab.status();
    let good = variant("vendor-allowlist", 1);

    rename_over(&lab.file(), GARBAGE);
    lab.last_good_serves(&before, "p", &[]);
    rename_over(&lab.file(), &good);
    lab.heals();

    // A program, but not a policy.
    let before = lab.status();
    rename_over(&lab.file(), b"\0asm\x01\0\0\0");
    lab.last_good_serves(&before, "p", &[]);

    // Half written, by somebody who takes his time; then whole.
    let new = variant("vendor-allowlist", 2);
    fs::write(lab.file(), &new[..new.len() / 2]).unwrap();
    thread::sleep(SETTLED);
    lab.last_good_serves(&before, "p", &[]);
    takes_over(&lab, "the other half", &new, || fs::write(lab.file(), &new).unwrap());

    // Empty, then gone, then back.
    let before = lab.status();
    fs::write(lab.file(), b"").unwrap();
    lab.last_good_serves(&before, "p", &[]);
    fs::remove_file(lab.file()).unwrap();
    lab.until("missed", |status| status["last_error"]["message"].as_str().is_some_and(|m| m.contains("p.wasm")));
    lab.last_good_serves(&before, "p", &["p.wasm"]);
    fs::write(lab.file(), &new).unwrap();
    lab.heals();
}

/// At the first start there is no last good one: what is broken denies, and says so, until it is repaired.
#[test]
fn a_broken_policy_at_the_first_start_denies_until_it_is_repaired() {
    for broken in [GARBAGE, b"", b"\0asm\x01\0\0\0"] {
        let lab = Lab::start(|modules| {
            fs::write(modules.join("p.wasm"), broken).unwrap();
            vec![allowlist(&modules.join("p.wasm"))]
        });
        let status = lab.status();
        assert_eq!(status["policies"][0]["name"], "p", "{status:#}");
        assert_eq!(status["policies"][0]["state"], "invalid", "{status:#}");
        assert_eq!(status["last_error"]["policy"], "p", "{status:#}");
        assert!(!status["last_error"]["stage"].as_str().unwrap().is_empty());
        assert!(!status["last_error"]["message"].as_str().unwrap().is_empty());
        let problem = lab.is_refused(&lab.gateway.agent(), 403, "policy-denied");
        assert_eq!(problem["reasons"][0]["code"], "policy-unavailable", "{problem}");
        assert_eq!(problem["policy"], "p", "{problem}");

        rename_over(&lab.file(), &variant("vendor-allowlist", 1));
        lab.until("repaired", |status| status["policies"][0]["state"] == "active");
        lab.heals();
    }
}

/// A path that leads nowhere is a mistake in the configuration, and is told before anything starts.
#[test]
fn a_missing_module_at_the_first_start_is_told_at_once() {
    let (status, said) = Gateway::refused(Config::new([allowlist(Path::new("nowhere/p.wasm"))]));
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("policy.p.module") && said.contains("nowhere/p.wasm"), "{said}");
}

/// One good and one broken edit in one file are one edit.
#[test]
fn an_edit_is_taken_whole_or_not_at_all() {
    let mut lab = Lab::with_one_module();
    let good = lab.gateway.config();
    let good_module = variant("vendor-allowlist", 1);
    // A new agent rides on every edit: it must not get in unless the edit does.
    let newcomer = "reload-test-token-of-a-newcomer-0123456789abcdef";
    let edits: [(&str, &str, &[&str], Edit); 6] = [
        ("wrong pin", "p", &[], |config| config.set(&["policy", "p", "sha256"], "ab".repeat(32))),
        ("settings of the wrong type", "p", &["hosts"], |config| config.set(&["policy", "p", "settings", "hosts"], 7)),
        ("settings the module refuses", "p", &["hots"], |config| {
            config.set(&["policy", "p", "settings", "hots"], vec!["127.0.0.1:*"])
        }),
        ("a second policy without a file", "q", &["nothing.wasm"], |config| {
            config.policy(Policy::new("q", "nothing.wasm"))
        }),
        ("an unknown key", "", &["unresolved-per-sellr", "unresolved-per-seller"], |config| {
            config.set(&["limits", "unresolved-per-sellr"], 3)
        }),
        ("a mandate with a policy there is not", "", &["nobody"], |config| {
            config.mandate(&["policies"], vec!["p", "nobody"])
        }),
    ];
    for (what, policy, words, edit) in edits {
        println!("{what}");
        let before = lab.status();
        lab.gateway.write_config(edit(good.clone()).agent("newcomer", newcomer));
        let status = lab.last_good_serves(&before, policy, words);
        if policy.is_empty() {
            assert_eq!(status["last_error"]["stage"], "config", "{what}");
        }
        lab.is_refused(&lab.gateway.agent_with(newcomer), 401, "unauthenticated");
        lab.gateway.write_config(good.clone());
        lab.heals();
    }
    // The right pin is no edit of behaviour, and is taken.
    lab.gateway
        .write_config(good.clone().set(&["policy", "p", "sha256"], sha256(&good_module)).agent("newcomer", newcomer));
    let arrives = || Some(lab.ask(&lab.gateway.agent_with(newcomer))).filter(|answer| answer.status == 200);
    assert!(wait_for(SOON, arrives).is_some(), "{:#}", lab.status());
    // And holds: a module that does not match it never serves.
    let before = lab.status();
    rename_over(&lab.file(), &variant("vendor-allowlist", 2));
    lab.last_good_serves(&before, "p", &[]);
    // Not TOML at all.
    rename_over(&lab.file(), &good_module);
    lab.heals();
    let before = lab.status();
    fs::write(lab.gateway.dir().join("countersign.toml"), "[gateway\nlisten = ").unwrap();
    lab.last_good_serves(&before, "", &[]);
    lab.gateway.write_config(good);
    lab.heals();
}

#[test]
fn what_cannot_change_while_running_needs_a_restart() {
    let mut lab = Lab::with_one_module();
    let good = lab.gateway.config();
    let newcomer = "reload-test-token-of-a-newcomer-0123456789abcdef";
    let edits: [(&str, Edit); 5] = [
        ("wallet.research.daily-limit", |config| config.set(&["wallet", "research", "daily-limit"], "2000.00")),
        ("wallet.research.networks", |config| {
            config.set(&["wallet", "research", "networks"], vec!["eip155:84532", "eip155:8453"])
        }),
        ("gateway.listen", |config| config.set(&["gateway", "listen"], "127.0.0.1:1")),
        ("gateway.currency", |config| config.set(&["gateway", "currency"], "EUR")),
        ("ledger.url", |config| config.set(&["ledger", "url"], "sqlite:other.db")),
    ];
    for (key, edit) in edits {
        let before = lab.status();
        lab.gateway.write_config(edit(good.clone()).agent("newcomer", newcomer));
        let status = lab.last_good_serves(&before, "", &[key]);
        assert_eq!(status["last_error"]["stage"], "needs-restart", "{key}");
        lab.is_refused(&lab.gateway.agent_with(newcomer), 401, "unauthenticated");
        lab.gateway.write_config(good.clone());
        lab.heals();
    }
    // After a restart it is what the file says.
    lab.gateway.write_config(good.set(&["wallet", "research", "daily-limit"], "2000.00").agent("newcomer", newcomer));
    lab.gateway.restart();
    assert_eq!(lab.ask(&lab.gateway.agent_with(newcomer)).status, 200);
    assert!(lab.status()["last_error"].is_null());
}

#[test]
fn agents_mandates_and_limits_change_while_it_runs() {
    let mut lab = Lab::with_one_module();
    let newcomer = "reload-test-token-of-a-newcomer-0123456789abcdef";
    let pid = lab.gateway.pid();
    let good = lab.gateway.config();
    let agent = lab.gateway.agent_with(newcomer);
    lab.is_refused(&agent, 401, "unauthenticated");

    // Comes, and goes.
    let with_newcomer = good.clone().agent("newcomer", newcomer);
    lab.gateway.write_config(with_newcomer.clone());
    let after = |status: u16, agent: &Client| wait_for(SOON, || Some(lab.ask(agent)).filter(|a| a.status == status));
    let bought = after(200, &agent).expect("the newcomer is let in");
    assert_eq!(agent.payment(bought.header("countersign-payment").unwrap())["agent"], "newcomer");
    lab.gateway.write_config(good.clone());
    let after = |status: u16, agent: &Client| wait_for(SOON, || Some(lab.ask(agent)).filter(|a| a.status == status));
    assert!(after(401, &agent).is_some(), "the newcomer is thrown out");
    lab.buy();

    // The mandate no longer covers it.
    lab.gateway.write_config(good.clone().mandate(&["when", "workspace"], "elsewhere"));
    let scout = lab.gateway.agent();
    let refused = wait_for(SOON, || Some(lab.ask(&scout)).filter(|answer| answer.status != 200)).expect("refused");
    assert_eq!((refused.status, refused.json()["code"].as_str()), (403, Some("no-mandate")), "{}", refused.text());
    lab.gateway.write_config(good.clone().mandate(&["when", "workspace"], "research"));
    assert!(wait_for(SOON, || Some(lab.ask(&scout)).filter(|answer| answer.status == 200)).is_some());
    lab.gateway.write_config(good.clone().mandate(&["doors"], vec!["mcp"]));
    let refused = wait_for(SOON, || Some(lab.ask(&scout)).filter(|answer| answer.status != 200)).expect("refused");
    assert_eq!((refused.status, refused.json()["code"].as_str()), (403, Some("no-mandate")), "{}", refused.text());

    // A budget appears with the money that was spent before it counted for nothing, and runs out.
    let budget = good
        .clone()
        .set(&["budget", "all", "when"], toml::Table::new())
        .set(&["budget", "all", "per"], "month")
        .set(&["budget", "all", "limit"], "0.003");
    lab.gateway.write_config(budget.clone());
    let refused = wait_for(SOON, || {
        Some(lab.ask(&scout)).filter(|answer| answer.status != 200 && answer.json()["code"] != "no-mandate")
    });
    let refused = refused.expect("the budget runs out").json();
    assert_eq!(refused["code"], "budget-exceeded", "{refused}");
    // Raised: it goes on, with what was spent still spent.
    lab.gateway.write_config(budget.set(&["budget", "all", "limit"], "0.005"));
    let mut bought = 0;
    let end = wait_for(SOON, || {
        let answer = lab.ask(&scout);
        bought += u32::from(answer.status == 200);
        (bought > 0 && answer.status != 200).then_some(answer)
    });
    assert_eq!(end.expect("runs out again").json()["code"], "budget-exceeded");
    assert_eq!(bought, 2);
    assert_eq!(lab.gateway.pid(), pid);
    assert!(lab.gateway.is_ready());
}

/// Between reading the configuration and watching it nothing may fall through.
#[test]
fn an_edit_made_while_it_starts_is_seen() {
    let mut lab = Lab::with_one_module();
    let good = lab.gateway.config();
    for (round, wait) in [0, 20, 50, 100, 200, 400, 700, 1000, 1500].into_iter().enumerate() {
        let token = format!("reload-test-token-of-number-{round}-0123456789abcdef0123");
        lab.gateway.spawn_again();
        thread::sleep(Duration::from_millis(wait));
        lab.gateway.write_config(good.clone().agent("newcomer", &token));
        assert!(wait_for(SOON, || lab.gateway.is_ready().then_some(())).is_some(), "not ready");
        let agent = lab.gateway.agent_with(&token);
        let ready = Instant::now();
        let let_in = wait_for(SOON, || Some(lab.ask(&agent)).filter(|answer| answer.status == 200));
        assert!(let_in.is_some(), "an edit {wait} ms after the start is not seen: {:#}", lab.status());
        println!("{wait} ms after the start: in force {} ms after it was ready", ready.elapsed().as_millis());
    }
}

/// As deployments do it: the whole folder is swapped. Later edits in the new one are seen as in the old one.
#[test]
fn a_replaced_folder_is_watched_again() {
    let publish = |modules: &Path, number: u32| {
        let next = modules.join("next");
        fs::create_dir(&next).unwrap();
        fs::write(next.join("p.wasm"), variant("vendor-allowlist", number)).unwrap();
        if modules.join("live").exists() {
            fs::rename(modules.join("live"), modules.join(format!("before-{number}"))).unwrap();
        }
        fs::rename(next, modules.join("live")).unwrap();
    };
    let lab = Lab::start(|modules| {
        publish(modules, 1);
        vec![allowlist(&modules.join("live/p.wasm"))]
    });
    let second = variant("vendor-allowlist", 2);
    takes_over(&lab, "another folder", &second, || publish(lab.modules.path(), 2));
    let third = variant("vendor-allowlist", 3);
    takes_over(&lab, "rename in it", &third, || rename_over(&lab.modules.path().join("live/p.wasm"), &third));
}

/// Taking away is never held up by an unrelated mistake in the same file.
#[test]
fn a_removed_agent_is_out_even_if_the_edit_is_refused() {
    let removed = "reload-test-token-of-somebody-0123456789abcdef012";
    let edits: [(&str, Edit); 3] = [
        ("a wallet", |config| config.set(&["wallet", "research", "daily-limit"], "2000.00")),
        ("settings", |config| config.set(&["policy", "p", "settings", "hosts"], 7)),
        ("a pin", |config| config.set(&["policy", "p", "sha256"], "ab".repeat(32))),
    ];
    let mut lab = Lab::with_one_module();
    let good = lab.gateway.config();
    for (what, edit) in edits {
        lab.gateway.write_config(good.clone().agent("somebody", removed));
        let agent = lab.gateway.agent_with(removed);
        assert!(wait_for(SOON, || Some(lab.ask(&agent)).filter(|a| a.status == 200)).is_some(), "{what}");
        lab.gateway.write_config(edit(good.clone()));
        assert!(wait_for(SOON, || Some(lab.ask(&agent)).filter(|a| a.status == 401)).is_some(), "{what}: still in");
        // The others go on, and the mistake is told.
        lab.buy();
        let status = lab.until("told", |status| !status["last_error"].is_null());
        assert!(!status["last_error"]["stage"].as_str().unwrap().is_empty(), "{what}");
        lab.gateway.write_config(good.clone());
        lab.heals();
    }
}
