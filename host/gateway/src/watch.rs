//! Watching the files. Events are hints: parent folders are watched (editors and atomic links replace
//! files), bursts are waited out, and what counts is whether the bytes changed.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::{mpsc, watch};

use crate::reload::Reloader;
use crate::state::Gateway;

/// How long a burst of events must be over before the files are read.
const QUIET_MS: u64 = 100;
/// A burst that does not end is looked at after this many waits all the same.
const BURST: usize = 10;
/// Files are looked at this often even without an event: some file systems send none.
const LOOK_MS: u64 = 30_000;
/// Links followed from one file before it counts as a loop.
const MAX_LINKS: usize = 16;

/// Reloads whenever the files change, until `stop`.
pub async fn follow(gateway: Arc<Gateway>, reloader: Arc<Reloader>, mut stop: watch::Receiver<bool>) {
    let names: Arc<RwLock<BTreeSet<PathBuf>>> = Arc::default();
    let (sender, mut events) = mpsc::channel::<()>(1);
    let mut watcher = watcher(Arc::clone(&names), sender);
    loop {
        // Watched first, looked at after: an edit in between is an event, one before is seen now. An
        // edit may name files in other folders, so until nothing new is named.
        loop {
            let wanted = names_of(&reloader.files());
            *names.write().unwrap_or_else(PoisonError::into_inner) = wanted.clone();
            if let Some(watcher) = &mut watcher {
                watch_folders(watcher, &wanted);
            }
            reloader.reload().await;
            if names_of(&reloader.files()) == wanted {
                break;
            }
        }
        tokio::select! {
            _ = stop.changed() => return,
            () = gateway.clock.sleep(LOOK_MS) => {}
            Some(()) = events.recv() => {
                for _ in 0..BURST {
                    gateway.clock.sleep(QUIET_MS).await;
                    if events.try_recv().is_err() {
                        break;
                    }
                }
            }
        }
    }
}

/// Tells `sender` of every event on one of `names`; of others (the ledger and logs often lie in the
/// same folder and are written all the time) nothing.
fn watcher(names: Arc<RwLock<BTreeSet<PathBuf>>>, sender: mpsc::Sender<()>) -> Option<RecommendedWatcher> {
    let heard = move |event: notify::Result<notify::Event>| {
        let Ok(event) = event else { return };
        let names = names.read().unwrap_or_else(PoisonError::into_inner);
        let ours = event.paths.is_empty() || event.need_rescan() || event.paths.iter().any(|p| names.contains(p));
        if ours && !matches!(event.kind, notify::EventKind::Access(_)) {
            // A full channel already says what there is to say.
            let _ = sender.try_send(());
        }
    };
    match RecommendedWatcher::new(heard, notify::Config::default()) {
        Ok(watcher) => Some(watcher),
        Err(error) => {
            tracing::warn!(%error, "the files are looked at every {} s only", LOOK_MS / 1_000);
            None
        }
    }
}

/// Every name whose change can change what is read: the files, their folders, and each link on the
/// way to them.
fn names_of(files: &[PathBuf]) -> BTreeSet<PathBuf> {
    let mut names = BTreeSet::new();
    for file in files {
        let mut path = std::path::absolute(file).unwrap_or_else(|_| file.clone());
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
        std::fs::create_dir(root.join("v1")).unwrap();
        std::fs::write(root.join("v1/a.toml"), "").unwrap();
        std::os::unix::fs::symlink("v1", root.join("..data")).unwrap();
        std::os::unix::fs::symlink("..data/a.toml", root.join("a.toml")).unwrap();
        let names = names_of(&[root.join("a.toml")]);
        for name in ["a.toml", "..data", "v1/a.toml"] {
            assert!(names.contains(&root.join(name)), "{name} is not in {names:?}");
        }
        std::os::unix::fs::symlink("loop", root.join("loop")).unwrap();
        assert!(names_of(&[root.join("loop")]).contains(&root.join("loop")), "a loop ends");
    }
}
