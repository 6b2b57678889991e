//! Which limiters have begun to run out of buckets: what goes on is not news.

use std::collections::BTreeMap;

use crate::model::LimiterKey;

/// What each limiter let through unasked until the last look, and whether it did so before that look.
#[derive(Clone, Debug, Default)]
pub(super) struct Contended(BTreeMap<LimiterKey, (u64, bool)>);

impl Contended {
    /// Takes in the counts of all limiters; those that have grown since the last look and had not before it.
    pub(super) fn record(&mut self, counts: BTreeMap<LimiterKey, u64>) -> Vec<LimiterKey> {
        let mut begun = Vec::new();
        let mut next = BTreeMap::new();
        for (key, count) in counts {
            let (before, was_growing) = self.0.get(&key).copied().unwrap_or_default();
            let grows = count > before;
            if grows && !was_growing {
                begun.push(key.clone());
            }
            next.insert(key, (count, grows));
        }
        self.0 = next;
        begun
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limiters_are_told_of_when_they_begin_to_run_out_of_buckets() {
        let key = LimiterKey { service: None, name: "all".to_owned() };
        let mut contended = Contended::default();
        let mut tells = |count| !contended.record(BTreeMap::from([(key.clone(), count)])).is_empty();
        assert_eq!([0, 5, 9, 9, 10].map(&mut tells), [false, true, false, false, true]);
    }
}
