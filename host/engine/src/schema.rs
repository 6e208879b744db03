//! Settings against the schema the policy brings (JSON Schema 2020-12, the part that needs no network).
//!
//! The schema is a guest's word, so validating must end soon whatever it says: steps are counted, and
//! a schema whose references multiply is refused instead of followed. That, and that nothing is ever
//! fetched, is why this is not a library: those bound neither. A keyword that would constrain the
//! document and is not known here is refused too; only annotations are passed over.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::io;

use regex::{Regex, RegexBuilder};
use serde_json::{Map, Value};

/// Applications of a schema to a value.
const STEPS: u32 = 200_000;
/// Nested applications.
const DEPTH: u32 = 64;
/// Problems collected.
const PROBLEMS: usize = 64;
/// Compiled size of one pattern, and what compiling it costs in steps.
const PATTERN_BYTES: usize = 1 << 18;
const PATTERN_STEPS: usize = 500;

/// Says nothing about a document.
const ANNOTATIONS: [&str; 15] = [
    "$schema",
    "$id",
    "$anchor",
    "$comment",
    "$defs",
    "definitions",
    "title",
    "description",
    "default",
    "examples",
    "deprecated",
    "readOnly",
    "writeOnly",
    "then",
    "else",
];

/// Something wrong with a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// JSON pointer into the document.
    pub(crate) path: String,
    pub(crate) message: String,
}

/// The schema itself is no good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BadSchema(String);

impl fmt::Display for BadSchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "its settings schema {}", self.0)
    }
}

type Checked = Result<(), BadSchema>;

/// What is wrong with `document`; nothing, if it is valid.
///
/// # Errors
/// When the schema asks for what is not supported, or for too much work.
pub(crate) fn validate(schema: &Value, document: &Value) -> Result<Vec<Found>, BadSchema> {
    let mut run = Run {
        root: schema,
        steps: STEPS,
        depth: 0,
        found: Vec::new(),
        quiet: false,
        failed: false,
        patterns: BTreeMap::new(),
    };
    run.apply(schema, document, "")?;
    Ok(run.found)
}

struct Run<'s> {
    root: &'s Value,
    steps: u32,
    depth: u32,
    found: Vec<Found>,
    /// What is found now only answers whether a schema holds.
    quiet: bool,
    failed: bool,
    patterns: BTreeMap<&'s str, Regex>,
}

impl<'s> Run<'s> {
    fn apply(&mut self, schema: &'s Value, value: &Value, at: &str) -> Checked {
        self.spend(1)?;
        match schema {
            Value::Bool(true) => Ok(()),
            Value::Bool(false) => {
                self.report(at, || "nothing is allowed here".to_owned());
                Ok(())
            }
            Value::Object(keywords) => {
                if self.depth >= DEPTH {
                    return Err(BadSchema(format!("nests deeper than {DEPTH}, or refers to itself without end")));
                }
                self.depth += 1;
                let done = keywords.iter().try_for_each(|(name, body)| self.keyword(keywords, name, body, value, at));
                self.depth -= 1;
                done
            }
            _ => Err(BadSchema("has something that is neither an object nor a boolean where a schema belongs".into())),
        }
    }

    /// Pays for work: everything whose amount the schema or the document decides.
    fn spend(&mut self, steps: usize) -> Checked {
        let left = u32::try_from(steps).ok().and_then(|steps| self.steps.checked_sub(steps));
        self.steps = left.ok_or_else(|| {
            BadSchema(format!("takes more than {STEPS} steps to apply to these settings; simplify it"))
        })?;
        Ok(())
    }

    /// The message is made only if somebody will read it.
    fn report(&mut self, at: &str, message: impl FnOnce() -> String) {
        self.failed = true;
        if !self.quiet && self.found.len() < PROBLEMS {
            self.found.push(Found { path: at.to_owned(), message: message() });
        }
    }

    /// Applies a schema and answers whether it held, reporting nothing.
    fn holds(&mut self, schema: &'s Value, value: &Value, at: &str) -> Result<bool, BadSchema> {
        let before = (std::mem::replace(&mut self.quiet, true), std::mem::replace(&mut self.failed, false));
        let done = self.apply(schema, value, at);
        let held = !self.failed;
        (self.quiet, self.failed) = before;
        done.map(|()| held)
    }

