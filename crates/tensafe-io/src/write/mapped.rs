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
//! file, in the moment between the making of pages and the copy into them.
#![allow(unsafe_code, reason = "a copy into a file that is mapped goes by addresses")]

use std::{fs::File, io, ops::Range, ptr, sync::Mutex};

use memmap2::MmapRaw;

use super::{DirectWrites, pieces::Piece};
use crate::{filesystem, parallel::processors, replace::reserve};

/// Bytes that are mapped at once, or written in one request.
pub(super) const WINDOW_BYTES: u64 = 8 << 20;

/// Bytes below which a mapping costs more than a write.
#[cfg(target_os = "linux")]
const LEAST_BYTES: usize = 1 << 20;

/// Threads at most. More than two were measured on two processors alone, where they were slower.
const MOST_THREADS: usize = 4;

/// A file with room for what will be written to its pages.
#[derive(Debug)]
pub(crate) struct MappedFile<'f> {
    file: &'f File,
    /// Held by the thread that writes.
    pub(super) turn: Mutex<()>,
    pub(super) threads: usize,
}

impl<'f> MappedFile<'f> {
    /// Reserves room for the bytes `range` of a file that nobody flushes; `None` where writes are
    /// better.
    ///
    /// # Errors
    /// The disk has no room.
    pub(crate) fn prepare(file: &'f File, range: Range<u64>) -> io::Result<Option<Self>> {
        let threads = processors().min(MOST_THREADS);
        let bytes = range.end.saturating_sub(range.start);
        if threads < 2 || bytes < DirectWrites::LARGE_BYTES || !filesystem::has_quick_pages(file) {
            return Ok(None);
        }
        Ok(reserve(file, range)?.then(|| Self { file, turn: Mutex::default(), threads }))
    }

    /// Copies the parts of `block` into the file. `false`: they are yet to be written.
    pub(super) fn write<'d>(&self, block: &Range<u64>, parts: impl Iterator<Item = Piece<'d>>) -> bool {
        let Some(map) = pages(self.file, block) else { return false };
        for (offset, part) in parts {
            let at = usize::try_from(offset.saturating_sub(block.start)).unwrap_or(usize::MAX);
            if at.checked_add(part.len()).is_none_or(|end| end > map.len()) {
                return false;
            }
            let place = map.as_mut_ptr().wrapping_add(at);
            // SAFETY: the part ends within the mapping, of which nobody has a reference. Its bytes are
            // written by this thread alone: blocks do not overlap, and whoever else has the temporary file
            // open agreed on other bytes.
            unsafe { ptr::copy_nonoverlapping(part.as_ptr(), place, part.len()) };
        }
        true
    }
}

/// A mapping of `block` whose pages are there, to be written to.
#[cfg(target_os = "linux")]
fn pages(file: &File, block: &Range<u64>) -> Option<MmapRaw> {
    use memmap2::{Advice, MmapOptions};
    let len = usize::try_from(block.end.saturating_sub(block.start)).ok()?;
    if len < LEAST_BYTES {
        return None;
    }
    let map = MmapOptions::new().offset(block.start).len(len).map_raw(file).ok()?;
    // Advice: a kernel without huge pages refuses it.
    drop(map.advise(Advice::HugePage));
    map.advise(Advice::PopulateWrite).ok()?;
    Some(map)
}

#[cfg(not(target_os = "linux"))]
fn pages(_: &File, _: &Range<u64>) -> Option<MmapRaw> {
    None
}

#[cfg(all(test, target_os = "linux", not(miri)))]
mod tests {
    use super::{DirectWrites, MappedFile, Mutex, WINDOW_BYTES, pages};

    #[test]
    fn bytes_that_the_file_does_not_have_are_no_signal() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(WINDOW_BYTES).unwrap();
        assert!(pages(file.as_file(), &(1..WINDOW_BYTES)).is_some());
        assert!(pages(file.as_file(), &(WINDOW_BYTES..2 * WINDOW_BYTES)).is_none());
        assert!(pages(file.as_file(), &(0..2 * WINDOW_BYTES)).is_none());
        let mapped = MappedFile { file: file.as_file(), turn: Mutex::default(), threads: 2 };
        assert!(!mapped.write(&(0..2 * WINDOW_BYTES), [(0, &b"data"[..])].into_iter()));
        assert!(!mapped.write(&(0..WINDOW_BYTES), [(WINDOW_BYTES - 1, &b"data"[..])].into_iter()));
        assert!(mapped.write(&(0..WINDOW_BYTES), [(WINDOW_BYTES - 4, &b"data"[..])].into_iter()));
        let found = std::fs::read(file.path()).unwrap();
        assert!(found.ends_with(b"\0data") && found.len() as u64 == WINDOW_BYTES);
    }

    #[test]
    fn room_that_is_not_there_is_an_error_and_small_files_are_written() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let small = MappedFile::prepare(file.as_file(), 0..DirectWrites::LARGE_BYTES - 1).unwrap();
        assert!(small.is_none());
        match MappedFile::prepare(file.as_file(), 0..1 << 60) {
            Ok(mapped) => assert!(mapped.is_none(), "the file system or the processor is one without"),
            Err(e) => assert!(e.raw_os_error().is_some()),
        }
    }
}
