//! The ledger of Countersign, and the only user of the database.
//!
//! [`SqliteLedger`] implements [`Ledger`]: one writer with group commit over SQLite in WAL mode with
//! full synchronisation, a few readers, and one log of records; shared with other gateways, over a local copy of what
//! PostgreSQL has. A reply means durable.
//!
//! | module | what it does |
//! | --- | --- |
//! | `open` | permissions, lock, connections, epoch, recovery |
//! | `schema` | tables and migrations |
//! | `writer`, `readers` | the threads, their queues, group commit, checkpoints |
//! | `commit`, `deny` | decisions |
//! | `life` | what happens to a payment afterwards |
//! | `proof`, `refunds` | what a chain must have shown, and what came back |
//! | `windows`, `moves` | budget counters, and what their records say |
//! | `clock` | the latest moment written |
//! | `approvals`, `votes`, `admin` | people |
//! | `generations` | which policies and mandates served since when |
//! | `tallies`, `read` | what others see |
//! | `uses` | what became of what was bought |
//! | `past` | decisions as they were recorded, for replay |
//! | `audit`, `check` | the record, and checking all of it from outside |
//! | `text` | texts as they are stored: packed |
//! | `alerts`, `notices`, `figures` | who must be told of what, and what is open, counted |
//! | `answers` | kept bodies, in a file of their own |
//! | `shared` | the same ledger for several gateways, in PostgreSQL |

mod admin;
mod alerts;
mod answers;
mod approvals;
mod audit;
#[cfg(test)]
#[path = "../tests/ledger/backend.rs"]
mod backend;
mod check;
mod clock;
mod commit;
#[cfg(test)]
#[expect(dead_code, reason = "made for the tests outside the crate")]
#[path = "../tests/ledger/common.rs"]
mod common;
#[cfg(test)]
mod cost;
mod deny;
mod figures;
mod generations;
mod life;
mod moves;
mod notices;
mod open;
mod past;
mod proof;
mod read;
mod readers;
#[cfg(test)]
mod reference;
mod refunds;
mod schema;
mod sessions;
mod shared;
mod sql;
mod tallies;
pub mod text;
mod uses;
mod votes;
mod windows;
mod writer;

// The tests inside the crate share their purchases with those outside it.
#[cfg(test)]
extern crate self as countersign_ledger;

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use countersign_core::evm::Signature65;
use countersign_core::generation::Generation;
use countersign_core::id::{ApprovalId, PaymentId, SessionId};
use countersign_core::ledger::{
    Answer as Kept, Approval, Attempt, BudgetView, Cancellation, Cast, Commit, Committed, DecisionRecord, Denial,
    Facts, FactsQuery, Figures, Finalized, Fingerprint, Fut, KeptAlert, KeptCheckpoint, Ledger, LedgerError, Note,
    Opening, Past, PastDecision, PaymentFilter, PaymentView, PurchaseKey, Refund, Reopened, Session, SessionCaps,
    Suspension, SuspensionScope, Transition, TreeHead, UseReport,
};
use countersign_core::notice::{Notice, Proposal};
use countersign_core::payment::State;
use countersign_core::time::Timestamp;
use countersign_core::x402::Authorization;
use rusqlite::Connection;

pub use answers::AnswerOptions;
pub use check::{ChainError, ChainReport, Integrity, check_integrity, verify_chain};
pub use open::{Birth, OpenError};
pub use shared::connect::Database;

use open::Identity;
use readers::Readers;
use shared::answers::SharedAnswers;
use shared::begin;
use shared::follow::Follower;
use sql::{Answer, Done, Fault};
use tokio::sync::watch;
pub use writer::Work;
use writer::{Class, Sharing, Writer, gone, told};

/// How a store is opened.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// What the store is born with, if it does not exist yet.
    pub birth: Birth,
    /// Free disk, in bytes, below which new purchases are refused.
    pub headroom: u64,
    /// Threads that read.
    pub readers: usize,
    /// Kept answers.
    pub answers: AnswerOptions,
}

impl Options {
    /// The usual options. `key` and `store_id` are random; they count only for a new store.
    #[must_use]
    pub fn new(key: [u8; 32], store_id: [u8; 16]) -> Self {
        Self { birth: Birth { key, store_id }, headroom: 64 << 20, readers: 2, answers: AnswerOptions::default() }
    }
}

/// Where sellers' answers are kept.
enum Answers {
    /// In a file beside the store.
    Own(Readers),
    /// Where every gateway finds them.
    Shared(SharedAnswers),
}

