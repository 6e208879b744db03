//! The one thread that writes.
//!
//! It takes what has queued while the last batch was in flight, applies each job, all of it or nothing, in
//! one transaction, commits once, and only then answers. There is no timer: a lone job is committed
//! at once, and under load one `fsync` carries many.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Instant;

use countersign_core::histogram::Histogram;
use countersign_core::ledger::LedgerError;
use countersign_core::time::Timestamp;
use rusqlite::Connection;
use tokio::sync::oneshot;

use crate::open::{Birth, OpenError};
use crate::shared::connect::Trouble;
use crate::shared::link::Link;
use crate::shared::turn;
use crate::sql::{Answer, Done, Fault};

/// Jobs that may wait; more are told [`LedgerError::Overloaded`].
pub(crate) const QUEUE: usize = 4_096;
/// Jobs of one transaction.
const BATCH: usize = 256;
/// Pages in the WAL at which the other thread copies them into the database (4 MiB).
const CHECKPOINT_AT: u64 = 1_000;
/// Pages at which the writer does it itself (32 MiB). Under unbroken load the other thread never
/// quite catches up, and only a WAL that is copied whole starts again from its beginning.
const CHECKPOINT_OWN: u64 = 8_000;

/// Batches in which each job has a savepoint, after one in which what a job wrote had to be taken back.
const CAREFUL: u32 = 64;

/// Whether a job may run when the disk is nearly full.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// A purchase: it also does nothing if its caller has gone, for nothing was signed.
    Purchase,
    /// Something new.
    Growth,
    /// Something that resolves what is there, or stops it.
    Relief,
    /// Nothing: the copy is brought up to date. Only a shared ledger has it, and the next.
    Look,
    /// Writers that others stopped hearing of have ended.
    Reap,
}

trait Job: Send {
    fn class(&self) -> Class;
    fn abandoned(&self) -> bool;
    /// Runs; answers whether its writes are kept. It may be run again once they were taken back.
    fn run(&mut self, conn: &Connection) -> Ran;
    fn refuse(&mut self, why: &LedgerError);
    /// Sends the result, or this error instead of it.
    fn answer(self: Box<Self>, instead: Option<&LedgerError>);
}

enum Ran {
    Keep,
    Undo,
    Fatal(String),
}

struct Task<T, F> {
    class: Class,
    work: F,
    result: Option<Result<T, LedgerError>>,
    reply: oneshot::Sender<Result<T, LedgerError>>,
}

impl<T, F> Job for Task<T, F>
where
    T: Send,
    F: FnMut(&Connection) -> Answer<Done<T>> + Send,
{
    fn class(&self) -> Class {
        self.class
    }

    fn abandoned(&self) -> bool {
        self.class == Class::Purchase && self.reply.is_closed()
    }

    fn run(&mut self, conn: &Connection) -> Ran {
        let (ran, result) = match (self.work)(conn) {
            Ok(Done::Keep(value)) => (Ran::Keep, Ok(value)),
            Ok(Done::Undo(value)) => (Ran::Undo, Ok(value)),
            Err(fault) if fault.is_fatal() => {
                let told = fault.told();
                (Ran::Fatal(told.to_string()), Err(told))
            }
            Err(fault) => (Ran::Undo, Err(fault.told())),
        };
        self.result = Some(result);
        ran
    }

    fn refuse(&mut self, why: &LedgerError) {
        self.result = Some(Err(why.clone()));
    }

    fn answer(self: Box<Self>, instead: Option<&LedgerError>) {
        let result = match (instead, self.result) {
            (Some(e), _) => Err(e.clone()),
            (None, Some(result)) => result,
            (None, None) => Err(LedgerError::Unavailable("the job was not run".to_owned())),
        };
        // A caller that has gone away takes nothing back: what was committed stands.
        drop(self.reply.send(result));
    }
}

/// What the writer did and has to do, for those who watch.
#[derive(Debug, Default)]
pub struct Work {
    /// Microseconds of each batch, from the beginning of its transaction to the end of its `fsync`.
    pub commits: Histogram,
    /// Jobs of each batch.
    pub batches: Histogram,
    waiting: AtomicU64,
}

