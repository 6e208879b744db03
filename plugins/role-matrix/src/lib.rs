//! Allows what a row of a table permits: these roles may buy these categories with these classes of
//! data, up to this much at once. Everything else is denied.
//!
//! - **Settings** ([`Settings`]): `rows`, each of `roles`, `categories` and `data-classes` (a list, or
//!   `"*"` for any, even none) and optionally `per-payment`. A principal with several roles may do what
//!   any of them may.
//! - **Verdict**: *allow* when a row matches, else *deny* with every reason that applies.
//! - **Holds**: none.
//!
//! | code | when |
//! |---|---|
//! | `no-category` | the operator says of no category what is bought, and every row of the roles lists categories |
//! | `no-data-class` | the same of the class of data |
//! | `role-not-permitted` | no row has one of the roles, the category and the class of data |
//! | `above-per-payment` | rows match, but for the value |
//!
//! Category and class of data are the operator's facts `category` and `data-class` about the vendor.
//! What the seller calls its goods (`purchase.category`) and what the agent claims never count.

use std::collections::BTreeSet;
use std::fmt;

use countersign_sdk::{Decision, Money, Name, Policy, Problem, SpendRequest, Verdict, export_policy};
use serde::de::{Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, de};

/// Who may buy what.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Settings {
    /// What is permitted; all else is not.
    pub rows: Vec<Row>,
}

/// One thing that is permitted.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Row {
    /// To principals with one of these roles.
    pub roles: BTreeSet<Name>,
    /// From vendors of these categories.
    pub categories: AnyOf,
    /// With data of these classes.
    pub data_classes: AnyOf,
    /// Up to this much at once; any amount if left out.
    pub per_payment: Option<Money>,
}

/// A list of words, or `"*"` for any word and none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AnyOf {
    /// Whatever it is, even if it is not known.
    Any,
    /// One of these.
    Of(BTreeSet<String>),
}

impl AnyOf {
    fn has(&self, word: Option<&str>) -> bool {
        match self {
            Self::Any => true,
            Self::Of(words) => word.is_some_and(|word| words.contains(word)),
        }
    }

    fn check(&self) -> Option<&'static str> {
        match self {
            Self::Of(words) if words.is_empty() => Some("list at least one, or write \"*\" for any"),
            Self::Of(words) if words.contains("*") => Some("write \"*\" alone, not in a list"),
            Self::Of(words) if words.contains("") => Some("an empty word names nothing"),
            _ => None,
        }
    }
}

impl<'de> Deserialize<'de> for AnyOf {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Words;

        impl<'de> Visitor<'de> for Words {
            type Value = AnyOf;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of words, or \"*\" for any")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<AnyOf, E> {
                if text == "*" { Ok(AnyOf::Any) } else { Err(E::invalid_value(de::Unexpected::Str(text), &self)) }
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<AnyOf, A::Error> {
                let mut words = BTreeSet::new();
                while let Some(word) = items.next_element()? {
                    words.insert(word);
                }
                Ok(AnyOf::Of(words))
            }
        }

        deserializer.deserialize_any(Words)
    }
}

/// The configured policy.
#[derive(Debug)]
pub struct RoleMatrix(Vec<Row>);

impl Policy for RoleMatrix {
    type Settings = Settings;
    const NAME: &'static str = "role-matrix";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &'static str = "Allows categories and classes of data by role; denies everything else.";

    fn settings_schema() -> &'static str {
        include_str!("../settings.schema.json")
    }

    fn configure(settings: Settings) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        if settings.rows.is_empty() {
            problems.push(Problem::at("/rows", "list at least one row: with none, nothing could be bought"));
        }
        for (index, row) in settings.rows.iter().enumerate() {
            let roles = row.roles.is_empty().then_some("list at least one role");
            let faults =
                [("roles", roles), ("categories", row.categories.check()), ("data-classes", row.data_classes.check())];
            let faults = faults.into_iter().filter_map(|(key, fault)| fault.map(|fault| (key, fault)));
            problems.extend(faults.map(|(key, fault)| Problem::at(format!("/rows/{index}/{key}"), fault)));
        }
        if problems.is_empty() { Ok(Self(settings.rows)) } else { Err(problems) }
    }

    fn evaluate(&self, request: &SpendRequest) -> Result<Decision, String> {
        let (category, data_class) = (request.fact("category"), request.fact("data-class"));
        let roles = &request.principal.roles;
        let of_role: Vec<&Row> =
            self.0.iter().filter(|row| roles.iter().any(|role| row.roles.contains(role.as_str()))).collect();
        let fits = |row: &&&Row| row.categories.has(category) && row.data_classes.has(data_class);
        let fitting: Vec<&&Row> = of_role.iter().filter(fits).collect();
        let value = request.value();
        if fitting.iter().any(|row| row.per_payment.is_none_or(|cap| value <= cap)) {
            return Ok(Decision::allow());
        }
        if let Some(cap) = fitting.iter().filter_map(|row| row.per_payment).max() {
            let message = format!("the payment of {value} is above the {cap} that {} may spend at once", listed(roles));
            return Ok(Decision::deny("above-per-payment", message));
        }
        let all_ask = |of: fn(&Row) -> &AnyOf| !of_role.is_empty() && of_role.iter().all(|row| *of(row) != AnyOf::Any);
        let mut decision = Decision::new(Verdict::Deny);
        if category.is_none() && all_ask(|row| &row.categories) {
            decision = decision.because("no-category", "the operator gives this vendor no category");
        }
        if data_class.is_none() && all_ask(|row| &row.data_classes) {
            decision = decision.because("no-data-class", "the operator gives this vendor no class of data");
        }
        let message = format!(
            "{} may not buy the category {} with data of the class {}",
            listed(roles),
            category.unwrap_or("(none)"),
            data_class.unwrap_or("(none)")
        );
        Ok(decision.because("role-not-permitted", message))
    }
}

