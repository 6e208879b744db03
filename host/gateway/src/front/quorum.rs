//! Changes of policies that take more than one operator: one proposes, others ask for exactly the same, and the last of
//! them makes it. Who has the role `policy-admin` alone then changes nothing of what decides about money.
//!
//! What waits is in memory only: after a restart it is proposed anew.

use std::sync::{Mutex, PoisonError};

use countersign_core::ledger::Note;
use countersign_core::time::Timestamp;
use http::StatusCode;
use serde_json::{Value, json as value};

use super::admin::{Admin, Operator};
use super::{Answer, json};
use crate::config::{Config, OperatorRole};
use crate::problem::{Code, Problem};

/// Most proposals that wait at a time.
const MOST: usize = 32;

/// A change, as far as it is the same as another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    /// `module`, `shadow`, `rollback` or `files`.
    pub(super) what: &'static str,
    /// Which policy.
    pub(super) policy: Option<String>,
    /// The generation to go back to, if not the last.
    pub(super) to: Option<u64>,
    /// SHA-256 of the module, or of all files.
    pub(super) sha256: Option<String>,
    /// SHA-256 of the settings that come with it.
    pub(super) settings_sha256: Option<String>,
}

/// A change that others have yet to ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Waiting {
    change: Change,
    /// What served when it was proposed: it is a change of that and of nothing else.
    generation: u64,
    /// Who asked for it, in order; each is another person.
    by: Vec<String>,
    since: Timestamp,
    expires_at: Timestamp,
}

/// What one more word for a change comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Spoken {
    /// All that it takes: who asked for it.
    Enough(Vec<String>),
    /// Somebody is missing.
    Waits {
        waiting: Waiting,
        /// Whether this word counted: the same person's second one does not.
        counted: bool,
    },
    /// Too many others wait.
    Crowded,
}

/// The proposals of one gateway.
#[derive(Debug, Default)]
pub struct Quorum(Mutex<Vec<Waiting>>);

impl Quorum {
    /// Adds an operator's word, and takes the change out when there are enough.
    fn speak(&self, change: Change, generation: u64, speaker: &str, config: &Config, now: Timestamp) -> Spoken {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let place = all.iter().position(|one| one.change == change && one.generation == generation);
        if place.is_none() && all.len() >= MOST {
            return Spoken::Crowded;
        }
        let lasts = u64::from(config.approvals.expires_in_seconds).saturating_mul(1_000);
        let fresh = || Waiting { change, generation, by: vec![], since: now, expires_at: now.plus_millis(lasts) };
        let mut waiting = place.map_or_else(fresh, |place| all.remove(place));
        // Whoever lost the role meanwhile has no word any more.
        waiting.by.retain(|name| {
            config.operators.get(name).is_some_and(|operator| operator.roles.contains(&OperatorRole::PolicyAdmin))
        });
        let counted = !waiting.by.iter().any(|name| is_same(name, speaker, config));
        if counted {
            waiting.by.push(speaker.to_owned());
        }
        if waiting.by.len() >= usize::from(config.approvals.policy_quorum) {
            return Spoken::Enough(waiting.by);
        }
        all.push(waiting.clone());
        Spoken::Waits { waiting, counted }
    }

    /// Takes out what is over: its time, or what it was to change.
    fn lapse(&self, generation: u64, now: Timestamp) -> Vec<Waiting> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_over = |one: &Waiting| one.expires_at <= now || one.generation != generation;
        let (over, left) = std::mem::take(&mut *all).into_iter().partition(is_over);
        *all = left;
        over
    }

    fn list(&self) -> Vec<Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Whether two operators are one person: by name, or because both are the same user.
fn is_same(one: &str, other: &str, config: &Config) -> bool {
    let users = |name: &str| config.operators.get(name).map(|operator| &operator.users);
    let shared = users(one).zip(users(other)).is_some_and(|(ours, theirs)| !ours.is_disjoint(theirs));
    one == other || shared
}

/// In whose name a change is made, once as many people as it takes have asked for exactly it.
///
/// # Errors
/// `approval-required` while somebody is missing.
pub(super) async fn agreed(admin: &Admin, operator: &Operator, change: Change) -> Result<String, Problem> {
    let config = &operator.snapshot.config;
    let needed = config.approvals.policy_quorum;
    if needed <= 1 {
        return Ok(operator.name.clone());
    }
    let now = swept(admin).await?;
    let generation = operator.snapshot.generation;
    match admin.quorum.speak(change, generation, &operator.name, config, now) {
        Spoken::Enough(by) => Ok(by.join(", ")),
        Spoken::Crowded => {
            let detail = format!("{MOST} other changes wait for more operators; let one of them be made, or lapse");
            Err(Problem::new(Code::Conflict, detail))
        }
        Spoken::Waits { waiting, counted } => {
            if counted {
                note(admin, "policies-proposed", &operator.name, &waiting, now).await?;
            }
            let missing = usize::from(needed).saturating_sub(waiting.by.len());
            let detail = format!(
                "proposed; nothing is changed until {missing} more, of other people with the role `policy-admin`, \
                 ask for exactly the same"
            );
            let proposal = view(&waiting, needed);
            Err(Problem::new(Code::ApprovalRequired, detail).with("proposal", proposal).with("retry", false))
        }
    }
}

