//! What both ends of the rail are tried with: our table, our wallet.

use std::sync::{Arc, LazyLock};

use countersign_core::evm::{Address, Signature65, address_of};
use countersign_core::id::PaymentId;
use countersign_core::time::Timestamp;
use countersign_core::x402::{AssetTable, X402};
use k256::ecdsa::SigningKey;

pub(crate) const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);
pub(crate) const NONCE: [u8; 32] = [0xa7; 32];
pub(crate) const VALIDITY: u32 = 300;

pub(crate) static RAIL: LazyLock<X402> = LazyLock::new(|| X402::new(Arc::new(AssetTable::builtin())));
static KEY: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::from_slice(&[0x11; 32]).unwrap());

pub(crate) fn payer() -> Address {
    static PAYER: LazyLock<Address> = LazyLock::new(|| address_of(KEY.verifying_key()));
    *PAYER
}

pub(crate) fn payment() -> PaymentId {
    PaymentId::new(NOW, [7; 10])
}

pub(crate) fn sign(digest: &[u8; 32]) -> Signature65 {
    let (signature, id) = KEY.sign_prehash_recoverable(digest);
    Signature65::from_ecdsa(&signature, id).unwrap()
}
