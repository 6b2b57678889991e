//! What is no tunnel packet for this host, and tunnel packets that only the stack can handle: they are passed untouched.

use etherparse::{IpFragOffset, IpNumber, Ipv6FragmentHeader};
use lb_common::decap::DecapPass::{Fragment, GueVariant, Malformed, NotForHost, NotIp, NotTunnel};

use super::unwrapping::CUSTOMER;
use super::{BACKEND4, BALANCER4, Fixture, Way, bytes, given, in4, in6, tunnels, wrapped};
use crate::fixtures::frames::{Draft, IP, TRANSPORT4, TRANSPORT6, other, tcp, udp};

pub(super) fn fixtures() -> Vec<Fixture> {
    let parts = [bystanders(), elsewhere(), broken(), fragments(), variants()];
    parts.into_iter().flatten().collect()
}

fn inner() -> Draft {
    tcp("192.0.2.10:80")
}

/// Not IP, or not a tunnel's.
fn bystanders() -> Vec<Fixture> {
    let arp = |mut frame: Vec<u8>| {
        frame[12..14].copy_from_slice(&[0x08, 0x06]);
        frame
    };
    vec![
        given("ARP", arp(inner().frame())).passes(NotIp),
        given("a tunnel packet behind a third tag", in4(Way::Ipip, inner()))
            .tagged(&[CUSTOMER; 3])
            .passes(NotIp),
        given("TCP for the host", tcp("10.9.0.1:80").from(BALANCER4)).passes(NotTunnel),
        given("TCP to the GUE port", tcp("10.9.0.1:6080").from(BALANCER4)).passes(NotTunnel),
        given("UDP to a port beside GUE's", udp("10.9.0.1:6081").from(BALANCER4)).passes(NotTunnel),
        given("UDP from the GUE port", udp("10.9.0.1:53").from(BALANCER4).source_port(6080))
            .passes(NotTunnel),
        given("UDP over IPv6 to a port beside GUE's", udp("[fd00:9::1]:6079")).passes(NotTunnel),
        given("an echo request for the host", other("10.9.0.1:0", IpNumber::ICMP)).passes(NotTunnel),
        given("GRE for the host", other("10.9.0.1:0", IpNumber::GRE)).passes(NotTunnel),
        given("IPv6 with no next header", other("[fd00:9::1]:0", IpNumber::IPV6_NO_NEXT_HEADER))
            .passes(NotTunnel),
        given("TCP for a VIP", inner()).passes(NotTunnel),
        given(
            "an IPv4 packet that ends inside the header of UDP to the GUE port",
            in4(Way::Gue, inner()).patched(IP + 2, &[0, 27]),
        )
        .passes(NotTunnel),
        given(
            "an IPv6 packet that ends inside the header of UDP to the GUE port",
            in6(Way::Gue, inner()).patched(IP + 4, &[0, 7]),
        )
        .passes(NotTunnel),
    ]
}

/// Tunnel packets on their way through this host, or to a service on it: from listed senders and from others.
fn elsewhere() -> Vec<Fixture> {
    let mut fixtures = Vec::new();
    for way in Way::BOTH {
        for (destination, sender) in [("10.9.0.2", BALANCER4), ("192.0.2.10", "203.0.113.1")] {
            let outer = wrapped(way, destination, &bytes(inner())).from(sender);
            fixtures.push(given(format!("{way:?} from {sender} to {destination}"), outer).passes(NotForHost));
        }
        for (destination, sender) in [("[fd00:9::2]", "fd00:8::7"), ("[2001:db8::10]", "2001:db8:c::7")] {
            let outer = wrapped(way, destination, &bytes(inner())).from(sender);
            fixtures.push(given(format!("{way:?} from {sender} to {destination}"), outer).passes(NotForHost));
        }
        // Even nonsense, when it is for somebody else.
        let wrong = wrapped(way, "10.9.0.2", &[0x50; 8]).from(BALANCER4).patched(IP + 10, &[1, 1]);
        fixtures.push(given(format!("broken {way:?} for somebody else"), wrong).passes(NotForHost));
    }
    fixtures
}

