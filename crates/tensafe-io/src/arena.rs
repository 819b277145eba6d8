//! Memory of our own, zeroed, that a failed reservation does not abort.

use std::io;

use memmap2::MmapMut;

/// Below this many bytes a heap block is cheaper than a mapping, and mappings are few per process.
const SMALL: usize = 128 << 10;

pub(crate) enum Arena {
    /// Aligned for every element type.
    Small(Box<[u128]>, usize),
    /// Whole pages.
    Large(MmapMut),
}

impl Arena {
    pub(crate) fn zeroed(len: usize) -> io::Result<Self> {
        if len < SMALL {
            return Ok(Self::Small(vec![0; len.div_ceil(16)].into_boxed_slice(), len));
        }
        MmapMut::map_anon(len).map(Self::Large)
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        match self {
            Self::Small(words, len) => bytemuck::cast_slice_mut(words).get_mut(..*len).unwrap_or_default(),
            Self::Large(map) => map,
        }
    }
}
