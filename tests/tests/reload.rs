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

/// Generous: a new module is compiled, on a machine that may be busy. Nothing here depends on how long it takes.
const SOON: Duration = Duration::from_secs(20);
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
        let modules = tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o700)).tempdir().unwrap();
        let world = LocalWorld::start();
        let config = world
            .config(&["honest"], policies(modules.path()))
            .set(&["limits", "purchases-per-agent-per-minute"], 1_000_000)
            .set(&["limits", "unresolved-per-seller"], 1_000)
            .set(&["limits", "unresolved-per-payee"], 1_000)
            .set(&["limits", "unresolved-per-agent"], 1_000);
        Self { gateway: Gateway::start(config), world, modules, bought: AtomicU64::new(0) }
    }

    /// With one policy `p`, an allowlist from the file `p.wasm`, which is variant 1.
    fn with_one_module() -> Self {
        Self::start(|modules| {
            let file = modules.join("p.wasm");
            fs::write(&file, variant("vendor-allowlist", 1)).unwrap();
            vec![allowlist(&file)]
        })
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

/// `p`: the module at this path, set up as an allowlist of the local sellers.
fn allowlist(module: &Path) -> Policy {
    Policy::new("p", module.to_str().unwrap()).setting("hosts", vec!["127.0.0.1:*"])
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

#[test]
fn a_module_is_replaced_by_rename_and_in_place() {
    let lab = Lab::with_one_module();
    for number in 2..5 {
        let new = variant("vendor-allowlist", number);
        takes_over(&lab, "rename", &new, || rename_over(&lab.file(), &new));
    }
    for number in 5..8 {
        let new = variant("vendor-allowlist", number);
        takes_over(&lab, "in place", &new, || fs::write(lab.file(), &new).unwrap());
    }
    // Back to one that served before.
    let first = variant("vendor-allowlist", 1);
    takes_over(&lab, "rename, compiled before", &first, || rename_over(&lab.file(), &first));
}

/// As a ConfigMap is mounted: the file is a link through a link, and the inner one is swapped.
#[test]
fn a_module_is_replaced_by_a_swapped_link() {
    let publish = |modules: &Path, number: u32| {
        let folder = format!("..release-{number}");
        fs::create_dir(modules.join(&folder)).unwrap();
        fs::write(modules.join(&folder).join("p.wasm"), variant("vendor-allowlist", number)).unwrap();
        symlink(folder, modules.join("..data.next")).unwrap();
        fs::rename(modules.join("..data.next"), modules.join("..data")).unwrap();
    };
    let lab = Lab::start(|modules| {
        publish(modules, 1);
        symlink("..data/p.wasm", modules.join("p.wasm")).unwrap();
        vec![allowlist(&modules.join("p.wasm"))]
    });
    for number in 2..5 {
        let new = variant("vendor-allowlist", number);
        takes_over(&lab, "link", &new, || publish(lab.modules.path(), number));
        fs::remove_dir_all(lab.modules.path().join(format!("..release-{}", number - 1))).unwrap();
    }
}

#[test]
fn a_broken_module_leaves_the_last_good_one_serving() {
    let lab = Lab::with_one_module();
    let before = lab.status();
    let good = variant("vendor-allowlist", 1);

    rename_over(&lab.file(), GARBAGE);
    lab.last_good_serves(&before, "p", &[]);
    rename_over(&lab.file(), &good);
    lab.heals();

    // A program, but not a policy.
    let before = lab.status();
    rename_over(&lab.file(), b"\0asm\x01\0\0\0");
    lab.last_good_serves(&before, "p", &[]);

    // Half written, by somebody who takes his time; then whole.
    let new = variant("vendor-allowlist", 2);
    fs::write(lab.file(), &new[..new.len() / 2]).unwrap();
    thread::sleep(SETTLED);
    lab.last_good_serves(&before, "p", &[]);
    takes_over(&lab, "the other half", &new, || fs::write(lab.file(), &new).unwrap());

    // Empty, then gone, then back.
    let before = lab.status();
    fs::write(lab.file(), b"").unwrap();
    lab.last_good_serves(&before, "p", &[]);
    fs::remove_file(lab.file()).unwrap();
    lab.until("missed", |status| status["last_error"]["message"].as_str().is_some_and(|m| m.contains("p.wasm")));
    lab.last_good_serves(&before, "p", &["p.wasm"]);
    fs::write(lab.file(), &new).unwrap();
    lab.heals();
}

/// At the first start there is no last good one: what is broken denies, and says so, until it is repaired.
#[test]
fn a_broken_policy_at_the_first_start_denies_until_it_is_repaired() {
    for broken in [GARBAGE, b"", b"\0asm\x01\0\0\0"] {
        let lab = Lab::start(|modules| {
            fs::write(modules.join("p.wasm"), broken).unwrap();
            vec![allowlist(&modules.join("p.wasm"))]
        });
        let status = lab.status();
        assert_eq!(status["policies"][0]["name"], "p", "{status:#}");
        assert_eq!(status["policies"][0]["state"], "invalid", "{status:#}");
        assert_eq!(status["last_error"]["policy"], "p", "{status:#}");
        assert!(!status["last_error"]["stage"].as_str().unwrap().is_empty());
        assert!(!status["last_error"]["message"].as_str().unwrap().is_empty());
        let problem = lab.is_refused(&lab.gateway.agent(), 403, "policy-denied");
        assert_eq!(problem["reasons"][0]["code"], "policy-unavailable", "{problem}");
        assert_eq!(problem["policy"], "p", "{problem}");

        rename_over(&lab.file(), &variant("vendor-allowlist", 1));
        lab.until("repaired", |status| status["policies"][0]["state"] == "active");
        lab.heals();
    }
}

/// A path that leads nowhere is a mistake in the configuration, and is told before anything starts.
#[test]
fn a_missing_module_at_the_first_start_is_told_at_once() {
    let (status, said) = Gateway::refused(Config::new([allowlist(Path::new("nowhere/p.wasm"))]));
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("policy.p.module") && said.contains("nowhere/p.wasm"), "{said}");
}

/// One good and one broken edit in one file are one edit.
#[test]
fn an_edit_is_taken_whole_or_not_at_all() {
    let mut lab = Lab::with_one_module();
    let good = lab.gateway.config();
    let good_module = variant("vendor-allowlist", 1);
    // A new agent rides on every edit: it must not get in unless the edit does.
    let newcomer = "reload-test-token-of-a-newcomer-0123456789abcdef";
    let edits: [(&str, &str, &[&str], Edit); 6] = [
        ("wrong pin", "p", &[], |config| config.set(&["policy", "p", "sha256"], "ab".repeat(32))),
        ("settings of the wrong type", "p", &["hosts"], |config| config.set(&["policy", "p", "settings", "hosts"], 7)),
        ("settings the module refuses", "p", &["hots"], |config| {
            config.set(&["policy", "p", "settings", "hots"], vec!["127.0.0.1:*"])
        }),
        ("a second policy without a file", "q", &["nothing.wasm"], |config| {
            config.policy(Policy::new("q", "nothing.wasm"))
        }),
        ("an unknown key", "", &["unresolved-per-sellr", "unresolved-per-seller"], |config| {
            config.set(&["limits", "unresolved-per-sellr"], 3)
        }),
        ("a mandate with a policy there is not", "", &["nobody"], |config| {
            config.mandate(&["policies"], vec!["p", "nobody"])
        }),
    ];
    for (what, policy, words, edit) in edits {
        println!("{what}");
        let before = lab.status();
        lab.gateway.write_config(edit(good.clone()).agent("newcomer", newcomer));
        let status = lab.last_good_serves(&before, policy, words);
        if policy.is_empty() {
            assert_eq!(status["last_error"]["stage"], "config", "{what}");
        }
        lab.is_refused(&lab.gateway.agent_with(newcomer), 401, "unauthenticated");
        lab.gateway.write_config(good.clone());
        lab.heals();
    }
    // The right pin is no edit of behaviour, and is taken.
    lab.gateway
        .write_config(good.clone().set(&["policy", "p", "sha256"], sha256(&good_module)).agent("newcomer", newcomer));
    let arrives = || Some(lab.ask(&lab.gateway.agent_with(newcomer))).filter(|answer| answer.status == 200);
    assert!(wait_for(SOON, arrives).is_some(), "{:#}", lab.status());
    // And holds: a module that does not match it never serves.
    let before = lab.status();
    rename_over(&lab.file(), &variant("vendor-allowlist", 2));
    lab.last_good_serves(&before, "p", &[]);
    // Not TOML at all.
    rename_over(&lab.file(), &good_module);
    lab.heals();
    let before = lab.status();
    fs::write(lab.gateway.dir().join("countersign.toml"), "[gateway\nlisten = ").unwrap();
    lab.last_good_serves(&before, "", &[]);
    lab.gateway.write_config(good);
    lab.heals();
}

#[test]
fn what_cannot_change_while_running_needs_a_restart() {
    let mut lab = Lab::with_one_module();
    let good = lab.gateway.config();
    let newcomer = "reload-test-token-of-a-newcomer-0123456789abcdef";
    let edits: [(&str, Edit); 5] = [
        ("wallet.research.daily-limit", |config| config.set(&["wallet", "research", "daily-limit"], "2000.00")),
        ("wallet.research.networks", |config| {
            config.set(&["wallet", "research", "networks"], vec!["eip155:84532", "eip155:8453"])
        }),
        ("gateway.listen", |config| config.set(&["gateway", "listen"], "127.0.0.1:1")),
        ("gateway.currency", |config| config.set(&["gateway", "currency"], "EUR")),
        ("ledger.url", |config| config.set(&["ledger", "url"], "sqlite:other.db")),
    ];
    for (key, edit) in edits {
        let before = lab.status();
        lab.gateway.write_config(edit(good.clone()).agent("newcomer", newcomer));
        let status = lab.last_good_serves(&before, "", &[key]);
        assert_eq!(status["last_error"]["stage"], "needs-restart", "{key}");
        lab.is_refused(&lab.gateway.agent_with(newcomer), 401, "unauthenticated");
        lab.gateway.write_config(good.clone());
        lab.heals();
    }
    // After a restart it is what the file says.
    lab.gateway.write_config(good.set(&["wallet", "research", "daily-limit"], "2000.00").agent("newcomer", newcomer));
    lab.gateway.restart();
    assert_eq!(lab.ask(&lab.gateway.agent_with(newcomer)).status, 200);
    assert!(lab.status()["last_error"].is_null());
}

#[test]
fn agents_mandates_and_limits_change_while_it_runs() {
    let mut lab = Lab::with_one_module();
    let newcomer = "reload-test-token-of-a-newcomer-0123456789abcdef";
    let pid = lab.gateway.pid();
    let good = lab.gateway.config();
    let agent = lab.gateway.agent_with(newcomer);
    lab.is_refused(&agent, 401, "unauthenticated");

    // Comes, and goes.
    let with_newcomer = good.clone().agent("newcomer", newcomer);
    lab.gateway.write_config(with_newcomer.clone());
    let after = |status: u16, agent: &Client| wait_for(SOON, || Some(lab.ask(agent)).filter(|a| a.status == status));
    let bought = after(200, &agent).expect("the newcomer is let in");
    assert_eq!(agent.payment(bought.header("countersign-payment").unwrap())["agent"], "newcomer");
    lab.gateway.write_config(good.clone());
    let after = |status: u16, agent: &Client| wait_for(SOON, || Some(lab.ask(agent)).filter(|a| a.status == status));
    assert!(after(401, &agent).is_some(), "the newcomer is thrown out");
    lab.buy();

    // The mandate no longer covers it.
    lab.gateway.write_config(good.clone().mandate(&["when", "workspace"], "elsewhere"));
    let scout = lab.gateway.agent();
    let refused = wait_for(SOON, || Some(lab.ask(&scout)).filter(|answer| answer.status != 200)).expect("refused");
    assert_eq!((refused.status, refused.json()["code"].as_str()), (403, Some("no-mandate")), "{}", refused.text());
    lab.gateway.write_config(good.clone().mandate(&["when", "workspace"], "research"));
    assert!(wait_for(SOON, || Some(lab.ask(&scout)).filter(|answer| answer.status == 200)).is_some());
    lab.gateway.write_config(good.clone().mandate(&["doors"], vec!["mcp"]));
    let refused = wait_for(SOON, || Some(lab.ask(&scout)).filter(|answer| answer.status != 200)).expect("refused");
    assert_eq!((refused.status, refused.json()["code"].as_str()), (403, Some("no-mandate")), "{}", refused.text());

    // A budget appears with the money that was spent before it counted for nothing, and runs out.
    let budget = good
        .clone()
        .set(&["budget", "all", "when"], toml::Table::new())
        .set(&["budget", "all", "per"], "month")
        .set(&["budget", "all", "limit"], "0.003");
    lab.gateway.write_config(budget.clone());
    let refused = wait_for(SOON, || {
        Some(lab.ask(&scout)).filter(|answer| answer.status != 200 && answer.json()["code"] != "no-mandate")
    });
    let refused = refused.expect("the budget runs out").json();
    assert_eq!(refused["code"], "budget-exceeded", "{refused}");
    // Raised: it goes on, with what was spent still spent.
    lab.gateway.write_config(budget.set(&["budget", "all", "limit"], "0.005"));
    let mut bought = 0;
    let end = wait_for(SOON, || {
        let answer = lab.ask(&scout);
        bought += u32::from(answer.status == 200);
        (bought > 0 && answer.status != 200).then_some(answer)
    });
    assert_eq!(end.expect("runs out again").json()["code"], "budget-exceeded");
    assert_eq!(bought, 2);
    assert_eq!(lab.gateway.pid(), pid);
    assert!(lab.gateway.is_ready());
}

/// Between reading the configuration and watching it nothing may fall through.
#[test]
fn an_edit_made_while_it_starts_is_seen() {
    let mut lab = Lab::with_one_module();
    let good = lab.gateway.config();
    for (round, wait) in [0, 20, 50, 100, 200, 400, 700, 1000, 1500].into_iter().enumerate() {
        let token = format!("reload-test-token-of-number-{round}-0123456789abcdef0123");
        lab.gateway.spawn_again();
        thread::sleep(Duration::from_millis(wait));
        lab.gateway.write_config(good.clone().agent("newcomer", &token));
        assert!(wait_for(SOON, || lab.gateway.is_ready().then_some(())).is_some(), "not ready");
        let agent = lab.gateway.agent_with(&token);
        let ready = Instant::now();
        let let_in = wait_for(SOON, || Some(lab.ask(&agent)).filter(|answer| answer.status == 200));
        assert!(let_in.is_some(), "an edit {wait} ms after the start is not seen: {:#}", lab.status());
        println!("{wait} ms after the start: in force {} ms after it was ready", ready.elapsed().as_millis());
    }
}

/// As deployments do it: the whole folder is swapped. Later edits in the new one are seen as in the old one.
#[test]
fn a_replaced_folder_is_watched_again() {
    let publish = |modules: &Path, number: u32| {
        let next = modules.join("next");
        fs::create_dir(&next).unwrap();
        fs::write(next.join("p.wasm"), variant("vendor-allowlist", number)).unwrap();
        if modules.join("live").exists() {
            fs::rename(modules.join("live"), modules.join(format!("before-{number}"))).unwrap();
        }
        fs::rename(next, modules.join("live")).unwrap();
    };
    let lab = Lab::start(|modules| {
        publish(modules, 1);
        vec![allowlist(&modules.join("live/p.wasm"))]
    });
    let second = variant("vendor-allowlist", 2);
    takes_over(&lab, "another folder", &second, || publish(lab.modules.path(), 2));
    let third = variant("vendor-allowlist", 3);
    takes_over(&lab, "rename in it", &third, || rename_over(&lab.modules.path().join("live/p.wasm"), &third));
}

/// Taking away is never held up by an unrelated mistake in the same file.
#[test]
fn a_removed_agent_is_out_even_if_the_edit_is_refused() {
    let removed = "reload-test-token-of-somebody-0123456789abcdef012";
    let edits: [(&str, Edit); 3] = [
        ("a wallet", |config| config.set(&["wallet", "research", "daily-limit"], "2000.00")),
        ("settings", |config| config.set(&["policy", "p", "settings", "hosts"], 7)),
        ("a pin", |config| config.set(&["policy", "p", "sha256"], "ab".repeat(32))),
    ];
    let mut lab = Lab::with_one_module();
    let good = lab.gateway.config();
    for (what, edit) in edits {
        lab.gateway.write_config(good.clone().agent("somebody", removed));
        let agent = lab.gateway.agent_with(removed);
        assert!(wait_for(SOON, || Some(lab.ask(&agent)).filter(|a| a.status == 200)).is_some(), "{what}");
        lab.gateway.write_config(edit(good.clone()));
        assert!(wait_for(SOON, || Some(lab.ask(&agent)).filter(|a| a.status == 401)).is_some(), "{what}: still in");
        // The others go on, and the mistake is told.
        lab.buy();
        let status = lab.until("told", |status| !status["last_error"].is_null());
        assert!(!status["last_error"]["stage"].as_str().unwrap().is_empty(), "{what}");
        lab.gateway.write_config(good.clone());
        lab.heals();
    }
}

/// What one decision says it was made by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct MadeBy {
    generation: u64,
    modules: Vec<String>,
    settings: Vec<String>,
}

