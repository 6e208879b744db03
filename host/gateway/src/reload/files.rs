//! Reading the files: all of them once into memory, at rest. What was read is what is hashed, checked
//! and run.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use countersign_core::json::canonical;
use sha2::{Digest, Sha256};

use super::part::Part;
use super::{Refused, refused};
use crate::builtin;
use crate::casefile::CaseFile;
use crate::config::permissions::{Kind, check_private};
use crate::config::{Config, ConfigError, Environment, MandateConfig, Module, PolicyConfig};
use crate::watch::names_of;

/// Largest module file read, in bytes; the engine may accept less.
const MAX_MODULE: u64 = 64 << 20;
/// A file that changes while it is read is read again this often.
const TRIES: usize = 8;

/// Everything a configuration consists of, read at one moment.
#[derive(Clone)]
pub(super) struct Files {
    /// The configuration.
    pub(super) config: Config,
    /// Each policy of it, or why it cannot be read.
    pub(super) parts: BTreeMap<String, Result<Part, Refused>>,
    /// Digest of all that was read: an event without a change is not an edit.
    pub(super) seen: [u8; 32],
}

/// What one look at the files found.
pub(super) enum Sight {
    /// The configuration is being written at this very moment.
    Unsettled,
    /// It cannot be used.
    Unusable(Refused, [u8; 32]),
    /// It can be read, but a module of it is being written at this very moment.
    Partly(Box<Config>),
    /// Everything is at rest.
    Whole(Box<Files>),
}

/// Reads a configuration that names only builtins there are.
///
/// # Errors
/// The first mistake, with its place.
pub fn load(path: &Path, environment: &Environment) -> Result<Config, ConfigError> {
    let config = Config::load(path, environment)?;
    config.check_builtins(&builtin::names())?;
    Ok(config)
}

/// Looks at the files. What is in `open` is being written: whoever writes it has not closed it yet.
pub(super) fn look(path: &Path, environment: &Environment, open: &BTreeSet<PathBuf>) -> Sight {
    let being_written = |file: &Path| names_of([file]).iter().any(|name| open.contains(name));
    for _ in 0..TRIES {
        if being_written(path) {
            return Sight::Unsettled;
        }
        let before = Stamp::of(path);
        let config = match load(path, environment) {
            Ok(config) => config,
            Err(_) if Stamp::of(path) != before => continue,
            Err(error) => {
                let why = refused("config", "", error.to_string());
                let seen = Sha256::digest(format!("unusable {}", why.message));
                return Sight::Unusable(why, seen.into());
            }
        };
        if policy_files(&config).iter().any(|file| being_written(file)) {
            return Sight::Partly(Box::new(config));
        }
        let named = policy_files(&config);
        let files =
            || std::iter::once(path).chain(named.iter().map(PathBuf::as_path)).map(Stamp::of).collect::<Vec<_>>();
        let stamps = files();
        let parts = parts(&config);
        if stamps.first() == Some(&before) && files() == stamps {
            let seen = seen(&config, &parts);
            return Sight::Whole(Box::new(Files { config, parts, seen }));
        }
    }
    // Written faster than it can be read: that is no moment for reading it, and more events will come.
    Sight::Unsettled
}

/// Everything that a configuration names, as it is now.
pub(super) fn read(config: Config) -> Files {
    let parts = parts(&config);
    let seen = seen(&config, &parts);
    Files { config, parts, seen }
}

/// The files that a configuration names policies by: modules, and where their cases may be.
pub(super) fn policy_files(config: &Config) -> Vec<PathBuf> {
    let of = |policy: &PolicyConfig| {
        let module = match &policy.module {
            Module::File(path) => Some(path.clone()),
            Module::Builtin(_) | Module::Kept(_) => None,
        };
        module.into_iter().chain(policy.case_files())
    };
    config.policies.values().flat_map(of).collect()
}

fn parts(config: &Config) -> BTreeMap<String, Result<Part, Refused>> {
    let policies = config.policies.iter();
    policies.map(|(name, policy)| (name.clone(), part(name, policy))).collect()
}

fn part(name: &str, policy: &PolicyConfig) -> Result<Part, Refused> {
    let fail = |message: String| refused("read", name, message);
    let module: Arc<[u8]> = match &policy.module {
        Module::Builtin(builtin) => {
            let known = builtin::names();
            let absent = || fail(format!("there is no builtin `{builtin}`; there are {}", known.join(", ")));
            builtin::module(builtin).ok_or_else(absent)?.into()
        }
        Module::File(path) => read_module(path).map_err(fail)?.into(),
        Module::Kept(digest) => return Err(fail(format!("module {digest} is in the ledger, not in a file"))),
    };
    let cases = read_cases(policy).map_err(fail)?;
    Ok(Part::new(name, policy.clone(), module).passing(cases.map(Into::into)))
}

