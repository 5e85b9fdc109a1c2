//! From the packets of a batch to trains on the consumers' transports.
//!
//! The packets of each stream are laid end to end as trains: runs of equal size, of which only the last may be shorter, so
//! that the kernel takes each as one message. A train that arrived as one (UDP_GRO) is used where it lies; packets that
//! arrived apart, or get longer, are copied together once, whatever the number of consumers. Then, consumer by consumer, the headers are
//! patched in place and the train is handed over. All patched fields are written absolutely, so no consumer needs the
//! bytes that the one before it found.

use std::ops::Range;

use weir_channel::message::{DropReason, MediaKind};

use crate::rtp::codec::vp8;
use crate::rtp::packet::rewrite;
use crate::time::Time;

use super::Relay;
use super::consumer::Consumer;
use super::decide::{Disposition, decide};
use super::key_frame_assembly::RESERVED_SEQS;
use super::keys::{ConsumerKey, ProducerKey};
use super::limits::{BATCH_PACKETS_MAX, RING_CHUNK_BYTES, TRAIN_BYTES_MAX, TRAIN_PACKETS_MAX};
use super::packet::PacketMeta;
use super::producer::Producer;
use super::rewrite::{Numbers, StartContext};
use super::sink::Sink;

/// Memory for one batch, allocated once: 1,024 packets, a train of 64, and its 64 KiB of bytes.
#[derive(Debug)]
pub(super) struct Workspace {
    /// The packets to be relayed, linked by stream.
    pub batch: Vec<PacketMeta>,
    /// The streams they belong to, each with the first of its packets, in the order of those. A stream is here again
    /// when a key frame of its producer came between.
    pub touched: Vec<(ProducerKey, u8, u32)>,
    train: Vec<PacketMeta>,
    /// Packets of a train that did not arrive as one.
    joined: Vec<u8>,
    /// Header extensions, while a consumer with other ids is served.
    saved: Vec<u8>,
    /// A packet that was held, on its way out.
    pub held: Vec<u8>,
    started: Vec<ConsumerKey>,
    waiting: Vec<ConsumerKey>,
}

impl Workspace {
    pub(super) fn new() -> Self {
        Self {
            batch: Vec::with_capacity(BATCH_PACKETS_MAX),
            touched: Vec::with_capacity(BATCH_PACKETS_MAX),
            train: Vec::with_capacity(TRAIN_PACKETS_MAX),
            joined: Vec::with_capacity(TRAIN_BYTES_MAX),
            saved: Vec::with_capacity(TRAIN_BYTES_MAX),
            held: Vec::with_capacity(RING_CHUNK_BYTES),
            started: Vec::new(),
            waiting: Vec::new(),
        }
    }

    /// Makes room for what one train can cause.
    pub(super) fn reserve(&mut self, consumers: usize) {
        for list in [&mut self.started, &mut self.waiting] {
            list.reserve(consumers.saturating_sub(list.len()));
        }
    }
}

impl Relay {
    /// Sends everything that was queued since the last time.
    pub(super) fn fan_out(&mut self, now: Time, bytes: &mut [u8], sink: &mut impl Sink) {
        if self.workspace.batch.is_empty() {
            return;
        }
        let mut workspace = std::mem::replace(&mut self.workspace, Workspace::empty());
        for index in 0..workspace.touched.len() {
            let (producer, encoding, head) = workspace.touched[index];
            self.producers[producer].streams[usize::from(encoding)].batch_tail = None;
            let mut next = Some(head);
            while let Some(head) = next {
                next = workspace.collect_train(head);
                let range = workspace.train_range();
                let stream = &self.producers[producer].streams[usize::from(encoding)];
                if stream.attached.is_empty() && stream.gop.is_none() {
                    let count = workspace.train.len() as u64;
                    self.producers[producer].counters.dispatched[usize::from(encoding)] += count;
                    continue;
                }
                match range {
                    Some(range) => {
                        let base = range.start as u32;
                        workspace.train.iter_mut().for_each(|packet| packet.start -= base);
                        self.forward_train(now, producer, encoding, &mut bytes[range], &mut workspace, sink);
                    }
                    None => {
                        let mut joined = std::mem::take(&mut workspace.joined);
                        joined.clear();
                        for packet in &mut workspace.train {
                            packet.move_to(&mut joined, bytes);
                        }
                        self.forward_train(now, producer, encoding, &mut joined, &mut workspace, sink);
                        workspace.joined = joined;
                    }
                }
            }
        }
        workspace.batch.clear();
        workspace.touched.clear();
        self.workspace = workspace;
    }

