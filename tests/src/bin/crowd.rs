//! Many agents at once, for long: `crowd [AGENTS] [SECONDS]`, 2,000 and 600 unless told. Prints one line of JSON; what it is
//! doing goes to standard error.
//!
//! Every agent has a token and a connection of its own, buys, thinks, and buys again, at one of four sellers: one that
//! gives away, one that sells, one that asks more than policies allow, one that sends a byte a second. In the end the
//! gateway is asked to stop while all of them are busy, and started again: whatever an agent was told is paid must be in
//! the ledger and, in the end, on the chain, and nothing else.
//!
//! Then the same agents without thinking, against a gateway that takes 256 calls at a time and against as many agents as
//! that: being told to come back must cost little.
//!
//! Agents, gateway, sellers and chain share this machine.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a measurement that does not work must fail loudly")]
#![expect(clippy::disallowed_methods, reason = "it measures real time")]

use countersign_tests::{
    config::{Config, Policy},
    measure::{load_average, memory, quantile, rounded, unlimited},
    process::Gateway,
    wait_for,
    world::LocalWorld,
};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// Seller of single bytes.
const SLOW: &str = "slow-body";
/// Mean pause of an agent between two calls.
const THINKS: Duration = Duration::from_secs(10);
/// Calls that the small gateway takes at a time.
const SMALL: usize = 256;

fn main() {
    let mut arguments = std::env::args().skip(1).map(|text| text.parse::<usize>().expect("a number"));
    let (agents, seconds) = (arguments.next().unwrap_or(2_000), arguments.next().unwrap_or(600));
    let files = rustix::process::Resource::Nofile;
    let most = rustix::process::getrlimit(files);
    rustix::process::setrlimit(files, rustix::process::Rlimit { current: most.maximum, ..most }).unwrap();
    let long = Duration::from_secs(u64::try_from(seconds).unwrap());
    let steady = steady(agents, long);
    let beyond = beyond(agents, long.min(Duration::from_secs(30)));
    println!("{}", json!({"agents": agents, "steady": steady, "beyond": beyond, "load_average": load_average()}));
}

fn token(agent: usize) -> String {
    format!("test-token-of-agent-{agent:06}-0123456789abcdef")
}

fn crowded(world: &LocalWorld, agents: usize) -> Config {
    let caps =
        Policy::new("caps", "builtin:spend-caps").setting("per-payment", "1.00").setting("per-agent-hour", "9000.00");
    let config = unlimited(world.config(&["honest", SLOW], [Policy::vendors(), caps]));
    (0..agents).fold(config, |config, n| config.agent(&format!("agent-{n}"), &token(n)))
}

/// What agents were told.
#[derive(Default)]
struct Told {
    /// By kind of call: how long each took.
    times: Mutex<BTreeMap<&'static str, Vec<Duration>>>,
    /// Payments of calls that were answered whole.
    paid: Mutex<Vec<String>>,
    /// Answers that nobody expects, with how often.
    wrong: Mutex<BTreeMap<String, u64>>,
    /// How often somebody was told to come back.
    turned_away: AtomicU64,
    /// Calls that broke off after the gateway was asked to stop.
    broken: AtomicU64,
    stopping: AtomicBool,
}

struct Agent<'a> {
    number: usize,
    gateway: &'a str,
    seller: &'a str,
    slow: &'a str,
    told: &'a Told,
    http: ureq::Agent,
    token: String,
    random: u64,
}

