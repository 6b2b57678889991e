//! The controller: the task that owns what is wanted, what is known, and the tables, and lets nobody else near them.
//!
//! Requests, finished health checks and news from the kernel reach it one at a time; each ends in the same step, the
//! reconciliation of `core`.

mod contended;
mod core;
mod edits;
mod janitor;
mod ledger;
mod limited;
mod lists;
mod space_saving;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::block_in_place;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout_at};

use crate::datapath::{Attachment, Datapath};
use crate::health::{CheckReport, Checker};
use crate::model::{AdminState, Backend, Endpoint, Limit, ListName, Lists, Weight};
use crate::neighbors::{Neighbors, NeighborsError, Unreachable};
use crate::placement::Services;
use crate::suggestion::Quantile;
use crate::view::{Applied, BackendView, LimitView, LimitedView, PrefixList, Status, Suggestion};
use core::Core;
pub use core::ReconcileError;
pub use lists::{ListAction, ListChange};

/// How often next hops are looked up without news from the kernel, so that neighbours nobody asks for stay known.
const LOOKUP_INTERVAL: Duration = Duration::from_secs(5);

/// How often remembered flows are looked at while slots move.
const SWEEP_INTERVAL: Duration = Duration::from_secs(2);
/// Looking at them takes one part of so many of the time at most, however many they are.
const SWEEP_PARTS: u32 = 50;

/// How often samples of packets over limits are fetched: there is room for what 60 CPUs tell meanwhile in a flood.
const SAMPLES_INTERVAL: Duration = Duration::from_millis(200);

/// How long to wait for neighbours to answer before the first packet is let in, and before a backend is added.
const FIRST_ANSWERS: Duration = Duration::from_secs(2);
const NEW_ANSWER: Duration = Duration::from_millis(500);

/// An operator's change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Adds a backend.
    AddBackend {
        /// The service's name.
        service: String,
        /// The backend.
        backend: Backend,
    },
    /// Removes a backend at once.
    RemoveBackend {
        /// The service's name.
        service: String,
        /// The backend.
        endpoint: Endpoint,
    },
    /// Puts a backend to work, drains it or takes it out of service.
    SetState {
        /// The service's name.
        service: String,
        /// The backend.
        endpoint: Endpoint,
        /// What is asked of it.
        state: AdminState,
    },
    /// Changes a backend's share.
    SetWeight {
        /// The service's name.
        service: String,
        /// The backend.
        endpoint: Endpoint,
        /// Its new weight.
        weight: Weight,
    },
    /// Adds a limiter, or replaces the one of the same name.
    SetLimit {
        /// The service's name; `None` for a limiter of all services.
        service: Option<String>,
        /// The limiter.
        limit: Limit,
    },
    /// Removes a limiter.
    RemoveLimit {
        /// The service's name; `None` for a limiter of all services.
        service: Option<String>,
        /// The limiter's name.
        name: String,
    },
}

impl Change {
    /// Name of the service concerned; `None` if all are.
    pub fn service(&self) -> Option<&str> {
        match self {
            Self::AddBackend { service, .. }
            | Self::RemoveBackend { service, .. }
            | Self::SetState { service, .. }
            | Self::SetWeight { service, .. } => Some(service),
            Self::SetLimit { service, .. } | Self::RemoveLimit { service, .. } => service.as_deref(),
        }
    }
}

/// Why a change was not made. Nothing has changed then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// What it names does not exist.
    #[error("{0}")]
    NotFound(String),
    /// It contradicts what is there, or there is no room.
    #[error("{0}")]
    Refused(String),
    /// The daemon is shutting down.
    #[error("{ControllerGone}")]
    Gone,
}

/// The controller has ended: the daemon is shutting down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the daemon is shutting down")]
pub struct ControllerGone;

impl From<ControllerGone> for ChangeError {
    fn from(ControllerGone: ControllerGone) -> Self {
        Self::Gone
    }
}

/// Which limiters that only count are asked what they have measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SuggestionQuery {
    /// Those that packets of a service meet; `None` for those of all services.
    pub service: Option<String>,
    /// The one of this name; all of them if absent.
    pub limiter: Option<String>,
    /// How many sources the proposed limiter is to leave alone.
    pub quantile: Quantile,
}

enum Request {
    Status(oneshot::Sender<Status>),
    Limits(Option<String>, oneshot::Sender<Result<Vec<LimitView>, ChangeError>>),
    Limited(Option<String>, usize, oneshot::Sender<Result<LimitedView, ChangeError>>),
    Backends(String, oneshot::Sender<Result<Vec<BackendView>, ChangeError>>),
    Suggestions(SuggestionQuery, oneshot::Sender<Result<Vec<Suggestion>, ChangeError>>),
    List(ListName, oneshot::Sender<PrefixList>),
    ChangeList(ListChange, oneshot::Sender<Result<Applied, ChangeError>>),
    Change(Change, oneshot::Sender<Result<Applied, ChangeError>>),
}

