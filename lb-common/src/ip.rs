//! IP headers: first the destination alone, to tell whether a packet is ours; then, for ours, everything else.
//!
//! The order is a promise: what is not for a VIP is never judged, so it is never dropped, whatever it looks like.

use bytemuck::AnyBitPattern;

use crate::hash::HashKey;
use crate::layout::VipKey;
use crate::packet::Packet;
use crate::verdict::DropReason;
use crate::wire::{ETHERNET_LENGTH, IPV4_DF, IPV4_FRAGMENT, IPV6_LENGTH, Ipv4Header, Ipv6Header, protocol};

/// What the rest of the pipeline needs of an IP packet, alike for both families.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// Both addresses, hashed; see [`HashKey::flow`].
    pub addresses: u64,
    /// What the limiter knows the source by: an IPv4 address, or the /64 of an IPv6 address.
    pub source: u64,
    /// IP header and payload in bytes.
    pub length: usize,
    /// Where the transport header begins, from the start of the frame.
    pub transport: usize,
    /// The transport protocol.
    pub protocol: u8,
    /// The protocol number by which a tunnel announces this packet (RFC 2003, RFC 4213).
    pub encapsulated: u8,
    /// DSCP and ECN.
    pub tos: u8,
    /// Flags of an outer IPv4 header: DF if this packet has it, always for IPv6, which routers never fragment.
    pub outer_fragment: u16,
    /// Identification of an outer IPv4 header: that of the packet, 0 for IPv6.
    pub outer_identification: u16,
}

/// An IP header of either family.
pub trait IpHeader: AnyBitPattern {
    /// The address that the packet is for, to be looked up among the VIPs.
    fn vip(&self) -> VipKey;

    /// Checks the header against the frame and gathers the rest.
    fn datagram<P: Packet>(&self, packet: &P, key: &HashKey) -> Result<Datagram, DropReason>;
}

impl IpHeader for Ipv4Header {
    #[inline(always)]
    fn vip(&self) -> VipKey {
        VipKey::v4(self.destination)
    }

    #[inline(always)]
    fn datagram<P: Packet>(&self, packet: &P, key: &HashKey) -> Result<Datagram, DropReason> {
        // RFC 791, section 3.1: version 4 and at least five words of header.
        let header = usize::from(self.version_ihl & 0x0f) * 4;
        if self.version_ihl >> 4 != 4 || header < size_of::<Self>() {
            return Err(DropReason::IpHeader);
        }
        let length = usize::from(self.total_length.get());
        if length < header || !packet.holds(ETHERNET_LENGTH + length) {
            return Err(DropReason::IpLength);
        }
        let fragment = self.fragment.get();
        if fragment & IPV4_FRAGMENT != 0 {
            return Err(DropReason::Fragment);
        }
        Ok(Datagram {
            addresses: key.ipv4(self.source, self.destination),
            source: u64::from(self.source.word()),
            length,
            transport: ETHERNET_LENGTH + header,
            protocol: self.protocol,
            encapsulated: protocol::IPIP,
            tos: self.tos,
            outer_fragment: fragment & IPV4_DF,
            outer_identification: self.identification.get(),
        })
    }
}

impl IpHeader for Ipv6Header {
    #[inline(always)]
    fn vip(&self) -> VipKey {
        VipKey::v6(self.destination)
    }

    #[inline(always)]
    fn datagram<P: Packet>(&self, packet: &P, key: &HashKey) -> Result<Datagram, DropReason> {
        let version_class_flow = self.version_class_flow.get();
        if version_class_flow >> 28 != 6 {
            return Err(DropReason::IpHeader);
        }
        let length = IPV6_LENGTH + usize::from(self.payload_length.get());
        if !packet.holds(ETHERNET_LENGTH + length) {
            return Err(DropReason::IpLength);
        }
        if self.next_header == protocol::IPV6_FRAGMENT {
            return Err(DropReason::Fragment);
        }
        let [network, _] = self.source.words();
        Ok(Datagram {
            addresses: key.ipv6(self.source, self.destination),
            source: network,
            length,
            transport: ETHERNET_LENGTH + IPV6_LENGTH,
            protocol: self.next_header,
            encapsulated: protocol::IPV6,
            tos: (version_class_flow >> 20) as u8,
            outer_fragment: IPV4_DF,
            outer_identification: 0,
        })
    }
}
