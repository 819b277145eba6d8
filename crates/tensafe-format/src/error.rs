//! The crate's one error: what was found, what was needed, which rule asks for it.

use alloc::{boxed::Box, string::String, vec::Vec};
use core::fmt;

use crate::{Dtype, Rule};

/// Who is to blame, and so what a caller can do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The bytes break a rule of the format: refuse the file.
    Format,
    /// The file asks for more than [`Limits`](crate::Limits) allow: raise the limit, or refuse.
    Limit,
    /// No tensor has the name that was asked for.
    NotFound,
    /// The request makes no sense for this tensor: correct the call.
    Usage,
}

/// A rule was broken, a limit was met, or a request could not be met.
///
/// One boxed word. The text of [`Display`](fmt::Display) is one clause that names the subject,
/// what was found and what was needed; [`kind`](Self::kind), [`rule`](Self::rule),
/// [`tensor`](Self::tensor) and [`offset`](Self::offset) are for callers that act on it.
#[derive(Clone, PartialEq, Eq)]
pub struct Error(Box<Detail>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Detail {
    TooShort { file_bytes: u64 },
    HeaderTooLarge { header_bytes: u64, limit: u64 },
    HeaderBeyondFile { header_bytes: u64, file_bytes: u64 },
    StartCut { given: u64 },
    HeaderCut { given: u64, needed: u64 },
    Utf8 { offset: u64 },
    Json { offset: u64, found: Found, needed: &'static str },
    JsonDepth { offset: u64, limit: u32 },
    LoneSurrogate { offset: u64 },
    NumberRange { offset: u64 },
    DuplicateName { name: String, offset: u64 },
    SpecTwice { name: String },
    MetadataType { key: Option<String>, offset: u64, found: Found },
    MetadataTwice { offset: u64 },
    MetadataKeyTwice { key: String, offset: u64 },
    EntryType { name: String, offset: u64, found: Found },
    EntryArray { name: String, offset: u64 },
    FieldUnknown { name: String, field: String, offset: u64 },
    FieldTwice { name: String, field: &'static str, offset: u64 },
    FieldMissing { name: String, field: &'static str, offset: u64 },
    DtypeUnknown { name: String, dtype: String, offset: u64 },
    DtypeType { name: String, offset: u64, found: Found },
    Integer { name: String, field: &'static str, offset: u64, found: Found },
    ShapeType { name: String, offset: u64, found: Found },
    OffsetCount { name: String, count: u64, offset: u64 },
    OffsetsType { name: String, offset: u64, found: Found },
    OffsetOrder { name: String, begin: u64, end: u64 },
    Overflow { name: String, dtype: Dtype, shape: Vec<u64> },
    PartialByte { name: String, dtype: Dtype, shape: Vec<u64>, bits: u64 },
    Size { name: String, dtype: Dtype, shape: Vec<u64>, begin: u64, end: u64, needed: u64 },
    Gap { name: String, begin: u64, end: u64, expected: u64 },
    Overlap { name: String, begin: u64, end: u64, expected: u64, other: Option<String> },
    Truncated { data_bytes: u64, needed: u64, name: Option<String> },
    Trailing { data_bytes: u64, covered: u64 },
    Limit { what: &'static str, value: u64, limit: u64 },
    ReservedName,
    NotFound { name: String },
    Align { align: u64 },
    TooManyIndices { given: usize, dimensions: usize },
    TwoEllipses,
    StepZero,
    IndexOutOfRange { index: i128, dimension: usize, size: u64 },
    StopOutOfRange { stop: u64, dimension: usize, size: u64 },
    ByteBorder { dtype: Dtype, dimension: usize, range: (u64, u64), legal: (u64, u64) },
    Buffer { name: String, given: u64, needed: u64 },
    IndexJson { found: &'static str, needed: &'static str },
    ShardPath { path: String, why: &'static str },
    IndexTensorTwice { name: String },
}

/// What stood where something else was needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    End,
    Byte(char),
    Object,
    Array,
    String,
    Number,
    /// A number, but not an integer from 0 to 2^64 - 1.
    OtherNumber,
    Bool,
    Null,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::End => f.write_str("the end of the header"),
            Self::Byte(c @ ('"' | '\'')) => write!(f, "`{c}`"),
            Self::Byte(c) => write!(f, "`{}`", c.escape_debug()),
            Self::Object => f.write_str("an object"),
            Self::Array => f.write_str("an array"),
            Self::String => f.write_str("a string"),
            Self::Number => f.write_str("a number"),
            Self::OtherNumber => f.write_str("a number of another kind"),
            Self::Bool => f.write_str("a boolean"),
            Self::Null => f.write_str("null"),
        }
    }
}

impl Error {
    #[cold]
    pub(crate) fn new(detail: Detail) -> Self {
        Self(Box::new(detail))
    }

    /// Who is to blame.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match &*self.0 {
            Detail::HeaderTooLarge { .. } | Detail::Limit { .. } => ErrorKind::Limit,
            Detail::NotFound { .. } => ErrorKind::NotFound,
            Detail::Align { .. }
            | Detail::TooManyIndices { .. }
            | Detail::TwoEllipses
            | Detail::StepZero
            | Detail::IndexOutOfRange { .. }
            | Detail::StopOutOfRange { .. }
            | Detail::ByteBorder { .. }
            | Detail::StartCut { .. }
            | Detail::HeaderCut { .. }
            | Detail::Buffer { .. } => ErrorKind::Usage,
            _ => ErrorKind::Format,
        }
    }

    /// The rule of `docs/spec.md` that was broken, if one was.
    #[must_use]
    pub fn rule(&self) -> Option<Rule> {
        Some(match &*self.0 {
            Detail::TooShort { .. } => Rule::LENGTH_FIELD,
            Detail::HeaderTooLarge { .. } => Rule::HEADER_LIMIT,
            Detail::HeaderBeyondFile { .. } => Rule::HEADER_IN_FILE,
            Detail::Utf8 { .. } => Rule::UTF8,
            Detail::Json { .. }
            | Detail::JsonDepth { .. }
            | Detail::LoneSurrogate { .. }
            | Detail::NumberRange { .. } => Rule::JSON,
            Detail::DuplicateName { .. } | Detail::SpecTwice { .. } => Rule::UNIQUE_NAMES,
            Detail::MetadataType { .. } | Detail::MetadataTwice { .. } | Detail::MetadataKeyTwice { .. } => {
                Rule::METADATA
            }
            Detail::EntryType { .. }
            | Detail::EntryArray { .. }
            | Detail::FieldUnknown { .. }
            | Detail::FieldTwice { .. }
            | Detail::FieldMissing { .. } => Rule::ENTRY,
            Detail::DtypeUnknown { .. } | Detail::DtypeType { .. } => Rule::DTYPE,
            Detail::ShapeType { .. } | Detail::Integer { field: "shape", .. } => Rule::SHAPE,
            Detail::OffsetCount { .. }
            | Detail::OffsetsType { .. }
            | Detail::OffsetOrder { .. }
            | Detail::Integer { .. } => Rule::OFFSETS,
            Detail::Overflow { .. } => Rule::OVERFLOW,
            Detail::PartialByte { .. } => Rule::WHOLE_BYTES,
            Detail::Size { .. } => Rule::SIZE,
            Detail::Gap { .. } | Detail::Overlap { .. } => Rule::COVER,
            Detail::Truncated { .. } | Detail::Trailing { .. } => Rule::FILE_END,
            Detail::ReservedName => Rule::RESERVED_NAME,
            Detail::ByteBorder { .. } => Rule::BYTE_BORDER,
            Detail::Align { .. } => Rule::ALIGN,
            Detail::IndexJson { .. } | Detail::IndexTensorTwice { .. } => Rule::INDEX,
            Detail::ShardPath { .. } => Rule::SHARD_PATH,
            Detail::TooManyIndices { .. }
            | Detail::TwoEllipses
            | Detail::StepZero
            | Detail::IndexOutOfRange { .. }
            | Detail::StopOutOfRange { .. } => Rule::INDEXING,
            Detail::Limit { .. }
            | Detail::NotFound { .. }
            | Detail::StartCut { .. }
            | Detail::HeaderCut { .. }
            | Detail::Buffer { .. } => return None,
        })
    }

    /// The tensor that the error is about, as the header spells it.
    #[must_use]
    pub fn tensor(&self) -> Option<&str> {
        match &*self.0 {
            Detail::DuplicateName { name, .. }
            | Detail::SpecTwice { name }
            | Detail::EntryType { name, .. }
            | Detail::EntryArray { name, .. }
            | Detail::FieldUnknown { name, .. }
            | Detail::FieldTwice { name, .. }
            | Detail::FieldMissing { name, .. }
            | Detail::DtypeUnknown { name, .. }
            | Detail::DtypeType { name, .. }
            | Detail::Integer { name, .. }
            | Detail::ShapeType { name, .. }
            | Detail::OffsetCount { name, .. }
            | Detail::OffsetsType { name, .. }
            | Detail::OffsetOrder { name, .. }
            | Detail::Overflow { name, .. }
            | Detail::PartialByte { name, .. }
            | Detail::Size { name, .. }
            | Detail::Gap { name, .. }
            | Detail::Overlap { name, .. }
            | Detail::NotFound { name }
            | Detail::Buffer { name, .. }
            | Detail::IndexTensorTwice { name } => Some(name),
            Detail::Truncated { name, .. } => name.as_deref(),
            _ => None,
        }
    }

    /// Where in the file the flaw stands, in bytes from its start, for flaws of the header's text.
    #[must_use]
    pub fn offset(&self) -> Option<u64> {
        match &*self.0 {
            Detail::Utf8 { offset }
            | Detail::Json { offset, .. }
            | Detail::JsonDepth { offset, .. }
            | Detail::LoneSurrogate { offset }
            | Detail::NumberRange { offset }
            | Detail::DuplicateName { offset, .. }
            | Detail::MetadataType { offset, .. }
            | Detail::MetadataTwice { offset }
            | Detail::MetadataKeyTwice { offset, .. }
            | Detail::EntryType { offset, .. }
            | Detail::EntryArray { offset, .. }
            | Detail::FieldUnknown { offset, .. }
            | Detail::FieldTwice { offset, .. }
            | Detail::FieldMissing { offset, .. }
            | Detail::DtypeUnknown { offset, .. }
            | Detail::DtypeType { offset, .. }
            | Detail::Integer { offset, .. }
            | Detail::ShapeType { offset, .. }
            | Detail::OffsetCount { offset, .. }
            | Detail::OffsetsType { offset, .. } => Some(*offset),
            _ => None,
        }
    }

    /// Whether [`Mode::Lenient`](crate::Mode::Lenient) reads past a flaw of this kind. Others may follow it.
    #[must_use]
    pub fn is_lenient(&self) -> bool {
        match &*self.0 {
            Detail::DuplicateName { .. }
            | Detail::MetadataKeyTwice { .. }
            | Detail::EntryArray { .. }
            | Detail::FieldUnknown { .. }
            | Detail::DtypeType { found: Found::Object, .. }
            | Detail::MetadataType { key: None, found: Found::Null, .. } => true,
            Detail::Overflow { shape, dtype, .. } => {
                let product = shape.iter().try_fold(1u64, |n, d| n.checked_mul(*d));
                product.and_then(|n| n.checked_mul(dtype.bits())).is_some()
            }
            _ => false,
        }
    }

    /// The error for a name that no tensor of a file or set of files has.
    #[must_use]
    pub fn not_found(name: &str) -> Self {
        Self::new(Detail::NotFound { name: name.into() })
    }

    /// The error for a buffer of `given` bytes where the tensor `name` has `needed`.
    #[must_use]
    pub fn buffer_size(name: &str, given: u64, needed: u64) -> Self {
        Self::new(Detail::Buffer { name: name.into(), given, needed })
    }
}

/// A name as it may be shown: control and invisible characters escaped, long names cut.
pub struct Quoted<'a>(pub &'a str);

impl fmt::Debug for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 160;
        let mut rest = self.0.chars();
        for c in rest.by_ref().take(SHOWN) {
            match c {
                '"' | '\'' => fmt::Write::write_char(f, c)?,
                _ => write!(f, "{}", c.escape_debug())?,
            }
        }
        match rest.count() {
            0 => Ok(()),
            more => write!(f, "… ({more} more characters)"),
        }
    }
}

