//! Who is over a limit: rates of sources, from samples of their packets, and how sure they are.
//!
//! Time is cut into windows. A rate is the mean over the present one and the one before; what is older is forgotten.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use lb_common::layout::VipKey;
use lb_common::limiter::sample::OverSample;

use super::space_saving::{Estimate, SpaceSaving};

/// Rates are means over the last one to two of these.
pub(super) const WINDOW: Duration = Duration::from_secs(10);

/// Sources that are kept in each window.
pub(super) const ROOM: usize = 1024;

/// In the first moments a rate is as of a second.
const SHORTEST: Duration = Duration::from_secs(1);

/// A source at a limiter, which its salt names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Culprit {
    pub(super) salt: u32,
    pub(super) source: VipKey,
}

/// Packets over a limit in a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Rate {
    pub(super) mean: f64,
    /// The truth is no further away, in 19 of 20 cases.
    pub(super) uncertainty: f64,
}

impl Rate {
    /// Half of what may be others' packets counts, and two standard deviations of the sample are allowed for.
    #[expect(clippy::cast_precision_loss, reason = "a rate is shown with three digits, a float has fifteen")]
    fn of(Estimate { count, error, variance }: Estimate, time: Duration) -> Self {
        let others = error as f64 / 2.0;
        let seconds = time.as_secs_f64();
        Self {
            mean: (count as f64 - others) / seconds,
            uncertainty: (others + 2.0 * (variance as f64).sqrt()) / seconds,
        }
    }

    /// Whether it is more than chance that there is anything at all.
    fn stands_out(self) -> bool {
        self.mean > self.uncertainty
    }
}

#[derive(Clone, Debug)]
struct Window {
    sources: SpaceSaving<Culprit>,
    /// By limiter.
    totals: BTreeMap<u32, u64>,
    samples: u64,
    lost: u64,
}

impl Window {
    fn new() -> Self {
        Self { sources: SpaceSaving::new(ROOM), totals: BTreeMap::new(), samples: 0, lost: 0 }
    }

    fn add(&mut self, OverSample { source, salt, weight }: OverSample) {
        self.sources.add(Culprit { salt, source }, weight.into());
        *self.totals.entry(salt).or_default() += u64::from(weight);
        self.samples += 1;
    }
}

/// What the samples of the last two windows say.
#[derive(Clone, Debug)]
pub(super) struct Limited {
    started: Instant,
    /// When the present window began.
    begun: Instant,
    present: Window,
    last: Window,
    /// Samples lost until the last look.
    lost: u64,
}

impl Limited {
    pub(super) fn new(now: Instant) -> Self {
        Self { started: now, begun: now, present: Window::new(), last: Window::new(), lost: 0 }
    }

    /// Takes in what was told since the last time; `lost` is the number of all samples that ever were lost.
    pub(super) fn record(&mut self, samples: Vec<OverSample>, lost: u64, now: Instant) {
        self.turn(now);
        for sample in samples {
            self.present.add(sample);
        }
        self.present.lost += lost.saturating_sub(self.lost);
        self.lost = lost;
    }

    /// Begins the window that `now` is in.
    pub(super) fn turn(&mut self, now: Instant) {
        for _ in 0..2 {
            if now.saturating_duration_since(self.begun) < WINDOW {
                return;
            }
            self.last = std::mem::replace(&mut self.present, Window::new());
            self.begun += WINDOW;
        }
        // Both windows are over, and perhaps many more.
        if now.saturating_duration_since(self.begun) >= WINDOW {
            self.begun = now;
        }
    }

    /// What rates are means over.
    pub(super) fn time(&self, now: Instant) -> Duration {
        let windows = now.saturating_duration_since(self.begun) + WINDOW;
        windows.min(now.saturating_duration_since(self.started)).max(SHORTEST)
    }

    /// Samples that the rates come from, and samples that should have been among them.
    pub(super) fn samples(&self) -> (u64, u64) {
        (self.present.samples + self.last.samples, self.present.lost + self.last.lost)
    }

