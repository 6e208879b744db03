//! What is said to PostgreSQL in one transaction of the ledger, in two exchanges.
//!
//! The first takes the lock on the head and learns what others wrote; the second writes rows, the change and the new
//! head, and commits. Requests of one exchange are sent before any is answered.

use std::borrow::Cow;
use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

use rusqlite::types::Value;
use tokio::task::AbortHandle;
use tokio_postgres::error::DbError;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error, Row, Statement};

use super::connect::{Database, EXCHANGE, Trouble, words};
use super::delta::{Delta, Hash, Position, one_value, read_value};
use super::tables::{Column, Kind, Table};
use crate::sql::{Answer, Fault};

/// Changes fetched in one exchange.
const FETCH: i64 = 256;

/// Where other gateways listen.
pub(crate) const CHANNEL: &str = "countersign";

const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE";
const HEAD: &str = "SELECT seq,hash,schema,pg_catalog.pg_backend_pid(),
    (extract(epoch FROM pg_catalog.clock_timestamp())*1000)::bigint FROM countersign.head WHERE one=1";
const LOCKED: &str = "SELECT seq,hash,schema,pg_catalog.pg_backend_pid(),
    (extract(epoch FROM pg_catalog.clock_timestamp())*1000)::bigint FROM countersign.head WHERE one=1 FOR UPDATE";
const CHANGES: &str = "SELECT seq,epoch,hash,body FROM countersign.change WHERE seq>$1 ORDER BY seq LIMIT $2";
const ALIVE: &str = "SELECT epoch FROM countersign.writer WHERE NOT ended ORDER BY epoch";
const CHANGE: &str =
    "WITH c AS (INSERT INTO countersign.change(seq,epoch,hash,body) VALUES($1::bigint,$2,$3::bytea,$4)),
    h AS (UPDATE countersign.head SET seq=$1::bigint,hash=$3::bytea WHERE one=1)
    SELECT pg_catalog.pg_notify($5,$1::bigint::text)";
const BEGUN: &str = "INSERT INTO countersign.writer(epoch,copy) VALUES($1,$2)";
const ENDED: &str = "UPDATE countersign.writer SET ended=true WHERE epoch=ANY($1)";

/// What the first exchange learned.
pub(crate) struct Learned {
    /// Where the ledger stands.
    pub(crate) head: Position,
    /// What followed the position that was asked about, in order; not all of it, if it was much.
    pub(crate) changes: Vec<Change>,
    /// Writers that have not ended.
    pub(crate) alive: Vec<u64>,
    /// The server's clock, in milliseconds.
    pub(crate) now: u64,
}

/// One transaction of somebody's.
pub(crate) struct Change {
    pub(crate) at: Position,
    pub(crate) epoch: u64,
    /// Nothing, if it was dropped because of its age.
    pub(crate) body: Option<Vec<u8>>,
}

/// Who writes, as a transaction changes it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Writers {
    /// A new writer: its epoch, and the name of its copy.
    pub(crate) begun: Option<(u64, [u8; 16])>,
    /// Writers that have ended.
    pub(crate) ended: Vec<u64>,
}

/// A connection for the ledger's transactions.
pub(crate) struct Session {
    client: Client,
    /// The server's process, which must stay the same: behind a pooler, locks and settings are somebody else's.
    process: i32,
    driven: AbortHandle,
    statements: HashMap<String, Statement>,
}

impl Session {
    /// Connects.
    pub(crate) async fn open(database: &Database) -> Result<Self, Trouble> {
        let (client, driven) = database.connect(|_| ()).await?;
        let row = bounded(client.query_one("SELECT pg_catalog.pg_backend_pid()", &[])).await?;
        let process = row.and_then(|row| row.try_get(0)).map_err(|e| Trouble::Away(words(&e)))?;
        Ok(Self { client, process, driven, statements: HashMap::new() })
    }

    /// The connection itself, for what is done once.
    pub(crate) fn client(&mut self) -> &mut Client {
        &mut self.client
    }

