//! One life: a host with one budget, its sellers, its chain, and everything that goes wrong between them.
//!
//! The host does what the gateway does, through the real ledger, the real permits and the real reader of
//! the chain. Beside it stands what is true: which signatures exist, and what the chain holds. A life is
//! deterministic: its seed decides everything, whatever other lives share its store.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;

use countersign_chain::fake::{Call as TokenCall, Chain, FakeNode, Lie, Mood, Transaction};
use countersign_chain::{
    Finality, Finding, Node, Paid, Pending, Reader, RefundMatch, Subject, Unused, Watch, refund_of,
};
use countersign_core::evm::TransferWithAuthorization;
use countersign_core::ledger::{
    Cast, Channel, Commit, Evidence, Finalized, Ledger, LedgerError, PaymentView, Refund, RefundSource, Refusal,
    Transition,
};
use countersign_core::money::Atomic;
use countersign_core::payment::{Event, State};
use countersign_core::permit::{Granted, Permit, Represented, Sealed, commit, represent};
use countersign_core::time::Timestamp;
use countersign_core::x402::Authorization;
use countersign_ledger::SqliteLedger;

use crate::chance::Chance;
use crate::purchase::{LIMIT, Wish, asset, network, payer, sign, stranger};
use crate::together::begin;

/// A mistake the host may make, for showing that it would be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
    /// A failed call frees the hold, with evidence made up.
    FreesOnHttpError,
    /// The budget's hold is not asked for.
    ForgetsAHold,
    /// One node is enough, and one reading.
    BelievesOneNode,
    /// The newest block counts as final.
    ReadsAtTheHead,
    /// A repeated call becomes a new purchase.
    SignsASecondNonce,
    /// The seller is paid before the ledger has answered.
    PaysBeforeCommit,
    /// What a refund was is not looked at: the same transfer is booked under another number.
    BooksRefundsTwice,
    /// What was redeemed is not told, so the whole hold counts as spent.
    ForgetsPartialRedemption,
}

impl Bug {
    pub(crate) const ALL: [Self; 8] = [
        Self::FreesOnHttpError,
        Self::ForgetsAHold,
        Self::BelievesOneNode,
        Self::ReadsAtTheHead,
        Self::SignsASecondNonce,
        Self::PaysBeforeCommit,
        Self::BooksRefundsTwice,
        Self::ForgetsPartialRedemption,
    ];
}

/// Why a life does not go on.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The process died here; the next one opens the store again.
    Died,
    /// A rule of the money was broken.
    Broken(String),
}

type Lived<T> = Result<T, Stop>;

/// What is true of one payment, whatever the ledger says.
struct Truth {
    wish: Wish,
    /// Every payload that was made for it.
    authorization: Option<Box<Authorization>>,
    /// Whether signature bytes exist.
    signed: bool,
    /// Whether the seller has them.
    presented: bool,
    reviewed: bool,
    /// The block in which it was cancelled.
    cancelled: Option<u64>,
    /// What the seller sent back, in transactions that will all be in the chain.
    sent_back: u64,
    /// Of that, what is a refund: at most what was redeemed, after it was.
    refunds: u64,
    watch: Watch,
}

enum Stage {
    Permit(Permit),
    Sealed(Sealed),
}

/// What the process is in the middle of.
struct Call {
    payment: usize,
    /// The first call of this payment: a refusal to sign proves that no signature exists.
    first: bool,
    state: State,
    stage: Stage,
}

pub(crate) struct Life {
    pub(crate) seed: u64,
    bug: Option<Bug>,
    chance: Chance,
    chain: Chain,
    nodes: Vec<Arc<FakeNode>>,
    lag: u64,
    /// Blocks are undone all the time, and one of two nodes goes on lying when all is quiet.
    stormy: bool,
    /// Milliseconds this life's clock is ahead of the store's other lives', plus this much.
    skew: u64,
    // The process's memory: gone with it.
    reader: Option<Reader>,
    calls: Vec<Call>,
    fuse: Option<u64>,
    // The world.
    truths: Vec<Truth>,
    waiting: Vec<Transaction>,
    transactions: u64,
    now: Timestamp,
    pub(crate) broken: Option<String>,
    pub(crate) tally: BTreeMap<String, u64>,
    pub(crate) told: Vec<String>,
    pub(crate) tells: bool,
}

macro_rules! tell {
    ($life:expr, $($what:tt)*) => {
        if $life.tells {
            let line = format!($($what)*);
            $life.told.push(line);
        }
    };
}