/// The policy's own cases, which it must pass before it serves.
fn read_cases(policy: &PolicyConfig) -> Result<Option<String>, String> {
    let found = match &policy.cases {
        Some(named) => Some(named.clone()),
        None => CaseFile::locate(&policy.case_files())?,
    };
    let Some(path) = found else { return Ok(None) };
    // Before anything is read: whoever may replace it must not choose what is opened.
    check_private(&path, Kind::Policy).map_err(|e| e.to_string())?;
    CaseFile::read(&path).map(|file| Some(file.text))
}

fn read_module(path: &Path) -> Result<Vec<u8>, String> {
    check_private(path, Kind::Policy).map_err(|e| e.to_string())?;
    let fail = |e: io::Error| format!("{}: {e}", path.display());
    let mut bytes = Vec::new();
    File::open(path).map_err(fail)?.take(MAX_MODULE.saturating_add(1)).read_to_end(&mut bytes).map_err(fail)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > MAX_MODULE {
        return Err(format!("{} has more than {MAX_MODULE} bytes", path.display()));
    }
    Ok(bytes)
}

fn seen(config: &Config, parts: &BTreeMap<String, Result<Part, Refused>>) -> [u8; 32] {
    let mut hash = Sha256::new_with_prefix(&config.sha256);
    for (name, part) in parts {
        hash.update(name);
        match part {
            Ok(part) => {
                hash.update(part.module_sha256());
                hash.update(Sha256::digest(part.spec.cases.as_deref().unwrap_or_default()));
            }
            Err(why) => hash.update(&why.message),
        }
    }
    hash.finalize().into()
}

/// Tells apart a file from what it was a moment ago, without reading it.
#[derive(PartialEq, Eq)]
struct Stamp(Result<[i64; 7], io::ErrorKind>);

impl Stamp {
    fn of(path: &Path) -> Self {
        let of = |m: fs::Metadata| {
            let unsigned = [m.dev(), m.ino(), m.size()].map(u64::cast_signed);
            let [dev, ino, size] = unsigned;
            [dev, ino, size, m.mtime(), m.mtime_nsec(), m.ctime(), m.ctime_nsec()]
        };
        Self(fs::metadata(path).map(of).map_err(|e| e.kind()))
    }
}

/// What the files said when they could last be read: what an operator's change stands in for.
#[derive(Clone)]
pub(super) struct Said {
    /// The configuration.
    pub(super) config: Config,
    entries: BTreeMap<String, (String, Option<Part>)>,
}

impl Said {
    pub(super) fn by(files: &Files) -> Self {
        let entry = |(name, part): (&String, &Result<Part, Refused>)| {
            let policy = files.config.policies.get(name);
            let read = part.as_ref().ok();
            (name.clone(), (digest(policy, read), read.cloned()))
        };
        Self { config: files.config.clone(), entries: files.parts.iter().map(entry).collect() }
    }

    /// Digest of what they say about a policy: its table and its module's bytes.
    pub(super) fn about(&self, policy: &str) -> String {
        self.entries.get(policy).map_or_else(|| digest(None, None), |(digest, _)| digest.clone())
    }

    /// Digest of the mandates.
    pub(super) fn about_mandates(&self) -> String {
        hex::encode(Sha256::digest(mandates_json(&self.config.mandates).to_string()))
    }

    /// What they pin a policy's module to.
    pub(super) fn pin(&self, policy: &str) -> Option<&str> {
        self.config.policies.get(policy)?.sha256.as_deref()
    }

    /// The policy as they have it, if its module can be read.
    pub(super) fn part(&self, policy: &str) -> Option<&Part> {
        self.entries.get(policy)?.1.as_ref()
    }
}

/// Mandates as generations keep them.
pub(super) fn mandates_json(mandates: &[MandateConfig]) -> serde_json::Value {
    // Names, numbers and sets of names: there is no value of these that JSON has not.
    serde_json::to_value(mandates).unwrap_or_default()
}

fn digest(policy: Option<&PolicyConfig>, part: Option<&Part>) -> String {
    let said = policy.map(|p| {
        let (module, bytes) = match &p.module {
            // What comes with the gateway changes with the gateway, which is no edit.
            Module::Builtin(name) => (format!("builtin:{name}"), ""),
            Module::File(path) => (path.display().to_string(), part.map_or("unreadable", Part::module_sha256)),
            Module::Kept(digest) => (digest.clone(), digest.as_str()),
        };
        serde_json::json!({"module": module, "bytes": bytes, "sha256": p.sha256, "mode": p.mode, "settings": p.settings,
            "deadline-ms": p.deadline_ms, "claims": p.claims, "tell-agent": p.tell_agent})
    });
    hex::encode(Sha256::digest(canonical(&serde_json::json!(said))))
}
