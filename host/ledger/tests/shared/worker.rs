//! A gateway in a process of its own, which can be killed: it buys without end and says what it was told.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use countersign_core::ledger::{Committed, Ledger, LedgerError, Refusal};
use countersign_core::payment::{Event, State};
use countersign_core::verdict::{Hold, Window};
use countersign_ledger::SqliteLedger;

use crate::common::*;
use crate::fleet::{at_url, unlocked};

/// Callers of a worker.
const CALLERS: u64 = 4;
/// Numbers of one worker's purchases.
pub(crate) const SPAN: u64 = 10_000;
/// Of a budget that workers share, and that is always nearly used up.
const TIGHT: u64 = 60;

/// A variable of the environment.
pub(crate) fn text(variable: &str) -> Option<String> {
    std::env::vars().find(|(name, _)| name == variable).map(|(_, value)| value)
}

/// What worker `first` buys with its purchase `n`.
pub(crate) fn holds(first: u64, n: u64) -> [Hold; 2] {
    let tight = format!("tight-{}-{}", first / SPAN / 4, n % SPAN / 32);
    [hold("all", Window::Lifetime, 1 << 40, amount(n)), hold(&tight, Window::Lifetime, TIGHT, 1)]
}

pub(crate) const fn amount(n: u64) -> u64 {
    1 + n % 3
}

fn say(what: &str, n: u64) {
    // Whole lines at once: what is cut off was not said.
    std::io::stdout().lock().write_all(format!("@ {what} {n}\n").as_bytes()).unwrap();
}

/// The process's work. Without its environment it is a test that does nothing.
#[test]
fn worker() {
    let Some(url) = text("SHARED_URL") else { return };
    let folder = text("SHARED_FOLDER").unwrap();
    let first: u64 = text("SHARED_FIRST").unwrap().parse().unwrap();
    let mut name = [0xcc; 16];
    name[..8].copy_from_slice(&first.to_be_bytes());
    let database = at_url(&url);
    let open = || SqliteLedger::open_shared(folder.as_ref(), &database, name, Rig::options(), T0);
    let ledger = unlocked(open).unwrap();
    say("epoch", ledger.epoch());
    thread::scope(|scope| {
        for caller in 0..CALLERS {
            let ledger = &ledger;
            scope.spawn(move || {
                for turn in 0..SPAN / CALLERS {
                    buy(ledger, first, first + turn * CALLERS + caller);
                }
            });
        }
    });
}

fn buy(ledger: &SqliteLedger, first: u64, n: u64) {
    say("asks", n);
    match block(ledger.commit(commit(n, T0, &holds(first, n)))) {
        Ok(Committed::Granted { .. }) => say("granted", n),
        Ok(Committed::Refused(Refusal::Budget(_))) => return say("refused", n),
        Err(LedgerError::Unavailable(_)) => return say("unknown", n),
        other => panic!("{other:?}"),
    }
    let (what, done) = match n % 4 {
        0 => (Event::Redeemed, "settled"),
        1 => (Event::SignerRefused, "released"),
        _ => return,
    };
    say("ends", n);
    match step(ledger, event(n, State::Signed, what, T0)) {
        Ok(_) => say(done, n),
        // It was taken for ended, and what it had in flight is followed elsewhere.
        Err(LedgerError::Unavailable(_) | LedgerError::Conflict(_)) => say("unknown-end", n),
        Err(e) => panic!("{e}"),
    }
}

/// A running worker.
pub(crate) struct Worker {
    process: Child,
    lines: Receiver<(String, u64)>,
}

