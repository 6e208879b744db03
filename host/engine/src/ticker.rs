//! The thread that moves time forward for running policies.
//!
//! An operating-system thread, not a task: a runtime that is saturated must not be able to stop the
//! clock that is meant to stop what saturates it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::config::EngineError;

/// One epoch is one millisecond; deadlines are counted in epochs.
const TICK: Duration = Duration::from_millis(1);

pub(crate) struct Ticker {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    /// Starts ticking. The thread holds only a weak handle and ends with the engine.
    pub(crate) fn start(engine: &wasmtime::Engine) -> Result<Self, EngineError> {
        let stop = Arc::new(AtomicBool::new(false));
        let weak = engine.weak();
        let told = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("policy-epochs".to_owned())
            .spawn(move || {
                while !told.load(Ordering::Acquire) {
                    std::thread::park_timeout(TICK);
                    let Some(engine) = weak.upgrade() else { break };
                    engine.increment_epoch();
                }
            })
            .map_err(|e| EngineError::Thread(e.to_string()))?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // The thread runs nothing that can panic, and there is nobody left to tell.
            drop(thread.join());
        }
    }
}
