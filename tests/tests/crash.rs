//! The gateway is killed again and again while it spends, and never forgets what it signed.
//!
//! Each cycle starts the real process on the same ledger, lets many clients buy at once until budgets run out, and
//! sends SIGKILL at a random moment, sometimes before the process was ready. The chain and the sellers live on in this
//! process and are the judges: what they saw must be what the ledger knows.
//!
//! `COUNTERSIGN_CYCLES` says how often (default 200), `COUNTERSIGN_SEED` repeats a run's random choices (the moments
//! still depend on the machine).

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test: whatever is not as expected must fail it loudly"
)]
#![expect(clippy::disallowed_methods, reason = "real processes take real time")]

use countersign_core::{
    ledger::{Ledger, PaymentFilter},
    payment::State,
};
use countersign_ledger::{Integrity, SqliteLedger, check_integrity, verify_chain};
use countersign_tests::{
    agent::Client,
    config::{Config, Policy},
    http::Response,
    process::Gateway,
    wait_for,
    world::{ENDOWMENT, LocalWorld, Redemption, buyer},
};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Command,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// Clients that buy at the same time.
const CLIENTS: usize = 16;
/// Full checks over a whole run; each reads every record.
const FULL_CHECKS: u64 = 20;
/// Sellers that keep their word, in both versions of the protocol.
const SELLERS: [&str; 3] = ["honest", "honest-v1", "elsewhere"];
/// Each agent has a budget of its own kind.
const AGENTS: [(&str, &str); 4] = [("life", "lifetime"), ("hour", "hour"), ("day", "day"), ("month", "month")];

type Nonce = [u8; 32];

/// One purchase a client wants, with an id of its own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Order {
    agent: usize,
    id: String,
    what: u64,
}

/// What a client was told: paid, in this payment.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Ack {
    agent: String,
    purchase: String,
    payment: String,
}

/// What the world outside the gateway saw.
#[derive(Debug, Default, Clone)]
struct Seen {
    acks: Vec<Ack>,
    presented: BTreeSet<Nonce>,
    redeemed: BTreeMap<Nonce, Redemption>,
}

/// A payment as the ledger tells it.
#[derive(Debug, Clone)]
struct Row {
    id: String,
    agent: String,
    purchase: String,
    attempt: u32,
    state: State,
    created: u64,
    amount: u128,
    pay_to: String,
    nonce: Option<Nonce>,
    valid_before: u64,
}

