//! Kept answers in PostgreSQL, so that any gateway can give them again. They are no part of the ledger: in no change
//! and no copy, and a server that is away only means that an answer is not given again.

use std::thread::JoinHandle;

use countersign_core::id::PaymentId;
use countersign_core::ledger::{Answer as Kept, LedgerError};
use countersign_core::time::Timestamp;
use tokio::sync::{mpsc, oneshot};
use tokio_postgres::Client;

use super::connect::{Database, Trouble, words};
use super::link::runtime;
use super::session::{bounded, inside, outside};
use crate::answers::AnswerOptions;
use crate::open::OpenError;
use crate::writer::spawn;

/// Questions that may wait; more are told [`LedgerError::Overloaded`].
const QUEUE: usize = 256;

const PUT: &str = "INSERT INTO countersign.answer(payment,at,status,headers,body,size) VALUES($1,$2,$3,$4,$5,$6)
    ON CONFLICT(payment) DO UPDATE SET at=excluded.at, status=excluded.status, headers=excluded.headers,
      body=excluded.body, size=excluded.size";
const AGED: &str = "DELETE FROM countersign.answer WHERE at<$1";
/// The oldest that are together as large as what is too much.
const SHRINK: &str = "DELETE FROM countersign.answer WHERE payment IN (
    SELECT payment FROM (SELECT payment, sum(size) OVER (ORDER BY at,payment)-size AS before
                         FROM (SELECT payment,at,size FROM countersign.answer ORDER BY at,payment LIMIT 1000) o) s
    WHERE before<(SELECT bytes FROM countersign.answers)-$1)";
const GET: &str = "SELECT status,headers,body FROM countersign.answer WHERE payment=$1 AND at>=$2";

enum Ask {
    Put { payment: PaymentId, answer: Box<Kept>, at: Timestamp, done: oneshot::Sender<Result<(), Trouble>> },
    Get { payment: PaymentId, now: Timestamp, done: oneshot::Sender<Result<Option<Kept>, Trouble>> },
}

/// The thread that keeps them.
pub(crate) struct SharedAnswers {
    asks: Option<mpsc::Sender<Ask>>,
    thread: Option<JoinHandle<()>>,
}

impl SharedAnswers {
    /// Starts it.
    pub(crate) fn start(database: Database, keep: AnswerOptions) -> Result<Self, OpenError> {
        let runtime = runtime()?;
        let (asks, mut asked) = mpsc::channel(QUEUE);
        let thread = spawn("ledger-answers", move || {
            runtime.block_on(async {
                let mut client = None;
                while let Some(ask) = asked.recv().await {
                    serve(&database, keep, &mut client, ask).await;
                }
            });
        })?;
        Ok(Self { asks: Some(asks), thread: Some(thread) })
    }

    /// Keeps an answer.
    pub(crate) async fn put(&self, payment: PaymentId, answer: Kept, at: Timestamp) -> Result<(), LedgerError> {
        let (done, answered) = oneshot::channel();
        self.ask(Ask::Put { payment, answer: Box::new(answer), at, done })?;
        told(answered.await)
    }

    /// A kept answer that is not too old.
    pub(crate) async fn get(&self, payment: PaymentId, now: Timestamp) -> Result<Option<Kept>, LedgerError> {
        let (done, answered) = oneshot::channel();
        self.ask(Ask::Get { payment, now, done })?;
        told(answered.await)
    }

    fn ask(&self, ask: Ask) -> Result<(), LedgerError> {
        let asks = self.asks.as_ref().ok_or(LedgerError::Overloaded)?;
        asks.try_send(ask).map_err(|_| LedgerError::Overloaded)
    }
}

fn told<T>(answer: Result<Result<T, Trouble>, oneshot::error::RecvError>) -> Result<T, LedgerError> {
    match answer {
        Ok(answer) => answer.map_err(|trouble| LedgerError::Unavailable(trouble.to_string())),
        Err(e) => Err(crate::writer::gone(e)),
    }
}

impl Drop for SharedAnswers {
    fn drop(&mut self) {
        self.asks = None;
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// Answers one question; after trouble the next one connects anew.
async fn serve(database: &Database, keep: AnswerOptions, client: &mut Option<Client>, ask: Ask) {
    // A caller that has gone away takes nothing back.
    match ask {
        Ask::Put { payment, answer, at, done } => {
            let kept = match connected(database, client).await {
                Ok(client) => put(client, keep, payment, &answer, at).await,
                Err(trouble) => Err(trouble),
            };
            let failed = kept.is_err();
            drop(done.send(kept));
            if failed {
                *client = None;
            }
        }
        Ask::Get { payment, now, done } => {
            let found = match connected(database, client).await {
                Ok(client) => get(client, keep, payment, now).await,
                Err(trouble) => Err(trouble),
            };
            let failed = found.is_err();
            drop(done.send(found));
            if failed {
                *client = None;
            }
        }
    }
}

async fn connected<'a>(database: &Database, client: &'a mut Option<Client>) -> Result<&'a Client, Trouble> {
    if client.as_ref().is_none_or(Client::is_closed) {
        *client = Some(database.connect(|_| ()).await?.0);
    }
    client.as_ref().ok_or_else(|| Trouble::Away("no connection".to_owned()))
}

fn number(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

async fn put(
    client: &Client,
    keep: AnswerOptions,
    payment: PaymentId,
    answer: &Kept,
    at: Timestamp,
) -> Result<(), Trouble> {
    let away = |e: tokio_postgres::Error| Trouble::Away(words(&e));
    let headers = serde_json::to_string(&answer.headers).map_err(|e| Trouble::Away(e.to_string()))?;
    let size = u64::try_from(headers.len().saturating_add(answer.body.len())).unwrap_or(u64::MAX);
    if keep.keep_millis == 0 || size > keep.max_bytes {
        return Ok(());
    }
    let payment: &[u8] = payment.as_bytes();
    let status = i32::from(answer.status);
    let body: &[u8] = &answer.body;
    let (moment, size, headers) = (number(at.as_millis()), number(size), outside(&headers));
    let headers: &str = &headers;
    bounded(client.execute(PUT, &[&payment, &moment, &status, &headers, &body, &size])).await?.map_err(away)?;
    let since = number(at.minus_millis(keep.keep_millis).as_millis());
    bounded(client.execute(AGED, &[&since])).await?.map_err(away)?;
    let quota = number(keep.max_bytes);
    bounded(client.execute(SHRINK, &[&quota])).await?.map_err(away)?;
    Ok(())
}

async fn get(
    client: &Client,
    keep: AnswerOptions,
    payment: PaymentId,
    now: Timestamp,
) -> Result<Option<Kept>, Trouble> {
    let away = |e: tokio_postgres::Error| Trouble::Away(words(&e));
    let payment: &[u8] = payment.as_bytes();
    let since = number(now.minus_millis(keep.keep_millis).as_millis());
    let Some(row) = bounded(client.query_opt(GET, &[&payment, &since])).await?.map_err(away)? else {
        return Ok(None);
    };
    let damaged = || Trouble::Away("a kept answer is damaged".to_owned());
    let status = u16::try_from(row.try_get::<_, i32>(0).map_err(away)?).map_err(|_| damaged())?;
    let headers = inside(row.try_get::<_, &str>(1).map_err(away)?);
    let headers = serde_json::from_str(&headers).map_err(|_| damaged())?;
    Ok(Some(Kept { status, headers, body: row.try_get::<_, Vec<u8>>(2).map_err(away)? }))
}
