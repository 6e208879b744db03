//! What an EVM wallet signs: addresses, EIP-712 digests and 65-byte signatures.
//!
//! There is deliberately no signing here. A signature is made by a wallet, and a wallet is asked
//! only with a [`Permit`](crate::permit::Permit).

use std::fmt;
use std::str::FromStr;

use k256::ecdsa::{RecoveryId, Signature, VerifyingKey};
use serde::{Deserialize, Serialize};
use sha3::{Digest, Keccak256};

use crate::digits::lower_hex;
use crate::money::Atomic;

/// Why an address or signature was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EvmError {
    /// Not `0x` and 40 hex digits.
    AddressMalformed,
    /// Mixed case that is not the EIP-55 checksum: one of the digits is probably wrong.
    AddressChecksum,
    /// Not r, s and v, each in range.
    SignatureMalformed,
    /// `s` is in the upper half, which tokens refuse.
    SignatureHighS,
}

impl EvmError {
    /// Stable code for programs.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::AddressMalformed => "address-malformed",
            Self::AddressChecksum => "address-checksum",
            Self::SignatureMalformed => "signature-malformed",
            Self::SignatureHighS => "signature-high-s",
        }
    }
}

impl fmt::Display for EvmError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AddressMalformed => "expected an address: `0x` and 40 hex digits",
            Self::AddressChecksum => "an address with a wrong checksum; a digit may be mistyped",
            Self::SignatureMalformed => "expected a signature: r, s and v of 27 or 28, in `0x` and 130 hex digits",
            Self::SignatureHighS => "a signature with s in the upper half; normalise it",
        })
    }
}

impl std::error::Error for EvmError {}

/// Keccak-256, the hash of Ethereum (not the SHA-3 of the standard).
#[must_use]
pub fn keccak256(bytes: &[u8]) -> [u8; 32] {
    Keccak256::digest(bytes).into()
}

/// A 20-byte account address, printed with its EIP-55 checksum.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address([u8; 20]);

impl Address {
    /// From its bytes.
    #[must_use]
    pub const fn new(bytes: [u8; 20]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 20] {
        &self.0
    }

