//! The world of the model: a host with its ledger, a chain, sellers, and everything that may go wrong.
//!
//! The host moves a payment only by the code's own table ([`transition`]); what each effect does to
//! rows and counters is written out here a second time, in the smallest form. Time is the chain's: a
//! block's height is its time. The local clock may read anything at any moment, which covers every clock
//! that runs ahead or behind; it decides nothing but how long a signature stays valid.
//!
//! One block is open at the head; blocks at or below `finalized` can no longer change. Whoever has a
//! signature may redeem it in any block below its `before`, in whole or in part. Two nodes tell the host
//! about the finalized chain; one of them lies whenever it likes. They agree only on the truth, so a host
//! that asks for agreement learns the truth or nothing; a host that believes one node may be told anything.

use std::fmt;

use countersign_core::payment::{Effect, Event, State, TRANSITIONS, transition};

use crate::explorer::World;

/// What the budget allows in all.
pub(crate) const LIMIT: u8 = 5;
/// Bits of a packed payment.
const CODE: u32 = 36;
/// At most this many payments.
const SLOTS: usize = 3;
/// The end of every validity that has passed for good.
const PAST: u8 = 1;
/// The height of everything that is final.
const FINAL: u8 = 0;
/// The height of what has not happened.
const NEVER: u8 = 7;

/// A mistake the host may make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
    /// An HTTP error frees the hold.
    FreesOnHttpFailure,
    /// The signer is called before the payment is durable.
    SignsBeforeDurable,
    /// A finalized block past the validity frees the hold, whatever became of the nonce.
    FreesWithoutAskingTheChain,
    /// The local clock decides that the validity is over, beside a view that is not final yet.
    FreesByTheLocalClock,
    /// The head decides instead of the finalized block.
    FreesAtTheHead,
    /// A signer that did not say whether it signed counts as one that refused.
    TakesSilenceForRefusal,
    /// A refusal to sign again frees what was signed before.
    FreesOnSecondRefusal,
    /// A second nonce for a purchase whose first can be redeemed.
    SecondNonce,
    /// What is settled is read from another transfer of the same transaction.
    SettlesAboveTheHold,
    /// A refund is booked each time it is seen.
    RefundsTwice,
    /// A refund is booked before it is final.
    RefundsBeforeFinal,
    /// One of two nodes is believed.
    BelievesOneNode,
    /// A receipt's transaction that is gone frees the hold.
    FreesOnReorganisation,
    /// A cancellation that is not final frees the hold.
    FreesOnEarlyCancellation,
    /// What was in flight when the process ended counts as never sent.
    RecoveryForgets,
    /// Two commits judge the same counters.
    ChecksWithoutReserving,
}

/// How large the world is, and which mistake its host makes.
#[derive(Clone, Debug)]
pub(crate) struct Size {
    pub(crate) payments: usize,
    /// The last block.
    pub(crate) horizon: u8,
    pub(crate) crashes: bool,
    pub(crate) reorganisations: bool,
    /// What a payment may cost.
    pub(crate) amounts: &'static [u8],
    /// Ends of validity a signature may have, as the clock reads whatever it reads.
    pub(crate) befores: &'static [u8],
    pub(crate) partial: bool,
    pub(crate) reviews: bool,
    pub(crate) cancellations: bool,
    pub(crate) disputes: bool,
    /// How many transfers back a payment may see.
    pub(crate) refunds: usize,
    pub(crate) bug: Option<Bug>,
}

/// What the running process has in memory for a payment.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Memory {
    Nothing,
    /// The permit of the commit.
    Permit,
    /// A permit to sign the stored payload again.
    Again,
    /// A signature, on its way to the seller.
    Call,
}

/// What the chain says of a nonce.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Nonce {
    Unused,
    Redeemed { amount: u8, height: u8 },
    Cancelled { height: u8 },
}

