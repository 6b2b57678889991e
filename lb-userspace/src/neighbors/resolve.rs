//! From the kernel's answers to a next hop: pure, and so tested without a kernel.

use std::collections::HashMap;
use std::net::IpAddr;

use super::kernel::{Link, NeighborKey, Path, Route};
use super::{Mac, NextHop, Unreachable};

/// The next hop of `address`, given its route, the links it may lead to, and where neighbours are.
pub(super) fn next_hop(
    address: IpAddr,
    route: Route,
    links: &HashMap<u32, Link>,
    mac_of: impl FnOnce(NeighborKey) -> Option<Mac>,
) -> Result<NextHop, Unreachable> {
    let Path { ifindex, gateway, source, mtu } = path(address, route)?;
    // An unknown link was removed after the route was looked up; the event that says so is on its way.
    let link = links.get(&ifindex).ok_or(Unreachable::NoRoute { address })?;
    let interface = link.name.clone();
    if !link.running {
        return Err(Unreachable::LinkDown { interface });
    }
    let Some(source_mac) = link.mac else {
        return Err(Unreachable::NotEthernet { interface });
    };
    let Some(source) = source else {
        return Err(Unreachable::NoSource { address, interface });
    };
    let neighbor = gateway.unwrap_or(address);
    let Some(mac) = mac_of((ifindex, neighbor)) else {
        return Err(Unreachable::NoNeighbor { interface, address: neighbor });
    };
    let mtu = mtu.map_or(link.mtu, |limit| limit.min(link.mtu));
    Ok(NextHop { interface, ifindex, gateway, source, source_mac, mac, mtu })
}

fn path(address: IpAddr, route: Route) -> Result<Path, Unreachable> {
    match route {
        Route::Path(path) => Ok(path),
        Route::Local => Err(Unreachable::Local { address }),
        Route::Refused(kind) => Err(Unreachable::Refused { address, kind }),
        Route::NotUnicast(kind) => Err(Unreachable::NotUnicast { address, kind }),
        Route::Missing => Err(Unreachable::NoRoute { address }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 1, 0, 9));
    const GATEWAY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const SOURCE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));
    const OURS: [u8; 6] = [2, 0, 0, 0, 0, 2];
    const THEIRS: [u8; 6] = [2, 0, 0, 0, 0, 1];

    fn ethernet() -> Link {
        Link { name: "eth0".into(), mac: Some(OURS), mtu: 1500, running: true }
    }

    fn routed() -> Path {
        Path { ifindex: 2, gateway: Some(GATEWAY), source: Some(SOURCE), mtu: None }
    }

    fn resolve(path: Path, link: Link, gateway: Option<Mac>) -> Result<NextHop, Unreachable> {
        let links = HashMap::from([(2, link)]);
        next_hop(TARGET, Route::Path(path), &links, |key| gateway.filter(|_| key == (2, GATEWAY)))
    }

    #[test]
    fn a_routed_backend_is_reached_through_its_gateway() {
        let expected = NextHop {
            interface: "eth0".into(),
            ifindex: 2,
            gateway: Some(GATEWAY),
            source: SOURCE,
            source_mac: OURS,
            mac: THEIRS,
            mtu: 1500,
        };
        assert_eq!(resolve(routed(), ethernet(), Some(THEIRS)), Ok(expected));
    }

    #[test]
    fn the_smaller_mtu_of_link_and_route_counts() {
        for (route, link, least) in [(Some(1400), 1500, 1400), (Some(9000), 1500, 1500), (None, 9000, 9000)] {
            let path = Path { mtu: route, ..routed() };
            let link = Link { mtu: link, ..ethernet() };
            assert_eq!(resolve(path, link, Some(THEIRS)).unwrap().mtu, least);
        }
    }

    #[test]
    fn every_missing_piece_has_its_own_reason() {
        let known = Some(THEIRS);
        let reason = |path, link, gateway| resolve(path, link, gateway).unwrap_err().to_string();
        let no_neighbor = "10.0.0.1 has not answered ARP on eth0: check that it is up and on that link";
        assert_eq!(reason(routed(), ethernet(), None), no_neighbor);
        assert_eq!(
            reason(routed(), Link { running: false, ..ethernet() }, known),
            "interface eth0 is down: bring it up with `ip link set eth0 up`, or check its cable and peer"
        );
        assert_eq!(
            reason(routed(), Link { mac: None, ..ethernet() }, known),
            "interface eth0 does not carry Ethernet frames: route the backend over one that does"
        );
        assert_eq!(
            reason(Path { source: None, ..routed() }, ethernet(), known),
            "there is no address to reach 10.1.0.9 from: add one of its family with `ip address add ... dev eth0`"
        );
        assert_eq!(
            reason(Path { ifindex: 9, ..routed() }, ethernet(), known),
            "no route to 10.1.0.9: add one with `ip route add`, or bring up the interface that leads there"
        );
    }

    #[test]
    fn routes_that_lead_nowhere_say_so() {
        let reason = |route| next_hop(TARGET, route, &HashMap::new(), |_| None).unwrap_err().to_string();
        assert_eq!(
            reason(Route::Missing),
            "no route to 10.1.0.9: add one with `ip route add`, or bring up the interface that leads there"
        );
        assert_eq!(
            reason(Route::Local),
            "10.1.0.9 is an address of this host: a backend has to be another machine"
        );
        assert_eq!(
            reason(Route::Refused("blackhole")),
            "the route to 10.1.0.9 is a blackhole route: replace it, see `ip route get 10.1.0.9`"
        );
        assert_eq!(
            reason(Route::NotUnicast("broadcast")),
            "10.1.0.9 is a broadcast address: give the backend's unicast address"
        );
    }
}
