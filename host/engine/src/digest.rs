//! SHA-256, as modules and settings are named.

use sha2::{Digest as _, Sha256};

use crate::cache::Digest;

pub(crate) fn digest_of(bytes: &[u8]) -> Digest {
    Sha256::digest(bytes).into()
}
