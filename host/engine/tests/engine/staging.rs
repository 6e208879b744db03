//! What is refused before it can judge, at which stage, in which words.

use std::sync::Arc;

use crate::support::{Guest, engine, judge_one, request, says};
use countersign_core::verdict::Verdict;
use countersign_engine::{Engine, EngineConfig, PolicySpec, Stage, StageError};

/// Stages beside an honest neighbour; the honest one alone must load afterwards.
fn refused(spec: PolicySpec) -> StageError {
    let honest = Guest::allowing().spec("honest");
    let error = engine().stage(1, &[honest.clone(), spec.clone()]).unwrap_err();
    assert_eq!(error.policy, spec.name);
    assert_eq!(engine().check(&spec).unwrap_err(), error, "checking says what staging says");

    let set = engine().stage_or_deny(1, &[honest, spec]);
    assert_eq!(judge_one(&set, "honest", &request()).outcome, Ok(says(Verdict::Allow)));
    error
}

fn check(spec: PolicySpec, stage: Stage, says: &[&str]) {
    let error = refused(spec);
    assert_eq!(error.stage, stage, "{error}");
    for part in says {
        assert!(error.message.contains(part), "{:?} should say {part:?}", error.message);
    }
}

#[test]
fn a_pin_must_match() {
    let good = Guest::allowing().spec("p");
    let sha256 = engine().inspect(&good.module).unwrap().sha256;
    let pinned = |pin: &str| PolicySpec { sha256_pin: Some(pin.to_owned()), ..good.clone() };
    engine().stage(1, &[pinned(&sha256)]).unwrap();
    engine().stage(1, &[pinned(&sha256.to_uppercase())]).unwrap();
    check(pinned(&"0".repeat(64)), Stage::Digest, &["pinned", &sha256]);
    check(pinned(""), Stage::Digest, &["pinned"]);
}

#[test]
fn what_is_no_component_does_not_compile() {
    check(PolicySpec::new("p", b"hello".to_vec()), Stage::Compile, &["not a WebAssembly file"]);
    let core = wat::parse_str("(module)").unwrap();
    check(PolicySpec::new("p", core), Stage::Compile, &["core module", "wasm32-wasip2"]);
    let mut cut = Guest::allowing().build();
    cut.truncate(cut.len() / 2);
    check(PolicySpec::new("p", cut), Stage::Compile, &[]);
}

#[test]
fn large_modules_are_refused_unread() {
    let engine = Engine::new(EngineConfig { module_limit: 10, instances: 1, ..EngineConfig::default() }).unwrap();
    let error = engine.stage(1, &[Guest::allowing().spec("p")]).unwrap_err();
    assert_eq!((error.stage, error.stage.code()), (Stage::Size, "size"));
}

#[test]
fn names_are_unique_and_deadlines_positive() {
    let spec = Guest::allowing().spec("p");
    let error = engine().stage(1, &[spec.clone(), spec.clone()]).unwrap_err();
    assert_eq!(error.stage, Stage::Spec);
    check(PolicySpec { deadline_ms: 0, ..spec.clone() }, Stage::Spec, &["deadline"]);
    check(PolicySpec { name: String::new(), ..spec }, Stage::Spec, &["name"]);
}

const SOCKETS: &str = "package wasi:sockets@0.2.3 { interface instance-network { open: func() -> u32; } }";

