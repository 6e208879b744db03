//! What annotations say about a policy.

use cedar_policy::{Effect, Policy, PolicyId};
use countersign_sdk::{Reason, ReviewTerms};
use rules_as_text::{FORBIDDEN, is_code};

const KNOWN: [&str; 6] = ["id", "code", "message", "review", "quorum", "expires_in_seconds"];

/// A policy, as far as Cedar does not care.
#[derive(Debug)]
pub(crate) struct Noted {
    pub(crate) id: PolicyId,
    /// Its number in the text.
    pub(crate) position: usize,
    /// What messages call it.
    pub(crate) label: String,
    pub(crate) effect: Effect,
    /// If it says one.
    pub(crate) reason: Option<Reason>,
    /// Asks people instead of denying, perhaps certain people.
    pub(crate) review: Option<Option<ReviewTerms>>,
}

/// What a policy notes, or which value is wrong and why.
pub(crate) fn read(policy: &Policy) -> Result<Noted, (String, String)> {
    let id = policy.id().clone();
    let name: &str = id.as_ref();
    let number: Option<usize> = name.strip_prefix("policy").and_then(|number| number.parse().ok());
    let position = number.unwrap_or(usize::MAX);
    for (key, _) in policy.annotations() {
        if !KNOWN.contains(&key) {
            let known = KNOWN.map(|key| format!("`@{key}`")).join(", ");
            return Err((format!("@{key}"), format!("unknown annotation `@{key}`; allowed: {known}")));
        }
    }
    let label = match policy.annotation("id") {
        Some(name) => format!("policy `{name}`"),
        None => format!("policy {}", position.saturating_add(1)),
    };
    let effect = policy.effect();
    let reason = reason(policy, &label)?;
    let review = review(policy, effect)?;
    Ok(Noted { id, position, label, effect, reason, review })
}

fn reason(policy: &Policy, label: &str) -> Result<Option<Reason>, (String, String)> {
    let (code, message) = (policy.annotation("code"), policy.annotation("message"));
    if let Some(code) = code.filter(|code| !is_code(code)) {
        return Err((code.to_owned(), format!("`{code}` is not a kebab-case code such as `above-limit`")));
    }
    if code.is_none() && message.is_none() {
        return Ok(None);
    }
    let default = || format!("{label} applies");
    Ok(Some(Reason::new(code.unwrap_or(FORBIDDEN), message.map_or_else(default, str::to_owned))))
}

fn review(policy: &Policy, effect: Effect) -> Result<Option<Option<ReviewTerms>>, (String, String)> {
    let Some(group) = policy.annotation("review") else {
        let orphan = ["quorum", "expires_in_seconds"].into_iter().find(|key| policy.annotation(key).is_some());
        return match orphan {
            Some(key) => Err((format!("@{key}"), format!("`@{key}` belongs to `@review(\"group\")`"))),
            None => Ok(None),
        };
    };
    if effect == Effect::Permit {
        return Err(("@review".to_owned(), "only a forbid can ask for a review; a permit allows".to_owned()));
    }
    let quorum = number::<u8>(policy, "quorum")?;
    let expires_in_seconds = number::<u32>(policy, "expires_in_seconds")?;
    let group = Some(group).filter(|group| !group.is_empty()).map(str::to_owned);
    if group.is_none() && quorum.is_none() && expires_in_seconds.is_none() {
        return Ok(Some(None));
    }
    Ok(Some(Some(ReviewTerms {
        group,
        quorum: quorum.unwrap_or_default(),
        expires_in_seconds: expires_in_seconds.unwrap_or_default(),
    })))
}

fn number<N: std::str::FromStr>(policy: &Policy, key: &str) -> Result<Option<N>, (String, String)> {
    let Some(value) = policy.annotation(key) else { return Ok(None) };
    match value.parse() {
        Ok(number) => Ok(Some(number)),
        Err(_) => Err((value.to_owned(), format!("`@{key}(\"{value}\")` is not a whole number that fits"))),
    }
}
