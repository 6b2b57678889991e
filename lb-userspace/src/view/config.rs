//! What is told of the configuration and its generations.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Applied;

/// How the configuration is: part of `GET /v1/status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ConfigStatus {
    /// The generation; the status of the whole tells it.
    #[serde(skip)]
    pub generation: u64,
    /// Where the generation comes from, such as `file /etc/lb/lb.toml`.
    pub origin: String,
    /// When it was made, in seconds since 1970.
    pub time: u64,
    /// When the files were read last, by the start or a reload, in seconds since 1970.
    pub reload_time: u64,
    /// Why the last reload changed nothing; absent if it succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reload_error: Option<String>,
    /// Until when the generation has to be confirmed, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirm_by: Option<u64>,
    /// What is not well with the state directory, a sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
}

impl ConfigStatus {
    /// What is not well, a sentence each.
    pub fn warnings(&self) -> impl Iterator<Item = String> {
        let reload =
            self.reload_error.iter().map(|error| format!("the last reload changed nothing: {error}"));
        let confirm = self.confirm_by.iter().map(|_| {
            "the generation goes away by itself unless it is confirmed (lb config confirm)".to_owned()
        });
        reload.chain(confirm).chain(self.problems.iter().cloned())
    }
}

/// What a step to another configuration would cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PlanView {
    /// Tables in which slots would get another owner.
    pub tables: usize,
    /// Slots that would.
    pub slots_moved: u64,
    /// The least that must.
    pub slots_least: u64,
    /// Slots of these tables.
    pub slots_total: u64,
    /// Flows that are remembered in the slots of the services concerned.
    pub flows: u64,
}

/// Differences between two configurations: the answer to `POST /v1/config/diff`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ConfigDiff {
    /// What would change, a line each; empty if nothing would.
    pub changes: Vec<String>,
    /// How many changes that are, however many lines they take.
    pub count: usize,
    /// What it would cost; absent if nothing would change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<PlanView>,
    /// Keys of `[daemon]` that differ, which takes a restart.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub restart: Vec<String>,
}

impl ConfigDiff {
    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.restart.is_empty()
    }
}

/// What became of a whole configuration: the answer to `PUT /v1/config` and to what undoes it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ConfigApplied {
    /// The generation and the slots.
    #[serde(flatten)]
    pub applied: Applied,
    /// What changed, a line each.
    pub changes: Vec<String>,
    /// Until when it has to be confirmed, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirm_by: Option<u64>,
}

/// A generation that is kept: an element of `GET /v1/config/history`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GenerationView {
    /// Its number.
    pub generation: u64,
    /// Whether it is in force.
    pub current: bool,
    /// When it was made, in seconds since 1970.
    pub time: u64,
    /// Where it comes from.
    pub origin: String,
    /// What it changed, a line each; the first of them if they are many.
    pub changes: Vec<String>,
}

/// The query of `PUT /v1/config` and of `POST /v1/config/reload`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct ApplyQuery {
    /// Seconds within which the change has to be confirmed, or it is undone; for ever if absent.
    #[param(minimum = 1, maximum = 604_800)]
    #[serde(default)]
    pub confirm_within: Option<u64>,
}

/// The body of `POST /v1/config/rollback`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Rollback {
    /// The generation that is to be in force again; the one before the present one if absent.
    #[serde(default)]
    pub generation: Option<u64>,
}