    /// Hands a train to every consumer that follows its stream.
    fn forward_train(
        &mut self,
        now: Time,
        producer_key: ProducerKey,
        encoding: u8,
        bytes: &mut [u8],
        workspace: &mut Workspace,
        sink: &mut impl Sink,
    ) {
        let producer = &mut self.producers[producer_key];
        let ordinal = producer.counters.dispatched[usize::from(encoding)];
        let stream = &mut producer.streams[usize::from(encoding)];
        if let Some(ring) = stream
            .ring
            .as_mut()
            .filter(|_| producer.repairing > 0 || stream.is_awaited)
        {
            for (place, packet) in workspace.train.iter().enumerate() {
                ring.store(now, packet, bytes, ordinal + place as u64);
            }
        }
        if let Some(gop) = &mut stream.gop {
            for (place, packet) in workspace.train.iter().enumerate() {
                gop.store(now, packet, bytes, ordinal + place as u64);
            }
        }
        let attached = std::mem::take(&mut stream.attached);
        let producer = &self.producers[producer_key];
        for key in &attached {
            let consumer = &mut self.consumers[*key];
            let passage = forward(
                consumer,
                producer,
                now,
                Train {
                    bytes,
                    packets: &workspace.train,
                    ordinal,
                },
                &mut workspace.saved,
                &mut workspace.held,
                sink,
            );
            if passage.started {
                workspace.started.push(*key);
            }
            if passage.waiting {
                workspace.waiting.push(*key);
            }
        }
        let is_companion = |packet: &PacketMeta| {
            let codec = self.producers[producer_key].codec(packet.payload_type);
            codec.is_some_and(|codec| codec.name.is_companion())
        };
        let was_awaited = self.producers[producer_key].streams[usize::from(encoding)].is_awaited;
        let is_of_companions = was_awaited && workspace.train.iter().all(is_companion);
        let mut is_awaited = false;
        while let Some(key) = workspace.waiting.pop() {
            if self.begin_catch_up(now, key, encoding) {
                workspace.started.push(key);
            } else {
                is_awaited = true;
            }
        }
        let producer = &mut self.producers[producer_key];
        let stream = &mut producer.streams[usize::from(encoding)];
        stream.attached = attached;
        // What goes along with a codec says nothing about who waits for it.
        stream.is_awaited = is_awaited || is_of_companions;
        producer.counters.dispatched[usize::from(encoding)] += workspace.train.len() as u64;
        while let Some(key) = workspace.started.pop() {
            self.on_started(key);
        }
        // IncomingNacks get lost, and so do key frames: whoever still waits asks again.
        if is_awaited {
            self.repeat_key_frame_request(now, producer_key, encoding);
        }
    }

    /// A consumer has begun to get another encoding, or the same one again.
    fn on_started(&mut self, key: ConsumerKey) {
        let consumer = &mut self.consumers[key];
        if consumer.effective != consumer.flow.current {
            consumer.effective = consumer.flow.current;
            consumer.switches += 1;
            self.on_profile_changed(key);
        }
        self.attach(key);
    }
}

impl Workspace {
    /// Stands in while the real one is lent out; allocates nothing.
    fn empty() -> Self {
        Self {
            batch: Vec::new(),
            touched: Vec::new(),
            train: Vec::new(),
            joined: Vec::new(),
            saved: Vec::new(),
            held: Vec::new(),
            started: Vec::new(),
            waiting: Vec::new(),
        }
    }

    /// Takes the longest train from `head` on, and returns where the rest of the stream begins.
    fn collect_train(&mut self, head: u32) -> Option<u32> {
        self.train.clear();
        let first = self.batch[head as usize];
        let segment = first.sent_len();
        let mut bytes = segment as usize;
        let mut last = first;
        self.train.push(first);
        loop {
            if last.next == u32::MAX {
                return None;
            }
            let next = self.batch[last.next as usize];
            let fits = self.train.len() < TRAIN_PACKETS_MAX
                && bytes + next.sent_len() as usize <= TRAIN_BYTES_MAX
                && last.sent_len() == segment
                && next.sent_len() <= segment;
            if !fits {
                return Some(last.next);
            }
            bytes += next.sent_len() as usize;
            self.train.push(next);
            last = next;
        }
    }

    /// Where the train lies, if its packets lie end to end already and none of them grows.
    fn train_range(&self) -> Option<Range<usize>> {
        let first = self.train.first()?;
        let mut end = first.start;
        for packet in &self.train {
            if packet.start != end || packet.grows() {
                return None;
            }
            end += packet.len;
        }
        Some(first.start as usize..end as usize)
    }
}

/// What a train did at one consumer.
#[derive(Clone, Copy, Default)]
struct Forwarded {
    /// A flow started in it.
    started: bool,
    /// Its last packets wait for a key frame.
    waiting: bool,
}

