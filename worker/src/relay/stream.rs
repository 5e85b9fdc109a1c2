//! One received RTP stream: a producer's encoding, with whatever SSRC carries it now.

use std::time::Duration;

use weir_channel::message::{CodecName, MediaKind, Profile, StreamStats};

use crate::page::Slot;
use crate::rtp::codec::peek;
use crate::rtp::continuity::{Continuity, Known, PacketTiming, Verdict};
use crate::rtp::packet::Header;
use crate::rtp::received::{PayloadDigests, Seen};
use crate::rtp::seq::{Arrival, MAX_MISORDER, MediaClock, SeqExtender, distance};
use crate::time::Time;

use super::gop::{Gop, GopBudget, Responsiveness};
use super::key_frame_assembly::KeyFrameAssembler;
use super::keyframe::KeyFramePacer;
use super::keys::ConsumerKey;
use super::nack::MissingList;
use super::packet::PacketMeta;
use super::rate::Rate;
use super::reception::{REORDERED_START_MAX, Reception};
use super::ring::Ring;
use super::rtt::RoundTrip;
use super::sender_clock::SenderTime;
use super::ssrc_latch::SsrcLatch;
use super::vp8_ids::Vp8Ids;
use super::withheld::{ALL_SLOTS, Counts, InHand, SlotSet, Withheld};

/// A stream that is silent for this long is inactive, if another one of its producer still sends (differences §2.8).
pub(super) const INACTIVE_AFTER: Duration = Duration::from_secs(1);

/// Sound that has not come for this long is over: three comfort packets of DTX could have been lost meanwhile.
const AUDIO_INACTIVE_AFTER: Duration = Duration::from_secs(2);

/// However seldom its pictures came, this much silence is enough while others go on.
const INACTIVE_AFTER_MAX: Duration = Duration::from_secs(5);

/// How long packets of an SSRC may still come after the sender has gone over to another one. A sender that goes back and
/// forth faster than this is not followed.
const STRAGGLERS_FOR: Duration = Duration::from_secs(1);

