//! What time does to backends: drains end, and the weights of those that come into service rise.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::{Core, ReconcileError};
use crate::config::show_duration;
use crate::datapath::Datapath;
use crate::model::{AdminState, Backend, Endpoint, Service, Services, Weight, effective_weight, next_step};
use crate::placement::{Standing, Touched};
use crate::view::HealthState;

/// A moment, as the flows' clock has it.
type Moment = Duration;

/// Where a backend is on a way that takes time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// It is down, cannot be reached, or is in maintenance.
    Out,
    /// It takes new flows; `None` if it did when its service was first looked at.
    Serving { since: Option<Moment> },
    /// It keeps its flows for a while, or for ever.
    Draining { since: Moment, timeout: Option<Duration> },
    /// It has drained for as long as it should.
    Drained { timeout: Duration },
}

impl Phase {
    /// The phase at `now` of a backend that was in phase `self`.
    ///
    /// A drain begins anew when it gets another time-out.
    fn next(self, wanted: AdminState, timeout: Option<Duration>, alive: bool, now: Moment) -> Self {
        match (wanted, self) {
            (AdminState::Drain { .. }, Self::Drained { timeout: old }) if timeout == Some(old) => self,
            (AdminState::Drain { .. }, Self::Draining { since, timeout: old }) if timeout == old => {
                match timeout.filter(|timeout| since + *timeout <= now) {
                    Some(timeout) => Self::Drained { timeout },
                    None => self,
                }
            }
            (AdminState::Drain { .. }, _) => Self::Draining { since: now, timeout },
            (AdminState::Ready, Self::Serving { .. }) if alive => self,
            (AdminState::Ready, _) if alive => Self::Serving { since: Some(now) },
            (AdminState::Ready | AdminState::Maintenance, _) => Self::Out,
        }
    }
}

/// The phases of all backends of services that know drains with an end, or a slow start.
#[derive(Clone, Debug, Default)]
pub(super) struct Phases {
    services: BTreeMap<String, Arc<BTreeMap<Endpoint, Phase>>>,
    /// When they were as they are told here.
    now: Moment,
    /// When the next drain ends or the next weight rises.
    step: Option<Moment>,
    /// Whether packets are let in. What comes into service before begins with all of its weight.
    open: bool,
}

impl Phases {
    /// The phases at `now`.
    ///
    /// A service is looked at for the first time when it is new, and when it first knows drains with an end or a slow
    /// start. Those who serve it at that time need not rise: nobody has served it for longer, or their flows are there.
    ///
    /// Also says in which services time has done something: only these and those that something else has touched are looked at.
    fn next(
        &self,
        services: &Services,
        touched: &Touched,
        alive: impl Fn(&Service, &Backend) -> bool,
        now: Moment,
    ) -> (Self, Touched) {
        let mut next = Self { services: BTreeMap::new(), now, step: None, open: self.open };
        let mut moved = BTreeSet::new();
        for (name, service) in services.iter().filter(|(_, service)| takes_time(service)) {
            let known = self.services.get(name);
            let is_due = self.next_step(service).is_some_and(|step| step <= now);
            let phases = match known {
                Some(known) if !is_due && !touched.has(name) => Arc::clone(known),
                _ => Arc::new(self.next_of(service, &alive, now)),
            };
            if is_due {
                moved.insert(name.clone());
            }
            next.services.insert(name.clone(), phases);
        }
        next.step = services.values().filter_map(|service| next.next_step(service)).min();
        (next, Touched::Some(moved))
    }

    /// The phases of one service.
    fn next_of(
        &self,
        service: &Service,
        alive: impl Fn(&Service, &Backend) -> bool,
        now: Moment,
    ) -> BTreeMap<Endpoint, Phase> {
        let at_first = !self.open || !self.services.contains_key(&service.name);
        let phase = |backend: &Backend| {
            let before = match self.phase(&service.name, backend.endpoint).unwrap_or(Phase::Out) {
                Phase::Out if at_first => Phase::Serving { since: None },
                before => before,
            };
            let timeout = service.drain_timeout(backend.admin);
            before.next(backend.admin, timeout, alive(service, backend), now)
        };
        service.backends.iter().map(|backend| (backend.endpoint, phase(backend))).collect()
    }

    fn phase(&self, service: &str, endpoint: Endpoint) -> Option<Phase> {
        self.services.get(service)?.get(&endpoint).copied()
    }

    /// When the next drain of a service ends or the next weight rises.
    fn next_step(&self, service: &Service) -> Option<Moment> {
        let phases = self.services.get(&service.name)?;
        let step = |phase: &Phase| match *phase {
            Phase::Draining { since, timeout: Some(timeout) } => Some(since + timeout),
            Phase::Serving { since: Some(since) } => {
                let step = next_step(service.options.slow_start?, self.now.saturating_sub(since))?;
                Some(since + step)
            }
            Phase::Out | Phase::Serving { .. } | Phase::Draining { .. } | Phase::Drained { .. } => None,
        };
        phases.values().filter_map(step).min()
    }