/// Packets of one stream that lie end to end.
struct Train<'a> {
    bytes: &'a mut [u8],
    packets: &'a [PacketMeta],
    /// How many were handed to the stream's consumers before.
    ordinal: u64,
}

/// Decides for each packet of a train, patches those that go, and hands over each unbroken run of them.
fn forward(
    consumer: &mut Consumer,
    producer: &Producer,
    now: Time,
    train: Train<'_>,
    saved: &mut Vec<u8>,
    held: &mut Vec<u8>,
    sink: &mut impl Sink,
) -> Forwarded {
    let Train {
        bytes,
        packets,
        ordinal,
    } = train;
    let renames = consumer.renames.is_some();
    if renames {
        save_extensions(bytes, packets, saved);
    }
    let mut passage = Forwarded::default();
    let mut run = 0;
    let mut overtaken = None;
    for (index, packet) in packets.iter().enumerate() {
        let payload_type = consumer.payload_type(packet.payload_type);
        let mut disposition = decide(packet, &consumer.flow, payload_type);
        if disposition == Disposition::Start {
            let before = ordinal + index as u64;
            match first_of(producer, packet, now) {
                Some(first) => {
                    send_run(consumer, now, bytes, &packets[run..index], sink);
                    run = index;
                    start(consumer, producer, &first, (packet.may_be_preceded, false), now);
                    let stream = (packet.encoding, packet.epoch);
                    send_held(
                        consumer,
                        producer,
                        now,
                        stream,
                        (first.seq..packet.seq, before),
                        held,
                        sink,
                    );
                    // What may be joined anywhere is joined here.
                    overtaken = consumer.flow.gated.then_some((stream, packet.seq + 1, before));
                    passage = Forwarded {
                        started: true,
                        waiting: false,
                    };
                }
                // It came before anybody waited, and is not kept.
                None => disposition = Disposition::Drop(DropReason::AwaitingKeyFrame),
            }
        }
        if let Disposition::Drop(reason) = disposition {
            consumer.dropped[reason as usize] += 1;
            passage.waiting |= reason == DropReason::AwaitingKeyFrame && !consumer.flow.is_catching_up;
            send_run(consumer, now, bytes, &packets[run..index], sink);
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
    send_run(consumer, now, bytes, &packets[run..], sink);
    if renames {
        restore_extensions(bytes, packets, saved);
    }
    if let Some((stream, from, before)) = overtaken {
        send_held(consumer, producer, now, stream, (from..u64::MAX, before), held, sink);
    }
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
    buffer: &mut Vec<u8>,
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
            send_one(consumer, producer, now, (packet, bytes, ordinal), buffer, sink);
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
    send_run(consumer, now, buffer, &[packet], sink);
}

/// The packet on which a flow begins.
pub(super) fn start(
    consumer: &mut Consumer,
    producer: &Producer,
    packet: &PacketMeta,
    (may_be_preceded, is_sped_up): (bool, bool),
    now: Time,
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
    let flow = &mut consumer.flow;
    flow.current = Some(packet.encoding);
    flow.epoch = packet.epoch;
    flow.first_seq = packet.seq;
    flow.first_timestamp = packet.timestamp;
    flow.early_seq = if reserve > 0 { packet.seq - reserve } else { u64::MAX };
    flow.sync_required = false;
    flow.is_catching_up = false;
    if let Some(repair) = &mut consumer.repair {
        repair.on_start(packet, consumer.rewriter.offsets(), reserve);
    }
}

/// When a packet was captured, on the timeline of another stream of the same sender, by the sender's reports on both
/// (RFC 3550 §6.4.1: NTP and RTP timestamp of a report are the same instant).
fn aligned(producer: &Producer, current: u8, packet: &PacketMeta) -> Option<u64> {
    let clock_rate = i128::from(producer.first_codec().clock_rate);
    let old = producer.streams.get(usize::from(current))?.sender_report?;
    let new = producer.streams[usize::from(packet.encoding)].sender_report?;
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

/// Gives an unbroken run of patched packets to the sink.
#[inline]
fn send_run(consumer: &mut Consumer, now: Time, bytes: &[u8], run: &[PacketMeta], sink: &mut impl Sink) {
    let (Some(first), Some(last)) = (run.first(), run.last()) else {
        return;
    };
    let train = &bytes[first.start as usize..(last.start + last.len) as usize];
    let segment = first.len as usize;
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
    consumer.bytes += sent_bytes;
    let octets = run[..accepted].iter().map(|packet| u64::from(packet.payload_len));
    consumer.transmission.packets += accepted as u64;
    consumer.transmission.octets += octets.sum::<u64>();
    consumer.transmission.payload_type = last.payload_type;
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
