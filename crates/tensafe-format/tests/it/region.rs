//! Regions of any dtype against a naive enumeration of their elements.

use proptest::{collection, prelude::*};
use tensafe_format::{Dtype, Index, Region};
use tensafe_testkit::{checks, strategies};

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    /// S-20, S-40.
    #[test]
    fn runs_are_the_elements_that_numpy_picks(
        dtype in strategies::dtypes(),
        shape in collection::vec(0u64..8, 0..5),
        index in collection::vec(strategies::indices(), 0..6),
    ) {
        checks::runs_cover_the_region(dtype, &shape, &index);
    }
}

/// S-40: the last position of a row and the first of the next are neighbours.
#[test]
fn runs_of_a_step_may_touch() {
    let index = [Index::FULL, Index::Range { start: None, stop: None, step: 2 }];
    checks::runs_cover_the_region(Dtype::U8, &[2, 3], &index);
    let region = Region::new(Dtype::U8, &[2, 3], &index).unwrap();
    assert!(region.runs(0).eq([0..1, 2..3, 3..4, 5..6]));
}

/// S-20: each dimension is judged by itself, also where two borders would add up to one.
#[test]
fn refuses_sub_byte_starts_that_meet_by_accident() {
    let region = Region::new(Dtype::F4, &[4, 3], &[Index::At(1), Index::range(1..3)]);
    assert_eq!(
        region.unwrap_err().to_string(),
        "F4 cut 1..2 of dimension #0 is not on a byte border, the nearest legal cut is 0..2 (S-20)"
    );
}
