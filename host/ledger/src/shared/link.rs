//! The writer's side of the shared ledger: a batch is a turn.
//!
//! A turn takes the lock on the head, takes over what others wrote, lets the writer apply its jobs to the local copy,
//! writes what they changed to PostgreSQL and commits there; only then does the local copy commit. Whoever has the lock
//! therefore judges by everything that was ever committed, and what a caller is told is in PostgreSQL.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rusqlite::Connection;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::time::Instant;

use super::connect::{Database, Trouble};
use super::copy;
use super::delta::{Delta, Position};
use super::session::{Change, Learned, Session, Writers};
use super::tables::Table;
use crate::schema;
use crate::sql::Answer;

/// How long a commit without an answer is asked after before its callers are told that nobody knows.
const DOUBT: Duration = Duration::from_secs(20);
/// After a failed connection the next one is not tried at once: callers are told so instead.
const REST: Duration = Duration::from_millis(500);

/// What one writer shares with the others.
pub(crate) struct Link {
    runtime: Runtime,
    database: Database,
    session: Option<Session>,
    failed: Option<(Instant, String)>,
    applier: Connection,
    tables: Arc<[Table]>,
    /// How far the local copy follows.
    at: Position,
    /// The copy's name.
    name: [u8; 16],
    epoch: Arc<AtomicU64>,
    alive: Vec<u64>,
    /// The server's clock when the last turn began, in milliseconds.
    server: u64,
    /// A commit was never answered: what its callers were told nothing about must be assumed to be out there, as after
    /// a crash, so a new epoch begins.
    renew: bool,
    changed: watch::Sender<u64>,
}

/// What a turn found.
pub(crate) enum Turn {
    /// This writer's, until it keeps or leaves.
    Ours,
    /// This writer has ended by somebody's word: a new epoch must begin in this turn.
    Ended,
}

impl Link {
    /// A link over a copy that follows up to `at`.
    pub(crate) fn new(
        runtime: Runtime,
        database: Database,
        session: Session,
        (applier, tables): (Connection, Arc<[Table]>),
        (name, at): ([u8; 16], Position),
        changed: watch::Sender<u64>,
    ) -> Self {
        Self {
            runtime,
            database,
            session: Some(session),
            failed: None,
            applier,
            tables,
            at,
            name,
            epoch: Arc::new(AtomicU64::new(0)),
            alive: Vec::new(),
            server: 0,
            renew: false,
            changed,
        }
    }

