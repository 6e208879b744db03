//! Watching the files. Events are hints: parent folders are watched (editors and atomic links replace
//! files), bursts are waited out, and what counts is whether the bytes changed.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::{mpsc, watch};

use crate::config::Ledger;
use crate::reload::Reloader;
use crate::state::Gateway;

/// How long a burst of events must be over before the files are read.
const QUIET_MS: u64 = 200;
/// A burst that does not end is looked at after this many waits all the same.
const BURST: usize = 10;
/// Files are looked at this often even without an event: some file systems send none.
const LOOK_MS: u64 = 30_000;

/// Reloads whenever the files change, until `stop`.
pub async fn follow(gateway: Arc<Gateway>, reloader: Arc<Reloader>, mut stop: watch::Receiver<bool>) {
    let (sender, mut events) = mpsc::channel::<()>(1);
    let Ledger::Sqlite { path: ledger } = gateway.live.load().config.ledger.clone();
    let notify = move |event: notify::Result<notify::Event>| {
        // The ledger often lies in the same folder and is written all the time.
        let ledgers = |path: &PathBuf| path.file_name().is_some_and(|n| starts_with(n, ledger.file_name()));
        let relevant = |e: &notify::Event| {
            !matches!(e.kind, notify::EventKind::Access(_)) && (e.paths.is_empty() || !e.paths.iter().all(ledgers))
        };
        if event.is_ok_and(|e| relevant(&e)) {
            // A full channel already says what there is to say.
            let _ = sender.try_send(());
        }
    };
    let mut watcher = match RecommendedWatcher::new(notify, notify::Config::default()) {
        Ok(watcher) => Some(watcher),
        Err(error) => {
            tracing::warn!(%error, "the files are looked at every {} s only", LOOK_MS / 1_000);
            None
        }
    };
    let mut watched = BTreeSet::new();
    loop {
        if let Some(watcher) = &mut watcher {
            watch_folders(watcher, &reloader.files(), &mut watched);
        }
        tokio::select! {
            _ = stop.changed() => return,
            () = gateway.clock.sleep(LOOK_MS) => {}
            event = events.recv() => {
                if event.is_none() {
                    gateway.clock.sleep(LOOK_MS).await;
                }
                for _ in 0..BURST {
                    gateway.clock.sleep(QUIET_MS).await;
                    if events.try_recv().is_err() {
                        break;
                    }
                }
            }
        }
        reloader.reload().await;
    }
}

fn starts_with(name: &OsStr, prefix: Option<&OsStr>) -> bool {
    prefix.is_some_and(|p| name.as_encoded_bytes().starts_with(p.as_encoded_bytes()))
}

/// Watches the folder of every file, and of what it links to.
fn watch_folders(watcher: &mut RecommendedWatcher, files: &[PathBuf], watched: &mut BTreeSet<PathBuf>) {
    for file in files {
        let target = file.canonicalize().ok();
        for folder in [Some(file.as_path()), target.as_deref()].into_iter().flatten().filter_map(Path::parent) {
            let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
            if watched.contains(folder) {
                continue;
            }
            match watcher.watch(folder, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    watched.insert(folder.to_owned());
                }
                Err(error) => tracing::warn!(folder = %folder.display(), %error, "the folder cannot be watched"),
            }
        }
    }
}
