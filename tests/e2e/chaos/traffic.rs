//! Those who would notice: a stream of which each packet is counted, connections that stay, and requests that come and go.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use etherparse::PacketBuilder;
use lb_tests::interrupt;
use lb_tests::load::{Counted, CountedStream, Held, Plan, SteadyLoad};
use lb_tests::net::{Namespace, Node, VIP4};
use lb_tests::servers::HTTP_PORT;
use lb_tests::site::Site;
use lb_tests::traffic::Sources;
use rustix::net::{AddressFamily, SendFlags, SocketType, ipproto, sendto, socket};

/// Packets of the stream in a second.
const RATE: u64 = 50_000;
/// Half of what a link holds: others use it, too.
const WINDOW: u64 = 128;
/// Requests in a second.
const REQUESTS: u32 = 50;
/// Longer than a round.
const LONGEST: Duration = Duration::from_mins(2);
/// A request that fails was begun so long before, at most.
const REQUEST: Duration = Duration::from_millis(1200);

/// The stream comes from a client to which nothing else happens; all others from one whose link fails now and then.
const STREAMING: Node = Node::Client(1);
pub(super) const OTHERS: u8 = 2;

/// Times in which requests may fail, by whose fault it is.
#[derive(Debug, Default)]
pub(super) struct Disturbances(Vec<(Node, Instant, Option<Instant>)>);

impl Disturbances {
    pub(super) fn begin(&mut self, fault: Node) {
        if !self.is_going_on(fault) {
            self.0.push((fault, Instant::now(), None));
        }
    }

    pub(super) fn end(&mut self, fault: Node) {
        for (_, _, end) in self.0.iter_mut().filter(|(of, _, end)| *of == fault && end.is_none()) {
            *end = Some(Instant::now());
        }
    }

    fn is_going_on(&self, fault: Node) -> bool {
        self.0.iter().any(|(of, _, end)| *of == fault && end.is_none())
    }

    /// Whether nothing is wrong now that anybody would notice.
    pub(super) fn is_calm(&self) -> bool {
        self.0.iter().all(|(_, _, end)| end.is_some())
    }

    /// Whether a request that was begun then may have failed.
    fn excuse(&self, begun: Instant) -> bool {
        self.0.iter().any(|(_, from, to)| begun + REQUEST >= *from && to.is_none_or(|to| begun <= to))
    }

    /// Whether anything was wrong since they were last forgotten.
    pub(super) fn were_any(&self) -> bool {
        !self.0.is_empty()
    }

    /// Each, in seconds since a moment.
    fn told(&self, since: Instant) -> String {
        let at = |when: Instant| format!("{:.3}", when.saturating_duration_since(since).as_secs_f64());
        let tell = |(of, from, to): &(Node, Instant, Option<Instant>)| {
            format!("{of} from {} to {}", at(*from), to.map_or("now".to_owned(), at))
        };
        self.0.iter().map(tell).collect::<Vec<_>>().join(", ")
    }

    /// Forgets those that are over.
    pub(super) fn forget(&mut self) {
        self.0.retain(|(_, _, end)| end.is_none());
    }
}

/// All traffic of a round.
pub(super) struct Traffic {
    begun: Instant,
    stream: Counted,
    requests: SteadyLoad,
}

/// What it came to.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) streamed: u64,
    pub(super) requests: usize,
    pub(super) excused: usize,
}

impl Traffic {
    pub(super) fn begin(site: &Site) -> Result<Self> {
        let stream = CountedStream { sources: Sources::BUSY, vip: VIP4, rate: RATE, window: WINDOW };
        let plan = Plan { target: (VIP4, HTTP_PORT).into(), rate: REQUESTS, longest: LONGEST };
        Ok(Self {
            begun: Instant::now(),
            stream: stream.start(&site.lab, STREAMING)?,
            requests: SteadyLoad::start(&site.client(OTHERS), plan),
        })
    }

    /// Ends it: every packet of the stream has arrived, and every request was answered for which there is no excuse.
    pub(super) fn end(self, disturbances: &Disturbances) -> Result<Counts> {
        let report = self.requests.finish()?;
        let tally = self.stream.finish()?;
        let (sent, received) = (tally.sent, tally.received);
        ensure!(sent == received, "{received} of {sent} packets arrived");
        ensure!(tally.rate() > RATE / 2, "only {sent} packets were sent in {:?}", tally.took);
        let failed = || report.requests.iter().filter(|request| request.answer.is_err());
        let unexcused = failed().find(|request| !disturbances.excuse(request.begun));
        if let Some(request) = unexcused {
            let at = request.begun.saturating_duration_since(self.begun);
            let (why, all, excuses) =
                (request.answer.as_ref().err(), failed().count(), disturbances.told(self.begun));
            bail!(
                "a request, one of {all} that failed, had no excuse at {at:?}: {why:?}; excuses: {excuses}"
            );
        }
        Ok(Counts { streamed: sent, requests: report.total(), excused: failed().count() })
    }
}

/// Connections that stay open.
#[derive(Default)]
pub(super) struct Connections {
    open: Vec<(&'static str, Held)>,
    pub(super) asked: u64,
}

impl Connections {
    /// Opens more. Those of a backend that fails now and then are closed at once.
    pub(super) fn open(
        &mut self,
        from: &Namespace,
        service: &'static str,
        target: SocketAddr,
        count: usize,
        fails: Node,
    ) -> Result<()> {
        let opened =
            Held::open_many(from, target, count).with_context(|| format!("new ones of {service}"))?;
        let fails = fails.to_string();
        self.open.extend(opened.into_iter().filter(|one| one.backend() != fails).map(|one| (service, one)));
        Ok(())
    }

    pub(super) fn count(&self) -> usize {
        self.open.len()
    }

    /// One of them asks, and is answered.
    pub(super) fn ask(&mut self, index: usize) -> Result<()> {
        let count = self.open.len();
        let (service, connection) = &mut self.open[index % count];
        self.asked += 1;
        let backend = connection.backend().to_owned();
        connection.ask().with_context(|| format!("a connection of {service} to {backend} broke"))
    }
}

/// Sends so many connection attempts with addresses of others, which nobody goes on with.
pub(super) fn send_syns(from: &Namespace, target: (Ipv4Addr, u16), count: u32, salt: u32) -> Result<()> {
    from.run(|| {
        let raw = socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::RAW))?;
        let (vip, port) = target;
        for number in 0..count {
            let [_, b, c, d] = salt.wrapping_add(number.wrapping_mul(0x9e37_79b1)).to_be_bytes();
            let packet = PacketBuilder::ipv4([11, b, c, d], vip.octets(), 64);
            let packet = packet.tcp(1024 + (number % 60_000) as u16, port, number, 1024).syn();
            let mut bytes = Vec::with_capacity(packet.size(0));
            packet.write(&mut bytes, &[])?;
            sendto(&raw, &bytes, SendFlags::empty(), &SocketAddr::from((vip, port)))?;
            // A link holds some hundred packets.
            if number % 32 == 31 {
                interrupt::pause(Duration::from_millis(1))?;
            }
        }
        Ok(())
    })?
}
