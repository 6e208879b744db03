//! Allows a purchase when its vendor is listed, and denies every other.
//!
//! - **Settings** ([`Settings`]): `hosts`, and optionally `paths`, `payees`, `networks`. A key that is
//!   left out does not restrict; a list that is given must not be empty.
//! - **Verdict**: *allow* when everything is listed, else *deny* with every reason that applies.
//! - **Holds**: none.
//!
//! | code | when |
//! |---|---|
//! | `vendor-not-listed` | no pattern of `hosts` matches the host and port |
//! | `path-not-listed` | no pattern of `paths` matches the path |
//! | `payee-not-listed` | the paid account is not in `payees` |
//! | `network-not-listed` | the payment's network is not in `networks` |
//! | `unobserved-payee-not-listed` | only the agent says what is bought, and `payees` does not list who is paid |
//!
//! Why the last one: host and path of an unobserved purchase are the agent's words, so the payee is
//! all that is known to be true, and only a list of payees can vouch for it.

use std::collections::BTreeSet;

use countersign_sdk::{
    Address, Decision, HostPattern, Network, PathPattern, Policy, Problem, Reason, SpendRequest, Verdict, export_policy,
};
use serde::Deserialize;

/// Who may be paid.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Settings {
    /// Where may be bought.
    pub hosts: Vec<HostPattern>,
    /// What may be bought there; everything if left out.
    pub paths: Option<Vec<PathPattern>>,
    /// Which accounts may be paid; any if left out.
    pub payees: Option<BTreeSet<Address>>,
    /// On which networks; any if left out.
    pub networks: Option<BTreeSet<Network>>,
}

/// The configured policy.
#[derive(Debug)]
pub struct VendorAllowlist(Settings);

impl Policy for VendorAllowlist {
    type Settings = Settings;
    const NAME: &'static str = "vendor-allowlist";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &'static str = "Allows purchases from listed hosts, paths, payees and networks; denies all others.";

    fn settings_schema() -> &'static str {
        include_str!("../settings.schema.json")
    }

    fn configure(settings: Settings) -> Result<Self, Vec<Problem>> {
        let empty = |list: Option<usize>| list == Some(0);
        let mut problems = Vec::new();
        if settings.hosts.is_empty() {
            problems.push(Problem::at("/hosts", "list at least one host: with none, nothing could be bought"));
        }
        for (path, list) in [
            ("/paths", settings.paths.as_ref().map(Vec::len)),
            ("/payees", settings.payees.as_ref().map(BTreeSet::len)),
            ("/networks", settings.networks.as_ref().map(BTreeSet::len)),
        ] {
            if empty(list) {
                problems.push(Problem::at(path, "list at least one, or leave the key out to permit any"));
            }
        }
        if problems.is_empty() { Ok(Self(settings)) } else { Err(problems) }
    }

    fn evaluate(&self, request: &SpendRequest) -> Result<Decision, String> {
        let Settings { hosts, paths, payees, networks } = &self.0;
        let SpendRequest { purchase, seller, payment, .. } = request;
        let mut reasons = Vec::new();
        if !hosts.iter().any(|host| host.matches(purchase)) {
            reasons.push(Reason::new("vendor-not-listed", format!("the host {} is not listed", purchase.host)));
        }
        if paths.as_ref().is_some_and(|paths| !paths.iter().any(|path| path.matches(&purchase.path))) {
            reasons.push(Reason::new("path-not-listed", format!("the path {} is not listed", purchase.path)));
        }
        let payee_listed = payees.as_ref().map(|payees| payees.iter().any(|payee| payee.matches(&seller.pay_to)));
        if payee_listed == Some(false) {
            reasons.push(Reason::new("payee-not-listed", format!("the payee {} is not listed", seller.pay_to)));
        }
        if networks.as_ref().is_some_and(|networks| !networks.iter().any(|network| network.matches(&payment.network))) {
            reasons.push(Reason::new("network-not-listed", format!("the network {} is not listed", payment.network)));
        }
        if !purchase.observed && payee_listed != Some(true) {
            reasons.push(Reason::new(
                "unobserved-payee-not-listed",
                format!("only the agent says what is bought, and the payee {} is not listed", seller.pay_to),
            ));
        }
        Ok(if reasons.is_empty() { Decision::allow() } else { Decision::new(Verdict::Deny).reasons(reasons) })
    }
}

export_policy!(VendorAllowlist);

#[cfg(test)]
mod tests {
    use countersign_sdk::testing::{Harness, assert_schema_agrees, json, problems, request, run_cases};

    use super::*;

    const PAYEE: &str = "0x209693bc6afc0c5328ba36faf03c514ef312287c";

    #[test]
    fn cases() {
        run_cases::<VendorAllowlist>(include_str!("../cases.json"));
    }

    #[test]
    fn schema() {
        assert_schema_agrees::<VendorAllowlist>();
    }

    #[test]
    fn scheme_and_port_decide_together() {
        let policy = Harness::<VendorAllowlist>::new(json!({ "hosts": ["api.example.com", "localhost:8080"] }));
        for (scheme, host, listed) in [
            ("https", "api.example.com", true),
            ("http", "api.example.com", true),
            ("https", "api.example.com:80", false),
            ("http", "api.example.com:443", false),
            ("http", "localhost:8080", true),
            ("http", "localhost", false),
        ] {
            let outcome = policy.evaluate(&request().host(host).scheme(scheme));
            if listed {
                outcome.assert_allows().assert_no_holds();
            } else {
                outcome.assert_codes(&["vendor-not-listed"]);
            }
        }
    }

    #[test]
    fn unobserved_needs_the_payee_whatever_else_is_listed() {
        let open = Harness::<VendorAllowlist>::new(json!({ "hosts": ["api.example.com"] }));
        open.evaluate(&request().unobserved()).assert_codes(&["unobserved-payee-not-listed"]);
        let listed = Harness::<VendorAllowlist>::new(json!({ "hosts": ["api.example.com"], "payees": [PAYEE] }));
        listed.evaluate(&request().unobserved()).assert_allows();
        listed
            .evaluate(&request().unobserved().pay_to("0x0000000000000000000000000000000000000001"))
            .assert_codes(&["payee-not-listed", "unobserved-payee-not-listed"]);
        listed.evaluate(&request().unobserved().host("evil.test")).assert_codes(&["vendor-not-listed"]);
    }

    #[test]
    fn hostile_paths_do_not_pass_a_prefix() {
        let policy = Harness::<VendorAllowlist>::new(json!({ "hosts": ["api.example.com"], "paths": ["/v1/*"] }));
        for path in ["/v1/../admin", "/v1/%2e%2e/admin", "/v1/..%2fadmin", "/v1/..;/admin", "/v10/x", "/v1", "/"] {
            policy.evaluate(&request().path(path)).assert_codes(&["path-not-listed"]);
        }
    }

    #[test]
    fn every_empty_list_is_reported() {
        let found = problems::<VendorAllowlist>(json!({ "hosts": [], "paths": [], "payees": [], "networks": [] }));
        let paths: Vec<&str> = found.iter().map(|problem| problem.path.as_str()).collect();
        assert_eq!(paths, ["/hosts", "/paths", "/payees", "/networks"]);
    }
}
