//! MCP servers that want to be paid: the official seller in Python, see `tests/peers/mcp/paid`, and a stub that answers
//! as a test says.

use countersign_tests::{
    config::Config,
    http::{Request, Response},
    peers::{NETWORK, SELLER, USDC, authority},
    process::Gateway,
    stub::Stub,
};
use serde_json::{Value, json};
use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

/// The official x402 seller for MCP. Dropping it ends it.
pub(crate) struct Official {
    pub(crate) url: String,
    child: Child,
}

impl Official {
    /// Settles through this facilitator.
    pub(crate) fn start(facilitator: &str) -> Self {
        let paid = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/mcp/paid");
        let python = paid.join(".tools/bin/python");
        assert!(python.exists(), "the paid MCP server is not installed: run `make test`");
        let mut command = Command::new(python);
        command.arg(paid.join("server.py")).args([facilitator, SELLER.address]).env("NO_PROXY", "127.0.0.1");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready: Value =
            serde_json::from_str(&line).unwrap_or_else(|e| panic!("the paid MCP server said {line:?}: {e}"));
        Self { url: ready["url"].as_str().unwrap().to_owned(), child }
    }
}

impl Drop for Official {
    fn drop(&mut self) {
        let _already_gone = self.child.kill();
        let _status = self.child.wait();
    }
}

/// Puts `[mcp-server.NAME]` into a configuration, and lets the gateway reach it.
pub(crate) fn with_server(config: Config, name: &str, url: &str) -> Config {
    config.allow_private(authority(url)).set(&["mcp-server", name, "url"], url)
}

/// One `tools/call`, as a server of ours has it.
#[derive(Clone, Debug)]
pub(crate) struct Called {
    pub(crate) id: Value,
    pub(crate) params: Value,
    /// The session it came in.
    pub(crate) session: String,
    /// The whole request.
    pub(crate) request: String,
}

impl Called {
    /// The nonce of the payment that came with it.
    pub(crate) fn nonce(&self) -> Option<&str> {
        self.params.pointer("/_meta/x402~1payment/payload/authorization/nonce")?.as_str()
    }

    /// A result for it, as a whole HTTP answer.
    pub(crate) fn result(&self, result: &Value) -> String {
        http(&json!({"jsonrpc": "2.0", "id": self.id, "result": result}))
    }

    /// The same for an error.
    pub(crate) fn error(&self, error: &Value) -> String {
        http(&json!({"jsonrpc": "2.0", "id": self.id, "error": error}))
    }

    /// A demand, in both places.
    pub(crate) fn demand(&self, terms: &Value) -> String {
        self.result(&demand(terms))
    }

    /// What the tool says, and a receipt that nothing contradicts.
    pub(crate) fn sold(&self, words: &str) -> String {
        let receipt = json!({"success": true, "network": NETWORK, "transaction": format!("0x{}", "12".repeat(32))});
        let meta = json!({"x402/payment-response": receipt});
        self.result(&json!({"content": [{"type": "text", "text": words}], "_meta": meta}))
    }
}

/// x402's terms for `price` millionths of a dollar.
pub(crate) fn terms(price: u32) -> Value {
    let offer = json!({
        "scheme": "exact", "network": NETWORK, "asset": USDC, "amount": price.to_string(), "payTo": SELLER.address,
        "maxTimeoutSeconds": 300, "extra": {"name": "USDC", "version": "2"},
    });
    json!({"x402Version": 2, "accepts": [offer], "error": "pay", "resource": {"url": "mcp://tool/t"}})
}

/// A result that demands payment, with its terms in both places.
pub(crate) fn demand(terms: &Value) -> Value {
    let content = json!([{"type": "text", "text": serde_json::to_string_pretty(terms).unwrap()}]);
    json!({"isError": true, "structuredContent": terms, "content": content})
}

/// JSON as a whole HTTP answer.
pub(crate) fn http(body: &Value) -> String {
    whole("200 OK", "application/json", &body.to_string())
}

/// Events as a whole HTTP answer.
pub(crate) fn events(messages: &[Value]) -> String {
    let body: String = messages.iter().map(|message| format!("event: message\r\ndata: {message}\r\n\r\n")).collect();
    whole("200 OK", "text/event-stream", &body)
}

/// A whole HTTP answer.
pub(crate) fn whole(status: &str, kind: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}")
}

/// A server of ours. It knows the sessions that it has begun, and no others.
pub(crate) struct Upstream {
    pub(crate) stub: Stub,
    calls: Arc<Mutex<Vec<Called>>>,
    sessions: Arc<Mutex<Vec<String>>>,
    begun: Arc<AtomicUsize>,
}

