//! The ledger as everything else sees it: one trait and the values that cross it.
//!
//! A backend contains no policy, no clock and no randomness. Every value it needs (ids, moments,
//! windows already worked out) arrives in the call; every call is one transaction; a reply means
//! the transaction is durable. [`Ledger::commit`] is the one point where money becomes spendable.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;

use serde::{Deserialize, Serialize};

use crate::budget::PlacedHold;
use crate::evm::Signature65;
use crate::generation::Generation;
use crate::id::{ApprovalId, DecisionId, PaymentId, PurchaseId, SessionId};
use crate::money::{Atomic, Micros};
use crate::notice::{Notice, Proposal};
use crate::payment::{Event, State};
use crate::spend::{History, Principal, Seller, SpendRequest};
use crate::terms::ApprovalTerms;
use crate::time::Timestamp;
use crate::verdict::{Attributed, Judgement, Unit, Verdict, Window};
use crate::x402::Authorization;

/// A boxed future, so that the trait can be an object.
pub type Fut<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Why the ledger did not do what it was asked. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LedgerError {
    /// The queue is full; the same call may succeed in a moment.
    Overloaded,
    /// The store cannot be written or read. The text is for the operator.
    Unavailable(String),
    /// Compare-and-set failed, or the transition is not in the table: somebody else was first.
    Conflict(String),
    /// There is no such row.
    NotFound,
    /// It is not this caller's to do, whatever else is so. The text is for them.
    Forbidden(String),
}

impl LedgerError {
    /// Stable code for programs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Overloaded => "overloaded",
            Self::Unavailable(_) => "ledger-unavailable",
            Self::Conflict(_) => "ledger-conflict",
            Self::NotFound => "not-found",
            Self::Forbidden(_) => "forbidden",
        }
    }
}

impl fmt::Display for LedgerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Overloaded => f.write_str("the ledger's queue is full"),
            Self::Unavailable(why) => write!(f, "the ledger cannot be used: {why}"),
            Self::Conflict(why) => write!(f, "the ledger refused the change: {why}"),
            Self::NotFound => f.write_str("the ledger has no such row"),
            Self::Forbidden(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for LedgerError {}

/// Names a purchase: an agent's id means nothing outside its workspace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PurchaseKey {
    /// Empty for agents without a workspace.
    pub workspace: String,
    /// The agent.
    pub agent: String,
    /// The purchase.
    pub purchase: PurchaseId,
}

/// SHA-256 over method, URL and body under the ledger's own key: two calls with one fingerprint
/// are the same request.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(pub [u8; 32]);

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// One judged candidate, as it is recorded. With the module and settings bytes its opinions name by
/// digest, it is enough to judge again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecisionRecord {
    /// The decision.
    pub id: DecisionId,
    /// Exactly what the policies were asked.
    pub request: SpendRequest,
    /// Exactly what they answered.
    pub judgement: Judgement,
    /// The verdict that came of it, holds included.
    pub verdict: Verdict,
    /// Why, by policy.
    pub reasons: Vec<Attributed>,
    /// The code the agent gets when this decision refused: `policy-denied`, `budget-exceeded`, …;
    /// none when it did not refuse.
    pub refusal: Option<String>,
}

/// What is known of a payment from its first moment and never changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PaymentFacts {
    /// Who asked.
    pub principal: Principal,
    /// HTTP method.
    pub method: String,
    /// Scheme, host and path; never the query.
    pub url: String,
    /// As policies see it.
    pub host: String,
    /// Absolute path.
    pub path: String,
    /// The payee as the rail spells it.
    pub pay_to: String,
    /// `x402`.
    pub rail: String,
    /// `exact`.
    pub scheme: String,
    /// CAIP-2.
    pub network: String,
    /// Token address.
    pub asset: String,
    /// From our table.
    pub asset_symbol: String,
    /// From our table.
    pub asset_decimals: u8,
    /// Atomic units.
    pub amount: Atomic,
    /// In the reference currency.
    pub value: Micros,
    /// Configured wallet name.
    pub wallet: String,
    /// The mandate it was spent under.
    pub mandate: String,
    /// The exact offer's digest, lower-case hex.
    pub offer_sha256: String,
    /// What the agent said, its purpose among it. Untrusted.
    pub claims: BTreeMap<String, String>,
    /// Where the seller says that is what is bought, if the call went somewhere else. Untrusted: nothing relies on it,
    /// and people are told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_elsewhere: Option<String>,
}

/// What a granted decision leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Grant {
    /// Sign exactly this, now.
    Sign(Box<Authorization>),
    /// Wait for people.
    Review(NewApproval),
}

/// A review about to be opened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewApproval {
    /// Minted by the host.
    pub id: ApprovalId,
    /// Digest of method, URL, forwarded headers, body, wallet and exact offer.
    pub frozen: String,
    /// Who must approve; already combined and defaulted.
    pub terms: ApprovalTerms,
    /// When it lapses.
    pub expires_at: Timestamp,
}

