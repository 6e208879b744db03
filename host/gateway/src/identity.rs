//! Who is calling: token to principal. What the agent merely says is not looked at here.

use countersign_core::id::SessionId;
use countersign_core::ledger::Ledger;
use countersign_core::money::Micros;
use countersign_core::spend::Principal;
use countersign_core::time::Timestamp;
use sha2::{Digest, Sha256};

use crate::config::{Config, OperatorConfig};
use crate::problem::{Code, Problem};

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
    /// Digest of the token, to look again after a wait.
    token_sha256: String,
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

/// SHA-256 of a token, lower-case hex: the only form in which tokens are kept.
#[must_use]
pub fn token_sha256(token: &str) -> String {
    hex::encode(Sha256::digest(token.as_bytes()))
}

/// The token of an `Authorization: Bearer` header.
#[must_use]
pub fn bearer(headers: &http::HeaderMap) -> Option<&str> {
    let value = headers.get(http::header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    (scheme.eq_ignore_ascii_case("bearer") && !token.trim().is_empty()).then_some(token.trim())
}

fn unauthenticated() -> Problem {
    Problem::new(Code::Unauthenticated, "send `Authorization: Bearer <agent or session token>`")
}

/// The agent or session a token belongs to.
///
/// # Errors
/// `unauthenticated`, or `session-expired` for a session that is over.
pub async fn agent(
    token: Option<&str>,
    config: &Config,
    ledger: &dyn Ledger,
    now: Timestamp,
) -> Result<Caller, Problem> {
    by_digest(token_sha256(token.ok_or_else(unauthenticated)?), config, ledger, now).await
}

/// The same caller, as it is now.
///
/// # Errors
/// As for [`agent`].
pub async fn again(caller: &Caller, config: &Config, ledger: &dyn Ledger, now: Timestamp) -> Result<Caller, Problem> {
    by_digest(caller.token_sha256.clone(), config, ledger, now).await
}

async fn by_digest(digest: String, config: &Config, ledger: &dyn Ledger, now: Timestamp) -> Result<Caller, Problem> {
    if let Some((name, _)) = config.agents.iter().find(|(_, a)| a.token_sha256 == digest) {
        let principal = principal(config, name).ok_or_else(unauthenticated)?;
        return Ok(Caller { principal, session: None, bounds: None, intercept: Vec::new(), token_sha256: digest });
    }
    let session = ledger.session_by_token(digest.clone()).await?.ok_or_else(unauthenticated)?;
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
    let intercept = session.intercept;
    Ok(Caller { principal, session: Some(session.id), bounds: Some(bounds), intercept, token_sha256: digest })
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
    let missing = || Problem::new(Code::Unauthenticated, "send `Authorization: Bearer <operator token>`");
    let digest = token_sha256(token.ok_or_else(missing)?);
    let found = config.operators.iter().find(|(_, o)| o.token_sha256 == digest);
    found.map(|(name, operator)| (name.as_str(), operator)).ok_or_else(missing)
}
