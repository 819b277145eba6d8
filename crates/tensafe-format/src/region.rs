//! A part of a tensor and the bytes that hold it: rules S-19, S-20 and S-40.
//!
//! Pure arithmetic: no data is touched, and the runs of a region are produced one at a time, so
//! that a column of ten million rows costs what a row costs.

use alloc::vec::Vec;
use core::{iter::FusedIterator, ops::Range};

use crate::{
    Dtype,
    error::{Detail, Error},
};

/// One item of an index expression, with the meaning that numpy gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Index {
    /// One position; the dimension disappears. Negative counts from the end.
    At(i64),
    /// `start..stop` in elements, every `step`-th. Negative bounds count from the end; `None`
    /// means the end of the dimension on that side.
    Range {
        /// First position.
        start: Option<i64>,
        /// Position after the last.
        stop: Option<i64>,
        /// Distance of the positions, at least 1.
        step: u64,
    },
    /// As many whole dimensions as the other items leave over.
    Ellipsis,
}

impl Index {
    /// The whole dimension.
    pub const FULL: Self = Self::Range { start: None, stop: None, step: 1 };

    /// The positions of a half-open range, in elements.
    #[must_use]
    pub fn range(range: Range<u64>) -> Self {
        let bound = |b| Some(i64::try_from(b).unwrap_or(i64::MAX));
        Self::Range { start: bound(range.start), stop: bound(range.end), step: 1 }
    }
}

/// What a bound beyond the end of its dimension means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Bounds {
    /// It is an error.
    #[default]
    Refuse,
    /// It means the end, as in numpy and torch.
    Clamp,
}

/// A part of a tensor: along each dimension a start, a count and a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    dtype: Dtype,
    shape: Vec<u64>,
    /// Bytes from the start of the tensor to the first run.
    first: u64,
    run_bytes: u64,
    /// The dimensions to walk, outermost first: how often, and how many bytes apart.
    walk: Vec<(u64, u64)>,
    /// Bits from one position to the next, for each dimension of `shape`.
    steps: Vec<u64>,
}

#[derive(Clone, Copy)]
struct Cut {
    start: u64,
    count: u64,
    step: u64,
    size: u64,
    /// Whether the dimension stays in the shape of the part.
    kept: bool,
}

impl Cut {
    fn is_whole(&self) -> bool {
        self.count == self.size && self.step == 1
    }
}

impl Region {
    /// The part of a tensor of `dtype` and `shape` that `index` selects; bounds beyond the end of
    /// a dimension are refused.
    ///
    /// # Errors
    /// [`Usage`](crate::ErrorKind::Usage) for too many items, two ellipses, a step of 0, a
    /// position out of range, or a cut of sub-byte elements that is not on a byte border.
    /// [`Format`](crate::ErrorKind::Format) where the tensor's size overflows.
    ///
    /// # Examples
    /// ```
    /// use tensafe_format::{Dtype, Index, Region};
    ///
    /// // Columns 1 and 2 of an F32 [2, 4].
    /// let region = Region::new(Dtype::F32, &[2, 4], &[Index::FULL, Index::range(1..3)])?;
    /// assert_eq!(region.shape(), [2, 2]);
    /// assert!(region.runs(0).eq([4..12, 20..28]));
    /// # Ok::<(), tensafe_format::Error>(())
    /// ```
    ///
    /// Spec: S-20, S-40.
    pub fn new(dtype: Dtype, shape: &[u64], index: &[Index]) -> Result<Self, Error> {
        Self::with_bounds(dtype, shape, index, Bounds::Refuse)
    }

    /// As [`new`](Self::new), with a choice for bounds beyond the end.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_bounds(dtype: Dtype, shape: &[u64], index: &[Index], bounds: Bounds) -> Result<Self, Error> {
        crate::tensor_bytes("", dtype, shape)?;
        let cuts = cuts(shape, index, bounds)?;
        let kept: Vec<u64> = cuts.iter().filter(|c| c.kept).map(|c| c.count).collect();

        // Bits from one position to the next, per dimension.
        let mut strides = Vec::with_capacity(shape.len());
        let mut stride = dtype.bits();
        for size in shape.iter().rev() {
            strides.push(stride);
            stride = stride.saturating_mul(*size);
        }
        strides.reverse();
        let steps = cuts.iter().zip(&strides).filter(|(c, _)| c.kept);
        let steps = steps.map(|(c, stride)| c.step.saturating_mul(*stride)).collect();
        if cuts.iter().any(|c| c.count == 0) {
            return Ok(Self { dtype, shape: kept, first: 0, run_bytes: 0, walk: Vec::new(), steps });
        }

