//! What is kept of a consumer, and how it goes on from there.

use weir_channel::id::ProducerId;

use crate::page::Page;
use crate::page::layout::{ConsumerCounters, FlowOfConsumer, Newest, SourceOfConsumer, StartOfFlow, consumer};

use super::super::consumer::Consumer;
use super::super::decide::Overtaken;
use super::super::producer::{Producer, ProducerCounters};
use super::super::rate::Rate;
use super::super::rewrite::NO_TIMELINE;
use super::super::withheld::InHand;

/// No encoding, in a byte.
pub(super) const NONE: u8 = u8::MAX;

/// A consumer's newest packet is from no further before or behind its stream's newest than this, or the two pages of memory have
/// nothing to do with each other: what a stream takes for a loss, and more than a batch.
const APART_MAX: u64 = 4_096;

/// And its newest timestamp no further from its stream's.
const CLOCK_APART_MAX: u64 = 1 << 33;

/// What is left of a consumer.
pub(in super::super) struct ConsumerLegacy {
    /// Its newest sequence number.
    pub(super) seq: u64,
    pub(super) newest: Newest,
    pub(super) again: Option<u64>,
    pub(super) flow: FlowOfConsumer,
    /// Where that has started, in its stream's numbers.
    pub(super) start: u64,
    pub(super) counters: ConsumerCounters,
    /// Packets of what flows that were withheld from it; `None`: nothing is known of that stream.
    pub(super) withheld: Option<u64>,
    /// And those that its worker had in hand.
    pub(super) in_hand: Option<InHand>,
}

/// What is left of the flow when it was another producer's: nothing but that somebody was paused, or told something.
pub(super) fn of_no_source(flow: &FlowOfConsumer) -> FlowOfConsumer {
    FlowOfConsumer {
        timeline: NO_TIMELINE,
        current: NONE,
        effective: NONE,
        sync_required: 1,
        ..*flow
    }
}

impl Consumer {
    /// Keeps the newest numbers: before packets are sent under them.
    #[inline]
    pub(in super::super) fn keep_newest(&self, page: &Page) {
        let slot = self.slot(page);
        if !slot.is_none() {
            // A packet that has its number has its other numbers, too, also if a successor is the one who sends it.
            page.store_number_last(slot, consumer::NEWEST, &self.rewriter.newest_kept());
        }
    }

    /// Keeps where a flow starts: before [`Consumer::keep_flow`] says that it has.
    pub(in super::super) fn keep_start(&self, page: &Page, seq: u64) {
        let slot = self.slot(page);
        if !slot.is_none() {
            page.store(slot, consumer::START, &StartOfFlow { seq });
        }
    }

    /// Keeps which producer what flows is of: while nothing does, which is true of any.
    pub(super) fn keep_source(&self, page: &Page, producer: ProducerId) {
        page.store(
            self.slot(page),
            consumer::SOURCE,
            &SourceOfConsumer { producer: producer.0 },
        );
    }

    /// Keeps what flows: whenever it changes, and before anything is sent then.
    pub(in super::super) fn keep_flow(&self, page: &Page) {
        let slot = self.slot(page);
        if slot.is_none() {
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
        page.store_twin(slot, consumer::FLOW, &record);
    }

    /// Keeps the counters.
    pub(in super::super) fn keep_counters(&mut self, page: &Page, counters: &ProducerCounters) {
        let slot = self.slot(page);
        if slot.is_none() {
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
            bytes: self.rate.total(),
            dropped: self.dropped,
            switches: self.switches,
            pli: self.pli_count,
            fir: self.fir_count,
            nack: self.nack_count,
            repaired,
            repaired_bytes,
            not_repaired,
            sent_packets: self.forwarded + self.sent_beside,
            sent_octets: self.octets,
            payload_type: u64::from(self.last_payload_type),
            lost: u64::from(self.transmission.last_report().packets_lost.cast_unsigned()),
        };
        page.store(slot, consumer::COUNTERS, &record);
    }

    /// One more than the last SRTP index that may have been used under each of its SSRCs: its own, and the one that it is sent again
    /// under.
    pub(super) fn spent(&self) -> [Option<(u32, u64)>; 2] {
        let rtx = self.repair.as_ref().and_then(|repair| repair.rtx.as_ref());
        let own = (self.ssrc, self.rewriter.newest_index() + 1);
        [Some(own), rtx.map(|rtx| (rtx.ssrc, rtx.seq + 1))]
    }

    /// Goes on where its last worker has left it: without a start, if the stream that flowed goes on, too.
    pub(super) fn resume(&mut self, legacy: &ConsumerLegacy, producer: &Producer) {
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
        self.overtaken = Overtaken::default();
        let stream = flow.current.map(|current| &producer.streams[usize::from(current)]);
        let goes_on = stream.is_some_and(|stream| {
            let is_near = |position: u64| position.abs_diff(flow.first_seq) <= APART_MAX;
            legacy.withheld.is_some()
                && stream.available
                && stream.epoch == kept.epoch
                && (kept.timeline, kept.restarts) == (kept.current, stream.restarts)
                && stream.seq.newest().is_some_and(is_near)
                // What starts it may not have left; then a receiver that had nothing before would not miss it.
                && stream.seq.newest() >= Some(legacy.start)
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
        self.rate = Rate::resumed(counters.bytes);
        self.dropped = counters.dropped;
        self.resume_packets_in();
        self.switches = counters.switches;
        self.pli_count = counters.pli;
        self.fir_count = counters.fir;
        self.nack_count = counters.nack;
        self.sent_beside = counters.sent_packets.saturating_sub(counters.forwarded);
        self.octets = counters.sent_octets;
        self.last_payload_type = u8::try_from(counters.payload_type).unwrap_or(NONE);
        self.transmission.resume((counters.lost as u32).cast_signed());
        let (flow, offsets) = (self.flow, self.rewriter.offsets());
        if let Some(repair) = &mut self.repair {
            repair.resume(
                (counters.repaired, counters.repaired_bytes, counters.not_repaired),
                legacy.again.map(|again| (again, kept.again_begun != 0)),
            );
            if let Some(current) = flow.current.filter(|_| !flow.sync_required) {
                let position = producer.streams[usize::from(current)].seq.newest();
                // What its last worker had in hand comes again, and whoever has lost it is sent it again, as a stream of its own. Under
                // its own number it would have to be the same bytes.
                let in_hand = position.map(|position| (position + 1).wrapping_add(offsets.seq));
                let first = match repair.rtx.is_some() {
                    true => in_hand.map_or(newest + 1, |first| first.min(newest + 1)),
                    false => newest + 1,
                };
                repair.on_resume(first, offsets, (current, flow.epoch));
            }
        }
    }
}
