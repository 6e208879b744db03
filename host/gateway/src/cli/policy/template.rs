//! What `policy new` starts from and `policy build` follows, compiled into the binary.

use serde::Deserialize;

use crate::cli::Failure;

/// A path and what the file says.
pub(super) type File = (&'static str, &'static str);

/// Language and files of each template.
static TEMPLATES: &[(&str, &[File])] = include!(concat!(env!("OUT_DIR"), "/templates.rs"));
/// The SDK and the contract, laid out as in their repository.
static SDK: &[File] = include!(concat!(env!("OUT_DIR"), "/sdk.rs"));
/// The workspace whose versions and lints the SDK inherits.
const WORKSPACE: &str = include_str!("../../../../../Cargo.toml");
/// The versions the SDK is known to work with; the first build drops what a policy does not need.
const LOCK: &str = include_str!("../../../../../Cargo.lock");
/// The contract.
pub(super) const WIT: File = ("wit/policy.wit", include_str!("../../../../../wit/v0.1/policy.wit"));

/// The module in a project's folder.
pub(super) const MODULE: &str = "policy.wasm";
/// How a project is built.
pub(super) const RECIPE: &str = "template.json";
/// Where a project keeps the SDK, and the placeholder for it.
const SDK_FOLDER: &str = "countersign";

/// How to build a project.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Recipe {
    /// A command and its arguments, run in the project's folder.
    pub(super) build: Vec<String>,
    /// The component it leaves behind.
    pub(super) output: String,
    /// The programs it needs.
    #[serde(default)]
    pub(super) tools: Vec<String>,
}

impl Recipe {
    /// Reads a `template.json`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        serde_json::from_str(text).map_err(|e| e.to_string())
    }

    /// How a Rust project without a recipe is built.
    pub(super) fn rust(package: &str) -> Result<Self, Failure> {
        let text = files("rust")?.iter().find(|(path, _)| *path == RECIPE).map(|(_, text)| *text);
        let text = text.ok_or_else(|| Failure::new("this program was built without a recipe for Rust"))?;
        Self::parse(&fill(text, package)).map_err(Failure::new)
    }
}

/// The languages there are templates for.
pub(super) fn languages() -> Vec<&'static str> {
    TEMPLATES.iter().map(|(language, _)| *language).collect()
}

/// The files of a language's template.
pub(super) fn files(language: &str) -> Result<&'static [File], Failure> {
    let found = TEMPLATES.iter().find(|(name, _)| *name == language).map(|(_, files)| *files);
    found.ok_or_else(|| {
        Failure::new(format!("there is no template for `{language}`"))
            .hint(format!("there are {}", languages().join(", ")))
    })
}

/// Puts a project's name in the place of the placeholders.
pub(super) fn fill(text: &str, name: &str) -> String {
    text.replace("{{name_snake}}", &name.replace('-', "_"))
        .replace("{{name}}", name)
        .replace("{{sdk}}", &format!("{SDK_FOLDER}/sdk/rust"))
}

/// Whether a template builds on the SDK.
pub(super) fn needs_sdk(files: &[File]) -> bool {
    files.iter().any(|(_, text)| text.contains("{{sdk}}"))
}

/// The SDK as a project carries it: with a workspace of its own, since its manifests inherit from one, and
/// the versions it was tested with.
pub(super) fn sdk() -> Vec<(String, String)> {
    let members = WORKSPACE.lines().map(|line| {
        if line.starts_with("members = ") {
            "members = [\"sdk/cases\", \"sdk/rust\"]"
        } else if line.starts_with("exclude = ") {
            ""
        } else {
            line
        }
    });
    let workspace = members.collect::<Vec<_>>().join("\n") + "\n";
    let files = SDK.iter().map(|(path, text)| (format!("{SDK_FOLDER}/{path}"), (*text).to_owned()));
    let own = [(format!("{SDK_FOLDER}/Cargo.toml"), workspace), ("Cargo.lock".to_owned(), LOCK.to_owned())];
    own.into_iter().chain(files).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_template_is_whole() {
        assert!(languages().contains(&"rust"));
        for language in languages() {
            let files = files(language).ok().unwrap();
            let text = |name: &str| files.iter().find(|(path, _)| *path == name).map(|(_, text)| *text);
            Recipe::parse(&fill(text(RECIPE).unwrap_or_default(), "my-rule"))
                .unwrap_or_else(|e| panic!("{language}: {e}"));
            let cases = text("cases.json").or(text("cases.toml"));
            assert!(cases.is_some(), "{language} has no cases");
            countersign_engine::cases::Cases::parse(&fill(cases.unwrap(), "my-rule")).unwrap();
        }
    }

    #[test]
    fn the_sdk_is_a_workspace_of_its_own() {
        let files = sdk();
        let text = |name: &str| &files.iter().find(|(path, _)| path == name).unwrap().1;
        let workspace: toml::Table = toml::from_str(text("countersign/Cargo.toml")).unwrap();
        let members = workspace["workspace"]["members"].as_array().unwrap();
        for member in members {
            text(&format!("countersign/{}/Cargo.toml", member.as_str().unwrap()));
        }
        assert!(workspace["workspace"].get("exclude").is_none());
        text("countersign/wit/v0.1/policy.wit");
    }

    #[test]
    fn placeholders_are_filled() {
        assert_eq!(fill("{{name}} {{name_snake}} {{sdk}}", "a-b"), "a-b a_b countersign/sdk/rust");
    }
}
