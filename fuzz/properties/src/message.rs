//! MCP's messages: what is let through is read alike by everybody behind.

use countersign_wire::message::malformed;
use rmcp::model::{ClientJsonRpcMessage, JsonRpcMessage};
use serde_json::Value;

use crate::json;

const LIMIT: usize = 64 * 1024;

pub(crate) fn check(bytes: &[u8]) {
    if let Some((code, why)) = malformed(bytes, LIMIT) {
        return assert!([-32_600, -32_700].contains(&code) && !why.is_empty());
    }
    assert!(json::distinct(bytes), "a repeated key was let through");
    let Some(value) = json::reread(bytes) else { return };
    assert_eq!(value["jsonrpc"], "2.0");
    let Ok(message) = serde_json::from_slice::<ClientJsonRpcMessage>(bytes) else { return };
    let again = serde_json::to_value(&message).expect("a message that was read can be written");
    if let JsonRpcMessage::Request(_) = &message {
        assert_eq!(again["method"], value["method"], "another method than was checked");
        // -0 comes back as 0: the same number, which JSON values do not know.
        let same = again["id"] == value["id"] || (again["id"] == 0 && value["id"].as_f64() == Some(0.0));
        assert!(same, "another request than was checked: {} for {}", again["id"], value["id"]);
        if value["method"] == "tools/call" && again["params"].get("name").is_some() {
            assert_eq!(again["params"]["name"], value["params"]["name"]);
            let arguments = |message: &Value| message["params"].get("arguments").filter(|a| !a.is_null()).cloned();
            assert_eq!(arguments(&again), arguments(&value), "other arguments than were checked");
        }
    }
}
