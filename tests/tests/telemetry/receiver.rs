//! `tests/peers/telemetry/receiver.py`, and what it has seen. The tests of approvals have this file too.

use countersign_tests::{http, wait_for};
use serde_json::{Value, json};
use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use super::SOON;

/// What webhooks are signed with: 32 bytes.
pub(crate) const SECRET: &str = "whsec_c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LTMyYg==";

/// A running receiver; it ends with its standard input.
pub(crate) struct Receiver {
    child: Child,
    /// Its base URL.
    pub(crate) url: String,
}

/// A file beside the receiver.
pub(crate) fn tool(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/telemetry").join(name);
    assert!(path.exists(), "{} is not installed: run `make test`", path.display());
    path
}

impl Receiver {
    pub(crate) fn start() -> Self {
        let mut child = Command::new(tool(".tools/bin/python"))
            .arg(tool("receiver.py"))
            .env("SECRET", SECRET)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("the receiver said {line:?}: {e}"));
        Self { child, url: ready["url"].as_str().unwrap().to_owned() }
    }

    /// Everything it has taken; panics if it had to refuse something.
    #[track_caller]
    pub(crate) fn seen(&self) -> Value {
        let seen = http::get(&format!("{}/seen", self.url)).send().json();
        assert_eq!(seen["refused"], json!([]), "the receiver refused something");
        seen
    }

    /// How it misbehaves from now on.
    pub(crate) fn fault(&self, fault: &Value) {
        assert_eq!(http::Request::new("POST", &format!("{}/fault", self.url)).json(fault).send().status, 200);
    }

    /// Every span of the traces of which the whole call's span is there.
    pub(crate) fn spans(&self) -> Vec<Value> {
        self.seen()["spans"].as_array().unwrap().clone()
    }

    /// Waits for the trace with a span that says this; the whole call's span first.
    #[track_caller]
    pub(crate) fn trace(&self, attribute: &str, value: &str) -> Vec<Value> {
        let found = wait_for(SOON, || {
            let spans = self.spans();
            let said = spans.iter().find(|s| s["attributes"][attribute] == value)?;
            let mut trace: Vec<Value> = spans.iter().filter(|s| s["trace"] == said["trace"]).cloned().collect();
            trace.sort_by_key(|span| span["kind"] != 2);
            Some(trace)
        });
        found.unwrap_or_else(|| panic!("no trace says {attribute} = {value}: {:#?}", self.spans()))
    }

    /// Prometheus's own reading of a page.
    pub(crate) fn parse(&self, page: &str) -> Vec<Value> {
        let answer = http::Request::new("POST", &format!("{}/parse", self.url)).body(page).send();
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json().as_array().unwrap().clone()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let _already_gone = self.child.kill();
        let _status = self.child.wait();
    }
}
