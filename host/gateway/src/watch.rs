//! Watching the files. Events are hints: parent folders are watched (editors and atomic links replace
//! files), bursts are waited out, and what counts is whether the bytes changed. A file that somebody
//! has written to and not closed is left alone.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use notify::event::{AccessKind, AccessMode, CreateKind, ModifyKind};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use crate::reload::Reloader;
use crate::state::Gateway;

/// How long a burst of events must be over before the files are read.
const QUIET_MS: u64 = 40;
/// A burst that does not end is looked at after this many waits all the same.
const BURST: usize = 25;
/// Files are looked at this often even without an event: some file systems send none. A file that was
/// not closed after this long without a word is read all the same.
const LOOK_MS: u64 = 30_000;
/// Links followed from one file before it counts as a loop.
const MAX_LINKS: usize = 16;

/// Reloads whenever the files change, until `stop`. Activation goes on beside the watching: what a
/// later edit takes away need not wait for an earlier one to be compiled.
pub async fn follow(gateway: Arc<Gateway>, reloader: Arc<Reloader>, mut stop: watch::Receiver<bool>) {
    let heard = Arc::new(Heard::default());
    let mut watcher = watcher(Arc::clone(&heard));
    let mut activations = JoinSet::new();
    loop {
        // Watched first, looked at after: an edit in between is an event, one before is seen now. An
        // edit may name files in other folders, so until nothing new is named.
        loop {
            let wanted = names_of(reloader.files());
            if let Some(watcher) = &mut watcher {
                watch_folders(watcher, &wanted);
            }
            heard.events().names = wanted.clone();
            if let Some(edit) = reloader.look(heard.open()).await {
                activations.spawn(Arc::clone(&reloader).activate(edit));
            }
            if names_of(reloader.files()) == wanted {
                break;
            }
        }
        tokio::select! {
            _ = stop.changed() => return,
            () = gateway.clock.sleep(LOOK_MS) => heard.events().open.clear(),
            () = heard.something.notified() => heard.settle(&gateway).await,
        }
        while let Some(ended) = activations.try_join_next() {
            if let Err(error) = ended {
                tracing::error!(%error, "an activation ended abnormally");
            }
        }
    }
}

/// What the file system said.
#[derive(Default)]
struct Heard {
    events: Mutex<Events>,
    something: Notify,
}

#[derive(Default)]
struct Events {
    /// What to listen for; of others (the ledger and logs often lie in the same folder and are written
    /// all the time) nothing is heard.
    names: BTreeSet<PathBuf>,
    /// How many there were.
    count: u64,
    /// Files not closed since they were made (`false`) or written to (`true`).
    open: BTreeMap<PathBuf, bool>,
}

impl Heard {
    fn events(&self) -> MutexGuard<'_, Events> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Files that are being written.
    fn open(&self) -> BTreeSet<PathBuf> {
        self.events().open.keys().cloned().collect()
    }

    fn hear(&self, event: notify::Result<Event>) {
        if self.events().hear(event) {
            self.something.notify_one();
        }
    }

    /// Waits until nothing more is heard and everything is closed, for a while.
    async fn settle(&self, gateway: &Gateway) {
        for _ in 0..BURST {
            let before = self.events().count;
            gateway.clock.sleep(QUIET_MS).await;
            let events = self.events();
            if events.count == before && events.open.is_empty() {
                return;
            }
        }
        // A file that was only made, and not written to since, may have been made without being opened.
        self.events().open.retain(|_, written| *written);
    }
}

impl Events {
    /// Takes an event in; whether it is one of ours.
    fn hear(&mut self, event: notify::Result<Event>) -> bool {
        let Ok(event) = event else { return false };
        if event.need_rescan() {
            // Events were lost, and closings among them.
            self.open.clear();
        } else if !event.paths.is_empty() && !event.paths.iter().any(|p| self.names.contains(p)) {
            return false;
        }
        for path in event.paths.into_iter().filter(|p| self.names.contains(p)) {
            match event.kind {
                EventKind::Access(AccessKind::Close(AccessMode::Write)) | EventKind::Remove(_) => {
                    self.open.remove(&path);
                }
                EventKind::Modify(ModifyKind::Name(_)) => {
                    self.open.remove(&path);
                }
                EventKind::Access(_) => return false,
                EventKind::Create(CreateKind::File) if is_new_file(&path) => {
                    self.open.entry(path).or_insert(false);
                }
                EventKind::Modify(ModifyKind::Data(_)) => {
                    self.open.insert(path, true);
                }
                _ => {}
            }
        }
        self.count = self.count.saturating_add(1);
        true
    }
}

