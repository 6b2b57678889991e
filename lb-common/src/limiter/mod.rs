//! One word for each source: what it spent, in a set-associative array that all limiters share.
//!
//! A word is a 16-bit tag and 48 bits of the algorithm's own, see [`rule`]. A word that has nothing to say (a bucket that is
//! full again, a window that is over) can be taken over by another source without losing anything. That is what makes a
//! fixed array enough: no allocation, no eviction, and a flood of spoofed sources costs what any packet costs.
//!
//! Whether a word has nothing to say depends on what its moments are: of which clock, of which window. So the array is cut
//! into [`Sets`] within which all words are of one kind. Which a limiter uses is in its [`LimiterEntry`]; [`ask`] asks it.
//! One that only counts may have a [`meter`] beside it.

pub mod meter;
pub mod rule;
pub mod sample;

use core::cell::Cell;

use crate::hash::scale;
use crate::layout::{LimiterEntry, VipKey};
use crate::pipeline::{Clock, Tables};
use meter::METERS;
use rule::{Rule, STATE_BITS, STATE_MASK};

/// Buckets of one set.
pub const WAYS: usize = 4;

/// Attempts at changing a set that other CPUs change too, before the packet is let through.
const ATTEMPTS: usize = 4;

/// Ranges of sets for windows, each of one limiter.
pub const WINDOW_RANGES: u32 = 16;

/// A range of the array's sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sets {
    /// The first set.
    pub first: u32,
    /// How many.
    pub count: u32,
}

/// A damaged row of the table of limiters may name any meter or range: sums wrap, and what lies beyond the array is not found.
impl Sets {
    /// Half of the array is for the buckets of all limiters that read [`Clock::Jiffies`].
    #[inline(always)]
    pub const fn of_ticks(total: u32) -> Self {
        Self { first: 0, count: total / 2 }
    }

    /// An eighth is for the buckets of all limiters that read [`Clock::Exact`].
    pub const fn of_nanoseconds(total: u32) -> Self {
        Self { first: total / 2, count: total / 8 }
    }

    /// An eighth is for the words of meters, in [`METERS`] ranges.
    #[inline(always)]
    pub const fn of_meter(total: u32, meter: u32) -> Self {
        let count = total / 8 / METERS;
        Self { first: (total / 8 * 5).wrapping_add(meter.wrapping_mul(count)), count }
    }

    /// The last quarter is for windows, in [`WINDOW_RANGES`] ranges: a window's words can be told idle from busy only by who
    /// knows its length.
    pub const fn of_window(total: u32, range: u32) -> Self {
        let count = total / 4 / WINDOW_RANGES;
        Self { first: (total / 4 * 3).wrapping_add(range.wrapping_mul(count)), count }
    }

    /// The set of a hash.
    #[inline(always)]
    pub const fn find(self, hash: u64) -> u32 {
        self.first.wrapping_add(scale(hash, self.count))
    }
}

/// One set of buckets that several CPUs change at once.
pub trait BucketSet {
    /// The word of a way below [`WAYS`].
    fn load(&self, way: usize) -> u64;

    /// Replaces the word of a way if it is still `old`; says whether it was.
    fn exchange(&self, way: usize, old: u64, new: u64) -> bool;
}

/// A set in ordinary memory, for one thread.
impl BucketSet for [Cell<u64>; WAYS] {
    fn load(&self, way: usize) -> u64 {
        self[way].get()
    }

    fn exchange(&self, way: usize, old: u64, new: u64) -> bool {
        let same = self[way].get() == old;
        if same {
            self[way].set(new);
        }
        same
    }
}

impl<S: BucketSet + ?Sized> BucketSet for &S {
    fn load(&self, way: usize) -> u64 {
        (**self).load(way)
    }

    fn exchange(&self, way: usize, old: u64, new: u64) -> bool {
        (**self).exchange(way, old, new)
    }
}

/// What a word says to a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Within its rate.
    Admitted,
    /// Over its rate.
    Limited,
    /// No bucket could be had; let through.
    Contended,
}

