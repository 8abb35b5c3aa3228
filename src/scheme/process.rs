//! Which process this is, so that no secret is used in a forked child.
//!
//! A process number is not enough: in a PID namespace of its own a child has the number 1, as its
//! parent may have. Linux gives a child zeros in place of a page that is marked for it
//! (`madvise(2)`, MADV_WIPEONFORK, since 4.14), whether it was made by `fork` or by a bare `clone`,
//! which no handler of the C library sees. Where the system refuses that, and on other systems,
//! the process number alone is compared.

use super::secret::SecretError;

/// A process, told from its parent and from its forked children.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Process {
    number: u32,
    generation: u64,
}

impl Process {
    pub(super) fn this() -> Self {
        Self { number: std::process::id(), generation: generation() }
    }

    pub(super) fn check(self) -> Result<(), SecretError> {
        if self == Self::this() { Ok(()) } else { Err(SecretError::Forked) }
    }
}

/// A number that no ancestor of this process had: one more than the last one in memory wherever
/// the page holds zero. Takes no lock, which a fork could leave locked for ever in the child.
#[cfg(target_os = "linux")]
fn generation() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
    static LAST: AtomicU64 = AtomicU64::new(0);
    let Some(page) = wiped_on_fork() else { return 0 };
    match page.load(SeqCst) {
        0 => {
            let next = LAST.fetch_add(1, SeqCst) + 1;
            page.compare_exchange(0, next, SeqCst, SeqCst).map_or_else(|other| other, |_| next)
        }
        known => known,
    }
}

#[cfg(not(target_os = "linux"))]
fn generation() -> u64 {
    0
}

/// The one page that a forked child finds full of zeros; none where the system refuses it.
#[cfg(target_os = "linux")]
fn wiped_on_fork() -> Option<&'static std::sync::atomic::AtomicU64> {
    use std::sync::{OnceLock, atomic::AtomicU64};
    static PAGE: OnceLock<Option<&'static AtomicU64>> = OnceLock::new();
    *PAGE.get_or_init(|| {
        let bytes = size_of::<AtomicU64>(); // the system rounds up to a page, both times
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new mapping at an address of the system's choice; no memory in use is touched.
        let page = unsafe { libc::mmap(std::ptr::null_mut(), bytes, access, kind, -1, 0) };
        if page == libc::MAP_FAILED {
            return None;
        }
        // SAFETY: the mapping just made. The advice changes what a child sees, nothing here.
        if unsafe { libc::madvise(page, bytes, libc::MADV_WIPEONFORK) } != 0 {
            return None;
        }
        // SAFETY: aligned to a page, zeroed, mapped until the process ends, and used by nobody
        // else.
        Some(unsafe { &*page.cast::<AtomicU64>() })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_itself_and_no_other() {
        let this = Process::this();
        assert!(this == Process::this() && this.check().is_ok());
        let child = Process { generation: this.generation + 1, ..this };
        assert_eq!(child.check(), Err(SecretError::Forked));
    }
}
