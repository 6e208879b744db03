//! JSON in its only spelling, so that a record has one hash and no second reading.
//!
//! It is what sorting and squeezing leaves of JSON: no blanks; the keys of an object ascend by their
//! UTF-8 bytes, none twice; in strings only `"`, `\` and the control characters below U+0020 are escaped,
//! those with a short escape by it, the others as `\u00` and two lower-case hex digits; numbers are
//! integers from -2^63 to 2^64 - 1 without sign of plus, leading zero or `-0`. Whatever is read here
//! is byte for byte what `countersign_core::json::canonical` would write of it.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;

/// How deep arrays and objects may nest.
pub const MAX_DEPTH: usize = 32;

/// The text is not JSON in its only spelling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CanonError {
    /// What was expected.
    pub expected: &'static str,
    /// At which byte, from 0.
    pub at: usize,
}

impl fmt::Display for CanonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not canonical JSON: expected {} at byte {}", self.expected, self.at)
    }
}

impl std::error::Error for CanonError {}

/// A value, and its own bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Json<'a> {
    /// Exactly the text it was read from.
    pub raw: &'a str,
    /// What it says.
    pub value: Value<'a>,
}

/// What a value says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// An integer; its text is [`Json::raw`].
    Number,
    /// A string with its escapes resolved.
    String(Cow<'a, str>),
    /// An array.
    Array(Vec<Json<'a>>),
    /// An object, its keys ascending.
    Object(Vec<(Cow<'a, str>, Json<'a>)>),
}

impl<'a> Json<'a> {
    /// Reads exactly one value, nested at most [`MAX_DEPTH`] deep.
    ///
    /// # Errors
    /// What is odd, and where.
    pub fn parse(text: &'a str) -> Result<Self, CanonError> {
        Self::parse_within(text, MAX_DEPTH)
    }

    /// As [`Json::parse`], with another depth.
    pub(crate) fn parse_within(text: &'a str, depth: usize) -> Result<Self, CanonError> {
        let mut reader = Reader { text, at: 0 };
        let value = reader.value(depth)?;
        if reader.at == text.len() { Ok(value) } else { reader.expected("the end") }
    }

    /// The member `key` of an object; none for other kinds and for `null`.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Self> {
        let Value::Object(members) = &self.value else { return None };
        let (_, member) = members.iter().find(|(name, _)| name == key)?;
        (member.value != Value::Null).then_some(member)
    }

    /// The members of an object.
    #[must_use]
    pub fn members(&self) -> Option<&[(Cow<'a, str>, Self)]> {
        match &self.value {
            Value::Object(members) => Some(members),
            _ => None,
        }
    }

    /// The items of an array.
    #[must_use]
    pub fn items(&self) -> Option<&[Self]> {
        match &self.value {
            Value::Array(items) => Some(items),
            _ => None,
        }
    }

    /// The text of a string.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match &self.value {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// A number that is not negative.
    #[must_use]
    pub fn as_u64(&self) -> Option<u64> {
        match self.value {
            Value::Number => self.raw.parse().ok(),
            _ => None,
        }
    }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn expected<T>(&self, expected: &'static str) -> Result<T, CanonError> {
        Err(CanonError { expected, at: self.at })
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn step(&mut self) {
        self.at = self.at.saturating_add(1);
    }

    fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        if found {
            self.step();
        }
        found
    }

    fn since(&self, start: usize) -> &'a str {
        self.text.get(start..self.at).unwrap_or_default()
    }

    fn value(&mut self, depth: usize) -> Result<Json<'a>, CanonError> {
        let start = self.at;
        let value = match self.peek() {
            Some(b'"') => Value::String(self.string()?),
            Some(b'{') => Value::Object(self.object(depth)?),
            Some(b'[') => Value::Array(self.array(depth)?),
            Some(b'-' | b'0'..=b'9') => self.number()?,
            _ => self.word()?,
        };
        Ok(Json { raw: self.since(start), value })
    }

    fn word(&mut self) -> Result<Value<'a>, CanonError> {
        let rest = self.text.get(self.at..).unwrap_or_default();
        for (word, value) in [("null", Value::Null), ("true", Value::Bool(true)), ("false", Value::Bool(false))] {
            if rest.starts_with(word) {
                self.at = self.at.saturating_add(word.len());
                return Ok(value);
            }
        }
        self.expected("a value")
    }

    fn number(&mut self) -> Result<Value<'a>, CanonError> {
        let start = self.at;
        let negative = self.take(b'-');
        let zero = self.peek() == Some(b'0');
        let digits = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.step();
        }
        let count = self.at.saturating_sub(digits);
        let text = self.since(start);
        let fits = if negative { text.parse::<i64>().is_ok() } else { text.parse::<u64>().is_ok() };
        if !fits || (zero && (count > 1 || negative)) {
            self.at = start;
            return self.expected("an integer in its shortest form");
        }
        Ok(Value::Number)
    }

    fn string(&mut self) -> Result<Cow<'a, str>, CanonError> {
        self.step();
        let start = self.at;
        self.plain();
        if self.take(b'"') {
            let end = self.at.saturating_sub(1);
            return Ok(Cow::Borrowed(self.text.get(start..end).unwrap_or_default()));
        }
        let mut text = self.since(start).to_owned();
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.step();
                    return Ok(Cow::Owned(text));
                }
                Some(b'\\') => text.push(self.escape()?),
                _ => return self.expected("the end of a string, control characters being escaped"),
            }
            let from = self.at;
            self.plain();
            text.push_str(self.since(from));
        }
    }

    /// Goes over what stands for itself.
    fn plain(&mut self) {
        let rest = self.text.as_bytes().get(self.at..).unwrap_or_default();
        let end = rest.iter().position(|b| *b < 0x20 || *b == b'"' || *b == b'\\').unwrap_or(rest.len());
        self.at = self.at.saturating_add(end);
    }

    fn escape(&mut self) -> Result<char, CanonError> {
        let rest = self.text.get(self.at..).unwrap_or_default();
        // The writer's own list; whatever it would have spelled otherwise is not in it.
        for (written, means) in ESCAPES {
            if rest.starts_with(written) {
                self.at = self.at.saturating_add(written.len());
                return Ok(means);
            }
        }
        let code = rest.strip_prefix("\\u00").and_then(|hex| hex.get(..2));
        let lower = code.filter(|code| code.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')));
        let means = lower.and_then(|code| u8::from_str_radix(code, 16).ok()).map(char::from);
        match means.filter(|c| *c < ' ' && ESCAPES.iter().all(|(_, short)| short != c)) {
            Some(means) => {
                self.at = self.at.saturating_add(6);
                Ok(means)
            }
            None => self.expected("the only escape of a character that needs one"),
        }
    }

    fn inner(&self, depth: usize) -> Result<usize, CanonError> {
        depth.checked_sub(1).map_or_else(|| self.expected("less nesting"), Ok)
    }

    fn array(&mut self, depth: usize) -> Result<Vec<Json<'a>>, CanonError> {
        let depth = self.inner(depth)?;
        self.step();
        let mut items = Vec::new();
        if self.take(b']') {
            return Ok(items);
        }
        loop {
            items.push(self.value(depth)?);
            if self.take(b']') {
                return Ok(items);
            }
            if !self.take(b',') {
                return self.expected("`,` or `]`");
            }
        }
    }

    fn object(&mut self, depth: usize) -> Result<Vec<(Cow<'a, str>, Json<'a>)>, CanonError> {
        let depth = self.inner(depth)?;
        self.step();
        let mut members: Vec<(Cow<'a, str>, Json<'a>)> = Vec::new();
        if self.take(b'}') {
            return Ok(members);
        }
        loop {
            let start = self.at;
            if self.peek() != Some(b'"') {
                return self.expected("a key");
            }
            let key = self.string()?;
            if members.last().is_some_and(|(last, _)| last.as_bytes().cmp(key.as_bytes()) != Ordering::Less) {
                self.at = start;
                return self.expected("a key above the one before it");
            }
            if !self.take(b':') {
                return self.expected("`:`");
            }
            members.push((key, self.value(depth)?));
            if self.take(b'}') {
                return Ok(members);
            }
            if !self.take(b',') {
                return self.expected("`,` or `}`");
            }
        }
    }
}

