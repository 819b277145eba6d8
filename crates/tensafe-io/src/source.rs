//! Where bytes are read from.

use std::{fmt, fs::File, ops::Range, path::Path, sync::Arc};

use crate::Error;

/// Bytes that can be read at any offset, by many threads at once.
///
/// Reads have no cursor. An implementor reads exactly what was asked for or fails.
pub trait Source: Send + Sync + fmt::Debug {
    /// Bytes in all.
    fn len(&self) -> u64;

    /// Fills `out` with the bytes from `offset` on.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io) where the bytes end early or cannot be read.
    fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<(), Error>;

    /// What tells this content from another, read now; `None` where nothing can change.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io) where it cannot be read.
    fn identity(&self) -> Result<Option<Identity>, Error>;

    /// How this source likes to be read.
    fn info(&self) -> SourceInfo;

    /// The path, where the source has one.
    fn path(&self) -> Option<&Path>;

    /// Whether there are no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The open file that the bytes are in, and where in it they begin: the kernel can then move
    /// them without showing them to this process. `None` where they are no run of a file.
    fn as_file(&self) -> Option<(&File, u64)> {
        None
    }

    /// Fills `out` past every cache, as far as the bytes reach: `offset`, the length and the address
    /// of `out` are multiples of 4096. Returns how many bytes were read, `None` where the source
    /// cannot do this, which nothing is wrong with.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io) where the bytes cannot be read.
    fn read_direct(&self, offset: u64, out: &mut [u8]) -> Result<Option<usize>, Error> {
        let _ = (offset, out);
        Ok(None)
    }

    /// How many bytes of a range are in a cache of this machine; `None` where that is not known.
    fn resident(&self, range: Range<u64>) -> Option<u64> {
        let _ = range;
        None
    }

    /// Asks that the bytes of a range be brought into the cache. Returns soon; nothing is promised.
    fn will_need(&self, range: Range<u64>) {
        let _ = range;
    }

    /// Asks that the bytes of a range leave the cache. Nothing is promised.
    fn forget(&self, range: Range<u64>) {
        let _ = range;
    }
}

/// What tells one content of a file from another. Two equal identities may still hide a change
/// that kept size and time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Device and inode, where the platform has them.
    pub file: Option<(u64, u64)>,
    /// Bytes.
    pub len: u64,
    /// Time of the last change of the content, in nanoseconds since 1970.
    pub modified_ns: Option<i128>,
}

/// How a source likes to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SourceInfo {
    /// Bytes of a request that uses the source well.
    pub request_bytes: usize,
    /// What a request costs before its first byte.
    pub latency: Latency,
    /// Whether bytes may be read past every cache.
    pub direct: bool,
}

impl SourceInfo {
    /// Requests of 8 MiB to bytes that are not to be read directly, at the given latency.
    #[must_use]
    pub const fn new(latency: Latency) -> Self {
        Self { request_bytes: 8 << 20, latency, direct: false }
    }
}

/// What a request costs before its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Latency {
    /// Nothing: the bytes are in memory.
    Memory,
    /// A disk of this machine.
    Local,
    /// A round trip: a network file system, or one of user space.
    Network,
}

/// The range checked against the source, as places of this host's memory.
pub(crate) fn checked_range(range: &Range<u64>, bytes: u64) -> Result<Range<usize>, Error> {
    if range.start > range.end || range.end > bytes {
        return Err(Error::out_of_bounds(range.clone(), bytes));
    }
    let start = usize::try_from(range.start);
    let end = usize::try_from(range.end);
    match (start, end) {
        (Ok(start), Ok(end)) => Ok(start..end),
        _ => Err(Error::too_large_for_host(range.end)),
    }
}

macro_rules! forward {
    ($($pointer:ident)*) => {$(
        impl<S: Source + ?Sized> Source for $pointer<S> {
            fn len(&self) -> u64 {
                (**self).len()
            }
            fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<(), Error> {
                (**self).read_at(offset, out)
            }
            fn identity(&self) -> Result<Option<Identity>, Error> {
                (**self).identity()
            }
            fn info(&self) -> SourceInfo {
                (**self).info()
            }
            fn path(&self) -> Option<&Path> {
                (**self).path()
            }
            fn is_empty(&self) -> bool {
                (**self).is_empty()
            }
            fn as_file(&self) -> Option<(&File, u64)> {
                (**self).as_file()
            }
            fn read_direct(&self, offset: u64, out: &mut [u8]) -> Result<Option<usize>, Error> {
                (**self).read_direct(offset, out)
            }
            fn resident(&self, range: Range<u64>) -> Option<u64> {
                (**self).resident(range)
            }
            fn will_need(&self, range: Range<u64>) {
                (**self).will_need(range);
            }
            fn forget(&self, range: Range<u64>) {
                (**self).forget(range);
            }
        }
    )*};
}

forward! { Box Arc }
