//! What a chain shows about our payments: that an authorization was redeemed, that it never can be
//! again, what came back. The only code that may say so, because saying so moves budgets.
//!
//! - [`Node`] is whatever answers JSON-RPC; [`Rpc`] is the real one.
//! - [`Reader`] reads one network through one or more nodes. Every statement that moves money rests on a
//!   finalized block, named by its hash, on which all nodes agree: [`Reader::anchor`].
//! - [`Reader::look`] answers about one authorization, [`Reader::scan`] about a range of blocks.
//! - [`refund_of`] and [`cancel_calldata`] are pure.
//!
//! There is no clock in here: *now* is passed in. Only [`Rpc`] waits, by the [`Clock`] seam.
//!
//! [`Clock`]: countersign_core::seams::Clock

#![forbid(unsafe_code)]
#![deny(clippy::arithmetic_side_effects, clippy::as_conversions)]

mod cancel;
mod events;
mod look;
mod node;
mod reader;
mod refund;
mod rpc;
mod scan;
mod source;

#[cfg(feature = "fake")]
pub mod fake;

pub use cancel::{CancelError, cancel_calldata, cancellation};
pub use events::{Act, Place, Redemption, Transfer};
pub use look::{CONFIRM_SECONDS, Finding, LASTING_MS, Pending, Subject, Unused, Watch};
pub use node::{Node, RpcError};
pub use reader::{Anchor, Finality, MAX_NODES, ReadError, Reader};
pub use refund::{Paid, RefundMatch, refund_of};
pub use rpc::Rpc;
pub use scan::Scan;
pub use source::{Block, MAX_SPAN};