    /// Matching takes time linear in the text, whatever the pattern; compiling one costs more and is done once.
    fn pattern(&mut self, source: &'s str) -> Result<Regex, BadSchema> {
        if let Some(known) = self.patterns.get(source) {
            return Ok(known.clone());
        }
        self.spend(PATTERN_STEPS)?;
        let built = RegexBuilder::new(source).size_limit(PATTERN_BYTES).build();
        let built = built.map_err(|_| {
            BadSchema(format!("has a pattern this host cannot match: {}", crate::failure::cut(source, 120)))
        })?;
        self.patterns.insert(source, built.clone());
        Ok(built)
    }

    fn keyword(
        &mut self,
        all: &'s Map<String, Value>,
        name: &str,
        body: &'s Value,
        value: &Value,
        at: &str,
    ) -> Checked {
        match name {
            "$ref" => {
                let target = self.target(body)?;
                self.apply(target, value, at)
            }
            "type" => self.kind(body, value, at),
            "enum" => {
                let options = list(body, name)?;
                self.spend(options.len())?;
                if !options.contains(value) {
                    self.report(at, || format!("must be one of {}", shown_all(options)));
                }
                Ok(())
            }
            "const" => {
                if body != value {
                    self.report(at, || format!("must be {}", shown(body)));
                }
                Ok(())
            }
            "allOf" | "anyOf" | "oneOf" | "not" | "if" => self.combination(all, name, body, value, at),
            "properties"
            | "patternProperties"
            | "additionalProperties"
            | "propertyNames"
            | "required"
            | "dependentRequired"
            | "minProperties"
            | "maxProperties" => match value {
                Value::Object(members) => self.object(all, name, body, members, at),
                _ => Ok(()),
            },
            "items" | "prefixItems" | "contains" | "uniqueItems" | "minItems" | "maxItems" => match value {
                Value::Array(items) => self.array(all, name, body, items, at),
                _ => Ok(()),
            },
            "minLength" | "maxLength" | "pattern" | "format" => match value {
                Value::String(text) => self.string(name, body, text, at),
                _ => Ok(()),
            },
            "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum" | "multipleOf" => match value {
                Value::Number(number) => self.number(name, body, number, at),
                _ => Ok(()),
            },
            _ if ANNOTATIONS.contains(&name) || name.starts_with("x-") => Ok(()),
            _ => {
                Err(BadSchema(format!("uses `{}`, which this host does not check; leave it out", name.escape_debug())))
            }
        }
    }

