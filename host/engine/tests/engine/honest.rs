//! What honest policies get: their whole question, their whole answer, a fresh instance, a log.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::support::{Guest, Layout, decision_id, engine, failed, full_decision, judge_one, request, says};
use countersign_core::seams::Judge;
use countersign_core::spend::{Attribute, SpendRequest};
use countersign_core::verdict::{Decision, FailureKind, LogLine, Mode, Verdict, combine};
use countersign_engine::{PolicySpec, PolicyState, Stage};

#[test]
fn every_verdict_arrives_as_it_was_given() {
    for verdict in [Verdict::Deny, Verdict::Review, Verdict::Allow, Verdict::Abstain] {
        let set = engine().stage(7, &[Guest::answering(&says(verdict)).spec("p")]).unwrap();
        let opinion = judge_one(&set, "p", &request());
        assert_eq!(opinion.outcome, Ok(says(verdict)));
        assert_eq!(set.generation(), 7);
    }
}

#[test]
fn everything_a_decision_can_carry_arrives() {
    let set = engine().stage(1, &[Guest::answering(&full_decision()).spec("p")]).unwrap();
    assert_eq!(judge_one(&set, "p", &request()).outcome, Ok(full_decision()));
}

/// A guest that answers with one note per field of the request, so that every field is seen from the
/// inside.
fn echo(strings: &[&str], numbers: &[(&str, &str)]) -> Guest {
    let layout = Layout::new();
    let mut guest = Guest::new();
    let mut decision = says(Verdict::Allow);
    decision.notes = (0..strings.len()).map(|_| Attribute { name: String::new(), value: String::new() }).collect();
    decision.holds = (0..numbers.len())
        .map(|i| countersign_core::verdict::Hold { budget: format!("f{i}"), ..full_decision().holds[0].clone() })
        .collect();
    let at = guest.data.answer(&decision);
    // Result discriminant and verdict take 8 bytes; then reasons, holds, review (24), obligations, notes.
    let (holds, notes) = (at + 16, at + 16 + 8 + 24 + 8);
    for (i, path) in strings.iter().enumerate() {
        let from = layout.at(path);
        let to = format!("(i32.add (i32.load (i32.const {notes})) (i32.const {}))", i * 16 + 8);
        guest.evaluate = format!(
            "{}\n(i64.store align=4 {to} (i64.load offset={from} align=4 (local.get $req)))",
            if i == 0 { "" } else { &guest.evaluate }
        );
    }
    for (i, (path, load)) in numbers.iter().enumerate() {
        let from = layout.at(path);
        let to = format!("(i32.add (i32.load (i32.const {holds})) (i32.const {}))", i * 72 + 24);
        guest.evaluate.push_str(&format!("\n(i64.store {to} ({load} offset={from} (local.get $req)))"));
    }
    guest.evaluate.push_str(&format!("\n(i32.const {at})"));
    guest
}

