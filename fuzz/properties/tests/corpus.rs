//! Every input in `fuzz/corpus` through its property: what was found once is never lost again.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

use std::collections::BTreeSet;
use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use countersign_properties::{ALL, seeds};

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn every_promise_holds_for_every_input() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../corpus");
    let mut broken = Vec::new();
    for (name, property) in ALL {
        let inputs = files(&corpus.join(name));
        assert!(!inputs.is_empty(), "{name}: no inputs");
        let made = seeds(name).into_iter().enumerate().map(|(n, seed)| (format!("{name}: seed {n}"), seed));
        let kept = inputs.iter().map(|input| (input.display().to_string(), fs::read(input).unwrap()));
        for (input, bytes) in made.chain(kept) {
            if catch_unwind(|| property(&bytes)).is_err() {
                broken.push(input);
            }
        }
    }
    assert!(broken.is_empty(), "broken by {broken:#?}");
    let known: BTreeSet<&str> = ALL.iter().map(|(name, _)| *name).collect();
    for folder in files(&corpus) {
        let name = folder.file_name().unwrap().to_str().unwrap().to_owned();
        assert!(known.contains(name.as_str()), "{name}: inputs without a property");
    }
}
