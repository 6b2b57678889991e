//! Maglev consistent hashing (Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016,
//! section 3.4), with weights.
//!
//! Each backend walks its own permutation of the slots, and they take turns claiming the next free one. Which slots a
//! backend gets depends on its identity alone, not on the order in which backends are named, so balancers that know the
//! same backends build the same table.

use alloc::borrow::Cow;
use alloc::collections::BinaryHeap;
use alloc::collections::binary_heap::PeekMut;
use alloc::vec;
use alloc::vec::Vec;
use core::cmp::Reverse;

use crate::slot::BackendId;

/// The number of slots of a table: a prime, so that every skip walks through all slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableSize(u32);

impl TableSize {
    /// The size used where none is given.
    pub const DEFAULT: Self = Self(65_537);
    /// The largest size.
    pub const MAX: u32 = 5_000_011;

    /// The size, or `None` if it is not a prime from 2 to [`Self::MAX`].
    pub fn try_new(size: u32) -> Option<Self> {
        (size <= Self::MAX && is_prime(size)).then_some(Self(size))
    }

    /// The smallest valid size that is not below `size`, if there is one.
    pub fn at_least(size: u32) -> Option<Self> {
        (size..=Self::MAX).find_map(Self::try_new)
    }

    /// Slots.
    pub const fn slots(self) -> u32 {
        self.0
    }
}

fn is_prime(n: u32) -> bool {
    n >= 2 && (2..=n.isqrt()).all(|d| !n.is_multiple_of(d))
}

/// A backend that asks for slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// What stands in the slots that it gets.
    pub id: BackendId,
    /// Its share relative to the others; 0 gets nothing.
    pub weight: u16,
    /// Two hashes of what the backend is, such as its address and port; the same on every balancer.
    pub identity: [u64; 2],
}

/// A candidate's place in its permutation of the slots, and how close it is to its next turn.
struct Walker {
    id: BackendId,
    next: u32,
    skip: u32,
    weight: u32,
    credit: u32,
}

impl Walker {
    fn new(candidate: &Candidate, size: u32, heaviest: u32) -> Self {
        let [offset, skip] = candidate.identity;
        let next = (offset % u64::from(size)) as u32;
        let skip = (skip % u64::from(size - 1)) as u32 + 1;
        // Half a turn in advance: shares are then rounded to the nearest slot, not down, which would favour the heaviest.
        Self { id: candidate.id, next, skip, weight: u32::from(candidate.weight), credit: heaviest / 2 }
    }

    /// The next slot of the permutation.
    fn step(&mut self, size: u32) -> usize {
        let slot = self.next;
        self.next += self.skip;
        if self.next >= size {
            self.next -= size;
        }
        slot as usize
    }

    /// Whether this round is its turn: always for the heaviest, every n-th time for one of an n-th of that weight.
    fn turn(&mut self, heaviest: u32) -> bool {
        self.credit += self.weight;
        let turn = self.credit >= heaviest;
        if turn {
            self.credit -= heaviest;
        }
        turn
    }

    /// Skips the rounds before its next turn, and says how many rounds away that is.
    fn skip(&mut self, heaviest: u32) -> u32 {
        let rounds = (heaviest - self.credit).div_ceil(self.weight);
        self.credit += (rounds - 1) * self.weight;
        rounds
    }
}

/// Whose turn it may be, round by round.
///
/// Those of very little weight are asked only when it is their turn: beside a backend of weight 65535, asking a thousand of
/// weight 1 each time would cost more than all the rest.
struct Turns {
    /// Who is asked in each round.
    often: Vec<usize>,
    /// The others, each with the round of its next turn.
    seldom: BinaryHeap<Reverse<(u32, usize)>>,
    /// Of the others, those whose turn it is in this round.
    now: Vec<usize>,
    round: u32,
}

impl Turns {
    /// Who has less than this part of the heaviest weight is not asked each time.
    const SELDOM: u32 = 16;

    fn new(walkers: &[Walker], heaviest: u32) -> Self {
        let is_light = |number: &usize| walkers[*number].weight < heaviest / Self::SELDOM;
        let (now, often) = (0..walkers.len()).partition(is_light);
        Self { often, seldom: BinaryHeap::new(), now, round: 0 }
    }

