//! Tables that refuse a store, for tests of what happens then.

use super::double::Double;
use super::{Datapath as _, MemoryDatapath, Store, TableError};

/// Tables in memory that refuse one store and take all others.
pub(crate) struct Faulty {
    inner: MemoryDatapath,
    /// Stores until the one that is refused, that one included; 0 if none is to be.
    left: usize,
}

impl Faulty {
    /// Refuses the n-th store from now on; none if `nth` is 0.
    pub(crate) fn new(inner: MemoryDatapath, nth: usize) -> Self {
        Self { inner, left: nth }
    }

    /// Refuses the n-th store from now on.
    pub(crate) fn refuse(&mut self, nth: usize) {
        self.left = nth;
    }

    /// The tables as they are.
    pub(crate) fn tables(&self) -> &MemoryDatapath {
        &self.inner
    }
}

impl Double for Faulty {
    fn inner(&self) -> &MemoryDatapath {
        &self.inner
    }

    fn inner_mut(&mut self) -> &mut MemoryDatapath {
        &mut self.inner
    }

    fn on_store(&mut self, store: Store) -> Result<(), TableError> {
        let refused = self.left == 1;
        self.left = self.left.saturating_sub(1);
        if refused {
            return Err(TableError { table: "test", entry: 0, reason: "injected".to_owned() });
        }
        self.inner.store(store)
    }
}
