//! What the producers send: frames of RTP packets on a schedule.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use weir_worker::net::send::{Message, TRAIN_BYTES_MAX, TRAIN_SEGMENTS_MAX};

use super::frames::{Cut, FrameSizes, Frames, HEADER_BYTES, OPUS_RATE, VIDEO_RATE};

/// What packets carry behind [`STAMP_END`].
const FILLING: u8 = 0x5a;

/// Behind the headers is the time at which the packet left, in nanoseconds of the monotonic clock.
const STAMP_END: usize = HEADER_BYTES + size_of::<u64>();

/// Frames that a rate is computed from: an hour's worth is a mean within a percent.
const MEAN_FRAMES: usize = 10_000;

/// When a packet was sent, in nanoseconds of the monotonic clock, if it is one that is sent here.
pub(super) fn stamp_of(packet: &[u8]) -> Option<u64> {
    let stamp = packet.get(HEADER_BYTES..STAMP_END)?;
    stamp.try_into().ok().map(u64::from_be_bytes)
}

/// Whether a packet carries what all carry here, as far as a relay leaves it alone. It may be padded (RFC 3550 §5.1).
pub(super) fn is_ours(packet: &[u8]) -> bool {
    let padding = match (packet.first(), packet.last()) {
        (Some(first), Some(count)) if first & 0x20 != 0 => usize::from(*count),
        _ => 0,
    };
    packet
        .get(STAMP_END..packet.len() - padding.min(packet.len()))
        .is_some_and(|rest| rest.iter().all(|byte| *byte == FILLING))
}

/// What one producer sends.
#[derive(Clone, Debug)]
pub(super) struct Source {
    pub kind: SourceKind,
    pub ssrc: u32,
    pub frames: Frames,
    pub cut: Cut,
    pub handover: Handover,
    /// Of the sizes of its frames.
    pub seed: u64,
    /// Frames per second at a scale of 1.
    pub frames_per_second: f64,
    /// Packets of a frame on average.
    pub packets_per_frame: f64,
    /// When its first frame is due, as a share of the time between two frames.
    pub phase: f64,
    /// The number of consumers that get each packet.
    pub fan_out: usize,
    /// What encryption adds to each packet.
    pub overhead: usize,
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

/// How the packets of a frame are handed to the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Handover {
    /// As a train, which the worker gets in one piece if it is quick. All packets are equally long.
    Train,
    /// One by one, as browsers send.
    Packets,
}

impl Source {
    /// Sound.
    pub(super) fn opus(ssrc: u32) -> Self {
        Self {
            kind: SourceKind::Opus,
            ssrc,
            frames: Frames::Opus,
            cut: Cut::Equal,
            handover: Handover::Packets,
            seed: 0,
            frames_per_second: OPUS_RATE,
            packets_per_frame: 1.0,
            phase: 0.0,
            fan_out: 0,
            overhead: 0,
        }
    }

    /// Pictures. `packets_per_frame` is [`packets_per_frame`] of these frames.
    pub(super) fn video(ssrc: u32, frames: Frames, cut: Cut, packets_per_frame: f64) -> Self {
        let handover = match (frames, cut) {
            (Frames::Alike { .. }, Cut::Equal) => Handover::Train,
            _ => Handover::Packets,
        };
        Self {
            kind: SourceKind::Vp8,
            ssrc,
            frames,
            cut,
            handover,
            seed: 0,
            frames_per_second: VIDEO_RATE,
            packets_per_frame,
            phase: 0.0,
            fan_out: 0,
            overhead: 0,
        }
    }

    /// Packets per second at a scale of 1.
    pub(super) fn packets_per_second(&self) -> f64 {
        self.frames_per_second * self.packets_per_frame
    }

    /// The same frames as the baseline sends them: grown to equal packets, and in as few messages as the kernel takes them.
    pub(super) fn for_baseline(&self) -> Self {
        Self {
            cut: Cut::Equal,
            handover: Handover::Train,
            ..self.clone()
        }
    }
}

