//! The standard policies, compiled when this crate was and carried in the binary.

/// Name and component of every standard policy.
static ALL: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/builtin.rs"));

/// The component of `builtin:NAME`.
#[must_use]
pub fn module(name: &str) -> Option<&'static [u8]> {
    ALL.iter().find(|(n, _)| *n == name).map(|(_, bytes)| *bytes)
}

/// The names `builtin:` knows.
#[must_use]
pub fn names() -> Vec<&'static str> {
    ALL.iter().map(|(name, _)| *name).collect()
}
