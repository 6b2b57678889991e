//! The way to the backend: new MAC addresses, and an outer header or a new destination where the backend asks for one.

use bytemuck::{NoUninit, Pod, Zeroable};

use crate::checksum::Sum;
use crate::icmp::Quote;
use crate::ip::Datagram;
use crate::layout::{BackendEntry, GUE, NAT, OUTER_IPV4, OUTER_IPV6, USABLE};
use crate::link::Link;
use crate::packet::Packet;
use crate::translate;
use crate::verdict::{DropReason, Refusal};
use crate::wire::{
    Be16, Be32, ETHERTYPE_IPV4, ETHERTYPE_IPV6, IPV4_LENGTH, IPV6_LENGTH, Ipv4Address, Ipv4Header,
    Ipv6Address, Ipv6Header, Ports, UDP_LENGTH, UdpHeader, protocol,
};

/// Hops that an outer header starts with (IANA's recommended default).
const OUTER_TTL: u8 = 64;
/// Version 4, five words of header.
const VERSION_IHL: u8 = 0x45;

/// An outer IPv4 header and the UDP header of GUE (draft-ietf-intarea-gue-09): variant 1, in which the inner IP header
/// follows at once and its version tells the variant.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Gue4 {
    ip: Ipv4Header,
    udp: UdpHeader,
}

/// The same over IPv6.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Gue6 {
    ip: Ipv6Header,
    udp: UdpHeader,
}

/// The checksum's share of the outer IPv4 words that are the same for every packet to a backend: version and header
/// length, TTL, and both addresses. Stored in [`BackendEntry::outer_sum`].
pub fn outer_sum(source: [u8; 4], destination: [u8; 4]) -> u32 {
    let fixed = Sum::default().add_bytes(&[VERSION_IHL, 0, OUTER_TTL, 0]);
    fixed.add_bytes(&source).add_bytes(&destination).raw()
}

/// What follows the IP header of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload {
    /// A TCP or UDP header with these ports, and all of its data.
    Segment(Ports),
    /// A TCP or UDP header with these ports, and the first of its data.
    FirstPiece(Ports),
    /// A later piece of a segment.
    LaterPiece,
    /// An ICMP error about a packet that the backend sent.
    Error(Quote),
}

/// What goes into a frame on its way to a backend.
#[derive(Clone, Copy, Debug)]
pub struct Load<'d> {
    /// The frame's own header.
    pub link: &'d Link,
    /// The packet in it.
    pub datagram: &'d Datagram,
    /// What the packet carries.
    pub payload: Payload,
    /// Entropy for a tunnel's source port and address: the flow's hash.
    pub hash: u64,
}

/// Makes `packet` ready to leave for the backend.
///
/// Nothing is changed on an error other than [`DropReason::Inconsistent`], which needs a driver that takes back room
/// that it just gave.
#[inline(always)]
pub fn deliver<P: Packet>(packet: &mut P, load: &Load<'_>, backend: &BackendEntry) -> Result<(), Refusal> {
    let flags = backend.flags;
    if flags & USABLE == 0 {
        return Err(DropReason::NoNeighbor.into());
    }
    if flags & OUTER_IPV4 != 0 {
        tunnel4(packet, load, backend)
    } else if flags & OUTER_IPV6 != 0 {
        tunnel6(packet, load, backend)
    } else {
        check_fit(load, backend, 0)?;
        if flags & NAT != 0 {
            translate::to_backend(packet, load, backend)?;
        }
        packet.write(0, backend.macs).ok_or_else(|| DropReason::Inconsistent.into())
    }
}

/// Whether the packet fits the way with so many bytes in front of it.
#[inline(always)]
fn check_fit(load: &Load<'_>, backend: &BackendEntry, overhead: usize) -> Result<(), Refusal> {
    let room = usize::from(backend.mtu).wrapping_sub(overhead);
    if load.datagram.length > room { Err(Refusal::TooBig(room as u16)) } else { Ok(()) }
}

#[inline(always)]
fn tunnel4<P: Packet>(packet: &mut P, load: &Load<'_>, backend: &BackendEntry) -> Result<(), Refusal> {
    if backend.flags & GUE != 0 {
        check_fit(load, backend, size_of::<Gue4>())?;
        let ip = outer4(load, backend, UDP_LENGTH, protocol::UDP);
        // RFC 768: no checksum. The packet inside has one of its own.
        let header = Gue4 { ip, udp: gue(load, backend) };
        prepend(packet, load.link, backend, ETHERTYPE_IPV4, header)
    } else {
        check_fit(load, backend, IPV4_LENGTH)?;
        let header = outer4(load, backend, 0, load.datagram.encapsulated());
        prepend(packet, load.link, backend, ETHERTYPE_IPV4, header)
    }
}

#[inline(always)]
fn tunnel6<P: Packet>(packet: &mut P, load: &Load<'_>, backend: &BackendEntry) -> Result<(), Refusal> {
    if backend.flags & GUE != 0 {
        check_fit(load, backend, size_of::<Gue6>())?;
        let ip = outer6(load, backend, UDP_LENGTH, protocol::UDP);
        let mut udp = gue(load, backend);
        udp.checksum = gue_checksum(packet, load, &ip, &udp).ok_or(DropReason::Inconsistent)?;
        prepend(packet, load.link, backend, ETHERTYPE_IPV6, Gue6 { ip, udp })
    } else {
        check_fit(load, backend, IPV6_LENGTH)?;
        let header = outer6(load, backend, 0, load.datagram.encapsulated());
        prepend(packet, load.link, backend, ETHERTYPE_IPV6, header)
    }
}

