//! What the offline verifier must find, and that a second one, in Python, finds the same.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::Command;

use crate::logs::{Body, Dice, Ledger, chain, checkpoint, export, key, partial, tree};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign_audit::note::Checkpoint;
use countersign_audit::tlog::prove_consistency;
use countersign_audit::verify::{Failure, Fault, Report, Verifier, checkpoint_line, consistency_line};
use serde_json::{Value, json};

fn verify(export: &[u8], older: Option<&str>) -> Result<Report, Failure> {
    let public = key().public().clone();
    match older {
        None => Verifier::new(public).read(export),
        Some(note) => Verifier::since(public.clone(), Checkpoint::open(note, &public).unwrap()).read(export),
    }
}

fn fault(export: &[u8]) -> (u64, Fault) {
    let failure = verify(export, None).unwrap_err();
    (failure.line, failure.fault)
}

fn lines_of(lines: &[String], end: &str) -> Vec<u8> {
    let whole: String = lines.iter().map(String::as_str).chain([end]).map(|line| format!("{line}\n")).collect();
    whole.into_bytes()
}

#[test]
fn a_sound_log_holds() {
    let mut kinds: BTreeMap<String, u64> = BTreeMap::new();
    for seed in 0..200 {
        let lines = chain(&Ledger::new(seed).records(120));
        let report = verify(&export(&lines), None).unwrap_or_else(|e| panic!("seed {seed}: {e}\n{}", lines.join("\n")));
        assert_eq!((report.records, report.partial, report.checkpoint.size), (120, false, 120));
        assert!(report.back.is_some_and(|(back, _)| back < 100), "the clock lags in these logs");
        for (kind, count) in report.kinds {
            *kinds.entry(kind).or_default() += count;
        }
    }
    for kind in ["note", "payment-denied", "payment-review", "payment-signed", "payment-changed"] {
        assert!(kinds[kind] > 100, "{kinds:?}");
    }
    assert_eq!(verify(&export(&[]), None).unwrap().records, 0);
}

#[test]
fn every_flipped_bit_is_found() {
    let lines = chain(&Ledger::new(11).records(200));
    let bytes = export(&lines);
    let starts: Vec<usize> =
        std::iter::once(0).chain(bytes.iter().enumerate().filter(|(_, b)| **b == b'\n').map(|(i, _)| i + 1)).collect();
    assert_eq!(starts.len(), 202);
    // What comes before a flipped bit is as it was: the verifier stands where it stood, and takes the
    // rest. So each of these is what verifying the whole damaged export is.
    let mut standing = Verifier::new(key().public().clone());
    let before: Vec<(Verifier, usize, usize)> = starts
        .windows(2)
        .map(|w| {
            let here = (standing.clone(), w[0], w[1]);
            standing.line(&bytes[w[0]..w[1] - 1]).unwrap();
            here
        })
        .collect();
    let flipped = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4)
            .map(|worker| {
                let (before, mut bytes) = (&before, bytes.clone());
                scope.spawn(move || {
                    let mut flipped = 0_u64;
                    for (verifier, start, end) in before.iter().skip(worker).step_by(4) {
                        for at in *start..*end {
                            for bit in 0..8 {
                                bytes[at] ^= 1 << bit;
                                let found = verifier.clone().read(&bytes[*start..]);
                                assert!(found.is_err(), "byte {at}, bit {bit} went unnoticed");
                                bytes[at] ^= 1 << bit;
                                flipped += 1;
                            }
                        }
                    }
                    flipped
                })
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).sum::<u64>()
    });
    assert_eq!(flipped, bytes.len() as u64 * 8);
}

