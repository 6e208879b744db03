//! What an edit takes away holds at once, however long the rest of it takes.

use countersign_tests::modules::slow_variant;

use super::*;

/// Compiling this takes far longer than reading a file.
const SLOW: u32 = 8_000;

#[test]
fn rule_19_what_an_edit_takes_away_does_not_wait_for_a_compiler() {
    let other = RIVAL.replace("rival", "other");
    let mut lab = Lab::with_config(|config| config.agent("rival", RIVAL).agent("other", &other));
    let (rival, other) = (lab.gateway.agent_with(RIVAL), lab.gateway.agent_with(&other));
    lab.is_in(&rival);
    lab.is_in(&other);
    let old = lab.serving();
    let before = lab.generation();
    // One edit brings a module that takes long to compile, and throws an agent out.
    rename_over(&lab.file(), &slow_variant("vendor-allowlist", SLOW));
    lab.gateway.write_config(lab.gateway.config().remove(&["agent", "rival"]));
    let saved = Instant::now();
    lab.is_out(&rival);
    println!("out {} ms after saving", saved.elapsed().as_millis());
    assert_eq!(lab.serving(), old, "the module compiled too fast for this test");
    assert!(lab.generation() > before);
    assert_eq!(lab.buy()["decision"]["generation"], lab.generation(), "the same policies, the next generation");
    // A second edit while the first is being compiled throws another one out, and supersedes it.
    let edit = lab.gateway.config().remove(&["agent", "other"]).set(&["limits", "purchases-per-agent-per-minute"], 500);
    lab.gateway.write_config(edit);
    lab.is_out(&other);
    assert_eq!(lab.serving(), old, "the module compiled too fast for this test");
    lab.buy();
    // The module comes, and brings nobody back.
    let slow = sha256(&slow_variant("vendor-allowlist", SLOW));
    let came = wait_for(Duration::from_secs(120), || (lab.serving() == slow).then_some(()));
    assert!(came.is_some(), "{:#}", lab.status());
    println!("serving {} ms after saving", saved.elapsed().as_millis());
    lab.is_refused(&rival, 401, "unauthenticated");
    lab.is_refused(&other, 401, "unauthenticated");
    lab.buy();
}

/// A module is read once into memory; what was checked is what runs.
#[test]
fn rule_21_what_was_checked_is_what_runs() {
    let mut lab = Lab::with_config(|config| config.agent("rival", RIVAL));
    let rival = lab.gateway.agent_with(RIVAL);
    lab.is_in(&rival);
    let old = lab.serving();
    let slow = slow_variant("vendor-allowlist", SLOW + 1);
    rename_over(&lab.file(), &slow);
    let pinned = lab.gateway.config().set(&["policy", "p", "sha256"], sha256(&slow)).remove(&["agent", "rival"]);
    lab.gateway.write_config(pinned);
    // It has been read and checked against its pin once the agent is out; now it is compiled.
    lab.is_out(&rival);
    assert_eq!(lab.serving(), old, "the module compiled too fast for this test");
    let swapped = variant("vendor-allowlist", 9);
    rename_over(&lab.file(), &swapped);
    let status = lab.until("refused", |status| status["last_error"]["stage"] == "digest");
    assert_eq!(status["policies"][0]["module_sha256"], old);
    rename_over(&lab.file(), &slow);
    let came = wait_for(Duration::from_secs(120), || (lab.serving() == sha256(&slow)).then_some(()));
    assert!(came.is_some(), "{:#}", lab.status());
    let served: Vec<_> = lab.generations().iter().map(|g| g["policies"][0]["module_sha256"].clone()).collect();
    assert!(!served.contains(&json!(sha256(&swapped))), "{served:?}");
}
