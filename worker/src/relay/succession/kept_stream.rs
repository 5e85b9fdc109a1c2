//! What is kept of a stream, and how it goes on from there.

use weir_channel::message::MediaKind;

use crate::page::Page;
use crate::page::layout::{FoldedOfStream, StreamCounts, StreamPosition, flags, stream};
use crate::page::predecessor::Damaged;
use crate::rtp::received::Seen;
use crate::rtp::seq::{ClockPosition, MediaClock, SeqExtender};
use crate::time::Time;

use super::super::keyframe::KeyFramePacer;
use super::super::rate::Rate;
use super::super::reception::Reception;
use super::super::sender_clock::TimeReport;
use super::super::stream::Stream;
use super::super::vp8_ids::Vp8Ids;

/// What is left of a stream.
pub(in super::super) struct StreamLegacy {
    pub(super) position: StreamPosition,
    pub(super) counts: StreamCounts,
}

impl StreamPosition {
    fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    pub(super) fn ssrc(&self) -> Option<u32> {
        self.has(flags::SSRC).then_some(self.ssrc)
    }

    pub(super) fn rtx_ssrc(&self) -> Option<u32> {
        self.has(flags::RTX_SSRC).then_some(self.rtx_ssrc)
    }

    /// Whether it can be true: extended numbers grow by packets, and no stream has had so many.
    pub(super) fn check(&self) -> Result<(), Damaged> {
        const MAX: u64 = 1 << 56;
        let are_ordered = self.floor <= self.newest.saturating_add(1) && self.first <= self.newest.saturating_add(1);
        let are_possible = [self.newest, self.clock, self.changed_at]
            .iter()
            .all(|number| *number < MAX);
        if self.flags & !flags::ALL != 0 || !are_ordered || !are_possible {
            return Err(Damaged("its position is none"));
        }
        Ok(())
    }
}

impl Stream {
    /// Something of it has changed that is to be kept when what it brought has left. Whether it is to be noted for that: it is kept
    /// somewhere, and was not noted yet.
    #[inline]
    pub(in super::super) fn becomes_unkept(&mut self) -> bool {
        !self.page.is_none() && !std::mem::replace(&mut self.is_unkept, true)
    }

    /// Keeps how far it was received.
    pub(in super::super) fn keep_position(&self, page: &Page) {
        if !self.page.is_none() {
            page.store_twin(self.page, stream::POSITION, &self.position());
        }
    }

    /// Keeps what of it was withheld, if that is new: before anything is sent that came behind it.
    #[inline]
    pub(in super::super) fn keep_folded(&mut self, page: &Page) {
        let folded = self.withheld.as_mut().and_then(|withheld| withheld.take_unkept());
        if let Some(folded) = folded
            && !self.page.is_none()
        {
            let record = FoldedOfStream {
                numbers_since: self.numbers_since,
                ..folded
            };
            page.store_twin(self.page, stream::FOLDED, &record);
        }
    }

    /// Keeps the counters.
    pub(in super::super) fn keep_counters(&self, page: &Page) {
        if self.page.is_none() {
            return;
        }
        let counters = &self.counters;
        let record = StreamCounts {
            packets: counters.packets,
            bytes: counters.rate.total(),
            lost: self.lost(),
            discarded: counters.discarded,
            duplicated: counters.duplicated,
            key_frames: counters.key_frames,
            pli: counters.pli,
            fir: counters.fir,
            paused: counters.paused,
            repaired: counters.repaired,
            rtx_useless: counters.rtx_useless,
            nacks: counters.nacks,
            nacked: counters.nacked,
            ssrc_changes: counters.ssrc_changes,
            not_kept: counters.not_kept,
        };
        page.store(self.page, stream::COUNTERS, &record);
    }

    fn position(&self) -> StreamPosition {
        let (asked_at, repeats) = self.key_frames.last();
        let (clock, report) = (self.clock.position(), self.sender_time.report);
        let [picture_id, picture_id_before, tl0] = self.vp8_ids.places();
        let flag = |is_set: bool, flag: u32| if is_set { flag } else { 0 };
        StreamPosition {
            ssrc: self.ssrc.unwrap_or(0),
            rtx_ssrc: self.rtx_ssrc.unwrap_or(0),
            previous_ssrc: self.previous_ssrc.map_or(0, |(ssrc, _)| ssrc),
            flags: flag(self.ssrc.is_some(), flags::SSRC)
                | flag(self.rtx_ssrc.is_some(), flags::RTX_SSRC)
                | flag(self.is_rtx_learned, flags::RTX_LEARNED)
                | flag(self.previous_ssrc.is_some(), flags::PREVIOUS)
                | flag(self.available, flags::AVAILABLE)
                | flag(self.latch.is_by_payload_type, flags::LATCHED)
                | flag(self.latch.is_doubtful, flags::DOUBTFUL)
                | flag(self.key_frames.is_wanted(), flags::KEY_FRAME_WANTED)
                | flag(asked_at.is_some(), flags::KEY_FRAME_ASKED)
                | flag(report.is_some(), flags::REPORT)
                | flag(self.sender_time.newest_ntp.is_some(), flags::NEWEST_REPORT)
                | flag(self.rtx_report.is_some(), flags::RTX_REPORT),
            previous_until: self.previous_ssrc.map_or(0, |(_, until)| until.0),
            newest: self.seq.newest().unwrap_or(0),
            floor: self.seq.floor(),
            newest_wire: self.seq.newest_seq().unwrap_or(0),
            fir_seq: self.fir_seq,
            repeats,
            cadence_ms: u32::try_from(self.cadence_ns / 1_000_000).unwrap_or(u32::MAX),
            clock: clock.newest,
            shift: clock.shift,
            shift_before: clock.shift_before,
            changed_at: clock.changed_at,
            picture_id,
            picture_id_before,
            tl0,
            first: self.first_seq,
            epoch: self.epoch,
            restarts: self.restarts,
            numbers_since: self.numbers_since,
            spare: 0,
            asked_at: asked_at.map_or(0, |at| at.0),
            report_ntp: report.map_or(0, |report| report.ntp),
            report_timestamp: report.map_or(0, |report| report.timestamp),
            report_arrived: report.map_or(0, |report| report.arrived.0),
            newest_ntp: self.sender_time.newest_ntp.unwrap_or(0),
            rtx_report: self.rtx_report.unwrap_or(0),
            withheld: self.withheld.as_ref().map_or([0; 4], |withheld| withheld.counts()),
            reception: self.reception.kept(),
            rtx_reception: self.rtx_reception.kept(),
        }
    }

