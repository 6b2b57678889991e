//! The lists in force, and what is told of them.

use super::{Core, ReconcileError};
use crate::datapath::Datapath;
use crate::model::{ListName, Lists};
use crate::view::{ListsView, PrefixList};

impl<D: Datapath> Core<D> {
    /// Refuses lists for which the tables have no room.
    pub(super) fn check_room(&self, lists: &Lists) -> Result<(), ReconcileError> {
        let (wanted, capacity) = (lists.len(), self.datapath.capacity().prefixes());
        if wanted > capacity as usize {
            return Err(ReconcileError::ListsFull { wanted, capacity });
        }
        Ok(())
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
