//! Memory of the caller that tensors are read into.
#![allow(unsafe_code, reason = "somebody else's memory is a pointer and a promise")]

use std::{any::Any, fmt};

/// Memory that a caller lends for reading into, and what keeps it alive.
pub struct Destination {
    start: *mut u8,
    len: usize,
    on_device: bool,
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
        Self { start, len, on_device: false, _owner: Box::new(owner) }
    }

    /// The `len` bytes from `start` on in the memory of a device, kept alive by `owner`. The processor
    /// never touches them: the execution's [`Stager`](crate::Stager) does.
    ///
    /// # Safety
    /// - The bytes are good for copies by the stager of the execution that takes it, for as long as
    ///   `owner` lives. Work on the device that was begun earlier does not use them any more.
    /// - Until the execution that takes it is over, nobody else reads or writes the bytes that the
    ///   entry's strides reach.
    #[must_use]
    pub unsafe fn on_device(start: *mut u8, len: usize, owner: impl Any + Send) -> Self {
        Self { start, len, on_device: true, _owner: Box::new(owner) }
    }

    /// Whether it is memory of a device.
    #[must_use]
    pub fn is_on_device(&self) -> bool {
        self.on_device
    }

    pub(crate) fn start(&self) -> *mut u8 {
        self.start
    }

    /// Bytes.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "whether it is empty is no question that anybody has")]
    pub fn len(&self) -> usize {
        self.len
    }
}

impl fmt::Debug for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let device = if self.on_device { " of a device" } else { "" };
        write!(f, "Destination({} bytes{device})", self.len)
    }
}
