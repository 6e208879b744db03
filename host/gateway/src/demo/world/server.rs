//! The smallest HTTP server the world needs: one closure-like service per listener, on loopback
//! only, able to misbehave (hang up, never answer, never stop talking).

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::io;
use std::net::Ipv4Addr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::{AbortHandle, JoinSet};

/// Largest request body that is read.
const BODY_LIMIT: usize = 1 << 20;
/// Most connections a listener serves at once; more are closed.
const CONNECTION_LIMIT: usize = 512;
/// How long a dripping body waits before each byte.
const DRIP: Duration = Duration::from_secs(1);

/// A request, read completely.
pub(super) struct Call {
    pub(super) method: Method,
    /// Without the query.
    pub(super) path: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// An answer, or the decision to hang up without one.
pub(super) type Answer = Result<Response<Content>, HungUp>;

/// The connection is dropped without an answer.
#[derive(Debug)]
pub(super) struct HungUp;

impl fmt::Display for HungUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("hung up on purpose")
    }
}

impl std::error::Error for HungUp {}

/// What answers the calls of one listener.
pub(super) trait Service: Send + Sync + 'static {
    fn answer(&self, call: Call) -> impl Future<Output = Answer> + Send;
}

/// A listener and its connections; all end when this is dropped.
pub(super) struct Server {
    accepting: AbortHandle,
}

impl Drop for Server {
    fn drop(&mut self) {
        // The accept loop owns its connections, so they end with it.
        self.accepting.abort();
    }
}

/// An ephemeral port on loopback, and its URL without a path.
pub(super) fn bind() -> io::Result<(TcpListener, String)> {
    // A burst of buyers must not overflow the usual accept queue of 128.
    let socket = TcpSocket::new_v4()?;
    socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
    let listener = socket.listen(4_096)?;
    let url = format!("http://{}", listener.local_addr()?);
    Ok((listener, url))
}

/// Serves until the returned handle is dropped.
pub(super) fn serve<S: Service>(listener: TcpListener, service: Arc<S>) -> Server {
    let accepting = tokio::spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => {
                    if let Ok((stream, _)) = accepted && connections.len() < CONNECTION_LIMIT {
                        connections.spawn(converse(stream, service.clone()));
                    }
                }
                Some(_) = connections.join_next() => {}
            }
        }
    });
    Server { accepting: accepting.abort_handle() }
}

async fn converse<S: Service>(stream: TcpStream, service: Arc<S>) {
    let service = service_fn(move |request| {
        let service = service.clone();
        async move {
            match read(request).await {
                Some(call) => service.answer(call).await,
                None => Ok(json(StatusCode::PAYLOAD_TOO_LARGE, &Value::Null)),
            }
        }
    });
    // The only errors are clients that went away and our own wish to hang up: neither is news.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn read(request: Request<Incoming>) -> Option<Call> {
    let (head, body) = request.into_parts();
    let body = Limited::new(body, BODY_LIMIT).collect().await.ok()?.to_bytes();
    Some(Call { method: head.method, path: head.uri.path().to_owned(), headers: head.headers, body })
}

/// A JSON answer.
pub(super) fn json(status: StatusCode, body: &Value) -> Response<Content> {
    with_content(status, "application/json", Content::whole(body.to_string()))
}

/// An answer with any content.
pub(super) fn with_content(status: StatusCode, media: &'static str, content: Content) -> Response<Content> {
    let mut response = Response::new(content);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media));
    response
}

/// Adds a header; a value that no header may hold is left out.
pub(super) fn put(response: &mut Response<Content>, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().append(name, value);
    }
}

/// JSON as x402 puts it into a header.
pub(super) fn encode(value: &Value) -> String {
    STANDARD.encode(value.to_string())
}

/// The inverse of [`encode`].
pub(super) fn decode(header: &HeaderValue) -> Option<Value> {
    serde_json::from_slice(&STANDARD.decode(header.as_bytes()).ok()?).ok()
}

/// Waits in real time.
#[expect(
    clippy::disallowed_methods,
    reason = "slowness of the world outside; the gateway itself waits only through its Clock"
)]
pub(super) async fn pause(time: Duration) {
    tokio::time::sleep(time).await;
}

/// A body that ends, or does not.
pub(super) enum Content {
    /// These bytes, then the end.
    Whole(Bytes),
    /// These bytes again and again, as fast as they are read.
    Endless(Bytes),
    /// These bytes, one by one, with a pause before each.
    Dripping(Bytes, Pin<Box<dyn Future<Output = ()> + Send>>),
}

impl Content {
    pub(super) fn whole(text: impl Into<Bytes>) -> Self {
        Self::Whole(text.into())
    }

    pub(super) fn dripping(text: impl Into<Bytes>) -> Self {
        Self::Dripping(text.into(), Box::pin(pause(DRIP)))
    }
}

impl Body for Content {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let data = match &mut *self {
            Self::Whole(rest) => std::mem::take(rest),
            Self::Endless(bytes) => bytes.clone(),
            Self::Dripping(rest, timer) if !rest.is_empty() => {
                std::task::ready!(timer.as_mut().poll(cx));
                *timer = Box::pin(pause(DRIP));
                rest.split_to(1)
            }
            Self::Dripping(..) => Bytes::new(),
        };
        Poll::Ready((!data.is_empty()).then(|| Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(rest) if rest.is_empty())
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        match self {
            Self::Whole(rest) => hyper::body::SizeHint::with_exact(u64::try_from(rest.len()).unwrap_or(u64::MAX)),
            Self::Endless(_) | Self::Dripping(..) => hyper::body::SizeHint::default(),
        }
    }
}
