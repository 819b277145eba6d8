//! The crate's one error: the operating system's refusals and the format's, each with its file.

use std::{
    error::Error as StdError,
    fmt, io,
    ops::Range,
    path::{Path, PathBuf},
};

use tensafe_format::Dtype;

/// Who is to blame, and so what a caller can do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The operating system refused, or the file changed or shrank: retry, or look at the disk.
    Io,
    /// The bytes break a rule of the format: refuse the file.
    Format,
    /// The file asks for more than the limits allow.
    Limit,
    /// No such file, or no such tensor.
    NotFound,
    /// This platform cannot do it.
    Unsupported,
    /// The request makes no sense: correct the call.
    Usage,
    /// The caller asked for an end before it was done.
    Cancelled,
}

/// What went wrong with which file.
///
/// One boxed word. [`Display`](fmt::Display) shows this level alone; [`Chain`] shows all of it.
pub struct Error(Box<Detail>);

#[derive(Debug)]
enum Detail {
    Os { doing: &'static str, path: Option<PathBuf>, range: Option<Range<u64>>, source: io::Error },
    Missing { path: PathBuf, source: io::Error },
    NotRegular { path: PathBuf },
    Format { path: Option<PathBuf>, source: tensafe_format::Error },
    Short { path: Option<PathBuf>, offset: u64, found: u64, needed: u64 },
    Changed { path: Option<PathBuf>, what: &'static str },
    TooLargeForHost { bytes: u64 },
    Memory { bytes: u64, source: io::Error },
    OutOfBounds { range: Range<u64>, bytes: u64 },
    Selection { tensor: String, source: tensafe_format::Error },
    Dimension { tensor: String, dimension: usize, shape: Vec<u64> },
    Shard { tensor: String, rank: u64, world: u64 },
    Interval { tensor: String, range: Range<u64>, reached: u64, size: u64 },
    Strides { dtype: Dtype, shape: Vec<u64>, strides: Vec<u64> },
    Destination { tensor: String, found: u64, needed: u64 },
    Budget { tensor: String, needed: u64, budget: u64 },
    Slabs { needed: u64, budget: u64 },
    NoStager { tensor: String },
    Device { function: String, code: i32, text: String },
    NoRuntime { tried: Vec<String> },
    NoSymbol { symbol: String },
    Cancelled,
    WriteCancelled { path: PathBuf },
    WrittenTwice { path: PathBuf, range: Range<u64> },
    Overlap { path: PathBuf, range: Range<u64> },
    Incomplete { path: PathBuf, tensor: Option<String>, range: Range<u64>, missing: u64 },
    NotJoined { path: PathBuf, what: &'static str },
    Token { token: String },
}

impl Error {
    #[cold]
    fn new(detail: Detail) -> Self {
        Self(Box::new(detail))
    }

    /// The operating system refused to do something with a file.
    pub(crate) fn os(doing: &'static str, path: Option<&Path>, source: io::Error) -> Self {
        match (path, source.kind()) {
            (Some(path), io::ErrorKind::NotFound) => Self::new(Detail::Missing { path: path.into(), source }),
            (path, _) => Self::new(Detail::Os { doing, path: path.map(Path::to_owned), range: None, source }),
        }
    }

    /// A device, a pipe or a socket, where a file is needed.
    pub(crate) fn not_regular(path: &Path) -> Self {
        Self::new(Detail::NotRegular { path: path.into() })
    }

    /// The operating system refused to do something with the file at `path`.
    #[must_use]
    pub fn from_os(doing: &'static str, path: &Path, source: io::Error) -> Self {
        Self::os(doing, Some(path), source)
    }

    /// The operating system refused to read or write a range of a file.
    pub(crate) fn os_range(
        doing: &'static str,
        path: Option<&Path>,
        range: Range<u64>,
        source: io::Error,
    ) -> Self {
        let path = path.map(Path::to_owned);
        Self::new(Detail::Os { doing, path, range: Some(range), source })
    }

    /// A file ended before what its header promises.
    #[must_use]
    pub fn short(path: Option<&Path>, offset: u64, found: u64, needed: u64) -> Self {
        Self::new(Detail::Short { path: path.map(Path::to_owned), offset, found, needed })
    }

    pub(crate) fn changed(path: Option<&Path>, what: &'static str) -> Self {
        Self::new(Detail::Changed { path: path.map(Path::to_owned), what })
    }

    pub(crate) fn too_large_for_host(bytes: u64) -> Self {
        Self::new(Detail::TooLargeForHost { bytes })
    }

    pub(crate) fn memory(bytes: u64, source: io::Error) -> Self {
        Self::new(Detail::Memory { bytes, source })
    }

    pub(crate) fn out_of_bounds(range: Range<u64>, bytes: u64) -> Self {
        Self::new(Detail::OutOfBounds { range, bytes })
    }

    /// A part that is none of its tensor.
    pub(crate) fn selection(tensor: &str, source: tensafe_format::Error) -> Self {
        Self::new(Detail::Selection { tensor: tensor.into(), source })
    }

    pub(crate) fn no_dimension(tensor: &str, dimension: usize, shape: &[u64]) -> Self {
        Self::new(Detail::Dimension { tensor: tensor.into(), dimension, shape: shape.into() })
    }

    pub(crate) fn shard(tensor: &str, rank: u64, world: u64) -> Self {
        Self::new(Detail::Shard { tensor: tensor.into(), rank, world })
    }

    /// An interval that is out of its dimension, or not behind the one before it.
    pub(crate) fn interval(tensor: &str, range: Range<u64>, reached: u64, size: u64) -> Self {
        Self::new(Detail::Interval { tensor: tensor.into(), range, reached, size })
    }

    /// Strides that no destination can have.
    pub(crate) fn strides(dtype: Dtype, shape: &[u64], strides: &[u64]) -> Self {
        Self::new(Detail::Strides { dtype, shape: shape.into(), strides: strides.into() })
    }

    /// Memory of the caller that is missing or too short.
    pub(crate) fn destination(tensor: &str, found: u64, needed: u64) -> Self {
        Self::new(Detail::Destination { tensor: tensor.into(), found, needed })
    }

    /// A tensor that no budget of this size has room for.
    pub(crate) fn budget(tensor: &str, needed: u64, budget: u64) -> Self {
        Self::new(Detail::Budget { tensor: tensor.into(), needed, budget })
    }

    /// A budget that two slabs of the shortest requests do not fit.
    pub(crate) fn slabs(needed: u64, budget: u64) -> Self {
        Self::new(Detail::Slabs { needed, budget })
    }

    /// Memory of a device, and nobody who can copy to it; or memory of the host where a device's is needed.
    pub(crate) fn no_stager(tensor: &str) -> Self {
        Self::new(Detail::NoStager { tensor: tensor.into() })
    }

    /// A function of a device's runtime failed with a number, for which the runtime has a text.
    #[must_use]
    pub fn device(function: &str, code: i32, text: &str) -> Self {
        Self::new(Detail::Device { function: function.into(), code, text: text.into() })
    }

    /// No device runtime of these names is loaded.
    #[cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "runtimes are looked for on Linux"))]
    pub(crate) fn no_runtime(tried: &[&str]) -> Self {
        Self::new(Detail::NoRuntime { tried: tried.iter().map(|name| (*name).to_owned()).collect() })
    }

    /// A device runtime lacks a function.
    #[cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "runtimes are looked for on Linux"))]
    pub(crate) fn no_symbol(symbol: &str) -> Self {
        Self::new(Detail::NoSymbol { symbol: symbol.into() })
    }

    /// The caller asked for an end.
    #[must_use]
    pub fn cancelled() -> Self {
        Self::new(Detail::Cancelled)
    }

    /// The caller ended a write.
    pub(crate) fn write_cancelled(path: &Path) -> Self {
        Self::new(Detail::WriteCancelled { path: path.into() })
    }

    pub(crate) fn written_twice(path: &Path, range: Range<u64>) -> Self {
        Self::new(Detail::WrittenTwice { path: path.into(), range })
    }

    /// Two pieces of one write have bytes of the file in common.
    pub(crate) fn overlap(path: &Path, range: Range<u64>) -> Self {
        Self::new(Detail::Overlap { path: path.into(), range })
    }

    /// A file was finished before all of its bytes were written: the first range, and how many.
    pub(crate) fn incomplete(path: &Path, tensor: Option<&str>, range: Range<u64>, missing: u64) -> Self {
        let tensor = tensor.map(str::to_owned);
        Self::new(Detail::Incomplete { path: path.into(), tensor, range, missing })
    }

    /// A file that processes write together is not the one that this one expects.
    pub(crate) fn not_joined(path: &Path, what: &'static str) -> Self {
        Self::new(Detail::NotJoined { path: path.into(), what })
    }

    pub(crate) fn token(token: &str) -> Self {
        Self::new(Detail::Token { token: token.into() })
    }

    /// The format's error with the file that it was met in.
    pub fn format(path: Option<&Path>, source: tensafe_format::Error) -> Self {
        Self::new(Detail::Format { path: path.map(Path::to_owned), source })
    }

    /// A refusal of a source that a caller brought, such as an object of another language.
    #[must_use]
    pub fn from_source(doing: &'static str, source: io::Error) -> Self {
        Self::new(Detail::Os { doing, path: None, range: None, source })
    }

    /// Who is to blame.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match &*self.0 {
            Detail::Missing { .. } => ErrorKind::NotFound,
            // A path that no system was asked about, such as one that holds a NUL byte.
            Detail::Os { path: Some(_), source, .. }
                if source.kind() == io::ErrorKind::InvalidInput && source.raw_os_error().is_none() =>
            {
                ErrorKind::Usage
            }
            Detail::Os { .. }
            | Detail::Short { .. }
            | Detail::Changed { .. }
            | Detail::Memory { .. }
            | Detail::Device { .. } => ErrorKind::Io,
            Detail::TooLargeForHost { .. } | Detail::NoRuntime { .. } | Detail::NoSymbol { .. } => {
                ErrorKind::Unsupported
            }
            Detail::NotRegular { .. }
            | Detail::OutOfBounds { .. }
            | Detail::Selection { .. }
            | Detail::Dimension { .. }
            | Detail::Shard { .. }
            | Detail::Interval { .. }
            | Detail::Strides { .. }
            | Detail::Destination { .. }
            | Detail::NoStager { .. }
            | Detail::WrittenTwice { .. }
            | Detail::Overlap { .. }
            | Detail::Incomplete { .. }
            | Detail::NotJoined { .. }
            | Detail::Token { .. } => ErrorKind::Usage,
            Detail::WriteCancelled { .. } => ErrorKind::Cancelled,
            Detail::Budget { .. } | Detail::Slabs { .. } => ErrorKind::Limit,
            Detail::Cancelled => ErrorKind::Cancelled,
            Detail::Format { source, .. } => match source.kind() {
                tensafe_format::ErrorKind::Limit => ErrorKind::Limit,
                tensafe_format::ErrorKind::NotFound => ErrorKind::NotFound,
                tensafe_format::ErrorKind::Usage => ErrorKind::Usage,
                _ => ErrorKind::Format,
            },
        }
    }

    /// The file, where there is one.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match &*self.0 {
            Detail::Missing { path, .. }
            | Detail::NotRegular { path }
            | Detail::WriteCancelled { path }
            | Detail::WrittenTwice { path, .. }
            | Detail::Overlap { path, .. }
            | Detail::Incomplete { path, .. }
            | Detail::NotJoined { path, .. } => Some(path),
            Detail::Os { path, .. }
            | Detail::Format { path, .. }
            | Detail::Short { path, .. }
            | Detail::Changed { path, .. } => path.as_deref(),
            _ => None,
        }
    }

    /// The format's error, where the bytes or the request are to blame.
    #[must_use]
    pub fn as_format(&self) -> Option<&tensafe_format::Error> {
        match &*self.0 {
            Detail::Format { source, .. } | Detail::Selection { source, .. } => Some(source),
            _ => None,
        }
    }

    /// The operating system's number for the refusal.
    #[must_use]
    pub fn raw_os_error(&self) -> Option<i32> {
        match &*self.0 {
            Detail::Os { source, .. } | Detail::Missing { source, .. } | Detail::Memory { source, .. } => {
                source.raw_os_error()
            }
            _ => None,
        }
    }

    /// The standard library's name for the operating system's refusal.
    #[must_use]
    pub fn os_kind(&self) -> Option<io::ErrorKind> {
        match &*self.0 {
            Detail::Os { source, .. } | Detail::Missing { source, .. } | Detail::Memory { source, .. } => {
                Some(source.kind())
            }
            _ => None,
        }
    }

    /// The whole text: this level and those below it.
    #[must_use]
    pub fn chain(&self) -> Chain<'_> {
        Chain(self)
    }
}

