//! What API and metrics ask of the controller.

use std::future::Future;

use crate::controller::{Change, ChangeError, ControllerGone, Handle, ListChange, SuggestionQuery};
use crate::model::ListName;
use crate::view::{Applied, BackendView, LimitView, LimitedView, PrefixList, Status, Suggestion};

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
}
