//! What is told of one backend, and what can be asked of it.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::model::{AdminState, Weight};

/// What the operator asked of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum BackendState {
    /// To take traffic while it is healthy.
    Ready,
    /// To take no new flows.
    Drain,
    /// To be out of service.
    Maintenance,
}

impl BackendState {
    /// Its word, in the configuration as in the JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Drain => "drain",
            Self::Maintenance => "maintenance",
        }
    }
}

impl From<AdminState> for BackendState {
    fn from(state: AdminState) -> Self {
        match state {
            AdminState::Ready => Self::Ready,
            AdminState::Drain { .. } => Self::Drain,
            AdminState::Maintenance => Self::Maintenance,
        }
    }
}

/// A backend's health as the checks see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
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
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct BackendView {
    /// `ADDRESS:PORT`.
    pub address: String,
    /// What the operator asked.
    pub state: BackendState,
    /// For how many seconds it still drains: 0 if its time-out is over; absent if it does not drain, or for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain_seconds_left: Option<u64>,
    /// What the checks say.
    pub health: HealthState,
    /// Configured weight.
    pub weight: Weight,
    /// The weight by which it gets new flows now: less during a slow start, 0 if it gets none.
    pub effective_weight: Weight,
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

/// The body of `POST /v1/services/{service}/backends`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AddBackend {
    /// `ADDRESS:PORT`.
    pub address: String,
    /// Its share relative to its siblings; 100 if absent.
    #[serde(default)]
    pub weight: Weight,
}

/// The body of `PATCH /v1/services/{service}/backends/{address}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetBackend {
    /// Its share relative to its siblings.
    pub weight: Weight,
}

/// The body of `POST /v1/services/{service}/backends/{address}/drain`; it may be absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DrainBackend {
    /// How long it keeps its flows, such as `5m`; as the service has it if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<String>,
}