    /// `#`, or `#/$defs/name`.
    fn target(&self, reference: &Value) -> Result<&'s Value, BadSchema> {
        let bad = || BadSchema(format!("refers to {}, which is not in it", shown(reference)));
        let pointer = reference.as_str().and_then(|r| r.strip_prefix('#')).ok_or_else(bad)?;
        self.root.pointer(pointer).ok_or_else(bad)
    }

    fn kind(&mut self, body: &Value, value: &Value, at: &str) -> Checked {
        self.spend(body.as_array().map_or(0, Vec::len))?;
        let is = |wanted: &Value| match wanted.as_str() {
            Some("null") => Ok(value.is_null()),
            Some("boolean") => Ok(value.is_boolean()),
            Some("string") => Ok(value.is_string()),
            Some("array") => Ok(value.is_array()),
            Some("object") => Ok(value.is_object()),
            Some("number") => Ok(value.is_number()),
            Some("integer") => Ok(value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|n| n.fract() == 0.0)),
            _ => Err(BadSchema(format!("names a type there is not: {}", shown(wanted)))),
        };
        let held = match body {
            Value::Array(several) => several.iter().try_fold(false, |held, one| is(one).map(|is| held || is))?,
            one => is(one)?,
        };
        if !held {
            self.report(at, || format!("must be of type {}, not {}", plain(body), shown(value)));
        }
        Ok(())
    }

    fn combination(
        &mut self,
        all: &'s Map<String, Value>,
        name: &str,
        body: &'s Value,
        value: &Value,
        at: &str,
    ) -> Checked {
        match name {
            "allOf" => list(body, name)?.iter().try_for_each(|one| self.apply(one, value, at)),
            "not" => {
                if self.holds(body, value, at)? {
                    self.report(at, || "is what must not be here".to_owned());
                }
                Ok(())
            }
            "if" => {
                let branch = if self.holds(body, value, at)? { "then" } else { "else" };
                all.get(branch).map_or(Ok(()), |schema| self.apply(schema, value, at))
            }
            _ => {
                let mut held = 0_usize;
                for one in list(body, name)? {
                    held += usize::from(self.holds(one, value, at)?);
                }
                match (name, held) {
                    ("anyOf", 0) | ("oneOf", 0) => self.report(at, || "fits none of the alternatives".to_owned()),
                    ("oneOf", 2..) => self.report(at, || "fits more than one of the alternatives".to_owned()),
                    _ => {}
                }
                Ok(())
            }
        }
    }

    fn object(
        &mut self,
        all: &'s Map<String, Value>,
        name: &str,
        body: &'s Value,
        members: &Map<String, Value>,
        at: &str,
    ) -> Checked {
        match name {
            "properties" => map(body, name)?.iter().try_for_each(|(key, schema)| {
                members.get(key).map_or(Ok(()), |value| self.apply(schema, value, &below(at, key)))
            }),
            "patternProperties" => {
                for (source, schema) in map(body, name)? {
                    let pattern = self.pattern(source)?;
                    for (key, value) in members {
                        self.spend(1 + key.len() / 64)?;
                        if pattern.is_match(key) {
                            self.apply(schema, value, &below(at, key))?;
                        }
                    }
                }
                Ok(())
            }
            "additionalProperties" => self.additional(all, body, members, at),
            "propertyNames" => {
                members.keys().try_for_each(|key| self.apply(body, &Value::String(key.clone()), &below(at, key)))
            }
            "required" => {
                self.spend(list(body, name)?.len())?;
                for key in strings(body, name)? {
                    if !members.contains_key(key) {
                        self.report(at, || format!("`{key}` is missing"));
                    }
                }
                Ok(())
            }
            "dependentRequired" => {
                for (key, others) in map(body, name)? {
                    self.spend(1 + list(others, name)?.len())?;
                    for other in strings(others, name)?.into_iter().filter(|_| members.contains_key(key)) {
                        if !members.contains_key(other) {
                            self.report(at, || format!("`{key}` needs `{other}` beside it"));
                        }
                    }
                }
                Ok(())
            }
            _ => self.size(name, body, members.len(), "members", at),
        }
    }

    fn additional(
        &mut self,
        all: &'s Map<String, Value>,
        body: &'s Value,
        members: &Map<String, Value>,
        at: &str,
    ) -> Checked {
        let named = all.get("properties").and_then(Value::as_object);
        let patterns = match all.get("patternProperties").and_then(Value::as_object) {
            Some(sources) => sources.keys().map(|source| self.pattern(source)).collect::<Result<Vec<_>, _>>()?,
            None => Vec::new(),
        };
        for (key, value) in members {
            self.spend(1 + patterns.len() * (1 + key.len() / 64))?;
            let known = named.is_some_and(|n| n.contains_key(key)) || patterns.iter().any(|p| p.is_match(key));
            match body {
                _ if known => {}
                Value::Bool(false) => {
                    self.report(&below(at, key), || {
                        let allowed: Vec<&str> = named.into_iter().flat_map(Map::keys).map(String::as_str).collect();
                        format!("unknown key; there are {}", allowed.join(", "))
                    });
                }
                schema => self.apply(schema, value, &below(at, key))?,
            }
        }
        Ok(())
    }

    fn array(
        &mut self,
        all: &'s Map<String, Value>,
        name: &str,
        body: &'s Value,
        items: &[Value],
        at: &str,
    ) -> Checked {
        match name {
            "prefixItems" => {
                let schemas = list(body, name)?;
                let mut pairs = schemas.iter().zip(items).enumerate();
                pairs.try_for_each(|(i, (schema, item))| self.apply(schema, item, &below(at, &i.to_string())))
            }
            "items" => {
                let before = all.get("prefixItems").and_then(Value::as_array).map_or(0, Vec::len);
                let mut rest = items.iter().enumerate().skip(before);
                rest.try_for_each(|(i, item)| self.apply(body, item, &below(at, &i.to_string())))
            }
            "contains" => {
                for item in items {
                    if self.holds(body, item, at)? {
                        return Ok(());
                    }
                }
                self.report(at, || "lacks an item that it must contain".to_owned());
                Ok(())
            }
            "uniqueItems" => {
                for (i, item) in items.iter().enumerate() {
                    for earlier in items.iter().take(i) {
                        self.spend(1)?;
                        if body == &Value::Bool(true) && earlier == item {
                            self.report(&below(at, &i.to_string()), || "is in the list twice".to_owned());
                            break;
                        }
                    }
                }
                Ok(())
            }
            _ => self.size(name, body, items.len(), "items", at),
        }
    }

    fn string(&mut self, name: &str, body: &'s Value, text: &str, at: &str) -> Checked {
        self.spend(text.len() / 64)?;
        match name {
            "pattern" => {
                let source = body.as_str().ok_or_else(|| misused(name))?;
                if !self.pattern(source)?.is_match(text) {
                    self.report(at, || format!("does not have the form {}", crate::failure::cut(source, 120)));
                }
                Ok(())
            }
            // The one format that only the host can check; all others are annotations.
            "format" => {
                if body.as_str() == Some("iana-time-zone") && !countersign_core::budget::is_zone(text) {
                    self.report(at, || "is not an IANA time zone such as UTC or Europe/Berlin".to_owned());
                }
                Ok(())
            }
            _ => self.size(name, body, text.chars().count(), "characters", at),
        }
    }

    /// `minX` or `maxX` of a count.
    fn size(&mut self, name: &str, body: &Value, count: usize, what: &str, at: &str) -> Checked {
        let limit = body.as_u64().ok_or_else(|| misused(name))?;
        let count = count as u64;
        if name.starts_with("min") && count < limit {
            self.report(at, || format!("has {count} {what}, at least {limit} are needed"));
        } else if name.starts_with("max") && count > limit {
            self.report(at, || format!("has {count} {what}, at most {limit} are allowed"));
        }
        Ok(())
    }

    fn number(&mut self, name: &str, body: &Value, number: &serde_json::Number, at: &str) -> Checked {
        let Value::Number(limit) = body else { return Err(misused(name)) };
        let order = compared(number, limit);
        let (held, what) = match name {
            "minimum" => (order.is_some_and(Ordering::is_ge), "at least"),
            "maximum" => (order.is_some_and(Ordering::is_le), "at most"),
            "exclusiveMinimum" => (order.is_some_and(Ordering::is_gt), "above"),
            "exclusiveMaximum" => (order.is_some_and(Ordering::is_lt), "below"),
            _ => (is_multiple(number, limit), "a multiple of"),
        };
        if !held {
            self.report(at, || format!("must be {what} {body}"));
        }
        Ok(())
    }
}

