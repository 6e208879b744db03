//! The same rules for a ledger in PostgreSQL: the tests of `ledger`, of which each also compares every row in the
//! database with the copy's; and what several gateways, a failing server and a lost copy must do.
//!
//! COUNTERSIGN_KILLS=N kills gateways so often, COUNTERSIGN_CRASHES=N the server, and COUNTERSIGN_HISTORIES=N compares so
//! many histories.

#[cfg(test)]
mod backend;
#[cfg(test)]
#[path = "../ledger/postgres.rs"]
mod postgres;

#[cfg(test)]
mod copies;
#[cfg(test)]
mod doubt;
#[cfg(test)]
mod fleet;
#[cfg(test)]
mod frozen;
#[cfg(test)]
mod gateways;
#[cfg(test)]
mod kills;
#[cfg(test)]
#[expect(unreachable_pub, reason = "it is a library's there")]
#[path = "../../../model/src/linear.rs"]
mod linear;
#[cfg(test)]
mod outages;
#[cfg(test)]
mod proxy;
#[cfg(test)]
mod same;
#[cfg(test)]
mod server;
#[cfg(test)]
mod walls;
#[cfg(test)]
mod worker;

#[cfg(test)]
#[path = "../ledger/budgets.rs"]
mod budgets;
#[cfg(test)]
#[path = "../ledger/common.rs"]
mod common;
#[cfg(test)]
#[path = "../ledger/generations.rs"]
mod generations;
#[cfg(test)]
#[path = "../ledger/life.rs"]
mod life;
#[cfg(test)]
#[path = "../ledger/model.rs"]
mod model;
#[cfg(test)]
#[path = "../ledger/past.rs"]
mod past;
#[cfg(test)]
#[path = "../ledger/proofs.rs"]
mod proofs;
#[cfg(test)]
#[path = "../ledger/purchases.rs"]
mod purchases;
#[cfg(test)]
#[path = "../ledger/record.rs"]
mod record;
#[cfg(test)]
#[path = "../ledger/reviews.rs"]
mod reviews;
#[cfg(test)]
#[path = "../ledger/sessions.rs"]
mod sessions;
#[cfg(test)]
#[path = "../ledger/uses.rs"]
mod uses;
#[cfg(test)]
#[path = "../ledger/watched.rs"]
mod watched;
#[cfg(test)]
#[path = "../ledger/windows.rs"]
mod windows;

/// Random histories of a test: each takes a database of its own.
#[cfg(test)]
const CASES: u32 = 10;
