//! What of the relay's objects is kept in the [page](crate::page), and how a successor takes it over.
//!
//! Commands make the objects again, with their requests; what follows from packets comes from the page of the worker that is
//! dead. An object of which the page knows nothing is new. What the page says and cannot be true makes the command fail.
//!
//! What a consumer may have been sent is never used again: its flow goes on behind the newest number in the page. A stream goes on
//! behind the last batch that was relayed wholly; what was under way counts as not received, and is asked for again.

use std::sync::Arc;

use weir_channel::id::{RoomId, TransportId};
use weir_channel::message::{CreateConsumer, CreateProducer, MediaKind, Remote, WorkerError};

use crate::page::Page;
use crate::page::layout::{
    ConsumerCounters, FlowOfConsumer, Newest, RemoteOfTransport, StreamCounts, StreamPosition, Table, TransportCounts,
    consumer, flags, stream, transport,
};
use crate::page::predecessor::{Damaged, Predecessor};
use crate::rtp::received::Seen;
use crate::rtp::seq::{ClockPosition, MediaClock, SeqExtender};
use crate::time::Time;

use super::Relay;
use super::consumer::Consumer;
use super::keyframe::KeyFramePacer;
use super::keys::{ConsumerKey, ProducerKey, TransportKey};
use super::parameters::invalid;
use super::producer::{Producer, ProducerCounters};
use super::reception::Reception;
use super::rewrite::{NO_TIMELINE, Rewriter};
use super::sender_clock::TimeReport;
use super::stream::Stream;
use super::transport::Transport;
use super::vp8_ids::Vp8Ids;

/// No encoding, in a byte.
const NONE: u8 = u8::MAX;

/// A consumer's newest packet is from no further before or behind its stream's newest than this, or the two pages of memory have
/// nothing to do with each other: what a stream takes for a loss, and more than a batch.
const APART_MAX: u64 = 4_096;

/// And its newest timestamp no further from its stream's.
const CLOCK_APART_MAX: u64 = 1 << 33;

/// What is left of a consumer.
pub(super) struct ConsumerLegacy {
    /// Its newest sequence number.
    seq: u64,
    newest: Newest,
    again: Option<u64>,
    flow: FlowOfConsumer,
    counters: ConsumerCounters,
    /// Packets of what flows that were withheld from it; `None`: nothing is known of that stream.
    withheld: Option<u64>,
}

/// What is left of a stream.
pub(super) struct StreamLegacy {
    position: StreamPosition,
    counts: StreamCounts,
}

impl Relay {
    /// From now on what a successor needs is kept there. To be called before anything is made.
    pub fn set_page(&mut self, page: Page) {
        self.page = page;
    }

    /// A room's objects are about to be made again, whose last worker has left this page.
    pub fn begin_adoption(&mut self, room: RoomId, page: Arc<Predecessor>) {
        self.predecessors.insert(room, page);
    }

    /// They have been.
    pub fn end_adoption(&mut self, room: RoomId) {
        self.predecessors.remove(&room);
    }

    /// What the last worker has left of a consumer.
    pub(super) fn consumer_legacy(
        &self,
        now: Time,
        request: &CreateConsumer,
    ) -> Result<Option<ConsumerLegacy>, WorkerError> {
        let Some(page) = self.predecessors.get(&request.room) else {
            return Ok(None);
        };
        let Some(slot) = page.find(Table::Consumers, request.consumer.0, 0) else {
            return Ok(None);
        };
        let read = || -> Result<_, Damaged> {
            if page.detail(slot) != detail_of(request) {
                return Err(Damaged("its SSRCs are others"));
            }
            let Some(flow) = page.twin(slot, consumer::FLOW)? else {
                // It was about to be made, and nobody has been told of it.
                return Ok(None);
            };
            let mut newest = page.record(slot, consumer::NEWEST);
            let seq = Rewriter::check_kept(&newest)?;
            newest.sent_at = newest.sent_at.min(now.0);
            let again = page.double(slot, consumer::AGAIN)?;
            if again.is_some_and(|again| again >= 1 << 48) {
                return Err(Damaged("its last number sent again is none"));
            }
            let streams = self.producer_of_id.get(&request.producer);
            let streams = streams.map_or(0, |key| self.producers[*key].streams.len());
            let is_there = |encoding: u8| encoding == NONE || usize::from(encoding) < streams;
            if ![flow.timeline, flow.current, flow.effective].into_iter().all(is_there) || flow.slot > 3 {
                return Err(Damaged("it was sent a stream that its producer has not got"));
            }
            let stream = page.find(Table::Streams, request.producer.0, u64::from(flow.current));
            let withheld = match stream {
                Some(stream) => page
                    .twin(stream, stream::POSITION)?
                    .map(|position| position.withheld[usize::from(flow.slot)]),
                None => None,
            };
            Ok(Some(ConsumerLegacy {
                seq,
                newest,
                again,
                flow,
                counters: page.counters(slot, consumer::COUNTERS),
                withheld,
            }))
        };
        read().map_err(|damaged| invalid(format!("{}: {damaged}", request.consumer)))
    }

