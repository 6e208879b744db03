//! Building decisions, holds and problems.

use crate::{Attribute, Decision, Hold, Obligation, Problem, Reason, ReviewTerms, Unit, Verdict, Window};

/// In review terms: what the operator configured.
const AS_CONFIGURED: u8 = 0;

impl Decision {
    /// A bare verdict.
    #[must_use]
    pub const fn new(verdict: Verdict) -> Self {
        Self {
            verdict,
            reasons: Vec::new(),
            holds: Vec::new(),
            review: None,
            obligations: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Approve, provided every hold can be placed.
    #[must_use]
    pub const fn allow() -> Self {
        Self::new(Verdict::Allow)
    }

    /// No opinion; holds and obligations still count.
    #[must_use]
    pub const fn abstain() -> Self {
        Self::new(Verdict::Abstain)
    }

    /// Object. `code` is stable kebab-case for programs, `message` is for people.
    #[must_use]
    pub fn deny(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(Verdict::Deny).because(code, message)
    }

    /// Ask people. Without [`group`](Self::group), [`quorum`](Self::quorum) or
    /// [`expires_in`](Self::expires_in) the operator's `[approvals]` decide; so they do for each of
    /// the last two that is not said, which is 0 in the decision.
    #[must_use]
    pub fn review(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(Verdict::Review).because(code, message)
    }

    /// Adds a reason.
    #[must_use]
    pub fn because(mut self, code: impl Into<String>, message: impl Into<String>) -> Self {
        self.reasons.push(Reason::new(code, message));
        self
    }

    /// Adds reasons.
    #[must_use]
    pub fn reasons(mut self, reasons: impl IntoIterator<Item = Reason>) -> Self {
        self.reasons.extend(reasons);
        self
    }

    /// Adds a hold.
    #[must_use]
    pub fn hold(mut self, hold: Hold) -> Self {
        self.holds.push(hold);
        self
    }

    /// Adds holds. The host takes at most 16 of one decision, one per budget and window.
    #[must_use]
    pub fn holds(mut self, holds: impl IntoIterator<Item = Hold>) -> Self {
        self.holds.extend(holds);
        self
    }

    /// The operator group that must approve. Only read when the verdict is review.
    #[must_use]
    pub fn group(mut self, group: impl Into<String>) -> Self {
        self.terms().group = Some(group.into());
        self
    }

    /// How many must approve. Only read when the verdict is review.
    #[must_use]
    pub fn quorum(mut self, people: u8) -> Self {
        self.terms().quorum = people;
        self
    }

    /// After how many seconds silence is a no. Only read when the verdict is review.
    #[must_use]
    pub fn expires_in(mut self, seconds: u32) -> Self {
        self.terms().expires_in_seconds = seconds;
        self
    }

    /// Something the host must do. A kind it does not know turns the decision into a deny.
    #[must_use]
    pub fn obligation<N: Into<String>, V: Into<String>>(
        mut self,
        kind: impl Into<String>,
        params: impl IntoIterator<Item = (N, V)>,
    ) -> Self {
        self.obligations.push(Obligation {
            kind: kind.into(),
            params: params.into_iter().map(|(name, value)| Attribute::new(name, value)).collect(),
        });
        self
    }

    /// Written to the decision record, never interpreted.
    #[must_use]
    pub fn note(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.notes.push(Attribute::new(name, value));
        self
    }

    fn terms(&mut self) -> &mut ReviewTerms {
        self.review.get_or_insert(ReviewTerms {
            group: None,
            quorum: AS_CONFIGURED,
            expires_in_seconds: AS_CONFIGURED.into(),
        })
    }
}

impl Hold {
    /// Reserves an amount of money; it shrinks if less is settled. `limit` and `amount` are
    /// [`Money`](crate::Money) or micros.
    #[must_use]
    pub fn micros(budget: impl Into<String>, window: Window, limit: impl Into<u64>, amount: impl Into<u64>) -> Self {
        Self {
            budget: budget.into(),
            unit: Unit::Micros,
            window,
            limit: limit.into(),
            amount: amount.into(),
            alert_at: None,
            review_at: None,
        }
    }

    /// Reserves a number of payments; it does not shrink with the price.
    #[must_use]
    pub fn count(budget: impl Into<String>, window: Window, limit: u64, amount: u64) -> Self {
        Self { unit: Unit::Count, ..Self::micros(budget, window, limit, amount) }
    }

    /// Reaching this tells the operator, once per window.
    #[must_use]
    pub fn alert_at(mut self, level: impl Into<u64>) -> Self {
        self.alert_at = Some(level.into());
        self
    }

    /// Reaching this turns an allow into a review.
    #[must_use]
    pub fn review_at(mut self, level: impl Into<u64>) -> Self {
        self.review_at = Some(level.into());
        self
    }
}

impl Window {
    /// The last `seconds` seconds.
    #[must_use]
    pub const fn rolling(seconds: u32) -> Self {
        Self::Rolling(seconds)
    }

    /// The current calendar day in an IANA time zone.
    #[must_use]
    pub fn day(zone: impl Into<String>) -> Self {
        Self::Day(zone.into())
    }

    /// The current calendar month in an IANA time zone.
    #[must_use]
    pub fn month(zone: impl Into<String>) -> Self {
        Self::Month(zone.into())
    }

    /// Since the budget was first used.
    #[must_use]
    pub const fn lifetime() -> Self {
        Self::Lifetime
    }
}

impl Reason {
    /// `code` is stable kebab-case for programs, `message` is for people.
    #[must_use]
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into() }
    }
}

impl Attribute {
    /// A name and a value.
    #[must_use]
    pub fn new(name: impl Into<String>, value: impl Into<String>) -> Self {
        Self { name: name.into(), value: value.into() }
    }
}

impl Problem {
    /// A problem at a JSON Pointer into the settings, such as `/hosts/0`.
    #[must_use]
    pub fn at(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { path: path.into(), message: message.into() }
    }

    /// A problem with the settings document as a whole.
    #[must_use]
    pub fn document(message: impl Into<String>) -> Self {
        Self::at("", message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Money;

    #[test]
    fn builders_fill_the_contract_types() {
        let decision = Decision::review("above-review-threshold", "large")
            .because("first-time-vendor", "new")
            .group("finance")
            .quorum(2)
            .expires_in(3600)
            .obligation("notify", [("channel", "ops")])
            .note("threshold", "1.00")
            .hold(
                Hold::micros("agent/scout", Window::day("UTC"), Money::from_micros(10), 1_u64)
                    .alert_at(5_u64)
                    .review_at(Money::from_micros(7)),
            )
            .hold(Hold::count("agent/scout", Window::lifetime(), 3, 1));
        assert_eq!(decision.verdict, Verdict::Review);
        assert_eq!(decision.reasons.len(), 2);
        assert_eq!(
            decision.review,
            Some(ReviewTerms { group: Some("finance".to_owned()), quorum: 2, expires_in_seconds: 3600 })
        );
        assert_eq!(decision.holds[0].review_at, Some(7));
        assert_eq!(decision.holds[1].unit, Unit::Count);
        assert_eq!(decision.obligations[0].params[0].value, "ops");
    }

    #[test]
    fn terms_left_out_leave_the_choice_to_the_operator() {
        assert_eq!(Decision::review("a", "b").review, None);
        let terms = Decision::review("a", "b").group("finance").review.unwrap();
        assert_eq!((terms.quorum, terms.expires_in_seconds), (0, 0));
    }
}
