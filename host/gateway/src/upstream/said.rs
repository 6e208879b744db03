//! What an MCP server said to a call of a tool: an answer, an error, or a demand for payment.
//!
//! What is passed on is what was understood here, written anew; what is signed for is read from the bytes that
//! came, strictly. So no two readers see two things.

use countersign_core::json::{Json, Value as Strict};
use countersign_core::x402::text;
use serde_json::{Map, Value};

use super::{broken, wire};
use crate::egress::CallError;

/// Where a rail has its payment in `params._meta`, and its receipt in `result._meta`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Places {
    /// The payment.
    pub(crate) payment: &'static str,
    /// The receipt.
    pub(crate) receipt: &'static str,
}

/// x402's places.
pub(crate) const OF_X402: Places = Places { payment: "x402/payment", receipt: "x402/payment-response" };
/// MPP's.
pub(crate) const OF_MPP: Places = Places { payment: "org.paymentauth/credential", receipt: "org.paymentauth/receipt" };
/// Members of `_meta` that belong to a payment: an agent may not send them, and does not get them.
const OF_PAYMENTS: [&str; 2] = ["x402/", "org.paymentauth/"];
/// Members of `_meta` that only the gateway writes.
pub(crate) const OURS: &str = "countersign/";
/// JSON-RPC's code for x402's demand, where it is an error.
const X402: i64 = 402;
/// MPP's.
const MPP: i64 = -32_042;
/// Longest message of an error that is passed on, in characters.
const MAX_MESSAGE: usize = 1_024;

/// An answer to a call of a tool.
#[derive(Debug, PartialEq)]
pub(crate) enum Said {
    /// A result, without what only the gateway reads or writes.
    Result {
        /// As it is passed on.
        result: Map<String, Value>,
        /// Whether it says that the tool failed.
        error: bool,
        /// The receipt's bytes; empty where there is one that nobody can read.
        receipt: Option<Vec<u8>>,
    },
    /// An error of the protocol.
    Failed {
        /// Its code.
        code: i64,
        /// Its words.
        message: String,
    },
    /// A demand, by x402 or MPP.
    Demand {
        /// The terms, as they came.
        terms: Vec<u8>,
        /// What it says of a payment that was made already.
        receipt: Option<Vec<u8>>,
    },
    /// A demand that cannot be paid, and why.
    Unpayable(String),
}

/// Whether a member of `_meta` belongs to a payment.
pub(crate) fn pays(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    OF_PAYMENTS.iter().any(|prefix| name.starts_with(prefix))
}

/// Reads a whole message, with the receipt of the rail that was paid by.
///
/// # Errors
/// [`CallError::Broken`] if it is no answer to a call of a tool.
pub(crate) fn read(message: &[u8], paid_by: Places) -> Result<Said, CallError> {
    let mut lenient: Value = serde_json::from_slice(message).map_err(|_| broken("the MCP server answers no JSON"))?;
    if let Some(error) = lenient.get("error").filter(|error| !error.is_null()) {
        return failed(message, error);
    }
    let Some(Value::Object(mut result)) = lenient.get_mut("result").map(Value::take) else {
        return Err(broken("the MCP server's answer is no tool's result"));
    };
    let error = match result.get("isError") {
        None | Some(Value::Null) => false,
        Some(said) => said.as_bool().ok_or_else(|| broken("the MCP server's result is no tool's result"))?,
    };
    if error && (result.get("structuredContent").is_some_and(demands) || worded(&result).is_some_and(demands_in)) {
        return Ok(demand(message, paid_by));
    }
    let strict = wire::strict(message);
    let said = result.get("_meta").and_then(|meta| meta.get(paid_by.receipt)).filter(|said| !said.is_null());
    let receipt = said.map(|_| strict.as_ref().ok().and_then(|s| receipt(s, paid_by)).unwrap_or_default());
    if let Some(Value::Object(meta)) = result.get_mut("_meta") {
        meta.retain(|name, _| !pays(name) && !name.to_ascii_lowercase().starts_with(OURS));
        if meta.is_empty() {
            result.remove("_meta");
        }
    }
    Ok(Said::Result { result, error, receipt })
}

/// Whether an x402 client would take this for a demand. The second spelling is one that the official client reads.
fn demands(said: &Value) -> bool {
    said.get("x402Version").is_some() || said.get("x402_version").is_some()
}

fn demands_in(text: &str) -> bool {
    serde_json::from_str::<Value>(text).is_ok_and(|said| demands(&said))
}

/// The text of the first piece of content.
fn worded(result: &Map<String, Value>) -> Option<&str> {
    let first = result.get("content")?.get(0)?;
    first.get("type").filter(|kind| *kind == "text")?;
    first.get("text")?.as_str()
}

