//! Totals.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{FlowsView, InterfaceView, ReasonCount, SamplesView, Status};

/// What was counted, all services and interfaces together: the answer to `GET /v1/stats`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Stats {
    /// Seconds since the daemon started; what is counted may be older.
    pub uptime_seconds: u64,
    /// Packets for services.
    pub packets: u64,
    /// Bytes of those that were forwarded.
    pub bytes: u64,
    /// Flows that were opened: TCP segments with SYN and without ACK.
    pub new_flows: u64,
    /// Packets that services did not forward since a limiter had them dropped.
    pub limited: u64,
    /// Packets that a service's own limiter let through unasked, since it had no bucket for their source.
    pub contended: u64,
    /// Packets that were left to the kernel, by reason.
    pub passes: Vec<ReasonCount>,
    /// Packets that were dropped, by reason.
    pub drops: Vec<ReasonCount>,
    /// Packets that were answered, by reason.
    pub answers: Vec<ReasonCount>,
    /// The flows that are remembered.
    pub flows: FlowsView,
    /// What became of the samples of packets over limits.
    pub limiter_samples: SamplesView,
}

impl From<&Status> for Stats {
    fn from(status: &Status) -> Self {
        let mut sums = Self {
            uptime_seconds: status.uptime_seconds,
            packets: 0,
            bytes: 0,
            new_flows: 0,
            limited: 0,
            contended: 0,
            passes: together(&status.interfaces, |interface| &interface.passes),
            drops: together(&status.interfaces, |interface| &interface.drops),
            answers: together(&status.interfaces, |interface| &interface.answers),
            flows: status.flows,
            limiter_samples: status.limiter_samples,
        };
        for service in &status.services {
            sums.packets += service.packets;
            sums.bytes += service.bytes;
            sums.new_flows += service.new_flows;
            sums.limited += service.limited;
            sums.contended += service.contended;
        }
        sums
    }
}

/// The counts of all interfaces, those of one reason added up.
fn together(
    interfaces: &[InterfaceView],
    of: impl Fn(&InterfaceView) -> &Vec<ReasonCount>,
) -> Vec<ReasonCount> {
    let mut sums: BTreeMap<&str, ReasonCount> = BTreeMap::new();
    for count in interfaces.iter().flat_map(of) {
        let sum = sums.entry(&count.reason).or_insert_with(|| ReasonCount { packets: 0, ..count.clone() });
        sum.packets += count.packets;
    }
    sums.into_values().collect()
}
