//! Reports that each transport sends its remote about once a second (RFC 3550 §6, RFC 3611, REMB).
//!
//! Each transport has its own time (RFC 3550 §6.2, §6.3): a second, scaled by a random 0.5 to 1.5 so that transports do
//! not fall into step, and half of that before the first. Reports that are due are sent in parts of a few packets, so that
//! neither thousands of transports nor thousands of consumers on one make a turn long. Those that will be due soon leave early
//! where packets are relayed anyway. A transport that had nothing to say is asked again when something has come or left on it.
//!
//! What is about streams received, and every request for feedback, is said by one SSRC, the worker's own; sender reports
//! are each consumer's.

use std::collections::VecDeque;
use std::time::Duration;

use rtcp_types::Bye;
use rtcp_types::prelude::*;

use crate::page::Page;
use crate::rtp::rtcp::compound::{COMPOUND_BYTES_MAX, Compound, ITEMS_MAX, SenderInfo};
use crate::rtp::rtcp::remb::{SSRCS_MAX, remb_len, write_remb};
use crate::rtp::rtcp::xr;
use crate::rtp::rtcp::{ReportBlock, reporter_cname};
use crate::time::wheel::TimerWheel;
use crate::time::{Time, WallClock};

use super::Random;
use super::consumer::{Consumer, Consumers};
use super::keys::TransportKey;
use super::producer::{Producer, Producers};
use super::sender_clock::{Clocks, TimeReport, distance_of, since_report};
use super::sink::{Sink, TransportIx};
use super::transport::{Transport, Transports};
use super::transport_reports::REFERENCES_MAX;

/// From one report of a transport to the next, on average (differences §3.13).
const INTERVAL: Duration = Duration::from_secs(1);

/// The least time from one part of a report to the next: 5,000 consumers are reported on within some 70 ms.
const PART_INTERVAL: Duration = Duration::from_millis(1);

/// Transports that are due within so long are reported on in one turn: with a thousand of them, a hundred times a second
/// rather than each by itself, which costs more than the reports.
const TOGETHER: Duration = Duration::from_millis(10);

/// Reports that are due within so long leave in a turn that relays packets anyway: the worker need not wake up for them, and
/// the sockets of those who were just sent packets are at hand in its caches. Ten turns a second are enough for that. No time
/// that is set in the wheel is so near.
const EARLY: Duration = Duration::from_millis(100);

/// Packets after which the rest of a report is left for another part: about 80 sender reports.
const PART_PACKETS_MAX: usize = 4;

/// Consumers looked at in one part, of which most may have nothing to say.
const PART_CONSUMERS_MAX: usize = 512;

/// Parts made in one turn: at 2 µs a packet, 250 µs at most.
const TURN_PARTS_MAX: usize = 32;

/// BYE packets sent in one turn on transports that live on; about as long.
const TURN_BYES_MAX: usize = 128;

/// A timestamp that its sender's reports put further than this from where the newest packet puts it is not believed: the
/// sender's media clock has jumped since.
const MAPPING_TOLERANCE_SECS: u64 = 10;

/// What all reports need.
#[derive(Debug)]
pub(super) struct Reports {
    /// The SSRC that reports on received streams come from, and all requests.
    ssrc: u32,
    /// Its canonical name.
    cname: [u8; 13],
    random: Random,
    pub(super) wall_clock: WallClock,
    pub(super) clocks: Clocks,
    /// When transports are due that may have something to say.
    due: TimerWheel<TransportKey>,
    /// Transports whose reports have been begun, and when these go on. All wait equally long, so the first is due first.
    begun: VecDeque<(Time, TransportKey)>,
    /// Transports whose limit has just changed.
    limited: Vec<TransportKey>,
    /// Living transports with consumers that have left.
    left: VecDeque<TransportKey>,
    /// The BYEs of transports that are closed: where to, and whose.
    pending_byes: Vec<(TransportIx, Vec<u32>)>,
    pub(super) compound: Compound,
    packet: Box<[u8]>,
    blocks: Vec<ReportBlock>,
    ssrcs: Vec<u32>,
}