#[test]
fn what_is_missing_twice_or_elsewhere_is_found() {
    let lines = chain(&Ledger::new(12).records(200));
    let end = checkpoint_line(&checkpoint(&lines, 200));
    assert!(verify(&lines_of(&lines, &end), None).is_ok());
    for at in 0..200 {
        let line = at as u64 + 1;
        let mut dropped = lines.clone();
        dropped.remove(at);
        let expected = if at == 199 { (200, Fault::Root) } else { (line, Fault::Seq) };
        assert_eq!(fault(&lines_of(&dropped, &end)), expected);
        let mut twice = lines.clone();
        twice.insert(at, lines[at].clone());
        assert_eq!(fault(&lines_of(&twice, &end)), (line + 1, Fault::Seq));
        if at < 199 {
            let mut swapped = lines.clone();
            swapped.swap(at, at + 1);
            assert_eq!(fault(&lines_of(&swapped, &end)), (line, Fault::Seq));
        }
    }
    let whole = lines_of(&lines, &end);
    for cut in (0..whole.len()).step_by(97).chain([whole.len() - 1, whole.len() - end.len() - 1]) {
        assert_eq!(fault(&whole[..cut]).1, Fault::Form, "cut at {cut}");
    }
    let mut longer = whole.clone();
    longer.extend(lines[0].as_bytes());
    longer.push(b'\n');
    assert_eq!(fault(&longer), (202, Fault::Form));
}

#[test]
fn a_rewritten_log_is_found_by_an_older_checkpoint_only() {
    let bodies = Ledger::new(13).records(150);
    let lines = chain(&bodies);
    let mut other = bodies;
    other[40].insert("why".into(), "another story".into());
    let forked = chain(&other);
    for size in [0, 1, 40, 41, 64, 150] {
        let kept = checkpoint(&lines, size);
        assert!(verify(&export(&lines), Some(&kept)).unwrap().continues);
        let found = verify(&export(&forked), Some(&kept));
        // What was rewritten comes after the first forty records.
        assert_eq!(found.is_ok(), size <= 40, "{size}");
        assert!(found.map_or_else(|e| e.fault == Fault::Fork, |r| r.continues));
    }
    assert!(verify(&export(&forked), None).is_ok());
    // A log that is shorter than it was.
    let failure = verify(&export(&lines[..100]), Some(&checkpoint(&lines, 150))).unwrap_err();
    assert_eq!(failure.fault, Fault::Fork);
    // The checkpoint of another part of the log.
    assert_eq!(fault(&lines_of(&lines, &checkpoint_line(&checkpoint(&lines, 149)))).1, Fault::Root);
}

#[test]
fn single_records_are_shown_to_be_in_the_log() {
    let bodies = Ledger::new(14).records(90);
    let lines = chain(&bodies);
    let named = |body: &Body| body.get("payment").and_then(Value::as_str).map(str::to_owned);
    let payment = bodies.iter().filter(|b| b["kind"] == "payment-changed").find_map(named).unwrap();
    let places: Vec<usize> = (0..90).filter(|n| named(&bodies[*n]).as_ref() == Some(&payment)).collect();
    assert!(places.len() > 1);
    let end = checkpoint_line(&checkpoint(&lines, 90));
    let shown = partial(&lines, &places);
    let report = verify(&lines_of(&shown, &end), None).unwrap();
    assert_eq!((report.records, report.partial, report.payments), (places.len() as u64, true, 1));
    // Without the payment's first record, its steps hang in the air.
    assert_eq!(fault(&lines_of(&shown[1..], &end)), (1, Fault::Payment));
    // Another record under the same proof, and the same under a proof of another tree.
    let moved = shown[0].replace("\"at\":1", "\"at\":2");
    assert_eq!(fault(&lines_of(&[moved, shown[1].clone()], &end)), (2, Fault::Proof));
    assert_eq!(fault(&lines_of(&shown, &checkpoint_line(&checkpoint(&lines[..89], 89)))).1, Fault::Root);
    assert_eq!(fault(&lines_of(&[shown[0].clone(), lines[1].clone()], &end)), (2, Fault::Form));
    // It continues what was kept, if it proves it.
    let kept = checkpoint(&lines, 33);
    assert_eq!(verify(&lines_of(&shown, &end), Some(&kept)).unwrap_err().fault, Fault::Fork);
    let Ok(proof) = prove_consistency(&tree(&lines), 33, 90);
    let mut continued = shown.clone();
    continued.push(consistency_line(&proof.unwrap(), 33));
    assert!(verify(&lines_of(&continued, &end), Some(&kept)).unwrap().continues);
    let Ok(wrong) = prove_consistency(&tree(&lines), 34, 90);
    *continued.last_mut().unwrap() = consistency_line(&wrong.unwrap(), 33);
    assert_eq!(verify(&lines_of(&continued, &end), Some(&kept)).unwrap_err().fault, Fault::Fork);
}

