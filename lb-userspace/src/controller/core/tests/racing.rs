//! Clients and their packets, and tables in memory that packets use while the daemon is at work on them.
//!
//! Packets go their whole way at once, or are held up after they have read their slot, while the daemon stores, forgets and
//! walks: as on the CPUs of a host, where only [`Datapath::settle`] says that nothing old is under way any more.

use std::cell::RefCell;
use std::collections::BTreeSet;

use lb_common::flow::{Detail, Entry, Passenger, PassengerKind, Tick, owner};
use lb_common::frame::Frame;
use lb_common::hash::scale;
use lb_common::layout::{ServiceEntry, ServiceKey, USABLE, VipKey};
use lb_common::pipeline::{Clock, balance};
use lb_common::slot::{BackendId, Slot};
use lb_common::verdict::Verdict;
use lb_common::wire::{Ipv4Address, Ports};

use super::*;
use crate::datapath::Store;
use crate::datapath::double::Double;
use crate::view::FlowName;

/// The services, by number: one of each protocol.
pub(super) const SERVICES: [(&str, Protocol, u16); 2] =
    [("web", Protocol::Tcp, 80), ("dns", Protocol::Udp, 53)];

pub(super) const SECOND: u64 = 1_000_000_000;
const VIP: [u8; 4] = [192, 0, 2, 10];
/// The interface by which packets come and go.
pub(super) const INTERFACE: u32 = 2;

/// One flow of a client.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flow {
    /// Its service.
    pub(super) service: usize,
    /// Its source address and port, which no other flow has.
    source: ([u8; 4], u16),
    /// Who got its first packet.
    pub(super) backend: Option<u8>,
    pub(super) last: u64,
    /// A packet of it is under way.
    pub(super) busy: bool,
}

impl Flow {
    /// The flow of this number.
    pub(super) fn new(number: usize, service: usize, now: u64) -> Self {
        let [_, _, high, low] = (number as u32 >> 15).to_be_bytes();
        let source = ([198, 51, high, low], 1 << 15 | number as u16);
        Self { service, source, backend: None, last: now, busy: false }
    }

    fn protocol(&self) -> u8 {
        match SERVICES[self.service].1 {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
        }
    }

    /// What `lookup` calls it.
    pub(super) fn name(&self) -> FlowName {
        let (_, protocol, port) = SERVICES[self.service];
        let (address, own_port) = self.source;
        FlowName { protocol, source: (address, own_port).into(), vip: (VIP, port).into() }
    }

    pub(super) fn opens(&self) -> bool {
        self.backend.is_none() && SERVICES[self.service].1 == Protocol::Tcp
    }

    /// A packet of it, as it comes from the wire.
    fn frame(&self) -> Vec<u8> {
        let transport = match SERVICES[self.service].1 {
            Protocol::Tcp => {
                let flags = if self.opens() { 0x02 } else { 0x10 };
                let [high, low] = SERVICES[self.service].2.to_be_bytes();
                let rest = [high, low, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0];
                [&self.source.1.to_be_bytes()[..], &rest].concat()
            }
            Protocol::Udp => {
                let [high, low] = SERVICES[self.service].2.to_be_bytes();
                [&self.source.1.to_be_bytes()[..], &[high, low, 0, 8, 0, 0]].concat()
            }
        };
        let length = 20 + transport.len() as u8;
        let ip = [0x45, 0, 0, length, 0, 0, 0x40, 0, 64, self.protocol(), 0, 0];
        [&[0; 12][..], &[0x08, 0], &ip, &self.source.0, &VIP, &transport].concat()
    }
}

/// A packet that has read its slot.
struct UnderWay {
    flow: usize,
    service: ServiceEntry,
    slot: Slot,
    passenger: Passenger,
    now: Tick,
}

/// What the clients do and see.
#[derive(Default)]
pub(super) struct Traffic {
    pub(super) flows: Vec<Option<Flow>>,
    under_way: Vec<UnderWay>,
    /// Who is alive: numbers of service and backend.
    pub(super) alive: BTreeSet<(usize, u8)>,
    /// What went wrong.
    pub(super) wrong: Vec<String>,
    pub(super) random: u64,
}

