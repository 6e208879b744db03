//! Base64 JSON in a header.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};

/// The values of every header with one of these names, in order.
pub(crate) fn all<'h, 'n>(
    headers: &'h [(String, Vec<u8>)],
    names: &'n [&'static str],
) -> impl Iterator<Item = &'h [u8]> + use<'h, 'n> {
    let named = headers.iter().filter(move |(n, _)| names.iter().any(|name| n.eq_ignore_ascii_case(name)));
    named.map(|(_, value)| value.as_slice())
}

/// The value of a header that may come once under one of its names. Two of them would let two
/// readers see two prices.
pub(crate) fn only<'h>(
    headers: &'h [(String, Vec<u8>)],
    names: &[&'static str],
) -> Result<Option<&'h [u8]>, &'static str> {
    let mut values = all(headers, names);
    match (values.next(), values.next()) {
        (_, Some(_)) => Err("the header came more than once"),
        (first, None) => Ok(first),
    }
}

/// The standard alphabet with all of its padding or none of it; no blanks, nothing url-safe.
pub(super) fn decode(value: &[u8], limit: usize) -> Result<Vec<u8>, &'static str> {
    let most = limit.div_ceil(3).saturating_mul(4);
    if value.len() > most {
        return Err("larger than is accepted");
    }
    if value.contains(&b',') {
        return Err("the header came more than once, joined by a comma");
    }
    let engine = if value.contains(&b'=') { &STANDARD } else { &STANDARD_NO_PAD };
    engine.decode(value).map_err(|_| "expected standard base64")
}

pub(super) fn encode(json: &str) -> String {
    STANDARD.encode(json)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_has_two_spellings() {
        for good in ["e30=", "e30", "W10+", "W10/", ""] {
            assert!(decode(good.as_bytes(), 100).is_ok(), "{good}");
        }
        for bad in [
            "e30==",
            "e3=",
            "e31=",
            "e31",
            "e",
            "W10-",
            "W10_",
            "e3 0",
            " e30=",
            "e30=\n",
            "e30=,e30=",
            "e30,",
            "=",
            "e30=e30=",
            "\u{feff}e30=",
            "e30\0",
        ] {
            assert!(decode(bad.as_bytes(), 100).is_err(), "{bad:?}");
        }
        assert_eq!(decode(&[b'A'; 500], 300), Err("larger than is accepted"));
    }
}
