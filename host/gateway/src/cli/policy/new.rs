//! Starting a policy.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::template::{self, WIT};
use crate::cli::{Failure, Outcome, say};

/// Start a policy of your own.
#[derive(Args)]
pub(in crate::cli) struct New {
    /// What it is called: kebab-case, and the name of the folder. May be a path to that folder.
    name: PathBuf,
    /// The language: rust, js, python, c or go.
    #[arg(long)]
    lang: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &New) -> Outcome {
    let folder = args.name.as_path();
    let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if !is_kebab(name) {
        return Err(Failure::new(format!("`{name}` is no name for a policy"))
            .hint("1 to 64 of a-z, 0-9 and `-`, beginning with a letter, such as client-day"));
    }
    let template = template::files(&args.lang)?;
    if folder.exists() && std::fs::read_dir(folder).map_or(true, |mut entries| entries.next().is_some()) {
        return Err(Failure::new(format!("{} is there and not an empty folder", folder.display()))
            .hint("choose another name; nothing is overwritten"));
    }
    let mut files: Vec<(String, String)> = Vec::new();
    files.extend(template.iter().map(|(path, text)| (template::fill(path, name), template::fill(text, name))));
    if template::needs_sdk(template) {
        let template_has = |path: &str| template.iter().any(|(own, _)| *own == path);
        files.extend(template::sdk().into_iter().filter(|(path, _)| !template_has(path)));
    }
    if !files.iter().any(|(path, _)| path == WIT.0) {
        files.push((WIT.0.to_owned(), WIT.1.to_owned()));
    }
    for (path, text) in &files {
        write(&folder.join(path), text)?;
    }
    let next = ["build", "check", "test"].map(|verb| format!("countersign policy {verb} {}", folder.display()));
    if args.json {
        let files: Vec<&String> = files.iter().map(|(path, _)| path).collect();
        let report = json!({"name": name, "lang": args.lang, "folder": folder, "files": files, "next": next});
        say(format_args!("{report:#}"));
        return Ok(());
    }
    say(format_args!("{} is a policy in {}: its code, its cases and the contract. Next:", folder.display(), args.lang));
    next.iter().for_each(|command| say(format_args!("  {command}")));
    Ok(())
}

fn is_kebab(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && !name.ends_with('-')
        && !name.contains("--")
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

fn write(path: &Path, text: &str) -> Outcome {
    let fail = |e: std::io::Error| Failure::new(format!("{}: {e}", path.display()));
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(fail)?;
    }
    std::fs::write(path, text).map_err(fail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_kebab() {
        assert!(["a", "client-day", "b2"].into_iter().all(is_kebab));
        assert!(!["", "A", "-a", "a-", "a--b", "a_b", "2a", "ä", &"a".repeat(65)].into_iter().any(is_kebab));
    }
}
