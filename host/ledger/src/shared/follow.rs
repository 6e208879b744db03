//! The thread that listens: it lets the copy follow what others write, says that this writer lives, and notices who
//! does not.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};
use tokio_postgres::{AsyncMessage, Client};

use super::connect::{Database, Trouble, words};
use super::link::runtime;
use super::session::{CHANNEL, bounded};
use crate::open::OpenError;
use crate::sql::Done;
use crate::writer::{Class, Queue, spawn};

/// How long nothing is heard before the copy is brought up to date all the same: a notice can be lost.
const POLL: Duration = Duration::from_secs(1);
/// How often a writer says that it lives. After twelve times that in silence, others take it for ended.
const BEAT: Duration = Duration::from_secs(5);
/// How often changes that every copy has read are dropped.
const PRUNE: Duration = Duration::from_secs(600);

const SEEN: &str = "UPDATE countersign.writer SET seen=pg_catalog.clock_timestamp() WHERE epoch=$1 AND NOT ended";
/// Whether somebody has been silent for too long, or something is in flight of a writer that has ended.
const DEAD: &str = "SELECT EXISTS(SELECT FROM countersign.writer
      WHERE NOT ended AND epoch<>$1 AND seen<pg_catalog.clock_timestamp()-interval '60 seconds')
    OR EXISTS(SELECT FROM countersign.payment p WHERE state=4 AND NOT EXISTS(
      SELECT FROM countersign.writer w WHERE w.epoch=p.epoch AND NOT w.ended))";
/// A copy that was away for longer is made anew when it comes back.
const DROP: &str = "UPDATE countersign.change SET body=NULL WHERE seq IN (
    SELECT seq FROM countersign.change WHERE body IS NOT NULL AND at<pg_catalog.clock_timestamp()-interval '1 day'
    ORDER BY at LIMIT 10000 FOR UPDATE SKIP LOCKED)";
/// How many [`DROP`] drops at once.
const DROPPED: u64 = 10_000;

/// The thread's handle. It ends with it.
pub(crate) struct Follower {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Follower {
    /// Starts it.
    pub(crate) fn start(database: Database, queue: Queue, epoch: Arc<AtomicU64>) -> Result<Self, OpenError> {
        let runtime = runtime()?;
        let (stop, stopped) = oneshot::channel();
        let thread = spawn("ledger-follower", move || {
            runtime.block_on(async {
                tokio::select! {
                    () = follow(&database, &queue, &epoch) => {}
                    _ = stopped => {}
                }
            });
        })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// Until it is stopped. Without a connection the writer still follows, or says why it cannot.
async fn follow(database: &Database, queue: &Queue, epoch: &AtomicU64) {
    loop {
        let (notices, mut heard) = mpsc::channel::<()>(1);
        let connected = database.connect(move |message| {
            if matches!(message, AsyncMessage::Notification(_)) {
                // Full means that it will look anyway.
                let _will_look = notices.try_send(());
            }
        });
        let ended = match connected.await {
            Ok((client, _)) => listen(&client, &mut heard, queue, epoch).await,
            Err(trouble) => Err(trouble),
        };
        if let Err(trouble) = ended {
            tracing::debug!(%trouble, "the ledger's listener begins anew");
        }
        submit(queue, Class::Look).await;
        let (_keep, mut never) = mpsc::channel::<()>(1);
        let _waited = timeout(POLL, never.recv()).await;
    }
}

async fn listen(
    client: &Client,
    heard: &mut mpsc::Receiver<()>,
    queue: &Queue,
    epoch: &AtomicU64,
) -> Result<(), Trouble> {
    let away = |e: tokio_postgres::Error| Trouble::Away(words(&e));
    bounded(client.batch_execute(&format!("LISTEN {CHANNEL}"))).await?.map_err(away)?;
    let [seen, dead, old] = [SEEN, DEAD, DROP].map(|sql| client.prepare(sql));
    let (seen, dead, old) = bounded(async { tokio::join!(seen, dead, old) }).await?;
    let (seen, dead, old) = (seen.map_err(away)?, dead.map_err(away)?, old.map_err(away)?);
    // Beside each other: a writer that waits for its turn is alive all the same.
    let beats = async {
        let (_keep, mut never) = mpsc::channel::<()>(1);
        let mut pruned: Option<Instant> = None;
        loop {
            // One that has given up says no more that it lives: what it left must be followed by others.
            if !queue.has_given_up() {
                let ours = i64::try_from(epoch.load(Ordering::Relaxed)).unwrap_or(i64::MAX);
                bounded(client.execute(&seen, &[&ours])).await?.map_err(away)?;
                let row = bounded(client.query_one(&dead, &[&ours])).await?.map_err(away)?;
                if row.try_get::<_, bool>(0).map_err(away)? {
                    // It is done when the writer comes to it, or asked for again.
                    drop(queue.submit(Class::Reap, |_| Ok(Done::Undo(()))));
                }
            }
            if pruned.is_none_or(|last| last.elapsed() >= PRUNE) {
                let dropped = bounded(client.execute(&old, &[])).await?.map_err(away)?;
                pruned = (dropped < DROPPED).then(Instant::now);
            }
            let _waited = timeout(BEAT, never.recv()).await;
        }
    };
    let looks = async {
        loop {
            submit(queue, Class::Look).await;
            match timeout(POLL, heard.recv()).await {
                Ok(Some(())) | Err(_) => {}
                Ok(None) => return Err(Trouble::Away("the connection has ended".to_owned())),
            }
        }
    };
    tokio::select! {
        ended = beats => ended,
        ended = looks => ended,
    }
}

/// Lets the writer do it, and waits until it has.
async fn submit(queue: &Queue, class: Class) {
    if let Ok(done) = queue.submit(class, |_| Ok(Done::Undo(()))) {
        // What fails here fails for everybody, and is said to those who asked for something.
        let _said_elsewhere = done.await;
    }
}
