//! Tables that refuse a store, for tests of what happens then.

use lb_common::flow::{Detail, Entry};
use lb_common::layout::{FlowCounts, Forwarded, Withheld};

use super::{Capacity, Datapath, MemoryDatapath, Store, TableError};

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

impl Datapath for Faulty {
    fn capacity(&self) -> Capacity {
        self.inner.capacity()
    }

    fn store(&mut self, store: Store) -> Result<(), TableError> {
        let refused = self.left == 1;
        self.left = self.left.saturating_sub(1);
        if refused {
            return Err(TableError { table: "test", entry: 0, reason: "injected".to_owned() });
        }
        self.inner.store(store)
    }

    fn settle(&mut self) {
        self.inner.settle();
    }

    fn clock(&self) -> u64 {
        self.inner.clock()
    }

    fn flow(&self, place: usize) -> Option<(Entry, Detail)> {
        self.inner.flow(place)
    }

    fn forget(&mut self, place: usize, entry: Entry) -> bool {
        self.inner.forget(place, entry)
    }

    fn relay_log(&mut self) {
        self.inner.relay_log();
    }

    fn forwarded(&self, row: u32) -> Result<Forwarded, TableError> {
        self.inner.forwarded(row)
    }

    fn withheld(&self, row: u32) -> Result<Withheld, TableError> {
        self.inner.withheld(row)
    }

    fn flow_counts(&self) -> Result<FlowCounts, TableError> {
        self.inner.flow_counts()
    }

    fn reason(&self, row: u32, counter: u32) -> Result<u64, TableError> {
        self.inner.reason(row, counter)
    }
}