        // The innermost dimension that is not whole splits the region into runs.
        let split = cuts.iter().rposition(|c| !c.is_whole());
        let mut first = 0;
        let mut run = stride;
        let mut walk = Vec::new();
        for (dimension, (cut, stride)) in cuts.iter().zip(&strides).enumerate() {
            if split.is_none_or(|split| dimension > split) {
                break;
            }
            first += cut.start * stride;
            let in_run = split == Some(dimension) && (cut.step == 1 || cut.count == 1);
            run = if in_run { cut.count * stride } else { *stride };
            let walked = !in_run && cut.count > 1;
            if walked {
                walk.push((cut.count, cut.step * stride));
            }
            let on_border = (cut.start * stride).is_multiple_of(8)
                && (!walked || (cut.step * stride).is_multiple_of(8))
                && (split != Some(dimension) || run.is_multiple_of(8));
            if !on_border {
                return Err(byte_border(dtype, dimension, cut, *stride));
            }
        }
        let walk = walk.into_iter().map(|(count, bits)| (count, bits / 8)).collect();
        Ok(Self { dtype, shape: kept, first: first / 8, run_bytes: run / 8, walk, steps })
    }

    /// The element type.
    #[must_use]
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// The shape of the part, row-major, in elements.
    #[must_use]
    pub fn shape(&self) -> &[u64] {
        &self.shape
    }

    /// Bytes of the part.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.run_bytes.saturating_mul(self.run_count())
    }

    /// Bits from one position to the next within the tensor, for each dimension of
    /// [`shape`](Self::shape).
    #[must_use]
    pub fn steps(&self) -> &[u64] {
        &self.steps
    }

    /// How many runs the part has.
    #[must_use]
    pub fn run_count(&self) -> u64 {
        if self.run_bytes == 0 { 0 } else { self.walk.iter().map(|(count, _)| count).product() }
    }

    /// Bytes of each run; all are of one length.
    #[must_use]
    pub fn run_bytes(&self) -> u64 {
        self.run_bytes
    }

    /// The shortest range that holds the part, `base` added, in bytes, half-open.
    #[must_use]
    pub fn span(&self, base: u64) -> Range<u64> {
        let start = base.saturating_add(self.first);
        let last = self.walk.iter().map(|(count, apart)| (count - 1) * apart).sum::<u64>();
        start..start.saturating_add(last).saturating_add(self.run_bytes)
    }

    /// The runs of bytes that hold the part, in its row-major order, each half-open; `base`, the
    /// offset of the tensor's first byte, is added to each. They ascend and never overlap; with a
    /// step, the last of a row and the first of the next may touch.
    ///
    /// # Cost
    /// Memory for the dimensions, none for the runs.
    #[must_use]
    pub fn runs(&self, base: u64) -> Runs {
        Runs {
            at: base.saturating_add(self.first),
            left: self.run_count(),
            run_bytes: self.run_bytes,
            walk: self
                .walk
                .iter()
                .map(|(count, apart)| Step { count: *count, apart: *apart, at: 0 })
                .collect(),
        }
    }
}

/// The byte ranges of a [`Region`].
#[derive(Clone, Debug)]
pub struct Runs {
    at: u64,
    left: u64,
    run_bytes: u64,
    walk: Vec<Step>,
}

#[derive(Clone, Debug)]
struct Step {
    count: u64,
    apart: u64,
    at: u64,
}

impl Iterator for Runs {
    type Item = Range<u64>;

    fn next(&mut self) -> Option<Range<u64>> {
        self.left = self.left.checked_sub(1)?;
        let run = self.at..self.at + self.run_bytes;
        for step in self.walk.iter_mut().rev() {
            step.at += 1;
            if step.at < step.count {
                self.at += step.apart;
                break;
            }
            self.at -= (step.count - 1) * step.apart;
            step.at = 0;
        }
        Some(run)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = usize::try_from(self.left).ok();
        (left.unwrap_or(usize::MAX), left)
    }
}

impl FusedIterator for Runs {}

/// One cut for each dimension of the tensor.
fn cuts(shape: &[u64], index: &[Index], bounds: Bounds) -> Result<Vec<Cut>, Error> {
    let ellipses = index.iter().filter(|i| **i == Index::Ellipsis).count();
    let given = index.len() - ellipses;
    if ellipses > 1 {
        return Err(Error::new(Detail::TwoEllipses));
    }
    let Some(left_over) = shape.len().checked_sub(given) else {
        return Err(Error::new(Detail::TooManyIndices { given, dimensions: shape.len() }));
    };
    let mut expanded = Vec::with_capacity(shape.len());
    for item in index {
        match item {
            Index::Ellipsis => expanded.extend((0..left_over).map(|_| Index::FULL)),
            other => expanded.push(*other),
        }
    }
    let mut cuts = Vec::with_capacity(shape.len());
    let items = expanded.into_iter().chain(core::iter::repeat(Index::FULL));
    for (dimension, (size, item)) in shape.iter().zip(items).enumerate() {
        let cut = match item {
            Index::At(at) => at_cut(at, dimension, *size)?,
            Index::Range { start, stop, step } => range_cut(start, stop, step, dimension, *size, bounds)?,
            Index::Ellipsis => Cut { start: 0, count: *size, step: 1, size: *size, kept: true },
        };
        cuts.push(cut);
    }
    Ok(cuts)
}