impl Reports {
    pub(super) fn new(ssrc: u32, seed: u64) -> Self {
        Self {
            ssrc,
            cname: reporter_cname(ssrc),
            random: Random(seed),
            wall_clock: WallClock::default(),
            clocks: Clocks::default(),
            due: TimerWheel::default(),
            begun: VecDeque::new(),
            limited: Vec::new(),
            left: VecDeque::new(),
            pending_byes: Vec::new(),
            compound: Compound::new(),
            packet: vec![0; COMPOUND_BYTES_MAX].into_boxed_slice(),
            blocks: Vec::with_capacity(ITEMS_MAX),
            ssrcs: Vec::with_capacity(SSRCS_MAX),
        }
    }

    /// When there is something to do next.
    pub(super) fn next_timeout(&self) -> Option<Time> {
        if !self.limited.is_empty() || !self.left.is_empty() || !self.pending_byes.is_empty() {
            return Some(Time::default());
        }
        let begun = self.begun.front().map(|(due, _)| *due);
        [begun, self.due.next()].into_iter().flatten().min()
    }

    /// Reserves memory for so many transports, this one among them: those that are gone may have begun a report, too.
    pub(super) fn reserve(&mut self, key: TransportKey, transports: usize) {
        self.due.reserve(key);
        let missing = (2 * transports).saturating_sub(self.begun.len());
        self.begun.reserve(missing);
    }

    /// Half a nominal duration to one and a half.
    fn scaled(&mut self, nominal: Duration) -> Duration {
        let permille = 500 + (self.random.next() % 1_001) as u32;
        nominal * permille / 1_000
    }

    /// Writes what was put together.
    pub(super) fn write_packet(&mut self) -> &[u8] {
        let len = self.compound.write(&mut self.packet);
        &self.packet[..len]
    }

    /// Sends what was put together, if anything was.
    fn flush(&mut self, transport: &mut Transport, sink: &mut impl Sink) -> usize {
        if self.compound.is_empty() {
            return 0;
        }
        let len = self.compound.write(&mut self.packet);
        transport.send_rtcp(&self.packet[..len], false, sink);
        1
    }

    /// Sends the BYEs of transports that are closed. To be called before their sockets are.
    pub(super) fn send_pending_byes(&mut self, sink: &mut impl Sink) {
        for (transport, ssrcs) in std::mem::take(&mut self.pending_byes) {
            for ssrcs in ssrcs.chunks(ITEMS_MAX) {
                sink.send_rtcp(transport, self.write_bye(ssrcs));
            }
        }
    }

    /// A transport has a producer or a consumer, or something has come or left on it: it may have something to report.
    pub(super) fn schedule(&mut self, now: Time, key: TransportKey, transport: &mut Transport) {
        transport.is_quiet = false;
        if transport.reports.next_consumer.is_none() && !self.due.is_set(key) {
            let due = now + self.scaled(INTERVAL / 2);
            self.due.set(key, due);
        }
    }

    /// A consumer is closed: its receiver is to be sent a BYE (RFC 3550 §6.6), if it was sent anything.
    pub(super) fn on_consumer_left(&mut self, consumer: &Consumer, transport: &mut Transport) {
        if consumer.rewriter.newest_seq().is_none() || !transport.has_rtcp_remote() {
            return;
        }
        if transport.reports.left.is_empty() {
            self.left.push_back(consumer.transport);
        }
        transport.reports.left.push(consumer.ssrc);
        transport.reports.left.extend(consumer.begun_rtx_ssrc());
    }

    /// A transport is closed: its BYEs cannot wait. `is_last`: there is no other transport.
    pub(super) fn on_transport_left(&mut self, key: TransportKey, transport: Transport, is_last: bool) {
        self.due.cancel(key);
        let left = transport.reports.left;
        if !left.is_empty() {
            self.pending_byes.push((transport.index, left));
        }
        if is_last {
            self.left.clear();
        }
    }

    /// Limits what the senders of a transport may send in all, or ends that.
    pub(super) fn set_max_bitrate(
        &mut self,
        now: Time,
        key: TransportKey,
        transport: &mut Transport,
        bitrate: Option<u64>,
    ) {
        if transport.reports.set_max_bitrate(bitrate) {
            self.limited.push(key);
            self.schedule(now, key, transport);
        }
    }

