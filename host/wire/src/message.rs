//! MCP's messages, before anybody acts on one.

use countersign_core::json::{Fault, Json};

/// Why bytes are no JSON-RPC message, with the code that JSON-RPC has for it. `limit` is the most bytes of one.
///
/// Two readers follow, of JSON-RPC and of a tool's arguments: a key that comes twice would let them differ.
#[must_use]
pub fn malformed(bytes: &[u8], limit: usize) -> Option<(i32, &'static str)> {
    match Json::parse(bytes, limit) {
        Ok(message) if message.is_object() && message.get("jsonrpc").and_then(Json::as_str) == Some("2.0") => None,
        Ok(_) => Some((-32_600, "the body is not one JSON-RPC 2.0 message")),
        Err(error) => Some(match error.fault {
            Fault::Expected(_) | Fault::NotUtf8 => (-32_700, "the body is not JSON"),
            Fault::DuplicateKey => (-32_600, "the body has the same key twice in one object"),
            Fault::TooDeep => (-32_700, "the body nests deeper than 32 levels"),
            Fault::TooLarge => (-32_600, "the body is too large"),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_message_in_one_reading() {
        let check = |text: &str, code: Option<i32>| {
            assert_eq!(malformed(text.as_bytes(), 200).map(|(code, _)| code), code, "{text}");
        };
        check(r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#, None);
        check("", Some(-32_700));
        check("{", Some(-32_700));
        check("null", Some(-32_600));
        check(r#"{"jsonrpc":"1.0","id":1,"method":"ping"}"#, Some(-32_600));
        check(r#"[{"jsonrpc":"2.0","id":1,"method":"ping"}]"#, Some(-32_600));
        check(r#"{"jsonrpc":"2.0","id":1,"method":"ping","method":"tools/call"}"#, Some(-32_600));
        check(
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","arguments":{"url":"a","url":"b"}}}"#,
            Some(-32_600),
        );
        check(&format!(r#"{{"jsonrpc":"2.0","a":{}1{}}}"#, "[".repeat(40), "]".repeat(40)), Some(-32_700));
        check(&format!(r#"{{"jsonrpc":"2.0","a":"{}"}}"#, "x".repeat(200)), Some(-32_600));
    }
}
