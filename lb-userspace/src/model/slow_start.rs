//! How the weight of a backend rises after it has come into service.

use std::time::Duration;

use super::Weight;

/// A weight rises from a tenth in so many equal steps.
const STEPS: u32 = 10;

/// The weight of a backend that came into service `elapsed` ago.
///
/// It begins with a tenth of `weight`, rounded up, rises in ten equal steps, and is all of `weight` from `slow_start` on.
/// So it never is 0 unless `weight` is.
pub fn effective_weight(weight: Weight, slow_start: Duration, elapsed: Duration) -> Weight {
    let percent = 10 + 9 * steps(slow_start, elapsed);
    let risen = (u32::from(weight.0) * percent).div_ceil(100);
    Weight(u16::try_from(risen).unwrap_or(weight.0))
}

/// How long after coming into service the weight rises next; `None` if it has risen to the whole.
pub fn next_step(slow_start: Duration, elapsed: Duration) -> Option<Duration> {
    let next = steps(slow_start, elapsed) + 1;
    (next <= STEPS).then(|| {
        let nanoseconds = (slow_start.as_nanos() * u128::from(next)).div_ceil(u128::from(STEPS));
        Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
    })
}

/// Steps taken by then, of [`STEPS`].
fn steps(slow_start: Duration, elapsed: Duration) -> u32 {
    let taken = (elapsed.as_nanos() * u128::from(STEPS)).checked_div(slow_start.as_nanos());
    taken.and_then(|taken| u32::try_from(taken).ok()).unwrap_or(STEPS).min(STEPS)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// From one millisecond to a day.
    fn slow_start() -> impl Strategy<Value = Duration> {
        (1u64..86_400_000).prop_map(Duration::from_millis)
    }

    #[test]
    fn a_weight_of_100_rises_by_9_ten_times() {
        let slow_start = Duration::from_secs(30);
        let at = |seconds| effective_weight(Weight(100), slow_start, Duration::from_secs(seconds)).0;
        assert_eq!([0, 2, 3, 6, 26, 27, 29, 30, 31].map(at), [10, 10, 19, 28, 82, 91, 91, 100, 100]);
    }

    #[test]
    fn without_slow_start_all_of_the_weight_is_there_at_once() {
        assert_eq!(effective_weight(Weight(7), Duration::ZERO, Duration::ZERO), Weight(7));
        assert_eq!(next_step(Duration::ZERO, Duration::ZERO), None);
    }

    proptest! {
        #[test]
        fn weights_rise_from_a_tenth_to_the_whole(weight: u16, slow_start in slow_start(), parts in prop::collection::vec(0.0..1.2f64, 2)) {
            let weight_at = |elapsed| effective_weight(Weight(weight), slow_start, elapsed).0;
            let mut times = [slow_start.mul_f64(parts[0]), slow_start.mul_f64(parts[1])];
            times.sort();
            let [earlier, later] = times.map(weight_at);
            prop_assert!(earlier <= later);
            prop_assert_eq!(weight_at(Duration::ZERO), weight.div_ceil(10));
            prop_assert_eq!(weight_at(slow_start), weight);
            prop_assert_eq!(weight_at(Duration::MAX), weight);
            prop_assert!(weight_at(slow_start.saturating_sub(Duration::from_nanos(1))) < weight || weight < 12);
        }

        #[test]
        fn steps_are_where_the_weight_changes(weight in 100u16.., slow_start in slow_start()) {
            let weight_at = |elapsed| effective_weight(Weight(weight), slow_start, elapsed).0;
            let mut elapsed = Duration::ZERO;
            let mut steps = 0;
            while let Some(next) = next_step(slow_start, elapsed) {
                prop_assert!(next > elapsed && next <= slow_start);
                prop_assert_eq!(weight_at(next.saturating_sub(Duration::from_nanos(1))), weight_at(elapsed));
                prop_assert!(weight_at(next) > weight_at(elapsed));
                elapsed = next;
                steps += 1;
            }
            prop_assert_eq!((elapsed, steps), (slow_start, 10));
        }
    }
}