    /// Sends the reports that are due, a turn's worth of them.
    pub(super) fn send(
        &mut self,
        now: Time,
        transports: &mut Transports,
        producers: &mut Producers,
        consumers: &mut Consumers,
        page: &Page,
        sink: &mut impl Sink,
    ) {
        self.send_pending_byes(sink);
        self.send_byes(transports, sink);
        while let Some(key) = self.limited.pop() {
            if let Some(transport) = transports.get_mut(key)
                && transport.has_rtcp_remote()
            {
                self.push_limit(producers, transport, sink);
                self.flush(transport, sink);
            }
        }
        self.send_until((now, now), transports, producers, consumers, page, sink);
    }

    /// Sends the reports that would be due soon, a turn's worth of them, because packets are relayed now.
    pub(super) fn send_early(
        &mut self,
        now: Time,
        transports: &mut Transports,
        producers: &mut Producers,
        consumers: &mut Consumers,
        page: &Page,
        sink: &mut impl Sink,
    ) {
        self.send_until((now, now + EARLY), transports, producers, consumers, page, sink);
    }

    fn send_until(
        &mut self,
        (now, until): (Time, Time),
        transports: &mut Transports,
        producers: &mut Producers,
        consumers: &mut Consumers,
        page: &Page,
        sink: &mut impl Sink,
    ) {
        for _ in 0..TURN_PARTS_MAX {
            let Some((due, key)) = self.pop_due(now, until) else {
                return;
            };
            let Some(transport) = transports.get_mut(key) else {
                continue;
            };
            if transport.producers.is_empty() && transport.consumers.is_empty() {
                transport.reports.next_consumer = None;
                transport.is_quiet = true;
                continue;
            }
            if transport.reports.next_consumer.is_none() {
                // Until something shows that it is not. A limit is said again and again.
                transport.is_quiet = transport.reports.limit_to_send().is_none();
            }
            let is_complete =
                !transport.has_rtcp_remote() || self.send_part(now, transport, producers, consumers, page, sink);
            if is_complete {
                transport.keep_counters(page);
                transport.keep_socket_counts(page, &sink.socket_counts(transport.index));
                for key in &transport.producers {
                    producers[*key]
                        .streams
                        .iter()
                        .for_each(|stream| stream.keep_counters(page));
                }
            }
            if !is_complete {
                self.begun.push_back((now + PART_INTERVAL, key));
            } else if !transport.is_quiet {
                // A report that leaves early makes the next one no earlier.
                let next = together(now.max(due) + self.scaled(INTERVAL));
                self.due.set(key, next);
            }
        }
    }

    /// The transport that is due first, and when: until `until`, or to go on with its report now.
    fn pop_due(&mut self, now: Time, until: Time) -> Option<(Time, TransportKey)> {
        let begun = self.begun.front().map(|(due, _)| *due).filter(|due| *due <= now);
        let next = self.due.next().filter(|due| *due <= until);
        let is_new = next.is_some_and(|next| begun.is_none_or(|begun| next < begun));
        let new = if is_new { self.due.pop(until) } else { None };
        new.or_else(|| begun.and_then(|_| self.begun.pop_front()))
    }

    /// Sends the BYEs of consumers that are closed, on transports that are not.
    fn send_byes(&mut self, transports: &mut Transports, sink: &mut impl Sink) {
        let mut packets = 0;
        while packets < TURN_BYES_MAX
            && let Some(key) = self.left.pop_front()
        {
            let Some(transport) = transports.get_mut(key) else {
                continue;
            };
            let mut left = std::mem::take(&mut transport.reports.left);
            for ssrcs in left.chunks(ITEMS_MAX) {
                transport.send_rtcp(self.write_bye(ssrcs), false, sink);
                packets += 1;
            }
            left.clear();
            transport.reports.left = left;
        }
    }

