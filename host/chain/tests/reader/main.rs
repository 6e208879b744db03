//! The reader against a chain in memory.
#![allow(clippy::as_conversions, clippy::arithmetic_side_effects, reason = "tests")]

mod look;
mod random;
mod rpc;
mod scan;
mod support;