const ESCAPES: [(&str, char); 7] =
    [("\\\"", '"'), ("\\\\", '\\'), ("\\b", '\u{8}'), ("\\t", '\t'), ("\\n", '\n'), ("\\f", '\u{c}'), ("\\r", '\r')];

#[cfg(test)]
mod tests {
    use countersign_core::json::canonical;
    use proptest::collection::{btree_map, vec};
    use proptest::prelude::*;
    use serde_json::Value as Any;

    use super::*;

    fn any_json() -> impl Strategy<Value = Any> {
        let leaf = prop_oneof![
            Just(Any::Null),
            any::<bool>().prop_map(Any::from),
            any::<i64>().prop_map(Any::from),
            any::<u64>().prop_map(Any::from),
            (-2_i64..3).prop_map(Any::from),
            ".{0,9}".prop_map(Any::from),
            "[\\x00-\\x22\\\\/u0-f\\x7f]{0,9}".prop_map(Any::from),
        ];
        leaf.prop_recursive(4, 40, 6, |inner| {
            prop_oneof![
                vec(inner.clone(), 0..5).prop_map(Any::from),
                btree_map("[\\x00-\\x22\\\\a-d\u{e000}\u{10000}]{0,3}", inner, 0..5)
                    .prop_map(|m| Any::Object(m.into_iter().collect())),
            ]
        })
    }

