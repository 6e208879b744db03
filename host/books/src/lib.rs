//! The books: what finance, auditors and the chain are told about payments.
//!
//! [`export`] writes payments as CSV, JSON lines, beancount, hledger or FOCUS. [`reconcile`] compares them with what a
//! chain shows. [`explain`] tells one payment's story with its evidence.
//!
//! Everything here is a pure function of ledger values: no clock, no files, no floating point. Text that sellers and
//! agents chose is escaped for each format: it stays on one line, shows its hidden characters and cannot become
//! a formula, a posting or a sentence of ours.

pub mod accounts;
pub mod explain;
pub mod export;
pub mod reconcile;

mod figures;
mod row;
mod text;

use countersign_core::ledger::{Approval, PaymentView};

/// A payment with what the books need beside it.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// The payment.
    pub payment: &'a PaymentView,
    /// Its approval, if it went through review.
    pub approval: Option<&'a Approval>,
    /// The number of the audit record that its decision is in, if known.
    pub record: Option<u64>,
}

impl<'a> Entry<'a> {
    /// A payment alone.
    #[must_use]
    pub const fn of(payment: &'a PaymentView) -> Self {
        Self { payment, approval: None, record: None }
    }
}
