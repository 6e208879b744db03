//! While a purchase is made: its end, the caller's, or word that people are being waited for.

use std::pin::pin;
use std::sync::Arc;

use countersign_core::id::ApprovalId;
use rmcp::RoleServer;
use rmcp::model::ProgressNotificationParam;
use rmcp::service::RequestContext;
use tokio::sync::watch;

use crate::problem::{Code, Problem};
use crate::state::Gateway;

/// How often somebody who waits is told so, in milliseconds.
const PROGRESS_MS: u64 = 3_000;

/// Waits for `bought` and tells the client meanwhile how it goes. `patience` is how long the call may wait for people,
/// in seconds.
pub(super) async fn finish<T>(
    gateway: &Arc<Gateway>,
    context: &RequestContext<RoleServer>,
    bought: impl Future<Output = Result<T, Problem>>,
    waiting: watch::Receiver<Option<ApprovalId>>,
    patience: u32,
) -> Result<T, Problem> {
    tokio::select! {
        bought = pin!(bought) => bought,
        // Only the answer is dropped: the purchase goes on in its own task and is found by its id.
        () = context.ct.cancelled() => {
            let detail = "the call was cancelled; what was signed stays signed: ask again with the same purchase_id";
            Err(Problem::new(Code::OutcomeUnknown, detail))
        }
        () = tell_progress(gateway, context, waiting, patience) => {
            Err(Problem::new(Code::Overloaded, "nobody waits any more"))
        }
    }
}

/// Tells the client, again and again, that people are being waited for. Never ends.
async fn tell_progress(
    gateway: &Arc<Gateway>,
    context: &RequestContext<RoleServer>,
    mut waiting: watch::Receiver<Option<ApprovalId>>,
    patience: u32,
) {
    let asked = waiting.wait_for(Option::is_some).await.ok().and_then(|asked| *asked);
    let (Some(token), Some(approval)) = (context.meta.get_progress_token(), asked) else {
        return std::future::pending().await;
    };
    let mut waited: u32 = 0;
    loop {
        let note = ProgressNotificationParam::new(token.clone(), f64::from(waited))
            .with_total(f64::from(patience))
            .with_message(format!("a person must approve this purchase: approval {approval}"));
        if let Err(error) = context.peer.notify_progress(note).await {
            tracing::debug!(%error, "nobody hears how the call goes");
        }
        gateway.clock.sleep(PROGRESS_MS).await;
        waited = waited.saturating_add(u32::try_from(PROGRESS_MS / 1_000).unwrap_or(1));
    }
}
