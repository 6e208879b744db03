//! Every attribute of a trace by name. `docs/observability.md` lists exactly these.

/// An attribute: its name, and what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// Its name, stable.
    pub name: &'static str,
    /// What Amazon Bedrock AgentCore calls the same: told beside it, so that dashboards made for it work.
    pub alias: Option<&'static str>,
    /// What it says.
    pub help: &'static str,
}

macro_rules! attributes {
    ($($constant:ident $name:literal $(= $alias:literal)? $help:literal;)*) => {
        $(#[doc = $help] pub const $constant: Key = Key { name: $name, alias: attributes!(@ $($alias)?), help: $help };)*

        /// All of them.
        pub const ALL: &[&Key] = &[$(&$constant),*];
    };
    (@) => { None };
    (@ $alias:literal) => { Some($alias) };
}

attributes! {
    PURCHASE "countersign.purchase.id" "The purchase, as the agent named it or as it was minted.";
    PAYMENT "countersign.payment.id" "The payment that was held for, refused or presented again.";
    DOOR "countersign.door" "Through which door: fetch, proxy, mcp.";
    OUTCOME "countersign.outcome" "How the call ended: paid, replayed, free, waiting, refused, failed.";
    CODE "countersign.code" "The code of the problem that the agent was answered with, or that ended a step.";
    AGENT "countersign.agent" = "payment_agent_name" "The agent.";
    WORKSPACE "countersign.workspace" "Its workspace.";
    SESSION "countersign.session.id" = "payment_session_id" "The session.";
    MANDATE "countersign.mandate" "The mandate.";
    WALLET "countersign.wallet" = "payment_instrument_id" "The wallet's configured name.";
    GENERATION "countersign.generation" "The generation of configuration and policies.";
    METHOD "http.request.method" "The method of the call.";
    HOST "server.address" = "merchant" "The seller's host, and its port if it is not the scheme's own.";
    STATUS "http.response.status_code" "The seller's status.";
    DECISION "countersign.decision.id" "The decision.";
    VERDICT "countersign.verdict" "allow, review or deny; of a policy also abstain, or the code of its failure.";
    REASONS "countersign.reasons" "Reason codes, with the policy before each: `caps/above-per-payment`.";
    AMOUNT "countersign.payment.amount" "What is paid, in the asset's atomic units, in decimal digits.";
    ASSET "countersign.payment.asset" "The asset's address.";
    SYMBOL "countersign.payment.asset_symbol" "The asset's symbol in our table.";
    NETWORK "countersign.payment.network" "The network (CAIP-2).";
    SCHEME "countersign.payment.scheme" "The payment scheme.";
    PAYEE "countersign.payment.payee" "Who is paid.";
    VALUE "countersign.payment.value" = "spend_amount" "What it is worth in the reference currency.";
    CURRENCY "countersign.payment.currency" = "spend_currency" "The reference currency.";
    STATE "countersign.payment.state" "The state of the payment when the answer came.";
    TRANSACTION "countersign.payment.transaction" "The transaction that the receipt or the chain names.";
    AGAIN "countersign.payment.presented_again" "True where a stored authorization was presented again.";
    POLICY "countersign.policy.name" "The policy's configured name.";
    POLICY_VERSION "countersign.policy.version" "The version it gives itself.";
    POLICY_MODE "countersign.policy.mode" "enforce or monitor.";
    POLICY_FUEL "countersign.policy.fuel" "Instructions it used.";
}

/// What an attribute says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// Text.
    Text(String),
    /// A whole number.
    Number(u64),
    /// Yes or no.
    Flag(bool),
    /// Texts.
    List(Vec<String>),
}

impl From<&str> for Said {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Said {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<u64> for Said {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

impl From<bool> for Said {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
    }
}

impl From<Vec<String>> for Said {
    fn from(list: Vec<String>) -> Self {
        Self::List(list)
    }
}

/// Attributes of one span.
pub type Attributes = Vec<(&'static Key, Said)>;