/// Exactly, if both are integers.
fn compared(a: &serde_json::Number, b: &serde_json::Number) -> Option<Ordering> {
    match (a.as_i128(), b.as_i128()) {
        (Some(a), Some(b)) => Some(a.cmp(&b)),
        _ => a.as_f64()?.partial_cmp(&b.as_f64()?),
    }
}

/// 0.07 is a multiple of 0.01, although no double is.
fn is_multiple(number: &serde_json::Number, of: &serde_json::Number) -> bool {
    if let (Some(number), Some(of)) = (number.as_i128(), of.as_i128()) {
        return number.checked_rem(of) == Some(0);
    }
    let (Some(number), Some(of)) = (number.as_f64(), of.as_f64()) else { return false };
    let times = number / of;
    of > 0.0 && (times - times.round()).abs() <= 1e-9 * times.abs().max(1.0)
}

fn misused(name: &str) -> BadSchema {
    BadSchema(format!("gives `{name}` something it cannot be"))
}

fn list<'a>(body: &'a Value, name: &str) -> Result<&'a Vec<Value>, BadSchema> {
    body.as_array().ok_or_else(|| misused(name))
}

fn map<'a>(body: &'a Value, name: &str) -> Result<&'a Map<String, Value>, BadSchema> {
    body.as_object().ok_or_else(|| misused(name))
}

