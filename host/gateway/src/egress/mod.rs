//! The one dialer. Every connection to a seller is made here: the name is resolved once, addresses
//! that are not global are refused unless configured, and what was resolved is what is connected
//! to. Proxy variables do not exist for it.

mod names;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use countersign_core::seams::Clock;
use countersign_core::web::egress::is_global;
use countersign_core::web::{Scheme, Target};
use http::{Request, Response};
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

pub use self::names::{Names, SystemNames};
use crate::config::Egress;
use crate::problem::{Code, Problem};

/// How long a seller may take.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For a connection, TLS included, in milliseconds.
    pub connect_ms: u64,
    /// For the head of an answer, in milliseconds.
    pub head_ms: u64,
    /// For the next piece of a body, in milliseconds.
    pub idle_ms: u64,
    /// For a whole answer that is only of use as a whole, once its head has come, in milliseconds.
    pub whole_ms: u64,
}

impl Default for Patience {
    fn default() -> Self {
        Self { connect_ms: 10_000, head_ms: 60_000, idle_ms: 30_000, whole_ms: 120_000 }
    }
}

/// Largest head of an answer, in bytes.
const MAX_HEAD: usize = 160 * 1024;

/// Why a call did not get an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallError {
    /// The guard refused the address. Nothing was sent.
    Forbidden(String),
    /// No connection. Nothing was sent.
    Unreachable(String),
    /// Something may have been sent, and no usable answer came.
    Broken(String),
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Forbidden(why) | Self::Unreachable(why) | Self::Broken(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for CallError {}

/// A body on its way.
pub type Body = UnsyncBoxBody<Bytes, CallError>;

/// TLS towards others: Mozilla's roots, HTTP/1.1, no client certificate.
#[must_use]
pub fn tls() -> TlsConnector {
    connector(rustls::RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() })
}

/// As [`tls`], believing the certificates in a PEM file, too.
///
/// # Errors
/// When the file cannot be read, or one of them cannot be believed.
pub fn tls_believing(file: &Path) -> Result<TlsConnector, String> {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;
    let fail = |why: &dyn fmt::Display| format!("{}: {why}", file.display());
    let mut roots = rustls::RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    for certificate in CertificateDer::pem_file_iter(file).map_err(|e| fail(&e))? {
        roots.add(certificate.map_err(|e| fail(&e))?).map_err(|e| fail(&e))?;
    }
    Ok(connector(roots))
}

fn connector(roots: rustls::RootCertStore) -> TlsConnector {
    let mut config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    TlsConnector::from(Arc::new(config))
}

/// Connects to sellers.
pub struct Dialer {
    tls: TlsConnector,
    clock: Arc<dyn Clock>,
    names: Box<dyn Names>,
    /// Addresses no purchase may ever reach: our listeners and the chain nodes.
    own: RwLock<Vec<SocketAddr>>,
    patience: Patience,
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialer").finish_non_exhaustive()
    }
}

/// Where a purchase goes: the parsed URL and the one address it was resolved to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The URL.
    pub target: Target,
    /// The address that will be connected to, now and for the paid request.
    pub address: SocketAddr,
    /// The operator listed this address, so plain http may be paid.
    pub listed: bool,
}

impl Route {
    /// Payments go over https, except to addresses the operator listed: now, whenever a payment is
    /// presented, and not only when it was decided.
    ///
    /// # Errors
    /// `egress-forbidden`.
    pub fn carries_payments(&self) -> Result<(), Problem> {
        if self.listed || self.target.scheme() == Scheme::Https {
            return Ok(());
        }
        let detail = "payments go over https, except to addresses listed in egress.allow-private";
        Err(Problem::new(Code::EgressForbidden, detail))
    }
}

/// An open connection to a seller.
pub struct Connection {
    sender: http1::SendRequest<Body>,
}

