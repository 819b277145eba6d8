//! Byte ranges of several files as one source.

use std::{
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use tensafe_io::{Error, FileSource, Identity, Latency, MemorySource, Source, SourceInfo};

use crate::pickled::changed;

/// Bytes of a source, half-open.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) source: Arc<dyn Source>,
    pub(super) range: Range<u64>,
}

impl Part {
    fn len(&self) -> u64 {
        self.range.end.saturating_sub(self.range.start)
    }

    /// The bytes `range` of this part; the caller knows that they are within it.
    pub(super) fn cut(&self, range: Range<u64>) -> Self {
        let at = |place: u64| self.range.start.saturating_add(place).min(self.range.end);
        Self { source: Arc::clone(&self.source), range: at(range.start)..at(range.end) }
    }
}

/// The parts as one run of bytes: a source, and where in it.
pub(super) fn join(mut parts: Vec<Part>) -> (Arc<dyn Source>, Range<u64>) {
    parts.retain(|part| part.len() > 0);
    match parts.len() {
        0 => (Arc::new(MemorySource::new(tensafe_io::Buffer::from_owner(Vec::<u8>::new()))), 0..0),
        1 => {
            let part = parts.remove(0);
            (part.source, part.range)
        }
        _ => {
            let joined = Joined::new(parts);
            let bytes = joined.len();
            (Arc::new(joined), 0..bytes)
        }
    }
}

/// Parts one after the other.
#[derive(Debug)]
struct Joined {
    parts: Vec<Part>,
    /// Where each part ends.
    ends: Vec<u64>,
}

impl Joined {
    fn new(parts: Vec<Part>) -> Self {
        let mut end = 0u64;
        let ends = parts.iter().map(|part| {
            end = end.saturating_add(part.len());
            end
        });
        let ends = ends.collect();
        Self { parts, ends }
    }
}

impl Source for Joined {
    fn len(&self) -> u64 {
        self.ends.last().copied().unwrap_or(0)
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<(), Error> {
        let found = self.len().saturating_sub(offset);
        if found < out.len() as u64 {
            return Err(Error::short(self.path(), offset, found, out.len() as u64));
        }
        let mut at = offset;
        let mut rest = out;
        let first = self.ends.partition_point(|end| *end <= offset);
        for (part, end) in self.parts.iter().zip(&self.ends).skip(first) {
            if rest.is_empty() {
                break;
            }
            let skipped = at.saturating_sub(end.saturating_sub(part.len()));
            let bytes =
                usize::try_from(part.len().saturating_sub(skipped)).unwrap_or(usize::MAX).min(rest.len());
            let (now, later) = rest.split_at_mut(bytes);
            part.source.read_at(part.range.start.saturating_add(skipped), now)?;
            at = at.saturating_add(bytes as u64);
            rest = later;
        }
        Ok(())
    }

    fn identity(&self) -> Result<Option<Identity>, Error> {
        Ok(None)
    }

    fn info(&self) -> SourceInfo {
        self.parts.first().map_or_else(|| SourceInfo::new(Latency::Local), |part| part.source.info())
    }

    fn path(&self) -> Option<&Path> {
        self.parts.first().and_then(|part| part.source.path())
    }
}

/// A file that is opened for each read: a checkpoint may have more ranks than a process may have
/// files open.
#[derive(Debug)]
pub(super) struct Reopened {
    path: PathBuf,
    identity: Option<Identity>,
    bytes: u64,
    info: SourceInfo,
}

impl Reopened {
    pub(super) fn new(path: &Path) -> Result<Self, Error> {
        let source = FileSource::open(path)?;
        let info = SourceInfo::new(source.info().latency);
        Ok(Self { path: path.to_owned(), identity: source.identity()?, bytes: source.len(), info })
    }
}

impl Source for Reopened {
    fn len(&self) -> u64 {
        self.bytes
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<(), Error> {
        let source = FileSource::open(&self.path)?;
        let check = || if source.identity()? == self.identity { Ok(()) } else { Err(changed(&self.path)) };
        check()?;
        source.read_at(offset, out)?;
        check()
    }

    fn identity(&self) -> Result<Option<Identity>, Error> {
        Ok(self.identity)
    }

    fn info(&self) -> SourceInfo {
        self.info
    }

    fn path(&self) -> Option<&Path> {
        Some(&self.path)
    }
}
