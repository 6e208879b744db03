//! The ledger compared with the chain: what left and reached our wallets in final blocks, against what
//! was signed, settled and booked. It changes nothing by itself; refunds that it finds are booked, and
//! money that moved without the ledger knowing stops its wallet.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use countersign_books::reconcile::{Class, Coverage, LedgerRow, Report, Transfer, Wallet, reconcile};
use countersign_chain::{Act, Anchor, CONFIRM_SECONDS, Paid, RefundMatch, Scan, refund_of};
use countersign_core::evm::{Address, hex32};
use countersign_core::id::PaymentId;
use countersign_core::ledger::{
    Ledger, LedgerError, Note, PaymentFilter, PaymentView, Refund, RefundSource, Suspension, SuspensionScope,
};
use countersign_core::money::Atomic;
use countersign_core::payment::State;
use countersign_core::time::Timestamp;
use countersign_core::x402::{AssetTable, Network};
use serde_json::json;

use crate::chain::{Chain, ChainError};
use crate::state::Gateway;

/// Payments read at a time.
const PAGE: u32 = 500;
/// How far back the first comparison of a running gateway reaches, in milliseconds.
pub const FIRST_MS: u64 = 86_400_000;
/// How far the later ones reach back behind the one before, in milliseconds: longer than any final block takes.
pub const OVERLAP_MS: u64 = 7_200_000;
/// Longer than a review and the authorization after it may take from the purchase on, in milliseconds.
const LONGEST_MS: u64 = 97_200_000;
/// How far apart the two comparisons must be that a refund needs which one node alone tells of: by our clock
/// and by the chain's, in milliseconds.
const CONFIRM_MS: u64 = CONFIRM_SECONDS * 1_000;

/// Why nothing was compared.
#[derive(Debug)]
pub enum ReconcileError {
    /// The chain could not be read.
    Chain(ChainError),
    /// The ledger could not.
    Ledger(LedgerError),
}

impl fmt::Display for ReconcileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Chain(e) => fmt::Display::fmt(e, f),
            Self::Ledger(e) => fmt::Display::fmt(e, f),
        }
    }
}

impl std::error::Error for ReconcileError {}

impl From<LedgerError> for ReconcileError {
    fn from(e: LedgerError) -> Self {
        Self::Ledger(e)
    }
}

/// What is compared.
pub struct Subject<'a> {
    /// The ledger.
    pub ledger: &'a dyn Ledger,
    /// What can be paid with.
    pub assets: &'a AssetTable,
    /// Our addresses, by network.
    pub payers: BTreeMap<Network, BTreeSet<Address>>,
    /// From when on.
    pub since: Timestamp,
    /// What earlier comparisons heard from one node alone.
    pub unconfirmed: &'a Unconfirmed,
}

/// A comparison, and the refunds that it found beyond doubt.
pub struct Compared {
    /// What agrees and what does not.
    pub report: Report,
    /// Transfers that give back exactly one payment and are not booked.
    pub refunds: Vec<Refund>,
    /// Up to where every network was read: the least of their final blocks' times.
    pub through: Timestamp,
    /// What could not be read, and is not covered.
    pub problems: Vec<String>,
}

/// Every payment of the ledger from `since` on that has a payload.
///
/// # Errors
/// When the ledger cannot be read.
pub async fn payments(ledger: &dyn Ledger, since: Timestamp) -> Result<Vec<PaymentView>, LedgerError> {
    let filter = PaymentFilter { after: Some(PaymentId::first_of(since)), ..PaymentFilter::default() };
    let mut all = pages(ledger, filter).await?;
    all.retain(|payment| payment.authorization.is_some());
    Ok(all)
}

async fn pages(ledger: &dyn Ledger, mut filter: PaymentFilter) -> Result<Vec<PaymentView>, LedgerError> {
    filter.limit = PAGE;
    let mut all = Vec::new();
    loop {
        let page = ledger.payments(filter.clone()).await?;
        let next = page.last().filter(|_| page.len() >= PAGE as usize).map(|last| last.id);
        all.extend(page);
        match next {
            Some(last) => filter.after = Some(last),
            None => return Ok(all),
        }
    }
}