/// A stream of a producer. What every packet needs comes first, in seven cache lines; see `hot_lines`.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub(super) struct Stream {
    /// Its first bytes are for what goes on with nothing, the others for every packet.
    continuity: Continuity,
    pub(super) first_seq: u64,
    /// Counts restarts and resumptions: consumers start anew when it changes.
    pub epoch: u32,
    /// Counts restarts alone: after one, the timestamps are another clock's.
    pub restarts: u32,
    pub(super) seq: SeqExtender,
    pub(super) clock: MediaClock,
    /// The last packet in the batch's list, to which the next one is linked.
    pub batch_tail: Option<u32>,
    /// The timestamp of `last_media`.
    media_timestamp: u64,
    /// When the last packet came.
    pub last_packet: Option<Time>,
    /// When the last packet came that had something in it and was the newest then.
    pub last_media: Option<Time>,
    /// The longest pause between such pictures, or sounds, of late, in nanoseconds.
    pub(super) cadence_ns: u64,
    /// It can be selected: packets with something in them have come, and lately enough.
    pub available: bool,
    /// Somebody waits for a start, so that what comes is kept until it is complete.
    pub(super) is_awaited: bool,
    /// Something of it is to be kept for a successor.
    pub is_unkept: bool,
    /// It goes on where another worker has left it, and nothing has come yet.
    pub(super) resumes: bool,
    /// Where it is kept.
    pub page: Slot,
    /// What of it is missing; `None` if its sender sends nothing again.
    pub missing: Option<Box<MissingList>>,
    /// Its last packets, while a consumer may ask for them again or may wait for a start.
    pub ring: Option<Box<Ring>>,
    /// Its last group of pictures, while its sender answers none.
    pub gop: Option<Box<Gop>>,
    /// What of it is withheld from consumers, while it has any.
    pub(super) withheld: Option<Box<Withheld>>,
    /// What came under the numbers that were seen.
    digests: PayloadDigests,
    /// Consumers that follow every packet of it, because it flows to them or should.
    pub attached: Vec<ConsumerKey>,
    /// Whether its sender answers key frame requests.
    pub responsiveness: Responsiveness,
    /// How it arrives: what its sender is sent reports of.
    pub reception: Reception,
    pub(super) counters: StreamCounters,
    pub(super) seen: Seen,
    pub(super) vp8_ids: Vp8Ids,

    /// The same as `reception` for its retransmissions, which have an SSRC of their own.
    pub rtx_reception: Reception,
    /// The NTP time of the newest sender report on them.
    pub rtx_report: Option<u64>,
    /// The start that is coming together.
    pub(super) key_frame_assembler: KeyFrameAssembler,
    /// What time its sender says it is.
    pub sender_time: SenderTime,
    /// What vouches for its SSRC.
    pub latch: SsrcLatch,
    /// Its RTP stream id, if it has one.
    pub rid: Option<String>,
    /// The canonical name that its sender says of itself (RFC 3550 §6.5.1).
    pub cname: Option<Box<str>>,
    /// When to ask for key frames.
    pub key_frames: KeyFramePacer,
    /// When a BYE last made it unavailable.
    pub last_bye: Option<Time>,
    /// What carried it before, and until when.
    pub(super) previous_ssrc: Option<(u32, Time)>,
    /// From here to the sender and back.
    pub round_trip: RoundTrip,
    /// What carries it now: given at creation, or learned.
    pub ssrc: Option<u32>,
    /// What carries its retransmissions (RFC 4588): given at creation, or learned.
    pub rtx_ssrc: Option<u32>,
    /// The epoch in which sequence numbers have begun anew.
    pub(super) numbers_since: u32,
    /// What came up to here was another worker's: nothing more is known of it.
    pub(super) unknown_up_to: u64,
    /// Nobody has declared `rtx_ssrc`.
    pub is_rtx_learned: bool,
    /// A timer for `key_frames` is queued.
    pub timer_queued: bool,
    /// For the sequence number of full intra requests (RFC 5104 §4.3.1.1).
    pub fir_seq: u8,
    /// Which profile it is.
    pub profile: Profile,
    /// Where packets of it are held that go on with nothing yet; see `held`.
    pub(super) held: Option<u8>,
}

#[derive(Debug, Default)]
#[repr(C)]
pub(super) struct StreamCounters {
    pub(super) packets: u64,
    pub(super) unique: u64,
    /// Of all packets: bytes in all, and bits per second.
    pub(super) rate: Rate,
    pub(super) discarded: u64,
    pub(super) duplicated: u64,
    pub(super) expected_before: u64,
    pub(super) key_frames: u64,
    pub(super) pli: u64,
    pub(super) fir: u64,
    pub(super) paused: u64,
    pub(super) repaired: u64,
    pub(super) rtx_useless: u64,
    pub(super) nacks: u64,
    pub(super) nacked: u64,
    pub(super) ssrc_changes: u64,
    pub(super) not_kept: u64,
}

/// What a packet is to its stream.
#[derive(Debug)]
pub(super) enum Accepted {
    /// To be relayed.
    Relay(PacketMeta),
    /// It has nothing in it for anybody.
    Padding(PacketMeta),
    /// Seen before.
    Duplicate,
    /// Not believed.
    BadSequence,
}

impl Stream {
    /// Where the fields lie that every packet needs.
    #[cfg(test)]
    pub(super) const HOT: [std::ops::Range<usize>; 4] = {
        use std::mem::offset_of;
        let (reception, counters) = (offset_of!(Self, reception), offset_of!(Self, counters));
        [
            Continuity::HOT.start..offset_of!(Self, responsiveness) + size_of::<u64>(),
            reception..reception + Reception::HOT.end,
            counters..counters + offset_of!(StreamCounters, rate) + Rate::HOT_BYTES,
            offset_of!(Self, seen)..offset_of!(Self, seen) + size_of::<u64>(),
        ]
    };