    /// Gives a consumer that was just made its place in the page, and what the last worker has left of it. Nothing flows yet.
    pub(super) fn keep_new_consumer(
        &mut self,
        key: ConsumerKey,
        request: &CreateConsumer,
        legacy: Option<ConsumerLegacy>,
    ) {
        let consumer = &mut self.consumers[key];
        let producer = &self.producers[consumer.producer];
        if let Some(legacy) = legacy {
            consumer.resume(&legacy, producer);
        }
        consumer.page = self.page.take(Table::Consumers, request.consumer.0, detail_of(request));
        consumer.keep_newest(&self.page);
        if let Some(rtx) = consumer.repair.as_ref().and_then(|repair| repair.rtx.as_ref()) {
            self.page.store_double(consumer.page, consumer::AGAIN, rtx.seq);
        }
        consumer.keep_counters(&self.page, &producer.counters);
        // This last: it makes the record whole.
        consumer.keep_flow(&self.page);
    }

    /// What the last worker has left of a producer's streams, lowest profile first.
    pub(super) fn stream_legacies(
        &self,
        now: Time,
        request: &CreateProducer,
    ) -> Result<Vec<Option<StreamLegacy>>, WorkerError> {
        let Some(page) = self.predecessors.get(&request.room) else {
            return Ok(Vec::new());
        };
        let read = |encoding: usize| -> Result<_, Damaged> {
            let Some(slot) = page.find(Table::Streams, request.producer.0, encoding as u64) else {
                return Ok(None);
            };
            let Some(mut position) = page.twin::<StreamPosition>(slot, stream::POSITION)? else {
                return Ok(None);
            };
            position.check()?;
            // Nothing has happened later than now.
            for time in [
                &mut position.previous_until,
                &mut position.asked_at,
                &mut position.report_arrived,
            ] {
                *time = (*time).min(now.0);
            }
            let counts = page.counters(slot, stream::COUNTERS);
            Ok(Some(StreamLegacy { position, counts }))
        };
        (0..request.encodings.len())
            .map(|encoding| read(encoding).map_err(|damaged| invalid(format!("{}: {damaged}", request.producer))))
            .collect()
    }

    /// Gives the streams of a producer that was just made their places in the page, and what the last worker has left of them.
    pub(super) fn keep_new_producer(&mut self, now: Time, key: ProducerKey, legacies: Vec<Option<StreamLegacy>>) {
        let producer = &mut self.producers[key];
        let transport = &mut self.transports[producer.transport];
        let mut legacies = legacies.into_iter();
        for (encoding, stream) in producer.streams.iter_mut().enumerate() {
            if let Some(legacy) = legacies.next().flatten() {
                let free = |ssrc: u32| {
                    let owners = [transport.ssrcs.get(&ssrc), transport.rtx_ssrcs.get(&ssrc)];
                    let is_own = |owner: &(ProducerKey, u8)| *owner == (key, encoding as u8);
                    owners.into_iter().flatten().all(is_own) && !transport.has_consumer(ssrc) && ssrc != self.ssrc
                };
                let ssrcs =
                    [legacy.position.ssrc(), legacy.position.rtx_ssrc()].map(|ssrc| ssrc.filter(|ssrc| free(*ssrc)));
                for known in [stream.ssrc, stream.rtx_ssrc].into_iter().flatten() {
                    transport.ssrcs.remove(&known);
                    transport.rtx_ssrcs.remove(&known);
                }
                stream.resume(now, &legacy, ssrcs);
                if let Some(ssrc) = stream.ssrc {
                    transport.ssrcs.insert(ssrc, (key, encoding as u8));
                }
                if let Some(ssrc) = stream.rtx_ssrc {
                    transport.rtx_ssrcs.insert(ssrc, (key, encoding as u8));
                }
            }
            stream.page = self.page.take(Table::Streams, producer.id.0, encoding as u64);
            stream.keep_counters(&self.page);
            stream.keep_position(&self.page);
        }
        producer.is_active = producer.streams.iter().any(|stream| stream.last_media.is_some());
    }

