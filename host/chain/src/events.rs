//! What a token's events mean: which transfer belongs to which authorization. Pure.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::LazyLock;

use countersign_core::evm::{Address, hex32, keccak256};
use countersign_core::money::Atomic;
use serde::{Deserialize, Serialize};

use crate::source::{Hash, Log};

/// First topic of EIP-3009's `AuthorizationUsed`.
pub(crate) static USED: LazyLock<Hash> = LazyLock::new(|| keccak256(b"AuthorizationUsed(address,bytes32)"));
/// First topic of EIP-3009's `AuthorizationCanceled`.
pub(crate) static CANCELED: LazyLock<Hash> = LazyLock::new(|| keccak256(b"AuthorizationCanceled(address,bytes32)"));
/// First topic of ERC-20's `Transfer`.
pub(crate) static TRANSFER: LazyLock<Hash> = LazyLock::new(|| keccak256(b"Transfer(address,address,uint256)"));

/// Where an event is. The transaction and the log's index name it for ever.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    /// The transaction's hash.
    #[serde(with = "hex32")]
    pub transaction: [u8; 32],
    /// Which log of its block.
    pub log: u64,
    /// The block's number.
    pub block: u64,
    /// The block's hash.
    #[serde(with = "hex32")]
    pub block_hash: [u8; 32],
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in block {}, log {}", hex32::print(&self.transaction), self.block, self.log)
    }
}

/// Tokens moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// Where it says so.
    pub place: Place,
    /// From whom.
    pub from: Address,
    /// To whom.
    pub to: Address,
    /// How much; none from 2^128 on, more than we ever pay.
    pub value: Option<Atomic>,
}

/// An authorization that was redeemed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redemption {
    /// Where it says so.
    pub place: Place,
    /// Who pays.
    pub payer: Address,
    /// Of which authorization.
    pub nonce: [u8; 32],
    /// What moved by it; none if the events do not tell.
    pub transfer: Option<Transfer>,
}

/// What the events of one payer say happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// An authorization was redeemed.
    Redeemed(Redemption),
    /// An authorization was cancelled.
    Cancelled {
        /// Where it says so.
        place: Place,
        /// Who would have paid.
        payer: Address,
        /// Of which authorization.
        nonce: [u8; 32],
    },
    /// Tokens moved that no authorization of this payer moved.
    Other(Transfer),
}

impl Act {
    /// Where it says so.
    #[must_use]
    pub const fn place(&self) -> Place {
        match self {
            Self::Redeemed(redemption) => redemption.place,
            Self::Cancelled { place, .. } => *place,
            Self::Other(transfer) => transfer.place,
        }
    }
}

/// Reads a `Transfer`; none if it is another event, or not one of a token's.
pub(crate) fn transfer(log: &Log) -> Option<Transfer> {
    let [kind, from, to] = log.topics.as_slice() else { return None };
    let value: Hash = log.data.as_slice().try_into().ok()?;
    let (from, to) = (address(from)?, address(to)?);
    (*kind == *TRANSFER).then(|| Transfer { place: log.place, from, to, value: Atomic::from_be_bytes32(&value) })
}

fn address(word: &Hash) -> Option<Address> {
    let (high, low) = word.split_first_chunk::<12>()?;
    (*high == [0; 12]).then(|| low.try_into().ok().map(Address::new))?
}

/// What happened, from *every* authorization event of `payer` and every transfer *from* them, of one
/// token, in the order of the chain; other events are passed over.
///
/// EIP-3009 emits `AuthorizationUsed` and then `Transfer` within one call. So the transfer of an
/// authorization is the payer's next event, in the same transaction, and no transfer belongs to two.
pub(crate) fn acts(logs: &[Log], payer: Address) -> Vec<Act> {
    let mut acts = Vec::new();
    // An authorization whose transfer has not come yet.
    let mut open: Option<Redemption> = None;
    for log in logs {
        if let Some(before) = open.take_if(|open| open.place.transaction != log.place.transaction) {
            acts.push(Act::Redeemed(before));
        }
        if let Some(transfer) = transfer(log) {
            if transfer.from != payer {
                continue;
            }
            acts.push(match open.take() {
                Some(redemption) => Act::Redeemed(Redemption { transfer: Some(transfer), ..redemption }),
                None => Act::Other(transfer),
            });
            continue;
        }
        let [kind, owner, nonce] = log.topics.as_slice() else { continue };
        if address(owner) != Some(payer) {
            continue;
        }
        if *kind == *USED {
            acts.extend(open.take().map(Act::Redeemed));
            open = Some(Redemption { place: log.place, payer, nonce: *nonce, transfer: None });
        } else if *kind == *CANCELED {
            acts.extend(open.take().map(Act::Redeemed));
            acts.push(Act::Cancelled { place: log.place, payer, nonce: *nonce });
        }
    }
    acts.extend(open.map(Act::Redeemed));
    acts
}

/// The three kinds of event.
pub(crate) fn all_kinds() -> BTreeSet<Hash> {
    BTreeSet::from([*USED, *CANCELED, *TRANSFER])
}

/// The two kinds that end an authorization.
pub(crate) fn ending_kinds() -> BTreeSet<Hash> {
    BTreeSet::from([*USED, *CANCELED])
}
