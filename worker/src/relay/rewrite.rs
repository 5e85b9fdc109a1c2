//! The numbers a consumer sees: one SSRC, and sequence number, timestamp and VP8 ids that go on without a break whatever
//! flows.
//!
//! Everything is extended to 64 bits, so a mapping is an addition, and gaps and reordering of the input come through as
//! they are. New offsets are made only at a *start*: the first packet, a resumption, a switch.

use crate::page::layout;
use crate::page::predecessor::{Damaged, double};
use crate::time::Time;

use super::packet::PacketMeta;

/// The offsets in force, and the newest numbers sent. In this order, what every packet needs lies together.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Rewriter {
    offsets: Offsets,
    newest: Newest,
    /// The encoding whose timeline the timestamp's offset belongs to, if anything was sent.
    timeline_of: Option<u8>,
    /// Its count of restarts then.
    restarts: u32,
}

/// What is added to a packet's numbers, from one start to the next.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct Offsets {
    /// Means something while `is_sped_up`.
    speedup: Speedup,
    is_sped_up: bool,
    /// The slot that says what is folded.
    pub slot: u8,
    /// To the folded sequence number.
    pub seq: u64,
    timestamp: u64,
    picture_id: u64,
    tl0: u64,
}

/// What is sent after the event is sent so many times as fast as it came.
pub const SPEEDUP: u32 = 4;

/// A stretch of the producer's timestamps whose distances become as many times smaller.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Speedup {
    from: u64,
    until: u64,
}

impl Speedup {
    fn apply(self, timestamp: u64) -> u64 {
        let Some(distance) = timestamp.checked_sub(self.from) else {
            return timestamp;
        };
        let sped_up = distance.min(self.until - self.from);
        self.from + sped_up / u64::from(SPEEDUP) + (distance - sped_up)
    }
}

impl Offsets {
    /// What a timestamp becomes, extended.
    #[inline]
    pub fn timestamp_of(&self, timestamp: u64) -> u64 {
        let timestamp = match self.is_sped_up {
            false => timestamp,
            true => self.speedup.apply(timestamp),
        };
        timestamp.wrapping_add(self.timestamp)
    }

    /// What a packet's sequence number becomes, extended.
    #[inline]
    pub fn seq_of(&self, packet: &PacketMeta) -> u64 {
        packet.folded(self.slot).wrapping_add(self.seq)
    }

    /// By how much what is sent now is earlier because of what was sent sped up.
    fn shortened(&self) -> u64 {
        if !self.is_sped_up || self.speedup.until == u64::MAX {
            return 0;
        }
        let sped_up = self.speedup.until - self.speedup.from;
        sped_up - sped_up / u64::from(SPEEDUP)
    }

    /// The timestamp that becomes this one.
    pub fn source_timestamp(&self, timestamp: u64) -> u64 {
        timestamp.wrapping_sub(self.timestamp)
    }

    /// What a packet's fields become.
    pub fn numbers(&self, packet: &PacketMeta) -> Numbers {
        let vp8 = packet.vp8.as_ref();
        let picture_id = vp8.and_then(|vp8| vp8.picture_id).map_or(0, |id| id.value);
        let tl0 = vp8.and_then(|vp8| vp8.tl0).map_or(0, |(_, tl0)| tl0);
        Numbers {
            seq: self.seq_of(packet) as u16,
            timestamp: self.timestamp_of(packet.timestamp) as u32,
            picture_id: picture_id.wrapping_add(self.picture_id) as u16,
            tl0: tl0.wrapping_add(self.tl0) as u8,
        }
    }
}

/// The newest of everything that was sent.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct Newest {
    picture_id: u64,
    tl0: u64,
    seq: u64,
    timestamp: u64,
    sent_at: Time,
    /// How far the timestamps of the last two packets in order are from those before them.
    steps: [u32; 2],
}

/// What one packet's fields become.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Numbers {
    /// Sequence number on the wire.
    pub seq: u16,
    /// Timestamp on the wire.
    pub timestamp: u32,
    /// Picture id on the wire; means something only for VP8 packets that have one.
    pub picture_id: u16,
    /// TL0PICIDX on the wire; likewise.
    pub tl0: u8,
}

