//! The pure part: one backend's health as results arrive.

/// Whether a backend is believed to be well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Health {
    /// The last checks passed, or none has finished yet.
    Up,
    /// The last checks failed.
    Down,
}

/// One backend's health: up until proven otherwise, and steady against single results.
///
/// The first result decides at once, so that a dead backend is out after one check at start. From then on it takes `fall`
/// failures in a row to go down and `rise` successes in a row to come up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthTracker {
    rise: u32,
    fall: u32,
    health: Health,
    decided: bool,
    /// Results in a row that contradict `health`.
    contradictions: u32,
}

impl HealthTracker {
    /// A backend of which nothing is known yet. Zero counts as one.
    pub fn new(rise: u32, fall: u32) -> Self {
        Self { rise: rise.max(1), fall: fall.max(1), health: Health::Up, decided: false, contradictions: 0 }
    }

    /// A backend whose health is known already: it takes as many results in a row as later to change it.
    pub fn known(rise: u32, fall: u32, health: Health) -> Self {
        Self { health, decided: true, ..Self::new(rise, fall) }
    }

    /// The health as of the last result.
    pub fn health(&self) -> Health {
        self.health
    }

    /// Whether there has been a result yet.
    pub fn is_decided(&self) -> bool {
        self.decided
    }

    /// Goes on with other thresholds, keeping the health: a changed configuration heals and harms nobody.
    pub fn reconfigure(&mut self, rise: u32, fall: u32) {
        self.rise = rise.max(1);
        self.fall = fall.max(1);
    }

    /// Takes in a result; the new health if it changed.
    pub fn record(&mut self, passed: bool) -> Option<Health> {
        let seen = if passed { Health::Up } else { Health::Down };
        let first = !std::mem::replace(&mut self.decided, true);
        if seen == self.health {
            self.contradictions = 0;
            return None;
        }
        self.contradictions += 1;
        if !first && self.contradictions < self.threshold() {
            return None;
        }
        self.contradictions = 0;
        self.health = seen;
        Some(seen)
    }

    fn threshold(&self) -> u32 {
        match self.health {
            Health::Up => self.fall,
            Health::Down => self.rise,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The healths after each result: `+` a success, `-` a failure; `U` up and `D` down.
    fn healths(rise: u32, fall: u32, results: &str) -> String {
        let mut tracker = HealthTracker::new(rise, fall);
        let after = results.chars().map(|result| {
            tracker.record(result == '+');
            if tracker.health() == Health::Up { 'U' } else { 'D' }
        });
        after.collect()
    }

    #[test]
    fn rise_and_fall_by_example() {
        let table = [
            ("the first failure decides", 2, 3, "-", "D"),
            ("the first success decides as well", 2, 3, "+--", "UUU"),
            ("three failures in a row take it down", 2, 3, "+---", "UUUD"),
            ("a success in between starts the count anew", 2, 3, "+--+--", "UUUUUU"),
            ("two successes in a row bring it back", 2, 3, "-+-++", "DDDDU"),
            ("one is enough for both", 1, 1, "+-+-", "UDUD"),
            ("zero is taken for one", 0, 0, "+-+-", "UDUD"),
        ];
        for (sentence, rise, fall, results, expected) in table {
            assert_eq!(healths(rise, fall, results), expected, "{sentence}");
        }
    }

    #[test]
    fn new_thresholds_keep_the_health() {
        let mut tracker = HealthTracker::new(2, 3);
        tracker.record(false);
        tracker.reconfigure(1, 1);
        assert_eq!(tracker.health(), Health::Down);
        assert_eq!(tracker.record(true), Some(Health::Up));
    }

    proptest! {
        #[test]
        fn a_change_of_health_takes_the_last_results_to_agree(
            rise in 1_u32..5, fall in 1_u32..5, results in prop::collection::vec(any::<bool>(), 1..60),
        ) {
            let mut tracker = HealthTracker::new(rise, fall);
            let mut before = tracker.health();
            for count in 1..=results.len() {
                let passed = results[count - 1];
                let changed = tracker.record(passed);
                prop_assert_eq!(changed.is_some(), tracker.health() != before);
                let streak = results[..count].iter().rev().take_while(|result| **result == passed).count();
                let needed = if passed { rise } else { fall } as usize;
                let disagrees = (before == Health::Up) != passed;
                prop_assert_eq!(changed.is_some(), disagrees && (count == 1 || streak >= needed));
                before = tracker.health();
            }
        }
    }
}
