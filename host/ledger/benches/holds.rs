//! Durable holds: how many a second, how long each takes, and what a large store changes.
//! `cargo bench -p countersign-ledger --bench holds [-- GROWTH | shared | bytes N]`
//!
//! One run prints: what the disk does alone (4 KiB overwritten and `fdatasync`ed), one transaction for each
//! hold, group commit at 1, 16, 64 and 256 callers over many budgets and over a single one, what a hold costs, and, with
//! GROWTH payments (say 1000000), what a commit costs as the store grows to them; with `shared`, the same on a
//! PostgreSQL server of its own (durable, on this machine), for one gateway and for two. Each caller waits for its
//! answer before it asks again. Look at the ratios: the figures are the disk's and the scheduler's.
//!
//! With `bytes N` nothing but this: N payments in the largest batches, and their bytes by table and index.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    dead_code,
    reason = "a measurement that cannot be made stops"
)]
#![expect(clippy::disallowed_methods, reason = "it measures time")]

#[path = "../tests/ledger/backend.rs"]
mod backend;
#[path = "../tests/ledger/common.rs"]
mod common;
#[path = "../tests/ledger/postgres.rs"]
mod postgres;

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use countersign_core::ledger::{Committed, Fingerprint, Fut, Grant, Ledger, LedgerError};
use countersign_core::verdict::Window;
use countersign_ledger::{Database, SqliteLedger};
use sha2::{Digest as _, Sha256};

use common::{Rig, T0, block, commit, hold};

/// How long each line is measured.
const LINE: Duration = Duration::from_secs(4);

/// How long each of many took.
struct Took(Vec<Duration>);

impl Took {
    fn tell(mut self, what: &str, during: Duration) -> f64 {
        self.0.sort_unstable();
        let at = |permille: usize| {
            let index = self.0.len().saturating_sub(1) * permille / 1_000;
            self.0.get(index).copied().unwrap_or_default().as_secs_f64() * 1e3
        };
        let rate = self.0.len() as f64 / during.as_secs_f64();
        println!("{what:44} {rate:9.0}/s   p50 {:8.3} ms   p99 {:8.3} ms", at(500), at(990));
        rate
    }
}

/// The disk alone: one writer, a file that is there already.
fn disk(rig: &Rig) -> f64 {
    let path = rig.path.with_extension("disk");
    let file = OpenOptions::new().create(true).truncate(true).write(true).open(path).unwrap();
    let page = [7_u8; 4_096];
    (0..256_u64).for_each(|n| file.write_all_at(&page, n * 4_096).unwrap());
    file.sync_all().unwrap();
    let (began, mut took) = (Instant::now(), Vec::new());
    for n in (0..256_u64).cycle() {
        if began.elapsed() >= LINE {
            break;
        }
        let one = Instant::now();
        file.write_all_at(&page, n * 4_096).unwrap();
        file.sync_data().unwrap();
        took.push(one.elapsed());
    }
    Took(took).tell("the disk: 4 KiB overwritten, fdatasync", began.elapsed())
}

fn place(ledger: &SqliteLedger, n: u64, budgets: u64) {
    answered(block(asked(ledger, n, budgets)));
}

fn asked(ledger: &SqliteLedger, n: u64, budgets: u64) -> Fut<'_, Result<Committed, LedgerError>> {
    let mine = format!("agent/{}", n % budgets);
    let holds = [
        hold(&format!("wallet/{}", n % budgets), Window::Day(String::new()), 1 << 50, 1),
        hold(&mine, Window::Rolling(86_400), 1 << 50, 1),
        hold(&mine, Window::Lifetime, 1 << 50, 1),
    ];
    let mut commit = commit(n, T0, &holds);
    // As they are in life: a digest of the request, and a nonce that nobody could guess, nor a packer make smaller.
    commit.fingerprint = Fingerprint(Sha256::digest([b"request".as_slice(), &n.to_be_bytes()].concat()).into());
    if let Grant::Sign(authorization) = &mut commit.grant {
        authorization.nonce = Sha256::digest([b"nonce".as_slice(), &n.to_be_bytes()].concat()).into();
    }
    ledger.commit(commit)
}

fn answered(answer: Result<Committed, LedgerError>) {
    match answer.unwrap() {
        Committed::Granted { .. } => {}
        other => panic!("{other:?}"),
    }
}

/// `callers` threads that each wait for their answer, over so many budgets.
fn held(ledger: &SqliteLedger, next: &AtomicU64, callers: usize, budgets: u64, what: &str) -> f64 {
    held_by(&[ledger], next, callers, budgets, what)
}