/// What a start knows of the stream it starts on.
#[derive(Clone, Copy, Debug)]
pub struct StartContext {
    /// (encoding, count of restarts) of the packet's stream.
    pub timeline: (u8, u32),
    /// RTP clock in Hz.
    pub clock_rate: u32,
    /// The packet's capture time on the timeline that flowed until now, by the sender reports; `None` if they do not say.
    pub aligned: Option<u64>,
    /// Numbers that stay free for packets that may precede it; only before anything was sent.
    pub reserve: u64,
    /// What follows came long ago, and is sent [`SPEEDUP`] times as fast, until [`Rewriter::end_speedup`].
    pub is_sped_up: bool,
    /// A packet lasts until the next one's timestamp, and pictures do not: what a receiver has twice of sound, it drops.
    pub is_sound: bool,
}

/// What extended sequence numbers are counted from: whole cycles, and far from zero, so that a late packet never goes below it.
const SEQ_BASE: u64 = 1 << 32;

/// The same for timestamps, before the random one that they begin with.
const FIRST_TIMESTAMP: u64 = 1 << 48;

/// And for VP8's counters.
const FIRST_ID: u64 = 1 << 32;

/// Nothing was sent.
pub const NO_TIMELINE: u8 = u8::MAX;

/// How far a sender report may put a packet from where its arrival puts it before it is not believed.
const ALIGNMENT_TOLERANCE_SECS: u64 = 3;

impl Rewriter {
    /// Where the fields lie that every packet needs.
    #[cfg(test)]
    pub(super) const HOT: std::ops::Range<usize> =
        std::mem::offset_of!(Self, offsets.is_sped_up)..std::mem::offset_of!(Self, timeline_of);

    /// RFC 3550 §5.1: sequence numbers and timestamps begin at random values. `before_first`: the number before the first
    /// one, with its rollovers; see `relay/used_indices.rs`. `slot`: what is withheld from the consumer.
    pub fn new(before_first: u64, first_timestamp: u32, slot: u8) -> Self {
        Self {
            offsets: Offsets {
                slot,
                ..Offsets::default()
            },
            // The others are far from zero, too.
            newest: Newest {
                seq: SEQ_BASE + before_first,
                timestamp: FIRST_TIMESTAMP + u64::from(first_timestamp),
                picture_id: FIRST_ID,
                tl0: FIRST_ID,
                sent_at: Time::default(),
                steps: [0; 2],
            },
            timeline_of: None,
            restarts: 0,
        }
    }

    /// Makes the offsets with which `packet` follows what was sent before.
    pub fn start(&mut self, packet: &PacketMeta, now: Time, context: StartContext) {
        self.offsets.seq = (self.newest.seq + 1 + context.reserve).wrapping_sub(packet.folded(self.offsets.slot));
        if let Some(vp8) = &packet.vp8 {
            // Counters that come later go on as well.
            let (upcoming_id, upcoming_tl0) = vp8.upcoming;
            let id = vp8.picture_id.map_or(upcoming_id, |id| id.value);
            let tl0 = vp8.tl0.map_or(upcoming_tl0, |(_, tl0)| tl0);
            self.offsets.picture_id = self.newest.picture_id.wrapping_add(1).wrapping_sub(id);
            self.offsets.tl0 = self.newest.tl0.wrapping_add(1).wrapping_sub(tl0);
        }
        let timestamp = match self.timeline() {
            None => self.newest.timestamp,
            // The same clock goes on: its distance is the true one, also over a pause.
            Some(timeline)
                if timeline == context.timeline
                    && !context.is_sped_up
                    && self.offsets.timestamp_of(packet.timestamp) > self.newest.timestamp =>
            {
                self.offsets.timestamp_of(packet.timestamp)
            }
            Some(_) => self.joined_timestamp(now, context),
        };
        self.offsets.timestamp = timestamp.wrapping_sub(packet.timestamp);
        self.offsets.is_sped_up = context.is_sped_up;
        self.offsets.speedup = Speedup {
            from: packet.timestamp,
            until: u64::MAX,
        };
        let (encoding, restarts) = context.timeline;
        (self.timeline_of, self.restarts) = (Some(encoding), restarts);
    }

    /// The timestamp of the first packet of another timeline: as its sender's reports say, or by the time that went by; and in
    /// any case behind what was sent.
    fn joined_timestamp(&self, now: Time, context: StartContext) -> u64 {
        let elapsed_ns = now.since(self.newest.sent_at).as_nanos();
        let ticks = (elapsed_ns * u128::from(context.clock_rate) / 1_000_000_000) as u64;
        let held = if context.is_sound {
            self.held_ticks(context.clock_rate)
        } else {
            1
        };
        let by_arrival = self.newest.timestamp + ticks.max(held);
        let tolerance = u64::from(context.clock_rate) * ALIGNMENT_TOLERANCE_SECS;
        context
            .aligned
            .map(|aligned| self.offsets.timestamp_of(aligned))
            .filter(|aligned| aligned.abs_diff(by_arrival) <= tolerance)
            .map_or(by_arrival, |aligned| aligned.max(self.newest.timestamp + held))
    }

