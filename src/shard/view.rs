//! What an engine reads of a shard, and bringing it in from the disk.
//!
//! Memory may be too small for all shards. Kernels would read missing pages in jumps, from several
//! threads; a disk is fastest when one reader goes from front to back. So an engine asks
//! [`ShardView::is_resident`] first, and reads a shard that is not with
//! [`ShardView::read_in_order`].

use std::hint::black_box;
use std::sync::mpsc;

use crate::params::Shape;

/// One page of so many bytes is looked at: some 10 us in 13 ms for a standard shard of four
/// packs. Less may be missing unseen; the system brings it in as it always does.
const PROBE_BYTES: usize = 4 << 20;
/// Pieces that may be read before the scan follows: where memory is short, pages that nobody has
/// used yet would make room for those after them.
const PIECES_AHEAD: usize = 8;
/// The smallest page there is.
const PAGE_BYTES: usize = 4096;

#[cfg(target_os = "linux")]
const THIS_THREAD: libc::c_int = libc::RUSAGE_THREAD;
#[cfg(not(target_os = "linux"))]
const THIS_THREAD: libc::c_int = libc::RUSAGE_SELF;

/// Names what a shard contains: views with equal names have equal bytes. Half of the header digest,
/// so that an engine keeps what it holds of a shard that a new epoch did not change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ContentId(pub [u8; 16]);

impl ContentId {
    /// Of the file with this header digest, opened when so many shards had been quarantined. What
    /// an engine holds of a quarantined one may be wrong: what is opened later has another name.
    pub(super) fn of(header_digest: &[u8; 32], quarantined: u64) -> Self {
        let mut name = *header_digest.first_chunk::<16>().expect("16 bytes are half of 32");
        name.iter_mut().zip(quarantined.to_le_bytes()).for_each(|(byte, more)| *byte ^= more);
        Self(name)
    }
}

/// What an engine reads of a shard.
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)] // Names say it.
pub struct ShardView<'a> {
    pub shape: &'a Shape,
    /// rows x columns signed bytes, row-major.
    pub matrix: &'a [u8],
    /// packs x table_bytes, one pack table after the other.
    pub tables: &'a [u8],
    /// Names the above; of a view without name an engine holds nothing after the call.
    pub content: Option<ContentId>,
}

impl ShardView<'_> {
    /// Whether some pages, spread over matrix and tables, are in memory. Reads them up to the first
    /// that is missing, and knows it by this thread's count of pages that came from a disk:
    /// `mincore` tells the truth only to who may write the file.
    pub fn is_resident(&self) -> bool {
        let before = pages_from_disk();
        let there = |byte: &u8| {
            black_box(*byte);
            pages_from_disk() == before
        };
        [self.matrix, self.tables].iter().all(|part| part.iter().step_by(PROBE_BYTES).all(there))
    }

    /// Reads matrix and tables from front to back on a thread of its own. On the calling thread
    /// `arrived` is called for every piece of `piece_rows` rows of the matrix, in order, once it is
    /// in memory. Returns when the tables are too.
    pub fn read_in_order(&self, piece_rows: usize, mut arrived: impl FnMut(usize)) {
        let pieces = self.matrix.chunks(piece_rows * self.shape.columns());
        let mut waiting = 0..pieces.len();
        let (sender, receiver) = mpsc::sync_channel(PIECES_AHEAD);
        let read = || {
            for piece in pieces {
                touch(piece);
                if sender.send(()).is_err() {
                    return; // the caller panicked
                }
            }
            drop(sender);
            touch(self.tables);
        };
        std::thread::scope(|scope| {
            let name = "sotto-read-ahead".to_owned();
            let reader = std::thread::Builder::new().name(name).spawn_scoped(scope, read);
            // Owned here, so that a panic of the caller's ends the reader too.
            receiver.into_iter().zip(&mut waiting).for_each(|((), piece)| arrived(piece));
            drop(reader); // joined by the scope
        });
        // Without a thread nobody reads ahead, and that is all.
        waiting.for_each(arrived);
    }
}

fn touch(bytes: &[u8]) {
    bytes.iter().step_by(PAGE_BYTES).for_each(|&byte| {
        black_box(byte);
    });
}

/// How many pages this thread has waited for a disk for (major faults), since it began.
fn pages_from_disk() -> libc::c_long {
    // SAFETY: a `rusage` is plain numbers, of which all may be zero.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to one `rusage` that may be written; where the call fails it stays
    // zero, and pages count as there.
    unsafe { libc::getrusage(THIS_THREAD, &mut usage) };
    usage.ru_majflt
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_opened_after_a_shard_was_quarantined_has_a_name_of_its_own() {
        let of = |digest: u8, quarantined| ContentId::of(&[digest; 32], quarantined);
        assert_eq!(of(7, 0), ContentId([7; 16]));
        let names = [of(7, 0), of(7, 1), of(7, 256), of(8, 0), of(8, 1)];
        let distinct: std::collections::HashSet<_> = names.into_iter().collect();
        assert_eq!(distinct.len(), names.len());
    }
}
