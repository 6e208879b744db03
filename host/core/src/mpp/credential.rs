//! From a signature to what pays.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

use super::challenge::Challenge;
use super::offer::{CREDENTIAL, HEADER};
use crate::evm::{Signature65, hex32};
use crate::json::canonical;
use crate::x402::{Authorization, MAX_PAYMENT_HEADER, Offer, PaymentHeader, Protocol, RailError};

const SCHEME: &str = "Payment ";

/// The challenge that an offer answers.
pub(super) fn challenge_of(offer: &Offer) -> Result<&Challenge, RailError> {
    match &offer.protocol {
        Protocol::Mpp(challenge) => Ok(challenge),
        Protocol::X402(_) => Err(RailError::NotThisRail("the offer is one of x402")),
    }
}

/// The credential as a header.
pub(super) fn present(authorization: &Authorization, signature: &Signature65) -> Result<PaymentHeader, RailError> {
    let value = encode(&document(authorization, signature)?);
    if value.len() > MAX_PAYMENT_HEADER {
        return Err(RailError::HeaderTooLarge { bytes: value.len(), most: MAX_PAYMENT_HEADER });
    }
    Ok(PaymentHeader { name: HEADER, value })
}

/// Whether the header, if it is one, will not be too large, which must be known before there is a signature.
pub(super) fn fits(authorization: &Authorization) -> Result<(), RailError> {
    if challenge_of(&authorization.offer)?.is_json() {
        return Ok(());
    }
    let like_a_signature = "0".repeat(132);
    let bytes = encode(&compose(authorization, &like_a_signature)?).len();
    if bytes > MAX_PAYMENT_HEADER {
        return Err(RailError::HeaderTooLarge { bytes, most: MAX_PAYMENT_HEADER });
    }
    Ok(())
}

/// The credential as one JSON object.
pub(super) fn document(authorization: &Authorization, signature: &Signature65) -> Result<String, RailError> {
    compose(authorization, &signature.to_string())
}

fn encode(credential: &str) -> String {
    format!("{SCHEME}{}", URL_SAFE_NO_PAD.encode(credential))
}

/// RFC 8785's spelling: there are only strings and objects here, except for what a seller's own JSON holds over MCP, which is
/// given back as it was.
fn compose(authorization: &Authorization, signature: &str) -> Result<String, RailError> {
    let challenge = challenge_of(&authorization.offer)?;
    let payload = canonical(&json!({
        "from": authorization.from.to_string(),
        "nonce": hex32::print(&authorization.nonce),
        "signature": signature,
        "to": authorization.offer.pay_to.to_string(),
        "type": CREDENTIAL,
        "validAfter": authorization.valid_after.to_string(),
        "validBefore": authorization.valid_before.to_string(),
        "value": authorization.offer.amount.to_string(),
    }));
    let (echo, network, from) = (echo(challenge)?, authorization.offer.network, authorization.from);
    Ok(format!(r#"{{"challenge":{echo},"payload":{payload},"source":"did:pkh:{network}:{from}"}}"#))
}

fn echo(challenge: &Challenge) -> Result<String, RailError> {
    let malformed = || RailError::malformed("the stored challenge", "expected what was once read");
    let mut echo = serde_json::to_value(challenge).map_err(|_| malformed())?;
    if !challenge.is_json() {
        return Ok(canonical(&echo));
    }
    // The last of the keys, and never the only one.
    echo.as_object_mut().and_then(|members| members.remove("request")).ok_or_else(malformed)?;
    let others = canonical(&echo);
    let others = others.strip_suffix('}').ok_or_else(malformed)?;
    Ok(format!(r#"{others},"request":{}}}"#, challenge.request))
}
