//! What is remembered of flows in moving slots: a fixed array of sets, changed by compare-and-swap.
//!
//! An entry is two words. The first is searched: the upper half of the flow's hash, when the flow was last seen, how far it
//! got, and its backend. The second confirms: the lower half of the hash, and the flow's slot, by which the daemon finds
//! what is over. The first words of a set are one cache line, the second words the next. No allocation, no list, no lock: a
//! flood of new flows costs what a packet costs, and pushes out other beginners before it touches a flow that was confirmed
//! by a second packet.
//!
//! Two flows are taken for one only if all 64 bits of their keyed hash agree, see [`crate::hash`].
//!
//! Fragments are remembered in a table of the same shape, with what they lead to in place of the slot.

use core::cell::Cell;

use crate::slot::{BackendId, Slot};

/// Entries of one set.
pub const WAYS: usize = 8;

/// The words of one set: the first words of all entries, then their second words.
pub type FlowLines = [u64; 2 * WAYS];

/// Attempts at changing a set that other CPUs change too.
const ATTEMPTS: usize = 2;

/// A moment in units of 2^30 ns, 1.07 s, modulo 2^15: 9.8 hours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tick(u16);

impl Tick {
    /// Nanoseconds of one tick.
    pub const NS: u64 = 1 << 30;

    const MASK: u16 = (1 << 15) - 1;
    /// The most that one CPU's clock is ahead of another's.
    const AHEAD: u16 = 2;

    #[inline(always)]
    const fn later(self, ticks: u16) -> Self {
        Self(self.0.wrapping_add(ticks) & Self::MASK)
    }

    /// The tick of a moment in nanoseconds.
    #[inline(always)]
    pub const fn from_ns(ns: u64) -> Self {
        Self((ns >> 30) as u16 & Self::MASK)
    }

    /// Ticks from `self` to `later`.
    #[inline(always)]
    pub const fn until(self, later: Self) -> u16 {
        later.0.wrapping_sub(self.0) & Self::MASK
    }
}

/// How far an entry got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Stage {
    /// Nothing is here.
    Vacant = 0,
    /// A CPU is writing the second word.
    Claimed = 1,
    /// One packet was seen: perhaps one of a flood.
    Fresh = 2,
    /// A packet that opens nothing was seen after the first.
    Confirmed = 3,
}

/// The first word of an entry: backend in bits 0-14, stage in 15-16, tick in 17-31, upper half of the hash in 32-63.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry(u64);

impl Entry {
    /// Nothing.
    pub const VACANT: Self = Self(0);

    const STAGE: u32 = 15;
    const TICK: u32 = 17;
    const PRICELESS: u32 = u32::MAX;

    /// The word as it stands in the table.
    #[inline(always)]
    pub const fn from_word(word: u64) -> Self {
        Self(word)
    }

    /// The word to put into the table.
    #[inline(always)]
    pub const fn word(self) -> u64 {
        self.0
    }

    /// An entry of a flow.
    #[inline(always)]
    pub const fn new(hash: u64, stage: Stage, backend: BackendId, seen: Tick) -> Self {
        Self(
            hash >> 32 << 32
                | (seen.0 as u64) << Self::TICK
                | (stage as u64) << Self::STAGE
                | backend.number() as u64,
        )
    }

    /// Its backend.
    #[inline(always)]
    pub const fn backend(self) -> BackendId {
        BackendId::masked(self.0)
    }

    /// When its flow was last seen.
    #[inline(always)]
    pub const fn seen(self) -> Tick {
        Tick((self.0 >> Self::TICK) as u16 & Tick::MASK)
    }

    /// How far it got.
    #[inline(always)]
    pub const fn stage(self) -> Stage {
        match self.0 >> Self::STAGE & 3 {
            0 => Stage::Vacant,
            1 => Stage::Claimed,
            2 => Stage::Fresh,
            _ => Stage::Confirmed,
        }
    }

    /// Whether it can be recalled.
    #[inline(always)]
    pub const fn is_whole(self) -> bool {
        self.0 >> Self::STAGE & 2 != 0
    }

    #[inline(always)]
    const fn is_confirmed(self) -> bool {
        self.0 >> Self::STAGE & 3 == 3
    }

    /// The less, the sooner it makes room: vacant, then the one-packet flows, then the others, the oldest first. A way that
    /// another CPU writes to makes none.
    #[inline(always)]
    const fn worth(self, now: Tick) -> u32 {
        // CPUs read the clock apart: what is a little ahead is young, and not hours old.
        let youth = (Tick::MASK - self.seen().until(now.later(Tick::AHEAD))) as u32;
        match self.stage() {
            Stage::Vacant => 0,
            Stage::Claimed => Self::PRICELESS,
            Stage::Fresh => 1 << 16 | youth,
            Stage::Confirmed => 2 << 16 | youth,
        }
    }
}