fn at_cut(at: i64, dimension: usize, size: u64) -> Result<Cut, Error> {
    let from_start = if at < 0 { i128::from(at) + i128::from(size) } else { i128::from(at) };
    match u64::try_from(from_start) {
        Ok(start) if start < size => Ok(Cut { start, count: 1, step: 1, size, kept: false }),
        _ => Err(Error::new(Detail::IndexOutOfRange { index: i128::from(at), dimension, size })),
    }
}

fn range_cut(
    start: Option<i64>,
    stop: Option<i64>,
    step: u64,
    dimension: usize,
    size: u64,
    bounds: Bounds,
) -> Result<Cut, Error> {
    if step == 0 {
        return Err(Error::new(Detail::StepZero));
    }
    let bound = |value: Option<i64>, default: u64| match value {
        None => default,
        Some(value) if value < 0 => size.saturating_sub(value.unsigned_abs()),
        Some(value) => value.unsigned_abs(),
    };
    let (mut start, mut stop) = (bound(start, 0), bound(stop, size));
    match bounds {
        Bounds::Refuse if stop > size => {
            return Err(Error::new(Detail::StopOutOfRange { stop, dimension, size }));
        }
        Bounds::Refuse if start > size => {
            let index = i128::from(start);
            return Err(Error::new(Detail::IndexOutOfRange { index, dimension, size }));
        }
        _ => (start, stop) = (start.min(size), stop.min(size)),
    }
    let count = stop.saturating_sub(start).div_ceil(step);
    // A single position has no step; keeping 1 lets it join a run.
    let step = if count > 1 { step } else { 1 };
    Ok(Cut { start: if count == 0 { 0 } else { start }, count, step, size, kept: true })
}

/// S-20. The nearest cut that is legal: outwards to whole bytes, within the dimension.
fn byte_border(dtype: Dtype, dimension: usize, cut: &Cut, stride: u64) -> Error {
    let unit = [1, 2, 4].into_iter().find(|n| (n * stride).is_multiple_of(8)).unwrap_or(8);
    let range = (cut.start, cut.start + (cut.count - 1) * cut.step + 1);
    let legal = (range.0 / unit * unit, (range.1.div_ceil(unit) * unit).min(cut.size));
    Error::new(Detail::ByteBorder { dtype, dimension, range, legal })
}

#[cfg(test)]
mod tests {
    use alloc::{vec, vec::Vec};

    use proptest::prelude::*;

    use super::{Bounds, Index, Region};
    use crate::{Dtype, Rule};

    fn index() -> impl Strategy<Value = Index> {
        prop_oneof![
            (-6i64..6).prop_map(Index::At),
            (prop::option::of(-7i64..7), prop::option::of(-7i64..7), 1u64..4)
                .prop_map(|(start, stop, step)| Index::Range { start, stop, step }),
            Just(Index::Ellipsis),
        ]
    }

    /// The positions that numpy's rules select, one element at a time.
    fn naive(shape: &[u64], index: &[Index]) -> Option<(Vec<u64>, Vec<u64>)> {
        let ellipses = index.iter().filter(|i| **i == Index::Ellipsis).count();
        let named = index.len() - ellipses;
        if ellipses > 1 || named > shape.len() {
            return None;
        }
        let mut full = Vec::new();
        for item in index {
            match item {
                Index::Ellipsis => full.extend(vec![Index::FULL; shape.len() - named]),
                other => full.push(*other),
            }
        }
        full.resize(shape.len(), Index::FULL);
        let mut kept = Vec::new();
        let mut offsets = vec![0u64];
        for (dimension, item) in full.iter().enumerate() {
            let size = i64::try_from(shape[dimension]).unwrap();
            let from_end = |v: i64| if v < 0 { (v + size).max(0) } else { v };
            let positions: Vec<i64> = match item {
                Index::At(at) => {
                    let at = if *at < 0 { *at + size } else { *at };
                    if !(0..size).contains(&at) {
                        return None;
                    }
                    vec![at]
                }
                Index::Range { start, stop, step } => {
                    let start = from_end(start.unwrap_or(0)).min(size);
                    let stop = stop.map_or(size, from_end).min(size);
                    let picked: Vec<i64> = (start..stop).step_by(usize::try_from(*step).unwrap()).collect();
                    kept.push(picked.len() as u64);
                    picked
                }
                Index::Ellipsis => unreachable!("expanded above"),
            };
            offsets = offsets
                .iter()
                .flat_map(|o| positions.iter().map(move |p| o * shape[dimension] + p.unsigned_abs()))
                .collect();
        }
        Some((kept, offsets))
    }