    /// Nobody's address: what is sent there is burned.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.0 == [0; 20]
    }

    /// Left-padded to the 32 bytes of an ABI word.
    fn word(self) -> [u8; 32] {
        let mut word = [0_u8; 32];
        let (_, low) = word.split_at_mut(12);
        low.copy_from_slice(&self.0);
        word
    }

    /// The 40 digits in their checksummed case.
    fn checksummed(self) -> String {
        let lower = lower_hex(&self.0);
        let hash = keccak256(lower.as_bytes());
        let upper = hash.iter().flat_map(|byte| [byte & 0x80 != 0, byte & 8 != 0]);
        let cased = lower.bytes().zip(upper).map(|(digit, up)| if up { digit.to_ascii_uppercase() } else { digit });
        String::from_utf8(cased.collect()).unwrap_or_default()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{}", self.checksummed())
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// All lower case, all upper case, or the right checksum.
impl FromStr for Address {
    type Err = EvmError;
    fn from_str(text: &str) -> Result<Self, EvmError> {
        let digits = text.strip_prefix("0x").ok_or(EvmError::AddressMalformed)?;
        let mut bytes = [0_u8; 20];
        hex::decode_to_slice(digits, &mut bytes).map_err(|_| EvmError::AddressMalformed)?;
        let address = Self(bytes);
        let one_case =
            !digits.bytes().any(|b| b.is_ascii_uppercase()) || !digits.bytes().any(|b| b.is_ascii_lowercase());
        if one_case || address.checksummed() == digits { Ok(address) } else { Err(EvmError::AddressChecksum) }
    }
}

impl Serialize for Address {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The address of a public key.
#[must_use]
pub fn address_of(key: &VerifyingKey) -> Address {
    let point = key.to_sec1_point(false);
    // The first byte says "uncompressed"; the hash is over the coordinates.
    let coordinates = point.as_bytes().get(1..).unwrap_or_default();
    let hash = keccak256(coordinates);
    let (_, low) = hash.split_at(12);
    let mut bytes = [0_u8; 20];
    bytes.copy_from_slice(low);
    Address(bytes)
}

/// An EIP-712 domain as EIP-3009 tokens use it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Eip712Domain {
    /// The token's name, exactly as its contract has it.
    pub name: String,
    /// The token's version, exactly as its contract has it.
    pub version: String,
    /// The chain.
    pub chain_id: u64,
    /// The token.
    pub verifying_contract: Address,
}

impl Eip712Domain {
    const TYPE: &'static [u8] = b"EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)";

    /// The domain separator.
    #[must_use]
    pub fn separator(&self) -> [u8; 32] {
        hash_words(&[
            keccak256(Self::TYPE),
            keccak256(self.name.as_bytes()),
            keccak256(self.version.as_bytes()),
            uint(self.chain_id),
            self.verifying_contract.word(),
        ])
    }

    /// The digest that is signed for a message with this struct hash.
    fn digest(&self, struct_hash: [u8; 32]) -> [u8; 32] {
        let mut hasher = Keccak256::new();
        hasher.update([0x19, 0x01]);
        hasher.update(self.separator());
        hasher.update(struct_hash);
        hasher.finalize().into()
    }
}

/// EIP-3009: "move exactly `value` to `to`, once, between these moments."
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransferWithAuthorization {
    /// Who pays.
    pub from: Address,
    /// Who is paid.
    pub to: Address,
    /// In the token's smallest unit.
    pub value: Atomic,
    /// Seconds since the epoch; the transfer is valid strictly after.
    pub valid_after: u64,
    /// Seconds since the epoch; the transfer is valid strictly before.
    pub valid_before: u64,
    /// Any 32 bytes never used before by this payer with this token.
    pub nonce: [u8; 32],
}

impl TransferWithAuthorization {
    const TYPE: &'static [u8] = b"TransferWithAuthorization(address from,address to,uint256 value,\
        uint256 validAfter,uint256 validBefore,bytes32 nonce)";

    /// The EIP-712 struct hash.
    #[must_use]
    pub fn struct_hash(&self) -> [u8; 32] {
        hash_words(&[
            keccak256(Self::TYPE),
            self.from.word(),
            self.to.word(),
            self.value.to_be_bytes32(),
            uint(self.valid_after),
            uint(self.valid_before),
            self.nonce,
        ])
    }

    /// What is signed.
    #[must_use]
    pub fn digest(&self, domain: &Eip712Domain) -> [u8; 32] {
        domain.digest(self.struct_hash())
    }
}

/// EIP-3009: "never redeem the authorization with this nonce."
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CancelAuthorization {
    /// Who would have paid.
    pub authorizer: Address,
    /// The nonce of the authorization.
    pub nonce: [u8; 32],
}

impl CancelAuthorization {
    const TYPE: &'static [u8] = b"CancelAuthorization(address authorizer,bytes32 nonce)";

    /// The EIP-712 struct hash.
    #[must_use]
    pub fn struct_hash(&self) -> [u8; 32] {
        hash_words(&[keccak256(Self::TYPE), self.authorizer.word(), self.nonce])
    }

    /// What is signed.
    #[must_use]
    pub fn digest(&self, domain: &Eip712Domain) -> [u8; 32] {
        domain.digest(self.struct_hash())
    }

    /// The call of the token that carries it out, whoever sends it.
    #[must_use]
    pub fn call(&self, signature: &Signature65) -> Vec<u8> {
        let selector = keccak256(b"cancelAuthorization(address,bytes32,uint8,bytes32,bytes32)");
        let [rs @ .., v] = signature.as_bytes();
        let mut call = Vec::with_capacity(4 + 5 * 32);
        call.extend(selector.iter().take(4));
        call.extend(self.authorizer.word());
        call.extend(self.nonce);
        call.extend([0; 31]);
        call.push(*v);
        call.extend(rs);
        call
    }
}

/// A signature as tokens take it: r, s (lower half) and v (27 or 28).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Signature65([u8; 65]);

impl Signature65 {
    /// From the bytes r ‖ s ‖ v.
    ///
    /// # Errors
    /// [`EvmError::SignatureMalformed`] when r, s or v is out of range,
    /// [`EvmError::SignatureHighS`] when s is in the upper half.
    pub fn new(bytes: [u8; 65]) -> Result<Self, EvmError> {
        let candidate = Self(bytes);
        let (signature, _) = candidate.parts().ok_or(EvmError::SignatureMalformed)?;
        if signature.normalize_s() == signature { Ok(candidate) } else { Err(EvmError::SignatureHighS) }
    }

    /// From what a signing library returns; a high s is turned into its low twin.
    ///
    /// # Errors
    /// [`EvmError::SignatureMalformed`] when r was reduced, which has no 27 or 28.
    pub fn from_ecdsa(signature: &Signature, id: RecoveryId) -> Result<Self, EvmError> {
        if id.is_x_reduced() {
            return Err(EvmError::SignatureMalformed);
        }
        let low = signature.normalize_s();
        let odd = id.is_y_odd() ^ (low != *signature);
        let mut bytes = [0_u8; 65];
        let (rs, v) = bytes.split_at_mut(64);
        rs.copy_from_slice(&low.to_bytes());
        v.fill(if odd { 28 } else { 27 });
        Self::new(bytes)
    }

    /// The bytes r ‖ s ‖ v.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 65] {
        &self.0
    }

    fn parts(&self) -> Option<(Signature, RecoveryId)> {
        let (rs, v) = self.0.split_at(64);
        let odd = match v {
            [27] => false,
            [28] => true,
            _ => return None,
        };
        let signature = Signature::from_slice(rs).ok()?;
        Some((signature, RecoveryId::new(odd, false)))
    }
}

