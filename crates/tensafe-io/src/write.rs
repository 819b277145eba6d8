//! Writing safetensors files: all tensors at once, or each when it is there.
//!
//! Bytes pass by the page cache where a save is bound by the disk: see [`DirectWrites`].

mod direct;
mod intervals;
mod mapped;
mod pieces;
mod snapshot;
mod writer;

use std::{
    fmt,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use tensafe_format::{Layout, LayoutOptions, Metadata, TensorSpec};

pub(crate) use self::{
    direct::DirectFile,
    mapped::{MappedFile, start_writeback},
    pieces::write_pieces,
};
pub use self::{snapshot::snapshot, writer::TensorWriter};
use crate::{Error, FileSink, ReplaceOptions, Sink as _};

/// Which files are written directly: from memory to the disk, by the page cache.
///
/// Where the file system refuses, as those in memory do, and on platforms other than Linux, the bytes
/// are written through the page cache, and nothing is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum DirectWrites {
    /// Durable files of [`LARGE_BYTES`](Self::LARGE_BYTES) or more. What is not flushed anyway is
    /// sooner in the page cache than on the disk, and then in memory for who reads it next.
    #[default]
    Auto,
    /// None.
    Never,
    /// All, of any size, durable or not.
    Always,
}

impl DirectWrites {
    /// Bytes from which on a durable file is written directly.
    pub const LARGE_BYTES: u64 = 32 << 20;

    pub(crate) fn wanted(self, bytes: u64, durable: bool) -> bool {
        match self {
            Self::Auto => durable && bytes >= Self::LARGE_BYTES,
            Self::Never => false,
            Self::Always => true,
        }
    }
}

/// How a caller follows a write, and ends it.
#[derive(Clone, Copy, Default)]
pub struct WriteControl<'c> {
    cancel: Option<&'c AtomicBool>,
    progress: Option<&'c (dyn Fn(u64) + Sync)>,
}

impl<'c> WriteControl<'c> {
    /// The same control, with a flag that ends the write when it is set: no block is begun then, and
    /// the file is not committed.
    #[must_use]
    pub const fn with_cancel(mut self, cancel: &'c AtomicBool) -> Self {
        self.cancel = Some(cancel);
        self
    }

    /// The same control, with a function that is told of each block how many bytes it had, from the
    /// thread that wrote it. All of them together are the bytes of the file.
    #[must_use]
    pub const fn with_progress(mut self, progress: &'c (dyn Fn(u64) + Sync)) -> Self {
        self.progress = Some(progress);
        self
    }

    /// Whether the write of the file at `path` may go on.
    ///
    /// # Errors
    /// [`Cancelled`](crate::ErrorKind::Cancelled).
    pub fn check(&self, path: &Path) -> Result<(), Error> {
        if self.cancel.is_some_and(|cancel| cancel.load(Ordering::Relaxed)) {
            return Err(Error::write_cancelled(path));
        }
        Ok(())
    }

    pub(crate) fn wrote(&self, bytes: u64) {
        if let Some(progress) = self.progress {
            progress(bytes);
        }
    }
}

impl fmt::Debug for WriteControl<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (cancel, progress) = (self.cancel, self.progress.is_some());
        f.debug_struct("WriteControl").field("cancel", &cancel).field("progress", &progress).finish()
    }
}

/// Writes tensors as a file, atomically: header, then the bytes of each tensor.
///
/// # Errors
/// [`Format`](crate::ErrorKind::Format) and [`Limit`](crate::ErrorKind::Limit) as
/// [`Layout::new`](tensafe_format::Layout::new); [`Usage`](crate::ErrorKind::Usage) where data and
/// shape differ in size; [`Io`](crate::ErrorKind::Io). A file that was there stays as it was.
///
/// # Cost
/// Memory for the header, and at most 16 MiB where it writes directly. Blocks until the file is on
/// the disk, unless the options say otherwise.
pub fn write_file<'d>(
    path: impl AsRef<Path>,
    tensors: impl IntoIterator<Item = (TensorSpec, &'d [u8])>,
    metadata: Option<&Metadata>,
    layout: &LayoutOptions,
    options: ReplaceOptions,
) -> Result<(), Error> {
    write_file_with(path, tensors, metadata, layout, options, &WriteControl::default())
}

/// As [`write_file`], followed and ended by `control`.
///
/// # Errors
/// As [`write_file`], and [`Cancelled`](crate::ErrorKind::Cancelled).
pub fn write_file_with<'d>(
    path: impl AsRef<Path>,
    tensors: impl IntoIterator<Item = (TensorSpec, &'d [u8])>,
    metadata: Option<&Metadata>,
    layout: &LayoutOptions,
    options: ReplaceOptions,
    control: &WriteControl<'_>,
) -> Result<(), Error> {
    let path = path.as_ref();
    let failed = |e| Error::format(Some(path), e);
    let (specs, data): (Vec<_>, Vec<_>) = tensors.into_iter().unzip();
    let names: Vec<_> = specs.iter().map(|spec: &TensorSpec| spec.name.clone()).collect();
    let layout = Layout::new(specs, metadata, layout).map_err(failed)?;
    let mut pieces = vec![(0, layout.header_bytes())];
    for (place, (name, data)) in names.iter().zip(&data).enumerate() {
        let range = layout.file_range(place).unwrap_or_default();
        let (given, needed) = (data.len() as u64, range.end.saturating_sub(range.start));
        if given != needed {
            return Err(failed(tensafe_format::Error::buffer_size(name, given, needed)));
        }
        pieces.push((range.start, data));
    }
    let mut sink = FileSink::create(path, layout.file_bytes(), options)?;
    sink.write_pieces(&pieces, control)?;
    // The last block may have been written when the end was asked for.
    control.check(path)?;
    sink.commit()
}
