//! What became of one authorization.
//!
//! First every node is asked, at the same finalized block, and each answer is a [`Said`]. What follows
//! from them, and from what earlier looks left in the [`Watch`], is worked out without any question.

use std::fmt;

use countersign_core::evm::hex32;
use countersign_core::id::PaymentId;
use countersign_core::ledger::Evidence;
use countersign_core::money::Atomic;
use countersign_core::time::Timestamp;
use countersign_core::x402::Authorization;
use serde::{Deserialize, Serialize};

use crate::events::{Act, Place, Redemption, acts, all_kinds, ending_kinds};
use crate::reader::{Anchor, ReadError, Reader};
use crate::source::{Block, Hash, MAX_SPAN, Source, Wanted, Which, word};

/// How far apart the two readings must be that a single node needs before anything is freed: by our
/// clock and by the chain's. Seconds.
pub const CONFIRM_SECONDS: u64 = 600;
/// How long a contradiction that may be a delay (nodes or indexes behind each other) must last before it
/// is one. Milliseconds.
pub const LASTING_MS: u64 = 3_600_000;
/// How much the chain's clock may be behind ours: where the search for a redemption begins, before the
/// payment was made. Seconds.
const CLOCK_SKEW: u64 = 3_600;
/// Most `eth_getLogs` of one look, per node.
const MAX_QUERIES: u32 = 16;
/// First step back from the finalized block, in blocks, when looking for where the search begins.
const FIRST_STEP: u64 = 256;

/// What is looked for.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The authorization, as it was signed.
    pub authorization: &'a Authorization,
    /// When the payment was made, by our clock: no redemption is older.
    pub created: Timestamp,
    /// The transaction somebody says redeemed it, `0x` and 64 hex digits. Only a place to look first.
    pub transaction: Option<&'a str>,
}

/// How an authorization ended without having been used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unused {
    /// Its time is over in a finalized block, in which it is unused.
    Expired,
    /// It was cancelled in a finalized block.
    Cancelled,
}

/// Why nothing is decided yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pending {
    /// Not used, and its time is not over where the chain is final.
    Redeemable,
    /// Used in a block that is not final yet.
    NotFinal {
        /// The transaction, `0x` and 64 hex digits.
        transaction: String,
        /// Its block.
        block: u64,
    },
    /// Cancelled in a block that is not final yet.
    Cancelling {
        /// The transaction, `0x` and 64 hex digits.
        transaction: String,
        /// Its block.
        block: u64,
    },
    /// One node alone says something that would free budget. It must say so again, of a later block.
    Confirming {
        /// Not before this moment of our clock.
        not_before: Timestamp,
    },
    /// Used; where is still being looked for.
    Searching {
        /// No log of it up to this block.
        through: u64,
    },
    /// A node does not answer, or cannot.
    NoAnswer(ReadError),
    /// What the nodes say does not fit together. It may be a delay of theirs.
    Unclear(String),
}

/// What the chain shows about one authorization.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// Redeemed in a finalized block, by us to our payee, for no more than was signed.
    Redeemed {
        /// What shows it.
        evidence: Box<Evidence>,
        /// How much moved.
        amount: Atomic,
    },
    /// Nobody can redeem it any more, and nobody has.
    Unused {
        /// What shows it.
        evidence: Box<Evidence>,
        /// How it ended.
        how: Unused,
    },
    /// Nothing to act on yet.
    Pending(Pending),
    /// The block that held its redemption is no longer in the chain, and no other holds it.
    Gone {
        /// The transaction, `0x` and 64 hex digits.
        transaction: String,
    },
    /// What is final is not what was signed, or a contradiction has lasted. For people.
    Contradiction(String),
}

/// What a reader wants to be told at the next look at the same payment. To be kept by whoever asks; losing
/// it only delays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watch {
    /// Of which payment. A watch of another one is not believed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    payment: Option<PaymentId>,
    /// Blocks below this one hold no event of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    search_from: Option<u64>,
    /// The last sight of its redemption in a block.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    seen: Option<Place>,
    /// The first of two readings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    first: Option<Reading>,
    /// Since when what the nodes say does not fit together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    unclear_since: Option<Timestamp>,
}

/// One reading of something that frees budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Reading {
    block: Block,
    at: Timestamp,
    what: Freed,
}