/// One payment: its row in the ledger, the process's memory, and what is out in the world.
#[derive(Clone, Copy)]
pub(crate) struct Payment {
    /// None: the ledger has no such row.
    state: Option<State>,
    /// The one purchase that may be tried a second time.
    retried: bool,
    amount: u8,
    /// End of the validity, exclusive; 0 while there is no payload.
    before: u8,
    memory: Memory,
    /// Whether signature bytes exist anywhere.
    signature: bool,
    nonce: Nonce,
    /// The blocks in which the seller sent 1 back, and which of them are booked.
    refunds: [Option<u8>; 2],
    booked: [bool; 2],
    /// The hold's row.
    open: bool,
    spent: u8,
    refunded: u8,
}

const NO_PAYMENT: Payment = Payment {
    state: None,
    retried: false,
    amount: 0,
    before: 0,
    memory: Memory::Nothing,
    signature: false,
    nonce: Nonce::Unused,
    refunds: [None; 2],
    booked: [false; 2],
    open: false,
    spent: 0,
    refunded: 0,
};

impl Payment {
    /// Whether the signature can still be redeemed, in a block that is not final yet.
    fn redeemable(&self, finalized: u8) -> bool {
        self.signature && self.nonce == Nonce::Unused && finalized + 1 < self.before
    }

    /// What left the wallet for good, or still may: what came back counts once that is final.
    fn at_risk(&self, finalized: u8) -> u8 {
        match self.nonce {
            Nonce::Redeemed { amount, .. } => amount - self.returned(finalized),
            _ if self.redeemable(finalized) => self.amount,
            _ => 0,
        }
    }

    /// What came back for good.
    fn returned(&self, finalized: u8) -> u8 {
        self.refunds.iter().flatten().map(|height| u8::from(*height <= finalized)).sum()
    }

    /// What the hold's row counts.
    fn counted(&self) -> u8 {
        if self.open { self.amount } else { self.spent.saturating_sub(self.refunded) }
    }

    fn is_open(&self) -> bool {
        self.state.is_some_and(State::is_open)
    }

    fn is_spent(&self) -> bool {
        self.state.is_some_and(State::is_spent)
    }
}

/// The whole world at one moment.
#[derive(Clone, Copy)]
pub(crate) struct Moment {
    payments: [Payment; SLOTS],
    head: u8,
    finalized: u8,
    /// The budget's counters.
    held: u8,
    spent: u8,
}

/// Something that happens.
#[derive(Clone, Copy)]
pub(crate) enum Step {
    Commit { payment: usize, amount: u8, before: u8, again: Option<usize> },
    Review { payment: usize, amount: u8, again: Option<usize> },
    Withdraw { payment: usize },
    Resume { payment: usize, before: u8 },
    SignerSigns { payment: usize },
    SignerRefuses { payment: usize },
    SignerIsSilent { payment: usize, signed: bool },
    CallFails { payment: usize },
    CallBringsReceipt { payment: usize },
    CallIsAbandoned { payment: usize },
    PresentAgain { payment: usize },
    CrashAndRestart,
    SellerRedeems { payment: usize, amount: u8 },
    PayerCancels { payment: usize },
    SellerRefunds { payment: usize },
    NextBlock,
    Finalize,
    Reorganise { from: u8 },
    HostSeesRedeemed { payment: usize },
    HostSeesUnused { payment: usize },
    HostSeesReceiptGone { payment: usize },
    HostSeesContradiction { payment: usize },
    HostSeesRefund { payment: usize },
    Dispute { payment: usize },
    DisputeDropped { payment: usize },
    DisputeRedressed { payment: usize },
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let again =
            |again: Option<usize>| again.map_or(String::new(), |first| format!(", the purchase of {first} again"));
        match *self {
            Self::Commit { payment: n, amount, before, again: first } => {
                write!(f, "payment {n} of {amount} is granted, valid before block {before}{}", again(first))
            }
            Self::Review { payment: n, amount, again: first } => {
                write!(f, "payment {n} of {amount} waits for people{}", again(first))
            }
            Self::Withdraw { payment: n } => write!(f, "people refuse payment {n}"),
            Self::Resume { payment: n, before } => write!(f, "people approve payment {n}, valid before block {before}"),
            Self::SignerSigns { payment: n } => write!(f, "the signer signs payment {n}"),
            Self::SignerRefuses { payment: n } => write!(f, "the signer refuses payment {n}"),
            Self::SignerIsSilent { payment: n, signed } => {
                write!(
                    f,
                    "the signer does not answer for payment {n}, and {}",
                    if signed { "signed it" } else { "did not sign" }
                )
            }
            Self::CallFails { payment: n } => write!(f, "the paid call of payment {n} fails"),
            Self::CallBringsReceipt { payment: n } => write!(f, "the paid call of payment {n} brings a receipt"),
            Self::CallIsAbandoned { payment: n } => write!(f, "the paid call of payment {n} is abandoned"),
            Self::PresentAgain { payment: n } => write!(f, "payment {n} is to be presented again"),
            Self::CrashAndRestart => f.write_str("the process dies, and another one starts"),
            Self::SellerRedeems { payment: n, amount } => write!(f, "the seller redeems {amount} of payment {n}"),
            Self::PayerCancels { payment: n } => write!(f, "payment {n} is cancelled on the chain"),
            Self::SellerRefunds { payment: n } => write!(f, "the seller sends 1 of payment {n} back"),
            Self::NextBlock => f.write_str("the next block begins"),
            Self::Finalize => f.write_str("one more block is final"),
            Self::Reorganise { from } => write!(f, "blocks from {from} on are undone"),
            Self::HostSeesRedeemed { payment: n } => write!(f, "the host sees payment {n} redeemed"),
            Self::HostSeesUnused { payment: n } => {
                write!(f, "the host believes that payment {n} can never be redeemed")
            }
            Self::HostSeesReceiptGone { payment: n } => write!(f, "the host misses the receipt's block of payment {n}"),
            Self::HostSeesContradiction { payment: n } => {
                write!(f, "the nodes contradict each other about payment {n}")
            }
            Self::HostSeesRefund { payment: n } => write!(f, "the host books a refund of payment {n}"),
            Self::Dispute { payment: n } => write!(f, "payment {n} is disputed"),
            Self::DisputeDropped { payment: n } => write!(f, "the dispute about payment {n} is dropped"),
            Self::DisputeRedressed { payment: n } => write!(f, "the dispute about payment {n} is redressed"),
        }
    }
}

