//! The life of a payment: its states, and the one table of transitions.
//!
//! What leaves the table is what moves money, so it is data: the ledger applies it with
//! compare-and-set, and nothing else may change a payment's state.

use serde::{Deserialize, Serialize};

/// Where a payment is. The numbers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum State {
    /// Refused. Final.
    Denied = 1,
    /// Every hold taken; waits for people. No payload exists.
    Review = 2,
    /// The payload is durable; from here on it is assumed to be out there.
    Signed = 4,
    /// Sent, or maybe sent, without a valid receipt. Still redeemable as far as we know.
    Redeemable = 5,
    /// The seller says it settled, with a transaction; not proven.
    Seen = 6,
    /// Proven on the chain.
    Settled = 7,
    /// Nothing redeemable is left. Final.
    Released = 8,
    /// Settled, and some or all of it came back.
    Refunded = 9,
    /// Settled, and somebody contests it: paid for, and nothing of use delivered.
    Disputed = 10,
    /// What the chain shows contradicts itself or what was signed. Held until it is cleared up.
    Stuck = 11,
}

impl State {
    /// Every state, in stored order.
    pub const ALL: [Self; 10] = [
        Self::Denied,
        Self::Review,
        Self::Signed,
        Self::Redeemable,
        Self::Seen,
        Self::Settled,
        Self::Released,
        Self::Refunded,
        Self::Disputed,
        Self::Stuck,
    ];

    /// The stored number.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Denied => 1,
            Self::Review => 2,
            Self::Signed => 4,
            Self::Redeemable => 5,
            Self::Seen => 6,
            Self::Settled => 7,
            Self::Released => 8,
            Self::Refunded => 9,
            Self::Disputed => 10,
            Self::Stuck => 11,
        }
    }

    /// The state of a stored number.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.number() == number)
    }

    /// The name the API tells.
    #[must_use]
    pub const fn public(self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::Review => "pending-approval",
            Self::Signed => "in-flight",
            Self::Redeemable | Self::Stuck => "unknown",
            Self::Seen => "accepted",
            Self::Settled => "settled",
            Self::Released => "failed",
            Self::Refunded => "refunded",
            Self::Disputed => "disputed",
        }
    }

    /// Whether an authorization exists that somebody may still redeem, or has.
    #[must_use]
    pub const fn has_authorization(self) -> bool {
        self.is_open() || self.is_spent()
    }

    /// Whether an authorization exists that nobody has proven used or unused: its holds are reserved.
    #[must_use]
    pub const fn is_open(self) -> bool {
        matches!(self, Self::Signed | Self::Redeemable | Self::Seen | Self::Stuck)
    }

    /// Whether the chain has proven that the money moved: its holds are spent.
    #[must_use]
    pub const fn is_spent(self) -> bool {
        matches!(self, Self::Settled | Self::Refunded | Self::Disputed)
    }

    /// Whether another attempt at the same purchase may be decided.
    #[must_use]
    pub const fn allows_another_attempt(self) -> bool {
        matches!(self, Self::Denied | Self::Released)
    }
}

impl Serialize for State {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_u8(self.number())
    }
}

impl<'de> Deserialize<'de> for State {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let number = u8::deserialize(d)?;
        Self::from_number(number).ok_or_else(|| serde::de::Error::custom(format!("no payment state {number}")))
    }
}

/// What may happen to a payment that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    /// An approved purchase is signed for: its reserved holds are replaced by fresh ones.
    Resume,
    /// People said no, or nobody said yes in time, or the approved purchase changed.
    Withdraw,
    /// The signer refused for certain, in the process that committed the hold, and no signature
    /// bytes ever existed.
    SignerRefused,
    /// The paid call ended without a valid receipt, however it ended.
    Ambiguous,
    /// A valid receipt arrived.
    Receipt,
    /// A finalized block shows this very nonce redeemed, for our payee and for no more than we signed.
    Redeemed,
    /// A finalized block later than the end of the validity shows this nonce unused, or it was cancelled
    /// in a finalized block.
    Unused,
    /// The block that bore a receipt out is no longer in the chain.
    Reorganised,
    /// The chain contradicts itself or what was signed; the text says how.
    Contradicted,
    /// Money of this payment came back.
    Refund,
    /// Somebody contests a settled payment.
    Dispute,
    /// A dispute ended, and nothing came back.
    Dropped,
    /// A dispute ended, and something had come back.
    Redressed,
}

