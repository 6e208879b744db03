//! The power is cut, again and again; nothing that was said is lost.

use std::path::PathBuf;

use crate::chance::Chance;
use crate::disk::Disk;
use crate::judge::judge;
use crate::log::{Entry, Kind, read};
use crate::run::{Place, number, text};
use crate::worker::Work;

/// Cuts, unless the environment says otherwise.
const IMAGES: u64 = 150;
/// Cuts of what one worker did.
const EACH: u64 = 50;

/// Many share each sync.
const CROWD: Work = Work { callers: 8, purchases: 20, first: 0, dies: false, bug: None };
/// The log of writes is copied whole while nobody writes, and begun again.
const ALONE: Work = Work { callers: 1, purchases: 120, ..CROWD };

/// Follows a log up to somewhere, cuts the power there, and judges what is left.
fn cut(log: &[Entry], seed: u64) -> Result<usize, String> {
    let mut chance = Chance::new(seed);
    let said: Vec<usize> = (0..log.len()).filter(|at| log[*at].kind == Kind::Said).collect();
    // Half of the cuts are right after something was said: that is when most can be lost.
    let end = if chance.percent(50) { said[chance.index(said.len())] + 1 } else { chance.index(log.len() + 1) };
    let mut disk = Disk::default();
    log[..end].iter().for_each(|entry| disk.follow(entry));
    let image = tempfile::tempdir().unwrap();
    disk.cut(&mut chance, image.path());
    let said: Vec<String> = log[..end].iter().filter_map(Entry::said).collect();
    judge(&image.path().join("ledger.db"), &said).map_err(|why| format!("cut after {end} of {}: {why}", log.len()))
}

/// What a worker did, all of it: what its log tells of is what is there.
fn recorded(work: &Work) -> (Place, Vec<Entry>) {
    let place = Place::new();
    place.work(work, None, true);
    let log = place.read();
    let mut disk = Disk::default();
    log.iter().for_each(|entry| disk.follow(entry));
    let now = disk.now();
    assert!(now.keys().any(|name| name == "ledger.db-wal"), "{:?}", now.keys());
    for file in std::fs::read_dir(&place.folder).unwrap().map(Result::unwrap) {
        let name = file.file_name().into_string().unwrap();
        if name != "said" && !name.ends_with("-shm") {
            let is_known = now.get(&name) == Some(&std::fs::read(file.path()).unwrap());
            assert!(is_known, "something was done to {name} that is not in the log");
        }
    }
    (place, log)
}

/// How often the log of writes was begun again over what had been copied into the database.
fn begun_again(log: &[Entry]) -> usize {
    let begins = |entry: &&Entry| entry.kind == Kind::Write && entry.name == "ledger.db-wal" && entry.offset == 0;
    log.iter().filter(begins).count().saturating_sub(1)
}

/// The cuts with these seeds, on two threads: those that lost something.
fn lost(log: &[Entry], seeds: std::ops::Range<u64>) -> (usize, Vec<(u64, String)>) {
    std::thread::scope(|scope| {
        let half = |half: usize| {
            let cuts = seeds.clone().skip(half).step_by(2).map(|seed| (seed, cut(log, seed)));
            cuts.collect::<Vec<_>>()
        };
        let threads: Vec<_> = (0..2).map(|n| scope.spawn(move || half(n))).collect();
        let (mut told, mut lost) = (0, Vec::new());
        for (seed, cut) in threads.into_iter().flat_map(|thread| thread.join().unwrap()) {
            match cut {
                Ok(there) => told += there,
                Err(why) => lost.push((seed, why)),
            }
        }
        (told, lost)
    })
}

#[test]
fn no_power_cut_loses_what_was_said() {
    if let Some(log) = text("COUNTERSIGN_LOG") {
        let told = cut(&read(&PathBuf::from(log)), number("COUNTERSIGN_SEED", 0)).unwrap_or_else(|why| panic!("{why}"));
        return println!("{told} things that were said are there");
    }
    let images = number("COUNTERSIGN_IMAGES", IMAGES);
    // What the threads do differs from run to run; so may what the same cuts find.
    let first = number("COUNTERSIGN_SEED", 0);
    let (mut told, mut entries, mut again) = (0, 0, 0);
    for round in 0..images.div_ceil(EACH) {
        let (place, log) = recorded(if round.is_multiple_of(2) { &CROWD } else { &ALONE });
        entries += log.len();
        again += begun_again(&log);
        let from = first + round * EACH;
        let (there, lost) = lost(&log, from..first + images.min((round + 1) * EACH));
        told += there;
        if let Some((seed, why)) = lost.first() {
            let kept = std::env::temp_dir().join(format!("countersign-disk-{seed}.log"));
            std::fs::copy(&place.log, &kept).unwrap();
            let replay = "cargo test --release -p countersign-model --test disk power";
            panic!(
                "{} of {EACH} cuts lost something. Seed {seed}: {why}\nrepeat it: COUNTERSIGN_LOG={} COUNTERSIGN_SEED={seed} {replay}",
                lost.len(),
                kept.display()
            );
        }
    }
    println!(
        "{images} cuts from seed {first}: {told} look-ups, none lost; {entries} operations; the log of writes was begun again {again} times"
    );
    assert!(images < 2 * EACH || again > 0, "the log of writes was never begun again");
}

/// A disk that says it synced and did not must be found to lose what was said.
#[test]
fn syncs_that_do_nothing_are_found() {
    let (_place, log) = recorded(&ALONE);
    let serving = log.iter().position(|entry| entry.said().is_some()).unwrap();
    assert!(begun_again(&log) > 0, "the log of writes was never begun again");
    for (name, without) in [("ledger.db-wal", "of the log of writes"), ("ledger.db", "of the database")] {
        let is_lie = |at: usize, entry: &Entry| at > serving && entry.kind == Kind::Sync && entry.name == name;
        let lies = log.iter().enumerate().filter(|(at, entry)| !is_lie(*at, entry));
        let lies: Vec<Entry> = lies.map(|(_, entry)| entry.clone()).collect();
        let (_, lost) = lost(&lies, 0..60);
        println!("without syncs {without}: {} of 60 cuts lose something; {:?}", lost.len(), lost.first());
        assert!(!lost.is_empty(), "without syncs {without}, nothing was found to be lost");
    }
}
