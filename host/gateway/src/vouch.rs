//! The key that vouches for intercepted hosts: a file beside the ledger, made when it is first needed.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use countersign_ca::{Authority, CaError, Host, Leaves, Validity};
use countersign_core::seams::{Clock, ClockError};

use crate::clock::{SystemClock, random};
use crate::config::HostPattern;
use crate::config::permissions::{Kind, check_private};

/// Why nobody is vouched for.
#[derive(Debug)]
pub enum VouchError {
    /// The key's file cannot be used.
    File(PathBuf, String),
    /// A certificate cannot be made.
    Ca(CaError),
    /// No time or no randomness.
    Clock(ClockError),
}

impl fmt::Display for VouchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path, why) => write!(f, "proxy.ca: {}: {why}", path.display()),
            Self::Ca(e) => fmt::Display::fmt(e, f),
            Self::Clock(e) => fmt::Display::fmt(e, f),
        }
    }
}

impl std::error::Error for VouchError {}

impl From<CaError> for VouchError {
    fn from(e: CaError) -> Self {
        Self::Ca(e)
    }
}

impl From<ClockError> for VouchError {
    fn from(e: ClockError) -> Self {
        Self::Clock(e)
    }
}

/// Whoever trusts it trusts this gateway with the intercepted hosts.
#[derive(Debug)]
pub struct Vouch {
    path: PathBuf,
    leaves: OnceLock<Leaves>,
}

impl Vouch {
    /// With the key in this file, which need not be there yet.
    #[must_use]
    pub const fn new(path: PathBuf) -> Self {
        Self { path, leaves: OnceLock::new() }
    }

    /// Certificates of hosts; makes the key the first time.
    ///
    /// # Errors
    /// When the key's file is not private, not one, or cannot be written.
    pub fn leaves(&self) -> Result<&Leaves, VouchError> {
        if let Some(leaves) = self.leaves.get() {
            return Ok(leaves);
        }
        let opened = Leaves::new(open(&self.path)?);
        // Who else opened it meanwhile read the same file.
        Ok(self.leaves.get_or_init(|| opened))
    }

    /// The certificate that clients must trust for these hosts, in PEM, good for that many seconds.
    ///
    /// # Errors
    /// As for [`Self::leaves`].
    pub fn certificate(&self, hosts: &[HostPattern], seconds: u64, clock: &dyn Clock) -> Result<String, VouchError> {
        let validity = Validity { now: clock.now()?.as_secs(), seconds, serial: random(clock)? };
        let hosts: Vec<Host> = hosts.iter().map(host).collect();
        Ok(self.leaves()?.authority().certificate(&hosts, validity)?)
    }
}

/// Whom a pattern lets the authority vouch for, whatever the port.
fn host(pattern: &HostPattern) -> Host {
    pattern.host.parse().map_or_else(|_| Host::Name(pattern.host.clone()), Host::Address)
}

fn open(path: &Path) -> Result<Authority, VouchError> {
    if !path.exists() {
        make(path).map_err(|e| VouchError::File(path.to_owned(), e.to_string()))?;
    }
    let fail = |why: String| VouchError::File(path.to_owned(), why);
    check_private(path, Kind::Secret).map_err(|e| fail(e.to_string()))?;
    let mut text = Vec::new();
    File::open(path).and_then(|file| file.take(4_096).read_to_end(&mut text)).map_err(|e| fail(e.to_string()))?;
    Authority::from_pem(&text).map_err(|e| fail(e.to_string()))
}

/// Whole or not at all, and never over another: whoever comes second uses the key of the first.
fn make(path: &Path) -> io::Result<()> {
    let authority = Authority::generate().map_err(io::Error::other)?;
    let mut next = path.as_os_str().to_owned();
    // Nobody else's, neither another thread's nor one of a process before us.
    let name: [u8; 8] = random(&SystemClock).map_err(|e| io::Error::other(e.to_string()))?;
    next.push(format!(".{}", hex::encode(name)));
    let next = PathBuf::from(next);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&next)?;
    let written = file.write_all(authority.key_pem().as_bytes()).and_then(|()| file.sync_all());
    let linked = written.and_then(|()| match fs::hard_link(&next, path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        linked => linked,
    });
    fs::remove_file(&next)?;
    linked?;
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_key_is_made_once_and_kept_to_ourselves() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let path = dir.path().join("ca-key");
        let vouch = Vouch::new(path.clone());
        assert!(!path.exists(), "not before it is needed");
        let hosts = [HostPattern::parse("*.example").unwrap(), HostPattern::parse("127.0.0.1:*").unwrap()];
        let first = vouch.certificate(&hosts, 60, &SystemClock).unwrap();
        assert!(first.starts_with("-----BEGIN CERTIFICATE-----\n"), "{first}");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        let key = fs::read_to_string(&path).unwrap();
        make(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), key, "nobody's key is overwritten");
        let again = Vouch::new(path.clone());
        assert_eq!(again.leaves().unwrap().authority().key_pem(), key);
        assert!(!format!("{vouch:?}").contains(key.lines().nth(1).unwrap()), "{vouch:?}");

        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(Vouch::new(path.clone()).leaves().unwrap_err().to_string().contains("other users can read it"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, "no key").unwrap();
        assert!(Vouch::new(path).leaves().unwrap_err().to_string().contains("not a PKCS #8 key"));
    }
}
