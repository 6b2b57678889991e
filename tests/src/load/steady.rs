//! Requests at a steady rate in the background, each over a connection of its own.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

use super::http::one_request;
use super::{Report, Request};
use crate::interrupt;
use crate::net::Namespace;

/// A request that waits for its time-out holds up its worker; so many may do so at once.
const WORKERS: usize = 8;

/// What to ask, and how often.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Whom.
    pub target: SocketAddr,
    /// Requests a second.
    pub rate: u32,
    /// When to stop at the latest.
    pub longest: Duration,
}

/// A load that runs until it is finished, dropped or at its longest.
#[derive(Debug)]
pub struct SteadyLoad {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<Result<()>>>,
}

#[derive(Debug)]
struct Shared {
    plan: Plan,
    begun: Instant,
    stop: AtomicBool,
    /// The number of the next request; a worker takes one and waits for its time.
    next: AtomicU64,
    done: Mutex<Vec<Request>>,
}

impl SteadyLoad {
    /// Starts to ask from inside a namespace.
    pub fn start(namespace: &Namespace, plan: Plan) -> Self {
        let shared = Arc::new(Shared {
            plan,
            begun: Instant::now(),
            stop: AtomicBool::new(false),
            next: AtomicU64::new(0),
            done: Mutex::default(),
        });
        let worker = || {
            let shared = Arc::clone(&shared);
            namespace.spawn(move || shared.work())
        };
        let workers = (0..WORKERS).map(|_| worker()).collect();
        Self { shared, workers }
    }

    /// What became of the requests so far.
    pub fn so_far(&self) -> Report {
        Report { requests: self.shared.done.lock().unwrap_or_else(PoisonError::into_inner).clone() }
    }

    /// Stops and tells what became of all requests.
    pub fn finish(mut self) -> Result<Report> {
        self.shared.stop.store(true, Ordering::Relaxed);
        for worker in self.workers.drain(..) {
            worker.join().map_err(|_| anyhow!("a load worker panicked"))??;
        }
        Ok(self.so_far())
    }
}

impl Drop for SteadyLoad {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

impl Shared {
    fn work(&self) {
        while let Some(due) = self.take() {
            let wait = due.saturating_duration_since(Instant::now());
            if interrupt::pause(wait).is_err() || self.stop.load(Ordering::Relaxed) {
                return;
            }
            let request = one_request(self.plan.target);
            self.done.lock().unwrap_or_else(PoisonError::into_inner).push(request);
        }
    }

    /// When the next request is due; `None` when there is none any more.
    fn take(&self) -> Option<Instant> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let offset = Duration::from_secs(1) * number as u32 / self.plan.rate.max(1);
        (offset < self.plan.longest && !self.stop.load(Ordering::Relaxed)).then(|| self.begun + offset)
    }
}
