//! The frames that tell a link who has an address now.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lb_common::checksum::Sum;
use lb_common::wire::Be16;

use crate::neighbors::Mac;

const ETHERTYPE_ARP: [u8; 2] = [0x08, 0x06];
const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];

const ALL_STATIONS: Mac = [0xff; 6];

/// `ff02::1`, all nodes of the link.
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// The Ethernet address of [`ALL_NODES`] (RFC 2464, section 7).
const ALL_NODES_MAC: Mac = [0x33, 0x33, 0, 0, 0, 1];

/// The next header of an ICMP message in IPv6.
const ICMPV6: u8 = 58;

/// The whole frame that announces `vip` at `mac`, without padding and frame check sequence.
pub(super) fn announcement(vip: IpAddr, mac: Mac) -> Vec<u8> {
    match vip {
        IpAddr::V4(vip) => gratuitous_arp(vip, mac),
        IpAddr::V6(vip) => unsolicited_advertisement(vip, mac),
    }
}

/// An ARP announcement: a request that asks for the sender's own address (RFC 5227, sections 2.3 and 3).
fn gratuitous_arp(vip: Ipv4Addr, mac: Mac) -> Vec<u8> {
    // Ethernet and IPv4 with addresses of 6 and 4 bytes; a request (RFC 826).
    let request = [0, 1, 0x08, 0x00, 6, 4, 0, 1];
    let (vip, nobody) = (vip.octets(), [0; 6]);
    [&ALL_STATIONS[..], &mac, &ETHERTYPE_ARP, &request, &mac, &vip, &nobody, &vip].concat()
}

/// An unsolicited neighbour advertisement to all nodes (RFC 4861, sections 4.4 and 7.2.6).
///
/// It comes from the VIP itself, as the kernel's own do from the address that they are about.
fn unsolicited_advertisement(vip: Ipv6Addr, mac: Mac) -> Vec<u8> {
    let unsummed = advertisement(vip, mac, [0; 2]);
    let message = advertisement(vip, mac, checksum(vip, &unsummed).to_be_bytes());
    let [high, low] = (message.len() as u16).to_be_bytes();
    // Receivers believe no hop limit but 255, which no router can forge (RFC 4861, section 7.1.2).
    let start = [0x60, 0, 0, 0, high, low, ICMPV6, 255];
    let (source, destination) = (vip.octets(), ALL_NODES.octets());
    [&ALL_NODES_MAC[..], &mac, &ETHERTYPE_IPV6, &start, &source, &destination, &message].concat()
}

fn advertisement(vip: Ipv6Addr, mac: Mac, checksum: [u8; 2]) -> Vec<u8> {
    let kind = [136, 0];
    // Not a router, not solicited, but to be preferred to what is known.
    let flags = [0x20, 0, 0, 0];
    // The target's link-layer address; the length counts eights of bytes.
    let option = [2, 1];
    [&kind[..], &checksum, &flags, &vip.octets(), &option, &mac].concat()
}

/// The checksum of an ICMP message to all nodes of IPv6, with its pseudo-header (RFC 8200, section 8.1).
fn checksum(source: Ipv6Addr, message: &[u8]) -> u16 {
    let addresses = Sum::default().add_bytes(&source.octets()).add_bytes(&ALL_NODES.octets());
    let pseudo = addresses.add(Be16::new(message.len() as u16)).add(Be16::new(ICMPV6.into()));
    pseudo.add_bytes(message).finish().get()
}

#[cfg(test)]
mod tests {
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
