//! The formats of frames, Zstandard and LZ4, whose decompressors are readers.

use std::io::{self, Read};

use lz4_flex::frame::FrameDecoder as Lz4Decoder;
use ruzstd::decoding::{StreamingDecoder, errors::FrameDecoderError};
use tensafe_io::{Error as IoError, Source};

use super::{CHUNK, FIRST, spill::Spill};
use crate::{
    Error, Kind,
    bytes::{read_up_to, u32_at},
};

const LZ4: u32 = 0x184d_2204;
const ZSTD: u32 = 0xfd2f_b528;
/// Frames of either format that hold nothing: the last four bits are the writer's.
const SKIPPABLE: u32 = 0x184d_2a50;

/// Whether a frame begins here, also one to be skipped.
pub(super) fn is_start(head: &[u8], kind: Kind) -> bool {
    let magic = if kind == Kind::Lz4 { LZ4 } else { ZSTD };
    u32_at(head, 0).is_some_and(|found| found == magic || found & 0xffff_fff0 == SKIPPABLE)
}

/// The end of the frame at `at`, if it is one to be skipped.
fn skip(source: &dyn Source, at: u64, subject: &str) -> Result<Option<u64>, Error> {
    let head = read_up_to(source, at, 8)?;
    if u32_at(&head, 0).is_none_or(|magic| magic & 0xffff_fff0 != SKIPPABLE) {
        return Ok(None);
    }
    let len = u32_at(&head, 4).map_or(u64::MAX, u64::from);
    let end = at.saturating_add(8).saturating_add(len);
    if end > source.len() {
        let found = source.len().saturating_sub(at);
        return Err(Error::short(
            format_args!("skippable frame of the {subject}"),
            at,
            found,
            len.saturating_add(8),
        ));
    }
    Ok(Some(end))
}

/// One Zstandard frame.
pub(super) fn zstd(source: &dyn Source, at: u64, subject: &str, spill: &mut Spill) -> Result<u64, Error> {
    if let Some(end) = skip(source, at, subject)? {
        return Ok(end);
    }
    let limit = spill.limits().window_bytes;
    let reader = Range::new(source, at, source.len());
    let mut decoder = match StreamingDecoder::new_with_max_window_size(reader, limit) {
        Ok(decoder) => decoder,
        Err(FrameDecoderError::WindowSizeTooBig { requested, .. }) => {
            let what = format!("bytes of window of the {subject}");
            return Err(Error::limit(what, at, requested, limit, "window_bytes"));
        }
        Err(FrameDecoderError::DictNotProvided { dict_id }) => {
            return Err(Error::unsupported(
                subject,
                at,
                format_args!("a frame that needs dictionary {dict_id}"),
            ));
        }
        Err(error) => return Err(Error::stream(subject, at, Some(io::Error::other(error)))),
    };
    let before = spill.len();
    drain(&mut decoder, |decoder| decoder.get_mut(), subject, spill)?;
    let (reader, frame) = decoder.into_parts();
    let end = reader.at;
    if let (Some(found), Some(needed)) = (frame.get_calculated_checksum(), frame.get_checksum_from_data())
        && found != needed
    {
        let (found, needed) = (format!("checksum 0x{found:08x}"), format!("0x{needed:08x}"));
        return Err(Error::wrong(subject, end, found, needed));
    }
    let (found, needed) = (spill.len().saturating_sub(before), frame.content_size());
    // Zero is also how the decoder says that the frame does not tell.
    if needed != 0 && found != needed {
        return Err(Error::wrong(subject, at, format_args!("{found} bytes decompressed"), needed));
    }
    Ok(end)
}

/// One LZ4 frame.
pub(super) fn lz4(source: &dyn Source, at: u64, subject: &str, spill: &mut Spill) -> Result<u64, Error> {
    if let Some(end) = skip(source, at, subject)? {
        return Ok(end);
    }
    // The decoder takes the end of its input for the end of the frame: where that is has to be
    // known before.
    let end = lz4_end(source, at, subject)?;
    let mut decoder = Lz4Decoder::new(Range::new(source, at, end));
    drain(&mut decoder, |decoder| decoder.get_mut(), subject, spill)?;
    if decoder.get_ref().at != end {
        return Err(Error::stream(subject, decoder.get_ref().at, None));
    }
    Ok(end)
}

