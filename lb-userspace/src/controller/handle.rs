//! How others talk to the controller and to the pipeline.

use std::net::IpAddr;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

use super::edits::Edited;
use super::pipeline::{Balancer, Wish};
use super::{Change, ChangeError, ControllerGone, FlowsQuery, ListChange, Request, SuggestionQuery};
use crate::journal::Journal;
use crate::model::{Desired, ListName, Service};
use crate::neighbors::local_addresses;
use crate::view::{
    Applied, BackendView, CheckView, ConfigApplied, ConfigDiff, ConfigStatus, FlowCount, FlowLookup,
    FlowName, FlowPage, GenerationView, InterfaceView, LimitView, LimitedView, PlanView, PrefixList,
    ServiceSlots, Status, Suggestion,
};

/// How API, CLI and metrics talk to the controller.
#[derive(Clone, Debug)]
pub struct Handle {
    tables: Tables,
    wishes: mpsc::Sender<Wish>,
    config: watch::Receiver<ConfigStatus>,
    /// The generation that changes are for, if not whichever is in force.
    expected: Option<u64>,
}

impl Handle {
    pub(super) fn new(
        tables: Tables,
        wishes: mpsc::Sender<Wish>,
        config: watch::Receiver<ConfigStatus>,
    ) -> Self {
        Self { tables, wishes, config, expected: None }
    }

    /// The same, whose changes are refused unless this generation is in force.
    #[must_use]
    pub fn expecting(&self, generation: u64) -> Self {
        Self { expected: Some(generation), ..self.clone() }
    }

    /// The generation that is in force.
    pub fn generation(&self) -> u64 {
        self.config.borrow().generation
    }

    /// The daemon as a whole.
    pub async fn status(&self) -> Result<Status, ControllerGone> {
        let mut status = self.tables.ask(Request::Status).await?;
        status.config = self.config.borrow().clone();
        status.warnings.extend(status.config.warnings());
        Ok(status)
    }

    /// Where it is told what happens.
    pub fn journal(&self) -> &Journal {
        self.tables.journal()
    }

    /// What became of packets on each interface.
    pub async fn interfaces(&self) -> Result<Vec<InterfaceView>, ControllerGone> {
        self.tables.ask(Request::Interfaces).await
    }

    /// Whether the tables are looked after.
    pub async fn is_well(&self) -> bool {
        matches!(self.tables.ask(Request::Pulse).await, Ok(Ok(())))
    }

    /// The backends of one service.
    pub async fn backends(&self, service: &str) -> Result<Vec<BackendView>, ChangeError> {
        self.tables.ask(|answer| Request::Backends(service.to_owned(), answer)).await?
    }

    /// The limiters that packets of one service meet, or all there are.
    pub async fn limits(&self, service: Option<&str>) -> Result<Vec<LimitView>, ChangeError> {
        self.tables.ask(|answer| Request::Limits(service.map(str::to_owned), answer)).await?
    }

    /// What limiters propose that only count.
    pub async fn suggestions(&self, query: SuggestionQuery) -> Result<Vec<Suggestion>, ChangeError> {
        self.tables.ask(|answer| Request::Suggestions(query, answer)).await?
    }

    /// Who is over the limits that packets of one service meet, or over any: the first `most` sources.
    pub async fn limited(&self, service: Option<&str>, most: usize) -> Result<LimitedView, ChangeError> {
        self.tables.ask(|answer| Request::Limited(service.map(str::to_owned), most, answer)).await?
    }

    /// The prefixes on a list.
    pub async fn list(&self, list: ListName) -> Result<PrefixList, ControllerGone> {
        self.tables.ask(|answer| Request::List(list, answer)).await
    }

    /// A part of the flows that are remembered.
    pub async fn flows(&self, query: FlowsQuery) -> Result<FlowPage, ChangeError> {
        self.tables.ask(|answer| Request::Flows(query, answer)).await?
    }

    /// How many flows are remembered of each backend of a service, or of all.
    pub async fn count_flows(&self, service: Option<&str>) -> Result<Vec<FlowCount>, ChangeError> {
        self.tables.ask(|answer| Request::CountFlows(service.map(str::to_owned), answer)).await?
    }

    /// Where a flow's packets go.
    pub async fn lookup(&self, flow: FlowName) -> Result<FlowLookup, ChangeError> {
        self.tables.ask(|answer| Request::Lookup(flow, answer)).await?
    }

