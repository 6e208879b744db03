//! `countersign ledger`: the books and the records, read beside a running gateway.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, Subcommand};
use countersign_audit::note::Checkpoint;
use countersign_audit::verify::{Verifier, checkpoint_line};
use countersign_books::reconcile as transfer_list;
use countersign_books::reconcile::Verdict;
use countersign_core::evm::Address;
use countersign_core::ledger::{KeptCheckpoint, Ledger};
use countersign_core::seams::Clock;
use countersign_core::time::Timestamp;
use countersign_core::x402::Network;
use serde_json::json;

use super::{Common, Failure, Listing, Outcome, inspect, say};
use crate::chain::Chain;
use crate::clock::SystemClock;
use crate::config::{Config, WalletKind};
use crate::{books, log, reconcile, store, wallet};

/// Records read at a time.
const PAGE: u32 = 1_000;
/// How far back a comparison reaches if nobody says, in milliseconds.
const MONTH_MS: u64 = 30 * 86_400_000;

/// The books and the records.
#[derive(Subcommand)]
pub(super) enum Books {
    /// Write every payment with what it was for and why it was allowed, or the records themselves.
    Export(Export),
    /// Check exported records from nothing but themselves and the log's key.
    Verify(Verify),
    /// The newest signed checkpoint of the records, to be kept somewhere else.
    Checkpoint {
        #[command(flatten)]
        listing: Listing,
        /// Print the public key that checks it instead.
        #[arg(long)]
        key: bool,
    },
    /// Compare payments with the chain, or with a list of transfers. Exits with 3 if something needs attention,
    /// with 4 if money moved that the ledger does not account for.
    Reconcile(Reconcile),
}

