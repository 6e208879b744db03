//! The MPP rail (Machine Payments Protocol, the HTTP authentication scheme `Payment`): challenges are read strictly,
//! the nonce of what is signed is the challenge's, and receipts are compared with it. Nothing here decides anything.
//!
//! Only the method `evm` with the intent `charge` is payable, by an EIP-3009 authorization: that is the very message that
//! x402's `exact` signs, so one signer and one proof of the chain serve both. Other methods, intents and kinds of
//! credential (Permit2, transactions, splits, sessions) are left aside with a reason.

mod challenge;
mod credential;
mod offer;
mod receipt;

use std::sync::Arc;

pub use challenge::{Challenge, MAX_CHALLENGES, MAX_FIELDS, MAX_PARAMETER};

use sha2::{Digest as _, Sha256};

use crate::evm::{Address, Signature65};
use crate::id::PaymentId;
use crate::seams::Rail;
use crate::time::Timestamp;
use crate::x402::{self, AssetTable, Authorization, Offer, Offers, PaymentHeader, RailError, Receipt};

/// The MPP rail over one asset table.
#[derive(Clone, Debug)]
pub struct Mpp {
    /// What can be paid with.
    pub assets: Arc<AssetTable>,
}

impl Mpp {
    /// A rail over `assets`.
    #[must_use]
    pub const fn new(assets: Arc<AssetTable>) -> Self {
        Self { assets }
    }
}

impl Rail for Mpp {
    fn needs_body(&self, _headers: &[(String, Vec<u8>)]) -> bool {
        false
    }

    fn offers(&self, challenge: &x402::Challenge<'_>, payer: Address) -> Result<Offers, RailError> {
        let sent = challenge.request_sha256.unwrap_or_else(|| Sha256::digest([]).into());
        offer::read(challenge::read(challenge.headers)?, Some(sent), &self.assets, payer)
    }

    /// The nonce is the challenge's; `nonce` is not used.
    fn authorize(
        &self,
        offer: &Offer,
        payer: Address,
        payment: PaymentId,
        _nonce: [u8; 32],
        now: Timestamp,
        max_validity_seconds: u32,
    ) -> Result<Authorization, RailError> {
        let nonce = credential::challenge_of(offer)?.nonce();
        let who = (payer, payment, nonce);
        let authorization = Authorization::build(offer, &self.assets, who, now, max_validity_seconds)?;
        credential::fits(&authorization)?;
        Ok(authorization)
    }

    fn present(&self, authorization: &Authorization, signature: &Signature65) -> Result<PaymentHeader, RailError> {
        credential::present(authorization, signature)
    }

    fn receipt(&self, authorization: &Authorization, status: u16, headers: &[(String, Vec<u8>)]) -> Receipt {
        receipt::read(authorization, status, headers)
    }

    fn offers_in(&self, terms: &[u8], payer: Address) -> Result<Offers, RailError> {
        offer::read(challenge::read_document(terms)?, None, &self.assets, payer)
    }

    fn document(&self, authorization: &Authorization, signature: &Signature65) -> Result<String, RailError> {
        credential::document(authorization, signature)
    }

    fn receipt_in(&self, authorization: &Authorization, status: u16, receipt: &[u8]) -> Receipt {
        receipt::read_document(authorization, status, receipt)
    }
}
