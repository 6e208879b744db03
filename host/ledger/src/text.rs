//! Texts as they are stored: packed, because they are most of what a payment takes on the disk.
//!
//! A stored text is a blob. Its first byte says what follows: 0 the text itself; 1 the text packed with zstd and the
//! dictionary beside this file, a frame with its length and checksum but without zstd's own first four bytes. Nothing
//! else is a text. Hashes are always over the text, never over what is stored.
//!
//! The dictionary is part of the format: whatever was packed with it can be read with it only. A better one would be a
//! new tag beside this one. It was made from texts of many unlike payments:
//!
//! ```sh
//! cargo run --release -p countersign-ledger --example texts -- /tmp/texts
//! zstd --train-cover -r /tmp/texts --maxdict=8192 --dictID=1 -o host/ledger/src/text.dict
//! ```

use std::cell::RefCell;
use std::fmt;
use std::sync::LazyLock;

use rusqlite::ToSql;
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSqlOutput, ValueRef};
use zstd::bulk::{Compressor, Decompressor};
use zstd::dict::{DecoderDictionary, EncoderDictionary};
use zstd::zstd_safe::{CParameter, compress_bound, get_frame_content_size};

/// What short texts like ours have in common.
const DICTIONARY: &[u8] = include_bytes!("text.dict");
/// Higher ones cost more than they save.
const LEVEL: i32 = 3;
/// The longest text that is packed; a longer one is stored as it is. So no stored byte can make us allocate more.
const MOST: usize = 1 << 20;

const PLAIN: u8 = 0;
const PACKED: u8 = 1;
/// How every frame of zstd begins.
const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

static PACKS: LazyLock<EncoderDictionary<'static>> = LazyLock::new(|| EncoderDictionary::copy(DICTIONARY, LEVEL));
static UNPACKS: LazyLock<DecoderDictionary<'static>> = LazyLock::new(|| DecoderDictionary::copy(DICTIONARY));

thread_local! {
    static PACKER: RefCell<Option<Compressor<'static>>> = RefCell::new(packer().ok());
}

fn packer() -> std::io::Result<Compressor<'static>> {
    let mut packer = Compressor::with_prepared_dictionary(&PACKS)?;
    packer.set_parameter(CParameter::ContentSizeFlag(true))?;
    packer.set_parameter(CParameter::ChecksumFlag(true))?;
    // The tag says which.
    packer.set_parameter(CParameter::DictIdFlag(false))?;
    Ok(packer)
}

/// Why stored bytes are no text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoText(&'static str);

impl fmt::Display for NoText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a stored text cannot be read: {}", self.0)
    }
}

impl std::error::Error for NoText {}

/// A text as it is stored.
#[must_use]
pub fn pack(text: &str) -> Vec<u8> {
    packed(text.as_bytes()).unwrap_or_else(|| {
        let mut plain = Vec::with_capacity(text.len().saturating_add(1));
        plain.push(PLAIN);
        plain.extend(text.as_bytes());
        plain
    })
}

/// Packed, if that is shorter.
fn packed(text: &[u8]) -> Option<Vec<u8>> {
    if text.len() > MOST {
        return None;
    }
    let mut frame = Vec::with_capacity(compress_bound(text.len()));
    PACKER.with_borrow_mut(|packer| packer.as_mut()?.compress_to_buffer(text, &mut frame).ok())?;
    let rest = frame.strip_prefix(&MAGIC)?;
    (rest.len() < text.len()).then(|| [&[PACKED], rest].concat())
}

/// The text that was stored.
///
/// # Errors
/// When the bytes are not what [`pack`] writes. A text of more than 1 MiB is only ever read from bytes as long as it.
pub fn unpack(stored: &[u8]) -> Result<String, NoText> {
    let text = match stored.split_first() {
        Some((&PLAIN, text)) => text.to_vec(),
        Some((&PACKED, rest)) => unpacked(&[&MAGIC, rest].concat())?,
        Some(_) => return Err(NoText("it is stored in a way that this version does not know")),
        None => return Err(NoText("it is empty")),
    };
    String::from_utf8(text).map_err(|_| NoText("it is not UTF-8"))
}

fn unpacked(frame: &[u8]) -> Result<Vec<u8>, NoText> {
    const DAMAGED: NoText = NoText("it is damaged");
    let length = get_frame_content_size(frame).ok().flatten().ok_or(DAMAGED)?;
    let length = usize::try_from(length).ok().filter(|length| *length <= MOST);
    let length = length.ok_or(NoText("it says that it is longer than any that is packed"))?;
    let mut unpacker = Decompressor::with_prepared_dictionary(&UNPACKS).map_err(|_| DAMAGED)?;
    let text = unpacker.decompress(frame, length).map_err(|_| DAMAGED)?;
    if text.len() == length { Ok(text) } else { Err(DAMAGED) }
}

/// Writes a text as [`pack`] does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Packed(Vec<u8>);

impl Packed {
    pub(crate) fn new(text: &str) -> Self {
        Self(pack(text))
    }
}

impl ToSql for Packed {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        self.0.to_sql()
    }
}

/// Reads a text as [`unpack`] does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Text(pub(crate) String);

