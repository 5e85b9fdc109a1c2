//! The last packets of one stream, for all consumers that may ask for them again, or that wait for a start of which a part may
//! come late: bounded in packets, bytes and age.
//!
//! Bytes lie in chunks. A packet lies in one chunk; a chunk is free again when all its packets are too old; and the chunk
//! that was freed last is filled next. So what has been written to, and is therefore resident, stays near bitrate × age,
//! however much is reserved.

use std::collections::VecDeque;

use crate::time::Time;

use super::limits::{RING_AGE, RING_BYTES, RING_CHUNK_BYTES, RING_PACKETS};
use super::packet::{Kept, PacketMeta};

const CHUNKS: usize = RING_BYTES / RING_CHUNK_BYTES;

/// See the [module](self).
#[derive(Debug)]
pub struct Ring {
    /// `CHUNKS` chunks, zeroed by the allocator: pages that were never written to cost nothing.
    bytes: Box<[u8]>,
    /// In the order of arrival.
    entries: VecDeque<Kept>,
    /// The first entry's number, counted from the first packet ever kept; wraps.
    first: u32,
    /// By sequence number modulo their count: the number of its entry. One that is not there any more, or is another
    /// packet's, is seen when the entry is looked at.
    places: Box<[u32]>,
    /// Chunks without packets, the one to be filled next last.
    free: Vec<u8>,
    /// Packets in each chunk.
    packets: [u16; CHUNKS],
    chunk: u8,
    /// Bytes of `chunk` that are taken.
    filled: usize,
}

impl Default for Ring {
    /// An empty ring, with all the memory it will ever have.
    fn default() -> Self {
        Self {
            bytes: vec![0; RING_BYTES].into_boxed_slice(),
            entries: VecDeque::with_capacity(RING_PACKETS),
            first: 0,
            places: vec![0; RING_PACKETS].into_boxed_slice(),
            free: (1..CHUNKS as u8).rev().collect(),
            packets: [0; CHUNKS],
            chunk: 0,
            filled: 0,
        }
    }
}

impl Ring {
    /// Keeps a packet; `train` is what its `start` counts in, `ordinal` counts what is handed to the stream's consumers. One longer than a chunk is not kept: so long a packet is
    /// many of the network's already, and as likely to be lost again.
    pub fn store(&mut self, now: Time, packet: &PacketMeta, train: &[u8], ordinal: u64) {
        let len = packet.len as usize;
        let start = packet.start as usize;
        let Some(bytes) = train.get(start..start + len).filter(|_| len <= RING_CHUNK_BYTES) else {
            return;
        };
        while self.entries.front().is_some_and(|entry| is_old(entry, now)) {
            self.drop_oldest();
        }
        if self.entries.len() == RING_PACKETS {
            self.drop_oldest();
        }
        if self.filled + len > RING_CHUNK_BYTES {
            self.chunk = loop {
                if let Some(chunk) = self.free.pop() {
                    break chunk;
                }
                self.drop_oldest();
            };
            self.filled = 0;
        }
        let chunk = usize::from(self.chunk);
        let start = chunk * RING_CHUNK_BYTES + self.filled;
        self.bytes[start..start + len].copy_from_slice(bytes);
        self.filled += len;
        self.packets[chunk] += 1;
        let number = self.first.wrapping_add(self.entries.len() as u32);
        self.places[place(packet.seq)] = number;
        self.entries.push_back(Kept {
            packet: PacketMeta {
                start: start as u32,
                ..*packet
            },
            at: now,
            ordinal,
        });
    }

    fn drop_oldest(&mut self) {
        let Some(entry) = self.entries.pop_front() else { return };
        self.first = self.first.wrapping_add(1);
        let chunk = entry.packet.start as usize / RING_CHUNK_BYTES;
        self.packets[chunk] -= 1;
        if self.packets[chunk] > 0 {
            return;
        }
        if chunk == usize::from(self.chunk) {
            self.filled = 0; // the one that is being filled begins again
        } else {
            self.free.push(chunk as u8);
        }
    }

    /// The packet with this extended sequence number and epoch, if it is here and not too old. Its `start` is 0.
    pub fn get(&self, now: Time, seq: u64, epoch: u32) -> Option<(PacketMeta, &[u8])> {
        let (packet, bytes, _) = self.find(now, seq, epoch)?;
        Some((packet, bytes))
    }

