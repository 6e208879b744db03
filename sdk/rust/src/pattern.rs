//! What settings name and requests carry: hosts, paths, addresses, networks.
//!
//! Everything here parses from a string, so that a settings type can hold it directly and a mistake
//! is a problem at its own place. Matching fails closed: what cannot be understood does not match.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use crate::Purchase;

/// Why a text is not what its type asks for. For people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseError(String);

impl ParseError {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }

    fn in_text(text: &str, what: &str, why: impl fmt::Display) -> Self {
        Self(format!("`{}` is not {what}: {why}", text.escape_debug()))
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ParseError {}

/// `Deserialize` for a type that settings write as a string, by its `FromStr`.
macro_rules! string_setting {
    ($type:ty, $expected:literal) => {
        impl<'de> ::serde::Deserialize<'de> for $type {
            fn deserialize<D: ::serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Text;

                impl ::serde::de::Visitor<'_> for Text {
                    type Value = $type;

                    fn expecting(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                        f.write_str($expected)
                    }

                    fn visit_str<E: ::serde::de::Error>(self, text: &str) -> Result<$type, E> {
                        text.parse().map_err(E::custom)
                    }
                }

                deserializer.deserialize_str(Text)
            }
        }
    };
}
pub(crate) use string_setting;

/// Which hosts a setting means: `HOST`, `HOST:PORT` or `HOST:*`, where `HOST` is a lower-case
/// A-label name, an address (IPv6 in brackets), or `*.name`.
///
/// - Without a port it matches the scheme's default port only, `:PORT` matches that one, `:*` any.
/// - `*.name` matches one or more labels under `name`, not `name` itself, and never an IP address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPattern {
    host: Host,
    port: Port,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Host {
    Exact(String),
    Under(String),
    Ipv6(Ipv6Addr),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Port {
    Default,
    Only(u16),
    Any,
}

impl HostPattern {
    /// Parses a pattern.
    ///
    /// # Errors
    /// Says what is not allowed in a host pattern, and what to write instead.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        Self::read(text).map_err(|why| ParseError::in_text(text, "a host pattern", why))
    }

    fn read(text: &str) -> Result<Self, String> {
        if text.contains("://") || text.contains('/') {
            return Err("write the host alone, without scheme or path".to_owned());
        }
        let (host, port) =
            split_port(text).ok_or("an IPv6 address goes in brackets, as in `[::1]:8080`, and one port may follow")?;
        let port = match port {
            None => Port::Default,
            Some("*") => Port::Any,
            Some(port) => Port::Only(read_port(port).ok_or("a port is `*` or a number from 1 to 65535")?),
        };
        let host = if let Some(address) = host.strip_prefix('[') {
            let address = address.strip_suffix(']').unwrap_or(address);
            Host::Ipv6(address.parse().map_err(|_| "that is no IPv6 address")?)
        } else if let Some(name) = host.strip_prefix("*.") {
            check_name(name)?;
            if ends_in_number(name) {
                return Err("a wildcard cannot stand for part of an IP address".to_owned());
            }
            Host::Under(name.to_owned())
        } else {
            check_name(host)?;
            if ends_in_number(host) && host.parse::<Ipv4Addr>().is_err() {
                return Err("that is no IPv4 address".to_owned());
            }
            Host::Exact(host.to_owned())
        };
        Ok(Self { host, port })
    }

    /// Whether what is being bought comes from such a host.
    #[must_use]
    pub fn matches(&self, purchase: &Purchase) -> bool {
        self.matches_host(&purchase.host, purchase.scheme().unwrap_or_default())
    }

    /// Whether `host` or `host:port`, reached by `scheme`, is such a host.
    #[must_use]
    pub fn matches_host(&self, host: &str, scheme: &str) -> bool {
        let Some((name, port)) = split_port(host) else {
            return false;
        };
        let default = match scheme {
            "https" => Some(443),
            "http" => Some(80),
            _ => None,
        };
        let port = match port.map(read_port) {
            None => default,
            Some(Some(port)) => Some(port),
            Some(None) => return false,
        };
        let port_fits = match self.port {
            Port::Any => true,
            // An unknown scheme has no default, so only a host without a port can be at it.
            Port::Default => port == default,
            Port::Only(only) => port == Some(only),
        };
        port_fits && self.host.matches(name)
    }
}

impl Host {
    fn matches(&self, name: &str) -> bool {
        match self {
            Self::Exact(exact) => name == exact,
            Self::Under(parent) => name
                .strip_suffix(parent.as_str())
                .and_then(|rest| rest.strip_suffix('.'))
                .is_some_and(|labels| labels.split('.').all(|label| !label.is_empty())),
            Self::Ipv6(address) => name
                .strip_prefix('[')
                .and_then(|rest| rest.strip_suffix(']'))
                .is_some_and(|literal| literal.parse() == Ok(*address)),
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Exact(name) => f.write_str(name)?,
            Host::Under(name) => write!(f, "*.{name}")?,
            Host::Ipv6(address) => write!(f, "[{address}]")?,
        }
        match self.port {
            Port::Default => Ok(()),
            Port::Only(port) => write!(f, ":{port}"),
            Port::Any => f.write_str(":*"),
        }
    }
}