/// What would free budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Freed {
    Expired,
    Cancelled(Place),
    Less(Place, Atomic),
}

/// What a node says about what is final.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Unused,
    Redeemed {
        place: Place,
        time: u64,
        amount: Atomic,
    },
    Cancelled {
        place: Place,
        time: u64,
    },
    /// Used, but not as signed.
    Wrong(String),
    /// Used; no event of it up to this block.
    Searching {
        through: u64,
    },
    /// The node contradicts itself.
    Confused(String),
}

/// What one node says.
#[derive(Clone, Debug)]
struct Said {
    state: State,
    /// An end of the authorization in a block above what is final.
    sight: Option<Sight>,
    /// Another block is where its redemption was seen.
    displaced: bool,
    /// Another block is where the first of two readings was taken.
    unread: bool,
}

/// An end of the authorization, wherever it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sight {
    place: Place,
    cancelled: bool,
}

impl Reader {
    /// Looks at one authorization, at an anchor of its own. See [`Reader::look_at`].
    pub async fn look(&self, subject: Subject<'_>, watch: &mut Watch, now: Timestamp) -> Finding {
        match self.anchor().await {
            Ok(anchor) => self.look_at(&anchor, subject, watch, now).await,
            Err(error) => watch.failed(subject, error, now),
        }
    }

    /// What became of one authorization, as of `anchor`. `watch` is what the last look at this payment left.
    pub async fn look_at(&self, anchor: &Anchor, subject: Subject<'_>, watch: &mut Watch, now: Timestamp) -> Finding {
        watch.keep_only(subject);
        if let Err(error) = self.covers(subject.authorization.offer.network, anchor) {
            return watch.failed(subject, error, now);
        }
        let mut said = Vec::new();
        for source in &self.sources {
            match ask(source, anchor, subject, watch).await {
                Ok(one) => said.push((source.name(), one)),
                Err(error) => return watch.failed(subject, error, now),
            }
        }
        conclude(anchor, subject.authorization, &said, watch, now)
    }
}

impl Watch {
    /// What follows from not having been able to ask, for instance without an anchor.
    pub fn failed(&mut self, subject: Subject<'_>, error: ReadError, now: Timestamp) -> Finding {
        self.keep_only(subject);
        match error {
            ReadError::Disagree(_) => self.unclear(error.to_string(), now),
            error => Finding::Pending(Pending::NoAnswer(error)),
        }
    }

    fn keep_only(&mut self, subject: Subject<'_>) {
        let payment = Some(subject.authorization.payment);
        if self.payment != payment {
            *self = Self { payment, ..Self::default() };
        }
    }

    fn unclear(&mut self, what: String, now: Timestamp) -> Finding {
        self.first = None;
        let since = *self.unclear_since.get_or_insert(now);
        if now.since(since) >= LASTING_MS {
            return Finding::Contradiction(format!("{what} (since {since})"));
        }
        Finding::Pending(Pending::Unclear(what))
    }

    /// Whether something that frees budget is beyond doubt: several nodes agree, or one has said it twice.
    fn confirm(&mut self, anchor: &Anchor, what: Freed, unread: bool, now: Timestamp) -> Option<Finding> {
        if anchor.nodes() > 1 {
            return None;
        }
        let first = self.first.filter(|first| first.what == what && !unread);
        let first = *self.first.insert(first.unwrap_or(Reading { block: anchor.block(), at: now, what }));
        let wait = CONFIRM_SECONDS.saturating_mul(1_000);
        let later = anchor.block().number > first.block.number
            && anchor.block().time >= first.block.time.saturating_add(CONFIRM_SECONDS)
            && now.since(first.at) >= wait;
        (!later).then(|| Finding::Pending(Pending::Confirming { not_before: first.at.plus_millis(wait) }))
    }
}

