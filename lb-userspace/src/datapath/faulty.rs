//! Tables that refuse a store, for tests of what happens then.

use lb_common::lists::Side;

use super::double::Double;
use super::{Datapath as _, ListEntry, MemoryDatapath, Store, TableError};

/// Tables in memory that refuse one store and take all others.
pub(crate) struct Faulty {
    inner: MemoryDatapath,
    /// Stores, and lists to be filled, until the one that is refused, that one included; 0 if none is to be.
    left: usize,
}

impl Faulty {
    /// Refuses the n-th store from now on; none if `nth` is 0.
    pub(crate) fn new(inner: MemoryDatapath, nth: usize) -> Self {
        Self { inner, left: nth }
    }

    fn count(&mut self) -> Result<(), TableError> {
        let refused = self.left == 1;
        self.left = self.left.saturating_sub(1);
        if refused {
            return Err(TableError { table: "test", entry: 0, reason: "injected".to_owned() });
        }
        Ok(())
    }

    /// Refuses the n-th store from now on.
    pub(crate) fn refuse(&mut self, nth: usize) {
        self.left = nth;
    }

    /// Whether none has been refused yet that was to be.
    pub(crate) fn is_unspent(&self) -> bool {
        self.left > 0
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
        self.count()?;
        self.inner.store(store)
    }

    fn on_fill_list(&mut self, side: Side, entries: &[ListEntry]) -> Result<(), TableError> {
        if let Err(error) = self.count() {
            self.inner.fill_list(side, &entries[..entries.len() / 2])?;
            return Err(error);
        }
        self.inner.fill_list(side, entries)
    }
}
