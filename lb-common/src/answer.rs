//! What the program answers by itself: echo requests, packets that are too big, and who has an announced VIP.
//!
//! An answer is made of the frame that asked, and leaves by the interface it came in by. Answers that cost more than they
//! were asked with are limited per source, in the buckets of the limiter, under a number that no service has.

use crate::checksum::{Sum, replace};
use crate::icmp::Message;
use crate::ip::{Datagram, Fragment, IpHeader, Part};
use crate::layout::{Features, VipKey};
use crate::limiter::rule::Rule;
use crate::limiter::{Admission, Sets, charge};
use crate::link::Link;
use crate::packet::Packet;
use crate::pipeline::{Clock, Tables, find, source_of};
use crate::verdict::{AnswerReason, DropReason, PassReason, Refusal};
use crate::wire::{
    ArpPacket, Be16, Be32, ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, ICMP_LENGTH, IPV4_LENGTH,
    IPV6_LENGTH, IcmpHeader, Ipv4Address, Ipv4Header, Ipv6Address, Ipv6Header, Mac, MacPair, NeighborBody,
    icmp, icmpv6, protocol,
};

/// The salt of the limiter of answers, which no other limiter has.
pub const SALT: u32 = u32::MAX;
/// Each source gets 100 answers a second, and 100 at once.
const LIMIT: Rule = match Rule::token_bucket(100, 100) {
    Ok(rule) => rule,
    Err(_) => panic!("the limit is within the limiter's bounds"),
};

/// Hops that an answer starts with (IANA's recommended default).
const TTL: u8 = 64;

/// Whether a source may have another answer.
#[inline(always)]
pub fn affords<T: Tables>(tables: &T, source: u64) -> bool {
    let hash = tables.hash_key().source([source, 0], SALT);
    let set = Sets::of_ticks(tables.bucket_sets()).find(hash);
    let Some(buckets) = tables.buckets(set) else { return false };
    charge(&buckets, hash, tables.now(Clock::Jiffies), &LIMIT, 1) != Admission::Limited
}

#[inline(always)]
fn done(written: Option<()>, answer: AnswerReason) -> Refusal {
    match written {
        Some(()) => Refusal::Answer(answer),
        None => DropReason::Inconsistent.into(),
    }
}

/// Whether a packet is from one host and to one host: others are not answered (RFC 1122, section 3.2.2; RFC 4443,
/// section 2.4 (e)).
#[inline(always)]
fn is_between_hosts<P: Packet>(packet: &P, link: &Link, is_ipv6: bool) -> bool {
    let from_host = if is_ipv6 {
        packet.read::<Ipv6Header>(link.length).is_some_and(|header| header.source.is_host())
    } else {
        packet.read::<Ipv4Header>(link.length).is_some_and(|header| header.source.is_host())
    };
    from_host && packet.read::<MacPair>(0).is_some_and(|macs| !macs.is_to_group())
}

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

