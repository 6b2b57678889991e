//! Tables in memory with something of their own, for tests: only what differs has to be written.

use lb_common::flow::{Detail, Entry};
use lb_common::hash::HashKey;
use lb_common::layout::{FlowCounts, Forwarded, LimiterCounts, Withheld};
use lb_common::limiter::sample::OverSample;
use lb_common::lists::Side;

use super::{
    Capacity, Counters, Datapath, ListEntry, MemoryDatapath, SampleCounts, Store, Table, TableError,
};

/// A [`Datapath`] made of another one. What is not implemented is done by the inner one.
pub(crate) trait Double: Send {
    /// The tables.
    fn inner(&self) -> &MemoryDatapath;

    /// The tables.
    fn inner_mut(&mut self) -> &mut MemoryDatapath;

    /// See [`Datapath::store`].
    fn on_store(&mut self, store: Store) -> Result<(), TableError> {
        self.inner_mut().store(store)
    }

    /// See [`Datapath::fill_list`].
    fn on_fill_list(&mut self, side: Side, entries: &[ListEntry]) -> Result<(), TableError> {
        self.inner_mut().fill_list(side, entries)
    }

    /// See [`Datapath::settle`].
    fn on_settle(&mut self) {
        self.inner_mut().settle();
    }

    /// See [`Datapath::flow`].
    fn on_flow(&self, place: usize) -> Option<(Entry, Detail)> {
        self.inner().flow(place)
    }

    /// See [`Datapath::forget`].
    fn on_forget(&mut self, place: usize, entry: Entry) -> bool {
        self.inner_mut().forget(place, entry)
    }
}

impl<D: Double> Datapath for D {
    fn hash_key(&self) -> &HashKey {
        self.inner().hash_key()
    }

    fn capacity(&self) -> Capacity {
        self.inner().capacity()
    }

    fn store(&mut self, store: Store) -> Result<(), TableError> {
        self.on_store(store)
    }

    fn contents(&self, table: Table) -> Result<Vec<u64>, TableError> {
        self.inner().contents(table)
    }

    fn list_contents(&self, side: Side) -> Result<Vec<ListEntry>, TableError> {
        self.inner().list_contents(side)
    }

    fn clear(&mut self, counters: Counters, row: u32) -> Result<(), TableError> {
        self.inner_mut().clear(counters, row)
    }

    fn fill_list(&mut self, side: Side, entries: &[ListEntry]) -> Result<(), TableError> {
        self.on_fill_list(side, entries)
    }

    fn settle(&mut self) {
        self.on_settle();
    }

    fn clock(&self) -> u64 {
        self.inner().clock()
    }

    fn flow(&self, place: usize) -> Option<(Entry, Detail)> {
        self.on_flow(place)
    }

    fn forget(&mut self, place: usize, entry: Entry) -> bool {
        self.on_forget(place, entry)
    }

    fn relay_log(&mut self) {
        self.inner_mut().relay_log();
    }

    fn forwarded(&self, row: u32) -> Result<Forwarded, TableError> {
        self.inner().forwarded(row)
    }

    fn withheld(&self, row: u32) -> Result<Withheld, TableError> {
        self.inner().withheld(row)
    }

    fn limiter_counts(&self, row: u32) -> Result<LimiterCounts, TableError> {
        self.inner().limiter_counts(row)
    }

    fn meter(&self, meter: u32) -> Result<Vec<u64>, TableError> {
        self.inner().meter(meter)
    }

    fn clear_meter(&mut self, meter: u32) -> Result<(), TableError> {
        self.inner_mut().clear_meter(meter)
    }

    fn take_over_samples(&mut self) -> Vec<OverSample> {
        self.inner_mut().take_over_samples()
    }

    fn sample_counts(&self) -> Result<SampleCounts, TableError> {
        self.inner().sample_counts()
    }

    fn flow_counts(&self) -> Result<FlowCounts, TableError> {
        self.inner().flow_counts()
    }

    fn reason(&self, row: u32, counter: u32) -> Result<u64, TableError> {
        self.inner().reason(row, counter)
    }
}
