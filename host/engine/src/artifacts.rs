//! Compiled code on disk, so that a restart does not compile again.
//!
//! Whoever can write a file that is loaded here runs native code in the gateway. So: a folder of the
//! gateway's own (0700), files written beside and renamed into place, and a file counts only if its
//! tag, keyed with a secret that is not in the folder, is right for its name and the very bytes that
//! are then loaded. Nothing here ever comes from a policy's folder or from a database. Whatever is
//! wrong with a file, the answer is to compile again.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use wasmtime::component::Component;

use crate::config::{CacheConfig, EngineError};
use crate::guest::seed;

/// Magic and tag in front of the code.
const MAGIC: &[u8; 8] = b"cscode01";
const TAG_BYTES: usize = 32;
/// No compiled policy is larger; a Python one has some 40 MB.
const MAX_FILE: u64 = 512 << 20;
const SUFFIX: &str = ".code";
/// Counts what guests may see until `evaluate`: clock, randomness, environment. Raise it when that changes.
const WORLD: u32 = 1;

/// What a piece of code was made from.
#[derive(Clone, Copy)]
pub(crate) enum Made<'a> {
    /// From a module.
    Module(&'a [u8; 32]),
    /// From a module and its settings: the instance as `configure` left it.
    Snapshot(&'a [u8; 32]),
}

/// The folder, or the absence of one.
pub(crate) struct Artifacts {
    store: Option<Folder>,
}

struct Folder {
    config: CacheConfig,
    /// What this engine can load: version, settings, processor.
    compatible: [u8; 32],
    written: AtomicU64,
}

impl Artifacts {
    /// Opens (or makes) the folder.
    ///
    /// # Errors
    /// When it is not a folder of this user's that nobody else can write.
    pub(crate) fn open(
        config: Option<&CacheConfig>,
        engine: &wasmtime::Engine,
        memory_limit: usize,
    ) -> Result<Self, EngineError> {
        let Some(config) = config else { return Ok(Self { store: None }) };
        private_folder(&config.folder)?;
        let mut compatible = CompatHasher::default();
        std::hash::Hash::hash(&engine.precompile_compatibility_hash(), &mut compatible);
        // A snapshot also holds what our own code showed the guest while it was configured.
        compatible.0.extend(WORLD.to_be_bytes());
        compatible.0.extend(env!("CARGO_PKG_VERSION").as_bytes());
        compatible.0.extend((memory_limit as u64).to_be_bytes());
        let folder = Folder { config: config.clone(), compatible: compatible.digest(), written: AtomicU64::new(0) };
        folder.sweep();
        folder.shrink();
        Ok(Self { store: Some(folder) })
    }

    /// Code made earlier from the same, if it is there and is what was put there.
    pub(crate) fn get(&self, engine: &wasmtime::Engine, made: Made<'_>) -> Option<Component> {
        let folder = self.store.as_ref()?;
        let (name, path) = folder.place(made);
        let bytes = read(&path)?;
        let code = folder.verified(&name, &bytes);
        let Some(code) = code else {
            tracing::warn!(path = %path.display(), "a compiled policy was changed or damaged; it is compiled again");
            return None;
        };
        match load(engine, code) {
            Ok(component) => Some(component),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "a compiled policy cannot be loaded; it is compiled again");
                None
            }
        }
    }

    /// Keeps code. Failing to is no error: the next start compiles again.
    pub(crate) fn put(&self, made: Made<'_>, component: &Component) {
        let Some(folder) = &self.store else { return };
        let kept = component.serialize().map_err(|e| e.to_string()).and_then(|code| folder.write(made, &code));
        if let Err(error) = kept {
            tracing::warn!(%error, "a compiled policy could not be kept");
        }
    }
}

/// The one place where code is taken from bytes.
#[expect(unsafe_code, reason = "loading native code; the tag over exactly these bytes was checked by the caller")]
fn load(engine: &wasmtime::Engine, code: &[u8]) -> wasmtime::Result<Component> {
    // SAFETY: `code` was made by `Component::serialize` in this program: the tag in front of it, keyed
    // with a secret of the gateway's, was checked over these very bytes, which nothing can change
    // any more. wasmtime checks version, settings and processor itself.
    unsafe { Component::deserialize(engine, code) }
}

impl Folder {
    /// Name and path. Different engines, modules and settings have different names.
    fn place(&self, made: Made<'_>) -> (String, PathBuf) {
        let (kind, of) = match made {
            Made::Module(digest) => ("module", digest),
            Made::Snapshot(digest) => ("snapshot", digest),
        };
        let name = hex::encode(seed("compiled", &[kind.as_bytes(), of, &self.compatible]));
        let path = self.config.folder.join(format!("{name}{SUFFIX}"));
        (name, path)
    }

