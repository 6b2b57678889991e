//! Frames of all kinds that the pipeline tells apart, most of them right, many wrong in one place.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use fastrand::Rng;
use lb_userspace::model::{Endpoint, Port, Protocol};
use lb_userspace::placement::Services;

use crate::fixtures;
use crate::fixtures::sides::SHORTEST_IN_KERNEL;
use crate::fixtures::world::{BALANCER4, BALANCER6, CLIENT_MAC, INGRESS_MAC};

const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP4: u8 = 1;
const ICMP6: u8 = 58;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const ARP: u16 = 0x0806;

/// Where packets come from and go to.
pub(super) struct Grammar {
    /// VIPs, with ports (0 for every port) and protocols.
    vips: Vec<(IpAddr, u16, u8)>,
    /// Backends, which reply, in the same way.
    backends: Vec<(IpAddr, u16, u8)>,
    /// Frames that have shown something once.
    seeds: Vec<Vec<u8>>,
}

/// One end of a flow.
#[derive(Clone, Copy)]
struct End {
    address: IpAddr,
    port: u16,
}

impl Grammar {
    pub(super) fn new(services: &Services) -> Self {
        let number = |port: Port| port.number().unwrap_or(0);
        let protocol = |protocol| if protocol == Protocol::Tcp { TCP } else { UDP };
        let vips = services
            .values()
            .map(|service| (service.vip.address, number(service.vip.port), protocol(service.protocol)));
        let backends = services.values().flat_map(|service| {
            let end = |endpoint: Endpoint| (endpoint.address, number(endpoint.port));
            service.backends.iter().map(move |backend| {
                let (address, port) = end(backend.endpoint);
                (address, port, protocol(service.protocol))
            })
        });
        let short = |frame: &Vec<u8>| (SHORTEST_IN_KERNEL..=2000).contains(&frame.len());
        Self {
            vips: vips.collect(),
            backends: backends.collect(),
            seeds: fixtures::all().into_iter().map(|fixture| fixture.frame).filter(short).collect(),
        }
    }

    /// One frame, long enough for a test run.
    pub(super) fn frame(&self, rng: &mut Rng) -> Vec<u8> {
        let mut frame = match rng.u8(..) {
            0..=31 => self.seeds[rng.usize(..self.seeds.len())].clone(),
            32..=43 => self.arp(rng),
            _ => self.ethernet(rng),
        };
        damage(&mut frame, rng);
        if frame.len() < SHORTEST_IN_KERNEL {
            frame.resize(SHORTEST_IN_KERNEL, 0);
        }
        frame
    }

    fn ethernet(&self, rng: &mut Rng) -> Vec<u8> {
        let (packet, ethertype) = self.packet(rng, 0);
        let ethertype = if one_in(rng, 60) { rng.u16(..) } else { ethertype };
        let mut frame = link(rng, ethertype);
        frame.extend(packet);
        frame
    }

    /// A whole IP packet and its `EtherType`.
    fn packet(&self, rng: &mut Rng, depth: u8) -> (Vec<u8>, u16) {
        let (from, to, protocol) = self.ends(rng);
        self.packet_between(rng, from, to, protocol, depth)
    }

    fn packet_between(&self, rng: &mut Rng, from: End, to: End, protocol: u8, depth: u8) -> (Vec<u8>, u16) {
        let is_v6 = to.address.is_ipv6();
        let (protocol, payload) = match rng.u8(..) {
            0..=159 => (protocol, transport(rng, from, to, protocol)),
            160..=199 => (if is_v6 { ICMP6 } else { ICMP4 }, self.icmp(rng, from, to, depth)),
            200..=219 if depth < 2 => {
                let (inner, ethertype) = self.packet(rng, depth + 1);
                (if ethertype == IPV4 { 4 } else { 41 }, inner)
            }
            220..=235 if depth < 2 => {
                let (inner, _) = self.packet(rng, depth + 1);
                let tunnel = End { port: if one_in(rng, 4) { 6081 } else { 6080 }, ..to };
                (UDP, udp(rng, from, tunnel, &inner))
            }
            236..=245 => {
                (TCP + UDP - protocol.min(UDP), transport(rng, from, to, TCP + UDP - protocol.min(UDP)))
            }
            _ => (rng.u8(..), bytes(rng, 40)),
        };
        match (from.address, to.address) {
            (IpAddr::V4(from), IpAddr::V4(to)) => (ipv4(rng, from, to, protocol, &payload), IPV4),
            (IpAddr::V6(from), IpAddr::V6(to)) => (ipv6(rng, from, to, protocol, &payload), IPV6),
            _ => (payload, IPV4),
        }
    }

