//! A Merkle tree over the records, as RFC 6962 hashes it and C2SP's tlog stores it.
//!
//! Only *complete* subtrees are stored. A subtree of 2^level leaves that begins at leaf n·2^level is
//! (level, n); it is written once, in the same breath as its last leaf, and never changes. One number
//! orders them all: [`stored_index`]. There are about two of them for each record, and every root and
//! proof of every size the tree ever had is made of at most two paths of them.

use std::fmt;

use sha2::{Digest, Sha256};

/// SHA-256.
pub type Hash = [u8; 32];

/// What a record hashes to: SHA-256(0x00 ‖ record).
#[must_use]
pub fn leaf_hash(record: &[u8]) -> Hash {
    Sha256::new_with_prefix([0]).chain_update(record).finalize().into()
}

/// What two subtrees hash to together: SHA-256(0x01 ‖ left ‖ right).
#[must_use]
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    Sha256::new_with_prefix([1]).chain_update(left).chain_update(right).finalize().into()
}

/// The root of a tree without leaves: SHA-256 of nothing.
#[must_use]
pub fn empty_root() -> Hash {
    Sha256::digest([]).into()
}

/// A complete subtree: `level` doublings of one leaf, the `n`-th of its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its height; 0 is a leaf.
    pub level: u32,
    /// Its place among those of its height, from 0.
    pub n: u64,
}

/// How many complete subtrees a tree of `size` leaves has.
#[must_use]
pub const fn stored_count(size: u64) -> u64 {
    // size + size/2 + size/4 + … = 2·size − (ones in size)
    size.saturating_mul(2).saturating_sub(size.count_ones() as u64)
}

/// Where a complete subtree is stored: after everything that ended before its own last leaf, and
/// after the smaller ones that end with that leaf.
#[must_use]
pub const fn stored_index(node: Node) -> u64 {
    let last_leaf = node.n.saturating_add(1).saturating_mul(1_u64 << node.level).saturating_sub(1);
    stored_count(last_leaf).saturating_add(node.level as u64)
}

/// Where the complete subtrees of a tree are read from.
pub trait Nodes {
    /// Why a read failed.
    type Error;

    /// The hash of a complete subtree. It is asked only for those that a tree of the size at hand has.
    ///
    /// # Errors
    /// When it cannot be read, or is not there.
    fn node(&self, node: Node) -> Result<Hash, Self::Error>;
}

/// What appending `leaf` to a tree of `size` leaves adds: the complete subtrees that end with it, the
/// leaf itself first. They are stored from [`stored_count`]`(size)` on.
///
/// # Errors
/// Those of `nodes`, which is read once for each but the first.
pub fn appended<N: Nodes>(nodes: &N, size: u64, leaf: Hash) -> Result<Vec<Hash>, N::Error> {
    let mut added = vec![leaf];
    let mut hash = leaf;
    for level in 0..size.trailing_ones() {
        // The subtree that ends here is a right half; its left half is the one before it.
        let left = nodes.node(Node { level, n: (size >> level).saturating_sub(1) })?;
        hash = node_hash(&left, &hash);
        added.push(hash);
    }
    Ok(added)
}

/// The largest power of two that is smaller than `size`, which is at least 2: where a tree divides.
const fn split(size: u64) -> u64 {
    1 << (63 - size.saturating_sub(1).leading_zeros())
}

/// The complete subtrees that the leaves from `from` up to (not including) `to` fall into, from left
/// to right. `from` is where a tree of `to - from` leaves may begin.
fn cover(mut from: u64, to: u64) -> Vec<Node> {
    let mut nodes = Vec::new();
    while from < to {
        let level = 63 - to.saturating_sub(from).leading_zeros();
        nodes.push(Node { level, n: from >> level });
        from = from.saturating_add(1 << level);
    }
    nodes
}

/// The hash of the leaves from `from` up to `to`, at least one.
fn range<N: Nodes>(nodes: &N, from: u64, to: u64) -> Result<Hash, N::Error> {
    let mut hash: Option<Hash> = None;
    for node in cover(from, to).into_iter().rev() {
        let left = nodes.node(node)?;
        hash = Some(hash.map_or(left, |right| node_hash(&left, &right)));
    }
    Ok(hash.unwrap_or_else(empty_root))
}

/// The root of the first `size` leaves.
///
/// # Errors
/// Those of `nodes`.
pub fn root<N: Nodes>(nodes: &N, size: u64) -> Result<Hash, N::Error> {
    range(nodes, 0, size)
}

