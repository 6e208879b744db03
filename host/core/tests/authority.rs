//! What a `CONNECT` may ask for, whatever bytes somebody sends: it is read in one way or not at all.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use countersign_core::web::{Scheme, Target, WebError};
use proptest::prelude::*;

#[test]
fn authorities_are_read_strictly() {
    let check = |text: &str, want: Result<(&str, u16), WebError>| {
        let got = Target::connect(text).map(|t| (t.hostname().to_owned(), t.port()));
        assert_eq!(got, want.map(|(host, port)| (host.to_owned(), port)), "{text:?}");
    };
    check("api.example.com:443", Ok(("api.example.com", 443)));
    check("API.Example.com:8443", Ok(("api.example.com", 8443)));
    check("b\u{fc}cher.example:443", Ok(("xn--bcher-kva.example", 443)));
    check("192.0.2.1:80", Ok(("192.0.2.1", 80)));
    check("[2001:DB8::1]:443", Ok(("2001:db8::1", 443)));
    for (text, error) in [
        ("", WebError::Host),
        (":443", WebError::Host),
        ("api.example.com", WebError::Port),
        ("api.example.com:", WebError::Port),
        ("api.example.com:0", WebError::Port),
        ("api.example.com:0443", WebError::Port),
        ("api.example.com:65536", WebError::Port),
        ("api.example.com:https", WebError::Port),
        ("[::1]", WebError::Port),
        ("api.example.com.:443", WebError::Host),
        ("api..example.com:443", WebError::Host),
        ("api%2eexample.com:443", WebError::Host),
        ("user@api.example.com:443", WebError::UserInfo),
        ("api.example.com:443@other.example:443", WebError::UserInfo),
        ("api.example.com:443/path", WebError::Host),
        ("api.example.com/:443", WebError::Host),
        ("api.example.com#:443", WebError::Host),
        ("api.example.com?:443", WebError::Host),
        ("https://api.example.com:443", WebError::Host),
        ("api.example.com:443 ", WebError::ForbiddenCharacter),
        ("api.example.com\\.other:443", WebError::ForbiddenCharacter),
        ("127.1:443", WebError::Ipv4Spelling),
        ("0x7f.0.0.1:443", WebError::Ipv4Spelling),
        ("2130706433:443", WebError::Ipv4Spelling),
        ("[::1:443", WebError::Host),
        ("[fe80::1%25eth0]:443", WebError::Host),
    ] {
        check(text, Err(error));
    }
}

/// Bytes that authorities are made of, and those that end one.
fn noise() -> impl Strategy<Value = String> {
    r"[a-zA-Z0-9.:@%/?#\\\[\]_ -]{0,40}"
}

fn name() -> impl Strategy<Value = String> {
    "[a-z]([a-z0-9-]{0,10}[a-z0-9])?([.][a-z]([a-z0-9-]{0,10}[a-z0-9])?){1,3}"
        // The URL standard decodes what begins like an encoded name, and refuses most of it.
        .prop_filter("encoded labels have rules of their own", |name| !name.contains("xn--"))
}

proptest! {
    #[test]
    fn what_is_read_is_in_one_form_and_reads_as_itself(text in prop_oneof![noise(), any::<String>()]) {
        let Ok(target) = Target::connect(&text) else { return Ok(()) };
        prop_assert_eq!(target.scheme(), Scheme::Https);
        prop_assert_eq!((target.path(), target.query()), ("/", None));
        prop_assert!(target.port() != 0);
        let host = target.hostname();
        prop_assert!(!host.is_empty() && !host.ends_with('.'));
        prop_assert!(!host.contains(['@', '/', '?', '#', '%', '\\', '[', ']', ' ']), "{host}");
        prop_assert_eq!(target.ip().map(|ip| ip.to_string()), host.parse::<IpAddr>().ok().map(|ip| ip.to_string()));
        let bracketed = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        prop_assert_eq!(Target::connect(&format!("{bracketed}:{}", target.port())), Ok(target.clone()));
        // Its last colon divides it as everybody would divide it.
        let (_, port) = text.rsplit_once(':').expect("a port");
        prop_assert_eq!(port.parse(), Ok(target.port()));
    }

    #[test]
    fn every_plain_authority_is_read(host in name(), port in 1_u16..) {
        let target = Target::connect(&format!("{host}:{port}")).expect(&host);
        prop_assert_eq!((target.hostname(), target.port(), target.ip()), (host.as_str(), port, None));
    }

    #[test]
    fn every_address_is_read(v4 in any::<u32>(), v6 in any::<u128>(), port in 1_u16..) {
        let (v4, v6) = (Ipv4Addr::from(v4), Ipv6Addr::from(v6));
        let read = |text: String| Target::connect(&text).map(|t| (t.ip(), t.port()));
        prop_assert_eq!(read(format!("{v4}:{port}")), Ok((Some(IpAddr::V4(v4)), port)));
        prop_assert_eq!(read(format!("[{v6}]:{port}")), Ok((Some(IpAddr::V6(v6)), port)));
    }

    #[test]
    fn nothing_may_stand_before_or_behind(host in name(), port in 1_u16.., odd in "[/?#@ \t\\\\]", at in 0_usize..40) {
        let mut text = format!("{host}:{port}");
        let at = at.min(text.len());
        text.insert_str(at, &odd);
        prop_assert!(Target::connect(&text).is_err(), "{text:?}");
    }
}
