//! Two services, their clients and time: the real controller, tables and pipeline, and a model that knows where every flow
//! belongs.

use std::collections::BTreeSet;

use lb_common::hash::scale;

use super::racing::{Flow, INTERFACE, Racing, SECOND, SERVICES};
use super::*;
use crate::placement::hash_key;

/// Backends are 10.0.1.1 and on.
pub(super) const BACKENDS: u8 = 40;
/// After so many seconds without a packet a flow counts as gone.
pub(super) const IDLE: u64 = 20;

/// What is true of one backend of one service.
#[derive(Clone, Copy, Debug, Default)]
struct Member {
    present: bool,
    state: State,
    failed: bool,
}

/// What is asked of a backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Ready,
    /// Until its flows are given up, with the time-out that was asked for.
    Drains {
        until: Option<u64>,
        timeout: Option<u64>,
    },
    Maintenance,
}

/// The controller, its tables, the clients, and what is true of the backends.
pub(super) struct World {
    pub(super) core: Core<Racing>,
    members: [[Member; BACKENDS as usize]; SERVICES.len()],
    lost: BTreeSet<u8>,
    since_sweep: u64,
    /// Stores that the daemon does not survive when it is next at work, if any.
    pub(super) kill_after: Option<usize>,
}

impl World {
    /// Both services with two backends, `flow_sets` sets of flows, and something happening at one of `odds` steps.
    pub(super) fn new(table_size: u32, flow_sets: u32, odds: usize, seed: u64) -> Self {
        let capacity = Capacity {
            services: 4,
            service_entries: 64,
            slots: 4 * table_size.next_multiple_of(16),
            backends: 256,
            limiters: 32,
            bucket_sets: 64,
            lists: 16,
            flow_sets,
            fragment_sets: 1,
        };
        let inner = MemoryDatapath::new(hash_key(*b"sixteen letters!"), capacity, &[INTERFACE]);
        inner.set_now(1_000 * SECOND);
        let mut core = Core::new(Racing::new(inner, odds, seed));
        let mut members = [[Member::default(); BACKENDS as usize]; SERVICES.len()];
        let service = |number: usize| {
            let (name, protocol, port) = SERVICES[number];
            let options =
                ServiceOptions { idle_timeout: Some(Duration::from_secs(IDLE)), ..ServiceOptions::default() };
            let backends = [1, 2].map(|last| member_backend(number, last, 100)).to_vec();
            let service = web([]).remove("web").unwrap();
            let vip = format!("192.0.2.10:{port}").parse().unwrap();
            Service {
                name: name.to_owned(),
                vip,
                protocol,
                table_size,
                options,
                backends,
                ..Service::clone(&service)
            }
        };
        let services = (0..SERVICES.len()).map(service).map(|service| (service.name.clone(), service));
        core.set_services(services.collect()).unwrap();
        for of_service in &mut members {
            of_service[..2].fill(Member { present: true, ..Member::default() });
        }
        let mut world = Self { core, members, lost: BTreeSet::new(), since_sweep: 0, kill_after: None };
        world.look_around();
        world.core.open();
        world
    }

    /// From now on weights rise for so many seconds, in both services.
    pub(super) fn start_slowly(&mut self, seconds: u64) {
        let mut services = self.core.services.clone();
        for service in services.values_mut() {
            service.options.slow_start = Some(Duration::from_secs(seconds));
        }
        self.core.set_services(services).unwrap();
    }

    pub(super) fn tables(&mut self) -> &mut Racing {
        self.core.datapath()
    }

    fn member(&mut self, service: usize, last: u8) -> &mut Member {
        &mut self.members[service][usize::from(last - 1)]
    }

    /// Who is alive by what is true now: those dying are taken from the clients' view, with their flows.
    fn bury(&mut self) -> BTreeSet<(usize, u8)> {
        let all = (0..SERVICES.len()).flat_map(|service| (1..=BACKENDS).map(move |last| (service, last)));
        let alive: BTreeSet<_> = all.filter(|(service, last)| self.is_alive(*service, *last)).collect();
        let traffic = self.core.datapath().traffic.get_mut();
        traffic.alive.retain(|one| alive.contains(one));
        for flow in &mut traffic.flows {
            *flow = flow.filter(|flow| flow.backend.is_none_or(|last| alive.contains(&(flow.service, last))));
        }
        alive
    }