/// The same, by callers of several gateways in turn.
fn held_by(ledgers: &[&SqliteLedger], next: &AtomicU64, callers: usize, budgets: u64, what: &str) -> f64 {
    let stop = AtomicBool::new(false);
    let began = Instant::now();
    let caller = |ledger: &SqliteLedger| {
        let mut took = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            let n = next.fetch_add(1, Ordering::Relaxed);
            let one = Instant::now();
            place(ledger, n, budgets);
            took.push(one.elapsed());
        }
        took
    };
    let took = thread::scope(|scope| {
        let ledgers = ledgers.iter().cycle().take(callers);
        let caller = &caller;
        let running: Vec<_> = ledgers.map(|ledger| scope.spawn(move || caller(ledger))).collect();
        thread::sleep(LINE);
        stop.store(true, Ordering::Relaxed);
        running.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    Took(took).tell(&format!("{what}, {callers} at a time"), began.elapsed())
}

/// CPU time of this process.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks = |field: usize| fields.get(field).unwrap().parse::<u64>().unwrap();
    Duration::from_millis((ticks(11) + ticks(12)) * 10)
}

/// N payments, and what they take in each table and index of the file.
fn bytes(payments: u64) {
    let rig = Rig::new();
    let next = AtomicU64::new(1);
    flood(&rig.open(), &next, payments);
    let conn = rusqlite::Connection::open(&rig.path).unwrap();
    let made: u64 = conn.query_row("SELECT count(*) FROM payment", [], |r| r.get(0)).unwrap();
    let sql = "SELECT name,sum(pgsize),sum(payload) FROM dbstat GROUP BY name ORDER BY 2 DESC";
    let mut statement = conn.prepare(sql).unwrap();
    let read = |r: &rusqlite::Row<'_>| Ok((r.get::<_, String>(0)?, r.get::<_, u64>(1)?, r.get::<_, u64>(2)?));
    let rows: Vec<_> = statement.query_map([], read).unwrap().map(Result::unwrap).collect();
    println!("{made} payments; bytes of each        pages    content");
    for (name, pages, content) in rows.iter().filter(|(_, pages, _)| pages / made > 0) {
        println!("{name:32} {:8} {:10}", pages / made, content / made);
    }
    let all: u64 = rows.iter().map(|(_, pages, _)| pages).sum();
    println!("{:32} {:8}", "all", all / made);
}

fn main() {
    let mut arguments = std::env::args().skip_while(|argument| argument != "bytes").skip(1);
    if let Some(payments) = arguments.next() {
        return bytes(payments.parse().unwrap());
    }
    let growth: u64 = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(0);
    let rig = Rig::new();
    let syncs = disk(&rig);
    let ledger = rig.open();
    let next = AtomicU64::new(1);
    let alone = held(&ledger, &next, 1, 16, "a transaction for each hold");
    let before = (cpu(), next.load(Ordering::Relaxed));
    let mut best = alone;
    for callers in [16, 64, 256] {
        best = held(&ledger, &next, callers, 16, "group commit").max(best);
    }
    let made = next.load(Ordering::Relaxed) - before.1;
    let each = (cpu() - before.0).as_secs_f64() * 1e6 / made as f64;
    held(&ledger, &next, 64, 1, "one single budget");
    let bytes = std::fs::metadata(&rig.path).unwrap().len() / next.load(Ordering::Relaxed);
    println!(
        "group commit over one transaction each: {:.1}; over the disk's own syncs: {:.1}",
        best / alone,
        best / syncs
    );
    println!("CPU of the process, callers included: {each:.0} us a hold; {bytes} bytes on disk a payment");
    cost(&rig, &ledger, &next);
    if growth > 0 {
        let rig = Rig::new();
        grow(&rig, &rig.open(), &AtomicU64::new(1), growth);
    }
    if std::env::args().any(|argument| argument == "shared") {
        shared(best);
    }
}

/// The same holds on PostgreSQL, beside the best that one file did.
fn shared(one_file: f64) {
    let server = postgres::Postgres::start();
    server.create_database("holds");
    let database = Database::new(&server.url("holds"), None).unwrap();
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let open = |n: u8, folder: &tempfile::TempDir| {
        SqliteLedger::open_shared(folder.path(), &database, [n; 16], Rig::options(), T0).unwrap()
    };
    let next = AtomicU64::new(1);
    let one = open(1, &folders[0]);
    let mut best = 0.0_f64;
    for callers in [1, 16, 64, 256] {
        best = held(&one, &next, callers, 16, "PostgreSQL, one gateway").max(best);
    }
    println!("a read of facts, with what others wrote asked for: {:.0} us", facts(&one));
    let two = open(2, &folders[1]);
    let both = held_by(&[&one, &two], &next, 256, 16, "PostgreSQL, two gateways");
    println!("one file over PostgreSQL: {:.1}; two gateways over one: {:.2}", one_file / best, both / best);
}

/// Payments of each measurement in [`cost`] and [`grow`].
const MEASURED: u64 = 10_000;