    /// Goes on where its last worker has left it. `ssrcs`: those of it and of its retransmissions that nobody else has.
    pub(super) fn resume(&mut self, now: Time, legacy: &StreamLegacy, [ssrc, rtx_ssrc]: [Option<u32>; 2]) {
        let (kept, counts) = (&legacy.position, &legacy.counts);
        if ssrc.is_some() {
            self.ssrc = ssrc;
        }
        if rtx_ssrc.is_some() {
            self.rtx_ssrc = rtx_ssrc;
            self.is_rtx_learned = kept.has(flags::RTX_LEARNED);
        }
        self.previous_ssrc = kept
            .has(flags::PREVIOUS)
            .then_some((kept.previous_ssrc, Time(kept.previous_until)));
        self.latch.is_by_payload_type = kept.has(flags::LATCHED);
        self.latch.is_doubtful = kept.has(flags::DOUBTFUL);
        self.epoch = kept.epoch;
        self.restarts = kept.restarts;
        self.numbers_since = kept.numbers_since;
        self.fir_seq = kept.fir_seq;
        let asked_at = kept.has(flags::KEY_FRAME_ASKED).then_some(Time(kept.asked_at));
        self.key_frames = KeyFramePacer::resumed(asked_at, kept.has(flags::KEY_FRAME_WANTED), kept.repeats);
        if kept.newest != 0 {
            self.seq = SeqExtender::resumed(kept.newest, kept.newest_wire, kept.floor);
            self.seen = Seen::all_up_to(kept.newest);
            self.unknown_up_to = kept.newest;
            self.first_seq = kept.first;
            self.clock = MediaClock::resumed(ClockPosition {
                newest: kept.clock,
                shift: kept.shift,
                shift_before: kept.shift_before,
                changed_at: kept.changed_at,
            });
            self.vp8_ids = Vp8Ids::resumed([kept.picture_id, kept.picture_id_before, kept.tl0]);
            if let Some(missing) = &mut self.missing {
                missing.resume(kept.newest, kept.restarts);
            }
            // Nothing can have come meanwhile; so it has not been silent either.
            self.available = kept.has(flags::AVAILABLE);
            self.last_packet = Some(now);
            self.last_media = self.available.then_some(now);
            self.cadence_ns = u64::from(kept.cadence_ms) * 1_000_000;
            self.resumes = true;
        }
        self.sender_time.report = kept.has(flags::REPORT).then_some(TimeReport {
            ntp: kept.report_ntp,
            timestamp: kept.report_timestamp,
            arrived: Time(kept.report_arrived),
        });
        self.sender_time.newest_ntp = kept.has(flags::NEWEST_REPORT).then_some(kept.newest_ntp);
        self.rtx_report = kept.has(flags::RTX_REPORT).then_some(kept.rtx_report);
        self.reception = Reception::resumed(&kept.reception);
        self.rtx_reception = Reception::resumed(&kept.rtx_reception);

        let own = &mut self.counters;
        own.packets = counts.packets;
        own.rate = Rate::resumed(counts.bytes);
        own.discarded = counts.discarded;
        own.duplicated = counts.duplicated;
        own.key_frames = counts.key_frames;
        own.pli = counts.pli;
        own.fir = counts.fir;
        own.paused = counts.paused;
        own.repaired = counts.repaired;
        own.rtx_useless = counts.rtx_useless;
        own.nacks = counts.nacks;
        own.nacked = counts.nacked;
        own.ssrc_changes = counts.ssrc_changes;
        own.not_kept = counts.not_kept;
        self.resume_lost(counts.lost);
    }

    /// The first packet since it was taken over has come: whether something was lost in between for which its sender cannot
    /// be asked.
    #[inline]
    pub(in super::super) fn misses_for_good(&mut self, kind: MediaKind) -> bool {
        if !std::mem::take(&mut self.resumes) {
            return false;
        }
        let behind = self.unknown_up_to;
        kind == MediaKind::Video
            && self.missing.is_none()
            && self.seq.newest().is_some_and(|newest| newest > behind + 1)
    }
}
