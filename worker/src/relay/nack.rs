//! Packets that are missing in a received stream: noticed when later ones come, asked for until they come or are given up
//! (differences §2.10).
//!
//! ```text
//!   gap ──▶ missing ──REORDERING──▶ asked ──round trip──▶ asked again ──▶ … ──▶ given up
//!              └──────────┴── it comes ──┴──▶ repaired
//! ```
//!
//! All numbers are extended, so a list is sorted, and nothing here can meet a number twice. Nothing that a sender does is
//! an error: it is only more or less worth asking for.
//!
//! What is missing is a bit each, and what was noticed together is asked for together: so the times are kept of gaps, not of
//! packets, and a list has the same small size whatever is lost (nothing is allocated while packets are relayed, and most
//! streams never lose anything). When there are more gaps than it has capacity for, two that were noticed at almost the same
//! time become one.

use std::ops::Range;
use std::time::Duration;

use crate::rtp::bit_ring::BitRing;
use crate::rtp::seq::MAX_MISORDER;
use crate::time::Time;

use super::packet::PacketMeta;

/// Packets of one stream that are asked for at a time. When more are missing, asking for a key frame is cheaper.
pub const MISSING_MAX: usize = 1_000;

/// How far behind the newest packet another one is still asked for. (v2: 5,000, but a packet that comes more than
/// [`MAX_MISORDER`] late is not believed; so asking for it would be for nothing.)
const AGE_SEQS_MAX: u64 = MAX_MISORDER as u64 - 100;

/// Words of bits for as many sequence numbers as are asked for at all.
const WORDS: usize = (AGE_SEQS_MAX as usize).div_ceil(64) + 1;

/// Gaps that have times of their own: a tenth of 500 packets a second, lost over a round trip of 200 ms. Where there are more, the
/// two that are most alike are asked for together, which costs one of them a few milliseconds; and each costs every producer memory.
const GAPS_MAX: usize = 10;

/// How long a packet is only late before it is taken for lost.
pub const REORDERING: Duration = Duration::from_millis(4);

/// The least time between two requests for one packet.
const INTERVAL_MIN: Duration = Duration::from_millis(10);

/// The most, if a round trip is not longer.
const INTERVAL_MAX: Duration = Duration::from_millis(250);

/// How often one packet is asked for.
const ASKS_MAX: u32 = 10;

/// A packet that is missing for longer is of no use to anybody.
const GIVE_UP_AFTER: Duration = Duration::from_secs(2);

/// Requests are due at multiples of this, so that one turn of the timer serves many streams.
const GRID_NS: u64 = 2_000_000;

/// What a stream misses. What a packet needs that is simply the next one comes first.
#[derive(Debug)]
#[repr(C)]
pub struct MissingList {
    newest: Option<u64>,
    /// The stream's count of restarts that `newest` belongs to.
    restarts: u32,
    /// It is in the relay's list of streams that miss something.
    pub(super) listed: bool,
    /// The numbers that are missing; all of them lie in gaps.
    numbers: MissingSeqs,
    /// Ascending. What of a gap has come is in it still.
    gaps: Vec<Gap>,
    /// When the first of them is due; means nothing while there are none.
    pub(super) due: Time,
    /// Sequence number and timestamp of the last key frame's first packet.
    key_frame: Option<(u64, u64)>,
}

/// Packets that were noticed to be missing together, or almost.
#[derive(Clone, Copy, Debug)]
struct Gap {
    first: u64,
    /// Sequence numbers; no more than are asked for at a time, and what lies between them.
    len: u32,
    since: Time,
    /// When they are asked for (again).
    due: Time,
    asked: Time,
    asks: u16,
    /// It was several, which were asked for at different times.
    is_merged: bool,
}

impl Gap {
    fn range(&self) -> Range<u64> {
        self.first..self.first + u64::from(self.len)
    }

