//! Next hops against the real kernel, in network namespaces that each test makes for itself. Needs root, else each test
//! counts as ignored.

mod cable;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::IpAddr;
use std::thread;
use std::time::{Duration, Instant};

use lb_userspace::neighbors::{Mac, Neighbors, NextHop, Unreachable};
use libtest_mimic::{Arguments, Trial};

use cable::{Cable, PATIENCE, batch, events_lost, ifindex, in_a_thread, ip, wait_for};

const LB_MAC: Mac = [2, 0, 0, 0, 0, 1];
const PEER_MAC: Mac = [2, 0, 0, 0, 0, 2];
const NEW_MAC: Mac = [2, 0, 0, 0, 0, 3];

/// On-link backends that answer, one of each family.
const ON_LINK: [&str; 2] = ["10.0.0.2", "fd00::2"];
/// On-link addresses that nobody holds.
const NOBODY: [&str; 2] = ["10.0.0.77", "fd00::77"];

fn main() {
    let root = rustix::process::geteuid().is_root();
    let trial = |name: &'static str, test: fn(&mut Lab)| {
        Trial::test(name, move || in_a_thread(move || test(&mut Lab::new()))).with_ignored_flag(!root)
    };
    let trials = vec![
        trial("on_link_backends_resolve_once_their_neighbor_answers", on_link),
        trial("routed_backends_resolve_through_their_gateway", routed),
        trial("an_ipv4_route_may_have_an_ipv6_gateway", routed_via_other_family),
        trial("the_mtu_of_a_route_is_respected", route_mtu),
        trial("a_new_mac_is_noticed", new_mac),
        trial("a_stale_neighbor_is_used_and_confirmed", stale),
        trial("a_machine_replaced_in_silence_is_found_again", replaced_in_silence),
        trial("a_failed_neighbor_recovers", failed_and_recovered),
        trial("a_neighbor_that_the_kernel_forgets_is_where_it_was", forgotten),
        trial("a_neighbor_that_is_forgotten_and_gone_is_noticed", forgotten_and_gone),
        trial("a_removed_route_is_noticed", removed_route),
        trial("routes_that_refuse_are_named", refusing_routes),
        trial("own_and_shared_addresses_are_refused", own_and_shared_addresses),
        trial("a_link_that_goes_down_is_noticed", link_down),
        trial("a_link_without_ethernet_is_refused", not_ethernet),
        trial("probes_wake_nobody", probes_wake_nobody),
        trial("foreign_neighbors_wake_nobody", foreign_neighbors),
        trial("a_cancelled_wait_loses_no_change", cancelled_wait),
        trial("lost_events_count_as_a_change", lost_events),
        trial("thousands_of_backends_resolve_quickly", thousands),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

/// Two hosts on a cable: this thread is on the balancer (`lb0`, 10.0.0.1, `fd00::1`), the peer (`peer0`, 10.0.0.2,
/// `fd00::2`) is a backend and a router.
struct Lab {
    cable: Cable,
    runtime: tokio::runtime::Runtime,
    neighbors: Neighbors,
}

impl Lab {
    fn new() -> Self {
        let cable = Cable::new();
        wait_for_the_cable();
        hurry();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let neighbors = runtime.block_on(Neighbors::connect()).expect("the kernel has netlink");
        let mut lab = Self { cable, runtime, neighbors };
        lab.quiet();
        lab
    }

    fn resolve(&mut self, targets: &[&str]) -> BTreeMap<IpAddr, Result<NextHop, Unreachable>> {
        let targets: BTreeSet<IpAddr> = targets.iter().map(|target| address(target)).collect();
        let resolved = self.runtime.block_on(self.neighbors.resolve(&targets)).expect("the kernel answers");
        assert!(resolved.keys().eq(targets.iter()), "each target has an answer");
        resolved
    }

    fn resolve_one(&mut self, target: &str) -> Result<NextHop, Unreachable> {
        self.resolve(&[target]).remove(&address(target)).expect("each target has an answer")
    }

    /// Whether a change is reported within `time`.
    fn changed_within(&mut self, time: Duration) -> bool {
        let changed = async { tokio::time::timeout(time, self.neighbors.changed()).await };
        match self.runtime.block_on(changed) {
            Ok(outcome) => outcome.map(|()| true).expect("the connection lives"),
            Err(_) => false,
        }
    }

    /// Resolves again after each change until the outcome is the wanted one, as the daemon does. Waking by time as well
    /// would hide a missed change.
    fn until(
        &mut self,
        target: &str,
        wanted: impl Fn(&Result<NextHop, Unreachable>) -> bool,
    ) -> Result<NextHop, Unreachable> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let outcome = self.resolve_one(target);
            if wanted(&outcome) {
                return outcome;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(self.changed_within(left), "no change was reported; {target} is still {outcome:?}");
        }
    }

    /// Waits until the events of the set-up are over: router solicitations, link-local addresses and the like.
    fn quiet(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while self.changed_within(Duration::from_millis(300)) {
            assert!(Instant::now() < deadline, "the namespace does not come to rest");
        }
    }
}

