//! From what the rules said to a decision.

use countersign_sdk::{Decision, Hold, Reason, ReviewTerms, Verdict};

/// Reason code: a rule could not be evaluated. It might have denied, so it does.
pub const RULE_ERROR: &str = "rule-error";
/// Reason code of a rule that denies or reviews without one of its own.
pub const FORBIDDEN: &str = "forbidden-by-rule";
/// Reason code: rules that apply together ask different groups.
const GROUPS_DIFFER: &str = "review-groups-differ";

/// What the host takes in one decision.
const MAX_HOLDS: usize = 16;
const MAX_REASONS: usize = 64;
const MAX_MESSAGE: usize = 1_000;
const MAX_CODE: usize = 64;

/// What all rules said about one request.
#[derive(Debug, Default)]
pub struct Ruling {
    denies: Vec<Reason>,
    reviews: Vec<Reason>,
    terms: Vec<ReviewTerms>,
    allows: Vec<Reason>,
    allowed: bool,
    holds: Vec<Hold>,
}

impl Ruling {
    /// A rule objects.
    pub fn deny(&mut self, reason: Reason) {
        self.denies.push(reason);
    }

    /// A rule could not be evaluated.
    pub fn fail(&mut self, rule: &str, why: &str) {
        self.deny(Reason::new(RULE_ERROR, format!("{rule} could not be evaluated: {why}")));
    }

    /// A rule asks people, perhaps certain people.
    pub fn review(&mut self, reason: Reason, terms: Option<ReviewTerms>) {
        self.reviews.push(reason);
        self.terms.extend(terms);
    }

    /// A rule approves, perhaps saying why.
    pub fn allow(&mut self, reason: Option<Reason>) {
        self.allowed = true;
        self.allows.extend(reason);
    }

    /// A hold, or why there cannot be one.
    pub fn hold(&mut self, hold: Result<Hold, Reason>) {
        match hold {
            Ok(hold) => self.holds.push(hold),
            Err(reason) => self.deny(reason),
        }
    }

    /// The strongest that any rule said, with all reasons for it.
    #[must_use]
    pub fn decide(mut self) -> Decision {
        self.check_holds();
        let terms = if self.denies.is_empty() && !self.reviews.is_empty() { self.terms() } else { None };
        let (verdict, reasons) = if !self.denies.is_empty() {
            (Verdict::Deny, self.denies)
        } else if !self.reviews.is_empty() {
            (Verdict::Review, self.reviews)
        } else if self.allowed {
            (Verdict::Allow, self.allows)
        } else {
            (Verdict::Abstain, Vec::new())
        };
        let decision = Decision::new(verdict).reasons(reasons.into_iter().take(MAX_REASONS).map(cut));
        let decision = match verdict {
            Verdict::Deny => decision,
            _ => decision.holds(self.holds),
        };
        Decision { review: terms, ..decision }
    }

    /// The host would refuse them too, but could not say which rule to look at.
    fn check_holds(&mut self) {
        if self.holds.len() > MAX_HOLDS {
            let why = format!("{} apply, a decision has at most {MAX_HOLDS}", self.holds.len());
            self.fail("the holds", &why);
        }
        let twice = self.holds.iter().enumerate().find(|(index, hold)| {
            self.holds.iter().take(*index).any(|other| other.budget == hold.budget && other.window == hold.window)
        });
        if let Some(budget) = twice.map(|(_, hold)| hold.budget.clone()) {
            self.fail("the holds", &format!("two apply to the budget `{budget}` over the same window"));
        }
    }

    /// The strictest of all: highest quorum, shortest expiry. Two groups cannot be asked at once.
    fn terms(&mut self) -> Option<ReviewTerms> {
        let mut all = std::mem::take(&mut self.terms).into_iter();
        let mut strictest = all.next()?;
        for terms in all {
            match (&strictest.group, terms.group) {
                (Some(one), Some(other)) if *one != other => {
                    let why = format!("rules ask the groups `{one}` and `{other}`, and a review has one");
                    self.deny(Reason::new(GROUPS_DIFFER, why));
                    return None;
                }
                (None, group) => strictest.group = group,
                _ => {}
            }
            strictest.quorum = strictest.quorum.max(terms.quorum);
            strictest.expires_in_seconds = match (strictest.expires_in_seconds, terms.expires_in_seconds) {
                (0, other) | (other, 0) => other,
                (one, other) => one.min(other),
            };
        }
        Some(strictest)
    }
}