/// The world, and which rows of the table it has used.
pub(crate) struct Flow {
    pub(crate) size: Size,
    used: std::cell::Cell<u64>,
    settled_all: std::cell::Cell<bool>,
    capacity_back: std::cell::Cell<bool>,
}

impl Flow {
    pub(crate) fn new(size: Size) -> Self {
        Self { size, used: 0.into(), settled_all: false.into(), capacity_back: false.into() }
    }

    /// Rows of the table that no step used.
    pub(crate) fn unused_rules(&self) -> Vec<String> {
        let unused = TRANSITIONS.iter().enumerate().filter(|(n, _)| self.used.get() & (1 << n) == 0);
        unused.map(|(_, rule)| format!("{rule:?}")).collect()
    }

    /// Whether a state was reached in which every payment settled.
    pub(crate) fn settled_all(&self) -> bool {
        self.settled_all.get()
    }

    /// Whether a state was reached in which a whole budget came back after an expiry was proven.
    pub(crate) fn capacity_back(&self) -> bool {
        self.capacity_back.get()
    }

    fn has(&self, bug: Bug) -> bool {
        self.size.bug == Some(bug)
    }

    /// Applies one event by the code's table. None: the table does not know it, and nothing changes.
    fn apply(&self, moment: &Moment, n: usize, event: Event, booked: u8) -> Option<Moment> {
        let mut next = *moment;
        let payment = &mut next.payments[n];
        let rule = transition(payment.state?, event)?;
        match rule.effect {
            Effect::Keep => {}
            Effect::Release => {
                next.held -= payment.amount;
                payment.open = false;
            }
            Effect::Settle => {
                next.held -= payment.amount;
                next.spent += booked;
                payment.open = false;
                payment.spent = booked;
            }
            Effect::Refund => {
                next.spent = next.spent.saturating_sub(booked);
                payment.refunded += booked;
            }
            // Released and placed anew, in one transaction.
            Effect::Replace => {
                if next.held - payment.amount + next.spent + payment.amount > LIMIT {
                    return None;
                }
            }
        }
        payment.state = Some(rule.to);
        let row = TRANSITIONS.iter().position(|r| *r == rule)?;
        self.used.set(self.used.get() | 1 << row);
        Some(next)
    }

