//! `core::web`: one spelling of a URL, and nobody else's reading of it.

use countersign_core::web::{Method, Scheme, Target};

pub(crate) fn check(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match Target::parse(text) {
        Ok(target) => {
            normal(&target);
            spelled(&target, text);
        }
        Err(error) => assert!(!error.code().is_empty() && !error.to_string().is_empty()),
    }
    if let Ok(target) = Target::connect(text) {
        normal(&target);
        spelled(&target, &format!("//{text}"));
        assert_eq!((target.scheme(), target.path_and_query()), (Scheme::Https, "/".to_owned()));
        assert_eq!(Target::connect(&format!("{}:{}", bare_host(&target), target.port())), Ok(target));
    }
    if let Ok(method) = Method::parse(text) {
        assert!(method.as_str().eq_ignore_ascii_case(text));
    }
}

/// An address was written as one: who reads `127.1` or `0x7f.0.0.1` as a name would go elsewhere.
fn spelled(target: &Target, text: &str) {
    if let Some(std::net::IpAddr::V4(ip)) = target.ip() {
        assert!(text.contains(&format!("//{ip}")), "{text} is not how {ip} is written");
    }
}

fn bare_host(target: &Target) -> String {
    let (host, port) = (target.host(), format!(":{}", target.port()));
    host.strip_suffix(&port).map_or(host.clone(), str::to_owned)
}

/// What an accepted URL promises.
pub(crate) fn normal(target: &Target) {
    let url = target.url();
    assert_eq!(Target::parse(&url).as_ref(), Ok(target), "what was read is read again as the same");
    assert!(url.is_ascii() && !url.contains(|c: char| c.is_ascii_control() || " \\#<>\"".contains(c)), "{url}");
    assert!(url.starts_with(&target.origin()) && target.path().starts_with('/'));
    assert!(!target.origin().contains('@') && target.port() != 0);
    assert!(target.path().split('/').all(|part| !is_dots(part)), "{url}");

    let host = target.hostname();
    match target.ip() {
        Some(ip) => assert_eq!(host, ip.to_string()),
        None => {
            assert!((1..=253).contains(&host.len()) && host.split('.').all(is_label), "{host}");
            assert!(host.parse::<std::net::IpAddr>().is_err(), "an address that is not known to be one");
            // Whoever resolves `0x7f.1` or `2130706433` would reach an address that nobody has judged.
            let last = host.rsplit('.').next().unwrap();
            assert!(!last.bytes().all(|b| b.is_ascii_digit()) && !is_hexadecimal(last), "{host}");
        }
    }
    let without = target.url_without_query();
    assert!(!without.contains('?'), "{without}");
    assert_eq!(target.to_string(), without);
}

fn is_label(label: &str) -> bool {
    let known = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
    (1..=63).contains(&label.len()) && label.bytes().all(known)
}

fn is_hexadecimal(label: &str) -> bool {
    label.strip_prefix("0x").is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))
}

fn is_dots(part: &str) -> bool {
    let part = part.to_ascii_lowercase().replace("%2e", ".");
    part == "." || part == ".."
}