/// The second word of an entry: the lower half of the hash in bits 0-31, what it leads to in bits 32-63.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Detail(u64);

impl Detail {
    /// The word as it stands in the table.
    #[inline(always)]
    pub const fn from_word(word: u64) -> Self {
        Self(word)
    }

    /// The word to put into the table.
    #[inline(always)]
    pub const fn word(self) -> u64 {
        self.0
    }

    #[inline(always)]
    const fn new(hash: u64, index: u32) -> Self {
        Self((index as u64) << 32 | hash & 0xffff_ffff)
    }

    /// A flow's slot; of a fragment, what its datagram leads to.
    #[inline(always)]
    pub const fn index(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The hash of its flow, of which `entry` is the other word.
    #[inline(always)]
    pub const fn hash(self, entry: Entry) -> u64 {
        entry.0 >> 32 << 32 | self.0 & 0xffff_ffff
    }

    #[inline(always)]
    const fn is_of(self, hash: u64) -> bool {
        self.0 as u32 == hash as u32
    }
}

/// The set of a hash, among `sets`: chosen by its lower half, for the upper one chooses the slot.
#[inline(always)]
pub const fn set_of(hash: u64, sets: u32) -> u32 {
    (((hash & 0xffff_ffff) * sets as u64) >> 32) as u32
}

/// One set of entries that several CPUs change at once. Ways are below [`WAYS`].
pub trait FlowSet {
    /// The first word of a way.
    fn entry(&self, way: usize) -> u64;
    /// The second word of a way.
    fn detail(&self, way: usize) -> u64;
    /// Replaces the first word of a way if it is still `old`; says whether it was.
    fn exchange(&self, way: usize, old: u64, new: u64) -> bool;
    /// Replaces the second word of a way that the caller has claimed.
    fn set_detail(&self, way: usize, detail: u64);
}

/// A set in ordinary memory, for one thread.
impl FlowSet for [Cell<u64>; 2 * WAYS] {
    fn entry(&self, way: usize) -> u64 {
        self[way].get()
    }

    fn detail(&self, way: usize) -> u64 {
        self[WAYS + way].get()
    }

    fn exchange(&self, way: usize, old: u64, new: u64) -> bool {
        let same = self[way].get() == old;
        if same {
            self[way].set(new);
        }
        same
    }

    fn set_detail(&self, way: usize, detail: u64) {
        self[WAYS + way].set(detail);
    }
}

impl<S: FlowSet + ?Sized> FlowSet for &S {
    fn entry(&self, way: usize) -> u64 {
        (**self).entry(way)
    }

    fn detail(&self, way: usize) -> u64 {
        (**self).detail(way)
    }

    fn exchange(&self, way: usize, old: u64, new: u64) -> bool {
        (**self).exchange(way, old, new)
    }

    fn set_detail(&self, way: usize, detail: u64) {
        (**self).set_detail(way, detail);
    }
}

/// An entry that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    way: usize,
    /// Its first word.
    pub entry: Entry,
    /// Its second word.
    pub detail: Detail,
}

/// Looks a hash up.
#[inline(always)]
pub fn recall<S: FlowSet>(set: &S, hash: u64) -> Option<Found> {
    for way in 0..WAYS {
        let entry = Entry(set.entry(way));
        if entry.0 >> 32 == hash >> 32 && entry.is_whole() {
            let detail = Detail(set.detail(way));
            if detail.is_of(hash) {
                return Some(Found { way, entry, detail });
            }
        }
    }
    None
}

/// What became of an entry that was to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// It has a place that was vacant.
    Added,
    /// Another one had to make room.
    Evicted,
    /// Other CPUs were faster, again and again: it was not written.
    Contended,
}

/// Writes an entry for a hash that was not found.
#[inline(always)]
pub fn store<S: FlowSet>(set: &S, hash: u64, entry: Entry, index: u32) -> Stored {
    for _ in 0..ATTEMPTS {
        let (way, old) = cheapest(set, entry.seen());
        let is_free = Entry(old).worth(entry.seen()) != Entry::PRICELESS;
        if is_free && write(set, way, old, hash, entry, index) {
            return if old == 0 { Stored::Added } else { Stored::Evicted };
        }
    }
    Stored::Contended
}

/// Writes an entry in the place of one that was found for its hash; says whether no other CPU was faster.
#[inline(always)]
pub fn replace<S: FlowSet>(set: &S, found: &Found, hash: u64, entry: Entry, index: u32) -> bool {
    write(set, found.way, found.entry.0, hash, entry, index)
}