    /// What the last worker has left of a transport.
    pub(super) fn transport_legacy(
        &self,
        now: Time,
        room: RoomId,
        id: TransportId,
    ) -> Result<Option<(Option<RemoteOfTransport>, TransportCounts)>, WorkerError> {
        let Some(page) = self.predecessors.get(&room) else {
            return Ok(None);
        };
        let Some(slot) = page.find(Table::Transports, id.0, 0) else {
            return Ok(None);
        };
        let mut remote = page
            .twin::<RemoteOfTransport>(slot, transport::REMOTE)
            .map_err(|damaged| invalid(format!("{id}: {damaged}")))?;
        if let Some(remote) = &mut remote {
            remote.relearned_at = remote.relearned_at.min(now.0);
        }
        Ok(Some((remote, page.counters(slot, transport::COUNTERS))))
    }

    /// Gives a transport that was just made its place in the page, and what the last worker has left of it.
    pub(super) fn keep_new_transport(
        &mut self,
        key: TransportKey,
        legacy: Option<(Option<RemoteOfTransport>, TransportCounts)>,
    ) {
        let transport = &mut self.transports[key];
        if let Some((remote, counts)) = legacy {
            transport.resume(remote, &counts);
        }
        transport.page = self.page.take(Table::Transports, transport.id.0, 0);
        transport.keep_counters(&self.page);
        transport.keep_remote(&self.page);
    }

    /// A stream is to be kept when what is being done is done.
    #[inline]
    pub(super) fn keep_later(&mut self, key: ProducerKey, encoding: u8) {
        let stream = &mut self.producers[key].streams[usize::from(encoding)];
        if !stream.page.is_none() && !std::mem::replace(&mut stream.is_unkept, true) {
            self.unkept.push((key, encoding));
        }
    }

    /// Keeps the streams of which something has come, or that were asked for something.
    #[inline]
    pub(super) fn keep_streams(&mut self) {
        while let Some((key, encoding)) = self.unkept.pop() {
            if let Some(producer) = self.producers.get_mut(key) {
                let stream = &mut producer.streams[usize::from(encoding)];
                stream.is_unkept = false;
                stream.keep_position(&self.page);
            }
        }
    }

    /// A producer is gone, and nothing of it is kept any more.
    pub(super) fn forget_kept_streams(&mut self, producer: &Producer) {
        for stream in &producer.streams {
            self.page.leave(Table::Streams, stream.page);
        }
    }
}

impl Consumer {
    /// Keeps the newest numbers: before packets are sent under them.
    #[inline]
    pub(super) fn keep_newest(&self, page: &Page) {
        if !self.page.is_none() {
            page.store(self.page, consumer::NEWEST, &self.rewriter.newest_kept());
        }
    }

    /// Keeps what flows: whenever it changes, and before anything is sent then.
    pub(super) fn keep_flow(&self, page: &Page) {
        if self.page.is_none() {
            return;
        }
        let flow = &self.flow;
        let record = FlowOfConsumer {
            epoch: flow.epoch,
            current: flow.current.unwrap_or(NONE),
            effective: self.effective.unwrap_or(NONE),
            // Who catches up with what came long ago has to begin again.
            sync_required: u8::from(flow.sync_required || flow.is_catching_up),
            paused: u8::from(self.paused),
            again_begun: u8::from(self.begun_rtx_ssrc().is_some()),
            notified: u8::from(self.last_notified.is_some()),
            ..self.rewriter.flow_kept()
        };
        page.store_twin(self.page, consumer::FLOW, &record);
    }

