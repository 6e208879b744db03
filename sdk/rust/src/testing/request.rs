//! An ordinary request, and how to make it less ordinary.

use serde_json::Value;

use crate::settings;
use crate::{Attribute, Commitment, Money, SpendRequest};

/// An ordinary request: agent `scout` in workspace `research`, without a session, is about to buy
/// `GET https://api.example.com/v1/quote` for 0.05 in USDC on Base Sepolia, by x402 `exact`, from a
/// seller paid before at the same address, on 2026-01-15 at 12:00 UTC. All counters are zero. It is the
/// request that cases start from.
///
/// # Panics
/// If this crate was put together from parts that do not fit.
#[must_use]
pub fn request() -> RequestBuilder {
    match read(&countersign_cases::ordinary()) {
        Ok(request) => RequestBuilder(request),
        Err(why) => panic!("the ordinary request is none: {why}"),
    }
}

pub(super) fn read(document: &Value) -> Result<SpendRequest, String> {
    settings::from_value(document).map_err(|misfit| {
        let problem = misfit.into_problem();
        format!("request{}: {}", problem.path, problem.message)
    })
}

/// A request in the making. Dependent fields follow: the url and the seller's host follow `host` and
/// `path`, the atomic amount follows `value`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestBuilder(SpendRequest);

impl AsRef<SpendRequest> for RequestBuilder {
    fn as_ref(&self) -> &SpendRequest {
        &self.0
    }
}

impl AsRef<Self> for SpendRequest {
    fn as_ref(&self) -> &Self {
        self
    }
}

impl From<RequestBuilder> for SpendRequest {
    fn from(builder: RequestBuilder) -> Self {
        builder.0
    }
}

impl RequestBuilder {
    /// The request.
    #[must_use]
    pub fn build(self) -> SpendRequest {
        self.0
    }

    /// Any other change.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut SpendRequest)) -> Self {
        change(&mut self.0);
        self
    }

    /// The only clock: milliseconds since the Unix epoch.
    #[must_use]
    pub fn at(self, millis: u64) -> Self {
        self.with(|request| request.at = millis)
    }

    /// Who asks.
    #[must_use]
    pub fn agent(self, name: &str) -> Self {
        self.with(|request| request.principal.agent = name.to_owned())
    }

    /// The user behind the agent.
    #[must_use]
    pub fn user(self, name: &str) -> Self {
        self.with(|request| request.principal.user = Some(name.to_owned()))
    }

    /// The workspace.
    #[must_use]
    pub fn workspace(self, name: &str) -> Self {
        self.with(|request| request.principal.workspace = Some(name.to_owned()))
    }

    /// One more role.
    #[must_use]
    pub fn role(self, name: &str) -> Self {
        self.with(|request| request.principal.roles.push(name.to_owned()))
    }

    /// These roles and no others.
    #[must_use]
    pub fn roles(self, names: &[&str]) -> Self {
        self.with(|request| {
            request.principal.roles = names.iter().map(|name| (*name).to_owned()).collect();
        })
    }

    /// The session.
    #[must_use]
    pub fn session(self, id: &str) -> Self {
        self.with(|request| request.principal.session = Some(id.to_owned()))
    }

    /// The client the session works for.
    #[must_use]
    pub fn client(self, name: &str) -> Self {
        self.with(|request| request.principal.client = Some(name.to_owned()))
    }

    /// The project of the session.
    #[must_use]
    pub fn project(self, name: &str) -> Self {
        self.with(|request| request.principal.project = Some(name.to_owned()))
    }

    /// The task of the session.
    #[must_use]
    pub fn task(self, name: &str) -> Self {
        self.with(|request| request.principal.task = Some(name.to_owned()))
    }

    /// HTTP method.
    #[must_use]
    pub fn method(self, method: &str) -> Self {
        self.with(|request| request.purchase.method = method.to_owned())
    }

    /// `host` or `host:port`, of the url and of the seller.
    #[must_use]
    pub fn host(self, host: &str) -> Self {
        self.with(|request| {
            request.purchase.host = host.to_owned();
            request.seller.host = host.to_owned();
            respell_url(request);
        })
    }

    /// The path of the url.
    #[must_use]
    pub fn path(self, path: &str) -> Self {
        self.with(|request| {
            request.purchase.path = path.to_owned();
            respell_url(request);
        })
    }

    /// `http` or `https`.
    #[must_use]
    pub fn scheme(self, scheme: &str) -> Self {
        self.with(|request| {
            request.purchase.url = format!("{scheme}://{}{}", request.purchase.host, request.purchase.path);
        })
    }

    /// Only the agent says what is bought.
    #[must_use]
    pub fn unobserved(self) -> Self {
        self.with(|request| request.purchase.observed = false)
    }

    /// The seller's category for it.
    #[must_use]
    pub fn category(self, category: &str) -> Self {
        self.with(|request| request.purchase.category = Some(category.to_owned()))
    }

    /// The account that is paid.
    #[must_use]
    pub fn pay_to(self, address: &str) -> Self {
        self.with(|request| request.seller.pay_to = address.to_owned())
    }

    /// This host was never paid before.
    #[must_use]
    pub fn first_time_vendor(self) -> Self {
        self.with(|request| {
            request.seller.host_first_paid = None;
            request.seller.last_price = None;
        })
    }

    /// This account was never paid before.
    #[must_use]
    pub fn first_time_payee(self) -> Self {
        self.with(|request| request.seller.pay_to_first_paid = None)
    }

    /// This host was last paid at a different address.
    #[must_use]
    pub fn pay_to_changed(self) -> Self {
        self.with(|request| request.seller.pay_to_changed = true)
    }

    /// CAIP-2 network.
    #[must_use]
    pub fn network(self, network: &str) -> Self {
        self.with(|request| request.payment.network = network.to_owned())
    }

    /// What signing binds the wallet to.
    #[must_use]
    pub fn commitment(self, commitment: Commitment) -> Self {
        self.with(|request| request.payment.commitment = commitment)
    }

    /// The price as a decimal, such as `"0.05"`.
    ///
    /// # Panics
    /// If it is none.
    #[must_use]
    #[track_caller]
    pub fn value(self, decimal: &str) -> Self {
        match Money::parse(decimal) {
            Ok(money) => self.micros(money.micros()),
            Err(error) => panic!("{error}"),
        }
    }

    /// The price in micros.
    #[must_use]
    pub fn micros(self, micros: u64) -> Self {
        self.with(|request| {
            request.payment.value = micros;
            respell_amount(request);
        })
    }

    /// Something the agent says.
    #[must_use]
    pub fn claim(self, name: &str, value: &str) -> Self {
        self.with(|request| request.claims.push(Attribute::new(name, value)))
    }

    /// Something the host or the operator says.
    #[must_use]
    pub fn fact(self, name: &str, value: &str) -> Self {
        self.with(|request| request.facts.push(Attribute::new(name, value)))
    }

    /// Applies a fragment of a request in JSON, under its WIT names: members replace members,
    /// objects merge, `null` empties an option. Dependent fields follow unless the fragment names them.
    ///
    /// # Errors
    /// Where and why the result is not a request.
    pub fn merge(self, fragment: &Value) -> Result<Self, String> {
        let document = serde_json::to_value(&self.0).map_err(|error| error.to_string())?;
        read(&countersign_cases::complete(document, fragment)?).map(Self)
    }
}

