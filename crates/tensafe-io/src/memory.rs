//! Bytes that are in memory already.

use std::path::Path;

use crate::{Buffer, Error, Identity, Latency, Source, SourceInfo, source::checked_range};

/// A [`Buffer`] as a [`Source`].
#[derive(Clone, Debug)]
pub struct MemorySource {
    bytes: Buffer,
}

impl MemorySource {
    /// The bytes of `buffer`.
    #[must_use]
    pub fn new(buffer: Buffer) -> Self {
        Self { bytes: buffer }
    }
}

impl Source for MemorySource {
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<(), Error> {
        let found = self.len().saturating_sub(offset);
        let needed = out.len() as u64;
        if found < needed {
            return Err(Error::short(None, offset, found, needed));
        }
        let range = checked_range(&(offset..offset.saturating_add(needed)), self.len())?;
        self.bytes.slice(range).copy_to(out);
        Ok(())
    }

    fn identity(&self) -> Result<Option<Identity>, Error> {
        Ok(None)
    }

    fn info(&self) -> SourceInfo {
        SourceInfo::new(Latency::Memory)
    }

    fn path(&self) -> Option<&Path> {
        None
    }
}
