//! The controller: the task that owns what is wanted, what is known, and the tables, and lets nobody else near them.
//!
//! What is wanted reaches it from the pipeline, finished health checks and news from the kernel by themselves, one at a time;
//! each ends in the same step, the reconciliation of `core`.

mod contended;
mod core;
mod edits;
mod handle;
mod janitor;
mod ledger;
mod limited;
mod lists;
mod pipeline;
mod space_saving;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::signal::unix::Signal;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinSet, block_in_place};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout_at};

use crate::datapath::{Attachment, Datapath, TableError};
use crate::health::{CheckReport, Checker};
use crate::model::{AdminState, Backend, Desired, Endpoint, Limit, ListName, Service, Weight};
use crate::neighbors::{Neighbors, NeighborsError, Unreachable};
use crate::state::{Beginning, Directory};
use crate::suggestion::Quantile;
use crate::view::{
    Applied, BackendView, CheckView, FlowCount, FlowLookup, FlowName, FlowPage, InterfaceView, LimitView,
    LimitedView, PlanView, PrefixList, ServiceSlots, Status, Suggestion,
};
use core::Core;
pub use core::{FlowsQuery, ReconcileError};
use edits::Edited;
pub use handle::{Handle, Tables};
pub use lists::{ListAction, ListChange};
use pipeline::Pipeline;
pub use pipeline::{Files, LocalVip, check_local_vips, check_no_local_vip};

/// How often next hops are looked up without news from the kernel, so that neighbours nobody asks for stay known.
const LOOKUP_INTERVAL: Duration = Duration::from_secs(5);
/// Of which in one all is looked up, whatever the kernel has told.
const ROUNDS: u32 = 12;

/// How often remembered flows are looked at while slots move.
const SWEEP_INTERVAL: Duration = Duration::from_secs(2);
/// Looking at them takes one part of so many of a processor's time at most, however many they are. While it waits, for packets or for
/// a processor that others keep busy, it takes none: else slots would settle the later, the busier the host is.
const SWEEP_PARTS: u32 = 100;

/// How often samples of packets over limits are fetched: there is room for what 60 CPUs tell meanwhile in a flood.
const SAMPLES_INTERVAL: Duration = Duration::from_millis(200);

/// How long to wait for neighbours to answer before the first packet is let in, and before a backend is added.
const FIRST_ANSWERS: Duration = Duration::from_secs(2);
const NEW_ANSWER: Duration = Duration::from_millis(500);

/// An operator's change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Adds a service.
    AddService(Box<Service>),
    /// Puts a service in the place of the one of its name.
    SetService(Box<Service>),
    /// Removes a service with all its backends.
    RemoveService {
        /// Its name.
        service: String,
    },
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
            Self::AddService(service) | Self::SetService(service) => Some(&service.name),
            Self::RemoveService { service }
            | Self::AddBackend { service, .. }
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
    /// It was thought of for another state of things.
    #[error(
        "generation {present} is in force, and no longer {expected}: look at what has changed, and try again"
    )]
    Superseded {
        /// The generation in force.
        present: u64,
        /// The one that the change is for.
        expected: u64,
    },
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
    Interfaces(oneshot::Sender<Vec<InterfaceView>>),
    Pulse(oneshot::Sender<Result<(), TableError>>),
    Limits(Option<String>, oneshot::Sender<Result<Vec<LimitView>, ChangeError>>),
    Limited(Option<String>, usize, oneshot::Sender<Result<LimitedView, ChangeError>>),
    Backends(String, oneshot::Sender<Result<Vec<BackendView>, ChangeError>>),
    Suggestions(SuggestionQuery, oneshot::Sender<Result<Vec<Suggestion>, ChangeError>>),
    Flows(FlowsQuery, oneshot::Sender<Result<FlowPage, ChangeError>>),
    CountFlows(Option<String>, oneshot::Sender<Result<Vec<FlowCount>, ChangeError>>),
    Lookup(FlowName, oneshot::Sender<Result<FlowLookup, ChangeError>>),
    Slots(String, oneshot::Sender<Result<ServiceSlots, ChangeError>>),
    Checks(Option<String>, oneshot::Sender<Result<Vec<CheckView>, ChangeError>>),
    List(ListName, oneshot::Sender<PrefixList>),
    Plan(Desired, oneshot::Sender<Result<PlanView, ChangeError>>),
    Commit(Box<Edited>, u64, oneshot::Sender<Result<Applied, ChangeError>>),
}

