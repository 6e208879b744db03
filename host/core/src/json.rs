//! JSON, read strictly.
//!
//! What is signed must be decided on the bytes that were received, so this reader accepts one
//! spelling of everything, refuses a key that comes twice (also when the two are escaped
//! differently), keeps numbers as text, and remembers for every value the exact slice it came
//! from. There is no floating point and no recovery: anything odd is an error.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

/// How deep arrays and objects may nest.
pub const MAX_DEPTH: usize = 32;

/// Why a text was refused, and at which byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JsonError {
    /// What is wrong.
    pub fault: Fault,
    /// Offset in bytes.
    pub at: usize,
}

/// What is wrong with a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// More bytes than the caller accepts.
    TooLarge,
    /// Not UTF-8.
    NotUtf8,
    /// Not JSON: what was expected here.
    Expected(&'static str),
    /// Nested deeper than [`MAX_DEPTH`].
    TooDeep,
    /// An object has this key twice.
    DuplicateKey,
}

impl JsonError {
    /// Stable code for programs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self.fault {
            Fault::TooLarge => "json-too-large",
            Fault::NotUtf8 => "json-not-utf8",
            Fault::Expected(_) => "json-malformed",
            Fault::TooDeep => "json-too-deep",
            Fault::DuplicateKey => "json-duplicate-key",
        }
    }
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.fault {
            Fault::TooLarge => write!(f, "larger than {} bytes", self.at),
            Fault::NotUtf8 => write!(f, "not UTF-8 at byte {}", self.at),
            Fault::Expected(what) => write!(f, "expected {what} at byte {}", self.at),
            Fault::TooDeep => {
                write!(f, "nested deeper than {MAX_DEPTH} levels at byte {}", self.at)
            }
            Fault::DuplicateKey => write!(f, "the same key twice at byte {}", self.at),
        }
    }
}

impl std::error::Error for JsonError {}

/// A value and the exact text it was read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Json<'a> {
    /// The value's own characters, without surrounding blanks.
    pub raw: &'a str,
    /// Where `raw` begins in the text that was parsed.
    pub start: usize,
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
    /// A number as it was spelled.
    Number(&'a str),
    /// A string with its escapes resolved.
    String(Cow<'a, str>),
    /// An array.
    Array(Vec<Json<'a>>),
    /// An object. The order of its keys is in [`Json::raw`].
    Object(BTreeMap<Cow<'a, str>, Json<'a>>),
}

impl<'a> Json<'a> {
    /// Reads exactly one value from at most `limit` bytes.
    ///
    /// # Errors
    /// See [`Fault`].
    pub fn parse(bytes: &'a [u8], limit: usize) -> Result<Self, JsonError> {
        let fail = |fault, at| Err(JsonError { fault, at });
        if bytes.len() > limit {
            return fail(Fault::TooLarge, limit);
        }
        let text = match std::str::from_utf8(bytes) {
            Ok(text) => text,
            Err(e) => return fail(Fault::NotUtf8, e.valid_up_to()),
        };
        let mut reader = Reader { text, at: 0 };
        reader.blanks();
        let value = reader.value(0)?;
        reader.blanks();
        if reader.at == text.len() { Ok(value) } else { reader.expected("the end") }
    }

    /// The member `key` of an object; none for other kinds, missing members and `null`.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Self> {
        match &self.value {
            Value::Object(members) => members.get(key).filter(|m| m.value != Value::Null),
            _ => None,
        }
    }

    /// Whether an object has this member at all, `null` included.
    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        matches!(&self.value, Value::Object(members) if members.contains_key(key))
    }

    /// The text of a string.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match &self.value {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// A number spelled as a plain non-negative integer: no sign, point or exponent.
    #[must_use]
    pub fn as_u64(&self) -> Option<u64> {
        match self.value {
            Value::Number(text) if text.bytes().all(|b| b.is_ascii_digit()) => text.parse().ok(),
            _ => None,
        }
    }

    /// A boolean.
    #[must_use]
    pub const fn as_bool(&self) -> Option<bool> {
        match self.value {
            Value::Bool(b) => Some(b),
            _ => None,
        }
    }

    /// The items of an array.
    #[must_use]
    pub fn as_array(&self) -> Option<&[Self]> {
        match &self.value {
            Value::Array(items) => Some(items),
            _ => None,
        }
    }

    /// Whether this is an object.
    #[must_use]
    pub const fn is_object(&self) -> bool {
        matches!(self.value, Value::Object(_))
    }
}

