//! A network between a gateway and the server that fails at the worst moment: when a commit was sent.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;

/// A simple query as PostgreSQL's protocol frames it.
const COMMIT: &[u8] = b"Q\0\0\0\x0bCOMMIT\0";

/// What becomes of the next commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It reaches the server, whose answer is lost.
    Unanswered,
    /// It is lost.
    Lost,
    /// The client's connection breaks; the commit reaches the server when [`Proxy::deliver`] says so.
    Late,
}

#[derive(Default)]
struct Shared {
    fate: Mutex<Option<(Fate, Receiver<()>)>>,
    /// Nobody gets through.
    closed: AtomicBool,
    /// Commits that met their fate.
    met: AtomicU64,
}

/// It listens on this machine, and lets everything through but what it was told of.
pub(crate) struct Proxy {
    port: u16,
    shared: Arc<Shared>,
    deliver: Mutex<Option<Sender<()>>>,
}

impl Proxy {
    /// In front of the server at this port.
    pub(crate) fn start(server: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared::default());
        let ours = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming() {
                let Ok(client) = client else { continue };
                if ours.closed.load(Ordering::SeqCst) {
                    continue;
                }
                let Ok(server) = TcpStream::connect(("127.0.0.1", server)) else { continue };
                connect(&ours, client, server);
            }
        });
        Self { port, shared, deliver: Mutex::default() }
    }

    /// A server's URL, through this proxy.
    pub(crate) fn url(&self, server: &str) -> String {
        let (before, rest) = server.rsplit_once(':').unwrap();
        let (_, database) = rest.split_once('/').unwrap();
        format!("{before}:{}/{database}", self.port)
    }

    /// The next commit meets this fate.
    pub(crate) fn next(&self, fate: Fate) {
        let (deliver, delivered) = channel();
        *self.deliver.lock().unwrap() = Some(deliver);
        *self.shared.fate.lock().unwrap() = Some((fate, delivered));
    }

    /// Lets the late commit reach the server.
    pub(crate) fn deliver(&self) {
        self.deliver.lock().unwrap().take().unwrap().send(()).unwrap();
    }

    /// Lets new connections through, or not.
    pub(crate) fn close(&self, closed: bool) {
        self.shared.closed.store(closed, Ordering::SeqCst);
    }

    /// How many commits met the fate they were given.
    pub(crate) fn met(&self) -> u64 {
        self.shared.met.load(Ordering::SeqCst)
    }
}

fn connect(shared: &Arc<Shared>, client: TcpStream, server: TcpStream) {
    for stream in [&client, &server] {
        stream.set_nodelay(true).unwrap();
    }
    let (from, to) = (server.try_clone().unwrap(), client.try_clone().unwrap());
    thread::spawn(move || answers(from, to));
    let shared = Arc::clone(shared);
    thread::spawn(move || {
        let _gone = requests(&shared, client, &server);
        // What was sent is still done, and the session then ends; nothing is reset.
        let _gone = server.shutdown(Shutdown::Write);
    });
}

/// What the server says. When the client is gone it is still read, so that the server ends what it does.
fn answers(mut server: TcpStream, mut client: TcpStream) {
    let mut buffer = [0; 16 << 10];
    while let Ok(count @ 1..) = server.read(&mut buffer) {
        let _gone = client.write_all(&buffer[..count]);
    }
    let _gone = client.shutdown(Shutdown::Both);
}

fn requests(shared: &Shared, mut client: TcpStream, mut server: &TcpStream) -> std::io::Result<()> {
    let mut buffer = [0; 16 << 10];
    // The end of what went before, in which a commit may have begun.
    let mut tail = Vec::new();
    loop {
        let count = client.read(&mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        let chunk = &buffer[..count];
        let seen = [tail.as_slice(), chunk].concat();
        let found = seen.windows(COMMIT.len()).position(|w| w == COMMIT);
        let fate = found.and_then(|at| Some((at, shared.fate.lock().unwrap().take()?)));
        let Some((at, (fate, deliver))) = fate else {
            server.write_all(chunk)?;
            tail = seen[seen.len().saturating_sub(COMMIT.len() - 1)..].to_vec();
            continue;
        };
        let before = at.saturating_sub(tail.len());
        server.write_all(&chunk[..before])?;
        client.shutdown(Shutdown::Both)?;
        shared.met.fetch_add(1, Ordering::SeqCst);
        match fate {
            Fate::Lost => return Ok(()),
            Fate::Late => drop(deliver.recv()),
            Fate::Unanswered => {}
        }
        return server.write_all(&chunk[before..]);
    }
}