impl Life {
    pub(crate) fn new(seed: u64, start: Timestamp, bug: Option<Bug>, tells: bool) -> Self {
        let mut chance = Chance::new(seed);
        let lag = chance.between(1, 5);
        let chain = Chain::new(network(seed), asset(), start.as_secs() - 1_000, lag);
        for back in (1..40).rev() {
            chain.mine(start.as_secs() - back * 20, Vec::new());
        }
        let count = if chance.percent(50) { 1 } else { 2 };
        let nodes = (0..count).map(|n| FakeNode::new(&format!("node-{n}"), &chain)).collect();
        let skew = chance.below(200_000);
        let stormy = chance.percent(10);
        Self {
            seed,
            bug,
            chance,
            chain,
            nodes,
            lag,
            stormy,
            skew,
            reader: None,
            calls: Vec::new(),
            fuse: None,
            truths: Vec::new(),
            waiting: Vec::new(),
            transactions: 0,
            now: start,
            broken: None,
            tally: BTreeMap::new(),
            told: Vec::new(),
            tells,
        }
    }

    fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    /// Counts what happened, so that it can be shown that everything did.
    fn happened(&mut self, what: &str) {
        *self.tally.entry(what.to_owned()).or_default() += 1;
    }

    /// One operation on the ledger, during which the process may die: before it, or after it was asked for.
    async fn op<T>(&mut self, what: &str, operation: impl Future<Output = T>) -> Lived<T> {
        match self.fuse.as_mut() {
            Some(0) => {
                let asked = self.chance.percent(60);
                if asked {
                    begin(operation).await;
                }
                let how = format!("dies {} {what}", if asked { "in the middle of" } else { "before" });
                tell!(self, "  the process {how}");
                self.happened(&how);
                Err(Stop::Died)
            }
            Some(left) => {
                *left -= 1;
                Ok(operation.await)
            }
            None => Ok(operation.await),
        }
    }

    /// A minute of this life. `local` is what the host's clock shows, `real` the world's time.
    pub(crate) async fn minute(&mut self, ledger: &SqliteLedger, local: Timestamp, real: Timestamp, dies: bool) {
        if self.broken.is_some() {
            return;
        }
        self.now = local.plus_millis(self.skew);
        let last = if self.chance.percent(60) { 10 } else { 50 };
        self.fuse = dies.then(|| self.chance.below(last));
        tell!(self, "{real}: the clock says {}", self.now);
        let lived = match self.live(ledger).await {
            Ok(()) if self.stormy => self.look(ledger).await,
            lived => lived,
        };
        self.world(real);
        match lived {
            Err(Stop::Broken(why)) => self.broken = Some(why),
            Ok(()) | Err(Stop::Died) => {}
        }
        if dies {
            self.calls.clear();
            self.reader = None;
        }
    }

    async fn live(&mut self, ledger: &SqliteLedger) -> Lived<()> {
        // A process that will die has more to die in.
        let actions = if self.fuse.is_some() { self.chance.between(4, 7) } else { self.chance.between(1, 3) };
        for _ in 0..actions {
            match self.chance.below(10) {
                0..=2 if self.truths.len() < 5 => self.buy(ledger).await?,
                3..=5 => self.call(ledger).await?,
                6 => self.review(ledger).await?,
                7 => self.present_again(ledger).await?,
                8 if self.fuse.is_some() || self.chance.percent(30) => self.look(ledger).await?,
                _ => self.call(ledger).await?,
            }
        }
        Ok(())
    }

    // ---- The host.

    async fn buy(&mut self, ledger: &SqliteLedger) -> Lived<()> {
        let n = self.truths.len() as u64;
        let before = (!self.truths.is_empty() && self.chance.percent(35)).then(|| self.chance.index(self.truths.len()));
        let purchase = match before {
            Some(_) if self.has(Bug::SignsASecondNonce) => 1_000 + n,
            Some(index) => self.truths[index].wish.purchase,
            None => n,
        };
        let again = before.map(|index| self.truths[index].wish.purchase);
        let wish = Wish {
            seed: self.seed,
            n,
            purchase,
            amount: self.chance.between(500, 2_500),
            at: self.now,
            valid_seconds: self.chance.between(1, 5) * 60,
        };
        let reviewed = self.chance.percent(15);
        let truth = Truth {
            wish,
            authorization: None,
            signed: false,
            presented: false,
            reviewed,
            cancelled: None,
            sent_back: 0,
            refunds: 0,
            watch: Watch::default(),
        };
        self.truths.push(truth);
        let asked = if reviewed { wish.review(self.now) } else { wish.commit(self.now) };
        tell!(
            self,
            "  buys {n} (purchase {purchase}) for {}{}",
            wish.amount,
            if reviewed { ", to be reviewed" } else { "" }
        );
        self.commit(ledger, n as usize, asked, again).await
    }

