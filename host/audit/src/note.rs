//! Signed notes and checkpoints, as C2SP specifies them (`signed-note`, `tlog-checkpoint`), with Ed25519.
//!
//! A note is text, an empty line, and a line for each signature. A checkpoint is a note of three lines:
//! the log's name, its size, its root. Anybody's tools for transparency logs can read both.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use sha2::{Digest, Sha256};

use crate::tlog::Hash;

/// What marks Ed25519 among the kinds of keys.
const ED25519_KIND: u8 = 1;
/// Signatures of one note; a log has one, and each witness adds one.
const MOST_SIGNATURES: usize = 64;
const DASH: &str = "\u{2014} ";

/// Why a note, a key or a checkpoint is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoteError {
    /// Not a name: it is empty, or has blanks, control characters or `+`.
    Name,
    /// Not a key in the form `name+hash+base64`.
    Key,
    /// A note that does not have the form of one: what is wrong.
    Form(&'static str),
    /// No signature by this key.
    Unsigned,
    /// A signature in this key's name that is not its.
    Forged,
    /// A note that is no checkpoint: what is wrong.
    Checkpoint(&'static str),
}

impl fmt::Display for NoteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name => f.write_str("a key's name is not empty and has no blanks, control characters or `+`"),
            Self::Key => f.write_str("not an Ed25519 key of the form `name+hash+base64`"),
            Self::Form(what) => write!(f, "not a signed note: {what}"),
            Self::Unsigned => f.write_str("the note is not signed by this key"),
            Self::Forged => f.write_str("the signature in this key's name is not its, or the text was changed"),
            Self::Checkpoint(what) => write!(f, "not a checkpoint: {what}"),
        }
    }
}

impl std::error::Error for NoteError {}

fn check_name(name: &str) -> Result<(), NoteError> {
    let odd = |c: char| c.is_whitespace() || c.is_control() || c == '+';
    if name.is_empty() || name.contains(odd) { Err(NoteError::Name) } else { Ok(()) }
}

/// A public key and its name. Prints and parses as `name+hash+base64`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyingKey {
    name: String,
    public: [u8; 32],
}

impl VerifyingKey {
    /// Names a key.
    ///
    /// # Errors
    /// [`NoteError::Name`].
    pub fn new(name: &str, public: [u8; 32]) -> Result<Self, NoteError> {
        check_name(name)?;
        Ok(Self { name: name.to_owned(), public })
    }

    /// Its name; also the log's.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The first four bytes of SHA-256(name ‖ newline ‖ kind ‖ key): what a signature finds its key by.
    #[must_use]
    pub fn hash(&self) -> [u8; 4] {
        let text = Sha256::new_with_prefix(&self.name).chain_update([b'\n', ED25519_KIND]).chain_update(self.public);
        let [a, b, c, d, ..]: Hash = text.finalize().into();
        [a, b, c, d]
    }
}

impl fmt::Display for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut key = vec![ED25519_KIND];
        key.extend(self.public);
        write!(f, "{}+{}+{}", self.name, hex::encode(self.hash()), STANDARD.encode(key))
    }
}

impl FromStr for VerifyingKey {
    type Err = NoteError;

    fn from_str(text: &str) -> Result<Self, NoteError> {
        let mut parts = text.splitn(3, '+');
        let (Some(name), Some(hash), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(NoteError::Key);
        };
        let bytes = STANDARD.decode(key).map_err(|_| NoteError::Key)?;
        let Some((&ED25519_KIND, public)) = bytes.split_first() else { return Err(NoteError::Key) };
        let key = Self::new(name, public.try_into().map_err(|_| NoteError::Key)?)?;
        if hex::encode(key.hash()) == hash { Ok(key) } else { Err(NoteError::Key) }
    }
}

/// A private key and its name.
pub struct SigningKey {
    pair: Ed25519KeyPair,
    public: VerifyingKey,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.public)
    }
}

impl SigningKey {
    /// The key of a seed: 32 random bytes, kept secret.
    ///
    /// # Errors
    /// [`NoteError::Name`].
    pub fn from_seed(name: &str, seed: &[u8; 32]) -> Result<Self, NoteError> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| NoteError::Key)?;
        let public = pair.public_key().as_ref().try_into().map_err(|_| NoteError::Key)?;
        Ok(Self { pair, public: VerifyingKey::new(name, public)? })
    }

    /// Its public half.
    #[must_use]
    pub const fn public(&self) -> &VerifyingKey {
        &self.public
    }

    /// Signs a text, which ends with a newline; answers the note.
    ///
    /// # Errors
    /// [`NoteError::Form`].
    pub fn sign(&self, text: &str) -> Result<String, NoteError> {
        check_text(text)?;
        let mut bytes = self.public.hash().to_vec();
        bytes.extend(self.pair.sign(text.as_bytes()).as_ref());
        Ok(format!("{text}\n{DASH}{} {}\n", self.public.name, STANDARD.encode(bytes)))
    }
}

