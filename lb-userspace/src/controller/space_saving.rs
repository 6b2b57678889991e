//! The heaviest of any number of keys, in bounded memory: Space-Saving (Metwally, Agrawal, El Abbadi: "Efficient computation
//! of frequent and top-k elements in data streams", ICDT 2005), with weights.

use std::collections::{BTreeMap, BTreeSet};

/// What is known of one key: its weight is from `count - error` to `count`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Estimate {
    /// The most that it can be.
    pub(super) count: u64,
    /// What of that may be others' weight.
    pub(super) error: u64,
    /// The variance of the count as an estimate of what was sampled: w(w-1) for each weight w, which is of a packet that was
    /// told of with the chance 1/w.
    pub(super) variance: u64,
}

impl Estimate {
    /// Of two streams together.
    pub(super) fn and(self, other: Self) -> Self {
        Self {
            count: self.count + other.count,
            error: self.error + other.error,
            variance: self.variance.saturating_add(other.variance),
        }
    }
}

/// A stream's heaviest keys. Of a stream of weight N, with room for K keys, each key of more than N/K is here, and no count is
/// too high by more than N/K.
#[derive(Clone, Debug)]
pub(super) struct SpaceSaving<K> {
    room: usize,
    estimates: BTreeMap<K, Estimate>,
    /// The same by count, the lowest first.
    order: BTreeSet<(u64, K)>,
}

impl<K: Copy + Ord> SpaceSaving<K> {
    /// With room for so many keys, at least one.
    pub(super) fn new(room: usize) -> Self {
        Self { room: room.max(1), estimates: BTreeMap::new(), order: BTreeSet::new() }
    }

    /// Takes in one element of the stream.
    pub(super) fn add(&mut self, key: K, weight: u64) {
        let before = match self.estimates.get(&key) {
            Some(estimate) => {
                self.order.remove(&(estimate.count, key));
                *estimate
            }
            None => self.take_place(),
        };
        let sampled = weight.saturating_mul(weight.saturating_sub(1));
        let estimate = before.and(Estimate { count: weight, error: 0, variance: sampled });
        self.estimates.insert(key, estimate);
        self.order.insert((estimate.count, key));
    }

    /// What a newcomer begins with: nothing, or all that the lightest key had, which may be its own from before.
    fn take_place(&mut self) -> Estimate {
        if self.estimates.len() < self.room {
            return Estimate::default();
        }
        let Some((count, lightest)) = self.order.pop_first() else { return Estimate::default() };
        self.estimates.remove(&lightest);
        Estimate { count, error: count, variance: 0 }
    }

    /// What is known of a key, whether it is here or not.
    pub(super) fn estimate(&self, key: &K) -> Estimate {
        self.estimates.get(key).copied().unwrap_or_else(|| {
            let lightest = self.order.first().filter(|_| self.estimates.len() == self.room);
            let count = lightest.map_or(0, |(count, _)| *count);
            Estimate { count, error: count, variance: 0 }
        })
    }

    /// The keys that are here.
    pub(super) fn keys(&self) -> impl Iterator<Item = &K> {
        self.estimates.keys()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn heavy_keys_are_here_and_no_count_is_far_off(
            room in 1usize..20,
            // A few keys that come often, many that come once.
            stream in prop::collection::vec((prop_oneof![0u32..6, 0u32..500], 1u64..100), 0..400),
        ) {
            let mut sketch = SpaceSaving::new(room);
            let mut exact = BTreeMap::<u32, u64>::new();
            for (key, weight) in &stream {
                sketch.add(*key, *weight);
                *exact.entry(*key).or_default() += weight;
            }
            let total: u64 = exact.values().sum();
            let bound = total / room as u64;
            prop_assert!(sketch.keys().count() <= room);
            for (key, truth) in exact {
                let Estimate { count, error, .. } = sketch.estimate(&key);
                prop_assert!(count - error <= truth && truth <= count, "{key}: {truth} not in {count} - {error}");
                prop_assert!(count - truth <= bound, "{key}: {count} is not {truth}, and {bound} is allowed");
                prop_assert!(truth <= bound || sketch.keys().any(|here| *here == key), "{key} is missing");
            }
            let counts: u64 = sketch.keys().map(|key| sketch.estimate(key).count).sum();
            prop_assert_eq!(counts, total);
        }
    }

    #[test]
    fn while_there_is_room_counts_are_exact() {
        let mut sketch = SpaceSaving::new(3);
        for (key, weight) in [(1, 5), (2, 1), (1, 5), (3, 2)] {
            sketch.add(key, weight);
        }
        assert_eq!(sketch.estimate(&1), Estimate { count: 10, error: 0, variance: 40 });
        assert_eq!(sketch.estimate(&2), Estimate { count: 1, error: 0, variance: 0 });
        assert_eq!(sketch.estimate(&4), Estimate { count: 1, error: 1, variance: 0 });
    }
}
