//! Where bytes are written to.

use std::{
    fmt,
    fs::File,
    sync::{Mutex, PoisonError},
};

use crate::{Error, source::checked_range};

/// A file in the making: bytes at offsets, by many threads at once. Nothing of it is visible before
/// [`commit`](Self::commit); a sink that is dropped without leaves nothing behind.
pub trait Sink: Send + Sync + fmt::Debug {
    /// Writes `bytes` at `offset`, within the length that the sink was made for.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io), or [`Usage`](crate::ErrorKind::Usage) beyond the length.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), Error>;

    /// Makes what was written visible, all at once.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io); what was there before is then still there.
    fn commit(&mut self) -> Result<(), Error>;

    /// Begins to flush what was written so far, so that a durable commit finds less to do. Other
    /// threads may go on writing. Nothing is promised by it: a failure shows in the commit.
    fn flush_early(&self) {}

    /// The file in the making, where it is one: the kernel can then move bytes into it. Whoever
    /// writes through it keeps within the sink's length.
    fn as_file(&self) -> Option<&File> {
        None
    }
}

/// A [`Sink`] in memory.
#[derive(Debug)]
pub struct MemorySink {
    bytes: Mutex<Vec<u8>>,
    committed: bool,
}

impl MemorySink {
    /// A sink of `bytes` bytes, zeroed.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io) where the memory cannot be reserved.
    pub fn new(bytes: u64) -> Result<Self, Error> {
        let len = usize::try_from(bytes).map_err(|_| Error::too_large_for_host(bytes))?;
        let mut memory = Vec::new();
        memory.try_reserve_exact(len).map_err(|e| Error::memory(bytes, std::io::Error::other(e)))?;
        memory.resize(len, 0);
        Ok(Self { bytes: Mutex::new(memory), committed: false })
    }

    /// The bytes, once they are committed.
    #[must_use]
    pub fn into_bytes(self) -> Option<Vec<u8>> {
        let bytes = self.bytes.into_inner().unwrap_or_else(PoisonError::into_inner);
        self.committed.then_some(bytes)
    }
}

impl Sink for MemorySink {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), Error> {
        let mut memory = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        let range = offset..offset.saturating_add(bytes.len() as u64);
        let range = checked_range(&range, memory.len() as u64)?;
        memory[range].copy_from_slice(bytes);
        Ok(())
    }

    fn commit(&mut self) -> Result<(), Error> {
        self.committed = true;
        Ok(())
    }
}
