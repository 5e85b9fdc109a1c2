//! What one receiver makes of what it gets, while workers die (pure): how long it waited, what was lost, whether a number was
//! used twice.
//!
//! Each packet of a source carries its number, from 0 without a gap, so a receiver knows what it did not get whatever the relay
//! has made of the RTP header.

use std::collections::BTreeMap;

use weir_worker::rtp::seq::nearest;

/// A packet that has not come for so long is lost.
pub(super) const GIVEN_UP_AFTER_NS: u64 = 1_000_000_000;

/// So many are waited for at a time. A receiver that misses more has other worries.
const MISSING_MAX: usize = 4_096;

/// How far back it is known what came under a sequence number.
const REMEMBERED: usize = 4_096;

/// A packet as it came.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrived {
    /// When, in nanoseconds of the monotonic clock.
    pub at_ns: u64,
    /// On the wire.
    pub seq: u16,
    /// Its number at the source.
    pub number: u64,
    /// Of what was on the wire behind the header.
    pub digest: u64,
}

/// One receiver of one source.
#[derive(Debug)]
pub(super) struct Judge {
    /// The numbers below came, or are missing, or are given up. `None` before the first one.
    next: Option<u64>,
    missing: BTreeMap<u64, Missing>,
    newest_seq: u64,
    /// By sequence number: the extended one, and what came.
    seen: Box<[(u64, u64)]>,
    /// What is added to a number to make its sequence number.
    offset: u16,
    waited_ns: u64,
    pub counts: Counts,
    /// The numbers that were lost since they were taken.
    lost: Vec<u64>,
}

#[derive(Clone, Copy, Debug)]
struct Missing {
    since_ns: u64,
    asked_ns: u64,
}

/// Since the beginning.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Counts {
    /// Packets that came.
    pub received: u64,
    /// Those of them that had been missing.
    pub repaired: u64,
    /// Packets that never came.
    pub lost: u64,
    /// Packets that came twice, in the same bytes.
    pub repeated: u64,
    /// Sequence numbers under which something else came before.
    pub reused: u64,
    /// How often the sequence numbers went on elsewhere than where they were.
    pub renumbered: u64,
}

impl Counts {
    /// Adds those of another receiver.
    pub(super) fn add(&mut self, other: Self) {
        self.received += other.received;
        self.repaired += other.repaired;
        self.lost += other.lost;
        self.repeated += other.repeated;
        self.reused += other.reused;
        self.renumbered += other.renumbered;
    }
}

impl Judge {
    pub(super) fn new() -> Self {
        Self {
            next: None,
            missing: BTreeMap::new(),
            newest_seq: 1 << 32,
            // Not zeroes, which take memory only when something else is written there: that would look as if each death took some.
            seen: vec![(u64::MAX, 0); REMEMBERED].into_boxed_slice(),
            offset: 0,
            waited_ns: 0,
            counts: Counts::default(),
            lost: Vec::new(),
        }
    }

    /// Takes a packet. `sent_at` says when the source sent a number.
    pub(super) fn on_packet(&mut self, packet: Arrived, sent_at: impl Fn(u64) -> u64) {
        if !self.is_fresh(packet) {
            return;
        }
        self.counts.received += 1;
        let Some(next) = self.next else {
            self.next = Some(packet.number + 1);
            self.offset = packet.seq.wrapping_sub(packet.number as u16);
            return;
        };
        if packet.number < next {
            self.counts.repaired += u64::from(self.missing.remove(&packet.number).is_some());
            return;
        }
        let offset = packet.seq.wrapping_sub(packet.number as u16);
        self.counts.renumbered += u64::from(offset != self.offset);
        self.offset = offset;
        // Whoever waits for a packet has waited since the first one was sent that is not there.
        self.waited_ns = self.waited_ns.max(packet.at_ns.saturating_sub(sent_at(next)));
        for number in next..packet.number {
            if self.missing.len() == MISSING_MAX {
                self.counts.lost += packet.number - number;
                self.lost.extend((number..packet.number).take(MISSING_MAX));
                break;
            }
            let missing = Missing {
                since_ns: packet.at_ns,
                asked_ns: 0,
            };
            self.missing.insert(number, missing);
        }
        self.next = Some(packet.number + 1);
    }

    /// Whether nothing has come yet under its sequence number.
    fn is_fresh(&mut self, packet: Arrived) -> bool {
        let seq = match self.next {
            None => u64::from(packet.seq) + (1 << 32),
            Some(_) => nearest(self.newest_seq, packet.seq),
        };
        self.newest_seq = self.newest_seq.max(seq);
        let seen = &mut self.seen[seq as usize % REMEMBERED];
        if seen.0 == seq {
            match seen.1 == packet.digest {
                true => self.counts.repeated += 1,
                false => self.counts.reused += 1,
            }
            return false;
        }
        *seen = (seq, packet.digest);
        true
    }