/// Writes both words of a way if the first is still `old`.
#[inline(always)]
fn write<S: FlowSet>(set: &S, way: usize, old: u64, hash: u64, entry: Entry, index: u32) -> bool {
    let claim = Entry::new(hash, Stage::Claimed, entry.backend(), entry.seen()).0;
    if !set.exchange(way, old, claim) {
        return false;
    }
    set.set_detail(way, Detail::new(hash, index).0);
    // The claim is ours alone, so this cannot fail; an exchange because it orders the two stores.
    set.exchange(way, claim, entry.0);
    true
}

/// The way that can be given up with the least regret, and its first word.
#[inline(always)]
fn cheapest<S: FlowSet>(set: &S, now: Tick) -> (usize, u64) {
    let first = set.entry(0);
    let (mut way, mut word, mut worth) = (0, first, Entry(first).worth(now));
    for other in 1..WAYS {
        let entry = set.entry(other);
        let other_worth = Entry(entry).worth(now);
        if other_worth < worth {
            (way, word, worth) = (other, entry, other_worth);
        }
    }
    (way, word)
}

/// What a packet is to its flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PassengerKind {
    /// One of the flow's packets.
    Goes,
    /// One that opens it.
    Opens,
    /// One that only speaks of it, such as an ICMP error: anybody may have sent it, so nothing is remembered.
    Speaks,
}

/// A packet in a moving slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passenger {
    /// The hash of its flow.
    pub hash: u64,
    /// Index of its slot in the whole slot table.
    pub slot: u32,
    /// What it is to its flow.
    pub kind: PassengerKind,
}

/// What the flow table had to say to a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowEvent {
    /// The flow was known.
    Known,
    /// It was not, and a vacant place was found for it.
    Added,
    /// It was not, and another flow had to make room.
    Evicted,
    /// It was not, and could not be remembered.
    Contended,
}