/// Makes payments up to number `last` in batches as large as the writer takes them: each thread has many under way.
fn flood(ledger: &SqliteLedger, next: &AtomicU64, last: u64) {
    let fill = || loop {
        let first = next.fetch_add(256, Ordering::Relaxed);
        if first > last {
            return;
        }
        let asked = (first..first + 256).map(|n| asked(ledger, n, 1_000));
        let mut asked: Vec<_> = asked.collect();
        // A commit is queued when it is polled for the first time.
        let mut nobody = Context::from_waker(Waker::noop());
        asked.retain_mut(|one| match one.as_mut().poll(&mut nobody) {
            Poll::Ready(answer) => {
                answered(answer);
                false
            }
            Poll::Pending => true,
        });
        asked.into_iter().for_each(|one| answered(block(one)));
    };
    thread::scope(|scope| (0..2).for_each(|_| drop(scope.spawn(fill))));
}

/// CPU of this process's threads by name: the writer's, the checkpointer's and everybody else's.
fn cpu_by_thread() -> [Duration; 3] {
    let mut spent = [Duration::ZERO; 3];
    for task in std::fs::read_dir("/proc/self/task").unwrap() {
        let folder = task.unwrap().path();
        let Ok(stat) = std::fs::read_to_string(folder.join("stat")) else { continue };
        let (name, rest) = stat.rsplit_once(')').unwrap();
        let ticks = |field: usize| rest.split_whitespace().nth(field).unwrap().parse::<u64>().unwrap();
        let place = if name.contains("ledger-writer") {
            0
        } else if name.contains("ledger-checkpo") {
            1
        } else {
            2
        };
        spent[place] += Duration::from_millis((ticks(11) + ticks(12)) * 10);
    }
    // Threads that have ended are only in the sum.
    spent[2] = cpu().saturating_sub(spent[0] + spent[1]);
    spent
}

/// What so many holds cost in CPU, and who spends it; their bytes in the file and in writes.
fn cost(rig: &Rig, ledger: &SqliteLedger, next: &AtomicU64) {
    let written = || {
        let io = std::fs::read_to_string("/proc/self/io").unwrap();
        let line = io.lines().find_map(|line| line.strip_prefix("wchar: ")).unwrap();
        line.parse::<u64>().unwrap()
    };
    let stored = || std::fs::metadata(&rig.path).unwrap().len();
    let (from, before, bytes) = (next.load(Ordering::Relaxed), cpu_by_thread(), (written(), stored()));
    flood(ledger, next, from + 2 * MEASURED - 256);
    let made = (next.load(Ordering::Relaxed) - 512 - from).max(1) as f64;
    let each = |n: usize| (cpu_by_thread()[n] - before[n]).as_secs_f64() * 1e6 / made;
    println!(
        "CPU of a hold in large batches: writer {:.0} us, checkpoints {:.0} us, callers {:.0} us",
        each(0),
        each(1),
        each(2)
    );
    println!(
        "bytes of a hold: {:.0} in the file, {:.0} written (log and file)",
        (stored() - bytes.1) as f64 / made,
        (written() - bytes.0) as f64 / made
    );
}

/// What a commit costs as the store fills: CPU in batches, how long one takes by itself, and a read of facts.
fn grow(rig: &Rig, ledger: &SqliteLedger, next: &AtomicU64, most: u64) {
    println!(" payments   CPU us/commit   alone p50 us   facts p50 us   file MB");
    let mut mark = 10_000;
    while mark <= most {
        flood(ledger, next, mark.saturating_sub(MEASURED));
        let (from, before) = (next.load(Ordering::Relaxed), cpu());
        flood(ledger, next, from + MEASURED / 2);
        let made = next.load(Ordering::Relaxed).saturating_sub(512 + from).max(1);
        let each = (cpu() - before).as_secs_f64() * 1e6 / made as f64;
        let alone = median((0..1_000).map(|_| place(ledger, next.fetch_add(1, Ordering::Relaxed), 1_000)));
        let stored = std::fs::metadata(&rig.path).unwrap().len() >> 20;
        println!("{mark:9}   {each:13.0}   {alone:12.0}   {:12.0}   {stored:7}", facts(ledger));
        mark *= 10;
    }
}

/// The median of how long each takes, in microseconds.
fn median(each: impl Iterator<Item = ()>) -> f64 {
    let mut took = Vec::new();
    let mut began = Instant::now();
    for () in each {
        took.push(began.elapsed());
        began = Instant::now();
    }
    took.sort_unstable();
    took.get(took.len() / 2).copied().unwrap_or_default().as_secs_f64() * 1e6
}

/// What it takes to read what policies are told: the median, in microseconds.
fn facts(ledger: &SqliteLedger) -> f64 {
    median((0..500).map(|n| drop(block(ledger.facts(common::facts_query(n))).unwrap())))
}