/// The packets of a frame, on average.
pub(super) fn packets_per_frame(frames: Frames, seed: u64) -> f64 {
    if let Frames::Alike { packets, .. } = frames {
        return packets as f64;
    }
    let mut drawn = FrameSizes::new(frames, Cut::Equal, seed);
    let mut sizes = Vec::new();
    let packets = (0..MEAN_FRAMES).map(|_| {
        drawn.next(&mut sizes);
        sizes.len()
    });
    packets.sum::<usize>() as f64 / MEAN_FRAMES as f64
}

/// A frame that is ready to be sent.
#[derive(Debug)]
pub(super) struct Frame<'a> {
    /// Where its messages lie.
    pub bytes: &'a [u8],
    /// A message for each packet, or as few as can be for a train.
    pub messages: &'a [Message],
    pub packets: usize,
}

/// Writes the frames of one source.
#[derive(Debug)]
pub(super) struct FrameWriter {
    source: Source,
    drawn: FrameSizes,
    sizes: Vec<usize>,
    bytes: Vec<u8>,
    messages: Vec<Message>,
    /// Packets that were written. The next one's sequence number is the end of it.
    written: u64,
    timestamp: u32,
    frame: u64,
}

impl FrameWriter {
    pub(super) fn new(source: Source) -> Self {
        Self {
            drawn: FrameSizes::new(source.frames, source.cut, source.seed),
            source,
            sizes: Vec::new(),
            bytes: Vec::new(),
            messages: Vec::new(),
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

    /// Writes the next frame, which leaves at `now_ns` of the monotonic clock.
    pub(super) fn next_frame(&mut self, now_ns: u64) -> Frame<'_> {
        let is_key_frame = self.drawn.next(&mut self.sizes);
        let packets = self.sizes.len();
        self.lay_out();
        for place in 0..packets {
            let start = place * self.stride();
            self.write_packet(start, place, is_key_frame, now_ns);
            self.written += 1;
        }
        self.frame += 1;
        let ticks = match self.source.kind {
            SourceKind::Opus => 960,
            SourceKind::Vp8 => 3_000,
        };
        self.timestamp = self.timestamp.wrapping_add(ticks);
        Frame {
            bytes: &self.bytes,
            messages: &self.messages,
            packets,
        }
    }

    /// Between the starts of two packets. Those of a train follow each other; others lie where those of each frame lie, because
    /// the filling around them is written once.
    fn stride(&self) -> usize {
        match (self.source.handover, self.source.frames) {
            (Handover::Packets, Frames::Encoder { packet_bytes_max, .. }) => packet_bytes_max,
            _ => self.sizes.last().copied().unwrap_or(0),
        }
    }

    fn lay_out(&mut self) {
        let stride = self.stride();
        let len = stride * self.sizes.len();
        if self.bytes.len() < len {
            self.bytes.resize(len, FILLING);
        }
        self.messages.clear();
        match self.source.handover {
            Handover::Packets => self
                .messages
                .extend(self.sizes.iter().enumerate().map(|(place, size)| Message {
                    start: place * stride,
                    len: *size,
                    segment: *size,
                })),
            Handover::Train => {
                let packets = TRAIN_BYTES_MAX / (stride + self.source.overhead);
                let step = stride * packets.clamp(1, TRAIN_SEGMENTS_MAX);
                self.messages.extend((0..len).step_by(step).map(|start| Message {
                    start,
                    len: step.min(len - start),
                    segment: stride,
                }));
            }
        }
    }

    fn write_packet(&mut self, start: usize, place: usize, is_key_frame: bool, now_ns: u64) {
        let is_last = place + 1 == self.sizes.len();
        let packet = &mut self.bytes[start..];
        packet[0] = 0x80; // RFC 3550 §5.1: version 2, no padding, extension or CSRC
        packet[1] = self.source.kind.payload_type() | u8::from(is_last) << 7;
        packet[2..4].copy_from_slice(&(self.written as u16).to_be_bytes());
        packet[4..8].copy_from_slice(&self.timestamp.to_be_bytes());
        packet[8..12].copy_from_slice(&self.source.ssrc.to_be_bytes());
        if self.source.kind == SourceKind::Vp8 {
            let picture_id = (self.frame & 0x7fff) as u16 | 0x8000;
            // RFC 7741 §4.2: X, and S on the frame's first packet; I and L; a picture id of 15 bits; TL0PICIDX.
            packet[12] = 0x80 | if place == 0 { 0x10 } else { 0 };
            packet[13] = 0xc0;
            packet[14..16].copy_from_slice(&picture_id.to_be_bytes());
            packet[16] = self.frame as u8;
            packet[17] = u8::from(!is_key_frame); // §4.3: P is 0 on key frames
        }
        packet[HEADER_BYTES..STAMP_END].copy_from_slice(&now_ns.to_be_bytes());
    }
}

/// When each source's next frame is due, in nanoseconds from the start of a slice.
#[derive(Debug)]
pub(super) struct Schedule {
    due: BinaryHeap<Reverse<(u64, usize)>>,
    interval_ns: Vec<u64>,
    /// How much later than planned everything is.
    postponed_ns: u64,
}

impl Schedule {
    pub(super) fn new<'a>(sources: impl Iterator<Item = &'a Source>, scale: f64) -> Self {
        let mut interval_ns = Vec::new();
        let due = sources
            .enumerate()
            .map(|(index, source)| {
                let interval = ((1e9 / (source.frames_per_second * scale)) as u64).max(1);
                interval_ns.push(interval);
                Reverse(((interval as f64 * source.phase) as u64, index))
            })
            .collect();
        Self {
            due,
            interval_ns,
            postponed_ns: 0,
        }
    }

