//! Why an offer cannot be paid.

use std::fmt;

use serde::Serialize;

use crate::time::Timestamp;

/// An offer that was understood and left aside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Skipped {
    /// `x402` or `mpp`.
    pub rail: &'static str,
    /// Its place among those of its rail.
    pub index: usize,
    /// Stable kebab-case.
    pub code: &'static str,
    /// Host-written, for people and agents.
    pub message: String,
}

impl Skipped {
    /// What people call it.
    #[must_use]
    pub fn place(&self) -> String {
        place(self.rail, self.index)
    }
}

/// What people call the offer `index` of a rail: MPP's are challenges.
pub(super) fn place(rail: &str, index: usize) -> String {
    let what = if rail == "mpp" { "challenge" } else { "offer" };
    format!("{what} {index}")
}

/// Why a rail could not go on. Nothing has been signed.
///
/// The messages are host-written: they may reach an agent, so a seller's words are never in them.
/// Front doors answer all of them as 422 `unpayable-offer` with [`RailError::code`] as the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RailError {
    /// The 402 makes no offer of this rail.
    NotThisRail(&'static str),
    /// The 402 speaks a version nobody knows.
    Version,
    /// Version 2 terms were only in the body.
    TermsInBody,
    /// The 402 does not follow the protocol. One bad offer makes all of them suspect.
    Malformed {
        /// Where, such as `accepts[0].amount`.
        path: String,
        /// What was expected.
        problem: String,
    },
    /// The payee cannot be meant.
    PayeeForbidden {
        /// Where, such as `accepts[0].payTo`.
        path: String,
        /// Why.
        why: &'static str,
    },
    /// Every offer was left aside.
    NothingPayable(Vec<Skipped>),
    /// The asset table no longer has the asset the offer was read with.
    AssetChanged,
    /// The offer leaves too little time to be settled.
    ValidityTooShort {
        /// Seconds that remain.
        seconds: u32,
        /// Seconds that are needed.
        least: u32,
    },
    /// The challenge has ended, or ends too soon to be settled.
    Ended {
        /// When.
        at: Timestamp,
        /// Seconds that are needed.
        least: u32,
    },
    /// The payment header would be larger than servers accept.
    HeaderTooLarge {
        /// Its size.
        bytes: usize,
        /// The most that is sent.
        most: usize,
    },
}

impl RailError {
    /// Stable code for programs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NotThisRail(_) => "not-x402",
            Self::Version => "x402-version",
            Self::TermsInBody => "x402-terms-in-body",
            Self::Malformed { .. } => "offer-malformed",
            Self::PayeeForbidden { .. } => "payee-forbidden",
            Self::NothingPayable(_) => "nothing-payable",
            Self::AssetChanged => "asset-changed",
            Self::ValidityTooShort { .. } => "validity-too-short",
            Self::Ended { .. } => "challenge-expired",
            Self::HeaderTooLarge { .. } => "payment-header-too-large",
        }
    }

    pub(crate) fn malformed(path: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Malformed { path: path.into(), problem: problem.into() }
    }
}

impl fmt::Display for RailError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotThisRail(why) => write!(f, "the seller's 402 holds no offer that can be read: {why}"),
            Self::Version => {
                f.write_str("x402Version: expected the number 2, or 1; the seller speaks a newer or broken x402")
            }
            Self::TermsInBody => f.write_str(
                "the seller put x402 version 2 terms into the body only; they belong into the \
                 PAYMENT-REQUIRED header, as the seller should be told",
            ),
            Self::Malformed { path, problem } => {
                write!(f, "{path}: {problem}; the seller's 402 is broken")
            }
            Self::PayeeForbidden { path, why } => write!(f, "{path}: {why}; nothing can be paid"),
            Self::NothingPayable(skipped) => {
                f.write_str("none of the seller's offers can be paid")?;
                for (offer, separator) in skipped.iter().zip(std::iter::once(": ").chain(std::iter::repeat("; "))) {
                    let list = if offer.rail == "mpp" { "challenges" } else { "accepts" };
                    write!(f, "{separator}{list}[{}] {}", offer.index, offer.message)?;
                }
                Ok(())
            }
            Self::AssetChanged => {
                f.write_str("the asset table changed since the offer was read; ask the seller for terms again")
            }
            Self::ValidityTooShort { seconds, least } => write!(
                f,
                "the payment could be redeemed for {seconds} s only and {least} s are needed; see \
                 maxTimeoutSeconds of the offer and max-validity-seconds of the mandate",
            ),
            Self::Ended { at, least } => write!(
                f,
                "the seller's challenge ends at {at}, and {least} s before that are needed; ask the seller for another",
            ),
            Self::HeaderTooLarge { bytes, most } => write!(
                f,
                "the payment header would have {bytes} bytes and servers accept about {most}; the \
                 seller's offer is too long to be echoed",
            ),
        }
    }
}

impl std::error::Error for RailError {}
