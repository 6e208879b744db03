//! A client's request as a call.

use bytes::Bytes;
use countersign_core::id::PurchaseId;
use countersign_core::web::{self, Target};
use countersign_wire::proxy::{PURCHASE, headers};
use http::request::Parts;
use http::{HeaderMap, Method};

use super::bad;
use crate::problem::Problem;
use crate::purchase::Call;
use crate::telemetry::TraceParent;

/// The call that a request asks for, still without its body.
pub(super) fn call(head: &Parts, target: Target, token: &str) -> Result<Call, Problem> {
    let method = web::Method::parse(head.method.as_str()).map_err(|e| bad(e.to_string()))?;
    let method: Method = method.as_str().parse().map_err(|_| bad("method: not a method"))?;
    Ok(Call {
        method,
        target,
        headers: headers(&head.headers, token).map_err(bad)?,
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

#[cfg(test)]
mod tests {
    use super::*;
    use http::header::HeaderValue;

    #[test]
    fn a_purchase_is_named_once() {
        let named = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(PURCHASE, HeaderValue::from_static(value));
            }
            purchase(&headers).map(|found| found.is_some()).map_err(|problem| problem.detail)
        };
        assert_eq!(named(&[]), Ok(false));
        assert_eq!(named(&["p-1"]), Ok(true));
        assert!(named(&["a", "b"]).is_err());
        assert!(named(&["a b"]).is_err());
    }
}
