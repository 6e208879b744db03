//! What the chain shows, told to the ledger: `countersign-chain` finds out, this follows each payment and
//! records what it finds. Nothing else moves a signed payment to `settled` or frees it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use countersign_chain::{Anchor, Finality, Finding, Node, ReadError, Reader, Rpc, RpcError, Subject, Unused, Watch};
use countersign_core::evm::Address;
use countersign_core::id::PaymentId;
use countersign_core::ledger::{Evidence, LedgerError, PaymentFilter, PaymentView, Transition};
use countersign_core::money::Atomic;
use countersign_core::payment::{Event, State};
use countersign_core::seams::{Clock, ClockError};
use countersign_core::time::Timestamp;
use countersign_core::x402::Network;
use tokio::sync::Semaphore;
use tokio_rustls::TlsConnector;

use crate::config::NetworkConfig;
use crate::reconcile::Unconfirmed;
use crate::state::Gateway;

/// How long a balance is believed, in milliseconds.
const BALANCE_MS: u64 = 5_000;
/// How long one reading of what is final serves every payment that is looked at, in milliseconds.
const ANCHOR_MS: u64 = 100;
/// Waits between looks at one payment, in milliseconds; the last repeats.
const WAITS: [u64; 8] = [0, 100, 250, 1_000, 2_000, 5_000, 15_000, 60_000];
/// Looks at the chain at the same time.
const CONCURRENT: usize = 8;

/// Why nothing can be said about a network.
#[derive(Debug)]
pub enum ChainError {
    /// A node's URL cannot be used.
    Url(RpcError),
    /// The nodes cannot be read, or are not to be believed.
    Read(ReadError),
    /// The ledger knows better how far the chain is final, or cannot be written.
    Ledger(LedgerError),
    /// There is no usable clock.
    Clock(ClockError),
}

impl fmt::Display for ChainError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(e) => fmt::Display::fmt(e, f),
            Self::Read(e) => fmt::Display::fmt(e, f),
            Self::Ledger(e) => fmt::Display::fmt(e, f),
            Self::Clock(e) => fmt::Display::fmt(e, f),
        }
    }
}

impl std::error::Error for ChainError {}

impl From<ReadError> for ChainError {
    fn from(e: ReadError) -> Self {
        Self::Read(e)
    }
}

/// Whether a wallet can pay something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cover {
    /// It has enough, or nobody can be asked.
    Enough,
    /// It has less.
    Short,
    /// There is no such token: what is signed for it moves nothing, and proves nothing.
    NoToken,
}

/// A balance as last read, less what was signed since.
#[derive(Clone, Copy)]
struct Balance {
    read: u128,
    signed: u128,
    at: Timestamp,
}

/// What was last read of a network, for those who watch.
#[derive(Clone, Debug)]
pub struct Seen {
    /// CAIP-2.
    pub network: String,
    /// The last final block and its time, in seconds since the epoch.
    pub last: Option<(u64, u64)>,
    /// Readings that failed.
    pub failures: u64,
}

/// One network with its nodes.
pub struct Chain {
    network: Network,
    seen: Mutex<Option<(u64, u64)>>,
    failures: AtomicU64,
    config: NetworkConfig,
    /// Asks the nodes.
    pub reader: Reader,
    hosts: Vec<(String, u16)>,
    last: tokio::sync::Mutex<Option<(Timestamp, Anchor)>>,
}

impl Chain {
    /// The nodes that a network's configuration names; none, if it names none.
    ///
    /// # Errors
    /// When a URL is not one, or two are of one provider.
    pub fn new(
        network: Network,
        config: &NetworkConfig,
        tls: &TlsConnector,
        clock: &Arc<dyn Clock>,
    ) -> Result<Option<Self>, ChainError> {
        if config.rpc.is_empty() {
            return Ok(None);
        }
        let rpc = |url: &String| Rpc::new(url, tls.clone(), Arc::clone(clock)).map_err(ChainError::Url);
        let nodes: Vec<Rpc> = config.rpc.iter().map(rpc).collect::<Result<_, _>>()?;
        let hosts = nodes.iter().map(|n| (n.target().hostname().to_owned(), n.target().port())).collect();
        let finality = config.finality_blocks.map_or(Finality::Tag, Finality::Depth);
        let nodes = nodes.into_iter().map(|node| Arc::new(node) as Arc<dyn Node>).collect();
        let reader = Reader::new(network, finality, nodes, None)?;
        Ok(Some(Self {
            network,
            seen: Mutex::default(),
            failures: AtomicU64::new(0),
            config: config.clone(),
            reader,
            hosts,
            last: tokio::sync::Mutex::default(),
        }))
    }

    /// What was last read.
    #[must_use]
    pub fn seen(&self) -> Seen {
        Seen {
            network: self.network.to_string(),
            last: *self.seen.lock().unwrap_or_else(PoisonError::into_inner),
            failures: self.failures.load(Ordering::Relaxed),
        }
    }

