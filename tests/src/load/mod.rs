//! Clients: requests at a rate, a connection that stays open, a bounded flood. All of them end by themselves.

mod bulk;
mod counted;
mod flood;
mod held;
mod http;
mod ping;
mod steady;
mod udp;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

pub use bulk::echoes_much;
pub use counted::{Counted, CountedStream, Tally};
pub use flood::{Flood, FloodReport, Running};
pub use held::{Held, allow_many_files};
pub use http::{KeepAlive, get, requests};
pub use ping::ping;
pub use steady::{Plan, SteadyLoad};
pub use udp::Asker;

/// How long one request may take before it has failed.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(1);

/// What became of one request.
#[derive(Clone, Debug)]
pub struct Request {
    /// When it was begun.
    pub begun: Instant,
    /// The name of the backend that answered, or why none did.
    pub answer: Result<String, String>,
}

/// What became of many requests, in the order in which they ended.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Each request.
    pub requests: Vec<Request>,
}

impl Report {
    /// How many requests each backend answered.
    pub fn by_backend(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for name in self.requests.iter().filter_map(|request| request.answer.as_ref().ok()) {
            *counts.entry(name.clone()).or_default() += 1;
        }
        counts
    }

    /// How many requests there were.
    pub fn total(&self) -> usize {
        self.requests.len()
    }

    /// How many requests nobody answered.
    pub fn failed(&self) -> usize {
        self.requests.iter().filter(|request| request.answer.is_err()).count()
    }

    /// Why the first failed request failed.
    pub fn first_failure(&self) -> Option<&str> {
        self.requests.iter().find_map(|request| request.answer.as_ref().err()).map(String::as_str)
    }

    /// When the last failed request was begun.
    pub fn last_failure(&self) -> Option<Instant> {
        self.requests.iter().filter(|request| request.answer.is_err()).map(|request| request.begun).max()
    }

    /// Only the requests that were begun at or after `start`.
    #[must_use]
    pub fn since(&self, start: Instant) -> Self {
        Self { requests: self.requests.iter().filter(|request| request.begun >= start).cloned().collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_counts_answers_and_failures() {
        let begun = Instant::now();
        let request = |answer: Result<&str, &str>| Request {
            begun,
            answer: answer.map(str::to_owned).map_err(str::to_owned),
        };
        let report = Report { requests: vec![request(Ok("a")), request(Err("refused")), request(Ok("a"))] };
        assert_eq!(report.by_backend(), BTreeMap::from([("a".to_owned(), 2)]));
        assert_eq!((report.total(), report.failed(), report.last_failure()), (3, 1, Some(begun)));
        assert_eq!(report.first_failure(), Some("refused"));
        assert_eq!(report.since(begun + Duration::from_secs(1)).total(), 0);
    }
}