    /// This gap and the next one as one: asked for when both are due, and given up when one is.
    fn and(&self, next: &Self) -> Self {
        Self {
            first: self.first,
            len: (next.range().end - self.first) as u32,
            since: self.since.min(next.since),
            due: self.due.max(next.due),
            asked: self.asked.max(next.asked),
            asks: self.asks.max(next.asks),
            is_merged: self.is_merged || next.is_merged || self.asked != next.asked,
        }
    }
}

/// What a packet means for what is missing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LossChange {
    /// Nothing.
    Nothing,
    /// Packets before it are missing.
    Gap,
    /// So many are missing that they are not asked for any more: a key frame is needed.
    Overflow,
    /// It was missing itself.
    Recovered {
        /// How often it was asked for.
        asks: u32,
        /// When, the last time.
        asked: Time,
    },
}

impl Default for MissingList {
    fn default() -> Self {
        Self {
            numbers: MissingSeqs::default(),
            gaps: Vec::with_capacity(GAPS_MAX),
            due: Time::default(),
            newest: None,
            restarts: 0,
            key_frame: None,
            listed: false,
        }
    }
}

impl MissingList {
    /// Where the fields lie that every packet needs.
    #[cfg(test)]
    pub(super) const HOT: Range<usize> = 0..std::mem::offset_of!(Self, numbers.range);

    /// Notes a packet that has come for the first time. `restarts` is the stream's count of them.
    #[inline]
    pub fn on_packet(&mut self, now: Time, packet: &PacketMeta, is_key_frame: bool, restarts: u32) -> LossChange {
        let next = self.newest.map(|newest| newest + 1);
        if next == Some(packet.seq) && self.restarts == restarts && !is_key_frame && self.is_empty() {
            self.newest = next;
            return LossChange::Nothing;
        }
        self.on_other_packet(now, packet, is_key_frame, restarts)
    }

    fn on_other_packet(&mut self, now: Time, packet: &PacketMeta, is_key_frame: bool, restarts: u32) -> LossChange {
        let seq = packet.seq;
        let Some(newest) = self.newest.filter(|_| self.restarts == restarts) else {
            self.forget_all();
            self.newest = Some(seq);
            self.restarts = restarts;
            self.key_frame = is_key_frame.then_some((seq, packet.timestamp));
            return LossChange::Nothing;
        };
        if seq <= newest {
            return self.on_late(seq);
        }
        self.newest = Some(seq);
        self.forget_before(seq.saturating_sub(AGE_SEQS_MAX));
        if is_key_frame {
            self.on_key_frame(seq, packet.timestamp);
        }
        let count = seq - newest - 1;
        if count == 0 {
            return LossChange::Nothing;
        }
        if self.len() as u64 + count > MISSING_MAX as u64 {
            self.forget_all();
            return LossChange::Overflow;
        }
        let due = on_grid(now + REORDERING);
        self.due = if self.is_empty() { due } else { self.due.min(due) };
        self.numbers.add(newest + 1..seq);
        if self.gaps.len() == GAPS_MAX {
            self.make_capacity();
        }
        self.gaps.push(Gap {
            first: newest + 1,
            len: count as u32,
            since: now,
            due,
            asked: Time::default(),
            asks: 0,
            is_merged: false,
        });
        LossChange::Gap
    }

    fn on_late(&mut self, seq: u64) -> LossChange {
        if !self.numbers.remove(seq) {
            return LossChange::Nothing;
        }
        let after = self.gaps.partition_point(|gap| gap.first <= seq);
        match after.checked_sub(1).and_then(|at| self.gaps.get(at)) {
            Some(gap) => LossChange::Recovered {
                // Nobody knows when this one was.
                asks: u32::from(gap.asks.max(if gap.is_merged { 2 } else { 0 })),
                asked: gap.asked,
            },
            None => LossChange::Nothing,
        }
    }

