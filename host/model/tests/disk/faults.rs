//! One operation on the disk fails; nothing that was said is lost, and who could not write does not write on.

use std::collections::BTreeMap;

use crate::chance::Chance;
use crate::disk::Disk;
use crate::judge::judge;
use crate::log::{Entry, Failed, Kind};
use crate::run::{Place, number, text};
use crate::worker::{Bug, Work};

/// Runs, unless the environment says otherwise.
const RUNS: u64 = 160;
/// Cuts of the power after each run whose sync failed.
const CUTS: u64 = 4;

const ALONE: Work = Work { callers: 1, purchases: 50, first: 0, dies: false, bug: None };

/// What may become of an operation.
fn kinds(entry: &Entry) -> &'static [&'static str] {
    match entry.kind {
        Kind::Write if entry.data.len() > 1 => &["eio", "short", "enospc", "part", "eio!", "enospc!"],
        _ => &["eio", "eio!", "enospc"],
    }
}

/// What came of a run.
struct Ran {
    log: Vec<Entry>,
    place: Place,
}

fn run(work: &Work, fault: Option<&str>) -> Ran {
    let place = Place::new();
    // The machine goes on: what was written and not synced is there for the next process.
    place.work(work, fault, false);
    Ran { log: place.read(), place }
}

impl Ran {
    fn said(&self) -> Vec<String> {
        self.log.iter().filter_map(Entry::said).collect()
    }

    /// The first thing that is wrong; else what happened.
    fn check(&self, number: u64) -> Result<&'static str, String> {
        let failed = self.log.iter().position(|entry| matches!(entry.kind, Kind::Failed(_)));
        let told = match failed {
            Some(at) => self.refuses(at)?,
            None if self.log.iter().any(|entry| entry.number >= number) => "half a write, then the rest",
            None => "the run was over before it",
        };
        judge(&self.place.store(), &self.said())?;
        if failed.is_some_and(|at| self.log[at].kind == Kind::Failed(Failed::Sync)) {
            self.power_fails_too(number)?;
        }
        Ok(told)
    }

    /// After a failed sync and a restart above it the power fails: what that sync should have written is nowhere else.
    fn power_fails_too(&self, seed: u64) -> Result<(), String> {
        let mut disk = Disk::default();
        self.log.iter().for_each(|entry| disk.follow(entry));
        for cut in 0..CUTS {
            let image = tempfile::tempdir().unwrap();
            disk.cut(&mut Chance::new(seed * CUTS + cut), image.path());
            judge(&image.path().join("ledger.db"), &self.said())
                .map_err(|why| format!("after power cut {cut}: {why}"))?;
        }
        Ok(())
    }

    /// The writer whose operation failed must neither write nor say that anything is done, until it was started again.
    fn refuses(&self, failed: usize) -> Result<&'static str, String> {
        let (before, after) = self.log.split_at(failed);
        let is = |what: &'static str| move |entry: &&Entry| entry.said().is_some_and(|said| said == what);
        let serving = before.iter().filter(is("serving")).count() > before.iter().filter(is("closing")).count();
        let by_writer = |entry: &Entry| entry.thread == "ledger-writer" && entry.is_store();
        if !serving {
            return Ok("while opening or closing");
        }
        if !by_writer(&after[0]) {
            return Ok("beside the writer");
        }
        for entry in after.iter().skip(1).take_while(|entry| !is("closing")(entry)) {
            if by_writer(entry) && !matches!(entry.kind, Kind::Failed(_)) {
                return Err(format!("the writer goes on after a failure: {:?} of {}", entry.kind, entry.name));
            }
            let done = entry.said().filter(|said| !["refused ", "tree "].iter().any(|free| said.starts_with(free)));
            if let Some(done) = done {
                return Err(format!("`{done}` was said after a failure of the writer"));
            }
        }
        Ok("of the writer")
    }
}

fn told(fault: &str, why: &str) -> String {
    format!(
        "the disk fails at {fault}: {why}\nrepeat it: COUNTERSIGN_FAULT={fault} cargo test --release -p countersign-model --test disk faults"
    )
}

/// Faults of a run, as `shim.c` reads them: so many, or all.
fn faults(log: &[Entry], wanted: Option<u64>) -> Vec<String> {
    let (mut writes, mut others, mut turn) = (Vec::new(), Vec::new(), 0);
    for entry in log.iter().filter(|entry| entry.kind != Kind::Said) {
        let (n, kinds) = (entry.number, kinds(entry));
        if entry.kind == Kind::Write {
            // Writes are many and alike: each fails in one way, all ways take turns.
            writes.push(format!("{n}:{}", kinds[turn % kinds.len()]));
            turn += 1;
        } else {
            others.extend(kinds.iter().map(|kind| format!("{n}:{kind}")));
        }
    }
    // Half of them writes; spread evenly over the run.
    let spread = |faults: Vec<String>| {
        let wanted = wanted.map_or(faults.len(), |wanted| faults.len().min(usize::try_from(wanted / 2).unwrap()));
        (0..wanted).map(|n| faults[n * faults.len() / wanted].clone()).collect::<Vec<_>>()
    };
    [spread(writes), spread(others)].concat()
}