    /// What is final, which the ledger remembers before anything is said about it: it never becomes less,
    /// whatever a node says after a restart.
    ///
    /// # Errors
    /// [`ChainError`].
    pub async fn anchor(&self, gateway: &Gateway) -> Result<Anchor, ChainError> {
        let mut last = self.last.lock().await;
        let now = gateway.clock.now().map_err(ChainError::Clock)?;
        if let Some((at, anchor)) = &*last
            && now.since(*at) < ANCHOR_MS
            && *at <= now
        {
            return Ok(anchor.clone());
        }
        let anchor = self.reader.anchor().await.inspect_err(|_| {
            self.failures.fetch_add(1, Ordering::Relaxed);
        })?;
        let block = anchor.block();
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some((block.number, block.time));
        gateway.ledger.finalized(anchor.finalized(), now).await.map_err(ChainError::Ledger)?;
        *last = Some((now, anchor.clone()));
        Ok(anchor)
    }
}

/// Chain readers by network.
pub struct Chains {
    networks: RwLock<BTreeMap<Network, Arc<Chain>>>,
    tls: TlsConnector,
    clock: Arc<dyn Clock>,
    /// Endpoints of the operator's that are no nodes.
    others: Vec<(String, u16)>,
    balances: Mutex<BTreeMap<(Network, Address, Address), Balance>>,
    watched: Mutex<BTreeSet<PaymentId>>,
    slots: Semaphore,
    /// One comparison at a time.
    pub comparing: tokio::sync::Mutex<()>,
    /// What one node alone told of.
    pub unconfirmed: Unconfirmed,
    /// Transfers (transaction and log) that a wallet was stopped for.
    pub alarmed: Mutex<BTreeSet<(String, Option<u64>)>>,
}

impl Chains {
    /// Readers without a node yet. No purchase may reach `others` either: endpoints of the operator's that
    /// are no nodes.
    #[must_use]
    pub fn new(tls: TlsConnector, clock: Arc<dyn Clock>, others: Vec<(String, u16)>) -> Self {
        Self {
            networks: RwLock::default(),
            tls,
            clock,
            others,
            balances: Mutex::default(),
            watched: Mutex::default(),
            slots: Semaphore::new(CONCURRENT),
            comparing: tokio::sync::Mutex::default(),
            unconfirmed: Unconfirmed::default(),
            alarmed: Mutex::default(),
        }
    }

    /// Replaces the nodes by the configured ones; those that did not change go on.
    ///
    /// # Errors
    /// When a network's nodes cannot be used; nothing is replaced.
    pub fn configure(&self, networks: &BTreeMap<Network, NetworkConfig>) -> Result<(), ChainError> {
        let mut chains = BTreeMap::new();
        for (network, config) in networks {
            let known = self.chain(*network).filter(|chain| chain.config == *config);
            let chain = match known {
                Some(known) => Some(known),
                None => Chain::new(*network, config, &self.tls, &self.clock)?.map(Arc::new),
            };
            chains.extend(chain.map(|chain| (*network, chain)));
        }
        *self.networks.write().unwrap_or_else(PoisonError::into_inner) = chains;
        Ok(())
    }

    /// The reader of a network, if a node of it is configured.
    #[must_use]
    pub fn chain(&self, network: Network) -> Option<Arc<Chain>> {
        self.networks.read().unwrap_or_else(PoisonError::into_inner).get(&network).cloned()
    }

    /// Every network that can be read.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Chain>> {
        self.networks.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Whether a node of this network is configured.
    #[must_use]
    pub fn reads(&self, network: Network) -> bool {
        self.chain(network).is_some()
    }

    /// The addresses of the nodes and of the operator's other endpoints, which no purchase may reach.
    pub async fn addresses(&self) -> Vec<SocketAddr> {
        let mut all = Vec::new();
        let chains = self.all();
        for (host, port) in chains.iter().flat_map(|chain| &chain.hosts).chain(&self.others) {
            if let Ok(found) = tokio::net::lookup_host((host.as_str(), *port)).await {
                all.extend(found);
            }
        }
        all
    }

    /// Whether `payer` holds `amount`. Enough where nobody can tell: without a node, or while it does
    /// not answer, the chain itself refuses an uncovered transfer.
    pub async fn can_cover(&self, network: Network, asset: Address, payer: Address, amount: Atomic) -> Cover {
        let Some(chain) = self.chain(network) else { return Cover::Enough };
        let Ok(now) = self.clock.now() else { return Cover::Short };
        let key = (network, asset, payer);
        if self.take_from_known(key, amount, now) {
            return Cover::Enough;
        }
        match chain.reader.balance(asset, payer).await {
            Ok(read) => {
                let covered = read >= amount.get();
                let balance = Balance { read, signed: if covered { amount.get() } else { 0 }, at: now };
                self.balances.lock().unwrap_or_else(PoisonError::into_inner).insert(key, balance);
                if covered { Cover::Enough } else { Cover::Short }
            }
            Err(ReadError::NoCode { .. }) => Cover::NoToken,
            Err(error) => {
                tracing::warn!(%network, %error, "the wallet's balance could not be read");
                Cover::Enough
            }
        }
    }

