//! JWTs and the keys that vouch for them, read strictly: compact JWS, one signature, public keys only.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use countersign_core::json::Json;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey,
};

/// Longest token read, in bytes.
pub const MAX_TOKEN: usize = 8 * 1024;
/// Longest name of a key, in bytes.
const MAX_KID: usize = 256;
/// Largest JWKS document read, in bytes.
pub const MAX_JWKS: usize = 256 * 1024;
/// Most keys in a JWKS document.
const MAX_KEYS: usize = 64;

/// How a JWT may be signed. Nothing symmetric: whoever can check such a signature can make one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// RSA with PKCS #1 v1.5 and SHA-256; keys of 2,048 to 8,192 bits.
    Rs256,
    /// ECDSA over P-256 with SHA-256.
    Es256,
    /// Ed25519.
    EdDsa,
}

impl Algorithm {
    /// Every algorithm by its JOSE name.
    pub const ALL: [(&'static str, Self); 3] = [("RS256", Self::Rs256), ("ES256", Self::Es256), ("EdDSA", Self::EdDsa)];

    /// The algorithm that a JOSE header or key names, if it is one of ours.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(known, _)| *known == name).map(|(_, algorithm)| algorithm)
    }
}

/// Why something is refused: one of our own texts, never anybody else's.
pub type Refused = &'static str;

/// Whether a token has the form of a JWT: three parts. No token of ours has a point.
#[must_use]
pub fn is_meant(token: &str) -> bool {
    token.bytes().filter(|b| *b == b'.').count() == 2
}

/// A JWT that nobody has vouched for yet. It has no `Debug`: it may be a good one.
pub struct Unverified<'t> {
    /// How it says it is signed; none: in a way that is none of ours.
    algorithm: Option<Algorithm>,
    /// Which key it says it is signed with.
    pub kid: String,
    payload: Vec<u8>,
    signed: &'t [u8],
    signature: Vec<u8>,
}

impl<'t> Unverified<'t> {
    /// Reads the form of a token.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(token: &'t str) -> Result<Self, Refused> {
        if token.len() > MAX_TOKEN {
            return Err("it is too long");
        }
        let (signed, signature) = token.rsplit_once('.').ok_or("it does not have three parts")?;
        let (header, payload) = signed.split_once('.').ok_or("it does not have three parts")?;
        let decode = |part: &str| BASE64URL.decode(part).map_err(|_| "a part of it is not base64url without padding");
        let (header, payload, signature) = (decode(header)?, decode(payload)?, decode(signature)?);
        let header = object(&header).map_err(|()| "its header is not one JSON object without repeated keys")?;
        if header.has("crit") {
            return Err("its header has extensions that must be understood");
        }
        let typ = header.get("typ").map(|typ| typ.as_str().unwrap_or_default().to_ascii_lowercase());
        if header.has("typ") && !matches!(typ.as_deref(), Some("jwt" | "at+jwt" | "application/at+jwt")) {
            return Err("it is another type of token");
        }
        let algorithm = header.get("alg").and_then(Json::as_str).ok_or("its header names no algorithm")?;
        let kid = header.get("kid").and_then(Json::as_str).filter(|kid| (1..=MAX_KID).contains(&kid.len()));
        let kid = kid.ok_or("its header names no key")?.to_owned();
        let algorithm = Algorithm::named(algorithm);
        // Read again by whoever has verified it; what is no object is not worth looking a key up for.
        object(&payload).map_err(|()| "its payload is not one JSON object without repeated keys")?;
        Ok(Self { algorithm, kid, payload, signed: signed.as_bytes(), signature })
    }

    /// What it says, believed by nobody.
    ///
    /// # Errors
    /// When it is not one JSON object.
    pub fn claims(&self) -> Result<Json<'_>, Refused> {
        object(&self.payload).map_err(|()| "its payload is not one JSON object without repeated keys")
    }

    /// What it says, if `key` signed it in a way that `allowed` contains.
    ///
    /// # Errors
    /// When it is not so.
    pub fn verified(&self, key: &Key, allowed: impl Fn(Algorithm) -> bool) -> Result<Json<'_>, Refused> {
        let algorithm =
            self.algorithm.filter(|algorithm| allowed(*algorithm)).ok_or("its algorithm is not accepted")?;
        if algorithm != key.algorithm() {
            return Err("its key is for another algorithm");
        }
        if !key.signed(self.signed, &self.signature) {
            return Err("its signature is not its issuer's");
        }
        self.claims()
    }
}

