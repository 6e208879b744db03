//! Hex digits: every id, address, nonce and digest of a payment is written in them.

/// Bytes as lower-case hex digits. What `hex::encode` says, without a `char` for each digit: a payment has thousands.
#[must_use]
pub fn lower_hex(bytes: &[u8]) -> String {
    const DIGITS: [u8; 16] = *b"0123456789abcdef";
    let digit = |nibble: u8| DIGITS.get(usize::from(nibble)).copied().unwrap_or(b'?');
    let digits: Vec<u8> = bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect();
    String::from_utf8(digits).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_written_as_hex_writes_it() {
        let bytes: Vec<u8> = (0..=u8::MAX).collect();
        assert_eq!(lower_hex(&bytes), hex::encode(&bytes));
        assert_eq!(lower_hex(&[]), "");
    }
}