/// Waits until the peer answers, about a second after its link came up, and forgets the answers.
fn wait_for_the_cable() {
    for target in ON_LINK {
        ip(&format!("neigh replace {target} dev lb0 use nud none"));
        wait_for_state(target, "REACHABLE");
    }
    ip("neigh flush dev lb0");
}

/// Lets the kernel give up an unanswered request after 3 x 20 ms instead of 3 x 1 s, and follow up a doubt at once.
fn hurry() {
    for family in ["ipv4", "ipv6"] {
        for (name, value) in [("retrans_time_ms", "20"), ("delay_first_probe_time", "0")] {
            fs::write(format!("/proc/sys/net/{family}/neigh/lb0/{name}"), value)
                .expect("a sysctl of the namespace");
        }
    }
}

/// Waits until `ip neigh` shows the entry in the state.
fn wait_for_state(target: &str, state: &str) {
    wait_for(state, || ip(&format!("neigh show {target} dev lb0")));
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn mac_of(outcome: &Result<NextHop, Unreachable>) -> Option<Mac> {
    outcome.as_ref().ok().map(|hop| hop.mac)
}

fn is_no_neighbor(outcome: &Result<NextHop, Unreachable>) -> bool {
    matches!(outcome, Err(Unreachable::NoNeighbor { .. }))
}

/// The next hop over `lb0` to the peer.
fn to_peer(gateway: Option<&str>, source: &str) -> NextHop {
    NextHop {
        interface: "lb0".into(),
        ifindex: ifindex(),
        gateway: gateway.map(address),
        source: address(source),
        source_mac: LB_MAC,
        mac: PEER_MAC,
        mtu: 1500,
    }
}

fn on_link(lab: &mut Lab) {
    for (target, source) in ON_LINK.iter().zip(["10.0.0.1", "fd00::1"]) {
        let missing = Unreachable::NoNeighbor { interface: "lb0".into(), address: address(target) };
        assert_eq!(lab.resolve_one(target), Err(missing));
        assert_eq!(lab.until(target, Result::is_ok), Ok(to_peer(None, source)));
    }
    let both = lab.resolve(&ON_LINK);
    assert!(both.values().all(Result::is_ok), "{both:?}");
}

fn routed(lab: &mut Lab) {
    ip("route add 10.9.0.0/16 via 10.0.0.2");
    ip("route add fd09::/32 via fd00::2");
    for (target, gateway, source) in [("10.9.1.1", "10.0.0.2", "10.0.0.1"), ("fd09::1", "fd00::2", "fd00::1")]
    {
        assert!(is_no_neighbor(&lab.resolve_one(target)));
        assert_eq!(lab.until(target, Result::is_ok), Ok(to_peer(Some(gateway), source)));
    }
}

fn routed_via_other_family(lab: &mut Lab) {
    ip("route add 10.9.0.0/16 via inet6 fd00::2 dev lb0");
    assert_eq!(lab.until("10.9.1.1", Result::is_ok), Ok(to_peer(Some("fd00::2"), "10.0.0.1")));
}

fn route_mtu(lab: &mut Lab) {
    ip("route add 10.9.0.0/16 via 10.0.0.2 mtu 1400");
    ip("route add fd09::/32 via fd00::2 mtu 1380");
    for (target, mtu) in [("10.9.1.1", 1400), ("fd09::1", 1380)] {
        assert_eq!(lab.until(target, Result::is_ok).expect("waited for").mtu, mtu);
    }
}

fn new_mac(lab: &mut Lab) {
    for target in ON_LINK {
        lab.until(target, Result::is_ok).expect("waited for");
        ip(&format!("neigh replace {target} lladdr 02:00:00:00:00:03 dev lb0 nud reachable"));
        assert!(lab.changed_within(PATIENCE));
        assert_eq!(mac_of(&lab.resolve_one(target)), Some(NEW_MAC));
    }
}

fn stale(lab: &mut Lab) {
    for target in ON_LINK {
        ip(&format!("neigh replace {target} lladdr 02:00:00:00:00:02 dev lb0 nud stale"));
        assert_eq!(mac_of(&lab.resolve_one(target)), Some(PEER_MAC), "a stale neighbor is used");
        wait_for_state(target, "REACHABLE");
    }
}

fn replaced_in_silence(lab: &mut Lab) {
    for target in ON_LINK {
        lab.until(target, Result::is_ok).expect("waited for");
        // The peer keeps its MAC; to the balancer's eyes another machine had the address before, and nobody told it.
        ip(&format!("neigh replace {target} lladdr 02:00:00:00:00:03 dev lb0 nud stale"));
        assert!(lab.changed_within(PATIENCE));
        assert_eq!(mac_of(&lab.until(target, |outcome| mac_of(outcome) == Some(PEER_MAC))), Some(PEER_MAC));
    }
}

fn failed_and_recovered(lab: &mut Lab) {
    for (target, length) in NOBODY.iter().zip([24, 64]) {
        assert!(is_no_neighbor(&lab.resolve_one(target)));
        wait_for_state(target, "FAILED");
        lab.cable.peer.ip(&format!("addr add {target}/{length} dev peer0"));
        // The failed entry may be probed again a second after the first probe: nothing else can wake the resolver.
        thread::sleep(Duration::from_millis(1100));
        assert!(is_no_neighbor(&lab.resolve_one(target)));
        assert!(lab.changed_within(PATIENCE), "a failed neighbor is asked for again");
        assert_eq!(mac_of(&lab.resolve_one(target)), Some(PEER_MAC));
    }
}

fn forgotten(lab: &mut Lab) {
    for target in ON_LINK {
        let known = lab.until(target, Result::is_ok);
        ip("neigh flush dev lb0");
        assert!(lab.changed_within(PATIENCE), "nobody tells that it is to be asked for again");
        assert_eq!(lab.resolve_one(target), known, "it counts as gone");
        wait_for_state(target, "REACHABLE");
        assert_eq!(lab.resolve_one(target), known);
    }
}

fn forgotten_and_gone(lab: &mut Lab) {
    for (target, length) in ON_LINK.iter().zip([24, 64]) {
        let known = lab.until(target, Result::is_ok);
        lab.cable.peer.ip(&format!("addr del {target}/{length} dev peer0"));
        ip("neigh flush dev lb0");
        let lost = Instant::now();
        assert_eq!(lab.resolve_one(target), known, "it counts as gone at once");
        assert!(is_no_neighbor(&lab.until(target, Result::is_err)));
        assert!(lost.elapsed() < Duration::from_secs(4), "noticed after {:?}", lost.elapsed());
    }
}

fn removed_route(lab: &mut Lab) {
    ip("route add 10.9.0.0/16 via 10.0.0.2");
    ip("route add fd09::/32 via fd00::2");
    for (target, route) in [("10.9.1.1", "10.9.0.0/16"), ("fd09::1", "fd09::/32")] {
        lab.until(target, Result::is_ok).expect("waited for");
        ip(&format!("route del {route}"));
        assert!(lab.changed_within(PATIENCE));
        assert_eq!(lab.resolve_one(target), Err(Unreachable::NoRoute { address: address(target) }));
    }
}

fn refusing_routes(lab: &mut Lab) {
    for kind in ["blackhole", "unreachable", "prohibit"] {
        for (target, route) in [("10.9.1.1", "10.9.0.0/16"), ("fd09::1", "fd09::/32")] {
            ip(&format!("route add {kind} {route}"));
            assert!(lab.changed_within(PATIENCE));
            let refused = Unreachable::Refused { address: address(target), kind };
            assert_eq!(lab.resolve_one(target), Err(refused));
            ip(&format!("route del {kind} {route}"));
        }
    }
}

fn own_and_shared_addresses(lab: &mut Lab) {
    for target in ["10.0.0.1", "fd00::1", "127.0.0.1", "::1"] {
        assert_eq!(lab.resolve_one(target), Err(Unreachable::Local { address: address(target) }));
    }
    ip("route add multicast 239.0.0.0/8 dev lb0");
    for (target, kind) in [("10.0.0.255", "broadcast"), ("239.1.1.1", "multicast"), ("ff0e::1", "multicast")]
    {
        assert_eq!(lab.resolve_one(target), Err(Unreachable::NotUnicast { address: address(target), kind }));
    }
}

fn link_down(lab: &mut Lab) {
    for target in ON_LINK {
        lab.until(target, Result::is_ok).expect("waited for");
        lab.cable.peer.ip("link set peer0 down");
        let down = Unreachable::LinkDown { interface: "lb0".into() };
        assert_eq!(lab.until(target, |outcome| !is_no_neighbor(outcome) && outcome.is_err()), Err(down));
        lab.cable.peer.ip("link set peer0 up");
        // IPv6 addresses do not survive their link.
        lab.cable.peer.ip("addr replace fd00::2/64 dev peer0");
        lab.until(target, |outcome| !matches!(outcome, Err(Unreachable::LinkDown { .. }))).ok();
        lab.quiet();
    }
}

fn not_ethernet(lab: &mut Lab) {
    ip("route add 10.9.0.0/16 dev lo");
    let refused = Unreachable::NotEthernet { interface: "lo".into() };
    assert_eq!(lab.resolve_one("10.9.1.1"), Err(refused));
}

fn probes_wake_nobody(lab: &mut Lab) {
    for target in NOBODY {
        assert!(is_no_neighbor(&lab.resolve_one(target)));
        assert!(!lab.changed_within(Duration::from_millis(200)), "an unanswered probe is no change");
        wait_for_state(target, "FAILED");
    }
}

fn foreign_neighbors(lab: &mut Lab) {
    lab.until(ON_LINK[0], Result::is_ok).expect("waited for");
    ip("neigh add 10.0.0.99 lladdr 02:00:00:00:00:63 dev lb0");
    assert!(!lab.changed_within(Duration::from_millis(100)), "nobody asked for this neighbor");
}

fn cancelled_wait(lab: &mut Lab) {
    assert!(!lab.changed_within(Duration::from_millis(1)), "nothing has happened yet");
    ip("route add 10.9.0.0/16 via 10.0.0.2");
    assert!(lab.changed_within(PATIENCE));
    // The second report has to wait for its turn: cancel it there.
    ip("route del 10.9.0.0/16");
    assert!(!lab.changed_within(Duration::from_millis(50)));
    assert!(lab.changed_within(PATIENCE), "the cancelled wait took the change with it");
    assert!(!lab.changed_within(Duration::from_millis(300)), "one change is reported once");
}

fn lost_events(lab: &mut Lab) {
    lab.until(ON_LINK[0], Result::is_ok).expect("waited for");
    lab.quiet();
    // The runtime stands still meanwhile, so the socket's buffer overflows.
    let route = |n: u32| format!("route add 10.{}.{}.0/24 dev lb0", 100 + n / 200, n % 200);
    batch((0..20_000).map(route));
    assert!(events_lost(), "the buffer did not overflow");
    assert!(lab.changed_within(PATIENCE));
    assert!(lab.resolve_one(ON_LINK[0]).is_ok());
    lab.quiet();
    ip("route add 10.9.0.0/16 via 10.0.0.2");
    assert!(lab.changed_within(PATIENCE), "events go on after an overflow");
    assert!(lab.resolve_one("10.9.1.1").is_ok());
}

fn thousands(lab: &mut Lab) {
    ip("route add 10.9.0.0/16 via 10.0.0.2");
    let names: Vec<String> = (0..10_000).map(|n| format!("10.9.{}.{}", n / 200, n % 200 + 1)).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    lab.until(names[0], Result::is_ok).expect("waited for");
    let start = Instant::now();
    assert!(lab.resolve(&names).values().all(Result::is_ok));
    let first = start.elapsed();
    let start = Instant::now();
    lab.resolve(&names);
    eprintln!("10 000 backends: {first:?} at first, {:?} from then on", start.elapsed());
    assert!(first < PATIENCE, "10 000 look-ups took {first:?}");
}
