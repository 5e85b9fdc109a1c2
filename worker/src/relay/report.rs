//! Reports: what each transport tells its remote about once a second, and what remotes report (RFC 3550 §6, RFC 3611,
//! REMB).
//!
//! Each transport has its own time (RFC 3550 §6.2, §6.3): a second, scaled by a random 0.5 to 1.5 so that transports do
//! not fall into step, and half of that before the first. Whoever is due is worked off in parts, a few packets each, so that
//! neither thousands of transports nor thousands of consumers on one make a turn long.
//!
//! What is about streams received, and every request for feedback, is said by one SSRC, the worker's own; sender reports
//! are each consumer's.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use rtcp_types::Bye;
use rtcp_types::prelude::*;
use slotmap::SlotMap;
use weir_channel::id::TransportId;
use weir_channel::message::WorkerError;

use crate::rtp::rtcp::compound::{COMPOUND_BYTES_MAX, Compound, ITEMS_MAX, SenderInfo};
use crate::rtp::rtcp::remb::{SSRCS_MAX, remb_len, write_remb};
use crate::rtp::rtcp::xr::{self, Delay};
use crate::rtp::rtcp::{ReportBlock, reporter_cname};
use crate::time::{Time, WallClock, in_65536ths};

use super::consumer::Consumer;
use super::keys::{ProducerKey, TransportKey};
use super::producer::Producer;
use super::sender_clock::{ClockKey, Clocks, distance_of, since_report};
use super::sink::{Sink, TransportIx};
use super::stream::TimeReport;
use super::transmission::SentReports;
use super::transport::Transport;
use super::{Random, Relay};

/// From one report of a transport to the next, on average (differences §3.13).
const INTERVAL: Duration = Duration::from_secs(1);

/// The least time from one part of a report to the next: 5,000 consumers are reported on within some 70 ms.
const PART_INTERVAL: Duration = Duration::from_millis(1);

/// Transports that are due within so long are reported on in one turn: with a thousand of them, a hundred times a second
/// rather than each by itself, which costs more than the reports.
const TOGETHER: Duration = Duration::from_millis(10);

/// Packets after which the rest of a report is left for another part: about 80 sender reports.
const PART_PACKETS_MAX: usize = 4;

/// Consumers looked at in one part, of which most may have nothing to say.
const PART_CONSUMERS_MAX: usize = 512;

/// Parts made in one turn: at 2 µs a packet, 250 µs at most.
const TURN_PARTS_MAX: usize = 32;

/// Goodbyes said in one turn to transports that live on, in packets; about as long.
const TURN_BYES_MAX: usize = 128;

/// A timestamp that its sender's reports put further than this from where the newest packet puts it is not believed: the
/// sender's media clock has jumped since.
const MAPPING_TOLERANCE_SECS: u64 = 10;

/// Reference times of receivers that wait to be answered, for each transport.
const REFERENCES_MAX: usize = 4;

/// What is sent when there is no limit any more: more than anybody sends (a terabit a second), and so that no receiver's
/// arithmetic overflows.
const UNLIMITED_BPS: u64 = 1 << 40;

/// How often that is said, as the one packet may be lost and nothing else would tell.
const UNLIMITED_REPEATS: u8 = 3;

/// What all reports need.
#[derive(Debug)]
pub(super) struct Reports {
    random: Random,
    pub(super) wall_clock: WallClock,
    pub(super) clocks: Clocks,
    /// When transports are due; those that are gone are passed over.
    due: BinaryHeap<Reverse<(Time, TransportKey)>>,
    /// Transports whose limit has just changed.
    limited: Vec<TransportKey>,
    /// Living transports with consumers that have left.
    left: VecDeque<TransportKey>,
    /// The last words of transports that are closed: where to, and whose.
    pending_byes: Vec<(TransportIx, Vec<u32>)>,
    compound: Compound,
    packet: Box<[u8]>,
    blocks: Vec<ReportBlock>,
    ssrcs: Vec<u32>,
}

