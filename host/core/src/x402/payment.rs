//! From an offer to what is signed and sent.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::assets::AssetTable;
use super::error::RailError;
use super::header;
use super::offer::{IDENTIFIER, MAX_HEADER_TERMS, Offer, PAYEE_IS_PAYER, Protocol, Version};
use crate::evm::{Address, Signature65, TransferWithAuthorization, hex32};
use crate::id::PaymentId;
use crate::json::Json;
use crate::spend::Commitment;
use crate::time::Timestamp;

/// Facilitators want six seconds left when they settle; four more are for us to get there.
pub const MIN_VALIDITY_SECONDS: u32 = 6 + 4;
/// Longest payment header that is sent. Common servers take 16 KiB of headers in all.
pub const MAX_PAYMENT_HEADER: usize = 15 * 1024;
/// Version 1 clients date their authorizations back, for sellers whose clock is behind.
const V1_BACKDATE_SECONDS: u64 = 600;

/// The exact payload of one payment: an EIP-3009 authorization over an offer. Stored before it is
/// signed; whoever reads it back computes the same digest and sends the same bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authorization {
    /// What is paid.
    pub offer: Offer,
    /// Our name for it.
    pub payment: PaymentId,
    /// Who pays.
    pub from: Address,
    /// Never used before by this payer.
    #[serde(with = "hex32")]
    pub nonce: [u8; 32],
    /// Seconds since the epoch; redeemable strictly after.
    pub valid_after: u64,
    /// Seconds since the epoch; redeemable strictly before.
    pub valid_before: u64,
}

impl Authorization {
    pub(crate) fn build(
        offer: &Offer,
        assets: &AssetTable,
        (from, payment, nonce): (Address, PaymentId, [u8; 32]),
        now: Timestamp,
        max_validity_seconds: u32,
    ) -> Result<Self, RailError> {
        let asset = assets.get(offer.network, offer.asset.address);
        if asset.is_none_or(|a| a.eip712 != offer.asset.eip712 || a.decimals != offer.asset.decimals) {
            return Err(RailError::AssetChanged);
        }
        if offer.pay_to == from {
            return Err(RailError::PayeeForbidden { path: offer.place(), why: PAYEE_IS_PAYER });
        }
        let validity = offer.valid_for_seconds(max_validity_seconds, now)?;
        let valid_after = match offer.protocol {
            Protocol::X402(Version::V1) => now.as_secs().saturating_sub(V1_BACKDATE_SECONDS),
            Protocol::X402(Version::V2) | Protocol::Mpp(_) => 0,
        };
        Ok(Self {
            offer: offer.clone(),
            payment,
            from,
            nonce,
            valid_after,
            valid_before: now.as_secs().saturating_add(u64::from(validity)),
        })
    }

    /// The message that is signed.
    #[must_use]
    pub const fn message(&self) -> TransferWithAuthorization {
        TransferWithAuthorization {
            from: self.from,
            to: self.offer.pay_to,
            value: self.offer.amount,
            valid_after: self.valid_after,
            valid_before: self.valid_before,
            nonce: self.nonce,
        }
    }

    /// What is signed, under the domain of our own asset table.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        self.message().digest(&self.offer.asset.domain())
    }

    /// What signing binds the wallet to.
    #[must_use]
    pub const fn commitment(&self) -> Commitment {
        self.offer.commitment()
    }

    /// The first moment at which nobody can redeem it any more.
    #[must_use]
    pub const fn expires_at(&self) -> Timestamp {
        Timestamp::from_secs(self.valid_before)
    }
}

/// A header that pays. Its value is worth money until it expires.
#[derive(Clone, PartialEq, Eq)]
pub struct PaymentHeader {
    /// In lower case.
    pub name: &'static str,
    /// Base64.
    pub value: String,
}

impl fmt::Debug for PaymentHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ({} bytes)", self.name, self.value.len())
    }
}