/// Which operation fails.
fn number_of(fault: &str) -> u64 {
    fault.split_once(':').unwrap().0.parse().unwrap()
}

#[test]
fn no_fault_of_the_disk_loses_what_was_said() {
    if let Some(fault) = text("COUNTERSIGN_FAULT") {
        let ran = run(&ALONE, Some(&fault));
        println!("{}", ran.said().join("\n"));
        let happened = ran.check(number_of(&fault)).unwrap_or_else(|why| panic!("{}", told(&fault, &why)));
        return println!("{fault}: {happened}");
    }
    let whole = run(&ALONE, None);
    whole.check(0).unwrap_or_else(|why| panic!("without any fault: {why}"));
    let said = whole.said();
    assert!(said.iter().all(|line| !line.starts_with("refused")), "{said:?}");
    let wanted = match text("COUNTERSIGN_FAULTS") {
        Some(all) if all == "all" => None,
        _ => Some(number("COUNTERSIGN_FAULTS", RUNS)),
    };
    let chosen = faults(&whole.log, wanted);
    let happened = std::thread::scope(|scope| {
        let half = |half: usize| {
            let chosen = chosen.iter().skip(half).step_by(2);
            let ran = chosen.map(|fault| (fault, run(&ALONE, Some(fault.as_str())).check(number_of(fault))));
            ran.map(|(fault, checked)| checked.map_err(|why| told(fault, &why))).collect::<Vec<_>>()
        };
        let threads: Vec<_> = (0..2).map(|n| scope.spawn(move || half(n))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    let mut tally: BTreeMap<&str, u64> = BTreeMap::new();
    let mut wrong = Vec::new();
    for happened in happened {
        match happened {
            Ok(what) => *tally.entry(what).or_default() += 1,
            Err(why) => wrong.push(why),
        }
    }
    let operations = whole.log.iter().filter(|entry| entry.kind != Kind::Said).count();
    println!("{} faults in {operations} operations that let {} things be said: {tally:?}", chosen.len(), said.len());
    assert!(wrong.is_empty(), "{} runs went wrong:\n{}", wrong.len(), wrong.join("\n\n"));
    assert!(tally.contains_key("of the writer") && tally.contains_key("while opening or closing"), "{tally:?}");
}

/// Faults of some syncs of commits. Early ones: later numbers depend on when the other thread copied.
fn failed_syncs() -> Vec<String> {
    let log = run(&ALONE, None).log;
    let serving = log.iter().position(|entry| entry.said().is_some_and(|said| said == "serving")).unwrap();
    let syncs = log[serving..].iter().filter(|entry| entry.kind == Kind::Sync && entry.name == "ledger.db-wal");
    syncs.skip(3).take(12).map(|entry| format!("{}:eio", entry.number)).collect()
}

/// A process that ends at once when a sync fails, and the one after it.
fn died_and_started_again(fault: &str) -> Ran {
    let place = Place::new();
    place.work(&Work { dies: true, ..ALONE }, Some(fault), false);
    place.work(&Work { first: 100, purchases: 10, ..ALONE }, None, false);
    let log = place.read();
    assert!(log.iter().any(|entry| entry.kind == Kind::Failed(Failed::Sync)), "{fault}: no sync failed");
    Ran { log, place }
}

#[test]
fn a_process_that_dies_of_a_fault_leaves_what_was_said() {
    for fault in failed_syncs() {
        let ran = died_and_started_again(&fault);
        judge(&ran.place.store(), &ran.said()).unwrap_or_else(|why| panic!("the disk fails at {fault}: {why}"));
    }
}

/// Nothing here is believed before it found who lies.
#[test]
fn a_worker_that_lies_is_found() {
    let faults = failed_syncs();
    let fault = faults.last().unwrap();
    let found = |bug: Bug| {
        let ran = run(&Work { bug: Some(bug), ..ALONE }, Some(fault));
        let found = ran.check(number_of(fault)).expect_err("a lie was believed");
        println!("{bug:?} at {fault}: {found}");
        let lost = judge(&ran.place.store(), &ran.said()).expect_err("a lie was believed");
        println!("{bug:?} at {fault}, by what is there alone: {lost}");
    };
    found(Bug::SaysBeforeItIsDone);
    found(Bug::IgnoresErrors);
}

/// A process that ends when a sync fails leaves in memory what never reached the disk, and the system believes it to be
/// written. What the next process says must not rest on that, should the power fail.
#[test]
fn after_a_failed_sync_a_restart_does_not_build_on_what_is_not_there() {
    let (mut cuts, mut wrong) = (0, Vec::new());
    for fault in failed_syncs() {
        let ran = died_and_started_again(&fault);
        let mut disk = Disk::default();
        ran.log.iter().for_each(|entry| disk.follow(entry));
        for cut in 0..10 {
            cuts += 1;
            let image = tempfile::tempdir().unwrap();
            disk.cut(&mut Chance::new(cut), image.path());
            if let Err(why) = judge(&image.path().join("ledger.db"), &ran.said()) {
                wrong.push(format!("the disk fails at {fault}, the process is started again, power cut {cut}: {why}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {cuts} cuts:\n{}", wrong.len(), wrong.join("\n"));
}
