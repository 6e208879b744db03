//! Messages to an address that the operator named: an OTLP receiver, a webhook. Not a way to a seller.

use std::sync::Arc;

use bytes::Bytes;
use countersign_core::seams::Clock;
use countersign_core::web::{Scheme, Target};
use http::header::{HOST, HeaderValue, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// How long a message may take, in milliseconds.
const PATIENCE_MS: u64 = 10_000;
/// Largest answer that is read, in bytes.
const MAX_ANSWER: usize = 64 * 1024;

/// An address of the operator's: https, or http on this machine.
pub struct Endpoint {
    target: Target,
    tls: TlsConnector,
    clock: Arc<dyn Clock>,
}

/// What was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// The status.
    pub status: StatusCode,
    /// `Retry-After` in seconds, if it said so.
    pub retry_after: Option<u64>,
    /// The body.
    pub body: Bytes,
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

impl Endpoint {
    /// An endpoint at `url`.
    ///
    /// # Errors
    /// When the URL is not one, or is http to another machine. It is not repeated: it may contain a key.
    pub fn new(url: &str, tls: TlsConnector, clock: Arc<dyn Clock>) -> Result<Self, String> {
        let target = Target::parse(url).map_err(|error| error.to_string())?;
        let local = target.ip().map_or(target.hostname() == "localhost", |ip| ip.to_canonical().is_loopback());
        if target.scheme() == Scheme::Http && !local {
            return Err("it must be https, or http on this machine".to_owned());
        }
        Ok(Self { target, tls, clock })
    }

    /// Name and port, if it is on this machine: no purchase may go there, whatever `egress.allow-private` lists.
    #[must_use]
    pub fn place(&self) -> Option<(String, u16)> {
        let local = self.target.scheme() == Scheme::Http;
        local.then(|| (self.target.hostname().to_owned(), self.target.port()))
    }

    /// Posts a message to the endpoint's path with `below` added to it. Redirects are answers.
    ///
    /// # Errors
    /// Why there is no answer, for people.
    pub async fn post(&self, below: &str, headers: HeaderMap, body: Bytes) -> Result<Taken, String> {
        tokio::select! {
            biased;
            taken = self.exchange(below, headers, body) => taken.map_err(|error| error.to_string()),
            () = self.clock.sleep(PATIENCE_MS) => Err(format!("no answer within {PATIENCE_MS} ms")),
        }
    }

    async fn exchange(&self, below: &str, headers: HeaderMap, body: Bytes) -> Result<Taken, Failure> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        let path = if below.is_empty() {
            self.target.path_and_query()
        } else {
            let query = self.target.query().map(|query| format!("?{query}")).unwrap_or_default();
            format!("{}{below}{query}", self.target.path().trim_end_matches('/'))
        };
        *request.uri_mut() = path.parse()?;
        *request.headers_mut() = headers;
        let agent = HeaderValue::from_static(concat!("countersign/", env!("CARGO_PKG_VERSION")));
        request.headers_mut().insert(USER_AGENT, agent);
        request.headers_mut().insert(HOST, HeaderValue::from_str(&self.target.host_header())?);
        let mut sender = self.connect().await?;
        let response = sender.send_request(request).await?;
        let (head, body) = response.into_parts();
        let retry_after = head.headers.get(RETRY_AFTER).and_then(|v| v.to_str().ok()).and_then(|v| v.parse().ok());
        let body = Limited::new(body, MAX_ANSWER).collect().await?.to_bytes();
        Ok(Taken { status: head.status, retry_after, body })
    }

    async fn connect(&self) -> Result<http1::SendRequest<Full<Bytes>>, Failure> {
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

async fn handshake<S>(stream: S) -> Result<http1::SendRequest<Full<Bytes>>, hyper::Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, driver) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move {
        if let Err(error) = driver.await {
            tracing::debug!(%error, "a connection to an endpoint of the operator's ended");
        }
    });
    Ok(sender)
}