    /// The epoch of this writer, which may change while it lives.
    pub(crate) fn epoch(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.epoch)
    }

    /// The tables of the copy.
    pub(crate) fn tables(&self) -> Arc<[Table]> {
        Arc::clone(&self.tables)
    }

    /// The writers that had not ended when the last turn began.
    pub(crate) fn alive(&self) -> &[u64] {
        &self.alive
    }

    /// Takes over what others wrote, without a turn: for those who only read.
    pub(crate) fn look(&mut self) -> Result<(), Trouble> {
        loop {
            let learned = self.exchange(false)?;
            let head = learned.head;
            self.take_over(learned)?;
            if self.at.seq >= head.seq {
                return Ok(());
            }
        }
    }

    /// Begins a turn.
    pub(crate) fn enter(&mut self) -> Result<Turn, Trouble> {
        // A copy that lags far behind catches up before it makes the others wait.
        let mut learned = self.exchange(true)?;
        loop {
            let (head, alive, server) = (learned.head, learned.alive.clone(), learned.now);
            if let Err(trouble) = self.take_over(learned) {
                self.leave();
                return Err(trouble);
            }
            if self.at.seq >= head.seq {
                (self.alive, self.server) = (alive, server);
                break;
            }
            self.leave();
            self.look()?;
            learned = self.exchange(true)?;
        }
        let ours = self.epoch.load(Ordering::Relaxed);
        Ok(if ours > 0 && (self.renew || !self.alive.contains(&ours)) { Turn::Ended } else { Turn::Ours })
    }

    /// In a turn: whether `told`, the latest moment anybody named here, may be written. What is too far ahead of the
    /// server's clock would stop every other gateway until theirs have caught up.
    pub(crate) fn in_step(&self, told: u64) -> Result<(), Trouble> {
        let Some(ahead) = self.database.ahead else { return Ok(()) };
        let by = told.saturating_sub(self.server);
        if by <= ahead {
            return Ok(());
        }
        Err(Trouble::Away(format!(
            "this machine's clock is {} s ahead of the database server's: correct it, then restart the gateway",
            by / 1_000
        )))
    }

    /// Ends a turn without having written.
    pub(crate) fn leave(&mut self) {
        let Some(session) = &mut self.session else { return };
        if self.runtime.block_on(session.leave()).is_err() {
            self.hang_up();
        }
    }

    /// Ends a turn by committing what was changed; answers where the copy stands when it has committed too.
    pub(crate) fn keep(&mut self, delta: &Delta, writers: &Writers) -> Result<Position, Trouble> {
        let epoch = writers.begun.map_or_else(|| self.epoch.load(Ordering::Relaxed), |(epoch, _)| epoch);
        let body = delta.write(&self.tables);
        let at = self.at.after(epoch, &body);
        let change = Change { at, epoch, body: Some(body) };
        let Some(session) = &mut self.session else {
            return Err(Trouble::Away("the connection has ended".to_owned()));
        };
        match self.runtime.block_on(session.keep(&self.tables, delta, &change, writers)) {
            Ok(()) => Ok(at),
            Err(Trouble::InDoubt(why)) => {
                self.hang_up();
                self.ask_after(at, &why)
            }
            Err(trouble) => {
                // Whatever is left of the transaction ends with its connection.
                self.hang_up();
                Err(trouble)
            }
        }
    }

    /// The local copy has committed up to here.
    pub(crate) fn kept(&mut self, at: Position) {
        self.at = at;
    }

    /// A new epoch of this writer has begun.
    pub(crate) fn begun(&mut self, epoch: u64) {
        self.renew = false;
        self.epoch.store(epoch, Ordering::Relaxed);
        if !self.alive.contains(&epoch) {
            self.alive.push(epoch);
        }
    }

    /// The name of this copy.
    pub(crate) const fn name(&self) -> [u8; 16] {
        self.name
    }

    /// Writers of this copy that have not ended. Only one process has its lock, so they are this one's, or of processes
    /// that are gone.
    pub(crate) fn own(&mut self) -> Result<Vec<u64>, Trouble> {
        let sql = "SELECT epoch FROM countersign.writer WHERE copy=$1 AND NOT ended";
        self.epochs(sql, &[&self.name.to_vec()])
    }

    /// Writers that nobody has heard of for longer than a gateway may be silent.
    pub(crate) fn silent(&mut self) -> Result<Vec<u64>, Trouble> {
        let sql = "SELECT epoch FROM countersign.writer WHERE NOT ended AND epoch<>$1
                   AND seen<pg_catalog.clock_timestamp()-interval '60 seconds'";
        let ours = i64::try_from(self.epoch.load(Ordering::Relaxed)).unwrap_or(i64::MAX);
        self.epochs(sql, &[&ours])
    }

    /// Runs a question inside the turn.
    fn epochs(
        &mut self,
        sql: &str,
        parameters: &[&(dyn tokio_postgres::types::ToSql + Sync)],
    ) -> Result<Vec<u64>, Trouble> {
        let Some(session) = &mut self.session else { return Ok(Vec::new()) };
        let asked = super::session::bounded(session.client().query(sql, parameters));
        let rows = self.runtime.block_on(asked)?.map_err(|e| Trouble::Away(super::connect::words(&e)))?;
        Ok(rows.iter().filter_map(|r| u64::try_from(r.try_get::<_, i64>(0).ok()?).ok()).collect())
    }

    /// One first exchange; on a connection that is found dead at once, a second one. Where nothing answers, callers are
    /// told so before they have waited twice.
    fn exchange(&mut self, lock: bool) -> Result<Learned, Trouble> {
        let fresh = self.session.is_none();
        let began = self.runtime.block_on(async { Instant::now() });
        match self.ask(lock) {
            Err(Trouble::Away(_)) if !fresh && began.elapsed() < REST => self.ask(lock),
            answer => answer,
        }
    }

    fn ask(&mut self, lock: bool) -> Result<Learned, Trouble> {
        let after = self.at.seq;
        let runtime = &self.runtime;
        if self.session.is_none() {
            if let Some((when, why)) = &self.failed
                && when.elapsed() < REST
            {
                return Err(Trouble::Away(why.clone()));
            }
            match runtime.block_on(Session::open(&self.database)) {
                Ok(session) => self.session = Some(session),
                Err(trouble) => {
                    let now = runtime.block_on(async { Instant::now() });
                    if let Trouble::Away(why) = &trouble {
                        self.failed = Some((now, why.clone()));
                    }
                    return Err(trouble);
                }
            }
        }
        let Some(session) = &mut self.session else {
            return Err(Trouble::Away("the connection has ended".to_owned()));
        };
        let learned = self.runtime.block_on(session.learn(after, lock, schema::current()));
        if learned.is_err() {
            self.hang_up();
        }
        learned
    }

    /// Ends the connection, and lets it go at once: what its server still holds for it is given back, and nobody waits
    /// for a lock that nobody uses.
    fn hang_up(&mut self) {
        self.session = None;
        self.runtime.block_on(async {
            for _ in 0..4 {
                tokio::task::yield_now().await;
            }
        });
    }

    /// Checks that what was learned follows from where the copy stands, and takes it over.
    fn take_over(&mut self, learned: Learned) -> Result<(), Trouble> {
        let Learned { head, changes, .. } = learned;
        if head.seq < self.at.seq || (head.seq == self.at.seq && head.hash != self.at.hash) {
            return Err(Trouble::Broken(restored(self.at, head)));
        }
        if changes.is_empty() {
            return Ok(());
        }
        let mut deltas = Vec::with_capacity(changes.len());
        let mut at = self.at;
        for change in changes {
            let Some(body) = &change.body else {
                return Err(Trouble::Broken(
                    "the local copy is older than the changes that are kept: restart the gateway, which makes a new copy"
                        .to_owned(),
                ));
            };
            let next = at.after(change.epoch, body);
            if next != change.at {
                return Err(Trouble::Broken(restored(at, head)));
            }
            deltas.push(Delta::read(&self.tables, body)?);
            at = next;
        }
        copy::apply(&self.applier, &self.tables, &deltas, at)?;
        self.at = at;
        self.changed.send_modify(|seen| *seen = at.seq);
        Ok(())
    }

    /// Finds out what became of a commit that was not answered.
    fn ask_after(&mut self, at: Position, why: &str) -> Result<Position, Trouble> {
        tracing::warn!(why, seq = at.seq, "a commit of the shared ledger was not answered; asking after it");
        let began = self.runtime.block_on(async { Instant::now() });
        loop {
            match self.committed(at) {
                Ok(true) => return Ok(at),
                Ok(false) => return Err(Trouble::Away("the commit was not made".to_owned())),
                Err(trouble) if began.elapsed() >= DOUBT => {
                    self.renew = true;
                    return Err(Trouble::InDoubt(trouble.to_string()));
                }
                Err(_) => {
                    // Made inside the runtime: outside of it a timer panics.
                    #[expect(
                        clippy::disallowed_methods,
                        reason = "asking again, within bounds, is all there is to do"
                    )]
                    self.runtime.block_on(async { tokio::time::sleep(REST).await });
                }
            }
        }
    }

    /// Asked under the lock: whoever held it before has ended.
    fn committed(&mut self, at: Position) -> Result<bool, Trouble> {
        self.failed = None;
        self.ask(true)?;
        let Some(session) = &mut self.session else {
            return Err(Trouble::Away("the connection has ended".to_owned()));
        };
        let found = self.runtime.block_on(session.has(at));
        self.leave();
        found
    }
}

fn restored(ours: Position, head: Position) -> String {
    format!(
        "the shared ledger is not the one this copy follows, or it was restored to an earlier state (it stands at change \
         {}, this copy at {}): what the copy knows must not be forgotten. Restore the newest state of the database; only \
         when that is lost for certain, reconcile with the chain and begin a new copy",
        head.seq, ours.seq
    )
}

/// A runtime for one thread's exchanges.
pub(crate) fn runtime() -> Answer<Runtime> {
    let built = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build();
    built.map_err(|e| crate::sql::Fault::Broken(format!("no runtime for the ledger's connection: {e}")))
}
