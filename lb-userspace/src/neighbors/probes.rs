//! When a neighbour may be asked for again: often enough to notice it coming back, too seldom to be a nuisance.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::Mac;
use super::kernel::{Neighbor, NeighborKey};

/// The kernel sends three requests a second apart for one probe, so more would only repeat the question.
const MISSING_INTERVAL: Duration = Duration::from_secs(1);
/// A stale entry is usable; it is confirmed about as often as the kernel's own traffic would.
const STALE_INTERVAL: Duration = Duration::from_secs(30);

/// When each neighbour was last probed.
#[derive(Debug, Default)]
pub(super) struct Probes {
    last: HashMap<NeighborKey, Probe>,
}

#[derive(Clone, Copy, Debug)]
struct Probe {
    at: Instant,
    /// The MAC address that was to be confirmed, if there was one.
    mac: Option<Mac>,
}

impl Probes {
    /// Whether the neighbour is to be probed at `now`; the answer "yes" is recorded as a probe.
    pub(super) fn due(&mut self, key: NeighborKey, entry: Option<&Neighbor>, now: Instant) -> bool {
        let interval = match entry {
            None | Some(Neighbor::Failed) => MISSING_INTERVAL,
            Some(Neighbor::Stale(_)) => STALE_INTERVAL,
            Some(Neighbor::Fresh(_)) => {
                // It was found: if it is lost again, that is a new question.
                if self.last.get(&key).is_some_and(|last| last.mac.is_none()) {
                    self.last.remove(&key);
                }
                return false;
            }
            Some(Neighbor::Asking) => return false,
        };
        // Another MAC address, or the loss of it, is a new question.
        let mac = entry.and_then(|entry| entry.mac());
        let asked = |last: &Probe| last.mac == mac && now.duration_since(last.at) < interval;
        let due = !self.last.get(&key).is_some_and(asked);
        if due {
            self.last.insert(key, Probe { at: now, mac });
        }
        due
    }

    /// Forgets the probes that can no longer hold one back, so that neighbours of the past take no memory.
    pub(super) fn forget_before(&mut self, now: Instant) {
        self.last.retain(|_, last| now.duration_since(last.at) < STALE_INTERVAL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: NeighborKey = (2, std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1)));
    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

    /// Probes of one neighbour that stays in one state, asked about every 100 ms for a minute.
    fn probes_in_a_minute(entry: Option<Neighbor>) -> usize {
        let mut probes = Probes::default();
        let start = Instant::now();
        let times = (0..600).map(|tick| start + Duration::from_millis(100) * tick);
        times.filter(|now| probes.due(KEY, entry.as_ref(), *now)).count()
    }

    #[test]
    fn each_state_has_its_rate() {
        assert_eq!(probes_in_a_minute(None), 60);
        assert_eq!(probes_in_a_minute(Some(Neighbor::Failed)), 60);
        assert_eq!(probes_in_a_minute(Some(Neighbor::Stale(MAC))), 2);
        assert_eq!(probes_in_a_minute(Some(Neighbor::Fresh(MAC))), 0);
        assert_eq!(probes_in_a_minute(Some(Neighbor::Asking)), 0);
    }

    #[test]
    fn another_mac_is_another_question() {
        let mut probes = Probes::default();
        let now = Instant::now();
        for entry in [Neighbor::Stale(MAC), Neighbor::Stale([2, 0, 0, 0, 0, 9]), Neighbor::Failed] {
            assert!(probes.due(KEY, Some(&entry), now), "{entry:?}");
            assert!(!probes.due(KEY, Some(&entry), now), "{entry:?} again");
        }
    }

    #[test]
    fn one_that_was_found_is_asked_for_as_soon_as_it_is_lost() {
        let mut probes = Probes::default();
        let now = Instant::now();
        assert!(probes.due(KEY, None, now) && !probes.due(KEY, None, now));
        assert!(!probes.due(KEY, Some(&Neighbor::Fresh(MAC)), now));
        assert!(probes.due(KEY, None, now));
    }

    #[test]
    fn old_probes_are_forgotten() {
        let mut probes = Probes::default();
        let start = Instant::now();
        assert!(probes.due(KEY, None, start));
        probes.forget_before(start + Duration::from_secs(29));
        assert_eq!(probes.last.len(), 1);
        probes.forget_before(start + Duration::from_secs(30));
        assert!(probes.last.is_empty());
    }
}
