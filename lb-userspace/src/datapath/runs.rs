//! Entries of a table in runs, one for each owner, that images share as long as they stay the same.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use bytemuck::Pod;

/// Runs of entries by the index of their first. They do not overlap; what is in none of them is zero, and what is zero is as
/// good as absent.
#[derive(Clone, Debug)]
pub struct Runs<T>(BTreeMap<u32, Arc<[T]>>);

impl<T> Default for Runs<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T: Pod> Runs<T> {
    /// Adds a run, or puts it in the place of the one that begins there.
    pub fn insert(&mut self, first: u32, run: Arc<[T]>) {
        self.0.insert(first, run);
    }

    /// The run that begins at an index.
    pub fn run(&self, first: u32) -> Option<&Arc<[T]>> {
        self.0.get(&first)
    }

    /// The same, to be changed.
    pub fn run_mut(&mut self, first: u32) -> Option<&mut [T]> {
        self.0.get_mut(&first).map(Arc::make_mut)
    }

    /// The entry at an index, unless it is zero.
    pub fn get(&self, index: u32) -> Option<&T> {
        let (first, run) = self.0.range(..=index).next_back()?;
        run.get((index - first) as usize).filter(|entry| !is_zero(*entry))
    }

    /// The entries in a range of indices that are not zero.
    pub fn range(&self, range: Range<u32>) -> impl Iterator<Item = (u32, &T)> {
        let before = self.0.range(..range.start).next_back();
        let inside = self.0.range(range.clone());
        before.into_iter().chain(inside).flat_map(entries).filter(move |(index, _)| range.contains(index))
    }

    /// Every entry that is not zero.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        self.0.iter().flat_map(entries)
    }

    /// The entries of those runs that `other` does not share.
    pub(super) fn unshared(&self, other: &Self) -> BTreeMap<u32, T> {
        let is_shared =
            |first: &u32, run: &Arc<[T]>| other.0.get(first).is_some_and(|other| Arc::ptr_eq(run, other));
        let unshared = self.0.iter().filter(|(first, run)| !is_shared(first, run));
        unshared.flat_map(entries).map(|(index, entry)| (index, *entry)).collect()
    }
}

fn entries<'r, T: Pod>((first, run): (&u32, &'r Arc<[T]>)) -> impl Iterator<Item = (u32, &'r T)> {
    (*first..).zip(run.iter()).filter(|(_, entry)| !is_zero(*entry))
}

fn is_zero<T: Pod>(entry: &T) -> bool {
    bytemuck::bytes_of(entry).iter().all(|byte| *byte == 0)
}

/// Each entry becomes part of a run with its neighbours.
impl<T: Pod> FromIterator<(u32, T)> for Runs<T> {
    fn from_iter<I: IntoIterator<Item = (u32, T)>>(entries: I) -> Self {
        let mut runs: BTreeMap<u32, Vec<T>> = BTreeMap::new();
        for (index, entry) in entries.into_iter().collect::<BTreeMap<_, _>>() {
            match runs.last_entry().filter(|run| run.key() + run.get().len() as u32 == index) {
                Some(mut run) => run.get_mut().push(entry),
                None => drop(runs.insert(index, vec![entry])),
            }
        }
        Self(runs.into_iter().map(|(first, run)| (first, run.into())).collect())
    }
}

/// Whatever the runs are, the entries count.
impl<T: Pod + PartialEq> PartialEq for Runs<T> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(entries: &[(u32, u64)]) -> Runs<u64> {
        entries.iter().copied().collect()
    }

    #[test]
    fn entries_are_found_wherever_their_run_begins() {
        let runs = runs(&[(3, 30), (4, 0), (5, 50), (9, 90)]);
        let found: Vec<_> = (0..12).filter_map(|index| Some((index, *runs.get(index)?))).collect();
        assert_eq!(found, [(3, 30), (5, 50), (9, 90)]);
        assert_eq!(runs.iter().map(|(index, entry)| (index, *entry)).collect::<Vec<_>>(), found);
        assert_eq!(runs.range(4..9).map(|(index, _)| index).collect::<Vec<_>>(), [5]);
    }

    #[test]
    fn runs_are_what_their_entries_are() {
        let mut other = Runs::default();
        other.insert(2, [0, 30, 0, 50].into());
        assert_eq!(runs(&[(3, 30), (5, 50)]), other);
        assert_ne!(runs(&[(3, 30)]), other);
    }

    #[test]
    fn what_is_shared_is_not_looked_at() {
        let mut old = runs(&[(0, 1), (1, 2), (5, 6)]);
        let mut new = old.clone();
        assert!(new.unshared(&old).is_empty());
        new.run_mut(5).unwrap()[0] = 7;
        assert_eq!((old.unshared(&new), new.unshared(&old)), ([(5, 6)].into(), [(5, 7)].into()));
        old.insert(5, [7].into());
        assert_eq!(new.unshared(&old), [(5, 7)].into(), "the same entries, and yet another run");
    }
}
