//! Numbers that wrap around, made into numbers that do not. Wrap arithmetic exists nowhere else.
//!
//! Each extender remembers the newest number and puts another one at its shortest distance from it. Extended numbers
//! start one full cycle up, so that what is older than the first one stays above zero.

/// RFC 3550 appendix A.1: a packet this many numbers ahead of the newest, or more, is not believed at once.
pub const MAX_DROPOUT: u16 = 3000;

/// RFC 3550 appendix A.1: a packet this many numbers behind the newest, or more, is not believed at once.
pub const MAX_MISORDER: u16 = 1500;

/// What [`SeqExtender::accept`] says of a packet. The number is the packet's extended sequence number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Arrival {
    /// The first packet of the stream.
    First(u64),
    /// Newer than the newest; perhaps after a gap.
    InOrder(u64),
    /// Not newer than the newest: late, or received before.
    Late(u64),
    /// The second of two consecutive packets far from the newest: the sender has started over. It continues right after
    /// the newest, and so do the packets that follow it.
    Restarted(u64),
    /// Too far from the newest to be believed, or from before a restart.
    Bad,
}

/// Extends the sequence numbers of one stream to 64 bits, and judges them as RFC 3550 appendix A.1 does (`update_seq`),
/// without its probation.
///
/// Until a restart the low 16 bits of the extended number are the number in the packet; after it they are not, because
/// extended numbers never jump with the sender.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SeqExtender {
    /// The newest extended number; 0 before the first packet.
    newest: u64,
    /// Numbers below belong to packets from before the last restart.
    floor: u64,
    /// The newest number as it stood in the packet.
    newest_seq: u16,
    /// The number that would confirm a restart.
    restart_at: Option<u16>,
}

impl SeqExtender {
    /// Goes on where another one was: with the newest extended number, and that as it stood in its packet; what is older than
    /// `floor` is from before a restart.
    pub fn resumed(newest: u64, newest_seq: u16, floor: u64) -> Self {
        Self {
            newest,
            floor,
            newest_seq,
            restart_at: None,
        }
    }

    /// Places a packet in the stream, and moves on to it if it is newer than the newest.
    #[inline]
    pub fn accept(&mut self, seq: u16) -> Arrival {
        let ahead = seq.wrapping_sub(self.newest_seq);
        if self.newest == 0 {
            self.newest = (1 << 16) + u64::from(seq);
            self.newest_seq = seq;
            return Arrival::First(self.newest);
        }
        if (1..MAX_DROPOUT).contains(&ahead) {
            self.newest += u64::from(ahead);
            self.newest_seq = seq;
            self.restart_at = None;
            return Arrival::InOrder(self.newest);
        }
        let behind = ahead.wrapping_neg();
        if behind < MAX_MISORDER {
            let ext = self.newest - u64::from(behind);
            return if ext < self.floor {
                Arrival::Bad
            } else {
                Arrival::Late(ext)
            };
        }
        self.jump(seq)
    }

    /// RFC 3550 appendix A.1: two sequential packets far away mean that the other side has restarted without telling.
    #[cold]
    fn jump(&mut self, seq: u16) -> Arrival {
        if self.restart_at != Some(seq) {
            self.restart_at = Some(seq.wrapping_add(1));
            return Arrival::Bad;
        }
        self.newest += 1;
        self.floor = self.newest;
        self.newest_seq = seq;
        self.restart_at = None;
        Arrival::Restarted(self.newest)
    }

    /// Where a number lies that comes from something else than its packet, such as the original sequence number of a
    /// retransmission (RFC 4588 §4): not newer than the newest, and not further back than [`SeqExtender::accept`] believes
    /// a late packet to be. Nothing moves.
    pub fn place(&self, seq: u16) -> Option<u64> {
        let behind = self.newest_seq.wrapping_sub(seq);
        let is_believed = self.newest != 0 && behind < MAX_MISORDER;
        is_believed
            .then(|| self.newest - u64::from(behind))
            .filter(|ext| *ext >= self.floor)
    }