    /// An event of the call: a conflict with the table changes nothing, and the call is over.
    fn end_call(&self, moment: &Moment, n: usize, event: Option<Event>) -> Moment {
        let mut next = event.and_then(|event| self.apply(moment, n, event, 0)).unwrap_or(*moment);
        next.payments[n].memory = Memory::Nothing;
        next
    }

    /// Whether another attempt at the purchase of payment `first` may be decided.
    fn may_retry(&self, moment: &Moment, first: usize) -> bool {
        let first = &moment.payments[first];
        let attempts = moment.payments.iter().filter(|p| p.amount > 0 && p.retried);
        attempts.chain([first]).all(|p| {
            p.state.is_some_and(State::allows_another_attempt)
                || (self.has(Bug::SecondNonce) && p.state == Some(State::Redeemable))
        })
    }

    fn commits(&self, moment: &Moment, step: &mut impl FnMut(Step, Moment)) {
        let Some(n) = (0..self.size.payments).find(|n| moment.payments[*n].amount == 0) else { return };
        self.commit(moment, n, None, step);
        // One purchase is tried again at most: which one makes no difference.
        let group = (0..n).any(|first| moment.payments[first].retried);
        for first in 0..n {
            if moment.payments[first].retried == group && self.may_retry(moment, first) {
                self.commit(moment, n, Some(first), step);
                if group {
                    break;
                }
            }
        }
    }

    fn commit(&self, moment: &Moment, n: usize, again: Option<usize>, step: &mut impl FnMut(Step, Moment)) {
        let mut begun = *moment;
        if let Some(first) = again {
            begun.payments[first].retried = true;
        }
        let used = if self.has(Bug::ChecksWithoutReserving) { moment.spent } else { moment.held + moment.spent };
        for &amount in self.size.amounts {
            let row = Payment { retried: again.is_some(), amount, ..NO_PAYMENT };
            for &before in self.size.befores {
                let mut next = begun;
                if self.has(Bug::SignsBeforeDurable) {
                    next.payments[n] = Payment { before, signature: true, ..row };
                    step(Step::SignerSigns { payment: n }, next);
                } else if used + amount <= LIMIT {
                    next.held += amount;
                    next.payments[n] =
                        Payment { state: Some(State::Signed), before, memory: Memory::Permit, open: true, ..row };
                    step(Step::Commit { payment: n, amount, before, again }, next);
                }
            }
            if self.size.reviews && used + amount <= LIMIT {
                let mut next = begun;
                next.held += amount;
                next.payments[n] = Payment { state: Some(State::Review), open: true, ..row };
                step(Step::Review { payment: n, amount, again }, next);
            }
        }
    }

    fn review(&self, moment: &Moment, n: usize, step: &mut impl FnMut(Step, Moment)) {
        if moment.payments[n].state != Some(State::Review) {
            return;
        }
        if let Some(next) = self.apply(moment, n, Event::Withdraw, 0) {
            step(Step::Withdraw { payment: n }, next);
        }
        for &before in self.size.befores {
            if let Some(mut next) = self.apply(moment, n, Event::Resume, 0) {
                next.payments[n].before = before;
                next.payments[n].memory = Memory::Permit;
                step(Step::Resume { payment: n, before }, next);
            }
        }
    }