/// Outer headers by which nothing can be told.
fn broken() -> Vec<Fixture> {
    let four = || in4(Way::Ipip, inner());
    let six = || in6(Way::Ipip, inner());
    let length = four().frame().len();
    vec![
        given("a frame that ends in its Ethernet header (host only)", four().cut(13)).passes(Malformed),
        given("a frame without an IPv4 header", four().cut(IP)).passes(Malformed),
        given("a frame that ends in its IPv4 header", four().cut(TRANSPORT4 - 1)).passes(Malformed),
        given("a frame that ends in its IPv6 header", six().cut(TRANSPORT6 - 1)).passes(Malformed),
        given("a frame that ends before its IPv4 packet", four().cut(length - 1)).passes(Malformed),
        given("IP version 6 in an IPv4 frame", four().patched(IP, &[0x65])).passes(Malformed),
        given("IP version 4 in an IPv6 frame", six().patched(IP, &[0x40])).passes(Malformed),
        given("an IPv4 header of four words", four().patched(IP, &[0x44])).passes(Malformed),
        given("an IPv4 length shorter than the header", four().patched(IP + 2, &[0, 19])).passes(Malformed),
        given("an IPv6 length beyond the frame", six().patched(IP + 4, &[0xff, 0xff])).passes(Malformed),
        given(
            "IPv6 extension headers that are cut off",
            six().patched(IP + 6, &[0]).iter().copied().take(IP + 40).collect::<Vec<_>>(),
        )
        .passes(Malformed),
        given(
            "an IPv6 extension header longer than the packet",
            six().payload(&[4, 200, 0, 0, 0, 0, 0, 0]).patched(IP + 6, &[60]),
        )
        .passes(Malformed),
    ]
}

fn fragment4(outer: Draft, offset: u16, more: bool) -> Draft {
    outer.ipv4(|ip| {
        (ip.dont_fragment, ip.more_fragments) = (false, more);
        ip.fragment_offset = IpFragOffset::try_new(offset).expect("13 bits");
    })
}

fn fragment6(outer: Draft, next_header: IpNumber, offset: u16, more_fragments: bool) -> Draft {
    outer.ipv6(|_, extensions| {
        let fragment_offset = IpFragOffset::try_new(offset).expect("13 bits");
        extensions.fragment =
            Some(Ipv6FragmentHeader { next_header, fragment_offset, more_fragments, identification: 7 });
    })
}

fn fragments() -> Vec<Fixture> {
    let mut fixtures = Vec::new();
    for (name, offset, more) in [("first", 0, true), ("middle", 10, true), ("last", 20, false)] {
        for way in Way::BOTH {
            let number = if way == Way::Gue { IpNumber::UDP } else { IpNumber::IPV4 };
            fixtures.extend([
                given(
                    format!("the {name} fragment of {way:?} over IPv4"),
                    fragment4(in4(way, inner()), offset, more),
                )
                .passes(Fragment),
                given(
                    format!("the {name} fragment of {way:?} over IPv6"),
                    fragment6(in6(way, inner()), number, offset, more),
                )
                .passes(Fragment),
            ]);
        }
    }
    fixtures.extend([
        given("the first fragment of other UDP", fragment4(udp("10.9.0.1:53"), 0, true)).passes(NotTunnel),
        given("a later fragment of UDP for a VIP", fragment4(udp("192.0.2.10:53"), 9, false))
            .passes(Fragment),
        given("a later fragment of TCP", fragment4(tcp("10.9.0.1:80"), 9, false)).passes(NotTunnel),
    ]);
    fixtures
}

/// GUE packets other than IP behind UDP: for those who have a use for them.
fn variants() -> Vec<Fixture> {
    let all = tunnels().filter(|(_, way, _)| *way == Way::Gue).flat_map(|(tunnel, way, wrap)| {
        [0x00, 0x20, 0x80, 0xc0].map(|first| {
            let payload = [&[first, 4, 0, 0][..], &bytes(inner())].concat();
            given(format!("{tunnel} that begins with {first:02x}"), wrap(way, inner()).payload(&payload))
                .passes(GueVariant)
        })
    });
    let wrong = wrapped(Way::Gue, BACKEND4, &[0, 4, 0, 0]).from(BALANCER4).patched(TRANSPORT4 + 6, &[1, 1]);
    all.chain([given("GUE of variant 0 with a wrong checksum is the stack's", wrong).passes(GueVariant)])
        .collect()
}
