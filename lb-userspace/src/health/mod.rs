//! Health checks: which backends accept TCP connections.
//!
//! [`Checker`] makes the checks and reports each outcome; [`HealthTracker`] decides from a backend's outcomes, by rise
//! and fall, whether it is up. The one has no opinion and the other does no I/O.

mod checker;
mod connect;
mod tracker;

pub use checker::{CheckReport, CheckTarget, Checker};
pub use connect::CheckOutcome;
pub use tracker::{Health, HealthTracker};