#[derive(Args)]
pub(super) struct Reconcile {
    #[command(flatten)]
    listing: Listing,
    /// A list of transfers (CSV or JSON) instead of the chain: network, asset, from, to, amount, transaction, log,
    /// block, time, and nonce where known.
    #[arg(long)]
    transfers: Option<PathBuf>,
    /// The list has every transfer of our wallets between its first and its last: what is not in it did not happen.
    #[arg(long, requires = "transfers")]
    complete: bool,
    /// Payments made from this moment on; the last 30 days if not given.
    #[arg(long)]
    since: Option<String>,
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
        Books::Checkpoint { listing, key } => checkpoint(&listing, key).await,
        Books::Reconcile(arguments) => match compare(&arguments).await? {
            Verdict::Clean => Ok(()),
            verdict => Err(Failure::silent(verdict.exit_code())),
        },
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
/// The records with the checkpoint that vouches for them. What was recorded after it is not in it.
async fn records(export: &Export) -> Outcome {
    if !export.state.is_empty() || export.since.is_some() || export.until.is_some() {
        return Err(Failure::new("the records are exported whole, or not at all")
            .hint("--state, --since and --until select payments; GET /v1/audit/proof shows single records"));
    }
    let config = inspect(&export.common)?;
    let ledger = store::open_read_only(&config)?;
    let KeptCheckpoint { size, note } = newest(&ledger).await?;
    let mut out = open_out(export.out.as_deref())?;
    let mut done = 0_u64;
    while done < size {
        let page = ledger.records(done, PAGE).await?;
        if page.is_empty() {
            return Err(Failure::new(format!("the ledger has {done} records, and its checkpoint is of {size}")));
        }
        for line in page {
            if done == size {
                break;
            }
            writeln!(out, "{line}")?;
            done = done.saturating_add(1);
        }
    }
    writeln!(out, "{}", checkpoint_line(&note))?;
    out.flush()?;
    if let Some(path) = &export.out {
        say(format_args!("{size} records in {}", path.display()));
    }
    Ok(())
}

async fn newest(ledger: &dyn Ledger) -> Result<KeptCheckpoint, Failure> {
    ledger.checkpoints(1).await?.into_iter().next().ok_or_else(|| {
        Failure::new("no checkpoint was signed yet").hint("`countersign serve` signs one within seconds of a record")
    })
}

fn check(verify: &Verify) -> Outcome {
    let key = log::verifier(&verify.key).map_err(|e| Failure::new(format!("--key: {e}")))?;
    let verifier = match &verify.checkpoint {
        None => Verifier::new(key),
        Some(path) => {
            let fail = |e: &dyn std::fmt::Display| Failure::new(format!("{}: {e}", path.display()));
            let note = std::fs::read_to_string(path).map_err(|e| fail(&e))?;
            let older = Checkpoint::open(&note, &key).map_err(|e| fail(&e))?;
            Verifier::since(key, older)
        }
    };
    let fail = |e: &dyn std::fmt::Display| Failure::new(format!("{}: {e}", verify.export.display()));
    let file = File::open(&verify.export).map_err(|e| fail(&e))?;
    let report = verifier.read(BufReader::new(file)).map_err(|e| fail(&e))?;
    let view = json!({
        "records": report.records, "partial": report.partial, "kinds": report.kinds,
        "payments": report.payments, "windows": report.windows, "continues": report.continues,
        "back": report.back.map(|(millis, record)| json!({"millis": millis, "record": record})),
        "checkpoint": {
            "origin": report.checkpoint.origin, "size": report.checkpoint.size, "root": hex::encode(report.checkpoint.root),
        },
    });
    if verify.json {
        say(format_args!("{view:#}"));
        return Ok(());
    }
    let (records, size) = (report.records, report.checkpoint.size);
    let what = if report.partial { format!("{records} of {size} records") } else { format!("{records} records") };
    say(format_args!(
        "ok: {what} about {} payments, as signed by {}; every transition and the arithmetic of {} budget windows hold",
        report.payments, report.checkpoint.origin, report.windows
    ));
    if report.continues {
        say("they continue the older checkpoint");
    }
    if let Some((millis, record)) = report.back {
        say(format_args!("note: record {record} is {millis} ms older than one before it: a clock was set back"));
    }
    Ok(())
}

async fn checkpoint(listing: &Listing, only_key: bool) -> Outcome {
    let config = inspect(&listing.common)?;
    let ledger = store::open_read_only(&config)?;
    let key = log::Log::existing(&config.ledger, ledger.store_id())?.verifier().to_string();
    if only_key {
        say(key);
        return Ok(());
    }
    let KeptCheckpoint { size, note } = newest(&ledger).await?;
    if listing.json {
        say(format_args!("{:#}", json!({"checkpoint": note, "size": size, "key": key})));
    } else {
        say(note.trim_end());
    }
    Ok(())
}

/// With the chain, or with a list that somebody else made of it.
async fn compare(arguments: &Reconcile) -> Result<Verdict, Failure> {
    let config = inspect(&arguments.listing.common)?;
    let ledger = store::open_read_only(&config)?;
    let now = SystemClock.now()?;
    let since = match &arguments.since {
        Some(text) => Timestamp::parse(text).ok_or_else(|| {
            Failure::new(format!("--since: {text:?} is no RFC 3339 moment, such as 2026-11-01T00:00:00Z"))
        })?,
        None => now.minus_millis(MONTH_MS),
    };
    let report = match &arguments.transfers {
        Some(path) => {
            let fail = |e: &dyn std::fmt::Display| Failure::new(format!("{}: {e}", path.display()));
            let text = std::fs::read_to_string(path).map_err(|e| fail(&e))?;
            let transfers = transfer_list::read(&text).map_err(|e| fail(&e))?;
            let payments = reconcile::payments(&ledger, since).await?;
            let rows: Vec<_> = payments.iter().filter_map(transfer_list::LedgerRow::of).collect();
            // A list says nothing of what is not in it, unless whoever made it says that it is whole.
            let coverage = if arguments.complete { covered(&transfers) } else { Vec::new() };
            transfer_list::reconcile(&rows, &transfers, &coverage, &[])
        }
        None => from_chain(&config, &ledger, since, now).await?,
    };
    if arguments.listing.json {
        say(format_args!("{:#}", report.json()))
    } else {
        say(report.text().trim_end())
    }
    Ok(report.verdict())
}

/// From the first to the last block of a list, by network.
fn covered(transfers: &[transfer_list::Transfer]) -> Vec<transfer_list::Coverage> {
    let mut spans: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for transfer in transfers {
        let span = spans.entry(&transfer.network).or_insert((transfer.time, transfer.time));
        *span = (span.0.min(transfer.time), span.1.max(transfer.time));
    }
    let one =
        |(network, (from, until)): (&str, _)| transfer_list::Coverage { network: network.to_owned(), from, until };
    spans.into_iter().map(one).collect()
}

async fn from_chain(
    config: &Config,
    ledger: &dyn Ledger,
    since: Timestamp,
    now: Timestamp,
) -> Result<transfer_list::Report, Failure> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let tls = crate::egress::tls();
    let mut payers: BTreeMap<Network, BTreeSet<Address>> = BTreeMap::new();
    // Whoever ever paid, not only lately.
    let ever = reconcile::payments(ledger, Timestamp::default()).await?;
    for authorization in ever.iter().filter_map(|payment| payment.authorization.as_ref()) {
        payers.entry(authorization.offer.network).or_default().insert(authorization.from);
    }
    for wallet in config.wallets.values() {
        if let WalletKind::Keystore { path, .. } = &wallet.kind
            && let Some(address) = wallet::address_in(path)
        {
            wallet.networks.iter().for_each(|network| {
                payers.entry(*network).or_default().insert(address);
            });
        }
    }
    let mut chains = Vec::new();
    for (network, nodes) in &config.networks {
        if let Some(chain) = Chain::new(*network, nodes, &tls, &clock)? {
            let anchor = chain.reader.anchor().await?;
            chains.push((Arc::new(chain), anchor));
        }
    }
    if chains.is_empty() {
        return Err(Failure::new("no network of this configuration has a node to ask")
            .hint("set rpc under [network.\"…\"], or give a list with --transfers"));
    }
    for (chain, _) in &chains {
        let network = chain.reader.network();
        let used = config.wallets.values().any(|wallet| wallet.networks.contains(&network));
        if used && !payers.contains_key(&network) {
            // "Clean" would be said of nothing.
            return Err(Failure::new(format!(
                "no address of ours on {network} is known, so nothing was compared there"
            ))
            .hint("a running gateway knows its wallets: POST /v1/reconcile"));
        }
    }
    let unconfirmed = reconcile::Unconfirmed::default();
    let subject = reconcile::Subject { ledger, assets: &config.assets, payers, since, unconfirmed: &unconfirmed };
    let compared = reconcile::compare(&subject, &chains, now).await?;
    if compared.problems.is_empty() {
        return Ok(compared.report);
    }
    Err(Failure::new(format!("not everything could be compared: {}", compared.problems.join("; "))))
}
