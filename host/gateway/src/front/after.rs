//! What happens to a payment after the chain has proven it: money comes back, somebody contests it.
//! And before: it is to be cancelled there.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign_core::id::PaymentId;
use countersign_core::ledger::{Cancellation, Evidence, Ledger, PaymentView, Refund, RefundSource, Transition};
use countersign_core::money::Atomic;
use countersign_core::payment::{Event, transition};
use countersign_core::permit;
use countersign_core::seams::{Clock, Signer};
use countersign_core::x402::text::clean;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::admin::parse;
use super::not_found;
use crate::problem::{Code, Problem};

/// Largest body of such a call, in bytes: a dispute carries its file.
pub(super) const MAX_CALL: usize = 1 << 20;

/// Wallets by name.
type Signers = BTreeMap<String, Arc<dyn Signer>>;

/// What these calls need: so little that the command line can do without a running gateway.
#[derive(Clone, Copy)]
pub(crate) struct Desk<'a> {
    /// Where payments are.
    pub(crate) ledger: &'a dyn Ledger,
    /// Now.
    pub(crate) clock: &'a dyn Clock,
    /// The operator who speaks.
    pub(crate) by: &'a str,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CameBack {
    amount: String,
    reference: String,
}

/// `POST /v1/payments/{id}/refunds`: a person's word that money came back, in whole units of the paid
/// asset. It corrects the books and gives no budget back: only a transfer on the chain does.
pub(crate) async fn refund(desk: Desk<'_>, id: PaymentId, body: &[u8]) -> Result<PaymentView, Problem> {
    let said: CameBack = parse(body)?;
    let payment = find(desk, id).await?;
    let bad = |detail: String| Problem::new(Code::BadRequest, detail);
    let amount = Atomic::parse(&said.amount, payment.facts.asset_decimals)
        .map_err(|e| bad(format!("amount: {e}; whole units of {}, such as \"0.001\"", payment.facts.asset_symbol)))?;
    let reference = said.reference.trim();
    if reference.is_empty() || reference.len() > 128 || reference.chars().any(char::is_control) {
        return Err(bad("reference: 1 to 128 characters that name the refund, such as a credit note's number".into()));
    }
    let source = RefundSource::Person { by: desk.by.to_owned(), reference: reference.to_owned() };
    desk.ledger.refund(Refund { payment: id, amount, source, at: desk.clock.now()? }).await?;
    find(desk, id).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Contested {
    why: String,
    #[serde(default)]
    evidence_base64: String,
}

/// `POST /v1/payments/{id}/dispute`: says that a settled payment is contested, with a file that shows why.
/// The file is kept by its digest, which is in the record.
pub(crate) async fn dispute(desk: Desk<'_>, id: PaymentId, body: &[u8]) -> Result<PaymentView, Problem> {
    let said: Contested = parse(body)?;
    let file = STANDARD
        .decode(&said.evidence_base64)
        .map_err(|e| Problem::new(Code::BadRequest, format!("evidence_base64: {e}")))?;
    let payment = find(desk, id).await?;
    if transition(payment.state, Event::Dispute).is_none() {
        // Before its file is kept: what is refused must not fill the store.
        let detail = format!("a payment that is {} cannot be disputed; settled ones can", payment.state.public());
        return Err(Problem::new(Code::Conflict, detail).with("payment", id.to_string()));
    }
    let mut evidence = None;
    if !file.is_empty() {
        let document = Some(hex::encode(Sha256::digest(&file)));
        desk.ledger.remember(vec![file]).await?;
        evidence = Some(Box::new(Evidence { document, ..Evidence::default() }));
    }
    change(desk, &payment, Event::Dispute, said_by(desk.by, &said.why)?, evidence).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Over {
    why: String,
}

/// `POST /v1/payments/{id}/dispute/end`: the payment is what its refunds say: refunded, or settled.
pub(crate) async fn end_dispute(desk: Desk<'_>, id: PaymentId, body: &[u8]) -> Result<PaymentView, Problem> {
    let said: Over = parse(body)?;
    let payment = find(desk, id).await?;
    let event = if payment.refunds.is_empty() { Event::Dropped } else { Event::Redressed };
    change(desk, &payment, event, said_by(desk.by, &said.why)?, None).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Cancelled {
    why: String,
}

/// `POST /v1/payments/{id}/cancel`: signs that an open payment's authorization must never be redeemed, and answers the
/// transaction that says so to the token. Whoever sends it pays for it; nothing is freed before the chain shows it.
pub(super) async fn cancel(desk: Desk<'_>, signers: &Signers, id: PaymentId, body: &[u8]) -> Result<Value, Problem> {
    let said: Cancelled = parse(body)?;
    let why = reason(&said.why)?;
    let payment = find(desk, id).await?;
    let unsigned = |detail: String| Problem::new(Code::WalletUnavailable, detail).with("payment", id.to_string());
    let wallet = &payment.facts.wallet;
    let signer = signers.get(wallet).ok_or_else(|| unsigned(format!("wallet `{wallet}` is not open here")))?;
    let cancellation = Cancellation { payment: id, by: desk.by.to_owned(), why, at: desk.clock.now()? };
    let permit = permit::cancel(desk.ledger, cancellation).await?;
    let signed = signer.cancel(permit).await.map_err(|error| unsigned(error.to_string()))?;
    let cancelled = &signed.authorization;
    Ok(json!({
        "payment": id,
        "network": cancelled.offer.network,
        "to": cancelled.offer.asset.address.to_string(),
        "data": format!("0x{}", hex::encode(&signed.call)),
        "valid_before": cancelled.expires_at().to_string(),
    }))
}

fn said_by(by: &str, why: &str) -> Result<String, Problem> {
    Ok(format!("{by}: {}", reason(why)?))
}

fn reason(why: &str) -> Result<String, Problem> {
    let why = why.trim();
    if why.is_empty() || why.len() > 200 {
        return Err(Problem::new(Code::BadRequest, "why: 1 to 200 bytes that say what happened"));
    }
    Ok(clean(why, 200))
}

async fn change(
    desk: Desk<'_>,
    payment: &PaymentView,
    event: Event,
    why: String,
    evidence: Option<Box<Evidence>>,
) -> Result<PaymentView, Problem> {
    let at = desk.clock.now()?;
    let transition = Transition { payment: payment.id, from: payment.state, event, why, evidence, at };
    desk.ledger.transition(transition).await?;
    find(desk, payment.id).await
}

async fn find(desk: Desk<'_>, id: PaymentId) -> Result<PaymentView, Problem> {
    desk.ledger.payment(id).await?.ok_or_else(|| not_found("payment with this id"))
}
