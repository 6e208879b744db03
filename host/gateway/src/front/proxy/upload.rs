//! What a client uploads: kept whole if it is small enough to be sent again with a payment, else passed on as it
//! comes, once.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::BodyExt;
use http_body_util::channel::{Channel, Sender};
use hyper::body::{Body as _, Incoming};
use tokio::sync::oneshot;

use super::bad;
use crate::egress::{Body, CallError};
use crate::front::BODY_MS;
use crate::problem::Problem;
use crate::state::Gateway;

/// A client's upload.
pub(super) enum Upload {
    /// All of it.
    Whole(Bytes),
    /// More than is kept, and how much in all if the client said.
    Larger(Partly, Option<u64>),
}

/// What was read of an upload, and the rest of it.
pub(super) struct Partly {
    read: Vec<Bytes>,
    rest: Incoming,
}

/// Reads an upload, of which at most `limit` bytes are kept.
pub(super) async fn read(gateway: &Gateway, body: Incoming, limit: u64) -> Result<Upload, Problem> {
    let said = body.size_hint().exact();
    if said.is_some_and(|length| length > limit) {
        return Ok(Upload::Larger(Partly { read: Vec::new(), rest: body }, said));
    }
    tokio::select! {
        collected = collect(body, limit) => collected,
        () = gateway.clock.sleep(BODY_MS) => {
            Err(bad(format!("the request's body did not arrive within {} seconds", BODY_MS / 1_000)))
        }
    }
}

async fn collect(mut body: Incoming, limit: u64) -> Result<Upload, Problem> {
    let (mut read, mut size) = (Vec::new(), 0_u64);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| bad("the request's body did not arrive whole"))?;
        let Ok(data) = frame.into_data() else { continue };
        size = size.saturating_add(u64::try_from(data.len()).unwrap_or(u64::MAX));
        read.push(data);
        if size > limit {
            return Ok(Upload::Larger(Partly { read, rest: body }, None));
        }
    }
    Ok(Upload::Whole(read.concat().into()))
}

/// Passes an upload on while both sides move, for at most `longest` milliseconds; the second ends when it has.
pub(super) fn pump(gateway: &Arc<Gateway>, body: Partly, longest: u64) -> (Body, oneshot::Receiver<()>) {
    let (sender, channel) = Channel::new(4);
    let (done, uploaded) = oneshot::channel();
    let gateway = Arc::clone(gateway);
    tokio::spawn(async move {
        let mut sender = sender;
        let carried = tokio::select! {
            carried = carry(&gateway, body, &mut sender) => carried,
            () = gateway.clock.sleep(longest) => Err(CallError::Broken("the upload lasted too long".to_owned())),
        };
        // Only dropping the sender would look like the end of the upload.
        if let Err(error) = carried {
            sender.abort(error);
        }
        drop(done);
    });
    (channel.boxed_unsync(), uploaded)
}

async fn carry(gateway: &Gateway, body: Partly, sender: &mut Sender<Bytes, CallError>) -> Result<(), CallError> {
    let Partly { read, mut rest } = body;
    for data in read {
        pass_on(gateway, data, sender).await?;
    }
    while let Some(frame) = gateway.dialer.next_frame(&mut rest).await? {
        // Trailers do not pass.
        if let Ok(data) = frame.into_data() {
            pass_on(gateway, data, sender).await?;
        }
    }
    Ok(())
}

async fn pass_on(gateway: &Gateway, data: Bytes, sender: &mut Sender<Bytes, CallError>) -> Result<(), CallError> {
    match gateway.dialer.moving(sender.send_data(data)).await {
        Some(Ok(())) => Ok(()),
        _ => Err(CallError::Broken("the seller does not take the upload".to_owned())),
    }
}
