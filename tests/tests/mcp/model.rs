//! What stands where a model would: the official MCP client in Python, see `tests/peers/mcp`.

use countersign_tests::process::{Gateway, binary};
use serde_json::{Value, json};
use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::Duration,
};

/// How a client reaches the gateway, and how it agrees on a version with it.
pub(crate) const WAYS: [(&str, &str); 4] =
    [("http", "legacy"), ("http", "auto"), ("stdio", "legacy"), ("stdio", "auto")];
/// The newest version of the protocol.
pub(crate) const NEWEST: &str = "2026-07-28";

/// How long the client may be silent.
const PATIENCE: Duration = Duration::from_secs(60);

/// A connected client.
pub(crate) struct Model {
    child: Child,
    orders: ChildStdin,
    answers: Receiver<String>,
    /// The version that was agreed on.
    pub(crate) version: String,
}

impl Model {
    /// Connects; over standard input the client starts `countersign mcp` itself.
    pub(crate) fn connect(gateway: &Gateway, way: (&str, &str), token: &str) -> Self {
        Self::started(gateway, "/mcp", way, token, &json!({}))
    }

    /// Connects to the server of others at `/mcp/NAME`, over HTTP, with more headers.
    pub(crate) fn connect_to(gateway: &Gateway, name: &str, mode: &str, token: &str, headers: &Value) -> Self {
        Self::started(gateway, &format!("/mcp/{name}"), ("http", mode), token, headers)
    }

    fn started(gateway: &Gateway, path: &str, (way, mode): (&str, &str), token: &str, headers: &Value) -> Self {
        let peers = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/mcp");
        let python = peers.join(".tools/bin/python");
        assert!(python.exists(), "the MCP client is not installed: run `make test`");
        let mut command = Command::new(python);
        command.arg(peers.join("client.py")).args([mode, way]).env("TOKEN", token).env("HEADERS", headers.to_string());
        match way {
            "http" => command.arg(format!("{}{path}", gateway.url)),
            _ => command.arg(binary()).arg(&gateway.url),
        };
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (orders, output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let (lines, answers) = mpsc::channel();
        thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| lines.send(line)));
        let mut model = Self { child, orders, answers, version: String::new() };
        let ready = model.hear();
        model.version = ready["ready"].as_str().unwrap_or_else(|| panic!("{ready}")).to_owned();
        model
    }

    /// Sends an order, waits for nothing.
    pub(crate) fn order(&mut self, order: &Value) {
        writeln!(self.orders, "{order}").unwrap();
    }

    /// The next line: progress, or an answer.
    pub(crate) fn hear(&mut self) -> Value {
        let line = self.answers.recv_timeout(PATIENCE).unwrap_or_else(|e| panic!("the client says nothing: {e}"));
        serde_json::from_str(&line).unwrap_or_else(|e| panic!("the client said {line:?}: {e}"))
    }

    /// The answer, whatever is said about progress before it.
    pub(crate) fn answer(&mut self) -> Value {
        loop {
            let said = self.hear();
            if said.get("progress").is_none() {
                return said;
            }
        }
    }

    /// Every tool.
    pub(crate) fn tools(&mut self) -> Vec<Value> {
        self.order(&json!({"do": "list"}));
        self.answer()["tools"].as_array().unwrap().clone()
    }

    /// The result of a call, whole.
    pub(crate) fn call(&mut self, tool: &str, arguments: Value) -> Value {
        self.call_with(tool, arguments, &Value::Null)
    }

    /// The result of a call with this `_meta`, whole.
    pub(crate) fn call_with(&mut self, tool: &str, arguments: Value, meta: &Value) -> Value {
        self.order(&json!({"do": "call", "tool": tool, "arguments": arguments, "meta": meta}));
        let mut answer = self.answer();
        let result = answer.get_mut("result").map(Value::take);
        result.unwrap_or_else(|| panic!("{tool} {arguments}: {answer}"))
    }

    /// What a call that must succeed answers, which its text says too.
    #[track_caller]
    pub(crate) fn ask(&mut self, tool: &str, arguments: Value) -> Value {
        succeeded(&self.call(tool, arguments))
    }

    /// What a call that must be refused with this code answers.
    #[track_caller]
    pub(crate) fn refused(&mut self, tool: &str, arguments: Value, code: &str) -> Value {
        failed(&self.call(tool, arguments), code)
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        let _already_gone = self.child.kill();
        let _status = self.child.wait();
    }
}

/// The structured content of a result that is no error.
#[track_caller]
pub(crate) fn succeeded(result: &Value) -> Value {
    assert_eq!(result["isError"], false, "{result}");
    same_as_text(result)
}

/// The problem of a result that is an error, in full shape.
#[track_caller]
pub(crate) fn failed(result: &Value, code: &str) -> Value {
    assert_eq!(result["isError"], true, "{result}");
    let problem = same_as_text(result);
    assert_eq!(problem["code"], code, "{problem}");
    assert!(
        problem["retry"].is_boolean() && problem["detail"].is_string() && problem["title"].is_string(),
        "{problem}"
    );
    assert!(problem.get("purchase").is_none(), "a purchase has one name: {problem}");
    problem
}

fn same_as_text(result: &Value) -> Value {
    let text = result["content"][0]["text"].as_str().unwrap_or_else(|| panic!("no text: {result}"));
    let said: Value = serde_json::from_str(text).unwrap();
    assert_eq!(said, result["structuredContent"], "text and structure differ");
    said
}