/// Compares with everything the chains show, up to their anchors. What of them cannot be read is told in the
/// answer.
///
/// # Errors
/// When the ledger cannot be read.
pub async fn compare(
    subject: &Subject<'_>,
    chains: &[(Arc<Chain>, Anchor)],
    now: Timestamp,
) -> Result<Compared, ReconcileError> {
    let mut transfers = Vec::new();
    let (mut coverage, mut wallets, mut came_in) = (Vec::new(), Vec::new(), Vec::new());
    let mut earliest = subject.since;
    let (mut through, mut problems) = (now, Vec::new());
    for (chain, anchor) in chains {
        let network = chain.reader.network();
        let Some(payers) = subject.payers.get(&network) else { continue };
        let (from, began) = match chain.reader.first_block(anchor, subject.since).await {
            Ok(first) => first,
            Err(error) => {
                problems.push(format!("{network}: {error}"));
                continue;
            }
        };
        earliest = earliest.min(Timestamp::from_secs(began));
        through = through.min(Timestamp::from_secs(anchor.block().time));
        let mut whole = true;
        for asset in subject.assets.iter().filter(|asset| asset.network == network) {
            let mut next = from;
            while next <= anchor.block().number {
                let scan = chain.reader.scan(anchor, asset.address, payers, (next, anchor.block().number)).await;
                let scan = match scan {
                    Ok(scan) => scan,
                    Err(error) => {
                        // One asset's trouble hides nothing of the others.
                        problems.push(format!("{} on {network}: {error}", asset.id));
                        whole = false;
                        break;
                    }
                };
                next = scan.through.saturating_add(1);
                transfers.extend(told(network, asset.address, &scan));
                let sighted = |transfer| Sighted { network, asset: asset.address, transfer, nodes: anchor.nodes() };
                came_in.extend(scan.incoming.into_iter().map(sighted));
            }
        }
        let (network, until) = (network.to_string(), anchor.block().time);
        if whole {
            coverage.push(Coverage { network: network.clone(), from: began, until });
        }
        wallets.extend(
            payers
                .iter()
                .map(|payer| Wallet { network: network.clone(), address: payer.to_string().to_ascii_lowercase() }),
        );
    }
    // Read after the chain: what is settled meanwhile is in both. What was redeemed in the first block may have
    // been signed as long before as an authorization lives.
    let payments = payments(subject.ledger, earliest.minus_millis(LONGEST_MS)).await?;
    let rows: Vec<LedgerRow> = payments.iter().filter_map(LedgerRow::of).collect();
    let mut report = reconcile(&rows, &transfers, &coverage, &wallets);
    // They were read to be matched, not to be judged: nothing was to be seen of them.
    let ours: BTreeSet<PaymentId> = payments.iter().filter(|p| p.created_at >= subject.since).map(|p| p.id).collect();
    report.forget(|finding| {
        finding.class == Class::NotCovered && finding.payment.is_some_and(|payment| !ours.contains(&payment))
    });
    let refunds = refunds(subject, came_in, through, now).await?;
    Ok(Compared { report, refunds, through, problems })
}

/// A transfer to one of our wallets, and how many nodes tell of it.
struct Sighted {
    network: Network,
    asset: Address,
    transfer: countersign_chain::Transfer,
    nodes: u8,
}

/// Transfers that one node alone has told of: when we first heard, and how far the chain was final then.
pub type Unconfirmed = Mutex<BTreeMap<(String, u64), (Timestamp, Timestamp)>>;

