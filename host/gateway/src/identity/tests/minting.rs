//! An issuer for tests: keys of every kind, and tokens signed with them.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD as BASE64URL};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair,
    RsaPublicKeyComponents,
};
use serde_json::{Value, json};

use countersign_wire::jose::KeySet;

/// What a key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Rsa,
    P256,
    Ed25519,
}

enum Pair {
    Rsa(Box<RsaKeyPair>),
    P256(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

/// A key pair with its name.
pub(super) struct Mint {
    kid: String,
    pair: Pair,
}

impl Mint {
    pub(super) fn new(kind: Kind, kid: &str) -> Self {
        let random = SystemRandom::new();
        let pair = match kind {
            Kind::Rsa => {
                // RSA keys are not made here: this one was, for these tests only.
                let text = include_str!("rsa.base64").replace('\n', "");
                Pair::Rsa(Box::new(RsaKeyPair::from_pkcs8(&STANDARD.decode(text).unwrap()).unwrap()))
            }
            Kind::P256 => {
                let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
                let document = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
                Pair::P256(EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &random).unwrap())
            }
            Kind::Ed25519 => {
                let document = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
                Pair::Ed25519(Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap())
            }
        };
        Self { kid: kid.to_owned(), pair }
    }

    /// JOSE's name of how it signs.
    pub(super) fn algorithm(&self) -> &'static str {
        match self.pair {
            Pair::Rsa(_) => "RS256",
            Pair::P256(_) => "ES256",
            Pair::Ed25519(_) => "EdDSA",
        }
    }

    /// Its public half.
    pub(super) fn jwk(&self) -> Value {
        let text = |bytes: &[u8]| BASE64URL.encode(bytes);
        match &self.pair {
            Pair::Rsa(pair) => {
                let RsaPublicKeyComponents::<Vec<u8>> { n, e } = pair.public().into();
                json!({"kty": "RSA", "kid": self.kid, "use": "sig", "n": text(&n), "e": text(&e)})
            }
            Pair::P256(pair) => {
                let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
                json!({"kty": "EC", "crv": "P-256", "kid": self.kid, "alg": "ES256", "x": text(x), "y": text(y)})
            }
            Pair::Ed25519(pair) => {
                json!({"kty": "OKP", "crv": "Ed25519", "kid": self.kid, "key_ops": ["verify"],
                    "x": text(pair.public_key().as_ref())})
            }
        }
    }

    /// The key set of an issuer that has only this key.
    pub(super) fn keys(&self) -> KeySet {
        KeySet::parse(json!({"keys": [self.jwk()]}).to_string().as_bytes()).unwrap()
    }

    pub(super) fn header(&self) -> Value {
        json!({"alg": self.algorithm(), "kid": self.kid, "typ": "JWT"})
    }

    pub(super) fn token(&self, claims: &Value) -> String {
        self.signed(&self.header().to_string(), &claims.to_string())
    }

    /// A token of exactly this header and payload.
    pub(super) fn signed(&self, header: &str, payload: &str) -> String {
        let message = format!("{}.{}", BASE64URL.encode(header), BASE64URL.encode(payload));
        let signature = self.sign(message.as_bytes());
        format!("{message}.{}", BASE64URL.encode(signature))
    }

    pub(super) fn sign(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match &self.pair {
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).unwrap();
                signature
            }
            Pair::P256(pair) => pair.sign(&random, message).unwrap().as_ref().to_vec(),
            Pair::Ed25519(pair) => pair.sign(message).as_ref().to_vec(),
        }
    }
}