/// Whose packet it is while its slot moves, and remembers that.
///
/// * A flow that is known goes where it went, as long as that backend is usable. A packet that opens a flow which got no
///   further than its first packet is that packet again; after that it is a new flow with an old name.
/// * A packet that opens a flow goes to `current`.
/// * Any other packet is of a flow older than the move: to `fallback`, or to `current` if that is not usable.
#[inline(always)]
pub fn owner<S: FlowSet>(
    set: &S,
    slot: Slot,
    packet: &Passenger,
    now: Tick,
    usable: impl Fn(BackendId) -> bool,
) -> (BackendId, Option<FlowEvent>) {
    let opens = packet.kind == PassengerKind::Opens;
    let known = recall(set, packet.hash);
    let backend = match known.map(|found| found.entry) {
        Some(entry) if !(opens && entry.is_confirmed()) && usable(entry.backend()) => entry.backend(),
        _ if !opens && usable(slot.fallback()) => slot.fallback(),
        _ => slot.current(),
    };
    if packet.kind == PassengerKind::Speaks {
        return (backend, None);
    }
    let stage = if known.is_none() || opens { Stage::Fresh } else { Stage::Confirmed };
    let entry = Entry::new(packet.hash, stage, backend, now);
    let event = match known {
        Some(found) => {
            if entry != found.entry {
                // If another CPU was faster, it wrote the same or gave the place away: the next packet finds out.
                set.exchange(found.way, found.entry.0, entry.0);
            }
            FlowEvent::Known
        }
        None => match store(set, packet.hash, entry, packet.slot) {
            Stored::Added => FlowEvent::Added,
            Stored::Evicted => FlowEvent::Evicted,
            Stored::Contended => FlowEvent::Contended,
        },
    };
    (backend, Some(event))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn set() -> [Cell<u64>; 2 * WAYS] {
        [const { Cell::new(0) }; 2 * WAYS]
    }

    fn id(number: u16) -> BackendId {
        BackendId::try_new(number).unwrap()
    }

    /// A slot that moves from backend 1 to backend 2.
    fn slot() -> Slot {
        Slot::moving(id(2), id(1))
    }

    fn visit(
        set: &[Cell<u64>; 2 * WAYS],
        slot: Slot,
        hash: u64,
        opens: bool,
        second: u64,
        usable: impl Fn(BackendId) -> bool,
    ) -> (BackendId, FlowEvent) {
        let kind = if opens { PassengerKind::Opens } else { PassengerKind::Goes };
        let packet = Passenger { hash, slot: 77, kind };
        let (backend, event) = owner(set, slot, &packet, Tick::from_ns(second * Tick::NS), usable);
        (backend, event.unwrap())
    }

    fn all(_: BackendId) -> bool {
        true
    }

    proptest! {
        #[test]
        fn words_keep_their_parts(hash: u64, number in 0..BackendId::LIMIT as u16, ns: u64, index: u32) {
            let entry = Entry::new(hash, Stage::Confirmed, id(number), Tick::from_ns(ns));
            prop_assert_eq!((entry.backend(), entry.stage(), entry.seen()), (id(number), Stage::Confirmed, Tick::from_ns(ns)));
            prop_assert_eq!(entry.word() >> 32, hash >> 32);
            let detail = Detail::new(hash, index);
            prop_assert!(detail.is_of(hash) && !detail.is_of(!hash));
            prop_assert_eq!(detail.index(), index);
        }

        #[test]
        fn a_set_is_always_one_of_them(hash: u64, sets in 1u32..) {
            prop_assert!(set_of(hash, sets) < sets);
        }
    }

    #[test]
    fn old_flows_stay_and_new_flows_go() {
        let set = set();
        assert_eq!(visit(&set, slot(), 10, false, 0, all), (id(1), FlowEvent::Added));
        assert_eq!(visit(&set, slot(), 20, true, 0, all), (id(2), FlowEvent::Added));
        assert_eq!(visit(&set, slot(), 20, false, 1, all), (id(2), FlowEvent::Known));
        assert_eq!(visit(&set, slot(), 10, false, 1, all), (id(1), FlowEvent::Known));
    }

    #[test]
    fn a_flow_whose_backend_died_goes_to_whom_strangers_go() {
        let set = set();
        visit(&set, slot(), 10, false, 0, all);
        let alive = |backend| backend != id(1);
        assert_eq!(visit(&set, slot(), 10, false, 1, alive), (id(2), FlowEvent::Known));
        assert_eq!(visit(&set, slot(), 10, false, 2, all), (id(2), FlowEvent::Known), "and stays there");
    }

    #[test]
    fn a_syn_sent_again_is_the_same_flow() {
        let set = set();
        visit(&set, slot(), 10, true, 0, all);
        let moved = Slot::moving(id(3), id(1));
        assert_eq!(visit(&set, moved, 10, true, 1, all).0, id(2), "a retransmission");
        visit(&set, moved, 10, false, 1, all);
        assert_eq!(visit(&set, moved, 10, true, 9, all).0, id(3), "a new flow with old ports");
    }

    #[test]
    fn a_flood_pushes_out_beginners_first() {
        let set = set();
        for flow in 0..3 {
            visit(&set, slot(), flow, true, 0, all);
            visit(&set, slot(), flow, false, 0, all);
        }
        let events: std::vec::Vec<_> =
            (100..200).map(|flow| visit(&set, slot(), flow, true, 5, all).1).collect();
        assert_eq!(events[4..6], [FlowEvent::Added, FlowEvent::Evicted]);
        for flow in 0..3 {
            assert_eq!(visit(&set, slot(), flow, false, 6, all), (id(2), FlowEvent::Known));
        }
    }

    #[test]
    fn the_oldest_makes_room() {
        let set = set();
        for flow in 0..8 {
            for _ in 0..2 {
                visit(&set, slot(), flow, false, flow, all);
            }
        }
        assert_eq!(visit(&set, slot(), 8, false, 8, all).1, FlowEvent::Evicted);
        assert_eq!(recall(&set, 0), None);
        assert!((1..=8).all(|flow| recall(&set, flow).is_some()));
    }

    #[test]
    fn an_entry_that_is_being_written_is_not_recalled() {
        let set = set();
        set[0].set(Entry::new(5, Stage::Claimed, id(1), Tick::from_ns(0)).word());
        set[WAYS].set(Detail::new(5, 0).0);
        assert_eq!(recall(&set, 5), None);
    }

    #[test]
    fn who_is_being_written_does_not_make_room() {
        let set = set();
        let in_stage = |stage| Entry::new(5 << 32, stage, id(1), Tick::from_ns(0)).word();
        set[..7].iter().for_each(|word| word.set(in_stage(Stage::Claimed)));
        set[7].set(in_stage(Stage::Confirmed));
        assert_eq!(visit(&set, slot(), 6 << 32, false, 0, all).1, FlowEvent::Evicted);
        set[7].set(in_stage(Stage::Claimed));
        let before = set.clone();
        assert_eq!(visit(&set, slot(), 7 << 32, false, 0, all).1, FlowEvent::Contended);
        assert_eq!(set, before);
    }

    #[test]
    fn a_flow_seen_by_a_clock_that_is_ahead_is_young() {
        let set = set();
        for flow in 0..8 {
            let second = if flow == 3 { 11 } else { 9 };
            visit(&set, slot(), flow << 32, true, second, all);
        }
        visit(&set, slot(), 8 << 32, true, 10, all);
        assert!(recall(&set, 3 << 32).is_some());
        assert!(recall(&set, 0).is_none(), "the oldest of the others made room");
    }

    #[test]
    fn ticks_wrap() {
        let late = Tick::from_ns((1 << 45) - 1);
        assert_eq!(late.until(Tick::from_ns(1 << 45)), 1);
    }
}