impl Work {
    /// Jobs that wait for the writer.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        self.waiting.load(Ordering::Relaxed)
    }

    fn leaves(&self) {
        // It was counted before it was sent: never below nothing.
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

#[expect(clippy::disallowed_methods, reason = "how long a commit takes is told to people; nothing is decided by it")]
fn now() -> Instant {
    Instant::now()
}

/// Where jobs are queued. The writer ends when the last of these does.
#[derive(Clone)]
pub(crate) struct Queue {
    jobs: SyncSender<Box<dyn Job>>,
    work: Arc<Work>,
    /// The writer writes nothing more.
    given_up: Arc<AtomicBool>,
}

/// The writer's side of the ledger.
pub(crate) struct Writer {
    work: Arc<Work>,
    queue: Option<Queue>,
    threads: Vec<JoinHandle<()>>,
}

/// What a writer needs beyond its connection to share its ledger with others.
pub(crate) struct Sharing {
    pub(crate) link: Link,
    pub(crate) birth: Birth,
    /// The latest moment the ledger was told of.
    pub(crate) latest: Arc<AtomicU64>,
    /// What it was at the start: written by whomever, so our clock is not to blame for it.
    pub(crate) found: u64,
}

impl Sharing {
    fn enter(&mut self, conn: &Connection) -> Result<(), Trouble> {
        let now = self.now();
        let ours = if now.as_millis() > self.found { now } else { Timestamp::default() };
        turn::enter(conn, &mut self.link, self.birth, (now, ours))
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.latest.load(Ordering::Relaxed))
    }
}

impl Writer {
    /// Starts the writer's and the checkpointer's threads.
    pub(crate) fn start(
        mut conn: Connection,
        checkpointer: Connection,
        path: PathBuf,
        headroom: u64,
        sharing: Option<Sharing>,
    ) -> Result<Self, OpenError> {
        let (queue, jobs) = sync_channel(QUEUE);
        let (wake, woken) = sync_channel(1);
        let pages = Arc::new(AtomicU64::new(0));
        let seen = Arc::clone(&pages);
        conn.wal_hook(Some(move |_: &mut rusqlite::hooks::Wal, n| {
            seen.store(u64::try_from(n).unwrap_or(0), Ordering::Relaxed);
            Ok(())
        }))?;
        let (work, given_up) = (Arc::<Work>::default(), Arc::<AtomicBool>::default());
        let (done, ended) = (Arc::clone(&work), Arc::clone(&given_up));
        let state = Serving {
            conn,
            jobs,
            path,
            headroom,
            pages,
            wake,
            sharing,
            broken: None,
            given_up: ended,
            work: done,
            careful: 0,
        };
        let threads = vec![
            spawn("ledger-writer", move || state.serve())?,
            spawn("ledger-checkpoint", move || checkpoint_on(&woken, &checkpointer))?,
        ];
        let queue = Queue { jobs: queue, work: Arc::clone(&work), given_up };
        Ok(Self { work, queue: Some(queue), threads })
    }

    /// What it did and has to do.
    pub(crate) fn work(&self) -> Arc<Work> {
        Arc::clone(&self.work)
    }

    /// Where its jobs are queued.
    pub(crate) fn queue(&self) -> Result<&Queue, LedgerError> {
        self.queue.as_ref().ok_or_else(ended)
    }
}

fn ended() -> LedgerError {
    LedgerError::Unavailable("the ledger's writer has ended; restart the gateway".to_owned())
}

impl Queue {
    /// Whether the writer writes nothing more, or is gone.
    pub(crate) fn has_given_up(&self) -> bool {
        self.given_up.load(Ordering::Relaxed)
    }

    /// Queues a job; its answer comes when it is durable.
    pub(crate) fn submit<T, F>(
        &self,
        class: Class,
        work: F,
    ) -> Result<oneshot::Receiver<Result<T, LedgerError>>, LedgerError>
    where
        T: Send + 'static,
        F: FnMut(&Connection) -> Answer<Done<T>> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let task = Box::new(Task { class, work, result: None, reply });
        self.work.waiting.fetch_add(1, Ordering::Relaxed);
        let refused = match self.jobs.try_send(task) {
            Ok(()) => return Ok(answer),
            Err(TrySendError::Full(_)) => LedgerError::Overloaded,
            Err(TrySendError::Disconnected(_)) => ended(),
        };
        self.work.leaves();
        Err(refused)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // What is queued is still written; the queue then ends, and with it both threads.
        self.queue = None;
        for thread in self.threads.drain(..) {
            drop(thread.join());
        }
    }
}

/// Starts a named thread.
pub(crate) fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, OpenError> {
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(work);
    thread.map_err(|e| OpenError::Store(format!("no thread for {name}: {e}")))
}