/// `0x` and 130 lower-case hex digits.
impl fmt::Display for Signature65 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{}", hex::encode(self.0))
    }
}

/// Not its bytes: whoever reads a signature in a log can redeem it.
impl fmt::Debug for Signature65 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signature65(…)")
    }
}

impl FromStr for Signature65 {
    type Err = EvmError;
    fn from_str(text: &str) -> Result<Self, EvmError> {
        let digits = text.strip_prefix("0x").ok_or(EvmError::SignatureMalformed)?;
        let mut bytes = [0_u8; 65];
        hex::decode_to_slice(digits, &mut bytes).map_err(|_| EvmError::SignatureMalformed)?;
        Self::new(bytes)
    }
}

impl Serialize for Signature65 {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Signature65 {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Whose signature over `digest` this is; none when it is nobody's.
#[must_use]
pub fn recover(digest: &[u8; 32], signature: &Signature65) -> Option<Address> {
    let (signature, id) = signature.parts()?;
    let key = VerifyingKey::recover_from_prehash(digest, &signature, id).ok()?;
    Some(address_of(&key))
}

/// Thirty-two bytes as `0x` and 64 hex digits, for `#[serde(with = …)]`.
pub mod hex32 {
    use serde::{Deserialize, Deserializer, Serializer};

    /// Prints `0x` and 64 lower-case hex digits.
    #[must_use]
    pub fn print(bytes: &[u8; 32]) -> String {
        format!("0x{}", super::lower_hex(bytes))
    }

    /// Reads `0x` and 64 hex digits of either case.
    #[must_use]
    pub fn parse(text: &str) -> Option<[u8; 32]> {
        let mut bytes = [0_u8; 32];
        hex::decode_to_slice(text.strip_prefix("0x")?, &mut bytes).ok()?;
        Some(bytes)
    }

    /// For serde.
    ///
    /// # Errors
    /// The serializer's own.
    pub fn serialize<S: Serializer>(bytes: &[u8; 32], s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&print(bytes))
    }

    /// For serde.
    ///
    /// # Errors
    /// When the text is not `0x` and 64 hex digits.
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<[u8; 32], D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(d)?;
        parse(&text).ok_or_else(|| serde::de::Error::custom("expected `0x` and 64 hex digits"))
    }
}

fn uint(n: u64) -> [u8; 32] {
    Atomic::new(u128::from(n)).to_be_bytes32()
}

fn hash_words(words: &[[u8; 32]]) -> [u8; 32] {
    keccak256(words.as_flattened())
}

#[cfg(test)]
mod tests {
    use super::*;
    use k256::ecdsa::SigningKey;
    use serde_json::Value;

    fn bytes32(value: &Value) -> [u8; 32] {
        hex32::parse(value.as_str().unwrap()).unwrap()
    }

    fn address(value: &Value) -> Address {
        value.as_str().unwrap().parse().unwrap()
    }

    fn number(value: &Value) -> u64 {
        value.as_str().unwrap().parse().unwrap()
    }

