//! What operators can watch: metrics, and a trace of each purchase.
//!
//! Everything here is beside a purchase: it is counted and handed over, never waited for, and whatever goes
//! wrong here changes nothing about what is bought. No URL, query, body, token or signature is in any of it.
//!
//! | module | what it does |
//! | --- | --- |
//! | `catalog` | every metric by name |
//! | `metrics` | what is counted while the gateway works |
//! | `gather` | all metrics at one moment |
//! | `text` | as Prometheus reads them |
//! | `process` | what the system knows of this process |
//! | `trace`, `attributes`, `parent` | the trace of one call, and the caller's it belongs to |
//! | `otlp`, `export` | both to a receiver |

pub mod attributes;
pub mod catalog;
mod export;
mod gather;
mod metrics;
mod otlp;
mod process;
pub mod text;
mod trace;

use std::sync::OnceLock;

pub use countersign_wire::parent::{TRACEPARENT, TRACESTATE, TraceParent};
pub use export::{Exporter, Sink, headers};
pub use gather::{Known, gather};
pub use metrics::{Ended, Metrics, Reloaded, Signal, Step, Tried};
pub use otlp::Source;
pub use trace::{Open, Trace, What};

/// What operators can watch.
#[derive(Debug, Default)]
pub struct Telemetry {
    /// What is counted.
    pub metrics: Metrics,
    /// The ledger's figures as last read.
    pub figures: Known,
    /// Where traces go; nowhere, if no receiver is configured.
    pub sink: OnceLock<Sink>,
}
