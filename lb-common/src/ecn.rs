//! Explicit congestion notification (RFC 3168): a mark that makes a sender slow down without losing a packet.

use crate::checksum::replace;
use crate::ip::Datagram;
use crate::packet::Packet;
use crate::wire::{Be16, Be32};

/// Both bits of the field: congestion experienced (section 5).
const CE: u8 = 0b11;

/// Whether the sender of a packet with this DSCP and ECN understands marks, or the packet already has one.
#[inline(always)]
pub const fn is_capable(tos: u8) -> bool {
    tos & CE != 0
}

/// Marks a packet whose IP header begins at `start`, and what is known of it.
#[inline(always)]
pub fn mark<P: Packet>(packet: &mut P, start: usize, datagram: &mut Datagram) -> Option<()> {
    datagram.tos |= CE;
    if datagram.is_ipv6 {
        let word: Be32 = packet.read(start)?;
        return packet.write(start, Be32::new(word.get() | u32::from(CE) << 20));
    }
    let word: Be16 = packet.read(start)?;
    let marked = Be16::new(word.get() | u16::from(CE));
    let checksum: Be16 = packet.read(start + CHECKSUM)?;
    packet.write(start + CHECKSUM, replace(checksum, word, marked))?;
    packet.write(start, marked)
}

/// Where the checksum stands in an IPv4 header.
const CHECKSUM: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_two_zeros_do_not_understand_marks() {
        assert_eq!([0b00, 0b01, 0b10, 0b11].map(|ecn| is_capable(0xb8 | ecn)), [false, true, true, true]);
    }
}
