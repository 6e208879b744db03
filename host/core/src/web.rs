//! The one place that reads a URL, a method or a header name from outside.
//!
//! What is dialled, what goes into SNI and `Host`, and what policies see are the same parsed
//! [`Target`]. Spellings that different readers understand differently are refused, not repaired.

use std::fmt;
use std::net::IpAddr;

use url::{Host, Url};

/// Longest URL accepted, in bytes.
pub const MAX_URL: usize = 8192;

/// Why a URL or method was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WebError {
    /// Longer than [`MAX_URL`].
    TooLong,
    /// A blank, a control character or a backslash.
    ForbiddenCharacter,
    /// Neither `http://` nor `https://`.
    Scheme,
    /// User name or password in the URL.
    UserInfo,
    /// Missing, misspelled or ambiguous host.
    Host,
    /// An IPv4 address in anything but four plain decimal numbers.
    Ipv4Spelling,
    /// Missing after the colon, zero, above 65535, or with leading zeros.
    Port,
    /// A percent-encoded dot in the path.
    EncodedDot,
    /// Not one of the methods that can be bought with.
    Method,
}

impl WebError {
    /// Stable code for programs.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::TooLong => "url-too-long",
            Self::ForbiddenCharacter => "url-forbidden-character",
            Self::Scheme => "url-scheme",
            Self::UserInfo => "url-user-info",
            Self::Host => "url-host",
            Self::Ipv4Spelling => "url-ipv4-spelling",
            Self::Port => "url-port",
            Self::EncodedDot => "url-encoded-dot",
            Self::Method => "method-not-allowed",
        }
    }
}

impl fmt::Display for WebError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLong => "url: longer than 8192 bytes; shorten it or use a body",
            Self::ForbiddenCharacter => "url: holds a blank, control character or backslash; percent-encode it",
            Self::Scheme => "url: must begin with http:// or https://",
            Self::UserInfo => "url: must not hold a user name or password; send them as a header",
            Self::Host => "url: the host must be a plain domain name or IP address, without a final dot",
            Self::Ipv4Spelling => "url: write an IPv4 address as four decimal numbers, like 192.0.2.1",
            Self::Port => "url: the port must be a number from 1 to 65535",
            Self::EncodedDot => "url: the path holds an encoded dot (%2e); write the dot itself",
            Self::Method => "method: must be one of GET, HEAD, POST, PUT, PATCH, DELETE and OPTIONS",
        })
    }
}

impl std::error::Error for WebError {}

/// How a target is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scheme {
    /// Plain text.
    Http,
    /// TLS.
    Https,
}

impl Scheme {
    /// As it is written before `://`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// The port that goes without saying.
    #[must_use]
    pub const fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// An absolute http(s) URL in its one normal form. It has no fragment: those are never sent.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    scheme: Scheme,
    hostname: String,
    ip: Option<IpAddr>,
    port: u16,
    path: String,
    query: Option<String>,
}

impl Target {
    /// Reads an absolute URL.
    ///
    /// # Errors
    /// See [`WebError`].
    pub fn parse(text: &str) -> Result<Self, WebError> {
        if text.len() > MAX_URL {
            return Err(WebError::TooLong);
        }
        let odd = |c: char| c.is_control() || c.is_whitespace() || c == '\\';
        if text.contains(odd) {
            return Err(WebError::ForbiddenCharacter);
        }
        let (scheme, rest) = text.split_once("://").ok_or(WebError::Scheme)?;
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            _ => return Err(WebError::Scheme),
        };
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let written = check_authority(authority)?;
        check_path(rest)?;

