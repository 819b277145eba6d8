//! A copy of many tensors, so that their memory may change while the copy is written.

use crate::{
    Buffer, Error,
    parallel::{each, processors},
};

/// Bytes that a thread copies at once.
const COPY_BYTES: usize = 8 << 20;

/// Bytes below which a second thread costs more than it brings.
const WORTH_A_THREAD: usize = 4 << 20;

/// Where each part begins in the copy, in bytes: apart enough for every element type.
const ALIGN: usize = 64;

/// Copies of these parts, in their order, in one piece of memory that the last of them gives back.
///
/// # Errors
/// [`Io`](crate::ErrorKind::Io) where the memory cannot be reserved.
///
/// # Cost
/// As much memory as the parts have. Blocks; threads of its own for more than 4 MiB.
pub fn snapshot(parts: &[&[u8]]) -> Result<Vec<Buffer>, Error> {
    let total = parts.iter().try_fold(0usize, |all, part| all.checked_add(padded(part)?));
    let total = total.ok_or_else(|| Error::too_large_for_host(u64::MAX))?;
    let memory = Buffer::filled(total, |mut out| {
        let mut copies = Vec::with_capacity(parts.len());
        for part in parts {
            let (place, rest) = out.split_at_mut(padded(part).unwrap_or(part.len()));
            let (place, _) = place.split_at_mut(part.len());
            copies.extend(place.chunks_mut(COPY_BYTES).zip(part.chunks(COPY_BYTES)));
            out = rest;
        }
        let threads = if total < WORTH_A_THREAD { 1 } else { processors().min(8) };
        each(copies, threads, |(to, from)| {
            to.copy_from_slice(from);
            Ok(())
        })
    })?;
    let mut at = 0usize;
    let slices = parts.iter().map(|part| {
        let start = at;
        at = at.saturating_add(padded(part).unwrap_or(part.len()));
        memory.slice(start..start.saturating_add(part.len()))
    });
    Ok(slices.collect())
}

fn padded(part: &[u8]) -> Option<usize> {
    part.len().checked_next_multiple_of(ALIGN)
}

#[cfg(test)]
mod tests {
    use super::{COPY_BYTES, snapshot};

    #[test]
    fn copies_are_the_same_bytes_elsewhere() {
        let data: Vec<u8> = (0..=250).cycle().take(COPY_BYTES + 100_000).collect();
        let parts = [&data[..3], &[], &data[7..], &data[..1]];
        let copies = snapshot(&parts).unwrap();
        assert_eq!(copies.len(), parts.len());
        for (copy, part) in copies.iter().zip(parts) {
            assert!(&**copy == part);
            assert!(copy.is_writable() && (copy.is_empty() || copy.as_ptr().addr() % 64 == 0));
            assert!(copy.is_empty() || copy.as_ptr() != part.as_ptr());
        }
        assert!(snapshot(&[]).unwrap().is_empty());
    }
}
