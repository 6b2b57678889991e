//! The data plane as the daemon finds it and leaves it: one that outlives it, or one that ends with it.

use std::collections::BTreeSet;
use std::net::IpAddr;

use lb_common::hash::HashKey;

use super::DaemonError;
use crate::config::{DaemonSettings, OnExit};
use crate::datapath::pins::Plan;
use crate::datapath::{Attachment, Capacity, KernelDatapath, Pins, Room};

/// Where program and tables are.
pub(super) struct DataPlane {
    key: HashKey,
    capacity: Capacity,
    indices: Vec<u32>,
    /// What is pinned, which this process has to itself.
    pinned: Option<(Pins, Plan)>,
    on_exit: OnExit,
}

impl DataPlane {
    /// The data plane that the configuration wants: on top of the one that is there, if there is one.
    pub(super) fn find(
        settings: &DaemonSettings,
        key: HashKey,
        room: &Room,
        indices: &[u32],
    ) -> Result<Self, DaemonError> {
        let on_exit = settings.on_exit;
        // Without pins there is nothing to go on with, and nobody to share with.
        let is_pinned = on_exit == OnExit::Keep || settings.pins.exists();
        let pinned = if is_pinned {
            let pins = Pins::open(&settings.pins)?;
            let plan = pins.plan(&key, room, indices)?;
            Some((pins, plan))
        } else {
            None
        };
        Ok(Self { key, capacity: room.wanted, indices: indices.to_vec(), pinned, on_exit })
    }

    /// Loads the program onto its tables.
    pub(super) fn load(&self) -> Result<KernelDatapath, DaemonError> {
        Ok(match &self.pinned {
            Some((_, plan)) => KernelDatapath::load_planned(self.key, plan)?,
            None => KernelDatapath::load(self.key, self.capacity, &self.indices)?,
        })
    }

    /// Tries the program and brings it to the interfaces, at best from one packet to the next.
    pub(super) fn attach(
        &self,
        datapath: &mut KernelDatapath,
        vips: &BTreeSet<IpAddr>,
        interfaces: &[(String, u32)],
    ) -> Result<Vec<Attachment>, DaemonError> {
        datapath.try_out(vips)?;
        let Some((pins, plan)) = &self.pinned else {
            let attached = interfaces.iter().map(|(name, index)| datapath.attach(name, *index));
            return Ok(attached.collect::<Result<_, _>>()?);
        };
        let attachments = datapath.attach_pinned(pins, plan, interfaces)?;
        if self.on_exit == OnExit::Detach {
            // From here on this process holds everything itself.
            pins.clear()?;
        }
        Ok(attachments)
    }

    /// Says what becomes of packets when the daemon ends.
    pub(super) fn leave(&self) {
        if self.on_exit == OnExit::Keep {
            tracing::info!("packets are forwarded without a daemon from now on; `lb xdp detach` ends that");
        }
    }
}