    /// Commits, and checks that the grant may be given: never over, never twice.
    async fn commit(&mut self, ledger: &SqliteLedger, n: usize, mut asked: Commit, again: Option<u64>) -> Lived<()> {
        let authorization = match &asked.grant {
            countersign_core::ledger::Grant::Sign(authorization) => Some(authorization.clone()),
            countersign_core::ledger::Grant::Review(_) => None,
        };
        if self.has(Bug::ForgetsAHold) {
            asked.holds.retain(|hold| hold.name != "all");
        }
        let resumed = asked.resume.is_some();
        self.truths[n].authorization = authorization.clone();
        if self.has(Bug::PaysBeforeCommit) && authorization.is_some() {
            self.truths[n].signed = true;
            self.truths[n].presented = true;
        }
        let granted = match self.op("commit", commit(ledger, asked)).await? {
            Ok(granted) => granted,
            // The clock was set back: nothing was written.
            Err(LedgerError::Unavailable(why)) => {
                self.happened("clock set back");
                tell!(self, "  unavailable: {why}");
                return Ok(());
            }
            Err(error) => return Err(Stop::Broken(format!("commit of payment {n}: {error}"))),
        };
        match granted {
            Granted::Permit { permit, .. } => {
                self.truths[n].authorization = authorization;
                let risk: u64 = (0..self.truths.len()).map(|n| self.at_risk(n, true)).sum();
                if risk > LIMIT {
                    return Err(Stop::Broken(format!("payment {n} was granted, and {risk} of {LIMIT} may be gone")));
                }
                let purchase = again.unwrap_or(self.truths[n].wish.purchase);
                let same = |other: &usize| {
                    let wish = &self.truths[*other].wish;
                    wish.purchase == purchase && *other != n
                };
                if let Some(other) = (0..self.truths.len()).filter(same).find(|other| self.at_risk(*other, false) > 0) {
                    return Err(Stop::Broken(format!(
                        "payment {n} was granted beside {other}, which is the same purchase"
                    )));
                }
                tell!(self, "  granted: payment {n}");
                self.happened(if resumed { "resume" } else { "grant" });
                if again.is_some() {
                    self.happened("another attempt");
                }
                self.calls.push(Call { payment: n, first: true, state: State::Signed, stage: Stage::Permit(permit) });
            }
            Granted::Review(_) => {
                self.happened("review");
                tell!(self, "  payment {n} waits for people");
            }
            Granted::Refused(why) => {
                tell!(self, "  refused: {why:?}");
                self.happened(match why {
                    Refusal::Budget(_) => "refused by the budget",
                    Refusal::Live(_) => "refused as live",
                    _ => "refused otherwise",
                });
                if matches!(why, Refusal::Suspended(_) | Refusal::Session | Refusal::Stale) {
                    return Err(Stop::Broken(format!("payment {n} was refused for {why:?}")));
                }
            }
        }
        Ok(())
    }

    /// What of this payment has left the wallet, or may: by what exists and what the chain holds. With
    /// `permitted`, what the running process may still sign counts too.
    fn at_risk(&self, n: usize, permitted: bool) -> u64 {
        let truth = &self.truths[n];
        let Some(authorization) = &truth.authorization else { return 0 };
        if let Some(redeemed) = self.redeemed(n) {
            return redeemed - truth.refunds;
        }
        let may_sign = permitted && self.calls.iter().any(|call| call.payment == n);
        let last = self.chain.finalized();
        let over = last.time >= authorization.valid_before || truth.cancelled.is_some_and(|block| block <= last.number);
        if over || !(truth.signed || may_sign) { 0 } else { truth.wish.amount }
    }

    /// What the chain shows to have been redeemed of this payment, wherever in the chain.
    fn redeemed(&self, n: usize) -> Option<u64> {
        let authorization = self.truths[n].authorization.as_ref()?;
        let (transaction, _) = self.chain.redemption(authorization.from, &authorization.nonce)?;
        transaction.calls().iter().find_map(|call| match call {
            TokenCall::Redeem(moved) if moved.nonce == authorization.nonce => u64::try_from(moved.value.get()).ok(),
            _ => None,
        })
    }

    /// The next thing that happens to one of the calls.
    async fn call(&mut self, ledger: &SqliteLedger) -> Lived<()> {
        if self.calls.is_empty() {
            return Ok(());
        }
        let which = self.chance.index(self.calls.len());
        let Call { payment: n, first, state, stage } = self.calls.swap_remove(which);
        match stage {
            Stage::Permit(permit) => self.sign(ledger, n, first, state, permit).await,
            Stage::Sealed(sealed) => self.present(ledger, n, state, &sealed).await,
        }
    }

