//! What one word says of a source, and what a packet does to it: pure functions of word, moment, cost and rule.
//!
//! A word is a 16-bit tag, the caller's, above 48 bits of the algorithm's own. A rule with its words:
//!
//! | algorithm | the 48 bits | what is admitted in any stretch of `t` |
//! |---|---|---|
//! | token bucket (GCRA, ITU-T I.371, annex A) | when the bucket will be full again | at most rate x t + burst, and everything within it |
//! | leaky bucket as a meter | the same: [`Rule::token_bucket`] | the same |
//! | fixed window | number of the window (16 bits), count (32) | at most 2 x the limit within the length of a window: all of one window at its end, all of the next at its start |
//! | sliding window, two weighted windows | number (16), count of the window before (16), count (16) | within the length of a window, as much as the limit if arrivals are even; at most 2 x the limit if they come in bursts |
//!
//! A leaky bucket that leaks at a rate and is full at a burst holds what the token bucket lacks: both are one algorithm, in
//! its two descriptions in I.371. Moments are nanoseconds modulo 2^48 (78 hours); where they wrap, a window begins anew. A
//! word that was left alone for just 65 535 or 65 536 windows counts as of now.

use bytemuck::{Pod, Zeroable};

/// Bits of a word below its tag.
pub(super) const STATE_BITS: u32 = 48;
pub(super) const STATE_MASK: u64 = (1 << STATE_BITS) - 1;

/// The furthest that a bucket's time can be ahead, and the longest window: 68 seconds.
pub const HORIZON_NS: u64 = 1 << 36;

/// The shortest window: twice the longest tick of a kernel's timer.
pub const SHORTEST_WINDOW_NS: u64 = 20_000_000;

/// The highest rate of bytes: 10^12 a second, 8 Tbit/s.
pub const MAX_RATE: u64 = 1_000_000_000_000;

/// A bucket's pace is in units of 2^-20 ns.
const PACE_BITS: u32 = 20;
/// A window's position is reckoned from moments in units of 2^16 ns, 66 microseconds.
const MOMENT_BITS: u32 = 16;
const SECOND_NS: u64 = 1_000_000_000;

/// How arrivals are weighed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Algorithm {
    /// Tokens come at a rate, as many as the burst are kept; a leaky bucket seen from the other side.
    TokenBucket = 0,
    /// Arrivals since the window began.
    FixedWindow = 1,
    /// Those, and of the window before as much as would still count if it had been even.
    SlidingWindow = 2,
}

/// The parameters of an algorithm, as a table holds them. Units are what the caller counts: packets, bytes, connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Rule {
    /// Of a bucket: 2^20 times the nanoseconds in which one unit comes back. Of a window: 2^56 / its length in nanoseconds.
    pace: u64,
    /// What may be spent at once: of a bucket in nanoseconds, of a window in units.
    allowance: u64,
    algorithm: u32,
    reserved: u32,
}

/// Why there is no such rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuleError {
    /// The rate or the limit is zero.
    Nothing,
    /// The burst is zero.
    NoBurst,
    /// More than [`MAX_RATE`].
    TooFast,
    /// The burst takes [`HORIZON_NS`] or longer to come back.
    TooSlow,
    /// The window is shorter than [`SHORTEST_WINDOW_NS`], or [`HORIZON_NS`] or longer.
    Window,
    /// A window's limit does not fit its word: [`Algorithm::most`].
    TooMany,
}

impl Algorithm {
    /// The highest limit of a window: what its word can count.
    pub const fn most(self) -> u64 {
        match self {
            Self::TokenBucket => u64::MAX,
            Self::FixedWindow => u32::MAX as u64,
            Self::SlidingWindow => u16::MAX as u64,
        }
    }
}

