//! The seams: traits with one real implementation each and one obvious test double. The fifth,
//! [`Ledger`](crate::ledger::Ledger), has a module of its own.

use std::fmt;

use crate::evm::{Address, Signature65};
use crate::id::PaymentId;
use crate::ledger::Fut;
use crate::permit::{CancelPermit, Permit, Sealed, SignedCancellation};
use crate::spend::SpendRequest;
use crate::time::Timestamp;
use crate::verdict::Judgement;
use crate::x402::{Authorization, Challenge, Offer, Offers, PaymentHeader, RailError, Receipt};

/// Asks every named policy about one frozen purchase.
///
/// Total: whatever goes wrong becomes an [`Opinion`](crate::verdict::Opinion) with a failure, never an error or a panic.
pub trait Judge: Send + Sync {
    /// Judges `request` under `policies`, in order.
    fn judge(&self, policies: &[String], request: &SpendRequest) -> Judgement;

    /// The generation that will judge.
    fn generation(&self) -> u64;
}

/// The clock or the source of randomness cannot be trusted; nothing may be decided or signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClockError(pub String);

impl fmt::Display for ClockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no usable clock: {}", self.0)
    }
}

impl std::error::Error for ClockError {}

/// The only source of *now*, of waiting, and of randomness.
pub trait Clock: Send + Sync {
    /// The current moment.
    ///
    /// # Errors
    /// When the clock cannot be trusted.
    fn now(&self) -> Result<Timestamp, ClockError>;

    /// Fills `out` with bytes nobody can predict.
    ///
    /// # Errors
    /// When the system has none.
    fn random(&self, out: &mut [u8]) -> Result<(), ClockError>;

    /// Waits.
    fn sleep(&self, millis: u64) -> Fut<'_, ()>;
}

/// Why a signer gave no signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SignError {
    /// It refused, for certain, and no signature bytes ever existed: the hold may be released.
    Refused(String),
    /// Nobody knows whether a signature was made: the hold stays.
    Uncertain(String),
}

impl fmt::Display for SignError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(why) => write!(f, "the wallet refused to sign: {why}"),
            Self::Uncertain(why) => write!(f, "the wallet did not answer clearly: {why}"),
        }
    }
}

impl std::error::Error for SignError {}

/// A wallet. It signs what a [`Permit`] permits and nothing else.
pub trait Signer: Send + Sync {
    /// The address it pays from.
    fn address(&self) -> Address;

    /// Signs the permitted payload.
    fn sign(&self, permit: Permit) -> Fut<'_, Result<Sealed, SignError>>;

    /// Signs that a payload must not be redeemed.
    fn cancel(&self, permit: CancelPermit) -> Fut<'_, Result<SignedCancellation, SignError>>;
}

/// A way to pay: reads offers, builds what is signed, reads receipts. It never decides, knows no
/// clock and keeps nothing.
pub trait Rail: Send + Sync {
    /// Whether [`Rail::offers`] needs the body of a 402 with these headers (names in lower case).
    fn needs_body(&self, headers: &[(String, Vec<u8>)]) -> bool;

    /// Reads what a 402 asks of `payer`.
    ///
    /// # Errors
    /// When it asks for nothing this rail can pay; all of them are `unpayable-offer` to an agent.
    fn offers(&self, challenge: &Challenge<'_>, payer: Address) -> Result<Offers, RailError>;

    /// Builds the exact payload to hold and sign. `nonce` must be 32 fresh random bytes, and is used unless the offer
    /// fixes another; the same arguments give the same payload.
    ///
    /// # Errors
    /// When the payload could not be settled, or not under the asset table as it now is.
    fn authorize(
        &self,
        offer: &Offer,
        payer: Address,
        payment: PaymentId,
        nonce: [u8; 32],
        now: Timestamp,
        max_validity_seconds: u32,
    ) -> Result<Authorization, RailError>;

    /// The header that pays. The same arguments give the same bytes.
    ///
    /// # Errors
    /// [`RailError::HeaderTooLarge`] when no server would read it.
    fn present(&self, authorization: &Authorization, signature: &Signature65) -> Result<PaymentHeader, RailError>;

    /// What the answer to a paid request says about the payment. It does not judge the status; only
    /// a 2xx with a valid receipt counts as accepted.
    fn receipt(&self, authorization: &Authorization, status: u16, headers: &[(String, Vec<u8>)]) -> Receipt;

    /// As [`Rail::offers`], for terms that are a JSON document of their own, as in an MCP tool's answer.
    ///
    /// # Errors
    /// As for [`Rail::offers`].
    fn offers_in(&self, terms: &[u8], payer: Address) -> Result<Offers, RailError>;

    /// The payment as one JSON object, for where there are no headers. The same arguments give the same bytes.
    ///
    /// # Errors
    /// When what the seller demands beside the payment cannot be added.
    fn document(&self, authorization: &Authorization, signature: &Signature65) -> Result<String, RailError>;

    /// As [`Rail::receipt`], for a receipt that is a JSON document of its own. `status` is what the answer would have
    /// over HTTP: 402 for another demand.
    fn receipt_in(&self, authorization: &Authorization, status: u16, receipt: &[u8]) -> Receipt;
}
