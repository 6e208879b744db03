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

    /// A fact that is a number, in decimal digits.
    ///
    /// # Errors
    /// If it is there and is no such number. Pass the error on: the payment is then denied.
    pub fn figure(&self, name: &str) -> Result<Option<u64>, String> {
        let Some(text) = self.fact(name) else {
            return Ok(None);
        };
        // A sign is not a digit, though `parse` takes one.
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        let figure = digits.then(|| text.parse().ok()).flatten();
        figure.map(Some).ok_or_else(|| format!("the fact `{name}` is `{}`, not a number", text.escape_debug()))
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

#[cfg(test)]
mod tests {
    use crate::testing::request;

    #[test]
    fn figures_are_digits() {
        for (text, figure) in [("0", 0), ("007", 7), ("18446744073709551615", u64::MAX)] {
            assert_eq!(request().fact("n", text).build().figure("n"), Ok(Some(figure)));
        }
        for text in ["", "+1", "-1", "1.0", " 1", "1e3", "0x10", "18446744073709551616", "٣"] {
            let error = request().fact("n", text).build().figure("n").unwrap_err();
            assert!(error.contains("the fact `n`"), "{error}");
        }
        assert_eq!(request().claim("n", "1").build().figure("n"), Ok(None), "what the agent says is no fact");
    }
}
