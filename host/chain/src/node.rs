//! The seam: whatever answers JSON-RPC.

use std::fmt;

use countersign_core::ledger::Fut;
use serde_json::Value;

/// The node gave no usable answer. It never means "no".
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RpcError {
    /// No answer came, or none in time.
    Unreachable(String),
    /// It answered with an error.
    Refused {
        /// JSON-RPC's code.
        code: i64,
        /// Its words: untrusted, cleaned and cut.
        message: String,
    },
    /// It answered something that is not an answer to what was asked.
    Malformed(String),
}

impl fmt::Display for RpcError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(why) => write!(f, "no answer: {why}"),
            Self::Refused { code, message } => write!(f, "error {code}: {message}"),
            Self::Malformed(why) => write!(f, "not an answer: {why}"),
        }
    }
}

impl std::error::Error for RpcError {}

/// A chain's node.
pub trait Node: Send + Sync {
    /// What messages and records call it. Never its whole URL: providers put keys into the path.
    fn name(&self) -> String;

    /// Calls a method and answers its `result`.
    ///
    /// # Errors
    /// [`RpcError`] for anything but a result.
    fn call<'a>(&'a self, method: &'a str, params: Value) -> Fut<'a, Result<Value, RpcError>>;
}