impl FromStr for HostPattern {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        Self::parse(text)
    }
}

string_setting!(HostPattern, "a host pattern such as \"api.example.com\"");

/// `host`, `host:port`, `[v6]`, `[v6]:port`; brackets stay. `None` for any other use of `[`, `]`, `:`.
fn split_port(text: &str) -> Option<(&str, Option<&str>)> {
    let name_end =
        if text.starts_with('[') { text.find(']')?.checked_add(1)? } else { text.find(':').unwrap_or(text.len()) };
    let (name, rest) = text.split_at_checked(name_end)?;
    if rest.is_empty() {
        return Some((name, None));
    }
    let port = rest.strip_prefix(':')?;
    (!port.contains([':', '[', ']'])).then_some((name, Some(port)))
}

fn read_port(text: &str) -> Option<u16> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
    plain.then(|| text.parse().ok()).flatten()
}

fn check_name(name: &str) -> Result<(), String> {
    if name.contains('*') {
        return Err("`*` stands only for leading labels, as in `*.example.com`, or for the port".to_owned());
    }
    if !name.is_ascii() {
        return Err("write the A-label (`xn--…`)".to_owned());
    }
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err("write it in lower case".to_owned());
    }
    if name.len() > 253 {
        return Err("it is longer than 253 characters".to_owned());
    }
    for label in name.split('.') {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if label.is_empty() {
            return Err("it has an empty label".to_owned());
        }
        if label.len() > 63 || label.starts_with('-') || label.ends_with('-') || !label.bytes().all(allowed) {
            return Err(format!("`{}` is not a host label", label.escape_debug()));
        }
    }
    Ok(())
}

/// What every URL parser takes for an IPv4 address.
fn ends_in_number(name: &str) -> bool {
    name.rsplit('.')
        .next()
        .is_some_and(|label| label.starts_with("0x") || label.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Which paths a setting means: exactly `/v1/quote`, or with `/*` at the end everything below.
///
/// - `/v1/*` matches every path that begins with `/v1/`, `/v1/` included; not `/v1`, not `/v10/x`.
///   `/*` matches every path.
/// - Comparison is by bytes, on the path as it is sent: case counts and percent-encoding is not undone.
/// - A path that a server could read as leaving the prefix (`..`, also encoded or behind `;`) never
///   matches a pattern with `*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathPattern {
    path: String,
    below: bool,
}

impl PathPattern {
    /// Parses a pattern.
    ///
    /// # Errors
    /// Says what is not allowed in a path pattern.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let fail = |why: &str| Err(ParseError::in_text(text, "a path pattern", why));
        if !text.starts_with('/') {
            return fail("it must begin with `/`");
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return fail("write it as it is sent, percent-encoded");
        }
        if text.contains(['?', '#']) {
            return fail("query and fragment are not part of the path");
        }
        let (path, below) = match text.strip_suffix("/*") {
            Some(parent) => (format!("{parent}/"), true),
            None => (text.to_owned(), false),
        };
        if path.contains('*') {
            return fail("`*` stands only at the end, as in `/v1/*`");
        }
        if has_dot_segment(&path) {
            return fail("it must not contain `.` or `..` segments");
        }
        Ok(Self { path, below })
    }

    /// Whether `path` is such a path.
    #[must_use]
    pub fn matches(&self, path: &str) -> bool {
        if self.below { path.starts_with(&self.path) && !has_dot_segment(path) } else { path == self.path }
    }
}

/// In any spelling that some server takes for one.
fn has_dot_segment(path: &str) -> bool {
    let path = path.to_ascii_lowercase().replace("%25", "%");
    let path = path.replace("%2e", ".").replace("%2f", "/").replace("%5c", "/").replace("%3b", ";");
    path.split(['/', '\\'])
        .filter_map(|segment| segment.split(';').next())
        .any(|segment| segment == "." || segment == "..")
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.path, if self.below { "*" } else { "" })
    }
}

impl FromStr for PathPattern {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        Self::parse(text)
    }
}

string_setting!(PathPattern, "a path pattern such as \"/v1/*\"");

/// An account that is paid: `0x` and 40 hexadecimal digits, compared without regard to case, or any
/// other network's address, compared exactly.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address(String);

