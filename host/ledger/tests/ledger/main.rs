//! The ledger from outside: every rule of the contract, and what a crash or a hand in the file does.

#[cfg(test)]
mod backend;
#[cfg(test)]
mod budgets;
#[cfg(test)]
mod common;
#[cfg(test)]
mod generations;
#[cfg(test)]
mod life;
#[cfg(test)]
mod model;
#[cfg(test)]
mod past;
#[cfg(test)]
mod proofs;
#[cfg(test)]
mod purchases;
#[cfg(test)]
mod record;
#[cfg(test)]
mod reviews;
#[cfg(test)]
mod sessions;
#[cfg(test)]
mod store;
#[cfg(test)]
mod uses;
#[cfg(test)]
mod watched;
#[cfg(test)]
mod windows;

/// Random histories of a test.
#[cfg(test)]
const CASES: u32 = 48;
