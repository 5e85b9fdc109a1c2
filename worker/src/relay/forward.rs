//! A train at one consumer: which of its packets go, with which numbers, and what is sent beside them at a start.

use std::ops::Range;

use weir_channel::message::{DropReason, MediaKind};

use crate::page::Page;
use crate::rtp::codec::vp8;
use crate::rtp::packet::rewrite;
use crate::time::Time;

use super::consumer::Consumer;
use super::decide::{Disposition, Overtaken, decide};
use super::key_frame_assembly::RESERVED_SEQS;
use super::packet::PacketMeta;
use super::producer::Producer;
use super::rewrite::{Numbers, StartContext};
use super::sink::{Padded, Sink};

/// What a train did at one consumer.
#[derive(Clone, Copy, Default)]
pub(super) struct Forwarded {
    /// A flow started in it.
    pub started: bool,
    /// Its last packets wait for a key frame.
    pub waiting: bool,
    /// It is the first that the consumer sends after a rest.
    pub woke: bool,
}

/// Packets of one stream that lie end to end.
pub(super) struct Train<'a> {
    pub bytes: &'a mut [u8],
    pub packets: &'a [PacketMeta],
    pub totals: &'a Totals,
    /// How many were handed to the stream's consumers before.
    pub ordinal: u64,
}

/// What is counted of the packets of a run, added up once for all consumers that get the run whole.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Totals {
    /// Payload bytes, without padding.
    octets: u64,
    pub(super) padded: Padded,
}

impl Totals {
    pub(super) fn of(packets: &[PacketMeta]) -> Self {
        packets.iter().fold(Self::default(), |totals, packet| Self {
            octets: totals.octets + u64::from(packet.payload_len),
            padded: Padded {
                packets: totals.padded.packets + u64::from(packet.padding_added > 0),
                bytes: totals.padded.bytes + u64::from(packet.padding_added),
            },
        })
    }
}

/// Decides for each packet of a train, patches those that go, and hands over each unbroken run of them.
pub(super) fn forward(
    consumer: &mut Consumer,
    producer: &Producer,
    now: Time,
    train: Train<'_>,
    (saved, held): (&mut Vec<u8>, &mut Vec<u8>),
    page: &Page,
    sink: &mut impl Sink,
) -> Forwarded {
    let Train {
        bytes,
        packets,
        totals,
        ordinal,
    } = train;
    let renames = consumer.has_renames;
    if renames {
        save_extensions(bytes, packets, saved);
    }
    let mut passage = Forwarded::default();
    let mut run = 0;
    let mut overtaken = None;
    for (index, packet) in packets.iter().enumerate() {
        let payload_type = consumer.payload_type(packet.payload_type);
        let slot = consumer.rewriter.slot();
        let mut disposition = decide(packet, &consumer.flow, &consumer.overtaken, slot, payload_type);
        if disposition == Disposition::Start {
            let before = ordinal + index as u64;
            match first_of(producer, packet, now) {
                Some(first) => {
                    send_run(consumer, now, bytes, &packets[run..index], None, page, sink);
                    run = index;
                    start(consumer, producer, &first, (packet.may_be_preceded, false), now, page);
                    let stream = (packet.encoding, packet.epoch);
                    send_held(
                        consumer,
                        producer,
                        now,
                        stream,
                        (first.seq..packet.seq, before),
                        (held, page),
                        sink,
                    );
                    // What may be joined anywhere is joined here.
                    overtaken = consumer
                        .flow
                        .needs_key_frame
                        .then_some((stream, packet.seq + 1, before));
                    passage = Forwarded {
                        started: true,
                        ..Forwarded::default()
                    };
                }
                // It came before anybody waited, and is not kept.
                None => disposition = Disposition::Drop(DropReason::AwaitingKeyFrame),
            }
        }
        if let Disposition::Drop(reason) = disposition {
            consumer.dropped[reason as usize] += 1;
            passage.waiting |= reason == DropReason::AwaitingKeyFrame && !consumer.flow.is_catching_up;
            send_run(consumer, now, bytes, &packets[run..index], None, page, sink);
            run = index + 1;
            continue;
        }
        let numbers = consumer.rewriter.rewrite(packet, now);
        patch(
            bytes,
            packet,
            payload_type.unwrap_or(packet.payload_type),
            consumer.ssrc,
            numbers,
        );
        if let (true, Some(block)) = (renames, packet.extension) {
            consumer.rename_extensions(&mut bytes[packet.start as usize..], block);
        }
    }
    send_run(
        consumer,
        now,
        bytes,
        &packets[run..],
        (run == 0).then_some(totals),
        page,
        sink,
    );
    if renames {
        restore_extensions(bytes, packets, saved);
    }
    if let Some((stream, from, before)) = overtaken {
        send_held(
            consumer,
            producer,
            now,
            stream,
            (from..u64::MAX, before),
            (held, page),
            sink,
        );
    }
    passage.woke = consumer.wake();
    passage
}

