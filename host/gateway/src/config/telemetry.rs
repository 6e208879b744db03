//! `[telemetry]` and `[alerts]`: who may watch, and who is told.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::HeaderName;

use super::Secret;
use super::reader::{Item, Read, Table};
use super::sections::{Gateway, endpoint};

/// `[telemetry]`: metrics and traces.
#[derive(Clone, PartialEq, Eq)]
pub struct Telemetry {
    /// Where traces and metrics are sent (OTLP over HTTP): https, or http to this machine. `/v1/traces` and
    /// `/v1/metrics` are added to its path.
    pub otlp: Option<String>,
    /// Headers that are sent there, by their names.
    pub headers: BTreeMap<String, Secret>,
    /// How often metrics are sent there, in milliseconds.
    pub every_ms: u64,
    /// Whether `/metrics` needs no token; only on a loopback listener.
    pub open_metrics: bool,
    /// Whether sellers are sent our `traceparent`.
    pub tell_sellers: bool,
}

impl fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hidden = self.otlp.as_ref().map(|_| "hidden");
        f.debug_struct("Telemetry").field("otlp", &hidden).field("headers", &self.headers).finish_non_exhaustive()
    }
}

impl Telemetry {
    pub(super) const KEYS: &'static [&'static str] = &["otlp", "headers", "every", "open-metrics", "tell-sellers"];

    pub(super) fn read(table: Option<Table<'_>>, gateway: &Gateway) -> Read<Self> {
        let mut telemetry =
            Self { otlp: None, headers: BTreeMap::new(), every_ms: 60_000, open_metrics: false, tell_sellers: false };
        let Some(mut table) = table else { return Ok(telemetry) };
        let why = "it is told what is bought, where and from which wallet";
        if let Some(item) = table.take("otlp") {
            telemetry.otlp = endpoint(&item, ("an OTLP receiver", why))?;
        }
        if let Some(item) = table.take("headers") {
            telemetry.headers = headers(&item)?;
        }
        if let Some(item) = table.take("every") {
            telemetry.every_ms = item.millis()?;
            if !(1_000..=3_600_000).contains(&telemetry.every_ms) {
                return Err(item.error("expected a time from 1 second to 1 hour").hint("such as \"60s\""));
            }
        }
        if let Some(item) = table.take("open-metrics") {
            telemetry.open_metrics = item.bool()?;
            if telemetry.open_metrics && !gateway.admin.ip().to_canonical().is_loopback() {
                let hint = "give Prometheus an operator's token with the role `viewer`";
                return Err(item.error("other machines reach gateway.admin, so /metrics needs a token").hint(hint));
            }
        }
        if let Some(item) = table.take("tell-sellers") {
            telemetry.tell_sellers = item.bool()?;
        }
        Ok(telemetry)
    }
}

fn headers(item: &Item<'_>) -> Read<BTreeMap<String, Secret>> {
    if !item.value.is_table() {
        return Err(item.wrong("a table").hint("write headers = { authorization = { env = \"NAME\" } }"));
    }
    let mut headers = BTreeMap::new();
    for (name, item) in item.members() {
        let parsed: HeaderName = name.parse().map_err(|_| item.error(format!("{name:?} is not a header's name")))?;
        let secret = item.secret()?;
        if http::HeaderValue::from_str(secret.expose()).is_err() {
            return Err(item.error("the secret cannot be sent in a header"));
        }
        headers.insert(parsed.as_str().to_owned(), secret);
    }
    Ok(headers)
}

/// `[alerts]`: who is told when a budget reaches its threshold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Alerts {
    /// Whom.
    pub webhook: Option<Webhook>,
}

/// A receiver of Standard Webhooks.
#[derive(Clone, PartialEq, Eq)]
pub struct Webhook {
    /// Its URL: https, or http to this machine.
    pub url: String,
    /// What messages are signed with: `whsec_` and base64, as Standard Webhooks has it.
    pub secret: Secret,
}

impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Webhook(hidden)")
    }
}

impl Webhook {
    /// The key in the secret.
    #[must_use]
    pub fn key(&self) -> Option<Vec<u8>> {
        signing_key(&self.secret)
    }

