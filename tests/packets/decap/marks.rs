//! DSCP and ECN at the end of a tunnel.

use lb_common::decap::{DecapDrop, Unwrapped};

use super::{Fixture, Given, Way, Wrap, given, in4, in6};
use crate::fixtures::frames::{Draft, tcp, udp};

/// Code points of ECN (RFC 3168, section 5), and their names in RFC 6040.
const NOT_ECT: u8 = 0;
const ECT_1: u8 = 1;
const ECT_0: u8 = 2;
const CE: u8 = 3;

/// Inner code point, then what leaves the tunnel for each outer one: Not-ECT, ECT(0), ECT(1), CE (RFC 6040, figure 4).
const EGRESS: [(u8, [Option<u8>; 4]); 4] = [
    (NOT_ECT, [Some(NOT_ECT), Some(NOT_ECT), Some(NOT_ECT), None]),
    (ECT_0, [Some(ECT_0), Some(ECT_0), Some(ECT_1), Some(CE)]),
    (ECT_1, [Some(ECT_1), Some(ECT_1), Some(ECT_1), Some(CE)]),
    (CE, [Some(CE), Some(CE), Some(CE), Some(CE)]),
];
const OUTER: [u8; 4] = [NOT_ECT, ECT_0, ECT_1, CE];

pub(super) fn fixtures() -> Vec<Fixture> {
    let mut fixtures = Vec::new();
    for (pairing, inner, wrap) in pairings() {
        fixtures.extend(ecn(pairing, &inner, wrap));
        fixtures.extend(dscp(pairing, &inner, wrap));
    }
    fixtures.extend(more());
    fixtures
}

fn pairings() -> [(&'static str, Draft, Wrap); 4] {
    let (four, six) = (tcp("192.0.2.10:80"), tcp("[2001:db8::10]:80"));
    [("4in4", four.clone(), in4), ("6in4", six.clone(), in4), ("4in6", four, in6), ("6in6", six, in6)]
}

/// With this DSCP and ECN, whatever its family.
fn marked(packet: Draft, tos: u8) -> Draft {
    let packet = packet.ipv4(|ip| {
        ip.dscp = (tos >> 2).try_into().expect("six bits");
        ip.ecn = (tos & 3).try_into().expect("two bits");
    });
    packet.ipv6(|ip, _| ip.traffic_class = tos)
}

fn ecn(pairing: &str, inner: &Draft, wrap: Wrap) -> Vec<Fixture> {
    let mut fixtures = Vec::new();
    for (inside, row) in EGRESS {
        for (outside, leaves) in OUTER.into_iter().zip(row) {
            let outer = marked(wrap(Way::Ipip, marked(inner.clone(), inside)), outside);
            let given = given(format!("ECN {outside:02b} outside, {inside:02b} inside ({pairing})"), outer);
            fixtures.push(leaving(given, Unwrapped::Ipip, leaves.map(|ecn| marked(inner.clone(), ecn))));
        }
    }
    fixtures
}

fn leaving(given: Given, unwrapped: Unwrapped, inner: Option<Draft>) -> Fixture {
    match inner {
        Some(inner) => given.unwraps(unwrapped, inner),
        None => given.drops(DecapDrop::Congestion),
    }
}

fn dscp(pairing: &str, inner: &Draft, wrap: Wrap) -> Vec<Fixture> {
    let cases = [("appears", 46, 0, 46), ("is gone", 0, 46, 0), ("differs", 8, 63, 8)];
    let cases = cases.into_iter().flat_map(|(what, outside, inside, leaves)| {
        Way::BOTH.map(|way| {
            let outer = marked(wrap(way, marked(inner.clone(), inside << 2)), outside << 2);
            given(format!("a DSCP that {what} on the way is that of the packet ({pairing}, {way:?})"), outer)
                .unwraps(way.unwrapped(), marked(inner.clone(), leaves << 2))
        })
    });
    cases.collect()
}

fn more() -> Vec<Fixture> {
    let labelled = |tos| {
        let packet =
            udp("[2001:db8::10]:53").ipv6(|ip, _| ip.flow_label = 0x12345.try_into().expect("20 bits"));
        marked(packet, tos)
    };
    let options = |tos| marked(tcp("192.0.2.10:80").ipv4(|ip| ip.options = [1; 8].into()), tos);
    vec![
        given(
            "CE in GUE reaches an ECN-capable packet, with the DSCP",
            marked(in4(Way::Gue, marked(udp("192.0.2.10:53"), ECT_0)), 46 << 2 | CE),
        )
        .unwraps(Unwrapped::Gue, marked(udp("192.0.2.10:53"), 46 << 2 | CE)),
        given(
            "CE in GUE over IPv6 drops a packet that is not ECN-capable",
            marked(in6(Way::Gue, udp("192.0.2.10:53")), CE),
        )
        .drops(DecapDrop::Congestion),
        given(
            "the inner flow label stays when the class changes",
            marked(in6(Way::Ipip, labelled(ECT_1)), 0xb8 | CE),
        )
        .unwraps(Unwrapped::Ipip, labelled(0xb8 | CE)),
        given("the class of a packet with IPv4 options changes", marked(in4(Way::Ipip, options(0)), 0x28))
            .unwraps(Unwrapped::Ipip, options(0x28)),
    ]
}
