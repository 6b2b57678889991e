//! What the daemon tells: the JSON of the API, the input of the CLI's tables and of the metrics.

use serde::{Deserialize, Serialize};

use crate::model::{AdminState, ForwardMode, Protocol, Weight};

/// The daemon as a whole: `GET /v1/status`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The daemon's version.
    pub version: String,
    /// Seconds since the daemon started.
    pub uptime_seconds: u64,
    /// Number of applied changes since start, the configuration file being the first.
    pub generation: u64,
    /// The interfaces the program is attached to.
    pub interfaces: Vec<InterfaceView>,
    /// Every service.
    pub services: Vec<ServiceView>,
    /// The flows that are remembered, all services together.
    pub flows: FlowsView,
    /// What is not well, a sentence each; empty when all is well.
    pub warnings: Vec<String>,
}

/// Flows in moving slots, which have to be remembered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowsView {
    /// Flows that are remembered, to within those forgotten since the last sweep, a few seconds ago.
    pub remembered: u64,
    /// Flows that can be remembered.
    pub capacity: u64,
    /// Packets of remembered flows.
    pub known: u64,
    /// Flows remembered in a vacant place.
    pub added: u64,
    /// Flows remembered in the place of another.
    pub evicted: u64,
    /// Flows that could not be remembered, since CPUs got in each other's way.
    pub contended: u64,
}

/// The slots of a service's table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotsView {
    /// Slots whose flows all belong to one backend.
    pub settled: u64,
    /// Slots that changed their owner and remember flows.
    pub moving: u64,
}

/// One attached interface and what happened there to packets that were not forwarded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InterfaceView {
    /// The interface's name.
    pub name: String,
    /// `native` or `generic`.
    pub mode: String,
    /// Packets handed to the host's stack, by reason; reasons never seen are absent.
    pub passes: Vec<ReasonCount>,
    /// Packets dropped, by reason; reasons never seen are absent.
    pub drops: Vec<ReasonCount>,
}

/// How often one reason was the outcome.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReasonCount {
    /// The reason's label, from a closed set.
    pub reason: String,
    /// What it means, a sentence.
    pub meaning: String,
    /// Packets since the program was loaded.
    pub packets: u64,
}

/// One service: an element of `GET /v1/services`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceView {
    /// The service's name.
    pub name: String,
    /// `ADDRESS:PORT`.
    pub vip: String,
    /// The transport protocol.
    pub protocol: Protocol,
    /// How packets travel to the backends.
    pub mode: ForwardMode,
    /// The limit in words, such as `1000 packets/s per source, burst 200`; `None` if unlimited.
    pub limit: Option<String>,
    /// Slots of its Maglev table.
    pub table_size: u32,
    /// Its slots now; none while no backend is alive.
    pub slots: SlotsView,
    /// Backends that take traffic now.
    pub backends_serving: usize,
    /// Backends configured.
    pub backends_total: usize,
    /// Packets received for the service since its start, forwarded and dropped.
    pub packets: u64,
    /// Bytes forwarded (IP length plus Ethernet header).
    pub bytes: u64,
    /// TCP connection attempts (SYN) and nothing for UDP.
    pub new_flows: u64,
    /// Packets dropped by the limiter.
    pub limited: u64,
    /// Packets let through because the limiter's set was full of other busy sources.
    pub contended: u64,
}

/// A backend's health as the checks see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthState {
    /// No check is configured: believed well.
    Unchecked,
    /// The last checks passed, or none has finished yet.
    Up,
    /// The last checks failed.
    Down,
}

/// One backend: an element of `GET /v1/services/{service}/backends`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BackendView {
    /// `ADDRESS:PORT`.
    pub address: String,
    /// What the operator asked.
    pub state: AdminState,
    /// What the checks say.
    pub health: HealthState,
    /// Configured weight.
    pub weight: Weight,
    /// Fraction of the service's slots it owns, 0 to 1: of new flows.
    pub share: f64,
    /// How packets reach it, such as `eth0 via 10.0.0.1 (02:00:00:00:00:01)`, or why they cannot.
    pub next_hop: String,
    /// Whether the next hop is known.
    pub reachable: bool,
    /// Packets forwarded to it.
    pub packets: u64,
    /// Bytes forwarded to it.
    pub bytes: u64,
    /// Seconds since its health last changed; absent before the first check.
    pub since_seconds: Option<u64>,
    /// The last check in words, such as `connected in 0.4 ms`; empty before the first.
    pub last_check: String,
}

/// What a change did: the answer to every accepted change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Applied {
    /// The generation this change made.
    pub generation: u64,
    /// What was changed, a sentence.
    pub summary: String,
    /// Slots whose owner changed.
    pub slots_moved: u64,
    /// The least that had to move for this change.
    pub slots_least: u64,
    /// Slots of the tables concerned.
    pub slots_total: u64,
}

/// The body of `POST /v1/services/{service}/backends`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddBackend {
    /// `ADDRESS:PORT`.
    pub address: String,
    /// Its share relative to its siblings; 100 if absent.
    #[serde(default)]
    pub weight: Weight,
}

/// The body of `PATCH /v1/services/{service}/backends/{address}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetBackend {
    /// Its share relative to its siblings.
    pub weight: Weight,
}

/// An answer that is not a success, as `application/problem+json` (RFC 9457).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The kind of problem in a few words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What happened and what to do, a sentence.
    pub detail: String,
}
