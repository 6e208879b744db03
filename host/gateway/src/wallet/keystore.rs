//! Web3 Secret Storage, version 3: the encrypted key files that every Ethereum wallet reads.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use aes::Aes128;
use countersign_core::evm::{Address, address_of, keccak256};
use ctr::Ctr128BE;
use ctr::cipher::{KeyIvInit as _, StreamCipher as _};
use k256::ecdsa::SigningKey;
use k256::elliptic_curve::subtle::ConstantTimeEq as _;
use k256::elliptic_curve::zeroize::Zeroizing;
use serde::Deserialize;
use serde_json::json;
use sha2::Sha256;

use super::{WalletError, key_of};
use crate::config::Secret;
use crate::config::permissions::{Kind, check_private};

const MAX_FILE: u64 = 64 << 10;
/// The largest cost common wallets write is 2^18; four times that is still a few seconds.
const MAX_LOG_N: u8 = 20;
const MAX_R: u32 = 32;
const MAX_P: u32 = 16;
const MAX_MEMORY: u64 = 1 << 30;
const MAX_ROUNDS: u32 = 10_000_000;

type Derived = Zeroizing<[u8; 32]>;

/// How hard guessing the passphrase is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScryptParams {
    /// Binary logarithm of the cost: n = 2^`log_n`.
    pub log_n: u8,
    /// Block size.
    pub r: u32,
    /// How often the whole is done.
    pub p: u32,
}

impl ScryptParams {
    /// For passphrases that people choose: a quarter of a GiB and about a second.
    pub const STANDARD: Self = Self { log_n: 18, r: 8, p: 1 };
    /// For passphrases that are random keys themselves, where guessing is hopeless anyway.
    pub const LIGHT: Self = Self { log_n: 13, r: 8, p: 1 };

    fn checked(self) -> Result<scrypt::Params, WalletError> {
        let refuse = |why: &str| WalletError::Unreasonable { why: why.to_owned() };
        if !(1..=MAX_LOG_N).contains(&self.log_n) {
            return Err(refuse("scrypt n must be a power of two from 2 to 2^20"));
        }
        if !(1..=MAX_R).contains(&self.r) || !(1..=MAX_P).contains(&self.p) {
            return Err(refuse("scrypt r must be 1 to 32 and p 1 to 16"));
        }
        let memory = (128_u64 << self.log_n).saturating_mul(u64::from(self.r));
        if memory > MAX_MEMORY {
            return Err(refuse("scrypt would take more than 1 GiB of memory"));
        }
        scrypt::Params::new(self.log_n, self.r, self.p).map_err(|_| refuse("scrypt parameters out of range"))
    }

    fn derive(self, passphrase: &Secret, salt: &[u8]) -> Result<Derived, WalletError> {
        let params = self.checked()?;
        let mut out = Zeroizing::new([0_u8; 32]);
        scrypt::scrypt(passphrase.expose().as_bytes(), salt, &params, out.as_mut_slice())
            .map_err(|_| WalletError::Unreasonable { why: "scrypt refused its parameters".to_owned() })?;
        Ok(out)
    }
}

#[derive(Deserialize)]
struct Keystore {
    version: u64,
    address: Option<String>,
    #[serde(alias = "Crypto")]
    crypto: Crypto,
}

#[derive(Deserialize)]
struct Crypto {
    cipher: String,
    cipherparams: CipherParams,
    ciphertext: String,
    #[serde(flatten)]
    kdf: Kdf,
    mac: String,
}

#[derive(Deserialize)]
struct CipherParams {
    iv: String,
}

#[derive(Deserialize)]
#[serde(tag = "kdf", content = "kdfparams", rename_all = "lowercase")]
enum Kdf {
    Scrypt { dklen: u64, n: u64, r: u32, p: u32, salt: String },
    Pbkdf2 { dklen: u64, c: u32, prf: String, salt: String },
}

