//! What the measuring harness tells the wrapper program that runs a program under test.

use bytemuck::{Pod, Zeroable};

/// Words of the part of a frame that is written anew for each run: all headers that a case needs.
pub const HEAD_WORDS: usize = 10;

/// One case: the frame, how it differs from run to run, and what to do with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Script {
    /// The frame's first bytes.
    pub head: [u64; HEAD_WORDS],
    /// The frame's length in bytes, at least that of `head`.
    pub length: u64,
    /// Number of flows less one; the number is a power of two.
    pub flows_mask: u64,
    /// Where the 32-bit word is that tells flows apart: the end of the source address.
    pub flow_at: u64,
    /// What that word is for flow 0, in host order.
    pub flow_base: u64,
    /// 1 to move the head away and back by 20 bytes before each run, which measures what undoing an encapsulation costs.
    pub moves_head: u64,
    /// Runs so far, a multiple of [`RUNS`] before and after each measurement.
    pub runs: u64,
    /// The exact clock at each of a measurement's [`LOOKS`].
    pub clock: [u64; LOOKS],
}

/// Runs of one measurement.
pub const RUNS: u64 = LOOKS as u64 * STRETCH;
/// How often the clock is looked at during one measurement.
pub const LOOKS: usize = 16;
/// Runs between two looks: so many that a look costs nothing, in less time than other tasks leave one a CPU.
pub const STRETCH: u64 = 1 << 13;

/// Odd, so that every flow comes once before one comes again, and far from its predecessor.
pub const STRIDE: u64 = 0x9e37_79b1;
