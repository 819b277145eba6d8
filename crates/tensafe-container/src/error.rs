//! The crate's one error: where in which container it was met, what was found and what was needed.

use std::{error::Error as StdError, fmt, io, ops::Range};

use crate::{Flaw, FlawKind};

/// Who is to blame, and so what a caller can do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The operating system refused, or the file changed or shrank.
    Io,
    /// The bytes break a rule of their format.
    Format,
    /// The container asks for more than [`Limits`](crate::Limits) allow.
    Limit,
    /// The container uses what this crate does not read.
    Unsupported,
}

/// Why a container, or a part of it, cannot be read.
///
/// One boxed word. [`Display`](fmt::Display) shows this level alone.
pub struct Error(Box<Detail>);

#[derive(Debug)]
enum Detail {
    Source { doing: &'static str, source: tensafe_io::Error },
    Temporary { doing: &'static str, source: io::Error },
    Flaw(Flaw),
    Short { subject: String, offset: u64, found: u64, needed: u64 },
    Wrong { subject: String, offset: u64, found: String, needed: String },
    Stream { subject: String, offset: u64, source: Option<io::Error> },
    Limit { subject: String, offset: u64, found: u64, limit: u64, option: &'static str },
    Unsupported { subject: String, offset: u64, found: String },
    Range { range: Range<u64>, bytes: u64 },
}

impl Error {
    #[cold]
    fn new(detail: Detail) -> Self {
        Self(Box::new(detail))
    }

    /// A source could not be read.
    pub(crate) fn source(doing: &'static str, source: tensafe_io::Error) -> Self {
        Self::new(Detail::Source { doing, source })
    }

    /// A temporary file could not be made or written.
    pub(crate) fn temporary(doing: &'static str, source: io::Error) -> Self {
        Self::new(Detail::Temporary { doing, source })
    }

    /// A zip archive's flaw that nobody reads past.
    pub(crate) fn flaw(flaw: Flaw) -> Self {
        Self::new(Detail::Flaw(flaw))
    }

    /// `subject` ends early.
    #[cold]
    pub(crate) fn short(subject: impl fmt::Display, offset: u64, found: u64, needed: u64) -> Self {
        Self::new(Detail::Short { subject: subject.to_string(), offset, found, needed })
    }

    /// `subject` is not what it has to be.
    #[cold]
    pub(crate) fn wrong(
        subject: impl fmt::Display,
        offset: u64,
        found: impl fmt::Display,
        needed: impl fmt::Display,
    ) -> Self {
        let (subject, found, needed) = (subject.to_string(), found.to_string(), needed.to_string());
        Self::new(Detail::Wrong { subject, offset, found, needed })
    }

    /// A compressed stream is damaged at or before the byte `offset` of it.
    #[cold]
    pub(crate) fn stream(subject: impl fmt::Display, offset: u64, source: Option<io::Error>) -> Self {
        Self::new(Detail::Stream { subject: subject.to_string(), offset, source })
    }

    /// `subject` asks for more than `option` of the limits allows.
    #[cold]
    pub(crate) fn limit(
        subject: impl fmt::Display,
        offset: u64,
        found: u64,
        limit: u64,
        option: &'static str,
    ) -> Self {
        Self::new(Detail::Limit { subject: subject.to_string(), offset, found, limit, option })
    }

    /// `subject` uses what is not read.
    #[cold]
    pub(crate) fn unsupported(subject: impl fmt::Display, offset: u64, found: impl fmt::Display) -> Self {
        let (subject, found) = (subject.to_string(), found.to_string());
        Self::new(Detail::Unsupported { subject, offset, found })
    }

    /// A range that the source does not have.
    pub(crate) fn range(range: Range<u64>, bytes: u64) -> Self {
        Self::new(Detail::Range { range, bytes })
    }

    /// Who is to blame.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match &*self.0 {
            Detail::Source { .. } | Detail::Temporary { .. } => ErrorKind::Io,
            Detail::Limit { .. } => ErrorKind::Limit,
            Detail::Unsupported { .. } => ErrorKind::Unsupported,
            Detail::Flaw(flaw) => match flaw.kind() {
                FlawKind::Encrypted
                | FlawKind::UnknownMethod
                | FlawKind::NewerVersion
                | FlawKind::MultiDisk => ErrorKind::Unsupported,
                FlawKind::TooManyMembers | FlawKind::NameTooLong | FlawKind::Ratio => ErrorKind::Limit,
                _ => ErrorKind::Format,
            },
            Detail::Short { .. } | Detail::Wrong { .. } | Detail::Stream { .. } | Detail::Range { .. } => {
                ErrorKind::Format
            }
        }
    }

    /// The flaw that a zip archive was refused for.
    #[must_use]
    pub fn as_flaw(&self) -> Option<&Flaw> {
        match &*self.0 {
            Detail::Flaw(flaw) => Some(flaw),
            _ => None,
        }
    }

    /// The first byte, within the source that was being read, of what is wrong.
    #[must_use]
    pub fn offset(&self) -> Option<u64> {
        match &*self.0 {
            Detail::Flaw(flaw) => Some(flaw.offset()),
            Detail::Short { offset, .. }
            | Detail::Wrong { offset, .. }
            | Detail::Stream { offset, .. }
            | Detail::Limit { offset, .. }
            | Detail::Unsupported { offset, .. } => Some(*offset),
            _ => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.0 {
            Detail::Source { doing, .. } | Detail::Temporary { doing, .. } => write!(f, "cannot {doing}"),
            Detail::Flaw(flaw) => fmt::Display::fmt(flaw, f),
            Detail::Short { subject, offset, found, needed } => {
                write!(f, "{subject} at byte {offset} ends early: found {found} bytes, needed {needed}")
            }
            Detail::Wrong { subject, offset, found, needed } => {
                write!(f, "{subject} at byte {offset}: found {found}, needed {needed}")
            }
            Detail::Stream { subject, offset, .. } => {
                write!(f, "{subject} is damaged at or before byte {offset}")
            }
            Detail::Limit { subject, offset, found, limit, option } => write!(
                f,
                "{subject} at byte {offset}: found {found}, the limit is {limit}; `Limits::{option}` can raise it"
            ),
            Detail::Unsupported { subject, offset, found } => {
                write!(f, "{subject} at byte {offset}: found {found}, which is not read here")
            }
            Detail::Range { range, bytes } => {
                write!(f, "bytes {}..{} asked for, there are {bytes}", range.start, range.end)
            }
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
            Detail::Source { source, .. } => Some(source),
            Detail::Temporary { source, .. } => Some(source),
            Detail::Stream { source, .. } => source.as_ref().map(|source| source as _),
            _ => None,
        }
    }
}
