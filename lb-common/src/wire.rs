//! Header shapes as they are on the wire: integers of their natural width, without padding.
//!
//! Each field is one integer, never a byte array: LLVM then moves headers between packet, registers and stack in aligned
//! pieces, which the verifier demands of the stack. In a packet they may stand at any address.

use bytemuck::{Pod, Zeroable};

/// A 16-bit integer in network byte order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(transparent)]
pub struct Be16(u16);

impl Be16 {
    /// From host order.
    #[inline(always)]
    pub const fn new(value: u16) -> Self {
        Self(value.to_be())
    }

    /// In host order.
    #[inline(always)]
    pub const fn get(self) -> u16 {
        u16::from_be(self.0)
    }

    /// The integer as it lies in memory.
    #[inline(always)]
    pub const fn raw(self) -> u16 {
        self.0
    }

    /// From an integer as it lies in memory.
    #[inline(always)]
    pub const fn from_raw(raw: u16) -> Self {
        Self(raw)
    }

    /// The bits that both have.
    #[inline(always)]
    #[must_use]
    pub const fn and(self, mask: Self) -> Self {
        Self(self.0 & mask.0)
    }
}

/// A 32-bit integer in network byte order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(transparent)]
pub struct Be32(u32);

impl Be32 {
    /// From host order.
    #[inline(always)]
    pub const fn new(value: u32) -> Self {
        Self(value.to_be())
    }

    /// In host order.
    #[inline(always)]
    pub const fn get(self) -> u32 {
        u32::from_be(self.0)
    }

    /// The integer as it lies in memory.
    #[inline(always)]
    pub const fn raw(self) -> u32 {
        self.0
    }

    /// The bits that both have.
    #[inline(always)]
    #[must_use]
    pub const fn and(self, mask: Self) -> Self {
        Self(self.0 & mask.0)
    }
}

/// A MAC address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(transparent)]
pub struct Mac([u16; 3]);

impl Mac {
    /// From its bytes.
    pub fn new(bytes: [u8; 6]) -> Self {
        bytemuck::cast(bytes)
    }
}

/// An IPv4 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(transparent)]
pub struct Ipv4Address(u32);

impl Ipv4Address {
    /// From its bytes.
    pub const fn new(bytes: [u8; 4]) -> Self {
        Self(u32::from_ne_bytes(bytes))
    }

    /// Its bytes as a little-endian word, the same number on every host.
    #[inline(always)]
    pub const fn word(self) -> u32 {
        u32::from_le(self.0)
    }

    /// Its bytes as they lie in memory.
    #[inline(always)]
    pub const fn raw(self) -> u32 {
        self.0
    }

    /// The address with the bits of `mask` taken from `bits` instead.
    #[inline(always)]
    #[must_use]
    pub const fn with_bits(self, mask: Be32, bits: u32) -> Self {
        Self(self.0 | bits & mask.raw())
    }

    /// Whether one host on the network has it: neither multicast (RFC 1112) nor broadcast, "this network" or loopback
    /// (RFC 1122, section 3.2.1.3).
    #[inline(always)]
    pub const fn is_host(self) -> bool {
        let first = u32::from_be(self.0) >> 24;
        first != 0 && first != 127 && first < 224
    }
}

/// An IPv6 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(transparent)]
pub struct Ipv6Address([u64; 2]);

impl Ipv6Address {
    /// From its bytes.
    pub fn new(bytes: [u8; 16]) -> Self {
        bytemuck::cast(bytes)
    }

    /// Its bytes as little-endian words, the same numbers on every host.
    #[inline(always)]
    pub const fn words(self) -> [u64; 2] {
        [u64::from_le(self.0[0]), u64::from_le(self.0[1])]
    }

    /// Its bytes as they lie in memory.
    #[inline(always)]
    pub const fn raw(self) -> [u64; 2] {
        self.0
    }