/// What a transport's reports need.
#[derive(Debug, Default)]
pub(super) struct TransportReports {
    /// It has a time in the queue.
    is_scheduled: bool,
    /// The report has been begun, and the consumers before this one have had their part.
    next_consumer: Option<usize>,
    /// What its senders may send in all.
    pub(super) max_bitrate: Option<u64>,
    /// How often they are still to be told that they may send what they like.
    unlimited: u8,
    /// What its remote said that it can receive.
    pub(super) remote_bitrate: Option<u64>,
    /// Reference times sent, and received.
    pub(super) references: SentReports,
    /// As (whose, the middle 32 bits of it, when it came).
    pub(super) received_references: [Option<(u32, u32, Time)>; REFERENCES_MAX],
    /// SSRCs of consumers that have left.
    left: Vec<u32>,
}

impl Reports {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            random: Random(seed),
            wall_clock: WallClock::default(),
            clocks: Clocks::default(),
            due: BinaryHeap::new(),
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
        self.due.peek().map(|Reverse((due, _))| *due)
    }

    /// Half a nominal duration to one and a half.
    fn scaled(&mut self, nominal: Duration) -> Duration {
        let permille = 500 + (self.random.next() % 1_001) as u32;
        nominal * permille / 1_000
    }

    /// Sends what was put together, if anything was.
    fn flush(&mut self, transport: &mut Transport, sink: &mut impl Sink) -> usize {
        if self.compound.is_empty() {
            return 0;
        }
        let len = self.compound.write(&mut self.packet);
        transport.counters.rtcp_sent += 1;
        sink.send_rtcp(transport.index, &self.packet[..len]);
        1
    }
}

impl Relay {
    /// What time it is. To be told now and then, so that reports follow when the wall clock is set.
    pub fn set_wall_clock(&mut self, clock: WallClock) {
        self.reports.wall_clock = clock;
    }

    /// Sends the last words of transports that are closed. To be called before their sockets are: after each command,
    /// before [`Relay::poll_action`].
    pub fn send_pending_byes(&mut self, sink: &mut impl Sink) {
        for (transport, ssrcs) in self.reports.pending_byes.drain(..) {
            for ssrcs in ssrcs.chunks(ITEMS_MAX) {
                let len = write_bye(&mut self.reports.compound, &mut self.reports.packet, self.ssrc, ssrcs);
                sink.send_rtcp(transport, &self.reports.packet[..len]);
            }
        }
    }

    /// A transport has a producer or a consumer, and so will have something to report.
    pub(super) fn schedule_reports(&mut self, now: Time, key: TransportKey) {
        let reports = &mut self.transports[key].reports;
        if !std::mem::replace(&mut reports.is_scheduled, true) {
            let due = now + self.reports.scaled(INTERVAL / 2);
            self.reports.due.push(Reverse((due, key)));
        }
    }

    /// A producer's endpoint is known: from now on its reports count for the clock of all that endpoint's streams.
    /// A name that was made up gives way to the one that the sender says of itself.
    pub(super) fn join_clock(&mut self, key: ProducerKey, cname: &str, is_made_up: bool) {
        let producer = &mut self.producers[key];
        if producer.clock.is_some() {
            return;
        }
        producer.is_named_by_sender = is_made_up;
        let cname = producer.cname().filter(|_| is_made_up).unwrap_or(cname);
        let clock = self.reports.clocks.join(producer.room, cname);
        self.use_clock(key, clock);
    }

    /// The reports of a producer's streams count for this clock from now on.
    pub(super) fn use_clock(&mut self, key: ProducerKey, clock: ClockKey) {
        let producer = &mut self.producers[key];
        if let Some(before) = producer.clock.replace(clock) {
            self.reports.clocks.leave(before);
        }
        let Some(clock) = self.reports.clocks.get_mut(producer.clock) else {
            return;
        };
        for stream in &producer.streams {
            if let Some(report) = stream.sender_report {
                clock.on_report(report.arrived, report.ntp);
            }
        }
    }

    /// A producer is closed.
    pub(super) fn leave_clock(&mut self, producer: &Producer) {
        if let Some(clock) = producer.clock {
            self.reports.clocks.leave(clock);
        }
    }

    /// A consumer is closed: its receiver is told that nothing more will come (RFC 3550 §6.6), if anything has.
    pub(super) fn on_consumer_left(&mut self, consumer: &Consumer) {
        let transport = &mut self.transports[consumer.transport];
        if consumer.rewriter.newest_seq().is_none() || !has_rtcp_remote(transport) {
            return;
        }
        if transport.reports.left.is_empty() {
            self.reports.left.push_back(consumer.transport);
        }
        transport.reports.left.push(consumer.ssrc);
        transport.reports.left.extend(consumer.begun_rtx_ssrc());
    }

