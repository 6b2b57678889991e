//! The lists in force: a table is filled, packets are made to ask it, and only then is the one before emptied.

use lb_common::lists::Side;

use super::super::lists::ListChange;
use super::{ChangeError, Core, ReconcileError};
use crate::datapath::{Datapath, TableError, apply};
use crate::model::{ListName, Lists};
use crate::placement::{ask_lists, list_entries};
use crate::view::{Applied, ListsView, PrefixList};

impl<D: Datapath> Core<D> {
    /// Makes `lists` the ones in force, whole or not at all.
    pub(in crate::controller) fn set_lists(&mut self, lists: Lists) -> Result<(), ReconcileError> {
        let (wanted, capacity) = (lists.len(), self.datapath.capacity().prefixes());
        if wanted > capacity as usize {
            return Err(ReconcileError::ListsFull { wanted, capacity });
        }
        if lists == self.lists {
            return Ok(());
        }
        let before = self.side;
        let after = (!lists.is_empty()).then(|| before.map_or(Side::A, Side::other));
        if let Err(error) = self.ask(after, &lists) {
            self.empty(after);
            return Err(error.into());
        }
        (self.lists, self.side) = (lists, after);
        self.generation += 1;
        if before.is_some() {
            self.datapath.settle();
        }
        self.empty(before);
        Ok(())
    }

    /// Fills the table of a side and makes packets ask it.
    fn ask(&mut self, side: Option<Side>, lists: &Lists) -> Result<(), TableError> {
        if let Some(side) = side {
            self.datapath.fill_list(side, &list_entries(lists))?;
        }
        let mut image = self.image.clone();
        ask_lists(&mut image, side);
        apply(&mut self.datapath, &self.image, &image)?;
        self.image = image;
        Ok(())
    }

    /// Empties a table that no packet asks. If that fails it takes up memory until it is filled again, nothing worse.
    fn empty(&mut self, side: Option<Side>) {
        if let Some(Err(error)) = side.map(|side| self.datapath.fill_list(side, &[])) {
            tracing::warn!("a list that is not in force stays in memory: {error}");
        }
    }

    /// Applies an operator's change, whole or not at all.
    pub(in crate::controller) fn change_list(&mut self, change: &ListChange) -> Result<Applied, ChangeError> {
        let (lists, summary) = change.edited(&self.lists)?;
        self.set_lists(lists).map_err(|error| ChangeError::Refused(error.to_string()))?;
        tracing::info!("generation {}: {summary}", self.generation);
        let generation = self.generation;
        Ok(Applied { generation, summary, slots_moved: 0, slots_least: 0, slots_total: 0 })
    }

    /// One list.
    pub(in crate::controller) fn list(&self, list: ListName) -> PrefixList {
        PrefixList { prefixes: self.lists.of(list).iter().map(ToString::to_string).collect() }
    }

    /// How full the lists are.
    pub(super) fn lists_view(&self) -> ListsView {
        let count = |list| self.lists.of(list).len() as u64;
        ListsView {
            denied: count(ListName::Deny),
            allowed: count(ListName::Allow),
            capacity: self.datapath.capacity().prefixes().into(),
        }
    }
}