impl<'a> Agent<'a> {
    fn new(number: usize, gateway: &'a str, [seller, slow]: [&'a str; 2], told: &'a Told) -> Self {
        let http = ureq::Agent::config_builder().http_status_as_error(false).proxy(None).build().new_agent();
        let random = u64::try_from(number).unwrap().wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        Self { number, gateway, seller, slow, told, http, token: format!("Bearer {}", token(number)), random }
    }

    /// The next of the same numbers in each run (xorshift), below `most`.
    fn next(&mut self, most: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % most
    }

    /// One call; false if the gateway is gone.
    fn call(&mut self, kind: &'static str) -> bool {
        let round = self.next(u64::MAX);
        let url = match kind {
            "free" => format!("{}/free?n={round}", self.seller),
            "denied" => format!("{}/report?n={round}", self.seller),
            "slow" => format!("{}/quote?n={round}", self.slow),
            _ => format!("{}/quote?n={round}", self.seller),
        };
        // Named, so that a repeat after being turned away is the same purchase.
        let order = json!({"url": url, "purchase_id": format!("p-{}-{round}", self.number)}).to_string();
        loop {
            let start = Instant::now();
            let answer = self
                .http
                .post(format!("{}/v1/fetch", self.gateway))
                .header("authorization", &self.token)
                .header("content-type", "application/json")
                .send(&order);
            let read = answer.map(|mut answer| {
                let header = |name: &str| answer.headers().get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
                let (payment, again) = (header("countersign-payment"), header("retry-after"));
                (answer.status().as_u16(), payment, again, answer.body_mut().read_to_string())
            });
            match (kind, read) {
                (_, Ok((429 | 503, _, Some(_), _))) => {
                    self.told.turned_away.fetch_add(1, Ordering::Relaxed);
                    thread::sleep(Duration::from_millis(500 + self.next(1_000)));
                    if self.told.stopping.load(Ordering::Relaxed) {
                        return true;
                    }
                    continue;
                }
                ("free", Ok((200, None, _, Ok(_)))) => {}
                ("denied", Ok((403, _, _, Ok(body)))) if body.contains("policy-denied") => {}
                ("paid" | "slow", Ok((200, Some(payment), _, Ok(_)))) => self.told.paid.lock().unwrap().push(payment),
                (_, Err(_) | Ok((_, _, _, Err(_)))) if self.told.stopping.load(Ordering::Relaxed) => {
                    self.told.broken.fetch_add(1, Ordering::Relaxed);
                    return false;
                }
                (_, other) => {
                    let what = match other {
                        Ok((status, _, _, body)) => format!("{kind}: {status} {body:?}"),
                        Err(error) => format!("{kind}: {error}"),
                    };
                    // Ids and times differ; the first words say enough.
                    *self.told.wrong.lock().unwrap().entry(what.chars().take(160).collect()).or_default() += 1;
                }
            }
            self.told.times.lock().unwrap().entry(kind).or_default().push(start.elapsed());
            return true;
        }
    }

    fn live(mut self) {
        // Not all in the same moment.
        thread::sleep(THINKS.mul_f64(self.number as f64 % 997.0 / 997.0));
        while !self.told.stopping.load(Ordering::Relaxed) {
            // A slow answer takes four minutes: with one in a hundred, a fifth of all agents waits for one at any time.
            let kind = match self.next(100) {
                0 => "slow",
                1..=60 => "paid",
                61..=80 => "free",
                _ => "denied",
            };
            if !self.call(kind) {
                return;
            }
            let pause = THINKS.mul_f64(self.next(2_000) as f64 / 1_000.0);
            let until = Instant::now() + pause;
            while Instant::now() < until && !self.told.stopping.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_millis(100));
            }
        }
    }
}

fn spawned<'s, 'e>(scope: &'s thread::Scope<'s, 'e>, run: impl FnOnce() + Send + 's) {
    thread::Builder::new().stack_size(256 << 10).spawn_scoped(scope, run).unwrap();
}

