//! Reading a request.

use crate::{Attribute, Money, Purchase, SpendRequest};

impl SpendRequest {
    /// What this payment is worth in the reference currency: `payment.value`.
    #[must_use]
    pub const fn value(&self) -> Money {
        Money::from_micros(self.payment.value)
    }

    /// A fact the host or the operator added. Trusted.
    #[must_use]
    pub fn fact(&self, name: &str) -> Option<&str> {
        find(&self.facts, name)
    }

    /// Something the agent said. Untrusted: never a reason to allow.
    #[must_use]
    pub fn claim(&self, name: &str) -> Option<&str> {
        find(&self.claims, name)
    }
}

impl Purchase {
    /// `https` or `http`, from the url.
    #[must_use]
    pub fn scheme(&self) -> Option<&str> {
        self.url.split_once("://").map(|(scheme, _)| scheme)
    }
}

fn find<'a>(attributes: &'a [Attribute], name: &str) -> Option<&'a str> {
    attributes.iter().find(|attribute| attribute.name == name).map(|attribute| attribute.value.as_str())
}
