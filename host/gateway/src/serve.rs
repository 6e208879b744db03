//! `countersign serve`: configuration → build → spawn → drain.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use countersign_core::ledger::{Ledger, LedgerError};
use countersign_core::seams::{Clock, Signer};
use countersign_core::time::Timestamp;
use countersign_engine::Engine;
use sha2::{Digest as _, Sha256};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use crate::admission::Admission;
use crate::chain::Chains;
use crate::clock::{SteadyClock, SystemClock, random};
use crate::config::{self, Config, Environment, Webhook};
use crate::courier::{Courier, Subject};
use crate::egress::{Dialer, Patience, SystemNames, tls, tls_believing};
use crate::endpoint::Endpoint;
use crate::flights::Flights;
use crate::front::{Acceptor, Admin, Certificates, Door, Side, Tunnels, serve};
use crate::identity::Issuers;
use crate::log::Log;
use crate::rate::RateLimiter;
use crate::reload::{FirstStart, Reloader};
use crate::shadow::Shadows;
use crate::state::Gateway;
use crate::stops::Stops;
use crate::telemetry::{self, Exporter, Sink, Source, Telemetry};
use crate::upstream::Upstreams;
use crate::vouch::Vouch;
use crate::{reconcile, reload, store, wallet, watch as watching};

/// How often lapsed approvals are looked for, in milliseconds.
const EXPIRY_MS: u64 = 5_000;

/// How often the ledger is compared with the chain, in milliseconds.
const RECONCILE_MS: u64 = 600_000;

/// How often the records are signed for, if there are new ones, in milliseconds.
const CHECKPOINT_MS: u64 = 2_000;

/// How long it is at least between two looks at what other gateways did, in milliseconds.
const OTHERS_MS: u64 = 200;

/// Operators' calls that carry modules at a time.
const STAGING: usize = 2;
/// How often, a hundredth of a second apart, it is looked whether the last paid answers are recorded.
const LANDINGS: u32 = 6_000;

/// Why a gateway did not start.
#[derive(Debug)]
pub struct StartError(pub String);

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for StartError {}

fn fail(what: &str) -> impl FnOnce(&dyn fmt::Display) -> StartError {
    move |error| StartError(format!("{what}: {error}"))
}

/// A gateway whose sockets are bound and whose tasks run.
pub struct Running {
    /// The gateway.
    pub gateway: Arc<Gateway>,
    /// Its reloader.
    pub reloader: Arc<Reloader>,
    /// Where agents are served.
    pub agent: std::net::SocketAddr,
    /// Where operators are served.
    pub admin: std::net::SocketAddr,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
    watchers: Watchers,
}

