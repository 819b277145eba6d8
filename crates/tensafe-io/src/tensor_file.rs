//! One open safetensors file: its header and its bytes.

use std::{ops::Range, path::Path, sync::Arc};

use tensafe_format::{Bounds, Header, Index, ParseOptions, Region, TensorInfo, header_range};

use crate::{
    Buffer, Error, FileSource, Identity, Latency, MapPermit, MemorySource, Source,
    group::{Group, plan},
    mapping,
    parallel::{read_each, read_parallel},
    source::checked_range,
};

/// Two runs of a region are read as one where the gap between them is at most this many bytes: a
/// disk reads whole pages anyway.
const CLOSE: u64 = 4096;

/// Bytes of memory that the gathering of close runs may take.
const GATHER_BYTES: u64 = 4 << 20;

/// How the bytes of a file reach memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// Positioned reads into memory of our own. A file that is cut short or changed is an error.
    #[default]
    Read,
    /// A private mapping: nothing is copied, and bytes are read when they are touched.
    Map(MapPermit),
    /// A mapping on local file systems, reads on those of a network or of user space.
    Auto(MapPermit),
}

/// How to open a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct OpenOptions {
    /// Strictness and limits.
    pub parse: ParseOptions,
    /// Reads or mapping.
    pub access: Access,
}

impl OpenOptions {
    /// The same options with another strictness or other limits.
    #[must_use]
    pub const fn with_parse(mut self, parse: ParseOptions) -> Self {
        self.parse = parse;
        self
    }

    /// The same options with another access.
    #[must_use]
    pub const fn with_access(mut self, access: Access) -> Self {
        self.access = access;
        self
    }
}

/// An open safetensors file. Cheap to share between threads: reads have no cursor.
#[derive(Debug)]
pub struct TensorFile {
    source: Arc<dyn Source>,
    mapping: Option<Buffer>,
    identity: Option<Identity>,
    header: Header,
}

impl TensorFile {
    /// Opens the file at `path` and parses its header.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound), [`Io`](crate::ErrorKind::Io),
    /// [`Format`](crate::ErrorKind::Format) or [`Limit`](crate::ErrorKind::Limit) as the header has it.
    ///
    /// # Cost
    /// Reads the header alone; mapping is lazy.
    pub fn open(path: impl AsRef<Path>, options: &OpenOptions) -> Result<Self, Error> {
        Self::from_file(FileSource::open(path)?, options)
    }

