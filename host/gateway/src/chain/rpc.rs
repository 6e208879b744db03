//! JSON-RPC to a chain node the operator named. Not a way to a seller: those go through the guard.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use countersign_core::seams::Clock;
use countersign_core::web::{Scheme, Target};
use http::header::{CONTENT_TYPE, HOST, HeaderValue};
use http::{Method, Request};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Longest wait for a node's answer, in milliseconds.
const PATIENCE_MS: u64 = 10_000;
/// Largest answer read from a node, in bytes.
const MAX_ANSWER: usize = 4 << 20;

/// The node gave no usable answer. It never means "no".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RpcError(pub String);

impl fmt::Display for RpcError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "chain node: {}", self.0)
    }
}

impl std::error::Error for RpcError {}

/// One node.
pub struct Rpc {
    target: Target,
    tls: TlsConnector,
    clock: Arc<dyn Clock>,
    next: AtomicU64,
}

type Sender = http1::SendRequest<Full<Bytes>>;

impl Rpc {
    /// A node at `url`.
    ///
    /// # Errors
    /// When the URL is not one.
    pub fn new(url: &str, tls: TlsConnector, clock: Arc<dyn Clock>) -> Result<Self, RpcError> {
        let target = Target::parse(url).map_err(|e| RpcError(format!("{url}: {e}")))?;
        Ok(Self { target, tls, clock, next: AtomicU64::new(1) })
    }

    /// The node's URL as it is connected to.
    #[must_use]
    pub const fn target(&self) -> &Target {
        &self.target
    }

    /// Calls a method.
    ///
    /// # Errors
    /// [`RpcError`] for anything but a result.
    pub async fn call(&self, method: &str, params: Value) -> Result<Value, RpcError> {
        tokio::select! {
            biased;
            answer = self.exchange(method, params) => answer.map_err(|e| RpcError(format!("{method}: {e}"))),
            () = self.clock.sleep(PATIENCE_MS) => Err(RpcError(format!("{method}: no answer within {PATIENCE_MS} ms"))),
        }
    }

    async fn exchange(&self, method: &str, params: Value) -> Result<Value, Box<dyn std::error::Error + Send + Sync>> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let body = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).to_string();
        let mut request = Request::new(Full::new(Bytes::from(body)));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.target.path_and_query().parse()?;
        request.headers_mut().insert(HOST, HeaderValue::from_str(&self.target.host_header())?);
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let mut sender = self.connect().await?;
        let response = sender.send_request(request).await?;
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await?.to_bytes();
        let mut answer: Value = serde_json::from_slice(&body)?;
        if let Some(error) = answer.get("error").filter(|e| !e.is_null()) {
            let message = error.get("message").and_then(Value::as_str).unwrap_or("an error without a message");
            return Err(countersign_core::x402::text::clean(message, 200).into());
        }
        if answer.get("id").and_then(Value::as_u64) != Some(id) {
            return Err("an answer to another question".into());
        }
        Ok(answer.get_mut("result").map(Value::take).ok_or("an answer without a result")?)
    }

    async fn connect(&self) -> Result<Sender, Box<dyn std::error::Error + Send + Sync>> {
        let stream = TcpStream::connect((self.target.hostname(), self.target.port())).await?;
        stream.set_nodelay(true)?;
        if self.target.scheme() == Scheme::Http {
            return Ok(handshake(stream).await?);
        }
        let name = rustls::pki_types::ServerName::try_from(self.target.hostname().to_owned())?;
        Ok(handshake(self.tls.connect(name, stream).await?).await?)
    }
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
