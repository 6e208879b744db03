//! The answer on its way back: the seller's, filtered, streamed, and kept.

use std::sync::Arc;

use bytes::Bytes;
use countersign_core::id::PaymentId;
use countersign_core::ledger::{Answer, Fut, PaymentFacts, PaymentView};
use countersign_core::payment::State;
use countersign_core::seams::Clock;
use countersign_core::web::dropped_response_header;
use http::header::{CACHE_CONTROL, CONNECTION};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use http_body_util::channel::{Channel, Sender};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use tokio::sync::OwnedMutexGuard;
use tracing::{Instrument, info_span};

use crate::admission::Place;
pub use crate::egress::Body;
use crate::egress::{CallError, Dialer};
use crate::flights::Flight;
use crate::problem::{Code, Problem};
use crate::state::Gateway;
use crate::telemetry::Open;

/// A body that is already here.
#[must_use]
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// An answer for the agent.
#[derive(Debug)]
pub struct Reply {
    /// The seller's status.
    pub status: StatusCode,
    /// The seller's headers, filtered, and ours.
    pub headers: HeaderMap,
    /// The seller's body.
    pub body: Body,
}

impl Reply {
    /// Adds the purchase's name.
    #[must_use]
    pub fn with_purchase(mut self, id: &str) -> Self {
        self.set("countersign-purchase", id);
        self
    }

    /// A seller's answer to a payment, without its body yet, and what the agent is told about it.
    #[must_use]
    pub fn paid(
        status: StatusCode,
        headers: HeaderMap,
        id: PaymentId,
        facts: &PaymentFacts,
        state: State,
        currency: &str,
    ) -> Self {
        let mut reply = Self { status, headers, body: full(Bytes::new()) };
        reply.keep_out_of_caches();
        reply.tell(id, facts, state, currency);
        reply
    }

    /// Who has paid has paid for itself: no cache between it and us may give this answer to others, whatever the seller says.
    fn keep_out_of_caches(&mut self) {
        let stored = self.headers.get_all(CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
        let never = stored.flat_map(|list| list.split(',')).any(|word| word.trim().eq_ignore_ascii_case("no-store"));
        self.set("cache-control", if never { "no-store" } else { "private" });
    }

    fn tell(&mut self, id: PaymentId, facts: &PaymentFacts, state: State, currency: &str) {
        self.set("countersign-payment", &id.to_string());
        self.set("countersign-amount", &format!("{} {currency}", facts.value));
        self.set("countersign-state", state.public());
    }

    /// Sets a header, if the value can be one.
    pub fn set(&mut self, name: &'static str, value: &str) {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(HeaderName::from_static(name), value);
        }
    }

    /// A kept answer, given again.
    ///
    /// # Errors
    /// `already-settled` if what was kept cannot be read.
    pub fn replayed(answer: Answer, payment: &PaymentView, currency: &str) -> Result<Self, Problem> {
        let unreadable = || Problem::new(Code::AlreadySettled, "the kept answer cannot be read");
        let status = StatusCode::from_u16(answer.status).map_err(|_| unreadable())?;
        let mut headers = HeaderMap::new();
        for (name, value) in answer.headers {
            let name: HeaderName = name.parse().map_err(|_| unreadable())?;
            headers.append(name, HeaderValue::from_str(&value).map_err(|_| unreadable())?);
        }
        let mut reply = Self { status, headers, body: full(answer.body) };
        reply.tell(payment.id, &payment.facts, payment.state, currency);
        if let Some(transaction) = &payment.transaction {
            reply.set("countersign-transaction", transaction);
        }
        reply.set("countersign-source", "seller");
        reply.set("countersign-replayed", "true");
        Ok(reply)
    }
}

/// The seller's headers as the agent may see them. A redirect, a cookie and a challenge arrive under
/// names no HTTP client acts on.
#[must_use]
pub(super) fn filter_headers(from: &HeaderMap) -> HeaderMap {
    let mut headers = HeaderMap::new();
    // What a seller's `Connection` names belongs to that connection.
    let named = from.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let named: Vec<String> =
        named.flat_map(|list| list.split(',')).map(|name| name.trim().to_ascii_lowercase()).collect();
    for (name, value) in from {
        if named.iter().any(|named| named == name.as_str()) {
            continue;
        }
        let renamed = match name.as_str() {
            "location" => Some("countersign-seller-location"),
            "set-cookie" => Some("countersign-seller-set-cookie"),
            "www-authenticate" => Some("countersign-seller-www-authenticate"),
            _ => None,
        };
        match renamed {
            Some(renamed) => {
                headers.append(HeaderName::from_static(renamed), value.clone());
            }
            None if dropped_response_header(name.as_str()) || name == http::header::CONTENT_LENGTH => {}
            None => {
                headers.append(name.clone(), value.clone());
            }
        }
    }
    headers.insert(HeaderName::from_static("countersign-source"), HeaderValue::from_static("seller"));
    headers
}

/// Where an answer's body comes from.
pub(super) enum Source {
    /// The seller, as it sends it.
    Wire(Incoming),
    /// It is here already, and none of it is missing.
    Here(Bytes),
}

