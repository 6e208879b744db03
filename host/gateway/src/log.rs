//! Who vouches for the records: the key that signs checkpoints of the log, and the anchor outside the
//! ledger's volume that remembers them.
//!
//! A signed checkpoint proves only to somebody who kept an earlier one that nothing before it changed. The
//! anchor is such a somebody: at a start, the ledger must still be an extension of the last checkpoint in
//! it. If it is not (it was restored, replaced or rewritten), nothing is signed until a person has
//! compared it with the chain.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use countersign_audit::note::{Checkpoint, NoteError, SigningKey, VerifyingKey};
use countersign_audit::tlog;
use countersign_core::ledger::{KeptCheckpoint, Ledger, LedgerError, Suspension, SuspensionScope};
use countersign_core::time::Timestamp;
use serde_json::{Value, json};

use crate::config;
use crate::config::permissions::{Kind, check_private};

/// Who orders the stop when the ledger is not what the anchor remembers.
pub const BY: &str = "countersign";
/// Longest line of an anchor that is read, in bytes.
const LONGEST: u64 = 4_096;

/// Why the log has no key, no anchor or no checkpoint.
#[derive(Debug)]
pub enum LogError {
    /// A file cannot be used.
    File(PathBuf, String),
    /// The ledger could not be read or written.
    Ledger(LedgerError),
    /// A key or a note is not one.
    Note(NoteError),
}

impl fmt::Display for LogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path, why) => write!(f, "{}: {why}", path.display()),
            Self::Ledger(e) => fmt::Display::fmt(e, f),
            Self::Note(e) => fmt::Display::fmt(e, f),
        }
    }
}

impl std::error::Error for LogError {}

impl From<LedgerError> for LogError {
    fn from(e: LedgerError) -> Self {
        Self::Ledger(e)
    }
}

impl From<NoteError> for LogError {
    fn from(e: NoteError) -> Self {
        Self::Note(e)
    }
}

fn file_error(path: &Path) -> impl Fn(io::Error) -> LogError + '_ {
    |e| LogError::File(path.to_owned(), e.to_string())
}

/// A log's key and its anchor.
pub struct Log {
    key: SigningKey,
    anchor: Option<PathBuf>,
    turn: tokio::sync::Mutex<()>,
    /// The size of the last checkpoint in the anchor, as far as this process knows.
    anchored: AtomicU64,
    /// False while the ledger is not known to extend what the anchor remembers.
    extends: AtomicBool,
}

impl Log {
    /// Reads the key, or makes one at the first start. `signed`: checkpoints of this ledger exist, which only
    /// the key that is there already can go on from.
    ///
    /// # Errors
    /// When the key's file is not private, not one, or gone.
    pub fn open(config: &config::Ledger, store_id: [u8; 16], fresh: [u8; 32], signed: bool) -> Result<Self, LogError> {
        let path = &config.log_key;
        let seed = match read_seed(path)? {
            Some(seed) => seed,
            None if signed => {
                let why = "this key is gone, and the ledger's records were signed with it; put it back";
                return Err(LogError::File(path.clone(), why.to_owned()));
            }
            None => write_seed(path, &fresh)?,
        };
        Self::of(config, store_id, &seed)
    }

    /// The key that is there.
    ///
    /// # Errors
    /// When there is none, or it is not private.
    pub fn existing(config: &config::Ledger, store_id: [u8; 16]) -> Result<Self, LogError> {
        let none = || LogError::File(config.log_key.clone(), "there is no log key yet".to_owned());
        Self::of(config, store_id, &read_seed(&config.log_key)?.ok_or_else(none)?)
    }

    fn of(config: &config::Ledger, store_id: [u8; 16], seed: &[u8; 32]) -> Result<Self, LogError> {
        let key = SigningKey::from_seed(&origin(store_id), seed)?;
        let (turn, extends) = (tokio::sync::Mutex::default(), AtomicBool::new(true));
        Ok(Self { key, anchor: config.anchor.clone(), turn, anchored: AtomicU64::new(0), extends })
    }

