//! Whether a settings schema is a schema: of JSON Schema 2020-12, what settings need.

use serde_json::{Map, Value};

/// Something to say about a schema.
pub(super) struct Remark {
    /// Whether it is a mistake; else it is advice.
    pub(super) wrong: bool,
    /// JSON Pointer into the schema.
    pub(super) at: String,
    pub(super) message: String,
}

const TYPES: [&str; 7] = ["array", "boolean", "integer", "null", "number", "object", "string"];
/// Keywords whose value is a schema.
const SCHEMA: [&str; 11] = [
    "additionalProperties",
    "contains",
    "else",
    "if",
    "items",
    "not",
    "propertyNames",
    "then",
    "unevaluatedItems",
    "unevaluatedProperties",
    "contentSchema",
];
/// Keywords whose value is a list of schemas.
const SCHEMAS: [&str; 4] = ["allOf", "anyOf", "oneOf", "prefixItems"];
/// Keywords whose value is an object of schemas.
const NAMED: [&str; 4] = ["$defs", "dependentSchemas", "patternProperties", "properties"];
const COUNTS: [&str; 8] =
    ["maxContains", "maxItems", "maxLength", "maxProperties", "minContains", "minItems", "minLength", "minProperties"];
const NUMBERS: [&str; 5] = ["exclusiveMaximum", "exclusiveMinimum", "maximum", "minimum", "multipleOf"];
const TEXTS: [&str; 12] = [
    "$anchor",
    "$comment",
    "$dynamicAnchor",
    "$dynamicRef",
    "$id",
    "$ref",
    "$schema",
    "contentEncoding",
    "contentMediaType",
    "description",
    "format",
    "pattern",
];
const OTHERS: [&str; 11] = [
    "const",
    "default",
    "dependentRequired",
    "deprecated",
    "enum",
    "examples",
    "readOnly",
    "required",
    "title",
    "type",
    "uniqueItems",
];

/// Everything to say about the schema of a settings document.
pub(super) fn remarks(text: &str) -> Vec<Remark> {
    let mut found = Remarks { root: Value::Null, list: Vec::new() };
    let root: Value = match serde_json::from_str(text) {
        Ok(root) => root,
        Err(error) => {
            found.wrong("", format!("not JSON: {error}"));
            return found.list;
        }
    };
    found.root = root.clone();
    found.schema(&root, "");
    found.advice(&root);
    found.list
}

struct Remarks {
    root: Value,
    list: Vec<Remark>,
}

impl Remarks {
    fn wrong(&mut self, at: &str, message: impl Into<String>) {
        self.list.push(Remark { wrong: true, at: at.to_owned(), message: message.into() });
    }

    fn advise(&mut self, at: &str, message: impl Into<String>) {
        self.list.push(Remark { wrong: false, at: at.to_owned(), message: message.into() });
    }

    fn schema(&mut self, schema: &Value, at: &str) {
        match schema {
            Value::Bool(_) => {}
            Value::Object(members) => members.iter().for_each(|(key, value)| self.keyword(key, value, at)),
            other => self.wrong(at, format!("expected a schema, an object or true or false, not {other}")),
        }
    }

    fn keyword(&mut self, key: &str, value: &Value, parent: &str) {
        let at = format!("{parent}/{}", key.replace('~', "~0").replace('/', "~1"));
        let expected = if SCHEMA.contains(&key) {
            return self.schema(value, &at);
        } else if SCHEMAS.contains(&key) {
            match value.as_array().filter(|list| !list.is_empty()) {
                Some(list) => return list.iter().enumerate().for_each(|(i, s)| self.schema(s, &format!("{at}/{i}"))),
                None => Some("a list of schemas"),
            }
        } else if NAMED.contains(&key) {
            match value.as_object() {
                Some(members) => return self.named(members, &at),
                None => Some("an object of schemas"),
            }
        } else if COUNTS.contains(&key) {
            (!value.is_u64()).then_some("a whole number from 0")
        } else if NUMBERS.contains(&key) {
            (!value.is_number()).then_some("a number")
        } else if TEXTS.contains(&key) {
            (!value.is_string()).then_some("a string")
        } else if OTHERS.contains(&key) {
            other(key, value)
        } else {
            return self.unknown(key, &at);
        };
        match expected {
            Some(expected) => self.wrong(&at, format!("expected {expected}, not {value}")),
            None if key == "$ref" => self.reference(value, &at),
            None => {}
        }
    }

    fn named(&mut self, members: &Map<String, Value>, at: &str) {
        for (name, schema) in members {
            self.schema(schema, &format!("{at}/{}", name.replace('~', "~0").replace('/', "~1")));
        }
    }

    /// Staging refuses references that leave the document; those that stay must lead somewhere.
    fn reference(&mut self, value: &Value, at: &str) {
        let Some(pointer) = value.as_str().and_then(|target| target.strip_prefix('#')) else { return };
        let anchor = !pointer.is_empty() && !pointer.starts_with('/');
        if !anchor && self.root.pointer(pointer).is_none() {
            self.wrong(at, format!("{value} leads nowhere"));
        }
    }

