//! For any dtype, shape and index, the runs of a region are the naive enumeration of its elements:
//! ascending, disjoint, within the tensor, on byte borders where elements share bytes.
//!
//! Shapes too large to enumerate only have to be answered without a panic, with runs that could be
//! taken one at a time.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use tensafe_format::{Bounds, Dtype, Index, Region};
use tensafe_testkit::checks;

/// Elements that are enumerated one by one.
const SMALL: u64 = 1 << 12;

#[derive(Arbitrary, Debug)]
struct Input {
    dtype: u8,
    shape: Vec<Dimension>,
    index: Vec<Item>,
}

#[derive(Arbitrary, Debug)]
enum Dimension {
    Small(u8),
    Any(u64),
}

#[derive(Arbitrary, Debug)]
enum Item {
    At(i8),
    Range(Option<i8>, Option<i8>, u8),
    Far(i64),
    FarRange(Option<i64>, Option<i64>, u64),
    Ellipsis,
}

impl From<&Item> for Index {
    fn from(item: &Item) -> Self {
        match *item {
            Item::At(at) => Self::At(at.into()),
            Item::Range(start, stop, step) => {
                Self::Range { start: start.map(Into::into), stop: stop.map(Into::into), step: step.into() }
            }
            Item::Far(at) => Self::At(at),
            Item::FarRange(start, stop, step) => Self::Range { start, stop, step },
            Item::Ellipsis => Self::Ellipsis,
        }
    }
}

fuzz_target!(|input: Input| {
    let dtype = Dtype::ALL[usize::from(input.dtype) % Dtype::ALL.len()];
    let shape: Vec<u64> = input
        .shape
        .iter()
        .take(6)
        .map(|dimension| match dimension {
            Dimension::Small(size) => u64::from(size % 16),
            Dimension::Any(size) => *size,
        })
        .collect();
    let index: Vec<Index> = input.index.iter().take(8).map(Index::from).collect();

    let elements = shape.iter().try_fold(1u64, |product, size| product.checked_mul(*size));
    if elements.is_some_and(|n| n <= SMALL) && shape.iter().all(|size| *size <= SMALL) {
        checks::runs_cover_the_region(dtype, &shape, &index);
        return;
    }
    for bounds in [Bounds::Refuse, Bounds::Clamp] {
        let Ok(region) = Region::with_bounds(dtype, &shape, &index, bounds) else { continue };
        let span = region.span(0);
        let mut end = span.start;
        for run in region.runs(0).take(64) {
            assert!(end <= run.start && run.end <= span.end, "runs ascend within the span");
            end = run.end;
        }
        assert_eq!(region.runs(0).next().is_none(), region.bytes() == 0);
    }
});
