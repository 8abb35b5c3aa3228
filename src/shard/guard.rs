//! Maps of files that may shrink or fail under them.
//!
//! A thread that reads a page which the file or the disk does not give any more is sent SIGBUS, and
//! the process would end. So [`Guarded`] maps stand in a table, where a handler looks a fault up:
//! the map's pages become zeros, the map is *quarantined*, and the reader goes on and learns from
//! [`Guarded::is_whole`] that its results are worth nothing. Other faults go to the handler before.
//! A SIGBUS that was sent (`kill -BUS`) ends the process, which may not go on unguarded.
//!
//! SECURITY.md compares this with private copies. Bytes overwritten in place are not noticed.

use std::hint::black_box;
use std::io;
use std::ops::Deref;
use std::ptr::{null, null_mut};
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize};
use std::sync::{Mutex, OnceLock, PoisonError};

use libc::{c_int, c_void, sigaction, siginfo_t};
use memmap2::Mmap;

/// A map that outlives its file.
pub(super) struct Guarded {
    map: Mmap,
    place: &'static GuardEntry,
}

/// A place in the table: what a signal handler reads, so nothing but atomics, never freed, and
/// used again for other maps.
struct GuardEntry {
    /// Odd while the others change: then it is not the one a fault is in, for whoever reads a map
    /// keeps it.
    version: AtomicUsize,
    start: AtomicUsize,
    end: AtomicUsize,
    quarantined: AtomicBool,
    /// Set once, before others can see it.
    next: *const GuardEntry,
}

// SAFETY: `next` never changes, and points to a place that is never freed.
unsafe impl Sync for GuardEntry {}

/// The place that was made last.
static ENTRIES: AtomicPtr<GuardEntry> = AtomicPtr::new(null_mut());
/// Places without a map.
static FREE: Mutex<Vec<&'static GuardEntry>> = Mutex::new(Vec::new());
/// Maps that were ever quarantined.
static QUARANTINED: AtomicU64 = AtomicU64::new(0);
/// Memory failed in hardware, and nobody has read it yet. Linux's alone.
const BUS_MCEERR_AO: c_int = if cfg!(target_os = "linux") { 5 } else { c_int::MIN };
/// Who handled the signal before.
static BEFORE: OnceLock<sigaction> = OnceLock::new();

impl Guarded {
    /// Takes a map under guard; an error where the system takes no handler.
    pub(super) fn new(map: Mmap) -> io::Result<Self> {
        static HANDLED: Mutex<bool> = Mutex::new(false);
        let mut handled = HANDLED.lock().unwrap_or_else(PoisonError::into_inner);
        if !*handled {
            handle_faults()?;
            *handled = true;
        }
        drop(handled);
        let start = map.as_ptr() as usize;
        Ok(Self { place: GuardEntry::take(start, start + map.len()), map })
    }

    /// Whether nothing that was read of the map so far was lost: it is not quarantined, and the
    /// file still has its last byte. For whoever has read and is about to use it.
    pub(super) fn is_whole(&self) -> bool {
        // The end of a page that a file ends in reads as zeros and sends no signal.
        if let Some(last) = self.map.last() {
            // SAFETY: a byte of the map; read each time, whatever was read of it before.
            black_box(unsafe { std::ptr::read_volatile(last) });
        }
        !self.is_quarantined()
    }

    pub(super) fn is_quarantined(&self) -> bool {
        self.place.quarantined.load(SeqCst)
    }

    pub(super) fn quarantine(&self) {
        self.place.quarantine();
    }
}

impl Deref for Guarded {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.map
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // Before the map goes: its addresses may soon be another's.
        self.place.set(0, 0);
        FREE.lock().unwrap_or_else(PoisonError::into_inner).push(self.place);
    }
}

/// Maps of this process that were ever quarantined.
pub fn quarantined_total() -> u64 {
    QUARANTINED.load(SeqCst)
}

