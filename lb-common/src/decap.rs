//! The other end of a tunnel, for backends: takes the outer headers off what a balancer sends.
//!
//! IP in IP (RFC 2003, RFC 2473, RFC 4213) and variant 1 of GUE (draft-ietf-intarea-gue-09), in which the inner IP header
//! follows the UDP header at once. Only what is a tunnel packet for one of the host's own addresses is judged; all else goes up
//! the stack untouched, whatever it looks like. A tunnel inside a tunnel is left to the stack: headers come off once.

mod inner;
mod reasons;

pub use self::reasons::{DecapDrop, DecapPass, Outcome, Unwrapped};

use self::inner::Inner;
use crate::checksum::Sum;
use crate::hash::HashKey;
use crate::ip::{Datagram, IpHeader, Part};
use crate::layout::VipKey;
use crate::link::Link;
use crate::packet::Packet;
use crate::wire::{
    Be16, ETHERTYPE_IPV4, ETHERTYPE_IPV6, IPV4_LENGTH, Ipv4Header, Ipv6Header, MacPair, UDP_LENGTH,
    UdpHeader, protocol,
};

/// What the host knows of its tunnels, and where packets are counted.
pub trait Tunnels {
    /// UDP port of GUE.
    fn gue_port(&self) -> Be16;

    /// Whether a tunnel may end at the address.
    fn is_endpoint(&self, address: VipKey) -> bool;

    /// Whether tunnel packets from the address are taken.
    fn is_listed(&self, sender: VipKey) -> bool;

    /// Counts a packet that came in by an interface.
    fn count(&self, ingress: u32, counter: u32);
}

/// Unwraps a tunnel packet for this host, and counts what became of it.
///
/// A packet that is passed or dropped is unchanged, unless it is dropped as [`DecapDrop::Inconsistent`]. One that is unwrapped
/// keeps the frame's MAC addresses and VLAN tags, and ends with the inner packet.
#[inline(always)]
pub fn decapsulate<P: Packet, T: Tunnels>(packet: &mut P, tunnels: &T) -> Outcome {
    let outcome = match unwrap(packet, tunnels) {
        Ok(unwrapped) => Outcome::Unwrapped(unwrapped),
        Err(outcome) => outcome,
    };
    tunnels.count(packet.ingress(), outcome.counter());
    outcome
}

#[inline(always)]
fn unwrap<P: Packet, T: Tunnels>(packet: &mut P, tunnels: &T) -> Result<Unwrapped, Outcome> {
    let (link, ethertype) = packet.link().ok_or(DecapPass::Malformed)?;
    let (inner, tos, unwrapped) = match ethertype {
        ETHERTYPE_IPV4 => find::<Ipv4Header, _, _>(packet, tunnels, link)?,
        ETHERTYPE_IPV6 => find::<Ipv6Header, _, _>(packet, tunnels, link)?,
        _ => return Err(DecapPass::NotIp.into()),
    };
    inner.take_marks(packet, tos)?;
    uncover(packet, link, &inner).ok_or(DecapDrop::Inconsistent)?;
    Ok(unwrapped)
}

/// The inner packet of a tunnel packet that may be unwrapped, the outer header's DSCP and ECN, and the kind of tunnel.
#[inline(always)]
fn find<H: Outer, P: Packet, T: Tunnels>(
    packet: &P,
    tunnels: &T,
    start: usize,
) -> Result<(Inner, u8, Unwrapped), Outcome> {
    let header: H = packet.read(start).ok_or(DecapPass::Malformed)?;
    // The hash is not used, so the compiler leaves it out.
    let any = header.any(packet, start, &HashKey::ZERO);
    let (outer, fragment) = any.map_err(|_| DecapPass::Malformed)?;
    let tunnel = Tunnel::of(packet, start, &outer, fragment.part, tunnels.gue_port())?;
    if !tunnels.is_endpoint(header.destination_key()) {
        return Err(DecapPass::NotForHost.into());
    }
    if !tunnels.is_listed(header.source_key()) {
        return Err(DecapDrop::Unlisted.into());
    }
    if fragment.part != Part::Whole {
        return Err(DecapPass::Fragment.into());
    }
    if !header.is_intact(packet, start, outer.header) {
        return Err(DecapDrop::OuterChecksum.into());
    }
    let payload = Payload { at: start + outer.header, room: outer.length.wrapping_sub(outer.header) };
    let inner = match tunnel {
        Tunnel::Ip { is_ipv6 } => Inner::parse(packet, is_ipv6, payload.at, payload.room)?,
        Tunnel::Gue => gue(packet, &header, payload)?,
    };
    Ok((inner, outer.tos, tunnel.unwrapped()))
}

/// How a packet travels.
#[derive(Clone, Copy)]
enum Tunnel {
    /// Behind an IP header.
    Ip {
        /// The inner packet's family.
        is_ipv6: bool,
    },
    /// Behind an IP header and a UDP header.
    Gue,
}

