//! A chain node between the gateway and the chain: it counts what it is asked, and lies when it is told to.

use crate::{http, stub::Stub};
use serde_json::{Value, json};
use std::{
    fmt,
    sync::{Arc, Mutex},
};

/// How a node answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    /// What the chain says.
    None,
    /// Every nonce is used.
    Used,
    /// No nonce is used.
    Unused,
    /// Every block has another hash.
    Hash,
    /// There is no block above this one.
    Behind(u64),
    /// There is no contract anywhere: calls return nothing, addresses have no code.
    NoCode,
    /// Not at all: a status 503.
    Silence,
}

/// A node at a port of its own. It serves until the process ends.
#[derive(Clone)]
pub struct Node {
    stub: Stub,
    lie: Arc<Mutex<Lie>>,
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Node({})", self.stub.authority)
    }
}

impl Node {
    /// A node that knows what the one at this URL knows.
    pub fn before(upstream: &str) -> Self {
        let lie = Arc::new(Mutex::new(Lie::None));
        let (told, upstream) = (Arc::clone(&lie), upstream.to_owned());
        let stub = Stub::answering(move |request| {
            let lie = *told.lock().unwrap();
            match result(&upstream, request, lie) {
                Some(answer) => {
                    let body = answer.to_string();
                    let length = body.len();
                    format!(
                        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: application/json\r\n\
                         Content-Length: {length}\r\n\r\n{body}"
                    )
                }
                None => "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".to_owned(),
            }
        });
        Self { stub, lie }
    }

    /// Its URL under a name of this machine, such as `127.0.0.1` or `localhost`.
    pub fn url(&self, host: &str) -> String {
        let port = self.stub.authority.rsplit_once(':').map_or("", |(_, port)| port);
        format!("http://{host}:{port}")
    }

    /// Answers so from now on.
    pub fn tell(&self, lie: Lie) {
        *self.lie.lock().unwrap() = lie;
    }

    /// How many requests had this text in them, in any case.
    pub fn asked(&self, what: &str) -> usize {
        let what = what.to_lowercase();
        self.stub.seen().iter().filter(|request| request.to_lowercase().contains(&what)).count()
    }
}

/// The answer to a call; none if there is no answer.
fn result(upstream: &str, request: &str, lie: Lie) -> Option<Value> {
    if lie == Lie::Silence {
        return None;
    }
    let (_, body) = request.split_once("\r\n\r\n")?;
    let mut call: Value = serde_json::from_str(body).ok()?;
    if let Lie::Behind(height) = lie {
        hold_back(&mut call, height);
    }
    let mut answer = http::post(upstream, &call).try_send().ok()?.json();
    let method = call.get("method").and_then(Value::as_str).unwrap_or_default().to_owned();
    let state = call.pointer("/params/0").is_some_and(asks_for_state);
    let Some(result) = answer.get_mut("result") else { return Some(answer) };
    match lie {
        Lie::Used if state => *result = json!(format!("0x{:064x}", 1)),
        Lie::Unused if state => *result = json!(format!("0x{:064x}", 0)),
        Lie::Hash => {
            if let Some(hash) = result.get_mut("hash") {
                *hash = json!(format!("0x{}", "ab".repeat(32)));
            }
        }
        Lie::NoCode if matches!(method.as_str(), "eth_call" | "eth_getCode") => *result = json!("0x"),
        Lie::Behind(height) if method == "eth_blockNumber" => *result = json!(format!("{height:#x}")),
        Lie::Behind(height) => {
            let block = result.get("number").or_else(|| result.get("blockNumber")).and_then(Value::as_str);
            let block = block.and_then(|text| u64::from_str_radix(text.trim_start_matches("0x"), 16).ok());
            if block.is_some_and(|block| block > height) {
                *result = Value::Null;
            }
        }
        Lie::None | Lie::Used | Lie::Unused | Lie::NoCode | Lie::Silence => {}
    }
    Some(answer)
}

/// Makes a call about the newest block one about this block.
fn hold_back(call: &mut Value, height: u64) {
    let newest = ["latest", "pending", "safe", "finalized"];
    for param in call.get_mut("params").and_then(Value::as_array_mut).into_iter().flatten() {
        if param.as_str().is_some_and(|tag| newest.contains(&tag)) {
            *param = json!(format!("{height:#x}"));
        }
    }
}

/// Whether a call's first parameter is a call of `authorizationState(address,bytes32)`.
fn asks_for_state(param: &Value) -> bool {
    let data = param.get("data").or_else(|| param.get("input")).and_then(Value::as_str);
    data.is_some_and(|data| data.starts_with("0xe94a0102"))
}
