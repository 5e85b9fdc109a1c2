//! What receivers miss: negative acknowledgements answered from the ring of the stream that the packet was of.
//!
//! A consumer keeps no packets. It keeps its last *segments*: from each start to the next one, which stream flowed and what
//! was added to its numbers. A number that a receiver names falls into one segment, which says which packet of which
//! stream it was, and how it looked; the packet is in the stream's [ring](super::ring), with the time of sending that it
//! left with. So what is sent again is byte for byte what was sent, or would have been, as it must be where it is protected
//! under the same index again (RFC 3711 §9.1). A retransmission in a stream of its own (RFC 4588) is another packet, and
//! says when it itself was sent.

use std::time::Duration;

use weir_channel::message::{ConsumerRtx, CreateConsumer, NotRepaired};

use crate::rtp::packet::{FIXED_LEN, rewrite};
use crate::rtp::rtx::{OSN_LEN, wrap};
use crate::rtp::seq::nearest;
use crate::time::Time;

use super::Relay;
use super::consumer::rename_extensions;
use super::fanout::patch;
use super::keys::{ConsumerKey, TransportKey};
use super::limits::RING_CHUNK_BYTES;
use super::packet::PacketMeta;
use super::rewrite::Offsets;
use super::sink::Sink;
use super::transmission::Transmission;

/// Starts and switches that are remembered. More of them within the age of a ring are not worth repairing.
const SEGMENTS: usize = 8;

/// Packets of which is remembered when they were sent again.
const RECENT: usize = 512;

/// Pairs of one RTCP packet that are answered; each may name 17 packets.
const PAIRS_MAX: usize = 128;

/// The least that a receiver may be sent again, in bytes per second, however little it is sent.
const REPAIR_RATE_MIN: u64 = 16_000;

/// The least that it may be sent again at once, in bytes.
const REPAIR_BURST_MIN: u64 = 64_000;

/// Packets that a receiver may name in its requests, per second. Each is looked for, also if there is nothing to send; a
/// receiver that lost 2 Mbit/s wholly, and asks five times for each packet, names a thousand.
const NACKED_RATE: u64 = 5_000;

/// As many may be named at once.
const NACKED_BURST: u64 = 2_000;

/// What a consumer needs to be sent packets again.
#[derive(Debug)]
pub(super) struct Repair {
    /// By their count modulo their number.
    segments: [Segment; SEGMENTS],
    /// Starts made.
    starts: u64,
    /// By sequence number modulo their number; another packet with the same place is forgotten.
    recent: Box<[Recent]>,
    /// Packets that may be named.
    names: Bucket,
    /// Bytes that may be sent again: as many as are sent for the first time, with bursts of half a second. A receiver that
    /// lacks more needs another profile, not more packets; and who asks for everything twice gets no more than twice as much.
    budget: Bucket,
    rtx: Option<Rtx>,
    /// Packets sent again.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    refused: [u64; NotRepaired::ALL.len()],
}

/// What flowed from one start to the next.
#[derive(Clone, Copy, Debug, Default)]
struct Segment {
    /// The first sequence number sent, extended.
    first: u64,
    offsets: Offsets,
    encoding: u8,
    epoch: u32,
}

/// What fills the place of a packet that was taken for one to be sent until it came, and was one to be withheld: nothing but
/// padding, so that the receiver need not take the number for a loss.
struct PaddingPacket {
    packet: PacketMeta,
    bytes: [u8; Self::LEN],
}

impl PaddingPacket {
    const LEN: usize = FIXED_LEN + 4;

    /// The packet that a consumer's number and newest timestamp make of this one.
    fn under(transmission: &Transmission, timestamp: u64, segment: Segment, seq: u64) -> Self {
        let mut bytes = [0; Self::LEN];
        // Version 2, with padding; its last byte counts it (RFC 3550 §5.1).
        bytes[0] = 0xa0;
        bytes[Self::LEN - 1] = 4;
        let packet = PacketMeta {
            len: Self::LEN as u32,
            seq: seq.wrapping_sub(segment.offsets.seq),
            timestamp: segment.offsets.source_timestamp(timestamp),
            encoding: segment.encoding,
            payload_type: transmission.payload_type,
            epoch: segment.epoch,
            payload_start: FIXED_LEN as u16,
            ..PacketMeta::default()
        };
        Self { packet, bytes }
    }
}