    /// Does something that may kill backends or bring them to life.
    fn with_deaths<T>(&mut self, act: impl FnOnce(&mut Self) -> T) -> T {
        let alive = self.bury();
        let done = act(self);
        self.tables().traffic.get_mut().alive = alive;
        done
    }

    fn change(&mut self, change: Change) {
        self.with_deaths(|world| {
            let wanted = Edited::by(&world.core.desired(), change.clone()).unwrap().desired.services;
            world.mortally(|core| core.change(change).map(drop).map_err(drop), wanted);
        });
    }

    /// Does something with a daemon that may be killed meanwhile, and is followed by one that wants these services.
    fn mortally(&mut self, act: impl FnOnce(&mut Core<Racing>) -> Result<(), ()>, wanted: Services) {
        self.tables().life = self.kill_after.take();
        let done = act(&mut self.core);
        let killed = std::mem::take(&mut self.tables().life) == Some(0);
        assert!(done.is_ok() || killed);
        if killed {
            self.restart_for(wanted);
        }
    }

    /// The daemon ends, however that is, and another one takes its place.
    pub(super) fn restart(&mut self) {
        let before = self.tables().inner.words();
        let moving = self.core.has_moving_slots();
        let services = self.core.services.clone();
        // A daemon does not know what time had done to backends before it: drains begin anew, and slow starts are over.
        let takes_time = |service: &Service| {
            let ends = |backend: &Backend| service.drain_timeout(backend.admin).is_some();
            service.options.slow_start.is_some() || service.backends.iter().any(ends)
        };
        let stays = !services.values().any(takes_time);
        self.restart_for(services);
        if stays {
            assert_eq!(self.core.has_moving_slots(), moving);
            assert!(self.tables().inner.words() == before, "there was nothing to store");
        }
    }

    fn restart_for(&mut self, services: Services) {
        let nothing =
            Capacity { slots: 16, backends: 1, flow_sets: 1, service_entries: 1, ..self.tables().capacity() };
        let nobody = Core::new(Racing::new(MemoryDatapath::new(hash_key([0; 16]), nothing, &[]), 0, 1));
        let Core { datapath, next_hops, .. } = std::mem::replace(&mut self.core, nobody);
        self.core = Core::resume(datapath, services.clone()).unwrap();
        self.core.set_next_hops(next_hops).unwrap();
        self.core.begin(Desired { services, ..Desired::default() }, 1).unwrap();
        self.core.open();
    }

    pub(super) fn add(&mut self, service: usize, last: u8) {
        if !self.member(service, last).present {
            *self.member(service, last) = Member { present: true, ..Member::default() };
            let name = SERVICES[service].0.to_owned();
            self.change(Change::AddBackend { service: name, backend: member_backend(service, last, 100) });
        }
    }

    pub(super) fn remove(&mut self, service: usize, last: u8) {
        if std::mem::take(self.member(service, last)).present {
            let endpoint = member_backend(service, last, 0).endpoint;
            self.change(Change::RemoveBackend { service: SERVICES[service].0.to_owned(), endpoint });
        }
    }

    fn ask(&mut self, service: usize, last: u8, state: AdminState) {
        let endpoint = member_backend(service, last, 0).endpoint;
        self.change(Change::SetState { service: SERVICES[service].0.to_owned(), endpoint, state });
    }

    /// Drains a backend, for ever or for so many seconds. The same again changes nothing.
    pub(super) fn drain(&mut self, service: usize, last: u8, timeout: Option<u64>) {
        let now = self.tables().clock();
        let Member { present: true, state, .. } = self.member(service, last) else { return };
        if !matches!(state, State::Drains { timeout: old, .. } if *old == timeout) {
            *state = State::Drains { until: timeout.map(|seconds| now + seconds * SECOND), timeout };
        }
        let timeout = timeout.map(Duration::from_secs);
        self.ask(service, last, AdminState::Drain { timeout });
    }

    /// Puts a backend back to work.
    pub(super) fn ready(&mut self, service: usize, last: u8) {
        if self.member(service, last).present {
            self.member(service, last).state = State::Ready;
            self.ask(service, last, AdminState::Ready);
        }
    }

    /// Takes a backend out of service.
    pub(super) fn maintain(&mut self, service: usize, last: u8) {
        if self.member(service, last).present {
            self.member(service, last).state = State::Maintenance;
            self.ask(service, last, AdminState::Maintenance);
        }
    }