/// The version an offer was made in.
pub(super) fn version_of(offer: &Offer) -> Result<Version, RailError> {
    match offer.protocol {
        Protocol::X402(version) => Ok(version),
        Protocol::Mpp(_) => Err(RailError::NotThisRail("the offer is one of MPP")),
    }
}

/// The payment as a header.
pub(super) fn present(authorization: &Authorization, signature: &Signature65) -> Result<PaymentHeader, RailError> {
    // Base64 makes four bytes of three.
    let value = header::encode(&document(authorization, signature, MAX_PAYMENT_HEADER / 4 * 3)?);
    if value.len() > MAX_PAYMENT_HEADER {
        let (bytes, most) = (value.len(), MAX_PAYMENT_HEADER);
        return Err(RailError::HeaderTooLarge { bytes, most });
    }
    let name = match version_of(&authorization.offer)? {
        Version::V1 => "x-payment",
        Version::V2 => "payment-signature",
    };
    Ok(PaymentHeader { name, value })
}

/// The payment as one JSON object, of about `room` bytes where leaving something out can achieve that.
pub(super) fn document(
    authorization: &Authorization,
    signature: &Signature65,
    room: usize,
) -> Result<String, RailError> {
    let offer = &authorization.offer;
    let payload = payload(authorization, signature);
    match version_of(offer)? {
        // Both words are from our own tables, so they need no escaping.
        Version::V1 => Ok(format!(
            r#"{{"x402Version":1,"scheme":"{}","network":"{}","payload":{payload}}}"#,
            offer.scheme, offer.network_name,
        )),
        Version::V2 => document_v2(authorization, &payload, room),
    }
}

fn document_v2(authorization: &Authorization, payload: &str, room: usize) -> Result<String, RailError> {
    let offer = &authorization.offer;
    let compose = |extensions: Option<&str>| {
        let part = |key: &str, raw: Option<&str>| raw.map(|raw| format!(r#""{key}":{raw},"#)).unwrap_or_default();
        format!(
            r#"{{"x402Version":2,{}"accepted":{},{}"payload":{payload}}}"#,
            part("resource", offer.resource.as_deref()),
            offer.raw,
            part("extensions", extensions),
        )
    };
    let Some(extensions) = offer.extensions.as_deref() else {
        return Ok(compose(None));
    };
    if offer.needs_identifier {
        let extended = with_identifier(extensions, authorization.payment).ok_or_else(|| {
            let path = format!("extensions.{IDENTIFIER}.info");
            RailError::malformed(path, "expected an object without an id")
        })?;
        return Ok(compose(Some(&extended)));
    }
    let value = compose(Some(extensions));
    // The echo of extensions is a courtesy; a payment that servers refuse for its size is none.
    Ok(if value.len() > room { compose(None) } else { value })
}

/// The extensions as they were received, with our payment's id put into the one object that asks
/// for it. Nothing else changes, not even a blank.
fn with_identifier(extensions: &str, payment: PaymentId) -> Option<String> {
    let json = Json::parse(extensions.as_bytes(), MAX_HEADER_TERMS).ok()?;
    let info = json.get(IDENTIFIER)?.get("info")?;
    if !info.is_object() || info.has("id") {
        return None;
    }
    let end = info.start.checked_add(info.raw.len())?.checked_sub(1)?;
    let (before, after) = extensions.split_at_checked(end)?;
    // It holds at least `required`, so a comma is always due.
    Some(format!(r#"{before},"id":"{payment}"{after}"#))
}

/// Addresses with their checksum, numbers as decimal strings.
fn payload(authorization: &Authorization, signature: &Signature65) -> String {
    format!(
        concat!(
            r#"{{"authorization":{{"from":"{}","to":"{}","value":"{}","validAfter":"{}","#,
            r#""validBefore":"{}","nonce":"{}"}},"signature":"{}"}}"#,
        ),
        authorization.from,
        authorization.offer.pay_to,
        authorization.offer.amount,
        authorization.valid_after,
        authorization.valid_before,
        hex32::print(&authorization.nonce),
        signature,
    )
}
