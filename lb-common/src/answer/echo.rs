//! Echo requests for a VIP.

use super::{TTL, done, is_between_hosts};
use crate::checksum::replace;
use crate::ip::Datagram;
use crate::link::Link;
use crate::packet::Packet;
use crate::verdict::{AnswerReason, PassReason, Refusal};
use crate::wire::{Be16, IcmpHeader, Ipv4Header, Ipv6Header, MacPair, icmp, icmpv6};

/// Turns an echo request into its reply. One that must not be answered is the stack's, which knows that too.
#[inline(always)]
pub fn echo<P: Packet>(packet: &mut P, link: &Link, datagram: &Datagram) -> Refusal {
    if !is_between_hosts(packet, link, datagram.is_ipv6) {
        return PassReason::OtherProtocol.into();
    }
    let written =
        if datagram.is_ipv6 { echo6(packet, link, datagram) } else { echo4(packet, link, datagram) };
    done(written.and_then(|()| turn_back(packet)), AnswerReason::Echo)
}

#[inline(always)]
fn turn_back<P: Packet>(packet: &mut P) -> Option<()> {
    let macs: MacPair = packet.read(0)?;
    packet.write(0, macs.reversed())
}

/// Changes kind and checksum of an echo request.
#[inline(always)]
fn reply_kind<P: Packet>(packet: &mut P, at: usize, kind: u8) -> Option<()> {
    let request: IcmpHeader = packet.read(at)?;
    let word = |kind: u8| Be16::new(u16::from(kind) << 8 | u16::from(request.code));
    let checksum = replace(request.checksum, word(request.kind), word(kind));
    packet.write(at, IcmpHeader { kind, checksum, ..request })
}

#[inline(always)]
fn echo4<P: Packet>(packet: &mut P, link: &Link, datagram: &Datagram) -> Option<()> {
    let request: Ipv4Header = packet.read(link.length)?;
    let word = |ttl: u8| Be16::new(u16::from(ttl) << 8 | u16::from(request.protocol));
    let reply = Ipv4Header {
        ttl: TTL,
        // The addresses change places, which changes no sum.
        checksum: replace(request.checksum, word(request.ttl), word(TTL)),
        source: request.destination,
        destination: request.source,
        ..request
    };
    packet.write(link.length, reply)?;
    reply_kind(packet, link.length + datagram.header, icmp::ECHO_REPLY)
}

#[inline(always)]
fn echo6<P: Packet>(packet: &mut P, link: &Link, datagram: &Datagram) -> Option<()> {
    let request: Ipv6Header = packet.read(link.length)?;
    let reply =
        Ipv6Header { hop_limit: TTL, source: request.destination, destination: request.source, ..request };
    packet.write(link.length, reply)?;
    reply_kind(packet, link.length + datagram.header, icmpv6::ECHO_REPLY)
}
