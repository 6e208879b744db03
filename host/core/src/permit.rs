//! No hold, no signature: as a type.
//!
//! A [`Permit`] exists only because a ledger answered that the holds and the exact payload are
//! durable ([`commit`]), or that they already were and are still open ([`represent`]). It cannot be
//! cloned or made up, sealing it consumes it, and only a [`Sealed`] payment can be presented.
//! Dropping a permit releases nothing: the payload is assumed to be out there.

use std::fmt;

use crate::evm::{Address, CancelAuthorization, Signature65, recover};
use crate::id::PaymentId;
use crate::ledger::{Alert, Approval, Cancellation, Commit, Committed, Grant, Ledger, LedgerError, Refusal, Reopened};
use crate::payment::State;
use crate::time::Timestamp;
use crate::x402::Authorization;

/// The right to sign one exact payload, once.
#[must_use = "a permit that is dropped leaves its payment held"]
#[derive(Debug)]
pub struct Permit {
    authorization: Box<Authorization>,
}

impl Permit {
    /// The payment it is for.
    #[must_use]
    pub fn payment(&self) -> PaymentId {
        self.authorization.payment
    }

    /// What will be signed.
    #[must_use]
    pub fn authorization(&self) -> &Authorization {
        &self.authorization
    }

    /// Turns the permit into a presentable payment, if `signature` is the payer's over exactly the
    /// permitted payload.
    ///
    /// # Errors
    /// [`SealError`] names who signed instead.
    pub fn seal(self, signature: Signature65) -> Result<Sealed, SealError> {
        let signer = recover(&self.authorization.digest(), &signature);
        let payer = self.authorization.from;
        if signer == Some(payer) {
            Ok(Sealed { authorization: self.authorization, signature })
        } else {
            Err(SealError { payer, signer })
        }
    }
}

/// The signature is not the payer's over this payload. It is never sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SealError {
    /// Who should have signed.
    pub payer: Address,
    /// Who did, if anybody.
    pub signer: Option<Address>,
}

impl fmt::Display for SealError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.signer {
            Some(signer) => write!(f, "signed by {signer}, not by the payer {}", self.payer),
            None => write!(f, "not a signature of the payer {}", self.payer),
        }
    }
}

impl std::error::Error for SealError {}

/// A payload with the payer's signature: what may be presented.
#[derive(Debug)]
pub struct Sealed {
    authorization: Box<Authorization>,
    signature: Signature65,
}

impl Sealed {
    /// The payload.
    #[must_use]
    pub fn authorization(&self) -> &Authorization {
        &self.authorization
    }

    /// The payer's signature.
    #[must_use]
    pub fn signature(&self) -> &Signature65 {
        &self.signature
    }
}

/// The right to sign that one stored authorization must never be redeemed. It exists only once the ledger says who
/// wants that ([`cancel`]).
#[must_use = "it was recorded that this would be signed"]
#[derive(Debug)]
pub struct CancelPermit {
    authorization: Box<Authorization>,
}

impl CancelPermit {
    /// What will be cancelled.
    #[must_use]
    pub fn authorization(&self) -> &Authorization {
        &self.authorization
    }

    fn message(&self) -> CancelAuthorization {
        CancelAuthorization { authorizer: self.authorization.from, nonce: self.authorization.nonce }
    }

    /// What is signed, under the domain of our own asset table.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        self.message().digest(&self.authorization.offer.asset.domain())
    }

    /// The call that anybody may send, if `signature` is the payer's over exactly this cancellation.
    ///
    /// # Errors
    /// [`SealError`] names who signed instead.
    pub fn seal(self, signature: Signature65) -> Result<SignedCancellation, SealError> {
        let (payer, signer) = (self.authorization.from, recover(&self.digest(), &signature));
        if signer != Some(payer) {
            return Err(SealError { payer, signer });
        }
        let call = self.message().call(&signature);
        Ok(SignedCancellation { authorization: self.authorization, call })
    }
}

/// A signed cancellation, as a call of the token.
#[derive(Debug)]
pub struct SignedCancellation {
    /// What it cancels.
    pub authorization: Box<Authorization>,
    /// The call's data, for a transaction to the token's address that anybody may send and pay for.
    pub call: Vec<u8>,
}

/// Records the cancellation; the permit comes only with its durability.
///
/// # Errors
/// When the ledger could not answer, or the payment is nothing to cancel.
pub async fn cancel(ledger: &dyn Ledger, cancellation: Cancellation) -> Result<CancelPermit, LedgerError> {
    Ok(CancelPermit { authorization: ledger.cancel(cancellation).await? })
}

/// What became of [`commit`].
#[derive(Debug)]
pub enum Granted {
    /// Sign and pay.
    Permit {
        /// The right to sign.
        permit: Permit,
        /// Thresholds that were reached.
        alerts: Vec<Alert>,
    },
    /// People must be asked.
    Review(Approval),
    /// Nothing was written.
    Refused(Refusal),
}

/// Commits the holds and the payload; the permit comes only with their durability.
///
/// # Errors
/// When the ledger could not answer. It may or may not have written; nothing was signed.
pub async fn commit(ledger: &dyn Ledger, commit: Commit) -> Result<Granted, LedgerError> {
    let payload = match &commit.grant {
        Grant::Sign(authorization) => Some(authorization.clone()),
        Grant::Review(_) => None,
    };
    match (ledger.commit(commit).await?, payload) {
        (Committed::Granted { alerts }, Some(authorization)) => {
            Ok(Granted::Permit { permit: Permit { authorization }, alerts })
        }
        (Committed::Granted { .. }, None) => {
            Err(LedgerError::Conflict("a review was granted without a payload".to_owned()))
        }
        (Committed::Review(approval), _) => Ok(Granted::Review(approval)),
        (Committed::Refused(refusal), _) => Ok(Granted::Refused(refusal)),
    }
}

/// What became of [`represent`].
#[derive(Debug)]
pub enum Represented {
    /// Present it again; sign the same payload again only if no signature was stored.
    Open {
        /// The right to sign the stored payload.
        permit: Permit,
        /// The stored signature.
        signature: Option<Signature65>,
    },
    /// Its validity is over (or about to be).
    Expired,
    /// It is not open.
    NotOpen(State),
    /// Something that covers it is suspended.
    Suspended(String),
    /// The caller was identified under a generation older than the operator allows: identify again.
    Stale,
}

/// Reopens the stored payload of an open payment: the same nonce, never a new one.
///
/// # Errors
/// When the ledger could not answer.
pub async fn represent(
    ledger: &dyn Ledger,
    payment: PaymentId,
    generation: u64,
    at: Timestamp,
) -> Result<Represented, LedgerError> {
    Ok(match ledger.reopen(payment, generation, at).await? {
        Reopened::Open { authorization, signature } => {
            Represented::Open { permit: Permit { authorization }, signature }
        }
        Reopened::Expired => Represented::Expired,
        Reopened::NotOpen(state) => Represented::NotOpen(state),
        Reopened::Suspended(what) => Represented::Suspended(what),
        Reopened::Stale => Represented::Stale,
    })
}