fn check_text(text: &str) -> Result<(), NoteError> {
    if !text.ends_with('\n') {
        return Err(NoteError::Form("its text does not end with a newline"));
    }
    if text.contains(|c: char| c < ' ' && c != '\n') {
        return Err(NoteError::Form("its text has control characters"));
    }
    Ok(())
}

/// The text of a note, whoever signed it: for those who made it, never for those who were given it.
///
/// # Errors
/// [`NoteError::Form`].
pub fn text_of(note: &str) -> Result<&str, NoteError> {
    split(note).map(|(text, _)| text)
}

/// The text, and the lines of the signatures without the last newline.
fn split(note: &str) -> Result<(&str, &str), NoteError> {
    let end = note.rfind("\n\n").ok_or(NoteError::Form("no empty line before its signatures"))?;
    let (text, rest) = note.split_at_checked(end.saturating_add(1)).unwrap_or_default();
    check_text(text)?;
    let lines = rest.strip_prefix('\n').and_then(|lines| lines.strip_suffix('\n'));
    Ok((text, lines.ok_or(NoteError::Form("its signatures do not end with a newline"))?))
}

/// The text of a note that is signed by `key`. Signatures by other keys are nothing to it.
///
/// # Errors
/// When it has not the form of a note, or no signature by `key`, or one that is wrong.
pub fn open<'a>(note: &'a str, key: &VerifyingKey) -> Result<&'a str, NoteError> {
    let (text, lines) = split(note)?;
    let mut signed = false;
    for (n, line) in lines.split('\n').enumerate() {
        let odd = NoteError::Form("a signature is not `\u{2014} name base64`");
        let (name, signature) = line.strip_prefix(DASH).and_then(|line| line.split_once(' ')).ok_or(odd)?;
        check_name(name).map_err(|_| odd)?;
        let bytes = STANDARD.decode(signature).map_err(|_| odd)?;
        let (hash, signature) = bytes.split_first_chunk::<4>().filter(|(_, rest)| !rest.is_empty()).ok_or(odd)?;
        if n >= MOST_SIGNATURES {
            return Err(NoteError::Form("too many signatures"));
        }
        if name != key.name || *hash != key.hash() {
            continue;
        }
        if signed {
            return Err(NoteError::Form("it is signed twice by one key"));
        }
        let public = UnparsedPublicKey::new(&ED25519, key.public);
        public.verify(text.as_bytes(), signature).map_err(|_| NoteError::Forged)?;
        signed = true;
    }
    if signed { Ok(text) } else { Err(NoteError::Unsigned) }
}

/// What a log was at one moment: so many records, with this root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The log's name.
    pub origin: String,
    /// How many records.
    pub size: u64,
    /// The root over them.
    pub root: Hash,
}

impl Checkpoint {
    /// Signs what the log of this key is: its name is the key's.
    ///
    /// # Errors
    /// [`NoteError::Form`].
    pub fn sign(key: &SigningKey, size: u64, root: &Hash) -> Result<String, NoteError> {
        key.sign(&Self { origin: key.public.name.clone(), size, root: *root }.to_string())
    }

    /// The checkpoint in a note that is signed by `key`, whose name the log bears.
    ///
    /// # Errors
    /// Those of [`open`], and [`NoteError::Checkpoint`].
    pub fn open(note: &str, key: &VerifyingKey) -> Result<Self, NoteError> {
        let checkpoint: Self = open(note, key)?.parse()?;
        if checkpoint.origin == key.name {
            Ok(checkpoint)
        } else {
            Err(NoteError::Checkpoint("it is of a log of another name"))
        }
    }
}

impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n{}\n{}\n", self.origin, self.size, STANDARD.encode(self.root))
    }
}

impl FromStr for Checkpoint {
    type Err = NoteError;