impl Event {
    /// Every event.
    pub const ALL: [Self; 13] = [
        Self::Resume,
        Self::Withdraw,
        Self::SignerRefused,
        Self::Ambiguous,
        Self::Receipt,
        Self::Redeemed,
        Self::Unused,
        Self::Reorganised,
        Self::Contradicted,
        Self::Refund,
        Self::Dispute,
        Self::Dropped,
        Self::Redressed,
    ];

    /// The stored name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Resume => "resume",
            Self::Withdraw => "withdraw",
            Self::SignerRefused => "signer-refused",
            Self::Ambiguous => "ambiguous",
            Self::Receipt => "receipt",
            Self::Redeemed => "redeemed",
            Self::Unused => "unused",
            Self::Reorganised => "reorganised",
            Self::Contradicted => "contradicted",
            Self::Refund => "refund",
            Self::Dispute => "dispute",
            Self::Dropped => "dropped",
            Self::Redressed => "redressed",
        }
    }
}

/// What a transition does to the payment's holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// They stay as they are.
    Keep,
    /// They go back to their windows.
    Release,
    /// They become spent in their windows: what was redeemed, the rest goes back.
    Settle,
    /// What came back leaves what is spent in their windows.
    Refund,
    /// They are released and fresh ones placed, in one transaction.
    Replace,
}

/// One row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// From which state.
    pub from: State,
    /// On what.
    pub event: Event,
    /// To which state.
    pub to: State,
    /// With what effect on the holds.
    pub effect: Effect,
}

/// Every legal transition. Two things free what was signed for: the signer's certain refusal, before a
/// signature existed, and the chain's finalized proof of non-use.
pub const TRANSITIONS: [Rule; 30] = [
    rule(State::Review, Event::Resume, State::Signed, Effect::Replace),
    rule(State::Review, Event::Withdraw, State::Released, Effect::Release),
    rule(State::Signed, Event::SignerRefused, State::Released, Effect::Release),
    rule(State::Signed, Event::Ambiguous, State::Redeemable, Effect::Keep),
    rule(State::Signed, Event::Receipt, State::Seen, Effect::Keep),
    rule(State::Signed, Event::Redeemed, State::Settled, Effect::Settle),
    rule(State::Signed, Event::Unused, State::Released, Effect::Release),
    rule(State::Signed, Event::Contradicted, State::Stuck, Effect::Keep),
    rule(State::Redeemable, Event::Ambiguous, State::Redeemable, Effect::Keep),
    rule(State::Redeemable, Event::Receipt, State::Seen, Effect::Keep),
    rule(State::Redeemable, Event::Redeemed, State::Settled, Effect::Settle),
    rule(State::Redeemable, Event::Unused, State::Released, Effect::Release),
    rule(State::Redeemable, Event::Contradicted, State::Stuck, Effect::Keep),
    rule(State::Seen, Event::Receipt, State::Seen, Effect::Keep),
    rule(State::Seen, Event::Redeemed, State::Settled, Effect::Settle),
    rule(State::Seen, Event::Unused, State::Released, Effect::Release),
    rule(State::Seen, Event::Reorganised, State::Redeemable, Effect::Keep),
    rule(State::Seen, Event::Contradicted, State::Stuck, Effect::Keep),
    rule(State::Stuck, Event::Ambiguous, State::Stuck, Effect::Keep),
    rule(State::Stuck, Event::Receipt, State::Stuck, Effect::Keep),
    rule(State::Stuck, Event::Redeemed, State::Settled, Effect::Settle),
    rule(State::Stuck, Event::Unused, State::Released, Effect::Release),
    rule(State::Settled, Event::Refund, State::Refunded, Effect::Refund),
    rule(State::Settled, Event::Dispute, State::Disputed, Effect::Keep),
    rule(State::Refunded, Event::Refund, State::Refunded, Effect::Refund),
    rule(State::Refunded, Event::Dispute, State::Disputed, Effect::Keep),
    rule(State::Disputed, Event::Refund, State::Disputed, Effect::Refund),
    rule(State::Disputed, Event::Dropped, State::Settled, Effect::Keep),
    rule(State::Disputed, Event::Redressed, State::Refunded, Effect::Keep),
    rule(State::Disputed, Event::Dispute, State::Disputed, Effect::Keep),
];

