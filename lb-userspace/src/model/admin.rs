//! What the operator asked of one backend.

use std::time::Duration;

/// What the operator asked of one backend. How well it is, is another matter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum AdminState {
    /// Takes traffic while it is healthy.
    #[default]
    Ready,
    /// Takes no new flows, and keeps those it has until the time-out ends.
    Drain {
        /// The time-out; absent, it is the service's. See [`Service::drain_timeout`](super::Service::drain_timeout).
        timeout: Option<Duration>,
    },
    /// Out of service: its flows are given up.
    Maintenance,
}
