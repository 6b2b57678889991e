//! IP headers: first the destination alone, to tell whether a packet is ours; then, for ours, everything else.
//!
//! The order is a promise: what is not for a VIP is never judged, so it is never dropped, whatever it looks like.

use bytemuck::AnyBitPattern;

use crate::hash::HashKey;
use crate::layout::VipKey;
use crate::packet::Packet;
use crate::verdict::DropReason;
use crate::wire::{
    Be16, Be32, ETHERNET_LENGTH, ExtensionStart, FragmentHeader, IPV4_DF, IPV4_FRAGMENT, IPV4_LENGTH,
    IPV4_MF, IPV6_LENGTH, Ipv4Header, Ipv6Header, protocol,
};

/// What the rest of the pipeline needs of an IP packet, alike for both families.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// Whether it is IPv6.
    pub is_ipv6: bool,
    /// Both addresses, hashed; see [`HashKey::flow`].
    pub addresses: u64,
    /// IP header and payload in bytes.
    pub length: usize,
    /// Where the transport header begins, from the start of the IP header.
    pub header: usize,
    /// The transport protocol.
    pub protocol: u8,
    /// DSCP and ECN.
    pub tos: u8,
    /// Flags of an outer IPv4 header: DF if this packet has it, always for IPv6, which routers never fragment.
    pub outer_fragment: Be16,
    /// Identification of an outer IPv4 header: that of the packet, 0 for IPv6.
    pub outer_identification: Be16,
}

impl Datagram {
    /// The hash that all fragments of this packet have in common. The protocol is a part of it in IPv4 (RFC 791, section 3.2);
    /// in IPv6 a later fragment does not know what stands behind the extension headers of the first (RFC 8200, section 4.5).
    #[inline(always)]
    pub fn fragments(&self, key: &HashKey, identification: usize) -> u64 {
        let protocol = if self.is_ipv6 { protocol::IPV6_FRAGMENT } else { self.protocol };
        key.fragments(self.addresses, identification, protocol)
    }

    /// Whether TCP or UDP may follow, as far as a later fragment can tell.
    #[inline(always)]
    pub const fn may_have_ports(&self) -> bool {
        matches!(
            self.protocol,
            protocol::TCP
                | protocol::UDP
                | protocol::IPV6_HOP_BY_HOP
                | protocol::IPV6_ROUTING
                | protocol::IPV6_DESTINATION
                | protocol::AUTHENTICATION
        )
    }

    /// The protocol number by which a tunnel announces this packet (RFC 2003, RFC 4213).
    #[inline(always)]
    pub const fn encapsulated(&self) -> u8 {
        if self.is_ipv6 { protocol::IPV6 } else { protocol::IPIP }
    }
}

/// Which part a packet is of the one that its sender cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All of it.
    Whole,
    /// Its beginning, which has the ports.
    First,
    /// What follows.
    Later,
}

/// What a packet says about fragmentation. Its fields always have a value and are as wide as registers, since the compiler
/// carries them through the program, and the verifier wants to see every value set and every stack access aligned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// Which part it is.
    pub part: Part,
    /// The same for all fragments of a packet.
    pub identification: usize,
    /// Where it belongs, in bytes.
    pub offset: usize,
}

impl Fragment {
    #[inline(always)]
    fn new(identification: usize, offset: usize, more: bool) -> Self {
        let part = match (offset, more) {
            (0, false) => Part::Whole,
            (0, true) => Part::First,
            _ => Part::Later,
        };
        Self { part, identification, offset }
    }
}

/// How long an IP packet and its header are, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The header, without IPv6's extensions.
    pub header: usize,
    /// Header and payload.
    pub length: usize,
}

/// An IP header of either family.
pub trait IpHeader: AnyBitPattern {
    /// Checks the version and the lengths of a packet for which there are `room` bytes.
    fn extent(&self, room: usize) -> Result<Extent, DropReason>;

    /// The address that the packet is for, to be looked up among the VIPs.
    fn destination_key(&self) -> VipKey;

    /// The address that the packet is from.
    fn source_key(&self) -> VipKey;

    /// Whether it may be a neighbour solicitation, which in IPv6 is an IP packet.
    fn may_ask_for_neighbor(&self) -> bool;

    /// Checks an untagged packet of the usual kind, whole and without options or extensions, and gathers the rest.
    ///
    /// `None` for any other packet, be it merely unusual or wrong.
    fn usual<P: Packet>(&self, packet: &P, key: &HashKey) -> Option<Datagram>;

    /// Checks any packet whose IP header begins at `start`, and gathers the rest.
    fn any<P: Packet>(
        &self,
        packet: &P,
        start: usize,
        key: &HashKey,
    ) -> Result<(Datagram, Fragment), DropReason>;
}

