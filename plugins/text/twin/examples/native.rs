//! What the rules of `examples/policies/text` cost without a sandbox: the interpreters' own code, natively,
//! with the text parsed once. `cargo run --release --example native` in `plugins/text`. The same rules in the
//! sandbox: the example `cost` of the engine, with what `--settings` writes.

use std::error::Error;
use std::time::{Duration, Instant};

use cedar::Cedar;
use cel::Cel;
use countersign_sdk::testing::request;
use countersign_sdk::{Policy, SpendRequest};
use rego::Rego;
use serde_json::Value;

const ROW: Duration = Duration::from_secs(2);

fn main() -> Result<(), Box<dyn Error>> {
    let request = request().client("acme").build();
    println!("native, text parsed once     p50 us   p99 us");
    row::<Cedar>(include_str!("../../../../examples/policies/text/cedar.toml"), &request)?;
    row::<Rego>(include_str!("../../../../examples/policies/text/rego.toml"), &request)?;
    row::<Cel>(include_str!("../../../../examples/policies/text/cel.toml"), &request)?;
    Ok(())
}

fn row<P: Policy>(config: &str, request: &SpendRequest) -> Result<(), Box<dyn Error>> {
    let config: Value = toml::from_str(config)?;
    let settings = config.pointer("/policy/rules/settings").ok_or("no settings")?;
    if std::env::args().any(|argument| argument == "--settings") {
        std::fs::write(format!("{}.settings.json", P::NAME), settings.to_string())?;
    }
    let settings = serde_json::from_value(settings.clone())?;
    let policy = P::configure(settings).map_err(|problems| format!("{problems:?}"))?;
    let began = now();
    let mut took = Vec::new();
    while began.elapsed() < ROW {
        let start = now();
        std::hint::black_box(policy.evaluate(request))?;
        took.push(start.elapsed());
    }
    took.sort_unstable();
    let at = |percent: usize| took.get(took.len() * percent / 100).copied().unwrap_or_default().as_nanos() as f64 / 1e3;
    println!("{:26} {:8.1} {:8.1}", P::NAME, at(50), at(99));
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "this program exists to measure time")]
fn now() -> Instant {
    Instant::now()
}
