//! `POST /v1/payments/{id}/outcome`: what an agent says came of a payment that it presented itself.
//!
//! It is a claim. It is compared with what was signed and written down, and moves nothing: only the chain says
//! what became of a payment.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use countersign_core::ledger::{Note, PaymentView};
use countersign_core::x402::Receipt;
use serde::Deserialize;
use serde_json::{Value, json};

use super::admin::parse;
use crate::identity::Caller;
use crate::problem::{Code, Problem};
use crate::state::{Gateway, Snapshot};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Said {
    status: u16,
    #[serde(default)]
    receipt: Option<Value>,
    #[serde(default)]
    note: Option<String>,
}

/// Records what the caller says of its own payment.
pub(super) async fn report(
    gateway: &std::sync::Arc<Gateway>,
    snapshot: &Snapshot,
    caller: &Caller,
    payment: &PaymentView,
    said: &[u8],
) -> Result<(), Problem> {
    let bad = |detail: &str| Problem::new(Code::BadRequest, detail);
    let said: Said = parse(said)?;
    if !(100..=599).contains(&said.status) {
        return Err(bad("status: what the seller answered, from 100 to 599"));
    }
    let header = match said.receipt {
        None | Some(Value::Null) => None,
        Some(Value::String(header)) => Some(header),
        Some(terms @ Value::Object(_)) => Some(BASE64.encode(terms.to_string())),
        Some(_) => return Err(bad("receipt: the header PAYMENT-RESPONSE as it came, or the JSON in it")),
    };
    let now = gateway.clock.now()?;
    let most = snapshot.config.limits.purchases_per_agent_per_minute;
    if !gateway.rate.admit(&caller.principal.agent, most, now) {
        return Err(Problem::new(Code::RateLimited, "this agent said and asked too much in the last minute"));
    }
    let Some(authorization) = payment.authorization.as_ref().filter(|_| payment.state.has_authorization()) else {
        let detail = format!("nothing was signed that could be redeemed: the payment is {}", payment.state.public());
        return Err(Problem::new(Code::Conflict, detail));
    };
    let headers: Vec<_> = header.into_iter().map(|h| ("payment-response".to_owned(), h.into_bytes())).collect();
    let receipt: Receipt = snapshot.rail.receipt(authorization, said.status, &headers);
    let body = json!({
        "payment": payment.id,
        "purchase": payment.key.purchase,
        "workspace": payment.key.workspace,
        "session": caller.session,
        "status": said.status,
        "claim": receipt,
        "note": said.note,
    });
    let by = caller.principal.agent.clone();
    gateway.ledger.note(Note { kind: "outcome-reported", by, body, at: now }).await?;
    // Nothing is believed; it is a good moment to look.
    gateway.chains.watch(gateway, payment.id);
    Ok(())
}
