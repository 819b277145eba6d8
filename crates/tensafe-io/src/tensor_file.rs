//! One open safetensors file: its header and its bytes.

use std::{ops::Range, path::Path, sync::Arc, time::SystemTime};

use tensafe_format::{Bounds, Header, Index, ParseOptions, TensorInfo, header_range};

use crate::{
    Buffer, Error, ExecuteOptions, Execution, FileSource, Group, Latency, MapPermit, MemorySource, Plan,
    Selection, Source, ahead,
    content::Content,
    header_cache,
    lower::{Means, WORTH_DIRECT},
    mapping,
    parallel::read_parallel,
    source::checked_range,
};

/// How the bytes of a file reach memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// Positioned reads through the page cache into memory of our own. A file that is cut short or
    /// changed is an error.
    #[default]
    Read,
    /// Reads past the page cache, where the file system has them; else as [`Read`](Self::Read).
    Direct,
    /// Reads: through the page cache what is in it, past it what is not and large.
    Owned,
    /// A private mapping: nothing is copied, and bytes are read when they are touched.
    Map(MapPermit),
    /// A mapping on local file systems, reads on those of a network or of user space. Parts of tensors
    /// that are not in the page cache are read.
    Auto(MapPermit),
}

/// Whether what was read stays in the page cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cache {
    /// As the system likes.
    #[default]
    Keep,
    /// What reading brought there leaves it again. Files are read then, not mapped, unless mapping is
    /// asked for.
    Drop,
}

/// How to open a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct OpenOptions {
    /// Strictness and limits.
    pub parse: ParseOptions,
    /// Reads or mapping.
    pub access: Access,
    /// What becomes of the page cache.
    pub cache: Cache,
}

impl OpenOptions {
    /// The same options with another strictness or other limits.
    #[must_use]
    pub const fn with_parse(mut self, parse: ParseOptions) -> Self {
        self.parse = parse;
        self
    }

    /// The same options with another choice for the page cache.
    #[must_use]
    pub const fn with_cache(mut self, cache: Cache) -> Self {
        self.cache = cache;
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
    content: Content,
    /// Shared with other openings of the same file.
    header: Arc<Header>,
}

impl TensorFile {
    /// Opens the file at `path` and parses its header.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound), [`Io`](crate::ErrorKind::Io),
    /// [`Format`](crate::ErrorKind::Format) or [`Limit`](crate::ErrorKind::Limit) as the header has it.
    ///
    /// # Cost
    /// Reads the header alone; mapping is lazy. A file that this process opened before, with the same
    /// strictness and limits, and that has not changed since, is not read at all: its header is kept in
    /// memory, within bounds.
    pub fn open(path: impl AsRef<Path>, options: &OpenOptions) -> Result<Self, Error> {
        Self::from_file(FileSource::open(path)?, options)
    }

    /// Takes an open file.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn from_file(source: FileSource, options: &OpenOptions) -> Result<Self, Error> {
        let permit = match options.access {
            Access::Read | Access::Direct | Access::Owned => None,
            Access::Map(permit) => Some(permit),
            Access::Auto(permit) => {
                let maps = source.file_system().is_local() && options.cache == Cache::Keep;
                Some(permit).filter(|_| maps)
            }
        };
        let parse = || read_header(&source, &options.parse);
        let (identity, header) = header_cache::header(&source, &options.parse, SystemTime::now(), parse)?;
        let source = Arc::new(source);
        let content = Content::new(Arc::clone(&source) as Arc<dyn Source>, identity, options);
        let mut file = Self { content, header };
        if let Some(permit) = permit {
            file.content.memory = Some(mapping::map(&source, permit)?);
            // The header was read, the mapping came after: it is of the same file, or refused.
            file.content.check_unchanged()?;
        }
        Ok(file)
    }

