//! Challenges: `WWW-Authenticate` fields as RFC 9110 writes them (section 11.6.1), and the `Payment` challenges in them.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use crate::evm::keccak256;
use crate::json::{Json, Value};
use crate::time::Timestamp;
use crate::x402::{MAX_BODY_TERMS, RailError};

const FIELD: &str = "www-authenticate";
const PLACE: &str = "WWW-Authenticate";
const SCHEME: &str = "payment";
/// Most bytes of `WWW-Authenticate` in one answer, all fields together.
pub const MAX_FIELDS: usize = 64 * 1024;
/// Most challenges of one answer, those of other schemes included.
pub const MAX_CHALLENGES: usize = 32;
/// Longest value of a parameter, in bytes.
pub const MAX_PARAMETER: usize = 16 * 1024;
/// Longest `id`, `realm` and what else is a name or a moment, in bytes.
const MAX_NAME: usize = 1024;
/// Most parameters of one challenge.
const MAX_PARAMETERS: usize = 32;

/// A `Payment` challenge, every parameter that is known exactly as it was received: the credential gives them back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Challenge {
    /// The seller's name for this one challenge.
    pub id: String,
    /// What the payment protects.
    pub realm: String,
    /// How it is paid, such as `evm`.
    pub method: String,
    /// What is asked for, such as `charge`.
    pub intent: String,
    /// Base64url of the JSON that says how much and to whom; over MCP the JSON itself.
    pub request: String,
    /// When it ends, in RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
    /// The digest of the request's body that it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// The seller's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The seller's own note.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opaque: Option<String>,
    /// The header that the credential is wanted in, if the seller says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
}

impl Challenge {
    /// What an authorization for it has as its nonce: keccak256 of `id` and `realm`, one after the other. The same
    /// challenge can therefore be redeemed once only, however often it is signed.
    #[must_use]
    pub fn nonce(&self) -> [u8; 32] {
        keccak256([self.id.as_bytes(), self.realm.as_bytes()].concat().as_slice())
    }

    /// When it ends, if it does. One whose end cannot be read has ended.
    #[must_use]
    pub fn ends(&self) -> Option<Timestamp> {
        self.expires.as_deref().map(|text| Timestamp::parse(text).unwrap_or_default())
    }

    /// Whether `request` is JSON and not text, as it is where there are no headers.
    pub(super) fn is_json(&self) -> bool {
        self.request.starts_with('{')
    }

    /// The bytes of the JSON in `request`.
    pub(super) fn request(&self) -> Result<Vec<u8>, &'static str> {
        if self.is_json() {
            return Ok(self.request.as_bytes().to_vec());
        }
        URL_SAFE_NO_PAD.decode(&self.request).map_err(|_| "expected base64url without padding")
    }
}

/// The `Payment` challenges of an answer, in order; at least one.
pub(super) fn read(headers: &[(String, Vec<u8>)]) -> Result<Vec<Challenge>, RailError> {
    let fields: Vec<&[u8]> =
        headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case(FIELD)).map(|(_, v)| v.as_slice()).collect();
    // Fields that cannot mean us are not ours to find fault with.
    let mut ours = fields.iter().copied().filter(|field| mentions_payment(field)).peekable();
    if ours.peek().is_none() {
        return Err(RailError::NotThisRail("no `Payment` challenge in WWW-Authenticate"));
    }
    if fields.iter().map(|field| field.len()).sum::<usize>() > MAX_FIELDS {
        return Err(RailError::malformed(PLACE, format!("expected at most {MAX_FIELDS} bytes")));
    }
    let mut challenges = Vec::new();
    for field in ours {
        let said =
            Reader { bytes: field, at: 0 }.challenges().map_err(|problem| RailError::malformed(PLACE, problem))?;
        for (scheme, parameters) in said {
            if scheme.eq_ignore_ascii_case(SCHEME) {
                let index = challenges.len();
                let challenge = of_parameters(index, parameters)?;
                if challenge.is_json() {
                    let place = format!("{}.request", place(index));
                    return Err(RailError::malformed(place, "expected base64url without padding"));
                }
                challenges.push(challenge);
            }
        }
    }
    counted(challenges)
}

