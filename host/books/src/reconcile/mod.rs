//! Reconciliation: what the ledger says of payments against what a chain shows of its wallets.
//!
//! Each payment with an authorization, each booked refund and each transfer from or to a wallet ends in exactly one
//! [`Class`], or belongs to the one of its partner. A transfer is matched by the nonce it redeemed; a list without nonces by
//! transaction, and where the ledger has none yet by payee, amount and time.
//!
//! Absence proves something only where the list is complete: the caller says so with [`Coverage`]. A report changes
//! nothing. It is the ledger that settles and releases, on evidence of its own.

mod input;
mod matching;
mod report;

use std::fmt;

use countersign_core::id::PaymentId;
use countersign_core::ledger::{PaymentView, RefundSource};
use countersign_core::money::Atomic;
use countersign_core::payment::State;

pub use input::{InputError, MAX_TRANSFERS, read};
pub use matching::reconcile;
pub use report::{Finding, Line, Report, Total};

/// An address or hash as it is compared: hex in lower case, everything else as it is.
pub(crate) fn normal(network: &str, text: &str) -> String {
    if network.starts_with("eip155:") { text.to_ascii_lowercase() } else { text.to_owned() }
}

/// One transfer as the chain shows it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Transfer {
    /// CAIP-2.
    pub network: String,
    /// Token, as every address here in lower case where it is hex.
    pub asset: String,
    /// Whose balance fell.
    pub from: String,
    /// Whose balance rose.
    pub to: String,
    /// Atomic units.
    pub amount: u128,
    /// Transaction hash.
    pub transaction: String,
    /// Which log of the block.
    pub log: u64,
    /// Block number.
    pub block: u64,
    /// The block's time, in seconds since the epoch.
    pub time: u64,
    /// The nonce that was redeemed by it, if known.
    pub nonce: Option<String>,
}

/// A refund as the ledger has booked it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerRefund {
    /// Atomic units.
    pub amount: u128,
    /// Transaction and log, if the chain is its source; a person's word otherwise.
    pub transfer: Option<(String, u64)>,
    /// When it was booked, in seconds since the epoch.
    pub at: u64,
}

/// A payment as the ledger has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerRow {
    /// The payment.
    pub id: PaymentId,
    /// Workspace, agent and purchase: at most one payment of these may be redeemed.
    pub purchase: String,
    /// Where it is.
    pub state: State,
    /// CAIP-2.
    pub network: String,
    /// Token.
    pub asset: String,
    /// Whose authorization.
    pub payer: String,
    /// Who was to be paid.
    pub payee: String,
    /// Its nonce.
    pub nonce: String,
    /// What was signed for, in atomic units.
    pub amount: u128,
    /// What the ledger says was redeemed; all of `amount` unless evidence says less.
    pub redeemed: u128,
    /// Whether exactly `amount` is redeemed or nothing.
    pub exact: bool,
    /// The transaction the ledger knows.
    pub transaction: Option<String>,
    /// When it was made, in seconds since the epoch.
    pub created: u64,
    /// Redeemable before, in seconds since the epoch.
    pub valid_before: u64,
    /// The block time the ledger has for its redemption.
    pub redeemed_at: Option<u64>,
    /// What came back.
    pub refunds: Vec<LedgerRefund>,
}

impl LedgerRow {
    /// The row of a payment; none if nothing was ever to be signed for it.
    #[must_use]
    pub fn of(payment: &PaymentView) -> Option<Self> {
        let authorization = payment.authorization.as_ref()?;
        let facts = &payment.facts;
        let network = &facts.network;
        let evidence = payment.evidence.as_deref();
        let key = &payment.key;
        let refund = |refund: &countersign_core::ledger::Refund| LedgerRefund {
            amount: refund.amount.get(),
            transfer: match &refund.source {
                RefundSource::Chain { transaction, log, .. } => Some((normal(network, transaction), *log)),
                RefundSource::Person { .. } => None,
            },
            at: refund.at.as_secs(),
        };
        Some(Self {
            id: payment.id,
            purchase: format!("{}/{}/{}", key.workspace.escape_debug(), key.agent.escape_debug(), key.purchase),
            state: payment.state,
            network: network.clone(),
            asset: normal(network, &facts.asset),
            payer: normal(network, &authorization.from.to_string()),
            payee: normal(network, &facts.pay_to),
            nonce: format!("0x{}", hex::encode(authorization.nonce)),
            amount: facts.amount.get(),
            redeemed: evidence.and_then(|e| e.redeemed).map_or(facts.amount.get(), Atomic::get),
            exact: facts.scheme == "exact",
            transaction: payment.transaction.as_ref().map(|t| normal(network, t)),
            created: payment.created_at.as_secs(),
            valid_before: authorization.valid_before,
            redeemed_at: payment.state.is_spent().then(|| evidence.and_then(|e| e.block_time)).flatten(),
            refunds: payment.refunds.iter().map(refund).collect(),
        })
    }
}

