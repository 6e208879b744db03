//! What a policy is asked: the Rust twin of `spend-request` in `wit/v0.1`.
//!
//! These values are stored as canonical JSON in the decision record and must be enough to ask the
//! same question again years later, so nothing here points outside itself. Field order is the
//! order of the WIT; serialising is therefore deterministic.

use serde::{Deserialize, Serialize};

use crate::id::{DecisionId, PurchaseId};
use crate::money::{Atomic, Micros};
use crate::time::Timestamp;

/// A name and a value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attribute {
    /// What it is called.
    pub name: String,
    /// What it says.
    pub value: String,
}

/// Who is asking. Every field is authenticated by the host: token, session or configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Principal {
    /// The agent's configured name.
    pub agent: String,
    /// The person behind the agent.
    pub user: Option<String>,
    /// The workspace the agent belongs to.
    pub workspace: Option<String>,
    /// Configured roles.
    pub roles: Vec<String>,
    /// The session, when the token was a session's.
    pub session: Option<String>,
    /// The client the session works for.
    pub client: Option<String>,
    /// The project the session works on.
    pub project: Option<String>,
    /// The task the session was opened for.
    pub task: Option<String>,
}

/// What is being bought.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Purchase {
    /// Upper-case HTTP method.
    pub method: String,
    /// Scheme, host and path; never query, fragment or user info.
    pub url: String,
    /// Lower-case A-label, with `:port` only where it is not the scheme's default.
    pub host: String,
    /// Absolute path.
    pub path: String,
    /// Keyed digest of the query; none without one.
    pub query_digest: Option<String>,
    /// Keyed digest of the body; none when empty.
    pub body_digest: Option<String>,
    /// False when only the agent says what is bought.
    pub observed: bool,
    /// The seller's words.
    pub description: Option<String>,
    /// The seller's words.
    pub media_type: Option<String>,
    /// The seller's words.
    pub category: Option<String>,
}

/// Who is being paid, with what the ledger knows about them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seller {
    /// Equal to the purchase's host.
    pub host: String,
    /// The payee, spelled as the rail spells it (checksummed on EVM).
    pub pay_to: String,
    /// When this host was first paid.
    pub host_first_paid: Option<Timestamp>,
    /// When this payee was first paid.
    pub pay_to_first_paid: Option<Timestamp>,
    /// This host was last paid at a different address.
    pub pay_to_changed: bool,
    /// Value of the last purchase of the same method, host and path.
    pub last_price: Option<Micros>,
    /// Purchases from this host that somebody judged.
    pub judged: u32,
    /// Those judged useful.
    pub useful: u32,
}

/// What signing binds the wallet to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Commitment {
    /// This amount, once.
    Fixed,
    /// At most this amount, once.
    Ceiling,
    /// An amount drawn on over several requests.
    Deposit,
    /// A charge that repeats.
    Recurring,
}

/// How much, in what, over which rail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payment {
    /// `x402` or `mpp`.
    pub rail: String,
    /// Such as `exact`.
    pub scheme: String,
    /// What signing binds the wallet to.
    pub commitment: Commitment,
    /// CAIP-2.
    pub network: String,
    /// Token address from our table.
    pub asset: String,
    /// Symbol from our table.
    pub asset_symbol: String,
    /// Decimals from our table.
    pub asset_decimals: u8,
    /// Atomic units.
    pub amount: Atomic,
    /// The same amount in reference-currency micros, rounded up.
    pub value: Micros,
    /// How long the signature stays redeemable.
    pub valid_for_seconds: u32,
    /// Configured name of the paying wallet.
    pub wallet: String,
}

/// How often and how much.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Payments.
    pub count: u32,
    /// Their value.
    pub value: Micros,
}

/// Facts at the moment of asking. Advisory: limits belong in holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// This agent, the last 3,600 seconds.
    pub agent_hour: Tally,
    /// This agent, the last 86,400 seconds.
    pub agent_day: Tally,
    /// This session.
    pub session: Tally,
    /// This seller, the last 86,400 seconds.
    pub seller_day: Tally,
    /// This seller, ever.
    pub seller_lifetime: Tally,
    /// Same agent, method, URL, body and amount in the last ten minutes.
    pub repeats: u32,
}

/// One question to a policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpendRequest {
    /// Unique per decision.
    pub id: DecisionId,
    /// The same over every decision and payment of one purchase.
    pub purchase_id: PurchaseId,
    /// The only clock a policy may use.
    pub at: Timestamp,
    /// Who is asking.
    pub principal: Principal,
    /// What is being bought.
    pub purchase: Purchase,
    /// Who is being paid.
    pub seller: Seller,
    /// How much, in what.
    pub payment: Payment,
    /// Advisory facts.
    pub history: History,
    /// Said by the agent. Untrusted, and empty for policies not configured with `claims = true`.
    pub claims: Vec<Attribute>,
    /// Added by the host or the operator. Trusted.
    pub facts: Vec<Attribute>,
}
