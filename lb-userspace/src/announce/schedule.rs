//! What is to be announced when: pure, the time is told to it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;

use super::links::LinkState;
use crate::neighbors::Mac;

/// How often an address is told to a link: `MAX_NEIGHBOR_ADVERTISEMENT` of RFC 4861, section 10; RFC 5227 wants at least two
/// for IPv4.
const REPETITIONS: u32 = 3;
/// From one to the next: `RETRANS_TIMER` of RFC 4861, section 10.
const SPACING: Duration = Duration::from_secs(1);

/// One frame to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Announcement {
    pub(super) ifindex: u32,
    pub(super) mac: Mac,
    pub(super) vip: IpAddr,
    /// Whether it is the first of its burst.
    pub(super) first: bool,
}

/// How much of a burst is left.
#[derive(Clone, Copy, Debug)]
struct Burst {
    next: Instant,
    left: u32,
}

/// Which VIPs which links know of already.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    vips: BTreeSet<IpAddr>,
    /// The MAC addresses of the links that carry frames.
    links: BTreeMap<u32, Mac>,
    bursts: BTreeMap<(u32, IpAddr), Burst>,
}

impl Schedule {
    /// Makes `vips` the announced ones. Those that are new are told to every link.
    pub(super) fn set_vips(&mut self, vips: BTreeSet<IpAddr>, now: Instant) {
        self.bursts.retain(|(_, vip), _| vips.contains(vip));
        let links: Vec<u32> = self.links.keys().copied().collect();
        for vip in vips.difference(&self.vips) {
            self.bursts.extend(links.iter().map(|ifindex| ((*ifindex, *vip), Burst::at(now))));
        }
        self.vips = vips;
    }

    /// Takes in the state of a link. One that comes up, or gets another MAC address, is told every VIP.
    pub(super) fn set_link(&mut self, LinkState { ifindex, mac }: LinkState, now: Instant) {
        let before = match mac {
            Some(mac) => self.links.insert(ifindex, mac),
            None => self.links.remove(&ifindex),
        };
        if mac == before {
            return;
        }
        self.bursts.retain(|(of, _), _| *of != ifindex);
        if mac.is_some() {
            self.bursts.extend(self.vips.iter().map(|vip| ((ifindex, *vip), Burst::at(now))));
        }
    }

    /// Forgets every link, to be told all of them anew: each may have been down in the meantime.
    pub(super) fn forget_links(&mut self) {
        self.links.clear();
        self.bursts.clear();
    }

    /// Gives up what has not been sent.
    pub(super) fn give_up(&mut self) {
        self.bursts.clear();
    }

    /// When something is to be sent next.
    pub(super) fn next(&self) -> Option<Instant> {
        self.bursts.values().map(|burst| burst.next).min()
    }

    /// What is to be sent now.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<Announcement> {
        let mut due = Vec::new();
        for ((ifindex, vip), burst) in &mut self.bursts {
            if let Some(mac) = self.links.get(ifindex).filter(|_| burst.next <= now) {
                let first = burst.left == REPETITIONS;
                due.push(Announcement { ifindex: *ifindex, mac: *mac, vip: *vip, first });
                *burst = Burst { next: now + SPACING, left: burst.left - 1 };
            }
        }
        self.bursts.retain(|_, burst| burst.left > 0);
        due
    }
}

