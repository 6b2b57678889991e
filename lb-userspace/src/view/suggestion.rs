//! What is told of a meter.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::config::LimitKeys;

/// A limiter proposed from what another, which only counts, has measured: an element of
/// `GET /v1/services/{service}/suggestions` and of `GET /v1/suggestions`.
///
/// Both parameters may be absent: `limiter`, the one limiter that is asked about, and `quantile`, of how many sources of a
/// hundred the proposed one is to limit none: from 50 to 100, else 99.9.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Suggestion {
    /// The service that has the limiter; absent if every service has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// The limiter's name.
    pub limiter: String,
    /// Seconds since it began to measure.
    pub watched_seconds: u64,
    /// About how many sources (addresses or prefixes, as its scope has it) have sent what it counts.
    pub sources: u64,
    /// Packets that are missing here, since too many sources sent in the same second.
    pub contended: u64,
    /// What they sent in the busiest second of each.
    pub busiest: Vec<Busiest>,
    /// Of a hundred sources, so many would never have been limited.
    pub quantile: f64,
    /// The proposed limiter in words, such as `320 packets/s per source, burst 640`.
    pub words: String,
    /// The same as the configuration has it, without the name.
    pub settings: LimitKeys,
    /// About how many sources it would have limited, at most.
    pub hits: u64,
    /// The command that makes the proposed limiter of the one that has measured.
    pub command: String,
}

/// A point of the distribution of sources by their busiest second.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Busiest {
    /// Of a hundred sources, so many
    pub percent: f64,
    /// never sent more than so many packets, bits or connections in a second, to a quarter.
    pub rate: u64,
}
