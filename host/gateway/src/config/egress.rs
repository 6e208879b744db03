//! Where the gateway may connect beyond the public internet.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use super::reader::{Item, Read, Table};

/// Least and most that `answer-timeout` may be, in milliseconds.
const SHORTEST_ANSWER_MS: u64 = 1_000;
const LONGEST_ANSWER_MS: u64 = 900_000;

/// `[egress]`: exceptions to "public addresses only, ports 80 and 443 only".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Egress {
    /// Private, loopback and link-local places that may be reached all the same, and the only ones
    /// that may be paid over plain http.
    pub allow_private: Vec<Allowed>,
    /// Ports that may be reached besides 80 and 443, at any allowed address.
    pub ports: Vec<u16>,
    /// Certificates in PEM that sellers' are believed by, besides Mozilla's.
    pub roots: Option<PathBuf>,
    /// How long a seller may take until its answer begins, in milliseconds, if the file says so.
    pub answer_ms: Option<u64>,
}

impl Egress {
    pub(super) const KEYS: &'static [&'static str] = &["allow-private", "ports", "roots", "answer-timeout"];

    pub(super) fn read(table: Option<Table<'_>>) -> Read<Self> {
        let Some(mut table) = table else { return Ok(Self::default()) };
        let mut egress = Self::default();
        if let Some(item) = table.take("allow-private") {
            egress.allow_private = item.list()?.iter().map(Allowed::read).collect::<Read<_>>()?;
        }
        if let Some(item) = table.take("ports") {
            let port = |item: &Item<'_>| item.integer(1..=65_535).map(|n| u16::try_from(n).unwrap_or(u16::MAX));
            egress.ports = item.list()?.iter().map(port).collect::<Read<_>>()?;
        }
        egress.roots = table.take("roots").map(|item| item.path()).transpose()?;
        if let Some(item) = table.take("answer-timeout") {
            let millis = item.millis()?;
            if !(SHORTEST_ANSWER_MS..=LONGEST_ANSWER_MS).contains(&millis) {
                return Err(item.error("expected \"1s\" to \"15m\""));
            }
            egress.answer_ms = Some(millis);
        }
        Ok(egress)
    }

    /// Whether the file names this place: `host` is what was asked for (a lower-case A-label or an
    /// address), `ip` what will be dialled.
    ///
    /// For a public address the answer is usually no, and not needed.
    #[must_use]
    pub fn allows(&self, host: &str, ip: IpAddr, port: u16) -> bool {
        self.allow_private.iter().any(|allowed| allowed.matches(host, ip, port))
    }

    /// Whether this port may be reached there: 80, 443, one of `ports`, or one that an entry of
    /// `allow-private` names for this very place.
    #[must_use]
    pub fn allows_port(&self, host: &str, ip: IpAddr, port: u16) -> bool {
        let named = |allowed: &Allowed| allowed.port.is_some() && allowed.matches(host, ip, port);
        matches!(port, 80 | 443) || self.ports.contains(&port) || self.allow_private.iter().any(named)
    }

    /// What both allow.
    #[must_use]
    pub(super) fn intersect(&self, other: &Self) -> Self {
        let covered = |one: &Allowed, by: &[Allowed]| by.iter().any(|all| all.covers(one));
        let mut allow_private: Vec<Allowed> = Vec::new();
        let ours = self.allow_private.iter().filter(|one| covered(one, &other.allow_private));
        let theirs = other.allow_private.iter().filter(|one| covered(one, &self.allow_private));
        for one in ours.chain(theirs) {
            if !allow_private.contains(one) {
                allow_private.push(one.clone());
            }
        }
        let ports = self.ports.iter().copied().filter(|port| other.ports.contains(port)).collect();
        Self { allow_private, ports, roots: self.roots.clone(), answer_ms: self.answer_ms }
    }
}

/// One entry of `allow-private`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowed {
    /// Which machines.
    pub place: Place,
    /// Which port; none: whichever ports are allowed anyway.
    pub port: Option<u16>,
}

/// Which machines an entry means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Whatever this name resolves to.
    Host(String),
    /// Every address of which the first `prefix` bits are these.
    Range {
        /// The first address.
        network: IpAddr,
        /// How many bits count.
        prefix: u8,
    },
}

