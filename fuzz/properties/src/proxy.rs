//! The forward proxy's requests: where they lead, whose they are, and what of them a seller sees.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign_core::web::{Scheme, Target, carries_payment, forbidden_request_header, is_hop_by_hop};
use countersign_wire::parent::TraceParent;
use countersign_wire::proxy::{absolute, connect, headers, token, within};
use http::header::{CONNECTION, COOKIE, HOST, PROXY_AUTHORIZATION};
use http::{HeaderMap, HeaderName, HeaderValue, Uri};

use crate::{lines, url, way};

const TOKEN: &str = "agents-own-token";

/// `c`: CONNECT; `i`: inside of a connection; else absolute-form. The first line is what is asked for, the others
/// are header lines.
pub(crate) fn check(bytes: &[u8]) {
    let (first, rest) = way(bytes);
    let mut parts = lines(rest);
    let asked = String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
    let mut map = HeaderMap::new();
    for line in parts.take(64) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let (name, value) =
            (HeaderName::from_bytes(&line[..colon]), HeaderValue::from_bytes(line[colon + 1..].trim_ascii()));
        if let (Ok(name), Ok(value)) = (name, value) {
            map.append(name, value);
        }
    }
    let read = match first {
        b'c' => connect(&asked, &map).inspect(|target| {
            assert_eq!((target.scheme(), target.path()), (Scheme::Https, "/"));
            assert_eq!(Target::connect(&asked).ok().as_ref(), Some(target));
        }),
        b'i' => {
            let connected = Target::connect("api.example.com:443").unwrap();
            let Ok(uri) = asked.parse::<Uri>() else { return };
            within(&connected, &uri, &map).inspect(|target| assert!(target.same_origin(&connected)))
        }
        _ => absolute(&asked, &map),
    };
    if let Ok(target) = &read {
        url::normal(target);
        one_host(&map, target, first == b'c');
    }
    whose(&map);
    passed_on(&map);
}

/// `Host`, where there is one, is a host and the same one.
fn one_host(map: &HeaderMap, target: &Target, connect: bool) {
    let hosts: Vec<&HeaderValue> = map.get_all(HOST).iter().collect();
    assert!(hosts.len() <= 1, "two hosts");
    for host in hosts {
        let host = host.to_str().expect("a host is text");
        assert!(!host.contains(['/', '?', '#', '@', '\\', ' ']), "{host:?} was taken for a host");
        let named = Target::parse(&format!("{}://{host}/", target.scheme().as_str())).unwrap();
        assert_eq!(named.hostname(), target.hostname());
        assert!(connect || named.port() == target.port());
    }
}

fn whose(map: &HeaderMap) {
    if let Some(token) = token(map) {
        let values: Vec<&HeaderValue> = map.get_all(PROXY_AUTHORIZATION).iter().collect();
        assert_eq!(values.len(), 1, "one of two was chosen");
        let (scheme, credentials) = values[0].to_str().unwrap().split_once(' ').unwrap();
        let credentials = String::from_utf8(STANDARD.decode(credentials.trim()).unwrap()).unwrap();
        assert!(scheme.eq_ignore_ascii_case("basic") && !token.is_empty());
        assert_eq!(credentials.split_once(':').unwrap().1, token);
    }
    if let Some(parent) = TraceParent::of(map) {
        assert!(parent.trace != [0; 16] && parent.span != [0; 8]);
        assert_eq!(TraceParent::parse(&parent.to_string()), Some(parent));
    }
}

/// What a seller is sent: nothing of the connection, nothing of ours, nothing twice.
fn passed_on(map: &HeaderMap) {
    let Ok(sent) = headers(map, TOKEN) else { return };
    let connection = map.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let named: Vec<String> =
        connection.flat_map(|value| value.split(',').map(|name| name.trim().to_ascii_lowercase())).collect();
    for (name, value) in &sent {
        let text = name.as_str();
        assert!(!is_hop_by_hop(text) && !text.starts_with("proxy-") && !forbidden_request_header(text), "{text}");
        assert!(!named.iter().any(|named| named == text), "{text} belongs to the connection");
        assert!(!carries_payment(name.as_str(), value.as_bytes()));
        assert!(
            !value.as_bytes().windows(TOKEN.len()).any(|window| window == TOKEN.as_bytes()),
            "{text} has the token"
        );
        assert!(name == COOKIE || map.get_all(name).iter().any(|given| given == value), "{text} was made up");
    }
    assert!(sent.iter().filter(|(name, _)| name == COOKIE).count() <= 1);
}
