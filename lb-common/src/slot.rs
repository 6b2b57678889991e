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
/// A settled slot sends every packet to `current`. While a slot moves, flows that are older than the move belong to
/// `fallback`. Bit 30 is always zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
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
}

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

    #[test]
    fn ids_have_15_bits() {
        assert!(BackendId::try_new(0x7fff).is_some());
        assert!(BackendId::try_new(0x8000).is_none());
    }
}
