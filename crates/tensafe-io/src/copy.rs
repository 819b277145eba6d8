//! Moving bytes from a source to a sink, by the kernel where it can.

use crate::{Error, Sink, Source};

/// The memory of a copy that passes through this process, in bytes.
pub const COPY_BYTES: usize = 1 << 20;

/// Copies `bytes` bytes of `source` from `from` on to `at` of `sink`.
///
/// # Errors
/// [`Io`](crate::ErrorKind::Io) where the source ends early or one of them refuses, and
/// [`Usage`](crate::ErrorKind::Usage) beyond the sink's length.
///
/// # Cost
/// `copy_file_range` where both are files of Linux: no memory, and on a file system that can share
/// blocks no data. Else at most [`COPY_BYTES`] of memory. Blocks.
pub fn copy_range(source: &dyn Source, from: u64, sink: &dyn Sink, at: u64, bytes: u64) -> Result<(), Error> {
    let mut done = move_by_kernel(source, from, sink, at, bytes);
    if done == bytes {
        return Ok(());
    }
    let left = bytes.saturating_sub(done);
    let mut memory = vec![0; usize::try_from(left).unwrap_or(COPY_BYTES).min(COPY_BYTES)];
    while done < bytes {
        let step = bytes.saturating_sub(done).min(memory.len() as u64);
        let part = memory.get_mut(..usize::try_from(step).unwrap_or(COPY_BYTES)).unwrap_or_default();
        source.read_at(from.saturating_add(done), part)?;
        sink.write_at(at.saturating_add(done), part)?;
        done = done.saturating_add(step);
    }
    Ok(())
}

/// How many of the bytes the kernel moved. Where it cannot, or refuses on the way, the rest is
/// copied by hand, which meets the same refusal and has the words for it.
#[cfg(target_os = "linux")]
fn move_by_kernel(source: &dyn Source, from: u64, sink: &dyn Sink, at: u64, bytes: u64) -> u64 {
    /// One request: long enough to cost nothing, short enough to be interrupted between two.
    const REQUEST_BYTES: u64 = 64 << 20;
    /// Below, the two system calls of a copy by hand cost no more.
    const WORTH_IT: u64 = 16 << 10;
    if bytes < WORTH_IT {
        return 0;
    }
    let (Some((input, base)), Some(output)) = (source.as_file(), sink.as_file()) else { return 0 };
    // A source may end before its file does, and a sink's file is as long as somebody writes.
    let fits = |start: u64, len: u64| start.checked_add(bytes).is_some_and(|end| end <= len);
    if !fits(from, source.len()) || sink.write_at(at.saturating_add(bytes), &[]).is_err() {
        return 0;
    }
    let mut done = 0;
    while done < bytes {
        let Some(mut input_at) = base.checked_add(from).and_then(|start| start.checked_add(done)) else {
            break;
        };
        let Some(mut output_at) = at.checked_add(done) else { break };
        let step = usize::try_from(bytes.saturating_sub(done).min(REQUEST_BYTES)).unwrap_or(1 << 20);
        match rustix::fs::copy_file_range(input, Some(&mut input_at), output, Some(&mut output_at), step) {
            Ok(0) => break,
            Ok(moved) => done = done.saturating_add(moved as u64),
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => break,
        }
    }
    done
}

#[cfg(not(target_os = "linux"))]
fn move_by_kernel(_: &dyn Source, _: u64, _: &dyn Sink, _: u64, _: u64) -> u64 {
    0
}