    /// The receiver at `webhook`, whose secret stands at the key `secret`; none, when secrets are not being read.
    pub(super) fn read(table: &mut Table<'_>, secret: &'static str, why: &str) -> Read<Option<Self>> {
        let Some(item) = table.take("webhook") else {
            return match table.take(secret) {
                Some(item) => Err(item.error("a secret without a webhook").hint("add webhook = \"https://…\"")),
                None => Ok(None),
            };
        };
        let url = endpoint(&item, ("a webhook", why))?;
        let key = signing_secret(&table.need(secret, SIGNING)?)?;
        Ok(url.zip(key).map(|(url, secret)| Self { url, secret }))
    }
}

const SIGNING: &str =
    "`whsec_` and 24 to 64 random bytes in base64: printf 'whsec_%s' $(head -c 32 /dev/urandom | base64)";

/// The key in a signing secret of Standard Webhooks.
#[must_use]
pub fn signing_key(secret: &Secret) -> Option<Vec<u8>> {
    let key = BASE64.decode(secret.expose().strip_prefix("whsec_")?).ok()?;
    (24..=64).contains(&key.len()).then_some(key)
}

/// A signing secret; none, when secrets are not being read.
pub(super) fn signing_secret(item: &Item<'_>) -> Read<Option<Secret>> {
    let secret = item.secret()?;
    // Secrets come out empty for commands that only look.
    if secret.expose().is_empty() {
        return Ok(None);
    }
    match signing_key(&secret) {
        Some(_) => Ok(Some(secret)),
        None => Err(item.error("not a signing secret").hint(SIGNING)),
    }
}

impl Alerts {
    pub(super) const KEYS: &'static [&'static str] = &["webhook", "secret"];

    pub(super) fn read(table: Option<Table<'_>>) -> Read<Self> {
        let Some(mut table) = table else { return Ok(Self::default()) };
        Ok(Self { webhook: Webhook::read(&mut table, "secret", "whoever reads it learns what is spent")? })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::{Config, ConfigError, Environment};

    const KEY: &str = "whsec_c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LTMyYg==";

    fn parse(text: &str) -> Result<Config, ConfigError> {
        let environment: Environment =
            [("KEY", KEY), ("TOKEN", "Bearer x"), ("URL", "https://otlp.example/secret-path")].into_iter().collect();
        Config::parse(text, Path::new("/srv/gateway"), &environment)
    }

    #[test]
    fn receivers_and_their_secrets_are_read_and_not_shown() {
        let text = "[telemetry]\notlp = { env = 'URL' }\nheaders = { Authorization = { env = 'TOKEN' } }\n\
                    every = '15s'\nopen-metrics = true\ntell-sellers = true\n\
                    [alerts]\nwebhook = 'http://localhost:9/hook'\nsecret = { env = 'KEY' }\n";
        let config = parse(text).unwrap();
        let telemetry = &config.telemetry;
        assert_eq!(telemetry.otlp.as_deref(), Some("https://otlp.example/secret-path"));
        assert_eq!(telemetry.headers["authorization"].expose(), "Bearer x");
        assert_eq!((telemetry.every_ms, telemetry.open_metrics, telemetry.tell_sellers), (15_000, true, true));
        assert_eq!(config.alerts.webhook.as_ref().unwrap().key().unwrap().len(), 31);
        let shown = format!("{config:?}");
        assert!(
            !shown.contains("secret-path") && !shown.contains("Bearer") && !shown.contains("localhost:9"),
            "{shown}"
        );
        assert!(config.secret_env.contains("KEY") && config.secret_env.contains("TOKEN"));
        let nothing = parse("").unwrap();
        assert_eq!(nothing.needs_restart(&config), ["telemetry", "alerts"]);
        assert_eq!((nothing.telemetry.open_metrics, nothing.telemetry.tell_sellers), (false, false));
    }

    #[test]
    fn a_page_without_a_token_needs_a_listener_that_only_this_machine_reaches() {
        let tls = "[gateway]\nadmin = '0.0.0.0:8403'\ntls = { cert = 'c', key = 'k' }\n[telemetry]\nopen-metrics = ";
        assert_eq!(parse(&format!("{tls}true")).unwrap_err().key, "telemetry.open-metrics");
        assert!(parse(&format!("{tls}false")).is_ok());
    }
}
