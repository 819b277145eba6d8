//! Large pieces of memory that are used again: on fresh pages a copy is bound by page faults.
//!
//! What is given back stays mapped, up to a limit, and is marked as free to take: the system takes the
//! pages where it runs short, without asking. Pieces of 2 MiB or more lie on borders of huge pages and
//! ask for them, where these are not dear.
#![allow(unsafe_code, reason = "marking pages as free to take changes their content")]

use std::{collections::BTreeMap, io, ptr, sync::Mutex};
#[cfg(target_os = "linux")]
use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use memmap2::MmapMut;

use crate::sync::lock_briefly;

/// Lengths are multiples of this many bytes, so that a piece serves tensors of about its size.
const STEP: usize = 64 << 10;

/// The same, as a number of bytes that memory is counted in.
pub(crate) const STEP_BYTES: u64 = STEP as u64;

const HUGE: usize = 2 << 20;

/// A huge page takes a quarter of a millisecond to clear. One that takes longer than this has to be made
/// first, by moving others out of the way, or by a host that took it away from its guest: 4 ms were seen
/// there, when the 512 small pages in its place took 1.2 ms together.
#[cfg(target_os = "linux")]
const SLOW_PAGE: Duration = Duration::from_millis(1);

/// New pieces that are made of small pages after a huge page was slow, before one is tried again.
#[cfg(target_os = "linux")]
const BETWEEN_TRIES: u32 = 64;

/// How many of them are left.
#[cfg(target_os = "linux")]
static SLOW: AtomicU32 = AtomicU32::new(0);

/// Bytes below which pages are made one by one.
#[cfg(all(target_os = "linux", not(miri)))]
const WORTH_POPULATING: usize = 64 << 10;

/// How often memory is filled by its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Filled {
    /// Once: it is made of huge pages where these are cheap to make.
    Once,
    /// Again and again: huge pages earn what making them costs. Direct reads into small pages, of which a
    /// request takes a few hundred, may take twice as long.
    Again,
}

/// The pool of the process.
static POOL: Mutex<Pool> = Mutex::new(Pool { pieces: BTreeMap::new(), bytes: 0, limit: None });

#[derive(Debug)]
struct Pool {
    /// By length.
    pieces: BTreeMap<usize, Vec<Piece>>,
    bytes: usize,
    limit: Option<usize>,
}

/// A part of a mapping, from a huge page's border on where it is as long as one.
#[derive(Debug)]
struct Piece {
    map: MmapMut,
    start: usize,
    len: usize,
}

/// Memory from the pool, which takes it back. Its content is whatever was there before.
#[derive(Debug)]
pub(crate) struct Pooled(Option<Piece>);

impl Pooled {
    /// A piece of at least `len` bytes. Before a byte of it is read, [`claim`] the part that it is in, or
    /// write it: until then the system may still take the page.
    pub(crate) fn new(len: usize, filled: Filled) -> io::Result<Self> {
        let len = len.checked_next_multiple_of(STEP).ok_or(io::ErrorKind::OutOfMemory)?.max(STEP);
        let found = lock_briefly(&POOL).and_then(|mut pool| pool.take(len));
        found.map_or_else(|| Piece::map(len, filled), Ok).map(|piece| Self(Some(piece)))
    }

    /// The bytes. The first lies on a page's border.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        self.0.as_mut().map(Piece::bytes_mut).unwrap_or_default()
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        let Some(piece) = self.0.take() else { return };
        // The system is asked while nobody waits for the pool.
        if lock_briefly(&POOL).is_some_and(|mut pool| pool.has_room(piece.len)) && piece.offer() {
            let refused = match lock_briefly(&POOL) {
                Some(mut pool) => pool.keep(piece),
                None => Some(piece),
            };
            drop(refused);
        }
    }
}

/// Gives memory that the pool keeps back to the system until at most `keep` bytes are left. Returns
/// how many bytes were given back.
///
/// # Cost
/// A system call for each piece.
pub fn trim_pool(keep: usize) -> usize {
    let mut gone = Vec::new();
    let Some(mut pool) = lock_briefly(&POOL) else { return 0 };
    let before = pool.bytes;
    while pool.bytes > keep {
        let Some((len, mut pieces)) = pool.pieces.pop_last() else { break };
        gone.extend(pieces.pop());
        pool.bytes = pool.bytes.saturating_sub(len);
        if !pieces.is_empty() {
            pool.pieces.insert(len, pieces);
        }
    }
    before.saturating_sub(pool.bytes)
}

/// Sets how many bytes of memory the pool keeps at most, and gives back what is more. Without, it is a
/// quarter of the machine's memory.
pub fn limit_pool(bytes: usize) {
    if let Some(mut pool) = lock_briefly(&POOL) {
        pool.limit = Some(bytes);
    }
    trim_pool(bytes);
}