    async fn sign(&mut self, ledger: &SqliteLedger, n: usize, first: bool, state: State, permit: Permit) -> Lived<()> {
        match self.chance.below(100) {
            0..=7 => {
                tell!(self, "  the signer refuses {n}");
                if first && !self.has(Bug::PaysBeforeCommit) {
                    self.event(ledger, n, State::Signed, Event::SignerRefused, None).await?;
                }
                return Ok(());
            }
            8..=15 => {
                tell!(self, "  the signer says nothing about {n}");
                self.truths[n].signed |= self.chance.percent(50);
                return self.event(ledger, n, state, Event::Ambiguous, None).await;
            }
            _ => {}
        }
        let signature = sign(&permit.authorization().digest());
        self.truths[n].signed = true;
        let sealed = permit.seal(signature).map_err(|e| Stop::Broken(format!("payment {n}: {e}")))?;
        if self.chance.percent(80) {
            let id = self.truths[n].wish.payment();
            match self.op("store-signature", ledger.store_signature(id, *sealed.signature())).await? {
                // A conflict: its time was over, and the chain has shown it unused, before it was signed.
                Ok(()) | Err(LedgerError::Conflict(_)) => {}
                Err(error) => {
                    return Err(Stop::Broken(format!("the signature of payment {n} was not stored: {error}")));
                }
            }
        }
        tell!(self, "  signed {n}");
        self.calls.push(Call { payment: n, first: false, state, stage: Stage::Sealed(sealed) });
        Ok(())
    }

    async fn present(&mut self, ledger: &SqliteLedger, n: usize, state: State, sealed: &Sealed) -> Lived<()> {
        self.truths[n].presented = true;
        let message = sealed.authorization().message();
        if self.chance.percent(50) {
            self.redeem(n, message);
        }
        match self.chance.below(10) {
            // A receipt: true, early, or made up.
            0..=4 => {
                let transaction = self.waiting.last().filter(|_| self.chance.percent(80)).map(Transaction::name);
                let transaction = transaction.unwrap_or_else(|| format!("0x{}", "ab".repeat(32)));
                tell!(self, "  receipt for {n}: {transaction}");
                let evidence = Evidence { transaction: Some(transaction), ..Evidence::default() };
                self.event(ledger, n, state, Event::Receipt, Some(evidence)).await?;
                if self.chance.percent(50) {
                    let (id, now) = (self.truths[n].wish.payment(), self.now);
                    // A conflict says that something else was proven meanwhile.
                    let _ = self.op("answered", ledger.answered(id, None, true, now)).await?;
                }
                Ok(())
            }
            // An error, a time-out, success: false.
            5..=8 => {
                tell!(self, "  the call for {n} fails");
                if self.has(Bug::FreesOnHttpError) {
                    let time = sealed.authorization().valid_before;
                    let hash = format!("0x{}", "cd".repeat(32));
                    let evidence = Evidence {
                        block: Some(1),
                        block_hash: Some(hash),
                        block_time: Some(time),
                        ..Evidence::default()
                    };
                    return self.event(ledger, n, state, Event::Unused, Some(evidence)).await;
                }
                self.event(ledger, n, state, Event::Ambiguous, None).await
            }
            // Nobody waits for the answer any more.
            _ => Ok(()),
        }
    }

    /// One row of the table. A conflict means that somebody was first; nothing else may be wrong.
    async fn event(
        &mut self,
        ledger: &SqliteLedger,
        n: usize,
        from: State,
        event: Event,
        evidence: Option<Evidence>,
    ) -> Lived<()> {
        let transition = Transition {
            payment: self.truths[n].wish.payment(),
            from,
            event,
            why: event.name().to_owned(),
            evidence: evidence.map(Box::new),
            at: self.now,
        };
        match self.op(event.name(), ledger.transition(transition)).await? {
            Ok(to) => {
                self.happened(event.name());
                tell!(self, "  payment {n}: {} leads from {from:?} to {to:?}", event.name());
                Ok(())
            }
            Err(LedgerError::Conflict(why)) => {
                self.happened("conflict");
                tell!(self, "  payment {n}: {} from {from:?} refused: {why}", event.name());
                Ok(())
            }
            Err(error) => Err(Stop::Broken(format!("{} of payment {n}: {error}", event.name()))),
        }
    }

    /// People judge what waits, or the approved purchase goes on.
    async fn review(&mut self, ledger: &SqliteLedger) -> Lived<()> {
        let waits = |n: &usize| self.truths[*n].reviewed && self.truths[*n].authorization.is_none();
        let Some(n) = (0..self.truths.len()).find(waits) else { return Ok(()) };
        let wish = self.truths[n].wish;
        let approve = self.chance.percent(75);
        let cast = Cast {
            approval: wish.approval(),
            operator: "alice".into(),
            selves: vec![],
            users: vec![],
            groups: vec![],
            approve,
            note: String::new(),
            channel: Channel::Api,
            quoted: None,
            at: self.now,
        };
        let voted = self.op("vote", ledger.vote(cast)).await?;
        tell!(self, "  vote on {n}: {approve}: {:?}", voted.as_ref().map(|a| a.state));
        if voted.is_ok() && !approve {
            self.happened("withdraw");
        }
        if approve {
            let asked = wish.resume(self.now);
            self.commit(ledger, n, asked, None).await?;
            // What was not granted goes on waiting, or is over.
            if !self.calls.iter().any(|call| call.payment == n) {
                self.truths[n].authorization = None;
            }
        }
        Ok(())
    }

