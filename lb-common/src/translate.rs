//! Mode `nat`: the destination becomes the backend's own address and port, and back again in its replies.
//!
//! No state is needed: a reply's source tells its service. Checksums are amended by what changed (RFC 1624), so a segment
//! that was damaged on its way stays recognisable as damaged.

use crate::checksum::Sum;
use crate::deliver::{Load, Payload};
use crate::icmp::Quote;
use crate::ip::Datagram;
use crate::layout::{BackendEntry, ServiceEntry};
use crate::packet::Packet;
use crate::verdict::{DropReason, Refusal};
use crate::wire::{Be16, ICMP_LENGTH, Ipv4Address, Ipv6Address, Ports, protocol};

/// Which address of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Source,
    Destination,
}

/// An address to put into a packet.
#[derive(Clone, Copy, Debug)]
enum Address {
    V4(Ipv4Address),
    V6(Ipv6Address),
}

/// Where an IPv4 header has its checksum.
const IPV4_CHECKSUM: usize = 10;
/// Where TCP and UDP headers and ICMP messages have theirs.
const TCP_CHECKSUM: usize = 16;
const UDP_CHECKSUM: usize = 6;
const ICMP_CHECKSUM: usize = 2;

/// Gives a packet the backend's own address and port as its destination. The frame holds all that its headers promise.
#[inline(always)]
pub fn to_backend<P: Packet>(packet: &mut P, load: &Load<'_>, backend: &BackendEntry) -> Result<(), Refusal> {
    let own = own_address(load.datagram, backend);
    rewrite(packet, load, own, backend.port).ok_or_else(|| DropReason::Inconsistent.into())
}

#[inline(always)]
fn own_address(datagram: &Datagram, backend: &BackendEntry) -> Address {
    if datagram.is_ipv6 { Address::V6(backend.outer.ipv6()[1]) } else { Address::V4(backend.outer.ipv4()[1]) }
}

#[inline(always)]
fn rewrite<P: Packet>(packet: &mut P, load: &Load<'_>, own: Address, port: Be16) -> Option<()> {
    let (start, datagram) = (load.link.length, load.datagram);
    let change = replace_address(packet, start, Side::Destination, own)?;
    match load.payload {
        Payload::Segment(ports) | Payload::FirstPiece(ports) => {
            let port = if port == Be16::new(0) { ports.destination() } else { port.get() };
            replace_ports(packet, start, datagram, change, ports, Ports::new(ports.source(), port))
        }
        Payload::LaterPiece => Some(()),
        Payload::Error(quote) => {
            let port = if port == Be16::new(0) { quote.ports.destination() } else { port.get() };
            // The quoted packet went the other way.
            let ports = Ports::new(port, quote.ports.source());
            requote(packet, start, datagram, &quote, change, End { side: Side::Source, address: own, ports })
        }
    }
}

/// Makes a reply come from the VIP again, and an ICMP error quote what the client had sent.
#[inline(always)]
pub fn to_client<P: Packet>(
    packet: &mut P,
    start: usize,
    datagram: &Datagram,
    payload: Payload,
    service: &ServiceEntry,
) -> Option<()> {
    let vip = if datagram.is_ipv6 {
        Address::V6(bytemuck::cast(service.vip))
    } else {
        Address::V4(bytemuck::cast(service.vip[0]))
    };
    let change = replace_address(packet, start, Side::Source, vip)?;
    let port = |own| if service.vip_port == 0 { own } else { service.vip_port };
    match payload {
        Payload::Segment(ports) | Payload::FirstPiece(ports) => {
            let new = Ports::new(port(ports.source()), ports.destination());
            replace_ports(packet, start, datagram, change, ports, new)
        }
        Payload::LaterPiece => Some(()),
        Payload::Error(quote) => {
            let ports = Ports::new(quote.ports.destination(), port(quote.ports.source()));
            requote(
                packet,
                start,
                datagram,
                &quote,
                change,
                End { side: Side::Destination, address: vip, ports },
            )
        }
    }
}

/// Puts an address into the IP header at `start`, and amends that header's checksum. What the sums beside it change by.
#[inline(always)]
fn replace_address<P: Packet>(packet: &mut P, start: usize, side: Side, new: Address) -> Option<Sum> {
    match new {
        Address::V4(new) => {
            let at = start + if side == Side::Source { 12 } else { 16 };
            let old: Ipv4Address = packet.read(at)?;
            let change = Sum::default().remove_u32(old.raw()).add_u32(new.raw());
            packet.write(at, new)?;
            amend(packet, start + IPV4_CHECKSUM, change)?;
            Some(change)
        }
        Address::V6(new) => {
            let at = start + if side == Side::Source { 8 } else { 24 };
            let old: Ipv6Address = packet.read(at)?;
            let ([o0, o1], [n0, n1]) = (old.raw(), new.raw());
            packet.write(at, new)?;
            Some(Sum::default().remove_u64(o0).remove_u64(o1).add_u64(n0).add_u64(n1))
        }
    }
}

#[inline(always)]
fn amend<P: Packet>(packet: &mut P, at: usize, change: Sum) -> Option<()> {
    let checksum: Be16 = packet.read(at)?;
    packet.write(at, change.amend(checksum))
}

/// Puts ports into the transport header, and amends its checksum by them and by `change`.
#[inline(always)]
fn replace_ports<P: Packet>(
    packet: &mut P,
    start: usize,
    datagram: &Datagram,
    change: Sum,
    old: Ports,
    new: Ports,
) -> Option<()> {
    let transport = start + datagram.header;
    let change = change.remove_u32(old.raw()).add_u32(new.raw());
    packet.write(transport, new)?;
    if datagram.protocol == protocol::TCP {
        return amend(packet, transport + TCP_CHECKSUM, change);
    }
    let checksum: Be16 = packet.read(transport + UDP_CHECKSUM)?;
    if checksum == Be16::new(0) {
        // No checksum was sent, and none is needed (RFC 768).
        return Some(());
    }
    packet.write(transport + UDP_CHECKSUM, change.amend_udp(checksum))
}

/// What a quoted packet gets: the address of one of its ends, and both ports.
#[derive(Clone, Copy, Debug)]
struct End {
    side: Side,
    address: Address,
    ports: Ports,
}

/// Makes an ICMP error quote the packet as its sender knows it. `outside` is what the error's own header changed by.
///
/// The quoted transport checksum is left alone: it may not be there, and nobody checks it.
#[inline(always)]
fn requote<P: Packet>(
    packet: &mut P,
    start: usize,
    datagram: &Datagram,
    quote: &Quote,
    outside: Sum,
    end: End,
) -> Option<()> {
    let message = start + datagram.header;
    let quoted = message + ICMP_LENGTH;
    let inside = replace_address(packet, quoted, end.side, end.address)?;
    packet.write(quoted + quote.header, end.ports)?;
    let ports = Sum::default().remove_u32(quote.ports.reversed().raw()).add_u32(end.ports.raw());
    // IPv4: the quoted header's own checksum makes up for its address. IPv6: it has none, and the pseudo header counts.
    let change = if datagram.is_ipv6 { ports.add_sum(inside).add_sum(outside) } else { ports };
    amend(packet, message + ICMP_CHECKSUM, change)
}