/// Charges `units` units of the source that hashes to `hash` to its bucket in `set`.
///
/// The tag is the lower 16 bits of the hash, but never 0; the caller chose the set by the upper ones.
#[inline(always)]
pub fn charge<S: BucketSet>(set: &S, hash: u64, now: u64, rule: &Rule, units: u64) -> Admission {
    for _ in 0..ATTEMPTS {
        if let Some(admission) = charge_once(set, hash, now, rule, units) {
            return admission;
        }
    }
    Admission::Contended
}

/// [`charge`] with one attempt: `None` if another CPU changed the bucket in the meantime.
#[inline(always)]
fn charge_once<S: BucketSet>(set: &S, hash: u64, now: u64, rule: &Rule, units: u64) -> Option<Admission> {
    // An unused word has the tag 0, and says nothing whatever the time.
    let tag = (hash << STATE_BITS).max(1 << STATE_BITS);
    let (way, old, start) = find(set, tag, now, rule);
    if way == WAYS {
        return Some(Admission::Contended);
    }
    let Some(new) = rule.admit(start, now, units) else { return Some(Admission::Limited) };
    set.exchange(way, old, new).then_some(Admission::Admitted)
}

/// The way of the tag's bucket, or else the first that has nothing to say, or else [`WAYS`]; its word, and the word to go on
/// from. Not an `Option` inside the loop: LLVM would carry its absent half along as an undefined value, and the verifier
/// refuses to see one stored.
#[inline(always)]
fn find<S: BucketSet>(set: &S, tag: u64, now: u64, rule: &Rule) -> (usize, u64, u64) {
    let (mut vacant, mut old) = (WAYS, 0);
    for way in 0..WAYS {
        let word = set.load(way);
        if word & !STATE_MASK == tag {
            return (way, word, word);
        }
        if vacant == WAYS && rule.is_idle(word, now) {
            (vacant, old) = (way, word);
        }
    }
    (vacant, old, tag | rule.idle_state(now))
}

/// What a limiter wants to know of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asker {
    /// Where it comes from; IPv4 as a mapped address.
    pub source: VipKey,
    /// Its bytes: IP length and Ethernet header.
    pub bytes: u32,
    /// [`OPENS`] and [`ECN_CAPABLE`].
    pub traits: u32,
}

/// In [`Asker::traits`]: the packet opens a flow.
pub const OPENS: u32 = 1;
/// In [`Asker::traits`]: its sender understands congestion marks (RFC 3168).
pub const ECN_CAPABLE: u32 = 2;

/// What is to be done with a packet, in the order of strictness.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub enum Ruling {
    /// It may pass.
    Pass = 0,
    /// It may pass, marked as having met congestion.
    Mark = 1,
    /// It is dropped.
    Drop = 2,
    /// There is no such limiter or bucket, which is a mistake in the tables.
    Inconsistent = 3,
}

/// Something that happened to a packet at one limiter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimiterEvent {
    /// Within the limit.
    Admitted,
    /// Over it, and dealt with as the limiter's action says.
    Over,
    /// Over it and to be marked, but its sender does not understand marks: passed.
    Unmarked,
    /// Passed because no bucket could be had.
    Contended,
}

/// Asks the limiter in a row of the table about a packet, and counts its answer.
#[inline(always)]
pub fn ask<T: Tables>(tables: &T, row: u32, asker: &Asker) -> Ruling {
    let Some(limiter) = tables.limiter(row) else { return Ruling::Inconsistent };
    if !limiter.counts(asker) {
        return Ruling::Pass;
    }
    let Some(charge) = Charge::of(tables, limiter, asker) else { return Ruling::Inconsistent };
    let Charge { buckets, hash, now, units } = charge;
    if limiter.flags & LimiterEntry::METERED != 0 {
        tables.measure(limiter.meter, hash, now, units);
    }
    conclude(tables, limiter, asker, self::charge(&buckets, hash, now, &limiter.rule, units))
}

