//! The environment, looked at once, and the values that must not be printed.

use std::collections::BTreeMap;
use std::fmt;

use k256::elliptic_curve::zeroize::Zeroize;

/// A value that is never printed and is wiped when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes a value into custody.
    #[must_use]
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The value itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A copy of the environment. Nothing reads the real one after this was taken.
#[derive(Clone, Debug, Default)]
pub struct Environment(BTreeMap<String, Secret>);

impl Environment {
    /// Copies the process's environment; variables that are not UTF-8 are left out.
    #[must_use]
    pub fn capture() -> Self {
        let pairs = std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)));
        pairs.collect()
    }

    /// The value of a variable.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(Secret::expose)
    }

    /// This environment with more variables.
    #[must_use]
    pub fn with<K: Into<String>, V: Into<String>>(mut self, more: impl IntoIterator<Item = (K, V)>) -> Self {
        self.0.extend(more.into_iter().map(|(name, value)| (name.into(), Secret::new(value))));
        self
    }
}

impl<K: Into<String>, V: Into<String>> FromIterator<(K, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        Self(pairs.into_iter().map(|(k, v)| (k.into(), Secret::new(v))).collect())
    }
}
