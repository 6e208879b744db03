//! JWTs: only what our issuer's key has signed is believed, and nothing else about it.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use countersign_core::json::Json;
use countersign_wire::jose::{Algorithm, Key, KeySet, Unverified, is_meant};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::json;

use crate::{json as strict, way};

static PAIR: LazyLock<Ed25519KeyPair> = LazyLock::new(|| Ed25519KeyPair::from_seed_unchecked(&[9; 32]).unwrap());
static OURS: LazyLock<Key> = LazyLock::new(|| Key::Ed25519(PAIR.public_key().as_ref().to_vec()));

/// Keys of other people, from RFC 7515 and RFC 8037: they have signed nothing that is tried here.
static OTHERS: LazyLock<Vec<Key>> = LazyLock::new(|| {
    let keys = KeySet::parse(OTHER_KEYS.as_bytes()).unwrap();
    ["ec", "ed"].map(|kid| keys.get(kid).unwrap().clone()).to_vec()
});

const OTHER_KEYS: &str = r#"{"keys":[
    {"kid":"ec","kty":"EC","crv":"P-256","use":"sig","alg":"ES256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
     "y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"},
    {"kid":"ed","kty":"OKP","crv":"Ed25519","key_ops":["verify"],"x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

/// Everything that was ever signed.
static SIGNED: LazyLock<Vec<String>> = LazyLock::new(|| {
    [
        (r#"{"alg":"EdDSA","kid":"ours","typ":"JWT"}"#, r#"{"iss":"https://issuer.example","sub":"scout","exp":1}"#),
        (r#"{"alg":"EdDSA","kid":"ours"}"#, "{}"),
    ]
    .map(|(header, payload)| signed(header.as_bytes(), payload.as_bytes()))
    .to_vec()
});

fn signed(header: &[u8], payload: &[u8]) -> String {
    let text = format!("{}.{}", BASE64URL.encode(header), BASE64URL.encode(payload));
    let signature = BASE64URL.encode(PAIR.sign(text.as_bytes()).as_ref());
    format!("{text}.{signature}")
}

/// `s`: a header and a payload, a line each, signed here; `k`: an issuer's keys; else a token.
pub(crate) fn check(bytes: &[u8]) {
    let (first, rest) = way(bytes);
    match first {
        b's' => honest(rest),
        b'k' => keys(rest),
        _ => stranger(rest),
    }
}

const ANY: fn(Algorithm) -> bool = |_| true;

fn stranger(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(token) = Unverified::parse(text) else { return };
    assert!(is_meant(text));
    if let Ok(claims) = token.verified(&OURS, ANY) {
        let ours = |own: &&String| own.rsplit_once('.').unwrap().0 == text.rsplit_once('.').unwrap().0;
        let own = SIGNED.iter().find(ours).expect("a token that was never signed");
        assert_eq!(own, text, "another spelling of a signature");
        assert!(claims.is_object());
    }
    assert!(OTHERS.iter().all(|key| token.verified(key, ANY).is_err()), "somebody else's key");
    assert!(token.verified(&OURS, |_| false).is_err(), "an algorithm that is not allowed");
}

/// What we sign ourselves verifies only under the strictest reading of its header.
fn honest(bytes: &[u8]) {
    let (header, payload) = bytes.split_at(bytes.iter().position(|b| *b == b'\n').unwrap_or(bytes.len()));
    let payload = payload.strip_prefix(b"\n").unwrap_or(payload);
    let text = signed(header, payload);
    let Ok(token) = Unverified::parse(&text) else { return };
    assert!(strict::distinct(header) && strict::distinct(payload), "a repeated key was accepted");
    assert!(OTHERS.iter().all(|key| token.verified(key, ANY).is_err()), "somebody else's key");
    let Ok(claims) = token.verified(&OURS, ANY) else { return };
    let Some(said) = strict::reread(header) else { return };
    assert_eq!(said["alg"], "EdDSA");
    assert_eq!(said["kid"], token.kid);
    assert!(said.get("crit").is_none() && !token.kid.is_empty());
    assert!(said.get("typ").is_none_or(|typ| typ.as_str().is_some_and(|t| t.to_ascii_lowercase().ends_with("jwt"))));
    assert_eq!(Json::parse(payload, payload.len()).ok().map(|own| own.raw), Some(claims.raw));
}

/// Public keys of their issuer for signatures, and nothing symmetric.
fn keys(bytes: &[u8]) {
    let Ok(set) = KeySet::parse(bytes) else { return };
    assert!(strict::distinct(bytes), "a repeated key was accepted");
    let Some(document) = strict::reread(bytes) else { return };
    let listed = document["keys"].as_array().unwrap();
    assert!((1..=64).contains(&set.count()) && listed.len() >= set.count());
    let token = Unverified::parse(&SIGNED[0]).unwrap();
    for kid in listed.iter().filter_map(|key| key["kid"].as_str()) {
        let Some(key) = set.get(kid) else { continue };
        let described = listed.iter().filter(|key| key["kid"] == kid);
        assert!(described.clone().all(|key| key["kty"] != "oct") || described.clone().count() > 1);
        match key {
            Key::Rsa { n, e } => assert!((256..=1_024).contains(&n.len()) && (1..=4).contains(&e.len())),
            Key::P256(point) => assert_eq!((point.len(), point[0]), (65, 4)),
            Key::Ed25519(point) => assert_eq!(point.len(), 32),
        }
        assert!(key == &*OURS || token.verified(key, ANY).is_err(), "somebody else's key");
    }
}

/// Tokens and keys that hold, for the corpus.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let tokens = SIGNED.iter().map(|token| format!("t{token}"));
    let Key::Ed25519(point) = &*OURS else { return Vec::new() };
    let jwk = json!({"kid": "ours", "kty": "OKP", "crv": "Ed25519", "x": BASE64URL.encode(point), "alg": "EdDSA"});
    let keys = format!("k{}", json!({"keys": [jwk, {"kty": "oct", "kid": "o", "k": "AAAA"}]}));
    let rest = [
        "s{\"alg\":\"EdDSA\",\"kid\":\"a\"}\n{\"sub\":\"scout\",\"exp\":1}".to_owned(),
        format!("k{OTHER_KEYS}"),
        keys,
    ];
    tokens.chain(rest).map(String::into_bytes).collect()
}
