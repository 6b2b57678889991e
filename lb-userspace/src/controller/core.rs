//! The controller without its tasks: everything it knows, and what follows from each thing it learns.

mod commit;
mod flows;
mod limited;
mod lists;
mod phases;
mod resume;
mod suggestions;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use lb_common::layout::{InterfaceEntry, LimiterCounts, USABLE};
use lb_common::lists::Side;
use lb_common::verdict::{AnswerReason, DropReason, PassReason};
use lb_common::wire::Mac;

pub use self::flows::FlowsQuery;
use self::phases::Phases;
use super::contended::Contended;
use super::janitor::{self, Pressure};
use super::ledger::{Counted, Ledger, ServiceTotals};
use super::limited::Limited;
use super::{ChangeError, edits};
use crate::config::limit_keys;
use crate::datapath::{Attachment, Datapath, Image, NO_INTERFACE, Store, TableError, apply, publish};
use crate::health::{CheckReport, CheckTarget, Health, HealthTracker};
use crate::journal::Journal;
use crate::model::{Backend, Endpoint, HealthCheck, Limit, LimiterKey, Lists, Service};
use crate::neighbors::{NextHop, NextHops};
use crate::placement::{
    Moves, Placed, Placement, PlacementError, Services, Touched, ask_lists, deliverable, needs_exact_clock,
    render_from, slots,
};
use crate::view::{
    BackendView, CheckView, ConfigStatus, EventKind, FlowsView, HealthState, InterfaceView, LimitView,
    OptionsView, ReasonCount, ServiceView, SlotsView, Status,
};

/// Why the tables could not follow.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// There is no room.
    #[error(transparent)]
    Placement(#[from] PlacementError),
    /// There is no room for so many prefixes.
    #[error(
        "there is room for {capacity} prefixes on the deny and the allow list together, and not for {wanted}"
    )]
    ListsFull {
        /// Prefixes on both lists.
        wanted: usize,
        /// Prefixes there is room for.
        capacity: u32,
    },
    /// A table could not be read or written.
    #[error(transparent)]
    Table(#[from] TableError),
}

/// What is known of one backend's health.
#[derive(Debug)]
struct Record {
    tracker: HealthTracker,
    since: Option<Instant>,
    last: String,
}

/// What packets have seen that are under way through the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum UnderWay {
    /// Some may have seen the tables as they were before the last change.
    Unaware,
    /// Whoever had has been waited for.
    Aware,
}

/// The one owner of the tables.
pub(super) struct Core<D> {
    datapath: D,
    services: Services,
    lists: Arc<Lists>,
    /// The table of lists that packets ask.
    side: Option<Side>,
    health: BTreeMap<CheckTarget, Record>,
    next_hops: NextHops,
    placement: Placement,
    image: Image,
    ledger: Ledger,
    pressure: Pressure,
    contended: Contended,
    limited: Limited,
    generation: u64,
    interfaces: BTreeMap<u32, InterfaceEntry>,
    /// Whether the tables could not follow what was learned; made up for with the next look at the next hops.
    behind: bool,
    /// Services that something was learned about which the tables do not follow yet.
    pending: Touched,
    /// Whether flows may be remembered that no slot needs.
    untidy: bool,
    /// Stores that clear what nothing leads to any more.
    retiring: Vec<Store>,
    /// What the packets that are under way have seen.
    under_way: UnderWay,
    /// Whether the tables follow what is learned. Before, a daemon that finds them filled gathers what it has to know.
    begun: bool,
    /// What time does to backends.
    phases: Phases,
    started: Instant,
    /// Where it is told what happens.
    journal: Journal,
}

impl<D: Datapath> Core<D> {
    /// A controller that knows of no service yet.
    pub(super) fn new(datapath: D) -> Self {
        let placement = Placement::new(&datapath.capacity());
        Self {
            datapath,
            services: Services::new(),
            lists: Arc::default(),
            side: None,
            health: BTreeMap::new(),
            next_hops: NextHops::new(),
            placement,
            image: Image::default(),
            ledger: Ledger::default(),
            pressure: Pressure::default(),
            contended: Contended::default(),
            limited: Limited::new(Instant::now()),
            generation: 0,
            interfaces: BTreeMap::new(),
            behind: false,
            pending: Touched::All,
            untidy: false,
            retiring: Vec::new(),
            under_way: UnderWay::Unaware,
            begun: true,
            phases: Phases::default(),
            started: Instant::now(),
            journal: Journal::default(),
        }
    }