    pub(super) fn weigh(&mut self, service: usize, last: u8, weight: u16) {
        if self.member(service, last).present {
            let Backend { endpoint, weight, .. } = member_backend(service, last, weight);
            self.change(Change::SetWeight { service: SERVICES[service].0.to_owned(), endpoint, weight });
        }
    }

    /// A backend's health checks fail, or pass again.
    pub(super) fn check(&mut self, service: usize, last: u8, passes: bool) {
        if self.member(service, last).present {
            self.member(service, last).failed = !passes;
            let endpoint = member_backend(service, last, 0).endpoint;
            let target = CheckTarget { service: SERVICES[service].0.to_owned(), endpoint };
            let report = || CheckReport { target: target.clone(), ..checked(last, passes) };
            let reports: Vec<_> = (0..3).map(|_| report()).collect();
            let services = self.core.services.clone();
            self.with_deaths(|world| {
                world.mortally(|core| core.record(reports).map_err(drop), services);
                let again =
                    (0..3).map(|_| CheckReport { target: target.clone(), ..checked(last, passes) }).collect();
                world.core.record(again).unwrap();
            });
        }
    }

    /// The next hop of a backend is lost, or found again.
    pub(super) fn reach(&mut self, last: u8, found: bool) {
        if found {
            self.lost.remove(&last);
        } else {
            self.lost.insert(last);
        }
        self.look_around();
    }

    fn look_around(&mut self) {
        let reachable = (1..=BACKENDS).filter(|last| !self.lost.contains(last));
        let hops = reachable.map(|last| (endpoint(last).address, Ok(hop(last)))).collect();
        self.with_deaths(|world| world.core.set_next_hops(hops)).unwrap();
    }

    /// A new flow sends its first packet.
    pub(super) fn open(&mut self, service: usize) -> usize {
        let flow = self.tables().new_flow(service);
        self.send(flow);
        flow
    }

    /// A live flow sends a packet.
    pub(super) fn talk(&mut self, number: usize) {
        self.send(number);
    }

    /// A packet goes its way; what is said before of where it will arrive must be true.
    fn send(&mut self, number: usize) {
        // What is foretold holds until something happens; and a daemon that gathers what it has to know answers nobody yet.
        let odds = std::mem::take(&mut self.tables().odds);
        let foretold = self.flow(number).filter(|_| self.core.begun).map(|flow| {
            let found = self.core.lookup(&flow.name()).map(|found| {
                let arrives_at = if flow.opens() { found.opens_at.clone() } else { found.backend.clone() };
                (arrives_at, found)
            });
            (flow, found)
        });
        self.tables().odds = odds;
        let (Some(got), Some((flow, found))) = (self.tables().send(number), foretold) else { return };
        let (arrives_at, found) = found.map_or_else(|_| (None, None), |(at, found)| (at, Some(found)));
        let expected = got.map(|last| member_backend(flow.service, last, 1).endpoint.to_string());
        if arrives_at != expected {
            let mistake =
                format!("{:?} arrived at {expected:?}, and not as foretold: {found:?}", flow.name());
            self.tables().traffic.get_mut().wrong.push(mistake);
        }
    }

    /// A live flow sends a packet that reads its slot and is held up until the daemon waits for it.
    pub(super) fn hold_up(&mut self, number: usize) {
        self.tables().begin(number);
    }

    /// A new flow, whose first packet is held up likewise.
    pub(super) fn open_slowly(&mut self, service: usize) -> usize {
        let flow = self.tables().new_flow(service);
        self.hold_up(flow);
        flow
    }

    /// A flow ends without a word.
    pub(super) fn end(&mut self, number: usize) {
        let traffic = self.tables().traffic.get_mut();
        if let Some(flow) = traffic.flows.get_mut(number) {
            *flow = flow.filter(|flow| flow.busy);
        }
    }

    /// Flows there have been; those that are over are among them.
    pub(super) fn flows(&mut self) -> usize {
        self.tables().traffic.get_mut().flows.len()
    }

    /// A flow, if it is live.
    pub(super) fn flow(&mut self, number: usize) -> Option<Flow> {
        self.tables().traffic.get_mut().flows[number]
    }

    /// Flows that were sent to another backend while theirs was alive.
    pub(super) fn broken(&mut self) -> usize {
        self.tables().traffic.get_mut().wrong.len()
    }

