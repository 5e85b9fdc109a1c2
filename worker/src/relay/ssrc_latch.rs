//! Whether another SSRC may take the place of a stream's present one (SSRC latching), where no MID or RID says so.

use std::time::Duration;

use crate::time::Time;

/// From one change of a stream's SSRC to the next, except for one that takes the last back. Two senders that contend for it
/// take turns no faster than this.
pub(super) const CHANGE_INTERVAL: Duration = Duration::from_secs(1);

/// An SSRC that has been silent for this long is left: another one takes its place with its first packet, which may well be
/// of the only key frame for a long time. If the old one was not gone after all, it takes its place back.
const LEFT_AFTER: Duration = Duration::from_secs(1);

/// Otherwise the other one has to come for this long while nothing comes of the old one: ten packets of a call.
const PROBATION: Duration = Duration::from_millis(200);

/// What is known of a stream's SSRC beside the SSRC itself.
#[derive(Debug, Default)]
pub(super) struct SsrcLatch {
    /// What the SSRC was declared to be.
    pub(super) declared_ssrc: Option<u32>,
    /// The payload type alone vouches for what it is.
    pub(super) is_by_payload_type: bool,
    /// Another one that would take its place, and since when.
    pub(super) contender: Option<(u32, Time)>,
    /// When its sender sent a BYE.
    pub(super) bye: Option<Time>,
    /// It is what it is because the one before was silent.
    pub(super) is_doubtful: bool,
}

/// Why one SSRC may take the place of another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Evidence {
    /// The sender of the old one sent a BYE.
    Bye,
    /// The old one has been silent for long.
    Silence,
    /// The new one has been coming, and the old one not.
    Probation,
    /// The new one is the one from before, which was only silent.
    Return,
}

impl SsrcLatch {
    /// Of a stream with this SSRC, if it was declared.
    pub(super) fn new(declared_ssrc: Option<u32>) -> Self {
        Self {
            declared_ssrc,
            ..Self::default()
        }
    }

    /// The sender says that it leaves (RFC 3550 §6.6).
    pub(super) fn on_bye(&mut self, now: Time) {
        self.bye = Some(now);
    }

    /// Another SSRC is the stream's, for a better reason than its payload type.
    pub(super) fn on_new_ssrc(&mut self) {
        *self = Self::new(self.declared_ssrc);
    }

    /// Why another SSRC may take the place of the present one, if it may. `last_packet`: of that; `last_change`: when it came.
    pub(super) fn admit(
        &mut self,
        now: Time,
        ssrc: u32,
        last_packet: Option<Time>,
        last_change: Option<Time>,
    ) -> Option<Evidence> {
        if last_change.is_some_and(|last| now.since(last) < CHANGE_INTERVAL) {
            return None;
        }
        let none_since = |moment: Time| last_packet.is_none_or(|last| last <= moment);
        if self.bye.is_some_and(none_since) {
            return Some(Evidence::Bye);
        }
        if last_packet.is_some_and(|last| now.since(last) >= LEFT_AFTER) {
            return Some(Evidence::Silence);
        }
        match self.contender {
            Some((contender, since)) if contender == ssrc && none_since(since) => {
                (now.since(since) >= PROBATION).then_some(Evidence::Probation)
            }
            _ => {
                self.contender = Some((ssrc, now));
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: u32 = 1;
    const NEW: u32 = 2;

    /// When, of `new`, packets of `NEW` take over, while packets of the old one come at `old`; and why.
    fn admitted(latch: &mut SsrcLatch, new: &[u64], old: &[u64]) -> Option<(u64, Evidence)> {
        let last_packet = |at: u64| {
            old.iter()
                .rev()
                .find(|old| **old <= at)
                .map(|old| Time::from_millis(*old))
        };
        new.iter().find_map(|at| {
            let evidence = latch.admit(Time::from_millis(*at), NEW, last_packet(*at), None)?;
            Some((*at, evidence))
        })
    }

    #[test]
    fn a_silent_ssrc_is_succeeded_at_once_and_a_live_one_never() {
        let every_20 = |from: u64, to: u64| (from..to).step_by(20).collect::<Vec<_>>();
        let old = every_20(0, 1_000);
        assert_eq!(
            admitted(&mut SsrcLatch::new(Some(OLD)), &[1_980], &old),
            Some((1_980, Evidence::Silence))
        );
        assert_eq!(
            admitted(&mut SsrcLatch::new(Some(OLD)), &every_20(1_000, 2_000), &old),
            Some((1_200, Evidence::Probation))
        );
        assert_eq!(admitted(&mut SsrcLatch::default(), &every_20(510, 980), &old), None);
        // One that has never come may come yet.
        assert_eq!(
            admitted(&mut SsrcLatch::new(Some(OLD)), &every_20(0, 1_000), &[]),
            Some((200, Evidence::Probation))
        );
    }

    #[test]
    fn a_goodbye_counts_until_something_comes() {
        let mut latch = SsrcLatch::default();
        latch.on_bye(Time::from_millis(1_000));
        assert_eq!(admitted(&mut latch, &[1_010], &[1_020]), Some((1_010, Evidence::Bye)));
        let mut latch = SsrcLatch::default();
        latch.on_bye(Time::from_millis(1_000));
        assert_eq!(admitted(&mut latch, &[1_010], &[1_005]), None);
    }

    #[test]
    fn changes_are_a_second_apart() {
        let mut latch = SsrcLatch::default();
        latch.on_bye(Time::from_millis(1_000));
        let changed = Some(Time::from_millis(500));
        assert_eq!(latch.admit(Time::from_millis(1_499), NEW, None, changed), None);
        let bye = Some(Evidence::Bye);
        assert_eq!(latch.admit(Time::from_millis(1_500), NEW, None, changed), bye);
    }

    #[test]
    fn contenders_that_take_turns_get_nowhere() {
        let mut latch = SsrcLatch::default();
        let last = Some(Time::from_millis(0));
        for at in (10..990).step_by(10) {
            let contender = NEW + (at / 10 % 2) as u32;
            assert_eq!(
                latch.admit(Time::from_millis(at), contender, last, None),
                None,
                "at {at}"
            );
        }
    }
}