/// The caps of `[limits]`, checked inside the commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caps {
    /// Unresolved payments per seller host.
    pub unresolved_per_seller: u32,
    /// Unresolved payments per payee.
    pub unresolved_per_payee: u32,
    /// Unresolved payments per agent.
    pub unresolved_per_agent: u32,
    /// Open reviews per agent.
    pub reviews_per_agent: u32,
    /// A payment that only a receipt vouches for counts as unresolved once it is this old, in
    /// milliseconds; never, where no chain node could prove it.
    pub unproven_after: Option<u64>,
}

/// An approved review that this commit carries on with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resume {
    /// The payment in review; the commit keeps its identity.
    pub payment: PaymentId,
    /// The approval that must still be approved, unused and unexpired.
    pub approval: ApprovalId,
}

/// Everything one purchase writes before a key is touched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// Minted by the host; the payment in review when resuming.
    pub payment: PaymentId,
    /// Which purchase.
    pub key: PurchaseKey,
    /// Which request.
    pub fingerprint: Fingerprint,
    /// The static facts.
    pub facts: PaymentFacts,
    /// The session to check and count, if the token was a session's.
    pub session: Option<SessionId>,
    /// Every candidate judged so far; the last is the one being granted.
    pub decisions: Vec<DecisionRecord>,
    /// All holds, the host's own first, already placed.
    pub holds: Vec<PlacedHold>,
    /// What the grant leads to.
    pub grant: Grant,
    /// Opened when a hold reaches its `review-at` and `grant` was `Sign`.
    pub review_if_reached: NewApproval,
    /// For a purchase resumed after approval.
    pub resume: Option<Resume>,
    /// Caps to check.
    pub caps: Caps,
    /// The policy generation that judged.
    pub generation: u64,
    /// Now.
    pub at: Timestamp,
}

/// A budget had no room.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BudgetRefusal {
    /// The budget's owner.
    pub owner: String,
    /// Its name.
    pub name: String,
    /// What it counts.
    pub unit: Unit,
    /// Over which span.
    pub window: Window,
    /// Its limit as this decision stated it.
    pub limit: u64,
    /// Held and spent before this decision.
    pub used: u64,
    /// What this decision wanted.
    pub wanted: u64,
}

/// Why a commit granted nothing. Nothing was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A hold does not fit.
    Budget(Box<BudgetRefusal>),
    /// Too many unresolved payments; which cap, and how many there are.
    Unresolved {
        /// `seller`, `payee` or `agent`.
        scope: &'static str,
        /// How many.
        count: u32,
    },
    /// Too many open reviews for this agent.
    Reviews(u32),
    /// Something that covers this purchase is suspended.
    Suspended(String),
    /// The session is closed or over.
    Session,
    /// The policy set is older than the operator allows; judge again.
    Stale,
    /// The purchase already has a live attempt.
    Live(PaymentId),
    /// The approval is not (or no longer) one that can be used.
    Approval,
    /// This payer has signed for this nonce already, as this payment; whatever became of that, it is used once.
    Nonce(PaymentId),
}

/// A threshold was reached for the first time in its window.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alert {
    /// What people call the budget.
    pub budget: String,
    /// The threshold.
    pub at: u64,
    /// Held and spent now.
    pub used: u64,
}

/// An alert as it is kept until whoever must know has been told, and afterwards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptAlert {
    /// Counts alerts of the store.
    pub id: u64,
    /// The threshold.
    pub alert: Alert,
    /// What the budget counts.
    pub unit: Unit,
    /// The budget's limit.
    pub limit: u64,
    /// The payment that reached it.
    pub payment: PaymentId,
    /// When.
    pub at: Timestamp,
    /// Whether somebody was told.
    pub told: Told,
    /// How often it was tried.
    pub attempts: u32,
    /// When it was tried last, and what came of it.
    pub last: Option<(Timestamp, String)>,
}

/// Whether somebody was told of an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// Not yet; to be tried from this moment on.
    Not(Timestamp),
    /// They were.
    Delivered,
    /// They could not be, and it is not tried any more.
    GivenUp,
}

/// How an attempt to tell somebody of an alert, or of an approval, ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The number of the alert or notice.
    pub id: u64,
    /// What follows from it.
    pub told: Told,
    /// What came of it, for people; cut.
    pub outcome: String,
    /// Now.
    pub at: Timestamp,
}

/// What is open in a store, counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Payments that wait for people or for proof: how many, and what they hold at the host's value.
    pub open: Vec<(State, u64, Micros)>,
    /// Approvals that are pending.
    pub approvals: u64,
    /// Sessions that are open.
    pub sessions: u64,
    /// Alerts of which nobody was told yet.
    pub alerts: u64,
}

/// What became of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Committed {
    /// Durable; the payment is `Signed` and may be signed for.
    Granted {
        /// Thresholds this commit reached.
        alerts: Vec<Alert>,
    },
    /// Durable; the payment waits for people.
    Review(Approval),
    /// Nothing was written.
    Refused(Refusal),
}