    /// A repeated call: the same payload, never another.
    async fn present_again(&mut self, ledger: &SqliteLedger) -> Lived<()> {
        // One call of a payment at a time, as the gateway has it.
        let idle = |n: &usize| self.calls.iter().all(|call| call.payment != *n);
        let Some(n) = (0..self.truths.len()).rev().find(idle) else { return Ok(()) };
        let id = self.truths[n].wish.payment();
        let view = self.op("payment", ledger.payment(id)).await?.map_err(|e| Stop::Broken(e.to_string()))?;
        let Some(view) = view.filter(|view| view.state.is_open()) else { return Ok(()) };
        let now = self.now;
        match self.op("represent", represent(ledger, id, 1, now)).await? {
            Ok(Represented::Open { permit, signature }) => {
                if self.truths[n].authorization.as_deref() != Some(permit.authorization()) {
                    return Err(Stop::Broken(format!("payment {n} was reopened with another payload")));
                }
                tell!(self, "  presents {n} again");
                self.happened("presented again");
                let stage = match signature {
                    Some(signature) => {
                        let sealed = permit.seal(signature).map_err(|e| Stop::Broken(format!("payment {n}: {e}")))?;
                        Stage::Sealed(sealed)
                    }
                    None => Stage::Permit(permit),
                };
                self.calls.push(Call { payment: n, first: false, state: view.state, stage });
                Ok(())
            }
            Ok(_) => Ok(()),
            Err(error) => Err(Stop::Broken(format!("payment {n} could not be presented again: {error}"))),
        }
    }

    // ---- The reader.

    fn reader(&mut self) -> &Reader {
        let (bug, seed) = (self.bug, self.seed);
        let nodes = &self.nodes;
        self.reader.get_or_insert_with(|| {
            let nodes: Vec<Arc<dyn Node>> = match bug {
                Some(Bug::BelievesOneNode) => nodes.iter().rev().take(1).map(|n| Arc::clone(n) as _).collect(),
                _ => nodes.iter().map(|n| Arc::clone(n) as _).collect(),
            };
            let finality = if bug == Some(Bug::ReadsAtTheHead) { Finality::Depth(0) } else { Finality::Tag };
            Reader::new(network(seed), finality, nodes, None).unwrap()
        })
    }

    /// Looks at every payment that is open, and books what the chain shows.
    async fn look(&mut self, ledger: &SqliteLedger) -> Lived<()> {
        let anchor = self.reader().anchor().await;
        let now = self.now;
        let anchor = match anchor {
            Ok(anchor) => anchor,
            Err(error) => {
                tell!(self, "  the chain cannot be read: {error}");
                return Ok(());
            }
        };
        tell!(self, "  reads the chain at {:?}", anchor.block());
        match self.op("finalized", ledger.finalized(anchor.finalized(), now)).await? {
            Ok(()) => {}
            // Such nodes are not to be believed.
            Err(LedgerError::Conflict(_)) => return Ok(()),
            Err(error) => return Err(Stop::Broken(format!("finalized: {error}"))),
        }
        for n in 0..self.truths.len() {
            let Some(view) = self.view(ledger, n).await? else { continue };
            self.never_lost(n, Some(&view))?;
            if view.state.is_spent() && self.chance.percent(15) {
                let event = match (view.state, view.refunds.is_empty()) {
                    (State::Disputed, true) => Event::Dropped,
                    (State::Disputed, false) => Event::Redressed,
                    _ => Event::Dispute,
                };
                self.event(ledger, n, view.state, event, None).await?;
            }
            if !view.state.is_open() {
                continue;
            }
            let Some(authorization) = view.authorization.clone() else {
                return Err(Stop::Broken(format!("payment {n} is open without a payload")));
            };
            let subject = Subject {
                authorization: &authorization,
                created: view.created_at,
                transaction: view.transaction.as_deref(),
            };
            let mut watch = std::mem::take(&mut self.truths[n].watch);
            let mut finding = self.reader().look_at(&anchor, subject, &mut watch, now).await;
            if self.has(Bug::BelievesOneNode) && matches!(finding, Finding::Pending(Pending::Confirming { .. })) {
                let Finalized { block, hash, time, .. } = anchor.finalized();
                let evidence = Evidence {
                    block: Some(block),
                    block_hash: Some(hash),
                    block_time: Some(time),
                    ..Evidence::default()
                };
                finding = Finding::Unused { evidence: Box::new(evidence), how: Unused::Expired };
            }
            self.truths[n].watch = watch;
            tell!(self, "  payment {n}: {finding:?}");
            let from = view.state;
            self.happened(match &finding {
                Finding::Redeemed { evidence, .. } if evidence.redeemed.is_some() => "found redeemed in part",
                Finding::Redeemed { .. } => "found redeemed",
                Finding::Unused { how: Unused::Expired, .. } => "found expired",
                Finding::Unused { how: Unused::Cancelled, .. } => "found cancelled",
                Finding::Gone { .. } => "found gone",
                Finding::Contradiction(_) => "found contradictory",
                Finding::Pending(Pending::NoAnswer(_)) => "found no answer",
                Finding::Pending(Pending::Unclear(_)) => "found unclear",
                Finding::Pending(Pending::Confirming { .. }) => "found, to be confirmed",
                Finding::Pending(_) => "found pending",
            });
            match finding {
                Finding::Redeemed { mut evidence, .. } => {
                    if self.has(Bug::ForgetsPartialRedemption) {
                        evidence.redeemed = None;
                    }
                    self.event(ledger, n, from, Event::Redeemed, Some(*evidence)).await?;
                }
                Finding::Unused { evidence, .. } => {
                    self.event(ledger, n, from, Event::Unused, Some(*evidence)).await?;
                }
                Finding::Gone { .. } => self.event(ledger, n, from, Event::Reorganised, None).await?,
                Finding::Contradiction(_) if from != State::Stuck => {
                    self.event(ledger, n, from, Event::Contradicted, None).await?;
                }
                Finding::Contradiction(_) | Finding::Pending(_) => {}
            }
        }
        self.look_for_refunds(ledger).await
    }