    /// Sends a part of a transport's report. `true` when that was the last one.
    fn send_part(
        &mut self,
        now: Time,
        transport: &mut Transport,
        producers: &mut Producers,
        consumers: &mut Consumers,
        page: &Page,
        sink: &mut impl Sink,
    ) -> bool {
        let mut packets = 0;
        let mut at = match transport.reports.next_consumer.take() {
            Some(at) => at,
            None => {
                packets += self.push_reception(now, producers, transport, sink);
                0
            }
        };
        let end = transport.consumers.len().min(at + PART_CONSUMERS_MAX);
        while at < end && packets < PART_PACKETS_MAX {
            let consumer = &mut consumers[transport.consumers[at]];
            at += 1;
            let producer = &producers[consumer.producer];
            consumer.keep_counters(page, &producer.counters);
            let info = self.sender_info(now, consumer, producer);
            transport.is_quiet &= consumer.rests;
            let Some(info) = info else { continue };
            let cname = consumer.transmission.cname(producer).as_bytes();
            if !self.compound.push_sender_report(consumer.ssrc, cname, &info) {
                packets += self.flush(transport, sink);
                self.compound.push_sender_report(consumer.ssrc, cname, &info);
            }
            // What is sent again is the same endpoint's.
            if let Some(rtx) = consumer.begun_rtx_ssrc()
                && !self.compound.push_source(rtx, cname)
            {
                packets += self.flush(transport, sink);
                self.begin();
                self.compound.push_source(rtx, cname);
            }
            consumer.transmission.on_report_sent(now, info.ntp);
        }
        self.flush(transport, sink);
        if at < transport.consumers.len() {
            transport.reports.next_consumer = Some(at);
            return false;
        }
        true
    }

    /// What there is to say of streams received, and to their senders. Returns how many packets were sent; what is left is
    /// in the compound packet.
    fn push_reception(
        &mut self,
        now: Time,
        producers: &mut Producers,
        transport: &mut Transport,
        sink: &mut impl Sink,
    ) -> usize {
        let mut packets = 0;
        let mut has_senders = false;
        self.blocks.clear();
        for index in 0..transport.producers.len() {
            for stream in &mut producers[transport.producers[index]].streams {
                let report = stream.sender_time.newest_ntp;
                let media = stream.ssrc.and_then(|media| stream.reception.block(now, media, report));
                let rtx = stream
                    .rtx_ssrc
                    .and_then(|rtx| stream.rtx_reception.block(now, rtx, stream.rtx_report));
                for block in [media, rtx].into_iter().flatten() {
                    has_senders = true;
                    self.blocks.push(block);
                    if self.blocks.len() == ITEMS_MAX {
                        packets += self.push_blocks(transport, sink);
                    }
                }
            }
        }
        packets += self.push_blocks(transport, sink);
        transport.is_quiet &= !has_senders;
        if has_senders {
            let ntp = self.wall_clock.ntp(now);
            let mut packet = [0; xr::REFERENCE_TIME_LEN];
            xr::write_reference_time(&mut packet, self.ssrc, ntp);
            packets += self.push_packet(transport, &packet, sink);
            transport.reports.references.on_sent(now, ntp);
        }
        let (delays, count) = transport.reports.take_delays(now);
        if count > 0 {
            let mut packet = [0; xr::delays_len(REFERENCES_MAX)];
            let len = xr::write_delays(&mut packet, self.ssrc, &delays[..count]);
            packets += self.push_packet(transport, &packet[..len], sink);
        }
        packets + self.push_limit(producers, transport, sink)
    }

    /// Adds the blocks that were collected, as a receiver report or two.
    fn push_blocks(&mut self, transport: &mut Transport, sink: &mut impl Sink) -> usize {
        let mut packets = 0;
        let mut blocks = std::mem::take(&mut self.blocks);
        let mut rest = &blocks[..];
        while !rest.is_empty() {
            let count = self.compound.blocks_that_fit(self.ssrc, &self.cname).min(rest.len());
            let (now, later) = rest.split_at(count);
            if count > 0 && self.compound.push_receiver_report(self.ssrc, &self.cname, now) {
                rest = later;
            } else {
                packets += self.flush(transport, sink);
            }
        }
        blocks.clear();
        self.blocks = blocks;
        packets
    }

    /// Adds a packet that is no report.
    fn push_packet(&mut self, transport: &mut Transport, packet: &[u8], sink: &mut impl Sink) -> usize {
        let mut packets = 0;
        self.begin();
        if !self.compound.push_packet(packet) {
            packets += self.flush(transport, sink);
            self.begin();
            self.compound.push_packet(packet);
        }
        packets
    }

    /// A compound packet begins with a report, if with an empty one.
    fn begin(&mut self) {
        if self.compound.is_empty() {
            self.compound.push_receiver_report(self.ssrc, &self.cname, &[]);
        }
    }

