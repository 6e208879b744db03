//! Settings: JSON to a typed value, with problems that say where.
//!
//! serde alone says "unknown field at line 1 column 40" and lets unknown keys pass unless asked; the
//! operator needs `/hosts/3` and a typo must never be silently ignored. So this is a deserializer
//! over a parsed document that knows its own place and refuses to ignore anything.

use std::fmt;

use serde::de::value::BorrowedStrDeserializer;
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Error as _, IntoDeserializer, MapAccess,
    SeqAccess, Unexpected, VariantAccess, Visitor,
};
use serde::forward_to_deserialize_any;
use serde_json::Value;

use crate::Problem;

/// The settings of a policy that has none: only `{}` is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoSettings {}

impl NoSettings {
    /// The schema that goes with it.
    pub const SCHEMA: &'static str = r#"{"$schema":"https://json-schema.org/draft/2020-12/schema","type":"object","properties":{},"additionalProperties":false}"#;
}

/// A settings document as a typed value.
pub(crate) fn parse<T: DeserializeOwned>(document: &str) -> Result<T, Vec<Problem>> {
    let value: Value =
        serde_json::from_str(document).map_err(|error| vec![Problem::document(format!("not JSON: {error}"))])?;
    from_value(&value).map_err(|error| vec![error.into_problem()])
}

/// A parsed document as a typed value.
pub(crate) fn from_value<T: DeserializeOwned>(value: &Value) -> Result<T, Misfit> {
    T::deserialize(Node { value, place: &Place::Root, siblings: &[] })
}

/// Why a document is not the value asked for, and where.
#[derive(Debug)]
pub(crate) struct Misfit {
    message: String,
    /// A key below `path` that the message is about, until `path` is known.
    key: Option<String>,
    path: Option<String>,
    /// The keys that would have been accepted.
    pub(crate) allowed: &'static [&'static str],
}

impl Misfit {
    /// The innermost place wins: the first to be called.
    fn at(mut self, place: &Place<'_>) -> Self {
        if self.path.is_none() {
            let mut path = place.pointer();
            if let Some(key) = self.key.take() {
                push_step(&mut path, &key);
            }
            self.path = Some(path);
        }
        self
    }

    /// A key that is no such key: an unknown one names itself.
    fn at_key(self, parent: &Place<'_>, key: &str) -> Self {
        if self.key.is_some() { self } else { self.at(&Place::Key(parent, key)) }
    }

    pub(crate) fn into_problem(self) -> Problem {
        Problem::at(self.path.unwrap_or_default(), self.message)
    }

    fn unknown_key(allowed: &'static [&'static str], key: &str) -> Self {
        let mut misfit = Self::custom(format_args!("unknown key `{}`; {}", key.escape_debug(), OneOf(allowed)));
        misfit.allowed = allowed;
        misfit
    }
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Misfit {}

impl de::Error for Misfit {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self { message: message.to_string(), key: None, path: None, allowed: &[] }
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        let mut misfit = Self::unknown_key(expected, field);
        misfit.key = Some(field.to_owned());
        misfit
    }

    fn missing_field(field: &'static str) -> Self {
        Self::custom(format_args!("`{field}` is required"))
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        Self::custom(format_args!("unknown value `{}`; {}", variant.escape_debug(), OneOf(expected)))
    }

    fn invalid_type(unexpected: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::custom(format_args!("expected {expected}, not {}", Json(unexpected)))
    }

    fn invalid_value(unexpected: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::custom(format_args!("expected {expected}, not {}", Json(unexpected)))
    }
}

/// `allowed: a, b`.
struct OneOf(&'static [&'static str]);

impl fmt::Display for OneOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none is allowed here");
        }
        f.write_str("allowed: ")?;
        for (index, name) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}`{name}`")?;
        }
        Ok(())
    }
}

/// What was found, in the words of JSON.
struct Json<'a>(Unexpected<'a>);

impl fmt::Display for Json<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Unexpected::Bool(value) => write!(f, "{value}"),
            Unexpected::Unsigned(value) => write!(f, "the number {value}"),
            Unexpected::Signed(value) => write!(f, "the number {value}"),
            Unexpected::Float(value) => write!(f, "the number {value}"),
            Unexpected::Str(value) => write!(f, "the string \"{}\"", value.escape_debug()),
            Unexpected::Unit | Unexpected::Option => f.write_str("null"),
            Unexpected::Seq => f.write_str("a list"),
            Unexpected::Map => f.write_str("an object"),
            other => write!(f, "{other}"),
        }
    }
}

/// Where in the document: a list that lives on the stack.
enum Place<'p> {
    Root,
    Key(&'p Place<'p>, &'p str),
    Item(&'p Place<'p>, usize),
}

impl Place<'_> {
    /// RFC 6901.
    fn pointer(&self) -> String {
        match self {
            Self::Root => String::new(),
            Self::Key(parent, key) => {
                let mut path = parent.pointer();
                push_step(&mut path, key);
                path
            }
            Self::Item(parent, index) => format!("{}/{index}", parent.pointer()),
        }
    }
}

