//! Every history of two slots, three backends and two flows, by the code that runs: no live flow of a live backend moves
//! unless what is remembered of it had to make room.
//!
//! A breadth-first search over all states that can be reached, so that a counterexample is the shortest there is. Time has
//! no length here: what takes an idle time-out may happen as soon as each live flow has sent a packet meanwhile. With
//! eviction any entry may have to make room for strangers at any moment, which is more than a full set does.

use core::cell::Cell;
use core::hash::{Hash, Hasher};
use std::collections::HashMap;
use std::collections::hash_map::Entry as Place;
use std::string::String;
use std::vec::Vec;
use std::{format, println, vec};

use super::{BackendId, Slot};
use crate::flow::{Detail, Entry, FlowLines, FlowSet as _, Passenger, PassengerKind, Tick, WAYS, owner};

const BACKENDS: u16 = 3;
const FLOWS: usize = 2;
const SLOTS: usize = 2;

/// Whether the first packet of a flow can be told from the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    /// A SYN opens a flow.
    Tcp,
    /// Any packet may be the first.
    Udp,
}

/// What a search is about.
#[derive(Clone, Copy, Debug)]
struct Instance {
    protocol: Protocol,
    /// Whether entries may have to make room for others.
    evicts: bool,
    /// The slot of each flow.
    slots: [usize; FLOWS],
}

/// A live flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Flow {
    /// Who got its first packet.
    backend: BackendId,
    /// Whether it sent a packet since its slot started to move.
    seen: bool,
    /// Whether what was remembered of it had to make room, and nothing has been since.
    given_up: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct State {
    alive: [bool; BACKENDS as usize],
    slots: [Slot; SLOTS],
    flows: [Option<Flow>; FLOWS],
    table: FlowLines,
}

/// What happens.
#[derive(Clone, Copy, Debug)]
#[expect(dead_code, reason = "a history tells them, as `Debug`")]
enum Event {
    /// Who is alive, and who gets the slots.
    Change {
        alive: [bool; BACKENDS as usize],
        owners: [BackendId; SLOTS],
    },
    /// A flow's first packet.
    Begins {
        flow: usize,
        backend: BackendId,
    },
    /// A packet that gets to its backend.
    GoesOn {
        flow: usize,
    },
    /// One that gets to another, and whether something of its flow had had to make room.
    Breaks {
        flow: usize,
        got: BackendId,
        given_up: bool,
    },
    Ends {
        flow: usize,
    },
    Ages {
        slot: usize,
    },
    Settles {
        slot: usize,
    },
    /// An entry goes.
    Goes {
        way: usize,
    },
    /// Nothing yet.
    Start,
}

/// What happens, and the state that follows.
type Step = (Event, State);

/// Two flows have two entries at most, the first ones: the rest of the table tells nothing apart.
impl Hash for State {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        (self.alive, self.slots, self.flows, &self.table[..FLOWS]).hash(hasher);
    }
}

impl State {
    fn start() -> Self {
        Self {
            alive: [true; BACKENDS as usize],
            slots: [0, 1].map(|owner| Slot::settled(backend(owner))),
            flows: [None; FLOWS],
            table: [0; 2 * WAYS],
        }
    }

    fn is_alive(&self, id: BackendId) -> bool {
        self.alive[usize::from(id.number())]
    }

    fn steps(&self, instance: Instance) -> Vec<Step> {
        let mut steps = self.changes(instance);
        steps.extend((0..FLOWS).flat_map(|flow| self.traffic(flow, instance)));
        steps.extend(self.janitor(instance));
        steps
    }