    /// A transport is closed: what it has still to say cannot wait.
    pub(super) fn on_transport_left(&mut self, transport: Transport) {
        let left = transport.reports.left;
        if !left.is_empty() {
            self.reports.pending_byes.push((transport.index, left));
        }
        if self.transports.is_empty() {
            self.reports.due.clear();
            self.reports.left.clear();
        }
    }

    /// Limits what the senders of a transport may send in all, or ends that.
    pub(super) fn set_max_bitrate(&mut self, id: TransportId, bitrate: Option<u64>) -> Result<(), WorkerError> {
        let key = self.find_transport(id)?;
        let reports = &mut self.transports[key].reports;
        if reports.max_bitrate == bitrate {
            return Ok(());
        }
        reports.max_bitrate = bitrate;
        reports.unlimited = if bitrate.is_none() { UNLIMITED_REPEATS } else { 0 };
        self.reports.limited.push(key);
        Ok(())
    }

    /// Sends the reports that are due, a turn's worth of them.
    pub(super) fn send_reports(&mut self, now: Time, sink: &mut impl Sink) {
        self.send_pending_byes(sink);
        self.send_byes(sink);
        while let Some(key) = self.reports.limited.pop() {
            if let Some(transport) = self.transports.get_mut(key)
                && has_rtcp_remote(transport)
            {
                let cname = reporter_cname(self.ssrc);
                self.reports
                    .push_limit(&self.producers, transport, self.ssrc, &cname, sink);
                self.reports.flush(transport, sink);
            }
        }
        for _ in 0..TURN_PARTS_MAX {
            let Some(Reverse((due, key))) = self.reports.due.peek().copied() else {
                return;
            };
            if due > now {
                return;
            }
            self.reports.due.pop();
            let Some(transport) = self.transports.get_mut(key) else {
                continue;
            };
            if transport.producers.is_empty() && transport.consumers.is_empty() {
                transport.reports.is_scheduled = false;
                continue;
            }
            let is_complete = !has_rtcp_remote(transport) || self.send_part(now, key, sink);
            let next = if is_complete {
                together(now + self.reports.scaled(INTERVAL))
            } else {
                now + PART_INTERVAL
            };
            self.reports.due.push(Reverse((next, key)));
        }
    }

    /// Tells receivers of consumers that are closed, on transports that are not.
    fn send_byes(&mut self, sink: &mut impl Sink) {
        let mut packets = 0;
        while packets < TURN_BYES_MAX
            && let Some(key) = self.reports.left.pop_front()
        {
            let Some(transport) = self.transports.get_mut(key) else {
                continue;
            };
            for ssrcs in transport.reports.left.chunks(ITEMS_MAX) {
                let len = write_bye(&mut self.reports.compound, &mut self.reports.packet, self.ssrc, ssrcs);
                transport.counters.rtcp_sent += 1;
                sink.send_rtcp(transport.index, &self.reports.packet[..len]);
                packets += 1;
            }
            transport.reports.left.clear();
        }
    }

    /// Sends a part of a transport's report. `true` when that was the last one.
    fn send_part(&mut self, now: Time, key: TransportKey, sink: &mut impl Sink) -> bool {
        let Self {
            reports,
            transports,
            producers,
            consumers,
            ssrc,
            ..
        } = self;
        let transport = &mut transports[key];
        let cname = reporter_cname(*ssrc);
        let mut packets = 0;
        let mut at = match transport.reports.next_consumer.take() {
            Some(at) => at,
            None => {
                packets += reports.push_reception(now, producers, transport, *ssrc, &cname, sink);
                0
            }
        };
        let end = transport.consumers.len().min(at + PART_CONSUMERS_MAX);
        while at < end && packets < PART_PACKETS_MAX {
            let consumer = &mut consumers[transport.consumers[at]];
            at += 1;
            let producer = &producers[consumer.producer];
            let Some(info) = sender_info(now, reports, consumer, producer) else {
                continue;
            };
            let cname = consumer.transmission.cname(producer).as_bytes();
            if !reports.compound.push_sender_report(consumer.ssrc, cname, &info) {
                packets += reports.flush(transport, sink);
                reports.compound.push_sender_report(consumer.ssrc, cname, &info);
            }
            // What is sent again is the same endpoint's.
            if let Some(rtx) = consumer.begun_rtx_ssrc()
                && !reports.compound.push_source(rtx, cname)
            {
                packets += reports.flush(transport, sink);
                reports.begin(*ssrc, &reporter_cname(*ssrc));
                reports.compound.push_source(rtx, cname);
            }
            consumer.transmission.on_report_sent(now, info.ntp);
        }
        reports.flush(transport, sink);
        if at < transport.consumers.len() {
            transport.reports.next_consumer = Some(at);
            return false;
        }
        true
    }
}