struct Shape<'a>(&'a [u64]);

impl fmt::Display for Shape<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 16;
        f.write_str("[")?;
        for (i, d) in self.0.iter().take(SHOWN).enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            write!(f, "{d}")?;
        }
        if self.0.len() > SHOWN {
            write!(f, ", … {} dimensions", self.0.len())?;
        }
        f.write_str("]")
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.write(f)?;
        match self.rule() {
            // An index out of range is the caller's slip, not a flaw of a file: the rule is no help,
            // and callers of the reference compare these texts.
            None | Some(Rule::INDEXING) => Ok(()),
            Some(rule) => write!(f, " ({rule})"),
        }
    }
}

impl Detail {
    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use Quoted as Q;
        match self {
            Self::TooShort { file_bytes } => {
                write!(f, "header too small: file of {file_bytes} bytes, the header's length alone needs 8")
            }
            Self::HeaderTooLarge { header_bytes, limit } => {
                write!(f, "header too large: header of {header_bytes} bytes, the limit is {limit}")
            }
            Self::HeaderBeyondFile { header_bytes, file_bytes } => write!(
                f,
                "invalid header length: header of {header_bytes} bytes, the file holds {} after the length field",
                file_bytes.saturating_sub(8)
            ),
            Self::StartCut { given } => {
                write!(f, "start of the file: {given} bytes given, its length field alone needs 8")
            }
            Self::HeaderCut { given, needed } => {
                write!(f, "header: {given} bytes given, its length field says {needed}")
            }
            Self::Utf8 { offset } => write!(f, "invalid UTF-8 in header: at byte {offset} of the file"),
            Self::Json { offset, found, needed } => {
                write!(f, "invalid JSON in header: at byte {offset} found {found}, needed {needed}")
            }
            Self::JsonDepth { offset, limit } => {
                write!(f, "invalid JSON in header: at byte {offset} nested deeper than {limit} levels")
            }
            Self::LoneSurrogate { offset } => {
                write!(
                    f,
                    "invalid JSON in header: at byte {offset} a `\\u` escape is half of a surrogate pair"
                )
            }
            Self::NumberRange { offset } => {
                write!(f, "invalid JSON in header: at byte {offset} a number is out of range")
            }
            Self::DuplicateName { name, offset } => {
                write!(f, "tensor `{}`: named again at byte {offset}, a name stands once", Q(name))
            }
            Self::SpecTwice { name } => write!(f, "tensor `{}`: given twice, a name stands once", Q(name)),
            Self::MetadataType { key: None, offset, found } => {
                write!(f, "`__metadata__`: at byte {offset} found {found}, needed an object of strings")
            }
            Self::MetadataType { key: Some(key), offset, found } => {
                write!(
                    f,
                    "`__metadata__`: value of `{}` at byte {offset} is {found}, needed a string",
                    Q(key)
                )
            }
            Self::MetadataTwice { offset } => {
                write!(f, "`__metadata__`: stands again at byte {offset}, it stands once")
            }
            Self::MetadataKeyTwice { key, offset } => {
                write!(f, "`__metadata__`: key `{}` stands again at byte {offset}, a key stands once", Q(key))
            }
            Self::EntryType { name, offset, found } => write!(
                f,
                "tensor `{}`: entry at byte {offset} is {found}, needed an object of `dtype`, `shape` and `data_offsets`",
                Q(name)
            ),
            Self::EntryArray { name, offset } => {
                write!(f, "tensor `{}`: entry at byte {offset} is an array, needed an object", Q(name))
            }
            Self::FieldUnknown { name, field, offset } => write!(
                f,
                "tensor `{}`: unknown field `{}` at byte {offset}, needed `dtype`, `shape` and `data_offsets` alone",
                Q(name),
                Q(field)
            ),
            Self::FieldTwice { name, field, offset } => {
                write!(
                    f,
                    "tensor `{}`: field `{field}` stands again at byte {offset}, it stands once",
                    Q(name)
                )
            }
            Self::FieldMissing { name, field, offset } => {
                write!(f, "tensor `{}`: entry ends at byte {offset} without `{field}`", Q(name))
            }
            Self::DtypeUnknown { name, dtype, offset } => {
                write!(
                    f,
                    "tensor `{}`: dtype `{}` at byte {offset} is unknown, needed one of ",
                    Q(name),
                    Q(dtype)
                )?;
                for (i, known) in Dtype::ALL.iter().enumerate() {
                    write!(f, "{}{known}", if i == 0 { "" } else { ", " })?;
                }
                Ok(())
            }
            Self::DtypeType { name, offset, found } => {
                write!(f, "tensor `{}`: dtype at byte {offset} is {found}, needed a string", Q(name))
            }
            Self::Integer { name, field, offset, found } => write!(
                f,
                "tensor `{}`: at byte {offset} of {field} found {found}, needed an integer from 0 to 2^64 - 1",
                Q(name)
            ),
            Self::ShapeType { name, offset, found } => {
                write!(
                    f,
                    "tensor `{}`: shape at byte {offset} is {found}, needed an array of integers",
                    Q(name)
                )
            }
            Self::OffsetCount { name, count, offset } => {
                write!(
                    f,
                    "tensor `{}`: data_offsets at byte {offset} hold {count} integers, needed 2",
                    Q(name)
                )
            }
            Self::OffsetsType { name, offset, found } => {
                write!(
                    f,
                    "tensor `{}`: data_offsets at byte {offset} are {found}, needed [begin, end]",
                    Q(name)
                )
            }
            Self::OffsetOrder { name, begin, end } => {
                write!(f, "tensor `{}`: data_offsets {begin}..{end} end before they begin", Q(name))
            }
            Self::Overflow { name, dtype, shape } => write!(
                f,
                "tensor `{}`: {dtype} {} overflows 2^64 - 1 bits, counted over its non-zero dimensions",
                Q(name),
                Shape(shape)
            ),
            Self::PartialByte { name, dtype, shape, bits } => {
                write!(f, "tensor `{}`: {dtype} {} is {bits} bits, needed whole bytes", Q(name), Shape(shape))
            }
            Self::Size { name, dtype, shape, begin, end, needed } => write!(
                f,
                "tensor `{}`: data_offsets {begin}..{end} hold {} bytes, {dtype} {} needs {needed}",
                Q(name),
                end.saturating_sub(*begin),
                Shape(shape)
            ),
            Self::Gap { name, begin, end, expected } => write!(
                f,
                "tensor `{}`: data_offsets {begin}..{end} leave a gap of {} bytes, needed to begin at {expected}",
                Q(name),
                begin.saturating_sub(*expected)
            ),
            Self::Overlap { name, begin, end, expected, other } => {
                write!(f, "tensor `{}`: data_offsets {begin}..{end} overlap ", Q(name))?;
                match other {
                    Some(other) => write!(f, "tensor `{}`", Q(other))?,
                    None => f.write_str("another tensor")?,
                }
                write!(f, ", needed to begin at {expected}")
            }
            Self::Truncated { data_bytes, needed, name } => {
                write!(f, "incomplete metadata, file not fully covered: ")?;
                if let Some(name) = name {
                    write!(f, "tensor `{}` is cut off, ", Q(name))?;
                }
                write!(f, "the file holds {data_bytes} bytes of data, the header needs {needed}")
            }
            Self::Trailing { data_bytes, covered } => write!(
                f,
                "incomplete metadata, file not fully covered: {} bytes follow the last tensor, the header covers {covered} of {data_bytes} bytes of data",
                data_bytes.saturating_sub(*covered)
            ),
            Self::Limit { what, value, limit } => {
                write!(f, "header: {what} reach {value}, the limit is {limit}; `Limits` can raise it")
            }
            Self::ReservedName => f.write_str("tensor `__metadata__`: the name is reserved for metadata"),
            Self::NotFound { name } => write!(f, "tensor `{}` not found", Q(name)),
            Self::Align { align } => {
                write!(f, "alignment of {align} bytes, needed a power of two from 8 to 2^20")
            }
            Self::TooManyIndices { given, dimensions } => write!(
                f,
                "more slicing indexes than dimensions in tensor: {given} given, the tensor has {dimensions}"
            ),
            Self::TwoEllipses => f.write_str("only one ellipsis (...) is allowed in an index"),
            Self::StepZero => f.write_str("slice step must be a positive integer"),
            Self::IndexOutOfRange { index, dimension, size } => {
                write!(f, "index {index} out of bounds for tensor dimension #{dimension} of size {size}")
            }
            Self::StopOutOfRange { stop, dimension, size } => write!(
                f,
                "index {} out of bounds for tensor dimension #{dimension} of size {size}",
                stop.saturating_sub(1)
            ),
            Self::ByteBorder { dtype, dimension, range, legal } => write!(
                f,
                "{dtype} cut {}..{} of dimension #{dimension} is not on a byte border, the nearest legal cut is {}..{}",
                range.0, range.1, legal.0, legal.1
            ),
            Self::Buffer { name, given, needed } => {
                write!(f, "tensor `{}`: buffer of {given} bytes, needed {needed}", Q(name))
            }
            Self::IndexJson { found, needed } => write!(f, "index of shards: {found}, needed {needed}"),
            Self::ShardPath { path, why } => {
                write!(f, "index of shards: file name `{}` {why}, needed a plain relative path", Q(path))
            }
            Self::IndexTensorTwice { name } => {
                write!(f, "index of shards: tensor `{}` is named twice", Q(name))
            }
        }
    }
}

impl core::error::Error for Error {}