impl Dialer {
    /// A dialer for sellers, who are where `names` says.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, tls: TlsConnector, names: Box<dyn Names>, patience: Patience) -> Self {
        Self { tls, clock, names, own: RwLock::default(), patience }
    }

    /// Replaces the addresses that no purchase may reach.
    pub fn set_own(&self, own: Vec<SocketAddr>) {
        *self.own.write().unwrap_or_else(PoisonError::into_inner) = own;
    }

    /// Resolves a target and applies the guard. The name is asked for once: what is connected to, as often as this
    /// route is, is the address that was looked at here, whatever the name says by then.
    ///
    /// # Errors
    /// [`CallError::Forbidden`] when no permitted address is left, [`CallError::Unreachable`] when
    /// the name does not resolve.
    pub async fn route(&self, target: Target, egress: &Egress) -> Result<Route, CallError> {
        let (host, port) = (target.hostname().to_owned(), target.port());
        let addresses = match target.ip() {
            Some(ip) => vec![SocketAddr::new(ip, port)],
            None => self.resolve(&host, port).await?,
        };
        let mut refused = None;
        for address in addresses {
            match self.permit(&target, address, egress) {
                Ok(listed) => return Ok(Route { target, address, listed }),
                Err(why) => refused = Some(why),
            }
        }
        let why = refused.unwrap_or_else(|| format!("{host} has no address"));
        Err(CallError::Forbidden(why))
    }

    async fn resolve(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, CallError> {
        let lookup = self.within(self.patience.connect_ms, self.names.addresses(host, port)).await;
        let found = lookup
            .ok_or_else(|| CallError::Unreachable(format!("{host} does not resolve in time")))?
            .map_err(|e| CallError::Unreachable(format!("{host} does not resolve: {e}")))?;
        Ok(found.into_iter().take(16).collect())
    }

    /// Whether `address` may be connected to; true if the operator listed it.
    fn permit(&self, target: &Target, address: SocketAddr, egress: &Egress) -> Result<bool, String> {
        let ip = address.ip().to_canonical();
        let port = address.port();
        let own = |o: &SocketAddr| {
            o.port() == port && (o.ip().to_canonical() == ip || (o.ip().is_unspecified() && !is_global(ip)))
        };
        if self.own.read().unwrap_or_else(PoisonError::into_inner).iter().any(own) {
            return Err(format!("{address} is the gateway's own"));
        }
        let listed = egress.allows(target.hostname(), ip, port);
        if !listed && !is_global(address.ip()) {
            return Err(format!("{address} is not a public address and is not listed in egress.allow-private"));
        }
        if !egress.allows_port(target.hostname(), ip, port) {
            return Err(format!("port {port} is not listed in egress.ports"));
        }
        Ok(listed)
    }

    /// Connects to the resolved address, with TLS for https.
    ///
    /// # Errors
    /// [`CallError::Unreachable`].
    pub async fn connect(&self, route: &Route) -> Result<Connection, CallError> {
        let name = route.target.hostname();
        let connected = self.within(self.patience.connect_ms, self.open(route)).await;
        connected
            .ok_or_else(|| CallError::Unreachable(format!("{name} does not accept a connection in time")))?
            .map_err(|e| CallError::Unreachable(format!("{name}: {e}")))
    }

    async fn open(&self, route: &Route) -> Result<Connection, Box<dyn std::error::Error + Send + Sync>> {
        let stream = TcpStream::connect(route.address).await?;
        stream.set_nodelay(true)?;
        if route.target.scheme() == Scheme::Http {
            return Ok(handshake(stream).await?);
        }
        let name = rustls::pki_types::ServerName::try_from(route.target.hostname().to_owned())?;
        Ok(handshake(self.tls.connect(name, stream).await?).await?)
    }

    /// A connection to the resolved address that carries whatever is spoken there.
    ///
    /// # Errors
    /// [`CallError::Unreachable`].
    pub async fn tunnel(&self, route: &Route) -> Result<TcpStream, CallError> {
        let name = route.target.hostname();
        let connected = self.within(self.patience.connect_ms, TcpStream::connect(route.address)).await;
        let stream = connected
            .ok_or_else(|| CallError::Unreachable(format!("{name} does not accept a connection in time")))?
            .map_err(|e| CallError::Unreachable(format!("{name}: {e}")))?;
        stream.set_nodelay(true).map_err(|e| CallError::Unreachable(format!("{name}: {e}")))?;
        Ok(stream)
    }

    /// Sends one request and waits for the head of the answer.
    ///
    /// # Errors
    /// [`CallError::Broken`]: whether anything was sent is not known.
    pub async fn send(
        &self,
        connection: &mut Connection,
        request: Request<Body>,
    ) -> Result<Response<Incoming>, CallError> {
        self.send_while(connection, request, std::future::ready(())).await
    }

    /// As [`Self::send`], for a body that takes its time: the answer is waited for from when `uploaded` is.
    ///
    /// # Errors
    /// As for [`Self::send`].
    pub async fn send_while(
        &self,
        connection: &mut Connection,
        request: Request<Body>,
        uploaded: impl Future<Output = ()>,
    ) -> Result<Response<Incoming>, CallError> {
        let patience = async {
            uploaded.await;
            self.clock.sleep(self.patience.head_ms).await;
        };
        tokio::select! {
            biased;
            answer = connection.sender.send_request(request) => answer.map_err(|e| CallError::Broken(describe(&e))),
            () = patience => Err(CallError::Broken(format!("no answer within {} ms", self.patience.head_ms))),
        }
    }

    /// Waits for something that must move on, within the patience for a piece of a body; none: it did not.
    pub async fn moving<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        self.within(self.patience.idle_ms, future).await
    }

    /// The next piece of a body, within the patience for it.
    ///
    /// # Errors
    /// [`CallError::Broken`].
    pub async fn next_frame(&self, body: &mut Incoming) -> Result<Option<Frame<Bytes>>, CallError> {
        let next = self.within(self.patience.idle_ms, frame(body)).await;
        next.unwrap_or_else(|| Err(CallError::Broken("the body stopped arriving".to_owned())))
    }

    /// Waits for a whole answer, however it comes; none: it took too long.
    pub async fn whole<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        self.within(self.patience.whole_ms, future).await
    }

    /// A whole body of at most `limit` bytes; none if it is larger. All of it must arrive within the
    /// patience for one piece: a seller that sends a byte at a time holds nothing up for long.
    ///
    /// # Errors
    /// [`CallError::Broken`].
    pub async fn read(&self, body: &mut Incoming, limit: usize) -> Result<Option<Vec<u8>>, CallError> {
        let whole = self.within(self.patience.idle_ms, self.collect(body, limit)).await;
        whole.unwrap_or_else(|| Err(CallError::Broken("the body did not arrive in time".to_owned())))
    }

    async fn collect(&self, body: &mut Incoming, limit: usize) -> Result<Option<Vec<u8>>, CallError> {
        let mut bytes = Vec::new();
        while let Some(frame) = self.next_frame(body).await? {
            if let Ok(data) = frame.into_data() {
                if bytes.len().saturating_add(data.len()) > limit {
                    return Ok(None);
                }
                bytes.extend_from_slice(&data);
            }
        }
        Ok(Some(bytes))
    }

    /// Waits for `future`, at most `millis`.
    pub async fn within<T>(&self, millis: u64, future: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            value = future => Some(value),
            () = self.clock.sleep(millis) => None,
        }
    }
}

impl Connection {
    /// The connection, if another request can be sent on it.
    pub async fn still_open(connection: Option<Self>) -> Option<Self> {
        let mut open = connection?;
        let usable = !open.sender.is_closed() && open.sender.ready().await.is_ok();
        usable.then_some(open)
    }
}

/// The next piece of a body. Who calls this bounds the time.
///
/// # Errors
/// [`CallError::Broken`].
pub(crate) async fn frame(body: &mut Incoming) -> Result<Option<Frame<Bytes>>, CallError> {
    body.frame().await.transpose().map_err(|error| CallError::Broken(describe(&error)))
}

async fn handshake<S>(stream: S) -> Result<Connection, hyper::Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, driver) = http1::Builder::new().max_buf_size(MAX_HEAD).handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move {
        if let Err(error) = driver.await {
            tracing::debug!(%error, "a connection to a seller ended");
        }
    });
    Ok(Connection { sender })
}

/// The error and what caused it, in one line.
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}