impl Allowed {
    /// Reads `127.0.0.1:40201`, `[::1]:80`, `10.0.0.0/8`, `10.0.0.7`, `db.internal:443`, `db.internal`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if let Ok(socket) = text.parse::<SocketAddr>() {
            return (socket.port() != 0).then(|| Self { place: Place::one(socket.ip()), port: Some(socket.port()) });
        }
        if let Some((network, prefix)) = text.split_once('/') {
            let place = Place::range(network.parse().ok()?, prefix.parse().ok()?)?;
            return Some(Self { place, port: None });
        }
        if let Ok(ip) = text.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            return Some(Self { place: Place::one(ip), port: None });
        }
        let (host, port) = match text.split_once(':') {
            Some((host, port)) => (host, Some(parse_port(port)?)),
            None => (text, None),
        };
        Some(Self { place: Place::Host(host_name(host)?), port })
    }

    fn read(item: &Item<'_>) -> Read<Self> {
        let text = item.str()?;
        Self::parse(text).ok_or_else(|| {
            let hint = "write `127.0.0.1:8080`, `10.0.0.7`, `10.0.0.0/8`, `[::1]:8080` or `db.internal:443`";
            item.error(format!("{text:?} is not a place")).hint(hint)
        })
    }

    fn matches(&self, host: &str, ip: IpAddr, port: u16) -> bool {
        let there = match &self.place {
            Place::Host(name) => name == host,
            Place::Range { network, prefix } => in_range(canonical(ip), *network, *prefix),
        };
        there && self.port.is_none_or(|named| named == port)
    }

    /// Whether everything `other` allows is allowed by this.
    fn covers(&self, other: &Self) -> bool {
        let place = match (&self.place, &other.place) {
            (Place::Range { network, prefix }, Place::Range { network: inner, prefix: longer }) => {
                longer >= prefix && in_range(*inner, *network, *prefix)
            }
            (ours, theirs) => ours == theirs,
        };
        // An entry with a port also opens that port, so one without does not cover it.
        place && self.port == other.port
    }
}

impl fmt::Display for Allowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.place, self.port) {
            (Place::Host(name), None) => f.write_str(name),
            (Place::Host(name), Some(port)) => write!(f, "{name}:{port}"),
            (Place::Range { network, .. }, Some(port)) => write!(f, "{}", SocketAddr::new(*network, port)),
            (Place::Range { network, prefix }, None) => write!(f, "{network}/{prefix}"),
        }
    }
}

impl Place {
    fn one(ip: IpAddr) -> Self {
        let ip = canonical(ip);
        let prefix = if ip.is_ipv4() { 32 } else { 128 };
        Self::Range { network: ip, prefix }
    }

    /// None when the prefix is too long or bits behind it are set: a typo, not a range.
    fn range(network: IpAddr, prefix: u8) -> Option<Self> {
        let (_, width) = bits(network);
        let first = mask(bits(network).0, width, prefix)?;
        (first == bits(network).0).then_some(Self::Range { network, prefix })
    }
}

/// An IPv4 address however it is dressed.
fn canonical(ip: IpAddr) -> IpAddr {
    ip.to_canonical()
}

fn in_range(ip: IpAddr, network: IpAddr, prefix: u8) -> bool {
    let ((ip, ours), (network, theirs)) = (bits(ip), bits(network));
    ours == theirs && mask(ip, ours, prefix).is_some_and(|masked| masked == network)
}

/// The address as a number, and how many bits it has.
fn bits(ip: IpAddr) -> (u128, u32) {
    match ip {
        IpAddr::V4(v4) => (u128::from(v4.to_bits()), 32),
        IpAddr::V6(v6) => (Ipv6Addr::to_bits(v6), 128),
    }
}

fn mask(bits: u128, width: u32, prefix: u8) -> Option<u128> {
    let dropped = width.checked_sub(u32::from(prefix))?;
    // All bits dropped is a shift by the whole width, which `checked_shl` refuses.
    Some(bits & u128::MAX.checked_shl(dropped).unwrap_or(0))
}

