//! Integers out of byte slices and slices out of sources, without indexing.

use tensafe_io::Source;

use crate::Error;

/// The 16-bit little-endian integer at `at`.
pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().copied().map(u16::from_le_bytes)
}

/// The 32-bit little-endian integer at `at`.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_le_bytes)
}

/// The 64-bit little-endian integer at `at`.
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().copied().map(u64::from_le_bytes)
}

/// The first `len` bytes and the rest.
pub(crate) fn split(bytes: &[u8], len: usize) -> Option<(&[u8], &[u8])> {
    bytes.split_at_checked(len)
}

/// Up to `most` bytes from `offset` on; fewer where the source ends.
pub(crate) fn read_up_to(source: &dyn Source, offset: u64, most: usize) -> Result<Vec<u8>, Error> {
    let left = source.len().saturating_sub(offset);
    let len = usize::try_from(left).unwrap_or(usize::MAX).min(most);
    let mut out = vec![0; len];
    source.read_at(offset, &mut out).map_err(|e| Error::source("read the container", e))?;
    Ok(out)
}

/// Exactly `len` bytes from `offset` on, which the caller has checked against a limit.
pub(crate) fn read_exact(
    source: &dyn Source,
    offset: u64,
    len: u64,
    subject: &'static str,
) -> Result<Vec<u8>, Error> {
    let most = usize::try_from(len).unwrap_or(usize::MAX);
    let left = source.len().saturating_sub(offset);
    if left < len {
        return Err(Error::short(subject, offset, left, len));
    }
    read_up_to(source, offset, most)
}

/// Hands every chunk of a range to `each`, with its offset, until that says `false`.
pub(crate) fn for_each_chunk(
    source: &dyn Source,
    range: std::ops::Range<u64>,
    mut each: impl FnMut(u64, &[u8]) -> Result<bool, Error>,
) -> Result<(), Error> {
    const CHUNK: u64 = 1 << 20;
    let mut at = range.start;
    let mut chunk = Vec::new();
    while at < range.end {
        let len = range.end.saturating_sub(at).min(CHUNK);
        chunk.resize(usize::try_from(len).unwrap_or(0), 0);
        source.read_at(at, &mut chunk).map_err(|e| Error::source("read the container", e))?;
        if !each(at, &chunk)? {
            break;
        }
        at = at.saturating_add(len);
    }
    Ok(())
}