/// A log written by a dishonest gateway: everything is signed, only what it says is not so.
#[test]
fn books_that_do_not_add_up_are_found() {
    let w = |held: u64, spent: u64, more: Value| {
        let mut entry =
            json!({ "budget": "07".repeat(16), "label": "a", "win": 5, "limit": 100, "held": held, "spent": spent });
        entry.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!([entry])
    };
    let id = |n: u64| format!("pay_{n:032x}");
    let signed = |n: u64, budgets: Value| json!({ "kind": "payment-signed", "at": 1, "payment": id(n), "approval": null, "budgets": budgets });
    let change = |n: u64, from: u8, event: &str, to: u8, version: u64, budgets: Value| {
        json!({ "kind": "payment-changed", "at": 1, "payment": id(n), "from": from, "event": event, "to": to,
                "version": version, "budgets": budgets })
    };
    let check = |bodies: &[Value]| {
        let bodies: Vec<Body> = bodies.iter().map(|b| b.as_object().unwrap().clone()).collect();
        verify(&export(&chain(&bodies)), None).map(drop).map_err(|e| (e.line, e.fault))
    };
    let hold = signed(1, w(60, 0, json!({ "hold": 60 })));
    let settle = change(1, 4, "redeemed", 7, 1, w(0, 50, json!({ "amount": 60, "release": 60, "spend": 50 })));
    let refund = change(1, 7, "refund", 9, 2, w(0, 20, json!({ "refund": 30 })));
    assert_eq!(check(&[hold.clone(), settle.clone(), refund.clone()]), Ok(()));
    let wrong = |at: usize, with: Value, fault| {
        let mut bodies = [hold.clone(), settle.clone(), refund.clone()];
        bodies[at] = with.clone();
        assert_eq!(check(&bodies), Err((at as u64 + 1, fault)), "{with}");
    };
    // Over the limit, and counters that do not follow.
    wrong(0, signed(1, w(101, 0, json!({ "hold": 101 }))), Fault::Limit);
    wrong(0, signed(1, w(u64::MAX, u64::MAX, json!({ "hold": 1 }))), Fault::Limit);
    wrong(0, signed(1, w(59, 0, json!({ "hold": 60 }))), Fault::Budget);
    wrong(0, signed(1, w(60, 0, json!({}))), Fault::Budget);
    wrong(0, signed(1, w(60, 0, json!({ "hold": 60, "release": 1 }))), Fault::Budget);
    wrong(
        1,
        change(1, 4, "redeemed", 7, 1, w(0, 51, json!({ "amount": 60, "release": 60, "spend": 50 }))),
        Fault::Budget,
    );
    wrong(1, change(1, 4, "redeemed", 7, 1, w(0, 0, json!({ "amount": 60, "release": 61 }))), Fault::Budget);
    // Holds: another amount, in part, nothing at all, more than was held, a spent release.
    wrong(
        1,
        change(1, 4, "redeemed", 7, 1, w(0, 50, json!({ "amount": 50, "release": 60, "spend": 50 }))),
        Fault::Hold,
    );
    wrong(
        1,
        change(1, 4, "redeemed", 7, 1, w(10, 50, json!({ "amount": 60, "release": 50, "spend": 50 }))),
        Fault::Hold,
    );
    wrong(1, change(1, 4, "redeemed", 7, 1, json!([])), Fault::Hold);
    wrong(1, change(1, 4, "redeemed", 7, 1, w(60, 0, json!({ "amount": 60 }))), Fault::Hold);
    wrong(
        1,
        change(1, 4, "redeemed", 7, 1, w(0, 61, json!({ "amount": 60, "release": 60, "spend": 61 }))),
        Fault::Hold,
    );
    wrong(1, change(1, 4, "unused", 8, 1, w(0, 50, json!({ "amount": 60, "release": 60, "spend": 50 }))), Fault::Hold);
    wrong(1, change(1, 4, "ambiguous", 5, 1, w(0, 0, json!({ "amount": 60, "release": 60 }))), Fault::Hold);
    wrong(1, json!({ "kind": "note", "at": 1, "budgets": w(0, 0, json!({ "release": 60 })) }), Fault::Hold);
    wrong(1, json!({ "kind": "note", "at": 1, "budgets": w(61, 0, json!({ "hold": 1 })) }), Fault::Hold);
    // A window is brought up to date where a hold is placed, and nowhere else: it could be emptied at will.
    let note = |budgets: Value| json!({ "kind": "note", "at": 1, "budgets": budgets });
    wrong(1, note(w(0, 60, json!({ "aged": 60, "aged-spent": 60 }))), Fault::Hold);
    wrong(1, note(w(0, 0, json!({ "aged": 60 }))), Fault::Hold);
    wrong(1, note(w(60, 5, json!({ "seeded": 5 }))), Fault::Hold);
    wrong(2, note(w(0, 0, json!({ "left": 50 }))), Fault::Hold);
    wrong(
        1,
        change(1, 4, "redeemed", 7, 1, w(0, 50, json!({ "amount": 60, "release": 60, "spend": 50, "hold": 0 }))),
        Fault::Record,
    );
    // More comes back than was spent.
    wrong(2, change(1, 7, "refund", 9, 2, w(0, 50, json!({ "refund": 51, "seeded": 51 }))), Fault::Hold);
    let part = json!({ "amount": 50, "release": 50, "spend": 50 });
    wrong(1, change(1, 4, "redeemed", 7, 1, w(10, 50, part)), Fault::Hold);
    // Steps that are not in the table, from elsewhere, or not the next.
    wrong(1, change(1, 4, "reorganised", 5, 1, json!([])), Fault::Payment);
    wrong(1, change(1, 5, "ambiguous", 5, 1, json!([])), Fault::Payment);
    wrong(1, change(1, 4, "ambiguous", 6, 1, json!([])), Fault::Payment);
    wrong(1, change(1, 4, "ambiguous", 5, 2, json!([])), Fault::Payment);
    wrong(1, change(2, 4, "ambiguous", 5, 1, json!([])), Fault::Payment);
    wrong(1, change(1, 2, "resume", 4, 1, json!([])), Fault::Record);
    wrong(1, change(1, 3, "ambiguous", 5, 1, json!([])), Fault::Record);
    // Twice: the same payment, the same release.
    wrong(1, signed(1, w(60, 0, json!({}))), Fault::Payment);
    let release = change(1, 4, "unused", 8, 1, w(0, 0, json!({ "amount": 60, "release": 60 })));
    assert_eq!(check(&[hold.clone(), release.clone(), release.clone()]), Err((3, Fault::Payment)));
    assert_eq!(check(&[hold.clone(), release, hold.clone()]), Err((3, Fault::Payment)));
    let resumed = json!({ "kind": "payment-signed", "at": 1, "payment": id(1), "approval": "apr_1", "budgets": [] });
    assert_eq!(check(&[hold.clone(), resumed]), Err((2, Fault::Payment)));
    // An aged hold goes back once, from what is spent.
    let aged = signed(2, w(10, 60, json!({ "hold": 10, "aged": 60, "aged-spent": 60 })));
    let back = change(1, 4, "unused", 8, 1, w(10, 0, json!({ "amount": 60, "refund": 60 })));
    assert_eq!(check(&[hold.clone(), aged.clone(), back]), Ok(()));
    let held = change(1, 4, "unused", 8, 1, w(10, 60, json!({ "amount": 60, "release": 60, "hold": 60 })));
    assert_eq!(check(&[hold.clone(), aged, held]), Err((3, Fault::Hold)));
    let more = signed(2, w(0, 70, json!({ "hold": 10, "aged": 70, "aged-spent": 70 })));
    let whole = change(1, 4, "unused", 8, 1, w(0, 10, json!({ "amount": 60, "refund": 60 })));
    assert_eq!(check(&[hold, more, whole]), Ok(()));
}