/// A port without signs, blanks or leading zeros.
fn parse_port(text: &str) -> Option<u16> {
    let port: u16 = text.parse().ok()?;
    (port != 0 && port.to_string() == text).then_some(port)
}

/// A host name in its one form: lower-case A-labels, without a final dot. No addresses.
fn host_name(text: &str) -> Option<String> {
    let url::Host::Domain(name) = url::Host::parse(text).ok()? else { return None };
    // The URL standard lets names have stars and empty labels.
    let label =
        |label: &str| !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    name.split('.').all(label).then_some(name)
}

/// A pattern for hosts: `api.example`, `*.example` (one or more labels under it), with `:443` for
/// that port, `:*` for any, and nothing for the scheme's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPattern {
    /// The name, or what it must end in.
    pub host: String,
    /// Whether it stands for everything under `host` instead of `host` itself.
    pub below: bool,
    /// Which port.
    pub port: PortPattern,
}

/// Which port a pattern means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortPattern {
    /// The one that goes without saying.
    Default,
    /// This one.
    Only(u16),
    /// Every one.
    Any,
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let below = if self.below { "*." } else { "" };
        write!(f, "{below}{}", self.host)?;
        match self.port {
            PortPattern::Default => Ok(()),
            PortPattern::Only(port) => write!(f, ":{port}"),
            PortPattern::Any => f.write_str(":*"),
        }
    }
}