    /// The sender has started over with this number: it follows right behind the newest, and what is older than it belongs to
    /// the time before.
    pub fn start_over(&mut self, seq: u16) {
        self.floor = self.newest + 1;
        self.newest_seq = seq.wrapping_sub(1);
        self.restart_at = None;
    }

    /// A number at its shortest distance from the newest, whether it is believed or not. Nothing moves.
    #[inline]
    pub fn nearest(&self, seq: u16) -> u64 {
        let ahead = distance(self.newest_seq, seq);
        self.newest.wrapping_add_signed(i64::from(ahead))
    }

    /// What is older than this extended number is from before the last restart.
    pub fn floor(&self) -> u64 {
        self.floor
    }

    /// The newest number as it stood in its packet; `None` before the first packet.
    #[inline]
    pub fn newest_seq(&self) -> Option<u16> {
        (self.newest != 0).then_some(self.newest_seq)
    }

    /// An extended number of this stream as it stands in its packet; the other way round. After a restart the low 16 bits
    /// of the one are not the other.
    pub fn wire(&self, ext: u64) -> u16 {
        self.newest_seq.wrapping_sub(self.newest.wrapping_sub(ext) as u16)
    }

    /// The newest extended number; `None` before the first packet.
    #[inline]
    pub fn newest(&self) -> Option<u64> {
        (self.newest != 0).then_some(self.newest)
    }
}

/// How far a number is ahead of another one, the shorter way round; negative: behind it.
#[inline]
pub fn distance(from: u16, to: u16) -> i32 {
    i32::from(to.wrapping_sub(from).cast_signed())
}

/// How many ticks a timestamp is ahead of another one, the shorter way round; negative: behind it.
#[inline]
pub fn ticks_between(from: u32, to: u32) -> i32 {
    to.wrapping_sub(from).cast_signed()
}

/// The timestamp so many ticks later.
#[inline]
pub fn later(timestamp: u32, ticks: u32) -> u32 {
    timestamp.wrapping_add(ticks)
}

/// The extended number nearest to `newest` whose low 16 bits are `seq`: for streams of our own, whose extended numbers go
/// on for ever.
pub fn nearest(newest: u64, seq: u16) -> u64 {
    let ahead = seq.wrapping_sub(newest as u16).cast_signed();
    newest.wrapping_add_signed(i64::from(ahead))
}

/// Extends RTP timestamps to 64 bits. Any timestamp is accepted: what it means is for the caller to judge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TimestampExtender {
    /// The newest extended timestamp; 0 before the first.
    newest: u64,
}

impl TimestampExtender {
    /// The timestamp at its shortest distance from the newest, which it becomes if it is newer.
    #[inline]
    pub fn extend(&mut self, ts: u32) -> u64 {
        if self.newest == 0 {
            self.newest = (1 << 32) + u64::from(ts);
            return self.newest;
        }
        let ahead = ts.wrapping_sub(self.newest as u32).cast_signed();
        // Wrapping, because a sender could drive it over the end of 64 bits with some 2³³ packets.
        let ext = self.newest.wrapping_add_signed(i64::from(ahead));
        if ahead > 0 {
            self.newest = ext;
        }
        ext
    }

    /// The newest extended timestamp; `None` before the first.
    #[inline]
    pub fn newest(&self) -> Option<u64> {
        (self.newest != 0).then_some(self.newest)
    }
}

/// How far `value` is ahead of `of` at the shortest distance between them, of which the low `BITS` bits count; negative if it
/// is behind.
#[inline]
pub fn ahead<const BITS: u32>(value: u16, of: u16) -> i16 {
    const { assert!(BITS >= 2 && BITS <= 16) };
    // The distance in the top bits of an i16, brought down again with its sign.
    let unused = 16 - BITS;
    (value.wrapping_sub(of) << unused).cast_signed() >> unused
}

/// How far `value` is beyond `of`, going upwards only, where the low `BITS` bits count.
#[inline]
pub fn beyond<const BITS: u32>(value: u16, of: u16) -> u16 {
    const { assert!(BITS >= 2 && BITS <= 16) };
    let unused = 16 - BITS;
    value.wrapping_sub(of) << unused >> unused
}

