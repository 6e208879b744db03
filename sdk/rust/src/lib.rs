//! Write [Countersign](https://github.com/countersign/countersign) spend policies in Rust.
//!
//! A policy is a WebAssembly component that the gateway asks about every payment before a key is
//! touched. This crate turns one [`Policy`] implementation into such a component, and runs the same
//! code natively under `cargo test`:
//!
//! ```
//! use countersign_sdk::{Decision, Hold, Money, Policy, Problem, SpendRequest, Window, export_policy};
//! use serde::Deserialize;
//!
//! pub struct DailyCap {
//!     limit: Money,
//! }
//!
//! #[derive(Deserialize)]
//! #[serde(rename_all = "kebab-case", deny_unknown_fields)]
//! pub struct Settings {
//!     per_day: Money,
//! }
//!
//! impl Policy for DailyCap {
//!     type Settings = Settings;
//!     const NAME: &'static str = "daily-cap";
//!     const VERSION: &'static str = "0.1.0";
//!     const SUMMARY: &'static str = "Caps what an agent spends in a day.";
//!
//!     fn settings_schema() -> &'static str {
//!         r#"{"$schema":"https://json-schema.org/draft/2020-12/schema","type":"object",
//!             "properties":{"per-day":{"type":"string"}},"required":["per-day"],"additionalProperties":false}"#
//!     }
//!
//!     fn configure(settings: Settings) -> Result<Self, Vec<Problem>> {
//!         Ok(Self { limit: settings.per_day })
//!     }
//!
//!     fn evaluate(&self, request: &SpendRequest) -> Result<Decision, String> {
//!         let budget = format!("agent/{}", request.principal.agent);
//!         Ok(Decision::allow().hold(Hold::micros(budget, Window::day("UTC"), self.limit, request.value())))
//!     }
//! }
//!
//! export_policy!(DailyCap);
//!
//! use countersign_sdk::testing::{Harness, json, request};
//! let caps = Harness::<DailyCap>::new(json!({ "per-day": "20.00" }));
//! let outcome = caps.evaluate(&request().agent("scout").value("0.05"));
//! assert_eq!(outcome.assert_allows().hold("agent/scout").amount, 50_000);
//! ```
//!
//! # Rules a policy lives by
//! - [`Policy::evaluate`] is a pure function of settings and request: no clock but `request.at`, no
//!   randomness, no state between calls. Decisions are replayed later and must come out the same.
//!   Prefer `BTreeMap` to `HashMap` wherever order could reach a decision.
//! - Limits belong in [`Hold`]s, not in comparisons: the figures of `request.history` may be stale
//!   when the decision is read; a hold is placed atomically by the host, or the payment is refused.
//! - An `Err` or a panic is a deny. It can never become an allow.

use serde::de::DeserializeOwned;

#[cfg(any(test, all(target_family = "wasm", feature = "allocator")))]
mod allocator;
#[cfg(all(target_family = "wasm", feature = "bare"))]
mod bare;
#[doc(hidden)]
pub mod bindings;
mod budget;
mod decision;
pub mod log;
mod money;
mod name;
mod pattern;
mod request;
mod review;
mod settings;
mod slot;
#[cfg(not(target_family = "wasm"))]
pub mod testing;

pub use bindings::countersign::policy::types::{
    Attribute, Commitment, Decision, Description, History, Hold, Micros, Obligation, Payment, Principal, Problem,
    Purchase, Reason, ReviewTerms, Seller, SpendRequest, Tally, Timestamp, Unit, Verdict, Window,
};
pub use budget::budget_path;
pub use money::Money;
pub use name::{Name, ZoneName};
pub use pattern::{Address, HostPattern, Network, ParseError, PathPattern};
pub use review::{Action, Objection, ReviewSettings};
pub use settings::NoSettings;
#[doc(hidden)]
pub use slot::{Slot, describe};

/// One spend policy: its settings, what it is called, and how it judges.
///
/// `Send + Sync` costs nothing in a component, which has one thread; it lets the configured policy
/// live in a `static`.
pub trait Policy: Sized + Send + Sync + 'static {
    /// The settings document. Keys the type does not know are problems even without
    /// `deny_unknown_fields`. Use [`NoSettings`] for a policy that has none.
    type Settings: DeserializeOwned;

    /// Stable kebab-case name.
    const NAME: &'static str;
    /// Semantic version; `env!("CARGO_PKG_VERSION")` is a good choice.
    const VERSION: &'static str;
    /// One sentence for listings.
    const SUMMARY: &'static str;

    /// JSON Schema (2020-12) of [`Settings`](Self::Settings), at most 64 KiB, without external `$ref`.
    /// [`testing::assert_schema_agrees`] checks that both name the same keys.
    fn settings_schema() -> &'static str;

    /// Checks settings that parsed and makes the policy. Called once per instance, so work that does
    /// not depend on a request belongs here.
    ///
    /// # Errors
    /// Every problem found, each at its place in the document. The gateway keeps the last good set.
    fn configure(settings: Self::Settings) -> Result<Self, Vec<Problem>>;

    /// Judges one payment. A pure function of settings and request.
    ///
    /// # Errors
    /// The gateway treats an error as a deny with the code `policy-error`; the text goes to the
    /// decision record. Refuse with [`Decision::deny`] whenever there is something to tell.
    fn evaluate(&self, request: &SpendRequest) -> Result<Decision, String>;
}

/// Exports a [`Policy`] as a `countersign:policy/spend-policy` component. Once per crate.
///
/// On targets other than wasm it only checks the type, so that the crate also builds as an `rlib`
/// and tests run natively.
#[macro_export]
macro_rules! export_policy {
    ($policy:ty) => {
        const _: () = {
            const fn is_policy<P: $crate::Policy>() {}
            is_policy::<$policy>();
        };

        #[cfg(target_family = "wasm")]
        const _: () = {
            static POLICY: $crate::Slot<$policy> = $crate::Slot::new();

            struct Component;

            impl $crate::bindings::exports::countersign::policy::policy::Guest for Component {
                fn describe() -> $crate::Description {
                    $crate::describe::<$policy>()
                }

                fn configure(
                    settings: ::std::string::String,
                ) -> ::core::result::Result<(), ::std::vec::Vec<$crate::Problem>> {
                    POLICY.configure(&settings)
                }

                fn evaluate(
                    request: $crate::SpendRequest,
                ) -> ::core::result::Result<$crate::Decision, ::std::string::String> {
                    // The instance ends with its answer: taking the request apart would be work for nobody.
                    POLICY.evaluate(&::core::mem::ManuallyDrop::new(request))
                }
            }

    $crate::bindings::export_component!(Component with_types_in $crate::bindings);
        };
    };
}

/// Compiles every Rust block of the handbook, so that it stays true.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/policies.md")]
struct Handbook;
