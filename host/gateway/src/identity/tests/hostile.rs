//! What must never be believed.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;

use super::minting::{Kind, Mint};
use super::{ISSUER, NOW, ask, ask_in, changed, claims, config};
use countersign_wire::jose::{KeySet, MAX_JWKS, MAX_TOKEN, Unverified};

const NOT_OBJECT: &str = "its payload is not one JSON object without repeated keys";
const HEADER: &str = "its header is not one JSON object without repeated keys";
const BASE64: &str = "a part of it is not base64url without padding";
const SIGNATURE: &str = "its signature is not its issuer's";
const ALGORITHM: &str = "its algorithm is not accepted";

fn hs256(header: &Value, claims: &Value, secret: &[u8]) -> String {
    let message = format!("{}.{}", BASE64URL.encode(header.to_string()), BASE64URL.encode(claims.to_string()));
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).unwrap();
    mac.update(message.as_bytes());
    format!("{message}.{}", BASE64URL.encode(mac.finalize().into_bytes()))
}

#[test]
fn algorithms_are_the_keys_and_the_configurations() {
    let (rsa, p256) = (Mint::new(Kind::Rsa, "one"), Mint::new(Kind::P256, "one"));
    let good = claims("scout");
    for mint in [&rsa, &p256] {
        let keys = mint.keys();
        let with =
            |algorithm: &str| mint.signed(&json!({"alg": algorithm, "kid": "one"}).to_string(), &good.to_string());
        for algorithm in ["none", "None", "NONE", "", "HS256", "HS512", "PS256", "RS384", "ES384", "es256", "ES256 "] {
            assert_eq!(ask(&with(algorithm), &keys), Err(ALGORITHM), "{algorithm}");
        }
        let another = if mint.algorithm() == "RS256" { "ES256" } else { "RS256" };
        for algorithm in [another, "EdDSA"] {
            assert_eq!(ask(&with(algorithm), &keys), Err("its key is for another algorithm"), "{algorithm}");
        }
        // No signature at all.
        for header in [json!({"alg": "none", "kid": "one"}), mint.header()] {
            let (header, payload) = (BASE64URL.encode(header.to_string()), BASE64URL.encode(good.to_string()));
            assert!(ask(&format!("{header}.{payload}."), &keys).is_err());
        }
        // A public key is no secret.
        let jwk = mint.jwk();
        let material = jwk.get("n").or_else(|| jwk.get("x")).and_then(Value::as_str).unwrap();
        for secret in [jwk.to_string().into_bytes(), material.as_bytes().to_vec(), BASE64URL.decode(material).unwrap()]
        {
            assert_eq!(ask(&hs256(&json!({"alg": "HS256", "kid": "one"}), &good, &secret), &keys), Err(ALGORITHM));
            assert_eq!(ask(&hs256(&mint.header(), &good, &secret), &keys), Err(SIGNATURE));
        }
    }
    // This issuer allows only one of ours.
    let closed = changed(good, json!({"iss": "https://closed.example.com"}));
    assert_eq!(ask(&rsa.token(&closed), &rsa.keys()), Err(ALGORITHM));
}

#[test]
fn a_key_is_one_of_the_issuers_and_nothing_in_the_token_says_otherwise() {
    let (mint, stranger) = (Mint::new(Kind::P256, "one"), Mint::new(Kind::P256, "one"));
    let keys = mint.keys();
    let good = claims("scout").to_string();
    assert_eq!(ask(&stranger.token(&claims("scout")), &keys), Err(SIGNATURE));
    let header = |kid: Value| json!({"alg": "ES256", "kid": kid}).to_string();
    for kid in ["two", "One", "one ", "../one", "one\0", "' OR 1=1 --", "https://evil.example/jwks#one"] {
        assert_eq!(ask(&mint.signed(&header(json!(kid)), &good), &keys), Err("its issuer has no such key"), "{kid}");
    }
    for kid in [json!(null), json!(1), json!(["one"]), json!({"one": 1}), json!(""), json!("x".repeat(257))] {
        assert_eq!(ask(&mint.signed(&header(kid.clone()), &good), &keys), Err("its header names no key"), "{kid}");
    }
    let brought = json!({"alg": "ES256", "kid": "one", "jwk": stranger.jwk(), "jku": "https://evil.example/",
        "x5u": "https://evil.example/", "x5c": ["AAAA"]});
    assert_eq!(ask(&stranger.signed(&brought.to_string(), &good), &keys), Err(SIGNATURE));
    // Another's payload under a good signature.
    let (token, other) = (mint.token(&claims("scout")), mint.token(&claims("guest")));
    let (_, signature) = token.rsplit_once('.').unwrap();
    let (message, _) = other.rsplit_once('.').unwrap();
    assert_eq!(ask(&format!("{message}.{signature}"), &keys), Err(SIGNATURE));
}