impl Rule {
    /// `rate` packets or connections a second, `burst` at once: units that come one by one.
    ///
    /// One costs whole nanoseconds, rounded down: the burst is exact, the rate is exact to `rate / 10^9` and never less.
    pub const fn token_bucket(rate: u64, burst: u64) -> Result<Self, RuleError> {
        if rate > SECOND_NS {
            return Err(RuleError::TooFast);
        }
        let Some(interval) = SECOND_NS.checked_div(rate) else { return Err(RuleError::Nothing) };
        Self::bucket(interval << PACE_BITS, burst)
    }

    /// `rate` bytes a second, `burst` at once: units of which a packet brings many.
    ///
    /// A packet costs whole nanoseconds, rounded down, so a rate of packets that cost `n` ns each is exact to `1 / n`.
    pub const fn byte_bucket(rate: u64, burst: u64) -> Result<Self, RuleError> {
        if rate > MAX_RATE {
            return Err(RuleError::TooFast);
        }
        let Some(pace) = (SECOND_NS << PACE_BITS).checked_div(rate) else { return Err(RuleError::Nothing) };
        Self::bucket(pace, burst)
    }

    const fn bucket(pace: u64, burst: u64) -> Result<Self, RuleError> {
        if burst == 0 {
            return Err(RuleError::NoBurst);
        }
        match pace.checked_mul(burst) {
            Some(whole) if whole >> PACE_BITS < HORIZON_NS => {
                Ok(Self::new(Algorithm::TokenBucket, pace, whole >> PACE_BITS))
            }
            _ => Err(RuleError::TooSlow),
        }
    }

    /// `limit` units in each window of `length_ns` nanoseconds ([`Algorithm::FixedWindow`]), or in the last `length_ns`
    /// nanoseconds ([`Algorithm::SlidingWindow`]).
    pub const fn window(algorithm: Algorithm, limit: u64, length_ns: u64) -> Result<Self, RuleError> {
        if limit == 0 {
            return Err(RuleError::Nothing);
        }
        if limit > algorithm.most() {
            return Err(RuleError::TooMany);
        }
        if length_ns < SHORTEST_WINDOW_NS || length_ns >= HORIZON_NS {
            return Err(RuleError::Window);
        }
        // Rounded up, so that windows of a whole number of moments begin exactly with one.
        Ok(Self::new(algorithm, (1_u64 << 56).div_ceil(length_ns), limit))
    }

    const fn new(algorithm: Algorithm, pace: u64, allowance: u64) -> Self {
        Self { pace, allowance, algorithm: algorithm as u32, reserved: 0 }
    }

    /// Whether a clock with this tick, in nanoseconds, is fine enough: what comes in one tick must fit the allowance.
    pub const fn covers(&self, tick_ns: u64) -> bool {
        self.algorithm != Algorithm::TokenBucket as u32 || self.allowance >= 2 * tick_ns
    }

    /// The same rule if it is a bucket, in a form that tells the compiler so.
    #[inline(always)]
    pub fn as_bucket(&self) -> Option<Self> {
        const BUCKET: u32 = Algorithm::TokenBucket as u32;
        (self.algorithm == BUCKET).then_some(Self { algorithm: BUCKET, ..*self })
    }

    /// Whether the word says nothing about its source at `now`, so that another one may have it.
    #[inline(always)]
    pub fn is_idle(&self, word: u64, now: u64) -> bool {
        word == 0
            || if self.algorithm == Algorithm::TokenBucket as u32 {
                ahead(word, now) == 0
            } else {
                Counts::of(word).age(self.position(now)) > u16::from(self.slides())
            }
    }

    /// A state that says nothing at `now`: what a source has that nobody knows yet.
    #[inline(always)]
    pub fn idle_state(&self, now: u64) -> u64 {
        if self.algorithm == Algorithm::TokenBucket as u32 {
            now & STATE_MASK
        } else {
            u64::from(self.position(now) >> 16) << 32
        }
    }

