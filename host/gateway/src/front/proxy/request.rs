//! A client's request as a call: what belongs to its connection goes, what is the gateway's is refused.

use std::collections::BTreeSet;

use bytes::Bytes;
use countersign_core::id::PurchaseId;
use countersign_core::web::{self, Target, forbidden_request_header, is_hop_by_hop, is_payment_authorization};
use http::header::{ACCEPT_ENCODING, AUTHORIZATION, CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, HOST};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::bad;
use crate::problem::Problem;
use crate::purchase::Call;
use crate::telemetry::{TRACEPARENT, TRACESTATE, TraceParent};

const PURCHASE: &str = "countersign-purchase";

/// The call that a request asks for, still without its body.
pub(super) fn call(head: &Parts, target: Target, token: &str) -> Result<Call, Problem> {
    let method = web::Method::parse(head.method.as_str()).map_err(|e| bad(e.to_string()))?;
    let method: Method = method.as_str().parse().map_err(|_| bad("method: not a method"))?;
    Ok(Call {
        method,
        target,
        headers: headers(&head.headers, token)?,
        body: Bytes::new(),
        max_price: None,
        purchase: purchase(&head.headers)?,
        claims: Vec::new(),
        wait_seconds: 0,
        parent: TraceParent::of(&head.headers),
        waits: None,
        elsewhere: None,
        tool: None,
    })
}

fn purchase(headers: &HeaderMap) -> Result<Option<PurchaseId>, Problem> {
    let mut values = headers.get_all(PURCHASE).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(bad("Countersign-Purchase: more than one"));
    }
    let text = value.to_str().unwrap_or("\u{fffd}");
    PurchaseId::parse(text).map(Some).map_err(|e| bad(format!("Countersign-Purchase: {e}")))
}

/// The headers for the seller.
fn headers(from: &HeaderMap, token: &str) -> Result<Vec<(HeaderName, HeaderValue)>, Problem> {
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
        let payment = *name == AUTHORIZATION && is_payment_authorization(value.as_bytes());
        if forbidden_request_header(name.as_str()) || payment {
            return Err(bad(format!("headers: `{name}` is the gateway's to set")));
        }
        if contains(value.as_bytes(), token.as_bytes()) {
            return Err(bad(format!("headers: `{name}` holds the gateway's token, which is no seller's business")));
        }
        let cookies = headers.iter_mut().find(|(known, _)| name == COOKIE && *known == COOKIE);
        match cookies {
            // HTTP/2 sends each cookie in a field of its own.
            Some((_, earlier)) => {
                let joined = [earlier.as_bytes(), b"; ", value.as_bytes()].concat();
                *earlier = HeaderValue::from_bytes(&joined).map_err(|_| bad("headers: `cookie` cannot be sent"))?;
            }
            None => headers.push((name.clone(), value.clone())),
        }
    }
    Ok(headers)
}

/// Whether a header is meant for the seller at all: a trace is told to the operator's receiver. The gateway frames what it sends itself, and what it must
/// be able to read has to arrive uncompressed.
fn is_end_to_end(name: &HeaderName) -> bool {
    let ours = [HOST, CONTENT_LENGTH, EXPECT, ACCEPT_ENCODING].contains(name)
        || [PURCHASE, TRACEPARENT, TRACESTATE].contains(&name.as_str());
    !ours && !is_hop_by_hop(name.as_str()) && !name.as_str().starts_with("proxy-")
}

fn contains(text: &[u8], what: &[u8]) -> bool {
    !what.is_empty() && text.windows(what.len()).any(|window| window == what)
}

/// The one `Host` of a request, if it has one.
pub(super) fn host(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let mut values = headers.get_all(HOST).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(bad("Host: more than one"));
    }
    value.to_str().map(Some).map_err(|_| bad("Host: not a host"))
}

/// `Host`, where there is one, must mean what the request line means: two readers would disagree.
pub(super) fn same_host(headers: &HeaderMap, target: &Target) -> Result<(), Problem> {
    let Some(host) = host(headers)? else { return Ok(()) };
    let named = Target::parse(&format!("{}://{host}/", target.scheme().as_str()));
    if named.is_ok_and(|named| named.same_origin(target) && named.path() == "/") {
        return Ok(());
    }
    Err(bad("Host: another host than the request line's"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn read(fields: &[(&str, &str)]) -> Result<Vec<(String, String)>, String> {
        let mut request = Request::new(());
        for (name, value) in fields {
            let (name, value) = (HeaderName::try_from(*name).unwrap(), HeaderValue::try_from(*value).unwrap());
            request.headers_mut().append(name, value);
        }
        let target = Target::parse("https://a.example/").unwrap();
        let call = call(&request.into_parts().0, target, "the-token").map_err(|problem| problem.detail)?;
        let text = |v: &HeaderValue| v.to_str().unwrap().to_owned();
        Ok(call.headers.iter().map(|(n, v)| (n.to_string(), text(v))).collect())
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
        assert!(read(&[("countersign-purchase", "a"), ("countersign-purchase", "b")]).is_err());
        assert!(read(&[("countersign-purchase", "a b")]).is_err());
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
        check(&["u@a.example:8080"], false);
    }
}
