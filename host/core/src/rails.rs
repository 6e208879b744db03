//! The rails together: the offers of every protocol that one 402 speaks are candidates of one choice.
//!
//! An offer says which protocol it was made in, and everything after the choice follows it: what is signed for an offer of
//! one protocol is presented, and presented again, in that protocol and in no other.

use std::sync::Arc;

use crate::evm::{Address, Signature65};
use crate::id::PaymentId;
use crate::mpp::Mpp;
use crate::seams::Rail;
use crate::time::Timestamp;
use crate::x402::{
    AssetTable, Authorization, Challenge, Offer, Offers, PaymentHeader, Protocol, RailError, Receipt, Skipped, X402,
};

/// Every rail over one asset table.
#[derive(Clone, Debug)]
pub struct Rails {
    x402: X402,
    mpp: Mpp,
}

impl Rails {
    /// The rails over `assets`.
    #[must_use]
    pub fn new(assets: Arc<AssetTable>) -> Self {
        Self { x402: X402::new(Arc::clone(&assets)), mpp: Mpp::new(assets) }
    }

    fn of(&self, offer: &Offer) -> &dyn Rail {
        match offer.protocol {
            Protocol::X402(_) => &self.x402,
            Protocol::Mpp(_) => &self.mpp,
        }
    }
}

/// What both rails found. x402's offers come first, so that they are taken where the price is the same. What is wrong with
/// one rail's terms does not spoil the other's: nothing of the one can be in what is signed for the other.
fn together(x402: Result<Offers, RailError>, mpp: Result<Offers, RailError>) -> Result<Offers, RailError> {
    match (x402, mpp) {
        (Ok(mut all), Ok(more)) => {
            all.offers.extend(more.offers);
            all.skipped.extend(more.skipped);
            Ok(all)
        }
        (Ok(mut offers), Err(error)) => {
            offers.skipped.extend(left_aside("mpp", error));
            Ok(offers)
        }
        (Err(error), Ok(mut offers)) => {
            offers.skipped.extend(left_aside("x402", error));
            Ok(offers)
        }
        (Err(RailError::NotThisRail(_)), Err(error)) if !matches!(error, RailError::NotThisRail(_)) => Err(error),
        (Err(RailError::NothingPayable(mut skipped)), Err(error)) => {
            skipped.extend(left_aside("mpp", error));
            Err(RailError::NothingPayable(skipped))
        }
        (Err(error), Err(_)) => Err(error),
    }
}

fn left_aside(rail: &'static str, error: RailError) -> Vec<Skipped> {
    match error {
        RailError::NotThisRail(_) => Vec::new(),
        RailError::NothingPayable(skipped) => skipped,
        error => vec![Skipped { rail, index: 0, code: error.code(), message: error.to_string() }],
    }
}

impl Rail for Rails {
    fn needs_body(&self, headers: &[(String, Vec<u8>)]) -> bool {
        self.x402.needs_body(headers)
    }

    fn offers(&self, challenge: &Challenge<'_>, payer: Address) -> Result<Offers, RailError> {
        together(self.x402.offers(challenge, payer), self.mpp.offers(challenge, payer))
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
        self.of(offer).authorize(offer, payer, payment, nonce, now, max_validity_seconds)
    }

    fn present(&self, authorization: &Authorization, signature: &Signature65) -> Result<PaymentHeader, RailError> {
        self.of(&authorization.offer).present(authorization, signature)
    }

    fn receipt(&self, authorization: &Authorization, status: u16, headers: &[(String, Vec<u8>)]) -> Receipt {
        self.of(&authorization.offer).receipt(authorization, status, headers)
    }

    fn offers_in(&self, terms: &[u8], payer: Address) -> Result<Offers, RailError> {
        match self.mpp.offers_in(terms, payer) {
            Err(RailError::NotThisRail(_)) => self.x402.offers_in(terms, payer),
            found => found,
        }
    }

    fn document(&self, authorization: &Authorization, signature: &Signature65) -> Result<String, RailError> {
        self.of(&authorization.offer).document(authorization, signature)
    }

    fn receipt_in(&self, authorization: &Authorization, status: u16, receipt: &[u8]) -> Receipt {
        self.of(&authorization.offer).receipt_in(authorization, status, receipt)
    }
}
