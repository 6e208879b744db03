//! What policies do about what they object to, and whom they ask: settings that many of them share.

use serde::Deserialize;

use crate::{Decision, Name, Problem, Reason, Verdict};

/// The host lets no review wait longer.
const LONGEST_REVIEW_SECONDS: u32 = 86_400;

/// What a policy does when it objects: the setting `action`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Ask people.
    Review,
    /// Refuse.
    Deny,
}

impl Action {
    /// Something to object to, for this action. `code` is stable kebab-case for programs, `message`
    /// is for people.
    #[must_use]
    pub fn because(self, code: impl Into<String>, message: impl Into<String>) -> Objection {
        Objection { action: self, reason: Reason::new(code, message) }
    }
}

/// Something a policy objects to; see [`Action::because`] and [`ReviewSettings::decide`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Objection {
    action: Action,
    reason: Reason,
}

/// The settings `group`, `quorum` and `expires-in-seconds`: who must approve, and how soon. What is
/// left out is as the operator's `[approvals]` say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReviewSettings {
    group: Option<String>,
    quorum: Option<u8>,
    expires_in_seconds: Option<u32>,
}

impl ReviewSettings {
    /// Checks the three settings; what is wrong with them is added to `problems`.
    #[must_use]
    pub fn check(
        group: Option<String>,
        quorum: Option<u8>,
        expires_in_seconds: Option<u32>,
        problems: &mut Vec<Problem>,
    ) -> Self {
        let mut problem = |path: &str, message: &str| problems.push(Problem::at(path, message));
        if let Some(Err(why)) = group.as_deref().map(Name::parse) {
            // Nobody could be in a group of another spelling, so nobody could approve.
            problem("/group", &format!("{why}; leave the key out for any approver"));
        }
        if quorum == Some(0) {
            problem("/quorum", "at least one person must approve");
        }
        if expires_in_seconds.is_some_and(|seconds| seconds == 0 || seconds > LONGEST_REVIEW_SECONDS) {
            problem("/expires-in-seconds", "from 1 to 86400 seconds");
        }
        Self { group, quorum, expires_in_seconds }
    }

    /// The decision about these objections, all of which are given as reasons: a deny if one denies,
    /// else a review on these terms, else no opinion.
    #[must_use]
    pub fn decide(&self, objections: Vec<Objection>) -> Decision {
        let verdict = objections.iter().map(|objection| objection.action).fold(Verdict::Abstain, strictest);
        let mut decision = Decision::new(verdict).reasons(objections.into_iter().map(|objection| objection.reason));
        if verdict != Verdict::Review {
            return decision;
        }
        if let Some(group) = &self.group {
            decision = decision.group(group.as_str());
        }
        if let Some(quorum) = self.quorum {
            decision = decision.quorum(quorum);
        }
        if let Some(seconds) = self.expires_in_seconds {
            decision = decision.expires_in(seconds);
        }
        decision
    }
}

const fn strictest(so_far: Verdict, action: Action) -> Verdict {
    match (so_far, action) {
        (Verdict::Deny, _) | (_, Action::Deny) => Verdict::Deny,
        (_, Action::Review) => Verdict::Review,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ReviewTerms;

    fn finance() -> ReviewSettings {
        let mut problems = Vec::new();
        let settings = ReviewSettings::check(Some("finance".to_owned()), None, Some(60), &mut problems);
        assert_eq!(problems, []);
        settings
    }

    #[test]
    fn the_strictest_action_counts_and_every_reason_is_given() {
        let (review, deny) = (Action::Review.because("b", ""), Action::Deny.because("a", ""));
        for (objections, verdict) in [
            (vec![], Verdict::Abstain),
            (vec![review.clone()], Verdict::Review),
            (vec![deny.clone()], Verdict::Deny),
            (vec![review.clone(), deny.clone()], Verdict::Deny),
            (vec![deny, review], Verdict::Deny),
        ] {
            let decision = finance().decide(objections.clone());
            assert_eq!(decision.verdict, verdict);
            assert_eq!(decision.reasons.len(), objections.len());
        }
    }

    #[test]
    fn terms_are_only_those_of_a_review() {
        let terms = ReviewTerms { group: Some("finance".to_owned()), quorum: 0, expires_in_seconds: 60 };
        assert_eq!(finance().decide(vec![Action::Review.because("a", "")]).review, Some(terms));
        assert_eq!(finance().decide(vec![Action::Deny.because("a", "")]).review, None);
        assert_eq!(ReviewSettings::default().decide(vec![Action::Review.because("a", "")]).review, None);
    }

    #[test]
    fn every_problem_is_found() {
        let mut problems = Vec::new();
        let _ = ReviewSettings::check(Some("Finance".to_owned()), Some(0), Some(0), &mut problems);
        let _ = ReviewSettings::check(None, Some(1), Some(LONGEST_REVIEW_SECONDS), &mut problems);
        let _ = ReviewSettings::check(None, None, Some(LONGEST_REVIEW_SECONDS + 1), &mut problems);
        let paths: Vec<&str> = problems.iter().map(|problem| problem.path.as_str()).collect();
        assert_eq!(paths, ["/group", "/quorum", "/expires-in-seconds", "/expires-in-seconds"]);
    }
}
