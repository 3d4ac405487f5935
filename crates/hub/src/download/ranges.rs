//! Which bytes of a file are there.

use std::ops::Range;

/// A set of byte positions as sorted, non-empty, non-touching half-open ranges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RangeSet(Vec<(u64, u64)>);

impl RangeSet {
    /// From pairs in any order, as they are found in a journal; empty and inverted ones are left out.
    pub fn from_pairs(pairs: &[(u64, u64)]) -> RangeSet {
        let mut set = RangeSet::default();
        for &(start, end) in pairs {
            set.insert(start..end);
        }
        set
    }

    pub fn pairs(&self) -> &[(u64, u64)] {
        &self.0
    }

    /// Adds a range and returns how many of its bytes are new.
    pub fn insert(&mut self, range: Range<u64>) -> u64 {
        if range.start >= range.end {
            return 0;
        }
        // All ranges that overlap or touch the new one.
        let from = self.0.partition_point(|r| r.1 < range.start);
        let to = self.0.partition_point(|r| r.0 <= range.end);
        let merged = &self.0[from..to];
        let before: u64 = merged.iter().map(|r| r.1 - r.0).sum();
        let start = merged.first().map_or(range.start, |r| r.0.min(range.start));
        let end = merged.last().map_or(range.end, |r| r.1.max(range.end));
        self.0.splice(from..to, [(start, end)]);
        (end - start) - before
    }

    /// Number of bytes in the set.
    pub fn total(&self) -> u64 {
        self.0.iter().map(|r| r.1 - r.0).sum()
    }

    /// What is not in the set within `0..size`, in ascending order.
    pub fn missing(&self, size: u64) -> Vec<Range<u64>> {
        let mut gaps = Vec::new();
        let mut at = 0;
        for &(start, end) in &self.0 {
            if start >= size {
                break;
            }
            if at < start {
                gaps.push(at..start);
            }
            at = end;
        }
        if at < size {
            gaps.push(at..size);
        }
        gaps
    }

    /// Drops everything from `size` on.
    pub fn truncate(&mut self, size: u64) {
        self.0.retain_mut(|r| {
            r.1 = r.1.min(size);
            r.0 < r.1
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SIZE: u64 = 64;

    fn bits(set: &RangeSet) -> u64 {
        (0..SIZE).filter(|i| set.0.iter().any(|r| (r.0..r.1).contains(i))).fold(0, |bits, i| bits | 1 << i)
    }

    proptest! {
        #[test]
        fn behaves_like_a_set_of_bits(ranges in prop::collection::vec((0..SIZE, 0..SIZE), 0..12), cut in 0..SIZE) {
            let mut set = RangeSet::default();
            let mut model: u64 = 0;
            for (start, end) in ranges {
                let before = model.count_ones();
                (start..end).for_each(|i| model |= 1 << i);
                let new = set.insert(start..end);
                prop_assert_eq!(new, u64::from(model.count_ones() - before));
                prop_assert_eq!(bits(&set), model);
                prop_assert!(set.0.iter().all(|r| r.0 < r.1));
                prop_assert!(set.0.windows(2).all(|w| w[0].1 < w[1].0), "sorted, apart: {:?}", set);
            }
            prop_assert_eq!(set.total(), u64::from(model.count_ones()));
            prop_assert_eq!(&RangeSet::from_pairs(set.pairs()), &set);
            let mut rest = set.clone();
            for gap in set.missing(SIZE) {
                prop_assert_eq!(rest.insert(gap.clone()), gap.end - gap.start);
            }
            prop_assert_eq!(rest.pairs(), &[(0, SIZE)]);
            set.truncate(cut);
            prop_assert_eq!(bits(&set), model & ((1 << cut) - 1));
        }
    }
}
