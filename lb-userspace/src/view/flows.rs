//! What is told of flows and of slots.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::model::Protocol;

/// How far a remembered flow got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum FlowStage {
    /// One packet was seen: perhaps one of a flood.
    Fresh,
    /// More than one was.
    Confirmed,
}

/// A flow that is remembered because its slot moves: an element of the answer to `GET /v1/flows`. What is remembered is a keyed
/// hash, from which nobody can tell the flow's addresses; `GET /v1/flows/lookup` goes the other way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FlowView {
    /// The hash: 16 hexadecimal digits.
    pub hash: String,
    /// The service.
    pub service: String,
    /// The flow's slot, counted from the service's first.
    pub slot: u32,
    /// The backend it goes to, as `ADDRESS:PORT`; absent if that one was removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<String>,
    /// How far it got.
    pub stage: FlowStage,
    /// Seconds since its last packet, to within two.
    pub idle_seconds: u64,
}

/// A part of the flows that are remembered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlowPage {
    /// The flows.
    pub flows: Vec<FlowView>,
    /// The place in the flow table to go on from; `None` at its end.
    pub next: Option<u64>,
}

/// How many flows are remembered of one backend: an element of the answer to `GET /v1/flows/count`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FlowCount {
    /// The service.
    pub service: String,
    /// The backend, as `ADDRESS:PORT`; absent for all those together that were removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<String>,
    /// Flows of which one packet was seen.
    pub fresh: u64,
    /// Flows of which more than one was.
    pub confirmed: u64,
}

/// A flow by its addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowName {
    /// The transport protocol.
    pub protocol: Protocol,
    /// Where its packets come from.
    pub source: SocketAddr,
    /// Where they go to, of the same family: an address and a port that a service has.
    pub vip: SocketAddr,
}

/// Where a flow's packets go: the answer to `GET /v1/flows/lookup`. The limiters and the lists were not asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FlowLookup {
    /// The service that takes them.
    pub service: String,
    /// The flow's hash: 16 hexadecimal digits.
    pub hash: String,
    /// The flow's slot, counted from the service's first; absent if no backend takes traffic, and packets are dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<u32>,
    /// Whether this slot changed its owner and remembers flows.
    pub moving: bool,
    /// The backend that a packet of the flow goes to, as `ADDRESS:PORT`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<String>,
    /// The backend that a packet goes to which opens the flow anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opens_at: Option<String>,
    /// What is remembered of the flow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remembered: Option<FlowView>,
    /// Why it goes there, a sentence.
    pub reason: String,
}

/// The slots of one service: the answer to `GET /v1/services/{service}/slots`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ServiceSlots {
    /// Slots of the service's table.
    pub table_size: u32,
    /// Slots whose flows all belong to one backend.
    pub settled: u64,
    /// Slots that changed their owner and remember flows.
    pub moving: u64,
    /// Its backends, in the order of the configuration.
    pub backends: Vec<BackendSlots>,
}

/// The slots of one backend.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct BackendSlots {
    /// The backend, as `ADDRESS:PORT`.
    pub address: String,
    /// Slots whose new flows go to it.
    pub owned: u32,
    /// Their part of all slots.
    pub share: f64,
    /// The part that its weight asks for.
    pub wanted_share: f64,
    /// Of those, slots that move: flows older than the move may be elsewhere.
    pub arriving: u32,
    /// Slots that others own and whose flows older than the move are taken to be here.
    pub leaving: u32,
}

impl FlowName {
    /// The flow from one `ADDRESS:PORT` to another, or a sentence about what is wrong with them.
    pub fn parse(protocol: Protocol, source: &str, vip: &str) -> Result<Self, String> {
        let [source, vip] = [("source", source), ("vip", vip)].map(|(name, text)| {
            text.parse::<SocketAddr>().map_err(|_| {
                format!(
                    "{name}: {text:?} is no ADDRESS:PORT such as 198.51.100.7:40000 or [2001:db8::7]:40000"
                )
            })
        });
        let flow = Self { protocol, source: source?, vip: vip? };
        if flow.source.is_ipv4() == flow.vip.is_ipv4() { Ok(flow) } else { Err(flow.contradiction()) }
    }

    /// What to say if its addresses are not of one family.
    pub(crate) fn contradiction(&self) -> String {
        let (source, vip) = (self.source.ip(), self.vip.ip());
        format!("no packet goes from {source} to {vip}: give two addresses of one family")
    }
}
