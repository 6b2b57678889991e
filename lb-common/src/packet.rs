//! What the pipeline may do with a packet: bounds-checked reads and writes, and moving its head.

use bytemuck::{AnyBitPattern, NoUninit};

/// A frame, from the first byte of its Ethernet header.
///
/// Implemented over kernel pointers by `lb-ebpf` and over a byte slice by [`crate::frame::Frame`]. Offsets and lengths are
/// bytes. Nothing here can read or write outside the frame.
pub trait Packet {
    /// The bytes at `offset` as a `T`, or `None` if the frame does not hold all of them.
    fn read<T: AnyBitPattern>(&self, offset: usize) -> Option<T>;

    /// Puts `value` at `offset`, or changes nothing and returns `None` if the frame does not hold all of it.
    fn write<T: NoUninit>(&mut self, offset: usize, value: T) -> Option<()>;

    /// Whether the frame is at least `length` bytes long.
    fn holds(&self, length: usize) -> bool;

    /// Puts `bytes` undefined bytes in front of the frame, or returns `None` if there is no room.
    fn grow(&mut self, bytes: usize) -> Option<()>;

    /// Takes `bytes` bytes from the front of the frame, or returns `None` if it is shorter than that.
    fn shrink(&mut self, bytes: usize) -> Option<()>;

    /// Index of the interface on which the frame arrived.
    fn ingress(&self) -> u32;
}
