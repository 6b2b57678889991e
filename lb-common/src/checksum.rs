//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624).
//!
//! Words are added as they lie in memory: a ones' complement sum does not care in which order of bytes it is computed
//! (RFC 1071, section 2 (B)), so nothing has to be swapped.

use crate::wire::Be16;

/// A running ones' complement sum of 16-bit words, not yet folded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum(u32);

impl Sum {
    /// Goes on from a sum that was stored.
    #[inline(always)]
    pub const fn from_raw(raw: u32) -> Self {
        Self(raw)
    }

    /// The sum as a number to store; below 2^32 while fewer than 65 537 words were added.
    #[inline(always)]
    pub const fn raw(self) -> u32 {
        self.0
    }

    /// Adds one 16-bit word.
    #[inline(always)]
    #[must_use]
    pub const fn add(self, word: Be16) -> Self {
        Self(self.0 + word.raw() as u32)
    }

    /// Adds the two words of four bytes.
    #[inline(always)]
    #[must_use]
    pub const fn add_u32(self, raw: u32) -> Self {
        Self(self.0 + (raw & 0xffff) + (raw >> 16))
    }

    /// Adds the four words of eight bytes.
    #[inline(always)]
    #[must_use]
    pub const fn add_u64(self, raw: u64) -> Self {
        self.add_u32(raw as u32).add_u32((raw >> 32) as u32)
    }

    /// Takes one word away: adds its complement.
    #[inline(always)]
    #[must_use]
    pub const fn remove(self, word: Be16) -> Self {
        Self(self.0 + !word.raw() as u32)
    }

    /// Takes the two words of four bytes away.
    #[inline(always)]
    #[must_use]
    pub const fn remove_u32(self, raw: u32) -> Self {
        self.add_u32(!raw)
    }

    /// Takes the four words of eight bytes away.
    #[inline(always)]
    #[must_use]
    pub const fn remove_u64(self, raw: u64) -> Self {
        self.add_u64(!raw)
    }

    /// Adds another sum, folded first so that sums of sums do not overflow.
    #[inline(always)]
    #[must_use]
    pub const fn add_sum(self, other: Self) -> Self {
        Self(self.0 + (other.0 & 0xffff) + (other.0 >> 16))
    }

    /// Adds bytes as words, an odd last one padded with zero.
    #[must_use]
    pub fn add_bytes(self, bytes: &[u8]) -> Self {
        let word =
            |pair: &[u8]| Be16::from_raw(u16::from_ne_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
        bytes.chunks(2).fold(self, |sum, pair| sum.add(word(pair)))
    }

    /// The checksum: the complement of the folded sum.
    #[inline(always)]
    pub const fn finish(self) -> Be16 {
        // Two folds: the first leaves at most 0x1fffe, the second at most 0xffff.
        let once = (self.0 & 0xffff) + (self.0 >> 16);
        let twice = (once & 0xffff) + (once >> 16);
        Be16::from_raw(!(twice as u16))
    }

    /// The checksum of UDP, which sends 0xffff for 0, since 0 means none (RFC 768).
    #[inline(always)]
    pub const fn finish_udp(self) -> Be16 {
        let checksum = self.finish();
        if checksum.raw() == 0 { Be16::from_raw(0xffff) } else { checksum }
    }

    /// As [`Self::amend`], for UDP: see [`Self::finish_udp`].
    #[inline(always)]
    pub const fn amend_udp(self, checksum: Be16) -> Be16 {
        self.remove(checksum).finish_udp()
    }

    /// The checksum that covered other words before this sum of differences (RFC 1624, equation 3).
    #[inline(always)]
    pub const fn amend(self, checksum: Be16) -> Be16 {
        self.remove(checksum).finish()
    }
}

/// The checksum after one covered word changed from `old` to `new`.
#[inline(always)]
#[must_use]
pub const fn replace(checksum: Be16, old: Be16, new: Be16) -> Be16 {
    Sum::from_raw(0).remove(old).add(new).amend(checksum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn example_of_rfc_1071() {
        let sum = Sum::default().add_bytes(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!(sum.finish(), Be16::new(!0xddf2));
    }

    #[test]
    fn example_of_rfc_1624_section_4() {
        let [checksum, old, new] = [0xdd2f, 0x5555, 0x3285].map(Be16::new);
        assert_eq!(replace(checksum, old, new), Be16::new(0));
    }

    #[test]
    fn udp_never_sends_zero() {
        assert_eq!(Sum::default().add(Be16::new(0xffff)).finish_udp(), Be16::new(0xffff));
    }

    proptest! {
        #[test]
        fn incremental_equals_full(
            mut words in prop::collection::vec(any::<u16>(), 2..40),
            at in any::<prop::sample::Index>(),
            new in any::<u16>(),
        ) {
            // A header is never all zero; ones' complement has two zeros and only that case tells them apart.
            words[0] |= 1;
            let full = |words: &[u16]| words.iter().fold(Sum::default(), |sum, word| sum.add(Be16::new(*word))).finish();
            let index = 1 + at.index(words.len() - 1);
            let before = full(&words);
            let old = core::mem::replace(&mut words[index], new);
            prop_assert_eq!(replace(before, Be16::new(old), Be16::new(new)), full(&words));
        }

        #[test]
        fn wide_words_are_their_parts(a: u64, b: u32) {
            let bytes = [a.to_ne_bytes().as_slice(), b.to_ne_bytes().as_slice()].concat();
            let sum = Sum::default().add_u64(a).add_u32(b);
            prop_assert_eq!(sum.finish(), Sum::default().add_bytes(&bytes).finish());
            prop_assert_eq!(Sum::default().add_sum(sum).remove_u32(b).remove_u64(a).finish(), Be16::new(0));
        }

        #[test]
        fn a_message_with_its_checksum_sums_to_zero(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let even = bytes.len() / 2 * 2;
            let sum = Sum::default().add_bytes(&bytes[..even]);
            prop_assert_eq!(sum.add(sum.finish()).finish(), Be16::new(0));
        }
    }
}
