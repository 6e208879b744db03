//! What `countersign policy new` writes builds in every language, and answers what its own cases say. Rust is with
//! the author's bench (`author`), which needs no compilers but the one that is here.

#![expect(clippy::unwrap_used, reason = "a test: whatever is not as expected must fail it loudly")]

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use countersign_tests::process::binary;

const NAME: &str = "agent-day";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

/// Before the user's own: the compilers that `tests/install guests` installed.
fn path() -> std::ffi::OsString {
    let examples = root().join("examples/policies");
    let installed = [examples.join(".tools/bin"), examples.join("javascript/node_modules/.bin")];
    env::join_paths(installed.into_iter().chain(env::split_paths(&env::var_os("PATH").unwrap()))).unwrap()
}

/// What an author types.
fn policy(folder: &Path, arguments: &[&str]) {
    let done = Command::new(binary()).arg("policy").args(arguments).current_dir(folder).env("PATH", path()).output();
    let done = done.unwrap();
    let said = [done.stdout, done.stderr].concat();
    assert!(done.status.success(), "policy {arguments:?}: {}", String::from_utf8_lossy(&said));
}

fn builds_and_answers(language: &str) {
    let home = tempfile::tempdir().unwrap();
    policy(home.path(), &["new", NAME, "--lang", language]);
    let project = home.path().join(NAME);
    policy(&project, &["build", "."]);
    policy(&project, &["check", "."]);
    policy(&project, &["test", "."]);
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
