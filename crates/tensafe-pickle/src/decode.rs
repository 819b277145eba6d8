//! From bytes to instructions: opcodes and their arguments, and nothing of what they do.

#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use std::{borrow::Cow, marker::PhantomData, ops::Range};

use crate::{
    Form, Opcode, Stream,
    error::{Detail, Error},
};

/// The longest line that is searched for its end. Python 2 wrote arrays as lines of text.
const LINE_BYTES: usize = 1 << 31;

/// One instruction. Its argument borrows from the pickle where it can.
#[derive(Clone, Debug, PartialEq)]
pub struct Instruction<'a> {
    /// The byte of the opcode, counted from the start of the stream.
    pub offset: u64,
    /// The opcode.
    pub opcode: Opcode,
    /// What follows it.
    pub argument: Argument<'a>,
}

/// The argument of an instruction, by the form of its opcode.
#[derive(Clone, Debug, PartialEq)]
pub enum Argument<'a> {
    /// None.
    None,
    /// An unsigned integer.
    Unsigned(u64),
    /// A signed integer.
    Signed(i32),
    /// A float.
    Float(f64),
    /// Bytes: a line without its end, or as many as were announced.
    Bytes(Cow<'a, [u8]>),
    /// Bytes that were left where they are: a range of the stream.
    Far(Range<u64>),
    /// Two lines without their ends.
    TwoLines(Cow<'a, [u8]>, Cow<'a, [u8]>),
}

/// Walks over the instructions of a pickle, up to and with its STOP.
#[derive(Clone, Debug)]
pub struct Decoder<'a, S = &'a [u8]> {
    stream: S,
    at: u64,
    stopped: bool,
    frame_end: Option<u64>,
    borrows: PhantomData<&'a ()>,
}

