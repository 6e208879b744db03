//! The engine from outside, with guests written as text.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on says so; the lint spares only the functions marked as tests"
)]

mod honest;
mod hostile;
mod ready;
mod staging;
mod support;
mod wasi;