    /// The time of the next frame.
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

    /// How far behind the plan this is at `now`, what was postponed included.
    pub(super) fn lag_ns(&self, now_ns: u64) -> u64 {
        self.postponed_ns + now_ns.saturating_sub(self.next_due())
    }

    /// The source whose frame is due at `now`, if any is.
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

    fn alike(packets: usize, packet_bytes: usize, cut: Cut) -> Source {
        Source::video(7, Frames::Alike { packets, packet_bytes }, cut, packets as f64)
    }

    #[test]
    fn a_schedule_sends_at_its_rate() {
        let sources = [Source::opus(1), alike(8, 1_200, Cut::Equal)];
        let mut schedule = Schedule::new(sources.iter(), 2.0);
        let mut counts = [0; 2];
        while let Some(index) = schedule.pop(999_999_999) {
            counts[index] += 1;
        }
        assert!(
            (99..=101).contains(&counts[0]) && (59..=61).contains(&counts[1]),
            "{counts:?}"
        );
        assert!(schedule.next_due() >= 1_000_000_000);
        assert_eq!(schedule.lag_ns(999_999_999), 0);
    }

    #[test]
    fn a_source_begins_at_its_phase() {
        let mut source = Source::opus(1);
        source.phase = 0.25;
        let mut schedule = Schedule::new([source].iter(), 1.0);
        assert_eq!(schedule.next_due(), 5_000_000);
        assert_eq!(schedule.lag_ns(7_000_000), 2_000_000);
        assert_eq!(schedule.pop(7_000_000), Some(0));
        assert_eq!(schedule.next_due(), 25_000_000);
    }

    #[test]
    fn what_is_postponed_does_not_come_all_at_once() {
        let mut schedule = Schedule::new([Source::opus(1)].iter(), 1.0);
        assert_eq!(schedule.pop(0), Some(0));
        let interval_ns = schedule.next_due();
        schedule.postpone(5 * interval_ns);
        assert_eq!(schedule.pop(5 * interval_ns), None);
        assert_eq!(schedule.next_due(), 6 * interval_ns);
        assert_eq!(schedule.pop(6 * interval_ns), Some(0));
        assert_eq!(schedule.pop(6 * interval_ns), None);
        assert_eq!(schedule.lag_ns(6 * interval_ns), 5 * interval_ns);
    }

