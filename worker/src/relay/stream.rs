//! One received RTP stream: a producer's encoding, with whatever SSRC carries it now.

use std::time::Duration;

use weir_channel::message::{CodecName, MediaKind, Profile, StreamStats};

use crate::rtp::codec::peek;
use crate::rtp::packet::Header;
use crate::rtp::seq::{Arrival, Seen, SeqExtender, TimestampExtender, WrapExtender};
use crate::time::Time;

use super::keyframe::KeyFramePacer;
use super::nack::MissingList;
use super::packet::{PacketMeta, PictureIdMeta, Vp8Meta};
use super::rate::Rate;
use super::reception::{REORDERED_START_MAX, Reception};
use super::ring::Ring;
use super::rtt::RoundTrip;
use super::sender_clock::distance_of;
use super::slots::ConsumerKey;

/// A sender's clock is not set by a day from one report to the next, nor are two of its streams a day apart.
const ABSURD: Duration = Duration::from_secs(86_400);

/// So many reports in a row that seemed absurd are not: the clock was set.
const ABSURD_BELIEVED: u8 = 3;

/// What a sender report says of time: the same moment on three clocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct TimeReport {
    /// The sender's: NTP time in 32.32 seconds.
    pub ntp: u64,
    /// The media's: the extended RTP timestamp.
    pub timestamp: u64,
    /// Ours, but for the way here.
    pub arrived: Time,
}

/// A stream that has sent nothing for this long is inactive, if another one of its producer still sends (spec §2.8).
pub(super) const INACTIVE_AFTER: Duration = Duration::from_secs(1);

/// How long packets of an SSRC may still come after the sender has gone over to another one. A sender that goes back and
/// forth faster than this is not followed.
const STRAGGLERS_FOR: Duration = Duration::from_secs(1);

/// A stream of a producer.
#[derive(Debug)]
pub(super) struct Stream {
    /// Which profile it is.
    pub profile: Profile,
    /// Its RTP stream id, if it has one.
    pub rid: Option<String>,
    /// What carries it now: given at creation, or learned.
    pub ssrc: Option<u32>,
    /// What carried it before, and until when.
    previous_ssrc: Option<(u32, Time)>,
    /// What carries its retransmissions (RFC 4588): given at creation, or learned.
    pub rtx_ssrc: Option<u32>,
    /// What of it is missing; `None` if its sender sends nothing again.
    pub missing: Option<MissingList>,
    /// Its last packets, while a consumer may ask for them again.
    pub ring: Option<Box<Ring>>,
    /// On offer: packets have come, and lately enough.
    pub available: bool,
    /// When the last packet came.
    pub last_packet: Option<Time>,
    /// When a goodbye has last taken it off the offer.
    pub last_goodbye: Option<Time>,
    /// Counts restarts and resumptions: consumers start anew when it changes.
    pub epoch: u32,
    /// Counts restarts alone: after one, the timestamps are another clock's.
    pub restarts: u32,
    /// Consumers that follow every packet of it, because it flows to them or should.
    pub attached: Vec<ConsumerKey>,
    /// When to ask for key frames.
    pub key_frames: KeyFramePacer,
    /// A timer for `key_frames` is queued.
    pub timer_queued: bool,
    /// The newest sender report that tells a time; `None` also if the newest of all tells none.
    pub sender_report: Option<TimeReport>,
    /// What the newest sender report of all has for an NTP time, which reports back name it by.
    pub reported_ntp: Option<u64>,
    /// Reports in a row whose time is a day or more away from what it should be.
    absurd_reports: u8,
    /// The canonical name that its sender says of itself (RFC 3550 §6.5.1).
    pub cname: Option<Box<str>>,
    /// From here to the sender and back.
    pub round_trip: RoundTrip,
    /// What its sender is told of how it arrives.
    pub reception: Reception,
    /// The same for its retransmissions, which have an SSRC of their own.
    pub rtx_reception: Reception,
    /// The NTP time of the newest sender report on them.
    pub rtx_report: Option<u64>,
    /// For the sequence number of full intra requests (RFC 5104 §4.3.1.1).
    pub fir_seq: u8,
    /// The last packet in the batch's list, to which the next one is linked.
    pub batch_tail: Option<u32>,
    pub(super) seq: SeqExtender,
    seen: Seen,
    timestamp: TimestampExtender,
    picture_id: PictureIds,
    tl0: WrapExtender<8>,
    first_seq: u64,
    pub(super) counters: StreamCounters,
}

