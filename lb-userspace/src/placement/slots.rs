//! The slots of one service: the Maglev table they follow, and the flows they keep on the way there.

use std::sync::Arc;
use std::time::Duration;

use lb_common::maglev::{self, Candidate, Disruption, TableSize, disruption};
use lb_common::slot::{BackendId, Slot};

/// A slot that moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Move {
    /// The slot.
    at: usize,
    /// When it started to, in nanoseconds of the flows' clock.
    since: u64,
}

/// Of a moving slot that may not have reached the tables yet.
const UNPUBLISHED: u64 = u64::MAX;

/// A set of backend ids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ids(Vec<bool>);

impl Ids {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether it has this id.
    pub(crate) fn contains(&self, id: BackendId) -> bool {
        self.0.get(usize::from(id.number())).copied().unwrap_or(false)
    }
}

impl FromIterator<BackendId> for Ids {
    fn from_iter<I: IntoIterator<Item = BackendId>>(ids: I) -> Self {
        let mut set = Vec::new();
        for id in ids {
            let at = usize::from(id.number());
            set.resize(set.len().max(at + 1), false);
            set[at] = true;
        }
        Self(set)
    }
}

/// The slots of one service.
#[derive(Clone, Debug, Default)]
pub(super) struct Slots {
    candidates: Vec<Candidate>,
    alive: Ids,
    /// Whether any backend takes new flows: then the owners of the slots are those of the Maglev table.
    open: bool,
    /// What stands in the tables. Empty while no backend is alive.
    words: Arc<[Slot]>,
    /// How many slots each backend owns, by its number.
    owned: Arc<[u32]>,
    /// The moving slots, in order.
    moves: Arc<[Move]>,
    /// The words were found in the tables, and nobody knows what table they follow.
    found: bool,
}

impl Slots {
    /// Slots as they were found in the tables. Their moves are taken to begin now.
    pub(super) fn adopted(words: &[Slot]) -> Self {
        Self { found: true, ..Self::default() }.with_words(words.into(), &[])
    }

    /// The slots when `candidates` share them and the backends in `alive` can be reached.
    ///
    /// * They follow the table by [`Slot::advance`], so that flows stay where they are.
    /// * If nobody takes new flows, they stay with those who are alive.
    /// * If nobody is alive, or the size is another, there is nothing that can be kept: they are settled from scratch, and
    ///   a new size moves flows.
    pub(super) fn next(&self, candidates: Vec<Candidate>, alive: Ids, size: TableSize) -> Self {
        let kept = self.words.len() == size.slots() as usize;
        let same_size = kept || self.words.is_empty();
        let same_table = same_size && !self.found && candidates == self.candidates;
        if same_table && alive == self.alive {
            return self.clone();
        }
        let table = if same_table { self.table() } else { maglev::build(&candidates, size) };
        let next = Self { candidates, alive, open: !table.is_empty(), ..Self::default() };
        if kept && !next.alive.is_empty() {
            next.advanced_from(self, table, size)
        } else {
            let words = table.iter().map(|owner| Slot::settled(*owner)).collect();
            next.with_words(words, &[])
        }
    }

    fn advanced_from(self, old: &Self, table: Vec<BackendId>, size: TableSize) -> Self {
        let owners = if self.open { table } else { self.heirs_of(old, size) };
        let advance = |(slot, owner): (&Slot, &BackendId)| slot.advance(*owner, |id| self.alive.contains(id));
        let words = old.words.iter().zip(&owners).map(advance).collect();
        self.with_words(words, &old.moves)
    }

    /// Who is to own each slot while nobody takes new flows: whoever can keep the old ones.
    fn heirs_of(&self, old: &Self, size: TableSize) -> Vec<BackendId> {
        let living = self.candidates.iter().filter(|candidate| self.alive.contains(candidate.id));
        let living: Vec<Candidate> = living.map(|candidate| Candidate { weight: 1, ..*candidate }).collect();
        let keep = |(slot, heir): (&Slot, BackendId)| {
            if self.alive.contains(slot.current()) { slot.current() } else { heir }
        };
        old.words.iter().zip(maglev::build(&living, size)).map(keep).collect()
    }

