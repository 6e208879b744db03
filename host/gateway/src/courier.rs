//! Telling webhooks what an operator wants to know: that a budget has reached its threshold, that people are asked or
//! have spoken. From the ledger, where it was written with what it tells of, until it is taken; nobody's purchase waits.

use std::sync::Arc;

use bytes::Bytes;
use countersign_core::ledger::{Attempt, KeptAlert, LedgerError, Told};
use countersign_core::notice::Notice;
use countersign_core::time::Timestamp;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, HeaderName};
use serde_json::{Value, json};
use tokio::sync::{Notify, watch};

use crate::endpoint::{Endpoint, Taken};
use crate::state::Gateway;
use crate::telemetry::Tried;
use crate::{views, webhook};

/// How often the ledger is asked for what is due, in milliseconds; sooner when something happens.
const LOOK_MS: u64 = 5_000;
/// Messages that are told after one look.
const AT_ONCE: u32 = 32;
/// Waits between attempts, in milliseconds; the last repeats.
const AGAIN_MS: [u64; 7] = [5_000, 30_000, 120_000, 600_000, 1_800_000, 3_600_000, 7_200_000];
/// How old a message may become before it is given up, in milliseconds.
const OLDEST_MS: u64 = 24 * 3_600_000;

/// What a receiver is told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// Budgets that reach their threshold.
    Alerts,
    /// Purchases that wait for people.
    Approvals,
}

impl Subject {
    /// What the ids of its messages begin with.
    const fn prefix(self) -> &'static str {
        match self {
            Self::Alerts => "alert",
            Self::Approvals => "approval",
        }
    }

    /// Rings when there may be something to tell.
    fn bell(self, gateway: &Gateway) -> &Notify {
        match self {
            Self::Alerts => &gateway.alerted,
            Self::Approvals => &gateway.asked,
        }
    }

    async fn due(self, gateway: &Gateway, now: Timestamp) -> Result<Vec<Message>, LedgerError> {
        let config = &gateway.live.load_full().config;
        Ok(match self {
            Self::Alerts => {
                let due = gateway.ledger.alerts_due(now, AT_ONCE).await?;
                let message = |alert: KeptAlert| Message {
                    id: alert.id,
                    kind: "budget.alert",
                    at: alert.at,
                    attempts: alert.attempts,
                    data: views::alert_data(&alert, &config.gateway.currency),
                };
                due.into_iter().map(message).collect()
            }
            Self::Approvals => {
                let due = gateway.ledger.notices_due(now, AT_ONCE).await?;
                let message = |notice: Notice| Message {
                    id: notice.id,
                    kind: notice.event.kind(),
                    at: notice.at,
                    attempts: notice.attempts,
                    data: views::notice_data(&notice, &config.gateway.currency, &gateway.admin_url),
                };
                due.into_iter().map(message).collect()
            }
        })
    }

    async fn tried(self, gateway: &Gateway, attempt: Attempt) -> Result<(), LedgerError> {
        match self {
            Self::Alerts => {
                gateway.telemetry.metrics.alert(match attempt.told {
                    Told::Delivered => Tried::Delivered,
                    Told::Not(_) => Tried::Failed,
                    Told::GivenUp => Tried::GivenUp,
                });
                gateway.ledger.alert_tried(attempt).await
            }
            Self::Approvals => gateway.ledger.notice_tried(attempt).await,
        }
    }
}

/// What is to be told.
struct Message {
    id: u64,
    kind: &'static str,
    at: Timestamp,
    attempts: u32,
    data: Value,
}

/// The way to a receiver.
pub struct Courier {
    /// Of what it is told.
    pub subject: Subject,
    /// Where.
    pub endpoint: Endpoint,
    /// What messages are signed with.
    pub key: Vec<u8>,
    /// The store's id, so that messages of several gateways have different ids.
    pub store: String,
}