    /// Backends die and recover, and the table gives the slots to any that are alive: additions, drains, weights, failures.
    fn changes(&self, instance: Instance) -> Vec<Step> {
        let mut steps = Vec::new();
        for dead in 0..(1 << BACKENDS) - 1 {
            let alive = core::array::from_fn(|id| dead >> id & 1 == 0);
            let owners = || (0..BACKENDS).map(backend).filter(|id| alive[usize::from(id.number())]);
            for owners in owners().flat_map(|first| owners().map(move |second| [first, second])) {
                let mut next = Self { alive, ..self.clone() };
                next.slots = core::array::from_fn(|slot| {
                    self.slots[slot].advance(owners[slot], |id| alive[usize::from(id.number())])
                });
                for (number, flow) in next.flows.iter_mut().enumerate() {
                    let slot = instance.slots[number];
                    let begins = next.slots[slot].is_moving() && !self.slots[slot].is_moving();
                    *flow = flow.filter(|flow| alive[usize::from(flow.backend.number())]);
                    if let Some(flow) = flow {
                        flow.seen &= !begins;
                    }
                }
                steps.push((Event::Change { alive, owners }, next));
            }
        }
        steps
    }

    /// A flow begins, goes on or ends.
    fn traffic(&self, flow: usize, instance: Instance) -> Vec<Step> {
        let Some(present) = self.flows[flow] else {
            let (mut next, backend) = self.packet(flow, instance, instance.protocol == Protocol::Tcp);
            next.flows[flow] = Some(Flow { backend, seen: true, given_up: false });
            return vec![(Event::Begins { flow, backend }, next)];
        };
        let (mut next, got) = self.packet(flow, instance, false);
        let remembered = next.entries().any(|(entry, _)| entry.word() >> 32 == hash(flow) >> 32);
        let mut ended = self.clone();
        ended.flows[flow] = None;
        let ended = (Event::Ends { flow }, ended);
        let given_up = present.given_up;
        if got == present.backend {
            next.flows[flow] = Some(Flow { seen: true, given_up: given_up && !remembered, ..present });
            return vec![(Event::GoesOn { flow }, next), ended];
        }
        // A connection whose packet somebody else got is over.
        next.flows[flow] = None;
        vec![(Event::Breaks { flow, got, given_up }, next), ended]
    }

    /// What the pipeline does with a packet of a flow.
    fn packet(&self, flow: usize, instance: Instance, opens: bool) -> (Self, BackendId) {
        let number = instance.slots[flow];
        let slot = self.slots[number];
        if !slot.is_moving() {
            return (self.clone(), slot.current());
        }
        let set = self.table.map(Cell::new);
        let kind = if opens { PassengerKind::Opens } else { PassengerKind::Goes };
        let packet = Passenger { hash: hash(flow), slot: number as u32, kind };
        let (backend, _) = owner(&set, slot, &packet, Tick::from_ns(0), |id| self.is_alive(id));
        (self.with(&set), backend)
    }

    /// What the daemon may do once the idle time-out has passed for somebody, and what strangers do to the table.
    fn janitor(&self, instance: Instance) -> Vec<Step> {
        let mut steps: Vec<Step> = (0..WAYS).filter_map(|way| self.loses(way, instance)).collect();
        for (number, slot) in self.slots.into_iter().enumerate().filter(|(_, slot)| slot.is_moving()) {
            let mut flows = self.flows.iter().zip(instance.slots).filter(|(_, slot)| *slot == number);
            let all_seen = flows.all(|(flow, _)| flow.is_none_or(|flow| flow.seen));
            let with = |changed: Slot| {
                let mut next = self.clone();
                next.slots[number] = changed;
                next
            };
            if all_seen {
                steps.push((Event::Ages { slot: number }, with(slot.aged())));
            }
            let mut own = self.entries().filter(|(_, index)| *index as usize == number);
            if slot.fallback() == slot.current() && own.all(|(entry, _)| entry.backend() == slot.current()) {
                let settled = with(slot.settle());
                let set = settled.table.map(Cell::new);
                for way in
                    (0..WAYS).filter(|way| Detail::from_word(set.detail(*way)).index() as usize == number)
                {
                    assert!(set.exchange(way, set.entry(way), 0));
                }
                steps.push((Event::Settles { slot: number }, settled.with(&set)));
            }
        }
        steps
    }