impl Pool {
    /// The shortest piece that is long enough, unless it would waste an eighth of itself.
    fn take(&mut self, len: usize) -> Option<Piece> {
        let most = len.saturating_add((len / 8).max(STEP));
        let (&found, pieces) = self.pieces.range_mut(len..=most).next()?;
        let piece = pieces.pop();
        if pieces.is_empty() {
            self.pieces.remove(&found);
        }
        self.bytes = self.bytes.saturating_sub(found);
        piece
    }

    fn has_room(&mut self, len: usize) -> bool {
        let limit = self.limit();
        self.bytes.saturating_add(len) <= limit
    }

    /// Takes a piece, or returns it where there is no room any more.
    fn keep(&mut self, piece: Piece) -> Option<Piece> {
        if !self.has_room(piece.len) {
            return Some(piece);
        }
        self.bytes = self.bytes.saturating_add(piece.len);
        self.pieces.entry(piece.len).or_default().push(piece);
        None
    }

    fn limit(&mut self) -> usize {
        *self.limit.get_or_insert_with(|| memory_bytes() / 4)
    }
}

impl Piece {
    fn map(len: usize, filled: Filled) -> io::Result<Self> {
        if len < HUGE {
            return Ok(Self { map: MmapMut::map_anon(len)?, start: 0, len });
        }
        let mapped = len.checked_add(HUGE).ok_or(io::ErrorKind::OutOfMemory)?;
        let map = MmapMut::map_anon(mapped)?;
        let start = map.as_ptr().addr().next_multiple_of(HUGE).saturating_sub(map.as_ptr().addr());
        #[cfg(target_os = "linux")]
        {
            let mut piece = Self { map, start, len };
            piece.ask_for_huge_pages(filled);
            Ok(piece)
        }
        // Elsewhere huge pages are nobody's to ask for.
        #[cfg(not(target_os = "linux"))]
        {
            let _ = filled;
            Ok(Self { map, start, len })
        }
    }

    /// Has the piece made of huge pages. One that is filled once is not where the first of them shows that
    /// the system has to fetch them from afar. That it has none is no error.
    #[cfg(target_os = "linux")]
    fn ask_for_huge_pages(&mut self, filled: Filled) {
        use memmap2::Advice;
        if filled == Filled::Once {
            let skip = |left: u32| left.checked_sub(1);
            if SLOW.fetch_update(Ordering::Relaxed, Ordering::Relaxed, skip).is_ok() {
                return;
            }
            drop(self.map.advise_range(Advice::HugePage, self.start, HUGE));
            let begun = Instant::now();
            claim(self.bytes_mut().get_mut(..1).unwrap_or_default());
            if begun.elapsed() > SLOW_PAGE {
                SLOW.store(BETWEEN_TRIES, Ordering::Relaxed);
                return;
            }
        }
        // Whole huge pages only: a rest is not worth one.
        drop(self.map.advise_range(Advice::HugePage, self.start, self.len / HUGE * HUGE));
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        self.map.get_mut(self.start..).and_then(|rest| rest.get_mut(..self.len)).unwrap_or_default()
    }

    /// Lets the system take the pages. Whether it may be kept.
    #[cfg(target_os = "linux")]
    fn offer(&self) -> bool {
        // SAFETY: the piece is on its way into the pool: no reference to its bytes is left, and `claim`
        // settles what they are before one is read.
        unsafe { self.map.unchecked_advise_range(memmap2::UncheckedAdvice::Free, self.start, self.len) }
            .is_ok()
    }

    #[cfg(not(target_os = "linux"))]
    fn offer(&self) -> bool {
        true
    }
}

/// Settles what a part of pooled memory holds, by a write to each of its pages: what the system took
/// meanwhile is zero from here on, what it did not take stays.
pub(crate) fn claim(bytes: &mut [u8]) {
    let page = page_bytes();
    #[cfg(all(target_os = "linux", not(miri)))]
    populate(bytes, page);
    // The first page may begin before the part.
    let first = page.saturating_sub(bytes.as_ptr().addr() % page).min(bytes.len());
    let (head, rest) = bytes.split_at_mut(first);
    for byte in head.first_mut().into_iter().chain(rest.chunks_mut(page).filter_map(<[u8]>::first_mut)) {
        // SAFETY: a reference to a byte. Volatile: the write is what counts, not its value.
        unsafe { ptr::from_mut(byte).write_volatile(0) };
    }
}

/// Has the system make the pages that are not there yet in one call, not by an exception for each. Where it
/// cannot, as Miri and Linux before 5.14, the writes do it.
#[cfg(all(target_os = "linux", not(miri)))]
fn populate(bytes: &mut [u8], page: usize) {
    use rustix::mm::{Advice, madvise};
    let before = bytes.as_ptr().addr().next_multiple_of(page).saturating_sub(bytes.as_ptr().addr());
    let Some(whole) = bytes.get_mut(before..) else { return };
    let len = whole.len() / page * page;
    if len < WORTH_POPULATING {
        return;
    }
    // SAFETY: the pages lie within bytes that are borrowed for writing, and what they hold stays as it is.
    let _: Result<(), _> = unsafe { madvise(whole.as_mut_ptr().cast(), len, Advice::LinuxPopulateWrite) };
}

