//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624).

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
    pub const fn raw(self) -> u32 {
        self.0
    }

    /// Adds one 16-bit word.
    #[inline(always)]
    #[must_use]
    pub const fn add(self, word: u16) -> Self {
        Self(self.0 + word as u32)
    }

    /// Adds bytes as big-endian words, an odd last one padded with zero.
    #[must_use]
    pub fn add_bytes(self, bytes: &[u8]) -> Self {
        let word = |pair: &[u8]| u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]);
        bytes.chunks(2).fold(self, |sum, pair| sum.add(word(pair)))
    }

    /// The checksum: the complement of the folded sum.
    #[inline(always)]
    pub const fn finish(self) -> u16 {
        // Two folds: the first leaves at most 0x1fffe, the second at most 0xffff.
        let once = (self.0 & 0xffff) + (self.0 >> 16);
        let twice = (once & 0xffff) + (once >> 16);
        !(twice as u16)
    }
}

/// The checksum after one covered word changed from `old` to `new` (RFC 1624, equation 3).
#[must_use]
pub const fn replace(checksum: u16, old: u16, new: u16) -> u16 {
    Sum::from_raw(!checksum as u32).add(!old).add(new).finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn example_of_rfc_1071() {
        let sum = Sum::default().add_bytes(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!(sum.finish(), !0xddf2);
    }

    #[test]
    fn example_of_rfc_1624_section_4() {
        assert_eq!(replace(0xdd2f, 0x5555, 0x3285), 0x0000);
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
            let full = |words: &[u16]| words.iter().fold(Sum::default(), |sum, word| sum.add(*word)).finish();
            let index = 1 + at.index(words.len() - 1);
            let before = full(&words);
            let old = core::mem::replace(&mut words[index], new);
            prop_assert_eq!(replace(before, old, new), full(&words));
        }

        #[test]
        fn a_message_with_its_checksum_sums_to_zero(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let even = bytes.len() / 2 * 2;
            let sum = Sum::default().add_bytes(&bytes[..even]);
            prop_assert_eq!(sum.add(sum.finish()).finish(), 0);
        }
    }
}
