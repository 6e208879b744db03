//! JSON-RPC over real sockets.

use std::future::pending;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use countersign_chain::{Node, Rpc, RpcError};
use countersign_core::ledger::Fut;
use countersign_core::seams::{Clock, ClockError};
use countersign_core::time::Timestamp;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;

/// Never lets anybody wait, or always lets everybody.
struct Patience(AtomicBool);

impl Clock for Patience {
    fn now(&self) -> Result<Timestamp, ClockError> {
        Ok(Timestamp::default())
    }

    fn random(&self, _: &mut [u8]) -> Result<(), ClockError> {
        Ok(())
    }

    fn sleep(&self, _: u64) -> Fut<'_, ()> {
        if self.0.load(Ordering::Relaxed) { Box::pin(async {}) } else { Box::pin(pending()) }
    }
}

fn rpc(url: &str, over: bool) -> Result<Rpc, RpcError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    Rpc::new(url, TlsConnector::from(Arc::new(config)), Arc::new(Patience(AtomicBool::new(over))))
}

/// Answers each request by what `respond` makes of its body; none closes the connection.
async fn serve(respond: impl Fn(&Value) -> Option<String> + Send + Sync + 'static) -> (String, Arc<AtomicU32>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v3/secret-key", listener.local_addr().unwrap());
    let connections = Arc::new(AtomicU32::new(0));
    let (counted, respond) = (connections.clone(), Arc::new(respond));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(connection(stream, respond.clone()));
        }
    });
    (url, connections)
}

async fn connection(mut stream: TcpStream, respond: Arc<impl Fn(&Value) -> Option<String>>) {
    let mut read = Vec::new();
    loop {
        let request = loop {
            let text = String::from_utf8_lossy(&read).into_owned();
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                assert!(head.starts_with("POST /v3/secret-key HTTP/1.1"));
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
                if body.len() >= length.parse().unwrap() {
                    break serde_json::from_str::<Value>(body).unwrap();
                }
            }
            if stream.read_buf(&mut read).await.unwrap_or(0) == 0 {
                return;
            }
        };
        read.clear();
        let Some(answer) = respond(&request) else { return };
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

fn http(status: &str, body: &str) -> Option<String> {
    Some(format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len()))
}

fn result(request: &Value, result: &Value) -> Option<String> {
    http("200 OK", &json!({"jsonrpc": "2.0", "id": request["id"], "result": result}).to_string())
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
    runtime.block_on(test);
}

#[test]
fn only_https_or_this_machine() {
    for url in ["https://rpc.example/key", "http://127.0.0.1:1/", "http://[::1]:1/", "http://localhost:1/"] {
        assert!(rpc(url, false).is_ok(), "{url}");
    }
    for url in [
        "http://rpc.example/SECRET",
        "http://10.0.0.1/SECRET",
        "http://0.0.0.0/SECRET",
        "ws://127.0.0.1/SECRET",
        "SECRET",
    ] {
        let error = rpc(url, false).err().unwrap().to_string();
        assert!(!error.contains("SECRET"), "{error}");
    }
    let node = rpc("https://rpc.example/SECRET?k=SECRET", false).unwrap();
    assert_eq!(node.name(), "https://rpc.example");
    assert_eq!(format!("{node:?}"), "Rpc(https://rpc.example)");
}

#[test]
fn one_connection_serves_many_calls_and_a_closed_one_is_replaced() {
    run(async {
        let calls = Arc::new(AtomicU32::new(0));
        let (url, connections) = serve({
            let calls = calls.clone();
            // The third request of all is answered by closing the connection.
            move |request| match calls.fetch_add(1, Ordering::Relaxed) {
                2 => None,
                _ => result(request, &request["params"]),
            }
        })
        .await;
        let node = rpc(&url, false).unwrap();
        for i in 0..5 {
            assert_eq!(node.call("eth_echo", json!([i])).await, Ok(json!([i])));
        }
        assert_eq!((connections.load(Ordering::Relaxed), calls.load(Ordering::Relaxed)), (2, 6));
    });
}

#[test]
fn anything_but_an_answer_is_an_error() {
    let check = |answer: fn(&Value) -> Option<String>, expected: &str| {
        run(async {
            let (url, _) = serve(answer).await;
            let error = rpc(&url, false).unwrap().call("eth_x", json!([])).await.unwrap_err().to_string();
            assert!(error.contains(expected) && !error.contains("secret-key"), "{error}");
        });
    };
    check(|_| None, "no answer");
    check(|_| http("200 OK", r#"{"id":1"#), "not an answer");
    check(|_| http("200 OK", r#"{"id":77,"result":"0x1"}"#), "another question");
    check(|_| http("200 OK", r#"{"result":"0x1"}"#), "another question");
    check(|r| http("200 OK", &json!({"id": r["id"]}).to_string()), "without a result");
    check(|_| http("429 Too Many Requests", "slow down"), "HTTP status 429");
    check(|r| http("500 No", &json!({"id": r["id"], "result": 1}).to_string()), "HTTP status 500");
    let refusal = |_: &Value| http("400 Bad Request", r#"{"error":{"code":-32005,"message":"too\u001b[31m many"}}"#);
    check(refusal, "error -32005: too\\u{1b}[31m many");
    check(|r| result(r, &json!("x".repeat(5 << 20))), "error 0: the answer has more than");
}

#[test]
fn nobody_waits_for_ever() {
    run(async {
        // Reads, and never answers.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let held = Arc::new(Mutex::new(Vec::new()));
        let kept = held.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                kept.lock().unwrap().push(stream);
            }
        });
        let answer = rpc(&url, true).unwrap().call("eth_x", json!([])).await;
        assert!(matches!(answer, Err(RpcError::Unreachable(why)) if why.contains("nothing within 10000 ms")));
    });
}