    fn call(&self, moment: &Moment, n: usize, step: &mut impl FnMut(Step, Moment)) {
        let memory = moment.payments[n].memory;
        match memory {
            Memory::Nothing => {
                let state = moment.payments[n].state;
                if matches!(state, Some(State::Signed | State::Redeemable | State::Seen)) {
                    let mut next = *moment;
                    next.payments[n].memory = Memory::Again;
                    step(Step::PresentAgain { payment: n }, next);
                }
            }
            Memory::Permit | Memory::Again => {
                let mut signed = *moment;
                signed.payments[n].signature = true;
                let mut next = signed;
                next.payments[n].memory = Memory::Call;
                step(Step::SignerSigns { payment: n }, next);

                let frees = memory == Memory::Permit || self.has(Bug::FreesOnSecondRefusal);
                let refused = frees.then_some(Event::SignerRefused);
                step(Step::SignerRefuses { payment: n }, self.end_call(moment, n, refused));

                let silent =
                    if self.has(Bug::TakesSilenceForRefusal) { Event::SignerRefused } else { Event::Ambiguous };
                for (signed, moment) in [(false, moment), (true, &signed)] {
                    step(Step::SignerIsSilent { payment: n, signed }, self.end_call(moment, n, Some(silent)));
                }
            }
            Memory::Call => {
                let failed = if self.has(Bug::FreesOnHttpFailure) { Event::Unused } else { Event::Ambiguous };
                step(Step::CallFails { payment: n }, self.end_call(moment, n, Some(failed)));
                // The seller says whatever it likes.
                step(Step::CallBringsReceipt { payment: n }, self.end_call(moment, n, Some(Event::Receipt)));
                step(Step::CallIsAbandoned { payment: n }, self.end_call(moment, n, None));
            }
        }
    }

    fn crash(&self, moment: &Moment, step: &mut impl FnMut(Step, Moment)) {
        if !self.size.crashes {
            return;
        }
        let mut next = *moment;
        let recovery = if self.has(Bug::RecoveryForgets) { Event::SignerRefused } else { Event::Ambiguous };
        for n in 0..self.size.payments {
            next.payments[n].memory = Memory::Nothing;
            if next.payments[n].state == Some(State::Signed) {
                next = self.apply(&next, n, recovery, 0).unwrap_or(next);
            }
        }
        step(Step::CrashAndRestart, next);
    }

    fn sellers(&self, moment: &Moment, n: usize, step: &mut impl FnMut(Step, Moment)) {
        let payment = &moment.payments[n];
        if payment.signature && payment.nonce == Nonce::Unused && moment.head < payment.before {
            let least = if self.size.partial { payment.amount - 1 } else { payment.amount };
            for amount in least..=payment.amount {
                let mut next = *moment;
                next.payments[n].nonce = Nonce::Redeemed { amount, height: moment.head };
                step(Step::SellerRedeems { payment: n, amount }, next);
            }
        }
        let cancels = self.size.cancellations && payment.is_open();
        if cancels && payment.nonce == Nonce::Unused {
            let mut next = *moment;
            next.payments[n].nonce = Nonce::Cancelled { height: moment.head };
            step(Step::PayerCancels { payment: n }, next);
        }
        let sent = payment.refunds.iter().flatten().count();
        if let Nonce::Redeemed { amount, .. } = payment.nonce
            && sent < self.size.refunds.min(amount.into())
        {
            let mut next = *moment;
            next.payments[n].refunds[sent] = Some(moment.head);
            step(Step::SellerRefunds { payment: n }, next);
        }
    }

    fn chain(&self, moment: &Moment, step: &mut impl FnMut(Step, Moment)) {
        if moment.head < self.size.horizon {
            step(Step::NextBlock, Moment { head: moment.head + 1, ..*moment });
        }
        if moment.finalized + 1 < moment.head {
            step(Step::Finalize, Moment { finalized: moment.finalized + 1, ..*moment });
        }
        if self.size.reorganisations {
            for from in moment.finalized + 1..=moment.head {
                let mut next = Moment { head: from, ..*moment };
                for payment in &mut next.payments {
                    let gone = |height: u8| height >= from;
                    match payment.nonce {
                        Nonce::Redeemed { height, .. } | Nonce::Cancelled { height } if gone(height) => {
                            payment.nonce = Nonce::Unused;
                        }
                        _ => {}
                    }
                    for refund in &mut payment.refunds {
                        *refund = refund.filter(|height| !gone(*height));
                    }
                }
                step(Step::Reorganise { from }, next);
            }
        }
    }