/// When a packet was sent again. The clock of 32 bits wraps after 49 days, and the number must be the same too.
#[derive(Clone, Copy, Debug)]
struct Recent {
    seq: u32,
    at_ms: u32,
}

/// How packets are sent again as a stream of their own (RFC 4588).
#[derive(Debug)]
struct Rtx {
    ssrc: u32,
    /// A packet was sent.
    is_begun: bool,
    /// The number before the first one, extended.
    before_first: u64,
    /// Of the last one, extended.
    seq: u64,
    /// By the consumer's payload type.
    payload_types: [Option<u8>; 128],
}

impl Repair {
    /// `before_first_rtx`: RFC 4588 §4 wants the sequence to begin at random.
    pub(super) fn new(request: &CreateConsumer, now: Time, before_first_rtx: u64) -> Self {
        let rtx = |rtx: &ConsumerRtx| {
            let mut payload_types = [None; 128];
            for (own, again) in &rtx.payload_types {
                payload_types[usize::from(own & 0x7f)] = Some(*again);
            }
            Rtx {
                ssrc: rtx.ssrc,
                is_begun: false,
                before_first: before_first_rtx,
                seq: before_first_rtx,
                payload_types,
            }
        };
        Self {
            segments: [Segment::default(); SEGMENTS],
            starts: 0,
            recent: vec![Recent { seq: 0, at_ms: 1 << 31 }; RECENT].into_boxed_slice(),
            names: Bucket {
                level: NACKED_BURST,
                at: now,
            },
            budget: Bucket {
                level: REPAIR_BURST_MIN,
                at: now,
            },
            rtx: request.rtx.as_ref().map(rtx),
            packets: 0,
            bytes: 0,
            refused: [0; NotRepaired::ALL.len()],
        }
    }

    /// A flow starts on this packet, with these offsets, and with so many numbers before it for what it has overtaken.
    pub(super) fn on_start(&mut self, packet: &PacketMeta, offsets: Offsets, reserve: u64) {
        self.segments[self.starts as usize % SEGMENTS] = Segment {
            first: offsets.seq_of(packet) - reserve,
            offsets,
            encoding: packet.encoding,
            epoch: packet.epoch,
        };
        self.starts += 1;
    }

    /// The offsets of what flows are others from some timestamp on.
    pub(super) fn on_offsets(&mut self, offsets: Offsets) {
        if let Some(last) = self.starts.checked_sub(1) {
            self.segments[last as usize % SEGMENTS].offsets = offsets;
        }
    }

    /// The segment that a sequence number was sent in; `newest` is the newest one sent.
    fn segment_of(&self, seq: u64, newest: u64) -> Result<Segment, NotRepaired> {
        if seq > newest {
            return Err(NotRepaired::NeverSent);
        }
        let remembered = self.starts.saturating_sub(SEGMENTS as u64)..self.starts;
        let is_whole_life = remembered.start == 0;
        let found = remembered
            .rev()
            .map(|start| self.segments[start as usize % SEGMENTS])
            .find(|segment| segment.first <= seq);
        found.ok_or(if is_whole_life {
            NotRepaired::NeverSent
        } else {
            NotRepaired::TooOld
        })
    }

    fn recent(&mut self, seq: u64) -> &mut Recent {
        &mut self.recent[seq as usize % RECENT]
    }

    fn was_sent_within(&mut self, seq: u64, now: Time, interval: Duration) -> bool {
        let recent = *self.recent(seq);
        recent.seq == seq as u32 && u128::from(millis(now).wrapping_sub(recent.at_ms)) < interval.as_millis()
    }

    fn refuse(&mut self, reason: NotRepaired, packets: u32) {
        self.refused[reason as usize] += u64::from(packets);
    }

    /// The SSRC that packets were sent again under, if any were.
    pub(super) fn begun_rtx_ssrc(&self) -> Option<u32> {
        self.rtx.as_ref().filter(|rtx| rtx.is_begun).map(|rtx| rtx.ssrc)
    }

    /// That SSRC, and the last number used under it, extended. One that could not be sent may have been protected, too.
    pub(super) fn last_rtx(&self) -> Option<(u32, u64)> {
        let rtx = self.rtx.as_ref()?;
        (rtx.seq != rtx.before_first).then_some((rtx.ssrc, rtx.seq))
    }

    /// What was not sent again, and why.
    pub(super) fn refusals(&self) -> Vec<(NotRepaired, u64)> {
        NotRepaired::ALL
            .into_iter()
            .map(|reason| (reason, self.refused[reason as usize]))
            .filter(|(_, count)| *count > 0)
            .collect()
    }
}