#[test]
fn a_token_is_for_us_from_its_issuer_and_for_now() {
    let mint = Mint::new(Kind::P256, "one");
    let keys = mint.keys();
    let huge = u64::MAX;
    for (changes, why) in [
        (json!({"iss": "https://login.example.com/"}), "its issuer is not known here"),
        (json!({"iss": "https://LOGIN.example.com"}), "its issuer is not known here"),
        (json!({"iss": [ISSUER]}), "its issuer is not known here"),
        (json!({"iss": null}), "its issuer is not known here"),
        (json!({"aud": "another"}), "it is for another audience"),
        (json!({"aud": "countersign "}), "it is for another audience"),
        (json!({"aud": []}), "it is for another audience"),
        (json!({"aud": ["another", "third"]}), "it is for another audience"),
        (json!({"aud": ["countersign", 1]}), "it is for another audience"),
        (json!({"aud": [["countersign"]]}), "it is for another audience"),
        (json!({"aud": {"countersign": true}}), "it is for another audience"),
        (json!({"aud": null}), "it does not say for whom it is"),
        (json!({"exp": null}), "it never expires"),
        (json!({"exp": "9999999999"}), "its times are not whole seconds"),
        (json!({"exp": 1.8e9}), "its times are not whole seconds"),
        (json!({"exp": -1}), "its times are not whole seconds"),
        (json!({"exp": NOW - 60}), "it has expired"),
        (json!({"exp": 0}), "it has expired"),
        (json!({"exp": huge}), "it is valid for longer than its issuer may say"),
        (json!({"exp": NOW + 3_591}), "it is valid for longer than its issuer may say"),
        (json!({"iat": null}), "it does not say when it was issued"),
        (json!({"iat": NOW + 61}), "it is not valid yet"),
        (json!({"iat": huge}), "it is not valid yet"),
        (json!({"iat": NOW + 30, "exp": NOW + 20}), "it expired before it was issued"),
        (json!({"iat": 0}), "it is valid for longer than its issuer may say"),
        (json!({"nbf": NOW + 61}), "it is not valid yet"),
        (json!({"nbf": "soon"}), "its times are not whole seconds"),
    ] {
        assert_eq!(ask(&mint.token(&changed(claims("scout"), changes.clone())), &keys), Err(why), "{changes}");
    }
    for changes in [
        json!({"aud": ["another", "https://pay.example.com"]}),
        json!({"exp": NOW - 59, "iat": NOW - 100}),
        json!({"exp": NOW + 3_590}),
        json!({"iat": NOW + 60}),
        json!({"nbf": NOW + 60}),
        json!({"nonce": "anything", "nested": {"aud": "x"}}),
    ] {
        assert!(ask(&mint.token(&changed(claims("scout"), changes.clone())), &keys).is_ok(), "{changes}");
    }
    let token = mint.token(&claims("scout"));
    let at = |now| ask_in(&config(), &token, &keys, now);
    assert!(at(NOW + 659).is_ok());
    assert_eq!(
        (at(NOW + 660), at(NOW - 71), at(0)),
        (Err("it has expired"), Err("it is not valid yet"), Err("it is not valid yet"))
    );
}

