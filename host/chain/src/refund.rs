//! Which payment a transfer to us gives back. Pure.

use countersign_core::evm::Address;
use countersign_core::id::PaymentId;
use countersign_core::money::Atomic;
use countersign_core::x402::Network;

use crate::events::Transfer;

/// A settled payment, as far as refunds go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paid {
    /// The payment.
    pub payment: PaymentId,
    /// The chain.
    pub network: Network,
    /// The token.
    pub asset: Address,
    /// Who paid.
    pub payer: Address,
    /// Who was paid.
    pub payee: Address,
    /// What moved.
    pub settled: Atomic,
    /// What came back of it so far.
    pub refunded: Atomic,
    /// The block it was redeemed in: nothing comes back before.
    pub block: u64,
}

impl Paid {
    /// What may still come back.
    #[must_use]
    pub const fn room(&self) -> u128 {
        self.settled.get().saturating_sub(self.refunded.get())
    }
}

/// Which payment a transfer gives back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RefundMatch {
    /// None of them: it is somebody's money, not a refund.
    None,
    /// This one; no other could be meant. It may be booked.
    One(PaymentId),
    /// Any of these, or several together: for people, who can ask the seller.
    Several(Vec<PaymentId>),
}

/// Which of `payments` a finalized transfer of `asset` gives back: the token, the two sides swapped, not
/// before it was paid. It is [`RefundMatch::One`] only if exactly one payment has that much left, and
/// either nothing else was paid there or the transfer is all that is left of it. Guessing (the oldest, the
/// one of equal price) would credit the budget of another client.
///
/// Candidates come in the order of `payments`.
#[must_use]
pub fn refund_of(transfer: &Transfer, network: Network, asset: Address, payments: &[Paid]) -> RefundMatch {
    let Some(value) = transfer.value.map(Atomic::get).filter(|value| *value > 0) else { return RefundMatch::None };
    let related: Vec<&Paid> = payments
        .iter()
        .filter(|paid| paid.network == network && paid.asset == asset)
        .filter(|paid| paid.payee == transfer.from && paid.payer == transfer.to)
        .filter(|paid| paid.block <= transfer.place.block && paid.room() > 0)
        .collect();
    let enough: Vec<&Paid> = related.iter().copied().filter(|paid| paid.room() >= value).collect();
    let ids = |of: &[&Paid]| of.iter().map(|paid| paid.payment).collect();
    match enough.as_slice() {
        _ if related.is_empty() => RefundMatch::None,
        [one] if related.len() == 1 || one.room() == value => RefundMatch::One(one.payment),
        // A part of one, or several at once; or more than any of them, and not a refund at all.
        _ => RefundMatch::Several(ids(&related)),
    }
}
