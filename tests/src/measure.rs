//! What the measuring programs share.

use crate::{
    config::{Config, Policy},
    process::Gateway,
};
use serde_json::{Value, json};
use std::{fs, time::Duration};

/// The standard policies, and limits that no measurement reaches. Cold starts have both to compile.
pub fn unlimited(config: Config) -> Config {
    config
        .set(&["wallet", "research", "daily-limit"], "900000.00")
        .set(&["limits", "purchases-per-agent-per-minute"], 1_000_000)
        .set(&["limits", "unresolved-per-seller"], 1_000_000)
        .set(&["limits", "unresolved-per-payee"], 1_000_000)
        .set(&["limits", "unresolved-per-agent"], 1_000_000)
}

/// Two standard policies.
pub fn policies() -> [Policy; 2] {
    let caps = Policy::new("caps", "builtin:spend-caps")
        .setting("per-payment", "1.00")
        .setting("per-agent-hour", "900000.00")
        .setting("per-agent-day", "900000.00")
        .setting("timezone", "UTC");
    [Policy::vendors(), caps]
}

/// The median in milliseconds, with all of them.
pub fn median(mut times: Vec<Duration>) -> Value {
    times.sort_unstable();
    let all: Vec<Value> = times.iter().map(|time| rounded(time.as_secs_f64() * 1000.0)).collect();
    json!({"median": quantile(&times, 50), "all": all})
}

/// A quantile of sorted times, in milliseconds: the smallest that so many per cent do not exceed.
pub fn quantile(times: &[Duration], percent: usize) -> Value {
    let rank = (times.len() * percent).div_ceil(100).max(1);
    times.get(rank - 1).map_or(Value::Null, |time| rounded(time.as_secs_f64() * 1000.0))
}

/// With two places.
pub fn rounded(number: f64) -> Value {
    json!((number * 100.0).round() / 100.0)
}

/// `VmRSS` and `VmHWM` of the gateway, in KiB; nothing where there is no `/proc`.
pub fn memory(gateway: &Gateway) -> Value {
    let status = fs::read_to_string(format!("/proc/{}/status", gateway.pid())).unwrap_or_default();
    let of = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim_start_matches(':').trim().split(' ').next()?.parse::<u64>().ok()
    };
    json!({"VmRSS": of("VmRSS"), "VmHWM": of("VmHWM")})
}

/// How busy this machine was towards the end: the one-minute load average, ours included.
pub fn load_average() -> Option<String> {
    let text = fs::read_to_string("/proc/loadavg").ok()?;
    text.split(' ').next().map(str::to_owned)
}
