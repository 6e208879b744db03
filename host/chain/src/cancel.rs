//! Ending an authorization early: what an operator has signed, and what is then sent. Pure. Sending it
//! costs gas, which somebody else pays; whoever sends it, it can do nothing else.

use std::fmt;

use countersign_core::evm::{CancelAuthorization, Signature65, recover};
use countersign_core::x402::Authorization;

use crate::source::{Hash, call_bytes, word};

/// Why a cancellation would fail on the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CancelError {
    /// It is not signed by who would have paid.
    Signature,
}

impl fmt::Display for CancelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Signature => f.write_str(
                "the cancellation is not signed by the paying wallet; the token would refuse it, and the gas be lost",
            ),
        }
    }
}

impl std::error::Error for CancelError {}

/// The message that ends this authorization, and its digest: what the paying wallet signs.
#[must_use]
pub fn cancellation(authorization: &Authorization) -> (CancelAuthorization, [u8; 32]) {
    let message = CancelAuthorization { authorizer: authorization.from, nonce: authorization.nonce };
    let digest = message.digest(&authorization.offer.asset.domain());
    (message, digest)
}

/// The call to send to the token's address: `cancelAuthorization(address,bytes32,uint8,bytes32,bytes32)`.
///
/// # Errors
/// When the signature is not the payer's.
pub fn cancel_calldata(authorization: &Authorization, signature: &Signature65) -> Result<Vec<u8>, CancelError> {
    let (message, digest) = cancellation(authorization);
    if recover(&digest, signature) != Some(message.authorizer) {
        return Err(CancelError::Signature);
    }
    let (r, rest) = signature.as_bytes().split_first_chunk::<32>().ok_or(CancelError::Signature)?;
    let (s, v) = rest.split_first_chunk::<32>().ok_or(CancelError::Signature)?;
    let mut v_word: Hash = [0; 32];
    if let (Some(last), Some(v)) = (v_word.last_mut(), v.first()) {
        *last = *v;
    }
    let words = [word(message.authorizer), message.nonce, v_word, *r, *s];
    Ok(call_bytes("cancelAuthorization(address,bytes32,uint8,bytes32,bytes32)", &words))
}
