//! Memory that tensors live in, shared by reference count.

use std::{
    fmt,
    ops::Range,
    sync::{Arc, Weak},
};

use memmap2::MmapMut;

use crate::{Error, arena::Arena};

/// Bytes with an owner: a mapping of a file, memory of our own, or memory that a caller brought.
///
/// Cloning and slicing cost a reference count; the memory is given back when the last of them is
/// dropped. Memory of ours and mappings may be written through [`as_mut_ptr`](Self::as_mut_ptr) by
/// who hands them out to a framework; writes to a mapping stay in this process.
#[derive(Clone)]
pub struct Buffer {
    memory: Arc<Memory>,
    start: *mut u8,
    len: usize,
}

enum Memory {
    Mapped { _map: MmapMut },
    Owned { _arena: Arena },
    Foreign { _owner: Box<dyn AsRef<[u8]> + Send + Sync> },
}

#[allow(unsafe_code, reason = "a pointer into memory that the reference count owns")]
// SAFETY: `start` points into `memory`, which is Send, and moving the pointer moves no bytes.
unsafe impl Send for Buffer {}

#[allow(unsafe_code, reason = "a pointer into memory that the reference count owns")]
// SAFETY: through a shared Buffer the bytes are only read; writing takes `as_mut_ptr`, whose
// contract asks its caller to order it with every other access.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// New memory, zeroed.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io) where the memory cannot be reserved.
    pub fn zeroed(len: usize) -> Result<Self, Error> {
        Self::filled(len, |out| {
            out.fill(0);
            Ok(())
        })
    }

    /// New memory that `fill` writes before anything else sees it. What `fill` leaves out is whatever
    /// was there before: memory is used again.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io) where the memory cannot be reserved; what `fill` returns.
    pub fn filled(len: usize, fill: impl FnOnce(&mut [u8]) -> Result<(), Error>) -> Result<Self, Error> {
        let mut arena = Arena::new(len).map_err(|e| Error::memory(len as u64, e))?;
        fill(arena.bytes_mut())?;
        Ok(Self::from_arena(arena))
    }

    pub(crate) fn from_arena(arena: Arena) -> Self {
        let (start, len) = (arena.start(), arena.len());
        Self { memory: Arc::new(Memory::Owned { _arena: arena }), start, len }
    }

    /// Memory of somebody else, kept alive and never written.
    ///
    /// `as_ref` is called once; the slice that it returns must be stable, as those of `Vec<u8>`,
    /// `Box<[u8]>`, `Arc<[u8]>` and `&'static [u8]` are.
    #[must_use]
    pub fn from_owner(owner: impl AsRef<[u8]> + Send + Sync + 'static) -> Self {
        // Boxed first: an owner that holds its bytes inline must not move afterwards.
        let owner: Box<dyn AsRef<[u8]> + Send + Sync> = Box::new(owner);
        let bytes = (*owner).as_ref();
        let (start, len) = (bytes.as_ptr().cast_mut(), bytes.len());
        Self { memory: Arc::new(Memory::Foreign { _owner: owner }), start, len }
    }

    pub(crate) fn from_mapping(mut map: MmapMut) -> Self {
        let (start, len) = (map.as_mut_ptr(), map.len());
        Self { memory: Arc::new(Memory::Mapped { _map: map }), start, len }
    }

    /// A part of the same memory, in bytes.
    ///
    /// # Panics
    /// Where the range is not within the buffer, as slices do.
    #[must_use]
    pub fn slice(&self, range: Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= self.len, "{range:?} of {} bytes", self.len);
        let start = self.start.wrapping_add(range.start);
        Self { memory: Arc::clone(&self.memory), start, len: range.end - range.start }
    }

    /// This part of a memory and the `next` as one, where the next ends behind it in the same memory.
    pub(crate) fn joined(&self, next: &Self) -> Option<Self> {
        let len = next.start.addr().checked_add(next.len)?.checked_sub(self.start.addr())?;
        let same = Arc::ptr_eq(&self.memory, &next.memory) && next.start.addr() >= self.start.addr();
        same.then(|| Self { memory: Arc::clone(&self.memory), start: self.start, len: len.max(self.len) })
    }

    /// Bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bytes. Of a mapping, see what [`MapPermit::promised`](crate::MapPermit::promised) asks.
    #[must_use]
    #[allow(unsafe_code, reason = "a slice of memory that the reference count owns")]
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: every constructor and `slice` keep `start..start + len` within the memory, which
        // lives as long as `self`, is initialised, and is not written while this borrow lives: that
        // is the contract of `as_mut_ptr` and of `MapPermit::promised`.
        unsafe { std::slice::from_raw_parts(self.start, self.len) }
    }

    /// Copies the bytes to `out`, which is of the same length.
    ///
    /// # Panics
    /// Where the lengths differ.
    pub fn copy_to(&self, out: &mut [u8]) {
        out.copy_from_slice(self.as_slice());
    }

    /// The address of the first byte. Whoever writes through it orders the write with every other
    /// access to the same bytes, by this and every other buffer of the same memory; memory for
    /// which [`is_writable`](Self::is_writable) says no is never written.
    #[must_use]
    pub fn as_mut_ptr(&self) -> *mut u8 {
        self.start
    }

    /// The same bytes at an address that is a multiple of `alignment`, in bytes: these, or a copy.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io) where the memory for the copy cannot be reserved.
    pub fn aligned_to(&self, alignment: u64) -> Result<Self, Error> {
        if self.is_aligned_to(alignment) { Ok(self.clone()) } else { self.to_owned_memory() }
    }

    /// Whether the address of the first byte, if there is one, is a multiple of `alignment`, in bytes.
    #[must_use]
    pub fn is_aligned_to(&self, alignment: u64) -> bool {
        let fits = usize::try_from(alignment).is_ok_and(|a| self.start.addr().is_multiple_of(a));
        fits || self.is_empty()
    }

    /// A copy in memory of our own, aligned for every element type.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io) where the memory cannot be reserved.
    pub fn to_owned_memory(&self) -> Result<Self, Error> {
        Self::filled(self.len, |out| {
            self.copy_to(out);
            Ok(())
        })
    }

    /// Whether the memory may be written: ours and private mappings may, a caller's may not.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        !matches!(*self.memory, Memory::Foreign { .. })
    }

    /// Whether the bytes are a mapping of a file.
    #[must_use]
    pub fn is_mapped(&self) -> bool {
        matches!(*self.memory, Memory::Mapped { .. })
    }

    /// Tells, without keeping the memory alive, whether anything else does.
    pub(crate) fn watch(&self) -> Watch {
        Watch(Arc::downgrade(&self.memory))
    }
}