/// Everything on which world and ledger disagree. Nothing, if the gateway keeps its promises.
fn disagreements(seen: &Seen, rows: &[Row]) -> Vec<String> {
    let mut found = Vec::new();
    let by_id: BTreeMap<&str, &Row> = rows.iter().map(|row| (row.id.as_str(), row)).collect();
    let mut paid_for: BTreeMap<(&str, &str), &str> = BTreeMap::new();
    for ack in &seen.acks {
        match by_id.get(ack.payment.as_str()) {
            None => found.push(format!("lost: {ack:?} was acknowledged and is not in the ledger")),
            Some(row) if (&row.agent, &row.purchase) != (&ack.agent, &ack.purchase) => {
                found.push(format!("{ack:?} was acknowledged and is somebody else's: {row:?}"));
            }
            Some(row) if !row.state.has_authorization() || row.nonce.is_none() => {
                found.push(format!("{ack:?} was acknowledged and holds nothing: {row:?}"));
            }
            Some(_) => {}
        }
        let first = paid_for.entry((&ack.agent, &ack.purchase)).or_insert(&ack.payment);
        if *first != ack.payment {
            found.push(format!("{ack:?} was paid before, by {first}"));
        }
    }
    let mut by_nonce: BTreeMap<Nonce, &Row> = BTreeMap::new();
    for row in rows {
        if let Some(nonce) = row.nonce
            && let Some(other) = by_nonce.insert(nonce, row)
        {
            found.push(format!("one nonce twice: {row:?} and {other:?}"));
        }
    }
    for nonce in seen.presented.iter().filter(|nonce| !by_nonce.contains_key(*nonce)) {
        found.push(format!("{} was presented to a seller and is not in the ledger", hex::encode(nonce)));
    }
    for (nonce, redemption) in &seen.redeemed {
        let Some(row) = by_nonce.get(nonce) else {
            found.push(format!("{redemption:?} is not in the ledger"));
            continue;
        };
        let payee = redemption.to.to_string();
        if row.amount != redemption.value || !row.pay_to.eq_ignore_ascii_case(&payee) || redemption.from != buyer() {
            found.push(format!("{redemption:?} is not what was written down: {row:?}"));
        }
        if !row.state.has_authorization() {
            found.push(format!("{redemption:?} happened and holds nothing: {row:?}"));
        }
    }
    let mut attempts: BTreeMap<(&str, &str), Vec<&Row>> = BTreeMap::new();
    for row in rows.iter().filter(|row| row.nonce.is_some()) {
        attempts.entry((&row.agent, &row.purchase)).or_default().push(row);
    }
    for (purchase, mut signed) in attempts {
        signed.sort_by_key(|row| row.attempt);
        for (first, second) in signed.iter().zip(signed.iter().skip(1)) {
            if second.created < first.valid_before && first.state != State::Released {
                found.push(format!("{purchase:?} was signed again while redeemable: {first:?}, {second:?}"));
            }
        }
        let taken = |row: &&&Row| row.nonce.is_some_and(|nonce| seen.redeemed.contains_key(&nonce));
        if signed.iter().filter(taken).count() > 1 {
            found.push(format!("{purchase:?} was paid more than once: {signed:?}"));
        }
    }
    found
}

/// Every payment in the ledger, or those that came after `known`, newest first.
fn rows(world: &LocalWorld, ledger: &Path, known: &BTreeSet<String>) -> Vec<Row> {
    let store = SqliteLedger::open_read_only(ledger).unwrap();
    let mut filter = PaymentFilter { limit: 500, ..PaymentFilter::default() };
    let mut rows = Vec::new();
    loop {
        let page = world.wait(store.payments(filter.clone())).unwrap();
        for payment in &page {
            let id = payment.id.to_string();
            if known.contains(&id) {
                return rows;
            }
            rows.push(Row {
                id,
                agent: payment.key.agent.clone(),
                purchase: payment.key.purchase.to_string(),
                attempt: payment.attempt,
                state: payment.state,
                created: payment.created_at.as_secs(),
                amount: payment.facts.amount.get(),
                pay_to: payment.facts.pay_to.clone(),
                nonce: payment.authorization.as_ref().map(|a| a.nonce),
                valid_before: payment.authorization.as_ref().map_or(0, |a| a.valid_before),
            });
        }
        match page.last() {
            Some(last) if page.len() == 500 => filter.before = Some(last.id),
            _ => return rows,
        }
    }
}

/// A small generator (SplitMix64): a run's choices can be repeated from its seed.
#[derive(Debug)]
struct Random(AtomicU64);

impl Random {
    fn below(&self, n: u64) -> u64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut z = self.0.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }

    fn millis(&self, range: std::ops::Range<u64>) -> Duration {
        Duration::from_millis(range.start + self.below(range.end - range.start))
    }
}

/// What all clients share.
struct Market<'a> {
    world: &'a LocalWorld,
    random: Random,
    agents: Vec<Client>,
    made: AtomicU64,
    /// Calls that a crash cut off.
    cut: AtomicU64,
    /// Orders without an answer that ends them.
    open: Mutex<Vec<Order>>,
    done: Mutex<Vec<Order>>,
    acks: Mutex<Vec<Ack>>,
    /// How often which answer came.
    answers: Mutex<BTreeMap<String, u64>>,
    /// Answers that no honest seller and no crash explain.
    strange: Mutex<Vec<String>>,
}