/// Who tells receivers of the operator's; they end after everything that they tell of.
struct Watchers {
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

impl Running {
    /// Stops accepting, lets running calls end, stops.
    pub async fn drain(mut self) {
        self.stop.send_replace(true);
        while self.tasks.join_next().await.is_some() {}
        // A paid answer may still be on its way into the ledger. One that does not end is followed by the next start.
        for _ in 0..LANDINGS {
            if self.gateway.flights.count() == 0 {
                break;
            }
            self.gateway.clock.sleep(10).await;
        }
        checkpoint(&self.gateway).await;
        self.watchers.stop.send_replace(true);
        while self.watchers.tasks.join_next().await.is_some() {}
    }
}

/// Builds and starts a gateway.
///
/// # Errors
/// [`StartError`] names what could not be used and what to do.
pub async fn start(config: Config, environment: Environment, patience: Patience) -> Result<Running, StartError> {
    config.check_paths().map_err(|e| fail("paths")(&e))?;
    let clock: Arc<dyn Clock> = Arc::new(SteadyClock::new(Arc::new(SystemClock)));
    let now = clock.now().map_err(|e| fail("clock")(&e))?;
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let store = store::open(&config, now).map_err(|e| fail("ledger")(&e))?;
    let key = store.key();
    let fresh = random(&*clock).map_err(|e| fail("clock")(&e))?;
    let (store_id, work) = (store.store_id(), store.work());
    let ledger: Arc<dyn Ledger> = Arc::new(store);
    let signed = !ledger.checkpoints(1).await.map_err(|e| fail("ledger")(&e))?.is_empty();
    let log = Log::open(&config.ledger, store_id, fresh, signed).map_err(|e| fail("ledger.log-key")(&e))?;
    ledger
        .agree("currency", config.gateway.currency.clone(), now)
        .await
        .map_err(|e| other_word("gateway.currency", "", e))?;
    let of_the_log = ledger.agree("log-key", log.verifier().to_string(), now).await;
    of_the_log.map_err(|e| other_word("ledger.log-key", &format!("{}: ", config.ledger.log_key.display()), e))?;
    match log.compare(&*ledger, now).await.map_err(|e| fail("ledger.anchor")(&e))? {
        Some(stop) => tracing::error!(why = stop.reason, "nothing is signed until an operator lifts this stop"),
        None => tracing::info!(key = %log.verifier(), "records are checked with this key"),
    }
    if !reload::has_good_one(&*ledger).await.map_err(|e| fail("ledger")(&e))? {
        // Nothing could serve in their place: better told at once.
        config.check_modules().map_err(|e| fail("paths")(&e))?;
    }
    let base = ledgers_word(&*ledger, &config, &environment).await?;
    let engine = Engine::new(config.engine.config(code_key(&key))).map_err(|e| fail("[engine]")(&e))?;
    let mut signers = signers(base.as_ref().unwrap_or(&config))?;
    let tls_files = config.gateway.tls.as_ref();
    let certificates = tls_files.map(Certificates::open).transpose().map_err(|e| fail("gateway.tls")(&e))?;
    let scheme = if certificates.is_some() { "https" } else { "http" };
    let (for_agents, for_operators) =
        certificates.as_ref().map(|c| (c.of(Side::Agents), c.of(Side::Operators))).unzip();
    let bind =
        |address: std::net::SocketAddr, tls| Acceptor::bind(address, tls).map_err(|e| fail(&address.to_string())(&e));
    let agents = bind(config.gateway.listen, for_agents)?;
    let operators = bind(config.gateway.admin, for_operators)?;
    let local = |a: &Acceptor| a.listener.local_addr().map_err(|e| fail("listen")(&e));
    let (agent, admin) = (local(&agents)?, local(&operators)?);

    let shared = config.common().is_some();
    let first = match FirstStart::stage(&engine, &*ledger, config.clone(), base, now).await {
        // Another gateway made the first generation meanwhile: it is ours, too.
        Err(LedgerError::Conflict(_)) if shared => {
            let base = ledgers_word(&*ledger, &config, &environment).await?;
            signers = self::signers(base.as_ref().unwrap_or(&config))?;
            FirstStart::stage(&engine, &*ledger, config, base, now).await
        }
        first => first,
    };
    let first = first.map_err(|e| fail("ledger")(&e))?;
    for denies in first.snapshot.policies.errors() {
        tracing::error!("{denies}; every purchase it judges is denied");
    }
    let stops = Stops::new(ledger.suspensions().await.map_err(|e| fail("ledger")(&e))?);
    let FirstStart { snapshot, parts } = first;
    let judging = snapshot.config.engine.instances as usize;
    let tls = tls();
    let receivers = Receivers::of(&snapshot.config, &tls, &clock, hex::encode(store_id))?;
    // Whom no purchase may reach: those who are told things, and the ledger's own server.
    let mut others = receivers.places();
    if let config::Store::Postgres { database, .. } = &snapshot.config.ledger.store {
        others.extend(database.address().map(|(host, port)| (host.to_owned(), port)));
    }
    let chains = Arc::new(Chains::new(tls.clone(), Arc::clone(&clock), others));
    chains.configure(&snapshot.config.networks).map_err(|e| fail("network")(&e))?;
    let roots = snapshot.config.egress.roots.as_deref();
    let sellers = roots.map(tls_believing).transpose().map_err(|e| fail("egress.roots")(&e))?.unwrap_or(tls);
    let patience = Patience { head_ms: snapshot.config.egress.answer_ms.unwrap_or(patience.head_ms), ..patience };
    let dialer = Dialer::new(Arc::clone(&clock), sellers, Box::new(SystemNames), patience);
    let own: Vec<_> = chains.addresses().await.into_iter().chain([agent, admin]).collect();
    dialer.set_own(own);
    let ca = Vouch::new(snapshot.config.proxy.ca.clone());
    let gateway = Arc::new(Gateway {
        clock: Arc::clone(&clock),
        ledger,
        work,
        telemetry: Telemetry::default(),
        alerted: Notify::new(),
        asked: Notify::new(),
        log,
        key,
        live: ArcSwap::from_pointee(snapshot),
        signers,
        dialer: Arc::new(dialer),
        chains,
        stops,
        admission: Admission::default(),
        flights: Flights::default(),
        judging: Semaphore::new(judging),
        staging: Arc::new(Semaphore::new(STAGING)),
        shadows: Shadows::start(Arc::clone(&engine)).map_err(|e| fail("shadows")(&e))?,
        rate: RateLimiter::default(),
        vouch: ca,
        issuers: Issuers::default(),
        tunnels: Tunnels::default(),
        upstreams: Upstreams::default(),
        listeners: [agent, admin],
        base_url: format!("{scheme}://{agent}"),
        admin_url: format!("{scheme}://{admin}"),
    });
    let reloader = Arc::new(Reloader::new(engine, Arc::clone(&gateway), environment, parts));
    gateway.chains.watch_open(&gateway).await.map_err(|e| fail("ledger")(&e))?;

    // Before anybody is served, so that every purchase is told.
    let watchers = receivers.start(&gateway);
    let (stop, stopped) = watch::channel(false);
    let mut tasks = JoinSet::new();
    tasks.spawn(serve(agents, Door::Agent(Arc::clone(&gateway)), stopped.clone()));
    let (gateway_there, reloader_there) = (Arc::clone(&gateway), Arc::clone(&reloader));
    let door = Door::Admin(Admin { gateway: gateway_there, reloader: reloader_there, quorum: Arc::default() });
    tasks.spawn(serve(operators, door, stopped.clone()));
    tasks.spawn(watching::follow(Arc::clone(&gateway), Arc::clone(&reloader), stopped.clone()));
    tasks.spawn(expire(Arc::clone(&gateway), stopped.clone()));
    tasks.spawn(vouch(Arc::clone(&gateway), stopped.clone()));
    if let Some(certificates) = certificates {
        tasks.spawn(certificates.follow(Arc::clone(&gateway), stopped.clone()));
    }
    if shared {
        tasks.spawn(follow_others(Arc::clone(&gateway), Arc::clone(&reloader), stopped.clone()));
    }
    tasks.spawn(compare(Arc::clone(&gateway), stopped));
    tracing::info!(%agent, %admin, "serving");
    Ok(Running { gateway, reloader, agent, admin, stop, tasks, watchers })
}

/// What the operator named to be told.
struct Receivers {
    exporter: Option<Exporter>,
    couriers: Vec<Courier>,
}

impl Receivers {
    fn of(config: &Config, tls: &TlsConnector, clock: &Arc<dyn Clock>, store: String) -> Result<Self, StartError> {
        let endpoint =
            |url: &String, key: &str| Endpoint::new(url, tls.clone(), Arc::clone(clock)).map_err(|e| fail(key)(&e));
        let telemetry = &config.telemetry;
        let exporter = match &telemetry.otlp {
            Some(url) => Some(Exporter {
                endpoint: endpoint(url, "telemetry.otlp")?,
                headers: telemetry::headers(&telemetry.headers),
                source: Source { instance: store.clone() },
                every_ms: telemetry.every_ms,
            }),
            None => None,
        };
        let courier = |subject, webhook: &Option<Webhook>, url: &str, secret: &str| match webhook {
            Some(webhook) => Ok(Some(Courier {
                subject,
                endpoint: endpoint(&webhook.url, url)?,
                key: webhook.key().ok_or_else(|| fail(secret)(&"not a signing secret"))?,
                store: store.clone(),
            })),
            None => Ok(None),
        };
        let alerts = courier(Subject::Alerts, &config.alerts.webhook, "alerts.webhook", "alerts.secret")?;
        let approvals = &config.approvals.webhook;
        let approvals = courier(Subject::Approvals, approvals, "approvals.webhook", "approvals.webhook-secret")?;
        Ok(Self { exporter, couriers: alerts.into_iter().chain(approvals).collect() })
    }