impl Traffic {
    /// A number below `limit` (xorshift, G. Marsaglia, 2003).
    pub(super) fn random(&mut self, limit: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 16) as usize % limit.max(1)
    }

    /// A packet of a flow has reached a backend, or nobody.
    fn arrive(&mut self, number: usize, got: Option<u8>) {
        let Some(flow) = self.flows[number].as_mut() else { return };
        match (flow.backend, got) {
            (None, Some(backend)) if self.alive.contains(&(flow.service, backend)) => {
                flow.backend = Some(backend);
            }
            // Its first packet was lost, or came to somebody who is going: it never began.
            (None, _) => self.flows[number] = None,
            (Some(backend), got) if got != Some(backend) => {
                self.wrong.push(format!("flow {number} of backend {backend} was sent to {got:?}"));
                self.flows[number] = None;
            }
            _ => {}
        }
    }
}

/// Tables in memory that packets use while the daemon is at work on them.
pub(super) struct Racing {
    pub(super) inner: MemoryDatapath,
    pub(super) traffic: RefCell<Traffic>,
    pub(super) odds: usize,
    /// Stores until the daemon is killed, if it is going to be.
    pub(super) life: Option<usize>,
}

impl Racing {
    /// Something happens at one of `odds` steps of the daemon, never if 0.
    pub(super) fn new(inner: MemoryDatapath, odds: usize, seed: u64) -> Self {
        let traffic = Traffic { random: seed | 1, ..Traffic::default() };
        Self { inner, traffic: RefCell::new(traffic), odds, life: None }
    }

    /// Something happens between two steps of the daemon.
    fn race(&self) {
        if self.odds == 0 {
            return;
        }
        let (starts, ends, flow, packet) = {
            let mut traffic = self.traffic.borrow_mut();
            let odds = self.odds;
            let (flows, packets) = (traffic.flows.len(), traffic.under_way.len());
            (
                traffic.random(odds) == 0,
                traffic.random(odds) == 0,
                traffic.random(flows + 1),
                traffic.random(packets),
            )
        };
        if starts {
            let flow = if flow == self.traffic.borrow().flows.len() { self.new_flow(flow % 2) } else { flow };
            self.begin(flow);
        }
        if ends && packet < self.traffic.borrow().under_way.len() {
            self.finish(packet);
        }
    }

    pub(super) fn new_flow(&self, service: usize) -> usize {
        let mut traffic = self.traffic.borrow_mut();
        let number = traffic.flows.len();
        traffic.flows.push(Some(Flow::new(number, service, self.inner.clock())));
        number
    }

    /// The flow, if it is live and may send a packet, which it then does.
    fn sender(&self, number: usize, busy: bool) -> Option<Flow> {
        let mut traffic = self.traffic.borrow_mut();
        let flow = traffic.flows.get_mut(number)?.as_mut().filter(|flow| !flow.busy)?;
        (flow.busy, flow.last) = (busy, self.inner.clock());
        Some(*flow)
    }

    /// A packet goes its whole way by the real pipeline. `None` if the flow may send none, and within it if it gets nowhere.
    #[expect(clippy::option_option, reason = "nothing was sent, or it was sent to nobody")]
    pub(super) fn send(&self, number: usize) -> Option<Option<u8>> {
        let flow = self.sender(number, false)?;
        let mut bytes = flow.frame();
        let mut frame = Frame::new(&mut bytes, 0, INTERFACE);
        let verdict = balance(&mut frame, &self.inner);
        let got = (verdict == Verdict::Transmit).then(|| frame.bytes()[5]);
        self.traffic.borrow_mut().arrive(number, got);
        Some(got)
    }