/// Links, soft and hard, are made without being opened.
fn is_new_file(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|m| m.is_file() && m.nlink() == 1)
}

fn watcher(heard: Arc<Heard>) -> Option<RecommendedWatcher> {
    match RecommendedWatcher::new(move |event| heard.hear(event), notify::Config::default()) {
        Ok(watcher) => Some(watcher),
        Err(error) => {
            tracing::warn!(%error, "the files are looked at every {} s only", LOOK_MS / 1_000);
            None
        }
    }
}

/// Every name whose change can change what is read: the files, their folders, and each link on the
/// way to them.
pub(crate) fn names_of(files: impl IntoIterator<Item = impl AsRef<Path>>) -> BTreeSet<PathBuf> {
    let mut names = BTreeSet::new();
    for file in files {
        let file = file.as_ref();
        let mut path = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
        for _ in 0..MAX_LINKS {
            // The folder too: a whole folder may be swapped for another.
            names.extend(path.parent().map(Path::to_owned));
            names.insert(path.clone());
            match first_link(&path) {
                Some((link, target)) => {
                    names.insert(link);
                    path = target;
                }
                None => break,
            }
        }
    }
    names
}

/// The first component that is a link, and the path with that link followed.
fn first_link(path: &Path) -> Option<(PathBuf, PathBuf)> {
    let mut prefix = PathBuf::new();
    let mut rest = path.components();
    while let Some(component) = rest.next() {
        prefix.push(component);
        if prefix.is_symlink() {
            let target = prefix.parent()?.join(prefix.read_link().ok()?).join(rest.as_path());
            return Some((prefix, target));
        }
    }
    None
}

/// Watches the folder of every name, again each time: a path may name another folder by now.
fn watch_folders(watcher: &mut RecommendedWatcher, names: &BTreeSet<PathBuf>) {
    let folders: BTreeSet<&Path> = names.iter().filter_map(|name| name.parent()).collect();
    for folder in folders {
        if let Err(error) = watcher.watch(folder, RecursiveMode::NonRecursive) {
            tracing::warn!(folder = %folder.display(), %error, "the folder cannot be watched");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_link_on_the_way_is_a_name() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        fs::create_dir(root.join("v1")).unwrap();
        fs::write(root.join("v1/a.toml"), "").unwrap();
        std::os::unix::fs::symlink("v1", root.join("..data")).unwrap();
        std::os::unix::fs::symlink("..data/a.toml", root.join("a.toml")).unwrap();
        let names = names_of([root.join("a.toml")]);
        for name in ["a.toml", "..data", "v1/a.toml"] {
            assert!(names.contains(&root.join(name)), "{name} is not in {names:?}");
        }
        std::os::unix::fs::symlink("loop", root.join("loop")).unwrap();
        assert!(names_of([root.join("loop")]).contains(&root.join("loop")), "a loop ends");
    }

    #[test]
    fn a_file_is_open_from_the_first_write_to_the_closing() {
        use notify::event::{DataChange, Flag, RemoveKind, RenameMode};
        let name = Path::new("/modules/p.wasm");
        let mut events = Events { names: BTreeSet::from([name.to_owned()]), ..Events::default() };
        let written = EventKind::Modify(ModifyKind::Data(DataChange::Any));
        let closed = EventKind::Access(AccessKind::Close(AccessMode::Write));
        let looked = EventKind::Access(AccessKind::Close(AccessMode::Read));
        let renamed = EventKind::Modify(ModifyKind::Name(RenameMode::To));
        let removed = EventKind::Remove(RemoveKind::File);
        let mut hear = |kind, path: &Path, ours: bool, open: bool| {
            let heard = events.hear(Ok(Event::new(kind).add_path(path.to_owned())));
            assert_eq!((heard, events.open.contains_key(name)), (ours, open), "{kind:?} {}", path.display());
        };
        hear(written, Path::new("/modules/ledger.db"), false, false);
        for end in [closed, renamed, removed] {
            hear(written, name, true, true);
            hear(looked, name, false, true);
            hear(end, name, true, false);
        }
        hear(written, name, true, true);
        // Events were lost, and perhaps the closing with them.
        assert!(events.hear(Ok(Event::new(EventKind::Other).set_flag(Flag::Rescan))));
        assert!(events.open.is_empty());
    }
}
