//! A large kernel array, of which only the part that is being changed is mapped into this process.
//!
//! The tables of a thousand services are a hundred megabytes, and a change touches a few pages of them. Mapped pages count as
//! this process's memory, and whoever watches a daemon's memory should not see the kernel's.

use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;

use super::mapping::Mapping;

/// Words of a window: 1 MiB, a multiple of every page size there is.
const WINDOW_WORDS: usize = (1 << 20) / size_of::<u64>();

/// Why a word was not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum StoreError {
    /// There is no such word.
    #[error("the table ends before it")]
    End,
    /// The system has no room for a window.
    #[error("its part of the table cannot be mapped into memory: {0}")]
    Map(#[from] Errno),
}

/// A BPF array created with `BPF_F_MMAPABLE`, as words that are stored one by one while programs read them.
#[derive(Debug)]
pub(super) struct Windowed {
    map: OwnedFd,
    words: usize,
    /// The number of the window that is open, and the window.
    open: Option<(usize, Mapping)>,
}

impl Windowed {
    /// Of the first `words` words of an array. Says at once whether it can be mapped at all.
    pub(super) fn new(map: impl AsFd, words: usize) -> rustix::io::Result<Self> {
        let map = rustix::io::fcntl_dupfd_cloexec(map, 0)?;
        let mut windowed = Self { map, words, open: None };
        windowed.window(0)?;
        Ok(windowed)
    }

    /// The window of this number, which is mapped if it is not yet.
    fn window(&mut self, number: usize) -> rustix::io::Result<&Mapping> {
        let open = match self.open.take().filter(|(open, _)| *open == number) {
            Some(open) => open,
            None => (number, self.map(number)?),
        };
        Ok(&self.open.insert(open).1)
    }

    fn map(&self, number: usize) -> rustix::io::Result<Mapping> {
        let first = number * WINDOW_WORDS;
        Mapping::part(&self.map, first, WINDOW_WORDS.min(self.words - first))
    }

    /// Stores a word after every word stored before.
    pub(super) fn store(&mut self, word: usize, value: u64) -> Result<(), StoreError> {
        if word >= self.words {
            return Err(StoreError::End);
        }
        self.window(word / WINDOW_WORDS)?.store(word % WINDOW_WORDS, value).ok_or(StoreError::End)
    }

    /// All words as they are now.
    pub(super) fn load_all(&self) -> rustix::io::Result<Vec<u64>> {
        let mut words = Vec::with_capacity(self.words);
        for number in 0..self.words.div_ceil(WINDOW_WORDS) {
            words.extend(self.map(number)?.load_all());
        }
        Ok(words)
    }
}