    /// A client and a VIP mostly; a backend and a client; anybody.
    fn ends(&self, rng: &mut Rng) -> (End, End, u8) {
        match rng.u8(..) {
            0..=215 => {
                let (address, port, protocol) = self.vips[rng.usize(..self.vips.len())];
                (client(rng, address.is_ipv6()), End { address, port: near(rng, port) }, protocol)
            }
            216..=243 => {
                let (address, port, protocol) = self.backends[rng.usize(..self.backends.len())];
                (End { address, port: near(rng, port) }, client(rng, address.is_ipv6()), protocol)
            }
            _ => {
                let is_v6 = rng.bool();
                (anybody(rng, is_v6), anybody(rng, is_v6), if rng.bool() { TCP } else { UDP })
            }
        }
    }

    /// A message by one of the ends about what the other sent, or one of neighbours, or an echo.
    fn icmp(&self, rng: &mut Rng, from: End, to: End, depth: u8) -> Vec<u8> {
        const KINDS4: [u8; 8] = [8, 0, 3, 3, 3, 11, 12, 5];
        const KINDS6: [u8; 9] = [128, 129, 1, 2, 3, 4, 135, 136, 133];
        let is_v6 = to.address.is_ipv6();
        let kind = match (one_in(rng, 20), is_v6) {
            (true, _) => rng.u8(..),
            (false, true) => KINDS6[rng.usize(..KINDS6.len())],
            (false, false) => KINDS4[rng.usize(..KINDS4.len())],
        };
        let code = if one_in(rng, 3) { rng.u8(..16) } else { 0 };
        let mut message = vec![kind, code, 0, 0];
        message.extend(rng.u32(..).to_be_bytes());
        let is_error = if is_v6 { kind < 128 } else { matches!(kind, 3 | 5 | 11 | 12) };
        if is_error && depth < 2 {
            // The packet that is quoted went the other way.
            let protocol = if rng.bool() { TCP } else { UDP };
            let (quoted, _) = self.packet_between(rng, to, from, protocol, depth + 1);
            let length = if one_in(rng, 2) { quoted.len() } else { rng.usize(..=quoted.len()) };
            message.extend(&quoted[..length.min(1200)]);
        } else if matches!(kind, 135 | 136) {
            let (target, ..) = self.vips[rng.usize(..self.vips.len())];
            let target = if let IpAddr::V6(target) = target { target } else { BALANCER6 };
            message.extend(target.octets());
            for _ in 0..rng.u8(..3) {
                let length = if one_in(rng, 8) { rng.u8(..4) } else { 1 };
                message.extend([[1, 2, 14, 3][rng.usize(..4)], length]);
                message.extend(bytes_of(rng, usize::from(length) * 8 - usize::from(length > 0) * 2));
            }
        } else {
            message.extend(bytes(rng, 64));
        }
        let pseudo = if is_v6 { pseudo(from.address, to.address, ICMP6, message.len()) } else { Vec::new() };
        sum_into(rng, &mut message, 2, &pseudo);
        message
    }