impl<'a, S: Stream<'a>> Decoder<'a, S> {
    /// Begins at the first byte of `stream`, which may hold more than the pickle.
    #[must_use]
    pub fn new(stream: S) -> Self {
        Self::starting_at(stream, 0)
    }

    /// Begins at byte `at` of `stream`.
    #[must_use]
    pub fn starting_at(stream: S, at: u64) -> Self {
        Self { stream, at, stopped: false, frame_end: None, borrows: PhantomData }
    }

    /// The byte after the last instruction.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.at
    }

    pub(crate) fn stream(&mut self) -> &mut S {
        &mut self.stream
    }

    /// Another pickle begins at byte `at`, or this one goes on there.
    pub(crate) fn jump(&mut self, at: u64) {
        self.at = at;
        self.stopped = false;
    }

    /// Leaves the frame that is open, and returns it for later.
    pub(crate) fn swap_frame(&mut self, frame: Option<u64>) -> Option<u64> {
        std::mem::replace(&mut self.frame_end, frame)
    }

    /// The next instruction, or `None` after STOP.
    ///
    /// # Errors
    /// [`Format`](crate::ErrorKind::Format) where the bytes end, are no opcode, announce more than is
    /// there, or where an instruction does not keep to its frame; [`Io`](crate::ErrorKind::Io) where
    /// they cannot be read. Nothing is skipped: the next call fails alike.
    ///
    /// # Cost
    /// No allocation where the stream is a slice. A line is searched for its end, everything else is
    /// of constant cost.
    pub fn next_instruction(&mut self) -> Result<Option<Instruction<'a>>, Error> {
        if self.stopped {
            return Ok(None);
        }
        let offset = self.at;
        let byte = match self.stream.peek(offset, 1) {
            Ok(bytes) => bytes.first().copied(),
            Err(error) => return Err(Error::new(offset, None, Detail::read(&error))),
        };
        let Some(byte) = byte else {
            return Err(Error::new(offset, None, Detail::End { needed: "an instruction" }));
        };
        let Some(opcode) = Opcode::from_byte(byte) else {
            return Err(Error::new(offset, None, Detail::UnknownOpcode { byte }));
        };
        let failed = |detail| Error::new(offset, Some(opcode), detail);
        let (argument, end) = self.argument(opcode, offset.saturating_add(1)).map_err(failed)?;
        let left = self.stream.len().saturating_sub(end);
        self.frame(opcode, &argument, end, left).map_err(failed)?;
        self.at = end;
        self.stopped = opcode == Opcode::Stop;
        Ok(Some(Instruction { offset, opcode, argument }))
    }

    /// A frame announces bytes that hold whole instructions, and no other frame.
    fn frame(&mut self, opcode: Opcode, argument: &Argument<'a>, end: u64, left: u64) -> Result<(), Detail> {
        if let Some(frame_end) = self.frame_end {
            if end > frame_end {
                return Err(Detail::FrameCrossed { end: frame_end });
            }
            if opcode == Opcode::Stop && end < frame_end {
                return Err(Detail::FrameCrossed { end: frame_end });
            }
            if opcode == Opcode::Frame {
                return Err(Detail::FrameNested);
            }
            if end == frame_end {
                self.frame_end = None;
            }
        }
        if let (Opcode::Frame, Argument::Unsigned(bytes)) = (opcode, argument) {
            if *bytes > left {
                return Err(Detail::FrameBeyond { bytes: *bytes, left });
            }
            self.frame_end = Some(end.saturating_add(*bytes)).filter(|_| *bytes > 0);
        }
        Ok(())
    }

    /// The argument that begins at `at`, and the byte after it.
    fn argument(&mut self, opcode: Opcode, at: u64) -> Result<(Argument<'a>, u64), Detail> {
        // Text has to be decoded: it cannot stay where it is.
        let near = match opcode {
            Opcode::BinUnicode | Opcode::BinUnicode8 | Opcode::ShortBinUnicode => LINE_BYTES as u64,
            _ => self.stream.near_bytes(),
        };
        Ok(match opcode.form() {
            Form::None => (Argument::None, at),
            Form::Unsigned(bytes) => {
                let (value, end) = self.unsigned(bytes, at)?;
                (Argument::Unsigned(value), end)
            }
            Form::Signed => {
                let (value, end) = self.signed(at)?;
                (Argument::Signed(value), end)
            }
            Form::Float => {
                let bytes = self.array::<8>(at, "8 bytes of a float")?;
                (Argument::Float(f64::from_be_bytes(bytes)), at.saturating_add(8))
            }
            Form::Line => {
                let (text, end) = self.line(at)?;
                (Argument::Bytes(text), end)
            }
            Form::TwoLines => {
                let (first, end) = self.line(at)?;
                let (second, end) = self.line(end)?;
                (Argument::TwoLines(first, second), end)
            }
            Form::Counted(bytes) => {
                let (length, start) = self.unsigned(bytes, at)?;
                self.counted(length, start, near)?
            }
            Form::SignedCounted => {
                let (length, start) = self.signed(at)?;
                let length =
                    u64::try_from(length).map_err(|_| Detail::Length { length: i64::from(length) })?;
                self.counted(length, start, near)?
            }
        })
    }

    fn array<const N: usize>(&mut self, at: u64, needed: &'static str) -> Result<[u8; N], Detail> {
        let bytes = self.stream.peek(at, N).map_err(|error| Detail::read(&error))?;
        bytes.first_chunk().copied().ok_or(Detail::End { needed })
    }

    fn unsigned(&mut self, bytes: u8, at: u64) -> Result<(u64, u64), Detail> {
        let digits = self.stream.peek(at, usize::from(bytes)).map_err(|error| Detail::read(&error))?;
        if digits.len() < usize::from(bytes) {
            return Err(Detail::End { needed: "an integer" });
        }
        let value = digits.iter().rev().fold(0u64, |value, digit| (value << 8) | u64::from(*digit));
        Ok((value, at.saturating_add(u64::from(bytes))))
    }

    fn signed(&mut self, at: u64) -> Result<(i32, u64), Detail> {
        Ok((i32::from_le_bytes(self.array(at, "an integer")?), at.saturating_add(4)))
    }

    fn counted(&mut self, length: u64, at: u64, near: u64) -> Result<(Argument<'a>, u64), Detail> {
        let left = self.stream.len().saturating_sub(at);
        if length > left {
            return Err(Detail::Bytes { length, left });
        }
        let end = at.saturating_add(length);
        if length > near {
            return Ok((Argument::Far(at..end), end));
        }
        Ok((Argument::Bytes(self.take(at, length)?), end))
    }

    fn take(&mut self, at: u64, length: u64) -> Result<Cow<'a, [u8]>, Detail> {
        let left = self.stream.len().saturating_sub(at);
        let length = usize::try_from(length).map_err(|_| Detail::Bytes { length, left })?;
        self.stream.take(at, length).map_err(|error| Detail::read(&error))
    }

    fn line(&mut self, at: u64) -> Result<(Cow<'a, [u8]>, u64), Detail> {
        let mut most = 256usize;
        let length = loop {
            let bytes = self.stream.peek(at, most).map_err(|error| Detail::read(&error))?;
            if let Some(length) = bytes.iter().position(|byte| *byte == b'\n') {
                break length as u64;
            }
            if bytes.len() < most || most > LINE_BYTES {
                return Err(Detail::End { needed: "the end of a line" });
            }
            most = most.saturating_mul(8);
        };
        let text = self.take(at, length)?;
        Ok((text, at.saturating_add(length).saturating_add(1)))
    }
}
