//! Tunnel packets for this host that are dropped.

use etherparse::IpFragOffset;
use lb_common::decap::DecapDrop::{
    InnerHeader, InnerLength, NoUdpChecksum, OuterChecksum, UdpChecksum, UdpLength, Unlisted,
};

use super::unwrapping::{CUSTOMER, inners};
use super::{BACKEND4, BALANCER4, Fixture, Way, Wrap, bytes, given, in4, in6, tunnels, wrapped};
use crate::fixtures::frames::{Draft, IP, TRANSPORT4, TRANSPORT6, tcp, udp};

pub(super) fn fixtures() -> Vec<Fixture> {
    let parts = [senders(), checksums(), lengths(), inner_headers(), inner_lengths()];
    parts.into_iter().flatten().collect()
}

fn inner() -> Draft {
    tcp("192.0.2.10:80")
}

fn inner6() -> Draft {
    tcp("[2001:db8::10]:80")
}

fn senders() -> Vec<Fixture> {
    let strangers4 = ["203.0.113.1", "10.8.1.0", "10.7.255.255", "10.8.4.4", "10.9.0.1"];
    let strangers6 = ["2001:db8:c::7", "fd00:8:0:1::", "fd00:9::1"];
    let four = strangers4.map(|stranger| (stranger, in4 as Wrap));
    let six = strangers6.map(|stranger| (stranger, in6 as Wrap));
    let mut fixtures = Vec::new();
    for (stranger, wrap) in four.into_iter().chain(six) {
        for way in Way::BOTH {
            let outer = wrap(way, inner()).from(stranger);
            fixtures
                .push(given(format!("{way:?} from {stranger}, which is not listed"), outer).drops(Unlisted));
        }
    }
    let fragment = in4(Way::Ipip, inner()).from("203.0.113.1").ipv4(|ip| {
        ip.dont_fragment = false;
        ip.fragment_offset = IpFragOffset::try_new(9).expect("13 bits");
    });
    let variant0 = wrapped(Way::Gue, BACKEND4, &[0, 4, 0, 0]).from("203.0.113.1");
    fixtures.extend([
        given("a fragment of IP in IP from a sender that is not listed", fragment).drops(Unlisted),
        given("GUE of variant 0 from a sender that is not listed", variant0).drops(Unlisted),
        given("nonsense in a tunnel from a sender that is not listed", wrapped(Way::Ipip, BACKEND4, &[0; 3]))
            .drops(Unlisted),
        given(
            "a tagged tunnel packet from a sender that is not listed",
            in4(Way::Gue, inner()).from("203.0.113.1"),
        )
        .tagged(&[CUSTOMER])
        .drops(Unlisted),
    ]);
    fixtures
}

fn checksums() -> Vec<Fixture> {
    let wrong = |mut frame: Vec<u8>, at: usize| {
        frame[at] ^= 0x10;
        frame
    };
    let with_options = || in4(Way::Ipip, inner()).ipv4(|ip| ip.options = [1; 8].into());
    let mut fixtures = vec![
        given("a wrong IPv4 checksum", wrong(in4(Way::Ipip, inner()).frame(), IP + 10)).drops(OuterChecksum),
        given("a changed TTL under an old checksum", in4(Way::Gue, inner()).patched(IP + 8, &[3]))
            .drops(OuterChecksum),
        given("a wrong IPv4 checksum with options", wrong(with_options().frame(), IP + 23))
            .drops(OuterChecksum),
        given(
            "GUE over IPv6 without a checksum (RFC 8200)",
            in6(Way::Gue, inner()).patched(TRANSPORT6 + 6, &[0, 0]),
        )
        .drops(NoUdpChecksum),
        // Over IPv4 no checksum is no mistake, and 0xffff stands for a computed 0.
        given(
            "GUE over IPv4 with a checksum of ones",
            in4(Way::Gue, inner()).patched(TRANSPORT4 + 6, &[0xff, 0xff]),
        )
        .drops(UdpChecksum),
    ];
    for (name, packet) in inners() {
        let (four, six) = (in4(Way::Gue, packet.clone()).frame(), in6(Way::Gue, packet).frame());
        let (last4, last6) = (four.len() - 1, six.len() - 1);
        fixtures.extend([
            given(
                format!("a wrong UDP checksum over IPv4 around {name}"),
                wrong(four.clone(), TRANSPORT4 + 7),
            )
            .drops(UdpChecksum),
            given(
                format!("a wrong UDP checksum over IPv6 around {name}"),
                wrong(six.clone(), TRANSPORT6 + 7),
            )
            .drops(UdpChecksum),
            given(format!("a wrong last byte of {name} in GUE over IPv4"), wrong(four, last4))
                .drops(UdpChecksum),
            given(format!("a wrong last byte of {name} in GUE over IPv6"), wrong(six, last6))
                .drops(UdpChecksum),
        ]);
    }
    // The pseudo header counts too; IPv6 has no other checksum.
    let readdressed = wrong(in6(Way::Gue, inner()).frame(), IP + 8 + 15);
    fixtures
        .push(given("another source address than the UDP checksum covers", readdressed).drops(UdpChecksum));
    fixtures
}

