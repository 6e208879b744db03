//! Policies that attack the host. Each is stopped with its own code, and an honest neighbour of the
//! same set answers as if nothing had happened.

use crate::support::{Guest, engine, failed, full_decision, judge_one, request, says};
use countersign_core::seams::Judge;
use countersign_core::verdict::{Decision, FailureKind, Reason, Verdict, combine};
use countersign_engine::{Engine, EngineConfig, PolicySet, PolicySpec};

/// Judges hostile, honest, hostile, honest, and gives the first failure.
fn attack_on(set: &PolicySet) -> (FailureKind, String) {
    let order: Vec<String> = ["hostile", "honest", "hostile", "honest"].map(str::to_owned).to_vec();
    let judgement = set.judge(&order, &request());
    let [first, honest, second, again] = &judgement.opinions[..] else { panic!() };
    assert_eq!(honest.outcome, Ok(full_decision()), "the neighbour");
    assert_eq!(again.outcome, Ok(full_decision()), "the neighbour");
    assert_eq!(combine(&judgement).verdict, Verdict::Deny);
    let failure = failed(first);
    assert_eq!(failed(second).0, failure.0, "the same the second time");
    failure
}

fn honest() -> PolicySpec {
    patient(Guest::answering(&full_decision()).spec("honest"))
}

/// With a deadline that no machine is slow enough to meet: here, fuel and limits are what stops.
fn patient(spec: PolicySpec) -> PolicySpec {
    PolicySpec { deadline_ms: 60_000, ..spec }
}

fn attack(hostile: &Guest) -> (FailureKind, String) {
    attack_on(&engine().stage(1, &[patient(hostile.spec("hostile")), honest()]).unwrap())
}

fn check(hostile: &Guest, kind: FailureKind, says: &str) {
    let (got, message) = attack(hostile);
    assert_eq!(got, kind, "{message}");
    assert!(message.contains(says), "{message:?} should say {says:?}");
}

const SPIN: &str = "(loop $l (br $l)) (unreachable)";

#[test]
fn spinning_runs_out_of_fuel() {
    check(&Guest::evaluating(SPIN), FailureKind::Fuel, "used up its instructions");
}

#[test]
fn a_fuel_stop_is_the_same_every_time() {
    let mut guest = Guest::evaluating(SPIN).logging();
    let at = guest.data.put(b"x", 1);
    // Logs at the tenth of a million rounds: what was said before the stop is part of the record.
    guest.evaluate = format!(
        "(local $i i32) (loop $l
           (local.set $i (i32.add (local.get $i) (i32.const 1)))
           (if (i32.eqz (i32.rem_u (local.get $i) (i32.const 100000)))
             (then (call $log (i32.const 1) (i32.const {at}) (i32.const 1))))
           (br $l)) (unreachable)"
    );
    let set = engine().stage(1, &[patient(guest.spec("p"))]).unwrap();
    let first = judge_one(&set, "p", &request());
    assert_eq!(failed(&first).0, FailureKind::Fuel);
    assert!(first.log.len() > 1);
    for _ in 0..5 {
        let again = judge_one(&set, "p", &request());
        assert_eq!((&again.outcome, &again.log, again.fuel), (&first.outcome, &first.log, first.fuel));
    }
}

#[test]
fn what_fuel_does_not_stop_the_clock_does() {
    let config = EngineConfig { fuel: u64::MAX / 2, instances: 2, ..EngineConfig::default() };
    let engine = Engine::new(config).unwrap();
    let spec = PolicySpec { deadline_ms: 5, ..Guest::evaluating(SPIN).spec("hostile") };
    let set = engine.stage(1, &[spec, honest()]).unwrap();
    let (kind, message) = attack_on(&set);
    assert_eq!(kind, FailureKind::Timeout, "{message}");
    assert!(message.contains("passed its deadline"));
}

#[test]
fn the_clock_ticks_while_every_core_is_busy() {
    let config = EngineConfig { fuel: u64::MAX / 2, instances: 16, ..EngineConfig::default() };
    let engine = Engine::new(config).unwrap();
    let spec = PolicySpec { deadline_ms: 10, ..Guest::evaluating(SPIN).spec("hostile") };
    let set = engine.stage(1, &[spec]).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                assert_eq!(failed(&judge_one(&set, "hostile", &request())).0, FailureKind::Timeout);
            });
        }
    });
}

#[test]
fn growing_memory_stops_at_the_limit() {
    // Grows by 16 MiB until refused, then traps.
    let body = "(loop $l (br_if $l (i32.ne (memory.grow (i32.const 256)) (i32.const -1)))) (unreachable)";
    check(&Guest::evaluating(body), FailureKind::Trap, "more than its 67108864 bytes of memory");
}