impl Market<'_> {
    fn new_order(&self) -> Order {
        let n = self.made.fetch_add(1, Ordering::Relaxed);
        let agent = usize::try_from(self.random.below(4)).unwrap();
        let order = Order { agent, id: format!("order-{n}"), what: self.random.below(5) };
        self.open.lock().unwrap().push(order.clone());
        order
    }

    fn one_of(&self, orders: &Mutex<Vec<Order>>) -> Option<Order> {
        let orders = orders.lock().unwrap();
        let count = u64::try_from(orders.len()).unwrap();
        (count > 0).then(|| orders[usize::try_from(self.random.below(count)).unwrap()].clone())
    }

    /// Sends an order; false when the gateway is gone.
    fn place(&self, order: &Order) -> bool {
        let url = |seller: &str, path: &str| {
            let base = self.world.world().seller(seller).unwrap().base_url();
            format!("{base}{path}?order={}", order.id)
        };
        let id = order.id.as_str();
        let (url, more) = match order.what {
            0 => (url("honest-v1", "/quote"), json!({"purchase_id": id})),
            1 => (url("elsewhere", "/quote"), json!({"purchase_id": id})),
            2 => (url("honest", "/echo"), json!({"purchase_id": id, "method": "POST", "body": id})),
            _ => (url("honest", "/quote"), json!({"purchase_id": id})),
        };
        match self.agents[order.agent].try_fetch(&url, more) {
            Ok(answer) => {
                self.answered(order, &answer);
                true
            }
            Err(_) => {
                self.cut.fetch_add(1, Ordering::Relaxed);
                false
            }
        }
    }

    fn answered(&self, order: &Order, answer: &Response) {
        let problem = (answer.status != 200).then(|| answer.json());
        let code = problem.as_ref().and_then(|p| p.get("code")).and_then(Value::as_str).unwrap_or_default();
        let replayed = answer.header("countersign-replayed").is_some();
        let what = match (answer.status, replayed) {
            (200, true) => "200 replayed".to_owned(),
            (200, false) => format!("200 {}", answer.header("countersign-state").unwrap_or("without state")),
            (status, _) => format!("{status} {code}"),
        };
        *self.answers.lock().unwrap().entry(what).or_default() += 1;
        let over = match (answer.status, code) {
            (200, _) => {
                match answer.header("countersign-payment") {
                    Some(payment) => self.acks.lock().unwrap().push(Ack {
                        agent: AGENTS[order.agent].0.to_owned(),
                        purchase: order.id.clone(),
                        payment: payment.to_owned(),
                    }),
                    None => self.strange.lock().unwrap().push(format!("{order:?}: no payment in {answer:?}")),
                }
                true
            }
            // Refused, and settled before: nothing more will come.
            (403, "budget-exceeded") | (409, "already-settled") => true,
            // Redeemed before the crash; the seller does not deliver twice. Or signed too long ago to try again.
            (502, "payment-refused") | (409, "payment-unknown") => true,
            // Too much at once; nothing was signed.
            (503, _) => false,
            _ => {
                self.strange.lock().unwrap().push(format!("{order:?}: {} {}", answer.status, answer.text()));
                true
            }
        };
        if over {
            self.open.lock().unwrap().retain(|open| open != order);
            self.done.lock().unwrap().push(order.clone());
        }
    }

    /// Buys until the gateway is gone: mostly new things, but also what got no answer, and what was done.
    fn buy(&self, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            let order = match self.random.below(10) {
                0..3 => self.one_of(&self.open),
                3 => self.one_of(&self.done),
                _ => None,
            };
            if !self.place(&order.unwrap_or_else(|| self.new_order())) {
                return;
            }
        }
    }

    /// How many orders found their budget spent.
    fn refused(&self) -> u64 {
        self.answers.lock().unwrap().get("403 budget-exceeded").copied().unwrap_or(0)
    }

    /// Repeats every order that got no answer, until it gets one.
    fn finish(&self) {
        for _round in 0..20 {
            let open = self.open.lock().unwrap().clone();
            if open.is_empty() {
                return;
            }
            thread::scope(|scope| {
                for share in open.chunks(open.len().div_ceil(CLIENTS)) {
                    scope.spawn(|| share.iter().for_each(|order| assert!(self.place(order), "no answer: {order:?}")));
                }
            });
        }
        panic!("never answered: {:?}", self.open.lock().unwrap());
    }
}