#[derive(Debug, Default)]
pub(super) struct StreamCounters {
    pub(super) packets: u64,
    pub(super) bytes: u64,
    pub(super) rate: Rate,
    pub(super) discarded: u64,
    pub(super) duplicated: u64,
    pub(super) unique: u64,
    pub(super) expected_before: u64,
    pub(super) key_frames: u64,
    pub(super) pli: u64,
    pub(super) fir: u64,
    pub(super) paused: u64,
    pub(super) repaired: u64,
    pub(super) rtx_useless: u64,
    pub(super) nacks: u64,
    pub(super) nacked: u64,
    pub(super) not_kept: u64,
}

/// Picture ids have 7 or 15 bits (RFC 7741 §4.2); a sender may begin with the short form.
#[derive(Debug)]
enum PictureIds {
    Short(WrapExtender<7>),
    Long(WrapExtender<15>),
}

/// What a packet is to its stream.
#[derive(Debug)]
pub(super) enum Accepted {
    /// To be relayed.
    Relay(PacketMeta),
    /// Seen before.
    Duplicate,
    /// Not believed.
    BadSequence,
}

impl Stream {
    /// A stream that has not been seen yet.
    pub(super) fn new(profile: Profile, rid: Option<String>, ssrc: Option<u32>) -> Self {
        Self {
            profile,
            rid,
            ssrc,
            previous_ssrc: None,
            rtx_ssrc: None,
            missing: None,
            ring: None,
            available: false,
            last_packet: None,
            last_goodbye: None,
            epoch: 0,
            restarts: 0,
            attached: Vec::new(),
            key_frames: KeyFramePacer::default(),
            timer_queued: false,
            sender_report: None,
            reported_ntp: None,
            absurd_reports: 0,
            cname: None,
            round_trip: RoundTrip::default(),
            reception: Reception::default(),
            rtx_reception: Reception::default(),
            rtx_report: None,
            fir_seq: 0,
            batch_tail: None,
            seq: SeqExtender::default(),
            seen: Seen::default(),
            timestamp: TimestampExtender::default(),
            picture_id: PictureIds::Long(WrapExtender::default()),
            tl0: WrapExtender::default(),
            first_seq: 0,
            counters: StreamCounters::default(),
        }
    }

    /// Whether this SSRC carried the stream until a moment ago.
    pub(super) fn was_carried_by(&self, ssrc: u32, now: Time) -> bool {
        self.previous_ssrc
            .is_some_and(|(previous, until)| previous == ssrc && now.since(until) < STRAGGLERS_FOR)
    }

    /// Another SSRC carries the stream from now on: nothing of its numbers means anything any more.
    pub(super) fn on_new_ssrc(&mut self, now: Time, ssrc: u32) {
        self.counters.expected_before += self.expected_now();
        self.previous_ssrc = self.ssrc.map(|previous| (previous, now));
        self.ssrc = Some(ssrc);
        self.seq = SeqExtender::default();
        self.seen = Seen::default();
        self.on_restart();
    }

    fn on_restart(&mut self) {
        self.epoch = self.epoch.wrapping_add(1);
        self.restarts = self.restarts.wrapping_add(1);
        self.timestamp = TimestampExtender::default();
        self.picture_id = PictureIds::Long(WrapExtender::default());
        self.tl0 = WrapExtender::default();
        self.sender_report = None;
        self.reported_ntp = None;
        self.absurd_reports = 0;
    }

    /// The producer was resumed: consumers start anew on the same clock.
    pub(super) fn on_resume(&mut self) {
        self.epoch = self.epoch.wrapping_add(1);
    }