#[test]
fn there_is_one_spelling_of_a_token() {
    let mint = Mint::new(Kind::Ed25519, "one");
    let keys = mint.keys();
    let (header, good) = (mint.header().to_string(), claims("scout").to_string());
    let token = mint.signed(&header, &good);
    assert!(ask(&token, &keys).is_ok());
    let in_payload = |extra: &str| good.replacen('{', &format!("{{{extra},"), 1);
    let in_header = |extra: &str| header.replacen('{', &format!("{{{extra},"), 1);
    for (what, payload, why) in [
        ("twice", in_payload("\"sub\":\"other\""), NOT_OBJECT),
        ("twice, escaped", in_payload("\"su\\u0062\":\"other\""), NOT_OBJECT),
        ("trailing", format!("{good} x"), NOT_OBJECT),
        ("trailing object", format!("{good}{good}"), NOT_OBJECT),
        ("a list", format!("[{good}]"), NOT_OBJECT),
        ("empty", String::new(), NOT_OBJECT),
        ("byte order mark", format!("\u{feff}{good}"), NOT_OBJECT),
        ("deep", in_payload(&format!("\"x\":{}{}", "[".repeat(99), "]".repeat(99))), NOT_OBJECT),
        ("comment", format!("{good}//"), NOT_OBJECT),
    ] {
        assert_eq!(ask(&mint.signed(&header, &payload), &keys), Err(why), "{what}");
    }
    for (what, header, why) in [
        ("crit", in_header("\"crit\":[\"exp\"]"), "its header has extensions that must be understood"),
        ("unknown crit", in_header("\"crit\":[\"x\"],\"x\":1"), "its header has extensions that must be understood"),
        ("no crit", in_header("\"crit\":null"), "its header has extensions that must be understood"),
        ("b64", in_header("\"b64\":false,\"crit\":[\"b64\"]"), "its header has extensions that must be understood"),
        ("alg twice", in_header("\"alg\":\"none\""), HEADER),
        ("kid twice", in_header("\"kid\":\"two\""), HEADER),
        ("no alg", header.replace("alg", "gla"), "its header names no algorithm"),
        ("alg list", header.replace("\"EdDSA\"", "[\"EdDSA\"]"), "its header names no algorithm"),
        ("logout", header.replace("\"JWT\"", "\"logout+jwt\""), "it is another type of token"),
        ("typ number", header.replace("\"JWT\"", "1"), "it is another type of token"),
        ("text", "\"EdDSA\"".to_owned(), HEADER),
    ] {
        assert_eq!(ask(&mint.signed(&header, &good), &keys), Err(why), "{what}");
    }
    assert!(ask(&mint.signed(&header.replace("\"JWT\"", "\"at+jwt\""), &good), &keys).is_ok());

    let parts: Vec<&str> = token.split('.').collect();
    let [head, body, signature] = parts[..] else { panic!("{token}") };
    for (what, spelled, why) in [
        ("padding", format!("{head}.{body}.{signature}=="), BASE64),
        ("the other alphabet", format!("{head}.{body}.{signature}+/"), BASE64),
        ("blank", format!("{head}.{body}. {signature}"), BASE64),
        ("line break", format!("{head}.{body}.{signature}\n"), BASE64),
        ("one part", head.to_owned(), "it does not have three parts"),
        ("two parts", format!("{head}.{body}"), "it does not have three parts"),
        ("four parts", format!("{token}.{signature}"), BASE64),
        ("five parts", format!("{head}.AA.AA.AA.{signature}"), BASE64),
        ("nothing", String::new(), "it does not have three parts"),
        ("points", "..".to_owned(), HEADER),
        ("huge", format!("{head}.{}.{signature}", "A".repeat(MAX_TOKEN)), "it is too long"),
    ] {
        assert_eq!(ask(&spelled, &keys), Err(why), "{what}");
    }
    // Bits that say nothing must be zero: 64 bytes end in a digit of which four bits count.
    let mut letters: Vec<char> = signature.chars().collect();
    let last = letters.pop().unwrap();
    let digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let next = digits.chars().nth(digits.find(last).unwrap() + 1).unwrap();
    letters.push(next);
    let respelled = format!("{head}.{body}.{}", letters.into_iter().collect::<String>());
    assert_eq!(ask(&respelled, &keys), Err(BASE64));
}

