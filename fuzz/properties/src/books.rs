//! The verifier's second half, the books, behind links and a tree that are in order: a fuzzer finds no hash.

use countersign_audit::record;
use countersign_audit::tlog::leaf_hash;
use countersign_audit::verify::Verifier;
use serde_json::{Map, Value};

use crate::logs::{export, key};
use crate::{lines, way};

/// Each line what one record says; numbers, links and the checkpoint are made here.
pub(crate) fn check(bytes: &[u8]) {
    let (first, bodies) = way(bytes);
    let mut prev = [0; 32];
    let mut log = Vec::new();
    for body in lines(bodies).filter_map(|line| serde_json::from_slice::<Map<String, Value>>(line).ok()) {
        let mut body = body;
        let at = body.remove("at").and_then(|at| at.as_u64()).unwrap_or_default();
        let kind = body.remove("kind").and_then(|kind| kind.as_str().map(str::to_owned)).unwrap_or_default();
        let seq = u64::try_from(log.len()).unwrap() + 1;
        if let Ok(line) = record::write(seq, &prev, at, &kind, body) {
            prev = leaf_hash(line.as_bytes());
            log.push(line);
        }
    }
    let mut export = export(&log);
    let verify = |export: &[u8]| Verifier::new(key().public().clone()).read(export);
    let found = verify(&export);
    assert_eq!(found, verify(&export), "the same export is judged in the same way");
    if let Ok(report) = found {
        assert_eq!(report.records, u64::try_from(log.len()).unwrap());
        let at = bodies.len().wrapping_mul(31).wrapping_add(usize::from(first)) % export.len();
        export[at] ^= 1 << (first % 8);
        assert!(verify(&export).is_err(), "byte {at} was changed, and it still holds");
    }
}

/// Logs that hold, for the corpus.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let log = |seed: u64| {
        let bodies = crate::logs::Ledger::new(seed).records(30);
        let lines: Vec<String> = bodies.into_iter().map(|body| Value::Object(body).to_string()).collect();
        format!("0{}", lines.join("\n")).into_bytes()
    };
    (1..=6).map(log).collect()
}
