//! What is wrong with a configuration, and where.

use std::fmt;
use std::path::PathBuf;

/// One mistake in a configuration. It never quotes a value that could be a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The file.
    pub path: PathBuf,
    /// Line, from 1; 0 when the mistake has no place in the text.
    pub line: u32,
    /// Column in characters, from 1; 0 when the mistake has no place in the text.
    pub column: u32,
    /// The key as it would be written with dots; empty for the whole file.
    pub key: String,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
}

impl ConfigError {
    /// Stable code for programs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        "config-invalid"
    }

    /// A mistake of the whole file, such as not being there.
    pub(super) fn file(path: impl Into<PathBuf>, message: impl Into<String>) -> Self {
        Self { path: path.into(), line: 0, column: 0, key: String::new(), message: message.into(), hint: None }
    }

    /// The same mistake with advice.
    #[must_use]
    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// Several lines for a terminal:
///
/// ```text
/// countersign.toml:12:1
///   wallet.research.daily-limt: there is no such key
///   hint: did you mean `daily-limit`?
/// ```
impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        f.write_str("\n  ")?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message.replace('\n', "\n  "))?;
        if let Some(hint) = &self.hint {
            write!(f, "\n  hint: {}", hint.replace('\n', "\n        "))?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}
