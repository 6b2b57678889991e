//! Which checks run, and when.

use std::collections::BTreeMap;
use std::future::Future;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::connect::{CheckOutcome, check};
use crate::model::{Endpoint, HealthCheck};

/// Checks in flight at once. Thousands of backends must not exhaust file descriptors; checks beyond this number wait for
/// their turn and are late, not failed.
const CHECKS_IN_FLIGHT: usize = 256;

/// A backend of a service, the subject of checks.
#[derive(Clone, Eq, PartialEq, Ord, PartialOrd, Hash, Debug)]
pub struct CheckTarget {
    /// The service's name.
    pub service: String,
    /// The backend's endpoint in that service, which need not be the port that is asked.
    pub endpoint: Endpoint,
}

/// A finished check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckReport {
    /// The backend that was checked.
    pub target: CheckTarget,
    /// What was found.
    pub outcome: CheckOutcome,
}

/// Runs the wanted checks, each in a task of its own, and reports every outcome. Dropping it ends them all.
///
/// A report that was under way when its check was stopped still arrives: receivers ignore targets they do not know.
#[derive(Debug)]
pub struct Checker {
    reports: mpsc::Sender<CheckReport>,
    turns: Arc<Semaphore>,
    tasks: JoinSet<()>,
    running: BTreeMap<CheckTarget, Running>,
}

#[derive(Debug)]
struct Running {
    address: SocketAddr,
    check: HealthCheck,
    task: AbortHandle,
}

impl Checker {
    /// A checker without checks. It waits while `reports` is full, and stops when it is closed.
    pub fn new(reports: mpsc::Sender<CheckReport>) -> Self {
        let turns = Arc::new(Semaphore::new(CHECKS_IN_FLIGHT));
        Self { reports, turns, tasks: JoinSet::new(), running: BTreeMap::new() }
    }

    /// Starts, stops and replaces checks so that exactly the wanted ones run; the others go on undisturbed. A new check
    /// is made at once and from then on at its interval, spread over it so that backends are not all asked together.
    ///
    /// To be called inside of a tokio runtime.
    pub fn update(&mut self, wanted: BTreeMap<CheckTarget, (SocketAddr, HealthCheck)>) {
        self.running.retain(|target, running| {
            let goes_on = wanted.get(target) == Some(&(running.address, running.check));
            if !goes_on {
                running.task.abort();
            }
            goes_on
        });
        // Reap what was aborted; the rest runs on.
        while self.tasks.try_join_next().is_some() {}
        for (target, (address, check)) in wanted {
            if !self.running.contains_key(&target) {
                let task = self.start(target.clone(), address, check);
                self.running.insert(target, Running { address, check, task });
            }
        }
    }

    fn start(&mut self, target: CheckTarget, address: SocketAddr, settings: HealthCheck) -> AbortHandle {
        let turns = Arc::clone(&self.turns);
        let once = move || {
            let turns = Arc::clone(&turns);
            async move {
                let _turn = turns.acquire().await.ok()?;
                check(address, settings.timeout).await
            }
        };
        self.tasks.spawn(repeat(target, settings.interval, once, self.reports.clone()))
    }
}

/// Checks at once and then at each interval, until nobody listens any more.
async fn repeat<F>(
    target: CheckTarget,
    every: Duration,
    once: impl Fn() -> F,
    reports: mpsc::Sender<CheckReport>,
) where
    F: Future<Output = Option<CheckOutcome>>,
{
    let mut ticks = interval_at(Instant::now() + offset(&target, every), every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        if let Some(outcome) = once().await {
            let report = CheckReport { target: target.clone(), outcome };
            if reports.send(report).await.is_err() {
                return;
            }
        }
        ticks.tick().await;
    }
}