    /// Adds the limit of what a transport's senders may send, if there is one, or if its end is still to be sent.
    fn push_limit(&mut self, producers: &Producers, transport: &mut Transport, sink: &mut impl Sink) -> usize {
        let Some(bitrate) = transport.reports.limit_to_send() else {
            return 0;
        };
        self.ssrcs.clear();
        for producer in transport.producers.iter().map(|key| &producers[*key]) {
            let heeding = producer
                .streams
                .iter()
                .filter(|stream| producer.main_codec(stream.reception.payload_type()).remb);
            let capacity = SSRCS_MAX - self.ssrcs.len();
            self.ssrcs
                .extend(heeding.filter_map(|stream| stream.ssrc).take(capacity));
        }
        if self.ssrcs.is_empty() {
            return 0;
        }
        transport.reports.on_limit_sent();
        let mut packet = [0; remb_len(SSRCS_MAX)];
        let len = write_remb(&mut packet, self.ssrc, bitrate, &self.ssrcs);
        self.push_packet(transport, &packet[..len], sink)
    }

    /// What a consumer's sender report says; `None` while it sends nothing.
    fn sender_info(&self, now: Time, consumer: &mut Consumer, producer: &Producer) -> Option<SenderInfo> {
        let is_sender = consumer.is_sender();
        if !is_sender || consumer.paused || producer.paused {
            return None;
        }
        Some(SenderInfo {
            ntp: self.wall_clock.ntp(now),
            rtp: media_time(now, &self.clocks, consumer, producer)? as u32,
            packets: consumer.sent() as u32,
            octets: consumer.octets as u32,
        })
    }

    /// A BYE of at most 31 sources (RFC 3550 §6.6).
    fn write_bye(&mut self, ssrcs: &[u32]) -> &[u8] {
        let ssrcs = &ssrcs[..ssrcs.len().min(ITEMS_MAX)];
        let mut packet = [0; 4 + 4 * ITEMS_MAX];
        packet[..4].copy_from_slice(&[0x80 | ssrcs.len() as u8, Bye::PACKET_TYPE, 0, ssrcs.len() as u8]);
        for (ssrc, out) in ssrcs.iter().zip(packet[4..].as_chunks_mut::<4>().0) {
            *out = ssrc.to_be_bytes();
        }
        self.begin();
        self.compound.push_packet(&packet[..4 + 4 * ssrcs.len()]);
        self.write_packet()
    }
}

/// The last time up to this one at which reports are sent.
fn together(due: Time) -> Time {
    let step = TOGETHER.as_nanos() as u64;
    Time(due.0 / step * step)
}

/// The timestamp that a consumer's media has now: by the sender's reports on the stream that flows (RFC 3550 §6.4.1: NTP
/// and RTP timestamp of a report are the same instant), placed as `sender_clock` says; until there are any, by the newest
/// packet and the time since.
pub(super) fn media_time(now: Time, clocks: &Clocks, consumer: &Consumer, producer: &Producer) -> Option<u64> {
    let (encoding, restarts) = consumer.rewriter.timeline()?;
    let stream = producer.streams.get(usize::from(encoding))?;
    let rate = producer.main_codec(Some(consumer.last_payload_type)).clock_rate;
    let ticks = |ns: i128| (ns * i128::from(rate) / 1_000_000_000) as i64;
    let (newest, sent_at) = consumer.rewriter.newest_timestamp();
    let by_arrival = newest.wrapping_add_signed(ticks(now.since(sent_at).as_nanos().cast_signed()));
    let Some(TimeReport {
        ntp,
        timestamp,
        arrived,
    }) = stream.sender_time.report
    else {
        return Some(by_arrival);
    };
    let own = distance_of(arrived, ntp);
    let distance = clocks.get(producer.clock).map_or(own, |clock| clock.distance_for(own));
    let since = ticks(i128::from(since_report(now, ntp, distance)));
    let by_report = consumer.rewriter.timestamp_of(timestamp.wrapping_add_signed(since));
    let tolerance = u64::from(rate) * MAPPING_TOLERANCE_SECS;
    let is_believed = stream.restarts == restarts && by_report.abs_diff(by_arrival) <= tolerance;
    Some(if is_believed { by_report } else { by_arrival })
}
