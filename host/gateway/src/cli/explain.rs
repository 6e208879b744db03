//! `countersign payments explain`: one payment's story, with what shows each sentence.

use countersign_books::Entry;
use countersign_books::explain::Story;
use countersign_core::id::PaymentId;
use countersign_core::ledger::Ledger;

use super::{Failure, Listing, Outcome, inspect, say};
use crate::store;

pub(super) async fn run(listing: &Listing, id: &str) -> Outcome {
    let id: PaymentId = id.parse().map_err(|e| Failure::new(format!("{id}: {e}")))?;
    let config = inspect(&listing.common)?;
    let ledger = store::open_read_only(&config)?;
    let found = ledger.payment(id).await?;
    let payment = found.ok_or_else(|| Failure::new(format!("the ledger has no payment {id}")))?;
    let approval = match payment.approval {
        Some(approval) => ledger.approval(approval).await?,
        None => None,
    };
    let record = ledger.records_of(id).await?.first().copied();
    let story = Story::of(&Entry { payment: &payment, approval: approval.as_ref(), record }, &config.gateway.currency);
    if listing.json {
        say(format_args!("{:#}", story.json()))
    } else {
        say(story.text().trim_end())
    }
    Ok(())
}
