//! Announcements as a host on the same link sees them, in network namespaces that each test makes for itself. Needs root,
//! else each test counts as ignored.

mod cable;

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use lb_userspace::announce::Announcer;
use libtest_mimic::{Arguments, Trial};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, Protocol, RecvFlags, SocketType, recv, socket};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
use tokio::runtime::Runtime;
use tokio::sync::watch;

use cable::{Cable, PATIENCE, batch, events_lost, ifindex, in_a_thread, ip, wait_for};

/// A VIP of each family, and one more.
const VIPS: [&str; 2] = ["192.0.2.10", "2001:db8::10"];
const OTHER: &str = "192.0.2.11";

const LB_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// Longer than from one announcement to the next.
const SILENCE: Duration = Duration::from_millis(1500);

fn main() {
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(|| Log).finish();
    tracing::subscriber::set_global_default(subscriber).expect("there is no other");
    let root = rustix::process::geteuid().is_root();
    let trial = |name: &'static str, test: fn(&Cable)| {
        let run = move || in_a_thread(move || test(&Cable::new()));
        Trial::test(name, run).with_ignored_flag(!root)
    };
    let trials = vec![
        trial("a_neighbor_learns_where_a_vip_is_now", learned),
        trial("a_vip_is_announced_three_times_and_not_at_once", three_times),
        trial("only_what_is_new_is_announced", only_new),
        trial("a_link_that_comes_back_is_told_again", link_back),
        trial("a_link_is_told_again_after_lost_events", lost_events),
        trial("a_missing_capability_is_told", no_capability),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

/// What the announcers of all tests log.
static LOG: Mutex<Vec<u8>> = Mutex::new(Vec::new());

struct Log;

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LOG.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn logged() -> String {
    String::from_utf8_lossy(&LOG.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
}

/// An announcer at work on `lb0`.
struct Speaker {
    vips: watch::Sender<BTreeSet<IpAddr>>,
    _announcer: Announcer,
    _runtime: Runtime,
}

impl Speaker {
    /// Its threads inherit namespace and capabilities of the calling one.
    fn start(vips: &[&str]) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let vips = watch::Sender::new(addresses(vips));
        let inside = runtime.enter();
        let announcer = Announcer::start([("lb0".to_owned(), ifindex())], vips.subscribe());
        drop(inside);
        Self { vips, _announcer: announcer, _runtime: runtime }
    }

    fn set(&self, vips: &[&str]) {
        self.vips.send_replace(addresses(vips));
    }
}

fn addresses(texts: &[&str]) -> BTreeSet<IpAddr> {
    texts.iter().map(|text| text.parse().expect("an address")).collect()
}

/// Every frame that reaches the peer.
struct Capture(OwnedFd);

impl Capture {
    fn start(cable: &Cable) -> Self {
        // `ETH_P_ALL` (linux/if_ether.h) in network byte order.
        let everything = NonZeroU32::new(u32::from(3_u16.to_be())).map(Protocol::from_raw);
        let open = || {
            cable.peer.enter();
            socket(AddressFamily::PACKET, SocketType::RAW, everything)
        };
        let opened = thread::scope(|scope| scope.spawn(open).join());
        Self(opened.expect("the peer is alive").expect("root may capture"))
    }

    /// The VIP of the next announcement that comes within `time`.
    fn next(&self, time: Duration) -> Option<IpAddr> {
        let deadline = Instant::now() + time;
        let mut buffer = [0; 2048];
        loop {
            let left = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
            set_socket_timeout(&self.0, Timeout::Recv, Some(left)).expect("a time-out");
            let Ok((length, _)) = recv(&self.0, &mut buffer, RecvFlags::empty()) else { return None };
            if let Some(vip) = announced(&buffer[..length]) {
                return Some(vip);
            }
        }
    }

    /// The VIPs of the next announcements.
    fn take(&self, count: usize) -> Vec<String> {
        let next = |_| self.next(PATIENCE).expect("an announcement").to_string();
        let mut taken: Vec<String> = (0..count).map(next).collect();
        taken.sort_unstable();
        taken
    }
}

/// The address that a frame of `lb0` announces: its sender asks for itself, or advertises itself to all nodes. The
/// kernel's own announcements are about other addresses.
fn announced(frame: &[u8]) -> Option<IpAddr> {
    let (ethernet, packet) = frame.split_at_checked(14)?;
    let vip: IpAddr = match (&ethernet[..6], &ethernet[12..]) {
        ([0xff, 0xff, 0xff, 0xff, 0xff, 0xff], [0x08, 0x06]) => {
            let (sender, target) = (packet.get(14..18)?, packet.get(24..28)?);
            let vip: [u8; 4] = target.try_into().ok()?;
            (sender == target).then_some(vip.into())?
        }
        ([0x33, 0x33, 0, 0, 0, 1], [0x86, 0xdd]) => {
            let vip: [u8; 16] = packet.get(48..64)?.try_into().ok()?;
            (packet[40] == 136).then_some(vip.into())?
        }
        _ => return None,
    };
    let ours = ethernet[6..12] == LB_MAC && addresses(&[VIPS[0], VIPS[1], OTHER]).contains(&vip);
    ours.then_some(vip)
}

/// The peer has the VIPs' former machine in its tables.
fn learned(cable: &Cable) {
    for vip in VIPS {
        cable.peer.ip(&format!("neigh replace {vip} lladdr 02:00:00:00:00:99 dev peer0 nud stale"));
    }
    let _speaker = Speaker::start(&VIPS);
    for vip in VIPS {
        wait_for("02:00:00:00:00:01", || cable.peer.ip(&format!("neigh show {vip} dev peer0")));
    }
}

fn three_times(cable: &Cable) {
    let capture = Capture::start(cable);
    let _speaker = Speaker::start(&VIPS);
    for repetition in 0..3 {
        let begun = Instant::now();
        assert_eq!(capture.take(2), VIPS);
        assert!(repetition == 0 || begun.elapsed() > Duration::from_millis(500), "too soon");
    }
    assert_eq!(capture.next(SILENCE), None);
}

fn only_new(cable: &Cable) {
    let capture = Capture::start(cable);
    let speaker = Speaker::start(&[]);
    assert_eq!(capture.next(SILENCE), None);
    speaker.set(&VIPS[..1]);
    for _ in 0..3 {
        assert_eq!(capture.take(1), VIPS[..1]);
    }
    speaker.set(&[VIPS[0], OTHER]);
    assert_eq!(capture.take(2), [OTHER, OTHER]);
    speaker.set(&[]);
    assert_eq!(capture.next(SILENCE), None);
}

fn link_back(cable: &Cable) {
    let capture = Capture::start(cable);
    let _speaker = Speaker::start(&VIPS);
    assert_eq!(capture.take(2), VIPS);
    ip("link set lb0 down");
    assert_eq!(capture.next(SILENCE), None);
    ip("link set lb0 up");
    for _ in 0..3 {
        assert_eq!(capture.take(2), VIPS);
    }
}

fn lost_events(cable: &Cable) {
    let capture = Arc::new(Capture::start(cable));
    // The announcer runs only while this thread waits in `block_on`.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let inside = runtime.enter();
    let vips = watch::Sender::new(addresses(&VIPS));
    let _announcer = Announcer::start([("lb0".to_owned(), ifindex())], vips.subscribe());
    drop(inside);
    let take = || {
        let capture = Arc::clone(&capture);
        runtime.block_on(runtime.spawn_blocking(move || capture.take(2))).expect("they come")
    };
    for _ in 0..3 {
        assert_eq!(take(), VIPS);
    }
    batch((0..2_000).map(|n| format!("link set lb0 alias {n}")));
    assert!(events_lost(), "the buffer did not overflow");
    for _ in 0..3 {
        assert_eq!(take(), VIPS);
    }
}

fn no_capability(_: &Cable) {
    let mut sets = capabilities(None).expect("the kernel knows");
    sets.effective.remove(CapabilitySet::NET_RAW);
    set_capabilities(None, sets).expect("less is always allowed");
    let _speaker = Speaker::start(&[OTHER]);
    wait_for("cannot announce 192.0.2.11: Operation not permitted (os error 1); give lb CAP_NET_RAW", logged);
}
