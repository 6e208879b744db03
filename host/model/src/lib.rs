//! Proofs about Countersign's money. Nothing in the product depends on this crate.
//!
//! | where | what it shows |
//! | --- | --- |
//! | `tests/flow` | every state that a few payments, crashes, reorganisations and a hostile seller can reach keeps the rules of the money |
//! | `tests/simulation` | the real ledger and the real evidence logic keep them too, over thousands of seeded lives |
//! | [`history`] | what concurrent callers saw of a budget is what one counter with a limit would have told them |
//! | [`table`] | the manual's table of transitions is the code's |

pub mod history;
pub mod table;