    /// How much sound the newest packet holds, as far as those before it show: senders that fill packets up have one frame
    /// more in some. What is longer than a second was a pause.
    fn held_ticks(&self, clock_rate: u32) -> u64 {
        let steps = self.newest.steps.into_iter().filter(|step| *step <= clock_rate);
        u64::from(steps.max().unwrap_or(0).max(1))
    }

    /// The packet's numbers under the offsets in force.
    #[inline]
    pub fn rewrite(&mut self, packet: &PacketMeta, now: Time) -> Numbers {
        let seq = self.offsets.seq_of(packet);
        let timestamp = self.offsets.timestamp_of(packet.timestamp);
        let (mut picture_id, mut tl0) = (0, 0);
        if let Some(vp8) = &packet.vp8 {
            if let Some(id) = vp8.picture_id {
                picture_id = id.value.wrapping_add(self.offsets.picture_id);
                self.newest.picture_id = self.newest.picture_id.max(picture_id);
            }
            if let Some((_, value)) = vp8.tl0 {
                tl0 = value.wrapping_add(self.offsets.tl0);
                self.newest.tl0 = self.newest.tl0.max(tl0);
            }
        }
        if seq > self.newest.seq {
            if seq == self.newest.seq + 1 {
                let step = timestamp.saturating_sub(self.newest.timestamp);
                self.newest.steps = [self.newest.steps[1], u32::try_from(step).unwrap_or(u32::MAX)];
            }
            self.newest.seq = seq;
            self.newest.sent_at = now;
        }
        self.newest.timestamp = self.newest.timestamp.max(timestamp);
        Numbers {
            seq: seq as u16,
            timestamp: timestamp as u32,
            picture_id: picture_id as u16,
            tl0: tl0 as u8,
        }
    }

    /// The timeline that what was sent last belongs to, if anything was sent: its encoding, and that one's count of
    /// restarts.
    pub fn timeline(&self) -> Option<(u8, u32)> {
        self.timeline_of.map(|encoding| (encoding, self.restarts))
    }

    /// What a timestamp of that timeline becomes, extended.
    pub fn timestamp_of(&self, timestamp: u64) -> u64 {
        self.offsets.timestamp_of(timestamp)
    }

    /// What comes behind this timestamp of the producer's goes at its own pace again.
    pub fn end_speedup(&mut self, timestamp: u64) {
        let speedup = &mut self.offsets.speedup;
        speedup.until = timestamp.max(speedup.from);
    }

    /// The newest extended timestamp sent, and when the newest packet was.
    pub fn newest_timestamp(&self) -> (u64, Time) {
        (self.newest.timestamp, self.newest.sent_at)
    }

    /// The newest numbers, for a successor.
    #[inline]
    pub fn newest_kept(&self) -> layout::Newest {
        layout::Newest {
            seq: self.newest.seq,
            seq_inverted: !self.newest.seq,
            timestamp: self.newest.timestamp,
            picture_id: self.newest.picture_id,
            tl0: self.newest.tl0,
            sent_at: self.newest.sent_at.0,
            steps: self.newest.steps,
        }
    }

    /// The offsets and the timeline, for a successor, in a record whose other fields are not known here.
    pub fn flow_kept(&self) -> layout::FlowOfConsumer {
        let (timeline, restarts) = self.timeline().unwrap_or((NO_TIMELINE, 0));
        layout::FlowOfConsumer {
            seq: self.offsets.seq,
            timestamp: self.offsets.timestamp.wrapping_sub(self.offsets.shortened()),
            picture_id: self.offsets.picture_id,
            tl0: self.offsets.tl0,
            restarts,
            timeline,
            slot: self.offsets.slot,
            ..layout::FlowOfConsumer::default()
        }
    }

