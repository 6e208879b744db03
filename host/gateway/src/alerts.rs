//! Telling a webhook that a budget has reached its threshold: from the ledger, where the alert was written with
//! the grant that reached it, until it is taken. Signed as Standard Webhooks are; nobody's purchase waits.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use countersign_core::ledger::{Attempt, KeptAlert, LedgerError, Told};
use countersign_core::time::Timestamp;
use hmac::{Hmac, KeyInit, Mac};
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, HeaderName};
use serde_json::json;
use sha2::Sha256;
use tokio::sync::watch;

use crate::endpoint::{Endpoint, Taken};
use crate::state::Gateway;
use crate::telemetry::Tried;
use crate::views;

/// How often the ledger is asked for what is due, in milliseconds; sooner when something happens.
const LOOK_MS: u64 = 5_000;
/// Alerts that are told after one look.
const AT_ONCE: u32 = 32;
/// Waits between attempts, in milliseconds; the last repeats.
const AGAIN_MS: [u64; 7] = [5_000, 30_000, 120_000, 600_000, 1_800_000, 3_600_000, 7_200_000];
/// How old an alert may become before it is given up, in milliseconds.
const OLDEST_MS: u64 = 24 * 3_600_000;

/// The receiver of alerts.
pub struct Courier {
    /// Where.
    pub endpoint: Endpoint,
    /// What messages are signed with.
    pub key: Vec<u8>,
    /// The store's id, so that messages of several gateways have different ids.
    pub store: String,
}

impl Courier {
    /// Tells alerts until the gateway stops.
    pub async fn run(self, gateway: Arc<Gateway>, mut stop: watch::Receiver<bool>) {
        loop {
            // Told first: what a process that has ended left behind is due.
            if let Err(error) = self.tell_due(&gateway, &stop).await {
                tracing::warn!(%error, "alerts cannot be told now");
            }
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return,
                () = gateway.alerted.notified() => {}
                () = gateway.clock.sleep(LOOK_MS) => {}
            }
        }
    }

    async fn tell_due(&self, gateway: &Gateway, stop: &watch::Receiver<bool>) -> Result<(), LedgerError> {
        let unavailable = |e: countersign_core::seams::ClockError| LedgerError::Unavailable(e.to_string());
        let due = gateway.ledger.alerts_due(gateway.clock.now().map_err(unavailable)?, AT_ONCE).await?;
        for alert in due {
            if *stop.borrow() {
                return Ok(());
            }
            let now = gateway.clock.now().map_err(unavailable)?;
            let taken = self.tell(gateway, &alert, now).await;
            let at = gateway.clock.now().map_err(unavailable)?;
            let (told, outcome) = judge(&alert, taken, at);
            gateway.telemetry.metrics.alert(match told {
                Told::Delivered => Tried::Delivered,
                Told::Not(_) => Tried::Failed,
                Told::GivenUp => Tried::GivenUp,
            });
            if told != Told::Delivered {
                tracing::warn!(alert = alert.id, outcome, "an alert was not taken");
            }
            match gateway.ledger.alert_tried(Attempt { alert: alert.id, told, outcome, at }).await {
                // Another gateway's word was first; its receiver knows the message by its id.
                Err(LedgerError::Conflict(_)) => {}
                noted => noted?,
            }
        }
        Ok(())
    }

    async fn tell(&self, gateway: &Gateway, alert: &KeptAlert, now: Timestamp) -> Result<Taken, String> {
        let currency = gateway.live.load().config.gateway.currency.clone();
        let (headers, body) = self.message(alert, &currency, now);
        self.endpoint.post("", headers, body).await
    }

    /// The same id with each attempt, so that a receiver can tell a repeat.
    fn message(&self, alert: &KeptAlert, currency: &str, now: Timestamp) -> (HeaderMap, Bytes) {
        let id = format!("alert_{}_{}", self.store, alert.id);
        let mut data = views::alert(alert, currency);
        if let Some(data) = data.as_object_mut() {
            data.remove("delivery");
        }
        let body = json!({"type": "budget.alert", "timestamp": alert.at.to_string(), "data": data}).to_string();
        let time = now.as_secs().to_string();
        let signature = sign(&self.key, &id, &time, &body);
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        for (name, value) in [("webhook-id", id), ("webhook-timestamp", time), ("webhook-signature", signature)] {
            // Digits, hex and base64.
            if let Ok(value) = HeaderValue::from_str(&value) {
                headers.insert(HeaderName::from_static(name), value);
            }
        }
        (headers, Bytes::from(body))
    }
}

/// `v1,` and the HMAC of id, time and body in base64.
fn sign(key: &[u8], id: &str, time: &str, body: &str) -> String {
    // A key of any length is one.
    let Ok(mut mac) = <Hmac<Sha256> as KeyInit>::new_from_slice(key) else { return String::new() };
    mac.update(format!("{id}.{time}.{body}").as_bytes());
    format!("v1,{}", BASE64.encode(mac.finalize().into_bytes()))
}

/// What follows from an attempt.
fn judge(alert: &KeptAlert, taken: Result<Taken, String>, at: Timestamp) -> (Told, String) {
    let (asked, outcome) = match taken {
        Ok(taken) if taken.status.is_success() => {
            return (Told::Delivered, format!("status {}", taken.status.as_u16()));
        }
        // As Standard Webhooks has it: the receiver is gone for good.
        Ok(taken) if taken.status == http::StatusCode::GONE => return (Told::GivenUp, "status 410".to_owned()),
        Ok(taken) => (taken.retry_after.unwrap_or(0), format!("status {}", taken.status.as_u16())),
        Err(error) => (0, error),
    };
    if at.since(alert.at) >= OLDEST_MS {
        return (Told::GivenUp, outcome);
    }
    let tried = usize::try_from(alert.attempts).unwrap_or(usize::MAX);
    let wait = AGAIN_MS.get(tried).or(AGAIN_MS.last()).copied().unwrap_or(OLDEST_MS);
    let wait = wait.max(asked.saturating_mul(1_000)).min(OLDEST_MS);
    (Told::Not(at.plus_millis(wait)), outcome)
}

#[cfg(test)]
mod tests {
    use super::*;
    use countersign_core::id::PaymentId;
    use countersign_core::ledger::Alert;
    use countersign_core::verdict::Unit;
    use http::StatusCode;

    const T0: Timestamp = Timestamp::from_secs(1_800_000_000);

    fn kept(attempts: u32) -> KeptAlert {
        KeptAlert {
            id: 7,
            alert: Alert { budget: "caps/agent/scout".to_owned(), at: 8_000_000, used: 8_500_000 },
            unit: Unit::Micros,
            limit: 10_000_000,
            payment: PaymentId::new(T0, [1; 10]),
            at: T0,
            told: Told::Not(T0),
            attempts,
            last: None,
        }
    }

    fn answer(status: u16, retry_after: Option<u64>) -> Result<Taken, String> {
        Ok(Taken { status: StatusCode::from_u16(status).unwrap(), retry_after, body: Bytes::new() })
    }

    #[test]
    fn signatures_are_those_of_standard_webhooks() {
        // The example of the specification's reference libraries.
        let key = BASE64.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let signature = sign(&key, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", r#"{"test": 2432232314}"#);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
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
