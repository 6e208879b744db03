//! The audit log as an outsider can check it.
//!
//! Every write of the ledger appends one record in the transaction that makes it true. A record is one
//! line of JSON in its only spelling ([`canon`], [`record`]); it names the hash of the record before it;
//! and all of them are the leaves of a Merkle tree ([`tlog`]) whose root is signed ([`note`]). Whoever
//! kept a signed root can later be shown that nothing before it was changed, and, of any single record,
//! that it is in there, without seeing the others. [`verify`] checks an exported log from nothing but
//! its bytes and the log's public key, the arithmetic of every budget included.
//!
//! Nothing here reads a clock, a disk or a database.

pub mod canon;
pub mod note;
pub mod record;
pub mod tlog;
pub mod verify;