fn strings<'a>(body: &'a Value, name: &str) -> Result<Vec<&'a str>, BadSchema> {
    list(body, name)?.iter().map(|one| one.as_str().ok_or_else(|| misused(name))).collect()
}

/// A JSON pointer one step further.
fn below(at: &str, key: &str) -> String {
    format!("{at}/{}", key.replace('~', "~0").replace('/', "~1"))
}

/// The beginning of a value. No more of it is written than is shown.
fn shown(value: &Value) -> String {
    struct Beginning(Vec<u8>);
    impl io::Write for Beginning {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.0.len() > 400 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.0.extend(bytes.iter().take(512));
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut beginning = Beginning(Vec::new());
    // It ends early when there is more than is shown.
    drop(serde_json::to_writer(&mut beginning, value));
    crate::failure::cut(&String::from_utf8_lossy(&beginning.0), 80)
}

fn shown_all(values: &[Value]) -> String {
    values.iter().take(20).map(shown).collect::<Vec<_>>().join(", ")
}

/// `string`, or `string, null`.
fn plain(body: &Value) -> String {
    match body {
        Value::Array(several) => several.iter().map(plain).collect::<Vec<_>>().join(", "),
        one => one.as_str().map_or_else(|| shown(one), str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// `wrong`: the paths of what is found.
    fn check(schema: &Value, document: &Value, wrong: &[&str]) {
        let found = validate(schema, document).unwrap();
        let mut paths: Vec<&str> = found.iter().map(|f| f.path.as_str()).collect();
        paths.sort_unstable();
        assert_eq!(paths, wrong, "{schema} {document}: {found:?}");
    }

    fn refused(schema: &Value, document: &Value, part: &str) {
        let error = validate(schema, document).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }

    #[test]
    fn types() {
        for (kind, good) in [
            ("null", json!(null)),
            ("boolean", json!(true)),
            ("string", json!("")),
            ("array", json!([])),
            ("object", json!({})),
            ("number", json!(1.5)),
            ("integer", json!(7)),
        ] {
            check(&json!({"type": kind}), &good, &[]);
            check(&json!({"type": ["null", kind]}), &good, &[]);
            let other = if kind == "string" { json!(1) } else { json!("x") };
            check(&json!({"type": kind}), &other, &[""]);
        }
        check(&json!({"type": "integer"}), &json!(1.5), &[""]);
        check(&json!({"type": "integer"}), &json!(2.0), &[]);
        refused(&json!({"type": "money"}), &json!(1), "type there is not");
    }

    #[test]
    fn objects() {
        let schema = json!({"type": "object", "properties": {"a": {"type": "string"}, "b/~": {"minimum": 1}},
            "patternProperties": {"^x-": {"type": "boolean"}}, "required": ["a"], "additionalProperties": false});
        check(&schema, &json!({"a": "", "b/~": 1, "x-y": true}), &[]);
        check(&schema, &json!({"b/~": 0, "x-y": 1}), &["", "/b~1~0", "/x-y"]);
        check(&schema, &json!({"a": "", "c": 1}), &["/c"]);
        let schema =
            json!({"additionalProperties": {"type": "string"}, "propertyNames": {"maxLength": 2}, "maxProperties": 2});
        check(&schema, &json!({"a": 1, "bcd": ""}), &["/a", "/bcd"]);
        check(&schema, &json!({"a": "", "b": "", "c": ""}), &[""]);
        check(&json!({"dependentRequired": {"a": ["b"]}}), &json!({"a": 1}), &[""]);
        check(&json!({"dependentRequired": {"a": ["b"]}}), &json!({"c": 1}), &[]);
    }

    #[test]
    fn arrays() {
        let schema = json!({"prefixItems": [{"type": "string"}], "items": {"type": "integer"}, "minItems": 1, "uniqueItems": true});
        check(&schema, &json!(["a", 1, 2]), &[]);
        check(&schema, &json!([1, "a"]), &["/0", "/1"]);
        check(&schema, &json!([]), &[""]);
        check(&schema, &json!(["a", 1, 1]), &["/2"]);
        check(&json!({"contains": {"const": 3}}), &json!([1, 3]), &[]);
        check(&json!({"contains": {"const": 3}}), &json!([1]), &[""]);
    }

    #[test]
    fn strings_and_numbers() {
        check(&json!({"minLength": 2, "maxLength": 3}), &json!("äöü"), &[]);
        check(&json!({"minLength": 2}), &json!("ä"), &[""]);
        check(&json!({"pattern": "^[a-z]+$"}), &json!("ab1"), &[""]);
        check(&json!({"exclusiveMinimum": 1}), &json!(1), &[""]);
        check(&json!({"multipleOf": 5}), &json!(15), &[]);
        check(&json!({"multipleOf": 5}), &json!(16), &[""]);
        check(&json!({"multipleOf": 0.01}), &json!(0.07), &[]);
        check(&json!({"multipleOf": 0.01}), &json!(0.075), &[""]);
        check(&json!({"maximum": 4_000_000_000_000_000_000_u64}), &json!(4_000_000_000_000_000_001_u64), &[""]);
        check(&json!({"format": "iana-time-zone"}), &json!("Europe/Berlin"), &[]);
        check(&json!({"format": "iana-time-zone"}), &json!("Mars/Base"), &[""]);
        check(&json!({"format": "date-time"}), &json!("whenever"), &[]);
    }

    #[test]
    fn combinations_and_references() {
        let schema = json!({"$ref": "#/$defs/cap", "$defs": {"cap": {"anyOf": [{"type": "string"}, {"const": 0}]}}});
        check(&schema, &json!("1"), &[]);
        check(&schema, &json!(0), &[]);
        check(&schema, &json!(1), &[""]);
        check(&json!({"oneOf": [{"type": "integer"}, {"minimum": 1}]}), &json!(5), &[""]);
        check(&json!({"not": {"type": "string"}}), &json!("x"), &[""]);
        let schema = json!({"if": {"required": ["a"]}, "then": {"required": ["b"]}, "else": {"required": ["c"]}});
        check(&schema, &json!({"a": 1}), &[""]);
        check(&schema, &json!({"a": 1, "b": 1}), &[]);
        check(&schema, &json!({"c": 1}), &[]);
        check(&json!(false), &json!(1), &[""]);
    }

    #[test]
    fn hostile_schemas_end() {
        refused(&json!({"$ref": "#"}), &json!(1), "without end");
        refused(&json!({"$ref": "https://evil.example/"}), &json!(1), "not in it");
        refused(&json!({"unevaluatedProperties": false}), &json!({}), "does not check");
        refused(&json!({"pattern": "(a{1000}){1000}"}), &json!("a"), "cannot match");
        refused(&json!({"pattern": "(?=a)"}), &json!("a"), "cannot match");
        refused(&json!({"allOf": 7}), &json!(1), "cannot be");
        let mut defs = Map::new();
        for i in 0..20 {
            let next = json!({"$ref": format!("#/$defs/d{}", i + 1)});
            defs.insert(format!("d{i}"), json!({"allOf": [next, next]}));
        }
        defs.insert("d20".to_owned(), json!(true));
        refused(&json!({"$ref": "#/$defs/d0", "$defs": defs}), &json!(1), "steps");
        let many: Vec<u32> = (0..5_000).collect();
        refused(&json!({"uniqueItems": true}), &json!(many), "steps");
        let patterns: Map<String, Value> = (0..500).map(|n| (format!("[a-z]{{9}}a{n}"), json!(true))).collect();
        refused(&json!({"patternProperties": patterns}), &json!({}), "steps");
        let options = json!({"enum": many});
        let twice = json!({"allOf": [options, options, options, options, options, options, options, options, options]});
        refused(&json!({"items": twice}), &json!(["a", "b", "c", "d", "e"]), "steps");
    }

    #[test]
    fn problems_are_bounded() {
        let many: Vec<u32> = (0..1_000).collect();
        assert_eq!(validate(&json!({"items": {"type": "string"}}), &json!(many)).unwrap().len(), PROBLEMS);
    }
}
