//! Settings against a schema that a guest brings: it ends, and it is logic.

use countersign_engine::foreign::fits;
use serde_json::{Value, json};

use crate::lines;

/// The first line is a schema, the second a document.
pub(crate) fn check(bytes: &[u8]) {
    let mut parts = lines(bytes).map(serde_json::from_slice::<Value>);
    let (Some(Ok(schema)), Some(Ok(document))) = (parts.next(), parts.next()) else { return };
    let found = fits(&schema, &document);
    assert_eq!(found, fits(&schema, &document), "the same question has the same answer");
    // Inside of another schema its own references would lead elsewhere.
    if schema.to_string().contains("\"$ref\"") {
        return;
    }
    let wrapped = |outer: Value| fits(&outer, &document);
    match found {
        Ok(held) => {
            for (outer, expected) in [
                (json!({"allOf": [schema, true]}), held),
                (json!({"anyOf": [false, schema]}), held),
                (json!({"oneOf": [schema]}), held),
                (json!({"not": schema}), !held),
                (json!({"if": schema, "then": true, "else": false}), held),
            ] {
                // One level, and twice the steps, may be too much.
                if let Ok(answer) = wrapped(outer.clone()) {
                    assert_eq!(answer, expected, "{outer} of {document}");
                }
            }
        }
        Err(_) => assert_ne!(wrapped(json!({"allOf": [schema]})), Ok(true), "what cannot be checked was taken as good"),
    }
}