#[inline(always)]
fn prepend<P: Packet, H: NoUninit>(
    packet: &mut P,
    link: &Link,
    backend: &BackendEntry,
    ethertype: Be16,
    header: H,
) -> Result<(), Refusal> {
    packet.grow(size_of::<H>()).ok_or(DropReason::NoHeadroom)?;
    packet.write(link.length, header).ok_or(DropReason::Inconsistent)?;
    packet.write(0, backend.macs).ok_or(DropReason::Inconsistent)?;
    link.write(packet, ethertype).ok_or_else(|| DropReason::Inconsistent.into())
}

/// RFC 2003, section 3.1. DSCP and ECN are copied (RFC 6040, normal mode), and DF is set if the packet has it.
#[inline(always)]
fn outer4(load: &Load<'_>, backend: &BackendEntry, more: usize, carried: u8) -> Ipv4Header {
    let datagram = load.datagram;
    let total_length = Be16::new((datagram.length + IPV4_LENGTH + more) as u16);
    let entropy = load.hash as u32 & backend.entropy.raw();
    let checksum = Sum::from_raw(backend.outer_sum)
        .add_u32(entropy)
        .add(Be16::new(u16::from(datagram.tos)))
        .add(total_length)
        .add(datagram.outer_identification)
        .add(datagram.outer_fragment)
        .add(Be16::new(u16::from(carried)))
        .finish();
    let [source, destination]: [Ipv4Address; 2] = backend.outer.ipv4();
    Ipv4Header {
        version_ihl: VERSION_IHL,
        tos: datagram.tos,
        total_length,
        identification: datagram.outer_identification,
        fragment: datagram.outer_fragment,
        ttl: OUTER_TTL,
        protocol: carried,
        checksum,
        source: source.with_bits(backend.entropy, entropy),
        destination,
    }
}

/// RFC 2473, section 5.1, without extension headers.
#[inline(always)]
fn outer6(load: &Load<'_>, backend: &BackendEntry, more: usize, carried: u8) -> Ipv6Header {
    let datagram = load.datagram;
    let [source, destination]: [Ipv6Address; 2] = backend.outer.ipv6();
    Ipv6Header {
        version_class_flow: Be32::new(6 << 28 | u32::from(datagram.tos) << 20),
        payload_length: Be16::new((datagram.length + more) as u16),
        next_header: carried,
        hop_limit: OUTER_TTL,
        source: source.with_bits(backend.entropy, load.hash as u32),
        destination,
    }
}

/// The source port tells flows apart, from the range of dynamic ports (draft-ietf-intarea-gue-09, section 5.11).
#[inline(always)]
fn gue(load: &Load<'_>, backend: &BackendEntry) -> UdpHeader {
    let source = 0xc000 | load.hash as u16;
    let length = Be16::new((load.datagram.length + UDP_LENGTH) as u16);
    UdpHeader { ports: Ports::new(source, backend.port.get()), length, checksum: Be16::new(0) }
}

/// The UDP checksum over IPv6, which must be there (RFC 8200, section 8.1).
///
/// A transport segment with a right checksum sums up to the complement of its pseudo header, so the sum over the inner
/// packet follows from a few header fields. If that checksum is wrong, so will be this one, and the packet is discarded
/// a header earlier. What has no such checksum (fragments, UDP over IPv4 without) is summed up byte by byte.
#[inline(always)]
fn gue_checksum<P: Packet>(packet: &P, load: &Load<'_>, ip: &Ipv6Header, udp: &UdpHeader) -> Option<Be16> {
    let inner = match inner_sum(packet, load) {
        Some(sum) => sum,
        None => packet.sum(load.link.length, load.datagram.length)?,
    };
    let ([s0, s1], [d0, d1]) = (ip.source.raw(), ip.destination.raw());
    let pseudo = Sum::default().add_u64(s0).add_u64(s1).add_u64(d0).add_u64(d1).add(udp.length);
    let header = pseudo.add(Be16::new(protocol::UDP.into())).add_u32(udp.ports.raw()).add(udp.length);
    Some(header.add_sum(inner).finish_udp())
}

/// The sum over the inner packet, if its transport checksum covers all behind a plain IP header.
#[inline(always)]
fn inner_sum<P: Packet>(packet: &P, load: &Load<'_>) -> Option<Sum> {
    let Payload::Segment(_) = load.payload else { return None };
    let (link, datagram) = (load.link, load.datagram);
    let has_checksum = match datagram.protocol {
        protocol::TCP => true,
        protocol::UDP => {
            let udp: UdpHeader = packet.read(link.length + datagram.header)?;
            // Padding between the UDP length and the IP length is not covered.
            udp.checksum != Be16::new(0)
                && usize::from(udp.length.get()) == datagram.length.wrapping_sub(datagram.header)
        }
        _ => false,
    };
    let segment = Be16::new((datagram.length.wrapping_sub(datagram.header)) as u16);
    let transport = Sum::default().remove(segment).remove(Be16::new(datagram.protocol.into()));
    match (has_checksum, datagram.is_ipv6, datagram.header) {
        // A right IPv4 header sums up to zero.
        (true, false, IPV4_LENGTH) => {
            let ip: Ipv4Header = packet.read(link.length)?;
            Some(transport.remove_u32(ip.source.raw()).remove_u32(ip.destination.raw()))
        }
        // The addresses are in the header and in the pseudo header, and cancel each other out.
        (true, true, IPV6_LENGTH) => Some(transport.add_u64(packet.read(link.length)?)),
        _ => None,
    }
}