    /// The numbers of those who are asked in the next round, in their order.
    fn next_round(&mut self, walkers: &mut [Walker], heaviest: u32) -> Cow<'_, [usize]> {
        for number in self.now.drain(..) {
            self.seldom.push(Reverse((self.round + walkers[number].skip(heaviest), number)));
        }
        self.round += 1;
        while let Some(first) = self.seldom.peek_mut().filter(|first| first.0.0 == self.round) {
            self.now.push(PeekMut::pop(first).0.1);
        }
        if self.now.is_empty() {
            return Cow::Borrowed(&self.often);
        }
        let mut asked = [&self.often[..], &self.now].concat();
        asked.sort_unstable();
        Cow::Owned(asked)
    }
}

/// The owner of each slot; empty if nobody has any weight.
pub fn build(candidates: &[Candidate], size: TableSize) -> Vec<BackendId> {
    let size = size.slots();
    let mut sorted: Vec<&Candidate> = candidates.iter().filter(|candidate| candidate.weight > 0).collect();
    sorted.sort_unstable_by_key(|candidate| candidate.identity);
    let Some(heaviest) = sorted.iter().map(|candidate| u32::from(candidate.weight)).max() else {
        return Vec::new();
    };
    let mut walkers: Vec<Walker> =
        sorted.into_iter().map(|candidate| Walker::new(candidate, size, heaviest)).collect();
    let mut turns = Turns::new(&walkers, heaviest);
    let mut slots = vec![None; size as usize];
    let mut free = size;
    while free > 0 {
        for number in &*turns.next_round(&mut walkers, heaviest) {
            let walker = &mut walkers[*number];
            if free > 0 && walker.turn(heaviest) {
                claim(&mut slots, walker, size);
                free -= 1;
            }
        }
    }
    slots.into_iter().flatten().collect()
}

/// Gives the walker the first slot of its permutation that is still free; there must be one.
fn claim(slots: &mut [Option<BackendId>], walker: &mut Walker, size: u32) {
    loop {
        let slot = walker.step(size);
        if slots[slot].is_none() {
            slots[slot] = Some(walker.id);
            return;
        }
    }
}

/// What a new table moves, and the least that any table with the same shares would have moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Disruption {
    /// Slots whose owner changes.
    pub moved: usize,
    /// Slots by which shares grow; only these have to move.
    pub least: usize,
}

