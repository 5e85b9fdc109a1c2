//! The sequence numbers of one stream that are missing: a bit each, so that the set has the same small size whatever is lost.

use std::ops::Range;

use crate::rtp::bit_ring::BitRing;
use crate::rtp::seq::MAX_MISORDER;

/// How far behind the newest packet another one is still asked for. (v2: 5,000, but a packet that comes more than
/// [`MAX_MISORDER`] late is not believed; so asking for it would be for nothing.)
pub(super) const AGE_SEQS_MAX: u64 = MAX_MISORDER as u64 - 100;

/// A set of sequence numbers that are near each other.
#[derive(Debug, Default)]
pub(super) struct MissingSeqs {
    /// All of them are in here.
    range: Range<u64>,
    pub(super) count: usize,
    bits: BitRing<WORDS>,
}

/// For as many as are asked for at all.
const WORDS: usize = (AGE_SEQS_MAX as usize).div_ceil(64) + 1;

impl MissingSeqs {
    /// Takes in a range above all that is here.
    pub(super) fn add(&mut self, range: Range<u64>) {
        if self.count == 0 {
            self.range.start = range.start;
        }
        self.range.end = range.end;
        self.count += (range.end - range.start) as usize;
        range.for_each(|seq| self.bits.insert(seq));
    }

    #[inline]
    pub(super) fn contains(&self, seq: u64) -> bool {
        self.count > 0 && self.range.contains(&seq) && self.bits.contains(seq)
    }

    /// Whether it was here.
    pub(super) fn remove(&mut self, seq: u64) -> bool {
        let is_here = self.contains(seq);
        if is_here {
            self.bits.remove(seq);
            self.count -= 1;
        }
        is_here
    }

    pub(super) fn remove_below(&mut self, seq: u64) {
        let start = self.range.start;
        if self.count > 0 && start < seq {
            self.remove_all(start..seq.min(self.range.end));
            self.range.start = seq;
        }
    }

    pub(super) fn remove_from(&mut self, seq: u64) {
        if self.count > 0 && seq < self.range.end {
            self.remove_all(seq.max(self.range.start)..self.range.end);
            self.range.end = seq;
        }
    }

    pub(super) fn remove_all(&mut self, range: Range<u64>) {
        range.for_each(|seq| {
            self.remove(seq);
        });
    }
}