    /// The key that checks what this one signs.
    #[must_use]
    pub fn verifier(&self) -> &VerifyingKey {
        self.key.public()
    }

    /// Compares the ledger with its anchor. What does not extend it is stopped, durably, until a person
    /// lifts the stop.
    ///
    /// # Errors
    /// When the anchor or the ledger cannot be read.
    pub async fn compare(&self, ledger: &dyn Ledger, now: Timestamp) -> Result<Option<Suspension>, LogError> {
        let Some(mut why) = self.broken(ledger).await? else { return Ok(None) };
        self.extends.store(false, Ordering::SeqCst);
        // One stop covers everything: somebody's own is told with it, not replaced.
        let stopped = ledger.suspensions().await?;
        if let Some(other) = stopped.into_iter().find(|s| s.scope == SuspensionScope::All && s.by != BY) {
            why = format!("{why} (stopped before by {}: {})", other.by, other.reason);
        }
        let suspension = Suspension { scope: SuspensionScope::All, by: BY.to_owned(), reason: why, at: now };
        ledger.suspend(suspension.clone()).await?;
        Ok(Some(suspension))
    }

    /// How the ledger fails to extend what the anchor remembers.
    async fn broken(&self, ledger: &dyn Ledger) -> Result<Option<String>, LogError> {
        let Some(path) = &self.anchor else { return Ok(None) };
        let what_to_do = "compare it with the chain (`countersign ledger reconcile`), then lift this stop";
        let Some(note) = last_note(path)? else {
            let signed = ledger.checkpoints(1).await?.into_iter().next();
            return Ok(signed.map(|signed| {
                let path = path.display();
                format!(
                    "{} records were signed for, and the anchor {path} is not there: put it back; if it is a new one, lift this stop",
                    signed.size
                )
            }));
        };
        let kept = match Checkpoint::open(&note, self.verifier()) {
            Ok(kept) => kept,
            Err(e) => {
                return Ok(Some(format!(
                    "the anchor's last checkpoint is not of this ledger and key: {e}; {what_to_do}"
                )));
            }
        };
        let head = ledger.tree_head().await?;
        if kept.size > head.size {
            let (was, is) = (kept.size, head.size);
            return Ok(Some(format!("the ledger has {is} records, and its anchor remembers {was}; {what_to_do}")));
        }
        let proof = ledger.consistency(kept.size, head.size).await?;
        let extends = tlog::check_consistency((kept.size, &kept.root), (head.size, &head.root), &proof);
        if extends.is_ok() {
            self.anchored.store(kept.size, Ordering::SeqCst);
        }
        Ok(extends
            .err()
            .map(|e| format!("the ledger has another history than its anchor remembers: {e}; {what_to_do}")))
    }

    /// Signs what the log is now, if it grew since the last checkpoint. The ledger and the anchor have it
    /// before anybody else.
    ///
    /// # Errors
    /// When it cannot be written.
    pub async fn checkpoint(&self, ledger: &dyn Ledger) -> Result<Option<KeptCheckpoint>, LogError> {
        // One at a time: the anchor's lines are in the order of their sizes.
        let _turn = self.turn.lock().await;
        let head = ledger.tree_head().await?;
        let last = ledger.checkpoints(1).await?.into_iter().next();
        let kept = match last.filter(|last| last.size == head.size) {
            Some(last) => last,
            None if head.size == 0 => return Ok(None),
            None => {
                let note = Checkpoint::sign(&self.key, head.size, &head.root)?;
                ledger.keep_checkpoint(head.size, note.clone()).await?;
                KeptCheckpoint { size: head.size, note }
            }
        };
        if let Some(path) = &self.anchor
            && self.anchored.load(Ordering::SeqCst) < kept.size
            && self.is_accepted(ledger).await?
        {
            append(path, &kept.note).map_err(file_error(path))?;
            self.anchored.store(kept.size, Ordering::SeqCst);
        }
        Ok(Some(kept))
    }

