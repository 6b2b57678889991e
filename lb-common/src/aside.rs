//! The way of a packet that is for no VIP: it may ask for one's MAC address, or be a reply of a backend of mode `nat`, or an
//! ICMP error of such a backend about what a client sent.

use crate::answer;
use crate::deliver::Payload;
use crate::fragment::Piece;
use crate::icmp::{Message, Quote};
use crate::ip::{Datagram, Fragment, IpHeader, Part};
use crate::layout::{Features, REPLIES, Region, ServiceKey};
use crate::link::Link;
use crate::packet::{Onward, Packet, Routed, RoutedAddresses};
use crate::pipeline::{Found, Tables, find, refuse, sent};
use crate::translate;
use crate::transport::Segment;
use crate::verdict::{AnswerReason, DropReason, PassReason, Refusal, Verdict};
use crate::wire::{Be16, ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Ipv4Header, Ipv6Header};

/// Answers or translates a packet that is for no VIP, or leaves it to the stack: it is not dropped, be it ever so wrong.
#[inline(always)]
pub fn aside<P: Packet, T: Tables>(packet: &mut P, tables: &T) -> Verdict {
    let ingress = packet.ingress();
    match attend(packet, tables) {
        Ok(egress) => sent(ingress, egress),
        Err(refusal) => refuse(ingress, tables, refusal),
    }
}

#[inline(always)]
fn attend<P: Packet, T: Tables>(packet: &mut P, tables: &T) -> Result<u32, Refusal> {
    let (length, ethertype) = packet.link().ok_or(PassReason::ShortFrame)?;
    let link = Link::of(packet, length);
    let found = match ethertype {
        ETHERTYPE_IPV4 => returning::<Ipv4Header, P, T>(packet, tables, &link),
        ETHERTYPE_IPV6 => {
            if let Some(refusal) = answer::neighbor(packet, tables, &link) {
                return Err(refusal);
            }
            returning::<Ipv6Header, P, T>(packet, tables, &link)
        }
        ETHERTYPE_ARP => return Err(answer::arp(packet, tables, &link)),
        _ => return Err(PassReason::NotIp.into()),
    };
    from_backend(packet, tables, &link, &found?)
}

/// Tells whether the packet may be a reply from a backend.
#[inline(always)]
fn returning<H: IpHeader, P: Packet, T: Tables>(
    packet: &P,
    tables: &T,
    link: &Link,
) -> Result<Found, PassReason> {
    let header: H = packet.read(link.length).ok_or(PassReason::ShortFrame)?;
    if find(tables, header.destination_key()).is_some_and(Region::is_vip) {
        // It asked for a MAC address, or so it seemed.
        return Err(PassReason::OtherProtocol);
    }
    if !tables.features().any(Features::REPLIES) {
        return Err(PassReason::NotForVip);
    }
    let region = find(tables, header.source_key()).filter(|region| !region.is_vip());
    let region = region.ok_or(PassReason::NotForVip)?;
    let (datagram, fragment) =
        header.any(packet, link.length, tables.hash_key()).map_err(|_| PassReason::NotForVip)?;
    Ok(Found { region, datagram, fragment })
}

