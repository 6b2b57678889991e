use std::cell::{Cell, RefCell};

use lb_common::flow::{Passenger, PassengerKind, Stage, owner};
use lb_common::hash::HashKey;
use lb_common::pipeline::Tables as _;
use lb_common::slot::BackendId;

use super::*;
use crate::datapath::double::Double;
use crate::datapath::{Capacity, MemoryDatapath};

const SECOND: u64 = 1_000_000_000;

fn id(number: u16) -> BackendId {
    BackendId::try_new(number).unwrap()
}

/// Slots 32 to 35, of the backends 0 and 1: settled, moving, aged, and moving without any flow.
fn lots() -> Vec<Lot> {
    let slots = vec![
        Slot::settled(id(0)),
        Slot::moving(id(1), id(0)),
        Slot::moving(id(1), id(1)),
        Slot::moving(id(1), id(0)),
    ];
    let backends = [id(0), id(1)].into_iter().collect();
    vec![Lot { first: 32, dissents: HashSet::new(), slots: slots.into(), backends, idle: 10 }]
}

fn entry(backend: u16, tick: u64) -> Entry {
    Entry::new(7 << 32, Stage::Fresh, id(backend), Tick::from_ns(tick * Tick::NS))
}

#[test]
fn what_becomes_of_an_entry() {
    let dissents = |at| Fate::Dissents { lot: 0, at };
    let cases = [
        (31, 1, 100, Fate::Goes, "a slot of nobody"),
        (36, 1, 100, Fate::Goes, "a slot of nobody"),
        (32, 0, 100, Fate::Goes, "a settled slot"),
        (33, 2, 100, Fate::Goes, "a backend that is gone"),
        (33, 1, 100, Fate::Agrees, "the new owner"),
        (33, 0, 100, dissents(1), "the old owner"),
        (34, 0, 100, dissents(2), "an aged slot"),
        (33, 1, 91, Fate::Agrees, "nearly idle"),
        (33, 1, 90, Fate::Goes, "idle"),
        (33, 0, 90, Fate::Goes, "idle, of the old owner"),
        (33, 1, 101, Fate::Agrees, "stamped after the walk began"),
    ];
    for (slot, backend, tick, fate, what) in cases {
        let detail = Detail::from_word(slot << 32);
        let now = Tick::from_ns(100 * Tick::NS);
        assert_eq!(judge(&lots(), entry(backend, tick), detail, now), fate, "{what}");
    }
}

#[test]
fn idle_is_never_earlier_than_the_time_out() {
    for (seconds, expected) in [(1, 3), (2, 4), (60, 58), (900, 841), (7_200, 6_708)] {
        let ticks = ticks(Duration::from_secs(seconds) + MARGIN);
        assert_eq!(ticks, expected, "{seconds} s");
        // A stamp is up to a tick too old, and the clock behind by up to 10 ms.
        assert!(u64::from(ticks - 1) * Tick::NS >= seconds * SECOND + 10_000_000);
    }
    assert_eq!(ticks(Duration::from_hours(24)), FUTURE - 1);
}

#[test]
fn lots_are_found_by_their_slots() {
    let lot =
        |first, count| Lot { first, slots: vec![Slot::settled(id(0)); count].into(), ..lots().remove(0) };
    let lots = [lot(16, 3), lot(32, 16), lot(64, 1)];
    let cases = [
        (15, None),
        (16, Some((0, 0))),
        (18, Some((0, 2))),
        (19, None),
        (47, Some((1, 15))),
        (48, None),
        (64, Some((2, 0))),
    ];
    for (slot, expected) in cases {
        assert_eq!(lot_of(&lots, slot), expected, "slot {slot}");
    }
}

/// Tables whose flows send a packet whenever somebody is about to forget them, as often as is said.
struct Busy {
    inner: MemoryDatapath,
    packets: Cell<usize>,
    forgotten: RefCell<Vec<usize>>,
}

impl Busy {
    fn new(packets: usize) -> Self {
        let capacity = Capacity { flow_sets: 1, ..Capacity::default() };
        let inner = MemoryDatapath::new(HashKey::ZERO, capacity, &[]);
        Self { inner, packets: Cell::new(packets), forgotten: RefCell::default() }
    }

    fn packet(&self) {
        let packet = Passenger { hash: 7 << 32, slot: 33, kind: PassengerKind::Goes };
        let now = Tick::from_ns(self.inner.clock());
        owner(&self.inner.flows(packet.hash).unwrap(), lots()[0].slots[1], &packet, now, |_| true);
    }
}

impl Double for Busy {
    fn inner(&self) -> &MemoryDatapath {
        &self.inner
    }

    fn inner_mut(&mut self) -> &mut MemoryDatapath {
        &mut self.inner
    }

    fn on_forget(&mut self, place: usize, entry: Entry) -> bool {
        if let Some(left) = self.packets.get().checked_sub(1) {
            self.packets.set(left);
            self.inner.set_now(self.inner.clock() + Tick::NS);
            self.packet();
        }
        let done = self.inner.forget(place, entry);
        if done {
            self.forgotten.borrow_mut().push(place);
        }
        done
    }
}

/// An idle flow that wakes up while it is about to be forgotten is judged anew.
#[test]
fn a_packet_is_faster() {
    for (packets, expected) in [(0, Some(Fate::Goes)), (1, Some(Fate::Dissents { lot: 0, at: 1 }))] {
        let mut tables = Busy::new(packets);
        tables.packet();
        let idle = Tick::from_ns(10 * Tick::NS);
        let judge = |entry: Entry, detail| {
            // It was last seen in the first tick, and then not any more.
            let now = if entry.seen() == Tick::from_ns(0) { idle } else { entry.seen() };
            judge(&lots(), entry, detail, now)
        };
        assert_eq!(visit(&mut tables, 0, judge), expected);
        assert_eq!(tables.forgotten.borrow().len(), 1 - packets);
        assert_eq!(tables.flow(0).is_some(), packets == 1);
    }
}

#[test]
fn what_is_being_written_is_left_alone() {
    let tables = Busy::new(0);
    let claimed = Entry::new(7 << 32, Stage::Claimed, id(0), Tick::from_ns(0));
    tables.inner.flows(0).unwrap()[3].set(claimed.word());
    let mut tables = tables;
    assert_eq!(visit(&mut tables, 3, |_, _| Fate::Goes), None);
    assert!(tables.flow(3).is_some());
}

#[test]
fn pressure_counts_on_from_the_last_walk() {
    let counts = |added, evicted| FlowCounts { added, evicted, ..FlowCounts::default() };
    let mut pressure = Pressure::default();
    assert_eq!(pressure.flows(counts(5, 0)), 5);
    pressure.record(3, counts(7, 0), 8);
    assert_eq!((pressure.flows(counts(9, 0)), pressure.is_evicting()), (5, false));
    pressure.record(8, counts(12, 2), 8);
    assert!(pressure.is_evicting());
    pressure.record(8, counts(12, 2), 8);
    assert!(!pressure.is_evicting());
}
