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
}

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
pub const IPV4_DF: u16 = 0x4000;
/// More-fragments flag and fragment offset in [`Ipv4Header::fragment`]: not zero means a fragment.
pub const IPV4_FRAGMENT: u16 = 0x3fff;

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

/// Protocol numbers (IANA, Assigned Internet Protocol Numbers).
pub mod protocol {
    /// IPv4 in IP (RFC 2003).
    pub const IPIP: u8 = 4;
    /// TCP (RFC 9293).
    pub const TCP: u8 = 6;
    /// UDP (RFC 768).
    pub const UDP: u8 = 17;
    /// IPv6 in IP (RFC 4213, RFC 2473).
    pub const IPV6: u8 = 41;
    /// IPv6 fragment header (RFC 8200, section 4.5).
    pub const IPV6_FRAGMENT: u8 = 44;
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

const _: () = assert!(ETHERNET_LENGTH == 14 && IPV4_LENGTH == 20 && IPV6_LENGTH == 40 && UDP_LENGTH == 8);
