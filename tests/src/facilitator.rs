//! The test controls of the facilitator.

use crate::http;
use serde_json::{Value, json};

/// The facilitator at a base URL.
#[derive(Debug, Clone)]
pub struct Facilitator {
    base: String,
}

/// A fault in force; dropping it clears all faults.
#[derive(Debug)]
#[must_use = "the fault ends when this is dropped"]
pub struct Fault<'a>(&'a Facilitator);

impl Facilitator {
    /// The facilitator at a base URL.
    pub fn new(base: &str) -> Self {
        Self { base: base.to_owned() }
    }

    /// Makes it misbehave for everybody until the guard is dropped, so not on a set of peers that other tests share.
    /// Keys: `verifyDelayMs`, `settleDelayMs` (milliseconds), `failVerify`, `failSettle` (the reason it will give),
    /// `dropSettleReply` (settle, then hang up), `skipSettle` (claim success, settle nothing).
    pub fn fault(&self, fault: &Value) -> Fault<'_> {
        let answer = http::post(&format!("{}/_fault", self.base), fault).send();
        assert_eq!(answer.status, 200, "{}", answer.text());
        Fault(self)
    }

    /// Every call so far, oldest first: `{"at","op":"verify|settle","paymentPayload","paymentRequirements"}` and
    /// `result` or `error`.
    pub fn log(&self) -> Vec<Value> {
        match http::get(&format!("{}/_log", self.base)).send().json() {
            Value::Array(entries) => entries,
            other => panic!("no log: {other}"),
        }
    }

    /// The calls of one kind (`verify` or `settle`).
    pub fn calls(&self, op: &str) -> Vec<Value> {
        self.log().into_iter().filter(|entry| entry.get("op").and_then(Value::as_str) == Some(op)).collect()
    }

    /// Forgets the log.
    pub fn clear_log(&self) {
        http::Request::new("DELETE", &format!("{}/_log", self.base)).send();
    }
}

impl Drop for Fault<'_> {
    fn drop(&mut self) {
        // Not worth a second panic: the facilitator may be gone with its peers.
        let _cleared = http::post(&format!("{}/_fault", self.0.base), &json!({})).try_send();
    }
}
