//! From what a meter has seen of sources to a rate that few of them exceed. Nothing here asks anybody: it is arithmetic.

use std::fmt;
use std::str::FromStr;

use lb_common::limiter::meter::{LEVELS, REGISTERS, highest, level};

use crate::model::{Action, LEAST_BITS, Limit, MAX_BIT_RATE, MAX_UNIT_RATE, Policy, Shape, Unit};

/// How many sources of a hundred a rate is to leave alone: from 50 to 100, in thousandths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Quantile(u32);

/// Why a text is no [`Quantile`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a percentage from 50 to 100 with three decimals at most; expected one such as 99.9")]
pub struct QuantileError(String);

impl Quantile {
    /// Thousandths in the whole.
    const WHOLE: u32 = 100_000;
    /// What is told of every meter.
    pub const TOLD: [Self; 5] = [Self(50_000), Self(90_000), Self(99_000), Self(99_900), Self(Self::WHOLE)];

    /// The percentage.
    pub fn percent(self) -> f64 {
        f64::from(self.0) / 1_000.0
    }
}

impl Default for Quantile {
    /// 99.9 of 100.
    fn default() -> Self {
        Self(99_900)
    }
}

impl FromStr for Quantile {
    type Err = QuantileError;

    fn from_str(text: &str) -> Result<Self, QuantileError> {
        let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
        let fits =
            |part: &str, most| (1..=most).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
        let number =
            (fits(whole, 3) && fits(decimals, 3)).then(|| format!("{whole}{decimals:0<3}").parse().ok());
        let inside = number.flatten().filter(|number| (Self::WHOLE / 2..=Self::WHOLE).contains(number));
        inside.map(Self).ok_or_else(|| QuantileError(text.to_owned()))
    }
}

impl fmt::Display for Quantile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.percent().fmt(f)
    }
}

/// How many registers of a meter stand at each level.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tally([u32; LEVELS]);

impl Tally {
    /// Counts registers, eight in a word.
    pub fn of(words: &[u64]) -> Self {
        let mut registers = [0; LEVELS];
        for level in words.iter().flat_map(|word| word.to_ne_bytes()) {
            if let Some(count) = registers.get_mut(usize::from(level)) {
                *count += 1;
            }
        }
        Self(registers)
    }

    /// About how many sources have got above a level.
    ///
    /// Of `m` registers, `n` sources leave `m e^(-n/m)` untouched. So few sources are told exactly, and half a million of them to
    /// 1 % (one standard deviation). At 770 000 no register is left, and more cannot be told.
    #[expect(clippy::cast_sign_loss, reason = "a logarithm of what is not above one, negated")]
    pub fn above(&self, level: u8) -> u64 {
        let raised: u32 = self.0.iter().skip(usize::from(level) + 1).sum();
        let registers = f64::from(REGISTERS);
        let untouched = f64::from(REGISTERS.saturating_sub(raised)).max(0.5);
        (-registers * (untouched / registers).ln()).round() as u64
    }

    /// About how many sources there were.
    pub fn sources(&self) -> u64 {
        self.above(0)
    }

    /// The lowest level that so many sources have not got above.
    pub fn quantile(&self, quantile: Quantile) -> u8 {
        let rest = u128::from(Quantile::WHOLE - quantile.0) * u128::from(self.sources());
        let few = |level: &u8| u128::from(self.above(*level)) * u128::from(Quantile::WHOLE) <= rest;
        (0..LEVELS as u8).find(few).unwrap_or(LEVELS as u8 - 1)
    }
}

/// The rate at the upper end of a level.
pub fn rate_of(unit: Unit, level: u8) -> u64 {
    u64::from(highest(level)) * if unit == Unit::Bits { 8 } else { 1 }
}

/// A limiter that would hit few.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// The limiter.
    pub limit: Limit,
    /// About how many sources it would have limited, at most. All others never.
    pub hits: u64,
}