/// What [`Buffer::watch`] returns.
pub(crate) struct Watch(Weak<Memory>);

impl Watch {
    /// Whether some part of the memory is still in use.
    pub(crate) fn is_alive(&self) -> bool {
        self.0.strong_count() > 0
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl std::ops::Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let memory = match *self.memory {
            Memory::Mapped { .. } => "mapped",
            Memory::Owned { .. } => "owned",
            Memory::Foreign { .. } => "foreign",
        };
        write!(f, "Buffer({} bytes, {memory})", self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::Buffer;

    #[test]
    fn slices_keep_the_memory_alive() {
        let part = {
            let whole = Buffer::from_owner(vec![1u8, 2, 3, 4]);
            whole.slice(1..3).slice(1..2)
        };
        assert_eq!(&*part, [3]);
        assert!(!part.is_writable() && !part.is_mapped());
    }

    #[test]
    fn owners_that_hold_their_bytes_inline_do_not_move() {
        let buffers: Vec<Buffer> = (0u8..4).map(|i| Buffer::from_owner([i; 8])).collect();
        for (i, buffer) in (0u8..4).zip(&buffers) {
            assert_eq!(**buffer, [i; 8]);
        }
    }

    #[test]
    fn new_memory_is_aligned_and_zeroed() {
        for len in [0, 1, 17, 1 << 10, 1 << 20] {
            let buffer = Buffer::zeroed(len).unwrap();
            assert_eq!(buffer.len(), len);
            assert!(buffer.iter().all(|b| *b == 0) && buffer.is_writable());
            assert!(buffer.as_mut_ptr().addr().is_multiple_of(16) || len == 0);
        }
    }

    #[test]
    #[should_panic(expected = "of 4 bytes")]
    fn a_slice_beyond_the_end_panics() {
        let _ = Buffer::zeroed(4).unwrap().slice(2..5);
    }

    #[test]
    fn memory_that_is_not_there_is_an_error() {
        let error = Buffer::zeroed(usize::MAX - 4096).unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::Io);
    }
}