    /// A second passes. No packet takes that long; whoever would become idle says something; the janitor comes by.
    pub(super) fn wait_a_second(&mut self) {
        let now = self.tables().clock() + SECOND;
        self.tables().finish_all();
        self.tables().inner.set_now(now);
        if self.core.until_next_step() == Some(Duration::ZERO) {
            self.with_deaths(|world| world.core.follow_time()).unwrap();
        }
        for number in 0..self.flows() {
            if self.flow(number).is_some_and(|flow| now - flow.last >= (IDLE - 1) * SECOND) {
                self.talk(number);
            }
        }
        self.since_sweep += 1;
        if self.since_sweep >= 2 && self.core.needs_sweeping() {
            self.since_sweep = 0;
            self.core.sweep().unwrap();
        }
    }

    /// What is wrong: flows that moved, slots or remembered flows that name what is not there.
    pub(super) fn mistakes(&mut self) -> Vec<String> {
        let mut mistakes = self.tables().traffic.get_mut().wrong.clone();
        mistakes.extend(self.core.overlooked());
        let Core { placement, datapath, untidy, .. } = &self.core;
        let mut lots = Vec::new();
        for (name, placed) in placement.services() {
            let ids = placed.ids();
            for (slot, index) in placed.slots().iter().zip(placed.first_slot()..) {
                if datapath.inner.slot(index) != Some(*slot) {
                    mistakes.push(format!("{name}: slot {index} is not in the table"));
                }
                if !ids.contains(slot.current()) || !ids.contains(slot.fallback()) {
                    mistakes.push(format!("{name}: slot {index} names a backend that is gone: {slot:?}"));
                }
                lots.push((index, *slot, ids.clone()));
            }
        }
        for (entry, detail) in (0..datapath.capacity().flows()).filter_map(|place| datapath.inner.flow(place))
        {
            match lots.iter().find(|(index, ..)| *index == detail.index()) {
                Some((_, slot, ids)) if slot.is_moving() && ids.contains(entry.backend()) => {}
                // The next step forgets it before it does anything else.
                _ if *untidy => {}
                _ => mistakes.push(format!("{entry:?} of slot {} is left over", detail.index())),
            }
        }
        mistakes
    }

    /// The janitor comes by.
    pub(super) fn sweep(&mut self) {
        let services = self.core.services.clone();
        self.mortally(|core| core.sweep().map_err(drop), services);
    }

    /// The backend to which the service's Maglev table sends a flow, live or not.
    pub(super) fn maglev(&self, number: usize, service: usize) -> u8 {
        let flow = Flow::new(number, service, 0);
        let Core { placement, datapath, .. } = &self.core;
        let table = placement.service(SERVICES[service].0).unwrap().table();
        let owner = table[scale(datapath.hash(&flow), table.len() as u32) as usize];
        datapath.backend(&datapath.service(&flow).unwrap(), owner).unwrap()
    }

    /// Whether a backend is alive.
    pub(super) fn is_alive(&self, service: usize, last: u8) -> bool {
        let member = self.members[service][usize::from(last - 1)];
        let wanted = match member.state {
            State::Ready => true,
            State::Drains { until, .. } => until.is_none_or(|until| self.core.datapath.clock() < until),
            State::Maintenance => false,
        };
        member.present && wanted && !member.failed && !self.lost.contains(&last)
    }

    /// Whether a backend takes new flows.
    pub(super) fn serves(&self, service: usize, last: u8) -> bool {
        self.is_alive(service, last) && self.members[service][usize::from(last - 1)].state == State::Ready
    }

    /// Flows that are remembered, as the status tells it.
    pub(super) fn remembered(&self) -> u64 {
        self.core.status(&[]).unwrap().flows.remembered
    }

    /// A number below `limit` that looks random.
    pub(super) fn random(&mut self, limit: usize) -> usize {
        self.tables().traffic.get_mut().random(limit)
    }

    /// Flows that had to make room for others.
    pub(super) fn evicted(&mut self) -> u64 {
        self.tables().flow_counts().unwrap().evicted
    }
}

fn member_backend(service: usize, last: u8, weight: u16) -> Backend {
    let endpoint = format!("10.0.1.{last}:{}", SERVICES[service].2).parse().unwrap();
    Backend { endpoint, weight: Weight(weight), admin: AdminState::Ready }
}