    /// Who owns the slots of a service.
    pub async fn slots(&self, service: &str) -> Result<ServiceSlots, ChangeError> {
        self.tables.ask(|answer| Request::Slots(service.to_owned(), answer)).await?
    }

    /// The health checks of a service, or all there are.
    pub async fn checks(&self, service: Option<&str>) -> Result<Vec<CheckView>, ChangeError> {
        self.tables.ask(|answer| Request::Checks(service.map(str::to_owned), answer)).await?
    }

    /// What a change would cost, which is not made.
    pub async fn weigh(&self, change: Change) -> Result<PlanView, ChangeError> {
        self.wish(|answer| Wish::Weigh(change, answer)).await?
    }

    /// Applies a change whole, or refuses it whole.
    pub async fn change(&self, change: Change) -> Result<Applied, ChangeError> {
        self.wish(|answer| Wish::Change(change, answer)).await?
    }

    /// Applies a change of a list whole, or refuses it whole.
    pub async fn change_list(&self, change: ListChange) -> Result<Applied, ChangeError> {
        self.wish(|answer| Wish::ChangeList(change, answer)).await?
    }

    /// A service as it is wanted.
    pub async fn service(&self, name: &str) -> Result<Service, ChangeError> {
        self.wish(|answer| Wish::Service(name.to_owned(), answer)).await?
    }

    /// The configuration in force, as text.
    pub async fn config(&self) -> Result<String, ControllerGone> {
        self.wish(Wish::Show).await
    }

    /// What a configuration, or else what the files say, would change.
    pub async fn diff_config(&self, text: Option<String>) -> Result<ConfigDiff, ChangeError> {
        self.wish(|answer| Wish::Diff(text, answer)).await?
    }

    /// Puts a configuration, or else what the files say, in force, whole or not at all. It is undone unless it is confirmed
    /// within the time given.
    pub async fn apply_config(
        &self,
        text: Option<String>,
        confirm_within: Option<Duration>,
    ) -> Result<ConfigApplied, ChangeError> {
        self.wish(|answer| Wish::Apply { text, confirm_within, answer }).await?
    }

    /// The generations that are kept, the oldest first.
    pub async fn history(&self) -> Result<Vec<GenerationView>, ControllerGone> {
        self.wish(Wish::History).await
    }

    /// Goes back to a generation, or to the one before.
    pub async fn roll_back(&self, generation: Option<u64>) -> Result<ConfigApplied, ChangeError> {
        self.wish(|answer| Wish::Rollback(generation, answer)).await?
    }

    /// Keeps a generation that waits to be confirmed.
    pub async fn confirm(&self) -> Result<ConfigApplied, ChangeError> {
        self.wish(Wish::Confirm).await?
    }

    async fn wish<T>(&self, wish: impl FnOnce(oneshot::Sender<T>) -> Wish) -> Result<T, ControllerGone> {
        let (answer, answered) = oneshot::channel();
        let wish = wish(answer);
        let wish = match self.expected {
            Some(generation) => Wish::If(generation, Box::new(wish)),
            None => wish,
        };
        self.wishes.send(wish).await.map_err(|_| ControllerGone)?;
        answered.await.map_err(|_| ControllerGone)
    }
}

/// How the pipeline talks to the owner of the tables.
#[derive(Clone, Debug)]
pub struct Tables {
    requests: mpsc::Sender<Request>,
    journal: Journal,
}

impl Tables {
    pub(super) fn new(requests: mpsc::Sender<Request>, journal: Journal) -> Self {
        Self { requests, journal }
    }

    /// Where it is told what happens.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Result<T, ControllerGone> {
        let (answer, answered) = oneshot::channel();
        self.requests.send(request(answer)).await.map_err(|_| ControllerGone)?;
        answered.await.map_err(|_| ControllerGone)
    }
}

impl Balancer for Tables {
    async fn commit(&mut self, edited: Edited, generation: u64) -> Result<Applied, ChangeError> {
        self.ask(|answer| Request::Commit(Box::new(edited), generation, answer)).await?
    }

    async fn plan(&mut self, desired: Desired) -> Result<PlanView, ChangeError> {
        self.ask(|answer| Request::Plan(desired, answer)).await?
    }

    async fn addresses(&mut self) -> Result<Vec<(IpAddr, String)>, ChangeError> {
        local_addresses().await.map_err(|error| ChangeError::Refused(error.to_string()))
    }
}