    fn take_from_known(&self, key: (Network, Address, Address), amount: Atomic, now: Timestamp) -> bool {
        let mut balances = self.balances.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(known) = balances.get_mut(&key) else { return false };
        let signed = known.signed.saturating_add(amount.get());
        let covered = now.since(known.at) < BALANCE_MS && signed <= known.read;
        if covered {
            known.signed = signed;
        }
        covered
    }

    /// Follows a payment until the chain proves what became of it or the process ends. Once per payment.
    pub fn watch(&self, gateway: &Arc<Gateway>, payment: PaymentId) {
        if !self.watched.lock().unwrap_or_else(PoisonError::into_inner).insert(payment) {
            return;
        }
        let gateway = Arc::clone(gateway);
        tokio::spawn(async move {
            gateway.chains.follow(&gateway, payment).await;
            gateway.chains.watched.lock().unwrap_or_else(PoisonError::into_inner).remove(&payment);
        });
    }

    /// Follows every payment that is open in the ledger: at a start, and what other gateways leave. What is only signed
    /// is in the hands of the gateway that signed it, or becomes redeemable when that one has ended.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn watch_open(&self, gateway: &Arc<Gateway>) -> Result<(), LedgerError> {
        let open = |state: &State| state.is_open() && *state != State::Signed;
        let states = State::ALL.into_iter().filter(open).collect();
        let mut filter = PaymentFilter { states, limit: 500, ..PaymentFilter::default() };
        loop {
            let page = gateway.ledger.payments(filter.clone()).await?;
            page.iter().for_each(|p| self.watch(gateway, p.id));
            match page.last() {
                Some(last) if page.len() >= 500 => filter.before = Some(last.id),
                _ => return Ok(()),
            }
        }
    }

    async fn follow(&self, gateway: &Gateway, id: PaymentId) {
        let last = WAITS.last().copied().unwrap_or(60_000);
        let mut watch = Watch::default();
        for wait in WAITS.into_iter().chain(std::iter::repeat(last)) {
            self.clock.sleep(wait).await;
            let Ok(Some(payment)) = gateway.ledger.payment(id).await else { continue };
            if !payment.state.is_open() {
                return;
            }
            let Some(network) = payment.authorization.as_ref().map(|a| a.offer.network) else { return };
            let Some(chain) = self.chain(network) else { return };
            let Ok(_slot) = self.slots.acquire().await else { return };
            match self.look(gateway, &chain, &payment, &mut watch).await {
                Ok(finding) => record(gateway, &payment, finding).await,
                Err(error) => tracing::debug!(payment = %id, %error, "nothing can be said yet"),
            }
        }
    }

    async fn look(
        &self,
        gateway: &Gateway,
        chain: &Chain,
        payment: &PaymentView,
        watch: &mut Watch,
    ) -> Result<Finding, ChainError> {
        let Some(authorization) = &payment.authorization else {
            return Ok(Finding::Contradiction("a signed payment without a payload".to_owned()));
        };
        let (created, transaction) = (payment.created_at, payment.transaction.as_deref());
        let subject = Subject { authorization, created, transaction };
        let anchor = chain.anchor(gateway).await;
        let now = self.clock.now().map_err(ChainError::Clock)?;
        match anchor {
            Ok(anchor) => Ok(chain.reader.look_at(&anchor, subject, watch, now).await),
            Err(ChainError::Read(error)) => Ok(watch.failed(subject, error, now)),
            Err(error) => Err(error),
        }
    }
}

/// Writes down what the chain showed. What cannot be written now is found again at the next look.
async fn record(gateway: &Gateway, payment: &PaymentView, finding: Finding) {
    let id = payment.id;
    let (event, why, evidence): (Event, String, Option<Box<Evidence>>) = match finding {
        Finding::Redeemed { evidence, .. } => (Event::Redeemed, "proven on the chain".to_owned(), Some(evidence)),
        Finding::Unused { evidence, how: Unused::Expired } => {
            (Event::Unused, "its time is over and the chain shows it unused".to_owned(), Some(evidence))
        }
        Finding::Unused { evidence, how: Unused::Cancelled } => {
            (Event::Unused, "it was cancelled on the chain".to_owned(), Some(evidence))
        }
        Finding::Gone { transaction } if payment.state == State::Seen => {
            (Event::Reorganised, format!("the chain was reorganised: {transaction} is no longer in it"), None)
        }
        Finding::Contradiction(why) if payment.state != State::Stuck => {
            tracing::error!(payment = %id, why, "the chain contradicts what was signed; a person must look at it");
            (Event::Contradicted, why, None)
        }
        Finding::Pending(why) => return tracing::debug!(payment = %id, ?why, "open"),
        Finding::Gone { .. } | Finding::Contradiction(_) => return,
    };
    let Ok(at) = gateway.clock.now() else { return };
    let transition = Transition { payment: id, from: payment.state, event, why, evidence, at };
    match gateway.ledger.transition(transition).await {
        Ok(state) => {
            tracing::info!(payment = %id, state = state.public(), event = event.name(), "the chain has spoken")
        }
        // The state moved meanwhile: look again.
        Err(error) => tracing::debug!(payment = %id, %error, "not recorded yet"),
    }
}
