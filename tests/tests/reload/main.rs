//! Policies, mandates and agents change under the running process: at once, together or not at all, and no purchase
//! notices more than the new rule.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test: whatever is not as expected must fail it loudly"
)]
#![expect(clippy::disallowed_methods, reason = "real processes take real time")]

use countersign_tests::{
    agent::Client,
    config::{Config, Policy},
    http::Response,
    modules::{sha256, variant},
    process::Gateway,
    wait_for,
    world::LocalWorld,
};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};
use tempfile::TempDir;

#[cfg(test)]
mod files;
#[cfg(test)]
mod load;
#[cfg(test)]
mod operator;
#[cfg(test)]
mod restart;
#[cfg(test)]
mod saves;
#[cfg(test)]
mod tighten;

/// Generous: a new module is compiled, on a machine that may be busy. Nothing here depends on how long it takes.
const SOON: Duration = Duration::from_secs(60);
/// Longer than the gateway waits after an event, so that it looks at what is there meanwhile.
const SETTLED: Duration = Duration::from_millis(600);
/// What no compiler takes for a module.
const GARBAGE: &[u8] = b"\0asm\r\0\x01\0 and then nothing that makes sense";

/// A change to a configuration.
type Edit = fn(Config) -> Config;

/// A world with an honest seller, a gateway, and a folder for modules.
struct Lab {
    gateway: Gateway,
    world: LocalWorld,
    modules: TempDir,
    bought: AtomicU64,
}

impl Lab {
    /// Starts with the policies that `policies` makes of the folder for modules.
    fn start(policies: impl FnOnce(&Path) -> Vec<Policy>) -> Self {
        Self::start_with(policies, |config| config)
    }

    /// As [`Lab::with_one_module`], with the configuration changed first.
    fn with_config(change: impl FnOnce(Config) -> Config) -> Self {
        Self::start_with(one_module, change)
    }

    fn start_with(policies: impl FnOnce(&Path) -> Vec<Policy>, change: impl FnOnce(Config) -> Config) -> Self {
        let modules = tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o700)).tempdir().unwrap();
        let world = LocalWorld::start();
        let config = world
            .config(&["honest"], policies(modules.path()))
            .set(&["limits", "purchases-per-agent-per-minute"], 1_000_000)
            .set(&["limits", "unresolved-per-seller"], 1_000)
            .set(&["limits", "unresolved-per-payee"], 1_000)
            .set(&["limits", "unresolved-per-agent"], 1_000);
        Self { gateway: Gateway::start(change(config)), world, modules, bought: AtomicU64::new(0) }
    }

    /// With one policy `p`, an allowlist from the file `p.wasm`, which is variant 1.
    fn with_one_module() -> Self {
        Self::start(one_module)
    }

    fn file(&self) -> PathBuf {
        self.modules.path().join("p.wasm")
    }

    fn seller(&self) -> String {
        let n = self.bought.fetch_add(1, Ordering::Relaxed);
        self.world.world().seller("honest").unwrap().url(&format!("/quote?n={n}"))
    }

    fn ask(&self, agent: &Client) -> Response {
        agent.fetch(&self.seller(), json!({}))
    }

    /// Buys something, which must be allowed; returns the payment.
    #[track_caller]
    fn buy(&self) -> Value {
        let agent = self.gateway.agent();
        let answer = self.ask(&agent);
        assert_eq!(answer.status, 200, "{}", answer.text());
        agent.payment(answer.header("countersign-payment").unwrap())
    }

    /// Is refused, with this status and code.
    #[track_caller]
    fn is_refused(&self, agent: &Client, status: u16, code: &str) -> Value {
        let answer = self.ask(agent);
        assert_eq!((answer.status, answer.json()["code"].as_str()), (status, Some(code)), "{}", answer.text());
        answer.json()
    }

    /// `GET /v1/policies`.
    fn status(&self) -> Value {
        let answer = self.gateway.operator().get("/v1/policies");
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    }

    fn generation(&self) -> u64 {
        self.status()["generation"].as_u64().unwrap()
    }

    /// Waits for a status like that.
    #[track_caller]
    fn until(&self, what: &str, like: impl Fn(&Value) -> bool) -> Value {
        let found = wait_for(SOON, || Some(self.status()).filter(|status| like(status)));
        found.unwrap_or_else(|| panic!("never {what}: {:#}", self.status()))
    }

    /// The digest of the module that serves as `p`.
    fn serving(&self) -> String {
        self.status()["policies"][0]["module_sha256"].as_str().unwrap().to_owned()
    }

    /// Saves a variant of the allowlist as `p.wasm` and waits until it serves; answers the generation.
    #[track_caller]
    fn save(&self, number: u32) -> u64 {
        let new = variant("vendor-allowlist", number);
        rename_over(&self.file(), &new);
        let digest = sha256(&new);
        self.until("saved", |status| status["policies"][0]["module_sha256"] == digest.as_str())["generation"]
            .as_u64()
            .unwrap()
    }

    /// Writes a configuration and waits until a newer generation serves without an error.
    #[track_caller]
    fn edit(&mut self, config: Config) -> Value {
        let before = self.generation();
        self.gateway.write_config(config);
        self.until("edited", |status| status["generation"].as_u64().unwrap() > before && status["last_error"].is_null())
    }

    /// Every generation there was, newest first.
    fn generations(&self) -> Vec<Value> {
        let answer = self.gateway.operator().get("/v1/policies/generations?limit=500");
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()["items"].as_array().unwrap().clone()
    }

    /// Waits until an agent that was taken away is out.
    #[track_caller]
    fn is_out(&self, agent: &Client) {
        let out = wait_for(SOON, || Some(self.ask(agent)).filter(|answer| answer.status == 401));
        assert!(out.is_some(), "still in: {:#}", self.status());
    }

    /// Waits until an agent that was added is in.
    #[track_caller]
    fn is_in(&self, agent: &Client) {
        let arrived = wait_for(SOON, || Some(self.ask(agent)).filter(|answer| answer.status == 200));
        assert!(arrived.is_some(), "still out: {:#}", self.status());
    }

    /// After an edit that cannot be activated: status says why, the old generation serves.
    #[track_caller]
    fn last_good_serves(&self, before: &Value, policy: &str, words: &[&str]) -> Value {
        let status = self.until("refused", |status| !status["last_error"].is_null());
        let error = &status["last_error"];
        assert_eq!(error["policy"], policy, "{error}");
        assert!(!error["stage"].as_str().unwrap().is_empty(), "{error}");
        assert!(error["at"].as_str().unwrap().ends_with('Z'), "{error}");
        let message = error["message"].as_str().unwrap();
        for word in words {
            assert!(message.contains(word), "{word:?} is not in {message:?}");
        }
        assert_eq!(status["generation"], before["generation"], "{status:#}");
        assert_eq!(status["policies"][0]["state"], "active");
        for (now, then) in status["policies"].as_array().unwrap().iter().zip(before["policies"].as_array().unwrap()) {
            assert_eq!(now["module_sha256"], then["module_sha256"]);
            assert_eq!(now["settings_sha256"], then["settings_sha256"]);
        }
        let payment = self.buy();
        assert_eq!(payment["decision"]["generation"], before["generation"]);
        assert_eq!(payment["decision"]["policies"][0]["module_sha256"], before["policies"][0]["module_sha256"]);
        status
    }

    /// What was wrong was put right: nothing is wrong any more, and it serves.
    #[track_caller]
    fn heals(&self) {
        self.until("healed", |status| status["last_error"].is_null());
        self.buy();
    }
}