    /// Takes in the ways to backends.
    pub(super) fn set_next_hops(&mut self, next_hops: NextHops) -> Result<(), ReconcileError> {
        let before = std::mem::replace(&mut self.next_hops, next_hops);
        let changed = differing(&before, &self.next_hops);
        if changed.is_empty() && !self.behind {
            return Ok(());
        }
        let reached = |service: &&Service| {
            service.backends.iter().any(|backend| changed.contains(&backend.endpoint.address))
        };
        let touched = self.services.values().filter(reached).map(|service| service.name.clone());
        self.pending.add(touched.collect());
        self.catch_up()
    }

    /// Whether there is a way to every backend, and the tables follow it.
    pub(super) fn reaches_all(&self) -> bool {
        !self.behind && self.next_hops.values().all(Result::is_ok)
    }

    /// Takes in the ways to backends that are about to be added.
    pub(super) fn add_next_hops(&mut self, next_hops: NextHops) {
        self.next_hops.extend(next_hops);
    }

    /// Takes in the MAC addresses of the host's interfaces; the tables follow with the next hops.
    pub(super) fn set_own_macs(&mut self, macs: &BTreeMap<u32, crate::neighbors::Mac>) {
        let entry = |index: u32| {
            let mac = macs.get(&index);
            let known = u16::from(mac.is_some());
            InterfaceEntry { mac: Mac::new(mac.copied().unwrap_or_default()), known, index, reserved: 0 }
        };
        let rows = self.datapath.interfaces().iter().zip(1..).filter(|(index, _)| **index != NO_INTERFACE);
        let interfaces = rows.map(|(index, row)| (row, entry(*index))).collect();
        self.behind |= self.interfaces != interfaces;
        self.interfaces = interfaces;
    }

    /// Takes in finished checks.
    pub(super) fn record(&mut self, reports: Vec<CheckReport>) -> Result<(), ReconcileError> {
        let mut changed = false;
        for CheckReport { target, outcome } in reports {
            let Some(record) = self.health.get_mut(&target) else { continue };
            record.last = outcome.to_string();
            let first = !record.tracker.is_decided();
            let transition = record.tracker.record(outcome.passed());
            if first || transition.is_some() {
                record.since = Some(Instant::now());
            }
            if let Some(health) = transition {
                let word = if health == Health::Up { "up" } else { "down" };
                let text = format!("backend {} is {word}: {outcome}", target.endpoint);
                tracing::info!("service {}: {text}", target.service);
                self.journal.tell(EventKind::Health, Some(&target.service), text);
                self.pending.add([target.service].into_iter().collect());
                changed = true;
            }
        }
        if changed { self.catch_up() } else { Ok(()) }
    }

    /// Lets the tables follow what was learned: it cannot be refused, so a failure is remembered.
    fn catch_up(&mut self) -> Result<(), ReconcileError> {
        self.behind = true;
        if !self.begun {
            return Ok(());
        }
        let result = self.reconcile();
        self.tidy();
        result.map(drop)
    }

    /// Where everything would stand if these services were wanted, of which some differ from those wanted now, and these
    /// backends could be expected to answer; and which services are concerned.
    fn next_placement(
        &self,
        services: &Services,
        changed: Touched,
        is_alive: impl Fn(&Service, &Backend) -> bool,
    ) -> Result<(Placement, Phases, Touched), PlacementError> {
        let mut touched = self.pending.clone();
        touched.add(changed);
        let (phases, moved) = self.next_phases(services, &touched, &is_alive);
        touched.add(moved);
        let placement = self.placement.next_with(services, &touched, |service, backend| {
            phases.standing(service, backend, is_alive(service, backend))
        })?;
        Ok((placement, phases, touched))
    }

