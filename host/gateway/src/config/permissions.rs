//! Who else could read or change a file the gateway trusts.
//!
//! A file is safe when it is ours, nobody else may write it, and nobody else may put another one
//! in its place: the folder that contains it must be ours and closed to others, and every folder
//! above must be closed too, or sticky as `/tmp` is. Files of root are as good as ours, because
//! root needs no permission; except the ledger, which we must be able to write.

use std::fmt;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// What a path is used for, and so how closed it must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The configuration: readable by anybody.
    Config,
    /// A passphrase or key: readable by us only.
    Secret,
    /// A wallet's keystore: readable by us only.
    Wallet,
    /// The ledger: readable by us only; it need not exist yet.
    Ledger,
    /// A policy module: readable by anybody.
    Policy,
    /// A folder of ours, such as the cache: readable by us only.
    Folder,
}

impl Kind {
    const fn noun(self) -> &'static str {
        match self {
            Self::Config => "the configuration",
            Self::Secret => "the secret file",
            Self::Wallet => "the wallet",
            Self::Ledger => "the ledger",
            Self::Policy => "the policy",
            Self::Folder => "the folder",
        }
    }

    /// Permission bits that must not be set, and the `chmod` that clears them.
    const fn forbidden(self) -> (u32, &'static str) {
        match self {
            Self::Config | Self::Policy => (0o022, "go-w"),
            Self::Secret | Self::Wallet | Self::Ledger => (0o077, "600"),
            Self::Folder => (0o077, "700"),
        }
    }
}

/// Why a path is not trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PermissionError {
    message: String,
    hint: Option<String>,
}

impl PermissionError {
    /// Stable code for programs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        "path-not-private"
    }

    /// The command that puts it right.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    fn new(message: String, hint: impl Into<Option<String>>) -> Self {
        Self { message, hint: hint.into() }
    }
}

impl fmt::Display for PermissionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for PermissionError {}

/// Checks that only we (and root) can change what is at `path`, and read it where it is secret.
///
/// # Errors
/// When it does not exist (except a ledger), or somebody else could read, change or replace it.
pub fn check_private(path: &Path, kind: Kind) -> Result<(), PermissionError> {
    let us =
        effective_user().map_err(|e| PermissionError::new(format!("cannot tell which user this is: {e}"), None))?;
    check_as(path, kind, us)
}

