//! Where bytes are written to.

use std::{fmt, fs::File};

use crate::Error;

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
    /// threads may go on writing.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io) where bytes were lost; the commit then fails too.
    fn flush_early(&self) -> Result<(), Error> {
        Ok(())
    }

    /// The file in the making, where it is one: the kernel can then move bytes into it. Whoever
    /// writes through it keeps within the sink's length.
    fn as_file(&self) -> Option<&File> {
        None
    }
}
