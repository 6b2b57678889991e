//! Tunnel packets that are unwrapped.

use etherparse::{IpNumber, Ipv6RawExtHeader};
use lb_common::decap::Unwrapped;

use super::{BACKEND4, BALANCER4, Fixture, Way, bytes, given, in4, in6, tunnels, wrapped};
use crate::fixtures::frames::{Draft, IP, TRANSPORT4, tcp, udp};

pub(super) const CUSTOMER: [u8; 4] = [0x81, 0x00, 0x20, 0x64];
const PROVIDER: [u8; 4] = [0x88, 0xa8, 0x00, 0x07];

pub(super) fn fixtures() -> Vec<Fixture> {
    let parts = [pairings(), tags(), ends(), headers(), gue(), nested(), sizes()];
    parts.into_iter().flatten().collect()
}

/// Inner packets of every family and protocol.
pub(super) fn inners() -> [(&'static str, Draft); 4] {
    [
        ("TCP over IPv4", tcp("192.0.2.10:80")),
        ("UDP over IPv4", udp("192.0.2.10:53")),
        ("TCP over IPv6", tcp("[2001:db8::10]:80")),
        ("UDP over IPv6", udp("[2001:db8::10]:53")),
    ]
}

fn pairings() -> Vec<Fixture> {
    let all = tunnels().flat_map(|(tunnel, way, wrap)| {
        inners().map(|(name, inner)| {
            given(format!("{name} in {tunnel}"), wrap(way, inner.clone())).unwraps(way.unwrapped(), inner)
        })
    });
    all.collect()
}

fn tags() -> Vec<Fixture> {
    let one = tunnels().flat_map(|(tunnel, way, wrap)| {
        inners().map(|(name, inner)| {
            given(format!("a tag in front of {name} in {tunnel} is kept"), wrap(way, inner.clone()))
                .tagged(&[CUSTOMER])
                .unwraps(way.unwrapped(), inner)
        })
    });
    let two = tunnels().map(|(tunnel, way, wrap)| {
        let inner = tcp("192.0.2.10:80");
        given(format!("two tags in front of {tunnel} are kept"), wrap(way, inner.clone()))
            .tagged(&[PROVIDER, CUSTOMER])
            .unwraps(way.unwrapped(), inner)
    });
    one.chain(two).collect()
}

/// What lies behind the inner packet does not go up the stack.
fn ends() -> Vec<Fixture> {
    let padded = tunnels().flat_map(|(tunnel, way, wrap)| {
        inners().map(|(name, inner)| {
            given(format!("padding behind {name} in {tunnel} is cut off"), wrap(way, inner.clone()))
                .padded(9)
                .unwraps(way.unwrapped(), inner)
        })
    });
    let trailed = tunnels().map(|(tunnel, way, wrap)| {
        let inner = tcp("192.0.2.10:80");
        let trailed = [bytes(inner.clone()), vec![0xdd; 5]].concat();
        given(
            format!("bytes behind the inner packet in {tunnel} are cut off"),
            wrap(way, inner.clone()).payload(&trailed),
        )
        .unwraps(way.unwrapped(), inner)
    });
    padded.chain(trailed).collect()
}

fn headers() -> Vec<Fixture> {
    let inner = || tcp("192.0.2.10:80");
    let options = |next| Ipv6RawExtHeader::new_raw(next, &[1, 4, 0, 0, 0, 0]).expect("eight bytes");
    let extended = |way, next| {
        in6(way, inner()).ipv6(|_, extensions| extensions.destination_options = Some(options(next)))
    };
    let mut fixtures = Vec::new();
    for way in Way::BOTH {
        let with_options = in4(way, inner()).ipv4(|ip| ip.options = [1; 12].into());
        fixtures.extend([
            given(format!("IPv4 options of the outer header go too ({way:?})"), with_options)
                .unwraps(way.unwrapped(), inner()),
            given(
                format!("the outer header's TTL does not matter ({way:?})"),
                in4(way, inner()).ipv4(|ip| ip.time_to_live = 1),
            )
            .unwraps(way.unwrapped(), inner()),
        ]);
    }
    let hop_by_hop = in6(Way::Gue, inner())
        .ipv6(|_, extensions| extensions.hop_by_hop_options = Some(options(IpNumber::UDP)));
    let odd = || tcp("192.0.2.10:80").ipv4(|ip| ip.options = [1; 8].into());
    let extensions = || {
        udp("[2001:db8::10]:53")
            .ipv6(|_, extensions| extensions.hop_by_hop_options = Some(options(IpNumber::UDP)))
    };
    let fragment = || tcp("192.0.2.10:80").ipv4(|ip| (ip.dont_fragment, ip.more_fragments) = (false, true));
    fixtures.extend([
        given(
            "destination options of the outer header go too, as Linux's ip6_tunnel writes them",
            extended(Way::Ipip, IpNumber::IPV4),
        )
        .unwraps(Unwrapped::Ipip, inner()),
        given("destination options in front of UDP go too", extended(Way::Gue, IpNumber::UDP))
            .unwraps(Unwrapped::Gue, inner()),
        given("hop-by-hop options go too", hop_by_hop).unwraps(Unwrapped::Gue, inner()),
        given("options of the inner IPv4 header stay", in4(Way::Ipip, odd())).unwraps(Unwrapped::Ipip, odd()),
        given("extensions of the inner IPv6 header stay", in6(Way::Ipip, extensions()))
            .unwraps(Unwrapped::Ipip, extensions()),
        given("an inner fragment is a whole packet to the tunnel", in4(Way::Gue, fragment()))
            .unwraps(Unwrapped::Gue, fragment()),
        given(
            "an inner packet that is only a header",
            in4(Way::Ipip, inner()).payload(&bytes(inner())[..20]).patched(TRANSPORT4 + 2, &[0, 20]),
        )
        .unwraps(
            Unwrapped::Ipip,
            [&inner().frame()[..IP + 2], &[0, 20], &inner().frame()[IP + 4..IP + 20]].concat(),
        ),
        given("the second of several listed senders", in4(Way::Ipip, inner()).from("10.8.4.5"))
            .unwraps(Unwrapped::Ipip, inner()),
        given("the last address of a listed prefix", in4(Way::Ipip, inner()).from("10.8.0.255"))
            .unwraps(Unwrapped::Ipip, inner()),
        given("another address of a listed IPv6 prefix", in6(Way::Ipip, inner()).from("fd00:8::ffff:0:0:1"))
            .unwraps(Unwrapped::Ipip, inner()),
        given("an IPv6 sender in a short listed prefix", in6(Way::Ipip, inner()).from("64:ff9b::1"))
            .unwraps(Unwrapped::Ipip, inner()),
    ]);
    fixtures
}

fn gue() -> Vec<Fixture> {
    let inner = || udp("[2001:db8::10]:53");
    let padded = [bytes(inner()), vec![0; 4]].concat();
    // The UDP header counts four bytes less than the IP header does, and its checksum covers only those that it counts.
    let mut short = in4(Way::Gue, inner()).payload(&padded).frame();
    let length = (short.len() - TRANSPORT4 - 4) as u16;
    short[TRANSPORT4 + 4..TRANSPORT4 + 6].copy_from_slice(&length.to_be_bytes());
    short[TRANSPORT4 + 6..TRANSPORT4 + 8].copy_from_slice(&[0, 0]);
    vec![
        given("GUE over IPv4 without a checksum", in4(Way::Gue, inner()).patched(TRANSPORT4 + 6, &[0, 0]))
            .unwraps(Unwrapped::Gue, inner()),
        given("GUE whose UDP length ends before the IP packet", short).unwraps(Unwrapped::Gue, inner()),
        given("GUE from any port", in6(Way::Gue, inner()).source_port(1)).unwraps(Unwrapped::Gue, inner()),
        given("GUE around a payload of odd length", in6(Way::Gue, inner().carrying(3)))
            .unwraps(Unwrapped::Gue, inner().carrying(3)),
    ]
}

/// A tunnel in a tunnel is unwrapped once.
fn nested() -> Vec<Fixture> {
    let inner = || tcp("192.0.2.10:80");
    let all = tunnels().map(|(tunnel, way, wrap)| {
        let nested = wrap(way, inner());
        given(format!("{tunnel} in IP in IP is unwrapped once"), in4(Way::Ipip, nested.clone()))
            .unwraps(Unwrapped::Ipip, nested)
    });
    let strange = wrapped(Way::Ipip, BACKEND4, &bytes(inner())).from("203.0.113.1");
    let unlisted = given(
        "a tunnel packet of somebody else's in a listed sender's is the stack's to judge",
        wrapped(Way::Ipip, BACKEND4, &bytes(strange.clone())).from(BALANCER4),
    );
    all.chain([unlisted.unwraps(Unwrapped::Ipip, strange)]).collect()
}

/// From the least to a jumbo frame, which the kernel hands over in several buffers.
fn sizes() -> Vec<Fixture> {
    let sizes = [(1500, "full"), (3600, "longer than the first buffer"), (8_900, "jumbo")];
    let all = tunnels().flat_map(move |(tunnel, way, wrap)| {
        sizes.map(|(length, name)| {
            let inner = tcp("[2001:db8::10]:80").of_length(length);
            given(format!("a {name} packet in {tunnel}"), wrap(way, inner.clone()))
                .unwraps(way.unwrapped(), inner)
        })
    });
    let padded = tunnels().map(|(tunnel, way, wrap)| {
        let inner = udp("192.0.2.10:53").of_length(8_900);
        given(format!("padding behind a jumbo packet in {tunnel}"), wrap(way, inner.clone()))
            .padded(7)
            .unwraps(way.unwrapped(), inner)
    });
    let mut fixtures: Vec<_> = all.chain(padded).collect();
    let mut wrong = in6(Way::Gue, udp("192.0.2.10:53").of_length(8_900)).frame();
    let last = wrong.len() - 1;
    wrong[last] ^= 1;
    fixtures.push(
        given("the last byte of a jumbo packet in GUE over IPv6 is wrong", wrong)
            .drops(super::DecapDrop::UdpChecksum),
    );
    fixtures
}