    /// What was written after a position, as far as one answer holds. With `lock`, a transaction stays open in which
    /// nobody else writes.
    pub(crate) async fn learn(&mut self, after: u64, lock: bool, schema: u64) -> Result<Learned, Trouble> {
        let learned = bounded(self.ask(after, lock)).await?.map_err(|e| Trouble::Away(words(&e)))?;
        let (row, changes, alive) = learned;
        let read = || -> Result<(Position, i64, i32, i64), Error> {
            let hash: Vec<u8> = row.try_get(1)?;
            let position = position(row.try_get(0)?, &hash);
            Ok((position, row.try_get(2)?, row.try_get(3)?, row.try_get(4)?))
        };
        let (head, found, process, now) = read().map_err(|e| Trouble::Broken(words(&e)))?;
        if process != self.process {
            let why = "connections are shared out by a pooler: it must be one of sessions, not of transactions";
            return Err(Trouble::Broken(format!("the ledger's database: {why}")));
        }
        if u64::try_from(found).ok() != Some(schema) {
            return Err(Trouble::Broken(format!(
                "the shared ledger was brought to another version (schema {found}; this build knows {schema}): use \
                 the newer version of the gateway"
            )));
        }
        let change = |row: &Row| -> Result<Change, Error> {
            let hash: Vec<u8> = row.try_get(2)?;
            let epoch = u64::try_from(row.try_get::<_, i64>(1)?).unwrap_or(0);
            Ok(Change { at: position(row.try_get(0)?, &hash), epoch, body: row.try_get(3)? })
        };
        let changes = changes.iter().map(change).collect::<Result<_, _>>().map_err(|e| Trouble::Broken(words(&e)))?;
        let alive = alive.iter().filter_map(|row| u64::try_from(row.try_get::<_, i64>(0).ok()?).ok()).collect();
        Ok(Learned { head, changes, alive, now: u64::try_from(now).unwrap_or(0) })
    }

    async fn ask(&mut self, after: u64, lock: bool) -> Result<(Row, Vec<Row>, Vec<Row>), Error> {
        let head = self.prepared(if lock { LOCKED } else { HEAD }).await?;
        let changes = self.prepared(CHANGES).await?;
        let alive = self.prepared(ALIVE).await?;
        let after = i64::try_from(after).unwrap_or(i64::MAX);
        let range: [&(dyn ToSql + Sync); 2] = [&after, &FETCH];
        let asked = async {
            // In this order: each statement sees what was committed when it began, and the lock comes first.
            tokio::join!(
                biased;
                async { if lock { self.client.batch_execute(BEGIN).await } else { Ok(()) } },
                self.client.query_one(&head, &[]),
                self.client.query(&changes, &range),
                self.client.query(&alive, &[]),
            )
        };
        let (begun, head, changes, alive) = asked.await;
        begun?;
        Ok((head?, changes?, alive?))
    }

    /// Gives the lock back and writes nothing.
    pub(crate) async fn leave(&mut self) -> Result<(), Trouble> {
        bounded(self.client.batch_execute("ROLLBACK")).await?.map_err(|e| Trouble::Away(words(&e)))
    }

    /// Whether a change was committed. Asked under the lock, the answer is final.
    pub(crate) async fn has(&mut self, at: Position) -> Result<bool, Trouble> {
        let sql = "SELECT hash FROM countersign.change WHERE seq=$1";
        let seq = i64::try_from(at.seq).unwrap_or(i64::MAX);
        let row = bounded(self.client.query_opt(sql, &[&seq])).await?.map_err(|e| Trouble::Away(words(&e)))?;
        Ok(row.and_then(|row| row.try_get::<_, Vec<u8>>(0).ok()).is_some_and(|hash| hash == at.hash))
    }

    /// Writes a transaction's rows, its change and the new head, and commits.
    pub(crate) async fn keep(
        &mut self,
        tables: &[Table],
        delta: &Delta,
        change: &Change,
        writers: &Writers,
    ) -> Result<(), Trouble> {
        let mut requests: Vec<(Statement, Vec<Parameter>)> = Vec::new();
        let prepared = self.requests(tables, delta, change, writers, &mut requests);
        match bounded(prepared).await {
            Ok(Ok(())) => {}
            // Nothing was sent that could have been committed.
            Ok(Err(trouble)) | Err(trouble) => return Err(trouble),
        }
        let client = &self.client;
        let sent = requests.iter().map(|(statement, parameters)| {
            let sent = client.execute_raw(statement, parameters.iter().map(|p| p.as_ref() as &(dyn ToSql + Sync)));
            Box::pin(async move { sent.await.map(drop) }) as Sent<'_>
        });
        let mut sent: Vec<Sent<'_>> = sent.collect();
        sent.push(Box::pin(client.batch_execute("COMMIT")));
        let Ok(answers) = bounded(in_order(sent)).await else {
            return Err(Trouble::InDoubt("no answer in time".to_owned()));
        };
        let last = answers.len().saturating_sub(1);
        let failed = answers.into_iter().enumerate().find_map(|(n, answer)| Some((n, answer.err()?)));
        let Some((n, e)) = failed else { return Ok(()) };
        // The transaction failed at its first error; what it was decides whether trying again makes sense. Only what a
        // server says while it goes on working tells for sure that nothing was committed.
        match e.as_db_error().map(|db| (db.code().code().get(..2), db)) {
            Some((Some("23" | "P0"), db)) => Err(Trouble::Broken(wall(db))),
            // What goes wrong in the commit itself may go wrong after it.
            Some((Some("40" | "53" | "55" | "54" | "58"), db)) if n < last => {
                Err(Trouble::Away(db.message().to_owned()))
            }
            _ => Err(Trouble::InDoubt(words(&e))),
        }
    }