/// The terms of a result that demands payment. They may come in two places, and must be the same there.
fn demand(message: &[u8], paid_by: Places) -> Said {
    let strict = match wire::strict(message) {
        Ok(strict) => strict,
        Err(why) => return Said::Unpayable(format!("the server's demand for payment is no strict JSON: {why}")),
    };
    let result = strict.get("result");
    let structured = result.and_then(|r| r.get("structuredContent")).filter(|json| json.is_object()).map(|j| j.raw);
    let first = result.and_then(|r| r.get("content")).and_then(Json::as_array).and_then(<[Json<'_>]>::first);
    let worded = first.and_then(|first| first.get("text")).and_then(Json::as_str).filter(|text| demands_in(text));
    let structured = structured.filter(|raw| demands_in(raw));
    let terms = match (structured, worded) {
        (Some(terms), Some(text)) if !same(terms, text) => {
            let why = "the server's demand for payment says one thing in structuredContent and another in its text";
            return Said::Unpayable(why.to_owned());
        }
        (Some(terms), _) | (None, Some(terms)) => terms,
        (None, None) => return Said::Unpayable("the server's demand for payment has no terms".to_owned()),
    };
    Said::Demand { terms: terms.as_bytes().to_vec(), receipt: receipt(&strict, paid_by) }
}

/// Whether two texts say the same, and each of them only once.
fn same(one: &str, other: &str) -> bool {
    let read = |text: &str| {
        wire::strict(text.as_bytes()).ok()?;
        serde_json::from_str::<Value>(text).ok()
    };
    read(one).is_some_and(|one| Some(one) == read(other))
}

/// The receipt: an object, or one as text.
fn receipt(strict: &Json<'_>, paid_by: Places) -> Option<Vec<u8>> {
    let receipt = strict.get("result")?.get("_meta")?.get(paid_by.receipt)?;
    Some(match &receipt.value {
        Strict::String(text) => text.as_bytes().to_vec(),
        _ => receipt.raw.as_bytes().to_vec(),
    })
}

/// An error of the protocol: two codes are demands.
fn failed(message: &[u8], error: &Value) -> Result<Said, CallError> {
    let code = error.get("code").and_then(Value::as_i64);
    let code = code.ok_or_else(|| broken("the MCP server's error is no JSON-RPC error"))?;
    let words = text::clean(error.get("message").and_then(Value::as_str).unwrap_or_default(), MAX_MESSAGE);
    Ok(match code {
        X402 | MPP => match wire::strict(message) {
            Ok(strict) => match strict.get("error").and_then(|e| e.get("data")).filter(|data| data.is_object()) {
                Some(data) => Said::Demand { terms: data.raw.as_bytes().to_vec(), receipt: None },
                None => Said::Unpayable(format!("the server's demand for payment (error {code}) has no terms")),
            },
            Err(why) => Said::Unpayable(format!("the server's demand for payment is no strict JSON: {why}")),
        },
        code => Said::Failed { code, message: words },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(message: &Value) -> Said {
        read(message.to_string().as_bytes(), OF_X402).unwrap()
    }

    fn result(result: &Value) -> Said {
        of(&json!({"jsonrpc": "2.0", "id": 1, "result": result}))
    }

    fn terms() -> Value {
        json!({"x402Version": 2, "accepts": [{"amount": "1"}]})
    }

    fn both(structured: &Value, text: &str) -> Said {
        result(&json!({"isError": true, "structuredContent": structured, "content": [{"type": "text", "text": text}]}))
    }

    #[test]
    fn a_demand_is_found_in_either_place_and_must_be_one() {
        let demand = |said: Said| match said {
            Said::Demand { terms, .. } => serde_json::from_slice::<Value>(&terms).unwrap(),
            other => panic!("{other:?}"),
        };
        let pretty = serde_json::to_string_pretty(&terms()).unwrap();
        assert_eq!(demand(both(&terms(), &pretty)), terms());
        assert_eq!(demand(both(&terms(), "please pay")), terms());
        assert_eq!(demand(both(&Value::Null, &pretty)), terms());
        assert_eq!(demand(both(&json!({"error": "pay"}), &pretty)), terms());
        let error = json!({"code": 402, "message": "pay", "data": terms()});
        assert_eq!(demand(of(&json!({"jsonrpc": "2.0", "id": 1, "error": error}))), terms());
        let differ = [
            r#"{"x402Version":2,"accepts":[{"amount":"2"}]}"#,
            r#"{"x402Version":1,"accepts":[{"amount":"1"}]}"#,
            r#"{"x402Version":2,"accepts":[{"amount":"1"}],"x402Version":2}"#,
            r#"{"x402_version":2,"accepts":[{"amount":"1"}]}"#,
        ];
        for other in differ {
            assert!(matches!(both(&terms(), other), Said::Unpayable(why) if why.contains("another")), "{other}");
        }
        // What is not an error asks for nothing; what fails asks for nothing by failing.
        let listed = json!({"structuredContent": terms(), "content": []});
        assert!(matches!(result(&listed), Said::Result { error: false, .. }));
        let broke = json!({"isError": true, "content": [{"type": "text", "text": "it broke"}]});
        assert!(matches!(result(&broke), Said::Result { error: true, .. }));
    }

    #[test]
    fn what_is_said_twice_in_a_demand_is_not_paid() {
        let twice = r#"{"jsonrpc":"2.0","id":1,"result":{"isError":true,"structuredContent":
            {"x402Version":2,"accepts":[{"amount":"1","amount":"2"}]},"content":[]}}"#;
        assert!(matches!(read(twice.as_bytes(), OF_X402).unwrap(), Said::Unpayable(why) if why.contains("twice")));
        let twice = r#"{"jsonrpc":"2.0","id":1,"result":{"isError":true,"content":[],
            "structuredContent":{"x402Version":2,"accepts":[]},"structuredContent":{"x402Version":2,"accepts":[1]}}}"#;
        assert!(matches!(read(twice.as_bytes(), OF_X402).unwrap(), Said::Unpayable(_)));
    }

    #[test]
    fn two_codes_are_demands_and_need_terms() {
        for code in [402, -32_042] {
            let data = json!({"challenges": [{"method": "tempo"}]});
            let error = json!({"code": code, "message": "IGNORE", "data": data});
            let Said::Demand { terms, receipt: None } = of(&json!({"jsonrpc": "2.0", "id": 1, "error": error})) else {
                panic!()
            };
            assert_eq!(terms, data.to_string().as_bytes());
            let error = json!({"code": code, "message": "pay"});
            assert!(matches!(of(&json!({"jsonrpc": "2.0", "id": 1, "error": error})), Said::Unpayable(_)));
            let twice =
                format!(r#"{{"jsonrpc":"2.0","id":1,"error":{{"code":{code},"message":"","data":{{"a":1,"a":2}}}}}}"#);
            assert!(matches!(read(twice.as_bytes(), OF_MPP).unwrap(), Said::Unpayable(_)));
        }
        let error = json!({"code": -32_602, "message": "no such tool\u{202e}"});
        let said = of(&json!({"jsonrpc": "2.0", "id": 1, "error": error}));
        assert_eq!(said, Said::Failed { code: -32_602, message: r"no such tool\u{202e}".to_owned() });
    }

    #[test]
    fn what_belongs_to_a_payment_is_read_here_and_goes_no_further() {
        let meta = json!({
            "x402/payment-response": {"success": true}, "X402/Payment": 1, "org.paymentauth/receipt": 1,
            "countersign/state": "settled", "Countersign/amount": 1, "trace": "t",
        });
        let Said::Result { result: passed, receipt, .. } = result(&json!({"content": [], "_meta": meta})) else {
            panic!()
        };
        assert_eq!(passed["_meta"], json!({"trace": "t"}));
        assert_eq!(receipt.as_deref(), Some(br#"{"success":true}"#.as_slice()));
        let text = json!({"content": [], "_meta": {"x402/payment-response": "{\"success\":true}"}});
        let Said::Result { result: passed, receipt, .. } = result(&text) else { panic!() };
        assert!(!passed.contains_key("_meta"));
        assert_eq!(receipt.as_deref(), Some(br#"{"success":true}"#.as_slice()));
        // Each rail has its own.
        let both = json!({"content": [], "_meta": {"x402/payment-response": {}, "org.paymentauth/receipt": {"status": "success"}}});
        let both = json!({"jsonrpc": "2.0", "id": 1, "result": both}).to_string();
        let Said::Result { receipt, .. } = read(both.as_bytes(), OF_MPP).unwrap() else { panic!() };
        assert_eq!(receipt.as_deref(), Some(br#"{"status":"success"}"#.as_slice()));
        // There is one, and who reads it depends on the reader.
        let twice = r#"{"jsonrpc":"2.0","id":1,"result":{"content":[],"_meta":
            {"x402/payment-response":{"success":false},"x402/payment-response":{"success":true}}}}"#;
        let Said::Result { receipt, .. } = read(twice.as_bytes(), OF_X402).unwrap() else { panic!() };
        assert_eq!(receipt.as_deref(), Some(b"".as_slice()));
    }

    #[test]
    fn what_is_no_tools_answer_is_broken() {
        for message in [
            json!({"result": []}),
            json!({"result": {"isError": "true"}}),
            json!({"error": "402"}),
            json!({"error": {"code": "402"}}),
            json!({}),
        ] {
            assert!(matches!(read(message.to_string().as_bytes(), OF_X402), Err(CallError::Broken(_))), "{message}");
        }
        assert!(read(b"{", OF_X402).is_err());
    }
}
