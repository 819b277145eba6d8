//! A file whose tensors are written as they come.

use std::{
    collections::BTreeMap,
    ops::Range,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tensafe_format::{Layout, LayoutOptions, Metadata, TensorSpec};

use super::{WriteControl, intervals::Intervals};
use crate::{Error, FileSink, ReplaceOptions, Sink as _};

/// Writes one file: tensors in any order, whole or by ranges, from many threads. The file may be
/// larger than memory. Nothing is visible before [`finish`](Self::finish), which refuses while a byte
/// is missing; a writer that is dropped without leaves nothing behind.
///
/// # Several processes, one file
/// Each knows all tensors, and a token that the others have too and no other save has:
///
/// 1. one process, the leader, calls [`share`](Self::share); then the others [`join`](Self::join);
/// 2. each writes its own ranges, calls [`flush`](Self::flush), and hands [`written`](Self::written)
///    to the leader by whatever connects them;
/// 3. the leader calls [`absorb`](Self::absorb) with each, and [`finish`](Self::finish).
///
/// That a step is over in one process before another begins the next is for the callers to see to.
///
/// ```no_run
/// use tensafe_format::{Dtype, TensorSpec};
/// use tensafe_io::TensorWriter;
///
/// let specs = [TensorSpec::new("weight", Dtype::F32, [2, 2]), TensorSpec::new("bias", Dtype::F32, [2])];
/// let writer =
///     TensorWriter::create("model.safetensors", specs, None, &Default::default(), Default::default())?;
/// writer.write("bias", &[0; 8])?;
/// writer.write_part("weight", 8, &[1; 8])?;
/// writer.write_part("weight", 0, &[2; 8])?;
/// writer.finish()?;
/// # Ok::<(), tensafe_io::Error>(())
/// ```
#[derive(Debug)]
pub struct TensorWriter {
    sink: FileSink,
    layout: Layout,
    places: BTreeMap<String, usize>,
    durable: bool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Bytes of the file that are written, or are being written.
    claimed: Intervals,
    /// Bytes of the file that are written.
    written: Intervals,
}

impl TensorWriter {
    /// Begins a file that will stand at `path`.
    ///
    /// # Errors
    /// As [`Layout::new`](tensafe_format::Layout::new) and [`FileSink::create`].
    ///
    /// # Cost
    /// As [`FileSink::create`]; the header is written.
    pub fn create(
        path: impl AsRef<Path>,
        specs: impl IntoIterator<Item = TensorSpec>,
        metadata: Option<&Metadata>,
        layout: &LayoutOptions,
        options: ReplaceOptions,
    ) -> Result<Self, Error> {
        let path = path.as_ref();
        let (layout, places) = plan(path, specs, metadata, layout)?;
        let sink = FileSink::create(path, layout.file_bytes(), options)?;
        Self::lead(sink, layout, places, options)
    }

    /// As [`create`](Self::create), for a file that other processes [`join`](Self::join).
    ///
    /// # Errors
    /// As [`create`](Self::create), and [`Usage`](crate::ErrorKind::Usage) for a token that is not of
    /// 1 to 64 ASCII letters, digits, dots, dashes and underscores. A file that an earlier save with
    /// this token left when its process was killed is [`Io`](crate::ErrorKind::Io).
    pub fn share(
        path: impl AsRef<Path>,
        specs: impl IntoIterator<Item = TensorSpec>,
        metadata: Option<&Metadata>,
        layout: &LayoutOptions,
        options: ReplaceOptions,
        token: &str,
    ) -> Result<Self, Error> {
        let path = path.as_ref();
        let (layout, places) = plan(path, specs, metadata, layout)?;
        let sink = FileSink::share(path, layout.file_bytes(), options, token)?;
        Self::lead(sink, layout, places, options)
    }

    /// Takes part in the file that another process [`share`](Self::share)s, with the same arguments.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) where nobody shares it, and
    /// [`Usage`](crate::ErrorKind::Usage) where the file has another length or header than the
    /// arguments ask for.
    pub fn join(
        path: impl AsRef<Path>,
        specs: impl IntoIterator<Item = TensorSpec>,
        metadata: Option<&Metadata>,
        layout: &LayoutOptions,
        options: ReplaceOptions,
        token: &str,
    ) -> Result<Self, Error> {
        let path = path.as_ref();
        let (layout, places) = plan(path, specs, metadata, layout)?;
        let sink = FileSink::join(path, layout.file_bytes(), layout.header_bytes(), options, token)?;
        Ok(Self { sink, layout, places, durable: options.durable, state: Mutex::default() })
    }

    fn lead(
        sink: FileSink,
        layout: Layout,
        places: BTreeMap<String, usize>,
        options: ReplaceOptions,
    ) -> Result<Self, Error> {
        let writer = Self { sink, layout, places, durable: options.durable, state: Mutex::default() };
        writer.write_range(0, writer.layout.header_bytes())?;
        Ok(writer)
    }

    /// The plan of the file.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Writes a whole tensor.
    ///
    /// # Errors
    /// As [`write_part`](Self::write_part), and [`Usage`](crate::ErrorKind::Usage) where the tensor has
    /// another size.
    ///
    /// # Cost
    /// As [`FileSink::write_pieces`].
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        let range = self.range_of(name)?;
        let (given, needed) = (bytes.len() as u64, range.end.saturating_sub(range.start));
        if given != needed {
            return Err(self.failed(tensafe_format::Error::buffer_size(name, given, needed)));
        }
        self.write_range(range.start, bytes)
    }

    /// Writes a part of a tensor, from its byte `offset` on.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) for a name that has no tensor;
    /// [`Usage`](crate::ErrorKind::Usage) for bytes beyond the tensor's end or bytes that are written
    /// already; [`Io`](crate::ErrorKind::Io): the part may then be written again.
    pub fn write_part(&self, name: &str, offset: u64, bytes: &[u8]) -> Result<(), Error> {
        let range = self.range_of(name)?;
        let needed = range.end.saturating_sub(range.start);
        let part = offset..offset.saturating_add(bytes.len() as u64);
        if part.end > needed {
            return Err(Error::out_of_bounds(part, needed));
        }
        self.write_range(range.start.saturating_add(offset), bytes)
    }

    /// The bytes of the file that this writer has written: ascending ranges, as few as there can be.
    #[must_use]
    pub fn written(&self) -> Vec<Range<u64>> {
        self.lock().written.ranges().collect()
    }

    /// Takes for written what another process says that it wrote: its [`written`](Self::written).
    ///
    /// # Errors
    /// [`Usage`](crate::ErrorKind::Usage) for bytes beyond the end of the file, and for those that are
    /// written already; of these ranges none is taken then.
    pub fn absorb(&self, ranges: impl IntoIterator<Item = Range<u64>>) -> Result<(), Error> {
        let mut state = self.lock();
        let (mut claimed, mut written) = (state.claimed.clone(), state.written.clone());
        for range in ranges {
            self.sink.check_range(&range)?;
            let inserted = claimed.insert(&range).and_then(|()| written.insert(&range));
            inserted.map_err(|twice| Error::written_twice(self.sink.target(), twice))?;
        }
        *state = State { claimed, written };
        Ok(())
    }

    /// Waits until what this process wrote so far is on the disk.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io); every later flush and [`finish`](Self::finish) are then refused too.
    pub fn flush(&self) -> Result<(), Error> {
        self.sink.flush()
    }

    /// Puts the file in its place, or in a process that joined, ends its part: what it wrote is on
    /// the disk then, unless the options say otherwise.
    ///
    /// # Errors
    /// [`Usage`](crate::ErrorKind::Usage) where bytes were not written; [`Io`](crate::ErrorKind::Io).
    /// A file that was there stays as it was.
    pub fn finish(mut self) -> Result<(), Error> {
        if self.sink.is_joined() {
            return if self.durable { self.flush() } else { self.sink.check_flushed() };
        }
        let missing = self.lock().written.missing(self.layout.file_bytes());
        if let Some((range, bytes)) = missing {
            return Err(Error::incomplete(self.sink.target(), self.name_at(range.start), range, bytes));
        }
        self.sink.commit()
    }

    /// Claims the bytes first, so that of two threads that write the same ones, one is refused.
    fn write_range(&self, offset: u64, bytes: &[u8]) -> Result<(), Error> {
        let range = offset..offset.saturating_add(bytes.len() as u64);
        let twice = |twice| Error::written_twice(self.sink.target(), twice);
        self.lock().claimed.insert(&range).map_err(twice)?;
        let done = self.sink.write_pieces(&[(offset, bytes)], &WriteControl::default());
        let mut state = self.lock();
        match done {
            Ok(()) => state.written.insert(&range).map_err(twice),
            Err(e) => {
                state.claimed.remove(&range);
                Err(e)
            }
        }
    }

    fn range_of(&self, name: &str) -> Result<Range<u64>, Error> {
        let range = self.places.get(name).and_then(|place| self.layout.file_range(*place));
        range.ok_or_else(|| self.failed(tensafe_format::Error::not_found(name)))
    }

    /// The tensor that the file's byte `offset` is of.
    fn name_at(&self, offset: u64) -> Option<&str> {
        let mut named = self.places.iter();
        let of = |place: &usize| self.layout.file_range(*place).is_some_and(|range| range.contains(&offset));
        named.find(|(_, place)| of(place)).map(|(name, _)| name.as_str())
    }

    fn failed(&self, error: tensafe_format::Error) -> Error {
        Error::format(Some(self.sink.target()), error)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn plan(
    path: &Path,
    specs: impl IntoIterator<Item = TensorSpec>,
    metadata: Option<&Metadata>,
    options: &LayoutOptions,
) -> Result<(Layout, BTreeMap<String, usize>), Error> {
    let specs: Vec<_> = specs.into_iter().collect();
    let names = specs.iter().enumerate().map(|(place, spec)| (spec.name.clone(), place)).collect();
    let layout = Layout::new(specs, metadata, options).map_err(|e| Error::format(Some(path), e))?;
    Ok((layout, names))
}
