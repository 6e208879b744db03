//! A policy's answer: it is lifted as it was said and within the contract's bounds, or not at all.

use std::collections::BTreeSet;

use countersign_core::verdict::{Decision, FailureKind, Hold, Window};
use countersign_engine::foreign::lifted;

/// The bytes are a decision as records keep it, without any bounds.
pub(crate) fn check(bytes: &[u8]) {
    let Ok(said) = serde_json::from_slice::<Decision>(bytes) else { return };
    match lifted(&said) {
        Ok(decision) => {
            assert_eq!(decision, said, "something else was understood than was said");
            bounded(&decision);
            let again = serde_json::to_string(&decision).unwrap();
            assert_eq!(serde_json::from_str::<Decision>(&again).ok(), Some(decision), "a record is read back");
        }
        Err(failure) => {
            assert!(matches!(failure.kind, FailureKind::Error | FailureKind::Oversize));
            assert!(failure.message.len() < 1_000, "a guest's words fill the record");
        }
    }
}

fn bounded(decision: &Decision) {
    assert!(decision.reasons.len() <= 64 && decision.holds.len() <= 16);
    assert!(decision.obligations.len() <= 16 && decision.notes.len() <= 32);
    for reason in &decision.reasons {
        let kebab = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        assert!(
            (1..=64).contains(&reason.code.len()) && reason.code.bytes().all(kebab) && reason.message.len() <= 4_096
        );
    }
    decision.holds.iter().for_each(hold);
    let windows: BTreeSet<_> = decision.holds.iter().map(|hold| (&hold.budget, &hold.window)).collect();
    assert_eq!(windows.len(), decision.holds.len(), "two holds for one window");
    assert!(decision.review.as_ref().and_then(|r| r.group.as_ref()).is_none_or(|group| group.len() <= 4_096));
    let params = decision.obligations.iter().flat_map(|o| {
        assert!(o.kind.len() <= 4_096 && o.params.len() <= 16);
        &o.params
    });
    assert!(params.chain(&decision.notes).all(|a| a.name.len() <= 4_096 && a.value.len() <= 4_096));
}

fn hold(hold: &Hold) {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._/@:-".contains(&b);
    assert!((1..=200).contains(&hold.budget.len()) && hold.budget.bytes().all(plain), "{:?}", hold.budget);
    assert!((1..=1_000_000_000_000_000).contains(&hold.amount), "an amount of {}", hold.amount);
    for limit in [Some(hold.limit), hold.alert_at, hold.review_at].into_iter().flatten() {
        assert!(limit <= 4_000_000_000_000_000_000, "a limit of {limit}");
    }
    match &hold.window {
        Window::Rolling(seconds) => assert!(*seconds > 0),
        Window::Day(zone) | Window::Month(zone) => {
            let plain = |b: u8| b.is_ascii_alphanumeric() || b"_+/-".contains(&b);
            assert!(zone.len() <= 64 && zone.bytes().all(plain), "{zone:?}");
        }
        Window::Lifetime => {}
    }
}