#[test]
fn touching_all_memory_is_bounded() {
    let body = "(local $at i32)
        (drop (memory.grow (i32.const 900)))
        (loop $l
          (i32.store8 (local.get $at) (i32.const 1))
          (local.set $at (i32.add (local.get $at) (i32.const 4096)))
          (br $l))
        (unreachable)";
    check(&Guest::evaluating(body), FailureKind::Trap, "out of bounds memory access");
}

#[test]
fn filling_memory_costs_fuel_by_the_byte() {
    let body = "(drop (memory.grow (i32.const 900)))
        (memory.fill (i32.const 0) (i32.const 1) (i32.const 50000000)) (unreachable)";
    check(&Guest::evaluating(body), FailureKind::Fuel, "used up its instructions");
}

#[test]
fn recursion_ends_at_the_stack_limit() {
    let mut guest = Guest::evaluating("(call $deep (i32.const 0))");
    guest.functions =
        "(func $deep (param i32) (result i32) (i32.add (call $deep (i32.add (local.get 0) (i32.const 1))) (i32.const 1)))".into();
    check(&guest, FailureKind::Trap, "call stack exhausted");
}

#[test]
fn a_trap_is_a_trap() {
    check(&Guest::evaluating("(unreachable)"), FailureKind::Trap, "unreachable");
    check(&Guest::evaluating("(i32.div_u (i32.const 1) (i32.const 0))"), FailureKind::Trap, "divide by zero");
}

#[test]
fn a_trap_names_its_function_where_the_module_does() {
    let mut guest = Guest::evaluating("(call $check_vendor)");
    guest.functions = "(func $check_vendor (result i32) (unreachable))".into();
    check(&guest, FailureKind::Trap, "in `check_vendor`");
}

/// An answer of one reason whose message is at `ptr`, `len`.
fn one_reason(guest: &mut Guest, ptr: usize, len: usize) -> usize {
    let at = guest.data.answer(&says(Verdict::Deny));
    // The list of reasons is 8 bytes into the answer; its first message 8 bytes into the reason.
    guest.evaluate.push_str(&format!(
        "(i32.store offset=8 (i32.load (i32.const {list})) (i32.const {ptr}))
         (i32.store offset=12 (i32.load (i32.const {list})) (i32.const {len}))",
        list = at + 8
    ));
    at
}

#[test]
fn a_hundred_megabytes_of_reason_are_not_copied() {
    // As much of it as the memory limit lets a guest have.
    let mut guest = Guest::evaluating("(drop (memory.grow (i32.const 900)))");
    let at = one_reason(&mut guest, 0, 50_000_000);
    guest.evaluate.push_str(&format!("(i32.const {at})"));
    check(&guest, FailureKind::Oversize, "passed more data than the host accepts");
    // And all of it, which it does not have.
    let mut guest = Guest::evaluating("");
    let at = one_reason(&mut guest, 0, 100_000_000);
    guest.evaluate.push_str(&format!("(i32.const {at})"));
    check(&guest, FailureKind::Error, "out of bounds");
}

#[test]
fn a_million_reasons_are_not_copied() {
    let mut guest = Guest::evaluating("(drop (memory.grow (i32.const 300)))");
    let at = guest.data.answer(&says(Verdict::Deny));
    guest.evaluate.push_str(&format!(
        "(i32.store (i32.const {list}) (i32.const 131072))
         (i32.store offset=4 (i32.const {list}) (i32.const 1000000)) (i32.const {at})",
        list = at + 8
    ));
    check(&guest, FailureKind::Oversize, "passed more data than the host accepts");
}

#[test]
fn a_little_too_much_is_too_much() {
    let answer = |d: Decision| Guest::answering(&d);
    let reasons = vec![Reason::new("x", ""); 65];
    check(&answer(Decision { reasons, ..says(Verdict::Deny) }), FailureKind::Oversize, "65 reasons");
    let reasons = vec![Reason::new("x", "m".repeat(4097))];
    check(&answer(Decision { reasons, ..says(Verdict::Deny) }), FailureKind::Oversize, "4097 bytes");
    let mut guest = Guest::new();
    let at = guest.error(&"e".repeat(4097));
    guest.evaluate = format!("(i32.const {at})");
    check(&guest, FailureKind::Oversize, "an error of 4097 bytes");
}

#[test]
fn answers_outside_the_contract_are_errors() {
    let answer = |d: Decision| Guest::answering(&d);
    let reasons = vec![Reason::new("Not Kebab", "")];
    check(&answer(Decision { reasons, ..says(Verdict::Deny) }), FailureKind::Error, "Not Kebab");
    let mut twice = full_decision();
    twice.holds[1] = twice.holds[0].clone();
    check(&answer(twice), FailureKind::Error, "two holds");
    let mut nothing = full_decision();
    nothing.holds[0].amount = 0;
    check(&answer(nothing), FailureKind::Error, "hold amount 0");
}