fn steady(agents: usize, long: Duration) -> Value {
    let world = LocalWorld::start();
    let mut gateway = Gateway::start(crowded(&world, agents));
    let (seller, slow) = (world.world().seller("honest").unwrap().url(""), world.world().seller(SLOW).unwrap().url(""));
    let (told, url) = (Told::default(), gateway.url.clone());
    let at_start = memory(&gateway);
    let mut samples = Vec::new();
    let start = Instant::now();
    let status = thread::scope(|scope| {
        for number in 0..agents {
            let agent = Agent::new(number, &url, [&seller, &slow], &told);
            spawned(scope, || agent.live());
        }
        while start.elapsed() < long {
            thread::sleep(long / 20);
            let now = memory(&gateway);
            let done: usize = told.times.lock().unwrap().values().map(Vec::len).sum();
            eprintln!("{:>4} s: {done} calls, {now}", start.elapsed().as_secs());
            samples.push(now.get("VmRSS").cloned().unwrap_or_default());
        }
        told.stopping.store(true, Ordering::Relaxed);
        gateway.terminate()
    });
    let seconds = start.elapsed().as_secs_f64();
    eprintln!("stopped: {status}; starting again");
    let paid = told.paid.into_inner().unwrap();
    gateway.restart();
    let settled = wait_for(Duration::from_secs(300), || {
        let open = gateway.operator().get("/v1/payments?state=accepted&state=in-flight&state=unknown&limit=1").json();
        open.pointer("/items/0").is_none().then_some(())
    });
    let redeemed = world.new_redemptions().len();
    let (mut known, mut cursor) = (BTreeMap::new(), String::new());
    loop {
        let page = gateway.operator().get(&format!("/v1/payments?limit=500{cursor}")).json();
        for payment in page.get("items").and_then(Value::as_array).unwrap() {
            let text = |name: &str| payment.get(name).and_then(Value::as_str).unwrap().to_owned();
            known.insert(text("id"), text("state"));
        }
        match page.get("next").and_then(Value::as_str) {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    let lost = paid.iter().filter(|id| known.get(*id).map(String::as_str) != Some("settled")).count();
    let all_settled = known.values().filter(|state| *state == "settled").count();
    let times = told.times.into_inner().unwrap();
    let kinds: BTreeMap<_, _> = times
        .into_iter()
        .map(|(kind, mut times)| {
            times.sort_unstable();
            (kind, json!({"calls": times.len(), "p50_ms": quantile(&times, 50), "p99_ms": quantile(&times, 99)}))
        })
        .collect();
    json!({
        "seconds": rounded(seconds),
        "calls": kinds,
        "paid_per_second": rounded(paid.len() as f64 / seconds),
        "wrong": told.wrong.into_inner().unwrap(),
        "turned_away": told.turned_away.load(Ordering::Relaxed),
        "broken_off_while_stopping": told.broken.load(Ordering::Relaxed),
        "ended": status.to_string(),
        "all_resolved_in_five_minutes": settled.is_some(),
        "acknowledged": paid.len(),
        "lost": lost,
        "settled_in_the_ledger": all_settled,
        "redeemed_on_the_chain": redeemed,
        "rss_kib": {"start": at_start.get("VmRSS"), "every_twentieth": samples},
    })
}

/// As many agents as fit, and then all of them, at a gateway that takes few calls at a time: what is paid in a second.
fn beyond(agents: usize, long: Duration) -> Value {
    let world = LocalWorld::start();
    let seller = world.world().seller("honest").unwrap().url("");
    let gateway = Gateway::start(crowded(&world, agents).set(&["limits", "calls"], i64::try_from(SMALL).unwrap()));
    let run = |agents: usize| {
        eprintln!("{agents} agents, {SMALL} calls at a time");
        let (told, start) = (Told::default(), Instant::now());
        thread::scope(|scope| {
            for number in 0..agents {
                let mut agent = Agent::new(number, &gateway.url, [&seller, &seller], &told);
                let told = &told;
                spawned(scope, move || {
                    let mut there = true;
                    while there && !told.stopping.load(Ordering::Relaxed) {
                        there = agent.call("paid");
                    }
                });
            }
            thread::sleep(long);
            told.stopping.store(true, Ordering::Relaxed);
        });
        let paid = told.paid.into_inner().unwrap().len();
        let wrong = told.wrong.into_inner().unwrap();
        json!({"agents": agents, "paid_per_second": rounded(paid as f64 / start.elapsed().as_secs_f64()),
            "turned_away": told.turned_away.load(Ordering::Relaxed), "wrong": wrong})
    };
    json!([run(SMALL.min(agents)), run(agents)])
}
