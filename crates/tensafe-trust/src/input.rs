//! Where the bytes of one file or member are: in memory, or in a source that is read in windows.

use std::{
    borrow::Cow,
    io, mem,
    ops::Range,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use tensafe_io::{Buffer, Error, Identity, MemorySource, Source, SourceInfo};
use tensafe_pickle::Stream;

/// Sources up to this size are read whole, with one request.
const WHOLE_BYTES: u64 = 1 << 20;
/// Bytes of one request to a larger source.
const WINDOW_BYTES: usize = 256 << 10;
/// Runs of bytes beyond this stay where they are: they are data, and are looked at by their start.
const NEAR_BYTES: u64 = 64 << 10;

/// The bytes of one file or member.
#[derive(Clone, Debug)]
pub(crate) struct Input {
    source: Arc<dyn Source>,
    whole: Option<Arc<[u8]>>,
    /// The window of the last stream that is done: the next one often begins where it ended.
    last: Arc<Mutex<Window>>,
}

/// Bytes of a source that were read.
#[derive(Debug, Default)]
pub(crate) struct Window {
    start: u64,
    held: Vec<u8>,
}

impl Input {
    /// Takes a source; a small one is read now.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub(crate) fn new(source: Arc<dyn Source>) -> Result<Self, Error> {
        let input = Self::of_source(source);
        if input.len() <= WHOLE_BYTES { Ok(Self::of_bytes(input.read(0..input.len())?)) } else { Ok(input) }
    }

    /// Takes a source as it is: nothing is read now.
    pub(crate) fn of_source(source: Arc<dyn Source>) -> Self {
        Self { source, whole: None, last: Arc::default() }
    }

    /// Bytes in memory.
    pub(crate) fn of_bytes(bytes: Vec<u8>) -> Self {
        let whole: Arc<[u8]> = bytes.into();
        let source = MemorySource::new(Buffer::from_owner(Arc::clone(&whole)));
        Self { source: Arc::new(source), whole: Some(whole), last: Arc::default() }
    }

    /// A range of these bytes, read where they are.
    pub(crate) fn part(&self, range: Range<u64>) -> Self {
        let end = range.end.min(self.len());
        let source = Part { of: Arc::clone(&self.source), range: range.start.min(end)..end };
        Self::of_source(Arc::new(source))
    }

    pub(crate) fn source(&self) -> Arc<dyn Source> {
        Arc::clone(&self.source)
    }

    pub(crate) fn len(&self) -> u64 {
        self.source.len()
    }

    /// The bytes at `range`, cut where the source ends.
    pub(crate) fn read(&self, range: Range<u64>) -> Result<Vec<u8>, Error> {
        let end = range.end.min(self.len());
        let length = usize::try_from(end.saturating_sub(range.start)).unwrap_or_default();
        if let Some(whole) = &self.whole {
            let start = usize::try_from(range.start).unwrap_or(usize::MAX);
            let found = whole.get(start..).and_then(|rest| rest.get(..length));
            return Ok(found.unwrap_or_default().to_vec());
        }
        let mut bytes = vec![0; length];
        self.source.read_at(range.start, &mut bytes)?;
        Ok(bytes)
    }

    /// The first bytes, up to `most`.
    pub(crate) fn head(&self, most: usize) -> Result<Cow<'_, [u8]>, Error> {
        match &self.whole {
            Some(whole) => Ok(Cow::Borrowed(whole.get(..most).unwrap_or(whole))),
            None => self.read(0..most as u64).map(Cow::Owned),
        }
    }

    /// All bytes, if they are no more than `most`.
    pub(crate) fn all(&self, most: u64) -> Result<Option<Cow<'_, [u8]>>, Error> {
        match &self.whole {
            Some(whole) => Ok(Some(Cow::Borrowed(whole))),
            None if self.len() <= most => self.read(0..self.len()).map(|bytes| Some(Cow::Owned(bytes))),
            None => Ok(None),
        }
    }

    /// A reader of pickles over these bytes.
    pub(crate) fn stream(&self) -> InputStream<'_> {
        match &self.whole {
            Some(whole) => InputStream::Memory(whole),
            None => {
                // Whoever reads at the same time has a window of its own.
                let window = mem::take(&mut *self.last.lock().unwrap_or_else(PoisonError::into_inner));
                InputStream::Window(WindowStream { input: self, window })
            }
        }
    }

    /// Where bytes that borrow from these stand among them.
    pub(crate) fn offset_of(&self, bytes: &[u8]) -> Option<u64> {
        let whole = self.whole.as_ref()?;
        let offset = bytes.as_ptr().addr().checked_sub(whole.as_ptr().addr())?;
        (offset < whole.len()).then_some(offset as u64)
    }
}

/// Bytes as `tensafe-pickle` reads them.
#[derive(Debug)]
pub(crate) enum InputStream<'i> {
    Memory(&'i [u8]),
    Window(WindowStream<'i>),
}

/// A source that is read a window at a time. The window is left to the next stream.
#[derive(Debug)]
pub(crate) struct WindowStream<'i> {
    input: &'i Input,
    window: Window,
}