/// What the pipeline begins with.
#[derive(Debug)]
pub struct Start {
    /// The state directory, or why there is none.
    pub store: Result<Directory, String>,
    /// The files.
    pub files: Files,
    /// What is in force.
    pub beginning: Beginning,
    /// The highest number that was ever used.
    pub last: u64,
    /// What is not well with the state directory, a sentence each.
    pub problems: Vec<String>,
}

/// The task of the pipeline, which changes what is wanted, and how to ask it. It ends with the controller or with the last
/// [`Handle`].
pub fn start_pipeline(tables: Tables, start: Start, hangups: Signal, tasks: &mut JoinSet<()>) -> Handle {
    let Start { store, files, beginning, last, problems } = start;
    let (wishes, asked) = mpsc::channel(64);
    let (pipeline, config) =
        Pipeline::new(tables.clone(), tables.journal().clone(), store, files, beginning, last, problems);
    tasks.spawn(pipeline.run(asked, hangups));
    Handle::new(tables, wishes, config)
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
    /// Fills the tables of `datapath` with what is wanted, as the generation of this number, and waits a moment for neighbours to
    /// answer.
    pub async fn start(
        datapath: D,
        desired: Desired,
        generation: u64,
    ) -> Result<(Self, Tables), ControllerError> {
        let (requests_sender, requests) = mpsc::channel(64);
        let (reports_sender, reports) = mpsc::channel(1024);
        // Nothing is touched before it is known what can be reached: what serves goes on serving.
        let core = block_in_place(|| Core::resume(datapath, desired.services.clone()))
            .map_err(ReconcileError::from)?;
        let neighbors = Neighbors::connect().await?;
        let announced = watch::Sender::new(core.announced_vips());
        let mut controller =
            Self { core, neighbors, checker: Checker::new(reports_sender), reports, requests, announced };
        controller.look_up_until(FIRST_ANSWERS, &BTreeSet::new()).await?;
        block_in_place(|| controller.core.begin(desired, generation))?;
        controller.core.open();
        controller.checker.update(controller.core.wanted_checks());
        let journal = controller.core.journal().clone();
        Ok((controller, Tables::new(requests_sender, journal)))
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
    /// `newcomers` are the addresses of backends that are about to be added: they should take traffic as soon as they are
    /// there. If there are any, they alone are waited for.
    async fn look_up_until(
        &mut self,
        patience: Duration,
        newcomers: &BTreeSet<IpAddr>,
    ) -> Result<(), ControllerError> {
        if !newcomers.is_empty() && self.look_up_newcomers(newcomers).await? {
            return Ok(());
        }
        let deadline = Instant::now() + patience;
        while self.look_up(newcomers).await? {
            match timeout_at(deadline, self.neighbors.changed()).await {
                Ok(changed) => changed?,
                Err(_) => break,
            }
        }
        Ok(())
    }

    /// Asks the kernel for the next hops of newcomers alone; says whether all of them are known.
    async fn look_up_newcomers(&mut self, newcomers: &BTreeSet<IpAddr>) -> Result<bool, ControllerError> {
        let next_hops = self.neighbors.resolve_more(newcomers).await?;
        let all_known = next_hops.values().all(Result::is_ok);
        self.core.add_next_hops(next_hops);
        Ok(all_known)
    }

    /// Asks the kernel for all next hops; says whether it is worth waiting for a neighbour to answer.
    async fn look_up(&mut self, newcomers: &BTreeSet<IpAddr>) -> Result<bool, ControllerError> {
        let mut targets = self.core.backend_addresses();
        targets.extend(newcomers);
        let next_hops = self.neighbors.resolve(&targets).await?;
        let silent = |hop: &Result<_, _>| matches!(hop, Err(Unreachable::NoNeighbor { .. }));
        let waiting = if newcomers.is_empty() {
            next_hops.values().any(silent)
        } else {
            newcomers.iter().filter_map(|newcomer| next_hops.get(newcomer)).any(silent)
        };
        self.core.set_own_macs(self.neighbors.own_macs());
        block_in_place(|| self.core.set_next_hops(next_hops))?;
        Ok(waiting)
    }

    /// Takes in what the kernel says now. What it cannot say this time, it is asked again.
    async fn follow_kernel(&mut self) -> Result<(), ControllerError> {
        tell_passing(self.look_up(&BTreeSet::new()).await.map(drop))
    }

    /// Keeps what is known of the way to backends true: all of it is looked up if anything is not as it should be, or if told.
    async fn keep_up(&mut self, all: bool) -> Result<(), ControllerError> {
        let others = self.neighbors.keep_fresh().await?;
        if others || all || !self.core.reaches_all() {
            self.look_up(&BTreeSet::new()).await?;
        }
        Ok(())
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
        let mut rounds = 0;
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
                _ = sweeps.tick(), if self.core.needs_sweeping() => {
                    let (swept, computed) = block_in_place(|| {
                        let begun = thread_time();
                        (self.core.sweep(), thread_time().saturating_sub(begun))
                    });
                    tell_passing(swept.map_err(Into::into))?;
                    sweeps.reset_after(SWEEP_INTERVAL.max(computed * SWEEP_PARTS));
                }
                _ = samples.tick(), if self.core.has_limiters() => {
                    tell_passing(self.core.take_over_samples().map_err(|error| ReconcileError::from(error).into()))?;
                }
                _ = lookups.tick() => {
                    self.core.datapath().relay_log();
                    tell_passing(self.core.watch_limiters().map_err(|error| ReconcileError::from(error).into()))?;
                    rounds = (rounds + 1) % ROUNDS;
                    tell_passing(self.keep_up(rounds == 0).await)?;
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
            Request::Interfaces(answer) => match self.core.interfaces(attachments) {
                Ok(interfaces) => drop(answer.send(interfaces)),
                Err(error) => tracing::error!("cannot read the counters: {error}"),
            },
            Request::Backends(service, answer) => drop(answer.send(self.core.backends(&service))),
            Request::Limits(service, answer) => drop(answer.send(self.core.limits(service.as_deref()))),
            Request::Suggestions(query, answer) => drop(answer.send(self.core.suggestions(&query))),
            Request::Limited(service, most, answer) => {
                drop(answer.send(self.core.limited(service.as_deref(), most)));
            }
            Request::Flows(query, answer) => {
                drop(answer.send(block_in_place(|| self.core.flows(&query))));
            }
            Request::CountFlows(service, answer) => {
                drop(answer.send(block_in_place(|| self.core.count_flows(service.as_deref()))));
            }
            Request::Lookup(flow, answer) => drop(answer.send(self.core.lookup(&flow))),
            Request::Slots(service, answer) => drop(answer.send(self.core.slots_of(&service))),
            Request::Checks(service, answer) => drop(answer.send(self.core.checks(service.as_deref()))),
            Request::List(list, answer) => drop(answer.send(self.core.list(list))),
            Request::Pulse(answer) => drop(answer.send(self.core.pulse())),
            Request::Plan(desired, answer) => {
                let plan = block_in_place(|| self.core.plan(&desired));
                drop(answer.send(plan.map_err(|error| ChangeError::Refused(error.to_string()))));
            }
            Request::Commit(edited, generation, answer) => {
                let newcomers = self.core.newcomers(&edited.desired);
                if !newcomers.is_empty() {
                    tell_passing(self.look_up_until(NEW_ANSWER, &newcomers).await)?;
                }
                let result = block_in_place(|| self.core.commit(*edited, generation));
                let changed = result.is_ok();
                drop(answer.send(result));
                block_in_place(|| self.core.tidy());
                if changed {
                    self.checker.update(self.core.wanted_checks());
                    self.announced.send_replace(self.core.announced_vips());
                }
            }
        }
        Ok(())
    }
}

/// For how long a processor has worked for this thread.
fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}