/// The transfers that give back exactly one payment, whenever it was made, and are not booked.
async fn refunds(
    subject: &Subject<'_>,
    came_in: Vec<Sighted>,
    through: Timestamp,
    now: Timestamp,
) -> Result<Vec<Refund>, LedgerError> {
    let ledger = subject.ledger;
    let mut known: BTreeMap<Address, Vec<PaymentView>> = BTreeMap::new();
    let mut refunds: Vec<Refund> = Vec::new();
    for Sighted { network, asset, transfer, nodes } in came_in.into_iter().filter(|one| moves(&one.transfer)) {
        if let Entry::Vacant(unknown) = known.entry(transfer.from) {
            let states = State::ALL.into_iter().filter(|state| state.is_spent() || state.is_open()).collect();
            let pay_to = Some(transfer.from.to_string());
            let after = Some(PaymentId::first_of(Timestamp::default()));
            let filter = PaymentFilter { states, pay_to, after, ..PaymentFilter::default() };
            unknown.insert(pages(ledger, filter).await?);
        }
        let Some(payments) = known.get(&transfer.from) else { continue };
        // It may give back one of these, whose redemption is not recorded yet: the next comparison knows.
        let open = |p: &PaymentView| {
            let authorization = p.authorization.as_ref().filter(|_| p.state.is_open());
            authorization
                .is_some_and(|a| (a.offer.network, a.offer.asset.address, a.from) == (network, asset, transfer.to))
        };
        if payments.iter().any(open) {
            continue;
        }
        let transaction = hex32::print(&transfer.place.transaction);
        let place = (transaction.clone(), transfer.place.log);
        if payments.iter().flat_map(|p| &p.refunds).filter_map(transfer_of).any(|booked| booked == place) {
            continue;
        }
        let mut paid: Vec<Paid> = payments.iter().filter_map(paid).collect();
        for earlier in &refunds {
            for one in paid.iter_mut().filter(|one| one.payment == earlier.payment) {
                one.refunded = Atomic::new(one.refunded.get().saturating_add(earlier.amount.get()));
            }
        }
        let (RefundMatch::One(payment), Some(amount)) = (refund_of(&transfer, network, asset, &paid), transfer.value)
        else {
            continue;
        };
        if nodes < 2 && !confirmed(subject.unconfirmed, place, through, now) {
            continue;
        }
        let source = RefundSource::Chain { transaction, log: transfer.place.log, block: transfer.place.block };
        refunds.push(Refund { payment, amount, source, at: now });
    }
    Ok(refunds)
}

/// Whether one node alone has said it twice, far enough apart.
fn confirmed(unconfirmed: &Unconfirmed, place: (String, u64), through: Timestamp, now: Timestamp) -> bool {
    let mut unconfirmed = unconfirmed.lock().unwrap_or_else(PoisonError::into_inner);
    let (at, was) = *unconfirmed.entry(place).or_insert((now, through));
    now.since(at) >= CONFIRM_MS && through.since(was) >= CONFIRM_MS
}

/// Whether anything moved. Anybody may make a token say that nothing left or reached anybody's address.
fn moves(transfer: &countersign_chain::Transfer) -> bool {
    transfer.value != Some(Atomic::default())
}

/// A scan as the books compare it.
fn told(network: Network, asset: Address, scan: &Scan) -> Vec<Transfer> {
    let lower = |address: Address| address.to_string().to_ascii_lowercase();
    let one = |moved: &countersign_chain::Transfer, nonce: Option<&[u8; 32]>| Transfer {
        network: network.to_string(),
        asset: lower(asset),
        from: lower(moved.from),
        to: lower(moved.to),
        // From 2^128 on nothing is ours: the largest amount differs from every payment's.
        amount: moved.value.map_or(u128::MAX, Atomic::get),
        transaction: hex32::print(&moved.place.transaction),
        log: moved.place.log,
        block: moved.place.block,
        time: scan.times.get(&moved.place.block).copied().unwrap_or_default(),
        nonce: nonce.map(hex32::print),
    };
    let acts = scan.acts.iter().filter_map(|act| match act {
        Act::Redeemed(redemption) => redemption.transfer.as_ref().map(|moved| one(moved, Some(&redemption.nonce))),
        Act::Cancelled { .. } => None,
        Act::Other(moved) => moves(moved).then(|| one(moved, None)),
    });
    acts.chain(scan.incoming.iter().filter(|moved| moves(moved)).map(|moved| one(moved, None))).collect()
}

/// A settled payment, as far as refunds go.
fn paid(payment: &PaymentView) -> Option<Paid> {
    let authorization = payment.authorization.as_ref().filter(|_| payment.state.is_spent())?;
    let evidence = payment.evidence.as_deref();
    let refunded = payment.refunds.iter().fold(0_u128, |sum, refund| sum.saturating_add(refund.amount.get()));
    Some(Paid {
        payment: payment.id,
        network: authorization.offer.network,
        asset: authorization.offer.asset.address,
        payer: authorization.from,
        payee: authorization.offer.pay_to,
        settled: evidence.and_then(|e| e.redeemed).unwrap_or(authorization.offer.amount),
        refunded: Atomic::new(refunded),
        block: evidence.and_then(|e| e.block).unwrap_or_default(),
    })
}

fn transfer_of(refund: &Refund) -> Option<(String, u64)> {
    match &refund.source {
        RefundSource::Chain { transaction, log, .. } => Some((transaction.clone(), *log)),
        RefundSource::Person { .. } => None,
    }
}