/// A damaged or sound export, and a checkpoint that was kept.
fn random_case(seed: u64) -> (Vec<u8>, Option<String>) {
    let mut dice = Dice::new(seed ^ 0x5eed);
    let count = 1 + dice.index(30);
    let mut bodies = Ledger::new(seed).records(count);
    let sound = chain(&bodies);
    let at = dice.index(bodies.len());
    let older = (dice.below(4) == 0).then(|| checkpoint(&sound, dice.index(bodies.len() + 1)));
    match dice.below(11) {
        0 => {}
        1 => {
            let mut bytes = export(&sound);
            let at = dice.index(bytes.len());
            bytes[at] ^= 1 << dice.below(8);
            return (bytes, older);
        }
        2 => {
            let mut bytes = export(&sound);
            bytes.truncate(dice.index(bytes.len()));
            return (bytes, older);
        }
        3 => {
            let mut lines = sound.clone();
            let with = dice.index(lines.len());
            lines.swap(at, with);
            return (lines_of(&lines, &checkpoint_line(&checkpoint(&sound, sound.len()))), older);
        }
        // The rest is damage that a dishonest gateway signed.
        4 => drop(bodies.remove(at)),
        5 => bodies.insert(at, bodies[at].clone()),
        6 => {
            let with = dice.index(bodies.len());
            bodies.swap(at, with);
        }
        7 | 8 => {
            // One number of one entry, or of the step.
            let names = [
                "held",
                "spent",
                "limit",
                "amount",
                "hold",
                "release",
                "spend",
                "refund",
                "aged",
                "aged-spent",
                "left",
                "seeded",
            ];
            let name = names[dice.index(names.len())];
            let by = 1 + dice.below(3);
            for body in bodies.iter_mut().skip(at) {
                let entry = body.get_mut("budgets").and_then(Value::as_array_mut).and_then(|list| list.first_mut());
                if let Some(entry) = entry {
                    let of = |name: &str| entry.get(name).and_then(Value::as_u64).unwrap_or(0);
                    let changed = match name {
                        "limit" => (of("held") + of("spent")).saturating_sub(by - 1),
                        _ if dice.below(2) == 0 => of(name).saturating_sub(by),
                        _ => of(name) + by,
                    };
                    entry[name] = changed.into();
                    break;
                }
            }
        }
        9 => {
            let names = ["from", "to", "version", "event", "payment", "approval", "budgets"];
            let values = [json!(5), json!(8), json!("unused"), json!("refund"), json!(null), json!([]), json!(1)];
            let value = values[dice.index(values.len())].clone();
            bodies[at].insert(names[dice.index(names.len())].into(), value);
        }
        _ => {
            let places: Vec<usize> = (0..sound.len()).filter(|_| dice.below(3) == 0).collect();
            let mut lines = partial(&sound, &places);
            if dice.below(2) == 0 {
                let old = 1 + dice.index(sound.len());
                let Ok(proof) = prove_consistency(&tree(&sound), old as u64, sound.len() as u64);
                lines.push(consistency_line(&proof.unwrap(), old as u64));
            }
            let mut bytes = lines_of(&lines, &checkpoint_line(&checkpoint(&sound, sound.len())));
            if dice.below(2) == 0 {
                let at = dice.index(bytes.len());
                bytes[at] ^= 1 << dice.below(8);
            }
            return (bytes, older);
        }
    }
    (export(&chain(&bodies)), older)
}