    /// The weight that a backend has while it takes new flows.
    fn weight(&self, service: &Service, backend: &Backend) -> Weight {
        match (self.phase(&service.name, backend.endpoint), service.options.slow_start) {
            (Some(Phase::Serving { since: Some(since) }), Some(slow_start)) => {
                effective_weight(backend.weight, slow_start, self.now.saturating_sub(since))
            }
            _ => backend.weight,
        }
    }

    /// Whether a backend has drained for as long as it should.
    pub(super) fn has_drained(&self, service: &Service, backend: &Backend) -> bool {
        matches!(self.phase(&service.name, backend.endpoint), Some(Phase::Drained { .. }))
    }

    /// What can be expected of a backend that is alive or not.
    pub(super) fn standing(&self, service: &Service, backend: &Backend, alive: bool) -> Standing {
        match backend.admin {
            AdminState::Maintenance => Standing::Dead,
            _ if !alive => Standing::Dead,
            AdminState::Drain { .. } if self.has_drained(service, backend) => Standing::Dead,
            AdminState::Drain { .. } => Standing::Draining,
            AdminState::Ready => Standing::Serving(self.weight(service, backend)),
        }
    }

    /// Tells the log whose drain has ended since the phases were `old`.
    fn tell_since(&self, old: &Self) {
        for (service, phases) in &self.services {
            for (endpoint, phase) in &**phases {
                if let Phase::Drained { timeout } = phase
                    && old.phase(service, *endpoint) != Some(*phase)
                {
                    let timeout = show_duration(*timeout);
                    tracing::info!(
                        "service {service}: backend {endpoint} has drained for {timeout} and is out of service"
                    );
                }
            }
        }
    }
}

/// Whether a service knows drains with an end, or a slow start.
fn takes_time(service: &Service) -> bool {
    let ends = |backend: &Backend| service.drain_timeout(backend.admin).is_some();
    service.options.slow_start.is_some() || service.backends.iter().any(ends)
}

impl<D: Datapath> Core<D> {
    /// Tells that packets are let in: what comes into service from here on starts slowly.
    pub(in crate::controller) fn open(&mut self) {
        self.phases.open = true;
    }

    /// How long until a drain ends or a weight rises, if any does; then it is time for [`Self::follow_time`].
    ///
    /// Nothing is, while the tables could not follow what was learned before: that is tried again at its own pace.
    pub(in crate::controller) fn until_next_step(&self) -> Option<Duration> {
        let step = self.phases.step.filter(|_| !self.behind)?;
        Some(step.saturating_sub(self.now()))
    }

    /// Lets the tables follow what time has done.
    pub(in crate::controller) fn follow_time(&mut self) -> Result<(), ReconcileError> {
        if self.until_next_step().is_some_and(|wait| wait.is_zero()) { self.catch_up() } else { Ok(()) }
    }

    pub(super) fn now(&self) -> Moment {
        Duration::from_nanos(self.datapath.clock())
    }

    /// The phases as of now, if these services were wanted.
    pub(super) fn next_phases(
        &self,
        services: &Services,
        touched: &Touched,
        is_alive: impl Fn(&Service, &Backend) -> bool,
    ) -> (Phases, Touched) {
        self.phases.next(services, touched, is_alive, self.now())
    }

    /// Takes in the phases that the tables hold now.
    pub(super) fn set_phases(&mut self, phases: Phases) {
        phases.tell_since(&self.phases);
        self.phases = phases;
    }

    /// Whether a backend can be expected to answer. One that cannot be reached is as dead as one that is down.
    pub(super) fn is_alive(&self, service: &Service, backend: &Backend) -> bool {
        self.health_of(service, backend.endpoint) != HealthState::Down
            && self.next_hop(service, backend.endpoint.address).is_ok()
    }

    /// Whether a backend can be expected to answer that may be a new one: what nobody has looked for yet will be found.
    pub(super) fn may_live(&self, service: &Service, backend: &Backend) -> bool {
        self.health_of(service, backend.endpoint) != HealthState::Down
            && (!self.next_hops.contains_key(&backend.endpoint.address)
                || self.next_hop(service, backend.endpoint.address).is_ok())
    }

    /// The weight by which a backend gets new flows.
    pub(super) fn effective_weight(&self, service: &Service, backend: &Backend) -> Weight {
        match self.phases.standing(service, backend, self.is_alive(service, backend)) {
            Standing::Serving(weight) => weight,
            Standing::Draining | Standing::Dead => Weight(0),
        }
    }

    /// For how many seconds a backend still drains, those that have begun included: 0 if it has drained for as long as it
    /// should, `None` if it does not drain, or for ever.
    pub(super) fn drain_seconds_left(&self, service: &Service, backend: &Backend) -> Option<u64> {
        match self.phases.phase(&service.name, backend.endpoint)? {
            Phase::Draining { since, timeout } => {
                let left = (since + timeout?).saturating_sub(self.now());
                Some(left.as_secs() + u64::from(left.subsec_nanos() > 0)).map(|seconds| seconds.max(1))
            }
            Phase::Drained { .. } => Some(0),
            Phase::Out | Phase::Serving { .. } => None,
        }
    }

    /// Whether the operator wants it to have no flows, so that nothing about it is worth a warning.
    pub(super) fn is_retired(&self, service: &Service, backend: &Backend) -> bool {
        backend.admin == AdminState::Maintenance || self.phases.has_drained(service, backend)
    }
}