/// The challenges of a JSON-RPC error's `data`, where `request` is JSON and not text.
pub(super) fn read_document(terms: &[u8]) -> Result<Vec<Challenge>, RailError> {
    let json = Json::parse(terms, MAX_BODY_TERMS).map_err(|e| RailError::malformed("the terms", e.to_string()))?;
    let Some(list) = json.get("challenges").filter(|_| !json.has("x402Version")) else {
        return Err(RailError::NotThisRail("no `challenges` in the terms"));
    };
    let list = list.as_array().ok_or_else(|| RailError::malformed("challenges", "expected a list"))?;
    let mut challenges = Vec::new();
    for (index, item) in list.iter().enumerate() {
        let Value::Object(members) = &item.value else {
            return Err(RailError::malformed(place(index), "expected an object"));
        };
        let mut parameters = BTreeMap::new();
        for (name, member) in members.iter().filter(|(name, _)| KNOWN.contains(&name.as_ref())) {
            let bad = |problem: &str| RailError::malformed(format!("{}.{name}", place(index)), problem);
            let value = match &member.value {
                Value::Null => continue,
                Value::Object(_) if name == "request" => member.raw.to_owned(),
                Value::String(_) if name == "request" => return Err(bad("expected an object")),
                Value::String(text) => text.clone().into_owned(),
                _ => return Err(bad("expected a string")),
            };
            parameters.insert(name.clone().into_owned(), Parameter { text: value, foreign: false });
        }
        challenges.push(of_parameters(index, parameters)?);
    }
    counted(challenges)
}

fn counted(challenges: Vec<Challenge>) -> Result<Vec<Challenge>, RailError> {
    match challenges.len() {
        0 => Err(RailError::NotThisRail("no `Payment` challenge in WWW-Authenticate")),
        1..=MAX_CHALLENGES => Ok(challenges),
        more => Err(RailError::malformed(PLACE, format!("expected at most {MAX_CHALLENGES} challenges, found {more}"))),
    }
}

fn mentions_payment(field: &[u8]) -> bool {
    field.windows(SCHEME.len()).any(|word| word.eq_ignore_ascii_case(SCHEME.as_bytes()))
}

/// Where a challenge is, in messages.
pub(super) fn place(index: usize) -> String {
    format!("challenges[{index}]")
}

const KNOWN: [&str; 10] =
    ["id", "realm", "method", "intent", "request", "expires", "digest", "description", "opaque", "header"];

fn of_parameters(index: usize, mut parameters: BTreeMap<String, Parameter>) -> Result<Challenge, RailError> {
    let mut take = |name: &'static str| -> Result<Option<String>, RailError> {
        let bad = |problem: String| Err(RailError::malformed(format!("{}.{name}", place(index)), problem));
        let Some(Parameter { text, foreign }) = parameters.remove(name) else { return Ok(None) };
        let longest = if matches!(name, "request" | "opaque" | "description") { MAX_PARAMETER } else { MAX_NAME };
        if text.len() > longest {
            return bad(format!("expected at most {longest} bytes"));
        }
        // Words may be foreign where they are spelled in ASCII; what is signed, compared or given back as a name may not.
        let printable = name == "description" || name == "request" || text.bytes().all(|b| (0x20..0x7f).contains(&b));
        if foreign || !printable {
            return bad("expected printable ASCII".to_owned());
        }
        Ok(Some(text))
    };
    let needed = |name: &'static str, value: Option<String>| {
        let missing = || RailError::malformed(format!("{}.{name}", place(index)), "missing or empty");
        value.filter(|v| !v.is_empty()).ok_or_else(missing)
    };
    Ok(Challenge {
        id: needed("id", take("id")?)?,
        realm: needed("realm", take("realm")?)?,
        method: needed("method", take("method")?)?,
        intent: needed("intent", take("intent")?)?,
        request: needed("request", take("request")?)?,
        expires: take("expires")?,
        digest: take("digest")?,
        description: take("description")?,
        opaque: take("opaque")?,
        header: take("header")?,
    })
}

/// A parameter's value, its quoting resolved.
struct Parameter {
    text: String,
    /// Some byte of it was not ASCII.
    foreign: bool,
}

/// Reads one field.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

type Said = Vec<(String, BTreeMap<String, Parameter>)>;

