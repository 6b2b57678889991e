//! The frame's own header: MAC addresses, up to two VLAN tags, and what follows them.
//!
//! Tags are kept: a packet leaves with the tags it came with, in front of any outer header.

use crate::packet::Packet;
use crate::wire::{Be16, ETHERNET_LENGTH, ETHERTYPE_SERVICE_VLAN, ETHERTYPE_VLAN, MACS_LENGTH};

/// Bytes of a VLAN tag: protocol identifier and control information (IEEE 802.1Q).
const TAG_LENGTH: usize = 4;

/// Where the IP header begins, and the tags in front of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Bytes before the IP header: 14, 18 or 22.
    pub length: usize,
    /// The four bytes of each tag as they lie in memory; what is no tag is of no meaning.
    tags: [u32; 2],
}

impl Link {
    /// The link header of a frame without tags.
    pub const UNTAGGED: Self = Self { length: ETHERNET_LENGTH, tags: [0; 2] };

    /// The length of the frame's link header and what follows it, if the frame holds all of it.
    #[inline(always)]
    pub fn extent<P: Packet>(packet: &P) -> Option<(usize, Be16)> {
        let mut at = MACS_LENGTH;
        for _ in 0..2 {
            let ethertype: Be16 = packet.read(at)?;
            if ethertype != ETHERTYPE_VLAN && ethertype != ETHERTYPE_SERVICE_VLAN {
                return Some((at + size_of::<Be16>(), ethertype));
            }
            at += TAG_LENGTH;
        }
        Some((at + size_of::<Be16>(), packet.read(at)?))
    }

    /// Reads the tags of a frame whose link header is that long.
    #[inline(always)]
    pub fn of<P: Packet>(packet: &P, length: usize) -> Self {
        let tag = |index| packet.read(MACS_LENGTH + index * TAG_LENGTH).unwrap_or(0);
        Self { length, tags: [tag(0), tag(1)] }
    }

    /// Writes tags and `EtherType` into a frame that begins anew.
    #[inline(always)]
    pub fn write<P: Packet>(&self, packet: &mut P, ethertype: Be16) -> Option<()> {
        // The place follows from what is written, not from the length: Linux 6.1 does not see that this is more than two.
        let mut at = MACS_LENGTH;
        if self.length > ETHERNET_LENGTH {
            packet.write(at, self.tags[0])?;
            at += TAG_LENGTH;
        }
        if self.length > ETHERNET_LENGTH + TAG_LENGTH {
            packet.write(at, self.tags[1])?;
            at += TAG_LENGTH;
        }
        packet.write(at, ethertype)
    }
}