impl HostPattern {
    /// Reads a pattern.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let bracketed = text.strip_prefix('[').and_then(|rest| rest.split_once(']'));
        let (host, port) = match bracketed {
            Some((ip, rest)) => (Some(ip.parse::<Ipv6Addr>().ok()?.to_string()), rest.strip_prefix(':')),
            None => (None, text.split_once(':').map(|(_, port)| port)),
        };
        let written = text.split_once(':').map_or(text, |(host, _)| host);
        let (below, host) = match (host, written.strip_prefix("*.")) {
            (Some(ip), _) => (false, ip),
            (None, Some(name)) => (true, host_name(name)?),
            (None, None) => {
                (false, written.parse::<IpAddr>().map(|ip| ip.to_string()).ok().or_else(|| host_name(written))?)
            }
        };
        let port = match port {
            None => PortPattern::Default,
            Some("*") => PortPattern::Any,
            Some(port) => PortPattern::Only(parse_port(port)?),
        };
        Some(Self { host, below, port })
    }

    pub(super) fn read(item: &Item<'_>) -> Read<Self> {
        let text = item.str()?;
        let hint = "write `api.example.com`, `*.example.com`, `api.example.com:8443` or `api.example.com:*`";
        Self::parse(text).ok_or_else(|| item.error(format!("{text:?} is not a host pattern")).hint(hint))
    }

    /// Whether `host` (lower-case, without port) at `port` is meant, for a scheme whose own port is
    /// `default`.
    #[must_use]
    pub fn matches(&self, host: &str, port: u16, default: u16) -> bool {
        let named = if self.below {
            host.strip_suffix(self.host.as_str()).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
        } else {
            host == self.host
        };
        named
            && match self.port {
                PortPattern::Default => port == default,
                PortPattern::Only(only) => port == only,
                PortPattern::Any => true,
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn egress(entries: &[&str], ports: &[u16]) -> Egress {
        let allow_private = entries.iter().map(|e| Allowed::parse(e).unwrap()).collect();
        Egress { allow_private, ports: ports.to_vec(), ..Egress::default() }
    }

    #[test]
    fn entries_are_read_strictly() {
        let check = |text: &str, want: Option<&str>| {
            assert_eq!(Allowed::parse(text).map(|a| a.to_string()).as_deref(), want, "{text:?}");
        };
        check("127.0.0.1:40201", Some("127.0.0.1:40201"));
        check("10.0.0.7", Some("10.0.0.7/32"));
        check("10.0.0.0/8", Some("10.0.0.0/8"));
        check("0.0.0.0/0", Some("0.0.0.0/0"));
        check("::1", Some("::1/128"));
        check("[::1]", Some("::1/128"));
        check("[::1]:80", Some("[::1]:80"));
        check("fd00::/8", Some("fd00::/8"));
        check("::ffff:10.0.0.7", Some("10.0.0.7/32"));
        check("DB.Internal:443", Some("db.internal:443"));
        check("localhost", Some("localhost"));
        check("bücher.example", Some("xn--bcher-kva.example"));
        for bad in [
            "",
            "10.0.0.1/8",
            "10.0.0.0/33",
            "fd00::/129",
            "10.0.0.0/8:80",
            "host:0",
            "host:99999",
            "host:08",
            "host:",
            "http://host",
            "a b",
            "host.",
            "*.internal",
            "127.1",
            "0x7f.1",
            "127.0.0.1:0",
            "u@host",
            "a..b",
            ".a",
        ] {
            check(bad, None);
        }
    }

    #[test]
    fn only_what_is_listed_is_allowed() {
        let e = egress(&["127.0.0.1:40201", "10.1.0.0/16", "db.internal:5000", "seller.internal"], &[8443]);
        let check = |host: &str, ip: &str, port: u16, allowed: bool, port_ok: bool| {
            let ip = ip.parse().unwrap();
            assert_eq!(
                (e.allows(host, ip, port), e.allows_port(host, ip, port)),
                (allowed, port_ok),
                "{host} {ip} {port}"
            );
        };
        check("127.0.0.1", "127.0.0.1", 40201, true, true);
        check("localhost", "127.0.0.1", 40201, true, true);
        check("localhost", "::ffff:127.0.0.1", 40201, true, true);
        check("127.0.0.1", "127.0.0.1", 40202, false, false);
        check("127.0.0.1", "127.0.0.1", 443, false, true);
        check("127.0.0.2", "127.0.0.2", 40201, false, false);
        check("x.example", "10.1.255.1", 443, true, true);
        check("x.example", "10.1.255.1", 8443, true, true);
        check("x.example", "10.1.255.1", 8444, true, false);
        check("x.example", "10.2.0.1", 443, false, true);
        check("db.internal", "192.168.0.9", 5000, true, true);
        check("other.internal", "192.168.0.9", 5000, false, false);
        check("seller.internal", "192.168.0.9", 443, true, true);
        check("seller.internal", "::1", 443, true, true);
        check("seller.internal.evil.example", "192.168.0.9", 443, false, true);
    }

    #[test]
    fn an_intersection_allows_nothing_either_refuses() {
        let check = |a: &[&str], b: &[&str], want: &[&str]| {
            let got = egress(a, &[1, 2]).intersect(&egress(b, &[2, 3]));
            let shown: Vec<String> = got.allow_private.iter().map(ToString::to_string).collect();
            assert_eq!(shown, want, "{a:?} {b:?}");
            assert_eq!(got.ports, [2]);
        };
        check(&["10.0.0.7", "localhost:1"], &["10.0.0.7"], &["10.0.0.7/32"]);
        check(&["10.0.0.0/8"], &["10.1.0.0/16", "11.0.0.0/8"], &["10.1.0.0/16"]);
        check(&["10.1.0.0/16"], &["10.0.0.0/8"], &["10.1.0.0/16"]);
        check(&["10.0.0.7:80"], &["10.0.0.7"], &[]);
        check(&["a"], &[], &[]);
    }

    #[test]
    fn host_patterns_match_whole_labels() {
        let check = |pattern: &str, host: &str, port: u16, want: bool| {
            assert_eq!(HostPattern::parse(pattern).unwrap().matches(host, port, 443), want, "{pattern} {host} {port}");
        };
        check("api.example", "api.example", 443, true);
        check("api.example", "api.example", 8443, false);
        check("api.example:8443", "api.example", 8443, true);
        check("api.example:8443", "api.example", 443, false);
        check("api.example:*", "api.example", 9, true);
        check("*.example", "api.example", 443, true);
        check("*.example", "a.b.example", 443, true);
        check("*.example", "example", 443, false);
        check("*.example", ".example", 443, false);
        check("*.example", "badexample", 443, false);
        check("127.0.0.1:*", "127.0.0.1", 40201, true);
        check("[::1]:443", "::1", 443, true);
        for bad in ["", "*", "*.", "a.*.b", "host:", "host:x", "[::1", "http://a", "a/b"] {
            assert_eq!(HostPattern::parse(bad), None, "{bad:?}");
        }
    }
}