/// Reads and decrypts a keystore that nobody else may read.
pub(super) fn open(path: &Path, passphrase: &Secret) -> Result<SigningKey, WalletError> {
    let fail = |why: String, hint| WalletError::Unreadable { path: path.to_owned(), why, hint };
    check_private(path, Kind::Wallet).map_err(|e| fail(e.to_string(), e.hint().map(str::to_owned)))?;
    let file = File::open(path).map_err(|e| fail(e.to_string(), None))?;
    let mut text = String::new();
    file.take(MAX_FILE.saturating_add(1)).read_to_string(&mut text).map_err(|e| fail(e.to_string(), None))?;
    if u64::try_from(text.len()).unwrap_or(u64::MAX) > MAX_FILE {
        return Err(fail(format!("larger than {MAX_FILE} bytes"), None));
    }
    decrypt(&text, passphrase)
}

/// The address a file says it is of, without opening it; none if it says none.
#[must_use]
pub fn address_in(path: &Path) -> Option<Address> {
    let mut text = String::new();
    File::open(path).ok()?.take(MAX_FILE).read_to_string(&mut text).ok()?;
    let file: serde_json::Value = serde_json::from_str(&text).ok()?;
    let address = file.get("address")?.as_str()?.to_ascii_lowercase();
    format!("0x{}", address.trim_start_matches("0x")).parse().ok()
}

fn decrypt(text: &str, passphrase: &Secret) -> Result<SigningKey, WalletError> {
    // serde_json's messages name fields and places, never values of ours.
    let keystore: Keystore = serde_json::from_str(text).map_err(|e| malformed(e.to_string()))?;
    if keystore.version != 3 {
        return Err(malformed(format!("version {}", keystore.version)));
    }
    let crypto = keystore.crypto;
    if crypto.cipher != "aes-128-ctr" {
        return Err(malformed("only the cipher aes-128-ctr is supported"));
    }
    let iv: [u8; 16] = digits("cipherparams.iv", &crypto.cipherparams.iv)?;
    let ciphertext: [u8; 32] = digits("ciphertext", &crypto.ciphertext)?;
    let mac: [u8; 32] = digits("mac", &crypto.mac)?;
    let derived = derive(&crypto.kdf, passphrase)?;
    if !bool::from(mac_of(&derived, &ciphertext).ct_eq(&mac)) {
        return Err(WalletError::WrongPassphrase);
    }
    let mut bytes = Zeroizing::new(ciphertext);
    apply_cipher(&derived, &iv, bytes.as_mut_slice());
    let key = key_of(&bytes)?;
    if let Some(written) = keystore.address {
        check_address(written, &key)?;
    }
    Ok(key)
}

fn derive(kdf: &Kdf, passphrase: &Secret) -> Result<Derived, WalletError> {
    let (dklen, salt) = match kdf {
        Kdf::Scrypt { dklen, salt, .. } | Kdf::Pbkdf2 { dklen, salt, .. } => (*dklen, salt),
    };
    if dklen != 32 {
        return Err(malformed("dklen must be 32"));
    }
    let salt = hex::decode(salt).map_err(|_| malformed("kdfparams.salt is not hex"))?;
    match kdf {
        Kdf::Scrypt { n, r, p, .. } => {
            let log_n = u8::try_from(n.trailing_zeros()).ok().filter(|_| n.is_power_of_two()).unwrap_or(u8::MAX);
            ScryptParams { log_n, r: *r, p: *p }.derive(passphrase, &salt)
        }
        Kdf::Pbkdf2 { c, prf, .. } => {
            if prf != "hmac-sha256" {
                return Err(malformed("only the prf hmac-sha256 is supported"));
            }
            if !(1..=MAX_ROUNDS).contains(c) {
                return Err(WalletError::Unreasonable { why: format!("pbkdf2 c must be 1 to {MAX_ROUNDS}") });
            }
            let mut out = Zeroizing::new([0_u8; 32]);
            pbkdf2::pbkdf2_hmac::<Sha256>(passphrase.expose().as_bytes(), &salt, *c, out.as_mut_slice());
            Ok(out)
        }
    }
}

