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
}

impl State {
    /// Every state, in stored order.
    pub const ALL: [Self; 7] =
        [Self::Denied, Self::Review, Self::Signed, Self::Redeemable, Self::Seen, Self::Settled, Self::Released];

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
            Self::Redeemable => "unknown",
            Self::Seen => "accepted",
            Self::Settled => "settled",
            Self::Released => "failed",
        }
    }

    /// Whether an authorization exists that somebody may still redeem, or has.
    #[must_use]
    pub const fn has_authorization(self) -> bool {
        matches!(self, Self::Signed | Self::Redeemable | Self::Seen | Self::Settled)
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
    /// The chain shows this very nonce redeemed, with our amount and payee.
    Redeemed,
}

/// What a transition does to the payment's holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// They stay as they are.
    Keep,
    /// They go back to their windows.
    Release,
    /// They become spent in their windows.
    Settle,
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

/// Every legal transition. There is no way from a signed payment to a released one but the
/// signer's certain refusal: proofs of non-use are evidence this table does not know yet, so
/// until it does such money stays held.
pub const TRANSITIONS: [Rule; 11] = [
    rule(State::Review, Event::Resume, State::Signed, Effect::Replace),
    rule(State::Review, Event::Withdraw, State::Released, Effect::Release),
    rule(State::Signed, Event::SignerRefused, State::Released, Effect::Release),
    rule(State::Signed, Event::Ambiguous, State::Redeemable, Effect::Keep),
    rule(State::Signed, Event::Receipt, State::Seen, Effect::Keep),
    rule(State::Signed, Event::Redeemed, State::Settled, Effect::Settle),
    rule(State::Redeemable, Event::Ambiguous, State::Redeemable, Effect::Keep),
    rule(State::Redeemable, Event::Receipt, State::Seen, Effect::Keep),
    rule(State::Redeemable, Event::Redeemed, State::Settled, Effect::Settle),
    rule(State::Seen, Event::Receipt, State::Seen, Effect::Keep),
    rule(State::Seen, Event::Redeemed, State::Settled, Effect::Settle),
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
        for unused in [0, 3, 9, 255] {
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
            assert!(!matches!(rule.from, State::Denied | State::Released | State::Settled), "{rule:?}");
        }
    }

    #[test]
    fn money_at_risk_is_freed_only_by_the_signers_certain_refusal() {
        for rule in TRANSITIONS {
            if rule.from.has_authorization() && rule.effect == Effect::Release {
                assert_eq!((rule.from, rule.event), (State::Signed, Event::SignerRefused));
            }
            assert_eq!(rule.effect == Effect::Settle, rule.to == State::Settled, "{rule:?}");
        }
    }
}
