//! The crate's one error: what files say of each other, and what `tensafe-io` says of one.

use std::{
    error::Error as StdError,
    fmt,
    path::{Path, PathBuf},
};

use tensafe_format::{Quoted, Rule};
use tensafe_io::Chain;
pub use tensafe_io::ErrorKind;

use crate::pickled::Refusal;

/// A model that cannot be opened as a whole, or a file of it that cannot be read.
pub struct Error(Box<Detail>);

#[derive(Debug)]
enum Detail {
    File(tensafe_io::Error),
    Index { path: PathBuf, source: tensafe_format::Error },
    NoWeights { path: PathBuf },
    NamedTwice { name: String, first: PathBuf, second: PathBuf },
    NotInShard { name: String, shard: PathBuf },
    NotInIndex { name: String, shard: PathBuf },
    NotFound { name: String },
    Container { path: Option<PathBuf>, source: tensafe_container::Error },
    Refused { path: Option<PathBuf>, refusal: Refusal },
    Option { what: &'static str, text: String, why: String },
    Cancelled,
}

impl Error {
    #[cold]
    fn new(detail: Detail) -> Self {
        Self(Box::new(detail))
    }

    pub(crate) fn index(path: &Path, source: tensafe_format::Error) -> Self {
        Self::new(Detail::Index { path: path.into(), source })
    }

    pub(crate) fn no_weights(path: &Path) -> Self {
        Self::new(Detail::NoWeights { path: path.into() })
    }

    pub(crate) fn named_twice(name: &str, first: &Path, second: &Path) -> Self {
        Self::new(Detail::NamedTwice { name: name.into(), first: first.into(), second: second.into() })
    }

    pub(crate) fn not_in_shard(name: &str, shard: &Path) -> Self {
        Self::new(Detail::NotInShard { name: name.into(), shard: shard.into() })
    }

    pub(crate) fn not_in_index(name: &str, shard: &Path) -> Self {
        Self::new(Detail::NotInIndex { name: name.into(), shard: shard.into() })
    }

    pub(crate) fn not_found(name: &str) -> Self {
        Self::new(Detail::NotFound { name: name.into() })
    }

    /// An archive or a compressed stream that cannot be read.
    pub(crate) fn container(path: Option<&Path>, source: tensafe_container::Error) -> Self {
        Self::new(Detail::Container { path: path.map(Path::to_owned), source })
    }

    /// A checkpoint of another format that is refused.
    pub(crate) fn refused(path: Option<&Path>, refusal: Refusal) -> Self {
        let path = path.filter(|path| !path.as_os_str().is_empty());
        Self::new(Detail::Refused { path: path.map(Path::to_owned), refusal })
    }

    /// The same error, of this file where it names none: what was decompressed has no path of its own.
    pub(crate) fn in_file(mut self, file: &Path) -> Self {
        if let Detail::Container { path, .. } | Detail::Refused { path, .. } = &mut *self.0
            && path.is_none()
            && !file.as_os_str().is_empty()
        {
            *path = Some(file.to_owned());
        }
        self
    }

    pub(crate) fn option(what: &'static str, text: &str, why: &str) -> Self {
        Self::new(Detail::Option { what, text: text.to_owned(), why: why.to_owned() })
    }

    /// A request that makes no sense: the text that was given, and what was needed.
    #[must_use]
    pub fn usage(text: &str, needed: &str) -> Self {
        Self::option("understood", text, needed)
    }

    pub(crate) fn cancelled() -> Self {
        Self::new(Detail::Cancelled)
    }

    /// Who is to blame.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match &*self.0 {
            Detail::File(source) => source.kind(),
            Detail::NoWeights { .. } | Detail::NotFound { .. } => ErrorKind::NotFound,
            Detail::Container { source, .. } => match source.kind() {
                tensafe_container::ErrorKind::Io => ErrorKind::Io,
                tensafe_container::ErrorKind::Limit => ErrorKind::Limit,
                tensafe_container::ErrorKind::Unsupported => ErrorKind::Unsupported,
                _ => ErrorKind::Format,
            },
            Detail::Refused { refusal, .. } => refusal.kind(),
            Detail::Option { .. } => ErrorKind::Usage,
            Detail::Cancelled => ErrorKind::Cancelled,
            _ => ErrorKind::Format,
        }
    }

    /// The rule of `docs/spec.md` that was broken, if one was.
    #[must_use]
    pub fn rule(&self) -> Option<Rule> {
        match &*self.0 {
            Detail::File(source) => source.as_format()?.rule(),
            Detail::Index { source, .. } => source.rule(),
            Detail::NamedTwice { .. } | Detail::NotInShard { .. } | Detail::NotInIndex { .. } => {
                Some(Rule::INDEX_MATCHES)
            }
            _ => None,
        }
    }

    /// The error of one file, where one file is to blame.
    #[must_use]
    pub fn as_file(&self) -> Option<&tensafe_io::Error> {
        match &*self.0 {
            Detail::File(source) => Some(source),
            _ => None,
        }
    }

    /// The file or the directory, where one is to blame.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match &*self.0 {
            Detail::File(source) => source.path(),
            Detail::Index { path, .. } | Detail::NoWeights { path } => Some(path),
            _ => None,
        }
    }

    /// The whole text: this level and those below it.
    #[must_use]
    pub fn chain(&self) -> Chain<'_> {
        Chain(self)
    }
}

impl From<tensafe_io::Error> for Error {
    fn from(source: tensafe_io::Error) -> Self {
        Self::new(Detail::File(source))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rule = Rule::INDEX_MATCHES;
        match &*self.0 {
            Detail::File(source) => fmt::Display::fmt(source, f),
            Detail::Index { path, .. } => write!(f, "{}", path.display()),
            Detail::NoWeights { path } => {
                write!(f, "{}: no safetensors file and no index of shards in this directory", path.display())
            }
            Detail::NamedTwice { name, first, second } => write!(
                f,
                "tensor `{}`: in {} and in {}, a name stands in one file ({rule})",
                Quoted(name),
                first.display(),
                second.display()
            ),
            Detail::NotInShard { name, shard } => write!(
                f,
                "tensor `{}`: the index places it in {}, which does not hold it ({rule})",
                Quoted(name),
                shard.display()
            ),
            Detail::NotInIndex { name, shard } => {
                write!(
                    f,
                    "tensor `{}`: in {}, the index does not name it ({rule})",
                    Quoted(name),
                    shard.display()
                )
            }
            Detail::Container { path, source } => {
                path.as_ref().map_or(Ok(()), |path| write!(f, "{}: ", path.display()))?;
                fmt::Display::fmt(source, f)
            }
            Detail::Refused { path, refusal } => {
                path.as_ref().map_or(Ok(()), |path| write!(f, "{}: ", path.display()))?;
                fmt::Display::fmt(refusal, f)
            }
            Detail::Option { what, text, why } => write!(f, "`{}` is not {what}: {why}", Quoted(text)),
            Detail::Cancelled => f.write_str("cancelled; nothing was written"),
            Detail::NotFound { name } => write!(f, "tensor `{}` not found", Quoted(name)),
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
            // Shown as this level itself: what it rests on is the next.
            Detail::File(source) => StdError::source(source),
            Detail::Index { source, .. } => Some(source),
            Detail::Container { source, .. } => StdError::source(source),
            _ => None,
        }
    }
}
