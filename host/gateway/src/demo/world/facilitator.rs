//! A facilitator: checks payments and settles them on the chain, over HTTP or called directly.
//!
//! The order of its checks and its reason codes are those of the official implementation, for the
//! `exact` scheme with EIP-3009 in x402 v2 and v1. Its faults are switches.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use countersign_core::evm::{Address, Eip712Domain, Signature65, TransferWithAuthorization, hex32};
use countersign_core::money::Atomic;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::chain::{Chain, Revert};
use super::server::{Answer, Call, HungUp, Service, json as answer, pause};

/// Seconds of validity that must remain, so that the transaction can still be mined.
const MARGIN_SECONDS: u64 = 6;

/// Why a payment was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The official code.
    pub code: String,
    /// What the contract said, if it was asked.
    pub message: Option<String>,
}

impl Refusal {
    fn because(code: &str) -> Self {
        Self { code: code.to_owned(), message: None }
    }
}

/// The answer to "is this payment good?".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Why not, if not.
    pub outcome: Result<(), Refusal>,
    /// Who pays, as the payment says.
    pub payer: Option<String>,
}

impl Verdict {
    /// As the wire has it.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut out = json!({"isValid": self.outcome.is_ok()});
        if let Err(refusal) = &self.outcome {
            set(&mut out, "invalidReason", Some(&refusal.code));
            set(&mut out, "invalidMessage", refusal.message.as_ref());
        }
        set(&mut out, "payer", self.payer.as_ref());
        out
    }
}

/// The answer to "take this payment".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settlement {
    /// The transaction's hash, or the code that says why there is none.
    pub outcome: Result<String, String>,
    /// The network as the offer names it.
    pub network: String,
    /// Who paid, as the payment says.
    pub payer: Option<String>,
}

impl Settlement {
    /// As the wire has it; servers send it on as the receipt.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let transaction = self.outcome.as_ref().map_or("", String::as_str);
        let mut out = json!({"success": self.outcome.is_ok(), "transaction": transaction, "network": self.network});
        set(&mut out, "errorReason", self.outcome.as_ref().err());
        set(&mut out, "payer", self.payer.as_ref());
        out
    }
}

fn set(object: &mut Value, key: &str, value: Option<&String>) {
    if let (Some(object), Some(value)) = (object.as_object_mut(), value) {
        object.insert(key.to_owned(), json!(value));
    }
}

/// The connection broke before an answer came: the money may have moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LostReply;

#[derive(Clone, Default)]
struct Faults {
    drop_settle_reply: bool,
    fail_verify: Option<String>,
    fail_settle: Option<String>,
    skip_settle: bool,
    settle_delay: Duration,
}

/// A handle on the facilitator; clones are the same facilitator.
#[derive(Clone)]
pub struct Facilitator {
    chain: Chain,
    faults: Arc<Mutex<Faults>>,
}

impl Facilitator {
    /// A facilitator that settles on this chain.
    #[must_use]
    pub fn new(chain: Chain) -> Self {
        Self { chain, faults: Arc::default() }
    }

    /// Settles, but the reply is lost on the way.
    pub fn drop_settle_reply(&self, on: bool) {
        self.switch(|faults| faults.drop_settle_reply = on);
    }

    /// Calls every payment invalid, with this code.
    pub fn fail_verify(&self, code: Option<&str>) {
        self.switch(|faults| faults.fail_verify = code.map(str::to_owned));
    }

    /// Settles nothing and says so, with this code.
    pub fn fail_settle(&self, code: Option<&str>) {
        self.switch(|faults| faults.fail_settle = code.map(str::to_owned));
    }

    /// Settles nothing and claims success.
    pub fn skip_settle(&self, on: bool) {
        self.switch(|faults| faults.skip_settle = on);
    }

    /// Waits before it settles.
    pub fn delay_settle(&self, time: Duration) {
        self.switch(|faults| faults.settle_delay = time);
    }

    /// Turns every fault off.
    pub fn clear_faults(&self) {
        self.switch(|faults| *faults = Faults::default());
    }

