//! What the policies that interpret text have in common: [`holds`](hold) that come from settings,
//! [`budget`] paths that nothing in a request can bend, the bounds of a [`text`], and the one way in
//! which what the rules said becomes a decision ([`Ruling`]).

pub mod budget;
pub mod hold;
pub mod names;
mod ruling;
mod sample;
pub mod text;

pub use ruling::{FORBIDDEN, RULE_ERROR, Ruling, is_code};
pub use sample::full_request;