/// Follows the lengths of a frame's blocks to its end.
fn lz4_end(source: &dyn Source, at: u64, subject: &str) -> Result<u64, Error> {
    const BLOCK_CHECKSUM: u8 = 1 << 4;
    const CONTENT_SIZE: u8 = 1 << 3;
    const CONTENT_CHECKSUM: u8 = 1 << 2;
    const DICTIONARY: u8 = 1;
    // Blocks may be of a few bytes: their lengths are not read one by one.
    let (mut start, mut bytes) = (0, Vec::new());
    let mut word = |at: u64| {
        let skip = |start: u64| at.checked_sub(start).and_then(|skip| usize::try_from(skip).ok());
        if let Some(word) = skip(start).and_then(|skip| u32_at(&bytes, skip)) {
            return Ok(word);
        }
        (start, bytes) = (at, read_up_to(source, at.min(source.len()), FIRST)?);
        u32_at(&bytes, 0).ok_or_else(|| Error::short(subject, at, bytes.len() as u64, 4))
    };
    // The magic number, two bytes of flags, and the header's check.
    let flags = word(at.saturating_add(4))?.to_le_bytes().first().copied().unwrap_or(0);
    if flags & DICTIONARY != 0 {
        return Err(Error::unsupported(subject, at, "a frame that needs a dictionary"));
    }
    let size = if flags & CONTENT_SIZE == 0 { 0 } else { 8 };
    let (block_sum, sum) = (u64::from(flags & BLOCK_CHECKSUM) / 4, u64::from(flags & CONTENT_CHECKSUM));
    let mut place = at.saturating_add(7).saturating_add(size);
    loop {
        let block = word(place)?;
        place = place.saturating_add(4);
        if block == 0 {
            break;
        }
        // The highest bit says that the block is not compressed.
        place = place.saturating_add(u64::from(block & 0x7fff_ffff)).saturating_add(block_sum);
    }
    let end = place.saturating_add(sum);
    let left = source.len().saturating_sub(place);
    if left < sum { Err(Error::short(subject, place, left, sum)) } else { Ok(end) }
}

/// Reads a decoder to its end. `input` is where it reads from.
fn drain<'a, D: Read>(
    decoder: &mut D,
    input: impl Fn(&mut D) -> &mut Range<'a>,
    subject: &str,
    spill: &mut Spill,
) -> Result<(), Error> {
    let mut out = vec![0; CHUNK];
    loop {
        let count = match decoder.read(&mut out) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(error) => {
                let input = input(decoder);
                return Err(match input.failed.take() {
                    Some(failed) => Error::source("read the container", failed),
                    None => Error::stream(subject, input.at, Some(error)),
                });
            }
        };
        let at = input(decoder).at;
        spill.write(out.get(..count).unwrap_or_default(), subject, at)?;
    }
}

/// A part of a source as a reader that knows where it is.
struct Range<'a> {
    source: &'a dyn Source,
    at: u64,
    end: u64,
    buffer: Vec<u8>,
    /// Where in the source the buffer begins.
    buffered: u64,
    failed: Option<IoError>,
}

impl<'a> Range<'a> {
    fn new(source: &'a dyn Source, at: u64, end: u64) -> Self {
        Self { source, at, end, buffer: Vec::new(), buffered: at, failed: None }
    }
}

impl Read for Range<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let left = self.end.saturating_sub(self.at);
        let skip = usize::try_from(self.at.saturating_sub(self.buffered)).unwrap_or(usize::MAX);
        if skip >= self.buffer.len() && left > 0 {
            let most = self.buffer.len().saturating_mul(2).clamp(FIRST, CHUNK);
            let len = usize::try_from(left).unwrap_or(usize::MAX).min(most);
            self.buffer.resize(len, 0);
            self.buffered = self.at;
            if let Err(error) = self.source.read_at(self.at, &mut self.buffer) {
                self.failed = Some(error);
                return Err(io::Error::other("the source failed"));
            }
        }
        let skip = usize::try_from(self.at.saturating_sub(self.buffered)).unwrap_or(usize::MAX);
        let ready = self.buffer.get(skip..).unwrap_or_default();
        let count = ready.len().min(out.len());
        if let (Some(out), Some(ready)) = (out.get_mut(..count), ready.get(..count)) {
            out.copy_from_slice(ready);
        }
        self.at = self.at.saturating_add(count as u64);
        Ok(count)
    }
}
