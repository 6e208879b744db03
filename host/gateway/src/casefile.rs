//! Files of cases, for the reloader and for authors.

use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};

/// Largest file; the reader of cases refuses the same.
const MAX_FILE: u64 = 4 << 20;

/// A file of cases as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaseFile {
    /// Where it was.
    pub path: PathBuf,
    /// What it says.
    pub text: String,
}

impl CaseFile {
    /// Reads one file that must be there.
    ///
    /// # Errors
    /// Why it cannot be read, with its path.
    pub fn read(path: &Path) -> Result<Self, String> {
        let fail = |why: String| format!("{}: {why}", path.display());
        // Opening a pipe waits for whoever writes into it, and a device never ends.
        if !std::fs::metadata(path).map_err(|e| fail(e.to_string()))?.is_file() {
            return Err(fail("not a regular file".to_owned()));
        }
        let file = std::fs::File::open(path).map_err(|e| fail(e.to_string()))?;
        let mut bytes = Vec::new();
        file.take(MAX_FILE.saturating_add(1)).read_to_end(&mut bytes).map_err(|e| fail(e.to_string()))?;
        if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > MAX_FILE {
            return Err(fail(format!("more than {MAX_FILE} bytes of cases")));
        }
        let text = String::from_utf8(bytes).map_err(|_| fail("not UTF-8".to_owned()))?;
        Ok(Self { path: path.to_owned(), text })
    }

    /// Reads whichever of `paths` is there; none is no error, two are.
    ///
    /// # Errors
    /// Why it cannot be read, or that nobody can know which of two counts.
    pub fn find(paths: &[PathBuf]) -> Result<Option<Self>, String> {
        Self::locate(paths)?.map(|path| Self::read(&path)).transpose()
    }

    /// Whichever of `paths` is there.
    ///
    /// # Errors
    /// As for [`Self::find`], without reading.
    pub fn locate(paths: &[PathBuf]) -> Result<Option<PathBuf>, String> {
        let there = |path: &&PathBuf| {
            // What cannot be looked at is for reading to complain about.
            !matches!(std::fs::symlink_metadata(path), Err(e) if e.kind() == ErrorKind::NotFound)
        };
        let found: Vec<&PathBuf> = paths.iter().filter(there).collect();
        match found.as_slice() {
            [] => Ok(None),
            [one] => Ok(Some((*one).clone())),
            [one, other, ..] => Err(format!("there are {} and {}; keep one of them", one.display(), other.display())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_file_is_found_two_are_a_question() {
        let dir = tempfile::tempdir().unwrap();
        let paths = ["a.cases.json", "a.cases.toml"].map(|name| dir.path().join(name));
        assert_eq!(CaseFile::find(&paths), Ok(None));
        std::fs::write(&paths[1], "x").unwrap();
        assert_eq!(CaseFile::find(&paths), Ok(Some(CaseFile { path: paths[1].clone(), text: "x".into() })));
        std::fs::write(&paths[0], "y").unwrap();
        assert!(CaseFile::find(&paths).unwrap_err().contains("keep one of them"));
        assert!(CaseFile::read(dir.path()).unwrap_err().contains("not a regular file"));
        let long = dir.path().join("long");
        std::fs::write(&long, vec![b' '; 1 + (4 << 20)]).unwrap();
        assert!(CaseFile::read(&long).unwrap_err().contains("bytes of cases"));
        assert!(CaseFile::read(&dir.path().join("b")).unwrap_err().contains("/b: "));
    }
}