/// The ledger in one SQLite file, this process's alone or a copy of a shared one. Dropping it writes what is queued,
/// then closes the store.
pub struct SqliteLedger {
    // In the order in which they must end: the lock is given back last.
    _follower: Option<Follower>,
    writer: Option<Writer>,
    readers: Readers,
    answers: Option<Answers>,
    identity: Identity,
    /// The writer's epoch, which a shared ledger may begin anew while it is open.
    epoch: Arc<AtomicU64>,
    /// Moves when others write.
    changed: Option<watch::Receiver<u64>>,
    keep: AnswerOptions,
    /// The latest moment this ledger was told of: it has no clock, and some reads carry none.
    latest: Arc<AtomicU64>,
    _lock: Option<File>,
}

impl std::fmt::Debug for SqliteLedger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqliteLedger")
            .field("store_id", &hex::encode(self.identity.store_id))
            .field("epoch", &self.epoch())
            .finish_non_exhaustive()
    }
}

impl SqliteLedger {
    /// Opens the store at `path` for this process alone, making or migrating it where needed. What
    /// was in flight when the last process ended becomes redeemable.
    ///
    /// # Errors
    /// See [`OpenError`]; a store that another process has open fails at once.
    pub fn open(path: &Path, options: Options, now: Timestamp) -> Result<Self, OpenError> {
        let path = open::check_place(path)?;
        let lock = open::lock(&path)?;
        let conn = open::writer(&path)?;
        open::settle_wal(&conn)?;
        schema::migrate(&conn)?;
        let identity = open::begin(&conn, options.birth, now)?;
        let checkpointer = open::writer(&path)?;
        let latest = clock::latest(&conn)?.max(now);
        let readers = Readers::start(&path, options.readers)?;
        let answers = answers::start(&path)?;
        Ok(Self {
            _follower: None,
            writer: Some(Writer::start(conn, checkpointer, path, options.headroom, None)?),
            readers,
            answers: Some(Answers::Own(answers)),
            identity,
            epoch: Arc::new(AtomicU64::new(identity.epoch)),
            changed: None,
            keep: options.answers,
            latest: Arc::new(AtomicU64::new(latest.as_millis())),
            _lock: Some(lock),
        })
    }

    /// Opens the ledger that several gateways share in `database`, making it where there is none. `folder` is this
    /// process's alone and has its copy, which is made or continued; `name` is random and names a new copy. Nothing may
    /// be awaited here: call it on a thread that runs no runtime.
    ///
    /// # Errors
    /// See [`OpenError`]: also when the database cannot be reached, or has not what this copy follows.
    pub fn open_shared(
        folder: &Path,
        database: &Database,
        name: [u8; 16],
        options: Options,
        now: Timestamp,
    ) -> Result<Self, OpenError> {
        let path = open::check_place(&folder.join(begin::FILE))?;
        let lock = open::lock(&path)?;
        let begin::Copy { conn, link, identity, changed } = begin::open(&path, database, (options.birth, name), now)?;
        let checkpointer = open::writer(&path)?;
        let latest = Arc::new(AtomicU64::new(clock::latest(&conn)?.max(now).as_millis()));
        let readers = Readers::start(&path, options.readers)?;
        let answers = SharedAnswers::start(database.clone(), options.answers)?;
        let epoch = link.epoch();
        let found = latest.load(Ordering::Relaxed);
        let sharing = Sharing { link, birth: options.birth, latest: Arc::clone(&latest), found };
        let writer = Writer::start(conn, checkpointer, path, options.headroom, Some(sharing))?;
        let queue = writer.queue().map_err(|e| OpenError::Shared(e.to_string()))?.clone();
        Ok(Self {
            _follower: Some(Follower::start(database.clone(), queue, Arc::clone(&epoch))?),
            writer: Some(writer),
            readers,
            answers: Some(Answers::Shared(answers)),
            identity,
            epoch,
            changed: Some(changed),
            keep: options.answers,
            latest,
            _lock: Some(lock),
        })
    }

    /// Opens a shared ledger for reading: the copy in `folder`, brought up to date unless a gateway has it open, which
    /// then does that. Writes answer [`LedgerError::Unavailable`].
    ///
    /// # Errors
    /// As [`SqliteLedger::open_shared`].
    pub fn open_shared_read_only(folder: &Path, database: &Database, name: [u8; 16]) -> Result<Self, OpenError> {
        let path = open::check_place(&folder.join(begin::FILE))?;
        match open::lock(&path) {
            Ok(_lock) => drop(begin::follow(&path, database, (None, name))?),
            Err(OpenError::Locked(_)) => {}
            Err(e) => return Err(e),
        }
        Self::open_read_only(&path)
    }

