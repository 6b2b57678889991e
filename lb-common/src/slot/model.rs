//! Every history of one slot, three backends and two flows, by the code that runs: no live flow of a live backend moves.
//!
//! A breadth-first search over all states that can be reached, so that a counterexample is the shortest there is. Time has
//! no length here: what takes an idle time-out may happen as soon as each live flow has sent a packet meanwhile. Nothing is
//! evicted, since the two flows do not fill their set.

use core::cell::Cell;
use std::collections::HashMap;
use std::collections::hash_map::Entry as Place;
use std::string::String;
use std::vec::Vec;
use std::{format, println, vec};

use super::{BackendId, Slot};
use crate::flow::{Entry, FlowSet as _, Passenger, PassengerKind, Tick, WAYS, owner};

const BACKENDS: u16 = 3;
const FLOWS: usize = 2;

/// Whether the first packet of a flow can be told from the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    /// A SYN opens a flow.
    Tcp,
    /// Any packet may be the first.
    Udp,
}

/// A live flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Flow {
    /// Who got its first packet.
    backend: BackendId,
    /// Whether it sent a packet since the slot started to move.
    seen: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    alive: [bool; BACKENDS as usize],
    slot: Slot,
    flows: [Option<Flow>; FLOWS],
    table: [u64; 2 * WAYS],
}

/// A state that follows, what led there, and the packet that went astray, if one did.
type Step = (String, State, Option<String>);

impl State {
    fn start() -> Self {
        Self {
            alive: [true; BACKENDS as usize],
            slot: Slot::settled(backend(0)),
            flows: [None; FLOWS],
            table: [0; 2 * WAYS],
        }
    }

    fn is_alive(&self, id: BackendId) -> bool {
        self.alive[usize::from(id.number())]
    }

    fn steps(&self, protocol: Protocol) -> Vec<Step> {
        let mut steps = self.changes();
        steps.extend((0..FLOWS).flat_map(|flow| self.traffic(flow, protocol)));
        steps.extend(self.janitor());
        steps
    }

    /// Backends die and recover, and the table gives the slot to any that is alive: additions, drains, weights, failures.
    fn changes(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        for dead in 0..(1 << BACKENDS) - 1 {
            let alive = core::array::from_fn(|id| dead >> id & 1 == 0);
            for owner in (0..BACKENDS).map(backend).filter(|id| alive[usize::from(id.number())]) {
                let mut next = Self { alive, ..self.clone() };
                next.slot = self.slot.advance(owner, |id| next.is_alive(id));
                let begins = next.slot.is_moving() && !self.slot.is_moving();
                for flow in &mut next.flows {
                    *flow = flow.filter(|flow| alive[usize::from(flow.backend.number())]);
                    if let Some(flow) = flow {
                        flow.seen &= !begins;
                    }
                }
                steps.push((format!("alive {alive:?}, given to {}", owner.number()), next, None));
            }
        }
        steps
    }

    /// A flow begins, goes on or ends.
    fn traffic(&self, flow: usize, protocol: Protocol) -> Vec<Step> {
        let Some(present) = self.flows[flow] else {
            let (mut next, backend) = self.packet(flow, protocol == Protocol::Tcp);
            next.flows[flow] = Some(Flow { backend, seen: true });
            return vec![(format!("flow {flow} begins at {}", backend.number()), next, None)];
        };
        let (mut next, got) = self.packet(flow, false);
        next.flows[flow] = Some(Flow { seen: true, ..present });
        let astray = (got != present.backend)
            .then(|| format!("of {} went to {}", present.backend.number(), got.number()));
        let mut ended = self.clone();
        ended.flows[flow] = None;
        vec![(format!("flow {flow} goes on"), next, astray), (format!("flow {flow} ends"), ended, None)]
    }