    fn same(ours: &Json<'_>, theirs: &Any) -> bool {
        match (&ours.value, theirs) {
            (Value::Null, Any::Null) => true,
            (Value::Bool(a), Any::Bool(b)) => a == b,
            (Value::Number, Any::Number(b)) => ours.raw == b.to_string(),
            (Value::String(a), Any::String(b)) => a == b,
            (Value::Array(a), Any::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
            (Value::Object(a), Any::Object(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|((k, a), (l, b))| k == l && same(a, b))
            }
            _ => false,
        }
    }

    #[test]
    fn odd_spellings_are_refused() {
        let odd = [
            "",
            " 1",
            "1 ",
            "01",
            "-0",
            "-01",
            "+1",
            "1.0",
            "1e3",
            "-",
            "18446744073709551616",
            "-9223372036854775809",
            "NaN",
            "nul",
            "'a'",
            "[1,]",
            "[1 ,2]",
            "[,]",
            "{\"a\":1,}",
            "{\"b\":1,\"a\":1}",
            "{\"a\":1,\"a\":1}",
            "{\"a\" :1}",
            "{a:1}",
            "{\"a\"}",
            "\"\\u0041\"",
            "\"\\u000a\"",
            "\"\\u001F\"",
            "\"\\u0022\"",
            "\"\\/\"",
            "\"\\ud800\"",
            "\"\n\"",
            "\"a",
            "\"\\",
            "\"\\u00",
            "[",
            "{",
            "{\"a\":",
            "1\n",
            "\u{feff}1",
        ];
        for text in odd {
            assert!(Json::parse(text).is_err(), "{text:?}");
        }
        for text in ["0", "-1", "18446744073709551615", "-9223372036854775808", "\"\\u001f\u{7f}\"", "[]", "{}", "null"]
        {
            assert_eq!(Json::parse(text).unwrap().raw, text);
        }
    }

    #[test]
    fn nesting_has_an_end() {
        let deep = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        assert!(Json::parse(&deep(MAX_DEPTH)).is_ok());
        assert_eq!(Json::parse(&deep(MAX_DEPTH + 1)).unwrap_err().expected, "less nesting");
        assert!(Json::parse(&deep(100_000)).is_err());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(value in any_json()) {
            let text = canonical(&value);
            let read = Json::parse(&text);
            prop_assert!(read.as_ref().is_ok_and(|read| same(read, &value)), "{text} {read:?}");
        }

        #[test]
        fn what_is_read_is_what_would_be_written(value in any_json(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let mut bytes = canonical(&value).into_bytes();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            if let Ok(text) = std::str::from_utf8(&bytes) && Json::parse(text).is_ok() {
                let again: Any = serde_json::from_str(text).unwrap();
                prop_assert_eq!(canonical(&again), text);
            }
        }
    }
}