    /// Opens the store beside whoever has it open, for reading. Writes answer
    /// [`LedgerError::Unavailable`].
    ///
    /// # Errors
    /// When there is no ledger at `path`, or one of another version.
    pub fn open_read_only(path: &Path) -> Result<Self, OpenError> {
        let conn = open::reader(path)?;
        let (identity, latest) = match schema::version(&conn)? {
            0 => return Err(OpenError::NotALedger),
            v if v > schema::current() => {
                return Err(OpenError::NewerSchema { found: v, known: schema::current() });
            }
            v if v < schema::current() => return Err(OpenError::OlderSchema(v)),
            _ => (open::identity(&conn)?.ok_or(OpenError::NotALedger)?, clock::latest(&conn)?),
        };
        Ok(Self {
            _follower: None,
            writer: None,
            readers: Readers::over(vec![conn])?,
            answers: answers::start_read_only(path)?.map(Answers::Own),
            identity,
            epoch: Arc::new(AtomicU64::new(identity.epoch)),
            changed: None,
            keep: AnswerOptions::default(),
            latest: Arc::new(AtomicU64::new(latest.as_millis())),
            _lock: None,
        })
    }

    /// The key of every keyed digest: of queries, bodies and fingerprints.
    #[must_use]
    pub const fn key(&self) -> [u8; 32] {
        self.identity.key
    }

    /// Names the store, for ever.
    #[must_use]
    pub const fn store_id(&self) -> [u8; 16] {
        self.identity.store_id
    }

    /// How often the store was opened for writing.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Relaxed)
    }

    /// How the writer does, for those who watch; nothing is written where the store was opened for reading.
    #[must_use]
    pub fn work(&self) -> Arc<Work> {
        self.writer.as_ref().map(Writer::work).unwrap_or_default()
    }

    /// Every decision of a payment, in the order they were made.
    pub fn decisions(&self, payment: PaymentId) -> Fut<'_, Result<Vec<DecisionRecord>, LedgerError>> {
        self.read(move |conn| read::decisions(conn, payment))
    }

    /// Remembers the latest moment anybody told.
    fn told_of(&self, at: Timestamp) {
        self.latest.fetch_max(at.as_millis(), Ordering::Relaxed);
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.latest.load(Ordering::Relaxed))
    }

    fn write<T, F>(&self, class: Class, work: F) -> Fut<'_, Result<T, LedgerError>>
    where
        T: Send + 'static,
        F: FnMut(&Connection) -> Answer<Done<T>> + Send + 'static,
    {
        Box::pin(async move {
            let Some(writer) = &self.writer else { return writer::read_only() };
            writer.queue()?.submit(class, work)?.await.map_err(gone)?
        })
    }

    async fn keep_answer(
        &self,
        answers: &Answers,
        payment: PaymentId,
        answer: Kept,
        at: Timestamp,
    ) -> Result<(), LedgerError> {
        match answers {
            Answers::Own(file) => {
                let keep = self.keep;
                file.submit(move |conn| answers::put(conn, keep, payment, &answer, at))?.await.map_err(gone)?
            }
            Answers::Shared(shared) => shared.put(payment, answer, at).await,
        }
    }

    fn read<T, F>(&self, work: F) -> Fut<'_, Result<T, LedgerError>>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Answer<T> + Send + 'static,
    {
        Box::pin(async move {
            // What others committed before this was asked must be seen, as what was committed here is.
            if let (Some(writer), true) = (&self.writer, self.changed.is_some()) {
                writer.queue()?.submit(Class::Look, |_| Ok(Done::Undo(())))?.await.map_err(gone)??;
            }
            self.readers.submit(work)?.await.map_err(gone)?
        })
    }
}

