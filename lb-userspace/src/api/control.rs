//! What API and metrics ask of the controller.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::controller::{
    Change, ChangeError, ControllerGone, FlowsQuery, Handle, ListChange, SuggestionQuery,
};
use crate::journal::Journal;
use crate::model::{ListName, Service};
use crate::view::{
    Applied, BackendView, CheckView, ConfigApplied, ConfigDiff, FlowCount, FlowLookup, FlowName, FlowPage,
    GenerationView, InterfaceView, LimitView, LimitedView, PlanView, PrefixList, ServiceSlots, Status,
    Suggestion,
};

/// What every handler has at hand.
pub type Shared = Arc<dyn Control>;

/// The controller as its users see it; tests put a double in its place.
#[async_trait]
pub trait Control: Send + Sync + 'static {
    /// The same, whose changes are refused unless this generation is in force.
    fn expecting(&self, generation: u64) -> Shared;
    /// The generation that is in force.
    fn generation(&self) -> u64;
    /// The daemon as a whole.
    async fn status(&self) -> Result<Status, ControllerGone>;
    /// What became of packets on each interface.
    async fn interfaces(&self) -> Result<Vec<InterfaceView>, ControllerGone>;
    /// Where it is told what happens.
    fn journal(&self) -> &Journal;
    /// A service as it is wanted.
    async fn service(&self, name: &str) -> Result<Service, ChangeError>;
    /// The backends of one service.
    async fn backends(&self, service: &str) -> Result<Vec<BackendView>, ChangeError>;
    /// The limiters that packets of one service meet, or all there are.
    async fn limits(&self, service: Option<&str>) -> Result<Vec<LimitView>, ChangeError>;
    /// What limiters propose that only count.
    async fn suggestions(&self, query: SuggestionQuery) -> Result<Vec<Suggestion>, ChangeError>;
    /// Who is over the limits that packets of one service meet, or over any: the first `most` sources.
    async fn limited(&self, service: Option<&str>, most: usize) -> Result<LimitedView, ChangeError>;
    /// A part of the flows that are remembered.
    async fn flows(&self, query: FlowsQuery) -> Result<FlowPage, ChangeError>;
    /// How many flows are remembered of each backend of a service, or of all.
    async fn count_flows(&self, service: Option<&str>) -> Result<Vec<FlowCount>, ChangeError>;
    /// Where a flow's packets go.
    async fn lookup(&self, flow: FlowName) -> Result<FlowLookup, ChangeError>;
    /// Who owns the slots of a service.
    async fn slots(&self, service: &str) -> Result<ServiceSlots, ChangeError>;
    /// The health checks of a service, or all there are.
    async fn checks(&self, service: Option<&str>) -> Result<Vec<CheckView>, ChangeError>;
    /// What a change would cost, which is not made.
    async fn weigh(&self, change: Change) -> Result<PlanView, ChangeError>;
    /// Applies a change whole, or refuses it whole.
    async fn change(&self, change: Change) -> Result<Applied, ChangeError>;
    /// The prefixes on a list.
    async fn list(&self, list: ListName) -> Result<PrefixList, ControllerGone>;
    /// Applies a change of a list whole, or refuses it whole.
    async fn change_list(&self, change: ListChange) -> Result<Applied, ChangeError>;
    /// The configuration in force, as text.
    async fn config(&self) -> Result<String, ControllerGone>;
    /// What a configuration, or else what the files say, would change.
    async fn diff_config(&self, text: Option<String>) -> Result<ConfigDiff, ChangeError>;
    /// Puts a configuration, or else what the files say, in force, to be confirmed within the time given.
    async fn apply_config(
        &self,
        text: Option<String>,
        confirm_within: Option<Duration>,
    ) -> Result<ConfigApplied, ChangeError>;
    /// The generations that are kept, the oldest first.
    async fn history(&self) -> Result<Vec<GenerationView>, ControllerGone>;
    /// Goes back to a generation, or to the one before.
    async fn roll_back(&self, generation: Option<u64>) -> Result<ConfigApplied, ChangeError>;
    /// Keeps a generation that waits to be confirmed.
    async fn confirm(&self) -> Result<ConfigApplied, ChangeError>;
}

#[async_trait]
impl Control for Handle {
    fn expecting(&self, generation: u64) -> Shared {
        Arc::new(Self::expecting(self, generation))
    }

    fn generation(&self) -> u64 {
        Self::generation(self)
    }

    async fn status(&self) -> Result<Status, ControllerGone> {
        Self::status(self).await
    }

    async fn interfaces(&self) -> Result<Vec<InterfaceView>, ControllerGone> {
        Self::interfaces(self).await
    }

    fn journal(&self) -> &Journal {
        Self::journal(self)
    }

    async fn service(&self, name: &str) -> Result<Service, ChangeError> {
        Self::service(self, name).await
    }

    async fn backends(&self, service: &str) -> Result<Vec<BackendView>, ChangeError> {
        Self::backends(self, service).await
    }

    async fn limits(&self, service: Option<&str>) -> Result<Vec<LimitView>, ChangeError> {
        Self::limits(self, service).await
    }

    async fn suggestions(&self, query: SuggestionQuery) -> Result<Vec<Suggestion>, ChangeError> {
        Self::suggestions(self, query).await
    }

    async fn limited(&self, service: Option<&str>, most: usize) -> Result<LimitedView, ChangeError> {
        Self::limited(self, service, most).await
    }

    async fn flows(&self, query: FlowsQuery) -> Result<FlowPage, ChangeError> {
        Self::flows(self, query).await
    }

    async fn count_flows(&self, service: Option<&str>) -> Result<Vec<FlowCount>, ChangeError> {
        Self::count_flows(self, service).await
    }

    async fn lookup(&self, flow: FlowName) -> Result<FlowLookup, ChangeError> {
        Self::lookup(self, flow).await
    }

    async fn slots(&self, service: &str) -> Result<ServiceSlots, ChangeError> {
        Self::slots(self, service).await
    }

    async fn checks(&self, service: Option<&str>) -> Result<Vec<CheckView>, ChangeError> {
        Self::checks(self, service).await
    }

    async fn weigh(&self, change: Change) -> Result<PlanView, ChangeError> {
        Self::weigh(self, change).await
    }

    async fn change(&self, change: Change) -> Result<Applied, ChangeError> {
        Self::change(self, change).await
    }

    async fn list(&self, list: ListName) -> Result<PrefixList, ControllerGone> {
        Self::list(self, list).await
    }

    async fn change_list(&self, change: ListChange) -> Result<Applied, ChangeError> {
        Self::change_list(self, change).await
    }

    async fn config(&self) -> Result<String, ControllerGone> {
        Self::config(self).await
    }

    async fn diff_config(&self, text: Option<String>) -> Result<ConfigDiff, ChangeError> {
        Self::diff_config(self, text).await
    }

    async fn apply_config(
        &self,
        text: Option<String>,
        confirm_within: Option<Duration>,
    ) -> Result<ConfigApplied, ChangeError> {
        Self::apply_config(self, text, confirm_within).await
    }

    async fn history(&self) -> Result<Vec<GenerationView>, ControllerGone> {
        Self::history(self).await
    }

    async fn roll_back(&self, generation: Option<u64>) -> Result<ConfigApplied, ChangeError> {
        Self::roll_back(self, generation).await
    }

    async fn confirm(&self) -> Result<ConfigApplied, ChangeError> {
        Self::confirm(self).await
    }
}