    fn arp(&self, rng: &mut Rng) -> Vec<u8> {
        let mut frame = link(rng, ARP);
        let (target, ..) = self.vips[rng.usize(..self.vips.len())];
        let target = if let IpAddr::V4(target) = target { target } else { BALANCER4 };
        let IpAddr::V4(sender) = client(rng, false).address else { return frame };
        frame.extend([0, 1, 8, 0, 6, 4, 0, if one_in(rng, 6) { rng.u8(..4) } else { 1 }]);
        frame.extend(CLIENT_MAC);
        frame.extend(sender.octets());
        frame.extend([0; 6]);
        frame.extend(target.octets());
        frame
    }
}

fn one_in(rng: &mut Rng, many: u32) -> bool {
    rng.u32(..many) == 0
}

fn bytes(rng: &mut Rng, most: usize) -> Vec<u8> {
    let length = rng.usize(..=most);
    bytes_of(rng, length)
}

fn bytes_of(rng: &mut Rng, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    rng.fill(&mut bytes);
    bytes
}

/// A port that a service has, or one beside it; any for a service of every port.
fn near(rng: &mut Rng, port: u16) -> u16 {
    match rng.u8(..) {
        0..=7 => rng.u16(..),
        8..=11 => port.wrapping_add(1),
        _ if port == 0 => rng.u16(..),
        _ => port,
    }
}

/// One of few clients, so that flows and sources come again: behind each of the host's routes, and on the lists.
fn client(rng: &mut Rng, is_v6: bool) -> End {
    if one_in(rng, 24) {
        return anybody(rng, is_v6);
    }
    let (network, host) = (rng.u8(..4), 1 + rng.u8(..12));
    let address = if is_v6 {
        Ipv6Addr::new(0x2001, 0xdb8, 0x0c + u16::from(network), 0, 0, 0, 0, u16::from(host)).into()
    } else {
        Ipv4Addr::new(198, 51, 100 + network, host).into()
    };
    End { address, port: 40_000 + rng.u16(..24) }
}

fn anybody(rng: &mut Rng, is_v6: bool) -> End {
    let address = if is_v6 {
        match rng.u8(..8) {
            0 => Ipv6Addr::LOCALHOST,
            1 => Ipv6Addr::UNSPECIFIED,
            2 => Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, rng.u16(..)),
            3 => Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, rng.u16(..)),
            4 => BALANCER6,
            5 => Ipv4Addr::from_bits(rng.u32(..)).to_ipv6_mapped(),
            _ => Ipv6Addr::from_bits(rng.u128(..)),
        }
        .into()
    } else {
        match rng.u8(..8) {
            0 => Ipv4Addr::LOCALHOST,
            1 => Ipv4Addr::UNSPECIFIED,
            2 => Ipv4Addr::new(224, 0, 0, rng.u8(..)),
            3 => Ipv4Addr::BROADCAST,
            4 => BALANCER4,
            5 => Ipv4Addr::new(203, 0, 113, rng.u8(..)),
            _ => Ipv4Addr::from_bits(rng.u32(..)),
        }
        .into()
    };
    End { address, port: rng.u16(..) }
}

/// MAC addresses, tags and the `EtherType`.
fn link(rng: &mut Rng, ethertype: u16) -> Vec<u8> {
    let to = match rng.u8(..32) {
        0 => [0xff; 6],
        1 => [0x33, 0x33, 0xff, 0, 0, 1],
        2 => [2, 9, 9, 9, 9, 9],
        _ => INGRESS_MAC,
    };
    let mut frame = [to, CLIENT_MAC].concat();
    let tags = if one_in(rng, 10) { rng.u8(..4) } else { 0 };
    for _ in 0..tags {
        frame.extend(if rng.bool() { [0x81, 0] } else { [0x88, 0xa8] });
        frame.extend(rng.u16(..).to_be_bytes());
    }
    frame.extend(ethertype.to_be_bytes());
    frame
}

/// A number that is now and then one more, one less, or any.
fn about(rng: &mut Rng, number: usize) -> u16 {
    let number = number as u16;
    match rng.u8(..) {
        0..=2 => number.wrapping_add(1),
        3..=5 => number.wrapping_sub(1),
        6 => rng.u16(..),
        _ => number,
    }
}