#[test]
fn imports_that_are_not_granted_are_named() {
    let mut guest = Guest::allowing().package("wasi:sockets/instance-network@0.2.3", SOCKETS).import(
        "wasi:sockets/instance-network@0.2.3",
        "open",
        "$open (result i32)",
    );
    guest.evaluate = format!("(drop (call $open)) {}", guest.evaluate);
    check(
        guest.spec("p"),
        Stage::Imports,
        &["`wasi:sockets/instance-network@0.2.3`", "a policy may import only", "random/random"],
    );
    let guest = Guest::allowing()
        .package("evil:corp/exfiltrate@1.0.0", "package evil:corp@1.0.0 { interface exfiltrate { send: func(); } }")
        .import("evil:corp/exfiltrate@1.0.0", "send", "");
    check(guest.spec("p"), Stage::Imports, &["`evil:corp/exfiltrate@1.0.0`"]);
    let guest = Guest::allowing()
        .package(
            "wasi:random/random@0.3.0",
            "package wasi:random@0.3.0 { interface random { get-random-u64: func() -> u64; } }",
        )
        .import("wasi:random/random@0.3.0", "get-random-u64", "(result i64)");
    check(guest.spec("p"), Stage::Imports, &["`wasi:random/random@0.3.0`"]);
    let mut guest = Guest::allowing().import("$root", "now", "(result i64)");
    guest.world = "import now: func() -> u64;".into();
    check(guest.spec("p"), Stage::Imports, &["`now`"]);
}

#[test]
fn a_granted_interface_of_the_wrong_shape_is_refused() {
    let guest = Guest::allowing()
        .package(
            "wasi:random/random@0.2.3",
            "package wasi:random@0.2.3 { interface random { get-random-u64: func() -> string; } }",
        )
        .import("wasi:random/random@0.2.3", "get-random-u64", "(param i32)");
    check(guest.spec("p"), Stage::Imports, &["get-random-u64"]);
}

#[test]
fn our_own_package_is_granted_function_by_function() {
    let component = |import: &str| {
        let text = format!("(component (import \"countersign:policy/{import}\" (instance (export \"steal\" (func)))))");
        PolicySpec::new("p", wat::parse_str(text).unwrap())
    };
    check(component("log@0.1.0"), Stage::Imports, &["`countersign:policy/log@0.1.0#steal`"]);
    check(component("types@0.1.0"), Stage::Imports, &["`countersign:policy/types@0.1.0#steal`"]);
    check(component("log@0.2.0"), Stage::Imports, &["`countersign:policy/log@0.2.0`", "log@0.1.0"]);
    check(component("wallet@0.1.0"), Stage::Imports, &["wallet@0.1.0"]);
}

#[test]
fn the_world_must_be_ours_in_our_version() {
    const NEXT: &str = "package test:guest;
        world guest { export countersign:policy/policy@0.2.0; }
        package countersign:policy@0.2.0 { interface policy {
          describe: func() -> string; configure: func(s: string) -> string; evaluate: func(s: string) -> string;
        } }";
    let mut guest = Guest::allowing();
    guest.replace = Some(("countersign:policy/policy@0.2.0", NEXT));
    guest.evaluate = "(unreachable)".into();
    // `evaluate` there takes a string.
    let wat = guest.wat().replace("(param $req i32)", "(param $req i32) (param i32)");
    let spec = PolicySpec::new("p", encode(&wat, NEXT));
    check(spec, Stage::Exports, &["wrong version", "policy@0.2.0", "countersign:policy/policy@0.1.0"]);
    let empty = wat::parse_str("(component)").unwrap();
    check(PolicySpec::new("p", empty), Stage::Exports, &["exports nothing"]);
    let other = wat::parse_str("(component (instance $i) (export \"a:b/c\" (instance $i)))").unwrap();
    check(PolicySpec::new("p", other), Stage::Exports, &["does not export", "`a:b/c`"]);
    let hollow = "(component (instance $i) (export \"countersign:policy/policy@0.1.0\" (instance $i)))";
    check(PolicySpec::new("p", wat::parse_str(hollow).unwrap()), Stage::Exports, &["describe"]);
}

fn encode(wat: &str, wit: &str) -> Vec<u8> {
    let mut resolve = wit_parser::Resolve::default();
    let package = resolve.push_source("guest.wit", wit).unwrap();
    let world = resolve.select_world(&[package], Some("guest")).unwrap();
    let mut module = wat::parse_str(wat).unwrap();
    let utf8 = wit_component::StringEncoding::UTF8;
    wit_component::embed_component_metadata(&mut module, &resolve, world, utf8).unwrap();
    wit_component::ComponentEncoder::default().module(&module).unwrap().encode().unwrap()
}

