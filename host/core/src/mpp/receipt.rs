//! Receipts: what a seller says became of a payment. A receipt is a claim; only the chain proves.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::credential::challenge_of;
use crate::evm::hex32;
use crate::json::Json;
use crate::time::Timestamp;
use crate::x402::{Authorization, Receipt, header};

const MAX_RECEIPT: usize = 64 * 1024;
const NAMES: &[&str] = &["payment-receipt"];

struct Problem(&'static str, &'static str);

const fn malformed(message: &'static str) -> Problem {
    Problem("receipt-malformed", message)
}

pub(super) fn read(authorization: &Authorization, status: u16, headers: &[(String, Vec<u8>)]) -> Receipt {
    let receipt = match header::only(headers, NAMES) {
        Ok(None) => return Receipt::Absent,
        Ok(Some(value)) if value.len() > MAX_RECEIPT => Err(malformed("larger than is accepted")),
        Ok(Some(value)) => URL_SAFE_NO_PAD.decode(value).map_err(|_| malformed("expected base64url without padding")),
        Err(message) => Err(malformed(message)),
    };
    judged(receipt.and_then(|bytes| judge(authorization, status, &bytes)))
}

/// A receipt that is a JSON document of its own.
pub(super) fn read_document(authorization: &Authorization, status: u16, bytes: &[u8]) -> Receipt {
    judged(judge(authorization, status, bytes))
}

fn judged(receipt: Result<Receipt, Problem>) -> Receipt {
    receipt.unwrap_or_else(|Problem(code, message)| Receipt::Invalid {
        code: code.to_owned(),
        message: message.to_owned(),
    })
}

fn judge(authorization: &Authorization, status: u16, bytes: &[u8]) -> Result<Receipt, Problem> {
    let json = Json::parse(bytes, MAX_RECEIPT).map_err(|_| malformed("expected one JSON object, each key once"))?;
    // Null counts as absent, as everywhere; anything but a string where one belongs does not.
    let text = |key: &str| json.get(key).map(|member| member.as_str().ok_or(())).transpose();
    let required = |key: &str| text(key).ok().flatten();
    // There is no receipt of a failure, so any other word is not one to rely on.
    if required("status") != Some("success") {
        return Err(malformed("status: expected `success`"));
    }
    if !(200..300).contains(&status) {
        return Err(Problem("receipt-contradicts-status", "it claims success on an answer that is none"));
    }
    let Ok(challenge) = challenge_of(&authorization.offer) else {
        return Err(Problem("receipt-method", "expected a payment of this rail"));
    };
    if required("method") != Some(challenge.method.as_str()) {
        return Err(Problem("receipt-method", "method: expected the one that was paid by"));
    }
    if required("timestamp").and_then(Timestamp::parse).is_none() {
        return Err(malformed("timestamp: expected a moment in RFC 3339"));
    }
    let id = text("challengeId").map_err(|()| malformed("challengeId: expected a string"))?;
    if id.is_some_and(|id| id != challenge.id) {
        return Err(Problem("receipt-challenge", "challengeId: expected the challenge that was paid"));
    }
    if json.get("chainId").is_some_and(|c| c.as_u64() != Some(authorization.offer.network.chain_id())) {
        return Err(Problem("receipt-network", "chainId: expected the one that was paid on"));
    }
    let hash = required("reference").and_then(hex32::parse).filter(|hash| *hash != [0; 32]);
    let hash =
        hash.ok_or(Problem("receipt-transaction", "reference: expected `0x` and 64 hex digits, not all zero"))?;
    Ok(Receipt::Valid { transaction: hex32::print(&hash), payer: None, amount: None })
}