/// The packet that a start begins with which this one completes, if it can still be had.
fn first_of(producer: &Producer, packet: &PacketMeta, now: Time) -> Option<PacketMeta> {
    if packet.first == packet.seq {
        return Some(*packet);
    }
    let ring = producer.streams[usize::from(packet.encoding)].ring.as_ref()?;
    ring.get(now, packet.first, packet.epoch).map(|(first, _)| first)
}

/// Sends what belongs to a start and has come before the packet that completes it: of the numbers in the range, what was
/// handed to the stream's consumers before this many packets.
#[cold]
fn send_held(
    consumer: &mut Consumer,
    producer: &Producer,
    now: Time,
    (encoding, epoch): (u8, u32),
    (seqs, before): (Range<u64>, u64),
    (buffer, page): (&mut Vec<u8>, &Page),
    sink: &mut impl Sink,
) {
    let stream = &producer.streams[usize::from(encoding)];
    let (Some(ring), Some(newest)) = (&stream.ring, stream.seq.newest()) else {
        return;
    };
    for seq in seqs.start..seqs.end.min(newest + 1) {
        if let Some((packet, bytes, ordinal)) = ring.find(now, seq, epoch)
            && ordinal < before
        {
            send_one(consumer, producer, now, (packet, bytes, ordinal), buffer, page, sink);
        }
    }
}

/// Sends a packet that was kept, which had this place among those that were handed to the stream's consumers. `buffer` is
/// memory for it.
pub(super) fn send_one(
    consumer: &mut Consumer,
    producer: &Producer,
    now: Time,
    (mut packet, bytes, ordinal): (PacketMeta, &[u8], u64),
    buffer: &mut Vec<u8>,
    page: &Page,
    sink: &mut impl Sink,
) {
    let Some(payload_type) = consumer.payload_type(packet.payload_type) else {
        return;
    };
    buffer.clear();
    buffer.extend_from_slice(bytes);
    packet.start = 0;
    let numbers = consumer.rewriter.rewrite(&packet, now);
    patch(buffer, &packet, payload_type, consumer.ssrc, numbers);
    if let Some(block) = packet.extension {
        // Who is sent it again under its own number gets the same bytes as now, and those are the ones that are kept.
        if consumer.repair.is_none() || consumer.rtx_ssrc.is_some() {
            producer.stamp_send_time(now, buffer, block);
        }
        consumer.rename_extensions(buffer, block);
    }
    consumer.on_held_packet(packet.encoding, ordinal);
    send_run(consumer, now, buffer, &[packet], None, page, sink);
}

/// The packet on which a flow begins.
pub(super) fn start(
    consumer: &mut Consumer,
    producer: &Producer,
    packet: &PacketMeta,
    (may_be_preceded, is_sped_up): (bool, bool),
    now: Time,
    page: &Page,
) {
    let stream = &producer.streams[usize::from(packet.encoding)];
    // Numbers before the first that a receiver ever gets are nobody's loss.
    let reserve = if may_be_preceded && consumer.rewriter.timeline().is_none() {
        RESERVED_SEQS
    } else {
        0
    };
    let context = StartContext {
        timeline: (packet.encoding, stream.restarts),
        clock_rate: producer.main_codec(Some(packet.payload_type)).clock_rate,
        aligned: consumer
            .flow
            .current
            .filter(|current| *current != packet.encoding)
            .and_then(|current| aligned(producer, current, packet)),
        reserve,
        is_sped_up,
        is_sound: producer.kind == MediaKind::Audio,
    };
    consumer.rewriter.start(packet, now, context);
    let slot = consumer.rewriter.slot();
    let flow = &mut consumer.flow;
    flow.current = Some(packet.encoding);
    flow.epoch = packet.epoch;
    flow.first_seq = packet.folded(slot);
    flow.sync_required = false;
    flow.is_catching_up = is_sped_up;
    consumer.overtaken = Overtaken {
        timestamp: packet.timestamp,
        early_seq: if reserve > 0 { packet.seq - reserve } else { u64::MAX },
    };
    consumer.keep_start(page, packet.seq);
    consumer.keep_flow(page);
    if let Some(repair) = &mut consumer.repair {
        repair.on_start(packet, consumer.rewriter.offsets(), reserve);
    }
}

