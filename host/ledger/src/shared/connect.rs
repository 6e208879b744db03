//! A connection to PostgreSQL: to the writable server, durable commits, every wait bounded, and words for what fails.

use std::error::Error as _;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::AbortHandle;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use tokio_postgres::{AsyncMessage, Client, Config, NoTls, Socket};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

/// How long a connection may take to be made, its authentication included.
const CONNECT: Duration = Duration::from_secs(5);
/// How long any one exchange may take. Longer than [`SETTINGS`] lets the server try.
pub(crate) const EXCHANGE: Duration = Duration::from_secs(12);

/// What every session begins with. A frozen gateway gives the ledger's lock back after six seconds; nobody waits for
/// it, or works on one statement, as long as an exchange may take.
const SETTINGS: &str = "SET idle_in_transaction_session_timeout='6s'; SET lock_timeout='8s';
    SET statement_timeout='10s'; SET synchronous_commit=on; SET default_transaction_isolation='read committed';
    SET TimeZone='UTC'; SET client_min_messages='warning'; SET search_path=''";

/// Where the database is, and how its server is believed.
#[derive(Clone)]
pub struct Database {
    config: Config,
    place: String,
    tls: bool,
    roots: Option<Arc<ClientConfig>>,
    /// How far ahead of the server's clock ours may be, in milliseconds.
    pub(crate) ahead: Option<u64>,
}

impl PartialEq for Database {
    fn eq(&self, other: &Self) -> bool {
        self.config == other.config
    }
}

impl Eq for Database {}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database").field("place", &self.place).finish_non_exhaustive()
    }
}

impl Database {
    /// Reads `postgres://user:password@host:port/database`. Other machines are reached over TLS only; on this one it is
    /// used if the URL says `sslmode=require`. A password given here replaces the URL's.
    ///
    /// # Errors
    /// Says what the URL lacks; never tells its password.
    pub fn new(url: &str, password: Option<&str>) -> Result<Self, String> {
        let mut config: Config =
            url.parse().map_err(|_| "it is not postgres://USER:PASSWORD@HOST:PORT/DATABASE".to_owned())?;
        let [host] = config.get_hosts() else { return Err("it must name one host".to_owned()) };
        let Host::Tcp(host) = host else { return Err("it must name a host, not a socket".to_owned()) };
        if !config.get_hostaddrs().is_empty() || config.get_ports().len() > 1 {
            return Err("it must name one host and one port, and nothing else to connect to".to_owned());
        }
        let host = host.clone();
        let port = config.get_ports().first().copied().unwrap_or(5432);
        let database = config.get_dbname().ok_or("it must name a database after the host")?.to_owned();
        if config.get_user().is_none_or(str::is_empty) {
            return Err("it must name a user before the host".to_owned());
        }
        let here = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        let tls = !here || config.get_ssl_mode() == SslMode::Require;
        if let Some(password) = password {
            config.password(password);
        }
        config.ssl_mode(if tls { SslMode::Require } else { SslMode::Disable });
        config.application_name("countersign").connect_timeout(CONNECT);
        config
            .keepalives_idle(Duration::from_secs(10))
            .keepalives_interval(Duration::from_secs(5))
            .keepalives_retries(3);
        config.tcp_user_timeout(Duration::from_secs(20));
        let place = format!("{host}:{port}/{database}");
        Ok(Self { config, place, roots: None, tls, ahead: None })
    }

    /// The same, whose server is believed by `roots`. Without them none is reached over TLS.
    #[must_use]
    pub fn believing(self, roots: Arc<ClientConfig>) -> Self {
        Self { roots: Some(roots), ..self }
    }

    /// The same, for a gateway whose clock may be this many milliseconds ahead of the server's: one that is further ahead
    /// would make all others wait until their clocks have caught up, and spend tomorrow's budgets.
    #[must_use]
    pub fn in_step(self, ahead: u64) -> Self {
        Self { ahead: Some(ahead), ..self }
    }

    /// The server's host and port: where nobody may be led to.
    #[must_use]
    pub fn address(&self) -> Option<(&str, u16)> {
        let [Host::Tcp(host)] = self.config.get_hosts() else { return None };
        Some((host, self.config.get_ports().first().copied().unwrap_or(5432)))
    }

    /// Whether the URL had a password, or one was given.
    #[must_use]
    pub fn has_password(&self) -> bool {
        self.config.get_password().is_some()
    }

    /// Host, port and database.
    #[must_use]
    pub fn place(&self) -> &str {
        &self.place
    }