fn millis(now: Time) -> u32 {
    (now.0 / 1_000_000) as u32
}

/// What may be taken at some rate per second.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    level: u64,
    /// When it was that high.
    at: Time,
}

impl Bucket {
    /// Takes `amount` if there is so much. It fills at `rate`, up to `burst`.
    fn take(&mut self, now: Time, amount: u64, rate: u64, burst: u64) -> bool {
        // A long time fills it in any case, and must not overflow.
        let elapsed_us = now.since(self.at).as_micros().min(10_000_000) as u64;
        let earned = rate.saturating_mul(elapsed_us) / 1_000_000;
        if earned > 0 {
            self.at = now;
        }
        self.level = self.level.saturating_add(earned).min(burst);
        let is_enough = self.level >= amount;
        if is_enough {
            self.level -= amount;
        }
        is_enough
    }
}

/// Packets that receivers ask for, from the reading of an RTCP packet to its answer.
#[derive(Debug)]
pub(super) struct IncomingNacks {
    pairs: Vec<Request>,
    /// A packet on its way out.
    packet: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
struct Request {
    consumer: ConsumerKey,
    pid: u16,
    blp: u16,
}

impl IncomingNacks {
    pub(super) fn new() -> Self {
        Self {
            pairs: Vec::with_capacity(PAIRS_MAX),
            packet: Vec::with_capacity(OSN_LEN + RING_CHUNK_BYTES),
        }
    }
}

impl Relay {
    /// A receiver misses packets (RFC 4585 §6.2.1). They are sent by [`Relay::answer_nacks`]. `first`: the pair begins a
    /// packet, and packets are what is counted.
    pub(super) fn on_nack(
        &mut self,
        now: Time,
        transport: TransportKey,
        media_ssrc: u32,
        (pid, blp): (u16, u16),
        first: bool,
    ) {
        let Some(key) = self.transports[transport].consumer_ssrcs.get(&media_ssrc).copied() else {
            return;
        };
        let consumer = &mut self.consumers[key];
        consumer.nack_count += u64::from(first);
        let Some(repair) = &mut consumer.repair else {
            return;
        };
        let named = 1 + blp.count_ones();
        if self.requests.pairs.len() == PAIRS_MAX
            || !repair.names.take(now, u64::from(named), NACKED_RATE, NACKED_BURST)
        {
            repair.refuse(NotRepaired::OverBudget, named);
            return;
        }
        self.requests.pairs.push(Request {
            consumer: key,
            pid,
            blp,
        });
    }

    /// Sends again what the RTCP packet that was just read asks for.
    #[inline]
    pub(super) fn answer_nacks(&mut self, now: Time, sink: &mut impl Sink) {
        if !self.requests.pairs.is_empty() {
            self.answer_all(now, sink);
        }
    }

    fn answer_all(&mut self, now: Time, sink: &mut impl Sink) {
        let mut pairs = std::mem::take(&mut self.requests.pairs);
        let mut packet = std::mem::take(&mut self.requests.packet);
        for request in pairs.drain(..) {
            let consumer = &self.consumers[request.consumer];
            if consumer.repair.is_none() {
                continue;
            }
            let newest = consumer.rewriter.newest();
            let first = nearest(newest, request.pid);
            for offset in (0..=16_u64).filter(|offset| *offset == 0 || request.blp >> (offset - 1) & 1 == 1) {
                let seq = first.wrapping_add(offset);
                let answered = self.send_again(now, request.consumer, seq, &mut packet, sink);
                let Some(repair) = &mut self.consumers[request.consumer].repair else {
                    break;
                };
                match answered {
                    Ok(bytes) => {
                        repair.packets += 1;
                        repair.bytes += bytes as u64;
                    }
                    Err(reason) => repair.refuse(reason, 1),
                }
            }
        }
        self.requests.pairs = pairs;
        self.requests.packet = packet;
    }