    /// Brings the tables to what follows from everything that is known.
    fn reconcile(&mut self) -> Result<Moves, ReconcileError> {
        self.try_to_tidy()?;
        let (mut placement, phases, touched) =
            self.next_placement(&self.services, Touched::NONE, |service, backend| {
                self.is_alive(service, backend)
            })?;
        let hop = |address| self.next_hops.get(&address)?.as_ref().ok();
        let mut image = render_from(&self.image, &placement, &self.services, &touched, hop);
        image.interfaces.clone_from(&self.interfaces);
        ask_lists(&mut image, self.side);
        let ledger = self.ledger.next(&placement, &touched, &mut self.datapath)?;
        ledger.note(&mut image, &touched);
        self.clear_meters(&ledger)?;
        self.under_way = UnderWay::Unaware;
        match publish(&mut self.datapath, &self.image, &image) {
            Ok(retiring) => self.retiring = retiring,
            Err(error) => {
                // Slots may have moved for a moment and flows been remembered that nobody will ask for.
                self.forget_what_is_over();
                return Err(error.into());
            }
        }
        // The tables have changed: from here on nothing may fail.
        placement.publish(self.datapath.clock());
        let moved = placement.moves_since(&self.placement);
        let leaves_flows = self.placement.leaves_flows(&placement);
        (self.placement, self.image, self.ledger, self.behind) = (placement, image, ledger, false);
        self.pending = Touched::NONE;
        self.set_phases(phases);
        self.untidy = leaves_flows;
        Ok(moved)
    }

    /// Ends the last step: clears what nothing leads to any more, and forgets flows that no slot needs. Nobody need wait for it.
    /// If it fails, it is done before the next step or with the next sweep.
    pub(super) fn tidy(&mut self) {
        if let Err(error) = self.try_to_tidy() {
            tracing::error!("what the last change has left behind cannot be cleared yet: {error}");
        }
    }

    /// [`Self::tidy`]. What was given up is given to nobody before it has succeeded.
    fn try_to_tidy(&mut self) -> Result<(), TableError> {
        self.clear_what_is_over()?;
        if std::mem::take(&mut self.untidy) {
            self.forget_what_is_over();
        }
        Ok(())
    }

    /// The part of it that is about rows and their counts: whoever looks at all flows next does the other by that.
    fn clear_what_is_over(&mut self) -> Result<(), TableError> {
        if !self.retiring.is_empty() {
            self.wait_for_packets();
            self.retiring.iter().try_for_each(|store| self.datapath.store(*store))?;
            self.retiring.clear();
        }
        if self.ledger.is_closing() {
            self.wait_for_packets();
            if let Err(error) = self.close_accounts() {
                tracing::error!("the counts of backends that were moved or removed are lost: {error}");
            }
        }
        Ok(())
    }

    /// Carries over what was counted in rows that were given up, also for a daemon that comes after this one.
    fn close_accounts(&mut self) -> Result<(), TableError> {
        let concerned = self.ledger.settle(&self.datapath)?;
        if !concerned.is_empty() {
            let mut image = self.image.clone();
            self.ledger.note(&mut image, &Touched::Some(concerned));
            apply(&mut self.datapath, &self.image, &image)?;
            self.image = image;
        }
        Ok(())
    }

    /// Whether there are slots on the way from one backend to another.
    fn has_moving_slots(&self) -> bool {
        self.placement.is_moving()
    }

    /// Whether there is anything for [`Self::sweep`] to do.
    pub(super) fn needs_sweeping(&self) -> bool {
        self.has_moving_slots() || self.untidy || !self.retiring.is_empty()
    }

    /// Looks at all remembered flows, and brings those slots to rest that need to remember none.
    pub(super) fn sweep(&mut self) -> Result<(), ReconcileError> {
        self.clear_what_is_over()?;
        self.wait_for_packets();
        let found = janitor::walk(&mut self.datapath, &self.placement);
        self.untidy = false;
        let now = self.datapath.clock();
        match self.placement.calmed(|slot| found.dissents(slot), janitor::MARGIN, now) {
            Some(placement) => {
                self.store_slots(placement)?;
                self.untidy = true;
            }
            None => self.record_pressure(found.flows),
        }
        Ok(())
    }