    /// Frees the place of a gap: those that have closed go, or else the two next to each other that are most alike become one.
    #[cold]
    fn make_capacity(&mut self) {
        let numbers = &self.numbers;
        self.gaps.retain(|gap| gap.range().any(|seq| numbers.contains(seq)));
        if self.gaps.len() < GAPS_MAX {
            return;
        }
        // With as many requests made, and due at about the same time.
        let unlike = |pair: &[Gap]| {
            (
                pair[0].asks.abs_diff(pair[1].asks),
                pair[0].due.0.abs_diff(pair[1].due.0),
            )
        };
        let pairs = self.gaps.windows(2).map(unlike).zip(0..);
        if let Some((_, at)) = pairs.min() {
            self.gaps[at] = self.gaps[at].and(&self.gaps[at + 1]);
            self.gaps.remove(at + 1);
        }
    }

    /// What came before the key frame *before* this one helps nobody any more. Some codecs mark several packets of one
    /// key frame; those have one timestamp.
    fn on_key_frame(&mut self, seq: u64, timestamp: u64) {
        if let Some((previous, previous_timestamp)) = self.key_frame {
            if previous_timestamp == timestamp {
                return;
            }
            self.forget_before(previous);
        }
        self.key_frame = Some((seq, timestamp));
    }

    /// Goes on behind this packet: what lies between it and the next one that comes is missing.
    pub(super) fn resume(&mut self, newest: u64, restarts: u32) {
        self.newest = Some(newest);
        self.restarts = restarts;
    }

    /// The newest packet that came, extended.
    pub(super) fn newest(&self) -> Option<u64> {
        self.newest
    }

    /// Forgets the gap that the last packet has shown; `newest` is the newest before it.
    pub(super) fn forget_after(&mut self, newest: u64) {
        self.numbers.remove_from(newest + 1);
        while self.gaps.last().is_some_and(|gap| gap.first > newest) {
            self.gaps.pop();
        }
    }

    fn forget_all(&mut self) {
        self.numbers = MissingSeqs::default();
        self.gaps.clear();
    }

    fn forget_before(&mut self, seq: u64) {
        self.numbers.remove_below(seq);
        if self.is_empty() {
            self.gaps.clear();
        }
        let gone = self.gaps.partition_point(|gap| gap.range().end <= seq);
        self.gaps.drain(..gone);
        if let Some(gap) = self.gaps.first_mut() {
            let gone = seq.saturating_sub(gap.first);
            gap.first += gone;
            gap.len -= gone as u32;
        }
    }

    /// Names those that are to be asked for now, in ascending order; returns when to come again, if there are any.
    pub fn ask(&mut self, now: Time, round_trip: Duration, mut name: impl FnMut(u64)) -> Option<Time> {
        if self.is_empty() {
            return None;
        }
        if self.due > now {
            return Some(self.due);
        }
        // The answer may be a little late. And as it fails to come, it is asked for less and less often: the round trip may
        // be longer than it seemed, and losses come in bursts.
        let interval = (round_trip + round_trip / 4).max(INTERVAL_MIN);
        let mut next: Option<Time> = None;
        let numbers = &mut self.numbers;
        self.gaps.retain_mut(|gap| {
            if gap.due <= now {
                if u32::from(gap.asks) >= ASKS_MAX || now.since(gap.since) >= GIVE_UP_AFTER {
                    numbers.remove_all(gap.range());
                    return false;
                }
                let missing = gap.range().filter(|seq| numbers.contains(*seq));
                if missing.map(&mut name).count() == 0 {
                    return false;
                }
                gap.asks += 1;
                gap.asked = now;
                let longer = interval * (1 << ((gap.asks - 1) / 2));
                gap.due = on_grid(now + longer.min(INTERVAL_MAX.max(interval)));
                // Now they were asked for together.
                gap.is_merged = false;
            }
            next = Some(next.map_or(gap.due, |next| next.min(gap.due)));
            true
        });
        self.due = next.unwrap_or_default();
        next
    }

    /// How many are missing and not given up.
    pub fn len(&self) -> usize {
        self.numbers.count
    }