/// Refusals of our own that the operating system has a number for: they carry it where it is known.
pub(crate) mod refusal {
    use std::io;

    #[cfg(unix)]
    use rustix::io::Errno;

    #[cold]
    pub(crate) fn is_a_directory() -> io::Error {
        #[cfg(unix)]
        return Errno::ISDIR.into();
        #[cfg(not(unix))]
        return io::ErrorKind::IsADirectory.into();
    }

    #[cold]
    pub(crate) fn exists() -> io::Error {
        #[cfg(unix)]
        return Errno::EXIST.into();
        #[cfg(not(unix))]
        return io::ErrorKind::AlreadyExists.into();
    }

    #[cold]
    pub(crate) fn flush_failed_before() -> io::Error {
        #[cfg(unix)]
        return Errno::IO.into();
        #[cfg(not(unix))]
        return io::Error::other("a flush before has failed");
    }

    #[cold]
    pub(crate) fn too_many_links() -> io::Error {
        #[cfg(unix)]
        return Errno::LOOP.into();
        #[cfg(not(unix))]
        return io::Error::other("too many symbolic links");
    }
}

/// Shows an error with its causes, joined by `: `.
#[derive(Debug)]
pub struct Chain<'a>(pub &'a (dyn StdError + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut level = Some(self.0);
        let mut first = true;
        while let Some(error) = level {
            let text = error.to_string();
            if !text.is_empty() {
                write!(f, "{}{text}", if first { "" } else { ": " })?;
                first = false;
            }
            level = error.source();
        }
        Ok(())
    }
}

