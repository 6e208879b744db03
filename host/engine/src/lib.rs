//! Runs policies. The only crate that knows what WebAssembly is.
//!
//! A policy is a component of the world `countersign:policy/spend-policy@0.1.0` (`wit/v0.1`). Each
//! decision gets a store and an instance of its own, configured ahead of time or restored from a snapshot
//! of a configured one, asked once, dropped. Nothing a policy does can outlive the question it was asked.
//!
//! * [`Engine`] owns the runtime: its settings, the instance pool, the epoch ticker and the cache of
//!   compiled modules.
//! * [`Engine::stage`] turns [`PolicySpec`]s into a [`PolicySet`], or says which policy failed at
//!   which [`Stage`] and why. A set is immutable; reloading is staging another and swapping it in.
//! * [`PolicySet`] is the real [`Judge`](countersign_core::seams::Judge): total, and bounded in time,
//!   instructions, memory and everything a policy can say.
//!
//! # What a policy can reach
//! `countersign:policy/log`, and an inert part of WASI 0.2 in which time stands still, randomness is
//! a function of the decision, nothing can be opened and nothing blocks. A component that imports
//! anything else is refused when it is loaded, by name.
//!
//! # Determinism
//! Until `evaluate` a policy sees the clock at zero and randomness seeded by (module, settings);
//! from then on the clock is the request's `at` and the seed (decision id, policy name). The same
//! module, settings and request therefore give the same answer bit for bit, the same log and the
//! same fuel, for ever: a stop for fuel is replayable, a stop by the clock is not.
//!
//! # Threads
//! Policies run on the calling thread, which needs 1 MiB of free stack. Judging blocks: normally for
//! some twenty microseconds a policy, at worst for its deadline, the configure deadline and the wait
//! for a free instance. Call it where blocking is allowed.

mod artifacts;
mod audit;
mod bindings;
mod cache;
pub mod cases;
mod compiled;
mod compiler;
mod config;
mod convert;
mod digest;
mod engine;
mod failure;
#[cfg(feature = "foreign")]
pub mod foreign;
mod guest;
mod janitor;
mod prepared;
mod runtime;
mod schema;
mod set;
mod settings;
mod slots;
mod snapshot;
mod stage;
mod stats;
mod ticker;
mod wasi;

pub use compiled::Inspection;
pub use config::{CacheConfig, CacheKey, EngineConfig, EngineError};
pub use engine::Engine;
pub use prepared::StartedFrom;
pub use set::{PolicySet, PolicyState, PolicyStatus};
pub use stage::{PolicySpec, Stage, StageError, Start};
pub use stats::Stats;

/// The interface every policy must export.
pub const POLICY_INTERFACE: &str = "countersign:policy/policy@0.1.0";
