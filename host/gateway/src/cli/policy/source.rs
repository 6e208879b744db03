//! What an author points at: a module, a folder, or a builtin; and the cases that belong to it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use countersign_core::json;
use countersign_engine::PolicySpec;
use countersign_engine::cases::Cases;
use serde_json::Value;

use super::template::MODULE;
use crate::builtin;
use crate::casefile::CaseFile;
use crate::cli::Failure;
use crate::config::cases_beside;

/// A policy to look at.
pub(super) struct Source {
    /// What to call it.
    pub(super) name: String,
    pub(super) module: Arc<[u8]>,
    /// The cases and where they are from.
    pub(super) cases: Option<(String, Cases)>,
    /// Where cases would have been found.
    pub(super) looked: Vec<PathBuf>,
}

impl Source {
    /// Reads a module and its cases; `cases` names the file if it is not beside the module.
    pub(super) fn find(path: &str, cases: Option<&Path>) -> Result<Self, Failure> {
        let mut source = match path.strip_prefix("builtin:") {
            Some(name) => Self::builtin(name)?,
            None => Self::file(Path::new(path), cases.is_none())?,
        };
        if let Some(cases) = cases {
            let file = CaseFile::read(cases).map_err(Failure::new)?;
            source.cases = Some(parsed(file.path.display().to_string(), &file.text)?);
        }
        Ok(source)
    }

    fn builtin(name: &str) -> Result<Self, Failure> {
        let unknown = || {
            Failure::new(format!("there is no builtin `{name}`"))
                .hint(format!("there are {}", builtin::names().join(", ")))
        };
        let module = builtin::module(name).ok_or_else(unknown)?.into();
        let cases =
            builtin::cases(name).map(|text| parsed(format!("the cases of builtin:{name}"), text)).transpose()?;
        Ok(Self { name: name.to_owned(), module, cases, looked: Vec::new() })
    }

    fn file(path: &Path, with_cases: bool) -> Result<Self, Failure> {
        let folder = path.is_dir();
        let module = if folder { path.join(MODULE) } else { path.to_owned() };
        let bytes = std::fs::read(&module).map_err(|e| {
            let failure = Failure::new(format!("{}: {e}", module.display()));
            if folder {
                failure.hint(format!("build it first: countersign policy build {}", path.display()))
            } else {
                failure
            }
        })?;
        let mut looked = cases_beside(&module).to_vec();
        // What `policy build` makes lies in its project, whose cases need no second name.
        if module.file_name().is_some_and(|name| name == MODULE) {
            looked.extend(["cases.json", "cases.toml"].map(|name| module.with_file_name(name)));
        }
        let found = if with_cases { CaseFile::find(&looked).map_err(Failure::new)? } else { None };
        let cases = found.map(|file| parsed(file.path.display().to_string(), &file.text)).transpose()?;
        let name = if folder { path.file_name() } else { path.file_stem() };
        let name = name.map_or_else(|| "policy".to_owned(), |name| name.to_string_lossy().into_owned());
        Ok(Self { name, module: bytes.into(), cases, looked })
    }

    /// The policy as a gateway would be told of it.
    pub(super) fn spec(&self, settings: &Value) -> PolicySpec {
        PolicySpec { settings: json::canonical(settings), ..PolicySpec::new("candidate", Arc::clone(&self.module)) }
    }
}

/// A file with settings, JSON or TOML.
pub(super) fn settings(path: &Path) -> Result<Value, Failure> {
    let fail = |why: String| Failure::new(format!("{}: {why}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|e| fail(e.to_string()))?;
    let toml = path.extension().is_some_and(|extension| extension == "toml");
    let read: Result<Value, String> = if toml {
        toml::from_str(&text).map_err(|e| e.to_string())
    } else {
        serde_json::from_str(&text).map_err(|e| e.to_string())
    };
    read.map_err(fail)
}

fn parsed(from: String, text: &str) -> Result<(String, Cases), Failure> {
    let cases = Cases::parse(text).map_err(|e| Failure::new(format!("{from}: {e}")))?;
    Ok((from, cases))
}
