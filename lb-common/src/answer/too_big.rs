//! Packets that are too big for the way to their backend.

use super::{TTL, is_between_hosts, pseudo_sum};
use crate::checksum::Sum;
use crate::icmp::Message;
use crate::ip::{Datagram, Fragment, IpHeader, Part};
use crate::link::Link;
use crate::packet::Packet;
use crate::pipeline::{Tables, source_of};
use crate::verdict::{AnswerReason, DropReason, Refusal};
use crate::wire::{
    Be16, Be32, ETHERTYPE_IPV4, ETHERTYPE_IPV6, ICMP_LENGTH, IPV4_LENGTH, IPV6_LENGTH, IcmpHeader,
    Ipv4Header, Ipv6Header, MacPair, icmp, icmpv6, protocol,
};

/// Bytes that a "fragmentation needed" quotes: the whole message is 576 bytes long (RFC 1812, section 4.3.2.3).
const QUOTE4: usize = 576 - IPV4_LENGTH - ICMP_LENGTH;
/// Bytes that a "packet too big" quotes: the whole message is 1280 bytes long (RFC 4443, section 2.4 (c)).
const QUOTE6: usize = 1280 - IPV6_LENGTH - ICMP_LENGTH;

/// An ICMP message with the IP header in front of it.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Message4 {
    ip: Ipv4Header,
    icmp: IcmpHeader,
}

/// The same over IPv6.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Message6 {
    ip: Ipv6Header,
    icmp: IcmpHeader,
}

/// Tells the sender of a packet that no more than `room` bytes of IP fit the way to its backend.
///
/// IPv4 senders that allow fragmentation are told too: nobody on the way can fragment what the balancer wraps, and a host
/// that learns the size fragments by itself.
#[inline(always)]
pub fn too_big<P: Packet, T: Tables>(packet: &mut P, tables: &T, room: u16) -> Refusal {
    let answered = packet.link().and_then(|(length, ethertype)| {
        let link = Link::of(packet, length);
        match ethertype {
            ETHERTYPE_IPV4 => too_big4(packet, tables, &link, room),
            _ => too_big6(packet, tables, &link, room),
        }
    });
    match answered {
        Some(()) => Refusal::Answer(AnswerReason::TooBig),
        None => DropReason::TooBig.into(),
    }
}

/// Whether a sender may be told about its packet.
#[inline(always)]
fn may_be_told<P: Packet, T: Tables>(
    packet: &P,
    tables: &T,
    link: &Link,
    (datagram, fragment): &(Datagram, Fragment),
) -> bool {
    let about_error = matches!(Message::parse(packet, link, datagram), Ok(Some(Message::Error)) | Err(_));
    let may =
        !about_error && fragment.part != Part::Later && is_between_hosts(packet, link, datagram.is_ipv6);
    let source = source_of(packet, link.length, datagram.is_ipv6);
    // Of an IPv6 address the network; of a mapped IPv4 address all that it has.
    let source = source.map(|source| if datagram.is_ipv6 { source.high } else { source.low });
    may && source.is_some_and(|source| tables.affords(source))
}

#[inline(always)]
fn too_big4<P: Packet, T: Tables>(packet: &mut P, tables: &T, link: &Link, room: u16) -> Option<()> {
    let old: Ipv4Header = packet.read(link.length)?;
    let parsed = old.any(packet, link.length, tables.hash_key()).ok()?;
    if !may_be_told(packet, tables, link, &parsed) {
        return None;
    }
    // A header of whatever length and eight bytes are the least; packets that do not fit are longer.
    let quote = if parsed.0.length >= QUOTE4 { QUOTE4 } else { parsed.0.length };
    let mut icmp = IcmpHeader {
        kind: icmp::UNREACHABLE,
        code: icmp::FRAGMENTATION_NEEDED,
        checksum: Be16::new(0),
        rest: Be32::new(room.into()),
    };
    let sum = packet.sum(link.length, quote)?.add_u64(bytemuck::cast(icmp));
    icmp.checksum = Sum::default().add_sum(sum).finish();
    let mut ip = Ipv4Header {
        version_ihl: 0x45,
        // Precedence "internetwork control" (RFC 1812, section 4.3.2.5).
        tos: 0xc0,
        total_length: Be16::new((IPV4_LENGTH + ICMP_LENGTH + quote) as u16),
        identification: Be16::new(0),
        fragment: Be16::new(0),
        ttl: TTL,
        protocol: protocol::ICMP,
        checksum: Be16::new(0),
        source: old.destination,
        destination: old.source,
    };
    ip.checksum = header_sum(&ip).finish();
    replace_packet(packet, link, quote, ETHERTYPE_IPV4, Message4 { ip, icmp })
}

/// The sum over an IPv4 header.
#[inline(always)]
fn header_sum(header: &Ipv4Header) -> Sum {
    let words: [u32; 5] = bytemuck::cast(*header);
    words.into_iter().fold(Sum::default(), Sum::add_u32)
}

#[inline(always)]
fn too_big6<P: Packet, T: Tables>(packet: &mut P, tables: &T, link: &Link, room: u16) -> Option<()> {
    let old: Ipv6Header = packet.read(link.length)?;
    let parsed = old.any(packet, link.length, tables.hash_key()).ok()?;
    if !may_be_told(packet, tables, link, &parsed) {
        return None;
    }
    let quote = if parsed.0.length >= QUOTE6 { QUOTE6 } else { parsed.0.length };
    let mut icmp =
        IcmpHeader { kind: icmpv6::TOO_BIG, code: 0, checksum: Be16::new(0), rest: Be32::new(room.into()) };
    let ip = Ipv6Header {
        version_class_flow: Be32::new(6 << 28),
        payload_length: Be16::new((ICMP_LENGTH + quote) as u16),
        next_header: protocol::ICMPV6,
        hop_limit: TTL,
        source: old.destination,
        destination: old.source,
    };
    let quoted = packet.sum(link.length, quote)?;
    icmp.checksum = pseudo_sum(&ip).add_u64(bytemuck::cast(icmp)).add_sum(quoted).finish();
    replace_packet(packet, link, quote, ETHERTYPE_IPV6, Message6 { ip, icmp })
}

/// Cuts the packet to `quote` bytes and puts a message in front of them, back to the sender.
#[inline(always)]
fn replace_packet<P: Packet, H: bytemuck::NoUninit>(
    packet: &mut P,
    link: &Link,
    quote: usize,
    ethertype: Be16,
    message: H,
) -> Option<()> {
    let macs: MacPair = packet.read(0)?;
    packet.truncate(link.length + quote)?;
    packet.grow(size_of::<H>())?;
    packet.write(link.length, message)?;
    packet.write(0, macs.reversed())?;
    link.write(packet, ethertype)
}
