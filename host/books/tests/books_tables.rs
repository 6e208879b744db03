//! CSV, FOCUS and JSON lines, read back by Python's own readers.
#![expect(clippy::unwrap_used, reason = "test support: a broken fixture must fail the test loudly")]

mod common;
mod hostile;

use std::fs;

use common::{approval, at, payment, refund};
use countersign_books::Entry;
use countersign_books::export::{Format, Options, export};
use countersign_core::ledger::{PaymentView, RefundSource};
use countersign_core::money::{Atomic, Micros};
use countersign_core::payment::State;
use hostile::{expected, python, world};
use serde_json::Value;

fn written(format: Format, options: Options, payments: &[PaymentView]) -> String {
    let out = export(format, options, payments.iter().map(Entry::of), Vec::new()).unwrap();
    String::from_utf8(out).unwrap()
}

/// Every state, refunds of both kinds, a part redeemed, hostile words everywhere.
#[test]
fn python_reads_back_exactly_what_was_written() {
    let folder = tempfile::tempdir().unwrap();
    for seed in 0..4 {
        let payments = world(seed, 250);
        let options = || Options { states: State::ALL.to_vec(), ..Options::new("USD") };
        let truth = folder.path().join("truth.json");
        fs::write(&truth, expected(&payments).to_string()).unwrap();
        for format in [Format::Csv, Format::Jsonl, Format::Focus] {
            let file = folder.path().join(format.as_str());
            fs::write(&file, written(format, options(), &payments)).unwrap();
            python("read_tables.py", &[format.as_str().as_ref(), file.as_os_str(), truth.as_os_str()]);
        }
    }
}

#[test]
fn denials_are_written_on_request_only() {
    let payments = [payment(1, State::Denied, 10_000), payment(2, State::Settled, 20_000)];
    for format in [Format::Csv, Format::Jsonl] {
        let usual = written(format, Options::new("USD"), &payments);
        assert!(!usual.contains("policy-denied") && usual.contains("settled"), "{usual}");
        let asked = written(format, Options { states: vec![State::Denied], ..Options::new("USD") }, &payments);
        assert!(asked.contains("policy-denied") && !asked.contains("\"settled\"") && asked.contains("deny"), "{asked}");
    }
    for format in [Format::Beancount, Format::Hledger, Format::Focus] {
        let options = Options { states: State::ALL.to_vec(), dust_below: Micros::ZERO, ..Options::new("USD") };
        let text = written(format, options, &payments);
        assert!(!text.contains(&payments[0].id.to_string()) && text.contains(&payments[1].id.to_string()), "{text}");
    }
}

#[test]
fn an_export_is_the_same_bytes_again() {
    let payments = world(9, 60);
    for format in Format::ALL {
        let once = written(format, Options::new("USD"), &payments);
        assert_eq!(once, written(format, Options::new("USD"), &payments));
        assert!(once.len() > 1_000, "{format}");
    }
}

/// A row says why: who decided, on which rules, who approved, from which budget, proven by what.
#[test]
fn every_row_carries_the_why() {
    let mut reviewed = payment(5, State::Settled, 2_000_000);
    let frozen = approval(&reviewed);
    reviewed.approval = Some(frozen.id);
    let entry = Entry { payment: &reviewed, approval: Some(&frozen), record: Some(17) };
    let out = export(Format::Jsonl, Options::new("USD"), [entry], Vec::new()).unwrap();
    let row: Value = serde_json::from_slice(&out).unwrap();
    assert_eq!(row["approvers"][1]["operator"], "bob");
    assert_eq!(row["approvers"][1]["at"], at(3).to_string());
    assert_eq!(row["policies"][0]["module_sha256"], "ab".repeat(32));
    assert_eq!(row["policies"][1]["codes"], "within-caps");
    assert_eq!(row["budgets"][0]["budget"], "wallet/research/day");
    assert_eq!(row["budgets"][0]["spent"], "2");
    assert_eq!((&row["generation"], &row["record"]), (&3.into(), &17.into()));
    assert_eq!(row["settled_at"], at(10).to_string(), "the block's moment");
    for known in ["decision", "mandate", "task", "client", "project", "agent", "user", "workspace", "wallet", "nonce"] {
        assert!(row[known].is_string(), "{known}");
    }
}

#[test]
fn figures_follow_the_money() {
    // Ten micros signed for, 7 redeemed, 5 and then 2 came back.
    let mut part = payment(1, State::Refunded, 10);
    part.evidence.as_mut().unwrap().redeemed = Some(Atomic::new(7));
    part.facts.value = Micros::new(11).unwrap();
    part.refunds = vec![refund(&part, 70, 5), refund(&part, 71, 2)];
    part.refunds[1].source = RefundSource::Person { by: "ann".into(), reference: "mail".into() };
    let row: Value = serde_json::from_str(&written(Format::Jsonl, Options::new("USD"), &[part])).unwrap();
    assert_eq!((&row["settled_amount"], &row["settled_value"]), (&"0.000007".into(), &"0.000008".into()));
    assert_eq!((&row["refunds"][0]["value"], &row["refunds"][1]["value"]), (&"0.000005".into(), &"0.000003".into()));
    assert_eq!((&row["refunded_value"], &row["in_doubt_value"]), (&"0.000008".into(), &"0".into()));
    for state in State::ALL {
        let row = written(
            Format::Jsonl,
            Options { states: State::ALL.to_vec(), ..Options::new("USD") },
            &[payment(1, state, 1_500_000)],
        );
        let row: Value = serde_json::from_str(&row).unwrap();
        let figure = |yes: bool| if yes { "1.5" } else { "0" };
        assert_eq!(row["in_doubt_value"], figure(state.is_open()), "{state:?}");
        assert_eq!(row["settled_value"], figure(state.is_spent()), "{state:?}");
    }
}