    fn unknown(&mut self, key: &str, at: &str) {
        let known =
            SCHEMA.iter().chain(&SCHEMAS).chain(&NAMED).chain(&COUNTS).chain(&NUMBERS).chain(&TEXTS).chain(&OTHERS);
        let near = known.min_by_key(|word| strsim::damerau_levenshtein(word, key));
        let hint = near.filter(|word| strsim::damerau_levenshtein(word, key) <= 2);
        let hint = hint.map_or_else(String::new, |word| format!("; do you mean `{word}`?"));
        self.advise(at, format!("no keyword of JSON Schema 2020-12, so nothing checks it{hint}"));
    }

    /// What makes a schema useful to an operator.
    fn advice(&mut self, root: &Value) {
        if root.get("type") != Some(&Value::from("object")) {
            self.advise("/type", "settings are an object; say \"type\": \"object\"");
        }
        let open = ["additionalProperties", "unevaluatedProperties"].into_iter().all(|key| root.get(key).is_none());
        if open {
            self.advise(
                "/additionalProperties",
                "say false, so that a mistyped setting is found before the policy runs",
            );
        }
        let properties = root.get("properties").and_then(Value::as_object);
        for (name, property) in properties.into_iter().flatten() {
            if property.get("description").is_none() && property.get("$ref").is_none() {
                self.advise(&format!("/properties/{name}"), "has no description for operators");
            }
        }
        let required = root.get("required").and_then(Value::as_array);
        for name in required.into_iter().flatten().filter_map(Value::as_str) {
            if properties.is_none_or(|properties| !properties.contains_key(name)) {
                self.advise("/required", format!("`{name}` is required and not among the properties"));
            }
        }
    }
}

/// What a keyword of no group expects, if it is not what it got.
fn other(key: &str, value: &Value) -> Option<&'static str> {
    let strings = |value: &Value| value.as_array().is_some_and(|list| list.iter().all(Value::is_string));
    let is_type = |value: &Value| value.as_str().is_some_and(|name| TYPES.contains(&name));
    let (fits, expected) = match key {
        "deprecated" | "readOnly" | "uniqueItems" => (value.is_boolean(), "true or false"),
        "enum" => (value.as_array().is_some_and(|list| !list.is_empty()), "a list of values"),
        "examples" => (value.is_array(), "a list of values"),
        "required" => (strings(value), "a list of strings"),
        "title" => (value.is_string(), "a string"),
        "dependentRequired" => {
            (value.as_object().is_some_and(|o| o.values().all(strings)), "an object of lists of strings")
        }
        "type" => {
            let list = value.as_array().is_some_and(|list| !list.is_empty() && list.iter().all(is_type));
            (is_type(value) || list, "one of array, boolean, integer, null, number, object, string, or a list of them")
        }
        // `const` and `default` may be anything.
        _ => (true, ""),
    };
    (!fits).then_some(expected)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_and_advice_have_a_place() {
        let check = |schema: &str, wrong: bool, at: &str, says: &str| {
            let found = remarks(schema);
            let hit = found.iter().any(|r| r.wrong == wrong && r.at == at && r.message.contains(says));
            let all: Vec<_> = found.iter().map(|r| (r.wrong, &r.at, &r.message)).collect();
            assert!(hit, "{schema}: {all:?}");
        };
        check("{", true, "", "not JSON");
        check(r#"{"type":"objekt"}"#, true, "/type", "expected one of array");
        check(r#"{"properties":{"a/b":{"type":["string","nul"]}}}"#, true, "/properties/a~1b/type", "expected one of");
        check(r#"{"properties":[]}"#, true, "/properties", "an object of schemas");
        check(r#"{"properties":{"a":"string"}}"#, true, "/properties/a", "expected a schema");
        check(r#"{"required":"a"}"#, true, "/required", "a list of strings");
        check(r#"{"items":{"minLength":"1"}}"#, true, "/items/minLength", "a whole number");
        check(r#"{"anyOf":[{"maximum":"9"}]}"#, true, "/anyOf/0/maximum", "a number");
        check(r##"{"$ref":"#/$defs/a"}"##, true, "/$ref", "leads nowhere");
        check(r#"{"requierd":["a"]}"#, false, "/requierd", "do you mean `required`?");
        check(r#"{"required":["a"]}"#, false, "/required", "not among the properties");
        check(r#"{"type":"object"}"#, false, "/additionalProperties", "say false");
        check(r#"{"properties":{"a":{}}}"#, false, "/properties/a", "no description");
    }

    #[test]
    fn good_schemas_are_left_alone() {
        let good = r##"{"$schema":"https://json-schema.org/draft/2020-12/schema","type":"object",
            "properties":{"a":{"type":["string","null"],"description":"x"},"b":{"$ref":"#/$defs/b"}},
            "$defs":{"b":{"type":"array","items":{"enum":[1,"x"]}}},"required":["a"],"additionalProperties":false}"##;
        assert_eq!(remarks(good).len(), 0);
    }
}