struct Serving {
    conn: Connection,
    jobs: Receiver<Box<dyn Job>>,
    path: PathBuf,
    headroom: u64,
    pages: Arc<AtomicU64>,
    wake: SyncSender<()>,
    sharing: Option<Sharing>,
    broken: Option<LedgerError>,
    given_up: Arc<AtomicBool>,
    work: Arc<Work>,
    /// For so many more batches each job has a savepoint.
    careful: u32,
}

impl Serving {
    fn serve(mut self) {
        while let Ok(first) = self.jobs.recv() {
            let mut batch = vec![first];
            while batch.len() < BATCH {
                let Ok(next) = self.jobs.try_recv() else { break };
                batch.push(next);
            }
            batch.iter().for_each(|_| self.work.leaves());
            let failed = match &self.broken {
                Some(why) => Some(why.clone()),
                None => self.measured(&mut batch).err(),
            };
            for job in batch {
                job.answer(failed.as_ref());
            }
            self.checkpoint();
        }
    }

    fn measured(&mut self, batch: &mut [Box<dyn Job>]) -> Result<(), LedgerError> {
        if batch.iter().all(|job| job.class() == Class::Look) {
            return self.take_turn(batch);
        }
        let started = now();
        let applied = if self.sharing.is_some() { self.take_turn(batch) } else { self.apply(batch) };
        let took = now().saturating_duration_since(started);
        self.work.commits.record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        self.work.batches.record(u64::try_from(batch.len()).unwrap_or(u64::MAX));
        applied
    }

    fn apply(&mut self, batch: &mut [Box<dyn Job>]) -> Result<(), LedgerError> {
        let short = self.short_of_room(batch);
        // Somebody else's write lock (a shell on the file) delays us and fails this batch only.
        self.execute("BEGIN IMMEDIATE").map_err(|e| LedgerError::Unavailable(e.to_string()))?;
        self.run_all(batch, short.as_ref())?;
        self.execute("COMMIT").map_err(|e| self.give_up(&format!("a commit failed: {e}")))
    }

    /// Runs the jobs inside the transaction that is open, and leaves it open.
    ///
    /// A savepoint for each job would copy every page that the job changes, only to be able to take it back, which is
    /// seldom asked for: first they run without. If one has to be taken back after it wrote, all are, and run again.
    fn run_all(&mut self, batch: &mut [Box<dyn Job>], short: Option<&LedgerError>) -> Result<(), LedgerError> {
        let mut each = self.careful > 0;
        self.careful = self.careful.saturating_sub(1);
        let mut next = 0;
        while let Some(job) = batch.get_mut(next) {
            next = next.saturating_add(1);
            match (job.class(), short) {
                (Class::Look | Class::Reap, _) => drop(job.run(&self.conn)),
                (Class::Purchase | Class::Growth, Some(why)) => job.refuse(why),
                _ if job.abandoned() => {}
                _ if each => self.run(job.as_mut())?,
                _ if self.run_bare(job.as_mut())? => {}
                _ => {
                    self.begin_again()?;
                    // Alone, it needs no second run: its answer stands.
                    if batch.len() > 1 {
                        (each, next, self.careful) = (true, 0, CAREFUL);
                    }
                }
            }
        }
        Ok(())
    }

    /// Runs a job as part of the transaction; answers whether there is nothing to take back.
    fn run_bare(&mut self, job: &mut dyn Job) -> Result<bool, LedgerError> {
        let before = self.conn.total_changes();
        let ran = job.run(&self.conn);
        if self.conn.is_autocommit() {
            // Whatever runs now would be committed by itself.
            return Err(self.give_up("the transaction ended under a job"));
        }
        match ran {
            Ran::Keep => Ok(true),
            Ran::Undo => Ok(self.conn.total_changes() == before),
            Ran::Fatal(why) => Err(self.give_up(&why)),
        }
    }

    /// Takes back all that the transaction wrote.
    fn begin_again(&mut self) -> Result<(), LedgerError> {
        self.execute("ROLLBACK").map_err(|e| self.give_up(&e.to_string()))?;
        self.execute("BEGIN IMMEDIATE").map_err(|e| {
            if let Some(sharing) = &mut self.sharing {
                sharing.link.leave();
            }
            LedgerError::Unavailable(e.to_string())
        })
    }