    /// Takes an open file.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn from_file(source: FileSource, options: &OpenOptions) -> Result<Self, Error> {
        let permit = match options.access {
            Access::Read => None,
            Access::Map(permit) => Some(permit),
            Access::Auto(permit) => Some(permit).filter(|_| source.file_system().is_local()),
        };
        let source = Arc::new(source);
        let mut file = Self::from_source(Arc::clone(&source) as Arc<dyn Source>, &options.parse)?;
        if let Some(permit) = permit {
            file.mapping = Some(mapping::map(&source, permit)?);
            // The header was read, the mapping came after: it is of the same file, or refused.
            file.check_unchanged()?;
        }
        Ok(file)
    }

    /// Takes any source of bytes.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn from_source(source: Arc<dyn Source>, parse: &ParseOptions) -> Result<Self, Error> {
        let identity = source.identity()?;
        let header = read_header(&*source, parse)?;
        Ok(Self { source, mapping: None, identity, header })
    }

    /// Takes the bytes of a whole file; tensors are parts of them, nothing is copied.
    ///
    /// # Errors
    /// [`Format`](crate::ErrorKind::Format) or [`Limit`](crate::ErrorKind::Limit).
    pub fn from_memory(bytes: Buffer, parse: &ParseOptions) -> Result<Self, Error> {
        let source = Arc::new(MemorySource::new(bytes.clone()));
        let mut file = Self::from_source(source, parse)?;
        file.mapping = Some(bytes);
        Ok(file)
    }

    /// What the file says of itself.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The path, where the bytes come from a file.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.source.path()
    }

    /// The bytes' source.
    #[must_use]
    pub fn source(&self) -> &dyn Source {
        &*self.source
    }

    /// The whole file where it is in memory: a mapping, or the bytes it was made from.
    #[must_use]
    pub fn memory(&self) -> Option<&Buffer> {
        self.mapping.as_ref()
    }

    /// What the header says of the tensor `name`.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound), with the file's path.
    pub fn info(&self, name: &str) -> Result<TensorInfo<'_>, Error> {
        self.header.tensor(name).map_err(|e| Error::format(self.path(), e))
    }

    /// The bytes of the tensor `name`.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound); [`Io`](crate::ErrorKind::Io) as [`read`](Self::read).
    ///
    /// # Cost
    /// As [`read`](Self::read).
    pub fn tensor(&self, name: &str) -> Result<Buffer, Error> {
        let range = self.header.file_range(&self.info(name)?);
        self.read(range)
    }

    /// The bytes of the data section: all tensors, in the order of the file.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    ///
    /// # Cost
    /// As [`read`](Self::read).
    pub fn data(&self) -> Result<Buffer, Error> {
        self.read(self.header.data_start()..self.header.file_bytes())
    }

    /// The bytes of all tensors, in the order of the file: as one piece where the file is in memory,
    /// else in pieces that are given back one by one, of one large tensor or of small ones together.
    /// In those, each tensor is aligned for its elements.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    ///
    /// # Cost
    /// As [`read`](Self::read).
    pub fn groups(&self) -> Result<Vec<Group>, Error> {
        if self.mapping.is_some() {
            let (tensors, offset) = (0..self.header.len(), self.header.data_start());
            return Ok(vec![Group { tensors, offset, bytes: self.data()? }]);
        }
        let planned = plan(&self.header);
        let len = |range| checked_range(range, self.header.file_bytes()).map(|places| places.len());
        let lens = planned.iter().map(|group| len(&group.range)).collect::<Result<Vec<_>, _>>()?;
        let pieces = Buffer::filled_each(&lens, |pieces| {
            let offsets = planned.iter().map(|group| group.range.start);
            read_each(&*self.source, offsets.zip(pieces).collect())?;
            self.check_unchanged()
        })?;
        let groups = planned.into_iter().zip(pieces);
        Ok(groups
            .map(|(group, bytes)| Group { tensors: group.tensors, offset: group.range.start, bytes })
            .collect())
    }

    /// A range of the file, in bytes, half-open.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io) where the file ends early or has changed since it was opened;
    /// [`Usage`](crate::ErrorKind::Usage) beyond its end.
    ///
    /// # Cost
    /// None where the file is in memory. Otherwise memory for the range, and parallel reads.
    pub fn read(&self, range: Range<u64>) -> Result<Buffer, Error> {
        let places = checked_range(&range, self.header.file_bytes())?;
        match &self.mapping {
            Some(mapping) => Ok(mapping.slice(places)),
            None => Buffer::filled(places.len(), |out| self.read_into(range.start, out)),
        }
    }

    /// Fills `out` with the bytes of the file from `offset` on.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    ///
    /// # Cost
    /// A copy where the file is in memory, else parallel reads. Allocates nothing.
    pub fn read_into(&self, offset: u64, out: &mut [u8]) -> Result<(), Error> {
        let range = offset..offset.saturating_add(out.len() as u64);
        let places = checked_range(&range, self.header.file_bytes())?;
        if let Some(mapping) = &self.mapping {
            mapping.slice(places).copy_to(out);
            return Ok(());
        }
        read_parallel(&*self.source, offset, out)?;
        self.check_unchanged()
    }

    /// A part of the tensor `name`, and its bytes in row-major order.
    ///
    /// # Errors
    /// As [`tensor`](Self::tensor), and [`Usage`](crate::ErrorKind::Usage) as
    /// [`Region::new`](tensafe_format::Region::new).
    ///
    /// # Cost
    /// Memory for the part, none where it is one run of a file in memory. Reads the bytes of the
    /// part, and the gaps between its runs where they are at most a page.
    pub fn region(&self, name: &str, index: &[Index], bounds: Bounds) -> Result<(Region, Buffer), Error> {
        let info = self.info(name)?;
        let region = Region::with_bounds(info.dtype(), info.shape(), index, bounds)
            .map_err(|e| Error::format(self.path(), e))?;
        let base = self.header.file_range(&info).start;
        if region.run_count() <= 1 {
            let buffer = self.read(region.runs(base).next().unwrap_or(base..base))?;
            return Ok((region, buffer));
        }
        let bytes = region.bytes();
        let len = usize::try_from(bytes).map_err(|_| Error::too_large_for_host(bytes))?;
        let buffer = Buffer::filled(len, |out| self.gather(&region, base, out))?;
        Ok((region, buffer))
    }

    /// Copies the runs of a region, one after the other, to `out`.
    fn gather(&self, region: &Region, base: u64, out: &mut [u8]) -> Result<(), Error> {
        let run_len = usize::try_from(region.run_bytes());
        let run_len = run_len.map_err(|_| Error::too_large_for_host(region.run_bytes()))?;
        if let Some(memory) = &self.mapping {
            let bytes = memory.as_slice();
            for (run, out) in region.runs(base).zip(out.chunks_exact_mut(run_len)) {
                out.copy_from_slice(&bytes[checked_range(&run, bytes.len() as u64)?]);
            }
            return Ok(());
        }
        let mut runs = region.runs(base).peekable();
        let mut rest = out;
        let mut memory = Vec::new();
        let mut starts = Vec::new();
        while let Some(first) = runs.next() {
            // As many runs as are close to each other and fit the memory for them.
            let mut span = first.clone();
            starts.clear();
            starts.push(0);
            while let Some(next) = runs.next_if(|next| {
                next.start.saturating_sub(span.end) <= CLOSE
                    && next.end.saturating_sub(first.start) <= GATHER_BYTES
            }) {
                span.end = next.end;
                starts.push(next.start.saturating_sub(first.start));
            }
            let (filled, after) = rest.split_at_mut(run_len.saturating_mul(starts.len()));
            rest = after;
            if starts.len() == 1 {
                read_parallel(&*self.source, span.start, filled)?;
                continue;
            }
            memory.resize(checked_range(&span, self.header.file_bytes())?.len(), 0);
            read_parallel(&*self.source, span.start, &mut memory)?;
            for (start, out) in starts.iter().zip(filled.chunks_exact_mut(run_len)) {
                let run = *start..start.saturating_add(region.run_bytes());
                out.copy_from_slice(&memory[checked_range(&run, memory.len() as u64)?]);
            }
        }
        self.check_unchanged()
    }

    /// Whether the file is still the one whose header was read.
    fn check_unchanged(&self) -> Result<(), Error> {
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
        Err(Error::changed(self.path(), what))
    }
}

/// Reads and parses the header of `source`.
fn read_header(source: &dyn Source, parse: &ParseOptions) -> Result<Header, Error> {
    let failed = |e| Error::format(source.path(), e);
    let file_bytes = source.len();
    // One request fetches most headers whole.
    let first = if source.info().latency >= Latency::Network { 256 << 10 } else { 16 << 10 };
    let mut start = vec![0; usize::try_from(file_bytes.min(first)).unwrap_or(0)];
    source.read_at(0, &mut start)?;
    let range = header_range(&start, file_bytes, parse).map_err(failed)?;
    let end = usize::try_from(range.end).map_err(|_| Error::too_large_for_host(range.end))?;
    let known = start.len();
    if end > known {
        // Within the limit on headers and within the file, so that no lie reserves memory.
        start.resize(end, 0);
        source.read_at(known as u64, start.get_mut(known..).unwrap_or_default())?;
    }
    Header::parse(&start, file_bytes, parse).map_err(failed)
}