#[test]
fn every_field_of_the_request_reaches_the_policy() {
    let strings = [
        ("id", request().id.to_string()),
        ("purchase-id", "T-42".into()),
        ("principal.agent", "scout".into()),
        ("principal.user?", "kim".into()),
        ("principal.workspace?", "research".into()),
        ("principal.session?", "ses_1".into()),
        ("principal.client?", "acme".into()),
        ("principal.project?", "atlas".into()),
        ("principal.task?", "brief-42".into()),
        ("purchase.method", "GET".into()),
        ("purchase.url", "https://api.example.com/quote".into()),
        ("purchase.host", "api.example.com".into()),
        ("purchase.path", "/quote".into()),
        ("purchase.query-digest?", "qd".into()),
        ("purchase.body-digest?", "bd".into()),
        ("purchase.description?", "a quote".into()),
        ("purchase.media-type?", "application/json".into()),
        ("purchase.category?", "data".into()),
        ("seller.host", "api.example.com".into()),
        ("seller.pay-to", "0xPayee".into()),
        ("payment.rail", "x402".into()),
        ("payment.scheme", "exact".into()),
        ("payment.network", "eip155:8453".into()),
        ("payment.asset", "0xAsset".into()),
        ("payment.asset-symbol", "USDC".into()),
        ("payment.amount", "123456".into()),
        ("payment.wallet", "main".to_owned()),
    ];
    let numbers = [
        ("at", "i64.load", 1_795_346_471_005),
        ("seller.host-first-paid?", "i64.load", 11),
        ("seller.pay-to-first-paid?", "i64.load", 12),
        ("seller.last-price?", "i64.load", 13),
        ("seller.judged", "i64.load32_u", 14),
        ("seller.useful", "i64.load32_u", 15),
        ("payment.value", "i64.load", 123_457),
        ("payment.valid-for-seconds", "i64.load32_u", 300),
        ("payment.asset-decimals", "i64.load8_u", 6),
        ("payment.commitment", "i64.load8_u", 2),
        ("purchase.observed", "i64.load8_u", 1),
        ("seller.pay-to-changed", "i64.load8_u", 1),
        ("history.agent-hour.count", "i64.load32_u", 21),
        ("history.seller-lifetime.value", "i64.load", 25_000),
        ("history.repeats", "i64.load32_u", 26),
    ];
    let loads: Vec<(&str, &str)> = numbers.iter().map(|(p, l, _)| (*p, *l)).collect();
    let names: Vec<&str> = strings.iter().map(|(p, _)| *p).collect();
    let set = engine().stage(1, &[echo(&names, &loads).spec("echo")]).unwrap();
    let seen = judge_one(&set, "echo", &request()).outcome.unwrap();
    for (note, (path, want)) in seen.notes.iter().zip(&strings) {
        assert_eq!(note.value, *want, "{path}");
    }
    assert_eq!((seen.notes.len(), seen.holds.len()), (strings.len(), loads.len()));
    for (hold, (path, _, want)) in seen.holds.iter().zip(&numbers) {
        assert_eq!(hold.limit, *want, "{path}");
    }
}

/// A guest whose only hold's limit is the number at `load`.
fn counting(load: &str) -> Guest {
    let mut guest = Guest::new();
    let mut decision = says(Verdict::Allow);
    decision.holds = vec![full_decision().holds[0].clone()];
    let at = guest.data.answer(&decision);
    guest.evaluate = format!("(i64.store offset=24 (i32.load (i32.const {})) {load}) (i32.const {at})", at + 16);
    guest
}

fn counted(decision: &Decision) -> u64 {
    decision.holds[0].limit
}

#[test]
fn claims_reach_only_policies_configured_for_them() {
    let at = Layout::new().at("claims");
    let guest = counting(&format!("(i64.load32_u offset={} (local.get $req))", at + 4));
    let specs =
        [PolicySpec { claims: true, ..guest.spec("told") }, PolicySpec { claims: false, ..guest.spec("untold") }];
    let set = engine().stage(1, &specs).unwrap();
    let judgement = set.judge(&["told".into(), "untold".into()], &request());
    let seen: Vec<u64> = judgement.opinions.iter().map(|o| counted(o.outcome.as_ref().unwrap())).collect();
    assert_eq!(seen, [1, 0]);
}

#[test]
fn every_decision_gets_a_fresh_instance() {
    let mut guest = counting("(i64.extend_i32_u (global.get $calls))");
    guest.globals = "(global $calls (mut i32) (i32.const 0))".into();
    guest.evaluate = format!("(global.set $calls (i32.add (global.get $calls) (i32.const 1))) {}", guest.evaluate);
    let set = engine().stage(1, &[guest.spec("p")]).unwrap();
    for _ in 0..200 {
        assert_eq!(counted(&judge_one(&set, "p", &request()).outcome.unwrap()), 1);
    }
}