/// A purchase nobody granted, with every candidate's decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// Minted by the host.
    pub payment: PaymentId,
    /// Which purchase.
    pub key: PurchaseKey,
    /// Which request.
    pub fingerprint: Fingerprint,
    /// Facts of the first candidate.
    pub facts: PaymentFacts,
    /// Every candidate.
    pub decisions: Vec<DecisionRecord>,
    /// The code the agent is told.
    pub code: String,
    /// Now.
    pub at: Timestamp,
}

/// What the log of records is at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TreeHead {
    /// How many records.
    pub size: u64,
    /// The root over them, as RFC 6962 hashes it.
    pub root: [u8; 32],
}

/// A signed checkpoint of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptCheckpoint {
    /// Over how many records.
    pub size: u64,
    /// The signed note.
    pub note: String,
}

/// What shows that something happened.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// Transaction hash, `0x` and 64 hex digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transaction: Option<String>,
    /// Block number, when the evidence is the chain's: of the redemption, or of the finalized block that
    /// shows there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block: Option<u64>,
    /// Its hash, `0x` and 64 hex digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block_hash: Option<String>,
    /// Its own time, in seconds since the epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block_time: Option<u64>,
    /// What was redeemed, if less than was signed; all of it otherwise. Atomic units.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redeemed: Option<Atomic>,
    /// SHA-256, in lower-case hex, of a remembered document: a dispute's file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub document: Option<String>,
    /// How many nodes said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<u8>,
}

/// Where money that came back is known from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "source")]
pub enum RefundSource {
    /// A finalized transfer of the paid asset from the paid payee to the paying wallet.
    Chain {
        /// Transaction hash, `0x` and 64 hex digits.
        transaction: String,
        /// Which log of its block. With the transaction it names the transfer: booked once, for ever.
        log: u64,
        /// The finalized block it is in.
        block: u64,
    },
    /// A person's word. It corrects the books; no budget is credited for it.
    Person {
        /// The operator.
        by: String,
        /// Their reference: booked once for this payment.
        reference: String,
    },
}

/// Money that came back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refund {
    /// Of which payment.
    pub payment: PaymentId,
    /// How much, in the atomic units of the paid asset.
    pub amount: Atomic,
    /// How this is known.
    #[serde(flatten)]
    pub source: RefundSource,
    /// Now.
    pub at: Timestamp,
}

/// A finalized block as a network's nodes told it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finalized {
    /// CAIP-2.
    pub network: String,
    /// Its number.
    pub block: u64,
    /// Its hash, `0x` and 64 hex digits.
    pub hash: String,
    /// Its own time, in seconds since the epoch.
    pub time: u64,
}

/// A change of state, by compare-and-set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    /// Which payment.
    pub payment: PaymentId,
    /// In which state the caller saw it.
    pub from: State,
    /// What happened.
    pub event: Event,
    /// For people and the record: cleaned, at most 256 bytes.
    pub why: String,
    /// What shows it. Boxed: most have none.
    pub evidence: Option<Box<Evidence>>,
    /// Now.
    pub at: Timestamp,
}

/// An open payment's stored payload, after the checks that presenting it again needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reopened {
    /// It may be presented.
    Open {
        /// The exact payload.
        authorization: Box<Authorization>,
        /// The signature, if it was stored before the process ended.
        signature: Option<Signature65>,
    },
    /// Its validity is over (or about to be).
    Expired,
    /// It is not open.
    NotOpen(State),
    /// Something that covers it is suspended.
    Suspended(String),
    /// Whoever asks was identified under a generation older than the operator allows.
    Stale,
}

/// Somebody has an open payment's authorization cancelled on the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cancellation {
    /// Which.
    pub payment: PaymentId,
    /// Who.
    pub by: String,
    /// Why.
    pub why: String,
    /// Now.
    pub at: Timestamp,
}

/// A hold as it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldView {
    /// The hold.
    #[serde(flatten)]
    pub hold: PlacedHold,
    /// Whether it still reserves.
    pub open: bool,
    /// What it came to, once it no longer reserves; 0 if it was released. Ledger units.
    pub spent: u64,
    /// What was credited of that since. Ledger units.
    pub refunded: u64,
}

/// One entry of a payment's history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// When.
    pub at: Timestamp,
    /// Into which state.
    pub state: State,
    /// Why.
    pub why: String,
}

