//! What `countersign policy new` copies builds in every language, and answers what its own cases say.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test: whatever is not as expected must fail it loudly"
)]

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use countersign_tests::cases;
use serde_json::Value;

const NAME: &str = "agent-day";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

/// Copies a template, with its placeholders filled in.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(filled(entry.file_name().to_str().unwrap()));
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::write(target, filled(&fs::read_to_string(entry.path()).unwrap())).unwrap();
        }
    }
}

fn filled(text: &str) -> String {
    let filled = text.replace("{{name}}", NAME).replace("{{name_snake}}", &NAME.replace('-', "_"));
    assert!(!filled.contains("{{name"), "a placeholder that is not known: {filled}");
    filled
}

/// Before the user's own: the compilers that `tests/install guests` installed.
fn path() -> std::ffi::OsString {
    let examples = root().join("examples/policies");
    let installed = [examples.join(".tools/bin"), examples.join("javascript/node_modules/.bin")];
    env::join_paths(installed.into_iter().chain(env::split_paths(&env::var_os("PATH").unwrap()))).unwrap()
}

/// The target directory this test was built in.
fn target() -> PathBuf {
    env::current_exe().unwrap().ancestors().nth(3).unwrap().to_owned()
}

fn builds_and_answers(language: &str) {
    let home = tempfile::tempdir().unwrap();
    let project = home.path().join(NAME);
    copy(&root().join("sdk/templates").join(language), &project);
    fs::create_dir(project.join("wit")).unwrap();
    fs::copy(root().join("wit/v0.1/policy.wit"), project.join("wit/policy.wit")).unwrap();
    let read = |name: &str| fs::read_to_string(project.join(name)).unwrap();

    let template: Value = serde_json::from_str(&read("template.json")).unwrap();
    let command: Vec<String> = serde_json::from_value(template["build"].clone()).unwrap();
    let (program, arguments) = command.split_first().unwrap();
    let built = Command::new(program)
        .args(arguments)
        .current_dir(&project)
        .env("PATH", path())
        // What the guest in Rust was built with is here already, compiled.
        .env("CARGO_TARGET_DIR", target().join("guests"))
        .env("CARGO_NET_OFFLINE", "true")
        .output()
        .unwrap();
    assert!(built.status.success(), "{language}: {}", String::from_utf8_lossy(&built.stderr));

    let engine = cases::engine();
    let module = cases::module(&project.join(template["output"].as_str().unwrap()));
    assert_eq!(engine.inspect(&module).expect("a policy").name, NAME);
    let mut differences = Vec::new();
    for case in cases::read(&read("cases.json")) {
        if let Some(difference) = cases::difference(&case, &cases::answer(&engine, &module, &case)) {
            differences.push(format!("{}: {difference}", case["name"]));
        }
    }
    assert!(differences.is_empty(), "{language}:\n{}", differences.join("\n"));
    let settings: Value = serde_json::from_str(&read("settings.json")).unwrap();
    cases::answer(&engine, &module, &serde_json::json!({ "settings": settings })).expect("its settings");
}

#[test]
fn rust() {
    builds_and_answers("rust");
}

#[test]
fn javascript() {
    builds_and_answers("js");
}

#[test]
fn python() {
    builds_and_answers("python");
}

#[test]
fn c() {
    builds_and_answers("c");
}

#[test]
fn go() {
    builds_and_answers("go");
}