    async fn requests(
        &mut self,
        tables: &[Table],
        delta: &Delta,
        change: &Change,
        writers: &Writers,
        requests: &mut Vec<(Statement, Vec<Parameter>)>,
    ) -> Result<(), Trouble> {
        let away = |e: Error| Trouble::Away(words(&e));
        for (table, rows) in tables.iter().zip(&delta.0) {
            if !rows.gone.is_empty() {
                let columns: Vec<&Column> = table.key_columns().collect();
                let statement = self.prepared(&remove(table)).await.map_err(away)?;
                requests.push((statement, arrays(&columns, &rows.gone)?));
            }
            if !rows.put.is_empty() {
                let columns: Vec<&Column> = table.columns.iter().collect();
                let statement = self.prepared(&put(table)).await.map_err(away)?;
                requests.push((statement, arrays(&columns, &rows.put)?));
            }
        }
        let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        if !writers.ended.is_empty() {
            let epochs: Vec<i64> = writers.ended.iter().copied().map(number).collect();
            requests.push((self.prepared(ENDED).await.map_err(away)?, vec![Box::new(epochs)]));
        }
        if let Some((epoch, copy)) = writers.begun {
            let parameters: Vec<Parameter> = vec![Box::new(number(epoch)), Box::new(copy.to_vec())];
            requests.push((self.prepared(BEGUN).await.map_err(away)?, parameters));
        }
        let parameters: Vec<Parameter> = vec![
            Box::new(number(change.at.seq)),
            Box::new(number(change.epoch)),
            Box::new(change.at.hash.to_vec()),
            Box::new(change.body.clone()),
            Box::new(CHANNEL),
        ];
        requests.push((self.prepared(CHANGE).await.map_err(away)?, parameters));
        Ok(())
    }

    async fn prepared(&mut self, sql: &str) -> Result<Statement, Error> {
        if let Some(statement) = self.statements.get(sql) {
            return Ok(statement.clone());
        }
        let statement = self.client.prepare(sql).await?;
        self.statements.insert(sql.to_owned(), statement.clone());
        Ok(statement)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Not only when everything was answered: whoever gave up waiting must not be given the lock later.
        self.driven.abort();
    }
}

type Parameter = Box<dyn ToSql + Sync + Send>;
type Sent<'a> = Pin<Box<dyn Future<Output = Result<(), Error>> + 'a>>;

/// Polls all of them, so that they are sent in this order, and answers when the last has ended.
async fn in_order(mut sent: Vec<Sent<'_>>) -> Vec<Result<(), Error>> {
    let mut answers: Vec<Option<Result<(), Error>>> = sent.iter().map(|_| None).collect();
    poll_fn(|cx| {
        let mut ready = true;
        for (sent, answer) in sent.iter_mut().zip(&mut answers).filter(|(_, answer)| answer.is_none()) {
            match sent.as_mut().poll(cx) {
                Poll::Ready(result) => *answer = Some(result),
                Poll::Pending => ready = false,
            }
        }
        if ready { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    answers.into_iter().flatten().collect()
}

/// An exchange that ends in time.
pub(crate) async fn bounded<T>(exchange: impl Future<Output = T>) -> Result<T, Trouble> {
    let late = |_| Trouble::Away("it does not answer in time".to_owned());
    tokio::time::timeout(EXCHANGE, exchange).await.map_err(late)
}

fn wall(db: &DbError) -> String {
    format!(
        "the shared ledger refused what the local copy allowed ({}{}): they differ; stop the gateways and verify the \
         ledger",
        db.message(),
        db.table().map(|t| format!(", table {t}")).unwrap_or_default()
    )
}

fn position(seq: i64, hash: &[u8]) -> Position {
    // The columns are checked to have this length and sign; what has not is no position of anybody's.
    Position { seq: u64::try_from(seq).unwrap_or(0), hash: Hash::try_from(hash).unwrap_or_default() }
}

const fn type_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Integer => "bigint",
        Kind::Text => "text",
        Kind::Blob | Kind::Any => "bytea",
    }
}

fn unnested<'a>(columns: impl Iterator<Item = &'a Column>) -> String {
    let arrays = (1..).zip(columns).map(|(n, c)| format!("${n}::{}[]", type_of(c.kind)));
    format!("unnest({})", arrays.collect::<Vec<_>>().join(","))
}

