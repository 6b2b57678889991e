//! Going on with tables that were found filled: those of a daemon that ended while packets are forwarded.

use std::collections::BTreeSet;

use lb_common::layout::USABLE;
use lb_common::lists::Side;

use super::{Core, Ledger, ReconcileError, Record};
use crate::datapath::{Datapath, Image, ListEntry, TableError};
use crate::health::{CheckTarget, Health, HealthTracker};
use crate::model::Lists;
use crate::placement::{Placement, Services, list_entries};

impl<D: Datapath> Core<D> {
    /// A controller of tables as they are, and what it is to bring them to once it knows what is needed for that: see
    /// [`Core::begin`]. Until then packets are forwarded as they were.
    pub(in crate::controller) fn resume(datapath: D, services: Services) -> Result<Self, TableError> {
        let mut core = Self::new(datapath);
        core.begun = false;
        core.services = services;
        let found = Image::read(&core.datapath)?;
        if !found.is_empty() {
            core.adopt(found);
        }
        core.follow_health_checks();
        Ok(core)
    }

    fn adopt(&mut self, found: Image) {
        let now = self.datapath.clock();
        // A microsecond each: more than limiters are placed.
        let salt = (now >> 10) as u32;
        self.placement = Placement::adopt(&found, &self.datapath.capacity(), &self.services, salt);
        self.image = self.placement.found_in(found);
        self.ledger = Ledger::adopt(&self.placement, &self.image);
        self.side = self.image.features.get(&0).and_then(|features| features.lists());
        // A daemon may have been killed before it could forget the flows of what it had removed.
        self.forget_what_is_over();
        if let Ok(counts) = self.datapath.flow_counts() {
            self.pressure.begin(counts);
        }
        self.believe_what_was_known();
        let moving = self.placement.services().map(|(_, placed)| placed.moving()).sum::<usize>();
        let count = self.placement.services().count();
        tracing::info!(
            "going on with the tables of a daemon before: {count} services, {moving} slots on the move"
        );
    }

    /// A backend that is out of service has to pass its checks, one that is in service to fail them.
    fn believe_what_was_known(&mut self) {
        for (target, (_, check)) in self.wanted_checks() {
            let CheckTarget { service, endpoint } = &target;
            let placed = self.placement.service(service);
            let Some(row) = placed.and_then(|placed| placed.backend_row(endpoint)) else { continue };
            let is_usable = self.image.backends.get(row).is_some_and(|entry| entry.flags & USABLE != 0);
            let health = if is_usable { Health::Up } else { Health::Down };
            let tracker = HealthTracker::known(check.rise, check.fall, health);
            self.health.insert(target, Record { tracker, since: None, last: String::new() });
        }
    }

    /// Empties the tables of lists that no packet asks, which a daemon that was killed may have left filled. Says whether what
    /// packets ask is `lists` already.
    pub(super) fn adopt_lists(&mut self, lists: &Lists) -> Result<bool, ReconcileError> {
        for side in [Side::A, Side::B].into_iter().filter(|side| Some(*side) != self.side) {
            if !self.datapath.list_contents(side)?.is_empty() {
                self.datapath.fill_list(side, &[])?;
            }
        }
        Ok(match self.side {
            None => *lists == Lists::default(),
            Some(side) => self.holds(side, lists)?,
        })
    }

    fn holds(&self, side: Side, lists: &Lists) -> Result<bool, TableError> {
        let wanted: BTreeSet<ListEntry> = list_entries(lists).into_iter().collect();
        Ok(self.datapath.list_contents(side)?.into_iter().collect::<BTreeSet<_>>() == wanted)
    }
}