        let url = Url::parse(text).map_err(|_| WebError::Host)?;
        let (hostname, ip) = match url.host().ok_or(WebError::Host)? {
            Host::Domain(name) if is_domain(name) => (name.to_owned(), None),
            Host::Domain(_) => return Err(WebError::Host),
            // The parser also reads octal, hexadecimal, short and full-width spellings.
            Host::Ipv4(ip) if ip.to_string() != written => return Err(WebError::Ipv4Spelling),
            Host::Ipv4(ip) => (ip.to_string(), Some(IpAddr::V4(ip))),
            Host::Ipv6(ip) => (ip.to_string(), Some(IpAddr::V6(ip))),
        };
        let target = Self {
            scheme,
            hostname,
            ip,
            port: url.port().unwrap_or(scheme.default_port()),
            path: url.path().to_owned(),
            query: url.query().map(str::to_owned),
        };
        // Percent-encoding made it longer: whoever reads what we write must be able to.
        if target.url().len() > MAX_URL { Err(WebError::TooLong) } else { Ok(target) }
    }

    /// Reads what a `CONNECT` asks for: `host:port`, both written out, and nothing else. What is spoken
    /// there is taken to be TLS.
    ///
    /// # Errors
    /// See [`WebError`].
    pub fn connect(authority: &str) -> Result<Self, WebError> {
        // Only an authority: what would end one, or begin something else, is no host.
        if authority.contains(['/', '?', '#']) {
            return Err(WebError::Host);
        }
        let target = Self::parse(&format!("https://{authority}/"))?;
        let port = authority.rsplit_once(':').map(|(_, port)| port);
        if port.is_some_and(|port| port.parse() == Ok(target.port)) { Ok(target) } else { Err(WebError::Port) }
    }

    /// `http` or `https`.
    #[must_use]
    pub const fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// What is resolved and put into SNI: a lower-case A-label name or an IP address, without
    /// brackets and without a port.
    #[must_use]
    pub fn hostname(&self) -> &str {
        &self.hostname
    }

    /// The address, when the host is one.
    #[must_use]
    pub const fn ip(&self) -> Option<IpAddr> {
        self.ip
    }

    /// The port, default or not.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The host as policies see it: with `:port` only where it is not the scheme's default.
    #[must_use]
    pub fn host(&self) -> String {
        let name = match self.ip {
            Some(IpAddr::V6(ip)) => format!("[{ip}]"),
            _ => self.hostname.clone(),
        };
        if self.port == self.scheme.default_port() { name } else { format!("{name}:{}", self.port) }
    }

    /// The value of the `Host` header: the same as [`Target::host`].
    #[must_use]
    pub fn host_header(&self) -> String {
        self.host()
    }

    /// The absolute path, at least `/`.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// What follows the `?`, if there is one.
    #[must_use]
    pub fn query(&self) -> Option<&str> {
        self.query.as_deref()
    }

    /// `https://host` with a port only where it is not the default.
    #[must_use]
    pub fn origin(&self) -> String {
        format!("{}://{}", self.scheme.as_str(), self.host())
    }

    /// The request line's target.
    #[must_use]
    pub fn path_and_query(&self) -> String {
        match &self.query {
            Some(query) => format!("{}?{query}", self.path),
            None => self.path.clone(),
        }
    }

    /// What policies and records see: queries hold secrets.
    #[must_use]
    pub fn url_without_query(&self) -> String {
        format!("{}{}", self.origin(), self.path)
    }

    /// The whole URL as it is requested.
    #[must_use]
    pub fn url(&self) -> String {
        format!("{}{}", self.origin(), self.path_and_query())
    }

    /// Whether both lead to the same scheme, host and port.
    #[must_use]
    pub fn same_origin(&self, other: &Self) -> bool {
        self.scheme == other.scheme && self.hostname == other.hostname && self.port == other.port
    }
}

/// Without the query, so that a log line does not leak it.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url_without_query())
    }
}

/// Checks `host[:port]` as written and returns the host.
fn check_authority(authority: &str) -> Result<&str, WebError> {
    if authority.contains('@') {
        return Err(WebError::UserInfo);
    }
    // An encoded host is another spelling of a host.
    if authority.is_empty() || authority.contains('%') {
        return Err(WebError::Host);
    }
    let after_address = authority.rfind(']').unwrap_or(0);
    let colon = authority.rfind(':').filter(|at| *at > after_address);
    let Some((host, port)) = colon.and_then(|at| authority.split_at_checked(at)) else {
        return Ok(authority);
    };
    let digits = port.strip_prefix(':').unwrap_or(port);
    let plain = digits.bytes().all(|b| b.is_ascii_digit()) && !digits.starts_with('0');
    if !plain || digits.parse::<u16>().is_err() {
        return Err(WebError::Port);
    }
    Ok(host)
}

