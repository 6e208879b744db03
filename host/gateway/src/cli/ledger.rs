//! `countersign ledger`: the books and the records, read beside a running gateway.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use countersign_core::ledger::Ledger;

use super::{Common, Failure, Listing, Outcome, inspect, say};
use crate::{books, log, store};

/// The books and the records.
#[derive(Subcommand)]
pub(super) enum Books {
    /// Write every payment with what it was for and why it was allowed, or the records themselves.
    Export(Export),
    /// Check exported records from nothing but themselves and the log's key.
    Verify(Verify),
    /// The newest signed checkpoint of the records, to be kept somewhere else.
    Checkpoint(Listing),
}

#[derive(Args)]
pub(super) struct Export {
    #[command(flatten)]
    common: Common,
    /// csv, jsonl, beancount, hledger or focus; audit for the records that `verify` checks.
    #[arg(long)]
    format: String,
    /// Where to; standard output if not given. A file that exists is not overwritten.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Only payments in this state; may be repeated.
    #[arg(long)]
    state: Vec<String>,
    /// Only payments made from this moment on, such as 2026-11-01T00:00:00Z.
    #[arg(long)]
    since: Option<String>,
    /// Only payments made before this moment.
    #[arg(long)]
    until: Option<String>,
}

#[derive(Args)]
pub(super) struct Verify {
    /// What `ledger export --format audit` wrote, or `GET /v1/audit/proof` answered.
    export: PathBuf,
    /// The log's key, as `ledger checkpoint` and `GET /v1/audit/checkpoint` tell it, or a file that has it.
    #[arg(long)]
    key: String,
    /// An older checkpoint that was kept elsewhere: the records must extend it.
    #[arg(long)]
    checkpoint: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(command: Books) -> Outcome {
    match command {
        Books::Export(export) if export.format == "audit" => records(&export).await,
        Books::Export(export) => payments(&export).await,
        Books::Verify(verify) => check(&verify),
        Books::Checkpoint(listing) => checkpoint(&listing).await,
    }
}

/// Standard output, or a new file that only its owner can read.
fn open_out(path: Option<&Path>) -> Result<Box<dyn Write + Send>, Failure> {
    let Some(path) = path else { return Ok(Box::new(io::stdout())) };
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let file = file.map_err(|e| match e.kind() {
        io::ErrorKind::AlreadyExists => {
            Failure::new(format!("{} is there already", path.display())).hint("name another file, or remove it")
        }
        _ => Failure::new(format!("{}: {e}", path.display())),
    })?;
    Ok(Box::new(BufWriter::new(file)))
}

async fn payments(export: &Export) -> Outcome {
    let config = inspect(&export.common)?;
    let mut pairs = vec![("format".to_owned(), export.format.clone())];
    pairs.extend(export.state.iter().map(|state| ("state".to_owned(), state.clone())));
    pairs.extend(export.since.iter().map(|since| ("since".to_owned(), since.clone())));
    pairs.extend(export.until.iter().map(|until| ("until".to_owned(), until.clone())));
    let wanted = books::wanted(&pairs, &config.gateway.currency).map_err(Failure::new)?;
    let ledger = store::open_read_only(&config)?;
    let mut out = books::ToWriter(open_out(export.out.as_deref())?);
    let count = books::export(&ledger, wanted, &mut out).await?;
    out.0.flush()?;
    if let Some(path) = &export.out {
        say(format_args!("{count} payments looked through for {}", path.display()));
    }
    Ok(())
}
async fn records(_: &Export) -> Outcome { Ok(()) }
fn check(_: &Verify) -> Outcome { Ok(()) }
async fn checkpoint(_: &Listing) -> Outcome { Ok(()) }
