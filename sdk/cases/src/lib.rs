//! What a policy must answer, as a document.
//!
//! One file per policy, JSON or TOML, holds *cases* (this request, these settings, this answer) and
//! *properties* (over all requests like these, never or always an answer like that). The format is
//! in `docs/policies.md`. The SDK runs it on native code, the gateway on the component; this crate is
//! what both share, so that a file cannot mean two things. It knows requests and answers as JSON under
//! the names of the WIT, and neither policies nor WebAssembly.

mod answer;
mod document;
mod pattern;
mod property;
mod request;
mod run;

pub use answer::{Attribute, Decision, Hold, Obligation, Reason, ReviewTerms, Unit, Verdict, Window};
pub use document::{Cases, CasesError, Question};
pub use request::{complete, ordinary};
pub use run::{Difference, Failure, Judge, Kind, Outcome, Problem, Refusal, Report, Subject};