/// [`check_private`] for a given user.
fn check_as(path: &Path, kind: Kind, us: u32) -> Result<(), PermissionError> {
    let written = std::path::absolute(path).map_err(|e| unreadable(path, kind, &e))?;
    let real = match fs::metadata(&written) {
        Ok(meta) => {
            check_itself(&written, kind, us, &meta)?;
            fs::canonicalize(&written).map_err(|e| unreadable(path, kind, &e))?
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound && kind == Kind::Ledger => written.clone(),
        Err(e) => return Err(unreadable(path, kind, &e)),
    };
    check_folders(&written, kind, us)?;
    // Behind a symbolic link other folders decide.
    if real == written { Ok(()) } else { check_folders(&real, kind, us) }
}

fn check_itself(path: &Path, kind: Kind, us: u32, meta: &Metadata) -> Result<(), PermissionError> {
    let (noun, shown) = (kind.noun(), path.display());
    if meta.is_dir() != (kind == Kind::Folder) || !(meta.is_dir() || meta.is_file()) {
        let expected = if kind == Kind::Folder { "folder" } else { "regular file" };
        return Err(PermissionError::new(format!("{noun} {shown} is not a {expected}"), None));
    }
    let root_will_do = kind != Kind::Ledger && kind != Kind::Folder;
    if meta.uid() != us && !(root_will_do && meta.uid() == 0) {
        let message = format!("{noun} {shown} belongs to user {}, not to this process's user {us}", meta.uid());
        return Err(PermissionError::new(message, format!("run: chown {us} {}", quoted(path))));
    }
    let (forbidden, chmod) = kind.forbidden();
    let open = meta.mode() & forbidden;
    if open == 0 {
        return Ok(());
    }
    let can = if open & 0o022 == 0 { "read" } else { "change" };
    let mode = meta.mode() & 0o7777;
    let message = format!("{noun} {shown} has mode {mode:04o}: other users can {can} it");
    Err(PermissionError::new(message, format!("run: chmod {chmod} {}", quoted(path))))
}

/// The folder that contains a file must be ours or root's; no folder above it open to others,
/// unless it is sticky: there nobody can replace what is not his. A folder of ours contains itself.
fn check_folders(path: &Path, kind: Kind, us: u32) -> Result<(), PermissionError> {
    for (height, folder) in path.ancestors().skip(1).enumerate() {
        let shown = folder.display();
        let meta = fs::metadata(folder)
            .map_err(|e| PermissionError::new(format!("cannot look at the folder {shown}: {e}"), None))?;
        let contains = height == 0 && kind != Kind::Folder;
        if contains && meta.uid() != us && meta.uid() != 0 {
            let message =
                format!("the folder {shown} belongs to user {}, who could replace {}", meta.uid(), path.display());
            return Err(PermissionError::new(message, format!("use a folder of user {us}")));
        }
        let open = meta.mode() & 0o022 != 0;
        let sticky = meta.mode() & 0o1000 != 0;
        if !open || (sticky && !contains) {
            continue;
        }
        let mode = meta.mode() & 0o7777;
        let message = format!("the folder {shown} has mode {mode:04o}: other users can replace {}", path.display());
        let hint = if sticky {
            format!("use a folder of your own below {}", quoted(folder))
        } else {
            format!("run: chmod go-w {}", quoted(folder))
        };
        return Err(PermissionError::new(message, hint));
    }
    Ok(())
}

fn unreadable(path: &Path, kind: Kind, error: &io::Error) -> PermissionError {
    let what = match error.kind() {
        io::ErrorKind::NotFound => "does not exist".to_owned(),
        _ => format!("cannot be looked at: {error}"),
    };
    PermissionError::new(format!("{} {} {what}", kind.noun(), path.display()), None)
}

/// For a shell.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}

/// The effective user id. Linux tells it in a file; elsewhere a file of ours tells it, because
/// asking directly would take a foreign call.
fn effective_user() -> io::Result<u32> {
    if let Ok(status) = fs::read_to_string("/proc/self/status") {
        let ids = status.lines().find_map(|line| line.strip_prefix("Uid:"));
        if let Some(Ok(id)) = ids.and_then(|ids| ids.split_whitespace().nth(1)).map(str::parse) {
            return Ok(id);
        }
    }
    let probe: PathBuf = std::env::temp_dir().join(format!(".countersign-{}", std::process::id()));
    let meta = fs::OpenOptions::new().write(true).create_new(true).open(&probe).and_then(|file| file.metadata());
    fs::remove_file(&probe)?;
    meta.map(|meta| meta.uid())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn modes_are_as_closed_as_the_kind_asks() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("it's a file");
        fs::write(&file, "x").unwrap();
        let check = |kind, mode, want: Option<&str>| {
            chmod(&file, mode);
            let got = check_private(&file, kind);
            assert_eq!(got.is_ok(), want.is_none(), "{kind:?} {mode:o}: {got:?}");
            if let (Err(e), Some(want)) = (got, want) {
                let hint = e.hint().unwrap_or_default();
                assert!(hint.starts_with(want) && hint.contains(r"it'\''s a file'"), "{hint}");
                assert!(e.to_string().contains(&format!("{mode:04o}")), "{e}");
            }
        };
        for kind in [Kind::Config, Kind::Policy] {
            check(kind, 0o600, None);
            check(kind, 0o644, None);
            check(kind, 0o664, Some("run: chmod go-w '"));
            check(kind, 0o606, Some("run: chmod go-w '"));
        }
        for kind in [Kind::Secret, Kind::Wallet, Kind::Ledger] {
            check(kind, 0o600, None);
            check(kind, 0o400, None);
            check(kind, 0o640, Some("run: chmod 600 '"));
            check(kind, 0o604, Some("run: chmod 600 '"));
            check(kind, 0o622, Some("run: chmod 600 '"));
        }
    }

    #[test]
    fn folders_must_be_closed_and_ours() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("inner");
        fs::create_dir(&inner).unwrap();
        let file = inner.join("f");
        fs::write(&file, "x").unwrap();
        let check = |outer_mode, inner_mode, ok: bool| {
            chmod(dir.path(), outer_mode);
            chmod(&inner, inner_mode);
            let got = check_private(&file, Kind::Config);
            assert_eq!(got.is_ok(), ok, "{outer_mode:o} {inner_mode:o}: {got:?}");
        };
        check(0o700, 0o700, true);
        check(0o755, 0o755, true);
        check(0o755, 0o775, false);
        check(0o755, 0o757, false);
        check(0o777, 0o755, false);
        check(0o1777, 0o755, true);
        check(0o755, 0o1777, false);
        chmod(dir.path(), 0o700);
        chmod(&inner, 0o700);
        let us = effective_user().unwrap();
        assert_eq!(us, fs::metadata(&file).unwrap().uid());
        assert_eq!(check_as(&file, Kind::Config, us), Ok(()));
        let other = check_as(&file, Kind::Ledger, us.wrapping_add(1)).unwrap_err();
        assert!(other.to_string().contains("belongs to user"), "{other}");
    }

    #[test]
    fn a_link_is_as_safe_as_both_its_ends() {
        let dir = tempfile::tempdir().unwrap();
        let open = dir.path().join("open");
        fs::create_dir(&open).unwrap();
        let (target, link) = (open.join("f"), dir.path().join("link"));
        fs::write(&target, "x").unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        assert_eq!(check_private(&link, Kind::Config), Ok(()));
        chmod(&open, 0o777);
        assert!(check_private(&link, Kind::Config).is_err());
    }

    #[test]
    fn only_a_ledger_may_be_missing_and_only_folders_are_folders() {
        let dir = tempfile::tempdir().unwrap();
        chmod(dir.path(), 0o700);
        let check = |path: &Path, kind, want: &str| {
            let got = check_private(path, kind).map_or_else(|e| e.to_string(), |()| "ok".to_owned());
            assert!(got.ends_with(want), "{kind:?}: {got}");
        };
        let none = dir.path().join("none");
        check(&none, Kind::Ledger, "ok");
        check(&none, Kind::Config, "does not exist");
        check(dir.path(), Kind::Folder, "ok");
        check(dir.path(), Kind::Wallet, "is not a regular file");
    }
}