    async fn view(&mut self, ledger: &SqliteLedger, n: usize) -> Lived<Option<PaymentView>> {
        let id = self.truths[n].wish.payment();
        self.op("payment", ledger.payment(id)).await?.map_err(|e| Stop::Broken(e.to_string()))
    }

    async fn look_for_refunds(&mut self, ledger: &SqliteLedger) -> Lived<()> {
        if self.truths.iter().all(|truth| truth.sent_back == 0) {
            return Ok(());
        }
        let Ok(anchor) = self.reader().anchor().await else { return Ok(()) };
        let range = (1, anchor.block().number);
        let Ok(scan) = self.reader().scan(&anchor, asset(), &[payer()].into(), range).await else { return Ok(()) };
        for transfer in scan.incoming {
            let mut paid = Vec::new();
            for n in 0..self.truths.len() {
                let Some(view) = self.view(ledger, n).await? else { continue };
                if !view.state.is_spent() {
                    continue;
                }
                let evidence = view.evidence.as_deref();
                let amount = evidence.and_then(|e| e.redeemed).unwrap_or(view.facts.amount);
                let back = view.refunds.iter().map(|refund| refund.amount.get()).sum();
                paid.push(Paid {
                    payment: view.id,
                    network: network(self.seed),
                    asset: asset(),
                    payer: payer(),
                    payee: view.facts.pay_to.parse().unwrap(),
                    settled: amount,
                    refunded: Atomic::new(back),
                    block: evidence.and_then(|e| e.block).unwrap_or(0),
                });
            }
            let RefundMatch::One(payment) = refund_of(&transfer, network(self.seed), asset(), &paid) else { continue };
            let place = transfer.place;
            let (now, mut logs) = (self.now, vec![place.log]);
            if self.has(Bug::BooksRefundsTwice) {
                logs.push(place.log + 1_000);
            }
            for log in logs {
                let source = RefundSource::Chain {
                    transaction: countersign_core::evm::hex32::print(&place.transaction),
                    log,
                    block: place.block,
                };
                let amount = transfer.value.unwrap_or_default();
                let booked = self.op("refund", ledger.refund(Refund { payment, amount, source, at: now })).await?;
                tell!(self, "  refund of {amount}: {booked:?}");
                self.happened(if booked.is_ok() { "refund" } else { "refund known already" });
                if let Err(error) = booked
                    && !matches!(error, LedgerError::Conflict(_))
                {
                    return Err(Stop::Broken(format!("a refund was not booked: {error}")));
                }
            }
        }
        Ok(())
    }

    /// What the chain redeemed is counted, always.
    fn never_lost(&self, n: usize, view: Option<&PaymentView>) -> Lived<()> {
        let counted = view.is_some_and(|view| view.state.has_authorization());
        match self.redeemed(n) {
            Some(redeemed) if !counted => Err(Stop::Broken(format!(
                "{redeemed} of payment {n} was redeemed, and the ledger says {:?}",
                view.map(|view| view.state)
            ))),
            _ => Ok(()),
        }
    }

