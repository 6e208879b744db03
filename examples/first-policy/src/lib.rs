//! Caps what is spent for a client in a day.

use countersign_sdk::{Decision, Hold, Money, Policy, Problem, SpendRequest, Window, export_policy, log};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Settings {
    per_client_day: Money,
}

pub struct ClientDay {
    limit: Money,
}

impl Policy for ClientDay {
    type Settings = Settings;
    const NAME: &'static str = "client-day";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &'static str = "Caps what is spent for a client in a day.";

    fn settings_schema() -> &'static str {
        r#"{
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "type": "object",
            "properties": {
                "per-client-day": { "type": "string", "description": "The most a client may cost in a UTC day." }
            },
            "required": ["per-client-day"],
            "additionalProperties": false
        }"#
    }

    fn configure(settings: Settings) -> Result<Self, Vec<Problem>> {
        if settings.per_client_day == Money::ZERO {
            return Err(vec![Problem::at("/per-client-day", "a cap of nothing would deny everything")]);
        }
        Ok(Self { limit: settings.per_client_day })
    }

    fn evaluate(&self, request: &SpendRequest) -> Result<Decision, String> {
        let Some(client) = &request.principal.client else {
            return Ok(Decision::deny("no-client", "spending must be for a client"));
        };
        if request.value() == Money::ZERO {
            return Ok(Decision::deny("zero-value", "the payment is worth nothing, so no cap applies to it"));
        }
        log::debug(format!("charging {client}"));
        let budget = format!("client/{client}");
        Ok(Decision::allow().hold(Hold::micros(budget, Window::day("UTC"), self.limit, request.value())))
    }
}

export_policy!(ClientDay);

#[cfg(test)]
mod tests {
    use super::*;
    use countersign_sdk::testing::{Harness, assert_schema_agrees, json, problems, request};

    #[test]
    fn holds_the_clients_day() {
        let policy = Harness::<ClientDay>::new(json!({ "per-client-day": "5.00" }));
        policy.evaluate(&request()).assert_denies("no-client");
        let outcome = policy.evaluate(&request().client("acme").value("0.05"));
        assert_eq!(outcome.assert_allows().hold("client/acme").limit, 5_000_000);
    }

    #[test]
    fn settings() {
        assert_schema_agrees::<ClientDay>();
        assert_eq!(problems::<ClientDay>(json!({ "per-client-day": 5 }))[0].path, "/per-client-day");
    }
}
