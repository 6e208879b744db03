//! `countersign payments` and `countersign budgets`: the ledger, read beside a running gateway.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Subcommand;
use countersign_core::id::PaymentId;
use countersign_core::ledger::{Ledger, PaymentFilter};
use countersign_core::seams::Clock;
use http::Method;
use serde_json::{Value, json};

use super::admin::{Client, NotRunning};
use super::approvals::speaker;
use super::listing::{column, print};
use super::{Failure, Listing, Outcome, Remote, explain, inspect, say};
use crate::clock::SystemClock;
use crate::config::Environment;
use crate::front::after;
use crate::store;
use crate::views::{self, Viewer};

/// Payments in the ledger.
#[derive(Subcommand)]
pub(super) enum Payments {
    /// The newest payments.
    List {
        #[command(flatten)]
        listing: Listing,
        /// How many.
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=500))]
        limit: u32,
    },
    /// Everything about one payment.
    Show {
        #[command(flatten)]
        listing: Listing,
        /// Its id, `pay_…`.
        id: String,
    },
    /// What happened and why, in words, with what shows it.
    Explain {
        #[command(flatten)]
        listing: Listing,
        /// Its id, `pay_…`.
        id: String,
    },
    /// Sign that an open payment must never be redeemed, and print the transaction that says so to the token. Anybody
    /// may send it; nothing is freed before a final block shows it. Needs the running gateway, which has the key.
    Cancel {
        #[command(flatten)]
        remote: Remote,
        /// Its id, `pay_…`.
        id: String,
        /// Why.
        #[arg(long)]
        why: String,
    },
    /// Book money that came back by another way than the chain. No budget is given back for it.
    Refund {
        #[command(flatten)]
        remote: Remote,
        /// Its id, `pay_…`.
        id: String,
        /// How much, in whole units of the paid asset, such as 0.001.
        #[arg(long)]
        amount: String,
        /// What names the refund, such as a credit note's number: booked once.
        #[arg(long)]
        reference: String,
    },
    /// Contest a settled payment.
    Dispute {
        #[command(flatten)]
        remote: Remote,
        /// Its id, `pay_…`.
        id: String,
        /// Why.
        #[arg(long)]
        why: String,
        /// A file that shows it; it is kept, and its digest recorded.
        #[arg(long)]
        evidence: Option<PathBuf>,
    },
    /// End a dispute: the payment is then what its refunds say.
    EndDispute {
        #[command(flatten)]
        remote: Remote,
        /// Its id, `pay_…`.
        id: String,
        /// Why.
        #[arg(long)]
        why: String,
    },
}

pub(super) async fn run(command: Payments, environment: &Environment) -> Outcome {
    match command {
        Payments::List { listing, limit } => {
            let config = inspect(&listing.common)?;
            let ledger = store::open_read_only(&config)?;
            let found = ledger.payments(PaymentFilter { limit, ..Default::default() }).await?;
            let items: Vec<_> = found.iter().map(|p| views::payment(p, Viewer::Operator, &config)).collect();
            let columns = [
                column("ID", "/id"),
                column("CREATED", "/created_at"),
                column("STATE", "/state"),
                column("AMOUNT", "/amount/value"),
                column("AGENT", "/agent"),
                column("SELLER", "/seller/host"),
                column("CODE", "/code"),
            ];
            print(listing.json, &json!({"items": items, "next": null}), &columns);
        }
        Payments::Show { listing, id } => {
            let id: PaymentId = id.parse().map_err(|e| Failure::new(format!("{id}: {e}")))?;
            let config = inspect(&listing.common)?;
            let ledger = store::open_read_only(&config)?;
            let found = ledger.payment(id).await?;
            let payment = found.ok_or_else(|| Failure::new(format!("the ledger has no payment {id}")))?;
            say(format_args!("{:#}", views::payment(&payment, Viewer::Operator, &config)));
        }
        Payments::Explain { listing, id } => explain::run(&listing, &id).await?,
        Payments::Cancel { remote, id, why } => cancel(&remote, environment, &id, &why).await?,
        Payments::Refund { remote, id, amount, reference } => {
            let body = json!({"amount": amount, "reference": reference});
            change(&remote, environment, &id, Change::Refund, body).await?;
        }
        Payments::Dispute { remote, id, why, evidence } => {
            let file = evidence.map(|path| std::fs::read(&path).map_err(|e| unreadable(&path, &e))).transpose()?;
            let body = json!({"why": why, "evidence_base64": STANDARD.encode(file.unwrap_or_default())});
            change(&remote, environment, &id, Change::Dispute, body).await?;
        }
        Payments::EndDispute { remote, id, why } => {
            change(&remote, environment, &id, Change::EndDispute, json!({"why": why})).await?;
        }
    }
    Ok(())
}

fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(format!("{}: {error}", path.display()))
}

async fn cancel(remote: &Remote, environment: &Environment, id: &str, why: &str) -> Outcome {
    let id: PaymentId = id.parse().map_err(|e| Failure::new(format!("{id}: {e}")))?;
    let client = Client::new(remote, environment)?;
    let path = format!("/v1/payments/{id}/cancel");
    let answer = client.call(Method::POST, &path, Some(json!({"why": why}))).await?;
    let signed = answer.map_err(|NotRunning(why)| Failure::new(why))?;
    if remote.listing.json {
        say(format_args!("{signed:#}"));
        return Ok(());
    }
    let text = |name: &str| signed.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    say(format_args!(
        "Send this transaction on {} before {}, from any account that pays for it:\n  to    {}\n  data  {}",
        text("network"),
        text("valid_before"),
        text("to"),
        text("data")
    ));
    say(format_args!("{id} is failed, and its hold given back, once a final block shows it."));
    Ok(())
}

/// What is said of a payment after it was made.
#[derive(Clone, Copy)]
enum Change {
    Refund,
    Dispute,
    EndDispute,
}

/// Through the running gateway, or under the ledger's own lock without one.
async fn change(remote: &Remote, environment: &Environment, id: &str, change: Change, body: Value) -> Outcome {
    let id: PaymentId = id.parse().map_err(|e| Failure::new(format!("{id}: {e}")))?;
    let what = match change {
        Change::Refund => "refunds",
        Change::Dispute => "dispute",
        Change::EndDispute => "dispute/end",
    };
    let client = Client::new(remote, environment)?;
    let path = format!("/v1/payments/{id}/{what}");
    let answer = match client.call(Method::POST, &path, Some(body.clone())).await? {
        Ok(answer) => answer,
        Err(NotRunning(why)) if remote.admin.is_some() => return Err(Failure::new(why)),
        Err(NotRunning(_)) => {
            let config = inspect(&remote.listing.common)?;
            let (by, _) = speaker(&config, environment)?;
            let ledger = store::open(&config, SystemClock.now()?)?;
            let desk = after::Desk { ledger: &ledger, clock: &SystemClock, by: &by };
            let body = body.to_string();
            let changed = match change {
                Change::Refund => after::refund(desk, id, body.as_bytes()).await,
                Change::Dispute => after::dispute(desk, id, body.as_bytes()).await,
                Change::EndDispute => after::end_dispute(desk, id, body.as_bytes()).await,
            };
            let payment = changed.map_err(|problem| Failure::new(problem.detail))?;
            views::payment(&payment, Viewer::Operator, &config)
        }
    };
    if remote.listing.json {
        say(format_args!("{answer:#}"));
    } else {
        say(format_args!("{id} is {}", answer.get("state").and_then(Value::as_str).unwrap_or("unknown")));
    }
    Ok(())
}

pub(super) async fn budgets(listing: &Listing) -> Outcome {
    let config = inspect(&listing.common)?;
    let ledger = store::open_read_only(&config)?;
    let now = SystemClock.now()?;
    let list = views::budgets(&ledger.budgets(now).await?, &config, Viewer::Operator, now);
    let columns = [
        column("BUDGET", "/budget"),
        column("WINDOW", "/window"),
        column("LIMIT", "/limit"),
        column("HELD", "/held"),
        column("SPENT", "/spent"),
        column("AVAILABLE", "/available"),
        column("UNIT", "/unit"),
    ];
    print(listing.json, &list, &columns);
    Ok(())
}