/// `path: `, or nothing for bytes that have no path.
struct At<'a>(&'a Option<PathBuf>);

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_ref().map_or(Ok(()), |path| write!(f, "{}: ", path.display()))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.0 {
            Detail::Os { doing, path, range: None, .. } => write!(f, "{}cannot {doing}", At(path)),
            Detail::Os { doing, path, range: Some(range), .. } => {
                write!(f, "{}cannot {doing} bytes {}..{}", At(path), range.start, range.end)
            }
            Detail::Missing { path, .. } => write!(f, "No such file or directory: {}", path.display()),
            Detail::NotRegular { path } => write!(f, "{}: not a regular file", path.display()),
            Detail::Format { path, .. } => {
                path.as_ref().map_or(Ok(()), |path| write!(f, "{}", path.display()))
            }
            Detail::Short { path, offset, found, needed } => write!(
                f,
                "{}the file ends early: at offset {offset} found {found} bytes, needed {needed}",
                At(path)
            ),
            Detail::Changed { path, what } => {
                write!(f, "{}the file changed while it was open: another {what}", At(path))
            }
            Detail::TooLargeForHost { bytes } => {
                write!(f, "{bytes} bytes do not fit the address space of this host")
            }
            Detail::Memory { bytes, .. } => write!(f, "cannot reserve {bytes} bytes of memory"),
            Detail::OutOfBounds { range, bytes } => {
                write!(f, "bytes {}..{} asked for, there are {bytes}", range.start, range.end)
            }
            Detail::Selection { tensor, .. } => write!(f, "tensor `{tensor}`"),
            Detail::Dimension { tensor, dimension, shape } => {
                let has = shape.len();
                write!(f, "tensor `{tensor}`: dimension {dimension} asked for, the shape {shape:?} has {has}")
            }
            Detail::Shard { tensor, rank, world } => write!(
                f,
                "tensor `{tensor}`: part {rank} of {world} asked for, needed a part from 0 to below their number"
            ),
            Detail::Interval { tensor, range: Range { start, end }, reached, size } => write!(
                f,
                "tensor `{tensor}`: interval {start}..{end} of a dimension of {size}, needed one that begins at \
                 {reached} or later and ends by {size}"
            ),
            Detail::Strides { dtype, shape, strides } => write!(
                f,
                "strides of {strides:?} bytes cannot hold {dtype} {shape:?}: needed one for each dimension, each \
                 past what the smaller ones reach"
            ),
            Detail::Destination { tensor, found, needed } => {
                write!(f, "tensor `{tensor}`: memory of {found} bytes to read into, needed {needed}")
            }
            Detail::Budget { tensor, needed, budget } => write!(
                f,
                "tensor `{tensor}` needs {needed} bytes, the budget leaves {budget} for tensors; raise budget="
            ),
            Detail::Slabs { needed, budget } => write!(
                f,
                "copies to a device need two slabs of {needed} bytes together, the budget is {budget}; raise budget="
            ),
            Detail::NoStager { tensor } => write!(
                f,
                "tensor `{tensor}`: memory of a device is read into through a stager, and memory of the host without"
            ),
            Detail::Device { function, code, text } => {
                write!(f, "{function} failed with code {code}: {text}")
            }
            Detail::NoRuntime { tried } => {
                write!(f, "no device runtime is loaded in this process: looked for {}", tried.join(", "))
            }
            Detail::NoSymbol { symbol } => write!(f, "the device runtime has no function `{symbol}`"),
            Detail::Cancelled => write!(f, "cancelled"),
            Detail::WriteCancelled { path } => {
                write!(f, "{}: cancelled before it was written", path.display())
            }
            Detail::WrittenTwice { path, range } => {
                write!(f, "{}: bytes {}..{} are written already", path.display(), range.start, range.end)
            }
            Detail::Overlap { path, range } => {
                write!(f, "{}: bytes {}..{} are in two pieces", path.display(), range.start, range.end)
            }
            Detail::Incomplete { path, tensor, range, missing } => {
                write!(
                    f,
                    "{}: {missing} bytes were not written, the first at {}",
                    path.display(),
                    range.start
                )?;
                tensor.as_ref().map_or(Ok(()), |tensor| write!(f, ", of tensor `{tensor}`"))
            }
            Detail::NotJoined { path, what } => write!(
                f,
                "{}: the file in the making has another {what}: needed the tensors, metadata and alignment of \
                 who began it",
                path.display()
            ),
            Detail::Token { token } => write!(
                f,
                "token `{token}`: needed 1 to 64 ASCII letters, digits, dots, dashes or underscores"
            ),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match &*self.0 {
            // "No such file or directory" is all that the cause would say.
            Detail::Missing { .. } => None,
            Detail::Os { source, .. } | Detail::Memory { source, .. } => Some(source),
            Detail::Format { source, .. } | Detail::Selection { source, .. } => Some(source),
            _ => None,
        }
    }
}
