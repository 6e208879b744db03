//! Policies under `cargo test`: natively, without a wasm toolchain, on the code the component runs.
//!
//! ```
//! # use countersign_sdk::{Decision, NoSettings, Policy, Problem, SpendRequest};
//! # struct Frugal;
//! # impl Policy for Frugal {
//! #     type Settings = NoSettings;
//! #     const NAME: &'static str = "frugal";
//! #     const VERSION: &'static str = "0.1.0";
//! #     const SUMMARY: &'static str = "";
//! #     fn settings_schema() -> &'static str { NoSettings::SCHEMA }
//! #     fn configure(_: NoSettings) -> Result<Self, Vec<Problem>> { Ok(Self) }
//! #     fn evaluate(&self, request: &SpendRequest) -> Result<Decision, String> {
//! #         Ok(if request.payment.value > 1_000_000 { Decision::deny("too-dear", "") } else { Decision::allow() })
//! #     }
//! # }
//! use countersign_sdk::testing::{Harness, json, request};
//!
//! let policy = Harness::<Frugal>::new(json!({}));
//! policy.evaluate(&request().host("api.example.com").value("0.05")).assert_allows();
//! policy.evaluate(&request().value("1.000001")).assert_denies("too-dear");
//! ```
//!
//! Everything here panics when an expectation fails, as tests do.

#![expect(clippy::panic, reason = "assertions for tests")]

mod cases;
mod harness;
mod request;

pub use cases::{run_cases, try_cases};
pub use countersign_cases::{CasesError, Report};
pub use harness::{Harness, Outcome, assert_schema_agrees, problems};
pub use request::{RequestBuilder, request};
pub use serde_json::json;
