//! Who has an announced VIP: ARP and neighbour discovery.

use super::{done, pseudo_sum};
use crate::layout::{Features, VipKey};
use crate::link::Link;
use crate::packet::Packet;
use crate::pipeline::{Tables, find};
use crate::verdict::{AnswerReason, PassReason, Refusal};
use crate::wire::{
    ArpPacket, Be16, Be32, ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, ICMP_LENGTH, IPV6_LENGTH,
    IcmpHeader, Ipv4Address, Ipv6Address, Ipv6Header, Mac, MacPair, NeighborBody, icmpv6, protocol,
};

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