/// Roles that a message names.
const LISTED: usize = 8;

/// For people: a principal may have more roles than a message has room for.
fn listed(roles: &[String]) -> String {
    let named = roles.iter().take(LISTED).map(String::as_str).collect::<Vec<_>>().join(", ");
    match roles.len() {
        0 => "a principal without a role".to_owned(),
        1..=LISTED => named,
        more => format!("{named} and {} more roles", more - LISTED),
    }
}

export_policy!(RoleMatrix);

#[cfg(test)]
mod tests {
    use countersign_sdk::testing::{Harness, RequestBuilder, assert_schema_agrees, json, problems, request, run_cases};

    use super::*;

    #[test]
    fn cases() {
        run_cases::<RoleMatrix>(include_str!("../cases.json"));
    }

    #[test]
    fn schema() {
        assert_schema_agrees::<RoleMatrix>();
    }

    fn buying(category: &str, data_class: &str) -> RequestBuilder {
        request().fact("category", category).fact("data-class", data_class)
    }

    #[test]
    fn the_whole_matrix() {
        let policy = Harness::<RoleMatrix>::new(json!({ "rows": [
            { "roles": ["analyst"], "categories": ["market-data", "news"], "data-classes": ["public"] },
            { "roles": ["analyst", "recruiter"], "categories": ["people"], "data-classes": ["personal"] },
            { "roles": ["admin"], "categories": "*", "data-classes": "*" }
        ] }));
        for role in ["analyst", "recruiter", "admin", "intern"] {
            for category in ["market-data", "news", "people", "weapons"] {
                for class in ["public", "personal", "secret"] {
                    let permitted = match role {
                        "admin" => true,
                        "analyst" if class == "public" => category == "market-data" || category == "news",
                        "analyst" | "recruiter" => category == "people" && class == "personal",
                        _ => false,
                    };
                    let outcome = policy.evaluate(&buying(category, class).roles(&[role]));
                    if permitted {
                        outcome.assert_allows().assert_no_holds();
                    } else {
                        outcome.assert_codes(&["role-not-permitted"]).assert_denies("role-not-permitted");
                    }
                }
            }
        }
    }

    #[test]
    fn several_roles_may_what_any_may_but_rows_do_not_mix() {
        let policy = Harness::<RoleMatrix>::new(json!({ "rows": [
            { "roles": ["analyst"], "categories": ["news"], "data-classes": ["public"] },
            { "roles": ["recruiter"], "categories": ["people"], "data-classes": ["personal"] }
        ] }));
        let both = ["analyst", "recruiter"];
        policy.evaluate(&buying("news", "public").roles(&both)).assert_allows();
        policy.evaluate(&buying("people", "personal").roles(&both)).assert_allows();
        policy.evaluate(&buying("news", "personal").roles(&both)).assert_denies("role-not-permitted");
        policy.evaluate(&buying("news", "public").roles(&[])).assert_codes(&["role-not-permitted"]);
        policy.evaluate(&buying("News", "public").roles(&both)).assert_denies("role-not-permitted");
    }

    #[test]
    fn only_the_operators_words_count() {
        let policy = Harness::<RoleMatrix>::new(json!({ "rows": [
            { "roles": ["analyst"], "categories": ["news"], "data-classes": ["public"] }
        ] }));
        let said = request().category("news").claim("category", "news").claim("data-class", "public");
        policy.evaluate(&said).assert_codes(&["no-category", "no-data-class", "role-not-permitted"]);
        policy
            .evaluate(&said.clone().fact("category", "weapons").fact("data-class", "public"))
            .assert_denies("role-not-permitted");
        policy.evaluate(&said.fact("category", "news").fact("data-class", "public")).assert_allows();
    }

    #[test]
    fn the_widest_fitting_row_caps_a_payment() {
        let policy = Harness::<RoleMatrix>::new(json!({ "rows": [
            { "roles": ["analyst"], "categories": "*", "data-classes": "*", "per-payment": "0.05" },
            { "roles": ["analyst"], "categories": ["news"], "data-classes": "*", "per-payment": "0.10" }
        ] }));
        policy.evaluate(&buying("news", "public").micros(100_000)).assert_allows();
        policy.evaluate(&buying("news", "public").micros(100_001)).assert_codes(&["above-per-payment"]);
        policy.evaluate(&buying("people", "public").micros(50_000)).assert_allows();
        policy.evaluate(&buying("people", "public").micros(50_001)).assert_codes(&["above-per-payment"]);
    }

    #[test]
    fn every_problem_is_reported() {
        let found = problems::<RoleMatrix>(json!({ "rows": [
            { "roles": [], "categories": [], "data-classes": ["public", "*"] },
            { "roles": ["analyst"], "categories": [""], "data-classes": "*" }
        ] }));
        let paths: Vec<&str> = found.iter().map(|problem| problem.path.as_str()).collect();
        assert_eq!(paths, ["/rows/0/roles", "/rows/0/categories", "/rows/0/data-classes", "/rows/1/categories"]);
    }
}