    // ---- The world.

    fn world(&mut self, real: Timestamp) {
        for n in 0..self.truths.len() {
            let Some(authorization) = self.truths[n].authorization.clone() else { continue };
            let truth = &self.truths[n];
            // Late, again and again, in time or not: as often as a seller likes.
            let often = if self.stormy { 10 } else { 30 };
            if truth.presented && self.chance.percent(often) {
                self.redeem(n, authorization.message());
            }
            if self.chance.percent(3) {
                tell!(self, "  an operator cancels {n}");
                self.transact(vec![TokenCall::Cancel { payer: authorization.from, nonce: authorization.nonce }]);
            }
            self.send_back(n, &authorization);
        }
        if self.chance.percent(if self.stormy { 50 } else { 15 }) {
            let depth = self.chance.between(1, self.lag);
            let undone = self.chain.undo(depth);
            let head = self.chain.head().number;
            for truth in &mut self.truths {
                truth.cancelled = truth.cancelled.filter(|block| *block <= head);
            }
            self.happened("blocks undone");
            tell!(self, "  {depth} blocks are undone");
            for transaction in undone {
                // What pays back is sent until it is in.
                let redeems = transaction.calls().iter().any(|call| matches!(call, TokenCall::Redeem(_)));
                if !redeems || self.chance.percent(if self.stormy { 20 } else { 50 }) {
                    self.waiting.push(transaction);
                }
            }
            for _ in 0..depth {
                self.mine(real.as_secs(), 50);
            }
        }
        self.mine(real.as_secs() + 20, 60);
        self.mine(real.as_secs() + 40, 60);
        self.moods();
    }

    fn send_back(&mut self, n: usize, authorization: &Authorization) {
        // Only after a final redemption, so that no reorganisation makes it a gift.
        let paid = self.chain.redemption(authorization.from, &authorization.nonce);
        let is_final = paid.is_some_and(|(_, block)| block <= self.chain.finalized().number);
        if !is_final || !self.chance.percent(20) {
            return;
        }
        let redeemed = self.redeemed(n).unwrap_or(0);
        let room = redeemed - self.truths[n].refunds;
        let (from, value) = match self.chance.below(10) {
            0 => (stranger(self.seed, n as u64), self.chance.between(1, redeemed)),
            1 => (authorization.offer.pay_to, redeemed + 1),
            _ if room == 0 => return,
            _ => (authorization.offer.pay_to, self.chance.between(1, room)),
        };
        if from == authorization.offer.pay_to && value <= room {
            self.truths[n].refunds += value;
        }
        self.truths[n].sent_back += value;
        tell!(self, "  {from} sends {value} back for {n}");
        let call = TokenCall::Transfer { from, to: payer(), value: Atomic::new(value.into()) };
        self.transact(vec![call]);
    }

    /// Redeems in whole or, with a token that allows it, in part.
    fn redeem(&mut self, n: usize, message: TransferWithAuthorization) {
        let part = n % 3 == 2;
        let value = if part { Atomic::new(message.value.get().div_ceil(2)) } else { message.value };
        tell!(self, "  the seller redeems {value} of {n}");
        self.transact(vec![TokenCall::Redeem(TransferWithAuthorization { value, ..message })]);
    }

    fn transact(&mut self, calls: Vec<TokenCall>) {
        self.transactions += 1;
        self.waiting.push(Transaction::new(self.transactions, calls));
    }

    fn mine(&mut self, time: u64, percent: u64) {
        let (mut taken, mut left) = (Vec::new(), Vec::new());
        for transaction in self.waiting.drain(..) {
            if self.chance.percent(percent) { taken.push(transaction) } else { left.push(transaction) }
        }
        self.waiting = left;
        let cancels = |transaction: &Transaction| match transaction.calls() {
            [TokenCall::Cancel { nonce, .. }] => Some(*nonce),
            _ => None,
        };
        let cancelled: Vec<_> = taken.iter().filter_map(cancels).collect();
        let block = self.chain.mine(time, taken).number;
        for truth in &mut self.truths {
            let Some(authorization) = &truth.authorization else { continue };
            let nonce = &authorization.nonce;
            // Only the first that ends a nonce has an effect.
            if cancelled.contains(nonce) && self.chain.redemption(authorization.from, nonce).is_none() {
                truth.cancelled.get_or_insert(block);
            }
        }
    }