/// A message of an author, or one that shows a value of the request, may be any length.
fn cut(mut reason: Reason) -> Reason {
    if reason.message.len() > MAX_MESSAGE {
        let mut end = MAX_MESSAGE;
        while !reason.message.is_char_boundary(end) {
            end -= 1;
        }
        reason.message.truncate(end);
        reason.message.push('…');
    }
    reason
}

/// Whether a program can rely on it: kebab-case, at most 64 bytes.
#[must_use]
pub fn is_code(code: &str) -> bool {
    let words = || code.split('-');
    code.len() <= MAX_CODE
        && code.starts_with(|first: char| first.is_ascii_lowercase())
        && words().all(|word| !word.is_empty())
        && code.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

#[cfg(test)]
mod tests {
    use countersign_sdk::Window;

    use super::*;

    fn terms(group: Option<&str>, quorum: u8, expires_in_seconds: u32) -> Option<ReviewTerms> {
        Some(ReviewTerms { group: group.map(str::to_owned), quorum, expires_in_seconds })
    }

    fn reason(code: &str) -> Reason {
        Reason::new(code, "why")
    }

    #[test]
    fn the_strongest_wins() {
        let mut ruling = Ruling::default();
        assert_eq!(Ruling::default().decide().verdict, Verdict::Abstain);
        ruling.allow(Some(reason("listed")));
        ruling.hold(Ok(Hold::count("a", Window::lifetime(), 1, 1)));
        ruling.review(reason("large"), None);
        ruling.deny(reason("no"));
        ruling.fail("rule `x`", "no such key");
        let decision = ruling.decide();
        assert_eq!((decision.verdict, decision.holds.len(), decision.review), (Verdict::Deny, 0, None));
        let codes: Vec<&str> = decision.reasons.iter().map(|reason| reason.code.as_str()).collect();
        assert_eq!(codes, ["no", RULE_ERROR]);
    }

    #[test]
    fn terms_combine_to_the_strictest() {
        let mut ruling = Ruling::default();
        ruling.review(reason("a"), terms(None, 0, 0));
        ruling.review(reason("b"), terms(Some("finance"), 2, 600));
        ruling.review(reason("c"), terms(Some("finance"), 1, 60));
        let decision = ruling.decide();
        assert_eq!((decision.verdict, decision.review), (Verdict::Review, terms(Some("finance"), 2, 60)));
    }

    #[test]
    fn two_groups_are_a_deny() {
        let mut ruling = Ruling::default();
        ruling.review(reason("a"), terms(Some("finance"), 0, 0));
        ruling.review(reason("b"), terms(Some("legal"), 0, 0));
        let decision = ruling.decide();
        assert_eq!((decision.verdict, decision.review), (Verdict::Deny, None));
        assert_eq!(decision.reasons[0].code, GROUPS_DIFFER);
    }

    #[test]
    fn holds_the_host_would_refuse_are_a_deny() {
        let hold = |budget: String| Ok(Hold::count(budget, Window::lifetime(), 1, 1));
        let mut ruling = Ruling::default();
        ruling.allow(None);
        (0..16).for_each(|n| ruling.hold(hold(format!("b/{n}"))));
        assert_eq!(ruling.decide().verdict, Verdict::Allow);
        for budgets in [(0..17).collect::<Vec<_>>(), vec![1, 1]] {
            let mut ruling = Ruling::default();
            ruling.allow(None);
            budgets.iter().for_each(|n| ruling.hold(hold(format!("b/{n}"))));
            assert_eq!(ruling.decide().reasons[0].code, RULE_ERROR);
        }
    }

    #[test]
    fn codes() {
        assert!(["a", "above-limit", "x402"].into_iter().all(is_code));
        assert!(["", "-a", "a-", "a--b", "Above", "a_b", "1a", "é"].into_iter().all(|code| !is_code(code)));
        assert!(!is_code(&"a".repeat(65)));
    }

    #[test]
    fn long_messages_are_cut_at_a_character() {
        let mut ruling = Ruling::default();
        ruling.deny(Reason::new("a", "é".repeat(600)));
        ruling.deny(Reason::new("a", format!("x{}", "é".repeat(600))));
        let decision = ruling.decide();
        assert!(decision.reasons.iter().all(|reason| reason.message.len() <= MAX_MESSAGE + 3));
    }
}
