//! What is told of those who are over limits.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::model::Action;

/// Who is over limits: the answer to `GET /v1/limited`. All of it comes from samples of packets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LimitedView {
    /// Seconds that rates are means over.
    pub seconds: f64,
    /// Packets over the limits in a second, of all sources; a packet counts once for each limiter that it is over.
    pub packets_per_second: f64,
    /// Samples in that time.
    pub samples: u64,
    /// Samples that got lost meanwhile: rates are too low by their share.
    pub samples_lost: u64,
    /// Sources that stand out from chance, of which `sources` are the first.
    pub sources_total: usize,
    /// The sources, the highest rate first.
    pub sources: Vec<LimitedSource>,
}

/// One source at one limiter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LimitedSource {
    /// Its address or prefix, as far as the limiter looks at it; absent if the limiter counts all sources together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Its packets over the limit in a second.
    pub packets_per_second: f64,
    /// How far the truth may be from that, in 19 of 20 cases.
    pub uncertainty: f64,
    /// The service whose limiter it is; absent if every service has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// The limiter's name.
    pub limiter: String,
    /// What happens to such packets.
    pub action: Action,
}

/// What became of the samples of packets over limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SamplesView {
    /// Samples that the program told.
    pub told: u64,
    /// Samples for which there was no room.
    pub lost: u64,
}
