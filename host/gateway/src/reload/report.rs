//! How reloading looks from outside.

use countersign_core::generation::{Generation, Origin};
use countersign_core::ledger::LedgerError;
use countersign_engine::{PolicyStatus, StartedFrom};
use serde_json::{Value, json};

use super::Reloader;
use super::adopt::drifts;

impl Reloader {
    /// `GET /v1/policies`.
    #[must_use]
    pub fn report(&self) -> Value {
        let state = self.state();
        let live = self.gateway.live.load_full();
        let last_error = state
            .last_error
            .as_ref()
            .map(|(at, e)| json!({"at": at.to_string(), "stage": e.stage, "policy": e.policy, "message": e.message}));
        let put = |name: &str| state.record.policies.iter().any(|p| p.name == name && p.stands_for.is_some());
        let mut policies: Vec<Value> = live.policies.status().iter().map(|p| policy(p, put(&p.name))).collect();
        for (name, message) in &state.unreadable {
            policies.push(json!({"name": name, "state": "invalid", "error": message}));
        }
        let record = &state.record;
        let differs = match state.base {
            Some(_) => drifts(&state),
            None => record.overrides_files() || record.origin == Origin::Restart,
        };
        json!({
            "generation": record.number,
            "activated_at": record.at.to_string(),
            "origin": record.origin,
            "by": record.by,
            "restores": record.restores,
            "config_drift": last_error.is_some() || differs,
            "last_error": last_error,
            "policies": policies,
        })
    }

    /// `GET /v1/policies/generations`: newest first.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn generations(&self, before: Option<u64>, limit: u32) -> Result<Value, LedgerError> {
        let live = self.state().record.number;
        let found = self.gateway.ledger.generations(before, limit).await?;
        let full = u32::try_from(found.len()).unwrap_or(u32::MAX) >= limit;
        let next = found.last().filter(|g| full && g.number > 1).map(|g| g.number.to_string());
        let items: Vec<Value> = found.iter().map(|g| generation(g, live)).collect();
        Ok(json!({"items": items, "next": next}))
    }
}

fn policy(status: &PolicyStatus, overrides_file: bool) -> Value {
    json!({
        "name": status.name,
        "state": status.state.code(),
        "version": status.version,
        "module_sha256": status.module_sha256,
        "settings_sha256": status.settings_sha256,
        "mode": status.mode,
        "overrides_file": overrides_file,
        "imports": status.imports,
        "start": status.started_from.as_ref().map(StartedFrom::code),
        "no_snapshot": match &status.started_from {
            Some(StartedFrom::Module(why)) => Some(why),
            _ => None,
        },
        "ready": status.ready,
        "decisions": status.decisions,
        "p50_us": status.p50_us,
        "p99_us": status.p99_us,
        "error": status.error.as_ref().map(ToString::to_string),
    })
}

fn generation(g: &Generation, live: u64) -> Value {
    let policies: Vec<Value> = g
        .policies
        .iter()
        .map(|p| {
            json!({"name": p.name, "module_sha256": p.module_sha256, "settings_sha256": p.settings_sha256,
                "mode": p.mode, "deadline_ms": p.deadline_ms, "claims": p.claims, "tell_agent": p.tell_agent,
                "sha256": p.sha256_pin, "overrides_file": p.stands_for.is_some()})
        })
        .collect();
    json!({
        "generation": g.number,
        "activated_at": g.at.to_string(),
        "origin": g.origin,
        "by": g.by,
        "restores": g.restores,
        "live": g.number == live,
        "whole": g.whole,
        "config_sha256": Some(&g.config_sha256).filter(|d| !d.is_empty()),
        "policies": policies,
        "mandates": g.mandates,
        "mandates_override_file": g.mandates_stand_for.is_some(),
    })
}