    /// The address with the bits of `mask` among its last 32 taken from `bits` instead.
    #[inline(always)]
    #[must_use]
    pub const fn with_bits(self, mask: Be32, bits: u32) -> Self {
        let low = ((bits & mask.raw()) as u64).to_le() << 32;
        Self([self.0[0], self.0[1] | u64::from_le(low)])
    }

    /// Whether one host on the network has it: it is neither multicast nor unspecified nor loopback (RFC 4291, sections 2.7,
    /// 2.5.2 and 2.5.3).
    #[inline(always)]
    pub const fn is_host(self) -> bool {
        let [high, low] = self.words();
        high as u8 != 0xff && (high != 0 || low & !(1 << 56) != 0)
    }

    /// The group in which a neighbour with this address is asked for (RFC 4291, section 2.7.1).
    #[inline(always)]
    #[must_use]
    pub const fn solicited_node(self) -> Self {
        // ff02::1:ff00:0 and the last three bytes.
        let low = self.words()[1] & 0xffff_ff00_0000_0000 | 0xff_0100_0000;
        Self([0x02ff_u64.to_le(), low.to_le()])
    }

    /// Whether it is the unspecified address (RFC 4291, section 2.5.2).
    #[inline(always)]
    pub const fn is_unspecified(self) -> bool {
        self.0[0] | self.0[1] == 0
    }
}

/// Source and destination port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(transparent)]
pub struct Ports(Be32);

impl Ports {
    /// From both numbers.
    pub const fn new(source: u16, destination: u16) -> Self {
        Self(Be32::new((source as u32) << 16 | destination as u32))
    }

    /// Both, the source in the upper half.
    #[inline(always)]
    pub const fn word(self) -> u32 {
        self.0.get()
    }

    /// The port that the packet is for.
    #[inline(always)]
    pub const fn destination(self) -> u16 {
        self.0.get() as u16
    }

    /// The port that the packet is from.
    #[inline(always)]
    pub const fn source(self) -> u16 {
        (self.0.get() >> 16) as u16
    }

    /// Both as they lie in memory.
    #[inline(always)]
    pub const fn raw(self) -> u32 {
        self.0.raw()
    }

    /// The ports of a packet that goes the other way.
    #[inline(always)]
    #[must_use]
    pub const fn reversed(self) -> Self {
        Self::new(self.destination(), self.source())
    }
}

/// Destination and source MAC address as a frame begins with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(transparent)]
pub struct MacPair([u32; 3]);

impl MacPair {
    /// From four bytes each, as they lie in memory.
    #[inline(always)]
    pub const fn from_words(words: [u32; 3]) -> Self {
        Self(words)
    }

    /// From the bytes of both.
    pub fn new(destination: [u8; 6], source: [u8; 6]) -> Self {
        let mut bytes = [0; 12];
        bytes[..6].copy_from_slice(&destination);
        bytes[6..].copy_from_slice(&source);
        bytemuck::cast(bytes)
    }

    /// From both.
    #[inline(always)]
    pub const fn of(destination: Mac, source: Mac) -> Self {
        let (Mac([d0, d1, d2]), Mac([s0, s1, s2])) = (destination, source);
        Self([join(d0, d1), join(d2, s0), join(s1, s2)])
    }

    /// The addresses of a frame that goes the other way.
    #[inline(always)]
    #[must_use]
    pub const fn reversed(self) -> Self {
        let [a, b, c] = self.0;
        let ((d0, d1), (d2, s0), (s1, s2)) = (split(a), split(b), split(c));
        Self([join(s0, s1), join(s2, d0), join(d1, d2)])
    }

    /// Whether the receiver is a group of stations, or all (IEEE 802, section 8.2).
    #[inline(always)]
    pub const fn is_to_group(self) -> bool {
        u32::from_le(self.0[0]) & 1 != 0
    }