    /// Whether nothing is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The first time from this one on at which requests are made.
fn on_grid(time: Time) -> Time {
    Time(time.0.next_multiple_of(GRID_NS))
}

/// A set of sequence numbers that are near each other: a bit each, so that it has the same small size whatever is lost.
#[derive(Debug, Default)]
#[repr(C)]
struct MissingSeqs {
    count: usize,
    /// All of them are in here.
    range: Range<u64>,
    bits: BitRing<WORDS>,
}

impl MissingSeqs {
    /// Takes in a range above all that is here.
    fn add(&mut self, range: Range<u64>) {
        if self.count == 0 {
            self.range.start = range.start;
        }
        self.range.end = range.end;
        self.count += (range.end - range.start) as usize;
        range.for_each(|seq| self.bits.insert(seq));
    }

    #[inline]
    fn contains(&self, seq: u64) -> bool {
        self.count > 0 && self.range.contains(&seq) && self.bits.contains(seq)
    }

    /// Whether it was here.
    fn remove(&mut self, seq: u64) -> bool {
        let is_here = self.contains(seq);
        if is_here {
            self.bits.remove(seq);
            self.count -= 1;
        }
        is_here
    }

    fn remove_below(&mut self, seq: u64) {
        let start = self.range.start;
        if self.count > 0 && start < seq {
            self.remove_all(start..seq.min(self.range.end));
            self.range.start = seq;
        }
    }

    fn remove_from(&mut self, seq: u64) {
        if self.count > 0 && seq < self.range.end {
            self.remove_all(seq.max(self.range.start)..self.range.end);
            self.range.end = seq;
        }
    }

