//! Memory of our own, that a failed reservation does not abort.
//!
//! It is known by its address from the start, and no reference to all of it is made while several
//! threads fill parts of it.
#![allow(unsafe_code, reason = "memory that several threads fill is an address, not a reference")]

use std::{
    alloc::{Layout, alloc_zeroed, dealloc},
    io, slice,
};

use crate::pool::{Filled, Pooled, claim};

/// Below this many bytes a heap block is cheaper than a mapping, and mappings are few per process.
const SMALL: usize = 128 << 10;

/// For every element type.
const ALIGN: usize = 16;

#[derive(Debug)]
pub(crate) struct Arena {
    start: *mut u8,
    len: usize,
    memory: Memory,
}

#[derive(Debug)]
enum Memory {
    Heap(Layout),
    Pages { _memory: Pooled },
}

// SAFETY: the memory is the arena's alone, and none of it belongs to a thread.
unsafe impl Send for Arena {}

// SAFETY: a shared arena gives out its address alone.
unsafe impl Sync for Arena {}

impl Arena {
    /// Memory whose content is whatever was there before, from the border of a page on where there is
    /// much of it.
    pub(crate) fn new(len: usize) -> io::Result<Self> {
        Self::unclaimed(len, Filled::Once).map(Self::claimed)
    }

    /// As [`new`](Self::new), from the border of a page on, to be filled again and again.
    pub(crate) fn pages(len: usize) -> io::Result<Self> {
        Self::pooled(len, Filled::Again).map(Self::claimed)
    }

    /// As [`new`](Self::new), of which every part is written, or [`claim`]ed, before it is read.
    pub(crate) fn unclaimed(len: usize, filled: Filled) -> io::Result<Self> {
        if len >= SMALL {
            return Self::pooled(len, filled);
        }
        let layout = Layout::from_size_align(len.max(1), ALIGN).map_err(|_| io::ErrorKind::OutOfMemory)?;
        // SAFETY: the layout has at least one byte.
        let start = unsafe { alloc_zeroed(layout) };
        if start.is_null() {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        Ok(Self { start, len, memory: Memory::Heap(layout) })
    }

    fn pooled(len: usize, filled: Filled) -> io::Result<Self> {
        let mut memory = Pooled::new(len, filled)?;
        let start = memory.bytes_mut().as_mut_ptr();
        Ok(Self { start, len, memory: Memory::Pages { _memory: memory } })
    }

    fn claimed(mut self) -> Self {
        if matches!(self.memory, Memory::Pages { .. }) {
            claim(self.bytes_mut());
        }
        self
    }

    /// The address of the first byte.
    pub(crate) fn start(&self) -> *mut u8 {
        self.start
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: both constructors made `len` bytes there, initialised, which the arena owns.
        unsafe { slice::from_raw_parts_mut(self.start, self.len) }
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        if let Memory::Heap(layout) = self.memory {
            // SAFETY: `new` allocated it with this layout, and nobody else frees it.
            unsafe { dealloc(self.start, layout) };
        }
    }
}
