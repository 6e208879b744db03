//! One policy in five languages: the same request gets the same decision from all of them, bit for bit.
//! `make guests` builds them. That the cases are what the rule says is the Rust policy's own test, which runs here too.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test: whatever is not as expected must fail it loudly"
)]

#[path = "../../examples/policies/rust/src/lib.rs"]
#[expect(unreachable_pub, reason = "a crate of its own, here a module")]
mod rust;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, LazyLock},
};

use countersign_core::verdict::Opinion;
use countersign_engine::{Engine, StageError};
use countersign_sdk::testing::{Harness, request};
use countersign_tests::cases;
use serde_json::{Value, json};

const CONFORMANCE: &str = include_str!("../../examples/policies/conformance.json");
const SCHEMA: &str = include_str!("../../examples/policies/settings.schema.json");
const LANGUAGES: [&str; 5] = ["rust", "javascript", "python", "c", "go"];

struct Guest {
    language: &'static str,
    module: Arc<[u8]>,
}

struct Guests {
    engine: Arc<Engine>,
    guests: Vec<Guest>,
}

/// Compiled once: the larger ones take seconds.
static GUESTS: LazyLock<Guests> = LazyLock::new(|| Guests {
    engine: cases::engine(),
    guests: LANGUAGES.map(|language| Guest { language, module: cases::module(&built(language)) }).into(),
});

fn built(language: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/policies").join(language).join("policy.wasm")
}

/// What must be the same: not which module it was, how long it took and how many instructions.
#[derive(Clone, Debug, PartialEq)]
struct Answer {
    outcome: Value,
    log: Value,
}

fn answer(guest: &Guest, case: &Value) -> Result<Answer, StageError> {
    let comparable = |opinion: Opinion| Answer {
        outcome: serde_json::to_value(opinion.outcome).unwrap(),
        log: serde_json::to_value(opinion.log).unwrap(),
    };
    cases::answer(&GUESTS.engine, &guest.module, case).map(comparable)
}

#[test]
fn every_language_gives_the_same_answers() {
    let mut different = Vec::new();
    for case in cases::read(CONFORMANCE) {
        let native = native(&case);
        let mut first = None;
        for guest in &GUESTS.guests {
            let answer = answer(guest, &case);
            let decision = answer.as_ref().ok().map(|answer| answer.outcome.clone());
            let expected = native.as_ref().map(|decision| json!({ "Ok": decision }));
            if decision != expected {
                different.push(format!("{}: {}: {answer:?}\n  natively {native:?}", case["name"], guest.language));
            }
            let first = first.get_or_insert_with(|| answer.clone());
            if answer != *first {
                different.push(format!("{}: {}: {answer:?}\n  rust {first:?}", case["name"], guest.language));
            }
        }
    }
    assert!(different.is_empty(), "{} answers differ:\n{}", different.len(), different.join("\n"));
}

/// The decision of the Rust policy outside any sandbox, as core would record it. None: settings refused.
fn native(case: &Value) -> Option<Value> {
    let policy = Harness::<rust::ClientBudget>::try_new(&case["settings"]).ok()?;
    let request = match case.get("request") {
        Some(fragment) => request().merge(fragment).unwrap(),
        None => request(),
    };
    let outcome = policy.evaluate(&request);
    let mut decision = cases::in_core_names(serde_json::to_value(outcome.decision()).unwrap());
    decision["holds"] = cases::holds(decision["holds"].take());
    Some(decision)
}

#[test]
fn every_language_describes_the_same_policy_and_imports_next_to_nothing() {
    for guest in &GUESTS.guests {
        let about = GUESTS.engine.inspect(&guest.module).unwrap();
        assert_eq!(about.name, format!("client-budget-{}", guest.language));
        assert_eq!(about.version, "0.1.0", "{}", guest.language);
        assert_eq!(about.summary, "Caps what is spent for each client in a day and in a month.", "{}", guest.language);
        assert_eq!(about.settings_schema, SCHEMA, "{}", guest.language);
        // Rust's standard library leaves imports in whatever it is linked to.
        let wasi = about.imports.iter().filter(|import| !import.starts_with("countersign:policy/")).count();
        assert!(wasi == 0 || guest.language == "rust", "{}: {:?}", guest.language, about.imports);
    }
}
