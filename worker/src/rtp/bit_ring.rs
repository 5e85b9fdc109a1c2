//! A bit for each of the latest numbers, in a ring.

use std::ops::Range;

/// A set of numbers that are near each other: the bit of a number is at the number modulo 64 × `WORDS`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BitRing<const WORDS: usize>([u64; WORDS]);

impl<const WORDS: usize> Default for BitRing<WORDS> {
    fn default() -> Self {
        Self([0; WORDS])
    }
}

impl<const WORDS: usize> BitRing<WORDS> {
    /// The numbers of a whole turn.
    pub const fn full() -> Self {
        Self([u64::MAX; WORDS])
    }

    /// Whether a number is in the set.
    #[inline]
    pub fn contains(&self, number: u64) -> bool {
        self.word(number) & 1 << (number % 64) != 0
    }

    /// Puts a number into the set.
    #[inline]
    pub fn insert(&mut self, number: u64) {
        self.0[Self::place(number)] |= 1 << (number % 64);
    }

    /// Takes a number out of the set.
    #[inline]
    pub fn remove(&mut self, number: u64) {
        self.0[Self::place(number)] &= !(1 << (number % 64));
    }

    /// Takes a range of numbers out of the set: those that the ring still has from one turn ago.
    pub fn remove_range(&mut self, range: Range<u64>) {
        if range.end.saturating_sub(range.start) >= 64 * WORDS as u64 {
            self.0.fill(0);
            return;
        }
        let mut number = range.start;
        while number < range.end {
            // The rest of the number's word, or what of it lies before the end.
            let offset = number % 64;
            let count = (64 - offset).min(range.end - number);
            let mask = (u64::MAX >> (64 - count)) << offset;
            self.0[Self::place(number)] &= !mask;
            number += count;
        }
    }

    /// The 64 bits among which a number's bit is, the lowest for a multiple of 64.
    #[inline]
    pub fn word(&self, number: u64) -> u64 {
        self.0[Self::place(number)]
    }

    #[inline]
    const fn place(number: u64) -> usize {
        (number / 64) as usize % WORDS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_that_is_removed_leaves_what_is_around_it() {
        for range in [0..0, 5..6, 60..70, 64..128, 3..190, 0..192, 100..292, 7..1_000] {
            let mut ring = BitRing::<3>::default();
            (range.start..range.start + 192).for_each(|number| ring.insert(number));
            ring.remove_range(range.clone());
            for number in range.start..range.start + 192 {
                assert_eq!(ring.contains(number), !range.contains(&number), "{number} of {range:?}");
            }
        }
        let mut ring = BitRing::<3>::default();
        ring.insert(64);
        assert_eq!((ring.word(127), ring.contains(64 + 192)), (1, true));
        ring.remove(64);
        assert_eq!(ring, BitRing::default());
    }
}