    /// The sequence number of what another one has left, if its numbers can be true.
    ///
    /// # Errors
    /// They cannot.
    pub fn check_kept(newest: &layout::Newest) -> Result<u64, Damaged> {
        let seq = double(newest.seq, newest.seq_inverted)?.ok_or(Damaged("its sequence numbers are not there"))?;
        let can_be = |number: u64, first: u64| (first..first + (1 << 48)).contains(&number);
        let are_possible = can_be(seq, SEQ_BASE)
            && can_be(newest.timestamp, FIRST_TIMESTAMP)
            && can_be(newest.picture_id, FIRST_ID)
            && can_be(newest.tl0, FIRST_ID);
        are_possible
            .then_some(seq)
            .ok_or(Damaged("its newest numbers are none"))
    }

    /// Goes on where another one was, whose numbers were checked; `seq` is what that gave. `withheld`: so many packets of what
    /// flows had been withheld from its consumer.
    pub fn resume(&mut self, seq: u64, newest: &layout::Newest, flow: &layout::FlowOfConsumer, withheld: u64) {
        self.newest = Newest {
            seq,
            timestamp: newest.timestamp,
            picture_id: newest.picture_id,
            tl0: newest.tl0,
            sent_at: Time(newest.sent_at),
            steps: newest.steps,
        };
        self.offsets = Offsets {
            seq: flow.seq.wrapping_sub(withheld),
            slot: self.offsets.slot,
            timestamp: flow.timestamp,
            picture_id: flow.picture_id,
            tl0: flow.tl0,
            speedup: Speedup::default(),
            is_sped_up: false,
        };
        // Who was sent something and waits for another source goes on by the time that went by.
        let was_sent = flow.timeline != NO_TIMELINE || newest.sent_at != 0;
        self.timeline_of = was_sent.then_some(flow.timeline);
        self.restarts = flow.restarts;
    }

    /// What follows is another source's, whose slot says what is withheld.
    pub fn change_source(&mut self, slot: u8) {
        self.forget_clock();
        self.offsets.slot = slot;
    }

    /// The offset of the timestamps means nothing any more: what follows begins by the time that went by.
    pub fn forget_clock(&mut self) {
        self.timeline_of = self.timeline_of.map(|_| NO_TIMELINE);
    }

    /// The slot that says what is withheld from the consumer.
    #[inline]
    pub fn slot(&self) -> u8 {
        self.offsets.slot
    }

    /// The offsets in force.
    pub fn offsets(&self) -> Offsets {
        self.offsets
    }

    /// The newest sequence number sent, extended, as [`Offsets::seq`] makes it; before the first packet, the one before it.
    pub fn newest(&self) -> u64 {
        self.newest.seq
    }

    /// Its SRTP index.
    pub fn newest_index(&self) -> u64 {
        self.newest.seq - SEQ_BASE
    }

    /// The newest extended sequence number sent, if anything was.
    pub fn newest_seq(&self) -> Option<u64> {
        self.timeline_of.map(|_| self.newest.seq - SEQ_BASE)
    }
}

#[cfg(test)]
mod tests {
    use super::super::packet::{PictureIdMeta, Vp8Meta};
    use super::*;

    fn packet(seq: u64, timestamp: u64, picture_id: u64) -> PacketMeta {
        PacketMeta {
            start: 0,
            len: 100,
            seq,
            timestamp,
            encoding: 0,
            payload_type: 96,
            key_frame: true,
            epoch: 0,
            payload_start: 12,
            payload_len: 0,
            padding_added: 0,
            vp8: Some(Vp8Meta {
                picture_id: Some(PictureIdMeta {
                    offset: 2,
                    wide: true,
                    value: picture_id,
                }),
                tl0: Some((4, picture_id)),
                upcoming: (picture_id + 1, picture_id + 1),
            }),
            extension: None,
            withheld: Default::default(),
            first: seq,
            may_be_preceded: false,
            next: u32::MAX,
        }
    }

    fn context(encoding: u8, restarts: u32) -> StartContext {
        StartContext {
            timeline: (encoding, restarts),
            clock_rate: 90_000,
            aligned: None,
            reserve: 0,
            is_sped_up: false,
            is_sound: false,
        }
    }

    #[test]
    fn first_packet_gets_the_first_numbers_and_gaps_come_through() {
        let mut rewriter = Rewriter::new(65_534, u32::MAX, 0);
        let now = Time::from_millis(1);
        rewriter.start(&packet(70_000, 5_000, 10), now, context(0, 0));
        assert_eq!(
            rewriter.rewrite(&packet(70_000, 5_000, 10), now),
            Numbers {
                seq: 65_535,
                timestamp: u32::MAX,
                picture_id: 1,
                tl0: 1
            }
        );
        // 70,001 is lost: its number stays free for it, over the wrap of both.
        assert_eq!(
            rewriter.rewrite(&packet(70_002, 8_000, 12), now),
            Numbers {
                seq: 1,
                timestamp: 2_999,
                picture_id: 3,
                tl0: 3
            }
        );
        assert_eq!(rewriter.rewrite(&packet(70_001, 8_000, 11), now).seq, 0);
    }

