//! What the daemon remembers over a restart: generations of what is wanted, each a file of its own, the last ten of them.
//!
//! A file is written beside its place, made durable and renamed into it before anybody is told that a change was made. So a
//! daemon that is killed at any moment finds the generation before or the one after, and never half of one.

mod beginning;
mod directory;
mod text;

use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

pub use self::beginning::{Beginning, begin};
pub use self::directory::{Directory, Found, StateError};
pub use self::text::{TextError, decode, encode};

use crate::config::Digest;
use crate::model::Desired;

/// Generations that are kept.
pub const KEPT: usize = 10;

/// Lines of a change that are remembered with it.
const LINES: usize = 20;

/// Where a generation comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Origin {
    /// The files, at start.
    Start {
        /// The main file.
        file: PathBuf,
    },
    /// The files, on SIGHUP or `lb config apply`.
    Reload {
        /// The main file.
        file: PathBuf,
    },
    /// A text or a change that came by the API, as most commands do.
    Api,
    /// An earlier generation, on request.
    Rollback {
        /// Its number.
        to: u64,
    },
    /// An earlier generation, since nobody confirmed the one after it.
    Unconfirmed {
        /// Its number.
        to: u64,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start { file } => write!(f, "file {}", file.display()),
            Self::Reload { file } => write!(f, "reload of {}", file.display()),
            Self::Api => f.write_str("command"),
            Self::Rollback { to } => write!(f, "rollback to {to}"),
            Self::Unconfirmed { to } => write!(f, "not confirmed, back to {to}"),
        }
    }
}

/// A generation that goes away by itself unless it is confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirm {
    /// Until when, in seconds since 1970.
    pub until: u64,
    /// The generation that comes back then.
    pub back_to: u64,
}

impl Confirm {
    /// How much time is left at `now`, in seconds since 1970.
    pub fn left(&self, now: u64) -> Duration {
        Duration::from_secs(self.until.saturating_sub(now))
    }
}

/// Everything about a generation but what is wanted in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generation {
    /// Its number: one more than that of the one before.
    pub number: u64,
    /// When it was made, in seconds since 1970.
    pub time: u64,
    /// Where it comes from.
    pub origin: Origin,
    /// What the files said that were read last before it.
    pub base: Digest,
    /// What it changed, a line each; the first of them if they are many.
    pub changes: Vec<String>,
    /// Whether it has to be confirmed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirm: Option<Confirm>,
}

impl Generation {
    /// One that is made now.
    pub fn new(number: u64, origin: Origin, base: Digest, changes: Vec<String>) -> Self {
        Self { number, time: unix_now(), origin, base, changes: shortened(changes), confirm: None }
    }
}

/// The first lines, and how many there are more.
fn shortened(mut lines: Vec<String>) -> Vec<String> {
    if lines.len() > LINES {
        let more = lines.len() - LINES;
        lines.truncate(LINES);
        lines.push(format!("and {more} more"));
    }
    lines
}

/// Seconds since 1970.
pub fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Keeps generations.
pub trait Store: Send + 'static {
    /// Makes a generation durable. If that fails, there is nothing of it.
    fn write(&mut self, generation: &Generation, desired: &Desired) -> Result<(), StateError>;

    /// Takes a generation back.
    fn remove(&mut self, number: u64) -> Result<(), StateError>;

    /// What was wanted in a generation.
    fn read(&self, number: u64) -> Result<Desired, StateError>;

    /// The generations there are, the oldest first.
    fn history(&self) -> Vec<Generation>;
}
