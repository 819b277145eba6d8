//! Compressed streams, undone one layer at a time.
//!
//! A stream is decompressed as a whole, within [`Limits`], so that what is inside can be read at any
//! offset. Its own checksums are checked, concatenated streams of one kind are one, and bytes that
//! belong to no stream are an error: nothing hides behind the end.

mod codec;
mod frames;
mod headers;
mod spill;

use std::{fmt, ops::Range, sync::Arc};

use tensafe_io::Source;

use self::{codec::Codec, spill::Spill};
use crate::{Error, Kind, Limits, Window, bytes::read_up_to};

/// Most bytes that are read, and decompressed, at once.
const CHUNK: usize = 256 << 10;
/// Bytes that are read first: a file may hold many streams of a few bytes each.
const FIRST: usize = 4 << 10;

/// Undoes one layer of compression.
///
/// # Errors
/// [`Format`](crate::ErrorKind::Format) where the stream is damaged, ends early, or has other bytes
/// behind it; [`Limit`](crate::ErrorKind::Limit) where it becomes more than [`Limits`] allow, or
/// needs a larger window; [`Unsupported`](crate::ErrorKind::Unsupported) where `kind` is not
/// [compressed](Kind::is_compressed), or the stream needs a dictionary;
/// [`Io`](crate::ErrorKind::Io) where the source cannot be read or a temporary file not written.
///
/// # Cost
/// Decompresses everything, into memory up to [`Limits::memory_bytes`], then into an unnamed
/// temporary file, which lives as long as the source.
pub fn decompress(source: Arc<dyn Source>, kind: Kind, limits: &Limits) -> Result<Arc<dyn Source>, Error> {
    if !kind.is_compressed() {
        return Err(Error::unsupported("compressed stream", 0, format_args!("a file of kind {kind}")));
    }
    let source = &*source;
    let subject = format!("{kind} stream");
    let mut spill = Spill::new(source.len(), limits);
    let (mut at, mut streams) = (0, 0_u64);
    loop {
        streams = streams.saturating_add(1);
        if streams > limits.members {
            let what = format!("streams, one behind the other, of the {subject}");
            return Err(Error::limit(what, at, streams, limits.members, "members"));
        }
        let end = one(source, at, kind, &subject, &mut spill)?;
        if end == source.len() {
            return spill.finish();
        }
        // A stream takes at least its header: this comes to an end.
        if end <= at || !continues(source, end, kind)? {
            let left = source.len().saturating_sub(end);
            let found = format!("{left} bytes behind its end");
            return Err(Error::wrong(subject, end, found, "none"));
        }
        at = end;
    }
}

/// Decompresses the stream that begins at `at`, and says where it ends.
fn one(source: &dyn Source, at: u64, kind: Kind, subject: &str, spill: &mut Spill) -> Result<u64, Error> {
    let (limits, rest) = (spill.limits(), at..source.len());
    match kind {
        Kind::Gzip => headers::gzip(source, at, subject, spill),
        Kind::JoblibZ => headers::joblib(source, at, subject, spill),
        Kind::Lz4 => frames::lz4(source, at, subject, spill),
        Kind::Zstd => frames::zstd(source, at, subject, spill),
        Kind::Zlib => pump(source, rest, &mut codec::Deflate::new(true), subject, spill),
        Kind::Bzip2 => pump(source, rest, &mut codec::Bzip2::new(), subject, spill),
        Kind::Xz => pump(source, rest, &mut codec::Xz::new(&limits), subject, spill),
        _ => pump(source, rest, &mut codec::Lzma::new(&limits), subject, spill),
    }
}

/// Whether another stream of the same kind begins at `at`. Of zlib, LZMA and joblib's there is
/// always one.
fn continues(source: &dyn Source, at: u64, kind: Kind) -> Result<bool, Error> {
    let head = read_up_to(source, at, 6)?;
    Ok(match kind {
        Kind::Gzip => head.starts_with(b"\x1f\x8b"),
        Kind::Bzip2 => head.starts_with(b"BZh"),
        Kind::Xz => head.starts_with(b"\xfd7zXZ\0"),
        Kind::Lz4 | Kind::Zstd => frames::is_start(&head, kind),
        _ => false,
    })
}

/// Inflates a member of a zip archive, which is to become `bytes` bytes.
pub(crate) fn deflated(
    window: &Window,
    bytes: u64,
    subject: impl fmt::Display,
    limits: &Limits,
) -> Result<Arc<dyn Source>, Error> {
    let subject = subject.to_string();
    let (source, range) = (&**window.whole(), window.range());
    let mut spill = Spill::new(window.len(), limits);
    let end = pump(source, range.clone(), &mut codec::Deflate::new(false), &subject, &mut spill)?;
    if end != range.end {
        let found = format!("{} bytes behind the compressed ones", range.end.saturating_sub(end));
        return Err(Error::wrong(subject, end, found, "none"));
    }
    if spill.len() != bytes {
        let found = format!("{} bytes decompressed", spill.len());
        return Err(Error::wrong(subject, range.start, found, bytes));
    }
    spill.finish()
}

/// Feeds a codec the bytes of `range` until its stream ends, and says where.
fn pump(
    source: &dyn Source,
    range: Range<u64>,
    codec: &mut dyn Codec,
    subject: &str,
    spill: &mut Spill,
) -> Result<u64, Error> {
    let mut out = vec![0; CHUNK];
    let (mut at, mut chunk) = (range.start, FIRST);
    loop {
        let left = range.end.saturating_sub(at);
        let input = read_up_to(source, at, usize::try_from(left).unwrap_or(CHUNK).min(chunk))?;
        chunk = chunk.saturating_mul(2).min(CHUNK);
        let last = left <= input.len() as u64;
        let mut rest = &*input;
        loop {
            let step = codec.step(rest, &mut out, last).map_err(|e| codec.error(e, subject, at))?;
            rest = rest.get(step.consumed..).unwrap_or_default();
            at = at.saturating_add(step.consumed as u64);
            spill.write(out.get(..step.produced).unwrap_or_default(), subject, at)?;
            if step.ended {
                return Ok(at.saturating_sub(codec.unused() as u64));
            }
            if step.consumed == 0 && step.produced == 0 {
                if last {
                    let found = rest.len() as u64;
                    return Err(Error::short(subject, at, found, found.saturating_add(1)));
                }
                // A codec that leaves input and makes nothing wants more of it.
                break;
            }
            if rest.is_empty() && !last {
                break;
            }
        }
        if rest.len() == input.len() && !input.is_empty() && !last {
            return Err(Error::stream(subject, at, None));
        }
    }
}
