//! The forward proxy from outside: unmodified clients that buy through it, everything it must refuse, connections it
//! carries unread, and `countersign run`.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test: whatever is not as expected must fail it loudly"
)]

mod clients;
mod refusals;
mod run;
mod support;
mod traffic;
mod tunnels;
