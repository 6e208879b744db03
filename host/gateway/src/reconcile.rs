//! The ledger compared with the chain: what left and reached our wallets in final blocks, against what
//! was signed, settled and booked. It changes nothing by itself; refunds that it finds are booked, and
//! money that moved without the ledger knowing stops its wallet.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use countersign_books::reconcile::{Class, Coverage, LedgerRow, Report, Transfer, Wallet, reconcile};
use countersign_chain::{Act, Anchor, Paid, ReadError, RefundMatch, Scan, refund_of};
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
/// Longer than any authorization lives, in milliseconds.
const LONGEST_MS: u64 = 86_400_000;

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

impl From<ReadError> for ReconcileError {
    fn from(e: ReadError) -> Self {
        Self::Chain(ChainError::Read(e))
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
}

/// A comparison, and the refunds that it found beyond doubt.
pub struct Compared {
    /// What agrees and what does not.
    pub report: Report,
    /// Transfers that give back exactly one payment and are not booked.
    pub refunds: Vec<Refund>,
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

/// Compares with everything the chain shows on one network, up to `anchor`.
///
/// # Errors
/// When either cannot be read.
pub async fn compare(
    subject: &Subject<'_>,
    chains: &[(Arc<Chain>, Anchor)],
    now: Timestamp,
) -> Result<Compared, ReconcileError> {
    let mut transfers = Vec::new();
    let (mut coverage, mut wallets, mut came_in) = (Vec::new(), Vec::new(), Vec::new());
    let mut earliest = subject.since;
    for (chain, anchor) in chains {
        let network = chain.reader.network();
        let Some(payers) = subject.payers.get(&network) else { continue };
        let (from, began) = chain.reader.first_block(anchor, subject.since).await?;
        earliest = earliest.min(Timestamp::from_secs(began));
        for asset in subject.assets.iter().filter(|asset| asset.network == network) {
            let mut next = from;
            while next <= anchor.block().number {
                let scan = chain.reader.scan(anchor, asset.address, payers, (next, anchor.block().number)).await?;
                next = scan.through.saturating_add(1);
                transfers.extend(told(network, asset.address, &scan));
                came_in.extend(scan.incoming.into_iter().map(|transfer| (network, asset.address, transfer)));
            }
        }
        let (network, until) = (network.to_string(), anchor.block().time);
        coverage.push(Coverage { network: network.clone(), from: began, until });
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
    let refunds = refunds(subject.ledger, came_in, now).await?;
    Ok(Compared { report, refunds })
}

/// The transfers that give back exactly one payment, whenever it was made, and are not booked.
async fn refunds(
    ledger: &dyn Ledger,
    came_in: Vec<(Network, Address, countersign_chain::Transfer)>,
    now: Timestamp,
) -> Result<Vec<Refund>, LedgerError> {
    let mut known: BTreeMap<Address, Vec<PaymentView>> = BTreeMap::new();
    let mut refunds: Vec<Refund> = Vec::new();
    for (network, asset, transfer) in came_in {
        if let Entry::Vacant(unknown) = known.entry(transfer.from) {
            let states = State::ALL.into_iter().filter(|state| state.is_spent()).collect();
            let pay_to = Some(transfer.from.to_string());
            let after = Some(PaymentId::first_of(Timestamp::default()));
            let filter = PaymentFilter { states, pay_to, after, ..PaymentFilter::default() };
            unknown.insert(pages(ledger, filter).await?);
        }
        let Some(payments) = known.get(&transfer.from) else { continue };
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
        let source = RefundSource::Chain { transaction, log: transfer.place.log, block: transfer.place.block };
        refunds.push(Refund { payment, amount, source, at: now });
    }
    Ok(refunds)
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
        Act::Other(moved) => Some(one(moved, None)),
    });
    acts.chain(scan.incoming.iter().map(|moved| one(moved, None))).collect()
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
    let mut chains = Vec::new();
    for chain in gateway.chains.all() {
        let anchor = chain.anchor(gateway).await.map_err(ReconcileError::Chain)?;
        chains.push((chain, anchor));
    }
    let now = gateway.clock.now().map_err(|e| ReconcileError::Chain(ChainError::Clock(e)))?;
    let assets = gateway.live.load().config.assets.clone();
    let subject = Subject { ledger: &*gateway.ledger, assets: &assets, payers: payers(gateway), since };
    let mut compared = compare(&subject, &chains, now).await?;
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
    let leaking: BTreeMap<&str, &countersign_books::reconcile::Finding> = report
        .findings
        .iter()
        .filter(|finding| leaks.contains(&finding.class))
        .map(|finding| (finding.wallet.as_str(), finding))
        .collect();
    for (name, signer) in &gateway.signers {
        let Some(finding) = leaking.get(signer.address().to_string().to_ascii_lowercase().as_str()) else { continue };
        let scope = SuspensionScope::Wallet(name.clone());
        let transaction = finding.transaction.as_deref().unwrap_or("an unknown transaction");
        if gateway.stops.list().iter().any(|stop| stop.scope == scope) {
            continue;
        }
        let reason =
            format!("{transaction} moved money of it that the ledger does not account for ({})", finding.class);
        tracing::error!(wallet = name, reason, "stopped");
        let stop = Suspension { scope, by: crate::log::BY.to_owned(), reason, at: now };
        gateway.stops.add(stop.clone());
        let body = json!({"wallet": name, "class": finding.class.as_str(), "transaction": finding.transaction});
        let note = Note { kind: "chain-alarm", by: String::new(), body, at: now };
        for told in [gateway.ledger.suspend(stop).await, gateway.ledger.note(note).await] {
            if let Err(error) = told {
                tracing::error!(%error, "the stop holds in this process only");
            }
        }
    }
}
