//! Many agents at once, for a little: what `crowd` measures for long.

use countersign_tests::process::binary;
use serde_json::{Value, json};
use std::process::Command;

#[test]
fn a_crowd_is_served_turned_away_and_drained_without_a_loss() {
    let crowd = binary().with_file_name("crowd");
    let output = Command::new(crowd).args(["300", "20"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let result: Value = serde_json::from_slice(&output.stdout).unwrap();
    let steady = &result["steady"];
    assert_eq!(
        (&steady["wrong"], &steady["lost"], &steady["ended"]),
        (&json!({}), &json!(0), &json!("exit status: 0")),
        "{result:#}"
    );
    assert_eq!(steady["all_resolved_in_five_minutes"], json!(true), "{result:#}");
    assert_eq!(steady["settled_in_the_ledger"], steady["redeemed_on_the_chain"], "{result:#}");
    // An answer of the slow seller takes four minutes: all of those are cut off, and what they bought is bought.
    assert!(steady["broken_off_while_stopping"].as_u64() > Some(0), "{result:#}");
    for kind in ["paid", "free", "denied"] {
        assert!(steady["calls"][kind]["calls"].as_u64() > Some(0), "nobody came for `{kind}`: {result:#}");
    }
    assert!(steady["acknowledged"].as_u64() > Some(0), "{result:#}");
    // As many as fit, and more than fit: nobody is told anything else than to come back.
    let beyond = result["beyond"].as_array().unwrap();
    assert!(
        beyond.iter().all(|run| run["wrong"] == json!({}) && run["paid_per_second"].as_f64() > Some(0.0)),
        "{result:#}"
    );
    assert_eq!(beyond[0]["turned_away"], json!(0), "{result:#}");
    assert!(beyond[1]["turned_away"].as_u64() > Some(0), "{result:#}");
}