/// A payment as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PaymentView {
    /// The payment.
    pub id: PaymentId,
    /// Its purchase.
    pub key: PurchaseKey,
    /// Which attempt of the purchase, from 1.
    pub attempt: u32,
    /// Where it is.
    pub state: State,
    /// The static facts.
    pub facts: PaymentFacts,
    /// Which request.
    pub fingerprint: Fingerprint,
    /// The session it was made in.
    pub session: Option<SessionId>,
    /// The decision that counted.
    pub decision: DecisionRecord,
    /// The code the agent was told, when denied.
    pub refusal: Option<String>,
    /// How many equal denials this row stands for.
    pub repeats: u32,
    /// Its holds.
    pub holds: Vec<HoldView>,
    /// The payload, once one exists.
    pub authorization: Option<Authorization>,
    /// The approval, if it went through review.
    pub approval: Option<ApprovalId>,
    /// The transaction said to have settled it (proven only in `Settled`).
    pub transaction: Option<String>,
    /// What proved it, or what the latest word on it rests on.
    pub evidence: Option<Box<Evidence>>,
    /// What came back, in the order in which it was booked.
    pub refunds: Vec<Refund>,
    /// Whether the seller's 2xx answer reached the agent whole.
    pub delivered: bool,
    /// What was said about its use, at most once by each kind of reporter.
    pub uses: Vec<UseReport>,
    /// Made.
    pub created_at: Timestamp,
    /// Last changed.
    pub updated_at: Timestamp,
    /// How it got here.
    pub history: Vec<Step>,
}

/// Which payments to list: newest first, unless those after one are asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PaymentFilter {
    /// Only of this workspace and agent.
    pub owner: Option<(String, String)>,
    /// Only of this session.
    pub session: Option<SessionId>,
    /// Only in these states; all, if empty.
    pub states: Vec<State>,
    /// Only to this payee, in whatever case it is spelled. Without an index: for rare questions.
    pub pay_to: Option<String>,
    /// Only older than this one.
    pub before: Option<PaymentId>,
    /// Only newer than this one, oldest first.
    pub after: Option<PaymentId>,
    /// At most this many; the backend caps it at 500.
    pub limit: u32,
}

/// A budget's window as it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BudgetView {
    /// Who asked for it.
    pub owner: String,
    /// Its path.
    pub name: String,
    /// What it counts.
    pub unit: Unit,
    /// Over which span.
    pub window: Window,
    /// The window's start in milliseconds since the epoch; 0 for lifetime and rolling.
    pub win: u64,
    /// The limit last stated.
    pub limit: u64,
    /// Reserved.
    pub held: u64,
    /// Gone.
    pub spent: u64,
}

/// What to look up before asking policies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FactsQuery {
    /// Which purchase is asking.
    pub key: PurchaseKey,
    /// The session, if any.
    pub session: Option<SessionId>,
    /// The seller's host.
    pub host: String,
    /// The payee.
    pub pay_to: String,
    /// HTTP method.
    pub method: String,
    /// Path.
    pub path: String,
    /// Which request.
    pub fingerprint: Fingerprint,
    /// The amount asked for.
    pub amount: Atomic,
    /// Now.
    pub at: Timestamp,
}

/// What the ledger knows before a decision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// About the seller; only settled purchases of the same workspace count.
    pub seller: Seller,
    /// About the recent past; everything not denied or released counts.
    pub history: History,
    /// What a person last approved for this method, host and path.
    pub approved: Option<Approved>,
    /// Settled purchases from this host that agents judged.
    pub agent_judged: u32,
    /// Those that agents judged useful.
    pub agent_useful: u32,
}

/// What a person last approved for one method, host and path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Approved {
    /// The payee they were shown.
    pub pay_to: String,
    /// The price they were shown.
    pub value: Micros,
}

/// What became of something that was bought.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Use {
    /// The work it was bought for names it.
    Cited,
    /// It was used.
    Used,
    /// Some of it was used.
    Partly,
    /// It was not used.
    Unused,
    /// It was wrong.
    Wrong,
}

impl Use {
    /// Every word.
    pub const ALL: [Self; 5] = [Self::Cited, Self::Used, Self::Partly, Self::Unused, Self::Wrong];

    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cited => "cited",
            Self::Used => "used",
            Self::Partly => "partly",
            Self::Unused => "unused",
            Self::Wrong => "wrong",
        }
    }

    /// The word's meaning.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|u| u.as_str() == word)
    }

    /// Whether the money was worth something.
    #[must_use]
    pub const fn is_useful(self) -> bool {
        matches!(self, Self::Cited | Self::Used | Self::Partly)
    }
}

/// Who judges a purchase. Agents and people are counted apart: an agent praises what it bought.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reporter {
    /// The agent that bought it.
    Agent,
    /// An operator.
    Person,
}

/// What somebody says became of a purchase. A second word of the same kind replaces the first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UseReport {
    /// What kind of judge.
    pub reporter: Reporter,
    /// The agent's or the operator's name.
    pub by: String,
    /// The word.
    pub used: Use,
    /// Their words. Untrusted; cut.
    pub note: Option<String>,
    /// Where it went. Untrusted; cut.
    pub artifact: Option<String>,
    /// When.
    pub at: Timestamp,
}

/// Which recorded decisions to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Past {
    /// Those after this one, oldest first; [`Past::since`] begins at a moment.
    After(DecisionId),
    /// This one.
    One(DecisionId),
    /// Every decision of a payment.
    Payment(PaymentId),
}

impl Past {
    /// Everything from this moment on.
    #[must_use]
    pub fn since(at: Timestamp) -> Self {
        Self::After(DecisionId::first_of(at))
    }
}

