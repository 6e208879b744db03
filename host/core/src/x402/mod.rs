//! The x402 rail: offers are read strictly, authorizations are built from our own asset table, and
//! receipts are compared with what was signed. Nothing here decides anything.
//!
//! Only the scheme `exact` with EIP-3009 transfers is payable. Other schemes and transfer methods
//! (`upto`, `batch-settlement`, Permit2) bind the wallet to more than one fixed amount; they are
//! left aside with a reason until somebody decides about them on purpose.

mod assets;
mod error;
pub(crate) mod header;
mod offer;
mod payment;
mod receipt;
pub mod text;

use std::sync::Arc;

pub use assets::{Asset, AssetError, AssetTable, Eip712, Network, NetworkError, Quote};
pub use error::{RailError, Skipped};
pub use offer::{
    Challenge, MAX_BODY_TERMS, MAX_CANDIDATES, MAX_HEADER_TERMS, MAX_OFFERS, Offer, Offers, Priced, Protocol, Version,
    candidates, needs_body,
};
pub(crate) use offer::{MAX_IDENTIFIER, MAX_TIMEOUT, Node, payee_problem};
pub use payment::{Authorization, MAX_PAYMENT_HEADER, MIN_VALIDITY_SECONDS, PaymentHeader};
pub use receipt::Receipt;

use crate::evm::{Address, Signature65};
use crate::id::PaymentId;
use crate::seams::Rail;
use crate::time::Timestamp;

/// The x402 rail over one asset table.
#[derive(Clone, Debug)]
pub struct X402 {
    /// What can be paid with.
    pub assets: Arc<AssetTable>,
}

impl X402 {
    /// A rail over `assets`.
    #[must_use]
    pub const fn new(assets: Arc<AssetTable>) -> Self {
        Self { assets }
    }
}

impl Rail for X402 {
    fn needs_body(&self, headers: &[(String, Vec<u8>)]) -> bool {
        needs_body(headers)
    }

    fn offers(&self, challenge: &Challenge<'_>, payer: Address) -> Result<Offers, RailError> {
        offer::read(challenge, &self.assets, payer)
    }

    fn authorize(
        &self,
        offer: &Offer,
        payer: Address,
        payment: PaymentId,
        nonce: [u8; 32],
        now: Timestamp,
        max_validity_seconds: u32,
    ) -> Result<Authorization, RailError> {
        let who = (payer, payment, nonce);
        Authorization::build(offer, &self.assets, who, now, max_validity_seconds)
    }

    fn present(&self, authorization: &Authorization, signature: &Signature65) -> Result<PaymentHeader, RailError> {
        payment::present(authorization, signature)
    }

    fn receipt(&self, authorization: &Authorization, status: u16, headers: &[(String, Vec<u8>)]) -> Receipt {
        receipt::read(authorization, status, headers)
    }

    fn offers_in(&self, terms: &[u8], payer: Address) -> Result<Offers, RailError> {
        offer::read_document("the terms", terms, MAX_BODY_TERMS, &self.assets, payer)
    }

    fn document(&self, authorization: &Authorization, signature: &Signature65) -> Result<String, RailError> {
        payment::document(authorization, signature, MAX_BODY_TERMS)
    }

    fn receipt_in(&self, authorization: &Authorization, status: u16, receipt: &[u8]) -> Receipt {
        receipt::read_document(authorization, status, receipt)
    }
}
