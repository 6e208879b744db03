//! What the host keeps about one running instance: its clock, its randomness, what it has said, and
//! how much it may still ask for. Lives as long as one store, which is one decision.

use std::fmt;

use countersign_core::time::Timestamp;
use countersign_core::verdict::LogLine;
use sha2::{Digest, Sha256};
use wasmtime::ResourceLimiter;

use crate::bindings::countersign::policy::{log, types};

/// Lines a policy may log per decision.
const LOG_LINES: usize = 64;
/// Bytes of one line.
const LOG_LINE_BYTES: usize = 1 << 10;
/// Calls of any import per phase. Nothing in wasmtime limits their number, and fuel hardly sees them.
const HOST_CALLS: u32 = 10_000;
/// Random bytes per call.
const RANDOM_BYTES: u64 = 64 << 10;
/// How much of what a policy prints to standard error is kept, to explain a trap.
const STDERR_BYTES: usize = 512;

/// A host call that ends the policy.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// More than a policy may ask of the host.
    TooMuch(String),
    /// Something a policy cannot have.
    Absent(String),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooMuch(what) | Self::Absent(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for Refusal {}

/// A hash over parts that cannot run into each other.
pub(crate) fn seed(purpose: &str, parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in [b"countersign-policy-seed-v1", purpose.as_bytes()].iter().chain(parts) {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

/// Independent streams from one seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    Secure,
    Insecure,
    InsecureSeed,
}

/// The state behind one store.
pub(crate) struct Guest {
    pub(crate) memory: Memory,
    clock: Timestamp,
    seed: [u8; 32],
    drawn: [u64; 3],
    host_calls: u32,
    handles: u32,
    log: Vec<LogLine>,
    stderr: Vec<u8>,
}

impl Guest {
    /// Before `evaluate`: the clock is at zero.
    pub(crate) fn new(memory_limit: usize, seed: [u8; 32]) -> Self {
        Self {
            memory: Memory { limit: memory_limit, used: 0, before: 0, refused: false },
            clock: Timestamp::from_millis(0),
            seed,
            drawn: [0; 3],
            host_calls: 0,
            handles: 0,
            log: Vec::new(),
            stderr: Vec::new(),
        }
    }

    /// From here on the policy sees the decision's clock and randomness; what `configure` logged and
    /// printed is dropped, and everything that is counted is counted anew. Whether `configure` ran in
    /// this instance or in the one it is a snapshot of must not be visible in anything recorded.
    pub(crate) fn begin_evaluate(&mut self, at: Timestamp, seed: [u8; 32]) {
        self.clock = at;
        self.seed = seed;
        self.drawn = [0; 3];
        self.host_calls = 0;
        self.log.clear();
        self.stderr.clear();
        self.memory.refused = false;
    }

    /// A handle of the host's was given out.
    pub(crate) fn hand_out(&mut self) {
        self.handles = self.handles.saturating_add(1);
    }

    /// Handles the instance was ever given. They are not part of its memory, and nor is the order in which
    /// their numbers are used again.
    pub(crate) fn handles(&self) -> u32 {
        self.handles
    }

    pub(crate) fn take_log(&mut self) -> Vec<LogLine> {
        std::mem::take(&mut self.log)
    }

    /// What it printed before it died, made fit for one line of text.
    pub(crate) fn last_words(&self) -> String {
        let text = String::from_utf8_lossy(&self.stderr);
        let words = text.split(|c: char| c.is_control() || c == ' ').filter(|w| !w.is_empty());
        words.collect::<Vec<_>>().join(" ")
    }

    /// The clock every WASI clock shows.
    pub(crate) fn clock(&self) -> Timestamp {
        self.clock
    }

    /// Counts a call of an import.
    pub(crate) fn called(&mut self) -> Result<(), Refusal> {
        self.host_calls = self.host_calls.saturating_add(1);
        if self.host_calls > HOST_CALLS {
            return Err(Refusal::TooMuch(format!("more than {HOST_CALLS} calls to the host")));
        }
        Ok(())
    }

    /// The next `len` bytes of a stream.
    pub(crate) fn random(&mut self, stream: Stream, len: u64) -> Result<Vec<u8>, Refusal> {
        if len > RANDOM_BYTES {
            return Err(Refusal::TooMuch(format!("more than {RANDOM_BYTES} random bytes at once")));
        }
        let mut bytes = Vec::with_capacity(len as usize);
        while (bytes.len() as u64) < len {
            bytes.extend(self.block(stream));
        }
        bytes.truncate(len as usize);
        Ok(bytes)
    }

    /// The next number of a stream.
    pub(crate) fn random_u64(&mut self, stream: Stream) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.block(stream);
        u64::from_le_bytes([a, b, c, d, e, f, g, h])
    }

    fn block(&mut self, stream: Stream) -> [u8; 32] {
        let (name, drawn) = match (stream, &mut self.drawn) {
            (Stream::Secure, [n, _, _]) => ("secure", n),
            (Stream::Insecure, [_, n, _]) => ("insecure", n),
            (Stream::InsecureSeed, [_, _, n]) => ("insecure-seed", n),
        };
        *drawn = drawn.saturating_add(1);
        seed(name, &[&self.seed, &drawn.to_be_bytes()])
    }

    /// Keeps the beginning of what goes to standard error.
    pub(crate) fn print_error(&mut self, bytes: &[u8]) {
        let room = STDERR_BYTES.saturating_sub(self.stderr.len());
        self.stderr.extend(bytes.iter().take(room));
    }
}

impl types::Host for Guest {}

impl log::Host for Guest {
    fn log(&mut self, level: log::Level, message: String) -> wasmtime::Result<()> {
        self.called()?;
        if self.log.len() >= LOG_LINES {
            return Err(Refusal::TooMuch(format!("more than {LOG_LINES} log lines")).into());
        }
        if message.len() > LOG_LINE_BYTES {
            return Err(Refusal::TooMuch(format!("a log line above {LOG_LINE_BYTES} bytes")).into());
        }
        let level = match level {
            log::Level::Debug => "debug",
            log::Level::Info => "info",
            log::Level::Warn => "warn",
            log::Level::Error => "error",
        };
        self.log.push(LogLine { level: level.to_owned(), message });
        Ok(())
    }
}

/// Linear memory over all memories of the instance, against one limit.
pub(crate) struct Memory {
    limit: usize,
    used: usize,
    /// What was used before the growth that was allowed last.
    before: usize,
    /// A growth was refused: worth saying when the policy then traps.
    pub(crate) refused: bool,
}

impl Memory {
    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// Bytes of linear memory the instance has.
    pub(crate) fn used(&self) -> usize {
        self.used
    }
}

impl ResourceLimiter for Memory {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        let used = self.used.saturating_sub(current).saturating_add(desired);
        let fits = used <= self.limit && maximum.is_none_or(|maximum| desired <= maximum);
        if fits {
            self.before = self.used;
            self.used = used;
        } else {
            self.refused = true;
        }
        Ok(fits)
    }

    /// What was counted and did not happen is not used: an instance and its snapshot must count alike.
    fn memory_grow_failed(&mut self, _: wasmtime::Error) -> wasmtime::Result<()> {
        self.used = self.before;
        self.refused = true;
        Ok(())
    }

    fn table_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        Ok(desired <= 60_000)
    }

    fn instances(&self) -> usize {
        64
    }

    fn tables(&self) -> usize {
        32
    }

    fn memories(&self) -> usize {
        16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guest() -> Guest {
        Guest::new(1 << 20, [7; 32])
    }

    #[test]
    fn streams_are_deterministic_and_independent() {
        let draw = |guest: &mut Guest, s| guest.random(s, 100).unwrap();
        let (mut a, mut b) = (guest(), guest());
        let first = draw(&mut a, Stream::Secure);
        assert_eq!(first.len(), 100);
        draw(&mut b, Stream::Insecure);
        assert_eq!(first, draw(&mut b, Stream::Secure), "another stream does not disturb this one");
        assert_ne!(first, draw(&mut a, Stream::Secure), "a stream moves on");
        assert_ne!(first, draw(&mut guest(), Stream::Insecure));
        assert!(a.random(Stream::Secure, u64::MAX).is_err());
    }

    #[test]
    fn evaluate_starts_every_stream_and_count_anew() {
        let (mut a, mut b) = (guest(), guest());
        a.random(Stream::Secure, 5).unwrap();
        while a.called().is_ok() {}
        a.begin_evaluate(Timestamp::from_millis(9), [1; 32]);
        b.begin_evaluate(Timestamp::from_millis(9), [1; 32]);
        assert!(a.called().is_ok());
        assert_eq!(a.random_u64(Stream::Secure), b.random_u64(Stream::Secure));
        assert_eq!(a.clock().as_millis(), 9);
    }

    #[test]
    fn parts_of_a_seed_cannot_run_into_each_other() {
        assert_ne!(seed("x", &[b"ab", b"c"]), seed("x", &[b"a", b"bc"]));
    }

    #[test]
    fn memory_is_counted_over_all_memories() {
        let mut memory = Memory { limit: 100, used: 0, before: 0, refused: false };
        assert!(memory.memory_growing(0, 60, None).unwrap());
        assert!(!memory.memory_growing(0, 60, None).unwrap(), "a second memory");
        assert!(memory.refused);
        assert!(memory.memory_growing(60, 100, None).unwrap());
    }

    #[test]
    fn a_growth_that_does_not_happen_is_not_counted() {
        let mut memory = Memory { limit: 100, used: 0, before: 0, refused: false };
        assert!(memory.memory_growing(0, 10, Some(20)).unwrap());
        assert!(!memory.memory_growing(10, 30, Some(20)).unwrap(), "beyond its own maximum");
        assert_eq!(memory.used(), 10);
        assert!(memory.memory_growing(10, 20, Some(20)).unwrap());
        memory.memory_grow_failed(wasmtime::Error::msg("no room")).unwrap();
        assert_eq!(memory.used(), 10);
    }

    #[test]
    fn last_words_are_one_bounded_line() {
        let mut guest = guest();
        guest.print_error(b"panicked at\n  x.rs:\x1b[1m ");
        assert_eq!(guest.last_words(), "panicked at x.rs: [1m");
        guest.print_error(&[b'a'; 10_000]);
        assert!(guest.last_words().len() <= STDERR_BYTES);
    }
}
