//! What a verified JWT says, checked against what its issuer may say: from claims to a principal.

use std::collections::BTreeSet;

use countersign_core::json::Json;
use countersign_core::spend::Principal;
use countersign_core::time::Timestamp;

use crate::config::{Config, IssuerConfig, Subject, Template, names};
use countersign_wire::jose::Refused;

/// Whether the token is this issuer's, for us, and good at this moment.
///
/// # Errors
/// The first check that fails.
pub(super) fn check(claims: &Json<'_>, issuer: &IssuerConfig, now: Timestamp) -> Result<(), Refused> {
    if claims.get("iss").and_then(Json::as_str) != Some(&issuer.issuer) {
        return Err("it is of another issuer");
    }
    let ours = |audience: &Json<'_>| audience.as_str().is_some_and(|audience| issuer.audience.contains(audience));
    let audience = claims.get("aud").ok_or("it does not say for whom it is")?;
    let meant = match audience.as_array() {
        Some(list) => list.iter().all(|item| item.as_str().is_some()) && list.iter().any(ours),
        None => ours(audience),
    };
    if !meant {
        return Err("it is for another audience");
    }
    let moment = |name: &str| match (claims.has(name), claims.get(name).and_then(Json::as_u64)) {
        (false, _) => Ok(None),
        (true, Some(at)) => Ok(Some(at)),
        (true, None) => Err("its times are not whole seconds"),
    };
    let (expires, since, issued) = (moment("exp")?, moment("nbf")?, moment("iat")?);
    let expires = expires.ok_or("it never expires")?;
    let issued = issued.ok_or("it does not say when it was issued")?;
    let (early, late) =
        (now.as_secs().saturating_add(issuer.clock_skew), now.as_secs().saturating_sub(issuer.clock_skew));
    if expires <= late {
        return Err("it has expired");
    }
    if issued > early || since.is_some_and(|since| since > early) {
        return Err("it is not valid yet");
    }
    match expires.checked_sub(issued) {
        Some(lifetime) if lifetime <= issuer.max_lifetime => Ok(()),
        Some(_) => Err("it is valid for longer than its issuer may say"),
        None => Err("it expired before it was issued"),
    }
}

/// Whom the token speaks for. What the configuration says about an agent counts before what a claim says.
///
/// # Errors
/// When the agent may not be here, or a claim is no name.
pub(super) fn principal(claims: &Json<'_>, name: &str, config: &Config) -> Result<Principal, Refused> {
    let issuer = config.issuers.get(name).ok_or("its issuer is not known here")?;
    let subject = claims.get(&issuer.claims.agent).and_then(Json::as_str).ok_or("it does not name an agent")?;
    let is_it = |subject_of: &Subject| subject_of.issuer == name && subject_of.name == subject;
    let known = config.agents.iter().find(|(_, agent)| agent.subject.as_ref().is_some_and(is_it));
    let (agent, pinned) = match known {
        Some((known, agent)) => {
            let (workspace, user, roles) = (agent.workspace.clone(), agent.user.clone(), agent.roles.clone());
            (known.clone(), Template { workspace, user, roles })
        }
        None => {
            let template = issuer.template.clone().ok_or("this agent is not configured here")?;
            (unlisted(name, subject)?, template)
        }
    };
    let one = |claim: Option<&String>| match claim.and_then(|claim| claims.get(claim)) {
        None => Ok(None),
        Some(said) => said.as_str().and_then(names::normalise).map(Some).ok_or("one of its claims is not a name"),
    };
    let mapped = &issuer.claims;
    let pinned_or = |pinned: Option<String>, claim: Option<&String>| match pinned {
        Some(name) => Ok(Some(name)),
        None => one(claim),
    };
    let given = mapped.roles.as_ref().and_then(|claim| claims.get(claim)).map(roles).transpose()?.unwrap_or_default();
    let given = given.into_iter().filter(|role| issuer.roles_allowed.contains(role));
    Ok(Principal {
        agent,
        user: pinned_or(pinned.user, mapped.user.as_ref())?,
        workspace: pinned_or(pinned.workspace, mapped.workspace.as_ref())?,
        roles: pinned.roles.into_iter().chain(given).collect::<BTreeSet<_>>().into_iter().collect(),
        session: None,
        client: one(mapped.client.as_ref())?,
        project: one(mapped.project.as_ref())?,
        task: one(mapped.task.as_ref())?,
    })
}

/// What an agent without a table is called. Subjects that differ in case only are two, so only the one
/// spelling that names have is accepted.
fn unlisted(issuer: &str, subject: &str) -> Result<String, Refused> {
    const NOT_A_NAME: Refused = "its agent is not a name: with its issuer's, 1 to 64 of a-z, 0-9, `.`, `_` and `-`";
    let name = format!("{issuer}.{subject}");
    match names::normalise(&name) {
        Some(same) if same == name && !subject.is_empty() => Ok(name),
        _ => Err(NOT_A_NAME),
    }
}

/// The roles of a claim: a text, or a list of texts. What is no name is no role of ours.
fn roles(said: &Json<'_>) -> Result<BTreeSet<String>, Refused> {
    let texts = match said.as_array() {
        Some(list) => list.iter().map(Json::as_str).collect::<Option<Vec<_>>>(),
        None => said.as_str().map(|one| vec![one]),
    };
    let texts = texts.ok_or("its roles are neither a text nor a list of texts")?;
    Ok(texts.into_iter().filter_map(names::normalise).collect())
}