/// A bucket in the place of a limiter that only counted, one that would not have limited so many of its sources; `None` if
/// there were none.
///
/// The rate is the upper end of the level that they have not got above, rounded up to two digits: less than 38 % above the
/// busiest second of the busiest of them. The burst is twice the rate, since their seconds are those of a clock.
pub fn propose(limit: &Limit, tally: &Tally, quantile: Quantile) -> Option<Proposal> {
    let policy = *limit.policy();
    let (unit, busiest) = (policy.unit, tally.quantile(quantile));
    let is_bits = unit == Unit::Bits;
    let most = if is_bits { MAX_BIT_RATE } else { MAX_UNIT_RATE };
    let rate = in_two_digits(rate_of(unit, busiest)).min(most);
    // Even the smallest packets make 272 bits, a rate that refills the least burst in time.
    let burst = (2 * rate).max(if is_bits { LEAST_BITS } else { 1 });
    let shape = Shape::Bucket { burst, leaks: false };
    let limit = Limit::try_new(limit.name(), Policy { rate, shape, action: Action::Drop, ..policy }).ok()?;
    let next = u32::try_from(rate / if is_bits { 8 } else { 1 } + 1).unwrap_or(u32::MAX);
    Some(Proposal { limit, hits: tally.above(level(next) - 1) })
}