    /// What a correct host may conclude from the finalized block about the nonce, with the right mistakes.
    fn unused(&self, moment: &Moment, payment: &Payment) -> bool {
        let final_use = match payment.nonce {
            Nonce::Redeemed { height, .. } => height <= moment.finalized,
            _ => false,
        };
        let cancelled = match payment.nonce {
            Nonce::Cancelled { height } => height <= moment.finalized || self.has(Bug::FreesOnEarlyCancellation),
            _ => false,
        };
        let expired = moment.finalized >= payment.before;
        match self.size.bug {
            Some(Bug::FreesWithoutAskingTheChain) => cancelled || expired,
            Some(Bug::FreesByTheLocalClock) => !final_use,
            Some(Bug::FreesAtTheHead) => cancelled || (moment.head >= payment.before && payment.nonce == Nonce::Unused),
            Some(Bug::BelievesOneNode) => true,
            _ => cancelled || (expired && !final_use),
        }
    }

    fn reader(&self, moment: &Moment, n: usize, step: &mut impl FnMut(Step, Moment)) {
        let payment = &moment.payments[n];
        let mut on = |moment: &Moment, what: Step, event: Event, booked: u8| {
            if let Some(next) = self.apply(moment, n, event, booked) {
                step(what, next);
            }
        };
        if payment.is_open() {
            if let Nonce::Redeemed { amount, height } = payment.nonce
                && height <= moment.finalized
            {
                let booked = if self.has(Bug::SettlesAboveTheHold) { amount + 1 } else { amount };
                on(moment, Step::HostSeesRedeemed { payment: n }, Event::Redeemed, booked);
            }
            if self.unused(moment, payment) {
                if payment.signature && moment.finalized >= payment.before && moment.held == payment.amount {
                    self.capacity_back.set(true);
                }
                on(moment, Step::HostSeesUnused { payment: n }, Event::Unused, 0);
            }
            // The receipt's transaction is not in the chain (any more).
            if !matches!(payment.nonce, Nonce::Redeemed { .. }) && payment.state == Some(State::Seen) {
                let gone = if self.has(Bug::FreesOnReorganisation) { Event::Unused } else { Event::Reorganised };
                on(moment, Step::HostSeesReceiptGone { payment: n }, gone, 0);
            }
            // The lying node makes the two disagree.
            on(moment, Step::HostSeesContradiction { payment: n }, Event::Contradicted, 0);
        }
        if payment.is_spent() {
            for (which, height) in payment.refunds.iter().enumerate() {
                let sees = height.is_some_and(|h| h <= moment.finalized || self.has(Bug::RefundsBeforeFinal));
                let repeats = self.has(Bug::RefundsTwice) && payment.refunded < 2;
                if sees && (!payment.booked[which] || repeats) {
                    let mut seen = *moment;
                    seen.payments[n].booked[which] = true;
                    on(&seen, Step::HostSeesRefund { payment: n }, Event::Refund, 1);
                }
            }
            if self.size.disputes {
                on(moment, Step::Dispute { payment: n }, Event::Dispute, 0);
                if payment.refunded > 0 {
                    on(moment, Step::DisputeRedressed { payment: n }, Event::Redressed, 0);
                } else {
                    on(moment, Step::DisputeDropped { payment: n }, Event::Dropped, 0);
                }
            }
        }
    }

    /// Nothing more happens but blocks: one reading of a finalized chain past every validity must settle
    /// or free whatever is open. None: it does.
    fn never_resolves(&self, moment: &Moment) -> Option<String> {
        let mut next = Moment { head: u8::MAX, finalized: u8::MAX - 1, ..*moment };
        for n in 0..self.size.payments {
            if next.payments[n].is_open() {
                let (event, booked) = match next.payments[n].nonce {
                    Nonce::Redeemed { amount, .. } => (Event::Redeemed, amount),
                    _ => (Event::Unused, 0),
                };
                match self.apply(&next, n, event, booked) {
                    Some(resolved) => next = resolved,
                    None => return Some(format!("payment {n} can never be resolved")),
                }
            }
        }
        let review: u8 = next.payments.iter().filter(|p| p.open).map(|p| p.amount).sum();
        (next.held != review).then(|| "budget stays held for nothing".to_owned())
    }
}

impl World for Flow {
    type State = Moment;
    type Step = Step;

    fn initial(&self) -> Moment {
        Moment { payments: [NO_PAYMENT; SLOTS], head: 1, finalized: 0, held: 0, spent: 0 }
    }

