//! What must be in nothing that a gateway writes. It is looked for when the life of each gateway under test ends, so that
//! every suite is a test of that, whatever else it is about.

use std::{fs, path::Path};

/// Shorter words say nothing: they may be anywhere.
const SHORTEST: usize = 8;
/// How tokens begin that the gateway makes: of agents, operators and sessions, and secrets of webhooks.
const OURS: [&str; 4] = ["csa_", "cso_", "css_", "whsec_"];
/// The beginning, in base64, of what pays, and of a JWT's head in either common order.
const ENCODED: [&str; 4] = ["eyJ4NDAyVmVyc2lvbiI6", "eyJjaGFsbGVuZ2UiOnsi", "eyJhbGciOi", "eyJ0eXAiOi"];
/// So many hexadecimal digits are a signature.
const SIGNATURE: usize = 130;

/// Panics if what a gateway wrote holds one of these secrets, or what looks like one.
pub(crate) fn look(dir: &Path, log: &str, secrets: &[String]) {
    if let Some(what) = named(log.as_bytes(), secrets).or_else(|| shaped(log)) {
        panic!("{what} is in the gateway's log");
    }
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        // Keys are in files of their own, beside the database.
        if !["countersign.db", "countersign.db-wal", "countersign.db-shm"].contains(&name.as_str()) {
            continue;
        }
        let bytes = fs::read(entry.path()).unwrap_or_default();
        if let Some(what) = named(&bytes, secrets).or_else(|| begun(&String::from_utf8_lossy(&bytes), &OURS, 24)) {
            panic!("{what} is in {name}");
        }
    }
}

/// Panics if a command of ours printed one of these secrets.
pub(crate) fn look_at_output(what: &[String], printed: &[u8], secrets: &[String]) {
    if let Some(secret) = named(printed, secrets) {
        panic!("{secret} was printed by {what:?}");
    }
}

/// The first of these secrets that is there, in any case of its letters, by its beginning.
fn named(bytes: &[u8], secrets: &[String]) -> Option<String> {
    let bytes = bytes.to_ascii_lowercase();
    let there = |secret: &&String| {
        let secret = secret.trim_start_matches("0x").to_ascii_lowercase();
        secret.len() >= SHORTEST && bytes.windows(secret.len()).any(|window| window == secret.as_bytes())
    };
    secrets.iter().find(there).map(|secret| format!("the secret that begins with {:?}", beginning(secret)))
}

/// What has the shape of a token, a payment or a signature.
fn shaped(text: &str) -> Option<String> {
    if text.contains("PRIVATE KEY") {
        return Some("a private key".to_owned());
    }
    let mut digits = 0;
    for byte in text.bytes() {
        digits = if byte.is_ascii_hexdigit() { digits + 1 } else { 0 };
        if digits == SIGNATURE {
            return Some("a signature".to_owned());
        }
    }
    begun(text, &OURS, 24).or_else(|| begun(text, &ENCODED, 60))
}

/// A word that begins so and goes on for at least `least` characters of base64.
fn begun(text: &str, beginnings: &[&str], least: usize) -> Option<String> {
    let goes_on = |rest: &str| {
        let base64 = |b: &u8| b.is_ascii_alphanumeric() || b"-_+/=".contains(b);
        rest.bytes().take_while(base64).count() >= least
    };
    let found = beginnings.iter().find(|begin| text.split(**begin).skip(1).any(goes_on));
    found.map(|begin| format!("what begins with {begin:?}"))
}

fn beginning(secret: &str) -> String {
    secret.chars().take(6).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_must_not_be_there_is_found() {
        let secrets = ["0xAbCdEf0123456789".to_owned(), "short".to_owned()];
        let long = "A1-_".repeat(20);
        for (log, found) in [
            ("key=abcdef0123456789".to_owned(), true),
            ("abcdef012345678".to_owned(), false),
            ("short".to_owned(), false),
            (format!("css_{long}"), true),
            ("css_style.css".to_owned(), false),
            (format!("\"eyJ4NDAyVmVyc2lvbiI6{long}\""), true),
            (format!("authorization: Payment eyJjaGFsbGVuZ2UiOnsi{long}"), true),
            (format!("sig 0x{}", "0f".repeat(65)), true),
            (format!("digest {}", "0f".repeat(64)), false),
            ("-----BEGIN PRIVATE KEY-----".to_owned(), true),
        ] {
            let seen = named(log.as_bytes(), &secrets).or_else(|| shaped(&log));
            assert_eq!(seen.is_some(), found, "{log}: {seen:?}");
        }
    }
}