fn lengths() -> Vec<Fixture> {
    let mut fixtures = Vec::new();
    for (family, at, outer) in
        [("IPv4", TRANSPORT4, in4(Way::Gue, inner())), ("IPv6", TRANSPORT6, in6(Way::Gue, inner()))]
    {
        let room = outer.clone().frame().len() - at;
        for length in [0, 7, room + 1, 0xffff] {
            let frame = outer.clone().patched(at + 4, &(length as u16).to_be_bytes());
            fixtures.push(given(format!("a UDP length of {length} over {family}"), frame).drops(UdpLength));
        }
        fixtures
            .push(given(format!("GUE over {family} around nothing"), outer.payload(&[])).drops(InnerHeader));
    }
    fixtures
}

/// The inner header's version and its own length.
fn inner_headers() -> Vec<Fixture> {
    let patched = |packet: Draft, first: u8| {
        let mut bytes = bytes(packet);
        bytes[0] = first;
        bytes
    };
    let mut fixtures = Vec::new();
    for (tunnel, way, wrap) in tunnels() {
        let around = |what: &str, payload: Vec<u8>| {
            given(format!("{what} in {tunnel}"), wrap(way, inner()).payload(&payload))
        };
        fixtures.extend([
            around("an IPv4 header of four words", patched(inner(), 0x44)).drops(InnerHeader),
            around("an IPv4 header of no words", patched(inner(), 0x40)).drops(InnerHeader),
            around("19 bytes of IPv4", bytes(inner())[..19].to_vec()).drops(InnerHeader),
            around("one byte of IPv4", vec![0x45]).drops(InnerHeader),
            around("an inner packet of version 5", patched(inner(), 0x55)).drops(InnerHeader),
            around("an inner packet of version 7", patched(inner(), 0x75)).drops(InnerHeader),
        ]);
        let six = |what: &str, payload: Vec<u8>| {
            given(format!("{what} in {tunnel}"), wrap(way, inner6()).payload(&payload))
        };
        fixtures.push(six("39 bytes of IPv6", bytes(inner6())[..39].to_vec()).drops(InnerHeader));
    }
    for version in [0, 3, 9, 15] {
        let packet = in4(Way::Ipip, inner()).payload(&patched(inner(), version << 4 | 5));
        fixtures.push(given(format!("IP in IP around version {version}"), packet).drops(InnerHeader));
    }
    let (four, six) = (in4(Way::Ipip, inner()), in6(Way::Ipip, inner6()));
    fixtures.extend([
        given("IPv6 announced as IPv4", four.payload(&bytes(inner6()))).drops(InnerHeader),
        given("IPv4 announced as IPv6", six.payload(&bytes(inner()))).drops(InnerHeader),
        given("IP in IP around nothing", wrapped(Way::Ipip, BACKEND4, &[]).from(BALANCER4))
            .drops(InnerHeader),
        given("IP in IP around nothing, with padding", wrapped(Way::Ipip, BACKEND4, &[]).from(BALANCER4))
            .padded(4)
            .drops(InnerHeader),
    ]);
    fixtures
}

/// The inner packet's length against the room that the outer one has.
fn inner_lengths() -> Vec<Fixture> {
    let with = |packet: Draft, at: usize, length: u16| {
        let mut bytes = bytes(packet);
        bytes[at..at + 2].copy_from_slice(&length.to_be_bytes());
        bytes
    };
    let mut fixtures = Vec::new();
    for (tunnel, way, wrap) in tunnels() {
        let (whole4, whole6) = (bytes(inner()).len() as u16, bytes(inner6()).len() as u16 - 40);
        let mut push = |what: &str, packet: Draft, payload: Vec<u8>, padding: usize| {
            let given = given(format!("{what} in {tunnel}"), wrap(way, packet).payload(&payload));
            fixtures.push(given.padded(padding).drops(InnerLength));
        };
        push("IPv4 one byte longer than its room", inner(), with(inner(), 2, whole4 + 1), 0);
        // Padding is no room.
        push("IPv4 that reaches into the padding", inner(), with(inner(), 2, whole4 + 1), 8);
        push("IPv4 shorter than its header", inner(), with(inner(), 2, 19), 0);
        push("IPv4 of 65535 bytes", inner(), with(inner(), 2, 0xffff), 0);
        push("IPv6 one byte longer than its room", inner6(), with(inner6(), 4, whole6 + 1), 0);
        push("IPv6 that reaches into the padding", inner6(), with(inner6(), 4, whole6 + 8), 8);
        let cut = bytes(udp("192.0.2.10:53"));
        push("IPv4 that is cut off", inner(), cut[..cut.len() - 1].to_vec(), 0);
    }
    fixtures
}