    /// An entry goes: its flow is over, or a stranger's takes its place.
    fn loses(&self, way: usize, instance: Instance) -> Option<Step> {
        let set = self.table.map(Cell::new);
        let old = set.entry(way);
        if old == 0 {
            return None;
        }
        let mut next = self.clone();
        for (flow, state) in next.flows.iter_mut().enumerate() {
            let Some(live) = state.as_mut().filter(|_| hash(flow) >> 32 == old >> 32) else { continue };
            instance.evicts.then_some(())?;
            live.given_up = true;
        }
        assert!(set.exchange(way, old, 0));
        Some((Event::Goes { way }, next.with(&set)))
    }

    /// The same with this table. The order of the entries says nothing, and what stands behind a vacant way does not either.
    fn with(&self, set: &[Cell<u64>; 2 * WAYS]) -> Self {
        let mut ways: [(u64, u64); WAYS] = core::array::from_fn(|way| (set.entry(way), set.detail(way)));
        for way in &mut ways {
            way.1 *= u64::from(way.0 != 0);
        }
        ways.sort_unstable_by_key(|way| core::cmp::Reverse(*way));
        let table = core::array::from_fn(|word| if word < WAYS { ways[word].0 } else { ways[word - WAYS].1 });
        Self { table, ..self.clone() }
    }

    /// The whole entries, each with its slot.
    fn entries(&self) -> impl Iterator<Item = (Entry, u32)> {
        let (entries, details) = self.table.split_at(WAYS);
        let both = entries.iter().zip(details);
        let both = both.map(|(entry, detail)| (Entry::from_word(*entry), Detail::from_word(*detail).index()));
        both.filter(|(entry, _)| entry.is_whole())
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
    origins: Vec<(usize, Event)>,
}

impl Search {
    fn add(&mut self, state: State, from: usize, how: Event) {
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
            steps.push(format!("{how:?}: {:?}", self.found[number].slots));
            number = *from;
        }
        steps.reverse();
        steps.join("\n")
    }
}

/// What a search found.
struct Explored {
    states: usize,
    /// Steps at which a flow whose entry had made room broke.
    broken: usize,
}

/// All states that can be reached, or the shortest history that sends a live flow to another backend although nothing of it
/// had to make room.
fn explore(instance: Instance) -> Result<Explored, String> {
    let mut search = Search::default();
    search.add(State::start(), 0, Event::Start);
    let (mut next, mut broken) = (0, 0);
    while let Some(state) = search.found.get(next).cloned() {
        for (how, state) in state.steps(instance) {
            match how {
                Event::Breaks { given_up: false, .. } => {
                    return Err(format!("{}\n{how:?}", search.history(next)));
                }
                Event::Breaks { .. } => broken += 1,
                _ => {}
            }
            search.add(state, next, how);
        }
        next += 1;
    }
    Ok(Explored { states: search.found.len(), broken })
}

/// Both flows in one slot, and each in one of its own.
fn no_history_moves_a_flow(protocol: Protocol, evicts: bool) {
    for slots in [[0, 0], [0, 1]] {
        let instance = Instance { protocol, evicts, slots };
        match explore(instance) {
            Ok(Explored { states, broken }) => {
                println!("{instance:?}: {states} states, {broken} steps that break what was given up");
                assert!(states > 10_000, "{instance:?}: {states} states are too few to mean anything");
                assert_eq!(broken > 0, evicts, "{instance:?}: {broken}");
            }
            Err(history) => panic!("{instance:?}: a live flow moved\n{history}"),
        }
    }
}

#[test]
fn no_history_moves_a_tcp_flow() {
    no_history_moves_a_flow(Protocol::Tcp, false);
}

#[test]
fn no_history_moves_a_udp_flow() {
    no_history_moves_a_flow(Protocol::Udp, false);
}

#[test]
fn only_what_made_room_moves_of_tcp() {
    no_history_moves_a_flow(Protocol::Tcp, true);
}

#[test]
fn only_what_made_room_moves_of_udp() {
    no_history_moves_a_flow(Protocol::Udp, true);
}
