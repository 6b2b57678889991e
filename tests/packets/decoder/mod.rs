//! What the program sends, read by a decoder that is not ours.

mod tshark;
mod world;

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use etherparse::icmpv4::DestUnreachableHeader;
use etherparse::{ArpHardwareId, ArpOperation, ArpPacket, EtherType, Icmpv4Type, Icmpv6Type, PacketBuilder};
use lb_userspace::model::ForwardMode;
use libtest_mimic::Trial;

use crate::fixtures::frames::{CLIENT_PORT, CLIENT4, CLIENT6, Draft, tcp, udp};
use crate::fixtures::hex;
use crate::fixtures::world::{CLIENT_MAC, INGRESS_MAC};
use crate::root_trial;
use world::{FIRST_PORT, Host, MTU, NAT_PORT, VIP4, VIP6, WAYS, backend};

/// Where tags begin, behind the MAC addresses.
const MACS: usize = 12;
/// Where the IP header begins.
const IP: usize = 14;

/// A frame for the program, and what the decoder is to find in what becomes of it.
struct Case {
    what: String,
    frame: Vec<u8>,
    protocols: String,
}

fn case(what: impl Into<String>, frame: impl Into<Vec<u8>>, protocols: impl Into<String>) -> Case {
    Case { what: what.into(), frame: frame.into(), protocols: protocols.into() }
}

/// The kernel's program writes, tshark reads.
pub(crate) fn trial() -> Trial {
    root_trial("decoder::everything is well-formed", everything_is_well_formed)
}

/// Every kind of frame that the program sends is well-formed, and each of its checksums right; a bit that tips over is noticed.
fn everything_is_well_formed() -> Result<()> {
    let host = Host::new()?;
    let directory = tempfile::TempDir::new().context("no temporary directory")?;
    let cases: Vec<Case> =
        cases().into_iter().flat_map(|case| [tagged(&case, 1), tagged(&case, 2), case]).collect();
    let frames: Vec<_> = cases.iter().map(|case| (case.what.clone(), case.frame.clone())).collect();
    let sent = host.send(&frames)?;
    for ((case, frame), reading) in cases.iter().zip(&sent).zip(tshark::read(&sent, directory.path())?) {
        let complaint = reading.complaint(frame);
        ensure!(complaint.is_none(), "{}: {}\n{}", case.what, complaint.unwrap_or_default(), hex(frame));
        let found = reading.protocols.strip_prefix("eth:ethertype:").unwrap_or_default();
        ensure!(found.starts_with(&case.protocols), "{}: {found} instead of {}", case.what, case.protocols);
    }
    let broken: Vec<Vec<u8>> = sent.iter().map(|frame| broken(frame)).collect();
    for ((case, frame), reading) in cases.iter().zip(&broken).zip(tshark::read(&broken, directory.path())?) {
        // Nothing protects what ARP says, nor the data of UDP without a checksum, nor that of a fragment, except GUE over IPv6.
        let bare = ["arp", "without a checksum", "fragment"].iter().any(|word| case.what.contains(word));
        let unprotected = bare && !case.protocols.contains("ipv6:udp:ip");
        let noticed = reading.complaint(frame).is_some();
        ensure!(noticed || unprotected, "{}: the decoder overlooks a broken byte\n{}", case.what, hex(frame));
    }
    Ok(())
}

/// With so many tags, which stay where they are.
fn tagged(case: &Case, count: usize) -> Case {
    let tags = [[0x88, 0xa8, 0, 100], [0x81, 0, 0, 101]];
    let tags = tags[2 - count..].concat();
    let frame = [&case.frame[..MACS], &tags, &case.frame[MACS..]].concat();
    let protocols = format!(
        "{}{}",
        ["vlan:ethertype:", "ieee8021ad:ethertype:vlan:ethertype:"][count - 1],
        case.protocols
    );
    Case { what: format!("{} with {count} tags", case.what), frame, protocols }
}

/// With the last byte changed: in what is protected least.
fn broken(frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    if let Some(last) = frame.last_mut() {
        *last ^= 0x10;
    }
    frame
}

