//! Where compiling happens: threads of their own, so that no decision waits for the compiler, no small
//! policy for a large one, and nobody who waits for something that can be done later.
//!
//! Each thread takes one job at a time: a folder full of new modules must not take every core.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};

use crate::config::EngineError;

/// Modules above this many bytes are large: written in a language that brings its runtime along.
const LARGE: usize = 512 << 10;
/// Nice levels. A small module compiles in a tenth of a second, which a reload waits for: at a lower priority a
/// machine whose cores are all asked for would stretch it to half a minute, since a thread cannot be hurried later.
const SMALL_NICE: i32 = 0;
/// Seconds of work. Whoever put such a module expects to wait.
const LARGE_NICE: i32 = 10;
/// Policies serve without it.
const LATER_NICE: i32 = 15;

type Job = Box<dyn FnOnce() + Send>;

pub(crate) struct Compiler {
    small: Lanes,
    large: Lanes,
}

/// The threads for modules of one size.
struct Lanes {
    /// What somebody waits for.
    awaited: Lane,
    /// What makes later decisions cheaper.
    later: Lane,
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
    waiting: VecDeque<Job>,
    running: bool,
    stop: bool,
}

impl Compiler {
    pub(crate) fn start() -> Result<Self, EngineError> {
        let lanes = |awaited, later, nice| {
            Ok(Lanes { awaited: Lane::start(awaited, nice)?, later: Lane::start(later, LATER_NICE)? })
        };
        let small = lanes("compile-small", "snapshot-small", SMALL_NICE)?;
        Ok(Self { small, large: lanes("compile-large", "snapshot-large", LARGE_NICE)? })
    }

    /// Does the job on the thread for modules of this size and waits for it. None: the job panicked.
    pub(crate) fn run<T: Send + 'static>(&self, size: usize, job: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let (answer, answered) = mpsc::channel();
        let job = move || {
            // Nobody listens only if the caller panicked.
            drop(answer.send(job()));
        };
        self.lanes(size).awaited.0.change(|jobs| jobs.waiting.push_back(Box::new(job)));
        answered.recv().ok()
    }

    /// Does the job some time; nobody waits for it, and nobody who waits waits longer because of it.
    pub(crate) fn later(&self, size: usize, job: impl FnOnce() + Send + 'static) {
        self.lanes(size).later.0.change(|jobs| jobs.waiting.push_back(Box::new(job)));
    }

    /// Waits until nothing is left to do.
    pub(crate) fn settle(&self) {
        for lanes in [&self.small, &self.large] {
            lanes.awaited.0.settle();
            lanes.later.0.settle();
        }
    }

    fn lanes(&self, size: usize) -> &Lanes {
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
            jobs.waiting.clear();
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
            let idle = |jobs: &mut Jobs| jobs.waiting.is_empty() && !jobs.stop;
            jobs = self.changed.wait_while(jobs, idle).unwrap_or_else(PoisonError::into_inner);
            let Some(job) = jobs.waiting.pop_front() else { return };
            jobs.running = true;
            drop(jobs);
            // The compiler is not expected to panic; the caller sees a job without an answer.
            drop(catch_unwind(AssertUnwindSafe(job)));
        }
    }

    fn settle(&self) {
        let busy = |jobs: &mut Jobs| jobs.running || !jobs.waiting.is_empty();
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
    fn what_somebody_waits_for_does_not_wait_for_what_can_be_done_later() {
        let compiler = Compiler::start().unwrap();
        for size in [1, LARGE + 1] {
            let (go, wait) = mpsc::channel::<()>();
            compiler.later(size, move || assert!(wait.recv().is_err()));
            assert_eq!(compiler.run(size, || 1), Some(1));
            drop(go);
        }
        compiler.settle();
    }
}