    fn switch(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.faults.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn faults(&self) -> Faults {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Checks a payment against an offer, including that the chain would take it now.
    #[must_use]
    pub fn verify(&self, payment: &Value, offer: &Value) -> Verdict {
        let outcome = match self.faults().fail_verify {
            Some(code) => Err(Refusal { code, message: None }),
            None => self.checked(payment, offer).and_then(|checked| self.simulated(&checked, offer)),
        };
        Verdict { outcome, payer: payer(payment) }
    }

    /// Checks a payment once more and redeems it.
    ///
    /// # Errors
    /// [`LostReply`] when the switch for it is on; the payment was settled all the same.
    pub async fn settle(&self, payment: &Value, offer: &Value) -> Result<Settlement, LostReply> {
        let faults = self.faults();
        if !faults.settle_delay.is_zero() {
            pause(faults.settle_delay).await;
        }
        let outcome = if let Some(code) = faults.fail_settle {
            Err(code)
        } else if faults.skip_settle {
            Ok(hex32::print(&[0; 32]))
        } else {
            self.redeemed(payment, offer)
        };
        if faults.drop_settle_reply {
            return Err(LostReply);
        }
        let network = text(offer, "network").unwrap_or_default().to_owned();
        Ok(Settlement { outcome, network, payer: payer(payment) })
    }

    /// What this facilitator can do.
    #[must_use]
    pub fn supported(&self) -> Value {
        let network = self.network(2);
        json!({
            "kinds": [
                {"x402Version": 2, "scheme": "exact", "network": network},
                {"x402Version": 1, "scheme": "exact", "network": self.network(1)},
            ],
            "extensions": [],
            "signers": {"eip155:*": [super::RELAYER]},
        })
    }

    /// Our network as a version of x402 spells it.
    fn network(&self, version: u64) -> String {
        if version == 1 { super::NETWORK_V1.to_owned() } else { format!("eip155:{}", self.chain.token().chain_id) }
    }

    /// The checks that need no chain, in the official order.
    fn checked(&self, payment: &Value, offer: &Value) -> Result<Checked, Refusal> {
        let no = |code| Err(Refusal::because(code));
        let (chosen, price_key, network) = match payment.get("x402Version").and_then(Value::as_u64) {
            Some(2) => (payment.get("accepted").unwrap_or(&Value::Null), "amount", self.network(2)),
            Some(1) => (payment, "maxAmountRequired", self.network(1)),
            _ => return no("invalid_x402_version"),
        };
        let (Some(message), Some(signature)) = (message(payment), payment.pointer("/payload/signature")) else {
            return no("invalid_payload");
        };
        if text(chosen, "scheme") != Some("exact") || text(offer, "scheme") != Some("exact") {
            return no("invalid_exact_evm_scheme");
        }
        let in_extra = |key| offer.get("extra").and_then(|extra| text(extra, key)).filter(|text| !text.is_empty());
        let (Some(name), Some(version)) = (in_extra("name"), in_extra("version")) else {
            return no("invalid_exact_evm_missing_eip712_domain");
        };
        if text(chosen, "network") != text(offer, "network") || text(offer, "network") != Some(&network) {
            return no("invalid_exact_evm_network_mismatch");
        }
        let (Some(asset), Some(payee)) = (address(offer, "asset"), address(offer, "payTo")) else {
            return no("invalid_payment_requirements");
        };
        let domain = Eip712Domain {
            name: name.to_owned(),
            version: version.to_owned(),
            chain_id: self.chain.token().chain_id,
            verifying_contract: asset,
        };
        let Some(signature) = signature.as_str().and_then(|text| text.parse::<Signature65>().ok()) else {
            return no("invalid_exact_evm_failed_to_parse_signature");
        };
        let signer = countersign_core::evm::recover(&message.digest(&domain), &signature);
        if signer != Some(message.from) {
            return no("invalid_exact_evm_signature");
        }
        if message.to != payee {
            return no("invalid_exact_evm_recipient_mismatch");
        }
        let now = self.chain.now().as_secs();
        if message.valid_before < now.saturating_add(MARGIN_SECONDS) {
            return no("invalid_exact_evm_payload_authorization_valid_before");
        }
        if message.valid_after > now {
            return no("invalid_exact_evm_payload_authorization_valid_after");
        }
        if text(offer, price_key).and_then(|price| price.parse().ok()) != Some(message.value.get()) {
            return no("invalid_exact_evm_payload_authorization_value_mismatch");
        }
        if asset != self.chain.token().verifying_contract {
            return no("asset_not_deployed_contract");
        }
        Ok(Checked { message, signature })
    }

    /// Asks the chain, and if it refuses finds out which reason to name, as the official one does.
    fn simulated(&self, checked: &Checked, offer: &Value) -> Result<(), Refusal> {
        let Err(revert) = self.chain.simulate(&checked.message, &checked.signature) else {
            return Ok(());
        };
        let token = self.chain.token();
        let extra = offer.get("extra").unwrap_or(&Value::Null);
        let payer = checked.message.from;
        let code = if self.chain.authorization_state(payer, &checked.message.nonce) {
            "invalid_exact_evm_nonce_already_used"
        } else if text(extra, "name") != Some(&token.name) {
            "invalid_exact_evm_token_name_mismatch"
        } else if text(extra, "version") != Some(&token.version) {
            "invalid_exact_evm_token_version_mismatch"
        } else if self.chain.balance(payer) < checked.message.value.get() {
            "invalid_exact_evm_insufficient_balance"
        } else {
            "invalid_exact_evm_transaction_simulation_failed"
        };
        Err(Refusal { code: code.to_owned(), message: Some(revert.to_string()) })
    }

    fn redeemed(&self, payment: &Value, offer: &Value) -> Result<String, String> {
        let Checked { message, signature } = self.checked(payment, offer).map_err(|refusal| refusal.code)?;
        let sent = self.chain.transfer_with_authorization(&message, &signature);
        sent.map(|hash| hex32::print(&hash)).map_err(|revert| {
            let code = match revert {
                Revert::NotYetValid => "invalid_exact_evm_payload_authorization_valid_after",
                Revert::Expired => "invalid_exact_evm_payload_authorization_valid_before",
                Revert::UsedOrCanceled => "invalid_exact_evm_nonce_already_used",
                Revert::InvalidSignature => "invalid_exact_evm_signature",
                Revert::InsufficientBalance => "invalid_exact_evm_insufficient_balance",
                Revert::ZeroAddress => "invalid_exact_evm_transaction_failed",
            };
            code.to_owned()
        })
    }
}

impl Service for Facilitator {
    async fn answer(&self, call: Call) -> Answer {
        let body: Value = serde_json::from_slice(&call.body).unwrap_or_default();
        let part = |name| body.get(name).unwrap_or(&Value::Null);
        let (payment, offer) = (part("paymentPayload"), part("paymentRequirements"));
        Ok(match (&call.method, call.path.as_str()) {
            (&Method::GET, "/supported") => answer(StatusCode::OK, &self.supported()),
            (&Method::POST, "/verify" | "/settle") if !(payment.is_object() && offer.is_object()) => {
                let error = json!({"error": "Missing paymentPayload or paymentRequirements"});
                answer(StatusCode::BAD_REQUEST, &error)
            }
            (&Method::POST, "/verify") => answer(StatusCode::OK, &self.verify(payment, offer).to_json()),
            (&Method::POST, "/settle") => {
                let settlement = self.settle(payment, offer).await.map_err(|LostReply| HungUp)?;
                answer(StatusCode::OK, &settlement.to_json())
            }
            _ => answer(StatusCode::NOT_FOUND, &json!({"error": "Not found"})),
        })
    }
}

/// A payment that needs only the chain's consent.
struct Checked {
    message: TransferWithAuthorization,
    signature: Signature65,
}

/// The authorization a payment of either version carries.
pub(super) fn message(payment: &Value) -> Option<TransferWithAuthorization> {
    let authorization = payment.pointer("/payload/authorization")?;
    let seconds = |key| text(authorization, key)?.parse().ok();
    Some(TransferWithAuthorization {
        from: address(authorization, "from")?,
        to: address(authorization, "to")?,
        value: Atomic::new(text(authorization, "value")?.parse().ok()?),
        valid_after: seconds("validAfter")?,
        valid_before: seconds("validBefore")?,
        nonce: hex32::parse(text(authorization, "nonce")?)?,
    })
}

fn payer(payment: &Value) -> Option<String> {
    let from = payment.pointer("/payload/authorization/from")?;
    from.as_str().map(str::to_owned)
}

fn address(object: &Value, key: &str) -> Option<Address> {
    text(object, key)?.parse().ok()
}

fn text<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    object.get(key)?.as_str()
}