fn token(agent: &str) -> String {
    format!("crash-test-token-of-{agent}-0123456789abcdef0123456789")
}

/// The configuration without its budgets. One policy only: a process compiles its policies when it starts.
fn config(world: &LocalWorld) -> Config {
    let caps = Policy::new("caps", "builtin:spend-caps").setting("per-payment", "1.00");
    let caps = caps.setting("per-agent-hour", "900000.00").setting("per-agent-month", "900000.00");
    let config = world
        .config(&SELLERS, [caps.setting("timezone", "UTC")])
        .set(&["wallet", "research", "daily-limit"], "900000.00")
        .set(&["limits", "purchases-per-agent-per-minute"], 1_000_000)
        .set(&["limits", "unresolved-per-seller"], 1_000_000)
        .set(&["limits", "unresolved-per-payee"], 1_000_000)
        .set(&["limits", "unresolved-per-agent"], 1_000_000);
    AGENTS.into_iter().fold(config, |config, (agent, _)| config.agent(agent, &token(agent)))
}

/// A budget for each agent and one for everybody, with limits in thousandths of a dollar.
fn with_budgets(config: Config, limits: &[u64; 5]) -> Config {
    let dollars = |thousandths: u64| format!("{}.{:03}", thousandths / 1000, thousandths % 1000);
    let config = AGENTS.into_iter().zip(limits).fold(config, |config, ((agent, per), limit)| {
        let name = format!("only/{agent}");
        config
            .set(&["budget", &name, "when", "agent"], agent)
            .set(&["budget", &name, "per"], per)
            .set(&["budget", &name, "limit"], dollars(*limit))
    });
    config
        .set(&["budget", "everybody", "when"], toml::Table::new())
        .set(&["budget", "everybody", "per"], "lifetime")
        .set(&["budget", "everybody", "limit"], dollars(limits[4]))
}

/// A number from the environment.
fn setting(name: &str) -> Option<u64> {
    let text = std::env::var_os(name)?;
    Some(text.to_str().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("{name}: {text:?}")))
}

#[track_caller]
fn assert_sound(integrity: &Integrity, when: &str) {
    assert!(integrity.is_sound(), "{when}: {integrity:#?}");
}

/// Takes down what the sellers and the chain saw since the last time.
fn observe(world: &LocalWorld, seen: &mut Seen, visits: &mut BTreeMap<&str, u64>) {
    for name in SELLERS {
        let seller = world.world().seller(name).unwrap();
        let (before, now) = (visits.insert(name, seller.stats().requests).unwrap_or(0), seller.stats().requests);
        let recent = seller.visits();
        let new = usize::try_from(now - before).unwrap();
        assert!(new <= recent.len(), "{name} forgot visits");
        seen.presented.extend(recent[recent.len() - new..].iter().filter_map(|visit| visit.nonce));
    }
    seen.redeemed.extend(world.new_redemptions());
}

