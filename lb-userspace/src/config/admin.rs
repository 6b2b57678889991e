//! The state of a backend, drains and slow starts.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::document::Section;
use super::units::{DurationError, parse_duration};
use crate::model::AdminState;

const SECOND: Duration = Duration::from_secs(1);
/// Whoever has not gone within a week never will.
pub(super) const DRAIN_TIMEOUTS: RangeInclusive<Duration> = SECOND..=Duration::from_hours(168);
pub(super) const SLOW_STARTS: RangeInclusive<Duration> = SECOND..=Duration::from_hours(24);

/// Why a text is not how long a backend drains or its weight rises.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PaceError {
    /// It does not look like a duration.
    #[error(transparent)]
    Syntax(#[from] DurationError),
    /// It ends drains at once, or never.
    #[error(
        "{0:?} is not from 1s to 168h; without a time-out drains have no end, and maintenance ends flows at once"
    )]
    Drain(String),
    /// It is no slow start, or no start any more.
    #[error("{0:?} is neither \"0s\" nor from 1s to 24h")]
    SlowStart(String),
}

/// Reads how long a backend drains: from 1s to 168h.
pub fn parse_drain_timeout(text: &str) -> Result<Duration, PaceError> {
    let timeout = parse_duration(text)?;
    let fits = DRAIN_TIMEOUTS.contains(&timeout);
    if fits { Ok(timeout) } else { Err(PaceError::Drain(text.to_owned())) }
}

/// Reads how long weights rise: from 1s to 24h, or `0s` for not at all.
pub fn parse_slow_start(text: &str) -> Result<Option<Duration>, PaceError> {
    let time = parse_duration(text)?;
    let fits = time.is_zero() || SLOW_STARTS.contains(&time);
    if fits {
        Ok(Some(time).filter(|time| !time.is_zero()))
    } else {
        Err(PaceError::SlowStart(text.to_owned()))
    }
}

/// The keys `state` and `drain_timeout` of a backend.
pub(super) fn read_admin_state(section: &Section<'_>) -> AdminState {
    let timeout = section.optional("drain_timeout");
    let state = section.optional("state").and_then(|node| {
        node.word(&[
            ("ready", AdminState::Ready),
            ("drain", AdminState::Drain { timeout: None }),
            ("maintenance", AdminState::Maintenance),
        ])
    });
    match (state.unwrap_or_default(), timeout) {
        (AdminState::Drain { .. }, Some(node)) => {
            AdminState::Drain { timeout: node.read_with(parse_drain_timeout) }
        }
        (state, Some(node)) => {
            node.note("only a drain has a time-out; remove the key, or write state = \"drain\"");
            state
        }
        (state, None) => state,
    }
}
