//! A part of a source as a source.

use std::{fs::File, ops::Range, path::Path, sync::Arc};

use tensafe_io::{Error as IoError, Identity, Source, SourceInfo};

use crate::Error;

/// A byte range of another [`Source`].
///
/// Path, identity and habits are those of the whole: a file that changed has changed for its parts.
#[derive(Clone, Debug)]
pub struct Window {
    source: Arc<dyn Source>,
    range: Range<u64>,
}

impl Window {
    /// The bytes `range`, half-open, of `source`.
    ///
    /// # Errors
    /// [`Format`](crate::ErrorKind::Format) where the source has no such range.
    pub fn new(source: Arc<dyn Source>, range: Range<u64>) -> Result<Self, Error> {
        let bytes = source.len();
        if range.start > range.end || range.end > bytes {
            return Err(Error::range(range, bytes));
        }
        Ok(Self { source, range })
    }

    /// Where in [`whole`](Self::whole) the bytes stand, half-open.
    #[must_use]
    pub fn range(&self) -> Range<u64> {
        self.range.clone()
    }

    /// The source that this is a part of.
    #[must_use]
    pub fn whole(&self) -> &Arc<dyn Source> {
        &self.source
    }
}

impl Source for Window {
    fn len(&self) -> u64 {
        self.range.end.saturating_sub(self.range.start)
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<(), IoError> {
        let found = self.len().saturating_sub(offset);
        let needed = out.len() as u64;
        if found < needed {
            return Err(IoError::short(self.path(), offset, found, needed));
        }
        self.source.read_at(self.range.start.saturating_add(offset), out)
    }

    fn identity(&self) -> Result<Option<Identity>, IoError> {
        self.source.identity()
    }

    fn info(&self) -> SourceInfo {
        self.source.info()
    }

    fn path(&self) -> Option<&Path> {
        self.source.path()
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn as_file(&self) -> Option<(&File, u64)> {
        let (file, base) = self.source.as_file()?;
        Some((file, base.checked_add(self.range.start)?))
    }
}
