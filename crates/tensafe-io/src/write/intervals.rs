//! Which bytes of a file were written: ranges that touch are one.

use std::{collections::BTreeMap, ops::Range};

/// A set of bytes as ascending ranges, half-open, with a gap between any two.
///
/// # Cost
/// Memory and a logarithm of time for each gap, not for each write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Intervals(BTreeMap<u64, u64>);

impl Intervals {
    /// Adds a range that holds no byte of the set; else returns the part that is there already.
    pub(crate) fn insert(&mut self, range: &Range<u64>) -> Result<(), Range<u64>> {
        if range.is_empty() {
            return Ok(());
        }
        if let Some((start, end)) =
            self.0.range(..range.end).next_back().filter(|(_, end)| **end > range.start)
        {
            return Err(range.start.max(*start)..range.end.min(*end));
        }
        let end = self.0.remove(&range.end).unwrap_or(range.end);
        match self.0.range_mut(..range.start).next_back().filter(|(_, before)| **before == range.start) {
            Some((_, before)) => *before = end,
            None => drop(self.0.insert(range.start, end)),
        }
        Ok(())
    }

    /// Takes back a range that [`insert`](Self::insert) added.
    pub(crate) fn remove(&mut self, range: &Range<u64>) {
        let around = self.0.range(..=range.start).next_back().map(|(start, end)| *start..*end);
        let Some(around) = around.filter(|around| !range.is_empty() && around.end >= range.end) else {
            return;
        };
        self.0.remove(&around.start);
        for rest in [around.start..range.start, range.end..around.end] {
            if !rest.is_empty() {
                self.0.insert(rest.start, rest.end);
            }
        }
    }

    /// The ranges, ascending.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = Range<u64>> {
        self.0.iter().map(|(start, end)| *start..*end)
    }

    /// The first range of `0..bytes` that is not in the set, and how many bytes are not.
    pub(crate) fn missing(&self, bytes: u64) -> Option<(Range<u64>, u64)> {
        let covered = self.ranges().fold(0u64, |all, r| all.saturating_add(r.end.saturating_sub(r.start)));
        let start = self.0.get(&0).copied().unwrap_or(0);
        let end = self.0.range(start..).next().map_or(bytes, |(next, _)| *next);
        (start < bytes).then(|| (start..end, bytes.saturating_sub(covered)))
    }
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation, reason = "sets of 64 bytes")]
mod tests {
    use proptest::prelude::*;

    use super::Intervals;

    proptest! {
        #[test]
        fn is_a_set_of_bytes(steps in prop::collection::vec((0usize..40, 0usize..12, any::<bool>()), 0..40)) {
            let (mut set, mut naive) = (Intervals::default(), [false; 64]);
            let mut added = Vec::new();
            for (start, len, remove) in steps {
                if remove && !added.is_empty() {
                    let range: std::ops::Range<u64> = added.swap_remove(start % added.len());
                    set.remove(&range);
                    naive[range.start as usize..range.end as usize].fill(false);
                    continue;
                }
                let range = start as u64..(start + len) as u64;
                let place = &mut naive[start..start + len];
                match set.insert(&range) {
                    Ok(()) => {
                        prop_assert!(place.iter().all(|there| !there));
                        place.fill(true);
                        added.push(range);
                    }
                    Err(twice) => {
                        prop_assert!(!twice.is_empty() && twice.start >= range.start && twice.end <= range.end);
                        prop_assert!(naive[twice.start as usize..twice.end as usize].iter().all(|there| *there));
                    }
                }
            }
            let mut ranges = Vec::new();
            for (at, there) in naive.iter().enumerate() {
                match ranges.last_mut() {
                    Some(std::ops::Range { end, .. }) if *there && *end == at as u64 => *end += 1,
                    _ if *there => ranges.push(at as u64..at as u64 + 1),
                    _ => {}
                }
            }
            prop_assert_eq!(set.ranges().collect::<Vec<_>>(), ranges);
            let missing = naive.iter().filter(|there| !**there).count() as u64;
            let (first, count) = set.missing(64).unwrap();
            prop_assert_eq!(count, missing);
            prop_assert_eq!(first.start, naive.iter().position(|there| !there).unwrap() as u64);
            prop_assert!((first.start..first.end).all(|at| !naive[at as usize]));
        }
    }

    #[test]
    fn a_whole_file_misses_nothing() {
        let mut set = Intervals::default();
        assert_eq!(set.missing(0), None);
        assert_eq!(set.missing(4), Some((0..4, 4)));
        set.insert(&(2..4)).unwrap();
        assert_eq!(set.missing(4), Some((0..2, 2)));
        set.insert(&(0..2)).unwrap();
        assert_eq!(set.missing(4), None);
        assert!(set.ranges().eq(std::iter::once(0..4)));
    }
}
