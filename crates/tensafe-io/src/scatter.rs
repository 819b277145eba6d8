//! Which bytes of a file go where in memory: rows of equal runs, walked one at a time.
//!
//! Pure arithmetic. Runs ascend in the file and never overlap there; in memory they lie where the
//! strides of the destination say. Everything that touches in both is one run from the start.

use std::ops::Range;

use tensafe_format::{Dtype, Region};

use crate::Error;

/// One run of bytes: `len` bytes at `from` in the file, to `to` in the destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Run {
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) len: u64,
}

/// A dimension that is walked: how often, and how many bytes apart on each side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Axis {
    count: u64,
    from: u64,
    to: u64,
}

/// The bytes of a part of a tensor, and their places in memory.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Scatter {
    /// Outermost first.
    axes: Vec<Axis>,
    /// What is repeated along the axes; ascending, apart from each other.
    parts: Vec<Run>,
}

impl Scatter {
    /// One run, to a destination that is as dense as the file.
    pub(crate) fn of_bytes(from: u64, len: u64) -> Self {
        let parts = if len == 0 { Vec::new() } else { vec![Run { from, to: 0, len }] };
        Self { axes: Vec::new(), parts }
    }

    /// The runs of `region`, of a tensor whose first byte is at `base`; `strides` are those of the
    /// destination, in bytes for each dimension of the region's shape, row-major where `None`.
    ///
    /// # Errors
    /// [`Usage`](crate::ErrorKind::Usage) where strides do not fit the shape, put two elements in one
    /// place, or part elements of less than a byte.
    pub(crate) fn of_region(region: &Region, base: u64, strides: Option<&[u64]>) -> Result<Self, Error> {
        let run_bits = region.dtype().bits();
        let dense = dense_strides(run_bits, region.shape());
        let to: Vec<u64> = match strides {
            None => dense,
            Some(strides) => {
                check_strides(region, strides)?;
                strides.iter().map(|bytes| bytes.saturating_mul(8)).collect()
            }
        };
        if region.bytes() == 0 {
            return Ok(Self { axes: Vec::new(), parts: Vec::new() });
        }
        let mut len = run_bits;
        let mut axes: Vec<Axis> = Vec::new();
        let dimensions = region.shape().iter().zip(region.steps()).zip(&to).rev();
        for ((count, from), to) in dimensions.filter(|((count, _), _)| **count != 1) {
            match axes.last_mut() {
                None if *from == len && *to == len => len = len.saturating_mul(*count),
                Some(axis)
                    if *from == axis.from.saturating_mul(axis.count)
                        && *to == axis.to.saturating_mul(axis.count) =>
                {
                    axis.count = axis.count.saturating_mul(*count);
                }
                _ => axes.push(Axis { count: *count, from: *from, to: *to }),
            }
        }
        let whole = |bits: u64| bits.is_multiple_of(8);
        if !whole(len) || axes.iter().any(|axis| !whole(axis.from) || !whole(axis.to)) {
            return Err(Error::strides(region.dtype(), region.shape(), strides.unwrap_or_default()));
        }
        axes.reverse();
        for axis in &mut axes {
            (axis.from, axis.to) = (axis.from / 8, axis.to / 8);
        }
        let first = Run { from: region.span(base).start, to: 0, len: len / 8 };
        Ok(Self { axes, parts: vec![first] })
    }

    /// The runs of several parts of one tensor that stand one behind the other along a dimension of
    /// the destination: `ranges` of its positions, ascending.
    pub(crate) fn of_intervals(base: u64, dimension: &Dimension, ranges: &[Range<u64>]) -> Self {
        let Dimension { outer, size, inner } = *dimension;
        let mut parts: Vec<Run> = Vec::new();
        let mut to = 0u64;
        for range in ranges {
            let len = range.end.saturating_sub(range.start).saturating_mul(inner);
            let from = base.saturating_add(range.start.saturating_mul(inner));
            match parts.last_mut() {
                Some(last) if last.from.saturating_add(last.len) == from => {
                    last.len = last.len.saturating_add(len)
                }
                _ if len > 0 => parts.push(Run { from, to, len }),
                _ => {}
            }
            to = to.saturating_add(len);
        }
        if outer == 0 || parts.is_empty() {
            return Self { axes: Vec::new(), parts: Vec::new() };
        }
        let axis = Axis { count: outer, from: size.saturating_mul(inner), to };
        let axes = if outer == 1 { Vec::new() } else { vec![axis] };
        Self { axes, parts }
    }

    /// How many runs there are.
    pub(crate) fn run_count(&self) -> u64 {
        let walked = self.axes.iter().fold(1u64, |n, axis| n.saturating_mul(axis.count));
        walked.saturating_mul(self.parts.len() as u64)
    }