    /// What the pipeline does with a packet of a flow.
    fn packet(&self, flow: usize, opens: bool) -> (Self, BackendId) {
        if !self.slot.is_moving() {
            return (self.clone(), self.slot.current());
        }
        let set = self.table.map(Cell::new);
        let kind = if opens { PassengerKind::Opens } else { PassengerKind::Goes };
        let packet = Passenger { hash: hash(flow), slot: 0, kind };
        let (backend, _) = owner(&set, self.slot, &packet, Tick::from_ns(0), |id| self.is_alive(id));
        (Self { table: set.map(Cell::into_inner), ..self.clone() }, backend)
    }

    /// What the daemon may do once the idle time-out has passed for somebody.
    fn janitor(&self) -> Vec<Step> {
        let mut steps: Vec<Step> = (0..WAYS).filter_map(|way| self.forgets(way)).collect();
        if self.slot.is_moving() && self.flows.iter().flatten().all(|flow| flow.seen) {
            steps.push(("ages".into(), Self { slot: self.slot.aged(), ..self.clone() }, None));
        }
        let current = self.slot.current();
        let agreed = self.entries().all(|entry| entry.backend() == current);
        if self.slot.is_moving() && self.slot.fallback() == current && agreed {
            let settled = Self { slot: self.slot.settle(), table: [0; 2 * WAYS], ..self.clone() };
            steps.push(("settles".into(), settled, None));
        }
        steps
    }

    /// Forgets an entry whose flow is over.
    fn forgets(&self, way: usize) -> Option<Step> {
        let set = self.table.map(Cell::new);
        let old = set.entry(way);
        let live = |flow: usize| self.flows[flow].is_some() && hash(flow) >> 32 == old >> 32;
        if old == 0 || (0..FLOWS).any(live) {
            return None;
        }
        assert!(set.exchange(way, old, 0));
        let next = Self { table: set.map(Cell::into_inner), ..self.clone() };
        Some((format!("way {way} is forgotten"), next, None))
    }

    fn entries(&self) -> impl Iterator<Item = Entry> {
        self.table[..WAYS].iter().map(|word| Entry::from_word(*word)).filter(|entry| entry.is_whole())
    }
}

fn backend(number: u16) -> BackendId {
    BackendId::try_new(number).unwrap()
}

fn hash(flow: usize) -> u64 {
    (flow as u64 + 1) << 32 | flow as u64
}

/// All that was found, and how.
#[derive(Default)]
struct Search {
    found: Vec<State>,
    numbers: HashMap<State, usize>,
    /// The state before each, and what led on.
    origins: Vec<(usize, String)>,
}

impl Search {
    fn add(&mut self, state: State, from: usize, how: String) {
        if let Place::Vacant(place) = self.numbers.entry(state) {
            self.found.push(place.key().clone());
            place.insert(self.origins.len());
            self.origins.push((from, how));
        }
    }

    fn history(&self, mut number: usize) -> String {
        let mut steps = Vec::new();
        while number != 0 {
            let (from, how) = &self.origins[number];
            steps.push(format!("{how}: {:?}", self.found[number].slot));
            number = *from;
        }
        steps.reverse();
        steps.join("\n")
    }
}

/// The states that can be reached, or the shortest history that sends a live flow to another backend.
fn explore(protocol: Protocol) -> Result<usize, String> {
    let mut search = Search::default();
    search.add(State::start(), 0, String::new());
    let mut next = 0;
    while let Some(state) = search.found.get(next).cloned() {
        for (how, state, astray) in state.steps(protocol) {
            if let Some(astray) = astray {
                return Err(format!("{}\n{how}: a packet {astray}", search.history(next)));
            }
            search.add(state, next, how);
        }
        next += 1;
    }
    Ok(search.found.len())
}

#[test]
fn no_history_moves_a_live_flow() {
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        match explore(protocol) {
            Ok(states) => {
                println!("{protocol:?}: {states} states");
                assert!(states > 1_000, "{protocol:?}: {states} states are too few to mean anything");
            }
            Err(history) => panic!("{protocol:?}: a live flow moved\n{history}"),
        }
    }
}