/// The proof that the leaf `index` (from 0) is in the tree of the first `size` leaves: the hash beside
/// the path to it at each height, the lowest first. None if the tree has no such leaf.
///
/// # Errors
/// Those of `nodes`.
pub fn prove_inclusion<N: Nodes>(nodes: &N, index: u64, size: u64) -> Result<Option<Vec<Hash>>, N::Error> {
    if index >= size {
        return Ok(None);
    }
    let (mut from, mut to) = (0_u64, size);
    let mut beside = Vec::new();
    while to.saturating_sub(from) > 1 {
        let middle = from.saturating_add(split(to.saturating_sub(from)));
        if index < middle {
            beside.push((middle, to));
            to = middle;
        } else {
            beside.push((from, middle));
            from = middle;
        }
    }
    beside.into_iter().rev().map(|(from, to)| range(nodes, from, to)).collect::<Result<_, _>>().map(Some)
}

/// The proof that the tree of the first `new` leaves begins with that of the first `old` ones, as
/// RFC 6962 orders it. None unless `1 <= old <= new`; empty if they are equal.
///
/// # Errors
/// Those of `nodes`.
pub fn prove_consistency<N: Nodes>(nodes: &N, old: u64, new: u64) -> Result<Option<Vec<Hash>>, N::Error> {
    if old == 0 || old > new {
        return Ok(None);
    }
    let (mut from, mut to) = (0_u64, new);
    let mut parts = Vec::new();
    while to != old {
        let middle = from.saturating_add(split(to.saturating_sub(from)));
        if old <= middle {
            parts.push((middle, to));
            to = middle;
        } else {
            parts.push((from, middle));
            from = middle;
        }
    }
    // The old tree's own root need not be told to who has it.
    if from > 0 {
        parts.push((from, to));
    }
    parts.into_iter().rev().map(|(from, to)| range(nodes, from, to)).collect::<Result<_, _>>().map(Some)
}

/// A proof does not prove what it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProofError {
    /// The sizes or the index cannot be.
    Sizes,
    /// It has more or fewer hashes than sizes and index ask for.
    Length,
    /// It leads to another root.
    Root,
}

impl fmt::Display for ProofError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sizes => "no tree has such sizes and indexes",
            Self::Length => "the proof has not as many hashes as its tree is high",
            Self::Root => "the proof leads to another root",
        })
    }
}

impl std::error::Error for ProofError {}

/// The root that an inclusion proof leads to.
///
/// # Errors
/// [`ProofError::Sizes`] or [`ProofError::Length`].
pub fn included_root(leaf: &Hash, index: u64, size: u64, proof: &[Hash]) -> Result<Hash, ProofError> {
    if index >= size {
        return Err(ProofError::Sizes);
    }
    // RFC 9162, 2.1.3.2: `last` is the path to the last leaf; where the two meet, the tree has no
    // right part any more, and the heights without one are skipped.
    let (mut path, mut last) = (index, size.saturating_sub(1));
    let mut hash = *leaf;
    for beside in proof {
        if last == 0 {
            return Err(ProofError::Length);
        }
        if path & 1 == 1 || path == last {
            hash = node_hash(beside, &hash);
            let skip = if path & 1 == 1 { 0 } else { path.trailing_zeros().min(63) };
            path >>= skip;
            last >>= skip;
        } else {
            hash = node_hash(&hash, beside);
        }
        path >>= 1;
        last >>= 1;
    }
    if last == 0 { Ok(hash) } else { Err(ProofError::Length) }
}

/// Checks that a leaf is in the tree of this size and root.
///
/// # Errors
/// See [`ProofError`].
pub fn check_inclusion(leaf: &Hash, index: u64, size: u64, root: &Hash, proof: &[Hash]) -> Result<(), ProofError> {
    if included_root(leaf, index, size, proof)? == *root { Ok(()) } else { Err(ProofError::Root) }
}

/// Checks that the tree `new` begins with the tree `old`; each is a size, at least 1, and a root.
///
/// # Errors
/// See [`ProofError`].
pub fn check_consistency(old: (u64, &Hash), new: (u64, &Hash), proof: &[Hash]) -> Result<(), ProofError> {
    let ((old, old_root), (new, new_root)) = (old, new);
    if old == 0 || old > new {
        return Err(ProofError::Sizes);
    }
    if old == new {
        return match (proof.is_empty(), old_root == new_root) {
            (false, _) => Err(ProofError::Length),
            (true, false) => Err(ProofError::Root),
            (true, true) => Ok(()),
        };
    }
    // RFC 9162, 2.1.4.2. The complete subtree that the old tree ends with is where both paths begin;
    // if it is the whole old tree, the proof leaves it out.
    let skip = old.trailing_zeros();
    let (mut path, mut last) = (old.saturating_sub(1) >> skip, new.saturating_sub(1) >> skip);
    let mut hashes = proof.iter();
    let start = if path == 0 { old_root } else { hashes.next().ok_or(ProofError::Length)? };
    let (mut older, mut newer) = (*start, *start);
    for beside in hashes {
        if last == 0 {
            return Err(ProofError::Length);
        }
        if path & 1 == 1 || path == last {
            older = node_hash(beside, &older);
            newer = node_hash(beside, &newer);
            let skip = if path & 1 == 1 { 0 } else { path.trailing_zeros().min(63) };
            path >>= skip;
            last >>= skip;
        } else {
            newer = node_hash(&newer, beside);
        }
        path >>= 1;
        last >>= 1;
    }
    if last != 0 {
        return Err(ProofError::Length);
    }
    if older == *old_root && newer == *new_root { Ok(()) } else { Err(ProofError::Root) }
}

