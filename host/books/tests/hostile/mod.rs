//! Payments whose every word is chosen by somebody hostile, and what each says, told independently of the exports.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test support: a broken fixture must fail the test loudly"
)]
#![allow(dead_code, reason = "each suite uses its part")]
#![allow(clippy::allow_attributes, reason = "what is unused differs between suites, so nothing can be expected")]

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use countersign_core::ledger::{PaymentView, RefundSource};
use countersign_core::money::{Atomic, Micros};
use countersign_core::payment::State;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde_json::{Value, json};

use crate::common::{payment, refund};

/// What breaks readers: ends of strings and lines, formulas, comments, directives, hidden characters.
const NASTY: [&str; 40] = [
    "\"",
    "'",
    "\\",
    "\\\"",
    "\n",
    "\r",
    "\r\n",
    "\t",
    ";",
    "|",
    ",",
    ", evil: x",
    "=",
    "+",
    "-",
    "@",
    "=1+1",
    "=HYPERLINK(\"http://x\")",
    "\"\n2020-01-01 open Assets:Evil\n",
    "\n    Assets:Evil  1 USD\n",
    " ; comment",
    "#tag ^link",
    "(code)",
    "* ",
    "! ",
    "[2020-01-01]",
    "date:2020-01-01",
    "{\"a\":1}",
    "\u{202e}",
    "\u{200b}",
    "\u{feff}",
    "\u{2028}",
    "\u{85}",
    "\0",
    "\u{1b}[2J",
    "\u{1f600}",
    "é",
    "＝1",
    "  ",
    "\\u{41}",
];

fn words() -> impl Strategy<Value = String> {
    let nasty = proptest::sample::select(NASTY.to_vec()).prop_map(str::to_owned);
    let any = "\\PC{0,6}|[ -~]{0,8}".prop_map(String::from);
    proptest::collection::vec(prop_oneof![nasty, any], 0..5).prop_map(|parts| parts.concat())
}

/// The same seed makes the same payments.
pub(crate) fn world(seed: u8, count: u64) -> Vec<PaymentView> {
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[seed; 32]);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let mut word = || words().new_tree(&mut runner).unwrap().current();
    (0..count)
        .map(|n| {
            let state = State::ALL[usize::try_from(n).unwrap() % State::ALL.len()];
            let mut p = payment(n, state, 1 + n * 997 % 30_000);
            // Every third value is not that of its amount to the unit, as with a price that is not one.
            p.facts.value = Micros::new(p.facts.value.get() + n % 3).unwrap();
            let principal = &mut p.facts.principal;
            principal.agent = word();
            principal.user = Some(word());
            principal.client = (n % 4 > 0).then(&mut word);
            principal.project = (n % 5 > 0).then(&mut word);
            principal.task = Some(word());
            p.facts.url = word();
            p.facts.method = word();
            p.facts.host = if n % 2 == 0 { word() } else { p.facts.host };
            p.facts.pay_to = word();
            p.facts.mandate = word();
            p.facts.claims.insert("purpose".into(), word());
            if let Some(last) = p.history.last_mut() {
                last.why = word();
            }
            p.decision.judgement.opinions[0].version = word();
            p.decision.reasons[0].reason.code = word();
            if p.state.is_spent() && n % 3 == 0 {
                let part = p.facts.amount.get() / 2;
                p.evidence.as_mut().unwrap().redeemed = Some(Atomic::new(part));
            }
            if p.state == State::Refunded {
                let whole = p.evidence.as_ref().unwrap().redeemed.unwrap_or(p.facts.amount).get();
                let (a, b) = (whole / 3, whole - whole / 3);
                p.refunds = vec![refund(&p, 2 * n, 0), refund(&p, 2 * n + 1, 0)];
                p.refunds[0].amount = Atomic::new(a);
                p.refunds[1].amount = Atomic::new(b);
                p.refunds[1].source = RefundSource::Person { by: word(), reference: word() };
            }
            p
        })
        .collect()
}

/// What must be read back.
pub(crate) fn expected(payments: &[PaymentView]) -> Value {
    let one = |p: &PaymentView| {
        let f = &p.facts;
        let redeemed = p.evidence.as_ref().and_then(|e| e.redeemed).unwrap_or(f.amount);
        json!({
            "id": p.id, "state": p.state.public(), "open": p.state.is_open(), "spent": p.state.is_spent(),
            "text": {
                "agent": f.principal.agent, "user": f.principal.user, "client": f.principal.client,
                "project": f.principal.project, "task": f.principal.task, "url": f.url, "method": f.method,
                "seller": f.host, "pay_to": f.pay_to, "mandate": f.mandate, "purpose": f.claims["purpose"],
                "why": p.history.last().map(|s| &s.why),
            },
            "version": p.decision.judgement.opinions[0].version,
            "code": p.decision.reasons[0].reason.code,
            // Integers as text: Python has no limit, JSON readers may have.
            "amount": f.amount, "value": f.value.get().to_string(), "redeemed": redeemed,
            "refunds": p.refunds.iter().map(|r| json!({
                "amount": r.amount, "chain": matches!(r.source, RefundSource::Chain { .. }),
                "reference": match &r.source {
                    RefundSource::Chain { transaction, .. } => transaction,
                    RefundSource::Person { reference, .. } => reference,
                },
            })).collect::<Vec<_>>(),
        })
    };
    payments.iter().map(one).collect()
}

/// Runs a reader of `tests/readers` with the Python that `tests/install` made for the books, else with `python3`.
pub(crate) fn python(script: &str, arguments: &[&OsStr]) {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let made = tests.join(".tools/bin/python");
    let python = if made.exists() { made } else { PathBuf::from("python3") };
    let run = Command::new(python).arg("-B").arg(tests.join("readers").join(script)).args(arguments).output();
    let run = run.unwrap_or_else(|e| panic!("python3 is not installed ({e}): run `make test`"));
    let said = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{script}: {}", said.chars().take(4_000).collect::<String>());
}