    /// Of VP8 these too.
    #[cfg(test)]
    pub(super) const HOT_VP8: std::ops::Range<usize> = {
        let ids = std::mem::offset_of!(Self, vp8_ids);
        ids..ids + Vp8Ids::HOT.end
    };

    /// A stream that has not been seen yet.
    pub(super) fn new(profile: Profile, rid: Option<String>, ssrc: Option<u32>) -> Self {
        Self {
            profile,
            rid,
            ssrc,
            latch: SsrcLatch::new(ssrc),
            ..Self::default()
        }
    }

    /// Whether this SSRC carried the stream until just now.
    pub(super) fn was_carried_by(&self, ssrc: u32, now: Time) -> bool {
        self.previous_ssrc
            .is_some_and(|(previous, until)| previous == ssrc && now.since(until) < STRAGGLERS_FOR)
    }

    /// When its sender last went over to another SSRC.
    pub(super) fn last_ssrc_change(&self) -> Option<Time> {
        self.previous_ssrc.map(|(_, until)| until)
    }

    /// Another SSRC carries the stream from now on: nothing of its numbers means anything any more.
    pub(super) fn on_new_ssrc(&mut self, now: Time, ssrc: u32) {
        self.counters.expected_before += self.expected_now();
        self.counters.ssrc_changes += u64::from(self.ssrc.is_some());
        self.previous_ssrc = self.ssrc.map(|previous| (previous, now));
        self.ssrc = Some(ssrc);
        self.latch.on_new_ssrc();
        self.seq = SeqExtender::default();
        self.seen = Seen::default();
        self.unknown_up_to = 0;
        self.resumes = false;
        if let Some(withheld) = &mut self.withheld {
            withheld.on_new_numbers();
        }
        self.continuity = Continuity::default();
        self.held = None;
        self.on_restart();
        self.numbers_since = self.epoch;
    }

    /// What a packet is to what has come so far. Nothing is taken in yet.
    #[inline]
    pub(super) fn judge(&mut self, now: Time, clock_rate: u32, header: &Header, bytes: &[u8]) -> Verdict {
        let near = self.seq.nearest(header.seq);
        let packet = PacketTiming {
            seq: header.seq,
            timestamp: self.clock.shifted(near, header.timestamp),
            at: now,
        };
        let oldest = self.first_seq.max(self.seq.floor());
        let known = || {
            if near + u64::from(REORDERED_START_MAX) < oldest {
                Known::Foreign
            } else if near < oldest || self.seen.is_missing(near) {
                Known::New
            } else if near <= self.unknown_up_to
                || self.digests.get(near) == PayloadDigests::digest(header.timestamp, header.payload(bytes))
            {
                Known::Same
            } else {
                Known::Other
            }
        };
        self.continuity.judge(packet, self.seq.newest_seq(), clock_rate, known)
    }

    /// What is held has waited for long enough. Returns what it is, if that is known without more.
    pub(super) fn resolve_after_wait(&mut self, clock_rate: u32) -> Option<Verdict> {
        self.continuity.resolve_after_wait(self.seq.newest_seq()?, clock_rate)
    }

    /// Where a number lies that is not judged by its timestamp: this far ahead of the newest; `None` if it is too far behind.
    pub(super) fn ahead(&self, seq: u16) -> Option<i32> {
        let ahead = distance(self.seq.newest_seq()?, seq);
        (ahead > -i32::from(MAX_MISORDER)).then_some(ahead)
    }

    /// The sender has started over with this number.
    pub(super) fn start_over(&mut self, seq: u16) {
        self.seq.start_over(seq);
        self.on_restart();
    }

    /// The sender's clock is another one behind the newest packet: so many ticks less. What its reports said of the old one
    /// means nothing any more.
    pub(super) fn change_clock(&mut self, by: u32) {
        let next = self.seq.newest().map_or(0, |newest| newest + 1);
        self.clock.change(next, by);
        self.sender_time.forget();
    }

