//! What the pipeline may do with a packet: bounds-checked reads and writes, and moving its head.

use bytemuck::{AnyBitPattern, NoUninit};

use crate::checksum::Sum;
use crate::ip::Extensions;
use crate::link::Link;
use crate::wire::{Be16, Ipv4Address, Ipv6Address, MacPair};

/// A frame, from the first byte of its Ethernet header.
///
/// Implemented over kernel pointers by `lb-ebpf` and over a byte slice by [`crate::frame::Frame`]. Offsets and lengths are
/// bytes. Nothing here can read or write outside the frame.
pub trait Packet {
    /// The bytes at `offset` as a `T`, or `None` if the frame does not hold all of them.
    fn read<T: AnyBitPattern>(&self, offset: usize) -> Option<T>;

    /// Puts `value` at `offset`, or changes nothing and returns `None` if the frame does not hold all of it.
    fn write<T: NoUninit>(&mut self, offset: usize, value: T) -> Option<()>;

    /// Whether the frame's first buffer is at least `length` bytes long. Most frames have no other.
    fn holds(&self, length: usize) -> bool;

    /// The frame's length in bytes, all of its buffers together.
    fn length(&self) -> usize;

    /// The ones' complement sum of `length` bytes at `offset`, in whatever buffers they are; `None` beyond the frame's end.
    fn sum(&self, offset: usize, length: usize) -> Option<Sum>;

    /// [`Link::extent`]. The kernel's program makes a function of this and the next, which the verifier follows once each and
    /// not in every place they are called from.
    fn link(&self) -> Option<(usize, Be16)>
    where
        Self: Sized,
    {
        Link::extent(self)
    }

    /// [`Extensions::walk`], for a packet whose IP header begins at `start` and whose first extension is of kind `next`.
    fn extensions(&self, start: usize, next: u8) -> Option<Extensions>
    where
        Self: Sized,
    {
        Extensions::walk(self, start, next)
    }

    /// Cuts the frame to `length` bytes, or returns `None` if it is not that long.
    fn truncate(&mut self, length: usize) -> Option<()>;

    /// Puts `bytes` undefined bytes in front of the frame, or returns `None` if there is no room.
    fn grow(&mut self, bytes: usize) -> Option<()>;

    /// Takes `bytes` bytes from the front of the frame, or returns `None` if it is shorter than that.
    fn shrink(&mut self, bytes: usize) -> Option<()>;

    /// Index of the interface on which the frame arrived.
    fn ingress(&self) -> u32;

    /// The host's own way on for a packet.
    fn route(&self, packet: &Routed) -> Onward;
}

/// What the host's routing rules look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Routed {
    /// Source and destination.
    pub addresses: RoutedAddresses,
    /// DSCP and ECN.
    pub tos: u8,
    /// The transport protocol.
    pub protocol: u8,
    /// IP header and payload in bytes.
    pub length: u16,
}

/// Source and destination of a packet that is to be routed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoutedAddresses {
    /// Of an IPv4 packet.
    V4(Ipv4Address, Ipv4Address),
    /// Of an IPv6 packet.
    V6(Ipv6Address, Ipv6Address),
}

/// What the host's routes say of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Onward {
    /// It can be sent at once.
    Hop(Hop),
    /// The host would forward it, but has to find a MAC address first.
    Host,
    /// It is too big for the host's way: the host fragments it, or tells its sender.
    TooBig,
    /// It is for the host itself, or has no way.
    Nowhere,
}

/// The next hop of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    /// Interface it leaves by.
    pub interface: u32,
    /// The addresses its frame begins with.
    pub macs: MacPair,
}