    #[test]
    fn published_vectors() {
        let file: Value = serde_json::from_str(include_str!("../fixtures/vectors.json")).unwrap();
        let key = SigningKey::from_slice(&bytes32(&file["privateKey"])).unwrap();
        let signer = address_of(key.verifying_key());
        assert_eq!(signer, address(&file["address"]));
        for vector in file["vectors"].as_array().unwrap() {
            let (domain, message) = (&vector["domain"], &vector["message"]);
            let domain = Eip712Domain {
                name: domain["name"].as_str().unwrap().to_owned(),
                version: domain["version"].as_str().unwrap().to_owned(),
                chain_id: domain["chainId"].as_u64().unwrap(),
                verifying_contract: address(&domain["verifyingContract"]),
            };
            let (struct_hash, digest) = if vector["primaryType"] == "CancelAuthorization" {
                let cancel = CancelAuthorization {
                    authorizer: address(&message["authorizer"]),
                    nonce: bytes32(&message["nonce"]),
                };
                (cancel.struct_hash(), cancel.digest(&domain))
            } else {
                let transfer = TransferWithAuthorization {
                    from: address(&message["from"]),
                    to: address(&message["to"]),
                    value: Atomic::parse_price(message["value"].as_str().unwrap()).unwrap(),
                    valid_after: number(&message["validAfter"]),
                    valid_before: number(&message["validBefore"]),
                    nonce: bytes32(&message["nonce"]),
                };
                (transfer.struct_hash(), transfer.digest(&domain))
            };
            let name = &vector["name"];
            assert_eq!(domain.separator(), bytes32(&vector["domainSeparator"]), "{name}");
            assert_eq!(struct_hash, bytes32(&vector["structHash"]), "{name}");
            assert_eq!(digest, bytes32(&vector["digest"]), "{name}");

            let (signature, id) = key.sign_prehash_recoverable(&digest);
            let ours = Signature65::from_ecdsa(&signature, id).unwrap();
            assert_eq!(ours.to_string(), vector["signature"].as_str().unwrap(), "{name}");
            assert_eq!(recover(&digest, &ours), Some(signer), "{name}");
            assert_ne!(recover(&[7; 32], &ours), Some(signer), "{name}");
        }
    }

    #[test]
    fn addresses_are_checksummed() {
        // The examples of EIP-55.
        for text in [
            "0x52908400098527886E0F7030069857D2E4169EE7",
            "0xde709f2102306220921060314715629080e2fb77",
            "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
            "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359",
            "0xdbF03B407c01E7cD3CBea99509d93f8DDDC8C6FB",
            "0xD1220A0cf47c7B9Be7A2E6BA89F429762e7b9aDb",
        ] {
            let parsed: Address = text.parse().unwrap();
            assert_eq!(parsed.to_string(), text);
            let digits = text.strip_prefix("0x").unwrap();
            for other in [digits.to_lowercase(), digits.to_uppercase()] {
                assert_eq!(format!("0x{other}").parse(), Ok(parsed), "{other}");
            }
        }
        let check = |text: &str, want: EvmError| {
            assert_eq!(text.parse::<Address>(), Err(want), "{text}");
        };
        check("0x5aAeb6053F3E94C9b9A09f33669435E7Ef1Beaed", EvmError::AddressChecksum);
        check("0x5AAeb6053F3E94C9b9A09f33669435E7Ef1BeAed", EvmError::AddressChecksum);
        for bad in [
            "",
            "0x",
            "5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
            "0X5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
            "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAe",
            "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed0",
            "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAeg",
            " 0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
            "vitalik.eth",
            "merchant",
        ] {
            check(bad, EvmError::AddressMalformed);
        }
        assert!(Address::new([0; 20]).is_zero() && !Address::new([1; 20]).is_zero());
    }

    #[test]
    fn signatures_are_canonical() {
        let file: Value = serde_json::from_str(include_str!("../fixtures/vectors.json")).unwrap();
        let good: Signature65 = file["vectors"][0]["signature"].as_str().unwrap().parse().unwrap();
        let stored = serde_json::to_string(&good).unwrap();
        assert_eq!(serde_json::from_str::<Signature65>(&stored).unwrap(), good);
        assert_eq!(format!("{good:?}"), "Signature65(…)", "a log line is not redeemable");

        let with_v = |v: u8| {
            let mut bytes = *good.as_bytes();
            bytes[64] = v;
            Signature65::new(bytes)
        };
        assert!(with_v(27).is_ok());
        for v in [0, 1, 26, 29, 35, 255] {
            assert_eq!(with_v(v), Err(EvmError::SignatureMalformed), "{v}");
        }
        let with = |range: std::ops::Range<usize>, byte: u8| {
            let mut bytes = *good.as_bytes();
            bytes[range].fill(byte);
            Signature65::new(bytes)
        };
        assert_eq!(with(0..32, 0), Err(EvmError::SignatureMalformed));
        assert_eq!(with(32..64, 0), Err(EvmError::SignatureMalformed));
        assert_eq!(with(0..32, 0xff), Err(EvmError::SignatureMalformed));
        assert_eq!(with(32..64, 0x80), Err(EvmError::SignatureHighS));

        // The high twin of a good signature comes back as the good one.
        let (signature, id) = good.parts().unwrap();
        let (r, s) = signature.split_scalars();
        let high = Signature::from_scalars(r, -s).unwrap();
        let flipped = RecoveryId::new(!id.is_y_odd(), false);
        assert_eq!(Signature65::from_ecdsa(&high, flipped), Ok(good));
        assert!(Signature65::from_ecdsa(&high, RecoveryId::new(false, true)).is_err());
    }
}
