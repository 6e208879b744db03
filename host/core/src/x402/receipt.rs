//! Receipts: what a seller says became of a payment. A receipt is a claim; only the chain proves.

use serde::{Deserialize, Serialize};

use super::offer::Version;
use super::payment::{Authorization, version_of};
use super::{header, text};
use crate::evm::{Address, hex32};
use crate::json::Json;
use crate::money::Atomic;

const MAX_RECEIPT: usize = 64 * 1024;

/// What an answer says about its payment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "receipt")]
pub enum Receipt {
    /// It claims success and contradicts nothing we know.
    Valid {
        /// `0x` and 64 lower-case hex digits. Not looked up, and maybe of another payment.
        transaction: String,
        /// The payer, if it names one; always ours.
        payer: Option<Address>,
        /// The amount, if it names one; always ours.
        amount: Option<Atomic>,
    },
    /// There is none.
    Absent,
    /// There is one, and it cannot be about this payment or cannot be read.
    Invalid {
        /// Stable kebab-case.
        code: String,
        /// Host-written.
        message: String,
    },
    /// It claims failure. The authorization stays redeemable all the same.
    Failed {
        /// The seller's words: untrusted, escaped and cut.
        error_reason: String,
        /// The transaction it names, if it looks like one.
        transaction: Option<String>,
    },
}

struct Problem(&'static str, &'static str);

pub(super) fn read(authorization: &Authorization, status: u16, headers: &[(String, Vec<u8>)]) -> Receipt {
    // Rust sellers answer version 1 payments under version 2's name.
    let names: &[_] = match version_of(&authorization.offer) {
        Ok(Version::V1) => &["x-payment-response", "payment-response"],
        Ok(Version::V2) => &["payment-response"],
        Err(_) => return Receipt::Absent,
    };
    let receipt = match header::only(headers, names) {
        Ok(None) => return Receipt::Absent,
        Ok(Some(value)) => header::decode(value, MAX_RECEIPT).map_err(malformed),
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

const fn malformed(message: &'static str) -> Problem {
    Problem("receipt-malformed", message)
}

fn judge(authorization: &Authorization, status: u16, bytes: &[u8]) -> Result<Receipt, Problem> {
    let json = Json::parse(bytes, MAX_RECEIPT).map_err(|_| malformed("expected one JSON object, each key once"))?;
    let transaction = transaction(&json)?;
    match json.get("success").and_then(Json::as_bool) {
        None => Err(malformed("success: expected true or false")),
        Some(false) => {
            let reason = optional_text(&json, "errorReason")?.unwrap_or("unstated");
            let error_reason = text::clean(reason, text::MAX_WORDS);
            Ok(Receipt::Failed { error_reason, transaction })
        }
        // 402 says "not paid"; a receipt beside it that says "paid" is not one to rely on.
        Some(true) if status == 402 => Err(Problem("receipt-contradicts-status", "it claims success on a 402")),
        Some(true) => {
            let transaction = transaction
                .ok_or(Problem("receipt-transaction", "transaction: expected `0x` and 64 hex digits, not all zero"))?;
            let (payer, amount) = check_same(authorization, &json)?;
            Ok(Receipt::Valid { transaction, payer, amount })
        }
    }
}

/// Network, payer and amount must be those of the payment.
fn check_same(authorization: &Authorization, json: &Json<'_>) -> Result<(Option<Address>, Option<Atomic>), Problem> {
    let offer = &authorization.offer;
    if optional_text(json, "network")? != Some(offer.network_name.as_str()) {
        return Err(Problem("receipt-network", "network: expected the one that was paid on"));
    }
    let payer = optional_text(json, "payer")?;
    let ours = authorization.from.to_string();
    if payer.is_some_and(|p| !p.eq_ignore_ascii_case(&ours)) {
        return Err(Problem("receipt-payer", "payer: expected the paying wallet"));
    }
    let amount = optional_text(json, "amount")?;
    if amount.is_some_and(|a| a != offer.amount.to_string()) {
        return Err(Problem("receipt-amount", "amount: expected the amount that was authorized"));
    }
    Ok((payer.map(|_| authorization.from), amount.map(|_| offer.amount)))
}

fn transaction(json: &Json<'_>) -> Result<Option<String>, Problem> {
    let hash = optional_text(json, "transaction")?.and_then(hex32::parse);
    Ok(hash.filter(|h| *h != [0; 32]).map(|h| hex32::print(&h)))
}

fn optional_text<'j>(json: &'j Json<'_>, key: &'static str) -> Result<Option<&'j str>, Problem> {
    match json.get(key) {
        None => Ok(None),
        Some(member) => {
            let text = member.as_str();
            text.map(Some).ok_or(Problem("receipt-malformed", "expected strings and one boolean"))
        }
    }
}
