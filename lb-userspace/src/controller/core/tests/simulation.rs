//! How many connections break under changes of backends: plain Maglev, a table of all flows, and settled slots, on the same
//! traffic and with the same memory.

use std::collections::{BTreeMap, HashMap};

use super::world::{BACKENDS, IDLE, World};

/// A table of all flows that forgets the one not seen for longest, over plain Maglev: what every other design comes to.
#[derive(Default)]
struct Recent {
    capacity: usize,
    flows: HashMap<usize, (u8, u64)>,
    order: BTreeMap<u64, usize>,
    clock: u64,
}

impl Recent {
    fn get(&self, flow: usize) -> Option<u8> {
        self.flows.get(&flow).map(|(backend, _)| *backend)
    }

    fn put(&mut self, flow: usize, backend: u8) {
        self.clock += 1;
        if let Some((_, old)) = self.flows.insert(flow, (backend, self.clock)) {
            self.order.remove(&old);
        }
        self.order.insert(self.clock, flow);
        if self.flows.len() > self.capacity
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.flows.remove(&oldest);
        }
    }
}

/// A balancer that knows the Maglev table, and the flows that `recent` has room for.
#[derive(Default)]
struct Rival {
    recent: Recent,
    /// Where each live flow began.
    homes: HashMap<usize, u8>,
    broken: usize,
}

impl Rival {
    fn open(&mut self, flow: usize, maglev: u8) {
        self.recent.put(flow, maglev);
        self.homes.insert(flow, maglev);
    }

    fn talk(&mut self, flow: usize, maglev: u8, alive: impl Fn(u8) -> bool) {
        let Some(home) = self.homes.get(&flow).copied() else { return };
        let got = self.recent.get(flow).filter(|backend| alive(*backend)).unwrap_or(maglev);
        self.recent.put(flow, got);
        if !alive(home) {
            self.homes.remove(&flow);
        } else if got != home {
            self.homes.remove(&flow);
            self.broken += 1;
        }
    }
}

/// What happens besides connections and changes.
#[derive(Clone, Copy, Debug)]
struct Scenario {
    /// SYNs a second that nothing follows.
    flood: usize,
    /// Whether backends also fail and recover.
    failures: bool,
    /// Whether weights rise, and drains end.
    slowly: bool,
}

/// Live connections that were sent to another backend although theirs was alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Broken {
    plain: usize,
    recent: usize,
    settled: usize,
}

const SECONDS: u64 = 300;
const NEW_EACH_SECOND: usize = 10;
/// A change so often, in seconds.
const CHANGES: u64 = 30;
const FIRST_BACKENDS: u8 = 30;
const LIVES: [u64; 4] = [5, 30, 120, 300];
/// Sets of eight flows.
const SETS: u32 = 1024;
/// A few slots for each backend would be too coarse.
const SLOTS: u32 = 1021;

/// A live connection.
struct Connection {
    flow: usize,
    ends: u64,
    last: u64,
}

struct Simulation {
    world: World,
    plain: Rival,
    recent: Rival,
    connections: Vec<Connection>,
    peak: u64,
}

impl Simulation {
    fn new() -> Self {
        let mut world = World::new(SLOTS, SETS, 0, 42);
        (3..=FIRST_BACKENDS).for_each(|last| world.add(0, last));
        let recent = Recent { capacity: SETS as usize * 8, ..Recent::default() };
        let recent = Rival { recent, ..Rival::default() };
        Self { world, plain: Rival::default(), recent, connections: Vec::new(), peak: 0 }
    }

    fn run(mut self, scenario: Scenario) -> Broken {
        if scenario.slowly {
            self.world.start_slowly(CHANGES);
        }
        for second in 0..SECONDS {
            if second % CHANGES == CHANGES / 2 {
                self.change(scenario);
            }
            (0..NEW_EACH_SECOND).for_each(|_| self.open(second));
            (0..scenario.flood).for_each(|_| self.flood());
            self.talk(second);
            self.world.wait_a_second();
            self.peak = self.peak.max(self.world.remembered());
        }
        let broken =
            Broken { plain: self.plain.broken, recent: self.recent.broken, settled: self.world.broken() };
        let (live, peak, room) = (self.connections.len(), self.peak, SETS * 8);
        println!("{scenario:?}: {broken:?}, {live} live, at most {peak} of {room} remembered");
        broken
    }

    fn change(&mut self, scenario: Scenario) {
        let last = 1 + self.world.random(usize::from(BACKENDS)) as u8;
        let serving = (1..=BACKENDS).filter(|last| self.world.serves(0, *last)).count();
        if !self.world.serves(0, last) {
            self.world.add(0, last);
            self.world.ready(0, last);
            self.world.check(0, last, true);
        } else if serving > 20 {
            if scenario.failures && self.world.random(2) == 0 {
                self.world.check(0, last, false);
            } else {
                self.world.drain(0, last, scenario.slowly.then_some(2 * CHANGES));
            }
        }
    }

    fn open(&mut self, now: u64) {
        let flow = self.world.open(0);
        // The last step of the handshake comes at once.
        self.world.talk(flow);
        let maglev = self.world.maglev(flow, 0);
        self.plain.open(flow, maglev);
        self.recent.open(flow, maglev);
        let ends = now + LIVES[self.world.random(LIVES.len())];
        self.connections.push(Connection { flow, ends, last: now });
    }

    fn flood(&mut self) {
        let flow = self.world.open(0);
        self.recent.recent.put(flow, 1);
        self.world.end(flow);
    }

    /// Each connection says something every fifth second, and never is idle for too long.
    fn talk(&mut self, now: u64) {
        self.connections.retain(|connection| connection.ends > now);
        for connection in &mut self.connections {
            if self.world.random(5) == 0 || now - connection.last >= IDLE - 2 {
                connection.last = now;
                let maglev = self.world.maglev(connection.flow, 0);
                for rival in [&mut self.plain, &mut self.recent] {
                    rival.talk(connection.flow, maglev, |last| self.world.is_alive(0, last));
                }
                self.world.talk(connection.flow);
            }
        }
    }
}

#[test]
fn settled_slots_break_no_connection_without_a_flood_and_few_under_one() {
    for failures in [false, true] {
        let calm = Simulation::new().run(Scenario { flood: 0, failures, slowly: false });
        assert_eq!(calm.settled, 0);
        assert!(calm.plain > 200, "{calm:?}");
        let flooded = Simulation::new().run(Scenario { flood: 1_000, failures, slowly: false });
        assert!(flooded.settled * 10 < flooded.recent, "{flooded:?}");
    }
}

#[test]
fn slow_starts_and_drains_that_end_break_no_connection_either() {
    let calm = Simulation::new().run(Scenario { flood: 0, failures: true, slowly: true });
    assert_eq!(calm.settled, 0);
    assert!(calm.plain > 200, "{calm:?}");
}
