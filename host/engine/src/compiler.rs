//! Where compiling happens: two threads of low priority, so that no decision waits for the compiler
//! and no small policy waits for a large one.
//!
//! Each thread takes one job at a time: a folder full of new modules must not take every core.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::config::EngineError;

/// Modules above this many bytes are large: written in a language that brings its runtime along.
const LARGE: usize = 512 << 10;
/// Nice levels. A small module compiles in a tenth of a second; nobody waits for a large one.
const SMALL_NICE: i32 = 5;
const LARGE_NICE: i32 = 15;

type Job = Box<dyn FnOnce() + Send>;

pub(crate) struct Compiler {
    small: Lane,
    large: Lane,
}

/// One thread and what waits for it. The thread ends when its lane does; it is not waited for, since
/// what it is compiling may take seconds and matters to nobody any more.
struct Lane {
    jobs: Sender<Job>,
    waiting: Arc<Waiting>,
}

#[derive(Default)]
struct Waiting {
    count: Mutex<usize>,
    none: Condvar,
    stop: AtomicBool,
}

impl Compiler {
    pub(crate) fn start() -> Result<Self, EngineError> {
        Ok(Self {
            small: Lane::start("policy-compiler", SMALL_NICE)?,
            large: Lane::start("policy-compiler-l", LARGE_NICE)?,
        })
    }

    /// Does the job on the thread for modules of this size and waits for it. None: the job panicked.
    pub(crate) fn run<T: Send + 'static>(&self, size: usize, job: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let (answer, answered) = mpsc::channel();
        self.later(size, move || {
            // Nobody listens only if the caller panicked.
            drop(answer.send(job()));
        });
        answered.recv().ok()
    }

    /// Does the job some time.
    pub(crate) fn later(&self, size: usize, job: impl FnOnce() + Send + 'static) {
        let lane = if size > LARGE { &self.large } else { &self.small };
        lane.send(Box::new(job));
    }

    /// Waits until nothing is left to do.
    pub(crate) fn settle(&self) {
        self.small.waiting.settle();
        self.large.waiting.settle();
    }
}

impl Lane {
    fn start(name: &str, nice: i32) -> Result<Self, EngineError> {
        let (jobs, queue) = mpsc::channel::<Job>();
        let waiting = Arc::new(Waiting::default());
        let done = Arc::clone(&waiting);
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                // Linux counts niceness per thread. Without it compiling is only less polite.
                if let Err(error) = rustix::process::setpriority_process(Some(rustix::thread::gettid()), nice) {
                    tracing::debug!(%error, "the compiler thread keeps its priority");
                }
                for job in queue {
                    if !done.stop.load(Ordering::Acquire) {
                        // The compiler is not expected to panic; the caller sees a job without an answer.
                        drop(catch_unwind(AssertUnwindSafe(job)));
                    }
                    done.finished();
                }
            })
            .map_err(|e| EngineError::Thread(e.to_string()))?;
        Ok(Self { jobs, waiting })
    }

    fn send(&self, job: Job) {
        self.waiting.began();
        if self.jobs.send(job).is_err() {
            self.waiting.finished();
        }
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.waiting.stop.store(true, Ordering::Release);
    }
}

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, usize> {
        self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn began(&self) {
        let mut count = self.lock();
        *count = count.saturating_add(1);
    }

    fn finished(&self) {
        let mut count = self.lock();
        *count = count.saturating_sub(1);
        if *count == 0 {
            self.none.notify_all();
        }
    }

    fn settle(&self) {
        drop(self.none.wait_while(self.lock(), |count| *count > 0).unwrap_or_else(PoisonError::into_inner));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_and_survives_a_job_that_panics() {
        let compiler = Compiler::start().unwrap();
        assert_eq!(compiler.run(1, || 7), Some(7));
        assert_eq!(compiler.run(1, || -> u8 { panic!("seeded") }), None);
        assert_eq!(compiler.run(LARGE + 1, || 8), Some(8));
        compiler.settle();
    }

    #[test]
    fn a_small_job_does_not_wait_for_a_large_one() {
        let compiler = Compiler::start().unwrap();
        let (go, wait) = mpsc::channel::<()>();
        compiler.later(LARGE + 1, move || assert!(wait.recv().is_err()));
        assert_eq!(compiler.run(LARGE, || 1), Some(1));
        drop(go);
        compiler.settle();
    }
}