#[test]
fn memory_of_one_decision_is_gone_in_the_next() {
    // Counts up in a byte far into memory that nothing initialises.
    let mut guest = counting("(i64.load8_u (i32.const 900000))");
    guest.evaluate = format!(
        "(i32.store8 (i32.const 900000) (i32.add (i32.load8_u (i32.const 900000)) (i32.const 1))) {}",
        guest.evaluate
    );
    let set = engine().stage(1, &[guest.spec("p")]).unwrap();
    for _ in 0..200 {
        assert_eq!(counted(&judge_one(&set, "p", &request()).outcome.unwrap()), 1);
    }
}

#[test]
fn configure_sees_the_settings_before_every_evaluate() {
    let mut guest = counting("(i64.extend_i32_u (global.get $seen))");
    guest.globals = "(global $seen (mut i32) (i32.const 0))".into();
    guest.configure = format!("(global.set $seen (i32.add (global.get $seen) (local.get $len))) {}", guest.configure);
    let settings = r#"{"hosts":["a"]}"#;
    let spec = PolicySpec { settings: settings.into(), ..guest.spec("p") };
    let set = engine().stage(1, &[spec]).unwrap();
    for _ in 0..3 {
        let seen = counted(&judge_one(&set, "p", &request()).outcome.unwrap());
        assert_eq!(seen, settings.len() as u64, "once per instance");
    }
}

#[test]
fn opinions_say_who_spoke() {
    let spec = PolicySpec { mode: Mode::Monitor, ..Guest::allowing().spec("watch") };
    let sha = engine().inspect(&spec.module).unwrap().sha256;
    let set = engine().stage(1, &[spec]).unwrap();
    let opinion = judge_one(&set, "watch", &request());
    assert_eq!(opinion.policy, "watch");
    assert_eq!(opinion.version, "1.2.3");
    assert_eq!(opinion.module_sha256, sha);
    // SHA-256 of `{}`.
    assert_eq!(opinion.settings_sha256, "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a");
    assert_eq!(opinion.mode, Mode::Monitor);
    assert!(opinion.fuel > 0 && opinion.fuel < 100_000, "{}", opinion.fuel);
}

#[test]
fn order_and_unknown_names_are_kept() {
    let specs = [Guest::allowing().spec("a"), Guest::answering(&says(Verdict::Deny)).spec("b")];
    let set = engine().stage(3, &specs).unwrap();
    let judgement = set.judge(&["b".into(), "ghost".into(), "a".into(), "b".into()], &request());
    assert_eq!(judgement.generation, 3);
    let names: Vec<&str> = judgement.opinions.iter().map(|o| o.policy.as_str()).collect();
    assert_eq!(names, ["b", "ghost", "a", "b"]);
    assert_eq!(failed(&judgement.opinions[1]).0, FailureKind::Unavailable);
    assert_eq!(judgement.opinions[1].mode, Mode::Enforce, "a missing policy must count");
    assert!(set.judge(&[], &request()).opinions.is_empty());
    assert!(set.contains("a") && !set.contains("ghost"));
}

#[test]
fn log_lines_land_in_the_opinion() {
    let mut guest = Guest::allowing().logging();
    let at = guest.data.put("checked the vendor".as_bytes(), 1);
    let line = |level: u8| format!("(call $log (i32.const {level}) (i32.const {at}) (i32.const 18))");
    guest.configure = format!("{} {}", line(3), guest.configure);
    guest.evaluate = format!("{} {} {}", line(0), line(2), guest.evaluate);
    let set = engine().stage(1, &[guest.spec("p")]).unwrap();
    let line = |level: &str| LogLine { level: level.into(), message: "checked the vendor".into() };
    let opinion = judge_one(&set, "p", &request());
    assert_eq!(opinion.log, [line("debug"), line("warn")], "and not what configure said");
    assert_eq!(set.status()[0].imports, ["countersign:policy/log@0.1.0", "countersign:policy/types@0.1.0"]);
}

#[test]
fn an_error_is_a_failure_with_the_policys_words() {
    let mut guest = Guest::new();
    let at = guest.error("no such client");
    guest.evaluate = format!("(i32.const {at})");
    let set = engine().stage(1, &[guest.spec("p")]).unwrap();
    let (kind, message) = failed(&judge_one(&set, "p", &request()));
    assert_eq!((kind, message.as_str()), (FailureKind::Error, "evaluate: no such client"));
}