impl Upstream {
    /// Answers calls as `answer` says, given what came before.
    pub(crate) fn start(answer: impl Fn(&Called, &[Called]) -> String + Send + Sync + 'static) -> Self {
        Self::listing(answer, |id, _| http(&json!({"jsonrpc": "2.0", "id": id, "result": {"tools": []}})))
    }

    /// And lists its tools as `list` says, given the parameters.
    pub(crate) fn listing(
        answer: impl Fn(&Called, &[Called]) -> String + Send + Sync + 'static,
        list: impl Fn(&Value, &Value) -> String + Send + Sync + 'static,
    ) -> Self {
        let calls: Arc<Mutex<Vec<Called>>> = Arc::default();
        let sessions: Arc<Mutex<Vec<String>>> = Arc::default();
        let begun: Arc<AtomicUsize> = Arc::default();
        let (heard, open, counted) = (Arc::clone(&calls), Arc::clone(&sessions), Arc::clone(&begun));
        let stub = Stub::answering_at_once(move |request| {
            let (head, body) = request.split_once("\r\n\r\n").unwrap_or((request, ""));
            let Ok(message) = serde_json::from_str::<Value>(body) else {
                return whole("400 Bad Request", "text/plain", "");
            };
            let header = |name: &str| {
                let found = head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
                found.unwrap_or_default().to_owned()
            };
            let session = header("mcp-session-id");
            if message["method"] == "initialize" {
                assert!(session.is_empty(), "{head}");
                let session = format!("session-{}", counted.fetch_add(1, Ordering::SeqCst));
                open.lock().unwrap().push(session.clone());
                let said = json!({"protocolVersion": "2025-06-18", "capabilities": {}, "serverInfo": {"name": "s"}});
                let answer = http(&json!({"jsonrpc": "2.0", "id": message["id"], "result": said}));
                return answer.replacen("\r\n", &format!("\r\nMcp-Session-Id: {session}\r\n"), 1);
            }
            assert_eq!(header("mcp-protocol-version"), "2025-06-18", "{head}");
            if !open.lock().unwrap().contains(&session) {
                return whole("404 Not Found", "text/plain", "no such session");
            }
            match message["method"].as_str() {
                Some("notifications/initialized") => whole("202 Accepted", "text/plain", ""),
                Some("tools/list") => list(&message["id"], &message["params"]),
                _ => {
                    let (id, params) = (message["id"].clone(), message["params"].clone());
                    let call = Called { id, params, session, request: request.to_owned() };
                    let before: Vec<Called> = heard.lock().unwrap().clone();
                    heard.lock().unwrap().push(call.clone());
                    answer(&call, &before)
                }
            }
        });
        Self { stub, calls, sessions, begun }
    }

    pub(crate) fn url(&self) -> String {
        self.stub.url("/mcp")
    }

    /// The calls since the last look.
    pub(crate) fn calls(&self) -> Vec<Called> {
        std::mem::take(&mut *self.calls.lock().unwrap())
    }

    /// Forgets every session.
    pub(crate) fn forget(&self) {
        self.sessions.lock().unwrap().clear();
    }

    /// Sessions that were begun.
    pub(crate) fn begun(&self) -> usize {
        self.begun.load(Ordering::SeqCst)
    }
}

/// One request to `/mcp/NAME`, without any client of others.
pub(crate) fn post(gateway: &Gateway, name: &str, token: &str, method: &str, params: &Value) -> Response {
    let message = json!({"jsonrpc": "2.0", "id": 7, "method": method, "params": params});
    Request::new("POST", &format!("{}/mcp/{name}", gateway.url))
        .header("accept", "application/json, text/event-stream")
        .header("content-type", "application/json")
        .header("mcp-protocol-version", "2025-06-18")
        .bearer(token)
        .body(message.to_string())
        .send()
}

/// The one message of an answer, as JSON or as an event.
pub(crate) fn message(answer: &Response) -> Value {
    let text = answer.text();
    let event = text.lines().find_map(|line| line.strip_prefix("data: "));
    serde_json::from_str(event.unwrap_or(&text)).unwrap_or_else(|e| panic!("{e}: {text}"))
}

/// The result of a tool's call.
#[track_caller]
pub(crate) fn call(gateway: &Gateway, name: &str, token: &str, params: &Value) -> Value {
    let mut message = message(&post(gateway, name, token, "tools/call", params));
    let result = message.get_mut("result").map(Value::take);
    result.unwrap_or_else(|| panic!("{message}"))
}
