//! A few threads that read, so that no caller's thread ever waits for the disk.
//!
//! Each read is one transaction, begun after it was asked for: it sees every write that was
//! answered before.

use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use countersign_core::ledger::LedgerError;
use rusqlite::Connection;
use tokio::sync::oneshot;

use crate::open::{OpenError, reader};
use crate::sql::{Answer, Fault};
use crate::writer::spawn;

/// Reads that may wait; more are told [`LedgerError::Overloaded`].
const QUEUE: usize = 4_096;

type Read = Box<dyn FnOnce(&Connection) + Send>;

/// A pool of connections that cannot write.
pub(crate) struct Readers {
    queue: Option<SyncSender<Read>>,
    threads: Vec<JoinHandle<()>>,
}

impl Readers {
    /// Opens `count` connections, at least one, each on a thread of its own.
    pub(crate) fn start(path: &Path, count: usize) -> Result<Self, OpenError> {
        let connections = (0..count.max(1)).map(|_| reader(path)).collect::<Result<Vec<_>, _>>()?;
        Self::over(connections)
    }

    /// Threads over connections that are open already.
    pub(crate) fn over(connections: Vec<Connection>) -> Result<Self, OpenError> {
        let (queue, reads) = sync_channel::<Read>(QUEUE);
        let reads = Arc::new(Mutex::new(reads));
        let mut threads = Vec::new();
        for conn in connections {
            let reads = Arc::clone(&reads);
            threads.push(spawn("ledger-reader", move || serve(&reads, &conn))?);
        }
        Ok(Self { queue: Some(queue), threads })
    }

    /// Queues a read.
    pub(crate) fn submit<T, F>(&self, read: F) -> Result<oneshot::Receiver<Result<T, LedgerError>>, LedgerError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Answer<T> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let job: Read = Box::new(move |conn| {
            if !reply.is_closed() {
                drop(reply.send(in_transaction(conn, read).map_err(Fault::told)));
            }
        });
        let ended = || LedgerError::Unavailable("the ledger's readers have ended".to_owned());
        match self.queue.as_ref().ok_or_else(ended)?.try_send(job) {
            Ok(()) => Ok(answer),
            Err(TrySendError::Full(_)) => Err(LedgerError::Overloaded),
            Err(TrySendError::Disconnected(_)) => Err(ended()),
        }
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        self.queue = None;
        for thread in self.threads.drain(..) {
            drop(thread.join());
        }
    }
}

fn in_transaction<T>(conn: &Connection, read: impl FnOnce(&Connection) -> Answer<T>) -> Answer<T> {
    let tx = conn.unchecked_transaction()?;
    let value = read(&tx)?;
    tx.commit()?;
    Ok(value)
}

fn serve(reads: &Mutex<Receiver<Read>>, conn: &Connection) {
    loop {
        // The lock is held only while waiting for the next read, never while doing it.
        let next = match reads.lock() {
            Ok(queue) => queue.recv(),
            Err(_) => return,
        };
        match next {
            Ok(read) => read(conn),
            Err(_) => return,
        }
    }
}