impl Tunnel {
    /// The tunnel of an outer packet, if it is one.
    #[inline(always)]
    fn of<P: Packet>(
        packet: &P,
        start: usize,
        outer: &Datagram,
        part: Part,
        gue_port: Be16,
    ) -> Result<Self, DecapPass> {
        match outer.protocol {
            protocol::IPIP => Ok(Self::Ip { is_ipv6: false }),
            protocol::IPV6 => Ok(Self::Ip { is_ipv6: true }),
            // Its ports are in the first fragment.
            protocol::UDP if part == Part::Later => Err(DecapPass::Fragment),
            protocol::UDP => {
                let udp: UdpHeader = packet.read(start + outer.header).ok_or(DecapPass::NotTunnel)?;
                let ours = Be16::new(udp.ports.destination()) == gue_port;
                // What lies behind the packet's end is no header of its.
                let whole = outer.length >= outer.header + UDP_LENGTH;
                if ours && whole { Ok(Self::Gue) } else { Err(DecapPass::NotTunnel) }
            }
            _ => Err(DecapPass::NotTunnel),
        }
    }

    #[inline(always)]
    const fn unwrapped(self) -> Unwrapped {
        match self {
            Self::Ip { .. } => Unwrapped::Ipip,
            Self::Gue => Unwrapped::Gue,
        }
    }
}

/// Where the payload of an IP header is, and how many bytes.
#[derive(Clone, Copy)]
struct Payload {
    at: usize,
    room: usize,
}

/// The packet behind a UDP header.
#[inline(always)]
fn gue<H: Outer, P: Packet>(packet: &P, header: &H, payload: Payload) -> Result<Inner, Outcome> {
    let udp: UdpHeader = packet.read(payload.at).ok_or(DecapDrop::UdpLength)?;
    // RFC 768: the length counts the header too. What follows it inside the outer packet is padding.
    let length = usize::from(udp.length.get());
    if length < UDP_LENGTH || length > payload.room {
        return Err(DecapDrop::UdpLength.into());
    }
    let (at, room) = (payload.at + UDP_LENGTH, length.wrapping_sub(UDP_LENGTH));
    // The variant is in the first two bits, which in variant 1 are those of the inner header's version, 4 or 6.
    let first: u8 = packet.read(at).filter(|_| room > 0).ok_or(DecapDrop::InnerHeader)?;
    if first >> 6 != 1 {
        return Err(DecapPass::GueVariant.into());
    }
    check_udp(packet, header, &udp, payload.at)?;
    let is_ipv6 = first >> 4 == 6;
    Ok(Inner::parse(packet, is_ipv6, at, room)?)
}

/// A checksum may be missing over IPv4 (RFC 768), and not over IPv6 (RFC 8200, section 8.1).
#[inline(always)]
fn check_udp<H: Outer, P: Packet>(
    packet: &P,
    header: &H,
    udp: &UdpHeader,
    at: usize,
) -> Result<(), DecapDrop> {
    if udp.checksum == Be16::new(0) {
        return if H::NEEDS_UDP_CHECKSUM { Err(DecapDrop::NoUdpChecksum) } else { Ok(()) };
    }
    let datagram = packet.sum(at, usize::from(udp.length.get())).ok_or(DecapDrop::UdpChecksum)?;
    let pseudo = header.addresses().add(udp.length).add(Be16::new(protocol::UDP.into()));
    // What is summed up with its own checksum comes out as zero.
    if pseudo.add_sum(datagram).finish() == Be16::new(0) { Ok(()) } else { Err(DecapDrop::UdpChecksum) }
}

/// Leaves the inner packet and nothing behind it, with the frame's own header in front.
#[inline(always)]
fn uncover<P: Packet>(packet: &mut P, link: usize, inner: &Inner) -> Option<()> {
    let end = inner.at + inner.length;
    if packet.length() > end {
        packet.truncate(end)?;
    }
    let (macs, tags): (MacPair, _) = (packet.read(0)?, Link::of(packet, link));
    packet.shrink(inner.at.wrapping_sub(link))?;
    packet.write(0, macs)?;
    tags.write(packet, inner.ethertype())
}

/// What the families' outer headers differ in.
trait Outer: IpHeader {
    /// Whether UDP needs its checksum.
    const NEEDS_UDP_CHECKSUM: bool;

    /// Whether the header's own checksum is right, if it has one; it is `length` bytes long and begins at `start`.
    fn is_intact<P: Packet>(&self, packet: &P, start: usize, length: usize) -> bool;

    /// The sum of both addresses.
    fn addresses(&self) -> Sum;
}

impl Outer for Ipv4Header {
    const NEEDS_UDP_CHECKSUM: bool = false;

    #[inline(always)]
    fn is_intact<P: Packet>(&self, packet: &P, start: usize, length: usize) -> bool {
        let sum = if length == IPV4_LENGTH {
            let words: [u32; 5] = bytemuck::cast(*self);
            Some(words.into_iter().fold(Sum::default(), Sum::add_u32))
        } else {
            packet.sum(start, length)
        };
        sum.is_some_and(|sum| sum.finish() == Be16::new(0))
    }

    #[inline(always)]
    fn addresses(&self) -> Sum {
        Sum::default().add_u32(self.source.raw()).add_u32(self.destination.raw())
    }
}

impl Outer for Ipv6Header {
    const NEEDS_UDP_CHECKSUM: bool = true;

    #[inline(always)]
    fn is_intact<P: Packet>(&self, _packet: &P, _start: usize, _length: usize) -> bool {
        true
    }

    #[inline(always)]
    fn addresses(&self) -> Sum {
        let ([s0, s1], [d0, d1]) = (self.source.raw(), self.destination.raw());
        Sum::default().add_u64(s0).add_u64(s1).add_u64(d0).add_u64(d1)
    }
}