/// The sum over the pseudo header of an `ICMPv6` message (RFC 8200, section 8.1).
#[inline(always)]
fn pseudo_sum(ip: &Ipv6Header) -> Sum {
    let ([s0, s1], [d0, d1]) = (ip.source.raw(), ip.destination.raw());
    let addresses = Sum::default().add_u64(s0).add_u64(s1).add_u64(d0).add_u64(d1);
    addresses.add(ip.payload_length).add(Be16::new(protocol::ICMPV6.into()))
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

/// Whether an address is one for which the program answers.
#[inline(always)]
fn is_announced<T: Tables>(tables: &T, key: VipKey) -> bool {
    find(tables, key).is_some_and(|region| region.is_vip() && region.is_announced())
}

/// The MAC address of the interface on which the packet came, if VIPs are announced there.
#[inline(always)]
fn own_mac<P: Packet, T: Tables>(packet: &P, tables: &T) -> Option<Mac> {
    let interface = tables.interface(packet.ingress())?;
    (interface.known != 0).then_some(interface.mac)
}

/// Answers who asks by ARP for an announced VIP (RFC 826). Every other ARP packet goes up the stack.
#[inline(always)]
pub fn arp<P: Packet, T: Tables>(packet: &mut P, tables: &T, link: &Link) -> Refusal {
    if !tables.features().any(Features::ANNOUNCED) {
        return PassReason::NotIp.into();
    }
    arp_reply(packet, tables, link).unwrap_or(PassReason::NotIp.into())
}

#[inline(always)]
fn arp_reply<P: Packet, T: Tables>(packet: &mut P, tables: &T, link: &Link) -> Option<Refusal> {
    let request: ArpPacket = packet.read(link.length)?;
    let of_ipv4 = request.hardware == Be16::new(1)
        && request.protocol == ETHERTYPE_IPV4
        && request.lengths == ArpPacket::LENGTHS
        && request.operation == Be16::new(1);
    // Somebody who announces the address as his own (RFC 5227, section 3) asks nothing. Who has none yet asks as 0.0.0.0.
    let sender = ArpPacket::address(request.sender);
    let by_somebody = sender.is_host() || sender.raw() == 0;
    if !of_ipv4 || !by_somebody || request.sender == request.target {
        return None;
    }
    let target: Ipv4Address = ArpPacket::address(request.target);
    if !is_announced(tables, VipKey::v4(target)) {
        return None;
    }
    let mac = own_mac(packet, tables)?;
    if !tables.affords(u64::from(sender.word())) {
        return Some(PassReason::Unanswered.into());
    }
    let reply = ArpPacket {
        operation: Be16::new(2),
        sender_mac: mac,
        sender: request.target,
        target_mac: request.sender_mac,
        target: request.sender,
        ..request
    };
    let written = packet.write(link.length, reply);
    let written = written.and_then(|()| packet.write(0, MacPair::of(request.sender_mac, mac)));
    Some(done(written.and_then(|()| link.write(packet, ETHERTYPE_ARP)), AnswerReason::Arp))
}

/// A neighbour advertisement: the whole packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Advertisement {
    ip: Ipv6Header,
    icmp: IcmpHeader,
    body: NeighborBody,
}

impl Advertisement {
    /// The flag of an advertisement that was asked for (RFC 4861, section 4.4).
    const SOLICITED: u32 = 1 << 30;
    /// The flag of one that is to be preferred to what is known.
    pub const OVERRIDE: u32 = 1 << 29;

    /// Tells `destination` that `target`, which is the sender too, has this MAC address.
    #[inline(always)]
    pub fn new(target: Ipv6Address, mac: Mac, destination: Ipv6Address, flags: u32) -> Self {
        let ip = Ipv6Header {
            version_class_flow: Be32::new(6 << 28),
            payload_length: Be16::new((size_of::<Self>() - IPV6_LENGTH) as u16),
            next_header: protocol::ICMPV6,
            hop_limit: FROM_LINK,
            source: target,
            destination,
        };
        let body = NeighborBody { target, option: TARGET_MAC, mac };
        let (kind, checksum) = (icmpv6::ADVERTISEMENT, Be16::new(0));
        let mut icmp = IcmpHeader { kind, code: 0, checksum, rest: Be32::new(flags) };
        let [a, b, c]: [u64; 3] = bytemuck::cast(body);
        let sum = pseudo_sum(&ip).add_u64(bytemuck::cast(icmp)).add_u64(a).add_u64(b).add_u64(c);
        icmp.checksum = sum.finish();
        Self { ip, icmp, body }
    }
}

/// Option 2, target link-layer address, one unit long.
const TARGET_MAC: Be16 = Be16::new(0x0201);
/// Hop limit that proves that a packet is from the link (RFC 4861, section 7.1.1).
const FROM_LINK: u8 = 255;
/// All nodes on the link (RFC 4291, section 2.7.1).
pub const ALL_NODES: [u8; 16] = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
/// The MAC address of [`ALL_NODES`] (RFC 2464, section 7).
pub const ALL_NODES_MAC: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];

