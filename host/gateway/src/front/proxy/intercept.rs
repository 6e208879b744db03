//! TLS terminated in a seller's name: HTTP/2 and HTTP/1.1 from one agent to one host.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;

use countersign_core::web::Target;
use http::{Method, Request};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::upgrade::Upgraded;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;

use super::tunnel::{Activity, Watched};
use super::{bad, exchange, refuse, refused, wire};
use crate::front::Answer;
use crate::front::server::{HEAD, MAX_HEAD};
use crate::problem::{Code, Problem};
use crate::state::Gateway;

/// Requests of one HTTP/2 connection at a time.
const STREAMS: u32 = 64;
/// How long a client that was told to leave may do nothing, in milliseconds.
const LEAVE_MS: u64 = 10_000;
/// However busy, a connection ends this long after its client was told to leave, in milliseconds.
const LEAVE_AT_MOST_MS: u64 = 120_000;

/// Serves the requests of a connection until it ends, is silent for too long or lasts too long. Each request is
/// its agent's anew: a token that was taken back buys nothing more.
pub(super) async fn serve(
    gateway: Arc<Gateway>,
    client: Upgraded,
    tls: Arc<rustls::ServerConfig>,
    target: Target,
    token: String,
    mut stop: watch::Receiver<bool>,
) {
    let accepting = TlsAcceptor::from(tls).accept(TokioIo::new(client));
    let stream = match tokio::time::timeout(HEAD, accepting).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, host = target.hostname(), "TLS handshake"),
        Err(_) => return tracing::debug!(host = target.hostname(), "TLS handshake took too long"),
    };
    let speaks_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let activity = Arc::new(Activity::default());
    let stream = TokioIo::new(Watched::new(stream, Arc::clone(&activity)));
    let service = {
        let (gateway, activity) = (Arc::clone(&gateway), Arc::clone(&activity));
        let (target, token): (Arc<Target>, Arc<str>) = (Arc::new(target), token.into());
        let places = Arc::new(Semaphore::new(STREAMS as usize));
        service_fn(move |request| {
            let (gateway, target, token) = (Arc::clone(&gateway), Arc::clone(&target), Arc::clone(&token));
            let (places, busy) = (Arc::clone(&places), activity.busy());
            async move {
                let place = places.acquire_owned().await;
                // A stream that is reset gives its place back only when what it asked for has ended.
                let asked = tokio::spawn(async move {
                    let _until_then = (place, busy);
                    answer(gateway, &target, &token, request).await
                });
                let ended = |_| refuse(&Problem::new(Code::Overloaded, "the request ended without an answer"));
                Ok::<_, Infallible>(asked.await.unwrap_or_else(ended))
            }
        })
    };
    let limits = gateway.live.load().config.proxy.clone();
    let clock = &*gateway.clock;
    let over = async {
        tokio::select! {
            () = activity.ceases(clock, limits.idle_ms) => {}
            () = clock.sleep(limits.longest_ms) => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
    };
    let ended = if speaks_http2 {
        let connection = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS)
            .max_header_list_size(u32::try_from(MAX_HEAD).unwrap_or(u32::MAX))
            .serve_connection(stream, service);
        let mut connection = pin!(connection);
        tokio::select! {
            ended = connection.as_mut() => ended,
            () = over => {
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    ended = connection => ended,
                    () = activity.ceases(clock, limits.idle_ms.min(LEAVE_MS)) => Ok(()),
                    () = clock.sleep(LEAVE_AT_MOST_MS) => Ok(()),
                }
            }
        }
    } else {
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD)
            .max_buf_size(MAX_HEAD)
            .serve_connection(stream, service);
        let mut connection = pin!(connection);
        tokio::select! {
            ended = connection.as_mut() => ended,
            () = over => {
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    ended = connection => ended,
                    () = activity.ceases(clock, limits.idle_ms.min(LEAVE_MS)) => Ok(()),
                    () = clock.sleep(LEAVE_AT_MOST_MS) => Ok(()),
                }
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "an intercepted connection ended");
    }
}

async fn answer(gateway: Arc<Gateway>, target: &Target, token: &str, request: Request<Incoming>) -> Answer {
    let answered = match meant(target, &request) {
        Ok(target) => exchange(Arc::clone(&gateway), token, target, request).await,
        Err(problem) => Err(problem),
    };
    answered.unwrap_or_else(|problem| refused(&gateway, &problem))
}

/// What a request asks for, which must be at the host that the connection was made to.
fn meant(connected: &Target, request: &Request<Incoming>) -> Result<Target, Problem> {
    if request.method() == Method::CONNECT {
        return Err(bad("a CONNECT within a connection"));
    }
    wire::within(connected, request.uri(), request.headers()).map_err(bad)
}