#[test]
fn nothing_signed_is_ever_forgotten() {
    let cycles = setting("COUNTERSIGN_CYCLES").unwrap_or(200);
    let by_the_clock = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos().into();
    let seed = setting("COUNTERSIGN_SEED").unwrap_or_else(by_the_clock);
    println!("{cycles} cycles, COUNTERSIGN_SEED={seed}");

    let world = LocalWorld::start();
    let mut limits = [10, 10, 10, 10, 30];
    let mut gateway = Gateway::start(with_budgets(config(&world), &limits));
    let ledger = gateway.dir().join("countersign.db");
    let market = Market {
        world: &world,
        random: Random(AtomicU64::new(seed)),
        agents: AGENTS.iter().map(|(agent, _)| gateway.agent_with(&token(agent))).collect(),
        made: AtomicU64::new(0),
        cut: AtomicU64::new(0),
        open: Mutex::default(),
        done: Mutex::default(),
        acks: Mutex::default(),
        answers: Mutex::default(),
        strange: Mutex::default(),
    };
    let (mut seen, mut visits) = (Seen::default(), BTreeMap::new());
    let (mut known, mut all): (BTreeSet<String>, Vec<Row>) = (BTreeSet::new(), Vec::new());
    let (mut records, mut heard, mut stillborn, mut starting) = (0, 0, 0_u64, Duration::ZERO);
    let began = Instant::now();
    for cycle in 1..=cycles {
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(|| market.buy(&stop))).collect();
            thread::sleep(market.random.millis(20..320));
            gateway.kill();
            stop.store(true, Ordering::Relaxed);
            clients.into_iter().for_each(|client| client.join().unwrap());
        });
        // What a dead gateway sent may still be on its way to a seller: look until all is quiet.
        observe(&world, &mut seen, &mut visits);
        seen.acks.append(&mut market.acks.lock().unwrap());

        // The payments of this cycle against everything seen; those of earlier cycles are looked at again at the end.
        let new = rows(&world, &ledger, &known);
        known.extend(new.iter().map(|row| row.id.clone()));
        all.extend(new);
        // A nonce may not have reached its seller yet, but one that did was in the ledger before.
        let unknown = disagreements(&Seen { acks: Vec::new(), ..seen.clone() }, &all);
        let unknown: Vec<_> = unknown.iter().filter(|u| u.contains("not in the ledger")).collect();
        assert!(unknown.is_empty(), "seed {seed}, after crash {cycle}: {unknown:#?}");
        let lost: Vec<_> = seen.acks.iter().filter(|ack| !known.contains(&ack.payment)).collect();
        assert!(lost.is_empty(), "seed {seed}, after crash {cycle}, acknowledged and lost: {lost:#?}");
        if cycle % (cycles / FULL_CHECKS).max(1) == 0 {
            assert_sound(&check_integrity(&ledger).unwrap(), &format!("seed {seed}, after crash {cycle}"));
            let chain = verify_chain(&ledger).unwrap();
            assert!(chain.records >= records, "records were cut off: {} of {records}", chain.records);
            records = chain.records;
        }

        // More to spend, but only once somebody was refused: so budgets run out on a slow machine, too.
        let refused = market.refused();
        if refused > heard {
            heard = refused;
            for limit in &mut limits {
                *limit += 1 + market.random.below(16);
            }
            limits[4] += market.random.below(50);
        }
        gateway.write_config(with_budgets(gateway.config(), &limits));
        if market.random.below(6) == 0 {
            gateway.spawn_again();
            thread::sleep(market.random.millis(0..120));
            stillborn += 1;
        }
        let from = Instant::now();
        gateway.restart();
        starting += from.elapsed();
    }
    let seconds = began.elapsed().as_secs_f64();
    let per_start = starting.as_secs_f64() * 1000.0 / f64::from(u32::try_from(cycles).unwrap());
    println!(
        "{cycles} crashes under load and {stillborn} while starting in {seconds:.1} s; {per_start:.0} ms per start"
    );

    market.finish();
    // Every redemption becomes proven, by the gateway alone.
    let open_at_the_end = wait_for(Duration::from_secs(120), || {
        seen.redeemed.extend(world.new_redemptions());
        let listed = gateway.operator().get("/v1/payments?state=accepted&state=in-flight&limit=500").json();
        let none_open = listed["items"].as_array().is_some_and(Vec::is_empty);
        none_open.then(|| {
            let ids = redeemed_but_unknown(&gateway, &seen, &all);
            ids.is_empty().then_some(())
        })?
    });
    gateway.kill();
    observe(&world, &mut seen, &mut visits);
    seen.acks.append(&mut market.acks.lock().unwrap());
    let all = rows(&world, &ledger, &BTreeSet::new());
    let strange = market.strange.lock().unwrap();
    println!("answers: {:?}", market.answers.lock().unwrap());
    let count = |wanted: State| all.iter().filter(|row| row.state == wanted).count();
    let states: BTreeMap<&str, usize> = State::ALL.iter().map(|s| (s.public(), count(*s))).collect();
    println!(
        "{} orders, {} calls cut off, {} acknowledged, {} presented, {} redeemed; ledger: {states:?}",
        market.made.load(Ordering::Relaxed),
        market.cut.load(Ordering::Relaxed),
        seen.acks.len(),
        seen.presented.len(),
        seen.redeemed.len(),
    );

    let disagreements = disagreements(&seen, &all);
    assert!(disagreements.is_empty(), "seed {seed}: {} of them: {disagreements:#?}", disagreements.len());
    assert_sound(&check_integrity(&ledger).unwrap(), &format!("seed {seed}, at the end"));
    let chain = verify_chain(&ledger).unwrap();
    assert!(chain.records >= records);
    println!("{} records in the chain, sound", chain.records);

    // The money, to the atomic unit.
    let moved: u128 = seen.redeemed.values().map(|redemption| redemption.value).sum();
    let is_redeemed = |row: &&Row| row.nonce.is_some_and(|nonce| seen.redeemed.contains_key(&nonce));
    let booked: u128 = all.iter().filter(is_redeemed).map(|row| row.amount).sum();
    let earned: u128 =
        SELLERS.iter().map(|name| world.world().balance(world.world().seller(name).unwrap().pay_to())).sum();
    assert_eq!(moved, booked);
    assert_eq!(moved, earned);
    assert_eq!(ENDOWMENT - world.world().balance(buyer()), moved);
    assert!(open_at_the_end.is_some(), "seed {seed}: not all redemptions were proven in two minutes: {states:?}");
    assert_eq!(count(State::Settled), seen.redeemed.len(), "settled is what was redeemed: {states:?}");

    // The test itself: budgets ran out, crashes hit purchases half done.
    assert!(
        strange.is_empty(),
        "seed {seed}: {} answers nobody expects: {:#?}",
        strange.len(),
        &strange[..strange.len().min(5)]
    );
    assert!(market.refused() > 0, "no budget ran out: {:?}", market.answers.lock().unwrap());
    assert!(!seen.acks.is_empty());
    assert!(market.cut.load(Ordering::Relaxed) >= cycles, "crashes that hit nobody");
}