    fn remove_all(&mut self, range: Range<u64>) {
        range.for_each(|seq| {
            self.remove(seq);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RTT: Duration = Duration::from_millis(100);

    /// Packets by their numbers on the wire, as the stream's extender would place them, one every millisecond.
    #[derive(Default)]
    struct Script {
        list: MissingList,
        extender: crate::rtp::SeqExtender,
        now: Time,
    }

    impl Script {
        fn packet(&mut self, seq: u16, key: bool) -> LossChange {
            use crate::rtp::Arrival;
            self.now = self.now + Duration::from_millis(1);
            let (Arrival::First(ext) | Arrival::InOrder(ext) | Arrival::Late(ext)) = self.extender.accept(seq) else {
                panic!("{seq} is not believed");
            };
            self.list.on_packet(self.now, &meta(ext, u64::from(seq)), key, 0)
        }

        fn packets(&mut self, seqs: impl IntoIterator<Item = u16>) {
            for seq in seqs {
                self.packet(seq, false);
            }
        }

        /// What is asked for so long from now.
        fn asked(&mut self, after: Duration) -> Vec<u16> {
            self.now = self.now + after;
            let mut asked = Vec::new();
            self.list.ask(self.now, RTT, |seq| asked.push(self.extender.wire(seq)));
            asked
        }
    }

    fn meta(seq: u64, timestamp: u64) -> PacketMeta {
        PacketMeta {
            start: 0,
            len: 12,
            seq,
            timestamp,
            encoding: 0,
            payload_type: 96,
            key_frame: false,
            epoch: 0,
            payload_start: 12,
            payload_len: 0,
            padding_added: 0,
            vp8: None,
            extension: None,
            withheld: Default::default(),
            first: seq,
            may_be_preceded: false,
            next: u32::MAX,
        }
    }

    /// The vectors of differences §2.10.
    #[test]
    fn gaps_over_the_wrap_and_key_frames() {
        let mut script = Script::default();
        script.packets([65_534, 65_535, 1]);
        assert_eq!(script.asked(REORDERING * 2), [0]);
        script.packets([11]);
        assert_eq!(script.asked(REORDERING * 2), [2, 3, 4, 5, 6, 7, 8, 9, 10]);
        assert_eq!(script.list.len(), 10);
        script.packet(12, true);
        assert_eq!(script.list.len(), 10, "the key frame before it may be what is missing");
        script.packet(13, true);
        assert_eq!(script.list.len(), 0);
    }

    #[test]
    fn a_long_gap_is_asked_for_and_shrinks() {
        let mut script = Script::default();
        script.packets([1, 300]);
        assert_eq!(script.asked(REORDERING * 2).len(), 298);
        assert_eq!(
            script.packet(3, false),
            LossChange::Recovered {
                asks: 1,
                asked: script.now - Duration::from_millis(1)
            }
        );
        assert_eq!(script.packet(3, false), LossChange::Nothing, "once");
        assert_eq!(script.list.len(), 297);
    }

    #[test]
    fn too_long_a_gap_needs_a_key_frame() {
        let mut script = Script::default();
        script.packets([1]);
        assert_eq!(script.packet(3_000, false), LossChange::Overflow);
        assert!(script.list.is_empty());
        assert!(script.asked(RTT).is_empty());
        // In several gaps too; and it goes on from there.
        script.packets([3_002, 3_600]);
        assert_eq!(script.list.len(), 598);
        assert_eq!(script.packet(4_004, false), LossChange::Overflow);
        script.packets([4_006]);
        assert_eq!(script.asked(RTT), [4_005]);
    }

    #[test]
    fn a_late_packet_in_time_is_not_asked_for() {
        let mut script = Script::default();
        script.packets([1, 3]);
        assert!(script.asked(REORDERING - Duration::from_millis(1)).is_empty());
        assert!(matches!(script.packet(2, false), LossChange::Recovered { asks: 0, .. }));
        assert!(script.asked(RTT).is_empty());
    }

    #[test]
    fn asked_again_after_a_round_trip_and_given_up_in_the_end() {
        let mut script = Script::default();
        script.packets([1, 3]);
        let start = script.now;
        let mut times = Vec::new();
        for _ in 0..5_000 {
            if !script.asked(Duration::from_millis(1)).is_empty() {
                times.push(script.now.since(start).as_millis());
            }
        }
        assert!(script.list.is_empty());
        assert!(times[0] <= 6, "{times:?}");
        let gaps: Vec<_> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(gaps.iter().all(|gap| *gap >= 125), "{gaps:?}");
        assert!(gaps[0] <= 128 && gaps[1] <= 253, "{gaps:?}");
        assert!(times.len() >= 5 && times.len() <= ASKS_MAX as usize, "{times:?}");
        assert!(times.iter().all(|time| *time <= 2_000), "{times:?}");
    }

    #[test]
    fn what_is_too_far_behind_is_forgotten() {
        let mut script = Script::default();
        script.packets([1, 3]);
        script.packets(4..2_000);
        assert!(script.list.is_empty());
    }

    #[test]
    fn a_restart_forgets_everything() {
        let mut list = MissingList::default();
        let now = Time::from_millis(1);
        list.on_packet(now, &meta(10, 0), false, 0);
        list.on_packet(now, &meta(20, 0), false, 0);
        assert_eq!(list.len(), 9);
        assert_eq!(list.on_packet(now, &meta(21, 0), false, 1), LossChange::Nothing);
        assert!(list.is_empty());
        // Another SSRC may begin below.
        assert_eq!(list.on_packet(now, &meta(5, 0), false, 2), LossChange::Nothing);
        assert_eq!(list.on_packet(now, &meta(7, 0), false, 2), LossChange::Gap);
    }

    #[test]
    fn several_packets_of_one_key_frame_are_one() {
        let mut list = MissingList::default();
        let now = Time::from_millis(1);
        list.on_packet(now, &meta(10, 0), false, 0);
        list.on_packet(now, &meta(20, 90), true, 0);
        list.on_packet(now, &meta(21, 90), true, 0);
        assert_eq!(list.len(), 9, "H.264: parameter sets, then the first slice");
        list.on_packet(now, &meta(30, 180), true, 0);
        assert_eq!(list.len(), 8);
    }

    /// Nothing is allocated while packets are relayed.
    #[test]
    fn a_burst_of_many_gaps_is_asked_for_whole_and_takes_no_more_room() {
        let mut script = Script::default();
        let room = script.list.gaps.capacity();
        for first in [0, 500] {
            script.packets((first + 1..=first + 401).step_by(2));
            assert_eq!(script.list.len(), 200);
            // What was only late is not asked for.
            for late in [2, 300, 400].map(|late| first + late) {
                assert!(
                    matches!(script.packet(late, false), LossChange::Recovered { asks: 0, .. }),
                    "{late}"
                );
                assert_eq!(script.packet(late, false), LossChange::Nothing, "{late}: once");
            }
            let expected = (first + 2..=first + 400).step_by(2);
            let expected: Vec<u16> = expected.filter(|seq| ![2, 300, 400].contains(&(seq - first))).collect();
            assert_eq!(script.asked(REORDERING * 2), expected);
            let again = script.asked(RTT * 2);
            assert_eq!(again, expected, "and again");
            script.packets(expected);
            assert_eq!(script.list.len(), 0);
            script.packets(first + 402..=first + 500);
        }
        assert_eq!(script.list.gaps.capacity(), room);
    }

    #[test]
    fn nothing_is_asked_for_before_it_can_have_come() {
        let mut script = Script::default();
        let mut noticed = std::collections::BTreeMap::new();
        for step in 0..2_000_u16 {
            // Every third one is missing, far more at a time than there is capacity for.
            script.packet(3 * step + 1, false);
            noticed.extend((3 * step.saturating_sub(1) + 2..3 * step + 1).map(|seq| (seq, script.now)));
            let now = script.now;
            let mut asked = Vec::new();
            script.list.ask(now, RTT, |seq| asked.push(script.extender.wire(seq)));
            for seq in asked {
                if let Some(noticed) = noticed.remove(&seq) {
                    let waited = now.since(noticed);
                    assert!(waited >= REORDERING && waited <= REORDERING * 3, "{seq}: {waited:?}");
                }
            }
            // As the next key frame would have it.
            if step % 300 == 299 {
                script.list.forget_all();
                noticed.clear();
            }
        }
    }

    proptest::proptest! {
        /// Against a set, whatever comes in whatever order and however often the timer runs.
        #[test]
        fn any_losses(steps in proptest::collection::vec((1_u64..40, 0_u64..30, 0_u8..8), 1..300)) {
            let mut list = MissingList::default();
            let mut model = std::collections::BTreeSet::new();
            let (mut newest, mut now) = (1_000_u64, Time::from_millis(1));
            list.on_packet(now, &meta(newest, 0), false, 0);
            for (ahead, back, what) in steps {
                now = now + Duration::from_millis(u64::from(what == 0) * 8);
                match what {
                    0 => {
                        let mut asked = Vec::new();
                        list.ask(now, RTT, |seq| asked.push(seq));
                        proptest::prop_assert!(asked.iter().all(|seq| model.contains(seq)));
                        proptest::prop_assert!(asked.is_sorted());
                    }
                    1..=3 => {
                        let late = newest - back;
                        let noted = list.on_packet(now, &meta(late, 0), false, 0);
                        let is_recovered = matches!(noted, LossChange::Recovered { .. });
                        proptest::prop_assert_eq!(is_recovered, model.remove(&late));
                    }
                    _ => {
                        model.extend(newest + 1..newest + ahead);
                        newest += ahead;
                        model = model.split_off(&newest.saturating_sub(AGE_SEQS_MAX));
                        if list.on_packet(now, &meta(newest, 0), false, 0) == LossChange::Overflow {
                            model.clear();
                        } else if what == 7 && ahead > 1 {
                            list.forget_after(newest - ahead);
                            model.split_off(&(newest - ahead + 1));
                        }
                    }
                }
                proptest::prop_assert_eq!(list.len(), model.len());
            }
        }
    }
}