/// A decision as it was recorded, with what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PastDecision {
    /// The decision.
    pub record: DecisionRecord,
    /// Its payment.
    pub payment: PaymentId,
    /// The mandate it was judged under.
    pub mandate: String,
    /// Whether it led to a review.
    pub asked: bool,
    /// The (policy, reason code) pairs people had approved before it was made, if they had.
    pub approved: Option<Vec<(String, String)>>,
    /// Whether this decision's purchase was judged useful, by people if they spoke, else by the agent.
    pub useful: Option<bool>,
    /// How the row differs from what the chain of records says of it.
    pub damage: Option<String>,
}

/// Where an approval is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ApprovalState {
    /// Waiting.
    Pending,
    /// Enough people said yes; not used yet.
    Approved,
    /// Somebody said no.
    Denied,
    /// Nobody answered in time.
    Expired,
    /// It released its purchase, once.
    Used,
}

/// One person's word on an approval.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vote {
    /// The operator.
    pub operator: String,
    /// Yes or no.
    pub approve: bool,
    /// When.
    pub at: Timestamp,
    /// Their words.
    pub note: String,
    /// The groups they were in.
    #[serde(default)]
    pub groups: Vec<String>,
    /// The way they spoke.
    #[serde(default)]
    pub channel: Channel,
    /// The signed message that said it, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// The way an operator speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Channel {
    /// The admin API, with a token.
    #[default]
    Api,
    /// The command line, while no gateway runs.
    Cli,
    /// A signed message.
    Webhook,
}

impl Channel {
    /// Every way.
    pub const ALL: [Self; 3] = [Self::Api, Self::Cli, Self::Webhook];

    /// Its name in records.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Cli => "cli",
            Self::Webhook => "webhook",
        }
    }
}

/// A purchase that waits for people, or did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// The approval.
    pub id: ApprovalId,
    /// The payment it keeps reserved.
    pub payment: PaymentId,
    /// Where it is.
    pub state: ApprovalState,
    /// Digest of exactly what would be bought.
    pub frozen: String,
    /// (policy, reason code) pairs the approver is shown; only these are approved.
    pub shown: Vec<(String, String)>,
    /// Who must approve.
    pub terms: ApprovalTerms,
    /// Opened.
    pub created_at: Timestamp,
    /// Lapses.
    pub expires_at: Timestamp,
    /// What was said so far.
    pub votes: Vec<Vote>,
}

/// An operator's word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cast {
    /// On which approval.
    pub approval: ApprovalId,
    /// Who.
    pub operator: String,
    /// Other operators who are the same person.
    pub selves: Vec<String>,
    /// The users that this person is: nobody approves their own purchase.
    pub users: Vec<String>,
    /// The operator's groups.
    pub groups: Vec<String>,
    /// Yes or no.
    pub approve: bool,
    /// Their words.
    pub note: String,
    /// The way they speak.
    pub channel: Channel,
    /// What the message says it is about, if it is a message.
    pub quoted: Option<Quoted>,
    /// Now.
    pub at: Timestamp,
}

/// What a signed message says beside its word. It must be so, and the message counts once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quoted {
    /// The message's own id.
    pub message: String,
    /// The frozen purchase's digest.
    pub frozen: String,
    /// When the approval lapses, as the operator was told.
    pub expires_at: String,
}

/// A session an orchestrator opened: it binds who is asking to a budget and an end that the agent
/// cannot change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// The session.
    pub id: SessionId,
    /// SHA-256 of its token, lower-case hex.
    pub token_sha256: String,
    /// The agent it speaks for.
    pub agent: String,
    /// The person.
    pub user: Option<String>,
    /// The client.
    pub client: Option<String>,
    /// The project.
    pub project: Option<String>,
    /// The task.
    pub task: Option<String>,
    /// Hosts whose TLS the forward proxy terminates for it, besides the configured ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub intercept: Vec<String>,
    /// The most it may spend.
    pub limit: Micros,
    /// The most payments it may make.
    pub max_payments: u32,
    /// Opened.
    pub created_at: Timestamp,
    /// Over.
    pub expires_at: Timestamp,
    /// Closed early.
    pub closed_at: Option<Timestamp>,
    /// The operator who opened it.
    pub opened_by: String,
}

/// How many sessions may be opened, and for how much, in the transaction that opens one more. Hours and
/// days are the last 3,600 and 86,400 seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionCaps {
    /// Opened in an hour by whoever opens it.
    pub opener_hour: u32,
    /// Opened in an hour for its agent.
    pub agent_hour: u32,
    /// The limits of all open sessions together.
    pub open: Option<Micros>,
    /// The limits of all sessions opened in a day together, whatever became of them.
    pub day: Option<Micros>,
    /// As `open`, of those that whoever opens it has opened.
    pub opener_open: Option<Micros>,
    /// As `day`, of those that whoever opens it has opened.
    pub opener_day: Option<Micros>,
}

impl SessionCaps {
    /// Caps that nobody reaches.
    pub const NONE: Self = Self {
        opener_hour: u32::MAX,
        agent_hour: u32::MAX,
        open: None,
        day: None,
        opener_open: None,
        opener_day: None,
    };
}