    /// Takes a packet in: its place in the sequence, its numbers without wrap-around, what its payload says.
    /// `start` is where the packet lies, `bytes` is the packet.
    #[inline]
    pub(super) fn accept(
        &mut self,
        now: Time,
        encoding: u8,
        codec: CodecName,
        header: &Header,
        start: u32,
        bytes: &[u8],
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
        self.counters.bytes += bytes.len() as u64;
        self.counters.rate.add(now, bytes.len() as u64);
        if !self.seen.insert(seq) {
            self.counters.duplicated += 1;
            return Accepted::Duplicate;
        }
        self.count_unique(seq);
        let payload = header.payload(bytes);
        let peek = peek(codec, payload);
        if peek.key_frame {
            self.counters.key_frames += 1;
        }
        let vp8 = peek.vp8.map(|ids| Vp8Meta {
            picture_id: ids.picture_id.map(|id| PictureIdMeta {
                offset: id.offset,
                wide: id.wide,
                value: self.picture_id.extend(id.value, id.wide),
            }),
            tl0: ids
                .tl0_pic_idx
                .map(|tl0| (tl0.offset, self.tl0.extend(u16::from(tl0.value)))),
        });
        Accepted::Relay(PacketMeta {
            start,
            len: bytes.len() as u32,
            seq,
            timestamp: self.timestamp.extend(header.timestamp),
            encoding,
            payload_type: header.payload_type,
            // Sound may be joined anywhere; asking for it would only make `decide` wait.
            key_frame: peek.key_frame || codec.kind() == MediaKind::Audio,
            epoch: self.epoch,
            payload_start: header.payload_start,
            payload_len: header.payload_len,
            vp8,
            extension: header.extension,
            next: u32::MAX,
        })
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

    /// Keeps a sender report, to align streams of one sender; whether it tells a time that is believed.
    ///
    /// A sender without a wall clock says 0 (RFC 3550 §6.4.1), which is no time: its streams are placed by their arrival then. So is
    /// a time no time that is a day away from the last, until it has been said three times: then the clock was set.
    pub(super) fn on_sender_report(&mut self, now: Time, ntp: u64, rtp: u32) -> bool {
        if self.last_packet.is_none() {
            return false;
        }
        self.reported_ntp = Some(ntp);
        if ntp == 0 {
            self.sender_report = None;
            self.absurd_reports = 0;
            return false;
        }
        let is_absurd = |last: TimeReport| {
            let moved = distance_of(now, ntp).abs_diff(distance_of(last.arrived, last.ntp));
            u128::from(moved) >= ABSURD.as_nanos()
        };
        if self.sender_report.is_some_and(is_absurd) {
            self.absurd_reports += 1;
            if self.absurd_reports < ABSURD_BELIEVED {
                return false;
            }
        }
        self.absurd_reports = 0;
        self.sender_report = Some(TimeReport {
            ntp,
            timestamp: self.timestamp.clone().extend(rtp), // a report must not move the clock
            arrived: now,
        });
        true
    }

    fn expected_now(&self) -> u64 {
        self.seq.newest().map_or(0, |newest| newest - self.first_seq + 1)
    }

    /// Its counters; the SSRC is 0 as long as none is known.
    pub(super) fn stats(&self, now: Time) -> StreamStats {
        let counters = &self.counters;
        StreamStats {
            ssrc: self.ssrc.unwrap_or(0),
            profile: self.profile,
            active: self.available,
            packets: counters.packets,
            bytes: counters.bytes,
            bitrate: counters.rate.bitrate(now),
            packets_lost: (counters.expected_before + self.expected_now()).saturating_sub(counters.unique),
            packets_discarded: counters.discarded,
            packets_duplicated: counters.duplicated,
            key_frames: counters.key_frames,
            packets_paused: counters.paused,
            codec: None,
            packets_repaired: counters.repaired,
            rtx_useless: counters.rtx_useless,
            fraction_lost: self.reception.fraction_lost(),
            jitter: self.reception.jitter(),
            round_trip_us: self.round_trip.micros(),
            nack_count: counters.nacks,
            packets_nacked: counters.nacked,
            pli_count: counters.pli,
            fir_count: counters.fir,
            packets_not_kept: counters.not_kept,
        }
    }
}

impl PictureIds {
    fn extend(&mut self, value: u16, wide: bool) -> u64 {
        match (&mut *self, wide) {
            (Self::Long(ids), true) => ids.extend(value),
            (Self::Short(ids), false) => ids.extend(value),
            (_, true) => {
                let mut ids = WrapExtender::default();
                let extended = ids.extend(value);
                *self = Self::Long(ids);
                extended
            }
            (_, false) => {
                let mut ids = WrapExtender::default();
                let extended = ids.extend(value);
                *self = Self::Short(ids);
                extended
            }
        }
    }
}
