//! The harness looks through everything that a gateway wrote when its life ends. Here it has something to find.

use super::*;
use countersign_tests::config::SCOUT_TOKEN;
use std::{fs::OpenOptions, io::Write as _, panic};

/// What the end of a gateway says whose log has this line in it.
fn end_with(line: &str) -> Option<String> {
    let gateway = Gateway::start(Config::new(plain()).env("SOME_KEY", "a canary that nobody may hear sing"));
    let mut log = OpenOptions::new().append(true).open(gateway.dir().join("gateway.log")).unwrap();
    writeln!(log, "{line}").unwrap();
    let ended = panic::catch_unwind(panic::AssertUnwindSafe(|| drop(gateway)));
    ended.err().map(|why| why.downcast_ref::<String>().cloned().unwrap_or_default())
}

#[test]
fn no_gateway_under_test_ends_well_with_a_secret_in_its_log() {
    let signature = format!("0x{}1b", "5a".repeat(64));
    let signed = STANDARD.encode(format!(r#"{{"x402Version":2,"payload":{{"signature":"{signature}"}}}}"#));
    let line = encoded(&json!({"x402Version": 2})).replace('=', "");
    for secret in [SCOUT_TOKEN, "A CANARY that nobody may hear sing", &signed] {
        let why = end_with(&format!("{{\"what\":\"{secret}\"}}"));
        assert!(why.as_ref().is_some_and(|why| why.contains("is in the gateway's log")), "{secret}: {why:?}");
    }
    assert_eq!(end_with(&format!("only the beginning of terms: {line}")), None);
}