#[cfg(unix)]
fn page_bytes() -> usize {
    rustix::param::page_size()
}

#[cfg(not(unix))]
fn page_bytes() -> usize {
    4096
}

/// Bytes of the machine's memory, 4 GiB where that is not known.
fn memory_bytes() -> usize {
    #[cfg(target_os = "linux")]
    {
        let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
        let kib = total.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<usize>().ok());
        if let Some(kib) = kib {
            return kib.saturating_mul(1024);
        }
    }
    usize::try_from(4u64 << 30).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::{Filled, Pool, Pooled, STEP, trim_pool};
    use std::{collections::BTreeMap, sync::Mutex};

    /// The pool is one for the process: its tests take turns.
    static TURN: Mutex<()> = Mutex::new(());

    #[test]
    fn memory_is_used_again_and_given_back_on_request() {
        let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        // A length that no other test takes.
        let len = 37 * STEP;
        let mut first = Pooled::new(len, Filled::Once).unwrap();
        first.bytes_mut().fill(7);
        let address = first.bytes_mut().as_ptr().addr();
        drop(first);
        let mut again = Pooled::new(len - 5, Filled::Once).unwrap();
        assert_eq!(again.bytes_mut().as_ptr().addr(), address);
        assert_eq!(again.bytes_mut().len(), len);
        drop(again);
        assert!(trim_pool(0) >= len);
        assert_eq!(trim_pool(0), 0);
    }

    #[test]
    fn a_process_that_was_forked_while_the_pool_was_in_use_does_without() {
        let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        // The child of a fork has the lock as it was, and not the thread that would let go of it.
        let held = super::POOL.lock();
        let (sender, done) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            Pooled::new(STEP, Filled::Once).unwrap().bytes_mut().fill(1);
            trim_pool(0);
            sender.send(()).unwrap();
        });
        let finished = done.recv_timeout(std::time::Duration::from_secs(30));
        drop(held);
        assert!(finished.is_ok());
    }

    #[test]
    fn long_pieces_lie_on_borders_of_huge_pages() {
        let mut piece = Pooled::new(5 << 20, Filled::Once).unwrap();
        assert!(piece.bytes_mut().as_ptr().addr().is_multiple_of(2 << 20));
        piece.bytes_mut().fill(1);
    }

    #[test]
    fn a_piece_that_is_much_too_long_is_left_in_the_pool() {
        let mut pool = Pool { pieces: BTreeMap::new(), bytes: 0, limit: None };
        let piece = super::Piece::map(64 * STEP, Filled::Once).unwrap();
        pool.pieces.insert(piece.len, vec![piece]);
        assert!(pool.take(32 * STEP).is_none());
        assert!(pool.take(60 * STEP).is_some());
    }

    #[test]
    fn lengths_beyond_the_address_space_are_errors() {
        assert!(Pooled::new(usize::MAX - 3, Filled::Once).is_err());
        assert!(Pooled::new(usize::MAX / 2, Filled::Once).is_err());
    }

    /// Whether the mapping that has the address was advised to be of huge pages; `None` where the system does
    /// not tell.
    #[cfg(all(target_os = "linux", not(miri)))]
    fn asks_for_huge_pages(address: usize) -> Option<bool> {
        let mut found = false;
        for line in std::fs::read_to_string("/proc/self/smaps").ok()?.lines() {
            let range = line.split(' ').next().and_then(|range| range.split_once('-'));
            let ends = range.and_then(|(from, to)| {
                Some((usize::from_str_radix(from, 16).ok()?, usize::from_str_radix(to, 16).ok()?))
            });
            if let Some((from, to)) = ends {
                found = (from..to).contains(&address);
            } else if let Some(flags) = line.strip_prefix("VmFlags:").filter(|_| found) {
                return Some(flags.split_whitespace().any(|flag| flag == "hg"));
            }
        }
        None
    }

    #[test]
    #[cfg(all(target_os = "linux", not(miri)))]
    fn what_is_filled_again_is_on_huge_pages_where_these_are_slow_too() {
        use std::sync::atomic::Ordering;
        let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if !std::path::Path::new("/sys/kernel/mm/transparent_hugepage").exists() {
            return;
        }
        let asks = |filled| {
            super::SLOW.store(super::BETWEEN_TRIES, Ordering::Relaxed);
            let mut piece = super::Piece::map(8 << 20, filled).unwrap();
            asks_for_huge_pages(piece.bytes_mut().as_ptr().addr() + (4 << 20)).unwrap()
        };
        assert!(!asks(Filled::Once));
        assert!(asks(Filled::Again));
        super::SLOW.store(0, Ordering::Relaxed);
    }
}