/// Where a [`MediaClock`] stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ClockPosition {
    /// The newest timestamp, extended; 0 before the first.
    pub newest: u64,
    /// What is added to timestamps.
    pub shift: u32,
    /// What was added before the last change,
    pub shift_before: u32,
    /// which was at this extended sequence number.
    pub changed_at: u64,
}

/// The clock of one stream's media, in 64 bits: it goes on when the sender's own is set to another time in the middle of the
/// stream (a file that begins again, a seek), because from there on the distance is taken out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MediaClock {
    extender: TimestampExtender,
    /// What is added to timestamps, modulo 2³².
    shift: u32,
    /// Extended sequence numbers below this one are from before the last change, and have the shift from before it.
    changed_at: u64,
    shift_before: u32,
}

impl MediaClock {
    /// Goes on where another one was.
    pub fn resumed(position: ClockPosition) -> Self {
        Self {
            extender: TimestampExtender {
                newest: position.newest,
            },
            shift: position.shift,
            changed_at: position.changed_at,
            shift_before: position.shift_before,
        }
    }

    /// Where it stands.
    pub fn position(&self) -> ClockPosition {
        ClockPosition {
            newest: self.extender.newest,
            shift: self.shift,
            shift_before: self.shift_before,
            changed_at: self.changed_at,
        }
    }

    /// A packet's timestamp as it would be if the sender's clock had never been changed. `seq` is its extended number.
    #[inline]
    pub fn shifted(&self, seq: u64, timestamp: u32) -> u32 {
        let shift = if seq < self.changed_at {
            self.shift_before
        } else {
            self.shift
        };
        timestamp.wrapping_add(shift)
    }

    /// A packet's timestamp, extended.
    #[inline]
    pub fn extend(&mut self, seq: u64, timestamp: u32) -> u64 {
        let shifted = self.shifted(seq, timestamp);
        self.extender.extend(shifted)
    }

    /// A timestamp that fits nothing, extended so that it is older than the newest: the newest one is not moved by
    /// it, and 32 bits of it are what its sender wrote.
    pub fn extend_unmoved(&mut self, seq: u64, timestamp: u32) -> u64 {
        let shifted = self.shifted(seq, timestamp);
        let Some(newest) = self.extender.newest() else {
            return self.extender.extend(shifted);
        };
        newest.wrapping_sub(u64::from((newest as u32).wrapping_sub(shifted)))
    }

    /// A timestamp that comes from something else than a packet, extended. Nothing moves.
    pub fn read(&self, timestamp: u32) -> u64 {
        let shifted = timestamp.wrapping_add(self.shift);
        self.extender.clone().extend(shifted)
    }

    /// From this extended number on, so much more has to be added to timestamps.
    pub fn change(&mut self, from: u64, by: u32) {
        self.shift_before = self.shift;
        self.shift = self.shift.wrapping_add(by);
        self.changed_at = from;
    }