/// Compares two tables of one service. A table that was empty, or becomes empty, moves everything.
pub fn disruption(old: &[BackendId], new: &[BackendId]) -> Disruption {
    let common = old.len().min(new.len());
    let resized = old.len().max(new.len()) - common;
    let moved = old.iter().zip(new).filter(|(old, new)| old != new).count();
    let mut growth = vec![0i64; BackendId::LIMIT];
    old[..common].iter().for_each(|id| growth[usize::from(id.number())] -= 1);
    new[..common].iter().for_each(|id| growth[usize::from(id.number())] += 1);
    let least = growth.into_iter().filter(|slots| *slots > 0).sum::<i64>();
    Disruption { moved: moved + resized, least: usize::try_from(least).unwrap_or(0) + resized }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn mix(mut n: u64) -> u64 {
        n = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
        n = (n ^ n >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        n = (n ^ n >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        n ^ n >> 31
    }

    fn candidate(number: u16, weight: u16) -> Candidate {
        let identity = [mix(u64::from(number)), mix(u64::from(number) << 32)];
        Candidate { id: BackendId::try_new(number).unwrap(), weight, identity }
    }

    fn candidates(count: u16) -> Vec<Candidate> {
        (0..count).map(|number| candidate(number, 100)).collect()
    }

    /// The table by the rule itself: everybody is asked in each round.
    fn by_the_rule(candidates: &[Candidate], size: TableSize) -> Vec<BackendId> {
        let heaviest = candidates.iter().map(|candidate| u32::from(candidate.weight)).max().unwrap();
        let mut sorted = candidates.to_vec();
        sorted.sort_unstable_by_key(|candidate| candidate.identity);
        let mut walkers: Vec<_> = sorted.iter().map(|c| Walker::new(c, size.slots(), heaviest)).collect();
        let mut slots = vec![None; size.slots() as usize];
        while slots.contains(&None) {
            for walker in &mut walkers {
                if slots.contains(&None) && walker.turn(heaviest) {
                    claim(&mut slots, walker, size.slots());
                }
            }
        }
        slots.into_iter().flatten().collect()
    }

    fn count(table: &[BackendId], number: u16) -> u32 {
        table.iter().map(|id| u32::from(id.number() == number)).sum()
    }

    /// A size of which the paper says that it is at least 100 times the number of backends.
    fn small() -> TableSize {
        TableSize::try_new(4099).unwrap()
    }

    proptest! {
        #[test]
        fn order_makes_no_difference(
            weights in prop::collection::vec(0u16..200, 1..30),
            rotation in 0usize..30,
        ) {
            let mut some: Vec<_> = weights.iter().zip(0..).map(|(weight, n)| candidate(n, *weight)).collect();
            let table = build(&some, small());
            let middle = rotation % some.len();
            some.rotate_left(middle);
            some.reverse();
            prop_assert_eq!(build(&some, small()), table);
        }

        #[test]
        fn shares_follow_weights(weights in prop::collection::vec(prop_oneof![1u16..1000, 1u16..], 1..40)) {
            let some: Vec<_> = weights.iter().zip(0..).map(|(weight, n)| candidate(n, *weight)).collect();
            let table = build(&some, small());
            prop_assert_eq!(table.len(), 4099);
            let total: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
            for candidate in &some {
                let part = f64::from(candidate.weight) / total;
                let share = f64::from(count(&table, candidate.id.number()));
                // One's own rounding, the last round that may be cut short, and one's part of what the others' rounding,
                // half a slot each, leaves over.
                let bound = 1.5 + part * f64::from(u32::try_from(weights.len()).unwrap());
                let fair = 4099.0 * part;
                prop_assert!((share - fair).abs() <= bound, "share {share}, fair {fair}, bound {bound}");
            }
        }

        #[test]
        fn whoever_is_asked_seldom_gets_the_same_slots(
            weights in prop::collection::vec(prop_oneof![1u16..20, 900u16..1000, 1u16..], 1..12),
        ) {
            let some: Vec<_> = weights.iter().zip(0..).map(|(weight, n)| candidate(n, *weight)).collect();
            let size = TableSize::try_new(499).unwrap();
            prop_assert_eq!(build(&some, size), by_the_rule(&some, size));
        }

        /// From one to the heaviest: each share is right to a slot, even that of 1 beside 65535.
        #[test]
        fn any_two_weights_go_together(one in 1u16.., other in 1u16..) {
            for (one, other) in [(one, other), (1, other), (1, u16::MAX)] {
                let table = build(&[candidate(0, one), candidate(1, other)], TableSize::DEFAULT);
                let (one, other) = (f64::from(one), f64::from(other));
                let fair = 65_537.0 * one / (one + other);
                let share = f64::from(count(&table, 0));
                prop_assert!((share - fair).abs() <= 1.0, "weights {one} and {other}: share {share}, fair {fair}");
            }
        }

        #[test]
        fn removing_one_of_many_moves_little(gone in 0u16..100) {
            let all = candidates(100);
            let rest: Vec<_> = all.iter().filter(|c| c.id.number() != gone).copied().collect();
            let before = build(&all, TableSize::DEFAULT);
            let after = build(&rest, TableSize::DEFAULT);
            let of_others = before.iter().zip(&after).filter(|(b, a)| b.number() != gone && b != a).count();
            prop_assert!(of_others * 100 <= before.len(), "{of_others} slots of the others moved");
            prop_assert!(disruption(&before, &after).least >= count(&before, gone) as usize);
        }
    }

    #[test]
    fn nobody_with_weight_gets_no_table() {
        assert!(build(&[], TableSize::DEFAULT).is_empty());
        assert!(build(&[candidate(0, 0)], TableSize::DEFAULT).is_empty());
    }

    #[test]
    fn sizes_are_primes() {
        for prime in [2, 3, 251, 16_381, 65_537, TableSize::MAX] {
            assert_eq!(TableSize::try_new(prime).map(TableSize::slots), Some(prime));
        }
        for other in [0, 1, 4, 65_536, 65_535, 5_000_021] {
            assert_eq!(TableSize::try_new(other), None);
        }
        assert_eq!(TableSize::at_least(65_536), Some(TableSize::DEFAULT));
    }

    #[test]
    fn disruption_counts_both_ways() {
        let [a, b, c] = [0, 1, 2].map(|n| BackendId::try_new(n).unwrap());
        assert_eq!(disruption(&[a, a, b, b], &[a, b, a, c]), Disruption { moved: 3, least: 1 });
        assert_eq!(disruption(&[], &[a, b]), Disruption { moved: 2, least: 2 });
        assert_eq!(disruption(&[a, b], &[a, b]), Disruption::default());
    }
}