/// `GET /v1/policies/proposals`.
pub(super) async fn list(admin: &Admin, config: &Config) -> Result<Answer, Problem> {
    swept(admin).await?;
    let waiting = admin.quorum.list();
    let items: Vec<_> = waiting.iter().map(|one| view(one, config.approvals.policy_quorum)).collect();
    Ok(json(StatusCode::OK, &value!({"items": items, "next": null})))
}

/// Lets what is over go, and records that it went; now.
async fn swept(admin: &Admin) -> Result<Timestamp, Problem> {
    let now = admin.gateway.clock.now()?;
    let generation = admin.gateway.live.load().generation;
    for over in admin.quorum.lapse(generation, now) {
        note(admin, "policies-proposal-lapsed", "", &over, now).await?;
    }
    Ok(now)
}

async fn note(admin: &Admin, kind: &'static str, by: &str, waiting: &Waiting, at: Timestamp) -> Result<(), Problem> {
    let body = told(waiting);
    admin.gateway.ledger.note(Note { kind, by: by.to_owned(), body, at }).await?;
    Ok(())
}

fn told(waiting: &Waiting) -> Value {
    let Change { what, policy, to, sha256, settings_sha256 } = &waiting.change;
    value!({
        "what": what,
        "policy": policy,
        "to": to,
        "sha256": sha256,
        "settings_sha256": settings_sha256,
        "generation": waiting.generation,
        "by": waiting.by,
        "expires_at": waiting.expires_at.to_string(),
    })
}

fn view(waiting: &Waiting, needed: u8) -> Value {
    let mut view = told(waiting);
    if let Some(map) = view.as_object_mut() {
        map.insert("proposed_at".into(), waiting.since.to_string().into());
        map.insert("quorum".into(), needed.into());
    }
    view
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Environment;

    /// Three policy admins, of whom two are one person, and one who only looks.
    fn config(roles_of_alice: &str) -> Config {
        let operator = |name: &str, roles: &str, user: &str| {
            let token = crate::identity::token_sha256(name);
            format!("[operator.{name}]\ntoken-sha256 = \"{token}\"\nroles = {roles}\nusers = [\"{user}\"]\n")
        };
        let admin = r#"["policy-admin"]"#;
        let text = [
            "[approvals]\npolicy-quorum = 2\nexpires-in-seconds = 60\n".to_owned(),
            operator("alice", roles_of_alice, "ann"),
            operator("alias", admin, "ann"),
            operator("bob", admin, "ben"),
        ];
        Config::parse(&text.concat(), Path::new("/srv"), &Environment::default()).unwrap()
    }

    fn change(sha256: &str) -> Change {
        let sha256 = Some(sha256.to_owned());
        Change { what: "module", policy: Some("caps".to_owned()), to: None, sha256, settings_sha256: None }
    }

    #[test]
    fn it_takes_two_people_for_exactly_the_same() {
        let (quorum, config, now) = (Quorum::default(), config(r#"["policy-admin"]"#), Timestamp::from_secs(1_000));
        let speak = |who: &str, what: &str, generation| quorum.speak(change(what), generation, who, &config, now);
        let waits = |spoken: Spoken| match spoken {
            Spoken::Waits { waiting, counted } => (waiting.by, counted),
            other => panic!("{other:?}"),
        };
        assert_eq!(waits(speak("alice", "a", 1)), (vec!["alice".to_owned()], true));
        assert_eq!(waits(speak("alice", "a", 1)), (vec!["alice".to_owned()], false), "her second word is none");
        assert_eq!(waits(speak("alias", "a", 1)), (vec!["alice".to_owned()], false), "nor is it under another name");
        assert_eq!(waits(speak("bob", "b", 1)), (vec!["bob".to_owned()], true), "another module");
        assert_eq!(waits(speak("bob", "a", 2)), (vec!["bob".to_owned()], true), "of something else");
        assert_eq!(speak("bob", "a", 1), Spoken::Enough(vec!["alice".to_owned(), "bob".to_owned()]));
        assert_eq!(waits(speak("bob", "a", 1)), (vec!["bob".to_owned()], true), "it was good for once");
    }

    #[test]
    fn words_lapse_with_their_time_their_generation_and_their_role() {
        let (quorum, now) = (Quorum::default(), Timestamp::from_secs(1_000));
        let with_role = config(r#"["policy-admin"]"#);
        quorum.speak(change("a"), 1, "alice", &with_role, now);
        assert_eq!(quorum.lapse(1, now.plus_millis(59_999)), vec![]);
        let spoken = quorum.speak(change("a"), 1, "bob", &config(r#"["viewer"]"#), now);
        assert!(matches!(spoken, Spoken::Waits { waiting, counted: true } if waiting.by == ["bob"]));
        assert_eq!(quorum.lapse(1, now.plus_millis(60_000)).len(), 1);
        quorum.speak(change("a"), 1, "alice", &with_role, now);
        assert_eq!(quorum.lapse(2, now).len(), 1);
        assert_eq!(quorum.list(), vec![]);
        for n in 0..MOST {
            quorum.speak(change(&n.to_string()), 1, "alice", &with_role, now);
        }
        assert_eq!(quorum.speak(change("one more"), 1, "alice", &with_role, now), Spoken::Crowded);
    }
}