    /// The packets of a frame, by its messages.
    fn packets<'a>(frame: &Frame<'a>) -> Vec<&'a [u8]> {
        let messages = frame.messages.iter().flat_map(|message| message.singles());
        let bytes = frame.bytes;
        messages
            .map(|packet| &bytes[packet.start..packet.start + packet.len])
            .collect()
    }

    #[test]
    fn frames_are_valid_vp8_and_carry_when_they_left() {
        use weir_channel::message::CodecName;
        use weir_worker::rtp::{codec::peek, packet::Header};

        let encoder = Frames::Encoder {
            bitrate_bps: 800_000.0,
            packet_bytes_max: 1_200,
        };
        for source in [
            alike(3, 100, Cut::Equal),
            alike(3, 100, Cut::NearlyEqual),
            Source::video(7, encoder, Cut::NearlyEqual, 3.0),
        ] {
            let mut writer = FrameWriter::new(source);
            let mut next_index = 0;
            for number in 0..200 {
                assert_eq!(writer.next_index(), next_index);
                let frame = writer.next_frame(number);
                let packets = packets(&frame);
                assert_eq!(packets.len(), frame.packets);
                for (place, packet) in packets.iter().enumerate() {
                    let header = Header::parse(packet).expect("valid RTP");
                    let peek = peek(CodecName::Vp8, header.payload(packet));
                    assert_eq!(header.ssrc, 7);
                    assert_eq!(u64::from(header.seq), next_index);
                    assert_eq!(header.marker, place + 1 == packets.len());
                    assert!(!peek.key_frame || place == 0);
                    assert!(peek.key_frame || number != 0 || place != 0);
                    let ids = peek.vp8.expect("ids");
                    assert_eq!(ids.picture_id.map(|id| u64::from(id.value)), Some(number));
                    assert_eq!(ids.tl0_pic_idx.map(|tl0| u64::from(tl0.value)), Some(number % 256));
                    assert_eq!(stamp_of(packet), Some(number));
                    assert!(is_ours(packet));
                    next_index += 1;
                }
            }
        }
    }

    #[test]
    fn what_is_not_sent_here_is_told_from_what_is() {
        let mut writer = FrameWriter::new(Source::opus(1));
        let frame = writer.next_frame(5);
        let packet = packets(&frame)[0];
        let mut other = packet.to_vec();
        other[40] ^= 1;
        assert!(!is_ours(&other));
        let mut padded = packet.to_vec();
        padded.extend([0, 0, 3]);
        assert!(!is_ours(&padded));
        padded[0] |= 0x20;
        assert!(is_ours(&padded));
        // More padding than there are bytes.
        padded[0] |= 0x20;
        *padded.last_mut().expect("not empty") = 255;
        assert!(!is_ours(&padded));
        assert!(!is_ours(&packet[..20]) && !is_ours(&[]));
        assert_eq!(stamp_of(&packet[..25]), None);
    }

    #[test]
    fn a_train_is_as_few_messages_as_the_kernel_takes() {
        let mut writer = FrameWriter::new(alike(70, 1_200, Cut::NearlyEqual).for_baseline());
        let frame = writer.next_frame(0);
        assert_eq!(frame.packets, 70);
        let shapes: Vec<_> = frame
            .messages
            .iter()
            .map(|message| (message.start, message.packets()))
            .collect();
        assert_eq!(shapes, [(0, 54), (54 * 1_200, 16)]);
    }

    #[test]
    fn the_rate_of_an_encoder_is_what_it_sends() {
        let frames = Frames::Encoder {
            bitrate_bps: 800_000.0,
            packet_bytes_max: 1_200,
        };
        let expected = packets_per_frame(frames, 1);
        assert!((3.0..3.7).contains(&expected), "{expected}");
        let mut writer = FrameWriter::new(Source::video(7, frames, Cut::NearlyEqual, expected));
        let sent: usize = (0..10_000).map(|_| writer.next_frame(0).packets).sum();
        assert!((0.98..1.02).contains(&(sent as f64 / 10_000.0 / expected)));
        assert_eq!(
            packets_per_frame(
                Frames::Alike {
                    packets: 5,
                    packet_bytes: 100
                },
                1
            ),
            5.0
        );
    }
}
