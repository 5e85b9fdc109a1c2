//! How a record lies in words: structures of plain numbers without gaps, and the two ways to store one so that a writer may die
//! at any store.

use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Plain numbers, whole words of them.
pub trait Record: IntoBytes + FromBytes + Immutable + Copy {
    /// Its words.
    const WORDS: usize = {
        assert!(size_of::<Self>().is_multiple_of(8), "whole words");
        size_of::<Self>() / 8
    };

    /// Its fields with their places and sizes: what the layout's hash is of.
    const SHAPE: &'static [(&'static str, usize, usize)];

    /// What its words are.
    #[inline]
    fn to_words(&self) -> impl ExactSizeIterator<Item = u64> + Clone + '_ {
        self.as_bytes().chunks_exact(8).map(word)
    }

    /// From the words at a place, by `load`.
    fn from_words(load: impl Fn(usize) -> u64) -> Self {
        let mut record = Self::new_zeroed_record();
        let bytes = record_bytes(&mut record);
        for (index, chunk) in bytes.chunks_exact_mut(8).enumerate() {
            chunk.copy_from_slice(&load(index).to_ne_bytes());
        }
        record
    }

    /// All zeroes.
    fn new_zeroed_record() -> Self {
        Self::new_zeroed()
    }
}

fn record_bytes<R: IntoBytes + FromBytes>(record: &mut R) -> &mut [u8] {
    record.as_mut_bytes()
}

#[inline]
fn word(bytes: &[u8]) -> u64 {
    bytes.first_chunk().map_or(0, |bytes| u64::from_ne_bytes(*bytes))
}

/// What tells the words of a record from others: their sum, each with its place in it. No proof against somebody who wants to
/// deceive, but against what a program does that has gone astray.
#[inline]
pub(super) fn checksum(words: impl Iterator<Item = u64>) -> u32 {
    let mut sum = 0_u64;
    let mut place = 0x9e37_79b9_7f4a_7c15_u64;
    for word in words {
        // Odd factors, another for each place.
        sum = sum.wrapping_add((word ^ word >> 32).wrapping_add(place).wrapping_mul(place | 1));
        place = place.wrapping_add(0xd1b5_4a32_d192_ed03);
    }
    (sum >> 32) as u32 ^ sum as u32
}

/// Declares records.
macro_rules! records {
    ($($(#[$doc:meta])* pub struct $name:ident { $($(#[$field_doc:meta])* pub $field:ident: $ty:ty,)* })*) => {$(
        $(#[$doc])*
        #[repr(C)]
        #[derive(Clone, Copy, PartialEq, Eq, Debug, zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable)]
        pub struct $name { $($(#[$field_doc])* pub $field: $ty,)* }

        impl Record for $name {
            const SHAPE: &'static [(&'static str, usize, usize)] =
                &[$((stringify!($field), std::mem::offset_of!($name, $field), size_of::<$ty>()),)*];
        }

        impl Default for $name {
            fn default() -> Self {
                Self::new_zeroed_record()
            }
        }
    )*};
}

pub(super) use records;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_sees_every_bit_and_every_place() {
        let words = [1, 2, u64::MAX, 0, 0, 7_u64];
        let whole = checksum(words.into_iter());
        for place in 0..words.len() {
            for bit in 0..64 {
                let mut other = words;
                other[place] ^= 1 << bit;
                assert_ne!(checksum(other.into_iter()), whole, "{place}, {bit}");
            }
        }
        let mut swapped = words;
        swapped.swap(0, 1);
        assert_ne!(checksum(swapped.into_iter()), whole);
    }
}
