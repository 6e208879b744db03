//! Countersign: the gateway. Everything with a socket: front doors, the purchase flow, wallets, the
//! chain reader, reload, and the command line.

#![forbid(unsafe_code)]

pub mod admission;
pub mod books;
pub mod builtin;
pub mod casefile;
pub mod chain;
pub mod cli;
pub mod clock;
pub mod config;
pub mod courier;
pub mod demo;
pub mod egress;
pub mod endpoint;
mod events;
pub mod flights;
pub mod front;
pub mod identity;
pub mod init;
pub mod log;
pub mod past;
pub mod problem;
pub mod proposal;
pub mod purchase;
pub mod rate;
pub mod reconcile;
pub mod reload;
pub mod serve;
pub mod shadow;
pub mod state;
pub mod stops;
pub mod store;
pub mod telemetry;
pub mod upstream;
pub mod views;
pub mod voting;
pub mod vouch;
pub mod wallet;
pub mod watch;
pub mod webhook;
