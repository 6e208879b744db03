//! Who is calling: token to principal. What the agent merely says is not looked at here.

mod claims;
mod issuers;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use countersign_core::id::SessionId;
use countersign_core::ledger::PaymentView;
use countersign_core::money::Micros;
use countersign_core::spend::Principal;
use countersign_core::time::Timestamp;
use sha2::{Digest, Sha256};

pub use issuers::Issuers;

use crate::config::{Config, OperatorConfig, Secret};
use crate::problem::{Code, Problem};
use crate::state::Gateway;
use countersign_wire::jose::{self, Refused, Unverified};
use issuers::{NoKey, Way};

/// An authenticated agent.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Who it is, from token, session and configuration only.
    pub principal: Principal,
    /// The session, when the token was a session's.
    pub session: Option<SessionId>,
    /// What the session may spend.
    pub bounds: Option<Bounds>,
    /// Hosts whose TLS the forward proxy terminates for the session, as patterns.
    pub intercept: Vec<String>,
    /// What it was known by, to look again after a wait.
    proof: Proof,
}

/// What somebody is known by.
#[derive(Clone, Debug)]
enum Proof {
    /// Digest of a token of ours.
    Digest(String),
    /// A JWT of an issuer's.
    Jwt(Secret),
}

/// What a session may spend.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// The session.
    pub session: SessionId,
    /// At most this much.
    pub limit: Micros,
    /// In at most this many payments.
    pub max_payments: u32,
}

impl Caller {
    /// Whether a payment is the caller's to read, repeat and judge: its agent's, and no more than its session
    /// or its JWT is for. An agent's own token is for all of them.
    #[must_use]
    pub fn owns(&self, payment: &PaymentView) -> bool {
        let workspace = self.principal.workspace.as_deref().unwrap_or_default();
        payment.key.agent == self.principal.agent
            && payment.key.workspace == workspace
            && (self.session.is_none() || payment.session == self.session)
            && self.is_for(&payment.facts.principal)
    }

    /// Whether a JWT is for the user, client, project and task of somebody's purchase; other tokens are not
    /// for any in particular.
    #[must_use]
    pub fn is_for(&self, other: &Principal) -> bool {
        let chain = |p: &Principal| [&p.user, &p.client, &p.project, &p.task].map(Clone::clone);
        matches!(self.proof, Proof::Digest(_)) || chain(&self.principal) == chain(other)
    }
}

/// SHA-256 of a token, lower-case hex: the only form in which tokens are kept.
#[must_use]
pub fn token_sha256(token: &str) -> String {
    hex::encode(Sha256::digest(token.as_bytes()))
}

/// The token of the one `Authorization: Bearer` header. Of two, somebody before us may have looked at the other.
#[must_use]
pub fn bearer(headers: &http::HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(http::header::AUTHORIZATION).iter();
    let (value, None) = (values.next()?.to_str().ok()?, values.next()) else { return None };
    let (scheme, token) = value.split_once(' ')?;
    (scheme.eq_ignore_ascii_case("bearer") && !token.trim().is_empty()).then_some(token.trim())
}

fn unauthenticated() -> Problem {
    Problem::new(Code::Unauthenticated, "send one `Authorization: Bearer <agent or session token, or JWT>`")
}

/// The agent or session a token belongs to.
///
/// # Errors
/// `unauthenticated`, `session-expired` for a session that is over, or `issuer-unavailable` for a JWT that
/// nobody can check now.
pub async fn agent(token: Option<&str>, gateway: &Gateway, config: &Config, now: Timestamp) -> Result<Caller, Problem> {
    let token = token.ok_or_else(unauthenticated)?;
    let digest = token_sha256(token);
    let is_it = |agent: &crate::config::AgentConfig| agent.token_sha256.as_ref() == Some(&digest);
    let proof = if jose::is_meant(token) && !config.agents.values().any(is_it) {
        Proof::Jwt(Secret::new(token))
    } else {
        Proof::Digest(digest)
    };
    by_proof(proof, gateway, config, now).await
}

/// The same caller, as it is now.
///
/// # Errors
/// As for [`agent`].
pub async fn again(caller: &Caller, gateway: &Gateway, config: &Config, now: Timestamp) -> Result<Caller, Problem> {
    by_proof(caller.proof.clone(), gateway, config, now).await
}