fn put(table: &Table) -> String {
    let set = table.overwritten();
    let conflict = if set.is_empty() { "NOTHING".to_owned() } else { format!("UPDATE SET {set}") };
    format!(
        "INSERT INTO countersign.\"{}\"({}) SELECT * FROM {} ON CONFLICT({}) DO {conflict}",
        table.name,
        table.names(),
        unnested(table.columns.iter()),
        table.key_names()
    )
}

fn remove(table: &Table) -> String {
    let same = table.key_columns().map(|c| format!("t.\"{0}\"=k.\"{0}\"", c.name)).collect::<Vec<_>>().join(" AND ");
    format!(
        "DELETE FROM countersign.\"{}\" t USING {} AS k({}) WHERE {same}",
        table.name,
        unnested(table.key_columns()),
        table.key_names()
    )
}

/// One array for each column.
fn arrays(columns: &[&Column], rows: &[Vec<Value>]) -> Answer<Vec<Parameter>> {
    let array = |(n, column): (usize, &&Column)| -> Answer<Parameter> {
        let values = rows.iter().map(|row| row.get(n).unwrap_or(&Value::Null));
        let strange = || Fault::Broken(format!("a value of {} is not of its kind", column.name));
        Ok(match column.kind {
            Kind::Integer => {
                let of = |v: &Value| match v {
                    Value::Null => Ok(None),
                    Value::Integer(n) => Ok(Some(*n)),
                    _ => Err(strange()),
                };
                Box::new(values.map(of).collect::<Answer<Vec<Option<i64>>>>()?)
            }
            Kind::Text => {
                let of = |v: &Value| match v {
                    Value::Null => Ok(None),
                    Value::Text(text) => Ok(Some(outside(text).into_owned())),
                    _ => Err(strange()),
                };
                Box::new(values.map(of).collect::<Answer<Vec<Option<String>>>>()?)
            }
            Kind::Blob => {
                let of = |v: &Value| match v {
                    Value::Null => Ok(None),
                    Value::Blob(bytes) => Ok(Some(bytes.clone())),
                    _ => Err(strange()),
                };
                Box::new(values.map(of).collect::<Answer<Vec<Option<Vec<u8>>>>>()?)
            }
            Kind::Any => Box::new(values.map(|v| Some(one_value(v))).collect::<Vec<Option<Vec<u8>>>>()),
        })
    };
    columns.iter().enumerate().map(array).collect()
}

/// A value of a row that was read.
pub(crate) fn value(row: &Row, n: usize, kind: Kind) -> Result<Value, Trouble> {
    let strange = |e: Error| Trouble::Broken(words(&e));
    Ok(match kind {
        Kind::Integer => row.try_get::<_, Option<i64>>(n).map_err(strange)?.map_or(Value::Null, Value::Integer),
        Kind::Text => {
            let text = row.try_get::<_, Option<&str>>(n).map_err(strange)?;
            text.map_or(Value::Null, |text| Value::Text(inside(text)))
        }
        Kind::Blob => row.try_get::<_, Option<Vec<u8>>>(n).map_err(strange)?.map_or(Value::Null, Value::Blob),
        Kind::Any => match row.try_get::<_, Option<Vec<u8>>>(n).map_err(strange)? {
            Some(bytes) => read_value(&bytes)?,
            None => Value::Null,
        },
    })
}

/// PostgreSQL's text has no NUL: it is written as two characters of which the first stands for nothing else.
pub(crate) fn outside(text: &str) -> Cow<'_, str> {
    if text.contains(['\0', '\u{1}']) {
        Cow::Owned(text.replace('\u{1}', "\u{1}1").replace('\0', "\u{1}0"))
    } else {
        Cow::Borrowed(text)
    }
}

/// The inverse of [`outside`].
pub(crate) fn inside(text: &str) -> String {
    text.replace("\u{1}0", "\0").replace("\u{1}1", "\u{1}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_text_comes_back_and_never_has_a_nul(text in "[\0\u{1}01a]{0,12}") {
            let out = outside(&text);
            prop_assert!(!out.contains('\0'));
            prop_assert_eq!(inside(&out), text);
        }
    }
}