/// Rounded up to two significant digits.
fn in_two_digits(number: u64) -> u64 {
    let mut scale = 1;
    while number.div_ceil(scale) > 99 {
        scale *= 10;
    }
    number.div_ceil(scale) * scale
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::packets_per_source;
    use crate::model::Scope;

    fn shadow(unit: Unit) -> Limit {
        let shape = Shape::Bucket { burst: 1_000_000, leaks: false };
        let policy = Policy { unit, action: Action::Shadow, shape, ..packets_per_source(100_000, 1) };
        Limit::try_new("probe", policy).unwrap()
    }

    /// The registers of sources with these busiest seconds, each source at the place of a tag.
    fn tally(sources: impl IntoIterator<Item = (u16, u32)>) -> Tally {
        let mut registers = vec![0; REGISTERS as usize];
        for (tag, busiest) in sources {
            let register: &mut u8 = &mut registers[usize::from(tag)];
            *register = level(busiest).max(*register);
        }
        let word = |bytes: &[u8]| u64::from_ne_bytes(bytes.try_into().unwrap());
        Tally::of(&registers.chunks(8).map(word).collect::<Vec<_>>())
    }

    fn quantile(text: &str) -> Quantile {
        text.parse().unwrap()
    }

    fn sources() -> impl Strategy<Value = Vec<u32>> {
        // Below the last level, which also stands for what no word can count.
        let busiest = (1u32..7 << 29, 0u32..32).prop_map(|(count, bits)| (count >> bits).max(1));
        prop::collection::vec(busiest, 1..250)
    }

    proptest! {
        /// Of so few that chance has no two of them share a register, the rate is the exact quantile but for the width of a level and its rounding,
        /// and the sources that would be hit are what is promised: all that exceed the rate, and no more than were allowed.
        #[test]
        fn a_proposal_is_within_a_level_of_the_exact_quantile(
            busiest in sources(),
            parts in 50_000u32..=100_000,
            is_bits: bool,
        ) {
            let unit = if is_bits { Unit::Bits } else { Unit::Packets };
            let scale = if is_bits { 8 } else { 1 };
            // No packet has less than an Ethernet and an IPv4 header.
            let busiest: Vec<u32> = busiest.into_iter().map(|count| if is_bits { count.max(34) } else { count }).collect();
            let tally = tally(busiest.iter().enumerate().map(|(tag, count)| (tag as u16, *count)));
            prop_assert_eq!(tally.sources(), busiest.len() as u64);
            let allowed = busiest.len() as u64 * u64::from(100_000 - parts) / 100_000;
            let above = |rate: u64| busiest.iter().filter(|count| u64::from(**count) * scale > rate).count() as u64;
            let mut sorted = busiest.clone();
            sorted.sort_unstable_by(|a, b| b.cmp(a));
            let exact = u64::from(sorted[allowed as usize]) * scale;
            let proposal = propose(&shadow(unit), &tally, Quantile(parts)).unwrap();
            let rate = proposal.limit.policy().rate;
            if rate < MAX_UNIT_RATE || is_bits {
                prop_assert!(rate >= exact, "{rate} is less than {exact}");
                prop_assert!(above(rate) <= proposal.hits && proposal.hits <= allowed, "{proposal:?}, {allowed}");
            }
            prop_assert!(rate * 100 < exact * 138 || rate <= exact + 1, "{rate} is far above {exact}");
        }

        /// Many sources share registers, and are still told to a few standard deviations.
        #[test]
        fn many_sources_are_told_well_enough(seed: u64, count in 10_000u32..200_000) {
            let mut state = seed | 1;
            let mut random = || {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 48) as u16
            };
            // One in 1000 sends much.
            let all = (0..count).map(|n| (random(), if n % 1000 == 0 { 5000 } else { 1 + n % 40 }));
            let tally = tally(all);
            let told = tally.sources();
            prop_assert!(told.abs_diff(count.into()) * 25 < u64::from(count), "{told} of {count}");
            let busy = u64::from(count.div_ceil(1000));
            let proposal = propose(&shadow(Unit::Packets), &tally, quantile("99")).unwrap();
            prop_assert_eq!(proposal.limit.policy().rate, 47);
            prop_assert!(proposal.hits.abs_diff(busy) <= 8, "{} of {busy}", proposal.hits);
        }
    }

    #[test]
    fn a_proposal_goes_with_the_limiter_that_measured() {
        let limit = shadow(Unit::NewConnections);
        let limit =
            Limit::try_new("probe", Policy { scope: Scope::Prefix { v4: 24, v6: 48 }, ..*limit.policy() });
        let seen = tally([(1, 3), (2, 3), (3, 130)]);
        let Proposal { limit, hits } = propose(&limit.unwrap(), &seen, quantile("60")).unwrap();
        assert_eq!(limit.policy().to_string(), "3 new connections/s per /24 or IPv6 /48, burst 6");
        assert_eq!((limit.name(), hits), ("probe", 1));
        // The busiest bit rate of one short packet: the burst must hold a long one.
        let bits = propose(&shadow(Unit::Bits), &tally([(0, 74)]), quantile("100")).unwrap();
        assert_eq!(bits.limit.policy().to_string(), "640bit/s per source, burst 12112bit");
    }

    #[test]
    fn of_nobody_nothing_is_proposed() {
        assert_eq!(propose(&shadow(Unit::Packets), &tally([]), Quantile::default()), None);
        assert_eq!(tally([]).sources(), 0);
        let full = tally((0..=u16::MAX).map(|tag| (tag, 1)));
        assert!((700_000..800_000).contains(&full.sources()), "{}", full.sources());
    }

    #[test]
    fn quantiles_are_percentages() {
        for (text, thousandths) in
            [("50", 50_000), ("99.9", 99_900), ("99.95", 99_950), ("99.999", 99_999), ("100", 100_000)]
        {
            assert_eq!(text.parse(), Ok(Quantile(thousandths)));
            assert_eq!(Quantile(thousandths).to_string(), text);
        }
        for text in [
            "", "0", "0.999", "49.999", "100.001", "101", "-99", "+99", "99.", ".9", "99,9", "99.9%",
            "99.9999", "nan", "1e2",
        ] {
            assert_eq!(text.parse::<Quantile>(), Err(QuantileError(text.to_owned())), "{text}");
        }
    }

    #[test]
    fn rates_have_two_digits() {
        let cases = [
            (0, 0),
            (7, 7),
            (99, 99),
            (100, 100),
            (101, 110),
            (991, 1000),
            (1_279, 1_300),
            (u64::from(u32::MAX), 4_300_000_000),
        ];
        for (number, rounded) in cases {
            assert_eq!(in_two_digits(number), rounded);
        }
    }
}