    /// The next packet is a new stream's.
    pub fn start_over(&mut self) {
        self.extender = TimestampExtender::default();
        self.changed_at = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::Arrival::{Bad, First, InOrder, Late, Restarted};
    use super::*;

    const CYCLE: u64 = 1 << 16;

    fn check(rows: &[(u16, Arrival)]) {
        let mut seqs = SeqExtender::default();
        for (at, &(seq, arrival)) in rows.iter().enumerate() {
            assert_eq!(seqs.accept(seq), arrival, "packet {at}, number {seq}");
        }
    }

    #[test]
    fn before_the_first_packet_there_is_no_newest() {
        let mut seqs = SeqExtender::default();
        assert_eq!(seqs.newest(), None);
        assert_eq!(seqs.accept(0), First(CYCLE));
        assert_eq!(seqs.newest(), Some(CYCLE));
    }

    #[test]
    fn numbers_wrap_both_ways() {
        check(&[
            (65_534, First(CYCLE + 65_534)),
            (65_535, InOrder(CYCLE + 65_535)),
            (0, InOrder(2 * CYCLE)),
            (65_533, Late(CYCLE + 65_533)),
            (2, InOrder(2 * CYCLE + 2)),
            (1, Late(2 * CYCLE + 1)),
            (2, Late(2 * CYCLE + 2)),
        ]);
        // Older than the first packet, and below zero on the wire.
        check(&[(3, First(CYCLE + 3)), (65_535, Late(CYCLE - 1))]);
    }

    #[test]
    fn the_limits_of_belief() {
        check(&[(10, First(CYCLE + 10)), (3009, InOrder(CYCLE + 3009))]);
        check(&[(10, First(CYCLE + 10)), (3010, Bad), (11, InOrder(CYCLE + 11))]);
        check(&[(2000, First(CYCLE + 2000)), (501, Late(CYCLE + 501))]);
        check(&[(2000, First(CYCLE + 2000)), (500, Bad), (2001, InOrder(CYCLE + 2001))]);
        check(&[(0, First(CYCLE)), (32_768, Bad)]);
    }

    #[test]
    fn two_in_a_row_after_a_jump_continue_after_the_newest() {
        check(&[
            (100, First(CYCLE + 100)),
            (40_000, Bad),
            (40_001, Restarted(CYCLE + 101)),
            (40_002, InOrder(CYCLE + 102)),
            (40_005, InOrder(CYCLE + 105)),
            (40_004, Late(CYCLE + 104)),
            // From before the restart: their places belong to others.
            (40_000, Bad),
            (39_999, Bad),
            (40_006, InOrder(CYCLE + 106)),
            // The old numbers are now far away themselves.
            (101, Bad),
            (102, Restarted(CYCLE + 107)),
        ]);
        // Across the wrap.
        check(&[
            (30_000, First(CYCLE + 30_000)),
            (65_535, Bad),
            (0, Restarted(CYCLE + 30_001)),
        ]);
    }

    #[test]
    fn a_jump_is_confirmed_by_the_next_number_only() {
        check(&[
            (100, First(CYCLE + 100)),
            (40_000, Bad),
            (40_000, Bad),
            (40_002, Bad),
            // A good packet in between: the jump was an accident.
            (101, InOrder(CYCLE + 101)),
            (40_003, Bad),
            // A late one proves nothing.
            (99, Late(CYCLE + 99)),
            (40_004, Restarted(CYCLE + 102)),
        ]);
    }

    #[test]
    fn places_are_found_and_written_back() {
        let mut seqs = SeqExtender::default();
        assert_eq!(seqs.place(5), None);
        seqs.accept(65_534);
        seqs.accept(2);
        assert_eq!(seqs.place(65_535), Some(CYCLE + 65_535));
        assert_eq!(seqs.place(2), Some(2 * CYCLE + 2));
        assert_eq!(seqs.place(3), None, "newer than the newest");
        assert_eq!(
            seqs.place(2_u16.wrapping_sub(MAX_MISORDER - 1)),
            Some(2 * CYCLE + 3 - u64::from(MAX_MISORDER))
        );
        assert_eq!(seqs.place(2_u16.wrapping_sub(MAX_MISORDER)), None);
        assert_eq!(seqs.wire(CYCLE + 65_535), 65_535);
        assert_eq!(seqs.wire(2 * CYCLE + 1), 1);
        // After a restart: from before it nothing is found, and what follows is written as its sender numbers it.
        seqs.accept(30_000);
        assert_eq!(seqs.accept(30_001), Restarted(2 * CYCLE + 3));
        seqs.accept(30_004);
        assert_eq!(seqs.place(30_002), Some(2 * CYCLE + 4));
        assert_eq!(seqs.place(30_000), None);
        assert_eq!(seqs.wire(2 * CYCLE + 4), 30_002);
    }

    #[test]
    fn a_new_beginning_follows_the_newest_and_leaves_what_is_older_behind() {
        let mut seqs = SeqExtender::default();
        seqs.accept(1_000);
        seqs.accept(1_001);
        assert_eq!(seqs.nearest(998), CYCLE + 998);
        seqs.start_over(0);
        assert_eq!(seqs.accept(0), InOrder(CYCLE + 1_002));
        assert_eq!(seqs.accept(65_535), Bad);
        assert_eq!(seqs.accept(3), InOrder(CYCLE + 1_005));
        assert_eq!((seqs.newest_seq(), seqs.floor()), (Some(3), CYCLE + 1_002));
    }

    #[test]
    fn a_clock_that_is_changed_goes_on() {
        let mut clock = MediaClock::default();
        let first = clock.extend(10, u32::MAX - 100);
        assert_eq!(clock.extend(11, 899), first + 1_000);
        // It says 5 where it should say 1,899.
        clock.change(12, 1_894);
        assert_eq!(clock.extend(12, 5), first + 2_000);
        assert_eq!(clock.read(1_005), first + 3_000);
        assert_eq!(clock.extend(11, 899), first + 1_000, "late, from before the change");
        // One that fits nothing is older than the newest, whatever it is.
        for odd in [0_u32, 1 << 31, u32::MAX] {
            let aside = clock.extend_unmoved(13, odd);
            assert!(aside < first + 2_000);
            assert_eq!(aside as u32, odd.wrapping_add(1_894));
        }
        assert_eq!(clock.extend(14, 1_005), first + 3_000);
    }

    #[test]
    fn the_nearest_number_is_on_either_side() {
        for (newest, seq, ext) in [
            (CYCLE, 0, CYCLE),
            (CYCLE, 65_535, CYCLE - 1),
            (CYCLE + 65_535, 0, 2 * CYCLE),
            (CYCLE + 100, 32_867, CYCLE + 32_867),
            (CYCLE + 100, 32_868, 32_868),
        ] {
            assert_eq!(nearest(newest, seq), ext, "{seq}");
        }
    }

    #[test]
    fn timestamps_wrap_both_ways() {
        let cycle = 1 << 32;
        let mut timestamps = TimestampExtender::default();
        assert_eq!(timestamps.newest(), None);
        let rows = [
            (10, cycle + 10),
            (u32::MAX, cycle - 1),
            (9, cycle + 9),
            (0x7fff_ffff, cycle + 0x7fff_ffff),
            (0xffff_fff0, cycle + 0xffff_fff0),
            (20, 2 * cycle + 20),
            (0xffff_fff0, cycle + 0xffff_fff0),
            // Half a cycle away counts as older.
            (0x8000_0014, cycle + 0x8000_0014),
        ];
        for (ts, ext) in rows {
            assert_eq!(timestamps.extend(ts), ext, "{ts}");
        }
        assert_eq!(timestamps.newest(), Some(2 * cycle + 20));
    }

    #[test]
    fn a_sender_cannot_break_the_timestamps() {
        let mut timestamps = TimestampExtender { newest: u64::MAX - 5 };
        assert_eq!(timestamps.extend(1_000), 1_000);
        assert_eq!(timestamps.extend(999), 999);
    }

    #[test]
    fn counters_wrap_at_their_own_width() {
        assert_eq!(
            (ahead::<7>(1, 127), ahead::<7>(127, 1), ahead::<7>(64, 0)),
            (2, -2, -64)
        );
        let wide = [(0, 32_767), (0x8001, 0), (16_385, 1), (32_766, 0)].map(|(value, of)| ahead::<15>(value, of));
        assert_eq!(wide, [1, 1, -16_384, -2]);
        let full = [(0, 65_535), (65_535, 0), (32_768, 0)].map(|(value, of)| ahead::<16>(value, of));
        assert_eq!(full, [1, -1, -32_768]);
        assert_eq!(
            (beyond::<7>(1, 127), beyond::<7>(127, 1), beyond::<8>(5, 5)),
            (2, 126, 0)
        );
        assert_eq!(beyond::<15>(0, 32_767), 1);
    }
}
