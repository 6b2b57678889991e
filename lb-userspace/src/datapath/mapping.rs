//! Kernel arrays mapped into this process.

use std::os::fd::AsFd;
use std::ptr::{NonNull, null_mut};
use std::sync::atomic::{AtomicU64, Ordering};

use aya::Pod;
use bytemuck::Zeroable;
use lb_common::layout::{FlowCounts, Forwarded, LimiterCounts, Withheld};
use lb_common::limiter::sample::Sampler;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// A BPF array created with `BPF_F_MMAPABLE`, as words that are stored one by one while programs read or change them.
#[derive(Debug)]
pub struct Mapping {
    start: NonNull<AtomicU64>,
    words: usize,
}

// SAFETY: the mapping belongs to the process, not to a thread, and its words are atomic.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Maps the first `words` words of an array.
    pub(super) fn new(map: impl AsFd, words: usize) -> rustix::io::Result<Self> {
        Self::part(map, 0, words)
    }

    /// Maps `words` words of an array from its word `first` on, which begins a page.
    pub(super) fn part(map: impl AsFd, first: usize, words: usize) -> rustix::io::Result<Self> {
        let (from, length) = ((first * size_of::<u64>()) as u64, words * size_of::<u64>());
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
        let start = unsafe { mmap(null_mut(), length, protection, MapFlags::SHARED, map, from) }?;
        let start = NonNull::new(start.cast()).ok_or(rustix::io::Errno::NOMEM)?;
        Ok(Self { start, words })
    }

    fn words(&self) -> &[AtomicU64] {
        // SAFETY: the mapping has this many words, is page-aligned, and lives as long as `self`.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.words) }
    }

    /// Stores a word after every word stored before; `None` beyond the end.
    pub fn store(&self, word: usize, value: u64) -> Option<()> {
        self.words().get(word)?.store(value, Ordering::Release);
        Some(())
    }

    /// A word as it is now, and before any word loaded after; `None` beyond the end.
    pub fn load(&self, word: usize) -> Option<u64> {
        Some(self.words().get(word)?.load(Ordering::Acquire))
    }

    /// All words as they are now.
    pub fn load_all(&self) -> Vec<u64> {
        self.words().iter().map(|word| word.load(Ordering::Acquire)).collect()
    }

    /// Replaces a word if it is still `old`; says whether it was, which beyond the end it never is.
    pub(super) fn exchange(&self, word: usize, old: u64, new: u64) -> bool {
        let order = Ordering::SeqCst;
        self.words().get(word).is_some_and(|word| word.compare_exchange(old, new, order, order).is_ok())
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range is the one that was mapped, and no reference into it outlives `self`.
        let unmapped = unsafe { munmap(self.start.as_ptr().cast(), self.words * size_of::<u64>()) };
        debug_assert!(unmapped.is_ok(), "the range came from mmap");
    }
}

/// A counter row, for aya's per-CPU arrays.
#[derive(Clone, Copy, Zeroable)]
#[repr(transparent)]
pub(super) struct Row<T>(pub(super) T);

// SAFETY: `Forwarded` is three integers without padding, as its derive of `bytemuck::Pod` proves.
unsafe impl Pod for Row<Forwarded> {}
// SAFETY: as for `Forwarded`.
unsafe impl Pod for Row<Withheld> {}
// SAFETY: as for `Forwarded`.
unsafe impl Pod for Row<LimiterCounts> {}
// SAFETY: as for `Forwarded`.
unsafe impl Pod for Row<FlowCounts> {}
// SAFETY: as for `Forwarded`.
unsafe impl Pod for Row<Sampler> {}