impl Ledger for SqliteLedger {
    fn commit(&self, commit: Commit) -> Fut<'_, Result<Committed, LedgerError>> {
        self.told_of(commit.at);
        let epoch = Arc::clone(&self.epoch);
        Box::pin(async move {
            let prepared = told(commit::prepare(commit))?;
            self.write(Class::Purchase, move |conn| commit::commit(conn, epoch.load(Ordering::Relaxed), &prepared))
                .await
        })
    }

    fn deny(&self, denial: Denial) -> Fut<'_, Result<PaymentId, LedgerError>> {
        self.told_of(denial.at);
        let epoch = Arc::clone(&self.epoch);
        Box::pin(async move {
            let prepared = told(deny::prepare(denial))?;
            self.write(Class::Growth, move |conn| deny::deny(conn, epoch.load(Ordering::Relaxed), &prepared)).await
        })
    }

    fn transition(&self, transition: Transition) -> Fut<'_, Result<State, LedgerError>> {
        self.told_of(transition.at);
        let epoch = Arc::clone(&self.epoch);
        self.write(Class::Relief, move |conn| life::transition(conn, epoch.load(Ordering::Relaxed), &transition))
    }

    fn reopen(&self, payment: PaymentId, generation: u64, at: Timestamp) -> Fut<'_, Result<Reopened, LedgerError>> {
        self.told_of(at);
        let epoch = Arc::clone(&self.epoch);
        self.write(Class::Relief, move |conn| {
            life::reopen(conn, epoch.load(Ordering::Relaxed), payment, generation, at)
        })
    }

    fn cancel(&self, cancellation: Cancellation) -> Fut<'_, Result<Box<Authorization>, LedgerError>> {
        self.told_of(cancellation.at);
        self.write(Class::Relief, move |conn| life::cancel(conn, &cancellation))
    }

    fn refund(&self, refund: Refund) -> Fut<'_, Result<State, LedgerError>> {
        self.told_of(refund.at);
        self.write(Class::Relief, move |conn| life::refund(conn, &refund))
    }

    fn finalized(&self, block: Finalized, at: Timestamp) -> Fut<'_, Result<(), LedgerError>> {
        self.told_of(at);
        self.write(Class::Relief, move |conn| proof::finalized(conn, &block, at))
    }

    fn store_signature(&self, payment: PaymentId, signature: Signature65) -> Fut<'_, Result<(), LedgerError>> {
        self.write(Class::Relief, move |conn| life::store_signature(conn, payment, signature))
    }

    fn answered(
        &self,
        payment: PaymentId,
        answer: Option<Kept>,
        delivered: bool,
        at: Timestamp,
    ) -> Fut<'_, Result<(), LedgerError>> {
        self.told_of(at);
        Box::pin(async move {
            // Kept first: whoever reads that it was delivered finds it, at every gateway and after a crash in between.
            if let (Some(answer), Some(answers)) = (answer, &self.answers)
                && let Err(e) = self.keep_answer(answers, payment, answer, at).await
            {
                // It is only not given again.
                tracing::warn!(%payment, error = %e, "an answer was not kept");
            }
            self.write(Class::Relief, move |conn| life::answered(conn, payment, delivered, at)).await
        })
    }

    fn answer(&self, payment: PaymentId) -> Fut<'_, Result<Option<Kept>, LedgerError>> {
        Box::pin(async move {
            let Some(answers) = &self.answers else { return Ok(None) };
            let (keep, now) = (self.keep, self.now());
            match answers {
                Answers::Own(file) => {
                    file.submit(move |conn| answers::get(conn, keep, payment, now))?.await.map_err(gone)?
                }
                Answers::Shared(shared) => shared.get(payment, now).await,
            }
        })
    }

    fn payment(&self, payment: PaymentId) -> Fut<'_, Result<Option<PaymentView>, LedgerError>> {
        self.read(move |conn| read::payment(conn, payment))
    }

    fn latest(&self, key: PurchaseKey) -> Fut<'_, Result<Option<PaymentView>, LedgerError>> {
        self.read(move |conn| read::latest(conn, &key))
    }

    fn unfinished(
        &self,
        workspace: String,
        agent: String,
        fingerprint: Fingerprint,
    ) -> Fut<'_, Result<Vec<PaymentView>, LedgerError>> {
        let now = self.now();
        self.read(move |conn| read::unfinished(conn, (&workspace, &agent), fingerprint, now))
    }

    fn payments(&self, filter: PaymentFilter) -> Fut<'_, Result<Vec<PaymentView>, LedgerError>> {
        self.read(move |conn| read::payments(conn, &filter))
    }

    fn budgets(&self, at: Timestamp) -> Fut<'_, Result<Vec<BudgetView>, LedgerError>> {
        self.told_of(at);
        self.read(move |conn| read::budgets(conn, at))
    }

    fn facts(&self, query: FactsQuery) -> Fut<'_, Result<Facts, LedgerError>> {
        self.told_of(query.at);
        self.read(move |conn| tallies::facts(conn, &query))
    }

    fn figures(&self, at: Timestamp) -> Fut<'_, Result<Figures, LedgerError>> {
        self.read(move |conn| figures::figures(conn, at))
    }

    fn alerts_due(&self, at: Timestamp, limit: u32) -> Fut<'_, Result<Vec<KeptAlert>, LedgerError>> {
        self.read(move |conn| alerts::due(conn, at, limit))
    }

    fn alerts(&self, before: Option<u64>, limit: u32) -> Fut<'_, Result<Vec<KeptAlert>, LedgerError>> {
        self.read(move |conn| alerts::list(conn, before, limit))
    }

    fn alert_tried(&self, attempt: Attempt) -> Fut<'_, Result<(), LedgerError>> {
        self.told_of(attempt.at);
        self.write(Class::Relief, move |conn| alerts::tried(conn, alerts::Queue::Alerts, &attempt))
    }

    fn notices_due(&self, at: Timestamp, limit: u32) -> Fut<'_, Result<Vec<Notice>, LedgerError>> {
        self.read(move |conn| notices::due(conn, at, limit))
    }

    fn notices(&self, before: Option<u64>, limit: u32) -> Fut<'_, Result<Vec<Notice>, LedgerError>> {
        self.read(move |conn| notices::list(conn, before, limit))
    }

    fn notice_tried(&self, attempt: Attempt) -> Fut<'_, Result<(), LedgerError>> {
        self.told_of(attempt.at);
        self.write(Class::Relief, move |conn| alerts::tried(conn, alerts::Queue::Notices, &attempt))
    }

    fn approval(&self, approval: ApprovalId) -> Fut<'_, Result<Option<Approval>, LedgerError>> {
        self.read(move |conn| approvals::find(conn, approval))
    }

    fn approvals(&self, pending: bool) -> Fut<'_, Result<Vec<Approval>, LedgerError>> {
        self.read(move |conn| approvals::list(conn, pending))
    }

    fn vote(&self, cast: Cast) -> Fut<'_, Result<Approval, LedgerError>> {
        self.told_of(cast.at);
        let epoch = Arc::clone(&self.epoch);
        Box::pin(async move {
            let voted =
                self.write(Class::Relief, move |conn| votes::vote(conn, epoch.load(Ordering::Relaxed), &cast)).await?;
            voted.map_err(Fault::told)
        })
    }

    fn propose(&self, proposal: Proposal) -> Fut<'_, Result<(), LedgerError>> {
        self.told_of(proposal.at);
        self.write(Class::Growth, move |conn| approvals::propose(conn, &proposal))
    }

    fn proposal(&self, approval: ApprovalId) -> Fut<'_, Result<Option<Proposal>, LedgerError>> {
        self.read(move |conn| approvals::proposal(conn, approval))
    }

    fn expire_approvals(&self, at: Timestamp) -> Fut<'_, Result<u32, LedgerError>> {
        self.told_of(at);
        let epoch = Arc::clone(&self.epoch);
        self.write(Class::Relief, move |conn| approvals::expire_all(conn, epoch.load(Ordering::Relaxed), at))
    }

    fn open_session(&self, session: Session, caps: SessionCaps) -> Fut<'_, Result<Opening, LedgerError>> {
        self.told_of(session.created_at);
        self.write(Class::Growth, move |conn| sessions::open(conn, &session, &caps))
    }

    fn close_session(&self, session: SessionId, by: String, at: Timestamp) -> Fut<'_, Result<(), LedgerError>> {
        self.told_of(at);
        self.write(Class::Relief, move |conn| sessions::close(conn, session, &by, at))
    }

    fn session_by_token(&self, token_sha256: String) -> Fut<'_, Result<Option<Session>, LedgerError>> {
        self.read(move |conn| sessions::by_token(conn, &token_sha256))
    }

    fn session(&self, session: SessionId) -> Fut<'_, Result<Option<Session>, LedgerError>> {
        self.read(move |conn| sessions::by_id(conn, session))
    }

    fn sessions(&self) -> Fut<'_, Result<Vec<Session>, LedgerError>> {
        self.read(sessions::all)
    }

    fn suspend(&self, suspension: Suspension) -> Fut<'_, Result<(), LedgerError>> {
        self.told_of(suspension.at);
        self.write(Class::Relief, move |conn| admin::suspend(conn, &suspension))
    }

    fn resume(&self, scope: SuspensionScope, by: String, at: Timestamp) -> Fut<'_, Result<(), LedgerError>> {
        self.told_of(at);
        self.write(Class::Relief, move |conn| admin::resume(conn, &scope, &by, at))
    }

    fn suspensions(&self) -> Fut<'_, Result<Vec<Suspension>, LedgerError>> {
        self.read(admin::suspensions)
    }

    fn require_generation(&self, generation: u64) -> Fut<'_, Result<(), LedgerError>> {
        self.write(Class::Relief, move |conn| admin::require_generation(conn, generation))
    }

    fn report_use(&self, payment: PaymentId, report: UseReport) -> Fut<'_, Result<(), LedgerError>> {
        self.told_of(report.at);
        self.write(Class::Growth, move |conn| uses::report(conn, payment, &report))
    }

    fn past(&self, which: Past, limit: u32) -> Fut<'_, Result<Vec<PastDecision>, LedgerError>> {
        self.read(move |conn| past::read(conn, which, limit))
    }

    fn past_count(&self, which: Past) -> Fut<'_, Result<u64, LedgerError>> {
        self.read(move |conn| past::count(conn, which))
    }

    fn blob(&self, digest: [u8; 32]) -> Fut<'_, Result<Option<Vec<u8>>, LedgerError>> {
        self.read(move |conn| admin::blob(conn, &digest))
    }

    fn remember(&self, blobs: Vec<Vec<u8>>) -> Fut<'_, Result<(), LedgerError>> {
        Box::pin(async move {
            let blobs: Vec<_> = blobs.into_iter().map(|bytes| (admin::digest(&bytes), bytes)).collect();
            self.write(Class::Growth, move |conn| admin::remember(conn, &blobs)).await
        })
    }

    fn remembered(&self, digests: Vec<String>) -> Fut<'_, Result<Vec<Vec<u8>>, LedgerError>> {
        self.read(move |conn| generations::remembered(conn, &digests))
    }

    fn activate(&self, generation: Generation, tightened: bool) -> Fut<'_, Result<(), LedgerError>> {
        self.told_of(generation.at);
        // Small, and often what resolves trouble: going back must work on a full disk too.
        self.write(Class::Relief, move |conn| generations::activate(conn, &generation, tightened))
    }

    fn generations(&self, before: Option<u64>, limit: u32) -> Fut<'_, Result<Vec<Generation>, LedgerError>> {
        self.read(move |conn| generations::list(conn, before, limit))
    }

    fn note(&self, note: Note) -> Fut<'_, Result<(), LedgerError>> {
        self.told_of(note.at);
        self.write(Class::Growth, move |conn| admin::note(conn, &note))
    }

    fn agree(&self, what: &'static str, word: String, at: Timestamp) -> Fut<'_, Result<(), LedgerError>> {
        self.told_of(at);
        self.write(Class::Relief, move |conn| admin::agree(conn, what, &word, at))
    }

    fn changed(&self, seen: u64) -> Fut<'_, u64> {
        let changed = self.changed.clone();
        Box::pin(async move {
            let Some(mut changed) = changed else { return std::future::pending().await };
            let heard = changed.wait_for(|now| *now > seen).await.map(|now| *now);
            match heard {
                Ok(now) => now,
                // The writer has ended; nobody else will be heard of.
                Err(_) => std::future::pending().await,
            }
        })
    }

    fn tree_head(&self) -> Fut<'_, Result<TreeHead, LedgerError>> {
        self.read(audit::head)
    }

    fn records(&self, after: u64, limit: u32) -> Fut<'_, Result<Vec<String>, LedgerError>> {
        self.read(move |conn| audit::records(conn, after, limit))
    }

    fn records_of(&self, payment: PaymentId) -> Fut<'_, Result<Vec<u64>, LedgerError>> {
        self.read(move |conn| audit::records_of(conn, payment))
    }

    fn inclusion(&self, seq: u64, size: u64) -> Fut<'_, Result<Vec<[u8; 32]>, LedgerError>> {
        self.read(move |conn| audit::inclusion(conn, seq, size))
    }

    fn consistency(&self, old: u64, new: u64) -> Fut<'_, Result<Vec<[u8; 32]>, LedgerError>> {
        self.read(move |conn| audit::consistency(conn, old, new))
    }

    fn keep_checkpoint(&self, size: u64, note: String) -> Fut<'_, Result<(), LedgerError>> {
        // Small, and what a stop on a full disk is proven with.
        self.write(Class::Relief, move |conn| audit::keep(conn, size, &note))
    }

    fn checkpoints(&self, limit: u32) -> Fut<'_, Result<Vec<KeptCheckpoint>, LedgerError>> {
        self.read(move |conn| audit::checkpoints(conn, limit))
    }
}
