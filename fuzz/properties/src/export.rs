//! The auditor's verifier: nothing holds but what the log's key has signed, to the byte.

use std::sync::LazyLock;

use countersign_audit::note::Checkpoint;
use countersign_audit::tlog::prove_consistency;
use countersign_audit::verify::{Verifier, checkpoint_line, consistency_line};

use crate::logs::{Ledger, chain, checkpoint, key, partial, tree};
use crate::{lines, way};

/// How many records the log has, and how many it had at the older checkpoint.
const SIZE: usize = 8;
const OLDER: usize = 3;

struct Log {
    lines: Vec<String>,
    /// What the key has ever signed: the log at each of its sizes.
    notes: Vec<String>,
}

static LOG: LazyLock<Log> = LazyLock::new(|| {
    let lines = chain(&Ledger::new(21).records(SIZE));
    let notes = (0..=SIZE).map(|size| checkpoint(&lines, size)).collect();
    Log { lines, notes }
});

/// An even first byte: a first export; an odd one: one that must continue the older checkpoint.
pub(crate) fn check(bytes: &[u8]) {
    let (first, export) = way(bytes);
    let public = key().public().clone();
    let verifier = if first % 2 == 0 {
        Verifier::new(public)
    } else {
        let older = Checkpoint::open(&LOG.notes[OLDER], &public).unwrap();
        Verifier::since(public, older)
    };
    let count = u64::try_from(lines(export).count()).unwrap();
    let report = match verifier.read(export) {
        Ok(report) => report,
        Err(failure) => {
            assert!((1..=count.saturating_add(1)).contains(&failure.line) && !failure.why.is_empty());
            return;
        }
    };
    let size = usize::try_from(report.checkpoint.size).unwrap();
    assert!(size <= SIZE, "a checkpoint that was never signed");
    let signed = Checkpoint::open(&LOG.notes[size], key().public()).unwrap();
    assert_eq!(report.checkpoint, signed);
    assert_eq!(report.continues, first % 2 == 1);
    assert!(!report.continues || size >= OLDER);
    let shown: Vec<&[u8]> = lines(export).collect();
    if report.partial {
        let consistency = shown.iter().filter(|line| line.starts_with(b"{\"consistency\":")).count();
        let records = shown.iter().filter(|line| line.starts_with(b"{\"proof\":"));
        let known =
            |line: &&&[u8]| LOG.lines.iter().any(|own| line.ends_with(format!(",\"record\":{own}}}").as_bytes()));
        assert_eq!(u64::try_from(records.filter(known).count()).unwrap(), report.records, "a record that is not one");
        assert_eq!(shown.len(), usize::try_from(report.records).unwrap() + consistency + 2);
    } else {
        // The last line may bear more signatures than the log's.
        assert_eq!(shown.len(), size + 2);
        assert!(shown.iter().zip(&LOG.lines[..size]).all(|(line, own)| *line == own.as_bytes()), "a changed record");
    }
}

/// Exports that hold, for the corpus: the property is of no use to a fuzzer that cannot find one.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let log = &*LOG;
    let text = |way: &str, lines: Vec<String>| format!("{way}{}\n", lines.join("\n")).into_bytes();
    let end = |size: usize| checkpoint_line(&log.notes[size]);
    let whole = |size: usize| [log.lines[..size].to_vec(), vec![end(size)]].concat();
    let Ok(proof) = prove_consistency(&tree(&log.lines), OLDER as u64, SIZE as u64);
    let consistency = consistency_line(&proof.unwrap(), OLDER as u64);
    vec![
        text("0", whole(0)),
        text("0", whole(2)),
        text("0", whole(SIZE)),
        text("1", whole(5)),
        text("0", [partial(&log.lines, &[1, 2, 6]), vec![end(SIZE)]].concat()),
        text("1", [partial(&log.lines, &[4]), vec![consistency, end(SIZE)]].concat()),
    ]
}
