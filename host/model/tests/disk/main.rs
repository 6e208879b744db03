//! What a failing disk and a power cut leave of the real ledger: everything that somebody was told is there.
//!
//! A worker process buys, and says what it was told. `shim.c` stands between it and the disk: it lets one operation
//! fail (`faults`), or writes every one down, so that the disk is rebuilt as a power cut may leave it (`power`).
//!
//! `COUNTERSIGN_FAULTS` says how many operations fail, one in each run, or `all`; `COUNTERSIGN_FAULT=number:kind`
//! repeats one. `COUNTERSIGN_IMAGES` says how many cuts; `COUNTERSIGN_SEED` and `COUNTERSIGN_LOG` repeat one, from a
//! log that a failure left. Linux only: elsewhere there is nothing in this suite.

#![cfg(target_os = "linux")]

#[cfg(test)]
#[path = "../simulation/chance.rs"]
mod chance;
#[cfg(test)]
mod disk;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod judge;
#[cfg(test)]
mod log;
#[cfg(test)]
mod power;
#[cfg(test)]
#[expect(dead_code, reason = "made for the simulation")]
#[path = "../simulation/purchase.rs"]
mod purchase;
#[cfg(test)]
mod run;
#[cfg(test)]
#[expect(dead_code, reason = "made for the simulation")]
#[path = "../simulation/together.rs"]
mod together;
#[cfg(test)]
mod worker;