fn ipv4(rng: &mut Rng, from: Ipv4Addr, to: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let options = if one_in(rng, 12) { rng.usize(..=10) } else { 0 };
    let length = 20 + 4 * options;
    let words = if one_in(rng, 50) { rng.u8(..16) } else { 5 + options as u8 };
    let version = if one_in(rng, 100) { rng.u8(..16) } else { 4 };
    let fragment = match rng.u8(..) {
        0..=7 => 0x2000,
        8..=15 => 0x2000 | rng.u16(1..200),
        16..=23 => rng.u16(1..200),
        24..=25 => rng.u16(..),
        26..=99 => 0,
        _ => 0x4000,
    };
    let mut header = vec![version << 4 | words, if one_in(rng, 3) { rng.u8(..) } else { 0 }];
    header.extend(about(rng, length + payload.len()).to_be_bytes());
    header.extend(rng.u16(..16).to_be_bytes());
    header.extend(fragment.to_be_bytes());
    header.extend([[64, 64, 64, 61, 2, 1, 0, 255][rng.usize(..8)], protocol, 0, 0]);
    header.extend(from.octets());
    header.extend(to.octets());
    header.extend(bytes_of(rng, 4 * options));
    sum_into(rng, &mut header, 10, &[]);
    header.extend(payload);
    header
}

fn ipv6(rng: &mut Rng, from: Ipv6Addr, to: Ipv6Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    /// Hop-by-hop, routing, fragment, authentication, destination options, mobility, HIP, shim6, nothing, ESP.
    const EXTENSIONS: [u8; 10] = [0, 43, 44, 51, 60, 135, 139, 140, 59, 50];
    let count = if one_in(rng, 6) { rng.usize(..=9) } else { 0 };
    let kinds: Vec<u8> = (0..count).map(|_| EXTENSIONS[rng.usize(..EXTENSIONS.len())]).collect();
    let mut inside = Vec::new();
    for (at, kind) in kinds.iter().enumerate() {
        inside.push(kinds.get(at + 1).copied().unwrap_or(protocol));
        match kind {
            44 => {
                let offset = if one_in(rng, 2) { 0 } else { rng.u16(..200) << 3 };
                inside.push(0);
                inside.extend((offset | u16::from(rng.bool())).to_be_bytes());
                inside.extend(rng.u32(..16).to_be_bytes());
            }
            51 => {
                let words = rng.u8(1..4);
                inside.push(words);
                inside.extend(bytes_of(rng, 4 * usize::from(words) + 6));
            }
            _ => {
                let units = rng.u8(..3);
                inside.push(if one_in(rng, 30) { rng.u8(..) } else { units });
                inside.extend(bytes_of(rng, 8 * usize::from(units) + 6));
            }
        }
    }
    inside.extend(payload);
    let version = if one_in(rng, 100) { rng.u8(..16) } else { 6 };
    let class = if one_in(rng, 3) { rng.u8(..) } else { 0 };
    let mut header = vec![version << 4 | class >> 4, class << 4, 0, 0];
    header.extend(about(rng, inside.len()).to_be_bytes());
    header
        .extend([kinds.first().copied().unwrap_or(protocol), [64, 64, 64, 255, 2, 1, 0, 61][rng.usize(..8)]]);
    header.extend(from.octets());
    header.extend(to.octets());
    header.extend(inside);
    header
}

fn transport(rng: &mut Rng, from: End, to: End, protocol: u8) -> Vec<u8> {
    if protocol == TCP {
        return tcp(rng, from, to);
    }
    let payload = match rng.u8(..4) {
        0 => quic(rng),
        1 => bytes(rng, 1500),
        _ => bytes(rng, 40),
    };
    udp(rng, from, to, &payload)
}