fn cases() -> Vec<Case> {
    let vips = [IpAddr::from(VIP4), VIP6.into()];
    let forwarded =
        vips.into_iter().flat_map(|vip| (0u8..).zip(WAYS).flat_map(move |(way, _)| on_way(way, vip)));
    let others = [too_big(), echo(), who_has(), replies()];
    forwarded.chain(others.into_iter().flatten()).collect()
}

/// The name of an address's family in the decoder's lists of protocols.
fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "ip" } else { "ipv6" }
}

/// What a packet for a VIP is wrapped in. As payload of UDP, the decoder takes IPv6 for a kind of IP.
fn outer(way: u8, vip: IpAddr) -> String {
    let (mode, outer) = WAYS[usize::from(way)];
    let family = if outer == Some(true) { "ipv6:" } else { "ip:" };
    match mode {
        ForwardMode::DsrL2 | ForwardMode::Nat => String::new(),
        ForwardMode::Ipip => family.to_owned(),
        ForwardMode::Gue if vip.is_ipv6() => format!("{family}udp:ip:"),
        ForwardMode::Gue => format!("{family}udp:"),
    }
}

fn endpoint(address: IpAddr, port: u16) -> String {
    std::net::SocketAddr::new(address, port).to_string()
}

fn on_way(way: u8, vip: IpAddr) -> Vec<Case> {
    let (mode, outer_family) = WAYS[usize::from(way)];
    let to = endpoint(vip, FIRST_PORT + u16::from(way));
    let what = |what: &str| format!("{what} for {to}, {mode} {outer_family:?}");
    let stack = |rest: &str| format!("{}{}{rest}", outer(way, vip), family(vip));
    let mut cases = vec![
        case(what("TCP"), tcp(&to).carrying(101), stack(":tcp")),
        case(what("TCP without data"), tcp(&to).carrying(0), stack(":tcp")),
        case(what("UDP"), udp(&to).carrying(100), stack(":udp")),
        case(what("UDP of odd length"), udp(&to).carrying(1), stack(":udp")),
        case(what("an ICMP error"), error(vip, FIRST_PORT + u16::from(way)), stack(":icmp")),
    ];
    if vip.is_ipv4() {
        let unsummed = udp(&to).carrying(33).patched(IP + 20 + 6, &[0, 0]);
        let options = |draft: Draft| draft.ipv4(|ip| ip.options = [1; 8].into());
        let first = udp(&to).carrying(64).ipv4(|ip| (ip.dont_fragment, ip.more_fragments) = (false, true));
        cases.extend([
            case(what("UDP without a checksum"), unsummed, stack(":udp")),
            case(what("TCP behind options"), options(tcp(&to)), stack(":tcp")),
            case(what("a fragment"), first, stack("")),
        ]);
    }
    cases
}

/// An error about a datagram from the VIP, from the client. It quotes as much as routers do (RFC 1812, section 4.3.2.3; RFC 4443,
/// section 2.4): not all, so that nobody can check the quoted checksum, which mode `nat` leaves as it is. About UDP, since the
/// decoder checks even segments of TCP of which it sees a part.
fn error(vip: IpAddr, port: u16) -> Vec<u8> {
    let mut frame = Vec::new();
    let written = match vip {
        IpAddr::V4(vip) => {
            let mut quote = Vec::new();
            let inner = PacketBuilder::ipv4(vip.octets(), CLIENT4, 60).udp(port, CLIENT_PORT);
            inner.write(&mut quote, &[7; 1400]).expect("a packet fits a buffer");
            quote.truncate(576 - 20 - 8);
            let kind = DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: 1400 };
            PacketBuilder::ethernet2(CLIENT_MAC, INGRESS_MAC)
                .ipv4(CLIENT4, vip.octets(), 60)
                .icmpv4(Icmpv4Type::DestinationUnreachable(kind))
                .write(&mut frame, &quote)
        }
        IpAddr::V6(vip) => {
            let mut quote = Vec::new();
            let inner = PacketBuilder::ipv6(vip.octets(), CLIENT6, 60).udp(port, CLIENT_PORT);
            inner.write(&mut quote, &[7; 1400]).expect("a packet fits a buffer");
            quote.truncate(1280 - 40 - 8);
            PacketBuilder::ethernet2(CLIENT_MAC, INGRESS_MAC)
                .ipv6(CLIENT6, vip.octets(), 60)
                .icmpv6(Icmpv6Type::PacketTooBig { mtu: 1400 })
                .write(&mut frame, &quote)
        }
    };
    written.expect("a packet fits a buffer");
    frame
}

