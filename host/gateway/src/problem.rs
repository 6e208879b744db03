//! The one place where a refusal becomes an HTTP answer (RFC 9457 problem+json).
//!
//! Agents read these: nothing here carries a seller's or a policy's words unless a field says so.

use countersign_core::ledger::{Approval, LedgerError};
use serde_json::{Map, Value, json};

/// Every code the gateway answers with, and its HTTP status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// Malformed call.
    BadRequest,
    /// The address may not be connected to.
    EgressForbidden,
    /// No or unknown token.
    Unauthenticated,
    /// It is not this operator's to do.
    Forbidden,
    /// Nothing here.
    NotFound,
    /// No mandate matches.
    NoMandate,
    /// A policy said no, or failed.
    PolicyDenied,
    /// Nobody allowed.
    NoPolicyAllowed,
    /// A hold does not fit.
    BudgetExceeded,
    /// Above the call's own `max_price`.
    PriceAboveMax,
    /// The session is over.
    SessionExpired,
    /// Stopped by an operator.
    Suspended,
    /// Earlier payments are still unresolved.
    TooManyUnresolved,
    /// People said no.
    ApprovalDenied,
    /// Nobody answered in time.
    ApprovalExpired,
    /// Frozen and waiting.
    ApprovalRequired,
    /// The id names another request.
    PurchaseConflict,
    /// An earlier payment of this purchase is unresolved.
    PaymentUnknown,
    /// Paid, and the answer was not kept.
    AlreadySettled,
    /// The request body is too large.
    BodyTooLarge,
    /// Malformed, unknown or untabled offers.
    UnpayableOffer,
    /// The wallet's balance does not cover it.
    InsufficientFunds,
    /// No connection.
    SellerUnreachable,
    /// A 402 after payment.
    PaymentRefused,
    /// Not HTTP, or beyond a limit.
    SellerMisbehaved,
    /// Too many decisions a minute.
    RateLimited,
    /// A queue is full.
    Overloaded,
    /// The store cannot be written.
    LedgerUnavailable,
    /// The wallet did not sign.
    WalletUnavailable,
    /// The keys that would vouch for the caller cannot be had.
    IssuerUnavailable,
    /// Signed and sent, no answer.
    OutcomeUnknown,
    /// A change that needs a restart, or that somebody else made first.
    Conflict,
}

impl Code {
    /// Every code.
    pub const ALL: [Self; 32] = [
        Self::BadRequest,
        Self::EgressForbidden,
        Self::Unauthenticated,
        Self::Forbidden,
        Self::NotFound,
        Self::NoMandate,
        Self::PolicyDenied,
        Self::NoPolicyAllowed,
        Self::BudgetExceeded,
        Self::PriceAboveMax,
        Self::SessionExpired,
        Self::Suspended,
        Self::TooManyUnresolved,
        Self::ApprovalDenied,
        Self::ApprovalExpired,
        Self::ApprovalRequired,
        Self::PurchaseConflict,
        Self::PaymentUnknown,
        Self::AlreadySettled,
        Self::BodyTooLarge,
        Self::UnpayableOffer,
        Self::InsufficientFunds,
        Self::SellerUnreachable,
        Self::PaymentRefused,
        Self::SellerMisbehaved,
        Self::RateLimited,
        Self::Overloaded,
        Self::LedgerUnavailable,
        Self::WalletUnavailable,
        Self::IssuerUnavailable,
        Self::OutcomeUnknown,
        Self::Conflict,
    ];

    /// Stable code and HTTP status.
    #[must_use]
    pub const fn parts(self) -> (&'static str, u16) {
        match self {
            Self::BadRequest => ("bad-request", 400),
            Self::EgressForbidden => ("egress-forbidden", 400),
            Self::Unauthenticated => ("unauthenticated", 401),
            Self::Forbidden => ("forbidden", 403),
            Self::NotFound => ("not-found", 404),
            Self::NoMandate => ("no-mandate", 403),
            Self::PolicyDenied => ("policy-denied", 403),
            Self::NoPolicyAllowed => ("no-policy-allowed", 403),
            Self::BudgetExceeded => ("budget-exceeded", 403),
            Self::PriceAboveMax => ("price-above-max", 403),
            Self::SessionExpired => ("session-expired", 403),
            Self::Suspended => ("suspended", 403),
            Self::TooManyUnresolved => ("too-many-unresolved", 403),
            Self::ApprovalDenied => ("approval-denied", 403),
            Self::ApprovalExpired => ("approval-expired", 403),
            Self::ApprovalRequired => ("approval-required", 202),
            Self::PurchaseConflict => ("purchase-conflict", 409),
            Self::PaymentUnknown => ("payment-unknown", 409),
            Self::AlreadySettled => ("already-settled", 409),
            Self::Conflict => ("conflict", 409),
            Self::BodyTooLarge => ("body-too-large", 413),
            Self::UnpayableOffer => ("unpayable-offer", 422),
            Self::InsufficientFunds => ("insufficient-funds", 422),
            Self::SellerUnreachable => ("seller-unreachable", 502),
            Self::PaymentRefused => ("payment-refused", 502),
            Self::SellerMisbehaved => ("seller-misbehaved", 502),
            Self::RateLimited => ("rate-limited", 429),
            Self::Overloaded => ("overloaded", 503),
            Self::LedgerUnavailable => ("ledger-unavailable", 503),
            Self::WalletUnavailable => ("wallet-unavailable", 503),
            Self::IssuerUnavailable => ("issuer-unavailable", 503),
            Self::OutcomeUnknown => ("outcome-unknown", 504),
        }
    }