/// Bytes of a neighbour solicitation without options.
const SOLICITATION: usize = ICMP_LENGTH + size_of::<Ipv6Address>();
/// Option 1, source link-layer address.
const SOURCE_MAC: u16 = 1;

/// Whether a solicitation's option has a length, and whether who has no address yet asks as he should (RFC 4861, section
/// 7.1.1). Of several options, which nobody sends, the first is looked at.
#[inline(always)]
fn is_sound<P: Packet>(packet: &P, link: &Link, ip: &Ipv6Header, target: Ipv6Address) -> bool {
    let option = if usize::from(ip.payload_length.get()) > SOLICITATION {
        packet.read::<Be16>(link.length + IPV6_LENGTH + SOLICITATION).map_or(0, Be16::get)
    } else {
        // None, but one with a length.
        1
    };
    let has_length = option & 0xff != 0;
    let by_nobody = ip.destination == target.solicited_node() && option >> 8 != SOURCE_MAC;
    has_length && (ip.source.is_host() || ip.source.is_unspecified() && by_nobody)
}

/// Answers a neighbour solicitation for an announced VIP (RFC 4861, section 7.2.4); `None` for any other packet.
#[inline(always)]
pub fn neighbor<P: Packet, T: Tables>(packet: &mut P, tables: &T, link: &Link) -> Option<Refusal> {
    if !tables.features().any(Features::ANNOUNCED) {
        return None;
    }
    let ip: Ipv6Header = packet.read(link.length)?;
    let icmp: IcmpHeader = packet.read(link.length + IPV6_LENGTH)?;
    if ip.next_header != protocol::ICMPV6 || ip.hop_limit != FROM_LINK || icmp.kind != icmpv6::SOLICITATION {
        return None;
    }
    let target: Ipv6Address = packet.read(link.length + IPV6_LENGTH + ICMP_LENGTH)?;
    let length = usize::from(ip.payload_length.get());
    if icmp.code != 0
        || length < SOLICITATION
        || !is_announced(tables, VipKey::v6(target))
        || !is_sound(packet, link, &ip, target)
    {
        return None;
    }
    let sum = packet.sum(link.length + IPV6_LENGTH, length)?;
    if pseudo_sum(&ip).add_sum(sum).finish() != Be16::new(0) {
        return None;
    }
    let mac = own_mac(packet, tables)?;
    // All hosts of a link share the first half of their link-local addresses.
    let [_, host] = ip.source.words();
    if !tables.affords(host) {
        return Some(PassReason::Unanswered.into());
    }
    Some(done(advertise(packet, link, &ip, target, mac), AnswerReason::Neighbor))
}

#[inline(always)]
fn advertise<P: Packet>(
    packet: &mut P,
    link: &Link,
    request: &Ipv6Header,
    target: Ipv6Address,
    mac: Mac,
) -> Option<()> {
    let asker: MacPair = packet.read(0)?;
    // Who has no address yet asks whether somebody else has it, and listens to the group (RFC 4862, section 5.4).
    let (destination, to, flags) = if request.source.is_unspecified() {
        (Ipv6Address::new(ALL_NODES), Mac::new(ALL_NODES_MAC), Advertisement::OVERRIDE)
    } else {
        (request.source, asker.source(), Advertisement::SOLICITED | Advertisement::OVERRIDE)
    };
    // A solicitation without the option is eight bytes shorter.
    let length = link.length + size_of::<Advertisement>();
    if packet.length() < length {
        packet.grow(length - packet.length())?;
    }
    packet.truncate(length)?;
    packet.write(link.length, Advertisement::new(target, mac, destination, flags))?;
    packet.write(0, MacPair::of(to, mac))?;
    link.write(packet, ETHERTYPE_IPV6)
}