impl Reports {
    /// What there is to say of streams received, and to their senders. Returns how many packets were sent; what is left is
    /// in the compound packet.
    fn push_reception(
        &mut self,
        now: Time,
        producers: &mut SlotMap<ProducerKey, Producer>,
        transport: &mut Transport,
        ssrc: u32,
        cname: &[u8],
        sink: &mut impl Sink,
    ) -> usize {
        let mut packets = 0;
        let mut has_senders = false;
        self.blocks.clear();
        for index in 0..transport.producers.len() {
            for stream in &mut producers[transport.producers[index]].streams {
                let report = stream.reported_ntp;
                let media = stream.ssrc.and_then(|media| stream.reception.block(now, media, report));
                let rtx = stream
                    .rtx_ssrc
                    .and_then(|rtx| stream.rtx_reception.block(now, rtx, stream.rtx_report));
                for block in [media, rtx].into_iter().flatten() {
                    has_senders = true;
                    self.blocks.push(block);
                    if self.blocks.len() == ITEMS_MAX {
                        packets += self.push_blocks(transport, ssrc, cname, sink);
                    }
                }
            }
        }
        packets += self.push_blocks(transport, ssrc, cname, sink);
        if has_senders {
            let ntp = self.wall_clock.ntp(now);
            let mut packet = [0; xr::REFERENCE_TIME_LEN];
            xr::write_reference_time(&mut packet, ssrc, ntp);
            packets += self.push_packet(transport, ssrc, cname, &packet, sink);
            transport.reports.references.on_sent(now, ntp);
        }
        let mut delays = [Delay {
            ssrc: 0,
            reference: 0,
            since: 0,
        }; REFERENCES_MAX];
        let mut count = 0;
        for heard in &mut transport.reports.received_references {
            if let Some((ssrc, reference, at)) = heard.take() {
                delays[count] = Delay {
                    ssrc,
                    reference,
                    since: in_65536ths(now.since(at)),
                };
                count += 1;
            }
        }
        if count > 0 {
            let mut packet = [0; xr::delays_len(REFERENCES_MAX)];
            let len = xr::write_delays(&mut packet, ssrc, &delays[..count]);
            packets += self.push_packet(transport, ssrc, cname, &packet[..len], sink);
        }
        packets + self.push_limit(producers, transport, ssrc, cname, sink)
    }

