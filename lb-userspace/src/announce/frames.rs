//! The frames that tell a link who has an address now.

use std::net::IpAddr;

use bytemuck::bytes_of;
use lb_common::answer::{ALL_NODES, ALL_NODES_MAC, Advertisement};
use lb_common::wire::{
    ArpPacket, ETHERTYPE_ARP, ETHERTYPE_IPV6, EthernetHeader, Ipv6Address, Mac as WireMac,
};

use crate::neighbors::Mac;

const ALL_STATIONS: Mac = [0xff; 6];

/// The whole frame that announces `vip` at `mac`, without padding and frame check sequence.
pub(super) fn announcement(vip: IpAddr, mac: Mac) -> Vec<u8> {
    let (source, mac) = (mac, WireMac::new(mac));
    let frame = |destination, ethertype, packet: &[u8]| {
        let ethernet = EthernetHeader { destination: WireMac::new(destination), source: mac, ethertype };
        [bytes_of(&ethernet), packet].concat()
    };
    match vip {
        IpAddr::V4(vip) => {
            let packet = ArpPacket::announcement(vip.octets(), source);
            frame(ALL_STATIONS, ETHERTYPE_ARP, bytes_of(&packet))
        }
        // It comes from the VIP itself, as the kernel's own do from the address that they are about, and was not asked for
        // (RFC 4861, section 7.2.6).
        IpAddr::V6(vip) => {
            let (vip, all) = (Ipv6Address::new(vip.octets()), Ipv6Address::new(ALL_NODES));
            let packet = Advertisement::new(vip, mac, all, Advertisement::OVERRIDE);
            frame(ALL_NODES_MAC, ETHERTYPE_IPV6, bytes_of(&packet))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use etherparse::icmpv6::NeighborAdvertisementHeader;
    use etherparse::{
        ArpEthIpv4Packet, ArpOperation, Icmpv6Type, NetSlice, PacketBuilder, SlicedPacket, TransportSlice,
    };

    use super::*;

    const MAC: Mac = [2, 0, 0, 0, 0, 0xfe];

    #[test]
    fn an_ipv4_vip_is_announced_by_a_request_for_itself() {
        let vip = [192, 0, 2, 10];
        let packet = ArpEthIpv4Packet {
            operation: ArpOperation::REQUEST,
            sender_mac: MAC,
            sender_ipv4: vip,
            target_mac: [0; 6],
            target_ipv4: vip,
        };
        let mut expected = Vec::new();
        PacketBuilder::ethernet2(MAC, [0xff; 6]).arp(packet.into()).write(&mut expected).unwrap();
        assert_eq!(announcement(vip.into(), MAC), expected);
    }

    #[test]
    fn an_ipv6_vip_is_announced_to_all_nodes() {
        let vip: Ipv6Addr = "2001:db8::10".parse().unwrap();
        let flags = NeighborAdvertisementHeader { router: false, solicited: false, r#override: true };
        let all_nodes: Ipv6Addr = "ff02::1".parse().unwrap();
        let body = [&vip.octets()[..], &[2, 1], &MAC].concat();
        let mut expected = Vec::new();
        PacketBuilder::ethernet2(MAC, [0x33, 0x33, 0, 0, 0, 1])
            .ipv6(vip.octets(), all_nodes.octets(), 255)
            .icmpv6(Icmpv6Type::NeighborAdvertisement(flags))
            .write(&mut expected, &body)
            .unwrap();
        assert_eq!(announcement(vip.into(), MAC), expected);
    }

    /// Addresses of ones make sums that carry.
    #[test]
    fn the_checksum_carries() {
        let vip = Ipv6Addr::from_bits(u128::MAX - 1);
        let frame = announcement(vip.into(), [0xff; 6]);
        let sliced = SlicedPacket::from_ethernet(&frame).unwrap();
        let Some(NetSlice::Ipv6(ip)) = sliced.net else { panic!("no IPv6 header") };
        let Some(TransportSlice::Icmpv6(message)) = sliced.transport else { panic!("no ICMPv6 message") };
        assert!(message.is_checksum_valid(ip.header().source(), ip.header().destination()));
    }
}