async fn by_proof(proof: Proof, gateway: &Gateway, config: &Config, now: Timestamp) -> Result<Caller, Problem> {
    match proof {
        Proof::Digest(digest) => by_digest(digest, gateway, config, now).await,
        Proof::Jwt(token) => {
            let principal = by_jwt(token.expose(), gateway, config, now).await?;
            Ok(Caller { principal, session: None, bounds: None, intercept: Vec::new(), proof: Proof::Jwt(token) })
        }
    }
}

async fn by_digest(digest: String, gateway: &Gateway, config: &Config, now: Timestamp) -> Result<Caller, Problem> {
    if let Some((name, _)) = config.agents.iter().find(|(_, a)| a.token_sha256.as_ref() == Some(&digest)) {
        let principal = principal(config, name).ok_or_else(unauthenticated)?;
        let proof = Proof::Digest(digest);
        return Ok(Caller { principal, session: None, bounds: None, intercept: Vec::new(), proof });
    }
    let session = gateway.ledger.session_by_token(digest.clone()).await?.ok_or_else(unauthenticated)?;
    // An agent removed from the configuration takes its sessions with it.
    let mut principal = principal(config, &session.agent).ok_or_else(unauthenticated)?;
    if session.closed_at.is_some() || session.expires_at <= now {
        return Err(Problem::new(Code::SessionExpired, "the session is closed or over; ask for a new one"));
    }
    principal.session = Some(session.id.to_string());
    principal.user = session.user.or(principal.user);
    principal.client = session.client;
    principal.project = session.project;
    principal.task = session.task;
    let bounds = Bounds { session: session.id, limit: session.limit, max_payments: session.max_payments };
    let (intercept, proof) = (session.intercept, Proof::Digest(digest));
    Ok(Caller { principal, session: Some(session.id), bounds: Some(bounds), intercept, proof })
}

/// Whom a JWT speaks for now: its issuer, keys and times are looked at each time.
async fn by_jwt(token: &str, gateway: &Gateway, config: &Config, now: Timestamp) -> Result<Principal, Problem> {
    if config.issuers.is_empty() {
        return Err(unauthenticated());
    }
    let token = Unverified::parse(token).map_err(refused)?;
    let claims = token.claims().map_err(refused)?;
    let said = claims.get("iss").and_then(countersign_core::json::Json::as_str);
    let found = config.issuers.iter().find(|(_, issuer)| said == Some(&issuer.issuer));
    let (name, issuer) = found.ok_or_else(|| refused("its issuer is not known here"))?;
    let way = || Way { dialer: Arc::clone(&gateway.dialer), egress: config.egress.clone() };
    let key = gateway.issuers.key((name, issuer), &token.kid, way, now).await.map_err(|no| match no {
        NoKey::Unknown => refused("its issuer has no such key"),
        NoKey::Unavailable => {
            let detail = format!("the keys of issuer `{name}` cannot be had now, so nobody can check this JWT");
            Problem::new(Code::IssuerUnavailable, detail)
        }
    })?;
    whom(&token, &key, name, config, now).map_err(refused)
}

/// Whom a JWT speaks for, if `key` is the one it names.
fn whom(
    token: &Unverified<'_>,
    key: &jose::Key,
    name: &str,
    config: &Config,
    now: Timestamp,
) -> Result<Principal, Refused> {
    let issuer = config.issuers.get(name).ok_or("its issuer is not known here")?;
    let claims = token.verified(key, |algorithm| issuer.algorithms.contains(&algorithm))?;
    claims::check(&claims, issuer, now)?;
    claims::principal(&claims, name, config)
}

fn refused(why: Refused) -> Problem {
    Problem::new(Code::Unauthenticated, format!("the JWT is refused: {why}"))
}

fn principal(config: &Config, name: &str) -> Option<Principal> {
    let agent = config.agents.get(name)?;
    Some(Principal {
        agent: name.to_owned(),
        user: agent.user.clone(),
        workspace: agent.workspace.clone(),
        roles: agent.roles.iter().cloned().collect(),
        ..Principal::default()
    })
}

/// The operator a token belongs to.
///
/// # Errors
/// `unauthenticated`.
pub fn operator<'a>(token: Option<&str>, config: &'a Config) -> Result<(&'a str, &'a OperatorConfig), Problem> {
    let missing = || Problem::new(Code::Unauthenticated, "send one `Authorization: Bearer <operator token>`");
    let digest = token_sha256(token.ok_or_else(missing)?);
    let found = config.operators.iter().find(|(_, o)| o.token_sha256 == digest);
    found.map(|(name, operator)| (name.as_str(), operator)).ok_or_else(missing)
}
