//! One network, read through one or more nodes that must agree.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use countersign_core::evm::{Address, hex32};
use countersign_core::ledger::Finalized;
use countersign_core::x402::Network;

use crate::node::{Node, RpcError};
use crate::source::{Block, Source, Which};

/// Most nodes of one network.
pub const MAX_NODES: usize = 8;

/// When a block counts as never to be undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finality {
    /// When the node's own `finalized` block is it or above it.
    Tag,
    /// When this many blocks are on top of it. 0 is the newest block itself: for development chains.
    Depth(u64),
}

/// Why nothing can be said. It never means "no".
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadError {
    /// A reader needs 1 to [`MAX_NODES`] nodes, of different providers.
    Nodes(String),
    /// A node did not answer a question.
    Node {
        /// Which.
        node: String,
        /// The question.
        method: &'static str,
        /// What came instead.
        error: RpcError,
    },
    /// A node does not read state by block hash.
    HashRead {
        /// Which.
        node: String,
        /// What it did.
        why: String,
    },
    /// A node is of another chain.
    Chain {
        /// Which.
        node: String,
        /// Its chain.
        is: u64,
        /// Ours.
        expected: u64,
    },
    /// What is asked about is of another network than what is read.
    Network {
        /// What is read.
        reads: Network,
        /// What was asked about.
        asked: Network,
    },
    /// A node tells no finalized block.
    NotFinal {
        /// Which.
        node: String,
        /// What is missing.
        why: String,
    },
    /// What is final became less: a node behind the others, or a restored one. It may catch up.
    Behind {
        /// How far the chain was known to be final.
        known: u64,
        /// How far the slowest node now says it is.
        says: u64,
    },
    /// There is no code at the token's address.
    NoCode {
        /// Which node says so.
        node: String,
        /// The token.
        asset: Address,
    },
    /// The nodes do not agree on what is final, or one contradicts what was final before.
    Disagree(String),
    /// The caller asked about blocks that are not final, or about none.
    Range {
        /// First block.
        from: u64,
        /// Last block.
        to: u64,
        /// Up to where the chain is final.
        finalized: u64,
    },
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nodes(why) => write!(f, "chain nodes: {why}"),
            Self::Node { node, method, error } => write!(f, "chain node {node}: {method}: {error}"),
            Self::HashRead { node, why } => write!(
                f,
                "chain node {node}: no state by block hash: {why}; use one that supports EIP-1898 and keeps the \
                 state of finalized blocks"
            ),
            Self::Chain { node, is, expected } => {
                write!(f, "chain node {node}: it is of chain {is}, not {expected}; correct `rpc` of this network")
            }
            Self::Network { reads, asked } => {
                write!(f, "the reader of {reads} was asked about {asked}; ask the reader of that network")
            }
            Self::NotFinal { node, why } => {
                write!(f, "chain node {node}: no finalized block: {why}; use another node, or set a depth")
            }
            Self::Behind { known, says } => {
                write!(f, "the chain was final up to block {known}, and the nodes now say {says}; waiting for them")
            }
            Self::NoCode { node, asset } => {
                write!(f, "chain node {node}: there is no code at the token's address {asset}; correct the asset")
            }
            Self::Disagree(what) => write!(f, "chain nodes contradict each other: {what}"),
            Self::Range { from, to, finalized } => {
                write!(f, "blocks {from} to {to}: expected a range up to the finalized block {finalized}")
            }
        }
    }
}

impl std::error::Error for ReadError {}

/// A block that all nodes call final. Statements that move money are read at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anchor {
    network: Network,
    block: Block,
    nodes: u8,
}

impl Anchor {
    /// The block.
    #[must_use]
    pub const fn block(&self) -> Block {
        self.block
    }

    /// How many nodes say so.
    #[must_use]
    pub const fn nodes(&self) -> u8 {
        self.nodes
    }

    /// As the ledger remembers it.
    #[must_use]
    pub fn finalized(&self) -> Finalized {
        let Block { number, hash, time } = self.block;
        Finalized { network: self.network.to_string(), block: number, hash: hex32::print(&hash), time }
    }
}

/// Reads one network.
pub struct Reader {
    network: Network,
    finality: Finality,
    pub(crate) sources: Vec<Source>,
    /// The highest block that was ever final here.
    floor: Mutex<Option<Block>>,
}