    /// The same, with its ordinal.
    pub fn find(&self, now: Time, seq: u64, epoch: u32) -> Option<(PacketMeta, &[u8], u64)> {
        let index = self.places[place(seq)].wrapping_sub(self.first);
        let entry = self.entries.get(index as usize)?;
        let packet = entry.packet;
        if packet.seq != seq || packet.epoch != epoch || is_old(entry, now) {
            return None;
        }
        let start = packet.start as usize;
        let bytes = self.bytes.get(start..start + packet.len as usize)?;
        Some((PacketMeta { start: 0, ..packet }, bytes, entry.ordinal))
    }
}

fn is_old(entry: &Kept, now: Time) -> bool {
    now.since(entry.at) > RING_AGE
}

fn place(seq: u64) -> usize {
    seq as usize % RING_PACKETS
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn meta(seq: u64, len: usize) -> PacketMeta {
        PacketMeta {
            start: 3,
            len: len as u32,
            seq,
            timestamp: 0,
            encoding: 0,
            payload_type: 96,
            key_frame: false,
            epoch: 7,
            payload_start: 12,
            payload_len: 0,
            padding_added: 0,
            vp8: None,
            extension: None,
            withheld: Default::default(),
            first: seq,
            may_be_preceded: false,
            next: u32::MAX,
        }
    }

    fn store(ring: &mut Ring, now: Time, seq: u64, len: usize) {
        let mut train = vec![0xee; 3];
        train.extend((0..len).map(|at| (seq as usize + at) as u8));
        train.push(0xee);
        ring.store(now, &meta(seq, len), &train, seq);
    }

    #[track_caller]
    fn has(ring: &Ring, now: Time, seq: u64) -> bool {
        let Some((packet, bytes)) = ring.get(now, seq, 7) else {
            return false;
        };
        assert_eq!((packet.seq, packet.len as usize, packet.start), (seq, bytes.len(), 0));
        assert!(
            bytes
                .iter()
                .enumerate()
                .all(|(at, byte)| *byte == (seq as usize + at) as u8)
        );
        true
    }

    #[test]
    fn the_last_packets_are_there() {
        let mut ring = Ring::default();
        let now = Time::from_millis(5);
        for seq in (0..3_000).filter(|seq| seq % 7 != 0) {
            store(&mut ring, now, seq, 100 + seq as usize % 900);
            assert!(has(&ring, now, seq));
        }
        assert!(!has(&ring, now, 2_996), "never stored");
        assert!(!has(&ring, now, 3_000));
        assert!(ring.get(now, 2_999, 8).is_none(), "of another epoch");
        assert!(ring.entries.len() <= RING_PACKETS);
        assert!(has(&ring, now, 2_001) && !has(&ring, now, 1_002));
        // A late one finds its place.
        store(&mut ring, now, 2_996, 50);
        assert!(has(&ring, now, 2_996) && has(&ring, now, 2_997));
    }

    #[test]
    fn old_packets_are_gone_and_their_memory_is_used_again() {
        let mut ring = Ring::default();
        let mut now = Time::from_millis(0);
        // 100 packets of 1,000 bytes a second: 200 kB in the ring's two seconds, of the megabyte it has.
        for seq in 0..6_000 {
            now = now + Duration::from_millis(10);
            store(&mut ring, now, seq, 1_000);
        }
        assert!(has(&ring, now, 5_999 - 200) && !has(&ring, now, 5_999 - 201));
        assert_eq!(ring.entries.len(), 201);
        let touched = ring.bytes.iter().rposition(|byte| *byte != 0).unwrap();
        assert!(touched < 200_000 + 3 * RING_CHUNK_BYTES, "{touched}");
        let later = now + RING_AGE + Duration::from_millis(1);
        assert!(!has(&ring, later, 5_999));
        // A slow stream stays in its chunk.
        let mut ring = Ring::default();
        for seq in 0..1_000 {
            now = now + Duration::from_secs(3);
            store(&mut ring, now, seq, 1_000);
        }
        assert!(ring.bytes[1_000..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn a_burst_stays_within_its_bytes() {
        let mut ring = Ring::default();
        let now = Time::from_millis(5);
        for seq in 0..5_000 {
            store(&mut ring, now, seq, 9_000);
        }
        // One to a chunk.
        assert_eq!(ring.entries.len(), CHUNKS);
        assert!(has(&ring, now, 4_999) && has(&ring, now, 5_000 - CHUNKS as u64));
        store(&mut ring, now, 5_000, RING_CHUNK_BYTES + 1);
        assert!(!has(&ring, now, 5_000) && has(&ring, now, 4_999));
        store(&mut ring, now, 5_001, RING_CHUNK_BYTES);
        assert!(has(&ring, now, 5_001));
    }
}
