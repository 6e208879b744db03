//! Accepting connections: bounded, with patience for heads, drained on shutdown.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use http::header::{CONNECTION, HeaderValue};
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::{Semaphore, watch};

use super::linger::{Lingering, Lingers};
use super::tls::{Certificate, Terminator};
use super::{Admin, Answer, admin, agent, proxy, refuse};
use crate::problem::{Code, Problem};
use crate::state::Gateway;

/// Connections served at the same time, per door.
const MAX_CONNECTIONS: usize = 4_096;
/// Connections beyond those, of clients that are being told to come back.
const MAX_TURNED_AWAY: usize = 64;
/// Connections waiting to be accepted; the kernel may cap it.
const BACKLOG: u32 = 4_096;
/// How long a client may take to send the head of a request.
pub(super) const HEAD: Duration = Duration::from_secs(20);
/// How long calls may take to end once the gateway stops.
const LEAVE: Duration = Duration::from_secs(60);
/// Largest head of a request, in bytes.
pub(super) const MAX_HEAD: usize = 64 * 1024;

/// Which door a listener is.
#[derive(Clone)]
pub enum Door {
    /// Agents.
    Agent(Arc<Gateway>),
    /// Operators.
    Admin(Admin),
    /// Nobody, as long as all connections are taken.
    Full,
}

impl Door {
    /// Answers a request; what comes after all requests is left in `next`.
    async fn answer(self, request: Request<Incoming>, next: &proxy::Next) -> Answer {
        match self {
            Self::Agent(gateway) if proxy::is_meant(&request) => proxy::handle(gateway, request, next).await,
            Self::Agent(gateway) => agent::handle(gateway, request).await,
            Self::Admin(admin) => Box::pin(admin::handle(admin, request)).await,
            Self::Full => turn_away(),
        }
    }
}

fn turn_away() -> Answer {
    let mut answer = refuse(&Problem::new(Code::Overloaded, "all connections are taken; nothing was signed"));
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    answer
}

/// A bound listener, with TLS if configured.
pub struct Acceptor {
    /// The socket.
    pub listener: TcpListener,
    /// TLS, required for anything but loopback.
    pub tls: Option<Terminator>,
}

impl Acceptor {
    /// Binds.
    ///
    /// # Errors
    /// When the address is taken or not ours.
    pub fn bind(address: SocketAddr, tls: Option<Terminator>) -> io::Result<Self> {
        // The usual queue of 128 would make a burst of agents wait a second and more for a retried SYN.
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        Ok(Self { listener: socket.listen(BACKLOG)?, tls })
    }
}

/// Serves until `stop` changes, then lets running answers end.
pub async fn serve(acceptor: Acceptor, door: Door, mut stop: watch::Receiver<bool>) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let spare = Arc::new(Semaphore::new(MAX_TURNED_AWAY));
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            _ = stop.changed() => break,
            accepted = acceptor.listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, most likely: let some connections end first.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::task::yield_now().await;
                continue;
            }
        };
        let (slot, door) = match Arc::clone(&slots).try_acquire_owned() {
            Ok(slot) => (slot, door.clone()),
            Err(_) => tokio::select! {
                biased;
                _ = stop.changed() => break,
                slot = Arc::clone(&spare).acquire_owned() => match slot {
                    Ok(slot) => (slot, Door::Full),
                    Err(_) => break,
                },
            },
        };
        let (stop, tls) = (stop.clone(), acceptor.tls.as_ref().map(Terminator::acceptor));
        connections.spawn(async move {
            let _slot = slot;
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "nodelay");
            }
            match tls {
                None => connection(stream, None, door, stop).await,
                Some(tls) => match tokio::time::timeout(HEAD, tls.accept(stream)).await {
                    Ok(Ok(stream)) => {
                        let certificate = Certificate::of(stream.get_ref().1);
                        connection(stream, certificate, door, stop).await;
                    }
                    Ok(Err(error)) => tracing::debug!(%error, "TLS handshake"),
                    Err(_) => tracing::debug!("TLS handshake took too long"),
                },
            }
        });
        while connections.try_join_next().is_some() {}
    }
    drop(acceptor);
    let ended = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(LEAVE, ended).await.is_err() {
        // Purchases are tasks of their own: what ends here is that somebody hears of them.
        tracing::warn!(
            left = connections.len(),
            "calls that do not end are cut off; what they bought is found by its id"
        );
        connections.shutdown().await;
    }
}

async fn connection<S>(stream: S, certificate: Option<Certificate>, door: Door, mut stop: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let next = proxy::Next::default();
    let lingers = Lingers::default();
    let service = service_fn(|mut request: Request<Incoming>| {
        let (door, next) = (door.clone(), next.clone());
        // A `CONNECT` has none, so what becomes a tunnel closes at once.
        lingers.set(!request.body().is_end_stream());
        if let Some(certificate) = &certificate {
            request.extensions_mut().insert(certificate.clone());
        }
        async move { Ok::<_, std::convert::Infallible>(door.answer(request, &next).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(Lingering::new(stream, lingers.clone())), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        biased;
        ended = connection.as_mut() => ended,
        _ = stop.changed() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    match (ended, door) {
        (Ok(()), Door::Agent(gateway)) => next.run(gateway, stop).await,
        (Ok(()), Door::Admin(_) | Door::Full) => {}
        (Err(error), _) => tracing::debug!(%error, "a client's connection ended"),
    }
}
