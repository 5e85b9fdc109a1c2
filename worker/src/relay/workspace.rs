//! Memory for one batch: its packets by stream, and the train that is being laid out.

use std::ops::Range;

use super::keys::{ConsumerKey, ProducerKey};
use super::limits::{BATCH_PACKETS_MAX, RING_CHUNK_BYTES, TRAIN_BYTES_MAX, TRAIN_PACKETS_MAX};
use super::packet::PacketMeta;
use super::stream::Stream;

/// Memory for one batch, allocated once: 1,024 packets, a train of 64, and its 64 KiB of bytes.
#[derive(Debug)]
pub(super) struct Workspace {
    /// The packets to be relayed, linked by stream.
    pub batch: Vec<PacketMeta>,
    /// The streams they belong to, each with the first of its packets, in the order of those. A stream is here again
    /// when a key frame of its producer came between.
    pub touched: Vec<(ProducerKey, u8, u32)>,
    pub(super) train: Vec<PacketMeta>,
    /// How long the packets of the train are when they are sent; the last one may be shorter.
    train_segment: u32,
    /// Some of them are to be padded.
    is_uneven: bool,
    /// Packets of a train that did not arrive as one.
    pub(super) joined: Vec<u8>,
    /// Header extensions, while a consumer with other ids is served.
    pub(super) saved: Vec<u8>,
    /// A packet that was kept, while it is sent.
    pub held: Vec<u8>,
    pub(super) started: Vec<ConsumerKey>,
    pub(super) waiting: Vec<ConsumerKey>,
}

impl Workspace {
    pub(super) fn new() -> Self {
        Self {
            batch: Vec::with_capacity(BATCH_PACKETS_MAX),
            touched: Vec::with_capacity(BATCH_PACKETS_MAX),
            train: Vec::with_capacity(TRAIN_PACKETS_MAX),
            train_segment: 0,
            is_uneven: false,
            joined: Vec::with_capacity(TRAIN_BYTES_MAX),
            saved: Vec::with_capacity(TRAIN_BYTES_MAX),
            held: Vec::with_capacity(RING_CHUNK_BYTES),
            started: Vec::new(),
            waiting: Vec::new(),
        }
    }

    /// Reserves memory for what one train can cause.
    pub(super) fn reserve(&mut self, consumers: usize) {
        for list in [&mut self.started, &mut self.waiting] {
            list.reserve(consumers.saturating_sub(list.len()));
        }
    }

    /// Queues a packet to be relayed behind those of its stream that are queued already.
    #[inline]
    pub(super) fn push(&mut self, key: ProducerKey, stream: &mut Stream, packet: PacketMeta) {
        let index = self.batch.len() as u32;
        match stream.batch_tail.replace(index) {
            Some(tail) => self.batch[tail as usize].next = index,
            None => self.touched.push((key, packet.encoding, index)),
        }
        self.batch.push(packet);
    }

    /// Stands in while the real one is lent out; allocates nothing.
    pub(super) fn empty() -> Self {
        Self {
            batch: Vec::new(),
            touched: Vec::new(),
            train: Vec::new(),
            train_segment: 0,
            is_uneven: false,
            joined: Vec::new(),
            saved: Vec::new(),
            held: Vec::new(),
            started: Vec::new(),
            waiting: Vec::new(),
        }
    }

    /// Takes the longest train from `head` on, and returns where the rest of the stream begins. All its packets but the last
    /// have one size. If they are to be `equalized`, those that are a little shorter count as being as long as the longest one.
    pub(super) fn collect_train(&mut self, head: u32, equalized: bool) -> Option<u32> {
        self.train.clear();
        self.is_uneven = false;
        let first = &self.batch[head as usize];
        let size_max = |packet: &PacketMeta| match equalized {
            true => packet.padded_len_max(),
            false => packet.sent_len(),
        };
        self.train_segment = first.sent_len();
        self.train.push(*first);
        if first.next == u32::MAX {
            return None;
        }
        // What all packets so far can be.
        let mut segment_max = size_max(first);
        let (mut last_len, mut index) = (self.train_segment, first.next);
        loop {
            if index == u32::MAX {
                return None;
            }
            let next = &self.batch[index as usize];
            let len = next.sent_len();
            let segment = self.train_segment.max(len);
            let fits = self.train.len() < TRAIN_PACKETS_MAX
                && segment <= segment_max
                && self.train.len() * segment as usize + len as usize <= TRAIN_BYTES_MAX;
            if !fits {
                return Some(index);
            }
            self.is_uneven |= segment != self.train_segment || last_len != segment;
            self.train_segment = segment;
            segment_max = segment_max.min(size_max(next));
            self.train.push(*next);
            (last_len, index) = (len, next.next);
        }
    }

    /// Where the train lies, if its packets lie end to end already and none of them grows.
    pub(super) fn train_range(&self) -> Option<Range<usize>> {
        let first = self.train.first().filter(|_| !self.is_uneven)?;
        let mut end = first.start;
        for packet in &self.train {
            if packet.start != end || packet.grows() {
                return None;
            }
            end += packet.len;
        }
        Some(first.start as usize..end as usize)
    }

    /// Copies the packets of the train from `bytes`, which their `start` counts in, end to end to `out`, and makes them as
    /// long as they are to be.
    pub(super) fn join_train(&mut self, out: &mut Vec<u8>, bytes: &[u8]) {
        out.clear();
        let Some((last, others)) = self.train.split_last_mut() else {
            return;
        };
        for packet in others {
            packet.move_to(out, bytes);
            packet.pad(out, self.train_segment);
        }
        last.move_to(out, bytes);
    }
}
