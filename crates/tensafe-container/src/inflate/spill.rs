//! Where decompressed bytes go: into memory while they are few, then into an unnamed file.

use std::{fs::File, io::Write as _, path::Path, sync::Arc};

use tensafe_io::{Buffer, Error as IoError, FileSource, Identity, Latency, MemorySource, Source, SourceInfo};

use crate::{Error, Limits};

/// Bytes on their way into a [`Source`]. Never more than `most`, of which at most
/// `Limits::memory_bytes` are in memory.
#[derive(Debug)]
pub(super) struct Spill {
    memory: Vec<u8>,
    file: Option<File>,
    len: u64,
    most: u64,
    limits: Limits,
    hasher: crc32fast::Hasher,
    hashed: u64,
}

impl Spill {
    /// Room for what `compressed` bytes may become.
    pub(super) fn new(compressed: u64, limits: &Limits) -> Self {
        Self {
            memory: Vec::new(),
            file: None,
            len: 0,
            most: limits.most(compressed),
            limits: *limits,
            hasher: crc32fast::Hasher::new(),
            hashed: 0,
        }
    }

    pub(super) fn limits(&self) -> Limits {
        self.limits
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Adds bytes. `at` is where the compressed stream was read up to.
    pub(super) fn write(&mut self, bytes: &[u8], subject: &str, at: u64) -> Result<(), Error> {
        self.len = self.len.saturating_add(bytes.len() as u64);
        if self.len > self.most {
            let absolute = self.most == self.limits.decompressed_bytes;
            let option = if absolute { "decompressed_bytes" } else { "ratio" };
            let what = format!("decompressed bytes of the {subject}");
            return Err(Error::limit(what, at, self.len, self.most, option));
        }
        self.hasher.update(bytes);
        self.hashed = self.hashed.saturating_add(bytes.len() as u64);
        if self.file.is_none() && self.len > self.limits.memory_bytes {
            let mut file = tempfile::tempfile().map_err(|e| Error::temporary("make a temporary file", e))?;
            file.write_all(&self.memory).map_err(|e| Error::temporary("write a temporary file", e))?;
            self.memory = Vec::new();
            self.file = Some(file);
        }
        match &mut self.file {
            Some(file) => file.write_all(bytes).map_err(|e| Error::temporary("write a temporary file", e)),
            None => {
                self.memory.extend_from_slice(bytes);
                Ok(())
            }
        }
    }

    /// The checksum, CRC-32, and the number of the bytes since this was asked last.
    pub(super) fn take_crc(&mut self) -> (u32, u64) {
        let hasher = std::mem::take(&mut self.hasher);
        (hasher.finalize(), std::mem::take(&mut self.hashed))
    }

    pub(super) fn finish(self) -> Result<Arc<dyn Source>, Error> {
        match self.file {
            None => Ok(Arc::new(MemorySource::new(Buffer::from_owner(self.memory)))),
            Some(file) => {
                let file = FileSource::from_file(file, "an unnamed temporary file")
                    .map_err(|e| Error::source("read a temporary file", e))?;
                Ok(Arc::new(Temporary(file)))
            }
        }
    }
}

/// A file that no path leads to and nobody else has open: it cannot change.
#[derive(Debug)]
struct Temporary(FileSource);

impl Source for Temporary {
    fn len(&self) -> u64 {
        self.0.len()
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<(), IoError> {
        self.0.read_at(offset, out)
    }

    fn identity(&self) -> Result<Option<Identity>, IoError> {
        Ok(None)
    }

    fn info(&self) -> SourceInfo {
        SourceInfo::new(Latency::Local)
    }

    fn path(&self) -> Option<&Path> {
        None
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
