//! What happens, as it happens.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// What kind of thing has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum EventKind {
    /// Something else is wanted now, or was refused to a reload.
    Change,
    /// A backend went up or down.
    Health,
    /// Sources were over a limit.
    Limit,
    /// Packets were dropped.
    Drop,
    /// About the events themselves: some are missing.
    Gap,
}

impl EventKind {
    /// Its name, as JSON has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Change => "change",
            Self::Health => "health",
            Self::Limit => "limit",
            Self::Drop => "drop",
            Self::Gap => "gap",
        }
    }
}

/// One event: the `data` of a server-sent event and a message of the `WebSocket` of `GET /v1/events`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// Which one it is: `Last-Event-ID` or `after` of who wants to hear what came after it.
    pub id: String,
    /// When it happened, in seconds since 1970.
    pub time: u64,
    /// What kind of thing.
    pub kind: EventKind,
    /// The service that it happened to, if it was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// What happened, a sentence.
    pub text: String,
}

/// `health  web: backend 10.0.1.1:80 is down: connection refused`, without the time.
impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<6}  ", self.kind.name())?;
        if let Some(service) = &self.service {
            write!(f, "{service}: ")?;
        }
        f.write_str(&self.text)
    }
}

/// What `GET /v1/events` is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct EventsQuery {
    /// The `id` of the last event that is known already; only what comes from now on if absent.
    pub after: Option<String>,
}
