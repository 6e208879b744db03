//! The forward proxy's requests: what belongs to a client's connection goes, what is the gateway's is refused.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use countersign_core::web::{Target, carries_payment, forbidden_request_header, is_hop_by_hop};
use http::header::{ACCEPT_ENCODING, CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, HOST, PROXY_AUTHORIZATION};
use http::{HeaderMap, HeaderName, HeaderValue, Uri};

use crate::parent::{TRACEPARENT, TRACESTATE};

/// The header in which a client names its purchase.
pub const PURCHASE: &str = "countersign-purchase";

/// Why a request is refused, in our own words.
pub type Refused = String;

/// The agent or session token: the password of `Proxy-Authorization: Basic`. The user name is not looked at.
#[must_use]
pub fn token(headers: &HeaderMap) -> Option<String> {
    let mut values = headers.get_all(PROXY_AUTHORIZATION).iter();
    let (value, None) = (values.next()?.to_str().ok()?, values.next()) else { return None };
    let (scheme, credentials) = value.split_once(' ')?;
    let credentials = String::from_utf8(BASE64.decode(credentials.trim()).ok()?).ok()?;
    let (_, password) = credentials.split_once(':')?;
    (scheme.eq_ignore_ascii_case("basic") && !password.is_empty()).then(|| password.to_owned())
}

/// Where a `CONNECT` for `authority` leads: `Host`, where there is one, names the same host.
///
/// # Errors
/// What is wrong with either.
pub fn connect(authority: &str, headers: &HeaderMap) -> Result<Target, Refused> {
    let target = Target::connect(authority).map_err(|e| format!("CONNECT wants host:port: {e}"))?;
    if let Some(host) = host(headers)? {
        let named = Target::parse(&format!("https://{host}/")).map_err(|e| format!("Host: {e}"))?;
        if named.hostname() != target.hostname() {
            return Err("Host: another host than CONNECT asks for".to_owned());
        }
    }
    Ok(target)
}

/// Where an absolute-form request leads: `Host`, where there is one, means the same.
///
/// # Errors
/// What is wrong with either.
pub fn absolute(uri: &str, headers: &HeaderMap) -> Result<Target, Refused> {
    let target = Target::parse(uri).map_err(|e| e.to_string())?;
    same_host(headers, &target)?;
    Ok(target)
}

/// Where a request leads that came inside a connection to `connected`: nowhere else.
///
/// # Errors
/// What is wrong with its request line or its `Host`.
pub fn within(connected: &Target, uri: &Uri, headers: &HeaderMap) -> Result<Target, Refused> {
    if uri.scheme_str().is_some_and(|scheme| scheme != "https") {
        return Err("the request line is not of this connection: it is https".to_owned());
    }
    let host = host(headers)?;
    let authority = uri.authority().map(http::uri::Authority::as_str).or(host);
    let authority = authority.ok_or_else(|| "Host: missing".to_owned())?;
    let path = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    if authority.contains(['/', '?', '#']) || !path.starts_with('/') {
        return Err("the request line or Host is malformed".to_owned());
    }
    let target = Target::parse(&format!("https://{authority}{path}")).map_err(|e| e.to_string())?;
    same_host(headers, &target)?;
    if !target.same_origin(connected) {
        return Err(format!("this connection was made to {}, and to nobody else", connected.host()));
    }
    Ok(target)
}

/// The headers for the seller.
///
/// # Errors
/// When one of them is the gateway's to set, or holds its token.
pub fn headers(from: &HeaderMap, token: &str) -> Result<Vec<(HeaderName, HeaderValue)>, Refused> {
    let named: BTreeSet<String> = from
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(',').map(|name| name.trim().to_ascii_lowercase()))
        .collect();
    let mut headers: Vec<(HeaderName, HeaderValue)> = Vec::with_capacity(from.len());
    for (name, value) in from {
        if !is_end_to_end(name) || named.contains(name.as_str()) {
            continue;
        }
        let payment = carries_payment(name.as_str(), value.as_bytes());
        if forbidden_request_header(name.as_str()) || payment {
            return Err(format!("headers: `{name}` is the gateway's to set"));
        }
        if contains(value.as_bytes(), token.as_bytes()) {
            return Err(format!("headers: `{name}` holds the gateway's token, which is no seller's business"));
        }
        let cookies = headers.iter_mut().find(|(known, _)| name == COOKIE && *known == COOKIE);
        match cookies {
            // HTTP/2 sends each cookie in a field of its own.
            Some((_, earlier)) => {
                let joined = [earlier.as_bytes(), b"; ", value.as_bytes()].concat();
                *earlier =
                    HeaderValue::from_bytes(&joined).map_err(|_| "headers: `cookie` cannot be sent".to_owned())?;
            }
            None => headers.push((name.clone(), value.clone())),
        }
    }
    Ok(headers)
}