/// When a packet was captured, on the timeline of another stream of the same sender, by the sender's reports on both
/// (RFC 3550 §6.4.1: NTP and RTP timestamp of a report are the same instant).
fn aligned(producer: &Producer, current: u8, packet: &PacketMeta) -> Option<u64> {
    let clock_rate = i128::from(producer.first_codec().clock_rate);
    let old = producer.streams.get(usize::from(current))?.sender_time.report?;
    let new = producer.streams[usize::from(packet.encoding)].sender_time.report?;
    let between_reports = ((i128::from(new.ntp) - i128::from(old.ntp)) * clock_rate) >> 32;
    let since_report = i128::from(packet.timestamp) - i128::from(new.timestamp);
    u64::try_from(i128::from(old.timestamp) + between_reports + since_report).ok()
}

/// Writes a consumer's numbers into a packet.
#[inline]
pub(super) fn patch(bytes: &mut [u8], packet: &PacketMeta, payload_type: u8, ssrc: u32, numbers: Numbers) {
    let bytes = &mut bytes[packet.start as usize..];
    rewrite(bytes, payload_type, numbers.seq, numbers.timestamp, ssrc);
    if let Some(ids) = &packet.vp8 {
        let payload = &mut bytes[usize::from(packet.payload_start)..];
        if let Some(id) = ids.picture_id {
            vp8::write_picture_id(&mut payload[usize::from(id.offset)..], id.wide, numbers.picture_id);
        }
        if let Some((offset, _)) = ids.tl0 {
            payload[usize::from(offset)] = numbers.tl0;
        }
    }
}

/// Gives an unbroken run of patched packets to the sink. `totals` are those of the run, if they are known.
#[inline]
fn send_run(
    consumer: &mut Consumer,
    now: Time,
    bytes: &[u8],
    run: &[PacketMeta],
    totals: Option<&Totals>,
    page: &Page,
    sink: &mut impl Sink,
) {
    let (Some(first), Some(last)) = (run.first(), run.last()) else {
        return;
    };
    let train = &bytes[first.start as usize..(last.start + last.len) as usize];
    let segment = first.len as usize;
    // Before anything is protected or sent: whoever follows this worker never uses these numbers again.
    consumer.keep_newest(page);
    let sent = if consumer.gathered {
        sink.gather(consumer.transport_index, consumer.key.index(), train, segment)
    } else {
        sink.send(consumer.transport_index, consumer.key.index(), train, segment)
    };
    let accepted = sent.accepted.min(run.len());
    let sent_bytes = if accepted == run.len() {
        train.len()
    } else {
        accepted * segment
    } as u64;
    consumer.forwarded += accepted as u64;
    let totals = match totals {
        Some(totals) if accepted == run.len() => *totals,
        _ => Totals::of(&run[..accepted]),
    };
    if totals.padded.packets > 0 {
        sink.note_padded(totals.padded);
    }
    consumer.octets += totals.octets;
    consumer.last_payload_type = last.payload_type;
    consumer.rate.add(now, sent_bytes);
    if accepted < run.len() {
        consumer.dropped[sent.reason as usize] += (run.len() - accepted) as u64;
    }
}

fn save_extensions(bytes: &[u8], train: &[PacketMeta], saved: &mut Vec<u8>) {
    saved.clear();
    for packet in train {
        if let Some(block) = packet.extension {
            let start = packet.start as usize + usize::from(block.start);
            saved.extend_from_slice(&bytes[start..start + usize::from(block.len)]);
        }
    }
}

fn restore_extensions(bytes: &mut [u8], train: &[PacketMeta], saved: &[u8]) {
    let mut rest = saved;
    for packet in train {
        if let Some(block) = packet.extension {
            let start = packet.start as usize + usize::from(block.start);
            let (own, others) = rest.split_at(usize::from(block.len));
            bytes[start..start + own.len()].copy_from_slice(own);
            rest = others;
        }
    }
}
