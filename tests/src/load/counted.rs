//! A stream of packets through the balancer, each counted where it leaves and where it arrives.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use rustix::time::{ClockId, Timespec, clock_gettime};

use crate::net::{BACKENDS, Lab, Node};
use crate::traffic::{Pace, Passage, Route, Sources, Traffic};

/// Turns of the generator in one run of the kernel's: about a second. It takes tens of milliseconds to begin one, in which nothing
/// is sent, since the kernel waits for everybody who might still run the program before; what is due by then follows at once.
const TURNS: u32 = 4_000_000;

/// A stream of UDP packets to port 80 of a VIP whose service is of mode `dsr-l2`. All that arrives at the backends' interfaces
/// is counted and ends there, so no socket can lose any of it.
#[derive(Clone, Copy, Debug)]
pub struct CountedStream {
    /// Who sends it.
    pub sources: Sources,
    /// Whom it is for.
    pub vip: Ipv4Addr,
    /// Packets a second, on average since it began.
    pub rate: u64,
    /// Packets under way at one time, see [`FULL_WINDOW`](crate::traffic::FULL_WINDOW): less where others use the same links.
    pub window: u64,
}

/// What became of a stream.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Packets that left the client.
    pub sent: u64,
    /// Packets that arrived at any backend.
    pub received: u64,
    /// How long it lasted.
    pub took: Duration,
    /// When packets were lost, and how many.
    pub losses: Vec<(Instant, u64)>,
}

/// A stream that flows until it is told to end. Dropping it ends it too.
#[derive(Debug)]
pub struct Counted {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<Result<Tally>>>>,
}

impl CountedStream {
    /// Starts the stream from a client, whose interface has an XDP program already.
    pub fn start(self, lab: &Lab, client: Node) -> Result<Counted> {
        let mut traffic = Traffic::load()?;
        for node in BACKENDS {
            let index = lab.ifindex(node, "eth0")?;
            lab.namespace(node).run(|| traffic.attach("tally", index))??;
        }
        let macs = [lab.mac(client, "eth0")?, lab.mac(Node::Balancer, &client.to_string())?];
        let ifindex = lab.ifindex(client, "eth0")?;
        let Self { sources, vip, window, .. } = self;
        let (arrives_from, arrives_at) = (sources.prefix(), (vip, 32));
        let route = Route { ifindex, macs, sources, vip, window, arrives_from, arrives_at };
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = lab.namespace(client).spawn(move || self.flow(&mut traffic, &route, &stopped));
        Ok(Counted { stop, thread: Some(thread) })
    }

    fn flow(self, traffic: &mut Traffic, route: &Route, stop: &AtomicBool) -> Result<Tally> {
        let begun = Instant::now();
        let mut pace = Pace { interval_ns: 1_000_000_000 / self.rate, begun_ns: monotonic_ns()?, sent: 0 };
        let mut tally = Tally::default();
        while !stop.load(Ordering::Relaxed) {
            tally.add(&traffic.pass(route, pace, TURNS)?);
            pace.sent = tally.sent;
        }
        tally.took = begun.elapsed();
        Ok(tally)
    }
}

fn monotonic_ns() -> Result<u64> {
    let Timespec { tv_sec, tv_nsec } = clock_gettime(ClockId::Monotonic);
    Ok(u64::try_from(tv_sec)? * 1_000_000_000 + u64::try_from(tv_nsec)?)
}

impl Tally {
    fn add(&mut self, passage: &Passage) {
        let Passage { sent, received, .. } = *passage;
        self.sent += sent;
        self.received += received;
        if received != sent {
            self.losses.push((Instant::now(), sent.saturating_sub(received)));
        }
    }

    /// Packets a second, on average.
    pub fn rate(&self) -> u64 {
        self.sent * 1000 / u64::try_from(self.took.as_millis()).unwrap_or(u64::MAX).max(1)
    }
}

impl Counted {
    /// Ends the stream and tells what became of it.
    pub fn finish(mut self) -> Result<Tally> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("the stream has ended already")?;
        thread.join().map_err(|_| anyhow!("the stream panicked"))??
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Whoever drops it has a failure of its own to tell of.
        drop(self.thread.take().map(JoinHandle::join));
    }
}