    /// Sends one packet of a consumer again; returns its length.
    fn send_again(
        &mut self,
        now: Time,
        key: ConsumerKey,
        seq: u64,
        buffer: &mut Vec<u8>,
        sink: &mut impl Sink,
    ) -> Result<usize, NotRepaired> {
        let consumer = &mut self.consumers[key];
        let producer = &self.producers[consumer.producer];
        // What was sent before a pause is of no use after it, and during it nothing may be sent.
        let repair = consumer
            .repair
            .as_mut()
            .filter(|_| !consumer.paused)
            .ok_or(NotRepaired::TooOld)?;
        let segment = repair.segment_of(seq, consumer.rewriter.newest())?;
        // A little less than a round trip, because the other end reckons with one of its own.
        let round_trip = consumer.round_trip.estimate();
        if repair.was_sent_within(seq, now, round_trip - round_trip / 8) {
            return Err(NotRepaired::TooSoon);
        }
        let stream = &producer.streams[usize::from(segment.encoding)];
        let folded = seq.wrapping_sub(segment.offsets.seq);
        let slot = segment.offsets.slot;
        let source_seq = stream.source(segment.epoch, slot, folded).ok_or(NotRepaired::TooOld)?;
        let kept = stream
            .ring
            .as_ref()
            .and_then(|ring| ring.get(now, source_seq, segment.epoch));
        // Who has caught up with a group of pictures was sent packets that came long ago.
        let kept = kept.or_else(|| stream.gop.as_ref()?.find(source_seq, segment.epoch));
        // What came too late to be withheld without a trace is withheld all the same.
        let kept = kept.filter(|(packet, _)| consumer.payload_types.own(packet.payload_type).is_some());
        let hole;
        let kept = match kept {
            None if stream.is_hole(segment.epoch, slot, source_seq) => {
                // Without a stream of their own, what is sent again must be the same bytes; these depend on what came last.
                if repair.rtx.is_none() && repair.recent(seq).seq == seq as u32 {
                    return Err(NotRepaired::TooSoon);
                }
                hole = PaddingPacket::under(
                    &consumer.transmission,
                    consumer.rewriter.newest_timestamp().0,
                    segment,
                    seq,
                );
                Some((hole.packet, &hole.bytes[..]))
            }
            kept => kept,
        };
        let Some((packet, bytes)) = kept else {
            let is_missing = stream.epoch == segment.epoch && stream.is_missing(source_seq);
            return Err(if is_missing {
                NotRepaired::NotReceived
            } else {
                NotRepaired::TooOld
            });
        };
        // A number stands for one packet and for ever.
        if segment.offsets.seq_of(&packet) != seq {
            return Err(NotRepaired::TooOld);
        }
        let payload_type = consumer
            .payload_types
            .own(packet.payload_type)
            .ok_or(NotRepaired::NeverSent)?;
        let rate = (consumer.rate.bitrate(now) / 8).max(REPAIR_RATE_MIN);
        let burst = (rate / 2).max(REPAIR_BURST_MIN);
        if !repair.budget.take(now, bytes.len() as u64, rate, burst) {
            return Err(NotRepaired::OverBudget);
        }

        buffer.clear();
        buffer.extend_from_slice(&[0; OSN_LEN]);
        buffer.extend_from_slice(bytes);
        let numbers = segment.offsets.numbers(&packet);
        let original = &mut buffer[OSN_LEN..];
        patch(original, &packet, payload_type, consumer.ssrc, numbers);
        let rtx = repair.rtx.as_mut().and_then(|rtx| {
            let again = rtx.payload_types[usize::from(payload_type & 0x7f)]?;
            Some((rtx, again))
        });
        let is_rtx = rtx.is_some();
        if let Some(block) = packet.extension {
            if rtx.is_some() {
                producer.stamp_send_time(now, original, block);
            }
            if let Some(fates) = &consumer.renames {
                rename_extensions(fates, original, block);
            }
        }
        let out = match rtx {
            None => &buffer[OSN_LEN..],
            Some((rtx, again)) => {
                let len = wrap(buffer, usize::from(packet.payload_start), numbers.seq).ok_or(NotRepaired::NeverSent)?;
                rtx.seq += 1;
                rewrite(buffer, again, rtx.seq as u16, numbers.timestamp, rtx.ssrc);
                &buffer[..len]
            }
        };
        let len = out.len();
        if !sink.resend(consumer.transport_index, out) {
            return Err(NotRepaired::SendFailed);
        }
        match &mut repair.rtx {
            Some(rtx) if is_rtx => rtx.is_begun = true,
            // Under the media's SSRC it is one more of its packets.
            _ => {
                consumer.transmission.packets += 1;
                consumer.transmission.octets += u64::from(packet.payload_len);
            }
        }
        *repair.recent(seq) = Recent {
            seq: seq as u32,
            at_ms: millis(now),
        };
        Ok(len)
    }
}