impl Reader<'_> {
    fn challenges(mut self) -> Result<Said, String> {
        let mut said = Said::new();
        loop {
            self.skip(|b| matches!(b, b' ' | b'\t' | b','));
            if self.peek().is_none() {
                return Ok(said);
            }
            if said.len() >= MAX_CHALLENGES {
                return Err(format!("expected at most {MAX_CHALLENGES} challenges"));
            }
            let scheme = self.token()?;
            let spaced = self.blanks();
            let parameters = if !spaced || self.token68() { BTreeMap::new() } else { self.parameters()? };
            said.push((scheme, parameters));
            if !matches!(self.peek(), None | Some(b',')) {
                return Err(format!("expected a comma at byte {}", self.at));
            }
        }
    }

    /// Parameters up to the end or the comma before another challenge.
    fn parameters(&mut self) -> Result<BTreeMap<String, Parameter>, String> {
        let mut parameters = BTreeMap::new();
        loop {
            let before = self.at;
            self.skip(|b| matches!(b, b' ' | b'\t' | b','));
            if self.peek().is_none() {
                return Ok(parameters);
            }
            let name = self.token()?.to_ascii_lowercase();
            self.blanks();
            if self.peek() != Some(b'=') {
                // A scheme's name: the comma before it ends these parameters.
                self.at = before;
                return Ok(parameters);
            }
            self.advance();
            self.blanks();
            let value = if self.peek() == Some(b'"') {
                self.quoted()?
            } else {
                Parameter { text: self.token()?, foreign: false }
            };
            if parameters.insert(name, value).is_some() {
                return Err(format!("the same parameter twice before byte {}", self.at));
            }
            if parameters.len() > MAX_PARAMETERS {
                return Err(format!("expected at most {MAX_PARAMETERS} parameters in a challenge"));
            }
            self.blanks();
            if !matches!(self.peek(), None | Some(b',')) {
                return Err(format!("expected a comma at byte {}", self.at));
            }
        }
    }

    /// Whether the one word after a scheme is all it says, as in `Negotiate YII=`; it is skipped then.
    fn token68(&mut self) -> bool {
        let before = self.at;
        self.skip(|b| b.is_ascii_alphanumeric() || b"-._~+/".contains(&b));
        let any = self.at > before;
        self.skip(|b| b == b'=');
        self.blanks();
        if any && matches!(self.peek(), None | Some(b',')) {
            return true;
        }
        self.at = before;
        false
    }

    fn quoted(&mut self) -> Result<Parameter, String> {
        self.advance();
        let (mut text, mut foreign) = (String::new(), false);
        loop {
            let at = self.at;
            let byte = self.next().ok_or("expected a closing quote")?;
            let byte = match byte {
                b'"' => return Ok(Parameter { text, foreign }),
                b'\\' => match self.next() {
                    Some(b'u') => {
                        text.push(self.escaped().ok_or_else(|| format!("half a character at byte {at}"))?);
                        continue;
                    }
                    Some(byte) => byte,
                    None => return Err("expected a closing quote".to_owned()),
                },
                byte => byte,
            };
            if byte != b'\t' && (byte < 0x20 || byte == 0x7f) {
                return Err(format!("a control character at byte {at}"));
            }
            foreign |= !byte.is_ascii();
            text.push(char::from(byte));
        }
    }

    /// After `\u`. RFC 9110 has no such escape and reads it as `u`; the reference server writes characters that no
    /// header can carry so, and doubles every backslash that is meant.
    fn escaped(&mut self) -> Option<char> {
        let Some(first) = self.unit() else { return Some('u') };
        let second = if (0xd800..0xdc00).contains(&first) && self.next()? == b'\\' && self.next()? == b'u' {
            Some(self.unit()?)
        } else {
            None
        };
        char::decode_utf16(std::iter::once(first).chain(second)).next()?.ok()
    }

    fn unit(&mut self) -> Option<u16> {
        let digits = self.bytes.get(self.at..)?.get(..4)?;
        let digits = digits.iter().all(u8::is_ascii_hexdigit).then(|| std::str::from_utf8(digits).ok())??;
        self.at = self.at.saturating_add(4);
        u16::from_str_radix(digits, 16).ok()
    }

    fn token(&mut self) -> Result<String, String> {
        let start = self.at;
        self.skip(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b));
        let word = self.bytes.get(start..self.at).unwrap_or_default();
        if word.is_empty() {
            return Err(format!("expected a word at byte {start}"));
        }
        Ok(word.iter().copied().map(char::from).collect())
    }

    /// Whether there were any.
    fn blanks(&mut self) -> bool {
        let start = self.at;
        self.skip(|b| matches!(b, b' ' | b'\t'));
        self.at > start
    }

    fn skip(&mut self, skipped: impl Fn(u8) -> bool) {
        while self.peek().is_some_and(&skipped) {
            self.advance();
        }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.advance();
        Some(byte)
    }

    const fn advance(&mut self) {
        self.at = self.at.saturating_add(1);
    }
}