    fn moods(&mut self) {
        let only = self.nodes.len() == 1;
        for (which, node) in self.nodes.iter().enumerate() {
            let mood = match self.chance.below(10) {
                0 => Mood::Down,
                1 => Mood::Lagging(self.chance.between(1, 10)),
                2 => Mood::Narrow(self.chance.between(5, 50)),
                // One node of two lies.
                3..=6 if !only && which == 1 => Mood::Lying(match self.chance.below(9) {
                    0 | 1 => Lie::NeverUsed,
                    2 => Lie::StateUnused,
                    3 => Lie::StateUsed,
                    4 => Lie::NoLogs,
                    5 => Lie::FinalAtHead,
                    6 => Lie::TimeAhead(7_200),
                    7 => Lie::StaleReceipts,
                    _ => Lie::Paid(Atomic::new(1)),
                }),
                _ => Mood::Honest,
            };
            node.set(mood);
        }
    }

    // ---- The end.

    /// Sellers stop, nodes tell the truth, the chain goes on: everything must come to an end.
    pub(crate) async fn end(&mut self, ledger: &SqliteLedger, local: Timestamp, real: Timestamp, last: bool) {
        if self.broken.is_some() {
            return;
        }
        self.fuse = None;
        self.calls.clear();
        self.now = local.plus_millis(self.skew);
        for (which, node) in self.nodes.iter().enumerate() {
            let lies = self.stormy && which == 1 && !last;
            node.set(if lies { Mood::Lying(Lie::StateUsed) } else { Mood::Honest });
        }
        for block in 0..=self.lag {
            self.mine(real.as_secs() + block, 100);
        }
        tell!(self, "{real}: all is quiet; the clock says {}", self.now);
        if let Err(Stop::Broken(why)) = self.look(ledger).await {
            self.broken = Some(why);
        }
    }

    /// What the ledger must say now, by what is true.
    pub(crate) async fn judge(&mut self, ledger: &SqliteLedger, counters: &BTreeMap<String, (u64, u64)>) {
        if self.broken.is_some() {
            return;
        }
        if let Err(Stop::Broken(why)) = self.judged(ledger, counters).await {
            self.broken = Some(why);
        }
    }

    async fn judged(&mut self, ledger: &SqliteLedger, counters: &BTreeMap<String, (u64, u64)>) -> Lived<()> {
        let (mut spent, mut gross) = (0, 0);
        let mut paid: BTreeMap<u64, usize> = BTreeMap::new();
        for n in 0..self.truths.len() {
            let view = self.view(ledger, n).await?;
            self.never_lost(n, view.as_ref())?;
            let state = view.as_ref().map(|view| view.state);
            let truth = &self.truths[n];
            match self.redeemed(n) {
                Some(redeemed) => {
                    spent += redeemed - truth.refunds;
                    gross += redeemed;
                    let purchase = truth.wish.purchase;
                    if let Some(other) = paid.insert(purchase, n) {
                        return Err(Stop::Broken(format!(
                            "purchase {purchase} was paid twice: payments {other} and {n}"
                        )));
                    }
                    if !state.is_some_and(State::is_spent) {
                        return Err(Stop::Broken(format!("payment {n} was redeemed, and ends as {state:?}")));
                    }
                }
                None if state.is_some_and(|state| state != State::Released && state != State::Denied) => {
                    return Err(Stop::Broken(format!("payment {n} was never redeemed, and ends as {state:?}")));
                }
                None => {}
            }
        }
        if gross > 0 && spent > LIMIT {
            return Err(Stop::Broken(format!("{spent} left the wallet, over the limit of {LIMIT}")));
        }
        let own = counters.get(&crate::purchase::owner(self.seed)).copied().unwrap_or_default();
        let wall = counters.get(&crate::purchase::wall(self.seed)).copied().unwrap_or_default();
        if (own, wall) != ((0, spent), (0, gross)) {
            return Err(Stop::Broken(format!(
                "the counters end at {own:?} (held, spent) and the host's at {wall:?}; the chain shows {spent} spent, {gross} before refunds"
            )));
        }
        Ok(())
    }

    /// What the budget has left can be spent, and no more.
    pub(crate) async fn spend_the_rest(&mut self, ledger: &SqliteLedger, counters: &BTreeMap<String, (u64, u64)>) {
        if self.broken.is_some() {
            return;
        }
        let used = counters.get(&crate::purchase::owner(self.seed)).map_or(0, |(held, spent)| held + spent);
        for (amount, fits) in [(LIMIT - used + 1, false), (LIMIT - used, true)] {
            if amount == 0 {
                continue;
            }
            let n = self.truths.len() as u64 + u64::from(fits);
            let wish = Wish { seed: self.seed, n, purchase: 5_000 + n, amount, at: self.now, valid_seconds: 60 };
            let granted = commit(ledger, wish.commit(self.now)).await;
            match (granted, fits) {
                (Ok(Granted::Permit { .. }), true) | (Ok(Granted::Refused(Refusal::Budget(_))), false) => {}
                (other, _) => {
                    self.broken = Some(format!("{used} of {LIMIT} is used, and {amount} more: {other:?}"));
                    return;
                }
            }
        }
    }
}