/// What one node says about the authorization.
async fn ask(source: &Source, anchor: &Anchor, subject: Subject<'_>, watch: &Watch) -> Result<Said, ReadError> {
    let authorization = subject.authorization;
    let (asset, payer, final_block) = (authorization.offer.asset.address, authorization.from, anchor.block());
    if !source.has_code(asset, &final_block.hash).await? {
        return Err(ReadError::NoCode { node: source.name().to_owned(), asset });
    }
    let used = source.authorization_state(asset, payer, &authorization.nonce, &final_block.hash).await?;
    let ends = Wanted {
        asset,
        topics: vec![Some(ending_kinds()), Some([word(payer)].into()), Some([authorization.nonce].into())],
    };

    let mut sight = None;
    let seen = watch.seen.map(|seen| seen.transaction);
    let hint = subject.transaction.and_then(hex32::parse).filter(|hint| Some(*hint) != seen);
    if let Some(transaction) = seen {
        sight = hinted(source, &ends, &transaction, final_block, used).await?;
    }
    if let (None, Some(transaction)) = (&sight, hint) {
        // Somebody's word for where to look: what cannot be read there says nothing, and holds nothing up.
        sight = hinted(source, &ends, &transaction, final_block, used).await.unwrap_or_default();
    }

    let state = match (used, sight) {
        (true, Some(sight)) => ended(source, anchor, authorization, sight).await?,
        (true, None) => search(source, anchor, subject, watch, &ends).await?,
        (false, Some(sight)) if sight.place.block <= final_block.number => {
            State::Confused(format!("unused at block {}, and {:?} says it is not", final_block.number, sight.place))
        }
        (false, Some(sight)) if !sight.cancelled && final_block.time >= authorization.valid_before => {
            State::Confused(format!("used after its time was over, by {:?}", sight.place))
        }
        (false, _) => State::Unused,
    };
    if !used && sight.is_none() && final_block.time < authorization.valid_before {
        sight = ahead(source, &ends, final_block).await?;
    }

    let displaced = match watch.seen {
        Some(seen) if sight.is_none() && !used => is_displaced(source, seen.block, &seen.block_hash).await?,
        _ => false,
    };
    let unread = match watch.first {
        Some(first) => is_displaced(source, first.block.number, &first.block.hash).await?,
        None => false,
    };
    Ok(Said { state, sight, displaced, unread })
}

/// Whether the chain now has another block there. A node that has none there is only behind.
async fn is_displaced(source: &Source, number: u64, hash: &Hash) -> Result<bool, ReadError> {
    Ok(source.block(Which::Number(number)).await?.is_some_and(|block| block.hash != *hash))
}

/// Where a transaction ended the authorization: at or below what is final if `used`, else anywhere. A
/// receipt is believed only if the chain has its block.
async fn hinted(
    source: &Source,
    ends: &Wanted,
    transaction: &Hash,
    final_block: Block,
    used: bool,
) -> Result<Option<Sight>, ReadError> {
    let Some(logs) = source.receipt(transaction, ends).await? else { return Ok(None) };
    let Some(log) = logs.first() else { return Ok(None) };
    if used && log.place.block > final_block.number {
        return Ok(None);
    }
    let there = source.block(Which::Number(log.place.block)).await?;
    Ok(there.filter(|block| block.hash == log.place.block_hash).map(|_| sight_of(log)))
}

fn sight_of(log: &crate::source::Log) -> Sight {
    Sight { place: log.place, cancelled: log.topics.first() == Some(&crate::events::CANCELED) }
}

/// An end of the authorization in the first blocks above what is final. It decides nothing.
async fn ahead(source: &Source, ends: &Wanted, final_block: Block) -> Result<Option<Sight>, ReadError> {
    let from = final_block.number.saturating_add(1);
    let head = source.block(Which::Latest).await?.map_or(0, |head| head.number);
    if head < from {
        return Ok(None);
    }
    let to = head.min(final_block.number.saturating_add(MAX_SPAN));
    let (logs, _) = source.logs_between(ends, (from, to), MAX_QUERIES, true).await?;
    Ok(logs.first().map(sight_of))
}

/// Looks for the end of an authorization that is known to have one.
async fn search(
    source: &Source,
    anchor: &Anchor,
    subject: Subject<'_>,
    watch: &Watch,
    ends: &Wanted,
) -> Result<State, ReadError> {
    let from = match watch.search_from {
        Some(from) => from,
        None => first_block(source, anchor.block(), subject.created).await?,
    };
    let range = (from, anchor.block().number);
    let (logs, through) = source.logs_between(ends, range, MAX_QUERIES, true).await?;
    match logs.first() {
        Some(log) => ended(source, anchor, subject.authorization, sight_of(log)).await,
        None => Ok(State::Searching { through: through.unwrap_or(from.saturating_sub(1)) }),
    }
}