    /// The sender.
    #[inline(always)]
    pub const fn source(self) -> Mac {
        let [_, b, c] = self.0;
        let ((_, s0), (s1, s2)) = (split(b), split(c));
        Mac([s0, s1, s2])
    }
}

/// Two integers that lie one behind the other, as one.
#[inline(always)]
const fn join(first: u16, second: u16) -> u32 {
    u32::from_le(first.to_le() as u32 | (second.to_le() as u32) << 16)
}

#[inline(always)]
const fn split(both: u32) -> (u16, u16) {
    let both = both.to_le();
    (u16::from_le(both as u16), u16::from_le((both >> 16) as u16))
}

/// Where the addresses of a frame end and the `EtherType` or the first tag begins.
pub const MACS_LENGTH: usize = size_of::<MacPair>();

/// An Ethernet II header without tags (IEEE 802.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct EthernetHeader {
    /// Receiver.
    pub destination: Mac,
    /// Sender.
    pub source: Mac,
    /// What follows.
    pub ethertype: Be16,
}

/// `EtherType` of IPv4.
pub const ETHERTYPE_IPV4: Be16 = Be16::new(0x0800);
/// `EtherType` of IPv6.
pub const ETHERTYPE_IPV6: Be16 = Be16::new(0x86dd);
/// `EtherType` of ARP.
pub const ETHERTYPE_ARP: Be16 = Be16::new(0x0806);
/// Tag protocol of a customer's VLAN (IEEE 802.1Q).
pub const ETHERTYPE_VLAN: Be16 = Be16::new(0x8100);
/// Tag protocol of a provider's VLAN (IEEE 802.1ad).
pub const ETHERTYPE_SERVICE_VLAN: Be16 = Be16::new(0x88a8);

/// An IPv4 header without options (RFC 791, section 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Ipv4Header {
    /// Version in the upper half, header length in 32-bit words in the lower.
    pub version_ihl: u8,
    /// DSCP and ECN.
    pub tos: u8,
    /// Header and payload in bytes.
    pub total_length: Be16,
    /// Identification of the datagram among fragments.
    pub identification: Be16,
    /// Reserved, DF and MF flags and the 13-bit fragment offset.
    pub fragment: Be16,
    /// Hops left.
    pub ttl: u8,
    /// Payload protocol.
    pub protocol: u8,
    /// Internet checksum of the header.
    pub checksum: Be16,
    /// Sender.
    pub source: Ipv4Address,
    /// Receiver.
    pub destination: Ipv4Address,
}

/// "Do not fragment" in [`Ipv4Header::fragment`].
pub const IPV4_DF: Be16 = Be16::new(0x4000);
/// "More fragments" in [`Ipv4Header::fragment`].
pub const IPV4_MF: Be16 = Be16::new(0x2000);
/// More-fragments flag and fragment offset in [`Ipv4Header::fragment`]: not zero means a fragment.
pub const IPV4_FRAGMENT: Be16 = Be16::new(0x3fff);

/// An IPv6 header (RFC 8200, section 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Ipv6Header {
    /// Version (4 bits), traffic class (8), flow label (20).
    pub version_class_flow: Be32,
    /// What follows this header, in bytes.
    pub payload_length: Be16,
    /// Type of the header that follows.
    pub next_header: u8,
    /// Hops left.
    pub hop_limit: u8,
    /// Sender.
    pub source: Ipv6Address,
    /// Receiver.
    pub destination: Ipv6Address,
}

/// The start of a TCP header (RFC 9293, section 3.1): all of it that a balancer needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct TcpStart {
    /// Source and destination port.
    pub ports: Ports,
    /// Sequence number.
    pub sequence: Be32,
    /// Acknowledgement number.
    pub acknowledgement: Be32,
    /// Header length in 32-bit words in the upper half.
    pub data_offset: u8,
    /// CWR, ECE, URG, ACK, PSH, RST, SYN, FIN.
    pub flags: u8,
    /// Receive window.
    pub window: Be16,
}