    /// Keeps the counters.
    pub(super) fn keep_counters(&mut self, page: &Page, counters: &ProducerCounters) {
        if self.page.is_none() {
            return;
        }
        self.update_counters(counters);
        let (repaired, repaired_bytes, not_repaired) = self
            .repair
            .as_ref()
            .map(|repair| (repair.packets, repair.bytes, repair.refused()))
            .unwrap_or_default();
        let record = ConsumerCounters {
            forwarded: self.forwarded,
            bytes: self.bytes,
            dropped: self.dropped,
            switches: self.switches,
            pli: self.pli_count,
            fir: self.fir_count,
            nack: self.nack_count,
            repaired,
            repaired_bytes,
            not_repaired,
            sent_packets: self.transmission.packets,
            sent_octets: self.transmission.octets,
            payload_type: u64::from(self.transmission.payload_type),
        };
        page.store(self.page, consumer::COUNTERS, &record);
    }

    /// Goes on where its last worker has left it: without a start, if the stream that flowed goes on, too.
    fn resume(&mut self, legacy: &ConsumerLegacy, producer: &Producer) {
        let (kept, counters) = (&legacy.flow, &legacy.counters);
        self.rewriter
            .resume(legacy.seq, &legacy.newest, kept, legacy.withheld.unwrap_or(0));
        let newest = self.rewriter.newest();
        let offsets = self.rewriter.offsets();
        let flow = &mut self.flow;
        flow.current = Some(kept.current).filter(|current| *current != NONE);
        flow.epoch = kept.epoch;
        // What may have been sent is not sent again.
        flow.first_seq = (newest + 1).wrapping_sub(offsets.seq);
        flow.early_seq = u64::MAX;
        let stream = flow.current.map(|current| &producer.streams[usize::from(current)]);
        let goes_on = stream.is_some_and(|stream| {
            let is_near = |position: u64| position.abs_diff(flow.first_seq) <= APART_MAX;
            legacy.withheld.is_some()
                && stream.available
                && stream.epoch == kept.epoch
                && (kept.timeline, kept.restarts) == (kept.current, stream.restarts)
                && stream.seq.newest().is_some_and(is_near)
        });
        // Who was paused then and is not now was resumed since.
        flow.sync_required = kept.sync_required != 0 || !goes_on || kept.paused != 0 || self.paused;
        self.effective = Some(kept.effective).filter(|effective| *effective != NONE);
        self.last_notified = self.effective.filter(|_| kept.notified != 0);
        // The clock of the timestamps is the stream's, or another one.
        let clock = producer.streams.get(usize::from(kept.timeline));
        let clock = clock.map_or(0, |stream| stream.clock.position().newest);
        if kept.timeline != NO_TIMELINE
            && offsets.timestamp_of(clock).abs_diff(legacy.newest.timestamp) > CLOCK_APART_MAX
        {
            flow.sync_required = true;
            self.rewriter.forget_clock();
        }

        self.forwarded = counters.forwarded;
        self.bytes = counters.bytes;
        self.dropped = counters.dropped;
        self.resume_packets_in();
        self.switches = counters.switches;
        self.pli_count = counters.pli;
        self.fir_count = counters.fir;
        self.nack_count = counters.nack;
        self.transmission.packets = counters.sent_packets;
        self.transmission.octets = counters.sent_octets;
        self.transmission.payload_type = u8::try_from(counters.payload_type).unwrap_or(NONE);
        let (flow, offsets) = (self.flow, self.rewriter.offsets());
        if let Some(repair) = &mut self.repair {
            repair.resume(
                (counters.repaired, counters.repaired_bytes, counters.not_repaired),
                legacy.again.map(|again| (again, kept.again_begun != 0)),
            );
            if let Some(current) = flow.current.filter(|_| !flow.sync_required) {
                repair.on_resume(newest + 1, offsets, (current, flow.epoch));
            }
        }
    }
}