impl Worker {
    /// Starts one with this folder, whose purchases are numbered from `first` on.
    pub(crate) fn start(url: &str, folder: &std::path::Path, first: u64) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap());
        process.args(["worker::worker", "--exact", "--nocapture", "--test-threads=1"]);
        process.env("SHARED_URL", url).env("SHARED_FOLDER", folder).env("SHARED_FIRST", first.to_string());
        let mut process = process.stdout(Stdio::piped()).stdin(Stdio::null()).spawn().unwrap();
        let mut out = BufReader::new(process.stdout.take().unwrap());
        let (said, lines) = channel();
        thread::spawn(move || {
            let mut line = String::new();
            while out.read_line(&mut line).unwrap() > 0 {
                let mut words = line.split_whitespace();
                if let (true, Some("@"), Some(what), Some(n)) =
                    (line.ends_with('\n'), words.next(), words.next(), words.next())
                {
                    let _nobody_listens = said.send((what.to_owned(), n.parse().unwrap()));
                }
                line.clear();
            }
        });
        Self { process, lines }
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Notes what it says until it has said this so often.
    pub(crate) fn hear(&self, told: &mut Told, what: &str, times: u64) {
        let mut heard = 0;
        while heard < times {
            let Ok((said, n)) = self.lines.recv_timeout(std::time::Duration::from_secs(120)) else {
                panic!("the worker ended, or says `{what}` no more")
            };
            heard += u64::from(said == what);
            told.note(&said, n);
        }
    }

    /// SIGKILL; then notes the rest of what it said.
    pub(crate) fn kill(mut self, told: &mut Told) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        self.lines.iter().for_each(|(said, n)| told.note(&said, n));
    }
}

/// What workers were told.
#[derive(Debug, Default)]
pub(crate) struct Told {
    said: BTreeMap<String, BTreeSet<u64>>,
}

impl Told {
    fn note(&mut self, said: &str, n: u64) {
        let new = self.said.entry(said.to_owned()).or_default().insert(n);
        assert!(new, "{said} {n} twice");
    }

    pub(crate) fn of(&self, said: &str) -> BTreeSet<u64> {
        self.said.get(said).cloned().unwrap_or_default()
    }

    pub(crate) fn count(&self, said: &str) -> usize {
        self.said.get(said).map_or(0, BTreeSet::len)
    }

    /// Holds what the ledger now says against what workers were told; answers how many purchases it has that nobody
    /// was told of.
    pub(crate) fn judge(&self, found: &BTreeMap<u64, State>) -> usize {
        let (asked, granted, ends) = (self.of("asks"), self.of("granted"), self.of("ends"));
        for n in &granted {
            let state = *found.get(n).unwrap_or_else(|| panic!("purchase {n} was granted and is lost"));
            let allowed: &[State] = match (self.of("settled").contains(n), self.of("released").contains(n)) {
                (true, _) => &[State::Settled],
                (_, true) => &[State::Released],
                _ if !ends.contains(n) => &[State::Signed, State::Redeemable],
                _ if n % 4 == 0 => &[State::Signed, State::Redeemable, State::Settled],
                _ => &[State::Signed, State::Redeemable, State::Released],
            };
            assert!(allowed.contains(&state), "purchase {n} is {state:?}, not one of {allowed:?}");
        }
        for n in found.keys() {
            assert!(asked.contains(n), "nobody asked for purchase {n}");
            assert!(!self.of("refused").contains(n), "purchase {n} was refused");
        }
        found.keys().filter(|n| !granted.contains(n)).count()
    }
}

/// Every purchase of a copy by its number.
pub(crate) fn states(copy: &std::path::Path) -> BTreeMap<u64, State> {
    let raw = rusqlite::Connection::open(copy).unwrap();
    let mut statement = raw.prepare("SELECT purchase,state FROM payment").unwrap();
    let row = |r: &rusqlite::Row<'_>| Ok((r.get::<_, String>(0)?, r.get::<_, u8>(1)?));
    let rows = statement.query_map([], row).unwrap().map(Result::unwrap);
    let number = |purchase: &str| purchase.strip_prefix("purchase-").unwrap().parse().unwrap();
    rows.map(|(purchase, state)| (number(&purchase), State::from_number(state).unwrap())).collect()
}

/// What the budget of all purchases must have used: everything but what was released.
pub(crate) fn expected(found: &BTreeMap<u64, State>) -> u64 {
    found.iter().filter(|(_, state)| **state != State::Released).map(|(n, _)| amount(*n)).sum()
}