    fn from_str(text: &str) -> Result<Self, NoteError> {
        let mut lines = text.split('\n');
        let (Some(origin), Some(size), Some(root), Some(""), None) =
            (lines.next(), lines.next(), lines.next(), lines.next(), lines.next())
        else {
            return Err(NoteError::Checkpoint("it has not exactly three lines"));
        };
        check_name(origin)?;
        let plain = size.bytes().all(|b| b.is_ascii_digit()) && (size == "0" || !size.starts_with('0'));
        let size =
            size.parse().ok().filter(|_| plain).ok_or(NoteError::Checkpoint("its size is not a plain number"))?;
        let root = STANDARD.decode(root).ok().and_then(|root| root.try_into().ok());
        let root = root.ok_or(NoteError::Checkpoint("its root is not 32 bytes of base64"))?;
        Ok(Self { origin: origin.to_owned(), size, root })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // The example of Go's golang.org/x/mod/sumdb/note: key, private key's seed, text and signature.
    const KEY: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
    const SEED: &str = "AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz";
    const TEXT: &str =
        "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n";
    const SIGNATURE: &str = "\u{2014} PeterNeumann \
        x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";

    fn peter() -> SigningKey {
        let seed = STANDARD.decode(SEED).unwrap();
        SigningKey::from_seed("PeterNeumann", seed[1..].try_into().unwrap()).unwrap()
    }

    #[test]
    fn the_published_note_opens_and_is_signed_alike() {
        let note = format!("{TEXT}\n{SIGNATURE}");
        let key: VerifyingKey = KEY.parse().unwrap();
        assert_eq!(key.to_string(), KEY);
        assert_eq!(open(&note, &key), Ok(TEXT));
        assert_eq!(peter().public(), &key);
        assert_eq!(peter().sign(TEXT).unwrap(), note);
    }

    #[test]
    fn signatures_by_others_are_nothing_to_a_key() {
        let other = SigningKey::from_seed("witness", &[7; 32]).unwrap();
        let theirs = other.sign(TEXT).unwrap();
        assert_eq!(open(&theirs, peter().public()), Err(NoteError::Unsigned));
        let both = format!("{theirs}{SIGNATURE}");
        assert_eq!(open(&both, peter().public()), Ok(TEXT));
        assert_eq!(open(&both, other.public()), Ok(TEXT));
        // The same name with another key is somebody else.
        let namesake = SigningKey::from_seed("PeterNeumann", &[7; 32]).unwrap();
        assert_eq!(open(&namesake.sign(TEXT).unwrap(), peter().public()), Err(NoteError::Unsigned));
        assert_eq!(
            open(&format!("{TEXT}\n{SIGNATURE}{SIGNATURE}"), peter().public()),
            Err(NoteError::Form("it is signed twice by one key"))
        );
    }

    #[test]
    fn every_flipped_bit_of_a_note_is_found() {
        let key = peter();
        let note = Checkpoint::sign(&key, 77, &[5; 32]).unwrap();
        assert_eq!(Checkpoint::open(&note, key.public()).unwrap().size, 77);
        for at in 0..note.len() {
            for bit in 0..8 {
                let mut bytes = note.clone().into_bytes();
                bytes[at] ^= 1 << bit;
                let opened = String::from_utf8(bytes).ok().map(|note| Checkpoint::open(&note, key.public()));
                assert!(!matches!(opened, Some(Ok(_))), "byte {at} bit {bit}");
            }
        }
    }

    #[test]
    fn checkpoints_have_one_form() {
        let root = STANDARD.encode([5; 32]);
        let good = format!("log.example/1\n77\n{root}\n");
        assert_eq!(good.parse::<Checkpoint>().unwrap().to_string(), good);
        for odd in [
            format!("log.example/1\n077\n{root}\n"),
            format!("log.example/1\n+77\n{root}\n"),
            format!("log.example/1\n\n{root}\n"),
            format!("log.example/1\n18446744073709551616\n{root}\n"),
            format!("\n77\n{root}\n"),
            format!("a b\n77\n{root}\n"),
            format!("log.example/1\n77\n{root}"),
            format!("log.example/1\n77\n{root}\nextension\n"),
            format!("log.example/1\n77\n{}\n", STANDARD.encode([5; 31])),
            format!("log.example/1\n77\n{}\n", root.trim_end_matches('=')),
        ] {
            assert!(odd.parse::<Checkpoint>().is_err(), "{odd:?}");
        }
        let note = peter().sign(&good).unwrap();
        let other = Checkpoint::open(&note, peter().public());
        assert_eq!(other, Err(NoteError::Checkpoint("it is of a log of another name")));
    }

    #[test]
    fn keys_and_names_have_one_form() {
        for odd in ["", "a b", "a+b", "a\n", "a\u{a0}b", "a\u{7f}"] {
            assert_eq!(VerifyingKey::new(odd, [0; 32]), Err(NoteError::Name), "{odd:?}");
        }
        for odd in [
            "PeterNeumann",
            "PeterNeumann+c74f20a4+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
            "PeterNeumann+C74F20A3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
            "PeterNeumann+c74f20a3+Ahpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
            "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10Q=",
        ] {
            assert!(odd.parse::<VerifyingKey>().is_err(), "{odd}");
        }
    }
}