#[test]
fn the_same_question_gets_the_same_answer_and_fuel() {
    let set = engine().stage(1, &[Guest::answering(&full_decision()).spec("p")]).unwrap();
    let runs: BTreeSet<(String, u64)> =
        (0..20).map(|_| judge_one(&set, "p", &request())).map(|o| (format!("{:?}", o.outcome), o.fuel)).collect();
    assert_eq!(runs.len(), 1);
}

#[test]
fn eight_threads_get_their_own_answers() {
    let at = Layout::new().at("payment.valid-for-seconds");
    let guest = counting(&format!("(i64.load32_u offset={at} (local.get $req))"));
    let spin = Guest::evaluating("(loop $l (br $l)) (unreachable)");
    let set = Arc::new(engine().stage(1, &[guest.spec("count"), spin.spec("spin")]).unwrap());
    std::thread::scope(|scope| {
        for thread in 0..8_u32 {
            let set = Arc::clone(&set);
            scope.spawn(move || {
                for round in 0..100 {
                    let mut mine: SpendRequest = request();
                    mine.payment.valid_for_seconds = thread * 1_000 + round;
                    let opinion = judge_one(&set, "count", &mine);
                    assert_eq!(counted(&opinion.outcome.unwrap()), u64::from(mine.payment.valid_for_seconds));
                }
                assert_eq!(failed(&judge_one(&set, "spin", &request())).0, FailureKind::Fuel);
            });
        }
    });
    let status = &set.status()[0];
    assert_eq!(status.decisions, 800);
    assert!(status.p50_us > 0 && status.p50_us <= status.p99_us);
}

#[test]
fn status_tells_what_runs() {
    let specs = [
        PolicySpec { mode: Mode::Monitor, ..Guest::allowing().spec("good") },
        PolicySpec::new("bad", b"not wasm".to_vec()),
    ];
    let set = engine().stage_or_deny(4, &specs);
    let [good, bad] = &set.status()[..] else { panic!("{:?}", set.status()) };
    assert_eq!((good.state, good.version.as_str(), good.mode), (PolicyState::Active, "1.2.3", Mode::Monitor));
    assert_eq!((good.decisions, good.p50_us, good.error.clone()), (0, 0, None));
    assert_eq!((bad.state, bad.state.code()), (PolicyState::Invalid, "invalid"));
    assert_eq!(bad.error.as_ref().unwrap().stage, Stage::Compile);

    let judgement = set.judge(&["good".into(), "bad".into()], &request());
    let (kind, message) = failed(&judgement.opinions[1]);
    assert_eq!(kind, FailureKind::Unavailable);
    assert!(message.contains("compile") && message.contains("not a WebAssembly file"), "{message}");
    let combined = combine(&judgement);
    assert_eq!(combined.verdict, Verdict::Deny);
    assert_eq!(combined.reasons[0].reason.code, "policy-unavailable");
    assert_eq!(set.status()[0].decisions, 1);
}

#[test]
fn a_live_set_is_untouched_by_staging_another() {
    let live = engine().stage(1, &[Guest::allowing().spec("p")]).unwrap();
    engine().stage(2, &[PolicySpec::new("p", b"broken".to_vec())]).unwrap_err();
    let next = engine().stage(3, &[Guest::answering(&says(Verdict::Deny)).spec("p")]).unwrap();
    let verdict = |set: &countersign_engine::PolicySet| judge_one(set, "p", &request()).outcome.unwrap().verdict;
    assert_eq!((verdict(&live), verdict(&next)), (Verdict::Allow, Verdict::Deny));
    drop(next);
    assert_eq!(verdict(&live), Verdict::Allow);
}

#[test]
fn a_decision_id_is_what_makes_decisions_differ() {
    // Guards the tests above against a request fixture that never changes anything.
    assert_ne!(decision_id(1), decision_id(2));
}