/// A block that is older than the payment, not much.
pub(crate) async fn first_block(source: &Source, final_block: Block, created: Timestamp) -> Result<u64, ReadError> {
    let before = created.as_secs().saturating_sub(CLOCK_SKEW);
    let mut step = FIRST_STEP;
    loop {
        let number = final_block.number.saturating_sub(step);
        if number == 0 || source.block_at(number).await?.time < before {
            return Ok(number);
        }
        step = step.saturating_mul(2);
    }
}

/// What a finalized end of the authorization was: from the events of the very block that the chain has
/// there.
async fn ended(
    source: &Source,
    anchor: &Anchor,
    authorization: &Authorization,
    sight: Sight,
) -> Result<State, ReadError> {
    let place = sight.place;
    let block = source.block_at(place.block).await?;
    if place.block > anchor.block().number || block.hash != place.block_hash {
        return Ok(State::Confused(format!("{place:?} is in a block that is not in the chain")));
    }
    let payer = authorization.from;
    let wanted = Wanted {
        asset: authorization.offer.asset.address,
        topics: vec![Some(all_kinds()), Some([word(payer)].into())],
    };
    let logs = source.logs_in(&block, &wanted).await?;
    let ours = |act: &Act| match act {
        Act::Redeemed(redemption) => redemption.nonce == authorization.nonce,
        Act::Cancelled { nonce, .. } => *nonce == authorization.nonce,
        Act::Other(_) => false,
    };
    let mut ends = acts(&logs, payer).into_iter().filter(ours);
    Ok(match (ends.next(), ends.next()) {
        (Some(Act::Redeemed(redemption)), None) => redeemed(redemption, block.time, authorization),
        (Some(Act::Cancelled { place, .. }), None) => State::Cancelled { place, time: block.time },
        (None, _) => State::Confused(format!("{place:?} is not in the block it names")),
        _ => State::Wrong(format!("its nonce was used more than once in block {}", block.number)),
    })
}

/// Whether what moved is what was signed.
fn redeemed(redemption: Redemption, time: u64, authorization: &Authorization) -> State {
    let place = redemption.place;
    let Some(moved) = redemption.transfer else {
        return State::Wrong(format!("redeemed by {place:?}, and no transfer belongs to it"));
    };
    let (payee, signed) = (authorization.offer.pay_to, authorization.offer.amount);
    if moved.to != payee {
        return State::Wrong(format!("redeemed by {place:?} to {}, and {payee} was signed for", moved.to));
    }
    match moved.value {
        Some(amount) if amount <= signed => State::Redeemed { place, time, amount },
        Some(amount) => State::Wrong(format!("redeemed by {place:?} for {amount}, and {signed} was signed for")),
        None => State::Wrong(format!("redeemed by {place:?} for more than 2^128, and {signed} was signed for")),
    }
}