    /// Brings the slots to what `placement` says, which differs in nothing else from the one there is.
    fn store_slots(&mut self, placement: Placement) -> Result<(), TableError> {
        let image = Image { slots: slots(&placement), ..self.image.clone() };
        self.under_way = UnderWay::Unaware;
        apply(&mut self.datapath, &self.image, &image)?;
        (self.placement, self.image) = (placement, image);
        Ok(())
    }

    /// Forgets what no slot and no backend needs any more, also what packets under way remember at this moment.
    fn forget_what_is_over(&mut self) {
        self.wait_for_packets();
        let found = janitor::walk(&mut self.datapath, &self.placement);
        self.record_pressure(found.flows);
    }

    /// From here on every packet has seen the slots as they are, and what was remembered before can be seen.
    fn wait_for_packets(&mut self) {
        if self.under_way == UnderWay::Unaware {
            self.datapath.settle();
            self.under_way = UnderWay::Aware;
        }
    }

    fn record_pressure(&mut self, flows: u64) {
        match self.datapath.flow_counts() {
            Ok(counts) => self.pressure.record(flows, counts, self.datapath.capacity().flows()),
            Err(error) => tracing::error!("cannot tell how full the flow table is: {error}"),
        }
    }

    fn follow_health_checks(&mut self) {
        let wanted = self.wanted_checks();
        self.health.retain(|target, _| wanted.contains_key(target));
        for (target, (_, check)) in wanted {
            let tracker = HealthTracker::new(check.rise, check.fall);
            let record =
                self.health.entry(target).or_insert(Record { tracker, since: None, last: String::new() });
            record.tracker.reconfigure(check.rise, check.fall);
        }
    }

    /// The checks that should be running. A configuration has refused checks without a port.
    pub(super) fn wanted_checks(&self) -> BTreeMap<CheckTarget, (SocketAddr, HealthCheck)> {
        let check = |service: &Service, backend: &Backend| {
            let check = service.health?;
            let port = check.port.map_or_else(|| backend.endpoint.port.number(), |port| Some(port.get()))?;
            let target = CheckTarget { service: service.name.clone(), endpoint: backend.endpoint };
            Some((target, (SocketAddr::new(backend.endpoint.address, port), check)))
        };
        let of_service =
            |service: &Service| service.backends.iter().filter_map(|b| check(service, b)).collect::<Vec<_>>();
        self.services.values().filter(|service| service.health.is_some()).flat_map(of_service).collect()
    }

    /// The addresses whose next hops are needed.
    pub(super) fn backend_addresses(&self) -> BTreeSet<IpAddr> {
        let backends = self.services.values().flat_map(|service| &service.backends);
        backends.map(|backend| backend.endpoint.address).collect()
    }

    /// The VIPs, of which the program answers echo requests.
    pub(super) fn vips(&self) -> BTreeSet<IpAddr> {
        self.services.values().map(|service| service.vip.address).collect()
    }

    /// The VIPs that the neighbours are to be told of.
    pub(super) fn announced_vips(&self) -> BTreeSet<IpAddr> {
        let announced = self.services.values().filter(|service| service.options.announce);
        announced.map(|service| service.vip.address).collect()
    }

    fn health_of(&self, service: &Service, endpoint: Endpoint) -> HealthState {
        if service.health.is_none() {
            return HealthState::Unchecked;
        }
        let target = CheckTarget { service: service.name.clone(), endpoint };
        match self.health.get(&target).map(|record| record.tracker.health()) {
            Some(Health::Down) => HealthState::Down,
            _ => HealthState::Up,
        }
    }

    fn next_hop(&self, service: &Service, address: IpAddr) -> Result<&NextHop, String> {
        let hop = self.next_hops.get(&address).ok_or("not looked up yet")?;
        let hop = hop.as_ref().map_err(ToString::to_string)?;
        deliverable(service.mode, hop)?;
        Ok(hop)
    }

    /// Why a backend cannot be reached, if it cannot.
    fn obstacle(&self, service: &str, endpoint: Endpoint) -> Option<String> {
        self.next_hop(self.services.get(service)?, endpoint.address).err()
    }

    /// Whether the tables can be read.
    pub(super) fn pulse(&self) -> Result<(), TableError> {
        self.datapath.flow_counts().map(drop)
    }