impl Burst {
    fn at(next: Instant) -> Self {
        Self { next, left: REPETITIONS }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ETH0: u32 = 2;
    const ETH1: u32 = 3;

    fn mac(ifindex: u32) -> Mac {
        [2, 0, 0, 0, 0, ifindex as u8]
    }

    fn vips(last: impl IntoIterator<Item = u8>) -> BTreeSet<IpAddr> {
        last.into_iter().map(|last| [192, 0, 2, last].into()).collect()
    }

    fn up(ifindex: u32) -> LinkState {
        LinkState { ifindex, mac: Some(mac(ifindex)) }
    }

    fn down(ifindex: u32) -> LinkState {
        LinkState { ifindex, mac: None }
    }

    /// What is sent from `start` on until nothing is left: seconds, interface and last byte of the VIP.
    fn sent(schedule: &mut Schedule, start: Instant) -> Vec<(u64, u32, u8)> {
        let mut sent = Vec::new();
        for _ in 0..10 {
            let Some(now) = schedule.next() else { return sent };
            for Announcement { ifindex, vip, .. } in schedule.take_due(now) {
                let IpAddr::V4(vip) = vip else { panic!("{vip}") };
                sent.push(((now - start).as_secs(), ifindex, vip.octets()[3]));
            }
        }
        panic!("it does not end: {sent:?}");
    }

    #[test]
    fn a_new_vip_is_told_to_every_link_three_times_a_second_apart() {
        let (mut schedule, start) = (Schedule::default(), Instant::now());
        schedule.set_link(up(ETH0), start);
        schedule.set_link(up(ETH1), start);
        assert_eq!(schedule.next(), None);
        schedule.set_vips(vips([10]), start);
        let expected: Vec<_> = (0..3).flat_map(|second| [(second, ETH0, 10), (second, ETH1, 10)]).collect();
        assert_eq!(sent(&mut schedule, start), expected);
        schedule.set_vips(vips([10, 11]), start);
        assert_eq!(
            sent(&mut schedule, start),
            (0..6).map(|n| (n / 2, ETH0 + n as u32 % 2, 11)).collect::<Vec<_>>()
        );
    }

    #[test]
    fn the_first_of_a_burst_is_marked() {
        let (mut schedule, now) = (Schedule::default(), Instant::now());
        schedule.set_vips(vips([10]), now);
        schedule.set_link(up(ETH0), now);
        let vip = [192, 0, 2, 10].into();
        let first = Announcement { ifindex: ETH0, mac: mac(ETH0), vip, first: true };
        assert_eq!(schedule.take_due(now), [first]);
        assert_eq!(schedule.take_due(now), [], "the next is not due yet");
        assert_eq!(schedule.take_due(now + SPACING), [Announcement { first: false, ..first }]);
    }

    #[test]
    fn a_link_is_told_when_it_comes_up_and_not_while_it_stays_up() {
        let (mut schedule, start) = (Schedule::default(), Instant::now());
        schedule.set_vips(vips([10]), start);
        assert_eq!(sent(&mut schedule, start), [], "nobody would hear it");
        for _ in 0..2 {
            schedule.set_link(up(ETH0), start);
            assert_eq!(sent(&mut schedule, start), [(0, ETH0, 10), (1, ETH0, 10), (2, ETH0, 10)]);
            schedule.set_link(up(ETH0), start);
            assert_eq!(sent(&mut schedule, start), []);
            schedule.set_link(down(ETH0), start);
            assert_eq!(sent(&mut schedule, start), []);
        }
    }

    #[test]
    fn a_new_mac_is_told() {
        let (mut schedule, start) = (Schedule::default(), Instant::now());
        schedule.set_vips(vips([10]), start);
        schedule.set_link(up(ETH0), start);
        schedule.take_due(start);
        schedule.set_link(LinkState { ifindex: ETH0, mac: Some(mac(9)) }, start);
        assert_eq!(schedule.take_due(start)[0].mac, mac(9));
        assert_eq!(sent(&mut schedule, start).len(), 2);
    }

    #[test]
    fn what_was_given_up_is_told_no_more() {
        let (mut schedule, start) = (Schedule::default(), Instant::now());
        schedule.set_link(up(ETH0), start);
        schedule.set_link(up(ETH1), start);
        schedule.set_vips(vips([10, 11]), start);
        assert_eq!(schedule.take_due(start).len(), 4);
        schedule.set_vips(vips([11]), start);
        schedule.set_link(down(ETH1), start);
        assert_eq!(sent(&mut schedule, start), [(1, ETH0, 11), (2, ETH0, 11)]);
        schedule.set_vips(vips([10, 11]), start);
        schedule.give_up();
        assert_eq!(sent(&mut schedule, start), []);
    }

    #[test]
    fn links_that_were_forgotten_are_told_again() {
        let (mut schedule, start) = (Schedule::default(), Instant::now());
        schedule.set_link(up(ETH0), start);
        schedule.set_vips(vips([10]), start);
        schedule.forget_links();
        assert_eq!(schedule.next(), None);
        schedule.set_link(up(ETH0), start);
        assert_eq!(sent(&mut schedule, start).len(), 3);
    }
}