#[test]
fn functions_of_the_wrong_type_are_an_export_problem() {
    const WRONG: &str = "package test:guest;
        world guest { export countersign:policy/policy@0.1.0; }
        package countersign:policy@0.1.0 { interface policy {
          describe: func() -> string; configure: func(s: string) -> string; evaluate: func(s: string) -> string;
        } }";
    let mut guest = Guest::allowing();
    guest.replace = Some(("countersign:policy/policy@0.1.0", WRONG));
    let wat = guest.wat().replace("(param $req i32)", "(param $req i32) (param i32)");
    check(
        PolicySpec::new("p", encode(&wat, WRONG)),
        Stage::Exports,
        &["policy@0.1.0", "wrong type", "expected `record`"],
    );
}

#[test]
fn describing_is_bounded_like_everything_else() {
    let with = |describe: &str| {
        let mut guest = Guest::allowing();
        guest.describe = describe.into();
        guest.spec("p")
    };
    check(with("(unreachable)"), Stage::Describe, &["unreachable"]);
    check(with("(loop $l (br $l)) (unreachable)"), Stage::Describe, &["used up its instructions"]);
    check(with("(i32.const 0x7ffffff8)"), Stage::Describe, &["outside the contract"]);
}

#[test]
fn schemas_are_checked() {
    let with = |schema: &str| Guest::allowing().with_schema(schema).spec("p");
    engine().stage(1, &[with(r##"{"$ref":"#/$defs/x","$defs":{"x":{}}}"##)]).unwrap();
    check(with("nonsense"), Stage::Describe, &["not JSON"]);
    check(with("[]"), Stage::Describe, &["not a JSON object"]);
    check(with(r#"{"$ref":"http://x.example/"}"#), Stage::Describe, &["outside", "x.example"]);
    let big = format!("{{\"a\":\"{}\"}}", "x".repeat(65_536));
    check(with(&big), Stage::Describe, &["above 65536 bytes"]);
}

#[test]
fn settings_must_be_json_and_please_the_policy() {
    let spec = Guest::allowing().spec("p");
    check(PolicySpec { settings: "hosts = []".into(), ..spec }, Stage::Settings, &["not a JSON document"]);

    let mut picky = Guest::allowing();
    let at = picky.problems(&[("/hosts/0", "not a host name"), ("", "too few rules")]);
    picky.configure = format!("(i32.const {at})");
    check(picky.spec("p"), Stage::Settings, &["/hosts/0: not a host name", "; ", "(whole document): too few rules"]);
    let mut silent = Guest::allowing();
    let at = silent.problems(&[]);
    silent.configure = format!("(i32.const {at})");
    check(silent.spec("p"), Stage::Settings, &["did not say why"]);
}

#[test]
fn configuring_is_bounded_like_everything_else() {
    let with = |configure: &str| {
        let mut guest = Guest::allowing();
        guest.configure = configure.into();
        guest.spec("p")
    };
    check(with("(unreachable)"), Stage::Configure, &["policy-trap", "unreachable"]);
    check(with("(loop $l (br $l)) (unreachable)"), Stage::Configure, &["policy-fuel"]);
    check(
        with("(loop $l (br_if $l (i32.ne (memory.grow (i32.const 256)) (i32.const -1)))) (unreachable)"),
        Stage::Configure,
        &["policy-trap", "memory"],
    );

    let slow = EngineConfig {
        configure_fuel: u64::MAX / 2,
        configure_deadline_ms: 5,
        instances: 2,
        ..EngineConfig::default()
    };
    let error = Engine::new(slow).unwrap().stage(1, &[with("(loop $l (br $l)) (unreachable)")]).unwrap_err();
    assert_eq!(error.stage, Stage::Configure);
    assert!(error.message.contains("policy-timeout"), "{error}");
}

#[test]
fn a_start_function_is_under_the_same_budget() {
    let mut guest = Guest::allowing();
    guest.functions = "(func $go (loop $l (br $l))) (start $go)".into();
    check(guest.spec("p"), Stage::Describe, &["while instantiating", "used up its instructions"]);
}

#[test]
fn memory_a_module_demands_up_front_is_under_the_same_limit() {
    let mut guest = Guest::allowing();
    guest.pages = 1_025;
    check(guest.spec("p"), Stage::Describe, &["while instantiating", "memory"]);
}

#[test]
fn a_module_that_does_not_fit_the_pool_is_told_so() {
    let mut guest = Guest::allowing();
    guest.pages = 5_000;
    check(guest.spec("p"), Stage::Compile, &["does not fit"]);
    let mut guest = Guest::allowing();
    guest.functions = "(memory $second 1)".into();
    check(guest.spec("p"), Stage::Compile, &["does not fit"]);
}

#[test]
fn unknown_extra_exports_are_ignored() {
    let mut guest = Guest::allowing();
    guest.world = "export init: func();".into();
    guest.functions = "(func (export \"init\") (unreachable))".into();
    let set = engine().stage(1, &[guest.spec("p")]).unwrap();
    assert_eq!(judge_one(&set, "p", &request()).outcome, Ok(says(Verdict::Allow)));
}

#[test]
fn inspecting_tells_what_a_module_is() {
    let mut guest = Guest::allowing().logging();
    let at = guest.data.put(b"x", 1);
    guest.evaluate = format!("(call $log (i32.const 0) (i32.const {at}) (i32.const 1)) {}", guest.evaluate);
    let bytes = guest.build();
    let seen = engine().inspect(&bytes).unwrap();
    assert_eq!((seen.size, seen.sha256.len()), (bytes.len(), 64));
    assert_eq!((seen.name.as_str(), seen.version.as_str()), ("test", "1.2.3"));
    assert_eq!((seen.summary.as_str(), seen.settings_schema.as_str()), ("a test guest", "{\"type\":\"object\"}"));
    assert_eq!(seen.imports, ["countersign:policy/log@0.1.0", "countersign:policy/types@0.1.0"]);
    assert_eq!(seen.exports, ["countersign:policy/policy@0.1.0"]);
    assert_eq!(engine().check(&PolicySpec::new("p", bytes)).unwrap(), seen);
    assert_eq!(engine().inspect(b"").unwrap_err().policy, "");
}

#[test]
fn one_module_under_many_names_compiles_once() {
    let engine = Engine::new(EngineConfig { instances: 2, ..EngineConfig::default() }).unwrap();
    let bytes: Arc<[u8]> = Guest::allowing().build().into();
    let spec = |n: usize| PolicySpec {
        settings: format!("{{\"n\":{n}}}"),
        ..PolicySpec::new(format!("p{n}"), Arc::clone(&bytes))
    };
    let specs: Vec<PolicySpec> = (0..500).map(spec).collect();
    let first = engine.stage(1, &specs[..1]).unwrap();
    let set = engine.stage(2, &specs).unwrap();
    assert_eq!(engine.compilations(), 1);
    let digests: std::collections::BTreeSet<String> = set.status().into_iter().map(|s| s.settings_sha256).collect();
    assert_eq!(digests.len(), 500);
    drop(set);
    assert_eq!(judge_one(&first, "p0", &request()).outcome, Ok(says(Verdict::Allow)));
}

#[test]
fn an_engine_that_cannot_reserve_its_pool_says_which_number_to_lower() {
    let error = Engine::new(EngineConfig { instances: 100_000_000, ..EngineConfig::default() }).unwrap_err();
    assert_eq!(error.code(), "engine-pool");
    assert!(error.to_string().contains("lower `instances`"), "{error}");
}
