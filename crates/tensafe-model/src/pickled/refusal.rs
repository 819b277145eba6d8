//! Why a checkpoint of another format is refused.

use std::fmt;

use tensafe_format::Quoted;
use tensafe_pickle::{Element, MeaningError};

use crate::ErrorKind;

/// What was met, where.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// A file of a format that is not read.
    Kind { name: &'static str },
    /// A pickle that cannot be followed.
    Pickle(tensafe_pickle::Error),
    /// Values that STOP left on the stack.
    Leftover { count: usize },
    /// Bytes behind the last part of the file.
    Trailing { offset: u64, bytes: u64 },
    /// Names that are not known.
    Symbols { names: Vec<String>, more: usize },
    /// A record of a known name that nobody writes.
    Meaning { path: String, source: MeaningError },
    /// A tensor without data.
    Empty { path: String, symbol: String },
    /// A tensor of bytes that nobody says the type of.
    Typeless { path: String },
    /// A reference to what is not there.
    Persistent { path: String },
    /// A storage that the container does not hold.
    NoStorage { path: String, key: String },
    /// A storage of another size than the pickle says.
    StorageSize { path: String, key: String, found: u64, needed: u64 },
    /// A storage that is compressed.
    StorageCompressed { path: String, key: String },
    /// A tensor that leaves its storage.
    Beyond { path: String, first: u64, end: u64, elements: u64 },
    /// A tensor of another type than the view that it stands on.
    View { path: String },
    /// A tensor whose places overflow, or lie before its storage.
    Overflow { path: String },
    /// An element that the format has no dtype for.
    Element { path: String, element: Element },
    /// An array of what are no numbers.
    Array { path: String, number: String },
    /// A sparse tensor, and nobody asked for a dense one.
    Sparse { path: String, layout: &'static str },
    /// A sparse tensor whose parts do not fit each other.
    SparseParts { path: String, why: &'static str },
    /// What stands beside tensors and is none, nor a plain value.
    Made { path: String, what: String, offset: Option<u64> },
    /// Two tensors of one name.
    Collision { name: String },
    /// A key that makes no name.
    Key { path: String, kind: &'static str },
    /// Containers within containers beyond the limit.
    Depth { path: String, limit: usize },
    /// More values than the limit.
    Values { limit: usize },
    /// Values of more memory than the limit.
    Memory { limit: u64 },
    /// A container that holds no checkpoint.
    Nothing,
    /// A checkpoint without a tensor that is asked for.
    NoTensors,
    /// An archive's member with another checksum.
    Crc { member: String, found: u32, needed: u32 },
    /// More than one member could be the checkpoint's.
    Roots { names: Vec<String> },
    /// An archive whose parts contradict each other.
    Archive { why: String },
    /// Files of one checkpoint that do not fit each other.
    Mismatch { what: String, found: String, needed: String },
    /// A file of a checkpoint of many ranks that is not put together with the others.
    Parallel { file: String, why: &'static str },
}

impl Refusal {
    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            Self::Kind { .. }
            | Self::Symbols { .. }
            | Self::Empty { .. }
            | Self::Element { .. }
            | Self::Array { .. }
            | Self::Sparse { .. }
            | Self::Made { .. }
            | Self::Parallel { .. }
            | Self::Key { .. } => ErrorKind::Unsupported,
            Self::Depth { .. } | Self::Values { .. } | Self::Memory { .. } => ErrorKind::Limit,
            Self::Nothing | Self::NoTensors => ErrorKind::NotFound,
            Self::Pickle(error) => match error.kind() {
                tensafe_pickle::ErrorKind::Limit => ErrorKind::Limit,
                tensafe_pickle::ErrorKind::Unsupported => ErrorKind::Unsupported,
                tensafe_pickle::ErrorKind::Io => ErrorKind::Io,
                _ => ErrorKind::Format,
            },
            _ => ErrorKind::Format,
        }
    }
}

/// `tensor `a.b``, or the file itself where there is no name.
struct At<'a>(&'a str);

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { f.write_str("the value") } else { write!(f, "`{}`", Quoted(self.0)) }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kind { name } => write!(f, "found {name}, which is not read as a checkpoint"),
            Self::Pickle(error) => write!(f, "the pickle cannot be followed: {error}"),
            Self::Leftover { count } => {
                write!(f, "the pickle leaves {count} values on the stack, no writer leaves any")
            }
            Self::Trailing { offset, bytes } => {
                write!(f, "{bytes} bytes at offset {offset} are no part of the checkpoint")
            }
            Self::Symbols { names, more } => {
                f.write_str("the pickle names what is not known to be harmless: ")?;
                for (i, name) in names.iter().enumerate() {
                    write!(f, "{}`{}`", if i > 0 { ", " } else { "" }, Quoted(name))?;
                }
                if *more > 0 {
                    write!(f, " and {more} more")?;
                }
                f.write_str("; `salvage` takes the tensors beside it and leaves that out")
            }
            Self::Meaning { path, source } => write!(f, "{}: {source}", At(path)),
            Self::Empty { path, symbol } => {
                write!(f, "{}: `{symbol}` makes a tensor without data; `salvage` leaves it out", At(path))
            }
            Self::Typeless { path } => {
                write!(f, "{}: neither the tensor nor its storage says what its elements are", At(path))
            }
            Self::Persistent { path } => write!(f, "{}: refers to something outside of the file", At(path)),
            Self::NoStorage { path, key } => {
                write!(f, "{}: storage `{}` is not in the file", At(path), Quoted(key))
            }
            Self::StorageSize { path, key, found, needed } => write!(
                f,
                "{}: storage `{}` has {found} bytes, the pickle says {needed}",
                At(path),
                Quoted(key)
            ),
            Self::StorageCompressed { path, key } => {
                write!(
                    f,
                    "{}: storage `{}` is compressed, torch stores them as they are",
                    At(path),
                    Quoted(key)
                )
            }
            Self::Beyond { path, first, end, elements } => {
                write!(f, "{}: touches elements {first}..{end} of a storage that has {elements}", At(path))
            }
            Self::View { path } => {
                write!(f, "{}: a view of a storage whose elements are of another size", At(path))
            }
            Self::Overflow { path } => {
                write!(f, "{}: shape, strides and offset lead out of 64 bits or before the storage", At(path))
            }
            Self::Element { path, element } => write!(
                f,
                "{}: safetensors has no dtype for torch.{element}; `select` can leave it out",
                At(path)
            ),
            Self::Array { path, number } => {
                write!(f, "{}: an array of {number} is no tensor; `salvage` leaves it out", At(path))
            }
            Self::Sparse { path, layout } => {
                write!(f, "{}: a tensor of layout torch.{layout}; `dense` writes it as a dense one", At(path))
            }
            Self::SparseParts { path, why } => write!(f, "{}: a sparse tensor: {why}", At(path)),
            Self::Made { path, what, offset } => {
                write!(f, "{}: {what}", At(path))?;
                if let Some(offset) = offset {
                    write!(f, " at byte {offset}")?;
                }
                f.write_str(
                    " is neither a tensor nor a plain value, and is not made without executing the pickle; \
                     `tensafe convert` takes the tensors beside it",
                )
            }
            Self::Collision { name } => write!(f, "two tensors have the name `{}`", Quoted(name)),
            Self::Key { path, kind } => write!(f, "{}: a key that is {kind} makes no name", At(path)),
            Self::Depth { path, limit } => {
                write!(
                    f,
                    "{}: containers within containers beyond {limit} levels, or within themselves",
                    At(path)
                )
            }
            Self::Values { limit } => write!(f, "more than {limit} values"),
            Self::Memory { limit } => write!(f, "values of more than {limit} bytes"),
            Self::Nothing => f.write_str("no checkpoint in it"),
            Self::NoTensors => f.write_str("no tensor in it, or none that is selected"),
            Self::Crc { member, found, needed } => write!(
                f,
                "member `{}`: the bytes have checksum {found:08x}, the archive says {needed:08x}",
                Quoted(member)
            ),
            Self::Roots { names } => {
                f.write_str("more than one member could be the checkpoint: ")?;
                for (i, name) in names.iter().enumerate() {
                    write!(f, "{}`{}`", if i > 0 { ", " } else { "" }, Quoted(name))?;
                }
                Ok(())
            }
            Self::Archive { why } => write!(f, "the archive cannot be trusted: {why}"),
            Self::Mismatch { what, found, needed } => {
                write!(f, "{}: found {}, needed {}", Quoted(what), Quoted(found), Quoted(needed))
            }
            Self::Parallel { file, why } => write!(f, "`{}`: {why}", Quoted(file)),
        }
    }
}
