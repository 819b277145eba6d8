//! Why a pickle could not be followed further.

use std::fmt;

use crate::Opcode;

/// Who is to blame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The bytes are no pickle, or not from here on.
    Format,
    /// The pickle asks for more than [`Limits`](crate::Limits) allow.
    Limit,
    /// The pickle uses what this machine refuses on purpose.
    Unsupported,
    /// The bytes could not be read.
    Io,
}

/// Why a pickle could not be followed further, and at which byte of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    offset: u64,
    opcode: Option<Opcode>,
    detail: Detail,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Detail {
    End { needed: &'static str },
    UnknownOpcode { byte: u8 },
    Length { length: i64 },
    Bytes { length: u64, left: u64 },
    Number { needed: &'static str },
    Text,
    Protocol { protocol: u64 },
    StackEmpty,
    NoMark,
    OddItems,
    MemoMissing { index: u64 },
    Kind { found: &'static str, needed: &'static str },
    FrameNested,
    FrameBeyond { bytes: u64, left: u64 },
    FrameCrossed { end: u64 },
    Refused { why: &'static str },
    Limit { what: &'static str, limit: u64 },
    Read { why: String },
    Array { needed: &'static str },
    Legacy { needed: &'static str },
}

impl Detail {
    #[cold]
    pub(crate) fn read(error: &std::io::Error) -> Self {
        Self::Read { why: error.to_string() }
    }
}

impl Error {
    #[cold]
    pub(crate) fn new(offset: u64, opcode: Option<Opcode>, detail: Detail) -> Self {
        Self { offset, opcode, detail }
    }

    /// Who is to blame.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self.detail {
            Detail::Limit { .. } => ErrorKind::Limit,
            Detail::Refused { .. } => ErrorKind::Unsupported,
            Detail::Read { .. } => ErrorKind::Io,
            _ => ErrorKind::Format,
        }
    }

    /// The first byte of the instruction that failed.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The opcode of that instruction, if it is one.
    #[must_use]
    pub fn opcode(&self) -> Option<Opcode> {
        self.opcode
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.opcode {
            Some(opcode) => write!(f, "{opcode} at byte {}: ", self.offset)?,
            None => write!(f, "at byte {}: ", self.offset)?,
        }
        match &self.detail {
            Detail::End { needed } => write!(f, "the pickle ends, needed {needed}"),
            Detail::UnknownOpcode { byte } => write!(f, "0x{byte:02x} is no opcode"),
            Detail::Length { length } => write!(f, "a length of {length} bytes"),
            Detail::Bytes { length, left } => write!(f, "{length} bytes announced, {left} are left"),
            Detail::Number { needed } => write!(f, "the text is no number, needed {needed}"),
            Detail::Text => f.write_str("the text is not what its encoding allows"),
            Detail::Protocol { protocol } => write!(f, "protocol {protocol}, known are 0 to 5"),
            Detail::StackEmpty => f.write_str("the stack is empty above the last mark"),
            Detail::NoMark => f.write_str("there is no mark on the stack"),
            Detail::OddItems => f.write_str("an odd number of keys and values"),
            Detail::MemoMissing { index } => write!(f, "nothing was stored as number {index}"),
            Detail::Kind { found, needed } => write!(f, "found {found}, needed {needed}"),
            Detail::FrameNested => f.write_str("a frame begins within another"),
            Detail::FrameBeyond { bytes, left } => write!(f, "a frame of {bytes} bytes, {left} are left"),
            Detail::FrameCrossed { end } => {
                write!(f, "the instruction crosses the frame's end at byte {end}")
            }
            Detail::Refused { why } => f.write_str(why),
            Detail::Read { why } => write!(f, "cannot be read: {why}"),
            Detail::Legacy { needed } => write!(f, "not torch's file: needed {needed}"),
            Detail::Array { needed } => write!(f, "the record of an array tells no {needed}"),
            Detail::Limit { what, limit } => write!(f, "more than {limit} {what}; `Limits` can raise it"),
        }
    }
}

impl std::error::Error for Error {}