    /// Bytes of all runs.
    pub(crate) fn bytes(&self) -> u64 {
        let walked = self.axes.iter().fold(1u64, |n, axis| n.saturating_mul(axis.count));
        self.parts.iter().fold(0u64, |n, part| n.saturating_add(part.len)).saturating_mul(walked)
    }

    /// The shortest range of the file that holds every run, half-open; `None` where there are none.
    pub(crate) fn span(&self) -> Option<Range<u64>> {
        let (first, last) = (self.parts.first()?, self.parts.last()?);
        let walked = self
            .axes
            .iter()
            .fold(0u64, |n, axis| n.saturating_add((axis.count - 1).saturating_mul(axis.from)));
        Some(first.from..last.from.saturating_add(last.len).saturating_add(walked))
    }

    /// Bytes from the first byte of the destination to the end of the last run there.
    pub(crate) fn reach(&self) -> u64 {
        let walked = self.axes.iter().map(|axis| (axis.count - 1).saturating_mul(axis.to));
        let part = self.parts.iter().map(|part| part.to.saturating_add(part.len)).max();
        part.map_or(0, |part| walked.fold(part, u64::saturating_add))
    }

    /// The one run, where it is one.
    pub(crate) fn single(&self) -> Option<Run> {
        match (&*self.axes, &*self.parts) {
            ([], [run]) => Some(*run),
            _ => None,
        }
    }

    /// The runs from the `first` on.
    pub(crate) fn runs_from(&self, first: u64) -> Runs<'_> {
        let parts = (self.parts.len() as u64).max(1);
        let mut left = first / parts;
        let mut counters: Vec<u64> = self
            .axes
            .iter()
            .rev()
            .map(|axis| {
                let count = axis.count.max(1);
                let at = left % count;
                left /= count;
                at
            })
            .collect();
        counters.reverse();
        let at = self.axes.iter().zip(&counters).fold((0u64, 0u64), |(from, to), (axis, n)| {
            (from.saturating_add(axis.from.saturating_mul(*n)), to.saturating_add(axis.to.saturating_mul(*n)))
        });
        let left = self.run_count().saturating_sub(first);
        Runs { scatter: self, counters, at, part: usize::try_from(first % parts).unwrap_or(0), left }
    }
}

/// A dimension among the others: the product of those before it, its size, and how many bytes each of
/// its positions has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dimension {
    pub(crate) outer: u64,
    pub(crate) size: u64,
    pub(crate) inner: u64,
}

/// The runs of a [`Scatter`], ascending in the file.
#[derive(Clone, Debug)]
pub(crate) struct Runs<'s> {
    scatter: &'s Scatter,
    counters: Vec<u64>,
    at: (u64, u64),
    part: usize,
    left: u64,
}

impl Iterator for Runs<'_> {
    type Item = Run;

    fn next(&mut self) -> Option<Run> {
        self.left = self.left.checked_sub(1)?;
        let part = self.scatter.parts.get(self.part)?;
        let (from, to) = self.at;
        let run = Run { from: from.saturating_add(part.from), to: to.saturating_add(part.to), len: part.len };
        self.part = self.part.saturating_add(1);
        if self.part == self.scatter.parts.len() {
            self.part = 0;
            for (axis, counter) in self.scatter.axes.iter().zip(&mut self.counters).rev() {
                *counter = counter.saturating_add(1);
                if *counter < axis.count {
                    self.at = (self.at.0.saturating_add(axis.from), self.at.1.saturating_add(axis.to));
                    break;
                }
                let back = axis.count.saturating_sub(1);
                *counter = 0;
                self.at.0 = self.at.0.saturating_sub(axis.from.saturating_mul(back));
                self.at.1 = self.at.1.saturating_sub(axis.to.saturating_mul(back));
            }
        }
        Some(run)
    }
}

/// Strides of a row-major tensor, in bits.
fn dense_strides(bits: u64, shape: &[u64]) -> Vec<u64> {
    let mut stride = bits;
    let mut strides: Vec<u64> = shape
        .iter()
        .rev()
        .map(|size| {
            let here = stride;
            stride = stride.saturating_mul((*size).max(1));
            here
        })
        .collect();
    strides.reverse();
    strides
}

/// Whether strides in bytes are those of dense, row-major memory.
pub(crate) fn is_dense(dtype: Dtype, shape: &[u64], strides: &[u64]) -> bool {
    let dense = dense_strides(dtype.bits(), shape);
    let mut same = dense.iter().zip(strides).zip(shape);
    let empty = shape.contains(&0);
    strides.len() == shape.len()
        && same.all(|((d, s), size)| empty || *size <= 1 || s.checked_mul(8) == Some(*d))
}

