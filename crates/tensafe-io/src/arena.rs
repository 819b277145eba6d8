//! Memory of our own, that a failed reservation does not abort.

use std::io;

use crate::pool::{Pooled, claim};

/// Below this many bytes a heap block is cheaper than a mapping, and mappings are few per process.
const SMALL: usize = 128 << 10;

#[derive(Debug)]
pub(crate) enum Arena {
    /// Aligned for every element type.
    Small(Box<[u128]>, usize),
    /// From the border of a page on.
    Large(Pooled, usize),
}

impl Arena {
    /// Memory whose content is whatever was there before.
    pub(crate) fn new(len: usize) -> io::Result<Self> {
        let mut arena = Self::unclaimed(len)?;
        if matches!(arena, Self::Large(..)) {
            claim(arena.bytes_mut());
        }
        Ok(arena)
    }

    /// Memory that is written, or [`claim`]ed, in every part before that is read.
    pub(crate) fn unclaimed(len: usize) -> io::Result<Self> {
        if len < SMALL {
            return Ok(Self::Small(vec![0; len.div_ceil(16)].into_boxed_slice(), len));
        }
        Pooled::new(len).map(|memory| Self::Large(memory, len))
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        match self {
            Self::Small(words, len) => bytemuck::cast_slice_mut(words).get_mut(..*len).unwrap_or_default(),
            Self::Large(memory, len) => memory.bytes_mut().get_mut(..*len).unwrap_or_default(),
        }
    }
}
