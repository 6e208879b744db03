//! Starts workers with `shim.c` between them and the disk.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use crate::log::{self, Entry};
use crate::worker::Work;

/// The shim, compiled by the C compiler that the bundled SQLite needs too.
static SHIM: LazyLock<(tempfile::TempDir, PathBuf)> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let shim = folder.path().join("shim.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/disk/shim.c");
    let compiler = std::env::vars().find(|(name, _)| name == "CC").map_or_else(|| "cc".to_owned(), |(_, cc)| cc);
    let mut cc = Command::new(&compiler);
    cc.args(["-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o"]).args([&shim, &source]).arg("-lpthread");
    let output = cc.output().unwrap_or_else(|e| panic!("this suite needs a C compiler, and `{compiler}`: {e}"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    (folder, shim)
});

/// A folder with a store, and beside it the log of all that was done to it.
pub(crate) struct Place {
    _outer: tempfile::TempDir,
    /// The store's folder.
    pub(crate) folder: PathBuf,
    pub(crate) log: PathBuf,
}

impl Place {
    pub(crate) fn new() -> Self {
        let outer = tempfile::tempdir().unwrap();
        // Resolved, because the shim compares it with what the kernel says.
        let root = outer.path().canonicalize().unwrap();
        let folder = root.join("store");
        std::fs::create_dir(&folder).unwrap();
        Self { _outer: outer, folder, log: root.join("log") }
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.folder.join("ledger.db")
    }

    /// Lets a worker do its work; with `fault`, the disk fails as `shim.c` explains.
    pub(crate) fn work(&self, work: &Work, fault: Option<&str>, syncs: bool) {
        let mut worker = Command::new(std::env::current_exe().unwrap());
        worker.args(["worker::worker", "--exact", "--test-threads=1"]).stdout(Stdio::null()).stderr(Stdio::piped());
        worker.env("LD_PRELOAD", &SHIM.1).env("DISK_FOLDER", &self.folder).env("DISK_LOG", &self.log);
        worker.env("DISK_WORK", work.print()).env("DISK_SYNC", if syncs { "yes" } else { "no" });
        if let Some(fault) = fault {
            worker.env("DISK_FAULT", fault);
        }
        let output = worker.output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "the worker ended with {}: {told}", output.status);
    }

    pub(crate) fn read(&self) -> Vec<Entry> {
        log::read(&self.log)
    }
}

/// A variable of the environment.
pub(crate) fn text(variable: &str) -> Option<String> {
    std::env::vars().find(|(name, _)| name == variable).map(|(_, value)| value)
}

/// A number from the environment, or this one.
pub(crate) fn number(variable: &str, otherwise: u64) -> u64 {
    let Some(text) = text(variable) else { return otherwise };
    text.parse().unwrap_or_else(|_| panic!("{variable}={text}: expected a number"))
}
