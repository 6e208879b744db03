//! Recorded decisions, asked again: replay and backtest.

mod backtest;
mod replay;

use std::sync::Arc;

use countersign_core::ledger::{Ledger, LedgerError, Past, PastDecision};
use countersign_engine::{Engine, EngineConfig, EngineError};

pub use backtest::{Backtest, Candidate, Lost, backtest, warm_from};
pub use replay::{Difference, Mismatch, Replay, replay};

/// Decisions in memory at once.
const PAGE: u32 = 200;
/// A recorded decision is judged again on whatever machine there is, however busy: only instructions
/// count, never the clock.
const PATIENCE_MS: u32 = 5_000;

/// The engine of a serving gateway, with the same limits, for judging again.
///
/// # Errors
/// When it cannot reserve what it needs.
pub fn engine() -> Result<Arc<Engine>, EngineError> {
    Engine::new(EngineConfig::default())
}

/// Recorded decisions, oldest first, a page at a time.
pub struct Stream<'a> {
    ledger: &'a dyn Ledger,
    next: Option<Past>,
}

impl<'a> Stream<'a> {
    /// From where to begin.
    #[must_use]
    pub const fn new(ledger: &'a dyn Ledger, which: Past) -> Self {
        Self { ledger, next: Some(which) }
    }

    /// The next page; empty at the end.
    ///
    /// # Errors
    /// When the ledger cannot be read, or a row of it means nothing.
    pub async fn page(&mut self) -> Result<Vec<PastDecision>, LedgerError> {
        let Some(which) = self.next.take() else { return Ok(Vec::new()) };
        let page = self.ledger.past(which, PAGE).await?;
        self.next = match (which, page.last()) {
            (Past::After(_), Some(last)) => Some(Past::After(last.record.id)),
            _ => None,
        };
        Ok(page)
    }
}
