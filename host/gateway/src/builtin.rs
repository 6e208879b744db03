//! The standard policies, compiled when this crate was and carried in the binary.

/// Name, component and cases of every standard policy.
static ALL: &[(&str, &[u8], &str)] = include!(concat!(env!("OUT_DIR"), "/builtin.rs"));

/// The component of `builtin:NAME`.
#[must_use]
pub fn module(name: &str) -> Option<&'static [u8]> {
    ALL.iter().find(|(n, ..)| *n == name).map(|(_, bytes, _)| *bytes)
}

/// The cases of `builtin:NAME`.
#[must_use]
pub fn cases(name: &str) -> Option<&'static str> {
    ALL.iter().find(|(n, ..)| *n == name).map(|(.., cases)| *cases)
}

/// The names `builtin:` knows.
#[must_use]
pub fn names() -> Vec<&'static str> {
    ALL.iter().map(|(name, ..)| *name).collect()
}