fn object(bytes: &[u8]) -> Result<Json<'_>, ()> {
    Json::parse(bytes, MAX_TOKEN).ok().filter(Json::is_object).ok_or(())
}

/// A public key, for one algorithm.
#[derive(Clone, PartialEq, Eq)]
pub enum Key {
    /// RSA, big-endian without leading zeros.
    Rsa {
        /// The modulus.
        n: Vec<u8>,
        /// The exponent.
        e: Vec<u8>,
    },
    /// A point on P-256, uncompressed.
    P256(Vec<u8>),
    /// A point of Ed25519.
    Ed25519(Vec<u8>),
}

impl Key {
    fn algorithm(&self) -> Algorithm {
        match self {
            Self::Rsa { .. } => Algorithm::Rs256,
            Self::P256(_) => Algorithm::Es256,
            Self::Ed25519(_) => Algorithm::EdDsa,
        }
    }

    fn signed(&self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::Rsa { n, e } => {
                RsaPublicKeyComponents { n, e }.verify(&RSA_PKCS1_2048_8192_SHA256, message, signature)
            }
            Self::P256(point) => UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, signature),
            Self::Ed25519(point) => UnparsedPublicKey::new(&ED25519, point).verify(message, signature),
        }
        .is_ok()
    }
}

/// An issuer's keys by their names.
pub struct KeySet(BTreeMap<String, Key>);

impl KeySet {
    /// Reads a JWKS document. Keys for something else than signatures of ours are passed over.
    ///
    /// # Errors
    /// When it is none, has no usable key, too many, or two of one name.
    pub fn parse(bytes: &[u8]) -> Result<Self, Refused> {
        let document =
            Json::parse(bytes, MAX_JWKS).map_err(|_| "not JSON without repeated keys, of at most 256 KiB")?;
        let listed = document.get("keys").and_then(Json::as_array).ok_or("not a JWKS document: no list `keys`")?;
        if listed.len() > MAX_KEYS {
            return Err("more than 64 keys");
        }
        let mut keys = BTreeMap::new();
        for (kid, key) in listed.iter().filter_map(named_key) {
            if keys.insert(kid, key).is_some() {
                return Err("two keys of one name");
            }
        }
        if keys.is_empty() {
            Err("no key that could be used: RSA, P-256 or Ed25519, with a `kid`")
        } else {
            Ok(Self(keys))
        }
    }

    /// The key of a name.
    #[must_use]
    pub fn get(&self, kid: &str) -> Option<&Key> {
        self.0.get(kid)
    }

    /// How many there are; never none.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }
}

/// A key and its name, if it is one of ours: an asymmetric one, for signatures.
fn named_key(jwk: &Json<'_>) -> Option<(String, Key)> {
    let text = |name: &str| jwk.get(name).and_then(Json::as_str);
    let bytes = |name: &str| BASE64URL.decode(text(name)?).ok();
    let of = |name: &str, length: usize| bytes(name).filter(|bytes| bytes.len() == length);
    let kid = text("kid").filter(|kid| (1..=MAX_KID).contains(&kid.len()))?;
    if jwk.has("use") && text("use") != Some("sig") {
        return None;
    }
    let verifies = |operations: &Json<'_>| {
        operations.as_array().is_some_and(|list| list.iter().any(|operation| operation.as_str() == Some("verify")))
    };
    if jwk.has("key_ops") && !jwk.get("key_ops").is_some_and(verifies) {
        return None;
    }
    let key = match (text("kty")?, text("crv")) {
        ("RSA", None) => {
            // 2,048 to 8,192 bits; other lengths no signature is checked with.
            let n = bytes("n").filter(|n| (256..=1_024).contains(&n.len()) && n.first().is_some_and(|b| *b != 0))?;
            let e = bytes("e").filter(|e| (1..=4).contains(&e.len()) && e.first().is_some_and(|b| *b != 0))?;
            Key::Rsa { n, e }
        }
        ("EC", Some("P-256")) => Key::P256([vec![4], of("x", 32)?, of("y", 32)?].concat()),
        ("OKP", Some("Ed25519")) => Key::Ed25519(of("x", 32)?),
        _ => return None,
    };
    let own = |name: &str| Algorithm::named(name) == Some(key.algorithm());
    let suits = !jwk.has("alg") || text("alg").is_some_and(own);
    suits.then(|| (kid.to_owned(), key))
}