impl WindowStream<'_> {
    fn peek(&mut self, at: u64, most: usize) -> io::Result<&[u8]> {
        let source = &self.input.source;
        let Window { start, held } = &mut self.window;
        let end = at.saturating_add(most as u64).min(source.len()).max(at);
        let held_end = start.saturating_add(held.len() as u64);
        if at < *start || end > held_end {
            let wanted = most.max(WINDOW_BYTES) as u64;
            let length = source.len().saturating_sub(at).min(wanted);
            held.clear();
            held.resize(usize::try_from(length).unwrap_or_default(), 0);
            *start = at;
            if let Err(error) = source.read_at(at, held) {
                held.clear();
                return Err(io::Error::other(error));
            }
        }
        let from = usize::try_from(at.saturating_sub(*start)).unwrap_or(usize::MAX);
        let rest = held.get(from..).unwrap_or_default();
        Ok(rest.get(..most).unwrap_or(rest))
    }
}

impl Drop for WindowStream<'_> {
    fn drop(&mut self) {
        let window = mem::take(&mut self.window);
        // A line of gigabytes may have made it long.
        if window.held.len() as u64 > WHOLE_BYTES {
            return;
        }
        *self.input.last.lock().unwrap_or_else(PoisonError::into_inner) = window;
    }
}

impl<'i> Stream<'i> for InputStream<'i> {
    fn len(&self) -> u64 {
        match self {
            Self::Memory(bytes) => bytes.len(),
            Self::Window(stream) => stream.input.len(),
        }
    }

    fn peek(&mut self, at: u64, most: usize) -> io::Result<&[u8]> {
        match self {
            Self::Memory(bytes) => bytes.peek(at, most),
            Self::Window(stream) => stream.peek(at, most),
        }
    }

    fn take(&mut self, at: u64, length: usize) -> io::Result<Cow<'i, [u8]>> {
        match self {
            Self::Memory(bytes) => bytes.take(at, length),
            Self::Window(stream) => {
                let bytes = stream.peek(at, length)?;
                if bytes.len() < length {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                Ok(Cow::Owned(bytes.to_vec()))
            }
        }
    }

    fn near_bytes(&self) -> u64 {
        match self {
            Self::Memory(_) => u64::MAX,
            Self::Window(_) => NEAR_BYTES,
        }
    }
}

/// A range of another source.
#[derive(Debug)]
struct Part {
    of: Arc<dyn Source>,
    range: Range<u64>,
}

impl Source for Part {
    fn len(&self) -> u64 {
        self.range.end.saturating_sub(self.range.start)
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<(), Error> {
        let left = self.len().saturating_sub(offset);
        if left < out.len() as u64 {
            return Err(Error::short(self.path(), offset, left, out.len() as u64));
        }
        self.of.read_at(self.range.start.saturating_add(offset), out)
    }

    fn identity(&self) -> Result<Option<Identity>, Error> {
        self.of.identity()
    }

    fn info(&self) -> SourceInfo {
        self.of.info()
    }

    fn path(&self) -> Option<&Path> {
        self.of.path()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        path::Path,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
    };

    use tensafe_io::{Buffer, Error, Identity, MemorySource, Source, SourceInfo};
    use tensafe_pickle::Stream as _;

    use super::{Input, WHOLE_BYTES, WINDOW_BYTES};

    /// Counts requests.
    #[derive(Debug)]
    struct Counted(MemorySource, Arc<AtomicUsize>);

    impl Source for Counted {
        fn len(&self) -> u64 {
            self.0.len()
        }

        fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<(), Error> {
            self.1.fetch_add(1, Ordering::Relaxed);
            self.0.read_at(offset, out)
        }

        fn identity(&self) -> Result<Option<Identity>, Error> {
            self.0.identity()
        }

        fn info(&self) -> SourceInfo {
            self.0.info()
        }

        fn path(&self) -> Option<&Path> {
            self.0.path()
        }
    }

    #[test]
    fn streams_one_after_another_share_their_window() {
        let length = usize::try_from(WHOLE_BYTES).unwrap() + 100;
        let bytes: Vec<u8> = (0..length).map(|at| at.to_le_bytes()[0]).collect();
        let count = Arc::new(AtomicUsize::new(0));
        let source = Counted(MemorySource::new(Buffer::from_owner(bytes.clone())), Arc::clone(&count));
        let input = Input::new(Arc::new(source)).unwrap();
        for at in (0..length).step_by(10) {
            let expected = bytes.get(at..length.min(at + 8)).unwrap();
            assert_eq!(input.stream().peek(at as u64, 8).unwrap(), expected);
        }
        let most = length / WINDOW_BYTES + 2;
        assert!(count.load(Ordering::Relaxed) <= most, "{count:?} requests");
        // Two at a time do not disturb each other, and an end is an end.
        let (mut one, mut other) = (input.stream(), input.stream());
        assert_eq!(one.peek(5, 3).unwrap(), &bytes[5..8]);
        assert_eq!(other.peek(length as u64 - 1, 3).unwrap(), &bytes[length - 1..]);
        drop(one);
        drop(other);
        assert_eq!(input.stream().peek(7, 2).unwrap(), &bytes[7..9]);
        assert!(input.stream().take(length as u64 - 1, 2).is_err());
    }
}
