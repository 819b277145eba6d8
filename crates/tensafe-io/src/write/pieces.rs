//! Many pieces of memory to a file: cut into blocks, which threads write, directly or through a
//! mapping where it pays.

use std::ops::Range;

use super::{
    WriteControl,
    direct::{DirectFile, MOST_SLABS, SLAB_BYTES},
    mapped::{MappedFile, WINDOW_BYTES, is_worth_mapping},
};
use crate::{Error, parallel::each, replace::FileSink};

/// Bytes of one request of a buffered write.
const BUFFERED_BYTES: u64 = 8 << 20;

/// Bytes below which a second thread costs more than it brings.
const WORTH_A_THREAD: u64 = 4 << 20;

/// Memory and its place in the file, in bytes.
pub(crate) type Piece<'d> = (u64, &'d [u8]);

/// Writes pieces that do not overlap, in any order. Those that touch in the file share blocks.
pub(crate) fn write_pieces(
    sink: &FileSink,
    pieces: &[Piece<'_>],
    control: &WriteControl<'_>,
) -> Result<(), Error> {
    let mut pieces: Vec<_> = pieces.iter().copied().filter(|(_, bytes)| !bytes.is_empty()).collect();
    pieces.sort_unstable_by_key(|(offset, _)| *offset);
    let mut end = 0;
    for range in pieces.iter().map(range_of) {
        sink.check_range(&range)?;
        if range.start < end {
            return Err(Error::overlap(sink.target(), range.start..end.min(range.end)));
        }
        end = range.end;
    }
    let runs = runs(&pieces);
    let total = pieces.iter().fold(0u64, |all, (_, bytes)| all.saturating_add(bytes.len() as u64));
    let (means, threads) = if total < WORTH_A_THREAD {
        (Means::small(sink), 1)
    } else {
        let means = Means::large(sink, &runs)?;
        let threads = means.threads();
        (means, threads)
    };
    each(blocks(runs, means.block_bytes()), threads, |block| {
        control.check(sink.target())?;
        means.write(sink, &block, &pieces)?;
        control.wrote(block.end.saturating_sub(block.start));
        Ok(())
    })
}

/// How the bytes get into the file, where it is possible.
enum Means<'s> {
    Direct(&'s DirectFile),
    Mapped(&'s MappedFile),
    Buffered,
}

impl<'s> Means<'s> {
    fn small(sink: &'s FileSink) -> Self {
        sink.direct().map_or(Self::Buffered, Self::Direct)
    }

    fn large(sink: &'s FileSink, runs: &[Range<u64>]) -> Result<Self, Error> {
        match sink.mapped() {
            Some(mapped) if sink.with_room(|file| mapped.prepare(file, runs))? => Ok(Self::Mapped(mapped)),
            _ => Ok(Self::small(sink)),
        }
    }

    fn block_bytes(&self) -> u64 {
        match self {
            Self::Direct(_) => SLAB_BYTES as u64,
            Self::Mapped(_) => WINDOW_BYTES,
            Self::Buffered => BUFFERED_BYTES,
        }
    }

    fn threads(&self) -> usize {
        match self {
            // They wait for the disk more than they work.
            Self::Direct(_) => MOST_SLABS,
            Self::Mapped(mapped) => mapped.threads,
            // Those of a file take turns in the kernel: on a busy machine of two processors, two threads
            // needed 2.0 s where one needed 1.0 s.
            Self::Buffered => 1,
        }
    }

    fn write(&self, sink: &FileSink, block: &Range<u64>, pieces: &[Piece<'_>]) -> Result<(), Error> {
        match self {
            Self::Direct(direct) => {
                let body = direct.body(block);
                write_buffered(sink, &(block.start..body.start), pieces)?;
                let taken = if body.is_empty() { 0 } else { write_direct(sink, direct, &body, pieces)? };
                write_buffered(sink, &(body.start.saturating_add(taken)..block.end), pieces)
            }
            Self::Mapped(mapped) if is_worth_mapping(block) => {
                match mapped.write(sink.file(), block, parts(pieces, block)) {
                    Some(_turn) => write_buffered(sink, block, pieces),
                    None => Ok(()),
                }
            }
            Self::Mapped(_) | Self::Buffered => write_buffered(sink, block, pieces),
        }
    }
}

fn range_of(piece: &Piece<'_>) -> Range<u64> {
    piece.0..piece.0.saturating_add(piece.1.len() as u64)
}

/// What the pieces cover, cut where they do not touch.
fn runs(pieces: &[Piece<'_>]) -> Vec<Range<u64>> {
    let mut runs: Vec<Range<u64>> = Vec::new();
    for range in pieces.iter().map(range_of) {
        match runs.last_mut().filter(|run| run.end == range.start) {
            Some(run) => run.end = range.end,
            None => runs.push(range),
        }
    }
    runs
}

/// The ranges, cut at every multiple of `most` bytes of the file.
fn blocks(runs: Vec<Range<u64>>, most: u64) -> Vec<Range<u64>> {
    let mut blocks = Vec::new();
    for mut run in runs {
        while run.start < run.end {
            let cut = run.start.saturating_add(1).checked_next_multiple_of(most).unwrap_or(run.end);
            blocks.push(run.start..cut.min(run.end));
            run.start = cut.min(run.end);
        }
    }
    blocks
}

/// Returns how many of the bytes were written: fewer than all where nothing but a buffered write can.
fn write_direct(
    sink: &FileSink,
    direct: &DirectFile,
    body: &Range<u64>,
    pieces: &[Piece<'_>],
) -> Result<u64, Error> {
    let Some(mut slab) = direct.slab() else { return Ok(0) };
    let mut end = 0usize;
    let slab = slab.bytes_mut();
    for (_, part) in parts(pieces, body) {
        let start = end;
        end = start.saturating_add(part.len());
        // A block is no longer than a slab.
        let Some(place) = slab.get_mut(start..end) else { return Ok(0) };
        place.copy_from_slice(part);
    }
    let written = direct.write(body.start, slab.get(..end).unwrap_or_default());
    written.map(|bytes| bytes as u64).map_err(|e| sink.failed_to_write(body.clone(), e))
}

fn write_buffered(sink: &FileSink, range: &Range<u64>, pieces: &[Piece<'_>]) -> Result<(), Error> {
    parts(pieces, range).try_for_each(|(offset, part)| sink.write_within(offset, part))
}

/// The parts of the pieces that lie within `range`, ascending.
fn parts<'p, 'd>(
    pieces: &'p [Piece<'d>],
    range: &Range<u64>,
) -> impl Iterator<Item = Piece<'d>> + use<'p, 'd> {
    let range = range.clone();
    let first = pieces.partition_point(|piece| range_of(piece).end <= range.start);
    let within = pieces.get(first..).unwrap_or_default().iter();
    within.map_while(move |piece| {
        let whole = range_of(piece);
        let (start, end) = (whole.start.max(range.start), whole.end.min(range.end));
        let from = usize::try_from(start.saturating_sub(whole.start)).ok()?;
        let to = usize::try_from(end.saturating_sub(whole.start)).ok()?;
        (start < end).then(|| (start, piece.1.get(from..to).unwrap_or_default()))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Piece, blocks, parts, runs};

    proptest! {
        #[test]
        fn blocks_cover_every_piece_once(
            lens in prop::collection::vec((0u64..3, 1usize..40), 1..12),
            most in 1u64..50,
        ) {
            let data = [7u8; 64];
            let mut pieces: Vec<Piece<'_>> = Vec::new();
            let mut at = 0;
            for (gap, len) in lens {
                at += gap;
                pieces.push((at, &data[..len]));
                at += len as u64;
            }
            let mut covered = vec![0u8; usize::try_from(at).unwrap()];
            for block in blocks(runs(&pieces), most) {
                prop_assert!(block.start < block.end && block.start / most == (block.end - 1) / most);
                let mut expected = block.start;
                for (offset, part) in parts(&pieces, &block) {
                    prop_assert_eq!(offset, expected);
                    expected += part.len() as u64;
                    for byte in offset..expected {
                        covered[usize::try_from(byte).unwrap()] += 1;
                    }
                }
                prop_assert_eq!(expected, block.end);
            }
            let bytes: usize = pieces.iter().map(|(_, bytes)| bytes.len()).sum();
            prop_assert_eq!(covered.iter().map(|n| usize::from(*n)).sum::<usize>(), bytes);
            prop_assert!(covered.iter().all(|n| *n <= 1));
        }
    }
}