    /// With these words, of which those that moved `before` do so since then.
    fn with_words(self, words: Arc<[Slot]>, before: &[Move]) -> Self {
        let mut before = before.iter().peekable();
        let moves = words.iter().enumerate().filter(|(_, slot)| slot.is_moving()).map(|(at, _)| {
            while before.next_if(|earlier| earlier.at < at).is_some() {}
            before.next_if(|earlier| earlier.at == at).copied().unwrap_or(Move { at, since: UNPUBLISHED })
        });
        let moves = moves.collect();
        let mut owned = Vec::new();
        for slot in &*words {
            let number = usize::from(slot.current().number());
            owned.resize(owned.len().max(number + 1), 0);
            owned[number] += 1;
        }
        Self { words, owned: owned.into(), moves, ..self }
    }

    /// The same slots, now that the tables hold them: what started to move did so at `now` at the latest.
    pub(super) fn publish(&mut self, now: u64) {
        if self.moves.iter().any(|slot| slot.since == UNPUBLISHED) {
            let known =
                |slot: &Move| if slot.since == UNPUBLISHED { Move { since: now, ..*slot } } else { *slot };
            self.moves = self.moves.iter().map(known).collect();
        }
    }

    /// The slots after a look at the flow table at `now`; `None` if they stay as they are.
    ///
    /// A slot that moves for longer than `patience` ages. One whose unknown flows go to its owner already settles, unless
    /// it dissents: a live flow in it is remembered to belong to another backend.
    pub(super) fn calmed(
        &self,
        dissents: impl Fn(usize) -> bool,
        patience: Duration,
        now: u64,
    ) -> Option<Self> {
        let patience = u64::try_from(patience.as_nanos()).unwrap_or(u64::MAX);
        let calm = |Move { at, since }: Move| {
            let slot = self.words[at];
            if slot.fallback() != slot.current() {
                let old = now.saturating_sub(since) >= patience;
                if old { slot.aged() } else { slot }
            } else if dissents(at) {
                slot
            } else {
                slot.settle()
            }
        };
        let calmed = self.moves.iter().map(|slot| (slot.at, calm(*slot)));
        let calmed: Vec<(usize, Slot)> = calmed.filter(|(at, slot)| *slot != self.words[*at]).collect();
        if calmed.is_empty() {
            return None;
        }
        let mut words = self.words.to_vec();
        for (at, slot) in calmed {
            words[at] = slot;
        }
        Some(self.clone().with_words(words.into(), &self.moves))
    }

    /// The same slots as if no flow had ever been.
    #[must_use]
    pub(super) fn settled(&self) -> Self {
        let words = self.words.iter().map(|slot| slot.settle()).collect();
        self.clone().with_words(words, &[])
    }

    /// What stands in the tables.
    pub(super) fn words(&self) -> &Arc<[Slot]> {
        &self.words
    }

    /// The Maglev table: who should own each slot. Empty while no backend takes new flows.
    pub(super) fn table(&self) -> Vec<BackendId> {
        if self.open { self.words.iter().map(|slot| slot.current()).collect() } else { Vec::new() }
    }

    /// How many slots of the Maglev table a backend owns.
    pub(super) fn owned_by(&self, id: BackendId) -> u32 {
        let owned = self.owned.get(usize::from(id.number())).copied().filter(|_| self.open);
        owned.unwrap_or_default()
    }

    /// Whether any backend takes new flows.
    pub(super) fn is_open(&self) -> bool {
        self.open
    }

    /// How many slots move.
    pub(super) fn moving(&self) -> usize {
        self.moves.len()
    }

    /// Whether it can be reached and is not known to be dead.
    pub(super) fn is_alive(&self, id: BackendId) -> bool {
        self.alive.contains(id)
    }

    /// Whether the slots are there for the flows they have, and for no new ones.
    pub(super) fn is_closed(&self) -> bool {
        !self.open && !self.words.is_empty()
    }

    /// What became of the slots since they were `old`.
    pub(super) fn disruption_since(&self, old: &Self) -> Disruption {
        if Arc::ptr_eq(&self.words, &old.words) {
            return Disruption::default();
        }
        let owners = |slots: &Self| slots.words.iter().map(|slot| slot.current()).collect::<Vec<_>>();
        disruption(&owners(old), &owners(self))
    }
}
