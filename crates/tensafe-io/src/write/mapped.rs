//! Several threads that fill one file in the page cache at once.
//!
//! Writes to the page cache a file system takes from one thread of a file at a time, however many ask.
//! The pages of a mapping any thread can make and fill. So one thread writes and the others map: 2 GB
//! in fresh pages took ext4 0.51 s by two threads and 0.97 s by writes alone, medians of 10 rounds on
//! two processors; XFS 0.41 s by mapping in both threads and 0.60 s by writes, of 5 rounds. In memory it
//! brought nothing.
//!
//! What goes wrong in memory that is a file is a signal, not an error. So room is reserved before; and
//! a call makes the pages that says where it cannot: those bytes are then written, and the write tells
//! what is the matter. What is left is a disk that fails, or somebody else who shortens the temporary
//! file, in the moment between the making of pages and the copy into them; and tensors that are mapped
//! from a file that was cut short, as wherever they are touched.
#![allow(unsafe_code, reason = "a copy into a file that is mapped goes by addresses")]

use std::{
    fs::File,
    io,
    ops::Range,
    ptr,
    sync::{
        Mutex, MutexGuard, PoisonError, TryLockError,
        atomic::{AtomicBool, Ordering},
    },
};

use memmap2::MmapRaw;

use super::{DirectWrites, pieces::Piece};
use crate::{filesystem, parallel::processors, replace::reserve};

/// Bytes that are mapped at once, or written in one request.
pub(super) const WINDOW_BYTES: u64 = 8 << 20;

/// Bytes below which a mapping costs more than a write.
const LEAST_BYTES: u64 = 1 << 20;

/// Threads of a call at most. Measured with two processors, where more than two were slower.
const MOST_THREADS: usize = 4;

/// What the threads share that fill a file.
#[derive(Debug)]
pub(crate) struct MappedFile {
    /// Held by the thread that writes.
    turn: Mutex<()>,
    /// No room could be reserved, or no pages were populated: nobody tries again.
    refused: AtomicBool,
    /// Threads of a call.
    pub(super) threads: usize,
}

impl MappedFile {
    /// For a file of `bytes` bytes that this process alone writes and nobody flushes; `None` where
    /// writes are better.
    pub(crate) fn of(file: &File, bytes: u64) -> Option<Self> {
        if bytes < DirectWrites::LARGE_BYTES || !filesystem::has_quick_pages(file) {
            return None;
        }
        let threads = processors().min(MOST_THREADS);
        (threads > 1).then(|| Self::with(threads))
    }

    fn with(threads: usize) -> Self {
        Self { turn: Mutex::default(), refused: AtomicBool::default(), threads }
    }

    /// Reserves room for those of the ranges that are worth a mapping. Whether there are any.
    ///
    /// # Errors
    /// The disk has no room.
    pub(super) fn prepare(&self, file: &File, runs: &[Range<u64>]) -> io::Result<bool> {
        let mut worth = false;
        for run in runs.iter().filter(|run| is_worth_mapping(run)) {
            if self.refused.load(Ordering::Relaxed) {
                return Ok(false);
            }
            if !reserve(file, run.clone())? {
                self.refused.store(true, Ordering::Relaxed);
                return Ok(false);
            }
            worth = true;
        }
        Ok(worth)
    }

    /// Copies the parts of `block`, which is [worth it](is_worth_mapping), into the file, unless it is
    /// this thread's turn to write, which it returns.
    pub(super) fn write<'d>(
        &self,
        file: &File,
        block: &Range<u64>,
        parts: impl Iterator<Item = Piece<'d>>,
    ) -> Option<MutexGuard<'_, ()>> {
        match self.turn.try_lock() {
            Ok(turn) => return Some(turn),
            Err(TryLockError::Poisoned(turn)) => return Some(turn.into_inner()),
            Err(TryLockError::WouldBlock) => {}
        }
        let copied = self.copy(file, block, parts);
        (!copied).then(|| self.turn.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// `false`: the bytes are yet to be written.
    fn copy<'d>(&self, file: &File, block: &Range<u64>, parts: impl Iterator<Item = Piece<'d>>) -> bool {
        if self.refused.load(Ordering::Relaxed) {
            return false;
        }
        let Some(map) = pages(file, block) else {
            self.refused.store(true, Ordering::Relaxed);
            return false;
        };
        for (offset, part) in parts {
            let at = usize::try_from(offset.saturating_sub(block.start)).unwrap_or(usize::MAX);
            if at.checked_add(part.len()).is_none_or(|end| end > map.len()) {
                return false;
            }
            let place = map.as_mut_ptr().wrapping_add(at);
            // SAFETY: the part ends within the mapping, whose addresses no other thread knows and of which
            // there is no reference.
            unsafe { ptr::copy_nonoverlapping(part.as_ptr(), place, part.len()) };
        }
        true
    }
}