#[test]
fn an_independent_verifier_agrees() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let mut ours = Vec::new();
    let mut codes: BTreeMap<&str, u64> = BTreeMap::new();
    for seed in 0..1_200 {
        let (bytes, older) = random_case(seed);
        let answer = verify(&bytes, older.as_deref());
        *codes.entry(answer.as_ref().map_or_else(|e| e.fault.code(), |_| "ok")).or_default() += 1;
        ours.push(match answer {
            Ok(report) => format!("ok {}", report.records),
            Err(e) => format!("{} {}", e.line, e.fault.code()),
        });
        let case = json!({ "key": key().public().to_string(), "export": STANDARD.encode(&bytes), "older": older });
        writeln!(file, "{case}").unwrap();
    }
    // The agreement means something only if every fault occurs, and soundness too.
    for code in [
        "ok",
        "form",
        "record",
        "seq",
        "prev",
        "payment",
        "budget",
        "limit",
        "hold",
        "proof",
        "checkpoint",
        "root",
        "fork",
    ] {
        assert!(codes.get(code).is_some_and(|n| *n >= 3), "{code}: {codes:?}");
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/audit/verify.py");
    let output = Command::new("python3").arg(script).arg("--cases").arg(file.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let theirs = String::from_utf8(output.stdout).unwrap();
    let differ: Vec<_> = theirs.lines().zip(&ours).enumerate().filter(|(_, (a, b))| a != b).collect();
    assert_eq!(theirs.lines().count(), ours.len());
    assert!(differ.is_empty(), "seed, (theirs, ours): {:?}", &differ[..differ.len().min(20)]);
}