/// [`ask`] for nearly every packet of nearly every limited service: the limiter is a bucket, and no other CPU gets in the way.
/// All else takes the long way, which the kernel's program has in one place only.
#[inline(always)]
pub fn ask_at_once<T: Tables>(tables: &T, row: u32, asker: &Asker) -> Ruling {
    let Some(limiter) = tables.limiter(row) else { return Ruling::Inconsistent };
    // One test for nearly every limiter: it counts all packets, and has no meter.
    if limiter.flags & (LimiterEntry::NEW_CONNECTIONS | LimiterEntry::METERED) != 0 {
        if !limiter.counts(asker) {
            return Ruling::Pass;
        }
        if limiter.flags & LimiterEntry::METERED != 0 {
            return tables.ask(row, asker);
        }
    }
    let Some(rule) = limiter.rule.as_bucket() else { return tables.ask(row, asker) };
    let Some(charge) = Charge::of(tables, limiter, asker) else { return Ruling::Inconsistent };
    let Charge { buckets, hash, now, units } = charge;
    match charge_once(&buckets, hash, now, &rule, units) {
        Some(admission) => conclude(tables, limiter, asker, admission),
        None => tables.ask(row, asker),
    }
}

/// What is charged to whom.
struct Charge<B> {
    buckets: B,
    hash: u64,
    now: u64,
    units: u64,
}

impl<'t, B> Charge<B> {
    #[inline(always)]
    fn of<T: Tables<Buckets<'t> = B>>(tables: &'t T, limiter: &LimiterEntry, asker: &Asker) -> Option<Self> {
        // First: the exact clock waits for what came before it, but what follows need not wait for the clock.
        let exact = limiter.flags & LimiterEntry::EXACT_CLOCK != 0;
        let now = tables.now(if exact { Clock::Exact } else { Clock::Jiffies });
        let hash = limiter.hash(tables.hash_key(), asker.source);
        let buckets = tables.buckets(limiter.sets().find(hash))?;
        let units = if limiter.flags & LimiterEntry::BYTES == 0 { 1 } else { u64::from(asker.bytes) };
        Some(Self { buckets, hash, now, units })
    }
}