    /// The same for a ledger that is shared: in a turn of this writer's.
    fn take_turn(&mut self, batch: &mut [Box<dyn Job>]) -> Result<(), LedgerError> {
        if batch.iter().all(|job| job.class() == Class::Look) {
            self.shared(|_, sharing| sharing.link.look())?;
            return self.run_all(batch, None);
        }
        if batch.iter().any(|job| job.class() == Class::Reap) {
            self.shared(|conn, sharing| {
                sharing.enter(conn)?;
                let now = sharing.now();
                turn::reap(conn, &mut sharing.link, now)
            })?;
        }
        if batch.iter().all(|job| matches!(job.class(), Class::Look | Class::Reap)) {
            return self.run_all(batch, None);
        }
        let short = self.short_of_room(batch);
        self.shared(|conn, sharing| {
            sharing.enter(conn)?;
            conn.execute_batch("BEGIN IMMEDIATE").map_err(|e| {
                sharing.link.leave();
                Trouble::Away(e.to_string())
            })
        })?;
        self.run_all(batch, short.as_ref())?;
        self.shared(|conn, sharing| turn::commit(conn, &mut sharing.link))
    }

    /// Does something with the shared ledger. What may work later only fails this batch.
    fn shared(
        &mut self,
        work: impl FnOnce(&Connection, &mut Sharing) -> Result<(), Trouble>,
    ) -> Result<(), LedgerError> {
        let Some(sharing) = &mut self.sharing else { return Ok(()) };
        work(&self.conn, sharing).map_err(|trouble| match trouble {
            Trouble::Broken(why) => self.give_up(&why),
            away => LedgerError::Unavailable(away.to_string()),
        })
    }

    fn run(&mut self, job: &mut dyn Job) -> Result<(), LedgerError> {
        let savepoint = self.execute("SAVEPOINT job");
        savepoint.map_err(|e| self.give_up(&e.to_string()))?;
        let ended = match job.run(&self.conn) {
            Ran::Keep => self.execute("RELEASE job"),
            Ran::Undo => self.execute("ROLLBACK TO job").and_then(|()| self.execute("RELEASE job")),
            Ran::Fatal(why) => return Err(self.give_up(&why)),
        };
        ended.map_err(|e| self.give_up(&e.to_string()))
    }

    /// After a failed write or sync nothing in memory may be trusted, and trying again is how data
    /// is lost: this writer is done, and so is every job of the batch.
    fn give_up(&mut self, why: &str) -> LedgerError {
        tracing::error!(why, "the ledger gives up writing; restart the gateway");
        let told = LedgerError::Unavailable(format!("{why}; nothing more is written until the gateway is restarted"));
        self.broken = Some(told.clone());
        self.given_up.store(true, Ordering::Relaxed);
        if !self.conn.is_autocommit() {
            drop(self.conn.execute_batch("ROLLBACK"));
        }
        if let Some(sharing) = &mut self.sharing {
            sharing.link.leave();
        }
        told
    }

    fn execute(&self, sql: &str) -> rusqlite::Result<()> {
        self.conn.prepare_cached(sql)?.execute([]).map(drop)
    }

    fn short_of_room(&self, batch: &[Box<dyn Job>]) -> Option<LedgerError> {
        if batch.iter().all(|job| !matches!(job.class(), Class::Purchase | Class::Growth)) {
            return None;
        }
        match free(&self.path) {
            Ok(bytes) if bytes >= self.headroom => None,
            Ok(bytes) => Some(LedgerError::Unavailable(format!(
                "less than {} MiB of disk left ({} MiB)",
                self.headroom.div_ceil(1 << 20),
                bytes >> 20
            ))),
            Err(e) => Some(LedgerError::Unavailable(format!("the free disk space cannot be read: {e}"))),
        }
    }

    fn checkpoint(&self) {
        let pages = self.pages.load(Ordering::Relaxed);
        if pages >= CHECKPOINT_OWN {
            passive(&self.conn);
        } else if pages >= CHECKPOINT_AT {
            // Full means that it is awake already.
            let _awake = self.wake.try_send(());
        }
    }
}