impl GuardEntry {
    fn take(start: usize, end: usize) -> &'static Self {
        let free = FREE.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let place = free.unwrap_or_else(Self::make);
        place.quarantined.store(false, SeqCst);
        place.set(start, end);
        place
    }

    /// A new one, at the head of the table.
    fn make() -> &'static Self {
        let (version, start, end) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
        let quarantined = AtomicBool::new(false);
        let place = Box::leak(Box::new(Self { version, start, end, quarantined, next: null() }));
        // Nobody else changes the head: the lock stands for it.
        let _one = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        place.next = ENTRIES.load(SeqCst);
        ENTRIES.store(place, SeqCst);
        place
    }

    fn set(&self, start: usize, end: usize) {
        self.version.fetch_add(1, SeqCst);
        self.start.store(start, SeqCst);
        self.end.store(end, SeqCst);
        self.version.fetch_add(1, SeqCst);
    }

    fn quarantine(&self) {
        if !self.quarantined.swap(true, SeqCst) {
            QUARANTINED.fetch_add(1, SeqCst);
        }
    }

    /// The place of the map that has this address, and its range.
    fn find(address: usize) -> Option<(&'static Self, usize, usize)> {
        let mut next: *const Self = ENTRIES.load(SeqCst);
        // SAFETY: a pointer in the table is null or to a place that is never freed.
        while let Some(place) = unsafe { next.as_ref() } {
            let version = place.version.load(SeqCst);
            let (start, end) = (place.start.load(SeqCst), place.end.load(SeqCst));
            let still = version.is_multiple_of(2) && place.version.load(SeqCst) == version;
            if still && (start..end).contains(&address) {
                return Some((place, start, end));
            }
            next = place.next;
        }
        None
    }
}

fn handle_faults() -> io::Result<()> {
    // SAFETY: a `sigaction` is plain numbers and a pointer, of which all may be zero.
    let (mut before, mut action): (sigaction, sigaction) = unsafe { std::mem::zeroed() };
    action.sa_sigaction = on_fault as *const () as usize;
    // On the stack of whoever reads: an alternate one may have room for the registers and no more.
    action.sa_flags = libc::SA_SIGINFO;
    let failed = |code: c_int| if code == 0 { Ok(()) } else { Err(io::Error::last_os_error()) };
    // SAFETY: both pointers are to a `sigaction`, or null; the handler does only what a handler
    // may, and who handled the signal before is known before it can run.
    unsafe {
        failed(libc::sigaction(libc::SIGBUS, null(), &mut before))?;
        let _ = BEFORE.set(before);
        failed(libc::sigaction(libc::SIGBUS, &action, null_mut()))
    }
}

/// Runs on the thread that read what is gone: only atomics and system calls. `errno` stays as it
/// was unless a call fails, and then the process ends.
extern "C" fn on_fault(signal: c_int, info: *mut siginfo_t, _context: *mut c_void) {
    // SAFETY: the system hands a handler with SA_SIGINFO a siginfo.
    let (code, address) = unsafe { ((*info).si_code, (*info).si_addr() as usize) };
    // Codes up to zero are of signals that a process sent.
    if code <= 0 {
        return end_by(signal);
    }
    if let Some((place, start, end)) = GuardEntry::find(address) {
        // First: whoever reads a zero finds it quarantined afterwards.
        place.quarantine();
        if zero(start, end) {
            return;
        }
    }
    // Memory that failed and that nobody is reading: whoever reads it later is sent a fault.
    if code == BUS_MCEERR_AO {
        return;
    }
    // SAFETY: the pointer is null or to what the system said of the signal before; the fault
    // happens again on return.
    unsafe {
        libc::sigaction(signal, BEFORE.get().map_or(null(), |before| before), null_mut());
    }
}

/// Ends the process by this signal once the handler returns. Not by the handler before: that of
/// Rust's runtime takes a signal for a fault that happens again, and lets the process go on with
/// no handler at all.
fn end_by(signal: c_int) {
    // SAFETY: a `sigaction` of zeros is the default action, without flags; what is raised here
    // waits until the handler returns.
    unsafe {
        let default: sigaction = std::mem::zeroed();
        libc::sigaction(signal, &default, null_mut());
        libc::raise(signal);
    }
}

