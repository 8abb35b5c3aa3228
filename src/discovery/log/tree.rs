//! Hashes of the tree (RFC 6962, section 2.1), and the perfect subtrees that cover a range.

use sha2::{Digest as _, Sha256};

/// A SHA-256 digest.
pub type Hash = [u8; HASH_BYTES];
/// Bytes of a hash.
pub const HASH_BYTES: usize = 32;
/// Most entries of a log. A proof of an epoch has room for a log of this size.
pub const ENTRIES_MAX: u64 = 1 << 40;

/// The hash of a leaf.
pub fn leaf_hash(entry: &[u8]) -> Hash {
    Sha256::new().chain_update([0]).chain_update(entry).finalize().into()
}

/// The hash of an inner node.
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    Sha256::new().chain_update([1]).chain_update(left).chain_update(right).finalize().into()
}

/// A perfect subtree: the one with this number, from the left, of those of this height.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Node {
    /// It has 2 to this power leaves.
    pub height: u8,
    /// The first leaf is this times their number.
    pub number: u64,
}

/// The fewest perfect subtrees with the leaves from `from` to before `to`, from left to right.
pub fn cover(from: u64, to: u64) -> Vec<Node> {
    let (mut nodes, mut at) = (Vec::new(), from);
    while at < to {
        let height = at.trailing_zeros().min((to - at).ilog2());
        nodes.push(Node { height: height as u8, number: at >> height });
        at += 1 << height;
    }
    nodes
}

/// The hash of a perfect subtree from those below it, whose number is a power of two.
pub fn fold(hashes: &[Hash]) -> Hash {
    assert!(hashes.len().is_power_of_two(), "this is a bug: {} hashes", hashes.len());
    let mut level = hashes.to_vec();
    while level.len() > 1 {
        level = level.chunks_exact(2).map(|pair| node_hash(&pair[0], &pair[1])).collect();
    }
    level[0]
}

/// The left part of a tree: its largest perfect subtrees. Adding the subtrees of [`cover`] in their
/// order gives the root at every size on the way.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Peaks {
    peaks: Vec<(u8, Hash)>,
}

impl Peaks {
    /// Adds the next perfect subtree to the right.
    pub fn push(&mut self, height: u8, hash: Hash) {
        let (mut height, mut hash) = (height, hash);
        while let Some(&(last, left)) = self.peaks.last()
            && last == height
        {
            self.peaks.pop();
            hash = node_hash(&left, &hash);
            height += 1;
        }
        self.peaks.push((height, hash));
    }

    /// The root of the tree.
    pub fn root(&self) -> Hash {
        let mut peaks = self.peaks.iter().rev().map(|(_, hash)| *hash);
        match peaks.next() {
            None => Sha256::digest([]).into(),
            Some(last) => peaks.fold(last, |right, left| node_hash(&left, &right)),
        }
    }
}