    #[test]
    fn a_switch_follows_on_and_moves_the_clock_by_the_time_that_went_by() {
        let mut rewriter = Rewriter::new(99, 1_000, 0);
        let now = Time::from_millis(1_000);
        rewriter.start(&packet(500, 9_000, 77), now, context(0, 0));
        assert_eq!(rewriter.rewrite(&packet(500, 9_000, 77), now).seq, 100);
        let later = Time::from_millis(1_033);
        rewriter.start(&packet(9, 123_456_789, 3), later, context(2, 0));
        assert_eq!(
            rewriter.rewrite(&packet(9, 123_456_789, 3), later),
            Numbers {
                seq: 101,
                timestamp: 1_000 + 33 * 90,
                picture_id: 2,
                tl0: 2
            }
        );
    }

    #[test]
    fn a_switch_follows_the_sender_reports_unless_they_are_absurd() {
        let start = |aligned| {
            let mut rewriter = Rewriter::new(0, 0, 0);
            let now = Time::from_millis(1_000);
            rewriter.start(&packet(500, 9_000, 77), now, context(0, 0));
            rewriter.rewrite(&packet(500, 9_000, 77), now);
            let other = packet(9, 1, 3);
            rewriter.start(
                &other,
                Time::from_millis(1_040),
                StartContext {
                    aligned,
                    ..context(2, 0)
                },
            );
            rewriter.rewrite(&other, Time::from_millis(1_040)).timestamp
        };
        assert_eq!(start(Some(9_000 + 3_000)), 3_000); // captured a thirtieth of a second later
        assert_eq!(start(Some(9_000)), 1); // the same picture: still after what was sent
        assert_eq!(start(Some(9_000 + 90_000 * 60)), 3_600); // a minute off: by arrival
        assert_eq!(start(None), 3_600);
    }

    #[test]
    fn sound_goes_on_where_the_last_packet_ends() {
        for (steps, pause_ms, expected) in [
            (vec![960, 960, 960], 5, 960),
            // Time went by.
            (vec![960, 960, 960], 100, 4_800),
            // Four frames in most packets, three in some.
            (vec![4_096, 4_096, 3_072], 5, 4_096),
            // A pause of two seconds is no packet.
            (vec![960, 960, 96_000], 5, 960),
            // Nothing is known yet.
            (vec![], 5, 240),
        ] {
            let mut rewriter = Rewriter::new(0, 0, 0);
            let now = Time::from_millis(1_000);
            let context = |restarts| StartContext {
                clock_rate: 48_000,
                is_sound: true,
                ..context(0, restarts)
            };
            rewriter.start(&packet(1, 9_000, 1), now, context(0));
            let mut newest = rewriter.rewrite(&packet(1, 9_000, 1), now).timestamp;
            let mut timestamp = 9_000;
            for (seq, step) in (2..).zip(&steps) {
                timestamp += step;
                newest = rewriter.rewrite(&packet(seq, timestamp, 1), now).timestamp;
            }
            let later = Time::from_millis(1_000 + pause_ms);
            rewriter.start(&packet(7, 1 << 20, 1), later, context(1));
            let joined = rewriter.rewrite(&packet(7, 1 << 20, 1), later).timestamp;
            assert_eq!(joined.wrapping_sub(newest), expected, "{steps:?}, {pause_ms} ms");
        }
    }

    #[test]
    fn a_resumption_keeps_the_clock_of_its_stream() {
        let mut rewriter = Rewriter::new(0, 0, 0);
        rewriter.start(&packet(1, 90_000, 1), Time::from_millis(0), context(0, 0));
        rewriter.rewrite(&packet(1, 90_000, 1), Time::from_millis(0));
        // Ten seconds on the sender's clock; 10.2 s by arrival.
        let resumed = packet(400, 990_000, 300);
        rewriter.start(&resumed, Time::from_millis(10_200), context(0, 0));
        assert_eq!(
            rewriter.rewrite(&resumed, Time::from_millis(10_200)),
            Numbers {
                seq: 2,
                timestamp: 900_000,
                picture_id: 2,
                tl0: 2
            }
        );
    }
}
