//! Logs: one span tree per purchase, as JSON lines or for people, on standard error.

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

use super::Failure;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For programs.
    Json,
    /// For people.
    #[default]
    Pretty,
}

/// Starts logging.
pub(super) fn start(format: Format) -> Result<(), Failure> {
    let filter =
        EnvFilter::try_new("info,hyper=warn,notify=warn,rmcp=warn").map_err(|e| Failure::new(e.to_string()))?;
    // A span's line is written when it closes: it carries its parents and how long it took.
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_span_events(FmtSpan::CLOSE)
        .with_target(false);
    let started = match format {
        Format::Json => builder.json().with_current_span(true).with_span_list(true).try_init(),
        Format::Pretty => builder.compact().try_init(),
    };
    started.map_err(|e| Failure::new(format!("logging cannot start: {e}")))
}