/// Our addresses on the networks that each wallet may sign for.
#[must_use]
pub fn payers(gateway: &Gateway) -> BTreeMap<Network, BTreeSet<Address>> {
    let live = gateway.live.load();
    let mut payers: BTreeMap<Network, BTreeSet<Address>> = BTreeMap::new();
    for (name, signer) in &gateway.signers {
        for network in live.config.wallets.get(name).into_iter().flat_map(|wallet| &wallet.networks) {
            payers.entry(*network).or_default().insert(signer.address());
        }
    }
    payers
}

/// Compares the running gateway's ledger with its chains, books the refunds that are beyond doubt, and stops
/// the wallets that money left without the ledger knowing.
///
/// # Errors
/// When either cannot be read; nothing was booked then.
pub async fn run(gateway: &Gateway, since: Timestamp) -> Result<Compared, ReconcileError> {
    let _turn = gateway.chains.comparing.lock().await;
    let (mut chains, mut unread) = (Vec::new(), Vec::new());
    for chain in gateway.chains.all() {
        match chain.anchor(gateway).await {
            Ok(anchor) => chains.push((chain, anchor)),
            // One network's trouble hides nothing of the others.
            Err(error) => unread.push(format!("{}: {error}", chain.reader.network())),
        }
    }
    let now = gateway.clock.now().map_err(|e| ReconcileError::Chain(ChainError::Clock(e)))?;
    let assets = gateway.live.load().config.assets.clone();
    let subject = Subject {
        ledger: &*gateway.ledger,
        assets: &assets,
        payers: payers(gateway),
        since,
        unconfirmed: &gateway.chains.unconfirmed,
    };
    let mut compared = compare(&subject, &chains, now).await?;
    compared.problems.extend(unread);
    for problem in &compared.problems {
        tracing::warn!(problem, "not compared with the chain");
    }
    let mut booked = Vec::new();
    for refund in std::mem::take(&mut compared.refunds) {
        match gateway.ledger.refund(refund.clone()).await {
            Ok(_) => {
                tracing::info!(payment = %refund.payment, amount = refund.amount.get(), "money came back");
                booked.push(refund);
            }
            Err(error) => tracing::warn!(payment = %refund.payment, %error, "a refund was not booked"),
        }
    }
    compared.refunds = booked;
    stop_what_leaks(gateway, &compared.report, now).await;
    Ok(compared)
}

/// Money that left a wallet without the ledger knowing means that somebody else has its key, or that the ledger
/// is not the one that signed: nothing more is signed with it until a person has looked.
async fn stop_what_leaks(gateway: &Gateway, report: &Report, now: Timestamp) {
    let leaks = [Class::ChainOnly, Class::ReleasedButRedeemed];
    for (name, signer) in &gateway.signers {
        let scope = SuspensionScope::Wallet(name.clone());
        if gateway.stops.list().iter().any(|stop| stop.scope == scope) {
            continue;
        }
        let address = signer.address().to_string().to_ascii_lowercase();
        let leaking = report.findings.iter().filter(|f| leaks.contains(&f.class) && f.wallet == address);
        // What it was stopped for already does not stop it again: whoever lifted that has looked.
        let found: Vec<_> = {
            let mut alarmed = gateway.chains.alarmed.lock().unwrap_or_else(PoisonError::into_inner);
            leaking.filter(|f| alarmed.insert((f.transaction.clone().unwrap_or_default(), f.log))).collect()
        };
        let Some(finding) = found.first() else { continue };
        let transaction = finding.transaction.as_deref().unwrap_or("an unknown transaction");
        let more = match found.len() {
            1 => String::new(),
            count => format!(" and {} more", count.saturating_sub(1)),
        };
        let reason =
            format!("{transaction}{more} moved money of it that the ledger does not account for ({})", finding.class);
        tracing::error!(wallet = name, reason, "stopped");
        let stop = Suspension { scope, by: crate::log::BY.to_owned(), reason, at: now };
        gateway.stops.add(stop.clone());
        let scope = stop.scope.clone();
        let body = json!({"wallet": name, "class": finding.class.as_str(), "transaction": finding.transaction});
        let note = Note { kind: "chain-alarm", by: String::new(), body, at: now };
        match gateway.ledger.suspend(stop).await {
            Ok(()) => gateway.stops.told(&scope),
            Err(error) => tracing::error!(%error, "the stop holds in this process only"),
        }
        if let Err(error) = gateway.ledger.note(note).await {
            tracing::error!(%error, "the alarm could not be recorded");
        }
    }
}
