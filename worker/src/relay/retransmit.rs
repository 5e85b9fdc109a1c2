//! Negative acknowledgements of receivers (RFC 4585 §6.2.1), from the reading of an RTCP packet to the packets that are sent
//! again: as they were, or in a stream of retransmissions (RFC 4588).

use weir_channel::message::NotRepaired;

use crate::page::Page;
use crate::page::layout::consumer::AGAIN;
use crate::rtp::packet::rewrite;
use crate::rtp::rtx::{OSN_LEN, wrap};
use crate::rtp::seq::nearest;
use crate::time::Time;

use super::consumer::{Consumer, Consumers, rename_extensions};
use super::forward::{Totals, patch};
use super::keys::ConsumerKey;
use super::limits::RING_CHUNK_BYTES;
use super::producer::{Producer, Producers};
use super::repair::{NACKED_BURST, NACKED_RATE, PaddingPacket, REPAIR_BURST_MIN, REPAIR_RATE_MIN, Recent, millis};
use super::sink::Sink;

/// Pairs of one RTCP packet that are answered; each may name 17 packets.
const PAIRS_MAX: usize = 128;

/// Packets that receivers ask for, from the reading of an RTCP packet to its answer.
#[derive(Debug)]
pub(super) struct IncomingNacks {
    pairs: Vec<Request>,
    /// The packet that is being sent again.
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

    /// A receiver misses packets. They are sent by [`IncomingNacks::answer`]. `first`: the pair begins a packet, and packets
    /// are what is counted.
    pub(super) fn push(&mut self, now: Time, consumer: &mut Consumer, (pid, blp): (u16, u16), first: bool) {
        consumer.nack_count += u64::from(first);
        let Some(repair) = &mut consumer.repair else {
            return;
        };
        let named = 1 + blp.count_ones();
        if self.pairs.len() == PAIRS_MAX || !repair.names.take(now, u64::from(named), NACKED_RATE, NACKED_BURST) {
            repair.refuse(NotRepaired::OverBudget, named);
            return;
        }
        self.pairs.push(Request {
            consumer: consumer.key,
            pid,
            blp,
        });
    }

    /// Sends again what the RTCP packet that was just read asks for.
    #[inline]
    pub(super) fn answer(
        &mut self,
        now: Time,
        consumers: &mut Consumers,
        producers: &Producers,
        page: &Page,
        sink: &mut impl Sink,
    ) {
        if !self.pairs.is_empty() {
            self.answer_all(now, consumers, producers, page, sink);
        }
    }

    fn answer_all(
        &mut self,
        now: Time,
        consumers: &mut Consumers,
        producers: &Producers,
        page: &Page,
        sink: &mut impl Sink,
    ) {
        for request in self.pairs.drain(..) {
            let consumer = &mut consumers[request.consumer];
            let producer = &producers[consumer.producer];
            let first = nearest(consumer.rewriter.newest(), request.pid);
            for offset in (0..=16_u64).filter(|offset| *offset == 0 || request.blp >> (offset - 1) & 1 == 1) {
                let seq = first.wrapping_add(offset);
                let answered = send_again(now, consumer, producer, seq, &mut self.packet, page, sink);
                let Some(repair) = &mut consumer.repair else {
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
    }
}

/// Sends one packet of a consumer again; returns its length.
fn send_again(
    now: Time,
    consumer: &mut Consumer,
    producer: &Producer,
    seq: u64,
    buffer: &mut Vec<u8>,
    page: &Page,
    sink: &mut impl Sink,
) -> Result<usize, NotRepaired> {
    let slot = consumer.slot(page);
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
    let filter = segment.offsets.slot;
    let source_seq = stream
        .source(segment.epoch, filter, folded)
        .ok_or(NotRepaired::TooOld)?;
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
        None if stream.is_hole(segment.epoch, filter, source_seq) => {
            // Without a stream of their own, what is sent again must be the same bytes; these depend on what came last.
            if repair.rtx.is_none() && repair.recent(seq).seq == seq as u32 {
                return Err(NotRepaired::TooSoon);
            }
            hole = PaddingPacket::under(
                consumer.last_payload_type,
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
            page.store_double(slot, AGAIN, rtx.seq);
            rewrite(buffer, again, rtx.seq as u16, numbers.timestamp, rtx.ssrc);
            &buffer[..len]
        }
    };
    let len = out.len();
    if !sink.resend(consumer.transport_index, out) {
        return Err(NotRepaired::SendFailed);
    }
    let mut has_begun = false;
    match &mut repair.rtx {
        Some(rtx) if is_rtx => has_begun = !std::mem::replace(&mut rtx.is_begun, true),
        // Under the media's SSRC it is one more of its packets.
        _ => {
            if packet.padding_added > 0 {
                sink.note_padded(Totals::of(&[packet]).padded);
            }
            consumer.sent_beside += 1;
            consumer.octets += u64::from(packet.payload_len);
        }
    }
    *repair.recent(seq) = Recent {
        seq: seq as u32,
        at_ms: millis(now),
    };
    if has_begun {
        consumer.keep_flow(page);
    }
    Ok(len)
}
