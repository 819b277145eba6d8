//! Memory of the caller that tensors are read into.
#![allow(unsafe_code, reason = "somebody else's memory is a pointer and a promise")]

use std::{any::Any, fmt};

/// Memory that a caller lends for reading into, and what keeps it alive.
pub struct Destination {
    start: *mut u8,
    len: usize,
    _owner: Box<dyn Any + Send>,
}

// SAFETY: the maker promised that the memory may be written from any thread; the owner is Send, and is
// only dropped.
unsafe impl Send for Destination {}

// SAFETY: a shared Destination gives out its address alone.
unsafe impl Sync for Destination {}

impl Destination {
    /// The `len` bytes from `start` on, kept alive by `owner`.
    ///
    /// # Safety
    /// - The bytes are good for writes, from any thread, for as long as `owner` lives.
    /// - Until the execution that takes it is over, nobody else reads or writes the bytes that the
    ///   entry's strides reach.
    #[must_use]
    pub unsafe fn new(start: *mut u8, len: usize, owner: impl Any + Send) -> Self {
        Self { start, len, _owner: Box::new(owner) }
    }

    pub(crate) fn start(&self) -> *mut u8 {
        self.start
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }
}

impl fmt::Debug for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Destination({} bytes)", self.len)
    }
}
