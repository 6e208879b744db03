//! JSON-RPC to a chain node the operator named. Not a way to a seller: those go through the guard.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use countersign_core::ledger::Fut;
use countersign_core::seams::Clock;
use countersign_core::web::{Scheme, Target};
use countersign_core::x402::text::clean;
use http::header::{CONTENT_TYPE, HOST, HeaderValue};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::node::{Node, RpcError};

/// Longest wait for a node's answer, in milliseconds.
const PATIENCE_MS: u64 = 10_000;
/// Largest answer read from a node, in bytes.
const MAX_ANSWER: usize = 4 << 20;
/// Longest error of a node that is repeated, in characters.
const MAX_WORDS: usize = 200;

/// One node, over https, or over http on this machine: whoever answers is believed about money.
pub struct Rpc {
    target: Target,
    tls: TlsConnector,
    clock: Arc<dyn Clock>,
    next: AtomicU64,
    /// A connection nobody is using.
    idle: Mutex<Option<Sender>>,
}

type Sender = http1::SendRequest<Full<Bytes>>;
type Failure = Box<dyn std::error::Error + Send + Sync>;

impl Rpc {
    /// A node at `url`.
    ///
    /// # Errors
    /// When the URL is not one, or is http to another machine. The URL is not repeated: it may
    /// contain a key.
    pub fn new(url: &str, tls: TlsConnector, clock: Arc<dyn Clock>) -> Result<Self, RpcError> {
        let bad = |why: &dyn fmt::Display| RpcError::Unreachable(format!("the node's URL: {why}"));
        let target = Target::parse(url).map_err(|error| bad(&error))?;
        let local = target.ip().map_or(target.hostname() == "localhost", |ip| ip.to_canonical().is_loopback());
        if target.scheme() == Scheme::Http && !local {
            return Err(bad(&"it must be https, or http on this machine"));
        }
        Ok(Self { target, tls, clock, next: AtomicU64::new(1), idle: Mutex::new(None) })
    }

    /// Where it is connected to.
    #[must_use]
    pub const fn target(&self) -> &Target {
        &self.target
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Option<Sender>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn exchange(&self, method: &str, params: Value) -> Result<Value, RpcError> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let body = Bytes::from(json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).to_string());
        let kept = self.idle().take();
        // A kept connection may have been closed just now, which says nothing about the node. Asking
        // again is harmless: every method that is called here only reads.
        let (status, body) = match kept {
            Some(sender) => match self.send(sender, body.clone()).await {
                Ok(answer) => answer,
                Err(_) => self.send_anew(body).await?,
            },
            None => self.send_anew(body).await?,
        };
        read(id, status, &body)
    }

    async fn send_anew(&self, body: Bytes) -> Result<(StatusCode, Bytes), RpcError> {
        let sent = async { self.send(self.connect().await?, body).await };
        sent.await.map_err(|error| {
            if error.is::<http_body_util::LengthLimitError>() {
                // As a node would say it: whoever asked may ask for less.
                return RpcError::Refused { code: 0, message: format!("the answer has more than {MAX_ANSWER} bytes") };
            }
            RpcError::Unreachable(clean(&error.to_string(), MAX_WORDS))
        })
    }

    async fn send(&self, mut sender: Sender, body: Bytes) -> Result<(StatusCode, Bytes), Failure> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.target.path_and_query().parse()?;
        request.headers_mut().insert(HOST, HeaderValue::from_str(&self.target.host_header())?);
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await?.to_bytes();
        if !sender.is_closed() {
            *self.idle() = Some(sender);
        }
        Ok((status, body))
    }

    async fn connect(&self) -> Result<Sender, Failure> {
        let stream = TcpStream::connect((self.target.hostname(), self.target.port())).await?;
        stream.set_nodelay(true)?;
        if self.target.scheme() == Scheme::Http {
            // `localhost` is whatever the machine's resolver says.
            if !stream.peer_addr()?.ip().to_canonical().is_loopback() {
                return Err("http leads to another machine".into());
            }
            return Ok(handshake(stream).await?);
        }
        let name = rustls::pki_types::ServerName::try_from(self.target.hostname().to_owned())?;
        Ok(handshake(self.tls.connect(name, stream).await?).await?)
    }
}

impl Node for Rpc {
    fn name(&self) -> String {
        self.target.origin()
    }

    fn call<'a>(&'a self, method: &'a str, params: Value) -> Fut<'a, Result<Value, RpcError>> {
        Box::pin(async move {
            tokio::select! {
                biased;
                answer = self.exchange(method, params) => answer,
                () = self.clock.sleep(PATIENCE_MS) => {
                    Err(RpcError::Unreachable(format!("{method}: nothing within {PATIENCE_MS} ms")))
                }
            }
        })
    }
}

impl fmt::Debug for Rpc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rpc({})", self.target.origin())
    }
}

/// What an HTTP answer says. Some providers send JSON-RPC errors with a status of their own.
pub(crate) fn read(id: u64, status: StatusCode, body: &[u8]) -> Result<Value, RpcError> {
    let mut answer: Value = match serde_json::from_slice(body) {
        Ok(answer) => answer,
        Err(_) if !status.is_success() => return Err(RpcError::Unreachable(format!("HTTP status {status}"))),
        Err(error) => return Err(RpcError::Malformed(error.to_string())),
    };
    if let Some(error) = answer.get("error").filter(|error| !error.is_null()) {
        let code = error.get("code").and_then(Value::as_i64).unwrap_or_default();
        let message = error.get("message").and_then(Value::as_str).unwrap_or("an error without a message");
        return Err(RpcError::Refused { code, message: clean(message, MAX_WORDS) });
    }
    if !status.is_success() {
        return Err(RpcError::Unreachable(format!("HTTP status {status}")));
    }
    if answer.get("id").and_then(Value::as_u64) != Some(id) {
        return Err(RpcError::Malformed("an answer to another question".to_owned()));
    }
    let result = answer.get_mut("result").map(Value::take);
    result.ok_or_else(|| RpcError::Malformed("an answer without a result".to_owned()))
}

async fn handshake<S>(stream: S) -> Result<Sender, hyper::Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, driver) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move {
        if let Err(error) = driver.await {
            tracing::debug!(%error, "a connection to a chain node ended");
        }
    });
    Ok(sender)
}
