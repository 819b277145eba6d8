//! The bytes of an open file, as loading needs them: where they are read from, what of them is in
//! memory, and whether they are still those whose header was read.

use std::{ops::Range, sync::Arc};

use crate::{
    Access, Buffer, Cache, Error, Identity, OpenOptions, Source,
    lower::{Facts, Means},
};

/// An open file's bytes. Cloning costs reference counts.
#[derive(Clone, Debug)]
pub(crate) struct Content {
    pub(crate) source: Arc<dyn Source>,
    /// The whole file: a mapping, or the bytes it was made from.
    pub(crate) memory: Option<Buffer>,
    pub(crate) identity: Option<Identity>,
    pub(crate) means: Means,
    pub(crate) cache: Cache,
}

impl Content {
    /// The bytes of a source that is read.
    pub(crate) fn new(source: Arc<dyn Source>, identity: Option<Identity>, options: &OpenOptions) -> Self {
        let means = match options.access {
            Access::Read => Means::Buffered,
            Access::Direct => Means::Direct,
            Access::Owned | Access::Auto(_) => Means::Auto,
            Access::Map(_) => Means::Memory,
        };
        Self { source, memory: None, identity, means, cache: options.cache }
    }

    /// What lowering asks about it; `resident` is [`Source::resident`] of the same source.
    pub(crate) fn facts<'f>(&self, resident: &'f dyn Fn(Range<u64>) -> Option<u64>) -> Facts<'f> {
        let in_memory = self.memory.is_some();
        // A file that was to be mapped and is not, on a network file system, is read.
        let means = if self.means == Means::Memory && !in_memory { Means::Auto } else { self.means };
        Facts { info: self.source.info(), means, in_memory, resident }
    }

    /// Has what was read of a range leave the page cache, where that was asked for.
    pub(crate) fn forget(&self, range: Range<u64>) {
        if self.cache == Cache::Drop {
            self.source.forget(range);
        }
    }

    /// Whether the file is still the one whose header was read.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io) where it is not.
    pub(crate) fn check_unchanged(&self) -> Result<(), Error> {
        let (Some(then), Some(now)) = (self.identity, self.source.identity()?) else {
            return Ok(());
        };
        let what = if then.len != now.len {
            "length"
        } else if then.modified_ns != now.modified_ns {
            "time of modification"
        } else if then.file != now.file {
            "file"
        } else {
            return Ok(());
        };
        Err(Error::changed(self.source.path(), what))
    }
}
