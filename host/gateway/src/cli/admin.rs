//! Talking to a running gateway's admin API.

use bytes::Bytes;
use clap::{Args, Subcommand};
use countersign_core::web::{Scheme, Target};
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use http::{Method, Request};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use super::listing::{column, print};
use super::{Failure, Outcome, Remote, inspect, operator_token, say};
use crate::config::Environment;

/// Largest answer read, in bytes.
const MAX_ANSWER: usize = 64 << 20;

/// Sessions of agents.
#[derive(Subcommand)]
pub(super) enum Sessions {
    /// Every session.
    List(Remote),
    /// Open one; its token is printed once.
    Open {
        #[command(flatten)]
        remote: Remote,
        /// The agent it speaks for.
        #[arg(long)]
        agent: String,
        /// The most it may spend, such as 5.00.
        #[arg(long)]
        limit: String,
        /// The most payments it may make.
        #[arg(long)]
        max_payments: Option<u32>,
        /// Seconds until it ends.
        #[arg(long)]
        expires_in: Option<u32>,
        /// The person.
        #[arg(long)]
        user: Option<String>,
        /// The client.
        #[arg(long)]
        client: Option<String>,
        /// The project.
        #[arg(long)]
        project: Option<String>,
        /// The task.
        #[arg(long)]
        task: Option<String>,
    },
    /// Close one.
    Close {
        #[command(flatten)]
        remote: Remote,
        /// Its id.
        id: String,
    },
}

/// The kill switch.
#[derive(Subcommand)]
pub(super) enum Suspend {
    /// What is suspended.
    List(Remote),
    /// Suspend everything, or what is named.
    Add {
        #[command(flatten)]
        remote: Remote,
        #[command(flatten)]
        scope: Scope,
        /// Why.
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Lift a suspension.
    Lift {
        #[command(flatten)]
        remote: Remote,
        #[command(flatten)]
        scope: Scope,
    },
}

/// What to suspend; everything, if nothing is named.
#[derive(Args)]
#[group(multiple = false)]
pub(super) struct Scope {
    /// One agent.
    #[arg(long)]
    agent: Option<String>,
    /// One mandate.
    #[arg(long)]
    mandate: Option<String>,
    /// One wallet.
    #[arg(long)]
    wallet: Option<String>,
    /// One seller host.
    #[arg(long)]
    vendor: Option<String>,
}

impl Scope {
    fn pair(&self) -> Option<(&'static str, &str)> {
        let named =
            [("agent", &self.agent), ("mandate", &self.mandate), ("wallet", &self.wallet), ("vendor", &self.vendor)];
        named.into_iter().find_map(|(name, value)| Some((name, value.as_deref()?)))
    }
}

/// A gateway's admin API.
pub(super) struct Client {
    base: Target,
    token: String,
}

/// Nobody listens there.
pub(super) struct NotRunning(pub(super) String);

/// A connection to one of the gateway's listeners, if it is running there.
pub(super) async fn connect(base: &Target) -> Result<Result<SendRequest<Full<Bytes>>, NotRunning>, Failure> {
    let stream = match TcpStream::connect((base.hostname(), base.port())).await {
        Ok(stream) => stream,
        Err(error) => return Ok(Err(NotRunning(format!("no gateway answers at {}: {error}", base.origin())))),
    };
    if base.scheme() != Scheme::Https && !stream.peer_addr()?.ip().is_loopback() {
        let why = format!("{}: a token is sent to other machines over TLS only", base.origin());
        return Err(Failure::new(why).hint("use https://"));
    }
    if base.scheme() == Scheme::Https {
        let name = rustls::pki_types::ServerName::try_from(base.hostname().to_owned())?;
        let stream = crate::egress::tls().connect(name, stream).await?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        return Ok(Ok(sender));
    }
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(Ok(sender))
}

impl Client {
    /// From `--admin` or the configuration, with the operator's token.
    pub(super) fn new(remote: &Remote, environment: &Environment) -> Result<Self, Failure> {
        let token = operator_token(environment)?;
        let url = match &remote.admin {
            Some(url) => url.clone(),
            None => {
                let gateway = inspect(&remote.listing.common)?.gateway;
                let scheme = if gateway.tls.is_some() { "https" } else { "http" };
                format!("{scheme}://{}", gateway.admin)
            }
        };
        let base = Target::parse(&url).map_err(|e| Failure::new(format!("--admin: {e}")))?;
        Ok(Self { base, token })
    }

