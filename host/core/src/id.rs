//! Identifiers. Each kind is its own type, prints with its own prefix, and is time-ordered
//! (UUID version 7), so that a store keeps rows in the order they were made.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::digits::lower_hex;
use crate::time::Timestamp;

/// The text is not an identifier of the expected kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdError {
    /// The prefix that was expected, such as `pay_`.
    pub expected: &'static str,
}

impl fmt::Display for IdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected `{}` followed by 32 lower-case hex digits", self.expected)
    }
}

impl std::error::Error for IdError {}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 16]);

        impl $name {
            /// The prefix of the printed form.
            pub const PREFIX: &'static str = $prefix;

            /// A new identifier from a moment and ten random bytes.
            #[must_use]
            pub fn new(at: Timestamp, random: [u8; 10]) -> Self {
                Self(uuid_v7(at, random))
            }

            /// From the sixteen bytes a store keeps.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }

            /// Below every identifier that is made at this moment or later, and above all earlier ones: those
            /// begin with their moment and carry a version further down.
            #[must_use]
            pub fn first_of(at: Timestamp) -> Self {
                let [_, _, t0, t1, t2, t3, t4, t5] = at.as_millis().to_be_bytes();
                Self([t0, t1, t2, t3, t4, t5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
            }

            /// The sixteen bytes a store keeps.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}{}", $prefix, lower_hex(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                parse_id(text, $prefix).map(Self).ok_or(IdError { expected: $prefix })
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(d)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

id!(
    /// One attempt to pay. Minted by the host, never by an agent; doubles as the x402
    /// `payment-identifier`.
    PaymentId,
    "pay_"
);
id!(
    /// One judgement of one candidate offer.
    DecisionId,
    "dec_"
);
id!(
    /// A purchase frozen until people have spoken.
    ApprovalId,
    "apr_"
);
id!(
    /// A session opened by an orchestrator.
    SessionId,
    "ses_"
);

fn parse_id(text: &str, prefix: &str) -> Option<[u8; 16]> {
    let digits = text.strip_prefix(prefix)?;
    if digits.bytes().any(|b| b.is_ascii_uppercase()) {
        return None;
    }
    let mut bytes = [0_u8; 16];
    hex::decode_to_slice(digits, &mut bytes).ok()?;
    Some(bytes)
}

fn uuid_v7(at: Timestamp, random: [u8; 10]) -> [u8; 16] {
    let [_, _, t0, t1, t2, t3, t4, t5] = at.as_millis().to_be_bytes();
    let [r0, r1, r2, r3, r4, r5, r6, r7, r8, r9] = random;
    let version = (r0 & 0x0f) | 0x70;
    let variant = (r2 & 0x3f) | 0x80;
    [t0, t1, t2, t3, t4, t5, version, r1, variant, r3, r4, r5, r6, r7, r8, r9]
}

/// The name of a purchase: 1 to 128 of `[A-Za-z0-9_-]`, chosen by the agent or minted by us.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct PurchaseId(String);

impl PurchaseId {
    /// Accepts an agent's own identifier.
    ///
    /// # Errors
    /// When it is empty, longer than 128 bytes or holds a character outside `[A-Za-z0-9_-]`.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        let ok = (1..=128).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        if ok { Ok(Self(text.to_owned())) } else { Err(IdError { expected: "1 to 128 of [A-Za-z0-9_-]; or `pur_`" }) }
    }

    /// Mints one for an agent that brought none.
    #[must_use]
    pub fn mint(at: Timestamp, random: [u8; 10]) -> Self {
        Self(format!("pur_{}", hex::encode(uuid_v7(at, random))))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PurchaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for PurchaseId {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(d)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_round_trip_and_order_by_time() {
        let a = PaymentId::new(Timestamp::from_secs(1), [0xff; 10]);
        let b = PaymentId::new(Timestamp::from_secs(2), [0; 10]);
        assert!(a < b);
        assert_eq!(a.to_string().parse::<PaymentId>(), Ok(a));
        assert_eq!(a.to_string(), "pay_0000000003e87fffbfffffffffffffff");
        assert!(a.to_string().parse::<DecisionId>().is_err());
        assert!(a.to_string().to_uppercase().parse::<PaymentId>().is_err());
    }

    #[test]
    fn purchase_ids_are_narrow() {
        for good in ["a", "T-42_x", &"x".repeat(128)] {
            assert!(PurchaseId::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "a b", "ä", "a/b", &"x".repeat(129)] {
            assert!(PurchaseId::parse(bad).is_err(), "{bad}");
        }
    }
}
