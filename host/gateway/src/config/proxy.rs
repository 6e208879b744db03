//! `[proxy]`: the forward proxy.

use std::path::PathBuf;

use super::egress::HostPattern;
use super::reader::{Read, Table};
use super::sections::{Ledger, MAX_BODY};

/// `[proxy]`: the forward proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    /// Hosts whose TLS is terminated; all others are tunnelled blindly.
    pub intercept: Vec<HostPattern>,
    /// Largest upload that is kept for sending again with a payment, in bytes.
    pub max_replay_body: u64,
    /// The private key that vouches for intercepted hosts, made when it is first needed.
    pub ca: PathBuf,
    /// How long a connection through the proxy may be silent, in milliseconds.
    pub idle_ms: u64,
    /// How long a connection through the proxy may last, in milliseconds.
    pub longest_ms: u64,
    /// How many of them one agent may have at a time.
    pub tunnels_per_agent: u32,
}

impl Proxy {
    pub(super) const KEYS: &'static [&'static str] =
        &["intercept", "max-replay-body", "ca", "idle", "longest", "tunnels-per-agent"];

    pub(super) fn read(table: Option<Table<'_>>, ledger: &Ledger) -> Read<Self> {
        const LONGEST: u64 = 7 * 86_400_000;
        let mut proxy = Self {
            intercept: Vec::new(),
            max_replay_body: 1 << 20,
            ca: ledger.store.beside("ca-key"),
            idle_ms: 300_000,
            longest_ms: 12 * 3_600_000,
            tunnels_per_agent: 64,
        };
        let Some(mut table) = table else { return Ok(proxy) };
        if let Some(item) = table.take("intercept") {
            proxy.intercept = item.list()?.iter().map(HostPattern::read).collect::<Read<_>>()?;
        }
        if let Some(item) = table.take("max-replay-body") {
            proxy.max_replay_body = item.bytes(0..=MAX_BODY)?;
        }
        if let Some(item) = table.take("ca") {
            proxy.ca = item.path()?;
        }
        for (key, millis) in [("idle", &mut proxy.idle_ms), ("longest", &mut proxy.longest_ms)] {
            let Some(item) = table.take(key) else { continue };
            *millis = item.millis()?;
            if !(1..=LONGEST).contains(millis) {
                return Err(item.error("expected a time of at most 7 days").hint("such as \"5m\""));
            }
        }
        if let Some(item) = table.take("tunnels-per-agent") {
            proxy.tunnels_per_agent = item.u32(1..=4_096)?;
        }
        Ok(proxy)
    }

    /// Whether TLS to this host and port is terminated.
    #[must_use]
    pub fn intercepts(&self, host: &str, port: u16) -> bool {
        self.intercept.iter().any(|pattern| pattern.matches(host, port, 443))
    }
}