/// A cap that leaves no room for a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionCap {
    /// What it counts, for people.
    pub what: String,
    /// When there is room, if nobody else takes it and nothing is closed before; none: never, the session
    /// is larger than the cap.
    pub frees_at: Option<Timestamp>,
}

/// What became of a session that was to be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opening {
    /// Durable.
    Opened,
    /// Nothing was written.
    Refused(SessionCap),
}

/// What a suspension covers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "scope", content = "name")]
pub enum SuspensionScope {
    /// Everything.
    All,
    /// One agent.
    Agent(String),
    /// One mandate.
    Mandate(String),
    /// One wallet.
    Wallet(String),
    /// One seller host.
    Vendor(String),
}

impl SuspensionScope {
    /// Whether a payment with these facts is covered.
    #[must_use]
    pub fn covers(&self, facts: &PaymentFacts) -> bool {
        match self {
            Self::All => true,
            Self::Agent(name) => facts.principal.agent == *name,
            Self::Mandate(name) => facts.mandate == *name,
            Self::Wallet(name) => facts.wallet == *name,
            Self::Vendor(name) => facts.host == *name,
        }
    }
}

impl fmt::Display for SuspensionScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Agent(name) => write!(f, "agent {name}"),
            Self::Mandate(name) => write!(f, "mandate {name}"),
            Self::Wallet(name) => write!(f, "wallet {name}"),
            Self::Vendor(name) => write!(f, "vendor {name}"),
        }
    }
}

/// A stop somebody ordered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suspension {
    /// What it covers.
    #[serde(flatten)]
    pub scope: SuspensionScope,
    /// Who ordered it.
    pub by: String,
    /// Why.
    pub reason: String,
    /// Since.
    pub at: Timestamp,
}

/// A seller's answer, kept so that a repeated call can be given it again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Headers, already filtered for the agent.
    pub headers: Vec<(String, String)>,
    /// The whole body.
    #[serde(skip)]
    pub body: Vec<u8>,
}

/// Something worth a record that changes no money: a reload, a configuration, a refused login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Stable kebab-case kind, such as `policies-activated`.
    pub kind: &'static str,
    /// Who caused it; empty for the host itself.
    pub by: String,
    /// JSON, without secrets.
    pub body: serde_json::Value,
    /// Now.
    pub at: Timestamp,
}

/// The store. Each write is one transaction and durable when it answers.
pub trait Ledger: Send + Sync {
    /// Records the decisions, checks suspensions, session, caps and generation, places every hold
    /// or none, and writes the exact payload down. Use [`crate::permit::commit`] to get a permit.
    fn commit(&self, commit: Commit) -> Fut<'_, Result<Committed, LedgerError>>;

    /// Records a purchase that nobody granted. Equal denials within a minute become one row with a
    /// count; the answer is the row's payment.
    fn deny(&self, denial: Denial) -> Fut<'_, Result<PaymentId, LedgerError>>;

    /// Applies one row of the transition table. An event that already happened (the payment is
    /// past it) is [`LedgerError::Conflict`]. A withdrawal also closes the payment's approval.
    fn transition(&self, transition: Transition) -> Fut<'_, Result<State, LedgerError>>;

    /// Reads an open payment's payload for presenting it again. In the same transaction: what is
    /// suspended, the least generation against the one the caller was identified under, and the record
    /// of it. A settled payment whose answer was never delivered may be presented too: its nonce is used
    /// up. Use [`crate::permit::represent`].
    fn reopen(&self, payment: PaymentId, generation: u64, at: Timestamp) -> Fut<'_, Result<Reopened, LedgerError>>;

    /// Records who has a payment's authorization cancelled, and reads it. It frees nothing: only a final block that
    /// shows the cancellation does. A payment that nobody can redeem any more, or whose call is still under way, is
    /// [`LedgerError::Conflict`]. Use [`crate::permit::cancel`].
    fn cancel(&self, cancellation: Cancellation) -> Fut<'_, Result<Box<Authorization>, LedgerError>>;

    /// Books money that came back: what a finalized transfer shows leaves the spending of the budgets it
    /// was charged to (rounded down, never the host's own budgets and never counts); a person's word
    /// changes the books only. At most what was redeemed comes back in all, and no transfer or reference
    /// is booked twice: [`LedgerError::Conflict`].
    fn refund(&self, refund: Refund) -> Fut<'_, Result<State, LedgerError>>;

    /// Remembers how far a network is final. A lower block, or another hash or time for the same one, is
    /// [`LedgerError::Conflict`]: such a node is not to be believed.
    fn finalized(&self, block: Finalized, at: Timestamp) -> Fut<'_, Result<(), LedgerError>>;

    /// Stores the signature bytes beside their payload.
    fn store_signature(&self, payment: PaymentId, signature: Signature65) -> Fut<'_, Result<(), LedgerError>>;