/// A dot never needs encoding; who encodes one wants two readers to disagree.
fn check_path(rest: &str) -> Result<(), WebError> {
    let path = rest.split(['?', '#']).next().unwrap_or_default();
    if path.to_ascii_lowercase().contains("%2e") {
        return Err(WebError::EncodedDot);
    }
    Ok(())
}

fn is_domain(name: &str) -> bool {
    let label = |l: &str| {
        (1..=63).contains(&l.len())
            && l.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(label)
}

/// A method that can be bought with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Method {
    /// `GET`
    Get,
    /// `HEAD`
    Head,
    /// `POST`
    Post,
    /// `PUT`
    Put,
    /// `PATCH`
    Patch,
    /// `DELETE`
    Delete,
    /// `OPTIONS`
    Options,
}

impl Method {
    const ALL: [Self; 7] = [Self::Get, Self::Head, Self::Post, Self::Put, Self::Patch, Self::Delete, Self::Options];

    /// Reads a method in either case.
    ///
    /// # Errors
    /// [`WebError::Method`] for any other.
    pub fn parse(text: &str) -> Result<Self, WebError> {
        let same = |m: &Self| m.as_str().eq_ignore_ascii_case(text);
        Self::ALL.into_iter().find(same).ok_or(WebError::Method)
    }

    /// In upper case.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
            Self::Options => "OPTIONS",
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// They belong to one connection, not to the message.
const HOP_BY_HOP: [&str; 9] = [
    "connection",
    "http2-settings",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "trailers",
    "transfer-encoding",
    "upgrade",
];

/// Offers, proofs and receipts of every rail: the gateway's business alone.
const PAYMENT: [&str; 8] = [
    "payment-authorization",
    "payment-receipt",
    "payment-required",
    "payment-response",
    "payment-signature",
    "sign-in-with-x",
    "x-payment",
    "x-payment-response",
];

/// They make a seller or a proxy see another host, client, URL, method or length.
const MASQUERADE: [&str; 17] = [
    "cf-connecting-ip",
    "content-length",
    "expect",
    "forwarded",
    "host",
    "true-client-ip",
    "via",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-host",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-original-host",
    "x-original-url",
    "x-real-ip",
    "x-rewrite-url",
];

/// Whether a header belongs to one connection, not to the message.
#[must_use]
pub fn is_hop_by_hop(name: &str) -> bool {
    HOP_BY_HOP.contains(&name.to_ascii_lowercase().as_str())
}

fn ours(name: &str) -> bool {
    name.starts_with("countersign-") || name.starts_with("proxy-")
}

/// Whether an agent may not set this header on a request to a seller. Anything that is not a
/// header name is forbidden too.
#[must_use]
pub fn forbidden_request_header(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let token = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b));
    !token
        || HOP_BY_HOP.contains(&name.as_str())
        || PAYMENT.contains(&name.as_str())
        || MASQUERADE.contains(&name.as_str())
        || name.starts_with("x-forwarded-")
        || ours(&name)
}

/// What follows the scheme `Payment` in each of the values that a header lists; readers differ in what they take for a
/// blank, so whatever is no letter or sign before it counts as one.
fn after_payment(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|b| *b == b',').filter_map(|part| {
        let start = part.iter().position(u8::is_ascii_graphic)?;
        let (scheme, rest) = part.get(start..)?.split_at_checked(7)?;
        let ends = rest.first().is_none_or(|b| !b.is_ascii_alphanumeric());
        (scheme.eq_ignore_ascii_case(b"payment") && ends).then_some(rest)
    })
}

/// Whether an `Authorization` value is a payment (scheme `Payment`), which only the gateway makes.
/// Any other credential is the agent's own and may go to the seller.
#[must_use]
pub fn is_payment_authorization(value: &[u8]) -> bool {
    after_payment(value).next().is_some()
}

/// Whether a header of an agent's carries a payment: sellers look for one in others than `Authorization`, too. There it is
/// the scheme and one long word, and not any sentence about payments.
#[must_use]
pub fn carries_payment(name: &str, value: &[u8]) -> bool {
    const SHORTEST: usize = 16;
    if name.eq_ignore_ascii_case("authorization") {
        return is_payment_authorization(value);
    }
    after_payment(value).any(|rest| {
        let word = rest.trim_ascii();
        word.len() >= SHORTEST && word.iter().all(u8::is_ascii_graphic)
    })
}

