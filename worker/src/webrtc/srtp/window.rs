//! Which of the last indices of a stream were used (RFC 3711 §3.3.2), or which of the last records of a connection came (RFC
//! 6347 §4.1.2.6).

use crate::rtp::bit_ring::BitRing;

/// How many indices of an SRTP stream are kept in mind. As many as the relay does, which believes numbers that are up to
/// 1,500 behind; RFC 3711 §3.3.2 asks for 64 at least.
pub const WINDOW: u64 = 2048;

/// What a [`Window`] says of an index.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::webrtc) enum Verdict {
    /// Not used yet.
    Fresh,
    /// Used.
    Used,
    /// Below the window: nobody knows.
    TooOld,
}

/// The last `64 * WORDS` indices. Asking and noting are apart, because between them a packet proves that it is authentic.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(in crate::webrtc) struct Window<const WORDS: usize> {
    /// One more than the newest; 0 before the first.
    next: u64,
    used: BitRing<WORDS>,
}

impl<const WORDS: usize> Window<WORDS> {
    /// How many indices it tells of.
    pub(super) const SIZE: u64 = 64 * WORDS as u64;

    /// All below `next` are used.
    pub(super) const fn all_below(next: u64) -> Self {
        Self {
            next,
            used: BitRing::full(),
        }
    }

    /// One more than the newest used index; 0 if none is.
    #[inline]
    pub(super) const fn next(&self) -> u64 {
        self.next
    }

    #[inline]
    pub(in crate::webrtc) fn verdict(&self, index: u64) -> Verdict {
        if index >= self.next {
            Verdict::Fresh
        } else if self.next - index > Self::SIZE {
            Verdict::TooOld
        } else if self.used.contains(index) {
            Verdict::Used
        } else {
            Verdict::Fresh
        }
    }

    /// Notes that `index` is used. Below the window it changes nothing.
    #[inline]
    pub(in crate::webrtc) fn mark(&mut self, index: u64) {
        if index >= self.next {
            if index > self.next {
                // The bits of what is skipped still tell of one window ago.
                self.used.remove_range(self.next..index);
            }
            self.next = index + 1;
        } else if self.next - index > Self::SIZE {
            return;
        }
        self.used.insert(index);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn edges_of_the_window() {
        let mut window = Window::<2>::default();
        assert_eq!(window.next(), 0);
        assert_eq!(window.verdict(0), Verdict::Fresh);
        window.mark(0);
        assert_eq!((window.verdict(0), window.next()), (Verdict::Used, 1));
        window.mark(128);
        assert_eq!(window.verdict(0), Verdict::TooOld);
        assert_eq!(window.verdict(1), Verdict::Fresh);
        window.mark(1);
        assert_eq!(window.verdict(1), Verdict::Used);
        window.mark(129);
        assert_eq!(window.verdict(1), Verdict::TooOld);
        assert_eq!(window.verdict(2), Verdict::Fresh);
        // What is too old stays so, whoever notes it; the bit of another index is in its place.
        window.mark(1);
        assert_eq!(window.verdict(129), Verdict::Used);
        assert_eq!(window.next(), 130);
    }

    #[test]
    fn a_window_that_goes_on_lets_nothing_below_through() {
        let mut window = Window::<2>::all_below(1_000);
        for index in 0..1_000 {
            assert_ne!(window.verdict(index), Verdict::Fresh, "{index}");
        }
        assert_eq!(window.verdict(1_000), Verdict::Fresh);
        window.mark(1_005);
        assert_eq!(window.verdict(999), Verdict::Used);
        assert_eq!(window.verdict(1_004), Verdict::Fresh);
    }

    proptest! {
        /// Against a set that forgets nothing.
        #[test]
        fn any_order(steps in prop::collection::vec((0_u64..400, any::<bool>()), 1..400)) {
            let mut window = Window::<3>::default();
            let mut used = BTreeSet::new();
            let mut base = 0;
            for (step, jump) in steps {
                let index = base + step;
                base += if jump { 70 } else { 0 };
                let next = used.last().map_or(0, |newest| newest + 1);
                let expected = if index < next && next - index > 192 {
                    Verdict::TooOld
                } else if used.contains(&index) {
                    Verdict::Used
                } else {
                    Verdict::Fresh
                };
                prop_assert_eq!(window.verdict(index), expected);
                if expected == Verdict::Fresh {
                    window.mark(index);
                    used.insert(index);
                }
                prop_assert_eq!(window.next(), used.last().map_or(0, |newest| newest + 1));
            }
        }
    }
}