    /// Adds the blocks that were collected, as a receiver report or two.
    fn push_blocks(&mut self, transport: &mut Transport, ssrc: u32, cname: &[u8], sink: &mut impl Sink) -> usize {
        let mut packets = 0;
        let mut blocks = std::mem::take(&mut self.blocks);
        let mut rest = &blocks[..];
        while !rest.is_empty() {
            let count = self.compound.blocks_that_fit(ssrc, cname).min(rest.len());
            let (now, later) = rest.split_at(count);
            if count > 0 && self.compound.push_receiver_report(ssrc, cname, now) {
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
    fn push_packet(
        &mut self,
        transport: &mut Transport,
        ssrc: u32,
        cname: &[u8],
        packet: &[u8],
        sink: &mut impl Sink,
    ) -> usize {
        let mut packets = 0;
        self.begin(ssrc, cname);
        if !self.compound.push_packet(packet) {
            packets += self.flush(transport, sink);
            self.begin(ssrc, cname);
            self.compound.push_packet(packet);
        }
        packets
    }

    /// A compound packet begins with a report, if with an empty one.
    fn begin(&mut self, ssrc: u32, cname: &[u8]) {
        if self.compound.is_empty() {
            self.compound.push_receiver_report(ssrc, cname, &[]);
        }
    }

    /// Adds the limit of what a transport's senders may send, if there is one, or has been until a moment ago.
    fn push_limit(
        &mut self,
        producers: &SlotMap<ProducerKey, Producer>,
        transport: &mut Transport,
        ssrc: u32,
        cname: &[u8],
        sink: &mut impl Sink,
    ) -> usize {
        let bitrate = match transport.reports.max_bitrate {
            Some(bitrate) => bitrate,
            None if transport.reports.unlimited > 0 => UNLIMITED_BPS,
            None => return 0,
        };
        self.ssrcs.clear();
        for producer in transport.producers.iter().map(|key| &producers[*key]) {
            let heeding = producer
                .streams
                .iter()
                .filter(|stream| producer.main_codec(stream.reception.payload_type()).remb);
            let room = SSRCS_MAX - self.ssrcs.len();
            self.ssrcs.extend(heeding.filter_map(|stream| stream.ssrc).take(room));
        }
        if self.ssrcs.is_empty() {
            return 0;
        }
        transport.reports.unlimited = transport.reports.unlimited.saturating_sub(1);
        let mut packet = [0; remb_len(SSRCS_MAX)];
        let len = write_remb(&mut packet, ssrc, bitrate, &self.ssrcs);
        self.push_packet(transport, ssrc, cname, &packet[..len], sink)
    }
}

/// The last moment up to this one that reports are sent at.
fn together(due: Time) -> Time {
    let step = TOGETHER.as_nanos() as u64;
    Time(due.0 / step * step)
}

/// Whether there is somebody to report to.
pub(super) fn has_rtcp_remote(transport: &Transport) -> bool {
    transport
        .remote
        .is_some_and(|remote| transport.kind.rtcp_mux() || remote.rtcp_or_next().is_some())
}

/// What a consumer's sender report says; `None` while it sends nothing.
fn sender_info(now: Time, reports: &Reports, consumer: &mut Consumer, producer: &Producer) -> Option<SenderInfo> {
    let is_sender = consumer.transmission.is_sender();
    if !is_sender || consumer.paused || producer.paused {
        return None;
    }
    Some(SenderInfo {
        ntp: reports.wall_clock.ntp(now),
        rtp: media_time(now, &reports.clocks, consumer, producer)? as u32,
        packets: consumer.transmission.packets as u32,
        octets: consumer.transmission.octets as u32,
    })
}

/// The timestamp that a consumer's media has now: by the sender's reports on the stream that flows (RFC 3550 §6.4.1: NTP
/// and RTP timestamp of a report are the same instant), placed as `sender_clock` says; until there are any, by the newest
/// packet and the time since.
fn media_time(now: Time, clocks: &Clocks, consumer: &Consumer, producer: &Producer) -> Option<u64> {
    let (encoding, restarts) = consumer.rewriter.timeline()?;
    let stream = producer.streams.get(usize::from(encoding))?;
    let rate = producer.main_codec(Some(consumer.transmission.payload_type)).clock_rate;
    let ticks = |ns: i128| (ns * i128::from(rate) / 1_000_000_000) as i64;
    let (newest, sent_at) = consumer.rewriter.newest_timestamp();
    let by_arrival = newest.wrapping_add_signed(ticks(now.since(sent_at).as_nanos().cast_signed()));
    let Some(TimeReport {
        ntp,
        timestamp,
        arrived,
    }) = stream.sender_report
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

/// Writes a goodbye of at most 31 sources (RFC 3550 §6.6), and returns its length.
fn write_bye(compound: &mut Compound, out: &mut [u8], reporter: u32, ssrcs: &[u32]) -> usize {
    let ssrcs = &ssrcs[..ssrcs.len().min(ITEMS_MAX)];
    let mut packet = [0; 4 + 4 * ITEMS_MAX];
    packet[..4].copy_from_slice(&[0x80 | ssrcs.len() as u8, Bye::PACKET_TYPE, 0, ssrcs.len() as u8]);
    for (ssrc, out) in ssrcs.iter().zip(packet[4..].as_chunks_mut::<4>().0) {
        *out = ssrc.to_be_bytes();
    }
    compound.push_receiver_report(reporter, &reporter_cname(reporter), &[]);
    compound.push_packet(&packet[..4 + 4 * ssrcs.len()]);
    compound.write(out)
}