/// Ids of payments that the chain took and the gateway still calls unknown.
fn redeemed_but_unknown(gateway: &Gateway, seen: &Seen, all: &[Row]) -> Vec<String> {
    let taken: BTreeSet<&str> = all
        .iter()
        .filter(|row| row.nonce.is_some_and(|nonce| seen.redeemed.contains_key(&nonce)))
        .map(|row| row.id.as_str())
        .collect();
    let mut found = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = gateway.operator().get(&format!("/v1/payments?state=unknown&limit=500{cursor}")).json();
        let ids = page["items"].as_array().unwrap().iter().filter_map(|item| item["id"].as_str());
        found.extend(ids.filter(|id| taken.contains(id)).map(str::to_owned));
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return found,
        }
    }
}

/// Changes a copy of a ledger with SQL, as no program of ours would, and returns the copy's path.
fn damaged(ledger: &Path, folder: &Path, name: &str, sql: &str) -> std::path::PathBuf {
    let copy = folder.join(name);
    for suffix in ["", "-wal"] {
        let (from, to) = (format!("{}{suffix}", ledger.display()), format!("{}{suffix}", copy.display()));
        if Path::new(&from).exists() {
            fs::copy(from, to).unwrap();
        }
    }
    let script = "import sqlite3, sys\nc = sqlite3.connect(sys.argv[1])\nc.executescript(sys.argv[2])\nc.close()";
    let output = Command::new("python3").args(["-c", script]).arg(&copy).arg(sql).output().expect("Python 3 is needed");
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    copy
}

