//! Policy modules to be swapped: the standard ones, in as many versions as a test wants.

use countersign::builtin;
use sha2::{Digest, Sha256};

/// A standard policy's module with a number in a custom section: other bytes, the same behaviour.
pub fn variant(name: &str, number: u32) -> Vec<u8> {
    let mut module = builtin::module(name).expect("a standard policy").to_vec();
    // Section 0, sixteen bytes: a name of seven, then eight digits.
    module.extend([0, 16, 7]);
    module.extend(b"variant");
    module.extend(format!("{number:08}").bytes());
    module
}

/// The digest by which decisions and status name a module: lower-case hex.
pub fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}