fn tcp(rng: &mut Rng, from: End, to: End) -> Vec<u8> {
    /// SYN, SYN and ACK, ACK, PSH and ACK, FIN and ACK, RST, all, none.
    const FLAGS: [u8; 8] = [2, 0x12, 0x10, 0x18, 0x11, 4, 0xff, 0];
    let mut segment = Vec::with_capacity(64);
    segment.extend(from.port.to_be_bytes());
    segment.extend(to.port.to_be_bytes());
    segment.extend(rng.u64(..).to_be_bytes());
    let words = if one_in(rng, 40) { rng.u8(..16) } else { 5 };
    segment.extend([words << 4, FLAGS[rng.usize(..8)], 0xfa, 0xf0, 0, 0, 0, 0]);
    segment.extend(if one_in(rng, 8) { bytes(rng, 1500) } else { bytes(rng, 20) });
    let pseudo = pseudo(from.address, to.address, TCP, segment.len());
    sum_into(rng, &mut segment, 16, &pseudo);
    segment
}

fn udp(rng: &mut Rng, from: End, to: End, payload: &[u8]) -> Vec<u8> {
    let mut datagram = Vec::with_capacity(8 + payload.len());
    datagram.extend(from.port.to_be_bytes());
    datagram.extend(to.port.to_be_bytes());
    datagram.extend(about(rng, 8 + payload.len()).to_be_bytes());
    datagram.extend([0, 0]);
    datagram.extend(payload);
    if !one_in(rng, 8) {
        let pseudo = pseudo(from.address, to.address, UDP, datagram.len());
        sum_into(rng, &mut datagram, 6, &pseudo);
    }
    datagram
}

/// The beginning of a QUIC packet: long headers of both versions, or a short one.
fn quic(rng: &mut Rng) -> Vec<u8> {
    let version = [1u32, 0x6b33_43cf, 0, 2][rng.usize(..4)];
    let mut packet = vec![rng.u8(..)];
    packet.extend(version.to_be_bytes());
    for _ in 0..2 {
        let length = rng.u8(..22);
        packet.push(length);
        packet.extend(bytes_of(rng, usize::from(length)));
    }
    packet.extend(bytes(rng, 40));
    packet
}

/// What of the IP header goes into a transport checksum (RFC 9293, section 3.1; RFC 8200, section 8.1).
fn pseudo(from: IpAddr, to: IpAddr, protocol: u8, length: usize) -> Vec<u8> {
    let mut header = Vec::with_capacity(40);
    for address in [from, to] {
        match address {
            IpAddr::V4(address) => header.extend(address.octets()),
            IpAddr::V6(address) => header.extend(address.octets()),
        }
    }
    header.extend([0, protocol]);
    header.extend((length as u16).to_be_bytes());
    header
}

/// Writes the Internet checksum (RFC 1071) at an offset, right nine times in ten.
fn sum_into(rng: &mut Rng, bytes: &mut [u8], at: usize, pseudo: &[u8]) {
    let words = |bytes: &[u8]| -> u32 {
        bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0))).sum()
    };
    let mut sum = words(bytes) + words(pseudo);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let sum = if one_in(rng, 10) { rng.u16(..) } else { !(sum as u16) };
    bytes[at..at + 2].copy_from_slice(&sum.to_be_bytes());
}

/// Changes some bytes, cuts, or adds, now and then.
fn damage(frame: &mut Vec<u8>, rng: &mut Rng) {
    match rng.u8(..) {
        0..=31 => {
            for _ in 0..=rng.u8(..3) {
                let reach = if one_in(rng, 4) { frame.len() } else { frame.len().min(80) };
                let at = rng.usize(..reach);
                frame[at] = if rng.bool() { rng.u8(..) } else { frame[at] ^ 1 << rng.u8(..8) };
            }
        }
        32..=43 => frame.truncate(rng.usize(..=frame.len())),
        44..=51 => {
            let more = bytes(rng, 20);
            frame.extend(more);
        }
        _ => {}
    }
}
