//! What the trace of a purchase says of it: names, figures and codes; never a path, a query, a body or a word
//! of somebody else's.

use countersign_core::id::PaymentId;
use countersign_core::ledger::PaymentFacts;
use countersign_core::verdict::Combined;

use super::answer::Reply;
use super::{Call, Snapshot};
use crate::config::{Door, MandateConfig};
use crate::identity::Caller;
use crate::telemetry::attributes as key;
use crate::telemetry::{Ended, Trace};

impl Reply {
    /// How a call ended that is answered so.
    #[must_use]
    pub fn ended(&self) -> Ended {
        if self.headers.contains_key("countersign-replayed") {
            Ended::Replayed
        } else if self.headers.contains_key("countersign-payment") {
            Ended::Paid
        } else {
            Ended::Free
        }
    }
}

impl Trace {
    /// Who wants what from whom.
    pub(super) fn about(&self, snapshot: &Snapshot, caller: &Caller, call: &Call, door: Door) {
        let principal = &caller.principal;
        self.say(&key::DOOR, door.as_str());
        self.say(&key::AGENT, principal.agent.as_str());
        if let Some(workspace) = &principal.workspace {
            self.say(&key::WORKSPACE, workspace.as_str());
        }
        if let Some(session) = caller.session {
            self.say(&key::SESSION, session.to_string());
        }
        self.say(&key::METHOD, call.method.as_str());
        self.say(&key::HOST, call.target.host());
        self.say(&key::GENERATION, snapshot.generation);
        self.say(&key::CURRENCY, snapshot.config.gateway.currency.as_str());
    }

    /// Under which mandate, from which wallet.
    pub(super) fn under(&self, mandate: &MandateConfig) {
        self.say(&key::MANDATE, mandate.name.as_str());
        self.say(&key::WALLET, mandate.wallet.as_str());
    }

    /// What would be paid to whom.
    pub(super) fn offered(&self, facts: &PaymentFacts) {
        self.say(&key::AMOUNT, facts.amount.to_string());
        self.say(&key::ASSET, facts.asset.as_str());
        self.say(&key::SYMBOL, facts.asset_symbol.as_str());
        self.say(&key::NETWORK, facts.network.as_str());
        self.say(&key::SCHEME, facts.scheme.as_str());
        self.say(&key::PAYEE, facts.pay_to.as_str());
        self.say(&key::VALUE, facts.value.to_string());
    }

    /// What the policies came to.
    pub(super) fn judged(&self, combined: &Combined) {
        self.say(&key::VERDICT, combined.verdict.as_str());
        let codes: Vec<String> = combined.reasons.iter().map(|r| format!("{}/{}", r.policy, r.reason.code)).collect();
        self.say(&key::REASONS, codes);
    }

    /// Which payment; the log says it too.
    pub(super) fn pays(&self, payment: PaymentId) {
        tracing::Span::current().record("payment", payment.to_string());
        self.say(&key::PAYMENT, payment.to_string());
    }
}
