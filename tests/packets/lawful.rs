//! What holds for any packet, whatever became of it.

use anyhow::{Context, Result, anyhow, bail, ensure};
use etherparse::{IpNumber, NetSlice, SlicedPacket, TransportSlice};
use lb_common::verdict::PassReason;
use lb_userspace::model::ForwardMode;

use crate::fixtures::counts::{Counter, ROW};
use crate::fixtures::sides::{Action, Seen};
use crate::fixtures::world::World;

/// A frame that is not forwarded is unchanged; one that is gets the headers of its service's mode, and is the same behind
/// them. An answer is a frame of its own.
pub(crate) fn check_lawful(frame: &[u8], seen: &Seen) -> Result<()> {
    let answered = seen.counts.keys().any(|counter| matches!(counter, Counter::Answer(..)));
    let handed_on = seen.counts.contains_key(&Counter::Reason(ROW, PassReason::Reply.label()));
    match seen.action {
        Action::Aborted => return Err(anyhow!("the program aborted")),
        Action::Pass if handed_on => ensure!(seen.frame.len() == frame.len(), "a reply changed its length"),
        Action::Pass | Action::Drop => ensure!(seen.frame == frame, "the frame was changed"),
        Action::Transmit | Action::Redirect if answered => {}
        Action::Transmit | Action::Redirect => check_forwarded(frame, seen)?,
    }
    check_counts(seen)
}

fn check_forwarded(frame: &[u8], seen: &Seen) -> Result<()> {
    let service = seen.counts.keys().find_map(|counter| match counter {
        Counter::Forwarded(service, "packets") => Some(service),
        _ => None,
    });
    let mode = World::mode(service.context("forwarded for no service")?).context("an unknown service")?;
    let (lengths, rewritten): (&[usize], bool) = match mode {
        ForwardMode::DsrL2 => (&[0], false),
        ForwardMode::Ipip => (&[20, 40], false),
        ForwardMode::Gue => (&[28, 48], false),
        ForwardMode::Nat => (&[0], true),
    };
    let outer = seen.frame.len().checked_sub(frame.len());
    ensure!(
        outer.is_some_and(|outer| lengths.contains(&outer)),
        "{mode}: now {} bytes long",
        seen.frame.len()
    );
    let link = link_length(frame);
    ensure!(seen.frame[12..link - 2] == frame[12..link - 2], "the tags were changed");
    if rewritten {
        check_rewritten(&frame[link..], &seen.frame[link..])
    } else {
        check_inside(&frame[link..], &seen.frame)
    }
}

fn check_inside(packet: &[u8], frame: &[u8]) -> Result<()> {
    ensure!(frame.ends_with(packet), "the IP packet was changed");
    Ok(())
}

/// An address and a port are others, and two checksums; in an ICMP error these twice. Length and kind are never.
fn check_rewritten(before: &[u8], after: &[u8]) -> Result<()> {
    let changed = before.iter().zip(after).filter(|(before, after)| before != after).count();
    let address = if before[0] >> 4 == 6 { 16 } else { 4 };
    ensure!(changed <= 2 * (address + 6), "{changed} bytes were changed");
    let fixed = if before[0] >> 4 == 6 { 0..24 } else { 0..10 };
    ensure!(before[fixed.clone()] == after[fixed], "the IP header was changed");
    Ok(())
}

/// Bytes in front of the IP header.
pub(crate) fn link_length(frame: &[u8]) -> usize {
    let tags =
        frame[12..].chunks(4).take(2).take_while(|tag| matches!(tag[..2], [0x81, 0x00] | [0x88, 0xa8]));
    14 + 4 * tags.count()
}

/// A packet is counted once: under its reason if it was not forwarded, else under its backend.
pub(crate) fn check_counts(seen: &Seen) -> Result<()> {
    let sum = |of: fn(&Counter) -> bool| -> u64 {
        seen.counts.iter().filter(|(counter, _)| of(counter)).map(|(_, count)| count).sum()
    };
    let reasons = sum(|counter| matches!(counter, Counter::Reason(..) | Counter::Answer(..)));
    let forwarded = sum(|counter| matches!(counter, Counter::Forwarded(_, "packets")));
    let expected = match seen.action {
        Action::Transmit | Action::Redirect if reasons == 0 => (0, 1),
        _ => (1, 0),
    };
    ensure!((reasons, forwarded) == expected, "{:?} was counted as {:?}", seen.action, seen.counts);
    Ok(())
}

/// Whether every checksum in a frame is right that is there: of IPv4 headers, of TCP and of UDP, in tunnels too.
pub(crate) fn check_checksums(frame: &[u8]) -> Result<()> {
    check_packet(&SlicedPacket::from_ethernet(frame)?)
}

fn check_packet(packet: &SlicedPacket<'_>) -> Result<()> {
    let Some(net) = &packet.net else { bail!("there is no IP") };
    if let NetSlice::Ipv4(ip) = net {
        let header = ip.header().to_header();
        ensure!(header.header_checksum == header.calc_header_checksum(), "of IPv4: {header:?}");
    }
    match (&packet.transport, net.ip_payload_ref()) {
        (Some(transport), _) => check_transport(net, transport),
        (None, Some(inside)) if matches!(inside.ip_number, IpNumber::IPV4 | IpNumber::IPV6) => {
            check_packet(&SlicedPacket::from_ip(inside.payload)?)
        }
        _ => bail!("there is neither transport nor tunnel"),
    }
}

fn check_transport(net: &NetSlice<'_>, transport: &TransportSlice<'_>) -> Result<()> {
    let (sent, right) = match (net, transport) {
        (NetSlice::Ipv4(ip), TransportSlice::Tcp(tcp)) => {
            (tcp.checksum(), tcp.calc_checksum_ipv4(ip.header().source(), ip.header().destination())?)
        }
        (NetSlice::Ipv6(ip), TransportSlice::Tcp(tcp)) => {
            (tcp.checksum(), tcp.calc_checksum_ipv6(ip.header().source(), ip.header().destination())?)
        }
        (NetSlice::Ipv4(ip), TransportSlice::Udp(udp)) => {
            let right = udp.to_header().calc_checksum_ipv4(&ip.header().to_header(), udp.payload())?;
            // None was sent.
            (udp.checksum(), if udp.checksum() == 0 { 0 } else { right })
        }
        (NetSlice::Ipv6(ip), TransportSlice::Udp(udp)) => {
            (udp.checksum(), udp.to_header().calc_checksum_ipv6(&ip.header().to_header(), udp.payload())?)
        }
        _ => bail!("neither TCP nor UDP"),
    };
    ensure!(sent == right, "of {transport:?}: {sent:#06x}, which should be {right:#06x}");
    match transport {
        TransportSlice::Udp(udp) if matches!(udp.destination_port(), 6080 | 6081) => {
            check_packet(&SlicedPacket::from_ip(udp.payload())?)
        }
        _ => Ok(()),
    }
}