/// Whether a mapping of so many bytes costs less than a write.
pub(super) fn is_worth_mapping(range: &Range<u64>) -> bool {
    range.end.saturating_sub(range.start) >= LEAST_BYTES
}

/// A mapping of `block` whose pages are populated, to be written to.
#[cfg(target_os = "linux")]
fn pages(file: &File, block: &Range<u64>) -> Option<MmapRaw> {
    use memmap2::{Advice, MmapOptions};
    /// With pages of 64 KiB a huge one has 512 MiB, and the kernel reads ahead as much.
    const SMALL_PAGE: usize = 4 << 10;
    let len = usize::try_from(block.end.saturating_sub(block.start)).ok()?;
    // An emulator may accept advice that it does not follow.
    if file.metadata().ok()?.len() < block.end {
        return None;
    }
    let map = MmapOptions::new().offset(block.start).len(len).map_raw(file).ok()?;
    if rustix::param::page_size() == SMALL_PAGE {
        // Advice: a kernel without huge pages refuses it.
        drop(map.advise(Advice::HugePage));
    }
    map.advise(Advice::PopulateWrite).ok()?;
    Some(map)
}

#[cfg(not(target_os = "linux"))]
fn pages(_: &File, _: &Range<u64>) -> Option<MmapRaw> {
    None
}

/// Starts writeback before a file replaces another, as ext4 does by itself for what has no room on the
/// disk yet, lest a crash leave neither the old file nor the new.
#[cfg(target_os = "linux")]
pub(crate) fn start_writeback(file: &File) {
    use std::os::fd::AsRawFd as _;
    if !filesystem::flushes_what_replaces(file) {
        return;
    }
    // SAFETY: the descriptor is open for as long as the file is borrowed.
    let _ = unsafe { libc::sync_file_range(file.as_raw_fd(), 0, 0, libc::SYNC_FILE_RANGE_WRITE) };
    // An error is none of the save's, which is not durable.
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn start_writeback(_: &File) {}

#[cfg(all(test, target_os = "linux", not(miri)))]
mod tests {
    use super::{DirectWrites, MappedFile, WINDOW_BYTES, pages};

    #[test]
    fn bytes_that_the_file_does_not_have_are_no_signal() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let file = file.as_file();
        file.set_len(WINDOW_BYTES).unwrap();
        assert!(pages(file, &(WINDOW_BYTES..2 * WINDOW_BYTES)).is_none());
        assert!(pages(file, &(0..2 * WINDOW_BYTES)).is_none());
        let mapped = MappedFile::with(2);
        assert!(!mapped.copy(file, &(0..2 * WINDOW_BYTES), [(0, &b"data"[..])].into_iter()));
        assert!(!mapped.copy(file, &(0..WINDOW_BYTES), [(0, &b"data"[..])].into_iter()), "refused once");
    }

    #[test]
    fn a_copy_leaves_the_bytes_around_alone() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), vec![7; 4 << 20]).unwrap();
        let (file, path) = (file.as_file(), file.path());
        let block = 4097..(3 << 20) + 5;
        let mut anonymous = memmap2::MmapMut::map_anon(4096).unwrap();
        anonymous.fill(1);
        if anonymous.advise(memmap2::Advice::PopulateWrite).is_err() {
            return; // Linux before 5.14.
        }
        let mapped = MappedFile::with(2);
        let parts = || [(4097, &b"first"[..]), (block.end - 4, b"last")].into_iter();
        let turn = mapped.write(file, &block, parts());
        assert!(turn.is_some(), "nobody writes");
        assert!(mapped.copy(file, &block, parts()));
        drop(turn);
        assert!(!mapped.copy(file, &block, [(block.end - 3, &b"last"[..])].into_iter()), "beyond");
        let mut expected = vec![7; 4 << 20];
        expected[4097..4102].copy_from_slice(b"first");
        expected[(3 << 20) + 1..(3 << 20) + 5].copy_from_slice(b"last");
        assert!(std::fs::read(path).unwrap() == expected);
    }

    #[test]
    fn room_that_is_not_there_is_an_error_and_small_files_are_written() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let file = file.as_file();
        assert!(MappedFile::of(file, DirectWrites::LARGE_BYTES - 1).is_none());
        let mapped = MappedFile::with(2);
        let (beyond, some) = (4096..4096 + i64::MAX.unsigned_abs(), 0..1 << 20);
        assert!(!mapped.prepare(file, &[0..1, 5..500_000]).unwrap());
        let error = mapped.prepare(file, std::slice::from_ref(&beyond)).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EFBIG));
        // A descriptor that cannot be written to stands for a file system that cannot reserve.
        let read = std::fs::File::open("/proc/self/exe").unwrap();
        assert!(!mapped.prepare(&read, std::slice::from_ref(&some)).unwrap());
        assert!(!mapped.prepare(file, std::slice::from_ref(&some)).unwrap(), "nobody tries again");
    }
}