    /// The sequence numbers that are missing and were not asked for since `again_after_ns` ago, ascending; each counts as asked for now.
    /// What is missing for too long is lost.
    pub(super) fn ask(&mut self, now_ns: u64, again_after_ns: u64, mut each: impl FnMut(u64, u16)) {
        let (count, lost) = (&mut self.counts.lost, &mut self.lost);
        self.missing.retain(|number, missing| {
            let is_lost = now_ns.saturating_sub(missing.since_ns) >= GIVEN_UP_AFTER_NS;
            if is_lost {
                *count += 1;
                lost.push(*number);
            }
            !is_lost
        });
        for (number, missing) in &mut self.missing {
            if now_ns.saturating_sub(missing.asked_ns) >= again_after_ns {
                missing.asked_ns = now_ns;
                each(*number, self.offset.wrapping_add(*number as u16));
            }
        }
    }

    /// The numbers that were lost since this was asked last.
    pub(super) fn take_lost(&mut self) -> impl Iterator<Item = u64> + '_ {
        self.lost.drain(..)
    }

    /// The longest wait since this was asked last, in nanoseconds.
    pub(super) fn take_wait(&mut self) -> u64 {
        std::mem::take(&mut self.waited_ns)
    }

    /// The numbers below have come, or never will.
    pub(super) fn next(&self) -> Option<u64> {
        self.next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// A source that sends each 10 ms.
    fn sent_at(number: u64) -> u64 {
        number * 10 * MS
    }

    fn packet(at_ms: u64, seq: u16, number: u64) -> Arrived {
        Arrived {
            at_ns: at_ms * MS,
            seq,
            number,
            digest: number,
        }
    }

    /// A judge that has had packets 0 to 9 under 65,530 onwards.
    fn begun() -> Judge {
        let mut judge = Judge::new();
        for number in 0..10 {
            judge.on_packet(
                packet(number * 10, 65_530_u16.wrapping_add(number as u16), number),
                sent_at,
            );
        }
        assert_eq!(judge.take_wait(), 0);
        assert_eq!((judge.counts.received, judge.counts.renumbered), (10, 0));
        judge
    }

    #[test]
    fn a_packet_that_comes_late_was_waited_for() {
        let mut judge = begun();
        judge.on_packet(packet(123, 4, 10), sent_at);
        judge.on_packet(packet(124, 5, 11), sent_at);
        assert_eq!(judge.take_wait(), 23 * MS);
        assert_eq!(judge.take_wait(), 0);
    }

    #[test]
    fn whoever_gets_a_later_packet_has_waited_for_the_lost_one() {
        let mut judge = begun();
        judge.on_packet(packet(130, 7, 13), sent_at);
        assert_eq!(judge.take_wait(), 30 * MS);
        let mut asked = Vec::new();
        judge.ask(130 * MS, 50 * MS, |number, seq| asked.push((number, seq)));
        judge.ask(140 * MS, 50 * MS, |number, seq| asked.push((number, seq)));
        assert_eq!(asked, [(10, 4), (11, 5), (12, 6)], "once in 50 ms");
        judge.on_packet(packet(150, 5, 11), sent_at);
        assert_eq!(judge.counts.repaired, 1);
        judge.ask(130 * MS + GIVEN_UP_AFTER_NS, 0, |_, _| {
            panic!("nobody asks for what is lost")
        });
        assert_eq!(judge.counts.lost, 2);
        assert_eq!(judge.take_lost().collect::<Vec<_>>(), [10, 12]);
        assert_eq!(judge.take_lost().next(), None);
    }

    #[test]
    fn a_number_that_is_used_twice_is_found_and_one_that_is_sent_again_is_not() {
        let mut judge = begun();
        judge.on_packet(packet(95, 3, 9), sent_at);
        assert_eq!((judge.counts.repeated, judge.counts.reused), (1, 0));
        judge.on_packet(packet(100, 3, 10), sent_at);
        assert_eq!((judge.counts.repeated, judge.counts.reused), (1, 1));
        // What came under a number that was used before is nothing that was received.
        assert_eq!(judge.counts.received, 10);
    }

    #[test]
    fn numbers_that_go_on_elsewhere_are_counted() {
        let mut judge = begun();
        judge.on_packet(packet(100, 400, 10), sent_at);
        judge.on_packet(packet(110, 401, 11), sent_at);
        assert_eq!(judge.counts.renumbered, 1);
    }
}
