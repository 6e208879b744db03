//! What a running gateway is made of, and the one pointer that a reload swaps.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use countersign_core::ledger::{Ledger, PaymentFacts, SuspensionScope};
use countersign_core::seams::{Clock, Judge, Rail, Signer};
use countersign_core::spend::SpendRequest;
use countersign_core::verdict::Judgement;
use countersign_engine::PolicySet;
use countersign_ledger::Work;
use tokio::sync::{Notify, Semaphore};

use crate::admission::Admission;
use crate::chain::Chains;
use crate::config::Config;
use crate::egress::Dialer;
use crate::flights::Flights;
use crate::front::Tunnels;
use crate::identity::Issuers;
use crate::log::Log;
use crate::rate::RateLimiter;
use crate::shadow::Shadows;
use crate::stops::Stops;
use crate::telemetry::Telemetry;
use crate::upstream::Upstreams;
use crate::vouch::Vouch;

/// Configuration and policies of one generation. A purchase pins one and never sees another.
pub struct Snapshot {
    /// Counts activations of the store, from 1: the ledger's number is the truth.
    pub generation: u64,
    /// The configuration.
    pub config: Config,
    /// The policies. A set that did not change goes on from one generation to the next.
    pub policies: Arc<PolicySet>,
    /// Reads offers by this generation's asset table.
    pub rail: Arc<dyn Rail>,
}

impl Judge for Snapshot {
    fn judge(&self, policies: &[String], request: &SpendRequest) -> Judgement {
        Judgement { generation: self.generation, ..self.policies.judge(policies, request) }
    }

    fn generation(&self) -> u64 {
        self.generation
    }
}

/// Everything a purchase needs.
pub struct Gateway {
    /// Now, waiting, randomness.
    pub clock: Arc<dyn Clock>,
    /// The store.
    pub ledger: Arc<dyn Ledger>,
    /// How the store's writer does.
    pub work: Arc<Work>,
    /// What operators can watch.
    pub telemetry: Telemetry,
    /// Says that a budget has reached its alert threshold.
    pub alerted: Notify,
    /// Says that people are asked, or have spoken.
    pub asked: Notify,
    /// Who vouches for the store's records.
    pub log: Log,
    /// The store's own key for digests.
    pub key: [u8; 32],
    /// The current generation.
    pub live: ArcSwap<Snapshot>,
    /// Wallets by configured name; they change only with a restart.
    pub signers: BTreeMap<String, Arc<dyn Signer>>,
    /// The way out.
    pub dialer: Arc<Dialer>,
    /// Chain readers by network.
    pub chains: Arc<Chains>,
    /// The kill switch.
    pub stops: Stops,
    /// Calls that are under way.
    pub admission: Admission,
    /// Payments in the air.
    pub flights: Flights,
    /// Judgements at once: as many as the engine has places for one policy each, so that a decision that
    /// must wait does so here, where waiting costs no thread.
    pub judging: Semaphore,
    /// Calls that carry modules at a time: each may hold tens of megabytes and a compiler.
    pub staging: Arc<Semaphore>,
    /// Who judges beside the policies that count.
    pub shadows: Shadows,
    /// Decisions per minute.
    pub rate: RateLimiter,
    /// Who vouches for intercepted hosts.
    pub vouch: Vouch,
    /// The keys of those who say who agents are.
    pub issuers: Issuers,
    /// Connections through the proxy.
    pub tunnels: Tunnels,
    /// Sessions with MCP servers.
    pub upstreams: Upstreams,
    /// Where this gateway listens; no purchase may go there.
    pub listeners: [std::net::SocketAddr; 2],
    /// Where people reach this gateway, for links: `http://127.0.0.1:8402`.
    pub base_url: String,
    /// Where operators reach it: `http://127.0.0.1:8403`.
    pub admin_url: String,
}

impl Gateway {
    /// What stops a payment with these facts, if anything does. Before it says that something does, it asks the ledger:
    /// another gateway may have lifted it this moment. What only this process knows stops all the same.
    pub async fn stopped(&self, facts: &PaymentFacts) -> Option<SuspensionScope> {
        let changes = self.stops.changes();
        self.stops.covering(facts)?;
        if let Ok(suspensions) = self.ledger.suspensions().await {
            self.stops.take_over(changes, suspensions);
        }
        self.stops.covering(facts)
    }
}