    /// What `units` units at `now` make of the word, or `None` if they are too many. The tag stays as it is.
    ///
    /// `word` may be anything: what this rule cannot have written counts as the most that it can have written.
    #[inline(always)]
    pub fn admit(&self, word: u64, now: u64, units: u64) -> Option<u64> {
        let state = if self.algorithm == Algorithm::TokenBucket as u32 {
            self.pour(word, now, units)?
        } else {
            self.count(word, now, units)?
        };
        Some(word & !STATE_MASK | state & STATE_MASK)
    }

    #[inline(always)]
    fn pour(&self, word: u64, now: u64, units: u64) -> Option<u64> {
        let spent = ahead(word, now).min(self.allowance) + (units.wrapping_mul(self.pace) >> PACE_BITS);
        (spent <= self.allowance).then(|| now.wrapping_add(spent))
    }

    #[inline(always)]
    fn count(&self, word: u64, now: u64, units: u64) -> Option<u64> {
        let position = self.position(now);
        let slides = self.slides();
        let counts = Counts::of(word).at(position, slides);
        let before = if slides { counts.weighted_previous(position) } else { 0 };
        let current = counts.current(slides);
        (before + current + units <= self.allowance).then(|| counts.with(current + units, slides).0)
    }

    #[inline(always)]
    const fn slides(&self) -> bool {
        self.algorithm == Algorithm::SlidingWindow as u32
    }

    /// Number of the window in the upper 16 bits, how much of it is over in the lower 16.
    #[inline(always)]
    fn position(&self, now: u64) -> u32 {
        // Both factors are of 32 bits: the shortest window is longer than 2^24 ns.
        (((now & STATE_MASK) >> MOMENT_BITS).wrapping_mul(self.pace) >> 24) as u32
    }
}

/// Nanoseconds by which the word's time is ahead of `now`; 0 if it is past.
#[inline(always)]
pub(super) fn ahead(word: u64, now: u64) -> u64 {
    let difference = word.wrapping_sub(now) & STATE_MASK;
    if difference < HORIZON_NS { difference } else { 0 }
}

/// The state of a window: its number in bits 32-47; below, one count of 32 bits, or the count of the window before in bits
/// 16-31 and of this one in bits 0-15.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Counts(u64);

impl Counts {
    #[inline(always)]
    const fn of(word: u64) -> Self {
        Self(word & STATE_MASK)
    }

    #[inline(always)]
    const fn number(self) -> u16 {
        (self.0 >> 32) as u16
    }

    /// Windows from this one to that of `position`, modulo 2^16; none if this one is the next: another CPU's clock is ahead.
    #[inline(always)]
    const fn age(self, position: u32) -> u16 {
        let age = ((position >> 16) as u16).wrapping_sub(self.number());
        if age == u16::MAX { 0 } else { age }
    }

    /// The counts as they are at `position`.
    #[inline(always)]
    const fn at(self, position: u32, slides: bool) -> Self {
        let number = (position >> 16 << 16) as u64;
        match self.age(position) {
            0 => self,
            1 if slides => Self(number << 16 | (self.0 & 0xffff) << 16),
            _ => Self(number << 16),
        }
    }

    #[inline(always)]
    const fn current(self, slides: bool) -> u64 {
        self.0 & if slides { 0xffff } else { 0xffff_ffff }
    }

    /// What of the window before is still within one window's length, if it was even; rounded up.
    #[inline(always)]
    const fn weighted_previous(self, position: u32) -> u64 {
        let left = (1 << 16) - (position & 0xffff) as u64;
        ((self.0 >> 16 & 0xffff) * left).div_ceil(1 << 16)
    }