/// keccak256 over the second half of the derived key and the ciphertext.
fn mac_of(derived: &Derived, ciphertext: &[u8; 32]) -> [u8; 32] {
    let (_, second) = derived.split_at(16);
    keccak256(&[second, ciphertext].concat())
}

/// AES-128-CTR under the first half of the derived key; its own inverse.
fn apply_cipher(derived: &Derived, iv: &[u8; 16], bytes: &mut [u8]) {
    let mut key = Zeroizing::new([0_u8; 16]);
    key.iter_mut().zip(derived.iter()).for_each(|(to, from)| *to = *from);
    Ctr128BE::<Aes128>::new((&*key).into(), iv.into()).apply_keystream(bytes);
}

fn check_address(written: String, key: &SigningKey) -> Result<(), WalletError> {
    let derived = address_of(key.verifying_key());
    let digits = written.strip_prefix("0x").unwrap_or(&written).to_ascii_lowercase();
    if digits == hex::encode(derived.as_bytes()) {
        Ok(())
    } else {
        Err(WalletError::AddressMismatch { written, derived })
    }
}

/// Everything random in a new keystore: 96 bytes nobody can predict, wiped when dropped.
pub struct Seed(Zeroizing<[u8; Self::LENGTH]>);

impl Seed {
    /// How many bytes it takes.
    pub const LENGTH: usize = 96;

    /// Lets `fill` write the bytes.
    ///
    /// # Errors
    /// Whatever `fill` answers.
    pub fn from_random<E>(fill: &mut dyn FnMut(&mut [u8]) -> Result<(), E>) -> Result<Self, E> {
        let mut bytes = Zeroizing::new([0_u8; Self::LENGTH]);
        fill(bytes.as_mut_slice())?;
        Ok(Self(bytes))
    }
}

/// Makes a key and writes it, encrypted, to a new file that only we can read.
///
/// # Errors
/// When there is such a file already, it cannot be written, or the parameters are refused. Nothing
/// is left behind.
pub fn create_keystore(
    path: &Path,
    passphrase: &Secret,
    seed: &Seed,
    params: ScryptParams,
) -> Result<Address, WalletError> {
    let (key, rest) = seed.0.split_at(32);
    let (salt, rest) = rest.split_at(32);
    let (iv, id) = rest.split_at(16);
    let mut secret = Zeroizing::new([0_u8; 32]);
    secret.copy_from_slice(key);
    let key = key_of(&secret)?;
    let text = encrypt(&key, passphrase, (salt, iv, id), params)?;
    write_new(path, text.as_bytes())
        .map_err(|e| WalletError::Unwritable { path: path.to_owned(), why: e.to_string() })?;
    Ok(address_of(key.verifying_key()))
}

fn encrypt(
    key: &SigningKey,
    passphrase: &Secret,
    (salt, iv, id): (&[u8], &[u8], &[u8]),
    params: ScryptParams,
) -> Result<String, WalletError> {
    let derived = params.derive(passphrase, salt)?;
    let iv: [u8; 16] = iv.try_into().map_err(|_| malformed("the seed is too short"))?;
    let mut ciphertext: [u8; 32] = key.to_bytes().into();
    apply_cipher(&derived, &iv, &mut ciphertext);
    let keystore = json!({
        "version": 3,
        "id": uuid(id),
        "address": hex::encode(address_of(key.verifying_key()).as_bytes()),
        "crypto": {
            "cipher": "aes-128-ctr",
            "cipherparams": { "iv": hex::encode(iv) },
            "ciphertext": hex::encode(ciphertext),
            "kdf": "scrypt",
            "kdfparams": {
                "dklen": 32,
                "n": 1_u64 << params.log_n,
                "r": params.r,
                "p": params.p,
                "salt": hex::encode(salt),
            },
            "mac": hex::encode(mac_of(&derived, &ciphertext)),
        },
    });
    Ok(format!("{keystore:#}\n"))
}