/// Whether a header is meant for the seller at all: a trace is told to the operator's receiver. The gateway frames
/// what it sends itself, and what it must be able to read has to arrive uncompressed.
fn is_end_to_end(name: &HeaderName) -> bool {
    let ours = [HOST, CONTENT_LENGTH, EXPECT, ACCEPT_ENCODING].contains(name)
        || [PURCHASE, TRACEPARENT, TRACESTATE].contains(&name.as_str());
    !ours && !is_hop_by_hop(name.as_str()) && !name.as_str().starts_with("proxy-")
}

fn contains(text: &[u8], what: &[u8]) -> bool {
    !what.is_empty() && text.windows(what.len()).any(|window| window == what)
}

/// The one `Host` of a request, if it has one.
///
/// # Errors
/// When there are several, or it is none.
pub fn host(headers: &HeaderMap) -> Result<Option<&str>, Refused> {
    let mut values = headers.get_all(HOST).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err("Host: more than one".to_owned());
    }
    // What would end a host is not in one: another reader would go on behind it.
    let host = value.to_str().ok().filter(|host| !host.contains(['/', '?', '#']));
    host.map(Some).ok_or_else(|| "Host: not a host".to_owned())
}

/// `Host`, where there is one, must mean what the request line means: two readers would disagree.
///
/// # Errors
/// When it does not.
pub fn same_host(headers: &HeaderMap, target: &Target) -> Result<(), Refused> {
    let Some(host) = host(headers)? else { return Ok(()) };
    let named = Target::parse(&format!("{}://{host}/", target.scheme().as_str()));
    if named.is_ok_and(|named| named.same_origin(target)) {
        return Ok(());
    }
    Err("Host: another host than the request line's".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(fields: &[(&str, &str)]) -> Result<Vec<(String, String)>, String> {
        let mut given = HeaderMap::new();
        for (name, value) in fields {
            given.append(HeaderName::try_from(*name).unwrap(), HeaderValue::try_from(*value).unwrap());
        }
        let text = |v: &HeaderValue| v.to_str().unwrap().to_owned();
        Ok(headers(&given, "the-token")?.iter().map(|(n, v)| (n.to_string(), text(v))).collect())
    }

    #[test]
    fn what_belongs_to_the_connection_goes() {
        let sent = [
            ("host", "a.example"),
            ("connection", "Upgrade, X-Mine"),
            ("upgrade", "h2c"),
            ("http2-settings", "x"),
            ("x-mine", "1"),
            ("proxy-authorization", "Basic x"),
            ("proxy-connection", "keep-alive"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("content-length", "3"),
            ("expect", "100-continue"),
            ("accept-encoding", "br"),
            ("countersign-purchase", "p-1"),
            ("accept", "a"),
            ("accept", "b"),
            ("authorization", "Bearer mine"),
            ("cookie", "a=1"),
            ("cookie", "b=2"),
        ];
        let want = [("accept", "a"), ("accept", "b"), ("authorization", "Bearer mine"), ("cookie", "a=1; b=2")];
        let mut got = read(&sent).unwrap();
        got.sort();
        assert_eq!(got, want.map(|(n, v)| (n.to_owned(), v.to_owned())));
    }

    #[test]
    fn what_is_the_gateways_is_refused() {
        for (name, value) in [
            ("x-payment", "x"),
            ("payment-signature", "x"),
            ("sign-in-with-x", "x"),
            ("authorization", "Payment x"),
            ("x-forwarded-host", "b.example"),
            ("x-http-method-override", "DELETE"),
            ("countersign-state", "settled"),
            ("authorization", "Bearer the-token"),
            ("cookie", "t=the-token"),
        ] {
            let said = read(&[(name, value)]).unwrap_err();
            assert!(said.contains(name), "{said}");
        }
    }

    #[test]
    fn the_host_is_the_request_lines() {
        let target = Target::parse("http://a.example:8080/x").unwrap();
        let check = |hosts: &[&str], ok: bool| {
            let mut headers = HeaderMap::new();
            for host in hosts {
                headers.append(HOST, HeaderValue::try_from(*host).unwrap());
            }
            assert_eq!(same_host(&headers, &target).is_ok(), ok, "{hosts:?}");
        };
        check(&[], true);
        check(&["a.example:8080"], true);
        check(&["A.Example:8080"], true);
        check(&["a.example"], false);
        check(&["b.example:8080"], false);
        check(&["a.example:8080", "a.example:8080"], false);
        check(&["a.example:8080/y"], false);
        check(&["a.example:8080?y"], false);
        check(&["a.example:8080#y"], false);
        check(&["u@a.example:8080"], false);
    }

    #[test]
    fn a_connect_names_one_host() {
        let check = |host: &'static str, ok: bool| {
            let headers = HeaderMap::from_iter([(HOST, HeaderValue::from_static(host))]);
            assert_eq!(connect("a.example:443", &headers).is_ok(), ok, "{host}");
        };
        check("a.example:443", true);
        check("A.example", true);
        check("b.example:443", false);
        check("a.example/b.example", false);
        check("a.example?b.example", false);
        check("a.example#b.example", false);
        assert!(connect("a.example", &HeaderMap::new()).is_err());
    }
}
