//! The index of an SRTP packet: its sequence number with the rollover counter in front (RFC 3711 §3.3.1).
//!
//! A packet carries only the low 16 of the 48 bits. Its receiver takes the index that is closest to the newest one it has
//! authenticated, so it follows over any number of wraps as long as fewer than 2¹⁵ packets in a row are lost.

/// The last index (RFC 3711 §9.2: 2⁴⁸ packets at most under one key).
pub const INDEX_MAX: u64 = (1 << 48) - 1;

const HALF: u64 = 1 << 15;
const CYCLE: u64 = 1 << 16;

/// The index that a packet with this sequence number has, in a stream whose newest index is `next - 1`, or that has none
/// if `next` is 0. `None`: it would be beyond the last one.
///
/// A number at exactly half a cycle from the newest keeps the rollover counter, as in RFC 3711 appendix A. Where the RFC
/// would say that the rollover counter is −1, it is 0: a stream begins with 0, so there is nothing else it could be.
#[inline]
pub fn nearest(next: u64, seq: u16) -> Option<u64> {
    let Some(newest) = next.checked_sub(1) else {
        return Some(u64::from(seq));
    };
    let (cycle, newest_seq, seq) = (newest & !(CYCLE - 1), newest % CYCLE, u64::from(seq));
    let index = if newest_seq < HALF {
        if seq > newest_seq + HALF {
            cycle.checked_sub(CYCLE).unwrap_or(cycle) + seq
        } else {
            cycle + seq
        }
    } else if newest_seq - HALF > seq {
        cycle + CYCLE + seq
    } else {
        cycle + seq
    };
    (index <= INDEX_MAX).then_some(index)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn edges() {
        // (newest, sequence number, index)
        let rows = [
            (0, 0, 0),
            (0, 1, 1),
            (0, 32_768, 32_768),
            // No packet comes before the rollover counter 0.
            (0, 32_769, 32_769),
            (0, 65_535, 65_535),
            (32_767, 65_535, 65_535),
            (32_768, 0, 0),
            (32_768, 65_535, 65_535),
            // Half a cycle behind stays in the cycle; one more is the next one.
            (32_769, 1, 1),
            (32_769, 0, CYCLE),
            (65_535, 0, CYCLE),
            (65_535, 32_767, 32_767),
            (65_535, 32_766, CYCLE + 32_766),
            // Just after a wrap: late ones from before it, and again half a cycle.
            (CYCLE, 65_535, CYCLE - 1),
            (CYCLE, 32_769, 32_769),
            (CYCLE, 32_768, CYCLE + 32_768),
            (CYCLE + 5, 32_773, CYCLE + 32_773),
            (CYCLE + 5, 32_774, 32_774),
            (5 * CYCLE + 65_000, 10, 6 * CYCLE + 10),
            (6 * CYCLE + 10, 65_000, 5 * CYCLE + 65_000),
            (INDEX_MAX - 1, 65_535, INDEX_MAX),
        ];
        for (newest, seq, index) in rows {
            assert_eq!(nearest(newest + 1, seq), Some(index), "{seq} after {newest}");
        }
        for seq in [0, 1, 32_768, 65_535] {
            assert_eq!(nearest(0, seq), Some(u64::from(seq)), "{seq} first");
        }
        assert_eq!(nearest(INDEX_MAX + 1, 0), None);
        assert_eq!(nearest(INDEX_MAX + 1, 32_766), None);
    }

    proptest! {
        /// Whatever is lost and however it is reordered, as long as it is less than half a cycle.
        #[test]
        fn follows_over_any_gap_below_half_a_cycle(newest in 0_u64..10 * CYCLE, distance in -32_767_i64..=32_767) {
            let index = newest.saturating_add_signed(distance);
            prop_assert_eq!(nearest(newest + 1, index as u16), Some(index));
        }

        #[test]
        fn keeps_the_sequence_number_and_goes_at_most_half_a_cycle(newest in CYCLE..=INDEX_MAX, seq: u16) {
            match nearest(newest + 1, seq) {
                Some(index) => {
                    prop_assert_eq!(index as u16, seq);
                    prop_assert!(index.abs_diff(newest) <= HALF);
                    prop_assert!(index <= INDEX_MAX);
                }
                None => prop_assert!(newest + HALF > INDEX_MAX),
            }
        }
    }
}
