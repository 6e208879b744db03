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
/// before it was paid. The transfer is booked only if exactly one payment has that much left. Guessing
/// (the oldest, the one of equal price) would credit the budget of another client.
///
/// The order of the candidates is that of `payments`.
#[must_use]
pub fn refund_of(transfer: &Transfer, network: Network, asset: Address, payments: &[Paid]) -> RefundMatch {
    let related: Vec<&Paid> = payments
        .iter()
        .filter(|paid| paid.network == network && paid.asset == asset)
        .filter(|paid| paid.payee == transfer.from && paid.payer == transfer.to)
        .filter(|paid| paid.block <= transfer.place.block && paid.room() > 0)
        .collect();
    let ids = |of: &[&Paid]| of.iter().map(|paid| paid.payment).collect();
    let Some(value) = transfer.value.map(Atomic::get).filter(|value| *value > 0) else { return RefundMatch::None };
    let enough: Vec<&Paid> = related.iter().copied().filter(|paid| paid.room() >= value).collect();
    match (enough.as_slice(), related.as_slice()) {
        (_, []) => RefundMatch::None,
        ([one], [_]) => RefundMatch::One(one.payment),
        // More than any one of them: for several at once, or not a refund.
        ([], related) => RefundMatch::Several(ids(related)),
        ([one], _) => RefundMatch::One(one.payment),
        (several, _) => RefundMatch::Several(ids(several)),
    }
}
