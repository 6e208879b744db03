//! Swaps under load.

use super::*;

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
    let of_variant = |k: u32| [variant("vendor-allowlist", k), variant("spend-caps", k)].map(|module| sha256(&module));
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
                let wanted = of_variant(k);
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
        let k = (0..VARIANTS).find(|k| decision.modules == of_variant(*k));
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

/// Resident memory of the gateway, in KiB.
fn resident(lab: &Lab) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", lab.gateway.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// A thousand swaps between two generations, as fast as they go, under four clients: none fails, none is judged by a
/// mixture, and nothing of a set that went stays behind.
#[test]
fn a_thousand_swaps_fail_nobody_and_leak_nothing() {
    const SWAPS: u64 = 1_000;
    const CLIENTS: usize = 4;
    /// Far above what a swap leaves in the ledger's caches, far below a module for each of them.
    const GROWTH_KIB: u64 = 64 << 10;
    let pair = |modules: &Path, k: u32| {
        ["a", "b"].map(|name| {
            let file = modules.join(format!("{name}{k}.wasm"));
            fs::write(&file, variant("vendor-allowlist", k)).unwrap();
            let hosts = vec!["127.0.0.1:*".to_owned(), format!("h{k}.test")];
            Policy::new(name, file.to_str().unwrap()).setting("hosts", hosts)
        })
    };
    let mut lab = Lab::start(|modules| pair(modules, 1).to_vec());
    let bare = lab.gateway.config().remove(&["policy", "a"]).remove(&["policy", "b"]);
    let second =
        pair(lab.modules.path(), 2).into_iter().fold(bare.mandate(&["policies"], Vec::<String>::new()), Config::policy);
    assert_eq!(number(&lab.edit(second)), 2);

    let operator = lab.gateway.operator();
    let stop = AtomicBool::new(false);
    let (failed, decisions) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    let (mut at_first, mut took) = (0, Duration::ZERO);
    let mut slowest = Duration::ZERO;
    let (agent, seller) = (lab.gateway.agent(), lab.world.world().seller("honest").unwrap().url("/quote"));
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (stop, failed, decisions, agent, seller) = (&stop, &failed, &decisions, &agent, &seller);
            scope.spawn(move || {
                for n in 0_u64.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let answer = agent.fetch(&format!("{seller}?client={client}&n={n}"), json!({}));
                    match answer.header("countersign-payment").filter(|_| answer.status == 200) {
                        Some(payment) => decisions.lock().unwrap().push(payment.to_owned()),
                        None => failed.lock().unwrap().push(format!("{} {}", answer.status, answer.text())),
                    }
                }
            });
        }
        let swapped = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let began = Instant::now();
            for swap in 0..SWAPS {
                if swap == SWAPS / 10 {
                    at_first = resident(&lab);
                }
                let one = Instant::now();
                let answer = operator.post("/v1/policies/rollback", &json!({"to": swap % 2 + 1}));
                slowest = slowest.max(one.elapsed());
                assert_eq!(answer.status, 200, "{}", answer.text());
                assert_eq!(number(&answer.json()), swap + 3);
            }
            took = began.elapsed();
        }));
        stop.store(true, Ordering::Relaxed);
        swapped.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    let at_last = resident(&lab);
    let (failed, payments) = (failed.into_inner().unwrap(), decisions.into_inner().unwrap());
    assert!(failed.is_empty(), "{} failed because of a swap: {:#?}", failed.len(), &failed[..failed.len().min(5)]);

    // What each generation is, by the ledger; what each decision was made by, by the decision.
    let mut generations = BTreeMap::new();
    let mut cursor = None;
    loop {
        let before = cursor.map_or_else(String::new, |before| format!("&before={before}"));
        let page = operator.get(&format!("/v1/policies/generations?limit=500{before}")).json();
        for generation in page["items"].as_array().unwrap() {
            generations.insert(number(generation), digests(&generation["policies"]));
        }
        match page["next"].as_str() {
            Some(next) => cursor = Some(next.to_owned()),
            None => break,
        }
    }
    assert_eq!(generations.len() as u64, SWAPS + 2);
    let mut seen = BTreeSet::new();
    for payment in &payments {
        let decision = agent.payment(payment)["decision"].clone();
        let by = number(&decision);
        assert_eq!(generations[&by], digests(&decision["policies"]), "a mixture: {decision}");
        seen.insert(by);
    }
    println!(
        "{SWAPS} swaps in {} ms (slowest {} ms), {} purchases by {} generations; {} KiB resident after the first tenth, {} at last",
        took.as_millis(),
        slowest.as_millis(),
        payments.len(),
        seen.len(),
        at_first,
        at_last
    );
    assert!(seen.len() > 50, "the swaps were not under load: {} generations decided", seen.len());
    assert!(at_last < at_first + GROWTH_KIB, "it grew from {at_first} to {at_last} KiB");
}

/// Name, module and settings of each policy.
fn digests(policies: &Value) -> Vec<[String; 3]> {
    let text = |policy: &Value, key: &str| policy[key].as_str().unwrap().to_owned();
    let policies = policies.as_array().unwrap().iter();
    policies.map(|p| ["name", "module_sha256", "settings_sha256"].map(|key| text(p, key))).collect()
}
