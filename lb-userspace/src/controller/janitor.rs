//! The janitor: walks the flow table, forgets what is over, and finds the slots that can come to rest.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use lb_common::flow::{Detail, Entry, Tick};
use lb_common::layout::FlowCounts;
use lb_common::slot::Slot;

use crate::datapath::Datapath;
use crate::placement::{Ids, Placed, Placement};

/// Added to every idle time-out: a stamp is rounded down to its tick, and the clock lags behind by a tick of the kernel.
pub(super) const MARGIN: Duration = Duration::from_nanos(2 * Tick::NS);

/// How often a place is looked at whose flow sends packets meanwhile.
const LOOKS: usize = 4;

/// Ages from here on are those of stamps that are newer than the walk: ticks count modulo twice as many.
const FUTURE: u16 = 1 << 14;

/// What a walk has found.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// Flows that stay remembered.
    pub(super) flows: u64,
    lots: Vec<Lot>,
}

impl Findings {
    /// Whether a live flow in this slot is remembered to belong to another backend than its owner.
    pub(super) fn dissents(&self, slot: u32) -> bool {
        lot_of(&self.lots, slot).is_some_and(|(lot, at)| self.lots[lot].dissents.contains(&at))
    }
}

/// A service's slots, as a walk needs them.
#[derive(Debug)]
struct Lot {
    first: u32,
    slots: Arc<[Slot]>,
    backends: Ids,
    /// A flow this many ticks old is gone.
    idle: u16,
    /// Which slots dissent: few, mostly none.
    dissents: HashSet<usize>,
}

impl Lot {
    fn of(placed: &Placed) -> Self {
        Self {
            first: placed.first_slot(),
            slots: placed.shared_slots(),
            backends: placed.ids(),
            idle: ticks(placed.idle_timeout() + MARGIN),
            dissents: HashSet::new(),
        }
    }
}

/// Whole ticks that cover a duration, which the configuration has bounded.
fn ticks(duration: Duration) -> u16 {
    let ticks = duration.as_nanos().div_ceil(u128::from(Tick::NS));
    u16::try_from(ticks).unwrap_or(u16::MAX).min(FUTURE - 1)
}

/// What is to become of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Nothing needs it any more.
    Goes,
    /// It says what its slot says.
    Agrees,
    /// Its flow belongs to another backend than the owner of its slot, this one of this lot.
    Dissents { lot: usize, at: usize },
}

/// Forgets the flows that are idle, belong to no moving slot or to no backend, and finds out about the others.
///
/// For what it says of dissent to be true and to stay so, every packet that is under way must have seen `placement`.
pub(super) fn walk<D: Datapath + ?Sized>(tables: &mut D, placement: &Placement) -> Findings {
    let mut lots: Vec<Lot> = placement
        .services()
        .filter(|(_, placed)| placed.moving() > 0)
        .map(|(_, placed)| Lot::of(placed))
        .collect();
    lots.sort_unstable_by_key(|lot| lot.first);
    let now = Tick::from_ns(tables.clock());
    let mut flows = 0;
    for place in 0..tables.capacity().flows() {
        match visit(tables, place, |entry, detail| judge(&lots, entry, detail, now)) {
            None | Some(Fate::Goes) => {}
            Some(Fate::Agrees) => flows += 1,
            Some(Fate::Dissents { lot, at }) => {
                flows += 1;
                lots[lot].dissents.insert(at);
            }
        }
    }
    Findings { flows, lots }
}

/// Flows that are remembered in these ranges of slots.
pub(super) fn count<D: Datapath + ?Sized>(tables: &D, slots: &[Range<u32>]) -> u64 {
    if slots.is_empty() {
        return 0;
    }
    let concerned = |place: &usize| {
        tables.flow(*place).is_some_and(|(entry, detail)| {
            entry.is_whole() && slots.iter().any(|range| range.contains(&detail.index()))
        })
    };
    (0..tables.capacity().flows()).filter(concerned).count() as u64
}

/// Forgets what is at a place if that is its fate. `None` if nothing is there.
fn visit<D: Datapath + ?Sized>(
    tables: &mut D,
    place: usize,
    judge: impl Fn(Entry, Detail) -> Fate,
) -> Option<Fate> {
    let mut fate = None;
    for _ in 0..LOOKS {
        // What is being written says nothing yet: it is of a packet that has seen the slots as they are.
        let (entry, detail) = tables.flow(place).filter(|(entry, _)| entry.is_whole())?;
        let verdict = judge(entry, detail);
        if verdict != Fate::Goes || tables.forget(place, entry) {
            return Some(verdict);
        }
        // A packet was faster. What it wrote is another matter.
        fate = Some(verdict);
    }
    fate
}

fn judge(lots: &[Lot], entry: Entry, detail: Detail, now: Tick) -> Fate {
    let Some((number, at)) = lot_of(lots, detail.index()) else { return Fate::Goes };
    let (lot, slot) = (&lots[number], lots[number].slots[at]);
    if age(entry, now) >= lot.idle || !slot.is_moving() || !lot.backends.contains(entry.backend()) {
        Fate::Goes
    } else if entry.backend() == slot.current() {
        Fate::Agrees
    } else {
        Fate::Dissents { lot: number, at }
    }
}

/// Ticks since a flow's last packet.
fn age(entry: Entry, now: Tick) -> u16 {
    let age = entry.seen().until(now);
    if age < FUTURE { age } else { 0 }
}

/// For how long a flow has sent nothing.
pub(super) fn idle_time(entry: Entry, now: Tick) -> Duration {
    Duration::from_nanos(u64::from(age(entry, now)) * Tick::NS)
}

/// The lot of a slot, and the slot's number in it. Lots are in the order of their slots.
fn lot_of(lots: &[Lot], slot: u32) -> Option<(usize, usize)> {
    let number = lots.partition_point(|lot| lot.first <= slot).checked_sub(1)?;
    let at = (slot - lots[number].first) as usize;
    (at < lots[number].slots.len()).then_some((number, at))
}

/// How full the flow table is, and whether flows have to make room for others.
#[derive(Debug, Default)]
pub(super) struct Pressure {
    /// Flows remembered at the last walk.
    flows: u64,
    /// What had been counted then.
    then: FlowCounts,
    evicting: bool,
}

impl Pressure {
    /// Goes on from what has been counted before.
    pub(super) fn begin(&mut self, counted: FlowCounts) {
        self.then = counted;
    }

    /// Takes in what a walk found, and tells when flows begin to be evicted.
    pub(super) fn record(&mut self, flows: u64, now: FlowCounts, capacity: usize) {
        let evicted = now.evicted - self.then.evicted;
        if evicted > 0 && !self.evicting {
            tracing::warn!(
                "the flow table ({capacity} flows) is full: {evicted} flows had to make room and may reach another \
                 backend while their slots move; [daemon] flows makes it larger"
            );
        }
        *self = Self { flows, then: now, evicting: evicted > 0 };
    }

    /// Whether flows were evicted before the last walk.
    pub(super) fn is_evicting(&self) -> bool {
        self.evicting
    }

    /// Flows remembered when so many have been counted: those of the last walk and those added since.
    pub(super) fn flows(&self, now: FlowCounts) -> u64 {
        self.flows + (now.added - self.then.added)
    }
}

#[cfg(test)]
mod tests;