/// SYN in [`TcpStart::flags`].
pub const TCP_SYN: u8 = 0x02;
/// ACK in [`TcpStart::flags`].
pub const TCP_ACK: u8 = 0x10;

/// A UDP header (RFC 768).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct UdpHeader {
    /// Source and destination port.
    pub ports: Ports,
    /// Header and payload in bytes.
    pub length: Be16,
    /// Internet checksum, 0 for none.
    pub checksum: Be16,
}

/// The eight bytes that every ICMP message begins with (RFC 792; RFC 4443, section 2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct IcmpHeader {
    /// The kind of message, of which ICMP and `ICMPv6` have their own.
    pub kind: u8,
    /// Tells kinds apart further.
    pub code: u8,
    /// Internet checksum: over the message, and for `ICMPv6` a pseudo header.
    pub checksum: Be16,
    /// Depends on the kind: the MTU of "packet too big", identifier and sequence number of an echo.
    pub rest: Be32,
}

/// The fragment header of IPv6 (RFC 8200, section 4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct FragmentHeader {
    /// Type of the header that follows in the whole packet.
    pub next_header: u8,
    /// Zero.
    pub reserved: u8,
    /// Offset in units of eight bytes in the upper 13 bits, more-fragments flag in the lowest.
    pub offset: Be16,
    /// The same in all fragments of a packet.
    pub identification: Be32,
}

/// The first two bytes of all other IPv6 extension headers (RFC 8200, section 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct ExtensionStart {
    /// Type of the header that follows.
    pub next_header: u8,
    /// Its length beyond eight bytes in units of eight bytes; of an authentication header beyond eight in units of four.
    pub length: u8,
}

/// An ARP packet for IPv4 over Ethernet (RFC 826). Made of integers of two bytes, since its addresses lie across words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct ArpPacket {
    /// 1, Ethernet.
    pub hardware: Be16,
    /// [`ETHERTYPE_IPV4`].
    pub protocol: Be16,
    /// 6 and 4, the lengths of both kinds of address.
    pub lengths: Be16,
    /// 1 asks, 2 answers.
    pub operation: Be16,
    /// Who speaks.
    pub sender_mac: Mac,
    /// Who speaks: halves of the IPv4 address.
    pub sender: [u16; 2],
    /// Who is spoken to; of a request, nothing.
    pub target_mac: Mac,
    /// Whose MAC address is asked for.
    pub target: [u16; 2],
}

impl ArpPacket {
    /// 6 and 4.
    pub const LENGTHS: Be16 = Be16::new(0x0604);

    /// A request that asks for the sender's own address and so tells everybody who has it (RFC 5227, section 3).
    pub fn announcement(address: [u8; 4], mac: [u8; 6]) -> Self {
        let address = bytemuck::cast(address);
        Self {
            hardware: Be16::new(1),
            protocol: ETHERTYPE_IPV4,
            lengths: Self::LENGTHS,
            operation: Be16::new(1),
            sender_mac: Mac::new(mac),
            sender: address,
            target_mac: Mac::new([0; 6]),
            target: address,
        }
    }

    /// An address from its halves.
    #[inline(always)]
    pub const fn address(halves: [u16; 2]) -> Ipv4Address {
        Ipv4Address(join(halves[0], halves[1]))
    }
}

/// A neighbour solicitation or advertisement behind its [`IcmpHeader`], with one option: a link-layer address (RFC 4861,
/// sections 4.3, 4.4 and 4.6.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct NeighborBody {
    /// Whose MAC address is asked for or told.
    pub target: Ipv6Address,
    /// Kind of the option in the first byte, 1 in the second: its length in units of eight bytes.
    pub option: Be16,
    /// The MAC address.
    pub mac: Mac,
}

