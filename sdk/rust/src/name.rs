//! Names in settings: of principals, and of time zones.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;

use crate::pattern::{ParseError, string_setting};

const MAX_BYTES: usize = 64;

/// The name of an agent, role, client, project, task, …: 1 to 64 of `a-z`, `0-9`, `.`, `_`, `-`.
///
/// The host lower-cases names before a policy sees them, so a setting in another spelling could
/// never match; it is refused instead.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name(String);

impl Name {
    /// Parses a name.
    ///
    /// # Errors
    /// Says what a name may be.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
        if (1..=MAX_BYTES).contains(&text.len()) && text.bytes().all(allowed) {
            return Ok(Self(text.to_owned()));
        }
        let shown = text.escape_debug();
        Err(ParseError::new(format!("`{shown}` is not a name: write 1 to 64 of a-z, 0-9, `.`, `_`, `-`")))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Name {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        Self::parse(text)
    }
}

string_setting!(Name, "a name such as \"acme\"");

/// An IANA time zone by its name, such as `Europe/Berlin`: the setting `timezone`. UTC by default.
///
/// Whether such a zone exists is for whoever has the time zone database: the host, which counts days
/// and months. It refuses a hold in a zone that does not exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZoneName(String);

impl ZoneName {
    /// Parses a name.
    ///
    /// # Errors
    /// If no zone could be called so.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let in_part = |byte: u8| byte.is_ascii_alphanumeric() || b"_-+".contains(&byte);
        let is_part = |part: &str| part.starts_with(|c: char| c.is_ascii_alphabetic()) && part.bytes().all(in_part);
        if text.len() <= MAX_BYTES && text.split('/').all(is_part) {
            return Ok(Self(text.to_owned()));
        }
        let shown = text.escape_debug();
        Err(ParseError::new(format!("`{shown}` is not an IANA time zone such as UTC or Europe/Berlin")))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for ZoneName {
    fn default() -> Self {
        Self("UTC".to_owned())
    }
}

impl From<&ZoneName> for String {
    fn from(zone: &ZoneName) -> Self {
        zone.0.clone()
    }
}

impl fmt::Display for ZoneName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ZoneName {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        Self::parse(text)
    }
}

string_setting!(ZoneName, "an IANA time zone such as \"Europe/Berlin\"");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let longest = "x".repeat(MAX_BYTES);
        for name in ["acme", "a", "0", "acme-2.eu_west", &longest] {
            assert_eq!(Name::parse(name).unwrap().as_str(), name);
        }
        for name in ["", "Acme", "a b", "a/b", "a@b", "é", "a\0", &format!("{longest}x")] {
            assert!(Name::parse(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn zones() {
        for zone in ["UTC", "Europe/Berlin", "America/Argentina/Buenos_Aires", "Etc/GMT+5", "America/Port-au-Prince"] {
            assert_eq!(ZoneName::parse(zone).unwrap().as_str(), zone);
        }
        let long = "x".repeat(MAX_BYTES + 1);
        for zone in ["", "+02:00", "Europe/", "/Berlin", "Europe//Berlin", "Mars Base", "../etc/passwd", &long] {
            assert!(ZoneName::parse(zone).is_err(), "{zone:?}");
        }
    }
}
