//! The demo's private folder: made for it, closed to everybody else, and gone when it ends.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::agent::Trouble;
use crate::clock::{SystemClock, random};

/// A folder that is removed when this is dropped.
pub(super) struct Folder(PathBuf);

impl Folder {
    /// Makes one among the machine's temporary files, under a name nobody can guess.
    pub(super) fn create() -> Result<Self, Trouble> {
        let name: [u8; 8] = random(&SystemClock).map_err(Trouble::with("a name for the demo's folder"))?;
        let path = std::env::temp_dir().join(format!("countersign-demo-{}", hex::encode(name)));
        let made = DirBuilder::new().mode(0o700).create(&path);
        made.map_err(Trouble::with(path.display()))?;
        Ok(Self(path))
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a file that only we can read, in one step: whoever looks sees the old or the new one.
    pub(super) fn put(&self, name: &str, content: &[u8]) -> Result<PathBuf, Trouble> {
        let path = self.0.join(name);
        let draft = path.with_extension("new");
        write(&draft, content).and_then(|()| fs::rename(&draft, &path)).map_err(Trouble::with(path.display()))?;
        Ok(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed is only left over.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?.write_all(content)
}
