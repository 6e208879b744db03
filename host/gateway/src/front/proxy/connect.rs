//! `CONNECT`: who may have a connection to where, and what becomes of it.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use countersign_ca::Host;
use countersign_core::web::{Scheme, Target};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::tunnel::{self, Place};
use super::{bad, intercept, known, token};
use crate::clock::random;
use crate::config::{Config, Door, HostPattern};
use crate::front::Answer;
use crate::front::tls::connected_as;
use crate::identity::Caller;
use crate::problem::{Code, Problem};
use crate::purchase::{before_payment, full, mandate};
use crate::state::Gateway;

/// What comes after the requests of a connection, if one of them was a `CONNECT` that was granted.
#[derive(Clone, Default)]
pub(in crate::front) struct Next(Arc<Mutex<Option<Granted>>>);

impl Next {
    fn set(&self, granted: Granted) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(granted);
    }

    /// Carries what was granted to its end.
    pub(in crate::front) async fn run(&self, gateway: Arc<Gateway>, stop: watch::Receiver<bool>) {
        let granted = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Granted { upgrade, token, kind, _place }) = granted else { return };
        let client = match upgrade.await {
            Ok(client) => client,
            Err(error) => return tracing::debug!(%error, "a client left before its connection was made"),
        };
        match kind {
            Kind::Blind(seller) => tunnel::carry(&gateway, client, seller, &token, stop).await,
            Kind::Intercepted(tls, target) => intercept::serve(gateway, client, tls, target, token, stop).await,
        }
    }
}

/// A connection that somebody may have.
struct Granted {
    upgrade: OnUpgrade,
    token: String,
    kind: Kind,
    _place: Place,
}

enum Kind {
    /// To a seller, unread.
    Blind(TcpStream),
    /// To us in the name of a seller.
    Intercepted(Arc<rustls::ServerConfig>, Target),
}

/// Grants a connection, or says why not.
pub(super) async fn open(gateway: &Arc<Gateway>, request: Request<Incoming>, next: &Next) -> Result<Answer, Problem> {
    let token = token(request.headers())?;
    let (snapshot, caller) = known(gateway, &token).await?;
    let config = &snapshot.config;
    connected_as(&request, config, &caller.principal.agent)?;
    let authority = request.uri().authority().map(http::uri::Authority::as_str).unwrap_or_default();
    let target = countersign_wire::proxy::connect(authority, request.headers()).map_err(bad)?;
    mandate(config, &caller.principal, Door::Proxy)?;
    let agent = &caller.principal.agent;
    let place = gateway.tunnels.take(agent, config.proxy.tunnels_per_agent).ok_or_else(|| {
        let most = config.proxy.tunnels_per_agent;
        Problem::new(Code::RateLimited, format!("`{agent}` has {most} connections through the proxy already"))
    })?;
    let route = gateway.dialer.route(target, &config.egress).await.map_err(before_payment)?;
    let kind = if is_intercepted(config, &caller, &route.target) {
        let tls = certified(gateway, &route.target)?;
        Kind::Intercepted(tls, route.target)
    } else {
        Kind::Blind(gateway.dialer.tunnel(&route).await.map_err(before_payment)?)
    };
    next.set(Granted { upgrade: hyper::upgrade::on(request), token, kind, _place: place });
    Ok(Response::new(full(Bytes::new())))
}

/// Whether TLS to there is ours to terminate: because the file says so, or the caller's session.
fn is_intercepted(config: &Config, caller: &Caller, target: &Target) -> bool {
    let (host, port) = (target.hostname(), target.port());
    let default = Scheme::Https.default_port();
    let mut own = caller.intercept.iter().filter_map(|text| HostPattern::parse(text));
    config.proxy.intercepts(host, port) || own.any(|pattern| pattern.matches(host, port, default))
}

/// TLS as a seller. No certificate, no connection.
fn certified(gateway: &Gateway, target: &Target) -> Result<Arc<rustls::ServerConfig>, Problem> {
    let host = target.ip().map_or_else(|| Host::Name(target.hostname().to_owned()), Host::Address);
    let now = gateway.clock.now()?.as_secs();
    let made = gateway.vouch.leaves().map_err(|e| e.to_string());
    let serial = random(&*gateway.clock)?;
    made.and_then(|leaves| leaves.server(&host, now, serial).map_err(|e| e.to_string())).map_err(|error| {
        tracing::error!(error, host = target.hostname(), "no certificate");
        Problem::new(Code::Overloaded, "the gateway cannot make a certificate for this host; nothing was sent")
    })
}
