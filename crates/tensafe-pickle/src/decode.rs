//! From bytes to instructions: opcodes and their arguments, and nothing of what they do.

#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use crate::{
    Form, Opcode,
    error::{Detail, Error},
};

/// One instruction. Its argument borrows from the pickle.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Instruction<'a> {
    /// The byte of the opcode, counted from the start of the pickle.
    pub offset: usize,
    /// The opcode.
    pub opcode: Opcode,
    /// What follows it.
    pub argument: Argument<'a>,
}

/// The argument of an instruction, by the form of its opcode.
#[derive(Clone, Copy, Debug, PartialEq)]
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
    Bytes(&'a [u8]),
    /// Two lines without their ends.
    TwoLines(&'a [u8], &'a [u8]),
}

/// Walks over the instructions of a pickle, up to and with its STOP.
#[derive(Clone, Debug)]
pub struct Decoder<'a> {
    bytes: &'a [u8],
    at: usize,
    stopped: bool,
    frame_end: Option<usize>,
}

impl<'a> Decoder<'a> {
    /// Begins at the first of `bytes`, which may hold more than the pickle.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, stopped: false, frame_end: None }
    }

    /// The byte after the last instruction.
    #[must_use]
    pub fn offset(&self) -> usize {
        self.at
    }

    /// The next instruction, or `None` after STOP.
    ///
    /// # Errors
    /// [`Format`](crate::ErrorKind::Format) where the bytes end, are no opcode, announce more than is
    /// there, or where an instruction does not keep to its frame. Nothing is skipped: the next call
    /// fails alike.
    ///
    /// # Cost
    /// No allocation. A line is searched for its end, everything else is of constant cost.
    pub fn next_instruction(&mut self) -> Result<Option<Instruction<'a>>, Error> {
        if self.stopped {
            return Ok(None);
        }
        let offset = self.at;
        let rest = self.bytes.get(offset..).unwrap_or_default();
        let Some((byte, rest)) = rest.split_first() else {
            return Err(Error::new(offset, None, Detail::End { needed: "an instruction" }));
        };
        let Some(opcode) = Opcode::from_byte(*byte) else {
            return Err(Error::new(offset, None, Detail::UnknownOpcode { byte: *byte }));
        };
        let failed = |detail| Error::new(offset, Some(opcode), detail);
        let (argument, rest) = argument(opcode.form(), rest).map_err(failed)?;
        let end = self.bytes.len().saturating_sub(rest.len());
        self.frame(opcode, argument, end, rest.len()).map_err(failed)?;
        self.at = end;
        self.stopped = opcode == Opcode::Stop;
        Ok(Some(Instruction { offset, opcode, argument }))
    }

    /// A frame announces bytes that hold whole instructions, and no other frame.
    fn frame(
        &mut self,
        opcode: Opcode,
        argument: Argument<'a>,
        end: usize,
        left: usize,
    ) -> Result<(), Detail> {
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
            let length = usize::try_from(bytes).ok().filter(|length| *length <= left);
            let Some(length) = length else { return Err(Detail::FrameBeyond { bytes, left }) };
            self.frame_end = Some(end.saturating_add(length)).filter(|_| length > 0);
        }
        Ok(())
    }
}

fn argument(form: Form, rest: &[u8]) -> Result<(Argument<'_>, &[u8]), Detail> {
    Ok(match form {
        Form::None => (Argument::None, rest),
        Form::Unsigned(bytes) => {
            let (value, rest) = unsigned(bytes, rest)?;
            (Argument::Unsigned(value), rest)
        }
        Form::Signed => {
            let (value, rest) = signed(rest)?;
            (Argument::Signed(value), rest)
        }
        Form::Float => {
            let (bytes, rest) =
                rest.split_first_chunk().ok_or(Detail::End { needed: "8 bytes of a float" })?;
            (Argument::Float(f64::from_be_bytes(*bytes)), rest)
        }
        Form::Line => {
            let (text, rest) = line(rest)?;
            (Argument::Bytes(text), rest)
        }
        Form::TwoLines => {
            let (first, rest) = line(rest)?;
            let (second, rest) = line(rest)?;
            (Argument::TwoLines(first, second), rest)
        }
        Form::Counted(bytes) => {
            let (length, rest) = unsigned(bytes, rest)?;
            counted(length, rest)?
        }
        Form::SignedCounted => {
            let (length, rest) = signed(rest)?;
            let length = u64::try_from(length).map_err(|_| Detail::Length { length: i64::from(length) })?;
            counted(length, rest)?
        }
    })
}

fn unsigned(bytes: u8, rest: &[u8]) -> Result<(u64, &[u8]), Detail> {
    let (digits, rest) =
        rest.split_at_checked(usize::from(bytes)).ok_or(Detail::End { needed: "an integer" })?;
    let value = digits.iter().rev().fold(0u64, |value, digit| (value << 8) | u64::from(*digit));
    Ok((value, rest))
}

fn signed(rest: &[u8]) -> Result<(i32, &[u8]), Detail> {
    let (bytes, rest) = rest.split_first_chunk().ok_or(Detail::End { needed: "an integer" })?;
    Ok((i32::from_le_bytes(*bytes), rest))
}

fn counted(length: u64, rest: &[u8]) -> Result<(Argument<'_>, &[u8]), Detail> {
    let there = usize::try_from(length).ok().and_then(|length| rest.split_at_checked(length));
    let (bytes, rest) = there.ok_or(Detail::Bytes { length, left: rest.len() })?;
    Ok((Argument::Bytes(bytes), rest))
}

fn line(rest: &[u8]) -> Result<(&[u8], &[u8]), Detail> {
    let end =
        rest.iter().position(|byte| *byte == b'\n').ok_or(Detail::End { needed: "the end of a line" })?;
    let (text, rest) = rest.split_at_checked(end).ok_or(Detail::End { needed: "the end of a line" })?;
    Ok((text, rest.split_first().map_or(rest, |(_, rest)| rest)))
}
