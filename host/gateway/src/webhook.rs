//! Standard Webhooks (<https://www.standardwebhooks.com>): what a message is signed with, and whether one is.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use countersign_core::time::Timestamp;
use hmac::{Hmac, KeyInit, Mac};
use http::HeaderMap;
use sha2::Sha256;

/// Names the message, the same in every attempt to deliver it.
pub const ID: &str = "webhook-id";
/// When this attempt was made, in seconds since the epoch.
pub const TIMESTAMP: &str = "webhook-timestamp";
/// Signatures over id, timestamp and body, with spaces between them.
pub const SIGNATURE: &str = "webhook-signature";

/// How far a message's timestamp may be from now, in seconds.
const TOLERANCE: u64 = 300;
/// Longest id of a message, in bytes.
const MAX_ID: usize = 256;
/// Signatures of one message that are looked at: a sender that changes its key sends two.
const MAX_SIGNATURES: usize = 4;

fn mac(key: &[u8], id: &str, time: &str, body: &[u8]) -> Option<Hmac<Sha256>> {
    // A key of any length is one.
    let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(key).ok()?;
    mac.update(format!("{id}.{time}.").as_bytes());
    mac.update(body);
    Some(mac)
}

/// `v1,` and the HMAC of id, time and body in base64.
#[must_use]
pub fn sign(key: &[u8], id: &str, time: &str, body: &[u8]) -> String {
    let signature = mac(key, id, time, body).map(|mac| BASE64.encode(mac.finalize().into_bytes()));
    signature.map(|signature| format!("v1,{signature}")).unwrap_or_default()
}

/// The id of a message that was signed with `key` not long ago.
///
/// # Errors
/// Why it is not believed, for its sender.
pub fn verify<'h>(key: &[u8], headers: &'h HeaderMap, body: &[u8], now: Timestamp) -> Result<&'h str, &'static str> {
    const HOW: &str = "send webhook-id, webhook-timestamp and webhook-signature, as Standard Webhooks has it";
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok()).ok_or(HOW);
    let (id, time, signatures) = (header(ID)?, header(TIMESTAMP)?, header(SIGNATURE)?);
    if id.is_empty() || id.len() > MAX_ID {
        return Err("webhook-id: 1 to 256 characters");
    }
    let given = signatures.split(' ').take(MAX_SIGNATURES).filter_map(|one| one.strip_prefix("v1,"));
    let is_good = |signature: &str| {
        let (Ok(signature), Some(mac)) = (BASE64.decode(signature), mac(key, id, time, body)) else { return false };
        // In constant time.
        mac.verify_slice(&signature).is_ok()
    };
    if !given.into_iter().any(is_good) {
        return Err("the signature is not one of this operator's key");
    }
    let sent: u64 = time.parse().map_err(|_| "webhook-timestamp: seconds since the epoch")?;
    if now.as_secs().abs_diff(sent) > TOLERANCE {
        return Err("the message was signed more than 5 minutes away from now");
    }
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID_OF: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    const BODY: &str = r#"{"test": 2432232314}"#;
    const SENT: u64 = 1_614_265_330;

    fn key() -> Vec<u8> {
        BASE64.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap()
    }

    fn headers(signature: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in [(ID, ID_OF), (TIMESTAMP, &SENT.to_string()), (SIGNATURE, signature)] {
            headers.insert(name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn signatures_are_those_of_standard_webhooks() {
        // The example of the specification's reference libraries.
        let signature = sign(&key(), ID_OF, &SENT.to_string(), BODY.as_bytes());
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn only_what_was_signed_lately_with_the_key_is_believed() {
        let good = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        let at = Timestamp::from_secs;
        let check = |headers: &HeaderMap, body: &str, now| verify(&key(), headers, body.as_bytes(), now).is_ok();
        assert_eq!(verify(&key(), &headers(good), BODY.as_bytes(), at(SENT)), Ok(ID_OF));
        for rotated in [format!("v1,AAAA {good}"), format!("v1a,{} {good}", "x".repeat(9))] {
            assert!(check(&headers(&rotated), BODY, at(SENT)), "{rotated}");
        }
        for (now, believed) in [(SENT + 300, true), (SENT - 300, true), (SENT + 301, false), (SENT - 301, false)] {
            assert_eq!(check(&headers(good), BODY, at(now)), believed, "{now}");
        }
        for bad in [
            "",
            "v1,",
            "v1",
            good.strip_prefix("v1,").unwrap(),
            "v1,g0hM9SsE",
            "v2,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        ] {
            assert!(!check(&headers(bad), BODY, at(SENT)), "{bad}");
        }
        assert!(!check(&headers(good), r#"{"test": 2432232315}"#, at(SENT)));
        assert!(verify(&[0; 24], &headers(good), BODY.as_bytes(), at(SENT)).is_err());
        let mut other = headers(good);
        other.insert(ID, "msg_x".parse().unwrap());
        assert!(!check(&other, BODY, at(SENT)));
        for name in [ID, TIMESTAMP, SIGNATURE] {
            let mut without = headers(good);
            without.remove(name);
            assert!(!check(&without, BODY, at(SENT)), "{name}");
        }
    }
}