const fn rule(from: State, event: Event, to: State, effect: Effect) -> Rule {
    Rule { from, event, to, effect }
}

/// Looks a transition up; none if it is not legal.
#[must_use]
pub fn transition(from: State, event: Event) -> Option<Rule> {
    TRANSITIONS.into_iter().find(|r| r.from == from && r.event == event)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_round_trip() {
        for state in State::ALL {
            assert_eq!(State::from_number(state.number()), Some(state));
        }
        for unused in [0, 3, 12, 255] {
            assert_eq!(State::from_number(unused), None);
        }
    }

    #[test]
    fn each_state_and_event_has_at_most_one_rule() {
        for (i, a) in TRANSITIONS.iter().enumerate() {
            for b in &TRANSITIONS[i + 1..] {
                assert!((a.from, a.event) != (b.from, b.event), "{a:?} {b:?}");
            }
        }
    }

    #[test]
    fn nothing_leaves_a_final_state() {
        for rule in TRANSITIONS {
            assert!(!matches!(rule.from, State::Denied | State::Released), "{rule:?}");
        }
    }

    #[test]
    fn money_at_risk_is_freed_only_by_a_refusal_before_a_signature_or_a_proof_of_non_use() {
        for rule in TRANSITIONS {
            if rule.from.is_open() && rule.effect == Effect::Release {
                let refused = (rule.from, rule.event) == (State::Signed, Event::SignerRefused);
                assert!(refused || rule.event == Event::Unused, "{rule:?}");
            }
        }
    }

    #[test]
    fn the_effect_is_what_the_states_mean() {
        for rule in TRANSITIONS {
            let reserved = |state: State| state == State::Review || state.is_open();
            let expected = match (reserved(rule.from), rule.from.is_spent(), reserved(rule.to), rule.to.is_spent()) {
                (true, _, true, _) if rule.from == State::Review => Effect::Replace,
                (true, _, true, _) => Effect::Keep,
                (true, _, _, true) => Effect::Settle,
                (true, _, false, false) => Effect::Release,
                (_, true, _, true) if rule.event == Event::Refund => Effect::Refund,
                (_, true, _, true) => Effect::Keep,
                _ => panic!("{rule:?} leads nowhere it may"),
            };
            assert_eq!(rule.effect, expected, "{rule:?}");
        }
    }

    #[test]
    fn what_is_proven_stays_proven() {
        // From an open payment, every event but these two keeps the money reserved.
        for rule in TRANSITIONS.into_iter().filter(|rule| rule.from.is_open()) {
            let proof = matches!(rule.event, Event::Redeemed | Event::Unused | Event::SignerRefused);
            assert_eq!(rule.to.is_open(), !proof, "{rule:?}");
        }
        for state in State::ALL.into_iter().filter(|state| state.is_open()) {
            for event in [Event::Redeemed, Event::Unused, Event::Ambiguous, Event::Receipt] {
                let known = transition(state, event).is_some();
                assert!(known || (state, event) == (State::Seen, Event::Ambiguous), "{state:?} {event:?}");
            }
        }
    }

    #[test]
    fn events_are_stored_as_they_are_serialised() {
        for event in Event::ALL {
            assert_eq!(serde_json::to_value(event).unwrap(), event.name());
        }
    }
}
