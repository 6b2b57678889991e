//! Where neighbours were a moment ago.
//!
//! The kernel forgets neighbours that are still there: when its table is full, when the operator flushes it, when a routing
//! daemon rearranges it. That says nothing of the backend, whose flows would all be moved if it counted as gone.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use tokio::time::Instant;

use super::Mac;
use super::kernel::NeighborKey;

/// How long a neighbour that the kernel forgot is still believed to be where it was: as long as the kernel takes to ask for it
/// three times, a second apart (`mcast_solicit` and `retrans_time_ms` of Documentation/networking/ip-sysctl.rst).
const GRACE: Duration = Duration::from_secs(3);

/// The MAC addresses that the kernel knew last.
#[derive(Debug, Default)]
pub(super) struct Memory(HashMap<NeighborKey, Known>);

#[derive(Clone, Copy, Debug)]
struct Known {
    mac: Mac,
    /// Since when the kernel does not know it any more.
    lost: Option<Instant>,
}

impl Memory {
    /// Where a neighbour is: as the kernel says, or said until a moment ago.
    pub(super) fn recall(&mut self, key: NeighborKey, told: Option<Mac>, now: Instant) -> Option<Mac> {
        if let Some(mac) = told {
            self.0.insert(key, Known { mac, lost: None });
            return told;
        }
        let known = self.0.get_mut(&key)?;
        let lost = *known.lost.get_or_insert(now);
        let mac = known.mac;
        if now.duration_since(lost) >= GRACE {
            self.0.remove(&key);
            return None;
        }
        Some(mac)
    }

    /// When the first of those that the kernel forgot ceases to be believed in.
    pub(super) fn next_end(&self) -> Option<Instant> {
        self.0.values().filter_map(|known| known.lost).min().map(|lost| lost + GRACE)
    }

    /// Believes no more in those whose time is over.
    pub(super) fn expire(&mut self, now: Instant) {
        self.0.retain(|_, known| known.lost.is_none_or(|lost| now.duration_since(lost) < GRACE));
    }

    /// Forgets all but these.
    pub(super) fn keep(&mut self, keys: &BTreeSet<NeighborKey>) {
        self.0.retain(|key, _| keys.contains(key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: NeighborKey = (2, std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1)));
    const MAC: Mac = [2, 0, 0, 0, 0, 1];
    const OTHER: Mac = [2, 0, 0, 0, 0, 9];
    const MOMENT: Duration = Duration::from_millis(1);

    #[test]
    fn a_forgotten_neighbor_is_where_it_was_for_a_moment() {
        let mut memory = Memory::default();
        let now = Instant::now();
        assert_eq!(memory.recall(KEY, Some(MAC), now), Some(MAC));
        assert_eq!(memory.next_end(), None);
        let lost = now + Duration::from_mins(1);
        for when in [lost, lost + MOMENT, lost + GRACE - MOMENT] {
            assert_eq!(memory.recall(KEY, None, when), Some(MAC));
            assert_eq!(memory.next_end(), Some(lost + GRACE));
        }
        assert_eq!(memory.recall(KEY, None, lost + GRACE), None);
        assert_eq!(memory.recall(KEY, None, lost + GRACE), None);
        assert_eq!(memory.next_end(), None);
    }

    #[test]
    fn one_that_is_found_again_has_all_the_time_the_next_time() {
        let mut memory = Memory::default();
        let now = Instant::now();
        memory.recall(KEY, Some(MAC), now);
        memory.recall(KEY, None, now);
        assert_eq!(memory.recall(KEY, Some(OTHER), now + GRACE - MOMENT), Some(OTHER));
        assert_eq!(memory.recall(KEY, None, now + GRACE), Some(OTHER));
        assert_eq!(memory.next_end(), Some(now + GRACE + GRACE));
    }

    #[test]
    fn the_end_comes_once() {
        let mut memory = Memory::default();
        let now = Instant::now();
        memory.recall(KEY, Some(MAC), now);
        memory.recall(KEY, None, now);
        memory.expire(now + GRACE - MOMENT);
        assert_eq!(memory.next_end(), Some(now + GRACE));
        memory.expire(now + GRACE);
        assert_eq!(memory.next_end(), None);
        assert_eq!(memory.recall(KEY, None, now + GRACE), None);
    }

    #[test]
    fn strangers_and_those_of_the_past_are_nowhere() {
        let mut memory = Memory::default();
        let now = Instant::now();
        assert_eq!(memory.recall(KEY, None, now), None);
        memory.recall(KEY, Some(MAC), now);
        memory.keep(&BTreeSet::new());
        assert_eq!(memory.recall(KEY, None, now), None);
    }
}
