//! The process whose disk fails: it buys, and says what it was told. Started by [`crate::run`] as a test of its own.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use countersign_core::evm::hex32;
use countersign_core::ledger::{
    Answer, Commit, Committed, Denial, Evidence, Fut, Ledger, LedgerError, Refund, RefundSource, Refusal, Transition,
};
use countersign_core::money::Atomic;
use countersign_core::payment::{Event, State};
use countersign_core::time::Timestamp;
use countersign_core::verdict::Verdict;
use countersign_ledger::{Options, SqliteLedger};

use crate::chance::Chance;
use crate::purchase::{Wish, sign};
use crate::together::block;

pub(crate) const START: Timestamp = Timestamp::from_secs(1_800_000_000);

/// What a worker does wrong, on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
    /// It says that something is done before it asks for it.
    SaysBeforeItIsDone,
    /// It says so although it was refused.
    IgnoresErrors,
}

/// What a worker is to do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Work {
    /// Callers at a time.
    pub(crate) callers: u64,
    /// Purchases of each.
    pub(crate) purchases: u64,
    /// The number of its first purchase.
    pub(crate) first: u64,
    /// Whether it ends without closing its store at the first refusal to write, as if killed.
    pub(crate) dies: bool,
    pub(crate) bug: Option<Bug>,
}

impl Work {
    /// What [`Work::parse`] reads.
    pub(crate) fn print(&self) -> String {
        let bug = match self.bug {
            None => 0,
            Some(Bug::SaysBeforeItIsDone) => 1,
            Some(Bug::IgnoresErrors) => 2,
        };
        format!("{} {} {} {} {bug}", self.callers, self.purchases, self.first, u8::from(self.dies))
    }

    fn parse(text: &str) -> Self {
        let numbers: Vec<u64> = text.split(' ').map(|number| number.parse().unwrap()).collect();
        let [callers, purchases, first, dies, bug] = numbers[..] else { panic!("not a work: {text}") };
        let bug = match bug {
            0 => None,
            1 => Some(Bug::SaysBeforeItIsDone),
            _ => Some(Bug::IgnoresErrors),
        };
        Self { callers, purchases, first, dies: dies == 1, bug }
    }
}

pub(crate) fn options() -> Options {
    Options { readers: 1, ..Options::new([7; 32], [9; 16]) }
}

/// Purchase `n`; ids and moments follow from it.
pub(crate) fn wish(n: u64) -> Wish {
    let amount = Chance::new(n).between(300, 1_500);
    Wish { seed: 1, n, purchase: n, amount, at: START.plus_millis(n * 100), valid_seconds: 60 }
}

struct Worker {
    work: Work,
    said: Mutex<File>,
}

impl Worker {
    fn say(&self, what: &str) {
        // In one write: one entry of the log.
        self.said.lock().unwrap().write_all(format!("{what}\n").as_bytes()).unwrap();
    }

    /// Asks, and says what came of it.
    fn tell<T>(&self, what: &str, asked: Fut<'_, Result<T, LedgerError>>) -> Option<T> {
        if self.work.bug == Some(Bug::SaysBeforeItIsDone) {
            self.say(what);
            return block(asked).ok();
        }
        match block(asked) {
            Ok(value) => {
                self.say(what);
                Some(value)
            }
            Err(error) => {
                self.refuse(what, &error);
                if self.work.bug == Some(Bug::IgnoresErrors) {
                    self.say(what);
                }
                None
            }
        }
    }

    fn refuse(&self, what: &str, error: &LedgerError) {
        self.say(&format!("refused {what}: {error}"));
        if self.work.dies {
            std::process::exit(0);
        }
    }

