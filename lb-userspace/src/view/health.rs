//! What is told of health checks.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::HealthState;

/// One backend's health check: an element of the answer to `GET /v1/health`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CheckView {
    /// The service.
    pub service: String,
    /// The backend, as `ADDRESS:PORT`.
    pub backend: String,
    /// What is asked, as `ADDRESS:PORT`: the port may be another one than the backend's.
    pub target: String,
    /// What the balancer goes by.
    pub health: HealthState,
    /// Seconds since that changed; absent before the first check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_seconds: Option<u64>,
    /// Milliseconds between two checks.
    pub interval_ms: u64,
    /// Checks in a row that must pass before a backend that is down is up.
    pub rise: u32,
    /// Checks in a row that must fail before a backend that is up is down.
    pub fall: u32,
    /// How the last check ended; empty before it.
    pub last_check: String,
}
