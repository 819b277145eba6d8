//! What of a file is in the page cache.
#![cfg(target_os = "linux")]
#![allow(unsafe_code, reason = "cachestat and mincore have no safe form")]

use std::{
    fs::File,
    io,
    ops::Range,
    os::fd::AsRawFd as _,
    sync::atomic::{AtomicBool, Ordering},
};

use memmap2::MmapOptions;

/// The number of the call: the same on every architecture but Alpha; libc lacks it for some.
const SYS_CACHESTAT: libc::c_long = 451;

#[repr(C)]
struct CacheRange {
    offset: u64,
    len: u64,
}

/// `struct cachestat` of linux/mman.h, in pages.
#[repr(C)]
#[derive(Default)]
struct CacheCounts {
    cached: u64,
    dirty: u64,
    writeback: u64,
    evicted: u64,
    recently_evicted: u64,
}

/// How many bytes of a range are in the page cache; `None` where the kernel does not tell.
pub(crate) fn resident(file: &File, range: &Range<u64>) -> Option<u64> {
    let len = range.end.saturating_sub(range.start);
    if len == 0 {
        return Some(0);
    }
    let page = page_bytes();
    let pages = range.end.div_ceil(page).saturating_sub(range.start / page);
    let cached = cachestat(file, range).or_else(|| mincore(file, range))?;
    // All pages are all bytes; some pages are in proportion.
    Some(if cached >= pages { len } else { cached.saturating_mul(page).min(len.saturating_sub(1)) })
}

fn page_bytes() -> u64 {
    rustix::param::page_size() as u64
}

/// Pages of the range that are cached: Linux 6.5 and later.
fn cachestat(file: &File, range: &Range<u64>) -> Option<u64> {
    static MISSING: AtomicBool = AtomicBool::new(false);
    if MISSING.load(Ordering::Relaxed) {
        return None;
    }
    let asked = CacheRange { offset: range.start, len: range.end.saturating_sub(range.start) };
    let mut counts = CacheCounts::default();
    // SAFETY: the descriptor is open, and both structures are what the kernel expects and live on.
    let result =
        unsafe { libc::syscall(SYS_CACHESTAT, file.as_raw_fd(), &raw const asked, &raw mut counts, 0) };
    if result == 0 {
        return Some(counts.cached);
    }
    if io::Error::last_os_error().raw_os_error() == Some(libc::ENOSYS) {
        MISSING.store(true, Ordering::Relaxed);
    }
    None
}

/// The same by a mapping that is never touched.
fn mincore(file: &File, range: &Range<u64>) -> Option<u64> {
    let start = range.start / page_bytes() * page_bytes();
    let len = usize::try_from(range.end.saturating_sub(start)).ok()?;
    // SAFETY: the mapping is dropped at the end of this function, and its bytes are never read.
    let map = unsafe { MmapOptions::new().offset(start).len(len).map(file) }.ok()?;
    let mut pages = vec![0u8; len.div_ceil(rustix::param::page_size())];
    // SAFETY: the range is mapped, and `pages` has a byte for each of its pages.
    let result = unsafe { libc::mincore(map.as_ptr().cast_mut().cast(), len, pages.as_mut_ptr()) };
    (result == 0).then(|| pages.iter().filter(|page| **page & 1 != 0).count() as u64)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::{cachestat, mincore, resident};

    #[test]
    fn what_was_just_written_is_resident_and_what_was_dropped_is_not() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![1; 1 << 20]).unwrap();
        file.sync_all().unwrap();
        let range = 100..(1 << 20);
        assert_eq!(resident(&file, &range), Some((1 << 20) - 100));
        if let Some(pages) = cachestat(&file, &range) {
            assert_eq!(mincore(&file, &range), Some(pages));
        }
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        // A file system of memory keeps what it has.
        let left = resident(&file, &range).unwrap();
        assert!(left == 0 || left == (1 << 20) - 100, "{left}");
    }

    #[test]
    fn an_empty_range_has_nothing() {
        let file = tempfile::tempfile().unwrap();
        assert_eq!(resident(&file, &(5..5)), Some(0));
    }
}
