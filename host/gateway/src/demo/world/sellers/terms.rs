//! What a seller says on the wire: offers, demands for payment, receipts.

use http::header::{CACHE_CONTROL, HeaderName};
use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::super::server::{Content, encode, json as answer, put};
use super::super::{NETWORK, NETWORK_V1};
use super::catalogue::{Patch, Route};
use super::shop::Shop;

const REQUIRED: HeaderName = HeaderName::from_static("payment-required");
const RECEIPT: HeaderName = HeaderName::from_static("payment-response");
const RECEIPT_V1: HeaderName = HeaderName::from_static("x-payment-response");
/// The headers that carry payments.
pub(super) const PAYMENT: HeaderName = HeaderName::from_static("payment-signature");
pub(super) const PAYMENT_V1: HeaderName = HeaderName::from_static("x-payment");

impl Shop {
    /// The offers on a route today, as they are published.
    pub(super) fn offers(&self, route: &Route, factor: u128) -> Vec<Value> {
        let books = self.books();
        let prices = books.prices.get(route.path).map_or(route.prices, Vec::as_slice);
        let token = self.chain.token();
        let extra = json!({"name": token.name, "version": token.version});
        let offer = |price: &u128| {
            let price = price.saturating_mul(factor).to_string();
            let mut offer = if self.plan.version == 1 {
                json!({
                    "scheme": "exact", "network": NETWORK_V1, "maxAmountRequired": price,
                    "resource": self.resource(route), "description": route.description,
                    "mimeType": "application/json", "payTo": books.pay_to, "maxTimeoutSeconds": 60,
                    "asset": token.verifying_contract, "outputSchema": null, "extra": extra,
                })
            } else {
                json!({
                    "scheme": "exact", "network": NETWORK, "amount": price, "asset": token.verifying_contract,
                    "payTo": books.pay_to, "maxTimeoutSeconds": 300, "extra": extra,
                })
            };
            patch(&mut offer, self.plan.patch);
            offer
        };
        prices.iter().map(offer).collect()
    }

    /// The whole of the terms.
    pub(super) fn terms(&self, route: &Route, offers: &[Value], error: &str) -> Value {
        if self.plan.version == 1 {
            return json!({"x402Version": 1, "error": error, "accepts": offers});
        }
        json!({
            "x402Version": 2,
            "error": error,
            "resource": {
                "url": self.resource(route), "description": route.description, "mimeType": "application/json",
            },
            "accepts": offers,
        })
    }

    /// The first demand: nobody has paid, or nobody can tell.
    pub(super) fn unpaid(&self, route: &Route) -> Response<Content> {
        let error = if self.plan.version == 1 { "X-PAYMENT header is required" } else { "Payment required" };
        self.demand(&self.terms(route, &self.offers(route, 1), error))
    }

    /// The demand after a payment that was refused.
    pub(super) fn refused(&self, route: &Route, why: &str) -> Response<Content> {
        self.demand(&self.terms(route, &self.offers(route, 1), why))
    }

    /// A 402 with these terms.
    pub(super) fn demand(&self, terms: &Value) -> Response<Content> {
        if self.plan.version == 1 {
            return answer(StatusCode::PAYMENT_REQUIRED, terms);
        }
        let mut response = answer(StatusCode::PAYMENT_REQUIRED, &json!({}));
        put(&mut response, REQUIRED, &encode(terms));
        put(&mut response, CACHE_CONTROL, "no-store");
        response
    }

    /// A 402 with two sets of terms.
    pub(super) fn demand_twice(&self, first: &Value, second: &Value) -> Response<Content> {
        let mut response = self.demand(first);
        put(&mut response, REQUIRED, &encode(second));
        response
    }

    /// The answer when the facilitator took nothing, or did not say: as official servers put it, a
    /// failed receipt with no transaction, although a lost reply may mean that the money moved.
    pub(super) fn unsettled(&self, route: &Route, receipt: &Value) -> Response<Content> {
        if self.plan.version == 1 {
            let why = receipt.get("errorReason").and_then(Value::as_str).unwrap_or("fetch failed");
            return self.refused(route, why);
        }
        let mut response = answer(StatusCode::PAYMENT_REQUIRED, &json!({}));
        self.attach(&mut response, receipt);
        response
    }

    /// Adds a receipt to an answer.
    pub(super) fn attach(&self, response: &mut Response<Content>, receipt: &Value) {
        let name = if self.plan.version == 1 { RECEIPT_V1 } else { RECEIPT };
        put(response, name, &encode(receipt));
        put(response, CACHE_CONTROL, "private");
    }

    fn resource(&self, route: &Route) -> String {
        format!("{}{}", self.url, route.path)
    }
}

/// Overwrites fields of an object.
pub(super) fn patch(object: &mut Value, patch: Patch) {
    let Some(object) = object.as_object_mut() else {
        return;
    };
    for (key, value) in patch {
        object.insert((*key).to_owned(), serde_json::from_str(value).unwrap_or_default());
    }
}