impl StreamPosition {
    fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    fn ssrc(&self) -> Option<u32> {
        self.has(flags::SSRC).then_some(self.ssrc)
    }

    fn rtx_ssrc(&self) -> Option<u32> {
        self.has(flags::RTX_SSRC).then_some(self.rtx_ssrc)
    }

    /// Whether it can be true: extended numbers grow by packets, and no stream has had so many.
    fn check(&self) -> Result<(), Damaged> {
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
    /// Keeps how far it was received.
    pub(super) fn keep_position(&self, page: &Page) {
        if !self.page.is_none() {
            page.store_twin(self.page, stream::POSITION, &self.position());
        }
    }

    /// Keeps the counters.
    pub(super) fn keep_counters(&self, page: &Page) {
        if self.page.is_none() {
            return;
        }
        let counters = &self.counters;
        let record = StreamCounts {
            packets: counters.packets,
            bytes: counters.bytes,
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
            cadence_ms: u32::try_from(self.cadence.as_millis()).unwrap_or(u32::MAX),
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
    fn resume(&mut self, now: Time, legacy: &StreamLegacy, [ssrc, rtx_ssrc]: [Option<u32>; 2]) {
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
            self.cadence = std::time::Duration::from_millis(kept.cadence_ms.into());
            self.resumes_behind = Some(kept.newest);
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
        own.bytes = counts.bytes;
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
    pub(super) fn misses_for_good(&mut self, kind: MediaKind) -> bool {
        let Some(behind) = self.resumes_behind.take() else {
            return false;
        };
        kind == MediaKind::Video
            && self.missing.is_none()
            && self.seq.newest().is_some_and(|newest| newest > behind + 1)
    }
}

impl Transport {
    /// Keeps where the other end is.
    pub(super) fn keep_remote(&self, page: &Page) {
        if self.page.is_none() {
            return;
        }
        let record = RemoteOfTransport {
            rtp: self.remote.map(|remote| remote.rtp.into()).unwrap_or_default(),
            rtcp: self
                .remote
                .and_then(|remote| remote.rtcp)
                .map(Into::into)
                .unwrap_or_default(),
            relearned_at: self.relearned_at.map_or(0, |at| at.0),
            is_said: u64::from(!self.kind.comedia()),
        };
        page.store_twin(self.page, transport::REMOTE, &record);
    }

    /// Keeps the counters.
    pub(super) fn keep_counters(&self, page: &Page) {
        if self.page.is_none() {
            return;
        }
        let counters = &self.counters;
        let record = TransportCounts {
            packets: counters.packets,
            bytes: counters.bytes,
            rtcp: counters.rtcp,
            rtcp_sent: counters.rtcp_sent,
            relearned: counters.relearned,
            unrouted: counters.unrouted,
        };
        page.store(self.page, transport::COUNTERS, &record);
    }

    /// Goes on where its last worker has left it. What was learned counts, and not what its request says.
    fn resume(&mut self, remote: Option<RemoteOfTransport>, counts: &TransportCounts) {
        if let Some(kept) = remote.filter(|kept| self.kind.comedia() && kept.is_said == 0)
            && let Some(rtp) = kept.rtp.address()
        {
            self.remote = Some(Remote {
                rtp,
                rtcp: kept.rtcp.address(),
            });
            self.relearned_at = (kept.relearned_at != 0).then_some(Time(kept.relearned_at));
        }
        let own = &mut self.counters;
        own.packets = counts.packets;
        own.bytes = counts.bytes;
        own.rtcp = counts.rtcp;
        own.rtcp_sent = counts.rtcp_sent;
        own.relearned = counts.relearned;
        own.unrouted = counts.unrouted;
    }
}

/// What a consumer's slot says beside its id: its SSRCs.
fn detail_of(request: &CreateConsumer) -> u64 {
    let again = request.rtx.as_ref().map_or(0, |rtx| rtx.ssrc);
    u64::from(request.ssrc) | u64::from(again) << 32
}
