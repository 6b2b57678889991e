//! The lists in force, and what is told of them.

use super::super::lists::ListChange;
use super::{ChangeError, Core, ReconcileError};
use crate::datapath::Datapath;
use crate::model::{ListName, Lists};
use crate::placement::{Replaced, replace_lists};
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
        self.replace_lists(lists)
    }

    pub(super) fn replace_lists(&mut self, lists: Lists) -> Result<(), ReconcileError> {
        let Replaced { image, side } = replace_lists(&mut self.datapath, &self.image, self.side, &lists)?;
        (self.image, self.side, self.lists) = (image, side, lists);
        self.generation += 1;
        Ok(())
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