/// What follows from what the nodes say.
fn conclude(
    anchor: &Anchor,
    authorization: &Authorization,
    said: &[(&str, Said)],
    watch: &mut Watch,
    now: Timestamp,
) -> Finding {
    if let Some((node, what)) = said.iter().find_map(|(node, said)| match &said.state {
        State::Confused(what) => Some((node, what)),
        _ => None,
    }) {
        return watch.unclear(format!("chain node {node} contradicts itself: {what}"), now);
    }
    let searching = |said: &Said| matches!(said.state, State::Searching { .. });
    let through = said.iter().filter_map(|(_, said)| match said.state {
        State::Searching { through } => Some(through),
        _ => None,
    });
    let through = through.min();
    let mut found = said.iter().filter(|(_, said)| !searching(said));
    let agreed = match (found.next(), through) {
        (Some((node, first)), through) => {
            let other = found.find(|(_, other)| other.state != first.state);
            let other = other.or_else(|| {
                let behind = through.is_some() && first.state == State::Unused;
                said.iter().find(|(_, said)| behind && searching(said))
            });
            if let Some((other_node, other)) = other {
                let what = format!("{node} says {}; {other_node} says {}", first.state, other.state);
                return watch.unclear(format!("chain nodes contradict each other: {what}"), now);
            }
            first.state.clone()
        }
        (None, Some(through)) => State::Searching { through },
        (None, None) => return watch.unclear("no node was asked".to_owned(), now),
    };
    if let Some(through) = through {
        return searching_on(anchor, through, watch, now);
    }
    let unread = said.iter().any(|(_, said)| said.unread);
    match agreed {
        State::Unused => unused(anchor, authorization, said, watch, now),
        State::Redeemed { place, time, amount } => {
            watch.unclear_since = None;
            if amount < authorization.offer.amount {
                // It frees the rest.
                if let Some(wait) = watch.confirm(anchor, Freed::Less(place, amount), unread, now) {
                    return wait;
                }
            }
            let mut evidence = at_place(anchor, place, time);
            evidence.redeemed = (amount < authorization.offer.amount).then_some(amount);
            Finding::Redeemed { evidence: Box::new(evidence), amount }
        }
        State::Cancelled { place, time } => {
            watch.unclear_since = None;
            if let Some(wait) = watch.confirm(anchor, Freed::Cancelled(place), unread, now) {
                return wait;
            }
            Finding::Unused { evidence: Box::new(at_place(anchor, place, time)), how: Unused::Cancelled }
        }
        State::Wrong(what) => {
            watch.first = None;
            Finding::Contradiction(what)
        }
        // Both were dealt with above.
        State::Searching { .. } | State::Confused(_) => watch.unclear(agreed.to_string(), now),
    }
}

/// Used, and some node has not found where.
fn searching_on(anchor: &Anchor, through: u64, watch: &mut Watch, now: Timestamp) -> Finding {
    watch.first = None;
    if through < anchor.block().number {
        watch.search_from = Some(through.saturating_add(1));
        return Finding::Pending(Pending::Searching { through });
    }
    // Everything was searched. An index may be behind the state: from the start again.
    watch.search_from = None;
    watch.unclear("the token says that it was used or cancelled, and no event tells where".to_owned(), now)
}

/// Every node says that it is unused where the chain is final.
fn unused(
    anchor: &Anchor,
    authorization: &Authorization,
    said: &[(&str, Said)],
    watch: &mut Watch,
    now: Timestamp,
) -> Finding {
    watch.unclear_since = None;
    let block = anchor.block();
    if block.time >= authorization.valid_before {
        let unread = said.iter().any(|(_, said)| said.unread);
        if let Some(wait) = watch.confirm(anchor, Freed::Expired, unread, now) {
            return wait;
        }
        let evidence = Evidence {
            block: Some(block.number),
            block_hash: Some(hex32::print(&block.hash)),
            block_time: Some(block.time),
            nodes: Some(anchor.nodes()),
            ..Evidence::default()
        };
        return Finding::Unused { evidence: Box::new(evidence), how: Unused::Expired };
    }
    watch.first = None;
    if let Some(sight) = said.iter().find_map(|(_, said)| said.sight) {
        let (transaction, block) = (hex32::print(&sight.place.transaction), sight.place.block);
        if sight.cancelled {
            return Finding::Pending(Pending::Cancelling { transaction, block });
        }
        watch.seen = Some(sight.place);
        return Finding::Pending(Pending::NotFinal { transaction, block });
    }
    match watch.seen {
        Some(seen) if said.iter().any(|(_, said)| said.displaced) => {
            watch.seen = None;
            Finding::Gone { transaction: hex32::print(&seen.transaction) }
        }
        _ => Finding::Pending(Pending::Redeemable),
    }
}

fn at_place(anchor: &Anchor, place: Place, time: u64) -> Evidence {
    Evidence {
        transaction: Some(hex32::print(&place.transaction)),
        block: Some(place.block),
        block_hash: Some(hex32::print(&place.block_hash)),
        block_time: Some(time),
        nodes: Some(anchor.nodes()),
        ..Evidence::default()
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unused => f.write_str("unused"),
            Self::Redeemed { place, amount, .. } => write!(f, "redeemed for {amount} by {place:?}"),
            Self::Cancelled { place, .. } => write!(f, "cancelled by {place:?}"),
            Self::Wrong(what) | Self::Confused(what) => f.write_str(what),
            Self::Searching { through } => write!(f, "used, nowhere up to block {through}"),
        }
    }
}