    /// Notes that the seller's answer arrived whole. `answer` is kept for repeated calls, if given;
    /// `delivered` says whether it was a 2xx that reached the agent whole too (once true, it stays).
    fn answered(
        &self,
        payment: PaymentId,
        answer: Option<Answer>,
        delivered: bool,
        at: Timestamp,
    ) -> Fut<'_, Result<(), LedgerError>>;

    /// A kept answer.
    fn answer(&self, payment: PaymentId) -> Fut<'_, Result<Option<Answer>, LedgerError>>;

    /// One payment.
    fn payment(&self, payment: PaymentId) -> Fut<'_, Result<Option<PaymentView>, LedgerError>>;

    /// The latest attempt of a purchase.
    fn latest(&self, key: PurchaseKey) -> Fut<'_, Result<Option<PaymentView>, LedgerError>>;

    /// The payments of this agent and request that a repeat may have to join, newest first, at most
    /// 32: those in review, and those signed whose answer was not completely delivered. Whether a
    /// call is still running only the caller knows.
    fn unfinished(
        &self,
        workspace: String,
        agent: String,
        fingerprint: Fingerprint,
    ) -> Fut<'_, Result<Vec<PaymentView>, LedgerError>>;

    /// Payments, newest first.
    fn payments(&self, filter: PaymentFilter) -> Fut<'_, Result<Vec<PaymentView>, LedgerError>>;

    /// Windows that are current at `at`.
    fn budgets(&self, at: Timestamp) -> Fut<'_, Result<Vec<BudgetView>, LedgerError>>;

    /// Facts for policies.
    fn facts(&self, query: FactsQuery) -> Fut<'_, Result<Facts, LedgerError>>;

    /// What is open at `at`, from indexes: the cost grows with what is open, not with what there ever was.
    fn figures(&self, at: Timestamp) -> Fut<'_, Result<Figures, LedgerError>>;

    /// Alerts that somebody is to be told of at `at`, oldest first.
    fn alerts_due(&self, at: Timestamp, limit: u32) -> Fut<'_, Result<Vec<KeptAlert>, LedgerError>>;

    /// Alerts, newest first: at most `limit` of those below `before`, or of all.
    fn alerts(&self, before: Option<u64>, limit: u32) -> Fut<'_, Result<Vec<KeptAlert>, LedgerError>>;

    /// Remembers an attempt. An alert that is not waiting stays as it is: [`LedgerError::Conflict`].
    fn alert_tried(&self, attempt: Attempt) -> Fut<'_, Result<(), LedgerError>>;

    /// Notices that a receiver is to be told at `at`, oldest first.
    fn notices_due(&self, at: Timestamp, limit: u32) -> Fut<'_, Result<Vec<Notice>, LedgerError>>;

    /// Notices, newest first: at most `limit` of those below `before`, or of all.
    fn notices(&self, before: Option<u64>, limit: u32) -> Fut<'_, Result<Vec<Notice>, LedgerError>>;

    /// Remembers an attempt. A notice that is not waiting stays as it is: [`LedgerError::Conflict`].
    fn notice_tried(&self, attempt: Attempt) -> Fut<'_, Result<(), LedgerError>>;

    /// One approval.
    fn approval(&self, approval: ApprovalId) -> Fut<'_, Result<Option<Approval>, LedgerError>>;

    /// Approvals, newest first; only pending ones if `pending`.
    fn approvals(&self, pending: bool) -> Fut<'_, Result<Vec<Approval>, LedgerError>>;

    /// Counts an operator's word. A second word of one person, one on an approval that is not pending, a message
    /// that was counted or that quotes something else is [`LedgerError::Conflict`]; the word of somebody who has no
    /// say, or is in the purchase's own chain, [`LedgerError::Forbidden`]. A denial releases the holds.
    fn vote(&self, cast: Cast) -> Fut<'_, Result<Approval, LedgerError>>;

    /// Keeps a proposed rule; a later one about the same approval replaces it.
    fn propose(&self, proposal: Proposal) -> Fut<'_, Result<(), LedgerError>>;

    /// The rule that was proposed.
    fn proposal(&self, approval: ApprovalId) -> Fut<'_, Result<Option<Proposal>, LedgerError>>;

    /// Lapses every approval whose time is over and releases its holds; answers how many.
    fn expire_approvals(&self, at: Timestamp) -> Fut<'_, Result<u32, LedgerError>>;

    /// Opens a session, if every cap leaves room for it.
    fn open_session(&self, session: Session, caps: SessionCaps) -> Fut<'_, Result<Opening, LedgerError>>;

    /// Closes a session; [`LedgerError::NotFound`] if there is none.
    fn close_session(&self, session: SessionId, by: String, at: Timestamp) -> Fut<'_, Result<(), LedgerError>>;

    /// The session of a token.
    fn session_by_token(&self, token_sha256: String) -> Fut<'_, Result<Option<Session>, LedgerError>>;

    /// One session.
    fn session(&self, session: SessionId) -> Fut<'_, Result<Option<Session>, LedgerError>>;

    /// Every session, newest first.
    fn sessions(&self) -> Fut<'_, Result<Vec<Session>, LedgerError>>;