/// Makes a backend's reply come from its VIP, and sends it on by the host's routes.
#[inline(always)]
fn from_backend<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    link: &Link,
    Found { region, datagram, fragment }: &Found,
) -> Result<u32, Refusal> {
    let (index, payload) = match fragment.part {
        Part::Later => {
            let hash = datagram.fragments(tables.hash_key(), fragment.identification);
            match tables.recall_fragment(hash).map(Piece::from_word) {
                Some(Piece::ToClient(index)) => (index, Payload::LaterPiece),
                _ => return Err(PassReason::NotForVip.into()),
            }
        }
        _ => reply(packet, tables, link, *region, datagram, fragment).ok_or(PassReason::NotForVip)?,
    };
    let service = tables.service(index).ok_or(DropReason::Inconsistent)?;
    if service.flags & REPLIES == 0 {
        return Err(PassReason::NotForVip.into());
    }
    let hops = Hops::of(packet, link, datagram).filter(|hops| hops.left > 1).ok_or(PassReason::NotForVip)?;
    // What is for the host itself, such as the answer to a health check, stays as it is.
    let routed = routed(packet, link, datagram).ok_or(PassReason::NotForVip)?;
    let onward = packet.route(&routed);
    // Nor does what the host has to tell the backend that it is too big: the backend knows no flow from the VIP.
    let may_fragment = datagram.outer_fragment == Be16::new(0);
    if onward == Onward::Nowhere || onward == Onward::TooBig && !may_fragment {
        return Err(PassReason::NotForVip.into());
    }
    translate::to_client(packet, link.length, datagram, payload, service).ok_or(DropReason::Inconsistent)?;
    if fragment.part == Part::First {
        tables.remember_fragment(
            datagram.fragments(tables.hash_key(), fragment.identification),
            Piece::ToClient(index).word(),
        );
    }
    let Onward::Hop(hop) = onward else { return Err(PassReason::Reply.into()) };
    hops.spend(packet).ok_or(DropReason::Inconsistent)?;
    packet.write(0, hop.macs).ok_or(DropReason::Inconsistent)?;
    tables.count_reason(packet.ingress(), AnswerReason::Reply.counter());
    Ok(hop.interface)
}

/// Where the translation of a reply stands, and what it carries: a segment, or an ICMP error about a packet of the client's.
#[inline(always)]
fn reply<P: Packet, T: Tables>(
    packet: &P,
    tables: &T,
    link: &Link,
    region: Region,
    datagram: &Datagram,
    fragment: &Fragment,
) -> Option<(u32, Payload)> {
    let whole = fragment.part == Part::Whole;
    let message = if whole { Message::parse(packet, link, datagram).ok()? } else { None };
    let (payload, key) = if message == Some(Message::Error) {
        let quote = Quote::parse(packet, link, datagram, tables.hash_key()).ok()?;
        // It quotes a packet between the same two.
        if quote.addresses != datagram.addresses {
            return None;
        }
        (Payload::Error(quote), ServiceKey::new(quote.protocol, quote.ports.source()))
    } else {
        let ports = Segment::parse(packet, link.length, datagram, whole).ok()?.ports;
        (Payload::Segment(ports), ServiceKey::new(datagram.protocol, ports.source()))
    };
    let index = region.index(key);
    let index = if tables.service(index)?.key == key { index } else { region.wildcard(key) };
    let entry = tables.service(index)?;
    let same = entry.key == key || entry.key == key.any_port();
    same.then_some((index, payload))
}

/// The hops that a packet may still make: who routes it takes one (RFC 1812, section 5.3.1).
struct Hops {
    at: usize,
    left: u8,
    is_ipv6: bool,
}

impl Hops {
    #[inline(always)]
    fn of<P: Packet>(packet: &P, link: &Link, datagram: &Datagram) -> Option<Self> {
        let at = link.length + if datagram.is_ipv6 { 7 } else { 8 };
        Some(Self { at, left: packet.read(at)?, is_ipv6: datagram.is_ipv6 })
    }

    #[inline(always)]
    fn spend<P: Packet>(self, packet: &mut P) -> Option<()> {
        packet.write(self.at, self.left - 1)?;
        if self.is_ipv6 {
            return Some(());
        }
        let checksum: Be16 = packet.read(self.at + 2)?;
        let word = |hops: u8| Be16::new(u16::from(hops) << 8);
        packet.write(self.at + 2, crate::checksum::replace(checksum, word(self.left), word(self.left - 1)))
    }
}

/// What the host's routes are asked about a packet.
#[inline(always)]
fn routed<P: Packet>(packet: &P, link: &Link, datagram: &Datagram) -> Option<Routed> {
    let addresses = if datagram.is_ipv6 {
        let header: Ipv6Header = packet.read(link.length)?;
        RoutedAddresses::V6(header.source, header.destination)
    } else {
        let header: Ipv4Header = packet.read(link.length)?;
        RoutedAddresses::V4(header.source, header.destination)
    };
    Some(Routed { addresses, tos: datagram.tos, protocol: datagram.protocol, length: datagram.length as u16 })
}