/// Puts zeros in place of a map, all of it: part of it would be one map more, and their number is
/// bounded.
fn zero(start: usize, end: usize) -> bool {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
    // SAFETY: the range is that of a map of ours that is only read, by a thread that keeps it; its
    // bytes change, as those of any shared map may, and no value but bytes is read from it.
    let mapped =
        unsafe { libc::mmap(start as *mut c_void, end - start, libc::PROT_READ, flags, -1, 0) };
    mapped != libc::MAP_FAILED
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guarded(bytes: usize) -> (std::fs::File, Guarded) {
        let file = tempfile::tempfile().unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, &vec![7; bytes], 0).unwrap();
        // SAFETY: the file is this test's, and what becomes of its bytes is what it tests.
        let map = unsafe { Mmap::map(&file) }.unwrap();
        (file, Guarded::new(map).unwrap())
    }

    #[test]
    fn a_truncated_file_is_zeros_and_quarantined_and_others_are_not() {
        let (file, map) = guarded(5 << 12);
        let (_other_file, other) = guarded(5 << 12);
        assert!(map.is_whole() && map.iter().all(|&byte| byte == 7));
        let before = quarantined_total();
        file.set_len(2 << 12).unwrap();
        assert!(!map.is_quarantined(), "nobody has read it");
        assert_eq!(map[3 << 12], 0);
        assert!(map.is_quarantined() && !map.is_whole() && quarantined_total() > before);
        assert!(map.iter().all(|&byte| byte == 0));
        assert!(other.is_whole() && other.iter().all(|&byte| byte == 7));
        // Its place serves another map, which is not quarantined.
        drop(map);
        let (file, map) = guarded(3 << 12);
        assert!(map.is_whole());
        file.set_len(0).unwrap();
        assert!(!map.is_whole() && map.is_quarantined());
    }

    #[test]
    fn a_file_cut_within_a_page_that_is_read_is_found_by_its_end() {
        let (file, map) = guarded(2 << 12);
        file.set_len(100).unwrap();
        // No signal: the page is still there.
        assert_eq!((map[99], map[100], map.is_quarantined()), (7, 0, false));
        assert!(!map.is_whole() && map.is_quarantined());
    }

    /// In the process that the tests run in: has `test` run in another one, which has to end by
    /// SIGBUS. There: whether the test is to misbehave.
    fn misbehaves(test: &str) -> bool {
        const MISBEHAVE: &str = "SOTTO_TEST_MISBEHAVE";
        if std::env::var_os(MISBEHAVE).is_some() {
            return true;
        }
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", &format!("shard::guard::tests::{test}")]);
        let ended = child.env(MISBEHAVE, "1").output().unwrap();
        let signal = std::os::unix::process::ExitStatusExt::signal(&ended.status);
        assert_eq!(signal, Some(libc::SIGBUS));
        false
    }

    #[test]
    fn a_signal_that_is_sent_ends_the_process_wherever_it_arrives() {
        if !misbehaves("a_signal_that_is_sent_ends_the_process_wherever_it_arrives") {
            return;
        }
        let (_file, map) = guarded(1 << 12);
        let process = rustix::process::getpid();
        rustix::process::kill_process(process, rustix::process::Signal::BUS).unwrap();
        // Another thread may have it, a moment later.
        let begun = std::time::Instant::now();
        while map.is_whole() && begun.elapsed().as_secs() < 60 {
            std::thread::yield_now();
        }
    }

    /// The map that is read in another process is under no guard.
    #[test]
    fn a_fault_elsewhere_ends_the_process_as_ever() {
        let (_file, map) = guarded(1 << 12);
        let start = map.as_ptr() as usize;
        assert!(GuardEntry::find(start).is_some() && GuardEntry::find(start + 4095).is_some());
        if !misbehaves("a_fault_elsewhere_ends_the_process_as_ever") {
            return;
        }
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 12).unwrap();
        // SAFETY: what becomes of the file's bytes is what is tested.
        let bare = unsafe { Mmap::map(&file) }.unwrap();
        file.set_len(0).unwrap();
        black_box(bare[black_box(0)]);
    }
}