    fn places(&self) -> Vec<(String, u16)> {
        let exporter = self.exporter.iter().filter_map(|e| e.endpoint.place());
        exporter.chain(self.couriers.iter().filter_map(|c| c.endpoint.place())).collect()
    }

    fn start(self, gateway: &Arc<Gateway>) -> Watchers {
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        if let Some(exporter) = self.exporter {
            let (sink, traces) = Sink::new();
            if gateway.telemetry.sink.set(sink).is_ok() {
                tasks.spawn(exporter.run(Arc::clone(gateway), traces, stopped.clone()));
            }
        }
        for courier in self.couriers {
            tasks.spawn(courier.run(Arc::clone(gateway), stopped.clone()));
        }
        Watchers { stop, tasks }
    }
}

/// The configuration of a shared ledger's newest generation, if there is one.
async fn ledgers_word(
    ledger: &dyn Ledger,
    config: &Config,
    environment: &Environment,
) -> Result<Option<Config>, StartError> {
    let base = reload::of_the_ledger(ledger, config, environment).await;
    base.map_err(|why| StartError(format!("the ledger's generation: {why}")))
}

/// The wallets of a configuration.
fn signers(config: &Config) -> Result<BTreeMap<String, Arc<dyn Signer>>, StartError> {
    let load = |(name, settings): (&String, &config::WalletConfig)| {
        let signer = wallet::load(name, settings).map_err(|e| fail("wallet")(&e))?;
        tracing::info!(wallet = name, address = %signer.address(), "wallet");
        Ok((name.clone(), signer))
    };
    config.wallets.iter().map(load).collect()
}

/// What compiled policies are authenticated with: from the store's key, which is not in their folder.
fn code_key(store: &[u8; 32]) -> [u8; 32] {
    Sha256::new().chain_update(b"countersign compiled policies v1").chain_update(store).finalize().into()
}

/// A word that the ledger does not agree to.
fn other_word(key: &str, place: &str, error: LedgerError) -> StartError {
    StartError(match error {
        LedgerError::Conflict(stands) => format!(
            "{key}: {place}this ledger has been kept with `{stands}` since it was first used, and that never changes"
        ),
        other => format!("{key}: {place}{other}"),
    })
}

/// Takes over what other gateways on the ledger decide: stops, generations, and payments that somebody must follow.
async fn follow_others(gateway: Arc<Gateway>, reloader: Arc<Reloader>, mut stop: watch::Receiver<bool>) {
    let mut seen = 0;
    loop {
        tokio::select! {
            _ = stop.changed() => return,
            now = gateway.ledger.changed(seen) => seen = now,
            // What could not be taken over is tried again.
            () = gateway.clock.sleep(EXPIRY_MS) => {}
        }
        let changes = gateway.stops.changes();
        match gateway.ledger.suspensions().await {
            Ok(stops) => gateway.stops.take_over(changes, stops),
            Err(error) => tracing::warn!(%error, "the stops that other gateways ordered could not be read"),
        }
        reloader.adopt().await;
        if let Err(error) = gateway.chains.watch_open(&gateway).await {
            tracing::warn!(%error, "the payments of other gateways could not be read");
        }
        tokio::select! {
            _ = stop.changed() => return,
            () = gateway.clock.sleep(OTHERS_MS) => {}
        }
    }
}

/// Lets lapsed approvals go, so that their budgets come back without anybody asking.
async fn expire(gateway: Arc<Gateway>, mut stop: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            _ = stop.changed() => return,
            () = gateway.clock.sleep(EXPIRY_MS) => {}
        }
        let expired: Result<u32, LedgerError> = match gateway.clock.now() {
            Ok(now) => gateway.ledger.expire_approvals(now).await,
            Err(_) => continue,
        };
        match expired {
            Ok(0) => {}
            Ok(count) => {
                gateway.asked.notify_one();
                tracing::info!(count, "approvals lapsed");
            }
            Err(error) => tracing::warn!(%error, "approvals could not be lapsed"),
        }
    }
}