/// The span for which the list holds every final transfer from and to the wallets, both ends included. Seconds since
/// the epoch, of block times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coverage {
    /// CAIP-2.
    pub network: String,
    /// From.
    pub from: u64,
    /// Until.
    pub until: u64,
}

/// An address whose outgoing transfers must all be in the ledger. Payers of payments are wallets anyhow.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wallet {
    /// CAIP-2.
    pub network: String,
    /// Its address.
    pub address: String,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// Ledger and chain agree, as far as the list reaches.
    Clean,
    /// Something is to be booked or cleared up; no money is unaccounted for.
    Attention,
    /// Money moved that the ledger does not account for, or the other way round.
    Alarm,
}

impl Verdict {
    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Clean => "clean",
            Self::Attention => "needs attention",
            Self::Alarm => "alarm",
        }
    }

    /// For a command: 0, 3 or 4. (1 is a command's failure, 2 its misuse.)
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Clean => 0,
            Self::Attention => 3,
            Self::Alarm => 4,
        }
    }
}

/// What became of comparing one thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Settled in the ledger, and the chain shows exactly that.
    Matched,
    /// Signed, and neither redeemed nor provably unused.
    InDoubt,
    /// The list covers its whole validity and does not show it redeemed.
    ProvenUnspent,
    /// The ledger has it open, and the chain shows it redeemed.
    NotBooked,
    /// A transfer left a wallet, and the ledger knows nothing of it.
    ChainOnly,
    /// Redeemed, but not for the amount the ledger has.
    AmountDiffers,
    /// Redeemed, but not for whom the ledger has.
    PayeeDiffers,
    /// Redeemed, but in another transaction than the ledger has.
    TransactionDiffers,
    /// Paid twice, or shown twice.
    Duplicate,
    /// Came back, as booked.
    Refund,
    /// A payee sent money to the wallet it was paid from, and no refund is booked.
    RefundNotBooked,
    /// A refund is booked on the chain's word, and the chain does not show it.
    RefundMissing,
    /// Money came in from somebody who was never paid.
    Funding,
    /// Settled in the ledger, and the chain does not show it.
    LedgerOnlySettled,
    /// Released in the ledger, and the chain shows it redeemed.
    ReleasedButRedeemed,
    /// The list does not reach to when it would show.
    NotCovered,
}

impl Class {
    /// Every class.
    pub const ALL: [Self; 16] = [
        Self::Matched,
        Self::InDoubt,
        Self::ProvenUnspent,
        Self::NotBooked,
        Self::ChainOnly,
        Self::AmountDiffers,
        Self::PayeeDiffers,
        Self::TransactionDiffers,
        Self::Duplicate,
        Self::Refund,
        Self::RefundNotBooked,
        Self::RefundMissing,
        Self::Funding,
        Self::LedgerOnlySettled,
        Self::ReleasedButRedeemed,
        Self::NotCovered,
    ];

    /// Its name in reports.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Matched => "matched",
            Self::InDoubt => "in-doubt",
            Self::ProvenUnspent => "proven-unspent",
            Self::NotBooked => "redeemed-not-booked",
            Self::ChainOnly => "chain-only",
            Self::AmountDiffers => "amount-differs",
            Self::PayeeDiffers => "payee-differs",
            Self::TransactionDiffers => "transaction-differs",
            Self::Duplicate => "duplicate",
            Self::Refund => "refund",
            Self::RefundNotBooked => "refund-not-booked",
            Self::RefundMissing => "refund-missing",
            Self::Funding => "funding",
            Self::LedgerOnlySettled => "ledger-only-settled",
            Self::ReleasedButRedeemed => "released-but-redeemed",
            Self::NotCovered => "not-covered",
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