    /// Whether something has come under a number that is not newer than the newest.
    pub(super) fn has_come(&self, seq: u16) -> bool {
        self.seq.place(seq).is_some_and(|seq| !self.seen.is_missing(seq))
    }

    fn on_restart(&mut self) {
        self.epoch = self.epoch.wrapping_add(1);
        self.is_awaited = true;
        self.key_frame_assembler.on_restart();
        self.restarts = self.restarts.wrapping_add(1);
        self.clock.start_over();
        self.vp8_ids = Vp8Ids::default();
        self.sender_time = SenderTime::default();
    }

    /// The producer was resumed: consumers start anew on the same clock.
    pub(super) fn on_resume(&mut self) {
        self.epoch = self.epoch.wrapping_add(1);
        self.is_awaited = true;
    }

    /// Takes a packet in: its place in the sequence, its numbers without wrap-around, what its payload says.
    /// `start` is where the packet lies, `bytes` is the packet; `withholding`: whom it is withheld from; `is_odd`: its timestamp
    /// fits nothing and moves nothing.
    #[inline]
    #[expect(
        clippy::too_many_arguments,
        reason = "each is another thing that is known of a packet"
    )]
    pub(super) fn accept(
        &mut self,
        now: Time,
        encoding: u8,
        codec: CodecName,
        header: &Header,
        start: u32,
        bytes: &[u8],
        (withholding, is_odd): (SlotSet, bool),
    ) -> Accepted {
        let (seq, restarted) = match self.seq.accept(header.seq) {
            Arrival::InOrder(seq) | Arrival::Late(seq) => (seq, false),
            Arrival::First(seq) => {
                self.first_seq = seq;
                (seq, false)
            }
            Arrival::Restarted(seq) => (seq, true),
            Arrival::Bad => {
                self.counters.discarded += 1;
                return Accepted::BadSequence;
            }
        };
        if restarted {
            self.on_restart();
        }
        self.last_packet = Some(now);
        self.counters.packets += 1;
        self.counters.rate.add(now, bytes.len() as u64);
        if !self.seen.insert(seq) {
            self.counters.duplicated += 1;
            return Accepted::Duplicate;
        }
        self.count_unique(seq);
        let withheld = match &mut self.withheld {
            Some(withheld) => withheld.place(seq, withholding),
            None => Counts::default(),
        };
        let payload = header.payload(bytes);
        self.digests
            .note(seq, PayloadDigests::digest(header.timestamp, payload));
        let timestamp = if is_odd {
            self.clock.extend_unmoved(seq, header.timestamp)
        } else {
            self.clock.extend(seq, header.timestamp)
        };
        let peek = peek(codec, payload);
        let is_intact = !peek.parts.is_empty() && !self.seen.is_missing(seq - 1);
        let assembled = self
            .key_frame_assembler
            .on_packet(codec, seq, timestamp, peek.parts, is_intact);
        if assembled.is_picture {
            self.counters.key_frames += 1;
        }
        let vp8 = peek.vp8.map(|ids| self.vp8_ids.extend(seq, ids));
        let meta = PacketMeta {
            start,
            len: bytes.len() as u32,
            seq,
            timestamp,
            encoding,
            payload_type: header.payload_type,
            // Where a stream may be joined anywhere, asking for it would only make `decide` wait.
            key_frame: assembled.first.is_some() || codec.starts_anywhere(),
            first: assembled.first.unwrap_or(seq),
            may_be_preceded: assembled.may_be_preceded,
            epoch: self.epoch,
            payload_start: header.payload_start,
            payload_len: header.payload_len,
            padding_added: 0,
            vp8,
            extension: header.extension,
            withheld,
            next: u32::MAX,
        };
        if withholding == ALL_SLOTS {
            return Accepted::Padding(meta);
        }
        // Error correction shows nothing either.
        if header.payload_len > 0 && codec != CodecName::VideoCompanion && self.seq.newest() == Some(seq) {
            self.on_media(now, timestamp);
        }
        Accepted::Relay(meta)
    }

    /// A packet has come that is newer than all before, and has something in it: what sends nothing but padding shows nobody
    /// anything, and what comes late belongs to an earlier time.
    #[inline]
    fn on_media(&mut self, now: Time, timestamp: u64) {
        // The longest pause of late, forgotten by an eighth with each picture, in however many packets it comes.
        if self.media_timestamp != timestamp {
            let pause = self.last_media.map_or(Duration::ZERO, |last| now.since(last));
            self.cadence_ns = (pause.as_nanos() as u64).max(self.cadence_ns - self.cadence_ns / 8);
            self.media_timestamp = timestamp;
        }
        self.responsiveness.on_media(self.last_media);
        self.last_media = Some(now);
    }

    /// Two of its longest pauses of late, and no more than is enough.
    fn patience(&self) -> Duration {
        Duration::from_nanos(self.cadence_ns.saturating_mul(2)).min(INACTIVE_AFTER_MAX)
    }

    /// Whether it has sent nothing since a BYE of its sender, or nothing at all.
    pub(super) fn is_over(&self) -> bool {
        let bye = self.latch.bye;
        self.last_packet.is_none_or(|last| bye.is_some_and(|bye| last <= bye))
    }

    /// Whether it has shown nothing for long. Sound pauses when nobody speaks, but not for so long: with DTX, Opus sends a packet
    /// in 400 ms (RFC 7587 §3.1.3 leaves the time to the sender; this is what libopus does).
    pub(super) fn is_silent(&self, now: Time, kind: MediaKind) -> bool {
        self.silent_from(kind).is_none_or(|from| now >= from)
    }

    /// From when on it is silent, if nothing more comes; `None` if nothing has come.
    pub(super) fn silent_from(&self, kind: MediaKind) -> Option<Time> {
        let least = match kind {
            MediaKind::Audio => AUDIO_INACTIVE_AFTER,
            MediaKind::Video => INACTIVE_AFTER,
        };
        Some(self.last_media? + least.max(self.patience()))
    }

    /// Whether it has shown nothing while others of its producer, the newest of whose media is `others`, went on. Screens that
    /// send a picture in a second have pauses of a second on every layer, and one layer is always the first: so a layer is
    /// compared with the others and not with the clock, and one whose pauses are long is given two of them.
    pub(super) fn has_fallen_behind(&self, others: Option<Time>) -> bool {
        others.is_some_and(|others| self.behind_from().is_none_or(|from| others >= from))
    }

    /// The time from which on it has fallen behind what comes on others, if nothing comes on it; `None` if nothing has come.
    pub(super) fn behind_from(&self) -> Option<Time> {
        Some(self.last_media? + INACTIVE_AFTER.max(self.patience()))
    }

    /// Counts a packet that has come for the first time. A start in another order than the sending reaches a few packets
    /// back; a straggler from further back is not of what is counted here.
    #[inline]
    fn count_unique(&mut self, seq: u64) {
        if seq < self.first_seq {
            if self.first_seq - seq > u64::from(REORDERED_START_MAX) {
                return;
            }
            self.first_seq = seq;
        }
        self.counters.unique += 1;
    }

    /// Whether a packet has not come that is given by its number on the wire, and would be taken in if it came now.
    pub(super) fn lacks(&self, seq: u16) -> bool {
        self.seq.place(seq).is_some_and(|seq| self.is_missing(seq))
    }

    /// Whether a packet of the present epoch, given by its extended number, has not come. What was before the first one is
    /// not missing.
    pub(super) fn is_missing(&self, seq: u64) -> bool {
        seq >= self.first_seq && self.seen.is_missing(seq)
    }

    /// The packet of a segment's epoch that goes out under a number to the consumers of a slot, by its number without what is
    /// withheld from them; `None` when numbers have begun again since.
    pub(super) fn source(&self, epoch: u32, slot: u8, folded: u64) -> Option<u64> {
        // Epochs wrap around after 2³² resumptions of a producer; a segment is not that old.
        let is_of_these_numbers = epoch.wrapping_sub(self.numbers_since).cast_signed() >= 0;
        match &self.withheld {
            Some(withheld) if is_of_these_numbers => Some(withheld.source(slot, folded)),
            Some(withheld) if !withheld.is_empty() => None,
            _ => Some(folded),
        }
    }

    /// Whether a number of a segment's epoch stays free in a slot, though nothing was lost.
    pub(super) fn is_hole(&self, epoch: u32, slot: u8, seq: u64) -> bool {
        epoch == self.epoch
            && self
                .withheld
                .as_ref()
                .is_some_and(|withheld| withheld.is_hole(slot, seq))
    }

    /// Consumers withhold packets in a slot from now on.
    pub(super) fn open_slot(&mut self, slot: u8) {
        self.withheld.get_or_insert_default().open(slot);
    }

    /// What is withheld in a slot goes on as the last worker has left it.
    pub(super) fn resume_withheld(&mut self, slot: u8, left: InHand) {
        if let Some(withheld) = &mut self.withheld {
            withheld.resume(slot, left);
        }
    }

    /// Keeps its last group of pictures, or ceases to, by whether its sender answers requests. `is_lone`: its producer has no
    /// other stream.
    pub(super) fn refresh_gop(&mut self, is_lone: bool, gops: &mut GopBudget) {
        match (&self.gop, self.responsiveness.is_unresponsive() && is_lone) {
            (None, true) if gops.kept < gops.max => {
                self.gop = Some(Box::default());
                gops.kept += 1;
            }
            (Some(_), false) => {
                self.gop = None;
                gops.kept -= 1;
            }
            _ => {}
        }
    }

    /// What is kept of it was counted otherwise than what comes now.
    pub(super) fn forget_kept(&mut self) {
        self.ring = self.ring.take().map(|_| Box::default());
        self.gop = self.gop.take().map(|_| Box::default());
    }

    /// Keeps a sender report, to align streams of one sender; returns whether its time is believed.
    pub(super) fn on_sender_report(&mut self, now: Time, ntp: u64, rtp: u32) -> bool {
        let timestamp = self.clock.read(rtp); // a report must not move the clock
        self.last_packet.is_some() && self.sender_time.on_report(now, ntp, timestamp)
    }

    fn expected_now(&self) -> u64 {
        self.seq.newest().map_or(0, |newest| newest - self.first_seq + 1)
    }

    /// Packets that were expected and have not come.
    pub(super) fn lost(&self) -> u64 {
        (self.counters.expected_before + self.expected_now()).saturating_sub(self.counters.unique)
    }

    /// So many were lost so far.
    pub(super) fn resume_lost(&mut self, lost: u64) {
        let expected = self.expected_now();
        self.counters.expected_before = lost.saturating_sub(expected);
        self.counters.unique = expected.saturating_sub(lost);
    }

    /// Its counters; the SSRC is 0 as long as none is known.
    pub(super) fn stats(&self, now: Time, kind: MediaKind) -> StreamStats {
        let counters = &self.counters;
        StreamStats {
            ssrc: self.ssrc.unwrap_or(0),
            profile: self.profile,
            active: self.available && !self.is_silent(now, kind),
            packets: counters.packets,
            bytes: counters.rate.total(),
            bitrate: counters.rate.bitrate(now),
            packets_lost: self.lost(),
            packets_discarded: counters.discarded,
            packets_duplicated: counters.duplicated,
            key_frames: counters.key_frames,
            packets_paused: counters.paused,
            packets_repaired: counters.repaired,
            rtx_useless: counters.rtx_useless,
            fraction_lost: self.reception.fraction_lost(),
            jitter: self.reception.jitter(),
            round_trip_us: self.round_trip.micros(),
            nack_count: counters.nacks,
            packets_nacked: counters.nacked,
            pli_count: counters.pli,
            fir_count: counters.fir,
            payload_type: self.reception.payload_type(),
            ssrc_changes: counters.ssrc_changes,
            packets_not_kept: counters.not_kept,
            ..StreamStats::default()
        }
    }
}