    fn buy(&self, ledger: &SqliteLedger, n: u64) {
        let wish = wish(n);
        let (payment, at) = (wish.payment(), wish.at);
        let id = hex::encode(payment.as_bytes());
        let mut chance = Chance::new(!n);
        let commit = wish.commit(at);
        if chance.percent(10) {
            // An equal denial just before may stand for this one.
            match block(ledger.deny(denial(commit))) {
                Ok(denied) => self.say(&format!("denied {}", hex::encode(denied.as_bytes()))),
                Err(error) => self.refuse(&format!("denied {id}"), &error),
            }
            return;
        }
        if self.work.bug == Some(Bug::SaysBeforeItIsDone) {
            self.say(&format!("granted {id}"));
        }
        match block(ledger.commit(commit)) {
            Ok(Committed::Granted { .. }) if self.work.bug != Some(Bug::SaysBeforeItIsDone) => {
                self.say(&format!("granted {id}"));
            }
            Ok(Committed::Granted { .. }) => {}
            Ok(Committed::Refused(Refusal::Budget(_))) => return self.say(&format!("full {id}")),
            Ok(other) => panic!("{other:?}"),
            Err(error) => {
                self.refuse(&format!("granted {id}"), &error);
                if self.work.bug != Some(Bug::IgnoresErrors) {
                    return;
                }
                self.say(&format!("granted {id}"));
            }
        }
        let step = |from: State, event: Event, evidence: Evidence| {
            let why = event.name().to_owned();
            let transition = Transition { payment, from, event, why, evidence: Some(Box::new(evidence)), at };
            self.tell(&format!("{} {id}", event.name()), ledger.transition(transition))
        };
        let transaction = Some(hex32::print(&[u8::try_from(n % 251).unwrap(); 32]));
        let fate = chance.below(10);
        if fate == 0 {
            step(State::Signed, Event::SignerRefused, Evidence::default());
            return;
        }
        self.tell(&format!("signature {id}"), ledger.store_signature(payment, sign(&[7; 32])));
        let open = if fate < 4 {
            step(State::Signed, Event::Ambiguous, Evidence::default())
        } else {
            let evidence = Evidence { transaction: transaction.clone(), ..Evidence::default() };
            let seen = step(State::Signed, Event::Receipt, evidence);
            let answer = Answer { status: 200, headers: vec![], body: vec![7; 3_000] };
            self.tell(&format!("delivered {id}"), ledger.answered(payment, Some(answer), true, at));
            seen
        };
        let Some(open) = open else { return };
        let chain = Evidence {
            block: Some(n + 1),
            block_hash: Some(hex32::print(&[2; 32])),
            block_time: Some(at.as_secs() + 100),
            nodes: Some(2),
            ..Evidence::default()
        };
        if chance.percent(70) {
            step(open, Event::Unused, chain);
        } else if chance.percent(80) {
            let redeemed = Atomic::new(u128::from(chance.between(1, 40)));
            let evidence = Evidence { transaction: transaction.clone(), redeemed: Some(redeemed), ..chain };
            let settled = step(open, Event::Redeemed, evidence);
            if let (Some(_), Some(transaction), true) = (settled, transaction, chance.percent(50)) {
                let source = RefundSource::Chain { transaction, log: n, block: n + 1 };
                let refund = Refund { payment, amount: Atomic::new(1), source, at };
                self.tell(&format!("came-back {id}"), ledger.refund(refund));
            }
        }
        if n.is_multiple_of(5)
            && let Ok(head) = block(ledger.tree_head())
        {
            self.say(&format!("tree {} {}", head.size, hex::encode(head.root)));
        }
    }

    /// Opens the store, lets all callers buy their part of the purchases, and closes it.
    fn serve(&self, path: &Path, from: u64, to: u64) {
        let now = START.plus_millis(from * 100);
        let ledger = match SqliteLedger::open(path, options(), now) {
            Ok(ledger) => ledger,
            Err(error) => return self.say(&format!("refused opening: {error}")),
        };
        self.say("serving");
        std::thread::scope(|scope| {
            for caller in 0..self.work.callers {
                let ledger = &ledger;
                scope.spawn(move || {
                    (from..to).filter(|n| n % self.work.callers == caller).for_each(|n| self.buy(ledger, n))
                });
            }
        });
        self.say("closing");
    }
}

fn denial(commit: Commit) -> Denial {
    let Commit { payment, key, fingerprint, facts, mut decisions, at, .. } = commit;
    for decision in &mut decisions {
        decision.verdict = Verdict::Deny;
        decision.refusal = Some("policy-denied".to_owned());
    }
    Denial { payment, key, fingerprint, facts, decisions, code: "policy-denied".to_owned(), at }
}

/// The folder and the work this process was started for, if it was.
fn task() -> Option<(PathBuf, Work)> {
    let variable = |wanted: &str| std::env::vars().find(|(name, _)| name == wanted).map(|(_, value)| value);
    Some((variable("DISK_FOLDER")?.into(), Work::parse(&variable("DISK_WORK")?)))
}

/// Nothing, unless this process was started to be the worker.
#[test]
fn worker() {
    let Some((folder, work)) = task() else { return };
    let said = OpenOptions::new().append(true).create(true).open(folder.join("said")).unwrap();
    let worker = Worker { work, said: Mutex::new(said) };
    let (first, all) = (work.first, work.callers * work.purchases);
    let path = folder.join("ledger.db");
    // In two halves, so that a store that is there already is opened too.
    worker.serve(&path, first, first + all / 2);
    worker.serve(&path, first + all / 2, first + all);
}
