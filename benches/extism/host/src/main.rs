//! What a decision costs in Extism: `extism-cost PLUGIN.wasm`. `benches/extism/run` builds both and starts it.
//!
//! One thread, the request of `host/engine/examples/cost.rs`, the rule of the policy `spend-caps`. Rows:
//! the same plugin for every decision, and a fresh one from the compiled plugin for each, which reads its
//! settings (the plugin's config) before it judges. The request is JSON already and the answer is not
//! parsed, so what a host would do for either is not in the figures. CPU is of the whole process: Extism
//! tells a thread of its own when a call starts and ends.

use std::error::Error;
use std::hint::black_box;
use std::time::{Duration, Instant};

use countersign_sdk::{Decision, Policy, SpendRequest};
use extism::{CompiledPlugin, Manifest, Plugin, PluginBuilder, Wasm};
use serde_json::Value;
use spend_caps::{Settings, SpendCaps};

/// How long each row is measured, and before that not measured.
const ROW: Duration = Duration::from_secs(5);
const WARM: Duration = Duration::from_millis(500);

const SETTINGS: &str = r#"{"per-payment":"1.00","per-session":"5.00","per-agent-hour":"5.00","per-agent-day":"20.00"}"#;

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).ok_or("usage: extism-cost PLUGIN.wasm")?;
    let manifest = Manifest::new([Wasm::file(path)]).with_config_key("settings", SETTINGS);
    let began = now();
    // Without the cache in the user's home: it would only make this line say less.
    let compiled = CompiledPlugin::new(PluginBuilder::new(manifest).with_cache_disabled())?;
    println!("compiled in {:?}", began.elapsed());

    let request: SpendRequest = serde_json::from_str(include_str!("../request.json"))?;
    let mut reused = Plugin::new_from_compiled(&compiled)?;
    check(&compiled, &mut reused, &request)?;
    // As short as it can be.
    let json = serde_json::to_string(&request)?;
    println!("request {} bytes, decision {} bytes", json.len(), ask(&mut reused, &json)?);

    println!("plugin     decisions/s   p50 us   p99 us  CPU us/decision");
    row("reused", || ask(&mut reused, &json))?;
    row("fresh", || ask(&mut Plugin::new_from_compiled(&compiled)?, &json))?;
    Ok(())
}

/// One decision; how many bytes it has.
fn ask(plugin: &mut Plugin, request: &str) -> Result<usize, Box<dyn Error>> {
    let decision: &str = plugin.call("evaluate", request)?;
    Ok(black_box(decision).len())
}

fn row(plugin: &str, mut one: impl FnMut() -> Result<usize, Box<dyn Error>>) -> Result<(), Box<dyn Error>> {
    run(WARM, &mut one)?;
    let before = cpu()?;
    let mut took = run(ROW, &mut one)?;
    let spent = cpu()?.saturating_sub(before);
    took.sort_unstable();
    let at = |percent: usize| took.get(took.len() * percent / 100).copied().unwrap_or_default().as_nanos() as f64 / 1e3;
    let (rate, each) = (took.len() as f64 / ROW.as_secs_f64(), spent.as_secs_f64() * 1e6 / took.len() as f64);
    println!("{plugin:10} {rate:11.0} {:8.1} {:8.1} {each:16.1}", at(50), at(99));
    Ok(())
}

/// What each decision took.
fn run(
    span: Duration,
    one: &mut impl FnMut() -> Result<usize, Box<dyn Error>>,
) -> Result<Vec<Duration>, Box<dyn Error>> {
    let (began, mut took) = (now(), Vec::new());
    while began.elapsed() < span {
        let start = now();
        one()?;
        took.push(start.elapsed());
    }
    Ok(took)
}

/// That the plugin, reused and fresh, answers what the policy answers: to the request that is measured, allow
/// with three holds; and to others that the rule treats otherwise.
fn check(compiled: &CompiledPlugin, reused: &mut Plugin, request: &SpendRequest) -> Result<(), Box<dyn Error>> {
    let settings: Settings = serde_json::from_str(SETTINGS)?;
    let policy = SpendCaps::configure(settings).map_err(|problems| format!("{problems:?}"))?;
    let (mut dear, mut free, mut alone) = (request.clone(), request.clone(), request.clone());
    dear.payment.value = 1_000_001;
    free.payment.value = 0;
    alone.principal.session = None;
    for (request, verdict, holds) in
        [(request, "allow", 3), (&dear, "deny", 0), (&free, "deny", 0), (&alone, "deny", 0)]
    {
        let json = serde_json::to_string(request)?;
        let mut fresh = Plugin::new_from_compiled(compiled)?;
        for plugin in [&mut *reused, &mut fresh] {
            let said: Value = serde_json::from_str(plugin.call("evaluate", json.as_str())?)?;
            let wanted = part_of(&policy.evaluate(request)?)?;
            let as_expected = said.get("verdict").and_then(Value::as_str) == Some(verdict)
                && said.get("holds").and_then(Value::as_array).map(Vec::len) == Some(holds);
            if said != wanted || !as_expected {
                return Err(format!("the plugin said {said}, the policy {wanted}, asked {json}").into());
            }
        }
    }
    Ok(())
}

/// What the rule makes use of in a decision.
fn part_of(decision: &Decision) -> Result<Value, Box<dyn Error>> {
    let mut value = serde_json::to_value(decision)?;
    let rest = value.as_object_mut().ok_or("a decision is an object")?;
    rest.retain(|name, _| ["verdict", "reasons", "holds"].contains(&name.as_str()));
    Ok(value)
}

/// CPU time of this process, to a hundredth of a second.
fn cpu() -> Result<Duration, Box<dyn Error>> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let after = stat.rsplit_once(')').ok_or("/proc/self/stat")?.1;
    let ticks: u64 = after.split_whitespace().skip(11).take(2).filter_map(|n| n.parse::<u64>().ok()).sum();
    Ok(Duration::from_millis(ticks * 10))
}

#[expect(clippy::disallowed_methods, reason = "this program exists to measure time")]
fn now() -> Instant {
    Instant::now()
}