/// How API, CLI and metrics talk to the controller.
#[derive(Clone, Debug)]
pub struct Handle {
    requests: mpsc::Sender<Request>,
}

impl Handle {
    /// The daemon as a whole.
    pub async fn status(&self) -> Result<Status, ControllerGone> {
        self.ask(Request::Status).await
    }

    /// The backends of one service.
    pub async fn backends(&self, service: &str) -> Result<Vec<BackendView>, ChangeError> {
        self.ask(|answer| Request::Backends(service.to_owned(), answer)).await?
    }

    /// The limiters that packets of one service meet, or all there are.
    pub async fn limits(&self, service: Option<&str>) -> Result<Vec<LimitView>, ChangeError> {
        self.ask(|answer| Request::Limits(service.map(str::to_owned), answer)).await?
    }

    /// What limiters propose that only count.
    pub async fn suggestions(&self, query: SuggestionQuery) -> Result<Vec<Suggestion>, ChangeError> {
        self.ask(|answer| Request::Suggestions(query, answer)).await?
    }

    /// Who is over the limits that packets of one service meet, or over any: the first `most` sources.
    pub async fn limited(&self, service: Option<&str>, most: usize) -> Result<LimitedView, ChangeError> {
        self.ask(|answer| Request::Limited(service.map(str::to_owned), most, answer)).await?
    }

    /// Applies a change whole, or refuses it whole.
    pub async fn change(&self, change: Change) -> Result<Applied, ChangeError> {
        self.ask(|answer| Request::Change(change, answer)).await?
    }

    /// The prefixes on a list.
    pub async fn list(&self, list: ListName) -> Result<PrefixList, ControllerGone> {
        self.ask(|answer| Request::List(list, answer)).await
    }

    /// Applies a change of a list whole, or refuses it whole.
    pub async fn change_list(&self, change: ListChange) -> Result<Applied, ChangeError> {
        self.ask(|answer| Request::ChangeList(change, answer)).await?
    }

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Result<T, ControllerGone> {
        let (answer, answered) = oneshot::channel();
        self.requests.send(request(answer)).await.map_err(|_| ControllerGone)?;
        answered.await.map_err(|_| ControllerGone)
    }
}