/// Signs what was recorded, every now and then.
async fn vouch(gateway: Arc<Gateway>, mut stop: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            _ = stop.changed() => return,
            () = gateway.clock.sleep(CHECKPOINT_MS) => checkpoint(&gateway).await,
        }
    }
}

/// Compares the ledger with the chain, every now and then, if there is a node to ask.
async fn compare(gateway: Arc<Gateway>, mut stop: watch::Receiver<bool>) {
    let mut last = None;
    loop {
        tokio::select! {
            _ = stop.changed() => return,
            () = gateway.clock.sleep(RECONCILE_MS) => {}
        }
        let Ok(now) = gateway.clock.now() else { continue };
        if gateway.chains.all().is_empty() {
            continue;
        }
        let since = last.map_or_else(
            || now.minus_millis(reconcile::FIRST_MS),
            |last: Timestamp| last.minus_millis(reconcile::OVERLAP_MS),
        );
        let compared = tokio::select! {
            _ = stop.changed() => return,
            compared = reconcile::run(&gateway, since) => compared,
        };
        match compared {
            Ok(compared) => {
                // What could not be read is read next time.
                if compared.problems.is_empty() {
                    last = Some(compared.through.min(now));
                }
                tracing::info!(verdict = compared.report.verdict().as_str(), "compared with the chain");
            }
            Err(error) => tracing::warn!(%error, "not compared with the chain"),
        }
    }
}

async fn checkpoint(gateway: &Gateway) {
    if let Err(error) = gateway.log.checkpoint(&*gateway.ledger).await {
        tracing::error!(%error, "the records could not be signed for");
    }
}

/// `countersign serve`: runs until it is told to stop.
///
/// # Errors
/// [`StartError`].
pub async fn run(config: Config, environment: Environment) -> Result<(), StartError> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).map_err(|e| fail("signal")(&e))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|e| fail("signal")(&e))?;
    let running = Box::pin(start(config, environment, Patience::default())).await?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("draining");
    running.drain().await;
    tracing::info!("stopped");
    Ok(())
}
