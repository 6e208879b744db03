//! Building a policy's project.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::Args;
use serde_json::json;

use super::template::{MODULE, RECIPE, Recipe};
use crate::cli::{Failure, Outcome, say, say_error};

/// What Rust compiles policies for.
const TARGET: &str = "wasm32-wasip2";

/// Build a policy's project to `policy.wasm`.
#[derive(Args)]
pub(in crate::cli) struct Build {
    /// The project's folder.
    #[arg(default_value = ".")]
    path: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Build) -> Outcome {
    let folder = args.path.as_path();
    let recipe = recipe(folder)?;
    let missing: Vec<&str> = recipe.tools.iter().map(String::as_str).filter(|tool| !is_there(tool)).collect();
    if !missing.is_empty() {
        let ways: Vec<String> = missing.iter().map(|tool| how_to_get(tool)).collect();
        let what = format!("building {} needs what is not here: {}", folder.display(), missing.join(", "));
        return Err(Failure::new(what).hint(ways.join("; ")));
    }
    if recipe.tools.iter().any(|tool| tool == "cargo") && !has_target() {
        return Err(Failure::new(format!(
            "building {} needs Rust's target {TARGET}, which is not here",
            folder.display()
        ))
        .hint(format!("rustup target add {TARGET}")));
    }
    build(folder, &recipe.build)?;
    let (output, module) = (folder.join(&recipe.output), folder.join(MODULE));
    let none = |e: std::io::Error| {
        Failure::new(format!("the build left no {}: {e}", output.display()))
            .hint(format!("name what it leaves in `output` of {}", folder.join(RECIPE).display()))
    };
    let bytes = std::fs::read(&output).map_err(none)?;
    // A gateway may be watching: the module is replaced in one step.
    let next = folder.join(format!("{MODULE}.next"));
    let put = std::fs::write(&next, &bytes).and_then(|()| std::fs::rename(&next, &module));
    put.map_err(|e| Failure::new(format!("{}: {e}", module.display())))?;
    if args.json {
        say(format_args!("{:#}", json!({"module": module, "size": bytes.len()})));
    } else {
        say(format_args!("{}: {} bytes", module.display(), bytes.len()));
    }
    Ok(())
}

fn recipe(folder: &Path) -> Result<Recipe, Failure> {
    let path = folder.join(RECIPE);
    if path.is_file() {
        let fail = |why: String| Failure::new(format!("{}: {why}", path.display()));
        let text = std::fs::read_to_string(&path).map_err(|e| fail(e.to_string()))?;
        return Recipe::parse(&text).map_err(fail);
    }
    let manifest = folder.join("Cargo.toml");
    let Ok(text) = std::fs::read_to_string(&manifest) else {
        return Err(Failure::new(format!(
            "{} is no project: it has neither {RECIPE} nor Cargo.toml",
            folder.display()
        ))
        .hint("give the folder that `countersign policy new` made"));
    };
    let table: toml::Table = toml::from_str(&text).map_err(|e| Failure::new(format!("{}: {e}", manifest.display())))?;
    let name = table.get("package").and_then(|package| package.get("name")).and_then(toml::Value::as_str);
    Recipe::rust(name.ok_or_else(|| Failure::new(format!("{}: no package", manifest.display())))?)
}

fn build(folder: &Path, words: &[String]) -> Outcome {
    let line = words.join(" ");
    let (program, arguments) = words.split_first().ok_or_else(|| {
        Failure::new(format!("{} does not say how to build", folder.join(RECIPE).display()))
            .hint("name a command and its arguments in `build`")
    })?;
    say_error(&line);
    let mut command = Command::new(program);
    // What the build says is for people; standard output is for what was asked.
    command.args(arguments).current_dir(folder).stdin(Stdio::null()).stdout(std::io::stderr());
    let status = command.status().map_err(|e| Failure::new(format!("{program}: {e}")))?;
    if status.success() {
        return Ok(());
    }
    Err(Failure::new(format!("`{line}` failed ({status})")).hint("what it said is above"))
}

/// Whether a program is in PATH.
fn is_there(program: &str) -> bool {
    let mut command = Command::new("sh");
    command.args(["-c", "command -v \"$1\"", "sh", program]);
    succeeds(&mut command)
}

/// Whether Rust can compile components.
fn has_target() -> bool {
    let mut command = Command::new("sh");
    succeeds(command.args(["-c", "test -d \"$(rustc --print target-libdir --target \"$1\")\"", "sh", TARGET]))
}

fn succeeds(command: &mut Command) -> bool {
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}

fn how_to_get(tool: &str) -> String {
    match tool {
        "cargo" | "rustc" | "rustup" => "install Rust: https://rustup.rs".to_owned(),
        "python3" => "install Python 3: https://www.python.org".to_owned(),
        "node" | "npm" => "install Node.js: https://nodejs.org".to_owned(),
        other => format!("install `{other}` and put it in PATH"),
    }
}
