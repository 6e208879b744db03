//! Somebody who issues JWTs: keys, and a server on this machine that shows their public halves.

use crate::stub::Stub;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use ring::{
    rand::SystemRandom,
    signature::{Ed25519KeyPair, KeyPair},
};
use serde_json::{Value, json};
use std::{
    sync::{Arc, Mutex},
    time::{SystemTime, UNIX_EPOCH},
};

/// What tokens of [`Issuer::claims`] are for.
pub const AUDIENCE: &str = "countersign-under-test";

/// A key of an issuer's.
#[derive(Debug)]
pub struct Key {
    name: String,
    pair: Ed25519KeyPair,
}

impl Key {
    /// A new one of this name.
    pub fn new(name: &str) -> Self {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Self { name: name.to_owned(), pair: Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap() }
    }

    /// Its public half, as JWKS documents list it.
    pub fn jwk(&self) -> Value {
        let x = BASE64URL.encode(self.pair.public_key());
        json!({"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": self.name, "x": x})
    }

    /// A JWT of these claims.
    pub fn token(&self, claims: &Value) -> String {
        let header = json!({"alg": "EdDSA", "kid": self.name, "typ": "JWT"});
        let message = format!("{}.{}", BASE64URL.encode(header.to_string()), BASE64URL.encode(claims.to_string()));
        let signature = self.pair.sign(message.as_bytes());
        format!("{message}.{}", BASE64URL.encode(signature))
    }
}

/// An issuer's server. It answers what it was told last.
#[derive(Debug)]
pub struct Issuer {
    server: Stub,
    jwks: Arc<Mutex<String>>,
    discovery: Arc<Mutex<String>>,
}

impl Issuer {
    /// A server that shows these keys.
    pub fn start(keys: &[&Key]) -> Self {
        let (jwks, discovery) = (Arc::<Mutex<String>>::default(), Arc::<Mutex<String>>::default());
        let (shown, named) = (Arc::clone(&jwks), Arc::clone(&discovery));
        let server = Stub::answering(move |request| {
            let discovers = request.starts_with("GET /.well-known/openid-configuration ");
            if discovers { named.lock().unwrap().clone() } else { shown.lock().unwrap().clone() }
        });
        let issuer = Self { server, jwks, discovery };
        issuer.show(keys);
        issuer.discover(&json!({"issuer": issuer.url(), "jwks_uri": issuer.jwks_url()}));
        issuer
    }

    /// What `iss` says.
    pub fn url(&self) -> String {
        format!("http://{}", self.server.authority)
    }

    /// Where its keys are.
    pub fn jwks_url(&self) -> String {
        self.server.url("/keys")
    }

    /// `host:port`.
    pub fn authority(&self) -> &str {
        &self.server.authority
    }

    /// Shows these keys from now on.
    pub fn show(&self, keys: &[&Key]) {
        let keys: Vec<Value> = keys.iter().map(|key| key.jwk()).collect();
        self.answer("200 OK", &json!({ "keys": keys }).to_string());
    }

    /// Answers whoever asks for keys with this from now on.
    pub fn answer(&self, status: &str, body: &str) {
        *self.jwks.lock().unwrap() = whole(status, body);
    }

    /// Answers whoever asks where the keys are with this from now on.
    pub fn discover(&self, document: &Value) {
        *self.discovery.lock().unwrap() = whole("200 OK", &document.to_string());
    }

    /// How often it was asked for keys.
    pub fn asked(&self) -> usize {
        self.server.seen().iter().filter(|request| request.starts_with("GET /keys ")).count()
    }

    /// Claims of a good token for ten minutes.
    pub fn claims(&self, subject: &str) -> Value {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        json!({"iss": self.url(), "sub": subject, "aud": [AUDIENCE, "others"], "iat": now, "exp": now + 600})
    }
}

fn whole(status: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}