    /// The daemon as a whole.
    pub(super) fn status(&self, attachments: &[Attachment]) -> Result<Status, TableError> {
        let counted = self.ledger.read(&self.datapath)?;
        let services: Result<Vec<_>, _> =
            self.services.values().map(|service| self.service_view(service, &counted)).collect();
        Ok(Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_seconds: self.started.elapsed().as_secs(),
            generation: self.generation,
            config: ConfigStatus::default(),
            interfaces: self.interfaces(attachments)?,
            services: services?,
            flows: self.flows_view()?,
            lists: self.lists_view(),
            limiter_samples: self.samples_view()?,
            warnings: self.warnings(),
        })
    }

    /// What became of packets on each interface.
    pub(super) fn interfaces(&self, attachments: &[Attachment]) -> Result<Vec<InterfaceView>, TableError> {
        attachments
            .iter()
            .map(|attachment| self.interface_view(attachment, self.row_of(attachment)))
            .collect()
    }

    /// Where it is told what happens.
    pub(super) fn journal(&self) -> &Journal {
        &self.journal
    }

    /// The row in which an interface counts.
    fn row_of(&self, attachment: &Attachment) -> u32 {
        let mut rows = self.datapath.interfaces().iter().zip(1..);
        rows.find_map(|(index, row)| (*index == attachment.index).then_some(row)).unwrap_or_default()
    }

    fn flows_view(&self) -> Result<FlowsView, TableError> {
        let counts = self.datapath.flow_counts()?;
        let capacity = self.datapath.capacity().flows() as u64;
        Ok(FlowsView {
            remembered: self.pressure.flows(counts).min(capacity),
            capacity,
            known: counts.known,
            added: counts.added,
            evicted: counts.evicted,
            contended: counts.contended,
        })
    }

    fn interface_view(&self, attachment: &Attachment, row: u32) -> Result<InterfaceView, TableError> {
        macro_rules! seen {
            ($reasons:ident) => {
                self.seen(row, $reasons::ALL.iter().map(|r| (r.label(), r.meaning(), r.counter())))?
            };
        }
        Ok(InterfaceView {
            name: attachment.interface.clone(),
            mode: attachment.mode.name().to_owned(),
            passes: seen!(PassReason),
            drops: seen!(DropReason),
            answers: seen!(AnswerReason),
        })
    }

    /// Those of `reasons` (label, meaning, counter) that were the outcome of any packet.
    fn seen<'r>(
        &self,
        row: u32,
        reasons: impl Iterator<Item = (&'r str, &'r str, u32)>,
    ) -> Result<Vec<ReasonCount>, TableError> {
        let count = |(label, meaning, counter): (&str, &str, u32)| {
            let packets = self.datapath.reason(row, counter)?;
            Ok(ReasonCount { reason: label.to_owned(), meaning: meaning.to_owned(), packets })
        };
        let happened = |count: &Result<ReasonCount, _>| !matches!(count, Ok(ReasonCount { packets: 0, .. }));
        reasons.map(count).filter(happened).collect()
    }

    fn service_view(&self, service: &Service, counted: &Counted) -> Result<ServiceView, TableError> {
        let ServiceTotals { forwarded, withheld } =
            self.ledger.service(&service.name, counted, &self.datapath)?;
        let placed = self.placement.service(&service.name);
        let (slots, moving) = placed.map_or((0, 0), |placed| (placed.slots().len(), placed.moving()));
        let mut limits = Vec::new();
        let mut contended = 0;
        for (key, limit) in self.services.limiters_met(service) {
            limits.push(limit.policy().to_string());
            // What limiters of all services let through cannot be told by service.
            let own = key.service.is_some();
            contended += if own { self.ledger.limiter(&key, &self.datapath)?.contended } else { 0 };
        }
        Ok(ServiceView {
            name: service.name.clone(),
            vip: service.vip.to_string(),
            protocol: service.protocol,
            mode: service.mode,
            limit: Some(limits.join("; ")).filter(|words| !words.is_empty()),
            options: OptionsView::of(service),
            table_size: service.table_size,
            slots: SlotsView { settled: (slots - moving) as u64, moving: moving as u64 },
            backends_serving: placed
                .map_or(0, |placed| placed.owned_slots().filter(|(_, slots)| *slots > 0).count()),
            backends_total: service.backends.len(),
            packets: forwarded.packets + withheld.limited + withheld.dropped,
            bytes: forwarded.bytes,
            new_flows: forwarded.new_flows,
            limited: withheld.limited,
            contended,
        })
    }

    fn warnings(&self) -> Vec<String> {
        let mut warnings: Vec<String> =
            self.services.values().flat_map(|service| self.warnings_of(service)).collect();
        if self.has_moving_slots() && self.pressure.is_evicting() {
            let flows = self.datapath.capacity().flows();
            warnings.push(format!(
                "the flow table ({flows} flows) is full: flows may reach another backend while slots move \
                 ([daemon] flows makes it larger)"
            ));
        }
        warnings
    }

    /// Whether every backend of a service is usable, by a look at the tables: that is the rule, and quickly known.
    fn is_well(&self, service: &Service) -> bool {
        let usable = |placed: &Placed| {
            let run = self.image.backends.run(placed.first_backend()).map_or(&[][..], |run| &run[..]);
            run.iter().filter(|entry| entry.flags & USABLE != 0).count()
        };
        let placed = self.placement.service(&service.name).filter(|placed| placed.is_open());
        !self.behind && placed.is_some_and(|placed| usable(placed) == service.backends.len())
    }

    fn warnings_of(&self, service: &Service) -> Vec<String> {
        if self.is_well(service) {
            return Vec::new();
        }
        let name = &service.name;
        let wanted = |backend: &&Backend| !self.is_retired(service, backend);
        let down = |backend: &&Backend| {
            wanted(backend) && self.health_of(service, backend.endpoint) == HealthState::Down
        };
        let mut warnings = Vec::new();
        let (failed, total) = (service.backends.iter().filter(down).count(), service.backends.len());
        let placed = self.placement.service(name);
        if placed.is_some_and(Placed::is_closed) {
            warnings.push(format!(
                "service {name}: no backend takes new flows, those there are go on (lb backend list {name})"
            ));
        } else if !placed.is_some_and(Placed::is_open) {
            warnings.push(format!(
                "service {name}: no backend takes traffic, its packets are dropped (lb backend list {name})"
            ));
        } else if failed > 0 {
            warnings
                .push(format!("service {name}: {failed} of {total} backends down (lb backend list {name})"));
        }
        for backend in service.backends.iter().filter(wanted) {
            if let Err(reason) = self.next_hop(service, backend.endpoint.address) {
                warnings.push(format!("service {name}: backend {}: {reason}", backend.endpoint));
            }
        }
        warnings
    }

    /// The limiters that packets of one service meet, or all there are.
    pub(super) fn limits(&self, service: Option<&str>) -> Result<Vec<LimitView>, ChangeError> {
        let view = |(key, limit): (LimiterKey, &Limit)| self.limit_view(key, limit);
        let views: Result<Vec<_>, _> = match service {
            None => self.services.limiters().map(view).collect(),
            Some(name) => {
                let service =
                    self.services.get(name).ok_or_else(|| edits::no_service(&self.services, name))?;
                self.services.limiters_met(service).map(view).collect()
            }
        };
        views.map_err(|error| ChangeError::Refused(error.to_string()))
    }

    /// Tells the log of limiters that began to let packets through for want of buckets.
    pub(super) fn watch_limiters(&mut self) -> Result<(), TableError> {
        let counts = self.services.limiters().map(|(key, _)| {
            let contended = self.ledger.limiter(&key, &self.datapath)?.contended;
            Ok((key, contended))
        });
        for key in self.contended.record(counts.collect::<Result<_, _>>()?) {
            let service = key.service.as_deref().unwrap_or("*");
            tracing::warn!(
                "limiter {} of service {service}: its buckets are full of busy sources, others pass unasked \
                 (lb limit show '{service}' {})",
                key.name,
                key.name
            );
        }
        Ok(())
    }

    fn limit_view(&self, key: LimiterKey, limit: &Limit) -> Result<LimitView, TableError> {
        let LimiterCounts { admitted, over, unmarked, contended } =
            self.ledger.limiter(&key, &self.datapath)?;
        Ok(LimitView {
            service: key.service,
            name: key.name,
            words: limit.policy().to_string(),
            settings: limit_keys(limit.policy()),
            clock: if needs_exact_clock(limit) { "exact" } else { "coarse" }.to_owned(),
            action: limit.policy().action,
            over,
            unmarked,
            contended,
            admitted,
        })
    }

    /// The health checks of one service, or all there are.
    pub(super) fn checks(&self, service: Option<&str>) -> Result<Vec<CheckView>, ChangeError> {
        if let Some(name) = service.filter(|name| !self.services.contains_key(name)) {
            return Err(edits::no_service(&self.services, name));
        }
        let asked = |target: &CheckTarget| service.is_none_or(|service| service == target.service);
        let wanted = self.wanted_checks().into_iter().filter(|(target, _)| asked(target));
        let view = |(target, (address, check)): (CheckTarget, (SocketAddr, HealthCheck))| {
            let record = self.health.get(&target);
            let is_down = record.is_some_and(|record| record.tracker.health() == Health::Down);
            CheckView {
                backend: target.endpoint.to_string(),
                service: target.service,
                target: address.to_string(),
                health: if is_down { HealthState::Down } else { HealthState::Up },
                since_seconds: record.and_then(|r| r.since).map(|since| since.elapsed().as_secs()),
                interval_ms: check.interval.as_millis() as u64,
                rise: check.rise,
                fall: check.fall,
                last_check: record.map(|record| record.last.clone()).unwrap_or_default(),
            }
        };
        Ok(wanted.map(view).collect())
    }

    /// The backends of one service.
    pub(super) fn backends(&self, name: &str) -> Result<Vec<BackendView>, ChangeError> {
        let service = self.services.get(name).ok_or_else(|| edits::no_service(&self.services, name))?;
        let owned: BTreeMap<Endpoint, u32> = self
            .placement
            .service(name)
            .into_iter()
            .flat_map(|placed| placed.owned_slots().map(|(endpoint, slots)| (*endpoint, slots)))
            .collect();
        let slots: u32 = owned.values().sum();
        let share =
            |endpoint| owned.get(&endpoint).map_or(0.0, |own| f64::from(*own) / f64::from(slots.max(1)));
        let view = |backend: &Backend| self.backend_view(service, backend, share(backend.endpoint));
        let views: Result<Vec<_>, _> = service.backends.iter().map(view).collect();
        views.map_err(|error| ChangeError::Refused(error.to_string()))
    }

    fn backend_view(
        &self,
        service: &Service,
        backend: &Backend,
        share: f64,
    ) -> Result<BackendView, TableError> {
        let endpoint = backend.endpoint;
        let counts = self.ledger.backend(&service.name, endpoint, &self.datapath)?;
        let record = self.health.get(&CheckTarget { service: service.name.clone(), endpoint });
        let next_hop = self.next_hop(service, endpoint.address);
        Ok(BackendView {
            address: endpoint.to_string(),
            state: backend.admin.into(),
            drain_seconds_left: self.drain_seconds_left(service, backend),
            health: self.health_of(service, endpoint),
            weight: backend.weight,
            effective_weight: self.effective_weight(service, backend),
            share,
            reachable: next_hop.is_ok(),
            next_hop: next_hop.map_or_else(|reason| reason, ToString::to_string),
            packets: counts.packets,
            bytes: counts.bytes,
            since_seconds: record.and_then(|r| r.since).map(|since| since.elapsed().as_secs()),
            last_check: record.map(|r| r.last.clone()).unwrap_or_default(),
        })
    }

    /// The tables' owner lends them out.
    pub(super) fn datapath(&mut self) -> &mut D {
        &mut self.datapath
    }
}

/// The keys whose values differ, or that only one of both has.
fn differing<K: Ord + Copy, V: PartialEq>(one: &BTreeMap<K, V>, other: &BTreeMap<K, V>) -> BTreeSet<K> {
    let lacks = |of: &BTreeMap<K, V>, key: &K, value: &V| of.get(key) != Some(value);
    let left = one.iter().filter(|(key, value)| lacks(other, key, value));
    let right = other.iter().filter(|(key, value)| lacks(one, key, value));
    left.chain(right).map(|(key, _)| *key).collect()
}

#[cfg(test)]
mod tests;