/// Refuses strides under which two elements could share a place: sorted by stride, each dimension steps
/// over all that the smaller ones reach.
fn check_strides(region: &Region, strides: &[u64]) -> Result<(), Error> {
    let refuse = || Error::strides(region.dtype(), region.shape(), strides);
    if strides.len() != region.shape().len() {
        return Err(refuse());
    }
    if region.bytes() == 0 {
        return Ok(());
    }
    if region.dtype().is_sub_byte() {
        // Where elements share bytes, only the dense layout is one.
        let dense = is_dense(region.dtype(), region.shape(), strides);
        return if dense { Ok(()) } else { Err(refuse()) };
    }
    let mut walked: Vec<(u64, u64)> =
        strides.iter().copied().zip(region.shape().iter().copied()).filter(|(_, count)| *count > 1).collect();
    walked.sort_unstable();
    let mut reach = element_bytes(region.dtype());
    for (stride, count) in walked {
        if stride < reach {
            return Err(refuse());
        }
        let further = stride.checked_mul(count.saturating_sub(1)).and_then(|n| n.checked_add(reach));
        reach = further.ok_or_else(refuse)?;
    }
    Ok(())
}

fn element_bytes(dtype: Dtype) -> u64 {
    dtype.bits().div_ceil(8)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tensafe_format::{Bounds, Dtype, Index, Region};

    use super::{Dimension, Run, Scatter};

    fn region(shape: &[u64], index: &[Index]) -> Region {
        Region::with_bounds(Dtype::U16, shape, index, Bounds::Clamp).unwrap()
    }

    #[test]
    fn what_touches_on_both_sides_is_one_run() {
        let whole = Scatter::of_region(&region(&[4, 3, 5], &[]), 10, None).unwrap();
        assert_eq!(whole.single(), Some(Run { from: 10, to: 0, len: 120 }));
        let rows = Scatter::of_region(&region(&[4, 3, 5], &[Index::range(1..3)]), 10, None).unwrap();
        assert_eq!(rows.single(), Some(Run { from: 40, to: 0, len: 60 }));
    }

    #[test]
    fn a_strided_destination_splits_runs() {
        // Rows of 3 elements into memory whose rows are 5 elements apart.
        let scatter = Scatter::of_region(&region(&[2, 3], &[]), 0, Some(&[10, 2])).unwrap();
        let runs: Vec<Run> = scatter.runs_from(0).collect();
        assert_eq!(runs, [Run { from: 0, to: 0, len: 6 }, Run { from: 6, to: 10, len: 6 }]);
    }

    #[test]
    fn places_that_two_elements_would_share_are_refused() {
        for strides in [&[0, 2][..], &[2, 2], &[4, 2], &[6], &[6, u64::MAX]] {
            let error = Scatter::of_region(&region(&[2, 3], &[]), 0, Some(strides)).unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::Usage, "{strides:?}");
        }
    }

    #[test]
    fn intervals_stand_one_behind_the_other() {
        // Columns 0..1 and 2..4 of a [2, 4] of bytes.
        let dimension = Dimension { outer: 2, size: 4, inner: 1 };
        let scatter = Scatter::of_intervals(100, &dimension, &[0..1, 2..4]);
        let runs: Vec<_> = scatter.runs_from(0).map(|run| (run.from, run.to, run.len)).collect();
        assert_eq!(runs, [(100, 0, 1), (102, 1, 2), (104, 3, 1), (106, 4, 2)]);
        assert_eq!((scatter.bytes(), scatter.span()), (6, Some(100..108)));
        assert_eq!(scatter.runs_from(3).count(), 1);
    }

    proptest! {
        #[test]
        fn runs_are_those_of_the_region(
            shape in prop::collection::vec(0u64..5, 0..4),
            cuts in prop::collection::vec((0i64..5, 0i64..5, 1u64..3), 0..4),
            skip in 0u64..40,
        ) {
            let index: Vec<Index> = cuts.iter().take(shape.len())
                .map(|(a, b, step)| Index::Range { start: Some(*a), stop: Some(a + b), step: *step }).collect();
            let region = region(&shape, &index);
            let scatter = Scatter::of_region(&region, 7, None).unwrap();
            let from: Vec<u64> = scatter.runs_from(0).flat_map(|run| run.from..run.from + run.len).collect();
            let to: Vec<u64> = scatter.runs_from(0).flat_map(|run| run.to..run.to + run.len).collect();
            prop_assert_eq!(from, region.runs(7).flatten().collect::<Vec<_>>());
            prop_assert_eq!(to, (0..region.bytes()).collect::<Vec<_>>());
            prop_assert_eq!(scatter.bytes(), region.bytes());
            let skipped: Vec<Run> = scatter.runs_from(0).skip(usize::try_from(skip).unwrap()).collect();
            prop_assert_eq!(scatter.runs_from(skip).collect::<Vec<_>>(), skipped);
        }
    }
}
