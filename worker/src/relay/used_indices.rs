//! How far the packet indices of a protected transport's SSRCs are used: who takes an SSRC up again goes on where it stopped.
//!
//! A transport's key lives as long as the transport, and under one key no index of an SSRC is used twice (RFC 3711 §9.1). The
//! index is the sequence number with the count of its rollovers (§3.3.1). The receiver keeps that count for as long as it has
//! the key, and so does the sender's SRTP; neither hears that a consumer was closed and another one made. So a consumer's numbers are
//! indices: the first one of an SSRC begins in its first cycle, and the next one behind the last of its predecessor.
//!
//! What a closed consumer leaves behind is this number, 16 bytes, until its transport is closed.

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use weir_channel::id::TransportId;
use weir_channel::message::WorkerError;

use super::key_frame_assembly::RESERVED_SEQS;

/// One more than the last index (RFC 3711 §9.2: 2⁴⁸ packets under one key).
const INDICES: u64 = 1 << 48;

/// An SSRC with fewer indices than these left is not taken up again: its consumer would fall silent. At ten thousand packets a
/// second they last for five days.
const INDICES_LEFT_MIN: u64 = 1 << 32;

/// Who has an SSRC that cannot be taken up again.
const USED_UP_BY: &str = "earlier consumers, which have used up its packet numbers (RFC 3711 §9.2),";

/// SSRCs under one key, as many as the sender's SRTP keeps in mind.
const SSRCS_MAX: usize = 1 << 16;

/// Of each SSRC that somebody has sent under before: the last number that was used.
#[derive(Debug)]
pub(super) struct UsedIndices {
    last: HashMap<u32, u64, FixedState>,
}

impl UsedIndices {
    pub(super) fn new(hash: FixedState) -> Self {
        Self {
            last: HashMap::with_hasher(hash),
        }
    }

    /// Whether an SSRC can be sent under, beside `live` ones that are in use now.
    ///
    /// # Errors
    ///
    /// Its indices are used up, or those of too many others are kept in mind.
    pub(super) fn check(&self, ssrc: u32, live: usize, transport: TransportId) -> Result<(), WorkerError> {
        match self.last.get(&ssrc) {
            Some(last) if *last >= INDICES - INDICES_LEFT_MIN => Err(WorkerError::SsrcInUse {
                ssrc,
                owner: USED_UP_BY.into(),
                transport,
            }),
            Some(_) => Ok(()),
            None if self.last.len() + live >= SSRCS_MAX => Err(WorkerError::TooMany {
                noun: "SSRCs that were used on one transport".into(),
                limit: SSRCS_MAX as u32,
            }),
            None => Ok(()),
        }
    }

    /// The number before the first one of the next consumer with this SSRC. It is kept: that consumer may send nothing.
    pub(super) fn before_first(&self, ssrc: u32, random: u64) -> u64 {
        self.last.get(&ssrc).copied().unwrap_or_else(|| before_first(random))
    }

    /// Nobody sends under the SSRC any more.
    pub(super) fn leave(&mut self, ssrc: u32, last: u64) {
        self.last.insert(ssrc, last);
    }
}

/// The number before the first one of a stream, at random (RFC 3550 §5.1), so that the first is 1 to 32,767, also if a few
/// are left free for packets that were overtaken. Receivers that
/// hear a stream for the first time take it to be in its first cycle (RFC 3711 §3.3.1): if it began just before the end of
/// the cycle and the packets up to there were lost, they would never find out.
pub(super) const fn before_first(random: u64) -> u64 {
    random % ((1 << 15) - 1 - RESERVED_SEQS)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRANSPORT: TransportId = TransportId(3);

    fn spent() -> UsedIndices {
        UsedIndices::new(FixedState::with_seed(1))
    }

    /// RFC 3711 §3.3.1, appendix A: the rollover counter of a stream that was not received before is zero.
    #[test]
    fn a_stream_begins_in_the_first_half_of_its_first_cycle() {
        for random in (0..1 << 20).chain([u64::MAX, u64::MAX - 1]) {
            let first = before_first(random) + 1;
            assert!((1..0x8000).contains(&first), "{first}");
        }
    }

    /// RFC 3711 §9.1.
    #[test]
    fn an_ssrc_goes_on_behind_its_last_number() {
        let mut spent = spent();
        spent.leave(7, 5_000_000);
        assert_eq!(spent.check(7, 0, TRANSPORT), Ok(()));
        assert_eq!(spent.before_first(7, 1), 5_000_000);
        assert_eq!(spent.before_first(7, 1), 5_000_000, "nothing was sent");
        spent.leave(7, 5_000_001);
        assert_eq!(spent.before_first(7, 1), 5_000_001);
        assert_eq!(spent.before_first(8, 2), 2);
    }

    /// RFC 3711 §9.2.
    #[test]
    fn an_ssrc_whose_numbers_are_used_up_is_refused() {
        let mut spent = spent();
        let enough = INDICES - INDICES_LEFT_MIN - 1;
        for (last, accepted) in [
            (enough, true),
            (enough + 1, false),
            (INDICES - 1, false),
            (u64::MAX, false),
        ] {
            spent.leave(7, last);
            let refused = WorkerError::SsrcInUse {
                ssrc: 7,
                owner: USED_UP_BY.to_owned(),
                transport: TRANSPORT,
            };
            let expected = if accepted { Ok(()) } else { Err(refused) };
            assert_eq!(spent.check(7, 0, TRANSPORT), expected, "{last}");
            assert_eq!(spent.check(8, 0, TRANSPORT), Ok(()));
        }
    }

    #[test]
    fn what_is_kept_in_mind_is_bounded() {
        let mut spent = spent();
        for ssrc in 0..SSRCS_MAX as u32 - 10 {
            assert_eq!(spent.check(ssrc, 9, TRANSPORT), Ok(()));
            spent.leave(ssrc, 1);
        }
        assert_eq!(spent.check(u32::MAX, 9, TRANSPORT), Ok(()));
        let refused = spent.check(u32::MAX, 10, TRANSPORT);
        assert!(matches!(refused, Err(WorkerError::TooMany { .. })), "{refused:?}");
        assert_eq!(spent.check(5, 10, TRANSPORT), Ok(()), "this one is in mind already");
    }
}
