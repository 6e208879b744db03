//! Compiles the standard policies to components, so that they can be embedded in the binary.

#![expect(clippy::disallowed_methods, reason = "cargo talks to build scripts through the environment")]

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::{env, fs};

const TARGET: &str = "wasm32-wasip2";
const POLICIES: &[&str] = &[
    "vendor-allowlist",
    "spend-caps",
    "client-budget",
    "role-matrix",
    "review-threshold",
    "first-vendor",
    "payee-pin",
    "velocity",
    "schedule",
    "usefulness",
];
/// The default members of the workspace in `plugins/text`, which says why it is one of its own.
const TEXT_POLICIES: &[&str] = &["cedar", "rego", "cel"];

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            println!("cargo::error={why}");
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), String> {
    let variable = |name: &str| env::var(name).map_err(|e| format!("{name}: {e}"));
    let manifest = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(variable("OUT_DIR")?);
    let root = manifest.ancestors().nth(2).ok_or("the workspace root is not two folders up")?;
    for watched in ["plugins", "sdk", "wit", "Cargo.toml"] {
        println!("cargo::rerun-if-changed={}", root.join(watched).display());
    }
    require_target(&variable("RUSTC")?)?;
    // A target folder of its own: the outer build holds the lock of the other.
    let target_dir = out.ancestors().nth(4).ok_or("OUT_DIR is not where cargo puts it")?.join("policies");
    let cargo = variable("CARGO")?;
    let selected: Vec<&str> = POLICIES.iter().flat_map(|policy| ["-p", policy]).collect();
    compile(&cargo, root, ".", &selected, " -Clink-arg=-zstack-size=131072", &target_dir)?;
    // Interpreters recurse: they keep the stack of a MiB that the linker gives.
    compile(&cargo, root, "plugins/text", &[], "", &target_dir)?;
    let built = target_dir.join(TARGET).join("policy");
    embed(&built, root, &out)?;
    let templates = templates(&root.join("sdk/templates"))?;
    fs::write(out.join("templates.rs"), templates).map_err(|e| format!("{}: {e}", out.display()))?;
    fs::write(out.join("sdk.rs"), sdk(root)?).map_err(|e| format!("{}: {e}", out.display()))
}

fn require_target(rustc: &str) -> Result<(), String> {
    let asked = Command::new(rustc).args(["--print", "target-libdir", "--target", TARGET]).output();
    let folder = asked.map_err(|e| format!("{rustc}: {e}"))?;
    if Path::new(String::from_utf8_lossy(&folder.stdout).trim()).is_dir() {
        return Ok(());
    }
    Err(format!("the standard policies need the target {TARGET}; run: rustup target add {TARGET}"))
}

fn compile(
    cargo: &str,
    root: &Path,
    workspace: &str,
    selected: &[&str],
    link: &str,
    target_dir: &Path,
) -> Result<(), String> {
    let mut command = Command::new(cargo);
    command.current_dir(root.join(workspace)).args(["build", "--locked", "--profile", "policy", "--target", TARGET]);
    command.args(selected).arg("--target-dir").arg(target_dir);
    // The outer build's wrappers and flags (clippy, coverage, host linkers) are not for the guests.
    for name in ["RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER", "CARGO_ENCODED_RUSTFLAGS", "CLIPPY_ARGS"] {
        command.env_remove(name);
    }
    command.env("CARGO_INCREMENTAL", "0");
    // The same source gives the same bytes, and so the same digest, wherever it is built.
    let home = env::var("CARGO_HOME").or_else(|_| env::var("HOME").map(|h| format!("{h}/.cargo")));
    let mut flags = format!("--remap-path-prefix={}=/countersign", root.display());
    if let Ok(home) = home {
        flags.push_str(&format!(" --remap-path-prefix={home}=/cargo"));
    }
    flags.push_str(link);
    command.env("RUSTFLAGS", flags);
    let status = command.status().map_err(|e| format!("{cargo}: {e}"))?;
    if status.success() { Ok(()) } else { Err("the standard policies do not compile; see above".to_owned()) }
}

fn embed(built: &Path, root: &Path, out: &Path) -> Result<(), String> {
    let mut table = String::from("&[\n");
    let places = POLICIES.iter().map(|p| (p, "plugins")).chain(TEXT_POLICIES.iter().map(|p| (p, "plugins/text")));
    for (policy, folder) in places {
        let module = built.join(format!("{}.wasm", policy.replace('-', "_")));
        let cases = root.join(folder).join(policy).join("cases.json");
        let (module, cases) = (module.display().to_string(), cases.display().to_string());
        table.push_str(&format!("    ({policy:?}, include_bytes!({module:?}), include_str!({cases:?})),\n"));
    }
    table.push_str("]\n");
    fs::write(out.join("builtin.rs"), table).map_err(|e| format!("{}: {e}", out.display()))
}

/// `&[(language, &[(path, text)])]`: what `policy new` writes.
fn templates(folder: &Path) -> Result<String, String> {
    let mut table = String::from("&[\n");
    for language in list(folder)?.iter().filter(|path| path.is_dir()) {
        let name = language.file_name().unwrap_or_default().to_string_lossy();
        table.push_str(&format!("    ({name:?}, {}),\n", files(language, std::slice::from_ref(language))?));
    }
    Ok(table + "]\n")
}

/// `&[(path, text)]`: the SDK and the contract as a workspace of their own, laid out as they are here.
fn sdk(root: &Path) -> Result<String, String> {
    let parts = ["sdk/cases/Cargo.toml", "sdk/cases/src", "sdk/rust/Cargo.toml", "sdk/rust/src", "wit"];
    files(root, &parts.map(|part| root.join(part)))
}

/// Every file at or below `from` under its path in `base`, in order.
fn files(base: &Path, from: &[PathBuf]) -> Result<String, String> {
    let mut table = String::from("&[");
    let mut left: Vec<PathBuf> = from.iter().rev().cloned().collect();
    while let Some(path) = left.pop() {
        if path.is_dir() {
            left.extend(list(&path)?.into_iter().rev());
            continue;
        }
        let name = path.strip_prefix(base).map_err(|e| e.to_string())?.display().to_string();
        table.push_str(&format!("({name:?}, include_str!({:?})), ", path.display().to_string()));
    }
    Ok(table + "]")
}

/// What a folder holds, sorted.
fn list(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let entries = fs::read_dir(folder).and_then(|entries| entries.map(|e| e.map(|e| e.path())).collect());
    let mut paths: Vec<PathBuf> = entries.map_err(|e| format!("{}: {e}", folder.display()))?;
    paths.sort();
    Ok(paths)
}