/// Whether a seller's header never reaches the agent: it belongs to the connection, to the
/// payment, or pretends to be ours. `Alt-Svc` would lead the agent's client around the gateway.
#[must_use]
pub fn dropped_response_header(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    HOP_BY_HOP.contains(&name.as_str()) || PAYMENT.contains(&name.as_str()) || name == "alt-svc" || ours(&name)
}

/// Where the gateway may connect without being told so.
pub mod egress {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    /// IPv4 ranges that are not the public internet, as (network, prefix length).
    const NOT_GLOBAL_V4: [([u8; 4], u32); 16] = [
        ([0, 0, 0, 0], 8),        // this network
        ([10, 0, 0, 0], 8),       // private
        ([100, 64, 0, 0], 10),    // carrier-grade NAT
        ([127, 0, 0, 0], 8),      // loopback
        ([168, 63, 129, 16], 32), // Azure's host endpoint: a public number, answered locally
        ([169, 254, 0, 0], 16),   // link-local, cloud metadata
        ([172, 16, 0, 0], 12),    // private
        ([192, 0, 0, 0], 24),     // protocol assignments
        ([192, 0, 2, 0], 24),     // documentation
        ([192, 88, 99, 0], 24),   // 6to4 relays
        ([192, 168, 0, 0], 16),   // private
        ([198, 18, 0, 0], 15),    // benchmarking
        ([198, 51, 100, 0], 24),  // documentation
        ([203, 0, 113, 0], 24),   // documentation
        ([224, 0, 0, 0], 4),      // multicast
        ([240, 0, 0, 0], 4),      // reserved, broadcast
    ];