/// A random UUID: version 4, variant 1.
fn uuid(bytes: &[u8]) -> String {
    let marked = bytes.iter().enumerate().map(|(n, byte)| match n {
        6 => (byte & 0x0f) | 0x40,
        8 => (byte & 0x3f) | 0x80,
        _ => *byte,
    });
    let mut text = hex::encode(marked.collect::<Vec<u8>>());
    for dash in [20, 16, 12, 8] {
        text.insert(dash.min(text.len()), '-');
    }
    text
}

/// Writes a new file that only we can read; leaves none behind when it fails.
fn write_new(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).inspect_err(|_| {
        // Half a keystore is worse than none; if even this fails, the first error says why.
        let _ = std::fs::remove_file(path);
    })?;
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

fn digits<const N: usize>(field: &str, text: &str) -> Result<[u8; N], WalletError> {
    let mut out = [0_u8; N];
    hex::decode_to_slice(text, &mut out).map_err(|_| malformed(format!("{field} is not {N} bytes in hex")))?;
    Ok(out)
}

fn malformed(why: impl Into<String>) -> WalletError {
    WalletError::Malformed { why: why.into() }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use serde_json::Value;

    use super::*;

    /// The test vectors of the Web3 Secret Storage definition.
    const PBKDF2: &str = r#"{"crypto":{"cipher":"aes-128-ctr","cipherparams":{"iv":"6087dab2f9fdbbfaddc31a909735c1e6"},
        "ciphertext":"5318b4d5bcd28de64ee5559e671353e16f075ecae9f99c7a79a38af5f869aa46","kdf":"pbkdf2","kdfparams":
        {"c":262144,"dklen":32,"prf":"hmac-sha256","salt":"ae3cd4e7013836a3df6bd7241b12db061dbe2c6785853cce422d148a624ce0bd"},
        "mac":"517ead924a9d0dc3124507e3393d175ce3ff7c1e96529c6c555ce9e51205e9b2"},
        "id":"3198bc9c-6672-5ab3-d995-4942343ae5b6","version":3}"#;
    const SCRYPT: &str = r#"{"crypto":{"cipher":"aes-128-ctr","cipherparams":{"iv":"83dbcc02d8ccb40e466191a123791e0e"},
        "ciphertext":"d172bf743a674da9cdad04534d56926ef8358534d458fffccd4e6ad2fbde479c","kdf":"scrypt","kdfparams":
        {"dklen":32,"n":262144,"r":1,"p":8,"salt":"ab0c7876052600dd703518d6fc3fe8984592145b591fc8fb5c6d43190334ba19"},
        "mac":"2103ac29920d71da29f15d75b4a16dbe95cfd7ff8faea1056c33131d846e3097"},
        "id":"3198bc9c-6672-5ab3-d995-4942343ae5b6","version":3}"#;
    const SECRET: &str = "7a28b5ba57c53603b0b07b56bba752f7784bf506fa95edc395f5cf6c7514fe9d";
    const SMALL: ScryptParams = ScryptParams { log_n: 4, r: 1, p: 1 };

    fn secret_of(text: &str, passphrase: &str) -> Result<String, WalletError> {
        decrypt(text, &Secret::new(passphrase)).map(|key| hex::encode(key.to_bytes()))
    }

    fn edited(text: &str, edit: impl Fn(&mut Value)) -> String {
        let mut value: Value = serde_json::from_str(text).unwrap();
        edit(&mut value);
        value.to_string()
    }

    fn seed(byte: u8) -> Seed {
        let mut fill = |out: &mut [u8]| -> Result<(), ()> {
            out.fill(byte);
            Ok(())
        };
        Seed::from_random(&mut fill).unwrap()
    }

    #[test]
    fn opens_the_official_vectors() {
        for vector in [PBKDF2, SCRYPT] {
            assert_eq!(secret_of(vector, "testpassword").as_deref(), Ok(SECRET));
        }
        let capital = PBKDF2.replacen("crypto", "Crypto", 1);
        assert_eq!(secret_of(&capital, "testpassword").as_deref(), Ok(SECRET));
        let addressed = edited(PBKDF2, |v| v["address"] = "0x008AeEda4D805471dF9b2A5B0f38A0C3bCBA786b".into());
        assert_eq!(secret_of(&addressed, "testpassword").as_deref(), Ok(SECRET));
    }

    #[test]
    fn refuses_what_it_cannot_trust() {
        let check = |text: &str, edit: &dyn Fn(&mut Value), want: &str| {
            let error = secret_of(&edited(text, edit), "testpassword").unwrap_err();
            assert!(format!("{}: {error}", error.code()).contains(want), "{error:?}, not {want}");
        };
        assert_eq!(secret_of(PBKDF2, "testpasswore"), Err(WalletError::WrongPassphrase));
        check(PBKDF2, &|v| v["crypto"]["mac"] = "00".repeat(32).into(), "wrong-passphrase");
        check(PBKDF2, &|v| v["crypto"]["ciphertext"] = "00".repeat(32).into(), "wrong-passphrase");
        check(PBKDF2, &|v| v["address"] = "00".repeat(20).into(), "address-mismatch");
        check(PBKDF2, &|v| v["version"] = 1.into(), "version 1");
        check(PBKDF2, &|v| v["crypto"]["cipher"] = "aes-256-ctr".into(), "aes-128-ctr");
        check(PBKDF2, &|v| v["crypto"]["kdf"] = "argon2".into(), "keystore-malformed");
        check(PBKDF2, &|v| v["crypto"]["ciphertext"] = "00".into(), "ciphertext is not 32 bytes");
        check(PBKDF2, &|v| v["crypto"]["kdfparams"]["prf"] = "hmac-sha1".into(), "hmac-sha256");
        check(PBKDF2, &|v| v["crypto"]["kdfparams"]["dklen"] = 16.into(), "dklen");
        check(PBKDF2, &|v| v["crypto"]["kdfparams"]["c"] = 4_000_000_000_u32.into(), "keystore-unreasonable");
        let scrypt = |key: &'static str, value: u64| move |v: &mut Value| v["crypto"]["kdfparams"][key] = value.into();
        check(SCRYPT, &scrypt("n", 0), "power of two");
        check(SCRYPT, &scrypt("n", 1), "power of two");
        check(SCRYPT, &scrypt("n", 262_143), "power of two");
        check(SCRYPT, &scrypt("n", 1 << 21), "power of two");
        check(SCRYPT, &scrypt("r", 0), "r must be");
        check(SCRYPT, &scrypt("r", 1 << 30), "r must be");
        check(SCRYPT, &scrypt("p", 17), "p 1 to 16");
        check(&edited(SCRYPT, scrypt("n", 1 << 20)), &scrypt("r", 16), "1 GiB");
    }

    #[test]
    fn what_is_created_opens_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("wallet.json");
        let passphrase = Secret::new("correct horse");
        let address = create_keystore(&path, &passphrase, &seed(7), SMALL).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(address_of(open(&path, &passphrase).unwrap().verifying_key()), address);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(!text.contains(&"07".repeat(33)) && text.contains("07070707-0707-4707-8707-070707070707"), "{text}");
        assert_eq!(open(&path, &Secret::new("wrong")).unwrap_err(), WalletError::WrongPassphrase);

        let again = create_keystore(&path, &passphrase, &seed(8), SMALL).unwrap_err();
        assert_eq!(again.code(), "wallet-unwritable");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text, "nothing is overwritten");

        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let open_to_others = open(&path, &passphrase).unwrap_err();
        assert!(open_to_others.hint().unwrap().starts_with("run: chmod 600"), "{open_to_others:?}");

        let zero = create_keystore(&dir.path().join("zero"), &passphrase, &seed(0), SMALL).unwrap_err();
        assert_eq!(zero, WalletError::InvalidKey, "a broken random source makes no wallet");
        let huge = ScryptParams { log_n: 30, ..SMALL };
        assert!(create_keystore(&dir.path().join("huge"), &passphrase, &seed(7), huge).is_err());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
