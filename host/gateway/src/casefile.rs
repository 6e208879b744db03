//! Files of cases, for the reloader and for authors.

use std::io::ErrorKind;
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
        let size = std::fs::metadata(path).map_err(|e| fail(e.to_string()))?.len();
        if size > MAX_FILE {
            return Err(fail(format!("{size} bytes of cases; at most {MAX_FILE}")));
        }
        let text = std::fs::read_to_string(path).map_err(|e| fail(e.to_string()))?;
        Ok(Self { path: path.to_owned(), text })
    }

    /// Reads whichever of `paths` is there; none is no error, two are.
    ///
    /// # Errors
    /// Why it cannot be read, or that nobody can know which of two counts.
    pub fn find(paths: &[PathBuf]) -> Result<Option<Self>, String> {
        let there = |path: &&PathBuf| {
            // What cannot be looked at is for reading to complain about.
            !matches!(std::fs::symlink_metadata(path), Err(e) if e.kind() == ErrorKind::NotFound)
        };
        let found: Vec<&PathBuf> = paths.iter().filter(there).collect();
        match found.as_slice() {
            [] => Ok(None),
            [one] => Self::read(one).map(Some),
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
        assert!(CaseFile::read(&dir.path().join("b")).unwrap_err().contains("/b: "));
    }
}
