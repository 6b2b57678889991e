//! What API and metrics ask of the controller.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::controller::{Change, ChangeError, ControllerGone, Handle, ListChange, SuggestionQuery};
use crate::journal::Journal;
use crate::model::{ListName, Service};
use crate::view::{
    Applied, BackendView, ConfigApplied, ConfigDiff, GenerationView, InterfaceView, LimitView, LimitedView,
    PrefixList, Status, Suggestion,
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
