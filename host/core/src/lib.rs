//! The pure heart of Countersign: money, spend requests, the verdict algebra, budgets and the
//! payment state machine, the wire types of x402 and MPP, and the five seams every other crate meets at.
//!
//! Nothing here reads a clock, opens a socket, or knows that Wasm or SQL exist. Maps are ordered,
//! so that whatever is computed here twice comes out byte for byte the same.

#![forbid(unsafe_code)]
#![deny(clippy::arithmetic_side_effects, clippy::as_conversions, clippy::float_arithmetic)]

pub mod budget;
pub mod counters;
pub mod digits;
pub mod evm;
pub mod generation;
pub mod histogram;
pub mod id;
pub mod json;
pub mod ledger;
pub mod money;
pub mod mpp;
pub mod notice;
pub mod payment;
pub mod permit;
pub mod rails;
pub mod seams;
pub mod spend;
pub mod terms;
pub mod time;
pub mod verdict;
pub mod web;
pub mod whatif;
pub mod x402;
