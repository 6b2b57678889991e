//! The way to the backend: new MAC addresses, and an outer header where the backend asks for one.

use bytemuck::NoUninit;

use crate::checksum::Sum;
use crate::ip::Datagram;
use crate::layout::{BackendEntry, OUTER_IPV4, OUTER_IPV6, USABLE};
use crate::packet::Packet;
use crate::verdict::DropReason;
use crate::wire::{
    Be16, Be32, ETHERNET_LENGTH, ETHERTYPE_IPV4, ETHERTYPE_IPV6, EthernetHeader, IPV4_LENGTH, IPV6_LENGTH,
    Ipv4Header, Ipv6Header,
};

/// Hops that an outer header starts with (IANA's recommended default).
const OUTER_TTL: u8 = 64;
/// Version 4, five words of header.
const VERSION_IHL: u8 = 0x45;

/// The checksum's share of the outer IPv4 words that are the same for every packet to a backend: version and header
/// length, TTL, and both addresses. Stored in [`BackendEntry::outer_sum`].
pub fn outer_sum(source: [u8; 4], destination: [u8; 4]) -> u32 {
    let fixed = Sum::default().add_bytes(&[VERSION_IHL, 0, OUTER_TTL, 0]);
    fixed.add_bytes(&source).add_bytes(&destination).raw()
}

/// Makes `packet` ready to leave for the backend.
///
/// Nothing is changed on an error other than [`DropReason::Inconsistent`], which needs a driver that takes back room
/// that it just gave.
#[inline(always)]
pub fn deliver<P: Packet>(
    packet: &mut P,
    datagram: &Datagram,
    backend: &BackendEntry,
) -> Result<(), DropReason> {
    let flags = backend.flags;
    if flags & USABLE == 0 {
        return Err(DropReason::NoNeighbor);
    }
    let mtu = usize::from(backend.mtu);
    if flags & OUTER_IPV4 != 0 {
        check_fit(datagram.length + IPV4_LENGTH, mtu)?;
        prepend(packet, backend, ETHERTYPE_IPV4, outer4(datagram, backend))
    } else if flags & OUTER_IPV6 != 0 {
        check_fit(datagram.length + IPV6_LENGTH, mtu)?;
        prepend(packet, backend, ETHERTYPE_IPV6, outer6(datagram, backend))
    } else {
        check_fit(datagram.length, mtu)?;
        packet.write(0, [backend.destination_mac, backend.source_mac]).ok_or(DropReason::Inconsistent)
    }
}

#[inline(always)]
fn check_fit(length: usize, mtu: usize) -> Result<(), DropReason> {
    if length > mtu { Err(DropReason::TooBig) } else { Ok(()) }
}

#[inline(always)]
fn prepend<P: Packet, H: NoUninit>(
    packet: &mut P,
    backend: &BackendEntry,
    ethertype: Be16,
    header: H,
) -> Result<(), DropReason> {
    let BackendEntry { destination_mac: destination, source_mac: source, .. } = *backend;
    packet.grow(size_of::<H>()).ok_or(DropReason::NoHeadroom)?;
    packet.write(ETHERNET_LENGTH, header).ok_or(DropReason::Inconsistent)?;
    packet.write(0, EthernetHeader { destination, source, ethertype }).ok_or(DropReason::Inconsistent)
}

/// RFC 2003, section 3.1. DSCP and ECN are copied (RFC 6040, normal mode), and DF is set if the packet has it.
#[inline(always)]
fn outer4(datagram: &Datagram, backend: &BackendEntry) -> Ipv4Header {
    let total_length = (datagram.length + IPV4_LENGTH) as u16;
    let checksum = Sum::from_raw(backend.outer_sum)
        .add(u16::from(datagram.tos))
        .add(total_length)
        .add(datagram.outer_identification)
        .add(datagram.outer_fragment)
        .add(u16::from(datagram.encapsulated))
        .finish();
    let [source, destination] = backend.outer.ipv4();
    Ipv4Header {
        version_ihl: VERSION_IHL,
        tos: datagram.tos,
        total_length: Be16::new(total_length),
        identification: Be16::new(datagram.outer_identification),
        fragment: Be16::new(datagram.outer_fragment),
        ttl: OUTER_TTL,
        protocol: datagram.encapsulated,
        checksum: Be16::new(checksum),
        source,
        destination,
    }
}

/// RFC 2473, section 5.1, without extension headers.
#[inline(always)]
fn outer6(datagram: &Datagram, backend: &BackendEntry) -> Ipv6Header {
    let [source, destination] = backend.outer.ipv6();
    Ipv6Header {
        version_class_flow: Be32::new(6 << 28 | u32::from(datagram.tos) << 20),
        payload_length: Be16::new(datagram.length as u16),
        next_header: datagram.encapsulated,
        hop_limit: OUTER_TTL,
        source,
        destination,
    }
}
