//! A [`Packet`] over ordinary memory, for tests, fuzzers and tools.

use bytemuck::{AnyBitPattern, NoUninit};

use crate::checksum::Sum;
use crate::packet::{Onward, Packet, Routed};

/// A frame inside a buffer that leaves headroom in front of it, as the kernel's XDP buffers do.
#[derive(Debug)]
pub struct Frame<'a> {
    buffer: &'a mut [u8],
    start: usize,
    end: usize,
    ingress: u32,
    routes: fn(&Routed) -> Onward,
}

impl<'a> Frame<'a> {
    /// The frame that begins `headroom` bytes into `buffer` and ends with it; an empty frame if the buffer is shorter.
    pub fn new(buffer: &'a mut [u8], headroom: usize, ingress: u32) -> Self {
        let start = headroom.min(buffer.len());
        let end = buffer.len();
        // A frame in memory is on no host.
        Self { buffer, start, end, ingress, routes: |_| Onward::Nowhere }
    }

    /// The same frame on a host with routes.
    #[must_use]
    pub fn with_routes(self, routes: fn(&Routed) -> Onward) -> Self {
        Self { routes, ..self }
    }

    /// The frame's bytes as they are now.
    pub fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    fn range(&self, offset: usize, length: usize) -> Option<core::ops::Range<usize>> {
        let from = self.start.checked_add(offset)?;
        let to = from.checked_add(length)?;
        (to <= self.end).then_some(from..to)
    }
}

impl Packet for Frame<'_> {
    fn read<T: AnyBitPattern>(&self, offset: usize) -> Option<T> {
        let range = self.range(offset, size_of::<T>())?;
        Some(bytemuck::pod_read_unaligned(&self.buffer[range]))
    }

    fn write<T: NoUninit>(&mut self, offset: usize, value: T) -> Option<()> {
        let range = self.range(offset, size_of::<T>())?;
        self.buffer[range].copy_from_slice(bytemuck::bytes_of(&value));
        Some(())
    }

    fn holds(&self, length: usize) -> bool {
        self.range(0, length).is_some()
    }

    fn length(&self) -> usize {
        self.bytes().len()
    }

    fn sum(&self, offset: usize, length: usize) -> Option<Sum> {
        let range = self.range(offset, length)?;
        Some(Sum::default().add_bytes(&self.buffer[range]))
    }

    fn truncate(&mut self, length: usize) -> Option<()> {
        self.range(0, length)?;
        self.end = self.start + length;
        Some(())
    }

    fn grow(&mut self, bytes: usize) -> Option<()> {
        self.start = self.start.checked_sub(bytes)?;
        Some(())
    }

    fn shrink(&mut self, bytes: usize) -> Option<()> {
        self.range(0, bytes)?;
        self.start += bytes;
        Some(())
    }

    fn ingress(&self) -> u32 {
        self.ingress
    }

    fn route(&self, packet: &Routed) -> Onward {
        (self.routes)(packet)
    }
}