    /// Takes any source of bytes.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn from_source(source: Arc<dyn Source>, parse: &ParseOptions) -> Result<Self, Error> {
        Self::from_source_with(source, &OpenOptions::default().with_parse(*parse))
    }

    /// Takes any source of bytes, which is read as the options say; a mapping is made of files alone.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn from_source_with(source: Arc<dyn Source>, options: &OpenOptions) -> Result<Self, Error> {
        let identity = source.identity()?;
        let header = Arc::new(read_header(&*source, &options.parse)?);
        Ok(Self { content: Content::new(source, identity, options), header })
    }

    /// Takes the bytes of a whole file; tensors are parts of them, nothing is copied.
    ///
    /// # Errors
    /// [`Format`](crate::ErrorKind::Format) or [`Limit`](crate::ErrorKind::Limit).
    pub fn from_memory(bytes: Buffer, parse: &ParseOptions) -> Result<Self, Error> {
        let source = Arc::new(MemorySource::new(bytes.clone()));
        let mut file = Self::from_source(source, parse)?;
        file.content.memory = Some(bytes);
        file.content.means = Means::Memory;
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
        self.content.source.path()
    }

    /// The bytes' source.
    #[must_use]
    pub fn source(&self) -> &dyn Source {
        &*self.content.source
    }

    /// The whole file where it is in memory: a mapping, or the bytes it was made from.
    #[must_use]
    pub fn memory(&self) -> Option<&Buffer> {
        self.content.memory.as_ref()
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
    /// As [`read`](Self::read); past the page cache where the file was opened so.
    pub fn tensor(&self, name: &str) -> Result<Buffer, Error> {
        let info = self.info(name)?;
        let range = self.header.file_range(&info);
        let past_cache = match self.content.means {
            Means::Memory | Means::Buffered => false,
            Means::Direct => true,
            Means::Auto => info.bytes() >= WORTH_DIRECT,
        };
        if self.content.memory.is_none() && past_cache {
            return self.planned(&info, &Selection::Whole).map(|(_, bytes)| bytes);
        }
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
    /// None where the file is in memory: a mapping that the system would read in small steps is read
    /// ahead by threads of its own. Otherwise memory for the tensors, and parallel reads.
    pub fn groups(&self) -> Result<Vec<Group>, Error> {
        if let Some(memory) = &self.content.memory {
            let range = self.header.data_start()..self.header.file_bytes();
            ahead::start(&self.content.source, memory, range.clone());
            let tensors = 0..self.header.len();
            return Ok(vec![Group { tensors, offset: range.start, bytes: self.read(range)? }]);
        }
        let mut plan = Plan::new();
        for info in self.header.tensors() {
            plan.add(0, &self.header, &info, &Selection::Whole)?;
        }
        let contents = vec![self.content.clone()];
        Execution::over(Arc::new(plan), contents, ExecuteOptions::default())?.groups(&self.header)
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
        match &self.content.memory {
            Some(memory) => Ok(memory.slice(places)),
            None => Buffer::filled(places.len(), |out| self.read_into(range.start, out)),
        }
    }

    /// Fills `out` with the bytes of the file from `offset` on.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    ///
    /// # Cost
    /// A copy where the file is in memory, else parallel reads through the page cache, however the file was
    /// opened. Allocates nothing.
    pub fn read_into(&self, offset: u64, out: &mut [u8]) -> Result<(), Error> {
        let range = offset..offset.saturating_add(out.len() as u64);
        let places = checked_range(&range, self.header.file_bytes())?;
        if let Some(memory) = &self.content.memory {
            memory.slice(places).copy_to(out);
            return Ok(());
        }
        read_parallel(&*self.content.source, offset, out)?;
        self.content.forget(range);
        self.content.check_unchanged()
    }

    /// A part of the tensor `name`, and its bytes in row-major order.
    ///
    /// # Errors
    /// As [`tensor`](Self::tensor), and [`Usage`](crate::ErrorKind::Usage) as
    /// [`Region::new`](tensafe_format::Region::new).
    ///
    /// # Cost
    /// Memory for the part, none where it is one run of a file in memory. Reads what a [`Plan`] of it
    /// would: [`explain`](crate::explain()) tells.
    pub fn region(&self, name: &str, index: &[Index], bounds: Bounds) -> Result<(Vec<u64>, Buffer), Error> {
        self.planned(&self.info(name)?, &Selection::Index(index.to_vec(), bounds))
    }

    /// The shape and the bytes of a plan of one entry.
    fn planned(&self, info: &TensorInfo<'_>, selection: &Selection) -> Result<(Vec<u64>, Buffer), Error> {
        let mut plan = Plan::new();
        plan.add(0, &self.header, info, selection)?;
        let shape = plan.entries().first().map(|entry| entry.shape().to_vec()).unwrap_or_default();
        let contents = vec![self.content.clone()];
        let mut execution = Execution::over(Arc::new(plan), contents, ExecuteOptions::default())?;
        let loaded = execution.next().unwrap_or_else(|| Err(Error::cancelled()))?;
        Ok((shape, loaded.bytes))
    }

    pub(crate) fn content(&self) -> &Content {
        &self.content
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