    /// A packet reads its slot.
    pub(super) fn begin(&self, number: usize) {
        let Some(flow) = self.sender(number, true) else { return };
        let Some(packet) = self.read_slot(number, &flow) else {
            let mut traffic = self.traffic.borrow_mut();
            traffic.arrive(number, None);
            return;
        };
        self.traffic.borrow_mut().under_way.push(packet);
    }

    pub(super) fn hash(&self, flow: &Flow) -> u64 {
        let (key, (address, port)) = (Tables::hash_key(&self.inner), flow.source);
        let addresses = key.ipv4(Ipv4Address::new(address), Ipv4Address::new(VIP));
        key.flow(addresses, Ports::new(port, SERVICES[flow.service].2), flow.protocol())
    }

    pub(super) fn service(&self, flow: &Flow) -> Option<ServiceEntry> {
        let vip = VipKey::v4(Ipv4Address::new(VIP));
        let region = self.inner.vip_set(vip.set())?.find(vip)?;
        let key = ServiceKey::new(flow.protocol(), SERVICES[flow.service].2);
        self.inner.service(region.index(key)).copied()
    }

    /// A backend of a service, if it is usable.
    pub(super) fn backend(&self, service: &ServiceEntry, id: BackendId) -> Option<u8> {
        let entry = self.inner.backend(service.backend_base + u32::from(id.number()))?;
        (entry.flags & USABLE != 0).then(|| bytemuck::bytes_of(&entry.macs)[5])
    }

    fn read_slot(&self, number: usize, flow: &Flow) -> Option<UnderWay> {
        let (tables, service, hash) = (&self.inner, self.service(flow)?, self.hash(flow));
        if service.slot_count == 0 {
            return None;
        }
        let index = service.slot_base + scale(hash, service.slot_count);
        let now = Tick::from_ns(tables.now(Clock::Coarse));
        let kind = if flow.opens() { PassengerKind::Opens } else { PassengerKind::Goes };
        let passenger = Passenger { hash, slot: index, kind };
        Some(UnderWay { flow: number, service, slot: tables.slot(index)?, passenger, now })
    }

    /// A packet that has read its slot goes on, as in the pipeline.
    fn finish(&self, packet: usize) {
        let UnderWay { flow, service, slot, passenger, now } =
            self.traffic.borrow_mut().under_way.swap_remove(packet);
        let usable = |id| self.backend(&service, id).is_some();
        let owner = if slot.is_moving() {
            let flows = self.inner.flows(passenger.hash).unwrap();
            let (owner, event) = owner(&flows, slot, &passenger, now, usable);
            self.inner.count_flow(event.unwrap());
            owner
        } else {
            slot.current()
        };
        let got = self.backend(&service, owner);
        let mut traffic = self.traffic.borrow_mut();
        if let Some(flow) = traffic.flows[flow].as_mut() {
            flow.busy = false;
        }
        traffic.arrive(flow, got);
    }

    pub(super) fn finish_all(&self) {
        while !self.traffic.borrow().under_way.is_empty() {
            self.finish(0);
        }
    }
}

impl Double for Racing {
    fn inner(&self) -> &MemoryDatapath {
        &self.inner
    }

    fn inner_mut(&mut self) -> &mut MemoryDatapath {
        &mut self.inner
    }

    fn on_store(&mut self, store: Store) -> Result<(), TableError> {
        self.race();
        match &mut self.life {
            Some(0) => Err(TableError { table: "test", entry: 0, reason: "the daemon is dead".to_owned() }),
            Some(left) => {
                *left -= 1;
                self.inner.store(store)
            }
            None => self.inner.store(store),
        }
    }

    fn on_settle(&mut self) {
        self.race();
        self.finish_all();
        self.inner.settle();
    }

    fn on_flow(&self, place: usize) -> Option<(Entry, Detail)> {
        // Vacant places are many and dull.
        let found = self.inner.flow(place);
        if found.is_some() {
            self.race();
        }
        found
    }

    fn on_forget(&mut self, place: usize, entry: Entry) -> bool {
        self.race();
        self.life != Some(0) && self.inner.forget(place, entry)
    }
}