    /// Orders a stop. Ordering the same scope again replaces who and why.
    fn suspend(&self, suspension: Suspension) -> Fut<'_, Result<(), LedgerError>>;

    /// Lifts a stop; [`LedgerError::NotFound`] if there is none.
    fn resume(&self, scope: SuspensionScope, by: String, at: Timestamp) -> Fut<'_, Result<(), LedgerError>>;

    /// Every stop in force.
    fn suspensions(&self) -> Fut<'_, Result<Vec<Suspension>, LedgerError>>;

    /// Refuses, from now on, commits judged by a policy generation below this one. The number never
    /// falls, not even over a restart: generations are counted by the store.
    fn require_generation(&self, generation: u64) -> Fut<'_, Result<(), LedgerError>>;

    /// Records what became of a purchase. A payment nothing was signed for is
    /// [`LedgerError::Conflict`].
    fn report_use(&self, payment: PaymentId, report: UseReport) -> Fut<'_, Result<(), LedgerError>>;

    /// Recorded decisions in the order they were made, at most `limit` (the backend caps it at 1,000).
    fn past(&self, which: Past, limit: u32) -> Fut<'_, Result<Vec<PastDecision>, LedgerError>>;

    /// How many decisions [`Ledger::past`] would read through to the end.
    fn past_count(&self, which: Past) -> Fut<'_, Result<u64, LedgerError>>;

    /// Remembered bytes by their SHA-256.
    fn blob(&self, digest: [u8; 32]) -> Fut<'_, Result<Option<Vec<u8>>, LedgerError>>;

    /// Remembers bytes by their SHA-256 (modules and settings), for replay and for going back.
    fn remember(&self, blobs: Vec<Vec<u8>>) -> Fut<'_, Result<(), LedgerError>>;

    /// Remembered bytes by their SHA-256 in lower-case hex, in the order asked for;
    /// [`LedgerError::NotFound`] if any of them is not there.
    fn remembered(&self, digests: Vec<String>) -> Fut<'_, Result<Vec<Vec<u8>>, LedgerError>>;

    /// Writes a generation down, with its audit record, before it serves. Its number must follow the
    /// last one's ([`LedgerError::Conflict`] otherwise: somebody else was first), and the bytes it
    /// names must be remembered ([`LedgerError::NotFound`]). With `tightened`, it is the least whose
    /// judgements are good, as by [`Ledger::require_generation`], from the same moment on.
    fn activate(&self, generation: Generation, tightened: bool) -> Fut<'_, Result<(), LedgerError>>;

    /// Generations, newest first: at most `limit` of those below `before`, or of all. None is ever
    /// forgotten.
    fn generations(&self, before: Option<u64>, limit: u32) -> Fut<'_, Result<Vec<Generation>, LedgerError>>;

    /// Appends a record.
    fn note(&self, note: Note) -> Fut<'_, Result<(), LedgerError>>;

    /// Says what must be the same for as long as this ledger is used, and for everybody who writes to it: the first
    /// word about `what` stands, and any other is [`LedgerError::Conflict`], which tells the word that stands.
    fn agree(&self, what: &'static str, word: String, at: Timestamp) -> Fut<'_, Result<(), LedgerError>>;

    /// Waits until others have written since `seen` (0 at first); answers what to ask with next. Never, if nobody else
    /// writes to this ledger.
    fn changed(&self, seen: u64) -> Fut<'_, u64>;

    /// How many records the log has, and the root over them: what a checkpoint is signed over.
    fn tree_head(&self) -> Fut<'_, Result<TreeHead, LedgerError>>;

    /// The lines of the records after number `after`, in order: at most `limit`, or fewer where they are
    /// long, but one if there is one.
    fn records(&self, after: u64, limit: u32) -> Fut<'_, Result<Vec<String>, LedgerError>>;

    /// The numbers of the records about a payment, in order.
    fn records_of(&self, payment: PaymentId) -> Fut<'_, Result<Vec<u64>, LedgerError>>;

    /// The proof that record `seq` (from 1) is in the tree of the first `size` records, as RFC 6962 has it;
    /// [`LedgerError::NotFound`] if there is no such record or tree.
    fn inclusion(&self, seq: u64, size: u64) -> Fut<'_, Result<Vec<[u8; 32]>, LedgerError>>;

    /// The proof that the tree of the first `new` records begins with that of the first `old`, as RFC 6962
    /// has it; [`LedgerError::NotFound`] unless `1 <= old <= new` and there are as many.
    fn consistency(&self, old: u64, new: u64) -> Fut<'_, Result<Vec<[u8; 32]>, LedgerError>>;

    /// Keeps a signed checkpoint before it is shown to anybody. One that is not of this log, at this size, is
    /// [`LedgerError::Conflict`]. The first of a size stays.
    fn keep_checkpoint(&self, size: u64, note: String) -> Fut<'_, Result<(), LedgerError>>;

    /// Kept checkpoints, the largest first.
    fn checkpoints(&self, limit: u32) -> Fut<'_, Result<Vec<KeptCheckpoint>, LedgerError>>;
}