/// A token of somebody who comes and goes.
const RIVAL: &str = "reload-test-token-of-a-rival-0123456789abcdef012";

/// The number of a generation.
fn number(generation: &Value) -> u64 {
    generation["generation"].as_u64().unwrap()
}

/// `p`: the module at this path, set up as an allowlist of the local sellers.
fn allowlist(module: &Path) -> Policy {
    Policy::new("p", module.to_str().unwrap()).setting("hosts", vec!["127.0.0.1:*"])
}

fn one_module(modules: &Path) -> Vec<Policy> {
    let file = modules.join("p.wasm");
    fs::write(&file, variant("vendor-allowlist", 1)).unwrap();
    vec![allowlist(&file)]
}

/// Writes beside the file and renames over it, as careful tools do.
fn rename_over(file: &Path, bytes: &[u8]) {
    let next = file.with_extension("next");
    fs::write(&next, bytes).unwrap();
    fs::rename(next, file).unwrap();
}

/// Makes `change` and buys until the new module decides; every decision before is the old one's. Prints how long it took.
#[track_caller]
fn takes_over(lab: &Lab, how: &str, new: &[u8], change: impl FnOnce()) {
    let old = lab.status()["policies"][0]["module_sha256"].as_str().unwrap().to_owned();
    let before = lab.generation();
    let new = sha256(new);
    assert_ne!(old, new);
    let saved = Instant::now();
    change();
    let mut decisions = 0;
    loop {
        let decision = lab.buy()["decision"].clone();
        decisions += 1;
        let [policy] = decision["policies"].as_array().unwrap().as_slice() else { panic!("{decision}") };
        let generation = decision["generation"].as_u64().unwrap();
        if policy["module_sha256"] == new.as_str() {
            assert!(generation > before, "{decision}");
            break;
        }
        assert_eq!(policy["module_sha256"], old.as_str());
        assert_eq!(generation, before, "{decision}");
        assert!(saved.elapsed() < SOON, "{how}: still the old module after {decisions} decisions: {:#}", lab.status());
    }
    println!("{how}: {} ms from saving the module to the first decision by it", saved.elapsed().as_millis());
    let status = lab.until("without an error", |status| status["last_error"].is_null());
    assert_eq!(status["policies"][0]["module_sha256"], new.as_str());
    assert_eq!(status["policies"][0]["state"], "active");
    assert_eq!(status["origin"], "file");
    assert_eq!(status["config_drift"], false);
}
