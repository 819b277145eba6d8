//! The decompressors that are fed slices, behind one face.

use std::io;

use bzip2::Decompress as Bunzip;
use flate2::{Decompress as Inflate, FlushDecompress, Status as InflateStatus};
use lzma_rust2::{Action, LzmaStream, Status as LzmaStatus, StreamResult, XzStream};

use crate::{Error, Limits};

/// What one call did.
#[derive(Debug, Default)]
pub(super) struct Step {
    pub(super) consumed: usize,
    pub(super) produced: usize,
    pub(super) ended: bool,
}

/// A decompressor of one stream.
pub(super) trait Codec {
    /// Takes from `input`, writes to `out`; `last` says that no more input comes.
    fn step(&mut self, input: &[u8], out: &mut [u8], last: bool) -> io::Result<Step>;

    /// Bytes that were taken and belong to what follows the stream, once that has ended.
    fn unused(&self) -> usize {
        0
    }

    /// What a failure at byte `at` of the source means.
    fn error(&self, error: io::Error, subject: &str, at: u64) -> Error {
        Error::stream(subject, at, Some(error))
    }
}

/// How far a counter of a decompressor went.
fn advance(before: u64, after: u64) -> usize {
    usize::try_from(after.saturating_sub(before)).unwrap_or(usize::MAX)
}

/// Deflate, bare or as zlib wraps it.
pub(super) struct Deflate(Inflate);

impl Deflate {
    pub(super) fn new(zlib: bool) -> Self {
        Self(Inflate::new(zlib))
    }
}

impl Codec for Deflate {
    fn step(&mut self, input: &[u8], out: &mut [u8], _last: bool) -> io::Result<Step> {
        let before = (self.0.total_in(), self.0.total_out());
        let status = self.0.decompress(input, out, FlushDecompress::None).map_err(io::Error::from)?;
        Ok(Step {
            consumed: advance(before.0, self.0.total_in()),
            produced: advance(before.1, self.0.total_out()),
            ended: status == InflateStatus::StreamEnd,
        })
    }
}

/// One bzip2 stream.
pub(super) struct Bzip2(Bunzip);

impl Bzip2 {
    pub(super) fn new() -> Self {
        Self(Bunzip::new(false))
    }
}

impl Codec for Bzip2 {
    fn step(&mut self, input: &[u8], out: &mut [u8], _last: bool) -> io::Result<Step> {
        let before = (self.0.total_in(), self.0.total_out());
        let status = self.0.decompress(input, out).map_err(io::Error::from)?;
        Ok(Step {
            consumed: advance(before.0, self.0.total_in()),
            produced: advance(before.1, self.0.total_out()),
            ended: matches!(status, bzip2::Status::StreamEnd),
        })
    }
}

/// The window bound as lzma-rust2 counts.
fn kibibytes(limits: &Limits) -> u32 {
    // The largest number would mean no limit.
    u32::try_from(limits.window_bytes / 1024).unwrap_or(u32::MAX).min(u32::MAX.saturating_sub(1))
}

/// The error of a window beyond the limit, or of damage.
fn window_error(error: io::Error, needed: Option<u32>, limit: u32, subject: &str, at: u64) -> Error {
    match (error.kind(), needed) {
        (io::ErrorKind::OutOfMemory, Some(needed)) => {
            let in_bytes = |kibibytes: u32| u64::from(kibibytes).saturating_mul(1024);
            let what = format!("bytes of window of the {subject}");
            Error::limit(what, at, in_bytes(needed), in_bytes(limit), "window_bytes")
        }
        _ => Error::stream(subject, at, Some(error)),
    }
}

fn lzma_step(result: StreamResult) -> Step {
    Step {
        consumed: result.bytes_consumed,
        produced: result.bytes_produced,
        ended: matches!(result.status, LzmaStatus::StreamEnd),
    }
}

/// One XZ stream.
pub(super) struct Xz(XzStream);

impl Xz {
    pub(super) fn new(limits: &Limits) -> Self {
        Self(XzStream::new_mem_limit(false, kibibytes(limits)))
    }
}

impl Codec for Xz {
    fn step(&mut self, input: &[u8], out: &mut [u8], last: bool) -> io::Result<Step> {
        self.0.process(input, out, if last { Action::Finish } else { Action::Run }).map(lzma_step)
    }

    fn error(&self, error: io::Error, subject: &str, at: u64) -> Error {
        window_error(error, self.0.memory_usage(), self.0.mem_limit(), subject, at)
    }
}

/// One stream of the older LZMA format.
pub(super) struct Lzma(LzmaStream);

impl Lzma {
    pub(super) fn new(limits: &Limits) -> Self {
        Self(LzmaStream::new_mem_limit(kibibytes(limits), None))
    }
}

impl Codec for Lzma {
    fn step(&mut self, input: &[u8], out: &mut [u8], last: bool) -> io::Result<Step> {
        self.0.process(input, out, if last { Action::Finish } else { Action::Run }).map(lzma_step)
    }

    fn unused(&self) -> usize {
        self.0.unused_input().len()
    }

    fn error(&self, error: io::Error, subject: &str, at: u64) -> Error {
        window_error(error, self.0.memory_usage(), self.0.mem_limit(), subject, at)
    }
}