fn push_step(path: &mut String, key: &str) {
    path.push('/');
    path.push_str(&key.replace('~', "~0").replace('/', "~1"));
}

#[derive(Clone, Copy)]
struct Node<'de, 'p> {
    value: &'de Value,
    place: &'p Place<'p>,
    /// The keys its parent accepts, for a node whose parent is about to ignore it.
    siblings: &'static [&'static str],
}

impl<'de> Node<'de, '_> {
    fn visit<V: Visitor<'de>>(self, visitor: V, fields: &'static [&'static str]) -> Result<V::Value, Misfit> {
        let Self { value, place, .. } = self;
        let visited = match value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Number(number) => {
                if let Some(value) = number.as_u64() {
                    visitor.visit_u64(value)
                } else if let Some(value) = number.as_i64() {
                    visitor.visit_i64(value)
                } else {
                    visitor.visit_f64(number.as_f64().unwrap_or(f64::NAN))
                }
            }
            Value::String(text) => visitor.visit_borrowed_str(text),
            Value::Array(items) => visitor.visit_seq(Items { items: items.iter().enumerate(), place }),
            Value::Object(members) => visitor.visit_map(Members { members: members.iter(), next: None, place, fields }),
        };
        visited.map_err(|misfit| misfit.at(place))
    }
}

impl<'de> Deserializer<'de> for Node<'de, '_> {
    type Error = Misfit;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        self.visit(visitor, &[])
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Misfit> {
        // serde would also take a list of the fields in order; nobody writes settings that way.
        if let Value::Array(_) = self.value {
            return Err(Misfit::invalid_type(Unexpected::Seq, &"an object").at(self.place));
        }
        self.visit(visitor, fields)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        match self.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _name: &'static str, visitor: V) -> Result<V::Value, Misfit> {
        let place = self.place;
        visitor.visit_newtype_struct(self).map_err(|misfit| misfit.at(place))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Misfit> {
        let place = self.place;
        let visited = match self.value {
            Value::String(name) => visitor.visit_enum(IntoDeserializer::<Misfit>::into_deserializer(name.as_str())),
            Value::Object(members) => {
                let mut members = members.iter();
                match (members.next(), members.next()) {
                    (Some((name, value)), None) => visitor.visit_enum(Variant { name, value, place }),
                    _ => Err(Misfit::custom("expected an object with one key")),
                }
            }
            _ => return self.visit(visitor, &[]),
        };
        visited.map_err(|misfit| misfit.at(place))
    }

    /// Nothing in a settings document is ignored.
    fn deserialize_ignored_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, Misfit> {
        let key = match self.place {
            Place::Key(_, key) => key,
            Place::Root | Place::Item(..) => "",
        };
        Err(Misfit::unknown_key(self.siblings, key).at(self.place))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf
        unit unit_struct seq tuple tuple_struct map identifier
    }
}

struct Items<'de, 'p> {
    items: std::iter::Enumerate<std::slice::Iter<'de, Value>>,
    place: &'p Place<'p>,
}

impl<'de> SeqAccess<'de> for Items<'de, '_> {
    type Error = Misfit;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Misfit> {
        let Some((index, value)) = self.items.next() else {
            return Ok(None);
        };
        let place = Place::Item(self.place, index);
        seed.deserialize(Node { value, place: &place, siblings: &[] }).map(Some).map_err(|misfit| misfit.at(&place))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len())
    }
}

struct Members<'de, 'p> {
    members: serde_json::map::Iter<'de>,
    next: Option<(&'de str, &'de Value)>,
    place: &'p Place<'p>,
    fields: &'static [&'static str],
}

impl<'de> MapAccess<'de> for Members<'de, '_> {
    type Error = Misfit;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Misfit> {
        let Some((key, value)) = self.members.next() else {
            return Ok(None);
        };
        self.next = Some((key, value));
        let read = seed.deserialize(BorrowedStrDeserializer::<Misfit>::new(key));
        read.map(Some).map_err(|misfit| misfit.at_key(self.place, key))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Misfit> {
        let (key, value) = self.next.take().ok_or_else(|| Misfit::custom("a value was read before its key"))?;
        let place = Place::Key(self.place, key);
        seed.deserialize(Node { value, place: &place, siblings: self.fields }).map_err(|misfit| misfit.at(&place))
    }
}

/// `{"name": value}` as an enum.
struct Variant<'de, 'p> {
    name: &'de str,
    value: &'de Value,
    place: &'p Place<'p>,
}

impl<'de, 'p> EnumAccess<'de> for Variant<'de, 'p> {
    type Error = Misfit;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Misfit> {
        let name = seed.deserialize(BorrowedStrDeserializer::<Misfit>::new(self.name))?;
        Ok((name, self))
    }
}

