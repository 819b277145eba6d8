//! A source as a stream that pickles are read from.

use std::{borrow::Cow, io, sync::Arc};

use tensafe_io::Source;
use tensafe_pickle::Stream;

/// Bytes that one read fetches.
const READ_BYTES: usize = 256 << 10;

/// Runs of bytes that are longer stay in the source.
const NEAR_BYTES: u64 = 4 << 10;

/// Reads ahead; what is kept is copied. The first error of the source is kept, too.
#[derive(Debug)]
pub(crate) struct SourceStream {
    source: Arc<dyn Source>,
    buffer: Vec<u8>,
    start: u64,
    failure: Option<tensafe_io::Error>,
}

impl SourceStream {
    pub(crate) fn new(source: Arc<dyn Source>) -> Self {
        Self { source, buffer: Vec::new(), start: 0, failure: None }
    }

    /// The error of the source, if it met one.
    pub(crate) fn failure(&mut self) -> Option<tensafe_io::Error> {
        self.failure.take()
    }

    fn read(&mut self, at: u64, out: &mut [u8]) -> io::Result<()> {
        self.source.read_at(at, out).map_err(|error| {
            let told = io::Error::other(error.chain().to_string());
            self.failure.get_or_insert(error);
            told
        })
    }

    /// The buffered bytes from `at` on.
    fn buffered(&self, at: u64) -> &[u8] {
        let skipped = at.checked_sub(self.start).and_then(|skipped| usize::try_from(skipped).ok());
        skipped.and_then(|skipped| self.buffer.get(skipped..)).unwrap_or_default()
    }
}

impl Stream<'static> for SourceStream {
    fn len(&self) -> u64 {
        self.source.len()
    }

    fn peek(&mut self, at: u64, most: usize) -> io::Result<&[u8]> {
        let left = self.source.len().saturating_sub(at);
        let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(most);
        if self.buffered(at).len() < wanted {
            let fetched = usize::try_from(left).unwrap_or(usize::MAX).min(wanted.max(READ_BYTES));
            let mut buffer = std::mem::take(&mut self.buffer);
            buffer.clear();
            buffer.try_reserve_exact(fetched).map_err(io::Error::other)?;
            buffer.resize(fetched, 0);
            self.read(at, &mut buffer)?;
            (self.buffer, self.start) = (buffer, at);
        }
        Ok(self.buffered(at).get(..wanted).unwrap_or_default())
    }

    fn take(&mut self, at: u64, length: usize) -> io::Result<Cow<'static, [u8]>> {
        if length <= READ_BYTES {
            let bytes = self.peek(at, length)?;
            if bytes.len() < length {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
            }
            return Ok(Cow::Owned(bytes.to_vec()));
        }
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(length).map_err(io::Error::other)?;
        bytes.resize(length, 0);
        self.read(at, &mut bytes)?;
        Ok(Cow::Owned(bytes))
    }

    fn near_bytes(&self) -> u64 {
        NEAR_BYTES
    }
}
