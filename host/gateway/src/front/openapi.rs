//! `GET /openapi.json`: the operators' API, for programs that make clients of it.

use http::header::{CONTENT_TYPE, HeaderValue};

use super::Answer;
use crate::purchase::full;

const DOCUMENT: &str = include_str!("openapi.json");

/// The document. It tells nothing about this gateway but its version.
pub(super) fn answer() -> Answer {
    let mut answer = Answer::new(full(DOCUMENT.replace("VERSION", env!("CARGO_PKG_VERSION"))));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer.headers_mut().insert("countersign-source", HeaderValue::from_static("gateway"));
    answer
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    /// Every reference in a document.
    fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
        match value {
            Value::Object(map) => {
                found.extend(map.get("$ref").and_then(Value::as_str));
                map.values().for_each(|value| references(value, found));
            }
            Value::Array(list) => list.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }

    #[test]
    fn what_it_refers_to_is_there_and_every_call_has_a_name_of_its_own() {
        let document: Value = serde_json::from_str(super::DOCUMENT).unwrap();
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(found.len() > 20);
        for reference in found {
            assert!(document.pointer(reference.trim_start_matches('#')).is_some(), "{reference}");
        }
        let operations = document["paths"].as_object().unwrap().values().flat_map(|p| p.as_object().unwrap().values());
        let names: Vec<_> = operations.map(|o| o["operationId"].as_str().unwrap()).collect();
        let unique: std::collections::BTreeSet<_> = names.iter().collect();
        assert_eq!(unique.len(), names.len());
    }
}