    /// Connects within bounds. What the server says unasked goes to `heard`.
    pub(crate) async fn connect(
        &self,
        heard: impl FnMut(AsyncMessage) + Send + 'static,
    ) -> Result<(Client, AbortHandle), Trouble> {
        let connecting = async {
            let (client, driven) = match &self.roots {
                Some(roots) if self.tls => {
                    let (client, connection) = self.config.connect(Rustls(Arc::clone(roots))).await?;
                    (client, drive(connection, heard))
                }
                // Where TLS is asked for, this refuses: the configuration requires it and this cannot.
                _ => {
                    let (client, connection) = self.config.connect(NoTls).await?;
                    (client, drive(connection, heard))
                }
            };
            client.batch_execute(SETTINGS).await?;
            let row = client.query_one("SELECT pg_catalog.pg_is_in_recovery()", &[]).await?;
            Ok::<_, tokio_postgres::Error>((client, driven, row.try_get::<_, bool>(0)?))
        };
        match tokio::time::timeout(CONNECT, connecting).await {
            Ok(Ok((client, driven, false))) => Ok((client, driven)),
            Ok(Ok((_, _, true))) => {
                Err(Trouble::Away(format!("{} is a standby: name the server that may be written to", self.place)))
            }
            Ok(Err(e)) => Err(Trouble::Away(format!("{}: {}", self.place, words(&e)))),
            Err(_) => Err(Trouble::Away(format!("{} does not answer", self.place))),
        }
    }
}

/// Lets a connection work. It ends with its client, or at once when it is aborted.
fn drive<T>(
    mut connection: tokio_postgres::Connection<Socket, T>,
    mut heard: impl FnMut(AsyncMessage) + Send + 'static,
) -> AbortHandle
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let worked = async move {
        while let Some(Ok(message)) = std::future::poll_fn(|cx| connection.poll_message(cx)).await {
            heard(message);
        }
    };
    tokio::spawn(worked).abort_handle()
}

/// Why something was not done in the shared database.
#[derive(Clone, Debug)]
pub(crate) enum Trouble {
    /// It is not there, or does not want to now. Nothing was written; later it may work.
    Away(String),
    /// It was asked to commit, and did not answer.
    InDoubt(String),
    /// It is not what this copy follows, or it refused what the copy allowed. Nothing more may be written.
    Broken(String),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Away(why) => write!(f, "the ledger's database: {why}"),
            Self::InDoubt(why) => write!(f, "the ledger's database did not say whether it committed: {why}"),
            Self::Broken(why) => f.write_str(why),
        }
    }
}

impl From<crate::sql::Fault> for Trouble {
    fn from(fault: crate::sql::Fault) -> Self {
        if fault.is_passing() {
            return Self::Away(format!("somebody else writes to the local copy: {}", fault.told()));
        }
        Self::Broken(fault.told().to_string())
    }
}

/// What the server said, without what was sent to it.
pub(crate) fn words(e: &tokio_postgres::Error) -> String {
    if let Some(db) = e.as_db_error() {
        let hint = match db.code().code() {
            "3D000" => ": create it",
            "42501" => ": the user needs `CREATE` on the database once, and its own schema `countersign`",
            "28P01" | "28000" => ": check user and password",
            _ => "",
        };
        return format!("{}{hint} ({})", db.message(), db.code().code());
    }
    match e.source() {
        Some(cause) => format!("{e}: {cause}"),
        None => e.to_string(),
    }
}

/// TLS as the gateway speaks it everywhere.
#[derive(Clone)]
struct Rustls(Arc<ClientConfig>);

impl MakeTlsConnect<Socket> for Rustls {
    type Stream = Stream;
    type TlsConnect = Connecting;
    type Error = io::Error;

    fn make_tls_connect(&mut self, host: &str) -> io::Result<Connecting> {
        let name = ServerName::try_from(host.to_owned()).map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))?;
        Ok(Connecting { config: Arc::clone(&self.0), name })
    }
}

struct Connecting {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

type Shaking = Pin<Box<dyn Future<Output = io::Result<Stream>> + Send>>;

impl TlsConnect<Socket> for Connecting {
    type Stream = Stream;
    type Error = io::Error;
    type Future = Shaking;

    fn connect(self, socket: Socket) -> Shaking {
        Box::pin(async move {
            let stream = TlsConnector::from(self.config).connect(self.name, socket).await?;
            Ok(Stream(stream))
        })
    }
}

/// A TLS stream that is not bound to SCRAM: the certificate was verified by name.
struct Stream(tokio_rustls::client::TlsStream<Socket>);

impl TlsStream for Stream {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