    fn next(&self, from: &Moment, mut step: impl FnMut(Step, Moment)) {
        self.commits(from, &mut step);
        self.crash(from, &mut step);
        self.chain(from, &mut step);
        for n in 0..self.size.payments {
            if from.payments[n].amount > 0 {
                self.review(from, n, &mut step);
                self.call(from, n, &mut step);
                self.sellers(from, n, &mut step);
                self.reader(from, n, &mut step);
            }
        }
    }

    fn broken(&self, moment: &Moment) -> Option<String> {
        let payments = &moment.payments[..self.size.payments];
        let finalized = moment.finalized;
        let left_wallet: u8 =
            payments.iter().filter(|p| matches!(p.nonce, Nonce::Redeemed { .. })).map(|p| p.at_risk(finalized)).sum();
        if left_wallet > LIMIT {
            return Some(format!("{left_wallet} left the wallet, over the limit of {LIMIT}"));
        }
        if moment.held + moment.spent > LIMIT {
            return Some(format!("{} held and {} spent, over the limit of {LIMIT}", moment.held, moment.spent));
        }
        let held: u8 = payments.iter().filter(|p| p.open).map(|p| p.amount).sum();
        let spent: u8 = payments.iter().map(|p| p.spent.saturating_sub(p.refunded)).sum();
        if (held, spent) != (moment.held, moment.spent) {
            return Some(format!(
                "the counters say {} held and {} spent, the rows {held} and {spent}",
                moment.held, moment.spent
            ));
        }
        for (n, payment) in payments.iter().enumerate() {
            let risk = payment.at_risk(finalized);
            if payment.counted() < risk {
                return Some(format!("{risk} of payment {n} is or may be gone, {} is counted", payment.counted()));
            }
            if payment.state == Some(State::Released) && matches!(payment.nonce, Nonce::Redeemed { .. }) {
                return Some(format!("payment {n} is released, and its nonce is used"));
            }
            if payment.is_open() != (payment.open && payment.state != Some(State::Review)) {
                return Some(format!("payment {n} is {:?}, and its hold is not", payment.state));
            }
            if payment.is_spent() {
                let proven = match payment.nonce {
                    Nonce::Redeemed { amount, height } if height <= finalized => amount,
                    _ => return Some(format!("payment {n} counts as spent without a finalized redemption")),
                };
                let back = payment.returned(finalized);
                if payment.spent != proven || payment.spent > payment.amount || payment.refunded > back {
                    return Some(format!(
                        "payment {n}: {} spent less {} back is booked; the finalized chain shows {proven} less {back}",
                        payment.spent, payment.refunded
                    ));
                }
            }
        }
        let live = |p: &&Payment| p.retried && (p.redeemable(finalized) || matches!(p.nonce, Nonce::Redeemed { .. }));
        if payments.iter().filter(live).count() > 1 {
            return Some("one purchase has two authorizations that are or can be redeemed".to_owned());
        }
        if payments.iter().all(|p| p.is_spent()) {
            self.settled_all.set(true);
        }
        self.never_resolves(moment)
    }

    fn pack(&self, moment: &Moment) -> u128 {
        let mut codes = moment.payments.map(|p| encode(&p, moment.finalized));
        // Payments have no names: only what they are counts.
        codes[..self.size.payments].sort_unstable_by(|a, b| b.cmp(a));
        let mut packed = Bits(0);
        for code in codes {
            packed.put(u128::from(code), CODE);
        }
        let numbers = [moment.head, moment.finalized, moment.held, moment.spent];
        for number in numbers {
            packed.put(u128::from(number), 4);
        }
        packed.0
    }

    fn unpack(&self, packed: u128) -> Moment {
        let mut packed = Bits(packed);
        let mut small = || packed.take(4) as u8;
        let (spent, held, finalized, head) = (small(), small(), small(), small());
        let mut payments = [NO_PAYMENT; SLOTS];
        for payment in payments.iter_mut().rev() {
            *payment = decode(packed.take(CODE));
        }
        Moment { payments, head, finalized, held, spent }
    }
}

/// Small numbers behind each other; what was put in last comes out first.
struct Bits(u128);

