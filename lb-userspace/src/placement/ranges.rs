//! Which indices of a table are free.

use std::collections::BTreeMap;

/// A run of indices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Range {
    /// The first index.
    pub(crate) start: u32,
    /// How many.
    pub(crate) length: u32,
}

/// The free indices of one table, as the longest runs possible.
#[derive(Clone, Debug)]
pub(crate) struct Ranges {
    free: BTreeMap<u32, u32>,
    capacity: u32,
}

impl Ranges {
    /// All of `0..capacity` is free.
    pub(crate) fn new(capacity: u32) -> Self {
        Self { free: BTreeMap::from([(0, capacity)]), capacity }
    }

    /// Indices in all, free or not.
    pub(crate) fn capacity(&self) -> u32 {
        self.capacity
    }

    /// The first free run that is long enough, or `None`.
    pub(crate) fn take(&mut self, length: u32) -> Option<Range> {
        let (start, available) = self.free.iter().map(|(s, l)| (*s, *l)).find(|(_, l)| *l >= length)?;
        self.free.remove(&start);
        if available > length {
            self.free.insert(start + length, available - length);
        }
        Some(Range { start, length })
    }

    /// Takes exactly this run, which need not be free; says whether it was.
    pub(crate) fn claim(&mut self, range: Range) -> bool {
        let Range { start, length } = range;
        let Some(end) = start.checked_add(length) else { return false };
        let before = self.free.range(..=start).next_back().map(|(start, length)| (*start, *start + *length));
        let Some((free_start, free_end)) = before.filter(|(_, free_end)| *free_end >= end) else {
            return false;
        };
        if length > 0 {
            self.free.remove(&free_start);
            let rests = [(free_start, start), (end, free_end)].into_iter().filter(|(from, to)| from < to);
            self.free.extend(rests.map(|(from, to)| (from, to - from)));
        }
        true
    }

    /// Frees what [`Self::take`] gave.
    pub(crate) fn give(&mut self, range: Range) {
        let Range { mut start, mut length } = range;
        let before = self.free.range(..start).next_back().map(|(start, length)| (*start, *length));
        if let Some((before, size)) = before.filter(|(before, size)| before + size == start) {
            self.free.remove(&before);
            (start, length) = (before, size + length);
        }
        if let Some(size) = self.free.remove(&(start + length)) {
            length += size;
        }
        if length > 0 {
            self.free.insert(start, length);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn nothing_is_given_twice_and_nothing_is_lost(steps in prop::collection::vec((1u32..40, any::<bool>()), 1..200)) {
            let mut ranges = Ranges::new(300);
            let mut taken: Vec<Range> = Vec::new();
            for (length, release) in steps {
                if release && !taken.is_empty() {
                    ranges.give(taken.remove(length as usize % taken.len()));
                } else if let Some(range) = ranges.take(length) {
                    let apart = |t: &Range| t.start + t.length <= range.start || range.start + range.length <= t.start;
                    prop_assert!(taken.iter().all(apart));
                    prop_assert!(range.start + range.length <= 300);
                    taken.push(range);
                }
            }
            taken.drain(..).for_each(|range| ranges.give(range));
            prop_assert_eq!(ranges.take(300), Some(Range { start: 0, length: 300 }));
        }
    }
}
