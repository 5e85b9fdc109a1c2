//! What the producers send: trains of RTP packets on a schedule.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Opus in 20 ms packets, about 56 kbit/s: an RTP header and 140 bytes.
const OPUS_PACKET_BYTES: usize = 152;
/// Opus packets per second.
const OPUS_RATE: f64 = 50.0;
/// Video frames per second of a peer, each a train.
const VIDEO_RATE: f64 = 30.0;
/// A key frame this many frames.
const KEY_FRAME_INTERVAL: u64 = 120;

/// What the packets carry behind [`DESCRIPTOR_END`].
const FILLING: u8 = 0x5a;
/// Behind an RTP header and the longest payload descriptor in use.
const DESCRIPTOR_END: usize = 18;

/// Whether a packet carries what all carry here, as far as a relay leaves it alone.
pub(super) fn is_ours(packet: &[u8]) -> bool {
    packet
        .get(DESCRIPTOR_END..)
        .is_some_and(|rest| rest.iter().all(|byte| *byte == FILLING))
}

/// What one producer sends.
#[derive(Clone, Debug)]
pub(super) struct Source {
    pub kind: SourceKind,
    pub ssrc: u32,
    /// Packets per train.
    pub burst: usize,
    pub packet_bytes: usize,
    /// Trains per second at a scale of 1.
    pub trains_per_second: f64,
    /// How many consumers get each packet.
    pub fan_out: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum SourceKind {
    Opus,
    Vp8,
}

impl SourceKind {
    pub(super) fn payload_type(self) -> u8 {
        match self {
            Self::Opus => 111,
            Self::Vp8 => 96,
        }
    }
}

impl Source {
    pub(super) fn opus(ssrc: u32, fan_out: usize) -> Self {
        Self {
            kind: SourceKind::Opus,
            ssrc,
            burst: 1,
            packet_bytes: OPUS_PACKET_BYTES,
            trains_per_second: OPUS_RATE,
            fan_out,
        }
    }

    pub(super) fn video(ssrc: u32, burst: usize, packet_bytes: usize, fan_out: usize) -> Self {
        Self {
            kind: SourceKind::Vp8,
            ssrc,
            burst,
            packet_bytes,
            trains_per_second: VIDEO_RATE,
            fan_out,
        }
    }
}

/// The next train of one source, laid end to end.
#[derive(Debug)]
pub(super) struct TrainWriter {
    source: Source,
    bytes: Vec<u8>,
    /// Packets that were written. The next one's sequence number is the end of it.
    written: u64,
    timestamp: u32,
    frame: u64,
}

impl TrainWriter {
    pub(super) fn new(source: Source) -> Self {
        let mut bytes = vec![FILLING; source.burst * source.packet_bytes];
        for packet in bytes.chunks_mut(source.packet_bytes) {
            packet[0] = 0x80; // RFC 3550 §5.1: version 2, no padding, extension or CSRC
            packet[1] = source.kind.payload_type();
            packet[8..12].copy_from_slice(&source.ssrc.to_be_bytes());
        }
        Self {
            source,
            bytes,
            written: 0,
            timestamp: 0,
            frame: 0,
        }
    }

    pub(super) fn source(&self) -> &Source {
        &self.source
    }

    /// The index (RFC 3711 §3.3.1) of the next packet.
    pub(super) fn next_index(&self) -> u64 {
        self.written
    }

