//! What is wanted takes the place of what was wanted before.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::super::edits::Edited;
use super::super::janitor;
use super::{ChangeError, Core, ReconcileError};
use crate::datapath::Datapath;
use crate::model::Desired;
use crate::placement::{Moves, Services, Touched, empty_list, fill_lists, retire_lists};
use crate::view::{Applied, PlanView};

impl<D: Datapath> Core<D> {
    /// Begins with what is wanted, as the generation of this number.
    pub(in crate::controller) fn begin(
        &mut self,
        desired: Desired,
        generation: u64,
    ) -> Result<(), ReconcileError> {
        self.begun = true;
        let listed = !self.adopt_lists(&desired.lists)?;
        self.replace(desired, listed)?;
        self.generation = generation;
        Ok(())
    }

    /// Addresses of backends to which no way is known yet.
    pub(in crate::controller) fn newcomers(&self, desired: &Desired) -> BTreeSet<IpAddr> {
        let changed = desired
            .services
            .values()
            .filter(|service| !self.services.agree_on(&desired.services, &service.name));
        let addresses = changed.flat_map(|service| &service.backends).map(|backend| backend.endpoint.address);
        addresses.filter(|address| !self.next_hops.contains_key(address)).collect()
    }

    /// Makes `desired` what is wanted, whole or not at all.
    ///
    /// New lists are filled into the table that no packet asks, so that one step makes packets see all of the change.
    pub(in crate::controller) fn transact(&mut self, desired: Desired) -> Result<Moves, ReconcileError> {
        let listed = desired.lists != self.lists;
        self.replace(desired, listed)
    }

    /// [`Self::transact`], with other lists than the tables hold if `listed`.
    fn replace(&mut self, desired: Desired, listed: bool) -> Result<Moves, ReconcileError> {
        let Desired { services, lists } = desired;
        self.check_room(&lists)?;
        let asked = self.side;
        if listed {
            self.side = fill_lists(&mut self.datapath, asked, &lists)?;
        }
        self.pending.add(changed(&self.services, &services));
        let before = std::mem::replace(&mut self.services, services);
        let result = self.reconcile();
        if result.is_ok() {
            self.lists = lists;
            self.follow_health_checks();
        } else {
            self.services = before;
        }
        if listed {
            if result.is_ok() {
                retire_lists(&mut self.datapath, asked);
            } else {
                let filled = std::mem::replace(&mut self.side, asked);
                empty_list(&mut self.datapath, filled);
            }
        }
        result
    }

    /// Applies a change as a generation of this number, whole or not at all.
    pub(in crate::controller) fn commit(
        &mut self,
        edited: Edited,
        generation: u64,
    ) -> Result<Applied, ChangeError> {
        let Edited { desired, mut summary, concerned, newcomer } = edited;
        let moves = self.transact(desired).map_err(|error| ChangeError::Refused(error.to_string()))?;
        self.generation = generation;
        if let Some(reason) = newcomer.and_then(|(name, endpoint)| self.obstacle(&name, endpoint)) {
            summary = format!("{summary}, but takes no traffic yet: {reason}");
        }
        let concerned = concerned.and_then(|name| self.services.get(&name));
        Ok(Applied {
            generation,
            summary,
            slots_moved: moves.moved as u64,
            slots_least: moves.least as u64,
            slots_total: concerned.map_or(moves.slots as u64, |service| u64::from(service.table_size)),
        })
    }

    /// What it would cost to make `desired` what is wanted, or why that cannot be. Nothing changes.
    pub(in crate::controller) fn plan(&self, desired: &Desired) -> Result<PlanView, ReconcileError> {
        self.check_room(&desired.lists)?;
        let changed = changed(&self.services, &desired.services);
        let (next, ..) = self
            .next_placement(&desired.services, changed, |service, backend| self.may_live(service, backend))?;
        let Moves { moved, least, tables, slots } = next.moves_since(&self.placement);
        let [slots_moved, slots_least, slots_total] = [moved, least, slots].map(|count| count as u64);
        let flows = janitor::count(&self.datapath, &self.placement.concerned_slots(&next));
        Ok(PlanView { tables, slots_moved, slots_least, slots_total, flows })
    }
}

/// The services that are not the same in both.
fn changed(before: &Services, after: &Services) -> Touched {
    let differ = |one: &Services, other: &Services| -> Touched {
        one.values().filter(|service| !one.agree_on(other, &service.name)).map(|s| s.name.clone()).collect()
    };
    let mut changed = differ(before, after);
    changed.add(differ(after, before));
    changed
}
