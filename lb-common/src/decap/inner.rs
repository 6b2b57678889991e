//! The packet inside a tunnel packet, and what it takes over from the outer header.

use super::DecapDrop;
use crate::checksum::replace;
use crate::ip::{Extent, IpHeader};
use crate::packet::Packet;
use crate::verdict::DropReason;
use crate::wire::{Be16, Be32, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Ipv4Header, Ipv6Header};

/// The ECN bits of a TOS byte (RFC 3168, section 5).
const ECN: u8 = 0b11;
const NOT_ECT: u8 = 0b00;
const ECT_1: u8 = 0b01;
const ECT_0: u8 = 0b10;
const CE: u8 = 0b11;

/// A whole packet inside another one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Inner {
    is_ipv6: bool,
    /// Where its IP header begins in the frame.
    pub(super) at: usize,
    /// IP header and payload in bytes.
    pub(super) length: usize,
    /// DSCP and ECN.
    tos: u8,
}

impl Inner {
    /// Checks the packet of that family that begins at `at`, where the outer one has `room` bytes for it.
    #[inline(always)]
    pub(super) fn parse<P: Packet>(
        packet: &P,
        is_ipv6: bool,
        at: usize,
        room: usize,
    ) -> Result<Self, DecapDrop> {
        if is_ipv6 {
            let header: Ipv6Header = packet.read(at).ok_or(DecapDrop::InnerHeader)?;
            Ok(Self { is_ipv6, at, length: length(&header, room)?, tos: header.tos() })
        } else {
            let header: Ipv4Header = packet.read(at).ok_or(DecapDrop::InnerHeader)?;
            Ok(Self { is_ipv6, at, length: length(&header, room)?, tos: header.tos })
        }
    }

    /// The `EtherType` of a frame that carries it.
    #[inline(always)]
    pub(super) const fn ethertype(&self) -> Be16 {
        if self.is_ipv6 { ETHERTYPE_IPV6 } else { ETHERTYPE_IPV4 }
    }

    /// Takes DSCP and ECN over from the outer header.
    ///
    /// DSCP as in the uniform model of RFC 2983, section 3.1, which is the reverse of what the balancer does: what the
    /// network between the two made of the DSCP stays in force. ECN by [`egress_ecn`].
    #[inline(always)]
    pub(super) fn take_marks<P: Packet>(&self, packet: &mut P, outer_tos: u8) -> Result<(), DecapDrop> {
        let ecn = egress_ecn(self.tos & ECN, outer_tos & ECN).ok_or(DecapDrop::Congestion)?;
        let tos = outer_tos & !ECN | ecn;
        if tos == self.tos {
            return Ok(());
        }
        self.write_tos(packet, tos).ok_or(DecapDrop::Inconsistent)
    }

    #[inline(always)]
    fn write_tos<P: Packet>(&self, packet: &mut P, tos: u8) -> Option<()> {
        if self.is_ipv6 {
            let word: Be32 = packet.read(self.at)?;
            let word = word.get() & 0xf00f_ffff | u32::from(tos) << 20;
            return packet.write(self.at, Be32::new(word));
        }
        // The byte and its neighbour are one word of the checksum.
        let header: Ipv4Header = packet.read(self.at)?;
        let word = |tos| Be16::new(u16::from_be_bytes([header.version_ihl, tos]));
        let checksum = replace(header.checksum, word(self.tos), word(tos));
        packet.write(self.at, Ipv4Header { tos, checksum, ..header })
    }
}

#[inline(always)]
fn length(header: &impl IpHeader, room: usize) -> Result<usize, DecapDrop> {
    match header.extent(room) {
        Ok(Extent { length, .. }) => Ok(length),
        Err(DropReason::IpLength) => Err(DecapDrop::InnerLength),
        Err(_) => Err(DecapDrop::InnerHeader),
    }
}

/// The ECN field of a packet that leaves a tunnel, from its own and that of the outer header (RFC 6040, section 4.2); `None`
/// if it must be dropped: a router would have dropped it, had the outer header not said that marks are understood.
#[inline(always)]
pub(super) const fn egress_ecn(inner: u8, outer: u8) -> Option<u8> {
    match (inner, outer) {
        (NOT_ECT, CE) => None,
        (_, CE) => Some(CE),
        (ECT_0, ECT_1) => Some(ECT_1),
        _ => Some(inner),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Figure 4 of RFC 6040, row by row; the columns are outer Not-ECT, ECT(0), ECT(1), CE.
    #[test]
    fn ecn_leaves_a_tunnel_as_rfc_6040_has_it() {
        let table = [
            (NOT_ECT, [Some(NOT_ECT), Some(NOT_ECT), Some(NOT_ECT), None]),
            (ECT_0, [Some(ECT_0), Some(ECT_0), Some(ECT_1), Some(CE)]),
            (ECT_1, [Some(ECT_1), Some(ECT_1), Some(ECT_1), Some(CE)]),
            (CE, [Some(CE), Some(CE), Some(CE), Some(CE)]),
        ];
        for (inner, row) in table {
            assert_eq!([NOT_ECT, ECT_0, ECT_1, CE].map(|outer| egress_ecn(inner, outer)), row, "{inner}");
        }
    }
}
