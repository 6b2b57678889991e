//! What API and metrics ask of the controller.

use std::future::Future;
use std::time::Duration;

use crate::controller::{Change, ChangeError, ControllerGone, Handle, ListChange, SuggestionQuery};
use crate::model::ListName;
use crate::view::{
    Applied, BackendView, ConfigApplied, ConfigDiff, GenerationView, LimitView, LimitedView, PrefixList,
    Status, Suggestion,
};

/// The controller as its users see it; tests put a double in its place.
pub trait Control: Clone + Send + Sync + 'static {
    /// The daemon as a whole.
    fn status(&self) -> impl Future<Output = Result<Status, ControllerGone>> + Send;
    /// The backends of one service.
    fn backends(&self, service: &str) -> impl Future<Output = Result<Vec<BackendView>, ChangeError>> + Send;
    /// The limiters that packets of one service meet, or all there are.
    fn limits(
        &self,
        service: Option<&str>,
    ) -> impl Future<Output = Result<Vec<LimitView>, ChangeError>> + Send;
    /// What limiters propose that only count.
    fn suggestions(
        &self,
        query: SuggestionQuery,
    ) -> impl Future<Output = Result<Vec<Suggestion>, ChangeError>> + Send;
    /// Who is over the limits that packets of one service meet, or over any: the first `most` sources.
    fn limited(
        &self,
        service: Option<&str>,
        most: usize,
    ) -> impl Future<Output = Result<LimitedView, ChangeError>> + Send;
    /// Applies a change whole, or refuses it whole.
    fn change(&self, change: Change) -> impl Future<Output = Result<Applied, ChangeError>> + Send;
    /// The prefixes on a list.
    fn list(&self, list: ListName) -> impl Future<Output = Result<PrefixList, ControllerGone>> + Send;
    /// Applies a change of a list whole, or refuses it whole.
    fn change_list(&self, change: ListChange) -> impl Future<Output = Result<Applied, ChangeError>> + Send;
    /// The configuration in force, as text.
    fn config(&self) -> impl Future<Output = Result<String, ControllerGone>> + Send;
    /// What a configuration, or else what the files say, would change.
    fn diff_config(
        &self,
        text: Option<String>,
    ) -> impl Future<Output = Result<ConfigDiff, ChangeError>> + Send;
    /// Puts a configuration, or else what the files say, in force, to be confirmed within the time given.
    fn apply_config(
        &self,
        text: Option<String>,
        confirm_within: Option<Duration>,
    ) -> impl Future<Output = Result<ConfigApplied, ChangeError>> + Send;
    /// The generations that are kept, the oldest first.
    fn history(&self) -> impl Future<Output = Result<Vec<GenerationView>, ControllerGone>> + Send;
    /// Goes back to a generation, or to the one before.
    fn roll_back(
        &self,
        generation: Option<u64>,
    ) -> impl Future<Output = Result<ConfigApplied, ChangeError>> + Send;
    /// Keeps a generation that waits to be confirmed.
    fn confirm(&self) -> impl Future<Output = Result<ConfigApplied, ChangeError>> + Send;
}

impl Control for Handle {
    async fn status(&self) -> Result<Status, ControllerGone> {
        Self::status(self).await
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