impl Source {
    async fn next(&mut self, dialer: &Dialer) -> Result<Option<Bytes>, CallError> {
        let body = match self {
            Self::Here(bytes) if bytes.is_empty() => return Ok(None),
            Self::Here(bytes) => return Ok(Some(bytes.split_to(bytes.len().min(PIECE)))),
            Self::Wire(body) => body,
        };
        loop {
            match dialer.next_frame(body).await? {
                None => return Ok(None),
                Some(frame) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }
}

/// What is done once a paid answer has been passed on.
pub(super) struct Landing {
    /// The payment.
    pub payment: PaymentId,
    /// Status and filtered headers, kept with the body if it is small enough.
    pub keep: Option<Answer>,
    /// Largest body kept.
    pub max_bytes: usize,
    /// Whether the status was a 2xx.
    pub success: bool,
    /// Marks the call as running until it is recorded.
    pub flight: Flight,
    /// Ends when the answer has.
    pub step: Open,
    /// One call per purchase.
    pub lock: Option<OwnedMutexGuard<()>>,
    /// The call's among those under way.
    pub place: Arc<Place>,
}

/// Streams a free answer.
pub(super) fn stream(gateway: Arc<Gateway>, body: Incoming, place: Arc<Place>) -> Body {
    let (sender, channel) = Channel::new(16);
    tokio::spawn(async move {
        let mut sender = Some(sender);
        let passed = pump(&gateway, Source::Wire(body), &mut sender, &mut Copy::default()).await;
        // Before the answer ends: whoever has all of it may call again at once.
        drop(place);
        end(sender, passed);
    });
    channel.boxed_unsync()
}

/// Streams a paid answer, keeps a copy, and records how it ended. It is read to its end even if the
/// agent has gone: it is paid for, and a repeated call can be given it.
pub(super) fn stream_paid(
    gateway: Arc<Gateway>,
    body: Source,
    landing: Landing,
    recorded: impl Future<Output = ()> + Send + 'static,
) -> Body {
    let (sender, channel) = Channel::new(16);
    let task = async move {
        let mut copy = Copy { limit: landing.keep.as_ref().map_or(0, |_| landing.max_bytes), ..Copy::default() };
        let mut sender = Some(sender);
        let pumped = pump(&gateway, body, &mut sender, &mut copy);
        // The answer ends when its outcome is durable: whatever the agent asks next will know it.
        let (passed, ()) = tokio::join!(pumped, recorded);
        let arrived = matches!(passed, Passed::Whole);
        let taken = match &mut sender {
            // Whoever left meanwhile has not got what was passed on. Where nothing was, there is nothing to take.
            Some(open) if arrived && copy.passed => taken(open, Bytes::new(), &*gateway.clock).await,
            other => other.is_some(),
        };
        landing.flight.land();
        // Before the answer ends or breaks off: whoever asks again at once is not beside this call any more, but after
        // it. What is left is only to write it down.
        drop(landing.place);
        end(sender, passed);
        if arrived {
            let answer = landing.keep.filter(|_| !copy.overflowed).map(|keep| Answer { body: copy.bytes, ..keep });
            let delivered = landing.success && taken;
            let result = match gateway.clock.now() {
                Ok(now) => {
                    gateway.ledger.answered(landing.payment, answer, delivered, now).await.map_err(|e| e.to_string())
                }
                Err(error) => Err(error.to_string()),
            };
            if let Err(error) = result {
                tracing::warn!(payment = %landing.payment, error, "the delivery could not be recorded");
            }
        }
        let mut step = landing.step;
        if !arrived {
            step.failed(Code::SellerMisbehaved.code());
        }
        drop((landing.flight, landing.lock, step));
    };
    tokio::spawn(task.instrument(info_span!("answer")));
    channel.boxed_unsync()
}

/// How long an agent may take for a piece of an answer, and how long one is read that nobody listens to, in
/// milliseconds.
const PATIENCE_MS: u64 = 300_000;
/// Bytes of an answer that is here already that go out at a time.
const PIECE: usize = 16 << 10;

/// Gives a kept answer to a purchase whose answer had not arrived, and records that it has now: until then
/// the request counts as unresolved, and nothing equal can be bought under another id.
pub(super) fn deliver(gateway: Arc<Gateway>, payment: PaymentId, body: Vec<u8>) -> Body {
    let (mut sender, channel) = Channel::new(1);
    tokio::spawn(async move {
        let mut body = Bytes::from(body);
        // In pieces: one is taken only when those before it are on their way.
        while !body.is_empty() {
            let piece = body.split_to(body.len().min(PIECE));
            if !taken(&mut sender, piece, &*gateway.clock).await {
                return;
            }
        }
        // The channel holds one frame: this empty one goes in when the last was taken.
        if !taken(&mut sender, Bytes::new(), &*gateway.clock).await {
            return;
        }
        let recorded = match gateway.clock.now() {
            Ok(now) => gateway.ledger.answered(payment, None, true, now).await.map_err(|e| e.to_string()),
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = recorded {
            tracing::warn!(%payment, error, "the delivery could not be recorded");
        }
    });
    channel.boxed_unsync()
}

#[derive(Default)]
struct Copy {
    bytes: Vec<u8>,
    limit: usize,
    overflowed: bool,
    /// Whether anything was passed on.
    passed: bool,
}

impl Copy {
    fn add(&mut self, data: &[u8]) {
        if self.overflowed || self.bytes.len().saturating_add(data.len()) > self.limit {
            self.overflowed = true;
            self.bytes = Vec::new();
        } else {
            self.bytes.extend_from_slice(data);
        }
    }
}

/// Whether an agent takes a piece, in time. One that reads nothing any more counts as gone: its call has a place, and
/// its purchase a lock.
async fn taken(sender: &mut Sender<Bytes, CallError>, piece: Bytes, clock: &dyn Clock) -> bool {
    tokio::select! {
        sent = sender.send_data(piece) => sent.is_ok(),
        () = clock.sleep(PATIENCE_MS) => false,
    }
}

async fn over(wait: &mut Option<Fut<'_, ()>>) {
    match wait {
        Some(wait) => wait.await,
        None => std::future::pending().await,
    }
}

/// What came of a body.
enum Passed {
    /// The seller sent all of it.
    Whole,
    /// Nobody listened, and it was not read to its end.
    Unheard,
    /// The seller's part ended in this.
    Broken(CallError),
}

/// Tells the agent that no more comes: an answer that broke off must not look whole.
fn end(sender: Option<Sender<Bytes, CallError>>, passed: Passed) {
    if let (Some(open), Passed::Broken(error)) = (sender, passed) {
        open.abort(error);
    }
}

/// Passes a body on while somebody listens. The sender is gone afterwards if the agent did not take all that came.
async fn pump(
    gateway: &Gateway,
    mut body: Source,
    sender: &mut Option<Sender<Bytes, CallError>>,
    copy: &mut Copy,
) -> Passed {
    // What nobody listens to is read on for repeats, and not for ever.
    let mut alone = None;
    loop {
        if sender.is_none() && alone.is_none() {
            alone = Some(gateway.clock.sleep(PATIENCE_MS));
        }
        let next = tokio::select! {
            next = body.next(&gateway.dialer) => next,
            () = over(&mut alone) => return Passed::Unheard,
        };
        match next {
            Ok(None) => return Passed::Whole,
            Ok(Some(data)) => {
                copy.add(&data);
                if let Some(open) = sender {
                    if taken(open, data, &*gateway.clock).await {
                        copy.passed = true;
                    } else {
                        *sender = None;
                    }
                }
                if sender.is_none() && copy.overflowed {
                    // Nobody listens and it is too large to keep.
                    return Passed::Unheard;
                }
            }
            Err(error) => {
                tracing::warn!(%error, "the seller's answer broke off");
                return Passed::Broken(error);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use countersign_core::seams::ClockError;
    use countersign_core::time::Timestamp;

    use super::*;

    /// Whoever waits has waited long enough.
    struct Impatient;

    impl Clock for Impatient {
        fn now(&self) -> Result<Timestamp, ClockError> {
            Ok(Timestamp::default())
        }

        fn sleep(&self, _: u64) -> Fut<'_, ()> {
            Box::pin(std::future::ready(()))
        }

        fn random(&self, _: &mut [u8]) -> Result<(), ClockError> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn who_reads_nothing_any_more_counts_as_gone() {
        let (mut sender, mut channel) = Channel::<Bytes, CallError>::new(1);
        assert!(taken(&mut sender, Bytes::from_static(b"a"), &crate::clock::SystemClock).await);
        // The one place is taken.
        assert!(!taken(&mut sender, Bytes::from_static(b"b"), &Impatient).await);
        assert_eq!(channel.frame().await.unwrap().unwrap().into_data().unwrap(), "a");
        assert!(taken(&mut sender, Bytes::from_static(b"c"), &crate::clock::SystemClock).await);
        drop(channel);
        assert!(!taken(&mut sender, Bytes::from_static(b"d"), &crate::clock::SystemClock).await);
    }

    #[test]
    fn what_a_seller_says_of_caches_and_connections_stays_with_the_seller() {
        let headers = |pairs: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
            }
            headers
        };
        let seen = filter_headers(&headers(&[
            ("connection", "close, X-Hop"),
            ("x-hop", "1"),
            ("x-end", "2"),
            ("x-payment", "3"),
        ]));
        assert!(seen.get("x-hop").is_none() && seen.get("x-payment").is_none());
        assert_eq!(seen["x-end"], "2");
        for (said, told) in [
            (&[("cache-control", "public, s-maxage=600")][..], "private"),
            (&[("cache-control", "max-age=5"), ("cache-control", "No-Store")][..], "no-store"),
            (&[][..], "private"),
        ] {
            let mut reply = Reply { status: StatusCode::OK, headers: headers(said), body: full("") };
            reply.keep_out_of_caches();
            let values: Vec<_> = reply.headers.get_all(CACHE_CONTROL).iter().collect();
            assert_eq!(values, [told], "{said:?}");
        }
    }
}
