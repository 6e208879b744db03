//! Building a policy's project.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::Args;
use serde_json::json;

use super::template::{MODULE, RECIPE, Recipe};
use crate::cli::{Failure, Outcome, say, say_error};

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
    let missing: Vec<_> = recipe.tools.iter().filter(|tool| !has(folder, tool.check.as_deref(), &tool.name)).collect();
    if !missing.is_empty() {
        let names: Vec<&str> = missing.iter().map(|tool| tool.name.as_str()).collect();
        let ways: Vec<&str> = missing.iter().map(|tool| tool.get.as_str()).collect();
        let what = format!("building {} needs what is not here: {}", folder.display(), names.join(", "));
        return Err(Failure::new(what).hint(ways.join("; ")));
    }
    for line in &recipe.build {
        say_error(line);
        let status = shell(folder, line).stdout(std::io::stderr()).status();
        let status = status.map_err(|e| Failure::new(format!("sh: {e}")))?;
        if !status.success() {
            return Err(Failure::new(format!("`{line}` failed ({status})")).hint("what it said is above"));
        }
    }
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

fn has(folder: &Path, check: Option<&str>, name: &str) -> bool {
    let default = format!("command -v '{}'", name.replace('\'', ""));
    let mut command = shell(folder, check.unwrap_or(&default));
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// A shell command in the project, whose output goes where its recipe says.
fn shell(folder: &Path, line: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", line]).current_dir(folder).stdin(Stdio::null());
    command
}