    /// Whether the anchor may follow the ledger: it extends what the anchor has, or a person lifted the stop.
    async fn is_accepted(&self, ledger: &dyn Ledger) -> Result<bool, LedgerError> {
        if !self.extends.load(Ordering::SeqCst) {
            let stopped = ledger.suspensions().await?;
            // Whoever ordered it last: only lifting it says that somebody has looked.
            if stopped.iter().any(|s| s.scope == SuspensionScope::All) {
                return Ok(false);
            }
            self.extends.store(true, Ordering::SeqCst);
        }
        Ok(true)
    }
}

/// A log's name: of one store, for ever.
fn origin(store_id: [u8; 16]) -> String {
    format!("countersign-{}", hex::encode(store_id))
}

fn read_seed(path: &Path) -> Result<Option<[u8; 32]>, LogError> {
    if !path.exists() {
        return Ok(None);
    }
    let fail = |why: String| LogError::File(path.to_owned(), why);
    check_private(path, Kind::Secret).map_err(|e| fail(e.to_string()))?;
    let mut text = String::new();
    File::open(path).and_then(|file| file.take(256).read_to_string(&mut text)).map_err(file_error(path))?;
    let bytes = hex::decode(text.trim()).ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
    bytes.map(Some).ok_or_else(|| fail("not a log key: expected 64 hex digits".to_owned()))
}

/// Writes a first key, unless somebody was faster: then theirs is the key.
fn write_seed(path: &Path, seed: &[u8; 32]) -> Result<[u8; 32], LogError> {
    let fail = file_error(path);
    // Whole or not at all: half a key would keep the gateway from starting. Gateways that share a key may start at
    // the same moment, so each writes a file of its own, and the first to give it its name wins.
    let mut next = path.as_os_str().to_owned();
    next.push(format!(".{}.new", std::process::id()));
    let next = PathBuf::from(next);
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&next).map_err(&fail)?;
    file.write_all(format!("{}\n", hex::encode(seed)).as_bytes()).and_then(|()| file.sync_all()).map_err(&fail)?;
    let named = fs::hard_link(&next, path);
    fs::remove_file(&next).map_err(&fail)?;
    let written = match named {
        Ok(()) => *seed,
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            read_seed(path)?.ok_or_else(|| LogError::File(path.to_owned(), "this key came and went".to_owned()))?
        }
        Err(e) => return Err(fail(e)),
    };
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(fail)?;
    Ok(written)
}

/// The last whole line of an anchor. A line that was not finished is of a checkpoint nobody was told of.
fn last_note(path: &Path) -> Result<Option<String>, LogError> {
    if !path.exists() {
        return Ok(None);
    }
    let fail = |why: String| LogError::File(path.to_owned(), why);
    check_private(path, Kind::Secret).map_err(|e| fail(e.to_string()))?;
    let mut reader = BufReader::new(File::open(path).map_err(file_error(path))?);
    let mut last = None;
    loop {
        let mut line = String::new();
        let read = reader.by_ref().take(LONGEST).read_line(&mut line).map_err(file_error(path))?;
        if read == 0 {
            return Ok(last);
        }
        let Some(line) = line.strip_suffix('\n') else { return Ok(last) };
        let parsed: Value = serde_json::from_str(line).map_err(|e| fail(format!("not an anchor: {e}")))?;
        let note = parsed.get("checkpoint").and_then(Value::as_str);
        last = Some(note.ok_or_else(|| fail("not an anchor: a line without a checkpoint".to_owned()))?.to_owned());
    }
}

fn append(path: &Path, note: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    // What a crash left unfinished is cut off first: it was told to nobody.
    let length = file.metadata()?.len();
    let whole = whole_lines(path, length)?;
    if whole != length {
        file.set_len(whole)?;
    }
    file.write_all(format!("{}\n", json!({ "checkpoint": note })).as_bytes())?;
    file.sync_all()
}

