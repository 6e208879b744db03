//! What a client uploads: kept whole if it is small enough to be sent again with a payment, else passed on as it
//! comes, once.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::BodyExt;
use http_body_util::channel::{Channel, Sender};
use hyper::body::{Body as _, Frame, Incoming};
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
        tokio::select! {
            () = carry(&gateway, body, sender) => {}
            () = gateway.clock.sleep(longest) => {}
        }
        drop(done);
    });
    (channel.boxed_unsync(), uploaded)
}

async fn carry(gateway: &Gateway, body: Partly, mut sender: Sender<Bytes, CallError>) {
    let dialer = &gateway.dialer;
    let Partly { read, mut rest } = body;
    for data in read {
        if !matches!(dialer.moving(sender.send_data(data)).await, Some(Ok(()))) {
            return sender.abort(CallError::Broken("the seller does not take the upload".to_owned()));
        }
    }
    loop {
        match dialer.next_frame(&mut rest).await.map(|frame| frame.map(Frame::into_data)) {
            Ok(Some(Ok(data))) => {
                if !matches!(dialer.moving(sender.send_data(data)).await, Some(Ok(()))) {
                    return sender.abort(CallError::Broken("the seller does not take the upload".to_owned()));
                }
            }
            Ok(Some(Err(_trailers))) => {}
            Ok(None) => return,
            Err(error) => return sender.abort(error),
        }
    }
}