impl Address {
    /// Parses an address.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let fail = |why: &str| Err(ParseError::in_text(text, "an address", why));
        if let Some(digits) = hex_digits(text) {
            if digits.len() != 40 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                return fail("after `0x` come 40 hexadecimal digits");
            }
            return Ok(Self(text.to_ascii_lowercase()));
        }
        if text.is_empty() || text.len() > 128 || !text.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return fail("it has 1 to 128 letters and digits");
        }
        Ok(Self(text.to_owned()))
    }

    /// Whether `other` is the same account.
    #[must_use]
    pub fn matches(&self, other: &str) -> bool {
        if hex_digits(&self.0).is_some() { self.0.eq_ignore_ascii_case(other) } else { self.0 == other }
    }
}

fn hex_digits(text: &str) -> Option<&str> {
    text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"))
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Address {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        Self::parse(text)
    }
}

string_setting!(Address, "an address such as \"0x209693bc6afc0c5328ba36faf03c514ef312287c\"");

/// A network by its CAIP-2 id, such as `eip155:8453`. Compared exactly.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Network(String);

impl Network {
    /// Parses a CAIP-2 id.
    ///
    /// # Errors
    /// Says what a CAIP-2 id looks like.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let well_formed = text.split_once(':').is_some_and(|(namespace, reference)| {
            let in_namespace = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
            let in_reference = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
            (3..=8).contains(&namespace.len())
                && namespace.bytes().all(in_namespace)
                && (1..=32).contains(&reference.len())
                && reference.bytes().all(in_reference)
        });
        if well_formed {
            Ok(Self(text.to_owned()))
        } else {
            Err(ParseError::in_text(text, "a network", "write its CAIP-2 id, such as eip155:8453"))
        }
    }

    /// Whether `other` is this network.
    #[must_use]
    pub fn matches(&self, other: &str) -> bool {
        self.0 == other
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Network {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        Self::parse(text)
    }
}

string_setting!(Network, "a CAIP-2 network such as \"eip155:8453\"");

#[cfg(test)]
mod tests {
    use super::*;

    fn check_host(pattern: &str, yes: &[&str], no: &[&str]) {
        let parsed = HostPattern::parse(pattern).unwrap();
        assert_eq!(parsed.to_string(), pattern);
        let matches = |origin: &str| {
            let (scheme, host) = origin.split_once("://").unwrap_or(("https", origin));
            parsed.matches_host(host, scheme)
        };
        for host in yes {
            assert!(matches(host), "{pattern} should match {host}");
        }
        for host in no {
            assert!(!matches(host), "{pattern} should not match {host}");
        }
    }

    #[test]
    fn host_patterns() {
        check_host(
            "api.example.com",
            &["api.example.com", "http://api.example.com", "api.example.com:443", "http://api.example.com:80"],
            &[
                "api.example.com:8443",
                "api.example.com:80",
                "http://api.example.com:443",
                "example.com",
                "x.api.example.com",
                "xapi.example.com",
                "api.example.com.",
                "API.example.com",
                "",
                "api.example.com.evil.test",
                "api.example.com:",
                "api.example.com:0443",
                "api.example.com:x",
                "api.example.com:443:443",
                "[api.example.com]",
                "user@api.example.com",
            ],
        );
        check_host(
            "api.example.com:443",
            &["api.example.com", "http://api.example.com:443"],
            &["http://api.example.com", "api.example.com:8443", "ftp://api.example.com"],
        );
        check_host("localhost:8402", &["localhost:8402", "http://localhost:8402"], &["localhost", "localhost:8403"]);
        check_host(
            "localhost:*",
            &["localhost", "localhost:1", "http://localhost:65535"],
            &["localhost:0", "localhost:65536", "localhost:", "notlocalhost:1", "localhost.evil.test:1"],
        );
        check_host(
            "*.data.example",
            &["a.data.example", "a.b.data.example", "xn--mnchen-3ya.data.example"],
            &[
                "data.example",
                ".data.example",
                "a..data.example",
                "adata.example",
                "a.data.example:8443",
                "a.data.example.evil.test",
            ],
        );
        check_host("*.data.example:*", &["a.data.example:8443", "a.data.example"], &["data.example:8443"]);
        check_host("127.0.0.1:*", &["127.0.0.1:40201"], &["127.0.0.11:1", "1127.0.0.1"]);
        check_host("[::1]:8080", &["[::1]:8080", "[0:0::1]:8080"], &["[::1]", "[::2]:8080", "::1:8080", "[::1:8080"]);
        check_host("[2001:db8::1]", &["[2001:db8::1]", "[2001:db8::1]:443"], &["2001:db8::1"]);
    }