    fn tag(&self, name: &str) -> Option<Hmac<Sha256>> {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.config.key.bytes()).ok()?;
        mac.update(MAGIC);
        mac.update(name.as_bytes());
        Some(mac)
    }

    fn verified<'a>(&self, name: &str, bytes: &'a [u8]) -> Option<&'a [u8]> {
        let (tag, code) = bytes.strip_prefix(MAGIC)?.split_at_checked(TAG_BYTES)?;
        let mut mac = self.tag(name)?;
        mac.update(code);
        mac.verify_slice(tag).ok()?;
        Some(code)
    }

    fn write(&self, made: Made<'_>, code: &[u8]) -> Result<(), String> {
        let (name, path) = self.place(made);
        let mut mac = self.tag(&name).ok_or("no key")?;
        mac.update(code);
        let tag = mac.finalize().into_bytes();
        let turn = self.written.fetch_add(1, Ordering::Relaxed);
        let beside = self.config.folder.join(format!("{name}.{}.{turn}.tmp", std::process::id()));
        let written = (|| {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
            for part in [MAGIC.as_slice(), &tag, code] {
                file.write_all(part)?;
            }
            fs::rename(&beside, &path)
        })();
        if written.is_err() {
            // Nothing depends on it being gone.
            drop(fs::remove_file(&beside));
        }
        written.map_err(|e: std::io::Error| format!("{}: {e}", path.display()))?;
        self.shrink();
        Ok(())
    }

    /// Removes what a crash left half written: nobody else writes here.
    fn sweep(&self) {
        for (_, _, path) in self.files("tmp") {
            drop(fs::remove_file(path));
        }
    }

    /// Removes what was used longest ago until the rest fits.
    fn shrink(&self) {
        let mut files = self.files("code");
        files.sort();
        let mut total: u64 = files.iter().map(|(_, len, _)| len).sum();
        for (_, len, path) in files {
            if total > self.config.limit_bytes && fs::remove_file(&path).is_ok() {
                total = total.saturating_sub(len);
            }
        }
    }

    /// Files with this ending: when each was used last, and its size.
    fn files(&self, ending: &str) -> Vec<(SystemTime, u64, PathBuf)> {
        let Ok(entries) = fs::read_dir(&self.config.folder) else { return Vec::new() };
        let about = |path: PathBuf| {
            let about = fs::symlink_metadata(&path).ok().filter(fs::Metadata::is_file)?;
            Some((about.modified().ok()?, about.len(), path))
        };
        let ours = entries.flatten().map(|e| e.path()).filter(|p| p.extension().is_some_and(|e| e == ending));
        ours.filter_map(about).collect()
    }
}

/// A regular file of this user's, whole.
fn read(path: &Path) -> Option<Vec<u8>> {
    let mut file = File::open(path).ok()?;
    let about = file.metadata().ok()?;
    if !about.is_file() || about.len() > MAX_FILE || about.uid() != rustix::process::geteuid().as_raw() {
        return None;
    }
    let mut bytes = Vec::with_capacity(usize::try_from(about.len()).ok()?);
    file.read_to_end(&mut bytes).ok()?;
    // Used now: what was used longest ago is removed first. A failure costs a compilation later.
    drop(file.set_modified(now()));
    Some(bytes)
}

#[expect(clippy::disallowed_methods, reason = "file times order what is removed first; no decision sees them")]
fn now() -> SystemTime {
    SystemTime::now()
}

fn private_folder(folder: &Path) -> Result<(), EngineError> {
    let bad = |why: String| EngineError::Cache(format!("{}: {why}", folder.display()));
    match DirBuilder::new().mode(0o700).recursive(true).create(folder) {
        Ok(()) => {}
        Err(error) => return Err(bad(error.to_string())),
    }
    let about = fs::symlink_metadata(folder).map_err(|e| bad(e.to_string()))?;
    if !about.is_dir() {
        return Err(bad("not a folder".to_owned()));
    }
    if about.uid() != rustix::process::geteuid().as_raw() {
        return Err(bad("belongs to another user; compiled policies are code, so give it to the gateway's".to_owned()));
    }
    if about.mode() & 0o077 != 0 {
        let mode = about.mode() & 0o777;
        return Err(bad(format!("is open to others (mode {mode:o}); compiled policies are code: chmod 700 it")));
    }
    Ok(())
}

/// wasmtime tells what an engine can load as something to hash; this keeps all of it.
#[derive(Default)]
struct CompatHasher(Vec<u8>);

impl CompatHasher {
    fn digest(&self) -> [u8; 32] {
        crate::digest::digest_of(&self.0)
    }
}

impl std::hash::Hasher for CompatHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn finish(&self) -> u64 {
        0
    }
}
