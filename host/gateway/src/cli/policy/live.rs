//! The policies of the running gateway.

use http::Method;
use serde_json::json;

use crate::cli::admin::Client;
use crate::cli::listing::{column, print};
use crate::cli::{Outcome, Remote, say};
use crate::config::Environment;

pub(super) async fn list(remote: &Remote, environment: &Environment) -> Outcome {
    let answer = Client::new(remote, environment)?.must(Method::GET, "/v1/policies", None).await?;
    if remote.listing.json {
        say(format_args!("{answer:#}"));
        return Ok(());
    }
    let text = |pointer: &str| {
        answer.pointer(pointer).map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned)).unwrap_or_default()
    };
    say(format_args!("generation {} since {}", text("/generation"), text("/activated_at")));
    if answer.get("last_error").is_some_and(|e| !e.is_null()) {
        say(format_args!(
            "last error: {} {}: {}",
            text("/last_error/stage"),
            text("/last_error/policy"),
            text("/last_error/message")
        ));
    }
    let columns = [
        column("NAME", "/name"),
        column("STATE", "/state"),
        column("VERSION", "/version"),
        column("MODE", "/mode"),
        column("DECISIONS", "/decisions"),
        column("P50 us", "/p50_us"),
        column("P99 us", "/p99_us"),
        column("MODULE", "/module_sha256"),
    ];
    print(false, &json!({"items": answer.get("policies")}), &columns);
    Ok(())
}