/// Half a hundred swaps under eight clients: none fails because of a swap, none is judged by a mixture.
#[test]
fn swaps_under_load_are_whole_and_nobody_notices() {
    const SWAPS: u32 = 50;
    const VARIANTS: u32 = 4;
    const CLIENTS: usize = 8;
    let policies = |modules: &Path, k: u32| {
        let file = |name: &str| modules.join(format!("{name}-{k}.wasm")).to_str().unwrap().to_owned();
        let allow =
            Policy::new("allow", &file("allow")).setting("hosts", vec!["127.0.0.1:*".to_owned(), format!("h{k}.test")]);
        let caps = Policy::new("caps", &file("caps")).setting("per-payment", format!("{}.00", k + 1));
        [allow, caps.setting("per-agent-hour", "900000.00").setting("timezone", "UTC")]
    };
    let mut lab = Lab::start(|modules| {
        for k in 0..VARIANTS {
            fs::write(modules.join(format!("allow-{k}.wasm")), variant("vendor-allowlist", k)).unwrap();
            fs::write(modules.join(format!("caps-{k}.wasm")), variant("spend-caps", k)).unwrap();
        }
        policies(modules, 0).to_vec()
    });
    let digests = |k: u32| [variant("vendor-allowlist", k), variant("spend-caps", k)].map(|module| sha256(&module));
    let config = |k: u32| {
        let [allow, caps] = policies(lab.modules.path(), k);
        let bare = lab.gateway.config().remove(&["policy", "allow"]).remove(&["policy", "caps"]);
        bare.mandate(&["policies"], Vec::<String>::new()).policy(allow).policy(caps)
    };
    let configs: Vec<Config> = (0..VARIANTS).map(config).collect();
    let by_name = |policies: &Value, key: &str| {
        let mut named: Vec<_> = policies
            .as_array()
            .unwrap()
            .iter()
            .map(|p| (p["name"].as_str().unwrap(), p[key].as_str().unwrap()))
            .collect();
        named.sort_unstable();
        named.into_iter().map(|(_, digest)| digest.to_owned()).collect::<Vec<_>>()
    };

    let stop = AtomicBool::new(false);
    let (failed, decisions) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    let agent = lab.gateway.agent();
    let seller = lab.world.world().seller("honest").unwrap().url("/quote");
    let operator = lab.gateway.operator();
    let mut slowest = Duration::ZERO;
    let mut generations: BTreeMap<u64, u32> = BTreeMap::new();
    let gateway = &mut lab.gateway;
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (stop, failed, decisions, agent, seller) = (&stop, &failed, &decisions, &agent, &seller);
            scope.spawn(move || {
                let mut last = 0;
                for n in 0_u64.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let answer = agent.fetch(&format!("{seller}?client={client}&n={n}"), json!({}));
                    let payment = answer.header("countersign-payment").filter(|_| answer.status == 200);
                    let Some(payment) = payment else {
                        failed.lock().unwrap().push(format!("{} {}", answer.status, answer.text()));
                        continue;
                    };
                    let decision = agent.payment(payment)["decision"].clone();
                    let made_by = MadeBy {
                        generation: decision["generation"].as_u64().unwrap(),
                        modules: by_name(&decision["policies"], "module_sha256"),
                        settings: by_name(&decision["policies"], "settings_sha256"),
                    };
                    // A later call is never judged by an earlier generation.
                    if made_by.generation < last {
                        failed.lock().unwrap().push(format!("generation {} after {last}", made_by.generation));
                    }
                    last = made_by.generation;
                    decisions.lock().unwrap().push(made_by);
                }
            });
        }
        let swapped = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for swap in 1..=SWAPS {
                let k = swap % VARIANTS;
                let saved = Instant::now();
                gateway.write_config(configs[usize::try_from(k).unwrap()].clone());
                let wanted = digests(k);
                let active = wait_for(SOON, || {
                    let status = operator.get("/v1/policies").json();
                    (by_name(&status["policies"], "module_sha256") == wanted).then_some(status)
                });
                let status = active.unwrap_or_else(|| panic!("swap {swap}: {:#}", operator.get("/v1/policies").json()));
                assert!(status["last_error"].is_null(), "{status:#}");
                let generation = status["generation"].as_u64().unwrap();
                assert!(generations.insert(generation, k).is_none_or(|was| was == k), "generation {generation} twice");
                slowest = slowest.max(saved.elapsed());
            }
        }));
        stop.store(true, Ordering::Relaxed);
        swapped.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    let (failed, decisions) = (failed.into_inner().unwrap(), decisions.into_inner().unwrap());
    println!(
        "{SWAPS} swaps, {} purchases, {} generations seen deciding; slowest swap {} ms",
        decisions.len(),
        decisions.iter().map(|d| d.generation).collect::<BTreeSet<_>>().len(),
        slowest.as_millis()
    );
    assert!(failed.is_empty(), "{} failed because of a swap: {:#?}", failed.len(), &failed[..failed.len().min(5)]);
    let mut of_generation: BTreeMap<u64, &MadeBy> = BTreeMap::new();
    for decision in &decisions {
        let k = (0..VARIANTS).find(|k| decision.modules == digests(*k));
        assert!(k.is_some(), "a mixture: {decision:?}");
        let first = of_generation.entry(decision.generation).or_insert(decision);
        assert_eq!(*first, decision, "one generation, two sets");
        if let Some(known) = generations.get(&decision.generation) {
            assert_eq!(Some(*known), k);
        }
    }
    // Settings belong to their modules too.
    let sets: BTreeSet<_> = decisions.iter().map(|d| (&d.modules, &d.settings)).collect();
    let modules: BTreeSet<_> = decisions.iter().map(|d| &d.modules).collect();
    assert_eq!(sets.len(), modules.len(), "settings of one variant with modules of another");
    assert!(of_generation.len() > 10, "the swaps were not under load: {} generations decided", of_generation.len());
}
