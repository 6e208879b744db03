//! Where compiling happens: two threads of low priority, so that no decision waits for the compiler
//! and no small policy waits for a large one.
//!
//! Each thread takes one job at a time: a folder full of new modules must not take every core.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};

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
struct Lane(Arc<Queue>);

#[derive(Default)]
struct Queue {
    jobs: Mutex<Jobs>,
    changed: Condvar,
}

#[derive(Default)]
struct Jobs {
    /// Somebody waits for these.
    awaited: VecDeque<Job>,
    /// Done when nobody waits.
    later: VecDeque<Job>,
    running: bool,
    stop: bool,
}

impl Compiler {
    pub(crate) fn start() -> Result<Self, EngineError> {
        let small = Lane::start("policy-compiler", SMALL_NICE)?;
        Ok(Self { small, large: Lane::start("policy-compiler-l", LARGE_NICE)? })
    }

    /// Does the job on the thread for modules of this size and waits for it. None: the job panicked.
    pub(crate) fn run<T: Send + 'static>(&self, size: usize, job: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let (answer, answered) = mpsc::channel();
        let job = move || {
            // Nobody listens only if the caller panicked.
            drop(answer.send(job()));
        };
        self.lane(size).0.change(|jobs| jobs.awaited.push_back(Box::new(job)));
        answered.recv().ok()
    }

    /// Does the job when nobody waits for another.
    pub(crate) fn later(&self, size: usize, job: impl FnOnce() + Send + 'static) {
        self.lane(size).0.change(|jobs| jobs.later.push_back(Box::new(job)));
    }

    /// Waits until nothing is left to do.
    pub(crate) fn settle(&self) {
        self.small.0.settle();
        self.large.0.settle();
    }

    fn lane(&self, size: usize) -> &Lane {
        if size > LARGE { &self.large } else { &self.small }
    }
}

impl Lane {
    fn start(name: &str, nice: i32) -> Result<Self, EngineError> {
        let queue = Arc::new(Queue::default());
        let own = Arc::clone(&queue);
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                // Linux counts niceness per thread. Without it compiling is only less polite.
                if let Err(error) = rustix::process::setpriority_process(Some(rustix::thread::gettid()), nice) {
                    tracing::debug!(%error, "the compiler thread keeps its priority");
                }
                own.work();
            })
            .map_err(|e| EngineError::Thread(e.to_string()))?;
        Ok(Self(queue))
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.0.change(|jobs| {
            jobs.stop = true;
            jobs.awaited.clear();
            jobs.later.clear();
        });
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Jobs> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Jobs)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    fn work(&self) {
        loop {
            let mut jobs = self.lock();
            jobs.running = false;
            self.changed.notify_all();
            let idle = |jobs: &mut Jobs| jobs.awaited.is_empty() && jobs.later.is_empty() && !jobs.stop;
            jobs = self.changed.wait_while(jobs, idle).unwrap_or_else(PoisonError::into_inner);
            let next = jobs.awaited.pop_front().or_else(|| jobs.later.pop_front());
            let Some(job) = next else { return };
            jobs.running = true;
            drop(jobs);
            // The compiler is not expected to panic; the caller sees a job without an answer.
            drop(catch_unwind(AssertUnwindSafe(job)));
        }
    }

    fn settle(&self) {
        let busy = |jobs: &mut Jobs| jobs.running || !jobs.awaited.is_empty() || !jobs.later.is_empty();
        drop(self.changed.wait_while(self.lock(), busy).unwrap_or_else(PoisonError::into_inner));
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

    #[test]
    fn what_somebody_waits_for_goes_first() {
        let compiler = Compiler::start().unwrap();
        let (go, wait) = mpsc::channel::<()>();
        let order = Arc::new(Mutex::new(Vec::new()));
        let note = |what: &'static str| {
            let order = Arc::clone(&order);
            move || order.lock().unwrap().push(what)
        };
        compiler.later(1, move || assert!(wait.recv().is_err()));
        compiler.later(1, note("later"));
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| compiler.run(1, note("awaited")));
            // Both are in the queue before the first is let go.
            while compiler.small.0.lock().awaited.is_empty() {
                std::thread::yield_now();
            }
            drop(go);
            waiter.join().unwrap();
        });
        compiler.settle();
        assert_eq!(*order.lock().unwrap(), ["awaited", "later"]);
    }
}