impl Reader {
    /// A reader of `network`. `floor` is the highest block known to be final from before, if it is
    /// remembered: what is final never becomes less.
    ///
    /// # Errors
    /// [`ReadError::Nodes`] without a node, with too many, or with two of one name: one provider asked
    /// twice is one witness.
    pub fn new(
        network: Network,
        finality: Finality,
        nodes: Vec<Arc<dyn Node>>,
        floor: Option<Block>,
    ) -> Result<Self, ReadError> {
        if nodes.is_empty() || nodes.len() > MAX_NODES {
            return Err(ReadError::Nodes(format!("{network}: expected 1 to {MAX_NODES}, found {}", nodes.len())));
        }
        let mut names = BTreeSet::new();
        if let Some(twice) = nodes.iter().map(|node| node.name()).find(|name| !names.insert(name.clone())) {
            let why = format!("{network}: {twice} is named twice, and would vouch for itself; name another provider");
            return Err(ReadError::Nodes(why));
        }
        let sources = nodes.into_iter().map(Source::new).collect();
        Ok(Self { network, finality, sources, floor: Mutex::new(floor) })
    }

    /// The network.
    #[must_use]
    pub const fn network(&self) -> Network {
        self.network
    }

    /// How many nodes it reads.
    #[must_use]
    pub fn nodes(&self) -> u8 {
        u8::try_from(self.sources.len()).unwrap_or(u8::MAX)
    }

    /// The highest block that every node calls final and knows by the same hash, and that extends what
    /// was final before. One anchor serves any number of looks; give [`Anchor::finalized`] to the ledger
    /// before acting on them.
    ///
    /// # Errors
    /// When a node does not answer or is of another chain, when the nodes do not agree, and when what is
    /// final became less or something else.
    pub async fn anchor(&self) -> Result<Anchor, ReadError> {
        let floor = *self.floor.lock().unwrap_or_else(PoisonError::into_inner);
        let mut lowest: Option<(&Source, Block)> = None;
        for source in &self.sources {
            let chain = source.chain_id().await?;
            if chain != self.network.chain_id() {
                let (node, expected) = (source.name().to_owned(), self.network.chain_id());
                return Err(ReadError::Chain { node, is: chain, expected });
            }
            source.check_reads_by_hash().await?;
            let block = self.final_block(source).await?;
            if lowest.is_none_or(|(_, low)| block.number < low.number) {
                lowest = Some((source, block));
            }
        }
        let Some((lowest, block)) = lowest else { return Err(ReadError::Nodes("there is none".to_owned())) };
        for source in &self.sources {
            same(source, block, lowest.name()).await?;
        }
        if let Some(floor) = floor {
            if block.number < floor.number {
                return Err(ReadError::Behind { known: floor.number, says: block.number });
            }
            for source in &self.sources {
                same(source, floor, "what was final before").await?;
            }
        }
        let mut known = self.floor.lock().unwrap_or_else(PoisonError::into_inner);
        if known.is_none_or(|known| known.number < block.number) {
            *known = Some(block);
        }
        drop(known);
        Ok(Anchor { network: self.network, block, nodes: self.nodes() })
    }

    /// Whether `network` and the anchor are this reader's: the same token may have the same address on
    /// several chains, and unused there means nothing here.
    pub(crate) fn covers(&self, network: Network, anchor: &Anchor) -> Result<(), ReadError> {
        let other = [network, anchor.network].into_iter().find(|asked| *asked != self.network);
        other.map_or(Ok(()), |asked| Err(ReadError::Network { reads: self.network, asked }))
    }

    async fn final_block(&self, source: &Source) -> Result<Block, ReadError> {
        let missing = |why: String| ReadError::NotFinal { node: source.name().to_owned(), why };
        match self.finality {
            Finality::Tag => {
                let block = source.block(Which::Finalized).await?;
                block.ok_or_else(|| missing("it does not know the tag".to_owned()))
            }
            Finality::Depth(depth) => {
                let head = source.block(Which::Latest).await?.ok_or_else(|| missing("it has no block".to_owned()))?;
                let number = head.number.checked_sub(depth);
                let number = number.ok_or_else(|| missing(format!("its chain is shorter than {depth} blocks")))?;
                source.block_at(number).await
            }
        }
    }

    /// What `owner` has of `asset` now: the least that a node says. Good for refusing to sign what the
    /// chain would not pay, for nothing else.
    ///
    /// # Errors
    /// When a node does not answer.
    pub async fn balance(&self, asset: Address, owner: Address) -> Result<u128, ReadError> {
        let mut least = u128::MAX;
        for source in &self.sources {
            least = least.min(source.balance(asset, owner).await?);
        }
        Ok(least)
    }
}

/// Whether this node has exactly this block in its chain.
async fn same(source: &Source, block: Block, by: &str) -> Result<(), ReadError> {
    let there = source.block_at(block.number).await?;
    if there == block {
        return Ok(());
    }
    Err(ReadError::Disagree(format!("{} has {there:?}; {by}: {block:?}", source.name())))
}