    /// Calls the API; none if no gateway is running there.
    pub(super) async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<Result<Value, NotRunning>, Failure> {
        let mut sender = match connect(&self.base).await? {
            Ok(sender) => sender,
            Err(not_running) => return Ok(Err(not_running)),
        };
        let mut request = Request::new(Full::new(body.map_or_else(Bytes::new, |b| b.to_string().into())));
        *request.method_mut() = method;
        *request.uri_mut() = path.parse()?;
        let headers = request.headers_mut();
        headers.insert(HOST, HeaderValue::from_str(&self.base.host_header())?);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(AUTHORIZATION, HeaderValue::from_str(&format!("Bearer {}", self.token))?);
        let response = sender.send_request(request).await?;
        let status = response.status();
        let bytes = Limited::new(response.into_body(), MAX_ANSWER)
            .collect()
            .await
            .map_err(|e| Failure::new(e.to_string()))?
            .to_bytes();
        let answer: Value = serde_json::from_slice(&bytes)?;
        if status.is_success() {
            return Ok(Ok(answer));
        }
        let text = |name: &str| answer.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        Err(Failure::new(format!("{}: {}", text("code"), text("detail"))))
    }

    /// Calls the API of a gateway that must be running.
    pub(super) async fn must(&self, method: Method, path: &str, body: Option<Value>) -> Result<Value, Failure> {
        let answered = self.call(method, path, body).await?;
        answered.map_err(|NotRunning(why)| {
            Failure::new(why).hint("start it with `countersign serve`, or name it with --admin")
        })
    }
}

pub(super) async fn sessions(command: Sessions, environment: &Environment) -> Outcome {
    match command {
        Sessions::List(remote) => {
            let answer = Client::new(&remote, environment)?.must(Method::GET, "/v1/sessions", None).await?;
            print(
                remote.listing.json,
                &answer,
                &[
                    column("ID", "/id"),
                    column("AGENT", "/agent"),
                    column("LIMIT", "/limit"),
                    column("EXPIRES", "/expires_at"),
                    column("CLOSED", "/closed_at"),
                ],
            );
        }
        Sessions::Open { remote, agent, limit, max_payments, expires_in, user, client, project, task } => {
            let body = json!({"agent": agent, "limit": limit, "max_payments": max_payments, "expires_in": expires_in,
                "user": user, "client": client, "project": project, "task": task});
            let answer = Client::new(&remote, environment)?.must(Method::POST, "/v1/sessions", Some(body)).await?;
            say(format_args!("{answer:#}"));
        }
        Sessions::Close { remote, id } => {
            let answer = Client::new(&remote, environment)?
                .must(Method::DELETE, &format!("/v1/sessions/{}", encode(&id)), None)
                .await?;
            say(format_args!("{answer:#}"));
        }
    }
    Ok(())
}

pub(super) async fn suspend(command: Suspend, environment: &Environment) -> Outcome {
    let (method, remote, path, body) = match &command {
        Suspend::List(remote) => (Method::GET, remote, "/v1/suspend".to_owned(), None),
        Suspend::Add { remote, scope, reason } => {
            let mut body = json!({"reason": reason});
            if let (Some((name, value)), Some(map)) = (scope.pair(), body.as_object_mut()) {
                map.insert(name.to_owned(), value.into());
            }
            (Method::POST, remote, "/v1/suspend".to_owned(), Some(body))
        }
        Suspend::Lift { remote, scope } => {
            let query = scope.pair().map_or_else(String::new, |(name, value)| format!("?{name}={}", encode(value)));
            (Method::DELETE, remote, format!("/v1/suspend{query}"), None)
        }
    };
    let answer = Client::new(remote, environment)?.must(method, &path, body).await?;
    say(format_args!("{answer:#}"));
    Ok(())
}

pub(super) fn encode(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}