#[test]
fn invalid_utf_8_is_an_error() {
    let mut guest = Guest::evaluating("");
    let bad = guest.data.put(&[b'a', 0xff, 0xfe], 1);
    let at = one_reason(&mut guest, bad, 3);
    guest.evaluate.push_str(&format!("(i32.const {at})"));
    check(&guest, FailureKind::Error, "utf-8");
}

#[test]
fn nonsense_in_memory_is_an_error() {
    // A verdict that does not exist.
    let mut guest = Guest::allowing();
    guest.evaluate = format!("(i32.store8 offset=4 {0} (i32.const 9)) {0}", guest.evaluate);
    check(&guest, FailureKind::Error, "outside the contract");
    // An answer outside memory.
    check(&Guest::evaluating("(i32.const 0x7ffffff8)"), FailureKind::Error, "outside the contract");
}

#[test]
fn floods_of_log_lines_end_the_policy() {
    let flood = |len: usize, lines: usize| {
        let mut guest = Guest::allowing().logging();
        let at = guest.data.put(&vec![b'x'; len.min(2_000)], 1);
        guest.evaluate = format!(
            "(local $i i32) (loop $l (call $log (i32.const 1) (i32.const {at}) (i32.const {len}))
               (local.set $i (i32.add (local.get $i) (i32.const 1)))
               (br_if $l (i32.lt_u (local.get $i) (i32.const {lines}))))
             {}",
            guest.evaluate
        );
        guest
    };
    let set = engine().stage(1, &[patient(flood(1_024, 64).spec("p"))]).unwrap();
    let opinion = judge_one(&set, "p", &request());
    assert_eq!((opinion.outcome.is_ok(), opinion.log.len()), (true, 64), "at the limit");

    check(&flood(5, 65), FailureKind::Oversize, "more than 64 log lines");
    check(&flood(5, 10_000_000), FailureKind::Oversize, "more than 64 log lines");
    check(&flood(1_025, 1), FailureKind::Oversize, "a log line above 1024 bytes");
}

#[test]
fn a_log_line_of_megabytes_is_not_copied() {
    let mut guest = Guest::allowing().logging();
    guest.evaluate = format!(
        "(drop (memory.grow (i32.const 300))) (call $log (i32.const 1) (i32.const 0) (i32.const 15000000)) {}",
        guest.evaluate
    );
    check(&guest, FailureKind::Oversize, "passed more data than the host accepts");
}

#[test]
fn configure_has_a_budget_of_its_own() {
    let mut guest = Guest::answering(&full_decision());
    // 5 million rounds: far above the fuel of `evaluate`.
    guest.configure = format!(
        "(local $i i32) (loop $l (local.set $i (i32.add (local.get $i) (i32.const 1)))
           (br_if $l (i32.lt_u (local.get $i) (i32.const 5000000)))) {}",
        guest.configure
    );
    let set = engine().stage(1, &[guest.spec("slow"), honest()]).unwrap();
    assert_eq!(judge_one(&set, "slow", &request()).outcome, Ok(full_decision()));
    assert_eq!(judge_one(&set, "honest", &request()).outcome, Ok(full_decision()));
}

#[test]
fn a_full_engine_refuses_instead_of_queueing_for_ever() {
    let config = EngineConfig { instances: 1, admission_wait_ms: 1, fuel: u64::MAX / 2, ..EngineConfig::default() };
    let engine = Engine::new(config).unwrap();
    let spec = PolicySpec { deadline_ms: 2_000, ..Guest::evaluating(SPIN).spec("hostile") };
    let set = engine.stage(1, &[spec, honest()]).unwrap();
    std::thread::scope(|scope| {
        // The place is taken again and again by the thread below, so this one may have to try more than once.
        let tried = || failed(&judge_one(&set, "hostile", &request())).0;
        let holder =
            scope.spawn(move || std::iter::repeat_with(tried).find(|k| *k != FailureKind::Unavailable).unwrap());
        // Until the other thread has its place, this one may still succeed.
        let refused = std::iter::repeat_with(|| judge_one(&set, "honest", &request()))
            .take(1_000_000)
            .find(|o| o.outcome.is_err())
            .unwrap();
        let (kind, message) = failed(&refused);
        assert_eq!(kind, FailureKind::Unavailable);
        assert!(message.contains("`instances`"), "{message}");
        assert_eq!(holder.join().unwrap(), FailureKind::Timeout);
    });
    assert_eq!(judge_one(&set, "honest", &request()).outcome, Ok(full_decision()));
}
