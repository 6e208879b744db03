//! Proofs about Countersign's money. Nothing in the product depends on this crate.
//!
//! | where | what it shows |
//! | --- | --- |
//! | `tests/flow` | every state that a few payments, crashes, reorganisations and a hostile seller can reach keeps the rules of the money |
//! | `tests/simulation` | the real ledger and the real evidence logic keep them too, over thousands of seeded lives |
//! | `tests/disk` | a failing disk and a power cut lose nothing that anybody was told of |
//! | [`history`] | what concurrent callers saw of a budget is what one counter with a limit would have told them |
//! | [`linear`] | the same of a few calls at a time, believing nothing but what callers were told |
//! | [`table`] | the manual's table of transitions is the code's |

pub mod history;
pub mod linear;
pub mod table;