impl Bits {
    fn put(&mut self, value: u128, bits: u32) {
        assert!(value >> bits == 0, "{value} does not fit in {bits} bits");
        self.0 = self.0 << bits | value;
    }

    fn take(&mut self, bits: u32) -> u128 {
        let value = self.0 & ((1 << bits) - 1);
        self.0 >>= bits;
        value
    }
}

/// The payment without what can no longer matter, so that equal futures are one state: which heights are
/// final, when a validity ended, and what the process remembers of a payment that is over.
fn essence(p: &Payment, finalized: u8) -> Payment {
    let mut p = *p;
    if p.before > 0 && p.before <= finalized {
        p.before = PAST;
    }
    let proven = match p.nonce {
        Nonce::Redeemed { amount, height } if height <= finalized => Some(amount),
        _ => None,
    };
    // A used nonce cannot be used again, whoever still has the signature or may make one.
    if p.is_spent() && proven == Some(p.spent) {
        p = Payment { before: PAST, signature: true, memory: Memory::Nothing, amount: p.spent, ..p };
    }
    let cancelled = matches!(p.nonce, Nonce::Cancelled { height } if height <= finalized);
    let dead = cancelled || (p.nonce == Nonce::Unused && (p.before == PAST || p.before == 0 || !can_sign(&p)));
    if p.state == Some(State::Released) && dead && !p.open && p.spent == 0 && p.refunded == 0 {
        return Payment { state: p.state, amount: 1, before: PAST, ..NO_PAYMENT };
    }
    p
}

/// Whether a signature exists, or the process may still make one.
fn can_sign(p: &Payment) -> bool {
    p.signature || matches!(p.memory, Memory::Permit | Memory::Again)
}

/// A payment in [`CODE`] bits, without what can no longer matter.
fn encode(p: &Payment, finalized: u8) -> u64 {
    let p = &essence(p, finalized);
    let height = |h: u8| if h <= finalized { FINAL } else { h };
    let memory = match p.memory {
        Memory::Nothing => 0,
        Memory::Permit => 1,
        Memory::Again => 2,
        Memory::Call => 3,
    };
    let (nonce, used, at) = match p.nonce {
        Nonce::Unused => (0, 0, 0),
        Nonce::Redeemed { amount, height: h } => (1, amount, height(h)),
        Nonce::Cancelled { height: h } => (2, 0, height(h)),
    };
    let back = p.refunds.map(|h| h.map_or(NEVER, height));
    let mut bits = Bits(0);
    for (value, width) in [
        (p.state.map_or(0, State::number), 4),
        (u8::from(p.retried), 1),
        (p.amount, 2),
        (p.before, 3),
        (memory, 2),
        (u8::from(p.signature), 1),
        (nonce, 2),
        (used, 2),
        (at, 3),
        (back[0], 3),
        (back[1], 3),
        (u8::from(p.booked[0]), 1),
        (u8::from(p.booked[1]), 1),
        (u8::from(p.open), 1),
        (p.spent, 3),
        (p.refunded, 2),
    ] {
        bits.put(u128::from(value), width);
    }
    bits.0 as u64
}

fn decode(code: u128) -> Payment {
    let mut bits = Bits(code);
    let mut take = |width: u32| bits.take(width) as u8;
    let (refunded, spent, open) = (take(2), take(3), take(1) == 1);
    let (second_booked, first_booked) = (take(1) == 1, take(1) == 1);
    let (second, first, at, used) = (take(3), take(3), take(3), take(2));
    let (nonce, signature, memory) = (take(2), take(1) == 1, take(2));
    let (before, amount, retried, state) = (take(3), take(2), take(1) == 1, take(4));
    Payment {
        state: State::from_number(state),
        retried,
        amount,
        before,
        memory: match memory {
            0 => Memory::Nothing,
            1 => Memory::Permit,
            2 => Memory::Again,
            _ => Memory::Call,
        },
        signature,
        nonce: match nonce {
            0 => Nonce::Unused,
            1 => Nonce::Redeemed { amount: used, height: at },
            _ => Nonce::Cancelled { height: at },
        },
        refunds: [first, second].map(|height| (height != NEVER).then_some(height)),
        booked: [first_booked, second_booked],
        open,
        spent,
        refunded,
    }
}