/// The right edge of a growing tree: enough to append to it and to tell its root, in 64 hashes at most.
#[derive(Clone, Debug, Default)]
pub struct Frontier {
    size: u64,
    /// The complete subtrees the leaves fall into, the largest first: one for each one in `size`.
    edge: Vec<Hash>,
}

impl Frontier {
    /// Appends a leaf.
    pub fn push(&mut self, leaf: Hash) {
        self.push_each(leaf, |_, _| {});
    }

    /// Appends a leaf, and tells of each complete subtree above it that ends with it: its index and hash.
    pub fn push_each(&mut self, leaf: Hash, mut complete: impl FnMut(u64, &Hash)) {
        let mut hash = leaf;
        for level in 1..=self.size.trailing_ones() {
            if let Some(left) = self.edge.pop() {
                hash = node_hash(&left, &hash);
                complete(stored_index(Node { level, n: self.size >> level }), &hash);
            }
        }
        self.edge.push(hash);
        self.size = self.size.saturating_add(1);
    }

    /// How many leaves it has.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Its root.
    #[must_use]
    pub fn root(&self) -> Hash {
        let folded = self.edge.iter().rev().copied().reduce(|right, left| node_hash(&left, &right));
        folded.unwrap_or_else(empty_root)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;

    /// Stored hashes in memory, in the order of [`stored_index`].
    #[derive(Default)]
    struct Stored(Vec<Hash>);

    impl Nodes for Stored {
        type Error = Infallible;

        fn node(&self, node: Node) -> Result<Hash, Infallible> {
            Ok(self.0[usize::try_from(stored_index(node)).unwrap()])
        }
    }

    fn tree(leaves: &[Vec<u8>]) -> Stored {
        let mut stored = Stored::default();
        for (size, leaf) in leaves.iter().enumerate() {
            assert_eq!(stored_count(size as u64), stored.0.len() as u64);
            let Ok(added) = appended(&stored, size as u64, leaf_hash(leaf));
            stored.0.extend(added);
        }
        stored
    }

    fn ok<T>(answer: Result<T, Infallible>) -> T {
        let Ok(value) = answer;
        value
    }

    /// RFC 6962, 2.1, word for word.
    fn mth(d: &[Vec<u8>]) -> Hash {
        match d.len() {
            0 => Sha256::digest([]).into(),
            1 => leaf_hash(&d[0]),
            n => {
                let k = n.next_power_of_two() / 2;
                node_hash(&mth(&d[..k]), &mth(&d[k..]))
            }
        }
    }

    /// RFC 6962, 2.1.1.
    fn path(m: usize, d: &[Vec<u8>]) -> Vec<Hash> {
        if d.len() <= 1 {
            return Vec::new();
        }
        let k = d.len().next_power_of_two() / 2;
        let (mut inner, beside) =
            if m < k { (path(m, &d[..k]), mth(&d[k..])) } else { (path(m - k, &d[k..]), mth(&d[..k])) };
        inner.push(beside);
        inner
    }

    /// RFC 6962, 2.1.2.
    fn subproof(m: usize, d: &[Vec<u8>], whole: bool) -> Vec<Hash> {
        if m == d.len() {
            return if whole { Vec::new() } else { vec![mth(d)] };
        }
        let k = d.len().next_power_of_two() / 2;
        let (mut inner, beside) = if m <= k {
            (subproof(m, &d[..k], whole), mth(&d[k..]))
        } else {
            (subproof(m - k, &d[k..], false), mth(&d[..k]))
        };
        inner.push(beside);
        inner
    }

    /// The leaves that every implementation of Certificate Transparency is tested with.
    fn rfc_leaves() -> Vec<Vec<u8>> {
        ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
            .map(|leaf| hex::decode(leaf).unwrap())
            .to_vec()
    }

    #[test]
    fn published_roots() {
        let roots = [
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
            "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
            "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
            "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
            "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
        ];
        let leaves = rfc_leaves();
        let stored = tree(&leaves);
        let mut frontier = Frontier::default();
        for (size, expected) in roots.iter().enumerate() {
            assert_eq!(hex::encode(ok(root(&stored, size as u64))), *expected, "{size}");
            assert_eq!(hex::encode(frontier.root()), *expected, "{size}");
            if let Some(leaf) = leaves.get(size) {
                frontier.push(leaf_hash(leaf));
            }
        }
    }

    #[test]
    fn published_proofs() {
        let stored = tree(&rfc_leaves());
        let hexes = |hashes: Option<Vec<Hash>>| hashes.unwrap().iter().map(hex::encode).collect::<Vec<_>>();
        assert_eq!(
            hexes(ok(prove_inclusion(&stored, 5, 8))),
            [
                "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
                "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
                "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            ]
        );
        assert_eq!(
            hexes(ok(prove_inclusion(&stored, 2, 3))),
            ["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"]
        );
        assert_eq!(
            hexes(ok(prove_consistency(&stored, 6, 8))),
            [
                "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
                "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
                "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            ]
        );
        assert_eq!(
            hexes(ok(prove_consistency(&stored, 2, 5))),
            [
                "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
                "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
            ]
        );
    }

    #[test]
    fn stored_hashes_are_numbered_without_a_gap() {
        let mut indexes: Vec<u64> =
            (0..7_u32).flat_map(|level| (0..64_u64 >> level).map(move |n| stored_index(Node { level, n }))).collect();
        indexes.sort_unstable();
        assert_eq!(indexes, (0..stored_count(64)).collect::<Vec<_>>());
    }

    #[test]
    fn every_proof_of_every_small_tree_is_the_rfc_s_and_checks() {
        let leaves: Vec<Vec<u8>> = (0..70_u8).map(|n| vec![n]).collect();
        let stored = tree(&leaves);
        for size in 1..=leaves.len() {
            let now = mth(&leaves[..size]);
            assert_eq!(ok(root(&stored, size as u64)), now);
            for (index, leaf) in leaves[..size].iter().enumerate() {
                let proof = ok(prove_inclusion(&stored, index as u64, size as u64)).unwrap();
                assert_eq!(proof, path(index, &leaves[..size]));
                assert_eq!(check_inclusion(&leaf_hash(leaf), index as u64, size as u64, &now, &proof), Ok(()));
            }
            for old in 1..=size {
                let proof = ok(prove_consistency(&stored, old as u64, size as u64)).unwrap();
                assert_eq!(proof, subproof(old, &leaves[..size], true));
                let before = mth(&leaves[..old]);
                assert_eq!(check_consistency((old as u64, &before), (size as u64, &now), &proof), Ok(()));
            }
        }
        assert_eq!(ok(prove_inclusion(&stored, 5, 5)), None);
        assert_eq!(ok(prove_consistency(&stored, 0, 5)), None);
        assert_eq!(ok(prove_consistency(&stored, 6, 5)), None);
    }

    proptest! {
        #[test]
        fn a_proof_proves_one_thing_only(
            size in 1_u64..200, index in 0_u64..200, other in 0_u64..200, old in 1_u64..200, flip in 0_usize..8, bit in 0_u8..8,
        ) {
            let leaves: Vec<Vec<u8>> = (0..size).map(|n| n.to_be_bytes().to_vec()).collect();
            let stored = tree(&leaves);
            let (index, other, old) = (index % size, other % size, (old - 1) % size + 1);
            let now = ok(root(&stored, size));
            let leaf = leaf_hash(&leaves[usize::try_from(index).unwrap()]);
            let proof = ok(prove_inclusion(&stored, index, size)).unwrap();
            prop_assert_eq!(check_inclusion(&leaf, index, size, &now, &proof), Ok(()));
            if other != index {
                prop_assert!(check_inclusion(&leaf, other, size, &now, &proof).is_err());
            }
            let mut longer = proof.clone();
            longer.push(now);
            prop_assert_eq!(check_inclusion(&leaf, index, size, &now, &longer), Err(ProofError::Length));
            if let Some((_, shorter)) = proof.split_last() {
                prop_assert!(check_inclusion(&leaf, index, size, &now, shorter).is_err());
                let mut damaged = proof.clone();
                let at = flip % damaged.len();
                damaged[at][flip] ^= 1 << bit;
                prop_assert_eq!(check_inclusion(&leaf, index, size, &now, &damaged), Err(ProofError::Root));
            }
            let before = ok(root(&stored, old));
            let proof = ok(prove_consistency(&stored, old, size)).unwrap();
            prop_assert_eq!(check_consistency((old, &before), (size, &now), &proof), Ok(()));
            prop_assert!(check_consistency((old, &now), (size, &before), &proof).is_err() || old == size);
            for at in 0..proof.len() {
                let mut damaged = proof.clone();
                damaged[at][flip] ^= 1 << bit;
                prop_assert_eq!(check_consistency((old, &before), (size, &now), &damaged), Err(ProofError::Root));
            }
            let mut longer = proof.clone();
            longer.push(now);
            prop_assert_eq!(check_consistency((old, &before), (size, &now), &longer), Err(ProofError::Length));
        }
    }
}