    proptest! {
        #[test]
        fn selects_what_numpy_selects(
            shape in prop::collection::vec(0u64..5, 0..4),
            index in prop::collection::vec(index(), 0..5),
        ) {
            let region = Region::with_bounds(Dtype::U16, &shape, &index, Bounds::Clamp);
            match naive(&shape, &index) {
                None => prop_assert!(region.is_err()),
                Some((kept, offsets)) => {
                    let region = region.unwrap();
                    prop_assert_eq!(region.shape(), &kept[..]);
                    let bytes: Vec<u64> = region.runs(10).flatten().collect();
                    let expected: Vec<u64> =
                        offsets.iter().flat_map(|o| [10 + 2 * o, 11 + 2 * o]).collect();
                    prop_assert_eq!(&bytes, &expected);
                    prop_assert_eq!(region.bytes(), bytes.len() as u64);
                    prop_assert_eq!(region.run_count(), region.runs(0).count() as u64);
                    let mut stepped = vec![region.span(0).start * 8];
                    for (count, step) in region.shape().iter().zip(region.steps()) {
                        stepped = stepped.iter().flat_map(|at| (0..*count).map(move |i| at + i * step)).collect();
                    }
                    let elements: Vec<u64> = offsets.iter().map(|o| o * 16).collect();
                    prop_assert_eq!(stepped, elements);
                    let runs: Vec<_> = region.runs(10).collect();
                    for pair in runs.windows(2) {
                        prop_assert!(pair[0].end <= pair[1].start, "runs ascend and never overlap");
                    }
                    if let (Some(first), Some(last)) = (runs.first(), runs.last()) {
                        prop_assert_eq!(region.span(10), first.start..last.end);
                    }
                }
            }
        }

        #[test]
        fn sub_byte_cuts_are_on_borders_or_refused(
            shape in prop::collection::vec(1u64..5, 1..4),
            index in prop::collection::vec(index(), 0..4),
            dtype in prop::sample::select(vec![Dtype::F4, Dtype::F6_E2M3]),
        ) {
            let Ok(region) = Region::with_bounds(dtype, &shape, &index, Bounds::Clamp) else {
                return Ok(());
            };
            let (kept, offsets) = naive(&shape, &index).unwrap();
            prop_assert_eq!(region.shape(), &kept[..]);
            let bits: Vec<u64> = region.runs(0).flat_map(|r| r.start * 8..r.end * 8).collect();
            let expected: Vec<u64> =
                offsets.iter().flat_map(|o| o * dtype.bits()..(o + 1) * dtype.bits()).collect();
            prop_assert_eq!(bits, expected);
        }
    }

    #[test]
    fn a_column_of_many_rows_is_lazy() {
        let region =
            Region::new(Dtype::F32, &[10_000_000_000, 8], &[Index::FULL, Index::range(2..3)]).unwrap();
        assert_eq!(region.run_count(), 10_000_000_000);
        assert!(region.runs(0).take(3).eq([8..12, 40..44, 72..76]));
        assert!(region.walk.len() == 1, "one dimension is walked, nothing is listed");
    }

    #[test]
    fn refuses_bounds_beyond_the_end_and_names_them() {
        let cut = |index: &[Index]| Region::new(Dtype::F32, &[10, 5], index).unwrap_err();
        let far = cut(&[Index::range(0..20)]);
        assert_eq!(far.rule(), Some(Rule::INDEXING));
        assert_eq!(alloc::format!("{far}"), "index 19 out of bounds for tensor dimension #0 of size 10");
        assert_eq!(
            alloc::format!("{}", cut(&[Index::FULL, Index::At(-6)])),
            "index -6 out of bounds for tensor dimension #1 of size 5"
        );
    }

    #[test]
    fn names_the_nearest_legal_cut_of_sub_byte_elements() {
        let error = Region::new(Dtype::F4, &[2, 8], &[Index::FULL, Index::range(1..4)]).unwrap_err();
        assert_eq!(
            alloc::format!("{error}"),
            "F4 cut 1..4 of dimension #1 is not on a byte border, the nearest legal cut is 0..4 (S-20)"
        );
    }
}