    /// The stable code.
    #[must_use]
    pub const fn code(self) -> &'static str {
        self.parts().0
    }

    /// Whether the same call may ever succeed as it is.
    const fn may_be_retried(self) -> bool {
        matches!(
            self,
            Self::ApprovalRequired
                | Self::BudgetExceeded
                | Self::Suspended
                | Self::TooManyUnresolved
                | Self::InsufficientFunds
                | Self::SellerUnreachable
                | Self::PaymentRefused
                | Self::RateLimited
                | Self::Overloaded
                | Self::LedgerUnavailable
                | Self::WalletUnavailable
                | Self::IssuerUnavailable
                | Self::OutcomeUnknown
        )
    }

    const fn title(self) -> &'static str {
        match self {
            Self::BadRequest => "The call is malformed",
            Self::EgressForbidden => "This address may not be called",
            Self::Unauthenticated => "A valid token is required",
            Self::Forbidden => "This operator may not do that",
            Self::NotFound => "There is no such thing here",
            Self::NoMandate => "No mandate covers this caller",
            Self::PolicyDenied => "A policy refused this purchase",
            Self::NoPolicyAllowed => "No policy allowed this purchase",
            Self::BudgetExceeded => "A budget has no room for this purchase",
            Self::PriceAboveMax => "The price is above the call's own limit",
            Self::SessionExpired => "The session is over",
            Self::Suspended => "Spending is suspended",
            Self::TooManyUnresolved => "Earlier payments are still unresolved",
            Self::ApprovalDenied => "An approver refused this purchase",
            Self::ApprovalExpired => "Nobody approved this purchase in time",
            Self::ApprovalRequired => "This purchase waits for approval",
            Self::PurchaseConflict => "This purchase id names another request",
            Self::PaymentUnknown => "An earlier payment of this purchase is unresolved",
            Self::AlreadySettled => "This purchase is already paid",
            Self::Conflict => "The change was refused",
            Self::BodyTooLarge => "The body is too large",
            Self::UnpayableOffer => "The seller's offer cannot be paid",
            Self::InsufficientFunds => "The wallet does not hold enough",
            Self::SellerUnreachable => "The seller cannot be reached",
            Self::PaymentRefused => "The seller asked for payment again",
            Self::SellerMisbehaved => "The seller's answer cannot be used",
            Self::RateLimited => "Too many at a time",
            Self::Overloaded => "The gateway is busy",
            Self::LedgerUnavailable => "The ledger cannot be used",
            Self::WalletUnavailable => "The wallet cannot sign",
            Self::IssuerUnavailable => "Nobody can vouch for the caller now",
            Self::OutcomeUnknown => "Paid, and no answer came",
        }
    }
}

/// A refusal on its way to whoever called.
#[derive(Clone, Debug)]
pub struct Problem {
    /// What kind.
    pub code: Code,
    /// What exactly, and what to do.
    pub detail: String,
    /// Seconds after which trying again may help.
    pub retry_after: Option<u32>,
    members: Map<String, Value>,
}

impl Problem {
    /// A problem with its detail.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        let retry_after = match code {
            Code::Overloaded | Code::LedgerUnavailable | Code::WalletUnavailable => Some(1),
            Code::IssuerUnavailable => Some(30),
            Code::RateLimited => Some(60),
            _ => None,
        };
        Self { code, detail: detail.into(), retry_after, members: Map::new() }
    }

    /// Adds a member.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.members.insert(name.to_owned(), value.into());
        self
    }

    /// Adds a member if nobody has yet.
    #[must_use]
    pub fn with_default(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.members.entry(name.to_owned()).or_insert_with(|| value.into());
        self
    }

    /// Adds the approval that has to come first.
    #[must_use]
    pub fn with_approval(self, approval: &Approval, base: &str) -> Self {
        self.with(
            "approval",
            json!({
                "id": approval.id,
                "url": format!("{base}/v1/approvals/{}", approval.id),
                "expires_at": approval.expires_at.to_string(),
            }),
        )
    }

    /// A member's text, for logs and tests.
    #[must_use]
    pub fn member(&self, name: &str) -> Option<&Value> {
        self.members.get(name)
    }

    /// The body.
    #[must_use]
    pub fn body(&self) -> Value {
        let (code, status) = self.code.parts();
        let mut body = self.members.clone();
        body.insert("type".into(), format!("urn:countersign:problem:{code}").into());
        body.insert("title".into(), self.code.title().into());
        body.insert("status".into(), status.into());
        body.insert("detail".into(), self.detail.clone().into());
        body.insert("code".into(), code.into());
        body.entry("retry").or_insert_with(|| self.code.may_be_retried().into());
        if let Some(seconds) = self.retry_after {
            body.insert("retry_after".into(), seconds.into());
        }
        Value::Object(body)
    }
}

impl From<LedgerError> for Problem {
    fn from(error: LedgerError) -> Self {
        match error {
            LedgerError::Overloaded => Self::new(Code::Overloaded, "the ledger's queue is full; nothing was signed"),
            LedgerError::NotFound => Self::new(Code::NotFound, "there is no such record"),
            LedgerError::Conflict(why) => Self::new(Code::Conflict, why),
            LedgerError::Forbidden(why) => Self::new(Code::Forbidden, why),
            LedgerError::Unavailable(why) => {
                tracing::error!(why, "the ledger cannot be used");
                Self::new(Code::LedgerUnavailable, "the ledger cannot be used now; nothing was signed")
            }
        }
    }
}

impl From<countersign_core::seams::ClockError> for Problem {
    fn from(error: countersign_core::seams::ClockError) -> Self {
        tracing::error!(%error, "refusing to decide");
        Self::new(Code::Overloaded, "the gateway has no usable clock; nothing was signed")
    }
}