#[test]
fn keys_are_public_ones_for_signatures_with_names_of_their_own() {
    let (mint, rsa) = (Mint::new(Kind::P256, "one"), Mint::new(Kind::Rsa, "two"));
    let set = |keys: Value| KeySet::parse(json!({ "keys": keys }).to_string().as_bytes()).map(|keys| keys.count());
    const NONE: Result<usize, &str> = Err("no key that could be used: RSA, P-256 or Ed25519, with a `kid`");
    assert_eq!(set(json!([mint.jwk(), rsa.jwk()])), Ok(2));
    assert_eq!(set(json!([mint.jwk(), mint.jwk()])), Err("two keys of one name"));
    assert_eq!(set(json!([])), NONE);
    assert_eq!(set(json!(vec![json!({}); 65])), Err("more than 64 keys"));
    for (key, changes) in [
        (&mint, json!({"kid": null})),
        (&mint, json!({"kid": ""})),
        (&mint, json!({"kid": 1})),
        (&mint, json!({"use": "enc"})),
        (&mint, json!({"use": 1})),
        (&mint, json!({"key_ops": ["sign"]})),
        (&mint, json!({"key_ops": "verify"})),
        (&mint, json!({"alg": "RS256"})),
        (&mint, json!({"alg": "none"})),
        (&mint, json!({"alg": 256})),
        (&mint, json!({"kty": "oct", "k": "AAAA"})),
        (&mint, json!({"kty": "RSA"})),
        (&mint, json!({"crv": "P-384"})),
        (&mint, json!({"crv": null})),
        (&mint, json!({"crv": "Ed25519"})),
        (&mint, json!({"x": "AAAA"})),
        (&mint, json!({"y": null})),
        (&rsa, json!({"alg": "PS256"})),
        (&rsa, json!({"alg": "HS256"})),
        (&rsa, json!({"n": BASE64URL.encode([0xff; 128])})),
        (&rsa, json!({"n": BASE64URL.encode([0xff; 1_025])})),
        (&rsa, json!({"n": BASE64URL.encode([0; 256])})),
        (&rsa, json!({"e": ""})),
        (&rsa, json!({"e": BASE64URL.encode([1; 5])})),
    ] {
        assert_eq!(set(json!([changed(key.jwk(), changes.clone())])), NONE, "{changes}");
        assert_eq!(set(json!([changed(key.jwk(), changes), Mint::new(Kind::Ed25519, "x").jwk()])), Ok(1));
    }
    for (text, why) in [
        ("", "not JSON"),
        ("{}", "no list `keys`"),
        ("[]", "no list `keys`"),
        ("{\"keys\":{}}", "no list `keys`"),
        ("{\"keys\":[],\"keys\":[]}", "not JSON"),
        (&format!("{{\"keys\":[]{}}}", " ".repeat(MAX_JWKS)), "not JSON"),
        ("<html>", "not JSON"),
    ] {
        assert!(KeySet::parse(text.as_bytes()).is_err_and(|said| said.contains(why)), "{text}");
    }
    // A point that is not on the curve verifies nothing.
    let nowhere = changed(mint.jwk(), json!({"x": BASE64URL.encode([1; 32])}));
    let keys = KeySet::parse(json!({"keys": [nowhere]}).to_string().as_bytes()).unwrap();
    assert_eq!(ask(&mint.token(&claims("scout")), &keys), Err(SIGNATURE));
}

/// A small generator of numbers, the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 16).unwrap() % most
    }
}

#[test]
fn no_bytes_make_the_reader_panic_and_no_change_is_believed() {
    let mint = Mint::new(Kind::Ed25519, "one");
    let keys = mint.keys();
    let token = mint.token(&claims("scout"));
    let document = json!({"keys": [mint.jwk(), Mint::new(Kind::Rsa, "two").jwk()]}).to_string();
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let mut changed = |text: &str| {
        let mut bytes = text.as_bytes().to_vec();
        for _ in 0..=dice.below(4) {
            let at = dice.below(bytes.len().max(1));
            let byte = u8::try_from(dice.below(256)).unwrap();
            match dice.below(4) {
                0 => bytes.insert(at, byte),
                1 => bytes.truncate(at.max(1)),
                2 if !bytes.is_empty() => drop(bytes.remove(at)),
                _ => bytes.splice(at..bytes.len().min(at + 1), [byte]).for_each(drop),
            }
        }
        bytes
    };
    for _ in 0..10_000 {
        let bytes = changed(&token);
        let spelled = String::from_utf8_lossy(&bytes).into_owned();
        assert!(spelled == token || ask(&spelled, &keys).is_err(), "{spelled}");
        drop(KeySet::parse(&changed(&document)));
    }
    let mut dice = Dice(7);
    for _ in 0..20_000 {
        let length = dice.below(200);
        let bytes: Vec<u8> = (0..length).map(|_| u8::try_from(dice.below(256)).unwrap()).collect();
        assert!(Unverified::parse(&String::from_utf8_lossy(&bytes)).is_err());
        // The same as the parts of a token.
        let parts = bytes.split(|b| *b == b'.').map(|part| BASE64URL.encode(part)).collect::<Vec<_>>().join(".");
        assert!(ask(&parts, &keys).is_err());
        drop(KeySet::parse(&bytes));
    }
}