/// How much of a file is whole lines.
fn whole_lines(path: &Path, length: u64) -> io::Result<u64> {
    use std::io::{Seek, SeekFrom};
    let mut file = File::open(path)?;
    let from = length.saturating_sub(LONGEST);
    file.seek(SeekFrom::Start(from))?;
    let mut end = Vec::new();
    file.take(LONGEST).read_to_end(&mut end)?;
    let after = end.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at.saturating_add(1));
    Ok(if after == 0 && from > 0 { length } else { from.saturating_add(after as u64) })
}

/// A key to check with: the text of one, or a file that has it.
///
/// # Errors
/// When it is neither.
pub fn verifier(text: &str) -> Result<VerifyingKey, String> {
    let direct = text.parse::<VerifyingKey>();
    match direct {
        Ok(key) => Ok(key),
        Err(error) => match fs::read_to_string(text) {
            Ok(read) => read.trim().parse().map_err(|e| format!("{text}: {e}")),
            Err(_) => Err(format!("neither a key (name+hash+base64) nor a file that has one: {error}")),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use countersign_core::ledger::Note;
    use countersign_ledger::{Options, SqliteLedger};

    use super::*;
    use crate::config::Store;

    const NOW: Timestamp = Timestamp::from_secs(1_795_000_000);

    struct Desk {
        folder: tempfile::TempDir,
        config: config::Ledger,
    }

    impl Desk {
        fn new() -> Self {
            let folder = tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o700)).tempdir().unwrap();
            let config = config::Ledger {
                store: Store::Sqlite { path: folder.path().join("l.db") },
                log_key: folder.path().join("l.db.log-key"),
                anchor: Some(folder.path().join("anchor")),
            };
            Self { folder, config }
        }

        fn ledger(&self, file: &str) -> SqliteLedger {
            SqliteLedger::open(&self.folder.path().join(file), Options::new([1; 32], [2; 16]), NOW).unwrap()
        }

        fn log(&self) -> Log {
            Log::open(&self.config, [2; 16], [7; 32], false).unwrap()
        }

        fn anchored(&self) -> Vec<u64> {
            let text = fs::read_to_string(self.config.anchor.as_ref().unwrap()).unwrap_or_default();
            let size = |line: &str| {
                let note: Value = serde_json::from_str(line).unwrap();
                note["checkpoint"].as_str().unwrap().lines().nth(1).unwrap().parse().unwrap()
            };
            text.lines().map(size).collect()
        }
    }

    async fn record(ledger: &SqliteLedger, what: &str) {
        let note = Note { kind: "test", by: String::new(), body: json!({ "what": what }), at: NOW };
        ledger.note(note).await.unwrap();
    }

    #[tokio::test]
    async fn what_is_signed_is_kept_anchored_and_signed_once() {
        let desk = Desk::new();
        let (ledger, log) = (desk.ledger("l.db"), desk.log());
        record(&ledger, "a").await;
        let first = log.checkpoint(&ledger).await.unwrap().unwrap();
        assert_eq!(log.checkpoint(&ledger).await.unwrap().unwrap(), first);
        let opened = Checkpoint::open(&first.note, log.verifier()).unwrap();
        let head = ledger.tree_head().await.unwrap();
        assert_eq!((opened.size, opened.root, opened.size), (head.size, head.root, first.size));
        record(&ledger, "b").await;
        let second = log.checkpoint(&ledger).await.unwrap().unwrap();
        assert_eq!(desk.anchored(), [first.size, second.size]);
        assert_eq!(ledger.checkpoints(9).await.unwrap(), [second, first]);
        for file in ["l.db.log-key", "anchor"] {
            assert_eq!(fs::metadata(desk.folder.path().join(file)).unwrap().permissions().mode() & 0o777, 0o600);
        }
        // The same key over a restart, and the anchor is extended.
        assert_eq!(desk.log().verifier(), log.verifier());
        assert_eq!(desk.log().compare(&ledger, NOW).await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_ledger_that_does_not_extend_its_anchor_is_stopped_until_a_person_lifts_it() {
        let desk = Desk::new();
        let ledger = desk.ledger("l.db");
        record(&ledger, "a").await;
        record(&ledger, "b").await;
        desk.log().checkpoint(&ledger).await.unwrap();
        let before = desk.anchored();
        // Another ledger of the same name and key: shorter first, then longer with another history.
        let other = desk.ledger("other.db");
        record(&other, "x").await;
        let log = desk.log();
        let stop = log.compare(&other, NOW).await.unwrap().unwrap();
        assert!(stop.reason.contains("its anchor remembers"), "{}", stop.reason);
        assert_eq!(other.suspensions().await.unwrap(), [stop]);
        for n in 0..9 {
            record(&other, &n.to_string()).await;
        }
        let stop = desk.log().compare(&other, NOW).await.unwrap().unwrap();
        assert!(stop.reason.contains("another history"), "{}", stop.reason);
        // What is signed meanwhile does not reach the anchor; after the stop is lifted it does.
        log.checkpoint(&other).await.unwrap().unwrap();
        assert_eq!(desk.anchored(), before);
        // Somebody's own stop in its place says nothing about having looked.
        let own = Suspension { by: "alice".to_owned(), reason: "tea".to_owned(), ..stop };
        other.suspend(own).await.unwrap();
        record(&other, "more").await;
        log.checkpoint(&other).await.unwrap().unwrap();
        assert_eq!(desk.anchored(), before);
        let both = desk.log().compare(&other, NOW).await.unwrap().unwrap();
        assert!(both.reason.contains("another history") && both.reason.contains("alice: tea"), "{}", both.reason);
        other.resume(SuspensionScope::All, "alice".to_owned(), NOW).await.unwrap();
        let accepted = log.checkpoint(&other).await.unwrap().unwrap();
        assert_eq!(desk.anchored().last(), Some(&accepted.size));
        assert_eq!(desk.log().compare(&other, NOW).await.unwrap(), None);
    }

    #[tokio::test]
    async fn an_anchor_is_read_to_its_last_whole_line() {
        let desk = Desk::new();
        let ledger = desk.ledger("l.db");
        record(&ledger, "a").await;
        desk.log().checkpoint(&ledger).await.unwrap();
        let anchor = desk.config.anchor.clone().unwrap();
        let mut file = OpenOptions::new().append(true).open(&anchor).unwrap();
        file.write_all(b"{\"checkpoint\":\"cut o").unwrap();
        assert_eq!(desk.log().compare(&ledger, NOW).await.unwrap(), None);
        record(&ledger, "b").await;
        desk.log().checkpoint(&ledger).await.unwrap();
        assert_eq!(desk.anchored().len(), 2, "the unfinished line is gone");
        fs::write(&anchor, "{\"checkpoint\":\"not a note\"}\n").unwrap();
        let stop = desk.log().compare(&ledger, NOW).await.unwrap().unwrap();
        assert!(stop.reason.contains("is not of this ledger and key"), "{}", stop.reason);
        fs::write(&anchor, "nonsense\n").unwrap();
        assert!(matches!(desk.log().compare(&ledger, NOW).await, Err(LogError::File(..))));
    }

    #[test]
    fn a_key_that_is_not_one_or_not_private_is_refused() {
        let desk = Desk::new();
        fs::write(&desk.config.log_key, "short\n").unwrap();
        let open = || Log::open(&desk.config, [2; 16], [7; 32], true).map(drop).unwrap_err().to_string();
        fs::set_permissions(&desk.config.log_key, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(open().contains("l.db.log-key"), "{}", open());
        fs::set_permissions(&desk.config.log_key, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(open().contains("64 hex digits"), "{}", open());
        fs::remove_file(&desk.config.log_key).unwrap();
        assert!(open().contains("put it back"), "{}", open());
    }

    #[test]
    fn a_verifier_is_a_key_or_a_file() {
        let desk = Desk::new();
        let key = desk.log().verifier().to_string();
        assert_eq!(verifier(&key).unwrap().to_string(), key);
        let file = desk.folder.path().join("key");
        fs::write(&file, format!("{key}\n")).unwrap();
        assert_eq!(verifier(file.to_str().unwrap()).unwrap().to_string(), key);
        assert!(verifier("nothing").unwrap_err().contains("neither a key"));
    }
}