fn free(path: &Path) -> std::io::Result<u64> {
    let stat = rustix::fs::statvfs(path)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

fn checkpoint_on(woken: &Receiver<()>, conn: &Connection) {
    while woken.recv().is_ok() {
        passive(conn);
    }
}

fn passive(conn: &Connection) {
    let done = conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
    if let Err(e) = done {
        // Nothing is lost by it: the WAL grows until the next one works.
        tracing::warn!(error = %e, "a checkpoint did not work");
    }
}

/// A job that is not prepared to be run.
pub(crate) fn read_only<T>() -> Result<T, LedgerError> {
    Err(LedgerError::Unavailable("opened read-only".to_owned()))
}

/// What a job's caller is told when its thread ended under it.
pub(crate) fn gone(_: oneshot::error::RecvError) -> LedgerError {
    LedgerError::Unavailable("the ledger's thread has ended; restart the gateway".to_owned())
}

/// Errors of preparing a job, as its caller sees them.
pub(crate) fn told<T>(answer: Answer<T>) -> Result<T, LedgerError> {
    answer.map_err(Fault::told)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;
    use crate::open;

    fn start() -> (tempfile::TempDir, Writer, Arc<AtomicBool>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.db");
        let mut conn = open::writer(&path).unwrap();
        conn.execute_batch("CREATE TABLE t(n INTEGER PRIMARY KEY)").unwrap();
        let fail = Arc::new(AtomicBool::new(false));
        let failing = Arc::clone(&fail);
        conn.commit_hook(Some(move || failing.load(Ordering::SeqCst))).unwrap();
        let checkpointer = open::writer(&path).unwrap();
        (folder, Writer::start(conn, checkpointer, path, 0, None).unwrap(), fail)
    }

    fn insert(writer: &Writer, class: Class, n: u64) -> oneshot::Receiver<Result<u64, LedgerError>> {
        let work = move |conn: &Connection| {
            crate::sql::run(conn, "INSERT INTO t(n) VALUES(?1)", [n])?;
            Ok(Done::Keep(n))
        };
        writer.queue().unwrap().submit(class, work).unwrap()
    }

    fn count(folder: &tempfile::TempDir) -> u64 {
        let conn = Connection::open(folder.path().join("x.db")).unwrap();
        conn.query_row("SELECT count(*) FROM t", [], |r| r.get(0)).unwrap()
    }

    /// Keeps the writer busy until the sender is used or dropped.
    fn stall(writer: &Writer) -> std::sync::mpsc::Sender<()> {
        let (go, wait) = channel::<()>();
        let (ready, started) = channel();
        let stalled = writer.queue().unwrap().submit(Class::Relief, move |_| {
            let _sent = ready.send(());
            let _gone = wait.recv();
            Ok(Done::Keep(()))
        });
        drop(stalled.unwrap());
        started.recv().unwrap();
        go
    }

    #[test]
    fn a_failed_commit_answers_nobody_with_success_and_ends_writing() {
        let (folder, writer, fail) = start();
        assert_eq!(insert(&writer, Class::Growth, 1).blocking_recv().unwrap(), Ok(1));
        let go = stall(&writer);
        let waiting = [2, 3].map(|n| insert(&writer, Class::Growth, n));
        fail.store(true, Ordering::SeqCst);
        go.send(()).unwrap();
        for answer in waiting {
            let told = answer.blocking_recv().unwrap().unwrap_err();
            assert!(matches!(&told, LedgerError::Unavailable(why) if why.contains("restart")), "{told}");
        }
        fail.store(false, Ordering::SeqCst);
        let later = insert(&writer, Class::Relief, 4).blocking_recv().unwrap();
        assert!(matches!(later, Err(LedgerError::Unavailable(_))), "it does not try again");
        drop(writer);
        assert_eq!(count(&folder), 1);
    }

    #[test]
    fn a_job_that_fails_takes_only_its_own_writes_with_it() {
        let (folder, writer, _) = start();
        let go = stall(&writer);
        let good = insert(&writer, Class::Growth, 1);
        let twice = writer.queue().unwrap().submit(Class::Growth, |conn: &Connection| {
            crate::sql::run(conn, "INSERT INTO t(n) VALUES(7)", [])?;
            crate::sql::run(conn, "INSERT INTO t(n) VALUES(1)", [])?;
            Ok(Done::Keep(()))
        });
        let undone = writer.queue().unwrap().submit(Class::Growth, |conn: &Connection| {
            crate::sql::run(conn, "INSERT INTO t(n) VALUES(8)", [])?;
            Ok(Done::Undo("refused"))
        });
        let after = insert(&writer, Class::Growth, 2);
        drop(go);
        assert_eq!(good.blocking_recv().unwrap(), Ok(1));
        assert!(matches!(twice.unwrap().blocking_recv().unwrap(), Err(LedgerError::Conflict(_))));
        assert_eq!(undone.unwrap().blocking_recv().unwrap(), Ok("refused"));
        assert_eq!(after.blocking_recv().unwrap(), Ok(2));
        drop(writer);
        assert_eq!(count(&folder), 2);
    }

    #[test]
    fn a_job_that_is_undone_by_itself_leaves_nothing_and_runs_once() {
        let (folder, writer, _) = start();
        let mut runs = 0;
        let undone = writer.queue().unwrap().submit(Class::Growth, move |conn: &Connection| {
            runs += 1;
            crate::sql::run(conn, "INSERT INTO t(n) VALUES(8)", [])?;
            Ok(Done::Undo(runs))
        });
        assert_eq!(undone.unwrap().blocking_recv().unwrap(), Ok(1));
        assert_eq!(insert(&writer, Class::Growth, 1).blocking_recv().unwrap(), Ok(1));
        drop(writer);
        assert_eq!(count(&folder), 1);
    }

    #[test]
    fn jobs_run_again_when_one_of_them_is_taken_back_and_then_each_by_itself() {
        let (folder, writer, _) = start();
        for answer in [2, 1] {
            let go = stall(&writer);
            let mut runs = 0;
            let first = writer.queue().unwrap().submit(Class::Growth, move |conn: &Connection| {
                runs += 1;
                crate::sql::run(conn, "INSERT INTO t(n) VALUES(?1)", [answer])?;
                Ok(Done::Keep(runs))
            });
            let undone = writer.queue().unwrap().submit(Class::Growth, |conn: &Connection| {
                crate::sql::run(conn, "INSERT INTO t(n) VALUES(9)", [])?;
                Ok(Done::Undo(()))
            });
            let nothing_written = writer.queue().unwrap().submit(Class::Growth, |_: &Connection| Ok(Done::Undo(())));
            drop(go);
            assert_eq!(first.unwrap().blocking_recv().unwrap(), Ok(answer), "how often it ran");
            assert_eq!(undone.unwrap().blocking_recv().unwrap(), Ok(()));
            assert_eq!(nothing_written.unwrap().blocking_recv().unwrap(), Ok(()));
        }
        drop(writer);
        assert_eq!(count(&folder), 2);
    }

    #[test]
    fn a_transaction_that_ends_under_a_job_ends_writing() {
        let (folder, writer, _) = start();
        let ends = writer.queue().unwrap().submit(Class::Growth, |conn: &Connection| {
            crate::sql::run(conn, "INSERT INTO t(n) VALUES(1)", [])?;
            conn.execute_batch("ROLLBACK")?;
            Ok(Done::Keep(()))
        });
        assert!(ends.unwrap().blocking_recv().unwrap().is_err());
        assert!(insert(&writer, Class::Relief, 2).blocking_recv().unwrap().is_err());
        drop(writer);
        assert_eq!(count(&folder), 0);
    }

    #[test]
    fn a_sick_disk_ends_writing() {
        let (folder, writer, _) = start();
        let go = stall(&writer);
        let before = insert(&writer, Class::Growth, 1);
        let sick = writer.queue().unwrap().submit(Class::Growth, |_: &Connection| -> Answer<Done<()>> {
            let error = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_IOERR_FSYNC);
            Err(rusqlite::Error::SqliteFailure(error, None).into())
        });
        drop(go);
        assert!(before.blocking_recv().unwrap().is_err(), "it was in the same transaction");
        assert!(sick.unwrap().blocking_recv().unwrap().is_err());
        assert!(insert(&writer, Class::Relief, 2).blocking_recv().unwrap().is_err());
        drop(writer);
        assert_eq!(count(&folder), 0);
    }

    #[test]
    fn a_full_queue_says_so() {
        let (folder, writer, _) = start();
        let go = stall(&writer);
        let queued: Vec<_> = (0..4_096).map(|n| insert(&writer, Class::Growth, n)).collect();
        let more = writer.queue().unwrap().submit(Class::Relief, |_: &Connection| Ok(Done::Keep(())));
        assert_eq!(more.err(), Some(LedgerError::Overloaded));
        drop(go);
        assert!(queued.into_iter().all(|q| q.blocking_recv().unwrap().is_ok()));
        drop(writer);
        assert_eq!(count(&folder), 4_096);
    }

    #[test]
    fn a_purchase_whose_caller_has_gone_is_not_made_and_anything_else_is() {
        let (folder, writer, _) = start();
        let go = stall(&writer);
        drop(insert(&writer, Class::Purchase, 1));
        drop(insert(&writer, Class::Relief, 2));
        drop(go);
        drop(writer);
        let conn = Connection::open(folder.path().join("x.db")).unwrap();
        let left: u64 =
            conn.query_row("SELECT group_concat(n) FROM t", [], |r| r.get::<_, String>(0)).unwrap().parse().unwrap();
        assert_eq!(left, 2);
    }
}