/// Compact text with sorted keys: the one spelling that digests of settings and records are made
/// of. It relies on `serde_json`'s default map being a `BTreeMap`; a test holds the build to that.
#[must_use]
pub fn canonical(value: &serde_json::Value) -> String {
    value.to_string()
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn expected<T>(&self, what: &'static str) -> Result<T, JsonError> {
        self.fail(Fault::Expected(what))
    }

    const fn fail<T>(&self, fault: Fault) -> Result<T, JsonError> {
        Err(JsonError { fault, at: self.at })
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn advance(&mut self, by: usize) {
        self.at = self.at.saturating_add(by);
    }

    fn blanks(&mut self) {
        self.skip_while(|b| matches!(b, b' ' | b'\t' | b'\n' | b'\r'));
    }

    /// How many bytes were skipped.
    fn skip_while(&mut self, wanted: impl Fn(u8) -> bool) -> usize {
        let rest = self.text.as_bytes().get(self.at..).unwrap_or_default();
        let count = rest.iter().take_while(|b| wanted(**b)).count();
        self.advance(count);
        count
    }

    fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        if found {
            self.advance(1);
        }
        found
    }

    fn since(&self, start: usize) -> &'a str {
        self.text.get(start..self.at).unwrap_or_default()
    }

    fn value(&mut self, depth: usize) -> Result<Json<'a>, JsonError> {
        let start = self.at;
        let value = match self.peek() {
            Some(b'{' | b'[') if depth >= MAX_DEPTH => return self.fail(Fault::TooDeep),
            Some(b'{') => self.object(depth)?,
            Some(b'[') => self.array(depth)?,
            Some(b'"') => Value::String(self.string()?),
            Some(b'-' | b'0'..=b'9') => self.number()?,
            Some(b't') => self.word("true", Value::Bool(true))?,
            Some(b'f') => self.word("false", Value::Bool(false))?,
            Some(b'n') => self.word("null", Value::Null)?,
            _ => return self.expected("a value"),
        };
        Ok(Json { raw: self.since(start), start, value })
    }

    fn word(&mut self, word: &'static str, value: Value<'a>) -> Result<Value<'a>, JsonError> {
        let rest = self.text.get(self.at..).unwrap_or_default();
        if !rest.starts_with(word) {
            return self.expected(word);
        }
        self.advance(word.len());
        Ok(value)
    }

    fn object(&mut self, depth: usize) -> Result<Value<'a>, JsonError> {
        let mut members = BTreeMap::new();
        self.advance(1);
        self.blanks();
        if self.take(b'}') {
            return Ok(Value::Object(members));
        }
        loop {
            self.blanks();
            let key_at = self.at;
            if self.peek() != Some(b'"') {
                return self.expected("a key");
            }
            let key = self.string()?;
            self.blanks();
            if !self.take(b':') {
                return self.expected("`:`");
            }
            self.blanks();
            let member = self.value(depth.saturating_add(1))?;
            if members.insert(key, member).is_some() {
                return Err(JsonError { fault: Fault::DuplicateKey, at: key_at });
            }
            self.blanks();
            if self.take(b'}') {
                return Ok(Value::Object(members));
            }
            if !self.take(b',') {
                return self.expected("`,` or `}`");
            }
        }
    }

    fn array(&mut self, depth: usize) -> Result<Value<'a>, JsonError> {
        let mut items = Vec::new();
        self.advance(1);
        self.blanks();
        if self.take(b']') {
            return Ok(Value::Array(items));
        }
        loop {
            self.blanks();
            items.push(self.value(depth.saturating_add(1))?);
            self.blanks();
            if self.take(b']') {
                return Ok(Value::Array(items));
            }
            if !self.take(b',') {
                return self.expected("`,` or `]`");
            }
        }
    }

    fn number(&mut self) -> Result<Value<'a>, JsonError> {
        let start = self.at;
        self.take(b'-');
        if !self.take(b'0') {
            self.digits()?;
        }
        if self.take(b'.') {
            self.digits()?;
        }
        if self.take(b'e') || self.take(b'E') {
            let _sign = self.take(b'+') || self.take(b'-');
            self.digits()?;
        }
        Ok(Value::Number(self.since(start)))
    }

    fn digits(&mut self) -> Result<(), JsonError> {
        match self.skip_while(|b| b.is_ascii_digit()) {
            0 => self.expected("a digit"),
            _ => Ok(()),
        }
    }

    fn string(&mut self) -> Result<Cow<'a, str>, JsonError> {
        self.advance(1);
        let mut text = Cow::Borrowed("");
        loop {
            let start = self.at;
            self.skip_while(|b| b >= 0x20 && b != b'"' && b != b'\\');
            let plain = self.since(start);
            if text.is_empty() {
                text = Cow::Borrowed(plain);
            } else {
                text.to_mut().push_str(plain);
            }
            if self.take(b'"') {
                return Ok(text);
            }
            if !self.take(b'\\') {
                return self.expected("the end of a string");
            }
            let escaped = self.escape()?;
            text.to_mut().push(escaped);
        }
    }

    fn escape(&mut self) -> Result<char, JsonError> {
        let escaped = match self.peek() {
            Some(b'u') => {
                self.advance(1);
                return self.unicode();
            }
            Some(same @ (b'"' | b'\\' | b'/')) => char::from(same),
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            _ => return self.expected("an escape"),
        };
        self.advance(1);
        Ok(escaped)
    }

    /// One code unit, or two that make a pair; half a pair is refused.
    fn unicode(&mut self) -> Result<char, JsonError> {
        let first = self.code_unit()?;
        let mut units = vec![first];
        if (0xd800..0xdc00).contains(&first) && self.take(b'\\') && self.take(b'u') {
            units.push(self.code_unit()?);
        }
        let mut decoded = char::decode_utf16(units);
        match (decoded.next(), decoded.next()) {
            (Some(Ok(c)), None) => Ok(c),
            _ => self.expected("a whole surrogate pair"),
        }
    }

    fn code_unit(&mut self) -> Result<u16, JsonError> {
        let end = self.at.saturating_add(4);
        let hex = self.text.get(self.at..end).unwrap_or_default();
        if hex.is_empty() || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
            return self.expected("four hex digits");
        }
        let Ok(unit) = u16::from_str_radix(hex, 16) else {
            return self.expected("four hex digits");
        };
        self.at = end;
        Ok(unit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fault(text: &str) -> Option<Fault> {
        Json::parse(text.as_bytes(), 4096).err().map(|e| e.fault)
    }

    #[test]
    fn accepts_json_and_nothing_else() {
        let good = [
            "null",
            " true ",
            "\t[1, -2.5e+3,\n0]\r\n",
            r#"{"a":{"b":["c"]}}"#,
            r#""\"\\\/\b\f\n\r\t\u20ac\ud83d\ude00""#,
            r#"{"":0}"#,
        ];
        for text in good {
            assert_eq!(fault(text), None, "{text}");
        }
        let bad = [
            "",
            " ",
            "nul",
            "True",
            "01",
            "+1",
            "1.",
            ".5",
            "1e",
            "-",
            "0x10",
            "NaN",
            "[1,]",
            "[,]",
            "[1 2]",
            "{a:1}",
            "{'a':1}",
            r#"{"a":1,}"#,
            r#"{"a"}"#,
            r#"{"a" 1}"#,
            "\"",
            "\"a\nb\"",
            r#""\x41""#,
            r#""\u12""#,
            r#""\u+123""#,
            r#""\ud800""#,
            r#""\ud800\u0041""#,
            r#""\udc00""#,
            "1 2",
            "{}x",
            "{}{}",
            "\u{feff}{}",
            "[1]//",
            "/**/1",
            "\u{a0}1",
        ];
        for text in bad {
            assert!(matches!(fault(text), Some(Fault::Expected(_))), "{text:?}");
        }
        let not_utf8 = Json::parse(b"\"\xff\"", 9);
        assert_eq!(not_utf8.map_err(|e| e.code()), Err("json-not-utf8"));
        assert_eq!(Json::parse(b"[1]", 2).map_err(|e| e.code()), Err("json-too-large"));
    }

    #[test]
    fn a_key_comes_once_however_it_is_spelled() {
        for text in
            [r#"{"a":1,"a":1}"#, r#"{"a":1,"b":2,"\u0061":3}"#, r#"[{"x":{"k":null,"k":null}}]"#, r#"{"/":1,"\/":2}"#]
        {
            assert_eq!(fault(text), Some(Fault::DuplicateKey), "{text}");
        }
        assert_eq!(fault(r#"[{"a":1},{"a":1,"A":1}]"#), None);
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        assert_eq!(fault(&nested(MAX_DEPTH)), None);
        assert_eq!(fault(&nested(MAX_DEPTH + 1)), Some(Fault::TooDeep));
        let endless = "[".repeat(1_000_000);
        assert!(Json::parse(endless.as_bytes(), endless.len()).is_err());
        let objects = format!("{}1{}", r#"{"a":"#.repeat(33), "}".repeat(33));
        assert_eq!(fault(&objects), Some(Fault::TooDeep));
    }

    #[test]
    fn keeps_the_exact_text_of_every_value() {
        let text = r#" { "a" : [ 1 , "x\u0041" ] ,"n":  1.50 , "z":null} "#;
        let json = Json::parse(text.as_bytes(), 100).unwrap();
        let a = json.get("a").unwrap();
        assert_eq!(a.raw, r#"[ 1 , "x\u0041" ]"#);
        assert_eq!(text.get(a.start..a.start + a.raw.len()), Some(a.raw));
        assert_eq!(
            a.as_array().and_then(|i| i.get(1)?.as_str()),
            Some("xA"),
            "escapes are resolved beside the raw text"
        );
        assert_eq!(json.get("n").map(|n| &n.value), Some(&Value::Number("1.50")));
        assert_eq!(json.get("n").and_then(Json::as_u64), None);
        assert!(json.get("z").is_none() && json.has("z"));
    }

    #[test]
    fn integers_are_plain() {
        for (text, want) in [
            ("0", Some(0)),
            ("300", Some(300)),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
            ("-1", None),
            ("1.0", None),
            ("3e2", None),
            ("\"1\"", None),
        ] {
            let got = Json::parse(text.as_bytes(), 100).ok().and_then(|j| j.as_u64());
            assert_eq!(got, want, "{text}");
        }
    }

    #[test]
    fn canonical_text_sorts_keys() {
        // Fails if some dependency turns on serde_json's `preserve_order`.
        let value: serde_json::Value = serde_json::from_str(r#"{ "b": {"z": 1, "y": [2, 1]}, "a": "é\n" }"#).unwrap();
        assert_eq!(canonical(&value), r#"{"a":"é\n","b":{"y":[2,1],"z":1}}"#);
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Json::parse(&bytes, 1000);
        }

        #[test]
        fn never_panics_on_near_json(text in r#"[\[\]{}",:\\u0-9a-fntre. \-]{0,60}"#) {
            let ours = Json::parse(text.as_bytes(), 1000);
            // Whatever we accept, an independent reader accepts too.
            if ours.is_ok() {
                prop_assert!(serde_json::from_str::<&serde_json::value::RawValue>(&text).is_ok());
            }
        }
    }
}
