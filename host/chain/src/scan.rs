//! What happened to our wallets in a range of blocks, for reconciliation.

use std::collections::{BTreeMap, BTreeSet};

use countersign_core::evm::Address;
use countersign_core::time::Timestamp;

use crate::events::{Act, Place, TRANSFER, Transfer, acts, all_kinds, transfer};
use crate::look::first_block;
use crate::node::RpcError;
use crate::reader::{Anchor, ReadError, Reader};
use crate::source::{Hash, Log, Source, Wanted, word};

/// Most `eth_getLogs` of one scan, per node and direction.
const MAX_QUERIES: u32 = 16;

/// What happened in a range of finalized blocks, in the order of the chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// Every authorization of our payers that was redeemed or cancelled, and what else left their wallets.
    pub acts: Vec<Act>,
    /// What came to our payers, except what they paid each other by authorizations.
    pub incoming: Vec<Transfer>,
    /// The time of every block that is named above, in seconds since the epoch.
    pub times: BTreeMap<u64, u64>,
    /// The last block that was read: the next scan begins after it.
    pub through: u64,
}

impl Reader {
    /// A block that is older than a moment of our clock, and its time in seconds since the epoch: where a
    /// scan from then on begins.
    ///
    /// # Errors
    /// When the node does not answer.
    pub async fn first_block(&self, anchor: &Anchor, at: Timestamp) -> Result<(u64, u64), ReadError> {
        let source = self.sources.first().ok_or_else(|| ReadError::Nodes("there is none".to_owned()))?;
        let number = first_block(source, anchor.block(), at).await?;
        Ok((number, source.block_at(number).await?.time))
    }

    /// Everything that the token says about `payers` in blocks `from..=to`, which must be final. A long
    /// range is not read at once: go on after [`Scan::through`].
    ///
    /// # Errors
    /// [`ReadError::Range`] for an empty range or one above the anchor; [`ReadError::Disagree`] when the nodes
    /// tell different events or one is not of the chain; as any reading.
    pub async fn scan(
        &self,
        anchor: &Anchor,
        asset: Address,
        payers: &BTreeSet<Address>,
        (from, to): (u64, u64),
    ) -> Result<Scan, ReadError> {
        self.covers(self.network(), anchor)?;
        let finalized = anchor.block().number;
        if from > to || to > finalized {
            return Err(ReadError::Range { from, to, finalized });
        }
        let mut read = Vec::new();
        for source in &self.sources {
            if !source.has_code(asset, &anchor.block().hash).await? {
                return Err(ReadError::NoCode { node: source.name().to_owned(), asset });
            }
            read.push((source, logs_of(source, asset, payers, (from, to)).await?));
        }
        let through = read.iter().map(|(_, logs)| logs.through).min().unwrap_or(to);
        let mut agreed: Option<(&Source, Logs)> = None;
        for (source, mut logs) in read {
            logs.cut(through);
            match &agreed {
                Some((first, other)) if *other != logs => {
                    let (a, b) = (first.name(), source.name());
                    let what = format!("{a} and {b} tell different events of {asset} in blocks {from} to {through}");
                    return Err(ReadError::Disagree(what));
                }
                Some(_) => {}
                None => agreed = Some((source, logs)),
            }
        }
        let Some((source, logs)) = agreed else { return Err(ReadError::Nodes("there is none".to_owned())) };
        let times = in_chain(source, logs.places()).await?;
        Ok(logs.tell(payers, times))
    }
}

/// What one node told.
#[derive(PartialEq, Eq)]
struct Logs {
    outgoing: Vec<Log>,
    incoming: Vec<Log>,
    through: u64,
}

impl Logs {
    fn cut(&mut self, through: u64) {
        self.outgoing.retain(|log| log.place.block <= through);
        self.incoming.retain(|log| log.place.block <= through);
        self.through = through;
    }

    fn places(&self) -> impl Iterator<Item = &Place> {
        self.outgoing.iter().chain(&self.incoming).map(|log| &log.place)
    }

    fn tell(self, payers: &BTreeSet<Address>, times: BTreeMap<u64, u64>) -> Scan {
        let mut all: Vec<Act> = payers.iter().flat_map(|payer| acts(&self.outgoing, *payer)).collect();
        all.sort_by_key(|act| {
            let place = act.place();
            (place.block, place.log)
        });
        let paid: BTreeSet<Place> = all
            .iter()
            .filter_map(|act| match act {
                Act::Redeemed(redemption) => redemption.transfer.as_ref().map(|transfer| transfer.place),
                _ => None,
            })
            .collect();
        let incoming = self.incoming.iter().filter_map(transfer).filter(|t| !paid.contains(&t.place)).collect();
        Scan { acts: all, incoming, times, through: self.through }
    }
}

async fn logs_of(
    source: &Source,
    asset: Address,
    payers: &BTreeSet<Address>,
    (from, to): (u64, u64),
) -> Result<Logs, ReadError> {
    // A filter that names nobody would mean everybody.
    if payers.is_empty() {
        return Ok(Logs { outgoing: Vec::new(), incoming: Vec::new(), through: to });
    }
    let ours: BTreeSet<Hash> = payers.iter().copied().map(word).collect();
    let outgoing = Wanted { asset, topics: vec![Some(all_kinds()), Some(ours.clone())] };
    let incoming = Wanted { asset, topics: vec![Some([*TRANSFER].into()), None, Some(ours)] };
    let (outgoing, out_through) = source.logs_between(&outgoing, (from, to), MAX_QUERIES, false).await?;
    let (incoming, in_through) = source.logs_between(&incoming, (from, to), MAX_QUERIES, false).await?;
    let (Some(out_through), Some(in_through)) = (out_through, in_through) else {
        let error = RpcError::Unreachable("it refuses ranges of blocks however short".to_owned());
        return Err(ReadError::Node { node: source.name().to_owned(), method: "eth_getLogs", error });
    };
    Ok(Logs { outgoing, incoming, through: out_through.min(in_through) })
}

/// The times of these blocks, if the chain has each of them by its hash.
async fn in_chain<'a>(
    source: &Source,
    places: impl Iterator<Item = &'a Place>,
) -> Result<BTreeMap<u64, u64>, ReadError> {
    let mut hashes: BTreeMap<u64, Hash> = BTreeMap::new();
    for place in places {
        if *hashes.entry(place.block).or_insert(place.block_hash) != place.block_hash {
            return Err(ReadError::Disagree(format!("{} tells two blocks {}", source.name(), place.block)));
        }
    }
    let mut times = BTreeMap::new();
    for (number, hash) in hashes {
        let block = source.block_at(number).await?;
        if block.hash != hash {
            let what = format!("{} tells events of a block {number} that is not in the chain", source.name());
            return Err(ReadError::Disagree(what));
        }
        times.insert(number, block.time);
    }
    Ok(times)
}