/// Why the controller could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum ControllerError {
    /// The tables could not take the configuration.
    #[error(transparent)]
    Reconcile(#[from] ReconcileError),
    /// The kernel does not tell next hops.
    #[error(transparent)]
    Neighbors(#[from] NeighborsError),
}

impl ControllerError {
    /// Whether trying again may help. The others end the daemon: it would go on blindly.
    fn is_passing(&self) -> bool {
        use NeighborsError::{Request, Timeout};
        matches!(self, Self::Reconcile(_) | Self::Neighbors(Request { .. } | Timeout { .. }))
    }
}

/// Tells of a failure that is made up for with the next look-up, and of no other.
fn tell_passing(result: Result<(), ControllerError>) -> Result<(), ControllerError> {
    match result {
        Err(error) if error.is_passing() => {
            tracing::error!(
                "{error}; packets are forwarded as before, trying again within {LOOKUP_INTERVAL:?}"
            );
            Ok(())
        }
        other => other,
    }
}

/// The controller, filled but not yet at work: packets can be let in.
pub struct Controller<D> {
    core: Core<D>,
    neighbors: Neighbors,
    checker: Checker,
    reports: mpsc::Receiver<CheckReport>,
    requests: mpsc::Receiver<Request>,
    announced: watch::Sender<BTreeSet<IpAddr>>,
}

impl<D: Datapath + 'static> Controller<D> {
    /// Fills the tables of `datapath` with `lists` and `services`, and waits a moment for neighbours to answer.
    pub async fn start(
        datapath: D,
        services: Services,
        lists: Lists,
    ) -> Result<(Self, Handle), ControllerError> {
        let (requests_sender, requests) = mpsc::channel(64);
        let (reports_sender, reports) = mpsc::channel(1024);
        // Nothing is touched before it is known what can be reached: what serves goes on serving.
        let core = block_in_place(|| Core::resume(datapath, services.clone()));
        let neighbors = Neighbors::connect().await?;
        let announced = watch::Sender::new(core.announced_vips());
        let mut controller =
            Self { core, neighbors, checker: Checker::new(reports_sender), reports, requests, announced };
        controller.look_up_until(FIRST_ANSWERS, None).await?;
        block_in_place(|| controller.core.start_with(lists, services))?;
        controller.core.open();
        controller.checker.update(controller.core.wanted_checks());
        Ok((controller, Handle { requests: requests_sender }))
    }

    /// Lends out the tables' owner for attaching and detaching its program.
    pub fn datapath(&mut self) -> &mut D {
        self.core.datapath()
    }

    /// Every VIP there is.
    pub fn vips(&self) -> BTreeSet<IpAddr> {
        self.core.vips()
    }

    /// The VIPs that the neighbours are to be told of, followed through every change.
    pub fn announced(&self) -> watch::Receiver<BTreeSet<IpAddr>> {
        self.announced.subscribe()
    }

    /// Looks up next hops until every neighbour has answered, `patience` at most.
    ///
    /// `newcomer` is the address of a backend that is about to be added: it should take traffic as soon as it is there.
    async fn look_up_until(
        &mut self,
        patience: Duration,
        newcomer: Option<IpAddr>,
    ) -> Result<(), ControllerError> {
        let deadline = Instant::now() + patience;
        while self.look_up(newcomer).await? {
            match timeout_at(deadline, self.neighbors.changed()).await {
                Ok(changed) => changed?,
                Err(_) => break,
            }
        }
        Ok(())
    }

    /// Asks the kernel for all next hops; says whether it is worth waiting for a neighbour to answer.
    async fn look_up(&mut self, newcomer: Option<IpAddr>) -> Result<bool, ControllerError> {
        let mut targets = self.core.backend_addresses();
        targets.extend(newcomer);
        let next_hops = self.neighbors.resolve(&targets).await?;
        let silent = |hop: &Result<_, _>| matches!(hop, Err(Unreachable::NoNeighbor { .. }));
        let waiting = match newcomer {
            Some(newcomer) => next_hops.get(&newcomer).is_some_and(silent),
            None => next_hops.values().any(silent),
        };
        self.core.set_own_macs(self.neighbors.own_macs());
        block_in_place(|| self.core.set_next_hops(next_hops))?;
        Ok(waiting)
    }

    /// Takes in what the kernel says now. What it cannot say this time, it is asked again.
    async fn follow_kernel(&mut self) -> Result<(), ControllerError> {
        tell_passing(self.look_up(None).await.map(drop))
    }

    /// Works until every [`Handle`] is gone. `attachments` are told in the status, in the order of their counter rows.
    pub async fn run(mut self, attachments: &[Attachment]) -> Result<(), ControllerError> {
        let mut lookups = interval(LOOKUP_INTERVAL);
        lookups.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut sweeps = interval(SWEEP_INTERVAL);
        sweeps.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut samples = interval(SAMPLES_INTERVAL);
        samples.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut finished = Vec::new();
        loop {
            let step = self.core.until_next_step();
            tokio::select! {
                request = self.requests.recv() => match request {
                    Some(request) => self.answer(request, attachments).await?,
                    None => return Ok(()),
                },
                _ = self.reports.recv_many(&mut finished, 1024) => {
                    let finished = std::mem::take(&mut finished);
                    tell_passing(block_in_place(|| self.core.record(finished)).map_err(Into::into))?;
                }
                changed = self.neighbors.changed() => {
                    changed?;
                    self.follow_kernel().await?;
                }
                () = sleep(step.unwrap_or_default()), if step.is_some() => {
                    tell_passing(block_in_place(|| self.core.follow_time()).map_err(Into::into))?;
                }
                _ = sweeps.tick(), if self.core.has_moving_slots() => {
                    let begun = Instant::now();
                    tell_passing(block_in_place(|| self.core.sweep()).map_err(Into::into))?;
                    sweeps.reset_after(SWEEP_INTERVAL.max(begun.elapsed() * SWEEP_PARTS));
                }
                _ = samples.tick(), if self.core.has_limiters() => {
                    tell_passing(self.core.take_over_samples().map_err(|error| ReconcileError::from(error).into()))?;
                }
                _ = lookups.tick() => {
                    self.core.datapath().relay_log();
                    tell_passing(self.core.watch_limiters().map_err(|error| ReconcileError::from(error).into()))?;
                    self.follow_kernel().await?;
                }
            }
        }
    }

    /// Answers a request. Whoever asked may have gone in the meantime; what was done stays done.
    async fn answer(&mut self, request: Request, attachments: &[Attachment]) -> Result<(), ControllerError> {
        match request {
            Request::Status(answer) => match self.core.status(attachments) {
                Ok(status) => drop(answer.send(status)),
                Err(error) => tracing::error!("cannot read the counters: {error}"),
            },
            Request::Backends(service, answer) => drop(answer.send(self.core.backends(&service))),
            Request::Limits(service, answer) => drop(answer.send(self.core.limits(service.as_deref()))),
            Request::Suggestions(query, answer) => drop(answer.send(self.core.suggestions(&query))),
            Request::Limited(service, most, answer) => {
                drop(answer.send(self.core.limited(service.as_deref(), most)));
            }
            Request::List(list, answer) => drop(answer.send(self.core.list(list))),
            Request::ChangeList(change, answer) => {
                drop(answer.send(block_in_place(|| self.core.change_list(&change))));
            }
            Request::Change(change, answer) => {
                if let Change::AddBackend { backend, .. } = &change {
                    tell_passing(self.look_up_until(NEW_ANSWER, Some(backend.endpoint.address)).await)?;
                }
                let result = block_in_place(|| self.core.change(change));
                let changed = result.is_ok();
                drop(answer.send(result));
                if changed {
                    self.checker.update(self.core.wanted_checks());
                    self.announced.send_replace(self.core.announced_vips());
                    self.follow_kernel().await?;
                }
            }
        }
        Ok(())
    }
}
