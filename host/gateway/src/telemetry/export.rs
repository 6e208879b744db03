//! Telling an OTLP receiver: one task of its own and a bounded queue before it. What does not fit is dropped
//! and counted; nobody ever waits for a receiver.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, StatusCode};
use tokio::sync::{mpsc, watch};

use super::gather::gather;
use super::metrics::{Metrics, Signal};
use super::otlp::Source;
use super::trace::Finished;
use crate::config::Secret;
use crate::endpoint::Endpoint;
use crate::state::Gateway;

/// Finished traces that may wait.
const QUEUE: usize = 2_048;
/// Traces of one message.
const BATCH: usize = 128;
/// How long a message waits for more traces, in milliseconds.
const LINGER_MS: u64 = 1_000;
/// Waits before a message is sent again, in milliseconds; then it is dropped.
const AGAIN_MS: [u64; 3] = [1_000, 5_000, 15_000];
/// How long the last message of a process may take, in milliseconds.
const LAST_MS: u64 = 3_000;
/// Longest wait that a receiver may ask for, in seconds.
const MAX_RETRY_AFTER: u64 = 30;

/// Where finished traces go.
#[derive(Clone, Debug)]
pub struct Sink(mpsc::Sender<Finished>);

impl Sink {
    /// A queue with its other end.
    #[must_use]
    pub fn new() -> (Self, mpsc::Receiver<Finished>) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        (Self(sender), receiver)
    }

    /// Hands a trace over. Never waits.
    pub(super) fn tell(&self, trace: Finished, metrics: &Metrics) {
        if self.0.try_send(trace).is_err() {
            metrics.dropped(1);
        }
    }
}

/// The receiver of this gateway's traces and metrics.
pub struct Exporter {
    /// Where.
    pub endpoint: Endpoint,
    /// What is sent with each message.
    pub headers: HeaderMap,
    /// Who tells.
    pub source: Source,
    /// How often metrics are told, in milliseconds.
    pub every_ms: u64,
}

/// The configured headers, which were checked when they were read.
#[must_use]
pub fn headers(configured: &BTreeMap<String, Secret>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, secret) in configured {
        if let (Ok(name), Ok(mut value)) = (name.parse::<HeaderName>(), HeaderValue::from_str(secret.expose())) {
            value.set_sensitive(true);
            headers.insert(name, value);
        }
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers
}

impl Exporter {
    /// Tells traces as they end, and metrics now and then, until the gateway stops.
    pub async fn run(self, gateway: Arc<Gateway>, traces: mpsc::Receiver<Finished>, stop: watch::Receiver<bool>) {
        let this = Arc::new(self);
        tokio::join!(
            Arc::clone(&this).tell_traces(Arc::clone(&gateway), traces, stop.clone()),
            this.tell_metrics(gateway, stop)
        );
    }

    async fn tell_traces(
        self: Arc<Self>,
        gateway: Arc<Gateway>,
        mut traces: mpsc::Receiver<Finished>,
        mut stop: watch::Receiver<bool>,
    ) {
        let count = |traces: &[Finished]| u64::try_from(traces.len()).unwrap_or(u64::MAX);
        let metrics = &gateway.telemetry.metrics;
        let mut rest = loop {
            let mut batch = Vec::new();
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => break batch,
                first = traces.recv() => batch.extend(first),
            }
            let linger = gateway.clock.sleep(LINGER_MS);
            let fill = async {
                while batch.len() < BATCH {
                    let Some(next) = traces.recv().await else { return };
                    batch.push(next);
                }
            };
            let stopped = tokio::select! {
                _ = stop.wait_for(|stop| *stop) => true,
                () = fill => false,
                () = linger => false,
            };
            if stopped {
                break batch;
            }
            let body = self.source.traces(&batch);
            let sent = tokio::select! {
                sent = self.post(&gateway, Signal::Traces, "/v1/traces", &body) => sent,
                _ = stop.wait_for(|stop| *stop) => break batch,
            };
            if !sent {
                metrics.dropped(count(&batch));
            }
        };
        while let Ok(next) = traces.try_recv() {
            rest.push(next);
        }
        if !rest.is_empty() && !self.last(&gateway, Signal::Traces, "/v1/traces", &self.source.traces(&rest)).await {
            metrics.dropped(count(&rest));
        }
    }

    async fn tell_metrics(self: Arc<Self>, gateway: Arc<Gateway>, mut stop: watch::Receiver<bool>) {
        let now = || gateway.clock.now().map_or(0, |now| now.as_millis().saturating_mul(1_000_000));
        let started = now();
        loop {
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => break,
                () = gateway.clock.sleep(self.every_ms) => {}
            }
            let body = self.source.metrics(&gather(&gateway).await, started, now());
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => break,
                // The next message says all that this one says.
                _ = self.once(&gateway, Signal::Metrics, "/v1/metrics", &body) => {}
            }
        }
        let body = self.source.metrics(&gather(&gateway).await, started, now());
        self.last(&gateway, Signal::Metrics, "/v1/metrics", &body).await;
    }

    /// Sends the last message of this process, which nobody waits for long for.
    async fn last(&self, gateway: &Gateway, signal: Signal, path: &str, body: &serde_json::Value) -> bool {
        tokio::select! {
            (sent, _) = self.once(gateway, signal, path, body) => sent,
            () = gateway.clock.sleep(LAST_MS) => false,
        }
    }

    /// Sends a message, a few times if the receiver cannot take it now.
    async fn post(&self, gateway: &Gateway, signal: Signal, path: &str, body: &serde_json::Value) -> bool {
        for wait in AGAIN_MS {
            let (sent, again) = self.once(gateway, signal, path, body).await;
            let Some(asked) = again else { return sent };
            gateway.clock.sleep(asked.saturating_mul(1_000).max(wait)).await;
        }
        self.once(gateway, signal, path, body).await.0
    }

    /// Sends a message; whether it was taken, and after how many seconds it is worth sending again.
    async fn once(
        &self,
        gateway: &Gateway,
        signal: Signal,
        path: &str,
        body: &serde_json::Value,
    ) -> (bool, Option<u64>) {
        let taken = self.endpoint.post(path, self.headers.clone(), Bytes::from(body.to_string())).await;
        let sent = taken.as_ref().is_ok_and(|taken| taken.status.is_success());
        gateway.telemetry.metrics.exported(signal, sent);
        let again = match &taken {
            Ok(taken) if sent => {
                tracing::trace!(status = taken.status.as_u16(), "told the OTLP receiver");
                None
            }
            Ok(taken) => {
                tracing::warn!(status = taken.status.as_u16(), path, "the OTLP receiver did not take a message");
                let busy = [
                    StatusCode::TOO_MANY_REQUESTS,
                    StatusCode::BAD_GATEWAY,
                    StatusCode::SERVICE_UNAVAILABLE,
                    StatusCode::GATEWAY_TIMEOUT,
                ];
                busy.contains(&taken.status).then(|| taken.retry_after.unwrap_or(0).min(MAX_RETRY_AFTER))
            }
            Err(error) => {
                tracing::warn!(error, path, "the OTLP receiver cannot be reached");
                Some(0)
            }
        };
        (sent, again)
    }
}