/// Datagrams that fill the client's link and do not fit into tunnels.
fn too_big() -> Vec<Case> {
    let vips = [(IpAddr::from(VIP4), "ip:icmp:ip:udp"), (VIP6.into(), "ipv6:icmpv6:ipv6:udp")];
    let tunnels = 1..5;
    let big = |(vip, stack): (IpAddr, &'static str)| {
        tunnels.clone().map(move |way| {
            let to = endpoint(vip, FIRST_PORT + way);
            case(format!("too big for {to}"), udp(&to).of_length(MTU as usize), stack)
        })
    };
    vips.into_iter().flat_map(big).collect()
}

fn echo() -> Vec<Case> {
    let (mut four, mut six) = (Vec::new(), Vec::new());
    PacketBuilder::ethernet2(CLIENT_MAC, INGRESS_MAC)
        .ipv4(CLIENT4, VIP4.octets(), 60)
        .icmpv4_echo_request(7, 1)
        .write(&mut four, b"odd")
        .expect("a packet fits a buffer");
    PacketBuilder::ethernet2(CLIENT_MAC, INGRESS_MAC)
        .ipv6(CLIENT6, VIP6.octets(), 60)
        .icmpv6_echo_request(7, 1)
        .write(&mut six, b"odd")
        .expect("a packet fits a buffer");
    vec![case("echo over IPv4", four, "ip:icmp"), case("echo over IPv6", six, "ipv6:icmpv6")]
}

/// Questions for the MAC address of announced VIPs.
fn who_has() -> Vec<Case> {
    let question = ArpPacket::new(
        ArpHardwareId::ETHERNET,
        EtherType::IPV4,
        ArpOperation::REQUEST,
        &CLIENT_MAC,
        &CLIENT4,
        &[0; 6],
        &VIP4.octets(),
    );
    let mut arp = Vec::new();
    PacketBuilder::ethernet2(CLIENT_MAC, [0xff; 6])
        .arp(question.expect("addresses of the right lengths"))
        .write(&mut arp)
        .expect("a packet fits a buffer");
    let mut solicitation = Vec::new();
    let option = [&[1, 1][..], &CLIENT_MAC].concat();
    PacketBuilder::ethernet2(CLIENT_MAC, [0x33, 0x33, 0xff, 0, 0, 0x10])
        .ipv6(CLIENT6, VIP6.octets(), 255)
        .icmpv6_raw(135, 0, [0; 4])
        .write(&mut solicitation, &[&VIP6.octets()[..], &option].concat())
        .expect("a packet fits a buffer");
    vec![case("arp", arp, "arp"), case("a neighbour solicitation", solicitation, "ipv6:icmpv6")]
}

/// Packets from backends of mode `nat` to the client.
fn replies() -> Vec<Case> {
    let way = WAYS.iter().position(|(mode, _)| *mode == ForwardMode::Nat).expect("there is such a way") as u8;
    let reply = |is_ipv6: bool| {
        let client = if is_ipv6 { IpAddr::from(CLIENT6) } else { CLIENT4.into() };
        let (to, from) = (endpoint(client, CLIENT_PORT), backend(way, is_ipv6).to_string());
        let what = |what: &str| format!("{what} from {from}");
        let stack = |rest: &str| format!("{}{rest}", family(client));
        let back = |draft: Draft| draft.from(&from).source_port(NAT_PORT);
        [
            case(what("TCP"), back(tcp(&to).carrying(101)), stack(":tcp")),
            case(what("UDP"), back(udp(&to).carrying(100)), stack(":udp")),
        ]
    };
    [false, true].into_iter().flat_map(reply).collect()
}
