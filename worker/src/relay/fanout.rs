//! From the packets of a batch to trains on the consumers' transports.
//!
//! The packets of each stream are laid end to end as trains: runs of equal size, of which only the last may be shorter, so
//! that the kernel takes each as one message. A train that arrived as one (UDP_GRO) is used where it lies; packets that
//! arrived apart are copied together once, whatever the number of consumers. Then, consumer by consumer, the headers are
//! patched in place and the train is handed over. All patched fields are written absolutely, so no consumer needs the
//! bytes that the one before it found.

use std::ops::Range;

use weir_channel::message::DropReason;

use crate::rtp::codec::vp8;
use crate::rtp::packet::rewrite;
use crate::time::Time;

use super::Relay;
use super::consumer::Consumer;
use super::decide::{Disposition, decide};
use super::limits::{BATCH_PACKETS_MAX, TRAIN_BYTES_MAX, TRAIN_PACKETS_MAX};
use super::packet::PacketMeta;
use super::producer::Producer;
use super::rewrite::{Numbers, StartContext};
use super::sink::Sink;
use super::slots::{ConsumerKey, ProducerKey};

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
    started: Vec<ConsumerKey>,
}

impl Workspace {
    pub(super) fn new() -> Self {
        Self {
            batch: Vec::with_capacity(BATCH_PACKETS_MAX),
            touched: Vec::with_capacity(BATCH_PACKETS_MAX),
            train: Vec::with_capacity(TRAIN_PACKETS_MAX),
            joined: Vec::with_capacity(TRAIN_BYTES_MAX),
            saved: Vec::with_capacity(TRAIN_BYTES_MAX),
            started: Vec::new(),
        }
    }

    /// Makes room for what one train can cause.
    pub(super) fn reserve(&mut self, consumers: usize) {
        self.started.reserve(consumers.saturating_sub(self.started.len()));
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
                if self.producers[producer].streams[usize::from(encoding)]
                    .attached
                    .is_empty()
                {
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
                            let start = packet.start as usize;
                            packet.start = joined.len() as u32;
                            joined.extend_from_slice(&bytes[start..start + packet.len as usize]);
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
        let stream = &mut self.producers[producer_key].streams[usize::from(encoding)];
        if let Some(ring) = &mut stream.ring {
            for packet in &workspace.train {
                ring.store(now, packet, bytes);
            }
        }
        let attached = std::mem::take(&mut stream.attached);
        let producer = &self.producers[producer_key];
        let mut waiting = false;
        for key in &attached {
            let consumer = &mut self.consumers[*key];
            let passage = forward(
                consumer,
                producer,
                now,
                bytes,
                &workspace.train,
                &mut workspace.saved,
                sink,
            );
            if passage.started {
                workspace.started.push(*key);
            }
            waiting |= passage.waiting;
        }
        let producer = &mut self.producers[producer_key];
        producer.streams[usize::from(encoding)].attached = attached;
        producer.counters.dispatched[usize::from(encoding)] += workspace.train.len() as u64;
        while let Some(key) = workspace.started.pop() {
            self.on_started(key);
        }
        // Requests get lost, and so do key frames: whoever still waits asks again.
        if waiting {
            self.request_key_frame(now, producer_key, encoding);
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
        self.retune(key);
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
            started: Vec::new(),
        }
    }

    /// Takes the longest train from `head` on, and returns where the rest of the stream begins.
    fn collect_train(&mut self, head: u32) -> Option<u32> {
        self.train.clear();
        let first = self.batch[head as usize];
        let segment = first.len;
        let mut bytes = first.len as usize;
        let mut last = first;
        self.train.push(first);
        loop {
            if last.next == u32::MAX {
                return None;
            }
            let next = self.batch[last.next as usize];
            let fits = self.train.len() < TRAIN_PACKETS_MAX
                && bytes + next.len as usize <= TRAIN_BYTES_MAX
                && last.len == segment
                && next.len <= segment;
            if !fits {
                return Some(last.next);
            }
            bytes += next.len as usize;
            self.train.push(next);
            last = next;
        }
    }

    /// Where the train lies, if its packets lie end to end already.
    fn train_range(&self) -> Option<Range<usize>> {
        let first = self.train.first()?;
        let mut end = first.start;
        for packet in &self.train {
            if packet.start != end {
                return None;
            }
            end += packet.len;
        }
        Some(first.start as usize..end as usize)
    }
}

/// What a train did at one consumer.
#[derive(Clone, Copy, Default)]
struct Passage {
    /// A flow started in it.
    started: bool,
    /// Its last packets wait for a key frame.
    waiting: bool,
}

/// Decides for each packet of a train, patches those that go, and hands over each unbroken run of them.
fn forward(
    consumer: &mut Consumer,
    producer: &Producer,
    now: Time,
    bytes: &mut [u8],
    train: &[PacketMeta],
    saved: &mut Vec<u8>,
    sink: &mut impl Sink,
) -> Passage {
    let renames = consumer.renames.is_some();
    if renames {
        save_extensions(bytes, train, saved);
    }
    let mut passage = Passage::default();
    let mut run = 0;
    for (index, packet) in train.iter().enumerate() {
        let payload_type = consumer.payload_type(packet.payload_type);
        match decide(packet, &consumer.flow, payload_type) {
            Disposition::Forward => {}
            Disposition::Start => {
                start(consumer, producer, packet, now);
                passage = Passage {
                    started: true,
                    waiting: false,
                };
            }
            Disposition::Drop(reason) => {
                consumer.dropped[reason as usize] += 1;
                passage.waiting |= reason == DropReason::AwaitingKeyFrame;
                hand_over(consumer, now, bytes, &train[run..index], sink);
                run = index + 1;
                continue;
            }
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
    hand_over(consumer, now, bytes, &train[run..], sink);
    if renames {
        restore_extensions(bytes, train, saved);
    }
    passage
}

/// The packet on which a flow begins.
fn start(consumer: &mut Consumer, producer: &Producer, packet: &PacketMeta, now: Time) {
    let stream = &producer.streams[usize::from(packet.encoding)];
    let context = StartContext {
        timeline: (packet.encoding, stream.restarts),
        clock_rate: producer.main_codec(Some(packet.payload_type)).clock_rate,
        aligned: consumer
            .flow
            .current
            .filter(|current| *current != packet.encoding)
            .and_then(|current| aligned(producer, current, packet)),
    };
    consumer.rewriter.start(packet, now, context);
    consumer.flow.current = Some(packet.encoding);
    consumer.flow.epoch = packet.epoch;
    consumer.flow.first_seq = packet.seq;
    consumer.flow.sync_required = false;
    if let Some(repair) = &mut consumer.repair {
        repair.on_start(packet, consumer.rewriter.offsets());
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
fn hand_over(consumer: &mut Consumer, now: Time, bytes: &[u8], run: &[PacketMeta], sink: &mut impl Sink) {
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
