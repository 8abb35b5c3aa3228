//! The last step: sorted parts become one sorted file, and the hashes of accepted statements a
//! Merkle tree.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _, Write};
use std::path::PathBuf;

use sha2::{Digest as _, Sha256};

const READ_BYTES: usize = 64 << 10;

/// Hands the items of sorted files to `each` in order. `next` reads one item.
fn merge(
    paths: &[PathBuf],
    next: fn(&mut BufReader<File>, &mut Vec<u8>) -> io::Result<bool>,
    mut each: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut readers = Vec::new();
    let mut heap = BinaryHeap::new();
    for (index, path) in paths.iter().enumerate() {
        let mut reader = BufReader::with_capacity(READ_BYTES, File::open(path)?);
        let mut item = Vec::new();
        if next(&mut reader, &mut item)? {
            heap.push(Reverse((item, index)));
        }
        readers.push(reader);
    }
    while let Some(Reverse((mut item, index))) = heap.pop() {
        each(&item)?;
        item.clear();
        if next(&mut readers[index], &mut item)? {
            heap.push(Reverse((item, index)));
        }
    }
    Ok(())
}

/// Writes the lines of sorted files in order.
pub(super) fn merge_lines(paths: &[PathBuf], out: &mut impl Write) -> io::Result<()> {
    let next = |reader: &mut BufReader<File>, line: &mut Vec<u8>| {
        reader.read_until(b'\n', line).map(|read| read > 0)
    };
    merge(paths, next, |line| out.write_all(line))
}

/// The root of the Merkle tree over the hashes in sorted files.
pub(super) fn merkle_root(paths: &[PathBuf]) -> io::Result<[u8; 32]> {
    let next = |reader: &mut BufReader<File>, hash: &mut Vec<u8>| match reader.fill_buf()? {
        [] => Ok(false),
        _ => {
            hash.resize(32, 0);
            reader.read_exact(hash).map(|()| true)
        }
    };
    let mut tree = Merkle::default();
    let add = |hash: &[u8]| {
        if let Ok(hash) = hash.try_into() {
            tree.push(hash);
        }
        Ok(())
    };
    merge(paths, next, add)?;
    Ok(tree.root())
}

/// A Merkle tree (RFC 9162, section 2.1.1) of which only the complete subtrees are kept.
#[derive(Default)]
struct Merkle {
    /// Number of leaves and hash of each, the largest first.
    complete: Vec<(u64, [u8; 32])>,
}

impl Merkle {
    fn push(&mut self, leaf: [u8; 32]) {
        let (mut count, mut hash) = (1, leaf);
        while let Some((left_count, left)) = self.complete.pop_if(|(left, _)| *left == count) {
            (count, hash) = (left_count + count, node(&left, &hash));
        }
        self.complete.push((count, hash));
    }

    fn root(&self) -> [u8; 32] {
        let mut hashes = self.complete.iter().rev().map(|(_, hash)| *hash);
        match hashes.next() {
            Some(last) => hashes.fold(last, |right, left| node(&left, &right)),
            None => Sha256::digest([]).into(),
        }
    }
}

fn node(left: &[u8; 32], right: &[u8; 32]) -> [u8; 32] {
    Sha256::new().chain_update([1]).chain_update(left).chain_update(right).finalize().into()
}

#[cfg(test)]
mod tests {
    use super::super::row::leaf_hash;
    use super::*;

    fn tree(leaves: &[[u8; 32]]) -> [u8; 32] {
        let mut tree = Merkle::default();
        leaves.iter().for_each(|leaf| tree.push(*leaf));
        tree.root()
    }

    /// RFC 9162, section 2.1.1, as it is written there.
    fn recursive(leaves: &[[u8; 32]]) -> [u8; 32] {
        match leaves {
            [] => Sha256::digest([]).into(),
            [leaf] => *leaf,
            _ => {
                let split = leaves.len().next_power_of_two() / 2;
                node(&recursive(&leaves[..split]), &recursive(&leaves[split..]))
            }
        }
    }

    #[test]
    fn the_tree_is_that_of_rfc_9162() {
        let leaves: Vec<[u8; 32]> = (0..70u8).map(|i| leaf_hash(&[i])).collect();
        for count in 0..leaves.len() {
            assert_eq!(tree(&leaves[..count]), recursive(&leaves[..count]), "{count}");
        }
        // The inputs and roots that implementations of RFC 6962 test with
        // (certificate-transparency, merkletree/merkle_tree_test.cc).
        let inputs: [&[u8]; 8] = [
            b"",
            b"\x00",
            b"\x10",
            b"\x20\x21",
            b"\x30\x31",
            b"\x40\x41\x42\x43",
            b"\x50\x51\x52\x53\x54\x55\x56\x57",
            b"\x60\x61\x62\x63\x64\x65\x66\x67\x68\x69\x6a\x6b\x6c\x6d\x6e\x6f",
        ];
        let hex = |bytes: [u8; 32]| bytes.map(|byte| format!("{byte:02x}")).concat();
        let leaves: Vec<[u8; 32]> = inputs.iter().map(|input| leaf_hash(input)).collect();
        for (count, root) in [
            (0, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
            (1, "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"),
            (8, "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"),
        ] {
            assert_eq!(hex(tree(&leaves[..count])), root);
        }
    }

    #[test]
    fn sorted_files_become_one() {
        let folder = tempfile::tempdir().unwrap();
        let paths: Vec<PathBuf> = (0..5)
            .map(|file| {
                let path = folder.path().join(file.to_string());
                let lines: String =
                    (0..1000).filter(|i| i % 4 == file).map(|i| format!("{i:04},x\n")).collect();
                std::fs::write(&path, lines).unwrap();
                path
            })
            .collect();
        let mut out = Vec::new();
        merge_lines(&paths, &mut out).unwrap();
        let expected: String = (0..1000).map(|i| format!("{i:04},x\n")).collect();
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
