//! One slot of a Maglev table: a 32-bit word that names the backend now and the one before.

use bytemuck::{Pod, Zeroable};

/// A backend's number within its service: 15 bits, so that two fit a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackendId(u16);

impl BackendId {
    /// Backends that one service can have.
    pub const LIMIT: usize = 1 << 15;

    /// The id 0.
    pub const FIRST: Self = Self(0);

    /// The id with this number, or `None` if it does not fit 15 bits.
    pub const fn try_new(number: u16) -> Option<Self> {
        if (number as usize) < Self::LIMIT { Some(Self(number)) } else { None }
    }

    /// The id in the lower 15 bits of a word.
    #[inline(always)]
    pub(crate) const fn masked(word: u64) -> Self {
        Self(word as u16 & (Self::LIMIT as u16 - 1))
    }

    /// Its number, below [`Self::LIMIT`].
    #[inline(always)]
    pub const fn number(self) -> u16 {
        self.0
    }
}

/// Who owns a slot: `current` (bits 0-14), `fallback` (bits 15-29), and whether the slot is `moving` (bit 31).
///
/// A settled slot sends every packet to `current`. While a slot moves, flows that are older than its first move belong to
/// `fallback`, and the others are remembered, see [`crate::flow`]. Bit 30 is always zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
#[repr(transparent)]
pub struct Slot(u32);

const ID_MASK: u32 = BackendId::LIMIT as u32 - 1;
const FALLBACK_SHIFT: u32 = 15;
const MOVING: u32 = 1 << 31;

impl Slot {
    /// A slot whose flows all belong to one backend.
    #[inline(always)]
    pub const fn settled(owner: BackendId) -> Self {
        Self(owner.0 as u32 | (owner.0 as u32) << FALLBACK_SHIFT)
    }

    /// A slot that new flows find at `current` and old flows at `fallback`.
    pub const fn moving(current: BackendId, fallback: BackendId) -> Self {
        Self(current.0 as u32 | (fallback.0 as u32) << FALLBACK_SHIFT | MOVING)
    }

    /// The slot of a word out of the table.
    #[inline(always)]
    pub const fn from_word(word: u32) -> Self {
        Self(word)
    }

    /// The owner of new flows.
    #[inline(always)]
    pub const fn current(self) -> BackendId {
        BackendId((self.0 & ID_MASK) as u16)
    }

    /// The owner of flows that are older than the move.
    #[inline(always)]
    pub const fn fallback(self) -> BackendId {
        BackendId((self.0 >> FALLBACK_SHIFT & ID_MASK) as u16)
    }

    /// Whether flows of two owners may be alive in this slot.
    #[inline(always)]
    pub const fn is_moving(self) -> bool {
        self.0 & MOVING != 0
    }

    /// The word as it stands in the table.
    pub const fn word(self) -> u32 {
        self.0
    }

    /// The slot after the table has given it to `owner`, which must be alive: no live flow of a live backend leaves it.
    ///
    /// * A settled slot starts to move, and its owner so far keeps the flows there are. If that owner is dead they are lost
    ///   anyway, and the slot stays settled.
    /// * A moving slot keeps its *oldest* owner as `fallback`, since all younger flows are remembered. If that owner is
    ///   dead, flows that are not remembered are lost or new.
    #[must_use]
    pub fn advance(self, owner: BackendId, alive: impl Fn(BackendId) -> bool) -> Self {
        if !self.is_moving() {
            let current = self.current();
            return if current == owner || !alive(current) {
                Self::settled(owner)
            } else {
                Self::moving(owner, current)
            };
        }
        let fallback = if alive(self.fallback()) { self.fallback() } else { owner };
        Self::moving(owner, fallback)
    }

    /// The slot once every flow that is older than its first move is remembered or over: unknown flows are new.
    #[must_use]
    pub const fn aged(self) -> Self {
        Self(Self::settled(self.current()).0 | self.0 & MOVING)
    }

    /// The slot once every flow in it belongs to `current`.
    #[must_use]
    pub const fn settle(self) -> Self {
        Self::settled(self.current())
    }
}

#[cfg(test)]
mod model;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id() -> impl Strategy<Value = BackendId> {
        (0..BackendId::LIMIT as u16).prop_map(|number| BackendId::try_new(number).unwrap())
    }

    proptest! {
        #[test]
        fn words_keep_their_parts(current in id(), fallback in id()) {
            let moving = Slot::moving(current, fallback);
            prop_assert_eq!((moving.current(), moving.fallback(), moving.is_moving()), (current, fallback, true));
            let settled = Slot::settled(current);
            prop_assert_eq!((settled.current(), settled.fallback(), settled.is_moving()), (current, current, false));
            prop_assert_eq!(moving.word() >> 30 & 1, 0);
        }
    }

    /// The rule, case by case: who owns the slot, what it is given to, who is alive, and what is written.
    #[test]
    fn every_case_of_a_move() {
        let [a, b, c] = [1, 2, 3].map(|number| BackendId::try_new(number).unwrap());
        let (settled, moving) = (Slot::settled, Slot::moving);
        let cases: [(Slot, BackendId, &[BackendId], Slot); 10] = [
            (settled(a), a, &[a], settled(a)),
            (settled(a), b, &[a, b], moving(b, a)),
            (settled(a), b, &[b], settled(b)),
            (moving(b, a), b, &[a, b], moving(b, a)),
            (moving(b, a), b, &[b], moving(b, b)),
            (moving(b, a), c, &[a, b, c], moving(c, a)),
            (moving(b, a), a, &[a, b], moving(a, a)),
            (moving(b, a), c, &[b, c], moving(c, c)),
            (moving(b, a), c, &[a, c], moving(c, a)),
            (moving(b, a), c, &[c], moving(c, c)),
        ];
        for (slot, owner, alive, expected) in cases {
            let advanced = slot.advance(owner, |id| alive.contains(&id));
            assert_eq!(advanced, expected, "{slot:?} given to {owner:?} while {alive:?} are alive");
        }
        assert_eq!((moving(b, a).aged(), moving(b, a).settle()), (moving(b, b), settled(b)));
        assert_eq!(settled(a).aged(), settled(a));
    }

    #[test]
    fn ids_have_15_bits() {
        assert!(BackendId::try_new(0x7fff).is_some());
        assert!(BackendId::try_new(0x8000).is_none());
    }
}