/// From the first check to the second: half an interval to one and a half, by the target's hash, so that the regular
/// checks are spread over the whole interval and yet do not follow on the heels of the first.
fn offset(target: &CheckTarget, interval: Duration) -> Duration {
    let mut hasher = DefaultHasher::new();
    target.hash(&mut hasher);
    let fraction = f64::from(hasher.finish() as u32) / f64::from(u32::MAX);
    interval.mul_f64(0.5 + fraction)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::net::Ipv4Addr;
    use std::rc::Rc;

    use tokio::net::TcpListener;

    use super::*;

    const SETTINGS: HealthCheck = HealthCheck {
        interval: Duration::from_millis(20),
        timeout: Duration::from_millis(20),
        rise: 1,
        fall: 1,
        port: None,
    };
    /// So long that within a test nothing is checked twice.
    const RARELY: HealthCheck = HealthCheck { interval: Duration::from_hours(1), ..SETTINGS };

    fn target(service: &str) -> CheckTarget {
        CheckTarget { service: service.to_owned(), endpoint: "10.0.0.1:80".parse().unwrap() }
    }

    async fn server() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    #[tokio::test]
    async fn outcomes_are_reported_again_and_again() {
        let (listener, address) = server().await;
        let (sender, mut reports) = mpsc::channel(1);
        let mut checker = Checker::new(sender);
        checker.update([(target("web"), (address, SETTINGS))].into());
        for _ in 0..3 {
            let report = reports.recv().await.unwrap();
            assert_eq!(report.target, target("web"));
            assert!(report.outcome.passed(), "{}", report.outcome);
        }
        drop(listener);
        while reports.recv().await.unwrap().outcome.passed() {}
    }

    #[tokio::test]
    async fn only_what_changed_is_started_anew() {
        let (_listener, address) = server().await;
        let (sender, mut reports) = mpsc::channel(8);
        let mut checker = Checker::new(sender);
        checker.update([(target("stays"), (address, RARELY)), (target("changes"), (address, RARELY))].into());
        let first = [reports.recv().await.unwrap().target, reports.recv().await.unwrap().target];
        assert!(first.contains(&target("stays")) && first.contains(&target("changes")), "{first:?}");

        let other = HealthCheck { timeout: Duration::from_millis(15), ..RARELY };
        checker.update([(target("stays"), (address, RARELY)), (target("changes"), (address, other))].into());
        assert_eq!(reports.recv().await.unwrap().target, target("changes"));
        checker.update([(target("new"), (address, RARELY))].into());
        assert_eq!(reports.recv().await.unwrap().target, target("new"));
        assert!(reports.try_recv().is_err(), "an unchanged check was made again");
        assert_eq!(checker.running.len(), 1);
    }

    #[tokio::test]
    async fn dropping_the_checker_ends_its_tasks() {
        let (_listener, address) = server().await;
        let (sender, mut reports) = mpsc::channel(8);
        let mut checker = Checker::new(sender);
        checker.update([(target("web"), (address, SETTINGS))].into());
        reports.recv().await.unwrap();
        drop(checker);
        // The channel closes with the last task that holds its sender.
        while reports.recv().await.is_some() {}
    }

    #[tokio::test]
    async fn thousands_of_checks_take_turns() {
        let (listener, address) = server().await;
        let server = tokio::spawn(async move { while listener.accept().await.is_ok() {} });
        let (sender, mut reports) = mpsc::channel(8);
        let mut checker = Checker::new(sender);
        let patient = HealthCheck { timeout: Duration::from_secs(10), ..RARELY };
        checker.update((0..2000).map(|n| (target(&n.to_string()), (address, patient))).collect());
        for _ in 0..2000 {
            let report = reports.recv().await.unwrap();
            assert!(report.outcome.passed(), "{}", report.outcome);
        }
        server.abort();
    }

    #[tokio::test]
    async fn a_waiting_check_is_late_and_not_failed() {
        let (_listener, address) = server().await;
        let (sender, mut reports) = mpsc::channel(8);
        let mut checker = Checker::new(sender);
        let all = CHECKS_IN_FLIGHT as u32;
        let turns = Arc::clone(&checker.turns);
        let occupied = turns.acquire_many(all).await.unwrap();
        checker.update([(target("web"), (address, SETTINGS))].into());
        let late = tokio::time::timeout(SETTINGS.timeout * 3, reports.recv()).await;
        assert!(late.is_err(), "checked out of turn: {late:?}");
        drop(occupied);
        assert!(reports.recv().await.unwrap().outcome.passed());
    }

    #[tokio::test(start_paused = true)]
    async fn checks_keep_their_rhythm_however_long_they_take() {
        let start = Instant::now();
        let every = Duration::from_secs(1);
        let number = Rc::new(Cell::new(0_u64));
        let once = || async {
            number.set(number.get() + 1);
            tokio::time::sleep(Duration::from_millis(number.get() % 7 * 100)).await;
            Some(CheckOutcome::Connected { took: start.elapsed() })
        };
        let (sender, mut reports) = mpsc::channel(1);
        let first = offset(&target("web"), every);
        let checks = repeat(target("web"), every, once, sender);
        let watch = async {
            for n in 0..50_u32 {
                let CheckOutcome::Connected { took } = reports.recv().await.unwrap().outcome else {
                    unreachable!()
                };
                let duration = Duration::from_millis(u64::from(n + 1) % 7 * 100);
                let began = took.saturating_sub(duration);
                let expected = if n == 0 { Duration::ZERO } else { first + every * (n - 1) };
                // The clock of the timer has a resolution of a millisecond.
                assert!(began.abs_diff(expected) <= Duration::from_millis(2), "check {n} began at {began:?}");
            }
            reports.close();
        };
        tokio::join!(checks, watch);
    }

    #[test]
    fn regular_checks_are_spread() {
        let every = Duration::from_secs(1);
        let offsets: Vec<Duration> = (0..1000).map(|n| offset(&target(&n.to_string()), every)).collect();
        assert!(offsets.iter().all(|offset| (every / 2..=every * 3 / 2).contains(offset)));
        let early = offsets.iter().filter(|offset| **offset < every).count();
        assert!((400..600).contains(&early), "{early} of 1000 in the first half");
    }
}