impl Ipv4Header {
    #[inline(always)]
    fn datagram(&self, header: usize, key: &HashKey) -> Datagram {
        Datagram {
            is_ipv6: false,
            addresses: key.ipv4(self.source, self.destination),
            length: usize::from(self.total_length.get()),
            header,
            protocol: self.protocol,
            tos: self.tos,
            outer_fragment: self.fragment.and(IPV4_DF),
            outer_identification: self.identification,
        }
    }
}

impl IpHeader for Ipv4Header {
    #[inline(always)]
    fn extent(&self, room: usize) -> Result<Extent, DropReason> {
        // RFC 791, section 3.1: version 4 and at least five words of header.
        let header = usize::from(self.version_ihl & 0x0f) * 4;
        if self.version_ihl >> 4 != 4 || header < IPV4_LENGTH {
            return Err(DropReason::IpHeader);
        }
        let length = usize::from(self.total_length.get());
        if length < header || length > room {
            Err(DropReason::IpLength)
        } else {
            Ok(Extent { header, length })
        }
    }

    #[inline(always)]
    fn destination_key(&self) -> VipKey {
        VipKey::v4(self.destination)
    }

    #[inline(always)]
    fn source_key(&self) -> VipKey {
        VipKey::v4(self.source)
    }

    #[inline(always)]
    fn may_ask_for_neighbor(&self) -> bool {
        false
    }

    #[inline(always)]
    fn usual<P: Packet>(&self, packet: &P, key: &HashKey) -> Option<Datagram> {
        let plain = self.version_ihl == 0x45 && self.fragment.and(IPV4_FRAGMENT) == Be16::new(0);
        let length = usize::from(self.total_length.get());
        let sound = length >= IPV4_LENGTH && packet.holds(ETHERNET_LENGTH + length);
        (plain && sound).then(|| self.datagram(IPV4_LENGTH, key))
    }

    #[inline(always)]
    fn any<P: Packet>(
        &self,
        packet: &P,
        start: usize,
        key: &HashKey,
    ) -> Result<(Datagram, Fragment), DropReason> {
        let Extent { header, .. } = self.extent(packet.length().wrapping_sub(start))?;
        let datagram = self.datagram(header, key);
        let offset = usize::from(self.fragment.get() & IPV4_OFFSET) * 8;
        let more = self.fragment.and(IPV4_MF) != Be16::new(0);
        let fragment = Fragment::new(usize::from(self.identification.get()), offset, more);
        check_reach(offset, datagram.length - header)?;
        Ok((datagram, fragment))
    }
}

/// The offset in an IPv4 header's fragment field, in units of eight bytes.
const IPV4_OFFSET: u16 = 0x1fff;

/// A fragment that would reach beyond the longest packet there can be is an attack of old (RFC 791, section 3.2).
#[inline(always)]
fn check_reach(offset: usize, payload: usize) -> Result<(), DropReason> {
    if offset + payload > 0xffff { Err(DropReason::IpLength) } else { Ok(()) }
}

impl Ipv6Header {
    #[inline(always)]
    fn datagram(&self, header: usize, protocol: u8, key: &HashKey) -> Datagram {
        Datagram {
            is_ipv6: true,
            addresses: key.ipv6(self.source, self.destination),
            length: IPV6_LENGTH + usize::from(self.payload_length.get()),
            header,
            protocol,
            tos: self.tos(),
            outer_fragment: IPV4_DF,
            outer_identification: Be16::new(0),
        }
    }

    /// Its traffic class: DSCP and ECN.
    #[inline(always)]
    pub fn tos(&self) -> u8 {
        (self.version_class_flow.get() >> 20) as u8
    }

    #[inline(always)]
    fn is_version_6(&self) -> bool {
        self.version_class_flow.and(Be32::new(0xf000_0000)) == Be32::new(0x6000_0000)
    }
}

impl IpHeader for Ipv6Header {
    #[inline(always)]
    fn extent(&self, room: usize) -> Result<Extent, DropReason> {
        if !self.is_version_6() {
            return Err(DropReason::IpHeader);
        }
        let length = IPV6_LENGTH + usize::from(self.payload_length.get());
        if length > room { Err(DropReason::IpLength) } else { Ok(Extent { header: IPV6_LENGTH, length }) }
    }

    #[inline(always)]
    fn destination_key(&self) -> VipKey {
        VipKey::v6(self.destination)
    }

    #[inline(always)]
    fn source_key(&self) -> VipKey {
        VipKey::v6(self.source)
    }

    #[inline(always)]
    fn may_ask_for_neighbor(&self) -> bool {
        self.next_header == protocol::ICMPV6
    }

