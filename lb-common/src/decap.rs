//! The other end of a tunnel: takes the outer IP header off, for backends whose kernel has no tunnel device.

use crate::packet::Packet;
use crate::wire::{
    Be16, ETHERNET_LENGTH, ETHERTYPE_IPV4, ETHERTYPE_IPV6, EthernetHeader, IPV4_FRAGMENT, IPV4_LENGTH,
    IPV6_LENGTH, Ipv4Header, Ipv6Header, protocol,
};

/// Unwraps a frame that carries IP in IP (RFC 2003, RFC 2473, RFC 4213); says whether it did.
///
/// Anything else is left as it is. The inner packet keeps the frame's MAC addresses.
#[inline(always)]
pub fn decapsulate<P: Packet>(packet: &mut P) -> bool {
    unwrap_tunnel(packet).is_some()
}

#[inline(always)]
fn unwrap_tunnel<P: Packet>(packet: &mut P) -> Option<()> {
    let ethernet: EthernetHeader = packet.read(0)?;
    let (carried, outer) = match ethernet.ethertype {
        ETHERTYPE_IPV4 => outer4(packet)?,
        ETHERTYPE_IPV6 => outer6(packet)?,
        _ => return None,
    };
    let ethertype = inner_ethertype(carried)?;
    packet.shrink(outer)?;
    packet.write(0, EthernetHeader { ethertype, ..ethernet })
}

#[inline(always)]
fn outer4<P: Packet>(packet: &P) -> Option<(u8, usize)> {
    let header: Ipv4Header = packet.read(ETHERNET_LENGTH)?;
    let whole = header.version_ihl == 0x45 && header.fragment.and(IPV4_FRAGMENT) == Be16::new(0);
    whole.then_some((header.protocol, IPV4_LENGTH))
}

#[inline(always)]
fn outer6<P: Packet>(packet: &P) -> Option<(u8, usize)> {
    let header: Ipv6Header = packet.read(ETHERNET_LENGTH)?;
    Some((header.next_header, IPV6_LENGTH))
}

#[inline(always)]
fn inner_ethertype(carried: u8) -> Option<Be16> {
    match carried {
        protocol::IPIP => Some(ETHERTYPE_IPV4),
        protocol::IPV6 => Some(ETHERTYPE_IPV6),
        _ => None,
    }
}
