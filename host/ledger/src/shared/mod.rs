//! One ledger for several gateways, in PostgreSQL.
//!
//! Every gateway has a local copy of the whole ledger and runs the very same jobs on it as a gateway that is alone.
//! PostgreSQL orders their turns, has every row, and is what a reply's durability rests on; see `link`. So both backends
//! have one meaning because they have one implementation, and a copy can always be thrown away.
//!
//! | module | what it does |
//! | --- | --- |
//! | `connect` | a connection, TLS, settings, words for what fails |
//! | `tables`, `delta` | what a row is, and a change as bytes |
//! | `copy` | the local copy: what was changed in it, how others' changes get in |
//! | `session` | the two exchanges of a turn |
//! | `link`, `turn` | turns, commits that were not answered, epochs |
//! | `begin` | the schema, and making or continuing a copy |
//! | `follow` | listening, signs of life, reaping |
//! | `answers` | kept answers |

pub(crate) mod answers;
pub(crate) mod begin;
pub(crate) mod connect;
mod copy;
mod delta;
pub(crate) mod follow;
pub(crate) mod link;
mod session;
mod tables;
pub(crate) mod turn;