/// Protocol numbers (IANA, Assigned Internet Protocol Numbers).
pub mod protocol {
    /// IPv6 hop-by-hop options (RFC 8200, section 4.3).
    pub const IPV6_HOP_BY_HOP: u8 = 0;
    /// Internet Control Message Protocol (RFC 792).
    pub const ICMP: u8 = 1;
    /// IPv4 in IP (RFC 2003).
    pub const IPIP: u8 = 4;
    /// TCP (RFC 9293).
    pub const TCP: u8 = 6;
    /// UDP (RFC 768).
    pub const UDP: u8 = 17;
    /// IPv6 in IP (RFC 4213, RFC 2473).
    pub const IPV6: u8 = 41;
    /// IPv6 routing header (RFC 8200, section 4.4).
    pub const IPV6_ROUTING: u8 = 43;
    /// IPv6 fragment header (RFC 8200, section 4.5).
    pub const IPV6_FRAGMENT: u8 = 44;
    /// Authentication header (RFC 4302).
    pub const AUTHENTICATION: u8 = 51;
    /// Internet Control Message Protocol for IPv6 (RFC 4443).
    pub const ICMPV6: u8 = 58;
    /// IPv6 destination options (RFC 8200, section 4.6).
    pub const IPV6_DESTINATION: u8 = 60;
}

/// Kinds of ICMP messages (IANA, ICMP Type Numbers).
pub mod icmp {
    /// Echo reply.
    pub const ECHO_REPLY: u8 = 0;
    /// Destination unreachable; code 4 is "fragmentation needed" (RFC 1191).
    pub const UNREACHABLE: u8 = 3;
    /// Code of [`UNREACHABLE`]: fragmentation is needed and DF is set.
    pub const FRAGMENTATION_NEEDED: u8 = 4;
    /// Source quench (deprecated by RFC 6633).
    pub const SOURCE_QUENCH: u8 = 4;
    /// Echo request.
    pub const ECHO: u8 = 8;
    /// Time exceeded.
    pub const TIME_EXCEEDED: u8 = 11;
    /// Parameter problem.
    pub const PARAMETER_PROBLEM: u8 = 12;
}

/// Kinds of `ICMPv6` messages (IANA, `ICMPv6` "type" Numbers). Those below [`icmpv6::ECHO`] are errors.
pub mod icmpv6 {
    /// Packet too big (RFC 4443, section 3.2).
    pub const TOO_BIG: u8 = 2;
    /// Parameter problem: the last of the errors that are defined.
    pub const PARAMETER_PROBLEM: u8 = 4;
    /// Echo request.
    pub const ECHO: u8 = 128;
    /// Echo reply.
    pub const ECHO_REPLY: u8 = 129;
    /// Neighbour solicitation (RFC 4861, section 4.3).
    pub const SOLICITATION: u8 = 135;
    /// Neighbour advertisement (RFC 4861, section 4.4).
    pub const ADVERTISEMENT: u8 = 136;
}

/// Bytes of an untagged Ethernet header.
pub const ETHERNET_LENGTH: usize = size_of::<EthernetHeader>();
/// Bytes of an IPv4 header without options.
pub const IPV4_LENGTH: usize = size_of::<Ipv4Header>();
/// Bytes of an IPv6 header without extensions.
pub const IPV6_LENGTH: usize = size_of::<Ipv6Header>();
/// Bytes of a TCP header without options.
pub const TCP_LENGTH: usize = 20;
/// Bytes of a UDP header.
pub const UDP_LENGTH: usize = size_of::<UdpHeader>();
/// Bytes that an ICMP message begins with.
pub const ICMP_LENGTH: usize = size_of::<IcmpHeader>();

const _: () = assert!(
    size_of::<ArpPacket>() == 28 && size_of::<NeighborBody>() == 24 && size_of::<FragmentHeader>() == 8
);
const _: () = assert!(ETHERNET_LENGTH == 14 && IPV4_LENGTH == 20 && IPV6_LENGTH == 40 && UDP_LENGTH == 8);
