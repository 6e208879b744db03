//! What a failing disk and a power cut leave of the real ledger: everything that somebody was told is there.
//!
//! A worker process buys, and says what it was told. `shim.c` stands between it and the disk: it lets one operation
//! fail (`faults`), or writes every one down, so that the disk is rebuilt as a power cut may leave it (`power`).
//!
//! `COUNTERSIGN_FAULTS` says how many operations fail, one in each run, or `all`; `COUNTERSIGN_FAULT=number:kind`
//! repeats one. `COUNTERSIGN_IMAGES` says how many cuts; `COUNTERSIGN_SEED` and `COUNTERSIGN_LOG` repeat one, from a
//! log that a failure left. Linux only: elsewhere there is nothing in this suite.

#[cfg(all(test, target_os = "linux"))]
#[path = "../simulation/chance.rs"]
mod chance;
#[cfg(all(test, target_os = "linux"))]
mod disk;
#[cfg(all(test, target_os = "linux"))]
mod faults;
#[cfg(all(test, target_os = "linux"))]
mod judge;
#[cfg(all(test, target_os = "linux"))]
mod log;
#[cfg(all(test, target_os = "linux"))]
mod power;
#[cfg(all(test, target_os = "linux"))]
#[expect(dead_code, reason = "made for the simulation")]
#[path = "../simulation/purchase.rs"]
mod purchase;
#[cfg(all(test, target_os = "linux"))]
mod run;
#[cfg(all(test, target_os = "linux"))]
#[expect(dead_code, reason = "made for the simulation")]
#[path = "../simulation/together.rs"]
mod together;
#[cfg(all(test, target_os = "linux"))]
mod worker;