/// Counts what came of it, tells of whoever is over the limit, and rules.
#[inline(always)]
fn conclude<T: Tables>(tables: &T, limiter: &LimiterEntry, asker: &Asker, admission: Admission) -> Ruling {
    let (event, ruling) = match admission {
        Admission::Admitted => (LimiterEvent::Admitted, Ruling::Pass),
        Admission::Contended => (LimiterEvent::Contended, Ruling::Pass),
        Admission::Limited if limiter.flags & LimiterEntry::DROP != 0 => (LimiterEvent::Over, Ruling::Drop),
        Admission::Limited if limiter.flags & LimiterEntry::MARK == 0 => (LimiterEvent::Over, Ruling::Pass),
        Admission::Limited if asker.traits & ECN_CAPABLE == 0 => (LimiterEvent::Unmarked, Ruling::Pass),
        Admission::Limited => (LimiterEvent::Over, Ruling::Mark),
    };
    tables.count_limiter(limiter.counters, event);
    if admission == Admission::Limited {
        tables.over(limiter.salt, limiter.masked(asker.source));
    }
    ruling
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::HashKey;
    use rule::Algorithm;
    use std::vec::Vec;

    type Set = [Cell<u64>; WAYS];

    fn bucket(rate: u64, burst: u64) -> Rule {
        Rule::token_bucket(rate, burst).unwrap()
    }

    #[test]
    fn a_clock_that_runs_backwards_mints_nothing() {
        let rule = bucket(1000, 5);
        let set = Set::default();
        let now = 1_000_000_000;
        let burst: Vec<_> = (0..6).map(|_| charge(&set, 9, now, &rule, 1)).collect();
        assert_eq!(burst[4..], [Admission::Admitted, Admission::Limited]);
        assert_eq!(charge(&set, 9, now - 500_000_000, &rule, 1), Admission::Limited);
    }

    #[test]
    fn a_set_full_of_busy_sources_lets_strangers_through() {
        let second = 1_000_000_000;
        let rules =
            [bucket(1, 1), Rule::window(Algorithm::FixedWindow, 1, second).unwrap()].map(|rule| (rule, 1));
        let sliding = (Rule::window(Algorithm::SlidingWindow, 1, second).unwrap(), 2);
        for (rule, busy) in rules.into_iter().chain([sliding]) {
            let set = Set::default();
            let now = 5 * second;
            for tag in 1..=4 {
                assert_eq!(charge(&set, tag, now, &rule, 1), Admission::Admitted);
            }
            assert_eq!(charge(&set, 5, now, &rule, 1), Admission::Contended);
            assert_eq!(charge(&set, 4, now, &rule, 1), Admission::Limited);
            assert_eq!(charge(&set, 5, now + busy * second, &rule, 1), Admission::Admitted);
        }
    }

    #[test]
    fn an_unused_array_is_vacant_at_any_time() {
        // Just before the 48 bits wrap, a time of zero would lie in the near future.
        let now = (1 << STATE_BITS) - 5;
        for hash in [7, 0] {
            assert_eq!(charge(&Set::default(), hash, now, &bucket(1, 1), 1), Admission::Admitted);
        }
    }

    #[test]
    fn a_full_bucket_may_be_taken_over() {
        let rule = bucket(1000, 10);
        let set = Set::default();
        charge(&set, 1, 0x1000_0000, &rule, 1);
        assert_eq!(charge(&set, 2, 0x1000_0000 + 2_000_000, &rule, 1), Admission::Admitted);
        assert_eq!(set.load(0) >> STATE_BITS, 2, "the first way was free again");
        assert_eq!(set.load(1), 0);
    }

    /// Two sources share a bucket if set and tag agree: 2^7 sets and 2^16 tags make one pair in 2^23.
    #[test]
    fn sources_share_buckets_as_rarely_as_chance_has_it() {
        let sources = 50_000_u32;
        let expected = f64::from(sources) * f64::from(sources - 1) / 2.0 / f64::from(1 << 23);
        let random = core::array::from_fn(|n| (n as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let key = HashKey::from_random(random);
        let sets = Sets { first: 0, count: 1 << 7 };
        // Neighbours in IPv4, in the upper and in the lower half of IPv6: as unlike random numbers as addresses get.
        let addresses: [fn(u64) -> [u64; 2]; 3] = [
            |n| [0, (0xc633_0000 + n) << 32 | 0xffff_0000],
            |n| [u64::to_be(0x2001_0db8_0000_0000 + n), 0],
            |n| [0xb80d_0120, u64::to_be(n)],
        ];
        for address in addresses {
            let place = |n| {
                let hash = key.source(address(n), 7);
                (sets.find(hash), hash as u16)
            };
            let mut places: Vec<_> = (0..sources).map(|n| place(n.into())).collect();
            places.sort_unstable();
            let shared = places.windows(2).filter(|pair| pair[0] == pair[1]).map(|_| 1.0).sum::<f64>();
            // Five standard deviations of a Poisson distribution.
            assert!((shared - expected).abs() < 5.0 * expected.sqrt(), "{shared} pairs, {expected} expected");
        }
    }

    #[test]
    fn words_of_different_kinds_share_no_set() {
        let total = 1 << 10;
        let windows = (0..WINDOW_RANGES).map(|range| Sets::of_window(total, range));
        let meters = (0..METERS).map(|meter| Sets::of_meter(total, meter));
        let all =
            [Sets::of_ticks(total), Sets::of_nanoseconds(total)].into_iter().chain(meters).chain(windows);
        let mut next = 0;
        for sets in all {
            assert_eq!((sets.find(0), sets.find(u64::MAX)), (next, next + sets.count - 1));
            next += sets.count;
        }
        assert_eq!(next, total);
    }
}