    #[inline(always)]
    fn usual<P: Packet>(&self, packet: &P, key: &HashKey) -> Option<Datagram> {
        // What is neither TCP nor UDP is told apart where ports are read.
        let length = IPV6_LENGTH + usize::from(self.payload_length.get());
        let plain = self.is_version_6() && packet.holds(ETHERNET_LENGTH + length);
        plain.then(|| self.datagram(IPV6_LENGTH, self.next_header, key))
    }

    #[inline(always)]
    fn any<P: Packet>(
        &self,
        packet: &P,
        start: usize,
        key: &HashKey,
    ) -> Result<(Datagram, Fragment), DropReason> {
        let Extent { length, .. } = self.extent(packet.length().wrapping_sub(start))?;
        let extensions = packet.extensions(start, self.next_header).ok_or(DropReason::ExtensionHeader)?;
        let (header, protocol, fragment) =
            (extensions.header(), extensions.protocol(), extensions.fragment());
        if header > length {
            return Err(DropReason::IpLength);
        }
        check_reach(fragment.offset, length - header)?;
        Ok((self.datagram(header, protocol, key), fragment))
    }
}

/// Extension headers that are walked through. A packet with more is dropped: nobody sends it for a good reason.
const EXTENSIONS: usize = 8;
/// Where they begin at the latest, in a frame: quoted ones stand behind others.
const FURTHEST: usize = 0xfff;

/// What stands behind an IPv6 header's extension headers, in one word.
///
/// Header length in units of four bytes in bits 0-12, protocol in 16-23, offset in units of eight bytes in 24-36,
/// more-fragments flag in 37; above that 24 bits of the identification, which is
/// enough for a hash: it is looked up with both addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extensions(u64);

impl Extensions {
    const OFFSET: u32 = 24;
    const MORE: u32 = 37;
    const IDENTIFICATION: u32 = 38;

    const fn new(header: usize, protocol: u8) -> Self {
        Self((header / 4) as u64 & 0x1fff | (protocol as u64) << 16)
    }

    /// The word, never all ones.
    #[inline(always)]
    pub const fn word(self) -> u64 {
        self.0
    }

    /// From a word.
    #[inline(always)]
    pub const fn from_word(word: u64) -> Self {
        Self(word)
    }

    /// Where they end, from the start of the IP header.
    #[inline(always)]
    pub const fn header(self) -> usize {
        (self.0 & 0x1fff) as usize * 4
    }

    /// What follows them.
    #[inline(always)]
    pub const fn protocol(self) -> u8 {
        (self.0 >> 16) as u8
    }

    /// What the fragment header among them said.
    #[inline(always)]
    pub fn fragment(self) -> Fragment {
        let offset = (self.0 >> Self::OFFSET & 0x1fff) as usize * 8;
        Fragment::new((self.0 >> Self::IDENTIFICATION) as usize, offset, self.0 >> Self::MORE & 1 != 0)
    }

    /// Walks through the extension headers (RFC 8200, section 4) of the packet whose IP header begins at `start`; `None` if
    /// one is cut off, or there are too many, or they begin too late.
    ///
    /// Behind the fragment header of a later fragment there are no headers but pieces of them.
    #[inline(always)]
    pub fn walk<P: Packet>(packet: &P, start: usize, next: u8) -> Option<Self> {
        if start > FURTHEST {
            return None;
        }
        let (mut header, mut next, mut seen) = (IPV6_LENGTH, next, 0);
        // One round more, to see what follows the last of them.
        for _ in 0..=EXTENSIONS {
            match next {
                protocol::IPV6_FRAGMENT => {
                    let fragment: FragmentHeader = packet.read(start + header)?;
                    seen = Self::fragment_bits(fragment);
                    next = fragment.next_header;
                    header += size_of::<FragmentHeader>();
                    if fragment.offset.get() & 0xfff8 != 0 {
                        return Some(Self(Self::new(header, next).0 | seen));
                    }
                }
                protocol::IPV6_HOP_BY_HOP
                | protocol::IPV6_ROUTING
                | protocol::IPV6_DESTINATION
                | protocol::AUTHENTICATION => {
                    let extension: ExtensionStart = packet.read(start + header)?;
                    let length = usize::from(extension.length);
                    let short = next == protocol::AUTHENTICATION;
                    header += if short { (length + 2) * 4 } else { (length + 1) * 8 };
                    next = extension.next_header;
                }
                _ => return Some(Self(Self::new(header, next).0 | seen)),
            }
        }
        None
    }

    #[inline(always)]
    const fn fragment_bits(header: FragmentHeader) -> u64 {
        let offset = header.offset.get() as u64;
        let identification = header.identification.get() as u64;
        // Folded, so that no bit of it is lost.
        let folded = (identification ^ identification >> 24) & 0xff_ffff;
        offset >> 3 << Self::OFFSET | (offset & 1) << Self::MORE | folded << Self::IDENTIFICATION
    }
}