/// A judge is believed only after it found what is wrong.
#[test]
fn the_judges_find_what_is_wrong() {
    let world = LocalWorld::start();
    let mut gateway = Gateway::start(with_budgets(config(&world), &[1000; 5]));
    let url = world.world().seller("honest").unwrap().url("/quote");
    let mut seen = Seen::default();
    for n in 0..3 {
        let agent = gateway.agent_with(&token("life"));
        let id = format!("order-{n}");
        let answer = agent.fetch(&format!("{url}?{id}"), json!({"purchase_id": id}));
        assert_eq!(answer.status, 200, "{}", answer.text());
        let payment = answer.header("countersign-payment").unwrap().to_owned();
        seen.acks.push(Ack { agent: "life".to_owned(), purchase: id, payment });
    }
    gateway.kill();
    observe(&world, &mut seen, &mut BTreeMap::new());
    let ledger = gateway.dir().join("countersign.db");
    let nothing = BTreeSet::new();
    assert_sound(&check_integrity(&ledger).unwrap(), "undamaged");
    let sound = rows(&world, &ledger, &nothing);
    assert_eq!(sound.len(), 3);
    assert_eq!(disagreements(&seen, &sound), [""; 0]);

    // The checker of the ledger.
    let folder = tempfile::tempdir().unwrap();
    let check = |name: &str, sql: &str| check_integrity(&damaged(&ledger, folder.path(), name, sql)).unwrap();
    let lost_hold = check("lost-hold", "DELETE FROM hold WHERE payment=(SELECT min(payment) FROM hold);");
    assert!(!lost_hold.counters.is_empty(), "{lost_hold:?}");
    let over = "PRAGMA ignore_check_constraints=ON; UPDATE budget_window SET lim=held+spent-1 WHERE held+spent>0;";
    let over_limit = check("over-limit", over);
    assert!(!over_limit.over_limit.is_empty(), "{over_limit:?}");
    let counter = check(
        "counter",
        "UPDATE budget_window SET held=held-1 WHERE held>0; UPDATE budget_window SET spent=spent-1 WHERE spent>0;",
    );
    assert!(!counter.counters.is_empty(), "{counter:?}");
    let changed =
        "DROP TRIGGER audit_unchanged; UPDATE audit SET body=substr(body,1,length(body)-1) WHERE payment IS NOT NULL;";
    let changed_record = check("changed-record", changed);
    assert!(!changed_record.chain.is_empty(), "{changed_record:?}");
    let missing = check("missing-record", "DROP TRIGGER audit_kept; DELETE FROM audit WHERE seq=3;");
    assert!(!missing.chain.is_empty(), "{missing:?}");

    // Ours.
    let lose = "DROP TRIGGER payment_kept; DELETE FROM payment WHERE purchase='order-1';";
    let lost = rows(&world, &damaged(&ledger, folder.path(), "lost-payment", lose), &nothing);
    let found = disagreements(&seen, &lost);
    assert!(found.iter().any(|f| f.starts_with("lost: ")), "{found:?}");
    assert!(found.iter().any(|f| f.contains("presented to a seller and is not in the ledger")), "{found:?}");
    assert!(found.iter().any(|f| f.starts_with("Redemption") && f.ends_with("is not in the ledger")), "{found:?}");
    let with = |change: &dyn Fn(&mut Vec<Row>)| {
        let mut rows = sound.clone();
        change(&mut rows);
        disagreements(&seen, &rows)
    };
    let released = with(&|rows| rows[0].state = State::Released);
    assert!(released.iter().any(|f| f.contains("holds nothing")), "{released:?}");
    let another_amount = with(&|rows| rows[0].amount += 1);
    assert!(another_amount.iter().any(|f| f.contains("not what was written down")), "{another_amount:?}");
    let twice = with(&|rows| {
        let second = Row { id: "other".to_owned(), attempt: 2, nonce: Some([7; 32]), ..rows[0].clone() };
        rows.push(second);
    });
    assert!(twice.iter().any(|f| f.contains("signed again while redeemable")), "{twice:?}");
    let both = with(&|rows| {
        let (agent, purchase) = (rows[0].agent.clone(), rows[0].purchase.clone());
        rows[1] = Row { agent, purchase, attempt: 2, ..rows[1].clone() };
    });
    assert!(both.iter().any(|f| f.contains("was paid more than once")), "{both:?}");
}
