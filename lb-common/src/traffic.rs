//! What the measuring harness tells the programs that make and count traffic, and what they tell it.

use bytemuck::{Pod, Zeroable};

use crate::wire::{EthernetHeader, Ipv4Header, UdpHeader};

/// The packets to send, and how far their sender may be ahead of their receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Stream {
    /// Packets sent so far.
    pub sent: u64,
    /// Packets that may be sent before the receiver's count is looked at again.
    pub credit: u64,
    /// The most packets that may be under way, a multiple of [`BUNDLE`].
    pub window: u64,
    /// Nanoseconds from packet to packet; 0 if they are sent as fast as they arrive.
    pub interval_ns: u64,
    /// When the first packet is due, on the exact clock.
    pub begun: u64,
    /// Packets that were due and sent in earlier runs.
    pub before: u64,
    /// Number of flows less one; the number is a power of two, at most 2^24.
    pub flows_mask: u64,
    /// Each packet's first header.
    pub ethernet: EthernetHeader,
    /// Zero.
    pub reserved: u16,
    /// Its second. The lower bits of the source address are the flow's number, the checksum is computed for each packet.
    pub ip: Ipv4Header,
    /// Its third, of flow 0: the lower half of the flow's number is added to the source port. Without a checksum, which IPv4 allows.
    pub udp: UdpHeader,
    /// Sum over the words of `ip`, with the flow's number and the checksum taken for zero.
    pub ip_sum: u32,
}

/// What is expected, and what of it arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Receipt {
    /// Expected packets that arrived.
    pub received: u64,
    /// IPv4 destination of expected packets, in host order.
    pub destination: u32,
    /// Which of its bits matter.
    pub mask: u32,
    /// IPv4 source of expected packets, in host order.
    pub source: u32,
    /// Which of its bits matter.
    pub source_mask: u32,
    /// The exact clock at each packet whose number is a multiple of [`LOOK_EVERY`], the latest in place of the oldest.
    pub clock: [u64; LOOKS],
}

/// Packets between two looks of the receiver at the clock: so many that a look costs nothing, in less time than other tasks
/// leave one a CPU.
pub const LOOK_EVERY: u64 = 1 << 8;
/// Looks at the clock that are remembered, a power of two.
pub const LOOKS: usize = 2048;

/// Packets that are sent in one go: the kernel redirects frames in bundles of this size (`DEV_MAP_BULK_SIZE`).
pub const BUNDLE: u64 = 16;

/// Bytes of a frame: the least that Ethernet takes, without its checksum.
pub const FRAME_LENGTH: usize = 60;

const _: () = assert!(LOOKS.is_power_of_two());
