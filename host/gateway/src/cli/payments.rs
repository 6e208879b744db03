//! `countersign payments` and `countersign budgets`: the ledger, read beside a running gateway.

use clap::Subcommand;
use countersign_core::id::PaymentId;
use countersign_core::ledger::{Ledger, PaymentFilter};
use countersign_core::seams::Clock;
use serde_json::json;

use super::listing::{column, print};
use super::{Failure, Listing, Outcome, inspect, say};
use crate::clock::SystemClock;
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
}

pub(super) async fn run(command: Payments) -> Outcome {
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
