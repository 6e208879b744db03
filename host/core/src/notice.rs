//! What an operator's receiver is told of approvals, and what came of telling it.

use serde::{Deserialize, Serialize};

use crate::id::ApprovalId;
use crate::ledger::{Approval, PaymentFacts, Told};
use crate::time::Timestamp;

/// What happened to an approval.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NoticeEvent {
    /// People are asked.
    Requested,
    /// They have said yes, or somebody no.
    Decided,
    /// It is over without having been used: time ran out, or the purchase was withdrawn.
    Expired,
}

impl NoticeEvent {
    /// Every event.
    pub const ALL: [Self; 3] = [Self::Requested, Self::Decided, Self::Expired];

    /// The message's type.
    #[must_use]
    pub const fn kind(self) -> &'static str {
        match self {
            Self::Requested => "approval.requested",
            Self::Decided => "approval.decided",
            Self::Expired => "approval.expired",
        }
    }
}

/// A message as it is kept until its receiver has it, and afterwards. What it says is as it was when it happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Counts notices of the store.
    pub id: u64,
    /// What happened.
    pub event: NoticeEvent,
    /// To which approval, as it was then.
    pub approval: Approval,
    /// What would be bought, by whom and for whom.
    pub facts: PaymentFacts,
    /// When.
    pub at: Timestamp,
    /// Whether the receiver has it.
    pub told: Told,
    /// How often it was tried.
    pub attempts: u32,
    /// When it was tried last, and what came of it.
    pub last: Option<(Timestamp, String)>,
}

/// A proposed rule, for people to look at: never applied by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// Which approval it is about.
    pub approval: ApprovalId,
    /// Who asked for it.
    pub by: String,
    /// The proposal as its readers see it: JSON.
    pub document: String,
    /// When.
    pub at: Timestamp,
}