    #[inline(always)]
    const fn with(self, current: u64, slides: bool) -> Self {
        let rest = self.0 & !(if slides { 0xffff } else { 0xffff_ffff });
        Self(rest | current)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use std::vec::Vec;

    use super::*;

    /// Tokens in 10^-9, the slow and obvious way.
    struct TokenBucket {
        rate: u128,
        burst: u128,
        held: u128,
        last: u64,
    }

    impl TokenBucket {
        fn new(rate: u64, burst: u64, now: u64) -> Self {
            let burst = u128::from(burst) * u128::from(SECOND_NS);
            Self { rate: rate.into(), burst, held: burst, last: now }
        }

        /// Whether so many units may pass now, and if so, takes them.
        fn take(&mut self, now: u64, units: u64) -> bool {
            self.held = self.burst.min(self.held + u128::from(now - self.last) * self.rate);
            self.last = now;
            let price = u128::from(units) * u128::from(SECOND_NS);
            let left = self.held.checked_sub(price);
            self.held = left.unwrap_or(self.held);
            left.is_some()
        }
    }

    /// A bucket of water in 10^-9 units that leaks.
    struct Leak {
        rate: u128,
        brim: u128,
        level: u128,
        last: u64,
    }

    impl Leak {
        fn pour(&mut self, now: u64, units: u64) -> bool {
            self.level = self.level.saturating_sub(u128::from(now - self.last) * self.rate);
            self.last = now;
            let after = self.level + u128::from(units) * u128::from(SECOND_NS);
            let fits = after <= self.brim;
            if fits {
                self.level = after;
            }
            fits
        }
    }

    /// Windows' lengths are exact to 2^-24: moments up to here fall into the windows that division finds.
    const EXACT: u64 = (1 << 40) - 1;

    /// Any moment, and often one shortly before moments wrap.
    fn moment() -> impl Strategy<Value = u64> {
        prop_oneof![
            any::<u64>().prop_map(|n| n >> 8),
            (1..HORIZON_NS).prop_map(|left| (1 << STATE_BITS) - left)
        ]
    }

    /// Runs a rule over arrivals of a new source, moments after the last and units each: what it admitted, with the moments.
    fn run(rule: &Rule, start: u64, arrivals: &[(u64, u64)]) -> Vec<(u64, u64, bool)> {
        let (mut word, mut now) = (rule.idle_state(start), start);
        let step = |&(gap, units): &(u64, u64)| {
            now += gap;
            let admitted = rule.admit(word, now, units);
            word = admitted.unwrap_or(word);
            (now, units, admitted.is_some())
        };
        arrivals.iter().map(step).collect()
    }

    /// The most that was admitted in any stretch of `length` nanoseconds that begins with an arrival.
    fn most_within(length: u64, ran: &[(u64, u64, bool)]) -> u64 {
        let of = |begin: u64| {
            let within = ran.iter().filter(|(at, ..)| (begin..begin + length).contains(at));
            within.filter(|(.., admitted)| *admitted).map(|(_, units, _)| units).sum()
        };
        ran.iter().map(|(begin, ..)| of(*begin)).max().unwrap_or(0)
    }

    proptest! {
        /// With a rate that divides 10^9 they agree packet by packet.
        #[test]
        fn one_word_is_a_token_bucket_and_a_leaky_bucket(
            rate in prop::sample::select(std::vec![1u64, 10, 125, 1000, 50_000, 1_000_000]),
            burst in 1u64..50,
            start in moment(),
            gaps in prop::collection::vec(0u64..4, 1..300),
        ) {
            let rule = Rule::token_bucket(rate, burst).unwrap();
            let mut tokens = TokenBucket::new(rate, burst, start);
            let brim = u128::from(burst) * u128::from(SECOND_NS);
            let mut leak = Leak { rate: rate.into(), brim, level: 0, last: start };
            let arrivals: Vec<_> = gaps.iter().map(|gap| (gap * SECOND_NS / rate / 2, 1)).collect();
            for (at, units, admitted) in run(&rule, start, &arrivals) {
                prop_assert_eq!(admitted, tokens.take(at, units), "tokens at {}", at - start);
                prop_assert_eq!(admitted, leak.pour(at, units), "water at {}", at - start);
            }
        }

        /// Bytes: the rule is a token bucket but for its rounding, which is a nanosecond a packet.
        #[test]
        fn bytes_are_counted_to_a_nanosecond_a_packet(
            rate in 1_000u64..100_000_000_000,
            start in moment(),
            arrivals in prop::collection::vec((0u64..2000, 60u64..9000), 1..200),
        ) {
            let burst = 100_000.min(rate);
            let rule = Rule::byte_bucket(rate, burst).unwrap();
            let ran = run(&rule, start, &arrivals);
            let elapsed = ran.last().unwrap().0 - start;
            let admitted: u64 = ran.iter().filter(|(.., admitted)| *admitted).map(|(_, units, _)| units).sum();
            let packets = ran.iter().filter(|(.., admitted)| *admitted).count() as u128;
            let slack = packets + 1;
            let fair = (u128::from(elapsed) + slack) * u128::from(rate) / u128::from(SECOND_NS) + u128::from(burst);
            prop_assert!(u128::from(admitted) <= fair + slack, "{admitted} of {fair}");
            // And nothing is refused that an exact bucket had room for, but for two nanoseconds' worth.
            let second = i128::from(SECOND_NS);
            let (brim, grain) = (i128::from(burst) * second, 2 * i128::from(rate) + second);
            let (mut held, mut last) = (brim, start);
            for (at, units, admitted) in ran {
                held = brim.min(held + i128::from(at - last) * i128::from(rate));
                last = at;
                let price = i128::from(units) * second;
                prop_assert!(admitted || held < price + grain, "{units} bytes were refused, {held} were held");
                held -= if admitted { price } else { 0 };
            }
        }

        #[test]
        fn a_fixed_window_counts_what_came_since_it_began(
            moments in 400u64..30_000,
            limit in 1u64..200,
            start in moment(),
            arrivals in prop::collection::vec((0u64..40_000_000, 1u64..4), 1..300),
        ) {
            let length = moments << MOMENT_BITS;
            let rule = Rule::window(Algorithm::FixedWindow, limit, length).unwrap();
            let start = start & EXACT;
            let ran = run(&rule, start, &arrivals);
            let mut counted = (0, 0);
            for &(at, units, admitted) in &ran {
                let window = at / length;
                if window != counted.0 {
                    counted = (window, 0);
                }
                prop_assert_eq!(admitted, counted.1 + units <= limit, "at {}", at - start);
                counted.1 += if admitted { units } else { 0 };
            }
            prop_assert!(most_within(length, &ran) <= 2 * limit);
        }

        /// The weight of the window before is exact to a moment and 2^-16.
        #[test]
        fn a_sliding_window_weighs_the_one_before(
            moments in 400u64..30_000,
            limit in 1u64..200,
            start in moment(),
            arrivals in prop::collection::vec((0u64..40_000_000, 1u64..4), 1..300),
        ) {
            let length = moments << MOMENT_BITS;
            let rule = Rule::window(Algorithm::SlidingWindow, limit, length).unwrap();
            let start = start & EXACT;
            let ran = run(&rule, start, &arrivals);
            let (mut window, mut before, mut current) = (start / length, 0, 0);
            for &(at, units, admitted) in &ran {
                let passed = at / length - window;
                if passed > 0 {
                    (window, before, current) = (at / length, if passed == 1 { current } else { 0 }, 0);
                }
                let left = length - at % length;
                let estimate = |left: u64| (u128::from(before) * u128::from(left)).div_ceil(length.into()) as u64;
                let grain = (1 << MOMENT_BITS) + (length >> 16) + 1;
                let [least, most] = [left, (left + grain).min(length)].map(|left| estimate(left) + current + units);
                prop_assert!(!admitted || least <= limit, "{least} were admitted");
                prop_assert!(admitted || most > limit, "{most} were refused");
                current += if admitted { units } else { 0 };
            }
            prop_assert!(most_within(length, &ran) <= 2 * limit);
        }

        /// Whatever the word and the clock, nobody gets more than the allowance at once.
        #[test]
        fn no_word_mints_anything(word: u64, now: u64, burst in 1u64..1000, kind in 0usize..3) {
            let rules = [
                Rule::token_bucket(1000, burst),
                Rule::window(Algorithm::FixedWindow, burst, SECOND_NS),
                Rule::window(Algorithm::SlidingWindow, burst, SECOND_NS),
            ];
            let rule = rules[kind].unwrap();
            let (mut state, mut admitted) = (word, 0);
            while let Some(next) = rule.admit(state, now, 1) {
                prop_assert_eq!(next >> STATE_BITS, word >> STATE_BITS, "the tag changed");
                state = next;
                admitted += 1;
                prop_assert!(admitted <= burst);
            }
            prop_assert!(admitted == 0 || !rule.is_idle(state, now), "a spent word counts as idle");
        }

        /// A clock that goes back, as one CPU's does against another's, gives nothing away.
        #[test]
        fn a_clock_that_runs_backwards_mints_nothing(now in moment(), back in 0u64..5_000_000, kind in 0usize..3) {
            let rules = [
                Rule::token_bucket(1000, 7),
                Rule::window(Algorithm::FixedWindow, 7, SECOND_NS),
                Rule::window(Algorithm::SlidingWindow, 7, SECOND_NS),
            ];
            let (rule, now) = (rules[kind].unwrap(), now.max(back));
            let spent = run(&rule, now, &[(0, 1); 7]);
            prop_assert!(spent.iter().all(|(.., admitted)| *admitted));
            let word = (0..7).fold(rule.idle_state(now), |word, _| rule.admit(word, now, 1).unwrap());
            prop_assert_eq!(rule.admit(word, now - back, 1), None);
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        assert_eq!(Rule::token_bucket(0, 1), Err(RuleError::Nothing));
        assert_eq!(Rule::token_bucket(1, 0), Err(RuleError::NoBurst));
        assert_eq!(Rule::token_bucket(SECOND_NS + 1, 1), Err(RuleError::TooFast));
        assert_eq!(Rule::token_bucket(1, 69), Err(RuleError::TooSlow));
        assert!(Rule::token_bucket(1, 68).is_ok());
        assert_eq!(Rule::token_bucket(1, u64::MAX), Err(RuleError::TooSlow));
        assert_eq!(Rule::byte_bucket(0, 1), Err(RuleError::Nothing));
        assert_eq!(Rule::byte_bucket(MAX_RATE + 1, 1), Err(RuleError::TooFast));
        let window = |limit, length| Rule::window(Algorithm::SlidingWindow, limit, length).err();
        assert_eq!(window(0, SECOND_NS), Some(RuleError::Nothing));
        assert_eq!(window(65_536, SECOND_NS), Some(RuleError::TooMany));
        assert_eq!(window(65_535, SECOND_NS), None);
        assert_eq!(window(1, SHORTEST_WINDOW_NS - 1), Some(RuleError::Window));
        assert_eq!(window(1, HORIZON_NS), Some(RuleError::Window));
    }

    #[test]
    fn a_window_ends_with_its_length() {
        let rule = Rule::window(Algorithm::FixedWindow, 1, SECOND_NS).unwrap();
        let word = rule.admit(0, 5 * SECOND_NS + 2_000_000, 1).unwrap();
        assert_eq!(rule.admit(word, 6 * SECOND_NS - 2_000_000, 1), None);
        assert!(rule.admit(word, 6 * SECOND_NS + 2_000_000, 1).is_some());
        assert!(
            !rule.is_idle(word, 6 * SECOND_NS - 2_000_000) && rule.is_idle(word, 6 * SECOND_NS + 2_000_000)
        );
    }
}
