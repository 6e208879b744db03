//! What agents send, read strictly. Pure: no clock, no socket, no configuration, and so nothing that a fuzzer
//! would have to imitate.

#![forbid(unsafe_code)]

pub mod jose;
pub mod message;
pub mod parent;
pub mod proxy;