    #[test]
    fn host_patterns_that_are_refused() {
        for (text, cause) in [
            ("", "empty label"),
            ("*", "leading labels"),
            ("*:*", "leading labels"),
            ("*.", "empty label"),
            ("**.example.com", "leading labels"),
            ("*.*.example.com", "leading labels"),
            ("api.*.com", "leading labels"),
            ("*api.example.com", "leading labels"),
            ("API.example.com", "lower case"),
            ("münchen.example", "A-label"),
            ("example.com.", "empty label"),
            ("a..example.com", "empty label"),
            ("https://example.com", "without scheme or path"),
            ("example.com/v1", "without scheme or path"),
            ("user@example.com", "host label"),
            ("exa mple.com", "host label"),
            ("-a.example.com", "host label"),
            ("example.com:", "a port is"),
            ("example.com:0", "a port is"),
            ("example.com:080", "a port is"),
            ("example.com:65536", "a port is"),
            ("example.com:+80", "a port is"),
            ("example.com:80:81", "one port"),
            ("::1", "brackets"),
            ("[::1", "brackets"),
            ("[::1]8080", "brackets"),
            ("[example.com]", "no IPv6"),
            ("*.0.0.1", "IP address"),
            ("127.1", "no IPv4"),
            ("0x7f000001", "no IPv4"),
            ("2130706433", "no IPv4"),
            ("127.0.0.256", "no IPv4"),
        ] {
            let error = HostPattern::parse(text).unwrap_err().to_string();
            assert!(error.contains(cause), "{text}: {error}");
        }
    }

    #[test]
    fn path_patterns() {
        for (pattern, yes, no) in [
            ("/v1/quote", &["/v1/quote"][..], &["/v1/quote/", "/v1/quotes", "/V1/quote", "/v1/%71uote"][..]),
            (
                "/v1/*",
                &["/v1/", "/v1/a", "/v1/a/b", "/v1/a..b", "/v1/...", "/v1/%20"],
                &[
                    "/v1",
                    "/v10/a",
                    "/V1/a",
                    "/v1/..",
                    "/v1/../admin",
                    "/v1/./a",
                    "/v1/%2e%2E/admin",
                    "/v1/.%2e/admin",
                    "/v1/..%2fadmin",
                    "/v1/..%5Cadmin",
                    "/v1/..\\admin",
                    "/v1/..;/admin",
                    "/v1/%252e%252e/admin",
                    "/x/v1/a",
                ],
            ),
            ("/*", &["/", "/anything"], &["", "/../x"]),
            ("/", &["/"], &["/a"]),
        ] {
            let parsed = PathPattern::parse(pattern).unwrap();
            assert_eq!(parsed.to_string(), pattern);
            for path in yes {
                assert!(parsed.matches(path), "{pattern} should match {path}");
            }
            for path in no {
                assert!(!parsed.matches(path), "{pattern} should not match {path}");
            }
        }
        for (text, cause) in [
            ("", "begin with"),
            ("v1/*", "begin with"),
            ("*", "begin with"),
            ("/v1*", "only at the end"),
            ("/v1/*.json", "only at the end"),
            ("/*/quote", "only at the end"),
            ("/v1/**", "only at the end"),
            ("/v1?x=1", "query"),
            ("/v1#x", "query"),
            ("/v1/../a", "segments"),
            ("/v1/%2e/*", "segments"),
            ("/ü", "percent-encoded"),
            ("/a b", "percent-encoded"),
        ] {
            let error = PathPattern::parse(text).unwrap_err().to_string();
            assert!(error.contains(cause), "{text}: {error}");
        }
    }

    #[test]
    fn addresses() {
        let evm = Address::parse("0x209693Bc6afc0C5328bA36FaF03C514EF312287C").unwrap();
        assert!(evm.matches("0x209693bc6afc0c5328ba36faf03c514ef312287c"));
        assert!(evm.matches("0X209693BC6AFC0C5328BA36FAF03C514EF312287C"));
        assert!(!evm.matches("0x209693bc6afc0c5328ba36faf03c514ef312287d"));
        assert!(!evm.matches("209693bc6afc0c5328ba36faf03c514ef312287c"));
        let solana = Address::parse("EGBQqKn968sVv5cQh5Cr72pSTHfxsuzq7o7asqYB5uEV").unwrap();
        assert!(solana.matches("EGBQqKn968sVv5cQh5Cr72pSTHfxsuzq7o7asqYB5uEV"));
        assert!(!solana.matches("egbqqkn968svv5cqh5cr72pstHfxsuzq7o7asqyb5uev"));
        for text in ["", "0x", "0x12", "0xg09693bc6afc0c5328ba36faf03c514ef312287c", "a b", "acme.eth"] {
            assert!(Address::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn networks() {
        for text in ["eip155:8453", "solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp"] {
            assert!(Network::parse(text).unwrap().matches(text));
        }
        for text in ["", "base", "eip155:", "EIP155:1", "eip155:8453:1", "eip155:*", "a:1"] {
            assert!(Network::parse(text).is_err(), "{text}");
        }
    }
}