fn respell_url(request: &mut SpendRequest) {
    let purchase = &mut request.purchase;
    let scheme = purchase.scheme().unwrap_or("https");
    purchase.url = format!("{scheme}://{}{}", purchase.host, purchase.path);
}

/// At a price of one, which is what the ordinary asset has.
fn respell_amount(request: &mut SpendRequest) {
    let payment = &mut request.payment;
    let decimals = usize::from(payment.asset_decimals);
    let micros = payment.value.to_string();
    payment.amount =
        if payment.value == 0 || decimals < 6 { micros } else { format!("{micros}{}", "0".repeat(decimals - 6)) };
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn dependent_fields_follow() {
        let built = request().host("localhost:8402").path("/a").scheme("http").value("1.5").build();
        assert_eq!(built.purchase.url, "http://localhost:8402/a");
        assert_eq!(built.seller.host, "localhost:8402");
        assert_eq!(built.payment.amount, "1500000");

        let merged = request()
            .merge(&json!({
                "principal": { "session": "s1", "workspace": null },
                "purchase": { "host": "localhost:8402", "path": "/a" },
                "payment": { "value": 1_500_000, "commitment": "ceiling" },
                "facts": [{ "name": "category", "value": "data" }]
            }))
            .unwrap()
            .build();
        assert_eq!(merged.principal.session.as_deref(), Some("s1"));
        assert_eq!(merged.principal.workspace, None);
        assert_eq!(merged.purchase.url, "https://localhost:8402/a");
        assert_eq!(merged.seller.host, "localhost:8402");
        assert_eq!(merged.payment.amount, "1500000");
        assert_eq!(merged.payment.commitment, Commitment::Ceiling);
        assert_eq!(merged.fact("category"), Some("data"));
        assert_eq!(merged.claim("category"), None);
    }

    #[test]
    fn fragments_with_a_typo_are_refused() {
        for (fragment, place) in [
            (json!({ "paymnet": {} }), "request/paymnet: unknown key"),
            (json!({ "payment": { "vlaue": 1 } }), "request/payment/vlaue: unknown key"),
            (json!({ "payment": { "value": "1" } }), "request/payment/value"),
            (json!({ "history": { "agent-day": { "cuont": 1 } } }), "request/history/agent-day/cuont"),
            (json!({ "payment": { "commitment": "maybe" } }), "request/payment/commitment: expected `fixed`"),
        ] {
            let error = request().merge(&fragment).unwrap_err();
            assert!(error.starts_with(place), "{error}");
        }
    }
}