    /// Writes the next frame's numbers, and returns its packets.
    pub(super) fn next_train(&mut self) -> &[u8] {
        let burst = self.source.burst;
        let key_frame = self.frame.is_multiple_of(KEY_FRAME_INTERVAL);
        for (index, packet) in self.bytes.chunks_mut(self.source.packet_bytes).enumerate() {
            let marker = index + 1 == burst;
            packet[1] = self.source.kind.payload_type() | u8::from(marker) << 7;
            packet[2..4].copy_from_slice(&(self.written as u16).to_be_bytes());
            packet[4..8].copy_from_slice(&self.timestamp.to_be_bytes());
            if self.source.kind == SourceKind::Vp8 {
                let picture_id = (self.frame & 0x7fff) as u16 | 0x8000;
                // RFC 7741 §4.2: X, and S on the frame's first packet; I and L; a picture id of 15 bits; TL0PICIDX.
                packet[12] = 0x80 | if index == 0 { 0x10 } else { 0 };
                packet[13] = 0xc0;
                packet[14..16].copy_from_slice(&picture_id.to_be_bytes());
                packet[16] = self.frame as u8;
                packet[17] = u8::from(!key_frame); // §4.3: P is 0 on key frames
            }
            self.written += 1;
        }
        self.frame += 1;
        let ticks = match self.source.kind {
            SourceKind::Opus => 960,
            SourceKind::Vp8 => 3_000,
        };
        self.timestamp = self.timestamp.wrapping_add(ticks);
        &self.bytes
    }
}

/// When each source's next train is due, in nanoseconds from the start of a slice.
#[derive(Debug)]
pub(super) struct Schedule {
    due: BinaryHeap<Reverse<(u64, usize)>>,
    interval_ns: Vec<u64>,
    /// How much later than planned everything is.
    postponed_ns: u64,
}

impl Schedule {
    /// Sources spread over their interval, so that they do not all send at once.
    pub(super) fn new(sources: &[Source], scale: f64) -> Self {
        let interval_ns: Vec<u64> = sources
            .iter()
            .map(|source| ((1e9 / (source.trains_per_second * scale)) as u64).max(1))
            .collect();
        let count = sources.len() as u64;
        let due = interval_ns
            .iter()
            .enumerate()
            .map(|(index, interval)| Reverse((interval * index as u64 / count, index)))
            .collect();
        Self {
            due,
            interval_ns,
            postponed_ns: 0,
        }
    }

    /// The time of the next train.
    pub(super) fn next_due(&self) -> u64 {
        self.due
            .peek()
            .map_or(u64::MAX, |Reverse((due, _))| due.saturating_add(self.postponed_ns))
    }

    /// Everything that is still to come comes later by this. For a sender that was kept from running: what it sends then
    /// is late, but not all at once, or the relay would be measured under bursts that nobody asked for.
    pub(super) fn postpone(&mut self, by_ns: u64) {
        self.postponed_ns = self.postponed_ns.saturating_add(by_ns);
    }

    /// The source whose train is due at `now`, if any is.
    pub(super) fn pop(&mut self, now_ns: u64) -> Option<usize> {
        let mut top = self.due.peek_mut()?;
        let Reverse((due, index)) = *top;
        if due > now_ns.saturating_sub(self.postponed_ns) {
            return None;
        }
        *top = Reverse((due + self.interval_ns[index], index));
        Some(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_sends_at_its_rate() {
        let sources = [Source::opus(1, 1), Source::video(2, 8, 1_200, 1)];
        let mut schedule = Schedule::new(&sources, 2.0);
        let mut counts = [0; 2];
        while let Some(index) = schedule.pop(999_999_999) {
            counts[index] += 1;
        }
        assert!(
            (99..=101).contains(&counts[0]) && (59..=61).contains(&counts[1]),
            "{counts:?}"
        );
        assert!(schedule.next_due() >= 1_000_000_000);
    }

    #[test]
    fn what_is_postponed_does_not_come_all_at_once() {
        let mut schedule = Schedule::new(&[Source::opus(1, 1)], 1.0);
        assert_eq!(schedule.pop(0), Some(0));
        let interval_ns = schedule.next_due();
        schedule.postpone(5 * interval_ns);
        assert_eq!(schedule.pop(5 * interval_ns), None);
        assert_eq!(schedule.next_due(), 6 * interval_ns);
        assert_eq!(schedule.pop(6 * interval_ns), Some(0));
        assert_eq!(schedule.pop(6 * interval_ns), None);
    }

    #[test]
    fn trains_are_valid_vp8() {
        use weir_channel::message::CodecName;
        use weir_worker::rtp::{codec::peek, packet::Header};

        let mut writer = TrainWriter::new(Source::video(7, 3, 100, 1));
        for frame in 0..2 {
            let train = writer.next_train();
            for (index, packet) in train.chunks(100).enumerate() {
                let header = Header::parse(packet).expect("valid RTP");
                let peek = peek(CodecName::Vp8, header.payload(packet));
                assert_eq!(header.ssrc, 7);
                assert_eq!(usize::from(header.seq), frame * 3 + index);
                assert_eq!(header.marker, index == 2);
                assert_eq!(peek.key_frame, frame == 0 && index == 0);
                let ids = peek.vp8.expect("ids");
                assert_eq!(ids.picture_id.map(|id| usize::from(id.value)), Some(frame));
                assert_eq!(ids.tl0_pic_idx.map(|tl0| usize::from(tl0.value)), Some(frame));
            }
        }
    }
}