    /// IPv6 ranges inside 2000::/3 that are not the public internet. Everything outside 2000::/3
    /// (unspecified, loopback, mapped, compatible, NAT64, discard, unique local, link-local,
    /// site-local, multicast) is refused without a list.
    const NOT_GLOBAL_V6: [([u16; 8], u32); 4] = [
        ([0x2001, 0, 0, 0, 0, 0, 0, 0], 23),      // protocol assignments, Teredo
        ([0x2001, 0x0db8, 0, 0, 0, 0, 0, 0], 32), // documentation
        ([0x2002, 0, 0, 0, 0, 0, 0, 0], 16),      // 6to4: an IPv4 address in disguise
        ([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20),      // documentation
    ];

    const GLOBAL_V6: ([u16; 8], u32) = ([0x2000, 0, 0, 0, 0, 0, 0, 0], 3);

    /// Whether an address is on the public internet. An IPv6 address that carries an IPv4 one is
    /// not, whatever it carries.
    #[must_use]
    pub fn is_global(ip: IpAddr) -> bool {
        match ip {
            IpAddr::V4(ip) => !NOT_GLOBAL_V4.iter().any(|range| v4_in(ip, *range)),
            IpAddr::V6(ip) => v6_in(ip, GLOBAL_V6) && !NOT_GLOBAL_V6.iter().any(|range| v6_in(ip, *range)),
        }
    }

    fn v4_in(ip: Ipv4Addr, (network, prefix): ([u8; 4], u32)) -> bool {
        let differ = ip.to_bits() ^ Ipv4Addr::from(network).to_bits();
        differ.leading_zeros() >= prefix
    }

    fn v6_in(ip: Ipv6Addr, (network, prefix): ([u16; 8], u32)) -> bool {
        let differ = ip.to_bits() ^ Ipv6Addr::from(network).to_bits();
        differ.leading_zeros() >= prefix
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn one_normal_form() {
        let check = |text: &str, url: &str, host: &str| {
            let target = Target::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!((target.url().as_str(), target.host().as_str()), (url, host));
            assert_eq!(Target::parse(url).as_ref(), Ok(&target), "{url}");
        };
        check("https://example.com", "https://example.com/", "example.com");
        check("HTTPS://EXAMPLE.com:443/a?b#c", "https://example.com/a?b", "example.com");
        check("http://example.com:80/", "http://example.com/", "example.com");
        check("http://example.com:8080?", "http://example.com:8080/?", "example.com:8080");
        check("https://bücher.example/ä", "https://xn--bcher-kva.example/%C3%A4", "xn--bcher-kva.example");
        check("https://a.example/x/../y/./z", "https://a.example/y/z", "a.example");
        check("http://127.0.0.1:40201/cheap", "http://127.0.0.1:40201/cheap", "127.0.0.1:40201");
        check("http://[0:0::1]:8080/", "http://[::1]:8080/", "[::1]:8080");
        check("https://a_b.example/%2Fok%41", "https://a_b.example/%2Fok%41", "a_b.example");
        check("https://a.example/?u=http://b@c\u{e9}", "https://a.example/?u=http://b@c%C3%A9", "a.example");
    }

    #[test]
    fn parts() {
        let target = Target::parse("https://[2606:4700::1]:8443/p/q?x=1&y#z").unwrap();
        assert_eq!(target.hostname(), "2606:4700::1");
        assert_eq!(target.ip(), "2606:4700::1".parse().ok());
        assert_eq!((target.scheme().as_str(), target.port()), ("https", 8443));
        assert_eq!((target.path(), target.query()), ("/p/q", Some("x=1&y")));
        assert_eq!(target.origin(), "https://[2606:4700::1]:8443");
        assert_eq!(target.host_header(), "[2606:4700::1]:8443");
        assert_eq!(target.path_and_query(), "/p/q?x=1&y");
        assert_eq!(target.url_without_query(), "https://[2606:4700::1]:8443/p/q");
        assert_eq!(target.to_string(), "https://[2606:4700::1]:8443/p/q");
    }

    #[test]
    fn origins() {
        let same = |a: &str, b: &str| Target::parse(a).unwrap().same_origin(&Target::parse(b).unwrap());
        assert!(same("https://a.example/x", "https://A.example:443/y?z"));
        assert!(!same("https://a.example/", "http://a.example/"));
        assert!(!same("https://a.example/", "https://a.example:8443/"));
        assert!(!same("https://a.example/", "https://b.a.example/"));
        assert!(!same("http://127.0.0.1/", "http://[::1]/"));
    }

    #[test]
    fn refuses_what_two_readers_read_differently() {
        let check = |want: WebError, texts: &[&str]| {
            for text in texts {
                assert_eq!(Target::parse(text), Err(want), "{text:?}");
            }
        };
        check(
            WebError::Scheme,
            &[
                "",
                "example.com",
                "/path",
                "//example.com/",
                "ftp://example.com/",
                "file:///etc/passwd",
                "http:/example.com",
                "http:example.com",
                "mcp://tool/x",
                "javascript:alert(1)",
                "httpx://a",
                "unix://socket",
            ],
        );
        check(
            WebError::UserInfo,
            &[
                "https://user@example.com/",
                "https://user:pass@example.com/",
                "https://@example.com/",
                "https://good.example@evil.example/",
                "https://:@example.com",
            ],
        );
        check(
            WebError::ForbiddenCharacter,
            &[
                " https://example.com/",
                "https://example.com/ ",
                "https://exa mple.com/",
                "https://example.com/\r\nHost: b",
                "https://exam\tple.com/",
                "https://example.com/\0",
                "https:\\\\example.com",
                "https://evil.example\\@good.example/",
                "https://a/\u{a0}",
                "https://a/\u{7f}",
                "https://a/\u{2028}",
            ],
        );
        check(
            WebError::Host,
            &[
                "https://",
                "https:///path",
                "https://?x",
                "https://.",
                "https://example.com./",
                "https://example.com.:443/",
                "https://.example.com/",
                "https://a..b/",
                "https://%65xample.com/",
                "https://127.0.0.1%2f/",
                "https://[::1",
                "https://[fe80::1%25eth0]/",
                "https://-a.example/",
                "https://a-.example/",
                "https://a$b.example/",
                "https://*.example/",
                "https://[::1]x/",
                "https://[127.0.0.1]/",
                "https://xn--/",
                "https://a,b/",
            ],
        );
        check(
            WebError::Ipv4Spelling,
            &[
                "https://127.0.0.1./",
                "http://127.1/",
                "http://2130706433/",
                "http://0x7f000001/",
                "http://0x7f.0.0.1/",
                "http://0177.0.0.1/",
                "http://127.0.0.01/",
                "http://１２７.0.0.1/",
                "http://127。0。0。1/",
                "http://0/",
                "http://127.0.1:80/",
            ],
        );
        check(
            WebError::Port,
            &[
                "https://example.com:/",
                "https://example.com:0/",
                "https://example.com:0443/",
                "https://example.com:65536/",
                "https://example.com:+80/",
                "https://example.com:8o/",
                "https://[::1]:/",
            ],
        );
        check(
            WebError::EncodedDot,
            &[
                "https://example.com/%2e%2e/admin",
                "https://example.com/a/%2E/b",
                "https://example.com/.%2e/b",
                "https://example.com/x%2ejson",
            ],
        );
        assert!(Target::parse("https://::1/").is_err());
        assert!(Target::parse("https://example.com/?q=%2e%2e").is_ok());
        let long = format!("https://example.com/{}", "a".repeat(MAX_URL));
        assert_eq!(Target::parse(&long), Err(WebError::TooLong));
        let encoded = format!("https://example.com/{}", ">".repeat(MAX_URL / 2));
        assert_eq!(Target::parse(&encoded), Err(WebError::TooLong));
        let label = format!("https://{}.example/", "a".repeat(64));
        assert_eq!(Target::parse(&label), Err(WebError::Host));
    }

    #[test]
    fn methods() {
        for text in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
            assert_eq!(Method::parse(text).map(|m| m.to_string()).as_deref(), Ok(text));
        }
        assert_eq!(Method::parse("post"), Ok(Method::Post));
        for bad in ["", "CONNECT", "TRACE", "GET ", "G\u{0395}T", "GET\r\n", "PROPFIND", "ＧＥＴ"] {
            assert_eq!(Method::parse(bad), Err(WebError::Method), "{bad:?}");
        }
    }

    #[test]
    fn headers_an_agent_may_not_set() {
        for name in [
            "Host",
            "connection",
            "Keep-Alive",
            "TE",
            "Trailer",
            "Transfer-Encoding",
            "Upgrade",
            "HTTP2-Settings",
            "Content-Length",
            "Expect",
            "Via",
            "Forwarded",
            "X-Forwarded-For",
            "x-forwarded-host",
            "X-Forwarded-Anything",
            "X-Real-IP",
            "X-HTTP-Method-Override",
            "X-HTTP-Method",
            "X-Method-Override",
            "X-Original-URL",
            "Payment-Signature",
            "X-PAYMENT",
            "PAYMENT-REQUIRED",
            "payment-response",
            "x-payment-response",
            "Payment-Receipt",
            "SIGN-IN-WITH-X",
            "Proxy-Authorization",
            "proxy-anything",
            "Countersign-Purchase",
            "countersign-x",
            "",
            "a b",
            "a:b",
            ":path",
            "a\r\nb",
            "ü",
        ] {
            assert!(forbidden_request_header(name), "{name:?}");
        }
        for name in ["Accept", "authorization", "Content-Type", "Cookie", "User-Agent", "X-Api-Key", "x-pay"] {
            assert!(!forbidden_request_header(name), "{name:?}");
        }
    }

    #[test]
    fn an_agents_own_credentials_pass_and_payments_do_not() {
        for value in ["Payment eyJ", "payment eyJ", "PAYMENT", " Payment x", "Basic YQ, Payment x", "Payment\tx"] {
            assert!(is_payment_authorization(value.as_bytes()), "{value:?}");
            assert!(carries_payment("Authorization", value.as_bytes()), "{value:?}");
        }
        assert!(is_payment_authorization(b"\xa0Payment x"), "some readers take this for a blank");
        for value in ["Payment eyJjaGFsbGVuZ2UiOnt9", "a, payment  eyJjaGFsbGVuZ2UiOnt9 "] {
            assert!(carries_payment("x-note", value.as_bytes()), "{value:?}");
        }
        for value in ["Payment for order 7 of today", "payment", "Payment eyJ", "prepayment eyJjaGFsbGVuZ2UiOnt9"] {
            assert!(!carries_payment("x-note", value.as_bytes()), "{value:?}");
        }
        assert!(forbidden_request_header("Payment-Authorization"));
        for value in ["Bearer payment", "Basic UGF5bWVudCA", "Paymentish x", ""] {
            assert!(!is_payment_authorization(value.as_bytes()), "{value:?}");
        }
    }

    #[test]
    fn headers_of_a_seller_that_stop_here() {
        for name in [
            "Countersign-Source",
            "PAYMENT-REQUIRED",
            "Payment-Response",
            "X-PAYMENT-RESPONSE",
            "payment-receipt",
            "Connection",
            "Transfer-Encoding",
            "Upgrade",
            "Keep-Alive",
            "Proxy-Authenticate",
            "Alt-Svc",
        ] {
            assert!(dropped_response_header(name), "{name}");
        }
        for name in ["Content-Type", "ETag", "Location", "Set-Cookie", "WWW-Authenticate", "X-Custom"] {
            assert!(!dropped_response_header(name), "{name}");
        }
    }

    #[test]
    fn only_the_public_internet_is_global() {
        let check = |global: bool, addresses: &[&str]| {
            for text in addresses {
                let ip = text.parse().unwrap();
                assert_eq!(egress::is_global(ip), global, "{text}");
            }
        };
        check(
            true,
            &[
                "1.1.1.1",
                "8.8.8.8",
                "9.255.255.255",
                "11.0.0.0",
                "100.63.255.255",
                "100.128.0.0",
                "126.255.255.255",
                "128.0.0.1",
                "169.253.255.255",
                "169.255.0.0",
                "172.15.255.255",
                "172.32.0.0",
                "192.0.1.0",
                "192.167.255.255",
                "192.169.0.0",
                "198.17.255.255",
                "198.20.0.0",
                "223.255.255.255",
                "168.63.129.15",
                "2606:4700:4700::1111",
                "2001:4860:4860::8888",
                "2001:200::1",
                "2a00::1",
                "2003::",
                "2001:db7::",
                "2001:db9::",
                "3ffe::1",
            ],
        );
        check(
            false,
            &[
                "0.0.0.0",
                "0.255.255.255",
                "10.0.0.1",
                "10.255.255.255",
                "100.64.0.0",
                "100.127.255.255",
                "127.0.0.1",
                "127.255.255.255",
                "169.254.169.254",
                "172.16.0.1",
                "172.31.255.255",
                "192.0.0.1",
                "192.0.0.192",
                "192.0.2.1",
                "192.88.99.1",
                "192.168.0.1",
                "198.18.0.0",
                "198.19.255.255",
                "198.51.100.9",
                "203.0.113.9",
                "224.0.0.1",
                "239.255.255.255",
                "240.0.0.1",
                "255.255.255.255",
                "168.63.129.16",
                "::",
                "::1",
                "::127.0.0.1",
                "::8.8.8.8",
                "::ffff:127.0.0.1",
                "::ffff:8.8.8.8",
                "::ffff:0:8.8.8.8",
                "64:ff9b::7f00:1",
                "64:ff9b::808:808",
                "64:ff9b:1::1",
                "100::1",
                "2001::1",
                "2001:0:1:2::",
                "2001:1ff::1",
                "2001:20::1",
                "2001:db8::1",
                "2002:7f00:1::",
                "2002:808:808::1",
                "3fff::1",
                "3fff:fff::1",
                "4000::1",
                "5f00::1",
                "fc00::1",
                "fd12:3456::1",
                "fe80::1",
                "febf::1",
                "fec0::1",
                "feff::1",
                "ff02::1",
                "fd00:ec2::254",
            ],
        );
    }

    proptest! {
        #[test]
        fn a_url_never_panics_and_is_stable(text in r"(https?://)?[a-zA-Z0-9.:@/\[\]%#?&ü１\\\- ]{0,40}") {
            if let Ok(target) = Target::parse(&text) {
                prop_assert_eq!(Target::parse(&target.url()), Ok(target.clone()));
                prop_assert!(target.url().is_ascii());
                prop_assert!(target.path().starts_with('/'));
            }
        }
    }
}