impl<'de> Variant<'de, '_> {
    /// Reads the content at its own place.
    fn content<T>(self, read: impl FnOnce(Node<'de, '_>) -> Result<T, Misfit>) -> Result<T, Misfit> {
        let place = Place::Key(self.place, self.name);
        read(Node { value: self.value, place: &place, siblings: &[] }).map_err(|misfit| misfit.at(&place))
    }
}

impl<'de> VariantAccess<'de> for Variant<'de, '_> {
    type Error = Misfit;

    fn unit_variant(self) -> Result<(), Misfit> {
        self.content(|node| de::Deserialize::deserialize(node))
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Misfit> {
        self.content(|node| seed.deserialize(node))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _len: usize, visitor: V) -> Result<V::Value, Misfit> {
        self.content(|node| node.deserialize_any(visitor))
    }

    fn struct_variant<V: Visitor<'de>>(self, fields: &'static [&'static str], visitor: V) -> Result<V::Value, Misfit> {
        self.content(|node| node.deserialize_struct("", fields, visitor))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;
    use crate::{HostPattern, Money, Name};

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "kebab-case", deny_unknown_fields)]
    #[expect(dead_code, reason = "only parsed")]
    struct Strict {
        per_day: Money,
        hosts: Option<Vec<HostPattern>>,
        by_client: Option<BTreeMap<String, Lenient>>,
        by_name: Option<BTreeMap<Name, Lenient>>,
        window: Option<Kind>,
        quorum: Option<u8>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "kebab-case")]
    #[expect(dead_code, reason = "only parsed")]
    struct Lenient {
        limit: Money,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "kebab-case")]
    #[expect(dead_code, reason = "only parsed")]
    enum Kind {
        Lifetime,
        Rolling(u32),
        Custom { days: u8 },
    }

    #[test]
    fn good_documents() {
        for document in [
            r#"{"per-day":"1"}"#,
            r#"{"per-day":"1","hosts":["a.example"],"window":"lifetime","quorum":null}"#,
            r#"{"per-day":"1","window":{"rolling":5},"by-client":{"acme/eu":{"limit":"2"}}}"#,
            r#"{"per-day":"1","window":{"custom":{"days":5}}}"#,
        ] {
            parse::<Strict>(document).unwrap();
        }
    }

    #[test]
    fn problems_say_where_and_what() {
        for (document, path, message) in [
            ("", "", "not JSON"),
            ("[]", "", "expected an object, not a list"),
            ("7", "", "not the number 7"),
            ("{}", "", "`per-day` is required"),
            (
                r#"{"per-day":"1","per-dai":"1"}"#,
                "/per-dai",
                "unknown key `per-dai`; allowed: `per-day`, `hosts`, `by-client`, `by-name`, `window`, `quorum`",
            ),
            (r#"{"per-day":1.5}"#, "/per-day", "decimal string such as \"1.00\", not the number 1.5"),
            (r#"{"per-day":"1.5 USD"}"#, "/per-day", "`1.5 USD` is not an amount"),
            (r#"{"per-day":"1","hosts":["a.example","B.example"]}"#, "/hosts/1", "lower case"),
            (r#"{"per-day":"1","hosts":"a.example"}"#, "/hosts", "sequence"),
            (r#"{"per-day":"1","quorum":256}"#, "/quorum", "expected u8, not the number 256"),
            (r#"{"per-day":"1","quorum":-1}"#, "/quorum", "not the number -1"),
            (r#"{"per-day":"1","by-client":{"a/b~c":{"limit":"x"}}}"#, "/by-client/a~1b~0c/limit", "not an amount"),
            (r#"{"per-day":"1","by-name":{"acme":{"limit":"1"},"Acme":{"limit":"2"}}}"#, "/by-name/Acme", "not a name"),
            // Not asked to deny unknown keys, refused nevertheless.
            (
                r#"{"per-day":"1","by-client":{"acme":{"limit":"1","limmit":"2"}}}"#,
                "/by-client/acme/limmit",
                "unknown key `limmit`; allowed: `limit`",
            ),
            (
                r#"{"per-day":"1","window":"weekly"}"#,
                "/window",
                "unknown value `weekly`; allowed: `lifetime`, `rolling`, `custom`",
            ),
            (r#"{"per-day":"1","window":{"rolling":"x"}}"#, "/window/rolling", "not the string"),
            (r#"{"per-day":"1","window":{"custom":{"days":1,"x":1}}}"#, "/window/custom/x", "allowed: `days`"),
        ] {
            let problems = parse::<Strict>(document).unwrap_err();
            assert_eq!(problems.len(), 1);
            assert_eq!(problems[0].path, path, "{document}: {}", problems[0].message);
            assert!(problems[0].message.contains(message), "{document}: {}", problems[0].message);
        }
    }

    #[test]
    fn no_settings_takes_only_an_empty_object() {
        parse::<NoSettings>("{}").unwrap();
        assert_eq!(parse::<NoSettings>(r#"{"a":1}"#).unwrap_err()[0].path, "/a");
    }
}