    /// Packets over a limiter's limit in a second, of all sources together.
    #[expect(clippy::cast_precision_loss, reason = "as of `Rate`")]
    pub(super) fn total(&self, salt: u32, now: Instant) -> f64 {
        let of = |window: &Window| window.totals.get(&salt).copied().unwrap_or(0);
        (of(&self.present) + of(&self.last)) as f64 / self.time(now).as_secs_f64()
    }

    /// The sources that stand out, in no order.
    pub(super) fn sources(&self, now: Instant) -> impl Iterator<Item = (Culprit, Rate)> {
        let time = self.time(now);
        let keys: BTreeSet<&Culprit> = self.present.sources.keys().chain(self.last.sources.keys()).collect();
        let rate = move |culprit: &Culprit| {
            let [present, last] = [&self.present, &self.last].map(|window| window.sources.estimate(culprit));
            (*culprit, Rate::of(present.and(last), time))
        };
        keys.into_iter().map(rate).filter(|(_, rate)| rate.stands_out())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(number: u64, weight: u32) -> OverSample {
        OverSample { source: VipKey { high: 0, low: number }, salt: 7, weight }
    }

    fn means(limited: &Limited, now: Instant) -> BTreeMap<u64, f64> {
        limited.sources(now).map(|(culprit, rate)| (culprit.source.low, rate.mean)).collect()
    }

    #[test]
    fn rates_are_means_of_one_to_two_windows_and_fade() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut limited = Limited::new(start);
        limited.record(vec![sample(1, 1); 50], 0, at(5));
        assert_eq!(means(&limited, at(5)), [(1, 10.0)].into());
        limited.turn(at(10));
        assert_eq!(means(&limited, at(10)), [(1, 5.0)].into());
        limited.record(vec![sample(1, 1), sample(2, 1)], 3, at(15));
        assert_eq!(means(&limited, at(15)), [(1, 51.0 / 15.0), (2, 1.0 / 15.0)].into());
        assert_eq!((limited.samples(), limited.total(7, at(15))), ((52, 3), 52.0 / 15.0));
        assert!(limited.total(8, at(15)).abs() < f64::EPSILON);
        limited.record(Vec::new(), 3, at(20));
        assert_eq!(means(&limited, at(20)), [(1, 0.1), (2, 0.1)].into());
        for long in [30, 31, 1000] {
            let mut later = limited.clone();
            later.turn(at(long));
            assert_eq!((means(&later, at(long)).len(), later.samples()), (0, (0, 0)), "after {long} s");
            later.record(vec![sample(3, 1); 20], 3, at(long));
            assert!(means(&later, at(long))[&3] >= 1.0, "after {long} s");
        }
    }

    /// What the rate is a mean over never is shorter than a second, nor what begins now believed to have lasted.
    #[test]
    fn the_first_second_counts_whole() {
        let start = Instant::now();
        let mut limited = Limited::new(start);
        limited.record(vec![sample(1, 1); 50], 0, start);
        assert_eq!(means(&limited, start), [(1, 50.0)].into());
    }

    #[test]
    fn what_may_be_chance_does_not_stand_out() {
        let start = Instant::now();
        let mut limited = Limited::new(start);
        // Of a flood, each source once; one that sends many; and one that was told of three times.
        limited.record((10..10_000).map(|number| sample(number, 1000)).collect(), 0, start);
        limited.record(vec![sample(1, 1000); 400], 0, start);
        limited.record(vec![sample(2, 1000); 3], 0, start);
        let told: Vec<_> = limited.sources(start).collect();
        let [(culprit, rate)] = told[..] else { panic!("{told:?}") };
        assert_eq!(culprit.source.low, 1);
        assert!((rate.mean - 400_000.0).abs() <= rate.uncertainty, "{rate:?}");
        assert!(rate.uncertainty < 50_000.0, "{rate:?}");
    }
}