impl Courier {
    /// Tells what there is to tell until the gateway stops.
    pub async fn run(self, gateway: Arc<Gateway>, mut stop: watch::Receiver<bool>) {
        loop {
            // Told first: what a process that has ended left behind is due.
            if let Err(error) = self.tell_due(&gateway, &stop).await {
                tracing::warn!(%error, about = self.subject.prefix(), "a webhook cannot be told now");
            }
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return,
                () = self.subject.bell(&gateway).notified() => {}
                () = gateway.clock.sleep(LOOK_MS) => {}
            }
        }
    }

    async fn tell_due(&self, gateway: &Gateway, stop: &watch::Receiver<bool>) -> Result<(), LedgerError> {
        let unavailable = |e: countersign_core::seams::ClockError| LedgerError::Unavailable(e.to_string());
        let due = self.subject.due(gateway, gateway.clock.now().map_err(unavailable)?).await?;
        for message in due {
            if *stop.borrow() {
                return Ok(());
            }
            let now = gateway.clock.now().map_err(unavailable)?;
            let taken = self.tell(&message, now).await;
            let at = gateway.clock.now().map_err(unavailable)?;
            let (told, outcome) = judge(&message, taken, at);
            if told != Told::Delivered {
                tracing::warn!(id = message.id, kind = message.kind, outcome, "a webhook's receiver did not take this");
            }
            match self.subject.tried(gateway, Attempt { id: message.id, told, outcome, at }).await {
                // Another gateway's word was first; its receiver knows the message by its id.
                Err(LedgerError::Conflict(_)) => {}
                noted => noted?,
            }
        }
        Ok(())
    }

    async fn tell(&self, message: &Message, now: Timestamp) -> Result<Taken, String> {
        if self.subject == Subject::Approvals && message.attempts == 0 && now.since(message.at) >= OLDEST_MS {
            // Of a time in which nobody was to be told: no approval is open that long.
            return Err("older than a day when it could first be told".to_owned());
        }
        let (headers, body) = self.envelope(message, now);
        self.endpoint.post("", headers, body).await
    }

    /// The same id with each attempt, so that a receiver can tell a repeat.
    fn envelope(&self, message: &Message, now: Timestamp) -> (HeaderMap, Bytes) {
        let id = format!("{}_{}_{}", self.subject.prefix(), self.store, message.id);
        let body = json!({"type": message.kind, "timestamp": message.at.to_string(), "data": message.data}).to_string();
        let time = now.as_secs().to_string();
        let signature = webhook::sign(&self.key, &id, &time, body.as_bytes());
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        for (name, value) in [(webhook::ID, id), (webhook::TIMESTAMP, time), (webhook::SIGNATURE, signature)] {
            // Digits, hex and base64.
            if let Ok(value) = HeaderValue::from_str(&value) {
                headers.insert(HeaderName::from_static(name), value);
            }
        }
        (headers, Bytes::from(body))
    }
}

/// What follows from an attempt.
fn judge(message: &Message, taken: Result<Taken, String>, at: Timestamp) -> (Told, String) {
    let (asked, outcome) = match taken {
        Ok(taken) if taken.status.is_success() => {
            return (Told::Delivered, format!("status {}", taken.status.as_u16()));
        }
        // As Standard Webhooks has it: the receiver is gone for good.
        Ok(taken) if taken.status == http::StatusCode::GONE => return (Told::GivenUp, "status 410".to_owned()),
        Ok(taken) => (taken.retry_after.unwrap_or(0), format!("status {}", taken.status.as_u16())),
        Err(error) => (0, error),
    };
    if at.since(message.at) >= OLDEST_MS {
        return (Told::GivenUp, outcome);
    }
    let tried = usize::try_from(message.attempts).unwrap_or(usize::MAX);
    let wait = AGAIN_MS.get(tried).or(AGAIN_MS.last()).copied().unwrap_or(OLDEST_MS);
    let wait = wait.max(asked.saturating_mul(1_000)).min(OLDEST_MS);
    (Told::Not(at.plus_millis(wait)), outcome)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::StatusCode;

    const T0: Timestamp = Timestamp::from_secs(1_800_000_000);

    fn kept(attempts: u32) -> Message {
        Message { id: 7, kind: "budget.alert", at: T0, attempts, data: Value::Null }
    }

    fn answer(status: u16, retry_after: Option<u64>) -> Result<Taken, String> {
        Ok(Taken { status: StatusCode::from_u16(status).unwrap(), retry_after, body: Bytes::new() })
    }

    #[test]
    fn attempts_are_repeated_ever_more_rarely_for_a_day() {
        let in_ms = |attempts, taken| match judge(&kept(attempts), taken, T0) {
            (Told::Not(at), _) => at.since(T0),
            other => panic!("{other:?}"),
        };
        assert_eq!(judge(&kept(3), answer(204, None), T0).0, Told::Delivered);
        assert_eq!(in_ms(0, answer(500, None)), 5_000);
        assert_eq!(in_ms(1, Err("refused".to_owned())), 30_000);
        assert_eq!(in_ms(50, answer(302, None)), 7_200_000, "a redirect is no receiver");
        assert_eq!(in_ms(0, answer(429, Some(90))), 90_000);
        assert_eq!(in_ms(0, answer(429, Some(u64::MAX))), OLDEST_MS);
        assert_eq!(judge(&kept(0), answer(410, None), T0).0, Told::GivenUp);
        assert_eq!(judge(&kept(20), answer(500, None), T0.plus_millis(OLDEST_MS)).0, Told::GivenUp);
    }
}