impl FromSql for Text {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        unpack(value.as_blob()?).map(Self).map_err(|e| FromSqlError::Other(Box::new(e)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sha2::{Digest as _, Sha256};

    use super::*;

    /// Like what is stored: long enough to be packed.
    fn text() -> String {
        serde_json::to_string(&crate::common::facts()).unwrap()
    }

    /// What is packed, by hand: any text, with any length said of it.
    fn frame(text: &[u8]) -> Vec<u8> {
        let frame = packer().unwrap().compress(text).unwrap();
        [&[PACKED], frame.strip_prefix(&MAGIC).unwrap()].concat()
    }

    #[test]
    fn the_dictionary_and_the_format_do_not_change() {
        assert_eq!(hex::encode(Sha256::digest(DICTIONARY)), DICTIONARY_SHA256);
        assert_eq!(
            unpack(&hex::decode(WRITTEN_ONCE).unwrap()).unwrap(),
            r#"{"agent":"scout","workspace":"lab","x":"yy"}"#
        );
    }
    const DICTIONARY_SHA256: &str = "55924d8ea23d28f2f6fd901a7de1a89f17f3e2b089a2f984b509e900e1ba4ae7";
    /// `zstd --no-dictID -D text.dict` of that text, with the tag for its first four bytes.
    const WRITTEN_ONCE: &str = "01242ccd00006073636f7578223a227979227d03fc342870c97627a8c86226c93c0eda";

    #[test]
    fn a_text_like_ours_is_packed_to_less_than_half() {
        let text = text();
        let stored = pack(&text);
        assert!(stored.len() * 2 < text.len(), "{} of {}", stored.len(), text.len());
        assert_eq!((stored[0], unpack(&stored).unwrap()), (PACKED, text));
    }

    #[test]
    fn what_packing_does_not_shorten_is_stored_as_it_is() {
        for text in ["", "a", "\u{e4}"] {
            assert_eq!(pack(text), [&[PLAIN], text.as_bytes()].concat());
            assert_eq!(unpack(&pack(text)).unwrap(), text);
        }
    }

    #[test]
    fn the_longest_is_packed_and_a_longer_one_is_plain() {
        for (length, tag) in [(MOST, PACKED), (MOST + 1, PLAIN)] {
            let text = "x".repeat(length);
            let stored = pack(&text);
            assert_eq!(stored[0], tag);
            assert!(unpack(&stored).unwrap() == text);
        }
    }

    #[test]
    fn a_text_that_says_it_is_longer_than_the_longest_is_refused_before_anything_is_allocated() {
        let long = frame(&vec![b'x'; MOST + 1]);
        assert!(long.len() < 1_000, "a few bytes that would become a mebibyte");
        assert_eq!(unpack(&long), Err(NoText("it says that it is longer than any that is packed")));
        // A frame that says 2^60: there is no such memory.
        let header = [&[PACKED, 0xe4][..], &(1_u64 << 60).to_le_bytes(), &[0; 8]].concat();
        assert_eq!(unpack(&header), Err(NoText("it says that it is longer than any that is packed")));
    }

    #[test]
    fn a_text_that_is_longer_than_it_says_is_refused() {
        let (one, two) = (frame(b"aaaaaaaaaaaaaaaaaaaaaaaa"), frame(&vec![b'x'; MOST]));
        // Two frames: the first one's length is all there is room for.
        assert!(unpack(&[&one[..], &MAGIC, &two[1..]].concat()).is_err());
        assert!(unpack(&one).is_ok());
    }

    #[test]
    fn a_frame_without_its_length_or_its_checksum_is_read_only_if_it_is_whole() {
        let mut packer = packer().unwrap();
        packer.set_parameter(CParameter::ContentSizeFlag(false)).unwrap();
        let frame = packer.compress(text().as_bytes()).unwrap();
        assert!(unpack(&[&[PACKED], &frame[4..]].concat()).is_err(), "no length");
    }

    #[test]
    fn no_change_of_the_stored_bytes_changes_the_text() {
        let text = text();
        let stored = pack(&text);
        for at in 0..stored.len() {
            assert!(unpack(&stored[..at]).is_err(), "cut at {at}");
            for bit in 0..8 {
                let mut changed = stored.clone();
                changed[at] ^= 1 << bit;
                // Some bits mean nothing to zstd.
                assert!(unpack(&changed).map_or(true, |read| read == text), "bit {bit} of byte {at}");
            }
        }
    }

    #[test]
    fn another_tag_or_no_bytes_at_all_is_an_error() {
        for tag in 2..=u8::MAX {
            assert!(unpack(&[&[tag], &pack(&text())[1..]].concat()).is_err(), "{tag}");
        }
        assert!(unpack(&[]).is_err());
        assert!(unpack(&[PLAIN, 0xff]).is_err(), "not UTF-8");
        assert!(unpack(&frame(&[0xff; 100])).is_err(), "not UTF-8");
    }

    #[test]
    fn what_another_dictionary_packed_is_refused() {
        let text = text();
        let mut other = DICTIONARY.to_vec();
        other.reverse();
        for dictionary in [Vec::new(), other] {
            let mut packer = Compressor::with_dictionary(LEVEL, &dictionary).unwrap();
            packer.set_parameter(CParameter::ChecksumFlag(true)).unwrap();
            packer.set_parameter(CParameter::DictIdFlag(false)).unwrap();
            let frame = packer.compress(text.as_bytes()).unwrap();
            let read = unpack(&[&[PACKED], &frame[4..]].concat());
            // Without a dictionary there is nothing to be misread.
            assert_eq!(read.is_ok(), dictionary.is_empty());
        }
    }

    proptest! {
        #[test]
        fn a_text_is_read_as_it_was_written(text in any::<String>()) {
            prop_assert_eq!(unpack(&pack(&text)).unwrap(), text);
        }

        #[test]
        fn no_bytes_are_too_strange_to_refuse(tag in 0_u8..3, rest in any::<Vec<u8>>()) {
            let _read_or_refused = unpack(&[&[tag], &rest[..]].concat());
        }
    }
}
