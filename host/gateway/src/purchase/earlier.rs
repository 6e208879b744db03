//! What an earlier attempt at the same purchase means for this call.

use std::sync::Arc;

use countersign_core::ledger::{Approval, ApprovalState, PaymentView, Transition};
use countersign_core::payment::{Event, State};

use super::Purchase;
use super::answer::{Reply, deliver};
use super::decide::Resumption;
use super::present::unresolved;
use crate::problem::{Code, Problem};
use crate::telemetry::Step;

/// What to do about the earlier attempt.
pub(super) enum Earlier {
    /// Nothing stands in the way of a decision.
    Nothing,
    /// It was answered already.
    Answer(Box<Reply>),
    /// Its authorization must be presented again, never another.
    Represent(Box<PaymentView>),
    /// It was approved.
    Resume(Resumption),
}

impl Purchase {
    pub(super) async fn earlier(&self, latest: Option<PaymentView>) -> Result<Earlier, Problem> {
        let Some(payment) = latest else { return Ok(Earlier::Nothing) };
        if payment.fingerprint != self.fingerprint {
            let detail = "an earlier call with this purchase_id had another method, URL or body";
            return Err(Problem::new(Code::PurchaseConflict, detail).with("payment", payment.id.to_string()));
        }
        self.own(&payment)?;
        match payment.state {
            State::Denied | State::Released => Ok(Earlier::Nothing),
            State::Review => self.in_review(&payment).await,
            State::Signed | State::Redeemable => Ok(Earlier::Represent(Box::new(payment))),
            State::Seen | State::Settled | State::Refunded | State::Disputed => self.paid(payment).await,
            State::Stuck => Err(unresolved(&payment)),
        }
    }

    /// A session, or a JWT for somebody, sees only its own payments: another's purchase is a conflict
    /// without contents.
    fn own(&self, payment: &PaymentView) -> Result<(), Problem> {
        if payment.session != self.caller.session {
            let detail = "this purchase_id belongs to another session of the agent";
            return Err(Problem::new(Code::PurchaseConflict, detail));
        }
        if !self.caller.is_for(&payment.facts.principal) {
            let detail = "this purchase_id belongs to another user, client, project or task of the agent";
            return Err(Problem::new(Code::PurchaseConflict, detail));
        }
        Ok(())
    }

    async fn in_review(&self, payment: &PaymentView) -> Result<Earlier, Problem> {
        let now = self.gateway.clock.now()?;
        let id = payment.approval.ok_or_else(|| Problem::new(Code::Conflict, "a review without an approval"))?;
        let approval = self.gateway.ledger.approval(id).await?;
        let approval = approval.ok_or_else(|| Problem::new(Code::Conflict, "a review without an approval"))?;
        if approval.expires_at <= now {
            self.gateway.ledger.expire_approvals(now).await?;
            return Ok(Earlier::Nothing);
        }
        match approval.state {
            ApprovalState::Approved => Ok(Earlier::Resume(Resumption { approval })),
            ApprovalState::Pending => match self.wait_for(&approval).await? {
                Some(resumption) => Ok(Earlier::Resume(resumption)),
                None => Err(self.approval_required(&approval)),
            },
            ApprovalState::Denied | ApprovalState::Expired | ApprovalState::Used => Ok(Earlier::Nothing),
        }
    }

    async fn paid(&self, payment: PaymentView) -> Result<Earlier, Problem> {
        if self.call.elsewhere.is_some() {
            // No answers are given at this door, and a payment that was redeemed pays for nothing more.
            let over = payment.state.is_spent() || payment.delivered;
            return if over { Err(paid_for(&payment)) } else { Ok(Earlier::Represent(Box::new(payment))) };
        }
        if let Some(answer) = self.gateway.ledger.answer(payment.id).await? {
            let currency = &self.snapshot.config.gateway.currency;
            let late = (!payment.delivered).then(|| answer.body.clone());
            let mut reply = Reply::replayed(answer, &payment, currency)?;
            if let Some(body) = late {
                reply.body = deliver(Arc::clone(&self.gateway), payment.id, body);
            }
            return Ok(Earlier::Answer(Box::new(reply)));
        }
        if !payment.delivered {
            return Ok(Earlier::Represent(Box::new(payment)));
        }
        Err(already_settled(&payment))
    }

    /// Waits, as long as the agent asked, for people to speak. None: they have not.
    pub(super) async fn wait_for(&self, approval: &Approval) -> Result<Option<Resumption>, Problem> {
        let start = self.gateway.clock.now()?;
        let patience = u64::from(self.call.wait_seconds).saturating_mul(1_000);
        let _step = (patience > 0).then(|| self.trace.step(Step::Wait));
        if let Some(waits) = &self.call.waits {
            waits.send_replace(Some(approval.id));
        }
        loop {
            let now = self.gateway.clock.now()?;
            if now.since(start) >= patience {
                return Ok(None);
            }
            if now >= approval.expires_at {
                self.gateway.ledger.expire_approvals(now).await?;
            }
            let current = self.gateway.ledger.approval(approval.id).await?;
            match current.map(|a| (a.state, a)) {
                Some((ApprovalState::Pending, _)) => self.gateway.clock.sleep(200).await,
                Some((ApprovalState::Approved, approval)) => return Ok(Some(Resumption { approval })),
                Some((ApprovalState::Denied, _)) => {
                    return Err(Problem::new(Code::ApprovalDenied, "an approver refused this purchase")
                        .with("payment", approval.payment.to_string()));
                }
                _ => {
                    return Err(Problem::new(Code::ApprovalExpired, "nobody approved this purchase in time")
                        .with("payment", approval.payment.to_string()));
                }
            }
        }
    }

    pub(super) fn approval_required(&self, approval: &Approval) -> Problem {
        let reasons: Vec<_> = approval
            .shown
            .iter()
            .map(|(policy, code)| serde_json::json!({"policy": policy, "code": code, "message": format!("`{policy}` asks for a person's approval")}))
            .collect();
        let detail =
            "the purchase is frozen and its budget reserved; repeat the call with this purchase_id once it is approved";
        Problem::new(Code::ApprovalRequired, detail)
            .with_approval(approval, &self.gateway.base_url)
            .with("payment", approval.payment.to_string())
            .with("reasons", reasons)
    }

    /// Lets go of an approved purchase that is no longer what was approved.
    pub(super) async fn withdraw(&self, approval: &Approval, why: &str) -> Result<(), Problem> {
        let at = self.gateway.clock.now()?;
        let (payment, why) = (approval.payment, why.to_owned());
        let transition = Transition { payment, from: State::Review, event: Event::Withdraw, why, evidence: None, at };
        self.gateway.ledger.transition(transition).await?;
        Ok(())
    }
}

/// For whoever makes the call itself.
fn paid_for(payment: &PaymentView) -> Problem {
    let detail = "this purchase is paid, and its payment is good for nothing more; without this purchase_id, the same \
                  call is a new purchase";
    Problem::new(Code::AlreadySettled, detail)
        .with("payment", payment.id.to_string())
        .with("payment_state", payment.state.public())
        .with("retry", false)
}

pub(super) fn already_settled(payment: &PaymentView) -> Problem {
    let detail = if payment.delivered {
        "this purchase is paid; its answer was delivered and is not kept"
    } else {
        "this purchase is paid; its answer never arrived whole, and can no longer be asked for"
    };
    Problem::new(Code::AlreadySettled, detail)
        .with("payment", payment.id.to_string())
        .with("payment_state", payment.state.public())
        .with("retry", false)
}
