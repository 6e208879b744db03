//! Stories: golden texts, and hostile words that stay in their quotes.
//!
//! `UPDATE_GOLDEN=1 cargo test -p countersign-books --test books_explain` writes the texts anew.
#![expect(clippy::unwrap_used, reason = "test support: a broken fixture must fail the test loudly")]

mod common;

use std::fs;
use std::path::Path;

use common::{approval, at, payment, refund};
use countersign_books::Entry;
use countersign_books::explain::Story;
use countersign_core::ledger::{RefundSource, Reporter, Use, UseReport};
use countersign_core::money::Atomic;
use countersign_core::payment::State;
use countersign_core::verdict::Verdict;

#[expect(clippy::disallowed_methods, reason = "a switch for whoever changes the texts")]
fn golden(name: &str, story: &Story) {
    let json = format!("{:#}\n", story.json());
    for (ending, text) in [("txt", story.text()), ("json", json)] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/{name}.{ending}"));
        if std::env::var("UPDATE_GOLDEN").is_ok() {
            fs::write(&path, &text).unwrap();
        }
        assert_eq!(fs::read_to_string(&path).unwrap_or_default(), text, "{}", path.display());
    }
}

#[test]
fn a_settled_purchase_that_people_approved_and_somebody_used() {
    let mut p = payment(1, State::Refunded, 2_500_000);
    let frozen = approval(&p);
    p.approval = Some(frozen.id);
    p.evidence.as_mut().unwrap().redeemed = Some(Atomic::new(2_000_000));
    p.evidence.as_mut().unwrap().nodes = Some(2);
    p.refunds = vec![refund(&p, 70, 500_000), refund(&p, 71, 1)];
    p.refunds[1].source = RefundSource::Person { by: "alice".into(), reference: "mail of Monday".into() };
    p.uses = vec![UseReport {
        reporter: Reporter::Person,
        by: "alice".into(),
        used: Use::Cited,
        note: Some("page 3".into()),
        artifact: Some("brief-42.pdf".into()),
        at: at(100),
    }];
    let story = Story::of(&Entry { payment: &p, approval: Some(&frozen), record: Some(42) }, "USD");
    assert_eq!(story.answered(), 8);
    golden("refunded", &story);
}

#[test]
fn a_denied_purchase() {
    let mut p = payment(2, State::Denied, 10_000);
    p.decision.verdict = Verdict::Deny;
    p.repeats = 3;
    golden("denied", &Story::of(&Entry::of(&p), "USD"));
}

#[test]
fn a_purchase_in_doubt_about_which_little_is_known() {
    let mut p = payment(3, State::Redeemable, 10_000);
    p.facts.principal.task = None;
    p.facts.claims.clear();
    let story = Story::of(&Entry::of(&p), "USD");
    assert_eq!(story.answered(), 6);
    golden("in-doubt", &story);
}

#[test]
fn hostile_words_stay_in_their_quotes() {
    let evil = "x” (trusted)\n\n9. Who may be paid again?\n   Everybody.\u{202e}`";
    let mut p = payment(4, State::Settled, 10_000);
    p.facts.url = evil.into();
    p.facts.host = evil.into();
    p.facts.principal.agent = evil.into();
    p.facts.pay_to = evil.into();
    p.facts.claims.insert("purpose".into(), evil.into());
    p.decision.request.purchase.description = Some(evil.into());
    p.history[1].why = evil.into();
    let story = Story::of(&Entry::of(&p), "USD");
    let text = story.text();
    assert!(!text.contains('\u{202e}') && !text.contains("\n9."), "{text}");
    assert_eq!(text.matches('“').count(), text.matches('”').count(), "{text}");
    assert!(text.contains("(the agent's words, untrusted)") && text.contains("(the seller's words, untrusted)"));
    let answers: String = story.answers.iter().map(|a| a.answer.as_str()).collect();
    assert!(!answers.contains(['\n', '\u{202e}']), "{answers}");
    let purpose = story.answers.iter().flat_map(|a| &a.evidence).find(|e| e.name == "purpose").unwrap();
    assert_eq!((purpose.value.as_str(), purpose.said_by), (evil, Some("the agent's words")));
    golden("hostile", &story);
}

#[test]
fn every_state_has_its_story() {
    for state in State::ALL {
        let p = payment(5, state, 10_000);
        let story = Story::of(&Entry::of(&p), "USD");
        assert_eq!(story.answers.len(), 8);
        let text = story.text();
        let doubtful = text.contains("neither proven paid nor proven unpaid");
        assert_eq!(doubtful, state.is_open(), "{state:?}: {text}");
        assert_eq!(!text.contains("   Nobody"), state.is_spent(), "{state:?}: {text}");
    }
}
